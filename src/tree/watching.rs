//! The watch API of the tree. All behind `&self`, so that a reader arms a watch under the lock that answered it (R5).

use std::ops::ControlFlow;

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

    /// Removes all watches of a connection.
    pub fn remove_conn(&self, conn: ConnId) {
        while self.remove_conn_step(conn) {}
    }

    /// Removes some of the watches of a connection that is closed, about 200 µs' worth; false when none is left. Others should have
    /// their turn at the tree between two steps.
    #[must_use]
    pub fn remove_conn_step(&self, conn: ConnId) -> bool {
        self.watches.lock().remove_conn_step(conn)
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

    /// What `wchs` says: data and exists watches only. O(1).
    #[must_use]
    pub fn watch_summary(&self) -> WatchSummary {
        self.watches.lock().summary()
    }

    /// Shows some data and exists watches (`wchc`, `wchp`), in no order but all of one path together, from place `from` on: 0, then
    /// what the last step returned. `None` at the end, or when `show` has enough. Others should have their turn at the tree between
    /// two steps; what they change may be seen or not. `show` must not come back to the tree's watches.
    #[must_use]
    pub fn watch_pairs_step(
        &self,
        from: usize,
        show: impl FnMut(&str, ConnId) -> ControlFlow<()>,
    ) -> Option<usize> {
        self.watches.lock().pairs_step(from, show)
    }
}
