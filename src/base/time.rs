//! Two clocks that never mix: wall time goes into records, monotonic time decides. Both come in as arguments.

/// Milliseconds since 1970 by the wall clock: goes into transaction headers (ctime, mtime), decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallMs(pub i64);

/// Milliseconds since an arbitrary start by the monotonic clock: session expiry and every deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonoMs(pub u64);

impl MonoMs {
    /// `ms` later, saturating.
    #[must_use]
    pub const fn plus(self, ms: u64) -> MonoMs {
        MonoMs(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 if that is in the future.
    #[must_use]
    pub const fn since(self, earlier: MonoMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
