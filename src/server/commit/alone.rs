//! The commit path of a server that is its own quorum: prepare and append -> flush -> apply and answer. One flush for all that waits.
//!
//! Two stages, each behind its own lock. A connection that is alone with its writes takes them to their end itself ([`Alone::kick`]),
//! so that they cost no hand-over between threads. As soon as several write, the commit thread does it: what comes while it flushes is
//! the next group, and the threads that serve connections never wait for the disk; on a slow one they prepare and append it meanwhile.
//!
//! - M1: whoever releases a stage looks again for work that came while it held it; who fails to get a stage may therefore leave
//!   (`stage`; `tests/commit_stage.rs` runs it under every interleaving).
//! - M2: order of the queue = order of zxids = order of the log = order of application. The prepare lock spans draining and appending; the
//!   flush lock spans flushing and applying.
//! - M3: nothing is applied, and nobody is answered, before the flush that covers it returned.
//! - M4: after a failed append or flush nothing is answered any more: the server stops (`Shared::fail`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::apply::{Applier, refuse};
use super::flush_pace::FlushPace;
use super::prepare::PrepareStage;
use super::queue::Entry;
use super::stage::Stage;
use super::{BUFFER_KEEP_MAX, Batch};
use crate::base::{ConnId, LogPos};
use crate::node::Prepare;
use crate::server::Shared;
use crate::server::conn::Conn;
use crate::server::stats::micros;
use crate::storage::log::{Appender, Flusher, LogError};

/// While a slow flush runs, the next group is prepared and appended ahead of it once it has so many requests; a smaller one is left to
/// whoever flushes, for the groups that come together meanwhile cost one append instead of many.
const AHEAD_MIN: usize = 64;

/// A connection may carry out its own writes when no other's were flushed for so long: longer than a client takes to send its next one,
/// or several clients with one write each in flight would look lone in turn, and cost one flush each.
const LONE_AFTER: Duration = Duration::from_millis(1);

/// A connection with more writes under way is not alone with them in spirit: they are a stream, and its task should go on reading it.
const LONE_WRITES_MAX: usize = 16;

/// Groups kept for reuse.
const POOL_MAX: usize = 8;

#[derive(Debug)]
struct FlushStage {
    flusher: Flusher,
    batches: Vec<Batch>,
    pace: FlushPace,
    applier: Applier,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Alone {
    prepare: Stage<PrepareStage>,
    /// What waits for `flush`.
    appended: Mutex<Vec<Batch>>,
    flush: Stage<FlushStage>,
    pool: Mutex<Vec<Batch>>,
    /// What the pace says, for those who do not hold the stage.
    slow: AtomicBool,
    /// The connection whose writes alone were in the last flush; 0 if there were several.
    lone: AtomicU64,
    /// When the last flush was over, µs since the server started.
    flushed_us: AtomicU64,
    /// False from an append that found no space until a segment could be made again.
    pub(super) space: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Alone {
    pub(crate) fn new(prepare: Prepare, appender: Appender, flusher: Flusher) -> Alone {
        Alone {
            prepare: Stage::new(PrepareStage::new(prepare, appender)),
            appended: Mutex::default(),
            flush: Stage::new(FlushStage {
                flusher,
                batches: Vec::new(),
                pace: FlushPace::default(),
                applier: Applier::default(),
            }),
            pool: Mutex::default(),
            slow: AtomicBool::new(false),
            lone: AtomicU64::new(0),
            flushed_us: AtomicU64::new(0),
            space: AtomicBool::new(true),
            thread: OnceLock::new(),
        }
    }

    /// So many writes wait to be prepared. Said under the lock of the queue.
    pub(super) fn announce(&self, waiting: usize) {
        self.prepare.announce(waiting);
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
            && shared.commit.outstanding() == pending
            && (self.lone.load(Ordering::Relaxed) == me.id.0 || silent())
    }

    /// Prepares and appends a large group while another is flushed. Whoever flushes looks for it afterwards.
    fn prepare_ahead(&self, shared: &Shared) {
        if self.slow.load(Ordering::Relaxed)
            && self.prepare.waiting() >= AHEAD_MIN
            && let Some(mut stage) = self.prepare.enter()
        {
            self.prepare_and_append(shared, &mut stage);
        }
    }

    /// The commit thread's life: works off what there is, then sleeps until [`Alone::unpark`].
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
        let Some(mut stage) = self.prepare.try_own() else { return };
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
        let _appender = self.prepare.own();
        Ok(self.flush.own().flusher.flush()?.pos)
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
        self.prepare.has_work() || self.flush.has_work()
    }

    /// Works once on each stage that has work and is free; false when there was nothing to do. See M1.
    fn round(&self, shared: &Shared, me: Option<ConnId>) -> bool {
        let mut worked = false;
        if let Some(mut stage) = self.prepare.enter() {
            self.prepare_and_append(shared, &mut stage);
            worked = true;
        }
        if let Some(mut stage) = self.flush.enter() {
            self.flush_and_apply(shared, &mut stage, me);
            worked = true;
        }
        worked
    }

    fn prepare_and_append(&self, shared: &Shared, stage: &mut PrepareStage) {
        // Under the lock that `flush_all` takes after the stop: nothing is appended behind the clean end that it writes down.
        if shared.is_stopped() {
            return;
        }
        stage.preparing.drained.reset();
        {
            let mut queue = shared.commit.queue.lock();
            std::mem::swap(&mut *queue, &mut stage.preparing.drained);
            self.prepare.announce(0);
        }
        stage.preparing.note_requests(shared);
        let may_append = !stage.full_disk || stage.rebuild(shared, self.space.load(Ordering::Acquire));
        while !stage.preparing.drained.entries.is_empty() {
            let mut batch = self.pool.lock().pop().unwrap_or_default();
            if !may_append || stage.full_disk {
                batch.refused = true;
                batch.entries.extend(stage.preparing.drained.entries.drain(..));
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
        self.flush.announce(appended.len());
    }

    fn flush_and_apply(&self, shared: &Shared, stage: &mut FlushStage, me: Option<ConnId>) {
        {
            let mut appended = self.appended.lock();
            std::mem::swap(&mut *appended, &mut stage.batches);
            self.flush.announce(0);
        }
        if stage.batches.is_empty() {
            return;
        }
        let started = Instant::now();
        if let Err(error) = stage.flusher.flush() {
            return shared.fail(&error);
        }
        stage.pace.note(shared, started.elapsed());
        self.slow.store(stage.pace.is_slow(), Ordering::Relaxed);
        self.note_writers(shared, &stage.batches);
        let mut batches = std::mem::take(&mut stage.batches);
        for batch in &mut batches {
            if batch.refused {
                let bytes = batch.entries.iter().map(|entry| entry.len).sum();
                shared.commit.note_answered(batch.entries.len(), bytes);
                refuse(shared, &mut batch.entries);
            } else if let Err(mismatch) = stage.applier.apply(shared, batch, me) {
                return shared.fail(&mismatch);
            }
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

    /// For [`Alone::is_lone`].
    fn note_writers(&self, shared: &Shared, batches: &[Batch]) {
        let mut writers = batches.iter().flat_map(|batch| &batch.entries).map(Entry::writer);
        let first = writers.next().unwrap_or(0);
        self.lone.store(if writers.all(|writer| writer == first) { first } else { 0 }, Ordering::Relaxed);
        self.flushed_us.store(micros(shared.started.elapsed()), Ordering::Relaxed);
    }
}
