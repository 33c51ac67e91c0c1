//! The first stage: requests become transactions, and groups of them.

use std::time::{Duration, Instant};

use super::queue::{Entry, Queue};
use super::{Batch, GROUP_BYTES_TARGET};
use crate::base::{ConnId, SessionId, Zxid};
use crate::node::{Prepare, Sessions, WriteRequest};
use crate::server::Shared;
use crate::server::stats::Tally;
use crate::session::{SessionFault, Tracker};
use crate::storage::log::{Appender, Group, LogError, RecordKind};
use crate::wire::OpCode;

/// Transactions prepared under one hold of the tree's lock: about 100 µs, so that readers never wait for long.
const LOCKED_TXNS_MAX: usize = 128;

/// What stands before the body of a request: length, xid, op.
const REQUEST_HEAD_BYTES: usize = 12;

/// How often a full disk is complained about.
const FULL_DISK_SAY_EVERY: Duration = Duration::from_secs(10);

/// Turns requests into transactions.
#[derive(Debug)]
pub(crate) struct Preparing {
    prepare: Prepare,
    /// What is prepared next.
    pub(crate) drained: Queue,
    tally: Tally,
}

impl Preparing {
    pub(crate) fn new(prepare: Prepare) -> Preparing {
        Preparing { prepare, drained: Queue::default(), tally: Tally::default() }
    }

    /// Counts the requests of clients: here, once per group, or each would move the counters between the threads.
    pub(crate) fn note_requests(&mut self, shared: &Shared) {
        // A connect request is counted by its connection.
        let requests =
            self.drained.entries.iter().filter(|e| e.client.is_some() && e.op != OpCode::CreateSession);
        requests.for_each(|entry| self.tally.request(REQUEST_HEAD_BYTES + entry.len));
        shared.stats.absorb(&mut self.tally);
    }

    /// Prepares requests from the front of the queue, until none is left or the group is large enough. Each entry is given to `prepared`
    /// with the zxid it became.
    pub(crate) fn prepare_some(
        &mut self,
        shared: &Shared,
        group: &mut Group,
        mut prepared: impl FnMut(Zxid, Entry),
    ) {
        while !self.drained.entries.is_empty() && group.bytes() < GROUP_BYTES_TARGET {
            let tree = shared.tree.read();
            let sessions = shared.sessions.lock();
            self.prepare.applied(&tree);
            for _ in 0..LOCKED_TXNS_MAX {
                if group.bytes() >= GROUP_BYTES_TARGET {
                    break;
                }
                let Some(entry) = self.drained.entries.pop_front() else { break };
                let (auth, conn) = entry.asker(shared);
                let request = WriteRequest {
                    session: entry.session,
                    cxid: entry.xid,
                    op: entry.op,
                    body: self.drained.body(&entry),
                    auth,
                    conn,
                };
                let out = group.begin_record();
                let known = Known { sessions: &sessions, entry: &entry, shared };
                let zxid = self.prepare.prepare(&tree, &known, shared.wall_now(), &request, out);
                group.finish_record(zxid, RecordKind::Txn);
                prepared(zxid, entry);
            }
        }
    }
}

/// Sessions as one request sees them: another server of an ensemble answers for those that it alone knows.
struct Known<'a> {
    sessions: &'a Tracker,
    entry: &'a Entry,
    shared: &'a Shared,
}

impl Known<'_> {
    fn is_local_elsewhere(&self, session: SessionId) -> bool {
        let Some(ensemble) = &self.shared.ensemble else { return false };
        let made_by = (session.0 >> 56) & 0xff;
        ensemble.config.local_sessions
            && self.entry.learner.is_some()
            && made_by != ensemble.config.me.0 & 0xff
            && self.sessions.get(session).is_none()
    }
}

impl Sessions for Known<'_> {
    fn check(&self, session: SessionId, conn: ConnId) -> Result<(), SessionFault> {
        if self.is_local_elsewhere(session) { Ok(()) } else { self.sessions.check(session, conn) }
    }

    fn check_global(&self, session: SessionId, conn: ConnId) -> Result<(), SessionFault> {
        if self.is_local_elsewhere(session) {
            return Err(SessionFault::Local(session));
        }
        self.sessions.check_global(session, conn)
    }

    fn set_closing(&self, session: SessionId) {
        self.sessions.set_closing(session);
    }
}

/// Owns what turns requests into transactions, and the end of the log where they go.
#[derive(Debug)]
pub(super) struct PrepareStage {
    pub(super) preparing: Preparing,
    pub(super) appender: Appender,
    /// The disk was full: everything is refused until all that was appended is applied and `prepare` is rebuilt from the tree.
    pub(super) full_disk: bool,
    /// When that was last said.
    full_disk_said: Option<Instant>,
}

impl PrepareStage {
    pub(super) fn new(prepare: Prepare, appender: Appender) -> PrepareStage {
        PrepareStage { preparing: Preparing::new(prepare), appender, full_disk: false, full_disk_said: None }
    }

    /// After a full disk: once there is a segment again, starts from the tree, which must hold all that was appended. Not before: small
    /// writes that still fit behind refused large ones would make the refusals look like a matter of luck.
    pub(super) fn rebuild(&mut self, shared: &Shared, space: bool) -> bool {
        let tree = shared.tree.read();
        if !space || tree.applied() != self.appender.last_zxid() {
            return false;
        }
        self.preparing.prepare = Prepare::new(tree.applied(), tree.digest(), shared.prepare_options.clone());
        self.full_disk = false;
        true
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

    /// Prepares requests from the front of the queue into `batch`.
    pub(super) fn prepare_some(&mut self, shared: &Shared, batch: &mut Batch) {
        let Batch { group, entries, .. } = batch;
        self.preparing.prepare_some(shared, group, |_, entry| entries.push(entry));
    }
}
