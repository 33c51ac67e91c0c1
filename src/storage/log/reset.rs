//! Replacing the log by an empty one that starts after a zxid whose whole state has come from elsewhere: a transaction itself, as
//! truncation is (rules R7, R9).
//!
//! Invariants:
//! - Z1: the caller's intent is durable before the first file goes, and cleared after the last; recovery finishes what it finds.
//! - Z2: the new segment is there, under the next number, before the old ones go, oldest first, each durably: no crash leaves a
//!   hole, no lack of space leaves half a log, and positions never go back. Its salt is new and its space zeroed, so no old
//!   record validates in it.
//! - Z3: an empty log says what it starts after, by a mark that is durable before anything relies on it (*anchor*): an older
//!   snapshot alone can then not pass for the whole state.
//! - Z4: readers from before learn it by the generation, as with truncation (E3).

use std::sync::Arc;

use crate::base::Zxid;
use crate::storage::log::format::{self, Chain, RECORD_HEAD_BYTES, RecordHead, RecordKind};
use crate::storage::log::segment::{Extent, RECORDS_START, Segment};
use crate::storage::log::shared::Shared;
use crate::storage::log::{Appender, Flusher, IntentStore, LogError};

impl Appender {
    /// Discards all records and goes on behind `base`. The caller guarantees that a verified snapshot holds the whole state at
    /// `base` and that no other one holds anything later (R3).
    ///
    /// # Errors
    /// `NoSpace` changed nothing; after any other error the process must stop, and the next start finishes the replacement.
    pub fn reset(
        &mut self,
        flusher: &mut Flusher,
        base: Zxid,
        intent: &mut IntentStore<'_>,
    ) -> Result<(), LogError> {
        assert!(Arc::ptr_eq(&self.shared, &flusher.shared), "both halves of one log");
        let shared = Arc::clone(&self.shared);
        shared.check()?;
        let mut salts = shared.maintenance();
        shared.or_latch(shared.make_ready(&mut salts))?;
        let mut store = |zxid| intent(zxid).map_err(|e| LogError::io("store reset intent", &shared.dir, e));
        shared.or_latch(store(Some(base)))?;
        let (end, chain) = shared.or_latch(replace(&shared, base))?;
        shared.or_latch(store(None))?;
        self.restart(end, chain);
        assert_eq!((self.last_zxid(), shared.base().zxid), (base, base), "nothing before, nothing behind");
        Ok(())
    }
}

/// Makes the ready spare the only segment, and returns where its anchor ends.
fn replace(shared: &Shared, base: Zxid) -> Result<(u64, Chain), LogError> {
    let before = Chain { zxid: base, crc: 0 };
    let first = shared.take_spare().expect("made under the maintenance lock, which the caller holds");
    let (end, chain) = anchor(&first, before)?;
    shared.replace_segments(first, end)?;
    Ok((end, chain))
}

/// Writes the mark that names what an empty log starts after (Z3), durably; returns where the next record goes and what it follows.
pub(super) fn anchor(segment: &Segment, before: Chain) -> Result<(u64, Chain), LogError> {
    let head =
        RecordHead { crc: 0, zxid: before.zxid, prev: before, watermark: 0, len: 0, kind: RecordKind::Mark };
    let mut record = [0u8; RECORD_HEAD_BYTES];
    let chain = format::seal_record(&mut record, &head, segment.head.salt, RECORDS_START);
    let end = RECORDS_START + RECORD_HEAD_BYTES as u64;
    segment.write(RECORDS_START, &record)?;
    segment.flush(RECORDS_START, end)?;
    segment.change_extent(|extent| {
        assert_eq!(extent.end, RECORDS_START, "an anchor comes before all records");
        *extent = Extent::empty(before);
        extent.push(before.zxid, RECORDS_START, end);
    });
    Ok((end, chain))
}

/// True for a log that could not say what it starts after: empty, and not from the very beginning.
pub(super) fn needs_anchor(end: u64, chain: Chain) -> bool {
    end == RECORDS_START && chain.zxid > Zxid::ZERO
}
