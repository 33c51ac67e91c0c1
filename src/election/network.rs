//! Whole ensembles over a small network in memory: loss, reordering, partitions, restarts, servers that cannot be reached; one seed
//! gives one run.
//!
//! What is checked after every step:
//! - NW1: two leaders never both have a quorum of servers settled on them.
//! - NW2: the machine's own invariants EL3-EL9, as far as they can be seen from outside: [`invariants`](super::invariants).
//!
//! And once the network is whole again:
//! - NW3: within [`CALM_MS_MAX`] every server has settled on one and the same leader.
//! - NW4: from then on nobody says anything.
//!
//! The discovery that follows an election is played by a rule: who follows a server that does not lead, or leads without a quorum that
//! follows, begins to look again after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::invariants::{Step, View, Witness};
use super::*;
use crate::base::rng::Rng;

/// Longest time from a whole network to one leader: two rounds of giving up, connecting and resending.
const CALM_MS_MAX: u64 = 20_000;
/// Seeds of each ensemble in the exploration.
const SEEDS: u64 = 600;
/// A server that has settled on a leader that is none looks again after this long.
const GIVE_UP_MS: u64 = 1_000;

struct Node {
    election: Election,
    zxid: i64,
    epoch: i64,
    timer: Option<MonoMs>,
    settled_at: MonoMs,
    /// Stopped until then.
    dead_until: Option<MonoMs>,
    decisions: Vec<Decision>,
}

struct Network {
    rng: Rng,
    now: MonoMs,
    config: Arc<QuorumConfig>,
    nodes: BTreeMap<ServerId, Node>,
    /// By arrival, then order of sending.
    mail: BTreeMap<(MonoMs, u64), (ServerId, ServerId, Notice)>,
    sent: u64,
    /// Last arrival over each directed link: a connection keeps order.
    arrived: BTreeMap<(ServerId, ServerId), MonoMs>,
    /// Connections break and are made again: order is not kept.
    reorders: bool,
    witness: Witness,
    /// Directed links that lose everything.
    cut: BTreeSet<(ServerId, ServerId)>,
    /// Messages lost, one in this many; 0 for none.
    loss: u64,
    delay_ms_max: u64,
    /// Everything that happened, to compare runs.
    trace: Vec<String>,
}

impl Network {
    fn new(seed: u64, text: &str) -> Network {
        let config = Arc::new(QuorumConfig::parse(text).expect("a configuration"));
        let mut rng = Rng::new(seed);
        let ids: Vec<ServerId> = config.members().keys().copied().collect();
        let mut nodes = BTreeMap::new();
        for id in ids {
            let election = Election::new(id, Electorate::new(config.clone(), None), Options::default());
            let (zxid, epoch) = (rng.below(4) as i64, rng.below(2) as i64);
            let at = MonoMs(0);
            let node = Node {
                election,
                zxid,
                epoch,
                timer: None,
                settled_at: at,
                dead_until: Some(at),
                decisions: vec![],
            };
            nodes.insert(id, node);
        }
        Network {
            rng,
            now: MonoMs(0),
            config,
            nodes,
            mail: BTreeMap::new(),
            sent: 0,
            arrived: BTreeMap::new(),
            reorders: false,
            witness: Witness::default(),
            cut: BTreeSet::new(),
            loss: 0,
            delay_ms_max: 20,
            trace: Vec::new(),
        }
    }

    fn ids(&self) -> Vec<ServerId> {
        self.nodes.keys().copied().collect()
    }

    fn rank(&self, id: ServerId) -> (i64, i64, i64) {
        (self.nodes[&id].epoch, self.nodes[&id].zxid, id.0)
    }

    fn node(&mut self, id: ServerId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a member")
    }

    /// NW2.
    fn input(&mut self, id: ServerId, input: Input) {
        let now = self.now;
        let election = &mut self.node(id).election;
        let before = View::of(election);
        election.handle(now, input.clone());
        let outputs: Vec<Output> = std::iter::from_fn(|| election.poll()).collect();
        let after = View::of(election);
        let step = Step { id, now, before, input: &input, after, outputs: &outputs };
        self.witness.check(&self.config, &step);
        for output in outputs {
            self.output(id, output);
        }
    }

    fn output(&mut self, id: ServerId, output: Output) {
        let now = self.now;
        match output {
            Output::Send { to, notice } => self.post(id, to, notice),
            Output::Timer(at) => self.node(id).timer = at,
            Output::Decided(decision) => {
                self.trace.push(format!("{} {:?} {decision:?}", now.0, id));
                let node = self.node(id);
                node.settled_at = now;
                node.decisions.push(decision);
            }
            Output::Reconnect | Output::Adopted(_) | Output::Settled { .. } => {}
        }
    }

