//! How fast the disk makes the log durable.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::server::Shared;
use crate::server::stats::micros;

/// A flush slower than this, on average, µs, is left to a thread of its own: whoever waited for it would keep readers and heartbeats waiting.
/// A faster one costs less than the hand-over.
const SLOW_US: u64 = 400;

/// The average of the last flushes.
#[derive(Debug, Default)]
pub(crate) struct FlushPace {
    average_us: u64,
}

impl FlushPace {
    /// Counts a flush, and warns of one that took long.
    pub(crate) fn note(&mut self, shared: &Shared, took: Duration) {
        let us = micros(took);
        self.average_us = (self.average_us * 7 + us) / 8;
        shared.stats.fsync_us.add(us);
        if us / 1_000 > shared.config.log.flush_warning_ms {
            shared.stats.fsync_threshold_exceeded.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(us, "the disk took long to flush the log (fsync.warningthresholdms)");
        }
    }

    /// The next flush is one to hand over.
    pub(crate) const fn is_slow(&self) -> bool {
        self.average_us > SLOW_US
    }
}
