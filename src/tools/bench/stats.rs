//! What a thread counts while it runs, and how threads' counts become one.
//!
//! - N1: nothing here is shared but the clock of completed writes (one atomic, touched once per readiness event), from
//!   which the longest gap over all connections and threads is known without keeping every completion.
//! - N2: merging is exact: histograms of one shape add bucket by bucket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use super::workload::Kind;

/// Smallest latency told apart, ns.
const LATENCY_NS_MIN: u64 = 100;
/// Largest latency kept, ns: an hour, the largest `--timeout`. Anything above counts as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits: 0.1 % error, some 300 KiB per kind.
const DIGITS: u8 = 3;
/// Width of a timeline bucket, ns.
pub(super) const TIMELINE_NS: u64 = 100_000_000;

/// Why an operation has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// The server said so: a ZooKeeper error code.
    Code(i32),
    /// A successful reply that is too short for what was asked.
    BadReply,
    /// The connection went while it was in flight.
    ConnectionLoss,
    /// No answer within `--timeout`, or by the end of the run.
    Timeout,
    /// Due by the schedule, but there was never a free slot for it.
    Unsent,
}

impl Failure {
    /// Its key in reports.
    pub(super) fn name(self) -> String {
        match self {
            Failure::Code(code) => match crate::wire::ErrorCode::from_i32(code) {
                Some(known) => format!("{known:?} ({code})"),
                None => format!("code {code}"),
            },
            Failure::BadReply => "bad reply".to_owned(),
            Failure::ConnectionLoss => "connection loss".to_owned(),
            Failure::Timeout => "timeout".to_owned(),
            Failure::Unsent => "unsent".to_owned(),
        }
    }
}

/// The measured part of a run, nanoseconds on the run's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
}

impl Window {
    /// True for a time inside.
    pub(super) const fn has(&self, ns: u64) -> bool {
        self.from_ns <= ns && ns < self.until_ns
    }
}

/// When the last write of any connection completed.
#[derive(Debug, Default)]
pub(super) struct WriteClock {
    last_ns: AtomicU64,
}

/// A time without a completed write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gap {
    pub(super) ns: u64,
    pub(super) from_ns: u64,
}

impl WriteClock {
    /// Writes have completed at `now_ns`: the gap before it, if it is inside the window.
    fn tick(&self, window: &Window, now_ns: u64) -> Gap {
        let before = self.last_ns.fetch_max(now_ns, Ordering::Relaxed).max(window.from_ns);
        Gap { ns: now_ns.min(window.until_ns).saturating_sub(before), from_ns: before }
    }

    /// The gap that the end of the run leaves open.
    pub(super) fn close(&self, window: &Window, end_ns: u64) -> Gap {
        let before = self.last_ns.load(Ordering::Relaxed).max(window.from_ns);
        Gap { ns: end_ns.saturating_sub(before), from_ns: before }
    }
}

/// An empty histogram of the shape that all of a run have.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, DIGITS).expect("constant bounds are valid")
}

/// One thread's counts.
#[derive(Debug)]
pub(super) struct Recorder {
    window: Window,
    by_kind: [Option<Histogram<u64>>; Kind::COUNT],
    failures: BTreeMap<Failure, u64>,
    timeline: Vec<u64>,
    /// Completions inside the window.
    completed: u64,
    events: u64,
    event_latency: Option<Histogram<u64>>,
    reconnects: u64,
    gap: Gap,
    last_done_ns: u64,
    run: Run,
    wrote: bool,
}

/// Equal latencies in a row, recorded at once: replies of one read that were sent by one write.
#[derive(Clone, Copy, Debug)]
struct Run {
    kind: Kind,
    latency_ns: u64,
    count: u64,
}

impl Recorder {
    /// Counts `kinds` inside `window`; `timeline_buckets` is 0 for none.
    pub(super) fn new(kinds: &[Kind], window: Window, timeline_buckets: usize) -> Recorder {
        let mut by_kind = [const { None }; Kind::COUNT];
        for kind in kinds {
            by_kind[*kind as usize] = Some(histogram());
        }
        Recorder {
            window,
            by_kind,
            failures: BTreeMap::new(),
            timeline: vec![0; timeline_buckets],
            completed: 0,
            events: 0,
            event_latency: kinds.contains(&Kind::GetWatch).then(histogram),
            reconnects: 0,
            gap: Gap::default(),
            last_done_ns: 0,
            run: Run { kind: kinds[0], latency_ns: 0, count: 0 },
            wrote: false,
        }
    }

