//! A raw, blocking client of the ZooKeeper protocol: frames in, frames out, nothing hidden. It can be told to send
//! what no library would: wrong lengths, half a body, an operation that does not exist.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::jute::{Acl, Reader, Short, Writer};

/// How long a reply may take before the test gives up.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// Operation codes, by ZooKeeper's names.
pub(crate) mod op {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const EXISTS: i32 = 3;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const GET_ACL: i32 = 6;
    pub(crate) const SET_ACL: i32 = 7;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const GET_CHILDREN2: i32 = 12;
    pub(crate) const CHECK: i32 = 13;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const CREATE2: i32 = 15;
    pub(crate) const RECONFIG: i32 = 16;
    pub(crate) const CHECK_WATCHES: i32 = 17;
    pub(crate) const REMOVE_WATCHES: i32 = 18;
    pub(crate) const CREATE_CONTAINER: i32 = 19;
    pub(crate) const DELETE_CONTAINER: i32 = 20;
    pub(crate) const CREATE_TTL: i32 = 21;
    pub(crate) const MULTI_READ: i32 = 22;
    pub(crate) const AUTH: i32 = 100;
    pub(crate) const SET_WATCHES: i32 = 101;
    pub(crate) const GET_EPHEMERALS: i32 = 103;
    pub(crate) const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub(crate) const SET_WATCHES2: i32 = 105;
    pub(crate) const ADD_WATCH: i32 = 106;
    pub(crate) const WHO_AM_I: i32 = 107;
    pub(crate) const CLOSE_SESSION: i32 = -11;
}

/// Transaction-less request ids with a meaning of their own.
pub(crate) mod xid {
    pub(crate) const EVENT: i32 = -1;
    pub(crate) const PING: i32 = -2;
    pub(crate) const AUTH: i32 = -4;
    pub(crate) const SET_WATCHES: i32 = -8;
}

/// What a client needs to come back to its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: i64,
    pub(crate) password: Vec<u8>,
}

impl Session {
    /// Asks for a new session.
    pub(crate) fn none() -> Session {
        Session { id: 0, password: vec![0; 16] }
    }
}

/// The server's answer to a connect request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) timeout_ms: i32,
    pub(crate) session: Session,
    /// `None` when the byte is absent, as it must be for a client that did not send it.
    pub(crate) read_only: Option<bool>,
}

/// The fields of a connect request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectRequest {
    pub(crate) last_zxid_seen: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) session: Session,
    pub(crate) read_only: Option<bool>,
}

impl ConnectRequest {
    /// A new session of `timeout_ms`.
    pub(crate) fn new(timeout_ms: i32) -> ConnectRequest {
        ConnectRequest { last_zxid_seen: 0, timeout_ms, session: Session::none(), read_only: Some(false) }
    }
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Frame(Vec<u8>),
    /// The server closed the connection (orderly or by reset).
    Closed,
    /// Nothing within the limit.
    Silence,
}

/// The header of a reply and the bytes behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) xid: i32,
    pub(crate) zxid: i64,
    pub(crate) err: i32,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn parse(frame: &[u8]) -> Result<Reply, Short> {
        let mut reader = Reader::new(frame);
        let (xid, zxid, err) = (reader.int()?, reader.long()?, reader.int()?);
        Ok(Reply { xid, zxid, err, body: reader.rest().to_vec() })
    }
}

/// One TCP connection. Frames are whatever the caller says.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    /// Bytes received that are not yet a whole frame.
    pending: Vec<u8>,
    next_xid: i32,
    /// How long a reply may take.
    reply_limit: Duration,
}

impl Conn {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Conn> {
        Conn::open_within(address, Duration::from_secs(5))
    }

