//! Which of the six directions between three servers carry, and which of the 64 sets of them are the same but for names.

use super::state::NODES;

/// A renaming: where each server goes.
pub(super) type Renaming = [usize; NODES];

/// All of them; the first changes nothing.
pub(super) const RENAMINGS: [Renaming; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A set of directions, bit 3 × from + to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkSet(u16);

const fn bit(from: usize, to: usize) -> u16 {
    1 << (NODES * from + to)
}

impl LinkSet {
    /// Every direction carries.
    #[must_use]
    pub fn whole() -> LinkSet {
        LinkSet::all().last().expect("there are 64")
    }

    /// All 64, the whole one last.
    pub fn all() -> impl Iterator<Item = LinkSet> {
        const DIRECTIONS: [u16; 6] = [bit(0, 1), bit(1, 0), bit(0, 2), bit(2, 0), bit(1, 2), bit(2, 1)];
        (0..64_u16).map(|set| {
            let chosen = (0..6).filter(|at| set >> at & 1 == 1).map(|at| DIRECTIONS[at]);
            LinkSet(chosen.sum())
        })
    }

    /// One of each class of sets that are the same but for names, with the size of the class.
    #[must_use]
    pub fn classes() -> Vec<(LinkSet, usize)> {
        let least = |set: LinkSet| RENAMINGS.iter().map(|to| set.renamed(to)).min().expect("there are six");
        LinkSet::all()
            .filter(|set| least(*set) == *set)
            .map(|set| (set, LinkSet::all().filter(|other| least(*other) == set).count()))
            .collect()
    }

    /// Does it carry from one server to another?
    #[must_use]
    pub const fn carries(self, from: usize, to: usize) -> bool {
        self.0 & bit(from, to) != 0
    }

    /// Both ways?
    #[must_use]
    pub const fn connects(self, a: usize, b: usize) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    fn renamed(self, to: &Renaming) -> LinkSet {
        let pairs = (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b)));
        LinkSet(pairs.filter(|(a, b)| self.carries(*a, *b)).map(|(a, b)| bit(to[a], to[b])).sum())
    }

    /// The renamings that leave it as it is.
    pub(super) fn symmetries(self) -> Vec<Renaming> {
        RENAMINGS.into_iter().filter(|to| self.renamed(to) == self).collect()
    }

    /// How many pairs are joined both ways, one way, not at all.
    #[must_use]
    pub fn shape(self) -> [usize; 3] {
        let mut shape = [0; 3];
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            shape[2 - usize::from(self.carries(a, b)) - usize::from(self.carries(b, a))] += 1;
        }
        shape
    }
}

impl std::fmt::Display for LinkSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut none = true;
        for (from, to) in (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b))) {
            if self.carries(from, to) {
                write!(f, "{}{}>{}", if none { "" } else { " " }, from + 1, to + 1)?;
                none = false;
            }
        }
        if none { f.write_str("none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_sets_are_sixteen_but_for_names() {
        let classes = LinkSet::classes();
        assert_eq!((LinkSet::all().count(), classes.len()), (64, 16));
        assert_eq!(classes.iter().map(|(_, size)| size).sum::<usize>(), 64);
        assert!(
            classes.iter().all(|(set, size)| size * set.symmetries().len() == 6),
            "an orbit times its stabiliser"
        );
        assert_eq!((LinkSet::whole().shape(), LinkSet::whole().symmetries().len()), ([3, 0, 0], 6));
    }
}
