//! The shell: tokio, threads, sockets, configuration. Everything that decides lives in the layers below.
//!
//! - H1: one process, one data directory, one [`Server`]; the directory is locked for as long as it runs.
//! - H2: lock order is prepare or flush stage or the ensemble's shell, tree, sessions, outbox; a later one is never held while an earlier one is taken.
//! - H3: after `Shared::fail` nothing is acknowledged, and the process ends.
//!
//! Threads: tokio's workers (connections, timers), one commit thread (`commit`) or one for the member (`ensemble`), one snapshot thread (`snapshotter`), one that
//! keeps a spare log segment ready (`housekeeping`).

mod awake;
mod boot;
mod commit;
pub mod config;
mod conn;
mod conn_task;
mod dispatch;
mod ensemble;
pub mod fourletter;
mod housekeeping;
mod input;
mod listener;
pub mod quorum;
mod receive;
mod registry;
mod snapshotter;
pub mod stats;
mod view;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use self::boot::Recovered;
use self::commit::Commit;
use self::config::Config;
use self::conn::Conn;
use self::ensemble::Ensemble;
use self::input::InputBudget;
use self::registry::Registry;
use self::snapshotter::Snapshots;
use self::stats::ServerStats;
use crate::base::{ConnId, MonoMs, SessionId, WallMs};
use crate::node::{AuthIds, PrepareOptions};
use crate::session::Tracker;
use crate::tree::Tree;

/// In place of a time that no clock reaches.
const A_LONG_TIME: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What every task and thread of a server shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) sessions: Mutex<Tracker>,
    pub(crate) commit: Commit,
    /// `None`: this server is its own quorum.
    pub(crate) ensemble: Option<Ensemble>,
    pub(crate) conns: Registry,
    pub(crate) input: InputBudget,
    pub(crate) stats: ServerStats,
    pub(crate) snapshots: Snapshots,
    pub(crate) prepare_options: PrepareOptions,
    /// Identity of the server's own writes.
    pub(crate) own_auth: AuthIds,
    /// closeSessions that met a full disk: submitted again later.
    unclosed: Mutex<BTreeSet<SessionId>>,
    /// Who wrote a snapshot.
    node_id: u64,
    started: Instant,
    stop: watch::Sender<bool>,
    stopped: AtomicBool,
    failure: Mutex<Option<String>>,
    /// The port that is really listened on.
    client_port: AtomicU16,
    /// What `stmk` sets and `gtmk` shows.
    trace_mask: AtomicI64,
}

impl Shared {
    /// Milliseconds of the monotonic clock since the server started.
    pub(crate) fn mono_now(&self) -> MonoMs {
        self.mono_at(Instant::now())
    }

