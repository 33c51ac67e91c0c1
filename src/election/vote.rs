//! Votes: their order, and when two of them say the same.

use crate::base::ServerId;
use crate::wire::election::PeerState;
use crate::wire::quorum_config::Electorate;

/// A zxid that is no vote: a server that must not be elected before it has synchronised.
pub const NO_ZXID: i64 = -1;

/// Whom a server wants to lead, and what that server has. Numbers are signed, as they travel: a server without a vote proposes
/// [`Vote::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The server proposed.
    pub leader: ServerId,
    /// Its last logged zxid.
    pub zxid: i64,
    /// Its current epoch.
    pub epoch: i64,
}

impl Vote {
    /// What a server proposes that has no vote: below every other.
    pub const NONE: Vote = Vote { leader: ServerId(i64::MIN), zxid: i64::MIN, epoch: i64::MIN };

    /// EL2: does it beat `old`? One for a server that may not lead beats none.
    pub(super) fn beats(&self, old: &Vote, electorate: &Electorate) -> bool {
        let rank = |vote: &Vote| (electorate.may_lead(vote.leader), vote.rank());
        electorate.may_lead(self.leader) && rank(self) > rank(old)
    }

    /// Is it for a server that has nothing an ensemble could have acknowledged: it has never been in an epoch (what it has, it has from a
    /// time when it was alone), or in one that went no further than the election which a server with this `accepted` epoch took part in?
    #[must_use]
    pub const fn is_of_new_ensemble(&self, accepted: i64) -> bool {
        self.epoch <= 0 || (self.zxid <= 0 && self.epoch <= accepted)
    }

    /// Order of votes: epoch, then zxid, then id.
    #[must_use]
    pub const fn rank(&self) -> (i64, i64, i64) {
        (self.epoch, self.zxid, self.leader.0)
    }
}

/// A vote as one server cast it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ballot {
    pub(super) vote: Vote,
    pub(super) round: i64,
    /// The caster's.
    pub(super) state: PeerState,
    /// Of the caster's notifications; 0 is before ZooKeeper 3.4.6.
    pub(super) version: i32,
}

impl Ballot {
    /// Do two ballots support the same leadership?
    ///
    /// While one of the casters is looking, all numbers must agree. Among servers that have settled, round and zxid differ for
    /// good reasons (each was told about the leader at its own time), and so does the epoch where a server that does not say its
    /// version is involved.
    pub(super) fn agrees(&self, other: &Ballot) -> bool {
        let same_leader = self.vote.leader == other.vote.leader;
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return self.vote == other.vote && self.round == other.round;
        }
        let mixed = (self.version > 0) != (other.version > 0);
        same_leader && (mixed || self.vote.epoch == other.vote.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(leader: i64, zxid: i64, epoch: i64) -> Vote {
        Vote { leader: ServerId(leader), zxid, epoch }
    }

    #[test]
    fn epoch_counts_before_zxid_and_zxid_before_id() {
        let ascending =
            [Vote::NONE, vote(9, 9, 0), vote(9, 8, 1), vote(1, 9, 1), vote(2, 9, 1), vote(1, 10, 1)];
        assert!(ascending.windows(2).all(|w| w[0].rank() < w[1].rank()));
    }

    #[test]
    fn equality_depends_on_state_and_version() {
        use PeerState::{Following, Leading, Looking};
        let ballot = |vote, round, state, version| Ballot { vote, round, state, version };
        let base = ballot(vote(1, 5, 2), 3, Following, 2);
        assert!(base.agrees(&ballot(vote(1, 9, 2), 8, Leading, 2)), "settled: id and epoch");
        assert!(!base.agrees(&ballot(vote(1, 5, 3), 3, Leading, 2)));
        assert!(!base.agrees(&ballot(vote(2, 5, 2), 3, Leading, 2)));
        assert!(base.agrees(&ballot(vote(1, 5, 3), 3, Leading, 0)), "settled, one without version: id");
        assert!(base.agrees(&ballot(vote(1, 5, 2), 3, Looking, 0)), "looking: everything");
        for other in [vote(1, 5, 3), vote(1, 6, 2), vote(2, 5, 2)] {
            assert!(!base.agrees(&ballot(other, 3, Looking, 2)));
        }
        assert!(!base.agrees(&ballot(vote(1, 5, 2), 4, Looking, 2)));
    }
}
