//! One life of the node: what `server::commit`, `snapshotter` and `housekeeping` do on several threads, in steps whose order the
//! seed decides.
//!
//! - K1: order of requests = order of zxids = order of the log = order of application; preparing runs ahead of applying.
//! - K2: nothing is applied, and nobody is answered, before the flush that covers it returned (but for [`Bug`]).
//! - K3: after a failed append, flush, mark, spare or purge the life is dead: it does nothing any more.

mod background;
mod setup;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;

use super::clients::{Client, Request};
use super::{Bug, Sim, Violation, invariants};
use crate::base::rng::Rng;
use crate::base::{ConnId, LogPos, MonoMs, WallMs, Zxid};
use crate::node::recover::{RecoverShell, RecoverSummary};
use crate::node::{NodeDir, Prepare, PrepareOptions, RecoverError, SnapshotTask, WriteRequest, recover};
use crate::session::Tracker;
use crate::storage::log::{Appender, Flusher, Group, Log, LogError, LogReader, RecordKind, SpareMaker};
use crate::storage::snapshot::{Retention, SnapshotStore};
use crate::storage::superblock;
use crate::storage::vfs::Vfs;
use crate::testing::sim_disk::SimDisk;
use crate::tree::{Fired, Outcome, Tree};
use crate::wire::OpCode;
use crate::wire::txn::Proposal;

pub(super) use setup::Setup;

/// Where the node lies on the simulated disk.
const DATA_DIR: &str = "/data/zabra";
/// Apart, as with `dataLogDir`.
pub(super) const LOG_DIR: &str = "/log/zabra/log";
/// Room on the disk when it is not squeezed, bytes.
pub(super) const CAPACITY: u64 = 1 << 30;
/// Requests of one group at most.
const GROUP_REQUESTS_MAX: u64 = 6;
/// Groups appended and not flushed at most.
const BATCHES_MAX: usize = 4;
/// Payloads must fit into the smallest segment, several of them into the others.
const PAYLOAD_BYTES_MAX: usize = 6 << 10;
/// Sessions kept at least.
const CLIENTS_MIN: usize = 3;

/// A group on its way from append to apply.
struct Batch {
    group: Group,
    requests: Vec<Request>,
    /// What is proven to have been durable once this group is.
    vouches: Option<Zxid>,
}

/// See the module's documentation.
pub(super) struct Life {
    pub(super) tree: RwLock<Tree>,
    pub(super) reader: LogReader,
    pub(super) dir: NodeDir,
    pub(super) summary: RecoverSummary,
    /// The bug of that name is at work.
    pub(super) keeps_clean_stop: bool,
    appender: Appender,
    flusher: Flusher,
    spares: SpareMaker,
    snapshots: SnapshotStore,
    prepare: Prepare,
    prepare_options: PrepareOptions,
    sessions: Tracker,
    clients: Vec<Client>,
    conns: u64,
    queue: Vec<Request>,
    batches: VecDeque<Batch>,
    /// Behind the last group; `None` behind a mark.
    end: Option<LogPos>,
    stalled: bool,
    dead: bool,
    task: Option<SnapshotTask>,
    verified: BTreeSet<Zxid>,
    purge_below: Option<Zxid>,
    clean_stop_found: Option<LogPos>,
    now_ms: u64,
    retention: Retention,
}

impl Life {
    /// Recovers the node on `disk`. Whoever has a session there reconnects.
    pub(super) fn start(
        disk: &SimDisk,
        setup: &Setup,
        number: u32,
        rng: &mut Rng,
    ) -> Result<Life, RecoverError> {
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let places = Setup::places();
        let clean_stop_found = superblock::load(disk, &places.data, false)
            .ok()
            .flatten()
            .and_then(|found| found.value.clean_stop);
        let options = setup.recover_options(rng.next_u64());
        let node = recover(&vfs, &places, &options, &RecoverShell::quiet())?;
        let Log { appender, flusher, reader, spares } = node.log;
        let prepare_options = setup.prepare_options();
        let mut life = Life {
            prepare: Prepare::new(node.tree.applied(), node.tree.digest(), prepare_options.clone()),
            tree: RwLock::new(node.tree),
            end: Some(node.summary.log.end),
            summary: node.summary,
            reader,
            dir: node.dir,
            keeps_clean_stop: false,
            appender,
            flusher,
            spares,
            snapshots: node.snapshots,
            prepare_options,
            sessions: Tracker::new(2_000, i64::from(number) << 32 | 1),
            clients: Vec::new(),
            conns: 0,
            queue: Vec::new(),
            batches: VecDeque::new(),
            stalled: false,
            dead: false,
            task: None,
            verified: BTreeSet::new(),
            purge_below: None,
            clean_stop_found,
            now_ms: 0,
            retention: setup.retention,
        };
        life.reconnect(rng);
        Ok(life)
    }

