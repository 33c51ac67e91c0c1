//! Who keeps nodes alive: sessions with their ephemeral nodes, and the nodes that the reaper looks at.
//!
//! - O1: every node with an owner is in exactly one of the sets, and in none when it is gone.
//! - O2: sessions and owners are separate: replay may meet an ephemeral node before or after its session.

use super::maps::{self, Map, Set, State};
use super::node::Owner;
use crate::base::SessionId;

/// Sessions, and the nodes of each kind of owner.
#[derive(Debug)]
pub(super) struct Owners {
    state: State,
    /// Negotiated timeouts, ms.
    pub(super) sessions: Map<SessionId, i32>,
    ephemerals: Map<SessionId, Set<u32>>,
    ephemeral_count: usize,
    pub(super) containers: Set<u32>,
    pub(super) ttls: Set<u32>,
}

impl Owners {
    pub(super) fn new(seed: u64) -> Owners {
        let state = maps::state(seed);
        Owners {
            state,
            sessions: Map::with_hasher(state),
            ephemerals: Map::with_hasher(state),
            ephemeral_count: 0,
            containers: Set::with_hasher(state),
            ttls: Set::with_hasher(state),
        }
    }

    pub(super) fn add(&mut self, slot: u32, owner: Owner) {
        let added = match owner {
            Owner::Persistent => return,
            Owner::Container => self.containers.insert(slot),
            Owner::Ttl(_) => self.ttls.insert(slot),
            Owner::Ephemeral(session) => {
                self.ephemeral_count += 1;
                let nodes = self.ephemerals.entry(session).or_insert_with(|| Set::with_hasher(self.state));
                nodes.insert(slot)
            }
        };
        assert!(added, "slot {slot} is in one set once (O1)");
    }

    pub(super) fn remove(&mut self, slot: u32, owner: Owner) {
        let removed = match owner {
            Owner::Persistent => return,
            Owner::Container => self.containers.remove(&slot),
            Owner::Ttl(_) => self.ttls.remove(&slot),
            Owner::Ephemeral(session) => {
                self.ephemeral_count -= 1;
                let nodes = self.ephemerals.get_mut(&session).expect("the owner of a node is known (O1)");
                let removed = nodes.remove(&slot);
                if nodes.is_empty() {
                    self.ephemerals.remove(&session);
                }
                removed
            }
        };
        assert!(removed, "slot {slot} is in its owner's set (O1)");
    }

    pub(super) const fn ephemeral_count(&self) -> usize {
        self.ephemeral_count
    }

    pub(super) fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = u32> {
        self.ephemerals.get(&session).into_iter().flatten().copied()
    }

    pub(super) fn ephemerals_of(&self, session: SessionId) -> usize {
        self.ephemerals.get(&session).map_or(0, Set::len)
    }

    /// Sessions that own a node.
    pub(super) fn owners(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }
}