    fn post(&mut self, from: ServerId, to: ServerId, notice: Notice) {
        assert_ne!(from, to);
        if self.cut.contains(&(from, to)) || self.rng.one_in(self.loss) {
            return;
        }
        let mut at = self.now.plus(1 + self.rng.below(self.delay_ms_max));
        let last = self.arrived.entry((from, to)).or_default();
        if !self.reorders {
            at = at.max(*last);
        }
        *last = at.max(*last);
        self.sent += 1;
        self.mail.insert((at, self.sent), (from, to, notice));
    }

    /// Lets the next thing happen, no later than `until`.
    fn step(&mut self, until: MonoMs) -> bool {
        let mail = self.mail.keys().next().map(|(at, _)| *at);
        let live = self.nodes.values().filter(|n| n.dead_until.is_none());
        let timer = live.filter_map(|n| n.timer).min();
        let wake = self.nodes.values().filter_map(|n| n.dead_until).min();
        let give_up = self.nodes.keys().filter_map(|id| self.gives_up_at(*id)).min();
        let Some(at) = [mail, timer, wake, give_up].into_iter().flatten().min().filter(|at| *at <= until)
        else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if mail == Some(at) {
            let (_, (from, to, notice)) = self.mail.pop_first().expect("just looked at");
            if self.node(to).dead_until.is_none() {
                self.input(to, Input::Notice { from, notice });
            }
        } else if wake == Some(at) {
            self.wake(at);
        } else if timer == Some(at) {
            let due = |n: &Node| n.dead_until.is_none() && n.timer == Some(at);
            let id = *self.nodes.iter().find(|(_, n)| due(n)).expect("just looked at").0;
            self.node(id).timer = None;
            self.input(id, Input::Timer);
        } else {
            let id =
                self.ids().into_iter().find(|id| self.gives_up_at(*id) == Some(at)).expect("just looked at");
            self.start(id);
        }
        self.check();
        true
    }

    fn wake(&mut self, at: MonoMs) {
        let id = *self.nodes.iter().find(|(_, n)| n.dead_until == Some(at)).expect("just looked at").0;
        let electorate = Electorate::new(self.config.clone(), None);
        let node = self.node(id);
        node.election = Election::new(id, electorate, Options::default());
        node.dead_until = None;
        self.witness.forget(id);
        self.start(id);
        for other in self.ids().into_iter().filter(|other| *other != id) {
            if self.nodes[&other].dead_until.is_none() {
                self.input(other, Input::PeerUp(id));
            }
        }
    }

    fn start(&mut self, id: ServerId) {
        let (zxid, epoch) = (self.nodes[&id].zxid, self.nodes[&id].epoch);
        self.input(id, Input::Start { zxid, epoch, new: None });
    }

    fn kill(&mut self, id: ServerId, for_ms: u64, told: bool) {
        let until = self.now.plus(for_ms);
        self.node(id).dead_until = Some(until);
        self.node(id).timer = None;
        self.trace.push(format!("{} {id:?} dies", self.now.0));
        for other in self.ids().into_iter().filter(|other| told && *other != id) {
            if self.nodes[&other].dead_until.is_none() {
                self.input(other, Input::PeerDown(id));
            }
        }
    }

    /// The leader that a live server has settled on.
    fn leader_of(&self, id: ServerId) -> Option<ServerId> {
        let node = &self.nodes[&id];
        let settled =
            node.dead_until.is_none() && node.election.state().is_some_and(|s| s != PeerState::Looking);
        settled.then(|| node.election.vote().expect("settled").leader)
    }

    fn leads(&self, id: ServerId) -> bool {
        self.nodes[&id].dead_until.is_none() && self.nodes[&id].election.state() == Some(PeerState::Leading)
    }

    fn followers(&self, leader: ServerId) -> BTreeSet<ServerId> {
        self.nodes.keys().copied().filter(|id| self.leader_of(*id) == Some(leader)).collect()
    }

    fn gives_up_at(&self, id: ServerId) -> Option<MonoMs> {
        let leader = self.leader_of(id)?;
        let reachable = |a, b| a == b || !(self.cut.contains(&(a, b)) || self.cut.contains(&(b, a)));
        let followers = self.followers(leader).into_iter().filter(|f| reachable(*f, leader)).collect();
        let stands = self.leads(leader) && self.config.contains_quorum(&followers) && reachable(id, leader);
        (!stands).then(|| self.nodes[&id].settled_at.plus(GIVE_UP_MS).max(self.now))
    }

