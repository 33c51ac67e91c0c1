//! Receiving onto the disk: the stream becomes a snapshot as it comes, in a temporary file. Nothing but the last chunks of it is in memory, and what
//! [`crate::tree::ImageBuilder`] keeps of paths.

use thiserror::Error;

use super::sink::{Feed, SnapProgress, SnapSink, SnapStreamError};
use crate::base::Zxid;
use crate::node::snapshot::{SnapshotOptions, SnapshotTrailer};
use crate::storage::snapshot::{
    CHUNKS_MAX, Reserved, SnapshotError, SnapshotInfo, SnapshotMeta, SnapshotStore, SnapshotWriter,
};
use crate::tree::{ChunkKind, TreeOptions};

/// Chunks that are left when the stream ends: one of each kind.
const CHUNKS_LEFT_MAX: u32 = 4;

/// Why a state is not received.
#[derive(Debug, Error)]
pub enum StateFailed {
    /// What comes cannot be used.
    #[error("{0}")]
    Stream(#[from] SnapStreamError),
    /// It cannot be stored.
    #[error("{0}")]
    Storage(#[from] SnapshotError),
}

/// A state on its way into a temporary file, which goes when this is dropped.
#[derive(Debug)]
pub struct StateFile {
    zxid: Zxid,
    sink: SnapSink,
    writer: SnapshotWriter,
    header: Reserved,
}

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// So many are done with.
    pub consumed: usize,
    /// The stream is complete; bytes behind it belong to what comes next.
    pub done: bool,
}

impl StateFile {
    /// Nothing yet. `zxid` is that of the SNAP packet.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn begin(
        store: &SnapshotStore,
        zxid: Zxid,
        tree: TreeOptions,
        options: &SnapshotOptions,
    ) -> Result<StateFile, SnapshotError> {
        let meta = SnapshotMeta {
            zxid,
            node_id: options.node_id,
            created: options.created,
            chunk_bytes_target: options.chunk_bytes as u32,
            level: options.level,
        };
        let mut writer = store.create_received(meta)?;
        let header = writer.reserve(ChunkKind::Header as u16, SnapSink::HEADER_BYTES)?;
        Ok(StateFile { zxid, sink: SnapSink::new(zxid, tree, options.chunk_bytes), writer, header })
    }

    /// Takes what it can of `bytes`, which begin behind what was consumed before.
    ///
    /// # Errors
    /// This is of no use any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, StateFailed> {
        let mut at = 0;
        loop {
            match self.sink.feed(&bytes[at..])? {
                Feed::Chunk { consumed } => {
                    at += consumed;
                    self.write_chunk()?;
                }
                Feed::More { consumed, .. } => return Ok(Fed { consumed: at + consumed, done: false }),
                Feed::Done { consumed } => return Ok(Fed { consumed: at + consumed, done: true }),
            }
        }
    }

    /// False when there is none.
    fn write_chunk(&mut self) -> Result<bool, StateFailed> {
        let Some((kind, bytes)) = self.sink.chunk() else { return Ok(false) };
        if self.writer.chunk_count() > CHUNKS_MAX - CHUNKS_LEFT_MAX {
            return Err(SnapStreamError::TooLong.into());
        }
        self.writer.chunk(kind as u16, bytes)?;
        self.sink.taken(kind);
        Ok(true)
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> SnapProgress {
        self.sink.progress()
    }

    /// The whole state, when the stream is complete. What was kept of paths goes.
    ///
    /// # Errors
    /// It lacks something, or cannot be stored.
    pub fn finish(mut self) -> Result<WholeState, StateFailed> {
        if !self.sink.is_complete() {
            return Err(SnapStreamError::Incomplete.into());
        }
        while self.write_chunk()? {}
        let StateFile { zxid, sink, mut writer, header } = self;
        let end = sink.finish()?;
        writer.fill(header, &end.header)?;
        let trailer = SnapshotTrailer { digest: end.digest, node_count: end.node_count };
        Ok(WholeState { zxid, writer, trailer: trailer.bytes(), is_fuzzy: end.zxid_end > zxid })
    }
}

/// A state that is all there, in a temporary file, which goes when this is dropped.
#[derive(Debug)]
pub struct WholeState {
    zxid: Zxid,
    writer: SnapshotWriter,
    trailer: [u8; SnapshotTrailer::BYTES],
    is_fuzzy: bool,
}

impl WholeState {
    /// Of which moment.
    #[must_use]
    pub const fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// What the snapshot ends with: digest and number of nodes.
    #[must_use]
    pub const fn trailer(&self) -> &[u8] {
        &self.trailer
    }

    /// Some of it is of a later moment.
    #[must_use]
    pub const fn is_fuzzy(&self) -> bool {
        self.is_fuzzy
    }

    /// Gives it its name: it is durable when this returns.
    ///
    /// # Errors
    /// There is no such snapshot, or one that must not be relied on.
    pub fn publish(self) -> Result<SnapshotInfo, SnapshotError> {
        let info = self.writer.finish(self.zxid, &self.trailer)?;
        assert_eq!((info.zxid, info.zxid_end), (self.zxid, self.zxid), "exact, not fuzzy (decision 0002)");
        Ok(info)
    }
}