    /// The same for a time at hand.
    pub(crate) fn mono_at(&self, now: Instant) -> MonoMs {
        let since = now.saturating_duration_since(self.started);
        MonoMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment that is `at` on that clock.
    pub(crate) fn instant_of(&self, at: MonoMs) -> Instant {
        self.started.checked_add(Duration::from_millis(at.0)).unwrap_or_else(|| self.started + A_LONG_TIME)
    }

    /// The wall clock, for transaction headers only.
    pub(crate) fn wall_now(&self) -> WallMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The durable path failed: say why once, acknowledge nothing any more, stop.
    pub(crate) fn fail(&self, error: &dyn fmt::Display) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(%error, "nothing is acknowledged any more, the server stops");
            *failure = Some(error.to_string());
        }
        drop(failure);
        self.request_stop();
    }

    /// Starts the end of everything; tasks see it at once.
    pub(crate) fn request_stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.stop.send_replace(true);
        self.commit.unpark();
        self.snapshots.wake();
        // Whoever is added from now on finds the mark.
        for conn in self.conns.all() {
            conn.mark_woken();
            conn.wake();
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Waits for the end.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    /// A connection's task has ended: its watches go, its session waits for another connection.
    pub(crate) async fn disconnected(&self, conn: &Conn) {
        self.conns.remove(conn);
        if let Some(session) = conn.session() {
            self.leave_session(session, conn.id);
        }
        // It may have a million of them: writers come in between, and so do the connections that share this thread.
        while self.tree.read().remove_conn_step(conn.id) {
            tokio::task::yield_now().await;
        }
    }

    /// The connection of a session has ended. A leader keeps in mind whose it was: a request that is still on its way from an earlier place of the
    /// session must not find it free. A follower leaves sessions that all know to the leader.
    fn leave_session(&self, session: SessionId, conn: ConnId) {
        let mut sessions = self.sessions.lock();
        let is_local = sessions.get(session).is_some_and(|handle| handle.local());
        match &self.ensemble {
            _ if is_local => sessions.disconnect(session, conn),
            None => sessions.disconnect(session, conn),
            Some(ensemble) if ensemble.leads() => {}
            Some(_) => sessions.forget(session, conn),
        }
    }

    /// A closeSession was applied. Unless its connection asked for it (and gets a reply), the connection is ended.
    pub(crate) fn session_closed(&self, session: SessionId, asked_by: Option<ConnId>) {
        let owner = {
            let mut sessions = self.sessions.lock();
            let owner = sessions.get(session).map(|handle| handle.owner());
            sessions.remove(session);
            owner
        };
        let others = owner.filter(|owner| Some(*owner) != asked_by);
        if let Some(conn) = others.and_then(|owner| self.conns.get(owner)) {
            conn.kill();
        }
    }

    /// Sees that the writes that `me` has submitted are carried out: by itself, if it is alone with them.
    pub(crate) fn carry_out(&self, me: &Conn, now: Instant) {
        if let Some(ensemble) = &self.ensemble {
            ensemble.kick(self, me);
        } else if let Some(alone) = self.commit.alone() {
            alone.kick(self, me, now);
        }
    }

    /// A member of an ensemble without a leader that lets clients read.
    pub(crate) fn is_read_only(&self) -> bool {
        self.ensemble.as_ref().is_some_and(Ensemble::is_read_only)
    }

    /// This server decides when a session has been silent for too long, and when a node has been empty for too long: alone, or as a leader.
    pub(crate) fn ends_sessions(&self) -> bool {
        self.ensemble.as_ref().is_none_or(Ensemble::leads)
    }

    /// A closeSession met a full disk: it is submitted again by the clock.
    pub(crate) fn close_later(&self, session: SessionId) {
        self.unclosed.lock().insert(session);
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    recovered: Recovered,
    threads: Vec<JoinHandle<()>>,
    finish: boot::Finish,
}

impl Server {
    /// Recovers the data directory, binds the client port and starts to serve. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Says what is wrong, where, and what to do: configuration, data directory, damage, port in use.
    pub async fn start(config: Config) -> anyhow::Result<Server> {
        // First the port: a second server on one machine should fail before it has loaded a large tree.
        let listener = listener::bind(&config.listen, config.listen_backlog).with_context(|| {
            format!("cannot listen for clients on {} (clientPort, clientPortAddress)", config.listen)
        })?;
        let address = listener.local_addr()?;
        let booted = tokio::task::spawn_blocking(move || boot::boot(config)).await??;
        let boot::Booted { shared, recovered, spares, store, finish, member } = booted;
        shared.client_port.store(address.port(), Ordering::Relaxed);
        let mut threads = Vec::new();
        if let Some(parts) = member {
            threads.push(ensemble::spawn(Arc::clone(&shared), parts).await?);
        } else {
            let alone = Arc::clone(&shared);
            let run = move || alone.commit.alone().expect("made without a member").run_thread(&alone);
            threads.push(spawn("zabra-commit", run)?);
        }
        let snapshots = Arc::clone(&shared);
        threads.push(spawn("zabra-snapshot", move || snapshotter::run(&snapshots, &store))?);
        let segments = Arc::clone(&shared);
        threads.push(spawn("zabra-segments", move || housekeeping::run_segments(&segments, spares))?);
        tokio::spawn(housekeeping::run_expiry(Arc::clone(&shared)));
        tokio::spawn(housekeeping::run_reaper(Arc::clone(&shared)));
        if shared.config.keep_cores_awake {
            tokio::spawn(awake::run(Arc::clone(&shared)));
        }
        tokio::spawn(listener::run(Arc::clone(&shared), listener));
        Ok(Server { shared, address, recovered, threads, finish })
    }

    /// Where clients are served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was found in the data directory.
    #[must_use]
    pub const fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Waits until the server has failed by itself.
    pub async fn failed(&self) {
        self.shared.stopped().await;
    }

    /// Stops: nothing more is taken in or answered, what was appended is made durable, the log is closed with a clean mark. A write
    /// that was not answered may be there after the next start or not.
    ///
    /// # Errors
    /// The failure that ended the server, if one did.
    pub fn stop(self) -> anyhow::Result<()> {
        let failed = self.shared.failure.lock().clone();
        self.shared.request_stop();
        for thread in self.threads {
            if thread.join().is_err() {
                anyhow::bail!("a thread of the server panicked; see the log above");
            }
        }
        match failed.or_else(|| self.shared.failure.lock().clone()) {
            Some(failure) => Err(anyhow::anyhow!(failure)),
            None => self.finish.clean_stop(&self.shared),
        }
    }
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(f)
        .with_context(|| format!("cannot start thread {name}"))
}
