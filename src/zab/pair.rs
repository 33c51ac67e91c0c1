//! Leaders and learners together, over a seeded network and disks that lose what is not durable.
//!
//! Histories are lists of zxids. Links deliver in order or die, at both ends or at one; disks complete when they like; a crash takes what is not
//! durable, all or in part. Elections are drawn: the best of some quorum leads, or, in a share of the seeds, anybody does. After each step:
//!
//! - I1: an epoch is established by one server, once.
//! - I2: what is committed is in the durable history of a quorum of voters who have entered the epoch, or a later one.
//! - I3: what anybody holds committed is a beginning of one history, which only grows.
//! - I4: an epoch told, promised or acknowledged is durable with who tells it, and so is the history that comes with NEWLEADER.
//! - I5: current ≤ accepted, and neither goes back.
//! - I6: a leader is confirmed only if no later epoch was established when it was asked.
//! - I7: honest members never find each other out of order, with gaps, or without what is committed.
//!
//! And when failures end, everybody is in step soon, writes are committed and all histories are equal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::leader::{self, DropReason, GiveUpReason, Summary};
use super::learner::{self, LearnerError, Start};
use super::{History, Leader, Learner, Limits, LinkId, Plan, plan};
use crate::base::rng::Rng;
use crate::base::{Epoch, MonoMs, ServerId, Zxid};
use crate::wire::quorum_config::{Electorate, QuorumConfig};

const LIMITS: Limits =
    Limits { init_ms: 2_000, sync_ms: 1_500, liveness_ms: 500, probe_ms: 100, ping_ms: 250, stall_ms: 1_000 };

const STEPS: u32 = 2_500;
/// Within these everybody must be in step once failures have ended: some expired limits and an election each.
const HEALING_STEPS: u32 = 6_000;

/// To a leader.
#[derive(Clone, Debug)]
enum Up {
    Info(Epoch),
    AckEpoch(Option<Epoch>, Zxid),
    Ack(Zxid),
    Pong(u64),
}

/// To a learner.
#[derive(Clone, Debug)]
enum Down {
    Info(Epoch),
    Diff(Zxid),
    Trunc(Zxid),
    Snap(Vec<Zxid>),
    Proposal(Zxid),
    Commit(Zxid),
    NewLeader(Zxid),
    UpToDate,
    Ping(u64),
}

/// How one end of a link sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// It learns so behind what is still under way.
    Closing,
    /// Nothing comes any more, not even the end.
    Silent,
    Closed,
}

#[derive(Debug)]
struct Link {
    leader: usize,
    /// Of the leader that it belongs to.
    term: u64,
    learner: usize,
    up: VecDeque<Up>,
    up_end: End,
    down: VecDeque<Down>,
    down_end: End,
}

/// Something a disk has been asked for; the log's flushes aside.
#[derive(Clone, Debug)]
enum DiskOp {
    Accept(Epoch),
    Enter(Epoch),
    Truncate(Zxid),
    Install(Vec<Zxid>),
}

#[derive(Debug)]
enum Role {
    Down,
    Looking,
    Leading(Lead),
    Following(Follow),
}

#[derive(Debug)]
struct Lead {
    leader: Leader,
    term: u64,
    /// Links behind NEWLEADER: they get what is proposed and committed.
    fed: BTreeSet<LinkId>,
    /// Questions: the token that answers, and the last epoch established when it was asked.
    asked: Vec<(u64, Epoch)>,
}

#[derive(Debug)]
struct Follow {
    learner: Learner,
    link: LinkId,
    incoming: Vec<Zxid>,
    /// Records in the log when NEWLEADER came.
    history_len: usize,
}

#[derive(Debug)]
struct Node {
    role: Role,
    log: Vec<Zxid>,
    durable_len: usize,
    /// Records that are in snapshots only.
    base_len: usize,
    accepted: Epoch,
    current: Epoch,
    committed: Zxid,
    /// What a restart knows of it.
    committed_durable: Zxid,
    op: Option<DiskOp>,
}

impl Node {
    fn last(&self) -> Zxid {
        self.log.last().copied().unwrap_or_default()
    }

