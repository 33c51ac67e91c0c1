//! What a connection does with each frame: greeting (four-letter word or connect request), then requests, in order.
//!
//! - D1: a frame is looked at only when it is there in whole; its length is checked against the limit first, and against a far smaller
//!   one before there is a session.
//! - D2: nothing here waits. What cannot go on is said in [`Progress`], and the frame stays where it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::base::SessionId;
use crate::node::member::Standing;
use crate::node::{self, AuthIds, ReadContext, Served};
use crate::server::Shared;
use crate::server::commit::Write;
use crate::server::conn::{Auth, Conn, REFUSED};
use crate::server::fourletter::{TRACE_MASK_BYTES, Word};
use crate::server::stats::{RequestKind, Tally, micros};
use crate::session::{self, ConnectPlan, ConnectState, SessionHandle};
use crate::wire::jute::{JuteError, PutJute, Reader};
use crate::wire::request::{ConnectRequest, Request, RequestHeader};
use crate::wire::{ErrorCode, OpCode, reply};

/// Reads served under one hold of the tree's lock: a writer waits for them, and other readers behind it.
const READS_PER_HOLD_MAX: u64 = 128;

/// Time after which a run of reads lets go of the lock, and lets other connections have their turn.
const HOLD_MAX: Duration = Duration::from_micros(200);

/// The clock is looked at after so many reads: most take less than looking at it.
const READS_PER_LOOK: u64 = 8;

/// How far the frames at hand were processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All of them; the next one is not there in whole.
    NeedInput,
    /// A read waits for the connection's own writes; so does everything behind a connect request.
    OwnWrites,
    /// As many writes as a connection may have are under way.
    TooManyWrites,
    /// The client does not read its replies.
    OutputFull,
    /// The commit path has as much as it may hold.
    QueueFull,
    /// Reads took as long as one connection may keep others waiting: go on after they had their turn.
    Yield,
    /// The connection is to be closed, for this reason.
    Close(&'static str),
}

impl Progress {
    /// True when a frame is at hand that could not be processed yet.
    pub(crate) const fn is_waiting(self) -> bool {
        !matches!(self, Progress::NeedInput | Progress::Close(_))
    }
}

#[derive(Debug)]
enum Phase {
    /// Nothing, or not enough, has been received.
    Greeting,
    /// The session's transaction is under way, or the leader was asked about it.
    Opening { read_only: Option<bool> },
    /// Requests.
    Open { handle: Arc<SessionHandle> },
    /// What is received from now on is ignored.
    Done,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Dispatch<'a> {
    shared: &'a Arc<Shared>,
    conn: &'a Arc<Conn>,
    phase: Phase,
    /// Who the client is; `conn` has it too, for those who deliver events.
    auth: Auth,
    submitted: bool,
    /// A sync is under way: whatever was sent behind it waits, for its reply comes from elsewhere.
    syncing: bool,
    tally: Tally,
}

/// One request at the front of the input.
#[derive(Clone, Copy)]
struct Frame<'b> {
    header: RequestHeader,
    body: &'b [u8],
    /// Bytes with the length in front.
    bytes: usize,
}

