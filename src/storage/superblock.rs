//! Who this node is and what it has promised: the few values that nobody else can give back once they are lost.
//!
//! Two copies of 4 KiB, each with its own checksum, in two files. Layout and failure argument: `docs/snapshot_format.md`.
//!
//! - S1: a copy is overwritten only while the other one is valid and durable, so every crash leaves the old or the new value.
//! - S2: [`SuperblockStore::store`] returns only when both copies are durable: the loss of either one loses no promise.
//! - S3: a missing or doubtful superblock is never replaced by defaults (rule R8); only [`SuperblockStore::format`] makes a
//!   first one, and that refuses to replace another.
//! - S4: what [`SuperblockStore::open`] returns is durable on both copies: they are rewritten, whatever they looked like, before
//!   anyone acts on it (a killed process leaves copies that are new in the cache and old on the disk).
//! - S5: file first, memory second: [`SuperblockStore::value`] never shows what is not durable.

mod format;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use self::format::{COPY_BYTES, COPY_COUNT, Copy as EncodedCopy};
use super::vfs::{OpenMode, Vfs, VfsFile, create_dir_durable};
use crate::base::{Epoch, LogPos, ServerId, Zxid};

pub use self::format::{CopyDamage, VERSION};

/// Whether what this server has ever acknowledged is in this directory. Who cannot vouch for that is not asked what was committed: it
/// has no vote and makes no promise that counts, until it has taken over a leader's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// It is.
    Whole,
    /// The directory is new. Whether this server has acknowledged anything before, in a directory that is gone, cannot be told.
    New,
    /// What the directory held was damaged, and is set aside.
    Lost,
    /// It is being set aside, which is to be finished before anything else.
    Clearing,
}

impl Recall {
    /// A word for operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Recall::Whole => "whole",
            Recall::New => "new",
            Recall::Lost | Recall::Clearing => "lost",
        }
    }
}

/// What the superblock holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Drawn at random when the data directory was made: tells this incarnation of the node from one that was wiped.
    pub node_id: u64,
    /// The same on all members of one ensemble; keeps data directories of different ensembles apart.
    pub cluster_id: u64,
    /// `myid` when the directory was made.
    pub server_id: ServerId,
    /// Highest epoch this node has promised not to fall behind (ZAB's acceptedEpoch).
    pub epoch_accepted: Epoch,
    /// Epoch of the last leader whose history this node has taken over (ZAB's currentEpoch).
    pub epoch_current: Epoch,
    /// A truncation of the log to this zxid has begun and must be finished before anything else (rule R9).
    pub truncate_pending: Option<Zxid>,
    /// Where the log ended, all of it durable, when the node stopped cleanly; `None` while it runs and after a crash. A log
    /// that is found shorter than this was damaged, not torn.
    pub clean_stop: Option<LogPos>,
    /// The log is being replaced by an empty one that starts after this zxid: a whole state at that zxid has been received and
    /// published as a snapshot. To be finished before anything else. Never beside a pending truncation.
    pub reset_pending: Option<Zxid>,
    /// A whole state at this zxid, from elsewhere, is being published as a snapshot; the log is as it was. Found at a start, that
    /// snapshot goes: the log may end before it. Never beside the other two.
    pub state_announced: Option<Zxid>,
    /// A transaction that is known to be committed, and was durable here when this was stored. Grows lazily, never goes back.
    pub committed: Zxid,
    /// Whether all of this server's history is here.
    pub recall: Recall,
}

impl Superblock {
    /// The first value of a data directory: nothing promised, nothing pending, and nothing that could be missing.
    #[must_use]
    pub fn new(node_id: u64, cluster_id: u64, server_id: ServerId) -> Superblock {
        Superblock {
            node_id,
            cluster_id,
            server_id,
            epoch_accepted: Epoch(0),
            epoch_current: Epoch(0),
            truncate_pending: None,
            clean_stop: None,
            reset_pending: None,
            state_announced: None,
            committed: Zxid::ZERO,
            recall: Recall::Whole,
        }
    }

