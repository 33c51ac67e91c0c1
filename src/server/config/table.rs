//! Every key that ZooKeeper 3.9 (and 3.10) or Zabra knows, in one table: what its value looks like and what it does here.
//!
//! - K1: a key is honoured (always, or among several servers), or inert (accepted, one warning line says why it does nothing), or
//!   refused. There is no other kind.
//! - K2: what would make the server less safe than the file asks for is refused, never inert: TLS, required authentication.
//! - K3: names are ZooKeeper's without the prefix `zookeeper.`; a name that ends in `*` stands for a family.
//!
//! `src/docs/compatibility.md` lists the same keys; a test compares the two.

use super::value::Shape;
use crate::node::member::COUNTER_MAX_DEFAULT;
use crate::node::snapshot::CHUNK_BYTES_MAX;

/// Where ZooKeeper itself takes a key from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A key of `zoo.cfg` alone.
    Cfg,
    /// The system property `zookeeper.NAME`, and therefore also `NAME` in `zoo.cfg`.
    Zk,
    /// The system property `NAME`, which `zoo.cfg` cannot set in ZooKeeper.
    Java,
    /// Zabra's own.
    Zabra,
}

/// What a key does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It ends up in [`super::Config`].
    Honoured,
    /// It ends up in [`super::EnsembleConfig`]. A server alone warns that it has no effect, unless the value is `quiet`.
    Ensemble { quiet: &'static str },
    /// Nothing, because `why`. No warning when the value is `quiet`: then the file asks for what happens anyway.
    Inert { quiet: &'static str, why: &'static str },
    /// The start stops, unless the value is `allowed`.
    Refused { allowed: &'static str, why: &'static str },
}

impl Effect {
    /// Does a value of the key end up in the configuration?
    pub(crate) const fn counts(self) -> bool {
        matches!(self, Effect::Honoured | Effect::Ensemble { .. })
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    pub(crate) shape: Shape,
    pub(crate) effect: Effect,
}

impl Key {
    /// The row for a name without the prefix `zookeeper.`.
    pub(crate) fn find(name: &str) -> Option<&'static Key> {
        let exact = KEYS.iter().find(|k| k.name == name);
        exact.or_else(|| KEYS.iter().find(|k| k.family().is_some_and(|f| name.starts_with(f))))
    }

    /// The row of an exact name that this module's callers know to be there.
    pub(crate) fn known(name: &str) -> &'static Key {
        Key::find(name).expect("callers name rows of the table; a test asks for each")
    }

    fn family(&self) -> Option<&'static str> {
        self.name.strip_suffix('*')
    }

    /// The known name that looks most like `name`, if one looks like it at all.
    pub(crate) fn nearest(name: &str) -> Option<&'static str> {
        let name = name.to_ascii_lowercase();
        let close_enough = 1 + name.len() / 4;
        let candidates = KEYS.iter().filter(|k| k.family().is_none());
        let scored = candidates.map(|k| (edits(&name, &k.name.to_ascii_lowercase()), k.name));
        scored.min().filter(|(distance, _)| *distance <= close_enough).map(|(_, name)| name)
    }
}

