//! Whole ensembles on simulated disks, network and clocks (`zabra::testing::ensemble_sim`): fixed seeds, fresh seeds, determinism.
//!
//! ```text
//! ZABRA_SEED=n cargo test --test ensemble_sim -- replay --nocapture              one run, with its trace
//! ZABRA_ENSEMBLE_SEEDS=n cargo test --release --test ensemble_sim -- fresh       a campaign of n fresh seeds
//! ```

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use zabra::testing::ensemble_sim::{Rule, SimCounts, SimFailure, SimOptions, Slip, Stage, play, run};
use zabra::testing::seeded::{fresh_seeds, number_from_env, run_all};
use zabra::wire::quorum::PacketKind;

/// Seeds that every run of the tests meets.
const FIXED_SEEDS: u64 = 24;
/// Fresh ones beside them, unless `ZABRA_ENSEMBLE_SEEDS` says otherwise.
const FRESH_SEEDS: u64 = 12;

/// Within so many seeds each mistake must be caught.
const RULE_SEEDS_MAX: u64 = 300;
/// Those of what stands between a server and its clients are caught sooner.
const SLIP_SEEDS_MAX: u64 = 60;

fn counts(seed: u64) -> Result<SimCounts, Box<SimFailure>> {
    run(seed, SimOptions::default()).map(|report| report.counts)
}

#[test]
fn fixed_seeds_have_one_history_and_go_where_they_should() {
    let counts = run_all(&(0..FIXED_SEEDS).collect::<Vec<_>>(), counts);
    println!("{counts:#?}");
    let met = [
        ("starts", counts.starts, 200),
        ("starts with a tail that is not known to be committed", counts.starts_with_tail, 100),
        ("leaders", counts.leaders, 100),
        ("epochs that a leader went on into", counts.rollovers, 5),
        ("learners", counts.learners, 200),
        ("committed", counts.committed, 20_000),
        ("committed of several at once", counts.multis, 500),
        ("acknowledged", counts.acknowledged, 15_000),
        ("unknown outcomes that were committed", counts.unknown_committed, 500),
        ("reads", counts.reads, 5_000),
        ("syncs", counts.synced_reads, 2_000),
        ("failed writes", counts.failed_writes, 500),
        ("watches set", counts.watches_set, 2_000),
        ("watches removed", counts.watches_removed, 100),
        ("events", counts.events, 5_000),
        ("events of what was missed", counts.caught_up, 200),
        ("one-shot watches kept over connections", counts.watches_kept, 200),
        ("nodes that came and went unseen", counts.unseen, 1),
        ("accesses to registers without zxids", counts.linear, 5_000),
        ("appends to lists", counts.appends, 500),
        ("reads of lists", counts.list_reads, 1_000),
        ("clients that lived through the calm", counts.calm_clients, 50),
        ("moves", counts.moves, 200),
        ("connections that broke under clients", counts.client_cuts, 50),
        ("cut logs", counts.truncated, 5),
        ("received states", counts.snaps, 10),
        ("snapshots", counts.snapshots, 500),
        ("purged segments", counts.purged, 300),
        ("kills", counts.kills, 50),
        ("power cuts", counts.power_cuts, 30),
        ("power cuts of all", counts.blackouts, 3),
        ("disks that crashed in the middle", counts.torn, 30),
        ("clean stops", counts.clean_stops, 20),
        ("pauses", counts.pauses, 50),
        ("partitions", counts.partitions, 50),
        ("resets", counts.resets, 10),
        ("full disks", counts.full_disks, 20),
        ("directories that were gone", counts.wiped, 3),
        ("disks on which bits flipped", counts.rotten, 10),
        ("histories that were set aside", counts.set_aside, 5),
        ("trees that came to differ", counts.diverged, 6),
        ("trees made anew", counts.made_anew, 3),
    ];
    for (what, count, least) in met {
        assert!(count >= least, "{what}: {count}, expected at least {least}");
    }
}

/// `ZABRA_SEED` is where they start; without it nobody has seen them before.
#[test]
fn fresh_seeds_have_one_history() {
    let seeds = fresh_seeds("ZABRA_ENSEMBLE_SEEDS", FRESH_SEEDS);
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
    for seed in [1, 2, 0x5eed] {
        let (first, second) = (run(seed, SimOptions::default()), run(seed, SimOptions::default()));
        let (first, second) = (first.expect("sound"), second.expect("sound"));
        assert!(first.counts.steps > 1_000, "seed {seed} does something");
        assert_eq!(first, second, "seed {seed}");
    }
}

/// What is asked of each of `all`, on all cores; those for which there is no answer.
fn ask_all<T: Copy + Send + Sync + std::fmt::Debug>(
    all: &[T],
    ask: impl Fn(T) -> Option<String> + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&one) = all.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match ask(one) {
                        Some(answer) => println!("{one:?}: {answer}"),
                        None => missed.lock().unwrap().push(one),
                    }
                }
            });
        }
    });
    missed.into_inner().unwrap()
}

/// The first of the seeds that notices, and what it says.
fn noticed(seeds: u64, options: SimOptions) -> Option<String> {
    let failure = (0..seeds).find_map(|seed| run(seed, options).err())?;
    Some(format!("seed {}: {}", failure.seed, failure.what))
}

