//! What a run is told, what it decides once from its seed, and what it counts.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::rng::Rng;
use crate::base::{ServerId, WallMs};
use crate::election;
use crate::node::member::{COUNTER_MAX_DEFAULT, MemberOptions};
use crate::node::{NodePlaces, PrepareOptions, RecoverOptions, Replay, SnapshotOptions};
use crate::storage::log::{LogOptions, RegionKind};
use crate::storage::snapshot::Retention;
use crate::tree::TreeOptions;
use crate::wire::quorum_config::QuorumConfig;
use crate::zab::{Limits, Rule};

/// Longest group of requests that becomes one group of the log.
pub(super) const GROUP_REQUESTS_MAX: u64 = 8;
/// Payloads must fit into the smallest segment.
const PAYLOAD_BYTES_MAX: usize = 4 << 10;

/// How long a run is, and which mistake it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimOptions {
    /// Virtual time with faults, ms.
    pub safety_ms: u64,
    /// The mistake.
    pub rule: Option<Rule>,
    /// Another kind of mistake: one of the simulated shell.
    pub slip: Option<Slip>,
    /// What clients are told is judged without a look at any zxid.
    pub blind: bool,
    /// Virtual time behind it all in which nothing happens, ms.
    pub calm_ms: u64,
}

/// Mistakes of what stands between the product's code and its clients, so that what judges their histories can be seen to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// Some events never come.
    EventLost,
    /// Some events come behind the next answer.
    EventLate,
    /// Some events come twice.
    EventTwice,
    /// The events of a transaction come in the wrong order.
    EventsReversed,
    /// Some reads set no watch.
    WatchNotSet,
    /// A watch that is removed is still there.
    RemovalForgotten,
    /// Watches that are set again are set, and what they missed is not told.
    MissedNotTold,
    /// Watches that are set again tell what their client knew.
    KnownToldAgain,
    /// Some writes are answered with what they would have come to a transaction earlier or later.
    AnswerAltered,
    /// Some reads leave out a child.
    ChildHidden,
    /// A multiRead reads its parts one by one, while others write.
    MultiReadTorn,
    /// A sync is answered at once.
    SyncNotAsked,
    /// A leader ends sessions early.
    ExpiredEarly,
    /// Some clients are told that their session has ended, which has not.
    EndToldWrongly,
    /// Learners do not tell their leader who is alive.
    TouchesLost,
    /// In the calm somebody stops.
    Restless,
}

impl Slip {
    /// All of them, and what the rule that notices says.
    pub const ALL: [(Slip, &str); 16] = [
        (Slip::EventLost, "was not told"),
        (Slip::EventLate, "was not told"),
        (Slip::EventTwice, "due is"),
        (Slip::EventsReversed, "due is"),
        (Slip::WatchNotSet, "was not told|asks at"),
        (Slip::RemovalForgotten, "due is"),
        (Slip::MissedNotTold, "sets its watches"),
        (Slip::KnownToldAgain, "sets its watches"),
        (Slip::AnswerAltered, "must be"),
        (Slip::ChildHidden, "the history has"),
        (Slip::MultiReadTorn, "part of a transaction"),
        (Slip::SyncNotAsked, "not linearizable|behind a sync"),
        (Slip::ExpiredEarly, " ms"),
        (Slip::EndToldWrongly, "nobody has ended it"),
        (Slip::TouchesLost, "in the calm"),
        (Slip::Restless, "in the calm"),
    ];

