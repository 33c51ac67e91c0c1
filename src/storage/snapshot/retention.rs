//! Which snapshots may go: a pure function of what is held. N5 lives here.

use std::time::Duration;

use crate::base::{WallMs, Zxid};

/// How many snapshots are kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Verified snapshots kept whatever their age; at least 1 is.
    pub count_min: usize,
    /// Verified snapshots kept at most.
    pub count_max: usize,
    /// Verified snapshots older than this go, down to `count_min`; `None` keeps them.
    pub age_max: Option<Duration>,
}

impl Default for Retention {
    /// Three, as ZooKeeper's `autopurge.snapRetainCount`; two when they are older than a week.
    fn default() -> Retention {
        Retention { count_min: 2, count_max: 3, age_max: Some(Duration::from_secs(7 * 24 * 3_600)) }
    }
}

/// A snapshot as the plan sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSnapshot {
    /// Its name.
    pub zxid: Zxid,
    /// When it was begun.
    pub created: WallMs,
    /// True when it has been read back whole since it was written, and was good.
    pub verified: bool,
}

/// What to do with the snapshots held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// These may be removed, oldest first.
    pub remove: Vec<Zxid>,
    /// The log must keep every transaction after this one: the oldest verified snapshot that stays. `None` when there is
    /// none: the log must keep everything.
    pub log_needed_after: Option<Zxid>,
}

/// Plans what may be removed from `held` (any order) at time `now`. Never the newest verified snapshot nor anything newer than
/// it; unverified ones (damaged, or not read back yet) only when they are older than that.
#[must_use]
pub fn plan_retention(held: &[HeldSnapshot], retention: &Retention, now: WallMs) -> RetentionPlan {
    let mut newest_first = held.to_vec();
    newest_first.sort_by_key(|s| std::cmp::Reverse(s.zxid));
    let (count_min, mut plan) = (retention.count_min.max(1), RetentionPlan::default());
    let mut verified_kept = 0;
    for snapshot in newest_first {
        let keep = if snapshot.verified {
            verified_kept < count_min
                || (verified_kept < retention.count_max && !is_old(&snapshot, retention, now))
        } else {
            verified_kept == 0
        };
        if !keep {
            plan.remove.push(snapshot.zxid);
        } else if snapshot.verified {
            verified_kept += 1;
            plan.log_needed_after = Some(snapshot.zxid);
        }
    }
    plan.remove.reverse();
    assert!(plan.remove.is_empty() || verified_kept > 0, "nothing goes without a verified cover");
    plan
}

fn is_old(snapshot: &HeldSnapshot, retention: &Retention, now: WallMs) -> bool {
    let age_ms = now.0.saturating_sub(snapshot.created.0);
    retention.age_max.is_some_and(|max| i128::from(age_ms) > max.as_millis() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const NOW: WallMs = WallMs(1_000 * HOUR_MS);

    fn held(zxid: u64, hours_ago: i64, verified: bool) -> HeldSnapshot {
        HeldSnapshot { zxid: Zxid(zxid), created: WallMs(NOW.0 - hours_ago * HOUR_MS), verified }
    }

    fn plan(held: &[HeldSnapshot]) -> (Vec<u64>, Option<u64>) {
        let plan = plan_retention(held, &Retention::default(), NOW);
        (plan.remove.iter().map(|z| z.0).collect(), plan.log_needed_after.map(|z| z.0))
    }

    #[test]
    fn the_newest_three_stay() {
        let all: Vec<_> = (1..=5).map(|n| held(n, 6 - n as i64, true)).collect();
        assert_eq!(plan(&all), (vec![1, 2], Some(3)));
        assert_eq!(plan(&all[..3]), (vec![], Some(1)));
    }

    #[test]
    fn old_ones_go_but_two_stay_however_old() {
        let all = [held(1, 900, true), held(2, 800, true), held(3, 1, true)];
        assert_eq!(plan(&all), (vec![1], Some(2)));
        let all = [held(1, 900, true), held(2, 800, true), held(3, 700, true)];
        assert_eq!(plan(&all), (vec![1], Some(2)));
    }

    #[test]
    fn without_a_verified_cover_nothing_goes() {
        let all: Vec<_> = (1..=9).map(|n| held(n, 900, false)).collect();
        assert_eq!(plan(&all), (vec![], None));
        assert_eq!(plan(&[]), (vec![], None));
    }

    #[test]
    fn nothing_newer_than_the_newest_verified_one_goes() {
        let all = [held(1, 9, false), held(2, 8, true), held(3, 900, false), held(4, 900, false)];
        assert_eq!(plan(&all), (vec![1], Some(2)));
    }

    #[test]
    fn a_configuration_of_zero_still_keeps_one() {
        let none = Retention { count_min: 0, count_max: 0, age_max: Some(Duration::ZERO) };
        let plan = plan_retention(&[held(1, 2, true), held(2, 1, true)], &none, NOW);
        assert_eq!((plan.remove, plan.log_needed_after), (vec![Zxid(1)], Some(Zxid(2))));
    }

    #[test]
    fn a_clock_that_stepped_back_makes_nothing_old() {
        let all = [held(1, -900, true), held(2, -800, true), held(3, -700, true)];
        assert_eq!(plan(&all), (vec![], Some(1)));
    }
}
