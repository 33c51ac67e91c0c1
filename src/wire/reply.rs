//! What the server sends: frames appended to a connection's output.
//!
//! A frame is begun with [`begin`], its record put behind it, and ended with [`end`], which fills in the length.

use super::jute::PutJute;
use super::{ErrorCode, Stat};
use crate::base::Zxid;

/// xid of a watch event.
pub const XID_NOTIFICATION: i32 = -1;
/// xid of a ping.
pub const XID_PING: i32 = -2;
/// xid of an auth packet.
pub const XID_AUTH: i32 = -4;
/// xid of setWatches and setWatches2.
pub const XID_SET_WATCHES: i32 = -8;

/// `SyncConnected`: the only state a server ever puts into an event.
pub const STATE_SYNC_CONNECTED: i32 = 3;

/// What a watch event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum EventType {
    /// The node came to be.
    NodeCreated = 1,
    /// The node is gone.
    NodeDeleted = 2,
    /// The node has other data.
    NodeDataChanged = 3,
    /// A child came or went.
    NodeChildrenChanged = 4,
}

/// Starts a frame; returns the mark for [`end`].
#[must_use]
pub fn begin(out: &mut Vec<u8>) -> usize {
    out.reserve_int()
}

/// Ends the frame that [`begin`] started.
pub fn end(out: &mut Vec<u8>, mark: usize) {
    out.fill_length(mark);
}

/// Appends a reply header inside a frame; a body follows only when `err` is `Ok`.
pub fn put_header(out: &mut Vec<u8>, xid: i32, zxid: Zxid, err: ErrorCode) {
    out.put_int(xid);
    out.put_long(zxid.to_wire());
    out.put_int(err.to_i32());
}

/// Appends a whole frame that is a header alone: every error, and the replies without a body.
pub fn put_empty(out: &mut Vec<u8>, xid: i32, zxid: Zxid, err: ErrorCode) {
    let mark = begin(out);
    put_header(out, xid, zxid, err);
    end(out, mark);
}

/// Appends a whole frame: a watch event. `zxid` is that of the transaction (3.9), or -1 for what setWatches finds.
pub fn put_event(out: &mut Vec<u8>, zxid: i64, event: EventType, path: &str) {
    let mark = begin(out);
    out.put_int(XID_NOTIFICATION);
    out.put_long(zxid);
    out.put_int(0);
    out.put_int(event as i32);
    out.put_int(STATE_SYNC_CONNECTED);
    out.put_ustring(path);
    end(out, mark);
}

/// Appends a whole frame: the answer to a connect request. A refused session has timeout 0, id 0 and a zero password.
pub fn put_connect(
    out: &mut Vec<u8>,
    timeout_ms: i32,
    session: i64,
    password: &[u8; 16],
    read_only: Option<bool>,
) {
    let mark = begin(out);
    out.put_int(0);
    out.put_int(timeout_ms);
    out.put_long(session);
    out.put_buffer(Some(password));
    if let Some(read_only) = read_only {
        out.put_boolean(read_only);
    }
    end(out, mark);
}

/// Appends a whole frame: header and stat.
pub fn put_stat(out: &mut Vec<u8>, xid: i32, zxid: Zxid, stat: &Stat) {
    let mark = begin(out);
    put_header(out, xid, zxid, ErrorCode::Ok);
    stat.put(out);
    end(out, mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_their_length() {
        let mut out = Vec::new();
        put_empty(&mut out, 5, Zxid(9), ErrorCode::NoNode);
        assert_eq!(out, [0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 255, 255, 255, 155]);
        out.clear();
        put_event(&mut out, 3, EventType::NodeDeleted, "/a");
        assert_eq!(out[..4], [0, 0, 0, 30]);
        assert_eq!(out.len(), 34);
    }
}
