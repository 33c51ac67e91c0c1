//! Watches: which connection wants to hear of which path. The words are here, the table in `table`.

mod table;

pub(super) use table::{Table, Watches};

/// How a watch lasts (`AddWatchMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchMode {
    /// Stays after firing.
    Persistent,
    /// Stays, and sees the whole subtree.
    PersistentRecursive,
}

impl WatchMode {
    /// The mode with this number on the wire.
    #[must_use]
    pub const fn from_i32(v: i32) -> Option<WatchMode> {
        match v {
            0 => Some(WatchMode::Persistent),
            1 => Some(WatchMode::PersistentRecursive),
            _ => None,
        }
    }
}

/// Which watches a checkWatches or removeWatches is about (`WatcherType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// One-shot, of getChildren.
    Children,
    /// One-shot, of getData and exists.
    Data,
    /// All.
    Any,
    /// Persistent.
    Persistent,
    /// Persistent and recursive.
    PersistentRecursive,
}

impl WatchKind {
    /// The kind with this number on the wire.
    #[must_use]
    pub const fn from_i32(v: i32) -> Option<WatchKind> {
        match v {
            1 => Some(WatchKind::Children),
            2 => Some(WatchKind::Data),
            3 => Some(WatchKind::Any),
            4 => Some(WatchKind::Persistent),
            5 => Some(WatchKind::PersistentRecursive),
            _ => None,
        }
    }
}

/// How many watches there may be. A watch is a (path, connection) pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// Of one connection.
    pub per_conn_max: usize,
    /// Of all connections.
    pub total_max: usize,
    /// Bytes of all watched paths.
    pub path_bytes_max: usize,
}

impl Default for WatchLimits {
    fn default() -> WatchLimits {
        WatchLimits { per_conn_max: 1 << 20, total_max: 16 << 20, path_bytes_max: 1 << 30 }
    }
}

/// A limit that a new watch would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchLimit {
    /// [`WatchLimits::per_conn_max`].
    #[error("the connection has {max} watches already")]
    PerConn {
        /// The limit.
        max: usize,
    },
    /// [`WatchLimits::total_max`].
    #[error("there are {max} watches already")]
    Total {
        /// The limit.
        max: usize,
    },
    /// [`WatchLimits::path_bytes_max`].
    #[error("watched paths take {max} bytes already")]
    PathBytes {
        /// The limit.
        max: usize,
    },
}

/// What `wchs` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchSummary {
    /// Connections with data or exists watches.
    pub conns: usize,
    /// Paths with data or exists watches.
    pub paths: usize,
    /// (path, connection) pairs.
    pub watches: usize,
}