    fn durable(&self) -> Zxid {
        self.durable_len.checked_sub(1).map_or(Zxid::ZERO, |at| self.log[at])
    }

    fn len_upto(&self, zxid: Zxid) -> usize {
        self.log.iter().take_while(|z| **z <= zxid).count()
    }

    fn applied_len(&self) -> usize {
        self.len_upto(self.committed).min(self.durable_len)
    }
}

impl History for Node {
    fn base(&self) -> Zxid {
        self.base_len.checked_sub(1).map_or(Zxid::ZERO, |at| self.log[at])
    }

    fn floor(&self, zxid: Zxid) -> Zxid {
        self.log[self.base_len..].iter().rev().find(|z| **z <= zxid).copied().unwrap_or(self.base())
    }

    fn epoch(&self) -> Epoch {
        self.current
    }
}

/// What has been seen over all seeds, so that nothing is shown about what never happens.
#[derive(Debug, Default)]
struct Seen {
    established: u32,
    commits: u32,
    crashes: u32,
    confirmed: u32,
    plans: [u32; 3],
    cut_below: u32,
    stale_epochs: u32,
    behind: u32,
    ahead: u32,
    later: u32,
    lost: u32,
    rejoined: u32,
}

struct World<'a> {
    rng: Rng,
    now: MonoMs,
    electorate: Electorate,
    nodes: Vec<Node>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    next_term: u64,
    /// Anybody may be elected.
    wrong_elections: bool,
    /// I1.
    established: BTreeMap<Epoch, usize>,
    /// I3.
    chosen: Vec<Zxid>,
    seen: &'a mut Seen,
}

fn id_of(node: usize) -> ServerId {
    ServerId(node as i64 + 1)
}

