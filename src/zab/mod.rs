//! ZAB: how the members of an ensemble come to have one history, and keep it. Design: `src/docs/zab.md`.
//!
//! Two machines, each made for one epoch of a leader or one attachment of a learner and dropped with it, so that nothing of it survives
//! (rule R5); and the plan by which a learner is brought up to date. They know zxids, epochs, links and time; no bytes, no disk, no socket.

pub mod leader;
pub mod learner;
mod plan;
mod positions;
pub mod rule;

pub use leader::Leader;
pub use learner::Learner;
pub use plan::{History, Plan, plan};
pub use positions::{CommittedLost, Positions};
pub use rule::{Broken, Rule};

/// One connection on the quorum port, never used twice in a process: what comes late from an earlier one is recognised by it (rule R5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// How long peers are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `initLimit` × `tickTime`: to find a quorum, and to bring a learner up to date, ms.
    pub init_ms: u64,
    /// `syncLimit` × `tickTime`: silence, or a proposal not acknowledged, ms.
    pub sync_ms: u64,
    /// Silence among Zabra nodes once they are in step, ms; never above `sync_ms`.
    pub liveness_ms: u64,
    /// How often a leader lets Zabra nodes hear of it, ms. Others hear of it every half tick.
    pub probe_ms: u64,
    /// Half a tick: how often a leader lets ZooKeeper nodes hear of it, ms.
    pub ping_ms: u64,
    /// A leader whose own disk has not taken a proposal for so long steps down (rule R14), ms.
    pub stall_ms: u64,
}

impl Limits {
    /// From the configured numbers; `liveness_ms` of 0 leaves silence to `syncLimit`.
    #[must_use]
    pub fn new(tick_ms: u64, init_limit: u64, sync_limit: u64, liveness_ms: u64, probe_ms: u64) -> Limits {
        let tick_ms = tick_ms.max(1);
        let sync_ms = tick_ms.saturating_mul(sync_limit.max(1));
        let liveness_ms = if liveness_ms == 0 { sync_ms } else { liveness_ms.min(sync_ms) };
        Limits {
            init_ms: tick_ms.saturating_mul(init_limit.max(1)),
            sync_ms,
            liveness_ms,
            probe_ms: probe_ms.clamp(1, (liveness_ms / 3).max(1)),
            ping_ms: (tick_ms / 2).max(1),
            stall_ms: (2 * liveness_ms).min(sync_ms),
        }
    }
}

#[cfg(test)]
mod pair;
