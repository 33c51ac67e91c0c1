//! Serving: requests become transactions, transactions are applied; who watches is told, and who wrote is answered.

use super::super::clients::{Pending, Ready, Stage, is_write};
use super::super::options::GROUP_REQUESTS_MAX;
use super::super::{Violation, World, invariants, show, violated};
use super::Process;
use crate::base::{ConnId, Epoch, MonoMs, SessionId, WallMs, Zxid};
use crate::node::member::Standing;
use crate::node::{AuthIds, Prepare, WriteRequest, put_write_reply};
use crate::session::Tracker;
use crate::storage::log::RecordKind;
use crate::tree::{Fired, Outcome};
use crate::wire::OpCode;
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
    payload: Vec<u8>,
    fired: Fired,
}

/// What came of applying.
enum Next {
    Nothing,
    Applied(Box<Applied>),
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
        process.desk.heard.clear();
        for (id, timeout_ms) in known {
            sessions.restore(id, timeout_ms, process.desk.now);
            process.desk.note_heard(id, Some(timeout_ms));
        }
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
                desk.note_heard(request.session, Some(timeout_ms));
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
            self.tell_watchers(process, &txn.fired)?;
            self.applied_one(node, process, &txn)?;
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
            if let (1.., Txn::SetData { data, .. }) = (*rots, &mut proposal.txn) {
                (*rots, rotten, *data) = (*rots - 1, true, Some(b"rot".as_slice()));
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
            let (digest, fired, payload) = (tree.digest(), std::mem::take(&mut fired), payload.to_vec());
            let txn = Applied { zxid, session, cxid, outcome, digest, payload, fired };
            next = Next::Applied(Box::new(txn));
            Ok(())
        });
        match applied {
            Err(Some(violation)) => Err(violation),
            Ok(_) | Err(None) => Ok(next),
        }
    }

    /// Who wrote is answered, and the table of sessions kept in step.
    fn applied_one(&mut self, node: usize, process: &mut Process, txn: &Applied) -> Result<(), Violation> {
        if let Some(conn) = process.by_session.get(&txn.session).copied()
            && let Some(held) = process.conns.get_mut(&conn)
        {
            match (&held.stage, &txn.outcome) {
                (Stage::Creating, Outcome::SessionCreated) if txn.cxid == 0 => {
                    self.goes_live(process, conn, txn.session);
                }
                _ => {
                    let waits = |p: &&mut Pending| p.cxid == txn.cxid && matches!(p.ready, Ready::No);
                    let waiting = held.pending.iter_mut().find(waits);
                    if let Some(pending) = waiting.filter(|p| is_write(p.op)) {
                        let proposal = Proposal::read(&txn.payload).expect("read before");
                        let mut frame = Vec::new();
                        let served =
                            put_write_reply(&mut frame, txn.cxid, pending.op, &proposal, &txn.outcome);
                        pending.ready = Ready::Answer(frame, served);
                    }
                }
            }
        }
        if txn.outcome == Outcome::SessionClosed {
            process.desk.sessions.remove(txn.session);
            process.desk.heard.remove(&txn.session);
            invariants::sessions::check_tree(self, node, &process.tree.read())?;
            if let Some(conn) = process.by_session.get(&txn.session).copied() {
                self.answer_what_is_ready(process, conn)?;
                self.session_ended(process, conn)?;
            }
        }
        Ok(())
    }
}
