//! Plans carried out on a model: a tree of epochs, each begun somewhere in an earlier one, by leaders with and without a quorum behind them.

use super::{History, Plan, plan};
use crate::base::rng::Rng;
use crate::base::{Epoch, Zxid};

/// A log, oldest first; `base` records are left out of it from the front.
#[derive(Clone, Debug)]
struct Node {
    log: Vec<Zxid>,
    base: Zxid,
    epoch: Epoch,
}

impl Node {
    fn new(log: &[Zxid], snapshotted: usize, epoch: Epoch) -> Node {
        let (gone, log) = log.split_at(snapshotted);
        Node { log: log.to_vec(), base: gone.last().copied().unwrap_or_default(), epoch }
    }

    fn last(&self) -> Zxid {
        self.log.last().copied().unwrap_or(self.base)
    }

    /// As ZooKeeper's learners: the beginning of the epoch when nothing of it was logged.
    fn reported_by_java(&self) -> Zxid {
        self.last().max(Zxid::new(self.epoch, 0))
    }

    /// Carries out a plan of `leader`. False when there is nothing to cut at `to`: then the cut is below it, and another plan is needed.
    fn follow(&mut self, leader: &Node, plan: Plan) -> bool {
        let from = match plan {
            Plan::Snap => {
                self.clone_from(leader);
                return true;
            }
            Plan::Diff { after } => {
                assert_eq!(self.last(), after, "a DIFF follows the learner's own last record");
                after
            }
            Plan::Trunc { to } if to < self.base => {
                // Only in snapshots, and those are of a history that is not the leader's: nothing is left.
                (self.log, self.base) = (Vec::new(), Zxid::ZERO);
                return false;
            }
            Plan::Trunc { to } => {
                self.log.retain(|zxid| *zxid <= to);
                if self.last() != to {
                    return false;
                }
                to
            }
        };
        assert!(from >= leader.base, "what is sent is in the log");
        self.log.extend(leader.log.iter().filter(|zxid| **zxid > from));
        true
    }
}

impl History for Node {
    fn base(&self) -> Zxid {
        self.base
    }