    /// The same, for a server that may not even answer that.
    pub(crate) fn open_within(address: SocketAddr, limit: Duration) -> std::io::Result<Conn> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(REPLY_LIMIT))?;
        Ok(Conn { stream, pending: Vec::new(), next_xid: 1, reply_limit: REPLY_LIMIT })
    }

    /// Gives up earlier than after [`REPLY_LIMIT`]: for servers that are expected to hang.
    pub(crate) fn with_reply_limit(mut self, limit: Duration) -> Conn {
        self.reply_limit = limit;
        self
    }

    /// As the server sees it.
    pub(crate) fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Opens a connection and asks for a session in one go.
    pub(crate) fn connect(
        address: SocketAddr,
        request: &ConnectRequest,
    ) -> Result<(Conn, Connected), String> {
        let mut conn = Conn::open(address).map_err(|e| format!("connect to {address}: {e}"))?;
        match conn.handshake(request)? {
            Some(connected) => Ok((conn, connected)),
            None => Err("closed instead of a connect response".into()),
        }
    }

    /// Sends a connect request. `None`: the server closed the connection without an answer.
    pub(crate) fn handshake(&mut self, request: &ConnectRequest) -> Result<Option<Connected>, String> {
        let body = Writer::new()
            .int(0)
            .long(request.last_zxid_seen)
            .int(request.timeout_ms)
            .long(request.session.id)
            .buffer(Some(&request.session.password));
        let body = match request.read_only {
            Some(flag) => body.boolean(flag),
            None => body,
        };
        self.send_frame(&body.done()).map_err(|e| format!("send connect request: {e}"))?;
        match self.receive(self.reply_limit) {
            Received::Closed => Ok(None),
            Received::Silence => Err("no answer to the connect request".into()),
            Received::Frame(frame) => {
                Conn::parse_connected(&frame).map(Some).map_err(|_| format!("connect response {frame:02x?}"))
            }
        }
    }

    fn parse_connected(frame: &[u8]) -> Result<Connected, Short> {
        let mut reader = Reader::new(frame);
        reader.int()?;
        let timeout_ms = reader.int()?;
        let id = reader.long()?;
        let password = reader.buffer()?.unwrap_or_default().to_vec();
        let read_only = if reader.rest().is_empty() { None } else { Some(reader.boolean()?) };
        Ok(Connected { timeout_ms, session: Session { id, password }, read_only })
    }

    /// The next positive request id.
    pub(crate) fn take_xid(&mut self) -> i32 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn send_frame(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.send_raw(&framed(frame))
    }

    pub(crate) fn send(&mut self, xid: i32, op: i32, body: &[u8]) -> std::io::Result<()> {
        self.send_frame(&request(xid, op, body))
    }

    /// The next whole frame.
    pub(crate) fn receive(&mut self, limit: Duration) -> Received {
        let deadline = Instant::now() + limit;
        let mut chunk = [0_u8; 65536];
        loop {
            if let Some(frame) = self.take_frame() {
                return Received::Frame(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received::Silence;
            }
            if self.stream.set_read_timeout(Some(left)).is_err() {
                return Received::Closed;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Received::Closed,
                Ok(count) => self.pending.extend_from_slice(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Received::Closed,
            }
        }
    }

    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let length = i32::from_be_bytes(self.pending.get(..4)?.try_into().ok()?);
        let end = 4 + usize::try_from(length).expect("a server never sends a negative frame length");
        if self.pending.len() < end {
            return None;
        }
        let frame = self.pending[4..end].to_vec();
        self.pending.drain(..end);
        Some(frame)
    }

    /// Sends one request and returns its reply, passing over events.
    pub(crate) fn call(&mut self, op: i32, body: &[u8]) -> Result<Reply, String> {
        let xid = match op {
            op::AUTH => xid::AUTH,
            op::SET_WATCHES | op::SET_WATCHES2 => xid::SET_WATCHES,
            op::PING => xid::PING,
            _ => self.take_xid(),
        };
        self.send(xid, op, body).map_err(|e| format!("send: {e}"))?;
        loop {
            match self.receive(self.reply_limit) {
                Received::Frame(frame) => {
                    let reply = Reply::parse(&frame).map_err(|_| format!("short reply {frame:02x?}"))?;
                    if reply.xid == xid {
                        return Ok(reply);
                    }
                    if reply.xid != xid::EVENT {
                        return Err(format!("reply to {} while waiting for {xid}", reply.xid));
                    }
                }
                Received::Closed => return Err("closed".into()),
                Received::Silence => return Err("no reply in time".into()),
            }
        }
    }
}

/// `length` + `frame`.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    Writer::new().buffer(Some(frame)).done()
}

/// A request without its frame length.
pub(crate) fn request(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    Writer::new().int(xid).int(op).raw(body).done()
}

/// The body of create, create2 and createContainer.
pub(crate) fn create_body(path: &str, data: Option<&[u8]>, acls: &[Acl], flags: i32) -> Vec<u8> {
    Writer::new().string(path).buffer(data).acls(acls).int(flags).done()
}

/// The body of exists, getData, getChildren and getChildren2.
pub(crate) fn read_body(path: &str, watch: bool) -> Vec<u8> {
    Writer::new().string(path).boolean(watch).done()
}
