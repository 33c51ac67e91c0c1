//! What a client watches: what it wants to hear of, over all its connections, and what the node of this connection has been told of it.

use std::collections::{BTreeSet, VecDeque};

use super::super::World;
use super::super::model::{Change, Nodes};
use crate::base::{ConnId, Zxid};
use crate::testing::world::body;
use crate::wire::OpCode;
use crate::wire::reply::{EventType, XID_SET_WATCHES};

/// A kind of watch, as clients keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum WatchOf {
    /// One-shot, of a node that was there.
    Data,
    /// One-shot, of a node that was not.
    Exist,
    /// One-shot, of a node's children.
    Child,
    Persistent,
    Recursive,
}

use WatchOf::{Child, Data, Exist, Persistent, Recursive};

impl WatchOf {
    pub(in super::super) const ALL: [WatchOf; 5] = [Data, Exist, Child, Persistent, Recursive];
}

/// Watches by kind.
#[derive(Debug, Default)]
pub(in super::super) struct Watches([BTreeSet<String>; 5]);

impl Watches {
    pub(in super::super) fn has(&self, kind: WatchOf, path: &str) -> bool {
        self.0[kind as usize].contains(path)
    }

    pub(in super::super) fn add(&mut self, kind: WatchOf, path: &str) {
        self.0[kind as usize].insert(path.to_owned());
    }

    pub(in super::super) fn remove(&mut self, kind: WatchOf, path: &str) -> bool {
        self.0[kind as usize].remove(path)
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeSet::is_empty)
    }

    /// All of a kind, in order.
    pub(in super::super) fn of(&self, kind: WatchOf) -> Vec<&str> {
        self.0[kind as usize].iter().map(String::as_str).collect()
    }

    /// Is one of them about this?
    pub(in super::super) fn hears(&self, event: EventType, path: &str) -> bool {
        let own: &[WatchOf] = match event {
            EventType::NodeChildrenChanged => return self.has(Child, path) || self.has(Persistent, path),
            EventType::NodeDeleted => &[Data, Exist, Child, Persistent],
            EventType::NodeCreated | EventType::NodeDataChanged => &[Data, Exist, Persistent],
        };
        own.iter().any(|kind| self.has(*kind, path)) || self.hears_from_above(path)
    }

    fn hears_from_above(&self, path: &str) -> bool {
        let recursive = &self.0[Recursive as usize];
        let is_above = |top: &str| {
            top == "/" || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        recursive.iter().any(|top| is_above(top))
    }

    /// An event uses up the one-shot watches that it is for.
    pub(in super::super) fn use_up(&mut self, event: EventType, path: &str) {
        let kinds: &[WatchOf] = match event {
            EventType::NodeChildrenChanged => &[Child],
            EventType::NodeDeleted => &[Data, Exist, Child],
            EventType::NodeCreated | EventType::NodeDataChanged => &[Data, Exist],
        };
        for kind in kinds {
            self.remove(*kind, path);
        }
    }
}

/// What a client watches.
#[derive(Debug, Default)]
pub(in super::super) struct Watching {
    /// On all its connections.
    pub(in super::super) wanted: Watches,
    /// On this one: as the history has it, not as the node has it.
    pub(in super::super) armed: Watches,
    /// An answer has come on this connection.
    pub(in super::super) begun: bool,
    /// How many of the changes of the history have been looked at for this connection.
    pub(in super::super) at: usize,
    /// Of them, those that the client must be told before anything later.
    pub(in super::super) due: VecDeque<Change>,
    /// Events without a zxid, which belong to the answer of a setWatches that comes behind them.
    pub(in super::super) caught_up: Vec<(EventType, String)>,
    /// The client only keeps its session alive.
    pub(in super::super) pings: bool,
}

impl Watching {
    /// Nobody knows on a new connection what was watched on the last one.
    pub(super) fn connected(&mut self) {
        self.armed = Watches::default();
        (self.at, self.begun) = (0, false);
        self.due.clear();
        self.caught_up.clear();
    }

    /// The history goes on to `zxid`: what the client must have heard by then is due.
    pub(in super::super) fn advance(&mut self, nodes: &Nodes, zxid: Zxid) {
        if !self.begun || self.armed.is_empty() {
            // Nothing could be heard of what was before.
            (self.at, self.begun) = (self.at.max(nodes.changes_upto(zxid)), true);
            return;
        }
        while let Some(change) = nodes.changes.get(self.at).filter(|change| change.zxid <= zxid) {
            self.at += 1;
            if self.armed.hears(change.event, &change.path) {
                self.armed.use_up(change.event, &change.path);
                self.due.push_back(change.clone());
            }
        }
    }
}

/// setWatches, the older request: without the lists of what stays.
fn set_watches(since: i64, [data, exist, child]: [&[&str]; 3]) -> Vec<u8> {
    let mut body = body::set_watches(since, [data, exist, child, &[], &[]]);
    body.truncate(body.len() - 8);
    body
}

impl World {
    /// CL4: in two requests, as Java's client does when there is much of it.
    pub(super) fn watch_again(&mut self, index: usize, to: (usize, ConnId)) {
        let wanted = &self.clients[index].watching.wanted;
        let since = self.clients[index].last.to_wire();
        let mut requests = Vec::new();
        let (data, exist, child) = (wanted.of(Data), wanted.of(Exist), wanted.of(Child));
        let (persistent, recursive) = (wanted.of(Persistent), wanted.of(Recursive));
        if persistent.is_empty() && recursive.is_empty() {
            if !wanted.is_empty() {
                requests.push((OpCode::SetWatches, set_watches(since, [&data, &exist, &child])));
            }
        } else {
            let half = data.len() / 2;
            if half > 0 {
                requests.push((OpCode::SetWatches, set_watches(since, [&data[..half], &[], &[]])));
            }
            let body = body::set_watches(since, [&data[half..], &exist, &child, &persistent, &recursive]);
            requests.push((OpCode::SetWatches2, body));
        }
        for (op, body) in requests {
            self.put_request(index, to, XID_SET_WATCHES, op, body);
        }
    }
}
