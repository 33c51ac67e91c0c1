//! What goes wrong, and when it is over.

use super::node::{End, Node};
use super::options::{Setup, Slip};
use super::{Event, Violation, World};
use crate::storage::vfs::Vfs;
use crate::testing::sim_disk::{Fault, OpKind};

/// Room on a disk that is not squeezed, bytes.
pub(super) const CAPACITY: u64 = 1 << 30;

/// A fault ends, or changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Relief {
    /// The network is whole again, if no other partition has come since.
    Heal(u64),
    /// Links of a node come and go.
    Flap {
        node: usize,
        left: u64,
        number: u64,
    },
    Capacity(usize),
    DiskSpeed(usize),
    Clock(usize),
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Of the last partition.
    partition: u64,
}

impl World {
    fn any_node(&mut self) -> usize {
        // Leaders are hit more often than chance would have it.
        let leader = self.nodes.iter().position(|n| n.process.as_ref().is_some_and(|p| p.leads()));
        let any = self.rng.below(self.nodes.len() as u64) as usize;
        leader.filter(|_| self.rng.one_in(3)).unwrap_or(any)
    }

    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let delay = 1 + self.rng.below(2 * self.setup.fault_ms);
        self.at(delay, Event::Fault);
        let node = self.any_node();
        match self.rng.below(32) {
            0..=3 => {
                self.counts.kills += 1;
                self.kill(node, End::Killed);
            }
            4..=6 => {
                self.counts.power_cuts += 1;
                self.kill(node, End::Power);
            }
            7 => self.blackout(),
            8..=10 => {
                let disk = &self.nodes[node].disk;
                disk.crash_at(disk.ops() + self.rng.below(40));
            }
            11 | 12 => {
                if self.nodes[node].is_running() {
                    self.counts.clean_stops += 1;
                    self.stop(node);
                }
            }
            13..=16 => self.pause(node),
            17..=21 => self.partition(node),
            22..=24 => self.reset_some(node),
            25 | 26 => self.slow_disk(node),
            27 | 28 => self.squeeze(node),
            29 => self.wrong_clock(node),
            30 => {
                let disk = &self.nodes[node].disk;
                let kind = if self.rng.one_in(2) { OpKind::Sync } else { OpKind::Write };
                disk.fail_nth(kind, disk.count(kind) + self.rng.below(10), Fault::Eio);
            }
            _ if self.rng.one_in(2) => self.spoil(node),
            _ => {
                let peer = self.rng.below(self.nodes.len() as u64) as usize;
                self.part(node, peer);
            }
        }
        Ok(())
    }

    /// The power of all fails at once.
    fn blackout(&mut self) {
        if !self.rng.one_in(2) {
            return;
        }
        self.counts.blackouts += 1;
        (0..self.nodes.len()).for_each(|node| self.kill(node, End::Power));
    }

    fn pause(&mut self, node: usize) {
        self.counts.pauses += 1;
        let ms = [30, 300, 1_500, 6_000][self.rng.below(4) as usize];
        let until = self.now + 1 + self.rng.below(ms);
        self.nodes[node].paused_until = until;
        self.note(|| format!("n{} is paused until {until}", node + 1));
    }

    fn partition(&mut self, node: usize) {
        self.counts.partitions += 1;
        self.faults.partition += 1;
        let number = self.faults.partition;
        let count = self.nodes.len();
        self.net.heal();
        let kind = self.rng.below(7);
        let halves = self.rng.next_u64();
        let side = |n: usize| halves >> n & 1;
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let cut = match kind {
                    // Halves; one alone; one that hears nobody; one whom nobody hears.
                    0 => side(from) != side(to),
                    1 => from == node || to == node,
                    2 => to == node,
                    3 => from == node,
                    // A bridge: `node` alone reaches both sides.
                    4 => from != node && to != node && side(from) != side(to),
                    // A ring: each reaches its neighbours.
                    5 => (from + 1) % count != to && (to + 1) % count != from,
                    _ => false,
                };
                self.net.set_cut(from, to, cut);
            }
        }
        self.note(|| format!("partition {number} of kind {kind} around n{}", node + 1));
        if kind == 6 {
            let left = 4 + self.rng.below(20);
            self.at(1, Event::Relief(Relief::Flap { node, left, number }));
        }
        let most = [600, 3_000, 8_000][self.rng.below(3) as usize];
        let ms = 100 + self.rng.below(most);
        self.at(ms, Event::Relief(Relief::Heal(number)));
    }

    fn flap(&mut self, node: usize, left: u64, number: u64) {
        if self.calm || left == 0 || number != self.faults.partition {
            return;
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.net.set_cut(node, peer, left.is_multiple_of(2));
            self.net.set_cut(peer, node, left.is_multiple_of(2) && !left.is_multiple_of(3));
        }
        let delay = 20 + self.rng.below(300);
        self.at(delay, Event::Relief(Relief::Flap { node, left: left - 1, number }));
    }

    fn reset_some(&mut self, node: usize) {
        for key in self.net.standing() {
            let concerned = (0..2).any(|side| self.net.end_node(key, side) == Some(node));
            if concerned && self.rng.one_in(2) {
                self.counts.resets += 1;
                self.reset(key);
            }
        }
    }

    /// The memory of a node spoils what it applies next, and sometimes once more, maybe while it makes its tree anew. That to one node at a time: a
    /// quorum that cannot make a tree has nobody to get it from.
    fn spoil(&mut self, node: usize) {
        let serves = self.nodes[node].process.as_ref().is_some_and(|process| process.desk.serving.is_some());
        let times = match self.nodes.iter().all(Node::is_sound) {
            true => 1 + u32::from(self.rng.one_in(2)),
            false => u32::from(serves && self.nodes[node].is_sound()),
        };
        if times > 0 {
            self.note(|| format!("the memory of n{} spoils, {times} times", node + 1));
            self.nodes[node].rots = times;
        }
    }

    fn slow_disk(&mut self, node: usize) {
        self.counts.slow_disks += 1;
        self.nodes[node].flush_ms = [100, 600, 3_000][self.rng.below(3) as usize];
        let ms = self.rng.below(4_000);
        self.at(ms, Event::Relief(Relief::DiskSpeed(node)));
    }

    fn squeeze(&mut self, node: usize) {
        let left = self.rng.below(40 << 10);
        self.fill_disk(node, left);
        let ms = self.rng.below(4_000);
        self.at(ms, Event::Relief(Relief::Capacity(node)));
    }

    /// No more than `left` bytes fit on a disk.
    pub(super) fn fill_disk(&mut self, node: usize, left: u64) {
        self.counts.full_disks += 1;
        let disk = &self.nodes[node].disk;
        disk.set_capacity(CAPACITY);
        let free = disk.free_bytes(&Setup::places().data).unwrap_or(0);
        self.nodes[node].disk.set_capacity(CAPACITY - free + left);
    }

    fn wrong_clock(&mut self, node: usize) {
        self.counts.clocks += 1;
        let per_mille = [500, 900, 1_100, 2_000][self.rng.below(4) as usize];
        let jump = if self.rng.one_in(3) { self.rng.below(20_000) } else { 0 };
        let now = self.now;
        self.nodes[node].clock.change(now, per_mille, jump);
        let ms = self.rng.below(5_000);
        self.at(ms, Event::Relief(Relief::Clock(node)));
    }

    pub(super) fn relieve(&mut self, relief: Relief) -> Result<(), Violation> {
        let now = self.now;
        match relief {
            Relief::Heal(number) if number == self.faults.partition => {
                self.net.heal();
                self.note(|| format!("partition {number} is healed"));
            }
            Relief::Heal(_) => {}
            Relief::Flap { node, left, number } => self.flap(node, left, number),
            Relief::Capacity(node) => self.nodes[node].disk.set_capacity(CAPACITY),
            Relief::DiskSpeed(node) => self.nodes[node].flush_ms = self.setup.flush_ms,
            Relief::Clock(node) => self.nodes[node].clock.change(now, 1_000, 0),
        }
        Ok(())
    }

    /// A slip: somebody stops, and says so, when nothing is wrong.
    pub(super) fn restless(&mut self) {
        if self.options.slip == Some(Slip::Restless) {
            self.stop(0);
        }
    }

    /// Nothing is wrong any more.
    pub(super) fn heal_all(&mut self) {
        self.calm = true;
        self.note(|| "everything is healed".to_owned());
        self.net.heal();
        // Pauses last as long as they do: what was put off is put off until then.
        let (now, flush_ms) = (self.now, self.setup.flush_ms);
        for node in 0..self.nodes.len() {
            let machine = &mut self.nodes[node];
            machine.disk.set_capacity(CAPACITY);
            machine.disk.crash_at(u64::MAX);
            machine.flush_ms = flush_ms;
            machine.rots = 0;
            machine.clock.change(now, 1_000, 0);
            if !machine.is_running() {
                let inc = machine.inc;
                self.at(10, Event::Start { node, inc });
            }
        }
    }
}
