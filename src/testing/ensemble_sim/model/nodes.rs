//! What the tree is behind each transaction of the one history: kept plainly, all of its past, and written without a look at `tree`, from which it
//! has nothing but what every tree begins with.
//!
//! - MN1: a node is a list of versions, each from one zxid on; what was at a zxid can be asked for ever.
//! - MN2: each change that a watch can hear of is in one list, in the order in which it must be told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

use crate::base::{SessionId, Zxid};
use crate::tree::{Tree, TreeOptions};
use crate::wire::Stat;
use crate::wire::reply::EventType;

/// A node as it is from one transaction to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Znode {
    pub(in super::super) data: Option<Rc<[u8]>>,
    /// As clients are shown it.
    pub(in super::super) stat: Stat,
}

impl Znode {
    /// Children ever made: the next sequence number.
    pub(super) const fn made(&self) -> i32 {
        (self.stat.cversion + self.stat.num_children) / 2
    }
}

/// Something that watches are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Change {
    pub(in super::super) zxid: Zxid,
    pub(in super::super) event: EventType,
    pub(in super::super) path: Rc<str>,
}

/// The versions of one node; `None` is no node.
type Versions = Vec<(Zxid, Option<Rc<Znode>>)>;

/// All nodes, all of their past.
#[derive(Debug)]
pub(in super::super) struct Nodes {
    paths: BTreeMap<Rc<str>, Versions>,
    /// MN2.
    pub(in super::super) changes: Vec<Change>,
    /// Sessions that there are, and their ephemeral nodes.
    pub(super) sessions: BTreeMap<SessionId, BTreeSet<Rc<str>>>,
    /// Where sessions began.
    pub(in super::super) begun: BTreeMap<SessionId, Zxid>,
    /// Sessions that were closed, and where.
    pub(in super::super) closed: BTreeMap<SessionId, Zxid>,
}

impl Default for Nodes {
    /// What every tree begins with.
    fn default() -> Nodes {
        let tree = Tree::new(TreeOptions::default());
        let mut paths = BTreeMap::new();
        let mut left = vec!["/".to_owned()];
        while let Some(path) = left.pop() {
            let node = tree.find(&path).expect("it was listed");
            let znode = Znode { data: node.data().map(Rc::from), stat: node.stat() };
            left.extend(node.children().map(|name| below(&path, name)));
            paths.insert(Rc::from(path), vec![(Zxid::ZERO, Some(Rc::new(znode)))]);
        }
        let (changes, sessions, begun, closed) = Default::default();
        Nodes { paths, changes, sessions, begun, closed }
    }
}

fn below(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

/// Of an absolute path that is not the root's.
pub(super) fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(slash) => &path[..slash],
    }
}

impl Nodes {
    /// What was there behind `zxid`.
    pub(in super::super) fn at(&self, path: &str, zxid: Zxid) -> Option<&Znode> {
        let versions = self.paths.get(path)?;
        let count = versions.partition_point(|(from, _)| *from <= zxid);
        versions[..count].last().and_then(|(_, node)| node.as_deref())
    }

    /// What is there now.
    pub(super) fn now(&self, path: &str) -> Option<&Znode> {
        self.paths.get(path)?.last().and_then(|(_, node)| node.as_deref())
    }

