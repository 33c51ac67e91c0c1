//! The connections between nodes, through relays in this process, so that they can be cut, in one direction or in both, and healed.
//!
//! 1. Every node knows each other node by ports of its own, behind which a relay stands: for each pair, and both of a node's ports.
//! 2. What is sent in a direction that is cut waits, as with packets that are lost and sent again; connections stay open, and new ones
//!    are taken, but nothing comes through. Clients are not relayed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::server::free_port;

/// How often a relay looks whether it is to end, or its direction is healed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One per direction between two nodes.
#[derive(Debug, Default)]
struct Direction {
    cut: AtomicBool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Wires {
    nodes: usize,
    directions: Vec<Arc<Direction>>,
    /// Quorum and election port by which `from` knows `to`.
    ports: Vec<(u16, u16)>,
    over: Arc<AtomicBool>,
}

impl Wires {
    /// Between nodes 1 to `nodes`, each with its quorum and election port in `real`.
    pub(crate) fn new(real: &[(u16, u16)]) -> Wires {
        let nodes = real.len();
        let over = Arc::new(AtomicBool::new(false));
        let directions: Vec<Arc<Direction>> = (0..nodes * nodes).map(|_| Arc::default()).collect();
        let mut ports = Vec::new();
        for from in 0..nodes {
            for (to, (quorum, election)) in real.iter().enumerate() {
                let (there, back) =
                    (Arc::clone(&directions[from * nodes + to]), Arc::clone(&directions[to * nodes + from]));
                let relay = |port| relay(port, Arc::clone(&there), Arc::clone(&back), Arc::clone(&over));
                ports.push(if from == to {
                    (*quorum, *election)
                } else {
                    (relay(*quorum), relay(*election))
                });
            }
        }
        Wires { nodes, directions, ports, over }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        (from - 1) * self.nodes + (to - 1)
    }

    /// The quorum and election port by which `from` knows `to`.
    pub(crate) fn ports(&self, from: usize, to: usize) -> (u16, u16) {
        self.ports[self.at(from, to)]
    }

    /// Nothing that `from` sends reaches `to`.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        self.directions[self.at(from, to)].cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts `node` off from all others.
    pub(crate) fn isolate(&self, node: usize) {
        (1..=self.nodes).filter(|other| *other != node).for_each(|other| self.cut(node, other));
    }

    /// Everything comes through again.
    pub(crate) fn heal(&self) {
        self.directions.iter().for_each(|direction| direction.cut.store(false, Ordering::SeqCst));
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// Listens on a new port for connections to `port`.
fn relay(port: u16, there: Arc<Direction>, back: Arc<Direction>, over: Arc<AtomicBool>) -> u16 {
    let mine = free_port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, mine)).expect("a free port");
    listener.set_nonblocking(true).expect("a listener");
    std::thread::spawn(move || {
        while !over.load(Ordering::SeqCst) {
            let Ok((from, _)) = listener.accept() else {
                std::thread::sleep(LOOK_EVERY);
                continue;
            };
            // Nobody listens there: closed, as a refused connection would be.
            let Ok(to) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
            let (from_too, to_too) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
            let (there, back) = (Arc::clone(&there), Arc::clone(&back));
            let (over, over_too) = (Arc::clone(&over), Arc::clone(&over));
            std::thread::spawn(move || pump(from, to, &there, &over));
            std::thread::spawn(move || pump(to_too, from_too, &back, &over_too));
        }
    });
    mine
}

/// Moves bytes until one side closes.
fn pump(mut from: TcpStream, mut to: TcpStream, direction: &Direction, over: &AtomicBool) {
    let mut bytes = vec![0; 64 << 10];
    let _ = (from.set_nonblocking(false), from.set_nodelay(true), to.set_nodelay(true));
    let _ = from.set_read_timeout(Some(Duration::from_millis(100)));
    while !over.load(Ordering::SeqCst) {
        let count = match from.read(&mut bytes) {
            Ok(count) => count,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => 0,
        };
        while direction.cut.load(Ordering::SeqCst) && !over.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK_EVERY);
        }
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
