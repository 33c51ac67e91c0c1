//! Serving: requests become transactions, transactions are applied, clients are answered in the order of their session.

use std::collections::VecDeque;

use super::super::clients::{Answer, Conn, Message, Pending, Request, Stage, Waits};
use super::super::options::GROUP_REQUESTS_MAX;
use super::super::{Violation, World, invariants, show, violated};
use super::Process;
use crate::base::{ConnId, Epoch, MonoMs, SessionId, WallMs, Zxid};
use crate::node::member::Standing;
use crate::node::{AuthIds, Prepare, WriteRequest};
use crate::session::Tracker;
use crate::storage::log::RecordKind;
use crate::tree::{Fired, Outcome};
use crate::wire::OpCode;
use crate::wire::quorum_payload::{ForwardedRequest, Touch};
use crate::wire::txn::{Proposal, Txn};
use crate::zab::Rule;

/// Bytes of one request's transaction at most, about.
const REQUEST_BYTES_MAX: usize = 3 << 10;

/// A transaction that was applied.
struct Applied {
    zxid: Zxid,
    session: SessionId,
    cxid: i32,
    outcome: Outcome,
    digest: u64,
}

/// What came of applying.
enum Next {
    Nothing,
    Applied(Applied),
    /// The tree is not what it was for the leader behind that transaction.
    Differs(Zxid),
}

impl World {
    /// Clients may come.
    pub(super) fn serve(
        &mut self,
        node: usize,
        process: &mut Process,
        standing: Standing,
    ) -> Result<(), Violation> {
        process.desk.serving = Some(standing);
        self.note(|| format!("n{} serves: {standing:?}", node + 1));
        let Standing::Leading { epoch } = standing else {
            self.counts.learners += 1;
            return Ok(());
        };
        self.counts.leaders += 1;
        invariants::one_leader::check(self, node, epoch)?;
        invariants::leader_complete::check(self, node, process, epoch)?;
        self.prepare_in(node, process, epoch)?;
        let tree = process.tree.read();
        let mut sessions = Tracker::new(100, 1);
        let mut known: Vec<_> = tree.sessions().collect();
        known.sort_unstable();
        known.into_iter().for_each(|(id, timeout_ms)| sessions.restore(id, timeout_ms, process.desk.now));
        process.desk.sessions = sessions;
        Ok(())
    }

    /// The same leader in a later epoch: sessions stay.
    pub(super) fn next_epoch(
        &mut self,
        node: usize,
        process: &mut Process,
        standing: Standing,
    ) -> Result<(), Violation> {
        process.desk.serving = Some(standing);
        self.note(|| format!("n{} goes on: {standing:?}", node + 1));
        let Standing::Leading { epoch } = standing else { return Ok(()) };
        self.counts.rollovers += 1;
        invariants::one_leader::check(self, node, epoch)?;
        invariants::leader_complete::check(self, node, process, epoch)?;
        self.prepare_in(node, process, epoch)
    }

    fn prepare_in(&mut self, node: usize, process: &mut Process, epoch: Epoch) -> Result<(), Violation> {
        let tree = process.tree.read();
        let begin = Zxid::new(epoch, 0);
        if tree.applied() > begin {
            return violated(format!("n{} begins epoch {epoch} behind {}", node + 1, show(tree.applied())));
        }
        process.prepare = Some(Prepare::new(begin, tree.digest(), self.setup.prepare_options()));
        Ok(())
    }

