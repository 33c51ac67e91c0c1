//! Background work on segments: the next spare made ready, old segments retired. For a thread of its own.
//!
//! Invariants:
//! - B1: appending never waits for this unless a segment is used up before the next one is ready.
//! - B2: purge takes whole segments, oldest first, each durably gone before the next: a crash leaves no hole.

use std::sync::Arc;

use crate::base::Zxid;
use crate::storage::log::LogError;
use crate::storage::log::shared::Shared;

/// Keeps one spare segment ready and retires old ones.
#[derive(Debug)]
pub struct SpareMaker {
    pub(super) shared: Arc<Shared>,
}

impl SpareMaker {
    /// Makes the next segment unless one is ready; true when it was made. Recycles a retired file when there is one.
    /// `NoSpace` changed nothing: call again later.
    pub fn prepare_if_needed(&mut self) -> Result<bool, LogError> {
        self.shared.check()?;
        let mut salts = self.shared.maintenance();
        self.shared.or_latch(self.shared.make_ready(&mut salts))
    }

    /// Retires every segment whose records are all below `below`, and returns how many. Never the one being appended to, nor
    /// one that is not durable. The caller guarantees that a verified snapshot covers what goes (R15).
    pub fn purge(&mut self, below: Zxid) -> Result<usize, LogError> {
        self.shared.check()?;
        let _salts = self.shared.maintenance();
        let durable = self.shared.cursors().durable.pos;
        let mut count = 0;
        while self
            .shared
            .or_latch(self.shared.retire_oldest(|oldest| {
                oldest.head.number < durable.segment && oldest.extent().last < below
            }))?
        {
            count += 1;
        }
        Ok(count)
    }
}