    /// The value of a directory whose history is to be set aside: what was promised stays promised.
    #[must_use]
    pub fn without_history(&self) -> Superblock {
        Superblock {
            epoch_accepted: self.epoch_accepted,
            epoch_current: self.epoch_current,
            recall: Recall::Clearing,
            ..Superblock::new(self.node_id, self.cluster_id, self.server_id)
        }
    }

    /// True when no two values contradict each other.
    fn is_sound(&self) -> bool {
        let pending = [self.truncate_pending, self.reset_pending, self.state_announced];
        let (pending, clearing) = (pending.iter().flatten().count(), self.recall == Recall::Clearing);
        let blank = self.committed == Zxid::ZERO && self.clean_stop.is_none();
        self.epoch_current <= self.epoch_accepted && pending <= usize::from(!clearing) && (blank || !clearing)
    }
}

/// What was found in place of one of the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Valid and as new as any.
    Good,
    /// Valid, but the other copy is newer: a crash came between the two writes.
    Stale,
    /// Not valid: torn by a crash, or damaged since.
    Bad(CopyDamage),
    /// The device could not read it.
    Unreadable {
        /// The operating system's error number; 0 when there was none.
        errno: i32,
    },
    /// There is no such file.
    Missing,
}

impl fmt::Display for CopyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyState::Good => f.write_str("good"),
            CopyState::Stale => f.write_str("older than the other copy"),
            CopyState::Bad(CopyDamage::Short) => f.write_str("damaged: too short"),
            CopyState::Bad(CopyDamage::Magic) => f.write_str("damaged: does not begin as a superblock does"),
            CopyState::Bad(CopyDamage::Checksum) => f.write_str("damaged: checksum does not match"),
            CopyState::Bad(CopyDamage::WrongCopy(copy)) => write!(f, "damaged: holds copy {copy}"),
            CopyState::Bad(CopyDamage::Contradiction) => f.write_str("damaged: contradicts itself"),
            CopyState::Bad(CopyDamage::Version(version)) => write!(f, "of format version {version}"),
            CopyState::Unreadable { errno } => {
                write!(f, "cannot be read: {}", io::Error::from_raw_os_error(*errno))
            }
            CopyState::Missing => f.write_str("missing"),
        }
    }
}

/// Why there is no superblock to work with.
#[derive(Debug, Error)]
pub enum SuperblockError {
    /// The file system failed.
    #[error("superblock: {0}")]
    Io(#[from] io::Error),
    /// No copy, but the directory is not new.
    #[error(
        "superblock missing although the data directory holds data: identity and epochs are lost, never guessed"
    )]
    Missing,
    /// No valid copy.
    #[error("no valid superblock: superblock.0 is {0}, superblock.1 is {1}")]
    Damaged(CopyState, CopyState),
    /// Two valid copies that cannot both be this node's.
    #[error("the two superblock copies contradict each other (generations {0} and {1})")]
    Conflict(u64, u64),
    /// Written by a later version of Zabra.
    #[error("superblock has format version {found}, this build knows versions up to {known}")]
    Version {
        /// Version in the file.
        found: u32,
        /// Newest version this build reads.
        known: u32,
    },
    /// Asked to make one where there is one.
    #[error("there is a superblock already")]
    Exists,
}

/// A superblock as found, without changing anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The newest valid value.
    pub value: Superblock,
    /// How often it has been stored; 1 after formatting.
    pub generation: u64,
    /// What each copy was like.
    pub copies: [CopyState; COPY_COUNT],
}

/// Reads both copies and picks the newest valid one; changes nothing. `Ok(None)` when the directory has never been formatted
/// and `data_present` is false.
///
/// # Errors
/// [`SuperblockError::Missing`] when there is data but no copy; [`SuperblockError::Damaged`] when there is no valid copy.
pub fn load(vfs: &dyn Vfs, dir: &Path, data_present: bool) -> Result<Option<Loaded>, SuperblockError> {
    let (zero, one) = (read_copy(vfs, dir, 0)?, read_copy(vfs, dir, 1)?);
    let (newest, copies) = match (zero, one) {
        (Ok(zero), Ok(one)) => newest_of(zero, one)?,
        (Ok(zero), Err(state)) => (zero, [CopyState::Good, state]),
        (Err(state), Ok(one)) => (one, [state, CopyState::Good]),
        (Err(CopyState::Missing), Err(CopyState::Missing)) if data_present => {
            return Err(SuperblockError::Missing);
        }
        (Err(CopyState::Missing), Err(CopyState::Missing)) => return Ok(None),
        (Err(zero), Err(one)) => return Err(SuperblockError::Damaged(zero, one)),
    };
    Ok(Some(Loaded { value: newest.value, generation: newest.generation, copies }))
}

