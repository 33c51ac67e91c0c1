//! Limits that more than one layer must agree on, with the arithmetic that ties them. A limit of one layer alone lives there.

/// Largest client frame by default: `jute.maxbuffer`, 1 MiB − 1. 1,048,576 is refused, as ZooKeeper does.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 0xf_ffff;

/// Hard ceiling for a configured `jute.maxbuffer`: 60 MiB, so that one record, and what a group may hold before it, always fit into a
/// default segment (64 MiB).
pub const FRAME_BYTES_MAX: usize = 60 << 20;

/// Largest log record payload, bytes. A transaction is bounded by the frame it came in plus what the server adds (header 32,
/// digest 12, parent versions, sequence suffixes); closeSession is bounded when ephemerals are created (rule R11).
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(FRAME_BYTES_MAX < PAYLOAD_BYTES_MAX, "what a client may send, the log must take");
