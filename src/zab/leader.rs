//! One epoch of a leader: discovery, synchronisation, broadcast, and who is still there. Begins when an election has chosen this server, ends with
//! [`Output::GiveUp`] or when it is dropped.
//!
//! - L1: the epoch proposed is above every epoch accepted by a quorum of voters, this server among them; it is durable here
//!   before anybody is told (rule R8).
//! - L2: nobody is brought up to date before a quorum has promised to follow and none of those is ahead of this server.
//! - L3: the epoch is established when a quorum, this server among them, has the whole history the epoch began with, durably. Then, and not
//!   before, that history is committed.
//! - L4: a proposal is committed when a quorum of those who hold the epoch's history has it durably. Only proposals of this epoch are counted;
//!   what came before them is committed with L3.
//! - L5: acknowledgements are cumulative: links deliver in order, and learners log in order.
//! - L6: a link that has been replaced, or dropped, is not heard any more (rule R5).
//! - L7: a leader that no quorum has been heard by for so long, or whose own disk stands still, gives up by itself (rule R14). Time in which this
//!   server itself did not look is nobody's silence, unless it was so long that the others have given it up.
//! - L8: before the epoch is established, and not after that (rule R13), a leader gives up when so many voters have settled on another one that those
//!   who have joined or may still come are no quorum. So does one whose epoch is decided, and who has lost so many links since that those who have joined are
//!   none: who has left looks for a leader, and would have to hear of a quorum that follows this one to come again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Broken, Limits, LinkId, Rule};
use crate::base::{Epoch, MonoMs, ServerId, Zxid};
use crate::wire::quorum_config::Electorate;

/// Epochs from here on are not believed: a broken peer could use them all up, and a zxid with the sign bit set has no order in ZooKeeper.
pub const EPOCH_MAX: Epoch = Epoch(0x7fff_ff00);

/// A peer whose epoch is further ahead than elections can have brought it is not believed: one packet could use up all epochs.
const EPOCHS_AHEAD_MAX: u32 = 1 << 24;

/// What this server had when it was elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Accepted epoch, durable.
    pub accepted: Epoch,
    /// Current epoch, durable.
    pub current: Epoch,
    /// Last zxid in the log, durable.
    pub last: Zxid,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// FOLLOWERINFO or OBSERVERINFO.
    Joined {
        /// Where.
        link: LinkId,
        /// Who it says it is.
        id: ServerId,
        /// What it has promised.
        accepted: Epoch,
        /// It answers probes at any time.
        zabra: bool,
    },
    /// The epoch of [`Output::Accept`] is durable.
    Accepted,
    /// ACKEPOCH. `current` is none from a learner that had accepted the epoch before.
    AckEpoch {
        /// Where.
        link: LinkId,
        /// Its current epoch.
        current: Option<Epoch>,
        /// Its last zxid.
        last: Zxid,
    },
    /// The epoch of [`Output::Enter`] is durable.
    Entered,
    /// NEWLEADER has been put on the link, behind the history.
    NewLeaderSent(LinkId),
    /// ACK, or the last of several that came together.
    Ack {
        /// Where.
        link: LinkId,
        /// Of what; counter 0 is of NEWLEADER.
        zxid: Zxid,
    },
    /// The answer to a ping.
    Pong {
        /// Where.
        link: LinkId,
        /// The ping's.
        token: u64,
    },
    /// Something came, whatever it was.
    Heard(LinkId),
    /// The link is closed.
    Left(LinkId),
    /// Transactions up to this one are in this server's log, and on their way to the others.
    Proposed(Zxid),
    /// This server's log is durable up to here.
    Durable(Zxid),
    /// Somebody wants to know whether this server still leads.
    Ask,
    /// A voter says in the election that it has settled on another leader; or, none, that this is so no more.
    Settled {
        /// Who.
        voter: ServerId,
        /// On whom.
        on: Option<ServerId>,
    },
    /// The time asked for may have come.
    Timer,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make this the accepted epoch, durably; then [`Input::Accepted`].
    Accept(Epoch),
    /// Tell the learner the epoch.
    LeaderInfo(LinkId),
    /// Make this the current epoch, durably; then [`Input::Entered`].
    Enter(Epoch),
    /// Bring the learner up to date; then NEWLEADER and [`Input::NewLeaderSent`].
    Synchronise {
        /// Where.
        link: LinkId,
        /// Its last zxid.
        theirs: Zxid,
    },
    /// Everything the epoch began with is committed; the server may serve.
    Established,
    /// Tell the learner that it may serve.
    UpToDate(LinkId),
    /// Everything up to here is committed.
    Commit(Zxid),
    /// Ping the learner.
    Ping {
        /// Where.
        link: LinkId,
        /// To come back.
        token: u64,
    },
    /// Everybody who asked up to this token (see [`Leader::ask_token`]) may believe that this server still led when they asked.
    Confirmed(u64),
    /// Close the link.
    Drop {
        /// Which.
        link: LinkId,
        /// Why.
        why: DropReason,
    },
    /// Stop leading. Nothing follows.
    GiveUp(GiveUpReason),
}