/// Levenshtein's distance, in bytes. A name from a file may be long: the caller's comparison is bounded by the known name.
fn edits(a: &str, b: &str) -> usize {
    if a.len() > b.len() * 2 + 8 {
        return a.len();
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

const fn honoured(scope: Scope, name: &'static str, shape: Shape) -> Key {
    Key { name, scope, shape, effect: Effect::Honoured }
}

const FIVE_ATTEMPTS: &str =
    "a leader that cannot be reached in five attempts, 10 to 200 ms apart, is given up";
const AT_ONCE: &str = "observers look for a leader at once";

/// Honoured among several servers.
const fn ensemble(quiet: &'static str, scope: Scope, name: &'static str, shape: Shape) -> Key {
    Key { name, scope, shape, effect: Effect::Ensemble { quiet } }
}

const fn inert(scope: Scope, name: &'static str, shape: Shape, why: &'static str) -> Key {
    Key { name, scope, shape, effect: Effect::Inert { quiet: "", why } }
}

const fn inert_unless(
    quiet: &'static str,
    scope: Scope,
    name: &'static str,
    shape: Shape,
    why: &'static str,
) -> Key {
    Key { name, scope, shape, effect: Effect::Inert { quiet, why } }
}

const fn refused(
    allowed: &'static str,
    scope: Scope,
    name: &'static str,
    shape: Shape,
    why: &'static str,
) -> Key {
    Key { name, scope, shape, effect: Effect::Refused { allowed, why } }
}

use Scope::{Cfg, Java, Zabra, Zk};
use Shape::{Bool, Filled, Int, Interval, OneOf, Real, Text, YesNo};

const I32: i64 = i32::MAX as i64;
const PORT: Shape = Int(0, 65_535, "port");
const COUNT: Shape = Int(0, I32, "count");
const MS: Shape = Int(0, I32, "milliseconds");
const ANY: Shape = Int(i32::MIN as i64, I32, "number");

const SOON: Shape = Int(1, I32, "milliseconds");

/// Why a key of [`Effect::Ensemble`] does nothing on a server alone.
pub(crate) const ALONE: &str = "it is about several servers, and this one runs alone";

const ONE_ADDRESS: &str = "several addresses for one server are not there yet";
const NO_PROCESSORS: &str = "requests do not pass through a chain of processors";
const FROM_THE_LOG: &str =
    "a server that is behind gets the log whenever the log reaches back far enough, else a snapshot";
const NO_SYNC_LIMIT: &str = "the number of servers that are brought up to date at a time is not limited";
const NO_OBSERVER_MASTER: &str = "observers connect to the leader; to a follower they cannot yet";
const NEVER_BLOCKS: &str = "sending to a server and closing its connection never wait for it";
const NODELAY: &str = "connections between servers never delay small packets";
const ON_DISK: &str = "an observer keeps on disk what it learns, so that it need not learn it again";
const NO_QUORUM_SASL: &str =
    "SASL is not there yet, and Zabra does not talk without it to servers that a file asks to authenticate";
const NO_NIO: &str = "it tunes Java's network threads, and Zabra has none";
const NO_TLS: &str =
    "TLS is not there yet, and Zabra does not serve in plain text what a file asks to encrypt";
const NO_SASL: &str = "SASL is not there yet";
const NO_ADMIN: &str = "there is no admin HTTP server yet";
const NO_JVM: &str = "there is no JVM to watch";
const NO_THROTTLE: &str = "Zabra bounds requests per connection and bytes in flight instead (zabra.limits.*)";
const ONE_WATCH_TABLE: &str =
    "there is one watch table, and it removes a closed connection's watches at once";
const NO_PATH_STATS: &str = "there are no statistics per path yet";
const GROUPS: &str = "each flush takes whatever waits, so there is nothing to tune";
const NO_METRICS: &str = "there is no metrics exporter yet; mntr has the figures";

/// The table.
pub(crate) const KEYS: &[Key] = &[
    // Basic.
    honoured(Cfg, "dataDir", Filled),
    honoured(Cfg, "dataLogDir", Filled),
    honoured(Zk, "datadir.autocreate", Bool),
    honoured(Cfg, "clientPort", PORT),
    honoured(Cfg, "clientPortAddress", Filled),
    honoured(Cfg, "clientPortListenBacklog", Int(-1, I32, "connections; -1 lets the system choose")),
    refused("", Cfg, "secureClientPort", PORT, NO_TLS),
    refused("", Cfg, "secureClientPortAddress", Filled, NO_TLS),
    honoured(Cfg, "tickTime", Int(1, I32, "milliseconds")),
    honoured(Cfg, "minSessionTimeout", Int(-1, I32, "milliseconds; -1 means 2 ticks")),
    honoured(Cfg, "maxSessionTimeout", Int(-1, I32, "milliseconds; -1 means 20 ticks")),
    honoured(Cfg, "maxClientCnxns", Int(0, I32, "connections per address; 0 means no limit")),
    honoured(Zk, "maxCnxns", Int(0, I32, "connections; 0 means no limit")),
    inert(Zk, "serverCnxnFactory", Text, NO_NIO),
    honoured(Zk, "nio.sessionlessCnxnTimeout", Int(1, I32, "milliseconds")),
    inert(Zk, "nio.numSelectorThreads", COUNT, NO_NIO),
    inert(Zk, "nio.numWorkerThreads", COUNT, NO_NIO),
    inert(Zk, "nio.directBufferBytes", COUNT, NO_NIO),
    inert(Zk, "nio.shutdownTimeout", MS, NO_NIO),
    inert(Zk, "netty.advancedFlowControl.enabled", Bool, NO_NIO),
    inert(Zk, "netty.server.outstandingHandshake.limit", ANY, NO_NIO),
    inert(Zk, "netty.server.earlyDropSecureConnectionHandshakes", Bool, NO_NIO),
    honoured(Zk, "clientTcpKeepAlive", Bool),
    honoured(Java, "jute.maxbuffer", Int(1_024, crate::base::limits::FRAME_BYTES_MAX as i64, "bytes")),
    inert(Java, "jute.maxbuffer.extrasize", COUNT, "nothing inside a frame may be longer than the frame"),
    ensemble("false", Cfg, "localSessionsEnabled", Bool),
    ensemble("false", Cfg, "localSessionsUpgradingEnabled", Bool),
    inert(Zk, "maxResponseCacheSize", ANY, "replies are written straight from the tree, without a cache"),
    inert(
        Zk,
        "maxGetChildrenResponseCacheSize",
        ANY,
        "replies are written straight from the tree, without a cache",
    ),
    inert(Zk, "intBufferStartingSizeBytes", COUNT, "buffers are kept and used again, not sized up front"),
    honoured(Java, "readonlymode.enabled", Bool),
    // Cluster.
    honoured(Cfg, "server.*", Filled),
    ensemble("", Cfg, "group.*", Filled),
    ensemble("", Cfg, "weight.*", COUNT),
    honoured(Cfg, "dynamicConfigFile", Filled),
    honoured(Cfg, "standaloneEnabled", Bool),
    honoured(Cfg, "reconfigEnabled", Bool),
    ensemble("", Cfg, "initLimit", ANY),
    ensemble("", Cfg, "syncLimit", ANY),
    inert_unless("0", Cfg, "connectToLearnerMasterLimit", ANY, FIVE_ATTEMPTS),
    inert_unless(
        "3",
        Cfg,
        "electionAlg",
        Int(3, 3, "the only election there is"),
        "there is only one election",
    ),
    ensemble("participant", Cfg, "peerType", OneOf(&["participant", "observer"])),
    ensemble("false", Cfg, "quorumListenOnAllIPs", Bool),
    refused("false", Zk, "multiAddress.enabled", Bool, ONE_ADDRESS),
    inert(Zk, "multiAddress.reachabilityCheckEnabled", Bool, ONE_ADDRESS),
    inert(Zk, "multiAddress.reachabilityCheckTimeoutMs", MS, ONE_ADDRESS),
    inert(Cfg, "quorum.cnxn.threads.size", COUNT, "no threads wait for connections between servers"),
    ensemble("", Zk, "cnxTimeout", SOON),
    ensemble("", Zk, "quorumCnxnTimeoutMs", ANY),
    ensemble("", Zk, "electionPortBindRetry", COUNT),
    ensemble("", Zk, "fastleader.minNotificationInterval", SOON),
    ensemble("", Zk, "fastleader.maxNotificationInterval", SOON),
    ensemble("yes", Zk, "leaderServes", YesNo),
    inert_unless(
        "-1",
        Zk,
        "leader.maxTimeToWaitForEpoch",
        ANY,
        "a leader waits initLimit ticks for its followers",
    ),
    inert(Zk, "leader.ackLoggingFrequency", COUNT, "acknowledgements are not logged one by one"),
    inert(Zk, "leader.maxConcurrentSnapSyncs", COUNT, NO_SYNC_LIMIT),
    inert(Zk, "leader.maxConcurrentDiffSyncs", COUNT, NO_SYNC_LIMIT),
    inert(Zk, "leaderConnectDelayDuringRetryMs", MS, FIVE_ATTEMPTS),
    inert(Zk, "learner.asyncSending", Bool, NEVER_BLOCKS),
    inert(Zk, "learner.closeSocketAsync", Bool, NEVER_BLOCKS),
    inert(Zk, "leader.closeSocketAsync", Bool, NEVER_BLOCKS),
    inert_unless("true", Zk, "tcpKeepAlive", Bool, "connections between servers always have keep-alive"),
    inert_unless("true", Java, "leader.nodelay", Bool, NODELAY),
    inert_unless("true", Java, "follower.nodelay", Bool, NODELAY),
    inert(
        Zk,
        "commitProcessor.numWorkerThreads",
        COUNT,
        "a connection serves its own reads; there is no commit processor",
    ),
    inert(
        Zk,
        "commitProcessor.maxReadBatchSize",
        ANY,
        "a connection serves its own reads; there is no commit processor",
    ),
    inert(
        Zk,
        "commitProcessor.maxCommitBatchSize",
        ANY,
        "a connection serves its own reads; there is no commit processor",
    ),
    inert(
        Zk,
        "commitProcessor.shutdownTimeout",
        MS,
        "a connection serves its own reads; there is no commit processor",
    ),
    inert(Zk, "follower.skipLearnerRequestToNextProcessor", Bool, NO_PROCESSORS),
    inert(Zk, "forward_learner_requests_to_commit_processor_disabled", Bool, NO_PROCESSORS),
    inert(Cfg, "oraclePath", Text, "a leader needs a quorum of servers; nothing else stands in for one"),
    inert_unless("false", Cfg, "jvm.pause.monitor", Bool, NO_JVM),
    inert(Cfg, "jvm.pause.sleep.time.ms", MS, NO_JVM),
    inert(Cfg, "jvm.pause.warn-threshold.ms", MS, NO_JVM),
    inert(Cfg, "jvm.pause.info-threshold.ms", MS, NO_JVM),
    // Log and snapshots.
    honoured(Zk, "snapCount", Int(2, I32, "transactions")),
    honoured(Zk, "snapSizeLimitInKb", Int(-1, i64::MAX / 1_024, "KiB; 0 or less means no limit")),
    honoured(Zk, "preAllocSize", Int(1, 4 << 20, "KiB")),
    inert_unless(
        "-1",
        Zk,
        "txnLogSizeLimitInKb",
        Int(-1, i64::MAX, "KiB"),
        "log segments have a fixed size (preAllocSize)",
    ),
    inert(Zk, "commitLogCount", COUNT, FROM_THE_LOG),
    inert(Zk, "snapshotSizeFactor", Real, FROM_THE_LOG),
    inert_unless(
        "yes",
        Zk,
        "forceSync",
        YesNo,
        "every write is flushed before it is acknowledged; that cannot be turned off",
    ),
    honoured(Zk, "fsync.warningthresholdms", MS),
    inert(Zk, "flushDelay", ANY, GROUPS),
    inert(Zk, "maxWriteQueuePollTime", ANY, GROUPS),
    inert(Zk, "maxBatchSize", COUNT, GROUPS),
    honoured(Cfg, "autopurge.snapRetainCount", Int(0, I32, "snapshots; less than 3 counts as 3")),
    honoured(Cfg, "autopurge.purgeInterval", Interval),
    inert(
        Zk,
        "snapshot.compression.method",
        OneOf(&["", "gz", "snappy"]),
        "snapshots are always compressed with zstd (zabra.snapshot.zstdLevel)",
    ),
    inert_unless(
        "false",
        Zk,
        "snapshot.trust.empty",
        Bool,
        "it is for upgrades of ZooKeeper's own files, which Zabra does not read",
    ),
    refused("true", Zk, "db.autocreate", Bool, "a server without data starts with an empty tree"),
    honoured(Zk, "digest.enabled", Bool),
    inert_unless(
        "true",
        Zk,
        "closeSessionTxn.enabled",
        Bool,
        "the end of a session is always logged with its ephemeral nodes",
    ),
    inert_unless(
        "true",
        Zk,
        "serializeLastProcessedZxid.enabled",
        Bool,
        "a snapshot always carries its zxid",
    ),
    inert_unless("true", Zk, "syncEnabled", Bool, ON_DISK),
    inert_unless("true", Zk, "observer.syncEnabled", Bool, ON_DISK),
    inert_unless("false", Zk, "forceSnapshotSync", Bool, FROM_THE_LOG),
    // Limits and throttling.
    honoured(Zk, "globalOutstandingLimit", Int(1, I32, "requests")),
    inert(
        Zk,
        "largeRequestMaxBytes",
        ANY,
        "all requests count against zabra.limits.inflightBytes, not only large ones",
    ),
    inert(
        Zk,
        "largeRequestThreshold",
        ANY,
        "all requests count against zabra.limits.inflightBytes, not only large ones",
    ),
    inert_unless("0", Zk, "request_throttle_max_requests", COUNT, NO_THROTTLE),
    inert(Zk, "request_throttle_stall_time", MS, NO_THROTTLE),
    inert(Zk, "request_throttle_drop_stale", Bool, NO_THROTTLE),
    inert(Zk, "request_stale_latency_check", Bool, NO_THROTTLE),
    inert(Zk, "request_stale_connection_check", Bool, NO_THROTTLE),
    inert(Zk, "request_throttler.shutdownTimeout", MS, NO_THROTTLE),
    inert_unless("0", Zk, "throttled_op_wait_time", COUNT, NO_THROTTLE),
    inert_unless("0", Zk, "connection_throttle_tokens", COUNT, NO_THROTTLE),
    inert(Zk, "connection_throttle_fill_time", COUNT, NO_THROTTLE),
    inert(Zk, "connection_throttle_fill_count", COUNT, NO_THROTTLE),
    inert(Zk, "connection_throttle_freeze_time", ANY, NO_THROTTLE),
    inert(Zk, "connection_throttle_drop_increase", Real, NO_THROTTLE),
    inert(Zk, "connection_throttle_drop_decrease", Real, NO_THROTTLE),
    inert(Zk, "connection_throttle_decrease_ratio", Real, NO_THROTTLE),
    inert(Zk, "connection_throttle_weight_enabled", Bool, NO_THROTTLE),
    inert(Zk, "connection_throttle_global_session_weight", COUNT, NO_THROTTLE),
    inert(Zk, "connection_throttle_local_session_weight", COUNT, NO_THROTTLE),
    inert(Zk, "connection_throttle_renew_session_weight", COUNT, NO_THROTTLE),
    inert(Zk, "watchManagerName", Text, ONE_WATCH_TABLE),
    inert(Zk, "watcherCleanThreshold", COUNT, ONE_WATCH_TABLE),
    inert(Zk, "watcherCleanIntervalInSeconds", COUNT, ONE_WATCH_TABLE),
    inert(Zk, "watcherCleanThreadsNum", COUNT, ONE_WATCH_TABLE),
    inert(Zk, "maxInProcessingDeadWatchers", ANY, ONE_WATCH_TABLE),
    inert(Zk, "bitHashCacheSize", COUNT, ONE_WATCH_TABLE),
    honoured(Zk, "enforceQuota", Bool),
    inert_unless("false", Zk, "pathStats.enabled", Bool, NO_PATH_STATS),
    inert(Zk, "pathStats.*", Text, NO_PATH_STATS),
    inert(Zk, "messageTracker.*", Text, "messages between servers are not recorded"),
    // TLS.
    refused("false", Cfg, "sslQuorum", Bool, NO_TLS),
    refused("false", Cfg, "portUnification", Bool, NO_TLS),
    inert_unless("false", Cfg, "sslQuorumReloadCertFiles", Bool, "it is about TLS, which is not there yet"),
    refused("false", Zk, "client.portUnification", Bool, NO_TLS),
    refused("false", Zk, "client.certReload", Bool, NO_TLS),
    inert(Zk, "fips-mode", Bool, "it is about TLS, which is not there yet"),
    refused("", Zk, "ssl.*", Text, NO_TLS),
    // SASL, ACLs, other authentication.
    inert(Zk, "sasl.*", Text, NO_SASL),
    inert(Java, "java.security.auth.login.config", Text, NO_SASL),
    inert(Java, "java.security.krb5.conf", Text, NO_SASL),
    inert(
        Zk,
        "authProvider.*",
        Text,
        "schemes are built in (world, auth, digest, ip, super); Java classes cannot be loaded",
    ),
    honoured(Zk, "DigestAuthenticationProvider.enabled", Bool),
    honoured(Zk, "DigestAuthenticationProvider.superDigest", Filled),
    honoured(Zk, "DigestAuthenticationProvider.digestAlg", OneOf(&["SHA1", "SHA-1"])),
    inert(
        Zk,
        "IPAuthenticationProvider.usexforwardedfor",
        Bool,
        "an address is taken from the connection only",
    ),
    inert(Zk, "X509AuthenticationProvider.superUser", Text, "x509 is not there yet"),
    inert(Zk, "superUser", Text, NO_SASL),
    inert(Zk, "superUser.*", Text, NO_SASL),
    inert(Zk, "SASLAuthenticationProvider.superPassword", Text, NO_SASL),
    inert(Zk, "letAnySaslUserDoX", Text, NO_SASL),
    inert(Zk, "ensembleAuthName", Text, "the scheme `ensemble` is not there yet"),
    refused("false", Zk, "sessionRequireClientSASLAuth", Bool, NO_SASL),
    refused(
        "false",
        Zk,
        "enforce.auth.enabled",
        Bool,
        "required authentication is not there yet, and Zabra does not serve without it what a file asks to protect",
    ),
    inert(Zk, "enforce.auth.schemes", Text, "required authentication is not there yet"),
    inert(Zk, "allowSaslFailedClients", Bool, NO_SASL),
    inert(Zk, "kerberos.*", Text, NO_SASL),
    inert(Zk, "security.auth_to_local", Text, NO_SASL),
    inert(Zk, "server.realm", Text, NO_SASL),
    inert(Zk, "server.principal", Text, NO_SASL),
    inert(Zk, "requireKerberosConfig", Text, NO_SASL),
    honoured(Zk, "skipACL", YesNo),
    inert_unless(
        "false",
        Zk,
        "enableEagerACLCheck",
        Bool,
        "ACLs are checked where a write gets its place in the order, and nowhere else",
    ),
    refused("false", Cfg, "quorum.auth.enableSasl", Bool, NO_QUORUM_SASL),
    refused("false", Cfg, "quorum.auth.learnerRequireSasl", Bool, NO_QUORUM_SASL),
    refused("false", Cfg, "quorum.auth.serverRequireSasl", Bool, NO_QUORUM_SASL),
    inert(Cfg, "quorum.auth.*", Text, NO_SASL),
    // Containers and TTL.
    honoured(Java, "znode.container.checkIntervalMs", Int(1, I32, "milliseconds")),
    honoured(Java, "znode.container.maxPerMinute", Int(1, I32, "nodes per minute")),
    honoured(Java, "znode.container.maxNeverUsedIntervalMs", Int(0, i64::MAX, "milliseconds; 0 means never")),
    honoured(Zk, "extendedTypesEnabled", Bool),
    inert_unless("false", Zk, "emulate353TTLNodes", Bool, "there is no data of ZooKeeper 3.5.3 to read"),
    // Observers.
    inert_unless("0", Cfg, "observerMasterPort", ANY, NO_OBSERVER_MASTER),
    inert(Zk, "observerMaster.sizeLimit", COUNT, NO_OBSERVER_MASTER),
    inert_unless("0", Zk, "observer.reconnectDelayMs", MS, AT_ONCE),
    inert(Zk, "observer.election.DelayMs", MS, AT_ONCE),
    // Metrics, admin, audit.
    inert_unless(
        "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider",
        Cfg,
        "metricsProvider.className",
        Text,
        NO_METRICS,
    ),
    inert(Cfg, "metricsProvider.*", Text, NO_METRICS),
    inert_unless("false", Zk, "admin.enableServer", Bool, NO_ADMIN),
    inert(Zk, "admin.*", Text, NO_ADMIN),
    honoured(Zk, "4lw.commands.whitelist", Text),
    inert_unless("false", Zk, "audit.enable", Bool, "there is no audit log yet"),
    inert(Zk, "audit.impl.class", Text, "there is no audit log yet"),
    inert(Zk, "jmx.*", Text, NO_JVM),
    inert(Zk, "log.*", Text, "what is logged is chosen with the environment variable RUST_LOG"),
    inert(Zk, "root.logger", Text, "what is logged is chosen with the environment variable RUST_LOG"),
    // Zabra's own.
    ensemble("", Zabra, "zabra.liveness.timeoutMs", Int(0, I32, "milliseconds; 0 switches it off")),
    ensemble("", Zabra, "zabra.liveness.probeMs", SOON),
    ensemble("", Zabra, "zabra.zxid.counterMax", Int(1_000, COUNTER_MAX_DEFAULT as i64, "transactions")),
    honoured(Zabra, "zabra.workers", Int(1, 1_024, "threads")),
    honoured(Zabra, "zabra.keepCoresAwake", Bool),
    honoured(Zabra, "zabra.log.region", OneOf(&["pwrite", "mapped"])),
    honoured(
        Zabra,
        "zabra.log.segmentBytes",
        Int(super::LOG_SEGMENT_BYTES_MIN as i64, super::LOG_SEGMENT_BYTES_MAX as i64, "bytes"),
    ),
    honoured(Zabra, "zabra.snapshot.zstdLevel", Int(1, 19, "zstd level")),
    honoured(Zabra, "zabra.snapshot.chunkBytes", Int(4_096, CHUNK_BYTES_MAX as i64, "bytes")),
    honoured(Zabra, "zabra.snapshot.pauseMs", MS),
    honoured(Zabra, "zabra.snapshot.retainAge", Interval),
    honoured(Zabra, "zabra.limits.handshakeBytes", Int(64, 1 << 20, "bytes")),
    honoured(Zabra, "zabra.limits.requestsPerConnection", Int(1, I32, "requests")),
    honoured(Zabra, "zabra.limits.inflightBytes", Int(1 << 20, i64::MAX, "bytes")),
    honoured(Zabra, "zabra.limits.inputBytes", Int(1 << 20, i64::MAX, "bytes")),
    honoured(Zabra, "zabra.limits.outboxBytesPerConnection", Int(1 << 20, i64::MAX, "bytes")),
    honoured(Zabra, "zabra.limits.watchesPerConnection", Int(1, I32, "watches")),
    honoured(Zabra, "zabra.limits.watches", Int(1, I32, "watches")),
    honoured(Zabra, "zabra.limits.sessions", Int(1, I32, "sessions")),
];
