//! The counter of a zxid has 32 bits. Before it is used up the leader enters its next epoch, with the learners it has and on the links it has: the same
//! discovery and synchronisation as between any two epochs, which find everybody in step already. Nobody looks for a leader, no client is
//! disconnected; writes wait for two round trips (rule R18).
//!
//! - RO1: it begins when everything proposed is committed and nobody waits for a sync, and nothing is proposed until it is over.
//! - RO2: it is a change of epochs like any other: the machines of the old epoch are dropped, new ones begin with what is durable.
//! - RO3: learners that are no Zabra nodes do not expect it: they are disconnected, and come again. So is one that answers so late that the log does not
//!   reach back to it any more: a state that came to it while it serves would take from its clients what they watch, and they would not know.

use super::link::{Kind, Source};
use super::{Member, Role};
use crate::base::MonoMs;
use crate::storage::superblock::Recall;
use crate::zab::leader::Input;
use crate::zab::learner::{self, Learner, Start};
use crate::zab::{LinkId, Rule};

impl Member {
    /// Writes may be proposed: this server leads, serves, and is not between two epochs.
    #[must_use]
    pub fn may_propose(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        self.serving && self.serve_at.is_none() && leading.is_established() && !self.is_used_up()
    }

    /// This epoch is used up, or the next one is not established yet.
    pub(super) fn is_between_epochs(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        !self.broken.is(Rule::ZxidsRunOut) && self.serving && (self.is_used_up() || !leading.is_established())
    }

    /// No zxid is left in this epoch, but for what is under way.
    fn is_used_up(&self) -> bool {
        let appended = self.positions.appended();
        let Role::Leading(leading) = &self.role else { return false };
        leading.epoch() == Some(appended.epoch()) && appended.counter() >= self.options.counter_max
    }

    /// Enters the next epoch if this one is used up, as soon as nothing is under way in it.
    pub(super) fn roll_over(&mut self, now: MonoMs) {
        let Role::Leading(leading) = &self.role else { return };
        if self.broken.is(Rule::ZxidsRunOut) {
            return;
        }
        let settled = self.positions.committed() == self.positions.appended() && self.positions.is_flushed();
        if !self.serving || !leading.is_established() || !self.is_used_up() || !settled || leading.has_syncs()
        {
            return;
        }
        tracing::info!(zxid = %self.positions.appended(), "zxids of this epoch are used up: the next one begins");
        let again = self.keep_zabra_links(now);
        let (accepted, _) = self.epochs();
        let next = self.new_leader(now);
        let Role::Leading(leading) = &mut self.role else { return };
        leading.leader = next.after(&leading.leader).breaking(self.broken);
        leading.began_at = self.positions.appended();
        for (link, id) in again {
            self.lead_input(now, Input::Joined { link, id, accepted, zabra: true });
        }
        // Alone, it had its quorum at once.
        self.lead_input(now, Input::Timer);
    }

    /// Learners that join the next epoch as they are; the others are closed.
    fn keep_zabra_links(&mut self, now: MonoMs) -> Vec<(LinkId, crate::base::ServerId)> {
        let mut again = Vec::new();
        let mut others = Vec::new();
        for (id, link) in &mut self.links {
            let Kind::Learner(feed) = &mut link.kind else { continue };
            if feed.zabra && feed.up_to_date && matches!(feed.source, Source::Live) {
                feed.source = Source::Idle;
                (feed.new_leader_sent, feed.up_to_date) = (false, false);
                // Who asked for a whole state has got it.
                (feed.needs_state, feed.kept) = (false, true);
                again.push((*id, feed.id));
            } else {
                others.push(*id);
            }
        }
        for link in others {
            self.close(link, Some("zxids of this epoch are used up; it joins the next one".to_owned()));
            self.lead_input(now, Input::Left(link));
        }
        again
    }

    /// LEADERINFO on a link whose learner is in step: the leader enters its next epoch.
    pub(super) fn begin_next_epoch(&mut self, now: MonoMs) {
        let start = self.learner_start();
        let Role::Learning(learning) = &mut self.role else { return };
        if !learning.learner.is_in_step() {
            return;
        }
        assert!(self.positions.is_flushed(), "held until it is");
        let mut next = Learner::new(now, self.options.limits, start).breaking(self.broken);
        // It has said who it is.
        let opened = next.handle(now, learner::Input::Opened);
        assert!(
            opened.is_ok() && next.poll() == Some(learner::Output::Hello),
            "what a new connection begins with"
        );
        learning.learner = next;
    }

    /// A learner that is in step tells of its log only when that is durable: until then LEADERINFO waits.
    pub(super) fn holds_for_flush(&mut self, now: MonoMs) -> bool {
        self.append_received(now);
        let Role::Learning(learning) = &mut self.role else { return false };
        learning.held_for_flush = learning.learner.is_in_step() && !self.positions.is_flushed();
        learning.held_for_flush
    }

    /// What this learner has.
    pub(super) fn learner_start(&self) -> Start {
        let (accepted, current) = self.epochs();
        Start {
            accepted,
            current,
            last: self.positions.appended(),
            committed: self.positions.committed(),
            voter: self.electorate.is_voter(self.options.me),
            whole: self.recall() == Recall::Whole,
        }
    }
}
