//! Failures end: does everybody come into step? A fair order of steps, and what a timer does where nothing moves.

use super::actions::Action;
use super::invariants::Violation;
use super::links::LinkSet;
use super::state::{Bounds, NODES, Role, World};

/// Some expired limits and elections.
const ROUNDS_MAX: u32 = 40;
/// A machine that waits longer than this for others gives up.
const PATIENCE_ROUNDS: u32 = 4;

impl World {
    /// All directions carry, nobody crashes: one established leader, two learners in step, and then a write that all have.
    ///
    /// # Errors
    /// They do not come there, or something is wrong on the way.
    pub(super) fn settle(&self) -> Result<(), Violation> {
        let mut world = self.clone();
        world.carrying = LinkSet::whole();
        world.left = Bounds { elections: u8::MAX, breaks: u8::MAX, txns: 1, ..Bounds::NONE };
        for round in 1..=ROUNDS_MAX {
            world.quiesce();
            if world.violation.is_some() || world.is_in_step() {
                break;
            }
            if round % PATIENCE_ROUNDS == 0 {
                world.lose_patience();
            } else {
                world.find_a_leader();
            }
        }
        let stuck = !world.is_in_step();
        world.require(!stuck, "L", || format!("not in step after {ROUNDS_MAX} rounds"));
        world.require_one_history("what is committed");
        if world.violation.is_none() {
            let leader = (0..NODES).find(|n| matches!(world.nodes[*n].role, Role::Leading(_)));
            world = world.after(Action::Propose(leader.expect("in step")));
            world.quiesce();
            world.require_one_history("a write");
        }
        world.violation.map_or(Ok(()), Err)
    }

    fn require_one_history(&mut self, what: &str) {
        let all = self.nodes.iter().all(|n| n.log == self.chosen && n.applied_len() == n.log.len());
        self.require(all, "L", || format!("{what} is not with everybody"));
    }

    /// Everything that is under way arrives, and disks do what they were asked for.
    pub(super) fn quiesce(&mut self) {
        while let Some(action) = self.next_fair() {
            *self = self.after(action);
        }
    }

    pub(super) fn next_fair(&self) -> Option<Action> {
        if self.violation.is_some() {
            return None;
        }
        // For a reason only.
        let mut calm = self.clone();
        calm.left = Bounds::NONE;
        let is_fair = |action: &Action| match action {
            Action::Follow(..) | Action::Leave(_, true) => false,
            Action::Leave(node, _) => matches!(self.nodes[*node].role, Role::Following(_)),
            _ => true,
        };
        calm.actions().into_iter().find(is_fair)
    }

    fn is_in_step(&self) -> bool {
        let of = |f: fn(&Role) -> bool| self.nodes.iter().filter(|n| f(&n.role)).count();
        let leaders = of(|role| matches!(role, Role::Leading(leader) if leader.is_established()));
        let learners = of(|role| matches!(role, Role::Following(follow) if follow.learner.is_in_step()));
        leaders == 1 && learners == NODES - 1
    }

    fn lose_patience(&mut self) {
        for node in 0..NODES {
            let gives_up = match &self.nodes[node].role {
                Role::Looking => false,
                Role::Leading(leader) => {
                    2 * leader.followers_in_step().len() <= NODES || !leader.is_established()
                }
                Role::Following(follow) => !follow.learner.is_in_step(),
            };
            if gives_up && self.violation.is_none() {
                *self = self.after(Action::Leave(node, false));
            }
        }
    }

    /// Those who look join the leader there is, or elect the best of them.
    fn find_a_leader(&mut self) {
        let looking: Vec<usize> = (0..NODES).filter(|n| self.nodes[*n].is_looking()).collect();
        let standing = |n: &usize| match &self.nodes[*n].role {
            Role::Leading(leader) => Some((leader.is_established(), self.nodes[*n].accepted)),
            _ => None,
        };
        let leader = (0..NODES).filter(|n| standing(n).is_some()).max_by_key(standing);
        match leader {
            Some(leader) => {
                for node in looking {
                    if self.free_slot(leader, node).is_some() && self.violation.is_none() {
                        *self = self.after(Action::Follow(node, leader));
                    }
                }
            }
            None if 2 * looking.len() > NODES => {
                let stand = looking.into_iter().filter(|n| !self.nodes[*n].forgot);
                let best = stand.max_by_key(|n| (self.nodes[*n].rank(), *n));
                *self = self.after(Action::Elect(best.expect("a quorum is not empty")));
            }
            None => {}
        }
    }
}