/// The mutation score: rules switched off, and caught.
#[test]
fn every_rule_switched_off_is_noticed() {
    let missed = ask_all(&Rule::ALL, |rule| {
        noticed(RULE_SEEDS_MAX, SimOptions { rule: Some(rule), ..SimOptions::default() })
    });
    println!("mutation score: {} of {} rules", Rule::ALL.len() - missed.len(), Rule::ALL.len());
    assert!(missed.is_empty(), "not noticed within {RULE_SEEDS_MAX} seeds: {missed:?}");
}

/// What clients are told is judged: a mistake on the way to them is noticed, by the rule that it breaks.
#[test]
fn every_slip_on_the_way_to_clients_is_noticed() {
    let missed = ask_all(&Slip::ALL, |(slip, whys)| {
        // Long enough for a session to end.
        let calm_ms = if slip == Slip::TouchesLost { 10_000 } else { 1_000 };
        let options =
            SimOptions { slip: Some(slip), blind: slip.is_blind(), calm_ms, ..SimOptions::default() };
        let answer = noticed(SLIP_SEEDS_MAX, options)?;
        assert!(whys.split('|').any(|why| answer.contains(why)), "{slip:?}: {answer}, expected {whys}");
        Some(answer)
    });
    assert!(missed.is_empty(), "not noticed within {SLIP_SEEDS_MAX} seeds: {missed:?}");
}

/// Servers that lie about zxids: what clients see is enough to tell that a sync has seen too little.
#[test]
fn a_sync_that_is_not_confirmed_is_noticed_without_zxids() {
    let options = SimOptions { rule: Some(Rule::SyncUnconfirmed), blind: true, ..SimOptions::default() };
    let answer = noticed(RULE_SEEDS_MAX, options).expect("noticed");
    println!("{answer}");
    assert!(answer.contains("not linearizable") || answer.contains("behind a sync"), "{answer}");
}

/// No election, no end of a session, no broken connection.
#[test]
fn ten_minutes_of_calm_see_no_election() {
    for seed in 0..2 {
        let options = SimOptions { safety_ms: 3_000, calm_ms: 600_000, ..SimOptions::default() };
        let report = run(seed, options).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(report.counts.calm_ms, 600_000);
        assert!(report.counts.calm_clients >= 3, "a client of each node lives through it");
    }
}

/// A server whose tree differed has got a whole state on the connection that it still has when its leader goes on into the next epoch. It is not
/// sent another: its clients stay, and what they watch is in the tree that it has.
#[test]
fn a_state_that_was_asked_for_comes_once() {
    let stage = Stage { counter_max: 14, ..Stage::of(3) };
    let played = play(1, None, stage, |s| {
        s.start_led_by(2, &[0, 1])?;
        let writer = s.client(2)?;
        s.write_and_wait(writer)?;
        s.spoil_memory(0, 2);
        s.write_and_wait(writer)?;
        s.until("a state for who differs", |s| s.states_received() == 1 && s.serves(0))?;
        let watcher = s.client(0)?;
        s.watch_of(watcher, writer)?;
        s.until_answered(watcher)?;
        while s.rollovers() == 0 {
            s.write_and_wait(writer)?;
        }
        s.until_level(&[0, 1, 2])?;
        let before = s.events();
        s.write_and_wait(writer)?;
        s.until("the event", |s| s.events() == before + 1)?;
        s.demand(s.states_received() == 1 && s.is_live(watcher), "nobody gets a state twice")
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
}

/// A server answers so late when its leader goes on into the next epoch that the log does not reach back to it any more: it needs a whole state, and
/// gets it when its clients are gone. They are not left with a tree that does not know what they watch.
#[test]
fn who_is_late_for_the_next_epoch_lets_its_clients_go() {
    let stage = Stage { counter_max: 60, tick_ms: 4_000, ..Stage::of(3) };
    let played = play(1, None, stage, |s| {
        s.start_led_by(2, &[0, 1])?;
        let (writer, watcher) = (s.client(2)?, s.client(0)?);
        s.write_and_wait(writer)?;
        s.watch_of(watcher, writer)?;
        s.until_answered(watcher)?;
        s.hold(2, 0, PacketKind::LeaderInfo);
        while s.rollovers() == 0 {
            s.write_much(writer, 1)?;
        }
        s.write_much(writer, 40)?;
        s.snapshot(2)?;
        s.write_much(writer, 5)?;
        s.snapshot(2)?;
        s.demand(s.is_live(watcher), "its server has not answered yet")?;
        s.release(2, 0)?;
        s.until("a state for who is late", |s| s.states_received() == 1)?;
        s.demand(!s.is_live(watcher), "its client has to come again")
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
}

/// The leader alone has no space, and its vote is the greatest: it stays away until another one leads, and writes go on.
#[test]
fn a_leader_without_space_lets_another_lead() {
    let played = play(1, None, Stage::of(3), |s| {
        s.start_led_by(2, &[0, 1])?;
        let client = s.client(0)?;
        s.write_and_wait(client)?;
        s.until_level(&[0, 1, 2])?;
        s.fill_disk(2, 0);
        let writer = s.client(2)?;
        while s.leads(2) {
            s.write_much(writer, 1).ok();
        }
        s.must("another leader", 900, |s| s.leads(0) || s.leads(1))?;
        s.connect(client, usize::from(s.leads(1)))?;
        s.until_live(client)?;
        s.write_and_wait(client)?;
        s.empty_disk(2);
        s.until_serve(&[0, 1, 2])?;
        s.until_level(&[0, 1, 2])
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
}
