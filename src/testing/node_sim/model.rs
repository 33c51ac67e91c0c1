//! What the node must be: every payload that was appended, how many of them were acknowledged, and the tree they make.

use std::collections::BTreeMap;

use crate::base::{WallMs, Zxid};
use crate::tree::{Fired, NodeRef, Outcome, Tree, TreeOptions};
use crate::wire::txn::Proposal;

/// The model.
pub(super) struct Model {
    options: TreeOptions,
    /// Payload of zxid n at n - 1: appended, durable or not.
    payloads: Vec<Vec<u8>>,
    /// Last transaction that somebody was told of.
    pub(super) acknowledged: Zxid,
    /// Last transaction that something durable on the disk vouches for: damage up to here must be noticed.
    pub(super) vouched: Zxid,
    /// The state at `acknowledged`.
    pub(super) tree: Tree,
}

impl Model {
    pub(super) fn new(options: TreeOptions) -> Model {
        Model {
            options,
            payloads: Vec::new(),
            acknowledged: Zxid::ZERO,
            vouched: Zxid::ZERO,
            tree: Tree::new(options),
        }
    }

    /// Last transaction appended.
    pub(super) fn appended(&self) -> Zxid {
        Zxid(self.payloads.len() as u64)
    }

    /// The payload of an appended transaction.
    pub(super) fn payload(&self, zxid: Zxid) -> Option<&[u8]> {
        let index = usize::try_from(zxid.0.checked_sub(1)?).ok()?;
        self.payloads.get(index).map(Vec::as_slice)
    }

    /// A group was handed to the log.
    pub(super) fn append(&mut self, zxid: Zxid, payload: &[u8]) {
        assert_eq!(zxid, self.appended().next(), "one epoch: zxids are consecutive");
        self.payloads.push(payload.to_vec());
    }

    /// The next transaction was acknowledged.
    pub(super) fn acknowledge(&mut self, zxid: Zxid) -> Outcome {
        assert_eq!(zxid, self.acknowledged.next(), "in order");
        let outcome = apply(&mut self.tree, &self.payloads[self.acknowledged.0 as usize]);
        self.acknowledged = zxid;
        outcome
    }

    /// The tree at `zxid`.
    pub(super) fn tree_at(&self, zxid: Zxid) -> Tree {
        self.tree_without(zxid, None)
    }

    /// The tree at `zxid` if one transaction had never been.
    pub(super) fn tree_without(&self, zxid: Zxid, left_out: Option<Zxid>) -> Tree {
        let mut tree = Tree::new(self.options);
        for (payload, at) in self.payloads.iter().zip(1..=zxid.0) {
            if left_out != Some(Zxid(at)) {
                apply(&mut tree, payload);
            }
        }
        tree
    }

    /// A start found everything up to `zxid`: that is the history from now on, and everybody may know it.
    pub(super) fn recovered(&mut self, zxid: Zxid) {
        assert!(zxid <= self.appended(), "checked before: nothing is invented");
        if zxid < self.acknowledged {
            self.tree = self.tree_at(zxid);
            self.acknowledged = zxid;
        }
        while self.acknowledged < zxid {
            self.acknowledge(self.acknowledged.next());
        }
        self.payloads.truncate(zxid.0 as usize);
        self.vouched = self.vouched.min(zxid);
    }
}

fn apply(tree: &mut Tree, payload: &[u8]) -> Outcome {
    let mut fired = Fired::new();
    let outcome = tree.apply(&Proposal::read(payload).expect("prepared, hence whole"), &mut fired);
    assert!(fired.is_empty(), "nobody watches a model");
    outcome
}

/// Everything that a tree is, field by field, in an order of its own: one line per fact.
#[must_use]
pub fn dump(tree: &Tree) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    facts.insert("applied".into(), tree.applied().to_string());
    facts.insert("digest".into(), format!("{:x}", tree.digest()));
    facts.insert("digest log".into(), format!("{:?}", tree.digest_log().collect::<Vec<_>>()));
    facts.insert("counts".into(), format!("{:?}", tree.counts()));
    facts.insert("watches".into(), format!("{:?}", tree.watch_summary()));
    let mut reapable = tree.reapable(WallMs(i64::MAX / 2), 1);
    reapable.sort_unstable();
    facts.insert("reapable".into(), format!("{reapable:?}"));
    for (session, timeout_ms) in tree.sessions() {
        let mut paths = Vec::new();
        tree.ephemeral_paths(session, |path| paths.push(path.to_owned()));
        paths.sort_unstable();
        facts.insert(format!("session {session}"), format!("{timeout_ms} ms, {paths:?}"));
    }
    let mut owners: Vec<_> = tree.ephemeral_owners().collect();
    owners.sort_unstable();
    facts.insert("owners".into(), format!("{owners:?}"));
    for quota in tree.quotas() {
        facts.insert(format!("quota {}", quota.path), format!("{:?} {:?}", quota.limits, quota.used));
    }
    dump_nodes(tree, tree.find("/").expect("there is a root"), &mut facts);
    facts
}

fn dump_nodes(tree: &Tree, node: NodeRef<'_>, facts: &mut BTreeMap<String, String>) {
    let acl: Vec<_> = tree.acl(node.acl_id()).iter().collect();
    let text = format!("{:?} {:?} {:?} {acl:?}", node.persisted(), node.stat(), node.data());
    facts.insert(format!("node {}", node.path()), text);
    node.child_nodes().for_each(|child| dump_nodes(tree, child, facts));
}
