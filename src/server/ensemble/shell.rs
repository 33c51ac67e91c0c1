//! The member and everything around it, as one value behind one lock: takes in what is at hand, lets the member decide, and carries out what it says.
//!
//! - S1: what goes to peers is sent before this server's own disk is waited for, so that all disks of a quorum work at the same time.
//! - S2: what comes together is appended together, and flushed once.
//! - S3: every turn is short: applying, feeding learners and sending go on in the next one.
//! - S4: turns are the member's thread's (`thread`), but for one: the task of a connection that is alone with its writes takes them to the
//!   peers itself (`lone`), which saves a hand-over. It leaves everything else, the disk among it, to the thread, and tells it what there is.
//! - S5: the lock is held for a turn, not for a flush. Before it nothing is locked (H2).
//! - S6: a flush that hangs holds up nothing but what waits for it: somebody else takes the turns meanwhile (`thread`).

mod apply;
mod lone;
mod requests;
mod shown;
mod slow_disk;
mod thread;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::evidence;
use super::host::{Clients, Peers};
use super::pending::Pending;
use super::socket::Socket;
use super::{Ensemble, Revalidation};
use crate::base::{Epoch, MonoMs, ServerId, Zxid};
use crate::election::Notice;
use crate::node::Prepare;
use crate::node::member::{Member, MemberOptions, MemberStorage, Output, Standing};
use crate::server::Shared;
use crate::server::boot::random;
use crate::server::commit::{Applier, Entry, FlushPace, Preparing, Queue};
use crate::server::quorum::election_port::{ElectionEvent, ElectionPort, ElectionPortOptions};
use crate::server::quorum::resolve;
use crate::storage::log::Flusher;
use crate::tree::{Tree, TreeOptions};
use crate::wire::quorum_config::{HostPort, MemberAddress};
use crate::zab::{Limits, LinkId};

pub(super) use lone::LastWriter;
use slow_disk::{Flushed, SlowDisk};
pub(crate) use thread::spawn;

/// Holds of the tree in one turn.
const HOLDS_PER_TURN: usize = 64;

/// Attempts to bind the quorum port, a second apart.
const BIND_TRIES: u32 = 3;

/// A server that looks for a quorum this long says whom it has not heard of.
const MISSING_AFTER: Duration = Duration::from_secs(1);

/// What a member is made of.
#[derive(Debug)]
pub(crate) struct MemberParts {
    pub(crate) storage: MemberStorage,
    /// What the tree holds.
    pub(crate) applied: Zxid,
    pub(crate) tree_options: TreeOptions,
}

/// What became ready while the loop waited, beside sockets, which are simply tried.
#[derive(Debug, Default)]
struct Arrived {
    accepted: Vec<TcpStream>,
    connected: Vec<(LinkId, Option<TcpStream>)>,
    election: Vec<ElectionEvent>,
    flushed: Vec<Flushed>,
    timer: bool,
}

/// See the module's documentation.
pub(super) struct Shell {
    shared: Arc<Shared>,
    member: Member,
    election: ElectionPort,
    listeners: Vec<TcpListener>,
    sockets: BTreeMap<LinkId, Socket>,
    connecting: JoinSet<(LinkId, Option<TcpStream>)>,
    slow_disk: SlowDisk,
    pace: FlushPace,
    to_flush: Option<Flusher>,
    /// While this server leads, and serves.
    preparing: Option<Preparing>,
    /// Taken from the queue of `commit`.
    drained: Queue,
    pending: Pending,
    /// Clients of this server that wait for a sync, oldest first, with the body of their request.
    syncs: VecDeque<(Entry, Vec<u8>)>,
    /// Answered by the leader; replied to once everything up to here is applied.
    synced: VecDeque<(Zxid, Entry, Vec<u8>)>,
    peers: Peers,
    applier: Applier,
    paused_snapshots: bool,
    /// Something happened in the middle of a turn that another one is to look at.
    again: bool,
    /// The first half of a turn left something to do.
    more: bool,
    /// For which deadline the member's thread waits.
    timer_at: Option<MonoMs>,
    /// The tree is to be replaced, and kept as evidence.
    diverged_at: Option<Zxid>,
    figures_at: Instant,
    /// When it was last written down how far the log is committed.
    noted_at: Instant,
    /// Since when there has been no leader.
    looking_since: Instant,
    tree_options: TreeOptions,
    /// When it is said who is missing, if nobody is served then.
    missing_at: Instant,
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell").field("standing", &self.member.standing()).finish_non_exhaustive()
    }
}

