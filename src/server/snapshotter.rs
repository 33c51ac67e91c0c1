//! When snapshots are taken and old ones removed, and the thread that does both. How, is `node::snapshot`'s business.
//!
//! - N1: commits go on while a snapshot is taken.
//! - N2: snapshots never cost more than the log itself.
//! - N3: nothing is removed before the snapshot that covers it was read back and verified (rule R15).
//! - N4: a failed snapshot (full disk) costs nothing but the attempt; the log keeps what it would have covered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::Zxid;
use crate::node::snapshot::retire;
use crate::node::{SnapshotFailed, SnapshotOptions, SnapshotTask};
use crate::server::Shared;
use crate::server::stats::micros;
use crate::storage::snapshot::{Retention, SnapshotError, SnapshotInfo, SnapshotStore};

/// Pause after a failed attempt.
const RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct State {
    txns: u64,
    log_bytes: u64,
    last_snapshot_bytes: u64,
    stopped: bool,
    /// The member receives a whole state: nothing is taken or removed meanwhile.
    paused: bool,
    /// The thread is at work.
    busy: bool,
    purge_below: Option<Zxid>,
    not_before: Option<Instant>,
    /// When the next round of removal begins; `None`: nothing is ever removed.
    removal_at: Option<Instant>,
}

/// What the thread has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Take a snapshot.
    Take,
    /// Remove what has become too old since the last round.
    Remove,
}

/// When a snapshot is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotPolicy {
    /// `snapCount`.
    pub(crate) txns_min: u64,
    /// `snapSizeLimitInKb`, in bytes.
    pub(crate) log_bytes_max: u64,
    /// Shortest time between two.
    pub(crate) pause: Duration,
    /// `autopurge.purgeInterval`: time between two rounds of removal, the one behind each snapshot counted; `None`: no round at all.
    pub(crate) removal_interval: Option<Duration>,
}

/// Counts what would have to be replayed, and says when that is enough for a snapshot.
#[derive(Debug)]
pub(crate) struct Snapshots {
    policy: SnapshotPolicy,
    state: Mutex<State>,
    due: Condvar,
}

impl Snapshots {
    /// `txns` and `log_bytes` are what recovery replayed behind the last snapshot, which took `last_snapshot_bytes`.
    pub(crate) fn new(
        policy: SnapshotPolicy,
        txns: u64,
        log_bytes: u64,
        last_snapshot_bytes: u64,
    ) -> Snapshots {
        let state = State { txns, log_bytes, last_snapshot_bytes, ..State::default() };
        let snapshots = Snapshots { policy, state: Mutex::new(state), due: Condvar::new() };
        snapshots.removed();
        snapshots
    }

    /// So many transactions, which take so much of the log, were applied.
    pub(crate) fn note_applied(&self, txns: usize, log_bytes: usize) {
        let mut state = self.state.lock();
        state.txns += txns as u64;
        state.log_bytes += log_bytes as u64;
        if self.is_due(&state) {
            self.due.notify_one();
        }
    }

    /// Enough transactions, and at least as many bytes of log as the last snapshot took: so that the snapshots of a large tree never cost
    /// more than the log itself, and replay never reads more than about twice the tree. ZooKeeper counts transactions alone.
    fn is_due(&self, state: &State) -> bool {
        let waited = state.not_before.is_none_or(|at| Instant::now() >= at);
        let enough = state.txns >= self.policy.txns_min && state.log_bytes >= state.last_snapshot_bytes;
        waited && state.txns > 0 && (enough || state.log_bytes >= self.policy.log_bytes_max)
    }

    /// Ends the thread's sleep: the server stops.
    pub(crate) fn wake(&self) {
        self.state.lock().stopped = true;
        self.due.notify_one();
    }

    /// Log records up to here are covered by every snapshot that is kept: whoever owns the segments may retire them.
    pub(crate) fn take_purge(&self) -> Option<Zxid> {
        self.state.lock().purge_below.take()
    }

    /// Nothing is taken or removed any more, or again; true when nothing is under way either.
    pub(crate) fn pause(&self, paused: bool) -> bool {
        let mut state = self.state.lock();
        state.paused = paused;
        !state.busy
    }

    fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    /// Waits until there is something to do; `None` when the server stops.
    fn wait(&self) -> Option<Work> {
        let mut state = self.state.lock();
        state.busy = false;
        loop {
            if state.stopped {
                return None;
            }
            if !state.paused
                && let Some(work) = self.work(&state, Instant::now())
            {
                state.busy = true;
                return Some(work);
            }
            // With a time limit, for `not_before` and `removal_at` pass without anybody saying so.
            self.due.wait_for(&mut state, Duration::from_secs(1));
        }
    }

    /// A snapshot goes first: a round of removal follows it anyway.
    fn work(&self, state: &State, now: Instant) -> Option<Work> {
        if self.is_due(state) {
            return Some(Work::Take);
        }
        state.removal_at.is_some_and(|at| now >= at).then_some(Work::Remove)
    }

    /// A round of removal is over, whatever it came to.
    fn removed(&self) {
        // An interval that no clock reaches is none.
        let at = self.policy.removal_interval.and_then(|interval| Instant::now().checked_add(interval));
        self.state.lock().removal_at = at;
    }

    fn began(&self) {
        let mut state = self.state.lock();
        (state.txns, state.log_bytes) = (0, 0);
    }

    fn ended(&self, file_bytes: Option<u64>) {
        let mut state = self.state.lock();
        match file_bytes {
            Some(bytes) => {
                state.last_snapshot_bytes = bytes;
                state.not_before = Some(Instant::now() + self.policy.pause);
            }
            None => {
                state.not_before = Some(Instant::now() + RETRY);
                // What was counted before `began` is lost: the next attempt counts as due once the pause is over.
                state.txns = state.txns.max(self.policy.txns_min);
                state.log_bytes = state.log_bytes.max(state.last_snapshot_bytes);
            }
        }
    }
}

/// Takes snapshots until the server stops.
pub(crate) fn run(shared: &Arc<Shared>, store: &SnapshotStore) {
    // The commit path must not wait for a core that compresses. A process that may not change its niceness is no worse off.
    let _ = rustix::process::nice(10);
    let mut verified = BTreeSet::new();
    while let Some(work) = shared.snapshots.wait() {
        if work == Work::Take {
            match take_one(shared, store) {
                Ok(Some(zxid)) => verified.insert(zxid),
                Ok(None) | Err(_) => continue,
            };
        }
        if shared.snapshots.is_paused() {
            continue;
        }
        if let Err(error) = retire_old(shared, store, &mut verified) {
            tracing::warn!(%error, "old snapshots stay for now");
        }
        shared.snapshots.removed();
    }
}

/// One attempt, counted and reported: the new snapshot, which was read back; `None` when the server stops or pauses it meanwhile.
fn take_one(shared: &Shared, store: &SnapshotStore) -> Result<Option<Zxid>, SnapshotFailed> {
    let started = Instant::now();
    let taken = take(shared, store);
    match &taken {
        Ok(Some(info)) => {
            shared.snapshots.ended(Some(info.file_bytes));
            let us = micros(started.elapsed());
            shared.stats.snapshot_us.add(us);
            tracing::info!(zxid = %info.zxid, bytes = info.file_bytes, us, "snapshot taken");
        }
        Ok(None) => {}
        Err(error) => {
            shared.snapshots.ended(None);
            shared.stats.snapshot_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "no snapshot taken; the log keeps everything, next attempt in {RETRY:?}");
        }
    }
    Ok(taken?.map(|info| info.zxid))
}

/// Takes one snapshot; `None` when the server stops, or a whole state is received, meanwhile.
fn take(shared: &Shared, store: &SnapshotStore) -> Result<Option<SnapshotInfo>, SnapshotFailed> {
    let options = SnapshotOptions {
        node_id: shared.node_id,
        created: shared.wall_now(),
        level: shared.config.snapshot.zstd_level,
        chunk_bytes: shared.config.snapshot.chunk_bytes,
    };
    let mut task = SnapshotTask::begin(&shared.tree, store, &options)?;
    shared.snapshots.began();
    loop {
        match task.step(&shared.tree) {
            Ok(true) if shared.is_stopped() || shared.snapshots.is_paused() => {
                task.abort(&shared.tree);
                return Ok(None);
            }
            Ok(true) => {}
            Ok(false) => return task.finish(&shared.tree, store).map(Some),
            Err(error) => {
                task.abort(&shared.tree);
                return Err(error);
            }
        }
    }
}