    /// The names of the children that there were behind `zxid`, in order.
    pub(in super::super) fn children_at(&self, parent: &str, zxid: Zxid) -> Vec<&str> {
        let prefix = below(parent, "");
        let paths =
            self.paths.range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded)).map(|(path, _)| path);
        paths
            .take_while(|path| path.starts_with(&prefix))
            .filter(|path| path.len() > prefix.len() && self.at(path, zxid).is_some())
            .map(|path| &path[prefix.len()..])
            .filter(|name| !name.contains('/'))
            .collect()
    }

    /// How many of the changes are those up to `zxid`.
    pub(in super::super) fn changes_upto(&self, zxid: Zxid) -> usize {
        self.changes.partition_point(|change| change.zxid <= zxid)
    }

    /// The changes behind `from`, up to `to`.
    pub(in super::super) fn changes_between(&self, from: Zxid, to: Zxid) -> &[Change] {
        let (from, to) = (self.changes_upto(from), self.changes_upto(to));
        &self.changes[from.min(to)..to]
    }

    fn put(&mut self, path: &Rc<str>, zxid: Zxid, node: Option<Znode>) {
        let versions = self.paths.entry(Rc::clone(path)).or_default();
        if versions.last().is_some_and(|(from, _)| *from == zxid) {
            versions.pop();
        }
        versions.push((zxid, node.map(Rc::new)));
    }

    fn tell(&mut self, zxid: Zxid, event: EventType, path: &str) {
        self.changes.push(Change { zxid, event, path: path.into() });
    }

    // --- What happens: everything has been judged before ---

    pub(super) fn create(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        owner: Option<SessionId>,
        zxid: Zxid,
        now: i64,
    ) {
        let (path, number) = (Rc::from(path), zxid.to_wire());
        let stat = Stat {
            czxid: number,
            mzxid: number,
            pzxid: number,
            ctime: now,
            mtime: now,
            ephemeral_owner: owner.map_or(0, |session| session.0),
            data_length: data.map_or(0, |data| data.len() as i32),
            ..Stat::default()
        };
        self.put(&path, zxid, Some(Znode { data: data.map(Rc::from), stat }));
        self.change_parent(&path, zxid, 1);
        if let Some(session) = owner {
            self.sessions.entry(session).or_default().insert(Rc::clone(&path));
        }
        self.tell(zxid, EventType::NodeCreated, &path);
        self.tell(zxid, EventType::NodeChildrenChanged, parent_of(&path));
    }

    pub(super) fn delete(&mut self, path: &str, zxid: Zxid) {
        let path: Rc<str> = path.into();
        let owner = self.now(&path).map_or(0, |node| node.stat.ephemeral_owner);
        if let Some(ephemerals) = self.sessions.get_mut(&SessionId(owner)) {
            ephemerals.remove(&path);
        }
        self.put(&path, zxid, None);
        self.change_parent(&path, zxid, -1);
        self.tell(zxid, EventType::NodeDeleted, &path);
        self.tell(zxid, EventType::NodeChildrenChanged, parent_of(&path));
    }

    /// A child came or went; clients are shown twice the children ever made, less those that there are.
    fn change_parent(&mut self, path: &str, zxid: Zxid, more: i32) {
        let parent = Rc::from(parent_of(path));
        let mut node = self.now(&parent).expect("judged before").clone();
        let made = node.made() + i32::from(more > 0);
        node.stat.num_children += more;
        node.stat.cversion = 2 * made - node.stat.num_children;
        node.stat.pzxid = zxid.to_wire();
        self.put(&parent, zxid, Some(node));
    }

    pub(super) fn set_data(&mut self, path: &str, data: Option<&[u8]>, zxid: Zxid, now: i64) {
        let path = Rc::from(path);
        let mut node = self.now(&path).expect("judged before").clone();
        node.data = data.map(Rc::from);
        node.stat.data_length = data.map_or(0, |data| data.len() as i32);
        node.stat.version += 1;
        (node.stat.mzxid, node.stat.mtime) = (zxid.to_wire(), now);
        self.put(&path, zxid, Some(node));
        self.tell(zxid, EventType::NodeDataChanged, &path);
    }

    /// The ephemeral nodes of a session, in order.
    pub(super) fn ephemerals(&self, session: SessionId) -> Vec<Rc<str>> {
        self.sessions.get(&session).map(|paths| paths.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn close(&mut self, session: SessionId, zxid: Zxid) {
        for path in self.ephemerals(session) {
            self.delete(&path, zxid);
        }
        self.sessions.remove(&session);
        self.closed.insert(session, zxid);
    }

    /// Takes back what the transaction at `zxid` has done to nodes so far: it fails as a whole.
    pub(super) fn undo(&mut self, zxid: Zxid) {
        for change in self.changes.drain(self.changes.partition_point(|change| change.zxid < zxid)..) {
            for path in [&*change.path, parent_of(&change.path)] {
                let Some(versions) = self.paths.get_mut(path) else { continue };
                let created =
                    versions.last().filter(|(from, _)| *from == zxid).and_then(|(_, node)| node.clone());
                if let Some(ephemerals) =
                    created.and_then(|node| self.sessions.get_mut(&SessionId(node.stat.ephemeral_owner)))
                {
                    ephemerals.remove(path);
                }
                versions.retain(|(from, _)| *from < zxid);
                let back = versions.last().and_then(|(_, node)| node.as_ref());
                if let Some(node) = back
                    && let Some(ephemerals) = self.sessions.get_mut(&SessionId(node.stat.ephemeral_owner))
                {
                    ephemerals.insert(path.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_stays_and_what_fails_leaves_nothing() {
        let mut nodes = Nodes::default();
        nodes.create("/a", Some(b"1"), None, Zxid(1), 5);
        nodes.create("/a/b", None, Some(SessionId(7)), Zxid(2), 6);
        nodes.set_data("/a", Some(b"22"), Zxid(3), 7);
        let before = format!("{nodes:?}");
        nodes.delete("/a/b", Zxid(4));
        nodes.create("/a/c", None, Some(SessionId(7)), Zxid(4), 8);
        nodes.undo(Zxid(4));
        nodes.paths.retain(|_, versions| !versions.is_empty());
        assert_eq!(format!("{nodes:?}"), before);
        assert_eq!(nodes.at("/a", Zxid(2)).map(|node| node.stat.version), Some(0));
        assert_eq!(nodes.at("/a", Zxid(3)).map(|node| node.stat.data_length), Some(2));
        assert_eq!(
            (nodes.children_at("/a", Zxid(1)).len(), nodes.children_at("/a", Zxid(2))),
            (0, vec!["b"])
        );
        assert_eq!(nodes.changes_between(Zxid(1), Zxid(2)).len(), 2);
        nodes.close(SessionId(7), Zxid(5));
        assert_eq!(nodes.at("/a/b", Zxid(5)), None);
        assert_eq!(nodes.at("/a", Zxid(5)).map(|node| node.stat.cversion), Some(2));
    }
}
