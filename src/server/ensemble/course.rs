//! How a member came to where it is: when it began to look for a leader, and how long it took to find one and to serve.
//!
//! - CO1: one owner, the member's thread; what is asked for in between is a copy.
//! - CO2: an election is timed from the moment in which there is no leader to the decision; being unavailable ends when clients are served.

use std::sync::Arc;

use crate::base::MonoMs;
use crate::node::member::Standing;
use crate::server::stats::Histogram;
use crate::wire::election::PeerState;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    state: Option<PeerState>,
    standing: Option<Standing>,
    /// When looking began, until clients are served.
    looking_since: Option<MonoMs>,
    /// When the newest election began.
    electing_since: MonoMs,
    serving_since: Option<MonoMs>,
    /// Times that it began.
    pub(crate) looking: u64,
    /// From there to a decision, milliseconds.
    pub(crate) election_ms: Arc<Histogram>,
    /// From there to serving clients, milliseconds.
    pub(crate) unavailable_ms: Arc<Histogram>,
    /// The same as a leader.
    pub(crate) leader_unavailable_ms: Arc<Histogram>,
}

impl Course {
    /// Takes note of what the member does now; true when that is something else than before.
    pub(crate) fn observe(&mut self, state: PeerState, standing: Option<Standing>, now: MonoMs) -> bool {
        if (self.state, self.standing) == (Some(state), standing) {
            return false;
        }
        self.note_state(state, now);
        self.note_standing(standing, now);
        true
    }

    fn note_state(&mut self, state: PeerState, now: MonoMs) {
        let before = self.state.replace(state);
        if before == Some(state) {
            return;
        }
        if state == PeerState::Looking {
            self.looking += 1;
            // An election that led nowhere is over, but nobody was served in between.
            self.looking_since.get_or_insert(now);
            self.electing_since = now;
        } else if before == Some(PeerState::Looking) {
            self.election_ms.add(now.since(self.electing_since));
        }
    }

    fn note_standing(&mut self, standing: Option<Standing>, now: MonoMs) {
        if self.standing == standing {
            return;
        }
        self.standing = standing;
        self.serving_since = standing.map(|_| now);
        let Some(serving) = standing else { return };
        let Some(since) = self.looking_since.take() else { return };
        self.unavailable_ms.add(now.since(since));
        if matches!(serving, Standing::Leading { .. }) {
            self.leader_unavailable_ms.add(now.since(since));
        }
    }

    /// How long clients have been served in this standing; 0 while they are not.
    pub(crate) fn serving_ms(&self, now: MonoMs) -> u64 {
        self.serving_since.map_or(0, |since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, ServerId};

    const LEADS: Option<Standing> = Some(Standing::Leading { epoch: Epoch(1) });
    const FOLLOWS: Option<Standing> =
        Some(Standing::Learning { leader: ServerId(2), epoch: Epoch(2), observer: false });

    #[test]
    fn elections_and_being_unavailable_are_timed_from_the_loss_of_the_leader() {
        let mut course = Course::default();
        assert!(course.observe(PeerState::Looking, None, MonoMs(100)));
        assert!(!course.observe(PeerState::Looking, None, MonoMs(150)));
        assert!(course.observe(PeerState::Leading, None, MonoMs(300)));
        assert!(course.observe(PeerState::Leading, LEADS, MonoMs(350)));
        assert_eq!(course.serving_ms(MonoMs(1_350)), 1_000);
        assert!(course.observe(PeerState::Looking, None, MonoMs(2_000)));
        assert_eq!(course.serving_ms(MonoMs(2_001)), 0);
        assert!(course.observe(PeerState::Following, FOLLOWS, MonoMs(2_020)));
        let (elections, unavailable) = (course.election_ms.summary(), course.unavailable_ms.summary());
        assert_eq!((elections.count, elections.min, elections.max), (2, 20, 200));
        assert_eq!((unavailable.count, unavailable.min, unavailable.max), (2, 20, 250));
        assert_eq!(course.leader_unavailable_ms.summary().count, 1);
        assert_eq!(course.looking, 2);
    }

    #[test]
    fn an_election_that_leads_nowhere_does_not_start_the_clock_again() {
        let mut course = Course::default();
        course.observe(PeerState::Looking, None, MonoMs(0));
        course.observe(PeerState::Leading, None, MonoMs(10));
        course.observe(PeerState::Looking, None, MonoMs(500));
        course.observe(PeerState::Following, None, MonoMs(510));
        course.observe(PeerState::Following, FOLLOWS, MonoMs(520));
        assert_eq!(course.unavailable_ms.summary().max, 520);
        assert_eq!(course.looking, 2);
    }
}
