//! One segment: a file of fixed size with real blocks, its header, and where its records are.
//!
//! Invariants:
//! - S1: a file under its final name has a whole, synced header and its full size: it is made under another name, synced, renamed,
//!   and the directory synced. A bad header under a final name is damage, never a crash.
//! - S2: every block is written before use, in writes of at most [`FILL_BYTES`]: larger ones make large folios, and a store
//!   through a mapping then dirties all of a folio (measured: 2 MiB per flush instead of 4 KiB).
//! - S3: every life of a file has a fresh salt and zeroed space, also a recycled one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use crate::base::{LogPos, Zxid};
use crate::storage::log::format::{Chain, SEGMENT_HEAD_BYTES, SegmentHead};
use crate::storage::log::region::{Region, RegionKind, open_region};
use crate::storage::log::{LogError, is_no_space};
use crate::storage::vfs::{OpenMode, Vfs, VfsFile};

/// Offset of the first record.
pub(super) const RECORDS_START: u64 = SEGMENT_HEAD_BYTES as u64;
/// Largest write that fills a segment (S2): the page of every common file system.
pub(super) const FILL_BYTES: usize = 4096;
/// Filling syncs after this much, so that a commit's flush never waits behind a whole segment in the device's queue.
const FILL_SYNC_BYTES: u64 = 1 << 20;
/// A place is remembered for every so many bytes of records: finding a zxid reads at most this much.
pub(super) const INDEX_STRIDE_BYTES: u64 = 64 << 10;

const NAME_PREFIX: &str = "log.";
const MAKING_SUFFIX: &str = ".making";
const RETIRED_SUFFIX: &str = ".retired";

/// What a name in the log's directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    Segment(u64),
    /// Half made: worthless.
    Making,
    /// Was a segment: may be made into another.
    Retired,
}

impl FileName {
    pub(super) fn parse(name: &str) -> Option<FileName> {
        let rest = name.strip_prefix(NAME_PREFIX)?;
        let (digits, kind) = match (rest.strip_suffix(MAKING_SUFFIX), rest.strip_suffix(RETIRED_SUFFIX)) {
            (Some(d), _) => (d, FileName::Making),
            (_, Some(d)) => (d, FileName::Retired),
            _ => (rest, FileName::Segment(0)),
        };
        let canonical = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(digits, 16).ok().filter(|_| canonical)?;
        Some(if kind == FileName::Segment(0) { FileName::Segment(number) } else { kind })
    }
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{NAME_PREFIX}{number:016x}"))
}

pub(super) fn retired_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{NAME_PREFIX}{number:016x}{RETIRED_SUFFIX}"))
}

/// One place of the sparse index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) zxid: Zxid,
    pub(super) offset: u64,
}

/// Where the records of a segment are.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// What the first record follows (or will follow).
    pub(super) before: Chain,
    /// zxid of the last record; that of `before` when there is none.
    pub(super) last: Zxid,
    /// Offset behind the last record.
    pub(super) end: u64,
    /// Every so often a record's place; the first record's first.
    pub(super) index: Vec<IndexEntry>,
}

impl Extent {
    pub(super) fn empty(before: Chain) -> Extent {
        Extent { before, last: before.zxid, end: RECORDS_START, index: Vec::new() }
    }

    /// Takes note of a record at `offset` that ends at `end`.
    pub(super) fn push(&mut self, zxid: Zxid, offset: u64, end: u64) {
        debug_assert!(offset >= self.end && end > offset && zxid >= self.last, "records grow");
        let due = self.index.last().is_none_or(|e| offset - e.offset >= INDEX_STRIDE_BYTES);
        if due {
            self.index.push(IndexEntry { zxid, offset });
        }
        self.last = zxid;
        self.end = end;
    }

    /// Forgets everything from `end` on; `last` is the record before it.
    pub(super) fn cut(&mut self, end: u64, last: Zxid) {
        assert!(end >= RECORDS_START && end <= self.end, "a cut shortens");
        self.index.retain(|e| e.offset < end);
        (self.end, self.last) = (end, last);
    }

    /// Offset from which the first record with a zxid of at least `zxid` is found by reading on.
    pub(super) fn seek(&self, zxid: Zxid) -> u64 {
        let after = self.index.partition_point(|e| e.zxid < zxid);
        after.checked_sub(1).map_or(RECORDS_START, |i| self.index[i].offset)
    }
}

/// One segment, open for appending or reading.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) head: SegmentHead,
    pub(super) path: PathBuf,
    file: Arc<dyn VfsFile>,
    region: Box<dyn Region>,
    extent: RwLock<Extent>,
    /// Held for reading while bytes are copied out, for writing while truncation zeroes them (N2).
    copying: RwLock<()>,
}

impl Segment {
    pub(super) fn new(
        head: SegmentHead,
        path: PathBuf,
        file: Arc<dyn VfsFile>,
        kind: RegionKind,
        extent: Extent,
    ) -> Result<Segment, LogError> {
        let region = open_region(kind, Arc::clone(&file), head.segment_bytes)
            .map_err(|e| LogError::io("map segment", &path, e))?;
        Ok(Segment { head, path, file, region, extent: RwLock::new(extent), copying: RwLock::new(()) })
    }

    /// Offset behind the last byte.
    pub(super) fn bytes(&self) -> u64 {
        self.head.segment_bytes
    }

