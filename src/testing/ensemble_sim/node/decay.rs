//! Disks that lose what was durable: a directory that is gone, and bits that flip. A minority at a time: more than that nobody promises.

use super::super::options::Setup;
use super::super::{World, show};
use super::Node;
use crate::base::{Epoch, Zxid};
use crate::storage::superblock::{self, Recall, Superblock, SuperblockStore, copy_path};
use crate::storage::vfs::{OpenMode, Vfs};

impl Node {
    /// What its disk held is not there any more, and nobody may count on it.
    pub(super) fn forget(&mut self) {
        self.held_once.append(&mut self.durable);
        self.held_once.sort_unstable();
        self.agreed = 0;
        (self.unsure, self.rotten) = (true, false);
        if self.recall().is_none() {
            self.epochs = (Epoch(0), Epoch(0));
        }
    }

    /// Neither disk nor memory has failed it, as far as that is not mended.
    pub(in super::super) fn is_sound(&self) -> bool {
        let diverged = self.process.as_ref().is_some_and(|process| process.member.has_diverged());
        self.rots == 0 && !self.rotten && !diverged && self.recall() == Some(Recall::Whole)
    }

    /// Of its superblock; none without one, or with another one than before.
    fn recall(&self) -> Option<Recall> {
        let stored = superblock::load(&self.disk, &Setup::places().data, false).ok().flatten()?;
        (stored.value.epoch_accepted >= self.epochs.0).then_some(stored.value.recall)
    }
}

impl World {
    /// Gives a node a directory that has nothing to remember.
    pub(in super::super) fn found(&self, node: usize) {
        let first = Superblock::new(node as u64 + 1, 1, Setup::server_id(node));
        SuperblockStore::format(&self.nodes[node].disk, &Setup::places().data, first).expect("an empty disk");
    }

    /// The disk of a node that is not running is another one, with nothing on it.
    pub(in super::super) fn lose_disk(&mut self, node: usize) {
        self.counts.wiped += 1;
        let last = self.nodes[node].durable.last().copied().unwrap_or(Zxid::ZERO);
        self.note(|| format!("the directory of n{}, up to {}, is gone", node + 1, show(last)));
        self.wipe(node);
    }

    /// Before a start: sometimes the disk is not what it was.
    pub(super) fn decay(&mut self, node: usize) {
        let scripted = self.directed.is_some();
        if self.calm || scripted || !self.rng.one_in(8) || !self.may_forget(node) {
            return;
        }
        if self.rng.one_in(3) {
            self.lose_disk(node);
        } else {
            self.counts.rotten += 1;
            self.rot(node);
        }
    }

    /// Of those with a vote, so many may have forgotten something that the others are a quorum, this one counted.
    fn may_forget(&self, node: usize) -> bool {
        let voters = self.setup.voters;
        let others = self.nodes[..voters].iter().filter(|n| n.index != node && !n.is_sound()).count();
        node >= voters || (self.nodes[node].is_sound() && others < voters - self.setup.quorum())
    }

    fn wipe(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        // No crash that was meant for a process: nobody is running.
        disk.crash_at(u64::MAX);
        for dir in [Setup::places().data, Setup::places().log] {
            for name in disk.list(&dir).unwrap_or_default() {
                disk.remove(&dir.join(name)).expect("it is there");
            }
            if disk.exists(&dir).expect("it can be looked at") {
                disk.sync_dir(&dir).expect("it can be synced");
            }
        }
        self.nodes[node].forget();
    }

    /// Flips bits where that can be told from a torn write: not in what was written last.
    fn rot(&mut self, node: usize) {
        let places = Setup::places();
        let disk = self.nodes[node].disk.clone();
        let named = |dir: &std::path::Path, kind: &str| {
            let mut names = disk.list(dir).unwrap_or_default();
            names.retain(|name| name.starts_with(kind) && name.len() == kind.len() + 16);
            names.sort_unstable();
            names.into_iter().map(|name| dir.join(name)).collect::<Vec<_>>()
        };
        let (snapshots, segments) = (named(&places.data, "snapshot."), named(&places.log, "log."));
        let mut paths = match self.rng.below(4) {
            0 => (0..2).map(|copy| copy_path(&places.data, copy)).collect(),
            1 => snapshots,
            _ => segments[..segments.len().saturating_sub(2)].to_vec(),
        };
        if self.rng.one_in(2) && paths.len() > 2 {
            let kept = self.rng.below(paths.len() as u64) as usize;
            paths = vec![paths.swap_remove(kept)];
        }
        for path in paths {
            let Ok(bytes) = disk.open(&path, OpenMode::Read).and_then(|file| file.size()) else { continue };
            let bit = self.rng.below((bytes * 8).clamp(1, 8 * 8_192));
            self.nodes[node].rotten = true;
            self.note(|| format!("n{}: bit {bit} of {} flips", node + 1, path.display()));
            disk.flip_bit(&path, bit).expect("it is there");
        }
    }
}