    /// Those which must be found without zxids.
    #[must_use]
    pub const fn is_blind(self) -> bool {
        matches!(self, Slip::MultiReadTorn | Slip::SyncNotAsked)
    }
}

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions { safety_ms: 20_000, rule: None, slip: None, blind: false, calm_ms: 2_000 }
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a run met, so that a test can tell whether it went where it should.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct SimCounts { $($(#[$doc])* pub $name: u64),+ }

        impl std::ops::Add for SimCounts {
            type Output = SimCounts;

            /// Sums two runs.
            fn add(self, other: SimCounts) -> SimCounts {
                SimCounts { $($name: self.$name + other.$name),+ }
            }
        }
    };
}

counts! {
    /// Events.
    steps,
    /// Virtual time, ms.
    virtual_ms,
    /// Starts of processes.
    starts,
    /// Starts that found transactions behind what is known to be committed.
    starts_with_tail,
    /// Leaders that served.
    leaders,
    /// Epochs that leaders entered because zxids were used up.
    rollovers,
    /// Learners that served.
    learners,
    /// Times that serving ended.
    stops,
    /// Transactions proposed.
    proposed,
    /// Transactions committed.
    committed,
    /// Of them, those that were several at once and changed something.
    multis,
    /// Writes acknowledged to clients.
    acknowledged,
    /// Writes whose outcome a client never learnt.
    unknown,
    /// Of them, those that were committed.
    unknown_committed,
    /// Reads checked.
    reads,
    /// Syncs checked.
    synced_reads,
    /// Writes that were answered with an error.
    failed_writes,
    /// Watches set by reads and addWatch.
    watches_set,
    /// Watches removed.
    watches_removed,
    /// Watch events.
    events,
    /// Of them, those of what was missed between two connections.
    caught_up,
    /// One-shot watches that were set again on another connection, and had missed nothing.
    watches_kept,
    /// Nodes that came and went between two connections, and whose exists watch could not tell.
    unseen,
    /// Accesses to registers judged without zxids.
    linear,
    /// Appends to lists judged without zxids.
    appends,
    /// Reads of lists judged without zxids.
    list_reads,
    /// Virtual time in which nothing happened, ms.
    calm_ms,
    /// Clients that only lived in that time.
    calm_clients,
    /// Clients that took their session to another node.
    moves,
    /// Connections of clients that broke under them.
    client_cuts,
    /// Sessions that expired.
    expired,
    /// Logs cut.
    truncs,
    /// Of them, those that removed something.
    truncated,
    /// States received.
    snaps,
    /// Snapshots taken.
    snapshots,
    /// Segments purged.
    purged,
    /// Processes killed.
    kills,
    /// Power cuts of one node.
    power_cuts,
    /// Power cuts of all.
    blackouts,
    /// Disks that crashed in the middle of an operation.
    torn,
    /// Processes that ended by themselves.
    failed,
    /// Clean stops.
    clean_stops,
    /// Pauses.
    pauses,
    /// Partitions.
    partitions,
    /// Connections reset.
    resets,
    /// Full disks.
    full_disks,
    /// Slow disks.
    slow_disks,
    /// Clocks that ran wrong.
    clocks,
    /// Directories that were gone.
    wiped,
    /// Disks on which bits flipped.
    rotten,
    /// Histories set aside because of that.
    set_aside,
    /// Trees that were found to differ.
    diverged,
    /// Those that were made anew without a leader.
    made_anew,
}

/// What a script plays on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Servers with a vote; they come first.
    pub voters: usize,
    /// Servers without.
    pub observers: usize,
    /// `tickTime`, ms: `initLimit` is ten of them, `syncLimit` five.
    pub tick_ms: u64,
    /// How long a session lives without its client, ms.
    pub session_ms: i32,
    /// Transactions of one epoch.
    pub counter_max: u32,
}

impl Stage {
    /// So many voters.
    #[must_use]
    pub const fn of(voters: usize) -> Stage {
        Stage { voters, observers: 0, tick_ms: 500, session_ms: 60_000, counter_max: COUNTER_MAX_DEFAULT }
    }
}

/// What is decided once per run.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) voters: usize,
    pub(super) observers: usize,
    pub(super) clients: usize,
    /// Longest ordinary delay of the network, ms.
    pub(super) delay_ms: u64,
    /// Longest ordinary flush, ms.
    pub(super) flush_ms: u64,
    /// Time between faults, ms, about.
    pub(super) fault_ms: u64,
    /// Time between snapshots of a node, ms, about.
    pub(super) snapshot_ms: u64,
    pub(super) think_ms: u64,
    pub(super) session_ms: i32,
    /// Transactions of one epoch: few in some runs, so that leaders run out of zxids.
    counter_max: u32,
    limits: Limits,
    election: election::Options,
    segment_bytes: u64,
    seed: u64,
}

