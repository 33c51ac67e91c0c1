//! What transactions set off.

use crate::base::{ConnId, Zxid};
use crate::wire::AclVec;
use crate::wire::reply::EventType;

/// A transaction whose digest is not the tree's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestMismatch {
    /// The transaction.
    pub zxid: Zxid,
    /// Digest it carried.
    pub expected: u64,
    /// Digest of the tree after it.
    pub found: u64,
}

/// Watch events of one or more transactions, in the order in which they must be sent. Owns all it shows; reusable.
#[derive(Debug, Default)]
pub struct Fired {}

/// One event and who gets it.
#[derive(Clone, Copy, Debug)]
pub struct Firing<'a> {
    /// What happened.
    pub event: EventType,
    /// To which node: full path.
    pub path: &'a str,
    /// By which transaction.
    pub zxid: Zxid,
    /// READ on this decides who is told.
    pub acl: AclVec<'a>,
    /// Each connection at most once.
    pub watchers: &'a [ConnId],
}

impl Fired {
    /// Nothing fired yet.
    #[must_use]
    pub fn new() -> Fired {
        Fired::default()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        unimplemented!()
    }

    /// True when no watch fired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// The events in order.
    pub fn iter(&self) -> impl Iterator<Item = Firing<'_>> {
        std::iter::empty()
    }

    /// The last digest mismatch since [`Fired::clear`].
    #[must_use]
    pub fn digest_mismatch(&self) -> Option<DigestMismatch> {
        unimplemented!()
    }
}
