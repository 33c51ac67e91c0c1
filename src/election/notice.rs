//! Notifications as the machine sees them: owned, with the configuration parsed.

use std::sync::Arc;

use super::vote::Vote;
use crate::base::ServerId;
use crate::wire::election::{NOTIFICATION_VERSION, Notification, PeerState};
use crate::wire::quorum::PeerError;
use crate::wire::quorum_config::QuorumConfig;

/// How far ahead of this server's a round may be to be believed. Rounds grow by one per election, so that no healthy ensemble gets
/// there; believing any number would let one broken message use up all rounds.
pub const ROUND_AHEAD_MAX: i64 = 1 << 32;

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The sender's.
    pub state: PeerState,
    /// What it proposes, or what it has settled on.
    pub vote: Vote,
    /// The round of that vote.
    pub round: i64,
    /// 0 when the sender does not say.
    pub version: i32,
    /// The sender's configuration, if it sends one that can be read.
    pub config: Option<Arc<QuorumConfig>>,
}

impl Notice {
    /// Reads a frame of the election port. A configuration that cannot be read costs itself alone, as in ZooKeeper.
    pub fn read(message: &[u8]) -> Result<Notice, PeerError> {
        let n = Notification::read(message)?;
        Ok(Notice {
            state: n.state,
            vote: Vote { leader: ServerId(n.leader), zxid: n.zxid, epoch: n.peer_epoch },
            round: n.round,
            version: n.version,
            config: n.config.and_then(|text| QuorumConfig::parse_bytes(text).ok()).map(Arc::new),
        })
    }

    /// Appends the frame's content.
    pub fn put(&self, out: &mut Vec<u8>) {
        let n = Notification {
            state: self.state,
            leader: self.vote.leader.0,
            zxid: self.vote.zxid,
            round: self.round,
            peer_epoch: self.vote.epoch,
            version: NOTIFICATION_VERSION,
            config: None,
        };
        let text = self.config.as_ref().map(ToString::to_string).unwrap_or_default();
        n.put_with(out, |out| out.extend_from_slice(text.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_come_back_as_they_went() {
        let config = QuorumConfig::parse("server.1=a:1:2\nversion=5").unwrap();
        let vote = Vote { leader: ServerId(1), zxid: -1, epoch: 4 };
        let notice =
            Notice { state: PeerState::Leading, vote, round: 9, version: 2, config: Some(Arc::new(config)) };
        let mut out = Vec::new();
        notice.put(&mut out);
        assert_eq!(Notice::read(&out), Ok(notice.clone()));
        // A configuration that is none costs itself alone.
        let last = out.len() - 1;
        out[last] = b'x';
        assert_eq!(Notice::read(&out), Ok(Notice { config: None, ..notice }));
    }
}
