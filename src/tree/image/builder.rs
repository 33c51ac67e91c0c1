//! An image put together from whole nodes, parents before children, as ZooKeeper's stream of a snapshot brings them, and without a tree: what is
//! complete is handed on, chunk by chunk.
//!
//! - B1: what comes is not believed: a node without a parent, or beside one of its name, is refused and changes nothing. So an image whose
//!   nodes were all taken loads.
//! - B2: of a node that was taken no more is kept than 96 bits of a seeded hash of its path, and its slot. Among ten million paths that nobody
//!   chose to match, two of one hash are a matter of one in 10^15, and what comes of it is a refusal.
//! - B3: slots are given in the order of the nodes, without gaps. The header is known at the end.

use hashbrown::HashTable;

use super::super::loader::ImageNode;
use super::super::maps::{self, State};
use super::super::slab::{NIL, PAGE_SLOTS, PAGES_MAX};
use super::super::{ROOT, TreeOptions, acls, digest};
use super::{ChunkKind, HeaderFields, put_acl, put_header, put_node};
use crate::base::{SessionId, Zxid};
use crate::wire::{Acl, AclVec, StatPersisted, perms};

/// Tables of [`Places`]: growing one rehashes a thousandth of the nodes.
const SHARDS: usize = 1024;
/// Hash bits that choose the table: neither the low ones (bucket) nor the top seven (tag) of hashbrown.
const SHARD_SHIFT: u32 = 44;

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
    /// There is no room for its number.
    #[error("is one more than can be numbered")]
    Number,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ImageBuilder {
    options: TreeOptions,
    bytes_target: usize,
    /// Chunks in the making, by kind: ACLs, sessions, nodes.
    open: [(ChunkKind, Vec<u8>); 3],
    places: Places,
    /// Path and slot of the last node's parent, which is often the next one's as well.
    parent: (String, u32),
    nodes: u32,
    acls: u32,
    sessions: u32,
    data_bytes: u64,
    digest: u64,
}

