//! The member's thread: one loop that takes in what is at hand, lets the member decide, and carries out what it says.
//!
//! - S1: what goes to peers is sent before this server's own disk is waited for, so that all disks of a quorum work at the same time.
//! - S2: what comes together is appended together, and flushed once.
//! - S3: every turn is short: applying, feeding learners and sending go on in the next one.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::evidence;
use super::host::{Clients, Peers};
use super::pending::Pending;
use super::socket::Socket;
use super::{Ensemble, Figures, Revalidation};
use crate::base::{Epoch, MonoMs, ServerId, Zxid};
use crate::election::Notice;
use crate::node::member::{Member, MemberOptions, MemberStorage, Output, Standing};
use crate::node::{Prepare, ReadContext, serve_read_body};
use crate::server::Shared;
use crate::server::commit::{Applier, Diverged, Entry, FlushPace, Preparing, Queue};
use crate::server::conn::REFUSED;
use crate::server::quorum::election_port::{ElectionEvent, ElectionPort, ElectionPortOptions};
use crate::server::quorum::resolve;
use crate::storage::log::{Durable, Flusher, LogError};
use crate::tree::{Tree, TreeOptions};
use crate::wire::OpCode;
use crate::wire::quorum::AuthId;
use crate::wire::quorum_config::{HostPort, MemberAddress};
use crate::wire::quorum_payload::{ForwardedRequest, Touch};
use crate::wire::txn::Proposal;
use crate::zab::{Limits, LinkId};

/// Transactions applied under one hold of the tree while clients wait for their answers: the first ones go on while the next are applied.
const APPLIED_TXNS_MAX: usize = 16;

/// The same when nobody waits.
const APPLIED_TXNS_BULK: usize = 256;

/// Holds of the tree in one turn.
const HOLDS_PER_TURN: usize = 64;

/// Attempts to bind the quorum port, a second apart.
const BIND_TRIES: u32 = 3;

/// How often the figures that are shown are brought up to date.
const FIGURES_EVERY: Duration = Duration::from_millis(100);

/// A server that looks for a quorum this long says whom it has not heard of.
const MISSING_AFTER: Duration = Duration::from_secs(1);

/// And then says so again.
const MISSING_EVERY: Duration = Duration::from_secs(10);

/// Without a leader for so long, and for a tick, clients may read; as long as ZooKeeper waits.
const READ_ONLY_AFTER: Duration = Duration::from_secs(2);

/// How often it is written down how far the log is committed, so that a start has less to wait for.
const NOTE_COMMITTED_EVERY: Duration = Duration::from_secs(10);

/// What a member is made of.
#[derive(Debug)]
pub(crate) struct MemberParts {
    pub(crate) storage: MemberStorage,
    /// What the tree holds.
    pub(crate) applied: Zxid,
    pub(crate) tree_options: TreeOptions,
}

/// Binds the ports between servers and starts the thread.
///
/// # Errors
/// A port cannot be bound.
pub(crate) async fn spawn(shared: Arc<Shared>, parts: MemberParts) -> anyhow::Result<JoinHandle<()>> {
    let (started, is_started) = oneshot::channel();
    let thread = crate::server::spawn("zabra-member", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(run(shared, parts, started));
                // A name lookup that hangs must not keep the server from stopping.
                runtime.shutdown_background();
            }
            Err(error) => drop(started.send(Err(error.into()))),
        }
    })?;
    is_started.await.context("the member's thread ended at once")??;
    Ok(thread)
}

