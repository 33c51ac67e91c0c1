//! Exact images: the whole replicated state at one zxid, written out while transactions go on.
//!
//! - G1: an image is the state at the moment of [`Tree::begin_image`], however long it takes to write.
//! - G2: nodes are visited in the order of their slots. The first change of a slot not visited yet keeps what was there (its
//!   pre-image, or that it was free); the visit then takes that instead. Slots that came later are not visited. The same goes for ACLs,
//!   in the order of their ids, and for sessions.
//! - G3: what is kept is bounded by what is changed while the image is taken, and shrinks as it proceeds.
//! - G4: every step is short: it ends after about `bytes_target` bytes or [`SLOTS_PER_STEP_MAX`] slots. So are begin and end, whatever
//!   there is in the tree.
//! - G5: images do not know of each other: one may go to the disk while others go to learners, each with what it has kept.
//!
//! The layout of the chunks is in `src/docs/tree.md`; the reader is [`super::Loader`]. Little-endian throughout.

mod builder;

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::loader::ImageNode;
use super::node::Node;
use super::slab::{NIL, PAGE_SLOTS};
use super::{AclId, Tree, TreeOptions};
use crate::base::{SessionId, Zxid};
use crate::wire::{AclVec, StatPersisted};

pub use builder::{ImageBuilder, Misplaced};

/// Slots looked at in one step: free ones cost a few nanoseconds each.
const SLOTS_PER_STEP_MAX: u32 = 16 * PAGE_SLOTS;
/// Nodes put into one step, so that many small ones do not hold the lock for longer than about 100 µs.
const NODES_PER_STEP_MAX: u32 = 1024;

/// Images under way at once: ten learners, as many as a leader of ZooKeeper serves by default, the disk, and one to spare. Each has every
/// write keep what it changes first.
pub const IMAGES_MAX: usize = 12;

/// ACLs or sessions looked at in one step.
const ENTRIES_PER_STEP_MAX: u32 = 4096;

/// Version of the layout, first word of the header.
pub(super) const VERSION: u32 = 1;
/// `data_len` of null data.
pub(super) const NULL_DATA: u32 = u32::MAX;
/// Bytes of the header in front of the digest log.
pub(super) const HEADER_BYTES: usize = 4 + 8 * 4 + 4 * 5;
/// Bytes of a digest log entry.
pub(super) const DIGEST_BYTES: usize = 16;
/// Bytes of a session.
pub(super) const SESSION_BYTES: usize = 12;
/// Bytes of an ACL in front of its list.
pub(super) const ACL_HEAD_BYTES: usize = 8;
/// Bytes of a node in front of its name.
pub(super) const NODE_HEAD_BYTES: usize = 4 * 4 + StatPersisted::BYTES + 4 * 2;

/// What a chunk holds. Numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChunkKind {
    /// zxid, digest, counts, digest log. Exactly one, the first.
    Header = 1,
    /// ACLs in use. Chunks of this and the following kinds may be joined end to end.
    Acls = 2,
    /// Sessions and timeouts.
    Sessions = 3,
    /// Nodes.
    Nodes = 4,
}

impl ChunkKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u8(v: u8) -> Option<ChunkKind> {
        Some(match v {
            1 => ChunkKind::Header,
            2 => ChunkKind::Acls,
            3 => ChunkKind::Sessions,
            4 => ChunkKind::Nodes,
            _ => return None,
        })
    }
}

/// The tree's side of an image under way.
#[derive(Debug)]
pub(super) struct Active {
    id: u64,
    /// Slots from here on came later.
    slot_bound: u32,
    /// ACLs from here on came later.
    acl_bound: u32,
    /// Moves under the read lock, is read under the write lock.
    progress: Mutex<Progress>,
}

