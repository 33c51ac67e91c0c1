//! The first stage: requests become transactions, and groups of them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::queue::Queue;
use super::{Batch, GROUP_BYTES_TARGET};
use crate::base::ConnId;
use crate::node::{Prepare, WriteRequest};
use crate::server::Shared;
use crate::server::stats::Tally;
use crate::storage::log::{Appender, LogError, RecordKind};
use crate::wire::OpCode;

/// Transactions prepared under one hold of the tree's lock: about 100 µs, so that readers never wait for long.
const LOCKED_TXNS_MAX: usize = 128;

/// What stands before the body of a request: length, xid, op.
const REQUEST_HEAD_BYTES: usize = 12;

/// How often a full disk is complained about.
const FULL_DISK_SAY_EVERY: Duration = Duration::from_secs(10);

/// Owns what turns requests into transactions, and the end of the log where they go.
#[derive(Debug)]
pub(super) struct PrepareStage {
    prepare: Prepare,
    pub(super) appender: Appender,
    pub(super) drained: Queue,
    tally: Tally,
    /// The disk was full: everything is refused until all that was appended is applied and `prepare` is rebuilt from the tree.
    pub(super) full_disk: bool,
    /// When that was last said.
    full_disk_said: Option<Instant>,
}

impl PrepareStage {
    pub(super) fn new(prepare: Prepare, appender: Appender) -> PrepareStage {
        PrepareStage {
            prepare,
            appender,
            drained: Queue::default(),
            tally: Tally::default(),
            full_disk: false,
            full_disk_said: None,
        }
    }

    /// After a full disk: once there is a segment again, starts from the tree, which must hold all that was appended. Not before: small
    /// writes that still fit behind refused large ones would make the refusals look like a matter of luck.
    pub(super) fn rebuild(&mut self, shared: &Shared) -> bool {
        if !shared.commit.space.load(Ordering::Acquire) {
            return false;
        }
        let tree = shared.tree.read();
        if tree.applied() != self.appender.last_zxid() {
            return false;
        }
        self.prepare = Prepare::new(tree.applied(), tree.digest(), shared.prepare_options.clone());
        self.full_disk = false;
        true
    }

    /// Counts the requests of clients: here, once per group, or each would move the counters between the threads.
    pub(super) fn note_requests(&mut self, shared: &Shared) {
        // A connect request is counted by its connection.
        let requests =
            self.drained.entries.iter().filter(|e| e.client.is_some() && e.op != OpCode::CreateSession);
        requests.for_each(|entry| self.tally.request(REQUEST_HEAD_BYTES + entry.len));
        shared.stats.absorb(&mut self.tally);
    }

    /// What was prepared for this append, and behind it, is void: the overlay is built again when there is space.
    pub(super) fn note_full_disk(&mut self, error: &LogError) {
        let now = Instant::now();
        let silent = self.full_disk_said.is_some_and(|at| at.elapsed() < FULL_DISK_SAY_EVERY);
        if !silent {
            tracing::error!(%error, "writes are refused until there is space; reads go on");
            self.full_disk_said = Some(now);
        }
        self.full_disk = true;
    }

    /// Prepares requests from the front of the queue, until none is left or the group is large enough, into `batch`.
    pub(super) fn prepare_some(&mut self, shared: &Shared, batch: &mut Batch) {
        while !self.drained.entries.is_empty() && batch.group.bytes() < GROUP_BYTES_TARGET {
            let tree = shared.tree.read();
            let sessions = shared.sessions.lock();
            self.prepare.applied(&tree);
            for _ in 0..LOCKED_TXNS_MAX {
                if batch.group.bytes() >= GROUP_BYTES_TARGET {
                    break;
                }
                let Some(entry) = self.drained.entries.pop_front() else { break };
                let request = WriteRequest {
                    session: entry.session,
                    cxid: entry.xid,
                    op: entry.op,
                    body: &self.drained.bytes[entry.start..entry.start + entry.len],
                    auth: entry
                        .client
                        .as_ref()
                        .map_or(&shared.own_auth, |client| client.auth.ids(&client.conn)),
                    conn: entry.client.as_ref().map_or(ConnId(0), |client| client.conn.id),
                };
                let out = batch.group.begin_record();
                let zxid = self.prepare.prepare(&tree, &*sessions, shared.wall_now(), &request, out);
                batch.group.finish_record(zxid, RecordKind::Txn);
                batch.entries.push(entry);
            }
        }
    }
}
