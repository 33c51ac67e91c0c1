//! The way of a write: taken in here, in one queue for all connections, whatever becomes of it: on a server that is its own quorum
//! ([`alone`]), or in an ensemble (`server::quorum`), whose member's thread takes the queue.

mod alone;
mod apply;
mod flush_pace;
mod prepare;
mod queue;
mod stage;

/// Of what the stages are made.
mod sync {
    pub(super) use parking_lot::{Mutex, MutexGuard};
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering, fence};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::SessionId;
use crate::storage::log::Group;
use crate::wire::OpCode;

pub(crate) use alone::Alone;
pub(crate) use apply::{Applier, Diverged};
pub(crate) use flush_pace::FlushPace;
pub(crate) use prepare::Preparing;
pub(crate) use queue::{Entry, Learner, Queue, Write};

/// A group is appended, and a new one begun, at this size, bytes. A segment must take a group whole: what one more payload may add
/// beyond it is bounded by [`payload_bytes_max`].
pub(crate) const GROUP_BYTES_TARGET: usize = 1 << 20;

/// What heads and padding of one group take in a segment, bytes, generously.
const GROUP_BYTES_SPARE: usize = 4 << 10;

/// Largest payload that always fits into a segment behind what a group already holds.
pub(crate) fn payload_bytes_max(group_bytes_max: u64) -> usize {
    let max = usize::try_from(group_bytes_max).unwrap_or(usize::MAX);
    max.saturating_sub(GROUP_BYTES_TARGET + GROUP_BYTES_SPARE)
}

/// Buffers above this are given back after use, bytes.
const BUFFER_KEEP_MAX: usize = 4 << 20;

/// A group on its way from append to apply: the log records, and who waits for each.
#[derive(Debug, Default)]
struct Batch {
    group: Group,
    entries: Vec<Entry>,
    /// There was no space: answered with an error, in its turn, so that no answer overtakes an earlier one.
    refused: bool,
}

/// How much the commit path takes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitLimits {
    /// Writes submitted and not answered yet.
    pub(crate) writes_max: usize,
    /// Bytes of their requests.
    pub(crate) bytes_max: usize,
}

/// Who takes what is in the queue.
#[derive(Debug)]
pub(crate) enum Lane {
    /// This server alone.
    Alone(Box<Alone>),
    /// The member of an ensemble, by what wakes its thread.
    Member(Arc<Notify>),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Commit {
    limits: CommitLimits,
    outstanding: AtomicUsize,
    inflight_bytes: AtomicUsize,
    /// What waits to be prepared.
    queue: Mutex<Queue>,
    lane: Lane,
}

impl Commit {
    pub(crate) fn new(limits: CommitLimits, lane: Lane) -> Commit {
        Commit {
            limits,
            outstanding: AtomicUsize::new(0),
            inflight_bytes: AtomicUsize::new(0),
            queue: Mutex::default(),
            lane,
        }
    }

    /// The commit path of a server that is its own quorum.
    pub(crate) fn alone(&self) -> Option<&Alone> {
        match &self.lane {
            Lane::Alone(alone) => Some(alone),
            Lane::Member(_) => None,
        }
    }

    /// Adds writes, in one hold of the queue. Follow with [`Shared::carry_out`].
    pub(crate) fn submit<R>(&self, f: impl FnOnce(&mut Queue) -> R) -> R {
        let mut queue = self.queue.lock();
        let (before, bytes_before) = (queue.entries.len(), queue.bytes.len());
        let result = f(&mut queue);
        self.outstanding.fetch_add(queue.entries.len() - before, Ordering::Relaxed);
        self.inflight_bytes.fetch_add(queue.bytes.len() - bytes_before, Ordering::Relaxed);
        if let Lane::Alone(alone) = &self.lane {
            alone.announce(queue.entries.len());
        }
        result
    }

    /// Adds a write of the server's own and sees that it is carried out.
    pub(crate) fn submit_own(&self, session: SessionId, op: OpCode, body: &[u8]) {
        let write = Write { session, xid: 0, op, body, received: Instant::now() };
        self.submit(|queue| queue.push(None, None, &write));
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

    /// Wakes whoever takes the queue.
    pub(crate) fn unpark(&self) {
        match &self.lane {
            Lane::Alone(alone) => alone.unpark(),
            Lane::Member(notify) => notify.notify_one(),
        }
    }

    /// Exchanges what waits for an empty queue.
    pub(crate) fn drain(&self, empty: &mut Queue) {
        debug_assert!(empty.is_empty(), "or writes would be lost");
        std::mem::swap(&mut *self.queue.lock(), empty);
    }

    /// So many writes are as good as answered: said before their clients are woken, who may look.
    pub(crate) fn note_answered(&self, count: usize, bytes: usize) {
        self.outstanding.fetch_sub(count, Ordering::Relaxed);
        self.inflight_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
