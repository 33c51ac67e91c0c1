//! The end of the second stage: transactions become state, replies and events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Batch;
use super::queue::{Client, Entry};
use crate::base::{ConnId, SessionId, Zxid};
use crate::node::put_write_reply;
use crate::server::Shared;
use crate::server::conn::Conn;
use crate::server::stats::{RequestKind, Tally, micros};
use crate::tree::{DigestMismatch, Fired, Outcome, Tree};
use crate::wire::txn::Proposal;
use crate::wire::{ErrorCode, OpCode, perms, reply};

/// Transactions applied under one hold. Their clients are woken behind it: the first ones go on while the next are applied.
const APPLIED_TXNS_MAX: usize = 16;

/// The tree is not what prepare took it for: a bug, or bad memory.
#[derive(Debug, thiserror::Error)]
#[error("transaction {} should give a tree with digest {:x}, it gives {:x}", .0.zxid, .0.expected, .0.found)]
pub(crate) struct Diverged(DigestMismatch);

impl Diverged {
    /// The transaction.
    pub(crate) const fn zxid(&self) -> Zxid {
        self.0.zxid
    }
}

/// Applies what is durable, answers, fires watches.
#[derive(Debug, Default)]
pub(crate) struct Applier {
    fired: Fired,
    to_wake: Vec<Arc<Conn>>,
    /// See [`Applier::answering_one`].
    answers_one: bool,
    tally: Tally,
    /// Wall time of the replies being made, ms since 1970.
    wall_ms: i64,
}

impl Applier {
    /// Stops at a transaction that does not give the digest it was prepared with, before anybody is told (rule R4).
    pub(super) fn apply(
        &mut self,
        shared: &Shared,
        batch: &mut Batch,
        me: Option<ConnId>,
    ) -> Result<(), Diverged> {
        shared.stats.batch_size.add(batch.entries.len() as u64);
        shared.stats.commits.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
        let mut records = batch.group.iter();
        let mut entries = batch.entries.drain(..).peekable();
        while entries.peek().is_some() {
            let now = self.begin(shared);
            let (mut count, mut bytes) = (0, 0);
            let mut tree = shared.tree.write();
            for entry in entries.by_ref().take(APPLIED_TXNS_MAX) {
                (count, bytes) = (count + 1, bytes + entry.len);
                let (_, _, payload) = records.next().expect("one record per entry");
                let proposal = Proposal::read(payload).expect("encoded by prepare just now");
                self.apply_one(shared, &mut tree, &proposal, Some(entry), me, now)?;
            }
            drop(tree);
            self.finish(shared, count, bytes);
        }
        shared.snapshots.note_applied(batch.group.len(), batch.group.bytes());
        Ok(())
    }

    /// One that sends a lone answer itself, which costs its thread more and its client less than waking the connection's task.
    pub(crate) fn answering_one() -> Applier {
        Applier { answers_one: true, ..Applier::default() }
    }

    /// A hold of the tree begins: the time of what is answered under it.
    pub(crate) fn begin(&mut self, shared: &Shared) -> Instant {
        self.wall_ms = shared.wall_now().0;
        Instant::now()
    }

    /// Applies one transaction, delivers its events and answers its client.
    pub(crate) fn apply_one(
        &mut self,
        shared: &Shared,
        tree: &mut Tree,
        proposal: &Proposal<'_>,
        entry: Option<Entry>,
        me: Option<ConnId>,
        now: Instant,
    ) -> Result<(), Diverged> {
        let outcome = tree.apply(proposal, &mut self.fired);
        if let Some(mismatch) = self.fired.digest_mismatch() {
            return Err(Diverged(mismatch));
        }
        self.deliver_events(shared, me);
        self.answer(shared, entry.as_ref(), proposal, &outcome, now);
        if let Some(client) = entry.and_then(|entry| entry.client)
            && Some(client.conn.id) != me
        {
            will_wake(&mut self.to_wake, client.conn);
        }
        Ok(())
    }

