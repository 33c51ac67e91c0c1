//! How far a member is: four zxids, changed here alone.
//!
//! - PO1: applied ≤ committed, and applied ≤ durable ≤ appended (rule R4). Each change asserts it.
//! - PO2: what is committed is never cut: a peer that asks for it has another history, and that is an error, not an order.

use crate::base::Zxid;

/// A cut or a replacement would lose what is known to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{committed} is committed here, and would be lost by going back to {to}")]
pub struct CommittedLost {
    /// Committed.
    pub committed: Zxid,
    /// Where history was to end.
    pub to: Zxid,
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    appended: Zxid,
    durable: Zxid,
    committed: Zxid,
    applied: Zxid,
}

impl Positions {
    /// At a start: the log ends at `last`, durably; the tree holds what is known to be committed.
    #[must_use]
    pub fn new(last: Zxid, applied: Zxid) -> Positions {
        assert!(applied <= last, "PO1: nothing is applied that is not logged");
        Positions { appended: last, durable: last, committed: applied, applied }
    }

    /// The last transaction in the log.
    #[must_use]
    pub const fn appended(&self) -> Zxid {
        self.appended
    }

    /// The last that survives a crash.
    #[must_use]
    pub const fn durable(&self) -> Zxid {
        self.durable
    }

    /// The last known to be committed.
    #[must_use]
    pub const fn committed(&self) -> Zxid {
        self.committed
    }

    /// The last in the tree.
    #[must_use]
    pub const fn applied(&self) -> Zxid {
        self.applied
    }

    /// The last that may be applied.
    #[must_use]
    pub fn applicable(&self) -> Zxid {
        self.committed.min(self.durable)
    }

    /// Everything in the log survives a crash.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.appended == self.durable
    }

    /// The log has grown to `zxid`.
    pub fn append(&mut self, zxid: Zxid) {
        assert!(zxid > self.appended, "zxids grow");
        self.appended = zxid;
    }

    /// A flush has returned.
    pub fn flush(&mut self, zxid: Zxid) {
        assert!(self.durable <= zxid && zxid <= self.appended, "PO1: durable follows appended");
        self.durable = zxid;
    }

    /// It has become known that everything up to `zxid`, which is in the log, is committed.
    pub fn commit(&mut self, zxid: Zxid) {
        assert!(zxid <= self.appended, "the log has what is committed");
        self.committed = self.committed.max(zxid);
    }

    /// The tree holds everything up to `zxid`.
    pub fn apply(&mut self, zxid: Zxid) {
        assert!(
            self.applied <= zxid && zxid <= self.applicable(),
            "PO1: applied follows committed and durable"
        );
        self.applied = zxid;
    }

    /// The tree is one as of `zxid` again.
    pub fn apply_again_from(&mut self, zxid: Zxid) {
        assert!(zxid <= self.applied, "PO1: what was not applied is not applied again");
        self.applied = zxid;
    }

    /// May the log be cut behind `to`, or be replaced by a state at `to`?
    pub fn may_go_back(&self, to: Zxid) -> Result<(), CommittedLost> {
        let committed = self.committed;
        if to < committed { Err(CommittedLost { committed, to }) } else { Ok(()) }
    }

    /// The log was cut behind `to`.
    pub fn cut(&mut self, to: Zxid) {
        assert!(self.may_go_back(to).is_ok() && to <= self.durable, "PO2");
        (self.appended, self.durable) = (to, to);
    }

    /// Log and tree were replaced by a committed state at `to`.
    pub fn replace(&mut self, to: Zxid) {
        assert!(self.may_go_back(to).is_ok(), "PO2");
        *self = Positions::new(to, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_applied_before_it_is_both_durable_and_committed() {
        let mut p = Positions::new(Zxid(5), Zxid(3));
        assert_eq!((p.committed(), p.applicable()), (Zxid(3), Zxid(3)), "the tail waits for a leader's word");
        p.commit(Zxid(5));
        p.append(Zxid(7));
        p.commit(Zxid(7));
        assert_eq!((p.applicable(), p.is_flushed()), (Zxid(5), false));
        p.flush(Zxid(7));
        p.apply(Zxid(7));
        assert_eq!(p.applied(), Zxid(7));
    }

    #[test]
    fn what_is_committed_is_never_cut() {
        let mut p = Positions::new(Zxid(5), Zxid(3));
        assert_eq!(p.may_go_back(Zxid(2)), Err(CommittedLost { committed: Zxid(3), to: Zxid(2) }));
        p.cut(Zxid(4));
        assert_eq!((p.appended(), p.durable(), p.applied()), (Zxid(4), Zxid(4), Zxid(3)));
        p.replace(Zxid(9));
        assert_eq!((p.appended(), p.applied()), (Zxid(9), Zxid(9)));
    }

    #[test]
    #[should_panic(expected = "PO1")]
    fn applying_beyond_what_is_committed_is_a_bug() {
        Positions::new(Zxid(5), Zxid(3)).apply(Zxid(4));
    }
}
