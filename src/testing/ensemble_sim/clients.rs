//! Clients: sessions that write, read, watch and sync at one node, and take their session to another when it fails them or when they feel like it.
//!
//! - CL1: a write is known by its session and its number in it; both are in the transaction, so that the committed history says what became of it.
//! - CL2: a client whose connection is gone never learns the outcome of what was under way: it is unknown.
//! - CL3: a client hears whole frames, made by the product's own code, in the order in which its node has made them.
//! - CL4: what it watches it sets again on its next connection, before it asks for anything else, from the last zxid that an answer has shown it.

mod ask;
mod history;
mod watching;

use std::collections::VecDeque;

pub(super) use self::watching::{WatchOf, Watching};
use super::{Event, Violation, World, invariants, violated};
use crate::base::{ConnId, SessionId, Zxid};
use crate::node::Served;
use crate::wire::OpCode;
use crate::wire::jute::Reader;
use crate::wire::reply::XID_NOTIFICATION;

/// Requests under way of one client.
const OUTSTANDING_MAX: usize = 4;
/// After so long without an answer a client goes elsewhere, ms.
const PATIENCE_MS: u64 = 2_500;

/// A write on its way to become a transaction.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) session: SessionId,
    pub(super) cxid: i32,
    pub(super) op: i32,
    pub(super) body: Vec<u8>,
    pub(super) conn: ConnId,
}

/// A client's connection, as the node has it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: usize,
    /// The node, and its life.
    pub(super) at: (usize, u64),
    pub(super) session: SessionId,
    pub(super) stage: Stage,
    /// A sync is under way: what comes behind it waits in `inbox`, else a write could be applied before the sync is answered, and a read
    /// between the two would see it.
    pub(super) syncing: bool,
    /// Sent, not read yet.
    pub(super) inbox: VecDeque<Message>,
    /// Not answered yet, in order.
    pub(super) pending: VecDeque<Pending>,
    /// Events that a slip keeps back.
    pub(super) late: Vec<u8>,
}

/// How far a session has come on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Creating,
    Validating,
    Live,
}

impl Stage {
    /// Whose requests wait.
    pub(super) const fn is_on_the_way(self) -> bool {
        matches!(self, Stage::Creating | Stage::Validating)
    }
}

/// What a client says.
#[derive(Debug)]
pub(super) enum Message {
    Open { session: Option<SessionId>, timeout_ms: i32, last: Zxid },
    Ask { cxid: i32, op: OpCode, body: Vec<u8> },
    Gone,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) cxid: i32,
    pub(super) op: OpCode,
    pub(super) body: Vec<u8>,
    pub(super) ready: Ready,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Ready {
    /// Its turn: a read.
    Turn,
    /// Its transaction, or the leader's word.
    No,
    /// A write: the answer, and what becomes of the connection.
    Answer(Vec<u8>, Served),
    /// A sync: the state that it must see.
    State(Zxid),
}

/// True for what becomes a transaction.
pub(super) fn is_write(op: OpCode) -> bool {
    use OpCode::{CloseSession, Create, Create2, Delete, Multi, SetData};
    matches!(op, Create | Create2 | Delete | SetData | Multi | CloseSession)
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) xid: i32,
    pub(super) zxid: Zxid,
    pub(super) err: i32,
    pub(super) body: &'a [u8],
}

/// A request of which a client has not heard yet.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) cxid: i32,
    pub(super) op: OpCode,
    pub(super) body: Vec<u8>,
    /// The greatest zxid that anybody had been shown when it was sent.
    pub(super) floor: Zxid,
    /// When it was sent.
    pub(super) moment: u64,
}

/// A client.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// The only node it goes to.
    pub(super) home: Option<usize>,
    pub(super) conn: Option<(usize, u64, ConnId)>,
    pub(super) live: bool,
    pub(super) session: Option<SessionId>,
    /// The greatest zxid that an answer has shown it.
    pub(super) last: Zxid,
    pub(super) cxid: i32,
    pub(super) outstanding: VecDeque<Op>,
    /// When it last had reason to be content.
    content_at: u64,
    /// Writes acknowledged.
    pub(super) acknowledged: u64,
    /// Session, number, and what had been shown when it was sent.
    pub(super) unknown: Vec<(SessionId, i32, Zxid)>,
    pub(super) stopped: bool,
    pub(super) watching: Watching,
    /// The last answer was that to a sync, which was sent at this moment.
    synced: Option<u64>,
    /// What it last read of the lists: which, version, contents.
    pub(super) list: invariants::lists::Seen,
}

impl World {
    /// A client that does nothing by itself.
    pub(super) fn add_directed_client(&mut self) -> usize {
        self.clients.push(Client { stopped: true, ..Client::default() });
        self.clients.len() - 1
    }

