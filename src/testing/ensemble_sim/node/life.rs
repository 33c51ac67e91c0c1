//! Beginnings and ends of processes, and what they leave on the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::super::options::{Setup, Slip};
use super::super::{Event, Turn, Violation, World, invariants, show, violated};
use super::{Desk, Process};
use crate::base::{MonoMs, Zxid};
use crate::node::member::{Member, MemberStorage};
use crate::node::recover::{RecoverEvent, RecoverShell};
use crate::node::{RecoverError, RecoveredNode, Replay, recover};
use crate::session::Tracker;
use crate::storage::log::Log;
use crate::storage::vfs::Vfs;
use crate::testing::sim_disk::{Everything, Nothing, Random};
use crate::tree::Tree;
use crate::zab::Rule;

/// Room on a disk that is not squeezed, bytes.
pub(in super::super) const CAPACITY: u64 = 1 << 30;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum End {
    /// The machine loses its power, and the disk what it had not synced.
    Power,
    /// The process alone: what was written is there.
    Killed,
}

impl World {
    /// Starts the process of a node, unless something else has happened to it.
    pub(in super::super) fn start(&mut self, node: usize, inc: u64) -> Result<(), Violation> {
        if self.nodes[node].inc != inc || self.nodes[node].is_running() {
            return Ok(());
        }
        self.nodes[node].off = false;
        self.decay(node);
        let machine = &self.nodes[node];
        // Some starts are cut short.
        let cut_short = self.is_wild() && self.rng.one_in(12);
        if cut_short {
            machine.disk.crash_at(machine.disk.ops() + self.rng.below(30));
        }
        machine.disk.set_capacity(CAPACITY);
        let vfs: Arc<dyn Vfs> = Arc::new(machine.disk.clone());
        let hasty = self.options.rule == Some(Rule::TailAppliedAtStart);
        let replay = if hasty { Replay::All } else { Replay::Committed };
        let options = self.setup.recover_options(node, self.rng.next_u64(), replay);
        let set_aside = AtomicBool::new(false);
        let observe = |event: &RecoverEvent<'_>| {
            if matches!(event, RecoverEvent::SetAside { .. }) {
                set_aside.store(true, Ordering::Relaxed);
            }
        };
        let shell = RecoverShell { observe: &observe, ..RecoverShell::quiet() };
        let recovered = recover(&vfs, &Setup::places(), &options, &shell);
        if set_aside.into_inner() {
            self.counts.set_aside += 1;
            self.nodes[node].forget();
        }
        if self.nodes[node].disk.has_crashed() {
            drop(recovered);
            self.counts.torn += 1;
            self.nodes[node].unsure = true;
            self.note(|| format!("n{} crashes while it starts", node + 1));
            self.crash_disk(node);
            self.restart_later(node);
            return Ok(());
        }
        self.nodes[node].disk.crash_at(u64::MAX);
        match recovered {
            Ok(recovered) => self.begin(node, recovered),
            Err(error) if is_fault(&error) => {
                self.note(|| format!("n{} meets a fault while it starts: {error}", node + 1));
                self.nodes[node].unsure = true;
                self.nodes[node].disk = self.nodes[node].disk.after_kill();
                self.restart_later(node);
                Ok(())
            }
            Err(error) => violated(format!("n{} cannot start: {error}", node + 1)),
        }
    }

    fn begin(&mut self, node: usize, recovered: RecoveredNode) -> Result<(), Violation> {
        let RecoveredNode { tree, committed, log, snapshots, dir, summary } = recovered;
        let Log { appender, flusher, reader, spares } = log;
        self.counts.starts += 1;
        self.counts.starts_with_tail += u64::from(committed < summary.log.last);
        let epochs = (dir.superblock().epoch_accepted, dir.superblock().epoch_current);
        let last = summary.log.last;
        self.note(|| {
            let (accepted, current) = epochs;
            format!(
                "n{} starts: log to {}, applied {}, epochs {accepted} {current}",
                node + 1,
                show(last),
                show(committed)
            )
        });
        let intent = summary.log.truncated_to.is_some() || summary.log.reset_to.is_some();
        invariants::after_start(self, node, &tree, &reader, last, intent, epochs)?;
        let now = self.nodes[node].clock.read(self.now);
        let inc = self.nodes[node].inc;
        let storage =
            MemberStorage { appender, flusher, reader: reader.clone(), dir, snapshots: snapshots.clone() };
        let mut member = Member::new(now, self.setup.member_options(node), storage, committed);
        if let Some(rule) = self.options.rule {
            member.break_rule(now, rule);
        }
        let process = Box::new(Process {
            member,
            desk: Desk {
                now,
                serving: None,
                requests: VecDeque::new(),
                sessions: Tracker::new(100, 1),
                touches: BTreeMap::new(),
                revalidated: Vec::new(),
                heard: BTreeMap::new(),
                mute: self.options.slip == Some(Slip::TouchesLost),
            },
            tree: RwLock::new(tree),
            reader,
            snapshots,
            spares,
            task: None,
            snapshot_at: self.now + self.rng.below(self.setup.snapshot_ms),
            verified: BTreeSet::new(),
            purge_below: None,
            prepare: None,
            conns: BTreeMap::new(),
            by_session: BTreeMap::new(),
            syncs: VecDeque::new(),
            next_session: Setup::first_session(node, inc),
            links: BTreeMap::new(),
            inbox: BTreeMap::new(),
            wake: None,
            wakes: 0,
            turns: BTreeSet::new(),
            failed: None,
        });
        self.nodes[node].process = Some(process);
        self.meet_all(node, inc);
        self.call(node, inc, |world, process, _: MonoMs| {
            world.plan(node, process, Turn::Background, 50);
            Ok(())
        })
    }

    /// Kills a node's process, or its machine.
    pub(in super::super) fn kill(&mut self, node: usize, end: End) {
        if let Some(process) = self.nodes[node].process.take() {
            self.end_process(node, process, end);
        }
    }

    pub(super) fn end_process(&mut self, node: usize, mut process: Box<Process>, end: End) {
        self.note(|| format!("n{} ends: {end:?}", node + 1));
        self.disconnect_all(&mut process);
        let inc = self.nodes[node].inc;
        drop(process);
        let silently = end == End::Power && self.says_nothing_of_its_end();
        self.connections_end(node, inc, silently);
        match end {
            End::Power => self.crash_disk(node),
            End::Killed => self.nodes[node].disk = self.nodes[node].disk.after_kill(),
        }
        self.nodes[node].off = end == End::Power;
        self.nodes[node].paused_until = 0;
        self.restart_later(node);
    }

    /// A clean stop.
    pub(in super::super) fn stop(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.take() else { return };
        let mut process = *process;
        self.disconnect_all(&mut process);
        let inc = self.nodes[node].inc;
        let Process { member, .. } = process;
        let stopped = member.stop();
        self.note(|| format!("n{} stops cleanly: {stopped:?}", node + 1));
        if self.nodes[node].disk.has_crashed() {
            self.nodes[node].unsure = true;
            self.crash_disk(node);
        } else {
            self.nodes[node].disk = self.nodes[node].disk.after_kill();
        }
        self.connections_end(node, inc, false);
        self.nodes[node].paused_until = 0;
        self.restart_later(node);
    }

    fn crash_disk(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        let image = match self.rng.below(4) {
            // A script loses all that may be lost.
            _ if self.directed.is_some() => disk.after_crash(&mut Nothing),
            0 => disk.after_crash(&mut Nothing),
            1 => disk.after_crash(&mut Everything),
            _ => disk.after_crash(&mut Random::new(self.rng.next_u64())),
        };
        self.nodes[node].disk = image;
    }

    fn restart_later(&mut self, node: usize) {
        self.nodes[node].inc += 1;
        let inc = self.nodes[node].inc;
        if self.directed.is_some() && !self.calm {
            return;
        }
        let delay = match self.rng.below(4) {
            _ if self.calm => 10,
            0 => self.rng.below(20),
            1 | 2 => self.rng.below(1_000),
            _ => self.rng.below(8_000),
        };
        self.at(delay, Event::Start { node, inc });
    }

    /// A received state has taken the place of the log, or the tree here differs: another one is made next.
    pub(super) fn drop_tree(&mut self, node: usize, process: &mut Process) -> Result<(), Violation> {
        if let Some(task) = process.task.take() {
            task.abort(&process.tree);
        }
        process.tree = RwLock::new(Tree::new(self.setup.tree_options()));
        match is_made_anew(process) {
            true => Ok(()),
            false => invariants::quorum_durable::replaced(self, node, process.member.positions().applied()),
        }
    }

    /// That tree is there.
    pub(super) fn replace_tree(
        &mut self,
        node: usize,
        process: &mut Process,
        tree: Tree,
    ) -> Result<(), Violation> {
        let (zxid, there) = (tree.applied(), process.tree.read().applied());
        if there != Zxid::ZERO {
            return violated(format!("n{} has two trees, at {} and {}", node + 1, show(there), show(zxid)));
        }
        if is_made_anew(process) {
            self.counts.made_anew += 1;
            self.note(|| format!("n{} has made its tree anew from {}", node + 1, show(zxid)));
        } else {
            self.counts.snaps += 1;
            self.note(|| format!("n{} has received the state at {}", node + 1, show(zxid)));
        }
        invariants::digest::check(self, node, zxid, tree.digest())?;
        invariants::sessions::check_tree(self, node, &tree)?;
        invariants::watches::tree_goes(node, process.tree.read().watch_count())?;
        process.tree = RwLock::new(tree);
        Ok(())
    }
}

/// Behind a state that was received there is nothing; behind a snapshot of a tree that differs, at least the transaction at which that was found.
fn is_made_anew(process: &Process) -> bool {
    let positions = process.member.positions();
    positions.applied() < positions.appended()
}

/// True for what the simulated disk was told to do, not for what it holds.
fn is_fault(error: &RecoverError) -> bool {
    error.to_string().contains("os error 5)")
}

/// The zxids behind `after` on the disk.
pub(in super::super) fn read_zxids(
    world: &mut World,
    reader: &crate::storage::log::LogReader,
    after: Zxid,
) -> Result<Vec<Zxid>, Violation> {
    let fault = |error| Violation(format!("the log cannot be read behind {}: {error}", show(after)));
    let mut zxids = Vec::new();
    let mut cursor = reader.after(after).map_err(fault)?;
    while let Some((zxid, payload)) = cursor.next().map_err(fault)? {
        world.model.seen(zxid, payload)?;
        zxids.push(zxid);
    }
    Ok(zxids)
}
