//! Writes that wait to be prepared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::BUFFER_KEEP_MAX;
use crate::base::SessionId;
use crate::server::conn::{Auth, Conn};
use crate::wire::OpCode;

/// Where an answer goes.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) conn: Arc<Conn>,
    pub(super) auth: Auth,
}

/// One write on its way.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None`: the server's own (expiry, reaper).
    pub(super) client: Option<Client>,
    pub(super) session: SessionId,
    pub(super) xid: i32,
    pub(super) op: OpCode,
    pub(super) received: Instant,
    /// Where the body stands in the queue's bytes.
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Entry {
    /// Number of the connection that waits for it; 0 for the server itself.
    pub(super) fn writer(&self) -> u64 {
        self.client.as_ref().map_or(0, |client| client.conn.id.0)
    }
}

/// Requests waiting to be prepared; bodies copied into one buffer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: VecDeque<Entry>,
}

impl Queue {
    /// Adds a client's write.
    pub(crate) fn push_client(&mut self, conn: &Arc<Conn>, auth: &Auth, write: &Write<'_>) {
        conn.write_submitted();
        self.push(Some(Client { conn: Arc::clone(conn), auth: auth.clone() }), write);
    }

    /// Adds a write, of a client or of the server itself.
    pub(super) fn push(&mut self, client: Option<Client>, write: &Write<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(write.body);
        self.entries.push_back(Entry {
            client,
            session: write.session,
            xid: write.xid,
            op: write.op,
            received: write.received,
            start,
            len: write.body.len(),
        });
    }

    pub(super) fn reset(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_KEEP_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// A write as it enters the commit path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) session: SessionId,
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) body: &'a [u8],
    pub(crate) received: Instant,
}
