//! A state: three servers, what is under way among them, and what is remembered only to judge it.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use super::hash::Wide;
use super::invariants::Violation;
use super::links::{LinkSet, Renaming};
use super::mutation::Mutation;
use crate::base::{Epoch, MonoMs, ServerId, Zxid};
use crate::wire::quorum_config::{Electorate, QuorumConfig};
use crate::zab::{History, Leader, Learner, Limits, LinkId};

/// Servers.
pub(super) const NODES: usize = 3;
/// Connections of one learner to one leader that one of the two may still know.
pub(super) const SLOTS: usize = 2;
/// Time stands.
pub(super) const NOW: MonoMs = MonoMs(1);

/// A transaction: what it is called, and which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Txn {
    pub(super) zxid: Zxid,
    pub(super) content: u8,
}

/// To a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Up {
    Info(Epoch),
    AckEpoch(Option<Epoch>, Zxid),
    Ack(Zxid),
}

/// To a learner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Down {
    Info(Epoch),
    Diff(Zxid),
    Trunc(Zxid),
    Snap(Vec<Txn>),
    Proposal(Txn),
    Commit(Zxid),
    NewLeader(Zxid),
    UpToDate,
}

/// Something a disk has been asked for; the log's flushes aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum DiskOp {
    Accept(Epoch),
    Enter(Epoch),
    Truncate(Zxid),
    Install(Vec<Txn>),
}

/// A connection, as long as one of the two knows it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) leader: usize,
    pub(super) learner: usize,
    pub(super) slot: usize,
    /// The leadership it belongs to is over, or has dropped it. What it had sent may still come.
    pub(super) leader_gone: bool,
    /// The attachment is over. What it had sent may still come.
    pub(super) learner_gone: bool,
    /// NEWLEADER was sent: what is proposed and committed is sent too.
    pub(super) fed: bool,
    pub(super) up: VecDeque<Up>,
    pub(super) down: VecDeque<Down>,
}

impl Link {
    pub(super) const fn id(&self) -> LinkId {
        link_id(self.leader, self.learner, self.slot)
    }
}

pub(super) const fn link_id(leader: usize, learner: usize, slot: usize) -> LinkId {
    LinkId(((leader * NODES + learner) * SLOTS + slot) as u64)
}

pub(super) const fn id_of(node: usize) -> ServerId {
    ServerId(node as i64 + 1)
}

/// What a server is.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// Or down.
    Looking,
    Leading(Box<Leader>),
    Following(Box<Follow>),
}

#[derive(Clone, Debug)]
pub(super) struct Follow {
    pub(super) learner: Learner,
    pub(super) link: LinkId,
    /// Records in the log when NEWLEADER came.
    pub(super) history_len: Option<usize>,
}

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) role: Role,
    pub(super) log: Vec<Txn>,
    /// Records that a crash leaves.
    pub(super) durable_len: usize,
    /// Records that are in snapshots only.
    pub(super) base_len: usize,
    pub(super) accepted: Epoch,
    pub(super) current: Epoch,
    /// Known to be committed; what of it is durable is applied.
    pub(super) committed: Zxid,
    /// What a start knows of it.
    pub(super) committed_durable: Zxid,
    pub(super) op: Option<DiskOp>,
    /// It has lost its disk, and not followed since: it has no vote, leads nobody, and its promises do not count.
    pub(super) forgot: bool,
    /// To judge: what a lost disk held, and the epoch that it was in.
    pub(super) held_once: (Epoch, Vec<Txn>),
    /// To judge: the greatest epoch told to anybody.
    pub(super) told: Epoch,
    /// Of a mutation alone: received by an attachment that is over.
    pub(super) late: Vec<Txn>,
}

impl Node {
    fn new() -> Node {
        Node {
            role: Role::Looking,
            log: Vec::new(),
            durable_len: 0,
            base_len: 0,
            accepted: Epoch(0),
            current: Epoch(0),
            committed: Zxid::ZERO,
            committed_durable: Zxid::ZERO,
            op: None,
            forgot: false,
            held_once: (Epoch(0), Vec::new()),
            told: Epoch(0),
            late: Vec::new(),
        }
    }

    pub(super) fn zxid_at(&self, len: usize) -> Zxid {
        len.checked_sub(1).map_or(Zxid::ZERO, |at| self.log[at].zxid)
    }

    pub(super) fn last(&self) -> Zxid {
        self.zxid_at(self.log.len())
    }

    pub(super) fn durable(&self) -> Zxid {
        self.zxid_at(self.durable_len)
    }

    pub(super) fn len_upto(&self, zxid: Zxid) -> usize {
        self.log.iter().take_while(|txn| txn.zxid <= zxid).count()
    }

    pub(super) fn applied_len(&self) -> usize {
        self.len_upto(self.committed).min(self.durable_len)
    }

    pub(super) const fn is_looking(&self) -> bool {
        matches!(self.role, Role::Looking)
    }

    /// By what an election judges.
    pub(super) fn rank(&self) -> (Epoch, Zxid) {
        (self.current, self.last())
    }
}

impl History for Node {
    fn base(&self) -> Zxid {
        self.zxid_at(self.base_len)
    }

    fn floor(&self, zxid: Zxid) -> Zxid {
        let kept = &self.log[self.base_len..];
        kept.iter().rev().find(|txn| txn.zxid <= zxid).map_or(self.base(), |txn| txn.zxid)
    }

