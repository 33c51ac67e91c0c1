//! The model: whole nodes by path.

use std::collections::{BTreeMap, BTreeSet};

use zabra::base::{SessionId, WallMs};
use zabra::tree::{ChunkKind, NodeRef, Owner, Tree, digest};
use zabra::wire::txn::Lifetime;
use zabra::wire::{Stat, StatPersisted};

/// A node, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MNode {
    pub(crate) data: Option<Vec<u8>>,
    /// `vector<ACL>` as on the wire.
    pub(crate) acl: Vec<u8>,
    pub(crate) stat: StatPersisted,
}

/// A change, with results in it as a transaction has them.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        path: String,
        data: Option<Vec<u8>>,
        acl: Vec<u8>,
        lifetime: Lifetime,
        parent_cversion: i32,
    },
    Delete {
        path: String,
    },
    SetData {
        path: String,
        data: Option<Vec<u8>>,
        version: i32,
    },
    SetAcl {
        path: String,
        acl: Vec<u8>,
        version: i32,
    },
    CreateSession {
        timeout_ms: i32,
    },
    /// With the list or without.
    CloseSession {
        paths: Option<Vec<String>>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<String, MNode>,
    pub(crate) sessions: BTreeMap<i64, i32>,
    pub(crate) zxid: i64,
    pub(crate) digest_log: Vec<(u64, u64)>,
}

pub(crate) fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(at) => &path[..at],
        None => panic!("{path} is no path"),
    }
}

fn acl_of(perms: i32) -> Vec<u8> {
    let mut out = Vec::new();
    let entry = zabra::wire::Acl { perms, scheme: Some("world"), id: Some("anyone") };
    zabra::wire::put_acl_vec(&mut out, [entry]);
    out
}

impl Model {
    pub(crate) fn new() -> Model {
        let mut nodes = BTreeMap::new();
        let node = |aversion, perms| MNode {
            data: Some(Vec::new()),
            acl: acl_of(perms),
            stat: StatPersisted { aversion, ..StatPersisted::default() },
        };
        for path in ["/", "/zookeeper", "/zookeeper/quota"] {
            nodes.insert(path.to_owned(), node(0, 31));
        }
        nodes.insert("/zookeeper/config".to_owned(), node(-1, 1));
        Model { nodes, sessions: BTreeMap::new(), zxid: 0, digest_log: Vec::new() }
    }

