//! Reading a snapshot: header, footer and table are checked on open, each chunk when it is read. Nothing is believed before
//! its checksum, and no length before its limit (N3).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::format::{
    CHUNK_HEADER_BYTES, ChunkHeader, ENTRY_BYTES, Encoding, Entry, FOOTER_FIXED_BYTES, FOOTER_MAGIC, Footer,
    HEADER_BYTES, Header, HeaderError, TAIL_BYTES, Tail, VERSION, chunk_crc, root_digest,
};
use super::{Damage, DamageKind, SnapshotError, SnapshotInfo};
use crate::base::checksum::{crc32, crc32_continue};
use crate::storage::vfs::{OpenMode, Vfs, VfsFile};

/// An open snapshot whose header, footer and table are valid. Chunks can be read by several threads at once.
#[derive(Debug)]
pub struct SnapshotReader {
    chunks: ChunkSource,
    info: SnapshotInfo,
    table: Vec<Entry>,
}

impl SnapshotReader {
    /// Opens `path` and checks everything but the chunks.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] with the place; [`SnapshotError::Version`] for a later format.
    pub fn open(vfs: &dyn Vfs, path: &Path) -> Result<SnapshotReader, SnapshotError> {
        let chunks = ChunkSource::open(vfs, path)?;
        let (info, table) = read_footer(&chunks)?;
        Ok(SnapshotReader { chunks, info, table })
    }

    /// What the snapshot says of itself.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Number of chunks.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.info.chunk_count
    }

    /// Bytes of chunk `index`, uncompressed.
    #[must_use]
    pub fn chunk_raw_bytes(&self, index: u32) -> usize {
        self.table[index as usize].raw_len as usize
    }

    /// The application's kind of chunk `index`, as the table says; [`SnapshotReader::read_chunk`] confirms it.
    #[must_use]
    pub fn chunk_kind(&self, index: u32) -> u16 {
        self.table[index as usize].kind
    }

    /// Byte in the file where chunk `index` begins.
    #[must_use]
    pub fn chunk_offset(&self, index: u32) -> u64 {
        self.table[index as usize].offset
    }

    /// Reads and checks chunk `index` (below [`SnapshotReader::chunk_count`]) into `out`, replacing its content; returns its
    /// kind. After an error `out` holds nothing of use.
    pub fn read_chunk(&self, index: u32, out: &mut Vec<u8>) -> Result<u16, SnapshotError> {
        let entry = self.table[index as usize];
        let found = self.chunks.read(index, entry.offset, entry.end(), out)?;
        if found != entry {
            let damage = Damage { chunk: Some(index), offset: entry.offset, kind: DamageKind::Contradiction };
            return Err(damage.into());
        }
        Ok(entry.kind)
    }
}

/// The chunks of a file, without the table.
#[derive(Debug)]
pub(super) struct ChunkSource {
    file: Arc<dyn VfsFile>,
    pub(super) file_bytes: u64,
    header: Header,
    seed: u32,
    /// Contexts of the threads that are not reading right now.
    idle: Mutex<Vec<Scratch>>,
}

struct Scratch {
    zstd: zstd::bulk::Decompressor<'static>,
    frame: Vec<u8>,
}

impl ChunkSource {
    pub(super) fn open(vfs: &dyn Vfs, path: &Path) -> Result<ChunkSource, SnapshotError> {
        let file = vfs.open(path, OpenMode::Read)?;
        // A page whose write-back failed may be right in the cache and wrong on the disk (vfs V4).
        file.drop_cache()?;
        let file_bytes = file.size()?;
        let mut bytes = [0; HEADER_BYTES];
        read_part(&*file, &mut bytes, 0)?;
        let header = Header::decode(&bytes).map_err(|e| match e {
            HeaderError::Damage(kind) => Damage::outside(0, kind).into(),
            HeaderError::Version(found) => SnapshotError::Version { found, known: VERSION },
        })?;
        let seed = header.seed();
        Ok(ChunkSource { file, file_bytes, header, seed, idle: Mutex::new(Vec::new()) })
    }

    /// True when the bytes at `offset` look like a footer.
    pub(super) fn is_footer_at(&self, offset: u64) -> bool {
        let mut bytes = [0; FOOTER_MAGIC.len()];
        self.file.read_exact_at(&mut bytes, offset).is_ok() && bytes == FOOTER_MAGIC
    }

