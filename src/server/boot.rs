//! From a configuration to a server that may serve: recovery ([`crate::node::recover()`]) with this machine's threads, clock and
//! randomness, and the parts of the server around what it brings back.
//!
//! - B1: nothing is served, and the listening socket is not answered, before everything acknowledged earlier is back.
//! - B2: what recovery refuses, the server refuses with the same words.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16};
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::{Mutex, RwLock};

use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::{ServerId, Zxid};
use crate::node::member::MemberStorage;
use crate::node::recover::{RecoverEvent, RecoverShell};
use crate::node::{
    AuthIds, AuthOptions, NodeDir, NodePlaces, Prepare, PrepareOptions, RecoverOptions, RecoveredNode,
    Replay, recover,
};
use crate::server::Shared;
use crate::server::commit::{Alone, Commit, CommitLimits, Lane, payload_bytes_max};
use crate::server::config::{Config, EnsembleConfig, LOG_FOLDER, LogRegion, ZABRA_FOLDER, inspect_data_dirs};
use crate::server::ensemble::{Ensemble, MemberParts};
use crate::server::fourletter::TRACE_MASK_DEFAULT;
use crate::server::input::InputBudget;
use crate::server::snapshotter::{SnapshotPolicy, Snapshots};
use crate::server::stats::ServerStats;
use crate::session::{Tracker, first_session_id};
use crate::storage::log::{Log, LogOptions, RegionKind, SpareMaker};
use crate::storage::snapshot::SnapshotStore;
use crate::storage::vfs::{RealVfs, Vfs};
use crate::tree::{Tree, TreeOptions, WatchLimits};
use crate::wire::quorum_config::Electorate;

/// What a closeSession payload holds beside the paths: header 32, digest 12, count 4.
const CLOSE_SESSION_BYTES: usize = 48;

/// Work longer than this says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What was found and done at the start.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Last transaction that is in the tree.
    pub zxid: Zxid,
    /// Nodes, as ZooKeeper counts them.
    pub nodes: usize,
    /// The snapshot that recovery started from.
    pub snapshot: Option<Zxid>,
    /// Transactions replayed from the log.
    pub replayed: u64,
    /// Bytes behind the last whole record, never acknowledged, that were cut.
    pub bytes_cut: u64,
    /// How long it took.
    pub took: Duration,
}

/// A server's parts, ready to run.
pub(crate) struct Booted {
    pub(crate) shared: Arc<Shared>,
    pub(crate) recovered: Recovered,
    pub(crate) spares: SpareMaker,
    pub(crate) store: SnapshotStore,
    pub(crate) finish: Finish,
    /// Of a server in an ensemble.
    pub(crate) member: Option<MemberParts>,
}

/// What is needed to stop cleanly, and to hold the directory until then.
#[derive(Debug)]
pub(crate) struct Finish {
    /// `None`: the member has it.
    dir: Option<NodeDir>,
}

impl Finish {
    /// Makes everything durable and writes down where the log ends, so that the next start can tell damage from a torn tail.
    pub(crate) fn clean_stop(mut self, shared: &Shared) -> anyhow::Result<()> {
        let (Some(alone), Some(dir)) = (shared.commit.alone(), &mut self.dir) else { return Ok(()) };
        let end =
            alone.flush_all(shared).context("the last flush failed: what was not answered may be lost")?;
        // Alone, a node is its own quorum: all that is flushed is committed.
        let committed = shared.tree.read().applied();
        dir.clean_stop(end, committed).context("cannot write the superblock")
    }
}

