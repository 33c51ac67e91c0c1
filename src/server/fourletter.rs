//! Four-letter words: four ASCII bytes as the first thing on a client connection, answered with text, then closed.
//!
//! - F1: texts are ZooKeeper's, byte for byte where a program reads them; facts come from a [`ServerView`].
//! - F2: nobody can make a word cost much: what depends on how many clients, watches or nodes there are stops at
//!   [`OUTPUT_BYTES_MAX`] and says so (CVE-2017-5637 was `wchp` without a bound), and is walked in short steps that let writers in.
//! - F3: only words on the whitelist are answered; `srvr` always is.
//! - F4: where ZooKeeper prints its version, the version that Zabra is compatible with stands first, in ZooKeeper's form, and
//!   Zabra's own stands where ZooKeeper has its commit hash, so that programs that parse it go on working.

mod mntr;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod view;
mod whitelist;
mod word;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::config::EnsembleConfig;
use super::stats::Extremes;
use crate::wire::quorum_config::{Member, MemberAddress, QuorumConfig};
use text::{Text, java_date, java_double};

pub use view::{
    ClientLine, Environment, Learners, Mode, QuorumFigures, ServerView, SessionGroup, TreeFigures,
    WatchSummary, file_descriptors,
};
pub use whitelist::Whitelist;
pub use word::Word;

/// The ZooKeeper release whose behaviour Zabra follows; `VERSION` says it to people.
pub const COMPATIBLE_WITH: &str = "3.9.5";

/// Zabra's own version.
pub const ZABRA_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Both, for people: what `zabra --version` prints.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (compatible with ZooKeeper 3.9.5)");

/// When this version was released; ZooKeeper prints a build date, and some programs expect one.
const BUILT_ON: &str = "2026-11-21 00:00 UTC";

/// Bytes of the mask that follows `stmk`.
pub const TRACE_MASK_BYTES: usize = 8;

/// ZooKeeper's trace mask at the start: client requests, data requests, sessions, event deliveries (binary 100110010).
pub const TRACE_MASK_DEFAULT: i64 = 0b1_0011_0010;

/// Longest answer: enough for the connections of a full server, little enough to build at once.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// The only `electionAlg` there is.
const ELECTION_ALGORITHM: u8 = 3;

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// `3.9.5-zabra-0.1.0, built on …`.
#[must_use]
pub fn full_version() -> String {
    format!("{COMPATIBLE_WITH}-zabra-{ZABRA_VERSION}, built on {BUILT_ON}")
}

/// Appends the answer to `word`. The connection closes behind it.
///
/// `mask` is what followed a `stmk`; without it, a `stmk` is answered with nothing, as when the client left.
pub fn answer(
    word: Word,
    whitelist: &Whitelist,
    view: &dyn ServerView,
    mask: Option<i64>,
    out: &mut Vec<u8>,
) {
    if word == Word::TelnetClose {
        return;
    }
    let mut text = Text::new(out, OUTPUT_BYTES_MAX);
    if !whitelist.allows(word) {
        text.line(format_args!("{word} is not executed because it is not in the whitelist."));
        return;
    }
    if !view.serving() && word.needs_server() {
        match word {
            Word::Isro => text.put(format_args!("null")),
            Word::Hash => text.put(format_args!("{NOT_SERVING}")),
            _ => text.line(format_args!("{NOT_SERVING}")),
        }
        return;
    }
    run(word, view, mask, &mut text);
}

