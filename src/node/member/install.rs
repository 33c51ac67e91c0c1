//! How the tree is replaced: by a whole state, which takes the place of the durable history first (rule R7); or, when it differs from the others', by
//! what the history here makes of it.
//!
//! - I1: what comes becomes a snapshot as it comes, in a temporary file. Log, snapshots and tree stay as they are, and answer what they may, until
//!   it is all there.
//! - I2: it is announced, published, read back, and takes the place of the log; each of these is durable before the next. A start after a crash goes on
//!   with the old history, or with the new one.
//! - I3: only then the tree goes, and after it, from the disk, the new one is made: there are never two. Whatever becomes of the leader
//!   meanwhile, that is brought to its end, and until then this server does not vote.
//! - I4: a tree that differs is made anew from the newest snapshot here, and the log behind it is applied to it. That needs nobody else, and the vote
//!   is kept. When it differs again by where it did before, or cannot be made, the state has to come from a leader.

use std::fmt;
use std::sync::Arc;

use super::{Member, MemberError, Output, Role, StopReason};
use crate::base::{MonoMs, WallMs, Zxid};
use crate::node::SnapshotOptions;
use crate::node::recover::{ResetError, SnapshotFault, SteppedLoad};
use crate::node::snap_stream::{Fed, StateFailed, StateFile, WholeState};
use crate::storage::log::{LogError, is_no_space};
use crate::storage::snapshot::{LEVEL_DEFAULT, SnapshotError, SnapshotReader, SnapshotStore};
use crate::tree::{Tree, TreeOptions};
use crate::zab::Rule;
use crate::zab::learner::Input;

/// How often it is said how far a state has come, bytes.
const PROGRESS_BYTES: u64 = 64 << 20;

/// A state on its way.
#[derive(Debug)]
pub(super) enum Install {
    Receiving(Box<StateFile>),
    /// All there, in a temporary file; waits until nobody else is busy with snapshots.
    Received(Box<WholeState>),
    /// It is announced, and a snapshot; the log is as it was.
    Published {
        zxid: Zxid,
        is_fuzzy: bool,
    },
    /// It is in the place of the log, and becomes the tree ([`Loading`]).
    Loading,
}

/// Whether there is a tree, and the right one.
#[derive(Debug)]
pub(super) enum TreeState {
    /// As far as anybody knows.
    Sound,
    /// It differs, and is made anew as soon as nobody else is busy with snapshots (I4).
    Differs,
    /// It differs, and what takes its place has to come from a leader. Until then this server does not stand for election.
    StateNeeded,
    /// It is being made (M8).
    Loading(Box<Loading>),
}

/// A tree on its way from the disk.
#[derive(Debug)]
pub(super) struct Loading {
    load: SteppedLoad,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A state that was received. From a ZooKeeper leader it is fuzzy.
    State { is_fuzzy: bool },
    /// A snapshot of this server's own.
    Snapshot,
}

impl Loading {
    fn new(reader: SnapshotReader, options: TreeOptions, origin: Origin) -> Loading {
        Loading { load: SteppedLoad::new(reader, options), origin }
    }

    fn step(&mut self) -> Result<Option<Tree>, SnapshotFault> {
        let mut tree = self.load.step()?;
        if let Some(tree) = tree.as_mut().filter(|_| self.origin == Origin::State { is_fuzzy: true }) {
            tree.count_usage();
        }
        Ok(tree)
    }
}

impl Member {
    /// A state of the leader is on its way into this server's history, or the tree here differs and is to be replaced: nobody else may take,
    /// remove or purge anything by snapshots. One of a tree that differs would be what the next start begins with.
    #[must_use]
    pub fn is_receiving_state(&self) -> bool {
        let receives = matches!(&self.role, Role::Learning(learning) if learning.install.is_some());
        receives || !matches!(self.tree, TreeState::Sound)
    }

    /// The state as of `zxid` is what comes next from the leader.
    pub(super) fn begin_receiving(&mut self, now: MonoMs, zxid: Zxid) -> Result<(), MemberError> {
        let options = SnapshotOptions {
            node_id: self.node_id(),
            // When it was received is nobody's concern; pure code has no clock.
            created: WallMs(0),
            level: LEVEL_DEFAULT,
            chunk_bytes: self.options.snapshot_chunk_bytes,
        };
        match StateFile::begin(&self.storage.snapshots, zxid, self.options.tree, &options) {
            Ok(file) => {
                let Role::Learning(learning) = &mut self.role else { return Ok(()) };
                learning.install = Some(Install::Receiving(Box::new(file)));
                Ok(())
            }
            Err(error) => self.not_stored(now, error),
        }
    }

