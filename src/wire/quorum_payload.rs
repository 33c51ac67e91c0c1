//! What stands in the `data` of a [`QuorumPacket`](super::quorum::QuorumPacket), type by type.
//!
//! - PL1: reading never panics and borrows; what a ZooKeeper leaves out (old learners) is an `Option`, not an error.
//! - PL2: records of a fixed length refuse other lengths, except LearnerInfo, which has three and ignores what follows.
//! - PL3: Zabra nodes know each other by [`ZABRA_MARK`] behind LearnerInfo and LEADERINFO, where ZooKeeper does not look.

use super::jute::{JuteError, PutJute, Reader};
use super::quorum::PeerError;
use super::quorum_config::{QuorumConfig, QuorumConfigError};
use crate::base::{Epoch, ServerId, SessionId};

/// Version of the protocol between learners and leader, from ZooKeeper 3.4 to 3.9. Below it there is no LEADERINFO.
pub const PROTOCOL_VERSION: i32 = 0x10000;

/// "Zbr" and a version: the sender probes and answers probes at any time, and understands cumulative ACK and COMMIT.
pub const ZABRA_MARK: i32 = 0x5a62_7201;

/// In place of [`ZABRA_MARK`]: the same, and the learner must be sent a whole state, whatever its last zxid is, for its own is not to be trusted.
pub const ZABRA_MARK_NO_STATE: i32 = 0x5a62_7281;

/// FOLLOWERINFO and OBSERVERINFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnerInfo {
    /// `None`: an old learner; the leader numbers it below zero.
    pub server: Option<ServerId>,
    /// [`PROTOCOL_VERSION`]; `None` before 3.4.
    pub protocol_version: Option<i32>,
    /// Version of the learner's active configuration; `None` before 3.5.
    pub config_version: Option<i64>,
    /// [`ZABRA_MARK`] follows.
    pub zabra: bool,
    /// [`ZABRA_MARK_NO_STATE`] follows.
    pub needs_state: bool,
}

impl LearnerInfo {
    /// Reads null, 8, 12 or 20 bytes; bytes between and behind count for nothing, as in ZooKeeper.
    pub fn read(data: Option<&[u8]>) -> Result<LearnerInfo, PeerError> {
        let Some(data) = data else {
            return Ok(LearnerInfo {
                server: None,
                protocol_version: None,
                config_version: None,
                zabra: false,
                needs_state: false,
            });
        };
        let mut r = Reader::new(data);
        let server = r.long().map(ServerId).map_err(record("LearnerInfo"))?;
        let protocol_version = r.int().ok();
        let config_version = protocol_version.and_then(|_| r.long().ok());
        let mark = config_version.and_then(|_| r.int().ok());
        let needs_state = mark == Some(ZABRA_MARK_NO_STATE);
        let zabra = needs_state || mark == Some(ZABRA_MARK);
        Ok(LearnerInfo { server: Some(server), protocol_version, config_version, zabra, needs_state })
    }

    /// Appends the record, up to the first field that is not there.
    pub fn put(&self, out: &mut Vec<u8>) {
        let Some(server) = self.server else { return };
        out.put_long(server.0);
        let Some(version) = self.protocol_version else { return };
        out.put_int(version);
        let Some(config) = self.config_version else { return };
        out.put_long(config);
        if self.zabra {
            out.put_int(if self.needs_state { ZABRA_MARK_NO_STATE } else { ZABRA_MARK });
        }
    }
}

/// LEADERINFO: the leader's protocol version, and whether it is a Zabra node.
pub fn read_leader_info(data: &[u8]) -> Result<(i32, bool), PeerError> {
    // ZooKeeper reads the first four bytes and no more.
    let mut r = Reader::new(data);
    let version = r.int().map_err(record("LEADERINFO"))?;
    Ok((version, r.int() == Ok(ZABRA_MARK)))
}

/// Appends LEADERINFO's data.
pub fn put_leader_info(out: &mut Vec<u8>) {
    out.put_int(PROTOCOL_VERSION);
    out.put_int(ZABRA_MARK);
}

/// ACKEPOCH: the learner's current epoch; `None` (-1 on the wire) when it had accepted the proposed epoch before, so that the
/// leader must not count it again.
pub fn read_ack_epoch(data: &[u8]) -> Result<Option<Epoch>, PeerError> {
    match Reader::new(data).int().map_err(record("ACKEPOCH"))? {
        -1 => Ok(None),
        epoch => u32::try_from(epoch)
            .map(|epoch| Some(Epoch(epoch)))
            .map_err(|_| PeerError::Unknown { what: "ACKEPOCH", found: epoch.into() }),
    }
}