    pub(super) fn add_client(&mut self, home: Option<usize>) {
        self.clients.push(Client { home, ..Client::default() });
        let delay = self.rng.below(300);
        self.at(delay, Event::Client(self.clients.len() - 1));
    }

    pub(super) fn client_turn(&mut self, index: usize) -> Result<(), Violation> {
        let client = &self.clients[index];
        if client.stopped {
            if !client.watching.pings {
                return Ok(());
            }
            // A session that only lives.
            if let (Some(conn), true) = (client.conn, client.live && client.outstanding.is_empty()) {
                self.ping(index, conn);
            }
            self.at(self.setup.session_ms as u64 / 3, Event::Client(index));
            return Ok(());
        }
        let mut delay = 1 + self.rng.below(self.setup.think_ms);
        let client = &self.clients[index];
        let patience = self.now.saturating_sub(client.content_at) < PATIENCE_MS;
        match client.conn {
            None => delay += self.connect(index),
            Some(conn) if client.live && client.home.is_none() && self.rng.one_in(150) => {
                self.lose_connection(index, conn);
            }
            Some(conn) if !patience || (client.live && client.home.is_none() && self.rng.one_in(80)) => {
                self.leave(index, conn);
            }
            Some(conn) if client.live && client.outstanding.len() < OUTSTANDING_MAX => self.ask(index, conn),
            Some(_) => {}
        }
        self.at(delay, Event::Client(index));
        Ok(())
    }

    /// Connects somewhere; how long to wait before the next attempt if that fails.
    pub(super) fn connect(&mut self, index: usize) -> u64 {
        let any = self.rng.below(self.nodes.len() as u64) as usize;
        let node = self.clients[index].home.unwrap_or(any);
        if !self.nodes[node].is_running() {
            return self.rng.below(100);
        }
        let conn = self.next_conn();
        let (inc, timeout_ms, now) = (self.nodes[node].inc, self.setup.session_ms, self.now);
        let client = &mut self.clients[index];
        (client.conn, client.live, client.content_at) = (Some((node, inc, conn)), false, now);
        client.watching.connected();
        client.synced = None;
        let message = Message::Open { session: client.session, timeout_ms, last: client.last };
        self.open_conn(node, index, conn);
        self.say(node, conn, message);
        if self.clients[index].session.is_some() {
            self.watch_again(index, (node, conn));
        }
        0
    }

    fn say(&mut self, node: usize, conn: ConnId, message: Message) {
        let inc = self.nodes[node].inc;
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(held) = process.conns.get_mut(&conn) else { return };
        held.inbox.push_back(message);
        let delay = self.rng.below(3);
        self.at(delay, Event::Message { node, inc, conn });
    }

    /// What waited behind a sync, or for the session, is read now.
    pub(super) fn hear_again(&mut self, conn: ConnId, (node, inc): (usize, u64), count: usize) {
        for _ in 0..count {
            self.at(1, Event::Message { node, inc, conn });
        }
    }

    pub(super) fn leave(&mut self, index: usize, (node, inc, conn): (usize, u64, ConnId)) {
        self.say(node, conn, Message::Gone);
        self.gone(index);
        // Should its word wait behind something that never comes.
        self.at(PATIENCE_MS, Event::Lost { node, inc, conn });
    }

    /// The network fails a client: of what it has just sent some is lost, the rest arrives, and its node learns a good while later that it is gone.
    fn lose_connection(&mut self, index: usize, (node, inc, conn): (usize, u64, ConnId)) {
        self.counts.client_cuts += 1;
        let later = self.rng.below(3_000);
        let kept = self.rng.next_u64();
        self.gone(index);
        if self.nodes[node].is_life(inc)
            && let Some(process) = self.nodes[node].process.as_mut()
            && let Some(held) = process.conns.get_mut(&conn)
        {
            held.inbox.truncate((kept % (held.inbox.len() as u64 + 1)) as usize);
            self.at(later, Event::Lost { node, inc, conn });
        }
    }

    /// CL2.
    fn gone(&mut self, index: usize) {
        let client = &mut self.clients[index];
        (client.conn, client.live) = (None, false);
        let session = client.session;
        for op in std::mem::take(&mut client.outstanding) {
            self.model.note_unknown(&op);
            if let (true, Some(session)) = (is_write(op.op), session) {
                self.clients[index].unknown.push((session, op.cxid, op.floor));
                self.counts.unknown += 1;
            }
        }
    }

    /// What clients still wait for will not come any more.
    pub(super) fn give_up_waiting(&mut self) {
        (0..self.clients.len()).for_each(|index| self.gone(index));
    }

