//! What runs beside: snapshots, retention, purging, spares, expiry of sessions.

use super::super::clients::Request;
use super::super::options::{Setup, Slip};
use super::super::{Turn, Violation, World, invariants, show};
use super::Process;
use crate::base::{ConnId, MonoMs, WallMs, Zxid};
use crate::node::SnapshotTask;
use crate::node::snapshot::retire;
use crate::storage::log::LogError;
use crate::wire::OpCode;

impl World {
    pub(super) fn background(
        &mut self,
        node: usize,
        process: &mut Process,
        now: MonoMs,
    ) -> Result<(), Violation> {
        let delay = 10 + self.rng.below(80);
        self.plan(node, process, Turn::Background, delay);
        self.expire(node, process, now)?;
        if self.rng.one_in(3) {
            let made = process.spares.prepare_if_needed().map(drop);
            survive(process, made);
        }
        if process.member.is_receiving_state() {
            // Snapshots are the member's then.
            if let Some(task) = process.task.take() {
                task.abort(&process.tree);
            }
            return Ok(());
        }
        self.snapshot_step(node, process);
        if let Some(below) = process.purge_below.take() {
            let purged = process.spares.purge(below);
            self.counts.purged += purged.as_ref().map_or(0, |count| *count as u64);
            survive(process, purged.map(drop));
        }
        Ok(())
    }

    fn expire(&mut self, node: usize, process: &mut Process, now: MonoMs) -> Result<(), Violation> {
        if !process.leads() {
            return Ok(());
        }
        let mut due = Vec::new();
        let early_ms = if self.options.slip == Some(Slip::ExpiredEarly) { 700 } else { 0 };
        process.desk.sessions.poll_expired(MonoMs(now.0 + early_ms), &mut due);
        due.sort_unstable();
        for session in due {
            invariants::sessions::check_expiry(node, &process.desk, session, now)?;
            self.counts.expired += 1;
            self.model.ending.insert(session);
            process.desk.requests.push_back(Request {
                session,
                cxid: 0,
                op: OpCode::CloseSession.to_i32(),
                body: Vec::new(),
                conn: ConnId(0),
            });
        }
        Ok(())
    }

    fn snapshot_step(&mut self, node: usize, process: &mut Process) {
        let Some(mut task) = process.task.take() else {
            if self.now >= process.snapshot_at && process.tree.read().applied() > Zxid::ZERO {
                process.snapshot_at = self.now + 1 + self.rng.below(2 * self.setup.snapshot_ms);
                let options = Setup::snapshot_options(process.member.node_id(), self.now);
                process.task = SnapshotTask::begin(&process.tree, &process.snapshots, &options).ok();
            }
            return;
        };
        for _ in 0..1 + self.rng.below(4) {
            match task.step(&process.tree) {
                Ok(true) => {}
                Ok(false) => {
                    let zxid = task.zxid();
                    match task.finish(&process.tree, &process.snapshots) {
                        Ok(info) => self.snapshot_taken(node, process, info.zxid),
                        Err(error) => {
                            self.note(|| format!("n{}: snapshot at {}: {error}", node + 1, show(zxid)))
                        }
                    }
                    return;
                }
                Err(_) => return task.abort(&process.tree),
            }
        }
        process.task = Some(task);
    }

    fn snapshot_taken(&mut self, node: usize, process: &mut Process, zxid: Zxid) {
        self.counts.snapshots += 1;
        self.note(|| format!("n{} has a snapshot at {}", node + 1, show(zxid)));
        process.verified.insert(zxid);
        let now = WallMs(1_000_000 + self.now as i64);
        if let Ok(retired) = retire(&process.snapshots, &Setup::retention(), &mut process.verified, now) {
            process.purge_below = retired.purge_below.or(process.purge_below);
        }
    }
}

/// What is not benign ends the process.
fn survive(process: &mut Process, result: Result<(), LogError>) {
    if let Err(error) = result
        && !error.is_benign()
    {
        process.failed = Some(error.to_string());
    }
}