impl<'a> Dispatch<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, conn: &'a Arc<Conn>) -> Dispatch<'a> {
        Dispatch {
            shared,
            conn,
            phase: Phase::Greeting,
            auth: Auth::default(),
            submitted: false,
            syncing: false,
            tally: Tally::default(),
        }
    }

    /// True once a connect request or a four-letter word has come.
    pub(crate) fn is_greeted(&self) -> bool {
        !matches!(self.phase, Phase::Greeting)
    }

    /// True when writes were submitted since the last call: the commit path wants a kick.
    pub(crate) fn take_submitted(&mut self) -> bool {
        std::mem::take(&mut self.submitted)
    }

    /// Writes a connection may have under way.
    pub(crate) fn pending_writes_max(&self) -> usize {
        self.shared.config.limits.requests_per_connection_max.max(1) as usize
    }

    /// Processes the frames at the front of `input`; returns how many bytes are done with.
    pub(crate) fn frames(&mut self, input: &[u8], now: Instant) -> (usize, Progress) {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let (done, progress) = match &self.phase {
                Phase::Greeting => self.greeting(rest),
                Phase::Opening { .. } => (0, self.opening()),
                Phase::Open { .. } => self.requests(rest, now),
                Phase::Done => (rest.len(), Some(Progress::NeedInput)),
            };
            consumed += done;
            if let Some(progress) = progress {
                return (consumed, progress);
            }
        }
    }

    fn greeting(&mut self, input: &[u8]) -> (usize, Option<Progress>) {
        let Some(head) = input.first_chunk::<4>() else { return (0, Some(Progress::NeedInput)) };
        if let Some(word) = Word::detect(*head) {
            return self.four_letter_word(word, &input[4..]);
        }
        let len = i32::from_be_bytes(*head);
        let max = self.shared.config.limits.handshake_bytes_max;
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= max) else {
            return (0, Some(Progress::Close("the first frame is no connect request")));
        };
        let Some(frame) = input.get(4..4 + len) else { return (0, Some(Progress::NeedInput)) };
        let Ok(request) = ConnectRequest::read(frame) else {
            return (0, Some(Progress::Close("the first frame is no connect request")));
        };
        self.shared.stats.connection_requests.fetch_add(1, Ordering::Relaxed);
        self.note_request(4 + len);
        (4 + len, self.connect(&request))
    }

    fn four_letter_word(&mut self, word: Word, rest: &[u8]) -> (usize, Option<Progress>) {
        let (mask, taken) = match word {
            Word::Stmk => match rest.first_chunk::<TRACE_MASK_BYTES>() {
                Some(mask) => (Some(i64::from_be_bytes(*mask)), 4 + TRACE_MASK_BYTES),
                None => return (0, Some(Progress::NeedInput)),
            },
            _ => (None, 4),
        };
        // Formatted outside of the outbox: a word may look at connections, this one among them.
        let mut answer = Vec::new();
        self.shared.four_letter_word(word, mask, &mut answer);
        self.conn.put(|out| {
            out.bytes.append(&mut answer);
            out.close_after = true;
        });
        self.phase = Phase::Done;
        (taken, None)
    }

    fn connect(&mut self, request: &ConnectRequest<'_>) -> Option<Progress> {
        let shared = self.shared;
        let standing = match &shared.ensemble {
            None => None,
            Some(ensemble) => match ensemble.standing() {
                Some(Standing::Leading { .. }) if !ensemble.config.leader_serves => {
                    return Some(Progress::Close("the leader takes no clients (leaderServes)"));
                }
                None if !ensemble.is_read_only() => {
                    return Some(Progress::Close("this server is not serving: it has no leader"));
                }
                standing => standing,
            },
        };
        let tree = shared.tree.read();
        let mut sessions = shared.sessions.lock();
        let state = ConnectState {
            applied: tree.applied(),
            timeout_ms_min: shared.config.session_timeout_ms_min,
            timeout_ms_max: shared.config.session_timeout_ms_max,
            // Not asked again: a leader may have been found since, and what is known of sessions then is not here.
            read_only: shared.ensemble.is_some() && standing.is_none(),
            local_sessions: shared.ensemble.as_ref().is_some_and(|ensemble| ensemble.config.local_sessions),
            follows: matches!(standing, Some(Standing::Learning { .. })),
            in_tree: tree.session_timeout(SessionId(request.session_id)).is_some(),
        };
        if self.conn.is_killed() {
            return Some(Progress::Close("this server found or lost its leader meanwhile"));
        }
        let (id, now) = (self.conn.id, shared.mono_now());
        match session::plan_connect(request, &state, &sessions) {
            ConnectPlan::New { .. } if sessions.len() >= shared.config.limits.sessions_max as usize => {
                tracing::warn!(peer = %self.conn.peer, "no more sessions (zabra.limits.sessions)");
                Some(Progress::Close("too many sessions"))
            }
            ConnectPlan::New { timeout_ms, local: true } => {
                let handle = sessions.create_local(timeout_ms, id, now);
                self.open(handle, request.read_only);
                None
            }
            ConnectPlan::New { timeout_ms, local: false } => {
                let handle = sessions.create(timeout_ms, id, now);
                drop((sessions, tree));
                self.submit_session(&handle, timeout_ms);
                self.phase = Phase::Opening { read_only: request.read_only };
                Some(Progress::OwnWrites)
            }
            ConnectPlan::Revalidate { session, timeout_ms } => {
                drop((sessions, tree));
                // Counts as a write under way: what the client sends behind it waits.
                self.conn.write_submitted();
                self.phase = Phase::Opening { read_only: request.read_only };
                let ensemble = shared.ensemble.as_ref().expect("only a follower asks its leader");
                ensemble.revalidate(self.conn, session, timeout_ms);
                Some(Progress::OwnWrites)
            }
            ConnectPlan::Resume { session, timeout_ms } => {
                let (handle, before) =
                    sessions.resume(session, timeout_ms, id, now).expect("planned under the same lock");
                if let Some(older) = shared.conns.get(before).filter(|older| older.id != id) {
                    older.kill();
                }
                self.open(handle, request.read_only);
                None
            }
            ConnectPlan::Expired => {
                self.expired(request.read_only);
                None
            }
            ConnectPlan::Close(refusal) => {
                tracing::info!(peer = %self.conn.peer, %refusal, "client sent elsewhere");
                Some(Progress::Close("refused to serve the session"))
            }
        }
    }

    fn submit_session(&mut self, handle: &SessionHandle, timeout_ms: i32) {
        let mut body = Vec::new();
        body.put_int(timeout_ms);
        let write = Write {
            session: handle.id(),
            xid: 0,
            op: OpCode::CreateSession,
            body: &body,
            received: Instant::now(),
        };
        self.shared.commit.submit(|queue| queue.push_client(self.conn, &self.auth, &write));
        self.submitted = true;
    }

    /// The client is told that its session is no more.
    fn expired(&mut self, read_only: Option<bool>) {
        self.conn.put(|out| {
            let password = session::ZERO_PASSWORD;
            reply::put_connect(&mut out.bytes, 0, 0, &password, read_only.map(|_| false));
            out.close_after = true;
        });
        self.phase = Phase::Done;
    }

    /// Answers the connect request once the session's transaction is applied, or the leader has answered.
    fn opening(&mut self) -> Option<Progress> {
        let Some(session) = self.conn.session() else { return Some(Progress::OwnWrites) };
        let Phase::Opening { read_only } = std::mem::replace(&mut self.phase, Phase::Done) else {
            unreachable!("called in this phase only");
        };
        if session == REFUSED {
            self.expired(read_only);
            return None;
        }
        let handle = self.shared.sessions.lock().get(session).cloned();
        match handle {
            Some(handle) => {
                self.open(handle, read_only);
                None
            }
            None => Some(Progress::Close("its session has ended meanwhile")),
        }
    }

    fn open(&mut self, handle: Arc<SessionHandle>, read_only: Option<bool>) {
        self.conn.set_session(handle.id());
        let password = session::password(handle.id());
        self.answer(|out| {
            let read_only = read_only.map(|_| self.shared.is_read_only());
            reply::put_connect(out, handle.timeout_ms(), handle.id().0, &password, read_only);
            Served::STAY
        });
        self.phase = Phase::Open { handle };
    }

    /// Processes requests until something stops it: at most one run of writes, or one run of reads, per call.
    fn requests(&mut self, input: &[u8], now: Instant) -> (usize, Option<Progress>) {
        let frame = match self.frame(input) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (0, Some(Progress::NeedInput)),
            Err(reason) => return (0, Some(Progress::Close(reason))),
        };
        let Phase::Open { handle } = &self.phase else { unreachable!("called in this phase only") };
        let session = handle.id();
        if !handle.touch(self.shared.mono_at(now)) {
            // Its end is decided: like ZooKeeper, no reply; the close follows.
            return (frame.bytes, None);
        }
        if handle.check(self.conn.id).is_err() {
            // Closing, or moved: then this connection is being closed.
            return (frame.bytes, None);
        }
        if self.syncing && self.conn.pending_writes() > 0 {
            return (0, Some(Progress::OwnWrites));
        }
        self.syncing = false;
        match self.class(&frame) {
            Class::Write | Class::Sync if self.shared.is_read_only() => {
                self.note_request(frame.bytes);
                self.refuse_write(&frame, session);
                (frame.bytes, None)
            }
            Class::Write if handle.local() => {
                let handle = Arc::clone(handle);
                self.local_write(&frame, &handle, now)
            }
            Class::Write => self.writes(input, session, now),
            Class::Sync => self.sync(&frame, session, now),
            Class::Read if self.conn.pending_writes() > 0 => (0, Some(Progress::OwnWrites)),
            Class::Read => self.reads(input, session, now),
            Class::Auth => {
                self.note_request(frame.bytes);
                self.authenticate(&frame);
                (frame.bytes, None)
            }
            Class::Sasl => {
                self.note_request(frame.bytes);
                self.answer(|out| node::serve_sasl(frame.header.xid, out));
                (frame.bytes, None)
            }
            Class::Unknown | Class::Undecodable if self.conn.pending_writes() > 0 => {
                (0, Some(Progress::OwnWrites))
            }
            Class::Undecodable => {
                self.note_request(frame.bytes);
                let applied = self.shared.tree.read().applied();
                self.answer(|out| {
                    reply::put_empty(out, frame.header.xid, applied, ErrorCode::MarshallingError);
                    Served::STAY
                });
                (frame.bytes, None)
            }
            Class::Unknown => {
                self.note_request(frame.bytes);
                self.answer(|out| node::put_unimplemented(out, frame.header.xid));
                (frame.bytes, None)
            }
        }
    }

    /// Hands the run of writes at the front of `input` to the commit path.
    fn writes(&mut self, input: &[u8], session: SessionId, now: Instant) -> (usize, Option<Progress>) {
        let shared = self.shared;
        if shared.commit.is_full(self.conn.pending_writes()) {
            return (0, Some(Progress::QueueFull));
        }
        let room = self.pending_writes_max().saturating_sub(self.conn.pending_writes());
        if room == 0 {
            return (0, Some(Progress::TooManyWrites));
        }
        if self.conn.unread_bytes() >= self.conn.outbox_bytes_soft() {
            return (0, Some(Progress::OutputFull));
        }
        let (mut consumed, mut count) = (0, 0);
        // Looked at before the queue is locked, which everybody shares: under it there is only copying.
        while count < room
            && let Ok(Some(frame)) = self.frame(&input[consumed..])
            && self.class(&frame) == Class::Write
        {
            consumed += frame.bytes;
            count += 1;
        }
        let mut run = &input[..consumed];
        shared.commit.submit(|queue| {
            while let Ok(Some(frame)) = self.frame(run) {
                let op = OpCode::from_i32(frame.header.op).expect("a write has a known number");
                let write = Write { session, xid: frame.header.xid, op, body: frame.body, received: now };
                queue.push_client(self.conn, &self.auth, &write);
                run = &run[frame.bytes..];
            }
        });
        self.conn.stats.requests(count as u64);
        self.submitted = true;
        (consumed, None)
    }

    /// A write of a session that this server alone knows. Its end needs no transaction; an ephemeral node needs a session that all know.
    fn local_write(
        &mut self,
        frame: &Frame<'_>,
        handle: &SessionHandle,
        now: Instant,
    ) -> (usize, Option<Progress>) {
        if self.conn.pending_writes() > 0 {
            return (0, Some(Progress::OwnWrites));
        }
        let op = OpCode::from_i32(frame.header.op).expect("a write has a known number");
        if op == OpCode::CloseSession {
            self.note_request(frame.bytes);
            self.refuse_write(frame, handle.id());
            return (frame.bytes, None);
        }
        let ensemble = self.shared.ensemble.as_ref().expect("only its members have local sessions");
        if ensemble.config.local_sessions_upgrade && makes_ephemeral(op, frame.body) {
            handle.upgrade();
            self.submit_session(handle, handle.timeout_ms());
        }
        let write =
            Write { session: handle.id(), xid: frame.header.xid, op, body: frame.body, received: now };
        self.shared.commit.submit(|queue| queue.push_client(self.conn, &self.auth, &write));
        self.conn.stats.requests(1);
        self.submitted = true;
        (frame.bytes, None)
    }

    /// In an ensemble, sync is the leader's to answer, behind the connection's own writes.
    fn sync(&mut self, frame: &Frame<'_>, session: SessionId, now: Instant) -> (usize, Option<Progress>) {
        if self.conn.pending_writes() > 0 {
            return (0, Some(Progress::OwnWrites));
        }
        let write =
            Write { session, xid: frame.header.xid, op: OpCode::Sync, body: frame.body, received: now };
        self.shared.commit.submit(|queue| queue.push_client(self.conn, &self.auth, &write));
        self.conn.stats.requests(1);
        (self.submitted, self.syncing) = (true, true);
        (frame.bytes, None)
    }

    /// What a server without a quorum answers. Its sessions are its own: it can end them.
    fn refuse_write(&mut self, frame: &Frame<'_>, session: SessionId) {
        let ends = frame.header.op == OpCode::CloseSession.to_i32();
        if ends {
            self.shared.sessions.lock().remove(session);
        }
        let code = if ends { ErrorCode::Ok } else { ErrorCode::NotReadOnly };
        let applied = self.shared.tree.read().applied();
        self.answer(|out| {
            reply::put_empty(out, frame.header.xid, applied, code);
            Served { close_after: ends }
        });
    }

    fn class(&self, frame: &Frame<'_>) -> Class {
        let is_sync = frame.header.op == OpCode::Sync.to_i32();
        if is_sync && self.shared.ensemble.is_some() { Class::Sync } else { class(frame) }
    }

    /// Serves the run of reads at the front of `input` under one hold of the tree's lock (C1 of `conn`).
    fn reads(&mut self, input: &[u8], session: SessionId, now: Instant) -> (usize, Option<Progress>) {
        let shared = self.shared;
        let auth = self.auth.clone();
        let context = ReadContext {
            conn: self.conn.id,
            session,
            ids: auth.ids(self.conn),
            auth: &shared.prepare_options.auth,
            reply_bytes_max: self.conn.reply_bytes_max(),
        };
        let latency_us = micros(now.elapsed());
        let (mut consumed, mut count, mut stop, mut last) = (0, 0, None, None);
        let tree = shared.tree.read();
        if self.conn.is_killed() {
            // Perhaps because the tree has gone: what stands in its place answers nothing.
            return (0, Some(Progress::Close("this server has stopped serving")));
        }
        let held_since = Instant::now();
        let soft = self.conn.outbox_bytes_soft();
        self.conn.put(|out| {
            while let Ok(Some(frame)) = self.frame(&input[consumed..])
                && self.class(&frame) == Class::Read
                && !out.close_after
                && count < READS_PER_HOLD_MAX
            {
                if out.bytes.len() >= soft {
                    stop = Some(Progress::OutputFull);
                    break;
                }
                if count % READS_PER_LOOK == READS_PER_LOOK - 1 && held_since.elapsed() > HOLD_MAX {
                    stop = Some(Progress::Yield);
                    break;
                }
                let op = OpCode::from_i32(frame.header.op).expect("a read has a known number");
                let before = out.bytes.len();
                let served =
                    node::serve_read_body(&tree, &context, frame.header.xid, op, frame.body, &mut out.bytes);
                out.close_after |= served.close_after;
                self.tally.request(frame.bytes);
                self.tally.reply(&shared.stats, RequestKind::Read, out.bytes.len() - before, latency_us);
                last = Some((op, frame.header.xid));
                consumed += frame.bytes;
                count += 1;
            }
        });
        let applied = tree.applied().to_wire();
        drop(tree);
        shared.stats.absorb(&mut self.tally);
        if let Some((op, xid)) = last {
            self.conn.stats.requests(count);
            self.conn.stats.replies(count, op, xid, applied, shared.wall_now().0, latency_us);
        }
        (consumed, stop)
    }

    /// Outside the order of requests, like ZooKeeper: the reply (zxid 0) may overtake earlier ones.
    fn authenticate(&mut self, frame: &Frame<'_>) {
        let mut ids = AuthIds::clone(self.auth.ids(self.conn));
        let options = &self.shared.prepare_options.auth;
        let (scheme, auth) = match Request::read(OpCode::Auth, frame.body) {
            Ok(Request::Auth { scheme, auth }) => (scheme, auth),
            _ => (None, None),
        };
        let xid = frame.header.xid;
        self.answer(|out| node::serve_auth(&mut ids, options, xid, scheme, auth, out));
        if matches!(self.phase, Phase::Done) {
            self.shared.stats.auth_failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(peer = %self.conn.peer, scheme = scheme.unwrap_or_default(), "authentication failed");
        } else {
            self.auth = Auth::new(ids);
            self.conn.set_auth(&self.auth);
        }
    }

    /// Puts a reply that is made outside the runs of reads and writes; after one that ends the connection nothing more is processed.
    fn answer(&mut self, f: impl FnOnce(&mut Vec<u8>) -> Served) {
        let (mut ends, mut bytes) = (false, 0);
        self.conn.put(|out| {
            let before = out.bytes.len();
            ends = f(&mut out.bytes).close_after;
            out.close_after |= ends;
            bytes = out.bytes.len() - before;
        });
        self.conn.stats.other_reply();
        self.tally.other_reply(bytes);
        self.shared.stats.absorb(&mut self.tally);
        if ends {
            self.phase = Phase::Done;
        }
    }

    /// Counts a request that is handled outside the runs of reads and writes.
    fn note_request(&mut self, bytes: usize) {
        self.conn.stats.requests(1);
        self.tally.request(bytes);
        self.shared.stats.absorb(&mut self.tally);
    }

    /// The frame at the front of `input`, if it is there in whole (D1).
    fn frame<'b>(&self, input: &'b [u8]) -> Result<Option<Frame<'b>>, &'static str> {
        let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
        let len = i32::from_be_bytes(*head);
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= self.shared.config.frame_bytes_max)
        else {
            return Err("frame longer than jute.maxbuffer, or of negative length");
        };
        let Some(frame) = input.get(4..4 + len) else { return Ok(None) };
        let mut reader = Reader::new(frame);
        let header = RequestHeader::read(&mut reader).map_err(|_| "frame too short for a request header")?;
        Ok(Some(Frame { header, body: reader.rest(), bytes: 4 + len }))
    }
}

