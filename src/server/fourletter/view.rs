//! What the four-letter words need to know. The server implements [`ServerView`]; tests implement it with constants.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::base::{ConnId, Epoch, ServerId, SessionId, Zxid};
use crate::storage::superblock::Recall;
use crate::wire::quorum_config::QuorumConfig;

use super::super::config::Config;
use super::super::stats::{ConnFigures, ServerStats, Summary};

/// A server's role, as `srvr` and `mntr` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One server, no ensemble.
    Standalone,
    /// Leader of an ensemble.
    Leader,
    /// Follower of a leader.
    Follower,
    /// Non-voting.
    Observer,
    /// Cut off from its ensemble, answering reads.
    ReadOnly,
}

impl Mode {
    /// ZooKeeper's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Standalone => "standalone",
            Mode::Leader => "leader",
            Mode::Follower => "follower",
            Mode::Observer => "observer",
            Mode::ReadOnly => "read-only",
        }
    }
}

/// What a member of an ensemble knows of itself and, as a leader, of the others. As old as a moment.
#[derive(Clone, Debug)]
pub struct QuorumFigures {
    /// Who is in the ensemble.
    pub config: Arc<QuorumConfig>,
    /// Whom this server learns from; `None` for the leader.
    pub leader: Option<ServerId>,
    /// The newest epoch promised to a leader.
    pub epoch_accepted: Epoch,
    /// The epoch of the newest history taken over.
    pub epoch_current: Epoch,
    /// Whether what this server ever acknowledged is in its directory: if not, it has no vote.
    pub recall: Recall,
    /// End of the log.
    pub appended: Zxid,
    /// The last transaction known to be committed.
    pub committed: Zxid,
    /// Of a leader: everybody connected to it.
    pub learners: Learners,
    /// How long this server has been leading.
    pub leading_ms: u64,
    /// Elections that this server came out of with a leader that it could work with.
    pub elections: u64,
    /// Times that this server began to look for a leader.
    pub looking: u64,
    /// Milliseconds from there to a decision.
    pub election_ms: Summary,
    /// Milliseconds from there to serving clients.
    pub unavailable_ms: Summary,
    /// The same, when this server became the leader.
    pub leader_unavailable_ms: Summary,
}

/// Learners of a leader, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learners {
    /// All that are connected.
    pub connected: usize,
    /// Followers in step.
    pub synced_followers: usize,
    /// Those of them that are no members (yet).
    pub synced_non_voting_followers: usize,
    /// Observers in step.
    pub synced_observers: usize,
}

impl Learners {
    /// Counts (id, has a vote, is in step). A learner without a vote is an observer if the configuration says so, and otherwise a server that
    /// waits to become a member.
    #[must_use]
    pub fn count(learners: &[(ServerId, bool, bool)], config: &QuorumConfig) -> Learners {
        let is_observer = |id| config.members().get(&id).is_some_and(|member| member.is_observer());
        let mut counts = Learners { connected: learners.len(), ..Learners::default() };
        for (id, voter, _) in learners.iter().filter(|(.., in_step)| *in_step) {
            let observer = !voter && is_observer(*id);
            counts.synced_observers += usize::from(observer);
            counts.synced_followers += usize::from(!observer);
            counts.synced_non_voting_followers += usize::from(!observer && !voter);
        }
        counts
    }
}

/// Counts of the tree, all kept up to date and cheap to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeFigures {
    /// Nodes, with the internal ones: 5 when fresh.
    pub nodes: u64,
    /// Data and stat watches.
    pub watches: u64,
    /// Ephemeral nodes.
    pub ephemerals: u64,
    /// Sessions that own an ephemeral node.
    pub sessions_with_ephemerals: u64,
    /// Bytes of paths and data.
    pub data_bytes: u64,
    /// Sessions.
    pub sessions: u64,
}

/// Watch counts for `wchs`. Child watches are not among them, as in ZooKeeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchSummary {
    /// Connections that watch something.
    pub connections: u64,
    /// Paths that are watched.
    pub paths: u64,
    /// Pairs of connection and path.
    pub watches: u64,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLine {
    /// The other end.
    pub remote: SocketAddr,
    /// 1 while it is read, 4 while output waits for it; 5 for both.
    pub interest_ops: u8,
    /// 0 before there is one.
    pub session: SessionId,
    /// Agreed timeout of the session.
    pub session_timeout_ms: i32,
    /// Figures.
    pub figures: ConnFigures,
}

/// Sessions that expire together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionGroup<'a> {
    /// Wall time, ms since 1970.
    pub expires_ms: i64,
    /// At least one.
    pub sessions: &'a [SessionId],
}

