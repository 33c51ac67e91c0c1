//! What must hold in every state, and what each step says about itself.
//!
//! - V1 an epoch is established once, by one server.
//! - V2 what is said to be committed is, from then on, in the durable log of a quorum (or was, where a disk was lost).
//! - V3 what anybody holds committed, and so what it applies, is a beginning of one history; an established leader has all of it.
//! - V4 an epoch told, promised or acknowledged is durable with who tells it; a crash does not lose it. A learner
//!   tells a leader something only while it is promised to that epoch and to no later one.
//! - V5 current ≤ accepted; neither goes back; nothing is logged of an epoch that is not promised.
//! - V6 history durable, then the epoch durable, then the ACK of NEWLEADER.
//! - V7 nothing is taken for committed before UPTODATE, nothing is acknowledged before it is durable.
//! - V8 a learner behind NEWLEADER has what its leader has, up to where it is: no more, no less.
//! - V9 two logs that hold the same zxid are equal up to it, contents too.
//! - V10 honest servers never find each other out of order, with gaps or without what is committed, and no machine's own assertion fails.

use super::state::{NODES, Node, Role, Txn, World};
use crate::base::Epoch;

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `V1` to `V10`; `L` when three servers without failures do not come into step.
    pub rule: &'static str,
    /// What was found.
    pub what: String,
}

impl World {
    /// Notes the first violation.
    pub(super) fn require(&mut self, holds: bool, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { rule, what: what() });
        }
    }

    /// V2 to V5, V8, V9.
    pub(super) fn check(&mut self) {
        if self.violation.is_none() {
            self.violation = self.broken().map(|(rule, what)| Violation { rule, what });
        }
    }

    fn broken(&self) -> Option<(&'static str, String)> {
        let holds = |n: &&Node| {
            [&n.log[..n.durable_len], &n.held_once.1].iter().any(|log| starts_with(log, &self.chosen))
        };
        let holders = self.nodes.iter().filter(holds).count();
        if 2 * holders <= NODES {
            return Some(("V2", format!("{:?} is durable with {holders}", self.chosen)));
        }
        for (at, n) in self.nodes.iter().enumerate() {
            if let Some((rule, what)) = self.broken_at(n) {
                return Some((rule, format!("server {}: {what}", at + 1)));
            }
        }
        let pairs = [(0, 1), (0, 2), (1, 2)];
        let apart = pairs.into_iter().find(|(a, b)| !agree(&self.nodes[*a].log, &self.nodes[*b].log))?;
        Some(("V9", format!("servers {} and {} differ below a common zxid", apart.0 + 1, apart.1 + 1)))
    }

    fn broken_at(&self, n: &Node) -> Option<(&'static str, String)> {
        let committed = &n.log[..n.len_upto(n.committed)];
        let rules: [(&'static str, bool, &str); 6] = [
            ("V3", starts_with(&self.chosen, committed), "committed is what no leader has committed"),
            ("V3", n.committed <= n.last(), "committed is not in the log"),
            ("V4", n.told <= n.accepted, "an epoch told is forgotten"),
            ("V5", n.current <= n.accepted, "an epoch is entered that is not accepted"),
            ("V5", n.last().epoch() <= n.accepted, "logged is what is of an epoch not promised"),
            ("V9", n.log.windows(2).all(|w| w[0].zxid < w[1].zxid), "zxids do not grow"),
        ];
        let broken = rules.into_iter().find(|(_, holds, _)| !holds);
        broken.map(|(rule, _, what)| (rule, what.to_string())).or_else(|| self.out_of_step(n))
    }

    /// V8.
    fn out_of_step(&self, n: &Node) -> Option<(&'static str, String)> {
        let Role::Following(follow) = &n.role else { return None };
        let link = self.link(follow.link).expect("an attachment has its connection");
        let behind_new_leader = follow.history_len.is_some() && !link.leader_gone;
        (behind_new_leader && !starts_with(&self.nodes[link.leader].log, &n.log))
            .then(|| ("V8", format!("{:?} is not a beginning of its leader's history", n.log)))
    }

    /// V1 to V3: a leader says that its history up to what is committed is.
    pub(super) fn choose(&mut self, node: usize, epoch: Epoch) {
        let n = &self.nodes[node];
        let history = n.log[..n.len_upto(n.committed)].to_vec();
        // An acknowledgement given before a disk was lost is not taken back.
        let holds = |n: &&Node| {
            let logs = [(n.current, &n.log[..n.durable_len]), (n.held_once.0, &n.held_once.1)];
            logs.iter().any(|(current, log)| *current >= epoch && starts_with(log, &history))
        };
        let holders = self.nodes.iter().filter(holds).count();
        let committed = n.committed;
        self.require(2 * holders > NODES, "V2", || {
            format!("{committed} is held by {holders} in epoch {epoch}")
        });
        let agrees = starts_with(&history, &self.chosen) || starts_with(&self.chosen, &history);
        self.require(agrees, "V3", || format!("epoch {epoch} commits another history"));
        if history.len() > self.chosen.len() {
            self.chosen = history;
        }
    }
}

/// Is `beginning` that of `log`?
fn starts_with(log: &[Txn], beginning: &[Txn]) -> bool {
    log.starts_with(beginning)
}

/// Equal up to the greatest zxid that both have.
fn agree(a: &[Txn], b: &[Txn]) -> bool {
    let Some(common) = a.iter().rposition(|x| b.iter().any(|y| x.zxid == y.zxid)) else { return true };
    b.len() > common && a[..=common] == b[..=common]
}
