//! A node: its disk, its clock, and the process on it, which does what the server's shell does, in steps whose times the seed decides.
//!
//! - ND1: everything that a process does is one call here; then outputs are drained to empty, bytes put on the way, and the invariants looked at.
//! - ND2: a disk that crashed in the middle of a call ends the process: nothing of what the call asked for is done.
//! - ND3: flushes end when their event comes, not before; several inputs share one flush, as the seed has it.

mod background;
mod conns;
mod decay;
mod life;
mod serve;
mod slips;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parking_lot::RwLock;

use super::clients::{Conn, Request, is_write};
use super::net::ConnKey;
use super::options::Setup;
use super::{Event, Turn, Violation, World, conn_of_link, invariants, violated};
use crate::base::rng::Rng;
use crate::base::{ConnId, Epoch, MonoMs, ServerId, SessionId, Zxid};
use crate::election::Notice;
use crate::node::member::{Host, Member, Output, Standing, StopReason};
use crate::node::{Prepare, SnapshotTask};
use crate::session::{SessionFault, Tracker};
use crate::storage::log::{Flusher, LogReader, SpareMaker};
use crate::storage::snapshot::SnapshotStore;
use crate::testing::sim_disk::SimDisk;
use crate::tree::Tree;
use crate::wire::OpCode;
use crate::wire::quorum::AuthIds;
use crate::wire::quorum_payload::{ForwardedRequest, Touch};
use crate::zab::LinkId;

pub(super) use life::{End, read_zxids};

/// A connection that owns no session.
const NOBODY: ConnId = ConnId(u64::MAX);

/// A machine.
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) disk: SimDisk,
    /// Lives so far; the current one's number.
    pub(super) inc: u64,
    pub(super) process: Option<Box<Process>>,
    /// Without power: nobody answers at all.
    pub(super) off: bool,
    pub(super) paused_until: u64,
    pub(super) clock: Clock,
    /// Longest flush, ms.
    pub(super) flush_ms: u64,
    /// Its memory spoils the next data that it applies, so often.
    pub(super) rots: u32,
    /// Epochs seen in the superblock.
    pub(super) epochs: (Epoch, Epoch),
    /// The zxids that its disk holds, as far as it is known to be durable: the whole history, snapshots counted.
    pub(super) durable: Vec<Zxid>,
    /// What it held before its disk lost that: an acknowledgement given then is not taken back.
    pub(super) held_once: Vec<Zxid>,
    /// Bits have flipped, and it may not have noticed yet.
    pub(super) rotten: bool,
    /// How many of the committed history are known to be a beginning of it.
    pub(super) agreed: usize,
    /// It crashed in the middle of something that may have been a cut or a replacement.
    pub(super) unsure: bool,
}

/// A clock that may run wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: u64,
    at: u64,
    per_mille: u64,
}

impl Clock {
    pub(super) fn read(&self, now: u64) -> MonoMs {
        MonoMs(self.base + (now - self.at) * self.per_mille / 1_000)
    }

    /// From now on it runs at `per_mille`, `jump` ahead of itself.
    pub(super) fn change(&mut self, now: u64, per_mille: u64, jump: u64) {
        self.base = self.read(now).0 + jump;
        (self.at, self.per_mille) = (now, per_mille);
    }

    /// How long until it shows `time`.
    fn until(&self, now: u64, time: MonoMs) -> u64 {
        (time.since(self.read(now)) * 1_000).div_ceil(self.per_mille).max(1)
    }
}

/// A process of the product.
pub(super) struct Process {
    pub(super) member: Member,
    pub(super) desk: Desk,
    pub(super) tree: RwLock<Tree>,
    pub(super) reader: LogReader,
    pub(super) snapshots: SnapshotStore,
    pub(super) spares: SpareMaker,
    pub(super) task: Option<SnapshotTask>,
    pub(super) snapshot_at: u64,
    pub(super) verified: BTreeSet<Zxid>,
    pub(super) purge_below: Option<Zxid>,
    /// While it leads and serves.
    pub(super) prepare: Option<Prepare>,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) by_session: BTreeMap<SessionId, ConnId>,
    /// Syncs asked for, oldest first.
    pub(super) syncs: VecDeque<ConnId>,
    pub(super) next_session: i64,
    pub(super) links: BTreeMap<LinkId, (ConnKey, usize)>,
    pub(super) inbox: BTreeMap<LinkId, Inbox>,
    wake: Option<(u64, u64)>,
    wakes: u64,
    turns: BTreeSet<Turn>,
    failed: Option<String>,
}