/// Recovers the data directory of `config`.
pub(crate) fn boot(config: Config) -> anyhow::Result<Booted> {
    let started = Instant::now();
    inspect_data_dirs(&config.data_dir, &config.data_log_dir, config.data_dir_autocreate)?;
    let places = NodePlaces {
        data: config.data_dir.join(ZABRA_FOLDER),
        log: config.data_log_dir.join(ZABRA_FOLDER).join(LOG_FOLDER),
    };
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let seed = random()?;
    let progress = Progress::new();
    let shell = RecoverShell { parallel: &on_all_cores, observe: &|event| progress.observe(event) };
    let RecoveredNode { tree, log, snapshots: store, dir, summary, .. } =
        recover(&vfs, &places, &recover_options(&config, seed, random()?), &shell)?;
    let recovered = Recovered {
        zxid: tree.applied(),
        nodes: tree.node_count(),
        snapshot: summary.snapshot.map(|snapshot| snapshot.zxid),
        replayed: summary.replayed_txns,
        bytes_cut: summary.log.bytes_cut,
        took: started.elapsed(),
    };
    let policy = SnapshotPolicy {
        txns_min: config.snapshot.every_txns,
        log_bytes_max: config.snapshot.every_log_bytes.unwrap_or(u64::MAX),
        pause: Duration::from_millis(config.snapshot.pause_ms),
        removal_interval: config.snapshot.retention.map(|keep| Duration::from_millis(keep.interval_ms)),
    };
    let last_snapshot_bytes = summary.snapshot.map_or(0, |snapshot| snapshot.file_bytes);
    let snapshots =
        Snapshots::new(policy, summary.replayed_txns, summary.replayed_bytes, last_snapshot_bytes);
    let Log { appender, flusher, reader, spares } = log;
    let prepare_options = prepare_options(&config, seed, appender.group_bytes_max());
    let node_id = dir.superblock().node_id;
    let ensemble = config.ensemble.clone().map(Ensemble::new);
    let (lane, dir, member) = match &ensemble {
        None => {
            let prepare = Prepare::new(tree.applied(), tree.digest(), prepare_options.clone());
            (Lane::Alone(Box::new(Alone::new(prepare, appender, flusher))), Some(dir), None)
        }
        Some(ensemble) => {
            let storage = MemberStorage { appender, flusher, reader, dir, snapshots: store.clone() };
            let tree_options = tree_options(&config, seed);
            let parts = MemberParts { storage, applied: tree.applied(), tree_options };
            (Lane::Member(Arc::clone(&ensemble.notify)), None, Some(parts))
        }
    };
    let limits = CommitLimits {
        writes_max: config.limits.requests_outstanding_max as usize,
        bytes_max: usize::try_from(config.limits.inflight_bytes_max).unwrap_or(usize::MAX),
    };
    let shared = Arc::new(Shared {
        sessions: Mutex::new(tracker(&config, &tree)),
        commit: Commit::new(limits, lane),
        ensemble,
        conns: crate::server::registry::Registry::default(),
        input: InputBudget::new(usize::try_from(config.limits.input_bytes_max).unwrap_or(usize::MAX)),
        stats: ServerStats::new(),
        snapshots,
        prepare_options,
        own_auth: AuthIds::none(),
        unclosed: Mutex::default(),
        node_id,
        // Not before recovery: sessions have their whole timeout from now.
        started: Instant::now(),
        stop: tokio::sync::watch::Sender::new(false),
        stopped: std::sync::atomic::AtomicBool::new(false),
        failure: Mutex::default(),
        client_port: AtomicU16::new(0),
        trace_mask: AtomicI64::new(TRACE_MASK_DEFAULT),
        tree: RwLock::new(tree),
        config,
    });
    Ok(Booted { shared, recovered, spares, store, finish: Finish { dir }, member })
}

/// From the system, for what others must not guess, or must not draw as well.
pub(crate) fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// `identity` is apart from `seed`, which keeps hash tables unpredictable: the node's identity can be read in its files.
fn recover_options(config: &Config, seed: u64, identity: u64) -> RecoverOptions {
    RecoverOptions {
        tree: tree_options(config, seed),
        log: LogOptions {
            segment_bytes: config.log.segment_bytes,
            region: match config.log.region {
                None => RegionKind::default(),
                Some(LogRegion::Mapped) => RegionKind::MappedFdatasync,
                Some(LogRegion::Pwrite) => RegionKind::Pwrite,
            },
            ..LogOptions::default()
        },
        server_id: config.server_id.unwrap_or(ServerId(1)),
        // A member applies its tail when a leader has vouched for it (rule R4).
        replay: if config.ensemble.is_some() { Replay::Committed } else { Replay::All },
        has_peers: config.ensemble.as_ref().is_some_and(has_other_voters),
        seed: identity,
    }
}

