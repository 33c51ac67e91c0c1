//! A node without a server: tree, prepare and sessions on one thread, and clients that talk to them in whole frames.
//!
//! Every transaction that is applied is checked on the way: its payload decodes, and its digest is the tree's after it.

use std::collections::VecDeque;

use crate::base::{ConnId, MonoMs, SessionId, WallMs, Zxid};
use crate::node::auth::open_acl;
use crate::node::{
    AuthIds, AuthOptions, Prepare, PrepareOptions, REPLY_BYTES_MAX, ReadContext, WriteRequest,
    put_write_reply, serve_read_body,
};
use crate::session::Tracker;
use crate::tree::{Fired, Tree, TreeOptions};
use crate::wire::jute::{PutJute, Reader};
use crate::wire::reply::EventType;
use crate::wire::request::MultiHeader;
use crate::wire::txn::Proposal;
use crate::wire::{Acl, ErrorCode, OpCode, Stat, put_acl_vec};

/// One client: a session on a connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its session.
    pub session: SessionId,
    /// Its connection.
    pub conn: ConnId,
    /// What it authenticated as.
    pub ids: AuthIds,
}

/// A reply frame, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of the request.
    pub xid: i32,
    /// Header zxid.
    pub zxid: i64,
    /// Header error.
    pub err: i32,
    /// What follows the header.
    pub body: Vec<u8>,
    /// The connection is to be closed.
    pub close_after: bool,
}

impl Reply {
    /// The header's error.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::from_i32(self.err).expect("a known error code")
    }

    /// The stat at the end of the body.
    #[must_use]
    pub fn stat(&self) -> Stat {
        assert_eq!(self.err, 0);
        Stat::read(&mut Reader::new(&self.body[self.body.len() - Stat::BYTES..])).expect("a stat")
    }

    /// The string at the start of the body.
    #[must_use]
    pub fn path(&self) -> &str {
        assert_eq!(self.err, 0);
        Reader::new(&self.body).ustring().expect("a string")
    }

    /// Results of a multi: type, error, and the bytes of the result where it has any.
    #[must_use]
    pub fn results(&self) -> Vec<(i32, i32)> {
        assert_eq!(self.err, 0);
        let mut r = Reader::new(&self.body);
        let mut out = Vec::new();
        loop {
            let header = MultiHeader::read(&mut r).expect("a header");
            if header.done {
                assert_eq!((header, r.left()), (MultiHeader::END, 0));
                return out;
            }
            out.push((header.op, header.err));
            skip_result(&mut r, header);
        }
    }
}

fn skip_result(r: &mut Reader<'_>, header: MultiHeader) {
    match OpCode::from_i32(header.op).expect("a known type") {
        OpCode::Error => assert_eq!(r.int(), Ok(header.err)),
        OpCode::Create => {
            r.ustring().unwrap();
        }
        OpCode::Create2 => {
            r.ustring().unwrap();
            Stat::read(r).unwrap();
        }
        OpCode::SetData => {
            Stat::read(r).unwrap();
        }
        OpCode::GetData => {
            r.buffer().unwrap();
            Stat::read(r).unwrap();
        }
        OpCode::GetChildren => {
            crate::wire::StrVec::read(r).unwrap();
        }
        OpCode::Delete | OpCode::Check => {}
        other => panic!("{other:?} is no result"),
    }
}

#[derive(Debug)]
struct Pending {
    op: OpCode,
    session: SessionId,
    payload: Vec<u8>,
}

/// The node.
#[derive(Debug)]
pub struct World {
    /// What is applied.
    pub tree: Tree,
    /// What is prepared.
    pub prepare: Prepare,
    /// Who is alive.
    pub sessions: Tracker,
    /// Watches that fired in the last transaction applied.
    pub fired: Fired,
    /// Goes into transaction headers.
    pub now: WallMs,
    /// Every payload so far.
    pub log: Vec<Vec<u8>>,
    auth: AuthOptions,
    pending: VecDeque<Pending>,
    conns: u64,
}

impl Default for World {
    fn default() -> World {
        World::new(PrepareOptions::default())
    }
}