fn run(word: Word, view: &dyn ServerView, mask: Option<i64>, out: &mut Text<'_>) {
    match word {
        Word::Ruok => out.put(format_args!("imok")),
        Word::Srvr => stat(view, false, out),
        Word::Stat => stat(view, true, out),
        Word::Cons => cons(view, out),
        Word::Conf => conf(view, out),
        Word::Envi => envi(view, out),
        Word::Mntr => mntr::mntr(view, out),
        Word::Dirs => dirs(view, out),
        Word::Dump => dump(view, out),
        Word::Wchs => wchs(view, out),
        Word::Wchc => wchc(view, out),
        Word::Wchp => wchp(view, out),
        Word::Crst => {
            view.reset_connection_stats();
            out.line(format_args!("Connection stats reset."));
        }
        Word::Srst => {
            view.stats().reset();
            out.line(format_args!("Server stats reset."));
        }
        Word::Isro => out.put(format_args!("{}", if view.mode() == Mode::ReadOnly { "ro" } else { "rw" })),
        Word::Gtmk => out.put(format_args!("{}", view.trace_mask())),
        Word::Stmk => {
            if let Some(mask) = mask {
                view.set_trace_mask(mask);
                out.put(format_args!("{mask}"));
            }
        }
        Word::Hash => hash(view, out),
        Word::Memb => member(view, out),
        Word::TelnetClose => {}
    }
}

/// How far this server is: what an administrator compares when something is wrong.
fn member(view: &dyn ServerView, out: &mut Text<'_>) {
    let quorum = view.quorum();
    let mode = if view.serving() { view.mode().name() } else { "looking" };
    out.line(format_args!("state\t{mode}"));
    if let Some(ensemble) = &view.config().ensemble {
        out.line(format_args!("server\t{}", ensemble.me.0));
    }
    if let Some(figures) = &quorum {
        out.line(format_args!("epoch_accepted\t{}", figures.epoch_accepted));
        out.line(format_args!("epoch_current\t{}", figures.epoch_current));
        out.line(format_args!("history\t{}", figures.recall.name()));
        out.line(format_args!("zxid_logged\t{}", figures.appended));
        out.line(format_args!("zxid_committed\t{}", figures.committed));
    }
    out.line(format_args!("zxid_applied\t{}", view.last_zxid()));
}

fn stat(view: &dyn ServerView, with_clients: bool, out: &mut Text<'_>) {
    out.line(format_args!("Zookeeper version: {}", full_version()));
    if view.mode() == Mode::ReadOnly {
        out.line(format_args!("READ-ONLY mode; serving only read-only clients"));
    }
    if with_clients {
        out.line(format_args!("Clients:"));
        view.connections(&mut |client| client_line(client, true, out));
        out.line(format_args!(""));
    }
    // What follows the clients must be there even when they were cut.
    out.reserve_tail();
    let latency = &view.stats().latency_us;
    let (min, max) = extremes_ms(latency);
    out.line(format_args!("Latency min/avg/max: {min}/{}/{max}", mean_ms(latency.mean())));
    let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
    out.line(format_args!("Received: {}", load(&view.stats().packets_received)));
    out.line(format_args!("Sent: {}", load(&view.stats().packets_sent)));
    out.line(format_args!("Connections: {}", view.connection_count()));
    out.line(format_args!("Outstanding: {}", view.outstanding()));
    out.line(format_args!("Zxid: {}", view.last_zxid()));
    out.line(format_args!("Mode: {}", view.mode().name()));
    out.line(format_args!("Node count: {}", view.tree().nodes));
    if view.mode() == Mode::Leader {
        let (last, min, max) = view.stats().proposal_size.get();
        out.line(format_args!("Proposal sizes last/min/max: {last}/{min}/{max}"));
    }
}

/// Smallest and largest in whole milliseconds, as ZooKeeper prints them: the one rounded down, the other up, so that the mean, which
/// has a fraction, lies between them.
fn extremes_ms(latency: &Extremes) -> (u64, u64) {
    (latency.min() / 1_000, latency.max().div_ceil(1_000))
}

/// A mean in microseconds as ZooKeeper prints means: milliseconds, four digits, as a Java double.
fn mean_ms(mean_us: f64) -> String {
    java_double((mean_us / 1_000.0 * 10_000.0).round() / 10_000.0)
}

