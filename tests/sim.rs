//! A whole node on a simulated disk (`zabra::testing::node_sim`): fixed seeds, fresh seeds, determinism, and the proof that the
//! net catches known mistakes.
//!
//! ```text
//! ZABRA_SEED=n cargo test --test sim -- replay --nocapture     one run, with its trace
//! ZABRA_SIM_SEEDS=n cargo test --release --test sim -- fresh   a campaign of n fresh seeds
//! ```

use zabra::testing::node_sim::{Bug, SimCounts, SimFailure, SimOptions, run};
use zabra::testing::seeded::{fresh_seeds, number_from_env, run_all};

/// Seeds that every run of the tests meets.
const FIXED_SEEDS: u64 = 200;
/// Fresh ones beside them, unless `ZABRA_SIM_SEEDS` says otherwise.
const FRESH_SEEDS: u64 = 100;
/// Within so many seeds each known mistake must be caught.
const BUG_SEEDS_MAX: u64 = 1_000;

fn counts(seed: u64) -> Result<SimCounts, Box<SimFailure>> {
    run(seed, SimOptions::default()).map(|report| report.counts)
}

#[test]
fn fixed_seeds_lose_nothing_and_go_where_they_should() {
    let counts = run_all(&(0..FIXED_SEEDS).collect::<Vec<_>>(), counts);
    println!("{counts:#?}");
    let met = [
        ("starts", counts.starts, 1_000),
        ("starts cut short", counts.starts_cut_short, 200),
        ("starts from a snapshot and the log behind it", counts.from_snapshot, 200),
        ("starts that fell back to an older snapshot", counts.fell_back, 20),
        ("refused damages", counts.refused, 20),
        ("harmless damages", counts.harmless, 50),
        ("unacknowledged transactions that survived", counts.survived, 100),
        ("unacknowledged transactions that did not", counts.lost, 100),
        ("acknowledged transactions", counts.acknowledged, 20_000),
        ("transactions that changed something", counts.effective, 8_000),
        ("snapshots", counts.snapshots, 500),
        ("failed snapshots", counts.snapshots_failed, 20),
        ("snapshots removed", counts.snapshots_removed, 100),
        ("segments purged", counts.purged, 100),
        ("writes without space", counts.no_space, 50),
        ("failures on the durable path", counts.latched, 50),
        ("clean stops", counts.clean_stops, 100),
        ("resets", counts.resets, 100),
    ];
    for (what, count, least) in met {
        assert!(count >= least, "{what}: {count}, expected at least {least}");
    }
}

/// `ZABRA_SEED` is where they start; without it nobody has seen them before.
#[test]
fn fresh_seeds_lose_nothing() {
    let seeds = fresh_seeds("ZABRA_SIM_SEEDS", FRESH_SEEDS);
    println!("{} seeds: {:#?}", seeds.len(), run_all(&seeds, counts));
}

/// The run of `ZABRA_SEED` itself, told line by line.
#[test]
fn replay() {
    let seed = number_from_env("ZABRA_SEED").unwrap_or(0);
    let report = run(seed, SimOptions::default()).unwrap_or_else(|failure| panic!("{failure}"));
    report.trace.iter().for_each(|line| println!("{line}"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3, 0x5eed, u64::MAX] {
        let (first, second) = (run(seed, SimOptions::default()), run(seed, SimOptions::default()));
        let (first, second) = (first.expect("sound"), second.expect("sound"));
        assert!(first.trace.len() > 100, "seed {seed} does something");
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn every_known_mistake_is_caught() {
    for bug in Bug::ALL {
        let options = SimOptions { bug: Some(bug), ..SimOptions::default() };
        let caught = (0..BUG_SEEDS_MAX).find_map(|seed| run(seed, options).err());
        let failure = caught.unwrap_or_else(|| panic!("{bug:?} was not caught within {BUG_SEEDS_MAX} seeds"));
        println!("{bug:?}: seed {}: {}", failure.seed, failure.what);
    }
}
