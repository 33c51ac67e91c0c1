//! From a data directory to a node that may serve: lock, superblock, newest valid snapshot, log, replay.
//!
//! - B1: what was acknowledged is in the tree, or there is an error that names what is missing and where; never a guess.
//! - B2: a snapshot that does not load leaves nothing behind: the next older one starts from an empty tree.
//! - B3: the log must reach from the snapshot to the end without a hole; else the start is refused, and the log is not touched.
//! - B4: a pending truncation or reset removes the snapshots above its target before the log is cut or replaced (rule R3), and its
//!   intent is cleared only after that.
//! - B5: when this returns, the superblock says that there is a log (`generation > 1`) and names no clean stop: from here on the
//!   log grows, and a place written down earlier proves nothing any more.
//! - B6: a member of an ensemble applies nothing that is not known to be committed (rule R4); the log keeps it.
//! - B7: the snapshot of a received state counts from the moment on when the log is being replaced, not before (rule R7).
//! - B8: a node with peers does not stay away because of damage: what is damaged is set aside, and the node begins anew without a vote
//!   ([`crate::storage::superblock::Recall`]).
//!
//! The server and the simulator run this very code. No clock, no thread, no randomness of its own: [`RecoverOptions`] brings the
//! seed, [`RecoverShell`] the threads and somebody to tell. Page: `docs/recovery.md`.

mod dir;
mod error;
mod load;
mod replay;
mod set_aside;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::rng::Rng;
use crate::base::{LogPos, ServerId, Zxid};
use crate::storage::log::{Log, LogOptions, LogReader, RecoveryHints, RecoveryReport};
use crate::storage::snapshot::SnapshotStore;
use crate::storage::superblock::CopyState;
use crate::storage::vfs::{Vfs, create_dir_durable};
use crate::tree::{Tree, TreeOptions};

pub use dir::{AnnounceError, NodeDir, ResetError, TruncateError};
pub use error::{RecoverError, SnapshotFault};
pub(in crate::node) use load::SteppedLoad;
pub use replay::Replay;
pub use set_aside::DAMAGED_PREFIX;

use self::dir::Pending;

/// Where a node's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlaces {
    /// Lock, superblock and snapshots.
    pub data: PathBuf,
    /// Log segments.
    pub log: PathBuf,
}

/// What a start is told.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// The tree to be.
    pub tree: TreeOptions,
    /// The log; its identity is taken from the superblock.
    pub log: LogOptions,
    /// Whose directory it must be.
    pub server_id: ServerId,
    /// How much of the log counts as committed.
    pub replay: Replay,
    /// There are peers that have the same history (B8).
    pub has_peers: bool,
    /// Random and new for every start: identities of a new directory and the log's salts come from it.
    pub seed: u64,
}

/// Runs a job on as many threads as it likes, at least once, and returns when every run has returned.
pub type Parallel<'a> = dyn Fn(&(dyn Fn() + Sync)) + 'a;

/// What the process lends to a start.
pub struct RecoverShell<'a> {
    /// Threads for loading.
    pub parallel: &'a Parallel<'a>,
    /// Is told what is found, from any of those threads.
    pub observe: &'a (dyn Fn(&RecoverEvent<'_>) + Sync),
}

impl std::fmt::Debug for RecoverShell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoverShell")
    }
}

impl RecoverShell<'static> {
    /// One thread, nobody to tell.
    #[must_use]
    pub fn quiet() -> RecoverShell<'static> {
        RecoverShell { parallel: &|job| job(), observe: &|_| () }
    }
}

/// What happens on the way; an operator wants to see some of it.
#[derive(Debug)]
pub enum RecoverEvent<'a> {
    /// The superblock was read.
    Superblock {
        /// What each copy was like.
        copies: &'a [CopyState],
    },
    /// The history is damaged and is set aside: a node with peers gets it again from them (B8).
    SetAside {
        /// What is wrong with it.
        damage: &'a RecoverError,
    },
    /// A pending truncation or reset removed these snapshots first, or one was announced for a reset that never began.
    SnapshotsRemoved {
        /// Of the truncation or reset.
        target: Zxid,
        /// What was removed, newest first.
        zxids: &'a [Zxid],
    },
    /// A snapshot is of no use; an older one is tried.
    SnapshotPassedOver {
        /// The zxid in its name.
        zxid: Zxid,
        /// Why.
        fault: &'a SnapshotFault,
    },
    /// There are snapshots, and none is usable: everything must come from the log.
    NoSnapshotUsable {
        /// How many were tried.
        tried: usize,
    },
    /// A chunk of a snapshot was loaded.
    Loading {
        /// Its number.
        chunk: u32,
        /// How many there are.
        of: u32,
    },
    /// A torn tail was cut off the log: written, but never acknowledged.
    TailCut {
        /// How much.
        bytes: u64,
        /// Where the log ends now.
        pos: LogPos,
    },
    /// A transaction was replayed.
    Replaying {
        /// It.
        zxid: Zxid,
        /// The last one to be applied.
        last: Zxid,
        /// How many so far.
        txns: u64,
    },
}

