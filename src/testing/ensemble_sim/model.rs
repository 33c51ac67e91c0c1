//! What is known of the one history: every transaction ever proposed, those committed in order, the tree behind each of them, and what clients
//! asked for and were told.

mod nodes;
mod replay;

use std::collections::{BTreeMap, BTreeSet};

use super::invariants::{linear, lists};
use super::{Violation, show, violated};
use crate::base::checksum::crc32;
use crate::base::{Epoch, SessionId, Zxid};
use crate::wire::OpCode;
use crate::wire::txn::{Proposal, Txn};

pub(super) use nodes::{Change, Nodes};
pub(super) use replay::Expected;

/// A transaction, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) hash: u32,
    pub(super) session: SessionId,
    pub(super) cxid: i32,
    /// It changed something.
    pub(super) effective: bool,
    pub(super) closes: bool,
}

/// The model.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Every transaction that was proposed, or found on a disk.
    pub(super) txns: BTreeMap<Zxid, Known>,
    payloads: BTreeMap<Zxid, Vec<u8>>,
    /// The committed history, in order.
    pub(super) committed: Vec<Zxid>,
    /// Of the tree, after a transaction.
    pub(super) digests: BTreeMap<Zxid, u64>,
    /// Who led an epoch: node and incarnation.
    pub(super) leaders: BTreeMap<Epoch, (usize, u64)>,
    /// The tree behind each of the committed.
    pub(super) nodes: Nodes,
    /// Writes that clients have sent, and whose place is not known.
    pub(super) asked: BTreeMap<(SessionId, i32), (OpCode, Vec<u8>)>,
    /// What those must be answered whose place is known.
    pub(super) expected: BTreeMap<Zxid, Expected>,
    /// Sessions whose end somebody has decided on.
    pub(super) ending: BTreeSet<SessionId>,
    /// What happened to registers and lists, as clients saw it.
    pub(super) accesses: BTreeMap<String, Vec<linear::Access>>,
    pub(super) lists: lists::History,
    /// Grows with each request and each answer: real time, as far as clients can tell.
    moments: u64,
    /// Last effective request of each session in the committed history.
    pub(super) last_cxid: BTreeMap<SessionId, i32>,
    /// Multi transactions that changed something.
    pub(super) multis: u64,
    /// Where each request of a client is in the committed history.
    pub(super) requests: BTreeMap<(SessionId, i32), Zxid>,
    /// The greatest zxid that any client was shown.
    pub(super) shown: Zxid,
}

/// It changes something; a multi does all that it says, or nothing.
fn is_effective(txn: &Txn<'_>) -> bool {
    match txn {
        Txn::Error { .. } => false,
        Txn::Multi(ops) => ops.iter().all(|(_, op)| is_effective(&op)),
        _ => true,
    }
}

impl Model {
    pub(super) fn last_committed(&self) -> Zxid {
        self.committed.last().copied().unwrap_or(Zxid::ZERO)
    }

    pub(super) fn is_committed(&self, zxid: Zxid) -> bool {
        self.committed.binary_search(&zxid).is_ok()
    }

    /// The committed history up to `zxid`, which must be in it.
    pub(super) fn history(&self, zxid: Zxid) -> Result<Vec<Zxid>, Violation> {
        if zxid == Zxid::ZERO {
            return Ok(Vec::new());
        }
        match self.committed.binary_search(&zxid) {
            Ok(index) => Ok(self.committed[..=index].to_vec()),
            Err(_) => violated(format!("a state at {}, which is not committed", show(zxid))),
        }
    }

    /// A transaction was seen somewhere: one zxid has one content.
    pub(super) fn seen(&mut self, zxid: Zxid, payload: &[u8]) -> Result<(), Violation> {
        let hash = crc32(payload);
        if let Some(known) = self.txns.get(&zxid) {
            if known.hash != hash {
                return violated(format!("two contents for {}", show(zxid)));
            }
            return Ok(());
        }
        let proposal = match Proposal::read(payload) {
            Ok(proposal) => proposal,
            Err(error) => return violated(format!("{} cannot be read: {error}", show(zxid))),
        };
        let effective = is_effective(&proposal.txn);
        let known = Known {
            hash,
            session: SessionId(proposal.header.client_id),
            cxid: proposal.header.cxid,
            effective,
            closes: matches!(proposal.txn, Txn::CloseSession { .. }),
        };
        self.txns.insert(zxid, known);
        self.payloads.insert(zxid, payload.to_vec());
        Ok(())
    }

    /// What was as good as never made.
    pub(super) fn forget(&mut self, zxid: Zxid) {
        self.txns.remove(&zxid);
        self.payloads.remove(&zxid);
    }

    /// The next transaction of the one history.
    pub(super) fn commit(&mut self, zxid: Zxid) -> Result<Known, Violation> {
        assert!(zxid > self.last_committed(), "in order");
        let Some(known) = self.txns.get(&zxid).copied() else {
            return violated(format!("{} is committed, and nobody proposed it", show(zxid)));
        };
        self.committed.push(zxid);
        if let Some(payload) = self.payloads.remove(&zxid) {
            let proposal = Proposal::read(&payload).expect("read before");
            self.multis += u64::from(known.effective && matches!(proposal.txn, Txn::Multi(_)));
            let request = self.asked.remove(&(known.session, known.cxid));
            let request = request.as_ref().map(|(op, body)| (*op, body.as_slice()));
            if let Some(expected) = self.nodes.replay(zxid, &proposal, request)? {
                self.expected.insert(zxid, expected);
            }
        }
        Ok(known)
    }

    /// The next moment.
    pub(super) fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }
}
