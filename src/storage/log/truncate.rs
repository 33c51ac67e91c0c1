//! Cutting the log back to a transaction: a transaction itself (rule R9).
//!
//! Invariants:
//! - T1: the caller's intent is durable before the first byte goes, and cleared after the last; recovery finishes what it finds.
//! - T2: segments go highest first, each durably, so that no crash leaves a hole; the spare goes too, for its header may vouch
//!   for places behind the cut.
//! - T3: what was cut is zeroed and synced before anything is appended: no cut record ever validates again.
//! - T4: the exact zxid must be there, else nothing is touched.
//! - T5: a log that is cut to its start still says what it starts after (`reset` Z3): its anchor stays, or is made.

use std::io;
use std::sync::Arc;

use crate::base::Zxid;
use crate::storage::log::format::{Chain, RecordKind};
use crate::storage::log::reset;
use crate::storage::log::segment::{FileName, RECORDS_START, Segment};
use crate::storage::log::shared::{Cursor, Shared};
use crate::storage::log::{Appender, Flusher, LogError, LogReader};

/// Writes the pending truncation or reset durably (`Some`) or clears it (`None`): the superblock's part. It must also forget a
/// clean-stop place, which may lie behind the cut.
pub type IntentStore<'a> = dyn FnMut(Option<Zxid>) -> io::Result<()> + 'a;

impl Appender {
    /// Cuts everything after `to`, which must be in the log (or be what it starts after). `NotFound` changed nothing; after any
    /// other error the process must stop, and the next start finishes the cut.
    pub fn truncate(
        &mut self,
        flusher: &mut Flusher,
        to: Zxid,
        intent: &mut IntentStore<'_>,
    ) -> Result<(), LogError> {
        assert!(Arc::ptr_eq(&self.shared, &flusher.shared), "both halves of one log");
        flusher.flush()?;
        let shared = Arc::clone(&self.shared);
        let _salts = shared.maintenance();
        let Some(mut cut) = find(&shared, to)? else { return Err(LogError::NotFound { zxid: to }) };
        let mut store =
            |zxid| intent(zxid).map_err(|e| LogError::io("store truncation intent", &shared.dir, e));
        shared.or_latch(store(Some(to)))?;
        shared.or_latch(cut.carry_out(&shared))?;
        shared.or_latch(store(None))?;
        self.restart(cut.end, cut.chain);
        assert_eq!(self.last_zxid(), to, "cut at the exact place");
        Ok(())
    }
}

/// Where a truncation cuts.
struct Cut {
    segment: Arc<Segment>,
    /// Offset behind the last record that stays.
    end: u64,
    chain: Chain,
}

impl Cut {
    fn carry_out(&mut self, shared: &Shared) -> Result<(), LogError> {
        let number = self.segment.head.number;
        shared.reset_cursors(Cursor { pos: self.segment.pos(self.end), zxid: self.chain.zxid });
        shared.retire_above(number)?;
        remove_above(shared, number)?;
        self.segment.change_extent(|e| e.cut(self.end, self.chain.zxid));
        self.segment.zero_from(self.end)?;
        if reset::needs_anchor(self.end, self.chain) {
            (self.end, self.chain) = reset::anchor(&self.segment, self.chain)?;
            let to = Cursor { pos: self.segment.pos(self.end), zxid: self.chain.zxid };
            shared.publish_appended(to);
            shared.publish_durable(to);
        }
        Ok(())
    }
}

/// The place behind `to`.
fn find(shared: &Arc<Shared>, to: Zxid) -> Result<Option<Cut>, LogError> {
    let base = shared.base();
    let reader = LogReader::new(Arc::clone(shared));
    if to == base.zxid {
        let segment = shared.live_from(0).remove(0);
        return Ok(Some(match reader.after(to)?.step()? {
            Some((offset, head)) if head.kind == RecordKind::Mark && head.zxid == to => {
                Cut { segment, end: offset + head.record_bytes(), chain: head.chain() }
            }
            _ => Cut { segment, end: RECORDS_START, chain: base },
        }));
    }
    let mut cursor = match reader.from(to) {
        Err(LogError::Compacted { .. }) => return Ok(None),
        other => other?,
    };
    while let Some((offset, head)) = cursor.step()? {
        if head.zxid == to {
            let end = offset + head.record_bytes();
            return Ok(Some(Cut { segment: Arc::clone(cursor.segment()), end, chain: head.chain() }));
        }
        if head.zxid > to {
            break;
        }
    }
    Ok(None)
}

/// Removes segment files above `number` that no one holds: a spare whose making failed halfway.
fn remove_above(shared: &Shared, number: u64) -> Result<(), LogError> {
    let names = shared.vfs.list(&shared.dir).map_err(|e| LogError::io("list", &shared.dir, e))?;
    for name in names {
        if matches!(FileName::parse(&name), Some(FileName::Segment(n)) if n > number) {
            let path = shared.dir.join(&name);
            shared.vfs.remove(&path).map_err(|e| LogError::io("remove segment", &path, e))?;
            shared.vfs.sync_dir(&shared.dir).map_err(|e| LogError::io("sync directory", &shared.dir, e))?;
        }
    }
    Ok(())
}