    /// The window, which an interrupt may cut.
    pub(super) fn cut(&mut self, until_ns: u64) {
        self.window.until_ns = self.window.until_ns.min(until_ns).max(self.window.from_ns + 1);
    }

    /// An operation due at `due_ns` was answered well at `now_ns`.
    #[inline]
    pub(super) fn success(&mut self, kind: Kind, due_ns: u64, now_ns: u64) {
        self.wrote |= kind.is_write();
        if self.window.has(now_ns) {
            self.completed += 1;
            if let Some(bucket) =
                self.timeline.get_mut(((now_ns - self.window.from_ns) / TIMELINE_NS) as usize)
            {
                *bucket += 1;
            }
        }
        if self.window.has(due_ns) {
            self.sample(kind, now_ns.saturating_sub(due_ns));
        }
    }

    /// An operation due at `due_ns` has no good answer. One that was waited for in vain until `now_ns` enters the percentiles.
    pub(super) fn failure(&mut self, kind: Kind, due_ns: u64, now_ns: u64, failure: Failure) {
        if !self.window.has(due_ns) {
            return;
        }
        *self.failures.entry(failure).or_default() += 1;
        if matches!(failure, Failure::Timeout | Failure::Unsent) {
            self.sample(kind, now_ns.saturating_sub(due_ns));
        }
    }

    /// A watch event came for the request due at `due_ns` that fires it.
    pub(super) fn event(&mut self, due_ns: Option<u64>, now_ns: u64) {
        if !self.window.has(now_ns) {
            return;
        }
        self.events += 1;
        if let (Some(due_ns), Some(histogram)) = (due_ns, &mut self.event_latency) {
            histogram.saturating_record(now_ns.saturating_sub(due_ns));
        }
    }

    /// A connection was opened again.
    pub(super) fn reconnected(&mut self) {
        self.reconnects += 1;
    }

    /// All replies of one read are counted.
    #[inline]
    pub(super) fn end_batch(&mut self, clock: &WriteClock, now_ns: u64) {
        self.last_done_ns = now_ns;
        if std::mem::take(&mut self.wrote) && now_ns >= self.window.from_ns {
            self.gap = self.gap.max(clock.tick(&self.window, now_ns));
        }
    }

    #[inline]
    fn sample(&mut self, kind: Kind, latency_ns: u64) {
        if self.run.kind == kind && self.run.latency_ns == latency_ns {
            self.run.count += 1;
            return;
        }
        self.flush();
        self.run = Run { kind, latency_ns, count: 1 };
    }

    fn flush(&mut self) {
        let Run { kind, latency_ns, count } = self.run;
        if count > 0 {
            let histogram =
                self.by_kind[kind as usize].as_mut().expect("only kinds of this workload are made");
            histogram.saturating_record_n(latency_ns, count);
            self.run.count = 0;
        }
    }

    /// Ends the counting.
    pub(super) fn finish(mut self) -> Totals {
        self.flush();
        let by_kind = Kind::ALL.into_iter().zip(self.by_kind).filter_map(|(k, h)| Some((k, h?))).collect();
        Totals {
            by_kind,
            failures: self.failures,
            timeline: self.timeline,
            completed: self.completed,
            events: self.events,
            event_latency: self.event_latency,
            reconnects: self.reconnects,
            gap: self.gap,
            last_done_ns: self.last_done_ns,
            window: self.window,
        }
    }
}

/// What one or all threads counted.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) by_kind: Vec<(Kind, Histogram<u64>)>,
    pub(super) failures: BTreeMap<Failure, u64>,
    pub(super) timeline: Vec<u64>,
    pub(super) completed: u64,
    pub(super) events: u64,
    pub(super) event_latency: Option<Histogram<u64>>,
    pub(super) reconnects: u64,
    pub(super) gap: Gap,
    pub(super) last_done_ns: u64,
    pub(super) window: Window,
}

