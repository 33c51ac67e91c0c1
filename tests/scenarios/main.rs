//! What ZooKeeper's historical bugs took to show themselves, as directed schedules over whole ensembles
//! (`zabra::testing::ensemble_sim::Script`): each passes, and each is noticed when the rule that prevents it is switched off.
//! Which issue is where, and which cannot happen here at all: `docs/scenarios.md`.
//!
//! ```text
//! cargo test --test scenarios                                                       all of them
//! ZABRA_SCENARIO=name cargo test --test scenarios -- told --nocapture               one, line by line
//! ZABRA_SCENARIO=name ZABRA_RULE=off cargo test --test scenarios -- told --nocapture   with its rule switched off
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use zabra::testing::ensemble_sim::{Rule, Script, SimFailure, SimReport, Stage, Told, play};
use zabra::testing::seeded::number_from_env;

mod election;
mod epochs;
mod state;
mod sync;

/// Seeds decide how bytes are cut into pieces and who gets round to what first: a schedule must not depend on it. `ZABRA_SCENARIO_SEEDS` says how
/// many there are.
const SEEDS: u64 = 4;

/// A schedule, and what it shows.
struct Scenario {
    /// What happens, in words.
    name: &'static str,
    /// Numbers of ZOOKEEPER issues that it is the trigger of.
    issues: &'static [u32],
    /// What prevents it.
    rule: Rule,
    stage: Stage,
    scene: fn(&mut Script<'_>) -> Told,
}

impl Scenario {
    fn play(&self, seed: u64, rule: Option<Rule>) -> Result<SimReport, Box<SimFailure>> {
        play(seed, rule, self.stage, self.scene)
    }

    /// With all rules it passes, without the one it is noticed.
    fn prove(&self) {
        for seed in 0..seeds() {
            if let Err(failure) = self.play(seed, None) {
                panic!("{}: {failure}", self.name);
            }
        }
        (0..seeds()).for_each(|seed| {
            let caught = self.caught(seed);
            assert!(
                caught.is_some(),
                "{} without {:?}, seed {seed}: nothing is noticed",
                self.name,
                self.rule
            );
        });
    }

    fn caught(&self, seed: u64) -> Option<String> {
        self.play(seed, Some(self.rule)).err().map(|failure| failure.what)
    }
}

/// Makes of scenes a table and tests.
macro_rules! scenarios {
    ($($name:ident: [$($issue:literal),*], $rule:ident, $stage:expr;)+) => {
        /// All of this file.
        pub(crate) const SCENARIOS: &[crate::Scenario] = &[$(crate::Scenario {
            name: stringify!($name),
            issues: &[$($issue),*],
            rule: zabra::testing::ensemble_sim::Rule::$rule,
            stage: $stage,
            scene: $name,
        }),+];

        mod passes_and_is_noticed_without_its_rule {
            $(#[test]
            fn $name() {
                let scenario = super::SCENARIOS.iter().find(|s| s.name == stringify!($name));
                scenario.expect("in the table").prove();
            })+
        }
    };
}
use scenarios;

fn seeds() -> u64 {
    number_from_env("ZABRA_SCENARIO_SEEDS").unwrap_or(SEEDS)
}

fn all() -> impl Iterator<Item = &'static Scenario> {
    [sync::SCENARIOS, state::SCENARIOS, epochs::SCENARIOS, election::SCENARIOS].into_iter().flatten()
}

/// The mutation score: for every rule there is a scenario, and it is noticed when the rule is switched off.
#[test]
fn every_rule_has_a_scenario_that_notices_its_absence() {
    let mut caught = 0;
    for rule in Rule::EVERY {
        let mut scenarios = all().filter(|scenario| scenario.rule == rule).peekable();
        assert!(scenarios.peek().is_some(), "{rule:?} has no scenario");
        let found: Vec<_> = scenarios.filter_map(|s| s.caught(0).map(|what| (s, what))).collect();
        for (scenario, what) in &found {
            println!("{rule:?}: {} {:?}: {what}", scenario.name, scenario.issues);
        }
        caught += usize::from(!found.is_empty());
    }
    println!("rules disabled / caught: {} / {caught}", Rule::EVERY.len());
    assert_eq!(caught, Rule::EVERY.len());
}

const PAGE: &str = include_str!("../../src/docs/scenarios.md");

/// The page names every scenario, and every issue beside the scenarios that it is in.
#[test]
fn the_page_names_every_scenario_with_its_issues() {
    for scenario in all() {
        let rows: Vec<&str> =
            PAGE.lines().filter(|line| line.contains(&format!("`{}`", scenario.name))).collect();
        assert!(!rows.is_empty(), "{} is not on the page", scenario.name);
        for issue in scenario.issues {
            let named = rows.iter().any(|row| row.contains(&issue.to_string()));
            assert!(named, "{issue} does not stand beside {}", scenario.name);
        }
    }
}

/// Every test that the page names is there.
#[test]
fn the_page_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut functions) = (vec![root.join("src"), root.join("tests")], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
                functions.extend(names.map(str::to_owned));
            }
        }
    }
    let is_test = |word: &&str| word.split('_').count() > 3 && !word.contains([' ', '/']);
    let missing: Vec<&str> =
        PAGE.split('`').filter(is_test).filter(|name| !functions.contains(*name)).collect();
    assert!(missing.is_empty(), "named on the page and not there: {missing:?}");
}

/// The scenario `ZABRA_SCENARIO`, told line by line; `ZABRA_RULE=off` switches its rule off.
#[test]
fn told() {
    let Ok(name) = std::env::var("ZABRA_SCENARIO") else { return };
    let scenario = all().find(|scenario| scenario.name == name).expect("there is one of that name");
    let off = std::env::var("ZABRA_RULE").is_ok_and(|rule| rule == "off");
    let seed = number_from_env("ZABRA_SEED").unwrap_or(0);
    match scenario.play(seed, off.then_some(scenario.rule)) {
        Ok(report) => report.trace.iter().for_each(|line| println!("{line}")),
        Err(failure) => println!("{failure}"),
    }
}
