//! What the rest of the server knows of a connection: where to put replies and events, and how to wake its task.
//!
//! - C1: bytes enter the outbox in the order in which the client must see them. Replies to reads are put while the tree's read lock is
//!   held, events and replies to writes while its write lock is held; so no reply can overtake the event of a state it shows.
//! - C2: lock order is tree, then outbox. Nobody waits for the tree, or does I/O, while holding an outbox.
//! - C3: the socket is written to by whoever holds `sending`: the connection's own task, or who answers it while it waits for its client and
//!   for nothing else. Neither waits for the other, and nobody for the socket: a client that does not read stops itself, nobody else.

mod client_wait;
mod sending;

/// Of what [`ClientWait`] is made.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::base::{ConnId, SessionId, WallMs};
use crate::node::{AuthIds, REPLY_BYTES_MAX};
use crate::server::stats::ConnStats;
use client_wait::ClientWait;
use sending::Sending;
pub(crate) use sending::Sent;

/// Output waiting above which a connection's further requests wait, bytes, unless it may leave less than four times as much unread.
const OUTBOX_BYTES_SOFT: usize = 1 << 20;

/// What a reply takes beside what its limit counts: lengths, headers, a stat.
const REPLY_BYTES_SPARE: usize = 64 << 10;

/// In place of a session's id: the leader does not know the session. No session has it: it marks container nodes.
pub(crate) const REFUSED: SessionId = SessionId(i64::MIN);

/// Bytes for the client, and what is to happen when they are sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Whole frames, in order.
    pub(crate) bytes: Vec<u8>,
    /// Close the connection once `bytes` are sent.
    pub(crate) close_after: bool,
}

/// Who a client was at some moment: most never authenticate, and then a copy costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Auth(Option<Arc<AuthIds>>);

impl Auth {
    pub(crate) fn new(ids: AuthIds) -> Auth {
        Auth(Some(Arc::new(ids)))
    }

    /// The identities, `conn`'s.
    pub(crate) fn ids<'a>(&'a self, conn: &'a Conn) -> &'a AuthIds {
        self.0.as_deref().unwrap_or(&conn.peer_ids)
    }
}

/// The shared half of a connection.
///
/// Laid out by who writes what: two threads that change one cache line in turn pay for it with every request.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Conn {
    // The first line goes to and fro between the task and whoever answers.
    outbox: Mutex<Outbox>,
    /// Writes handed to the commit path and not answered yet.
    pending_writes: AtomicUsize,
    /// Set by a waker, cleared by the task before it looks: many wakes cost one.
    woken: AtomicBool,
    /// Close at once, without sending what waits.
    killed: AtomicBool,
    waits_for_client: ClientWait,
    // Written by whoever answers.
    pub(crate) stats: ConnStats,
    // Written by whoever sends.
    sending: Mutex<Sending>,
    // Hardly ever written.
    /// The one task that serves the connection, from the first time it waits.
    task: OnceLock<Waker>,
    /// 0 until the session is set up.
    session: AtomicI64,
    pub(crate) id: ConnId,
    pub(crate) peer: SocketAddr,
    /// Who the client is by its address alone.
    peer_ids: AuthIds,
    /// Who it is since it has authenticated; replaced as a whole by each auth packet.
    auth: Mutex<Option<Arc<AuthIds>>>,
    /// Events and replies a client may leave unread, bytes, before it is cut off.
    outbox_bytes_max: usize,
    /// What its input buffer is charged with, bytes; kept by `input`.
    pub(crate) input_held: AtomicUsize,
}

impl Conn {
    pub(crate) fn new(
        id: ConnId,
        peer: SocketAddr,
        peer_ids: AuthIds,
        now: WallMs,
        outbox_bytes_max: usize,
    ) -> Arc<Conn> {
        Arc::new(Conn {
            id,
            peer,
            outbox: Mutex::default(),
            outbox_bytes_max,
            peer_ids,
            auth: Mutex::default(),
            session: AtomicI64::new(0),
            pending_writes: AtomicUsize::new(0),
            woken: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            waits_for_client: ClientWait::new(),
            sending: Mutex::default(),
            task: OnceLock::new(),
            input_held: AtomicUsize::new(0),
            stats: ConnStats::new(now.0),
        })
    }

    /// Appends frames to the output. The caller wakes the task afterwards, unless it is the task.
    pub(crate) fn put(&self, f: impl FnOnce(&mut Outbox)) {
        let mut outbox = self.outbox.lock();
        if self.is_killed() {
            // Nothing may follow a gap.
            return;
        }
        f(&mut outbox);
        if outbox.bytes.len() > self.outbox_bytes_max {
            outbox.bytes = Vec::new();
            self.killed.store(true, Ordering::Release);
        }
    }

