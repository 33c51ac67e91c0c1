//! The state machine: nodes, ACLs, sessions, quotas, watches and the digest, changed by transactions and by nothing else.
#![allow(clippy::unimplemented, dead_code, unused_variables)]

mod acls;
pub mod digest;
mod fired;
mod image;
mod loader;
mod node;
mod quota;
mod watch;

pub use acls::AclId;
pub use fired::{DigestMismatch, Fired, Firing};
pub use image::{ChunkKind, Image};
pub use loader::{ImageError, Loader};
pub use node::{NodeRef, Owner};
pub use quota::{Quota, QuotaLimits};
pub use watch::{WatchKind, WatchLimit, WatchLimits, WatchMode, WatchSummary};

use crate::base::{ConnId, SessionId, WallMs, Zxid};
use crate::wire::reply::EventType;
use crate::wire::request::SetWatches;
use crate::wire::txn::Proposal;
use crate::wire::{AclVec, Stat};

/// What a tree is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// Seeds the hash tables, so that clients cannot choose names that collide.
    pub seed: u64,
    /// `zookeeper.extendedTypesEnabled`: owners with top byte 0xff are TTL nodes, not sessions.
    pub extended_types: bool,
    /// `zookeeper.emulate353TTLNodes`: owners with top byte 0x80 are TTL nodes as well.
    pub emulate_353_ttl: bool,
    /// Limits of the watch tables.
    pub watches: WatchLimits,
}

impl Default for TreeOptions {
    fn default() -> TreeOptions {
        TreeOptions {
            seed: 0,
            extended_types: false,
            emulate_353_ttl: false,
            watches: WatchLimits::default(),
        }
    }
}

/// What one transaction, or one part of a multi, came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stat of the new node (also for plain create, whose reply leaves it out).
    Created(Stat),
    /// The node is gone.
    Deleted,
    /// Stat after the change.
    DataSet(Stat),
    /// Stat after the change.
    AclSet(Stat),
    /// A check inside a multi held when it was prepared.
    Checked,
    /// The session is known from now on.
    SessionCreated,
    /// The session and its ephemeral nodes are gone.
    SessionClosed,
    /// The error code of an error transaction, or of one that found nothing to do in replay.
    Failed(i32),
    /// One outcome per part, in order; all `Failed` (0 before the cause, its code, -2 behind it) if one failed.
    Multi(Vec<Outcome>),
}

/// Counters, all O(1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounts {
    /// Nodes as ZooKeeper counts them: the root twice, under "" and "/".
    pub nodes: usize,
    /// Bytes of paths and data.
    pub data_bytes: u64,
    /// Ephemeral nodes.
    pub ephemerals: usize,
    /// Sessions.
    pub sessions: usize,
    /// Container nodes.
    pub containers: usize,
    /// TTL nodes.
    pub ttls: usize,
    /// Different ACLs in use.
    pub acls: usize,
}

/// The replicated state of a node, and the watches of its connections.
#[derive(Debug)]
pub struct Tree {}

impl Tree {
    /// A fresh tree: `/`, `/zookeeper`, `/zookeeper/quota`, `/zookeeper/config`.
    #[must_use]
    pub fn new(options: TreeOptions) -> Tree {
        unimplemented!()
    }

    /// Applies a transaction. Its zxid must be above [`Tree::applied`] (asserted). What fired is appended to `fired`.
    pub fn apply(&mut self, proposal: &Proposal<'_>, fired: &mut Fired) -> Outcome {
        unimplemented!()
    }

    /// As [`Tree::apply`], for a log that may repeat what the tree already holds (rule R12).
    pub fn reapply(&mut self, proposal: &Proposal<'_>, fired: &mut Fired) -> Outcome {
        unimplemented!()
    }

    /// zxid of the last transaction applied.
    #[must_use]
    pub fn applied(&self) -> Zxid {
        unimplemented!()
    }

    /// `AdHash` (version 2) of all nodes outside `/zookeeper/`.
    #[must_use]
    pub fn digest(&self) -> u64 {
        unimplemented!()
    }

