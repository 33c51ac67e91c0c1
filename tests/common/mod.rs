//! What the integration tests share: finding outside tools, starting a server (Zabra or a real ZooKeeper) on a free
//! loopback port, and a raw client of the ZooKeeper protocol.
//!
//! Nothing here uses Zabra's own codec: a mistake in it must not be able to hide behind itself.
//!
//! 1. Whatever a test starts it stops: every child is killed when its owner is dropped, panics included.
//! 2. Every wait is bounded (`REPLY_LIMIT`, `START_LIMIT`); a server that hangs fails the test.
//! 3. Only loopback addresses are used.

pub(crate) mod calls;
pub(crate) mod client;
pub(crate) mod jute;
pub(crate) mod programs;
pub(crate) mod server;
pub(crate) mod tools;
