//! `zabra recover`: what each member of an ensemble has, and the one way to decide by hand whose history stays.
//!
//! - RC1: without `--keep` or `--discard` nothing is changed, whether or not the server runs.
//! - RC2: a change needs the server stopped (its lock), and the last zxid of this member, as it was shown: who confirms it has looked.
//! - RC3: nothing is removed. What is discarded is moved aside.
//! - RC4: what was shown and done is written down before it is done.
//! - RC5: a member whose history an administrator has decided to keep has a vote; one whose history is discarded has none until it has followed a
//!   leader, unless the administrator says that nobody else knows better.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

use super::log::stored_hints;
use crate::base::{Epoch, ServerId, Zxid};
use crate::server::config::{Config, EnsembleConfig, LOG_FOLDER, ZABRA_FOLDER};
use crate::storage::log::inspect;
use crate::storage::superblock::{self, Recall, Superblock, SuperblockStore};
use crate::storage::vfs::{RealVfs, Vfs, create_dir_durable};
use crate::wire::quorum_config::{ANY_HOST, Member};

/// How long another member may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// An answer to `memb` is six short lines.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// Where decisions are written down, in the data directory.
const AUDIT_FILE: &str = "zabra.recover.log";

/// State of a member whose log a start would refuse.
const DAMAGED: &str = "DAMAGED";

/// Epochs that servers which do not answer may be ahead of those that do: each is an election that was won.
const EPOCHS_OF_THE_SILENT: u32 = 10_000;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  zabra recover zoo.cfg                                   what does each member have
  zabra recover zoo.cfg --keep --confirm 0x500000012      this member's history is the one that stays
  zabra recover zoo.cfg --discard --confirm 0x400000007   this member's data is moved aside; it fetches everything

A server whose directory is new, or was damaged, has no vote until it has followed a leader: it may have forgotten what it acknowledged, and those
who know it may be away. If they are gone for good, say so with --discard --let-vote --confirm 0x0 on it.

The first form changes nothing. The others need this member's server stopped, and are written down in dataDir/zabra.recover.log.")]
pub struct RecoverArgs {
    /// The member's configuration file
    #[arg(value_name = "ZOO.CFG")]
    pub config: PathBuf,
    /// Sets a key, as for `serve`
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub define: Vec<String>,
    /// This member's history stays: its epoch is raised above everybody's
    #[arg(long, conflicts_with = "discard", requires = "confirm")]
    pub keep: bool,
    /// This member's data is moved aside: it fetches everything from the others, and votes when it has
    #[arg(long, requires = "confirm")]
    pub discard: bool,
    /// With --discard: this member votes at once, although it may have forgotten what it acknowledged. Only when those who know are gone for good,
    /// or another member's history was decided for with --keep
    #[arg(long, requires = "discard")]
    pub let_vote: bool,
    /// The last zxid in this member's log, as it is shown
    #[arg(long, value_name = "ZXID")]
    pub confirm: Option<String>,
}

/// What a member has.
#[derive(Clone, Debug)]
struct Holdings {
    state: String,
    history: String,
    epoch_accepted: Epoch,
    epoch_current: Epoch,
    logged: Zxid,
    committed: Zxid,
}

/// Shows what the members have and, if asked, changes this one.
///
/// # Errors
/// Nothing was changed, unless it says otherwise.
pub fn run(args: &RecoverArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::load(Some(&args.config), &args.define)?.config;
    let Some(ensemble) = config.ensemble.clone() else {
        bail!("{}: one server alone has nobody to compare itself with", args.config.display());
    };
    let places = Places::of(&config);
    if args.confirm.is_some() && !args.keep && !args.discard {
        bail!(super::Usage(anyhow::anyhow!("--confirm decides nothing by itself: say --keep or --discard")));
    }
    let mine = read_mine(&places, ensemble.me)?;
    let mut members = vec![(ensemble.me, Ok(mine.clone()))];
    let others = ensemble.config.members().iter().filter(|(id, _)| **id != ensemble.me);
    members.extend(others.map(|(id, member)| (*id, ask(*id, member, &config))));
    members.sort_by_key(|(id, _)| *id);
    let table = table(&members, &ensemble);
    out.write_all(table.as_bytes())?;
    if args.keep || args.discard {
        check_confirmed(args, &mine)?;
        let vfs = RealVfs;
        create_dir_durable(&vfs, &places.data)?;
        let _lock = vfs
            .lock(&places.data.join("lock"))
            .with_context(|| format!("{}: stop this member's server first", places.data.display()))?;
        if args.keep {
            keep(&config, &places, &members, &table, out)?;
        } else {
            let recall = if args.let_vote { Recall::Whole } else { Recall::Lost };
            discard(&config, &places, ensemble.me, recall, &table, out)?;
        }
    }
    Ok(out.flush()?)
}

/// Where this member's files are.
struct Places {
    data: PathBuf,
    log: PathBuf,
    /// The folder above the log, when that is not `data`.
    log_home: Option<PathBuf>,
}

