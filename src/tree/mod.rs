//! The state machine: nodes, ACLs, sessions, quotas, watches and the digest, changed by transactions and by nothing else.
//!
//! - R1: the replicated state is a function of the transactions applied: no clock, no chance, no local setting decides.
//! - R2: `digest` is at every moment the sum over all nodes outside `/zookeeper/` of [`digest::node_digest`].
//! - R3: applying again what the tree already holds leaves it as it was, once the repetition has caught up (rule R12).
//! - R4: a read allocates nothing; a write allocates its data.
//! - R5: watches are armed under the same borrow that answered, so that none misses the next transaction.
//! - R6: while an image is taken, the first change of a node not yet in it keeps what the node was.
//!
//! Readers share the tree, one writer has it alone; the caller brings the lock. See `src/docs/tree.md`.

mod acls;
mod apply;
mod apply_quota;
pub mod digest;
mod families;
mod fired;
mod image;
mod index;
mod loader;
mod maps;
mod node;
mod owners;
mod quota;
mod slab;
mod watch;
mod watching;

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, ControlFlow};

use parking_lot::Mutex;

pub use acls::AclId;
pub use fired::{DigestMismatch, Fired, Firing};
pub use image::{ChunkKind, IMAGES_MAX, Image, ImageBuilder, ImageParts, ImageRest, Misplaced};
pub use loader::{Finishing, ImageError, ImageNode, Loader, image_acls, image_sessions};
pub use node::{NodeRef, Owner};
pub use quota::{Quota, QuotaLimits};
pub use watch::{WatchKind, WatchLimit, WatchLimits, WatchMode, WatchSummary};

use crate::base::{SessionId, WallMs, Zxid};
use crate::wire::{Acl, AclVec, Stat, StatPersisted, perms};
use acls::Acls;
use families::Families;
use index::Index;
use node::Node;
use owners::Owners;
use quota::Quotas;
use slab::{NIL, Slab};
use watch::Watches;

/// Digests kept for `hash`.
pub const DIGEST_LOG_MAX: usize = 1024;
/// A digest is kept at every zxid divisible by this.
pub const DIGEST_LOG_INTERVAL: u64 = 128;

/// Entries looked at in one step of a long walk: about 100 µs. Whoever walks lets go of the tree between two steps.
pub const WALK_STEP_MAX: usize = 512;

/// The root's slot: the first node made, never deleted.
const ROOT: u32 = 0;

/// What a tree is told when it is made.
#[derive(Clone, Copy, Debug, Default)]
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

/// Where [`Tree::ephemerals_step`] has come to.
#[derive(Clone, Copy, Debug)]
pub struct EphemeralCursor((SessionId, u32));

/// Where [`Tree::reapable_step`] has come to.
#[derive(Clone, Copy, Debug)]
pub struct ReapCursor((bool, u32));

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
pub struct Tree {
    options: TreeOptions,
    slab: Slab,
    families: Families,
    index: Index,
    acls: Acls,
    owners: Owners,
    quotas: Quotas,
    watches: Mutex<Watches>,
    applied: Zxid,
    digest: u64,
    digest_log: VecDeque<(Zxid, u64)>,
    mismatches: u64,
    first_mismatch: Option<DigestMismatch>,
    data_bytes: u64,
    images: Vec<image::Active>,
    images_begun: u64,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} {:016x} {:?})", self.applied, self.digest, self.counts())
    }
}

impl Tree {
    /// A fresh tree: `/`, `/zookeeper`, `/zookeeper/quota`, `/zookeeper/config`.
    #[must_use]
    pub fn new(options: TreeOptions) -> Tree {
        let mut tree = Tree::bare(options, Slab::default(), 0);
        let root = tree.seed_node(NIL, "", "/", &StatPersisted::default());
        assert_eq!(root, ROOT, "the root is the first node");
        let own = tree.seed_node(ROOT, "zookeeper", "/zookeeper", &StatPersisted::default());
        tree.seed_node(own, "quota", "/zookeeper/quota", &StatPersisted::default());
        // ZooKeeper protects it through setACL with version -1, which is what its aversion shows ever after.
        let stat = StatPersisted { aversion: -1, ..StatPersisted::default() };
        let config = tree.seed_node(own, "config", "/zookeeper/config", &stat);
        let read_only = acls::encode([Acl { perms: perms::READ, scheme: Some("world"), id: Some("anyone") }]);
        tree.slab.get_mut(config).acl = tree.acls.intern(AclVec::of_encoded(&read_only));
        tree.acls.release(AclId::OPEN);
        tree
    }

