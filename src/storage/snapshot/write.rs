//! Writing a snapshot: temporary file, chunks, footer, fdatasync, rename, fsync of the directory. N1 lives here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::encode::{EncodedChunk, Encoder};
use super::format::{
    CHUNKS_MAX, Entry, Footer, HEADER_BYTES, Header, TAIL_BYTES, TRAILER_BYTES_MAX, Tail, root_digest,
};
use super::{SnapshotError, SnapshotInfo, name};
use crate::base::checksum::crc32_continue;
use crate::base::rng::Rng;
use crate::base::{WallMs, Zxid};
use crate::storage::vfs::{OpenMode, Vfs, VfsFile};

/// Bytes between syncs while chunks are written: keeps the flush at the end, and so what it does to the log's flushes on the
/// same disk, short.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// What a snapshot says of itself from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Every transaction up to this one is in the content.
    pub zxid: Zxid,
    /// The node that writes it.
    pub node_id: u64,
    /// Now.
    pub created: WallMs,
    /// About how long the writer means chunks to be before compression, bytes; informs readers, limits nothing.
    pub chunk_bytes_target: u32,
    /// zstd level, [`super::LEVEL_DEFAULT`] unless configured.
    pub level: i32,
}

/// A snapshot being written. Dropped before [`SnapshotWriter::finish`] succeeded, it leaves nothing behind.
#[derive(Debug)]
pub struct SnapshotWriter {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    tmp: PathBuf,
    header: Header,
    file: Arc<dyn VfsFile>,
    encoder: Encoder,
    chunk: EncodedChunk,
    table: Vec<Entry>,
    raw_bytes: u64,
    written: u64,
    synced: u64,
    /// Set by the first error: after a failed sync the next one would succeed without having written anything.
    failed: bool,
    published: bool,
}

/// A chunk whose content comes later.
#[derive(Debug)]
pub struct Reserved(usize);

