//! The part of a configuration that is about several servers: who they are, which of them this one is, and how they keep time.
//!
//! - S1: the rules are those of ZooKeeper's `QuorumPeerConfig`: several participants, or `standaloneEnabled=false`, make an ensemble; then
//!   `myid` names one of the lines, and `initLimit` and `syncLimit` are there.
//! - S2: what the lines say counts: a role or a client port that another key contradicts is said.

use std::path::Path;
use std::sync::Arc;

use crate::base::ServerId;
use crate::node::member::COUNTER_MAX_DEFAULT;
use crate::wire::election::ANONYMOUS;
use crate::wire::quorum_config::{MemberAddress, QuorumConfig};

use super::ListenAddress;
use super::problem::Origin;
use super::servers::{Roster, ServerLine};
use super::settings::Settings;

const CNX_TIMEOUT_MS: i64 = 5_000;
const BIND_TRIES: u32 = 3;
const NOTIFICATION_MS_MIN: i64 = 200;
const NOTIFICATION_MS_MAX: i64 = 60_000;
const LIVENESS_TIMEOUT_MS: i64 = 800;
const LIVENESS_PROBE_MS: i64 = 100;

/// Largest id that nodes with a TTL leave room for: the byte above it marks them.
const ID_MAX_WITH_TTL: i64 = 254;

/// Ids above it share a byte of their session ids with another server.
const ID_MAX_DISTINCT: i64 = 255;

/// What a member of an ensemble needs to know. `tickTime` is ZooKeeper's unit of time among servers.
#[derive(Clone, Debug, PartialEq)]
pub struct EnsembleConfig {
    /// This server.
    pub me: ServerId,
    /// Everybody, and what a quorum is.
    pub config: Arc<QuorumConfig>,
    /// Length of a tick.
    pub tick_ms: u32,
    /// Ticks that connecting to a leader and catching up may take (`initLimit`).
    pub init_limit_ticks: u32,
    /// Ticks of silence after which a peer is given up (`syncLimit`).
    pub sync_limit_ticks: u32,
    /// Longest wait for a connection to an election port (`cnxTimeout`).
    pub cnx_timeout_ms: u64,
    /// Longest wait for the first message on an election port (`quorumCnxnTimeoutMs`, else `syncLimit`).
    pub handshake_timeout_ms: u64,
    /// Attempts to bind the election port; 0 means for ever (`electionPortBindRetry`).
    pub election_bind_tries: u32,
    /// First wait before everything is said again in an election.
    pub notification_ms_min: u64,
    /// Longest such wait, not shorter than the first.
    pub notification_ms_max: u64,
    /// Quorum and election port are bound on every address of the machine, not only the one in the server line.
    pub listen_on_all_ips: bool,
    /// The leader takes clients.
    pub leader_serves: bool,
    /// Clients may read from a server that has no quorum (`readonlymode.enabled`).
    pub read_only_enabled: bool,
    /// New sessions are local to their server.
    pub local_sessions: bool,
    /// A local session becomes a global one when it creates an ephemeral node.
    pub local_sessions_upgrade: bool,
    /// Silence after which another Zabra server is given up, beside `syncLimit`; `None`: switched off (`zabra.liveness.timeoutMs`).
    pub liveness_timeout_ms: Option<u64>,
    /// Time between two probes (`zabra.liveness.probeMs`).
    pub liveness_probe_ms: u64,
    /// Transactions of one epoch, after which its leader enters the next one (`zabra.zxid.counterMax`).
    pub counter_max: u32,
}

impl EnsembleConfig {
    /// `ticks` in milliseconds.
    #[must_use]
    pub const fn ticks_ms(&self, ticks: u32) -> u64 {
        self.tick_ms as u64 * ticks as u64
    }

    /// Where this server listens for the others: one of the ports in each of its addresses.
    pub(crate) fn listen(&self, port: impl Fn(&MemberAddress) -> u16) -> impl Iterator<Item = ListenAddress> {
        let mine = self.config.members().get(&self.me);
        mine.map(|member| member.addresses.as_slice()).unwrap_or_default().iter().map(move |address| {
            let host = (!self.listen_on_all_ips).then(|| address.host.clone());
            ListenAddress { host, port: port(address) }
        })
    }
}

/// Which server this is.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Its line, if it has one.
    pub(super) line: Option<ServerLine>,
    /// `None` for a server alone.
    pub(super) ensemble: Option<EnsembleConfig>,
    /// The lines say nothing that can be used, which has been said: what follows from them is not complained about.
    pub(super) unclear: bool,
}

