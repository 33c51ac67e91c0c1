//! Reading the running log: any number of readers, durable records only, by zxid.
//!
//! Invariants:
//! - E1: nothing beyond the durable end is ever shown, and nothing twice or out of order.
//! - E2: every record is checked again when it is read: rot since it was written is an error, never a wrong record.
//! - E3: a cursor that truncation overtook says so; one that purge overtook says so.

use std::sync::Arc;

use crate::base::{LogPos, Zxid};
use crate::storage::log::LogError;
use crate::storage::log::format::{self, RECORD_HEAD_BYTES, RecordHead, RecordKind};
use crate::storage::log::segment::{RECORDS_START, Segment};
use crate::storage::log::shared::Shared;

/// Bytes read at once: larger than the index stride, so that finding a zxid is mostly one read.
const CHUNK_BYTES: u64 = 128 << 10;

/// Reads the log. Clones are cheap and independent.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared }
    }

    /// The durable records with a zxid of at least `zxid`. `Compacted` when records from there on may have been purged.
    pub fn from(&self, zxid: Zxid) -> Result<LogCursor, LogError> {
        let base = self.base();
        if zxid <= base {
            return Err(LogError::Compacted { base });
        }
        let generation = self.shared.generation();
        let segment = self.shared.segment_for(zxid).ok_or(LogError::Compacted { base })?;
        let offset = segment.extent().seek(zxid);
        let shared = Arc::clone(&self.shared);
        Ok(LogCursor { shared, generation, segment, offset, wanted: zxid, chunk: Vec::new(), chunk_at: 0 })
    }

    /// The durable records after `zxid`: what a snapshot of that zxid lacks.
    pub fn after(&self, zxid: Zxid) -> Result<LogCursor, LogError> {
        self.from(Zxid(zxid.0.saturating_add(1)))
    }

    /// The last durable transaction at or below `zxid`, or what the log starts after if there is none.
    pub fn floor(&self, zxid: Zxid) -> Result<Zxid, LogError> {
        let base = self.base();
        if zxid <= base {
            return Ok(base);
        }
        let Some(segment) = self.shared.segment_for(Zxid(zxid.0.saturating_add(1))) else { return Ok(base) };
        let mut found = segment.extent().before.zxid;
        let offset = segment.extent().seek(zxid);
        let (shared, generation) = (Arc::clone(&self.shared), self.shared.generation());
        let wanted = Zxid::ZERO;
        let mut cursor =
            LogCursor { shared, generation, segment, offset, wanted, chunk: Vec::new(), chunk_at: 0 };
        while let Some((at, _)) = cursor.next()?.filter(|(at, _)| *at <= zxid) {
            found = at;
        }
        Ok(found.max(base))
    }

    /// True when exactly this transaction is in the log, durably.
    pub fn contains(&self, zxid: Zxid) -> Result<bool, LogError> {
        if zxid <= self.base() || zxid > self.last_zxid() {
            return Ok(false);
        }
        match self.from(zxid) {
            // Purged in between.
            Err(LogError::Compacted { .. }) => Ok(false),
            cursor => Ok(cursor?.next()?.is_some_and(|(found, _)| found == zxid)),
        }
    }

    /// Last durable transaction (or what the log starts after).
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.shared.durable_zxid()
    }

    /// First durable transaction; `None` when there is none.
    pub fn first_zxid(&self) -> Result<Option<Zxid>, LogError> {
        Ok(self.after(self.base())?.next()?.map(|(zxid, _)| zxid))
    }

    /// What the first record follows: everything up to here is not in the log.
    #[must_use]
    pub fn base(&self) -> Zxid {
        self.shared.base().zxid
    }
}