fn newest_of(
    zero: EncodedCopy,
    one: EncodedCopy,
) -> Result<(EncodedCopy, [CopyState; COPY_COUNT]), SuperblockError> {
    let same_node = zero.value.node_id == one.value.node_id;
    if !same_node || (zero.generation == one.generation && zero.value != one.value) {
        return Err(SuperblockError::Conflict(zero.generation, one.generation));
    }
    Ok(match zero.generation.cmp(&one.generation) {
        std::cmp::Ordering::Less => (one, [CopyState::Stale, CopyState::Good]),
        std::cmp::Ordering::Equal => (zero, [CopyState::Good; COPY_COUNT]),
        std::cmp::Ordering::Greater => (zero, [CopyState::Good, CopyState::Stale]),
    })
}

/// Outer errors end the start; an inner one is a copy that the other may stand in for.
fn read_copy(
    vfs: &dyn Vfs,
    dir: &Path,
    copy: usize,
) -> Result<Result<EncodedCopy, CopyState>, SuperblockError> {
    let file = match vfs.open(&copy_path(dir, copy), OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Err(CopyState::Missing)),
        Err(e) => return Err(e.into()),
    };
    // A copy whose sync failed may be new in the cache and old on the disk (vfs V4).
    file.drop_cache()?;
    let mut bytes = [0; COPY_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Err(CopyState::Bad(CopyDamage::Short))),
        Err(e) => return Ok(Err(CopyState::Unreadable { errno: e.raw_os_error().unwrap_or(0) })),
    }
    match format::decode(&bytes, copy as u32) {
        Ok(decoded) => Ok(Ok(decoded)),
        Err(CopyDamage::Version(found)) => Err(SuperblockError::Version { found, known: VERSION }),
        Err(damage) => Ok(Err(CopyState::Bad(damage))),
    }
}

/// The superblock of an open data directory. One per directory, held by whoever holds the directory's lock.
#[derive(Debug)]
pub struct SuperblockStore {
    files: [Arc<dyn VfsFile>; COPY_COUNT],
    generation: u64,
    value: Superblock,
}

impl SuperblockStore {
    /// Makes the first superblock of a new data directory, durable when this returns. The directory is created when missing.
    ///
    /// # Errors
    /// [`SuperblockError::Exists`] when there is any copy, good or bad.
    pub fn format(vfs: &dyn Vfs, dir: &Path, value: Superblock) -> Result<SuperblockStore, SuperblockError> {
        assert_sound(&value);
        create_dir_durable(vfs, dir)?;
        for copy in 0..COPY_COUNT {
            if vfs.exists(&copy_path(dir, copy))? {
                return Err(SuperblockError::Exists);
            }
        }
        // Complete under another name first: a copy that carries its final name and is not valid is damage, not a crash.
        for copy in 0..COPY_COUNT {
            publish_copy(vfs, dir, copy, &format::encode(&value, 1, copy as u32))?;
        }
        vfs.sync_dir(dir)?;
        let files = open_copies(vfs, dir)?;
        Ok(SuperblockStore { files, generation: 1, value })
    }

