//! From a tree to a snapshot on the disk, step by step while commits go on; and what may go once it is there.
//!
//! - N1: the tree is locked for one step at a time ([`CHUNK_BYTES_DEFAULT`]), never while compressing or writing, nor while what an image kept is
//!   freed: the closure hands that out of the lock.
//! - N2: a snapshot holds applied, hence durable and committed, state only, exact at its zxid (decision 0002).
//! - N3: nothing is removed before the snapshot that covers it was read back and verified (rule R15).
//! - N4: a failed snapshot costs nothing but the attempt; the log keeps what it would have covered.
//!
//! When a snapshot is due, and on which thread it is taken, the server decides. The simulator runs this very code.

use std::collections::BTreeSet;

use parking_lot::RwLock;
use thiserror::Error;

use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::{WallMs, Zxid};
use crate::storage::snapshot::{
    CHUNK_RAW_BYTES_MAX, HeldSnapshot, Retention, SnapshotError, SnapshotInfo, SnapshotMeta, SnapshotStore,
    SnapshotWriter, VerifyReport, plan_retention,
};
use crate::tree::{Image, Tree};

/// Bytes of nodes encoded under one hold of the tree's lock, about 100 µs, unless configured: one chunk of the file.
pub const CHUNK_BYTES_DEFAULT: usize = 64 << 10;

/// Most that may be configured: writers wait for most of a millisecond then.
pub const CHUNK_BYTES_MAX: usize = 512 << 10;

const _: () = assert!(
    CHUNK_BYTES_MAX + PAYLOAD_BYTES_MAX + (64 << 10) <= CHUNK_RAW_BYTES_MAX,
    "a chunk that is nearly full takes the largest node along"
);

/// A tree that others use meanwhile: each access is short.
pub trait SharedTree {
    /// Has the tree alone.
    fn write<R>(&self, f: impl FnOnce(&mut Tree) -> R) -> R;
    /// Shares the tree with readers.
    fn read<R>(&self, f: impl FnOnce(&Tree) -> R) -> R;
}

impl SharedTree for RwLock<Tree> {
    fn write<R>(&self, f: impl FnOnce(&mut Tree) -> R) -> R {
        f(&mut RwLock::write(self))
    }

    fn read<R>(&self, f: impl FnOnce(&Tree) -> R) -> R {
        f(&RwLock::read(self))
    }
}

/// What the tree's snapshots carry at their end: what loading must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTrailer {
    /// The tree's digest.
    pub digest: u64,
    /// Nodes as ZooKeeper counts them.
    pub node_count: u64,
}

impl SnapshotTrailer {
    /// Bytes: two little-endian words, in the order of the fields.
    pub const BYTES: usize = 16;

    /// As it is written.
    #[must_use]
    pub fn bytes(self) -> [u8; SnapshotTrailer::BYTES] {
        let mut out = [0; SnapshotTrailer::BYTES];
        out[..8].copy_from_slice(&self.digest.to_le_bytes());
        out[8..].copy_from_slice(&self.node_count.to_le_bytes());
        out
    }

    /// From `bytes`; `None` when they are of another length.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<SnapshotTrailer> {
        let bytes: &[u8; SnapshotTrailer::BYTES] = bytes.try_into().ok()?;
        let (digest, node_count) = bytes.split_at(8);
        let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of sixteen"));
        Some(SnapshotTrailer { digest: word(digest), node_count: word(node_count) })
    }
}

/// What a snapshot is told when it is begun.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotOptions {
    /// The node that writes it.
    pub node_id: u64,
    /// Now.
    pub created: WallMs,
    /// zstd level.
    pub level: i32,
    /// About how long a chunk is made, and with it a hold of the tree's lock: [`CHUNK_BYTES_DEFAULT`], less in tests.
    pub chunk_bytes: usize,
}

