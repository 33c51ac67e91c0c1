//! A member of an ensemble, from one leader to the next: joins election, ZAB and the durable history of this node. Design:
//! `src/docs/zab.md`.
//!
//! - M1: one owner. Everything that happens comes in as a call with the time it happened; what is to be done goes out as [`Output`]s, drained
//!   after each call, and as bytes that wait on links. No thread, no clock, no socket; the disk behind `storage` alone.
//! - M2: the log is appended to here and nowhere else; flushes are asked for with [`Output::Flush`] and come back with [`Member::flushed`].
//!   What depends on the disk waits in [`Positions`] for that (rule R4).
//! - M3: a member votes only when all of its log is durable, so that what it says of itself is true after a crash.
//! - M4: each leadership and each attachment to a leader has links of its own; when it ends, all of them are closed, and what still comes from
//!   them is not heard (rule R5).
//! - M5: what is not known to be committed is not applied; what is committed is never cut. A peer that demands it stops this node.
//! - M6: after a failure of the durable path nothing is said any more (rule R10).
//! - M7: who has ceased to lead because it hears no quorum neither asks to be elected nor answers in an election before it hears one, or that others
//!   have settled, or as much time has passed again: what it knows is the most there is, and those who hear of it and cannot reach it would wait for
//!   it (rule R13).
//! - M8: what the next tree is made of is on the disk before the tree goes, and the tree is gone before its successor is made; a member without one
//!   does not vote.
//!
//! Payloads are opaque here. Who makes transactions of requests, and a tree of transactions, is told when it may ([`Output::Serve`]), what came for
//! it ([`Host`]), and what is committed ([`Member::apply`]).

mod feed;
mod history;
mod install;
mod lead;
mod learn;
mod link;
mod recent;
mod rollover;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use thiserror::Error;

use crate::base::{Epoch, MonoMs, ServerId, SessionId, Zxid};
use crate::election::{self, Election, NO_ZXID, Notice};
use crate::node::recover::{AnnounceError, NodeDir, ResetError, SnapshotFault, TruncateError};
use crate::node::snap_stream::{SnapSource, SnapStreamError};
use crate::node::{SharedTree, SnapshotFailed};
use crate::storage::log::{Appender, Durable, Flusher, Group, LogError, LogReader};
use crate::storage::snapshot::SnapshotStore;
use crate::storage::superblock::{Recall, SuperblockError};
use crate::tree::{Tree, TreeOptions};
use crate::wire::election::PeerState;
use crate::wire::quorum::{AuthIds, PeerError};
use crate::wire::quorum_config::{Electorate, QuorumConfig};
use crate::wire::quorum_payload::{ForwardedRequest, Touch};
use crate::zab::leader::GiveUpReason;
use crate::zab::learner::LearnerError;
use crate::zab::{Broken, Limits, LinkId, Positions, Rule};

use install::TreeState;
use lead::Leading;
use learn::Learning;
use link::{Kind, Link};
use recent::Recent;

/// Links on which nothing was said yet, or that came before this server knew whether it leads; the oldest beyond that is closed.
const PARKED_LINKS_MAX: usize = 256;

/// A vote heard so long before this server began to look still stands; older ones are said again.
const EARLY_VOTE_MS_MAX: u64 = 200;

/// How long a server whose disk is full stays away before it comes again: a leader reads the log for it each time.
const FULL_DISK_REST_MS: u64 = 1_000;

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// This server.
    pub me: ServerId,
    /// Who is in the ensemble.
    pub config: Arc<QuorumConfig>,
    /// How long peers are waited for.
    pub limits: Limits,
    /// Of the election.
    pub election: election::Options,
    /// Of trees received from a leader.
    pub tree: TreeOptions,
    /// Size of the chunks of snapshots made of them, bytes.
    pub snapshot_chunk_bytes: usize,
    /// A leader enters its next epoch when the counter of the last zxid has come so far: [`COUNTER_MAX_DEFAULT`], less in tests.
    pub counter_max: u32,
}

/// Far enough from the end that no group of transactions reaches it: a group has less than 2^20.
pub const COUNTER_MAX_DEFAULT: u32 = u32::MAX - (1 << 21);