fn cons(view: &dyn ServerView, out: &mut Text<'_>) {
    view.connections(&mut |client| client_line(client, false, out));
    out.line(format_args!(""));
}

fn client_line(client: &ClientLine, brief: bool, out: &mut Text<'_>) -> ControlFlow<()> {
    let f = &client.figures;
    out.put(format_args!(" /{}[{:x}](queued={}", client.remote, client.interest_ops, f.outstanding));
    out.put(format_args!(",recved={},sent={}", f.received, f.sent));
    if !brief && client.session.0 != 0 {
        out.put(format_args!(",sid={},lop={},est={}", client.session, f.last_op, f.established_ms));
        out.put(format_args!(",to={}", client.session_timeout_ms));
        if f.last_cxid >= 0 {
            out.put(format_args!(",lcxid=0x{:x}", f.last_cxid));
        }
        let [last, min, mean, max] = f.latency_ms;
        out.put(format_args!(",lzxid=0x{:x},lresp={},llat={last}", f.last_zxid, f.last_response_ms));
        out.put(format_args!(",minlat={min},avglat={mean},maxlat={max}"));
    }
    out.line(format_args!(")"));
    out.flow()
}

fn conf(view: &dyn ServerView, out: &mut Text<'_>) {
    let config = view.config();
    let (data_bytes, log_bytes) = view.dir_bytes();
    let port = view.client_port();
    out.line(format_args!("clientPort={port}"));
    out.line(format_args!("secureClientPort=-1"));
    out.line(format_args!("dataDir={}", config.data_dir.display()));
    out.line(format_args!("dataDirSize={data_bytes}"));
    out.line(format_args!("dataLogDir={}", config.data_log_dir.display()));
    out.line(format_args!("dataLogSize={log_bytes}"));
    out.line(format_args!("tickTime={}", config.tick_ms));
    out.line(format_args!("maxClientCnxns={}", config.limits.connections_per_address_max.unwrap_or(0)));
    out.line(format_args!("minSessionTimeout={}", config.session_timeout_ms_min));
    out.line(format_args!("maxSessionTimeout={}", config.session_timeout_ms_max));
    out.line(format_args!("clientPortListenBacklog={}", config.listen_backlog.map_or(-1, i64::from)));
    out.line(format_args!("serverId={}", config.server_id.map_or(0, |id| id.0)));
    if let (Some(ensemble), Some(quorum)) = (&config.ensemble, view.quorum()) {
        conf_of_peer(ensemble, &quorum.config, out);
    }
}

/// What a member of an ensemble adds; the last line has no end, as in ZooKeeper.
fn conf_of_peer(ensemble: &EnsembleConfig, members: &QuorumConfig, out: &mut Text<'_>) {
    let me = members.members().get(&ensemble.me).or_else(|| ensemble.config.members().get(&ensemble.me));
    let ports = |port: fn(&MemberAddress) -> u16| {
        let all: BTreeSet<u16> = me.iter().flat_map(|me| &me.addresses).map(port).collect();
        all.iter().map(u16::to_string).collect::<Vec<_>>().join("|")
    };
    out.line(format_args!("initLimit={}", ensemble.init_limit_ticks));
    out.line(format_args!("syncLimit={}", ensemble.sync_limit_ticks));
    out.line(format_args!("electionAlg={ELECTION_ALGORITHM}"));
    out.line(format_args!("electionPort={}", ports(|address| address.election_port)));
    out.line(format_args!("quorumPort={}", ports(|address| address.quorum_port)));
    out.line(format_args!("peerType={}", u8::from(me.is_some_and(Member::is_observer))));
    out.line(format_args!("membership: "));
    out.put(format_args!("{members}"));
}

