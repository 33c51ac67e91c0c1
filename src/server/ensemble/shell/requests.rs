//! What clients ask for: a leader proposes it, a learner forwards it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::{Shell, ensemble, give_up};
use crate::base::MonoMs;
use crate::node::member::Standing;
use crate::server::commit::{Entry, Queue};
use crate::server::conn::REFUSED;
use crate::server::ensemble::Revalidation;
use crate::wire::OpCode;
use crate::wire::quorum::AuthId;
use crate::wire::quorum_payload::{ForwardedRequest, Touch};

/// Bytes of transactions that are proposed in one turn. They are flushed, and peers heard, before the next ones (S3).
const PROPOSED_BYTES_MAX: u64 = 4 << 20;

/// Bytes on their way to the leader above which clients' writes wait here.
const FORWARDED_BYTES_MAX: usize = 4 << 20;

impl Shell {
    /// Takes what clients have submitted: a leader proposes it, a learner forwards it.
    pub(super) fn take_queue(&mut self, now: MonoMs) {
        match ensemble(&self.shared).standing() {
            None => self.refuse_queue(),
            Some(Standing::Leading { .. }) => self.propose(now),
            Some(Standing::Learning { .. }) => self.forward(),
        }
    }

    pub(super) fn refuse_queue(&mut self) {
        self.drained.reset();
        self.shared.commit.drain(&mut self.drained);
        while let Some(entry) = self.drained.entries.pop_front() {
            give_up(&self.shared, &entry);
        }
    }

    fn propose(&mut self, now: MonoMs) {
        let Some(preparing) = self.preparing.as_mut().filter(|_| self.member.may_propose()) else { return };
        if preparing.drained.is_empty() {
            preparing.drained.reset();
            self.shared.commit.drain(&mut preparing.drained);
            preparing.note_requests(&self.shared);
            for sync in take_syncs(&mut preparing.drained) {
                self.syncs.push_back(sync);
                self.member.sync(now);
            }
        }
        let mut bytes = 0;
        while let Some(preparing) = &mut self.preparing
            && !preparing.drained.is_empty()
            && self.member.may_propose()
        {
            if bytes >= PROPOSED_BYTES_MAX {
                self.again = true;
                return;
            }
            let mut group = self.member.group();
            let pending = &mut self.pending;
            preparing.prepare_some(&self.shared, &mut group, |zxid, entry| pending.proposed(zxid, entry));
            bytes += group.bytes() as u64;
            self.shared.stats.batch_size.add(group.len() as u64);
            self.shared.stats.proposals.fetch_add(group.len() as u64, Ordering::Relaxed);
            group.iter().for_each(|(_, _, txn)| self.shared.stats.proposal_size.add(txn.len()));
            if let Err(error) = self.member.propose(now, group) {
                tracing::error!(%error, "what was asked for cannot be logged");
                let left: Vec<Entry> = preparing.drained.entries.drain(..).collect();
                left.iter().for_each(|entry| give_up(&self.shared, entry));
                return;
            }
        }
    }

    /// Writes that had to wait may go to the leader now.
    pub(super) fn can_forward(&self) -> bool {
        !self.drained.is_empty() && self.member.bytes_for_leader() < FORWARDED_BYTES_MAX
    }

    fn forward(&mut self) {
        if self.drained.is_empty() {
            self.drained.reset();
            self.shared.commit.drain(&mut self.drained);
        }
        while self.member.bytes_for_leader() < FORWARDED_BYTES_MAX
            && let Some(entry) = self.drained.entries.pop_front()
        {
            let Some(client) = entry.client.as_ref().filter(|client| !client.conn.is_killed()) else {
                give_up(&self.shared, &entry);
                continue;
            };
            let body = self.drained.body(&entry);
            let cxid = self.pending.next_number();
            let request = ForwardedRequest { session: entry.session, cxid, op: entry.op.to_i32(), body };
            let ids = client.auth.ids(&client.conn).ids();
            self.member
                .forward(&request, ids.iter().map(|id| AuthId { scheme: Some(id.scheme), id: Some(&id.id) }));
            if entry.op == OpCode::Sync {
                let body = body.to_vec();
                self.syncs.push_back((entry, body));
            } else {
                self.pending.forwarded(cxid, entry);
            }
        }
    }

    pub(super) fn take_revalidations(&mut self) {
        let ensemble = ensemble(&self.shared);
        let asked = std::mem::take(&mut *ensemble.revalidations.lock());
        for revalidation in asked {
            match ensemble.standing() {
                Some(Standing::Learning { .. }) => {
                    let Revalidation { session, timeout_ms, .. } = revalidation;
                    self.member.revalidate(Touch { session, timeout_ms });
                    self.peers.revalidating.push(revalidation);
                }
                _ => {
                    revalidation.conn.set_session(REFUSED);
                    revalidation.conn.write_answered();
                    revalidation.conn.kill();
                }
            }
        }
    }
}

/// Takes the syncs out of the queue: no transaction comes of them.
fn take_syncs(queue: &mut Queue) -> Vec<(Entry, Vec<u8>)> {
    if queue.entries.iter().all(|entry| entry.op != OpCode::Sync) {
        return Vec::new();
    }
    let (syncs, rest): (VecDeque<Entry>, VecDeque<Entry>) =
        std::mem::take(&mut queue.entries).into_iter().partition(|entry| entry.op == OpCode::Sync);
    queue.entries = rest;
    let with_body = |entry: Entry| {
        let body = queue.body(&entry).to_vec();
        (entry, body)
    };
    syncs.into_iter().map(with_body).collect()
}
