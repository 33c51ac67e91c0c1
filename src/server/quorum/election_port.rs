//! The election port: one connection with every other member, kept up, and small messages over it.
//!
//! What is said on it is the business of [`crate::election`]; the bytes are [`crate::wire::election`]'s. Everything runs as tasks of
//! the runtime that [`ElectionPort::start`] is called on, and ends when the port is dropped.
//!
//! - EP1: two members have one connection, made by the one with the larger id. The other one asks for it: it connects, says who it is, is
//!   closed and connected back to. A new connection replaces the old one.
//! - EP2: for each new connection one [`ElectionEvent::Up`], before anything that came over it. [`ElectionEvent::Down`] is given
//!   once, behind everything that came from the peer: when connecting fails, or when a connection broke and was not replaced
//!   at once ([`REPLACE_WAIT`]).
//! - EP3: one message to each peer waits to be sent; a newer one takes its place. What was said last is said again over a new
//!   connection, as it may not have arrived over the old one.
//! - EP4: members without a connection are tried again after 50 ms to 1 s, doubling; at once on [`ElectionPort::reconnect`] and when they ask.
//! - EP5: bounded: events that wait, handshakes under way, messages to be sent, and bytes of a frame by those that came.
//! - EP6: whatever a connection brings costs that connection and nothing else. Errors of `accept` end nothing.
//! - EP7: a peer whose machine acknowledges nothing for a second (`UNACKNOWLEDGED_MS`) counts as gone, whatever still comes from it.

mod link;
mod listen;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::resolve::{self, BindError};
use crate::base::ServerId;
use crate::server::config::{EnsembleConfig, ListenAddress};
use crate::wire::election::{ANONYMOUS, FRAME_BYTES_MAX};
use crate::wire::quorum_config::MemberAddress;
use link::{Link, Links};
use peer::Peer;

/// Pause between two attempts to bind the port.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// A connection that broke may be replaced for so long before the peer counts as gone.
pub const REPLACE_WAIT: Duration = Duration::from_millis(100);

/// What was said and is not even acknowledged by the other machine after so long, ms, was said to nobody. Somebody who is heard and
/// hears nothing would be elected for as long as its connections stand.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS: u32 = 1_000;

/// Events that wait to be taken; beyond it connections are not read. ZooKeeper's queue is as long.
const EVENTS_MAX: usize = 100;

/// What an [`ElectionPort`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionPortOptions {
    /// This server.
    pub me: ServerId,
    /// Everybody, this server too: its own address is told to others.
    pub members: BTreeMap<ServerId, Vec<MemberAddress>>,
    /// Where to listen.
    pub listen: Vec<ListenAddress>,
    /// Attempts to bind; 0 means for ever.
    pub bind_tries: u32,
    /// Pause between two of them.
    pub bind_pause: Duration,
    /// Longest wait for a name, and for each of its addresses to answer.
    pub connect_timeout: Duration,
    /// Longest wait for the first message of a connection.
    pub handshake_timeout: Duration,
}

impl ElectionPortOptions {
    /// As the operator decided.
    #[must_use]
    pub fn of(config: &EnsembleConfig) -> ElectionPortOptions {
        let members = config.config.members();
        ElectionPortOptions {
            me: config.me,
            members: members.iter().map(|(id, member)| (*id, member.addresses.clone())).collect(),
            listen: config.listen(|address| address.election_port).collect(),
            bind_tries: config.election_bind_tries,
            bind_pause: BIND_PAUSE,
            connect_timeout: Duration::from_millis(config.cnx_timeout_ms),
            handshake_timeout: Duration::from_millis(config.handshake_timeout_ms),
        }
    }
}

/// What happened. Ids are members', or negative for observers that have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionEvent {
    /// A new connection stands, the first one or one in the place of another.
    Up(ServerId),
    /// The peer cannot be reached.
    Down(ServerId),
    /// It said something.
    Message {
        /// Who the connection says it is.
        from: ServerId,
        /// Content of the frame: 1 to 512 KiB, not looked at.
        bytes: Vec<u8>,
    },
}

