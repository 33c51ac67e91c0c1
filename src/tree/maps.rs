//! Hash maps of the tree: hashbrown with seeded foldhash.

use std::hash::{BuildHasher, Hash};

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

pub(super) type Map<K, V> = hashbrown::HashMap<K, V, State>;
pub(super) type Set<K> = hashbrown::HashSet<K, State>;

/// Builds hashers from a seed; eight bytes in each map.
#[derive(Clone, Copy, Debug)]
pub(super) struct State(u64);

impl BuildHasher for State {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> FoldHasher<'static> {
        FoldHasher::with_seed(self.0, SharedSeed::global_fixed())
    }
}

pub(super) const fn state(seed: u64) -> State {
    State(seed)
}

pub(super) fn hash<T: Hash + ?Sized>(state: &State, v: &T) -> u64 {
    state.hash_one(v)
}