    /// Bytes that wait in the outbox.
    pub(crate) fn unread_bytes(&self) -> usize {
        self.outbox.lock().bytes.len()
    }

    /// Output waiting above which further requests of the connection wait, bytes.
    pub(crate) fn outbox_bytes_soft(&self) -> usize {
        OUTBOX_BYTES_SOFT.min(self.outbox_bytes_max / 4)
    }

    /// Longest reply: it must fit into an outbox that already holds as much as lets a request in.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        REPLY_BYTES_MAX
            .min(self.outbox_bytes_max.saturating_sub(self.outbox_bytes_soft() + REPLY_BYTES_SPARE))
    }

    /// Takes what waits for the client by exchanging buffers; true when the connection is to end after it.
    fn take_output(&self, empty: &mut Vec<u8>) -> bool {
        debug_assert!(empty.is_empty(), "or bytes would be sent twice");
        let mut outbox = self.outbox.lock();
        std::mem::swap(&mut outbox.bytes, empty);
        outbox.close_after
    }

    /// The connection's task begins, with its socket; `None` when it ends, and the socket with it.
    pub(crate) fn set_stream(&self, stream: Option<Arc<TcpStream>>) {
        self.sending.lock().stream = stream;
    }

    /// Sends as much as the socket takes of what waits for the client. For the connection's task.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn send(&self) -> io::Result<Sent> {
        self.sending.lock().send(|empty| self.take_output(empty))
    }

    /// Sends what waits for the client in place of the task, which is not woken then. False when that cannot be, or not all could be sent:
    /// then the task is to be woken.
    pub(crate) fn send_for_task(&self) -> bool {
        if !self.waits_for_client.is_on() || self.is_killed() {
            return false;
        }
        let Some(mut sending) = self.sending.try_lock() else { return false };
        // An error is the task's to see: what was not sent is there, and meets it again.
        let sent = sending.send(|empty| self.take_output(empty));
        sent.is_ok_and(|sent| !sent.unsent && !sent.close)
    }

    /// The task waits for its client, and for nothing else; or it goes on, and looks then at what there is.
    pub(crate) fn expect_client(&self, alone: bool) {
        if alone { self.waits_for_client.begin() } else { self.waits_for_client.end() }
    }

    /// True for the first waker since the task last looked: that one must call [`Conn::wake`].
    pub(crate) fn mark_woken(&self) -> bool {
        !self.woken.swap(true, Ordering::AcqRel)
    }

    /// Behind [`Conn::mark_woken`], in that order.
    pub(crate) fn wake(&self) {
        let task = self.task.get().or_else(|| {
            // See `poll_woken`. Still nobody there: then the task has not waited yet, and will find the mark when it does.
            fence(Ordering::SeqCst);
            self.task.get()
        });
        if let Some(task) = task {
            task.wake_by_ref();
        }
    }

    /// The task is about to look at everything others may have changed.
    pub(crate) fn clear_woken(&self) {
        // Not a plain store: what is looked at next must not be looked at before it.
        self.woken.swap(false, Ordering::AcqRel);
    }

    /// True when somebody woke the task since [`Conn::clear_woken`]; else `task`, always the same one, is woken when somebody does.
    pub(crate) fn poll_woken(&self, task: &Waker) -> bool {
        match self.task.get() {
            Some(known) => assert!(known.will_wake(task), "one task serves a connection"),
            None => {
                let _ = self.task.set(task.clone());
                // Who marks and finds no waker looks again behind a fence of its own: either it finds this one, or its mark is seen below.
                fence(Ordering::SeqCst);
            }
        }
        self.woken.load(Ordering::Acquire)
    }

    /// Something was put in place for the task: it looks.
    pub(crate) fn notify(&self) {
        if self.mark_woken() {
            self.wake();
        }
    }

    /// Ends the connection without sending what waits.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.mark_woken();
        self.wake();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Who the client is now.
    pub(crate) fn auth(&self) -> Auth {
        Auth(self.auth.lock().clone())
    }

    pub(crate) fn set_auth(&self, auth: &Auth) {
        self.auth.lock().clone_from(&auth.0);
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.session.load(Ordering::Acquire) {
            0 => None,
            id => Some(SessionId(id)),
        }
    }

    pub(crate) fn set_session(&self, id: SessionId) {
        self.session.store(id.0, Ordering::Release);
    }

    pub(crate) fn pending_writes(&self) -> usize {
        self.pending_writes.load(Ordering::Acquire)
    }

    pub(crate) fn write_submitted(&self) {
        self.pending_writes.fetch_add(1, Ordering::AcqRel);
    }

    /// Called with the reply already in the outbox.
    pub(crate) fn write_answered(&self) {
        let before = self.pending_writes.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "an answer to a write that was never submitted");
    }
}

#[cfg(test)]
mod tests;
