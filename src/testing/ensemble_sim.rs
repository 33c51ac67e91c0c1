//! Whole ensembles, deterministic from one seed: 3 or 5 voters and up to two observers, each on a simulated disk of its own, over a simulated
//! network, with clocks of their own; clients that write, read, watch, sync and move; and every fault of `docs/durability.md`.
//!
//! The nodes run the product's own code from one end to the other: `recover`, `Member` (election, ZAB, log, superblock), `Prepare`, `Tree`,
//! `Tracker`, `SnapshotTask`, `retire`, `SpareMaker`. What is simulated is what lies below (disk, network, clock) and the shell above
//! (`node`), which does what `server::quorum` does: moves bytes, flushes, applies, answers.
//!
//! - E1: one seed, one run: no clock, no thread, no order of a hash table decides anything (trace and fingerprint are compared).
//! - E2: after every step the [`invariants`] hold; one that does not is a [`SimFailure`] with the seed and the last lines of the trace.
//! - E3: a safety phase with faults, then a liveness phase without: a leader, everybody in step, a write by a client of every node, equal trees.
//! - E4: the net is proven: [`Rule`] names mistakes that the product can be told to make, [`Slip`] those of the simulated shell on the way to clients,
//!   and each must be caught.
//!
//! How to run: `docs/zab.md` §9.

mod clients;
mod faults;
mod invariants;
mod model;
mod net;
mod node;
mod options;
mod script;

use std::collections::BTreeMap;

use self::clients::Client;
use self::model::Model;
use self::net::{ConnKey, Net};
use self::node::Node;
use self::options::Setup;
use crate::base::rng::Rng;
use crate::base::{ConnId, Zxid};
use crate::storage::log::Flusher;
use crate::testing::seeded::{Violation, guarded, last_lines};
use crate::zab::LinkId;

pub use self::options::{SimCounts, SimOptions, Slip, Stage};
pub use self::script::{Client as ScriptClient, Halt, Script, Told, play};
pub use crate::testing::seeded::SimFailure;
pub use crate::zab::Rule;

/// Lines of the trace that a failure shows.
const TRACE_SHOWN: usize = 160;

/// Steps after which a run is taken for one that does not end.
const STEPS_MAX: u64 = 3_000_000;

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimReport {
    /// What it met.
    pub counts: SimCounts,
    /// A number that says everything that happened, in order.
    pub fingerprint: u64,
    /// What an engineer wants to read of it.
    pub trace: Vec<String>,
}

/// Runs the ensemble of `seed` to its end.
///
/// # Errors
/// A rule was broken; panics of the product come as failures too.
pub fn run(seed: u64, options: SimOptions) -> Result<SimReport, Box<SimFailure>> {
    let replay = "cargo test --test ensemble_sim -- replay --nocapture";
    conclude(seed, replay, World::new(seed, options), World::run)
}

fn conclude(
    seed: u64,
    replay: &'static str,
    mut world: World,
    run: impl FnOnce(&mut World) -> Result<(), Violation>,
) -> Result<SimReport, Box<SimFailure>> {
    let Some(what) = guarded(|| run(&mut world)) else {
        return Ok(SimReport { counts: world.counts, fingerprint: world.fingerprint, trace: world.trace });
    };
    // A lock may be held where a panic came from: what is left of the world is not touched any more.
    Err(Box::new(SimFailure { replay, seed, what, trace: last_lines(world.trace, TRACE_SHOWN) }))
}

fn violated<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

/// What is to happen. A node's events carry its incarnation: what a dead process waited for does not reach the next one.
#[derive(Debug)]
enum Event {
    /// The next piece of a connection's stream arrives.
    Stream(ConnKey, usize),
    /// A connection's first packet arrives.
    Dial(ConnKey),
    /// The answer to it arrives.
    Answer(ConnKey, bool),
    /// The next notice from one node to another arrives.
    Notice(usize, usize),
    /// A node tries to connect to another's election port.
    Meet { from: usize, to: usize, inc: u64 },
    /// The connection made by `Meet` is known at the side that made it.
    Met { from: usize, to: usize, generation: u64 },
    /// A node learns that an election connection is gone.
    Parted { node: usize, peer: usize, generation: u64 },
    /// The timer of a member.
    Wake { node: usize, inc: u64, token: u64 },
    /// A flush reaches the disk.
    Flush { node: usize, inc: u64, flusher: Box<Flusher> },
    /// Something that a shell does when it gets round to it.
    Turn { node: usize, inc: u64, what: Turn },
    /// The next message of a client arrives.
    Message { node: usize, inc: u64, conn: ConnId },
    /// A node learns that a client's connection is gone.
    Lost { node: usize, inc: u64, conn: ConnId },
    /// A client does something.
    Client(usize),
    /// The next fault.
    Fault,
    /// A fault ends, or a step of one comes.
    Relief(faults::Relief),
    /// A node's process starts.
    Start { node: usize, inc: u64 },
}

/// What a shell does when it gets round to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// `finish_round`.
    Round,
    /// `work`.
    Work,
    /// `apply`.
    Apply,
    /// Requests become transactions.
    Prepare,
    /// Snapshots, spares, purging, expiry.
    Background,
}