impl Shell {
    async fn new(shared: Arc<Shared>, parts: MemberParts) -> anyhow::Result<Shell> {
        let ensemble = ensemble(&shared);
        let config = ensemble.config.clone();
        let listeners = bind_quorum_ports(&config).await?;
        let election = ElectionPort::start(ElectionPortOptions::of(&config))
            .await
            .context("the election port (the second one of this server's line, electionPortBindRetry)")?;
        let now = shared.mono_now();
        let options = member_options(&shared, &config, parts.tree_options);
        let member = Member::new(now, options, parts.storage, parts.applied);
        Ok(Shell {
            member,
            election,
            listeners,
            sockets: BTreeMap::new(),
            connecting: JoinSet::new(),
            slow_disk: SlowDisk::start()?,
            pace: FlushPace::default(),
            to_flush: None,
            preparing: None,
            drained: Queue::default(),
            pending: Pending::new(random()? as u32),
            syncs: VecDeque::new(),
            synced: VecDeque::new(),
            peers: Peers::default(),
            applier: Applier::answering_one(),
            paused_snapshots: false,
            again: false,
            more: true,
            timer_at: None,
            diverged_at: None,
            figures_at: Instant::now(),
            noted_at: Instant::now(),
            looking_since: Instant::now(),
            tree_options: parts.tree_options,
            missing_at: Instant::now() + MISSING_AFTER,
            shared,
        })
    }

    // --- In ---

    fn take_in(&mut self, arrived: Arrived) {
        let now = self.shared.mono_now();
        for stream in arrived.accepted {
            resolve::tune(&stream);
            let link = self.member.accepted();
            self.sockets.insert(link, Socket::new(stream));
        }
        for (link, stream) in arrived.connected {
            match stream {
                Some(stream) => {
                    self.sockets.insert(link, Socket::new(stream));
                    self.member.connected(now, link);
                }
                None => self.member.closed(now, link),
            }
        }
        for event in arrived.election {
            self.election_event(now, event);
        }
        for flushed in arrived.flushed {
            self.flushed(now, flushed);
        }
        let links: Vec<LinkId> = self.sockets.keys().copied().collect();
        links.into_iter().for_each(|link| self.read(now, link));
        if arrived.timer || self.member.next_timer().is_some_and(|at| at <= now) {
            self.member.timer(now);
        }
    }

    fn election_event(&mut self, now: MonoMs, event: ElectionEvent) {
        match event {
            ElectionEvent::Up(peer) => self.member.peer_up(now, peer),
            ElectionEvent::Down(peer) => self.member.peer_down(now, peer),
            ElectionEvent::Message { from, bytes } => match Notice::read(&bytes) {
                Ok(notice) => self.member.notice(now, from, notice),
                Err(error) => tracing::warn!(peer = from.0, %error, "a notification that cannot be read"),
            },
        }
    }

