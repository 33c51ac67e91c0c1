//! From a write request to a transaction: what ZooKeeper's `PrepRequestProcessor` does.
//!
//! - P1: requests are judged against the tree *and* everything prepared before them, so that a payload does not depend on how
//!   far applying lags behind (quotas excepted: like ZooKeeper's, they look at the tree alone).
//! - P2: every request takes the next zxid. One that fails becomes an error transaction, without a digest, and changes nothing.
//! - P3: the digest in a payload is the tree's after it is applied.
//! - P4: what is prepared can be applied: bodies are decoded and checked here, payloads are bounded, and a session cannot own
//!   more ephemeral nodes than one closeSession can list (rule R11).
//! - P5: nothing is allocated per request in steady state.
//!
//! The order of checks of each operation is ZooKeeper's (`src/docs/compatibility.md`); clients see it in the error they get.

mod create;
mod multi;
mod session;
mod update;

use super::auth::{AuthIds, AuthOptions, open_acl};
use super::overlay::{AclRef, Overlay, Record};
use super::path;
use crate::base::limits::{FRAME_BYTES_MAX_DEFAULT, PAYLOAD_BYTES_MAX};
use crate::base::{ConnId, SessionId, WallMs, Zxid};
use crate::session::{SessionFault, Tracker};
use crate::tree::{AclId, Tree, digest};
use crate::wire::jute::JuteError;
use crate::wire::request::Request;
use crate::wire::txn::{Txn, TxnDigest, TxnHeader, kind};
use crate::wire::{ErrorCode, OpCode};

/// Ephemeral nodes of one session by default: what fits into a closeSession of one default frame (rule R11), less the header
/// (32), the digest (12) and the count (4).
pub const EPHEMERAL_BYTES_MAX_DEFAULT: usize = FRAME_BYTES_MAX_DEFAULT - 48;

/// Payload by default: twice the frame, which is what a ZooKeeper follower with default settings takes as one buffer.
pub const PAYLOAD_BYTES_MAX_DEFAULT: usize = 2 * FRAME_BYTES_MAX_DEFAULT;

const _: () = assert!(PAYLOAD_BYTES_MAX_DEFAULT <= PAYLOAD_BYTES_MAX, "what is prepared, the log must take");
const _: () =
    assert!(EPHEMERAL_BYTES_MAX_DEFAULT + 48 <= PAYLOAD_BYTES_MAX_DEFAULT, "closeSession always fits");

/// What the operator decided about writes.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Authentication and ACL checks.
    pub auth: AuthOptions,
    /// TTL nodes may be made (`extendedTypesEnabled`).
    pub extended_types: bool,
    /// Hard quotas are enforced (`enforceQuota`).
    pub enforce_quota: bool,
    /// `reconfigEnabled`; a standalone node refuses a reconfig either way, with another code.
    pub reconfig_enabled: bool,
    /// Payloads carry the tree's digest (`digest.enabled`).
    pub digest: bool,
    /// Bytes of the ephemeral nodes of one session, each its path plus 4.
    pub ephemeral_bytes_max: usize,
    /// Bytes of one payload; at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: usize,
    /// Seeds the hash table, so that clients cannot choose paths that collide.
    pub seed: u64,
}

impl Default for PrepareOptions {
    fn default() -> PrepareOptions {
        PrepareOptions {
            auth: AuthOptions::default(),
            extended_types: false,
            enforce_quota: false,
            reconfig_enabled: false,
            digest: true,
            ephemeral_bytes_max: EPHEMERAL_BYTES_MAX_DEFAULT,
            payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT,
            seed: 0,
        }
    }
}

/// One write request.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// Who asks; `SessionId(0)` is the server itself.
    pub session: SessionId,
    /// The request's xid.
    pub cxid: i32,
    /// What is asked for.
    pub op: OpCode,
    /// Bytes behind the request header.
    pub body: &'a [u8],
    /// Identities of the connection.
    pub auth: &'a AuthIds,
    /// The connection; requests of a session's earlier connection are refused.
    pub conn: ConnId,
}

/// What prepare asks and tells about sessions.
pub trait Sessions {
    /// May `conn` act for `session`?
    fn check(&self, session: SessionId, conn: ConnId) -> Result<(), SessionFault>;
    /// As `check`, and the session must be one that all servers know.
    fn check_global(&self, session: SessionId, conn: ConnId) -> Result<(), SessionFault>;
    /// The session ends: refuse its later requests.
    fn set_closing(&self, session: SessionId);
}

impl Sessions for Tracker {
    fn check(&self, session: SessionId, conn: ConnId) -> Result<(), SessionFault> {
        Tracker::check(self, session, conn)
    }

    fn check_global(&self, session: SessionId, conn: ConnId) -> Result<(), SessionFault> {
        Tracker::check_global(self, session, conn)
    }

    fn set_closing(&self, session: SessionId) {
        Tracker::set_closing(self, session);
    }
}

