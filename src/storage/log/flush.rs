//! Making appended records durable: owned by the stage that acknowledges, on the same thread as the appender or on another.
//!
//! Invariants:
//! - L1: after `Ok`, everything appended when the call started is durable, in every segment it lies in, oldest first.
//! - L2: a failed flush latches the log; it is never repeated.

use std::sync::Arc;

use crate::base::{LogPos, Zxid};
use crate::storage::log::LogError;
use crate::storage::log::segment::RECORDS_START;
use crate::storage::log::shared::{Cursor, Shared};

/// Moves the durable end of the log.
#[derive(Debug)]
pub struct Flusher {
    pub(super) shared: Arc<Shared>,
}

/// How far the log is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Last durable transaction (or what the log starts after).
    pub zxid: Zxid,
    /// The place behind it.
    pub pos: LogPos,
}

impl From<Cursor> for Durable {
    fn from(cursor: Cursor) -> Durable {
        Durable { zxid: cursor.zxid, pos: cursor.pos }
    }
}

impl Flusher {
    /// Makes durable everything that was appended when the call started (L1). Free when there is nothing to do.
    pub fn flush(&mut self) -> Result<Durable, LogError> {
        self.shared.check()?;
        let cursors = self.shared.cursors();
        let (from, to) = (cursors.durable.pos, cursors.appended.pos);
        if from == to {
            return Ok(cursors.durable.into());
        }
        self.shared.or_latch(self.flush_range(from, to))?;
        // Somebody else's failure may have come in between: then nothing may be acknowledged.
        self.shared.check()?;
        self.shared.publish_durable(cursors.appended);
        Ok(cursors.appended.into())
    }

    /// How far the log is durable now.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.shared.cursors().durable.into()
    }

    fn flush_range(&self, from: LogPos, to: LogPos) -> Result<(), LogError> {
        let segments = self.shared.live_from(from.segment);
        let concerned = segments.iter().take_while(|s| s.head.number <= to.segment);
        let mut last = None;
        for segment in concerned {
            let number = segment.head.number;
            let start = if number == from.segment { from.offset } else { RECORDS_START };
            let end = if number == to.segment { to.offset } else { segment.extent().end };
            if end > start {
                segment.flush(start, end)?;
            }
            last = Some(number);
        }
        assert_eq!(last, Some(to.segment), "L1: every segment up to the end is live");
        Ok(())
    }
}