    /// A state that does not fit leaves things as they were; it may fit later.
    fn not_stored(&mut self, now: MonoMs, error: SnapshotError) -> Result<(), MemberError> {
        match error {
            SnapshotError::Io(error) if is_no_space(&error) => {
                self.rest_without_space(now);
                Ok(())
            }
            error => Err(MemberError::Snapshot(error.into())),
        }
    }

    /// Takes bytes of a state; `None` when it ends the attachment.
    pub(super) fn receive_state(&mut self, now: MonoMs, bytes: &[u8]) -> Option<usize> {
        match self.take_state(bytes) {
            Ok(consumed) => consumed,
            Err(StateFailed::Stream(error)) => {
                self.look(now, StopReason::BadState(Arc::new(error)));
                None
            }
            Err(StateFailed::Storage(error)) => {
                if let Err(error) = self.not_stored(now, error) {
                    self.fail(error);
                }
                None
            }
        }
    }

    fn take_state(&mut self, bytes: &[u8]) -> Result<Option<usize>, StateFailed> {
        let Role::Learning(learning) = &mut self.role else { return Ok(None) };
        let Some(Install::Receiving(file)) = &mut learning.install else { return Ok(None) };
        let before = file.progress().bytes / PROGRESS_BYTES;
        let Fed { consumed, done } = file.feed(bytes)?;
        let progress = file.progress();
        if progress.bytes / PROGRESS_BYTES > before {
            tracing::info!(bytes = progress.bytes, nodes = progress.nodes, "a whole state is coming");
        }
        if done && let Some(Install::Receiving(file)) = learning.install.take() {
            learning.install = Some(Install::Received(Box::new(file.finish()?)));
        }
        Ok(Some(consumed))
    }

