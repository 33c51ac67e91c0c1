//! One node: a fixed-size part in the slab, and one allocation for its name and data.
//!
//! - N1: a node takes [`Node::BYTES`] bytes of slab and one exact allocation `[varint name length << 1 | has data] name data`.
//! - N2: children are a doubly linked list through the nodes themselves (`next`, `prev`): no container per node. Its head, and how much
//!   is below, is in [`super::families`] while there are children.
//! - N3: `content_crc` is [`super::digest::content_crc`] of the node's path and data at every moment, below `/zookeeper/` too.
//!
//! See `src/docs/tree.md`.

use std::fmt;

use super::slab::NIL;
use super::{AclId, Tree, TreeOptions, digest};
use crate::base::SessionId;
use crate::wire::txn::Lifetime;
use crate::wire::{Stat, StatPersisted};

/// The fixed part of a node.
#[derive(Debug)]
pub(super) struct Node {
    blob: Box<[u8]>,
    czxid: i64,
    mzxid: i64,
    pzxid: i64,
    ctime: i64,
    mtime: i64,
    owner: i64,
    version: i32,
    cversion: i32,
    aversion: i32,
    pub(super) acl: AclId,
    pub(super) content_crc: u32,
    pub(super) parent: u32,
    /// In [`super::families`]; [`NIL`] without children.
    pub(super) family: u32,
    pub(super) next: u32,
    pub(super) prev: u32,
    pub(super) child_count: u32,
}

impl Node {
    /// Bytes of one node in the slab.
    pub(super) const BYTES: usize = 104;

    /// A node without children, not linked to its siblings yet.
    pub(super) fn new(
        parent: u32,
        name: &[u8],
        data: Option<&[u8]>,
        acl: AclId,
        content_crc: u32,
        stat: &StatPersisted,
    ) -> Node {
        Node {
            blob: blob(name, data),
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            owner: stat.ephemeral_owner,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            acl,
            content_crc,
            parent,
            family: NIL,
            next: NIL,
            prev: NIL,
            child_count: 0,
        }
    }

    /// What stands in a free slot: `parent` marks it, `next` chains it. No allocation.
    pub(super) fn vacant(mark: u32, next: u32) -> Node {
        Node {
            blob: Box::default(),
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            owner: 0,
            version: 0,
            cversion: 0,
            aversion: 0,
            acl: AclId::OPEN,
            content_crc: 0,
            parent: mark,
            family: NIL,
            next,
            prev: NIL,
            child_count: 0,
        }
    }

    pub(super) fn set_data(&mut self, data: Option<&[u8]>) {
        let (head, name_len, has_data) = head(&self.blob);
        let start = head + name_len;
        match data {
            // The common case, a counter or a lock record of unchanged size: no allocation.
            Some(data) if has_data && self.blob.len() - start == data.len() => {
                self.blob[start..].copy_from_slice(data);
            }
            _ => self.blob = blob(&self.blob[head..start], data),
        }
    }

    pub(super) fn set_data_stat(&mut self, mzxid: i64, mtime: i64, version: i32) {
        (self.mzxid, self.mtime, self.version) = (mzxid, mtime, version);
    }

    pub(super) fn set_aversion(&mut self, aversion: i32) {
        self.aversion = aversion;
    }

    pub(super) fn set_cversion(&mut self, cversion: i32) {
        self.cversion = cversion;
    }

    pub(super) fn set_pzxid(&mut self, pzxid: i64) {
        self.pzxid = pzxid;
    }

    pub(super) fn name(&self) -> &[u8] {
        let (head, name_len, _) = head(&self.blob);
        &self.blob[head..head + name_len]
    }

    pub(super) fn data(&self) -> Option<&[u8]> {
        let (head, name_len, has_data) = head(&self.blob);
        has_data.then(|| &self.blob[head + name_len..])
    }

    pub(super) fn data_len(&self) -> usize {
        let (head, name_len, _) = head(&self.blob);
        self.blob.len() - head - name_len
    }

    pub(super) const fn cversion(&self) -> i32 {
        self.cversion
    }

    pub(super) const fn czxid(&self) -> i64 {
        self.czxid
    }

    pub(super) const fn mzxid(&self) -> i64 {
        self.mzxid
    }

