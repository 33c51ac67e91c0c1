//! From a host and a port to a connection or a listening socket.
//!
//! - R1: a name is asked for with every call, so that a server that moved is found; the resolver runs on a thread of its own.
//! - R2: every address of a name is tried, in the resolver's order.
//! - R3: each wait has an end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::server::config::ListenAddress;
use crate::wire::quorum_config::HostPort;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// An idle connection is asked whether it is still there after so long, again after so long, and given up after so many.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TRIES: u32 = 5;

/// The same for one with something on its way, ms.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS: u32 = 7_000;

/// An address that has not answered is asked anew after so long: TCP itself doubles its pauses, and a network that is there again
/// would have to wait for the end of one.
const ASK_ANEW: Duration = Duration::from_millis(1_500);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no address to try.
    #[error("{host}: no address for this name: {source}")]
    Name {
        /// As written.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The last address that was tried.
    #[error("{address}: {source}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said; `TimedOut` when it said nothing.
        source: io::Error,
    },
}

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}, tried {tries} time(s): {source}")]
pub struct BindError {
    /// As written.
    pub address: ListenAddress,
    /// Attempts made.
    pub tries: u32,
    /// What the system said last.
    pub source: io::Error,
}

/// Connects to the first address of `target` that answers. The name may take `wait`, and so may each address.
pub async fn connect(target: HostPort<'_>, wait: Duration) -> Result<TcpStream, ConnectError> {
    let name = |source| ConnectError::Name { host: target.host.to_owned(), source };
    let candidates =
        timeout(wait, lookup(target)).await.unwrap_or_else(|_| Err(timed_out())).map_err(name)?;
    let mut failed = name(io::Error::from(io::ErrorKind::NotFound));
    for address in candidates {
        match connect_one(address, wait).await {
            // Connecting to a free port of one's own may, by chance, meet itself.
            Ok(stream) if stream.local_addr().ok() == Some(address) => {
                let source = io::Error::from(io::ErrorKind::ConnectionRefused);
                failed = ConnectError::Connect { address, source };
            }
            Ok(stream) => {
                tune(&stream);
                return Ok(stream);
            }
            Err(source) => failed = ConnectError::Connect { address, source },
        }
    }
    Err(failed)
}

async fn connect_one(address: SocketAddr, wait: Duration) -> io::Result<TcpStream> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match timeout(left.min(ASK_ANEW), TcpStream::connect(address)).await {
            Ok(connected) => return connected,
            Err(_) if left <= ASK_ANEW => return Err(timed_out()),
            Err(_) => {}
        }
    }
}

/// Listens on the first address that can be bound; `tries` times (0: for ever), with a `pause` between them.
pub async fn bind(listen: &ListenAddress, tries: u32, pause: Duration) -> Result<TcpListener, BindError> {
    let mut tried = 0;
    loop {
        tried += 1;
        match bind_once(listen).await {
            Ok(listener) => return Ok(listener),
            Err(source) if tried == tries => {
                return Err(BindError { address: listen.clone(), tries: tried, source });
            }
            Err(error) => {
                tracing::warn!(address = %listen, %error, tried, tries, "cannot listen; trying again");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn bind_once(listen: &ListenAddress) -> io::Result<TcpListener> {
    let candidates = match &listen.host {
        Some(host) => lookup(HostPort { host, port: listen.port }).await?,
        None => listen.candidates()?,
    };
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in candidates {
        match bind_one(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Or a restart would have to wait for the last connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// An address as it stands, or the addresses of a name.
async fn lookup(target: HostPort<'_>) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    Ok(lookup_host((target.host, target.port)).await?.collect())
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

/// Small packets go out at once, and a machine that is gone is noticed. Best effort: a connection that breaks is noticed when it is read.
pub fn tune(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_TRIES);
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn on(host: Option<&str>, port: u16) -> ListenAddress {
        ListenAddress { host: host.map(str::to_owned), port }
    }

    #[tokio::test]
    async fn a_bound_port_can_be_connected_to_by_name_and_by_address() {
        let listener = bind(&on(Some("localhost"), 0), 1, WAIT).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["localhost", &listener.local_addr().unwrap().ip().to_string()] {
            let stream = connect(HostPort { host, port }, WAIT).await.unwrap();
            assert!(stream.nodelay().unwrap());
            assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
            assert_eq!(rustix::net::sockopt::tcp_keepcnt(&stream).unwrap(), KEEP_ALIVE_TRIES);
            #[cfg(target_os = "linux")]
            assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), UNACKNOWLEDGED_MS);
        }
        let any = bind(&on(None, 0), 1, WAIT).await.unwrap();
        let port = any.local_addr().unwrap().port();
        connect(HostPort { host: "127.0.0.1", port }, WAIT).await.unwrap();
    }

    #[tokio::test]
    async fn what_fails_says_where() {
        let free = bind(&on(Some("127.0.0.1"), 0), 1, WAIT).await.unwrap().local_addr().unwrap();
        let refused = connect(HostPort { host: "127.0.0.1", port: free.port() }, WAIT).await.unwrap_err();
        assert!(refused.to_string().contains(&free.to_string()), "{refused}");
        let unknown = connect(HostPort { host: "nowhere.invalid", port: 1 }, WAIT).await.unwrap_err();
        assert!(
            matches!(&unknown, ConnectError::Name { host, .. } if host == "nowhere.invalid"),
            "{unknown}"
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_tried_as_often_as_asked() {
        let taken = bind(&on(Some("127.0.0.1"), 0), 1, WAIT).await.unwrap();
        let address = on(Some("127.0.0.1"), taken.local_addr().unwrap().port());
        let refused = bind(&address, 3, Duration::from_millis(1)).await.unwrap_err();
        assert_eq!((refused.tries, refused.source.kind()), (3, io::ErrorKind::AddrInUse));
        assert!(refused.to_string().contains(&address.to_string()), "{refused}");
        // For ever means: until it is free.
        let waiting = tokio::spawn({
            let address = address.clone();
            async move { bind(&address, 0, Duration::from_millis(1)).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        drop(taken);
        waiting.await.unwrap().unwrap();
    }
}