    /// NW1.
    fn check(&self) {
        let leaders = self.nodes.keys().filter(|id| self.leads(**id));
        let with_quorum = leaders.filter(|id| self.config.contains_quorum(&self.followers(**id)));
        assert!(with_quorum.count() <= 1, "two leaders with a quorum");
    }

    fn run(&mut self, for_ms: u64) {
        let until = self.now.plus(for_ms);
        while self.step(until) {}
    }

    /// NW4.
    fn run_in_silence(&mut self) {
        self.run(500);
        let sent = self.sent;
        self.run(30_000);
        assert_eq!(self.sent, sent, "a settled ensemble has nothing to say");
    }

    /// NW3.
    fn run_until_calm(&mut self) -> ServerId {
        self.cut.clear();
        (self.loss, self.delay_ms_max, self.reorders) = (0, 20, false);
        let until = self.now.plus(CALM_MS_MAX);
        loop {
            let leaders: BTreeSet<Option<ServerId>> =
                self.ids().into_iter().map(|id| self.leader_of(id)).collect();
            if let (1, Some(Some(leader))) = (leaders.len(), leaders.first())
                && self.leads(*leader)
            {
                return *leader;
            }
            assert!(self.step(until), "no leader after {CALM_MS_MAX} ms: {leaders:?}");
        }
    }

    /// A while of everything that may go wrong.
    fn storm(&mut self) {
        for _ in 0..10 {
            self.loss = [0, 2, 5, 20][self.rng.below(4) as usize];
            self.delay_ms_max = [1, 20, 400][self.rng.below(3) as usize];
            self.reorders = self.rng.one_in(3);
            let ids = self.ids();
            let pick = |rng: &mut Rng| ids[rng.below(ids.len() as u64) as usize];
            let (a, b) = (pick(&mut self.rng), pick(&mut self.rng));
            match self.rng.below(6) {
                0 => {
                    self.cut.insert((a, b));
                }
                1 => self.cut.clear(),
                2 => self.cut.extend(ids.iter().flat_map(|id| [(*id, a), (a, *id)]).filter(|(x, y)| x != y)),
                3 if self.nodes[&a].dead_until.is_none() => {
                    let (for_ms, told) = (self.rng.below(3_000), self.rng.one_in(2));
                    self.kill(a, for_ms, told);
                }
                // It has written something since.
                4 if self.leader_of(a).is_some() => self.node(a).zxid += 1,
                _ => {}
            }
            let for_ms = self.rng.below(1_500);
            self.run(for_ms);
        }
    }
}

fn voters(count: i64) -> String {
    (1..=count).map(|i| format!("server.{i}=h{i}:1:2\n")).collect()
}

fn ensembles() -> [String; 6] {
    [
        voters(1),
        voters(2),
        voters(3),
        voters(5),
        voters(3) + "server.8=o:1:2:observer\nserver.9=p:1:2:observer",
        voters(6) + "server.9=p:1:2:observer\ngroup.1=1:2:3\ngroup.2=4:5\ngroup.3=6\nweight.2=3\nweight.3=0",
    ]
}

#[test]
fn whatever_happens_there_is_at_most_one_leader_with_a_quorum_and_one_when_it_is_over() {
    for text in ensembles() {
        for seed in 0..SEEDS {
            let mut network = Network::new(seed, &text);
            network.storm();
            network.run_until_calm();
            network.run_in_silence();
        }
    }
}

#[test]
fn in_a_healthy_ensemble_the_best_vote_wins_without_a_fixed_wait() {
    for text in ensembles() {
        for seed in 0..100 {
            let mut network = Network::new(seed, &text);
            let leader = network.run_until_calm();
            let may_lead = network.ids().into_iter().filter(|id| network.config.weight(*id) > 0);
            assert_eq!(may_lead.max_by_key(|id| network.rank(*id)), Some(leader), "seed {seed}");
            assert!(network.now.0 < 150, "seed {seed}: {} ms, with messages of at most 20", network.now.0);
            let decisions = network.nodes.values().map(|n| n.decisions.len());
            assert!(decisions.max() == Some(1), "nobody changes its mind");
        }
    }
}

#[test]
fn a_leader_that_dies_is_replaced_without_a_fixed_wait() {
    for count in [3, 5] {
        for seed in 0..100 {
            let mut network = Network::new(seed, &voters(count));
            let old = network.run_until_calm();
            network.run(500);
            network.kill(old, 1_000_000, true);
            let began = network.now;
            let others: Vec<ServerId> = network.ids().into_iter().filter(|id| *id != old).collect();
            for id in &others {
                network.start(*id);
            }
            while others.iter().any(|id| network.leader_of(*id).is_none()) {
                assert!(network.step(began.plus(100)), "seed {seed}: not settled within 100 ms");
            }
            let leaders: BTreeSet<_> = others.iter().map(|id| network.leader_of(*id)).collect();
            assert_eq!(leaders.len(), 1, "seed {seed}: {leaders:?}");
            let leader = leaders.first().copied().flatten().expect("all have settled");
            let best = others.iter().max_by_key(|id| network.rank(**id));
            assert_eq!(best, Some(&leader), "seed {seed}");
        }
    }
}

