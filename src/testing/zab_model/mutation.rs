//! Mistakes made again on purpose, in the steps around the machines: the search must find each.

use super::state::{DiskOp, Role, World};
use crate::zab::learner;

/// One mistake. The rules are those of ZooKeeper's history: R1 order of synchronisation, R2 no holes, R3 and R4 what may be applied, R5 nothing survives an
/// attachment, R6 the plan comes from history, R7 a state is whole, R8 epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// R1, ZOOKEEPER-3911, -4646: NEWLEADER is acknowledged before what came with it is durable.
    AckBeforeHistory,
    /// R1, ZOOKEEPER-4643: the epoch is entered before what came with NEWLEADER is durable.
    EpochBeforeHistory,
    /// R8: a crash loses the accepted epoch.
    ForgottenPromise,
    /// R8, ZOOKEEPER-2307: ACKEPOCH before the epoch is durable.
    PromiseBeforeDurable,
    /// R8: LEADERINFO before the epoch is durable.
    EpochToldBeforeDurable,
    /// A proposal is acknowledged when it is received.
    AckBeforeFlush,
    /// An acknowledgement of NEWLEADER counts for what was proposed meanwhile.
    AckOfAnotherZxid,
    /// A proposal is committed when the leader alone has it.
    CommitByMinority,
    /// The epoch is established when the history was sent, not when it is acknowledged.
    EstablishedByMinority,
    /// A leader does not look at what those who promise have.
    BehindIsIgnored,
    /// R6, ZOOKEEPER-1154: what the learner has too much is not cut.
    DiffWithoutTrunc,
    /// R6: a learner between the ends of the log gets what is behind its last zxid, whether the log has that one or not.
    PlanFromBounds,
    /// R9, ZOOKEEPER-1549: the cut is reported, and not made.
    TruncNotMade,
    /// R3, ZOOKEEPER-1558: a state contains what is not committed.
    StateOfUncommitted,
    /// R7, ZOOKEEPER-3642: after a state has come, what follows it is numbered as if it had not: its last part is missing.
    StateCutShort,
    /// R4: at a start the whole log is applied.
    TailAppliedAtStart,
    /// R4: COMMIT counts before UPTODATE.
    AppliedBeforeUpToDate,
    /// R2, Zab's paper: what is proposed between the history and the ACK of NEWLEADER is sent to nobody who has not sent that.
    FedAfterAck,
    /// A7: a server that has lost its disk promises all the same, as ZooKeeper's do.
    ForgetfulPromise,
    /// R5, ZOOKEEPER-4712: what an attachment has received is logged after its end, behind what the next one brings.
    LateAppend,
}

impl Mutation {
    /// All.
    pub const ALL: [Mutation; 20] = [
        Mutation::AckBeforeHistory,
        Mutation::EpochBeforeHistory,
        Mutation::ForgottenPromise,
        Mutation::PromiseBeforeDurable,
        Mutation::EpochToldBeforeDurable,
        Mutation::AckBeforeFlush,
        Mutation::AckOfAnotherZxid,
        Mutation::CommitByMinority,
        Mutation::EstablishedByMinority,
        Mutation::BehindIsIgnored,
        Mutation::DiffWithoutTrunc,
        Mutation::PlanFromBounds,
        Mutation::TruncNotMade,
        Mutation::StateOfUncommitted,
        Mutation::StateCutShort,
        Mutation::TailAppliedAtStart,
        Mutation::AppliedBeforeUpToDate,
        Mutation::FedAfterAck,
        Mutation::ForgetfulPromise,
        Mutation::LateAppend,
    ];
}

impl World {
    /// Of a learner that has just taken a message.
    pub(super) fn learner_mistakes(&mut self, node: usize, input: learner::Input) {
        let (mutation, n) = (self.setup.mutation, &mut self.nodes[node]);
        if !matches!(n.role, Role::Following(_)) {
            return;
        }
        match (mutation, input) {
            (Some(Mutation::AckBeforeHistory), learner::Input::NewLeader(_))
            | (Some(Mutation::AckBeforeFlush), learner::Input::Proposal(_)) => {
                let last = n.last();
                self.learn(node, learner::Input::Durable(last));
            }
            (Some(Mutation::EpochBeforeHistory), learner::Input::NewLeader(zxid)) if n.op.is_none() => {
                self.ask_disk(node, DiskOp::Enter(zxid.epoch()));
            }
            (Some(Mutation::AppliedBeforeUpToDate), learner::Input::Commit(zxid)) => {
                n.committed = n.committed.max(zxid);
            }
            _ => {}
        }
    }
}