/// What was received and not consumed.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) bytes: Vec<u8>,
    hold: bool,
}

/// The shell's side of [`Host`].
pub(super) struct Desk {
    pub(super) now: MonoMs,
    pub(super) serving: Option<Standing>,
    /// To be made transactions of.
    pub(super) requests: VecDeque<Request>,
    pub(super) sessions: Tracker,
    /// Sessions heard of, for the leader.
    pub(super) touches: BTreeMap<SessionId, i32>,
    pub(super) revalidated: Vec<(SessionId, bool)>,
    /// While it leads: when each session was last heard of, and how long it may be silent, ms.
    pub(super) heard: BTreeMap<SessionId, (MonoMs, i32)>,
    /// A slip: nothing is said of sessions.
    pub(super) mute: bool,
}

impl Desk {
    /// A leader hears of a session.
    pub(super) fn note_heard(&mut self, session: SessionId, timeout_ms: Option<i32>) {
        let known = self.heard.get(&session).map(|(_, timeout_ms)| *timeout_ms);
        if let Some(timeout_ms) = timeout_ms.or(known) {
            self.heard.insert(session, (self.now, timeout_ms));
        }
    }
}

impl Host for Desk {
    fn request(&mut self, link: LinkId, request: &ForwardedRequest<'_>, _: &AuthIds<'_>) {
        // Judged by who owns the session now: until it is prepared its client may have gone elsewhere and come back.
        let conn = conn_of_link(link);
        let creates = request.op == OpCode::CreateSession.to_i32();
        let owns = creates
            || self.sessions.check(request.session, conn) != Err(SessionFault::Moved(request.session));
        self.requests.push_back(Request {
            session: request.session,
            cxid: request.cxid,
            op: request.op,
            body: request.body.to_vec(),
            conn: if owns { conn } else { NOBODY },
        });
    }

    fn touched(&mut self, touch: Touch) {
        if let Some(handle) = self.sessions.get(touch.session) {
            handle.touch(self.now);
            self.note_heard(touch.session, None);
        }
    }

    fn revalidate(&mut self, link: LinkId, touch: Touch) -> bool {
        let owner = conn_of_link(link);
        let valid = self.sessions.resume(touch.session, touch.timeout_ms, owner, self.now).is_some();
        if valid {
            self.note_heard(touch.session, Some(touch.timeout_ms));
        }
        valid
    }

    fn revalidated(&mut self, session: SessionId, valid: bool) {
        self.revalidated.push((session, valid));
    }

    fn put_touches(&mut self, out: &mut Vec<u8>) {
        for (session, timeout_ms) in std::mem::take(&mut self.touches) {
            if self.mute {
                continue;
            }
            Touch { session, timeout_ms }.put(out);
        }
    }
}

impl Process {
    pub(super) fn leads(&self) -> bool {
        matches!(self.desk.serving, Some(Standing::Leading { .. }))
    }
}

