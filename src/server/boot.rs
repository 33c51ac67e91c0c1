//! From a data directory to a server that may serve: lock, superblock, newest valid snapshot, log, replay.
//!
//! - B1: nothing is served, and the listening socket is not answered, before everything acknowledged earlier is back.
//! - B2: a snapshot that does not load leaves nothing behind: the next older one starts from an empty tree.
//! - B3: the log must reach from the snapshot to the end without a hole; otherwise the start is refused, and nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use parking_lot::{Mutex, RwLock};

use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::rng::Rng;
use crate::base::{Epoch, LogPos, ServerId, Zxid};
use crate::node::{AuthIds, AuthOptions, Prepare, PrepareOptions};
use crate::server::Shared;
use crate::server::commit::{Commit, CommitLimits, payload_bytes_max};
use crate::server::config::{Config, DataDirState, LogRegion, ZABRA_FOLDER, inspect_data_dirs};
use crate::server::fourletter::TRACE_MASK_DEFAULT;
use crate::server::snapshotter::{SnapshotPolicy, Snapshots};
use crate::server::stats::ServerStats;
use crate::session::{Tracker, first_session_id};
use crate::storage::log::{
    Log, LogOptions, LogReader, RecoveryHints, RecoveryReport, RegionKind, SpareMaker,
};
use crate::storage::snapshot::{SnapshotReader, SnapshotStore};
use crate::storage::superblock::{Superblock, SuperblockStore};
use crate::storage::vfs::{RealVfs, Vfs, VfsLock, create_dir_durable};
use crate::tree::{ChunkKind, Fired, Loader, Tree, TreeOptions, WatchLimits};
use crate::wire::txn::Proposal;

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
}

/// What is needed to stop cleanly, and to hold the directory until then.
#[derive(Debug)]
pub(crate) struct Finish {
    superblock: SuperblockStore,
    _lock: Box<dyn VfsLock>,
}

impl Finish {
    /// Makes everything durable and writes down where the log ends, so that the next start can tell damage from a torn tail.
    pub(crate) fn clean_stop(mut self, shared: &Shared) -> anyhow::Result<()> {
        let end = shared
            .commit
            .flush_all(shared)
            .context("the last flush failed: what was not answered may be lost")?;
        self.store_clean_stop(Some(end))
    }

    fn store_clean_stop(&mut self, clean_stop: Option<LogPos>) -> anyhow::Result<()> {
        let value = Superblock { clean_stop, ..self.superblock.value().clone() };
        self.superblock.store(value).context("cannot write the superblock")
    }
}

/// Where things lie.
struct Places {
    data: PathBuf,
    log: PathBuf,
}

/// Recovers the data directory of `config`.
pub(crate) fn boot(config: Config) -> anyhow::Result<Booted> {
    let started = Instant::now();
    let state = inspect_data_dirs(&config.data_dir, &config.data_log_dir, config.data_dir_autocreate)?;
    let places = Places {
        data: config.data_dir.join(ZABRA_FOLDER),
        log: config.data_log_dir.join(ZABRA_FOLDER).join("log"),
    };
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    create_dir_durable(&*vfs, &places.data).with_context(|| places.data.display().to_string())?;
    let lock = vfs.lock(&places.data.join("lock")).with_context(|| {
        format!("{} is in use by another process, or cannot be locked", places.data.display())
    })?;
    let mut superblock = open_superblock(&*vfs, &places, state, &config)?;
    let seed = random()?;
    let store = SnapshotStore::open(Arc::clone(&vfs), &places.data)?;
    let (mut tree, snapshot) = load_newest(&store, &tree_options(&config, seed))?;
    let (log, report) = open_log(&vfs, &places, &config, &superblock, tree.applied(), seed)?;
    let replay = replay(&mut tree, &log.reader, &report)?;
    let recovered = Recovered {
        zxid: tree.applied(),
        nodes: tree.node_count(),
        snapshot: snapshot.as_ref().map(|info| info.zxid),
        replayed: replay.txns,
        bytes_cut: report.bytes_cut,
        took: started.elapsed(),
    };
    if report.truncated_to.is_some() {
        let value = Superblock { truncate_pending: None, ..superblock.value().clone() };
        superblock.store(value).context("cannot write the superblock")?;
    }
    let mut finish = Finish { superblock, _lock: lock };
    // From here on the log grows: a place written down at the last stop proves nothing any more. Stored in any case, so that from the
    // second store on the superblock says that there is a log.
    finish.store_clean_stop(None)?;
    let policy = SnapshotPolicy {
        txns_min: config.snapshot.every_txns,
        log_bytes_max: config.snapshot.every_log_bytes.unwrap_or(u64::MAX),
    };
    let last_snapshot_bytes = snapshot.map_or(0, |info| info.file_bytes);
    let snapshots = Snapshots::new(policy, replay.txns, replay.bytes, last_snapshot_bytes);
    let Log { appender, flusher, spares, .. } = log;
    let prepare_options = prepare_options(&config, seed, appender.group_bytes_max());
    let prepare = Prepare::new(tree.applied(), tree.digest(), prepare_options.clone());
    let limits = CommitLimits {
        writes_max: config.limits.requests_outstanding_max as usize,
        bytes_max: usize::try_from(config.limits.inflight_bytes_max).unwrap_or(usize::MAX),
    };
    let shared = Arc::new(Shared {
        sessions: Mutex::new(tracker(&config, &tree)),
        commit: Commit::new(limits, prepare, appender, flusher),
        conns: crate::server::registry::Registry::default(),
        stats: ServerStats::new(),
        snapshots,
        prepare_options,
        own_auth: Arc::new(AuthIds::none()),
        unclosed: Mutex::default(),
        node_id: finish.superblock.value().node_id,
        started,
        stop: tokio::sync::watch::Sender::new(false),
        stopped: std::sync::atomic::AtomicBool::new(false),
        failure: Mutex::default(),
        client_port: AtomicU16::new(0),
        trace_mask: AtomicI64::new(TRACE_MASK_DEFAULT),
        tree: RwLock::new(tree),
        config,
    });
    Ok(Booted { shared, recovered, spares, store, finish })
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
    Ok(u64::from_le_bytes(bytes))
}