impl<'a> World<'a> {
    /// 3 or 5 voters and, last, an observer.
    fn new(seed: u64, seen: &'a mut Seen) -> World<'a> {
        let mut rng = Rng::new(seed);
        let voters = if rng.one_in(3) { 5 } else { 3 };
        let line = |id: usize| {
            let role = if id > voters { "observer" } else { "participant" };
            format!("server.{id}=h{id}:1:2:{role}\n")
        };
        let text: String = (1..=voters + 1).map(line).collect();
        let config = QuorumConfig::parse(&text).expect("a configuration");
        let node = || Node {
            role: Role::Looking,
            log: Vec::new(),
            durable_len: 0,
            base_len: 0,
            accepted: Epoch(0),
            current: Epoch(0),
            committed: Zxid::ZERO,
            committed_durable: Zxid::ZERO,
            op: None,
        };
        World {
            wrong_elections: rng.one_in(3),
            rng,
            now: MonoMs(1),
            electorate: Electorate::new(Arc::new(config), None),
            nodes: (0..=voters).map(|_| node()).collect(),
            links: BTreeMap::new(),
            next_link: 1,
            next_term: 1,
            established: BTreeMap::new(),
            chosen: Vec::new(),
            seen,
        }
    }

    fn any_node(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    fn is_voter(&self, node: usize) -> bool {
        self.electorate.is_voter(id_of(node))
    }

    fn is_quorum(&self, nodes: impl Iterator<Item = usize>) -> bool {
        self.electorate.contains_quorum(&nodes.map(id_of).collect())
    }

    // --- Steps ---

    fn step(&mut self) {
        for _ in 0..6 {
            self.deliver();
        }
        let node = self.any_node();
        self.disk(node);
        match self.rng.below(60) {
            0..8 => self.propose(node),
            8..10 => (0..4).for_each(|_| self.propose(node)),
            10..14 => self.ask(node),
            14..17 => self.remember(node),
            17..24 => self.elect(),
            24..40 => self.follow(node),
            40 if self.rng.one_in(2) => self.crash(node),
            41..44 => self.restart(node),
            44..46 => self.cut_a_link(),
            _ => self.time(80),
        }
        self.check();
    }

    /// Nothing fails any more.
    fn healing_step(&mut self) {
        (0..20).for_each(|_| self.deliver());
        for node in 0..self.nodes.len() {
            self.disk(node);
            self.disk(node);
            self.restart(node);
            if self.rng.one_in(4) {
                self.follow(node);
            }
        }
        if !self.nodes.iter().any(|n| matches!(n.role, Role::Leading(_))) {
            self.elect();
        }
        self.time(20);
        self.check();
    }

    fn is_healed(&self) -> bool {
        let leaders = self.nodes.iter().filter(|n| matches!(&n.role, Role::Leading(_))).count();
        leaders == 1
            && self.nodes.iter().all(|n| match &n.role {
                Role::Leading(lead) => lead.leader.is_established(),
                Role::Following(follow) => follow.learner.is_in_step(),
                _ => false,
            })
    }

    fn time(&mut self, ms: u64) {
        self.now = self.now.plus(self.rng.below(ms) + 1);
        for node in 0..self.nodes.len() {
            match &self.nodes[node].role {
                Role::Leading(lead) if lead.leader.next_timer().is_some_and(|at| at <= self.now) => {
                    self.lead(node, leader::Input::Timer);
                }
                Role::Following(follow) if follow.learner.next_timer() <= self.now => {
                    self.learn(node, learner::Input::Timer);
                }
                _ => {}
            }
        }
    }

    /// The best of some quorum of those who look for a leader, or anybody of them.
    fn elect(&mut self) {
        let mut looking: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.is_voter(*n) && matches!(self.nodes[*n].role, Role::Looking))
            .collect();
        if looking.is_empty() {
            return;
        }
        if self.wrong_elections && self.rng.one_in(2) {
            let chosen = looking[self.rng.below(looking.len() as u64) as usize];
            return self.begin_to_lead(chosen);
        }
        // As few as make a quorum, drawn.
        while looking.len() > 1 {
            let out = self.rng.below(looking.len() as u64) as usize;
            let rest = looking.iter().copied().filter(|n| *n != looking[out]);
            if !self.is_quorum(rest) {
                break;
            }
            looking.remove(out);
        }
        if self.is_quorum(looking.iter().copied()) {
            let best =
                looking.into_iter().max_by_key(|n| (self.nodes[*n].current, self.nodes[*n].last(), *n));
            self.begin_to_lead(best.expect("a quorum is not empty"));
        }
    }

    fn begin_to_lead(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.durable_len = n.log.len();
        let mine = Summary { accepted: n.accepted, current: n.current, last: n.last() };
        let leader = Leader::new(self.now, id_of(node), self.electorate.clone(), LIMITS, mine);
        n.role =
            Role::Leading(Lead { leader, term: self.next_term, fed: BTreeSet::new(), asked: Vec::new() });
        self.next_term += 1;
    }

    /// Whoever looks for a leader finds one of those there are.
    fn follow(&mut self, node: usize) {
        let leaders: Vec<(usize, u64)> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(at, n)| match &n.role {
                Role::Leading(lead) => Some((at, lead.term)),
                _ => None,
            })
            .collect();
        if !matches!(self.nodes[node].role, Role::Looking) || leaders.is_empty() {
            return;
        }
        let (leader, term) = leaders[self.rng.below(leaders.len() as u64) as usize];
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let link = Link {
            leader,
            term,
            learner: node,
            up: VecDeque::new(),
            up_end: End::Open,
            down: VecDeque::new(),
            down_end: End::Open,
        };
        self.links.insert(id, link);
        let voter = self.is_voter(node);
        let n = &mut self.nodes[node];
        n.durable_len = n.log.len();
        let start = Start {
            accepted: n.accepted,
            current: n.current,
            last: n.last(),
            committed: n.committed,
            voter,
            whole: true,
        };
        let learner = Learner::new(self.now, LIMITS, start);
        n.role = Role::Following(Follow { learner, link: id, incoming: Vec::new(), history_len: 0 });
        self.learn(node, learner::Input::Opened);
    }

