//! One attachment of a follower or observer to a leader, from the first packet to the last. Whatever ends it, the next one begins anew.
//!
//! - A1: an epoch is promised durably before the promise is told; one below the promised one is refused (rule R8).
//! - A2: what is received follows what is there: the next counter, or the first of a later epoch. A gap ends the attachment (rule R2).
//! - A3: history up to NEWLEADER durable, then the epoch durable, then the ACK of NEWLEADER: states, one after the other (rule R1).
//! - A4: nothing counts as committed before UPTODATE; then all that the epoch began with does, and what COMMIT named (rule R4).
//! - A5: a proposal is acknowledged when it is durable, and not before UPTODATE.
//! - A6: a leader that is silent for too long is left.
//! - A7: who may have forgotten something makes no promise that counts: a leader could take it for word that nothing is missing. (It
//!   answers as one that had promised before.)

use std::collections::VecDeque;

use super::leader::EPOCH_MAX;
use super::{Broken, CommittedLost, Limits, Rule};
use crate::base::{Epoch, MonoMs, Zxid};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The connection stands.
    Opened,
    /// Something came, whatever it was.
    Heard,
    /// LEADERINFO.
    LeaderInfo {
        /// The epoch proposed.
        epoch: Epoch,
        /// It probes, and understands cumulative acknowledgements.
        zabra: bool,
    },
    /// The epoch of [`Output::Accept`] is durable.
    Accepted,
    /// DIFF: everything behind what this server has follows.
    Diff {
        /// What the leader has committed, or will have once established.
        upto: Zxid,
    },
    /// TRUNC.
    Trunc {
        /// Where to cut.
        to: Zxid,
    },
    /// The log ends at `last` now, which may be below what was asked for: then the leader must be asked anew.
    Truncated {
        /// The last transaction left.
        last: Zxid,
    },
    /// SNAP.
    Snap {
        /// The state's.
        zxid: Zxid,
    },
    /// The state has arrived, is durable and loaded.
    Installed,
    /// PROPOSAL. Without an error, it is to be appended.
    Proposal(Zxid),
    /// COMMIT.
    Commit(Zxid),
    /// INFORM: a proposal that is committed. Without an error, it is to be appended first.
    Inform(Zxid),
    /// NEWLEADER.
    NewLeader(Zxid),
    /// The epoch of [`Output::Enter`] is durable.
    Entered,
    /// UPTODATE.
    UpToDate,
    /// The log is durable up to here.
    Durable(Zxid),
    /// The time asked for may have come.
    Timer,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send FOLLOWERINFO or OBSERVERINFO.
    Hello,
    /// Make this the accepted epoch, durably; then [`Input::Accepted`].
    Accept(Epoch),
    /// Send ACKEPOCH, with the current epoch unless this one had been accepted before.
    AckEpoch {
        /// With `None` it is not counted.
        current: Option<Epoch>,
    },
    /// Cut the log, durably; then [`Input::Truncated`].
    Truncate {
        /// Behind this one, or the greatest below it that is there.
        to: Zxid,
    },
    /// What follows on the link is the whole state; then [`Input::Installed`].
    Receive {
        /// The state's.
        zxid: Zxid,
    },
    /// Make this the current epoch, durably; then [`Input::Entered`].
    Enter(Epoch),
    /// Send ACK of NEWLEADER; the second time, of UPTODATE.
    AckEntered(Epoch),
    /// The server is in step: it may serve once what is committed is applied.
    InStep,
    /// Everything up to here is committed.
    Commit(Zxid),
    /// Send ACK of each proposal in the range, or of the last one to a leader for whom that will do.
    Ack {
        /// The first.
        from: Zxid,
        /// The last, of the same epoch.
        to: Zxid,
    },
}

