//! The oracle: one random script goes to a real ZooKeeper and to the server under test; every reply, stat, error,
//! event and the final tree with its digest must be the same, field by field.
//!
//! `ZABRA_ORACLE_SEED=n` plays that seed alone; `ZABRA_ORACLE_SEEDS=n` plays n fresh ones after the fixed ones;
//! `ZABRA_ORACLE_STEPS=n` sets the length. With `ZABRA_TEST_SERVER=zookeeper` the second server is another
//! ZooKeeper: that run must find no difference, or the oracle itself is at fault.

mod admin;
mod owners;
mod player;
mod script;
mod view;

#[expect(dead_code, reason = "shared with other test programs, each of which uses a part")]
#[path = "../common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::server::{Kind, Options, Server};
use common::tools::Java;
use player::{Lines, play};
use script::{Step, generate};

/// These are played on every run.
const FIXED_SEEDS: [u64; 6] = [1, 2, 3, 4, 5, 6];
const STEPS: u64 = 150;
/// A script that came out differently is played again so often. A ZooKeeper prepares requests while earlier ones are being applied, and some of
/// its answers depend on how far it has come: a difference that does not repeat is shown, and counted.
const REPLAYS: usize = 2;
/// Differences that may come and go in one run.
const PASSING_MAX: usize = 2;
/// How long the search for a shorter script with the same difference may take.
const SHRINK_LIMIT: Duration = Duration::from_secs(90);

/// A ZooKeeper and the server that is compared with it.
struct Pair {
    java: Java,
    under_test: Kind,
    servers: Option<(Server, Server)>,
}

/// Lines of a difference that a report shows of each server; what is behind the first mostly follows from it.
const LINES_SHOWN: usize = 12;

/// The first step at which two servers answered differently.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    step: usize,
    expected: Lines,
    found: Lines,
}

impl Pair {
    fn new(java: Java, under_test: Kind) -> Pair {
        Pair { java, under_test, servers: None }
    }

    fn options() -> Options {
        // The reaper works by the clock, so it is kept out; quotas bind, so that they can be seen.
        Options::everything()
            .config("enforceQuota", "true")
            // A session that falls silent need not be waited for long.
            .config("tickTime", "100")
            .config("minSessionTimeout", "1500")
            .config("maxSessionTimeout", "40000")
            .property("znode.container.checkIntervalMs", "100000000")
    }

    fn servers(&mut self) -> &mut (Server, Server) {
        let (java, under_test) = (self.java.clone(), self.under_test.clone());
        self.servers.get_or_insert_with(|| {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| Server::start(&under_test, &Pair::options()));
                let zookeeper = Server::start(&Kind::ZooKeeper(java), &Pair::options());
                (zookeeper, other.join().expect("the server under test starts"))
            })
        })
    }

    /// Plays `script` to both; after a difference both start afresh the next time.
    fn compare(&mut self, script: &[Step]) -> Option<Difference> {
        let (zookeeper, other) = self.servers();
        let (expected, found) = std::thread::scope(|scope| {
            let found = scope.spawn(move || play(other, script));
            (play(zookeeper, script), found.join().expect("the player does not panic"))
        });
        let expected = expected.unwrap_or_else(|e| panic!("ZooKeeper: {e}"));
        let found = found.unwrap_or_else(|e| vec![vec![format!("gave up: {e}")]]);
        let difference = first_difference(&expected, &found);
        if difference.is_some() {
            self.servers = None;
        }
        difference
    }

    /// Leaves out steps as long as some difference remains.
    fn shrink(&mut self, script: &[Step], first: Difference) -> (Vec<Step>, Difference) {
        let deadline = Instant::now() + SHRINK_LIMIT;
        let mut best = script[..script.len().min(first.step + 1)].to_vec();
        let mut difference = first;
        let mut chunk = best.len() / 2;
        while chunk > 0 && Instant::now() < deadline {
            let mut start = 0;
            while start < best.len() && Instant::now() < deadline {
                let mut shorter = best.clone();
                shorter.drain(start..(start + chunk).min(best.len()));
                match self.compare(&shorter) {
                    Some(found) => (best, difference) = (shorter, found),
                    None => start += chunk,
                }
            }
            chunk /= 2;
        }
        self.shrink_requests(best, difference, deadline)
    }

    /// Leaves out single requests of the steps that are left.
    fn shrink_requests(
        &mut self,
        mut best: Vec<Step>,
        mut difference: Difference,
        deadline: Instant,
    ) -> (Vec<Step>, Difference) {
        for index in (0..best.len()).rev() {
            let mut chunk = requests_of(&best[index]) / 2;
            while chunk > 0 && Instant::now() < deadline {
                let mut start = 0;
                while start < requests_of(&best[index]) && Instant::now() < deadline {
                    let mut shorter = best.clone();
                    if let Step::Send { requests, .. } = &mut shorter[index] {
                        requests.drain(start..(start + chunk).min(requests.len()));
                    }
                    match self.compare(&shorter) {
                        Some(found) => (best, difference) = (shorter, found),
                        None => start += chunk,
                    }
                }
                chunk /= 2;
            }
        }
        (best, difference)
    }
}