/// The snapshot a start began from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedSnapshot {
    /// Its zxid.
    pub zxid: Zxid,
    /// Bytes of its file.
    pub file_bytes: u64,
}

/// What a start found and did.
#[derive(Clone, Debug)]
pub struct RecoverSummary {
    /// The snapshot it began from.
    pub snapshot: Option<LoadedSnapshot>,
    /// Snapshots that were passed over because they are of no use.
    pub snapshots_bad: usize,
    /// Transactions replayed from the log.
    pub replayed_txns: u64,
    /// Their bytes.
    pub replayed_bytes: u64,
    /// What opening the log found.
    pub log: RecoveryReport,
}

/// A node's durable parts, ready to go on.
#[derive(Debug)]
pub struct RecoveredNode {
    /// The state: all of the log, or what of it is known to be committed, as was asked ([`Replay`]).
    pub tree: Tree,
    /// Where the state ends; the log may go on.
    pub committed: Zxid,
    /// The open log.
    pub log: Log,
    /// The snapshots.
    pub snapshots: SnapshotStore,
    /// Lock and superblock; the node is this process's until it is dropped.
    pub dir: NodeDir,
    /// What was found and done.
    pub summary: RecoverSummary,
}

/// Recovers the node whose files lie in `places`, or makes a new one where there is nothing.
///
/// # Errors
/// See [`RecoverError`]: each says where, and what to do. After an error nobody may serve; the lock is given back.
pub fn recover(
    vfs: &Arc<dyn Vfs>,
    places: &NodePlaces,
    options: &RecoverOptions,
    shell: &RecoverShell<'_>,
) -> Result<RecoveredNode, RecoverError> {
    let fail = |source| RecoverError::Directory { path: places.data.clone(), source };
    create_dir_durable(&**vfs, &places.data).map_err(fail)?;
    let mut seeds = Rng::new(options.seed);
    let mut dir = NodeDir::open(&**vfs, places, options, &mut seeds, shell)?;
    // A snapshot that cannot be read now may be what is missing.
    let doubt = AtomicBool::new(false);
    let observe = |event: &RecoverEvent<'_>| {
        if matches!(event, RecoverEvent::SnapshotPassedOver { fault, .. } if !fault.is_damage()) {
            doubt.store(true, Ordering::Relaxed);
        }
        (shell.observe)(event);
    };
    let watching = RecoverShell { parallel: shell.parallel, observe: &observe };
    match recover_history(vfs, places, options, &watching, &mut dir, seeds.next_u64()) {
        Err(damage) if options.has_peers && damage.is_damage() && !doubt.load(Ordering::Relaxed) => {
            (shell.observe)(&RecoverEvent::SetAside { damage: &damage });
            dir.lose_history(&**vfs, places)?;
            recover_history(vfs, places, options, shell, &mut dir, seeds.next_u64())
        }
        other => other,
    }
    .map(|history| history.into_node(dir))
}

/// All of a [`RecoveredNode`] but its directory.
struct History {
    tree: Tree,
    log: Log,
    snapshots: SnapshotStore,
    summary: RecoverSummary,
}

impl History {
    fn into_node(self, dir: NodeDir) -> RecoveredNode {
        let History { tree, log, snapshots, summary } = self;
        RecoveredNode { committed: tree.applied(), tree, log, snapshots, dir, summary }
    }
}