/// Prepares writes one after another. There is one per node, and nobody else makes transactions.
#[derive(Debug)]
pub struct Prepare {
    options: PrepareOptions,
    overlay: Overlay,
    /// Of the last transaction prepared.
    zxid: Zxid,
    /// Of the tree once everything prepared is applied.
    digest: u64,
    scratch: Scratch,
    open_acl: Vec<u8>,
}

/// Buffers that the transaction under way borrows from.
#[derive(Debug, Default)]
struct Scratch {
    /// Path with sequence number.
    path: String,
    /// Resolved ACL.
    acl: Vec<u8>,
    /// Paths of a closeSession, one behind the other, and where each lies.
    paths: String,
    ranges: Vec<(usize, usize)>,
    list: Vec<u8>,
}

/// What one request is judged by.
#[derive(Clone, Copy)]
struct Context<'a, S> {
    tree: &'a Tree,
    sessions: &'a S,
    req: &'a WriteRequest<'a>,
    zxid: Zxid,
    now: WallMs,
}

impl Prepare {
    /// Goes on behind `applied`, where the tree's digest is `digest`.
    #[must_use]
    pub fn new(applied: Zxid, digest: u64, options: PrepareOptions) -> Prepare {
        assert!(options.payload_bytes_max <= PAYLOAD_BYTES_MAX, "what is prepared, the log must take");
        assert!(options.ephemeral_bytes_max + 48 <= options.payload_bytes_max, "closeSession always fits");
        let overlay = Overlay::new(options.seed);
        Prepare { options, overlay, zxid: applied, digest, scratch: Scratch::default(), open_acl: open_acl() }
    }

    /// Appends the payload of `req` (header, transaction, digest) to `out` and returns its zxid. The tree may lag behind what
    /// was prepared, but must have applied everything that [`Prepare::applied`] was told of.
    pub fn prepare<S: Sessions>(
        &mut self,
        tree: &Tree,
        sessions: &S,
        now: WallMs,
        req: &WriteRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Zxid {
        let start = out.len();
        let zxid = self.zxid.next();
        assert!(tree.applied() < zxid, "nothing is applied that was not prepared");
        let ctx = Context { tree, sessions, req, zxid, now };
        self.overlay.begin(zxid);
        let digest_before = self.digest;
        self.put_header(&ctx, req.op.to_i32(), out);
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.put_txn(&ctx, &mut scratch, start, out);
        self.scratch = scratch;
        match result {
            Ok(()) => {
                self.overlay.commit();
                self.put_digest(out);
            }
            Err(err) => {
                self.overlay.rollback(tree);
                self.digest = digest_before;
                out.truncate(start);
                self.put_header(&ctx, kind::ERROR, out);
                Txn::Error { err: err.to_i32() }.put(out);
            }
        }
        // Not the configured bound: a closeSession lists what was created under an earlier, larger one.
        assert!(out.len() - start <= PAYLOAD_BYTES_MAX, "payloads are bounded (P4)");
        self.zxid = zxid;
        zxid
    }

    /// The tree has come further: forget what it holds by now.
    pub fn applied(&mut self, tree: &Tree) {
        self.overlay.drop_applied(tree.applied());
    }

    /// zxid of the last transaction prepared.
    #[must_use]
    pub const fn last_zxid(&self) -> Zxid {
        self.zxid
    }

    /// The tree's digest once everything prepared is applied.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Number of nodes with pending changes.
    #[must_use]
    pub fn pending_nodes(&self) -> usize {
        self.overlay.len()
    }

    /// What was decided when it was made.
    #[must_use]
    pub const fn options(&self) -> &PrepareOptions {
        &self.options
    }

    fn put_header<S>(&self, ctx: &Context<'_, S>, kind: i32, out: &mut Vec<u8>) {
        let header = TxnHeader {
            client_id: ctx.req.session.0,
            cxid: ctx.req.cxid,
            zxid: ctx.zxid.to_wire(),
            time_ms: ctx.now.0,
            kind,
        };
        header.put(out);
    }

    fn put_digest(&self, out: &mut Vec<u8>) {
        if self.options.digest {
            TxnDigest { version: TxnDigest::VERSION, digest: self.digest }.put(out);
        }
    }

    /// Appends the body of the transaction; an error becomes an error transaction.
    fn put_txn<S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        scratch: &mut Scratch,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        // Not even in a log: whoever replays it would not know what to do with it (ZOOKEEPER-2623).
        if !ctx.req.op.is_write() {
            return Err(ErrorCode::Unimplemented);
        }
        let request = Request::read(ctx.req.op, ctx.req.body).map_err(|e| code_of(ctx.req.op, e))?;
        match request {
            Request::Multi(ops) => return self.multi(ctx, scratch, ops, start, out),
            // Whatever its size: it was bounded when the ephemerals were made, and a session whose end is refused would never end.
            Request::CloseSession => {
                self.close_session(ctx, scratch, out);
                return Ok(());
            }
            Request::CreateSession { timeout_ms } => Txn::CreateSession { timeout_ms }.put(out),
            Request::Reconfig { .. } => return Err(self.reconfig(ctx)),
            _ => self.single(ctx, scratch, ctx.req.op, &request)?.put(out),
        }
        self.check_size(start, out)
    }