/// The durable parts of a node, as recovery gives them ([`crate::node::recover()`]).
#[derive(Debug)]
pub struct MemberStorage {
    /// The end of the log.
    pub appender: Appender,
    /// Makes it durable; goes out with [`Output::Flush`].
    pub flusher: Flusher,
    /// Reads it.
    pub reader: LogReader,
    /// Superblock.
    pub dir: NodeDir,
    /// Snapshots.
    pub snapshots: SnapshotStore,
}

/// What this server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It leads the epoch.
    Leading {
        /// Which.
        epoch: Epoch,
    },
    /// It follows, with a vote or (an observer) without one.
    Learning {
        /// Whom.
        leader: ServerId,
        /// In which epoch.
        epoch: Epoch,
        /// It has no vote.
        observer: bool,
    },
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send the notice on the election port. Only the newest to each peer matters.
    Notice {
        /// To whom.
        to: ServerId,
        /// What.
        notice: Notice,
    },
    /// Connect to every member on the election port, whatever the back-off.
    Reconnect,
    /// Connect to the quorum port of `to`; then [`Member::connected`] or [`Member::closed`].
    Connect {
        /// The connection to be.
        link: LinkId,
        /// Whose port.
        to: ServerId,
    },
    /// Close the connection. Nothing more is heard of it, and nothing more sent.
    Close {
        /// Which.
        link: LinkId,
        /// Why, if there is something to say.
        why: Option<String>,
    },
    /// More is taken from the link: what was received and not consumed, and what follows. It is a round of its own ([`Member::finish_round`]).
    Resume(LinkId),
    /// Call [`Flusher::flush`], and give it back with [`Member::flushed`].
    Flush(Flusher),
    /// Clients may be served from now on: everything known to be committed is applied.
    Serve(Standing),
    /// This server, which serves, goes on in a later epoch: what it proposes has zxids of that one. Nobody is disconnected.
    Epoch(Standing),
    /// Nobody may be served any more. Writes that were not applied have an unknown outcome.
    Stop(StopReason),
    /// The tree goes, with all that refers to it: what takes its place is durable, and is loaded next, into the memory that this frees.
    /// Nobody may read before [`Output::Tree`].
    DropTree,
    /// This is the tree from now on: a state received from the leader, or one of this server's snapshots, behind which the log is applied again.
    Tree(Box<Tree>),
    /// The oldest sync asked for here ([`Member::sync`]) is answered.
    Synced,
    /// The process must end.
    Failed(MemberError),
}

/// What became of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// So many are done with; the rest is to be given again, with what follows it.
    pub consumed: usize,
    /// Nothing more is taken from the link before [`Output::Resume`].
    pub hold: bool,
}

impl Received {
    const fn some(consumed: usize) -> Received {
        Received { consumed, hold: false }
    }

    const fn all(bytes: &[u8]) -> Received {
        Received::some(bytes.len())
    }
}

/// Why nobody is served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StopReason {
    /// As a leader.
    #[error("this server stops leading: {0}")]
    Leader(#[from] GiveUpReason),
    /// As a learner.
    #[error("this server leaves its leader: {0}")]
    Learner(#[from] LearnerError),
    /// The connection to the leader broke, or could not be made.
    #[error("no connection with the leader, server {}", .0.0)]
    LeaderGone(ServerId),
    /// A message that is none.
    #[error("the leader sends what cannot be read: {0}")]
    Garbage(#[from] PeerError),
    /// A state that cannot be used.
    #[error("the state that the leader sends cannot be used: {0}")]
    BadState(Arc<SnapStreamError>),
    /// The tree differs from the others'.
    #[error("the tree here is not the one that transaction {0} was made for")]
    Diverged(Zxid),
    /// The leader does not send it whole.
    #[error(
        "a whole state is needed, and this leader, a ZooKeeper server, sends the difference: move the data directory away"
    )]
    NeedsState,
    /// The disk is full, and a leader must be able to write.
    #[error("there is no space for the log, or for a whole state")]
    NoSpace,
}

