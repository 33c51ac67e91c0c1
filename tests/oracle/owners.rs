//! The tree digest, computed from outside: from what clients can read, plus the one field they cannot, the owner
//! marker of container and TTL nodes, which is known from the requests that made them.

use std::collections::HashMap;

use crate::admin::Node;
use crate::common::client::{Reply, op};
use crate::common::jute::{Reader, Short, Stat};

/// What ZooKeeper stores as the owner of a container node.
const CONTAINER: i64 = i64::MIN;
/// The high byte of the owner of a TTL node; the rest is the time to live in milliseconds.
const TTL: i64 = 0xff_u64.cast_signed() << 56;

/// Owner markers by path and czxid.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    markers: HashMap<(String, i64), i64>,
}

impl Owners {
    /// Takes note of the nodes that a request made.
    pub(crate) fn note(&mut self, code: i32, body: &[u8], reply: &Reply) {
        let is_relevant = matches!(code, op::CREATE_CONTAINER | op::CREATE_TTL | op::MULTI);
        if is_relevant && reply.err == 0 {
            // A spoiled request or a failed multi has nothing to note.
            let _ = self.read(code, &mut Reader::new(body), &mut Reader::new(&reply.body));
        }
    }

    fn read(&mut self, code: i32, asked: &mut Reader<'_>, got: &mut Reader<'_>) -> Result<(), Short> {
        if code != op::MULTI {
            return self.one(code, code, asked, got);
        }
        loop {
            let (code, done, _) = (asked.int()?, asked.boolean()?, asked.int()?);
            let (result, _, _) = (got.int()?, got.boolean()?, got.int()?);
            if done || result == -1 {
                return Ok(());
            }
            self.one(code, result, asked, got)?;
        }
    }

    /// One operation, asked as `code` and answered as `result`.
    fn one(
        &mut self,
        code: i32,
        result: i32,
        asked: &mut Reader<'_>,
        got: &mut Reader<'_>,
    ) -> Result<(), Short> {
        asked.string()?;
        match code {
            op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                asked.buffer()?;
                asked.acls()?;
                let flags = asked.int()?;
                let ttl = if code == op::CREATE_TTL { asked.long()? } else { 0 };
                let path = got.string()?;
                if result != op::CREATE {
                    self.markers.insert((path, got.stat()?.czxid), marker(code, flags, ttl));
                }
            }
            op::SET_DATA => {
                asked.buffer()?;
                asked.int()?;
                got.stat()?;
            }
            _ => {
                asked.int()?;
            }
        }
        Ok(())
    }

    /// ZooKeeper's sum over all nodes outside `/zookeeper`.
    pub(crate) fn digest(&self, tree: &[Node]) -> i64 {
        let counted = tree.iter().filter(|n| !n.path.starts_with("/zookeeper/"));
        counted.map(|n| i64::from(self.node_digest(n))).fold(0, i64::wrapping_add)
    }

    fn node_digest(&self, node: &Node) -> u32 {
        let stat = &node.stat;
        let marker = self.markers.get(&(node.path.clone(), stat.czxid)).copied().unwrap_or(0);
        let owner = if stat.ephemeral_owner == 0 { marker } else { stat.ephemeral_owner };
        let mut crc = crc32fast::Hasher::new();
        crc.update(if node.path == "/" { b"" } else { node.path.as_bytes() });
        crc.update(node.data.as_deref().unwrap_or_default());
        crc.update(&stored_bytes(stat, owner));
        crc.finalize()
    }
}

/// Alone, the operation code decides what a node becomes (and nothing but create and create2 takes flag 4, for a
/// plain node, which is never noted); inside a multi flag 4 makes a container of any kind of create.
fn marker(code: i32, flags: i32, ttl: i64) -> i64 {
    match (code, flags) {
        (op::CREATE_CONTAINER, _) | (_, 4) => CONTAINER,
        (op::CREATE_TTL, 5 | 6) => TTL | ttl,
        _ => 0,
    }
}

/// The fields of the stored stat that count, in the order in which they do.
fn stored_bytes(stat: &Stat, owner: i64) -> Vec<u8> {
    // Clients see twice the stored count less the children that are there.
    let cversion = (stat.cversion.wrapping_add(stat.num_children)) / 2;
    let longs = [stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.mtime];
    let mut bytes: Vec<u8> = longs.iter().flat_map(|v| v.to_be_bytes()).collect();
    for int in [stat.version, cversion, stat.aversion] {
        bytes.extend_from_slice(&int.to_be_bytes());
    }
    bytes.extend_from_slice(&owner.to_be_bytes());
    bytes
}
