//! Appending: owned by the stage that prepares transactions. One group, one copy into the segment, no waiting for the disk.
//!
//! Invariants:
//! - A1: a group is appended whole or not at all; it never spans two segments.
//! - A2: `NoSpace`, `GroupTooLarge` and `OutOfOrder` changed nothing: the next append continues the same chain.
//! - A3: a record's watermark never exceeds what was durable when it was appended.

use std::sync::Arc;

use crate::base::{LogPos, Zxid};
use crate::storage::log::format::{self, Chain, RECORD_HEAD_BYTES, RecordHead, RecordKind};
use crate::storage::log::segment::{RECORDS_START, Segment};
use crate::storage::log::shared::{Cursor, Shared};
use crate::storage::log::{Group, LogError};

/// The end of the log that grows.
#[derive(Debug)]
pub struct Appender {
    pub(super) shared: Arc<Shared>,
    active: Arc<Segment>,
    offset: u64,
    chain: Chain,
    /// Watermark of the last record: a mark that would not raise it is not written.
    watermark: LogPos,
}

impl Appender {
    pub(super) fn new(shared: Arc<Shared>, offset: u64, chain: Chain) -> Appender {
        let active = shared.active();
        Appender { shared, active, offset, chain, watermark: LogPos::default() }
    }

    /// Appends `group` and returns the place behind it. It is durable once a flush returned a place that is not before that.
    ///
    /// Errors: `NoSpace` (a new segment is needed and cannot be made; works again once there is room), `GroupTooLarge`,
    /// `OutOfOrder`: nothing was changed. `Io`, `Latched`: the process must stop.
    pub fn append(&mut self, group: &mut Group) -> Result<LogPos, LogError> {
        self.shared.check()?;
        let (Some(first), Some(last)) = (group.first_zxid(), group.last_zxid()) else {
            return Ok(self.active.pos(self.offset));
        };
        if first <= self.chain.zxid {
            return Err(LogError::OutOfOrder { last: self.chain.zxid, found: first });
        }
        let bytes = group.bytes() as u64;
        if bytes > self.group_bytes_max() {
            return Err(LogError::GroupTooLarge { bytes, bytes_max: self.group_bytes_max() });
        }
        self.make_room(bytes)?;
        let watermark = self.watermark_now();
        let chain = group.seal(self.active.head.salt, self.offset, self.chain, watermark);
        let places = group.places().map(|(zxid, at)| (zxid, self.offset + at));
        let result = write(&self.active, self.offset, group.sealed_bytes(), places);
        self.shared.or_latch(result)?;
        self.advance(bytes, chain);
        assert_eq!(self.chain.zxid, last, "A1: the whole group");
        Ok(self.active.pos(self.offset))
    }

    /// Appends a record that carries nothing but the watermark, when that has moved since the last record and there is room:
    /// cheap evidence that what came before once was durable. Call it when idle; it needs no flush of its own.
    /// Returns whether one was written.
    pub fn mark(&mut self) -> Result<bool, LogError> {
        self.shared.check()?;
        let room = self.active.bytes() - self.offset >= RECORD_HEAD_BYTES as u64;
        let durable = self.shared.cursors().durable.pos;
        if !room || self.offset == RECORDS_START || durable <= self.watermark {
            return Ok(false);
        }
        let watermark = self.watermark_now();
        let head = RecordHead {
            crc: 0,
            zxid: self.chain.zxid,
            prev: self.chain,
            watermark,
            len: 0,
            kind: RecordKind::Mark,
        };
        let mut record = [0u8; RECORD_HEAD_BYTES];
        let chain = format::seal_record(&mut record, &head, self.active.head.salt, self.offset);
        let result = write(&self.active, self.offset, &record, std::iter::once((head.zxid, self.offset)));
        self.shared.or_latch(result)?;
        self.advance(RECORD_HEAD_BYTES as u64, chain);
        Ok(true)
    }

    /// zxid of the last record appended (or of what the log starts after).
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.chain.zxid
    }

    /// What the first record of the log follows: everything up to here is not in the log.
    #[must_use]
    pub fn base(&self) -> Zxid {
        self.shared.base().zxid
    }

    /// Most bytes ([`Group::bytes`]) that one group may have.
    #[must_use]
    pub fn group_bytes_max(&self) -> u64 {
        self.shared.options.segment_bytes - RECORDS_START
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), LogError> {
        if self.offset + bytes <= self.active.bytes() {
            return Ok(());
        }
        let next = self.shared.or_latch(self.shared.rotate(self.chain))?;
        assert_eq!(next.head.number, self.active.head.number + 1, "segments follow each other");
        self.active = next;
        self.offset = RECORDS_START;
        Ok(())
    }

    /// What a record appended now may claim to be durable in its own segment (A3).
    fn watermark_now(&mut self) -> u32 {
        let cursors = self.shared.cursors();
        let durable = cursors.durable.pos;
        self.watermark = durable;
        let claim = if durable.segment == self.active.head.number {
            durable.offset
        } else if durable == cursors.appended.pos {
            RECORDS_START
        } else {
            0
        };
        assert!(claim <= self.offset, "A3");
        u32::try_from(claim).expect("a segment is shorter than 4 GiB")
    }

    fn advance(&mut self, bytes: u64, chain: Chain) {
        self.offset += bytes;
        self.chain = chain;
        self.shared.publish_appended(Cursor { pos: self.active.pos(self.offset), zxid: chain.zxid });
    }

    /// Truncation's and reset's own: continues at `offset` of what is now the active segment.
    pub(super) fn restart(&mut self, offset: u64, chain: Chain) {
        *self = Appender::new(Arc::clone(&self.shared), offset, chain);
    }
}

/// Stores sealed records and notes their places.
fn write(
    segment: &Segment,
    offset: u64,
    bytes: &[u8],
    places: impl Iterator<Item = (Zxid, u64)>,
) -> Result<(), LogError> {
    segment.write(offset, bytes)?;
    let end = offset + bytes.len() as u64;
    segment.change_extent(|extent| {
        let mut places = places.peekable();
        while let Some((zxid, at)) = places.next() {
            extent.push(zxid, at, places.peek().map_or(end, |next| next.1));
        }
    });
    Ok(())
}
