//! The commit path: queue -> prepare and append -> flush -> apply and answer. One flush for all that waits.
//!
//! Two stages, each behind its own lock. A connection that is alone with its writes takes them to their end itself ([`Commit::kick`]),
//! so that they cost no hand-over between threads. As soon as several write, the commit thread does it: what comes while it flushes is
//! the next group, and the threads that serve connections never wait for the disk; on a slow one they prepare and append it meanwhile.
//!
//! - M1: whoever releases a stage looks again for work that came while it held it; who fails to get a stage may therefore leave.
//! - M2: order of the queue = order of zxids = order of the log = order of application. The prepare lock spans draining and appending; the
//!   flush lock spans flushing and applying.
//! - M3: nothing is applied, and nobody is answered, before the flush that covers it returned.
//! - M4: after a failed append or flush nothing is answered any more: the server stops (`Shared::fail`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::{ConnId, LogPos, SessionId};
use crate::node::{Prepare, WriteRequest, put_write_reply};
use crate::server::Shared;
use crate::server::conn::{Auth, Conn};
use crate::server::stats::{RequestKind, Tally};
use crate::storage::log::{Appender, Flusher, Group, LogError, RecordKind};
use crate::tree::{DigestMismatch, Fired, Outcome};
use crate::wire::txn::Proposal;
use crate::wire::{ErrorCode, OpCode, perms, reply};

/// Transactions prepared under one hold of the tree's lock: about 100 µs, so that readers never wait for long.
const LOCKED_TXNS_MAX: usize = 128;

/// Transactions applied under one hold. Their clients are woken behind it: the first ones go on while the next are applied.
const APPLIED_TXNS_MAX: usize = 16;

/// While a slow flush runs, the next group is prepared and appended ahead of it once it has so many requests; a smaller one is left to
/// whoever flushes, for the groups that come together meanwhile cost one append instead of many.
const AHEAD_MIN: usize = 64;

/// A connection may carry out its own writes when no other's were flushed for so long: longer than a client takes to send its next one,
/// or several clients with one write each in flight would look lone in turn, and cost one flush each.
const LONE_AFTER: Duration = Duration::from_millis(1);

/// A connection with more writes under way is not alone with them in spirit: they are a stream, and its task should go on reading it.
const LONE_WRITES_MAX: usize = 16;

/// A flush slower than this, on average, is left to the commit thread: it would keep a connection's task, and with it a thread that
/// serves readers and heartbeats, for too long. A faster one is over before preparing ahead of it has paid.
const SLOW_FLUSH: Duration = Duration::from_micros(400);

/// A group is appended, and a new one begun, at this size, bytes. A segment must take a group whole: what one more payload may add
/// beyond it is bounded by [`payload_bytes_max`].
const GROUP_BYTES_TARGET: usize = 1 << 20;

/// What stands before the body of a request: length, xid, op.
const REQUEST_HEAD_BYTES: usize = 12;

/// Groups kept for reuse.
const POOL_MAX: usize = 8;

/// How often a full disk is complained about.
const FULL_DISK_SAY_EVERY: Duration = Duration::from_secs(10);

/// What heads and padding of one group take in a segment, bytes, generously.
const GROUP_BYTES_SPARE: usize = 4 << 10;

/// Largest payload that always fits into a segment behind what a group already holds.
pub(crate) fn payload_bytes_max(group_bytes_max: u64) -> usize {
    let max = usize::try_from(group_bytes_max).unwrap_or(usize::MAX);
    max.saturating_sub(GROUP_BYTES_TARGET + GROUP_BYTES_SPARE)
}

/// Buffers above this are given back after use, bytes.
const BUFFER_KEEP_MAX: usize = 4 << 20;

/// The tree is not what prepare took it for: a bug, or bad memory.
#[derive(Debug, thiserror::Error)]
#[error("transaction {} should give a tree with digest {:x}, it gives {:x}", .0.zxid, .0.expected, .0.found)]
struct Diverged(DigestMismatch);

/// Where an answer goes.
#[derive(Clone, Debug)]
struct Client {
    conn: Arc<Conn>,
    auth: Auth,
}

/// One write on its way.
#[derive(Debug)]
struct Entry {
    /// `None`: the server's own (expiry, reaper).
    client: Option<Client>,
    session: SessionId,
    xid: i32,
    op: OpCode,
    received: Instant,
    /// Where the body stands in the queue's bytes.
    start: usize,
    len: usize,
}