impl ImageBuilder {
    /// Nothing but the open ACL. The options are those of the tree to be; `bytes_target` is about how long a chunk is.
    #[must_use]
    pub fn new(options: TreeOptions, bytes_target: usize) -> ImageBuilder {
        let kinds = [ChunkKind::Acls, ChunkKind::Sessions, ChunkKind::Nodes];
        let mut builder = ImageBuilder {
            options,
            bytes_target: bytes_target.max(1),
            open: kinds.map(|kind| (kind, Vec::new())),
            places: Places::new(options.seed),
            parent: (String::new(), ROOT),
            nodes: 0,
            acls: 0,
            sessions: 0,
            data_bytes: 0,
            digest: 0,
        };
        let open = acls::encode([Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") }]);
        let id = builder.acl(AclVec::of_encoded(&open));
        assert_eq!(id, ImageNode::ACL_OPEN, "the open ACL comes first");
        builder
    }

    /// Adds a session with its timeout in ms. The caller sees to it that none comes twice.
    pub fn session(&mut self, session: SessionId, timeout_ms: i32) {
        let out = self.chunk_of(ChunkKind::Sessions);
        out.extend_from_slice(&session.0.to_le_bytes());
        out.extend_from_slice(&timeout_ms.to_le_bytes());
        self.sessions += 1;
    }

    /// Adds a list, for [`ImageBuilder::node`].
    pub fn acl(&mut self, list: AclVec<'_>) -> u32 {
        let (id, mut bytes) = (self.acls, Vec::new());
        list.put(&mut bytes);
        put_acl(self.chunk_of(ChunkKind::Acls), id, &bytes);
        self.acls += 1;
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
        acl: u32,
        stat: &StatPersisted,
    ) -> Result<(), Misplaced> {
        assert!(acl < self.acls, "an ACL comes before its nodes");
        if self.nodes == PAGES_MAX * PAGE_SLOTS {
            return Err(Misplaced::Number);
        }
        let (parent, name) = self.place(path)?;
        let slot = self.nodes;
        if !self.places.insert(path, slot) {
            return Err(Misplaced::Twice);
        }
        let shown = if slot == ROOT { "/" } else { path };
        let crc = digest::content_crc(shown, data);
        if digest::counts(shown) {
            self.digest = self.digest.wrapping_add(u64::from(digest::node_digest(crc, stat)));
        }
        self.data_bytes += (shown.len() + data.map_or(0, <[u8]>::len)) as u64;
        self.nodes += 1;
        let node = ImageNode { slot, parent, acl, name: name.as_bytes(), data, stat: *stat };
        put_node(self.chunk_of(ChunkKind::Nodes), &node, crc);
        Ok(())
    }

    /// The parent's slot, and the name.
    fn place<'a>(&mut self, path: &'a str) -> Result<(u32, &'a str), Misplaced> {
        if self.nodes == 0 {
            return if path.is_empty() { Ok((NIL, "")) } else { Err(Misplaced::Path) };
        }
        if path.is_empty() {
            return Err(Misplaced::Twice);
        }
        let (above, name) = path.rsplit_once('/').ok_or(Misplaced::Path)?;
        if name.is_empty() {
            return Err(Misplaced::Path);
        }
        if above != self.parent.0 {
            self.parent.1 = self.places.find(above).ok_or(Misplaced::NoParent)?;
            self.parent.0.clear();
            self.parent.0.push_str(above);
        }
        Ok((self.parent.1, name))
    }

    fn chunk_of(&mut self, kind: ChunkKind) -> &mut Vec<u8> {
        let open = self.open.iter_mut().find(|(open, _)| *open == kind);
        &mut open.expect("every kind but the header").1
    }

    /// A chunk that is long enough, or with `rest` any that is left. It stays until [`ImageBuilder::taken`].
    #[must_use]
    pub fn chunk(&self, rest: bool) -> Option<(ChunkKind, &[u8])> {
        let least = if rest { 1 } else { self.bytes_target };
        self.open.iter().find(|(_, bytes)| bytes.len() >= least).map(|(kind, bytes)| (*kind, &bytes[..]))
    }

    /// The chunk of this kind is where it has to be.
    pub fn taken(&mut self, kind: ChunkKind) {
        self.chunk_of(kind).clear();
    }

    /// Bytes of [`ImageBuilder::header`].
    pub const HEADER_BYTES: usize = super::HEADER_BYTES;

    /// The chunk that belongs in front of all others, for the image as of `zxid`.
    #[must_use]
    pub fn header(&self, zxid: Zxid) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::HEADER_BYTES);
        let fields = HeaderFields {
            zxid,
            digest: self.digest,
            nodes: u64::from(self.nodes),
            data_bytes: self.data_bytes,
            counts: [self.nodes.div_ceil(PAGE_SLOTS), self.acls, self.sessions],
        };
        put_header(&mut out, &fields, &self.options, []);
        assert_eq!(out.len(), Self::HEADER_BYTES, "without a digest log");
        out
    }

    /// Digest of the tree it makes.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Nodes so far; the root counts once.
    #[must_use]
    pub const fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Is there a node at this path?
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.places.find(path).is_some()
    }
}

/// From paths to slots (B2).
#[derive(Debug)]
struct Places {
    states: [State; 2],
    shards: Box<[HashTable<Place>]>,
}

/// Sixteen bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash_high: u32,
    hash_low: u32,
    other: u32,
    slot: u32,
}

impl Place {
    const fn hash(&self) -> u64 {
        (self.hash_high as u64) << 32 | self.hash_low as u64
    }
}

impl Places {
    fn new(seed: u64) -> Places {
        Places {
            states: [maps::state(seed), maps::state(!seed)],
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
        }
    }

    fn place(&self, path: &str, slot: u32) -> Place {
        let [hash, other] = self.states.map(|state| maps::hash(&state, path.as_bytes()));
        Place { hash_high: (hash >> 32) as u32, hash_low: hash as u32, other: other as u32, slot }
    }

    fn find(&self, path: &str) -> Option<u32> {
        let wanted = self.place(path, NIL);
        let shard = &self.shards[shard(wanted.hash())];
        let is_it = |place: &Place| place.hash() == wanted.hash() && place.other == wanted.other;
        shard.find(wanted.hash(), is_it).map(|place| place.slot)
    }

