//! What the rest of the server knows of a connection: where to put replies and events, and how to wake its task.
//!
//! - C1: bytes enter the outbox in the order in which the client must see them. Replies to reads are put while the tree's read lock is
//!   held, events and replies to writes while its write lock is held; so no reply can overtake the event of a state it shows.
//! - C2: lock order is tree, then outbox. Nobody waits for the tree, or does I/O, while holding an outbox.
//! - C3: only the connection's own task touches the socket. A client that does not read stops itself, nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

use crate::base::{ConnId, SessionId, WallMs};
use crate::node::{AuthIds, REPLY_BYTES_MAX};
use crate::server::stats::ConnStats;

/// Output waiting above which a connection's further requests wait, bytes, unless it may leave less than four times as much unread.
const OUTBOX_BYTES_SOFT: usize = 1 << 20;

/// What a reply takes beside what its limit counts: lengths, headers, a stat.
const REPLY_BYTES_SPARE: usize = 64 << 10;

/// Bytes for the client, and what is to happen when they are sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Whole frames, in order.
    pub(crate) bytes: Vec<u8>,
    /// Close the connection once `bytes` are sent.
    pub(crate) close_after: bool,
}

/// The shared half of a connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) peer: SocketAddr,
    outbox: Mutex<Outbox>,
    /// Events and replies a client may leave unread, bytes, before it is cut off.
    outbox_bytes_max: usize,
    /// Identities of the client; replaced as a whole by each auth packet.
    auth: Mutex<Arc<AuthIds>>,
    /// 0 until the session is set up.
    session: AtomicI64,
    /// Writes handed to the commit path and not answered yet.
    pending_writes: AtomicUsize,
    /// Set by a waker, cleared by the task before it looks: many wakes cost one.
    woken: AtomicBool,
    /// Close at once, without sending what waits.
    killed: AtomicBool,
    task: AtomicWaker,
    /// What its input buffer is charged with, bytes; kept by `input`.
    pub(crate) input_held: AtomicUsize,
    pub(crate) stats: ConnStats,
}

impl Conn {
    pub(crate) fn new(
        id: ConnId,
        peer: SocketAddr,
        auth: AuthIds,
        now: WallMs,
        outbox_bytes_max: usize,
    ) -> Arc<Conn> {
        Arc::new(Conn {
            id,
            peer,
            outbox: Mutex::default(),
            outbox_bytes_max,
            auth: Mutex::new(Arc::new(auth)),
            session: AtomicI64::new(0),
            pending_writes: AtomicUsize::new(0),
            woken: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            task: AtomicWaker::new(),
            input_held: AtomicUsize::new(0),
            stats: ConnStats::new(now.0),
        })
    }

    /// Appends frames to the output. The caller wakes the task afterwards, unless it is the task.
    pub(crate) fn put(&self, f: impl FnOnce(&mut Outbox)) {
        let mut outbox = self.outbox.lock();
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
    pub(crate) fn take_output(&self, empty: &mut Vec<u8>) -> bool {
        debug_assert!(empty.is_empty(), "or bytes would be sent twice");
        let mut outbox = self.outbox.lock();
        std::mem::swap(&mut outbox.bytes, empty);
        outbox.close_after
    }

    /// True for the first waker since the task last looked: that one must call [`Conn::wake`].
    pub(crate) fn mark_woken(&self) -> bool {
        !self.woken.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// The task is about to look at everything others may have changed.
    pub(crate) fn clear_woken(&self) {
        // Not a plain store: what is looked at next must not be looked at before it.
        self.woken.swap(false, Ordering::AcqRel);
    }

    /// True when somebody woke the task since [`Conn::clear_woken`]; else `task` is woken when somebody does.
    pub(crate) fn poll_woken(&self, task: &Waker) -> bool {
        self.task.register(task);
        // Behind it: who marks later finds the waker.
        self.woken.load(Ordering::Acquire)
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

    pub(crate) fn auth(&self) -> Arc<AuthIds> {
        Arc::clone(&self.auth.lock())
    }

    pub(crate) fn set_auth(&self, auth: AuthIds) {
        *self.auth.lock() = Arc::new(auth);
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