impl Places {
    fn of(config: &Config) -> Places {
        let data = config.data_dir.join(ZABRA_FOLDER);
        let log_home = config.data_log_dir.join(ZABRA_FOLDER);
        let log = log_home.join(LOG_FOLDER);
        Places { log_home: (log_home != data).then_some(log_home), data, log }
    }
}

fn read_mine(places: &Places, me: ServerId) -> anyhow::Result<Holdings> {
    let place = || places.data.display().to_string();
    let stored = superblock::load(&RealVfs, &places.data, false).with_context(place)?;
    let Some(stored) = stored else {
        return Ok(Holdings {
            state: "no data".to_owned(),
            history: Recall::New.name().to_owned(),
            epoch_accepted: Epoch(0),
            epoch_current: Epoch(0),
            logged: Zxid::ZERO,
            committed: Zxid::ZERO,
        });
    };
    let found = stored.value.server_id;
    ensure!(found == me, "{}: the data of server {}, and myid says {}", places.data.display(), found.0, me.0);
    let hints = stored_hints(&places.data)?.unwrap_or_default();
    let log = inspect(&RealVfs, &places.log, hints, &mut |_, _, _| ()).context("reading the log")?;
    let Superblock { epoch_accepted, epoch_current, committed, recall, .. } = stored.value;
    let state = if log.starts {
        "on disk".to_owned()
    } else if !places.log.exists() && (epoch_accepted, committed) == (Epoch(0), Zxid::ZERO) {
        // As a decision to discard leaves it.
        "empty".to_owned()
    } else {
        format!("{DAMAGED} ({})", log.detail)
    };
    Ok(Holdings {
        state,
        history: recall.name().to_owned(),
        epoch_accepted,
        epoch_current,
        logged: log.last.max(hints.base),
        committed: committed.max(hints.base),
    })
}

/// Asks a member that runs.
fn ask(id: ServerId, member: &Member, config: &Config) -> anyhow::Result<Holdings> {
    let clients_only =
        member.client.as_ref().and_then(|client| client.host.as_deref()).filter(|host| *host != ANY_HOST);
    let host = clients_only.or(member.addresses.first().map(|address| address.host.as_str())).unwrap_or("");
    let port = member.client.as_ref().map_or(config.listen.port, |client| client.port);
    let address: SocketAddr = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("{host}:{port}"))?
        .next()
        .with_context(|| format!("{host}: no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.write_all(b"memb")?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let holdings = parse(&text).with_context(|| format!("{address} is no member of a Zabra ensemble"))?;
    match who(&text) {
        Some(found) if found != id => bail!(
            "at {address} is server {}: where members do not share one clientPort, each server line has to say its own (server.{}=...;PORT)",
            found.0,
            id.0
        ),
        _ => Ok(holdings),
    }
}

/// Who answers; members of an earlier version do not say it.
fn who(text: &str) -> Option<ServerId> {
    text.lines().find_map(|line| line.strip_prefix("server\t")?.parse().ok()).map(ServerId)
}

fn parse(text: &str) -> Option<Holdings> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
    let zxid = |key| parse_zxid(value(key)?);
    Some(Holdings {
        state: value("state")?.to_owned(),
        // Members of an earlier version say nothing of it.
        history: value("history").unwrap_or(Recall::Whole.name()).to_owned(),
        epoch_accepted: Epoch(value("epoch_accepted")?.parse().ok()?),
        epoch_current: Epoch(value("epoch_current")?.parse().ok()?),
        logged: zxid("zxid_logged")?,
        committed: zxid("zxid_committed")?,
    })
}

fn parse_zxid(text: &str) -> Option<Zxid> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok().map(Zxid)
}

type Members = [(ServerId, anyhow::Result<Holdings>)];

fn all_answer(members: &Members) -> bool {
    members.iter().all(|(_, member)| member.is_ok())
}

fn table(members: &Members, ensemble: &EnsembleConfig) -> String {
    let mut text = format!(
        "{:<9} {:<12} {:<8} {:>14} {:>13} {:>20} {:>20}\n",
        "server",
        "state",
        "history",
        "epoch accepted",
        "epoch current",
        "last zxid in log",
        "known committed"
    );
    let ahead = members
        .iter()
        .filter_map(|(id, m)| m.as_ref().ok().map(|m| (*id, m)))
        .filter(|(_, m)| m.history == Recall::Whole.name() && !m.state.starts_with(DAMAGED))
        .max_by_key(|(id, m)| (m.epoch_current, m.logged, *id))
        .map(|(id, _)| id);
    let mark = if all_answer(members) {
        "  <- would win an election"
    } else {
        "  <- has the most of those that answer"
    };
    for (id, member) in members {
        let me = if *id == ensemble.me { " (this)" } else { "" };
        let name = format!("{}{me}", id.0);
        text += &match member {
            Ok(m) => format!(
                "{name:<9} {:<12} {:<8} {:>14} {:>13} {:>20} {:>20}{}\n",
                m.state,
                m.history,
                m.epoch_accepted.0,
                m.epoch_current.0,
                m.logged.to_string(),
                m.committed.to_string(),
                if ahead == Some(*id) { mark } else { "" },
            ),
            Err(error) => format!("{name:<9} does not answer: {error:#}; run this command on its machine\n"),
        };
    }
    text
}