/// A place in the durable log that moves forward. Not an iterator: what it yields is borrowed from its buffer.
#[derive(Debug)]
pub struct LogCursor {
    shared: Arc<Shared>,
    generation: u64,
    segment: Arc<Segment>,
    /// Where the next record starts.
    offset: u64,
    /// Records before this zxid are passed over.
    wanted: Zxid,
    /// Bytes of the segment from `chunk_at` on.
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl LogCursor {
    /// The next transaction and its payload; `None` at the durable end (more may come later).
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend from its own buffer")]
    pub fn next(&mut self) -> Result<Option<(Zxid, &[u8])>, LogError> {
        while let Some((offset, head)) = self.step()? {
            if head.kind == RecordKind::Txn && head.zxid >= self.wanted {
                let start = (offset - self.chunk_at) as usize + RECORD_HEAD_BYTES;
                return Ok(Some((head.zxid, &self.chunk[start..start + head.len as usize])));
            }
        }
        Ok(None)
    }

    /// The next record of any kind: where it starts, and its head. The whole record is then in `chunk`.
    pub(super) fn step(&mut self) -> Result<Option<(u64, RecordHead)>, LogError> {
        let Some(limit) = self.find_limit()? else { return Ok(None) };
        let offset = self.offset;
        match self.load(offset, limit) {
            Ok(Some(head)) => {
                self.offset += head.record_bytes();
                Ok(Some((offset, head)))
            }
            // Truncation zeroes what it cuts: say so rather than calling it damage.
            _ if self.generation != self.shared.generation() => Err(LogError::Truncated),
            Ok(None) => Err(LogError::Damaged { pos: self.pos(), path: self.segment.path.clone() }),
            Err(e) => Err(e),
        }
    }

    /// Segment number of what `step` returned last.
    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    fn pos(&self) -> LogPos {
        self.segment.pos(self.offset)
    }

    /// The durable end in the segment of the next record; moves to the next segment at the end of one. `None` at the end.
    fn find_limit(&mut self) -> Result<Option<u64>, LogError> {
        loop {
            let durable = self.shared.cursors().durable.pos;
            if self.generation != self.shared.generation() {
                return Err(LogError::Truncated);
            }
            let number = self.segment.head.number;
            let limit = if number < durable.segment { self.segment.extent().end } else { durable.offset };
            if number > durable.segment || (number == durable.segment && self.offset >= limit) {
                return Ok(None);
            }
            if self.offset < limit {
                return Ok(Some(limit));
            }
            self.enter_next(number)?;
        }
    }

    fn enter_next(&mut self, number: u64) -> Result<(), LogError> {
        let next = self.shared.segment_after(number).filter(|s| s.head.number == number + 1);
        self.segment = next.ok_or_else(|| LogError::Compacted { base: self.shared.base().zxid })?;
        self.offset = RECORDS_START;
        self.chunk.clear();
        Ok(())
    }

    /// Reads the record at `offset`, whole, into `chunk`; `None` when there is no whole record.
    fn load(&mut self, offset: u64, limit: u64) -> Result<Option<RecordHead>, LogError> {
        let salt = self.segment.head.salt;
        if !self.fill(offset, RECORD_HEAD_BYTES as u64, limit)? {
            return Ok(None);
        }
        let Some(head) = format::parse_head(self.at(offset, RECORD_HEAD_BYTES as u64), salt, offset) else {
            return Ok(None);
        };
        if !self.fill(offset, head.record_bytes(), limit)? {
            return Ok(None);
        }
        let whole = format::record_is_whole(self.at(offset, head.record_bytes()), &head, salt, offset);
        Ok(whole.then_some(head))
    }

    fn at(&self, offset: u64, len: u64) -> &[u8] {
        let start = (offset - self.chunk_at) as usize;
        &self.chunk[start..start + len as usize]
    }

    /// Brings `len` bytes at `offset` into the buffer; false when they would pass `limit`.
    fn fill(&mut self, offset: u64, len: u64, limit: u64) -> Result<bool, LogError> {
        if offset + len > limit {
            return Ok(false);
        }
        let held = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if held.contains(&offset) && offset + len <= held.end {
            return Ok(true);
        }
        let end = limit.min(offset + len.max(CHUNK_BYTES));
        self.chunk.resize((end - offset) as usize, 0);
        self.chunk_at = offset;
        if let Err(e) = self.segment.read(offset, &mut self.chunk) {
            self.chunk.clear();
            return Err(e);
        }
        Ok(true)
    }
}
