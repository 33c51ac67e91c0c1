//! The watch API of the tree. All behind `&self`, so that a reader arms a watch under the lock that answered it (R5).

use super::watch::Table;
use super::{Tree, WatchKind, WatchLimit, WatchMode, WatchSummary};
use crate::base::ConnId;
use crate::wire::reply::EventType;
use crate::wire::request::SetWatches;

impl Tree {
    /// One-shot watch of getData.
    pub fn watch_data(&self, path: &str, conn: ConnId) -> Result<(), WatchLimit> {
        self.watches.lock().arm(path, Table::Data, conn)
    }

    /// One-shot watch of exists; the same entry as that of getData.
    pub fn watch_exists(&self, path: &str, conn: ConnId) -> Result<(), WatchLimit> {
        self.watches.lock().arm(path, Table::Data, conn)
    }

    /// One-shot watch of getChildren.
    pub fn watch_children(&self, path: &str, conn: ConnId) -> Result<(), WatchLimit> {
        self.watches.lock().arm(path, Table::Child, conn)
    }

    /// Persistent watch. Any path will do: absent, unreadable, even malformed.
    pub fn add_watch(&self, path: &str, mode: WatchMode, conn: ConnId) -> Result<(), WatchLimit> {
        self.watches.lock().arm_for_good(path, mode, conn)
    }

    /// Has `conn` such a watch at `path`?
    #[must_use]
    pub fn check_watch(&self, path: &str, kind: WatchKind, conn: ConnId) -> bool {
        self.watches.lock().check(path, kind, conn)
    }

    /// Removes such watches; false if there were none.
    pub fn remove_watch(&self, path: &str, kind: WatchKind, conn: ConnId) -> bool {
        self.watches.lock().remove(path, kind, conn)
    }

    /// Removes all watches of a connection. To be called when it closes.
    pub fn remove_conn(&self, conn: ConnId) {
        self.watches.lock().remove_conn(conn);
    }

    /// Sets watches again after a reconnect and emits what was missed, in ZooKeeper's order. These events are not filtered by
    /// ACLs and carry zxid -1. At a limit it stops: what was set stays.
    pub fn set_watches(
        &self,
        watches: &SetWatches<'_>,
        conn: ConnId,
        mut emit: impl FnMut(EventType, &str),
    ) -> Result<(), WatchLimit> {
        let since = watches.relative_zxid;
        for path in watches.data.iter() {
            match self.find(path).map(|node| node.persisted().mzxid) {
                None => emit(EventType::NodeDeleted, path),
                Some(mzxid) if mzxid > since => emit(EventType::NodeDataChanged, path),
                Some(_) => self.watch_data(path, conn)?,
            }
        }
        for path in watches.exist.iter() {
            match self.find(path) {
                Some(_) => emit(EventType::NodeCreated, path),
                None => self.watch_exists(path, conn)?,
            }
        }
        for path in watches.child.iter() {
            match self.find(path).map(|node| node.persisted().pzxid) {
                None => emit(EventType::NodeDeleted, path),
                Some(pzxid) if pzxid > since => emit(EventType::NodeChildrenChanged, path),
                Some(_) => self.watch_children(path, conn)?,
            }
        }
        for path in watches.persistent.iter() {
            self.add_watch(path, WatchMode::Persistent, conn)?;
        }
        for path in watches.persistent_recursive.iter() {
            self.add_watch(path, WatchMode::PersistentRecursive, conn)?;
        }
        Ok(())
    }

    /// Watches of both tables, as `mntr` and `stat` count them.
    #[must_use]
    pub fn watch_count(&self) -> usize {
        self.watches.lock().count()
    }

    /// What `wchs` says: data and exists watches only. Walks the table.
    #[must_use]
    pub fn watch_summary(&self) -> WatchSummary {
        self.watches.lock().summary()
    }

    /// Shows each data or exists watch (`wchc`, `wchp`), in no order but all of one path together. `show` must not come back to
    /// the tree's watches.
    pub fn watch_pairs(&self, show: impl FnMut(&str, ConnId)) {
        self.watches.lock().pairs(show);
    }
}
