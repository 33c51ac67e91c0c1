//! `AdHash`, version 2, as ZooKeeper 3.6 and later compute it.

use crate::base::checksum::{crc32, crc32_continue};
use crate::wire::StatPersisted;

/// The part of a node's digest that changes with its data only: CRC-32 of path and data. The root ("/" or "") counts as "".
#[must_use]
pub fn content_crc(path: &str, data: Option<&[u8]>) -> u32 {
    let path = if path == "/" { "" } else { path };
    crc32_continue(crc32(path.as_bytes()), data.unwrap_or_default())
}

/// What a node adds to the tree's digest.
#[must_use]
pub fn node_digest(content_crc: u32, stat: &StatPersisted) -> u32 {
    let mut bytes = [0; StatPersisted::BYTES];
    let longs = [stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.mtime];
    for (to, v) in bytes.chunks_exact_mut(8).zip(longs) {
        to.copy_from_slice(&v.to_be_bytes());
    }
    for (to, v) in bytes[40..52].chunks_exact_mut(4).zip([stat.version, stat.cversion, stat.aversion]) {
        to.copy_from_slice(&v.to_be_bytes());
    }
    bytes[52..].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    crc32_continue(content_crc, &bytes)
}

/// True for nodes that count: all but those below `/zookeeper/`.
#[must_use]
pub fn counts(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}
