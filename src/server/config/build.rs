//! From checked settings to [`Config`]: defaults, and the rules that tie one key to another.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::ServerId;
use crate::base::limits::FRAME_BYTES_MAX_DEFAULT;
use crate::node::snapshot::CHUNK_BYTES_DEFAULT;

use super::super::fourletter::Whitelist;
use super::ensemble::{self, Place};
use super::problem::{ConfigError, Origin};
use super::servers;
use super::settings::Settings;
use super::{
    Config, LOG_SEGMENT_BYTES_DEFAULT, LOG_SEGMENT_BYTES_MAX, LOG_SEGMENT_BYTES_MIN, LOG_SEGMENT_BYTES_SPARE,
    LOG_SEGMENT_BYTES_STEP, Limits, ListenAddress, Loaded, LogConfig, LogRegion, ReadFile, Reaper, Retention,
    Secret, SnapshotConfig,
};

/// Without a file.
const LISTEN_HOST_DEFAULT: &str = "127.0.0.1";
const LISTEN_PORT_DEFAULT: i64 = 2_181;
const DATA_DIR_DEFAULT: &str = "./zabra-data";

const TICK_MS_DEFAULT: i64 = 3_000;
/// ZooKeeper's is 1,000. Memory is bounded by bytes here (`zabra.limits.inflightBytes`), and a low count would only keep groups
/// of writes small.
const REQUESTS_OUTSTANDING_DEFAULT: u32 = 65_536;
/// ZooKeeper has no limit in all by default; here one address cannot take every file descriptor.
const CONNECTIONS_MAX_DEFAULT: i64 = 10_000;
const CONNECTIONS_PER_ADDRESS_DEFAULT: i64 = 60;
const SNAPSHOTS_KEPT_MIN: usize = 3;
const HOUR_MS: u64 = 3_600_000;

/// See [`Config::read`].
pub(super) fn build(
    file: Option<&Path>,
    flags: &[String],
    files: ReadFile<'_>,
) -> Result<Loaded, ConfigError> {
    let mut settings = Settings::default();
    if let Some(path) = file {
        settings.add_file(path, &required(path, files)?);
    }
    settings.add_flags(flags);
    let config = assemble(&mut settings, file, files)?;
    if settings.problems.is_empty() {
        Ok(Loaded { config, warnings: settings.warnings })
    } else {
        Err(ConfigError::Wrong { problems: settings.problems })
    }
}

/// The bytes of a file that must be there.
pub(super) fn required(path: &Path, files: ReadFile<'_>) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    files(path).map_err(failed)?.ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))
}

fn assemble(s: &mut Settings, file: Option<&Path>, files: ReadFile<'_>) -> Result<Config, ConfigError> {
    let data_dir = data_dir(s, file);
    let my_id = my_id(s, &data_dir, files)?;
    let roster = servers::roster(s, file, files);
    let tick_ms = s.int("tickTime", TICK_MS_DEFAULT);
    let place = ensemble::place(s, &roster, my_id, &data_dir, u32::try_from(tick_ms).unwrap_or(u32::MAX));
    let (session_timeout_ms_min, session_timeout_ms_max) = session_timeouts(s, tick_ms);
    let frame_bytes_max = s.int("jute.maxbuffer", FRAME_BYTES_MAX_DEFAULT as i64) as usize;
    let read_only_mode = s.flag("readonlymode.enabled", false);
    Ok(Config {
        listen: listen(s, file, &place),
        listen_backlog: positive(s.int("clientPortListenBacklog", -1)),
        data_log_dir: s.text("dataLogDir").map_or_else(|| data_dir.clone(), PathBuf::from),
        data_dir,
        data_dir_autocreate: s.flag("datadir.autocreate", true),
        server_id: my_id.or(place.line.map(|line| line.id)),
        ensemble: place.ensemble,
        tick_ms: u32::try_from(tick_ms).unwrap_or(u32::MAX),
        session_timeout_ms_min,
        session_timeout_ms_max,
        frame_bytes_max,
        client_tcp_keep_alive: s.flag("clientTcpKeepAlive", false),
        sessionless_timeout_ms: s.int("nio.sessionlessCnxnTimeout", 10_000).unsigned_abs(),
        four_letter_words: whitelist(s, read_only_mode),
        read_only_mode,
        reconfig_enabled: s.flag("reconfigEnabled", false),
        extended_types: s.flag("extendedTypesEnabled", false),
        enforce_quota: s.flag("enforceQuota", false),
        skip_acl: skip_acl(s),
        digest_auth: s.flag("DigestAuthenticationProvider.enabled", true),
        super_digest: super_digest(s),
        tree_digest: s.flag("digest.enabled", true),
        reaper: reaper(s),
        log: log(s, frame_bytes_max),
        snapshot: snapshot(s),
        limits: limits(s, frame_bytes_max),
        workers: s.text("zabra.workers").map(|_| s.int("zabra.workers", 1).unsigned_abs() as usize),
        keep_cores_awake: s.flag("zabra.keepCoresAwake", false),
    })
}