/// The whole.
struct World {
    options: SimOptions,
    setup: Setup,
    rng: Rng,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    nodes: Vec<Node>,
    net: Net,
    clients: Vec<Client>,
    model: Model,
    counts: SimCounts,
    /// Faults are over.
    calm: bool,
    faults: faults::Faults,
    /// A script says what happens, not the seed.
    directed: Option<script::Directed>,
    conns: u64,
    /// Answers to multiReads, by request, for a slip.
    torn: BTreeMap<Vec<u8>, Vec<u8>>,
    fingerprint: u64,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, options: SimOptions) -> World {
        let mut rng = Rng::new(seed);
        let setup = Setup::random(&mut rng);
        World::with_setup(rng, setup, options)
    }

    fn with_setup(mut rng: Rng, setup: Setup, options: SimOptions) -> World {
        let nodes = (0..setup.members()).map(|index| Node::new(index, &setup, &mut rng)).collect();
        let net = Net::new(setup.members());
        World {
            model: Model::default(),
            options,
            setup,
            rng,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            nodes,
            net,
            clients: Vec::new(),
            counts: SimCounts::default(),
            calm: false,
            faults: faults::Faults::default(),
            directed: None,
            conns: 0,
            torn: BTreeMap::new(),
            fingerprint: 0,
            trace: Vec::new(),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>6} {}", self.now, line());
        self.mark(crate::base::checksum::crc32(line.as_bytes()).into());
        self.trace.push(line);
    }

    fn mark(&mut self, what: u64) {
        let mixed = (self.fingerprint ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.fingerprint = mixed ^ (mixed >> 29);
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + delay, self.queued), event);
    }

    fn run(&mut self) -> Result<(), Violation> {
        let text = format!("{:?}", self.setup);
        self.note(|| text);
        for node in 0..self.nodes.len() {
            let delay = self.rng.below(500);
            self.at(delay, Event::Start { node, inc: 0 });
        }
        for _ in 0..self.setup.clients {
            self.add_client(None);
        }
        let delay = 500 + self.rng.below(3_000);
        self.at(delay, Event::Fault);
        while self.now < self.options.safety_ms {
            self.step()?;
        }
        self.heal_all();
        invariants::liveness::check(self)
    }

    /// Lets the next thing happen.
    fn step(&mut self) -> Result<(), Violation> {
        let Some(((at, seq), event)) = self.queue.pop_first() else {
            return violated("nothing is to happen");
        };
        self.counts.steps += 1;
        if self.counts.steps > STEPS_MAX {
            return violated("a run that does not end: somebody is busy with nothing");
        }
        self.now = at;
        self.mark(at ^ (seq << 32));
        if let Some(until) = self.target(&event).and_then(|node| self.paused_until(node)) {
            let delay = until - self.now;
            self.at(delay, event);
            return Ok(());
        }
        match self.put_off(event) {
            Some(event) => self.happen(event),
            None => Ok(()),
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Stream(key, side) => self.stream_arrives(key, side),
            Event::Dial(key) => self.dial_arrives(key),
            Event::Answer(key, accepted) => self.answer_arrives(key, accepted),
            Event::Notice(from, to) => self.notice_arrives(from, to),
            Event::Meet { from, to, inc } => self.meet(from, to, inc),
            Event::Met { from, to, generation } => self.met(from, to, generation),
            Event::Parted { node, peer, generation } => self.parted(node, peer, generation),
            Event::Wake { node, inc, token } => self.wake(node, inc, token),
            Event::Flush { node, inc, flusher } => self.flush_ends(node, inc, *flusher),
            Event::Turn { node, inc, what } => self.turn(node, inc, what),
            Event::Message { node, inc, conn } => self.message_arrives(node, inc, conn),
            Event::Lost { node, inc, conn } => self.client_lost(node, inc, conn),
            Event::Client(client) => self.client_turn(client),
            Event::Fault => self.fault(),
            Event::Relief(relief) => self.relieve(relief),
            Event::Start { node, inc } => self.start(node, inc),
        }
    }

    /// The node whose process has to run for the event; a paused one takes it later.
    fn target(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Stream(key, side) => self.net.end_node(*key, 1 - side),
            Event::Dial(key) => self.net.end_node(*key, 1),
            Event::Answer(key, _) => self.net.end_node(*key, 0),
            Event::Notice(_, to) => Some(*to),
            Event::Meet { from, .. } | Event::Met { from, .. } => Some(*from),
            Event::Parted { node, .. }
            | Event::Wake { node, .. }
            | Event::Flush { node, .. }
            | Event::Turn { node, .. }
            | Event::Lost { node, .. }
            | Event::Message { node, .. } => Some(*node),
            Event::Client(_) | Event::Fault | Event::Relief(_) | Event::Start { .. } => None,
        }
    }

    fn paused_until(&self, node: usize) -> Option<u64> {
        let until = self.nodes[node].paused_until;
        (until > self.now).then_some(until)
    }

    /// Things go wrong at random.
    fn is_wild(&self) -> bool {
        !self.calm && self.directed.is_none()
    }

    fn next_conn(&mut self) -> ConnId {
        self.conns += 1;
        ConnId(self.conns << 1)
    }
}

/// Who owns a session at the leader when its client is a learner's: one number for each link, which no client of its own has.
fn conn_of_link(link: LinkId) -> ConnId {
    ConnId(link.0 << 1 | 1)
}

/// For the trace.
fn show(zxid: Zxid) -> String {
    format!("{}.{}", zxid.epoch().0, zxid.counter())
}
