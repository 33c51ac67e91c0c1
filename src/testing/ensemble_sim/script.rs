//! Directed schedules: an ensemble without random faults, to which a script does one thing after the other, so that what a historical bug took to
//! show itself happens every time.
//!
//! - SC1: nodes, disk, network, clients and invariants are those of the random runs; a script only decides what goes wrong, and when.
//! - SC2: whatever goes wrong is a fault that the protocol has to live with: nothing is put on a stream that its sender did not send, and
//!   nothing is taken out of its middle. Wrong elections are such a fault: an election only says whom to try.
//! - SC3: behind the script everything is healed, and the ensemble must come into step as behind a random run.
//! - SC4: a schedule that does not get where it wants to go is [`Halt::Astray`]: no proof of anything, and an error while all rules hold.

mod asks;
mod faults;
mod looks;

use std::collections::BTreeSet;

use super::net::ConnKey;
use super::node::Process;
use super::options::Setup;
use super::{Event, SimFailure, SimOptions, SimReport, Stage, Violation, World, conclude, invariants};
use crate::base::rng::Rng;
use crate::wire::quorum::{PacketKind, PacketLimits, QuorumPacket, Step};
use crate::zab::{LinkId, Rule};

/// Longest wait for anything a script waits for, ms.
const WAIT_MS: u64 = 20_000;

/// Why a script ends before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Something does not hold.
    Violated(String),
    /// It did not come to what the script is about.
    Astray(String),
}

impl From<Violation> for Halt {
    fn from(Violation(what): Violation) -> Halt {
        Halt::Violated(what)
    }
}

/// What a step of a script says.
pub type Told<T = ()> = Result<T, Halt>;

/// A client of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(usize);

/// What is held back, and where.
#[derive(Debug, Default)]
pub(super) struct Directed {
    gates: Vec<Gate>,
    /// Nodes whose flushes do not end, and those flushes.
    held_disks: BTreeSet<usize>,
    flushes: Vec<Event>,
    /// Nodes that accept nobody on the quorum port.
    deaf: BTreeSet<usize>,
    /// From, to, and how much longer each piece takes, ms.
    slow: Vec<(usize, usize, u64)>,
    /// Power goes without a word to those who were connected.
    silent: bool,
}

/// Packets of one kind, and whatever comes behind the first of them, are not read by their receiver.
#[derive(Debug)]
struct Gate {
    from: usize,
    to: usize,
    kind: PacketKind,
    reached: bool,
}

impl World {
    pub(super) fn is_deaf(&self, node: usize) -> bool {
        self.directed.as_ref().is_some_and(|directed| directed.deaf.contains(&node))
    }

    /// How much longer what this end sends takes, ms.
    pub(super) fn slowness(&self, key: ConnKey, side: usize) -> u64 {
        let Some(directed) = self.directed.as_ref().filter(|directed| !directed.slow.is_empty()) else {
            return 0;
        };
        let ends = (self.net.end_node(key, side), self.net.end_node(key, 1 - side));
        let slow = directed.slow.iter().find(|(from, to, _)| ends == (Some(*from), Some(*to)));
        slow.map_or(0, |(_, _, ms)| *ms)
    }

    pub(super) fn says_nothing_of_its_end(&mut self) -> bool {
        match &self.directed {
            Some(directed) => directed.silent,
            None => self.rng.one_in(2),
        }
    }

    /// The event, unless it waits until the script lets it happen.
    pub(super) fn put_off(&mut self, event: Event) -> Option<Event> {
        if let (Some(directed), Event::Flush { node, .. }) = (&mut self.directed, &event)
            && directed.held_disks.contains(node)
        {
            directed.flushes.push(event);
            return None;
        }
        Some(event)
    }

