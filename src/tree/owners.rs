//! Who keeps nodes alive: sessions with their ephemeral nodes, and the nodes that the reaper looks at.
//!
//! - O1: every node with an owner is in exactly one of the sets, and in none when it is gone.
//! - O2: sessions and owners are separate: replay may meet an ephemeral node before or after its session.
//! - O3: everything is ordered, so that long walks can let go of the tree and find their place again, and so that growing never copies
//!   all there is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::node::Owner;
use crate::base::SessionId;

/// Sessions, and the nodes of each kind of owner.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Negotiated timeouts, ms.
    pub(super) sessions: BTreeMap<SessionId, i32>,
    ephemerals: BTreeMap<SessionId, BTreeSet<u32>>,
    ephemeral_count: usize,
    pub(super) containers: BTreeSet<u32>,
    pub(super) ttls: BTreeSet<u32>,
}

impl Owners {
    pub(super) fn add(&mut self, slot: u32, owner: Owner) {
        let added = match owner {
            Owner::Persistent => return,
            Owner::Container => self.containers.insert(slot),
            Owner::Ttl(_) => self.ttls.insert(slot),
            Owner::Ephemeral(session) => {
                self.ephemeral_count += 1;
                self.ephemerals.entry(session).or_default().insert(slot)
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
        self.ephemerals.get(&session).map_or(0, BTreeSet::len)
    }

    /// Ephemeral nodes and their sessions behind `after`, ordered by session and slot.
    pub(super) fn ephemerals_after(
        &self,
        after: Option<(SessionId, u32)>,
    ) -> impl Iterator<Item = (SessionId, u32)> {
        let (session, slot) =
            after.map_or((SessionId(i64::MIN), None), |(session, slot)| (session, Some(slot)));
        self.ephemerals.range(session..).flat_map(move |(owner, slots)| {
            let first = match slot.filter(|_| *owner == session) {
                Some(slot) => Bound::Excluded(slot),
                None => Bound::Unbounded,
            };
            slots.range((first, Bound::Unbounded)).map(|slot| (*owner, *slot))
        })
    }

    /// Nodes that the reaper looks at, behind `after`: containers, then (true) TTL nodes, each by slot.
    pub(super) fn reaped_after(&self, after: Option<(bool, u32)>) -> impl Iterator<Item = (bool, u32)> {
        let from = |ttl: bool| match after {
            Some((last_ttl, slot)) if last_ttl == ttl => (Bound::Excluded(slot), Bound::Unbounded),
            // Those are behind us all.
            Some((true, _)) => (Bound::Excluded(u32::MAX), Bound::Unbounded),
            _ => (Bound::Unbounded, Bound::Unbounded),
        };
        let containers = self.containers.range::<u32, _>(from(false)).map(|slot| (false, *slot));
        containers.chain(self.ttls.range::<u32, _>(from(true)).map(|slot| (true, *slot)))
    }

    /// How many sessions own a node.
    pub(super) fn owner_count(&self) -> usize {
        self.ephemerals.len()
    }

    /// Sessions that own a node.
    pub(super) fn owners(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }
}
