//! Canned replies: the right shape for every request that the load generator makes, and for the usual rest.

use crate::base::Zxid;
use crate::wire::jute::{PutJute, Reader};
use crate::wire::reply::{self, EventType};
use crate::wire::request::{ConnectRequest, MultiHeader, Request, RequestHeader};
use crate::wire::{ErrorCode, OpCode, Stat};

/// The one stat there is.
const STAT: Stat = Stat {
    czxid: 1,
    mzxid: 1,
    ctime: 1,
    mtime: 1,
    version: 0,
    cversion: 0,
    aversion: 0,
    ephemeral_owner: 0,
    data_length: 0,
    num_children: 0,
    pzxid: 1,
};

/// What the replies look like.
#[derive(Clone, Debug)]
pub(in super::super) struct Shape {
    data: Vec<u8>,
    /// `vector<ustring>` of a listing, encoded.
    children: Vec<u8>,
}

impl Shape {
    /// `data_bytes` of data until a write shows another size, and `children` children.
    pub(super) fn new(data_bytes: usize, children: usize) -> Shape {
        let mut encoded = Vec::new();
        encoded.put_int(children as i32);
        (0..children).for_each(|i| encoded.put_ustring(&format!("{i:010}")));
        Shape { data: vec![b'x'; data_bytes], children: encoded }
    }
}

/// What a connection remembers.
#[derive(Debug, Default)]
pub(super) struct Peer {
    connected: bool,
    /// A data watch is set; which node it was for is not kept.
    armed: bool,
}

/// What to do about a frame besides sending the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing: it was a read.
    Read,
    /// Make its bytes durable first.
    Write,
    /// Close when the reply is out.
    Close,
}

/// Appends the reply to `frame`.
pub(super) fn answer(
    frame: &[u8],
    peer: &mut Peer,
    shape: &mut Shape,
    zxid: Zxid,
    out: &mut Vec<u8>,
) -> Answer {
    if !peer.connected {
        return connect(frame, peer, out);
    }
    let mut r = Reader::new(frame);
    let Ok(head) = RequestHeader::read(&mut r) else { return Answer::Close };
    let Some(op) = OpCode::from_i32(head.op) else {
        reply::put_empty(out, head.xid, zxid, ErrorCode::Unimplemented);
        return Answer::Read;
    };
    let Ok(request) = Request::read(op, r.rest()) else {
        reply::put_empty(out, head.xid, zxid, ErrorCode::MarshallingError);
        return Answer::Read;
    };
    fire(&request, peer, zxid, out);
    let mark = reply::begin(out);
    reply::put_header(out, head.xid, zxid, ErrorCode::Ok);
    let known = put_body(op, &request, peer, shape, out);
    reply::end(out, mark);
    if !known {
        out.truncate(mark);
        reply::put_empty(out, head.xid, zxid, ErrorCode::Unimplemented);
    }
    match op {
        OpCode::CloseSession => Answer::Close,
        op if op.is_write() => Answer::Write,
        _ => Answer::Read,
    }
}

fn connect(frame: &[u8], peer: &mut Peer, out: &mut Vec<u8>) -> Answer {
    let Ok(request) = ConnectRequest::read(frame) else { return Answer::Close };
    peer.connected = true;
    reply::put_connect(out, request.timeout_ms.clamp(4_000, 40_000), 1, &[7; 16], request.read_only);
    Answer::Read
}

/// A set fires the watch that the connection has, before the set's reply.
fn fire(request: &Request<'_>, peer: &mut Peer, zxid: Zxid, out: &mut Vec<u8>) {
    if let Request::SetData { path, .. } = request
        && std::mem::take(&mut peer.armed)
    {
        reply::put_event(out, zxid.to_wire(), EventType::NodeDataChanged, path);
    }
}

