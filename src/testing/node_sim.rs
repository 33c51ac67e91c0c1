//! A whole node on a simulated disk, deterministic from one seed: random clients, the commit path in random interleavings,
//! snapshots taken in steps between commits, retention, purge, a disk that fills up; and lives that end in every way a process
//! can end. After every start the node must be the model at a transaction that was acknowledged or later (`invariants`).
//!
//! The node runs the product's own code from one end to the other: `Prepare` → `Group` → `Appender` → `Flusher` →
//! `Tree::apply`, `SnapshotTask`, `retire`, `SpareMaker`, `recover`. What is simulated is the disk below and the driver above (`life`),
//! which keeps the rules of `server::commit`: nothing is applied or answered before the flush that covers it.
//!
//! - W1: one seed, one run: no clock, no thread, no order of a hash table decides anything (the trace is compared).
//! - W2: a broken rule is a [`SimFailure`] that carries the seed and the last lines of the trace, never a wrong pass.
//! - W3: the net is proven: [`Bug`] puts known mistakes into the driver, and the invariants must catch each.
//!
//! How to run: `docs/durability.md`.

mod clients;
mod endings;
mod invariants;
mod life;
mod model;

use std::ops::Add;

use self::endings::Image;
use self::life::Life;
use self::model::Model;
use crate::base::Zxid;
use crate::base::rng::Rng;
use crate::node::RecoverError;
use crate::storage::log::LogError;
use crate::testing::seeded::{Violation, guarded, last_lines};
use crate::testing::sim_disk::SimDisk;

pub use self::model::dump;
pub use crate::testing::seeded::SimFailure;

/// Starts of one life that may be cut short before it must succeed.
const FAILED_STARTS_MAX: u32 = 3;

/// Lines of the trace that a failure shows.
const TRACE_SHOWN: usize = 60;

/// Mistakes that the driver can be told to make, to prove that they are caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Applies and answers as soon as a group is appended.
    AcknowledgeBeforeFlush,
    /// Purges the log up to what is applied, whatever snapshots there are.
    PurgeWithoutSnapshot,
    /// A start leaves out the last record of the log.
    SkipLastReplay,
    /// A start goes on from a snapshot that lacks one of its transactions: what a failed load left behind.
    HalfLoadedSnapshot,
    /// A start leaves the last clean stop in the superblock while the log grows.
    KeepCleanStop,
    /// Acknowledges although the flush failed.
    IgnoreFailedFlush,
    /// Replaces the log by a state of which there is no snapshot.
    ResetWithoutSnapshot,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 7] = [
        Bug::AcknowledgeBeforeFlush,
        Bug::PurgeWithoutSnapshot,
        Bug::SkipLastReplay,
        Bug::HalfLoadedSnapshot,
        Bug::KeepCleanStop,
        Bug::IgnoreFailedFlush,
        Bug::ResetWithoutSnapshot,
    ];
}

/// How long a run is, and which mistake it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimOptions {
    /// Lives of the node.
    pub lives: u32,
    /// Steps of one life at most.
    pub steps_max: u64,
    /// The mistake.
    pub bug: Option<Bug>,
}

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions { lives: 8, steps_max: 260, bug: None }
    }
}

/// What a run met, so that a test can tell whether it went where it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Starts that succeeded.
    pub starts: u64,
    /// Starts that crashed, or met a fault.
    pub starts_cut_short: u64,
    /// Starts that replayed behind a snapshot.
    pub from_snapshot: u64,
    /// Starts that had to pass over a snapshot.
    pub fell_back: u64,
    /// Damaged logs or snapshots that a start refused.
    pub refused: u64,
    /// Damages that made no difference.
    pub harmless: u64,
    /// Damages of a tail that nothing vouches for: acknowledged once, and cut as torn (`docs/recovery.md`).
    pub unvouched: u64,
    /// Unacknowledged transactions that survived.
    pub survived: u64,
    /// Unacknowledged transactions that did not.
    pub lost: u64,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Of them, those that changed something.
    pub effective: u64,
    /// Snapshots published and verified.
    pub snapshots: u64,
    /// Snapshots given up or failed.
    pub snapshots_failed: u64,
    /// Snapshots removed by retention.
    pub snapshots_removed: u64,
    /// Segments purged.
    pub purged: u64,
    /// Writes refused because the disk was full.
    pub no_space: u64,
    /// Appends or flushes that failed.
    pub latched: u64,
    /// Clean stops.
    pub clean_stops: u64,
    /// Times the log was replaced by a whole state.
    pub resets: u64,
}