    /// Makes the mistakes that concern starts.
    pub(super) fn misrecover(&mut self, sim: &Sim) {
        let last = self.summary.log.last;
        let wrong = match (sim.options.bug, self.summary.snapshot, self.clean_stop_found) {
            (Some(Bug::SkipLastReplay), _, _) if self.summary.replayed_txns > 0 => {
                sim.model.tree_at(Zxid(last.0 - 1))
            }
            (Some(Bug::HalfLoadedSnapshot), Some(from), _) => sim.model.tree_without(last, Some(from.zxid)),
            (Some(Bug::KeepCleanStop), _, Some(place)) => {
                let committed = self.dir.superblock().committed;
                self.keeps_clean_stop = self.dir.clean_stop(place, committed).is_ok();
                return;
            }
            _ => return,
        };
        self.prepare = Prepare::new(wrong.applied(), wrong.digest(), self.prepare_options.clone());
        self.tree = RwLock::new(wrong);
    }

    fn reconnect(&mut self, rng: &mut Rng) {
        let mut known: Vec<_> = self.tree.read().sessions().collect();
        known.sort_unstable();
        for (session, timeout_ms) in known {
            self.sessions.restore(session, timeout_ms, MonoMs(0));
            let conn = self.next_conn();
            if self.sessions.resume(session, timeout_ms, conn, MonoMs(0)).is_some() {
                self.clients.push(Client::new(session, conn, rng));
            }
        }
    }

    fn next_conn(&mut self) -> ConnId {
        self.conns += 1;
        ConnId(self.conns)
    }

    /// True when the process must stop.
    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Does one thing.
    pub(super) fn step(&mut self, sim: &mut Sim) -> Result<(), Violation> {
        match sim.rng.below(25) {
            0..=7 => self.ask(sim),
            8..=11 => self.flush_and_apply(sim)?,
            12 => {
                let made = self.spares.prepare_if_needed();
                self.survive(sim, "spare", made);
            }
            13 => self.mark_if_idle(sim),
            14..=19 => self.snapshot_step(sim),
            20 => self.purge(sim),
            21 => self.pass_time(sim),
            22 => self.change_capacity(sim),
            23 => self.receive_state(sim),
            _ => self.connect(sim),
        }
        Ok(())
    }

    // --- Clients ---

    /// A new session.
    pub(super) fn connect(&mut self, sim: &mut Sim) {
        let conn = self.next_conn();
        let timeout_ms = 4_000 + sim.rng.below(4) as i32 * 4_000;
        let session = self.sessions.create(timeout_ms, conn, MonoMs(self.now_ms)).id();
        let client = Client::new(session, conn, &mut sim.rng);
        let body = timeout_ms.to_be_bytes().to_vec();
        self.clients.push(client.clone());
        self.queue.push(Request { client, op: OpCode::CreateSession, body });
    }

    /// Clients write; what there is makes one group.
    fn ask(&mut self, sim: &mut Sim) {
        while self.clients.len() < CLIENTS_MIN {
            self.connect(sim);
        }
        for _ in 0..sim.rng.below(GROUP_REQUESTS_MAX) {
            let client = &self.clients[sim.rng.below(self.clients.len() as u64) as usize];
            self.queue.push(client.request(&mut sim.rng));
        }
        if self.batches.len() < BATCHES_MAX {
            self.prepare_and_append(sim);
        }
    }

    /// Sessions expire.
    fn pass_time(&mut self, sim: &mut Sim) {
        self.now_ms += sim.rng.below(3_000);
        for client in &self.clients {
            if sim.rng.one_in(4) {
                continue;
            }
            if let Some(handle) = self.sessions.get(client.session) {
                handle.touch(MonoMs(self.now_ms));
            }
        }
        let mut due = Vec::new();
        self.sessions.poll_expired(MonoMs(self.now_ms), &mut due);
        due.sort_unstable();
        for session in due {
            let client = Client::own(session);
            self.queue.push(Request { client, op: OpCode::CloseSession, body: Vec::new() });
        }
    }

    // --- Commit path ---

    fn prepare_and_append(&mut self, sim: &mut Sim) {
        if self.queue.is_empty() || self.dead {
            return;
        }
        if self.stalled && !self.rebuild() {
            // Refused, as `server::commit` does: nobody got a zxid.
            sim.counts.no_space += self.queue.len() as u64;
            return self.queue.clear();
        }
        let mut batch = self.prepare_group(sim);
        let durable = self.flusher.durable();
        match self.appender.append(&mut batch.group) {
            Ok(end) => {
                let claims = end.segment == durable.pos.segment || Some(durable.pos) == self.end;
                batch.vouches = claims.then_some(durable.zxid);
                self.end = Some(end);
                sim.note(format!(
                    "appended {} up to {:?} at {end}",
                    batch.group.len(),
                    batch.group.last_zxid()
                ));
                note_appended(sim, &batch.group);
                self.batches.push_back(batch);
                if sim.options.bug == Some(Bug::AcknowledgeBeforeFlush) {
                    let _ = self.apply_batches(sim);
                }
            }
            Err(error @ LogError::NoSpace { .. }) => {
                sim.note(format!("append: {error}"));
                sim.counts.no_space += batch.requests.len() as u64;
                self.stalled = true;
            }
            Err(error) => {
                // Any part of it may be on the disk.
                note_appended(sim, &batch.group);
                self.survive(sim, "append", Err::<(), _>(error));
            }
        }
    }