async fn run(shared: Arc<Shared>, parts: MemberParts, started: oneshot::Sender<anyhow::Result<()>>) {
    let shell = match Shell::new(shared, parts).await {
        Ok(shell) => shell,
        Err(error) => return drop(started.send(Err(error))),
    };
    let _ = started.send(Ok(()));
    shell.run().await;
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

type Flushed = (Flusher, Result<Durable, LogError>, Duration);

/// A thread that flushes while the loop goes on.
#[derive(Debug)]
struct SlowDisk {
    work: std::sync::mpsc::Sender<Flusher>,
    done: mpsc::UnboundedReceiver<Flushed>,
}

/// See the module's documentation.
struct Shell {
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
    /// Something was received in the middle of a turn: another one follows.
    resumed: bool,
    /// The tree is to be replaced, and kept as evidence.
    diverged_at: Option<Zxid>,
    figures_at: Instant,
    /// When it was last written down how far the log is committed.
    noted_at: Instant,
    /// Since when there has been no leader.
    looking_since: Instant,
    /// When it is said who is missing, if nobody is served then.
    missing_at: Instant,
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
            pending: Pending::default(),
            syncs: VecDeque::new(),
            synced: VecDeque::new(),
            peers: Peers::default(),
            applier: Applier::default(),
            paused_snapshots: false,
            resumed: false,
            diverged_at: None,
            figures_at: Instant::now(),
            noted_at: Instant::now(),
            looking_since: Instant::now(),
            missing_at: Instant::now() + MISSING_AFTER,
            shared,
        })
    }

    async fn run(mut self) {
        let mut timer: Option<std::pin::Pin<Box<Sleep>>> = None;
        let mut more = true;
        while !self.shared.is_stopped() {
            let mut arrived = Arrived::default();
            if more {
                tokio::task::yield_now().await;
            }
            self.set_timer(&mut timer);
            self.wait(&mut arrived, timer.as_mut(), more).await;
            self.take_in(arrived);
            more = self.carry_on();
        }
        self.stop();
    }

    /// Wakes at the member's next deadline.
    fn set_timer(&self, timer: &mut Option<std::pin::Pin<Box<Sleep>>>) {
        let at = self.member.next_timer().map(|at| self.shared.instant_of(at));
        match (at, timer.as_mut()) {
            (None, _) => *timer = None,
            (Some(at), Some(timer)) => {
                if timer.deadline() != at.into() {
                    timer.as_mut().reset(at.into());
                }
            }
            (Some(at), None) => *timer = Some(Box::pin(tokio::time::sleep_until(at.into()))),
        }
    }

    /// Waits until something is ready; with `at_once`, only looks.
    async fn wait(
        &mut self,
        arrived: &mut Arrived,
        mut timer: Option<&mut std::pin::Pin<Box<Sleep>>>,
        at_once: bool,
    ) {
        let notify = Arc::clone(&ensemble(&self.shared).notify);
        let mut submitted = pin!(notify.notified());
        poll_fn(|cx| {
            let mut ready = submitted.as_mut().poll(cx).is_ready() || at_once;
            if let Some(timer) = &mut timer
                && timer.as_mut().poll(cx).is_ready()
            {
                arrived.timer = true;
                ready = true;
            }
            ready |= self.poll_arrivals(cx, arrived);
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn poll_arrivals(&mut self, cx: &mut Context<'_>, arrived: &mut Arrived) -> bool {
        for listener in &self.listeners {
            while let Poll::Ready(accepted) = listener.poll_accept(cx) {
                match accepted {
                    Ok((stream, _)) => arrived.accepted.push(stream),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a server; trying again");
                        break;
                    }
                }
            }
        }
        while let Poll::Ready(Some(Ok(connected))) = self.connecting.poll_join_next(cx) {
            arrived.connected.push(connected);
        }
        while let Poll::Ready(event) = self.election.poll_recv(cx) {
            arrived.election.push(event);
        }
        while let Poll::Ready(Some(flushed)) = self.slow_disk.done.poll_recv(cx) {
            arrived.flushed.push(flushed);
        }
        let mut sockets = false;
        for (link, socket) in &self.sockets {
            sockets |= socket.poll_ready(cx, !self.member.output(*link).is_empty()).is_ready();
        }
        sockets
            || !arrived.accepted.is_empty()
            || !arrived.connected.is_empty()
            || !arrived.election.is_empty()
            || !arrived.flushed.is_empty()
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
        for (flusher, result, took) in arrived.flushed {
            self.flushed(now, flusher, result, took);
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

    // --- Decisions ---

    /// One turn; true when there is more to do at once.
    fn carry_on(&mut self) -> bool {
        let now = self.shared.mono_now();
        self.outputs(now);
        self.take_queue(now);
        self.take_revalidations();
        // Behind the queue: what was proposed just now is in this flush, not in the one behind the first acknowledgement.
        self.member.finish_round(now);
        self.outputs(now);
        let shared = Arc::clone(&self.shared);
        let alone = self.pause_snapshots();
        let mut more = self.member.work(now, &shared.tree, alone);
        self.outputs(now);
        self.send(now);
        if let Some(flusher) = self.to_flush.take() {
            self.flush(now, flusher);
            self.outputs(self.shared.mono_now());
            self.send(now);
        }
        more |= self.apply();
        self.outputs(now);
        self.answer_syncs();
        self.send(now);
        self.show_figures();
        more || self.to_flush.is_some() || std::mem::take(&mut self.resumed)
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
                        self.resumed = true;
                    }
                }
                Output::Flush(flusher) => self.to_flush = Some(flusher),
                Output::Serve(standing) => self.serve(now, standing),
                Output::Epoch(standing) => self.next_epoch(standing),
                Output::Stop(why) => self.stop_serving(&why),
                Output::Tree(tree) => {
                    let old = std::mem::replace(&mut *self.shared.tree.write(), *tree);
                    match self.diverged_at.take() {
                        Some(zxid) => evidence::keep(&self.shared, old, zxid),
                        // Freeing a large one takes a while: not here.
                        None => drop(
                            std::thread::Builder::new().name("zabra-free".into()).spawn(move || drop(old)),
                        ),
                    }
                }
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

    fn connect(&mut self, link: LinkId, to: ServerId) {
        let config = &ensemble(&self.shared).config;
        let addresses: Vec<MemberAddress> =
            config.config.members().get(&to).map(|member| member.addresses.clone()).unwrap_or_default();
        let wait = Duration::from_millis(config.cnx_timeout_ms);
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
        for entry in left.into_iter().chain(unprepared).chain(syncs).chain(synced) {
            give_up(&self.shared, &entry);
        }
        self.refuse_queue();
        for Revalidation { conn, .. } in self.peers.clear() {
            conn.write_answered();
        }
    }

    // --- Requests ---

    /// Takes what clients have submitted: a leader proposes it, a learner forwards it.
    fn take_queue(&mut self, now: MonoMs) {
        match ensemble(&self.shared).standing() {
            None => self.refuse_queue(),
            Some(Standing::Leading { .. }) => self.propose(now),
            Some(Standing::Learning { .. }) => self.forward(),
        }
    }

    fn refuse_queue(&mut self) {
        self.drained.reset();
        self.shared.commit.drain(&mut self.drained);
        while let Some(entry) = self.drained.entries.pop_front() {
            give_up(&self.shared, &entry);
        }
    }

    fn propose(&mut self, now: MonoMs) {
        let Some(preparing) = self.preparing.as_mut().filter(|_| self.member.may_propose()) else { return };
        if preparing.drained.is_empty() {
            preparing.drained.reset();
            self.shared.commit.drain(&mut preparing.drained);
            preparing.note_requests(&self.shared);
            for sync in take_syncs(&mut preparing.drained) {
                self.syncs.push_back(sync);
                self.member.sync(now);
            }
        }
        while let Some(preparing) = &mut self.preparing
            && !preparing.drained.is_empty()
            && self.member.may_propose()
        {
            let mut group = self.member.group();
            let pending = &mut self.pending;
            preparing.prepare_some(&self.shared, &mut group, |zxid, entry| pending.proposed(zxid, entry));
            self.shared.stats.batch_size.add(group.len() as u64);
            self.shared.stats.proposals.fetch_add(group.len() as u64, Ordering::Relaxed);
            group.iter().for_each(|(_, _, txn)| self.shared.stats.proposal_size.add(txn.len()));
            if let Err(error) = self.member.propose(now, group) {
                tracing::error!(%error, "what was asked for cannot be logged");
                let left: Vec<Entry> = preparing.drained.entries.drain(..).collect();
                left.iter().for_each(|entry| give_up(&self.shared, entry));
                return;
            }
        }
    }

    fn forward(&mut self) {
        self.drained.reset();
        self.shared.commit.drain(&mut self.drained);
        while let Some(entry) = self.drained.entries.pop_front() {
            let Some(client) = entry.client.as_ref().filter(|client| !client.conn.is_killed()) else {
                give_up(&self.shared, &entry);
                continue;
            };
            let body = self.drained.body(&entry);
            let request =
                ForwardedRequest { session: entry.session, cxid: entry.xid, op: entry.op.to_i32(), body };
            let ids = client.auth.ids(&client.conn).ids();
            self.member
                .forward(&request, ids.iter().map(|id| AuthId { scheme: Some(id.scheme), id: Some(&id.id) }));
            if entry.op == OpCode::Sync {
                let body = body.to_vec();
                self.syncs.push_back((entry, body));
            } else {
                self.pending.forwarded(entry);
            }
        }
    }

    fn take_revalidations(&mut self) {
        let ensemble = ensemble(&self.shared);
        let asked = std::mem::take(&mut *ensemble.revalidations.lock());
        for revalidation in asked {
            match ensemble.standing() {
                Some(Standing::Learning { .. }) => {
                    let Revalidation { session, timeout_ms, .. } = revalidation;
                    self.member.revalidate(Touch { session, timeout_ms });
                    self.peers.revalidating.push(revalidation);
                }
                _ => {
                    revalidation.conn.set_session(REFUSED);
                    revalidation.conn.write_answered();
                    revalidation.conn.kill();
                }
            }
        }
    }

    // --- Disk ---

    /// On a fast disk here, which costs less than a hand-over; else by the thread that waits for it.
    fn flush(&mut self, now: MonoMs, mut flusher: Flusher) {
        if !self.pace.is_slow() {
            let started = Instant::now();
            let result = flusher.flush();
            self.flushed(now, flusher, result, started.elapsed());
        } else if let Err(unsent) = self.slow_disk.work.send(flusher) {
            let mut flusher = unsent.0;
            let result = flusher.flush();
            self.flushed(now, flusher, result, Duration::ZERO);
        }
    }

    fn flushed(&mut self, now: MonoMs, flusher: Flusher, result: Result<Durable, LogError>, took: Duration) {
        self.pace.note(&self.shared, took);
        self.member.flushed(now, flusher, result);
    }

    // --- Out ---

    /// Applies what is committed, a little at a time; true when there is more.
    fn apply(&mut self) -> bool {
        for _ in 0..HOLDS_PER_TURN {
            if !self.member.has_to_apply() {
                return false;
            }
            match self.apply_some() {
                Ok(()) => {}
                Err(ApplyError::Diverged(diverged)) => {
                    self.note_diverged(&diverged);
                    return true;
                }
                Err(error) => {
                    self.shared.fail(&error);
                    return false;
                }
            }
        }
        true
    }

    /// Rule R4: found out here, healed by the leader's state. If it leads, another one will.
    fn note_diverged(&mut self, diverged: &Diverged) {
        tracing::error!(error = %diverged, "this server's tree differs from the others': it is replaced");
        self.shared.stats.digest_mismatches.fetch_add(1, Ordering::Relaxed);
        self.applier = Applier::default();
        self.diverged_at = Some(diverged.zxid());
        self.member.note_diverged(self.shared.mono_now(), diverged.zxid());
    }

    fn apply_some(&mut self) -> Result<(), ApplyError> {
        let Shell { shared, member, pending, applier, .. } = self;
        let (mut count, mut bytes, mut txns, mut log_bytes) = (0, 0, 0, 0);
        let slice = if pending.is_empty() { APPLIED_TXNS_BULK } else { APPLIED_TXNS_MAX };
        let now = applier.begin(shared);
        let mut tree = shared.tree.write();
        let applied = member.apply(slice, |zxid, payload| {
            let proposal =
                Proposal::read(payload).map_err(|source| ApplyError::Undecodable { zxid, source })?;
            let found = Zxid::from_wire(proposal.header.zxid);
            if found != zxid {
                return Err(ApplyError::Misnumbered { zxid, found });
            }
            let entry = pending.take(zxid, &proposal.header);
            if let Some(entry) = &entry {
                (count, bytes) = (count + 1, bytes + entry.len);
            }
            (txns, log_bytes) = (txns + 1, log_bytes + payload.len());
            Ok(applier.apply_one(shared, &mut tree, &proposal, entry, None, now)?)
        });
        drop(tree);
        applier.finish(shared, count, bytes);
        applied?;
        shared.stats.commits.fetch_add(txns as u64, Ordering::Relaxed);
        shared.snapshots.note_applied(txns, log_bytes);
        Ok(())
    }

    /// Replies to syncs whose state is there.
    fn answer_syncs(&mut self) {
        let applied = self.member.positions().applied();
        while let Some((_, entry, body)) = self.synced.pop_front_if(|(upto, ..)| *upto <= applied) {
            let Some(client) = &entry.client else { continue };
            let conn = &client.conn;
            let tree = self.shared.tree.read();
            let context = ReadContext {
                conn: conn.id,
                session: entry.session,
                ids: client.auth.ids(conn),
                auth: &self.shared.prepare_options.auth,
                reply_bytes_max: conn.reply_bytes_max(),
            };
            conn.put(|out| {
                let _ = serve_read_body(&tree, &context, entry.xid, OpCode::Sync, &body, &mut out.bytes);
            });
            drop(tree);
            self.shared.commit.note_answered(1, entry.len);
            conn.write_answered();
            conn.notify();
        }
    }

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
                }
            }
        }
    }

    /// Now and then: a start goes up to there without asking anyone.
    fn note_committed(&mut self) {
        if self.noted_at.elapsed() >= NOTE_COMMITTED_EVERY {
            self.noted_at = Instant::now();
            self.member.note_committed();
        }
    }

    fn show_figures(&mut self) {
        let changed = ensemble(&self.shared).observe(self.member.peer_state(), self.shared.mono_now());
        if !changed && self.figures_at.elapsed() < FIGURES_EVERY {
            return;
        }
        self.look_after_looking();
        self.note_committed();
        self.figures_at = Instant::now();
        let positions = self.member.positions();
        *ensemble(&self.shared).figures.lock() = Figures {
            epochs: self.member.epochs(),
            recall: Some(self.member.recall()),
            appended: positions.appended(),
            committed: positions.committed(),
            learners: self.member.learners(),
            config: Some(Arc::clone(self.member.config())),
        };
    }

    /// Without a leader for long: says whom it waits for, and lets clients read if the operator wants it.
    fn look_after_looking(&mut self) {
        let ensemble = ensemble(&self.shared);
        if ensemble.standing().is_some() {
            return;
        }
        let names = |ids: Vec<ServerId>| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ");
        let (missing, voteless) = (self.member.unheard(), self.member.voteless());
        if self.missing_at <= Instant::now() && !(missing.is_empty() && voteless.is_empty()) {
            self.missing_at = Instant::now() + MISSING_EVERY;
            if voteless.is_empty() {
                tracing::warn!(missing = names(missing), "waiting for a quorum");
            } else {
                // Their directories are new or were damaged: what they once acknowledged may be known to those who are missing alone.
                tracing::warn!(
                    missing = names(missing),
                    without_vote = names(voteless),
                    "waiting for a quorum of servers that have forgotten nothing; if those missing are gone for good, see `zabra recover --help`"
                );
            }
        }
        let patience = READ_ONLY_AFTER.max(Duration::from_millis(self.shared.config.tick_ms.into()));
        let looking = self.looking_since.elapsed();
        if ensemble.config.read_only_enabled && looking >= patience && !ensemble.is_read_only() {
            tracing::warn!("no quorum: clients that ask for it may read");
            ensemble.read_only.store(true, Ordering::Release);
        }
    }

    /// The server stops: what was appended is made durable, and the place written down.
    fn stop(mut self) {
        *ensemble(&self.shared).standing.write() = None;
        let now = self.shared.mono_now();
        if let Some(flusher) = self.to_flush.take() {
            self.flush(now, flusher);
        }
        while let Ok((flusher, result, took)) = self.slow_disk.done.try_recv() {
            self.flushed(now, flusher, result, took);
        }
        if let Err(error) = self.member.stop() {
            let error = anyhow::Error::from(error);
            tracing::error!(error = format!("{error:#}"), "the next start will treat this as a crash");
        }
    }
}