impl Add for SimCounts {
    type Output = SimCounts;

    /// Sums two runs.
    fn add(self, o: SimCounts) -> SimCounts {
        SimCounts {
            starts: self.starts + o.starts,
            starts_cut_short: self.starts_cut_short + o.starts_cut_short,
            from_snapshot: self.from_snapshot + o.from_snapshot,
            fell_back: self.fell_back + o.fell_back,
            refused: self.refused + o.refused,
            harmless: self.harmless + o.harmless,
            unvouched: self.unvouched + o.unvouched,
            survived: self.survived + o.survived,
            lost: self.lost + o.lost,
            acknowledged: self.acknowledged + o.acknowledged,
            effective: self.effective + o.effective,
            snapshots: self.snapshots + o.snapshots,
            snapshots_failed: self.snapshots_failed + o.snapshots_failed,
            snapshots_removed: self.snapshots_removed + o.snapshots_removed,
            purged: self.purged + o.purged,
            no_space: self.no_space + o.no_space,
            latched: self.latched + o.latched,
            clean_stops: self.clean_stops + o.clean_stops,
            resets: self.resets + o.resets,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimReport {
    /// What it met.
    pub counts: SimCounts,
    /// One line per step that says everything that was decided.
    pub trace: Vec<String>,
}

/// Runs the node of `seed` to its end.
///
/// # Errors
/// A rule was broken; panics of the product come as failures too.
pub fn run(seed: u64, options: SimOptions) -> Result<SimReport, Box<SimFailure>> {
    let mut sim = Sim::new(seed, options);
    let Some(what) = guarded(|| sim.run()) else {
        return Ok(SimReport { counts: sim.counts, trace: sim.trace });
    };
    let replay = "cargo test --test sim -- replay --nocapture";
    Err(Box::new(SimFailure { replay, seed, what, trace: last_lines(sim.trace, TRACE_SHOWN) }))
}

/// What stays from life to life.
struct Sim {
    rng: Rng,
    options: SimOptions,
    setup: life::Setup,
    disk: SimDisk,
    model: Model,
    counts: SimCounts,
    /// Snapshots before this may not reach the log: it was, or was to be, replaced by a state at this.
    reset_at: Zxid,
    trace: Vec<String>,
}

impl Sim {
    fn new(seed: u64, options: SimOptions) -> Sim {
        let mut rng = Rng::new(seed);
        let setup = life::Setup::random(&mut rng);
        let disk = SimDisk::new(rng.next_u64());
        disk.set_capacity(life::CAPACITY);
        let model = Model::new(setup.tree_options());
        Sim {
            rng,
            options,
            setup,
            disk,
            model,
            counts: SimCounts::default(),
            reset_at: Zxid::ZERO,
            trace: Vec::new(),
        }
    }

    fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    fn run(&mut self) -> Result<(), Violation> {
        for number in 0..self.options.lives {
            let life = match self.starts_cut_short(number)? {
                Some(life) => life,
                None => self.start(number)?,
            };
            let ended = self.live(life, number)?;
            self.die(ended)?;
        }
        // The last start is followed by nothing: what was written must do.
        let life = self.start(self.options.lives)?;
        invariants::goes_on(self, life)
    }

    /// A start that nothing disturbs.
    fn start(&mut self, number: u32) -> Result<Life, Violation> {
        match Life::start(&self.disk, &self.setup, number, &mut self.rng) {
            Ok(life) => self.started(life),
            Err(error) => Err(Violation(format!("no crash refuses to start: {error}"))),
        }
    }

    /// A few starts that are cut short, each of which must leave something that starts; `Some` when one was not after all.
    fn starts_cut_short(&mut self, number: u32) -> Result<Option<Life>, Violation> {
        for _ in 0..FAILED_STARTS_MAX {
            if !self.rng.one_in(3) {
                break;
            }
            if let Some(life) = self.start_cut_short(number)? {
                return Ok(Some(life));
            }
        }
        Ok(None)
    }

    /// A start that meets a crash or a fault; `Some` when that came too late to matter.
    fn start_cut_short(&mut self, number: u32) -> Result<Option<Life>, Violation> {
        let ending = endings::cut_short(&self.disk, &mut self.rng);
        match Life::start(&self.disk, &self.setup, number, &mut self.rng) {
            Ok(life) if !self.disk.has_crashed() => {
                self.disk.crash_at(u64::MAX);
                self.note(format!("start with {ending:?}: no matter"));
                self.started(life).map(Some)
            }
            Ok(_) => Err(Violation("a start on a crashed disk succeeded".into())),
            Err(error) => {
                self.counts.starts_cut_short += 1;
                self.note(format!("start with {ending:?}: {error}"));
                self.disk = Image::random(&mut self.rng, endings::Ended::Crashed).take(&self.disk);
                Ok(None)
            }
        }
    }

    /// Everything that must hold after a start.
    fn started(&mut self, mut life: Life) -> Result<Life, Violation> {
        self.counts.starts += 1;
        let summary = life.summary.clone();
        self.counts.from_snapshot += u64::from(summary.snapshot.is_some() && summary.replayed_txns > 0);
        self.counts.fell_back += u64::from(summary.snapshot.is_some() && summary.snapshots_bad > 0);
        self.note(format!(
            "started at {}: {:?}, {} replayed from {:?}",
            summary.log.last, summary.log.row, summary.replayed_txns, summary.snapshot
        ));
        life.misrecover(self);
        invariants::after_start(&life, self)?;
        let last = summary.log.last;
        self.counts.survived += last.0.saturating_sub(self.model.acknowledged.0);
        self.counts.lost += self.model.appended().0 - last.0;
        self.model.recovered(last);
        Ok(life)
    }

    /// Steps of one life up to its end.
    fn live(&mut self, mut life: Life, number: u32) -> Result<endings::Ended, Violation> {
        let ending = endings::Ending::random(&self.disk, &mut self.rng, self.options.steps_max);
        self.note(format!("life {number}: {ending:?}"));
        for _ in 0..ending.steps() {
            life.step(self)?;
            if self.disk.has_crashed() || life.is_dead() {
                break;
            }
        }
        let ended = ending.end(life, self);
        self.note(format!("ended: {ended:?} at {} operations", self.disk.ops()));
        Ok(ended)
    }

    /// From the end of a life to the disk that the next one finds, damaged or not.
    fn die(&mut self, ended: endings::Ended) -> Result<(), Violation> {
        let image = Image::random(&mut self.rng, ended);
        self.note(format!("image: {image:?}"));
        self.disk = image.take(&self.disk);
        let hurt = self.rng.below(6);
        match (hurt, ended) {
            (0, _) => endings::damage_log(self, ended),
            (1, _) => endings::damage_snapshot(self),
            (2, endings::Ended::Clean | endings::Ended::Killed) => endings::damage_superblock(self),
            _ => Ok(()),
        }
    }
}

/// True for a start that the log or the snapshots refuse because of what is in them, not because the disk failed.
fn is_refusal(error: &RecoverError) -> bool {
    matches!(
        error,
        RecoverError::Log { source: LogError::Refused { .. }, .. }
            | RecoverError::Gap { .. }
            | RecoverError::LogBehind { .. }
            | RecoverError::ResetSnapshot { .. }
    )
}