/// Why a node must stop.
#[derive(Debug, Error)]
pub enum MemberError {
    /// The log.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The superblock.
    #[error("{0}")]
    Superblock(#[from] SuperblockError),
    /// A cut that could not be made.
    #[error("{0}")]
    Truncate(#[from] TruncateError),
    /// A state that could not take the log's place.
    #[error("{0}")]
    Reset(#[from] ResetError),
    /// A received state that could not be stored.
    #[error("{0}")]
    Snapshot(#[from] SnapshotFailed),
    /// A received state that has taken the log's place, and does not load.
    #[error("the state that was received does not load: {0}")]
    Load(#[from] SnapshotFault),
    /// Snapshots that could not be looked at or removed.
    #[error("{0}")]
    Announce(#[from] AnnounceError),
    /// Two histories.
    #[error("{0}: nothing is changed; compare the members with `zabra recover`")]
    History(LearnerError),
}

/// Who makes transactions of requests, and keeps sessions: is told what peers send for it.
pub trait Host {
    /// A learner's client wants to write. This server leads, and serves.
    fn request(&mut self, link: LinkId, request: &ForwardedRequest<'_>, ids: &AuthIds<'_>);
    /// A learner has heard of a session.
    fn touched(&mut self, touch: Touch);
    /// A session's client has come to a learner: is it alive? If so, it is the learner's from now on.
    fn revalidate(&mut self, link: LinkId, touch: Touch) -> bool;
    /// The leader's answer to [`Member::revalidate`].
    fn revalidated(&mut self, session: SessionId, valid: bool);
    /// Append the sessions heard of since the last call, for the leader.
    fn put_touches(&mut self, out: &mut Vec<u8>);
}

/// What a member is doing.
#[derive(Debug)]
enum Role {
    /// The log is being made durable before this server votes (M3).
    Settling,
    Looking,
    Leading(Box<Leading>),
    Learning(Box<Learning>),
    /// M6.
    Failed,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Member {
    options: MemberOptions,
    electorate: Electorate,
    election: Election,
    election_timer: Option<MonoMs>,
    role: Role,
    storage: Storage,
    positions: Positions,
    recent: Recent,
    links: BTreeMap<LinkId, Link>,
    link_last: u64,
    /// Last votes of servers that look for a leader while this one does not, and when they came.
    early: BTreeMap<ServerId, (MonoMs, Notice)>,
    /// No leader is looked for before.
    rest_until: MonoMs,
    /// M7.
    quiet: Option<Quiet>,
    /// When everything up to here is applied, clients may be served.
    serve_at: Option<Zxid>,
    serving: bool,
    /// An epoch that a voter has promised itself to: the next one this server proposes is above it.
    epoch_seen: Epoch,
    tree: TreeState,
    /// The last transaction behind which the tree was not what its leader had.
    differed_at: Zxid,
    /// For tests: which rule is switched off.
    broken: Broken,
    /// Images of the tree that nobody wants any more.
    abandoned: Vec<SnapSource>,
    outputs: VecDeque<Output>,
}

/// M7.
#[derive(Debug)]
struct Quiet {
    until: MonoMs,
    /// Heard since a little before, and this server.
    heard: BTreeSet<ServerId>,
}

/// [`MemberStorage`] while flushes come and go.
#[derive(Debug)]
struct Storage {
    appender: Appender,
    flusher: Option<Flusher>,
    reader: LogReader,
    dir: NodeDir,
    snapshots: SnapshotStore,
}

impl Member {
    /// A member that has just been recovered: `applied` is what its tree holds. It starts to look for a leader.
    #[must_use]
    pub fn new(now: MonoMs, options: MemberOptions, storage: MemberStorage, applied: Zxid) -> Member {
        let electorate = Electorate::new(Arc::clone(&options.config), None);
        let last = storage.appender.last_zxid();
        let MemberStorage { appender, flusher, reader, dir, snapshots } = storage;
        let mut member = Member {
            election: Election::new(options.me, electorate.clone(), options.election),
            electorate,
            options,
            election_timer: None,
            role: Role::Settling,
            storage: Storage { appender, flusher: Some(flusher), reader, dir, snapshots },
            positions: Positions::new(last, applied),
            recent: Recent::new(last),
            links: BTreeMap::new(),
            link_last: 0,
            early: BTreeMap::new(),
            rest_until: now,
            quiet: None,
            serve_at: None,
            serving: false,
            epoch_seen: Epoch(0),
            tree: TreeState::Sound,
            differed_at: Zxid::ZERO,
            broken: Broken::default(),
            abandoned: Vec::new(),
            outputs: VecDeque::new(),
        };
        member.settle(now);
        member
    }

    /// Switches a rule off, to show that this is noticed; before anything else is called.
    #[cfg(any(test, feature = "testing"))]
    pub fn break_rule(&mut self, now: MonoMs, rule: Rule) {
        self.broken = Broken::rule(Some(rule));
        if matches!(self.role, Role::Looking) {
            // It looks as one without the rule would.
            self.role = Role::Settling;
            self.settle(now);
        }
    }

    /// The next thing to do; `None` when all is done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Member::timer`] is due; `None` is never.
    #[must_use]
    pub fn next_timer(&self) -> Option<MonoMs> {
        let role = match &self.role {
            Role::Leading(leading) => leading.next_timer(),
            Role::Learning(learning) => Some(learning.next_timer()),
            Role::Settling if self.is_settled() => Some(self.may_look_at()),
            Role::Settling | Role::Looking | Role::Failed => None,
        };
        [self.election_timer, role].into_iter().flatten().min()
    }

    /// The time asked for may have come.
    pub fn timer(&mut self, now: MonoMs) {
        if self.election_timer.is_some_and(|at| at <= now) {
            self.election_timer = None;
            self.elect(now, election::Input::Timer);
        }
        match &self.role {
            Role::Leading(_) => self.lead_timer(now),
            Role::Learning(_) => self.learn_timer(now),
            Role::Settling => self.settle(now),
            Role::Looking | Role::Failed => {}
        }
    }

    // --- What others may know ---

    /// How far this member is.
    #[must_use]
    pub const fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Accepted and current epoch, durable. The log of a server that was alone before has epochs that nobody accepted.
    #[must_use]
    pub fn epochs(&self) -> (Epoch, Epoch) {
        let superblock = self.storage.dir.superblock();
        (superblock.epoch_accepted.max(self.positions.appended().epoch()), superblock.epoch_current)
    }

    /// What this server is, while it may serve.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        if !self.serving {
            return None;
        }
        match &self.role {
            Role::Leading(leading) => leading.epoch().map(|epoch| Standing::Leading { epoch }),
            Role::Learning(learning) => learning.epoch().map(|epoch| {
                let observer = !self.electorate.is_voter(self.options.me);
                Standing::Learning { leader: learning.leader_id(), epoch, observer }
            }),
            Role::Settling | Role::Looking | Role::Failed => None,
        }
    }

    /// What this server does in the election's eyes.
    #[must_use]
    pub fn peer_state(&self) -> PeerState {
        match self.quiet {
            Some(_) => PeerState::Looking,
            None => self.election.state().unwrap_or(PeerState::Looking),
        }
    }

    /// Voters not heard of in an election that goes on.
    #[must_use]
    pub fn unheard(&self) -> Vec<ServerId> {
        self.election.unheard().into_iter().collect()
    }

    /// Voters that cannot vote in an election that goes on, because they may have forgotten what they acknowledged.
    #[must_use]
    pub fn voteless(&self) -> Vec<ServerId> {
        self.election.voteless().into_iter().collect()
    }

    /// Whether what this server ever acknowledged is in its directory.
    #[must_use]
    pub fn recall(&self) -> Recall {
        self.storage.dir.superblock().recall
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Arc<QuorumConfig> {
        self.electorate.current()
    }

    /// Identity of this node's data directory.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.storage.dir.superblock().node_id
    }

    // --- Election ---

    /// A peer said something on the election port.
    pub fn notice(&mut self, now: MonoMs, from: ServerId, notice: Notice) {
        if self.keeps_quiet(now, from, notice.state != PeerState::Looking) {
            self.early.insert(from, (now, notice));
            return;
        }
        if notice.state == PeerState::Looking && !matches!(self.role, Role::Looking) {
            self.early.insert(from, (now, notice.clone()));
            if self.broken.is(Rule::DeposedByNotice) {
                self.look(now, StopReason::LeaderGone(from));
            }
        }
        self.elect(now, election::Input::Notice { from, notice });
    }

    /// A new connection with a peer stands on the election port.
    pub fn peer_up(&mut self, now: MonoMs, peer: ServerId) {
        self.keeps_quiet(now, peer, false);
        self.elect(now, election::Input::PeerUp(peer));
    }

    /// A peer is gone from the election port, and cannot be connected to.
    pub fn peer_down(&mut self, now: MonoMs, peer: ServerId) {
        self.early.remove(&peer);
        self.elect(now, election::Input::PeerDown(peer));
        if let Role::Learning(learning) = &self.role
            && learning.waits_for_connection()
            && learning.leader_id() == peer
        {
            self.look(now, StopReason::LeaderGone(peer));
        }
    }

    fn elect(&mut self, now: MonoMs, input: election::Input) {
        if matches!(self.role, Role::Failed) {
            return;
        }
        self.election.handle(now, input);
        while let Some(output) = self.election.poll() {
            match output {
                election::Output::Send { to, notice } => {
                    self.outputs.push_back(Output::Notice { to, notice })
                }
                election::Output::Reconnect => self.outputs.push_back(Output::Reconnect),
                election::Output::Timer(at) => self.election_timer = at,
                election::Output::Decided(decision) => match decision.state {
                    PeerState::Leading => self.lead(now),
                    _ => self.follow(now, &decision.vote),
                },
                election::Output::Settled { voter, on } => {
                    self.lead_input(now, crate::zab::leader::Input::Settled { voter, on });
                }
                election::Output::Adopted(config) => {
                    self.electorate.adopt(config);
                }
            }
        }
    }

    /// Ends what this server was doing and looks for a leader.
    fn look(&mut self, now: MonoMs, why: StopReason) {
        if matches!(self.role, Role::Failed) {
            return;
        }
        if matches!(self.role, Role::Looking) {
            self.elect(now, election::Input::Cease);
        }
        self.end_role();
        self.role = Role::Settling;
        self.outputs.push_back(Output::Stop(why));
        match self.withdraw_state() {
            Ok(()) => self.settle(now),
            Err(error) => self.fail(error),
        }
    }

    /// The disk is full. A learner would only be sent again what does not fit; a leader's vote may be the greatest, and it stays away until others
    /// have elected one that has space.
    fn rest_without_space(&mut self, now: MonoMs) {
        self.rest_until = now.plus(FULL_DISK_REST_MS);
        self.look(now, StopReason::NoSpace);
    }

    /// M4.
    fn end_role(&mut self) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.close(link, None));
        if let Role::Learning(learning) = std::mem::replace(&mut self.role, Role::Settling) {
            learning.end(&mut self.recent);
        }
        (self.serve_at, self.serving) = (None, false);
    }

    /// M3.
    fn settle(&mut self, now: MonoMs) {
        if !matches!(self.role, Role::Settling) {
            return;
        }
        let hasty = self.broken.is(Rule::VoteWithUnflushedTail);
        if !self.positions.is_flushed() && !hasty {
            return self.flush();
        }
        let is_held_up = self.storage.flusher.is_none() && !hasty;
        if is_held_up || now < self.may_look_at() || !self.has_tree() {
            return;
        }
        self.role = Role::Looking;
        self.quiet = None;
        let recall = self.recall();
        let forgot = recall == Recall::Lost && !self.broken.is(Rule::ForgetfulPromise);
        let stands = self.electorate.is_voter(self.options.me) && !self.needs_state() && !forgot;
        let zxid = if stands { self.positions.appended().to_wire() } else { NO_ZXID };
        let (accepted, epoch) = self.epochs();
        let is_new = recall == Recall::New
            && self.electorate.is_voter(self.options.me)
            && !self.broken.is(Rule::ForgetfulPromise);
        let new = is_new.then_some(i64::from(accepted.0));
        self.elect(now, election::Input::Start { zxid, epoch: i64::from(epoch.0), new });
        self.hear_early_votes(now);
    }

    /// All of the log is durable, and nothing is under way.
    fn is_settled(&self) -> bool {
        self.positions.is_flushed() && self.storage.flusher.is_some() && self.has_tree()
    }

    fn may_look_at(&self) -> MonoMs {
        self.quiet.as_ref().map_or(self.rest_until, |quiet| quiet.until.max(self.rest_until))
    }

    /// M7: this server, which leads, hears no quorum.
    fn begin_quiet(&mut self, now: MonoMs) {
        let quiet_ms = self.options.limits.liveness_ms;
        let lately = self.early.iter().filter(|(_, (at, _))| now.since(*at) < quiet_ms);
        let heard: BTreeSet<ServerId> = lately.map(|(id, _)| *id).chain([self.options.me]).collect();
        if !self.electorate.contains_quorum(&heard) && !self.broken.is(Rule::DeafLeaderStands) {
            self.quiet = Some(Quiet { until: now.plus(quiet_ms), heard });
        }
    }

    /// M7: a peer is heard, which says that there is a leader.
    fn keeps_quiet(&mut self, now: MonoMs, peer: ServerId, settled: bool) -> bool {
        let Some(quiet) = &mut self.quiet else { return false };
        quiet.heard.insert(peer);
        let is_voter = self.electorate.is_voter(peer);
        if (settled && is_voter) || self.electorate.contains_quorum(&quiet.heard) {
            self.quiet = None;
            self.settle(now);
        }
        self.quiet.is_some()
    }

    /// Who lost the leader a moment before this server did has said how it votes, and would say it again only after a while.
    fn hear_early_votes(&mut self, now: MonoMs) {
        for (from, (at, notice)) in std::mem::take(&mut self.early) {
            if now.since(at) < EARLY_VOTE_MS_MAX {
                self.elect(now, election::Input::Notice { from, notice });
            }
        }
    }

    // --- Links ---

    /// Somebody has connected to the quorum port.
    pub fn accepted(&mut self) -> LinkId {
        let link = self.next_link();
        let parked = || self.links.iter().filter(|(_, link)| matches!(link.kind, Kind::Parked));
        match &self.role {
            Role::Settling | Role::Looking | Role::Leading(_) => {
                if parked().count() >= PARKED_LINKS_MAX
                    && let Some((&oldest, _)) = parked().next()
                {
                    // Who has said nothing for so long keeps nobody out.
                    self.close(
                        oldest,
                        Some("too many connections on the quorum port that say nothing".into()),
                    );
                }
                self.links.insert(link, Link::new(Kind::Parked));
            }
            // It takes this server for a leader, which it is not: it must look again.
            _ => self.outputs.push_back(Output::Close { link, why: None }),
        }
        link
    }

    /// The connection asked for stands.
    pub fn connected(&mut self, now: MonoMs, link: LinkId) {
        if let Role::Learning(learning) = &mut self.role
            && learning.link() == link
        {
            self.links.insert(link, Link::new(Kind::Leader));
            self.learn(now, crate::zab::learner::Input::Opened);
        } else {
            self.outputs.push_back(Output::Close { link, why: None });
        }
    }

    /// The connection is closed, broken, or could not be made.
    pub fn closed(&mut self, now: MonoMs, link: LinkId) {
        self.forget(link);
        match &self.role {
            Role::Leading(_) => self.lead_input(now, crate::zab::leader::Input::Left(link)),
            Role::Learning(learning) if learning.link() == link => self.leader_lost(now),
            _ => {}
        }
    }

    /// Bytes that came on the link, from the first that is not consumed yet.
    pub fn receive(&mut self, now: MonoMs, link: LinkId, bytes: &[u8], host: &mut impl Host) -> Received {
        let Some(held) = self.links.get(&link) else { return Received::all(bytes) };
        match (&held.kind, &self.role) {
            (Kind::Leader, _) => self.receive_from_leader(now, link, bytes, host),
            (_, Role::Leading(_)) => Received::some(self.receive_from_learner(now, link, bytes, host)),
            (Kind::Parked, _) => Received { consumed: 0, hold: true },
            (Kind::Learner(_), _) => unreachable!("M4: links of learners are closed with the leadership"),
        }
    }

    /// Connections that have something to send.
    pub fn waiting(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.links.iter().filter(|(_, link)| !link.out.waiting().is_empty()).map(|(id, _)| *id)
    }

    /// What is to be sent on the link.
    #[must_use]
    pub fn output(&self, link: LinkId) -> &[u8] {
        self.links.get(&link).map_or(&[], |link| link.out.waiting())
    }

    /// So many bytes of [`Member::output`] were sent.
    pub fn sent(&mut self, link: LinkId, count: usize) {
        if let Some(link) = self.links.get_mut(&link) {
            link.out.consume(count);
        }
    }

    fn next_link(&mut self) -> LinkId {
        self.link_last += 1;
        LinkId(self.link_last)
    }

    fn close(&mut self, link: LinkId, why: Option<String>) {
        self.forget(link);
        self.outputs.push_back(Output::Close { link, why });
    }

    fn forget(&mut self, link: LinkId) {
        if let Some(Link { kind: Kind::Learner(feed), .. }) = self.links.remove(&link)
            && let link::Source::Snap(Some(source)) = feed.source
        {
            self.abandoned.push(*source);
        }
    }

    // --- The disk ---

    /// Ends a round of calls: what was received is appended, and made durable. Call it when nothing more is at hand, so that one flush
    /// serves for all that came together.
    pub fn finish_round(&mut self, now: MonoMs) {
        self.append_received(now);
        self.roll_over(now);
        self.sync_for_the_late(now);
        self.flush();
    }

    fn flush(&mut self) {
        if !self.positions.is_flushed()
            && !matches!(self.role, Role::Failed)
            && let Some(flusher) = self.storage.flusher.take()
        {
            self.outputs.push_back(Output::Flush(flusher));
        }
    }

    /// There is something to flush, and nobody flushes: the next [`Member::finish_round`] asks for it.
    #[must_use]
    pub fn has_to_flush(&self) -> bool {
        !self.positions.is_flushed() && self.storage.flusher.is_some()
    }

    /// A flush asked for is over.
    pub fn flushed(&mut self, now: MonoMs, flusher: Flusher, result: Result<Durable, LogError>) {
        self.storage.flusher = Some(flusher);
        if matches!(self.role, Role::Failed) {
            return;
        }
        match result {
            Ok(durable) => self.positions.flush(durable.zxid),
            Err(error) => return self.fail(error.into()),
        }
        let durable = self.positions.durable();
        match &self.role {
            Role::Settling => self.settle(now),
            Role::Leading(leading) if leading.is_established() => {
                self.lead_input(now, crate::zab::leader::Input::Durable(durable));
            }
            Role::Learning(_) => {
                self.learn(now, crate::zab::learner::Input::Durable(durable));
                self.resume_after_flush();
            }
            Role::Leading(_) | Role::Looking | Role::Failed => {}
        }
    }

    fn resume_after_flush(&mut self) {
        if let Role::Learning(learning) = &mut self.role
            && self.positions.is_flushed()
            && std::mem::take(&mut learning.held_for_flush)
        {
            self.outputs.push_back(Output::Resume(learning.link()));
        }
    }

    /// Gives up for good (M6).
    fn fail(&mut self, error: MemberError) {
        if matches!(self.role, Role::Failed) {
            return;
        }
        self.end_role();
        self.role = Role::Failed;
        self.outputs.push_back(Output::Failed(error));
    }

    /// Writes down how far the log is committed: a start applies as much without waiting for a leader. Costs two flushes of the superblock, if
    /// there is news.
    pub fn note_committed(&mut self) {
        if matches!(self.role, Role::Failed) || self.is_receiving_state() {
            return;
        }
        if let Err(error) = self.storage.dir.note_committed(self.positions.applied()) {
            self.fail(error.into());
        }
    }

    /// Notes down durably where the log ends and how far it is committed. For a clean stop, when nothing is called any more.
    ///
    /// # Errors
    /// The next start treats this life as one that crashed.
    pub fn stop(mut self) -> Result<(), MemberError> {
        if matches!(self.role, Role::Failed) {
            return Ok(());
        }
        let Some(mut flusher) = self.storage.flusher.take() else { return Ok(()) };
        let end = flusher.flush()?;
        Ok(self.storage.dir.clean_stop(end.pos, self.positions.applied())?)
    }

    // --- Applying ---

    /// Something may be applied.
    #[must_use]
    pub fn has_to_apply(&self) -> bool {
        self.positions.applied() < self.may_apply()
            && matches!(self.tree, TreeState::Sound)
            && !matches!(self.role, Role::Failed)
    }

    /// False when it is to be made anew from this server's disk, and until [`Output::Tree`].
    #[must_use]
    pub const fn has_tree(&self) -> bool {
        matches!(self.tree, TreeState::Sound | TreeState::StateNeeded)
    }

    /// Its tree is not what the transactions make of it, and has not been replaced yet.
    #[must_use]
    pub const fn has_diverged(&self) -> bool {
        matches!(self.tree, TreeState::Differs | TreeState::StateNeeded)
    }

    /// The tree differs, and cannot be made from what is here.
    const fn needs_state(&self) -> bool {
        matches!(self.tree, TreeState::StateNeeded)
    }

    /// Applying a transaction gave another tree than its leader had: this server stops serving, and makes the tree anew from its own disk. If that
    /// is no better, it does not stand for election any more, and gets the whole state from a leader. `zxid` is the transaction's.
    pub fn note_diverged(&mut self, now: MonoMs, zxid: Zxid) {
        let again = zxid <= self.differed_at;
        self.differed_at = zxid.max(self.differed_at);
        self.tree = if again { TreeState::StateNeeded } else { TreeState::Differs };
        self.look(now, StopReason::Diverged(zxid));
    }

    /// Gives `apply` what is committed and durable and was not applied yet, in order, at most `txns_max` transactions; returns how many.
    ///
    /// # Errors
    /// What `apply` returned: then nothing may be applied any more.
    pub fn apply<E>(
        &mut self,
        txns_max: usize,
        apply: impl FnMut(Zxid, &[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        if !self.has_to_apply() {
            return Ok(0);
        }
        let count = self.apply_some(txns_max, apply)?;
        if let Some(at) = self.serve_at
            && self.positions.applied() >= at
        {
            self.serve_at = None;
            self.serve();
        }
        Ok(count)
    }

    fn serve_from(&mut self, zxid: Zxid) {
        if self.positions.applied() >= zxid || self.broken.is(Rule::ServedBeforeApplied) {
            self.serve();
        } else {
            self.serve_at = Some(zxid);
        }
    }

    fn serve(&mut self) {
        let served = std::mem::replace(&mut self.serving, true);
        let standing = self.standing().expect("a role that serves has an epoch");
        self.outputs.push_back(if served { Output::Epoch(standing) } else { Output::Serve(standing) });
        self.serve_as_leader();
    }

    /// Feeds learners that are behind, and installs a received state; a little at a time. True when there is more to do at once. While
    /// [`Member::is_receiving_state`], whoever else takes snapshots pauses; `alone` says that they do.
    pub fn work(&mut self, now: MonoMs, tree: &impl SharedTree, alone: bool) -> bool {
        for source in self.abandoned.drain(..) {
            source.abort(tree);
        }
        match &self.role {
            Role::Learning(_) | Role::Settling if !self.has_tree() => self.load_step(now, alone),
            Role::Leading(_) => self.feed_all(now, tree),
            Role::Learning(_) => self.install_step(now, alone),
            Role::Settling | Role::Looking | Role::Failed => false,
        }
    }

    /// An empty buffer for transactions.
    pub fn group(&mut self) -> Group {
        self.recent.take_buffer()
    }

    /// Most bytes that a group may have.
    #[must_use]
    pub fn group_bytes_max(&self) -> u64 {
        self.storage.appender.group_bytes_max()
    }
}