    /// A tree around `slab`, everything else empty; index with room for `count` nodes.
    fn bare(options: TreeOptions, slab: Slab, count: usize) -> Tree {
        let seed = options.seed;
        Tree {
            options,
            slab,
            families: Families::default(),
            index: Index::new(seed, count),
            acls: Acls::new(seed),
            owners: Owners::default(),
            quotas: Quotas::new(seed),
            watches: Mutex::new(Watches::new(seed, options.watches)),
            applied: Zxid::ZERO,
            digest: 0,
            digest_log: VecDeque::new(),
            mismatches: 0,
            first_mismatch: None,
            data_bytes: 0,
            images: Vec::new(),
            images_begun: 0,
        }
    }

    fn seed_node(&mut self, parent: u32, name: &str, path: &str, stat: &StatPersisted) -> u32 {
        let acl = self.acls.reuse(AclId::OPEN);
        let crc = digest::content_crc(path, Some(b""));
        self.add_node(parent, path, Node::new(parent, name.as_bytes(), Some(b""), acl, crc, stat))
    }

    /// Puts a node into the slab, the index, its parent's list, its owner's set, the counters and the digest.
    fn add_node(&mut self, parent: u32, path: &str, node: Node) -> u32 {
        let data_len = node.data_len();
        self.data_bytes += (path.len() + data_len) as u64;
        if digest::counts(path) {
            self.digest = self.digest.wrapping_add(u64::from(node.digest()));
        }
        let owner = Owner::decode(node.owner_raw(), &self.options);
        let slot = self.slab.insert(node);
        // Free at the image's moment, if that slot lies within it.
        self.keep_absent(slot);
        if parent != NIL {
            let added = self.index.insert(&self.slab, slot);
            assert!(added, "no two children have one name");
            self.link(parent, slot);
            self.count_below(parent, 1, data_len as i64);
        }
        self.owners.add(slot, owner);
        slot
    }

    /// Puts `slot` first into the list of `parent`'s children. It is not counted yet ([`Tree::count_below`]).
    fn link(&mut self, parent: u32, slot: u32) {
        let parent = self.slab.get_mut(parent);
        parent.child_count += 1;
        let first = if parent.family == NIL {
            parent.family = self.families.add(slot);
            NIL
        } else {
            std::mem::replace(&mut self.families.get_mut(parent.family).first_child, slot)
        };
        let node = self.slab.get_mut(slot);
        (node.prev, node.next) = (NIL, first);
        if first != NIL {
            self.slab.get_mut(first).prev = slot;
        }
    }

    /// Takes `slot`, which is not counted any more, out of the list of its parent's children.
    fn unlink(&mut self, slot: u32) {
        let node = self.slab.get(slot);
        let (parent, prev, next) = (node.parent, node.prev, node.next);
        if next != NIL {
            self.slab.get_mut(next).prev = prev;
        }
        let parent = self.slab.get_mut(parent);
        assert!(parent.child_count > 0, "slot {slot} is a child");
        parent.child_count -= 1;
        if parent.child_count == 0 {
            self.families.remove(std::mem::replace(&mut parent.family, NIL));
        } else if prev == NIL {
            self.families.get_mut(parent.family).first_child = next;
        } else {
            self.slab.get_mut(prev).next = next;
        }
    }

    /// Counts what came or went below `top`, there and at every ancestor.
    fn count_below(&mut self, top: u32, nodes: i32, bytes: i64) {
        let mut at = top;
        while at != NIL {
            let node = self.slab.get(at);
            let family = self.families.get_mut(node.family);
            family.nodes = family.nodes.checked_add_signed(nodes).expect("nodes are counted once");
            family.bytes = family.bytes.checked_add_signed(bytes).expect("bytes are counted once");
            at = node.parent;
        }
    }

