//! What is known of the one history: every transaction ever proposed, those committed in order, what each disk holds, and what clients were told.

use std::collections::BTreeMap;

use super::options::Register;
use super::{Violation, show, violated};
use crate::base::checksum::crc32;
use crate::base::{Epoch, SessionId, Zxid};
use crate::wire::txn::{Proposal, Txn};

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
    pub(super) registers: BTreeMap<String, Register>,
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
            self.note_registers(zxid, &proposal.txn);
        }
        Ok(known)
    }

    fn note_registers(&mut self, zxid: Zxid, txn: &Txn<'_>) {
        let (path, data) = match txn {
            Txn::Create(create) => (create.path, create.data),
            Txn::SetData { path, data, .. } => (*path, *data),
            Txn::Multi(ops) if is_effective(txn) => {
                return ops.iter().for_each(|(_, op)| self.note_registers(zxid, &op));
            }
            _ => return,
        };
        if path.starts_with("/r") {
            let register = self.registers.entry(path.to_owned()).or_default();
            register.insert(zxid, data.map(<[u8]>::to_vec));
        }
    }

    /// What a read of a register at `zxid` must give; the outer `None` is no node.
    pub(super) fn read(&self, path: &str, zxid: Zxid) -> Option<Option<Vec<u8>>> {
        let register = self.registers.get(path)?;
        register.range(..=zxid).next_back().map(|(_, data)| data.clone())
    }
}
