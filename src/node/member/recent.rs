//! The groups appended last, kept in memory until they are applied: the broadcast and the tree are fed from here, not from the disk.

use std::collections::VecDeque;

use crate::base::Zxid;
use crate::storage::log::Group;

/// Bytes above which everything kept is let go of, and read from the log again when its time comes.
const KEEP_BYTES_MAX: usize = 64 << 20;

/// Buffers kept for reuse.
const POOL_MAX: usize = 8;

/// Buffers above this are given back after use, bytes.
const BUFFER_KEEP_MAX: usize = 4 << 20;

/// See the module's documentation. What is here is contiguous, and reaches to the end of the log.
#[derive(Debug)]
pub(super) struct Recent {
    groups: VecDeque<Group>,
    /// What the first record here follows.
    after: Zxid,
    bytes: usize,
    pool: Vec<Group>,
}

impl Recent {
    pub(super) fn new(last: Zxid) -> Recent {
        Recent { groups: VecDeque::new(), after: last, bytes: 0, pool: Vec::new() }
    }

    /// An empty buffer.
    pub(super) fn take_buffer(&mut self) -> Group {
        self.pool.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, mut group: Group) {
        if group.bytes() <= BUFFER_KEEP_MAX && self.pool.len() < POOL_MAX {
            group.clear();
            self.pool.push(group);
        }
    }

    /// A group that was appended.
    pub(super) fn push(&mut self, group: Group) {
        self.bytes += group.bytes();
        let last = group.last_zxid().expect("an empty group is not appended");
        self.groups.push_back(group);
        if self.bytes > KEEP_BYTES_MAX {
            self.restart(last);
        }
    }

    /// Nothing is kept; the log ends at `last`.
    pub(super) fn restart(&mut self, last: Zxid) {
        while let Some(group) = self.groups.pop_front() {
            self.give_back(group);
        }
        (self.after, self.bytes) = (last, 0);
    }

    /// What the first record kept follows.
    pub(super) fn after(&self) -> Zxid {
        self.after
    }

    /// Lets go of the groups that are applied in whole.
    pub(super) fn applied(&mut self, zxid: Zxid) {
        while let Some(last) = self.groups.front().and_then(Group::last_zxid).filter(|last| *last <= zxid) {
            let group = self.groups.pop_front().expect("looked at just now");
            self.bytes -= group.bytes();
            self.after = last;
            self.give_back(group);
        }
    }

    /// The records behind `after` up to `upto`, in order, as far as they are kept.
    pub(super) fn records(&self, after: Zxid, upto: Zxid) -> impl Iterator<Item = (Zxid, &[u8])> {
        let groups = self.groups.iter().skip_while(move |g| g.last_zxid().is_some_and(|last| last <= after));
        let records = groups.flat_map(Group::iter).map(|(zxid, _, payload)| (zxid, payload));
        records.skip_while(move |(zxid, _)| *zxid <= after).take_while(move |(zxid, _)| *zxid <= upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::RecordKind;

    fn group(zxids: std::ops::RangeInclusive<u64>) -> Group {
        let mut group = Group::new();
        for zxid in zxids {
            group.record(Zxid(zxid), RecordKind::Txn, |out| out.extend_from_slice(&zxid.to_be_bytes()));
        }
        group
    }

    fn zxids(recent: &Recent, after: u64, upto: u64) -> Vec<u64> {
        recent.records(Zxid(after), Zxid(upto)).map(|(zxid, _)| zxid.0).collect()
    }

    #[test]
    fn records_are_found_across_groups_and_go_when_applied() {
        let mut recent = Recent::new(Zxid(4));
        recent.push(group(5..=7));
        recent.push(group(8..=8));
        recent.push(group(9..=12));
        assert_eq!(zxids(&recent, 4, 99), [5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(zxids(&recent, 6, 10), [7, 8, 9, 10]);
        recent.applied(Zxid(9));
        assert_eq!((recent.after(), zxids(&recent, 8, 11)), (Zxid(8), vec![9, 10, 11]));
        recent.restart(Zxid(12));
        assert_eq!((recent.after(), recent.bytes), (Zxid(12), 0));
        assert!(zxids(&recent, 0, 99).is_empty());
    }
}
