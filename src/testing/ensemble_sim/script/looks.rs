//! Where the nodes of a script are.

use super::super::node::Process;
use super::{Directed, Script, Told};
use crate::base::{Epoch, Zxid};
use crate::node::member::Standing;
use crate::wire::election::PeerState;

impl Script<'_> {
    pub(super) fn process(&self, node: usize) -> Option<&Process> {
        self.world.nodes[node].process.as_deref()
    }

    pub(super) fn directed(&mut self) -> &mut Directed {
        self.world.directed.as_mut().expect("of a script")
    }

    /// The node that leads and serves in the latest epoch.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| match self.world.nodes[*node].serving() {
            Some(Standing::Leading { epoch }) => Some((epoch, *node)),
            _ => None,
        };
        (0..self.world.nodes.len()).filter_map(|node| leads(&node)).max().map(|(_, node)| node)
    }

    /// It leads, and serves.
    #[must_use]
    pub fn leads(&self, node: usize) -> bool {
        matches!(self.world.nodes[node].serving(), Some(Standing::Leading { .. }))
    }

    /// It has been elected, whether or not anybody has joined it.
    #[must_use]
    pub fn is_elected(&self, node: usize) -> bool {
        self.process(node).is_some_and(|p| p.member.peer_state() == PeerState::Leading)
    }

    /// It serves.
    #[must_use]
    pub fn serves(&self, node: usize) -> bool {
        self.world.nodes[node].serving().is_some()
    }

    /// Waits until all of them serve, in the epoch of a leader that is there.
    pub fn until_serve(&mut self, nodes: &[usize]) -> Told {
        self.until("all of them serve", |script| {
            nodes.iter().all(|node| script.serves_with_its_leader(*node))
        })
    }

    fn serves_with_its_leader(&self, node: usize) -> bool {
        match self.world.nodes[node].serving() {
            None => false,
            Some(Standing::Leading { .. }) => true,
            Some(Standing::Learning { leader, epoch, .. }) => {
                self.world.nodes[leader.0 as usize - 1].serving() == Some(Standing::Leading { epoch })
            }
        }
    }

    /// Last in its log.
    #[must_use]
    pub fn last(&self, node: usize) -> Zxid {
        self.process(node).map_or(Zxid::ZERO, |p| p.member.positions().appended())
    }

    /// Durable in its log.
    #[must_use]
    pub fn durable(&self, node: usize) -> Zxid {
        self.process(node).map_or(Zxid::ZERO, |p| p.member.positions().durable())
    }

    /// Known to it to be committed.
    #[must_use]
    pub fn committed(&self, node: usize) -> Zxid {
        self.process(node).map_or(Zxid::ZERO, |p| p.member.positions().committed())
    }

    /// In its tree.
    #[must_use]
    pub fn applied(&self, node: usize) -> Zxid {
        self.process(node).map_or(Zxid::ZERO, |p| p.tree.read().applied())
    }

    /// Accepted and current epoch.
    #[must_use]
    pub fn epochs(&self, node: usize) -> (Epoch, Epoch) {
        self.process(node).map_or((Epoch(0), Epoch(0)), |p| p.member.epochs())
    }

    /// Bytes of a state are on their way into it, or it is being installed.
    #[must_use]
    pub fn receives_state(&self, node: usize) -> bool {
        self.process(node).is_some_and(|p| p.member.is_receiving_state())
    }

    /// What its tree is to be made of is on its disk, and not a tree yet.
    #[must_use]
    pub fn is_without_tree(&self, node: usize) -> bool {
        self.process(node).is_some_and(|p| !p.member.has_tree())
    }

    /// States received so far, by all.
    #[must_use]
    pub fn states_received(&self) -> u64 {
        self.world.counts.snaps
    }

    /// How often a tree was found to differ, all counted.
    #[must_use]
    pub fn trees_that_differed(&self) -> u64 {
        self.world.counts.diverged
    }

    /// Trees that differed and were made anew from the node's own disk, by all.
    #[must_use]
    pub fn trees_made_anew(&self) -> u64 {
        self.world.counts.made_anew
    }

    /// Watch events that clients have heard so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.world.counts.events
    }

    /// Logs cut so far.
    #[must_use]
    pub fn logs_cut(&self) -> u64 {
        self.world.counts.truncated
    }

    /// Epochs that a leader has gone on into without an election.
    #[must_use]
    pub fn rollovers(&self) -> u64 {
        self.world.counts.rollovers
    }

    /// Times that anybody stopped serving.
    #[must_use]
    pub fn stops(&self) -> u64 {
        self.world.counts.stops
    }

    /// Waits until these nodes have applied all that is in the log of each of them, and it is the same.
    pub fn until_level(&mut self, nodes: &[usize]) -> Told {
        self.until("they are level", |script| {
            let last = script.last(nodes[0]);
            nodes.iter().all(|node| script.applied(*node) == last && script.last(*node) == last)
        })
    }
}
