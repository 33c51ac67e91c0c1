//! Writes that wait to be prepared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::BUFFER_KEEP_MAX;
use crate::base::{ConnId, SessionId};
use crate::node::AuthIds;
use crate::server::Shared;
use crate::server::conn::{Auth, Conn};
use crate::wire::OpCode;

/// Where an answer goes.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) conn: Arc<Conn>,
    pub(crate) auth: Auth,
}

/// Whose write another member has sent.
#[derive(Clone, Debug)]
pub(crate) struct Learner {
    /// Stands for the connection with that member, as the owner of the sessions that are there.
    pub(crate) owner: ConnId,
    /// Who the client is.
    pub(crate) ids: Arc<AuthIds>,
}

/// One write on its way.
#[derive(Debug)]
pub(crate) struct Entry {
    /// `None`: the server's own (expiry, reaper), or another member's.
    pub(crate) client: Option<Client>,
    pub(crate) learner: Option<Learner>,
    pub(crate) session: SessionId,
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) received: Instant,
    /// Where the body stands in the queue's bytes.
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Entry {
    /// Number of the connection that waits for it; 0 for the server itself.
    pub(super) fn writer(&self) -> u64 {
        self.client.as_ref().map_or(0, |client| client.conn.id.0)
    }

    /// Who asks, and on which connection.
    pub(super) fn asker<'a>(&'a self, shared: &'a Shared) -> (&'a AuthIds, ConnId) {
        match (&self.client, &self.learner) {
            (Some(client), _) => (client.auth.ids(&client.conn), client.conn.id),
            (None, Some(learner)) => (&learner.ids, learner.owner),
            (None, None) => (&shared.own_auth, ConnId(0)),
        }
    }
}

/// Requests waiting to be prepared; bodies copied into one buffer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: VecDeque<Entry>,
}

impl Queue {
    /// Adds a client's write.
    pub(crate) fn push_client(&mut self, conn: &Arc<Conn>, auth: &Auth, write: &Write<'_>) {
        conn.write_submitted();
        self.push(Some(Client { conn: Arc::clone(conn), auth: auth.clone() }), None, write);
    }

    /// Adds a write that another member has sent.
    pub(crate) fn push_learner(&mut self, learner: Learner, write: &Write<'_>) {
        self.push(None, Some(learner), write);
    }

    /// The body of an entry of this queue.
    pub(crate) fn body(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start..entry.start + entry.len]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a write, of a client or of the server itself.
    pub(super) fn push(&mut self, client: Option<Client>, learner: Option<Learner>, write: &Write<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(write.body);
        self.entries.push_back(Entry {
            client,
            learner,
            session: write.session,
            xid: write.xid,
            op: write.op,
            received: write.received,
            start,
            len: write.body.len(),
        });
    }

    /// Forgets everything, keeps the memory.
    pub(crate) fn reset(&mut self) {
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