    /// A request goes on its way.
    pub(super) fn put_request(
        &mut self,
        index: usize,
        (node, conn): (usize, ConnId),
        cxid: i32,
        op: OpCode,
        body: Vec<u8>,
    ) {
        let moment = self.model.moment();
        let client = &mut self.clients[index];
        if let (true, Some(session)) = (is_write(op), client.session) {
            self.model.asked.insert((session, cxid), (op, body.clone()));
        }
        if let (OpCode::CloseSession, Some(session)) = (op, client.session) {
            self.model.ending.insert(session);
        }
        client.outstanding.push_back(Op { cxid, op, body: body.clone(), floor: self.model.shown, moment });
        if client.outstanding.len() == 1 {
            client.content_at = self.now;
        }
        self.say(node, conn, Message::Ask { cxid, op, body });
    }

    // --- What a node says ---

    pub(super) fn session_live(&mut self, index: usize, conn: ConnId, session: SessionId) {
        let now = self.now;
        let client = &mut self.clients[index];
        if client.conn.is_some_and(|(_, _, mine)| mine == conn) {
            if client.session == Some(session) {
                self.counts.moves += 1;
            } else {
                client.cxid = 0;
                client.list = invariants::lists::Seen::default();
            }
            (client.session, client.live, client.content_at) = (Some(session), true, now);
        }
    }

    pub(super) fn client_disconnected(&mut self, index: usize, conn: ConnId) {
        if self.clients[index].conn.is_some_and(|(_, _, mine)| mine == conn) {
            self.gone(index);
        }
    }

    /// A client is told that its session is no more, by a node that has applied so much.
    pub(super) fn client_expired(
        &mut self,
        index: usize,
        conn: ConnId,
        applied: Zxid,
    ) -> Result<(), Violation> {
        if self.clients[index].conn.is_none_or(|(_, _, mine)| mine != conn) {
            return Ok(());
        }
        self.gone(index);
        let Some(session) = self.clients[index].session.take() else { return Ok(()) };
        let pings = self.clients[index].watching.pings;
        self.clients[index].watching = Watching { pings, ..Watching::default() };
        invariants::sessions::check_told(self, session, applied)
    }

    /// Frames from a node (CL3).
    pub(super) fn hear(&mut self, index: usize, conn: ConnId, mut frames: &[u8]) -> Result<(), Violation> {
        while !frames.is_empty() {
            // The client may have gone at one of them.
            if self.clients[index].conn.is_none_or(|(_, _, mine)| mine != conn) {
                return Ok(());
            }
            let (len, rest) = frames.split_first_chunk::<4>().expect("whole frames");
            let (frame, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
            frames = rest;
            let mut r = Reader::new(frame);
            let head = (r.int(), r.long(), r.int());
            let (Ok(xid), Ok(zxid), Ok(err)) = head else { return violated("a frame without a header") };
            if xid == XID_NOTIFICATION {
                invariants::watches::event(self, index, zxid, r.rest())?;
            } else {
                self.answer(index, &Answer { xid, zxid: Zxid::from_wire(zxid), err, body: r.rest() })?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, index: usize, answer: &Answer<'_>) -> Result<(), Violation> {
        let now = self.now;
        let client = &mut self.clients[index];
        client.content_at = now;
        let Some(op) = client.outstanding.pop_front() else {
            return violated(format!("client {index} is answered {}, and has asked nothing", answer.xid));
        };
        invariants::session_order::check_answer(client, &op, answer, self.options.blind)?;
        client.last = client.last.max(answer.zxid);
        let session = client.session.expect("it is live");
        let synced = std::mem::replace(&mut client.synced, (op.op == OpCode::Sync).then_some(op.moment));
        if is_write(op.op) {
            client.acknowledged += 1;
            self.counts.acknowledged += 1;
        }
        self.model.note_answer(index, &op, answer, synced);
        invariants::watches::before_answer(self, index, answer)?;
        if !self.options.blind {
            match op.op {
                OpCode::Sync => invariants::synced::check(&op, answer.zxid)?,
                write if is_write(write) => {
                    invariants::real_time::check_write(self, session, &op, answer.zxid)?;
                    invariants::replies::check(self, session, &op, answer)?;
                }
                _ => invariants::reads::check(self, &op, answer)?,
            }
        }
        match op.op {
            OpCode::Sync => self.counts.synced_reads += 1,
            write if is_write(write) => {}
            _ => self.counts.reads += 1,
        }
        invariants::watches::answered(self, index, &op, answer)?;
        self.clients[index].list.note(&op, answer);
        self.model.shown = self.model.shown.max(answer.zxid);
        Ok(())
    }
}