/// What all tasks share.
#[derive(Debug)]
struct Context {
    me: ServerId,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    links: Links,
    events: mpsc::Sender<ElectionEvent>,
}

/// The running port.
#[derive(Debug)]
pub struct ElectionPort {
    context: Arc<Context>,
    events: mpsc::Receiver<ElectionEvent>,
    /// Aborted when the port is dropped.
    tasks: JoinSet<()>,
}

impl ElectionPort {
    /// Listens, then connects to everybody. Must be called on a runtime with I/O and time.
    pub async fn start(options: ElectionPortOptions) -> Result<ElectionPort, BindError> {
        assert!(options.me.0 >= 0 && options.me != ANONYMOUS, "a member has an id of its own");
        let mut listeners = Vec::new();
        for address in &options.listen {
            listeners.push(resolve::bind(address, options.bind_tries, options.bind_pause).await?);
        }
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let context = Arc::new(Context {
            me: options.me,
            connect_timeout: options.connect_timeout,
            handshake_timeout: options.handshake_timeout,
            links: Links::default(),
            events: sender,
        });
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(listen::run(Arc::clone(&context), listener));
        }
        let mut port = ElectionPort { context, events, tasks };
        port.set_members(options.members);
        Ok(port)
    }

    /// Says `message` to `to`, as soon as there is a connection; a message that still waits is replaced. Never blocks. Nothing
    /// is said to somebody who is no member, and nothing that is no frame: empty, or longer than 512 KiB.
    pub fn send(&self, to: ServerId, message: Vec<u8>) {
        if message.is_empty() || message.len() > FRAME_BYTES_MAX {
            tracing::error!(to = to.0, bytes = message.len(), "a message of this length cannot be sent");
            return;
        }
        match self.context.links.get(to) {
            Some(link) => link.post(message),
            None => tracing::debug!(to = to.0, "nothing is said to a server that is no member"),
        }
    }

    /// Connects now to every member that there is no connection with, whatever the back-off says.
    pub fn reconnect(&self) {
        self.context.links.all().iter().for_each(|link| link.connect_now());
    }

    /// Who is there from now on. Connections with those who stay are kept; a new address counts from the next attempt on; those
    /// who are gone are given as [`ElectionEvent::Down`] if they were up.
    pub fn set_members(&mut self, members: BTreeMap<ServerId, Vec<MemberAddress>>) {
        while self.tasks.try_join_next().is_some() {}
        let me = self.context.me;
        self.context.links.set_my_addresses(members.get(&me).cloned().unwrap_or_default());
        self.context.links.retain(|id| id.0 < 0 || members.contains_key(&id));
        for (id, addresses) in members.into_iter().filter(|(id, _)| *id != me) {
            match self.context.links.get(id) {
                Some(link) => link.set_addresses(addresses),
                None => {
                    let link = Arc::new(Link::new(id, addresses));
                    self.context.links.insert(Arc::clone(&link));
                    self.tasks.spawn(Peer::new(Arc::clone(&self.context), link).run());
                }
            }
        }
    }

    /// The next event.
    pub async fn recv(&mut self) -> ElectionEvent {
        self.events.recv().await.expect("the port itself holds a sender")
    }

    /// As [`ElectionPort::recv`].
    pub fn poll_recv(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<ElectionEvent> {
        self.events.poll_recv(cx).map(|event| event.expect("the port itself holds a sender"))
    }

    /// The next event, if there is one.
    pub fn try_recv(&mut self) -> Option<ElectionEvent> {
        self.events.try_recv().ok()
    }
}

/// Small messages that nobody waits for long: above what all connections between servers have ([`resolve::tune`]).
fn tune(stream: &TcpStream) {
    resolve::tune(stream);
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS);
}
