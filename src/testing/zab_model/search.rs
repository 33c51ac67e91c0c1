//! Every state that can be reached, each once; within a bound, half of them near the roots and half far from them.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use super::actions::Action;
use super::invariants::Violation;
use super::state::World;
use crate::base::rng::Rng;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// States.
    pub states_max: usize,
    /// Of how many states one is asked whether everybody comes into step from there; 0 is of none.
    pub settle_one_in: u64,
}

/// What was looked at.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// States, each counted once.
    pub states: usize,
    /// Steps taken.
    pub steps: u64,
    /// Most steps between a root and a state.
    pub deepest: u32,
    /// States from which everybody came into step.
    pub settled: u64,
    /// Nothing is left to look at.
    pub complete: bool,
    /// The search ended with it.
    pub found: Option<Found>,
}

/// A rule that does not hold, and the way there.
#[derive(Clone, Debug)]
pub struct Found {
    /// What.
    pub violation: Violation,
    /// Which of the roots it begins at.
    pub root: usize,
    /// The steps from there.
    pub trace: Vec<Action>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} (from root {})", self.violation.rule, self.violation.what, self.root)?;
        self.trace.iter().try_for_each(|action| writeln!(f, "    {action:?}"))
    }
}

/// How a state was reached.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: Option<(u32, Action)>,
    root: u32,
    depth: u32,
}

struct Search {
    seen: HashSet<u128, std::hash::BuildHasherDefault<Same>>,
    ways: Vec<Way>,
    /// Not looked at yet, in the order in which they were reached.
    near: VecDeque<(u32, World)>,
    /// Not looked at yet, of the way into the depth that is being followed.
    far: Vec<(u32, World)>,
    /// Which ways into the depth are followed.
    rng: Rng,
    report: Report,
    limits: Limits,
}

/// Looks at what can be reached from `roots`, until a rule does not hold, or the bound is met.
#[must_use]
pub fn search(roots: Vec<World>, limits: Limits) -> Report {
    let mut search = Search::new(limits);
    search.run(roots);
    search.report
}

/// Of one way into the depth, before another is begun.
const DIVE_STATES: u32 = 200;

impl Search {
    fn new(limits: Limits) -> Search {
        let (seen, ways, near, far) = Default::default();
        let report = Report { complete: true, ..Report::default() };
        Search { seen, ways, near, far, rng: Rng::new(1), report, limits }
    }

    fn run(&mut self, roots: Vec<World>) {
        for (root, world) in roots.into_iter().enumerate() {
            let reached = self.reach(world, Way { from: None, root: root as u32, depth: 0 });
            self.near.extend(reached);
        }
        while self.report.found.is_none() && !(self.near.is_empty() && self.far.is_empty()) {
            self.broaden();
            self.deepen();
        }
        self.report.states = self.seen.len();
    }

    /// Those that were reached first.
    fn broaden(&mut self) {
        for _ in 0..DIVE_STATES {
            let Some((at, world)) = self.near.pop_front() else { return };
            let reached = self.expand(at, &world);
            self.near.extend(reached);
        }
    }

    /// Always on from what was reached last, beginning anywhere.
    fn deepen(&mut self) {
        if !self.near.is_empty() {
            let seed = self.rng.below(self.near.len() as u64) as usize;
            self.far.extend(self.near.swap_remove_back(seed));
        }
        for _ in 0..DIVE_STATES {
            let Some((at, world)) = self.far.pop() else { return };
            let mut reached = self.expand(at, &world);
            if !reached.is_empty() {
                let (next, last) = (self.rng.below(reached.len() as u64) as usize, reached.len() - 1);
                reached.swap(next, last);
            }
            self.far.extend(reached);
        }
        self.near.extend(self.far.drain(..));
    }

    /// Takes every step; returns what is new.
    fn expand(&mut self, at: u32, world: &World) -> Vec<(u32, World)> {
        let mut reached = Vec::new();
        if self.report.found.is_some() {
            return reached;
        }
        let way = self.ways[at as usize];
        for action in world.actions() {
            if self.seen.len() >= self.limits.states_max {
                self.report.complete = false;
                self.near.clear();
                self.far.clear();
                return Vec::new();
            }
            self.report.steps += 1;
            let next = Way { from: Some((at, action)), depth: way.depth + 1, ..way };
            reached.extend(self.reach(world.after(action), next));
            if self.report.found.is_some() {
                break;
            }
        }
        reached
    }

    fn reach(&mut self, world: World, way: Way) -> Option<(u32, World)> {
        if let Some(violation) = world.violation {
            self.report.found = Some(self.found(violation, way));
            return None;
        }
        let sum = world.fingerprint();
        if !self.seen.insert(sum) {
            return None;
        }
        self.report.deepest = self.report.deepest.max(way.depth);
        if self.limits.settle_one_in > 0 && (sum as u64).is_multiple_of(self.limits.settle_one_in) {
            if let Err(mut violation) = world.settle() {
                violation.what.push_str(" (when nothing fails any more)");
                self.report.found = Some(self.found(violation, way));
                return None;
            }
            self.report.settled += 1;
        }
        let at = u32::try_from(self.ways.len()).expect("bounded by memory long before");
        self.ways.push(way);
        Some((at, world))
    }

    fn found(&self, violation: Violation, way: Way) -> Found {
        let (mut trace, mut next) = (Vec::new(), way.from);
        while let Some((at, action)) = next {
            trace.push(action);
            next = self.ways[at as usize].from;
        }
        trace.reverse();
        Found { violation, root: way.root as usize, trace }
    }
}

/// Fingerprints are mixed already.
#[derive(Clone, Copy, Debug, Default)]
struct Same(u64);

impl std::hash::Hasher for Same {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, sum: u128) {
        self.0 = sum as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::links::LinkSet;
    use super::super::roots::fresh;
    use super::super::state::Bounds;
    use super::*;

    /// Every state there is, without symmetry and urgency, is one that the search looks at: renamed, and with what is urgent taken.
    #[test]
    fn what_the_search_leaves_out_is_what_it_looks_at() {
        let left = Bounds { elections: 1, txns: 1, breaks: 1, cuts: 1, ..Bounds::NONE };
        let links = LinkSet::all().next().expect("the empty one");
        let mut reduced = Search::new(Limits { states_max: usize::MAX, settle_one_in: 0 });
        reduced.run(fresh(links, None, left));
        let with_urgency = fresh(links, None, left)[0].setup.clone();
        let mut all = fresh(links, None, left);
        let mut plain = super::super::state::Setup::new(links, None);
        (plain.symmetries, plain.urgency) = (vec![[0, 1, 2]], false);
        all[0].setup = std::sync::Arc::new(plain);
        let (mut seen, mut missed) = (HashSet::new(), 0);
        while let Some(world) = all.pop() {
            let mut same = world.clone();
            same.setup = with_urgency.clone();
            let carrying = std::mem::replace(&mut same.carrying, LinkSet::whole());
            while let Some(action) = same.urgent() {
                same = same.after(action);
            }
            same.carrying = carrying;
            missed += usize::from(!reduced.seen.contains(&same.fingerprint()));
            let next = world.actions().into_iter().map(|action| world.after(action));
            all.extend(next.filter(|next| seen.insert(next.fingerprint())));
        }
        println!("{} states instead of {}", reduced.seen.len(), seen.len());
        assert_eq!(missed, 0, "states that no search would come to");
        assert!(seen.len() > 4 * reduced.seen.len(), "it leaves out something");
    }
}