fn open_superblock(
    vfs: &dyn Vfs,
    places: &Places,
    state: DataDirState,
    config: &Config,
) -> anyhow::Result<SuperblockStore> {
    let server_id = config.server_id.unwrap_or(ServerId(1));
    // The lock file is ours already, so a fresh directory is told by what was there before it was made.
    let data_present = state == DataDirState::Ours && holds_data(vfs, places)?;
    let opened = SuperblockStore::open(vfs, &places.data, data_present)
        .with_context(|| format!("in {}", places.data.display()))?;
    match opened {
        Some((store, copies)) => {
            tracing::debug!(?copies, "superblock read");
            if store.value().server_id != server_id {
                bail!(
                    "{} belongs to server {}, the configuration says {}: correct myid, or use this server's own dataDir",
                    places.data.display(),
                    store.value().server_id.0,
                    server_id.0
                );
            }
            Ok(store)
        }
        None => {
            let value = Superblock {
                node_id: random()?,
                cluster_id: random()?,
                server_id,
                epoch_accepted: Epoch(0),
                epoch_current: Epoch(0),
                truncate_pending: None,
                clean_stop: None,
            };
            Ok(SuperblockStore::format(vfs, &places.data, value)?)
        }
    }
}

/// True when there is a snapshot or a log segment: data that a superblock must belong to.
fn holds_data(vfs: &dyn Vfs, places: &Places) -> anyhow::Result<bool> {
    let is_data = |dir: &Path, prefix: &str| match vfs.list(dir) {
        Ok(names) => Ok(names.iter().any(|name| name.starts_with(prefix))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    Ok(is_data(&places.data, "snapshot.")? || is_data(&places.log, "")?)
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
        ..PrepareOptions::default()
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

// --- Snapshots ---

struct LoadedFrom {
    zxid: Zxid,
    file_bytes: u64,
}

/// The newest snapshot that loads, or an empty tree without any.
fn load_newest(store: &SnapshotStore, options: &TreeOptions) -> anyhow::Result<(Tree, Option<LoadedFrom>)> {
    let mut below = None;
    let mut bad = 0;
    loop {
        let newest = store.newest_valid(below).context("cannot look for snapshots")?;
        for skipped in &newest.skipped {
            bad += 1;
            tracing::error!(zxid = %skipped.zxid, error = %skipped.error, "snapshot passed over");
        }
        let Some(reader) = newest.reader else { break };
        let (zxid, file_bytes) = (reader.info().zxid, reader.info().file_bytes);
        match load(&reader, *options) {
            Ok(tree) => return Ok((tree, Some(LoadedFrom { zxid, file_bytes }))),
            Err(error) => {
                bad += 1;
                tracing::error!(%zxid, error = %format!("{error:#}"), "snapshot does not load; trying an older one");
                below = Some(zxid);
            }
        }
    }
    if bad > 0 {
        tracing::warn!(bad, "no snapshot is usable: everything must come from the log");
    }
    Ok((Tree::new(*options), None))
}

/// Loads all chunks, on as many threads as there are cores.
fn load(reader: &SnapshotReader, options: TreeOptions) -> anyhow::Result<Tree> {
    let loader = Loader::new(options);
    let next = AtomicU32::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let result: anyhow::Result<()> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| load_some(reader, &loader, &next))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("loading bytes never panics"))
    });
    result?;
    Ok(loader.finish()?)
}

