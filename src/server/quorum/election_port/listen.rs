//! Accepts connections and finds out who it is.
//!
//! - N1: a connection that does not say who it is costs a socket and at most a hello's bytes, for the time of a handshake.
//! - N2: [`HANDSHAKES_MAX`] connections may be at it; one more ends the oldest, so that strangers who say nothing do not keep members out.
//! - N3: only members get further, and observers without an id.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::link::Link;
use super::peer::Peer;
use super::{Context, tune};
use crate::base::ServerId;
use crate::wire::election::{ANONYMOUS, Hello};
use crate::wire::quorum::{PeerError, Step};

/// Connections that have not said yet who they are.
const HANDSHAKES_MAX: usize = 64;

/// Observers without an id.
const ANONYMOUS_MAX: usize = 64;

/// Pause after an error of `accept`, so that "too many open files" does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Complaints about those who are turned away: one in so long.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Why a connection is closed before it is one with a peer.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it did not say who it is in time")]
    TooSlow,
    #[error("it ended before it said who it is: {0}")]
    Ended(#[from] io::Error),
    #[error("{0}")]
    Malformed(#[from] PeerError),
    #[error("it says it is server {}, which is no member", .0.0)]
    Stranger(ServerId),
    #[error("it says it is server {}, which is this server: two servers with one id, or a wrong address", .0.0)]
    Myself(ServerId),
    #[error("there are {ANONYMOUS_MAX} observers without an id already")]
    TooMany,
}

/// Accepts until the port is dropped.
pub(super) async fn run(context: Arc<Context>, listener: TcpListener) {
    let complaints = Arc::new(Complaints::default());
    let mut handshakes = JoinSet::new();
    let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = listener.accept().await;
        while handshakes.try_join_next().is_some() {}
        oldest.retain(|handshake| !handshake.is_finished());
        match accepted {
            Ok((stream, address)) => {
                if oldest.len() >= HANDSHAKES_MAX {
                    oldest.pop_front().expect("there are some").abort();
                }
                let (context, complaints) = (Arc::clone(&context), Arc::clone(&complaints));
                oldest.push_back(handshakes.spawn(async move {
                    if let Err(refused) = admit(&context, stream).await {
                        complaints.say(address, &refused);
                    }
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the election port; trying again");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn admit(context: &Arc<Context>, mut stream: TcpStream) -> Result<(), Refused> {
    tune(&stream);
    let id = match timeout(context.handshake_timeout, read_hello(&mut stream)).await {
        Ok(id) => id?,
        Err(_) => return Err(Refused::TooSlow),
    };
    if id == ANONYMOUS {
        return admit_anonymous(context, stream);
    }
    if id == context.me {
        return Err(Refused::Myself(id));
    }
    let link = context.links.get(id).filter(|_| id.0 >= 0).ok_or(Refused::Stranger(id))?;
    if id > context.me {
        link.connected_by_peer(stream);
    } else {
        // Closed first, as ZooKeeper does, so that the peer does not take it for the connection.
        drop(stream);
        link.asked_by_peer();
    }
    Ok(())
}

/// Reads the hello and not one byte more: what follows are frames.
async fn read_hello(stream: &mut TcpStream) -> Result<ServerId, Refused> {
    let mut bytes = Vec::new();
    loop {
        match Hello::parse(&bytes)? {
            Step::Done { value, .. } => return Ok(value.server),
            Step::NeedMore { total } => {
                let missing = total - bytes.len();
                let read = stream.take(missing as u64).read_buf(&mut bytes).await?;
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

/// Gives an observer without an id a negative one; its task ends with its connection.
fn admit_anonymous(context: &Arc<Context>, stream: TcpStream) -> Result<(), Refused> {
    if context.links.count_anonymous() >= ANONYMOUS_MAX {
        return Err(Refused::TooMany);
    }
    let id = context.links.next_anonymous();
    let link = Arc::new(Link::new(id, Vec::new()));
    link.connected_by_peer(stream);
    context.links.insert(Arc::clone(&link));
    // Not tied to the handshake, which may be ended for being the oldest. It ends with the connection, or when nobody takes events any more.
    tokio::spawn(Peer::new(Arc::clone(context), link).run());
    Ok(())
}

/// At most one warning in [`COMPLAINT_PAUSE`], with the number of those that were left out.
#[derive(Debug, Default)]
struct Complaints {
    last: parking_lot::Mutex<Option<Instant>>,
    left_out: AtomicU64,
}

impl Complaints {
    fn say(&self, address: SocketAddr, refused: &Refused) {
        let now = Instant::now();
        let mut last = self.last.lock();
        if last.is_some_and(|last| now.duration_since(last) < COMPLAINT_PAUSE) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%address, %refused, "a connection to the election port was closed");
            return;
        }
        *last = Some(now);
        let others = self.left_out.swap(0, Ordering::Relaxed);
        tracing::warn!(%address, %refused, others, "a connection to the election port was closed");
    }
}
