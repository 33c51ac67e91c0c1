//! Figures: what four-letter words and, later, the metrics exporter show.
//!
//! - S1: recording never blocks and never allocates; a connection collects in a [`Tally`] of its own and hands it over once per
//!   batch, so that the shared counters are touched a few times per batch, not per request.
//! - S2: resetting (`srst`, `crst`) races with recording; a figure may be off by what was under way, never torn or negative.
//! - S3: latencies are taken in microseconds and shown in milliseconds, as ZooKeeper's are.

mod conn;
mod histogram;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use conn::{ConnFigures, ConnStats};
pub use histogram::{Histogram, Runs, Summary};

/// In front of a reply, and not counted into its size.
const LENGTH_BYTES: usize = 4;

/// A duration as figures have it.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Figures of the whole server. One per process, behind an `Arc`.
#[derive(Debug)]
pub struct ServerStats {
    /// Requests read.
    pub packets_received: AtomicU64,
    /// Replies and events written.
    pub packets_sent: AtomicU64,
    /// Bytes of requests.
    pub bytes_received: AtomicU64,
    /// Bytes of replies.
    pub response_bytes: AtomicU64,
    /// Bytes of watch events.
    pub watch_bytes: AtomicU64,
    /// From the last byte of a request to its reply in the outbox, microseconds; reads.
    pub read_latency_us: Histogram,
    /// The same for writes.
    pub update_latency_us: Histogram,
    /// Latency of every request, as `srvr` shows it.
    pub latency_us: Extremes,
    /// Duration of log flushes, microseconds.
    pub fsync_us: Histogram,
    /// Flushes above `fsync.warningthresholdms`.
    pub fsync_threshold_exceeded: AtomicU64,
    /// Writes per flush.
    pub batch_size: Histogram,
    /// Duration of a snapshot, microseconds.
    pub snapshot_us: Histogram,
    /// Snapshots that could not be written.
    pub snapshot_errors: AtomicU64,
    /// Trees that were not what a transaction was made for (rule R4).
    pub digest_mismatches: AtomicU64,
    /// Writes that got a place in the log.
    pub proposals: AtomicU64,
    /// Writes applied.
    pub commits: AtomicU64,
    /// Connect requests.
    pub connection_requests: AtomicU64,
    /// Connections turned away at a limit.
    pub connections_rejected: AtomicU64,
    /// Connections closed by the server against the client's will.
    pub connections_dropped: AtomicU64,
    /// Connections closed because they did not set up a session in time.
    pub sessionless_expired: AtomicU64,
    /// Sessions that timed out.
    pub sessions_expired: AtomicU64,
    /// Failed `auth` requests.
    pub auth_failed: AtomicU64,
    /// Watch events fired: node created, deleted, changed, children changed.
    pub watches_fired: [Histogram; 4],
    /// Sizes of replies.
    pub response_size: Sizes,
    /// Sizes of proposals, for a leader.
    pub proposal_size: Sizes,
}

impl Default for ServerStats {
    fn default() -> ServerStats {
        ServerStats::new()
    }
}

impl ServerStats {
    /// All zero.
    #[must_use]
    pub fn new() -> ServerStats {
        ServerStats {
            packets_received: AtomicU64::new(0),
            packets_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            watch_bytes: AtomicU64::new(0),
            read_latency_us: Histogram::new(),
            update_latency_us: Histogram::new(),
            latency_us: Extremes::new(),
            fsync_us: Histogram::new(),
            fsync_threshold_exceeded: AtomicU64::new(0),
            batch_size: Histogram::new(),
            snapshot_us: Histogram::new(),
            snapshot_errors: AtomicU64::new(0),
            digest_mismatches: AtomicU64::new(0),
            proposals: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            connection_requests: AtomicU64::new(0),
            connections_rejected: AtomicU64::new(0),
            connections_dropped: AtomicU64::new(0),
            sessionless_expired: AtomicU64::new(0),
            sessions_expired: AtomicU64::new(0),
            auth_failed: AtomicU64::new(0),
            watches_fired: [const { Histogram::new() }; 4],
            response_size: Sizes::new(),
            proposal_size: Sizes::new(),
        }
    }