impl World {
    /// A fresh node.
    #[must_use]
    pub fn new(options: PrepareOptions) -> World {
        let tree_options = TreeOptions { extended_types: options.extended_types, ..TreeOptions::default() };
        let tree = Tree::new(tree_options);
        World {
            auth: options.auth.clone(),
            prepare: Prepare::new(tree.applied(), tree.digest(), options),
            tree,
            sessions: Tracker::new(2_000, 0x0100_0000_0000_0000),
            fired: Fired::new(),
            now: WallMs(1_000),
            log: Vec::new(),
            pending: VecDeque::new(),
            conns: 0,
        }
    }

    /// A client with a session of its own, which is applied.
    pub fn client(&mut self) -> Client {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let session = self.sessions.create(10_000, conn, MonoMs(0)).id();
        let client =
            Client { session, conn, ids: AuthIds::of_peer("127.0.0.1".parse().expect("an address")) };
        self.submit(&client, 0, OpCode::CreateSession, &10_000i32.to_be_bytes());
        self.apply_all();
        client
    }

    /// Adds a digest identity.
    pub fn login(&self, client: &mut Client, user_password: &str) {
        client
            .ids
            .authenticate(&self.auth, Some("digest"), Some(user_password.as_bytes()))
            .expect("digest is on");
    }

    /// Prepares a write; nothing is applied yet.
    pub fn submit(&mut self, client: &Client, xid: i32, op: OpCode, body: &[u8]) -> Zxid {
        let req = WriteRequest {
            session: client.session,
            cxid: xid,
            op,
            body,
            auth: &client.ids,
            conn: client.conn,
        };
        let before = self.prepare.last_zxid();
        let mut payload = Vec::new();
        let zxid = self.prepare.prepare(&self.tree, &self.sessions, self.now, &req, &mut payload);
        assert_eq!(zxid, before.next());
        self.log.push(payload.clone());
        self.pending.push_back(Pending { op, session: client.session, payload });
        zxid
    }

    /// Applies the oldest write that is not applied yet; its reply, if it has one.
    pub fn apply_one(&mut self) -> Option<Reply> {
        let Pending { op, session, payload } = self.pending.pop_front()?;
        let proposal = Proposal::read(&payload).expect("what is prepared decodes");
        self.fired.clear();
        let outcome = self.tree.apply(&proposal, &mut self.fired);
        if let Some(digest) = proposal.digest {
            assert_eq!(digest.digest, self.tree.digest(), "{op:?} {outcome:?}");
        }
        self.prepare.applied(&self.tree);
        if op == OpCode::CloseSession {
            self.sessions.remove(session);
        }
        let mut out = Vec::new();
        let served = put_write_reply(&mut out, proposal.header.cxid, op, &proposal, &outcome);
        split(&out, served.close_after)
    }

    /// Applies all that is prepared; the last reply.
    pub fn apply_all(&mut self) -> Option<Reply> {
        let mut last = None;
        while !self.pending.is_empty() {
            last = self.apply_one();
        }
        assert_eq!(self.prepare.pending_nodes(), 0, "nothing is left over");
        assert_eq!(self.prepare.digest(), self.tree.digest());
        last
    }

    /// Prepares and applies a write; its reply.
    pub fn write(&mut self, client: &Client, op: OpCode, body: &[u8]) -> Reply {
        self.submit(client, 7, op, body);
        self.apply_all().expect("a reply")
    }

    /// As [`World::write`], for what must work.
    pub fn must(&mut self, client: &Client, op: OpCode, body: &[u8]) -> Reply {
        let reply = self.write(client, op, body);
        assert_eq!(reply.code(), ErrorCode::Ok, "{op:?}");
        reply
    }

    /// Serves a read; its reply.
    pub fn read(&self, client: &Client, op: OpCode, body: &[u8]) -> Reply {
        let (out, close_after) = self.read_frames(client, op, body, REPLY_BYTES_MAX);
        split(&out, close_after).expect("a reply")
    }

    /// Serves a read; all frames it makes.
    #[must_use]
    pub fn read_frames(
        &self,
        client: &Client,
        op: OpCode,
        body: &[u8],
        reply_bytes_max: usize,
    ) -> (Vec<u8>, bool) {
        let ctx = ReadContext {
            conn: client.conn,
            session: client.session,
            ids: &client.ids,
            auth: &self.auth,
            reply_bytes_max,
        };
        let mut out = Vec::new();
        let served = serve_read_body(&self.tree, &ctx, 9, op, body, &mut out);
        (out, served.close_after)
    }

