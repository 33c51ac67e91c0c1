//! Compression of chunks, apart from writing them, so that several threads can compress for one writer.

use std::fmt;
use std::io;

use super::format::{CHUNK_HEADER_BYTES, CHUNK_RAW_BYTES_MAX, ChunkHeader, Encoding, Entry};
use crate::base::checksum::crc32;

/// zstd's fastest regular level: a snapshot competes with the serving threads for the processor.
pub const LEVEL_DEFAULT: i32 = 1;

/// A compression context, kept from chunk to chunk. One per thread.
pub struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
}

/// A chunk ready to be appended. Reused from chunk to chunk: its buffer only grows.
#[derive(Clone, Debug, Default)]
pub struct EncodedChunk {
    /// Room for the header, then the stored bytes, then what a larger chunk left behind.
    frame: Vec<u8>,
    kind: u16,
    encoding: Option<Encoding>,
    raw_len: u32,
    raw_crc: u32,
    stored_len: u32,
}

impl Encoder {
    /// A context for zstd level `level`.
    pub fn new(level: i32) -> io::Result<Encoder> {
        Ok(Encoder { zstd: zstd::bulk::Compressor::new(level)? })
    }

    /// Compresses `raw` (at most [`CHUNK_RAW_BYTES_MAX`] bytes) into `out`; stores it as it is when that is not larger.
    pub fn encode(&mut self, kind: u16, raw: &[u8], out: &mut EncodedChunk) -> io::Result<()> {
        assert!(raw.len() <= CHUNK_RAW_BYTES_MAX, "the caller cuts chunks");
        out.reserve(zstd::zstd_safe::compress_bound(raw.len()).max(raw.len()));
        let compressed = self.zstd.compress_to_buffer(raw, &mut out.frame[CHUNK_HEADER_BYTES..])?;
        if compressed < raw.len() {
            out.set(kind, raw, Encoding::Zstd, compressed);
        } else {
            out.keep(kind, raw);
        }
        Ok(())
    }
}

impl EncodedChunk {
    /// Bytes this chunk will take in the file.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        CHUNK_HEADER_BYTES + self.stored_len as usize
    }

    /// Takes `raw` as it is.
    pub(super) fn keep(&mut self, kind: u16, raw: &[u8]) {
        self.reserve(raw.len());
        self.frame[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + raw.len()].copy_from_slice(raw);
        self.set(kind, raw, Encoding::Raw, raw.len());
    }

    fn set(&mut self, kind: u16, raw: &[u8], encoding: Encoding, stored: usize) {
        self.kind = kind;
        self.encoding = Some(encoding);
        self.raw_len = raw.len() as u32;
        self.raw_crc = crc32(raw);
        self.stored_len = stored as u32;
    }

    /// Completes the header for place `index` at `offset`, and gives the bytes to write and the line for the chunk table.
    pub(super) fn seal(&mut self, seed: u32, index: u32, offset: u64) -> (&[u8], Entry) {
        let encoding = self.encoding.expect("encode() comes first");
        let mut entry = Entry {
            offset,
            stored_len: self.stored_len,
            raw_len: self.raw_len,
            crc: 0,
            kind: self.kind,
            encoding,
        };
        let len = self.file_bytes();
        let frame = &mut self.frame[..len];
        entry.crc = ChunkHeader { index, raw_crc: self.raw_crc, entry }.seal(seed, frame);
        (frame, entry)
    }

    fn reserve(&mut self, stored_max: usize) {
        let len = CHUNK_HEADER_BYTES + stored_max;
        if self.frame.len() < len {
            self.frame.resize(len, 0);
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}
