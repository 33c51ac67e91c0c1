//! The election port: how a connection begins, frames, and the notification of fast leader election.
//!
//! - E1: a prefix of a [`Hello`] or of a frame is [`Step::NeedMore`], never an error, unless a length in it is beyond its limit.
//! - E2: a notification of any age is read (28 bytes: no peer epoch; 40: no version; from 44: with configuration); one that is
//!   cut short or lies about its lengths is refused as a whole.
//! - E3: numbers stay as they travel: an observer proposes `i64::MIN` for id, zxid and epoch; a zxid of -1 is no vote.

use super::jute::{JuteError, PutJute, Reader};
use super::quorum::{PeerError, Step};
use super::quorum_config::HostPort;
use crate::base::{ServerId, Zxid};

/// First long of a connection with one address (ZooKeeper 3.5 on).
pub const HELLO_V1: i64 = -65_536;

/// First long of a connection with several addresses (3.6 on, only with `multiAddress.enabled`).
pub const HELLO_V2: i64 = -65_535;

/// Longest text of addresses in a hello, bytes; ZooKeeper's `maxBuffer`.
pub const HELLO_ADDRESS_BYTES_MAX: usize = 2_048;

/// Longest frame, bytes; ZooKeeper's `PACKETMAXSIZE`.
pub const FRAME_BYTES_MAX: usize = 512 << 10;

/// Id of a server that has none and lets the receiver choose.
pub const ANONYMOUS: ServerId = ServerId(i64::MAX);

/// Version that a notification carries since 3.5: with configuration.
pub const NOTIFICATION_VERSION: i32 = 2;

/// Notification without peer epoch.
const NOTIFICATION_28: usize = 4 + 3 * 8;
/// Notification with peer epoch and a version that nobody reads.
const NOTIFICATION_40: usize = NOTIFICATION_28 + 8 + 4;

const _: () = assert!(NOTIFICATION_28 == 28 && NOTIFICATION_40 == 40, "the lengths that readers tell apart");

/// How the initiator of a connection names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloVersion {
    /// Before 3.5: the id alone.
    Old,
    /// One address.
    V1,
    /// Addresses with `|` between them.
    V2,
}

/// First message of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Its form.
    pub version: HelloVersion,
    /// The initiator; may be [`ANONYMOUS`].
    pub server: ServerId,
    /// `host:port`, or several with `|` between them; empty for [`HelloVersion::Old`].
    addresses: &'a str,
}

impl<'a> Hello<'a> {
    /// Reads the hello at the start of `buf`.
    pub fn parse(buf: &'a [u8]) -> Result<Step<Hello<'a>>, PeerError> {
        let mut r = Reader::new(buf);
        let Ok(first) = r.long() else { return Ok(Step::NeedMore { total: 8 }) };
        let version = match first {
            HELLO_V1 => HelloVersion::V1,
            HELLO_V2 => HelloVersion::V2,
            id if id >= 0 => {
                let value = Hello { version: HelloVersion::Old, server: ServerId(id), addresses: "" };
                return Ok(Step::Done { value, consumed: 8 });
            }
            other => return Err(PeerError::Version(other)),
        };
        let (Ok(server), Ok(len)) = (r.long(), r.int()) else { return Ok(Step::NeedMore { total: 20 }) };
        let len = positive(len, HELLO_ADDRESS_BYTES_MAX, "length of addresses")?;
        let Ok(bytes) = r.take(len) else { return Ok(Step::NeedMore { total: 20 + len }) };
        let addresses = std::str::from_utf8(bytes).map_err(|_| NOT_AN_ADDRESS)?;
        if addresses.split('|').any(|text| HostPort::parse(text).is_none()) {
            return Err(NOT_AN_ADDRESS);
        }
        Ok(Step::Done {
            value: Hello { version, server: ServerId(server), addresses },
            consumed: r.position(),
        })
    }

    /// Where the initiator says it listens, as written. Wildcards are no address to connect to and are left out.
    pub fn addresses(&self) -> impl Iterator<Item = HostPort<'a>> + use<'a> {
        let all = self.addresses.split('|').filter_map(HostPort::parse);
        all.filter(|address| !matches!(address.host, "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0"))
    }
}

const NOT_AN_ADDRESS: PeerError = PeerError::Address { what: "an address in the first message" };

/// Appends a hello: [`HELLO_V2`] when `multi_address`, else [`HELLO_V1`] with the first address alone.
pub fn put_hello<'a>(
    out: &mut Vec<u8>,
    server: ServerId,
    multi_address: bool,
    addresses: impl IntoIterator<Item = HostPort<'a>>,
) {
    out.put_long(if multi_address { HELLO_V2 } else { HELLO_V1 });
    out.put_long(server.0);
    let at = out.reserve_int();
    let count_max = if multi_address { usize::MAX } else { 1 };
    for (index, address) in addresses.into_iter().take(count_max).enumerate() {
        let separator = if index == 0 { "" } else { "|" };
        out.extend_from_slice(format!("{separator}{address}").as_bytes());
    }
    out.fill_length(at);
    debug_assert!(out.len() - at - 4 <= HELLO_ADDRESS_BYTES_MAX, "addresses come from the configuration");
}

