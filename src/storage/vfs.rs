//! The only door to a file system, so that the same storage code runs on a real disk and on a simulated one that crashes.
//!
//! Invariants callers may rely on (and the simulated disk enforces):
//! - V1: nothing is durable before [`VfsFile::sync_data`] returned `Ok`; after an error, nothing written since is.
//! - V2: a name (create, rename, remove) is durable only after [`Vfs::sync_dir`] of its directory returned `Ok`.
//! - V3: unsynced bytes may reach the disk at any time, in any order, torn at 512 bytes.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

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
    /// Atomically replaces `to` by `from`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written on the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. All offsets are absolute; there is no cursor.
pub trait VfsFile: Send + Sync + fmt::Debug {
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads exactly `buf.len()` bytes; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf`, extending the file as needed.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `size`.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Makes content and size durable (fdatasync). Never retried after an error.
    fn sync_data(&self) -> io::Result<()>;
}
