//! The machine. Invariants EL1-EL9: see the [module](super).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::notice::{Notice, ROUND_AHEAD_MAX};
use super::vote::{Ballot, NO_ZXID, Vote};
use super::{Decision, Input, Options, Output};
use crate::base::{MonoMs, ServerId};
use crate::wire::election::{NOTIFICATION_VERSION, PeerState};
use crate::wire::quorum_config::{Electorate, QuorumConfig};

/// Servers without a vote whose last answer is remembered (EL9). They take their ids from the configuration, or are numbered by the
/// connection layer; past this many, answers are forgotten, not refused.
const ANSWERED_COUNT_MAX: usize = 256;

/// A server's part in elections, from its start to its end.
#[derive(Clone, Debug)]
pub struct Election {
    me: ServerId,
    options: Options,
    electorate: Electorate,
    /// Logical clock: the round this server is in, or was last in.
    round: i64,
    /// Last logged zxid and current epoch at the last start, and, of a new directory, the accepted one.
    started: (i64, i64, Option<i64>),
    phase: Phase,
    /// Voters that are gone, until they are heard of.
    down: BTreeSet<ServerId>,
    /// While leading: voters that have settled on another leader.
    elsewhere: BTreeSet<ServerId>,
    /// When a server without a vote was told what (EL9).
    answered: BTreeMap<ServerId, (MonoMs, Vote, i64, PeerState)>,
    outputs: VecDeque<Output>,
    timer: Option<MonoMs>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Before the first start: nothing to say.
    Idle,
    Looking(Looking),
    Settled(Ballot),
}

/// What a looking server knows.
#[derive(Clone, Debug)]
struct Looking {
    /// This server's own vote.
    initial: Vote,
    proposal: Vote,
    /// Ballots of this round, this server's own among them when it has a vote.
    votes: BTreeMap<ServerId, Ballot>,
    /// Ballots of servers that have settled, of any round.
    settled: BTreeMap<ServerId, Ballot>,
    /// Voters that said they have no vote now.
    voteless: BTreeSet<ServerId>,
    /// For whose sake this server, which is new, has taken its vote back (EL10).
    abstains_for: BTreeSet<ServerId>,
    resend_ms: u64,
    resend_at: MonoMs,
    /// Set while a quorum agrees with the proposal.
    finalize_at: Option<MonoMs>,
}

impl Election {
    /// A server that has not started to look.
    #[must_use]
    pub fn new(me: ServerId, electorate: Electorate, options: Options) -> Election {
        assert!(options.resend_ms_min > 0, "a wait of nothing would send for ever");
        Election {
            me,
            options,
            electorate,
            round: 0,
            started: (NO_ZXID, 0, None),
            phase: Phase::Idle,
            down: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            answered: BTreeMap::new(),
            outputs: VecDeque::new(),
            timer: None,
        }
    }

    /// Takes one input. Time never runs backwards between calls.
    pub fn handle(&mut self, now: MonoMs, input: Input) {
        match input {
            Input::Start { zxid, epoch, new } => self.start(now, zxid, epoch, new),
            Input::Cease => self.phase = Phase::Idle,
            Input::Notice { from, notice } => self.notice(now, from, &notice),
            Input::Timer => {
                self.timer = None;
                self.timer(now);
            }
            Input::PeerUp(peer) => self.peer_up(peer),
            Input::PeerDown(peer) => self.peer_down(now, peer),
            Input::Established { epoch } => {
                if let Phase::Settled(ballot) = &mut self.phase {
                    ballot.vote.epoch = epoch;
                }
            }
            Input::Configured(electorate) => {
                self.electorate = electorate;
                self.restart(now);
            }
        }
        self.set_timer();
    }

