//! Accepts clients.
//!
//! - A1: an error of `accept` (no file descriptors, a client gone before it was accepted) never ends the listener.
//! - A2: what a new connection may cost is bounded before it has sent a byte (`Registry::add`, `conn_task`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::base::ConnId;
use crate::node::AuthIds;
use crate::server::config::ListenAddress;
use crate::server::conn::Conn;
use crate::server::{Shared, conn_task};

/// Connections that may wait to be accepted; the system cuts it to its own limit.
const BACKLOG: u32 = 4096;

/// Pause after an error of `accept`, so that "too many open files" does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Binds the client port, at the first address that can be bound.
pub(crate) fn bind(listen: &ListenAddress, backlog: Option<u32>) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in listen.candidates()? {
        match bind_one(address, backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn bind_one(address: SocketAddr, backlog: Option<u32>) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Or a restart would have to wait for the last connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog.unwrap_or(BACKLOG))
}

/// Accepts until the server stops.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let next_id = AtomicU64::new(1);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&shared, stream, peer, ConnId(next_id.fetch_add(1, Ordering::Relaxed))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client; trying again");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            () = shared.stopped() => return,
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, id: ConnId) {
    // A socket for all addresses shows an IPv4 client as ::ffff:1.2.3.4; nobody else does.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let limits = &shared.config.limits;
    let outbox_bytes_max = usize::try_from(limits.outbox_bytes_per_connection_max).unwrap_or(usize::MAX);
    let conn = Conn::new(id, peer, AuthIds::of_peer(peer.ip()), shared.wall_now(), outbox_bytes_max);
    if let Err(refused) = shared.conns.add(&conn, limits.connections_max, limits.connections_per_address_max)
    {
        shared.stats.connections_rejected.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(peer = %peer, %refused, "client turned away");
        return;
    }
    // Replies are small and complete: waiting to fill a packet would only delay them. A client that went away already is noticed when its
    // socket is read.
    let _ = stream.set_nodelay(true);
    if shared.config.client_tcp_keep_alive {
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        conn_task::run(&shared, &conn, stream).await;
        shared.disconnected(&conn).await;
    });
}