    fn floor(&self, zxid: Zxid) -> Zxid {
        assert!(zxid >= self.base, "as promised");
        self.log.iter().rev().find(|z| **z <= zxid).copied().unwrap_or(self.base)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// The whole histories that leaders made: each begins with a piece of an earlier one.
fn chains(rng: &mut Rng) -> Vec<(Epoch, usize, Vec<Zxid>)> {
    let mut chains = vec![(Epoch(0), 0, (1..=rng.below(4) as u32).map(|c| z(0, c)).collect::<Vec<_>>())];
    for epoch in 1..=2 + rng.below(5) as u32 {
        let (_, _, parent) = &chains[rng.below(chains.len() as u64) as usize];
        let begun_with = rng.below(parent.len() as u64 + 1) as usize;
        let own = (1..=rng.below(4) as u32).map(|c| z(epoch, c));
        let log = parent[..begun_with].iter().copied().chain(own).collect();
        chains.push((Epoch(epoch), begun_with, log));
    }
    chains
}

/// Somebody who has followed one of these leaders for a while, and may have snapshots.
fn node(rng: &mut Rng, chains: &[(Epoch, usize, Vec<Zxid>)]) -> Node {
    let (epoch, begun_with, log) = &chains[rng.below(chains.len() as u64) as usize];
    let len = begun_with + rng.below((log.len() - begun_with) as u64 + 1) as usize;
    let snapshotted = rng.below(len as u64 + 1) as usize;
    Node::new(&log[..len], if rng.below(2) == 0 { 0 } else { snapshotted }, *epoch)
}

#[test]
fn whoever_leads_and_whatever_a_learner_has_it_ends_with_the_leaders_history() {
    let (mut plans, mut again) = ([0; 3], 0);
    for seed in 0..20_000 {
        let mut rng = Rng::new(seed);
        let chains = chains(&mut rng);
        let (leader, mut learner) = (node(&mut rng, &chains), node(&mut rng, &chains));
        for round in 0.. {
            assert!(round < 16, "seed {seed}: each cut leaves less");
            let zabra = rng.below(2) == 0;
            let reports = if zabra { learner.last() } else { learner.reported_by_java() };
            // A cut may leave less than the epoch began with: then the beginning is no longer what the learner has.
            let reports = if round == 0 { reports } else { learner.last() };
            let plan = plan(&leader, reports, zabra);
            plans[match plan {
                Plan::Diff { .. } => 0,
                Plan::Trunc { .. } => 1,
                Plan::Snap => 2,
            }] += 1;
            if learner.follow(&leader, plan) {
                break;
            }
            again += 1;
        }
        // What a learner has in snapshots is not told apart by zxid, but it ends at a record.
        assert_eq!(learner.last(), leader.last(), "seed {seed}");
        let common_base = learner.base.max(leader.base);
        let behind = |node: &Node| node.log.iter().copied().filter(|z| *z > common_base).collect::<Vec<_>>();
        assert_eq!(behind(&learner), behind(&leader), "seed {seed}");
    }
    assert!(plans.iter().all(|n| *n > 500) && again > 50, "all of them are tried: {plans:?}, {again}");
}

/// ZOOKEEPER-1154: a node with one transaction too many was sent a DIFF without a TRUNC, because its last zxid lay within the leader's bounds.
#[test]
fn a_tail_that_nobody_else_has_is_cut_though_it_lies_within_the_bounds() {
    let leader = Node::new(&[z(1, 1), z(1, 2), z(2, 1)], 0, Epoch(2));
    assert_eq!(plan(&leader, z(1, 3), true), Plan::Trunc { to: z(1, 2) });
    assert_eq!(plan(&leader, z(1, 3), false), Plan::Trunc { to: z(1, 2) });
}

/// ZOOKEEPER-4352: zxid 0 at the boundary was taken for one that the leader's log reaches back to.
#[test]
fn a_new_node_gets_the_whole_state_unless_the_log_has_all_of_it() {
    assert_eq!(plan(&Node::new(&[z(0, 1), z(0, 2)], 1, Epoch(0)), Zxid::ZERO, true), Plan::Snap);
    assert_eq!(
        plan(&Node::new(&[z(0, 1), z(0, 2)], 0, Epoch(0)), Zxid::ZERO, true),
        Plan::Diff { after: Zxid::ZERO }
    );
}

/// ZooKeeper walks on from the first record above a bare epoch, though the learner may have less below it than the leader.
#[test]
fn the_bare_beginning_of_an_epoch_counts_only_if_the_leader_entered_that_epoch() {
    let never = Node::new(&[z(3, 4), z(3, 5), z(5, 1)], 0, Epoch(5));
    assert_eq!(plan(&never, z(4, 0), false), Plan::Snap, "the leader of 4 may have begun without (3, 5)");
    let idle = Node::new(&[z(3, 4), z(3, 5)], 0, Epoch(4));
    assert_eq!(
        plan(&idle, z(4, 0), false),
        Plan::Diff { after: z(3, 5) },
        "both entered 4 and logged nothing"
    );
    let busy = Node::new(&[z(3, 5), z(4, 1), z(5, 1)], 0, Epoch(5));
    assert_eq!(plan(&busy, z(4, 0), false), Plan::Diff { after: z(3, 5) });
}

/// What a learner knows to be committed is not replaced unseen by the state of a leader that lacks it.
#[test]
fn a_history_that_the_leader_lacks_is_cut_where_that_can_be_refused() {
    let other = Node::new(&[z(2, 1), z(2, 2)], 0, Epoch(2));
    assert_eq!(plan(&other, z(1, 9), true), Plan::Trunc { to: Zxid::ZERO });
    assert_eq!(
        plan(&other, z(1, 9), false),
        Plan::Snap,
        "ZooKeeper's cannot say that they do not have the place"
    );
    let state_alone = Node::new(&[z(1, 5), z(1, 6)], 2, Epoch(2));
    assert_eq!(plan(&state_alone, z(1, 8), true), Plan::Trunc { to: z(1, 6) });
    assert_eq!(plan(&state_alone, z(1, 5), true), Plan::Snap);
}