    pub(crate) fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        self.nodes.keys().filter_map(move |key| {
            let name = key.strip_prefix(&*prefix)?;
            (!name.is_empty() && !name.contains('/')).then_some(name)
        })
    }

    pub(crate) fn ephemerals(&self, session: i64) -> Vec<String> {
        let own = self.nodes.iter().filter(|(_, node)| node.stat.ephemeral_owner == session);
        own.map(|(path, _)| path.clone()).collect()
    }

    pub(crate) fn apply(&mut self, op: &Op, session: i64, zxid: i64, time: i64) {
        match op {
            Op::Create { path, data, acl, lifetime, parent_cversion } => {
                let parent = self.nodes.get_mut(parent_of(path)).unwrap();
                if *parent_cversion > parent.stat.cversion {
                    (parent.stat.cversion, parent.stat.pzxid) = (*parent_cversion, zxid);
                }
                let stat = StatPersisted {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ctime: time,
                    mtime: time,
                    ephemeral_owner: match lifetime {
                        Lifetime::Persistent => 0,
                        Lifetime::Ephemeral => session,
                        Lifetime::Container => i64::MIN,
                        Lifetime::Ttl(ms) => (0xff << 56) | ms,
                    },
                    ..StatPersisted::default()
                };
                self.nodes.insert(path.clone(), MNode { data: data.clone(), acl: acl.clone(), stat });
                self.recount(path);
                self.count_quota(path, 1, data.as_ref().map_or(0, Vec::len) as i64);
            }
            Op::Delete { path } => {
                let node = self.nodes.remove(path).unwrap();
                let parent = self.nodes.get_mut(parent_of(path)).unwrap();
                parent.stat.pzxid = parent.stat.pzxid.max(zxid);
                self.count_quota(path, -1, -(node.data.map_or(0, |data| data.len()) as i64));
            }
            Op::SetData { path, data, version } => {
                let node = self.nodes.get_mut(path).unwrap();
                let old = std::mem::replace(&mut node.data, data.clone());
                (node.stat.mzxid, node.stat.mtime, node.stat.version) = (zxid, time, *version);
                let len = |data: &Option<Vec<u8>>| data.as_ref().map_or(0, Vec::len) as i64;
                self.count_quota(path, 0, len(data) - len(&old));
            }
            Op::SetAcl { path, acl, version } => {
                let node = self.nodes.get_mut(path).unwrap();
                (node.acl, node.stat.aversion) = (acl.clone(), *version);
            }
            Op::CreateSession { timeout_ms } => {
                self.sessions.insert(session, *timeout_ms);
            }
            Op::CloseSession { .. } => {
                self.sessions.remove(&session);
                for path in self.ephemerals(session) {
                    self.apply(&Op::Delete { path }, session, zxid, time);
                }
            }
        }
    }

    pub(crate) fn quota_roots(&self) -> Vec<String> {
        let limits = self.nodes.keys().filter_map(|path| path.strip_suffix("/zookeeper_limits"));
        limits.filter_map(|path| path.strip_prefix("/zookeeper/quota")).map(str::to_owned).collect()
    }

    fn deepest_quota(&self, path: &str) -> Option<String> {
        let at_or_below = |root: &String| path == root || path.starts_with(&format!("{root}/"));
        self.quota_roots().into_iter().filter(at_or_below).max_by_key(String::len)
    }

    fn count_quota(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(root) = self.deepest_quota(path) else { return };
        let Some(node) = self.nodes.get_mut(&format!("/zookeeper/quota{root}/zookeeper_stats")) else {
            return;
        };
        let text = String::from_utf8(node.data.clone().unwrap()).unwrap();
        let (c, b) = text.strip_prefix("count=").unwrap().split_once(",bytes=").unwrap();
        let (c, b): (i64, i64) = (c.parse().unwrap(), b.parse().unwrap());
        node.data = Some(format!("count={},bytes={}", c + count, b + bytes).into_bytes());
    }

    fn recount(&mut self, created: &str) {
        let Some(top) = created.strip_suffix("/zookeeper_stats") else { return };
        let Some(root) = top.strip_prefix("/zookeeper/quota") else { return };
        let below =
            self.nodes.iter().filter(|(path, _)| *path == root || path.starts_with(&format!("{root}/")));
        let (count, bytes) = below.fold((0, 0), |(count, bytes), (_, node)| {
            (count + 1, bytes + node.data.as_ref().map_or(0, Vec::len))
        });
        let node = self.nodes.get_mut(created).unwrap();
        node.data = Some(format!("count={count},bytes={bytes}").into_bytes());
    }

    pub(crate) fn digest(&self) -> u64 {
        let counted = self.nodes.iter().filter(|(path, _)| !path.starts_with("/zookeeper/"));
        counted.fold(0, |sum: u64, (path, node)| {
            let crc = digest::content_crc(path, node.data.as_deref());
            sum.wrapping_add(digest::node_digest(crc, &node.stat).into())
        })
    }

    fn data_bytes(&self) -> u64 {
        self.nodes
            .iter()
            .map(|(path, node)| path.len() + node.data.as_ref().map_or(0, Vec::len))
            .sum::<usize>() as u64
    }

    pub(crate) fn dump(&self) -> Dump {
        let stat = |path: &str, node: &MNode| {
            let children = self.children(path).count() as i32;
            let StatPersisted { czxid, mzxid, ctime, mtime, version, aversion, pzxid, .. } = node.stat;
            let owner = node.stat.ephemeral_owner;
            Stat {
                czxid,
                mzxid,
                ctime,
                mtime,
                version,
                cversion: 2 * node.stat.cversion - children,
                aversion,
                ephemeral_owner: if owner > 0 { owner } else { 0 },
                data_length: node.data.as_ref().map_or(0, Vec::len) as i32,
                num_children: children,
                pzxid,
            }
        };
        let empty = |path: &str| self.children(path).next().is_none();
        let reapable = self.nodes.iter().filter(|(path, node)| node.stat.ephemeral_owner < 0 && empty(path));
        let mut ephemerals = BTreeMap::<i64, BTreeSet<String>>::new();
        for (path, node) in self.nodes.iter().filter(|(_, node)| node.stat.ephemeral_owner > 0) {
            ephemerals.entry(node.stat.ephemeral_owner).or_default().insert(path.clone());
        }
        let acls: BTreeSet<&[u8]> = self.nodes.values().map(|node| &node.acl[..]).collect();
        Dump {
            nodes: self
                .nodes
                .iter()
                .map(|(path, node)| (path.clone(), (node.clone(), stat(path, node))))
                .collect(),
            sessions: self.sessions.clone(),
            ephemerals,
            reapable: reapable.map(|(path, _)| path.clone()).collect(),
            quota_roots: self.quota_roots().into_iter().collect(),
            digest: self.digest(),
            zxid: self.zxid,
            data_bytes: self.data_bytes(),
            acls: acls.len(),
            digest_log: self.digest_log.clone(),
        }
    }

    /// An image, written by the book (`src/docs/tree.md`). Slots as in depth-first order.
    pub(crate) fn image(&self) -> Vec<(ChunkKind, Vec<u8>)> {
        let slots: BTreeMap<&str, u32> =
            self.nodes.keys().enumerate().map(|(slot, path)| (&**path, slot as u32)).collect();
        let acls: BTreeSet<&[u8]> = self.nodes.values().map(|node| &node.acl[..]).collect();
        let acls: BTreeMap<&[u8], u32> = acls.into_iter().zip(1000..).collect();
        let mut header = 1u32.to_le_bytes().to_vec();
        for v in [self.zxid as u64, self.digest(), self.nodes.len() as u64, self.data_bytes()] {
            header.extend(v.to_le_bytes());
        }
        for v in [1, acls.len(), self.sessions.len(), 1, 0] {
            header.extend((v as u32).to_le_bytes());
        }
        let (mut acl_chunk, mut sessions, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        for (list, id) in &acls {
            acl_chunk.extend(id.to_le_bytes());
            acl_chunk.extend((list.len() as u32).to_le_bytes());
            acl_chunk.extend(*list);
        }
        for (session, timeout_ms) in &self.sessions {
            sessions.extend(session.to_le_bytes());
            sessions.extend(timeout_ms.to_le_bytes());
        }
        for (path, node) in &self.nodes {
            let (parent, name) = if path == "/" {
                (u32::MAX, "")
            } else {
                (slots[parent_of(path)], &path[path.rfind('/').unwrap() + 1..])
            };
            let crc = digest::content_crc(path, node.data.as_deref());
            for v in [slots[&**path], parent, acls[&node.acl[..]], crc] {
                nodes.extend(v.to_le_bytes());
            }
            let s = &node.stat;
            for v in [s.czxid, s.mzxid, s.pzxid, s.ctime, s.mtime, s.ephemeral_owner] {
                nodes.extend(v.to_le_bytes());
            }
            for v in [s.version, s.cversion, s.aversion] {
                nodes.extend(v.to_le_bytes());
            }
            nodes.extend((name.len() as u32).to_le_bytes());
            nodes.extend(node.data.as_ref().map_or(u32::MAX, |data| data.len() as u32).to_le_bytes());
            nodes.extend(name.as_bytes());
            nodes.extend(node.data.as_deref().unwrap_or_default());
        }
        vec![
            (ChunkKind::Header, header),
            (ChunkKind::Sessions, sessions),
            (ChunkKind::Nodes, nodes),
            (ChunkKind::Acls, acl_chunk),
        ]
    }
}

