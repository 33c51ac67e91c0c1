//! Sending: from an exact image of the tree to the stream, step by step while transactions go on.
//!
//! An image gives nodes in the order of their slots, and slots are used again, so that a child may come before its parent. Its ancestors
//! are fetched ahead of their turn then, and skipped when it comes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::snapshot::SharedTree;
use super::{ACL_OPEN, END, SIGNATURE};
use crate::base::Zxid;
use crate::tree::{ChunkKind, IMAGES_MAX, Image, ImageNode, image_acls, image_sessions};
use crate::wire::jute::PutJute;

/// Bytes of one step, about: the tree is locked for about 100 µs meanwhile.
const STEP_BYTES: usize = 64 << 10;

/// A stream being written. End it with [`SnapSource::finish`] or [`SnapSource::abort`]: the tree keeps what changes until then.
#[derive(Debug)]
pub struct SnapSource {
    image: Image,
    step_bytes: usize,
    chunk: Chunk,
    above: Above,
    /// Ancestors to be written before the next record, the nearest to the root last.
    ahead: Vec<u32>,
    /// Nodes written ahead of their turn, which has not come yet.
    skipped: BTreeSet<u32>,
    /// One node, fetched.
    scratch: Vec<u8>,
    nodes_done: u64,
    sessions_done: u64,
    acls_done: Option<u64>,
    complete: bool,
}

/// A chunk of the image.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Slot and place of every node in it, by slot.
    nodes: Vec<(u32, usize)>,
    /// Of `nodes`: the next to be written.
    next: usize,
}

impl Chunk {
    fn index(&mut self) {
        let mut at = 0;
        while let Some((node, end)) = ImageNode::at(&self.bytes, at) {
            self.nodes.push((node.slot, at));
            at = end;
        }
        debug_assert!(self.nodes.is_sorted(), "an image is in the order of its slots");
    }

    fn node(&self, index: usize) -> Option<ImageNode<'_>> {
        let (_, at) = *self.nodes.get(index)?;
        ImageNode::at(&self.bytes, at).map(|(node, _)| node)
    }

    /// Bytes of the node in `slot`, if its turn is still to come in this chunk.
    fn find(&self, slot: u32) -> Option<&[u8]> {
        let index = self.nodes.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
        if index < self.next {
            return None;
        }
        let end = self.nodes.get(index + 1).map_or(self.bytes.len(), |(_, at)| *at);
        Some(&self.bytes[self.nodes[index].1..end])
    }
}

/// Nodes written that have, or had, children: parent's slot and name.
#[derive(Debug, Default)]
struct Above {
    names: BTreeMap<u32, (u32, Box<[u8]>)>,
    /// The parent of the last node, and its path.
    last: Option<u32>,
    path: Vec<u8>,
}

impl Above {
    fn knows(&self, slot: u32) -> bool {
        self.last == Some(slot) || self.names.contains_key(&slot)
    }

    /// Path of a node it knows; empty for the root.
    fn path_of(&mut self, slot: u32) -> &[u8] {
        if self.last != Some(slot) {
            let (mut at, mut names) = (slot, Vec::new());
            while let Some((parent, name)) = self.names.get(&at).filter(|(_, name)| !name.is_empty()) {
                names.push(name);
                at = *parent;
            }
            self.path.clear();
            for name in names.into_iter().rev() {
                self.path.push(b'/');
                self.path.extend_from_slice(name);
            }
            self.last = Some(slot);
        }
        &self.path
    }
}

impl SnapSource {
    /// Begins a stream of the tree as it is now. `None` when too many images are under way already ([`IMAGES_MAX`], one of which is left
    /// for the disk).
    #[must_use]
    pub fn begin(tree: &impl SharedTree) -> Option<SnapSource> {
        SnapSource::begin_in_steps(tree, STEP_BYTES)
    }

    /// The same, in steps of about so many bytes.
    pub(crate) fn begin_in_steps(tree: &impl SharedTree, step_bytes: usize) -> Option<SnapSource> {
        let image = tree.write(|tree| {
            (tree.images_under_way() < IMAGES_MAX - 1).then(|| tree.begin_image().sessions_first())
        })?;
        Some(SnapSource {
            image,
            step_bytes,
            chunk: Chunk::default(),
            above: Above::default(),
            ahead: Vec::new(),
            skipped: BTreeSet::new(),
            scratch: Vec::new(),
            nodes_done: 0,
            sessions_done: 0,
            acls_done: None,
            complete: false,
        })
    }

