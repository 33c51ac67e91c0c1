//! Ensembles of real processes: forming, failing over, catching up, sessions that move, and storms, seen by clients.
//!
//! All of it takes less than two and a half minutes on two cores. `ZABRA_STORM_SECONDS` (20 without it) makes the storms longer,
//! `ZABRA_SEED` repeats the decisions of one; `ZABRA_KEEP_DATA=1` keeps the directories of a failing test.
//! The stories of `networks` need `ip` and the right to make network namespaces; without, they say so, or fail if `ZABRA_REQUIRE_INTEROP=1`.
//!
//! 1. Every test starts its own ensemble on ports and directories of its own, and leaves nothing behind.
//! 2. What a client was told is compared with what every node says afterwards; nothing is taken from the servers' own accounts but who leads
//!    and how a node was brought up to date.

mod catching_up;
mod clients;
mod cluster;
#[expect(dead_code, reason = "shared with other test programs, each of which uses a part")]
#[path = "../common/mod.rs"]
mod common;
mod failing;
mod forming;
mod forwarding;
mod hang;
mod load;
mod modes;
mod netns;
mod network_storm;
mod networks;
mod partitions;
mod recovering;
mod sessions;
mod storm;
mod wires;