impl Totals {
    /// Adds another thread's counts.
    pub(super) fn merge(&mut self, other: Totals) {
        assert_eq!(self.by_kind.len(), other.by_kind.len(), "threads of one run count the same kinds");
        for ((kind, mine), (same, theirs)) in self.by_kind.iter_mut().zip(&other.by_kind) {
            assert_eq!(kind, same);
            mine.add(theirs).expect("histograms of one shape");
        }
        if let (Some(mine), Some(theirs)) = (&mut self.event_latency, &other.event_latency) {
            mine.add(theirs).expect("histograms of one shape");
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        self.timeline.iter_mut().zip(other.timeline).for_each(|(a, b)| *a += b);
        self.completed += other.completed;
        self.events += other.events;
        self.reconnects += other.reconnects;
        self.gap = self.gap.max(other.gap);
        self.last_done_ns = self.last_done_ns.max(other.last_done_ns);
        self.window.until_ns = self.window.until_ns.min(other.window.until_ns);
    }

    /// All kinds together.
    pub(super) fn latency(&self) -> Histogram<u64> {
        let mut all = histogram();
        for (_, h) in &self.by_kind {
            all.add(h).expect("histograms of one shape");
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { from_ns: 1000, until_ns: 1_000_000_000 };

    fn recorder() -> Recorder {
        Recorder::new(&[Kind::Get, Kind::Set], WINDOW, 10)
    }

    #[test]
    fn merged_threads_equal_one_thread_that_saw_everything() {
        let (mut one, mut a, mut b) = (recorder(), recorder(), recorder());
        let mut rng = crate::base::rng::Rng::new(3);
        for i in 0..10_000u64 {
            let kind = if rng.one_in(3) { Kind::Set } else { Kind::Get };
            let bits = rng.below(30);
            let (due, latency) = (2000 + i * 50_000, 1000 + rng.below(1 << bits));
            one.success(kind, due, due + latency);
            if rng.one_in(2) { &mut a } else { &mut b }.success(kind, due, due + latency);
        }
        a.failure(Kind::Get, 5000, 6000, Failure::Code(-101));
        b.failure(Kind::Get, 5000, 6000, Failure::Code(-101));
        let (one, mut merged) = (one.finish(), a.finish());
        merged.merge(b.finish());
        assert_eq!(merged.by_kind, one.by_kind);
        assert_eq!(merged.latency(), one.latency());
        assert_eq!((merged.completed, merged.timeline), (one.completed, one.timeline));
        assert_eq!(merged.failures[&Failure::Code(-101)], 2);
    }

    #[test]
    fn latency_belongs_to_the_window_it_was_due_in_and_throughput_to_that_of_completion() {
        let mut r = recorder();
        r.success(Kind::Get, 500, 2000); // due before, done inside
        r.success(Kind::Get, 999_999_000, 1_000_001_000); // due inside, done behind
        r.failure(Kind::Set, 500, 2000, Failure::Timeout); // due before: not of this run
        let totals = r.finish();
        assert_eq!((totals.completed, totals.latency().len()), (1, 1));
        assert_eq!(totals.latency().max() / 100, 20);
        assert!(totals.failures.is_empty());
    }

    #[test]
    fn what_was_waited_for_in_vain_is_in_the_percentiles() {
        let mut r = recorder();
        r.success(Kind::Get, 2000, 3000);
        r.failure(Kind::Set, 2000, 500_002_000, Failure::Timeout);
        r.failure(Kind::Set, 2000, 500_002_000, Failure::Code(-110));
        let totals = r.finish();
        assert_eq!(totals.latency().len(), 2);
        assert!(totals.latency().max() >= 500_000_000);
    }

    #[test]
    fn the_longest_gap_between_writes_spans_threads_and_reaches_to_the_end() {
        let (clock, mut a, mut b) = (WriteClock::default(), recorder(), recorder());
        let write = |r: &mut Recorder, at| {
            r.success(Kind::Set, at, at);
            r.end_batch(&clock, at);
        };
        write(&mut a, 500); // in the warm-up
        write(&mut a, 2000);
        write(&mut b, 7000);
        write(&mut a, 8000);
        b.success(Kind::Get, 50_000, 50_000); // reads do not count
        b.end_batch(&clock, 50_000);
        let mut totals = a.finish();
        totals.merge(b.finish());
        assert_eq!(totals.gap, Gap { ns: 5000, from_ns: 2000 });
        assert_eq!(clock.close(&WINDOW, 90_000), Gap { ns: 82_000, from_ns: 8000 });
    }
}