    pub(super) const fn pzxid(&self) -> i64 {
        self.pzxid
    }

    pub(super) const fn owner_raw(&self) -> i64 {
        self.owner
    }

    pub(super) const fn persisted(&self) -> StatPersisted {
        StatPersisted {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion,
            aversion: self.aversion,
            ephemeral_owner: self.owner,
            pzxid: self.pzxid,
        }
    }

    pub(super) fn stat(&self, options: &TreeOptions) -> Stat {
        let children = self.child_count as i32;
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(children),
            aversion: self.aversion,
            ephemeral_owner: match Owner::decode(self.owner, options) {
                Owner::Ephemeral(session) => session.0,
                _ => 0,
            },
            data_length: self.data_len() as i32,
            num_children: children,
            pzxid: self.pzxid,
        }
    }

    /// What the node adds to the tree's digest, if its path counts.
    pub(super) fn digest(&self) -> u32 {
        digest::node_digest(self.content_crc, &self.persisted())
    }
}

const _: () = assert!(size_of::<Node>() == Node::BYTES, "1 M nodes must stay near 100 MB of slab");

fn blob(name: &[u8], data: Option<&[u8]>) -> Box<[u8]> {
    let mut head = (name.len() << 1) | usize::from(data.is_some());
    let head_len = (usize::BITS - head.leading_zeros()).div_ceil(7).max(1) as usize;
    let data = data.unwrap_or_default();
    let mut out = Vec::with_capacity(head_len + name.len() + data.len());
    while head >= 0x80 {
        out.push(head as u8 | 0x80);
        head >>= 7;
    }
    out.push(head as u8);
    out.extend_from_slice(name);
    out.extend_from_slice(data);
    debug_assert_eq!(out.len(), out.capacity(), "one exact allocation");
    out.into_boxed_slice()
}

/// Length of the head, length of the name, is there data? Vacant nodes have no blob: all zero.
fn head(blob: &[u8]) -> (usize, usize, bool) {
    let mut v = 0;
    for (i, byte) in blob.iter().enumerate() {
        v |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return (i + 1, v >> 1, v & 1 == 1);
        }
    }
    (0, 0, false)
}

/// What decides about a node's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nothing: deleted by clients only.
    Persistent,
    /// The session.
    Ephemeral(SessionId),
    /// Its last child.
    Container,
    /// Time without change and children, ms.
    Ttl(i64),
}

/// `ephemeralOwner` of a container.
const OWNER_CONTAINER: i64 = i64::MIN;
/// Top byte of the `ephemeralOwner` of a TTL node.
const OWNER_TTL: i64 = 0xff << 56;
/// Bits between the top byte and the ttl: kinds of extended owners; all zero is TTL.
const OWNER_KIND_MASK: i64 = 0xffff << 40;
/// Largest ttl, ms.
const TTL_MS_MAX: i64 = (1 << 40) - 1;

impl Owner {
    /// From `ephemeralOwner`, as the options read it.
    pub(super) const fn decode(owner: i64, options: &TreeOptions) -> Owner {
        match owner {
            0 => Owner::Persistent,
            OWNER_CONTAINER => Owner::Container,
            _ if options.extended_types && owner & (OWNER_TTL | OWNER_KIND_MASK) == OWNER_TTL => {
                Owner::Ttl(owner & TTL_MS_MAX)
            }
            _ if options.extended_types && options.emulate_353_ttl && owner < 0 => {
                Owner::Ttl(owner & TTL_MS_MAX)
            }
            _ => Owner::Ephemeral(SessionId(owner)),
        }
    }

    /// `ephemeralOwner` of a node that `session` makes.
    #[must_use]
    pub const fn encode(lifetime: Lifetime, session: i64) -> i64 {
        match lifetime {
            Lifetime::Persistent => 0,
            Lifetime::Ephemeral => session,
            Lifetime::Container => OWNER_CONTAINER,
            Lifetime::Ttl(ms) => OWNER_TTL | (ms & TTL_MS_MAX),
        }
    }
}

/// A node of a tree that is borrowed.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    pub(super) tree: &'a Tree,
    pub(super) slot: u32,
}

impl fmt::Debug for NodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeRef({:?} {:?})", self.path(), self.persisted())
    }
}