fn requests_of(step: &Step) -> usize {
    if let Step::Send { requests, .. } = step { requests.len() } else { 0 }
}

fn first_difference(expected: &[Lines], found: &[Lines]) -> Option<Difference> {
    let empty = Lines::new();
    let steps = expected.len().max(found.len());
    (0..steps).find_map(|step| {
        let expected = expected.get(step).unwrap_or(&empty);
        let found = found.get(step).unwrap_or(&empty);
        (expected != found).then(|| Difference { step, expected: expected.clone(), found: found.clone() })
    })
}

fn report(seed: u64, steps: u64, script: &[Step], difference: &Difference, name: &str) -> String {
    let mut text = format!("seed {seed}: {name} differs from ZooKeeper at step {}\n", difference.step);
    let shown = script.iter().enumerate().take(difference.step + 1);
    for (index, step) in shown.skip((difference.step + 1).saturating_sub(40)) {
        writeln!(text, "  {index:4} {}", describe(step)).expect("writing to a string");
    }
    if difference.step >= script.len() {
        text += "  the tree after the last step\n";
    }
    for line in difference.expected.iter().filter(|l| !difference.found.contains(l)).take(LINES_SHOWN) {
        writeln!(text, "  zookeeper: {line}").expect("writing to a string");
    }
    for line in difference.found.iter().filter(|l| !difference.expected.contains(l)).take(LINES_SHOWN) {
        writeln!(text, "  {name:9}: {line}").expect("writing to a string");
    }
    if sorted(&difference.expected) == sorted(&difference.found) {
        writeln!(text, "  the order: {:#?}\n  instead of {:#?}", difference.found, difference.expected)
            .expect("writing to a string");
    }
    text + &format!("replay: ZABRA_ORACLE_SEED={seed} ZABRA_ORACLE_STEPS={steps} cargo test --test oracle\n")
}

fn sorted(lines: &Lines) -> Lines {
    let mut lines = lines.clone();
    lines.sort();
    lines
}

fn describe(step: &Step) -> String {
    match step {
        Step::Send { slot, requests, together } => {
            let labels: Vec<&str> = requests.iter().map(|r| r.label.as_str()).collect();
            let how = if *together { "" } else { " one by one:" };
            let labels = match labels.split_at_checked(labels.len().saturating_sub(60)) {
                Some((left_out, shown)) if !left_out.is_empty() => {
                    format!("({} requests)\n          {}", left_out.len(), shown.join("\n          "))
                }
                _ => labels.join("\n          "),
            };
            format!("c{slot}{how} {labels}")
        }
        Step::Fatal { slot, request } => format!("c{slot} fatal: {}", request.label),
        other => format!("{other:?}"),
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|e| panic!("{name}={value}: {e}")))
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = number("ZABRA_ORACLE_SEED") {
        return vec![seed];
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64;
    let fresh = (0..number("ZABRA_ORACLE_SEEDS").unwrap_or(1)).map(|n| now + n);
    FIXED_SEEDS.into_iter().chain(fresh).collect()
}

#[test]
fn a_random_script_gets_the_answers_that_zookeeper_gives() {
    let Some(java) = Java::find() else { return };
    let Some(under_test) = Kind::under_test() else { return };
    let steps = number("ZABRA_ORACLE_STEPS").unwrap_or(STEPS);
    let mut pair = Pair::new(java, under_test);
    let mut passing = Vec::new();
    for seed in seeds() {
        println!("seed {seed}: ZABRA_ORACLE_SEED={seed} ZABRA_ORACLE_STEPS={steps} plays it alone");
        let start = Instant::now();
        let script = generate(seed, steps as usize);
        if let Some(difference) = pair.compare(&script) {
            let name = pair.under_test.name();
            let full = report(seed, steps, &script, &difference, name);
            if (0..REPLAYS).any(|_| pair.compare(&script).is_none()) {
                println!("seed {seed}: played again, the two agree:\n{full}");
                passing.push(full);
                assert!(passing.len() <= PASSING_MAX, "too many that come and go:\n{}", passing.join("\n"));
                continue;
            }
            let (short, difference) = pair.shrink(&script, difference);
            let short = report(seed, steps, &short, &difference, name);
            panic!("{full}\nshortened to {short}");
        }
        println!("seed {seed}: {steps} steps agree ({:.1} s)", start.elapsed().as_secs_f64());
    }
}