    fn epoch(&self) -> Epoch {
        self.current
    }
}

/// How often each of these may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Elections, of whomever.
    pub elections: u8,
    /// Those among them of somebody who is behind a quorum, or whom nobody can reach.
    pub wrong: u8,
    /// Transactions proposed.
    pub txns: u8,
    /// Crashes.
    pub crashes: u8,
    /// Connections that end at one side, and roles given up, for no reason the other side gave.
    pub breaks: u8,
    /// Snapshots that let the log before them go.
    pub snapshots: u8,
    /// Losses of the directions that the link set lacks.
    pub cuts: u8,
    /// Their return.
    pub heals: u8,
    /// Disks lost.
    pub losses: u8,
}

/// What does not change in a search.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) electorate: Electorate,
    pub(super) limits: Limits,
    /// The directions left after a cut.
    pub(super) links: LinkSet,
    pub(super) symmetries: Vec<Renaming>,
    pub(super) mutation: Option<Mutation>,
    /// See [`World::urgent`].
    pub(super) urgency: bool,
}

impl Setup {
    pub(super) fn new(links: LinkSet, mutation: Option<Mutation>) -> Setup {
        let text: String = (1..=NODES).map(|id| format!("server.{id}=h{id}:1:2:participant\n")).collect();
        let config = QuorumConfig::parse(&text).expect("a configuration");
        Setup {
            electorate: Electorate::new(Arc::new(config), None),
            limits: Limits::new(2000, 10, 5, 500, 100),
            links,
            symmetries: links.symmetries(),
            mutation,
            urgency: true,
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct World {
    pub(super) setup: Arc<Setup>,
    pub(super) nodes: [Node; NODES],
    /// In no order that counts.
    pub(super) links: Vec<Link>,
    /// The directions that carry.
    pub(super) carrying: LinkSet,
    pub(super) left: Bounds,
    /// The next transaction's.
    pub(super) next_content: u8,
    /// To judge: who established which epoch.
    pub(super) established: Vec<(Epoch, usize)>,
    /// To judge: what a leader has said is committed.
    pub(super) chosen: Vec<Txn>,
    pub(super) violation: Option<Violation>,
}

impl World {
    /// Where no cut is to come, the link set is there from the beginning.
    pub(super) fn new(setup: Setup, left: Bounds) -> World {
        let carrying = if left.cuts == 0 { setup.links } else { LinkSet::whole() };
        World {
            setup: Arc::new(setup),
            nodes: std::array::from_fn(|_| Node::new()),
            links: Vec::new(),
            carrying,
            left,
            next_content: 1,
            established: Vec::new(),
            chosen: Vec::new(),
            violation: None,
        }
    }

    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.setup.mutation == Some(mutation)
    }

    pub(super) fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.iter().find(|link| link.id() == id)
    }

    pub(super) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id() == id)
    }

    /// The same for states that differ by a renaming under which the link set stays.
    pub(super) fn fingerprint(&self) -> u128 {
        self.setup.symmetries.iter().map(|to| self.fingerprint_as(to)).min().expect("one changes nothing")
    }

    fn fingerprint_as(&self, to: &Renaming) -> u128 {
        let into = &mut Wide::new();
        let at = |place: usize| to.iter().position(|p| *p == place).expect("a renaming");
        let order: [usize; NODES] = std::array::from_fn(at);
        for node in order {
            self.nodes[node].fingerprint(node, to, &order, into);
        }
        for (leader, learner, slot) in slots(&order) {
            if let Some(link) = self.link(link_id(leader, learner, slot)) {
                (to[leader], to[learner], slot, link.leader_gone, link.learner_gone, link.fed).hash(into);
                link.up.hash(into);
                link.down.hash(into);
            }
        }
        (self.carrying == self.setup.links, self.left, self.next_content).hash(into);
        self.established.iter().for_each(|(epoch, node)| (epoch, to[*node]).hash(into));
        self.chosen.hash(into);
        into.sum()
    }
}

/// Every place for a connection, in an order of servers.
fn slots(order: &[usize; NODES]) -> impl Iterator<Item = (usize, usize, usize)> {
    let pairs = order.iter().flat_map(|a| order.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b);
    pairs.flat_map(|(a, b)| (0..SLOTS).map(move |slot| (a, b, slot)))
}

impl Node {
    fn fingerprint(&self, me: usize, to: &Renaming, order: &[usize; NODES], into: &mut Wide) {
        match &self.role {
            Role::Looking => 0_u8.hash(into),
            Role::Leading(leader) => {
                1_u8.hash(into);
                let mine = slots(order).filter(|slot| slot.0 == me).map(|(a, b, slot)| link_id(a, b, slot));
                leader.fingerprint(|id| to[id.0 as usize - 1] as u32, mine, into);
            }
            Role::Following(follow) => {
                // Its link is the one that it has not left.
                (2_u8, follow.history_len).hash(into);
                follow.learner.fingerprint(into);
            }
        }
        (&self.log, self.durable_len, self.base_len, self.accepted, self.current).hash(into);
        (self.committed, self.committed_durable, &self.op, self.told, &self.late).hash(into);
        (self.forgot, &self.held_once).hash(into);
    }
}
