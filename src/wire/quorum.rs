//! QuorumPackets: what leader and learners say to each other on the quorum port.
//!
//! A packet is `int type, long zxid, buffer data, vector<Id{scheme, id}> authinfo`, one after another, with no length of the whole:
//! where a packet ends is known only by reading its fields. [`QuorumPacket::parse`] reads from a receive buffer that may end
//! anywhere; the payloads inside `data` are in [`payload`](super::quorum_payload).
//!
//! - QP1: a prefix of a packet is [`Step::NeedMore`] and never an error, unless the lengths in it are beyond their limit.
//! - QP2: `NeedMore` says how many bytes there must be before it is worth asking again; that number is bounded by
//!   [`PacketLimits`], so a peer cannot make the buffer grow further.
//! - QP3: a packet borrows from the buffer. Unknown types are packets too: ZooKeeper's learners skip them with a warning.

use super::jute::{JuteError, PutJute, Reader};
use crate::base::Zxid;
use crate::base::limits::PAYLOAD_BYTES_MAX;

/// Largest authinfo, bytes: the identities of one client. A client sends each in a frame of its own; 1 MiB is thousands.
pub const AUTHINFO_BYTES_MAX: usize = 1 << 20;

/// Identities in one authinfo. Each `auth` request of a client adds one.
pub const AUTHINFO_COUNT_MAX: usize = 4_096;

/// Bytes of a packet beside data and authinfo's entries: type, zxid, length of data, count of authinfo.
pub const PACKET_HEAD_BYTES: usize = 4 + 8 + 4 + 4;

/// Where data begins.
const DATA_AT: usize = 4 + 8 + 4;

/// What reading from a receive buffer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// The buffer ends inside. Nothing can come of it before it holds `total` bytes (more than it does).
    NeedMore {
        /// Bytes from the start of the buffer.
        total: usize,
    },
    /// One value, and the bytes it took.
    Done {
        /// What was read.
        value: T,
        /// Bytes from the start of the buffer.
        consumed: usize,
    },
}

/// Why bytes are not what a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// A length or count that is negative or beyond its limit.
    #[error("{what} of {found}, at most {max} allowed")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The length found.
        found: i64,
        /// The limit.
        max: usize,
    },
    /// A payload that is no record of its type.
    #[error("{what}: {source}")]
    Record {
        /// Which payload.
        what: &'static str,
        /// Where it fails.
        source: JuteError,
    },
    /// A packet whose type needs data has none.
    #[error("{what} without data")]
    NoData {
        /// Which payload.
        what: &'static str,
    },
    /// A payload with bytes behind its end.
    #[error("{what} with {bytes} bytes too many")]
    Trailing {
        /// Which payload.
        what: &'static str,
        /// Bytes left over.
        bytes: usize,
    },
    /// A first long that is neither a server id nor a version there is.
    #[error("protocol version {0} of the election is not known")]
    Version(i64),
    /// An address that is not `host:port`.
    #[error("{what} is not host:port")]
    Address {
        /// Which address.
        what: &'static str,
    },
    /// A number that no server sends.
    #[error("{what} {found} is not known")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// The number.
        found: i64,
    },
}

/// Types of packets; the names are ZooKeeper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table in the ZooKeeper protocol is their documentation")]
pub enum PacketKind {
    Request,
    Proposal,
    Ack,
    Commit,
    Ping,
    Revalidate,
    Sync,
    Inform,
    CommitAndActivate,
    NewLeader,
    FollowerInfo,
    UpToDate,
    Diff,
    Trunc,
    Snap,
    ObserverInfo,
    LeaderInfo,
    AckEpoch,
    InformAndActivate,
    /// A number that is none of them.
    Other(i32),
}

impl PacketKind {
    /// All that have a name, with their numbers.
    pub const ALL: [(i32, PacketKind); 19] = [
        (1, PacketKind::Request),
        (2, PacketKind::Proposal),
        (3, PacketKind::Ack),
        (4, PacketKind::Commit),
        (5, PacketKind::Ping),
        (6, PacketKind::Revalidate),
        (7, PacketKind::Sync),
        (8, PacketKind::Inform),
        (9, PacketKind::CommitAndActivate),
        (10, PacketKind::NewLeader),
        (11, PacketKind::FollowerInfo),
        (12, PacketKind::UpToDate),
        (13, PacketKind::Diff),
        (14, PacketKind::Trunc),
        (15, PacketKind::Snap),
        (16, PacketKind::ObserverInfo),
        (17, PacketKind::LeaderInfo),
        (18, PacketKind::AckEpoch),
        (19, PacketKind::InformAndActivate),
    ];

