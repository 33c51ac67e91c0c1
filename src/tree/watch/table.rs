//! The watch table: ZooKeeper's two tables (data and children) in one.
//!
//! - W1: one entry per (path, connection), a byte of modes in it; the path is stored once, whoever watches it. Paths need not be
//!   nodes, nor even well formed.
//! - W2: from a connection to its paths and back: removing a connection costs what it watches, not what there is.
//! - W3: a trigger tells each connection once: each carries the stamp of the last trigger that told it.
//! - W4: parents are looked up only while there is a recursive watch.
//! - W5: the limits hold; re-arming what is there already never breaks them.

use hashbrown::HashTable;

use super::{WatchKind, WatchLimit, WatchLimits, WatchMode, WatchSummary};
use crate::base::ConnId;
use crate::tree::maps::{self, Map, Set, State};

/// Bits of [`Watcher::modes`].
const DATA: u8 = 1;
const DATA_PERSISTENT: u8 = 2;
const DATA_RECURSIVE: u8 = 4;
const CHILD: u8 = 8;
const CHILD_PERSISTENT: u8 = 16;
const DATA_ALL: u8 = DATA | DATA_PERSISTENT | DATA_RECURSIVE;
const CHILD_ALL: u8 = CHILD | CHILD_PERSISTENT;

/// ZooKeeper's two watch tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tree) enum Table {
    /// Data and exists watches, and all recursive ones.
    Data,
    /// Watches on the list of children.
    Child,
}

impl Table {
    const fn all(self) -> u8 {
        match self {
            Table::Data => DATA_ALL,
            Table::Child => CHILD_ALL,
        }
    }