/// Why an attempt came to nothing.
#[derive(Debug, Error)]
pub enum SnapshotFailed {
    /// It cannot be written, or not be read back.
    #[error("{0}")]
    Storage(#[from] SnapshotError),
    /// It was written, and what the disk gives back is not it.
    #[error("read back from the disk it is damaged in {} place(s){}", .0.damage_count, first_place(.0))]
    ReadBack(Box<VerifyReport>),
}

fn first_place(report: &VerifyReport) -> String {
    report.damages.first().map(|damage| format!(": {damage}")).unwrap_or_default()
}

/// A snapshot being taken. End it with [`SnapshotTask::finish`] or [`SnapshotTask::abort`]: the tree keeps what changes until then.
#[derive(Debug)]
pub struct SnapshotTask {
    image: Image,
    writer: SnapshotWriter,
    chunk_bytes: usize,
    chunk: Vec<u8>,
}

impl SnapshotTask {
    /// Begins a snapshot of the tree as it is now.
    ///
    /// # Errors
    /// The file cannot be made; the tree is as before.
    pub fn begin(
        tree: &impl SharedTree,
        store: &SnapshotStore,
        options: &SnapshotOptions,
    ) -> Result<SnapshotTask, SnapshotFailed> {
        let chunk_bytes = options.chunk_bytes;
        assert!((1..=CHUNK_BYTES_MAX).contains(&chunk_bytes), "a chunk fits into its limits");
        let image = tree.write(Tree::begin_image);
        let meta = SnapshotMeta {
            zxid: image.zxid(),
            node_id: options.node_id,
            created: options.created,
            chunk_bytes_target: chunk_bytes as u32,
            level: options.level,
        };
        match store.create(meta) {
            Ok(writer) => {
                Ok(SnapshotTask { image, writer, chunk_bytes, chunk: Vec::with_capacity(2 * chunk_bytes) })
            }
            Err(error) => {
                tree.write(|tree| tree.end_image(image));
                Err(error.into())
            }
        }
    }

    /// The zxid at which the snapshot is exact.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.image.zxid()
    }

    /// Encodes a chunk under the lock and writes it behind it; false when there was nothing left.
    ///
    /// # Errors
    /// The caller aborts.
    pub fn step(&mut self, tree: &impl SharedTree) -> Result<bool, SnapshotFailed> {
        self.chunk.clear();
        let SnapshotTask { image, chunk, chunk_bytes, .. } = self;
        let kind = tree.read(|tree| tree.image_chunk(image, chunk, *chunk_bytes));
        let Some(kind) = kind else { return Ok(false) };
        self.writer.chunk(kind as u16, &self.chunk)?;
        Ok(true)
    }

    /// Publishes the snapshot and reads it back from the disk (N3).
    ///
    /// # Errors
    /// There is no snapshot, or one that must not be relied on.
    pub fn finish(
        self,
        tree: &impl SharedTree,
        store: &SnapshotStore,
    ) -> Result<SnapshotInfo, SnapshotFailed> {
        let SnapshotTask { image, writer, .. } = self;
        let zxid = image.zxid();
        let trailer = SnapshotTrailer { digest: image.digest(), node_count: image.node_count() as u64 };
        tree.write(|tree| tree.end_image(image));
        let info = writer.finish(zxid, &trailer.bytes())?;
        assert_eq!((info.zxid, info.zxid_end), (zxid, zxid), "exact, not fuzzy (N2)");
        let report = store.verify(zxid)?;
        if report.is_good() { Ok(info) } else { Err(SnapshotFailed::ReadBack(Box::new(report))) }
    }

    /// Gives the attempt up; leaves no file.
    pub fn abort(self, tree: &impl SharedTree) {
        let SnapshotTask { image, writer, .. } = self;
        tree.write(|tree| tree.end_image(image));
        drop(writer);
    }
}

/// What retention let go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Snapshots removed, oldest first.
    pub removed: Vec<Zxid>,
    /// Log records below this are covered by every verified snapshot that stays: their segments may go.
    pub purge_below: Option<Zxid>,
}

/// Removes what `retention` lets go. `verified` are the snapshots read back since the process started; others are read back
/// now, and the good ones join them.
///
/// # Errors
/// The directory cannot be read or changed: everything else stays.
pub fn retire(
    store: &SnapshotStore,
    retention: &Retention,
    verified: &mut BTreeSet<Zxid>,
    now: WallMs,
) -> Result<Retired, SnapshotError> {
    let mut held = Vec::new();
    for entry in store.list()? {
        held.push(match entry.state {
            Ok(info) => HeldSnapshot {
                zxid: entry.zxid,
                created: info.created,
                verified: is_verified(store, entry.zxid, verified),
            },
            Err(_) => HeldSnapshot { zxid: entry.zxid, created: WallMs(0), verified: false },
        });
    }
    let plan = plan_retention(&held, retention, now);
    store.remove(&plan.remove)?;
    verified.retain(|zxid| !plan.remove.contains(zxid));
    let purge_below = plan.log_needed_after.map(Zxid::next);
    Ok(Retired { removed: plan.remove, purge_below })
}

fn is_verified(store: &SnapshotStore, zxid: Zxid, verified: &mut BTreeSet<Zxid>) -> bool {
    let good = verified.contains(&zxid) || store.verify(zxid).is_ok_and(|report| report.is_good());
    if good {
        verified.insert(zxid);
    }
    good
}

#[cfg(test)]
mod tests;
