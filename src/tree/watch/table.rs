//! The watch table: ZooKeeper's two tables (data and children) in one.
//!
//! - W1: one entry per (path, connection), a byte of modes in it; the path is stored once, whoever watches it. Paths need not be
//!   nodes, nor even well formed.
//! - W2: from a connection to its paths and back: removing a connection costs what it watches, not what there is.
//! - W3: a trigger tells each connection once: each carries the stamp of the last trigger that told it.
//! - W4: parents are looked up only while there is a recursive watch.
//! - W5: the limits hold; re-arming what is there already never breaks them.
//! - W6: nothing here takes long at once: tables grow by a small part at a time, the watches of a connection go in steps, walks come in
//!   steps, and what `wchs` says is counted all along.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use hashbrown::HashTable;

use super::{WatchKind, WatchLimit, WatchLimits, WatchMode, WatchSummary};
use crate::base::ConnId;
use crate::tree::maps::{self, Map, State};

/// Watchers looked at in one step of a removal or a walk: about 200 µs.
const WATCHERS_PER_STEP_MAX: usize = 1024;

/// Tables of paths, by hash bits: one table of millions would stop everybody for as long as it takes to grow.
const SHARDS: usize = 256;
/// Hash bits that choose the table: neither the low ones (bucket) nor the top seven (tag) of hashbrown.
const SHARD_SHIFT: u32 = 44;

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

impl Watcher {
    const fn is_data(self) -> bool {
        self.modes & DATA_ALL != 0
    }
}

/// The watchers of a path: nearly always one.
#[derive(Debug)]
enum Watchers {
    None,
    One(Watcher),
    // Boxed so that the usual case stays at 16 bytes.
    Many(Box<Crowd>),
}

#[derive(Debug)]
struct Crowd {
    list: Vec<Watcher>,
    /// How many of them are in the data table.
    data: usize,
}