    /// What there is becomes one group.
    pub(super) fn prepare(
        &mut self,
        node: usize,
        process: &mut Process,
        now: MonoMs,
    ) -> Result<(), Violation> {
        if !process.member.may_propose() {
            return Ok(());
        }
        let mut group = process.member.group();
        let Process { member, desk, tree, prepare, .. } = process;
        let Some(prepare) = prepare else { return Ok(()) };
        let tree = tree.read();
        prepare.applied(&tree);
        let room = member.group_bytes_max() as usize - 2 * REQUEST_BYTES_MAX;
        for _ in 0..1 + self.rng.below(GROUP_REQUESTS_MAX) {
            if group.bytes() > room {
                break;
            }
            let Some(request) = desk.requests.pop_front() else { break };
            let op = OpCode::from_i32(request.op).expect("clients send what there is");
            if op == OpCode::CreateSession {
                let timeout_ms = i32::from_be_bytes(request.body[..4].try_into().expect("four bytes"));
                desk.sessions.restore(request.session, timeout_ms, now);
                desk.sessions.resume(request.session, timeout_ms, request.conn, now);
            }
            let write = WriteRequest {
                session: request.session,
                cxid: request.cxid,
                op,
                body: &request.body,
                auth: &AuthIds::none(),
                conn: request.conn,
            };
            let wall = WallMs(1_000_000 + self.now as i64);
            let out = group.begin_record();
            let zxid = prepare.prepare(&tree, &desk.sessions, wall, &write, out);
            group.finish_record(zxid, RecordKind::Txn);
        }
        drop(tree);
        let (Some(first), Some(last)) = (group.first_zxid(), group.last_zxid()) else { return Ok(()) };
        for (zxid, _, payload) in group.iter() {
            if self.model.txns.contains_key(&zxid) {
                return violated(format!("n{} proposes {} for the second time", node + 1, show(zxid)));
            }
            self.model.seen(zxid, payload)?;
            self.counts.proposed += 1;
        }
        match member.propose(now, group) {
            Err(error) if error.is_benign() => {
                // As good as never made.
                (first.0..=last.0).for_each(|zxid| self.model.forget(Zxid(zxid)));
                self.note(|| format!("n{}: {error}", node + 1));
            }
            _ => {}
        }
        Ok(())
    }

    /// A slice of what may be applied. Who waits is answered between two transactions: no answer may come from a state behind that of a later one.
    pub(super) fn apply(&mut self, node: usize, process: &mut Process) -> Result<(), Violation> {
        for _ in 0..1 + self.rng.below(20) {
            let txn = match self.apply_next(node, process)? {
                Next::Applied(txn) => txn,
                Next::Nothing => return Ok(()),
                Next::Differs(zxid) => {
                    self.counts.diverged += 1;
                    self.note(|| format!("n{} has another tree at {}", node + 1, show(zxid)));
                    process.member.note_diverged(process.desk.now, zxid);
                    return Ok(());
                }
            };
            invariants::applied::check(self, node, txn.zxid)?;
            invariants::digest::check(self, node, txn.zxid, txn.digest)?;
            self.applied_one(process, &txn)?;
            let conns: Vec<ConnId> = process.conns.keys().copied().collect();
            conns.into_iter().try_for_each(|conn| self.answer_what_is_ready(process, conn))?;
        }
        Ok(())
    }

    fn apply_next(&mut self, node: usize, process: &mut Process) -> Result<Next, Violation> {
        let Process { member, tree, .. } = process;
        let careless = self.options.rule == Some(Rule::DivergenceIgnored);
        let (rots, model) = (&mut self.nodes[node].rots, &mut self.model);
        let mut next = Next::Nothing;
        let mut fired = Fired::new();
        let applied = member.apply(1, |zxid, payload| {
            let mut proposal = match Proposal::read(payload) {
                Ok(proposal) => proposal,
                Err(error) => return Err(Some(Violation(format!("{} cannot be read: {error}", show(zxid))))),
            };
            model.seen(zxid, payload).map_err(Some)?;
            let mut tree = tree.write();
            let mut rotten = false;
            if let (true, Txn::SetData { data, .. }) = (*rots, &mut proposal.txn) {
                (*rots, rotten, *data) = (false, true, Some(b"rot".as_slice()));
            }
            let outcome = tree.apply(&proposal, &mut fired);
            match fired.digest_mismatch() {
                Some(_) if rotten && !careless => {
                    next = Next::Differs(zxid);
                    return Err(None);
                }
                Some(mismatch) if !careless => {
                    return Err(Some(Violation(format!("n{} at {}: {mismatch:?}", node + 1, show(zxid)))));
                }
                _ => {}
            }
            let (session, cxid) = (SessionId(proposal.header.client_id), proposal.header.cxid);
            next = Next::Applied(Applied { zxid, session, cxid, outcome, digest: tree.digest() });
            Ok(())
        });
        match applied {
            Err(Some(violation)) => Err(violation),
            Ok(_) | Err(None) => Ok(next),
        }
    }

