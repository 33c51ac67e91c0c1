//! Why a node does not start, as values: each with the place, and with what the operator can do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::NodePlaces;
use crate::base::{ServerId, Zxid};
use crate::storage::log::LogError;
use crate::storage::snapshot::SnapshotError;
use crate::storage::superblock::SuperblockError;
use crate::tree::ImageError;
use crate::wire::jute::JuteError;

/// Why a node does not start. Nothing is served; the log keeps every byte that was synced.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The data directory cannot be made or read.
    #[error("{path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error(
        "{path} is in use by another process: stop that one first, or give this one a dataDir of its own"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The system does not let it be locked.
    #[error("{path} cannot be locked: {source}")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No superblock to work with.
    #[error("in {dir}: {source}")]
    Superblock {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        source: SuperblockError,
    },
    /// The directory is another server's.
    #[error(
        "{dir} belongs to server {}, the configuration says {}: correct myid, or use this server's own dataDir",
        found.0, expected.0
    )]
    WrongServer {
        /// The data directory.
        dir: PathBuf,
        /// Whose it is.
        found: ServerId,
        /// Whose it should be.
        expected: ServerId,
    },
    /// Snapshots cannot be looked for. (One that is damaged is passed over, not an error.)
    #[error("snapshots in {dir}: {source}")]
    Snapshots {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        source: SnapshotError,
    },
    /// A truncation or reset is pending, and a snapshot that may hold what is to go cannot be judged.
    #[error(
        "in {dir}: the history is being cut or replaced at {target}, and a snapshot that may hold later transactions cannot be read: \
         {source}; repair the disk, or remove that snapshot"
    )]
    TruncateSnapshots {
        /// The data directory.
        dir: PathBuf,
        /// The last transaction that stays.
        target: Zxid,
        /// What is wrong.
        source: SnapshotError,
    },
    /// The log was being replaced by a whole state, and the snapshot of that state is of no use: what the log held may be gone
    /// already.
    #[error(
        "in {dir}: the log was being replaced by a snapshot at {base}, which cannot be loaded (the newest usable one ends at \
         {found}): restore that snapshot from a backup, or start with an empty dataDir and dataLogDir, so that the state is \
         fetched from the ensemble again"
    )]
    ResetSnapshot {
        /// The data directory.
        dir: PathBuf,
        /// The state that was to take the log's place.
        base: Zxid,
        /// The newest snapshot that loads; zero without one.
        found: Zxid,
    },
    /// The log cannot be opened, or may not be.
    #[error("the transaction log in {dir}: {source}")]
    Log {
        /// The log directory.
        dir: PathBuf,
        /// What is wrong, and where.
        source: LogError,
    },
    /// Transactions between snapshot and log are missing.
    #[error(
        "{dir}: the log starts after {log_base}, the newest usable snapshot ends at {snapshot}: transactions between them \
         are missing; restore a snapshot, or the log segments, from a backup"
    )]
    Gap {
        /// The log directory.
        dir: PathBuf,
        /// What the log starts after.
        log_base: Zxid,
        /// Where the snapshot ends; zero without one.
        snapshot: Zxid,
    },
    /// The log ends before the snapshot, which held only what the log had.
    #[error(
        "{dir}: the log ends at {log_last}, before the snapshot at {snapshot}: segments are missing, or dataLogDir is not \
         the one that belongs to dataDir"
    )]
    LogBehind {
        /// The log directory.
        dir: PathBuf,
        /// Last transaction of the log.
        log_last: Zxid,
        /// Where the snapshot ends.
        snapshot: Zxid,
    },
    /// A whole, checksummed record that is no transaction: written by something else.
    #[error(
        "{dir}: transaction {zxid} cannot be decoded: {source}; it was not written by this version of Zabra"
    )]
    Undecodable {
        /// The log directory.
        dir: PathBuf,
        /// The record.
        zxid: Zxid,
        /// What is wrong with its payload.
        source: JuteError,
    },
    /// A record that carries another transaction than its head says.
    #[error(
        "{dir}: the record of transaction {zxid} holds transaction {found}; it was not written by this version of Zabra"
    )]
    Misnumbered {
        /// The log directory.
        dir: PathBuf,
        /// zxid of the record.
        zxid: Zxid,
        /// zxid of the transaction in it.
        found: Zxid,
    },
    /// Replay came to another tree than the node had.
    #[error(
        "{dir}: transaction {zxid} should give a tree with digest {expected:x}, it gives {found:x}: snapshot and log do not \
         belong together, or one of them was changed; restore both from one backup"
    )]
    Digest {
        /// The log directory.
        dir: PathBuf,
        /// The transaction.
        zxid: Zxid,
        /// Digest it carries.
        expected: u64,
        /// Digest of the tree after it.
        found: u64,
    },
}

impl RecoverError {
    pub(super) fn superblock(places: &NodePlaces, source: SuperblockError) -> RecoverError {
        RecoverError::Superblock { dir: places.data.clone(), source }
    }

    pub(super) fn log(places: &NodePlaces, source: LogError) -> RecoverError {
        RecoverError::Log { dir: places.log.clone(), source }
    }
}

/// Why a snapshot is of no use.
#[derive(Debug, Error)]
pub enum SnapshotFault {
    /// Its bytes are not those that were written.
    #[error("{0}")]
    Storage(#[from] SnapshotError),
    /// A chunk is of a kind that this version does not know.
    #[error("chunk {chunk} is of kind {kind}, which this version does not know")]
    Kind {
        /// Its number.
        chunk: u32,
        /// Its kind.
        kind: u16,
    },
    /// A chunk is whole, and what it says is not possible.
    #[error("chunk {chunk}: {source}")]
    Chunk {
        /// Its number.
        chunk: u32,
        /// What is wrong.
        source: ImageError,
    },
    /// The chunks do not make a tree.
    #[error("{0}")]
    Image(ImageError),
    /// The tree is not the one that the snapshot says it holds.
    #[error("{what} is {found:x}, the snapshot says {expected:x}")]
    Other {
        /// Of what.
        what: &'static str,
        /// In name or trailer.
        expected: u64,
        /// In the tree.
        found: u64,
    },
    /// The trailer is not one.
    #[error("trailer of {len} bytes, {expected} expected")]
    Trailer {
        /// Its length.
        len: usize,
        /// What it should be.
        expected: usize,
    },
}