/// Decides whether this server runs alone, and finds its line.
pub(super) fn place(
    s: &mut Settings,
    roster: &Roster,
    my_id: Option<ServerId>,
    data_dir: &Path,
    tick_ms: u32,
) -> Place {
    let before = s.problems.len();
    let standalone_enabled = s.flag("standaloneEnabled", true);
    let voters = roster.lines.iter().filter(|line| !line.member.is_observer()).count();
    let place = if voters > 1 || !standalone_enabled {
        among_several(s, roster, my_id, data_dir, tick_ms)
    } else {
        alone(s, roster, my_id)
    };
    if place.ensemble.is_none() {
        s.warn_of_ensemble_keys();
    }
    Place { unclear: s.problems.len() > before, ..place }
}

fn alone(s: &mut Settings, roster: &Roster, my_id: Option<ServerId>) -> Place {
    let mut observers = roster.lines.iter().filter(|line| line.member.is_observer());
    if let Some(line) = observers.next() {
        let expected =
            "two participants or more, or standaloneEnabled=false: a server alone has no observers";
        s.wrong(line.origin.clone(), &line.key, None, expected);
        return Place::default();
    }
    let Some(line) = roster.lines.first() else { return Place::default() };
    if let Some(id) = my_id.filter(|id| *id != line.id) {
        let expected = format!("the number that stands in myid, which is {}, not {}", id.0, line.id.0);
        s.wrong(line.origin.clone(), &line.key, None, &expected);
        return Place::default();
    }
    Place { line: Some(line.clone()), ..Place::default() }
}

fn among_several(
    s: &mut Settings,
    roster: &Roster,
    my_id: Option<ServerId>,
    data_dir: &Path,
    tick_ms: u32,
) -> Place {
    roster.lines.iter().for_each(|line| check_line(s, line));
    let config = quorum_config(s, roster);
    let line = my_line(s, roster, my_id, data_dir);
    let init_limit_ticks = limit(s, "initLimit", roster);
    let sync_limit_ticks = limit(s, "syncLimit", roster);
    let (notification_ms_min, notification_ms_max) = notification_ms(s);
    let (liveness_timeout_ms, liveness_probe_ms) = liveness_ms(s);
    let (Some(config), Some(line), Some(init_limit_ticks), Some(sync_limit_ticks)) =
        (config, line, init_limit_ticks, sync_limit_ticks)
    else {
        return Place::default();
    };
    check_me(s, &line, &config);
    let sync_ms = i64::from(sync_limit_ticks).saturating_mul(tick_ms.into());
    let ms = |name, default| s.int(name, default).unsigned_abs();
    let ensemble = EnsembleConfig {
        me: line.id,
        config: Arc::new(config),
        tick_ms,
        init_limit_ticks,
        sync_limit_ticks,
        cnx_timeout_ms: ms("cnxTimeout", CNX_TIMEOUT_MS),
        handshake_timeout_ms: positive(s.int("quorumCnxnTimeoutMs", -1)).unwrap_or(sync_ms.unsigned_abs()),
        election_bind_tries: u32::try_from(s.int("electionPortBindRetry", BIND_TRIES.into()))
            .unwrap_or(BIND_TRIES),
        notification_ms_min,
        notification_ms_max,
        listen_on_all_ips: s.flag("quorumListenOnAllIPs", false),
        leader_serves: s.flag("leaderServes", true),
        read_only_enabled: s.flag("readonlymode.enabled", false),
        local_sessions: s.flag("localSessionsEnabled", false),
        local_sessions_upgrade: s.flag("localSessionsUpgradingEnabled", false),
        liveness_timeout_ms,
        liveness_probe_ms,
        counter_max: u32::try_from(s.int("zabra.zxid.counterMax", COUNTER_MAX_DEFAULT.into()))
            .unwrap_or(COUNTER_MAX_DEFAULT),
    };
    Place { line: Some(line), ensemble: Some(ensemble), unclear: false }
}

/// What holds for the line of every member.
fn check_line(s: &mut Settings, line: &ServerLine) {
    if line.id.0 < 0 || line.id == ANONYMOUS {
        s.wrong(line.origin.clone(), &line.key, None, "server.N with N from 0 to 255");
    } else if line.id.0 > ID_MAX_DISTINCT {
        let text = format!(
            "sessions of servers whose numbers differ by a multiple of 256 may get the same id: numbers up to \
             {ID_MAX_DISTINCT} are safe"
        );
        s.warn(line.origin.clone(), &line.key, text);
    }
    if line.member.addresses.len() > 1 {
        let found = format!("{} addresses", line.member.addresses.len());
        let expected = "one address: several for one server (multiAddress.enabled) are not there yet";
        s.wrong(line.origin.clone(), &line.key, Some(&found), expected);
    }
}