/// How far an image is, and what was there where something has changed since. The maps are ordered, because they are taken out in
/// order, and because a hash table of many would stop a write for milliseconds when it grows.
#[derive(Debug, Default)]
struct Progress {
    /// Slots below are visited.
    slots_visited: u32,
    /// What was in slots changed since, encoded; empty if the slot was free.
    nodes: BTreeMap<u32, Box<[u8]>>,
    /// Slots not visited yet of nodes that had children while their cversion did not say so.
    quiet_parents: BTreeSet<u32>,
    /// ACLs below are visited.
    acls_visited: u32,
    /// ACLs gone since, and (empty) places filled since.
    acls: BTreeMap<u32, Box<[u8]>>,
    /// Sessions up to this one are visited; with `sessions_done`, all.
    session_last: Option<SessionId>,
    sessions_done: bool,
    /// Timeouts of sessions changed since; `None` if there was no such session.
    sessions: BTreeMap<SessionId, Option<i32>>,
}

impl Active {
    /// Notes that the node in `slot`, with a cversion of 0, has a child, unless the slot is visited or came later.
    fn note_quiet_parent(&mut self, slot: u32) {
        let progress = self.progress.get_mut();
        if slot >= progress.slots_visited && slot < self.slot_bound {
            progress.quiet_parents.insert(slot);
        }
    }

    /// Keeps `node` as what was in `slot`, unless the slot is visited, came later, or is kept already.
    fn keep(&mut self, slot: u32, node: Option<&Node>) {
        let progress = self.progress.get_mut();
        if slot < progress.slots_visited || slot >= self.slot_bound {
            return;
        }
        progress.nodes.entry(slot).or_insert_with(|| {
            let mut bytes = Vec::new();
            if let Some(node) = node {
                bytes.reserve_exact(NODE_HEAD_BYTES + node.name().len() + node.data_len());
                put_live(&mut bytes, slot, node);
            }
            bytes.into_boxed_slice()
        });
    }

    /// The same for an ACL, which never changes while it is there; empty if the place was free.
    fn keep_acl(&mut self, id: AclId, was: &[u8]) {
        let progress = self.progress.get_mut();
        if id.0 >= progress.acls_visited && id.0 < self.acl_bound {
            progress.acls.entry(id.0).or_insert_with(|| was.into());
        }
    }

    /// The same for a session.
    fn keep_session(&mut self, session: SessionId, was: Option<i32>) {
        let progress = self.progress.get_mut();
        if !progress.sessions_done && progress.session_last.is_none_or(|last| session > last) {
            progress.sessions.entry(session).or_insert(was);
        }
    }
}

/// What an image that was given up leaves behind, perhaps much: to be dropped when the tree is let go of.
#[derive(Debug)]
pub struct ImageRest(#[expect(dead_code, reason = "it is only dropped")] Active);

/// An image being taken: where it has come to. Give it back to [`Tree::end_image`], finished or not.
#[derive(Debug)]
pub struct Image {
    id: u64,
    zxid: Zxid,
    digest: u64,
    parts: ImageParts,
    slot_bound: u32,
    stage: Stage,
    sessions_first: bool,
    header: Vec<u8>,
    quiet_parents: Vec<u32>,
}

/// How much there is in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageParts {
    /// Nodes; the root counts once.
    pub nodes: usize,
    /// Different ACLs, the open one among them.
    pub acls: usize,
    /// Sessions.
    pub sessions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Acls,
    Sessions,
    Nodes,
    Done,
}

impl Image {
    /// The zxid at which the image is exact.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The digest at that zxid.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Nodes as ZooKeeper counts them, at that zxid.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.parts.nodes + 1
    }

    /// How much there is in it.
    #[must_use]
    pub fn parts(&self) -> ImageParts {
        self.parts
    }

    /// The same image, its sessions in front of its ACLs.
    #[must_use]
    pub fn sessions_first(self) -> Image {
        assert_eq!(self.stage, Stage::Header, "the order is chosen before the first chunk");
        Image { sessions_first: true, ..self }
    }

    /// Slots of nodes in the last chunk that may have children in the image though their cversion is 0, in order. `/` and `/zookeeper`
    /// have had theirs from the start; what made any others is no transaction of an honest leader. All other parents are known by
    /// their cversion, which every new child raises and nothing lowers.
    #[must_use]
    pub fn quiet_parents(&self) -> &[u32] {
        &self.quiet_parents
    }

    /// What comes behind `stage`.
    fn stage_behind(&self, stage: Stage) -> Stage {
        match (stage, self.sessions_first) {
            (Stage::Header, false) | (Stage::Sessions, true) => Stage::Acls,
            (Stage::Header, true) | (Stage::Acls, false) => Stage::Sessions,
            (Stage::Acls, true) | (Stage::Sessions, false) => Stage::Nodes,
            (Stage::Nodes | Stage::Done, _) => Stage::Done,
        }
    }
}