    /// What is under way for the role may still reach the disk, or not; nobody hears of it.
    fn leave_role(&mut self, node: usize) {
        let mine: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(id, link)| match &self.nodes[node].role {
                Role::Leading(lead) => link.leader == node && link.term == lead.term,
                Role::Following(follow) => follow.link == **id,
                _ => false,
            })
            .map(|(id, _)| *id)
            .collect();
        mine.into_iter().for_each(|id| self.cut(id, false));
        if self.rng.one_in(2)
            && let Some(op) = self.nodes[node].op.take()
        {
            self.carry_out(node, op);
        }
        self.nodes[node].op = None;
        self.nodes[node].role = Role::Looking;
    }

    fn crash(&mut self, node: usize) {
        if matches!(self.nodes[node].role, Role::Down) {
            return;
        }
        self.seen.crashes += 1;
        self.leave_role(node);
        let n = &mut self.nodes[node];
        let lost = self.rng.below((n.log.len() - n.durable_len) as u64 + 1) as usize;
        n.log.truncate(n.log.len() - lost);
        n.durable_len = n.log.len();
        n.committed = n.committed_durable;
        n.role = Role::Down;
    }

    fn restart(&mut self, node: usize) {
        if matches!(self.nodes[node].role, Role::Down) {
            self.nodes[node].role = Role::Looking;
        }
    }

    fn cut_a_link(&mut self) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        if !ids.is_empty() {
            let id = ids[self.rng.below(ids.len() as u64) as usize];
            let half_open = self.rng.one_in(2);
            self.cut(id, half_open);
        }
    }

    /// What is under way arrives in part.
    fn cut(&mut self, id: LinkId, half_open: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (up, down) =
            (self.rng.below(link.up.len() as u64 + 1), self.rng.below(link.down.len() as u64 + 1));
        link.up.truncate(up as usize);
        link.down.truncate(down as usize);
        let silent = self.rng.below(2);
        for (at, end) in [&mut link.up_end, &mut link.down_end].into_iter().enumerate() {
            if *end == End::Open {
                *end = if half_open && at as u64 == silent { End::Silent } else { End::Closing };
            }
        }
    }

    // --- Disks ---

    /// Something that was asked of a disk is done, or a part of it.
    fn disk(&mut self, node: usize) {
        if self.rng.one_in(2) {
            self.flush(node);
        } else if let Some(op) = self.nodes[node].op.take() {
            let learner_input = match &op {
                DiskOp::Accept(_) => learner::Input::Accepted,
                DiskOp::Enter(_) => learner::Input::Entered,
                DiskOp::Install(_) => learner::Input::Installed,
                DiskOp::Truncate(_) => {
                    self.carry_out(node, op);
                    let last = self.nodes[node].last();
                    return self.learn(node, learner::Input::Truncated { last });
                }
            };
            let leader_input = match op {
                DiskOp::Accept(_) => leader::Input::Accepted,
                _ => leader::Input::Entered,
            };
            self.carry_out(node, op);
            match self.nodes[node].role {
                Role::Leading(_) => self.lead(node, leader_input),
                _ => self.learn(node, learner_input),
            }
        }
    }

    fn carry_out(&mut self, node: usize, op: DiskOp) {
        let n = &mut self.nodes[node];
        match op {
            DiskOp::Accept(epoch) => {
                assert!(epoch > n.accepted, "I5");
                n.accepted = epoch;
            }
            DiskOp::Enter(epoch) => {
                assert!(epoch >= n.current && epoch <= n.accepted, "I5");
                n.current = epoch;
            }
            DiskOp::Truncate(to) => {
                let len = n.len_upto(to);
                n.log.truncate(len);
                n.durable_len = len;
            }
            DiskOp::Install(log) => {
                (n.durable_len, n.base_len) = (log.len(), log.len());
                n.log = log;
                // The state is the leader's applied one: committed.
                (n.committed, n.committed_durable) = (n.last(), n.last());
                assert_eq!(n.log, self.chosen[..n.log.len()], "I3");
            }
        }
    }

    fn flush(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if matches!(n.op, Some(DiskOp::Truncate(_) | DiskOp::Install(_))) {
            return;
        }
        n.durable_len += self.rng.below((n.log.len() - n.durable_len) as u64 + 2) as usize;
        n.durable_len = n.durable_len.min(n.log.len());
        let upto = n.durable();
        match n.role {
            Role::Leading(_) => self.lead(node, leader::Input::Durable(upto)),
            Role::Following(_) => self.learn(node, learner::Input::Durable(upto)),
            _ => {}
        }
    }

    /// What is applied is remembered, and perhaps in a snapshot.
    fn remember(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let len = n.applied_len();
        if n.op.is_none() && len > 0 {
            n.committed_durable = n.committed_durable.max(n.log[len - 1]);
            if self.rng.one_in(3) {
                n.base_len = n.base_len.max(self.rng.below(len as u64 + 1) as usize);
            }
        }
    }

    // --- Leading ---

    fn propose(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Role::Leading(lead) = &n.role else { return };
        if !lead.leader.is_established() {
            return;
        }
        let epoch = lead.leader.epoch().expect("established");
        let last = n.last();
        let zxid = if last.epoch() == epoch { last.next() } else { Zxid::new(epoch, 1) };
        n.log.push(zxid);
        let fed = lead.fed.clone();
        self.lead(node, leader::Input::Proposed(zxid));
        fed.into_iter().for_each(|link| self.send_down(link, Down::Proposal(zxid)));
    }

    fn ask(&mut self, node: usize) {
        let last = self.established.keys().last().copied().unwrap_or_default();
        if let Role::Leading(lead) = &mut self.nodes[node].role {
            let token = lead.leader.ask_token();
            lead.asked.push((token, last));
            self.lead(node, leader::Input::Ask);
        }
    }

    fn lead(&mut self, node: usize, input: leader::Input) {
        let now = self.now;
        let Role::Leading(lead) = &mut self.nodes[node].role else { return };
        lead.leader.handle(now, input);
        while let Role::Leading(lead) = &mut self.nodes[node].role
            && let Some(output) = lead.leader.poll()
        {
            self.leaders(node, output);
        }
    }

    fn leaders(&mut self, node: usize, output: leader::Output) {
        use leader::Output;
        match output {
            Output::Accept(epoch) => self.ask_disk(node, DiskOp::Accept(epoch)),
            Output::Enter(epoch) => self.ask_disk(node, DiskOp::Enter(epoch)),
            Output::LeaderInfo(link) => {
                let epoch = self.lead_of(node).leader.epoch().expect("told");
                assert!(self.nodes[node].accepted >= epoch, "I4");
                self.send_down(link, Down::Info(epoch));
            }
            Output::Synchronise { link, theirs } => self.synchronise(node, link, theirs),
            Output::Established => self.establish(node),
            Output::UpToDate(link) => self.send_down(link, Down::UpToDate),
            Output::Commit(zxid) => {
                self.nodes[node].committed = zxid;
                self.seen.commits += 1;
                self.choose(node);
                let fed = self.lead_of(node).fed.clone();
                fed.into_iter().for_each(|link| self.send_down(link, Down::Commit(zxid)));
            }
            Output::Ping { link, token } => self.send_down(link, Down::Ping(token)),
            Output::Confirmed(token) => self.confirmed(node, token),
            Output::Drop { link, why } => {
                let honest = matches!(
                    why,
                    DropReason::Replaced | DropReason::Ahead | DropReason::Silent(_) | DropReason::Lagging(_)
                );
                assert!(honest, "I7: {why}");
                self.seen.ahead += u32::from(why == DropReason::Ahead);
                self.lead_of(node).fed.remove(&link);
                self.cut(link, false);
            }
            Output::GiveUp(why) => {
                self.seen.behind += u32::from(matches!(why, GiveUpReason::Behind(_)));
                self.seen.later += u32::from(matches!(why, GiveUpReason::LaterEpoch(..)));
                self.seen.lost += u32::from(matches!(why, GiveUpReason::QuorumLost(_)));
                self.leave_role(node);
            }
        }
    }

    fn lead_of(&mut self, node: usize) -> &mut Lead {
        let Role::Leading(lead) = &mut self.nodes[node].role else { panic!("it leads") };
        lead
    }

    fn ask_disk(&mut self, node: usize, op: DiskOp) {
        assert!(self.nodes[node].op.is_none(), "one after the other");
        self.nodes[node].op = Some(op);
    }

    fn synchronise(&mut self, node: usize, link: LinkId, theirs: Zxid) {
        let n = &self.nodes[node];
        let is_established = matches!(&n.role, Role::Leading(lead) if lead.leader.is_established());
        let upto = if is_established { n.committed } else { n.last() };
        let (plan, mut packets) = (plan(n, theirs, true), Vec::new());
        let after = match plan {
            Plan::Diff { after } => {
                packets.push(Down::Diff(upto));
                after
            }
            Plan::Trunc { to } => {
                packets.push(Down::Trunc(to));
                to
            }
            Plan::Snap => {
                let state = n.log[..n.applied_len()].to_vec();
                let at = state.last().copied().unwrap_or_default();
                packets.push(Down::Snap(state));
                at
            }
        };
        for zxid in n.log.iter().copied().filter(|zxid| *zxid > after) {
            packets.push(Down::Proposal(zxid));
            packets.extend((zxid <= upto).then_some(Down::Commit(zxid)));
        }
        self.seen.plans[match plan {
            Plan::Diff { .. } => 0,
            Plan::Trunc { .. } => 1,
            Plan::Snap => 2,
        }] += 1;
        let epoch = self.lead_of(node).leader.epoch().expect("told");
        packets.push(Down::NewLeader(Zxid::new(epoch, 0)));
        packets.into_iter().for_each(|packet| self.send_down(link, packet));
        self.lead_of(node).fed.insert(link);
        // Nested: what it puts out is taken by the caller's loop.
        let now = self.now;
        self.lead_of(node).leader.handle(now, leader::Input::NewLeaderSent(link));
    }

    /// I1.
    fn establish(&mut self, node: usize) {
        let epoch = self.lead_of(node).leader.epoch().expect("established");
        assert_eq!(self.established.insert(epoch, node), None, "I1: {epoch} is established twice");
        self.seen.established += 1;
        self.nodes[node].committed = self.nodes[node].last();
        self.choose(node);
    }

    /// I2, I3: the leader says that its history up to `committed` is.
    fn choose(&mut self, node: usize) {
        let n = &self.nodes[node];
        let len = n.len_upto(n.committed);
        let history = n.log[..len].to_vec();
        let Role::Leading(lead) = &n.role else { panic!("it leads") };
        let epoch = lead.leader.epoch().expect("established");
        let holds = |n: &Node| n.current >= epoch && n.durable_len >= len && n.log[..len] == history[..];
        let holders = (0..self.nodes.len()).filter(|at| self.is_voter(*at) && holds(&self.nodes[*at]));
        assert!(self.is_quorum(holders), "I2: {} of {epoch} is not held by a quorum", n.committed);
        let common = self.chosen.len().min(len);
        assert_eq!(self.chosen[..common], history[..common], "I3");
        if len > self.chosen.len() {
            self.chosen = history;
        }
    }

    /// I6.
    fn confirmed(&mut self, node: usize, token: u64) {
        let lead = self.lead_of(node);
        let epoch = lead.leader.epoch().expect("established");
        for (_, later) in lead.asked.extract_if(.., |(asked, _)| *asked <= token).collect::<Vec<_>>() {
            assert!(later <= epoch, "I6: {later} was there when {epoch} was asked");
            self.seen.confirmed += 1;
        }
    }

    // --- Following ---

    fn learn(&mut self, node: usize, input: learner::Input) {
        let now = self.now;
        let Role::Following(follow) = &mut self.nodes[node].role else { return };
        if let Err(why) = follow.learner.handle(now, input) {
            match why {
                LearnerError::StaleEpoch { .. } => self.seen.stale_epochs += 1,
                LearnerError::CutBelow { .. } => self.seen.cut_below += 1,
                LearnerError::Silent(_) | LearnerError::TooSlow(_) => {}
                _ => panic!("I7: {why}"),
            }
            return self.leave_role(node);
        }
        while let Role::Following(follow) = &mut self.nodes[node].role
            && let Some(output) = follow.learner.poll()
        {
            self.learners(node, output);
        }
    }

    fn learners(&mut self, node: usize, output: learner::Output) {
        use learner::Output;
        let n = &mut self.nodes[node];
        let Role::Following(follow) = &mut n.role else { panic!("it follows") };
        let link = follow.link;
        match output {
            Output::Hello => {
                let accepted = n.accepted;
                self.send_up(link, Up::Info(accepted));
            }
            Output::Accept(epoch) => self.ask_disk(node, DiskOp::Accept(epoch)),
            Output::AckEpoch { current } => {
                assert!(follow.learner.epoch() <= Some(n.accepted), "I4: told before it is promised");
                self.seen.rejoined += u32::from(current.is_none());
                let last = n.last();
                self.send_up(link, Up::AckEpoch(current, last));
            }
            Output::Truncate { to } => self.ask_disk(node, DiskOp::Truncate(to)),
            Output::Receive { .. } => {
                let log = std::mem::take(&mut follow.incoming);
                self.ask_disk(node, DiskOp::Install(log));
            }
            Output::Enter(epoch) => self.ask_disk(node, DiskOp::Enter(epoch)),
            Output::AckEntered(epoch) => {
                assert!(n.current == epoch && n.durable_len >= follow.history_len, "I4: NEWLEADER");
                self.send_up(link, Up::Ack(Zxid::new(epoch, 0)));
            }
            Output::InStep => {}
            Output::Commit(zxid) => {
                assert!(follow.learner.is_in_step(), "A4");
                n.committed = n.committed.max(zxid);
            }
            Output::Ack { from, to } => {
                assert!(follow.learner.is_in_step(), "A5");
                assert!(to <= n.durable() && from <= to && from.epoch() == to.epoch(), "A5");
                if self.rng.one_in(2) {
                    (from.0..to.0).for_each(|zxid| self.send_up(link, Up::Ack(Zxid(zxid))));
                }
                self.send_up(link, Up::Ack(to));
            }
        }
    }

    // --- The network ---

    fn send_up(&mut self, id: LinkId, packet: Up) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.up_end == End::Open) {
            link.up.push_back(packet);
        }
    }

    fn send_down(&mut self, id: LinkId, packet: Down) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.down_end == End::Open) {
            link.down.push_back(packet);
        }
    }

    /// One packet of one link, one way.
    fn deliver(&mut self) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.rng.below(ids.len() as u64) as usize];
        if self.rng.one_in(2) {
            self.deliver_up(id)
        } else {
            self.deliver_down(id)
        }
        self.links.retain(|_, link| {
            let is_over = |end| matches!(end, End::Closed | End::Silent);
            !(is_over(link.up_end) && is_over(link.down_end) && link.up.is_empty() && link.down.is_empty())
        });
    }

    fn deliver_up(&mut self, id: LinkId) {
        let link = self.links.get_mut(&id).expect("drawn from those there are");
        let (leader, learner, packet) = (link.leader, link.learner, link.up.pop_front());
        let end = link.up_end;
        if packet.is_none() && end == End::Closing {
            link.up_end = End::Closed;
        }
        let is_there =
            matches!(&self.nodes[leader].role, Role::Leading(lead) if lead.term == self.links[&id].term);
        if !is_there {
            return self.cut(id, false);
        }
        let Some(packet) = packet else {
            if end == End::Closing {
                self.lead_of(leader).fed.remove(&id);
                self.lead(leader, leader::Input::Left(id));
            }
            return;
        };
        self.lead(leader, leader::Input::Heard(id));
        let input = match packet {
            Up::Info(accepted) => {
                leader::Input::Joined { link: id, id: id_of(learner), accepted, zabra: learner % 2 == 0 }
            }
            Up::AckEpoch(current, last) => leader::Input::AckEpoch { link: id, current, last },
            Up::Ack(zxid) => leader::Input::Ack { link: id, zxid },
            Up::Pong(token) => leader::Input::Pong { link: id, token },
        };
        self.lead(leader, input);
    }

    fn deliver_down(&mut self, id: LinkId) {
        let node = self.links[&id].learner;
        let n = &mut self.nodes[node];
        let link = self.links.get_mut(&id).expect("drawn from those there are");
        let Role::Following(follow) = &mut n.role else { return self.cut(id, false) };
        if follow.link != id {
            return self.cut(id, false);
        }
        // What comes behind TRUNC or SNAP waits for it.
        if matches!(n.op, Some(DiskOp::Truncate(_) | DiskOp::Install(_))) {
            return;
        }
        let Some(packet) = link.down.pop_front() else {
            if link.down_end == End::Closing {
                link.down_end = End::Closed;
                self.leave_role(node);
            }
            return;
        };
        self.learn(node, learner::Input::Heard);
        let n = &mut self.nodes[node];
        let Role::Following(follow) = &mut n.role else { return };
        let input = match packet {
            Down::Info(epoch) => learner::Input::LeaderInfo { epoch, zabra: epoch.0 % 2 == 0 },
            Down::Diff(upto) => learner::Input::Diff { upto },
            Down::Trunc(to) => learner::Input::Trunc { to },
            Down::Snap(log) => {
                let zxid = log.last().copied().unwrap_or_default();
                follow.incoming = log;
                learner::Input::Snap { zxid }
            }
            Down::Proposal(zxid) => {
                n.log.push(zxid);
                learner::Input::Proposal(zxid)
            }
            Down::Commit(zxid) => learner::Input::Commit(zxid),
            Down::NewLeader(zxid) => {
                follow.history_len = n.log.len();
                learner::Input::NewLeader(zxid)
            }
            Down::UpToDate => learner::Input::UpToDate,
            Down::Ping(token) => return self.send_up(id, Up::Pong(token)),
        };
        self.learn(node, input);
    }

    /// I3, I5, and that what is known to be committed is there.
    fn check(&self) {
        for n in &self.nodes {
            assert!(n.current <= n.accepted, "I5");
            assert!(n.last().epoch() <= n.accepted, "nothing is logged of an epoch that is not promised");
            let len = n.len_upto(n.committed);
            assert!(len <= self.chosen.len() && n.log[..len] == self.chosen[..len], "I3: {n:?}");
            assert!(n.log.windows(2).all(|w| w[0] < w[1]), "zxids grow: {n:?}");
        }
    }
}