    /// False if it is there.
    fn insert(&mut self, path: &str, slot: u32) -> bool {
        let new = self.place(path, slot);
        let shard = &mut self.shards[shard(new.hash())];
        let is_it = |place: &Place| place.hash() == new.hash() && place.other == new.other;
        if shard.find(new.hash(), is_it).is_some() {
            return false;
        }
        shard.insert_unique(new.hash(), new, Place::hash);
        true
    }
}

const fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::super::super::{AclId, Loader, Tree};
    use super::*;

    fn put(builder: &mut ImageBuilder, path: &str) -> Result<(), Misplaced> {
        builder.node(path, Some(b""), ImageNode::ACL_OPEN, &StatPersisted::default())
    }

    /// What the image loads as; chunks of which nothing was taken before.
    fn load(builder: &mut ImageBuilder, zxid: Zxid) -> Tree {
        let loader = Loader::new(TreeOptions::default());
        loader.chunk(ChunkKind::Header, &builder.header(zxid)).unwrap();
        while let Some((kind, bytes)) = builder.chunk(true) {
            loader.chunk(kind, bytes).unwrap();
            builder.taken(kind);
        }
        loader.finish().unwrap()
    }

    #[test]
    fn b1_what_hangs_on_nothing_or_is_there_is_refused_and_changes_nothing() {
        let mut builder = ImageBuilder::new(TreeOptions::default(), 64);
        assert_eq!(put(&mut builder, "/a"), Err(Misplaced::Path), "the root comes first");
        assert!(!builder.contains("/") && !builder.contains(""));
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
        let tree = load(&mut builder, Zxid(9));
        assert_eq!((tree.node_count(), tree.applied(), builder.nodes()), (7, Zxid(9), 6));
        assert!(tree.find("/a/b").is_some());
    }

    #[test]
    fn what_is_built_of_a_fresh_trees_nodes_is_a_fresh_tree() {
        let fresh = Tree::new(TreeOptions::default());
        let mut builder = ImageBuilder::new(TreeOptions::default(), 64);
        for path in ["", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            let node = fresh.find(path).unwrap();
            let acl = builder.acl(fresh.acl(node.acl_id()));
            builder.node(path, node.data(), acl, &node.persisted()).unwrap();
        }
        assert_eq!(builder.digest(), fresh.digest());
        let built = load(&mut builder, Zxid::ZERO);
        assert_eq!((built.digest(), built.counts()), (fresh.digest(), fresh.counts()));
        assert_eq!(built.find("/zookeeper/quota").unwrap().acl_id(), AclId::OPEN);
        let all: Vec<_> = built.find("/zookeeper").unwrap().children().collect();
        assert_eq!((all.len(), built.find("/").unwrap().descendants()), (2, 3));
    }

    #[test]
    fn a_list_that_no_node_has_goes_at_the_end() {
        let mut builder = ImageBuilder::new(TreeOptions::default(), 64);
        let list = acls::encode([]);
        builder.acl(AclVec::of_encoded(&list));
        put(&mut builder, "").unwrap();
        assert_eq!(load(&mut builder, Zxid::ZERO).counts().acls, 1);
    }

    #[test]
    fn chunks_are_handed_on_when_they_are_long_enough_and_the_rest_at_the_end() {
        let mut builder = ImageBuilder::new(TreeOptions::default(), 250);
        builder.session(SessionId(1), 5);
        put(&mut builder, "").unwrap();
        assert_eq!(builder.chunk(false), None);
        put(&mut builder, "/a").unwrap();
        put(&mut builder, "/a/b").unwrap();
        let (kind, bytes) = builder.chunk(false).expect("three nodes of 84 bytes and their names");
        assert_eq!((kind, bytes.len()), (ChunkKind::Nodes, 3 * 84 + 2));
        builder.taken(kind);
        let mut rest = Vec::new();
        while let Some((kind, _)) = builder.chunk(true) {
            rest.push(kind);
            builder.taken(kind);
        }
        assert_eq!(rest, [ChunkKind::Acls, ChunkKind::Sessions]);
    }
}
