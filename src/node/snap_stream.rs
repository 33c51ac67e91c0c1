//! The stream that follows a SNAP packet: a whole tree, on its way from a leader to a learner, in ZooKeeper's form.
//!
//! ```text
//! int n, n × (long session, int timeout in ms)
//! int n, n × (long number, vector<ACL>)
//! nodes: ustring path ("" for the root), buffer data, long number of the ACL, StatPersisted
//! ustring "/"
//! ustring "BenWasHere"
//! ```
//!
//! - SS1: a stream of ours is exact: it holds the state at the zxid it was begun at, though transactions go on being applied. A stream of
//!   ZooKeeper's is fuzzy: what changes while it is written is in it or not ([`SnapSink::zxid_end`]), and the transactions behind the
//!   stream bring it right.
//! - SS2: a parent comes before its children, each with its whole path; nothing else is known of the order. Numbers of ACLs mean
//!   something within one stream only; -1 is the ACL that is open to everybody.
//! - SS3: sending holds the tree's lock for one short step at a time, and keeps no more of the tree in memory than the names of nodes that
//!   have children.
//! - SS4: what is received is not believed: no length before its bytes are there, nothing beyond its limit, no node that does not hang in
//!   the tree. An error leaves nothing behind but the error.
//! - SS5: receiving looks at every byte a constant number of times, however it is cut.
//! - SS6: what is received is a snapshot on the disk before it is a tree in memory ([`StateFile`]).
//!
//! Who sends what to whom, and when, is `zab`'s business. Facts: ZooKeeper's `SerializeUtils`, `DataTree`, `ReferenceCountedACLCache`.

mod sink;
mod source;
mod state;

pub use sink::{Feed, SnapEnd, SnapProgress, SnapSink, SnapStreamError};
pub use source::SnapSource;
pub use state::{Fed, StateFailed, StateFile, WholeState};

/// In place of a path: behind the last node.
const END: &str = "/";
/// What ends the stream.
const SIGNATURE: &str = "BenWasHere";
/// Number of the ACL that is open to everybody.
const ACL_OPEN: i64 = -1;

#[cfg(test)]
mod tests;