    /// Nodes below `slot`, and the bytes of their data.
    fn below(&self, slot: u32) -> (u32, u64) {
        match self.slab.get(slot).family {
            NIL => (0, 0),
            family => {
                let family = self.families.get(family);
                (family.nodes, family.bytes)
            }
        }
    }

    /// The head of the list of children, or `NIL`.
    fn first_child(&self, slot: u32) -> u32 {
        match self.slab.get(slot).family {
            NIL => NIL,
            family => self.families.get(family).first_child,
        }
    }

    /// zxid of the last transaction applied.
    #[must_use]
    pub fn applied(&self) -> Zxid {
        self.applied
    }

    /// `AdHash` (version 2) of all nodes outside `/zookeeper/`.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The last digests at zxids divisible by [`DIGEST_LOG_INTERVAL`], oldest first; at most [`DIGEST_LOG_MAX`].
    pub fn digest_log(&self) -> impl Iterator<Item = (Zxid, u64)> + '_ {
        self.digest_log.iter().copied()
    }

    /// How many transactions carried a digest other than the tree's.
    #[must_use]
    pub fn digest_mismatches(&self) -> u64 {
        self.mismatches
    }

    /// The first of them, which is the one that matters.
    #[must_use]
    pub fn first_digest_mismatch(&self) -> Option<DigestMismatch> {
        self.first_mismatch
    }

    /// All counters.
    #[must_use]
    pub fn counts(&self) -> TreeCounts {
        TreeCounts {
            nodes: self.slab.len() + 1,
            data_bytes: self.data_bytes,
            ephemerals: self.owners.ephemeral_count(),
            sessions: self.owners.sessions.len(),
            containers: self.owners.containers.len(),
            ttls: self.owners.ttls.len(),
            acls: self.acls.len(),
        }
    }

    /// Nodes as ZooKeeper counts them; 5 in a fresh tree.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.slab.len() + 1
    }

    /// Bytes of paths and data.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// The node at `path`. "" and "/" are both the root; a malformed path finds nothing.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<NodeRef<'_>> {
        self.slot_of(path).map(|slot| NodeRef { tree: self, slot })
    }

    fn slot_of(&self, path: &str) -> Option<u32> {
        if path.is_empty() || path == "/" {
            return Some(ROOT);
        }
        self.slot_below(ROOT, path)
    }

    /// The slot of `start` followed by `path`, which begins with `/`.
    fn slot_below(&self, start: u32, path: &str) -> Option<u32> {
        let names = path.strip_prefix('/')?.as_bytes();
        names.split(|byte| *byte == b'/').try_fold(start, |slot, name| {
            // No node has an empty name: `//` and a slash at the end find nothing.
            self.index.find(&self.slab, slot, name)
        })
    }

    /// Full path; "/" for the root.
    fn path_of(&self, slot: u32) -> String {
        if slot == ROOT {
            return "/".to_owned();
        }
        let mut names = Vec::new();
        let mut at = slot;
        while at != ROOT {
            let node = self.slab.get(at);
            names.push(node::text(node.name()));
            at = node.parent;
        }
        let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// Shows every node below `top`, parents before children.
    fn walk(&self, top: u32, mut show: impl FnMut(u32, &Node)) {
        let mut at = self.first_child(top);
        while at != NIL {
            let node = self.slab.get(at);
            show(at, node);
            at = if node.family != NIL { self.first_child(at) } else { self.next_outside(at, top) };
        }
    }

    /// The next sibling of `slot`, or of its nearest ancestor below `top` that has one.
    fn next_outside(&self, mut slot: u32, top: u32) -> u32 {
        loop {
            let node = self.slab.get(slot);
            if node.next != NIL || node.parent == top {
                return node.next;
            }
            slot = node.parent;
        }
    }

    /// The entries of an interned ACL. Panics on an id that no node of this tree has.
    #[must_use]
    pub fn acl(&self, id: AclId) -> AclVec<'_> {
        self.acls.get(id)
    }

    /// Negotiated timeout in ms of a session, if it is known.
    #[must_use]
    pub fn session_timeout(&self, session: SessionId) -> Option<i32> {
        self.owners.sessions.get(&session).copied()
    }

    /// All sessions and their timeouts (ms), by id.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        self.sessions_behind(None)
    }

    fn sessions_behind(&self, after: Option<SessionId>) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.owners.sessions.range((from, Bound::Unbounded)).map(|(session, timeout_ms)| {
            slab::note_look();
            (*session, *timeout_ms)
        })
    }

    /// The first sessions with ids above `after`, by id: at most [`WALK_STEP_MAX`] of them.
    pub fn sessions_after(&self, after: Option<SessionId>) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions_behind(after).map(|(session, _)| session).take(WALK_STEP_MAX)
    }

    /// How many sessions own ephemeral nodes.
    #[must_use]
    pub fn ephemeral_owner_count(&self) -> usize {
        self.owners.owner_count()
    }

    /// Shows at most [`WALK_STEP_MAX`] ephemeral nodes, those of one session together, by session: from the start (`None`), then from
    /// what the last step returned. `None` at the end, or when `show` has enough.
    #[must_use]
    pub fn ephemerals_step(
        &self,
        after: Option<EphemeralCursor>,
        mut show: impl FnMut(SessionId, &str) -> ControlFlow<()>,
    ) -> Option<EphemeralCursor> {
        let (mut last, mut shown) = (None, 0);
        for (session, slot) in self.owners.ephemerals_after(after.map(|cursor| cursor.0)) {
            if shown == WALK_STEP_MAX {
                return last;
            }
            if show(session, &self.path_of(slot)).is_break() {
                return None;
            }
            (last, shown) = (Some(EphemeralCursor((session, slot))), shown + 1);
        }
        None
    }

    /// Sessions that own ephemeral nodes, by id.
    pub fn ephemeral_owners(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.owners.owners()
    }

    /// Number of ephemeral nodes of a session.
    #[must_use]
    pub fn ephemeral_count(&self, session: SessionId) -> usize {
        self.owners.ephemerals_of(session)
    }

    /// Shows the full path of each ephemeral node of a session, in no order.
    pub fn ephemeral_paths(&self, session: SessionId, mut show: impl FnMut(&str)) {
        for slot in self.owners.ephemerals(session) {
            show(&self.path_of(slot));
        }
    }

    /// Paths of empty containers and of TTL nodes whose time has come. `never_used_ms_max` is how long a container may wait for
    /// its first child; 0 is for ever.
    #[must_use]
    pub fn reapable(&self, now: WallMs, never_used_ms_max: i64) -> Vec<String> {
        let (mut due, mut at) = (Vec::new(), None);
        loop {
            at = self.reapable_step(at, now, never_used_ms_max, &mut due);
            if at.is_none() {
                return due;
            }
        }
    }

    /// As [`Tree::reapable`], for at most [`WALK_STEP_MAX`] containers and TTL nodes: from the start (`None`), then from what the last
    /// step returned; `None` at the end.
    #[must_use]
    pub fn reapable_step(
        &self,
        after: Option<ReapCursor>,
        now: WallMs,
        never_used_ms_max: i64,
        due: &mut Vec<String>,
    ) -> Option<ReapCursor> {
        let mut slots = self.owners.reaped_after(after.map(|cursor| cursor.0));
        let mut last = None;
        for (ttl, slot) in slots.by_ref().take(WALK_STEP_MAX) {
            if self.is_reapable(slot, now, never_used_ms_max) {
                due.push(self.path_of(slot));
            }
            last = Some(ReapCursor((ttl, slot)));
        }
        last.filter(|_| slots.next().is_some())
    }

    fn is_reapable(&self, slot: u32, now: WallMs, never_used_ms_max: i64) -> bool {
        let node = self.slab.get(slot);
        let stat = node.persisted();
        let age_ms = now.0.saturating_sub(stat.mtime);
        if node.child_count > 0 {
            return false;
        }
        match Owner::decode(stat.ephemeral_owner, &self.options) {
            Owner::Container if stat.cversion > 0 => true,
            Owner::Container => never_used_ms_max != 0 && age_ms > never_used_ms_max,
            Owner::Ttl(ttl_ms) => ttl_ms != 0 && age_ms > ttl_ms,
            Owner::Persistent | Owner::Ephemeral(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