    /// How many of the bytes on a link the process may take: those of one packet, unless it waits at a gate.
    pub(super) fn let_in(&mut self, node: usize, process: &Process, link: LinkId) -> Option<usize> {
        let held = process.inbox.get(&link)?;
        if process.member.is_receiving_state() {
            return Some(held.bytes.len());
        }
        let Ok(Step::Done { value, consumed }) = QuorumPacket::parse(&held.bytes, &PacketLimits::default())
        else {
            return Some(held.bytes.len());
        };
        let (key, side) = *process.links.get(&link)?;
        let from = self.net.end_node(key, 1 - side);
        let gates = &mut self.directed.as_mut()?.gates;
        let gate = gates.iter_mut().find(|g| Some(g.from) == from && g.to == node && g.kind == value.kind);
        match gate {
            Some(gate) => {
                gate.reached = true;
                None
            }
            None => Some(consumed),
        }
    }

    /// Nothing is held back any more.
    fn let_everything_go(&mut self) -> Result<(), Violation> {
        let directed = self.directed.replace(Directed::default()).expect("of a script");
        directed.flushes.into_iter().for_each(|flush| self.at(1, flush));
        (0..self.nodes.len()).try_for_each(|node| self.receive_again(node))
    }
}

/// An ensemble, and what is done to it. Nodes are numbered from 0 and none runs at the beginning.
pub struct Script<'a> {
    world: &'a mut World,
}

/// Plays a scene on a stage, then heals everything and demands what the random runs demand.
///
/// # Errors
/// A rule was broken; or, when `rule` is none, the scene went astray.
pub fn play(
    seed: u64,
    rule: Option<Rule>,
    stage: Stage,
    scene: impl FnOnce(&mut Script<'_>) -> Told,
) -> Result<SimReport, Box<SimFailure>> {
    let mut rng = Rng::new(seed);
    let setup = Setup::directed(stage, &mut rng);
    let mut world = World::with_setup(rng, setup, SimOptions { rule, ..SimOptions::default() });
    world.directed = Some(Directed::default());
    // A scene begins in an ensemble that there has been: nobody's directory is new.
    (0..world.nodes.len()).for_each(|node| world.found(node));
    let replay = "ZABRA_SCENARIO=its_name cargo test --test scenarios -- told --nocapture";
    conclude(seed, replay, world, |world| {
        match scene(&mut Script { world }) {
            Ok(()) => {}
            Err(Halt::Violated(what)) => return Err(Violation(what)),
            // A mistake may lead elsewhere, but what is there must still hold.
            Err(Halt::Astray(what)) if rule.is_some() => world.note(|| format!("astray: {what}")),
            Err(Halt::Astray(what)) => return Err(Violation(format!("the scene goes astray: {what}"))),
        }
        world.let_everything_go()?;
        world.heal_all();
        invariants::liveness::check(world)
    })
}

impl Script<'_> {
    /// Lets things happen until `f` holds.
    pub fn until(&mut self, what: &str, f: impl Fn(&Script<'_>) -> bool) -> Told {
        let deadline = self.world.now + WAIT_MS;
        while !f(self) {
            if self.world.now > deadline {
                return Err(Halt::Astray(format!("waits for {what}")));
            }
            self.world.step()?;
        }
        self.world.note(|| format!("script: {what}"));
        Ok(())
    }

    /// Lets things happen until `f` holds, which it must within so long, ms.
    pub fn must(&mut self, what: &str, ms: u64, f: impl Fn(&Script<'_>) -> bool) -> Told {
        let deadline = self.world.now + ms;
        while !f(self) {
            if self.world.now > deadline {
                return Err(Halt::Violated(format!("within {ms} ms there must be {what}")));
            }
            self.world.step()?;
        }
        self.world.note(|| format!("script: {what}"));
        Ok(())
    }

    /// Lets things happen for so long, ms.
    pub fn run_for(&mut self, ms: u64) -> Told {
        let until = self.world.now + ms;
        while self.world.queue.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.world.step()?;
        }
        self.world.now = until;
        Ok(())
    }

    /// Virtual time, ms.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.world.now
    }

    /// Something that this scene is about must hold.
    pub fn demand(&self, holds: bool, what: &str) -> Told {
        if holds { Ok(()) } else { Err(Halt::Violated(what.to_owned())) }
    }
}
