//! Connections of clients: what comes in on them, and what goes out, in the order of their session.

use std::collections::VecDeque;

use super::super::clients::{Conn, Message, Pending, Ready, Request, Stage, is_write};
use super::super::options::Slip;
use super::super::{Violation, World, violated};
use super::Process;
use crate::base::{ConnId, MonoMs, SessionId, Zxid};
use crate::node::{AuthIds, AuthOptions, REPLY_BYTES_MAX, ReadContext, serve_read_body};
use crate::tree::{Fired, Tree};
use crate::wire::OpCode;
use crate::wire::quorum_payload::{ForwardedRequest, Touch};
use crate::wire::reply::put_event;
use crate::zab::Rule;

impl World {
    // --- What goes out ---

    /// The events of a transaction: before its answer, and before any read can see the new state.
    pub(super) fn tell_watchers(&mut self, process: &mut Process, fired: &Fired) -> Result<(), Violation> {
        let mut frames: Vec<(ConnId, Vec<u8>)> = Vec::new();
        for firing in fired.iter() {
            for watcher in firing.watchers {
                let mut frame = Vec::new();
                put_event(&mut frame, firing.zxid.to_wire(), firing.event, firing.path);
                frames.push((*watcher, frame));
            }
        }
        if self.options.slip == Some(Slip::EventsReversed) {
            frames.reverse();
        }
        for (conn, mut frame) in frames {
            match self.options.slip {
                Some(Slip::EventLost) if self.rng.one_in(20) => continue,
                Some(Slip::EventTwice) if self.rng.one_in(20) => frame = frame.repeat(2),
                Some(Slip::EventLate) if self.rng.one_in(20) => {
                    if let Some(held) = process.conns.get_mut(&conn) {
                        held.late.append(&mut frame);
                    }
                }
                _ => {}
            }
            self.send_frames(process, conn, &frame)?;
        }
        Ok(())
    }

    fn send_frames(&mut self, process: &Process, conn: ConnId, frames: &[u8]) -> Result<(), Violation> {
        match process.conns.get(&conn) {
            Some(held) => self.hear(held.client, conn, frames),
            None => Ok(()),
        }
    }

    /// Answers from the front of a connection's queue what can be answered.
    pub(super) fn answer_what_is_ready(
        &mut self,
        process: &mut Process,
        conn: ConnId,
    ) -> Result<(), Violation> {
        loop {
            let Some(held) = process.conns.get_mut(&conn) else { return Ok(()) };
            let Some(front) = held.pending.front() else { return Ok(()) };
            let mut close = false;
            let mut frames = match &front.ready {
                Ready::Answer(frame, served) => {
                    // The end of a session that did end is told behind its answer.
                    let ended = front.op == OpCode::CloseSession && frame.get(16..20) == Some(&[0; 4]);
                    close = served.close_after && !ended;
                    frame.clone()
                }
                Ready::Turn => self.serve_one(&process.tree.read(), held.session, conn, front),
                Ready::State(upto) => {
                    let tree = process.tree.read();
                    if tree.applied() < *upto {
                        return Ok(());
                    }
                    self.serve_one(&tree, held.session, conn, front)
                }
                Ready::No => return Ok(()),
            };
            self.slip_answer(front, &mut frames);
            frames.append(&mut held.late);
            if let Some(Pending { op: OpCode::Sync, .. }) = held.pending.pop_front() {
                held.syncing = false;
                let (at, waiting) = (held.at, held.inbox.len());
                self.hear_again(conn, at, waiting);
            }
            self.send_frames(process, conn, &frames)?;
            if close {
                self.drop_conn(process, conn);
            }
        }
    }

    /// A read, as the server serves it.
    fn serve_one(&mut self, tree: &Tree, session: SessionId, conn: ConnId, request: &Pending) -> Vec<u8> {
        let (ids, auth) = (AuthIds::none(), AuthOptions::default());
        let context = ReadContext { conn, session, ids: &ids, auth: &auth, reply_bytes_max: REPLY_BYTES_MAX };
        let mut out = Vec::new();
        let (op, body) = self.slipped(tree, request);
        let served = serve_read_body(tree, &context, request.cxid, op, &body, &mut out);
        debug_assert!(!served.close_after, "clients ask for what there is");
        out
    }

