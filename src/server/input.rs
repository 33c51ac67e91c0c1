//! What a connection has received and not processed yet, and the budget that all of them share.
//!
//! - U1: memory grows with bytes received, never on the word of a length: by what is there, within limits.
//! - U2: a connection that has nothing unfinished keeps [`INPUT_BYTES_FREE`] at most, and so much is nobody's concern: whoever sends small
//!   requests never meets the budget.
//! - U3: everything above that is charged to `zabra.limits.inputBytes`. When that is used up, the connection with the largest buffer is
//!   closed, until the rest fits. Not the one that asks, which may be small; and not left unread instead, for then a crowd that never
//!   finishes its frames would hold the budget for ever. An honest client hears of it at once, and tries again.
//! - U4: what is charged is the sum of what the connections hold, whoever changes it: each change exchanges the connection's part.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use crate::server::Shared;
use crate::server::conn::Conn;
use crate::server::receive::poll_receive;

/// First input buffer of a connection, bytes.
const INPUT_BYTES_MIN: usize = 4 << 10;

/// Most bytes by which an input buffer grows at a time.
const INPUT_BYTES_STEP: usize = 128 << 10;

/// Input buffer that a connection may have for nothing, bytes: 160 MiB for 10,000 connections.
const INPUT_BYTES_FREE: usize = 16 << 10;

/// What all input buffers may take, and take.
#[derive(Debug)]
pub(crate) struct InputBudget {
    max: usize,
    used: AtomicUsize,
}

impl InputBudget {
    pub(crate) const fn new(max: usize) -> InputBudget {
        InputBudget { max, used: AtomicUsize::new(0) }
    }

    /// `conn` has a buffer of `bytes` now (U4).
    fn hold(&self, conn: &Conn, bytes: usize) {
        let bytes = if bytes > INPUT_BYTES_FREE { bytes } else { 0 };
        let before = conn.input_held.swap(bytes, Ordering::Relaxed);
        // Wraps when it shrinks.
        self.used.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    fn is_used_up(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.max
    }
}

impl Shared {
    /// `conn` has a buffer of `bytes` now. False when it is the one that has to go (U3).
    fn hold_input(&self, conn: &Conn, bytes: usize) -> bool {
        self.input.hold(conn, bytes);
        while self.input.is_used_up() {
            let Some(largest) = self.conns.largest(|conn| conn.input_held.load(Ordering::Relaxed)) else {
                break;
            };
            tracing::warn!(peer = %largest.peer, "closed: input buffers take too much (zabra.limits.inputBytes)");
            // Its share goes here, so that nobody else is closed for it; its memory follows when its task sees this.
            self.input.hold(&largest, 0);
            if largest.id == conn.id {
                return false;
            }
            largest.kill();
        }
        true
    }
}

/// See the module's documentation.
pub(crate) struct Input<'a> {
    shared: &'a Shared,
    conn: &'a Conn,
    /// Processed up to `start`.
    bytes: Vec<u8>,
    start: usize,
    /// The capacity that was told to the budget.
    held: usize,
}

impl<'a> Input<'a> {
    pub(crate) const fn new(shared: &'a Shared, conn: &'a Conn) -> Input<'a> {
        Input { shared, conn, bytes: Vec::new(), start: 0, held: 0 }
    }

    /// What is to be processed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// `count` bytes are processed. A large buffer goes when little is left in it.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.bytes.len(), "what is processed was received");
        let left = self.bytes.len() - self.start;
        if self.bytes.capacity() > INPUT_BYTES_FREE && left <= self.bytes.capacity() / 4 && count > 0 {
            self.bytes = self.bytes().to_vec();
            self.start = 0;
            self.tell();
        } else if left == 0 {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Reads what has come; 0 at the end. [`OverBudget`] when the buffer would break the budget.
    pub(crate) fn poll_receive(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Result<usize, OverBudget>>> {
        if !self.make_room() {
            return Poll::Ready(Ok(Err(OverBudget)));
        }
        poll_receive(stream, &mut self.bytes, cx).map_ok(Ok)
    }

    /// Grows the buffer to twice what is there, within limits (U1).
    fn make_room(&mut self) -> bool {
        if self.bytes.capacity() - self.bytes.len() >= INPUT_BYTES_MIN / 2 {
            return true;
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.capacity() - self.bytes.len() < INPUT_BYTES_MIN / 2 {
            self.bytes.reserve_exact(self.bytes.len().clamp(INPUT_BYTES_MIN, INPUT_BYTES_STEP));
        }
        self.tell()
    }

    /// Tells the budget what the buffer takes; false when the connection has to go.
    fn tell(&mut self) -> bool {
        let (before, now) = (self.held, self.bytes.capacity());
        self.held = now;
        if before.max(now) <= INPUT_BYTES_FREE || before == now {
            return true;
        }
        self.shared.hold_input(self.conn, now)
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        self.shared.input.hold(self.conn, 0);
    }
}

/// The connection's frame was the largest when the budget was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;