fn recover_history(
    vfs: &Arc<dyn Vfs>,
    places: &NodePlaces,
    options: &RecoverOptions,
    shell: &RecoverShell<'_>,
    dir: &mut NodeDir,
    salt: u64,
) -> Result<History, RecoverError> {
    let snapshots = SnapshotStore::open(Arc::clone(vfs), &places.data)
        .map_err(|source| RecoverError::Snapshots { dir: places.data.clone(), source })?;
    remove_snapshots(dir, &snapshots, places, shell)?;
    let load::Loaded { mut tree, snapshot, bad } =
        load::newest(&snapshots, places, options.tree, None, shell)?;
    let (log, report) = open_log(vfs, places, options, dir, tree.applied(), salt)?;
    if report.bytes_cut > 0 {
        (shell.observe)(&RecoverEvent::TailCut { bytes: report.bytes_cut, pos: report.end });
    }
    let until = options.replay.until(tree.applied(), report.last, dir.superblock().committed);
    let replayed = replay::replay(&mut tree, &log.reader, until, places, shell)?;
    dir.log_grows().map_err(|source| RecoverError::superblock(places, source))?;
    assert!(
        options.replay == Replay::Committed || tree.applied() == report.last,
        "replay ends where the log does"
    );
    let summary = RecoverSummary {
        snapshot,
        snapshots_bad: bad,
        replayed_txns: replayed.txns,
        replayed_bytes: replayed.bytes,
        log: report,
    };
    Ok(History { tree, log, snapshots, summary })
}

/// Makes the tree anew while the node runs and holds its directory, from the newest snapshot that holds nothing after `upto` and
/// the durable log behind it: what a node does after its history was cut. The tree ends at the last transaction that is not after
/// `upto`; to be committed, that one must be known to be.
///
/// # Errors
/// As for a start, as far as they concern snapshots and log. Nothing is changed.
pub fn rebuild(
    snapshots: &SnapshotStore,
    reader: &LogReader,
    places: &NodePlaces,
    options: TreeOptions,
    upto: Zxid,
    shell: &RecoverShell<'_>,
) -> Result<Tree, RecoverError> {
    let below = upto.0.checked_add(1).map(Zxid);
    let load::Loaded { mut tree, .. } = load::newest(snapshots, places, options, below, shell)?;
    let log_last = reader.last_zxid();
    check_reach(places, reader.base(), log_last, tree.applied())?;
    replay::replay(&mut tree, reader, upto.min(log_last), places, shell)?;
    Ok(tree)
}

/// Finishes what a pending change began with, and says so.
fn remove_snapshots(
    dir: &NodeDir,
    snapshots: &SnapshotStore,
    places: &NodePlaces,
    shell: &RecoverShell<'_>,
) -> Result<(), RecoverError> {
    let target = match dir.pending() {
        Pending::Nothing => return Ok(()),
        Pending::Truncate(at) | Pending::Reset(at) | Pending::State(at) => at,
    };
    let zxids = dir
        .pending()
        .remove_snapshots(snapshots)
        .map_err(|source| RecoverError::TruncateSnapshots { dir: places.data.clone(), target, source })?;
    if !zxids.is_empty() {
        (shell.observe)(&RecoverEvent::SnapshotsRemoved { target, zxids: &zxids });
    }
    Ok(())
}

fn open_log(
    vfs: &Arc<dyn Vfs>,
    places: &NodePlaces,
    options: &RecoverOptions,
    dir: &NodeDir,
    snapshot: Zxid,
    salt: u64,
) -> Result<(Log, RecoveryReport), RecoverError> {
    let value = dir.superblock();
    if let Pending::Reset(base) = dir.pending()
        && base != snapshot
    {
        return Err(RecoverError::ResetSnapshot { dir: places.data.clone(), base, found: snapshot });
    }
    let log_options = LogOptions { identity: value.node_id, ..options.log };
    let hints = RecoveryHints {
        base: snapshot,
        history: dir.has_history(),
        clean_stop: value.clean_stop,
        pending_truncate: value.truncate_pending,
        pending_reset: value.reset_pending,
        committed: value.committed,
    };
    let (log, report) = Log::open(Arc::clone(vfs), &places.log, log_options, hints, salt)
        .map_err(|source| RecoverError::Log { dir: places.log.clone(), source })?;
    assert_eq!(report.truncated_to, value.truncate_pending, "a pending truncation is finished, or refused");
    assert_eq!(report.reset_to, value.reset_pending, "a pending reset is finished, or refused");
    check_reach(places, report.base, report.last, snapshot)?;
    Ok((log, report))
}

/// B3: from the snapshot to the end of the log without a hole.
fn check_reach(
    places: &NodePlaces,
    log_base: Zxid,
    log_last: Zxid,
    snapshot: Zxid,
) -> Result<(), RecoverError> {
    let dir = || places.log.clone();
    if log_base > snapshot {
        return Err(RecoverError::Gap { dir: dir(), log_base, snapshot });
    }
    if log_last < snapshot {
        return Err(RecoverError::LogBehind { dir: dir(), log_last, snapshot });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
