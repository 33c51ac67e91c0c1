//! Reads: answered by the connection itself from the shared tree.
//!
//! - D1: reply and watch come from one state of the tree; a watch is set only when the reply says what it is about (exists
//!   sets one on a missing node too).
//! - D2: a reply is bounded ([`ReadContext::reply_bytes_max`]); beyond it the client gets `MarshallingError`, not a piece.
//! - D3: the header's zxid is that of the last transaction applied.
//!
//! Reads do not check paths: what is malformed is not there.

use super::auth::{AuthIds, AuthOptions, put_masked};
use super::reply::{Served, put_unimplemented};
use crate::base::{ConnId, SessionId, Zxid};
use crate::tree::{AclId, NodeRef, Tree, WatchKind, WatchMode};
use crate::wire::jute::{PutJute, replaced};
use crate::wire::reply::{XID_PING, begin, end, put_empty, put_event, put_header};
use crate::wire::request::{MultiHeader, MultiOps, Request, SetWatches};
use crate::wire::{ErrorCode, OpCode, perms};

/// One reply by default, bytes: 64 times the largest request. A million children with names of 40 bytes still fit.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Header of events that setWatches finds.
const ZXID_NONE: i64 = -1;

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub struct ReadContext<'a> {
    /// Watches are set for this connection.
    pub conn: ConnId,
    /// getEphemerals lists those of this session.
    pub session: SessionId,
    /// Identities of the connection.
    pub ids: &'a AuthIds,
    /// What the operator decided about ACLs.
    pub auth: &'a AuthOptions,
    /// Bytes of one reply.
    pub reply_bytes_max: usize,
}

