//! Which way a learner is brought up to date: found in the two histories, never in the bounds of a cache (rule R6).
//!
//! What is relied on, and what discovery and broadcast make true: one leader per epoch, and a transaction of its epoch is logged by nobody
//! who does not have the leader's whole history before it. So two logs that hold the same zxid are equal up to it.

use crate::base::{Epoch, Zxid};

/// What a leader knows of its own log.
pub trait History {
    /// What the first record of the log follows: everything up to it is in snapshots only.
    fn base(&self) -> Zxid;
    /// The last record at or below `zxid`, or the base. `zxid` is not below the base.
    fn floor(&self, zxid: Zxid) -> Zxid;
    /// The epoch last entered: its history was taken over in whole, whether or not anything has been logged in it since.
    fn epoch(&self) -> Epoch;
}

/// What is sent to a learner in front of NEWLEADER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Every record behind `after`, which the learner has and nothing behind it.
    Diff {
        /// A record of the leader's log, or its base.
        after: Zxid,
    },
    /// The learner cuts everything behind `to`, then gets every record behind it. A learner that does not have `to` itself cuts behind the
    /// greatest it has below (all, if even its snapshots are behind it), and comes again with that: to go on from a record that is not there
    /// would be a guess. Each time it has less, so this ends.
    Trunc {
        /// A record of the leader's log, or, for a learner that says when it has no such place, its base.
        to: Zxid,
    },
    /// The whole state.
    Snap,
}

/// Plans for a learner whose last zxid is `theirs`.
///
/// A learner may report the bare beginning of an epoch (counter 0), for which there is no record: ZooKeeper's do, when they have entered the epoch and
/// logged nothing in it. Then they have exactly what its leader began with.
///
/// `zabra`: a learner that comes again when it does not have the place it is to cut at, and refuses to cut what it knows to be committed. A whole state
/// in place of a history that this one lacks would take that from it unseen.
#[must_use]
pub fn plan(mine: &impl History, theirs: Zxid, zabra: bool) -> Plan {
    let base = mine.base();
    if theirs < base {
        return Plan::Snap;
    }
    let common = mine.floor(theirs);
    if common == theirs {
        return Plan::Diff { after: common };
    }
    if common > theirs {
        // The log was purged meanwhile.
        return Plan::Snap;
    }
    if theirs.counter() == 0 {
        return if has_entered(mine, theirs.epoch()) { Plan::Diff { after: common } } else { Plan::Snap };
    }
    // That the learner has the base is not known: it is no record here, so it may be none there.
    if common == base && !zabra { Plan::Snap } else { Plan::Trunc { to: common } }
}

/// Is what the leader of `epoch` began with a beginning of my history? What is below `epoch` in it then is exactly that.
fn has_entered(mine: &impl History, epoch: Epoch) -> bool {
    epoch == mine.epoch() || mine.floor(Zxid::new(epoch, u32::MAX)).epoch() == epoch
}

#[cfg(test)]
mod tests;
