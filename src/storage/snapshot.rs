//! Snapshots: opaque chunks in one self-describing file, published whole or not at all.
//!
//! Layout, checksum coverage and limits: `docs/snapshot_format.md`. What the chunks mean is the tree's business.
//!
//! - N1: a file named `snapshot.<zxid>` was complete and durable before it got that name; until then it is `….tmp`.
//! - N2: every byte of the file is under a checksum, and every chunk's is seeded by the snapshot's salt and covers its index:
//!   bytes of another snapshot, or of another place in this one, never pass.
//! - N3: lengths from the file are believed only within limits and when the whole chunk table agrees with itself.
//! - N4: `zxid_end` is the last transaction that may be in the content. A truncation to `z` removes every snapshot with
//!   `zxid_end > z` before the log is cut (rule R3).
//! - N5: nothing is removed before a newer snapshot has been read back and verified (rule R15).

mod encode;
mod format;
mod name;
mod read;
mod retention;
mod store;
mod verify;
mod write;

use std::fmt;
use std::io;

use thiserror::Error;

use crate::base::{WallMs, Zxid};

pub use self::encode::{EncodedChunk, Encoder, LEVEL_DEFAULT};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::format::reseal;
pub use self::format::{CHUNK_RAW_BYTES_MAX, CHUNKS_MAX, TRAILER_BYTES_MAX, VERSION};
pub use self::name::zxid_of;
pub use self::read::SnapshotReader;
pub use self::retention::{HeldSnapshot, Retention, RetentionPlan, plan_retention};
pub use self::store::{Newest, Skipped, SnapshotEntry, SnapshotStore};
pub use self::verify::{VerifyReport, verify};
pub use self::write::{Reserved, SnapshotMeta, SnapshotWriter};

/// What is known of a complete snapshot without reading its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Every transaction up to this one is in the content: replay starts after it.
    pub zxid: Zxid,
    /// No transaction after this one is in the content: those between are in it or not, node by node (fuzzy).
    pub zxid_end: Zxid,
    /// The node that wrote it.
    pub node_id: u64,
    /// When it was begun.
    pub created: WallMs,
    /// Number of chunks.
    pub chunk_count: u32,
    /// Bytes of all chunks, uncompressed.
    pub raw_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// SHA-1 of the chunk table: one name for the whole content.
    pub root_digest: [u8; 20],
    /// What the application put at the end.
    pub trailer: Vec<u8>,
}

/// Why a snapshot cannot be written or used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file system failed.
    #[error("snapshot: {0}")]
    Io(#[from] io::Error),
    /// The content is not what was written.
    #[error("snapshot damaged: {0}")]
    Damaged(Damage),
    /// Written by a later version of Zabra.
    #[error("snapshot has format version {found}, this build knows versions up to {known}")]
    Version {
        /// Version in the file.
        found: u32,
        /// Newest version this build reads.
        known: u32,
    },
    /// An earlier call on this writer failed: what it wrote cannot be trusted any more.
    #[error("snapshot writer has failed before")]
    Failed,
}

/// Where a snapshot is damaged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the chunk, from 0; `None` outside of the chunks.
    pub chunk: Option<u32>,
    /// Byte in the file where the damaged part begins.
    pub offset: u64,
    /// What is wrong with it.
    pub kind: DamageKind,
}

/// What is wrong with a part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DamageKind {
    /// The file ends too early.
    #[error("file ends too early")]
    Short,
    /// Does not begin as it must.
    #[error("not a snapshot of this format")]
    Magic,
    /// A checksum does not match.
    #[error("checksum does not match")]
    Checksum,
    /// Valid checksums around contents that contradict each other or exceed a limit.
    #[error("contents contradict each other or exceed a limit")]
    Contradiction,
    /// The chunk cannot be decompressed to what it was made from.
    #[error("cannot be decompressed to the original")]
    Decompress,
    /// The zxid in the file is not the one in its name.
    #[error("zxid differs from the file's name")]
    Name,
    /// The device could not read it this time: the only kind that may be gone at the next try.
    #[error("cannot be read: {}", io::Error::from_raw_os_error(*errno))]
    Unreadable {
        /// The operating system's error number; 0 when there was none.
        errno: i32,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chunk {
            Some(chunk) => write!(f, "chunk {chunk} at byte {}: {}", self.offset, self.kind),
            None => write!(f, "byte {}: {}", self.offset, self.kind),
        }
    }
}

impl Damage {
    /// A read that failed once may succeed later, and show a good snapshot.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, DamageKind::Unreadable { .. })
    }

    fn outside(offset: u64, kind: DamageKind) -> Damage {
        Damage { chunk: None, offset, kind }
    }
}

impl DamageKind {
    fn of_read(error: &io::Error) -> DamageKind {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DamageKind::Short,
            _ => DamageKind::Unreadable { errno: error.raw_os_error().unwrap_or(0) },
        }
    }
}

impl From<Damage> for SnapshotError {
    fn from(damage: Damage) -> SnapshotError {
        SnapshotError::Damaged(damage)
    }
}

#[cfg(test)]
mod tests;