    /// The operations that may stand alone or in a multi.
    fn single<'b, S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        scratch: &'b mut Scratch,
        op: OpCode,
        request: &Request<'b>,
    ) -> Result<Txn<'b>, ErrorCode> {
        match *request {
            Request::Create(create) => self.create(ctx, scratch, op, &create),
            Request::Delete { path, version } => self.delete(ctx, path, version),
            Request::DeleteContainer { path } => self.delete_container(ctx, path),
            Request::SetData { path, data, version } => self.set_data(ctx, path, data, version),
            Request::SetAcl { path, acl, version } => self.set_acl(ctx, scratch, path, acl, version),
            Request::Check { path, version } => self.check(ctx, path, version),
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    /// What a standalone ZooKeeper answers.
    fn reconfig<S: Sessions>(&self, ctx: &Context<'_, S>) -> ErrorCode {
        if !self.options.reconfig_enabled {
            return ErrorCode::ReconfigDisabled;
        }
        check_session(ctx).err().unwrap_or(ErrorCode::Unimplemented)
    }

    /// With room for the digest.
    fn check_size(&self, start: usize, out: &[u8]) -> Result<(), ErrorCode> {
        let fits = out.len() - start + 12 <= self.options.payload_bytes_max;
        if fits { Ok(()) } else { Err(ErrorCode::BadArguments) }
    }

    /// The node at `path` as it will be.
    fn find(&self, tree: &Tree, path: &str) -> Option<Record> {
        match self.overlay.get(path::canonical(path)) {
            Some(pending) => pending.copied(),
            None => tree.find(path).map(Record::of),
        }
    }

    fn find_or_no_node(&self, tree: &Tree, path: &str) -> Result<Record, ErrorCode> {
        self.find(tree, path).ok_or(ErrorCode::NoNode)
    }

    /// The node at `path`, whose ACL gives the client one of the permissions in `wanted`.
    fn find_permitted<S>(&self, ctx: &Context<'_, S>, path: &str, wanted: i32) -> Result<Record, ErrorCode> {
        let node = self.find_or_no_node(ctx.tree, path)?;
        self.check_acl(ctx, node.acl, wanted)?;
        Ok(node)
    }

    /// The node at `path` becomes `new`; the digest follows.
    fn put(&mut self, tree: &Tree, path: &str, old: Option<&Record>, new: Option<Record>) {
        let path = path::canonical(path);
        if self.options.digest && digest::counts(path) {
            let (gone, come) = (old.map_or(0, Record::digest), new.as_ref().map_or(0, Record::digest));
            self.digest = self.digest.wrapping_sub(gone).wrapping_add(come);
        }
        self.overlay.put(tree, path, old, new);
    }

    fn check_acl<S>(&self, ctx: &Context<'_, S>, acl: AclRef, wanted: i32) -> Result<(), ErrorCode> {
        if acl == AclRef::Tree(AclId::OPEN) {
            return Ok(());
        }
        let acl = self.overlay.acl(ctx.tree, acl);
        let allowed = ctx.req.auth.allowed(&self.options.auth, acl, wanted);
        if allowed { Ok(()) } else { Err(ErrorCode::NoAuth) }
    }

    /// Keeps a resolved ACL for a record.
    fn keep_acl(&mut self, acl: &[u8]) -> AclRef {
        if acl == self.open_acl { AclRef::Tree(AclId::OPEN) } else { self.overlay.add_acl(acl) }
    }
}

/// ZooKeeper stumbles over a null path, but for the two operations that look at the path's characters first.
fn code_of(op: OpCode, error: JuteError) -> ErrorCode {
    match (op, error) {
        (OpCode::SetData | OpCode::SetAcl, JuteError::Null { .. }) => ErrorCode::BadArguments,
        _ => ErrorCode::MarshallingError,
    }
}

fn check_session<S: Sessions>(ctx: &Context<'_, S>) -> Result<(), ErrorCode> {
    ctx.sessions.check(ctx.req.session, ctx.req.conn).map_err(session_error)
}

fn session_error(fault: SessionFault) -> ErrorCode {
    match fault {
        SessionFault::Expired(_) => ErrorCode::SessionExpired,
        SessionFault::Moved(_) => ErrorCode::SessionMoved,
        SessionFault::Local(_) => ErrorCode::EphemeralOnLocalSession,
    }
}

fn check_path(path: &str) -> Result<(), ErrorCode> {
    if path::is_valid(path) { Ok(()) } else { Err(ErrorCode::BadArguments) }
}

/// The version behind `current`, if the client expects `current` or does not care (-1). -1 is skipped when versions wrap: a
/// client could not ask for it.
fn next_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != current {
        return Err(ErrorCode::BadVersion);
    }
    let next = current.wrapping_add(1);
    Ok(if next == -1 { 0 } else { next })
}
