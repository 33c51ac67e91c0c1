//! What is prepared but not applied yet: nodes as they will be.
//!
//! - O1: what [`Overlay::get`] finds is newer than the tree; what it does not find is in the tree as it will be.
//! - O2: [`Overlay::rollback`] restores exactly what [`Overlay::begin`] found: records, ACLs, and what sessions own.
//! - O3: an entry goes when its last change is applied; entries, paths and ACLs are recycled, so that in steady state
//!   nothing is allocated.
//! - O4: `uses` counts, for every session in it, the ephemeral nodes it will have once all that is prepared is applied.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::base::{SessionId, Zxid};
use crate::tree::{AclId, NodeRef, Owner, Tree, digest};
use crate::wire::{AclVec, StatPersisted};

/// Where the ACL of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AclRef {
    /// In the tree. It stays there until a change of this node is applied, and with that this record is dropped or replaced.
    Tree(AclId),
    /// In the overlay's own pool.
    Own(u32),
}

/// A node as it will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stat: StatPersisted,
    pub(super) owner: Owner,
    pub(super) children: u32,
    pub(super) content_crc: u32,
    /// Bytes of data; 0 for null.
    pub(super) data_bytes: usize,
    pub(super) acl: AclRef,
}

impl Record {
    /// The node as it is in the tree.
    pub(super) fn of(node: NodeRef<'_>) -> Record {
        Record {
            stat: node.persisted(),
            owner: node.owner(),
            children: node.child_count(),
            content_crc: node.content_crc(),
            data_bytes: node.data().map_or(0, <[u8]>::len),
            acl: AclRef::Tree(node.acl_id()),
        }
    }

    /// What the node adds to the tree's digest, if nodes at its path count.
    pub(super) fn digest(&self) -> u64 {
        u64::from(digest::node_digest(self.content_crc, &self.stat))
    }
}

/// Ephemeral nodes of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EphemeralUse {
    /// Nodes.
    pub(super) count: usize,
    /// Bytes that their paths take in a closeSession: 4 for the length, then the path.
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Entry {
    path: String,
    hash: u64,
    /// Last transaction that changed it; 0 in entries that wait to be used again.
    zxid: Zxid,
    /// `None`: there will be no such node.
    record: Option<Record>,
}

/// How to take one change back.
#[derive(Clone, Copy, Debug)]
struct Undo {
    entry: u32,
    zxid: Zxid,
    record: Option<Record>,
    /// The entry did not exist before.
    fresh: bool,
    /// The change put another ACL in place of the record's.
    replaced: bool,
}

/// All pending changes.
#[derive(Debug)]
pub(super) struct Overlay {
    hasher: FixedState,
    table: HashTable<u32>,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    /// Entries by the transactions that changed them, oldest first; an entry once per transaction.
    order: VecDeque<(Zxid, u32)>,
    acls: Vec<Vec<u8>>,
    free_acls: Vec<u32>,
    uses: HashMap<SessionId, EphemeralUse, FixedState>,
    zxid: Zxid,
    undo: Vec<Undo>,
}

impl Overlay {
    pub(super) fn new(seed: u64) -> Overlay {
        let hasher = FixedState::with_seed(seed);
        Overlay {
            uses: HashMap::with_hasher(hasher.clone()),
            hasher,
            table: HashTable::new(),
            entries: Vec::new(),
            free_entries: Vec::new(),
            order: VecDeque::new(),
            acls: Vec::new(),
            free_acls: Vec::new(),
            zxid: Zxid::ZERO,
            undo: Vec::new(),
        }
    }

    /// Starts the changes of transaction `zxid`.
    pub(super) fn begin(&mut self, zxid: Zxid) {
        assert!(self.undo.is_empty(), "the transaction before was ended");
        assert!(zxid > self.zxid, "zxids grow");
        self.zxid = zxid;
    }

