//! What the server's background threads do: idle marks, snapshots in steps, retention, purge; a whole state that takes the place
//! of the log, as a member of an ensemble receives it; and the disk that fills up.

use super::{Bug, CAPACITY, Life, Setup, Sim};
use crate::base::{WallMs, Zxid};
use crate::node::snapshot::retire;
use crate::node::{ResetError, SnapshotFailed, SnapshotOptions, SnapshotTask};
use crate::storage::snapshot::SnapshotInfo;
use crate::storage::vfs::Vfs;

impl Life {
    pub(super) fn mark_if_idle(&mut self, sim: &mut Sim) {
        if self.batches.is_empty() {
            let marked = self.appender.mark();
            if matches!(marked, Ok(true)) {
                self.end = None;
            }
            self.survive(sim, "mark", marked);
        }
    }

    pub(super) fn snapshot_step(&mut self, sim: &mut Sim) {
        let Some(mut task) = self.task.take() else { return self.snapshot_begin(sim) };
        match task.step(&self.tree) {
            Ok(true) => self.task = Some(task),
            Ok(false) => match task.finish(&self.tree, &self.snapshots) {
                Ok(info) => self.snapshot_taken(sim, &info),
                Err(error) => self.snapshot_failed(sim, &error),
            },
            Err(error) => {
                task.abort(&self.tree);
                self.snapshot_failed(sim, &error);
            }
        }
    }

    fn snapshot_begin(&mut self, sim: &mut Sim) {
        if !sim.rng.one_in(3) || self.tree.read().applied() == Zxid::ZERO {
            return;
        }
        let node_id = self.dir.superblock().node_id;
        let created = WallMs(1_000_000 + sim.trace.len() as i64);
        let chunk_bytes = 1 + sim.rng.below(1_500) as usize;
        let options = SnapshotOptions { node_id, created, level: 1, chunk_bytes };
        match SnapshotTask::begin(&self.tree, &self.snapshots, &options) {
            Ok(task) => {
                sim.note(format!("snapshot begun at {}", task.zxid()));
                self.task = Some(task);
            }
            Err(error) => self.snapshot_failed(sim, &error),
        }
    }

    fn snapshot_failed(&mut self, sim: &mut Sim, error: &SnapshotFailed) {
        sim.counts.snapshots_failed += 1;
        sim.note(format!("snapshot: {error}"));
    }

    fn snapshot_taken(&mut self, sim: &mut Sim, info: &SnapshotInfo) {
        sim.counts.snapshots += 1;
        self.verified.insert(info.zxid);
        let retired = retire(&self.snapshots, &self.retention, &mut self.verified, info.created);
        sim.note(format!("snapshot taken at {}, retired {retired:?}", info.zxid));
        if let Ok(retired) = retired {
            sim.counts.snapshots_removed += retired.removed.len() as u64;
            self.purge_below = retired.purge_below.or(self.purge_below);
        }
    }

    pub(super) fn purge(&mut self, sim: &mut Sim) {
        let mut below = self.purge_below.take();
        if sim.options.bug == Some(Bug::PurgeWithoutSnapshot) {
            below = Some(self.tree.read().applied().next());
        }
        if let Some(below) = below {
            let purged = self.spares.purge(below);
            sim.counts.purged += *purged.as_ref().unwrap_or(&0) as u64;
            self.survive(sim, "purge", purged);
        }
    }

    /// The node's own state, as if it came from elsewhere, takes the place of its log.
    pub(super) fn receive_state(&mut self, sim: &mut Sim) {
        let base = self.tree.read().applied();
        let is_idle = self.task.is_none() && self.batches.is_empty() && base == self.appender.last_zxid();
        if self.dead || !is_idle || base == Zxid::ZERO || !sim.rng.one_in(4) {
            return;
        }
        let result = match sim.options.bug {
            Some(Bug::ResetWithoutSnapshot) => self
                .appender
                .reset(&mut self.flusher, base, &mut |_| Ok(()))
                .map(|()| true)
                .map_err(|e| e.to_string()),
            _ => self.replace_log(base),
        };
        sim.note(format!("state at {base} received: {result:?}"));
        sim.reset_at = base;
        (self.end, self.dead) = (None, result.is_err());
        sim.counts.resets += u64::from(result == Ok(true));
        sim.counts.latched += u64::from(result.is_err());
    }

    /// False when it could not be published, or there was no space: it is withdrawn then.
    fn replace_log(&mut self, base: Zxid) -> Result<bool, String> {
        let announced =
            self.dir.announce_state(&self.snapshots, base).map_err(|e| format!("announce: {e}"))?;
        let published = !announced || self.publish();
        if published {
            match self.dir.reset(&mut self.appender, &mut self.flusher, &self.snapshots, base) {
                Ok(()) => {
                    self.verified.insert(base);
                    return Ok(true);
                }
                Err(ResetError::Log(e)) if !e.is_benign() => return Err(format!("reset: {e}")),
                Err(_) => {}
            }
        }
        self.dir.withdraw_state(&self.snapshots).map_err(|e| format!("withdraw: {e}"))?;
        Ok(false)
    }

    /// A snapshot of the tree at once; false when there is no room for it, or the disk fails.
    fn publish(&mut self) -> bool {
        let (node_id, created) = (self.dir.superblock().node_id, WallMs(1));
        let options = SnapshotOptions { node_id, created, level: 1, chunk_bytes: 1_000 };
        let Ok(mut task) = SnapshotTask::begin(&self.tree, &self.snapshots, &options) else { return false };
        loop {
            match task.step(&self.tree) {
                Ok(true) => {}
                Ok(false) => return task.finish(&self.tree, &self.snapshots).is_ok(),
                Err(_) => {
                    task.abort(&self.tree);
                    return false;
                }
            }
        }
    }

    /// Takes nearly all the room there is, or gives it back.
    pub(super) fn change_capacity(&mut self, sim: &mut Sim) {
        let free = sim.disk.free_bytes(&Setup::places().data).unwrap_or(0);
        if free < CAPACITY / 2 {
            sim.disk.set_capacity(CAPACITY);
        } else if sim.rng.one_in(4) {
            sim.disk.set_capacity(CAPACITY - free + sim.rng.below(48 << 10));
        }
    }
}
