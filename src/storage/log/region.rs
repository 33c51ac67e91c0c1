//! The bytes of one segment behind a narrow seam: copy bytes in, copy bytes out, flush a range.
//!
//! Three implementations stand side by side and are compared by `benches/log_append.rs`: `pwrite` + `fdatasync`, mapped store +
//! `fdatasync`, mapped store + `msync`. The choice of the default is `docs/decisions/0001-region.md`.
//!
//! Invariants:
//! - N1: what `flush` returned `Ok` for is durable; after an error nothing is known and the log latches.
//! - N2: `write` is called by one thread at a time, and never again for bytes that were published, except by truncation, which
//!   excludes readers for that time.
//! - N3: the file has its full size and real blocks before a region is made of it, so that no store meets a hole.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::storage::mmap::{MappedRegion, SyncCall};
use crate::storage::vfs::VfsFile;

/// How a segment is written and flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegionKind {
    /// One `pwrite` per group, `fdatasync`.
    #[default]
    Pwrite,
    /// Stores through a mapping, `fdatasync`.
    MappedFdatasync,
    /// Stores through a mapping, `msync` of the dirty range.
    MappedMsync,
}

/// The bytes of one segment.
pub trait Region: Send + Sync + fmt::Debug {
    /// Copies `bytes` in at `offset`.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Copies bytes at `offset` out.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Makes what was written in `from..to` durable.
    fn flush(&self, from: u64, to: u64) -> io::Result<()>;
    /// No more appends: reading it through may read ahead again.
    fn seal(&self) {}
}

/// Makes a region of `bytes` bytes of `file`. A file system that cannot map (the simulated one) gets [`PwriteRegion`].
pub fn open_region(kind: RegionKind, file: Arc<dyn VfsFile>, bytes: u64) -> io::Result<Box<dyn Region>> {
    let call = match kind {
        RegionKind::Pwrite => return Ok(Box::new(PwriteRegion { file })),
        RegionKind::MappedFdatasync => SyncCall::Fdatasync,
        RegionKind::MappedMsync => SyncCall::Msync,
    };
    if file.as_fd().is_none() {
        return Ok(Box::new(PwriteRegion { file }));
    }
    Ok(Box::new(MappedRegion::map(file, bytes, call)?))
}

/// Positioned writes and `fdatasync`: errors are values, never signals.
#[derive(Debug)]
pub struct PwriteRegion {
    file: Arc<dyn VfsFile>,
}

impl Region for PwriteRegion {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn flush(&self, _from: u64, _to: u64) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Region for MappedRegion {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        MappedRegion::write(self, offset, bytes)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        MappedRegion::read(self, offset, buf)
    }

    fn flush(&self, from: u64, to: u64) -> io::Result<()> {
        MappedRegion::flush(self, from, to)
    }

    fn seal(&self) {
        MappedRegion::seal(self);
    }
}
