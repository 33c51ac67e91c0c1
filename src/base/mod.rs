//! The vocabulary that every layer shares: identifiers, time, seeded randomness, checksums and limits.
//!
//! Nothing here knows a file, a socket or a znode.

pub mod checksum;
mod ids;
pub mod limits;
pub mod rng;
mod time;

pub use ids::{ConnId, Epoch, LogPos, ServerId, SessionId, Zxid};
pub use time::{MonoMs, WallMs};