    /// After a full disk: starts again from the tree, once it holds all that was appended.
    fn rebuild(&mut self) -> bool {
        let tree = self.tree.read();
        if tree.applied() != self.appender.last_zxid() {
            return false;
        }
        self.prepare = Prepare::new(tree.applied(), tree.digest(), self.prepare_options.clone());
        self.stalled = false;
        true
    }

    fn prepare_group(&mut self, sim: &mut Sim) -> Batch {
        let tree = self.tree.read();
        self.prepare.applied(&tree);
        let mut group = Group::new();
        let mut requests = Vec::new();
        let room = self.appender.group_bytes_max() as usize - PAYLOAD_BYTES_MAX - 256;
        let mut queue = VecDeque::from(std::mem::take(&mut self.queue));
        while group.bytes() <= room
            && let Some(request) = queue.pop_front()
        {
            let write = WriteRequest {
                session: request.client.session,
                cxid: requests.len() as i32,
                op: request.op,
                body: &request.body,
                auth: &request.client.ids,
                conn: request.client.conn,
            };
            let now = WallMs(1_000_000 + sim.trace.len() as i64);
            let out = group.begin_record();
            let zxid = self.prepare.prepare(&tree, &self.sessions, now, &write, out);
            group.finish_record(zxid, RecordKind::Txn);
            requests.push(request);
        }
        // What is left stays for the next group, in order.
        self.queue = queue.into();
        Batch { group, requests, vouches: None }
    }

    /// One flush for all that was appended, then everything it covers is applied and answered.
    fn flush_and_apply(&mut self, sim: &mut Sim) -> Result<(), Violation> {
        if self.batches.is_empty() || self.dead {
            return Ok(());
        }
        let flushed = self.flusher.flush();
        let failed = flushed.is_err();
        self.survive(sim, "flush", flushed);
        if failed && (sim.options.bug != Some(Bug::IgnoreFailedFlush) || sim.disk.has_crashed()) {
            return Ok(());
        }
        for batch in &self.batches {
            sim.model.vouched = sim.model.vouched.max(batch.vouches.unwrap_or_default());
        }
        self.apply_batches(sim)
    }

    fn apply_batches(&mut self, sim: &mut Sim) -> Result<(), Violation> {
        while let Some(batch) = self.batches.pop_front() {
            for ((zxid, _, payload), request) in batch.group.iter().zip(&batch.requests) {
                self.apply(sim, zxid, payload, request)?;
            }
        }
        Ok(())
    }

    /// Applies and answers: from here on somebody counts on it.
    fn apply(
        &mut self,
        sim: &mut Sim,
        zxid: Zxid,
        payload: &[u8],
        request: &Request,
    ) -> Result<(), Violation> {
        let proposal = Proposal::read(payload).expect("prepared, hence whole");
        let outcome = self.tree.write().apply(&proposal, &mut Fired::new());
        let expected = sim.model.acknowledge(zxid);
        sim.counts.acknowledged += 1;
        sim.counts.effective += u64::from(!matches!(outcome, Outcome::Failed(_)));
        if outcome == Outcome::SessionClosed {
            self.sessions.remove(request.client.session);
            self.clients.retain(|client| client.session != request.client.session);
        }
        invariants::applied_as_in_the_model(&self.tree.read(), &sim.model.tree, (&outcome, &expected))
    }

    /// Prepares, flushes and applies until nothing is left.
    pub(super) fn work_off(&mut self, sim: &mut Sim) -> Result<(), Violation> {
        while !self.dead && (!self.queue.is_empty() || !self.batches.is_empty()) {
            self.prepare_and_append(sim);
            self.flush_and_apply(sim)?;
        }
        Ok(())
    }

    // --- Ends ---

    /// Stops as the server does: no more requests, everything flushed, the place written down.
    pub(super) fn stop(&mut self, sim: &mut Sim) -> bool {
        if let Some(task) = self.task.take() {
            task.abort(&self.tree);
        }
        let Ok(end) = self.flusher.flush() else { return false };
        !self.dead && self.dir.clean_stop(end.pos, end.zxid).is_ok() && !sim.disk.has_crashed()
    }

    /// Takes note of a result on the durable path: what is not benign ends the process (K3).
    fn survive<T: std::fmt::Debug>(&mut self, sim: &mut Sim, what: &str, result: Result<T, LogError>) {
        sim.note(format!("{what}: {result:?}"));
        if result.is_err_and(|e| !e.is_benign()) {
            sim.counts.latched += 1;
            self.dead = true;
        }
    }
}

fn note_appended(sim: &mut Sim, group: &Group) {
    for (zxid, _, payload) in group.iter() {
        sim.model.append(zxid, payload);
    }
}