/// Does the request make an ephemeral node?
fn makes_ephemeral(op: OpCode, body: &[u8]) -> bool {
    let is_ephemeral =
        |request: &Request<'_>| matches!(request, Request::Create(create) if matches!(create.flags, 1 | 3));
    match Request::read(op, body) {
        Ok(Request::Multi(ops)) => ops.iter().any(|(_, request)| is_ephemeral(&request)),
        Ok(request) => is_ephemeral(&request),
        Err(_) => false,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Write,
    Read,
    /// Of a member of an ensemble; elsewhere it is a read.
    Sync,
    Auth,
    Sasl,
    /// A write whose body is no such record: refused here, so that it costs the commit path nothing. Like ZooKeeper's, the reply has no
    /// zxid of its own.
    Undecodable,
    /// No such number, or one that clients may not send by itself.
    Unknown,
}

fn class(frame: &Frame<'_>) -> Class {
    match OpCode::from_i32(frame.header.op) {
        None | Some(OpCode::CreateSession | OpCode::Error | OpCode::Check) => Class::Unknown,
        Some(OpCode::Auth) => Class::Auth,
        Some(OpCode::Sasl) => Class::Sasl,
        Some(op) if op.is_write() => match Request::check(op, frame.body) {
            // A multi takes a zxid even then, and prepare refuses it; but not for a null ACL, which ZooKeeper trips over before that.
            // A null path is found out later, by prepare, and takes a zxid in any write.
            Err(JuteError::Null { .. }) => Class::Undecodable,
            Err(_) if op != OpCode::Multi => Class::Undecodable,
            _ => Class::Write,
        },
        Some(_) => Class::Read,
    }
}