impl Entry {
    /// Number of the connection that waits for it; 0 for the server itself.
    fn writer(&self) -> u64 {
        self.client.as_ref().map_or(0, |client| client.conn.id.0)
    }
}

/// Requests waiting to be prepared; bodies copied into one buffer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    bytes: Vec<u8>,
    entries: VecDeque<Entry>,
}

impl Queue {
    /// Adds a client's write.
    pub(crate) fn push_client(&mut self, conn: &Arc<Conn>, auth: &Auth, write: &Write<'_>) {
        conn.write_submitted();
        self.push(Some(Client { conn: Arc::clone(conn), auth: auth.clone() }), write);
    }

    fn push(&mut self, client: Option<Client>, write: &Write<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(write.body);
        self.entries.push_back(Entry {
            client,
            session: write.session,
            xid: write.xid,
            op: write.op,
            received: write.received,
            start,
            len: write.body.len(),
        });
    }

    fn reset(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_KEEP_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// A write as it enters the commit path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) session: SessionId,
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) body: &'a [u8],
    pub(crate) received: Instant,
}

/// A group on its way from append to apply: the log records, and who waits for each.
#[derive(Debug, Default)]
struct Batch {
    group: Group,
    entries: Vec<Entry>,
    /// There was no space: answered with an error, in its turn, so that no answer overtakes an earlier one.
    refused: bool,
}

#[derive(Debug)]
struct PrepareStage {
    prepare: Prepare,
    appender: Appender,
    drained: Queue,
    tally: Tally,
    /// The disk was full: everything is refused until all that was appended is applied and `prepare` is rebuilt from the tree.
    full_disk: bool,
    /// When that was last said.
    full_disk_said: Option<Instant>,
}

#[derive(Debug)]
struct FlushStage {
    flusher: Flusher,
    batches: Vec<Batch>,
    fired: Fired,
    to_wake: Vec<Arc<Conn>>,
    tally: Tally,
    /// Wall time of the replies being made, ms since 1970.
    wall_ms: i64,
    flush_us_average: u64,
}

