//! What a script does to processes, network, disks and elections.

use super::super::Event;
use super::super::faults::CAPACITY;
use super::super::node::End;
use super::super::options::Setup;
use super::{Gate, Halt, Script, Told};
use crate::election::{Notice, Vote};
use crate::wire::election::{NOTIFICATION_VERSION, PeerState};
use crate::wire::quorum::PacketKind;

/// Rounds of elections that a script believes in.
const ROUNDS_MAX: i64 = 200;

impl Script<'_> {
    // --- Processes ---

    /// Starts nodes.
    pub fn start(&mut self, nodes: &[usize]) -> Told {
        for &node in nodes {
            let inc = self.world.nodes[node].inc;
            self.world.start(node, inc)?;
        }
        Ok(())
    }

    /// Starts nodes that all take the first for their leader; returns when all of them serve.
    pub fn start_led_by(&mut self, leader: usize, others: &[usize]) -> Told {
        self.start(others)?;
        self.start(&[leader])?;
        for &node in others.iter().chain([&leader]) {
            self.until_looks(node)?;
        }
        self.mislead(leader, leader)?;
        for &node in others {
            self.mislead(node, leader)?;
        }
        self.until_serve(&[others, &[leader]].concat())
    }

    /// Ends the process of a node; what it wrote is there.
    pub fn kill(&mut self, node: usize) {
        self.world.kill(node, End::Killed);
        self.world.nodes[node].off = false;
    }

    /// A node loses its power, and all that it had not synced.
    pub fn cut_power(&mut self, node: usize) {
        self.world.kill(node, End::Power);
        self.world.nodes[node].off = false;
    }

    /// The same, and nobody is told for a while.
    pub fn vanish(&mut self, node: usize) {
        self.directed().silent = true;
        self.world.kill(node, End::Power);
        self.directed().silent = false;
    }

    /// A node loses its power in the middle of its operation on the disk that comes behind `ops` more.
    pub fn cut_power_behind(&mut self, node: usize, ops: u64) {
        let disk = &self.world.nodes[node].disk;
        disk.crash_at(disk.ops() + ops);
    }

    /// Takes that back.
    pub fn never_cut_power(&mut self, node: usize) {
        self.world.nodes[node].disk.crash_at(u64::MAX);
    }

    /// Takes away all that the disk of a node holds, which does not run.
    pub fn lose_disk(&mut self, node: usize) {
        self.world.lose_disk(node);
    }

    /// It has a process.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.world.nodes[node].is_running()
    }

    /// A node does nothing for so long, ms.
    pub fn pause(&mut self, node: usize, ms: u64) {
        self.world.nodes[node].paused_until = self.world.now + ms;
        self.world.note(|| format!("n{} is paused for {ms} ms", node + 1));
    }

    // --- Network ---

    /// Cuts what goes from one node to another.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.world.net.set_cut(from, to, true);
        self.world.note(|| format!("cut from n{} to n{}", from + 1, to + 1));
    }

    /// Cuts a link both ways. What is under way is not lost, if the link is mended before the connection is given up.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts a node off from all others, and ends its connections.
    pub fn cut_off(&mut self, node: usize) {
        for peer in (0..self.world.nodes.len()).filter(|peer| *peer != node) {
            self.cut(node, peer);
        }
    }

    /// Mends what goes both ways between two nodes.
    pub fn mend(&mut self, a: usize, b: usize) {
        self.world.net.set_cut(a, b, false);
        self.world.net.set_cut(b, a, false);
        self.world.note(|| format!("n{} and n{} reach each other", a + 1, b + 1));
    }

    /// Mends all links.
    pub fn mend_all(&mut self) {
        self.world.net.heal();
        self.world.note(|| "all links are mended".to_owned());
    }

    /// Connections of the quorum port between two nodes break; what is under way on them is lost.
    pub fn reset(&mut self, a: usize, b: usize) {
        let world = &mut *self.world;
        for key in world.net.standing() {
            let ends = [0, 1].map(|side| world.net.end_node(key, side));
            if ends == [Some(a), Some(b)] || ends == [Some(b), Some(a)] {
                world.counts.resets += 1;
                world.reset(key);
            }
        }
    }

    /// A node accepts nobody on its quorum port.
    pub fn deafen(&mut self, node: usize) {
        self.directed().deaf.insert(node);
    }

    /// Each piece that one node sends to another takes so much longer than the one before, ms.
    pub fn slow_down(&mut self, from: usize, to: usize, ms: u64) {
        self.directed().slow.push((from, to, ms));
    }

    /// Everything is as fast as before.
    pub fn speed_up(&mut self) {
        self.directed().slow.clear();
    }

    /// Packets of a kind from one node to another are not read by the receiver, nor what comes behind them.
    pub fn hold(&mut self, from: usize, to: usize, kind: PacketKind) {
        self.directed().gates.push(Gate { from, to, kind, reached: false });
    }

    /// Waits until something waits at the gate.
    pub fn until_held(&mut self, from: usize, to: usize, kind: PacketKind) -> Told {
        let what = format!("{kind:?} on its way from n{} to n{}", from + 1, to + 1);
        self.until(&what, |script| script.is_held(from, to, kind))
    }

    /// Something waits at the gate.
    #[must_use]
    pub fn is_held(&self, from: usize, to: usize, kind: PacketKind) -> bool {
        let directed = self.world.directed.as_ref().expect("of a script");
        directed.gates.iter().any(|g| (g.from, g.to, g.kind, g.reached) == (from, to, kind, true))
    }

    /// What waits on the way from one node to another arrives.
    pub fn release(&mut self, from: usize, to: usize) -> Told {
        self.directed().gates.retain(|gate| (gate.from, gate.to) != (from, to));
        Ok(self.world.receive_again(to)?)
    }

    // --- Disks ---

    /// Flushes of a node do not end.
    pub fn hold_disk(&mut self, node: usize) {
        self.directed().held_disks.insert(node);
    }

    /// They do again.
    pub fn release_disk(&mut self, node: usize) {
        self.directed().held_disks.remove(&node);
        let (mine, others) = std::mem::take(&mut self.directed().flushes)
            .into_iter()
            .partition(|flush| matches!(flush, Event::Flush { node: of, .. } if *of == node));
        self.directed().flushes = others;
        let mine: Vec<Event> = mine;
        mine.into_iter().for_each(|flush| self.world.at(1, flush));
    }

    /// Nothing more fits on a node's disk than `left` bytes.
    pub fn fill_disk(&mut self, node: usize, left: u64) {
        self.world.fill_disk(node, left);
    }

    /// There is space again.
    pub fn empty_disk(&mut self, node: usize) {
        self.world.nodes[node].disk.set_capacity(CAPACITY);
    }

    /// The memory of a node spoils the next data that it applies, so many times: from the second time on while it makes its tree anew.
    pub fn spoil_memory(&mut self, node: usize, times: u32) {
        self.world.nodes[node].rots = times;
    }

    /// A node is to take a snapshot as soon as it can.
    pub fn want_snapshot(&mut self, node: usize) {
        if let Some(process) = &mut self.world.nodes[node].process {
            process.snapshot_at = 0;
        }
    }

    /// A node takes a snapshot, and purges what it covers.
    pub fn snapshot(&mut self, node: usize) -> Told {
        let applied = self.applied(node);
        self.want_snapshot(node);
        self.until("a snapshot", |script| {
            let process = script.world.nodes[node].process.as_ref();
            process.is_some_and(|p| p.verified.contains(&applied) && p.purge_below.is_none())
        })
    }

    // --- The election ---

    /// Makes a node that looks believe that the others have settled on `leader`: an election gone wrong.
    pub fn mislead(&mut self, node: usize, leader: usize) -> Told {
        self.until_looks(node)?;
        self.world.note(|| format!("n{} is misled to n{}", node + 1, leader + 1));
        let vote = Vote { leader: Setup::server_id(leader), zxid: 0, epoch: 0 };
        let others: Vec<usize> = (0..self.world.setup.voters).filter(|other| *other != node).collect();
        for round in 1..ROUNDS_MAX {
            for &from in &others {
                let state = if from == leader { PeerState::Leading } else { PeerState::Following };
                let notice = Notice { state, vote, round, version: NOTIFICATION_VERSION, config: None };
                self.world.notice(node, from, notice)?;
                if !self.looks(node) {
                    return Ok(());
                }
            }
        }
        Err(Halt::Astray(format!("n{} does not believe in n{}", node + 1, leader + 1)))
    }

    /// It looks for a leader.
    #[must_use]
    pub fn looks(&self, node: usize) -> bool {
        self.process(node).is_some_and(|p| p.member.peer_state() == PeerState::Looking)
    }

    /// Waits until it looks for a leader.
    pub fn until_looks(&mut self, node: usize) -> Told {
        self.until(&format!("n{} looks", node + 1), |script| script.looks(node))
    }
}