impl Tree {
    /// Images begun and not ended.
    #[must_use]
    pub fn images_under_way(&self) -> usize {
        self.images.len()
    }

    /// Starts an image of the state as it is now. Copies nothing but the digest log. Panics if [`IMAGES_MAX`] are under way.
    pub fn begin_image(&mut self) -> Image {
        assert!(self.images.len() < IMAGES_MAX, "not more than {IMAGES_MAX} images at a time");
        self.images_begun += 1;
        let (id, slot_bound) = (self.images_begun, self.slab.slot_bound());
        let acl_bound = self.acls.bound();
        self.images.push(Active { id, slot_bound, acl_bound, progress: Mutex::default() });
        let (nodes, acls, sessions) = (self.slab.len(), self.acls.len(), self.owners.sessions.len());
        Image {
            id,
            zxid: self.applied,
            digest: self.digest,
            parts: ImageParts { nodes, acls, sessions },
            slot_bound,
            stage: Stage::Header,
            sessions_first: false,
            header: self.image_header(),
            quiet_parents: Vec::new(),
        }
    }

    fn image_header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.digest_log.len() * DIGEST_BYTES);
        let counts = [self.slab.pages_live(), self.acls.len(), self.owners.sessions.len()];
        let fields = HeaderFields {
            zxid: self.applied,
            digest: self.digest,
            nodes: self.slab.len() as u64,
            data_bytes: self.data_bytes,
            counts: counts.map(|count| count as u32),
        };
        put_header(&mut out, &fields, &self.options, self.digest_log.iter().copied());
        out
    }

    /// Appends the next chunk of about `bytes_target` bytes to `out`; it may append nothing. `None` when the image is complete.
    /// Chunks of one kind, other than the header, may be joined.
    pub fn image_chunk(
        &self,
        image: &mut Image,
        out: &mut Vec<u8>,
        bytes_target: usize,
    ) -> Option<ChunkKind> {
        match image.stage {
            Stage::Header => {
                out.append(&mut image.header);
                image.stage = image.stage_behind(Stage::Header);
                Some(ChunkKind::Header)
            }
            Stage::Acls => Some(self.put_acls(image, out, bytes_target.max(1))),
            Stage::Sessions => Some(self.put_sessions(image, out, bytes_target.max(1))),
            Stage::Nodes => Some(self.put_nodes(image, out, bytes_target.max(1))),
            Stage::Done => None,
        }
    }

    fn put_acls(&self, image: &mut Image, out: &mut Vec<u8>, bytes_target: usize) -> ChunkKind {
        let active = self.active(image);
        let mut progress = active.progress.lock();
        let start = out.len();
        let last = active.acl_bound.min(progress.acls_visited.saturating_add(ENTRIES_PER_STEP_MAX));
        while progress.acls_visited < last && out.len() - start < bytes_target {
            let id = progress.acls_visited;
            progress.acls_visited += 1;
            // Kept and empty: the place was free.
            match progress.acls.remove(&id) {
                Some(was) => put_acl(out, id, &was),
                None => put_acl(out, id, self.acls.bytes(AclId(id))),
            }
        }
        if progress.acls_visited == active.acl_bound {
            assert!(progress.acls.is_empty(), "what is kept is of ACLs not visited yet (G2)");
            image.stage = image.stage_behind(Stage::Acls);
        }
        ChunkKind::Acls
    }

    fn put_sessions(&self, image: &mut Image, out: &mut Vec<u8>, bytes_target: usize) -> ChunkKind {
        let active = self.active(image);
        let mut progress = active.progress.lock();
        let mut live = self.sessions_behind(progress.session_last).peekable();
        let entries_max = bytes_target.div_ceil(SESSION_BYTES).min(ENTRIES_PER_STEP_MAX as usize);
        for _ in 0..entries_max {
            let kept = progress.sessions.first_key_value().map(|(session, was)| (*session, *was));
            let (session, was) = match (kept, live.peek().copied()) {
                (Some(kept), there) if there.is_none_or(|there| kept.0 <= there.0) => {
                    progress.sessions.pop_first();
                    live.next_if(|there| there.0 == kept.0);
                    kept
                }
                (_, Some((session, timeout_ms))) => {
                    live.next();
                    (session, Some(timeout_ms))
                }
                (_, None) => {
                    progress.sessions_done = true;
                    image.stage = image.stage_behind(Stage::Sessions);
                    break;
                }
            };
            progress.session_last = Some(session);
            if let Some(timeout_ms) = was {
                out.extend_from_slice(&session.0.to_le_bytes());
                out.extend_from_slice(&timeout_ms.to_le_bytes());
            }
        }
        ChunkKind::Sessions
    }

    fn put_nodes(&self, image: &mut Image, out: &mut Vec<u8>, bytes_target: usize) -> ChunkKind {
        let active = self.active(image);
        let mut progress = active.progress.lock();
        let Progress { slots_visited, nodes: kept, quiet_parents, .. } = &mut *progress;
        image.quiet_parents.clear();
        let first = *slots_visited;
        let last = image.slot_bound.min(first.saturating_add(SLOTS_PER_STEP_MAX));
        let (start, mut nodes, mut slot) = (out.len(), 0, first);
        while slot < last && out.len() - start < bytes_target && nodes < NODES_PER_STEP_MAX {
            let next_kept = kept.first_key_value().map_or(u32::MAX, |(slot, _)| *slot);
            debug_assert!(next_kept >= slot, "what is kept is of slots not visited yet (G2)");
            if slot.is_multiple_of(PAGE_SLOTS)
                && next_kept - slot >= PAGE_SLOTS
                && self.slab.page_is_empty(slot)
            {
                slot += PAGE_SLOTS;
                continue;
            }
            let mut is_quiet_parent = !quiet_parents.is_empty() && quiet_parents.remove(&slot);
            if next_kept == slot {
                let (_, was) = kept.pop_first().expect("it was there a line ago");
                out.extend_from_slice(&was);
                nodes += 1;
            } else if let Some(node) = self.slab.get_live(slot) {
                put_live(out, slot, node);
                nodes += 1;
                is_quiet_parent |= node.family != NIL && node.cversion() == 0;
            }
            if is_quiet_parent {
                image.quiet_parents.push(slot);
            }
            slot += 1;
        }
        assert!(slot > first || first == image.slot_bound, "every step gets somewhere");
        *slots_visited = slot;
        if slot >= image.slot_bound {
            assert!(kept.is_empty(), "what is kept is of slots not visited yet (G2)");
            image.stage = Stage::Done;
        }
        ChunkKind::Nodes
    }

    /// Appends the node in `slot` as it was when the image was begun, in the form of a chunk of nodes, ahead of its turn; its turn comes
    /// all the same. False if there was none, and if its turn is over.
    pub fn image_node_ahead(&self, image: &Image, slot: u32, out: &mut Vec<u8>) -> bool {
        let progress = self.active(image).progress.lock();
        if slot < progress.slots_visited || slot >= image.slot_bound {
            return false;
        }
        let before = out.len();
        if let Some(was) = progress.nodes.get(&slot) {
            out.extend_from_slice(was);
        } else if let Some(node) = self.slab.get_live(slot) {
            put_live(out, slot, node);
        }
        out.len() > before
    }

    fn active(&self, image: &Image) -> &Active {
        let active = self.images.iter().find(|active| active.id == image.id);
        active.expect("an image of this tree that was begun and not ended")
    }

    /// Ends an image, complete or given up. O(1): what it returns is to be dropped when others have the tree again.
    pub fn end_image(&mut self, image: Image) -> ImageRest {
        let at = self.images.iter().position(|active| active.id == image.id);
        ImageRest(self.images.swap_remove(at.expect("an image of this tree that was begun and not ended")))
    }

    /// Must be called before the node in `slot` changes or goes.
    #[inline]
    pub(super) fn keep_preimage(&mut self, slot: u32) {
        for active in &mut self.images {
            let node = self.slab.get(slot);
            active.keep(slot, Some(node));
            if node.family != NIL && node.cversion() == 0 {
                active.note_quiet_parent(slot);
            }
            if node.parent != NIL && self.slab.get(node.parent).cversion() == 0 {
                active.note_quiet_parent(node.parent);
            }
        }
    }

    /// Must be called when a free slot has been taken.
    #[inline]
    pub(super) fn keep_absent(&mut self, slot: u32) {
        for active in &mut self.images {
            active.keep(slot, None);
        }
    }

    /// Interns an ACL, and keeps that its place was free.
    pub(super) fn intern_acl(&mut self, acl: AclVec<'_>) -> AclId {
        let id = self.acls.intern(acl);
        if !self.images.is_empty() && self.acls.is_new(id) {
            self.images.iter_mut().for_each(|active| active.keep_acl(id, &[]));
        }
        id
    }

    /// Gives up a use of an ACL, and keeps it if that was the last.
    pub(super) fn release_acl(&mut self, id: AclId) {
        if let Some(gone) = self.acls.release(id) {
            self.images.iter_mut().for_each(|active| active.keep_acl(id, &gone));
        }
    }

    /// Must be called before a session changes, comes or goes.
    pub(super) fn keep_session(&mut self, session: SessionId) {
        for active in &mut self.images {
            active.keep_session(session, self.owners.sessions.get(&session).copied());
        }
    }
}

