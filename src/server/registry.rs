//! The table of open connections, and who may add to it.
//!
//! - G1: a connection is in the table from before its first byte is read until its task ends; its watches go with it.
//! - G2: limits (in total, per address) are checked before anything is spent on a connection but the accepted socket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::base::ConnId;
use crate::server::conn::Conn;

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// `maxClientCnxns`, or Zabra's own total when that is 0.
    #[error("too many connections from this address (max {max}, see maxClientCnxns)")]
    PerAddress {
        /// The limit.
        max: u32,
    },
    /// `maxCnxns`.
    #[error("too many connections (max {max}, see maxCnxns)")]
    Total {
        /// The limit.
        max: u32,
    },
}

#[derive(Debug, Default)]
struct Table {
    conns: HashMap<ConnId, Arc<Conn>, foldhash::fast::RandomState>,
    per_address: HashMap<IpAddr, u32, foldhash::fast::RandomState>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: RwLock<Table>,
}

impl Registry {
    /// Enters a connection. `None` means no limit.
    pub(crate) fn add(
        &self,
        conn: &Arc<Conn>,
        max: Option<u32>,
        max_per_address: Option<u32>,
    ) -> Result<(), Refused> {
        let mut table = self.table.write();
        if let Some(max) = max.filter(|max| table.conns.len() >= *max as usize) {
            return Err(Refused::Total { max });
        }
        let from_address = table.per_address.entry(conn.peer.ip()).or_insert(0);
        if let Some(max) = max_per_address.filter(|max| *from_address >= *max) {
            return Err(Refused::PerAddress { max });
        }
        *from_address += 1;
        let before = table.conns.insert(conn.id, Arc::clone(conn));
        assert!(before.is_none(), "connection ids are never used twice");
        Ok(())
    }

    /// Takes a connection out.
    pub(crate) fn remove(&self, conn: &Conn) {
        let mut table = self.table.write();
        if table.conns.remove(&conn.id).is_none() {
            return;
        }
        if let Some(count) = table.per_address.get_mut(&conn.peer.ip()) {
            *count -= 1;
            if *count == 0 {
                table.per_address.remove(&conn.peer.ip());
            }
        }
    }

    /// The open connection for which `size` is largest; `None` when it is 0 for all.
    pub(crate) fn largest(&self, size: impl Fn(&Conn) -> usize) -> Option<Arc<Conn>> {
        let table = self.table.read();
        let sizes = table.conns.values().map(|conn| (size(conn), conn)).filter(|(size, _)| *size > 0);
        sizes.max_by_key(|(size, _)| *size).map(|(_, conn)| Arc::clone(conn))
    }

    /// The connection with this id, if it is still open.
    pub(crate) fn get(&self, id: ConnId) -> Option<Arc<Conn>> {
        self.table.read().conns.get(&id).cloned()
    }

    /// Number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.table.read().conns.len()
    }

    /// All open connections, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Conn>> {
        let mut all: Vec<_> = self.table.read().conns.values().cloned().collect();
        all.sort_by_key(|conn| conn.id);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::WallMs;
    use crate::node::AuthIds;

    fn conn(id: u64, address: &str) -> Arc<Conn> {
        let peer = format!("{address}:99").parse().unwrap();
        Conn::new(ConnId(id), peer, AuthIds::of_peer(std::net::SocketAddr::ip(&peer)), WallMs(0), 1 << 20)
    }

    #[test]
    fn limits_hold_and_are_given_back() {
        let registry = Registry::default();
        let (a, b, c) = (conn(1, "127.0.0.1"), conn(2, "127.0.0.1"), conn(3, "127.0.0.2"));
        registry.add(&a, Some(2), Some(1)).unwrap();
        assert_eq!(registry.add(&b, Some(2), Some(1)), Err(Refused::PerAddress { max: 1 }));
        registry.add(&c, Some(2), Some(1)).unwrap();
        assert_eq!(registry.add(&b, Some(2), Some(9)), Err(Refused::Total { max: 2 }));
        registry.remove(&a);
        registry.remove(&a);
        assert_eq!(registry.len(), 1);
        registry.add(&b, Some(2), Some(1)).unwrap();
        assert!(registry.get(ConnId(1)).is_none() && registry.get(ConnId(2)).is_some());
    }
}