    /// Takes over what a connection collected and empties it.
    pub fn absorb(&self, tally: &mut Tally) {
        if tally.received == 0 && tally.sent == 0 {
            return;
        }
        self.packets_received.fetch_add(tally.received, Relaxed);
        self.packets_sent.fetch_add(tally.sent, Relaxed);
        self.bytes_received.fetch_add(tally.bytes_received, Relaxed);
        self.response_bytes.fetch_add(tally.response_bytes, Relaxed);
        self.watch_bytes.fetch_add(tally.watch_bytes, Relaxed);
        self.latency_us.absorb(&tally.latency);
        self.read_latency_us.absorb(&mut tally.reads);
        self.update_latency_us.absorb(&mut tally.writes);
        self.response_size.absorb(&tally.sizes);
        *tally = Tally::default();
    }

    /// `srst`: everything a period can be measured by starts again. Counters that only ever grow in ZooKeeper stay.
    pub fn reset(&self) {
        for counter in [&self.packets_received, &self.packets_sent] {
            counter.store(0, Relaxed);
        }
        let histograms = [&self.read_latency_us, &self.update_latency_us, &self.fsync_us, &self.batch_size];
        for histogram in histograms.into_iter().chain([&self.snapshot_us]).chain(&self.watches_fired) {
            histogram.reset();
        }
        self.latency_us.reset();
        self.response_size.reset();
        self.proposal_size.reset();
    }
}

/// Count, sum, smallest and largest, collected by one owner without atomics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Local {
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Local {
    const EMPTY: Local = Local { count: 0, sum: 0, min: u64::MAX, max: 0 };

    fn add(&mut self, value: u64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

/// What one connection collects between two visits to [`ServerStats::absorb`].
///
/// Latencies are kept as runs of equal buckets: requests of one batch mostly take equally long.
#[derive(Debug)]
pub struct Tally {
    received: u64,
    sent: u64,
    bytes_received: u64,
    response_bytes: u64,
    watch_bytes: u64,
    latency: Local,
    reads: Runs,
    writes: Runs,
    sizes: (Local, u64),
}

/// Which latency figure a request counts into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Answered from the tree.
    Read,
    /// Went through the log.
    Write,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            received: 0,
            sent: 0,
            bytes_received: 0,
            response_bytes: 0,
            watch_bytes: 0,
            latency: Local::EMPTY,
            reads: Runs::default(),
            writes: Runs::default(),
            sizes: (Local::EMPTY, 0),
        }
    }
}

impl Tally {
    /// A request of so many bytes came in.
    pub fn request(&mut self, bytes: usize) {
        self.received += 1;
        self.bytes_received += bytes as u64;
    }

    /// A reply of so many bytes went out, so long after its request.
    ///
    /// Touches `stats` only when the latencies of this batch are too many to be kept.
    pub fn reply(&mut self, stats: &ServerStats, kind: RequestKind, bytes: usize, latency_us: u64) {
        let (runs, shared) = match kind {
            RequestKind::Read => (&mut self.reads, &stats.read_latency_us),
            RequestKind::Write => (&mut self.writes, &stats.update_latency_us),
        };
        if !runs.add(latency_us) {
            shared.absorb(runs);
            let _ = runs.add(latency_us);
        }
        self.sent += 1;
        self.response_bytes += bytes as u64;
        self.latency.add(latency_us);
        let size = bytes.saturating_sub(LENGTH_BYTES) as u64;
        self.sizes.0.add(size);
        self.sizes.1 = size;
    }

    /// A reply of so many bytes went out that has no latency worth a figure: to a connect request, to auth, to nonsense.
    pub fn other_reply(&mut self, bytes: usize) {
        self.sent += 1;
        self.response_bytes += bytes as u64;
    }

    /// A watch event of so many bytes went out.
    pub fn event(&mut self, bytes: usize) {
        self.sent += 1;
        self.watch_bytes += bytes as u64;
    }
}

/// Smallest, largest, sum and count.
#[derive(Debug)]
pub struct Extremes {
    count: AtomicU64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Extremes {
    const fn new() -> Extremes {
        Extremes {
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }

    fn absorb(&self, local: &Local) {
        if local.count == 0 {
            return;
        }
        self.count.fetch_add(local.count, Relaxed);
        self.sum.fetch_add(local.sum, Relaxed);
        // A plain load first: the extremes rarely move, and an unneeded write would pull the cache line over.
        if local.min < self.min.load(Relaxed) {
            self.min.fetch_min(local.min, Relaxed);
        }
        if local.max > self.max.load(Relaxed) {
            self.max.fetch_max(local.max, Relaxed);
        }
    }

    /// Records one value.
    pub fn add(&self, value: u64) {
        self.absorb(&Local { count: 1, sum: value, min: value, max: value });
    }

    /// Smallest; 0 when there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.min.load(Relaxed).min(self.max()) }
    }

    /// Largest; 0 when there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max.load(Relaxed)
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Sum of all.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// Mean; 0 when there is none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let count = self.count();
        if count == 0 { 0.0 } else { self.sum() as f64 / count as f64 }
    }

