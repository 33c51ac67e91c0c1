//! A histogram of fixed size whose recording is one atomic addition per counter it touches.
//!
//! Buckets: exact below 8, then 8 per power of two, so that a percentile is at most 12.5 % above the true value.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;
/// Powers of two that have buckets: values up to 2^40 (12 days in microseconds); larger ones count into the last bucket.
const POWERS: usize = 40 - SUB_BITS as usize;
const BUCKETS: usize = SUB + POWERS * SUB;

const _: () = assert!(BUCKETS * size_of::<AtomicU64>() <= 4_096, "one histogram stays within a page");

/// Counts by size, and the exact count, sum, smallest and largest.
#[derive(Debug)]
pub struct Histogram {
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// Distinct runs that one [`Runs`] holds.
const RUNS_MAX: usize = 8;

/// Values on their way into a [`Histogram`], collected by one owner without atomics.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    runs: [(u16, u32); RUNS_MAX],
    len: usize,
    sum: u64,
    min: u64,
    max: u64,
}

impl Default for Runs {
    fn default() -> Runs {
        Runs { runs: [(0, 0); RUNS_MAX], len: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Runs {
    /// Adds one value; false, and nothing added, when there is no room for it.
    #[must_use]
    pub fn add(&mut self, value: u64) -> bool {
        let wanted = bucket(value) as u16;
        let found = self.runs[..self.len].iter().rposition(|(b, n)| *b == wanted && *n < u32::MAX);
        let at = found.unwrap_or(self.len);
        let Some(run) = self.runs.get_mut(at) else { return false };
        *run = (wanted, if found.is_some() { run.1 + 1 } else { 1 });
        self.len = self.len.max(at + 1);
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        true
    }
}

/// What a histogram says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// Smallest; 0 when there is none.
    pub min: u64,
    /// Largest; 0 when there is none.
    pub max: u64,
    /// Median, within 12.5 % above the true one.
    pub p50: u64,
    /// The same for 95 %.
    pub p95: u64,
    /// The same for 99 %.
    pub p99: u64,
    /// The same for 99.9 %.
    pub p999: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// Empty.
    #[must_use]
    pub const fn new() -> Histogram {
        Histogram {
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Records one value.
    pub fn add(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        self.stretch(value, value);
    }

    /// Takes over what somebody collected and empties it.
    pub fn absorb(&self, runs: &mut Runs) {
        for (bucket, n) in &runs.runs[..runs.len] {
            self.buckets[usize::from(*bucket)].fetch_add(u64::from(*n), Relaxed);
        }
        if runs.len > 0 {
            self.sum.fetch_add(runs.sum, Relaxed);
            self.stretch(runs.min, runs.max);
        }
        *runs = Runs::default();
    }

    fn stretch(&self, min: u64, max: u64) {
        // A plain load first: the extremes rarely move, and an unneeded write would pull the cache line over.
        if min < self.min.load(Relaxed) {
            self.min.fetch_min(min, Relaxed);
        }
        if max > self.max.load(Relaxed) {
            self.max.fetch_max(max, Relaxed);
        }
    }

    /// Forgets everything.
    pub fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
        self.sum.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
    }

    /// The figures now. Walks all buckets: for people, not for the hot path.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let count = counts.iter().sum();
        if count == 0 {
            return Summary::default();
        }
        let (min, max) = (self.min.load(Relaxed), self.max.load(Relaxed));
        let at = |per_mille: u64| percentile(&counts, count, per_mille).clamp(min.min(max), max);
        Summary {
            count,
            sum: self.sum.load(Relaxed),
            min: min.min(max),
            max,
            p50: at(500),
            p95: at(950),
            p99: at(990),
            p999: at(999),
        }
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let power = value.ilog2() - SUB_BITS;
    let index = SUB + (power as usize) * SUB + ((value >> power) as usize & (SUB - 1));
    index.min(BUCKETS - 1)
}

/// Largest value that falls into a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let (power, sub) = ((bucket - SUB) / SUB, (bucket - SUB) % SUB);
    ((SUB + sub + 1) as u64) << power
}

fn percentile(counts: &[u64], count: u64, per_mille: u64) -> u64 {
    let wanted = (count * per_mille).div_ceil(1_000).max(1);
    let mut seen = 0;
    for (index, n) in counts.iter().enumerate() {
        seen += n;
        if seen >= wanted {
            return if index < SUB { upper(index) } else { upper(index) - 1 };
        }
    }
    upper(counts.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_the_bucket_that_covers_it() {
        for value in (0..10_000).chain((3..40).flat_map(|p| [(1_u64 << p) - 1, 1 << p, (1 << p) + 1])) {
            let b = bucket(value);
            let top = if b < SUB { upper(b) } else { upper(b) - 1 };
            assert!(value <= top, "{value} in bucket {b}, whose top is {top}");
            assert!(b == 0 || value > if b - 1 < SUB { upper(b - 1) } else { upper(b - 1) - 1 }, "{value}");
            assert!(top as f64 <= value as f64 * 1.125 + 1.0, "{value} reads as {top}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_summary_is_right() {
        let h = Histogram::new();
        assert_eq!(h.summary(), Summary::default());
        for value in 1..=1_000 {
            h.add(value);
        }
        let s = h.summary();
        assert_eq!((s.count, s.sum, s.min, s.max), (1_000, 500_500, 1, 1_000));
        for (got, want) in [(s.p50, 500), (s.p95, 950), (s.p99, 990), (s.p999, 999)] {
            assert!(got >= want && got as f64 <= want as f64 * 1.125, "{got} for {want}");
        }
        h.reset();
        assert_eq!(h.summary(), Summary::default());
    }

    #[test]
    fn one_value_is_every_percentile() {
        let h = Histogram::new();
        h.add(1_234_567);
        let s = h.summary();
        assert_eq!([s.min, s.p50, s.p95, s.p99, s.p999, s.max], [1_234_567; 6]);
    }
}