fn load_some(reader: &SnapshotReader, loader: &Loader, next: &AtomicU32) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let mut said = Instant::now();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= reader.chunk_count() {
            return Ok(());
        }
        let kind = reader.read_chunk(index, &mut bytes)?;
        let kind = u8::try_from(kind).ok().and_then(ChunkKind::from_u8);
        let kind =
            kind.with_context(|| format!("chunk {index} is of a kind that this version does not know"))?;
        loader.chunk(kind, &bytes).with_context(|| format!("chunk {index}"))?;
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            tracing::info!(chunk = index, of = reader.chunk_count(), "loading the snapshot");
        }
    }
}

// --- Log ---

fn open_log(
    vfs: &Arc<dyn Vfs>,
    places: &Places,
    config: &Config,
    superblock: &SuperblockStore,
    snapshot: Zxid,
    seed: u64,
) -> anyhow::Result<(Log, RecoveryReport)> {
    let value = superblock.value();
    let options = LogOptions {
        segment_bytes: config.log.segment_bytes,
        region: match config.log.region {
            None => RegionKind::default(),
            Some(LogRegion::Mapped) => RegionKind::MappedFdatasync,
            Some(LogRegion::Pwrite) => RegionKind::Pwrite,
        },
        identity: value.node_id,
    };
    let hints = RecoveryHints {
        base: snapshot,
        history: superblock.generation() > 1,
        clean_stop: value.clean_stop,
        pending_truncate: value.truncate_pending,
    };
    let salt = Rng::new(seed).next_u64();
    let (log, report) = Log::open(Arc::clone(vfs), &places.log, options, hints, salt)
        .with_context(|| format!("the transaction log in {}", places.log.display()))?;
    if report.bytes_cut > 0 {
        tracing::warn!(bytes = report.bytes_cut, pos = %report.end, "torn tail cut: written, but never acknowledged");
    }
    if report.base > snapshot {
        bail!(
            "{}: the log starts after {}, the newest usable snapshot ends at {snapshot}: transactions between them are \
             missing; restore a snapshot, or the log segments, from a backup",
            places.log.display(),
            report.base
        );
    }
    if report.last < snapshot {
        bail!(
            "{}: the log ends at {}, before the snapshot at {snapshot}: segments are missing or dataLogDir is not the one \
             that belongs to dataDir",
            places.log.display(),
            report.last
        );
    }
    Ok((log, report))
}

struct Replayed {
    txns: u64,
    bytes: u64,
}

/// Applies what the log holds behind the tree's last transaction.
fn replay(tree: &mut Tree, reader: &LogReader, report: &RecoveryReport) -> anyhow::Result<Replayed> {
    let mut replayed = Replayed { txns: 0, bytes: 0 };
    let mut fired = Fired::default();
    let mut said = Instant::now();
    let mut cursor = reader.after(tree.applied()).context("cannot read the log")?;
    while let Some((zxid, payload)) = cursor.next().context("cannot read the log")? {
        let proposal =
            Proposal::read(payload).with_context(|| format!("transaction {zxid} cannot be decoded"))?;
        tree.apply(&proposal, &mut fired);
        if let Some(mismatch) = fired.digest_mismatch() {
            bail!(
                "transaction {zxid} should give a tree with digest {:x}, it gives {:x}: snapshot and log do not belong together, \
                 or one of them was changed",
                mismatch.expected,
                mismatch.found
            );
        }
        fired.clear();
        replayed.txns += 1;
        replayed.bytes += payload.len() as u64;
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            tracing::info!(%zxid, last = %report.last, txns = replayed.txns, "replaying the log");
        }
    }
    assert_eq!(tree.applied(), report.last, "replay ends where the log does");
    Ok(replayed)
}