    /// The zxid at which the stream is exact: it goes into the SNAP packet, and transactions behind it follow.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.image.zxid()
    }

    /// Nodes written, nodes in all.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.nodes_done, self.image.parts().nodes as u64)
    }

    /// Appends the next 64 KiB or so, or a single node that is longer; may append nothing. False when the stream is complete, its
    /// signature included.
    pub fn step(&mut self, tree: &impl SharedTree, out: &mut Vec<u8>) -> bool {
        let bytes_max = out.len() + self.step_bytes;
        if !self.complete && self.ahead.is_empty() && self.chunk.next == self.chunk.nodes.len() {
            self.next_chunk(tree, out);
        }
        while out.len() < bytes_max && self.next_node(tree, out) {}
        !self.complete
    }

    /// Are ancestors to be written ahead of their turn?
    #[cfg(test)]
    pub(super) fn is_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Bytes of the tree kept in memory, about.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let names: usize = self.above.names.values().map(|(_, name)| 64 + name.len()).sum();
        let places = self.ahead.len() + self.skipped.len() + 2 * self.chunk.nodes.len();
        names + 8 * places + self.chunk.bytes.len() + self.scratch.len() + self.above.path.len()
    }

    /// Ends a stream that is complete.
    pub fn finish(self, tree: &impl SharedTree) {
        assert!(self.complete, "a stream without its signature is aborted, not finished");
        self.abort(tree);
    }

    /// Ends a stream, complete or not.
    pub fn abort(self, tree: &impl SharedTree) {
        let SnapSource { image, .. } = self;
        // What the image kept is freed out of the lock.
        let rest = tree.write(|tree| tree.end_image(image));
        drop(rest);
    }

    fn next_chunk(&mut self, tree: &impl SharedTree, out: &mut Vec<u8>) {
        let SnapSource { image, chunk, step_bytes, .. } = self;
        chunk.bytes.clear();
        chunk.nodes.clear();
        chunk.next = 0;
        match tree.read(|tree| tree.image_chunk(image, &mut chunk.bytes, *step_bytes)) {
            Some(ChunkKind::Header) => out.put_int(count(image.parts().sessions)),
            Some(ChunkKind::Sessions) => self.put_sessions(out),
            Some(ChunkKind::Acls) => self.put_acls(out),
            Some(ChunkKind::Nodes) => self.chunk.index(),
            None => self.put_end(out),
        }
    }

    fn put_sessions(&mut self, out: &mut Vec<u8>) {
        for (session, timeout_ms) in image_sessions(&self.chunk.bytes) {
            out.put_long(session.0);
            out.put_int(timeout_ms);
            self.sessions_done += 1;
        }
    }

    fn put_acls(&mut self, out: &mut Vec<u8>) {
        let parts = self.image.parts();
        let done = self.acls_done.get_or_insert_with(|| {
            assert_eq!(self.sessions_done, parts.sessions as u64, "as many as were announced");
            out.put_int(count(parts.acls - 1));
            0
        });
        for (number, list) in image_acls(&self.chunk.bytes) {
            out.put_long(number.into());
            out.extend_from_slice(list);
            *done += 1;
        }
    }

    fn put_end(&mut self, out: &mut Vec<u8>) {
        let parts = self.image.parts();
        assert_eq!(
            self.acls_done,
            Some(parts.acls as u64 - 1),
            "as many as were announced, the open one aside"
        );
        assert_eq!(self.nodes_done, parts.nodes as u64, "every node of the image, once");
        assert!(self.skipped.is_empty(), "the turn of every node has come");
        out.put_ustring(END);
        out.put_ustring(SIGNATURE);
        self.complete = true;
    }

    /// Writes one node, or finds out which ancestors have to be written first. False when the chunk is used up.
    fn next_node(&mut self, tree: &impl SharedTree, out: &mut Vec<u8>) -> bool {
        if let Some(slot) = self.ahead.pop() {
            self.fetch(tree, slot);
            let (node, _) = ImageNode::at(&self.scratch, 0).expect("it was fetched");
            put_node(&mut self.above, &node, true, out);
            self.nodes_done += 1;
            self.skipped.insert(slot);
            return true;
        }
        let Some(node) = self.chunk.node(self.chunk.next) else { return false };
        if self.skipped.remove(&node.slot) {
            self.chunk.next += 1;
        } else if node.is_root() || self.above.knows(node.parent) {
            let may_have_children =
                node.stat.cversion != 0 || self.image.quiet_parents().binary_search(&node.slot).is_ok();
            put_node(&mut self.above, &node, may_have_children, out);
            self.nodes_done += 1;
            self.chunk.next += 1;
        } else {
            let parent = node.parent;
            self.climb(tree, parent);
        }
        true
    }

    /// Puts `slot` and its ancestors that are not written yet into `ahead`.
    fn climb(&mut self, tree: &impl SharedTree, slot: u32) {
        let mut at = slot;
        while !self.above.knows(at) {
            self.ahead.push(at);
            self.fetch(tree, at);
            let (node, _) = ImageNode::at(&self.scratch, 0).expect("it was fetched");
            at = node.parent;
        }
    }

    /// Takes the node in `slot`, whose turn is still to come, from the chunk or from the tree.
    fn fetch(&mut self, tree: &impl SharedTree, slot: u32) {
        let SnapSource { image, chunk, scratch, .. } = self;
        scratch.clear();
        if let Some(bytes) = chunk.find(slot) {
            scratch.extend_from_slice(bytes);
        } else {
            let found = tree.read(|tree| tree.image_node_ahead(image, slot, scratch));
            assert!(found, "slot {slot} has a child, and was not known for it when its turn was");
        }
    }
}

/// A count on the wire. There are fewer than 2^31: each takes a hundred bytes and more of the tree.
fn count(n: usize) -> i32 {
    i32::try_from(n).expect("two billion sessions or ACLs do not fit any machine this runs on")
}

/// Appends a node whose parent is written; remembers it if it may have children.
fn put_node(above: &mut Above, node: &ImageNode<'_>, may_have_children: bool, out: &mut Vec<u8>) {
    let at = out.reserve_int();
    if !node.is_root() {
        out.extend_from_slice(above.path_of(node.parent));
        out.push(b'/');
        out.extend_from_slice(node.name);
    }
    out.fill_length(at);
    out.put_buffer(node.data);
    out.put_long(if node.acl == ImageNode::ACL_OPEN { ACL_OPEN } else { node.acl.into() });
    node.stat.put(out);
    if may_have_children {
        above.names.insert(node.slot, (node.parent, node.name.into()));
    }
}