    /// Opens the superblock of `dir` and makes both copies durable, replacing what is bad, missing or older; the states tell
    /// what was found.
    /// `Ok(None)` as for [`load`]: a new directory, to be formatted.
    pub fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        data_present: bool,
    ) -> Result<Option<(SuperblockStore, [CopyState; COPY_COUNT])>, SuperblockError> {
        let Some(loaded) = load(vfs, dir, data_present)? else { return Ok(None) };
        let Loaded { value, generation, copies } = loaded;
        for copy in (0..COPY_COUNT).filter(|&c| copies[c] == CopyState::Missing) {
            publish_copy(vfs, dir, copy, &format::encode(&value, generation, copy as u32))?;
            vfs.sync_dir(dir)?;
        }
        let store = SuperblockStore { files: open_copies(vfs, dir)?, generation, value };
        store.rewrite(&copies)?;
        for copy in 0..COPY_COUNT {
            remove_if_there(vfs, &tmp_path(dir, copy))?;
        }
        Ok(Some((store, copies)))
    }

    /// Replaces the value, durable on both copies when this returns. After an error the state on disk is the old or the new
    /// value; the caller stops (rule R10).
    pub fn store(&mut self, value: Superblock) -> Result<(), SuperblockError> {
        self.assert_may_follow(&value);
        let generation = self.generation + 1;
        for copy in 0..COPY_COUNT {
            self.write_copy(copy, &value, generation)?;
        }
        self.generation = generation;
        self.value = value;
        Ok(())
    }

    /// The value that is on the disk.
    #[must_use]
    pub fn value(&self) -> &Superblock {
        &self.value
    }

    /// How often the value has been stored.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Writes the value to every copy. The good ones first: after a kill they may be good in the cache only, and must be durable
    /// before another one is overwritten (S1). Even when all look good, for the same reason.
    fn rewrite(&self, found: &[CopyState; COPY_COUNT]) -> Result<(), SuperblockError> {
        let mut order: Vec<usize> = (0..COPY_COUNT).collect();
        order.sort_by_key(|&copy| found[copy] != CopyState::Good);
        for copy in order {
            self.write_copy(copy, &self.value, self.generation)?;
        }
        Ok(())
    }

    fn write_copy(&self, copy: usize, value: &Superblock, generation: u64) -> io::Result<()> {
        let file = &self.files[copy];
        file.write_all_at(&format::encode(value, generation, copy as u32), 0)?;
        file.sync_data()
    }

    fn assert_may_follow(&self, next: &Superblock) {
        let now = &self.value;
        assert_sound(next);
        assert!(now.node_id == next.node_id, "a node keeps its identity");
        assert!(now.epoch_accepted <= next.epoch_accepted, "a promise is never taken back");
        assert!(now.epoch_current <= next.epoch_current, "epochs only grow");
        let forgets = next.recall == Recall::Clearing;
        assert!(now.committed <= next.committed || forgets, "what is committed stays so");
        assert!(next.recall != Recall::New || now.recall == Recall::New, "new once");
    }
}

fn assert_sound(value: &Superblock) {
    assert!(value.epoch_current <= value.epoch_accepted, "an epoch is accepted before it is current");
    assert!(value.is_sound(), "a log is cut or replaced, one at a time");
}

fn open_copies(vfs: &dyn Vfs, dir: &Path) -> io::Result<[Arc<dyn VfsFile>; COPY_COUNT]> {
    Ok([
        vfs.open(&copy_path(dir, 0), OpenMode::ReadWrite)?,
        vfs.open(&copy_path(dir, 1), OpenMode::ReadWrite)?,
    ])
}

/// Writes a whole new copy file; its name is durable after the next sync of the directory.
fn publish_copy(vfs: &dyn Vfs, dir: &Path, copy: usize, bytes: &[u8]) -> io::Result<()> {
    let (path, tmp) = (copy_path(dir, copy), tmp_path(dir, copy));
    remove_if_there(vfs, &tmp)?;
    let file = vfs.open(&tmp, OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    vfs.rename(&tmp, &path)
}

/// The file of a copy.
#[must_use]
pub fn copy_path(dir: &Path, copy: usize) -> PathBuf {
    dir.join(format!("superblock.{copy}"))
}

/// What a crash while a copy was being made left behind.
fn tmp_path(dir: &Path, copy: usize) -> PathBuf {
    dir.join(format!("superblock.{copy}.tmp"))
}

fn remove_if_there(vfs: &dyn Vfs, path: &Path) -> io::Result<()> {
    if vfs.exists(path)? { vfs.remove(path) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