    /// The next thing to do; `None` when all is done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What this server is doing; `None` before the first start.
    #[must_use]
    pub fn state(&self) -> Option<PeerState> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Looking(_) => Some(PeerState::Looking),
            Phase::Settled(ballot) => Some(ballot.state),
        }
    }

    /// Logical clock: the round of the election under way, or of the last.
    #[must_use]
    pub const fn round(&self) -> i64 {
        self.round
    }

    /// What this server proposes, or has settled on.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Looking(looking) => Some(looking.proposal),
            Phase::Settled(ballot) => Some(ballot.vote),
        }
    }

    /// Other voters of whom nothing was heard in this round: what an election that does not end waits for. Empty when not looking.
    #[must_use]
    pub fn unheard(&self) -> BTreeSet<ServerId> {
        let Phase::Looking(looking) = &self.phase else { return BTreeSet::new() };
        self.others(self.electorate.voters()).filter(|id| !looking.has_heard(id)).collect()
    }

    /// Voters that cannot vote now, this server perhaps among them: they have to follow a leader first, whom the others must elect. Empty
    /// when not looking.
    #[must_use]
    pub fn voteless(&self) -> BTreeSet<ServerId> {
        let Phase::Looking(looking) = &self.phase else { return BTreeSet::new() };
        let me = (looking.initial.zxid == NO_ZXID && self.electorate.is_voter(self.me)).then_some(self.me);
        looking.voteless.iter().copied().chain(me).collect()
    }

    /// Who may vote.
    #[must_use]
    pub const fn electorate(&self) -> &Electorate {
        &self.electorate
    }

    fn start(&mut self, now: MonoMs, zxid: i64, epoch: i64, new: Option<i64>) {
        let initial =
            if self.electorate.stands(self.me) { Vote { leader: self.me, zxid, epoch } } else { Vote::NONE };
        self.started = (zxid, epoch, new);
        self.round = self.round.saturating_add(1);
        assert!(self.round > 0, "rounds begin at 1, and no peer's negative round is believed");
        self.phase = Phase::Looking(Looking {
            initial,
            proposal: initial,
            votes: BTreeMap::new(),
            settled: BTreeMap::new(),
            voteless: BTreeSet::new(),
            abstains_for: BTreeSet::new(),
            resend_ms: self.options.resend_ms_min,
            resend_at: now.plus(self.options.resend_ms_min),
            finalize_at: None,
        });
        self.propose(now, initial);
        self.tally(now);
    }

    /// Begins again with the same vote; a server that does not look has nothing to begin again.
    fn restart(&mut self, now: MonoMs) {
        if matches!(self.phase, Phase::Looking(_)) {
            let (zxid, epoch, new) = self.started;
            self.start(now, zxid, epoch, new);
        }
    }

    /// Makes `vote` the proposal, casts it and tells every voter.
    fn propose(&mut self, now: MonoMs, vote: Vote) {
        let (me, round, resend_ms) = (self.me, self.round, self.options.resend_ms_min);
        let casts = self.electorate.is_voter(me);
        let Phase::Looking(looking) = &mut self.phase else { return };
        assert!(!looking.initial.beats(&vote, &self.electorate), "EL3: never below the own vote");
        looking.proposal = vote;
        looking.finalize_at = None;
        looking.restart_back_off(now, resend_ms);
        // A server that must not be elected has no vote either, until it has synchronised.
        if casts && looking.initial.zxid != NO_ZXID {
            let state = PeerState::Looking;
            looking.votes.insert(me, Ballot { vote, round, state, version: NOTIFICATION_VERSION });
        }
        self.send_all();
    }

    fn peer_up(&mut self, peer: ServerId) {
        self.down.remove(&peer);
        if matches!(self.phase, Phase::Looking(_)) && self.electorate.is_voter(peer) {
            self.send(peer);
        }
    }

    /// What it said is gone with it: it is neither counted nor followed on the strength of that.
    fn peer_down(&mut self, now: MonoMs, peer: ServerId) {
        if peer == self.me || !self.electorate.is_voter(peer) || !self.down.insert(peer) {
            return;
        }
        self.forget_elsewhere(peer);
        let Phase::Looking(looking) = &mut self.phase else { return };
        looking.votes.remove(&peer);
        looking.settled.remove(&peer);
        looking.voteless.remove(&peer);
        // A proposal only rises within a round: another round is needed to be rid of it.
        if looking.proposal.leader == peer {
            self.restart(now);
        } else {
            self.tally(now);
        }
    }

    fn timer(&mut self, now: MonoMs) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        if looking.resend_at <= now {
            looking.resend_ms = looking.resend_ms.saturating_mul(2).min(self.options.resend_ms_max);
            looking.resend_at = now.plus(looking.resend_ms);
            self.outputs.push_back(Output::Reconnect);
            self.send_all();
        }
        self.tally(now);
    }

    fn notice(&mut self, now: MonoMs, from: ServerId, notice: &Notice) {
        let believable = 0..=self.round.saturating_add(ROUND_AHEAD_MAX);
        if from == self.me || !believable.contains(&notice.round) || matches!(self.phase, Phase::Idle) {
            return;
        }
        self.down.remove(&from);
        self.adopt_newer(now, notice.config.as_ref());
        if !self.electorate.is_voter(from) {
            self.answer_non_voter(now, from);
            return;
        }
        match &self.phase {
            Phase::Idle => {}
            Phase::Settled(ballot) => self.notice_while_settled(from, notice, *ballot),
            Phase::Looking(_) => self.notice_while_looking(now, from, notice),
        }
    }

    /// EL8, EL9: the answer of one that follows is answered by nobody.
    fn notice_while_settled(&mut self, from: ServerId, notice: &Notice, mine: Ballot) {
        let leads_others = notice.state == PeerState::Leading && notice.vote.leader != mine.vote.leader;
        if notice.state == PeerState::Looking || (leads_others && mine.state == PeerState::Following) {
            self.send(from);
        }
        if mine.state != PeerState::Leading {
            return;
        }
        match notice.state {
            PeerState::Following | PeerState::Leading if notice.vote.leader != self.me => {
                self.note_elsewhere(from, notice.vote, notice.round, mine);
            }
            _ => self.forget_elsewhere(from),
        }
    }

    /// What was said before this server was elected is no news: its voters may have come from there.
    fn note_elsewhere(&mut self, voter: ServerId, vote: Vote, round: i64, mine: Ballot) {
        let is_news = round >= mine.round || vote.epoch > mine.vote.epoch;
        if is_news && self.electorate.is_voter(vote.leader) && self.elsewhere.insert(voter) {
            self.outputs.push_back(Output::Settled { voter, on: Some(vote.leader) });
        }
    }

    fn forget_elsewhere(&mut self, voter: ServerId) {
        if self.elsewhere.remove(&voter) {
            self.outputs.push_back(Output::Settled { voter, on: None });
        }
    }

    fn notice_while_looking(&mut self, now: MonoMs, from: ServerId, notice: &Notice) {
        let lags = notice.state == PeerState::Looking && notice.round < self.round;
        if self.electorate.is_voter(notice.vote.leader) {
            match notice.state {
                PeerState::Looking => self.vote_of_looking(now, from, notice),
                PeerState::Following | PeerState::Leading => self.vote_of_settled(now, from, notice),
                // No vote stands behind what an observer has settled on.
                PeerState::Observing => {}
            }
        }
        if lags && matches!(self.phase, Phase::Looking(_)) {
            self.send(from);
        }
    }

    /// EL10: does this server have a vote, and may it be for this?
    fn votes_for(&self, vote: &Vote) -> bool {
        let Phase::Looking(looking) = &self.phase else { return false };
        looking.initial.zxid != NO_ZXID && self.may_vote_for(vote)
    }

    fn may_vote_for(&self, vote: &Vote) -> bool {
        self.started.2.is_none_or(|accepted| vote.is_of_new_ensemble(accepted))
    }

    /// EL10.
    fn abstain(&mut self, now: MonoMs, because_of: ServerId) {
        let (me, (_, epoch, _)) = (self.me, self.started);
        let Phase::Looking(looking) = &mut self.phase else { return };
        looking.abstains_for.insert(because_of);
        if looking.initial.zxid == NO_ZXID {
            return;
        }
        looking.initial = Vote { leader: me, zxid: NO_ZXID, epoch };
        looking.votes.clear();
        self.propose(now, Vote { leader: me, zxid: NO_ZXID, epoch });
    }

    /// EL3, EL4.
    fn vote_of_looking(&mut self, now: MonoMs, from: ServerId, notice: &Notice) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        // It has settled no more.
        looking.settled.remove(&from);
        if notice.vote.zxid == NO_ZXID {
            return self.vote_taken_back(now, from);
        }
        let was_a_reason = looking.abstains_for.remove(&from);
        if !self.may_vote_for(&notice.vote) {
            return self.abstain(now, from);
        }
        let Phase::Looking(looking) = &mut self.phase else { return };
        if was_a_reason && looking.abstains_for.is_empty() {
            return self.restart(now);
        }
        if looking.initial.zxid == NO_ZXID {
            return;
        }
        if notice.round < self.round {
            return;
        }
        let better = notice.vote.beats(&looking.proposal, &self.electorate);
        if notice.round > self.round {
            // A quorum stands and waits only for better votes: this is none. Its sender will hear the outcome.
            if looking.finalize_at.is_some() && !better {
                return;
            }
            let initial = looking.initial;
            looking.votes.clear();
            self.round = notice.round;
            let best = if notice.vote.beats(&initial, &self.electorate) { notice.vote } else { initial };
            self.propose(now, best);
        } else if better {
            self.propose(now, notice.vote);
        }
        self.cast(now, from, notice);
        self.tally(now);
    }

    /// What it cast before counts no more, and it is not waited for.
    fn vote_taken_back(&mut self, now: MonoMs, from: ServerId) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        looking.votes.remove(&from);
        looking.voteless.insert(from);
        let was_a_reason = looking.abstains_for.remove(&from) && looking.abstains_for.is_empty();
        // It cannot be elected either, and a proposal only rises within a round.
        if was_a_reason || looking.proposal.leader == from {
            self.restart(now);
        } else {
            self.tally(now);
        }
    }

    /// Notes a ballot of this round.
    fn cast(&mut self, now: MonoMs, from: ServerId, notice: &Notice) {
        assert!(notice.round == self.round, "ballots of one round only");
        let resend_ms = self.options.resend_ms_min;
        let Phase::Looking(looking) = &mut self.phase else { return };
        // ZooKeeper keeps no version here: among settled servers of one round, id alone decides (`Ballot::agrees`).
        let ballot = Ballot { vote: notice.vote, round: notice.round, state: notice.state, version: 0 };
        looking.voteless.remove(&from);
        if looking.votes.insert(from, ballot).is_none() {
            looking.restart_back_off(now, resend_ms);
        }
    }

    /// EL6.
    fn vote_of_settled(&mut self, now: MonoMs, from: ServerId, notice: &Notice) {
        let ballot =
            Ballot { vote: notice.vote, round: notice.round, state: notice.state, version: notice.version };
        let in_round = notice.round == self.round;
        if in_round {
            self.cast(now, from, notice);
        }
        if !self.may_vote_for(&notice.vote) {
            self.abstain(now, from);
        }
        let resend_ms = self.options.resend_ms_min;
        let Phase::Looking(looking) = &mut self.phase else { return };
        if looking.settled.insert(from, ballot).is_none() {
            // Those who follow it are asked again soon.
            looking.restart_back_off(now, resend_ms);
        }
        let Phase::Looking(looking) = &self.phase else { return };
        let standing = [in_round.then_some(&looking.votes), Some(&looking.settled)];
        let supporters = standing.into_iter().flatten().find_map(|votes| self.leadership(votes, &ballot));
        match supporters {
            Some(supporters) => self.decide(notice.vote, notice.round, supporters),
            None => self.tally(now),
        }
    }

    /// Those in `votes` that agree with `ballot`, if they are a quorum and the leader itself says that it leads.
    fn leadership(&self, votes: &BTreeMap<ServerId, Ballot>, ballot: &Ballot) -> Option<BTreeSet<ServerId>> {
        let leads = match votes.get(&ballot.vote.leader) {
            // Everybody says that it is me: then it is, if it was in this round, and I still have what they elected me for.
            _ if ballot.vote.leader == self.me => ballot.round == self.round && self.votes_for(&ballot.vote),
            Some(leader) => leader.state == PeerState::Leading,
            None => false,
        };
        let supporters = agreeing(votes, ballot);
        (leads && self.electorate.contains_quorum(&supporters)).then_some(supporters)
    }

    /// Settles, or begins or ends the wait for a better vote, by what a looking server has heard (EL4, EL5).
    fn tally(&mut self, now: MonoMs) {
        let Phase::Looking(looking) = &self.phase else { return };
        let (proposal, round) = (looking.proposal, self.round);
        let mine = Ballot { vote: proposal, round, state: PeerState::Looking, version: NOTIFICATION_VERSION };
        let supporters = agreeing(&looking.votes, &mine);
        if !self.electorate.contains_quorum(&supporters) || !self.electorate.may_lead(proposal.leader) {
            self.set_finalize(None);
            return;
        }
        let at = looking.finalize_at.unwrap_or(now.plus(self.options.finalize_wait_ms));
        if at <= now || self.nobody_is_left(looking) {
            self.decide(proposal, round, supporters);
        } else {
            self.set_finalize(Some(at));
        }
    }

    /// EL5. A vote not heard yet can only be for a server that has not been heard: whoever was heard in this round has proposed
    /// itself or better, and the proposal is the best of what was heard.
    fn nobody_is_left(&self, looking: &Looking) -> bool {
        let heard = |id: ServerId| looking.votes.contains_key(&id) || looking.voteless.contains(&id);
        let leader_heard = looking.votes.contains_key(&looking.proposal.leader);
        let voters = self.electorate.voters();
        let mut could_change = voters.into_iter().filter(|id| self.electorate.may_lead(*id) && !heard(*id));
        leader_heard && could_change.all(|id| self.down.contains(&id))
    }

    fn set_finalize(&mut self, at: Option<MonoMs>) {
        if let Phase::Looking(looking) = &mut self.phase {
            looking.finalize_at = at;
        }
    }

    fn decide(&mut self, vote: Vote, round: i64, supporters: BTreeSet<ServerId>) {
        assert!(self.electorate.contains_quorum(&supporters), "a decision has a quorum");
        assert!(self.electorate.is_voter(vote.leader), "EL7");
        let state = match () {
            () if vote.leader == self.me => PeerState::Leading,
            () if self.electorate.is_voter(self.me) => PeerState::Following,
            () => PeerState::Observing,
        };
        let settled = match &self.phase {
            Phase::Looking(looking) => looking.settled.clone(),
            Phase::Idle | Phase::Settled(_) => BTreeMap::new(),
        };
        let mine = Ballot { vote, round, state, version: NOTIFICATION_VERSION };
        self.round = round;
        self.phase = Phase::Settled(mine);
        self.elsewhere.clear();
        for to in self.who_waits(state, &settled) {
            self.send(to);
        }
        self.outputs.push_back(Output::Decided(Decision { state, vote, round, supporters }));
        if state == PeerState::Leading {
            let others = settled.into_iter().filter(|(_, ballot)| ballot.vote.leader != vote.leader);
            others.for_each(|(id, ballot)| self.note_elsewhere(id, ballot.vote, ballot.round, mine));
        }
    }

    /// Those who need not wait or ask when they are told that this server has settled: for word from the leader, everybody; observers, who
    /// hear votes only when they ask, for a quorum of followers; who said (in `settled`) that it leads itself, and is not followed, for followers.
    fn who_waits(&self, state: PeerState, settled: &BTreeMap<ServerId, Ballot>) -> BTreeSet<ServerId> {
        let mut members = self.electorate.members();
        members.remove(&self.me);
        let leader = self.vote().map(|vote| vote.leader);
        let waits_in_vain = |id: &ServerId| {
            let said = settled.get(id).filter(|ballot| ballot.state == PeerState::Leading);
            said.is_some_and(|ballot| Some(ballot.vote.leader) != leader)
        };
        match state {
            PeerState::Leading => {}
            PeerState::Following => {
                members.retain(|id| !self.electorate.is_voter(*id) || waits_in_vain(id));
            }
            PeerState::Observing | PeerState::Looking => members.clear(),
        }
        members
    }

    /// Takes over a newer configuration while looking; begins again if the ensemble is another.
    fn adopt_newer(&mut self, now: MonoMs, config: Option<&Arc<QuorumConfig>>) {
        let looking = matches!(self.phase, Phase::Looking(_));
        let Some(config) = config.filter(|_| self.options.reconfig_enabled && looking) else { return };
        if config.version() <= self.electorate.current().version() {
            return;
        }
        let differs = !config.is_same_ensemble(self.electorate.current());
        self.electorate.adopt(config.clone());
        self.outputs.push_back(Output::Adopted(config.clone()));
        if differs {
            self.restart(now);
        }
    }

    /// EL7, EL9.
    fn answer_non_voter(&mut self, now: MonoMs, from: ServerId) {
        let Some(notice) = self.say(self.round) else { return };
        let answer = (notice.vote, notice.round, notice.state);
        if let Some((at, vote, round, state)) = self.answered.get(&from)
            && (*vote, *round, *state) == answer
            && now.since(*at) < self.options.resend_ms_min
        {
            return;
        }
        if self.answered.len() >= ANSWERED_COUNT_MAX {
            self.answered.clear();
        }
        self.answered.insert(from, (now, notice.vote, notice.round, notice.state));
        self.outputs.push_back(Output::Send { to: from, notice });
    }

    fn send_all(&mut self) {
        for to in self.others(self.electorate.voters()) {
            self.send(to);
        }
    }

    fn others(&self, all: BTreeSet<ServerId>) -> impl Iterator<Item = ServerId> + use<> {
        let me = self.me;
        all.into_iter().filter(move |id| *id != me)
    }

    /// Tells one voter (or the ensemble's observers) what this server proposes, or has settled on.
    fn send(&mut self, to: ServerId) {
        let round = if let Phase::Settled(ballot) = &self.phase { ballot.round } else { self.round };
        if let Some(notice) = self.say(round) {
            self.outputs.push_back(Output::Send { to, notice });
        }
    }

    fn say(&self, round: i64) -> Option<Notice> {
        let (state, vote) = (self.state()?, self.vote()?);
        let config = Some(self.electorate.current().clone());
        Some(Notice { state, vote, round, version: NOTIFICATION_VERSION, config })
    }

    fn set_timer(&mut self) {
        let at = match &self.phase {
            Phase::Looking(looking) => {
                Some(looking.finalize_at.unwrap_or(looking.resend_at).min(looking.resend_at))
            }
            Phase::Idle | Phase::Settled(_) => None,
        };
        if at != self.timer {
            self.timer = at;
            self.outputs.push_back(Output::Timer(at));
        }
    }
}

impl Looking {
    fn has_heard(&self, id: &ServerId) -> bool {
        self.votes.contains_key(id) || self.settled.contains_key(id) || self.voteless.contains(id)
    }

    fn restart_back_off(&mut self, now: MonoMs, resend_ms: u64) {
        self.resend_ms = resend_ms;
        self.resend_at = self.resend_at.min(now.plus(resend_ms));
    }
}

fn agreeing(votes: &BTreeMap<ServerId, Ballot>, ballot: &Ballot) -> BTreeSet<ServerId> {
    votes.iter().filter(|(_, other)| ballot.agrees(other)).map(|(id, _)| *id).collect()
}