    const fn one_shot(self) -> u8 {
        match self {
            Table::Data => DATA,
            Table::Child => CHILD,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Watcher {
    conn: u32,
    modes: u8,
}

/// The watchers of a path: nearly always one.
#[derive(Debug)]
enum Watchers {
    None,
    One(Watcher),
    // Boxed so that the usual case stays at 16 bytes.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Watcher>>),
}

impl Watchers {
    fn as_slice(&self) -> &[Watcher] {
        match self {
            Watchers::None => &[],
            Watchers::One(one) => std::slice::from_ref(one),
            Watchers::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Watcher] {
        match self {
            Watchers::None => &mut [],
            Watchers::One(one) => std::slice::from_mut(one),
            Watchers::Many(many) => many,
        }
    }

    fn push(&mut self, watcher: Watcher) {
        match self {
            Watchers::None => *self = Watchers::One(watcher),
            Watchers::One(one) => *self = Watchers::Many(Box::new(vec![*one, watcher])),
            Watchers::Many(many) => many.push(watcher),
        }
    }

    fn swap_remove(&mut self, at: usize) {
        match self {
            Watchers::Many(many) if many.len() > 1 => {
                many.swap_remove(at);
            }
            _ => *self = Watchers::None,
        }
    }
}

#[derive(Debug)]
struct PathEntry {
    path: Box<str>,
    watchers: Watchers,
}

#[derive(Debug)]
struct ConnEntry {
    id: ConnId,
    stamp: u64,
    paths: Set<u32>,
}

/// All watches of all connections.
#[derive(Debug)]
pub(in crate::tree) struct Watches {
    limits: WatchLimits,
    state: State,
    by_path: HashTable<u32>,
    paths: Vec<PathEntry>,
    free_paths: Vec<u32>,
    by_conn: Map<ConnId, u32>,
    conns: Vec<ConnEntry>,
    free_conns: Vec<u32>,
    stamp: u64,
    path_bytes: usize,
    pairs: usize,
    data_pairs: usize,
    child_pairs: usize,
    recursive_pairs: usize,
}

impl Watches {
    pub(in crate::tree) fn new(seed: u64, limits: WatchLimits) -> Watches {
        let state = maps::state(seed);
        Watches {
            limits,
            state,
            by_path: HashTable::new(),
            paths: Vec::new(),
            free_paths: Vec::new(),
            by_conn: Map::with_hasher(state),
            conns: Vec::new(),
            free_conns: Vec::new(),
            stamp: 0,
            path_bytes: 0,
            pairs: 0,
            data_pairs: 0,
            child_pairs: 0,
            recursive_pairs: 0,
        }
    }

    /// A one-shot watch.
    pub(in crate::tree) fn arm(&mut self, path: &str, table: Table, conn: ConnId) -> Result<(), WatchLimit> {
        self.add(path, table.one_shot(), conn)
    }

    /// A watch that stays.
    pub(in crate::tree) fn arm_for_good(
        &mut self,
        path: &str,
        mode: WatchMode,
        conn: ConnId,
    ) -> Result<(), WatchLimit> {
        match mode {
            WatchMode::Persistent => self.add(path, DATA_PERSISTENT | CHILD_PERSISTENT, conn),
            WatchMode::PersistentRecursive => self.add(path, DATA_RECURSIVE, conn),
        }
    }

    fn add(&mut self, path: &str, modes: u8, conn: ConnId) -> Result<(), WatchLimit> {
        let hash = maps::hash(&self.state, path);
        let (path_id, conn_id) = (self.path_id(hash, path), self.by_conn.get(&conn).copied());
        if let (Some(path_id), Some(conn_id)) = (path_id, conn_id)
            && self.conns[conn_id as usize].paths.contains(&path_id)
        {
            let at = self.position(path_id, conn_id);
            let old = self.paths[path_id as usize].watchers.as_slice()[at].modes;
            self.set_modes(path_id, at, old | modes);
            return Ok(());
        }
        self.check_limits(path, path_id.is_none(), conn_id)?;
        let path_id = path_id.unwrap_or_else(|| self.new_path(hash, path));
        let conn_id = conn_id.unwrap_or_else(|| self.new_conn(conn));
        self.paths[path_id as usize].watchers.push(Watcher { conn: conn_id, modes: 0 });
        self.conns[conn_id as usize].paths.insert(path_id);
        self.pairs += 1;
        let at = self.paths[path_id as usize].watchers.as_slice().len() - 1;
        self.set_modes(path_id, at, modes);
        Ok(())
    }

    fn check_limits(&self, path: &str, new_path: bool, conn_id: Option<u32>) -> Result<(), WatchLimit> {
        let WatchLimits { per_conn_max, total_max, path_bytes_max } = self.limits;
        let own = conn_id.map_or(0, |id| self.conns[id as usize].paths.len());
        if own >= per_conn_max {
            return Err(WatchLimit::PerConn { max: per_conn_max });
        }
        if self.pairs >= total_max {
            return Err(WatchLimit::Total { max: total_max });
        }
        if new_path && self.path_bytes + path.len() > path_bytes_max {
            return Err(WatchLimit::PathBytes { max: path_bytes_max });
        }
        Ok(())
    }

    fn path_id(&self, hash: u64, path: &str) -> Option<u32> {
        self.by_path.find(hash, |id| *self.paths[*id as usize].path == *path).copied()
    }

    fn new_path(&mut self, hash: u64, path: &str) -> u32 {
        let entry = PathEntry { path: path.into(), watchers: Watchers::None };
        self.path_bytes += path.len();
        let id = match self.free_paths.pop() {
            Some(id) => {
                self.paths[id as usize] = entry;
                id
            }
            None => {
                self.paths.push(entry);
                self.paths.len() as u32 - 1
            }
        };
        let (state, paths) = (&self.state, &self.paths);
        self.by_path.insert_unique(hash, id, |id| maps::hash(state, &*paths[*id as usize].path));
        id
    }

    fn new_conn(&mut self, conn: ConnId) -> u32 {
        let entry = ConnEntry { id: conn, stamp: 0, paths: Set::with_hasher(self.state) };
        let id = match self.free_conns.pop() {
            Some(id) => {
                self.conns[id as usize] = entry;
                id
            }
            None => {
                self.conns.push(entry);
                self.conns.len() as u32 - 1
            }
        };
        self.by_conn.insert(conn, id);
        id
    }

    fn position(&self, path_id: u32, conn_id: u32) -> usize {
        let watchers = self.paths[path_id as usize].watchers.as_slice();
        watchers.iter().position(|w| w.conn == conn_id).expect("both directions agree (W2)")
    }

    /// The one place where modes change: keeps the counters, and drops what has no mode left.
    fn set_modes(&mut self, path_id: u32, at: usize, modes: u8) {
        let watcher = &mut self.paths[path_id as usize].watchers.as_mut_slice()[at];
        let (old, conn_id) = (watcher.modes, watcher.conn);
        watcher.modes = modes;
        for (count, mask) in [
            (&mut self.data_pairs, DATA_ALL),
            (&mut self.child_pairs, CHILD_ALL),
            (&mut self.recursive_pairs, DATA_RECURSIVE),
        ] {
            *count = *count + usize::from(modes & mask != 0) - usize::from(old & mask != 0);
        }
        if modes == 0 {
            self.drop_pair(path_id, at, conn_id);
        }
    }

    fn drop_pair(&mut self, path_id: u32, at: usize, conn_id: u32) {
        self.pairs -= 1;
        let removed = self.conns[conn_id as usize].paths.remove(&path_id);
        assert!(removed, "both directions agree (W2)");
        let entry = &mut self.paths[path_id as usize];
        entry.watchers.swap_remove(at);
        if matches!(entry.watchers, Watchers::None) {
            self.drop_path(path_id);
        }
    }

    fn drop_path(&mut self, path_id: u32) {
        let path = std::mem::take(&mut self.paths[path_id as usize].path);
        self.path_bytes -= path.len();
        let hash = maps::hash(&self.state, &*path);
        match self.by_path.find_entry(hash, |id| *id == path_id) {
            Ok(entry) => entry.remove(),
            Err(_) => panic!("every path with watchers is in the table (W1)"),
        };
        self.free_paths.push(path_id);
    }

    /// True when nothing can fire.
    pub(in crate::tree) const fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// Uses up and collects, at the end of `out`, the connections that hear of `path` through `table`. With `told_already`,
    /// those told by the last call are used up but not collected again.
    pub(in crate::tree) fn trigger(
        &mut self,
        path: &str,
        table: Table,
        told_already: bool,
        out: &mut Vec<ConnId>,
    ) {
        if !told_already {
            self.stamp += 1;
        }
        // Nothing ever happens to "": the root's events are those of "/".
        if path.is_empty() || self.is_empty() {
            return;
        }
        if let Some(id) = self.path_id(maps::hash(&self.state, path), path) {
            self.trigger_at(id, table, out);
        }
        if table == Table::Data && self.recursive_pairs > 0 {
            self.trigger_above(path, out);
        }
    }

    fn trigger_at(&mut self, path_id: u32, table: Table, out: &mut Vec<ConnId>) {
        let mut at = 0;
        while let Some(watcher) = self.paths[path_id as usize].watchers.as_slice().get(at).copied() {
            if watcher.modes & table.all() == 0 {
                at += 1;
                continue;
            }
            self.tell(watcher.conn, out);
            let left = watcher.modes & !table.one_shot();
            if left != watcher.modes {
                self.set_modes(path_id, at, left);
            }
            // A dropped watcher leaves its place to another one.
            at += usize::from(left != 0);
        }
    }

    fn trigger_above(&mut self, path: &str, out: &mut Vec<ConnId>) {
        let mut below = path;
        while let Some(slash) = below.rfind('/').filter(|_| below != "/") {
            let parent = if slash == 0 { "/" } else { &below[..slash] };
            if let Some(id) = self.path_id(maps::hash(&self.state, parent), parent) {
                for at in 0..self.paths[id as usize].watchers.as_slice().len() {
                    let watcher = self.paths[id as usize].watchers.as_slice()[at];
                    if watcher.modes & DATA_RECURSIVE != 0 {
                        self.tell(watcher.conn, out);
                    }
                }
            }
            below = parent;
        }
    }

    fn tell(&mut self, conn_id: u32, out: &mut Vec<ConnId>) {
        let conn = &mut self.conns[conn_id as usize];
        if conn.stamp != self.stamp {
            conn.stamp = self.stamp;
            out.push(conn.id);
        }
    }

    fn modes(&self, path: &str, conn: ConnId) -> Option<(u32, usize, u8)> {
        let conn_id = *self.by_conn.get(&conn)?;
        let path_id = self.path_id(maps::hash(&self.state, path), path)?;
        if !self.conns[conn_id as usize].paths.contains(&path_id) {
            return None;
        }
        let at = self.position(path_id, conn_id);
        Some((path_id, at, self.paths[path_id as usize].watchers.as_slice()[at].modes))
    }

    /// Is there such a watch?
    pub(in crate::tree) fn check(&self, path: &str, kind: WatchKind, conn: ConnId) -> bool {
        self.modes(path, conn).is_some_and(|(_, _, modes)| modes & mask(kind) != 0)
    }

    /// Removes such watches; false if there were none.
    pub(in crate::tree) fn remove(&mut self, path: &str, kind: WatchKind, conn: ConnId) -> bool {
        let Some((path_id, at, modes)) = self.modes(path, conn) else { return false };
        if modes & mask(kind) == 0 {
            return false;
        }
        self.set_modes(path_id, at, modes & !mask(kind));
        true
    }

    /// Removes all watches of a connection.
    pub(in crate::tree) fn remove_conn(&mut self, conn: ConnId) {
        let Some(conn_id) = self.by_conn.remove(&conn) else { return };
        let paths: Vec<u32> = self.conns[conn_id as usize].paths.iter().copied().collect();
        for path_id in paths {
            let at = self.position(path_id, conn_id);
            self.set_modes(path_id, at, 0);
        }
        let entry = &mut self.conns[conn_id as usize];
        assert!(entry.paths.is_empty(), "a connection takes all its watches along");
        entry.paths = Set::with_hasher(self.state);
        self.free_conns.push(conn_id);
    }

    /// Watches of both tables.
    pub(in crate::tree) const fn count(&self) -> usize {
        self.data_pairs + self.child_pairs
    }

    /// Data table only, as `wchs` shows it. Walks the table.
    pub(in crate::tree) fn summary(&self) -> WatchSummary {
        let is_data = |w: &&Watcher| w.modes & DATA_ALL != 0;
        let mut conns = Set::with_hasher(self.state);
        let mut paths = 0;
        for entry in &self.paths {
            let before = paths;
            for watcher in entry.watchers.as_slice().iter().filter(is_data) {
                conns.insert(watcher.conn);
                paths = before + 1;
            }
        }
        WatchSummary { conns: conns.len(), paths, watches: self.data_pairs }
    }

    /// Shows each pair of the data table, those of one path together.
    pub(in crate::tree) fn pairs(&self, mut show: impl FnMut(&str, ConnId)) {
        for entry in &self.paths {
            for watcher in entry.watchers.as_slice().iter().filter(|w| w.modes & DATA_ALL != 0) {
                show(&entry.path, self.conns[watcher.conn as usize].id);
            }
        }
    }
}

const fn mask(kind: WatchKind) -> u8 {
    match kind {
        WatchKind::Children => CHILD,
        WatchKind::Data => DATA,
        WatchKind::Any => DATA_ALL | CHILD_ALL,
        WatchKind::Persistent => DATA_PERSISTENT | CHILD_PERSISTENT,
        WatchKind::PersistentRecursive => DATA_RECURSIVE,
    }
}
