//! The second half of loading: all nodes are there, nothing is tied together. In steps, because it is most of the work.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::maps::{self, Map};
use super::super::slab::{NIL, PAGE_SLOTS, Page, Slab};
use super::super::{AclId, ChunkKind, Owner, ROOT, Tree, TreeOptions};
use super::{Header, ImageError, count};
use crate::base::SessionId;
use crate::base::checksum::crc32_continue;
use crate::wire::AclVec;

/// Pages by their old numbers -> those numbers in order, and the pages in a row.
fn into_slab(pages: BTreeMap<u32, Arc<Mutex<Page>>>) -> (Vec<u32>, Slab) {
    let numbers = pages.keys().copied().collect();
    let unwrap = |page: Arc<Mutex<Page>>| {
        Arc::into_inner(page).expect("no chunk is being taken any more").into_inner()
    };
    (numbers, Slab::from_pages(pages.into_values().map(unwrap).collect()))
}

/// A tree being tied together.
#[derive(Debug)]
pub struct Finishing {
    tree: Tree,
    header: Header,
    /// Old numbers of the pages, in the order of their new numbers.
    numbers: Vec<u32>,
    /// From ACL ids of the image to those of the tree.
    acls: Map<u32, AclId>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Slots from here on are tied to their parents. From the last to the first: lists then run upwards through memory, as the walks over them
    /// like it.
    Linking {
        done_from: u32,
    },
    /// Walks down from the root with the path's CRC and length in hand: whatever is not reached hangs on a cycle.
    Checking {
        above: Vec<Above>,
        reached: u64,
    },
    Done,
}

impl Finishing {
    pub(super) fn begin(
        options: TreeOptions,
        header: Header,
        pages: BTreeMap<u32, Arc<Mutex<Page>>>,
        acls: &[(u32, Box<[u8]>)],
        sessions: Vec<(SessionId, i32)>,
    ) -> Result<Finishing, ImageError> {
        let (numbers, slab) = into_slab(pages);
        count("pages", header.pages.into(), numbers.len() as u64)?;
        count("nodes", header.nodes, slab.len() as u64)?;
        let mut tree = Tree::bare(options, slab, header.nodes as usize);
        tree.owners.sessions.extend(sessions);
        count("different sessions", header.sessions.into(), tree.owners.sessions.len() as u64)?;
        let stage = Stage::Linking { done_from: tree.slab.slot_bound() };
        let acl_map = Map::with_hasher(maps::state(options.seed));
        let mut finishing = Finishing { tree, header, numbers, acls: acl_map, stage };
        finishing.intern_acls(acls)?;
        let root = finishing.tree.slab.get_live(ROOT);
        let is_root = root.is_some_and(|node| node.parent == NIL && node.name().is_empty());
        if !is_root || finishing.numbers.first() != Some(&0) {
            return Err(ImageError::Link { slot: ROOT, what: "is not the root" });
        }
        Ok(finishing)
    }