    /// From the number on the wire.
    #[must_use]
    pub fn from_i32(number: i32) -> PacketKind {
        let index = usize::try_from(number).unwrap_or(0).wrapping_sub(1);
        PacketKind::ALL.get(index).map_or(PacketKind::Other(number), |(_, kind)| *kind)
    }

    /// The number on the wire.
    #[must_use]
    pub fn to_i32(self) -> i32 {
        match self {
            PacketKind::Other(number) => number,
            named => PacketKind::ALL.iter().find(|(_, k)| *k == named).map_or(0, |(number, _)| *number),
        }
    }
}

/// How large a packet may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLimits {
    /// Bytes of data.
    pub data_bytes_max: usize,
    /// Bytes of authinfo's entries.
    pub authinfo_bytes_max: usize,
}

impl Default for PacketLimits {
    /// What a log record may hold, with a designated leader (8) before it.
    fn default() -> PacketLimits {
        PacketLimits { data_bytes_max: PAYLOAD_BYTES_MAX + 8, authinfo_bytes_max: AUTHINFO_BYTES_MAX }
    }
}

impl PacketLimits {
    /// Largest packet: what a receive buffer must be able to hold.
    #[must_use]
    pub const fn packet_bytes_max(&self) -> usize {
        PACKET_HEAD_BYTES + self.data_bytes_max + self.authinfo_bytes_max
    }
}

/// One identity of a client. `None` is a null string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthId<'a> {
    /// `digest`, `ip`, …
    pub scheme: Option<&'a str>,
    /// What the scheme makes of it.
    pub id: Option<&'a str>,
}

/// A `vector<Id>`: checked once when read, then walked without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthIds<'a> {
    count: Option<usize>,
    raw: &'a [u8],
}

impl<'a> AuthIds<'a> {
    /// A null vector: what all packets but REQUEST have.
    pub const NULL: AuthIds<'static> = AuthIds { count: None, raw: &[] };

    /// True for null, which is not the same as no entries.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        self.count.is_none()
    }

    /// The entries as they travel: equal bytes are equal identities.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = AuthId<'a>> + use<'a> {
        let mut r = Reader::new(self.raw);
        let mut string = move || r.ustring_or_null().expect("checked when the packet was read");
        (0..self.count.unwrap_or(0)).map(move |_| AuthId { scheme: string(), id: string() })
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_int(self.count.map_or(-1, |n| i32::try_from(n).expect("at most AUTHINFO_COUNT_MAX")));
        out.extend_from_slice(self.raw);
    }
}

/// One packet, borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumPacket<'a> {
    /// Its type.
    pub kind: PacketKind,
    /// What it is about; -1 where the type needs none.
    pub zxid: i64,
    /// By type.
    pub data: Option<&'a [u8]>,
    /// The client's identities in a REQUEST.
    pub authinfo: AuthIds<'a>,
}