    /// The node at `path` (canonical) as it will be now becomes `new`. `old` is what it will be up to here.
    pub(super) fn put(&mut self, tree: &Tree, path: &str, old: Option<&Record>, new: Option<Record>) {
        debug_assert_ne!(path, "/", "the root is \"\" here");
        self.account(tree, path, old.map(|r| r.owner), new.as_ref().map(|r| r.owner));
        let hash = self.hasher.hash_one(path);
        match self.position(hash, path) {
            Some(at) => self.change(at, new),
            None => self.insert(hash, path, old.copied(), new),
        }
    }

    fn change(&mut self, at: u32, new: Option<Record>) {
        let entry = &mut self.entries[at as usize];
        let replaced = entry.record.map(|r| r.acl) != new.map(|r| r.acl);
        self.undo.push(Undo { entry: at, zxid: entry.zxid, record: entry.record, fresh: false, replaced });
        if entry.zxid != self.zxid {
            self.order.push_back((self.zxid, at));
        }
        entry.zxid = self.zxid;
        entry.record = new;
    }

    fn insert(&mut self, hash: u64, path: &str, old: Option<Record>, new: Option<Record>) {
        let at = self.free_entries.pop().unwrap_or_else(|| {
            self.entries.push(Entry { path: String::new(), hash: 0, zxid: Zxid::ZERO, record: None });
            u32::try_from(self.entries.len() - 1).expect("pending changes are bounded by requests in flight")
        });
        let entry = &mut self.entries[at as usize];
        debug_assert_eq!(entry.zxid, Zxid::ZERO, "a free entry");
        entry.path.push_str(path);
        (entry.hash, entry.zxid, entry.record) = (hash, self.zxid, new);
        let entries = &self.entries;
        self.table.insert_unique(hash, at, |&i| entries[i as usize].hash);
        self.order.push_back((self.zxid, at));
        self.undo.push(Undo { entry: at, zxid: Zxid::ZERO, record: old, fresh: true, replaced: false });
    }

    /// The changes since [`Overlay::begin`] stay.
    pub(super) fn commit(&mut self) {
        while let Some(undo) = self.undo.pop() {
            if undo.replaced {
                self.free_acl_unless_kept(undo.record, None);
            }
        }
    }

    /// Takes back all changes since [`Overlay::begin`].
    pub(super) fn rollback(&mut self, tree: &Tree) {
        while let Some(undo) = self.undo.pop() {
            let at = undo.entry as usize;
            let now = self.entries[at].record;
            let path = std::mem::take(&mut self.entries[at].path);
            self.account(tree, &path, now.map(|r| r.owner), undo.record.map(|r| r.owner));
            self.entries[at].path = path;
            self.free_acl_unless_kept(now, undo.record);
            (self.entries[at].zxid, self.entries[at].record) = (undo.zxid, undo.record);
            if undo.fresh {
                self.release(undo.entry);
            }
        }
        while self.order.back().is_some_and(|(zxid, _)| *zxid == self.zxid) {
            self.order.pop_back();
        }
    }

    fn free_acl_unless_kept(&mut self, gone: Option<Record>, kept: Option<Record>) {
        let (Some(gone), kept) = (gone.map(|r| r.acl), kept.map(|r| r.acl)) else { return };
        if let AclRef::Own(slot) = gone
            && kept != Some(gone)
        {
            self.free_acls.push(slot);
        }
    }

    /// Drops what the tree holds by now.
    pub(super) fn drop_applied(&mut self, applied: Zxid) {
        assert!(self.undo.is_empty(), "not inside a transaction");
        while let Some(&(zxid, at)) = self.order.front() {
            if zxid > applied {
                return;
            }
            self.order.pop_front();
            // Otherwise a later transaction changed it again.
            if self.entries[at as usize].zxid == zxid {
                let record = self.entries[at as usize].record;
                self.free_acl_unless_kept(record, None);
                self.release(at);
            }
        }
    }