/// RC2.
fn check_confirmed(args: &RecoverArgs, mine: &Holdings) -> anyhow::Result<()> {
    let confirmed = args.confirm.as_deref().and_then(parse_zxid);
    ensure!(
        confirmed == Some(mine.logged),
        "--confirm must be {}, the last zxid in this member's log; nothing was changed",
        mine.logged
    );
    Ok(())
}

/// This member is elected by whoever votes, for its epoch is above everybody's; those that do not answer, because they are stopped, among them.
fn keep(
    config: &Config,
    places: &Places,
    members: &Members,
    table: &str,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let known = members.iter().filter_map(|(_, m)| m.as_ref().ok());
    let highest = known.map(|m| m.epoch_accepted.max(m.epoch_current).max(m.logged.epoch())).max();
    let ahead = if all_answer(members) { 1 } else { EPOCHS_OF_THE_SILENT };
    let epoch = Epoch(highest.unwrap_or_default().0 + ahead);
    audit(config, &format!("keep: this member's history stays; its epoch becomes {epoch}"), table)?;
    let opened = SuperblockStore::open(&RealVfs, &places.data, true)?;
    let (mut store, _) = opened.context("the superblock has gone")?;
    ensure!(store.value().recall != Recall::Clearing, "this member's data is being set aside: start it once");
    let value = Superblock {
        epoch_accepted: epoch,
        epoch_current: epoch,
        recall: Recall::Whole,
        ..store.value().clone()
    };
    store.store(value).context("the superblock may or may not have been changed")?;
    writeln!(
        out,
        "This member's epoch is {epoch} now: it wins the next election. Start it, and the others. A member that stops because it would lose what it \
         has committed: `zabra recover --discard --let-vote` there."
    )?;
    Ok(())
}

/// RC3, RC5.
fn discard(
    config: &Config,
    places: &Places,
    me: ServerId,
    recall: Recall,
    table: &str,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let now = unix_seconds();
    let vote = if recall == Recall::Whole { ", and it votes at once" } else { "" };
    audit(config, &format!("discard: this member's data is moved aside{vote}"), table)?;
    let there = |folder: &&PathBuf| folder.exists();
    for folder in std::iter::once(&places.data).chain(&places.log_home).filter(there) {
        let aside = aside(folder, now);
        std::fs::rename(folder, &aside)
            .with_context(|| format!("cannot move {} to {}", folder.display(), aside.display()))?;
        writeln!(out, "{} is {} now.", folder.display(), aside.display())?;
    }
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    for folder in std::iter::once(&places.data).chain(&places.log_home) {
        let parent = folder.parent().unwrap_or(folder);
        if parent.exists() {
            vfs.sync_dir(parent)?;
        }
    }
    let mut identity = [0; 16];
    getrandom::fill(&mut identity).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
    let [node_id, cluster_id] =
        [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|n| identity[at + n])));
    let superblock = Superblock { recall, ..Superblock::new(node_id, cluster_id, me) };
    SuperblockStore::format(&*vfs, &places.data, superblock).context(
        "the data is moved, and the new superblock could not be made: do it again, with --confirm 0x0",
    )?;
    let vote = if recall == Recall::Whole { "votes at once" } else { "votes when it has followed a leader" };
    writeln!(out, "This member fetches everything when it starts, and {vote}.")?;
    Ok(())
}

fn aside(folder: &Path, now: u64) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".discarded.{now}"));
    folder.with_file_name(name)
}

/// RC4.
fn audit(config: &Config, what: &str, table: &str) -> anyhow::Result<()> {
    let path = config.data_dir.join(AUDIT_FILE);
    let who = std::env::var("USER").unwrap_or_else(|_| "unknown user".to_owned());
    let entry = format!("{} s since 1970, {who}: {what}\n{table}\n", unix_seconds());
    let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
        file.write_all(entry.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write down the decision in {}", path.display()))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_says_is_read() {
        let text = "state\tlooking\nepoch_accepted\t5\nepoch_current\t4\nhistory\twhole\nzxid_logged\t0x400000007\nzxid_committed\t0x400000006\nzxid_applied\t0x0\n";
        let holdings = parse(text).unwrap();
        assert_eq!((holdings.epoch_accepted, holdings.epoch_current), (Epoch(5), Epoch(4)));
        assert_eq!((holdings.logged, holdings.committed), (Zxid(0x4_0000_0007), Zxid(0x4_0000_0006)));
        assert_eq!(holdings.state, "looking");
        for cut in 0..text.len() - "zxid_applied\t0x0\n".len() - 1 {
            let _ = parse(&text[..cut]);
        }
        assert_eq!((who(text), who(&format!("{text}server\t7\n"))), (None, Some(ServerId(7))));
        assert!(parse("memb is not executed because it is not in the whitelist.\n").is_none());
    }
}