impl<'a> QuorumPacket<'a> {
    /// A packet without authinfo.
    #[must_use]
    pub const fn new(kind: PacketKind, zxid: Zxid, data: Option<&'a [u8]>) -> QuorumPacket<'a> {
        QuorumPacket { kind, zxid: zxid.to_wire(), data, authinfo: AuthIds::NULL }
    }

    /// Reads the packet at the start of `buf`.
    pub fn parse(buf: &'a [u8], limits: &PacketLimits) -> Result<Step<QuorumPacket<'a>>, PeerError> {
        if buf.len() < DATA_AT {
            return Ok(Step::NeedMore { total: PACKET_HEAD_BYTES });
        }
        let data_bytes = length(int_at(buf, DATA_AT - 4), limits.data_bytes_max, "data")?;
        let authinfo_at = DATA_AT + data_bytes.unwrap_or(0);
        if buf.len() < authinfo_at + 4 {
            return Ok(Step::NeedMore { total: authinfo_at + 4 });
        }
        let count = authinfo_count(int_at(buf, authinfo_at))?;
        let raw_at = authinfo_at + 4;
        let mut end = raw_at;
        for _ in 0..2 * count.unwrap_or(0) {
            if buf.len() < end + 4 {
                return Ok(Step::NeedMore { total: end + 4 });
            }
            let room = (raw_at + limits.authinfo_bytes_max).saturating_sub(end + 4);
            end += 4 + length(int_at(buf, end), room, "authinfo")?.unwrap_or(0);
        }
        if buf.len() < end {
            return Ok(Step::NeedMore { total: end });
        }
        let value = QuorumPacket {
            kind: PacketKind::from_i32(int_at(buf, 0)),
            zxid: i64::from_be_bytes(array_at(buf, 4)),
            data: data_bytes.map(|bytes| &buf[DATA_AT..DATA_AT + bytes]),
            authinfo: AuthIds { count, raw: &buf[raw_at..end] },
        };
        Ok(Step::Done { value, consumed: end })
    }

    /// Appends the packet.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_int(self.kind.to_i32());
        out.put_long(self.zxid);
        out.put_buffer(self.data);
        self.authinfo.put(out);
    }

    /// The data of a packet whose type needs it.
    pub fn data_of(&self, what: &'static str) -> Result<&'a [u8], PeerError> {
        self.data.ok_or(PeerError::NoData { what })
    }
}

/// Appends a packet of which `payload` writes the data in place, so that nothing is copied; authinfo null.
pub fn put_packet(out: &mut Vec<u8>, kind: PacketKind, zxid: Zxid, payload: impl FnOnce(&mut Vec<u8>)) {
    put_packet_head(out, kind, zxid.to_wire(), payload);
    out.put_int(-1);
}

/// The same with `ids` as authinfo and no zxid: a REQUEST.
pub fn put_request<'a>(
    out: &mut Vec<u8>,
    ids: impl IntoIterator<Item = AuthId<'a>>,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    put_packet_head(out, PacketKind::Request, -1, payload);
    let at = out.reserve_int();
    let mut count = 0;
    for id in ids {
        out.put_buffer(id.scheme.map(str::as_bytes));
        out.put_buffer(id.id.map(str::as_bytes));
        count += 1;
    }
    out.fill_int(at, count);
}

fn put_packet_head(out: &mut Vec<u8>, kind: PacketKind, zxid: i64, payload: impl FnOnce(&mut Vec<u8>)) {
    out.put_int(kind.to_i32());
    out.put_long(zxid);
    let at = out.reserve_int();
    payload(out);
    out.fill_length(at);
}

/// `None` for null (-1).
fn length(found: i32, max: usize, what: &'static str) -> Result<Option<usize>, PeerError> {
    match usize::try_from(found) {
        Ok(bytes) if bytes <= max => Ok(Some(bytes)),
        Err(_) if found == -1 => Ok(None),
        _ => Err(PeerError::Limit { what, found: found.into(), max }),
    }
}

/// Counts below -1 act as empty, as in ZooKeeper's `startVector`.
fn authinfo_count(found: i32) -> Result<Option<usize>, PeerError> {
    match found {
        -1 => Ok(None),
        found if found < 0 => Ok(Some(0)),
        found => length(found, AUTHINFO_COUNT_MAX, "authinfo count"),
    }
}

fn int_at(buf: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array_at(buf, at))
}

