//! ZooKeeper's wire: jute, client records, transaction records, the packets and notifications of peers. Bytes in, borrowed values out; no state, no I/O.
//!
//! - W1: decoding never panics, never allocates on the word of a length or a count, and borrows from the input.
//! - W2: every number is big-endian; a record is its fields in order, without tag or length.
//! - W3: encoding appends to a `Vec<u8>` that the caller reuses; nothing here allocates in steady state.
//!
//! Facts: Apache ZooKeeper's `zookeeper.jute` (3.9) and `BinaryInputArchive`; see `src/docs/compatibility.md`.

mod acl;
mod code;
pub mod election;
pub mod jute;
pub mod quorum;
pub mod quorum_config;
pub mod quorum_payload;
pub mod reply;
pub mod request;
mod stat;
pub mod txn;
mod vector;

pub use acl::{Acl, AclVec, perms, put_acl_vec};
pub use code::{ErrorCode, OpCode};
pub use stat::{Stat, StatPersisted};
pub use vector::{Element, StrVec, Vector};
