//! What a node with children knows of those below it: the first child, and how much there is in all.
//!
//! - F1: a node has a family exactly while it has children, so that a leaf pays nothing for it.
//! - F2: `nodes` and `bytes` are at every moment those of the whole subtree without its top: asking is O(1), and a change costs one
//!   step per ancestor, which finding the path took as well.
//! - F3: growing never moves a family.

use super::slab::NIL;

const PAGE_LOG2: u32 = 11;
/// Families of a page: 32 KiB.
const PAGE: u32 = 1 << PAGE_LOG2;

/// Of one node with children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// Head of the list of children; in a free place, the next free one.
    pub(super) first_child: u32,
    /// Nodes below.
    pub(super) nodes: u32,
    /// Bytes of data below.
    pub(super) bytes: u64,
}

const _: () = assert!(size_of::<Family>() == 16, "an inner node costs 16 bytes more than a leaf");

/// All families of a tree, named by `u32`.
#[derive(Debug)]
pub(super) struct Families {
    pages: Vec<Vec<Family>>,
    free: u32,
}

impl Default for Families {
    fn default() -> Families {
        Families { pages: Vec::new(), free: NIL }
    }
}

impl Families {
    /// A family of one child, which is not counted yet.
    pub(super) fn add(&mut self, first_child: u32) -> u32 {
        let family = Family { first_child, nodes: 0, bytes: 0 };
        if self.free != NIL {
            let id = self.free;
            let place = self.get_mut(id);
            let next = std::mem::replace(place, family).first_child;
            self.free = next;
            return id;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE as usize) {
            self.pages.push(Vec::with_capacity(PAGE as usize));
        }
        let page_no = self.pages.len() as u32 - 1;
        let page = self.pages.last_mut().expect("one was pushed if there was none");
        page.push(family);
        (page_no << PAGE_LOG2) + page.len() as u32 - 1
    }

    /// The last child is gone.
    pub(super) fn remove(&mut self, id: u32) {
        let next = self.free;
        let place = self.get_mut(id);
        assert_eq!((place.nodes, place.bytes), (0, 0), "nothing is below a node without children (F2)");
        place.first_child = next;
        self.free = id;
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &Family {
        &self.pages[(id >> PAGE_LOG2) as usize][(id & (PAGE - 1)) as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Family {
        &mut self.pages[(id >> PAGE_LOG2) as usize][(id & (PAGE - 1)) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_none_is_shared() {
        let mut families = Families::default();
        let ids: Vec<u32> = (0..3 * PAGE).map(|i| families.add(i)).collect();
        assert!(ids.iter().all(|id| families.get(*id).first_child == *id));
        families.remove(7);
        families.remove(PAGE);
        assert_eq!((families.add(1), families.add(2), families.add(3)), (PAGE, 7, 3 * PAGE));
        assert_eq!(families.get(7), &Family { first_child: 2, nodes: 0, bytes: 0 });
    }
}
