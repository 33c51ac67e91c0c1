//! Clients: sessions that write, read and sync at one node, and take their session to another when it fails them or when they feel like it.
//!
//! - CL1: a write is known by its session and its number in it; both are in the transaction, so that the committed history says what became of it.
//! - CL2: a client whose connection is gone never learns the outcome of what was under way: it is unknown.

use std::collections::VecDeque;

use super::options::{REGISTERS, register};
use super::{Event, Violation, World, invariants};
use crate::base::{ConnId, SessionId, Zxid};
use crate::node::auth::open_acl;
use crate::testing::world::body;
use crate::wire::OpCode;

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
    pub(super) session: SessionId,
    pub(super) stage: Stage,
    /// A sync is under way: what comes behind it waits in `inbox`, else a write could be applied before the sync is answered, and a read
    /// between the two would see it.
    pub(super) syncing: bool,
    /// Sent, not read yet.
    pub(super) inbox: VecDeque<Message>,
    /// Not answered yet, in order.
    pub(super) pending: VecDeque<Pending>,
}

/// How far a session has come on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Creating,
    Validating,
    Live,
}

/// What a client says.
#[derive(Debug)]
pub(super) enum Message {
    Open { session: Option<SessionId>, timeout_ms: i32, last: Zxid },
    Write { cxid: i32, op: OpCode, body: Vec<u8> },
    Read { cxid: i32, path: String },
    Sync { cxid: i32 },
    Gone,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) cxid: i32,
    pub(super) waits: Waits,
    /// A write's transaction; what a sync must see.
    pub(super) done: Option<Zxid>,
}

#[derive(Debug)]
pub(super) enum Waits {
    Write,
    Read(String),
    Sync,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) zxid: Zxid,
    /// Of a read; the outer `None` is no node.
    pub(super) value: Option<Option<Vec<u8>>>,
}

/// A request of which a client has not heard yet.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) cxid: i32,
    pub(super) kind: OpKind,
    /// The greatest zxid that anybody had been shown when it was sent.
    pub(super) floor: Zxid,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpKind {
    Write,
    Read(String),
    Sync,
}

