//! Configuration: ZooKeeper's `zoo.cfg` and system properties, plus Zabra's own keys (`zabra.*`), into one typed [`Config`].
//!
//! - C1: every key that ZooKeeper knows is honoured, or accepted with one warning that says why it does nothing, or refused;
//!   nothing is ignored in silence (`config/table.rs`).
//! - C2: all that is wrong with a file is reported at once: file, line, key, what was found, what is expected.
//! - C3: `-D key=value` wins over the file, by the key's `zoo.cfg` name or its system property name.
//! - C4: what a key stands for is decided here, once: the rest of the server sees typed values with their units in the name.
//! - C5: reading never panics, whatever the bytes (`testing::fuzz::config`).
//!
//! Every key, with what it does here: `src/docs/compatibility.md`. How to choose values: `src/docs/operations.md`.

mod build;
mod data_dir;
mod ensemble;
mod problem;
mod properties;
mod servers;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use crate::base::ServerId;

use super::fourletter::Whitelist;

pub use data_dir::{DataDirError, DataDirState, LOG_FOLDER, ZABRA_FOLDER, inspect_data_dirs};
pub use ensemble::EnsembleConfig;
pub use problem::{ConfigError, Origin, Problem, Warning};

/// Largest configuration file that is read; a real one has a few KiB.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Smallest log segment: one default frame and what the server adds to it must fit many times.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// Largest log segment: recovery holds its index in memory, and a purge frees a whole segment at a time.
pub const LOG_SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Log segment by default: the storage layer's, which is also ZooKeeper's `preAllocSize`.
pub const LOG_SEGMENT_BYTES_DEFAULT: u64 = crate::storage::log::SEGMENT_BYTES_DEFAULT;

/// Segments are whole pages.
const LOG_SEGMENT_BYTES_STEP: u64 = 4_096;

/// What one segment holds beside its largest record: headers, what the server adds to a client's frame, and the rest of a group.
const LOG_SEGMENT_BYTES_SPARE: u64 = 2 << 20;

const _: () = assert!(LOG_SEGMENT_BYTES_DEFAULT >= LOG_SEGMENT_BYTES_MIN, "the default is a valid value");
const _: () = assert!(
    crate::base::limits::FRAME_BYTES_MAX as u64 + LOG_SEGMENT_BYTES_SPARE <= LOG_SEGMENT_BYTES_DEFAULT,
    "every allowed jute.maxbuffer fits into a default segment"
);

/// Everything an operator can choose. Field names carry the unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenAddress,
    /// Connections the system may queue before they are accepted; `None` lets the system choose.
    pub listen_backlog: Option<u32>,
    /// Snapshots, superblock, `myid`.
    pub data_dir: PathBuf,
    /// The transaction log.
    pub data_log_dir: PathBuf,
    /// Create missing data directories.
    pub data_dir_autocreate: bool,
    /// From `myid`, or from the only `server.N` line; `None` for a server alone that has neither.
    pub server_id: Option<ServerId>,
    /// The other servers; `None` for a server alone.
    pub ensemble: Option<EnsembleConfig>,
    /// The basic unit of time, which session expiry is rounded up to.
    pub tick_ms: u32,
    /// Shortest session timeout a client can get.
    pub session_timeout_ms_min: i32,
    /// Longest session timeout a client can get.
    pub session_timeout_ms_max: i32,
    /// Largest client frame, bytes (`jute.maxbuffer`).
    pub frame_bytes_max: usize,
    /// Switch TCP keep-alive on for client connections.
    pub client_tcp_keep_alive: bool,
    /// Close a connection that has no session after this long.
    pub sessionless_timeout_ms: u64,
    /// Which four-letter words are answered.
    pub four_letter_words: Whitelist,
    /// `readonlymode.enabled`; for a single server it only puts `isro` on the whitelist.
    pub read_only_mode: bool,
    /// `reconfig` is answered with UNIMPLEMENTED instead of RECONFIGDISABLED.
    pub reconfig_enabled: bool,
    /// TTL nodes can be created.
    pub extended_types: bool,
    /// Hard quotas fail writes.
    pub enforce_quota: bool,
    /// ACLs are stored and not checked.
    pub skip_acl: bool,
    /// The `digest` scheme is offered.
    pub digest_auth: bool,
    /// `user:base64(sha1(user:password))` of the super user.
    pub super_digest: Option<Secret>,
    /// Keep the tree's digest.
    pub tree_digest: bool,
    /// Containers and TTL nodes.
    pub reaper: Reaper,
    /// The transaction log.
    pub log: LogConfig,
    /// Snapshots and their retention.
    pub snapshot: SnapshotConfig,
    /// What a client can make grow.
    pub limits: Limits,
    /// Worker threads for connections; `None` means one per core.
    pub workers: Option<usize>,
    /// Cores do not halt while writes come.
    pub keep_cores_awake: bool,
}