    /// The session of a connection is there.
    pub(super) fn goes_live(&mut self, process: &mut Process, conn: ConnId, session: SessionId) {
        let Some(held) = process.conns.get_mut(&conn) else { return };
        held.stage = Stage::Live;
        let (client, at, waiting) = (held.client, held.at, held.inbox.len());
        self.session_live(client, conn, session);
        self.hear_again(conn, at, waiting);
    }

    pub(super) fn synced(&mut self, node: usize, process: &mut Process) -> Result<(), Violation> {
        let Some(conn) = process.syncs.pop_front() else {
            return violated(format!("n{} answers a sync that nobody asked for", node + 1));
        };
        let upto = process.member.positions().committed();
        if let Some(held) = process.conns.get_mut(&conn) {
            let waits = |p: &&mut Pending| p.op == OpCode::Sync && matches!(p.ready, Ready::No);
            match held.pending.iter_mut().find(waits) {
                Some(pending) => pending.ready = Ready::State(upto),
                None => return violated(format!("n{} answers a sync twice", node + 1)),
            }
        }
        self.answer_what_is_ready(process, conn)
    }

    pub(super) fn answer_revalidations(&mut self, process: &mut Process) -> Result<(), Violation> {
        for (session, valid) in std::mem::take(&mut process.desk.revalidated) {
            let Some(conn) = process.by_session.get(&session).copied() else { continue };
            let Some(held) = process.conns.get_mut(&conn) else { continue };
            if !matches!(held.stage, Stage::Validating) {
                continue;
            }
            let wrongly = self.options.slip == Some(Slip::EndToldWrongly) && self.rng.one_in(10);
            if valid && !wrongly {
                self.goes_live(process, conn, session);
            } else {
                self.session_ended(process, conn)?;
            }
        }
        Ok(())
    }

    // --- What comes in ---