/// Failures, then none; then a write.
fn run(seed: u64, seen: &mut Seen) {
    let mut world = World::new(seed, seen);
    (0..STEPS).for_each(|_| world.step());
    world.wrong_elections = false;
    let mut steps = 0;
    while !world.is_healed() {
        world.healing_step();
        steps += 1;
        assert!(steps < HEALING_STEPS, "not in step: {:#?}", world.nodes);
    }
    let before = world.chosen.len();
    (0..world.nodes.len()).for_each(|node| world.propose(node));
    let mut steps = 0;
    while world.chosen.len() == before
        || world.nodes.iter().any(|n| n.log != world.chosen || n.committed != n.last())
    {
        world.healing_step();
        steps += 1;
        assert!(steps < HEALING_STEPS, "the write is not with everybody: {:#?}", world.nodes);
    }
    for _ in 0..200 {
        world.healing_step();
        assert!(world.is_healed(), "nothing fails any more: {:#?}", world.nodes);
    }
}

#[test]
fn one_history_through_crashes_cut_links_slow_disks_and_wrong_elections() {
    let mut seen = Seen::default();
    for seed in 0..200 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, &mut seen)));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
    let counts = [
        seen.established,
        seen.commits,
        seen.crashes,
        seen.confirmed,
        seen.plans[0],
        seen.plans[1],
        seen.plans[2],
        seen.behind,
        seen.ahead,
        seen.lost,
        seen.rejoined,
    ];
    assert!(
        counts.iter().all(|count| *count > 10) && seen.stale_epochs > 0 && seen.later > 0,
        "all of it happens: {seen:?}"
    );
}