fn quorum_config(s: &mut Settings, roster: &Roster) -> Option<QuorumConfig> {
    let members = roster.lines.iter().map(|line| (line.id, line.member.clone())).collect();
    let built = match roster.hierarchy.clone() {
        None => QuorumConfig::majority(members, roster.version),
        Some((groups, weights)) => QuorumConfig::hierarchical(members, groups, weights, roster.version),
    };
    let config = match built {
        Ok(config) => config,
        Err(error) => {
            let expected = format!("server, group and weight lines that fit together: {error}");
            s.wrong(roster.origin(), "server.N", None, &expected);
            return None;
        }
    };
    if !config.contains_quorum(&config.voters().collect()) {
        let expected = "a weight above 0 for some participant: as it is, nobody can ever be elected";
        s.wrong(roster.origin(), "weight.N", None, expected);
        return None;
    }
    let voters = config.voters().count();
    let text = match voters {
        0..=2 => "no server may fail: an ensemble needs at least 3 participants for that",
        _ if voters.is_multiple_of(2) => {
            "an odd number of participants survives as many failures with one server less"
        }
        _ => return Some(config),
    };
    s.warn(roster.origin(), "server.N", format!("{voters} participant(s): {text}"));
    Some(config)
}

fn my_line(
    s: &mut Settings,
    roster: &Roster,
    my_id: Option<ServerId>,
    data_dir: &Path,
) -> Option<ServerLine> {
    let origin = |line| Origin::File { path: data_dir.join("myid"), line };
    let known = || roster.lines.iter().map(|line| line.id.0.to_string()).collect::<Vec<_>>().join(", ");
    let Some(id) = my_id else {
        if !s.problems.iter().any(|p| p.key == "myid") {
            let expected = format!(
                "a file with the number of this server, which is one of the server lines: {}",
                known()
            );
            s.wrong(origin(0), "myid", None, &expected);
        }
        return None;
    };
    let line = roster.lines.iter().find(|line| line.id == id);
    if line.is_none() {
        let expected = format!("the number of a server line: {}", known());
        s.wrong(origin(1), "myid", Some(&id.0.to_string()), &expected);
    }
    line.cloned()
}

/// What holds for this server alone.
fn check_me(s: &mut Settings, line: &ServerLine, config: &QuorumConfig) {
    if s.flag("extendedTypesEnabled", false) && line.id.0 > ID_MAX_WITH_TTL {
        let expected = format!("at most {ID_MAX_WITH_TTL}, as extendedTypesEnabled is true");
        s.wrong(line.origin.clone(), &line.key, None, &expected);
    }
    let role = if config.is_voter(line.id) { "participant" } else { "observer" };
    // ZooKeeper takes an unset peerType for `participant` and then warns about every observer; here only a contradiction is worth a line.
    if s.text("peerType").is_some_and(|said| !said.eq_ignore_ascii_case(role)) {
        let text = format!("{} says {role}, and that is what counts", line.key);
        s.warn(s.origin("peerType"), "peerType", text);
    }
}

/// A limit in ticks, which an ensemble must have.
fn limit(s: &mut Settings, key: &str, roster: &Roster) -> Option<u32> {
    let ticks = ticks(s.int(key, 0));
    if ticks.is_none() && !s.problems.iter().any(|p| p.key == key) {
        let found = s.text(key).map(str::to_owned);
        let origin = if found.is_some() { s.origin(key) } else { roster.whole.clone() };
        s.wrong(origin, key, found.as_deref(), "a number of ticks, 1 or more, as there are several servers");
    }
    ticks
}

fn notification_ms(s: &mut Settings) -> (u64, u64) {
    let (least, most) = ("fastleader.minNotificationInterval", "fastleader.maxNotificationInterval");
    let (min, max) = (s.int(least, NOTIFICATION_MS_MIN), s.int(most, NOTIFICATION_MS_MAX));
    if min > max {
        let (key, found, expected) = match s.text(least) {
            Some(_) => (least, min, format!("at most {most}, which is {max} ms")),
            None => (most, max, format!("at least {least}, which is {min} ms")),
        };
        s.wrong(s.origin(key), key, Some(&found.to_string()), &expected);
    }
    (min.unsigned_abs(), max.unsigned_abs())
}

fn liveness_ms(s: &mut Settings) -> (Option<u64>, u64) {
    let (timeout, probe) = ("zabra.liveness.timeoutMs", "zabra.liveness.probeMs");
    let timeout_ms = positive(s.int(timeout, LIVENESS_TIMEOUT_MS));
    let probe_ms = s.int(probe, LIVENESS_PROBE_MS).unsigned_abs();
    if let Some(ms) = timeout_ms.filter(|ms| *ms < probe_ms.saturating_mul(2)) {
        let expected =
            format!("0, or at least twice {probe}, which is {probe_ms} ms: one lost probe is no silence");
        s.wrong(s.origin(timeout), timeout, Some(&ms.to_string()), &expected);
    }
    (timeout_ms, probe_ms)
}

fn positive(n: i64) -> Option<u64> {
    u64::try_from(n).ok().filter(|n| *n > 0)
}

fn ticks(n: i64) -> Option<u32> {
    u32::try_from(n).ok().filter(|n| *n > 0)
}