/// Why a learner is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// The same server has a newer connection.
    #[error("the same server has connected again")]
    Replaced,
    /// A message that does not belong there.
    #[error("{0} out of order")]
    OutOfOrder(&'static str),
    /// An epoch nobody gets to.
    #[error("accepted epoch {0} cannot be right")]
    Epoch(Epoch),
    /// It has what a quorum lacks: it was not asked in the election.
    #[error("it is ahead of this leader")]
    Ahead,
    /// It acknowledged what was not proposed.
    #[error("it acknowledges {found}, which was not proposed (last is {proposed})")]
    Unproposed {
        /// What it acknowledged.
        found: Zxid,
        /// Last proposed.
        proposed: Zxid,
    },
    /// Nothing was heard for too long.
    #[error("silent for {0} ms")]
    Silent(u64),
    /// A proposal was not acknowledged for too long.
    #[error("acknowledges nothing for {0} ms (syncLimit)")]
    Lagging(u64),
}

/// Why a leader stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUpReason {
    /// Too few joined in `initLimit`.
    #[error("no quorum has joined within initLimit")]
    NotJoined,
    /// Too few acknowledged the new epoch or its history in `initLimit`.
    #[error("no quorum was brought up to date within initLimit")]
    NotSynchronised,
    /// Elected on old news.
    #[error("server {} has more than this one, which was elected on old news", .0.0)]
    Behind(ServerId),
    /// A voter has promised itself to a later epoch and cannot join this one.
    #[error("server {} has promised itself to epoch {}", .0.0, .1)]
    LaterEpoch(ServerId, Epoch),
    /// Too few can still come.
    #[error("too many voters have settled on server {} for this one to find a quorum", .0.0)]
    Elsewhere(ServerId),
    /// Too few are heard of.
    #[error("no quorum has been heard of for {0} ms")]
    QuorumLost(u64),
    /// The own disk does not take what was proposed.
    #[error("the log has not been flushed for {0} ms")]
    DiskStalled(u64),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Leader {
    me: ServerId,
    electorate: Electorate,
    limits: Limits,
    mine: Summary,
    phase: Phase,
    /// When the phase must be over; none once established.
    deadline: Option<MonoMs>,
    /// Highest epoch accepted by those who joined before the epoch was decided.
    accepted_max: Epoch,
    /// Voters who promised to follow, this server among them.
    promised: BTreeSet<ServerId>,
    /// Voters that have settled on another leader, and on whom.
    elsewhere: BTreeMap<ServerId, ServerId>,
    links: BTreeMap<LinkId, Peer>,
    proposed: Zxid,
    durable: Zxid,
    committed: Zxid,
    /// Since when the own disk owes something.
    undurable_since: Option<MonoMs>,
    /// Since when, between a decided epoch and an established one, too few have a link.
    deserted_since: Option<MonoMs>,
    /// Too few have a link.
    quorum_lost: bool,
    /// Until when a quorum was heard, as far as anybody looked.
    quorum_heard: MonoMs,
    pings: Pings,
    broken: Broken,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    /// Waiting for a quorum to join.
    Joining,
    /// The epoch is decided and being stored.
    Accepting(Epoch),
    /// Waiting for a quorum to promise.
    Promising(Epoch),
    /// The epoch is being entered.
    Entering(Epoch),
    /// Waiting for a quorum to have the history.
    Synchronising(Epoch),
    /// Broadcast.
    Established(Epoch),
    /// Given up.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Joined,
    /// LEADERINFO was sent.
    Informed,
    /// ACKEPOCH has come; its last zxid.
    Promised(Zxid),
    /// History is on its way.
    Synchronising,
    /// NEWLEADER is on its way.
    NewLeaderSent,
    /// It has the history.
    Synchronised,
    /// It was told to serve.
    UpToDate,
}

