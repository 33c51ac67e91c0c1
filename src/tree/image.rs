//! Exact images.

use crate::base::Zxid;

/// What a chunk holds. Numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChunkKind {
    /// zxid, digest, counts, digest log. Exactly one, the first.
    Header = 1,
    /// ACL table.
    Acls = 2,
    /// Sessions and timeouts.
    Sessions = 3,
    /// Nodes.
    Nodes = 4,
}

impl ChunkKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u8(v: u8) -> Option<ChunkKind> {
        Some(match v {
            1 => ChunkKind::Header,
            2 => ChunkKind::Acls,
            3 => ChunkKind::Sessions,
            4 => ChunkKind::Nodes,
            _ => return None,
        })
    }
}

/// An image being taken: where it has come to.
#[derive(Debug)]
pub struct Image {}

impl Image {
    /// The zxid at which the image is exact.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        unimplemented!()
    }
    /// The digest at that zxid.
    #[must_use]
    pub fn digest(&self) -> u64 {
        unimplemented!()
    }
    /// Nodes as ZooKeeper counts them, at that zxid.
    #[must_use]
    pub fn node_count(&self) -> usize {
        unimplemented!()
    }
}