/// Appends the body of a good reply; false when there is none for this request.
fn put_body(
    op: OpCode,
    request: &Request<'_>,
    peer: &mut Peer,
    shape: &mut Shape,
    out: &mut Vec<u8>,
) -> bool {
    match request {
        Request::Create(create) => {
            out.put_ustring(create.path);
            if op != OpCode::Create {
                STAT.put(out);
            }
        }
        Request::SetData { data, .. } => {
            // Later reads answer data of the size that was written last.
            shape.data.resize(data.map_or(0, <[u8]>::len), b'x');
            STAT.put(out);
        }
        Request::GetData { watch, .. } => {
            peer.armed |= watch;
            out.put_buffer(Some(&shape.data));
            STAT.put(out);
        }
        Request::Exists { .. } | Request::SetAcl { .. } => STAT.put(out),
        Request::GetChildren { .. } => out.extend_from_slice(&shape.children),
        Request::GetChildren2 { .. } => {
            out.extend_from_slice(&shape.children);
            STAT.put(out);
        }
        Request::Multi(ops) => put_results(ops.iter(), out),
        Request::Sync { path } => out.put_buffer(*path),
        Request::Delete { .. } | Request::Ping | Request::CloseSession | Request::Auth { .. } => {}
        _ => return false,
    }
    true
}

fn put_results<'a>(ops: impl Iterator<Item = (OpCode, Request<'a>)>, out: &mut Vec<u8>) {
    for (op, request) in ops {
        MultiHeader { op: op.to_i32(), done: false, err: 0 }.put(out);
        match request {
            Request::Create(create) => {
                out.put_ustring(create.path);
                if op != OpCode::Create {
                    STAT.put(out);
                }
            }
            Request::SetData { .. } => STAT.put(out),
            _ => {}
        }
    }
    MultiHeader::END.put(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::bench::session::{put_bare, put_connect_request};

    fn ask(peer: &mut Peer, frame: &[u8]) -> (Answer, Vec<u8>) {
        let mut out = Vec::new();
        let answer = answer(&frame[4..], peer, &mut Shape::new(5, 2), Zxid(9), &mut out);
        (answer, out)
    }

    fn connected() -> Peer {
        let mut peer = Peer::default();
        let mut hello = Vec::new();
        put_connect_request(&mut hello, 0, &[0; 16]);
        let (answer, out) = ask(&mut peer, &hello);
        assert_eq!((answer, out.len()), (Answer::Read, 4 + 37));
        peer
    }

    fn request(op: OpCode, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mark = reply::begin(&mut out);
        out.put_int(3);
        out.put_int(op.to_i32());
        out.extend_from_slice(body);
        reply::end(&mut out, mark);
        out
    }

    #[test]
    fn replies_have_the_shape_of_real_ones() {
        let mut peer = connected();
        let mut path = Vec::new();
        path.put_ustring("/a");
        path.put_boolean(true);
        let (answer, out) = ask(&mut peer, &request(OpCode::GetData, &path));
        assert_eq!((answer, out.len()), (Answer::Read, 4 + 16 + 4 + 5 + Stat::BYTES));
        let (_, out) = ask(&mut peer, &request(OpCode::GetChildren2, &path));
        assert_eq!(out.len(), 4 + 16 + 4 + 2 * 14 + Stat::BYTES);
        let mut bye = Vec::new();
        put_bare(&mut bye, 4, OpCode::CloseSession);
        assert_eq!(ask(&mut peer, &bye).0, Answer::Close);
    }

    #[test]
    fn a_set_fires_the_armed_watch_once_and_before_its_reply() {
        let mut peer = connected();
        let (mut get, mut set) = (Vec::new(), Vec::new());
        get.put_ustring("/a");
        get.put_boolean(true);
        set.put_ustring("/a");
        set.put_buffer(None);
        set.put_int(-1);
        ask(&mut peer, &request(OpCode::GetData, &get));
        let (answer, out) = ask(&mut peer, &request(OpCode::SetData, &set));
        assert_eq!(answer, Answer::Write);
        assert_eq!(out[4..8], (-1i32).to_be_bytes());
        let (_, out) = ask(&mut peer, &request(OpCode::SetData, &set));
        assert_eq!(out[4..8], 3i32.to_be_bytes());
    }

    #[test]
    fn garbage_is_answered_or_closed_never_a_panic() {
        let mut peer = connected();
        assert_eq!(ask(&mut peer, &request(OpCode::SetData, b"")).0, Answer::Read);
        assert_eq!(ask(&mut peer, &[0, 0, 0, 1, 9]).0, Answer::Close);
        assert_eq!(ask(&mut Peer::default(), &[0, 0, 0, 1, 9]).0, Answer::Close);
    }
}
