//! What transactions set off: watch events, ready to be sent after the tree is let go.
//!
//! - F1: events stand in the order in which they must be sent.
//! - F2: it owns what it shows (paths, ACLs, connections): the tree may change or go.

use std::ops::Range;

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

#[derive(Debug)]
struct Record {
    event: EventType,
    zxid: Zxid,
    path: Range<usize>,
    acl: Range<usize>,
    watchers: Range<usize>,
}

/// Watch events of one or more transactions, in the order in which they must be sent. Owns all it shows; reusable.
#[derive(Debug, Default)]
pub struct Fired {
    records: Vec<Record>,
    paths: String,
    acls: Vec<u8>,
    pub(super) watchers: Vec<ConnId>,
    pub(super) mismatch: Option<DigestMismatch>,
}

/// One event and who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing<'a> {
    /// What happened.
    pub event: EventType,
    /// To which node: full path.
    pub path: &'a str,
    /// By which transaction.
    pub zxid: Zxid,
    /// READ on this decides who is told.
    pub acl: AclVec<'a>,
    /// Each connection at most once; never empty.
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
        self.records.clear();
        self.paths.clear();
        self.acls.clear();
        self.watchers.clear();
        self.mismatch = None;
    }

    /// True when no watch fired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of events, each for one or more connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The events in order.
    pub fn iter(&self) -> impl Iterator<Item = Firing<'_>> {
        self.records.iter().map(|record| Firing {
            event: record.event,
            path: &self.paths[record.path.clone()],
            zxid: record.zxid,
            acl: AclVec::of_encoded(&self.acls[record.acl.clone()]),
            watchers: &self.watchers[record.watchers.clone()],
        })
    }

    /// The last digest mismatch since [`Fired::clear`].
    #[must_use]
    pub fn digest_mismatch(&self) -> Option<DigestMismatch> {
        self.mismatch
    }

    /// Closes an event whose watchers were pushed from index `from` on; no event if there are none.
    pub(super) fn record(&mut self, event: EventType, zxid: Zxid, path: &str, acl: &[u8], from: usize) {
        if self.watchers.len() == from {
            return;
        }
        let (path_at, acl_at) = (self.paths.len(), self.acls.len());
        self.paths.push_str(path);
        self.acls.extend_from_slice(acl);
        self.records.push(Record {
            event,
            zxid,
            path: path_at..self.paths.len(),
            acl: acl_at..self.acls.len(),
            watchers: from..self.watchers.len(),
        });
    }
}