impl SnapshotWriter {
    /// Begins a snapshot in `dir`, as a temporary file.
    pub fn create(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        meta: SnapshotMeta,
    ) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create_as(vfs, dir, name::tmp_path(dir, meta.zxid), meta)
    }

    /// The same for a state that comes from elsewhere: a snapshot of that zxid may be in the making beside it.
    pub fn create_received(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        meta: SnapshotMeta,
    ) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create_as(vfs, dir, name::received_tmp_path(dir, meta.zxid), meta)
    }

    fn create_as(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        tmp: PathBuf,
        meta: SnapshotMeta,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let header = Header {
            zxid: meta.zxid,
            node_id: meta.node_id,
            salt: salt(&meta),
            created: meta.created,
            chunk_bytes_target: meta.chunk_bytes_target,
        };
        let encoder = Encoder::new(meta.level)?;
        if vfs.exists(&tmp)? {
            vfs.remove(&tmp)?;
        }
        let file = vfs.open(&tmp, OpenMode::CreateNew)?;
        let mut writer = SnapshotWriter {
            vfs,
            dir: dir.to_owned(),
            tmp,
            header,
            file,
            encoder,
            chunk: EncodedChunk::default(),
            table: Vec::new(),
            raw_bytes: 0,
            written: 0,
            synced: 0,
            failed: false,
            published: false,
        };
        let header = writer.header.encode();
        writer.guarded(|w| w.write(&header))?;
        Ok(writer)
    }

    /// Compresses and appends a chunk of at most [`super::CHUNK_RAW_BYTES_MAX`] bytes. `kind` is the application's.
    pub fn chunk(&mut self, kind: u16, raw: &[u8]) -> Result<(), SnapshotError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let result = self.encoder.encode(kind, raw, &mut chunk);
        let result = result.map_err(SnapshotError::from).and_then(|()| self.append(&mut chunk));
        self.chunk = chunk;
        result
    }

    /// Appends a chunk that an [`Encoder`] made, here or on another thread.
    pub fn append(&mut self, chunk: &mut EncodedChunk) -> Result<(), SnapshotError> {
        assert!((self.table.len() as u64) < u64::from(CHUNKS_MAX), "the caller makes chunks large enough");
        self.guarded(|w| {
            let (frame, entry) = chunk.seal(w.header.seed(), w.table.len() as u32, w.written);
            w.write(frame)?;
            w.raw_bytes += u64::from(entry.raw_len);
            w.table.push(entry);
            if w.written - w.synced >= SYNC_EVERY_BYTES { w.sync() } else { Ok(()) }
        })
    }

    /// Appends a chunk whose content is not known yet: `len` bytes, which are not compressed. [`SnapshotWriter::fill`] brings them.
    pub fn reserve(&mut self, kind: u16, len: usize) -> Result<Reserved, SnapshotError> {
        let index = self.table.len();
        let mut chunk = EncodedChunk::default();
        chunk.keep(kind, &vec![0; len]);
        self.append(&mut chunk)?;
        Ok(Reserved(index))
    }

    /// Puts `raw` where it was reserved, as long as was said.
    pub fn fill(&mut self, reserved: Reserved, raw: &[u8]) -> Result<(), SnapshotError> {
        let Reserved(index) = reserved;
        let place = self.table[index];
        assert_eq!(raw.len(), place.raw_len as usize, "as long as was said");
        let mut chunk = EncodedChunk::default();
        chunk.keep(place.kind, raw);
        self.guarded(|w| {
            let (frame, entry) = chunk.seal(w.header.seed(), index as u32, place.offset);
            assert_eq!(entry.end(), place.end(), "the chunk behind it stays where it is");
            w.table[index] = entry;
            // Nothing has been published: the last sync takes this along.
            Ok(w.file.write_all_at(frame, place.offset)?)
        })
    }

    /// Completes and publishes the snapshot: durable under its name when this returns. `zxid_end` is the last transaction that
    /// may be in the content, at least the one the snapshot is named by; `trailer` at most [`TRAILER_BYTES_MAX`] bytes.
    pub fn finish(mut self, zxid_end: Zxid, trailer: &[u8]) -> Result<SnapshotInfo, SnapshotError> {
        assert!(zxid_end >= self.header.zxid, "the content never ends before it begins");
        assert!(trailer.len() <= TRAILER_BYTES_MAX, "the trailer is a digest and a few counts");
        let info = self.guarded(|w| {
            let root_digest = w.write_footer(zxid_end, trailer)?;
            w.sync()?;
            w.publish()?;
            Ok(w.info(zxid_end, root_digest, trailer))
        })?;
        assert!(self.synced == self.written, "published means durable");
        Ok(info)
    }

    /// Chunks so far, of which there can be [`CHUNKS_MAX`].
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.table.len() as u32
    }

    /// Bytes written so far.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.written
    }

    /// Runs one step; after an error no further one.
    fn guarded<T>(
        &mut self,
        step: impl FnOnce(&mut SnapshotWriter) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        if self.failed {
            return Err(SnapshotError::Failed);
        }
        let result = step(self);
        self.failed = result.is_err();
        result
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), SnapshotError> {
        self.file.sync_data()?;
        self.synced = self.written;
        Ok(())
    }

    fn write_footer(&mut self, zxid_end: Zxid, trailer: &[u8]) -> Result<[u8; 20], SnapshotError> {
        let mut table = Vec::new();
        self.table.iter().for_each(|entry| entry.encode(&mut table));
        let footer = Footer {
            zxid: self.header.zxid,
            zxid_end,
            chunk_count: self.table.len() as u32,
            trailer_len: trailer.len() as u32,
            raw_bytes: self.raw_bytes,
            root_digest: root_digest(&table),
        };
        let mut bytes = Vec::with_capacity(table.len() + trailer.len() + 256);
        footer.encode(&mut bytes);
        bytes.extend_from_slice(&table);
        bytes.extend_from_slice(trailer);
        let seed = self.header.seed();
        let tail = Tail {
            footer_offset: self.written,
            footer_len: bytes.len() as u64,
            footer_crc: crc32_continue(seed, &bytes),
        };
        bytes.extend_from_slice(&tail.encode(seed));
        self.write(&bytes)?;
        Ok(footer.root_digest)
    }

    fn publish(&mut self) -> Result<(), SnapshotError> {
        self.vfs.rename(&self.tmp, &name::path(&self.dir, self.header.zxid))?;
        self.published = true;
        Ok(self.vfs.sync_dir(&self.dir)?)
    }

    fn info(&self, zxid_end: Zxid, root_digest: [u8; 20], trailer: &[u8]) -> SnapshotInfo {
        assert!(self.written >= (HEADER_BYTES + TAIL_BYTES) as u64);
        SnapshotInfo {
            zxid: self.header.zxid,
            zxid_end,
            node_id: self.header.node_id,
            created: self.header.created,
            chunk_count: self.table.len() as u32,
            raw_bytes: self.raw_bytes,
            file_bytes: self.written,
            root_digest,
            trailer: trailer.to_vec(),
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: what stays behind is removed when the store is opened next.
            let _ = self.vfs.remove(&self.tmp);
        }
    }
}

/// Differs between any two snapshots that one disk is likely to see, so that stale blocks of one never pass in another.
fn salt(meta: &SnapshotMeta) -> u64 {
    let mut rng = Rng::new(meta.node_id ^ meta.zxid.0.rotate_left(32));
    Rng::new(rng.next_u64() ^ meta.created.0 as u64).next_u64()
}