impl Node {
    pub(super) fn new(index: usize, setup: &Setup, rng: &mut Rng) -> Node {
        Node {
            index,
            disk: SimDisk::new(rng.next_u64()),
            inc: 0,
            process: None,
            off: false,
            paused_until: 0,
            clock: Clock { base: 1_000_000 + rng.below(1 << 30), at: 0, per_mille: 1_000 },
            flush_ms: setup.flush_ms,
            rots: 0,
            epochs: (Epoch(0), Epoch(0)),
            durable: Vec::new(),
            held_once: Vec::new(),
            rotten: false,
            agreed: 0,
            unsure: false,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn is_life(&self, inc: u64) -> bool {
        self.process.is_some() && self.inc == inc
    }

    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    pub(super) fn id(&self) -> ServerId {
        Setup::server_id(self.index)
    }

    pub(super) fn serving(&self) -> Option<Standing> {
        self.process.as_ref().and_then(|process| process.desk.serving)
    }
}

impl World {
    /// One call to the process of a node, and all that follows from it (ND1).
    pub(super) fn call(
        &mut self,
        node: usize,
        inc: u64,
        f: impl FnOnce(&mut World, &mut Process, MonoMs) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        if !self.nodes[node].is_life(inc) {
            return Ok(());
        }
        let mut process = self.nodes[node].process.take().expect("it lives");
        let now = self.nodes[node].clock.read(self.now);
        process.desk.now = now;
        f(self, &mut process, now)?;
        if !self.nodes[node].disk.has_crashed() {
            self.drain(node, &mut process, now)?;
        }
        if self.nodes[node].disk.has_crashed() {
            self.nodes[node].unsure = true;
            self.counts.torn += 1;
            self.end_process(node, process, End::Power);
            return Ok(());
        }
        if let Some(why) = process.failed.take() {
            self.counts.failed += 1;
            self.note(|| format!("n{} fails: {why}", node + 1));
            if why.contains("compare the members") {
                return violated(format!("n{} finds two histories: {why}", node + 1));
            }
            self.nodes[node].unsure = true;
            self.end_process(node, process, End::Killed);
            return Ok(());
        }
        self.pump(node, &mut process);
        self.plan_turns(node, &mut process);
        invariants::after_step(self, node, &process)?;
        self.nodes[node].process = Some(process);
        Ok(())
    }

    fn drain(&mut self, node: usize, process: &mut Process, now: MonoMs) -> Result<(), Violation> {
        while let Some(output) = process.member.poll() {
            self.carry_out(node, process, now, output)?;
            if self.nodes[node].disk.has_crashed() {
                return Ok(());
            }
        }
        self.answer_revalidations(process)
    }

    fn carry_out(
        &mut self,
        node: usize,
        process: &mut Process,
        now: MonoMs,
        output: Output,
    ) -> Result<(), Violation> {
        let inc = self.nodes[node].inc;
        match output {
            Output::Notice { to, notice } => self.post(node, to, notice),
            Output::Reconnect => self.meet_all(node, inc),
            Output::Connect { link, to } => {
                let key = self.dial(node, inc, link, to.0 as usize - 1);
                process.links.insert(link, (key, 0));
            }
            Output::Close { link, why } => {
                if let Some(why) = why {
                    self.note(|| format!("n{} closes a connection: {why}", node + 1));
                }
                process.inbox.remove(&link);
                if let Some((key, side)) = process.links.remove(&link) {
                    self.close_end(key, side, 0);
                }
            }
            Output::Resume(link) => {
                if let Some(inbox) = process.inbox.get_mut(&link) {
                    inbox.hold = false;
                    self.receive(node, process, now, link);
                    self.round(node, process, now);
                }
            }
            Output::Flush(flusher) => {
                let delay = 1 + self.rng.below(self.nodes[node].flush_ms);
                self.at(delay, Event::Flush { node, inc, flusher: Box::new(flusher) });
            }
            Output::Serve(standing) => self.serve(node, process, standing)?,
            Output::Epoch(standing) => self.next_epoch(node, process, standing)?,
            Output::Stop(why) => self.stop_serving(node, process, &why),
            Output::DropTree => self.drop_tree(node, process)?,
            Output::Tree(tree) => self.replace_tree(node, process, *tree)?,
            Output::Synced => self.synced(node, process)?,
            Output::Failed(error) => process.failed = Some(error.to_string()),
        }
        Ok(())
    }

    fn stop_serving(&mut self, node: usize, process: &mut Process, why: &StopReason) {
        self.note(|| format!("n{} stops: {why}", node + 1));
        self.counts.stops += u64::from(process.desk.serving.is_some());
        process.desk.serving = None;
        process.prepare = None;
        process.desk.requests.clear();
        process.desk.touches.clear();
        process.desk.revalidated.clear();
        process.syncs.clear();
        self.disconnect_all(process);
    }

    /// Bytes go out, in random pieces.
    fn pump(&mut self, node: usize, process: &mut Process) {
        let waiting: Vec<LinkId> = process.member.waiting().collect();
        for link in waiting {
            let Some(&(key, side)) = process.links.get(&link) else { continue };
            while self.has_room(key, side) {
                let bytes = process.member.output(link);
                if bytes.is_empty() {
                    break;
                }
                let most = (bytes.len() as u64).min(16 << 10);
                let count = if self.rng.one_in(4) { 1 + self.rng.below(most) } else { most } as usize;
                let piece = bytes[..count].to_vec();
                process.member.sent(link, count);
                self.send(key, side, piece);
                self.mark((node as u64) << 32 | count as u64);
            }
        }
    }

    /// Sees to it that the process gets round to what it has to do.
    fn plan_turns(&mut self, node: usize, process: &mut Process) {
        let inc = self.nodes[node].inc;
        let mut wanted = vec![Turn::Work];
        if process.member.has_to_apply() {
            wanted.push(Turn::Apply);
        }
        if process.prepare.is_some() && !process.desk.requests.is_empty() {
            wanted.push(Turn::Prepare);
        }
        for what in wanted {
            let delay = if what == Turn::Work { 2 + self.rng.below(20) } else { self.rng.below(4) };
            self.plan(node, process, what, delay);
        }
        let Some(timer) = process.member.next_timer() else { return };
        let at = self.now + self.nodes[node].clock.until(self.now, timer);
        if process.wake.is_none_or(|(planned, _)| at < planned) {
            process.wakes += 1;
            process.wake = Some((at, process.wakes));
            self.at(at - self.now, Event::Wake { node, inc, token: process.wakes });
        }
    }

    pub(super) fn plan(&mut self, node: usize, process: &mut Process, what: Turn, delay: u64) {
        if process.turns.insert(what) {
            let inc = self.nodes[node].inc;
            self.at(delay, Event::Turn { node, inc, what });
        }
    }

    /// Something came in: the round ends now, or when more has come.
    fn round(&mut self, node: usize, process: &mut Process, now: MonoMs) {
        if self.rng.one_in(2) {
            process.member.finish_round(now);
        } else {
            let delay = self.rng.below(4);
            self.plan(node, process, Turn::Round, delay);
        }
    }

    // --- What comes in ---

    pub(super) fn wake(&mut self, node: usize, inc: u64, token: u64) -> Result<(), Violation> {
        self.call(node, inc, |world, process, now| {
            if process.wake.is_some_and(|(_, planned)| planned == token) {
                process.wake = None;
                process.member.timer(now);
                world.round(node, process, now);
            }
            Ok(())
        })
    }

    pub(super) fn flush_ends(
        &mut self,
        node: usize,
        inc: u64,
        mut flusher: Flusher,
    ) -> Result<(), Violation> {
        self.call(node, inc, |world, process, now| {
            let result = flusher.flush();
            if !world.nodes[node].disk.has_crashed() {
                process.member.flushed(now, flusher, result);
                // What was appended meanwhile is flushed with what comes.
                world.round(node, process, now);
            }
            Ok(())
        })
    }

    pub(super) fn turn(&mut self, node: usize, inc: u64, what: Turn) -> Result<(), Violation> {
        self.call(node, inc, |world, process, now| {
            process.turns.remove(&what);
            match what {
                Turn::Round => process.member.finish_round(now),
                Turn::Work => {
                    let Process { member, tree, task, .. } = process;
                    let alone = task.is_none();
                    let more = member.work(now, &*tree, alone);
                    if more {
                        let delay = 1 + world.rng.below(4);
                        world.plan(node, process, Turn::Work, delay);
                    }
                }
                Turn::Apply => world.apply(node, process)?,
                Turn::Prepare => world.prepare(node, process, now)?,
                Turn::Background => world.background(node, process, now)?,
            }
            Ok(())
        })
    }

    pub(super) fn accept(&mut self, node: usize, key: ConnKey) -> Result<(), Violation> {
        let inc = self.nodes[node].inc;
        self.call(node, inc, |world, process, _| {
            let link = process.member.accepted();
            process.links.insert(link, (key, 1));
            world.set_acceptor(key, inc, link);
            Ok(())
        })
    }

    pub(super) fn link_connected(&mut self, node: usize, inc: u64, link: LinkId) -> Result<(), Violation> {
        self.call(node, inc, |_, process, now| {
            if process.links.contains_key(&link) {
                process.member.connected(now, link);
            }
            Ok(())
        })
    }

    pub(super) fn link_closed(&mut self, node: usize, inc: u64, link: LinkId) -> Result<(), Violation> {
        self.call(node, inc, |_, process, now| {
            process.inbox.remove(&link);
            if process.links.remove(&link).is_some() {
                process.member.closed(now, link);
            }
            Ok(())
        })
    }

    pub(super) fn bytes_arrive(
        &mut self,
        node: usize,
        inc: u64,
        link: LinkId,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        self.call(node, inc, |world, process, now| {
            if process.links.contains_key(&link) {
                process.inbox.entry(link).or_default().bytes.extend_from_slice(bytes);
                world.receive(node, process, now, link);
                world.round(node, process, now);
            }
            Ok(())
        })
    }

    /// Gives the member what has come on a link: all of it, or, when a script says what arrives, packet by packet.
    fn receive(&mut self, node: usize, process: &mut Process, now: MonoMs, link: LinkId) {
        if self.directed.is_none() {
            receive(process, now, link, usize::MAX);
            return;
        }
        while let Some(upto) = self.let_in(node, process, link) {
            if receive(process, now, link, upto) == 0 {
                return;
            }
        }
    }

    /// What waited at a gate is taken now.
    pub(super) fn receive_again(&mut self, node: usize) -> Result<(), Violation> {
        let inc = self.nodes[node].inc;
        self.call(node, inc, |world, process, now| {
            for link in process.inbox.keys().copied().collect::<Vec<_>>() {
                world.receive(node, process, now, link);
            }
            world.round(node, process, now);
            Ok(())
        })
    }

    /// There is room on a connection again.
    pub(super) fn pump_later(&mut self, node: usize, inc: u64) {
        if self.nodes[node].is_life(inc) && self.nodes[node].paused_until <= self.now {
            let mut process = self.nodes[node].process.take().expect("it lives");
            self.pump(node, &mut process);
            self.nodes[node].process = Some(process);
        }
    }

    pub(super) fn notice(&mut self, node: usize, from: usize, notice: Notice) -> Result<(), Violation> {
        let (inc, from) = (self.nodes[node].inc, self.nodes[from].id());
        self.call(node, inc, |_, process, now| {
            process.member.notice(now, from, notice);
            Ok(())
        })
    }

    pub(super) fn peer_up(&mut self, node: usize, peer: usize) -> Result<(), Violation> {
        let (inc, peer) = (self.nodes[node].inc, self.nodes[peer].id());
        self.call(node, inc, |_, process, now| {
            process.member.peer_up(now, peer);
            Ok(())
        })
    }

    pub(super) fn peer_down(&mut self, node: usize, peer: usize) -> Result<(), Violation> {
        let (inc, peer) = (self.nodes[node].inc, self.nodes[peer].id());
        self.call(node, inc, |_, process, now| {
            process.member.peer_down(now, peer);
            Ok(())
        })
    }
}

/// Gives the member the first bytes of what has come on a link, unless it wants no more; how many it took.
fn receive(process: &mut Process, now: MonoMs, link: LinkId, upto: usize) -> usize {
    let Process { member, desk, inbox, .. } = process;
    let Some(held) = inbox.get_mut(&link) else { return 0 };
    if held.hold || held.bytes.is_empty() {
        return 0;
    }
    let received = member.receive(now, link, &held.bytes[..upto.min(held.bytes.len())], desk);
    held.bytes.drain(..received.consumed);
    held.hold = received.hold;
    received.consumed
}