    /// Looks at about `slots_max` slots; false when all is done.
    ///
    /// # Errors
    /// There is no tree in it.
    pub fn step(&mut self, slots_max: usize) -> Result<bool, ImageError> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Linking { done_from } => self.link_some(done_from, slots_max)?,
            Stage::Checking { above, reached } => self.check_some(above, reached, slots_max)?,
            Stage::Done => return Ok(false),
        };
        Ok(true)
    }

    fn intern_acls(&mut self, acls: &[(u32, Box<[u8]>)]) -> Result<(), ImageError> {
        for (id, list) in acls {
            let acl = self.tree.acls.intern(AclVec::of_encoded(list));
            if self.acls.insert(*id, acl).is_some() {
                let found = u64::from(*id);
                return Err(ImageError::Value { kind: ChunkKind::Acls, at: 0, what: "repeated id", found });
            }
        }
        Ok(())
    }

    /// Slot in the image -> slot in the tree, if its page is there.
    fn renumber(&self, slot: u32) -> Option<u32> {
        let no = slot / PAGE_SLOTS;
        if self.numbers.get(no as usize) == Some(&no) {
            return Some(slot);
        }
        let new = self.numbers.binary_search(&no).ok()? as u32;
        Some(new * PAGE_SLOTS + slot % PAGE_SLOTS)
    }

    /// Slot in the tree -> slot in the image, for errors.
    fn original(&self, slot: u32) -> u32 {
        self.numbers[(slot / PAGE_SLOTS) as usize] * PAGE_SLOTS + slot % PAGE_SLOTS
    }

    fn link_some(&mut self, done_from: u32, slots_max: usize) -> Result<Stage, ImageError> {
        let first = done_from.saturating_sub(u32::try_from(slots_max).unwrap_or(u32::MAX));
        for slot in (first..done_from).rev() {
            let Some(node) = self.tree.slab.get_live(slot) else { continue };
            let (parent, acl, owner) = (node.parent, node.acl, node.owner_raw());
            let fail = |what| ImageError::Link { slot: self.original(slot), what };
            let acl = *self.acls.get(&acl.0).ok_or_else(|| fail("has an ACL that is not there"))?;
            let parent = if slot == ROOT {
                NIL
            } else {
                let parent =
                    self.renumber(parent).filter(|parent| self.tree.slab.get_live(*parent).is_some());
                parent.ok_or_else(|| fail("has a parent that is not there"))?
            };
            self.tie(slot, parent, acl, owner)?;
        }
        if first > 0 {
            return Ok(Stage::Linking { done_from: first });
        }
        self.check_node(ROOT, 0, 1, true)?;
        Ok(Stage::Checking { above: vec![Above::of(&self.tree, ROOT, 0, 0, true)], reached: 1 })
    }

    fn tie(&mut self, slot: u32, parent: u32, acl: AclId, owner: i64) -> Result<(), ImageError> {
        let tree = &mut self.tree;
        let node = tree.slab.get_mut(slot);
        (node.parent, node.acl) = (parent, acl);
        tree.acls.reuse(acl);
        tree.owners.add(slot, Owner::decode(owner, &tree.options));
        if slot == ROOT {
            return Ok(());
        }
        if !tree.index.insert(&tree.slab, slot) {
            let slot = self.original(slot);
            return Err(ImageError::Link { slot, what: "has a sibling of the same name" });
        }
        tree.link(parent, slot);
        Ok(())
    }

    fn check_some(
        &mut self,
        mut above: Vec<Above>,
        mut reached: u64,
        slots_max: usize,
    ) -> Result<Stage, ImageError> {
        for _ in 0..slots_max {
            let Some(parent) = above.last_mut() else {
                count("nodes below the root", self.header.nodes, reached)?;
                return Ok(Stage::Done);
            };
            let slot = parent.next;
            if slot == NIL {
                let done = above.pop().expect("there is a last one");
                self.count_below(&done, above.last_mut());
                continue;
            }
            let node = self.tree.slab.get(slot);
            parent.next = node.next;
            let crc = crc32_continue(crc32_continue(parent.crc, b"/"), node.name());
            let len = parent.len + 1 + node.name().len();
            // Below the root, `/zookeeper` is the first whose children do not count.
            let counts = parent.counts;
            let counts_below = counts && !(node.parent == ROOT && node.name() == b"zookeeper");
            parent.nodes += 1;
            parent.bytes += node.data_len() as u64;
            if node.family != NIL {
                above.push(Above::of(&self.tree, slot, crc, len, counts_below));
            }
            self.check_node(slot, crc, len, counts)?;
            reached += 1;
        }
        Ok(Stage::Checking { above, reached })
    }

    /// All below a node is seen: counts it there and one above.
    fn count_below(&mut self, done: &Above, parent: Option<&mut Above>) {
        let family = self.tree.slab.get(done.slot).family;
        if family != NIL {
            let family = self.tree.families.get_mut(family);
            (family.nodes, family.bytes) = (done.nodes, done.bytes);
        }
        if let Some(parent) = parent {
            parent.nodes += done.nodes;
            parent.bytes += done.bytes;
        }
    }

    fn check_node(
        &mut self,
        slot: u32,
        path_crc: u32,
        path_len: usize,
        counts: bool,
    ) -> Result<(), ImageError> {
        let node = self.tree.slab.get(slot);
        let found = crc32_continue(path_crc, node.data().unwrap_or_default());
        if found != node.content_crc {
            let expected = node.content_crc;
            return Err(ImageError::Content { slot: self.original(slot), expected, found });
        }
        let digest = if counts { u64::from(node.digest()) } else { 0 };
        self.tree.data_bytes += (path_len + node.data_len()) as u64;
        self.tree.digest = self.tree.digest.wrapping_add(digest);
        Ok(())
    }

    /// The tree. Every step is done.
    ///
    /// # Errors
    /// It is not the one that the header speaks of.
    pub fn finish(self) -> Result<Tree, ImageError> {
        let Finishing { mut tree, header, acls, stage, .. } = self;
        assert!(matches!(stage, Stage::Done), "step by step to the end, and no error");
        // Interning counted a use of its own.
        for acl in acls.into_values() {
            tree.acls.release(acl);
        }
        tree.find_quota_roots();
        tree.applied = header.zxid;
        tree.digest_log = header.digest_log.into();
        count("bytes of paths and data", header.data_bytes, tree.data_bytes)?;
        if tree.digest != header.digest {
            return Err(ImageError::Digest { expected: header.digest, found: tree.digest });
        }
        Ok(tree)
    }
}

/// An ancestor of the node being looked at.
#[derive(Debug)]
struct Above {
    slot: u32,
    /// Its next child to be looked at.
    next: u32,
    /// CRC and length of its path; the root's path is empty here.
    crc: u32,
    len: usize,
    /// Do its children count in the digest?
    counts: bool,
    /// Nodes below it seen so far, and the bytes of their data.
    nodes: u32,
    bytes: u64,
}

impl Above {
    fn of(tree: &Tree, slot: u32, crc: u32, len: usize, counts: bool) -> Above {
        Above { slot, next: tree.first_child(slot), crc, len, counts, nodes: 0, bytes: 0 }
    }
}