/// As [`serve_read`], from the bytes behind the request header; undecodable ones are answered with `MarshallingError`.
pub fn serve_read_body(
    tree: &Tree,
    ctx: &ReadContext<'_>,
    xid: i32,
    op: OpCode,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Served {
    match Request::read(op, body) {
        Ok(request) => serve_read(tree, ctx, xid, &request, out),
        Err(_) => {
            put_empty(out, xid, tree.applied(), ErrorCode::MarshallingError);
            Served::STAY
        }
    }
}

/// Appends the reply to a read, a sync or a ping: one whole frame, behind the events that setWatches finds. What is no read is
/// answered as an operation that there is not.
pub fn serve_read(
    tree: &Tree,
    ctx: &ReadContext<'_>,
    xid: i32,
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> Served {
    let zxid = tree.applied();
    match request {
        Request::Ping => {
            put_empty(out, XID_PING, zxid, ErrorCode::Ok);
            return Served::STAY;
        }
        Request::SetWatches(watches) => {
            let err = set_watches(tree, ctx, watches, out);
            put_empty(out, xid, zxid, err);
            return Served::STAY;
        }
        _ => {}
    }
    let start = out.len();
    let mark = begin(out);
    put_header(out, xid, zxid, ErrorCode::Ok);
    let mut reply = Reply { tree, ctx, start, out };
    match reply.put(request) {
        Ok(true) => end(out, mark),
        Ok(false) => {
            out.truncate(start);
            return put_unimplemented(out, xid);
        }
        Err(err) => {
            out.truncate(start);
            put_empty(out, xid, zxid, err);
        }
    }
    Served::STAY
}

fn set_watches(tree: &Tree, ctx: &ReadContext<'_>, watches: &SetWatches<'_>, out: &mut Vec<u8>) -> ErrorCode {
    let set = tree.set_watches(watches, ctx.conn, |event, path| put_event(out, ZXID_NONE, event, path));
    if set.is_ok() { ErrorCode::Ok } else { ErrorCode::SystemError }
}

/// A reply being put together behind its header.
struct Reply<'a, 'o> {
    tree: &'a Tree,
    ctx: &'a ReadContext<'a>,
    /// Where its frame starts in `out`.
    start: usize,
    out: &'o mut Vec<u8>,
}

impl<'a> Reply<'a, '_> {
    /// Appends the body; false when `request` is no read.
    fn put(&mut self, request: &Request<'_>) -> Result<bool, ErrorCode> {
        match *request {
            Request::Exists { path, watch } => self.exists(path, watch)?,
            Request::GetData { path, watch } => self.data(path, watch)?,
            Request::GetChildren { path, watch } => {
                self.children(path, watch)?;
            }
            Request::GetChildren2 { path, watch } => {
                let node = self.children(path, watch)?;
                node.stat().put(self.out);
            }
            Request::GetAcl { path } => self.acl(path)?,
            Request::Sync { path } => {
                let path = path.map(replaced);
                self.out.put_buffer(path.as_deref().map(str::as_bytes));
            }
            Request::MultiRead(ops) => self.multi(ops)?,
            Request::CheckWatches { path, kind } => {
                let kind = WatchKind::from_i32(kind).ok_or(ErrorCode::MarshallingError)?;
                found(self.tree.check_watch(path, kind, self.ctx.conn))?;
            }
            Request::RemoveWatches { path, kind } => {
                let kind = WatchKind::from_i32(kind).ok_or(ErrorCode::MarshallingError)?;
                found(self.tree.remove_watch(path, kind, self.ctx.conn))?;
            }
            Request::AddWatch { path, mode } => self.add_watch(path, mode)?,
            Request::GetEphemerals { prefix } => self.ephemerals(prefix)?,
            Request::GetAllChildrenNumber { path } => self.all_children_number(path)?,
            Request::WhoAmI => self.who_am_i(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Readable or not is told only of a node that is there.
    fn exists(&mut self, path: &str, watch: bool) -> Result<(), ErrorCode> {
        if path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        let node = self.tree.find(path);
        if let Some(node) = node {
            self.check(node, perms::READ)?;
        }
        if watch {
            self.tree.watch_exists(path, self.ctx.conn).map_err(|_| ErrorCode::SystemError)?;
        }
        node.ok_or(ErrorCode::NoNode)?.stat().put(self.out);
        Ok(())
    }

    fn data(&mut self, path: &str, watch: bool) -> Result<(), ErrorCode> {
        let node = self.readable(path)?;
        let data = node.data();
        self.check_room(data.map_or(0, <[u8]>::len))?;
        if watch {
            self.tree.watch_data(path, self.ctx.conn).map_err(|_| ErrorCode::SystemError)?;
        }
        self.out.put_buffer(data);
        node.stat().put(self.out);
        Ok(())
    }

    fn children(&mut self, path: &str, watch: bool) -> Result<NodeRef<'a>, ErrorCode> {
        let node = self.readable(path)?;
        let count_at = self.out.reserve_int();
        let mut count = 0;
        for name in node.children() {
            self.check_room(name.len())?;
            self.out.put_ustring(name);
            count += 1;
        }
        self.out.fill_int(count_at, count);
        if watch {
            self.tree.watch_children(path, self.ctx.conn).map_err(|_| ErrorCode::SystemError)?;
        }
        Ok(node)
    }

    fn acl(&mut self, path: &str) -> Result<(), ErrorCode> {
        let node = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
        self.check(node, perms::READ | perms::ADMIN)?;
        let acl = self.tree.acl(node.acl_id());
        if self.check(node, perms::ADMIN).is_ok() {
            acl.put(self.out);
        } else {
            put_masked(acl, self.out);
        }
        node.stat().put(self.out);
        Ok(())
    }

    /// Each on its own: what fails does not stop the rest. Watch flags are lost, as in ZooKeeper.
    fn multi(&mut self, ops: MultiOps<'_>) -> Result<(), ErrorCode> {
        for (op, request) in ops.iter() {
            let at = self.out.len();
            MultiHeader { op: op.to_i32(), done: false, err: 0 }.put(self.out);
            let result = match request {
                Request::GetData { path, .. } => self.data(path, false),
                Request::GetChildren { path, .. } => self.children(path, false).map(|_| ()),
                _ => Err(ErrorCode::MarshallingError),
            };
            match result {
                Ok(()) => {}
                // No room, or no read: not the fault of this part alone.
                Err(ErrorCode::MarshallingError) => return Err(ErrorCode::MarshallingError),
                Err(err) => {
                    self.out.truncate(at);
                    MultiHeader { op: OpCode::Error.to_i32(), done: false, err: err.to_i32() }.put(self.out);
                    self.out.put_int(err.to_i32());
                }
            }
        }
        MultiHeader::END.put(self.out);
        self.check_room(0)
    }

    /// No path check, no ACL check, and the node need not be there.
    fn add_watch(&mut self, path: &str, mode: i32) -> Result<(), ErrorCode> {
        let mode = WatchMode::from_i32(mode).ok_or(ErrorCode::MarshallingError)?;
        self.tree.add_watch(path, mode, self.ctx.conn).map_err(|_| ErrorCode::SystemError)?;
        self.out.put_int(0);
        Ok(())
    }

    /// A plain prefix of the string: `/a` takes `/ab` too.
    fn ephemerals(&mut self, prefix: Option<&str>) -> Result<(), ErrorCode> {
        let prefix = prefix.filter(|p| !matches!(p.trim_matches(is_java_space), "" | "/")).unwrap_or("");
        let count_at = self.out.reserve_int();
        let mut count = 0;
        let out = &mut *self.out;
        self.tree.ephemeral_paths(self.ctx.session, |path| {
            if path.starts_with(prefix) {
                out.put_ustring(path);
                count += 1;
            }
        });
        self.out.fill_int(count_at, count);
        self.check_room(0)
    }

    /// ZooKeeper counts the names that begin with the path and a slash; it knows the root by two.
    fn all_children_number(&mut self, path: &str) -> Result<(), ErrorCode> {
        let node = self.readable(path)?;
        let number = match path {
            "/" => self.tree.node_count().saturating_sub(2) as u64,
            "" => self.tree.node_count().saturating_sub(1) as u64,
            _ => node.descendants(),
        };
        self.out.put_int(i32::try_from(number).unwrap_or(i32::MAX));
        Ok(())
    }

    fn who_am_i(&mut self) {
        let ids = self.ctx.ids.ids();
        self.out.put_int(i32::try_from(ids.len()).expect("bounded when they were added"));
        for id in ids {
            self.out.put_ustring(id.scheme);
            self.out.put_ustring(id.user());
        }
    }

    fn readable(&self, path: &str) -> Result<NodeRef<'a>, ErrorCode> {
        let node = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
        self.check(node, perms::READ)?;
        Ok(node)
    }

    fn check(&self, node: NodeRef<'_>, wanted: i32) -> Result<(), ErrorCode> {
        let id = node.acl_id();
        let allowed = id == AclId::OPEN || self.ctx.ids.allowed(self.ctx.auth, self.tree.acl(id), wanted);
        if allowed { Ok(()) } else { Err(ErrorCode::NoAuth) }
    }

    fn check_room(&self, more: usize) -> Result<(), ErrorCode> {
        let fits = self.out.len() - self.start + more <= self.ctx.reply_bytes_max;
        if fits { Ok(()) } else { Err(ErrorCode::MarshallingError) }
    }
}

fn found(found: bool) -> Result<(), ErrorCode> {
    if found { Ok(()) } else { Err(ErrorCode::NoWatcher) }
}

/// What Java's `trim` cuts off.
const fn is_java_space(c: char) -> bool {
    c <= ' '
}

const _: () = assert!(Zxid::from_wire(ZXID_NONE).to_wire() == ZXID_NONE);