    fn applied_one(&mut self, process: &mut Process, txn: &Applied) -> Result<(), Violation> {
        if let Some(conn) = process.by_session.get(&txn.session).copied()
            && let Some(held) = process.conns.get_mut(&conn)
        {
            match (&held.stage, &txn.outcome) {
                (Stage::Creating, Outcome::SessionCreated) if txn.cxid == 0 => {
                    held.stage = Stage::Live;
                    let client = held.client;
                    self.session_live(client, conn, txn.session, txn.zxid);
                }
                _ => {
                    let waiting = held.pending.iter_mut().find(|p| p.cxid == txn.cxid && p.done.is_none());
                    if let Some(pending) = waiting.filter(|p| matches!(p.waits, Waits::Write)) {
                        pending.done = Some(txn.zxid);
                    }
                }
            }
            if txn.outcome == Outcome::SessionClosed {
                self.answer_what_is_ready(process, conn)?;
                self.drop_conn(process, conn, true);
            }
        }
        if txn.outcome == Outcome::SessionClosed {
            process.desk.sessions.remove(txn.session);
        }
        Ok(())
    }

    /// Answers from the front of a connection's queue what can be answered.
    fn answer_what_is_ready(&mut self, process: &mut Process, conn: ConnId) -> Result<(), Violation> {
        loop {
            let Some(held) = process.conns.get_mut(&conn) else { return Ok(()) };
            let Some(front) = held.pending.front() else { return Ok(()) };
            let tree = process.tree.read();
            let applied = tree.applied();
            let answer = match (&front.waits, front.done) {
                (Waits::Write, Some(zxid)) => Answer { zxid, value: None },
                (Waits::Read(path), _) => {
                    let value = tree.find(path).map(|node| node.data().map(<[u8]>::to_vec));
                    Answer { zxid: applied, value }
                }
                (Waits::Sync, Some(upto)) if applied >= upto => Answer { zxid: applied, value: None },
                _ => return Ok(()),
            };
            drop(tree);
            let (client, cxid) = (held.client, front.cxid);
            if matches!(held.pending.pop_front(), Some(Pending { waits: Waits::Sync, .. })) {
                held.syncing = false;
                let waiting = held.inbox.len();
                self.hear_again(conn, client, waiting);
            }
            self.answer(client, conn, cxid, answer)?;
        }
    }

    pub(super) fn synced(&mut self, node: usize, process: &mut Process) -> Result<(), Violation> {
        let Some(conn) = process.syncs.pop_front() else {
            return violated(format!("n{} answers a sync that nobody asked for", node + 1));
        };
        let upto = process.member.positions().committed();
        if let Some(held) = process.conns.get_mut(&conn) {
            let waiting =
                held.pending.iter_mut().find(|p| matches!(p.waits, Waits::Sync) && p.done.is_none());
            waiting.expect("asked for").done = Some(upto);
        }
        self.answer_what_is_ready(process, conn)
    }

    pub(super) fn answer_revalidations(&mut self, _: usize, process: &mut Process) -> Result<(), Violation> {
        for (session, valid) in std::mem::take(&mut process.desk.revalidated) {
            let Some(conn) = process.by_session.get(&session).copied() else { continue };
            let Some(held) = process.conns.get_mut(&conn) else { continue };
            if !matches!(held.stage, Stage::Validating) {
                continue;
            }
            if valid {
                held.stage = Stage::Live;
                let (client, applied) = (held.client, process.tree.read().applied());
                self.session_live(client, conn, session, applied);
            } else {
                self.drop_conn(process, conn, true);
            }
        }
        Ok(())
    }

    // --- Connections of clients ---

    pub(in super::super) fn message_arrives(
        &mut self,
        node: usize,
        inc: u64,
        conn: ConnId,
    ) -> Result<(), Violation> {
        self.call(node, inc, |world, process, now| {
            let Some(held) = process.conns.get_mut(&conn) else { return Ok(()) };
            if held.syncing && !matches!(held.inbox.front(), Some(Message::Gone)) {
                return Ok(());
            }
            let Some(message) = held.inbox.pop_front() else { return Ok(()) };
            if process.desk.serving.is_none() {
                world.drop_conn(process, conn, false);
                return Ok(());
            }
            world.message(process, now, conn, message)
        })
    }

    /// A client's connection is found to be gone, without a word from the client.
    pub(in super::super) fn client_lost(
        &mut self,
        node: usize,
        inc: u64,
        conn: ConnId,
    ) -> Result<(), Violation> {
        self.call(node, inc, |world, process, now| {
            if process.conns.contains_key(&conn) {
                world.message(process, now, conn, Message::Gone)?;
            }
            Ok(())
        })
    }

