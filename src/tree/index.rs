//! From (parent, name) to slot: one index for all nodes instead of a map per parent.
//!
//! - I1: it holds every node except the root exactly once, as 4 bytes and a tag; keys are in the nodes.
//! - I2: it is cut into [`SHARDS`] tables by hash bits, so that growing rehashes a thousandth of the nodes at a time: growing
//!   one table of a million nodes would stop the tree for longer than a heartbeat's patience.
//! - I3: hashes are seeded by the caller: clients cannot choose names that collide.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use hashbrown::HashTable;

use super::slab::Slab;

/// Tables. At 10 M nodes one of them holds 10,000, which rehash in about a millisecond.
const SHARDS: usize = 1024;
/// Hash bits that choose the table: neither the low ones (bucket) nor the top seven (tag) of hashbrown.
const SHARD_SHIFT: u32 = 44;

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    keys: Keys,
    shards: Box<[HashTable<u32>]>,
}

#[derive(Debug)]
struct Keys {
    seed: u64,
    shared: SharedSeed,
}

impl Keys {
    fn hash(&self, parent: u32, name: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write_u32(parent);
        hasher.write(name);
        hasher.finish()
    }

    fn hash_of(&self, slab: &Slab, slot: u32) -> u64 {
        let node = slab.get(slot);
        self.hash(node.parent, node.name())
    }
}

impl Index {
    /// An empty index with room for `count` nodes.
    pub(super) fn new(seed: u64, count: usize) -> Index {
        // Shards differ in size by chance; an eighth more lets nearly all of them get by without growing.
        let each = if count < SHARDS { 0 } else { count / SHARDS + count / (8 * SHARDS) };
        Index {
            keys: Keys { seed, shared: SharedSeed::from_u64(seed) },
            shards: (0..SHARDS).map(|_| HashTable::with_capacity(each)).collect(),
        }
    }

    /// The child of `parent` with this name.
    #[inline]
    pub(super) fn find(&self, slab: &Slab, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.keys.hash(parent, name);
        let eq = |slot: &u32| {
            let node = slab.get(*slot);
            node.parent == parent && node.name() == name
        };
        self.shards[shard(hash)].find(hash, eq).copied()
    }

    /// Adds the node in `slot`, unless its parent has a child of that name already: then false.
    pub(super) fn insert(&mut self, slab: &Slab, slot: u32) -> bool {
        let node = slab.get(slot);
        let hash = self.keys.hash(node.parent, node.name());
        let table = &mut self.shards[shard(hash)];
        let eq = |other: &u32| {
            let other = slab.get(*other);
            other.parent == node.parent && other.name() == node.name()
        };
        if table.find(hash, eq).is_some() {
            return false;
        }
        table.insert_unique(hash, slot, |slot| self.keys.hash_of(slab, *slot));
        true
    }

    /// Takes the node in `slot`, which must still be there, out of the index.
    pub(super) fn remove(&mut self, slab: &Slab, slot: u32) {
        let hash = self.keys.hash_of(slab, slot);
        let table = &mut self.shards[shard(hash)];
        match table.find_entry(hash, |other| *other == slot) {
            Ok(entry) => entry.remove(),
            Err(_) => panic!("slot {slot} is in the index (I1)"),
        };
        if table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, |slot| self.keys.hash_of(slab, *slot));
        }
    }

    /// Nodes in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}

const fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::super::{AclId, node::Node};
    use super::*;
    use crate::wire::StatPersisted;

    #[test]
    fn every_child_is_found_by_its_name_under_its_own_parent_only() {
        let (mut slab, mut index) = (Slab::default(), Index::new(7, 0));
        let mut slots = Vec::new();
        for parent in 0..3 {
            for i in 0..5000 {
                let name = format!("n{i}");
                let node =
                    Node::new(parent, name.as_bytes(), None, AclId::OPEN, 0, &StatPersisted::default());
                let slot = slab.insert(node);
                assert!(index.insert(&slab, slot));
                slots.push((parent, name, slot));
            }
        }
        let twin = slab.insert(Node::new(0, b"n1", None, AclId::OPEN, 0, &StatPersisted::default()));
        assert!(!index.insert(&slab, twin));
        for (parent, name, slot) in &slots {
            assert_eq!(index.find(&slab, *parent, name.as_bytes()), Some(*slot));
        }
        assert_eq!(index.find(&slab, 3, b"n1"), None);
        for (parent, name, slot) in &slots[..14_990] {
            index.remove(&slab, *slot);
            slab.remove(*slot);
            assert_eq!(index.find(&slab, *parent, name.as_bytes()), None);
        }
        assert_eq!(index.len(), 10);
        let room: usize = index.shards.iter().map(HashTable::capacity).sum();
        assert!(room < 10 * SHARDS, "{room} places are kept for 10 nodes");
    }
}
