//! The durable half: transaction log, snapshots, superblock. Payloads are opaque bytes with a zxid; storage knows no znode.

mod fields;
pub mod log;
pub mod mmap;
pub mod snapshot;
pub mod superblock;
pub mod vfs;