/// Removes what retention lets go, and releases the log below the oldest snapshot that is kept.
fn retire_old(
    shared: &Shared,
    store: &SnapshotStore,
    verified: &mut BTreeSet<Zxid>,
) -> Result<(), SnapshotError> {
    let Some(keep) = shared.config.snapshot.retention else { return Ok(()) };
    let retention = Retention {
        count_min: keep.snapshots_min,
        count_max: if keep.age_ms_min == 0 { keep.snapshots_min } else { usize::MAX },
        age_max: (keep.age_ms_min > 0).then(|| Duration::from_millis(keep.age_ms_min)),
    };
    if let Some(below) = retire(store, &retention, verified, shared.wall_now())?.purge_below {
        shared.snapshots.state.lock().purge_below = Some(below);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    fn snapshots(txns_min: u64, log_bytes_max: u64, txns: u64, log_bytes: u64, last: u64) -> Snapshots {
        let policy = SnapshotPolicy { txns_min, log_bytes_max, pause: PAUSE, removal_interval: None };
        Snapshots::new(policy, txns, log_bytes, last)
    }

    fn due(snapshots: &Snapshots) -> bool {
        snapshots.is_due(&snapshots.state.lock())
    }

    #[test]
    fn a_snapshot_is_due_by_transactions_and_by_bytes_of_log() {
        assert!(!due(&snapshots(100, 1 << 30, 99, 1 << 20, 0)), "too few transactions");
        assert!(due(&snapshots(100, 1 << 30, 100, 1 << 20, 1 << 20)));
        assert!(
            !due(&snapshots(100, 1 << 30, 100, 1 << 20, 2 << 20)),
            "less log than the last snapshot took"
        );
        assert!(due(&snapshots(100, 1 << 19, 1, 1 << 20, 2 << 20)), "snapSizeLimitInKb");
        assert!(!due(&snapshots(100, 0, 0, 0, 0)), "nothing has changed");
    }

    #[test]
    fn behind_a_snapshot_there_is_a_pause_however_much_is_written() {
        let policy = SnapshotPolicy { pause: Duration::ZERO, ..snapshots(1, 1, 0, 0, 0).policy };
        for (policy, at_once) in [(policy, true), (SnapshotPolicy { pause: PAUSE, ..policy }, false)] {
            let snapshots = Snapshots::new(policy, 1, 1 << 20, 0);
            snapshots.began();
            snapshots.ended(Some(1));
            snapshots.state.lock().txns = 1_000;
            snapshots.state.lock().log_bytes = 1 << 20;
            assert_eq!(due(&snapshots), at_once);
        }
    }

    #[test]
    fn after_a_failure_there_is_a_pause_and_then_another_attempt() {
        let snapshots = snapshots(1, 1 << 30, 1, 1, 0);
        snapshots.began();
        snapshots.ended(None);
        assert!(!due(&snapshots));
        snapshots.state.lock().not_before = Some(Instant::now());
        assert!(due(&snapshots));
    }

    #[test]
    fn a_round_of_removal_is_due_by_the_clock_but_a_snapshot_goes_first() {
        let interval = Duration::from_secs(3_600);
        let policy =
            SnapshotPolicy { removal_interval: Some(interval), ..snapshots(1, 1 << 30, 0, 0, 0).policy };
        let work = |snapshots: &Snapshots, later: Duration| {
            snapshots.work(&snapshots.state.lock(), Instant::now() + later)
        };
        let idle = Snapshots::new(policy, 0, 0, 0);
        assert_eq!(work(&idle, Duration::ZERO), None);
        assert_eq!(work(&idle, interval), Some(Work::Remove));
        idle.state.lock().removal_at = Some(Instant::now());
        assert_eq!(work(&idle, Duration::ZERO), Some(Work::Remove));
        idle.removed();
        assert_eq!(work(&idle, Duration::ZERO), None, "the next round is an interval away");
        assert_eq!(work(&Snapshots::new(policy, 1, 1, 0), interval), Some(Work::Take));
        assert_eq!(work(&snapshots(1, 1 << 30, 0, 0, 0), interval), None, "removal is off");
        let never = SnapshotPolicy { removal_interval: Some(Duration::from_millis(u64::MAX)), ..policy };
        assert_eq!(work(&Snapshots::new(never, 0, 0, 0), interval), None);
    }
}