/// The removal of empty containers and of TTL nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaper {
    /// Time between two rounds.
    pub interval_ms: u64,
    /// Deletes per minute at most.
    pub per_minute_max: u32,
    /// A container that never had a child goes after this long; 0 means never.
    pub never_used_ms_max: u64,
}

/// How the active log segment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRegion {
    /// Stores through a mapping, then a flush.
    Mapped,
    /// `pwrite`, then a flush.
    Pwrite,
}

/// The transaction log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How segments are written; `None`: the storage layer's own choice.
    pub region: Option<LogRegion>,
    /// Size of a segment, preallocated in full; a multiple of 4096.
    pub segment_bytes: u64,
    /// A flush that takes longer is logged as a warning.
    pub flush_warning_ms: u64,
}

/// Snapshots and their retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Take one after so many transactions.
    pub every_txns: u64,
    /// Take one after so many bytes of log; `None` means no limit.
    pub every_log_bytes: Option<u64>,
    /// Shortest time between two, ms.
    pub pause_ms: u64,
    /// zstd level, 1 to 19.
    pub zstd_level: i32,
    /// Bytes of a chunk before compression; the tree is held while one is encoded.
    pub chunk_bytes: usize,
    /// `None` keeps everything.
    pub retention: Option<Retention>,
}

/// What is removed, and when. The last verified snapshot and the log behind it never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest snapshots stay.
    pub snapshots_min: usize,
    /// Older ones stay until they are this old; 0 removes them at once.
    pub age_ms_min: u64,
    /// Time between two rounds of removal; a round also follows every snapshot.
    pub interval_ms: u64,
}

/// Everything a client can make grow has a bound here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections in all; `None` means no limit.
    pub connections_max: Option<u32>,
    /// Client connections per address; `None` means no limit.
    pub connections_per_address_max: Option<u32>,
    /// Largest frame before a session is set up.
    pub handshake_bytes_max: usize,
    /// Requests in the server; above it, connections with something outstanding are not read.
    pub requests_outstanding_max: u32,
    /// Requests of one connection that are not answered yet; above it, the connection is not read.
    pub requests_per_connection_max: u32,
    /// Bytes of requests in the server; above it, connections are not read.
    pub inflight_bytes_max: u64,
    /// Bytes of input buffers; above it, the connections with the largest unfinished frames are closed.
    pub input_bytes_max: u64,
    /// Bytes of replies and events that a slow reader may leave waiting before it is disconnected.
    pub outbox_bytes_per_connection_max: u64,
    /// Watches of one connection.
    pub watches_per_connection_max: u32,
    /// Watches in all.
    pub watches_max: u32,
    /// Sessions in all.
    pub sessions_max: u32,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text. Never log it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where to listen: a port, and an address or host name unless all addresses are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// `None` means every address of the machine.
    pub host: Option<String>,
    /// 0 lets the system choose.
    pub port: u16,
}

impl ListenAddress {
    /// Addresses to try, in this order, until one can be bound. Asks the resolver when the host is a name.
    pub fn candidates(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Some(host) => Ok((host.as_str(), self.port).to_socket_addrs()?.collect()),
            // IPv6's "any" takes IPv4 too where the system is set up that way, as Java's does; else IPv4's.
            None => Ok(vec![([0_u16; 8], self.port).into(), ([0_u8; 4], self.port).into()]),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
            None => write!(f, "*:{}", self.port),
        }
    }
}

/// A configuration and what an operator should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// One line each, in the order of the file.
    pub warnings: Vec<Warning>,
}

/// How [`Config::read`] gets at files: the bytes, or `None` when there is no such file.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Option<Vec<u8>>>;

impl Config {
    /// Reads `file` (or takes the defaults without one), applies `-D` flags (`key=value`) on top.
    ///
    /// Without a file: standalone on 127.0.0.1:2181, data in `./zabra-data`. Also reads `dataDir/myid` and, if the file names
    /// one, the dynamic configuration file.
    pub fn load(file: Option<&Path>, flags: &[String]) -> Result<Loaded, ConfigError> {
        Config::read(file, flags, &read_bounded)
    }

    /// [`Config::load`] with the file system passed in.
    pub fn read(file: Option<&Path>, flags: &[String], files: ReadFile<'_>) -> Result<Loaded, ConfigError> {
        build::build(file, flags, files)
    }
}

fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > CONFIG_BYTES_MAX => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 1 MiB: this is no configuration file"))
        }
        Ok(_) => std::fs::read(path).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