#[derive(Clone, Debug)]
struct Peer {
    id: ServerId,
    voter: bool,
    zabra: bool,
    stage: Stage,
    acked: Zxid,
    heard: MonoMs,
    /// Since when it owes an acknowledgement.
    owes_since: Option<MonoMs>,
    /// Highest token that came back.
    ponged: u64,
}

/// Pings, and who asked whether this server leads.
#[derive(Clone, Debug)]
struct Pings {
    /// Of the last round.
    token: u64,
    next_probe: MonoMs,
    /// For ZooKeeper's servers.
    next_ping: MonoMs,
    confirmed: u64,
    /// Somebody asked since the last round began.
    asked: bool,
    /// A round that somebody waits for is under way.
    waited_for: bool,
}

impl Leader {
    /// A leader that nobody has joined yet.
    #[must_use]
    pub fn new(now: MonoMs, me: ServerId, electorate: Electorate, limits: Limits, mine: Summary) -> Leader {
        assert!(electorate.is_voter(me), "an observer is never elected");
        assert!(mine.current <= mine.accepted, "an epoch is accepted before it is current");
        let pings = Pings {
            token: 0,
            next_probe: now,
            next_ping: now,
            confirmed: 0,
            asked: false,
            waited_for: false,
        };
        let mut leader = Leader {
            me,
            electorate,
            limits,
            mine,
            phase: Phase::Joining,
            deadline: Some(now.plus(limits.init_ms)),
            accepted_max: mine.accepted,
            promised: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            links: BTreeMap::new(),
            proposed: mine.last,
            durable: mine.last,
            committed: mine.last,
            undurable_since: None,
            deserted_since: None,
            quorum_lost: false,
            quorum_heard: now,
            pings,
            broken: Broken::default(),
            outputs: VecDeque::new(),
        };
        leader.propose_epoch(now);
        leader
    }

    /// Goes on counting pings where `before`, whose links this leader has taken over, left off: an answer to one of its pings says nothing about
    /// this epoch.
    #[must_use]
    pub fn after(mut self, before: &Leader) -> Leader {
        (self.pings.token, self.pings.confirmed) = (before.pings.token, before.pings.token);
        self
    }

    /// The same, with a rule switched off.
    #[must_use]
    pub fn breaking(self, broken: Broken) -> Leader {
        Leader { broken, ..self }
    }

    /// Takes one input. Time never runs backwards between calls.
    pub fn handle(&mut self, now: MonoMs, input: Input) {
        if self.phase == Phase::Over {
            return;
        }
        match input {
            Input::Joined { link, id, accepted, zabra } => self.joined(now, link, id, accepted, zabra),
            Input::Accepted => self.accepted(now),
            Input::AckEpoch { link, current, last } => self.ack_epoch(now, link, current, last),
            Input::Entered => self.entered(now),
            Input::NewLeaderSent(link) => {
                if let Some(peer) = self.links.get_mut(&link) {
                    assert_eq!(
                        peer.stage,
                        Stage::Synchronising,
                        "NEWLEADER closes a history that was asked for"
                    );
                    peer.stage = Stage::NewLeaderSent;
                }
            }
            Input::Ack { link, zxid } => self.ack(now, link, zxid),
            Input::Pong { link, token } => self.pong(now, link, token),
            Input::Heard(link) => self.hear(now, link),
            Input::Left(link) => self.left(now, link),
            Input::Proposed(zxid) => self.proposed(now, zxid),
            Input::Durable(zxid) => self.durable(now, zxid),
            Input::Ask => self.ask(now),
            Input::Settled { voter, on } => self.settled(voter, on),
            Input::Timer => self.timer(now),
        }
        self.note_deserted(now);
    }

