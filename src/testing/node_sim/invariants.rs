//! What must hold, one rule per function. Everything here only looks.

use super::life::Life;
use super::model::dump;
use super::{Sim, Violation};
use crate::base::Zxid;
use crate::tree::Tree;

/// After every start on a disk that a crash, a kill or a failing device left.
pub(super) fn after_start(life: &Life, sim: &Sim) -> Result<(), Violation> {
    acknowledged_survives(life.summary.log.last, sim.model.acknowledged)?;
    nothing_is_invented(life.summary.log.last, sim.model.appended())?;
    superblock_is_of_a_running_node(life)?;
    log_is_the_history(life, sim)?;
    state_is_the_models(&life.tree.read(), &sim.model.tree_at(life.summary.log.last))?;
    nobody_watches(&life.tree.read())
}

/// What was acknowledged is there.
fn acknowledged_survives(found: Zxid, acknowledged: Zxid) -> Result<(), Violation> {
    require(found >= acknowledged, || format!("acknowledged up to {acknowledged}, found up to {found}"))
}

/// What is there was once appended, in this history.
fn nothing_is_invented(found: Zxid, appended: Zxid) -> Result<(), Violation> {
    require(found <= appended, || format!("appended up to {appended}, found up to {found}"))
}

/// Every payload in the log is the one that was appended under its zxid, and none is left out.
fn log_is_the_history(life: &Life, sim: &Sim) -> Result<(), Violation> {
    let base = life.reader.base();
    let read = |e| Violation(format!("the log cannot be read: {e}"));
    let (mut cursor, mut last) = (life.reader.after(base).map_err(read)?, base);
    while let Some((zxid, payload)) = cursor.next().map_err(read)? {
        require(zxid == last.next(), || format!("{zxid} follows {last} in the log"))?;
        require(sim.model.payload(zxid) == Some(payload), || format!("{zxid} is not what was appended"))?;
        last = zxid;
    }
    require(last == life.summary.log.last, || format!("the log ends at {last}, {:?}", life.summary.log))
}

/// The tree is the model at the same transaction, in every field.
fn state_is_the_models(tree: &Tree, model: &Tree) -> Result<(), Violation> {
    let (found, expected) = (dump(tree), dump(model));
    let differs = |key: &&String| found.get(*key) != expected.get(*key);
    match found.keys().chain(expected.keys()).find(differs) {
        None => Ok(()),
        Some(key) => Err(Violation(format!(
            "{key} is\n  {:?}, in the model\n  {:?}",
            found.get(key),
            expected.get(key)
        ))),
    }
}

/// Watches belong to connections, and no connection survives a start.
fn nobody_watches(tree: &Tree) -> Result<(), Violation> {
    let summary = tree.watch_summary();
    require(summary == Default::default(), || format!("watches after a start: {summary:?}"))
}

/// There is a history, no clean stop, nothing pending: the log may grow.
fn superblock_is_of_a_running_node(life: &Life) -> Result<(), Violation> {
    let value = life.dir.superblock();
    let running = life.dir.has_history()
        && (life.keeps_clean_stop || value.clean_stop.is_none())
        && (value.truncate_pending, value.reset_pending, value.state_announced) == (None, None, None);
    require(running, || format!("superblock after a start: {value:?}"))
}

/// What an applied transaction came to, and the state after it, are the model's.
pub(super) fn applied_as_in_the_model(
    live: &Tree,
    model: &Tree,
    outcomes: (&crate::tree::Outcome, &crate::tree::Outcome),
) -> Result<(), Violation> {
    let zxid = live.applied();
    require(outcomes.0 == outcomes.1, || format!("{zxid}: {:?}, in the model {:?}", outcomes.0, outcomes.1))?;
    require(live.digest() == model.digest(), || format!("{zxid}: digests differ"))?;
    require(live.digest_mismatches() == 0, || format!("{zxid}: not the digest that was prepared"))
}

/// A start after damage lost nothing that something vouches for, and what is there is the model's.
pub(super) fn damage_is_not_silent(life: &Life, sim: &Sim, vouched: Zxid) -> Result<(), Violation> {
    let found = life.summary.log.last;
    require(found >= vouched, || format!("vouched for up to {vouched}, found up to {found}, no complaint"))?;
    nothing_is_invented(found, sim.model.appended())?;
    log_is_the_history(life, sim)?;
    state_is_the_models(&life.tree.read(), &sim.model.tree_at(found))
}

/// Once the disk is sound again, the node serves: writes are taken, flushed and applied, and are there after one more start.
pub(super) fn goes_on(sim: &mut Sim, mut life: Life) -> Result<(), Violation> {
    let before = sim.model.acknowledged;
    life.work_off(sim)?;
    life.connect(sim);
    life.work_off(sim)?;
    let after = sim.model.acknowledged;
    require(after > before && !life.is_dead(), || format!("the node does not go on behind {before}"))?;
    drop(life);
    sim.disk = sim.disk.after_kill();
    let life = Life::start(&sim.disk, &sim.setup, u32::MAX, &mut sim.rng)
        .map_err(|e| Violation(format!("the last start: {e}")))?;
    after_start(&life, sim)
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(what())) }
}
