//! Zabra: a coordination server that every ZooKeeper client uses unchanged.
//!
//! # The map
//!
//! A module imports only from *lower* layers and from its own children; `tests/layering.rs` fails on any other edge.
//!
//! | layer | module | what it owns |
//! |---|---|---|
//! | L0 | [`base`] | newtypes, time, seeded randomness, checksums, limits |
//! | L1 | [`wire`] | jute, client records, transaction records, packets and notifications of peers |
//! | L1 | [`storage`] | file system seam, transaction log, snapshots, superblock; payloads are opaque bytes + zxid |
//! | L2 | [`tree`] | the state machine: nodes, ACLs, quotas, watches, digest |
//! | L2 | [`session`] | who is alive: owners, expiry, passwords |
//! | L2 | [`election`] | who leads: fast leader election as a pure machine |
//! | L2 | [`zab`] | one history: how a learner is brought up to date |
//! | L3 | [`node`] | joins the cores: prepare -> append -> flush -> apply -> reply |
//! | L4 | [`server`] | tokio, threads, sockets, configuration, four-letter words: the shell |
//! | L5 | [`tools`] | what the command line offers: serve, bench, log and snapshot inspection |
//!
//! Everything below [`server`] is pure: no clock, thread, socket, environment or OS randomness; `storage` blocks, but
//! touches the world only through [`storage::vfs`]. Start reading in `src/docs/architecture.md`.

pub mod base;
pub mod election;
pub mod node;
pub mod server;
pub mod session;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tools;
pub mod tree;
pub mod wire;
pub mod zab;
