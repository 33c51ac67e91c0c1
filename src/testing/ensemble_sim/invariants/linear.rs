//! Registers are linearizable as their clients see them, whatever zxids the servers show: writes, and reads right behind a sync.
//!
//! All values of a register differ, so that a read says which write it saw. Then there is no need to search for an order (Gibbons and Korach,
//! "Testing shared memories", 1997): a write and its reads are a cluster, whose zone lies between the first of their ends and the last of their
//! beginnings. Forwards it holds the register for all of that time; backwards it needs one moment of it.

use std::collections::BTreeMap;

use super::super::{Violation, World, violated};

/// A write, or a read, from its request to its answer; moments of one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Access {
    pub(in super::super) write: bool,
    /// `None` before the first write.
    pub(in super::super) value: Option<Vec<u8>>,
    pub(in super::super) from: u64,
    /// [`u64::MAX`]: never answered.
    pub(in super::super) to: u64,
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    first_end: u64,
    last_begin: u64,
}

impl Zone {
    const fn is_forward(self) -> bool {
        self.first_end < self.last_begin
    }
}

pub(in super::super) fn check(world: &mut World) -> Result<(), Violation> {
    for (path, accesses) in &world.model.accesses {
        world.counts.linear += accesses.len() as u64;
        if let Err(why) = check_register(accesses) {
            return violated(format!("{path} is not linearizable: {why}"));
        }
    }
    Ok(())
}

fn check_register(accesses: &[Access]) -> Result<(), String> {
    let text = |value: &Option<Vec<u8>>| match value {
        None => "nothing".to_owned(),
        Some(value) => String::from_utf8_lossy(value).trim_end_matches('.').to_owned(),
    };
    let first = Access { write: true, value: None, from: 0, to: 0 };
    let mut clusters: BTreeMap<&Option<Vec<u8>>, Vec<&Access>> = [(&None, vec![&first])].into();
    for access in accesses {
        clusters.entry(&access.value).or_default().push(access);
    }
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (value, cluster) in &clusters {
        let mut writes = cluster.iter().filter(|access| access.write);
        let (Some(write), None) = (writes.next(), writes.next()) else {
            return Err(format!("{} is read, and was not written once", text(value)));
        };
        if let Some(early) = cluster.iter().find(|access| !access.write && access.to < write.from) {
            return Err(format!("{} is read at {}, and written from {}", text(value), early.to, write.from));
        }
        if write.to == u64::MAX && cluster.len() == 1 {
            // It may never have happened.
            continue;
        }
        let zone = Zone {
            first_end: cluster.iter().map(|access| access.to).min().expect("the write"),
            last_begin: cluster.iter().map(|access| access.from).max().expect("the write"),
        };
        if zone.is_forward() { &mut forward } else { &mut backward }.push((zone, *value));
    }
    forward.sort_unstable_by_key(|(zone, _)| zone.first_end);
    for pair in forward.windows(2) {
        if pair[1].0.first_end < pair[0].0.last_begin {
            return Err(format!(
                "{} is there from {} to {}, {} from {}",
                text(pair[0].1),
                pair[0].0.first_end,
                pair[0].0.last_begin,
                text(pair[1].1),
                pair[1].0.first_end
            ));
        }
    }
    for (zone, value) in backward {
        let before = forward.partition_point(|(other, _)| other.first_end < zone.last_begin);
        if let Some((other, holder)) = forward[..before].last()
            && zone.first_end < other.last_begin
        {
            return Err(format!(
                "{} came between {} and {}, when {} was there all the time",
                text(value),
                zone.last_begin,
                zone.first_end,
                text(holder)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn access(write: bool, value: u64, from: u64, to: u64) -> Access {
        let value = (value > 0).then(|| value.to_string().into_bytes());
        Access { write, value, from, to }
    }

    /// Is there an order? Asked of all of them.
    fn searched(accesses: &[Access]) -> bool {
        fn go(left: &mut Vec<Access>, value: &Option<Vec<u8>>) -> bool {
            if left.iter().all(|access| access.to == u64::MAX) {
                return true;
            }
            let first_end = left.iter().map(|access| access.to).min().expect("some are left");
            for at in 0..left.len() {
                let access = left[at].clone();
                if access.from > first_end || !(access.write || access.value == *value) {
                    continue;
                }
                left.remove(at);
                let found = go(left, if access.write { &access.value } else { value });
                left.insert(at, access);
                if found {
                    return true;
                }
            }
            false
        }
        go(&mut accesses.to_vec(), &None)
    }

    #[test]
    fn what_is_not_linearizable_is_noticed() {
        let fine = [
            access(true, 1, 1, 4),
            access(false, 1, 2, 3),
            access(true, 2, 5, u64::MAX),
            access(false, 1, 6, 7),
        ];
        assert_eq!(check_register(&fine), Ok(()));
        let stale = [access(true, 1, 1, 2), access(true, 2, 3, 4), access(false, 1, 5, 6)];
        assert!(check_register(&stale).is_err());
        let back = [
            access(true, 1, 1, 9),
            access(true, 2, 1, 9),
            access(false, 1, 2, 3),
            access(false, 2, 4, 5),
            access(false, 1, 6, 7),
        ];
        assert!(check_register(&back).is_err());
        assert!(check_register(&[access(false, 7, 1, 2)]).is_err(), "nobody wrote it");
        assert!(check_register(&[access(false, 1, 1, 2), access(true, 1, 3, 4)]).is_err(), "before its time");
        assert!(check_register(&[access(true, 1, 1, 2), access(false, 0, 3, 4)]).is_err(), "it is lost");
    }

    /// Against a search through all orders.
    #[test]
    fn zones_say_what_a_search_says() {
        let mut rng = Rng::new(7);
        let mut seen = [0, 0];
        for _ in 0..20_000 {
            let count = 2 + rng.below(5);
            let mut moments: Vec<u64> = (1..=2 * count).collect();
            for at in (1..moments.len()).rev() {
                moments.swap(at, rng.below(at as u64 + 1) as usize);
            }
            let (mut accesses, mut written) = (Vec::new(), 0);
            for pair in moments.chunks(2) {
                let (from, to) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                if rng.one_in(2) {
                    written += 1;
                    accesses.push(access(true, written, from, if rng.one_in(5) { u64::MAX } else { to }));
                } else {
                    accesses.push(access(false, rng.below(written + 1), from, to));
                }
            }
            let linearizable = searched(&accesses);
            assert_eq!(check_register(&accesses).is_ok(), linearizable, "{accesses:?}");
            seen[usize::from(linearizable)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 2_000), "{seen:?}");
    }
}
