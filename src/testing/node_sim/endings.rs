//! How lives end, what a crash leaves of the disk, and what rots meanwhile.

use std::path::{Path, PathBuf};

use super::life::{CAPACITY, LOG_DIR, Life, Setup};
use super::{Sim, Violation, invariants, is_refusal};
use crate::base::Zxid;
use crate::base::rng::Rng;
use crate::storage::snapshot::SnapshotStore;
use crate::storage::superblock;
use crate::storage::vfs::{OpenMode, Vfs};
use crate::testing::sim_disk::{Everything, Fault, Nothing, OpKind, Random, SimDisk};

/// Operations of the disk in one life, about: crashes are spread over so many.
const CRASH_OPS_MAX: u64 = 500;
/// Operations of one start, about.
const START_OPS_MAX: u64 = 40;

/// How a life is to end.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "some of it is for the trace only")]
pub(super) enum Ending {
    /// Power fails at an operation.
    Crash { steps: u64 },
    /// The process is killed after some steps.
    Kill { steps: u64 },
    /// An operation fails with EIO, sooner or later.
    Fault { kind: OpKind, nth: u64, steps: u64 },
    /// A clean stop after some steps, during which power may fail all the same.
    Clean { steps: u64 },
}

/// How it did end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// In the middle of an operation.
    Crashed,
    /// Between two operations.
    Killed,
    /// By its own decision, after a failure.
    Failed,
    /// As it should.
    Clean,
}

impl Ending {
    /// Decides, and sets the trap on `disk`.
    pub(super) fn random(disk: &SimDisk, rng: &mut Rng, steps_max: u64) -> Ending {
        let steps = 1 + rng.below(steps_max);
        match rng.below(10) {
            0..=3 => {
                disk.crash_at(disk.ops() + rng.below(CRASH_OPS_MAX));
                Ending::Crash { steps: steps_max }
            }
            4 | 5 => Ending::Kill { steps },
            6 | 7 => {
                let (kind, nth) = random_fault(disk, rng, CRASH_OPS_MAX);
                Ending::Fault { kind, nth, steps: steps_max }
            }
            _ => Ending::Clean { steps },
        }
    }

    pub(super) fn steps(self) -> u64 {
        match self {
            Ending::Crash { steps }
            | Ending::Kill { steps }
            | Ending::Fault { steps, .. }
            | Ending::Clean { steps } => steps,
        }
    }

    /// Ends the life; nothing of it touches the disk after this.
    pub(super) fn end(self, mut life: Life, sim: &mut Sim) -> Ended {
        let mut ended = match self {
            _ if sim.disk.has_crashed() => Ended::Crashed,
            _ if life.is_dead() => Ended::Failed,
            Ending::Clean { .. } => {
                if sim.rng.one_in(3) {
                    sim.disk.crash_at(sim.disk.ops() + sim.rng.below(10));
                }
                if life.stop(sim) { Ended::Clean } else { Ended::Failed }
            }
            Ending::Crash { .. } | Ending::Kill { .. } | Ending::Fault { .. } => Ended::Killed,
        };
        if ended == Ended::Failed && sim.disk.has_crashed() {
            ended = Ended::Crashed;
        }
        sim.counts.clean_stops += u64::from(ended == Ended::Clean);
        // A dead process does not tidy up when its memory goes.
        sim.disk.crash_now();
        drop(life);
        ended
    }
}

/// A trap for the next start.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "shown in the trace")]
pub(super) enum CutShort {
    Crash { op: u64 },
    Fault { kind: OpKind, nth: u64 },
}

pub(super) fn cut_short(disk: &SimDisk, rng: &mut Rng) -> CutShort {
    if rng.one_in(3) {
        let (kind, nth) = random_fault(disk, rng, START_OPS_MAX);
        return CutShort::Fault { kind, nth };
    }
    let op = disk.ops() + rng.below(START_OPS_MAX);
    disk.crash_at(op);
    CutShort::Crash { op }
}