    /// Reads the chunk header at `offset`: how a damaged file is walked without its table.
    pub(super) fn read_header(&self, index: u32, offset: u64) -> Result<ChunkHeader, SnapshotError> {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        let damage = |kind| Damage { chunk: Some(index), offset, kind };
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| damage(DamageKind::of_read(&e)))?;
        let header = ChunkHeader::decode(&bytes, offset).map_err(damage)?;
        if header.entry.end() > self.file_bytes {
            return Err(damage(DamageKind::Short).into());
        }
        Ok(header)
    }

    /// Reads, checks and decompresses the chunk in bytes `offset..end` of the file.
    pub(super) fn read(
        &self,
        index: u32,
        offset: u64,
        end: u64,
        out: &mut Vec<u8>,
    ) -> Result<Entry, SnapshotError> {
        let mut scratch = self.scratch()?;
        let result = self.read_with(&mut scratch, index, offset, end, out);
        self.idle.lock().push(scratch);
        result
    }

    fn read_with(
        &self,
        scratch: &mut Scratch,
        index: u32,
        offset: u64,
        end: u64,
        out: &mut Vec<u8>,
    ) -> Result<Entry, SnapshotError> {
        let frame = scratch.frame_of((end - offset) as usize);
        let damage = |kind| Damage { chunk: Some(index), offset, kind };
        self.file.read_exact_at(frame, offset).map_err(|e| damage(DamageKind::of_read(&e)))?;
        let header = ChunkHeader::decode(frame, offset).map_err(damage)?;
        if chunk_crc(self.seed, frame) != header.entry.crc {
            return Err(damage(DamageKind::Checksum).into());
        }
        if header.index != index || header.entry.end() != end {
            return Err(damage(DamageKind::Contradiction).into());
        }
        scratch.decode(&header, out).map_err(|()| damage(DamageKind::Decompress))?;
        Ok(header.entry)
    }

    fn scratch(&self) -> io::Result<Scratch> {
        if let Some(scratch) = self.idle.lock().pop() {
            return Ok(scratch);
        }
        Ok(Scratch { zstd: zstd::bulk::Decompressor::new()?, frame: Vec::new() })
    }
}

impl Scratch {
    fn frame_of(&mut self, len: usize) -> &mut [u8] {
        if self.frame.len() < len {
            self.frame.resize(len, 0);
        }
        &mut self.frame[..len]
    }

    /// Decompresses into exactly `raw_len` bytes: whatever the compressed bytes claim, nothing more is written.
    fn decode(&mut self, header: &ChunkHeader, out: &mut Vec<u8>) -> Result<(), ()> {
        let stored = &self.frame[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + header.entry.stored_len as usize];
        let raw_len = header.entry.raw_len as usize;
        if header.entry.encoding == Encoding::Zstd
            && !matches!(zstd::zstd_safe::get_frame_content_size(stored), Ok(Some(len)) if len == raw_len as u64)
        {
            return Err(());
        }
        out.resize(raw_len, 0);
        let written = match header.entry.encoding {
            Encoding::Raw => {
                out.copy_from_slice(stored);
                stored.len()
            }
            Encoding::Zstd => self.zstd.decompress_to_buffer(stored, &mut out[..]).map_err(drop)?,
        };
        if written == out.len() && crc32(out) == header.raw_crc { Ok(()) } else { Err(()) }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("frame_bytes", &self.frame.len()).finish_non_exhaustive()
    }
}

fn read_footer(source: &ChunkSource) -> Result<(SnapshotInfo, Vec<Entry>), SnapshotError> {
    let tail_offset = source.file_bytes.saturating_sub(TAIL_BYTES as u64);
    let mut bytes = [0; TAIL_BYTES];
    read_part(&*source.file, &mut bytes, tail_offset)?;
    let tail = Tail::decode(&bytes, source.seed, source.file_bytes)
        .map_err(|kind| Damage::outside(tail_offset, kind))?;
    let mut bytes = vec![0; tail.footer_len as usize];
    read_part(&*source.file, &mut bytes, tail.footer_offset)?;
    decode_footer(source, &tail, &bytes).map_err(|kind| Damage::outside(tail.footer_offset, kind).into())
}

fn decode_footer(
    source: &ChunkSource,
    tail: &Tail,
    bytes: &[u8],
) -> Result<(SnapshotInfo, Vec<Entry>), DamageKind> {
    if crc32_continue(source.seed, bytes) != tail.footer_crc {
        return Err(DamageKind::Checksum);
    }
    let footer = Footer::decode(bytes)?;
    let (table, trailer) = bytes[FOOTER_FIXED_BYTES..].split_at(footer.chunk_count as usize * ENTRY_BYTES);
    let entries = decode_table(table, tail.footer_offset)?;
    let raw_bytes: u64 = entries.iter().map(|e| u64::from(e.raw_len)).sum();
    let agrees = footer.zxid == source.header.zxid
        && footer.raw_bytes == raw_bytes
        && footer.root_digest == root_digest(table);
    if !agrees {
        return Err(DamageKind::Contradiction);
    }
    let info = SnapshotInfo {
        zxid: footer.zxid,
        zxid_end: footer.zxid_end,
        node_id: source.header.node_id,
        created: source.header.created,
        chunk_count: footer.chunk_count,
        raw_bytes,
        file_bytes: source.file_bytes,
        root_digest: footer.root_digest,
        trailer: trailer.to_vec(),
    };
    Ok((info, entries))
}

/// The chunks must fill the file from the header to the footer without a gap.
fn decode_table(table: &[u8], footer_offset: u64) -> Result<Vec<Entry>, DamageKind> {
    let entries: Vec<Entry> = table.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect::<Result<_, _>>()?;
    let mut end = HEADER_BYTES as u64;
    for entry in &entries {
        if entry.offset != end {
            return Err(DamageKind::Contradiction);
        }
        end = entry.end();
    }
    if end == footer_offset { Ok(entries) } else { Err(DamageKind::Contradiction) }
}

fn read_part(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> Result<(), Damage> {
    file.read_exact_at(buf, offset).map_err(|e| Damage::outside(offset, DamageKind::of_read(&e)))
}
