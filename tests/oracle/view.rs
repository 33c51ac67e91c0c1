//! Turns replies into text that two servers must agree on, field by field.
//!
//! Only what has to differ is replaced, and by something that still says what matters about it:
//!
//! 1. zxids become offsets from the zxid at the start of the script (`+7`).
//! 2. Session ids become the number of the session in order of creation (`#2`).
//! 3. A time becomes `t`, if every node that claims to be of the same transaction has the same time.
//! 4. Passwords become `java`, if they are what Java's generator gives for the session id.
//! 5. A character above U+FFFF that ZooKeeper echoes comes as two surrogates of three bytes each, which is no UTF-8 (its
//!    writer encodes the halves of a Java character one by one) and which no client reads back; it becomes the character.
//! 6. An `auth` entry of an ACL becomes one entry for each identity, in no particular order: entries with the same
//!    permissions next to each other are sorted.
//! 7. Children, ephemerals and identities, which come in no particular order, are sorted.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::client::{Connected, Reply, op, xid};
use crate::common::jute::{Acl, Reader, Short, Stat};

/// A time may be this far from the clock of the test.
const CLOCK_SKEW_MS: i64 = 600_000;

/// What one server's ids and times mean.
#[derive(Debug, Default)]
pub(crate) struct View {
    base: i64,
    sessions: HashMap<i64, usize>,
    times: HashMap<i64, i64>,
}

impl View {
    /// Renders `base` as `+0`.
    pub(crate) fn from(base: i64) -> View {
        View { base, ..View::default() }
    }

    pub(crate) fn zxid(&self, zxid: i64) -> String {
        if zxid <= 0 { zxid.to_string() } else { format!("{:+}", zxid - self.base) }
    }

    fn session(&self, id: i64) -> String {
        match self.sessions.get(&id) {
            _ if id == 0 => "0".into(),
            Some(number) => format!("#{number}"),
            None => format!("unknown session {id:#x}"),
        }
    }

    fn time(&mut self, zxid: i64, time: i64) -> String {
        if zxid == 0 && time == 0 {
            return "0".into();
        }
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64;
        let first = *self.times.entry(zxid).or_insert(time);
        match () {
            () if first != time => format!("{time} where another node of this zxid has {first}"),
            () if (now - time).abs() > CLOCK_SKEW_MS => format!("{time} when it is {now}"),
            () => "t".into(),
        }
    }

    pub(crate) fn stat(&mut self, stat: &Stat) -> String {
        let ctime = self.time(stat.czxid, stat.ctime);
        let mtime = self.time(stat.mzxid, stat.mtime);
        format!(
            "czxid={} mzxid={} pzxid={} ctime={ctime} mtime={mtime} version={} cversion={} aversion={} owner={} \
             length={} children={}",
            self.zxid(stat.czxid),
            self.zxid(stat.mzxid),
            self.zxid(stat.pzxid),
            stat.version,
            stat.cversion,
            stat.aversion,
            self.session(stat.ephemeral_owner),
            stat.data_length,
            stat.num_children,
        )
    }

    /// The answer to a connect request; a new session gets the next number.
    pub(crate) fn connected(&mut self, connected: &Connected) -> String {
        let next = self.sessions.len();
        let id = connected.session.id;
        if id != 0 {
            self.sessions.entry(id).or_insert(next);
        }
        let password = match &connected.session.password {
            p if id != 0 && *p == java_password(id) => "java".into(),
            p => format!("{p:02x?}"),
        };
        let session = self.session(id);
        let (timeout, read_only) = (connected.timeout_ms, connected.read_only);
        format!("connected timeout={timeout} session={session} password={password} read-only={read_only:?}")
    }

    /// A reply to a request of type `code`, or an event.
    pub(crate) fn reply(&mut self, code: i32, reply: &Reply) -> String {
        let head = format!("xid={} zxid={} err={}", reply.xid, self.zxid(reply.zxid), reply.err);
        let mut reader = Reader::new(&reply.body);
        let body = match (reply.xid, reply.err) {
            (xid::EVENT, _) => event(&mut reader),
            (_, 0) => self.body(code, &mut reader),
            _ => Ok(String::new()),
        };
        match body {
            Ok(text) if reader.rest().is_empty() => format!("{head} {text}"),
            Ok(text) => format!("{head} {text} and then {:02x?}", reader.rest()),
            Err(Short) => format!("{head} not a reply to {code}: {:02x?}", reply.body),
        }
    }