/// Why an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnerError {
    /// The epoch is below the one promised.
    #[error("the leader proposes epoch {found}, this server has promised itself to {accepted}")]
    StaleEpoch {
        /// Proposed.
        found: Epoch,
        /// Promised.
        accepted: Epoch,
    },
    /// An epoch nobody gets to.
    #[error("epoch {0} cannot be right")]
    Epoch(Epoch),
    /// A packet that does not belong there.
    #[error("{0} out of order")]
    OutOfOrder(&'static str),
    /// A transaction that does not follow the last one.
    #[error("transaction {found} does not follow {last}")]
    Gap {
        /// Last in the log.
        last: Zxid,
        /// Received.
        found: Zxid,
    },
    /// What is committed was not received.
    #[error("commit of {found}, but the log ends at {last}")]
    CommitOfUnknown {
        /// Last in the log.
        last: Zxid,
        /// Committed.
        found: Zxid,
    },
    /// The leader's history lacks what is committed here: there are two histories, or a quorum has lost its disks.
    #[error("the leader lacks what was committed: {0}")]
    CommittedLost(#[from] CommittedLost),
    /// What was to be cut is not there: less is left, and the leader must be asked anew.
    #[error("cut to {found} instead of {wanted}: asking again")]
    CutBelow {
        /// Asked for.
        wanted: Zxid,
        /// What is left.
        found: Zxid,
    },
    /// Nothing was heard for too long.
    #[error("the leader is silent for {0} ms")]
    Silent(u64),
    /// Synchronisation takes longer than `initLimit`.
    #[error("not in step within initLimit ({0} ms)")]
    TooSlow(u64),
}

/// What this server has when the attachment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Accepted epoch, durable.
    pub accepted: Epoch,
    /// Current epoch, durable.
    pub current: Epoch,
    /// Last zxid in the log, durable.
    pub last: Zxid,
    /// Known to be committed.
    pub committed: Zxid,
    /// It votes; observers acknowledge no proposals.
    pub voter: bool,
    /// What it has is all it ever acknowledged, so that its promise counts. Otherwise it is brought up to date by a leader whom others have
    /// promised themselves to (A7).
    pub whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Connecting,
    Asked,
    Accepting,
    /// ACKEPOCH was sent.
    Promised,
    Cutting(Zxid),
    Receiving(Zxid),
    /// Records of the leader's history, up to NEWLEADER.
    History,
    /// NEWLEADER has come; what came before it becomes durable.
    Flushing,
    Entering,
    /// NEWLEADER is acknowledged.
    Entered,
    InStep,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Learner {
    limits: Limits,
    start: Start,
    stage: Stage,
    epoch: Epoch,
    zabra: bool,
    last: Zxid,
    /// Last in the log of an earlier epoch than the leader's: part of what it began with.
    last_of_earlier: Zxid,
    /// Last in the log when NEWLEADER came.
    history_last: Zxid,
    durable: Zxid,
    /// Named by COMMIT, DIFF or SNAP; counts from UPTODATE on.
    committed: Zxid,
    /// Acknowledged up to here.
    acked: Zxid,
    heard: MonoMs,
    begun: MonoMs,
    broken: Broken,
    outputs: VecDeque<Output>,
}

impl Learner {
    /// An attachment whose connection is being made.
    #[must_use]
    pub fn new(now: MonoMs, limits: Limits, start: Start) -> Learner {
        assert!(start.current <= start.accepted && start.committed <= start.last);
        Learner {
            limits,
            start,
            stage: Stage::Connecting,
            epoch: start.accepted,
            zabra: false,
            last: start.last,
            last_of_earlier: Zxid::ZERO,
            history_last: Zxid::ZERO,
            durable: start.last,
            committed: start.committed,
            acked: Zxid::ZERO,
            heard: now,
            begun: now,
            broken: Broken::default(),
            outputs: VecDeque::new(),
        }
    }

    /// The same, with a rule switched off.
    #[must_use]
    pub fn breaking(self, broken: Broken) -> Learner {
        Learner { broken, ..self }
    }

    /// Takes one input. Time never runs backwards between calls.
    ///
    /// # Errors
    /// The attachment is over: close the connection, look for a leader.
    pub fn handle(&mut self, now: MonoMs, input: Input) -> Result<(), LearnerError> {
        match input {
            Input::Opened => {
                self.advance("connection", Stage::Connecting, Stage::Asked)?;
                self.heard = now;
                self.outputs.push_back(Output::Hello);
            }
            Input::Heard => self.heard = now,
            Input::LeaderInfo { epoch, zabra } => self.leader_info(epoch, zabra)?,
            Input::Accepted => {
                self.advance("the accepted epoch", Stage::Accepting, Stage::Promised)?;
                let counts = self.start.whole || self.broken.is(Rule::ForgetfulPromise);
                self.outputs.push_back(Output::AckEpoch { current: counts.then_some(self.start.current) });
            }
            Input::Diff { upto } => {
                self.advance("DIFF", Stage::Promised, Stage::History)?;
                self.committed = self.committed.max(upto.min(self.last));
            }
            Input::Trunc { to } => self.trunc(to)?,
            Input::Truncated { last } => self.truncated(last)?,
            Input::Snap { zxid } => self.snap(zxid)?,
            Input::Installed => self.installed()?,
            Input::Proposal(zxid) => self.proposal(zxid)?,
            Input::Commit(zxid) => self.commit(zxid)?,
            Input::Inform(zxid) => {
                self.proposal(zxid)?;
                self.commit(zxid)?;
            }
            Input::NewLeader(zxid) => self.new_leader(zxid)?,
            Input::Entered => {
                self.advance("the current epoch", Stage::Entering, Stage::Entered)?;
                self.outputs.push_back(Output::AckEntered(self.epoch));
            }
            Input::UpToDate => self.up_to_date()?,
            Input::Durable(zxid) => self.durable(zxid),
            Input::Timer => self.timer(now)?,
        }
        Ok(())
    }

    /// The next thing to do; `None` when all is done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timer`] is due.
    #[must_use]
    pub fn next_timer(&self) -> MonoMs {
        match self.stage {
            Stage::InStep => self.heard.plus(self.silence_ms()),
            _ if self.broken.is(Rule::LongSyncTakenForDeath) => self.begun.plus(self.limits.init_ms),
            // What moves counts: a long history is not a lost leader.
            _ => self.heard.max(self.begun).plus(self.limits.init_ms),
        }
    }

    /// The leader's epoch, once it is promised.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        (self.stage >= Stage::Promised).then_some(self.epoch)
    }

    /// The server may serve.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.stage == Stage::InStep
    }

    /// The leader is a Zabra node.
    #[must_use]
    pub const fn leader_is_zabra(&self) -> bool {
        self.zabra
    }

    /// Its promise counts (A7).
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.start.whole
    }

    /// The packets that come are transactions of the leader's history, before UPTODATE.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.stage >= Stage::Promised && self.stage < Stage::InStep
    }

    /// What the machine's next steps depend on, times aside: by this a search knows a state again.
    #[cfg(any(test, feature = "testing"))]
    pub fn fingerprint(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        assert!(self.outputs.is_empty(), "drained after each input");
        let Start { accepted, current, committed, whole, .. } = self.start;
        (accepted, current, committed, whole, self.stage, self.epoch).hash(into);
        (self.last, self.last_of_earlier, self.history_last).hash(into);
        (self.durable, self.committed, self.acked).hash(into);
    }

    fn advance(&mut self, what: &'static str, from: Stage, to: Stage) -> Result<(), LearnerError> {
        if self.stage != from {
            return Err(LearnerError::OutOfOrder(what));
        }
        self.stage = to;
        Ok(())
    }

    /// A1.
    fn leader_info(&mut self, epoch: Epoch, zabra: bool) -> Result<(), LearnerError> {
        self.advance("LEADERINFO", Stage::Asked, Stage::Accepting)?;
        let accepted = self.start.accepted;
        if epoch > EPOCH_MAX {
            return Err(LearnerError::Epoch(epoch));
        }
        if epoch < accepted && !self.broken.is(Rule::StaleEpochFollowed) {
            return Err(LearnerError::StaleEpoch { found: epoch, accepted });
        }
        (self.epoch, self.zabra) = (epoch, zabra);
        self.last_of_earlier = if self.last.epoch() < epoch { self.last } else { Zxid::ZERO };
        self.acked = Zxid::new(epoch, 0);
        if epoch > accepted {
            self.outputs.push_back(Output::Accept(epoch));
        } else {
            self.stage = Stage::Promised;
            self.outputs.push_back(Output::AckEpoch { current: None });
        }
        Ok(())
    }

    fn trunc(&mut self, to: Zxid) -> Result<(), LearnerError> {
        self.advance("TRUNC", Stage::Promised, Stage::Cutting(to))?;
        self.may_go_back(to)?;
        if to > self.last {
            return Err(LearnerError::CommitOfUnknown { last: self.last, found: to });
        }
        self.outputs.push_back(Output::Truncate { to });
        Ok(())
    }

    fn truncated(&mut self, last: Zxid) -> Result<(), LearnerError> {
        let Stage::Cutting(wanted) = self.stage else { return Err(LearnerError::OutOfOrder("truncation")) };
        assert!(last <= wanted, "cut at the place or below");
        if last < wanted {
            return Err(LearnerError::CutBelow { wanted, found: last });
        }
        self.stage = Stage::History;
        self.begin_at(last);
        Ok(())
    }

    fn snap(&mut self, zxid: Zxid) -> Result<(), LearnerError> {
        self.advance("SNAP", Stage::Promised, Stage::Receiving(zxid))?;
        self.may_go_back(zxid)?;
        self.outputs.push_back(Output::Receive { zxid });
        Ok(())
    }

    fn installed(&mut self) -> Result<(), LearnerError> {
        let Stage::Receiving(zxid) = self.stage else { return Err(LearnerError::OutOfOrder("a state")) };
        self.stage = Stage::History;
        self.begin_at(zxid);
        Ok(())
    }

    /// The log ends at `zxid`, which the leader has in its committed history.
    fn begin_at(&mut self, zxid: Zxid) {
        (self.last, self.durable) = (zxid, zxid);
        self.committed = self.committed.max(zxid);
        self.last_of_earlier = if zxid.epoch() < self.epoch { zxid } else { Zxid::ZERO };
        self.acked = self.acked.max(zxid);
    }

    fn may_go_back(&self, to: Zxid) -> Result<(), LearnerError> {
        let committed = self.start.committed;
        if to < committed { Err(CommittedLost { committed, to }.into()) } else { Ok(()) }
    }

    /// A2.
    fn proposal(&mut self, zxid: Zxid) -> Result<(), LearnerError> {
        if self.stage < Stage::History {
            return Err(LearnerError::OutOfOrder("PROPOSAL"));
        }
        let last = self.last;
        let same_epoch = zxid.epoch() == last.epoch() && zxid.counter() > 0 && zxid.0 == last.0 + 1;
        let later_epoch = zxid.epoch() > last.epoch() && zxid.epoch() <= self.epoch && zxid.counter() == 1;
        let unchecked = self.broken.is(Rule::GapNotNoticed) || self.broken.is(Rule::DiffWithoutTrunc);
        let follows = same_epoch || later_epoch || (unchecked && zxid > last);
        if !follows {
            return Err(LearnerError::Gap { last, found: zxid });
        }
        if self.stage > Stage::History && zxid.epoch() != self.epoch {
            return Err(LearnerError::Gap { last, found: zxid });
        }
        if zxid.epoch() < self.epoch {
            self.last_of_earlier = zxid;
        }
        self.last = zxid;
        if self.broken.is(Rule::AckBeforeFlush) {
            self.acknowledge();
        }
        Ok(())
    }

    fn commit(&mut self, zxid: Zxid) -> Result<(), LearnerError> {
        if self.stage < Stage::History {
            return Err(LearnerError::OutOfOrder("COMMIT"));
        }
        if zxid > self.last {
            return Err(LearnerError::CommitOfUnknown { last: self.last, found: zxid });
        }
        let lost = self.stage < Stage::InStep && self.broken.is(Rule::EarlyCommitLost);
        if zxid > self.committed && !lost {
            self.committed = zxid;
            if self.stage == Stage::InStep {
                self.outputs.push_back(Output::Commit(zxid));
            }
        }
        Ok(())
    }

    fn new_leader(&mut self, zxid: Zxid) -> Result<(), LearnerError> {
        self.advance("NEWLEADER", Stage::History, Stage::Flushing)?;
        if zxid != Zxid::new(self.epoch, 0) {
            return Err(LearnerError::OutOfOrder("NEWLEADER of another epoch"));
        }
        self.history_last = self.last;
        if self.broken.is(Rule::AppliedBeforeUpToDate) {
            self.outputs.push_back(Output::Commit(self.last));
        }
        self.enter();
        Ok(())
    }

    /// A3.
    fn enter(&mut self) {
        let durable = self.durable >= self.history_last || self.broken.is(Rule::EpochBeforeHistory);
        if self.stage == Stage::Flushing && durable {
            self.stage = Stage::Entering;
            self.outputs.push_back(Output::Enter(self.epoch));
        }
    }

    /// A4.
    fn up_to_date(&mut self) -> Result<(), LearnerError> {
        self.advance("UPTODATE", Stage::Entered, Stage::InStep)?;
        self.committed = self.committed.max(self.last_of_earlier);
        self.acked = self.acked.max(self.committed);
        self.outputs.push_back(Output::AckEntered(self.epoch));
        self.outputs.push_back(Output::InStep);
        self.outputs.push_back(Output::Commit(self.committed));
        self.acknowledge();
        Ok(())
    }

    fn durable(&mut self, zxid: Zxid) {
        assert!(zxid <= self.last, "a flush covers what was appended");
        self.durable = self.durable.max(zxid);
        self.enter();
        self.acknowledge();
    }

    /// A5.
    fn acknowledge(&mut self) {
        let upto = if self.broken.is(Rule::AckBeforeFlush) { self.last } else { self.durable };
        if self.stage == Stage::InStep && self.start.voter && upto > self.acked {
            let (from, to) = (Zxid(self.acked.0 + 1), upto);
            assert!(
                from.epoch() == self.epoch && to.epoch() == self.epoch,
                "only the leader's own proposals"
            );
            self.outputs.push_back(Output::Ack { from, to });
            self.acked = to;
        }
    }

    fn silence_ms(&self) -> u64 {
        if self.zabra { self.limits.liveness_ms } else { self.limits.sync_ms }
    }

    /// A6.
    fn timer(&mut self, now: MonoMs) -> Result<(), LearnerError> {
        if now < self.next_timer() || (self.is_in_step() && self.broken.is(Rule::SilentLeaderFollowed)) {
            return Ok(());
        }
        let silent = now.since(self.heard);
        Err(if self.is_in_step() {
            LearnerError::Silent(silent)
        } else {
            LearnerError::TooSlow(self.limits.init_ms)
        })
    }
}

#[cfg(test)]
mod tests;
