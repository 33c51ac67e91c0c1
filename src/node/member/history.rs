//! This server's history as a plan sees it, and as it is applied.

use std::cell::RefCell;

use super::Member;
use crate::base::{Epoch, Zxid};
use crate::storage::log::{LogError, LogReader};
use crate::zab::{History, Plan, Positions, plan};

/// The log, durable or not.
struct Mine<'a> {
    reader: &'a LogReader,
    positions: &'a Positions,
    epoch: Epoch,
    error: RefCell<Option<LogError>>,
}

impl History for Mine<'_> {
    fn base(&self) -> Zxid {
        self.reader.base()
    }

    fn floor(&self, zxid: Zxid) -> Zxid {
        let (durable, appended) = (self.positions.durable(), self.positions.appended());
        if zxid > durable {
            // Behind the durable end there are only proposals of the epoch that this server leads: one after the other.
            let last = zxid.min(appended);
            let is_record = last > durable && last.epoch() == appended.epoch() && last.counter() > 0;
            return if is_record { last } else { durable };
        }
        self.reader.floor(zxid).unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            self.reader.base()
        })
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Member {
    /// How a learner at `theirs` is brought up to date.
    pub(super) fn plan_for(&self, theirs: Zxid, zabra: bool) -> Result<Plan, LogError> {
        let mine = Mine {
            reader: &self.storage.reader,
            positions: &self.positions,
            epoch: self.epochs().1,
            error: RefCell::new(None),
        };
        let plan = plan(&mine, theirs, zabra);
        match mine.error.into_inner() {
            // Purged meanwhile: the whole state will do.
            Some(LogError::Compacted { .. }) => Ok(Plan::Snap),
            Some(error) => Err(error),
            None => Ok(plan),
        }
    }

    /// What may be applied now.
    pub(super) fn may_apply(&self) -> Zxid {
        self.positions.applicable()
    }

    /// Applies from memory what is there, and from the log what is not.
    pub(super) fn apply_some<E>(
        &mut self,
        txns_max: usize,
        mut apply: impl FnMut(Zxid, &[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (from, upto) = (self.positions.applied(), self.may_apply());
        let (mut count, mut last) = (0, from);
        if from >= self.recent.after() {
            for (zxid, payload) in self.recent.records(from, upto).take(txns_max) {
                apply(zxid, payload)?;
                (count, last) = (count + 1, zxid);
            }
        } else {
            match self.apply_from_log(upto.min(self.recent.after()), txns_max, apply) {
                Ok(applied) => (count, last) = applied?,
                Err(error) => {
                    self.fail(error.into());
                    return Ok(0);
                }
            }
        }
        assert!(count > 0, "what may be applied is in memory or in the log");
        self.positions.apply(last);
        self.recent.applied(last);
        Ok(count)
    }

    /// The outer error is the log's, the inner one `apply`'s.
    fn apply_from_log<E>(
        &self,
        upto: Zxid,
        txns_max: usize,
        mut apply: impl FnMut(Zxid, &[u8]) -> Result<(), E>,
    ) -> Result<Result<(usize, Zxid), E>, LogError> {
        let mut last = self.positions.applied();
        let mut cursor = self.storage.reader.after(last)?;
        let mut count = 0;
        while count < txns_max
            && let Some((zxid, payload)) = cursor.next()?
            && zxid <= upto
        {
            if let Err(error) = apply(zxid, payload) {
                return Ok(Err(error));
            }
            (count, last) = (count + 1, zxid);
        }
        Ok(Ok((count, last)))
    }
}
