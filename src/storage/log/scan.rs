//! Reading a segment file that may hold anything: along the chain, and beyond its end for what else is there.
//!
//! Invariants:
//! - C1: no length is believed before its head's checksum; nothing is read or allocated past the segment's end.
//! - C2: one pass forward each, so that no content makes it slow.

use std::path::Path;

use crate::storage::log::LogError;
use crate::storage::log::format::{self, ALIGN_BYTES, Chain, RECORD_HEAD_BYTES, RecordHead, SegmentHead};
use crate::storage::vfs::VfsFile;

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Reads one segment file.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    file: &'a dyn VfsFile,
    path: &'a Path,
    head: SegmentHead,
    window: Vec<u8>,
    window_at: u64,
}

/// What lies behind the end of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    /// Heads that are valid by themselves.
    pub(super) records: u64,
    /// The highest watermark among them.
    pub(super) watermark_max: u64,
    /// Offset behind the last byte that is not zero; 0 when all are.
    pub(super) nonzero_end: u64,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(file: &'a dyn VfsFile, path: &'a Path, head: SegmentHead) -> Scanner<'a> {
        Scanner { file, path, head, window: Vec::new(), window_at: 0 }
    }

    /// The whole record at `offset`, if there is one.
    pub(super) fn record(&mut self, offset: u64) -> Result<Option<RecordHead>, LogError> {
        let salt = self.head.salt;
        let Some(bytes) = self.at(offset, RECORD_HEAD_BYTES as u64)? else { return Ok(None) };
        let Some(head) = format::parse_head(bytes, salt, offset) else { return Ok(None) };
        let Some(bytes) = self.at(offset, head.record_bytes())? else { return Ok(None) };
        Ok(format::record_is_whole(bytes, &head, salt, offset).then_some(head))
    }

    /// Follows the chain from `offset` and hands every record to `visit`; returns the offset and the chain where it ends.
    /// Without a `chain` the first record's own word about its predecessor is taken.
    pub(super) fn follow(
        &mut self,
        offset: u64,
        chain: Option<Chain>,
        mut visit: impl FnMut(u64, &RecordHead, &[u8]),
    ) -> Result<(u64, Option<Chain>), LogError> {
        let (mut offset, mut chain) = (offset, chain);
        while let Some(head) = self.record(offset)? {
            if !head.follows(chain.unwrap_or(head.prev)) {
                break;
            }
            visit(offset, &head, format::payload(self.held(offset, head.record_bytes()), &head));
            offset += head.record_bytes();
            chain = Some(head.chain());
        }
        Ok((offset, chain))
    }

    /// Bytes that the last read brought in.
    fn held(&self, offset: u64, len: u64) -> &[u8] {
        let start = (offset - self.window_at) as usize;
        &self.window[start..start + len as usize]
    }

    /// Looks at everything from `from` on.
    pub(super) fn beyond(&mut self, from: u64) -> Result<Beyond, LogError> {
        let (mut found, mut at) = (Beyond::default(), from);
        while at < self.head.segment_bytes {
            // Windows overlap by a head, so that none is cut in two.
            let step = WINDOW_BYTES.min(self.head.segment_bytes - at);
            let len = (step + RECORD_HEAD_BYTES as u64).min(self.head.segment_bytes - at);
            let salt = self.head.salt;
            let bytes = self.at(at, len)?.expect("within the segment by the two lines above");
            look_at(bytes, at, step, salt, &mut found);
            at += step;
        }
        Ok(found)
    }

    /// `len` bytes at `offset`; `None` when they would pass the segment's end (C1).
    fn at(&mut self, offset: u64, len: u64) -> Result<Option<&[u8]>, LogError> {
        let Some(left) = self.head.segment_bytes.checked_sub(offset).filter(|&left| len <= left) else {
            return Ok(None);
        };
        let held = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len > held {
            self.window.resize(left.min(len.max(WINDOW_BYTES)) as usize, 0);
            self.window_at = offset;
            if let Err(e) = self.file.read_exact_at(&mut self.window, offset) {
                self.window.clear();
                return Err(LogError::io("read segment", self.path, e));
            }
        }
        Ok(Some(self.held(offset, len)))
    }
}

/// Looks at the first `step` bytes of `bytes`, which stand at `at`; what follows them only completes heads.
fn look_at(bytes: &[u8], at: u64, step: u64, salt: u64, found: &mut Beyond) {
    let Some(last) = bytes.iter().rposition(|&b| b != 0) else { return };
    found.nonzero_end = at + last as u64 + 1;
    for start in (0..step as usize).step_by(ALIGN_BYTES) {
        if let Some(head) = format::parse_head(&bytes[start..], salt, at + start as u64) {
            found.records += 1;
            found.watermark_max = found.watermark_max.max(u64::from(head.watermark));
        }
    }
}
