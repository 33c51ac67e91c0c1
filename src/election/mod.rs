//! Fast leader election: which of the voters leads. ZooKeeper's protocol, as a function of what was heard.
//!
//! The machine takes one [`Input`] at a time with the time it came, and gives [`Output`]s, to be drained to empty after each. It
//! decides whom to *try*: that there is one leader per epoch, and that it has everything committed, is made sure of by the discovery that
//! follows, not here.
//!
//! - EL1: pure. No clock, no randomness, no order of a hash table: the same inputs give the same outputs.
//! - EL2: votes are ordered by (epoch, zxid, id). A server of weight 0 is never proposed while any other is known.
//! - EL3: a server's proposal within a round only rises; a higher round begins again from its own vote.
//! - EL4: a decision among looking servers has a quorum, in every configuration there is, for one vote of one round, and that vote
//!   is the highest heard in the round.
//! - EL5: it settles at once when nobody who could still change the outcome is left to be heard: every voter that may lead has voted in this
//!   round, or cannot be reached while the leader-to-be can. Otherwise it waits [`Options::finalize_wait_ms`] for a better vote.
//! - EL6: to join a leadership that stands takes a quorum that follows it *and* word from the leader itself, so that a leader that is
//!   gone is not elected again and again by those who remember it.
//! - EL7: votes count only from voters for voters. Servers without a vote are answered, and propose nobody.
//! - EL8: a server that has settled never changes its mind because of a notification: one that flaps or hears only one way cannot depose
//!   a working leader (rule R13). It only answers: those who look, and, if it follows, those who say that they lead and whom it does not
//!   follow, so that nobody waits for it in vain ([`Output::Settled`]).
//! - EL9: a notification never starts an endless exchange: the answer to a server without a vote is not repeated within
//!   [`Options::resend_ms_min`].
//! - EL10: a server whose directory is new may have forgotten what it acknowledged in another one. It votes among servers that have
//!   nothing to lose ([`Vote::is_of_new_ensemble`]), and while it hears of one that has, it has no vote, until it has followed.
//!
//! Departures from ZooKeeper 3.9, all invisible to it: a leader tells everybody that it leads, and a follower
//! the observers, and whoever says that it leads and is not followed, whom it follows, without being asked;
//! back-off starts again when a voter is heard for the first time in a round; resending is not put off by what comes in, and goes with
//! connecting rather than instead of it; what a server said counts no more once it is gone, and its being settled no more once it
//! looks; a server of weight 0 proposes any other rather than itself; rounds beyond [`ROUND_AHEAD_MAX`] are not believed; a configuration
//! that is not taken over does not restart the election either; a server that looks answers servers without a vote with
//! its proposal rather than its last decision; `oraclePath` is not there.

mod machine;
mod notice;
mod vote;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::{MonoMs, ServerId};
use crate::wire::election::PeerState;
use crate::wire::quorum_config::{Electorate, QuorumConfig};

pub use machine::Election;
pub use notice::{Notice, ROUND_AHEAD_MAX};
pub use vote::{NO_ZXID, Vote};

/// What the operator decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to wait for a better vote once a quorum agrees, ms. ZooKeeper's `finalizeWait`, not configurable there.
    pub finalize_wait_ms: u64,
    /// First wait before everything is sent again, ms (`fastleader.minNotificationInterval`).
    pub resend_ms_min: u64,
    /// The wait doubles up to this, ms (`fastleader.maxNotificationInterval`).
    pub resend_ms_max: u64,
    /// Configurations in notifications are believed (`reconfigEnabled`).
    pub reconfig_enabled: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { finalize_wait_ms: 200, resend_ms_min: 200, resend_ms_max: 60_000, reconfig_enabled: false }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// This server needs a leader: a new round begins. What it has comes from durable state: its last logged zxid ([`NO_ZXID`] while it
    /// must not be elected) and its current epoch.
    Start {
        /// Last logged zxid, as on the wire.
        zxid: i64,
        /// Current epoch.
        epoch: i64,
        /// Its directory is new: accepted epoch (EL10).
        new: Option<i64>,
    },
    /// This server does not look any more, and has settled on nobody. It says nothing before it starts again.
    Cease,
    /// A peer said something.
    Notice {
        /// Who the connection says it is.
        from: ServerId,
        /// What.
        notice: Notice,
    },
    /// The time last asked for by [`Output::Timer`] may have come.
    Timer,
    /// A new connection with a peer stands; to be said on both sides. What was sent before may not have arrived: a looking server
    /// repeats itself.
    PeerUp(ServerId),
    /// A peer is gone: connecting was refused, or its connection broke and cannot be made again. It is not waited for until heard of
    /// again, and what it said while this server looked counts no more. Say it on the change, not with every attempt, and after
    /// everything that came from it.
    PeerDown(ServerId),
    /// The leader, this server or another, has established a new epoch: from now on this is the epoch of the vote settled on,
    /// so that late joiners see servers agree.
    Established {
        /// The new epoch.
        epoch: i64,
    },
    /// The configuration has changed through the log. A server that looks begins again; one that has settled only answers differently.
    Configured(Electorate),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell `to`. Only the newest notice to each peer matters: one still waiting to be sent is replaced.
    Send {
        /// Never this server itself.
        to: ServerId,
        /// What.
        notice: Notice,
    },
    /// Connect to every member that there is no connection with, now, whatever the back-off of connecting says.
    Reconnect,
    /// The election is over.
    Decided(Decision),
    /// Give [`Input::Timer`] once at this time, and not at the one asked for before; `None` is never.
    Timer(Option<MonoMs>),
    /// This server leads, and a voter has settled on another leader, in a round that is not older or in a later epoch; or, none, it says
    /// so no more. That deposes nobody who is followed by a quorum (EL8); a leader still waiting for one may give up when those left cannot be
    /// one, rather than wait out `initLimit`. Said on the change.
    Settled {
        /// The voter.
        voter: ServerId,
        /// Whom it follows.
        on: Option<ServerId>,
    },
    /// A peer has a newer configuration: it is now the active one of the election, which begins again if the ensemble differs. The rest of the
    /// server must follow.
    Adopted(Arc<QuorumConfig>),
}

/// Whom to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// This server's from now on: leading, following or observing.
    pub state: PeerState,
    /// The leader and what it had.
    pub vote: Vote,
    /// The round of the vote.
    pub round: i64,
    /// Those who were heard to agree: a quorum.
    pub supporters: BTreeSet<ServerId>,
}

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod network;
#[cfg(test)]
mod tests;
