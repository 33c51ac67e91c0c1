//! Replay: what the log holds behind the snapshot, applied and checked against the digest that each transaction carries.

use super::{NodePlaces, RecoverError, RecoverEvent, RecoverShell};
use crate::base::Zxid;
use crate::storage::log::{LogReader, RecoveryReport};
use crate::tree::{Fired, Tree};
use crate::wire::txn::Proposal;

/// How much was replayed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replayed {
    pub(super) txns: u64,
    pub(super) bytes: u64,
}

/// Applies what the log holds behind the tree's last transaction.
pub(super) fn replay(
    tree: &mut Tree,
    reader: &LogReader,
    report: &RecoveryReport,
    places: &NodePlaces,
    shell: &RecoverShell<'_>,
) -> Result<Replayed, RecoverError> {
    let mut replayed = Replayed::default();
    let mut fired = Fired::default();
    let mut cursor = reader.after(tree.applied()).map_err(|e| RecoverError::log(places, e))?;
    while let Some((zxid, payload)) = cursor.next().map_err(|e| RecoverError::log(places, e))? {
        apply(tree, zxid, payload, &mut fired, places)?;
        replayed.txns += 1;
        replayed.bytes += payload.len() as u64;
        (shell.observe)(&RecoverEvent::Replaying { zxid, last: report.last, txns: replayed.txns });
    }
    Ok(replayed)
}

fn apply(
    tree: &mut Tree,
    zxid: Zxid,
    payload: &[u8],
    fired: &mut Fired,
    places: &NodePlaces,
) -> Result<(), RecoverError> {
    let dir = || places.log.clone();
    let proposal =
        Proposal::read(payload).map_err(|source| RecoverError::Undecodable { dir: dir(), zxid, source })?;
    let found = Zxid::from_wire(proposal.header.zxid);
    if found != zxid {
        return Err(RecoverError::Misnumbered { dir: dir(), zxid, found });
    }
    tree.apply(&proposal, fired);
    if let Some(mismatch) = fired.digest_mismatch() {
        let (expected, found) = (mismatch.expected, mismatch.found);
        return Err(RecoverError::Digest { dir: dir(), zxid, expected, found });
    }
    fired.clear();
    Ok(())
}