/// How much the commit path takes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitLimits {
    /// Writes submitted and not answered yet.
    pub(crate) writes_max: usize,
    /// Bytes of their requests.
    pub(crate) bytes_max: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Commit {
    limits: CommitLimits,
    outstanding: AtomicUsize,
    queue: Mutex<Queue>,
    queued: AtomicUsize,
    inflight_bytes: AtomicUsize,
    prepare: Mutex<PrepareStage>,
    appended: Mutex<Vec<Batch>>,
    appended_batches: AtomicUsize,
    pool: Mutex<Vec<Batch>>,
    flush: Mutex<FlushStage>,
    slow: AtomicBool,
    /// The connection whose writes alone were in the last flush; 0 if there were several.
    lone: AtomicU64,
    /// When the last flush was over, µs since the server started.
    flushed_us: AtomicU64,
    /// False from an append that found no space until a segment could be made again.
    space: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Commit {
    pub(crate) fn new(
        limits: CommitLimits,
        prepare: Prepare,
        appender: Appender,
        flusher: Flusher,
    ) -> Commit {
        Commit {
            limits,
            outstanding: AtomicUsize::new(0),
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            inflight_bytes: AtomicUsize::new(0),
            prepare: Mutex::new(PrepareStage {
                prepare,
                appender,
                drained: Queue::default(),
                tally: Tally::default(),
                full_disk: false,
                full_disk_said: None,
            }),
            appended: Mutex::default(),
            appended_batches: AtomicUsize::new(0),
            pool: Mutex::default(),
            flush: Mutex::new(FlushStage {
                flusher,
                batches: Vec::new(),
                fired: Fired::default(),
                to_wake: Vec::new(),
                tally: Tally::default(),
                wall_ms: 0,
                flush_us_average: 0,
            }),
            slow: AtomicBool::new(false),
            lone: AtomicU64::new(0),
            flushed_us: AtomicU64::new(0),
            space: AtomicBool::new(true),
            thread: OnceLock::new(),
        }
    }

    /// Adds writes, in one hold of the queue. Follow with [`Commit::kick`].
    pub(crate) fn submit<R>(&self, f: impl FnOnce(&mut Queue) -> R) -> R {
        let mut queue = self.queue.lock();
        let (before, bytes_before) = (queue.entries.len(), queue.bytes.len());
        let result = f(&mut queue);
        self.outstanding.fetch_add(queue.entries.len() - before, Ordering::Relaxed);
        self.inflight_bytes.fetch_add(queue.bytes.len() - bytes_before, Ordering::Relaxed);
        self.queued.store(queue.entries.len(), Ordering::SeqCst);
        result
    }

    /// Adds a write of the server's own and sees that it is carried out.
    pub(crate) fn submit_own(&self, session: SessionId, op: OpCode, body: &[u8]) {
        let write = Write { session, xid: 0, op, body, received: Instant::now() };
        self.submit(|queue| queue.push(None, &write));
        self.unpark();
    }

    /// True while a connection with so many writes under way should stop reading: by bytes for everybody, by number
    /// (`globalOutstandingLimit`) only for those that have one under way, so that nobody is kept from a first one.
    pub(crate) fn is_full(&self, pending: usize) -> bool {
        self.inflight_bytes.load(Ordering::Relaxed) > self.limits.bytes_max
            || (pending > 0 && self.outstanding.load(Ordering::Relaxed) >= self.limits.writes_max)
    }

    /// Writes of clients submitted and not answered yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Sees that the writes that `me` submitted are carried out: here and now if it is alone with them and the disk is fast. It is not woken
    /// then: it looks at its own outbox next anyway.
    pub(crate) fn kick(&self, shared: &Shared, me: &Conn, now: Instant) {
        let left = if self.is_lone(shared, me, now) {
            self.round(shared, Some(me.id));
            self.has_work()
        } else {
            self.prepare_ahead(shared);
            true
        };
        if left {
            self.unpark();
        }
    }

    /// True when no other connection has writes under way, or had a moment ago, and this one has few.
    fn is_lone(&self, shared: &Shared, me: &Conn, now: Instant) -> bool {
        let silent = || {
            let now_us = micros(now.saturating_duration_since(shared.started));
            now_us.saturating_sub(self.flushed_us.load(Ordering::Relaxed)) > LONE_AFTER.as_micros() as u64
        };
        let pending = me.pending_writes();
        !self.slow.load(Ordering::Relaxed)
            && pending <= LONE_WRITES_MAX
            && self.outstanding.load(Ordering::Relaxed) == pending
            && (self.lone.load(Ordering::Relaxed) == me.id.0 || silent())
    }

    /// Prepares and appends a large group while another is flushed. Whoever flushes looks for it afterwards.
    fn prepare_ahead(&self, shared: &Shared) {
        if self.slow.load(Ordering::Relaxed)
            && self.queued.load(Ordering::SeqCst) >= AHEAD_MIN
            && self.flush.is_locked()
            && let Some(mut stage) = self.prepare.try_lock()
        {
            self.prepare_and_append(shared, &mut stage);
        }
    }

    /// The commit thread's life: works off what there is, then sleeps until [`Commit::unpark`].
    pub(crate) fn run_thread(&self, shared: &Shared) {
        self.thread.set(std::thread::current()).expect("one commit thread");
        while !shared.is_stopped() {
            if !self.round(shared, None) {
                std::thread::park();
            }
        }
    }

    /// Writes down in the log how far it is durable, if nothing is under way: without a flush of its own, so that a later start can tell
    /// more of its tail apart from a torn one.
    pub(crate) fn mark_if_idle(&self, shared: &Shared) {
        if self.has_work() {
            return;
        }
        let Some(mut stage) = self.prepare.try_lock() else { return };
        let marked = stage.appender.mark();
        drop(stage);
        if let Err(error) = marked {
            shared.fail(&error);
        }
        // M1: a write may have come while the stage was held, and its connection have left because of that.
        if self.has_work() {
            self.unpark();
        }
    }

    /// Flushes all that was appended, answered or not; returns where the log then ends. For a clean stop, when no other thread is left.
    pub(crate) fn flush_all(&self, shared: &Shared) -> Result<LogPos, LogError> {
        assert!(shared.is_stopped(), "nobody submits any more");
        let _appender = self.prepare.lock();
        Ok(self.flush.lock().flusher.flush()?.pos)
    }

    /// A spare segment is ready.
    pub(crate) fn note_space(&self) {
        self.space.store(true, Ordering::Release);
    }

    /// Wakes the commit thread.
    pub(crate) fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn has_work(&self) -> bool {
        fence(Ordering::SeqCst);
        self.queued.load(Ordering::SeqCst) > 0 || self.appended_batches.load(Ordering::SeqCst) > 0
    }

    /// Works once on each stage that has work and is free; false when there was nothing to do. See M1.
    fn round(&self, shared: &Shared, me: Option<ConnId>) -> bool {
        let mut worked = false;
        // M1: what was submitted must be seen before the lock is found taken; who holds it looks in the opposite order.
        fence(Ordering::SeqCst);
        if self.queued.load(Ordering::SeqCst) > 0
            && let Some(mut stage) = self.prepare.try_lock()
        {
            self.prepare_and_append(shared, &mut stage);
            worked = true;
        }
        fence(Ordering::SeqCst);
        if self.appended_batches.load(Ordering::SeqCst) > 0
            && let Some(mut stage) = self.flush.try_lock()
        {
            self.flush_and_apply(shared, &mut stage, me);
            worked = true;
        }
        fence(Ordering::SeqCst);
        worked
    }

    fn prepare_and_append(&self, shared: &Shared, stage: &mut PrepareStage) {
        // Under the lock that `flush_all` takes after the stop: nothing is appended behind the clean end that it writes down.
        if shared.is_stopped() {
            return;
        }
        stage.drained.reset();
        {
            let mut queue = self.queue.lock();
            std::mem::swap(&mut *queue, &mut stage.drained);
            self.queued.store(0, Ordering::SeqCst);
        }
        stage.note_requests(shared);
        let may_append = !stage.full_disk || stage.rebuild(shared);
        while !stage.drained.entries.is_empty() {
            let mut batch = self.pool.lock().pop().unwrap_or_default();
            if !may_append || stage.full_disk {
                batch.refused = true;
                batch.entries.extend(stage.drained.entries.drain(..));
                self.push_appended(batch);
                return;
            }
            stage.prepare_some(shared, &mut batch);
            match stage.appender.append(&mut batch.group) {
                Ok(_) => {}
                Err(error @ LogError::NoSpace { .. }) => {
                    self.space.store(false, Ordering::Release);
                    stage.note_full_disk(&error);
                    batch.group.clear();
                    batch.refused = true;
                }
                Err(error) => return shared.fail(&error),
            }
            self.push_appended(batch);
        }
    }

    fn push_appended(&self, batch: Batch) {
        let mut appended = self.appended.lock();
        appended.push(batch);
        self.appended_batches.store(appended.len(), Ordering::SeqCst);
    }

    fn flush_and_apply(&self, shared: &Shared, stage: &mut FlushStage, me: Option<ConnId>) {
        {
            let mut appended = self.appended.lock();
            std::mem::swap(&mut *appended, &mut stage.batches);
            self.appended_batches.store(0, Ordering::SeqCst);
        }
        if stage.batches.is_empty() {
            return;
        }
        let started = Instant::now();
        if let Err(error) = stage.flusher.flush() {
            return shared.fail(&error);
        }
        self.note_flush(shared, stage, started.elapsed());
        self.note_writers(shared, &stage.batches);
        let mut batches = std::mem::take(&mut stage.batches);
        for batch in &mut batches {
            let (count, bytes) = (batch.entries.len(), batch.entries.iter().map(|entry| entry.len).sum());
            if batch.refused {
                refuse(shared, &mut batch.entries);
            } else if let Err(mismatch) = stage.apply(shared, batch, me) {
                return shared.fail(&mismatch);
            }
            self.outstanding.fetch_sub(count, Ordering::Relaxed);
            self.inflight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        let mut pool = self.pool.lock();
        for mut batch in batches.drain(..) {
            if batch.group.bytes() <= BUFFER_KEEP_MAX && pool.len() < POOL_MAX {
                batch.group.clear();
                batch.refused = false;
                pool.push(batch);
            }
        }
        stage.batches = batches;
    }

    /// For [`Commit::is_lone`].
    fn note_writers(&self, shared: &Shared, batches: &[Batch]) {
        let mut writers = batches.iter().flat_map(|batch| &batch.entries).map(Entry::writer);
        let first = writers.next().unwrap_or(0);
        self.lone.store(if writers.all(|writer| writer == first) { first } else { 0 }, Ordering::Relaxed);
        self.flushed_us.store(micros(shared.started.elapsed()), Ordering::Relaxed);
    }

    fn note_flush(&self, shared: &Shared, stage: &mut FlushStage, took: Duration) {
        let us = micros(took);
        shared.stats.fsync_us.add(us);
        if us / 1_000 > shared.config.log.flush_warning_ms {
            shared.stats.fsync_threshold_exceeded.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(us, "the disk took long to flush the log (fsync.warningthresholdms)");
        }
        stage.flush_us_average = (stage.flush_us_average * 7 + us) / 8;
        self.slow.store(stage.flush_us_average > SLOW_FLUSH.as_micros() as u64, Ordering::Relaxed);
    }
}

impl PrepareStage {
    /// After a full disk: once there is a segment again, starts from the tree, which must hold all that was appended. Not before: small
    /// writes that still fit behind refused large ones would make the refusals look like a matter of luck.
    fn rebuild(&mut self, shared: &Shared) -> bool {
        if !shared.commit.space.load(Ordering::Acquire) {
            return false;
        }
        let tree = shared.tree.read();
        if tree.applied() != self.appender.last_zxid() {
            return false;
        }
        self.prepare = Prepare::new(tree.applied(), tree.digest(), shared.prepare_options.clone());
        self.full_disk = false;
        true
    }

    /// Counts the requests of clients: here, once per group, or each would move the counters between the threads.
    fn note_requests(&mut self, shared: &Shared) {
        // A connect request is counted by its connection.
        let requests =
            self.drained.entries.iter().filter(|e| e.client.is_some() && e.op != OpCode::CreateSession);
        requests.for_each(|entry| self.tally.request(REQUEST_HEAD_BYTES + entry.len));
        shared.stats.absorb(&mut self.tally);
    }

    /// What was prepared for this append, and behind it, is void: the overlay is built again when there is space.
    fn note_full_disk(&mut self, error: &LogError) {
        let now = Instant::now();
        let silent = self.full_disk_said.is_some_and(|at| at.elapsed() < FULL_DISK_SAY_EVERY);
        if !silent {
            tracing::error!(%error, "writes are refused until there is space; reads go on");
            self.full_disk_said = Some(now);
        }
        self.full_disk = true;
    }

    /// Prepares requests from the front of the queue, until none is left or the group is large enough, into `batch`.
    fn prepare_some(&mut self, shared: &Shared, batch: &mut Batch) {
        while !self.drained.entries.is_empty() && batch.group.bytes() < GROUP_BYTES_TARGET {
            let tree = shared.tree.read();
            let sessions = shared.sessions.lock();
            self.prepare.applied(&tree);
            for _ in 0..LOCKED_TXNS_MAX {
                if batch.group.bytes() >= GROUP_BYTES_TARGET {
                    break;
                }
                let Some(entry) = self.drained.entries.pop_front() else { break };
                let request = WriteRequest {
                    session: entry.session,
                    cxid: entry.xid,
                    op: entry.op,
                    body: &self.drained.bytes[entry.start..entry.start + entry.len],
                    auth: entry
                        .client
                        .as_ref()
                        .map_or(&shared.own_auth, |client| client.auth.ids(&client.conn)),
                    conn: entry.client.as_ref().map_or(ConnId(0), |client| client.conn.id),
                };
                let out = batch.group.begin_record();
                let zxid = self.prepare.prepare(&tree, &*sessions, shared.wall_now(), &request, out);
                batch.group.finish_record(zxid, RecordKind::Txn);
                batch.entries.push(entry);
            }
        }
    }
}

impl FlushStage {
    /// Stops at a transaction that does not give the digest it was prepared with, before anybody is told (rule R4).
    fn apply(&mut self, shared: &Shared, batch: &mut Batch, me: Option<ConnId>) -> Result<(), Diverged> {
        shared.stats.batch_size.add(batch.entries.len() as u64);
        shared.stats.commits.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
        let mut records = batch.group.iter();
        let mut entries = batch.entries.drain(..).peekable();
        while entries.peek().is_some() {
            let now = Instant::now();
            self.wall_ms = shared.wall_now().0;
            let mut tree = shared.tree.write();
            for entry in entries.by_ref().take(APPLIED_TXNS_MAX) {
                let (_, _, payload) = records.next().expect("one record per entry");
                let proposal = Proposal::read(payload).expect("encoded by prepare just now");
                let outcome = tree.apply(&proposal, &mut self.fired);
                if let Some(mismatch) = self.fired.digest_mismatch() {
                    return Err(Diverged(mismatch));
                }
                self.deliver_events(shared, me);
                self.answer(shared, &entry, &proposal, &outcome, now);
                if let Some(client) = entry.client
                    && Some(client.conn.id) != me
                    && client.conn.mark_woken()
                {
                    self.to_wake.push(client.conn);
                }
            }
            drop(tree);
            self.to_wake.drain(..).for_each(|conn| conn.wake());
            shared.stats.absorb(&mut self.tally);
        }
        shared.snapshots.note_applied(&batch.group);
        Ok(())
    }

    /// Puts the events of the last transaction into the outboxes: before the reply, and before any read can see the new state (C1).
    fn deliver_events(&mut self, shared: &Shared, me: Option<ConnId>) {
        if self.fired.is_empty() {
            return;
        }
        for firing in self.fired.iter() {
            for watcher in firing.watchers {
                let Some(conn) = shared.conns.get(*watcher) else { continue };
                // Used up, but withheld from those who may not read the node (since 3.9.2).
                if !conn.auth().ids(&conn).allowed(&shared.prepare_options.auth, firing.acl, perms::READ) {
                    continue;
                }
                let mut bytes = 0;
                conn.put(|out| {
                    let before = out.bytes.len();
                    reply::put_event(&mut out.bytes, firing.zxid.to_wire(), firing.event, firing.path);
                    bytes = out.bytes.len() - before;
                });
                conn.stats.event();
                self.tally.event(bytes);
                if Some(conn.id) != me && conn.mark_woken() {
                    self.to_wake.push(conn);
                }
            }
        }
        self.fired.clear();
    }

    /// Puts the reply of an applied write into the outbox of its client and keeps the table of sessions in step.
    fn answer(
        &mut self,
        shared: &Shared,
        entry: &Entry,
        proposal: &Proposal<'_>,
        outcome: &Outcome,
        now: Instant,
    ) {
        if matches!(outcome, Outcome::SessionClosed) {
            shared.session_closed(
                SessionId(proposal.header.client_id),
                entry.client.as_ref().map(|client| client.conn.id),
            );
        }
        let Some(Client { conn, .. }) = &entry.client else { return };
        match outcome {
            // Its task answers the connect request: it knows what was negotiated.
            Outcome::SessionCreated => conn.set_session(entry.session),
            _ => {
                let mut bytes = 0;
                conn.put(|out| {
                    let before = out.bytes.len();
                    let served = put_write_reply(&mut out.bytes, entry.xid, entry.op, proposal, outcome);
                    out.close_after |= served.close_after;
                    bytes = out.bytes.len() - before;
                });
                self.note_reply(shared, entry, conn, proposal.header.zxid, bytes, now);
            }
        }
        conn.write_answered();
    }

    fn note_reply(
        &mut self,
        shared: &Shared,
        entry: &Entry,
        conn: &Conn,
        zxid: i64,
        bytes: usize,
        now: Instant,
    ) {
        let latency_us = micros(now.saturating_duration_since(entry.received));
        self.tally.reply(&shared.stats, RequestKind::Write, bytes, latency_us);
        conn.stats.replies(1, entry.op, entry.xid, zxid, self.wall_ms, latency_us);
    }
}

/// Answers writes that never got a zxid because there is no space for them.
fn refuse(shared: &Shared, entries: &mut Vec<Entry>) {
    let applied = shared.tree.read().applied();
    for entry in entries.drain(..) {
        if entry.op == OpCode::CloseSession {
            // Its requests are refused already: its end must not be forgotten, or its ephemerals would stay.
            shared.close_later(entry.session);
        }
        let Some(Client { conn, .. }) = &entry.client else { continue };
        if entry.op == OpCode::CreateSession {
            // There is no error in a connect response: the client tries elsewhere, or again.
            shared.sessions.lock().remove(entry.session);
            conn.kill();
        } else {
            conn.put(|out| reply::put_empty(&mut out.bytes, entry.xid, applied, ErrorCode::SystemError));
        }
        conn.write_answered();
        if conn.mark_woken() {
            conn.wake();
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