    /// Brings a received state a step further; true when there is more to do at once. `alone`: nobody else is busy with snapshots.
    pub(super) fn install_step(&mut self, now: MonoMs, alone: bool) -> bool {
        let Role::Learning(learning) = &mut self.role else { return false };
        let result = match learning.install.take() {
            Some(Install::Received(state)) if alone => self.publish_state(now, *state),
            Some(Install::Published { zxid, is_fuzzy }) => self.replace_history(now, zxid, is_fuzzy),
            other => {
                let waits = matches!(other, Some(Install::Received(_)));
                learning.install = other;
                return waits;
            }
        };
        match result {
            Ok(()) => true,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn publish_state(&mut self, now: MonoMs, state: WholeState) -> Result<(), MemberError> {
        let (zxid, is_fuzzy) = (state.zxid(), state.is_fuzzy());
        let storage = &mut self.storage;
        remove_other(&storage.snapshots, zxid, state.trailer())
            .map_err(|e| MemberError::Snapshot(e.into()))?;
        // Otherwise it is here already, whole.
        if storage.dir.announce_state(&storage.snapshots, zxid)?
            && let Err(error) = state.publish()
        {
            return self.not_stored(now, error);
        }
        let Role::Learning(learning) = &mut self.role else { return Ok(()) };
        learning.install = Some(Install::Published { zxid, is_fuzzy });
        Ok(())
    }

    fn replace_history(&mut self, now: MonoMs, zxid: Zxid, is_fuzzy: bool) -> Result<(), MemberError> {
        let storage = &mut self.storage;
        if !self.broken.is(Rule::StateNotInstalled) {
            let flusher = storage.flusher.as_mut().expect("at home when nothing is under way");
            match storage.dir.reset(&mut storage.appender, flusher, &storage.snapshots, zxid) {
                Ok(()) => {}
                // Nothing was changed; the snapshot goes with the announcement, and comes again.
                Err(ResetError::Log(LogError::NoSpace { .. })) => {
                    self.rest_without_space(now);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let reader = storage.snapshots.reader(zxid).map_err(SnapshotFault::Storage)?;
        self.positions.replace(zxid);
        self.recent.restart(zxid);
        self.differed_at = Zxid::ZERO;
        let loading = Loading::new(reader, self.options.tree, Origin::State { is_fuzzy });
        self.tree = TreeState::Loading(Box::new(loading));
        let Role::Learning(learning) = &mut self.role else { return Ok(()) };
        learning.install = Some(Install::Loading);
        self.outputs.push_back(Output::DropTree);
        Ok(())
    }

    /// Brings a tree that is not there a step further; true when there is more to do at once. `alone`: nobody else is busy with snapshots.
    pub(super) fn load_step(&mut self, now: MonoMs, alone: bool) -> bool {
        match std::mem::replace(&mut self.tree, TreeState::Sound) {
            // One of the tree that differs may be in the making.
            TreeState::Differs if alone => self.begin_anew(now),
            TreeState::Loading(mut loading) => match loading.step() {
                Ok(None) => {
                    self.tree = TreeState::Loading(loading);
                    // What moves counts: a large tree is not a lost leader.
                    self.learn(now, Input::Heard);
                }
                Ok(Some(tree)) => self.loaded(now, tree),
                Err(fault) if loading.origin == Origin::Snapshot => self.cannot_be_made(now, &fault),
                Err(fault) => self.fail(fault.into()),
            },
            other => self.tree = other,
        }
        !self.has_tree()
    }

    /// I4.
    fn begin_anew(&mut self, now: MonoMs) {
        let newest = match self.storage.snapshots.newest_valid(None) {
            Ok(newest) => newest.reader,
            Err(error) => return self.cannot_be_made(now, &error),
        };
        let (base, applied) = (self.storage.reader.base(), self.positions.applied());
        let from = newest.as_ref().map_or(Zxid::ZERO, |reader| reader.info().zxid);
        if from < base || from > applied {
            let gap = format!("its log begins behind {base}, and its newest snapshot is of {from}");
            return self.cannot_be_made(now, &gap);
        }
        tracing::info!(snapshot = %from, upto = %applied, "the tree is made anew from what is on this server's disk");
        self.positions.apply_again_from(from);
        self.outputs.push_back(Output::DropTree);
        match newest {
            Some(reader) => {
                let loading = Loading::new(reader, self.options.tree, Origin::Snapshot);
                self.tree = TreeState::Loading(Box::new(loading));
            }
            None => self.loaded(now, Tree::new(self.options.tree)),
        }
    }

    fn cannot_be_made(&mut self, now: MonoMs, why: &dyn fmt::Display) {
        tracing::error!(%why, "the tree cannot be made from what is on this server's disk: it has to come from a leader");
        self.tree = TreeState::StateNeeded;
        self.settle(now);
    }

    fn loaded(&mut self, now: MonoMs, tree: Tree) {
        self.outputs.push_back(Output::Tree(Box::new(tree)));
        match &mut self.role {
            Role::Learning(learning) => {
                let install = learning.install.take();
                assert!(
                    matches!(install, Some(Install::Loading)),
                    "M8: nothing else was begun without a tree"
                );
                let link = learning.link();
                // It took its time, in which nothing was read.
                self.learn(now, Input::Heard);
                self.learn(now, Input::Installed);
                self.outputs.push_back(Output::Resume(link));
            }
            _ => self.settle(now),
        }
    }

    /// A state that was announced and not installed is forgotten, durably.
    pub(super) fn withdraw_state(&mut self) -> Result<(), MemberError> {
        if self.storage.dir.superblock().state_announced.is_some() {
            self.storage.dir.withdraw_state(&self.storage.snapshots)?;
        }
        Ok(())
    }
}

/// Removes the snapshot at `zxid` if it is of another state than the one that came: one taken of a tree that differs, which must not be loaded in
/// the other's place. What cannot be read is judged when the state is announced.
fn remove_other(snapshots: &SnapshotStore, zxid: Zxid, trailer: &[u8]) -> Result<(), SnapshotError> {
    if snapshots.zxids()?.contains(&zxid)
        && snapshots.reader(zxid).is_ok_and(|reader| reader.info().trailer != trailer)
    {
        snapshots.remove(&[zxid])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::snapshot::SnapshotMeta;
    use crate::testing::sim_disk::SimDisk;

    #[test]
    fn a_snapshot_of_another_state_goes_and_one_of_the_same_stays() {
        let store = SnapshotStore::open(Arc::new(SimDisk::new(1)), Path::new("/data")).unwrap();
        for zxid in [Zxid(5), Zxid(6)] {
            let meta = SnapshotMeta {
                zxid,
                node_id: 1,
                created: WallMs(0),
                chunk_bytes_target: 1,
                level: LEVEL_DEFAULT,
            };
            store.create(meta).unwrap().finish(zxid, b"digest").unwrap();
        }
        remove_other(&store, Zxid(5), b"digest").unwrap();
        remove_other(&store, Zxid(7), b"digest").unwrap();
        assert_eq!(store.zxids().unwrap(), [Zxid(5), Zxid(6)]);
        remove_other(&store, Zxid(6), b"another").unwrap();
        assert_eq!(store.zxids().unwrap(), [Zxid(5)]);
    }
}
