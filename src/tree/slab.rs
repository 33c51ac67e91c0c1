//! Where nodes live: fixed-size pages of slots, named by `u32`.
//!
//! - S1: a slot keeps its number for as long as its node lives; growing never moves or copies a node.
//! - S2: a page whose last node goes gives its memory back; its slots stay and may be used again.
//! - S3: the lowest page with room is filled first, so that high pages drain.

use std::collections::BTreeSet;

use super::node::Node;

/// "No slot".
pub(super) const NIL: u32 = u32::MAX;
/// In `Node::parent`: the slot is free.
const VACANT: u32 = u32::MAX - 1;

const PAGE_SLOTS_LOG2: u32 = 11;
/// Slots of a page: 208 KiB of nodes, large enough for the allocator to give a page back to the system by itself.
pub(super) const PAGE_SLOTS: u32 = 1 << PAGE_SLOTS_LOG2;
/// Pages there can be: every slot number stays below [`NIL`] and [`VACANT`].
pub(super) const PAGES_MAX: u32 = (u32::MAX >> PAGE_SLOTS_LOG2) - 1;

const _: () =
    assert!(Node::BYTES * PAGE_SLOTS as usize > 128 << 10, "glibc maps blocks above 128 KiB by themselves");

#[derive(Debug)]
pub(super) struct Page {
    nodes: Vec<Node>,
    live: u32,
    free: u32,
}

impl Page {
    pub(super) const fn new() -> Page {
        Page { nodes: Vec::new(), live: 0, free: NIL }
    }

    /// Puts a node at `offset`; false if there is one.
    pub(super) fn place(&mut self, offset: u32, node: Node) -> bool {
        assert!(offset < PAGE_SLOTS, "offsets are below the page's size");
        self.nodes.reserve_exact(PAGE_SLOTS as usize - self.nodes.len());
        while self.nodes.len() <= offset as usize {
            self.nodes.push(Node::vacant(VACANT, NIL));
        }
        let at = &mut self.nodes[offset as usize];
        if at.parent != VACANT {
            return false;
        }
        *at = node;
        self.live += 1;
        true
    }