/// Appends ACKEPOCH's data.
pub fn put_ack_epoch(out: &mut Vec<u8>, epoch: Option<Epoch>) {
    out.put_int(epoch.map_or(-1, |epoch| epoch.0 as i32));
}

/// One session a learner heard of since the last PING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The session.
    pub session: SessionId,
    /// Its timeout, ms.
    pub timeout_ms: i32,
}

impl Touch {
    /// Bytes on the wire.
    pub const BYTES: usize = 12;

    fn read(r: &mut Reader<'_>) -> Result<Touch, JuteError> {
        Ok(Touch { session: SessionId(r.long()?), timeout_ms: r.int()? })
    }

    /// Appends the record: an entry of a PING reply, or REVALIDATE's data.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_long(self.session.0);
        out.put_int(self.timeout_ms);
    }
}

/// The sessions in a learner's reply to PING; null and empty are none. A last entry cut short is refused before the first is given.
pub fn read_ping_reply(data: Option<&[u8]>) -> Result<impl Iterator<Item = Touch> + '_, PeerError> {
    let data = data.unwrap_or_default();
    let extra = data.len() % Touch::BYTES;
    if extra != 0 {
        return Err(PeerError::Trailing { what: "PING", bytes: extra });
    }
    let entries = data.chunks_exact(Touch::BYTES);
    Ok(entries.map(|entry| Touch::read(&mut Reader::new(entry)).expect("chunks of an entry's size")))
}

/// REVALIDATE: is this session alive, with this timeout?
pub fn read_revalidate(data: &[u8]) -> Result<Touch, PeerError> {
    whole(data, "REVALIDATE", Touch::read)
}

/// Reply to REVALIDATE.
pub fn read_revalidate_reply(data: &[u8]) -> Result<(SessionId, bool), PeerError> {
    whole(data, "REVALIDATE reply", |r| Ok((SessionId(r.long()?), r.boolean()?)))
}

/// Appends the data of a reply to REVALIDATE.
pub fn put_revalidate_reply(out: &mut Vec<u8>, session: SessionId, valid: bool) {
    out.put_long(session.0);
    out.put_boolean(valid);
}

/// A client's write, or its sync, on its way to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedRequest<'a> {
    /// Whose.
    pub session: SessionId,
    /// The client's xid.
    pub cxid: i32,
    /// Operation number.
    pub op: i32,
    /// The request's record, as the client sent it.
    pub body: &'a [u8],
}

impl<'a> ForwardedRequest<'a> {
    /// Reads REQUEST's data.
    pub fn read(data: &'a [u8]) -> Result<ForwardedRequest<'a>, PeerError> {
        let mut r = Reader::new(data);
        let mut head = || Ok((SessionId(r.long()?), r.int()?, r.int()?));
        let (session, cxid, op) = head().map_err(record("REQUEST"))?;
        Ok(ForwardedRequest { session, cxid, op, body: r.rest() })
    }

    /// Appends the data.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_long(self.session.0);
        out.put_int(self.cxid);
        out.put_int(self.op);
        out.extend_from_slice(self.body);
    }
}

/// NEWLEADER: the leader's configuration. Null, and up to one byte (old leaders), are none.
pub fn read_new_leader(data: Option<&[u8]>) -> Result<Option<QuorumConfig>, QuorumConfigError> {
    data.filter(|data| data.len() > 1).map(QuorumConfig::parse_bytes).transpose()
}

/// COMMITANDACTIVATE: who shall lead under the new configuration.
pub fn read_commit_and_activate(data: &[u8]) -> Result<ServerId, PeerError> {
    whole(data, "COMMITANDACTIVATE", |r| r.long().map(ServerId))
}

/// INFORMANDACTIVATE: who shall lead, and the proposal's data.
pub fn read_inform_and_activate(data: &[u8]) -> Result<(ServerId, &[u8]), PeerError> {
    let mut r = Reader::new(data);
    let leader = r.long().map(ServerId).map_err(record("INFORMANDACTIVATE"))?;
    Ok((leader, r.rest()))
}

fn record(what: &'static str) -> impl Fn(JuteError) -> PeerError {
    move |source| PeerError::Record { what, source }
}