    fn release(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        let found = self.table.find_entry(entry.hash, |&i| i == at);
        found.expect("every entry in use is in the table").remove();
        entry.path.clear();
        (entry.zxid, entry.record) = (Zxid::ZERO, None);
        self.free_entries.push(at);
    }

    /// Keeps `acl` (a `vector<ACL>`) for a record.
    pub(super) fn add_acl(&mut self, acl: &[u8]) -> AclRef {
        let slot = self.free_acls.pop().unwrap_or_else(|| {
            self.acls.push(Vec::new());
            u32::try_from(self.acls.len() - 1).expect("pending changes are bounded by requests in flight")
        });
        let kept = &mut self.acls[slot as usize];
        kept.clear();
        kept.extend_from_slice(acl);
        AclRef::Own(slot)
    }

    /// The entries of a record's ACL.
    pub(super) fn acl<'a>(&'a self, tree: &'a Tree, acl: AclRef) -> AclVec<'a> {
        match acl {
            AclRef::Tree(id) => tree.acl(id),
            AclRef::Own(slot) => AclVec::of_encoded(&self.acls[slot as usize]),
        }
    }

    /// `None`: no change of `path` (canonical) is pending. `Some(None)`: there will be no such node.
    pub(super) fn get(&self, path: &str) -> Option<Option<&Record>> {
        if self.table.is_empty() {
            return None;
        }
        let at = self.position(self.hasher.hash_one(path), path)?;
        Some(self.entries[at as usize].record.as_ref())
    }

    fn position(&self, hash: u64, path: &str) -> Option<u32> {
        self.table.find(hash, |&i| self.entries[i as usize].path == path).copied()
    }

    /// Number of nodes with pending changes.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// What `session` will own.
    pub(super) fn use_of(&mut self, tree: &Tree, session: SessionId) -> EphemeralUse {
        if let Some(known) = self.uses.get(&session) {
            return *known;
        }
        // Nothing of it can be pending creation, or it would be known: what counts is the tree, less pending deletions.
        let mut sum = EphemeralUse::default();
        tree.ephemeral_paths(session, |path| {
            if self.will_own(session, path) {
                sum.count += 1;
                sum.bytes += 4 + path.len();
            }
        });
        self.uses.insert(session, sum);
        sum
    }

    fn will_own(&self, session: SessionId, path: &str) -> bool {
        self.get(path).is_none_or(|r| r.is_some_and(|r| r.owner == Owner::Ephemeral(session)))
    }

    /// Shows every ephemeral node that `session` will own, in no order.
    pub(super) fn ephemeral_paths(&self, tree: &Tree, session: SessionId, mut show: impl FnMut(&str)) {
        let mut shown = 0;
        tree.ephemeral_paths(session, |path| {
            if self.will_own(session, path) {
                shown += 1;
                show(path);
            }
        });
        // Only a session that made one since the start of this process can have one pending.
        if self.uses.get(&session).is_none_or(|known| known.count == shown) {
            return;
        }
        let owner = Owner::Ephemeral(session);
        for &at in &self.table {
            let entry = &self.entries[at as usize];
            let pending = entry.record.is_some_and(|r| r.owner == owner);
            if pending && tree.find(&entry.path).is_none_or(|node| node.owner() != owner) {
                show(&entry.path);
            }
        }
    }

    /// The session is over: nothing of it is counted any more.
    pub(super) fn forget_use(&mut self, session: SessionId) {
        self.uses.remove(&session);
    }