    fn chain_vacant(&mut self, first_slot: u32) {
        self.free = NIL;
        for (i, node) in self.nodes.iter_mut().enumerate().rev() {
            if node.parent == VACANT {
                node.next = self.free;
                self.free = first_slot + i as u32;
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Nodes, ACLs and sessions looked at by this thread: what a test bounds in place of time.
    pub(super) static LOOKED_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts for tests what is looked at; nothing otherwise.
#[inline]
pub(super) fn note_look() {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + 1);
}

/// All nodes of a tree.
#[derive(Debug, Default)]
pub(super) struct Slab {
    pages: Vec<Page>,
    /// Pages with room.
    open: BTreeSet<u32>,
    live: usize,
}

impl Slab {
    /// A slab of loaded pages, numbered in order.
    pub(super) fn from_pages(mut pages: Vec<Page>) -> Slab {
        let mut slab = Slab::default();
        for (no, page) in pages.iter_mut().enumerate() {
            page.chain_vacant((no as u32) << PAGE_SLOTS_LOG2);
            slab.live += page.live as usize;
            if page.live < PAGE_SLOTS {
                slab.open.insert(no as u32);
            }
        }
        slab.pages = pages;
        slab
    }

    /// Puts a node into a free slot.
    pub(super) fn insert(&mut self, node: Node) -> u32 {
        let no = self.page_with_room();
        let page = &mut self.pages[no as usize];
        page.live += 1;
        self.live += 1;
        if page.live == PAGE_SLOTS {
            self.open.remove(&no);
        }
        if page.free != NIL {
            let slot = page.free;
            let at = &mut page.nodes[(slot & (PAGE_SLOTS - 1)) as usize];
            debug_assert_eq!(at.parent, VACANT);
            page.free = at.next;
            *at = node;
            return slot;
        }
        if page.nodes.capacity() == 0 {
            page.nodes.reserve_exact(PAGE_SLOTS as usize);
        }
        debug_assert!(page.nodes.len() < PAGE_SLOTS as usize);
        page.nodes.push(node);
        (no << PAGE_SLOTS_LOG2) + page.nodes.len() as u32 - 1
    }

    fn page_with_room(&mut self) -> u32 {
        if let Some(no) = self.open.first() {
            return *no;
        }
        let no = self.pages.len() as u32;
        assert!(no < PAGES_MAX, "4 billion nodes do not fit any machine this runs on");
        self.pages.push(Page::new());
        self.open.insert(no);
        no
    }

    /// Takes the node out of its slot.
    pub(super) fn remove(&mut self, slot: u32) -> Node {
        let no = slot >> PAGE_SLOTS_LOG2;
        let page = &mut self.pages[no as usize];
        let at = &mut page.nodes[(slot & (PAGE_SLOTS - 1)) as usize];
        assert!(at.parent != VACANT, "slot {slot} is taken");
        let node = std::mem::replace(at, Node::vacant(VACANT, page.free));
        page.free = slot;
        page.live -= 1;
        self.live -= 1;
        if page.live == 0 {
            *page = Page::new();
        }
        self.open.insert(no);
        node
    }

    /// The node in a slot that is taken.
    #[inline]
    pub(super) fn get(&self, slot: u32) -> &Node {
        note_look();
        let node = &self.pages[(slot >> PAGE_SLOTS_LOG2) as usize].nodes[(slot & (PAGE_SLOTS - 1)) as usize];
        debug_assert!(node.parent != VACANT, "slot {slot} is taken");
        node
    }

    /// The node in a slot that is taken.
    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Node {
        let page = &mut self.pages[(slot >> PAGE_SLOTS_LOG2) as usize];
        let node = &mut page.nodes[(slot & (PAGE_SLOTS - 1)) as usize];
        debug_assert!(node.parent != VACANT, "slot {slot} is taken");
        node
    }

    /// The node in any slot; `None` if it is free or not there at all.
    pub(super) fn get_live(&self, slot: u32) -> Option<&Node> {
        let page = self.pages.get((slot >> PAGE_SLOTS_LOG2) as usize)?;
        let node = page.nodes.get((slot & (PAGE_SLOTS - 1)) as usize)?;
        (node.parent != VACANT).then_some(node)
    }

    /// True if the page of `slot` has no node.
    pub(super) fn page_is_empty(&self, slot: u32) -> bool {
        self.pages.get((slot >> PAGE_SLOTS_LOG2) as usize).is_none_or(|page| page.live == 0)
    }

    /// Nodes.
    pub(super) const fn len(&self) -> usize {
        self.live
    }

    /// Pages with at least one node.
    pub(super) fn pages_live(&self) -> usize {
        self.pages.iter().filter(|page| page.live > 0).count()
    }

    /// Every slot number in use is below this.
    pub(super) fn slot_bound(&self) -> u32 {
        (self.pages.len() as u32) << PAGE_SLOTS_LOG2
    }
}

#[cfg(test)]
mod tests {
    use super::super::AclId;
    use super::*;
    use crate::wire::StatPersisted;

    fn node(parent: u32) -> Node {
        Node::new(parent, b"n", None, AclId::OPEN, 0, &StatPersisted::default())
    }

    #[test]
    fn freed_slots_are_used_again_and_empty_pages_give_their_memory_back() {
        let mut slab = Slab::default();
        let slots: Vec<u32> = (0..PAGE_SLOTS * 3).map(|i| slab.insert(node(i))).collect();
        assert!(slots.iter().copied().eq(0..PAGE_SLOTS * 3));
        for slot in PAGE_SLOTS..PAGE_SLOTS * 2 {
            assert_eq!(slab.remove(slot).parent, slot);
        }
        assert_eq!(slab.pages[1].nodes.capacity(), 0);
        assert_eq!((slab.len(), slab.pages_live()), (2 * PAGE_SLOTS as usize, 2));
        assert!(slab.get_live(PAGE_SLOTS).is_none());
        slab.remove(5);
        assert!(slab.get_live(5).is_none());
        assert_eq!(slab.insert(node(9)), 5);
        assert_eq!(slab.insert(node(9)), PAGE_SLOTS);
        assert_eq!(slab.slot_bound(), 3 * PAGE_SLOTS);
        assert_eq!(slab.get(PAGE_SLOTS * 3 - 1).parent, PAGE_SLOTS * 3 - 1);
    }

    #[test]
    fn loaded_pages_keep_their_slots_and_their_holes_are_filled() {
        let mut page = Page::new();
        assert!(page.place(7, node(1)));
        assert!(!page.place(7, node(2)));
        assert!(page.place(2, node(3)));
        let mut slab = Slab::from_pages(vec![page]);
        assert_eq!((slab.get(7).parent, slab.get(2).parent, slab.len()), (1, 3, 2));
        let new: Vec<u32> = (0..7).map(|_| slab.insert(node(0))).collect();
        assert_eq!(new, [0, 1, 3, 4, 5, 6, 8]);
    }
}