impl Watchers {
    fn as_slice(&self) -> &[Watcher] {
        match self {
            Watchers::None => &[],
            Watchers::One(one) => std::slice::from_ref(one),
            Watchers::Many(crowd) => &crowd.list,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Watcher] {
        match self {
            Watchers::None => &mut [],
            Watchers::One(one) => std::slice::from_mut(one),
            Watchers::Many(crowd) => &mut crowd.list,
        }
    }

    /// Is one of them in the data table?
    fn has_data(&self) -> bool {
        match self {
            Watchers::None => false,
            Watchers::One(one) => one.is_data(),
            Watchers::Many(crowd) => crowd.data > 0,
        }
    }

    /// Gives the watcher at `at` other modes.
    fn set(&mut self, at: usize, modes: u8) {
        let watcher = &mut self.as_mut_slice()[at];
        let was = watcher.is_data();
        watcher.modes = modes;
        let is = watcher.is_data();
        if let Watchers::Many(crowd) = self {
            crowd.data = crowd.data + usize::from(is) - usize::from(was);
        }
    }

    /// Adds one without a mode.
    fn push(&mut self, conn: u32) {
        let watcher = Watcher { conn, modes: 0 };
        match self {
            Watchers::None => *self = Watchers::One(watcher),
            Watchers::One(one) => {
                let data = usize::from(one.is_data());
                *self = Watchers::Many(Box::new(Crowd { list: vec![*one, watcher], data }));
            }
            Watchers::Many(crowd) => crowd.list.push(watcher),
        }
    }

    /// Removes one that has no mode any more.
    fn swap_remove(&mut self, at: usize) {
        debug_assert_eq!(self.as_slice()[at].modes, 0, "or `data` would be wrong");
        match self {
            Watchers::Many(crowd) if crowd.list.len() > 1 => {
                crowd.list.swap_remove(at);
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
    /// Ordered, because a large one is taken apart in steps, and grows without copying all there is.
    paths: BTreeSet<u32>,
    /// How many of its pairs are in the data table.
    data_pairs: usize,
}

/// All watches of all connections.
#[derive(Debug)]
pub(in crate::tree) struct Watches {
    limits: WatchLimits,
    state: State,
    by_path: Box<[HashTable<u32>]>,
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
    /// Paths and connections in the data table.
    data_paths: usize,
    data_conns: usize,
}

impl Watches {
    pub(in crate::tree) fn new(seed: u64, limits: WatchLimits) -> Watches {
        let state = maps::state(seed);
        Watches {
            limits,
            state,
            by_path: (0..SHARDS).map(|_| HashTable::new()).collect(),
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
            data_paths: 0,
            data_conns: 0,
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
        self.paths[path_id as usize].watchers.push(conn_id);
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
        self.by_path[shard(hash)].find(hash, |id| *self.paths[*id as usize].path == *path).copied()
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
        self.by_path[shard(hash)].insert_unique(hash, id, |id| maps::hash(state, &*paths[*id as usize].path));
        id
    }

    fn new_conn(&mut self, conn: ConnId) -> u32 {
        let entry = ConnEntry { id: conn, stamp: 0, paths: BTreeSet::new(), data_pairs: 0 };
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
        let watchers = &mut self.paths[path_id as usize].watchers;
        let Watcher { conn: conn_id, modes: old } = watchers.as_slice()[at];
        let had_data = watchers.has_data();
        watchers.set(at, modes);
        let (has_data, conn) = (watchers.has_data(), &mut self.conns[conn_id as usize]);
        let conn_had_data = conn.data_pairs > 0;
        conn.data_pairs =
            conn.data_pairs + usize::from(modes & DATA_ALL != 0) - usize::from(old & DATA_ALL != 0);
        self.data_paths = self.data_paths + usize::from(has_data) - usize::from(had_data);
        self.data_conns = self.data_conns + usize::from(conn.data_pairs > 0) - usize::from(conn_had_data);
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
        match self.by_path[shard(hash)].find_entry(hash, |id| *id == path_id) {
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

    /// Removes some of the watches of a connection; false when none is left.
    pub(in crate::tree) fn remove_conn_step(&mut self, conn: ConnId) -> bool {
        let Some(conn_id) = self.by_conn.get(&conn).copied() else { return false };
        let mut looked_at = 0;
        while looked_at < WATCHERS_PER_STEP_MAX {
            let Some(path_id) = self.conns[conn_id as usize].paths.first().copied() else {
                self.by_conn.remove(&conn);
                self.free_conns.push(conn_id);
                return false;
            };
            let at = self.position(path_id, conn_id);
            looked_at += at + 1;
            self.set_modes(path_id, at, 0);
        }
        true
    }

    /// Watches of both tables.
    pub(in crate::tree) const fn count(&self) -> usize {
        self.data_pairs + self.child_pairs
    }

    /// Data table only, as `wchs` shows it.
    pub(in crate::tree) const fn summary(&self) -> WatchSummary {
        WatchSummary { conns: self.data_conns, paths: self.data_paths, watches: self.data_pairs }
    }

    /// Shows some pairs of the data table, those of one path together, from place `from` on (0 first). Returns the place to go on
    /// from; `None` at the end, or when `show` has enough.
    pub(in crate::tree) fn pairs_step(
        &self,
        from: usize,
        mut show: impl FnMut(&str, ConnId) -> ControlFlow<()>,
    ) -> Option<usize> {
        let mut looked_at = 0;
        for (at, entry) in self.paths.iter().enumerate().skip(from) {
            if looked_at >= WATCHERS_PER_STEP_MAX {
                return Some(at);
            }
            let watchers = entry.watchers.as_slice();
            looked_at += 1 + watchers.len();
            for watcher in watchers.iter().filter(|w| w.is_data()) {
                if show(&entry.path, self.conns[watcher.conn as usize].id).is_break() {
                    return None;
                }
            }
        }
        None
    }
}

const fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
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
