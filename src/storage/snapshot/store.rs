//! The snapshots of one directory: names, order, removal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::name;
use super::read::SnapshotReader;
use super::verify::{VerifyReport, verify};
use super::write::{SnapshotMeta, SnapshotWriter};
use super::{Damage, DamageKind, SnapshotError, SnapshotInfo};
use crate::base::Zxid;
use crate::storage::vfs::{Vfs, create_dir_durable};

/// The snapshots of a directory.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
}

/// One snapshot, as far as it can be known without reading its chunks.
#[derive(Debug)]
pub struct SnapshotEntry {
    /// The zxid in its name.
    pub zxid: Zxid,
    /// Its file.
    pub path: PathBuf,
    /// What it says of itself, or why it is of no use.
    pub state: Result<SnapshotInfo, SnapshotError>,
}

/// A snapshot that was passed over, and why.
#[derive(Debug)]
pub struct Skipped {
    /// The zxid in its name.
    pub zxid: Zxid,
    /// What is wrong with it.
    pub error: SnapshotError,
}

/// The newest snapshot that can be opened.
#[derive(Debug)]
pub struct Newest {
    /// The snapshot; `None` when there is none.
    pub reader: Option<SnapshotReader>,
    /// Newer ones that could not be opened: to be reported, loudly.
    pub skipped: Vec<Skipped>,
}

impl SnapshotStore {
    /// Opens the store of `dir`, created when missing; temporary files of snapshots that were never finished are removed. The
    /// names found are durable when this returns: a process killed just before it synced them may have left one that is not,
    /// and the log must not be purged on its word.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<SnapshotStore, SnapshotError> {
        create_dir_durable(&*vfs, dir)?;
        let store = SnapshotStore { vfs, dir: dir.to_owned() };
        for name in store.vfs.list(dir)? {
            if name::is_tmp(&name) {
                store.vfs.remove(&dir.join(name))?;
            }
        }
        store.vfs.sync_dir(dir)?;
        Ok(store)
    }

    /// A store for looking only: changes nothing, not even temporary files.
    #[must_use]
    pub fn read_only(vfs: Arc<dyn Vfs>, dir: &Path) -> SnapshotStore {
        SnapshotStore { vfs, dir: dir.to_owned() }
    }

    /// Begins a snapshot.
    pub fn create(&self, meta: SnapshotMeta) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create(Arc::clone(&self.vfs), &self.dir, meta)
    }

    /// Begins a snapshot of a state that comes from elsewhere; one of that zxid may be in the making beside it.
    pub fn create_received(&self, meta: SnapshotMeta) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create_received(Arc::clone(&self.vfs), &self.dir, meta)
    }

    /// The file of the snapshot `zxid`, whether or not there is one.
    #[must_use]
    pub fn path(&self, zxid: Zxid) -> PathBuf {
        name::path(&self.dir, zxid)
    }

    /// Zxids of all published snapshots, good or bad, ascending.
    pub fn zxids(&self) -> io::Result<Vec<Zxid>> {
        let mut zxids: Vec<Zxid> =
            self.vfs.list(&self.dir)?.iter().filter_map(|name| name::zxid_of(name)).collect();
        zxids.sort_unstable();
        Ok(zxids)
    }

    /// All published snapshots, ascending, each with what header and footer say.
    pub fn list(&self) -> io::Result<Vec<SnapshotEntry>> {
        let entry = |zxid| SnapshotEntry {
            zxid,
            path: self.path(zxid),
            state: self.reader(zxid).map(|reader| reader.info().clone()),
        };
        Ok(self.zxids()?.into_iter().map(entry).collect())
    }

    /// Opens the snapshot `zxid`; checks everything but its chunks.
    pub fn reader(&self, zxid: Zxid) -> Result<SnapshotReader, SnapshotError> {
        let reader = SnapshotReader::open(&*self.vfs, &self.path(zxid))?;
        if reader.info().zxid == zxid { Ok(reader) } else { Err(Damage::outside(0, DamageKind::Name).into()) }
    }

    /// The newest snapshot that opens, or the newest one before `below`: how a load that met a bad chunk falls back.
    pub fn newest_valid(&self, below: Option<Zxid>) -> io::Result<Newest> {
        let mut skipped = Vec::new();
        for zxid in self.zxids()?.into_iter().rev().filter(|z| below.is_none_or(|below| *z < below)) {
            match self.reader(zxid) {
                Ok(reader) => return Ok(Newest { reader: Some(reader), skipped }),
                Err(error) => skipped.push(Skipped { zxid, error }),
            }
        }
        Ok(Newest { reader: None, skipped })
    }

    /// Reads the whole snapshot `zxid` back from the disk.
    pub fn verify(&self, zxid: Zxid) -> Result<VerifyReport, SnapshotError> {
        let mut report = verify(&*self.vfs, &self.path(zxid))?;
        if report.info.as_ref().is_some_and(|info| info.zxid != zxid) {
            report.damage_count += 1;
            report.damages.push(Damage::outside(0, DamageKind::Name));
        }
        Ok(report)
    }

    /// Removes snapshots, in the order given; durable when this returns. What is safe to remove, `plan_retention` says.
    pub fn remove(&self, zxids: &[Zxid]) -> io::Result<()> {
        for zxid in zxids {
            self.vfs.remove(&self.path(*zxid))?;
        }
        if zxids.is_empty() { Ok(()) } else { self.vfs.sync_dir(&self.dir) }
    }

    /// Removes every snapshot that may hold a transaction after `zxid`, newest first, durably: what a truncation does before it
    /// cuts the log (rule R3). A damaged one does not say what it holds, so it goes too: it covers nothing. Returns what was
    /// removed.
    ///
    /// # Errors
    /// One that cannot be read, or is of a later version, may be good: nothing is removed, and the truncation must not go on.
    pub fn remove_above(&self, zxid: Zxid) -> Result<Vec<Zxid>, SnapshotError> {
        self.remove_if_above(zxid, None)
    }

    /// The same for a log that the snapshot at `base` takes the place of. That one stays whatever it is like: it is all there is, it
    /// was found to hold exactly that state, and if it is damaged now, the same bytes put right are what a start needs.
    ///
    /// # Errors
    /// As [`SnapshotStore::remove_above`].
    pub fn remove_above_base(&self, base: Zxid) -> Result<Vec<Zxid>, SnapshotError> {
        self.remove_if_above(base, Some(base))
    }

    fn remove_if_above(&self, zxid: Zxid, spared: Option<Zxid>) -> Result<Vec<Zxid>, SnapshotError> {
        let mut above = Vec::new();
        for entry in self.list()?.into_iter().rev().filter(|entry| Some(entry.zxid) != spared) {
            match entry.state {
                Ok(info) if info.zxid_end <= zxid => {}
                Ok(_) => above.push(entry.zxid),
                Err(_) if entry.zxid > zxid => above.push(entry.zxid),
                Err(SnapshotError::Damaged(damage)) if !damage.may_pass() => above.push(entry.zxid),
                Err(error) => return Err(error),
            }
        }
        self.remove(&above)?;
        Ok(above)
    }
}