fn random_fault(disk: &SimDisk, rng: &mut Rng, within: u64) -> (OpKind, u64) {
    let (kind, share) = [
        (OpKind::Sync, 10),
        (OpKind::Sync, 10),
        (OpKind::Sync, 10),
        (OpKind::Write, 2),
        (OpKind::Write, 2),
        (OpKind::SyncDir, 20),
        (OpKind::Rename, 40),
        (OpKind::Create, 40),
        (OpKind::Allocate, 60),
    ][rng.below(9) as usize];
    let nth = disk.count(kind) + rng.below((within / share).max(2));
    disk.fail_nth(kind, nth, Fault::Eio);
    (kind, nth)
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Image {
    /// The process was killed: the cache survives.
    Kill,
    /// Only what was synced.
    Nothing,
    /// All that was written.
    Everything,
    /// Any subset.
    Random(u64),
}

impl Image {
    /// After a failure the process dies and the cache stays, more often than not: what a failed sync left in it must not count.
    pub(super) fn random(rng: &mut Rng, ended: Ended) -> Image {
        if ended == Ended::Failed && rng.one_in(2) {
            return Image::Kill;
        }
        match rng.below(8) {
            0 | 1 => Image::Kill,
            2 | 3 => Image::Nothing,
            4 => Image::Everything,
            _ => Image::Random(rng.next_u64()),
        }
    }

    pub(super) fn take(self, disk: &SimDisk) -> SimDisk {
        let image = match self {
            Image::Kill => disk.after_kill(),
            Image::Nothing => disk.after_crash(&mut Nothing),
            Image::Everything => disk.after_crash(&mut Everything),
            Image::Random(seed) => disk.after_crash(&mut Random::new(seed)),
        };
        image.set_capacity(CAPACITY);
        image
    }
}

/// One flipped bit in a log segment: refused, or no difference to anything that something vouches for.
pub(super) fn damage_log(sim: &mut Sim, ended: Ended) -> Result<(), Violation> {
    let is_segment = |name: &str| name.starts_with("log.") && name.len() == "log.".len() + 16;
    let Some(path) = pick_file(sim, Path::new(LOG_DIR), is_segment) else { return Ok(()) };
    // After a clean stop the superblock vouches for everything.
    let vouched = if ended == Ended::Clean { sim.model.appended() } else { sim.model.vouched };
    damage(sim, &path, vouched, |_| true)
}

/// One flipped bit in a snapshot: passed over; refused only when nothing else covers what the log lacks.
pub(super) fn damage_snapshot(sim: &mut Sim) -> Result<(), Violation> {
    let dir = Setup::places().data;
    let store = SnapshotStore::read_only(std::sync::Arc::new(sim.disk.clone()), &dir);
    let zxids = store.zxids().unwrap_or_default();
    let Some(&newest) = zxids.last() else { return Ok(()) };
    let zxid = if sim.rng.one_in(2) { newest } else { zxids[sim.rng.below(zxids.len() as u64) as usize] };
    let is_good = |zxid: &&Zxid| store.verify(**zxid).is_ok_and(|report| report.is_good());
    // A state that was announced, and did not take the log's place, is withdrawn before anything is loaded.
    let stored = superblock::load(&sim.disk, &dir, false);
    let announced = stored.ok().flatten().and_then(|found| found.value.state_announced);
    let stays = |other: Zxid| other != zxid && Some(other) != announced;
    let reaches_log = |other: &&Zxid| stays(**other) && **other >= sim.reset_at;
    let others = zxids.iter().filter(reaches_log).filter(is_good).count();
    let acknowledged = sim.model.acknowledged;
    damage(sim, &store.path(zxid), acknowledged, |_| others == 0)
}

/// One flipped bit in one of two good copies of the superblock: no difference.
pub(super) fn damage_superblock(sim: &mut Sim) -> Result<(), Violation> {
    let Some(path) = pick_file(sim, &Setup::places().data, |name| name.starts_with("superblock.")) else {
        return Ok(());
    };
    let acknowledged = sim.model.acknowledged;
    damage(sim, &path, acknowledged, |_| false)
}

fn pick_file(sim: &mut Sim, dir: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let mut names: Vec<String> = sim.disk.list(dir).ok()?.into_iter().filter(|name| wanted(name)).collect();
    names.sort_unstable();
    if names.is_empty() {
        return None;
    }
    Some(dir.join(names.swap_remove(sim.rng.below(names.len() as u64) as usize)))
}

/// Flips a bit, starts, and judges: a start must hold what was `vouched` for; a refusal must be allowed, and gone once the bit
/// is put right.
fn damage(
    sim: &mut Sim,
    path: &Path,
    vouched: Zxid,
    may_refuse: impl Fn(&Sim) -> bool,
) -> Result<(), Violation> {
    let bit = pick_bit(sim, path)?;
    let flip = |sim: &Sim| sim.disk.flip_bit(path, bit).map_err(|e| Violation(format!("flip: {e}")));
    flip(sim)?;
    sim.note(format!("bit {bit} of {} flipped, vouched for {vouched}", path.display()));
    match Life::start(&sim.disk, &sim.setup, u32::MAX - 1, &mut sim.rng) {
        Ok(life) => {
            invariants::damage_is_not_silent(&life, sim, vouched)?;
            let found = life.summary.log.last;
            sim.note(format!("no matter: {found}, {:?}", life.summary.log.row));
            sim.counts.harmless += u64::from(found >= sim.model.acknowledged);
            sim.counts.unvouched += u64::from(found < sim.model.acknowledged);
            sim.counts.fell_back += u64::from(life.summary.snapshots_bad > 0);
            sim.model.recovered(found);
            sim.disk.crash_now();
            drop(life);
            sim.disk = sim.disk.after_kill();
            Ok(())
        }
        Err(error) if is_refusal(&error) && may_refuse(sim) => {
            sim.note(format!("refused: {error}"));
            sim.counts.refused += 1;
            flip(sim)
        }
        Err(error) => Err(Violation(format!("bit {bit} of {}: {error}", path.display()))),
    }
}

/// Half of them where it hurts: near the start of what is used.
fn pick_bit(sim: &mut Sim, path: &Path) -> Result<u64, Violation> {
    let size = sim.disk.open(path, OpenMode::Read).and_then(|file| file.size());
    let bytes = size.map_err(|e| Violation(format!("{}: {e}", path.display())))?.max(1);
    let near = (4096 + 2048).min(bytes);
    let within = if sim.rng.one_in(2) { near } else { bytes };
    Ok(sim.rng.below(within * 8))
}