/// Everything that can be seen of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dump {
    pub(crate) nodes: BTreeMap<String, (MNode, Stat)>,
    pub(crate) sessions: BTreeMap<i64, i32>,
    pub(crate) ephemerals: BTreeMap<i64, BTreeSet<String>>,
    pub(crate) reapable: BTreeSet<String>,
    pub(crate) quota_roots: BTreeSet<String>,
    pub(crate) digest: u64,
    pub(crate) zxid: i64,
    pub(crate) data_bytes: u64,
    pub(crate) acls: usize,
    pub(crate) digest_log: Vec<(u64, u64)>,
}

impl Dump {
    pub(crate) fn of(tree: &Tree) -> Dump {
        let mut nodes = BTreeMap::new();
        let mut todo = vec![tree.find("/").unwrap()];
        while let Some(node) = todo.pop() {
            let path = node.path();
            check_node(tree, &path, node);
            let mut acl = Vec::new();
            tree.acl(node.acl_id()).put(&mut acl);
            let whole = MNode { data: node.data().map(<[u8]>::to_vec), acl, stat: node.persisted() };
            assert!(nodes.insert(path, (whole, node.stat())).is_none());
            todo.extend(node.child_nodes());
        }
        let mut ephemerals = BTreeMap::<i64, BTreeSet<String>>::new();
        for session in tree.ephemeral_owners() {
            tree.ephemeral_paths(session, |path| {
                assert!(ephemerals.entry(session.0).or_default().insert(path.to_owned()));
            });
            assert_eq!(tree.ephemeral_count(session), ephemerals[&session.0].len());
        }
        let counts = tree.counts();
        assert_eq!(counts.nodes, nodes.len() + 1);
        assert_eq!(counts.ephemerals, ephemerals.values().map(BTreeSet::len).sum::<usize>());
        assert_eq!(counts.sessions, tree.sessions().count());
        check_descendants(tree, nodes.keys());
        Dump {
            nodes,
            sessions: tree.sessions().map(|(session, timeout_ms)| (session.0, timeout_ms)).collect(),
            ephemerals,
            reapable: tree.reapable(WallMs(i64::MAX), 1).into_iter().collect(),
            quota_roots: tree.quotas().map(|quota| quota.path.to_owned()).collect(),
            digest: tree.digest(),
            zxid: tree.applied().to_wire(),
            data_bytes: tree.data_bytes(),
            // The open ACL is always there; the model counts it when a node has it, and the fresh nodes do.
            acls: counts.acls,
            digest_log: tree.digest_log().map(|(zxid, digest)| (zxid.0, digest)).collect(),
        }
    }
}

/// The numbers of nodes below that the tree keeps are those that are there.
fn check_descendants<'a>(tree: &Tree, paths: impl Iterator<Item = &'a String>) {
    let mut below = BTreeMap::<&str, u64>::new();
    for path in paths.filter(|path| *path != "/") {
        let parents = path.match_indices('/').map(|(at, _)| if at == 0 { "/" } else { &path[..at] });
        parents.for_each(|parent| *below.entry(parent).or_default() += 1);
        below.entry(path).or_default();
    }
    for (path, number) in below {
        assert_eq!(tree.find(path).unwrap().descendants(), number, "below {path}");
    }
}

fn check_node(tree: &Tree, path: &str, node: NodeRef<'_>) {
    assert_eq!(node.content_crc(), digest::content_crc(path, node.data()), "{path}");
    assert_eq!(tree.find(path).unwrap().persisted(), node.persisted(), "{path} is found");
    assert_eq!(node.children().count(), node.child_count() as usize);
    match node.owner() {
        Owner::Ephemeral(SessionId(session)) => assert_eq!(node.stat().ephemeral_owner, session),
        _ => assert_eq!(node.stat().ephemeral_owner, 0),
    }
}
