//! A history that is damaged, in a directory whose peers have it too: it is moved out of the way, and the directory begins anew without a
//! vote ([`Recall::Lost`]).
//!
//! - Q1: nothing is removed: every file that held history stays, in its folder, as `damaged.<node>-<generation>.<name>`.
//! - Q2: the superblock says what is being done before the first file is moved, and stops saying so when a new log is there; a start in
//!   between finishes it.
//! - Q3: promises stay promises: epochs are kept, unless it is the superblock itself that is lost.
//! - Q4: what may only be in another place (a directory that is not mounted, or another node's), or cannot be read now, or by this version, is
//!   refused, not given up.

use std::io;
use std::path::{Path, PathBuf};

use super::{NodePlaces, RecoverError, SnapshotFault};
use crate::storage::log::LogError;
use crate::storage::snapshot::SnapshotError;
use crate::storage::superblock::{CopyState, Superblock, SuperblockError, copy_path};
use crate::storage::vfs::Vfs;

/// What the names of files that were set aside begin with.
pub const DAMAGED_PREFIX: &str = "damaged.";

impl RecoverError {
    /// True when files of this node are not what it wrote, or some of them are gone: peers may have what is missing (Q4).
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            RecoverError::Superblock { source, .. } => is_superblock_damage(source),
            RecoverError::Log { source: LogError::Refused { row, .. }, .. } => row.is_damage(),
            RecoverError::Log { source: LogError::Damaged { .. }, .. }
            | RecoverError::ResetSnapshot { .. }
            | RecoverError::Gap { .. }
            | RecoverError::LogBehind { .. } => true,
            // A digest: every member may come to the same, and a history that is whole is not given up for it.
            _ => false,
        }
    }
}

fn is_superblock_damage(error: &SuperblockError) -> bool {
    let is_readable = |copy: &CopyState| !matches!(copy, CopyState::Unreadable { .. });
    matches!(error, SuperblockError::Damaged(zero, one) if [zero, one].into_iter().all(is_readable))
}

impl SnapshotFault {
    /// True when its bytes are not those that were written; false when that cannot be told now, or by this version.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            SnapshotFault::Storage(SnapshotError::Damaged(damage)) => !damage.may_pass(),
            SnapshotFault::Storage(_) | SnapshotFault::Kind { .. } => false,
            _ => true,
        }
    }
}

/// The same of a superblock that is looked for in `dir`: a missing one counts when a start that was cut short has moved it.
pub(super) fn is_superblock_damaged(vfs: &dyn Vfs, dir: &Path, error: &SuperblockError) -> bool {
    let is_moved = |name: &String| name.starts_with(DAMAGED_PREFIX) && name.contains(".superblock.");
    let moved = || vfs.list(dir).is_ok_and(|names| names.iter().any(is_moved));
    is_superblock_damage(error) || (matches!(error, SuperblockError::Missing) && moved())
}

/// Moves the snapshots and segments that there are out of the way (Q1). What a start that was cut short has made since goes: a file
/// whose place is taken was moved before.
pub(super) fn move_history(
    vfs: &dyn Vfs,
    places: &NodePlaces,
    superblock: &Superblock,
    generation: u64,
) -> Result<(), RecoverError> {
    let prefix = prefix(superblock.node_id, generation);
    for (dir, kind) in [(&places.data, "snapshot."), (&places.log, "log.")] {
        move_files(vfs, dir, kind, &prefix)
            .map_err(|source| RecoverError::Directory { path: dir.clone(), source })?;
    }
    Ok(())
}

fn move_files(vfs: &dyn Vfs, dir: &Path, kind: &str, prefix: &str) -> io::Result<()> {
    let names = match vfs.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names.iter().filter(|name| name.starts_with(kind)) {
        let (from, to) = (dir.join(name), dir.join(format!("{prefix}{name}")));
        if vfs.exists(&to)? { vfs.remove(&from)? } else { vfs.rename(&from, &to)? }
    }
    vfs.sync_dir(dir)
}

/// Moves the copies of a superblock that is of no use out of the way; `node_id` is that of the one to come.
pub(super) fn move_superblock(vfs: &dyn Vfs, dir: &Path, node_id: u64) -> io::Result<()> {
    for from in (0..2).map(|copy| copy_path(dir, copy)) {
        if vfs.exists(&from)? {
            vfs.rename(&from, &beside(&from, &prefix(node_id, 0)))?;
        }
    }
    vfs.sync_dir(dir)
}

fn beside(path: &Path, prefix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{prefix}{name}"))
}

fn prefix(node_id: u64, generation: u64) -> String {
    format!("{DAMAGED_PREFIX}{node_id:x}-{generation}.")
}
