//! Interned ACLs: a node holds four bytes, equal lists are kept once, unused ones go.
//!
//! - A1: [`AclId::OPEN`] is `world:anyone` with all permissions, always there, and what a null list means.
//! - A2: the count of an entry is the number of nodes that have it; an entry with none is gone.

use hashbrown::HashTable;

use super::maps::{self, State};
use crate::wire::{Acl, AclVec, perms, put_acl_vec};

/// Names an interned ACL of one tree. Not the same in another tree, nor after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AclId(pub(super) u32);

impl AclId {
    /// `world:anyone` with all permissions: nothing needs to be asked.
    pub const OPEN: AclId = AclId(0);
}

#[derive(Debug)]
struct Entry {
    /// `vector<ACL>` as on the wire; empty when the place is free.
    bytes: Box<[u8]>,
    uses: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Acls {
    state: State,
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_bytes: HashTable<u32>,
}

impl Acls {
    pub(super) fn new(seed: u64) -> Acls {
        let mut acls = Acls {
            state: maps::state(seed),
            entries: Vec::new(),
            free: Vec::new(),
            by_bytes: HashTable::new(),
        };
        let open = encode([Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") }]);
        let id = acls.intern(AclVec::of_encoded(&open));
        assert_eq!(id, AclId::OPEN, "the open ACL comes first");
        acls
    }

    /// The id of a list, counting one more use of it.
    pub(super) fn intern(&mut self, acl: AclVec<'_>) -> AclId {
        if acl == AclVec::NULL {
            return self.reuse(AclId::OPEN);
        }
        let hash = maps::hash(&self.state, acl.raw());
        let eq = |id: &u32| self.entries[*id as usize].bytes[4..] == *acl.raw();
        if let Some(id) = self.by_bytes.find(hash, eq) {
            return self.reuse(AclId(*id));
        }
        let mut bytes = Vec::with_capacity(4 + acl.raw().len());
        acl.put(&mut bytes);
        let entry = Entry { bytes: bytes.into_boxed_slice(), uses: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        let (state, entries) = (&self.state, &self.entries);
        self.by_bytes.insert_unique(hash, id, |id| maps::hash(state, &entries[*id as usize].bytes[4..]));
        AclId(id)
    }

    /// Counts one more use of a list that is there.
    pub(super) fn reuse(&mut self, id: AclId) -> AclId {
        let entry = &mut self.entries[id.0 as usize];
        debug_assert!(!entry.bytes.is_empty(), "the entry is in use");
        entry.uses += 1;
        id
    }

    /// Counts one use less; the last one takes the entry along, and the list comes back.
    pub(super) fn release(&mut self, id: AclId) -> Option<Box<[u8]>> {
        let entry = &mut self.entries[id.0 as usize];
        assert!(entry.uses > 0, "uses of an ACL are counted (A2)");
        entry.uses -= 1;
        if entry.uses > 0 || id == AclId::OPEN {
            return None;
        }
        let bytes = std::mem::take(&mut entry.bytes);
        let hash = maps::hash(&self.state, &bytes[4..]);
        match self.by_bytes.find_entry(hash, |other| *other == id.0) {
            Ok(found) => found.remove(),
            Err(_) => panic!("every entry is in the table"),
        };
        self.free.push(id.0);
        Some(bytes)
    }

    /// Of an id just interned: was there no such list before?
    pub(super) fn is_new(&self, id: AclId) -> bool {
        id != AclId::OPEN && self.entries[id.0 as usize].uses == 1
    }

    /// Every id is below this.
    pub(super) const fn bound(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The list as it stands on the wire; empty for an id that is free.
    pub(super) fn bytes(&self, id: AclId) -> &[u8] {
        super::slab::note_look();
        &self.entries[id.0 as usize].bytes
    }

    /// The list.
    pub(super) fn get(&self, id: AclId) -> AclVec<'_> {
        AclVec::of_encoded(self.bytes(id))
    }

    /// Different lists.
    pub(super) const fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

/// A list as it stands on the wire.
pub(super) fn encode<'a>(entries: impl IntoIterator<Item = Acl<'a>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_acl_vec(&mut bytes, entries);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_have_one_entry_and_it_goes_with_its_last_use() {
        let mut acls = Acls::new(3);
        let one = encode([Acl { perms: 1, scheme: Some("ip"), id: Some("::1") }]);
        let two = encode([Acl { perms: 2, scheme: Some("ip"), id: Some("::1") }]);
        let id = acls.intern(AclVec::of_encoded(&one));
        assert_eq!(acls.intern(AclVec::of_encoded(&one)), id);
        let other = acls.intern(AclVec::of_encoded(&two));
        assert_ne!(other, id);
        assert_eq!(acls.len(), 3);
        acls.release(id);
        assert!(acls.get(id).iter().eq(AclVec::of_encoded(&one).iter()));
        acls.release(id);
        assert_eq!(acls.len(), 2);
        assert_eq!(acls.intern(AclVec::of_encoded(&one)), id, "the place is used again");
        assert_eq!(acls.get(other), AclVec::of_encoded(&two));
    }

    #[test]
    fn null_is_open_and_open_never_goes_but_empty_is_a_list_of_its_own() {
        let mut acls = Acls::new(3);
        assert_eq!(acls.intern(AclVec::NULL), AclId::OPEN);
        acls.release(AclId::OPEN);
        acls.release(AclId::OPEN);
        assert_eq!(acls.get(AclId::OPEN).len(), 1);
        let empty = acls.intern(AclVec::of_encoded(&encode([])));
        assert_ne!(empty, AclId::OPEN);
        assert!(acls.get(empty).is_empty());
    }
}
