//! An exhaustive small model of ZAB: three servers, the real [`Leader`](crate::zab::Leader) and [`Learner`](crate::zab::Learner), every
//! order of their steps within bounds. How to run it and what it found: `src/docs/zab.md` §9.
//!
//! A state ([`World`]) is three servers (what is durable; what is in memory: the log's tail, the machine, what a disk has been asked for) and the
//! connections among them with what is under way on each. Each of these is a step of its own, so that no part of a synchronisation is atomic: an
//! election, a connection, one message taken, one completion of a disk (an epoch stored, one record or all flushed, a cut, a state installed), a
//! proposal, a snapshot with a purge, a crash that keeps all or nothing of what is not durable, an end of a connection noticed at one side, a leader or
//! learner that gives up. Time stands: what a timer would do is a step that may happen at any moment. After each step [`invariants`] are checked.
//!
//! **The network.** A [`LinkSet`] says which of the six directions carry. It begins whole; [`Action::Cut`] makes it the one searched, at any
//! moment; what was under way in a lost direction is never taken, and connections and elections need both directions. Healing is a step too.
//!
//! **What is left out, and why nothing is lost by it.**
//! - A server that is down and one that looks for a leader and does nothing take part in nothing: they are one state, and a restart is no step.
//! - Servers' ids break no ties: of equally good ones any may be elected, and, as often as the bound says, anybody. So servers are interchangeable, and
//!   states that differ by a renaming which keeps the link set are one. Link sets that differ by a renaming need one search: 64 are 16.
//! - A message whose taking changes nothing but the machine that takes it, sends nothing, and is forgotten with the machine's attachment (see
//!   `World::urgent`) is taken at once: what may come between either commutes with it or ends the attachment, which undoes it.
//!
//! **What is left out, and lost**: observers, pings and `sync` (the seeded network in `zab::pair` has them), rollover (R18), time limits as numbers.

mod actions;
mod drive;
mod hash;
pub mod invariants;
mod links;
mod messages;
mod mutation;
mod roots;
mod search;
mod settle;
mod state;

pub use actions::Action;
pub use invariants::Violation;
pub use links::LinkSet;
pub use mutation::Mutation;
pub use roots::{fresh, roots};
pub use search::{Found, Limits, Report, search};
pub use state::{Bounds, World};