#[test]
fn a_server_that_comes_late_joins_and_does_not_disturb() {
    for seed in 0..100 {
        let mut network = Network::new(seed, &voters(5));
        let late = ServerId(1 + (seed % 5) as i64);
        network.node(late).dead_until = Some(MonoMs(5_000));
        network.run(4_000);
        let others: Vec<ServerId> = network.ids().into_iter().filter(|id| *id != late).collect();
        let leader = network.leader_of(others[0]).expect("a quorum is there");
        let rounds: Vec<i64> = others.iter().map(|id| network.nodes[id].election.round()).collect();
        network.node(late).zxid = 1_000;
        assert_eq!(network.run_until_calm(), leader, "EL8, seed {seed}");
        let after: Vec<i64> = others.iter().map(|id| network.nodes[id].election.round()).collect();
        assert_eq!(rounds, after);
    }
}

/// A follower of a standing leader loses the links that `cut` names between it and each server, and looks for a leader again and again.
fn deposes_nobody_when_cut(cut: impl Fn(ServerId, ServerId) -> (ServerId, ServerId)) {
    for seed in 0..50 {
        let mut network = Network::new(seed, &voters(3));
        let leader = network.run_until_calm();
        let bad = ServerId(if leader == ServerId(1) { 2 } else { 1 });
        network.cut.extend(network.ids().into_iter().map(|other| cut(bad, other)));
        for _ in 0..20 {
            network.start(bad);
            network.run(300);
        }
        let others = network.ids().into_iter().filter(|id| *id != bad);
        assert!(others.clone().all(|id| network.leader_of(id) == Some(leader)), "seed {seed}");
        assert!(others.clone().all(|id| network.nodes[&id].decisions.len() == 1), "seed {seed}");
        assert_eq!(network.run_until_calm(), leader);
    }
}

#[test]
fn a_server_that_hears_only_one_way_deposes_nobody() {
    deposes_nobody_when_cut(|bad, other| (other, bad));
}

#[test]
fn a_favourite_that_hears_nobody_is_passed_over() {
    for seed in 0..50 {
        let mut network = Network::new(seed, &voters(3));
        let deaf = network.ids().into_iter().max_by_key(|id| network.rank(*id)).expect("three");
        let others: Vec<ServerId> = network.ids().into_iter().filter(|id| *id != deaf).collect();
        network.cut.extend(others.iter().map(|id| (*id, deaf)));
        network.run(5_000);
        let leaders: BTreeSet<_> = others.iter().map(|id| network.leader_of(*id)).collect();
        assert_eq!(leaders.len(), 1, "seed {seed}: {leaders:?}");
        assert!(leaders.first().copied().flatten().is_some_and(|id| id != deaf && network.leads(id)));
    }
}

#[test]
fn a_server_that_nobody_hears_deposes_nobody() {
    deposes_nobody_when_cut(|bad, other| (bad, other));
}

/// One server is dead and silent, so that everybody must wait for it, and the connection of two others comes and goes faster than that.
#[test]
fn a_connection_that_flaps_does_not_keep_the_others_from_settling() {
    for seed in 0..100 {
        let mut network = Network::new(seed, &voters(5));
        let dead = ServerId(1 + (seed % 5) as i64);
        let best = network.ids().into_iter().filter(|id| *id != dead).max_by_key(|id| network.rank(*id));
        let best = best.expect("four");
        let other = network.ids().into_iter().find(|id| *id != dead && *id != best).expect("four");
        network.node(dead).dead_until = None;
        network.run(5);
        for flap in 0..40 {
            let both = [(best, other), (other, best)];
            for (at, peer) in both {
                network.input(at, if flap % 2 == 0 { Input::PeerDown(peer) } else { Input::PeerUp(peer) });
            }
            if flap % 2 == 0 {
                network.cut.extend(both)
            } else {
                network.cut.clear()
            }
            network.run(50);
        }
        let settled = network.ids().into_iter().filter(|id| network.leader_of(*id) == Some(best)).count();
        assert!(settled >= 3 && network.leads(best), "seed {seed}: {settled} have settled on {best:?}");
    }
}

#[test]
fn one_seed_gives_one_run() {
    let trace = |seed| {
        let mut network = Network::new(seed, &voters(5));
        network.storm();
        network.run_until_calm();
        network.trace
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