/// What `envi` shows about machine and process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Name of the machine.
    pub host_name: String,
    /// Directory for temporary files.
    pub temp_dir: String,
    /// As `uname -s` has it.
    pub os_name: String,
    /// As `uname -m` has it.
    pub os_arch: String,
    /// As `uname -r` has it.
    pub os_version: String,
    /// Who runs the process.
    pub user_name: String,
    /// Their home.
    pub user_home: String,
    /// Where the process was started.
    pub current_dir: String,
}

/// `<NA>`, as ZooKeeper prints what it does not know.
const UNKNOWN: &str = "<NA>";

impl Environment {
    /// Of this process.
    #[must_use]
    pub fn of_this_process() -> Environment {
        let var = |name: &str| std::env::var(name).unwrap_or_else(|_| UNKNOWN.to_owned());
        let uname = rustix::system::uname();
        let current_dir = std::env::current_dir().map_or(UNKNOWN.to_owned(), |d| d.display().to_string());
        Environment {
            host_name: uname.nodename().to_string_lossy().into_owned(),
            temp_dir: std::env::temp_dir().display().to_string(),
            os_name: uname.sysname().to_string_lossy().into_owned(),
            os_arch: uname.machine().to_string_lossy().into_owned(),
            os_version: uname.release().to_string_lossy().into_owned(),
            user_name: var("USER"),
            user_home: var("HOME"),
            current_dir,
        }
    }
}

/// Facts about a running server.
///
/// Methods that take a visitor stop as soon as it breaks; they may hold a lock while visiting, because a visitor only formats, but let
/// go of it every few hundred visits. What changes meanwhile may be seen or not.
pub trait ServerView {
    /// False before recovery is done and after a failure.
    fn serving(&self) -> bool;
    /// The role.
    fn mode(&self) -> Mode;
    /// What a member of an ensemble knows; `None` for a server alone.
    fn quorum(&self) -> Option<QuorumFigures> {
        None
    }
    /// The configuration it runs with.
    fn config(&self) -> &Config;
    /// Shared figures.
    fn stats(&self) -> &ServerStats;
    /// The port that is really listened on.
    fn client_port(&self) -> u16;
    /// Zxid of the newest applied transaction.
    fn last_zxid(&self) -> Zxid;
    /// Requests read and not answered yet.
    fn outstanding(&self) -> u64;
    /// Open client connections.
    fn connection_count(&self) -> usize;
    /// Milliseconds since the start.
    fn uptime_ms(&self) -> u64;
    /// Counts of the tree.
    fn tree(&self) -> TreeFigures;
    /// Bytes of snapshots and of the log on disk.
    fn dir_bytes(&self) -> (u64, u64);
    /// Open file descriptors of the process, and how many it may have.
    fn file_descriptors(&self) -> (u64, u64) {
        file_descriptors()
    }
    /// What `envi` shows.
    fn environment(&self) -> Environment {
        Environment::of_this_process()
    }
    /// Every client connection.
    fn connections(&self, visit: &mut dyn FnMut(&ClientLine) -> ControlFlow<()>);
    /// `crst`.
    fn reset_connection_stats(&self);
    /// Groups and sessions that [`ServerView::sessions_by_expiry`] would visit.
    fn session_group_count(&self) -> (usize, usize);
    /// Sessions, those that expire first first.
    fn sessions_by_expiry(&self, visit: &mut dyn FnMut(SessionGroup<'_>) -> ControlFlow<()>);
    /// Ephemeral nodes, those of one session together.
    fn ephemerals(&self, visit: &mut dyn FnMut(SessionId, &str) -> ControlFlow<()>);
    /// Counts of data and stat watches. Does not walk the watches.
    fn watch_summary(&self) -> WatchSummary;
    /// Data and stat watches, those of one connection together.
    fn watches_by_connection(&self, visit: &mut dyn FnMut(ConnId, SessionId, &str) -> ControlFlow<()>);
    /// Data and stat watches, those of one path together.
    fn watches_by_path(&self, visit: &mut dyn FnMut(&str, SessionId) -> ControlFlow<()>);
    /// Digests of the tree, oldest first; nothing when digests are off.
    fn digest_log(&self, visit: &mut dyn FnMut(Zxid, u64) -> ControlFlow<()>);
    /// `gtmk`.
    fn trace_mask(&self) -> i64;
    /// `stmk`. Kept and shown, of no other effect.
    fn set_trace_mask(&self, mask: i64);
}

/// Open file descriptors of this process, and how many it may have; 0 where the system does not tell.
#[must_use]
pub fn file_descriptors() -> (u64, u64) {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (open, limit.unwrap_or(u64::MAX))
}
