//! Mistakes that the machines can be told to make, so that a test can show that each is caught. Outside tests there is nothing to tell.

/// A rule that can be switched off; named by the mistake. What each stands for: `docs/zab.md` §9, `docs/scenarios.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// R1: the epoch is entered, and NEWLEADER acknowledged, before the history is durable (ZOOKEEPER-3911, -4643, -4646).
    EpochBeforeHistory,
    /// R1, R4: a follower acknowledges proposals before they are durable (ZOOKEEPER-4646, -4785).
    AckBeforeFlush,
    /// R4: a learner applies what came before NEWLEADER without waiting for UPTODATE (ZOOKEEPER-1549).
    AppliedBeforeUpToDate,
    /// R4: a start applies the tail that nobody is known to have committed (ZOOKEEPER-1549, -4837, -1558).
    TailAppliedAtStart,
    /// R8: a learner follows a leader of an epoch below the one it has promised, and that leader takes it. Not in [`Rule::ALL`]: it takes a
    /// schedule that random ones have not met yet.
    StaleEpochFollowed,
    /// R8: a promise is told and not stored (ZOOKEEPER-2307, -335).
    PromiseNotStored,
    /// R6: what the leader lacks is left in the learner's log (ZOOKEEPER-1154, -2845).
    DiffWithoutTrunc,
    /// R2: a hole in what the leader sends is not noticed (ZOOKEEPER-2099, -4925, -2418).
    GapNotNoticed,
    /// R7: a received state counts before it is on the disk (ZOOKEEPER-2872, -3642).
    StateNotInstalled,
    /// L4: a leader commits what only its own disk has.
    CommitByLeaderAlone,
    /// L4: a leader counts its own disk before the flush.
    LeaderCountsUnflushed,
    /// L3: a leader is established before a quorum has its history.
    EstablishedWithoutQuorum,
    /// L2: a leader goes on although a learner has more. Not in [`Rule::ALL`]: the election hardly ever chooses such a leader, and few random
    /// schedules notice.
    AheadIgnored,
    /// L7, R14: a leader without a quorum stays.
    LeaderStays,
    /// L7, R14: a leader that hears nobody waits for each, and then as long again for a quorum.
    SilenceCountsTwice,
    /// L8, R13: a leader that too few can still come to waits out `initLimit` (ZOOKEEPER-3109).
    VainLeaderWaits,
    /// M7, R13: a leader that has stepped down because it hears nobody wants to be elected again by those who hear it.
    DeafLeaderStands,
    /// M3: a server says of itself in an election what a crash may take back.
    VoteWithUnflushedTail,
    /// A7: a server that may have forgotten what it acknowledged promises, and is elected, all the same, as ZooKeeper's are. Not in
    /// [`Rule::ALL`]: it takes three misfortunes in one order, which the small model and a directed schedule find.
    ForgetfulPromise,
    /// A sync is answered without asking a quorum whether this server still leads.
    SyncUnconfirmed,
    /// R4: a leader serves before it has applied what it began with (ZOOKEEPER-4503).
    ServedBeforeApplied,
    /// The shell: writes behind a sync overtake it.
    SyncOvertaken,
    /// The shell: a leader forgets whose a session is when its client leaves, and a request held up on the way takes it.
    OwnerForgotten,
    /// R2, R5: a COMMIT between NEWLEADER and UPTODATE is not kept (ZOOKEEPER-4394).
    EarlyCommitLost,
    /// R6: who is below the beginning of the log gets what is in the log, and not the whole state (ZOOKEEPER-4352).
    DiffBelowTheLog,
    /// R9: a cut is answered and not made (ZOOKEEPER-1489, -3701).
    CutNotMade,
    /// R13: a learner waits for as long as it takes to hear of its leader again (ZOOKEEPER-4074).
    SilentLeaderFollowed,
    /// R13: a server that has settled begins to look because another does (ZOOKEEPER-3109).
    DeposedByNotice,
    /// R14: a learner has `initLimit` for the whole history, however much of it comes (ZOOKEEPER-1465, -1697, -2678).
    LongSyncTakenForDeath,
    /// R18: a leader that has used up its zxids does not go on into the next epoch (ZOOKEEPER-1277).
    ZxidsRunOut,
    /// The shell, R4: a tree that differs from what its transactions make of it goes on (ZOOKEEPER-3114).
    DivergenceIgnored,
    /// R4, R7: a learner that needs a state gets one that is below what it has logged.
    StateBelowTheLog,
}

impl Rule {
    /// Every one of them: for each there is a directed schedule that notices it (`tests/scenarios`).
    pub const EVERY: [Rule; 32] = [
        Rule::EpochBeforeHistory,
        Rule::AckBeforeFlush,
        Rule::AppliedBeforeUpToDate,
        Rule::TailAppliedAtStart,
        Rule::StaleEpochFollowed,
        Rule::PromiseNotStored,
        Rule::DiffWithoutTrunc,
        Rule::GapNotNoticed,
        Rule::StateNotInstalled,
        Rule::CommitByLeaderAlone,
        Rule::LeaderCountsUnflushed,
        Rule::EstablishedWithoutQuorum,
        Rule::AheadIgnored,
        Rule::LeaderStays,
        Rule::SilenceCountsTwice,
        Rule::VainLeaderWaits,
        Rule::DeafLeaderStands,
        Rule::VoteWithUnflushedTail,
        Rule::SyncUnconfirmed,
        Rule::ServedBeforeApplied,
        Rule::SyncOvertaken,
        Rule::OwnerForgotten,
        Rule::EarlyCommitLost,
        Rule::DiffBelowTheLog,
        Rule::CutNotMade,
        Rule::SilentLeaderFollowed,
        Rule::DeposedByNotice,
        Rule::LongSyncTakenForDeath,
        Rule::ZxidsRunOut,
        Rule::DivergenceIgnored,
        Rule::StateBelowTheLog,
        Rule::ForgetfulPromise,
    ];

    /// Those that random schedules are known to notice.
    pub const ALL: [Rule; 18] = [
        Rule::EpochBeforeHistory,
        Rule::AckBeforeFlush,
        Rule::AppliedBeforeUpToDate,
        Rule::TailAppliedAtStart,
        Rule::PromiseNotStored,
        Rule::DiffWithoutTrunc,
        Rule::GapNotNoticed,
        Rule::StateNotInstalled,
        Rule::CommitByLeaderAlone,
        Rule::LeaderCountsUnflushed,
        Rule::EstablishedWithoutQuorum,
        Rule::LeaderStays,
        Rule::VoteWithUnflushedTail,
        Rule::SyncUnconfirmed,
        Rule::ServedBeforeApplied,
        Rule::SyncOvertaken,
        Rule::OwnerForgotten,
        Rule::DivergenceIgnored,
    ];
}

/// Which rule is switched off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken(#[cfg(any(test, feature = "testing"))] Option<Rule>);

impl Broken {
    /// One.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn rule(rule: Option<Rule>) -> Broken {
        Broken(rule)
    }

    /// Is it this one? Never outside tests.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn is(self, rule: Rule) -> bool {
        self.0 == Some(rule)
    }

    /// Is it this one? Never outside tests.
    #[cfg(not(any(test, feature = "testing")))]
    #[must_use]
    pub const fn is(self, _: Rule) -> bool {
        false
    }
}