    pub(in super::super) fn message_arrives(
        &mut self,
        node: usize,
        inc: u64,
        conn: ConnId,
    ) -> Result<(), Violation> {
        self.call(node, inc, |world, process, now| {
            let Some(held) = process.conns.get_mut(&conn) else { return Ok(()) };
            let waits = held.syncing || held.stage.is_on_the_way();
            if waits && !matches!(held.inbox.front(), Some(Message::Gone)) {
                return Ok(());
            }
            let Some(message) = held.inbox.pop_front() else { return Ok(()) };
            if process.desk.serving.is_none() {
                world.drop_conn(process, conn);
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
        match message {
            Message::Open { session, timeout_ms, last } => {
                if !self.open(process, now, conn, (session, timeout_ms, last)) {
                    return Ok(());
                }
            }
            Message::Ask { cxid, op, body } => self.ask_node(process, now, conn, (cxid, op, body)),
            Message::Gone => {
                let session = process.conns[&conn].session;
                if process.leads() && self.options.rule == Some(Rule::OwnerForgotten) {
                    process.desk.sessions.disconnect(session, conn);
                }
                // The session stays this connection's at the leader until another takes it: one that nobody owns would fall to a request of
                // the session's that was held up on the way.
                self.drop_conn(process, conn);
                return Ok(());
            }
        }
        self.heard(process, now, conn);
        self.answer_what_is_ready(process, conn)
    }

    /// A session begins, or comes from elsewhere; false when it is not taken.
    fn open(
        &mut self,
        process: &mut Process,
        now: MonoMs,
        conn: ConnId,
        (session, timeout_ms, last): (Option<SessionId>, i32, Zxid),
    ) -> bool {
        let held = process.conns.get_mut(&conn).expect("looked at just now");
        let Some(session) = session else {
            let session = SessionId(process.next_session);
            process.next_session += 1;
            (held.session, held.stage) = (session, Stage::Creating);
            process.by_session.insert(session, conn);
            submit(process, conn, 0, OpCode::CreateSession, timeout_ms.to_be_bytes().to_vec());
            return true;
        };
        if process.tree.read().applied() < last {
            // A server behind what the client has seen is none for it.
            self.drop_conn(process, conn);
            return false;
        }
        (held.session, held.stage) = (session, Stage::Validating);
        if let Some(older) = process.by_session.insert(session, conn) {
            self.drop_conn(process, older);
            process.by_session.insert(session, conn);
        }
        if process.leads() {
            let valid = process.desk.sessions.resume(session, timeout_ms, conn, now).is_some();
            if valid {
                process.desk.note_heard(session, Some(timeout_ms));
            }
            process.desk.revalidated.push((session, valid));
        } else {
            process.member.revalidate(Touch { session, timeout_ms });
        }
        true
    }

    fn ask_node(
        &mut self,
        process: &mut Process,
        now: MonoMs,
        conn: ConnId,
        (cxid, op, body): (i32, OpCode, Vec<u8>),
    ) {
        let held = process.conns.get_mut(&conn).expect("looked at just now");
        if is_write(op) {
            held.pending.push_back(Pending { cxid, op, body: Vec::new(), ready: Ready::No });
            submit(process, conn, cxid, op, body);
        } else if op != OpCode::Sync || self.options.slip == Some(Slip::SyncNotAsked) {
            held.pending.push_back(Pending { cxid, op, body, ready: Ready::Turn });
        } else {
            let session = held.session;
            held.syncing = self.options.rule != Some(Rule::SyncOvertaken);
            if process.leads() {
                process.member.sync(now);
            } else {
                let request = ForwardedRequest { session, cxid, op: op.to_i32(), body: &body };
                process.member.forward(&request, []);
            }
            process.syncs.push_back(conn);
            let held = process.conns.get_mut(&conn).expect("as before");
            held.pending.push_back(Pending { cxid, op, body, ready: Ready::No });
        }
    }

    /// The session is alive.
    fn heard(&mut self, process: &mut Process, now: MonoMs, conn: ConnId) {
        let Some(held) = process.conns.get(&conn) else { return };
        if process.leads() {
            if let Some(handle) = process.desk.sessions.get(held.session) {
                handle.touch(now);
                process.desk.note_heard(held.session, None);
            }
        } else if matches!(held.stage, Stage::Live) {
            process.desk.touches.insert(held.session, self.setup.session_ms);
        }
    }

    // --- Beginning and end ---

    /// A client has connected; what it says comes later.
    pub(in super::super) fn open_conn(&mut self, node: usize, client: usize, conn: ConnId) {
        let at = (node, self.nodes[node].inc);
        let process = self.nodes[node].process.as_mut().expect("asked before");
        let held = Conn {
            client,
            at,
            session: SessionId(0),
            stage: Stage::Opening,
            syncing: false,
            inbox: VecDeque::new(),
            pending: VecDeque::new(),
            late: Vec::new(),
        };
        process.conns.insert(conn, held);
    }

    /// Closes a client's connection: its watches go with it.
    pub(super) fn drop_conn(&mut self, process: &mut Process, conn: ConnId) {
        if let Some(client) = forget_conn(process, conn) {
            self.client_disconnected(client, conn);
        }
    }

    /// The same, behind the end of its session.
    pub(super) fn session_ended(&mut self, process: &mut Process, conn: ConnId) -> Result<(), Violation> {
        match forget_conn(process, conn) {
            Some(client) => {
                let applied = process.tree.read().applied();
                self.client_expired(client, conn, applied)
            }
            None => Ok(()),
        }
    }

    pub(super) fn disconnect_all(&mut self, process: &mut Process) {
        let conns: Vec<ConnId> = process.conns.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.drop_conn(process, conn));
    }
}

/// Whose connection it was.
fn forget_conn(process: &mut Process, conn: ConnId) -> Option<usize> {
    let held = process.conns.remove(&conn)?;
    if process.by_session.get(&held.session) == Some(&conn) {
        process.by_session.remove(&held.session);
    }
    process.tree.read().remove_conn(conn);
    Some(held.client)
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