/// Nothing for an empty list: that is a free place.
fn put_acl(out: &mut Vec<u8>, id: u32, list: &[u8]) {
    if !list.is_empty() {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&(list.len() as u32).to_le_bytes());
        out.extend_from_slice(list);
    }
}

/// What the header says beside options and digest log.
struct HeaderFields {
    zxid: Zxid,
    digest: u64,
    nodes: u64,
    data_bytes: u64,
    /// Pages, ACLs, sessions.
    counts: [u32; 3],
}

fn put_header(
    out: &mut Vec<u8>,
    fields: &HeaderFields,
    options: &TreeOptions,
    digest_log: impl IntoIterator<Item = (Zxid, u64), IntoIter: ExactSizeIterator>,
) {
    let (start, digest_log) = (out.len(), digest_log.into_iter());
    out.extend_from_slice(&VERSION.to_le_bytes());
    for v in [fields.zxid.0, fields.digest, fields.nodes, fields.data_bytes] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    for v in fields.counts {
        out.extend_from_slice(&v.to_le_bytes());
    }
    let flags = u32::from(options.extended_types) | u32::from(options.emulate_353_ttl) << 1;
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&(digest_log.len() as u32).to_le_bytes());
    debug_assert_eq!(out.len() - start, HEADER_BYTES);
    for (zxid, digest) in digest_log {
        out.extend_from_slice(&zxid.0.to_le_bytes());
        out.extend_from_slice(&digest.to_le_bytes());
    }
}

fn put_live(out: &mut Vec<u8>, slot: u32, node: &Node) {
    let (parent, acl, name, data) = (node.parent, node.acl.0, node.name(), node.data());
    let stat = node.persisted();
    put_node(out, &ImageNode { slot, parent, acl, name, data, stat }, node.content_crc);
}

#[inline]
fn put_node(out: &mut Vec<u8>, node: &ImageNode<'_>, content_crc: u32) {
    let stat = &node.stat;
    let mut head = [0; NODE_HEAD_BYTES];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        head[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for v in [node.slot, node.parent, node.acl, content_crc] {
        put(&v.to_le_bytes());
    }
    for v in [stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.mtime, stat.ephemeral_owner] {
        put(&v.to_le_bytes());
    }
    for v in [stat.version, stat.cversion, stat.aversion] {
        put(&v.to_le_bytes());
    }
    put(&(node.name.len() as u32).to_le_bytes());
    put(&node.data.map_or(NULL_DATA, |data| data.len() as u32).to_le_bytes());
    debug_assert_eq!(at, NODE_HEAD_BYTES);
    out.extend_from_slice(&head);
    out.extend_from_slice(node.name);
    out.extend_from_slice(node.data.unwrap_or_default());
}