    /// The last digests at zxids divisible by 128, oldest first; at most 1024.
    pub fn digest_log(&self) -> impl Iterator<Item = (Zxid, u64)> + '_ {
        std::iter::empty()
    }

    /// How many transactions carried a digest other than the tree's.
    #[must_use]
    pub fn digest_mismatches(&self) -> u64 {
        unimplemented!()
    }

    /// The first of them, which is the one that matters.
    #[must_use]
    pub fn first_digest_mismatch(&self) -> Option<DigestMismatch> {
        unimplemented!()
    }

    /// All counters.
    #[must_use]
    pub fn counts(&self) -> TreeCounts {
        unimplemented!()
    }

    /// Nodes as ZooKeeper counts them; 5 in a fresh tree.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.counts().nodes
    }

    /// Bytes of paths and data.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.counts().data_bytes
    }

    /// The node at `path`. "" and "/" are both the root; a malformed path finds nothing.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<NodeRef<'_>> {
        unimplemented!()
    }

    /// The entries of an interned ACL. Panics on an id that no node of this tree has.
    #[must_use]
    pub fn acl(&self, id: AclId) -> AclVec<'_> {
        unimplemented!()
    }

    /// Negotiated timeout in ms of a session, if it is known.
    #[must_use]
    pub fn session_timeout(&self, session: SessionId) -> Option<i32> {
        unimplemented!()
    }

    /// All sessions and their timeouts (ms), in no order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        std::iter::empty()
    }

    /// Sessions that own ephemeral nodes, in no order.
    pub fn ephemeral_owners(&self) -> impl Iterator<Item = SessionId> + '_ {
        std::iter::empty()
    }

    /// Number of ephemeral nodes of a session.
    #[must_use]
    pub fn ephemeral_count(&self, session: SessionId) -> usize {
        unimplemented!()
    }

    /// Shows the full path of each ephemeral node of a session, in no order.
    pub fn ephemeral_paths(&self, session: SessionId, show: impl FnMut(&str)) {
        unimplemented!()
    }

    /// Paths of empty containers and of TTL nodes whose time has come. `never_used_ms_max` is how long a container may wait for
    /// its first child; 0 is for ever.
    #[must_use]
    pub fn reapable(&self, now: WallMs, never_used_ms_max: i64) -> Vec<String> {
        unimplemented!()
    }

    /// The quota that counts at `path`: that of the deepest quota root at or above it.
    #[must_use]
    pub fn quota_for<'a>(&'a self, path: &'a str) -> Option<Quota<'a>> {
        unimplemented!()
    }

    /// All quotas, in no order.
    pub fn quotas(&self) -> impl Iterator<Item = Quota<'_>> + '_ {
        std::iter::empty()
    }

    /// One-shot watch of getData.
    pub fn watch_data(&self, path: &str, conn: ConnId) -> Result<(), WatchLimit> {
        unimplemented!()
    }

    /// One-shot watch of exists; the same entry as that of getData.
    pub fn watch_exists(&self, path: &str, conn: ConnId) -> Result<(), WatchLimit> {
        unimplemented!()
    }

    /// One-shot watch of getChildren.
    pub fn watch_children(&self, path: &str, conn: ConnId) -> Result<(), WatchLimit> {
        unimplemented!()
    }

    /// Persistent watch.
    pub fn add_watch(&self, path: &str, mode: WatchMode, conn: ConnId) -> Result<(), WatchLimit> {
        unimplemented!()
    }

    /// Has `conn` such a watch at `path`?
    #[must_use]
    pub fn check_watch(&self, path: &str, kind: WatchKind, conn: ConnId) -> bool {
        unimplemented!()
    }

    /// Removes such watches; false if there were none.
    pub fn remove_watch(&self, path: &str, kind: WatchKind, conn: ConnId) -> bool {
        unimplemented!()
    }

    /// Removes all watches of a connection.
    pub fn remove_conn(&self, conn: ConnId) {
        unimplemented!()
    }

    /// Sets watches again after a reconnect and emits what was missed.
    pub fn set_watches(
        &self,
        watches: &SetWatches<'_>,
        conn: ConnId,
        emit: impl FnMut(EventType, &str),
    ) -> Result<(), WatchLimit> {
        unimplemented!()
    }

    /// Watches of both tables, as `mntr` and `stat` count them.
    #[must_use]
    pub fn watch_count(&self) -> usize {
        unimplemented!()
    }

    /// What `wchs` says: data and exists watches only.
    #[must_use]
    pub fn watch_summary(&self) -> WatchSummary {
        unimplemented!()
    }

    /// Shows each data or exists watch (`wchc`, `wchp`), in no order but all of one path together.
    pub fn watch_pairs(&self, show: impl FnMut(&str, ConnId)) {
        unimplemented!()
    }

    /// Starts an image of the state as it is now. O(sessions + ACLs). Panics if one is under way.
    pub fn begin_image(&mut self) -> Image {
        unimplemented!()
    }

    /// Appends the next chunk of about `bytes_target` bytes to `out`; `None` when the image is complete.
    pub fn image_chunk(
        &self,
        image: &mut Image,
        out: &mut Vec<u8>,
        bytes_target: usize,
    ) -> Option<ChunkKind> {
        unimplemented!()
    }

    /// Ends an image, complete or given up.
    pub fn end_image(&mut self, image: Image) {
        unimplemented!()
    }
}