impl<'a> NodeRef<'a> {
    fn node(&self) -> &'a Node {
        self.tree.slab.get(self.slot)
    }

    /// As clients see it.
    #[must_use]
    pub fn stat(&self) -> Stat {
        self.node().stat(&self.tree.options)
    }

    /// As it is kept.
    #[must_use]
    pub fn persisted(&self) -> StatPersisted {
        self.node().persisted()
    }

    /// Last element of the path; empty for the root.
    #[must_use]
    pub fn name(&self) -> &'a str {
        text(self.node().name())
    }

    /// `None` is null, which is not empty.
    #[must_use]
    pub fn data(&self) -> Option<&'a [u8]> {
        self.node().data()
    }

    /// Number of children.
    #[must_use]
    pub fn child_count(&self) -> u32 {
        self.node().child_count
    }

    /// CRC-32 of path and data: [`digest::content_crc`].
    #[must_use]
    pub fn content_crc(&self) -> u32 {
        self.node().content_crc
    }

    /// For [`Tree::acl`].
    #[must_use]
    pub fn acl_id(&self) -> AclId {
        self.node().acl
    }

    /// What decides about its end.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::decode(self.node().owner, &self.tree.options)
    }

    /// Names of the children, in no order.
    pub fn children(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.child_nodes().map(|child| child.name())
    }

    /// The children, in no order.
    pub fn child_nodes(&self) -> impl Iterator<Item = NodeRef<'a>> + use<'a> {
        let tree = self.tree;
        let first = tree.first_child(self.slot);
        std::iter::successors((first != NIL).then_some(first), move |slot| {
            let next = tree.slab.get(*slot).next;
            (next != NIL).then_some(next)
        })
        .map(move |slot| NodeRef { tree, slot })
    }

    /// Number of all nodes below. O(1).
    #[must_use]
    pub fn descendants(&self) -> u64 {
        u64::from(self.tree.below(self.slot).0)
    }

    /// Full path; "/" for the root.
    #[must_use]
    pub fn path(&self) -> String {
        self.tree.path_of(self.slot)
    }
}

/// Names come out of strings, live or loaded, and are checked on the way in.
pub(super) fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect("names are checked when nodes are made")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_data_come_back_for_every_length_of_head() {
        for name_len in [0, 1, 62, 63, 64, 8190, 8191, 8192, 1 << 20] {
            let name = vec![b'n'; name_len];
            for data in [None, Some(&b""[..]), Some(&b"data"[..])] {
                let mut node = Node::new(0, &name, data, AclId::OPEN, 0, &StatPersisted::default());
                assert_eq!((node.name(), node.data()), (&name[..], data));
                for data in [None, Some(&b"same"[..]), Some(&b"nine byte"[..]), Some(&b""[..])] {
                    node.set_data(data);
                    assert_eq!((node.name(), node.data()), (&name[..], data));
                    assert_eq!(node.data_len(), data.map_or(0, <[u8]>::len));
                }
            }
        }
    }

    #[test]
    fn owners_are_read_as_the_options_say() {
        let plain = TreeOptions::default();
        let extended = TreeOptions { extended_types: true, ..plain };
        let emulate = TreeOptions { emulate_353_ttl: true, ..extended };
        let ttl = Owner::encode(Lifetime::Ttl(77), 5);
        assert_eq!(ttl, 0xff00_0000_0000_004d_u64 as i64);
        assert_eq!(Owner::decode(ttl, &extended), Owner::Ttl(77));
        assert_eq!(Owner::decode(ttl, &plain), Owner::Ephemeral(SessionId(ttl)));
        let old_ttl = i64::MIN | 99;
        assert_eq!(Owner::decode(old_ttl, &emulate), Owner::Ttl(99));
        assert_eq!(Owner::decode(old_ttl, &extended), Owner::Ephemeral(SessionId(old_ttl)));
        for options in [plain, extended, emulate] {
            assert_eq!(Owner::decode(0, &options), Owner::Persistent);
            assert_eq!(Owner::decode(Owner::encode(Lifetime::Container, 5), &options), Owner::Container);
            assert_eq!(
                Owner::decode(Owner::encode(Lifetime::Ephemeral, 5), &options),
                Owner::Ephemeral(SessionId(5))
            );
        }
    }
}