/// Reads the frame at the start of `buf`: `int length`, then the message.
pub fn parse_frame(buf: &[u8]) -> Result<Step<&[u8]>, PeerError> {
    let mut r = Reader::new(buf);
    let Ok(len) = r.int() else { return Ok(Step::NeedMore { total: 4 }) };
    let len = positive(len, FRAME_BYTES_MAX, "length of a frame")?;
    match r.take(len) {
        Ok(value) => Ok(Step::Done { value, consumed: 4 + len }),
        Err(_) => Ok(Step::NeedMore { total: 4 + len }),
    }
}

/// Appends a frame whose content `message` writes.
pub fn put_frame(out: &mut Vec<u8>, message: impl FnOnce(&mut Vec<u8>)) {
    let at = out.reserve_int();
    message(out);
    out.fill_length(at);
    debug_assert!(out.len() - at - 4 <= FRAME_BYTES_MAX, "a notification is bounded by its configuration");
}

fn positive(len: i32, max: usize, what: &'static str) -> Result<usize, PeerError> {
    match usize::try_from(len) {
        Ok(bytes) if bytes > 0 && bytes <= max => Ok(bytes),
        _ => Err(PeerError::Limit { what, found: len.into(), max }),
    }
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerState {
    /// Electing.
    Looking,
    /// A voter that follows.
    Following,
    /// The leader.
    Leading,
    /// A non-voter that follows.
    Observing,
}

impl PeerState {
    /// From the number on the wire.
    #[must_use]
    pub const fn from_i32(number: i32) -> Option<PeerState> {
        match number {
            0 => Some(PeerState::Looking),
            1 => Some(PeerState::Following),
            2 => Some(PeerState::Leading),
            3 => Some(PeerState::Observing),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_i32(self) -> i32 {
        match self {
            PeerState::Looking => 0,
            PeerState::Following => 1,
            PeerState::Leading => 2,
            PeerState::Observing => 3,
        }
    }
}

/// A vote as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The sender's.
    pub state: PeerState,
    /// Whom it proposes.
    pub leader: i64,
    /// That server's last logged zxid; -1 is no vote.
    pub zxid: i64,
    /// The round it belongs to.
    pub round: i64,
    /// That server's current epoch.
    pub peer_epoch: i64,
    /// 0 when the message is too short to have one.
    pub version: i32,
    /// Text of the sender's configuration, from version 2 on.
    pub config: Option<&'a [u8]>,
}

impl<'a> Notification<'a> {
    /// Reads a frame's content.
    pub fn read(message: &'a [u8]) -> Result<Notification<'a>, PeerError> {
        let mut r = Reader::new(message);
        let record = |source| PeerError::Record { what: "notification", source };
        let state = r.int().map_err(record)?;
        let mut longs = || Ok::<_, JuteError>((r.long()?, r.long()?, r.long()?));
        let (leader, zxid, round) = longs().map_err(record)?;
        let (peer_epoch, version) = match message.len() {
            NOTIFICATION_28 => (i64::from(Zxid::from_wire(zxid).epoch().0), 0),
            NOTIFICATION_40 => (r.long().map_err(record)?, 0),
            _ => (r.long().map_err(record)?, r.int().map_err(record)?),
        };
        let config =
            if version >= NOTIFICATION_VERSION { Some(config(&mut r).map_err(record)?) } else { None };
        let state = PeerState::from_i32(state)
            .ok_or(PeerError::Unknown { what: "state of a peer", found: state.into() })?;
        Ok(Notification { state, leader, zxid, round, peer_epoch, version, config })
    }

    /// Appends the message in the form of 3.5 and later, whatever `version` says; without configuration an empty one.
    pub fn put(&self, out: &mut Vec<u8>) {
        self.put_with(out, |out| out.extend_from_slice(self.config.unwrap_or_default()));
    }

    /// The same with the configuration that `config` writes.
    pub fn put_with(&self, out: &mut Vec<u8>, config: impl FnOnce(&mut Vec<u8>)) {
        out.put_int(self.state.to_i32());
        for long in [self.leader, self.zxid, self.round, self.peer_epoch] {
            out.put_long(long);
        }
        out.put_int(NOTIFICATION_VERSION);
        let at = out.reserve_int();
        config(out);
        out.fill_length(at);
    }
}

/// A buffer that is never null here.
fn config<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], JuteError> {
    let at = r.position();
    r.buffer()?.ok_or(JuteError::Length { at, len: -1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn done<T>(step: Result<Step<T>, PeerError>) -> (T, usize) {
        match step.unwrap() {
            Step::Done { value, consumed } => (value, consumed),
            Step::NeedMore { total } => panic!("needs {total}"),
        }
    }

    fn hello(multi: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let addresses = [HostPort { host: "::1", port: 3888 }, HostPort { host: "b", port: 3889 }];
        put_hello(&mut out, ServerId(3), multi, addresses);
        out
    }

    #[test]
    fn hello_of_one_address_and_of_several() {
        let one = hello(false);
        assert_eq!(one, b"\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x03\0\0\0\x0a[::1]:3888");
        let (value, consumed) = done(Hello::parse(&one));
        assert_eq!((value.version, value.server, consumed), (HelloVersion::V1, ServerId(3), one.len()));
        assert_eq!(value.addresses().collect::<Vec<_>>(), [HostPort { host: "::1", port: 3888 }]);
        let two = hello(true);
        assert_eq!(two[..8], *b"\xff\xff\xff\xff\xff\xff\0\x01");
        assert_eq!(two[20..], *b"[::1]:3888|b:3889");
        let (value, _) = done(Hello::parse(&two));
        assert_eq!(value.addresses().nth(1), Some(HostPort { host: "b", port: 3889 }));
    }

    #[test]
    fn an_old_hello_is_an_id() {
        let (value, consumed) = done(Hello::parse(&[0, 0, 0, 0, 0, 0, 0, 7, 1, 2]));
        assert_eq!((value.version, value.server, consumed), (HelloVersion::Old, ServerId(7), 8));
        assert_eq!(value.addresses().count(), 0);
    }

    #[test]
    fn hellos_that_are_wrong() {
        let with = |version: i64, text: &[u8]| {
            let len = (text.len() as i32).to_be_bytes();
            [&version.to_be_bytes()[..], &[0; 8], &len, text].concat()
        };
        assert_eq!(Hello::parse(&(-1i64).to_be_bytes()), Err(PeerError::Version(-1)));
        for text in [
            &b""[..],
            b"h",
            b"h:x",
            b"h:1|",
            b"h:1:2",
            b"\xff:1",
            b"[::1:2",
            &[b'a'; HELLO_ADDRESS_BYTES_MAX + 1],
        ] {
            assert!(Hello::parse(&with(HELLO_V1, text)).is_err(), "{text:?}");
        }
        let wildcards = with(HELLO_V2, b"0.0.0.0:1|[::]:2|h:3");
        let (value, _) = done(Hello::parse(&wildcards));
        assert_eq!(
            value.addresses().collect::<Vec<_>>(),
            [HostPort { host: "h", port: 3 }],
            "wildcards are left out"
        );
    }

    #[test]
    fn every_cut_of_hello_and_frame_needs_more() {
        let mut frame = Vec::new();
        put_frame(&mut frame, |out| out.extend_from_slice(b"hello"));
        assert_eq!(done(parse_frame(&frame)), (&b"hello"[..], 9));
        for cut in 0..frame.len() {
            assert!(
                matches!(parse_frame(&frame[..cut]), Ok(Step::NeedMore { total }) if total > cut && total <= 9)
            );
        }
        for bytes in [hello(false), hello(true)] {
            for cut in 0..bytes.len() {
                let step = Hello::parse(&bytes[..cut]);
                assert!(matches!(step, Ok(Step::NeedMore { total }) if total > cut && total <= bytes.len()));
            }
        }
        for len in [0, -1, FRAME_BYTES_MAX as i32 + 1] {
            assert!(parse_frame(&len.to_be_bytes()).is_err(), "{len}");
        }
        assert!(parse_frame(&(FRAME_BYTES_MAX as i32).to_be_bytes()).is_ok());
    }

    fn notification() -> (Notification<'static>, Vec<u8>) {
        let n = Notification {
            state: PeerState::Leading,
            leader: 3,
            zxid: 0x5_0000_0001,
            round: 7,
            peer_epoch: 6,
            version: 2,
            config: Some(b"version=0"),
        };
        let mut out = Vec::new();
        n.put(&mut out);
        (n, out)
    }

    #[test]
    fn notifications_of_every_length() {
        let (n, bytes) = notification();
        let head = b"\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x05\0\0\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x06";
        assert_eq!(bytes, [&head[..], b"\0\0\0\x02\0\0\0\x09version=0"].concat());
        assert_eq!(Notification::read(&bytes), Ok(n));
        let old = Notification { version: 0, config: None, ..n };
        assert_eq!(Notification::read(&bytes[..28]), Ok(Notification { peer_epoch: 5, ..old }));
        assert_eq!(Notification::read(&bytes[..40]), Ok(old));
        for cut in (0..bytes.len()).filter(|cut| ![28, 40].contains(cut)) {
            assert!(Notification::read(&bytes[..cut]).is_err(), "{cut}");
        }
        let one = [&head[..], b"\0\0\0\x01rest"].concat();
        assert_eq!(Notification::read(&one), Ok(Notification { version: 1, config: None, ..n }));
        for (at, byte) in [(3, 4), (40, 0xff), (43, 10)] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            assert!(Notification::read(&wrong).is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn notifications_come_back_as_they_went(
            state in 0..4i32, longs: [i64; 4], config in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let [leader, zxid, round, peer_epoch] = longs;
            let state = PeerState::from_i32(state).unwrap();
            let n = Notification { state, leader, zxid, round, peer_epoch, version: 2, config: Some(&config) };
            let mut out = Vec::new();
            n.put(&mut out);
            prop_assert_eq!(Notification::read(&out), Ok(n));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(2), Just(255), any::<u8>()], 0..80)) {
            let _ = Hello::parse(&bytes);
            let _ = parse_frame(&bytes);
            let _ = Notification::read(&bytes);
        }
    }
}