    /// The next thing to do; `None` when all is done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The epoch, once it may be told.
    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Joining | Phase::Accepting(_) | Phase::Over => None,
            Phase::Promising(e) | Phase::Entering(e) | Phase::Synchronising(e) | Phase::Established(e) => {
                Some(e)
            }
        }
    }

    /// Writes may be proposed.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established(_))
    }

    /// The token whose [`Output::Confirmed`] answers an [`Input::Ask`] made now.
    #[must_use]
    pub const fn ask_token(&self) -> u64 {
        self.pings.token + 1
    }

    /// When [`Input::Timer`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<MonoMs> {
        if self.phase == Phase::Over {
            return None;
        }
        let probe = (self.is_established() || !self.links.is_empty()).then_some(self.pings.next_probe);
        let lost = self.quorum_lost.then(|| self.quorum_heard.plus(self.limits.liveness_ms));
        let stalled = self.undurable_since.map(|since| since.plus(self.limits.stall_ms));
        let deserted = self.deserted_since.map(|since| since.plus(self.limits.liveness_ms));
        [self.deadline, probe, lost, stalled, deserted].into_iter().flatten().min()
    }

    /// Voters that are in step, this server included; for those who watch.
    #[must_use]
    pub fn followers_in_step(&self) -> BTreeSet<ServerId> {
        self.in_step(|_| true)
    }

    /// Who has joined, by link: id, whether it votes, and whether it is in step.
    pub fn learners(&self) -> impl Iterator<Item = (LinkId, ServerId, bool, bool)> + '_ {
        self.links.iter().map(|(link, peer)| (*link, peer.id, peer.voter, peer.stage >= Stage::Synchronised))
    }

    /// What the machine's next steps depend on, times and pings aside: by this a search knows a state again. `place` gives each server a number
    /// below 64; `links` are those there may be, in the order in which they are to count.
    #[cfg(any(test, feature = "testing"))]
    pub fn fingerprint(
        &self,
        place: impl Fn(ServerId) -> u32,
        links: impl Iterator<Item = LinkId>,
        into: &mut impl std::hash::Hasher,
    ) {
        use std::hash::Hash;
        assert!(self.outputs.is_empty(), "drained after each input");
        (self.phase, self.accepted_max, self.mine.current, self.mine.last).hash(into);
        (self.proposed, self.durable, self.committed).hash(into);
        self.promised.iter().fold(0, |set, id| set | 1_u64 << place(*id)).hash(into);
        self.elsewhere.keys().fold(0, |set, id| set | 1_u64 << place(*id)).hash(into);
        let mut known = 0;
        for link in links {
            let peer = self.links.get(&link);
            known += usize::from(peer.is_some());
            peer.map(|peer| (peer.stage, peer.acked)).hash(into);
        }
        assert_eq!(known, self.links.len(), "no link is left out");
    }

    // --- Discovery ---

    fn joined(&mut self, now: MonoMs, link: LinkId, id: ServerId, accepted: Epoch, zabra: bool) {
        if accepted >= EPOCH_MAX || accepted.0.saturating_sub(self.mine.accepted.0) > EPOCHS_AHEAD_MAX {
            return self.drop_link(link, DropReason::Epoch(accepted));
        }
        let voter = self.electorate.is_voter(id);
        let epoch = self.epoch();
        self.elsewhere.remove(&id);
        if let Some(epoch) = epoch
            && accepted > epoch
            && voter
            && !self.broken.is(Rule::StaleEpochFollowed)
        {
            // It would refuse this epoch for good, and be missing from then on.
            return self.give_up(GiveUpReason::LaterEpoch(id, accepted));
        }
        let older: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(other, peer)| peer.id == id && **other != link)
            .map(|(l, _)| *l)
            .collect();
        for older in older {
            self.hear(now, older);
            self.note_heard(now);
            self.drop_link(older, DropReason::Replaced);
        }
        let peer = Peer {
            id,
            voter,
            zabra,
            stage: Stage::Joined,
            acked: Zxid::ZERO,
            heard: now,
            owes_since: None,
            ponged: 0,
        };
        if self.links.insert(link, peer).is_some() {
            return self.drop_link(link, DropReason::OutOfOrder("FOLLOWERINFO"));
        }
        if self.phase == Phase::Joining {
            self.accepted_max = self.accepted_max.max(accepted);
            self.propose_epoch(now);
        } else if epoch.is_some() {
            self.inform(link);
        }
    }

    /// L1: decides the epoch once a quorum has joined.
    fn propose_epoch(&mut self, now: MonoMs) {
        let joined = self.voters_where(|_| true);
        if !self.electorate.contains_quorum(&joined) {
            return;
        }
        let epoch = Epoch(self.accepted_max.0 + 1);
        assert!(epoch > self.mine.accepted, "L1");
        self.enter_phase(now, Phase::Accepting(epoch));
        self.outputs.push_back(Output::Accept(epoch));
    }

    fn accepted(&mut self, now: MonoMs) {
        let Phase::Accepting(epoch) = self.phase else { panic!("asked for in this phase only") };
        self.enter_phase(now, Phase::Promising(epoch));
        let waiting: Vec<LinkId> = self.links.keys().copied().collect();
        waiting.into_iter().for_each(|link| self.inform(link));
        self.promised.insert(self.me);
        self.enter_epoch(now);
    }

    fn inform(&mut self, link: LinkId) {
        if let Some(peer) = self.links.get_mut(&link) {
            assert_eq!(peer.stage, Stage::Joined, "told once");
            peer.stage = Stage::Informed;
            self.outputs.push_back(Output::LeaderInfo(link));
        }
    }

    fn ack_epoch(&mut self, now: MonoMs, link: LinkId, current: Option<Epoch>, last: Zxid) {
        let Some(peer) = self.links.get_mut(&link) else { return };
        if peer.stage != Stage::Informed {
            return self.drop_link(link, DropReason::OutOfOrder("ACKEPOCH"));
        }
        (peer.stage, peer.heard) = (Stage::Promised(last), now);
        let (id, voter) = (peer.id, peer.voter);
        match self.phase {
            Phase::Promising(_) => {}
            // Somebody is storing the epoch: all are brought up to date behind it.
            Phase::Entering(_) => return,
            _ => return self.synchronise(link),
        }
        let Some(current) = current else { return };
        // An observer is not asked: what it has too much was never committed, if a quorum of voters does not know of it.
        if !voter {
            return;
        }
        if (current, last) > (self.mine.current, self.mine.last) && !self.broken.is(Rule::AheadIgnored) {
            return self.ahead(link, id);
        }
        self.promised.insert(id);
        self.enter_epoch(now);
    }

    /// L2: without it there may still be a quorum that this server is good enough for; else the election was wrong.
    fn ahead(&mut self, link: LinkId, id: ServerId) {
        self.drop_link(link, DropReason::Ahead);
        let left = self.voters_where(|_| true);
        if !self.electorate.contains_quorum(&left) {
            self.give_up(GiveUpReason::Behind(id));
        }
    }

    /// L2.
    fn enter_epoch(&mut self, now: MonoMs) {
        let Phase::Promising(epoch) = self.phase else { return };
        if self.electorate.contains_quorum(&self.promised) {
            self.enter_phase(now, Phase::Entering(epoch));
            self.outputs.push_back(Output::Enter(epoch));
        }
    }

    fn entered(&mut self, now: MonoMs) {
        let Phase::Entering(epoch) = self.phase else { panic!("asked for in this phase only") };
        assert_eq!(
            (self.durable, self.proposed),
            (self.mine.last, self.mine.last),
            "L3: nothing has been added"
        );
        self.enter_phase(now, Phase::Synchronising(epoch));
        let waiting: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, p)| matches!(p.stage, Stage::Promised(_)))
            .map(|(l, _)| *l)
            .collect();
        waiting.into_iter().for_each(|link| self.synchronise(link));
        self.establish(now);
    }

    fn synchronise(&mut self, link: LinkId) {
        if let Some(peer) = self.links.get_mut(&link)
            && let Stage::Promised(theirs) = peer.stage
        {
            peer.stage = Stage::Synchronising;
            self.outputs.push_back(Output::Synchronise { link, theirs });
        }
    }

    /// L3.
    fn establish(&mut self, now: MonoMs) {
        let Phase::Synchronising(epoch) = self.phase else { return };
        let quorum = self.electorate.contains_quorum(&self.in_step(|_| true));
        if !quorum && !self.broken.is(Rule::EstablishedWithoutQuorum) {
            return;
        }
        self.phase = Phase::Established(epoch);
        self.deadline = None;
        (self.pings.next_probe, self.quorum_heard) = (now, now);
        self.outputs.push_back(Output::Established);
        let waiting: Vec<LinkId> =
            self.links.iter().filter(|(_, p)| p.stage == Stage::Synchronised).map(|(l, _)| *l).collect();
        waiting.into_iter().for_each(|link| self.up_to_date(now, link));
    }

    fn up_to_date(&mut self, now: MonoMs, link: LinkId) {
        if let Some(peer) = self.links.get_mut(&link) {
            // It was not asked before: its silence begins here.
            (peer.stage, peer.heard) = (Stage::UpToDate, now);
            // What was committed when it came, it does not acknowledge any more; nor what the epoch began with.
            peer.owes_since = (self.proposed > self.committed.max(peer.acked)).then_some(now);
            self.outputs.push_back(Output::UpToDate(link));
        }
    }

    fn enter_phase(&mut self, now: MonoMs, phase: Phase) {
        assert!(phase > self.phase, "phases follow each other");
        self.phase = phase;
        self.deadline = Some(now.plus(self.limits.init_ms));
    }

    // --- Broadcast ---

    fn ack(&mut self, now: MonoMs, link: LinkId, zxid: Zxid) {
        let (epoch, proposed) = (self.epoch(), self.proposed);
        let Some(peer) = self.links.get_mut(&link) else { return };
        let Some(epoch) = epoch else {
            return self.drop_link(link, DropReason::OutOfOrder("ACK"));
        };
        peer.heard = now;
        if zxid == Zxid::new(epoch, 0) {
            return match peer.stage {
                Stage::NewLeaderSent => {
                    peer.stage = Stage::Synchronised;
                    self.synchronised(now, link);
                }
                // The answer to UPTODATE.
                Stage::UpToDate => {}
                _ => self.drop_link(link, DropReason::OutOfOrder("ACK of NEWLEADER")),
            };
        }
        // Followers of ZooKeeper 3.8 log and acknowledge beside the thread that acknowledges NEWLEADER (ZOOKEEPER-4685).
        if peer.stage < Stage::NewLeaderSent {
            return self.drop_link(link, DropReason::OutOfOrder("ACK"));
        }
        if zxid > proposed {
            return self.drop_link(link, DropReason::Unproposed { found: zxid, proposed });
        }
        // A ZooKeeper learner may acknowledge what it was sent of earlier epochs.
        if zxid.epoch() == epoch && zxid > peer.acked {
            peer.acked = zxid;
            if peer.stage == Stage::UpToDate {
                peer.owes_since = (zxid < proposed).then_some(now);
            }
            if peer.voter {
                self.commit();
            }
        }
    }

    fn synchronised(&mut self, now: MonoMs, link: LinkId) {
        if self.is_established() {
            self.up_to_date(now, link);
            self.commit();
        } else {
            self.establish(now);
        }
    }

    fn proposed(&mut self, now: MonoMs, zxid: Zxid) {
        assert!(
            self.is_established() && Some(zxid.epoch()) == self.epoch(),
            "only an established leader proposes"
        );
        assert!(zxid > self.proposed, "zxids grow");
        self.proposed = zxid;
        self.undurable_since.get_or_insert(now);
        for peer in self.links.values_mut().filter(|peer| peer.stage == Stage::UpToDate) {
            peer.owes_since.get_or_insert(now);
        }
    }

    fn durable(&mut self, now: MonoMs, zxid: Zxid) {
        assert!(self.durable <= zxid && zxid <= self.proposed, "a flush covers what was appended");
        if zxid > self.durable {
            self.durable = zxid;
            self.undurable_since = (zxid < self.proposed).then_some(now);
        }
        self.commit();
    }

    /// L4: the greatest zxid that a quorum has covered.
    fn commit(&mut self) {
        if !self.is_established() {
            return;
        }

        let mut candidates: Vec<Zxid> = self
            .links
            .values()
            .filter(|p| p.voter && p.stage >= Stage::Synchronised)
            .map(|p| p.acked)
            .collect();
        candidates.push(self.durable);
        candidates.retain(|zxid| *zxid > self.committed);
        candidates.sort_unstable();
        while let Some(zxid) = candidates.pop() {
            let alone = self.broken.is(Rule::CommitByLeaderAlone) && zxid <= self.durable;
            if alone || self.electorate.contains_quorum(&self.covered(zxid)) {
                assert_eq!(Some(zxid.epoch()), self.epoch(), "L4: what came before is committed with L3");
                self.committed = zxid;
                self.outputs.push_back(Output::Commit(zxid));
                return;
            }
        }
    }

    /// Voters who have everything up to `zxid` durably.
    fn covered(&self, zxid: Zxid) -> BTreeSet<ServerId> {
        let mut set = self.in_step(|peer| peer.acked >= zxid);
        if self.durable < zxid && !self.broken.is(Rule::LeaderCountsUnflushed) {
            set.remove(&self.me);
        }
        set
    }

    // --- Who is there ---

    /// Voters with a link for which `f` holds, and this server.
    fn voters_where(&self, f: impl Fn(&Peer) -> bool) -> BTreeSet<ServerId> {
        let others = self.links.values().filter(|peer| peer.voter && f(peer)).map(|peer| peer.id);
        others.chain([self.me]).collect()
    }

    /// The same, of those who hold the epoch's history.
    fn in_step(&self, f: impl Fn(&Peer) -> bool) -> BTreeSet<ServerId> {
        self.voters_where(|peer| peer.stage >= Stage::Synchronised && f(peer))
    }

    fn ask(&mut self, now: MonoMs) {
        self.pings.asked = true;
        if !self.pings.waited_for {
            self.ping_round(now);
        }
        self.confirm();
    }

    /// Pings everybody who can answer.
    fn ping_round(&mut self, now: MonoMs) {
        self.pings.token += 1;
        self.pings.waited_for = std::mem::take(&mut self.pings.asked);
        let slow_too = self.pings.waited_for || now >= self.pings.next_ping;
        let token = self.pings.token;
        if slow_too {
            self.pings.next_ping = now.plus(self.limits.ping_ms);
        }
        for (link, peer) in &self.links {
            // A learner of ZooKeeper's that is not up to date does not expect a ping.
            if peer.stage == Stage::UpToDate && (peer.zabra || slow_too) {
                self.outputs.push_back(Output::Ping { link: *link, token });
            }
        }
    }

    fn pong(&mut self, now: MonoMs, link: LinkId, token: u64) {
        let last = self.pings.token;
        let Some(peer) = self.links.get_mut(&link) else { return };
        peer.heard = now;
        peer.ponged = peer.ponged.max(token.min(last));
        self.confirm();
        if self.pings.asked && !self.pings.waited_for {
            self.ping_round(now);
            self.confirm();
        }
    }

    /// Who answered a ping had not promised itself to another leader when it did.
    fn confirm(&mut self) {
        let mut tokens: Vec<u64> = self.links.values().filter(|p| p.voter).map(|p| p.ponged).collect();
        tokens.push(self.pings.token);
        tokens.retain(|token| *token > self.pings.confirmed);
        tokens.sort_unstable();
        while let Some(token) = tokens.pop() {
            let asked = self.electorate.contains_quorum(&self.in_step(|p| p.ponged >= token));
            if self.is_established() && (asked || self.broken.is(Rule::SyncUnconfirmed)) {
                self.pings.confirmed = token;
                self.pings.waited_for &= token < self.pings.token;
                return self.outputs.push_back(Output::Confirmed(token));
            }
        }
    }

    fn timer(&mut self, now: MonoMs) {
        if self.deadline.is_some_and(|at| at <= now) && !self.broken.is(Rule::LeaderStays) {
            let joining = matches!(self.phase, Phase::Joining | Phase::Accepting(_));
            let why = if joining { GiveUpReason::NotJoined } else { GiveUpReason::NotSynchronised };
            return self.give_up(why);
        }
        let patience_ms = self.patience_ms(now);
        self.drop_the_silent(now, patience_ms);
        self.note_heard(now);
        self.check_quorum(now, patience_ms);
        if let Some(since) = self.deserted_since
            && now.since(since) >= patience_ms
        {
            return self.give_up(GiveUpReason::QuorumLost(now.since(since)));
        }
        if let Some(since) = self.undurable_since
            && now.since(since) >= self.limits.stall_ms
        {
            return self.give_up(GiveUpReason::DiskStalled(now.since(since)));
        }
        if now >= self.pings.next_probe {
            // Rounds that somebody asked for do not put it off: the silent are looked for with it.
            self.pings.next_probe = now.plus(self.limits.probe_ms);
            self.ping_round(now);
            self.confirm();
        }
    }

    fn hear(&mut self, now: MonoMs, link: LinkId) {
        if let Some(peer) = self.links.get_mut(&link) {
            peer.heard = now;
        }
    }

    /// A connection that ends has been there until it was last looked at.
    fn left(&mut self, now: MonoMs, link: LinkId) {
        let (looked, patience_ms) = (self.looked(now), self.patience_ms(now));
        self.hear(looked, link);
        self.note_heard(looked);
        self.links.remove(&link);
        self.check_quorum(now, patience_ms);
        self.check_who_is_left();
    }

    fn settled(&mut self, voter: ServerId, on: Option<ServerId>) {
        match on {
            Some(leader) => self.elsewhere.insert(voter, leader),
            None => self.elsewhere.remove(&voter),
        };
        self.check_who_is_left();
    }

    /// L8. Who has a link has come, whatever it said before: what it says on two connections has no order.
    fn check_who_is_left(&mut self) {
        if self.is_established()
            || self.phase == Phase::Over
            || self.broken.is(Rule::VainLeaderWaits)
            || self.broken.is(Rule::LeaderStays)
        {
            return;
        }
        let (come, mut left) = (self.voters_where(|_| true), self.electorate.voters());
        left.retain(|id| come.contains(id) || !self.elsewhere.contains_key(id));
        if let Some(leader) = self.elsewhere.values().next()
            && !self.electorate.contains_quorum(&left)
        {
            self.give_up(GiveUpReason::Elsewhere(*leader));
        }
    }

    /// L8: from the epoch's decision on, for which a quorum had joined.
    fn note_deserted(&mut self, now: MonoMs) {
        let decided = !matches!(self.phase, Phase::Joining | Phase::Established(_) | Phase::Over);
        let deserted = decided
            && !self.broken.is(Rule::VainLeaderWaits)
            && !self.electorate.contains_quorum(&self.voters_where(|_| true));
        self.deserted_since = deserted.then(|| self.deserted_since.unwrap_or(now));
    }

    /// Until when this server has looked after the others: until now, unless its timer is late.
    fn looked(&self, now: MonoMs) -> MonoMs {
        self.next_timer().map_or(now, |due| due.min(now))
    }

    /// How long Zabra nodes may be silent: a server that looks again after a pause of its own gives them as much time more, for what they answer. After
    /// a longer one it need not, for by their own clocks they have left.
    fn patience_ms(&self, now: MonoMs) -> u64 {
        let (limit, late) = (self.limits.liveness_ms, now.since(self.looked(now)));
        if late < limit { limit + late } else { limit }
    }

    fn drop_the_silent(&mut self, now: MonoMs, patience_ms: u64) {
        let limits = self.limits;
        let judge = |peer: &Peer| {
            let limit = match peer.stage {
                Stage::UpToDate if peer.zabra => patience_ms,
                Stage::UpToDate => limits.sync_ms,
                _ => limits.init_ms + limits.sync_ms,
            };
            let (silent, owed) = (now.since(peer.heard), peer.owes_since.map_or(0, |since| now.since(since)));
            if silent >= limit {
                Some(DropReason::Silent(silent))
            } else {
                (owed >= limits.sync_ms && peer.voter).then_some(DropReason::Lagging(owed))
            }
        };
        let drops: Vec<_> =
            self.links.iter().filter_map(|(link, peer)| Some((*link, judge(peer)?))).collect();
        if !drops.is_empty() {
            self.note_heard(now);
        }
        drops.into_iter().for_each(|(link, why)| self.drop_link(link, why));
    }

    /// L7. A follower that lost its connection for a moment may come back, but silence counts once: from when a quorum was last heard.
    fn check_quorum(&mut self, now: MonoMs, patience_ms: u64) {
        let linked = self.electorate.contains_quorum(&self.in_step(|_| true));
        self.quorum_lost = self.is_established() && !linked;
        let silent = now.since(self.quorum_heard);
        if self.quorum_lost && silent >= patience_ms && !self.broken.is(Rule::LeaderStays) {
            self.give_up(GiveUpReason::QuorumLost(silent));
        }
    }

    /// Notes until when a quorum was heard, as known at `until`. Peers that are no Zabra nodes answer seldom: while they have a link, they count as
    /// heard.
    fn note_heard(&mut self, until: MonoMs) {
        let counts_twice = self.broken.is(Rule::SilenceCountsTwice);
        let heard = |peer: &Peer| if peer.zabra && !counts_twice { peer.heard.min(until) } else { until };
        let mut times: Vec<MonoMs> = self.links.values().map(heard).chain([until]).collect();
        times.sort_unstable();
        let all_of_quorum =
            |at: &MonoMs| self.electorate.contains_quorum(&self.in_step(|peer| heard(peer) >= *at));
        if let Some(at) = times.into_iter().rev().find(all_of_quorum) {
            self.quorum_heard = self.quorum_heard.max(at);
        }
    }

    fn drop_link(&mut self, link: LinkId, why: DropReason) {
        self.links.remove(&link);
        self.outputs.push_back(Output::Drop { link, why });
    }

    fn give_up(&mut self, why: GiveUpReason) {
        self.phase = Phase::Over;
        self.outputs.push_back(Output::GiveUp(why));
    }
}

#[cfg(test)]
mod tests;
