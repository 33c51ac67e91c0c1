//! Ports that are free, and stay free while a node is down.
//!
//! - P1: they lie below those that the system gives to outgoing connections: otherwise a node that is down could find its port taken by a
//!   connection when it comes back, and a peer that tries to reach it could reach itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::base::rng::Rng;

/// From here on ports are tried.
const PORT_FIRST: u16 = 15_000;

/// Up to here, unless the system gives lower ones to outgoing connections.
const PORT_END: u16 = 32_000;

/// Attempts for one port.
const TRIES: u32 = 200;

/// The ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) quorum: u16,
    pub(super) election: u16,
}

impl Ports {
    const fn all(self) -> [u16; 3] {
        [self.client, self.quorum, self.election]
    }
}

/// Free ports for `count` nodes.
pub(super) fn choose(count: usize) -> anyhow::Result<Vec<Ports>> {
    let seed = getrandom::u64().map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
    let mut rng = Rng::new(seed);
    let end = first_outgoing().unwrap_or(PORT_END).min(PORT_END);
    // All are held until the last is found, or one could be found twice.
    let mut held = Vec::new();
    for _ in 0..count * 3 {
        held.push(hold_one(&mut rng, end)?);
    }
    let ports =
        held.iter().map(|held| Ok(held.local_addr()?.port())).collect::<std::io::Result<Vec<u16>>>()?;
    let node = |three: &[u16]| Ports { client: three[0], quorum: three[1], election: three[2] };
    Ok(ports.chunks_exact(3).map(node).collect())
}

fn hold_one(rng: &mut Rng, end: u16) -> anyhow::Result<TcpListener> {
    let mut range = u64::from(end.saturating_sub(PORT_FIRST));
    for _ in 0..TRIES {
        let port = PORT_FIRST + u16::try_from(rng.below(range)).expect("below the range of a u16");
        if range > 0
            && let Ok(listener) = bind(port)
        {
            return Ok(listener);
        }
        range = range.max(1);
    }
    bind(0).context("no free port on 127.0.0.1")
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The first port that the system gives to outgoing connections, where it says so.
fn first_outgoing() -> Option<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Says which port of `nodes` is taken, if one is.
pub(super) fn check_free(nodes: &[Ports]) -> anyhow::Result<()> {
    for (index, ports) in nodes.iter().enumerate() {
        for port in ports.all() {
            if let Err(error) = bind(port) {
                bail!("port {port} of node {} cannot be had: {error}", index + 1);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_free_and_distinct_and_a_taken_one_is_named() {
        let nodes = choose(9).unwrap();
        let distinct: BTreeSet<u16> = nodes.iter().flat_map(|ports| ports.all()).collect();
        assert_eq!((nodes.len(), distinct.len()), (9, 27));
        let one = [nodes[0]];
        check_free(&one).unwrap();
        let _taken = bind(nodes[0].quorum).unwrap();
        let said = check_free(&one).unwrap_err().to_string();
        assert!(said.starts_with(&format!("port {} of node 1 cannot be had", nodes[0].quorum)), "{said}");
    }
}