    fn account(&mut self, tree: &Tree, path: &str, old: Option<Owner>, new: Option<Owner>) {
        if old == new {
            return;
        }
        let bytes = 4 + path.len();
        if let Some(Owner::Ephemeral(session)) = old
            && let Some(known) = self.uses.get_mut(&session)
        {
            known.count -= 1;
            known.bytes -= bytes;
        }
        if let Some(Owner::Ephemeral(session)) = new {
            self.use_of(tree, session);
            let known = self.uses.get_mut(&session).expect("use_of made it known");
            known.count += 1;
            known.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::TreeOptions;

    fn record(owner: Owner, acl: AclRef) -> Record {
        Record { stat: StatPersisted::default(), owner, children: 0, content_crc: 0, data_bytes: 0, acl }
    }

    fn plain() -> Record {
        record(Owner::Persistent, AclRef::Tree(AclId::OPEN))
    }

    fn setup() -> (Tree, Overlay) {
        (Tree::new(TreeOptions::default()), Overlay::new(7))
    }

    #[test]
    fn an_entry_goes_when_its_last_change_is_applied() {
        let (tree, mut overlay) = setup();
        for zxid in 1..=3 {
            overlay.begin(Zxid(zxid));
            overlay.put(&tree, "/twice", None, Some(plain()));
            if zxid == 2 {
                overlay.put(&tree, "/once", None, Some(plain()));
                overlay.put(&tree, "/once", None, None);
            }
            overlay.commit();
        }
        assert_eq!(overlay.get("/once"), Some(None), "there will be no such node");
        overlay.drop_applied(Zxid(2));
        assert_eq!(overlay.get("/once"), None, "nothing is pending");
        assert_eq!(overlay.get("/twice"), Some(Some(&plain())));
        overlay.drop_applied(Zxid(3));
        assert_eq!((overlay.get("/twice"), overlay.len()), (None, 0));
    }

    #[test]
    fn a_rollback_brings_back_records_acls_and_what_sessions_own() {
        let (tree, mut overlay) = setup();
        let session = SessionId(5);
        overlay.begin(Zxid(1));
        let acl = overlay.add_acl(&[0, 0, 0, 0]);
        let before = record(Owner::Ephemeral(session), acl);
        overlay.put(&tree, "/e", None, Some(before));
        overlay.commit();
        let used = EphemeralUse { count: 1, bytes: 6 };
        assert_eq!(overlay.use_of(&tree, session), used);

        overlay.begin(Zxid(2));
        let other = overlay.add_acl(&[0, 0, 0, 0]);
        overlay.put(&tree, "/e", Some(&before), Some(Record { acl: other, ..before }));
        overlay.put(&tree, "/e", Some(&before), None);
        overlay.put(&tree, "/f", None, Some(record(Owner::Ephemeral(session), other)));
        overlay.rollback(&tree);
        overlay.commit();
        assert_eq!(overlay.get("/e"), Some(Some(&before)));
        assert_eq!(overlay.get("/f"), None);
        assert_eq!(overlay.use_of(&tree, session), used);
        overlay.drop_applied(Zxid(1));
        assert_eq!((overlay.len(), overlay.order.len()), (0, 0));
    }

    #[test]
    fn entries_paths_and_acls_are_used_again() {
        let (tree, mut overlay) = setup();
        for zxid in 1..=1_000 {
            overlay.begin(Zxid(zxid));
            let acl = overlay.add_acl(&[0, 0, 0, 0]);
            let first = record(Owner::Persistent, acl);
            overlay.put(&tree, "/a", None, Some(first));
            let acl = overlay.add_acl(&[0, 0, 0, 0]);
            overlay.put(&tree, "/a", Some(&first), Some(Record { acl, ..first }));
            let path = if zxid % 2 == 0 { "/b" } else { "/c" };
            overlay.put(&tree, path, None, None);
            if zxid % 3 == 0 {
                overlay.rollback(&tree)
            } else {
                overlay.commit()
            }
            overlay.drop_applied(Zxid(zxid - 1));
        }
        overlay.drop_applied(Zxid(1_000));
        assert!(overlay.entries.len() <= 4, "{}", overlay.entries.len());
        assert!(overlay.acls.len() <= 6, "{}", overlay.acls.len());
        let mut free = overlay.free_acls.clone();
        free.sort_unstable();
        free.dedup();
        assert_eq!(free.len(), overlay.acls.len(), "each is free, and free once");
        assert_eq!(overlay.free_entries.len(), overlay.entries.len());
    }
}