/// Somebody else votes: then what this server loses, others have.
fn has_other_voters(ensemble: &EnsembleConfig) -> bool {
    let electorate = Electorate::new(Arc::clone(&ensemble.config), None);
    electorate.voters().into_iter().any(|id| id != ensemble.me)
}

fn tree_options(config: &Config, seed: u64) -> TreeOptions {
    TreeOptions {
        seed,
        extended_types: config.extended_types,
        watches: WatchLimits {
            per_conn_max: config.limits.watches_per_connection_max as usize,
            total_max: config.limits.watches_max as usize,
            ..WatchLimits::default()
        },
        ..TreeOptions::default()
    }
}

fn prepare_options(config: &Config, seed: u64, group_bytes_max: u64) -> PrepareOptions {
    // Twice the frame, as ZooKeeper's followers take it, where the log's segments allow it.
    let payload_bytes_max =
        (2 * config.frame_bytes_max).min(PAYLOAD_BYTES_MAX).min(payload_bytes_max(group_bytes_max));
    PrepareOptions {
        auth: AuthOptions {
            skip_acl: config.skip_acl,
            digest_enabled: config.digest_auth,
            super_digest: config.super_digest.as_ref().map(|secret| secret.reveal().to_owned()),
        },
        extended_types: config.extended_types,
        enforce_quota: config.enforce_quota,
        reconfig_enabled: config.reconfig_enabled,
        digest: config.tree_digest,
        payload_bytes_max,
        // closeSession lists them all in one payload that a client with the same limit can read.
        ephemeral_bytes_max: config
            .frame_bytes_max
            .min(payload_bytes_max)
            .saturating_sub(CLOSE_SESSION_BYTES),
        seed,
    }
}

fn tracker(config: &Config, tree: &Tree) -> Tracker {
    let clock_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let server_id = config.server_id.map_or(1, |id| id.0);
    let mut tracker = Tracker::new(config.tick_ms, first_session_id(server_id, clock_ms));
    for (session, timeout_ms) in tree.sessions() {
        tracker.restore(session, timeout_ms, crate::base::MonoMs(0));
    }
    tracker
}

/// Runs `job` once per core.
fn on_all_cores(job: &(dyn Fn() + Sync)) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(job))));
}

/// Tells the operator what recovery finds; of its progress, only now and then.
struct Progress {
    said: Mutex<Instant>,
}

impl Progress {
    fn new() -> Progress {
        Progress { said: Mutex::new(Instant::now()) }
    }

    fn observe(&self, event: &RecoverEvent<'_>) {
        match event {
            RecoverEvent::Superblock { copies } => tracing::debug!(?copies, "superblock read"),
            RecoverEvent::SetAside { damage } => {
                tracing::error!(
                    %damage,
                    "what this server has is damaged: it is set aside (damaged.*) and fetched from the others; this server has no vote before"
                );
            }
            RecoverEvent::SnapshotsRemoved { target, zxids } => {
                tracing::warn!(zxid = %target, ?zxids, "snapshots behind a pending truncation removed");
            }
            RecoverEvent::SnapshotPassedOver { zxid, fault } => {
                tracing::error!(%zxid, error = %fault, "snapshot does not load; trying an older one");
            }
            RecoverEvent::NoSnapshotUsable { tried } => {
                tracing::warn!(tried, "no snapshot is usable: everything must come from the log");
            }
            RecoverEvent::TailCut { bytes, pos } => {
                tracing::warn!(bytes, %pos, "torn tail cut: written, but never acknowledged");
            }
            RecoverEvent::Loading { chunk, of } if self.is_time() => {
                tracing::info!(chunk, of, "loading the snapshot");
            }
            RecoverEvent::Replaying { zxid, last, txns } if self.is_time() => {
                tracing::info!(%zxid, %last, txns, "replaying the log");
            }
            RecoverEvent::Loading { .. } | RecoverEvent::Replaying { .. } => {}
        }
    }

    fn is_time(&self) -> bool {
        let mut said = self.said.lock();
        let is_time = said.elapsed() > PROGRESS_EVERY;
        if is_time {
            *said = Instant::now();
        }
        is_time
    }
}