    fn read(&mut self, now: MonoMs, link: LinkId) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        match socket.read() {
            Ok(true) => self.receive(now, link),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(link = link.0, %error, "a connection between servers is closed");
                self.sockets.remove(&link);
                self.member.closed(now, link);
            }
        }
    }

    fn receive(&mut self, now: MonoMs, link: LinkId) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let mut clients = Clients { shared: &self.shared, peers: &mut self.peers, now };
        let received = self.member.receive(now, link, socket.received(), &mut clients);
        socket.consume(received.consumed);
        socket.hold = received.hold;
    }

    // --- Turns ---

    /// The first half of a turn: takes in what has arrived, lets the member decide, and sends what comes of it. What is returned is to be
    /// flushed then ([`flush`]), without this value's lock, and given to [`Shell::end_turn`].
    fn begin_turn(&mut self, arrived: Arrived) -> Option<Flusher> {
        self.take_in(arrived);
        let now = self.shared.mono_now();
        self.outputs(now);
        self.take_queue(now);
        self.take_revalidations();
        // Behind the queue: what was proposed just now is in this flush, not in the one behind the first acknowledgement.
        self.member.finish_round(now);
        self.outputs(now);
        let shared = Arc::clone(&self.shared);
        let alone = self.pause_snapshots();
        self.more = self.member.work(now, &shared.tree, alone);
        self.outputs(now);
        if self.to_flush.is_none() && self.member.has_to_apply() {
            // No disk of a peer waits for what is to be sent: clients of this server go first.
            self.apply(1);
            self.outputs(now);
        }
        self.send(now);
        self.take_flusher()
    }

    /// The second half; true when there is more to do at once.
    fn end_turn(&mut self, flushed: Option<Flushed>) -> bool {
        let now = self.shared.mono_now();
        if let Some(flushed) = flushed {
            self.flushed(now, flushed);
            self.outputs(now);
            self.send(now);
        }
        // A connection's task may have appended behind what was flushed.
        self.more |= self.member.has_to_flush();
        self.more |= self.can_forward();
        self.more |= self.apply(HOLDS_PER_TURN);
        self.outputs(now);
        self.answer_syncs();
        self.send(now);
        self.show_figures();
        self.more || self.to_flush.is_some() || std::mem::take(&mut self.again)
    }

    /// What a connection's task does with writes that are alone under way: they go to the peers before the member's thread has woken up. True when
    /// that must look, too; it flushes them here. S4.
    fn carry_lone(&mut self) -> bool {
        let now = self.shared.mono_now();
        self.take_queue(now);
        self.outputs(now);
        self.send(now);
        self.has_work_for_thread()
    }

    /// Something that waiting for sockets and timers as they were would not bring up.
    fn has_work_for_thread(&self) -> bool {
        let sooner = self.member.next_timer().is_some_and(|at| self.timer_at.is_none_or(|set| at < set));
        sooner
            || self.again
            || self.to_flush.is_some()
            || self.member.has_to_flush()
            || self.member.has_to_apply()
            || !self.synced.is_empty()
            || self.can_forward()
            || self.member.waiting().next().is_some()
    }

    /// While a whole state is received, snapshots are the member's; true when nobody else is busy with them.
    fn pause_snapshots(&mut self) -> bool {
        let receiving = self.member.is_receiving_state();
        if receiving || self.paused_snapshots {
            self.paused_snapshots = receiving;
            return self.shared.snapshots.pause(receiving);
        }
        true
    }

    fn outputs(&mut self, now: MonoMs) {
        while let Some(output) = self.member.poll() {
            match output {
                Output::Notice { to, notice } => {
                    let mut message = Vec::new();
                    notice.put(&mut message);
                    self.election.send(to, message);
                }
                Output::Reconnect => self.election.reconnect(),
                Output::Connect { link, to } => self.connect(link, to),
                Output::Close { link, why } => {
                    if self.sockets.remove(&link).is_some() {
                        tracing::info!(
                            link = link.0,
                            why = why.as_deref(),
                            "connection with a server closed"
                        );
                    }
                }
                Output::Resume(link) => {
                    if let Some(socket) = self.sockets.get_mut(&link) {
                        socket.hold = false;
                        self.receive(now, link);
                        self.again = true;
                    }
                }
                Output::Flush(flusher) => self.to_flush = Some(flusher),
                Output::Serve(standing) => self.serve(now, standing),
                Output::Epoch(standing) => self.next_epoch(standing),
                Output::Stop(why) => self.stop_serving(&why),
                Output::DropTree => self.drop_tree(),
                Output::Tree(tree) => self.replace_tree(*tree),
                Output::Synced => {
                    let upto = self.member.positions().committed();
                    if let Some((entry, body)) = self.syncs.pop_front() {
                        self.synced.push_back((upto, entry, body));
                    }
                }
                Output::Failed(error) => self.shared.fail(&error),
            }
        }
    }

    /// The state that a leader has sent is made into a tree next, in the memory that the tree there has. Who only reads here has to go: for a while
    /// there is nothing to read.
    fn drop_tree(&mut self) {
        ensemble(&self.shared).read_only.store(false, Ordering::Release);
        self.shared.conns.all().iter().for_each(|conn| conn.kill());
        self.replace_tree(Tree::new(self.tree_options));
    }

    fn replace_tree(&mut self, tree: Tree) {
        let old = std::mem::replace(&mut *self.shared.tree.write(), tree);
        match self.diverged_at.take() {
            Some(zxid) => evidence::keep(&self.shared, old, zxid),
            // Freeing a large one takes a while: not here.
            None => drop(std::thread::Builder::new().name("zabra-free".into()).spawn(move || drop(old))),
        }
    }

    fn connect(&mut self, link: LinkId, to: ServerId) {
        let config = &ensemble(&self.shared).config;
        let addresses: Vec<MemberAddress> =
            config.config.members().get(&to).map(|member| member.addresses.clone()).unwrap_or_default();
        let wait = Duration::from_millis(config.cnx_timeout_ms);
        // What is asked for by a connection's task is waited for by the thread.
        self.again = true;
        self.connecting.spawn(async move {
            for address in addresses {
                let target = HostPort { host: &address.host, port: address.quorum_port };
                match resolve::connect(target, wait).await {
                    Ok(stream) => return (link, Some(stream)),
                    Err(error) => tracing::debug!(peer = to.0, %error, "the leader cannot be reached"),
                }
            }
            (link, None)
        });
    }

    fn serve(&mut self, now: MonoMs, standing: Standing) {
        let ensemble = ensemble(&self.shared);
        ensemble.elections.fetch_add(1, Ordering::Relaxed);
        let tree = self.shared.tree.read();
        let mut sessions = self.shared.sessions.lock();
        sessions.clear();
        match standing {
            Standing::Leading { epoch } => {
                for (session, timeout_ms) in tree.sessions() {
                    sessions.restore(session, timeout_ms, now);
                }
                self.preparing = Some(prepare_in(epoch, &self.shared, &tree));
                tracing::info!(epoch = epoch.0, zxid = %tree.applied(), "this server leads");
            }
            Standing::Learning { leader, epoch, observer } => {
                tracing::info!(peer = leader.0, epoch = epoch.0, observer, zxid = %tree.applied(), "this server follows");
            }
        }
        drop((sessions, tree));
        if ensemble.read_only.swap(false, Ordering::AcqRel) {
            // What they hold was only for reading.
            self.shared.conns.all().iter().for_each(|conn| conn.kill());
        }
        *ensemble.standing.write() = Some(standing);
    }

    /// The same leader goes on in a later epoch; sessions and connections stay.
    fn next_epoch(&mut self, standing: Standing) {
        if let Standing::Leading { epoch } = standing {
            let tree = self.shared.tree.read();
            let waiting = self.preparing.take().map(|before| before.drained).unwrap_or_default();
            let mut preparing = prepare_in(epoch, &self.shared, &tree);
            preparing.drained = waiting;
            self.preparing = Some(preparing);
        }
        *ensemble(&self.shared).standing.write() = Some(standing);
        // What waited for it is in the queue.
        self.again = true;
    }

    fn stop_serving(&mut self, why: &crate::node::member::StopReason) {
        tracing::warn!(%why, "looking for a leader");
        self.looking_since = Instant::now();
        self.missing_at = self.looking_since + MISSING_AFTER;
        *ensemble(&self.shared).standing.write() = None;
        let unprepared = self.preparing.take().map(|preparing| preparing.drained.entries).unwrap_or_default();
        // E2: nobody is told what is not known.
        self.shared.conns.all().iter().for_each(|conn| conn.kill());
        let left: Vec<Entry> = self.pending.drain().collect();
        let syncs = self.syncs.drain(..).map(|(entry, _)| entry);
        let synced = self.synced.drain(..).map(|(_, entry, _)| entry);
        let unsent = std::mem::take(&mut self.drained.entries);
        for entry in left.into_iter().chain(unprepared).chain(syncs).chain(synced).chain(unsent) {
            give_up(&self.shared, &entry);
        }
        self.refuse_queue();
        for Revalidation { conn, .. } in self.peers.clear() {
            conn.write_answered();
        }
    }

    // --- Disk ---

    /// What is to be flushed by whoever has this value: on a fast disk, where that costs less than a hand-over. On a slow one the thread that waits
    /// for it gets it.
    fn take_flusher(&mut self) -> Option<Flusher> {
        let flusher = self.to_flush.take()?;
        if !self.pace.is_slow() {
            return Some(flusher);
        }
        // Its thread has ended: then it is done here.
        self.slow_disk.work.send(flusher).err().map(|unsent| unsent.0)
    }

    fn flushed(&mut self, now: MonoMs, (flusher, result, took): Flushed) {
        self.pace.note(&self.shared, took);
        self.member.flushed(now, flusher, result);
    }

    // --- Out ---

    fn send(&mut self, now: MonoMs) {
        let waiting: Vec<LinkId> = self.member.waiting().collect();
        for link in waiting {
            let Some(socket) = self.sockets.get(&link) else { continue };
            match socket.write(self.member.output(link)) {
                Ok(count) => self.member.sent(link, count),
                Err(error) => {
                    tracing::debug!(link = link.0, %error, "a connection between servers broke");
                    self.sockets.remove(&link);
                    self.member.closed(now, link);
                    self.again = true;
                }
            }
        }
    }
}