/// `None` for 0 and less.
fn positive(n: i64) -> Option<u32> {
    u32::try_from(n).ok().filter(|n| *n > 0)
}

fn small(s: &Settings, name: &str, default: u32) -> u32 {
    u32::try_from(s.int(name, default.into())).unwrap_or(u32::MAX)
}

fn data_dir(s: &mut Settings, file: Option<&Path>) -> PathBuf {
    if let Some(path) = file
        && s.text("dataDir").is_none()
        && !s.problems.iter().any(|p| p.key == "dataDir")
    {
        let origin = Origin::File { path: path.to_owned(), line: 0 };
        s.wrong(origin, "dataDir", None, "the directory that the data lies in");
    }
    PathBuf::from(s.text("dataDir").unwrap_or(DATA_DIR_DEFAULT))
}

fn my_id(s: &mut Settings, data_dir: &Path, files: ReadFile<'_>) -> Result<Option<ServerId>, ConfigError> {
    let path = data_dir.join("myid");
    let bytes = files(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    let Some(bytes) = bytes else { return Ok(None) };
    match servers::parse_myid(&bytes) {
        Ok(id) => Ok(Some(id)),
        Err(found) => {
            s.wrong(Origin::File { path, line: 1 }, "myid", Some(&found), "the whole number of this server");
            Ok(None)
        }
    }
}

fn listen(s: &mut Settings, file: Option<&Path>, place: &Place) -> ListenAddress {
    let client = place.line.as_ref().and_then(|line| line.member.client.clone());
    let from_line = client.map(|c| ListenAddress { host: c.host, port: c.port });
    let from_keys = keys_listen(s, file, from_line.is_none() && !place.unclear);
    match (from_line, from_keys) {
        (Some(a), Some(b)) if s.text("clientPort").is_some() && a.port != b.port => {
            let expected = format!("{}, the client port of the server line, or no clientPort at all", a.port);
            s.wrong(s.origin("clientPort"), "clientPort", Some(&b.port.to_string()), &expected);
            a
        }
        (Some(a), _) => a,
        (None, Some(b)) => b,
        (None, None) => ListenAddress { host: None, port: 0 },
    }
}

/// From clientPort and clientPortAddress; complains when a file has neither and `required`.
fn keys_listen(s: &mut Settings, file: Option<&Path>, required: bool) -> Option<ListenAddress> {
    let host = s.text("clientPortAddress").map(str::to_owned);
    if let Some(host) = &host
        && host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && host.parse::<std::net::Ipv4Addr>().is_err()
    {
        let key = "clientPortAddress";
        s.wrong(s.origin(key), key, Some(host), "an address of this machine, or a name");
    }
    let said = s.problems.iter().any(|p| p.key == "clientPort");
    match (s.text("clientPort").is_some(), file) {
        (true, Some(_)) => {}
        (_, None) => {
            let host = host.unwrap_or_else(|| LISTEN_HOST_DEFAULT.to_owned());
            let port = s.int("clientPort", LISTEN_PORT_DEFAULT) as u16;
            return Some(ListenAddress { host: Some(host), port });
        }
        (false, Some(path)) => {
            if (required || host.is_some()) && !said {
                let origin = Origin::File { path: path.to_owned(), line: 0 };
                s.wrong(origin, "clientPort", None, "the port that clients connect to, usually 2181");
            }
            return None;
        }
    }
    Some(ListenAddress { host, port: s.int("clientPort", LISTEN_PORT_DEFAULT) as u16 })
}

fn session_timeouts(s: &mut Settings, tick_ms: i64) -> (i32, i32) {
    let or_ticks = |n: i64, ticks: i64| if n < 0 { tick_ms.saturating_mul(ticks) } else { n };
    let min = or_ticks(s.int("minSessionTimeout", -1), 2);
    let max = or_ticks(s.int("maxSessionTimeout", -1), 20);
    if min > max {
        let (key, found, expected) = match s.text("minSessionTimeout") {
            Some(_) => ("minSessionTimeout", min, format!("at most maxSessionTimeout, which is {max} ms")),
            None => {
                ("maxSessionTimeout", max, format!("at least minSessionTimeout, which is {min} ms (2 ticks)"))
            }
        };
        s.wrong(s.origin(key), key, Some(&found.to_string()), &expected);
    }
    let fit = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    (fit(min), fit(max))
}

fn whitelist(s: &mut Settings, read_only_mode: bool) -> Whitelist {
    let key = "4lw.commands.whitelist";
    let (list, unknown) = Whitelist::parse(s.text(key).unwrap_or_default(), read_only_mode);
    for word in unknown {
        let word: String = word.chars().take(40).collect();
        s.warn(s.origin(key), key, format!("there is no four-letter word {word:?}"));
    }
    list
}

fn skip_acl(s: &mut Settings) -> bool {
    let skip = s.flag("skipACL", false);
    if skip {
        let text = "ACLs are not checked: every client may read and change everything".to_owned();
        s.warn(s.origin("skipACL"), "skipACL", text);
    }
    skip
}

fn super_digest(s: &mut Settings) -> Option<Secret> {
    let key = "DigestAuthenticationProvider.superDigest";
    let text = s.text(key)?.to_owned();
    let halves = text.split_once(':').filter(|(user, hash)| !user.is_empty() && !hash.is_empty());
    if halves.is_none() {
        s.wrong(s.origin(key), key, Some("(hidden)"), "user:base64(sha1(user:password))");
    }
    Some(Secret(text))
}

fn reaper(s: &Settings) -> Reaper {
    Reaper {
        interval_ms: s.int("znode.container.checkIntervalMs", 60_000).unsigned_abs(),
        per_minute_max: small(s, "znode.container.maxPerMinute", 10_000),
        never_used_ms_max: s.int("znode.container.maxNeverUsedIntervalMs", 0).unsigned_abs(),
    }
}

fn log(s: &mut Settings, frame_bytes_max: usize) -> LogConfig {
    let pick = |text: &str| {
        if text.eq_ignore_ascii_case("mapped") { LogRegion::Mapped } else { LogRegion::Pwrite }
    };
    let region = s.text("zabra.log.region").map(pick);
    let flush_warning_ms = s.int("fsync.warningthresholdms", 1_000).unsigned_abs();
    LogConfig { region, segment_bytes: segment_bytes(s, frame_bytes_max), flush_warning_ms }
}

/// `zabra.log.segmentBytes`, else `preAllocSize` brought into range; the largest frame must fit.
fn segment_bytes(s: &mut Settings, frame_bytes_max: usize) -> u64 {
    let needed = frame_bytes_max as u64 + LOG_SEGMENT_BYTES_SPARE;
    let exact = "zabra.log.segmentBytes";
    if s.text(exact).is_some() {
        let bytes = s.int(exact, 0).unsigned_abs();
        if bytes < needed || !bytes.is_multiple_of(LOG_SEGMENT_BYTES_STEP) {
            let step = LOG_SEGMENT_BYTES_STEP;
            let expected =
                format!("a multiple of {step}, {needed} or more so that a frame of jute.maxbuffer fits");
            s.wrong(s.origin(exact), exact, Some(&bytes.to_string()), &expected);
        }
        return bytes;
    }
    let asked = s.int("preAllocSize", (LOG_SEGMENT_BYTES_DEFAULT >> 10) as i64).unsigned_abs() << 10;
    let bytes = asked.clamp(LOG_SEGMENT_BYTES_MIN.max(needed), LOG_SEGMENT_BYTES_MAX);
    let bytes = bytes.next_multiple_of(LOG_SEGMENT_BYTES_STEP);
    if bytes != asked {
        let text = format!("log segments have {} KiB instead of {}", bytes >> 10, asked >> 10);
        s.warn(s.origin("preAllocSize"), "preAllocSize", text);
    }
    bytes
}

/// Pause between two snapshots: at hundreds of thousands of writes per second `snapCount` alone would ask for several per second.
const SNAPSHOT_PAUSE_MS: i64 = 2_000;

fn snapshot(s: &mut Settings) -> SnapshotConfig {
    let kib = s.int("snapSizeLimitInKb", 4 << 20);
    SnapshotConfig {
        every_txns: s.int("snapCount", 100_000).unsigned_abs(),
        every_log_bytes: u64::try_from(kib).ok().filter(|kib| *kib > 0).map(|kib| kib << 10),
        pause_ms: s.int("zabra.snapshot.pauseMs", SNAPSHOT_PAUSE_MS).unsigned_abs(),
        zstd_level: s.int("zabra.snapshot.zstdLevel", 1) as i32,
        chunk_bytes: s.int("zabra.snapshot.chunkBytes", CHUNK_BYTES_DEFAULT as i64).unsigned_abs() as usize,
        retention: retention(s),
    }
}

/// On by default, unlike ZooKeeper's: a disk that fills up stops every write.
fn retention(s: &mut Settings) -> Option<Retention> {
    let (count, interval) = ("autopurge.snapRetainCount", "autopurge.purgeInterval");
    let interval_ms = s.interval_ms(interval).unwrap_or(HOUR_MS);
    if interval_ms == 0 {
        let text =
            "nothing is ever removed: old snapshots and logs fill the disk unless you remove them".to_owned();
        s.warn(s.origin(interval), interval, text);
        return None;
    }
    let asked = s.int(count, SNAPSHOTS_KEPT_MIN as i64).unsigned_abs() as usize;
    if asked < SNAPSHOTS_KEPT_MIN {
        s.warn(s.origin(count), count, format!("{SNAPSHOTS_KEPT_MIN} snapshots are kept, never less"));
    }
    let age_ms_min = s.interval_ms("zabra.snapshot.retainAge").unwrap_or(0);
    Some(Retention { snapshots_min: asked.max(SNAPSHOTS_KEPT_MIN), age_ms_min, interval_ms })
}

fn limits(s: &mut Settings, frame_bytes_max: usize) -> Limits {
    let inflight = "zabra.limits.inflightBytes";
    let inflight_bytes_max = s.int(inflight, 256 << 20).unsigned_abs();
    if inflight_bytes_max < frame_bytes_max as u64 {
        let expected = format!("{frame_bytes_max} (jute.maxbuffer) or more, so that one frame fits");
        s.wrong(s.origin(inflight), inflight, Some(&inflight_bytes_max.to_string()), &expected);
    }
    let input = "zabra.limits.inputBytes";
    let input_bytes_max = s.int(input, 256 << 20).unsigned_abs();
    if input_bytes_max < 2 * frame_bytes_max as u64 {
        let expected =
            format!("{} (twice jute.maxbuffer) or more, so that one frame fits", 2 * frame_bytes_max);
        s.wrong(s.origin(input), input, Some(&input_bytes_max.to_string()), &expected);
    }
    Limits {
        connections_max: positive(s.int("maxCnxns", CONNECTIONS_MAX_DEFAULT)),
        connections_per_address_max: positive(s.int("maxClientCnxns", CONNECTIONS_PER_ADDRESS_DEFAULT)),
        handshake_bytes_max: s.int("zabra.limits.handshakeBytes", 4_096).unsigned_abs() as usize,
        requests_outstanding_max: small(s, "globalOutstandingLimit", REQUESTS_OUTSTANDING_DEFAULT),
        requests_per_connection_max: small(s, "zabra.limits.requestsPerConnection", 4_096),
        inflight_bytes_max,
        input_bytes_max,
        outbox_bytes_per_connection_max: s
            .int("zabra.limits.outboxBytesPerConnection", 64 << 20)
            .unsigned_abs(),
        watches_per_connection_max: small(s, "zabra.limits.watchesPerConnection", 1_000_000),
        watches_max: small(s, "zabra.limits.watches", 20_000_000),
        sessions_max: small(s, "zabra.limits.sessions", 1_000_000),
    }
}
