//! Sessions end when they must, and not before: a leader ends none that it has heard of within its timeout; nobody is told of an end that nobody
//! has decided on; and behind its end nothing is left of a session in any tree.

use std::collections::BTreeMap;

use super::super::node::Desk;
use super::super::{Violation, World, show, violated};
use crate::base::{MonoMs, SessionId, Zxid};
use crate::tree::Tree;

/// A leader is about to end a session.
pub(in super::super) fn check_expiry(
    node: usize,
    desk: &Desk,
    session: SessionId,
    now: MonoMs,
) -> Result<(), Violation> {
    let Some((heard, timeout_ms)) = desk.heard.get(&session).copied() else {
        return violated(format!("n{} ends {session}, of which it has never heard", node + 1));
    };
    let silent_ms = now.since(heard);
    if silent_ms >= timeout_ms as u64 {
        return Ok(());
    }
    violated(format!("n{} ends {session} after {silent_ms} of {timeout_ms} ms", node + 1))
}

/// A client hears that its session is no more, from a node that has applied so much. A leader that was replaced and does not know it yet says so of a
/// session that is newer than all it has; a client that has seen anything since does not get that far.
pub(in super::super) fn check_told(
    world: &World,
    session: SessionId,
    applied: Zxid,
) -> Result<(), Violation> {
    let model = &world.model;
    let closed = model.nodes.closed.contains_key(&session);
    let is_newer = model.nodes.begun.get(&session).is_none_or(|begun| *begun > applied);
    if closed || model.ending.contains(&session) || is_newer {
        return Ok(());
    }
    violated(format!("the client of {session} is told of its end, and nobody has ended it"))
}

/// Nothing is in a tree of those whose end is in it.
pub(in super::super) fn check_tree(world: &World, node: usize, tree: &Tree) -> Result<(), Violation> {
    match left_over(tree, &world.model.nodes.closed) {
        None => Ok(()),
        Some((session, closed)) => violated(format!(
            "n{} at {} has something of {session}, which ended at {}",
            node + 1,
            show(tree.applied()),
            show(closed)
        )),
    }
}

/// A session of which something is there behind its end, and that end.
fn left_over(tree: &Tree, ends: &BTreeMap<SessionId, Zxid>) -> Option<(SessionId, Zxid)> {
    let there = tree.sessions().map(|(session, _)| session).chain(tree.ephemeral_owners());
    let ended = there.filter_map(|session| Some((session, *ends.get(&session)?)));
    ended.filter(|(_, end)| *end <= tree.applied()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::auth::open_acl;
    use crate::tree::{Fired, TreeOptions};
    use crate::wire::AclVec;
    use crate::wire::txn::{CreateTxn, Lifetime, Proposal, Txn, TxnHeader};

    #[test]
    fn what_a_session_leaves_behind_is_noticed() {
        let mut tree = Tree::new(TreeOptions::default());
        let mut apply = |session, zxid, txn: Txn<'_>| {
            let header = TxnHeader { client_id: session, cxid: 1, zxid, time_ms: 5, kind: 0 };
            tree.apply(&Proposal { header, txn, digest: None }, &mut Fired::new());
        };
        apply(7, 1, Txn::CreateSession { timeout_ms: 1 });
        let acl = open_acl();
        let acl = AclVec::of_encoded(&acl);
        let lifetime = Lifetime::Ephemeral;
        apply(8, 2, Txn::Create(CreateTxn { path: "/e", data: None, acl, lifetime, parent_cversion: 1 }));
        let ends = |session, zxid| [(SessionId(session), Zxid(zxid))].into();
        assert_eq!(left_over(&tree, &ends(9, 1)), None);
        assert_eq!(left_over(&tree, &ends(7, 3)), None, "its end is not in this tree");
        assert_eq!(left_over(&tree, &ends(7, 2)), Some((SessionId(7), Zxid(2))), "the session");
        assert_eq!(left_over(&tree, &ends(8, 2)), Some((SessionId(8), Zxid(2))), "its node");
    }
}