/// Why a transaction cannot be applied: the node must stop.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("{0}")]
    Diverged(#[from] Diverged),
    #[error("transaction {zxid} cannot be decoded: {source}")]
    Undecodable { zxid: Zxid, source: crate::wire::jute::JuteError },
    #[error("the record of transaction {zxid} holds transaction {found}")]
    Misnumbered { zxid: Zxid, found: Zxid },
}

impl SlowDisk {
    fn start() -> anyhow::Result<SlowDisk> {
        let (work, todo) = std::sync::mpsc::channel::<Flusher>();
        let (finished, done) = mpsc::unbounded_channel();
        crate::server::spawn("zabra-flush", move || {
            while let Ok(mut flusher) = todo.recv() {
                let started = Instant::now();
                let result = flusher.flush();
                if finished.send((flusher, result, started.elapsed())).is_err() {
                    return;
                }
            }
        })?;
        Ok(SlowDisk { work, done })
    }
}

fn ensemble(shared: &Shared) -> &Ensemble {
    shared.ensemble.as_ref().expect("this thread is there for an ensemble")
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

/// What makes transactions of requests in `epoch`, behind everything that is in the tree.
fn prepare_in(epoch: Epoch, shared: &Shared, tree: &Tree) -> Preparing {
    let begin = Zxid::new(epoch, 0).max(tree.applied());
    Preparing::new(Prepare::new(begin, tree.digest(), shared.prepare_options.clone()))
}

/// Takes the syncs out of the queue: no transaction comes of them.
fn take_syncs(queue: &mut Queue) -> Vec<(Entry, Vec<u8>)> {
    if queue.entries.iter().all(|entry| entry.op != OpCode::Sync) {
        return Vec::new();
    }
    let (syncs, rest): (VecDeque<Entry>, VecDeque<Entry>) =
        std::mem::take(&mut queue.entries).into_iter().partition(|entry| entry.op == OpCode::Sync);
    queue.entries = rest;
    let with_body = |entry: Entry| {
        let body = queue.body(&entry).to_vec();
        (entry, body)
    };
    syncs.into_iter().map(with_body).collect()
}

/// A write that gets no answer: its connection is closed.
fn give_up(shared: &Shared, entry: &Entry) {
    shared.commit.note_answered(1, entry.len);
    if let Some(client) = &entry.client {
        client.conn.write_answered();
        client.conn.kill();
    }
}
