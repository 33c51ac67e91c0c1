//! What can go wrong with the log, as values. Three families: the caller may go on (`NoSpace`, `GroupTooLarge`, `OutOfOrder`,
//! `NotFound`, `Compacted`, `Truncated`), the process must stop (`Io`, `Latched`), the node must not start (`Refused`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::{LogPos, Zxid};
use crate::storage::log::recover::Row;

/// An error of the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The environment failed. On the durable path the log is latched behind it: nothing is acknowledged any more.
    #[error("{op} {path}: {source}")]
    Io {
        /// What was attempted.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write or flush failed; the process must stop.
    #[error("the log stopped after an earlier failure: {cause}")]
    Latched {
        /// The first failure.
        cause: Arc<str>,
    },
    /// There is no room for another segment. Nothing was changed; the same append works once there is room.
    #[error("no space for the next log segment: {needed_bytes} bytes needed, {free_bytes} free")]
    NoSpace {
        /// Size of a segment.
        needed_bytes: u64,
        /// What the file system said is free.
        free_bytes: u64,
    },
    /// A group must fit into one segment. Nothing was changed.
    #[error("a group of {bytes} bytes does not fit into a segment, which holds {bytes_max}")]
    GroupTooLarge {
        /// Bytes of the group, heads included.
        bytes: u64,
        /// What a segment holds.
        bytes_max: u64,
    },
    /// A group that does not come after the last record. Nothing was changed.
    #[error("zxid {found} cannot follow {last}")]
    OutOfOrder {
        /// The last record.
        last: Zxid,
        /// First record of the group.
        found: Zxid,
    },
    /// Truncation needs the exact zxid. Nothing was changed.
    #[error("zxid {zxid} is not in the log")]
    NotFound {
        /// What was asked for.
        zxid: Zxid,
    },
    /// The records asked for were purged; the log starts behind `base`.
    #[error("the log starts after {base}")]
    Compacted {
        /// Predecessor of the first record.
        base: Zxid,
    },
    /// The log was truncated or replaced while it was being read: start again.
    #[error("the log was cut or replaced while it was read")]
    Truncated,
    /// A record that should be whole is not: found while reading a running log.
    #[error("damaged record at {pos} in {path}")]
    Damaged {
        /// Where.
        pos: LogPos,
        /// In which file.
        path: PathBuf,
    },
    /// Recovery refuses to serve; all bytes are kept.
    #[error("recovery refuses ({row}): {detail}; at {pos} in {path}{}", row.advice())]
    Refused {
        /// Row of the table in `docs/recovery.md`.
        row: Row,
        /// The exact place.
        pos: LogPos,
        /// File of that place.
        path: PathBuf,
        /// What was found and why that is not benign.
        detail: String,
    },
    /// Written by a later version of this program.
    #[error("{path} has log format version {found}, this program reads {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Options that cannot work.
    #[error("segment size {segment_bytes} must be a multiple of 4096 from {bytes_min} to {bytes_max}")]
    Options {
        /// What was asked for.
        segment_bytes: u64,
        /// Least.
        bytes_min: u64,
        /// Most.
        bytes_max: u64,
    },
}

impl LogError {
    /// Wraps `source` with what was attempted.
    pub(super) fn io(op: &'static str, path: &std::path::Path, source: io::Error) -> LogError {
        LogError::Io { op, path: path.to_path_buf(), source }
    }

    /// True when the caller may go on: the log changed nothing and stands.
    #[must_use]
    pub fn is_benign(&self) -> bool {
        !matches!(
            self,
            LogError::Io { .. }
                | LogError::Latched { .. }
                | LogError::Refused { .. }
                | LogError::Damaged { .. }
        )
    }
}

/// True when the disk (or the quota) is full: the one failure that waiting may cure.
#[must_use]
pub fn is_no_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
