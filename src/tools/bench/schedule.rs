//! When the requests of an open loop are due: fixed times, known before the first is sent.
//!
//! - S1: request `i` is due at `start + i / rate`, whatever the server does; what cannot be sent in time is sent late, and its
//!   latency counts from the time it was due (this is what corrects coordinated omission).
//! - S2: threads share one schedule by taking every `threads`-th request; together they send each exactly once.
//! - S3: a backlog takes no memory: it is the distance between the next request and now.

/// The part of the schedule that one thread sends. Times are nanoseconds on the run's clock.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    start_ns: u64,
    until_ns: u64,
    interval_ns: f64,
    next: u64,
    step: u64,
}

impl Schedule {
    /// Thread `thread` of `threads`, at `rate` requests a second over all threads, from `start_ns` up to `until_ns`.
    pub(super) fn new(rate: f64, thread: usize, threads: usize, start_ns: u64, until_ns: u64) -> Schedule {
        assert!(rate > 0.0 && thread < threads, "a rate of nothing has no schedule");
        let interval_ns = 1e9 / rate;
        Schedule { start_ns, until_ns, interval_ns, next: thread as u64, step: threads as u64 }
    }

    /// When the next request is due; `None` when the schedule is at its end.
    pub(super) fn peek(&self) -> Option<u64> {
        let at = self.start_ns + (self.next as f64 * self.interval_ns) as u64;
        (at < self.until_ns).then_some(at)
    }

    /// Takes the next request if it is due by now; returns the time it was due.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<u64> {
        let at = self.peek().filter(|at| *at <= now_ns)?;
        self.next += self.step;
        Some(at)
    }

    /// Ends the schedule early.
    pub(super) fn cut(&mut self, until_ns: u64) {
        self.until_ns = self.until_ns.min(until_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_end_with_the_window() {
        let mut s = Schedule::new(1000.0, 0, 1, 500, 500 + 10_000_000);
        let times: Vec<u64> = std::iter::from_fn(|| s.pop(u64::MAX)).collect();
        assert_eq!(times, (0..10).map(|i| 500 + i * 1_000_000).collect::<Vec<_>>());
        assert_eq!(s.peek(), None);
    }

    #[test]
    fn nothing_is_due_early_and_a_backlog_keeps_its_times() {
        let mut s = Schedule::new(1000.0, 0, 1, 0, 1_000_000_000);
        assert_eq!(s.pop(0), Some(0));
        assert_eq!(s.pop(999_999), None);
        let late: Vec<u64> = std::iter::from_fn(|| s.pop(3_500_000)).collect();
        assert_eq!(late, [1_000_000, 2_000_000, 3_000_000]);
        assert_eq!(s.peek(), Some(4_000_000));
    }

    #[test]
    fn threads_share_the_schedule_without_gap_or_repetition() {
        let one = Schedule::new(777.0, 0, 1, 42, 1_000_000_000);
        let all: Vec<u64> = drain(one);
        let mut shared: Vec<u64> =
            (0..3).flat_map(|t| drain(Schedule::new(777.0, t, 3, 42, 1_000_000_000))).collect();
        shared.sort_unstable();
        assert_eq!(shared, all);
        assert_eq!(all.len(), 777);
    }

    #[test]
    fn a_cut_ends_it_early() {
        let mut s = Schedule::new(1000.0, 0, 1, 0, u64::MAX);
        s.cut(2_000_000);
        assert_eq!(drain(s), [0, 1_000_000]);
    }

    fn drain(mut s: Schedule) -> Vec<u64> {
        std::iter::from_fn(|| s.pop(u64::MAX)).collect()
    }
}