fn ensemble(shared: &Shared) -> &Ensemble {
    shared.ensemble.as_ref().expect("this thread is there for an ensemble")
}

/// What makes transactions of requests in `epoch`, behind everything that is in the tree.
fn prepare_in(epoch: Epoch, shared: &Shared, tree: &Tree) -> Preparing {
    let begin = Zxid::new(epoch, 0).max(tree.applied());
    Preparing::new(Prepare::new(begin, tree.digest(), shared.prepare_options.clone()))
}

/// A write that gets no answer: its connection is closed.
fn give_up(shared: &Shared, entry: &Entry) {
    shared.commit.note_answered(1, entry.len);
    if let Some(client) = &entry.client {
        // In this order: a read behind it would be answered otherwise.
        client.conn.kill();
        client.conn.write_answered();
    }
}

async fn bind_quorum_ports(
    config: &crate::server::config::EnsembleConfig,
) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for listen in config.listen(|address| address.quorum_port) {
        let bound = resolve::bind(&listen, BIND_TRIES, Duration::from_secs(1)).await;
        listeners.push(bound.context("the quorum port (the first one of this server's line)")?);
    }
    Ok(listeners)
}

fn member_options(
    shared: &Shared,
    config: &crate::server::config::EnsembleConfig,
    tree: TreeOptions,
) -> MemberOptions {
    MemberOptions {
        me: config.me,
        config: Arc::clone(&config.config),
        limits: Limits::new(
            config.tick_ms.into(),
            config.init_limit_ticks.into(),
            config.sync_limit_ticks.into(),
            config.liveness_timeout_ms.unwrap_or(0),
            config.liveness_probe_ms,
        ),
        election: crate::election::Options {
            resend_ms_min: config.notification_ms_min.max(1),
            resend_ms_max: config.notification_ms_max.max(1),
            reconfig_enabled: shared.config.reconfig_enabled,
            ..crate::election::Options::default()
        },
        tree,
        snapshot_chunk_bytes: shared.config.snapshot.chunk_bytes,
        counter_max: config.counter_max,
    }
}
