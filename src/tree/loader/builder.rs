//! A tree put together from whole nodes, parents before children, as ZooKeeper's stream of a snapshot brings them.
//!
//! - B1: a node is tied to everything the moment it comes: what is finished is a tree, whatever came, and nothing is walked again.
//! - B2: what comes is not believed: a node without a parent, or beside one of its name, is refused and changes nothing.

use super::super::digest;
use super::super::node::Node;
use super::super::slab::{NIL, Slab};
use super::super::{AclId, ROOT, Tree, TreeOptions};
use crate::base::{SessionId, Zxid};
use crate::wire::{AclVec, StatPersisted};

/// Why a node cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// Its path is not `/` and names between slashes, or, for the first, not empty.
    #[error("is no path here")]
    Path,
    /// Its parent is not there.
    #[error("has no parent")]
    NoParent,
    /// It is there already.
    #[error("comes twice")]
    Twice,
}

/// A tree in the making.
#[derive(Debug)]
pub struct TreeBuilder {
    tree: Tree,
    /// Each counted as in use until the end.
    acls: Vec<AclId>,
    /// Path and slot of the last node's parent, which is often the next one's as well.
    parent: (String, u32),
}

impl TreeBuilder {
    /// Nothing but the options of the tree to be.
    #[must_use]
    pub fn new(options: TreeOptions) -> TreeBuilder {
        TreeBuilder {
            tree: Tree::bare(options, Slab::default(), 0),
            acls: Vec::new(),
            parent: (String::new(), ROOT),
        }
    }

    /// Adds a session with its timeout in ms; false if it is there.
    pub fn session(&mut self, session: SessionId, timeout_ms: i32) -> bool {
        self.tree.owners.sessions.insert(session, timeout_ms).is_none()
    }

    /// Adds a list, for [`TreeBuilder::node`]. It goes at the end if no node has it.
    pub fn acl(&mut self, list: AclVec<'_>) -> AclId {
        let id = self.tree.acls.intern(list);
        self.acls.push(id);
        id
    }

    /// Adds a node. The first is the root, whose path is empty.
    ///
    /// # Errors
    /// It hangs on nothing, or is there; nothing has changed.
    pub fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: AclId,
        stat: &StatPersisted,
    ) -> Result<(), Misplaced> {
        let (parent, name) = if self.tree.slab.len() == 0 {
            if path.is_empty() { (NIL, "") } else { return Err(Misplaced::Path) }
        } else {
            self.place(path)?
        };
        let acl = self.tree.acls.reuse(acl);
        let shown = if parent == NIL { "/" } else { path };
        let crc = digest::content_crc(shown, data);
        let slot =
            self.tree.add_node(parent, shown, Node::new(parent, name.as_bytes(), data, acl, crc, stat));
        debug_assert_eq!(slot == ROOT, parent == NIL, "the root is the first node, and only it");
        Ok(())
    }

    /// Where a node other than the root is to be: its parent's slot, and its name.
    fn place<'a>(&mut self, path: &'a str) -> Result<(u32, &'a str), Misplaced> {
        if path.is_empty() {
            return Err(Misplaced::Twice);
        }
        let (above, name) = path.rsplit_once('/').ok_or(Misplaced::Path)?;
        if name.is_empty() {
            return Err(Misplaced::Path);
        }
        if above != self.parent.0 {
            // "/" is another name of the root, but no path begins with two slashes.
            let slot = if above == "/" { None } else { self.tree.slot_of(above) };
            self.parent.1 = slot.ok_or(Misplaced::NoParent)?;
            self.parent.0.clear();
            self.parent.0.push_str(above);
        }
        let parent = self.parent.1;
        match self.tree.index.find(&self.tree.slab, parent, name.as_bytes()) {
            Some(_) => Err(Misplaced::Twice),
            None => Ok((parent, name)),
        }
    }

    /// Nodes so far; the root counts once.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.tree.slab.len()
    }

    /// Is there a node at this path?
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.nodes() > 0 && self.tree.slot_of(path).is_some()
    }

    /// Counts afresh what is used of every quota, as ZooKeeper does whenever it loads: for nodes of different times, where nobody knows
    /// which are counted. For when all nodes are there.
    pub fn count_usage(&mut self) {
        self.tree.find_quota_roots();
        let roots: Vec<String> = self.tree.quotas.iter().map(str::to_owned).collect();
        roots.iter().for_each(|root| self.tree.quota_recount(root));
    }

    /// The tree, as of `applied`. Panics without a root.
    #[must_use]
    pub fn finish(self, applied: Zxid) -> Tree {
        let TreeBuilder { mut tree, acls, .. } = self;
        assert!(tree.slab.len() > 0, "a tree has a root");
        acls.into_iter().for_each(|acl| drop(tree.acls.release(acl)));
        tree.find_quota_roots();
        tree.applied = applied;
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(builder: &mut TreeBuilder, path: &str) -> Result<(), Misplaced> {
        builder.node(path, Some(b""), AclId::OPEN, &StatPersisted::default())
    }

    #[test]
    fn b2_what_hangs_on_nothing_or_is_there_is_refused_and_changes_nothing() {
        let mut builder = TreeBuilder::new(TreeOptions::default());
        assert_eq!(put(&mut builder, "/a"), Err(Misplaced::Path), "the root comes first");
        assert!(!builder.contains("/"));
        for path in ["", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/a", "/a/b"] {
            put(&mut builder, path).unwrap();
        }
        for path in ["/", "a", "/a/", "/a/b/"] {
            assert_eq!(put(&mut builder, path), Err(Misplaced::Path), "{path}");
        }
        for path in ["//a", "/a//b", "/x/y", "/a/x/y", "a/b", "///"] {
            let found = put(&mut builder, path);
            assert!(matches!(found, Err(Misplaced::NoParent | Misplaced::Path)), "{path} {found:?}");
        }
        for path in ["", "/a", "/a/b"] {
            assert_eq!(put(&mut builder, path), Err(Misplaced::Twice), "{path}");
        }
        assert!(builder.contains("/a/b") && !builder.contains("/b"));
        let tree = builder.finish(Zxid(9));
        assert_eq!((tree.node_count(), tree.applied()), (7, Zxid(9)));
    }

    #[test]
    fn what_is_built_of_a_fresh_trees_nodes_is_a_fresh_tree() {
        let fresh = Tree::new(TreeOptions::default());
        let mut builder = TreeBuilder::new(TreeOptions::default());
        for path in ["", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            let node = fresh.find(path).unwrap();
            let acl = builder.acl(fresh.acl(node.acl_id()));
            builder.node(path, node.data(), acl, &node.persisted()).unwrap();
        }
        let built = builder.finish(Zxid::ZERO);
        assert_eq!((built.digest(), built.counts()), (fresh.digest(), fresh.counts()));
        let all: Vec<_> = built.find("/zookeeper").unwrap().children().collect();
        assert_eq!((all.len(), built.find("/").unwrap().descendants()), (2, 3));
    }

    #[test]
    fn a_list_that_no_node_has_goes_at_the_end() {
        let mut builder = TreeBuilder::new(TreeOptions::default());
        let list = super::super::super::acls::encode([]);
        builder.acl(AclVec::of_encoded(&list));
        put(&mut builder, "").unwrap();
        assert_eq!(builder.finish(Zxid::ZERO).counts().acls, 1);
    }
}
