//! Fuzz entry point of the peers' protocols: reading never panics, every cut of what reads needs more, and what reads is written
//! as what reads to the same.

use std::fmt::Debug;

use crate::wire::election::{Hello, Notification, parse_frame};
use crate::wire::quorum::{PacketLimits, PeerError, QuorumPacket, Step};
use crate::wire::quorum_config::QuorumConfig;
use crate::wire::quorum_payload as payload;

/// Small, so that the limits are reached.
const LIMITS: PacketLimits = PacketLimits { data_bytes_max: 200, authinfo_bytes_max: 60 };

/// The bytes as everything that a peer may send.
pub fn quorum(data: &[u8]) {
    if let Some(packet) = cuts(data, |bytes| QuorumPacket::parse(bytes, &LIMITS)) {
        let _ = packet.authinfo.iter().count();
        let mut again = Vec::new();
        packet.put(&mut again);
        assert_eq!(
            QuorumPacket::parse(&again, &LIMITS),
            Ok(Step::Done { value: packet, consumed: again.len() })
        );
        payloads(packet.data);
    }
    if let Some(hello) = cuts(data, Hello::parse) {
        let _ = hello.addresses().count();
    }
    let _ = cuts(data, parse_frame);
    notification(data);
    payloads(Some(data));
    config(data);
}

/// What `parse` makes of `data`; checks that it makes nothing of less, and asks for more than there is.
fn cuts<'a, T: Copy + Debug>(
    data: &'a [u8],
    parse: impl Fn(&'a [u8]) -> Result<Step<T>, PeerError>,
) -> Option<T> {
    match parse(data) {
        Ok(Step::Done { value, consumed }) => {
            for cut in 0..consumed {
                let step = parse(&data[..cut]);
                assert!(
                    matches!(step, Ok(Step::NeedMore { total }) if total > cut && total <= consumed),
                    "{cut}: {step:?}"
                );
            }
            Some(value)
        }
        Ok(Step::NeedMore { total }) => {
            assert!(total > data.len());
            None
        }
        Err(_) => None,
    }
}

fn notification(data: &[u8]) {
    let Ok(read) = Notification::read(data) else { return };
    let mut again = Vec::new();
    read.put(&mut again);
    let back = Notification::read(&again).expect("what was written can be read");
    assert_eq!(
        (back.leader, back.zxid, back.round, back.peer_epoch),
        (read.leader, read.zxid, read.round, read.peer_epoch)
    );
    assert_eq!(back.config, Some(read.config.unwrap_or_default()));
}

fn payloads(data: Option<&[u8]>) {
    let _ = payload::LearnerInfo::read(data);
    let _ = payload::read_ping_reply(data).map(Iterator::count);
    let _ = payload::read_new_leader(data);
    let Some(data) = data else { return };
    let _ = payload::read_leader_info(data);
    let _ = payload::read_ack_epoch(data);
    let _ = payload::read_revalidate(data);
    let _ = payload::read_revalidate_reply(data);
    let _ = payload::ForwardedRequest::read(data);
    let _ = payload::read_commit_and_activate(data);
    let _ = payload::read_inform_and_activate(data);
}

fn config(data: &[u8]) {
    let Ok(config) = QuorumConfig::parse_bytes(data) else { return };
    let text = config.to_string();
    assert_eq!(QuorumConfig::parse(&text).as_ref(), Ok(&config), "{text}");
    let everybody = config.members().keys().copied().collect();
    let heard = config.contains_quorum(&everybody);
    assert!(heard || config.voters().all(|id| config.weight(id) == 0));
}

#[cfg(test)]
mod tests {
    use crate::base::rng::Rng;
    use crate::testing::fuzz::fill_plausibly;

    #[test]
    fn random_and_mutated_bytes() {
        let mut rng = Rng::new(0x7175_6f72);
        let mut bytes = [0u8; 96];
        for _ in 0..50_000 {
            fill_plausibly(&mut rng, &mut bytes);
            let len = rng.below(bytes.len() as u64 + 1) as usize;
            super::quorum(&bytes[..len]);
        }
    }

    #[test]
    fn configurations_of_random_pieces() {
        const PIECES: [&str; 22] = [
            "server.1=",
            "server.2=",
            "server.-3=",
            "a:1:2",
            "[::1]:1:2",
            ":observer",
            ":participant",
            ";",
            "2181",
            "h:3",
            "|",
            "\n",
            "group.1=",
            "1",
            ":",
            "2",
            "weight.1=",
            "0",
            "version=",
            "ff",
            " ",
            "#",
        ];
        let mut rng = Rng::new(3);
        for _ in 0..30_000 {
            let count = rng.below(16);
            let text: String = (0..count).map(|_| PIECES[rng.below(PIECES.len() as u64) as usize]).collect();
            super::quorum(text.as_bytes());
        }
        super::quorum(b"server.1=a:1:2\nserver.2=b:1:2\ngroup.1=1\ngroup.2=2\nweight.2=0\nversion=1");
    }
}