/// The caller has checked that the bytes are there.
fn array_at<const N: usize>(buf: &[u8], at: usize) -> [u8; N] {
    buf[at..at + N].try_into().expect("a range of N bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PacketLimits = PacketLimits { data_bytes_max: 1_000, authinfo_bytes_max: 100 };

    fn request() -> Vec<u8> {
        let mut out = Vec::new();
        let ids =
            [AuthId { scheme: Some("ip"), id: Some("127.0.0.1") }, AuthId { scheme: None, id: Some("") }];
        put_request(&mut out, ids, |data| data.extend_from_slice(b"xyz"));
        out
    }

    #[test]
    fn a_commit_is_twenty_bytes() {
        let mut out = Vec::new();
        QuorumPacket::new(PacketKind::Commit, Zxid(0x1_0000_0007), None).put(&mut out);
        assert_eq!(out, b"\0\0\0\x04\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn a_request_carries_its_clients_identities() {
        let bytes = request();
        let head = b"\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x03xyz\0\0\0\x02\0\0\0\x02ip\0\0\0\x09127.0.0.1";
        assert_eq!(bytes, [&head[..], b"\xff\xff\xff\xff\0\0\0\0"].concat());
        let Step::Done { value, consumed } = QuorumPacket::parse(&bytes, &LIMITS).unwrap() else { panic!() };
        assert_eq!(
            (value.kind, value.zxid, value.data, consumed),
            (PacketKind::Request, -1, Some(&b"xyz"[..]), 50)
        );
        let ids: Vec<AuthId<'_>> = value.authinfo.iter().collect();
        assert_eq!(ids[0], AuthId { scheme: Some("ip"), id: Some("127.0.0.1") });
        assert_eq!(ids[1], AuthId { scheme: None, id: Some("") });
        let mut again = Vec::new();
        value.put(&mut again);
        assert_eq!(again, bytes);
    }

    #[test]
    fn every_cut_needs_more_and_says_how_much() {
        let bytes = request();
        for cut in 0..bytes.len() {
            let Ok(Step::NeedMore { total }) = QuorumPacket::parse(&bytes[..cut], &LIMITS) else {
                panic!("a cut at {cut} is not an error");
            };
            assert!(total > cut && total <= bytes.len(), "{cut}: {total}");
        }
        // What follows belongs to the next packet.
        let two = [bytes.clone(), bytes.clone()].concat();
        assert!(
            matches!(QuorumPacket::parse(&two, &LIMITS), Ok(Step::Done { consumed, .. }) if consumed == bytes.len())
        );
    }

    #[test]
    fn lengths_beyond_their_limit_are_refused_before_the_bytes_come() {
        let packet = |len: i32, rest: &[u8]| [&[0; 12][..], &len.to_be_bytes(), rest].concat();
        let parse = |bytes: &[u8]| QuorumPacket::parse(bytes, &LIMITS).map(|_| ());
        assert!(parse(&packet(1_000, &[])).is_ok());
        assert_eq!(
            parse(&packet(1_001, &[])),
            Err(PeerError::Limit { what: "data", found: 1_001, max: 1_000 })
        );
        assert!(parse(&packet(-2, &[])).is_err());
        let count = |n: i32, rest: &[u8]| packet(-1, &[&n.to_be_bytes(), rest].concat());
        assert!(parse(&count(AUTHINFO_COUNT_MAX as i32 + 1, &[])).is_err());
        assert!(parse(&count(1, &96i32.to_be_bytes())).is_ok());
        assert!(parse(&count(1, &97i32.to_be_bytes())).is_err());
        assert_eq!(LIMITS.packet_bytes_max(), 1_120);
    }

    #[test]
    fn kinds_and_numbers_agree() {
        for (number, kind) in PacketKind::ALL {
            assert_eq!((PacketKind::from_i32(number), kind.to_i32()), (kind, number));
        }
        for number in [0, -1, 20, i32::MIN, i32::MAX] {
            assert_eq!(PacketKind::from_i32(number), PacketKind::Other(number));
            assert_eq!(PacketKind::Other(number).to_i32(), number);
        }
    }

    proptest! {
        #[test]
        fn packets_come_back_as_they_went(
            number in 0..21i32,
            zxid: i64,
            data in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
            ids in proptest::collection::vec(("[a-z]{0,5}", "[ -~]{0,9}"), 0..3),
        ) {
            let mut authinfo = Vec::new();
            for (scheme, id) in &ids {
                authinfo.put_ustring(scheme);
                authinfo.put_ustring(id);
            }
            let authinfo = AuthIds { count: Some(ids.len()), raw: &authinfo };
            let packet = QuorumPacket { kind: PacketKind::from_i32(number), zxid, data: data.as_deref(), authinfo };
            let mut out = Vec::new();
            packet.put(&mut out);
            let step = QuorumPacket::parse(&out, &LIMITS);
            prop_assert_eq!(step, Ok(Step::Done { value: packet, consumed: out.len() }));
            for cut in 0..out.len() {
                let needs_more = matches!(QuorumPacket::parse(&out[..cut], &LIMITS), Ok(Step::NeedMore { .. }));
                prop_assert!(needs_more);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..80)) {
            let _ = QuorumPacket::parse(&bytes, &LIMITS);
        }
    }
}