    /// Watches that fired in the last transaction applied: event, path, connections.
    #[must_use]
    pub fn fired(&self) -> Vec<(EventType, String, Vec<ConnId>)> {
        self.fired.iter().map(|f| (f.event, f.path.to_owned(), f.watchers.to_vec())).collect()
    }
}

/// Takes the one frame in `frames` apart; `None` when there is none.
fn split(frames: &[u8], close_after: bool) -> Option<Reply> {
    if frames.is_empty() {
        return None;
    }
    let mut r = Reader::new(frames);
    assert_eq!(r.int(), Ok(i32::try_from(frames.len() - 4).expect("small")), "one whole frame");
    let (xid, zxid, err) = (r.int().unwrap(), r.long().unwrap(), r.int().unwrap());
    Some(Reply { xid, zxid, err, body: r.rest().to_vec(), close_after })
}

/// Bodies of requests.
pub mod body {
    use super::{Acl, MultiHeader, OpCode, PutJute, open_acl, put_acl_vec};

    /// An ACL, encoded.
    #[must_use]
    pub fn acl(entries: &[(i32, &str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        let entries =
            entries.iter().map(|&(perms, scheme, id)| Acl { perms, scheme: Some(scheme), id: Some(id) });
        put_acl_vec(&mut out, entries);
        out
    }

    /// create, create2, createContainer with an ACL.
    #[must_use]
    pub fn create_with(path: &str, data: Option<&[u8]>, flags: i32, acl: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_ustring(path);
        out.put_buffer(data);
        out.extend_from_slice(acl);
        out.put_int(flags);
        out
    }

    /// create, create2, createContainer, open to everybody.
    #[must_use]
    pub fn create(path: &str, flags: i32) -> Vec<u8> {
        create_with(path, Some(b"data"), flags, &open_acl())
    }

    /// createTTL.
    #[must_use]
    pub fn create_ttl(path: &str, flags: i32, ttl_ms: i64) -> Vec<u8> {
        let mut out = create(path, flags);
        out.put_long(ttl_ms);
        out
    }

    /// delete, check, addWatch, checkWatches, removeWatches: a path and a number.
    #[must_use]
    pub fn path_int(path: &str, v: i32) -> Vec<u8> {
        let mut out = path_only(path);
        out.put_int(v);
        out
    }

    /// exists, getData, getChildren, getChildren2.
    #[must_use]
    pub fn path_watch(path: &str, watch: bool) -> Vec<u8> {
        let mut out = path_only(path);
        out.put_boolean(watch);
        out
    }

    /// getACL, sync, deleteContainer, getEphemerals, getAllChildrenNumber.
    #[must_use]
    pub fn path_only(path: &str) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_ustring(path);
        out
    }

    /// setData.
    #[must_use]
    pub fn set_data(path: &str, data: Option<&[u8]>, version: i32) -> Vec<u8> {
        let mut out = path_only(path);
        out.put_buffer(data);
        out.put_int(version);
        out
    }

    /// setACL.
    #[must_use]
    pub fn set_acl(path: &str, acl: &[u8], version: i32) -> Vec<u8> {
        let mut out = path_only(path);
        out.extend_from_slice(acl);
        out.put_int(version);
        out
    }

    /// reconfig, with nothing in it.
    #[must_use]
    pub fn reconfig() -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..3 {
            out.put_buffer(None);
        }
        out.put_long(-1);
        out
    }

    /// multi, multiRead.
    #[must_use]
    pub fn multi(ops: &[(OpCode, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (op, body) in ops {
            MultiHeader { op: op.to_i32(), done: false, err: -1 }.put(&mut out);
            out.extend_from_slice(body);
        }
        MultiHeader::END.put(&mut out);
        out
    }

    /// setWatches2.
    #[must_use]
    pub fn set_watches(relative_zxid: i64, lists: [&[&str]; 5]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_long(relative_zxid);
        for list in lists {
            out.put_int(i32::try_from(list.len()).expect("short"));
            list.iter().for_each(|path| out.put_ustring(path));
        }
        out
    }
}
