//! The small model of ZAB (`zabra::testing::zab_model`): complete within small bounds, a slice of what is beyond, and the proof that it would see a
//! mistake. `ZABRA_ZAB_STATES=n` looks at so many states per class of link sets instead of the slice.

use std::collections::BTreeMap;
use std::time::Instant;

use zabra::testing::seeded::number_from_env;
use zabra::testing::zab_model::{Bounds, Limits, LinkSet, Mutation, Report, World, fresh, roots, search};

/// Small enough to be looked at in whole, from the empty ensemble on.
const SMALL: Bounds = Bounds { elections: 2, txns: 1, crashes: 1, ..Bounds::NONE };

/// The same with a disk that is lost in place of a crash.
const LOSS: Bounds = Bounds { crashes: 0, losses: 1, ..SMALL };

/// Around each moment of the stories.
const LARGE: Bounds = Bounds {
    elections: 2,
    wrong: 1,
    txns: 2,
    crashes: 2,
    breaks: 1,
    snapshots: 1,
    cuts: 1,
    heals: 1,
    losses: 1,
};

const SLICE_STATES: usize = 25_000;

fn states_max(usual: usize) -> usize {
    number_from_env("ZABRA_ZAB_STATES").map_or(usual, |count| count as usize)
}

/// Of all link sets of one shape.
#[derive(Default)]
struct Line {
    sets: usize,
    searches: usize,
    complete: usize,
    states: usize,
    steps: u64,
    settled: u64,
    deepest: u32,
}

impl Line {
    fn add(&mut self, same: usize, report: &Report) {
        (self.sets, self.searches) = (self.sets + same, self.searches + 1);
        self.complete += usize::from(report.complete);
        (self.states, self.steps) = (self.states + report.states, self.steps + report.steps);
        (self.settled, self.deepest) = (self.settled + report.settled, self.deepest.max(report.deepest));
    }
}

/// Searches from `begin` for each of the 64 link sets, once for those that are the same but for names; fails on a violation.
fn over_all_link_sets(begin: impl Fn(LinkSet) -> Vec<World>, limits: Limits) -> Line {
    let (start, mut lines, mut sum) = (Instant::now(), BTreeMap::<_, Line>::new(), Line::default());
    for (links, same) in LinkSet::classes() {
        let report = search(begin(links), limits);
        if let Some(found) = &report.found {
            panic!("link set {links}: {found}");
        }
        lines.entry(links.shape()).or_default().add(same, &report);
        sum.add(same, &report);
    }
    println!(
        "pairs joined both ways/one way/not | link sets | searches, complete | states | steps | deepest | settled"
    );
    let name = |shape: &[usize; 3]| format!("{}/{}/{}", shape[0], shape[1], shape[2]);
    for (name, line) in lines.iter().map(|(shape, line)| (name(shape), line)).chain([("all".into(), &sum)]) {
        let Line { sets, searches, complete, states, steps, settled, deepest } = line;
        println!("{name} | {sets} | {searches}, {complete} | {states} | {steps} | {deepest} | {settled}");
    }
    println!("{} ms", start.elapsed().as_millis());
    assert_eq!((sum.sets, sum.searches), (64, 16), "all of them");
    sum
}

#[test]
fn everything_that_may_happen_within_small_bounds_keeps_one_history() {
    let limits = Limits { states_max: usize::MAX, settle_one_in: 500 };
    let sum = over_all_link_sets(|links| fresh(links, None, SMALL), limits);
    assert_eq!(sum.complete, sum.searches, "nothing is left out");
    assert!(sum.states > 100_000 && sum.settled > 100 && sum.deepest > 50, "it goes somewhere");
}

#[test]
fn a_disk_that_is_lost_within_small_bounds_takes_nothing_along() {
    let limits = Limits { states_max: usize::MAX, settle_one_in: 500 };
    let sum = over_all_link_sets(|links| fresh(links, None, LOSS), limits);
    assert_eq!(sum.complete, sum.searches, "nothing is left out");
    assert!(sum.states > 100_000 && sum.settled > 100 && sum.deepest > 50, "it goes somewhere");
}

#[test]
fn cuts_crashes_snapshots_and_wrong_elections_around_every_moment_keep_one_history() {
    let limits = Limits { states_max: states_max(SLICE_STATES), settle_one_in: 50 };
    let sum = over_all_link_sets(|links| roots(links, None, LARGE), limits);
    assert!(sum.states > 300_000 && sum.settled > 1_000 && sum.deepest > 50, "it goes somewhere");
}

#[test]
fn every_mistake_made_again_is_found() {
    let limits = Limits { states_max: 2 * SLICE_STATES, settle_one_in: 50 };
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let report = search(roots(LinkSet::whole(), Some(mutation), LARGE), limits);
        match &report.found {
            Some(found) => println!(
                "{mutation:?}: {}, {} states, {} steps from a root",
                found.violation.rule,
                report.states,
                found.trace.len()
            ),
            None => missed.push(mutation),
        }
    }
    let all = Mutation::ALL.len();
    println!("mistakes found: {}/{all}", all - missed.len());
    assert!(missed.is_empty(), "missed: {missed:?}");
}