/// Reads a record that takes all of `data`.
fn whole<'a, T>(
    data: &'a [u8],
    what: &'static str,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, JuteError>,
) -> Result<T, PeerError> {
    let mut r = Reader::new(data);
    let value = read(&mut r).map_err(record(what))?;
    if r.left() > 0 { Err(PeerError::Trailing { what, bytes: r.left() }) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        f(&mut out);
        out
    }

    #[test]
    fn learner_info_of_every_length() {
        let info = |server, protocol_version, config_version| LearnerInfo {
            server,
            protocol_version,
            config_version,
            zabra: false,
            needs_state: false,
        };
        let full = info(Some(ServerId(2)), Some(PROTOCOL_VERSION), Some(9));
        let bytes = put(|out| full.put(out));
        assert_eq!(bytes, b"\0\0\0\0\0\0\0\x02\0\x01\0\0\0\0\0\0\0\0\0\x09");
        for len in 0..=bytes.len() {
            let read = LearnerInfo::read(Some(&bytes[..len]));
            match len {
                0..8 => assert!(read.is_err()),
                8..12 => assert_eq!(read, Ok(info(Some(ServerId(2)), None, None))),
                12..20 => assert_eq!(read, Ok(info(Some(ServerId(2)), Some(PROTOCOL_VERSION), None))),
                _ => assert_eq!(read, Ok(full)),
            }
        }
        assert_eq!(LearnerInfo::read(None), Ok(info(None, None, None)));
        let zabra = LearnerInfo { zabra: true, ..full };
        let marked = put(|out| zabra.put(out));
        assert_eq!(LearnerInfo::read(Some(&marked)), Ok(zabra));
        let empty = LearnerInfo { needs_state: true, ..zabra };
        assert_eq!(LearnerInfo::read(Some(&put(|out| empty.put(out)))), Ok(empty));
        assert_eq!((marked.len(), LearnerInfo::read(Some(&marked[..23]))), (24, Ok(full)));
    }

    #[test]
    fn epochs_of_leader_and_learner() {
        assert_eq!(read_leader_info(&put(put_leader_info)), Ok((0x10000, true)));
        assert_eq!(read_leader_info(b"\0\x01\0\0"), Ok((0x10000, false)), "as ZooKeeper sends it");
        assert!(read_leader_info(b"\0\0\0").is_err());
        for epoch in [None, Some(Epoch(0)), Some(Epoch(7))] {
            assert_eq!(read_ack_epoch(&put(|out| put_ack_epoch(out, epoch))), Ok(epoch));
        }
        assert_eq!(put(|out| put_ack_epoch(out, None)), [255; 4]);
        assert!(read_ack_epoch(&(-2i32).to_be_bytes()).is_err());
        assert!(read_ack_epoch(&[]).is_err());
    }

    #[test]
    fn sessions_in_pings_and_revalidations() {
        let touch = |session, timeout_ms| Touch { session: SessionId(session), timeout_ms };
        let bytes = put(|out| [touch(1, 4_000), touch(-2, 5)].iter().for_each(|t| t.put(out)));
        let read: Vec<Touch> = read_ping_reply(Some(&bytes)).unwrap().collect();
        assert_eq!(read, [touch(1, 4_000), touch(-2, 5)]);
        assert_eq!(read_ping_reply(None).unwrap().count(), 0);
        assert!(read_ping_reply(Some(&bytes[..23])).is_err());
        assert_eq!(read_revalidate(&bytes[..12]), Ok(touch(1, 4_000)));
        assert!(read_revalidate(&bytes[..11]).is_err() && read_revalidate(&bytes[..13]).is_err());
        let reply = put(|out| put_revalidate_reply(out, SessionId(3), true));
        assert_eq!(reply, b"\0\0\0\0\0\0\0\x03\x01");
        assert_eq!(read_revalidate_reply(&reply), Ok((SessionId(3), true)));
        assert!(read_revalidate_reply(&reply[..8]).is_err());
    }

    #[test]
    fn requests_and_activations() {
        let request = ForwardedRequest { session: SessionId(5), cxid: -2, op: 9, body: b"/a" };
        let bytes = put(|out| request.put(out));
        assert_eq!(bytes, b"\0\0\0\0\0\0\0\x05\xff\xff\xff\xfe\0\0\0\x09/a");
        assert_eq!(ForwardedRequest::read(&bytes), Ok(request));
        assert!(ForwardedRequest::read(&bytes[..15]).is_err());
        assert_eq!(read_commit_and_activate(&[0, 0, 0, 0, 0, 0, 0, 4]), Ok(ServerId(4)));
        assert!(read_commit_and_activate(&[0; 9]).is_err());
        assert_eq!(read_inform_and_activate(b"\0\0\0\0\0\0\0\x04txn"), Ok((ServerId(4), &b"txn"[..])));
        assert!(read_inform_and_activate(&[0; 7]).is_err());
    }

    #[test]
    fn a_new_leader_names_its_configuration() {
        assert_eq!(read_new_leader(None), Ok(None));
        assert_eq!(read_new_leader(Some(b"\0")), Ok(None));
        let text = b"server.1=a:1:2:participant\nversion=0";
        assert_eq!(read_new_leader(Some(text)).unwrap().unwrap().to_string().as_bytes(), text);
        assert!(read_new_leader(Some(b"version=0")).is_err());
    }
}
