//! Replay: what the log holds behind the snapshot, applied and checked against the digest that each transaction carries; and how
//! far it goes (rule R4).

use super::{NodePlaces, RecoverError, RecoverEvent, RecoverShell};
use crate::base::Zxid;
use crate::storage::log::LogReader;
use crate::tree::{Fired, Tree};
use crate::wire::txn::Proposal;

/// Which part of the log is applied at a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replay {
    /// All of it: a node that serves alone is its own quorum, and what it has logged is committed.
    #[default]
    All,
    /// What is known to be committed: a member of an ensemble may have logged what no quorum has. The rest stays in the log, and is
    /// applied when a leader says so, or cut.
    Committed,
}

impl Replay {
    /// The last zxid that may be applied, of a log that ends at `log_last` behind a snapshot, when `committed` was noted.
    pub(super) fn until(self, snapshot: Zxid, log_last: Zxid, committed: Zxid) -> Zxid {
        assert!(snapshot <= log_last, "END-MISSING is refused");
        match self {
            Replay::All => log_last,
            // A snapshot holds only what was committed.
            Replay::Committed => snapshot.max(committed.min(log_last)),
        }
    }
}

/// How much was replayed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replayed {
    pub(super) txns: u64,
    pub(super) bytes: u64,
}

/// Applies what the log holds behind the tree's last transaction, up to `until`.
pub(super) fn replay(
    tree: &mut Tree,
    reader: &LogReader,
    until: Zxid,
    places: &NodePlaces,
    shell: &RecoverShell<'_>,
) -> Result<Replayed, RecoverError> {
    let mut replayed = Replayed::default();
    let mut fired = Fired::default();
    let mut cursor = reader.after(tree.applied()).map_err(|e| RecoverError::log(places, e))?;
    while let Some((zxid, payload)) = cursor.next().map_err(|e| RecoverError::log(places, e))? {
        if zxid > until {
            break;
        }
        apply(tree, zxid, payload, &mut fired, places)?;
        replayed.txns += 1;
        replayed.bytes += payload.len() as u64;
        (shell.observe)(&RecoverEvent::Replaying { zxid, last: until, txns: replayed.txns });
    }
    assert!(tree.applied() <= until, "R4: nothing behind what is committed");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_a_member_applies_what_is_known_to_be_committed_and_no_more() {
        let until = |replay: Replay, snapshot, last, committed| {
            replay.until(Zxid(snapshot), Zxid(last), Zxid(committed)).0
        };
        for (snapshot, last, committed, expected) in [
            (0, 0, 0, 0),
            (0, 9, 0, 0),
            (0, 9, 4, 4),
            (5, 9, 4, 5),
            (5, 9, 7, 7),
            (9, 9, 9, 9),
            (5, 9, 12, 9),
        ] {
            assert_eq!(until(Replay::Committed, snapshot, last, committed), expected);
            assert_eq!(until(Replay::All, snapshot, last, committed), last);
        }
    }
}
