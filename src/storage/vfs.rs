//! The only door to a file system, so that the same storage code runs on a real disk and on a simulated one that crashes.
//!
//! Invariants callers may rely on (and the simulated disk, `testing::sim_disk`, enforces):
//! - V1: nothing is durable before [`VfsFile::sync_data`] returned `Ok`; after an error, nothing written since is, and a later
//!   `Ok` proves nothing about it (the kernel marks failed pages clean).
//! - V2: a name (create, rename, remove) is durable only after [`Vfs::sync_dir`] of its directory returned `Ok`.
//! - V3: unsynced bytes may reach the disk at any time, in any order, torn at 512 bytes; so may unsynced names and sizes.
//! - V4: what a read returns may come from a cache that the disk does not have; [`VfsFile::drop_cache`] makes later reads of
//!   clean pages come from the disk.

mod real;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

pub use real::RealVfs;

/// Bytes that a disk writes as one: a crash tears between sectors, not within one.
pub const SECTOR_BYTES: usize = 512;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist.
    Read,
    /// Must exist.
    ReadWrite,
    /// Must not exist.
    CreateNew,
}

/// A file system. Paths are real paths; implementations may confine them.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// Creates `dir` and its parents. Durable after [`Vfs::sync_dir`] of each parent.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names (not paths) of the entries of `dir`, in no particular order. `NotFound` when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;
    /// True when a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Atomically replaces `to` by `from`. Both lie in one directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written on the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock `path` (a file, created when missing and left behind) until the guard is dropped or the
    /// process ends. `WouldBlock` when another process or guard holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>>;
}

/// A lock that is given back when dropped.
pub trait VfsLock: Send + Sync + fmt::Debug {}

/// An open file. All offsets are absolute; there is no cursor.
pub trait VfsFile: Send + Sync + fmt::Debug {
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads exactly `buf.len()` bytes; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf`, extending the file as needed. After an error any part of it may have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `size`.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Reserves blocks for the first `size` bytes and extends the file to at least `size`; `StorageFull` when there is no
    /// room. The blocks may still be of the unwritten kind: writing zeros (in pieces of 4 KiB) makes them real.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Makes content and size durable (fdatasync). Never retried after an error.
    fn sync_data(&self) -> io::Result<()>;
    /// Forgets cached clean pages, so that later reads show what the disk holds.
    fn drop_cache(&self) -> io::Result<()>;
    /// The descriptor to map, where there is one: `None` on a simulated disk, where callers fall back to reads and writes.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Creates `dir` and every missing parent so that they survive a power cut. A process killed between making a directory and
/// syncing its parent leaves a name that is there and that a power cut would take, with everything in it: so the whole way up is
/// synced, whether or not anything was missing.
pub fn create_dir_durable(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    let mut made = 0;
    for ancestor in dir.ancestors().filter(|a| !a.as_os_str().is_empty()) {
        if vfs.exists(ancestor)? {
            break;
        }
        made += 1;
    }
    vfs.create_dir_all(dir)?;
    sync_way_up(dir, made, |parent| vfs.sync_dir(parent))
}

/// Syncs the parent of `dir`, then its parent and so on: of the first `made` without mercy.
fn sync_way_up(dir: &Path, made: usize, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for (at, parent) in dir.ancestors().skip(1).enumerate() {
        match sync(parent) {
            Err(e) if at < made || !is_not_ours(&e) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Further up there may be directories that this process may not read, or of file systems without syncs: it made nothing there.
fn is_not_ours(e: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(e.kind(), PermissionDenied | InvalidInput | ReadOnlyFilesystem | Unsupported)
}

#[cfg(test)]
mod tests;
