//! A file mapped shared and writable. The only module with `unsafe`.
//!
//! The contract:
//! - M1 (who writes): one thread at a time stores, through [`MappedRegion::write`], and only bytes behind everything that was
//!   published. The log's appender is that thread; truncation takes its place while it holds off all readers.
//! - M2 (who reads): any thread, through [`MappedRegion::read`], and only bytes before the published end. A reader learns that
//!   end through a lock or an atomic that the writer released after its store (Release/Acquire), so that stores and reads of the
//!   same byte never race.
//! - M3 (no references): no Rust reference ever covers mapped bytes, for another thread, another process or the disk may change
//!   them; bytes are copied in and out through raw pointers.
//! - M4 (extent): the file had its full size and real blocks before it was mapped and is not shortened while mapped (the data
//!   directory is locked by this process), so that neither a load nor a store meets a page without a file behind it. A failing
//!   disk under a load raises SIGBUS, which ends the process: fail-stop, as any error on this path.
//! - M5 (truncation of the log) zeroes bytes in place; it never changes the size of the file.
//!
//! `MADV_RANDOM` while the segment is being appended to: a store dirties the whole folio, and read-ahead would make folios of up
//! to 2 MiB out of a prefilled file (measured: one 100-byte store then rewrites all of it with every flush).
#![expect(unsafe_code, reason = "mapping a file and copying through raw pointers; see the contract above")]

use std::io;
use std::ptr;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::storage::vfs::VfsFile;

/// Which call makes stores durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncCall {
    /// `msync(MS_SYNC)` of the pages that hold the range.
    Msync,
    /// `fdatasync` of the file.
    Fdatasync,
}

/// One file, mapped whole.
#[derive(Debug)]
pub struct MappedRegion {
    map: MmapRaw,
    /// Open as long as the mapping, so that an error of its pages is reported to this descriptor.
    file: Arc<dyn VfsFile>,
    call: SyncCall,
}

impl MappedRegion {
    /// Maps the first `bytes` bytes of `file`, which has them (M4).
    pub fn map(file: Arc<dyn VfsFile>, bytes: u64, call: SyncCall) -> io::Result<MappedRegion> {
        if file.size()? < bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a mapped file must have its full size",
            ));
        }
        let len = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let fd = file.as_fd().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let map = MmapOptions::new().len(len).map_raw(&fd)?;
        map.advise(Advice::Random)?;
        Ok(MappedRegion { map, file, call })
    }

    /// Copies `bytes` in at `offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = self.checked(offset, bytes.len())?;
        debug_assert!(start + bytes.len() <= self.map.len(), "checked above");
        // SAFETY: `start..start + bytes.len()` lies within the mapping (`checked`), which lives as long as `self`; the file has
        // blocks there (M4). `bytes` is a Rust slice and so does not overlap the mapping, of which no reference exists (M3).
        // Nobody else accesses these bytes now: this is the one writer, and readers stay before the published end (M1, M2).
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(start), bytes.len()) };
        Ok(())
    }

    /// Copies bytes at `offset` out.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = self.checked(offset, buf.len())?;
        debug_assert!(start + buf.len() <= self.map.len(), "checked above");
        // SAFETY: `start..start + buf.len()` lies within the mapping (`checked`), which lives as long as `self`; the file has
        // blocks there (M4). `buf` is an exclusive slice and so does not overlap the mapping (M3). The bytes were published
        // before the caller learnt of them and are not written while it reads (M1, M2).
        unsafe { ptr::copy_nonoverlapping(self.map.as_ptr().add(start), buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    /// Makes what was stored in `from..to` durable.
    pub fn flush(&self, from: u64, to: u64) -> io::Result<()> {
        match self.call {
            SyncCall::Fdatasync => self.file.sync_data(),
            SyncCall::Msync => {
                let len = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
                let start = self.checked(from, len)?;
                self.map.flush_range(start, len)
            }
        }
    }

    /// No more stores: reading it through may read ahead again.
    pub fn seal(&self) {
        // Only advice: when it is refused, reading is slower and nothing else.
        let _ = self.map.advise(Advice::Normal);
    }

    /// `offset` as a pointer offset, when `len` bytes from there lie within the mapping.
    fn checked(&self, offset: u64, len: usize) -> io::Result<usize> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|s| s.checked_add(len));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.map.len() => Ok(start),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "outside of the mapping")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::vfs::{OpenMode, RealVfs, Vfs};

    fn region(call: SyncCall) -> (tempfile::TempDir, MappedRegion, Arc<dyn VfsFile>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = RealVfs.open(&dir.path().join("f"), OpenMode::CreateNew).expect("a new file");
        for page in 0..4 {
            file.write_all_at(&[0; 4096], page * 4096).expect("room");
        }
        let region = MappedRegion::map(file.clone(), 4 * 4096, call).expect("mapped");
        (dir, region, file)
    }

    #[test]
    fn what_is_stored_is_read_back_through_the_mapping_and_the_file() {
        for call in [SyncCall::Msync, SyncCall::Fdatasync] {
            let (_dir, region, file) = region(call);
            region.write(4090, b"across a page").expect("inside");
            region.flush(4090, 4103).expect("flushed");
            let (mut a, mut b) = ([0; 13], [0; 13]);
            region.read(4090, &mut a).expect("inside");
            file.read_exact_at(&mut b, 4090).expect("inside");
            assert_eq!((&a, &b), (b"across a page", b"across a page"));
        }
    }

    #[test]
    fn nothing_outside_of_the_mapping_is_touched() {
        let (_dir, region, _) = region(SyncCall::Msync);
        for offset in [4 * 4096 - 3, 4 * 4096, u64::MAX - 1, u64::MAX] {
            assert!(region.write(offset, b"four").is_err(), "{offset}");
            assert!(region.read(offset, &mut [0; 4]).is_err(), "{offset}");
            assert!(
                region.flush(offset, offset.saturating_add(4)).is_err() || offset == u64::MAX,
                "{offset}"
            );
        }
    }

    #[test]
    fn a_short_file_is_not_mapped() {
        let (_dir, _, file) = region(SyncCall::Msync);
        assert!(MappedRegion::map(file, 5 * 4096, SyncCall::Msync).is_err());
    }
}