impl Setup {
    pub(super) fn random(rng: &mut Rng) -> Setup {
        let tick_ms = [100, 200, 500][rng.below(3) as usize];
        let liveness_ms = [0, 300, 600][rng.below(3) as usize];
        Setup {
            voters: [3, 3, 5][rng.below(3) as usize],
            observers: [0, 0, 1, 2][rng.below(4) as usize],
            clients: 3 + rng.below(5) as usize,
            delay_ms: [1, 4, 20][rng.below(3) as usize],
            flush_ms: [1, 5, 30][rng.below(3) as usize],
            fault_ms: [150, 500, 1_500][rng.below(3) as usize],
            snapshot_ms: [300, 1_000, 4_000][rng.below(3) as usize],
            think_ms: [5, 20, 80][rng.below(3) as usize],
            session_ms: [1_500, 6_000][rng.below(2) as usize],
            counter_max: [COUNTER_MAX_DEFAULT, COUNTER_MAX_DEFAULT, 40 + rng.below(400) as u32]
                [rng.below(3) as usize],
            limits: Limits::new(tick_ms, 10, 5, liveness_ms, 50 + rng.below(100)),
            election: election::Options {
                finalize_wait_ms: 20 + rng.below(180),
                resend_ms_min: 100 + rng.below(100),
                ..election::Options::default()
            },
            segment_bytes: [16 << 10, 16 << 10, 64 << 10][rng.below(3) as usize],
            seed: rng.next_u64(),
        }
    }

    /// Everything takes as little time as it can, and nothing happens by itself.
    pub(super) fn directed(stage: Stage, rng: &mut Rng) -> Setup {
        let base = Setup::random(rng);
        Setup {
            voters: stage.voters,
            observers: stage.observers,
            clients: 0,
            delay_ms: 1,
            flush_ms: 1,
            snapshot_ms: 1 << 40,
            session_ms: stage.session_ms,
            counter_max: stage.counter_max,
            limits: Limits::new(stage.tick_ms, 10, 5, 0, 100),
            segment_bytes: 16 << 10,
            ..base
        }
    }

    pub(super) fn members(&self) -> usize {
        self.voters + self.observers
    }

    pub(super) fn server_id(index: usize) -> ServerId {
        ServerId(index as i64 + 1)
    }

    fn config(&self) -> Arc<QuorumConfig> {
        let line = |index: usize| {
            let role = if index < self.voters { "participant" } else { "observer" };
            format!("server.{}=n{}:2888:3888:{role}\n", index + 1, index + 1)
        };
        let lines: String = (0..self.members()).map(line).collect();
        Arc::new(QuorumConfig::parse(&format!("{lines}version=0")).expect("a configuration"))
    }

    pub(super) fn member_options(&self, index: usize) -> MemberOptions {
        MemberOptions {
            me: Setup::server_id(index),
            config: self.config(),
            limits: self.limits,
            election: self.election,
            tree: self.tree_options(),
            snapshot_chunk_bytes: 700,
            counter_max: self.counter_max,
        }
    }

    pub(super) fn tree_options(&self) -> TreeOptions {
        TreeOptions { seed: self.seed, ..TreeOptions::default() }
    }

    pub(super) fn prepare_options(&self) -> PrepareOptions {
        PrepareOptions {
            ephemeral_bytes_max: 2 << 10,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            seed: self.seed,
            ..PrepareOptions::default()
        }
    }

    pub(super) fn recover_options(&self, index: usize, seed: u64, replay: Replay) -> RecoverOptions {
        RecoverOptions {
            tree: self.tree_options(),
            log: LogOptions {
                segment_bytes: self.segment_bytes,
                region: RegionKind::Pwrite,
                ..LogOptions::default()
            },
            server_id: Setup::server_id(index),
            replay,
            has_peers: true,
            seed,
        }
    }

    pub(super) fn snapshot_options(node_id: u64, now: u64) -> SnapshotOptions {
        SnapshotOptions { node_id, created: WallMs(1_000_000 + now as i64), level: 1, chunk_bytes: 600 }
    }

    pub(super) fn retention() -> Retention {
        Retention { count_min: 1, count_max: 1, age_max: None }
    }

    pub(super) fn places() -> NodePlaces {
        NodePlaces { data: PathBuf::from("/data/zabra"), log: PathBuf::from("/log/zabra/log") }
    }

    /// Sessions that the clients of `index` may make in its life `inc`.
    pub(super) fn first_session(index: usize, inc: u64) -> i64 {
        ((index as i64 + 1) << 56) | ((inc as i64) << 24) | 1
    }

    /// A map of what the whole ensemble is made of, for messages.
    pub(super) fn quorum(&self) -> usize {
        self.voters / 2 + 1
    }
}

/// Registers that clients write and read.
pub(super) const REGISTERS: u64 = 4;

/// The path of a register.
pub(super) fn register(number: u64) -> String {
    format!("/r{number}")
}

/// Nodes that come and go, with children.
pub(super) const PLACES: u64 = 6;

/// The path of one.
pub(super) fn place(number: u64) -> String {
    format!("/n{number}")
}