    /// The hold is over: so many writes of `bytes` were answered.
    pub(crate) fn finish(&mut self, shared: &Shared, count: usize, bytes: usize) {
        shared.stats.absorb(&mut self.tally);
        shared.commit.note_answered(count, bytes);
        if self.answers_one
            && let [conn] = &self.to_wake[..]
            && conn.send_for_task()
        {
            self.to_wake.clear();
        }
        self.to_wake.drain(..).for_each(|conn| conn.notify());
    }

    /// Puts the events of the last transaction into the outboxes: before the reply, and before any read can see the new state (C1).
    fn deliver_events(&mut self, shared: &Shared, me: Option<ConnId>) {
        if self.fired.is_empty() {
            return;
        }
        for firing in self.fired.iter() {
            for watcher in firing.watchers {
                let Some(conn) = shared.conns.get(*watcher) else { continue };
                // Used up, but withheld from those who may not read the node (since 3.9.2).
                if !conn.auth().ids(&conn).allowed(&shared.prepare_options.auth, firing.acl, perms::READ) {
                    continue;
                }
                let mut bytes = 0;
                conn.put(|out| {
                    let before = out.bytes.len();
                    reply::put_event(&mut out.bytes, firing.zxid.to_wire(), firing.event, firing.path);
                    bytes = out.bytes.len() - before;
                });
                conn.stats.event();
                self.tally.event(bytes);
                if Some(conn.id) != me {
                    will_wake(&mut self.to_wake, conn);
                }
            }
        }
        self.fired.clear();
    }

    /// Puts the reply of an applied write into the outbox of its client and keeps the table of sessions in step.
    fn answer(
        &mut self,
        shared: &Shared,
        entry: Option<&Entry>,
        proposal: &Proposal<'_>,
        outcome: &Outcome,
        now: Instant,
    ) {
        let client = entry.and_then(|entry| entry.client.as_ref());
        if matches!(outcome, Outcome::SessionClosed) {
            shared.session_closed(SessionId(proposal.header.client_id), client.map(|client| client.conn.id));
        }
        let (Some(entry), Some(Client { conn, .. })) = (entry, client) else { return };
        match outcome {
            // Its task answers the connect request: it knows what was negotiated.
            Outcome::SessionCreated => conn.set_session(entry.session),
            _ => {
                let mut bytes = 0;
                conn.put(|out| {
                    let before = out.bytes.len();
                    let served = put_write_reply(&mut out.bytes, entry.xid, entry.op, proposal, outcome);
                    out.close_after |= served.close_after;
                    bytes = out.bytes.len() - before;
                });
                self.note_reply(shared, entry, conn, proposal.header.zxid, bytes, now);
            }
        }
        conn.write_answered();
    }

    fn note_reply(
        &mut self,
        shared: &Shared,
        entry: &Entry,
        conn: &Conn,
        zxid: i64,
        bytes: usize,
        now: Instant,
    ) {
        let latency_us = micros(now.saturating_duration_since(entry.received));
        self.tally.reply(&shared.stats, RequestKind::Write, bytes, latency_us);
        conn.stats.replies(1, entry.op, entry.xid, zxid, self.wall_ms, latency_us);
    }
}

/// Something was put in place for the connection's task. Often the same one several times in a row.
fn will_wake(to_wake: &mut Vec<Arc<Conn>>, conn: Arc<Conn>) {
    if to_wake.last().is_none_or(|last| !Arc::ptr_eq(last, &conn)) {
        to_wake.push(conn);
    }
}

/// Answers writes that never got a zxid because there is no space for them.
pub(super) fn refuse(shared: &Shared, entries: &mut Vec<Entry>) {
    let applied = shared.tree.read().applied();
    for entry in entries.drain(..) {
        if entry.op == OpCode::CloseSession {
            // Its requests are refused already: its end must not be forgotten, or its ephemerals would stay.
            shared.close_later(entry.session);
        }
        let Some(Client { conn, .. }) = &entry.client else { continue };
        if entry.op == OpCode::CreateSession {
            // There is no error in a connect response: the client tries elsewhere, or again.
            shared.sessions.lock().remove(entry.session);
            conn.kill();
        } else {
            conn.put(|out| reply::put_empty(&mut out.bytes, entry.xid, applied, ErrorCode::SystemError));
        }
        conn.write_answered();
        conn.notify();
    }
}
