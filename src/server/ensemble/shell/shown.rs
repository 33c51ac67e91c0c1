//! What is shown of the member, and said while there is no leader.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Shell, ensemble};
use crate::base::ServerId;
use crate::server::ensemble::Figures;

/// How often the figures that are shown are brought up to date.
const FIGURES_EVERY: Duration = Duration::from_millis(100);

/// And then says so again.
const MISSING_EVERY: Duration = Duration::from_secs(10);

/// Without a leader for so long, and for a tick, clients may read; as long as ZooKeeper waits.
const READ_ONLY_AFTER: Duration = Duration::from_secs(2);

/// How often it is written down how far the log is committed, so that a start has less to wait for.
const NOTE_COMMITTED_EVERY: Duration = Duration::from_secs(10);

impl Shell {
    /// Now and then: a start goes up to there without asking anyone.
    fn note_committed(&mut self) {
        // Two flushes here and now: on a slow disk nobody would be heard meanwhile.
        if self.noted_at.elapsed() >= NOTE_COMMITTED_EVERY && !self.pace.is_slow() {
            self.noted_at = Instant::now();
            self.member.note_committed();
        }
    }

    pub(super) fn show_figures(&mut self) {
        let changed = ensemble(&self.shared).observe(self.member.peer_state(), self.shared.mono_now());
        if !changed && self.figures_at.elapsed() < FIGURES_EVERY {
            return;
        }
        self.look_after_looking();
        self.note_committed();
        self.figures_at = Instant::now();
        let positions = self.member.positions();
        *ensemble(&self.shared).figures.lock() = Figures {
            epochs: self.member.epochs(),
            recall: Some(self.member.recall()),
            appended: positions.appended(),
            committed: positions.committed(),
            learners: self.member.learners(),
            config: Some(Arc::clone(self.member.config())),
        };
    }

    /// Without a leader for long: says whom it waits for, and lets clients read if the operator wants it.
    fn look_after_looking(&mut self) {
        let ensemble = ensemble(&self.shared);
        if ensemble.standing().is_some() {
            return;
        }
        let names = |ids: Vec<ServerId>| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ");
        let (missing, voteless) = (self.member.unheard(), self.member.voteless());
        if self.missing_at <= Instant::now() && !(missing.is_empty() && voteless.is_empty()) {
            self.missing_at = Instant::now() + MISSING_EVERY;
            if voteless.is_empty() {
                tracing::warn!(missing = names(missing), "waiting for a quorum");
            } else {
                // Their directories are new or were damaged: what they once acknowledged may be known to those who are missing alone.
                tracing::warn!(
                    missing = names(missing),
                    without_vote = names(voteless),
                    "waiting for a quorum of servers that have forgotten nothing; if those missing are gone for good, see `zabra recover --help`"
                );
            }
        }
        let patience = READ_ONLY_AFTER.max(Duration::from_millis(self.shared.config.tick_ms.into()));
        let looking = self.looking_since.elapsed();
        let may_read =
            ensemble.config.read_only_enabled && self.member.has_tree() && !self.member.has_diverged();
        if may_read && looking >= patience && !ensemble.is_read_only() {
            tracing::warn!("no quorum: clients that ask for it may read");
            ensemble.read_only.store(true, Ordering::Release);
        }
    }
}