/// ZooKeeper's keys, in its order. A program that looks for a Java key finds `<NA>`, which ZooKeeper prints for an unset one.
fn envi(view: &dyn ServerView, out: &mut Text<'_>) {
    let env = view.environment();
    out.line(format_args!("Environment:"));
    out.line(format_args!("zookeeper.version={}", full_version()));
    out.line(format_args!("host.name={}", env.host_name));
    for key in ["version", "vendor", "home", "class.path", "library.path"] {
        out.line(format_args!("java.{key}=<NA>"));
    }
    out.line(format_args!("java.io.tmpdir={}", env.temp_dir));
    out.line(format_args!("java.compiler=<NA>"));
    out.line(format_args!("os.name={}", env.os_name));
    out.line(format_args!("os.arch={}", env.os_arch));
    out.line(format_args!("os.version={}", env.os_version));
    out.line(format_args!("user.name={}", env.user_name));
    out.line(format_args!("user.home={}", env.user_home));
    out.line(format_args!("user.dir={}", env.current_dir));
    for key in ["free", "max", "total"] {
        out.line(format_args!("jvm.memory.{key}=<NA>"));
    }
    out.line(format_args!("zabra.version={ZABRA_VERSION}"));
}

fn dirs(view: &dyn ServerView, out: &mut Text<'_>) {
    let (data_bytes, log_bytes) = view.dir_bytes();
    out.line(format_args!("datadir_size: {data_bytes}"));
    out.line(format_args!("logdir_size: {log_bytes}"));
}

fn dump(view: &dyn ServerView, out: &mut Text<'_>) {
    out.line(format_args!("SessionTracker dump:"));
    let (groups, sessions) = view.session_group_count();
    out.line(format_args!("Session Sets ({groups})/({sessions}):"));
    view.sessions_by_expiry(&mut |group| {
        out.line(format_args!("{} expire at {}:", group.sessions.len(), java_date(group.expires_ms)));
        for session in group.sessions {
            out.line(format_args!("\t{session}"));
        }
        out.flow()
    });
    out.line(format_args!("ephemeral nodes dump:"));
    out.line(format_args!("Sessions with Ephemerals ({}):", view.tree().sessions_with_ephemerals));
    let mut last = None;
    view.ephemerals(&mut |session, path| {
        if last.replace(session) != Some(session) {
            out.line(format_args!("{session}:"));
        }
        out.line(format_args!("\t{path}"));
        out.flow()
    });
    out.line(format_args!("Connections dump:"));
    // ZooKeeper groups connections by when they would be closed for silence; here that follows from the session, so there is one
    // group, without a time.
    let count = view.connection_count();
    out.line(format_args!("Connections Sets ({})/({count}):", usize::from(count > 0)));
    view.connections(&mut |client| {
        out.line(format_args!("\tip: /{} sessionId: {}", client.remote, client.session));
        out.flow()
    });
}

fn wchs(view: &dyn ServerView, out: &mut Text<'_>) {
    let WatchSummary { connections, paths, watches } = view.watch_summary();
    out.line(format_args!("{connections} connections watching {paths} paths"));
    out.put(format_args!("Total watches:{watches}"));
    out.line(format_args!(""));
}

fn wchc(view: &dyn ServerView, out: &mut Text<'_>) {
    let mut last = None;
    view.watches_by_connection(&mut |conn, session, path| {
        if last.replace(conn) != Some(conn) {
            out.line(format_args!("{session}"));
        }
        out.line(format_args!("\t{path}"));
        out.flow()
    });
    out.line(format_args!(""));
}

fn wchp(view: &dyn ServerView, out: &mut Text<'_>) {
    let mut last = String::new();
    let mut first = true;
    view.watches_by_path(&mut |path, session| {
        if std::mem::take(&mut first) || last != path {
            path.clone_into(&mut last);
            out.line(format_args!("{path}"));
        }
        out.line(format_args!("\t{session}"));
        out.flow()
    });
    out.line(format_args!(""));
}

fn hash(view: &dyn ServerView, out: &mut Text<'_>) {
    view.digest_log(&mut |zxid, digest| {
        out.line(format_args!("{:x}: {}", zxid.0, digest as i64));
        out.flow()
    });
}