/// A client.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// The only node it goes to.
    pub(super) home: Option<usize>,
    pub(super) conn: Option<(usize, u64, ConnId)>,
    pub(super) live: bool,
    pub(super) session: Option<SessionId>,
    /// The greatest zxid it was shown.
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
        if self.clients[index].stopped {
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
        let message = Message::Open { session: client.session, timeout_ms, last: client.last };
        self.open_conn(node, index, conn);
        self.say(node, conn, message);
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

    /// What waited behind a sync is read now.
    pub(super) fn hear_again(&mut self, conn: ConnId, index: usize, count: usize) {
        let Some((node, inc, mine)) = self.clients[index].conn else { return };
        for _ in 0..count {
            if mine == conn {
                self.at(1, Event::Message { node, inc, conn });
            }
        }
    }

    pub(super) fn leave(&mut self, index: usize, (node, _, conn): (usize, u64, ConnId)) {
        self.say(node, conn, Message::Gone);
        self.gone(index);
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
            if let (OpKind::Write, Some(session)) = (&op.kind, session) {
                client.unknown.push((session, op.cxid, op.floor));
                self.counts.unknown += 1;
            }
        }
    }

    fn ask(&mut self, index: usize, (node, _, conn): (usize, u64, ConnId)) {
        let client = &mut self.clients[index];
        client.cxid += 1;
        let (cxid, session) = (client.cxid, client.session.expect("it is live"));
        let value = format!("{session}:{cxid}").into_bytes();
        let path = register(self.rng.below(REGISTERS));
        let write = |op, body| (OpKind::Write, Message::Write { cxid, op, body });
        // Some never write: they go on asking a leader that cannot commit any more.
        let only_reads = index % 3 == 2 && client.home.is_none();
        let what = if only_reads { 27 + self.rng.below(13) } else { self.rng.below(40) };
        let (kind, message) = match what {
            0..=2 => {
                let other = register(self.rng.below(REGISTERS));
                let set = |path: &str| (OpCode::SetData, body::set_data(path, Some(&value), -1));
                write(OpCode::Multi, body::multi(&[set(&path), set(&other)]))
            }
            3..=15 => write(OpCode::SetData, body::set_data(&path, Some(&value), -1)),
            16..=18 => write(OpCode::Create, body::create_with(&path, Some(&value), 0, &open_acl())),
            19..=21 => write(OpCode::Create, body::create("/e-", 3)),
            22 | 23 => write(OpCode::Create2, body::create(&format!("/n{}", self.rng.below(20)), 0)),
            24 => write(OpCode::Delete, body::path_int(&format!("/n{}", self.rng.below(20)), -1)),
            25 => {
                let mut padded = value.clone();
                padded.resize(1_200, b'.');
                write(OpCode::SetData, body::set_data(&path, Some(&padded), -1))
            }
            26 if self.rng.one_in(8) && client.home.is_none() => write(OpCode::CloseSession, Vec::new()),
            27..=31 => (OpKind::Sync, Message::Sync { cxid }),
            _ => (OpKind::Read(path.clone()), Message::Read { cxid, path }),
        };
        self.put_request(index, (node, conn), cxid, kind, message);
    }

    /// A request goes on its way.
    pub(super) fn put_request(
        &mut self,
        index: usize,
        (node, conn): (usize, ConnId),
        cxid: i32,
        kind: OpKind,
        message: Message,
    ) {
        let client = &mut self.clients[index];
        client.outstanding.push_back(Op { cxid, kind, floor: self.model.shown });
        if client.outstanding.len() == 1 {
            client.content_at = self.now;
        }
        self.say(node, conn, message);
    }

    // --- What a node says ---

    pub(super) fn session_live(&mut self, index: usize, conn: ConnId, session: SessionId, zxid: Zxid) {
        let now = self.now;
        let client = &mut self.clients[index];
        if client.conn.is_some_and(|(_, _, mine)| mine == conn) {
            if client.session == Some(session) {
                self.counts.moves += 1;
            } else {
                client.cxid = 0;
            }
            (client.session, client.live, client.content_at) = (Some(session), true, now);
            client.last = client.last.max(zxid);
        }
    }

    pub(super) fn client_disconnected(&mut self, index: usize, conn: ConnId, expired: bool) {
        if self.clients[index].conn.is_some_and(|(_, _, mine)| mine == conn) {
            self.gone(index);
            if expired {
                self.clients[index].session = None;
            }
        }
    }

    pub(super) fn answer(
        &mut self,
        index: usize,
        conn: ConnId,
        cxid: i32,
        answer: Answer,
    ) -> Result<(), Violation> {
        let now = self.now;
        let client = &mut self.clients[index];
        if client.conn.is_none_or(|(_, _, mine)| mine != conn) {
            return Ok(());
        }
        client.content_at = now;
        let Some(op) = client.outstanding.pop_front() else { return Ok(()) };
        invariants::session_order::check_answer(client, &op, cxid, answer.zxid)?;
        client.last = client.last.max(answer.zxid);
        client.acknowledged += u64::from(op.kind == OpKind::Write);
        let session = client.session.expect("it is live");
        match &op.kind {
            OpKind::Write => {
                self.counts.acknowledged += 1;
                invariants::real_time::check_write(self, session, &op, answer.zxid)?;
            }
            OpKind::Read(path) => {
                self.counts.reads += 1;
                invariants::reads::check(self, path, &answer)?;
            }
            OpKind::Sync => {
                self.counts.synced_reads += 1;
                invariants::synced::check(&op, answer.zxid)?;
            }
        }
        self.model.shown = self.model.shown.max(answer.zxid);
        Ok(())
    }
}
