//! A node's directory while it is held: the lock, and the superblock that changes with the node's life.

use std::io;
use std::path::Path;

use thiserror::Error;

use super::{NodePlaces, RecoverError, RecoverEvent, RecoverShell};
use crate::base::rng::Rng;
use crate::base::{Epoch, LogPos, ServerId, Zxid};
use crate::storage::log::{Appender, Flusher, Log, LogError};
use crate::storage::snapshot::{SnapshotError, SnapshotStore};
use crate::storage::superblock::{Superblock, SuperblockError, SuperblockStore};
use crate::storage::vfs::{Vfs, VfsLock};

/// Lock and superblock of a node, this process's until it is dropped.
#[derive(Debug)]
pub struct NodeDir {
    superblock: SuperblockStore,
    _lock: Box<dyn VfsLock>,
}

/// Why a node's history cannot be cut.
#[derive(Debug, Error)]
pub enum TruncateError {
    /// Nothing that stays would reach from the snapshots to the log. Nothing was changed.
    #[error(
        "no snapshot up to {to} stays, and the log starts after {log_base}: the whole state must be fetched instead"
    )]
    NoCover {
        /// Where the cut should be.
        to: Zxid,
        /// What the log starts after.
        log_base: Zxid,
    },
    /// Snapshots cannot be judged. Nothing was changed.
    #[error("{0}")]
    Snapshots(#[from] SnapshotError),
    /// `NotFound` changed nothing; after anything else the process must stop, and the next start finishes the cut.
    #[error("{0}")]
    Log(#[from] LogError),
}

impl NodeDir {
    /// Takes the lock and opens the superblock, or makes one where there is no data.
    pub(super) fn open(
        vfs: &dyn Vfs,
        places: &NodePlaces,
        server_id: ServerId,
        seeds: &mut Rng,
        shell: &RecoverShell<'_>,
    ) -> Result<NodeDir, RecoverError> {
        let lock = vfs.lock(&places.data.join("lock")).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => RecoverError::InUse { path: places.data.clone() },
            _ => RecoverError::Locked { path: places.data.clone(), source },
        })?;
        let data_present = holds_data(vfs, places)?;
        let opened = SuperblockStore::open(vfs, &places.data, data_present)
            .map_err(|source| RecoverError::superblock(places, source))?;
        let (node_id, cluster_id) = (seeds.next_u64(), seeds.next_u64());
        let superblock = match opened {
            Some((superblock, copies)) => {
                (shell.observe)(&RecoverEvent::Superblock { copies: &copies });
                superblock
            }
            None => SuperblockStore::format(vfs, &places.data, first_value(node_id, cluster_id, server_id))
                .map_err(|source| RecoverError::superblock(places, source))?,
        };
        let found = superblock.value().server_id;
        if found != server_id {
            let dir = places.data.clone();
            return Err(RecoverError::WrongServer { dir, found, expected: server_id });
        }
        Ok(NodeDir { superblock, _lock: lock })
    }

    /// What is on the disk.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        self.superblock.value()
    }

    /// True when there has been a log: one that is missing then is a loss.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.superblock.generation() > 1
    }

    /// Before the first append of a life (B5); stored in any case, so that from the first life on there is a history. Ends a
    /// pending truncation, which opening the log has finished.
    pub(super) fn log_grows(&mut self) -> Result<(), SuperblockError> {
        let value = Superblock { truncate_pending: None, clean_stop: None, ..self.superblock().clone() };
        self.superblock.store(value)?;
        assert!(self.has_history(), "B5");
        Ok(())
    }

    /// After the last flush of a life: writes down where the log ends, so that the next start can tell damage from a torn tail.
    ///
    /// # Errors
    /// The clean stop is not recorded, or may not be: the next start treats this life as one that crashed.
    pub fn clean_stop(&mut self, end: LogPos) -> Result<(), SuperblockError> {
        assert!(self.superblock().truncate_pending.is_none(), "a truncation ends before its process does");
        self.superblock.store(Superblock { clean_stop: Some(end), ..self.superblock().clone() })
    }

    /// Cuts the node's durable history behind `to`: intent, snapshots above, log, intent cleared. The tree must be made anew.
    ///
    /// # Errors
    /// See [`TruncateError`].
    pub fn truncate(
        &mut self,
        log: &mut Log,
        snapshots: &SnapshotStore,
        to: Zxid,
    ) -> Result<(), TruncateError> {
        let log_base = log.reader.base();
        if !is_covered(snapshots, log_base, to)? {
            return Err(TruncateError::NoCover { to, log_base });
        }
        let Log { appender, flusher, .. } = log;
        Ok(self.truncate_log(appender, flusher, snapshots, to)?)
    }

    fn truncate_log(
        &mut self,
        appender: &mut Appender,
        flusher: &mut Flusher,
        snapshots: &SnapshotStore,
        to: Zxid,
    ) -> Result<(), LogError> {
        appender.truncate(flusher, to, &mut |intent| {
            self.store_intent(intent).map_err(io::Error::other)?;
            // Behind the durable intent: a crash in between is finished by the next start (B4).
            match intent {
                Some(to) => snapshots.remove_above(to).map(drop).map_err(io::Error::other),
                None => Ok(()),
            }
        })
    }

    /// The clean-stop place goes in the same write: it may lie behind the cut.
    fn store_intent(&mut self, intent: Option<Zxid>) -> Result<(), SuperblockError> {
        let value = Superblock { truncate_pending: intent, clean_stop: None, ..self.superblock().clone() };
        self.superblock.store(value)
    }
}

/// True when a start after the cut would find a beginning: an empty tree and a whole log, or a snapshot the log reaches.
fn is_covered(snapshots: &SnapshotStore, log_base: Zxid, to: Zxid) -> Result<bool, SnapshotError> {
    let stays = |entry: &crate::storage::snapshot::SnapshotEntry| {
        entry.state.as_ref().is_ok_and(|info| info.zxid >= log_base && info.zxid_end <= to)
    };
    Ok(log_base == Zxid::ZERO || snapshots.list()?.iter().any(stays))
}

fn first_value(node_id: u64, cluster_id: u64, server_id: ServerId) -> Superblock {
    Superblock {
        node_id,
        cluster_id,
        server_id,
        epoch_accepted: Epoch(0),
        epoch_current: Epoch(0),
        truncate_pending: None,
        clean_stop: None,
    }
}

/// True when there is a snapshot or a log file: data that a superblock must belong to (rule R8).
fn holds_data(vfs: &dyn Vfs, places: &NodePlaces) -> Result<bool, RecoverError> {
    let is_data = |dir: &Path, prefix: &str| match vfs.list(dir) {
        Ok(names) => Ok(names.iter().any(|name| name.starts_with(prefix))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(RecoverError::Directory { path: dir.to_path_buf(), source }),
    };
    Ok(is_data(&places.data, "snapshot.")? || is_data(&places.log, "")?)
}