    fn body(&mut self, code: i32, reader: &mut Reader<'_>) -> Result<String, Short> {
        Ok(match code {
            op::CREATE | op::SYNC => format!("path={:?}", path(reader)?),
            op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                format!("path={:?} {}", reader.string()?, self.stat(&reader.stat()?))
            }
            op::EXISTS | op::SET_DATA | op::SET_ACL => self.stat(&reader.stat()?),
            op::GET_DATA => format!("data={} {}", data(reader.buffer()?), self.stat(&reader.stat()?)),
            op::GET_ACL => format!("acl={} {}", acls(reader.acls()?), self.stat(&reader.stat()?)),
            op::GET_CHILDREN | op::GET_EPHEMERALS => sorted(reader.strings()?),
            op::GET_CHILDREN2 => format!("{} {}", sorted(reader.strings()?), self.stat(&reader.stat()?)),
            op::GET_ALL_CHILDREN_NUMBER | op::ADD_WATCH => format!("{}", reader.int()?),
            op::WHO_AM_I => {
                let identities =
                    (0..reader.int()?).map(|_| Ok([reader.string()?, reader.string()?].join(":")));
                sorted(identities.collect::<Result<_, Short>>()?)
            }
            op::MULTI | op::MULTI_READ => self.results(reader)?,
            _ => String::new(),
        })
    }

    fn results(&mut self, reader: &mut Reader<'_>) -> Result<String, Short> {
        let mut text = String::new();
        loop {
            let (code, done, err) = (reader.int()?, reader.boolean()?, reader.int()?);
            if done {
                return Ok(format!("{text} end type={code} err={err}"));
            }
            let result = if code == -1 { format!("{}", reader.int()?) } else { self.body(code, reader)? };
            text += &format!(" [type={code} err={err} {result}]");
        }
    }
}

fn event(reader: &mut Reader<'_>) -> Result<String, Short> {
    Ok(format!("event type={} state={} path={:?}", reader.int()?, reader.int()?, path(reader)?))
}

/// A string in which pairs of encoded surrogates are the characters they stand for.
fn path(reader: &mut Reader<'_>) -> Result<String, Short> {
    let Some(mut rest) = reader.buffer()? else { return Ok("<null>".into()) };
    let mut bytes = Vec::new();
    while let Some((&first, behind)) = rest.split_first() {
        match rest {
            [0xED, a @ 0xA0..=0xAF, b @ 0x80..=0xBF, 0xED, c @ 0xB0..=0xBF, d @ 0x80..=0xBF, behind @ ..] => {
                let bits = |byte: &u8, mask: u8| u32::from(byte & mask);
                let high = bits(a, 0x0F) << 6 | bits(b, 0x3F);
                let low = bits(c, 0x0F) << 6 | bits(d, 0x3F);
                let code = char::from_u32(0x1_0000 + (high << 10 | low)).expect("20 bits and 0x10000");
                bytes.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
                rest = behind;
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Short data as text, long data as length and checksum, null as `null`.
pub(crate) fn data(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".into(),
        Some(b) if b.len() <= 64 => format!("\"{}\"", b.escape_ascii()),
        Some(b) => format!("{} bytes, crc {:08x}", b.len(), crc32fast::hash(b)),
    }
}

/// An access control list as text.
pub(crate) fn acls(mut acls: Vec<Acl>) -> String {
    for same in acls.chunk_by_mut(|a, b| a.perms == b.perms) {
        same.sort_by(|a, b| (&a.scheme, &a.id).cmp(&(&b.scheme, &b.id)));
    }
    format!("{acls:?}")
}

fn sorted(mut names: Vec<String>) -> String {
    names.sort();
    format!("{names:?}")
}

/// The sixteen bytes that `java.util.Random` gives for a session id; every server of an ensemble derives them anew.
fn java_password(session: i64) -> Vec<u8> {
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session as u64 ^ 0xB341_5C00) ^ 0x5_DEEC_E66D) & MASK;
    let mut bytes = Vec::new();
    for _ in 0..4 {
        state = state.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & MASK;
        bytes.extend_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}