    fn message(
        &mut self,
        process: &mut Process,
        now: MonoMs,
        conn: ConnId,
        message: Message,
    ) -> Result<(), Violation> {
        let held = process.conns.get_mut(&conn).expect("looked at just now");
        match message {
            Message::Open { session: None, timeout_ms, .. } => {
                let session = SessionId(process.next_session);
                process.next_session += 1;
                (held.session, held.stage) = (session, Stage::Creating);
                process.by_session.insert(session, conn);
                let body = timeout_ms.to_be_bytes().to_vec();
                submit(process, conn, 0, OpCode::CreateSession, body);
            }
            Message::Open { session: Some(session), timeout_ms, last } => {
                if process.tree.read().applied() < last {
                    // A server behind what the client has seen is none for it.
                    self.drop_conn(process, conn, false);
                    return Ok(());
                }
                (held.session, held.stage) = (session, Stage::Validating);
                if let Some(older) = process.by_session.insert(session, conn) {
                    self.drop_conn(process, older, false);
                    process.by_session.insert(session, conn);
                }
                if process.leads() {
                    let valid = process.desk.sessions.resume(session, timeout_ms, conn, now).is_some();
                    process.desk.revalidated.push((session, valid));
                } else {
                    process.member.revalidate(Touch { session, timeout_ms });
                }
            }
            Message::Write { cxid, op, body } => {
                held.pending.push_back(Pending { cxid, waits: Waits::Write, done: None });
                submit(process, conn, cxid, op, body);
            }
            Message::Read { cxid, path } => {
                held.pending.push_back(Pending { cxid, waits: Waits::Read(path), done: None });
            }
            Message::Sync { cxid } => {
                held.pending.push_back(Pending { cxid, waits: Waits::Sync, done: None });
                let session = held.session;
                held.syncing = self.options.rule != Some(Rule::SyncOvertaken);
                process.syncs.push_back(conn);
                if process.leads() {
                    process.member.sync(now);
                } else {
                    let op = OpCode::Sync.to_i32();
                    process.member.forward(&ForwardedRequest { session, cxid, op, body: b"\0\0\0\0" }, []);
                }
            }
            Message::Gone => {
                let session = held.session;
                if process.leads() && self.options.rule == Some(Rule::OwnerForgotten) {
                    process.desk.sessions.disconnect(session, conn);
                }
                // The session stays this connection's at the leader until another takes it: one that nobody owns would fall to a request of
                // the session's that was held up on the way.
                self.drop_conn(process, conn, false);
                return Ok(());
            }
        }
        self.heard(process, now, conn);
        self.answer_what_is_ready(process, conn)
    }

    /// The session is alive.
    fn heard(&mut self, process: &mut Process, now: MonoMs, conn: ConnId) {
        let Some(held) = process.conns.get(&conn) else { return };
        if process.leads() {
            if let Some(handle) = process.desk.sessions.get(held.session) {
                handle.touch(now);
            }
        } else if matches!(held.stage, Stage::Live) {
            process.desk.touches.insert(held.session, self.setup.session_ms);
        }
    }

    /// Closes a client's connection.
    fn drop_conn(&mut self, process: &mut Process, conn: ConnId, expired: bool) {
        let Some(held) = process.conns.remove(&conn) else { return };
        if process.by_session.get(&held.session) == Some(&conn) {
            process.by_session.remove(&held.session);
        }
        self.client_disconnected(held.client, conn, expired);
    }

    pub(super) fn disconnect_all(&mut self, _: usize, process: &mut Process) {
        let conns: Vec<ConnId> = process.conns.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.drop_conn(process, conn, false));
    }

    /// A client has connected; what it says comes later.
    pub(in super::super) fn open_conn(&mut self, node: usize, client: usize, conn: ConnId) {
        let process = self.nodes[node].process.as_mut().expect("asked before");
        let held = Conn {
            client,
            session: SessionId(0),
            stage: Stage::Opening,
            syncing: false,
            inbox: VecDeque::new(),
            pending: VecDeque::new(),
        };
        process.conns.insert(conn, held);
    }
}

/// A client's write goes to the leader, here or elsewhere.
fn submit(process: &mut Process, conn: ConnId, cxid: i32, op: OpCode, body: Vec<u8>) {
    let session = process.conns[&conn].session;
    let op = op.to_i32();
    if process.leads() {
        process.desk.requests.push_back(Request { session, cxid, op, body, conn });
    } else {
        process.member.forward(&ForwardedRequest { session, cxid, op, body: &body }, []);
    }
}