    pub(super) fn extent(&self) -> RwLockReadGuard<'_, Extent> {
        self.extent.read()
    }

    pub(super) fn change_extent(&self, change: impl FnOnce(&mut Extent)) {
        change(&mut self.extent.write());
    }

    pub(super) fn pos(&self, offset: u64) -> LogPos {
        LogPos { segment: self.head.number, offset }
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
        debug_assert!(
            offset >= RECORDS_START && offset + bytes.len() as u64 <= self.bytes(),
            "within the segment"
        );
        self.region.write(offset, bytes).map_err(|e| LogError::io("write segment", &self.path, e))
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), LogError> {
        let _no_truncation = self.copying.read();
        self.region.read(offset, buf).map_err(|e| LogError::io("read segment", &self.path, e))
    }

    pub(super) fn flush(&self, from: u64, to: u64) -> Result<(), LogError> {
        self.region.flush(from, to).map_err(|e| LogError::io("flush segment", &self.path, e))
    }

    /// No more appends.
    pub(super) fn seal(&self) {
        self.region.seal();
    }

    /// Zeroes everything from `from` on, durably. Readers are held off meanwhile.
    pub(super) fn zero_from(&self, from: u64) -> Result<(), LogError> {
        let _no_readers = self.copying.write();
        zero_durably(&*self.file, from, self.bytes())
            .map_err(|e| LogError::io("zero the end of segment", &self.path, e))
    }
}

/// Writes zeros over `from..to` (S2), synced.
pub(super) fn zero_durably(file: &dyn VfsFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = [0u8; FILL_BYTES];
    let (mut at, mut synced) = (from, from);
    while at < to {
        let page_end = (at + 1).next_multiple_of(FILL_BYTES as u64).min(to);
        file.write_all_at(&zeros[..(page_end - at) as usize], at)?;
        at = page_end;
        if at - synced >= FILL_SYNC_BYTES {
            file.sync_data()?;
            synced = at;
        }
    }
    file.sync_data()
}

/// Makes the segment that `head` describes, from the file `retired` if there is one, and gives it its final name (S1).
/// `NoSpace` leaves nothing behind.
pub(super) fn make_segment(
    vfs: &dyn Vfs,
    dir: &Path,
    head: SegmentHead,
    retired: Option<PathBuf>,
) -> Result<Arc<dyn VfsFile>, LogError> {
    let making = dir.join(format!("{NAME_PREFIX}{:016x}{MAKING_SUFFIX}", head.number));
    let from = retired.unwrap_or(making);
    make_at(vfs, dir, &head, &from).map_err(|e| {
        if !is_no_space(&e) {
            return LogError::io("make segment", &from, e);
        }
        // Best effort: what cannot be removed now is removed at the next start.
        let _ = vfs.remove(&from);
        LogError::NoSpace { needed_bytes: head.segment_bytes, free_bytes: vfs.free_bytes(dir).unwrap_or(0) }
    })
}

fn make_at(vfs: &dyn Vfs, dir: &Path, head: &SegmentHead, from: &Path) -> io::Result<Arc<dyn VfsFile>> {
    let file = open_or_create(vfs, from)?;
    if file.size()? != head.segment_bytes {
        file.set_size(0)?;
        file.allocate(head.segment_bytes)?;
    }
    zero_durably(&*file, RECORDS_START, head.segment_bytes)?;
    file.write_all_at(&head.encode(), 0)?;
    file.sync_data()?;
    vfs.rename(from, &segment_path(dir, head.number))?;
    vfs.sync_dir(dir)?;
    Ok(file)
}

fn open_or_create(vfs: &dyn Vfs, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
    match vfs.open(path, OpenMode::CreateNew) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => vfs.open(path, OpenMode::ReadWrite),
        other => other,
    }
}

/// Takes the segment's file out of the log, durably: under a name that recovery does not read.
pub(super) fn retire(vfs: &dyn Vfs, dir: &Path, number: u64) -> Result<PathBuf, LogError> {
    let (from, to) = (segment_path(dir, number), retired_path(dir, number));
    vfs.rename(&from, &to).map_err(|e| LogError::io("retire segment", &from, e))?;
    vfs.sync_dir(dir).map_err(|e| LogError::io("sync directory", dir, e))?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names_are_segments() {
        let named = |n: &str| FileName::parse(n);
        assert_eq!(named("log.00000000000000ff"), Some(FileName::Segment(255)));
        assert_eq!(named("log.00000000000000ff.making"), Some(FileName::Making));
        assert_eq!(named("log.00000000000000ff.retired"), Some(FileName::Retired));
        for other in [
            "log.ff",
            "log.00000000000000FF",
            "log.+0000000000000ff",
            "log.100000001",
            "superblock.0",
            "log.",
            "",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn an_extent_finds_the_place_to_read_from() {
        let mut extent = Extent::empty(Chain { zxid: Zxid(10), crc: 1 });
        assert_eq!(extent.seek(Zxid(11)), RECORDS_START);
        let mut at = RECORDS_START;
        for z in 11..1000 {
            extent.push(Zxid(z), at, at + 1024);
            at += 1024;
        }
        assert!(extent.index.len() > 10);
        for z in 11..1000 {
            let found = extent.seek(Zxid(z));
            let place = RECORDS_START + (z - 11) * 1024;
            assert!(found <= place && place - found <= INDEX_STRIDE_BYTES, "{z}");
        }
        extent.cut(RECORDS_START + 5 * 1024, Zxid(15));
        assert_eq!((extent.last, extent.index.len()), (Zxid(15), 1));
    }
}
