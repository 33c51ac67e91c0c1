//! What all simulations share: a run is its seed, a failure says how to run it again, and many of them use all cores.

use std::fmt;
use std::ops::Add;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::rng::Rng;

/// A rule that does not hold.
#[derive(Debug)]
pub(in crate::testing) struct Violation(pub(in crate::testing) String);

/// A broken rule.
#[derive(Clone, Debug)]
pub struct SimFailure {
    /// The command that runs it again, beside its seed.
    pub replay: &'static str,
    /// The run.
    pub seed: u64,
    /// Which rule, and how.
    pub what: String,
    /// The last lines of the trace.
    pub trace: Vec<String>,
}

impl fmt::Display for SimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{}", self.what)?;
        write!(f, "replay: ZABRA_SEED={} {}", self.seed, self.replay)
    }
}

/// What was wrong with a run that broke a rule, or panicked.
pub(in crate::testing) fn guarded(run: impl FnOnce() -> Result<(), Violation>) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => None,
        Ok(Err(Violation(what))) => Some(what),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("panic: {}", text.unwrap_or("without a text")))
        }
    }
}

/// The last `count` lines.
pub(in crate::testing) fn last_lines(mut trace: Vec<String>, count: usize) -> Vec<String> {
    trace.split_off(trace.len().saturating_sub(count))
}

/// Runs all `seeds` on all cores and adds up what they met.
///
/// # Panics
/// At the first failure, with its trace and how to run it again.
pub fn run_all<C: Default + Add<Output = C> + Send>(
    seeds: &[u64],
    run: impl Fn(u64) -> Result<C, Box<SimFailure>> + Sync,
) -> C {
    let next = AtomicU64::new(0);
    let total = Mutex::new(C::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let counts = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
                    let mut total = total.lock().expect("nobody panics with it");
                    *total = std::mem::take(&mut *total) + counts;
                }
            });
        }
    });
    total.into_inner().expect("nobody panics with it")
}

/// As many seeds as the variable `count` says, or `usual`. `ZABRA_SEED` is where they start; without it nobody has seen them before.
pub fn fresh_seeds(count: &str, usual: u64) -> Vec<u64> {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let mut seeds = Rng::new(number_from_env("ZABRA_SEED").unwrap_or_else(clock));
    (0..number_from_env(count).unwrap_or(usual)).map(|_| seeds.next_u64()).collect()
}

/// The number in an environment variable, if it is set.
///
/// # Panics
/// It is something else.
pub fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