    fn reset(&self) {
        self.count.store(0, Relaxed);
        self.sum.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
    }
}

/// Sizes in bytes: last, smallest, largest; -1 as long as there is none, as in ZooKeeper.
#[derive(Debug)]
pub struct Sizes {
    last: AtomicI64,
    min: AtomicI64,
    max: AtomicI64,
}

impl Sizes {
    const fn new() -> Sizes {
        Sizes { last: AtomicI64::new(-1), min: AtomicI64::new(-1), max: AtomicI64::new(-1) }
    }

    fn absorb(&self, (local, last): &(Local, u64)) {
        if local.count == 0 {
            return;
        }
        let size = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.last.store(size(*last), Relaxed);
        let min = self.min.load(Relaxed);
        if min < 0 || size(local.min) < min {
            self.min.store(size(local.min), Relaxed);
        }
        if size(local.max) > self.max.load(Relaxed) {
            self.max.store(size(local.max), Relaxed);
        }
    }

    /// Records one size.
    pub fn add(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.absorb(&(Local { count: 1, sum: bytes, min: bytes, max: bytes }, bytes));
    }

    /// Last, smallest, largest.
    #[must_use]
    pub fn get(&self) -> (i64, i64, i64) {
        (self.last.load(Relaxed), self.min.load(Relaxed), self.max.load(Relaxed))
    }

    fn reset(&self) {
        for size in [&self.last, &self.min, &self.max] {
            size.store(-1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_handed_over_once_and_emptied() {
        let stats = ServerStats::new();
        let mut tally = Tally::default();
        tally.request(10);
        tally.reply(&stats, RequestKind::Read, 100, 2_000);
        tally.reply(&stats, RequestKind::Write, 40, 1_000);
        tally.event(30);
        stats.absorb(&mut tally);
        stats.absorb(&mut tally);
        assert_eq!(stats.packets_received.load(Relaxed), 1);
        assert_eq!(stats.packets_sent.load(Relaxed), 3);
        assert_eq!(stats.response_bytes.load(Relaxed), 140);
        assert_eq!(stats.watch_bytes.load(Relaxed), 30);
        let latency = &stats.latency_us;
        assert_eq!((latency.min(), latency.max(), latency.count(), latency.sum()), (1_000, 2_000, 2, 3_000));
        assert!((latency.mean() - 1_500.0).abs() < 1e-9);
        assert_eq!(stats.response_size.get(), (36, 36, 96));
        let (reads, writes) = (stats.read_latency_us.summary(), stats.update_latency_us.summary());
        assert_eq!((reads.count, reads.sum, writes.count, writes.sum), (1, 2_000, 1, 1_000));
    }

    #[test]
    fn resetting_starts_a_new_period() {
        let stats = ServerStats::new();
        let mut tally = Tally::default();
        tally.request(1);
        tally.reply(&stats, RequestKind::Read, 1, 5);
        stats.absorb(&mut tally);
        stats.fsync_us.add(77);
        stats.proposal_size.add(9);
        stats.connection_requests.fetch_add(1, Relaxed);
        stats.reset();
        assert_eq!(stats.packets_received.load(Relaxed), 0);
        assert_eq!((stats.latency_us.min(), stats.latency_us.max()), (0, 0));
        assert_eq!(stats.response_size.get(), (-1, -1, -1));
        assert_eq!(stats.proposal_size.get(), (-1, -1, -1));
        assert_eq!(stats.fsync_us.summary().count, 0);
        assert_eq!(stats.connection_requests.load(Relaxed), 1, "not a figure of a period");
    }

    #[test]
    fn a_batch_with_many_different_latencies_loses_none() {
        let stats = ServerStats::new();
        let mut tally = Tally::default();
        for us in 0..1_000 {
            tally.reply(&stats, RequestKind::Read, 1, us * 10);
        }
        stats.absorb(&mut tally);
        let summary = stats.read_latency_us.summary();
        assert_eq!((summary.count, summary.sum, summary.min, summary.max), (1_000, 4_995_000, 0, 9_990));
    }

    #[test]
    fn nothing_recorded_reads_as_zero() {
        let stats = ServerStats::new();
        assert_eq!((stats.latency_us.min(), stats.latency_us.mean() as u64), (0, 0));
    }
}
