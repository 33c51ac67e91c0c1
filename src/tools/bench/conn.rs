//! One connection of the load: a non-blocking socket, its session, and the requests in flight on it.
//!
//! - C1: one read, one write and one reading of the clock per readiness event, however many replies and requests they hold.
//! - C2: at most `depth` requests are in flight, and none is made while bytes of earlier ones wait for the socket.
//! - C3: a request made is counted exactly once: answered, failed, lost with the connection, or timed out.
//! - C4: a broken connection is opened again on the next host, with its session, after a pause that grows to 500 ms.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::frames::{FrameStream, REPLY_BYTES_MAX};
use super::plan::Plan;
use super::session::{Broken, Session, Slot, State, put_bare, put_connect_request};
use super::stats::{Failure, Recorder, WriteClock};
use super::template::Templates;
use super::workload::Generator;
use crate::wire::OpCode;
use crate::wire::reply;

/// Bytes written by one system call, about; more only delays the first of them.
const WRITE_BYTES: usize = 256 << 10;
/// First pause before a connection is opened again, ns; doubles up to `RETRY_NS_MAX`.
const RETRY_NS_MIN: u64 = 20_000_000;
const RETRY_NS_MAX: u64 = 500_000_000;

/// What is told of a stream socket, edge-triggered.
pub(super) const STREAM_EVENTS: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);

/// True when the other side is done with the socket: there is an end to be read behind the last bytes.
pub(super) fn hung_up(event: &epoll::Event) -> bool {
    let flags = event.flags;
    flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
}

/// Nanoseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(pub(super) Instant);

impl Clock {
    /// Now.
    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What the connections of one thread share.
pub(super) struct Ctx<'a> {
    pub(super) plan: &'a Plan,
    pub(super) templates: &'a Templates,
    pub(super) writes: &'a WriteClock,
    pub(super) clock: Clock,
    pub(super) rec: Recorder,
    pub(super) epoll: rustix::fd::OwnedFd,
    /// Bytes of one read.
    pub(super) input: Vec<u8>,
    /// Bytes of one write.
    pub(super) output: Vec<u8>,
    /// No request is made from here on.
    pub(super) until_ns: u64,
    /// Requests answered or failed, for the progress bar.
    pub(super) done: u64,
}

/// A connection and its session.
#[derive(Debug)]
pub(super) struct Conn {
    token: u64,
    host: usize,
    socket: Option<TcpStream>,
    stream: FrameStream,
    /// Bytes that the socket did not take yet.
    unsent: Vec<u8>,
    session: Session,
    generator: Generator,
    /// Requests that may still be made.
    budget: u64,
    /// Due times handed out by the schedule, to be sent by the next [`Conn::send_due`].
    due: Vec<u64>,
    last_sent_ns: u64,
    retries: u32,
    /// What broke it last, for the error message of a start that fails.
    pub(super) broken: Option<Broken>,
}

impl Conn {
    /// A connection that is not open yet, number `index` of the run.
    pub(super) fn new(index: usize, token: u64, plan: &Plan) -> Conn {
        let shape = &plan.shape;
        let share = |count: u64| {
            let (index, conns) = (index as u64, plan.conns as u64);
            count / conns + u64::from(index < count % conns)
        };
        Conn {
            token,
            host: index % plan.hosts.len(),
            socket: None,
            stream: FrameStream::new(REPLY_BYTES_MAX),
            unsent: Vec::new(),
            session: Session::new(plan.depth),
            generator: Generator::new(
                shape.workload,
                index as u32,
                plan.conns as u32,
                shape.keys,
                shape.writes_percent,
            ),
            budget: plan.count.map_or(u64::MAX, share),
            due: Vec::new(),
            last_sent_ns: 0,
            retries: 0,
            broken: None,
        }
    }

    /// True while it has a session and may be given requests.
    pub(super) fn is_ready(&self) -> bool {
        self.session.state == State::Ready
    }

    /// True when its session is closed, or given up.
    pub(super) fn is_closed(&self) -> bool {
        self.session.state == State::Closed
    }

    /// True when it owes no answer and will make no further request by itself.
    pub(super) fn is_idle(&self) -> bool {
        self.session.in_flight.is_empty()
    }

    /// True when every request it may make is made.
    pub(super) fn is_spent(&self) -> bool {
        self.budget == 0
    }

    /// True when a request of the schedule could be sent now (C2).
    pub(super) fn has_room(&self, depth: usize) -> bool {
        self.is_ready() && self.unsent.is_empty() && self.session.in_flight.len() + self.due.len() < depth
    }

    /// Hands over a request of the schedule.
    pub(super) fn push_due(&mut self, due_ns: u64) {
        self.due.push(due_ns);
    }

    /// The socket is ready for something; `hung_up` when the server has closed its side.
    pub(super) fn on_event(&mut self, ctx: &mut Ctx<'_>, hung_up: bool) {
        if let Err(broken) = self.progress(ctx, hung_up) {
            self.lost(ctx, broken);
        }
    }

    fn progress(&mut self, ctx: &mut Ctx<'_>, hung_up: bool) -> Result<(), Broken> {
        let Some(socket) = &self.socket else { return Ok(()) };
        if self.session.state == State::Connecting {
            if let Some(error) = socket.take_error()? {
                return Err(error.into());
            }
            if socket.peer_addr().is_err() {
                return Ok(());
            }
            self.shake_hands(ctx)?;
        }
        self.flush_unsent()?;
        self.read(ctx, hung_up)
    }

    fn read(&mut self, ctx: &mut Ctx<'_>, hung_up: bool) -> Result<(), Broken> {
        loop {
            let Some(socket) = &mut self.socket else { return Ok(()) };
            let n = match socket.read(&mut ctx.input) {
                Ok(0) => return Err(Broken::Eof),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            let now_ns = ctx.clock.now_ns();
            self.take_frames(ctx, n, now_ns)?;
            if ctx.plan.rate.is_none() {
                self.fill(ctx, now_ns)?;
            }
            // A short read of a stream socket means that it is drained; the next bytes raise a new edge. An end that came
            // with this edge raises no other.
            if n < ctx.input.len() && !hung_up {
                return Ok(());
            }
        }
    }

    fn take_frames(&mut self, ctx: &mut Ctx<'_>, n: usize, now_ns: u64) -> Result<(), Broken> {
        let Conn { stream, session, retries, .. } = self;
        let Ctx { input, rec, templates, done, .. } = ctx;
        let before = session.in_flight.len();
        let mut result = Ok(());
        stream.feed(&input[..n], |frame| {
            if result.is_ok() {
                result = session.on_frame(frame, now_ns, rec, templates);
            }
        })?;
        session.last_heard_ns = now_ns;
        *done += (before - session.in_flight.len()) as u64;
        rec.end_batch(ctx.writes, now_ns);
        if session.state == State::Ready {
            *retries = 0;
        }
        result
    }

    /// Closed loop: makes a request for every free slot.
    pub(super) fn start(&mut self, ctx: &mut Ctx<'_>, now_ns: u64) {
        if let Err(broken) = self.fill(ctx, now_ns) {
            self.lost(ctx, broken);
        }
    }

    fn fill(&mut self, ctx: &mut Ctx<'_>, now_ns: u64) -> Result<(), Broken> {
        while self.has_room(ctx.plan.depth) && self.budget > 0 && now_ns < ctx.until_ns {
            ctx.output.clear();
            while self.session.in_flight.len() < ctx.plan.depth
                && self.budget > 0
                && ctx.output.len() < WRITE_BYTES
            {
                self.make(ctx, now_ns);
            }
            self.write(&ctx.output, now_ns)?;
        }
        Ok(())
    }

    /// Open loop: sends what the schedule handed over.
    pub(super) fn send_due(&mut self, ctx: &mut Ctx<'_>, now_ns: u64) {
        if self.due.is_empty() {
            return;
        }
        ctx.output.clear();
        for i in 0..self.due.len() {
            self.make(ctx, self.due[i]);
        }
        self.due.clear();
        if let Err(broken) = self.write_output(ctx, now_ns) {
            self.lost(ctx, broken);
        }
    }

    fn write_output(&mut self, ctx: &Ctx<'_>, now_ns: u64) -> Result<(), Broken> {
        self.write(&ctx.output, now_ns)
    }

    fn make(&mut self, ctx: &mut Ctx<'_>, due_ns: u64) {
        debug_assert!(self.session.in_flight.len() < ctx.plan.depth && self.budget > 0);
        let op = self.generator.next_op();
        let xid = self.session.next_xid();
        ctx.templates.put(&mut ctx.output, xid, &op);
        if self.session.in_flight.is_empty() {
            self.session.last_heard_ns = ctx.clock.now_ns();
        }
        self.session.in_flight.push_back(Slot { due_ns, xid, kind: op.kind });
        self.budget -= 1;
    }

    fn write(&mut self, bytes: &[u8], now_ns: u64) -> Result<(), Broken> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        self.last_sent_ns = now_ns;
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let n = write_some(socket, bytes)?;
        self.unsent.extend_from_slice(&bytes[n..]);
        Ok(())
    }

    fn flush_unsent(&mut self) -> Result<(), Broken> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        if !self.unsent.is_empty() {
            let n = write_some(socket, &self.unsent)?;
            self.unsent.drain(..n);
        }
        Ok(())
    }

    /// What time brings: opens it again, gives it up, keeps its session alive.
    pub(super) fn tick(&mut self, ctx: &mut Ctx<'_>, now_ns: u64) {
        let silent_ns = now_ns.saturating_sub(self.session.last_heard_ns);
        let waits = !self.session.in_flight.is_empty()
            || matches!(self.session.state, State::Connecting | State::Handshake | State::Closing);
        match self.session.state {
            State::Down { retry_ns } if now_ns >= retry_ns => self.open(ctx, now_ns),
            State::Down { .. } | State::Closed => {}
            _ if waits && silent_ns > ctx.plan.timeout.as_nanos() as u64 => self.lost(ctx, Broken::Timeout),
            State::Ready => self.ping_when_idle(ctx, now_ns),
            _ => {}
        }
    }

    fn ping_when_idle(&mut self, ctx: &mut Ctx<'_>, now_ns: u64) {
        let third_ns = self.session.timeout_ms.max(1) as u64 * 1_000_000 / 3;
        if now_ns.saturating_sub(self.last_sent_ns) > third_ns {
            let mut ping = Vec::new();
            put_bare(&mut ping, reply::XID_PING, OpCode::Ping);
            if let Err(broken) = self.write(&ping, now_ns) {
                self.lost(ctx, broken);
            }
        }
    }

    fn open(&mut self, ctx: &mut Ctx<'_>, now_ns: u64) {
        self.session.last_heard_ns = now_ns;
        self.session.state = State::Connecting;
        self.stream.reset();
        self.unsent.clear();
        match connect(&ctx.plan.hosts[self.host]) {
            Ok(socket) => {
                let data = epoll::EventData::new_u64(self.token);
                let added = epoll::add(&ctx.epoll, &socket, data, STREAM_EVENTS);
                self.socket = Some(socket);
                if let Err(e) = added {
                    self.lost(ctx, Broken::Io(e.into()));
                }
            }
            Err(e) => self.lost(ctx, Broken::Io(e)),
        }
    }

    fn shake_hands(&mut self, ctx: &mut Ctx<'_>) -> Result<(), Broken> {
        self.session.state = State::Handshake;
        let mut hello = Vec::new();
        put_connect_request(&mut hello, self.session.id, &self.session.password);
        self.write(&hello, ctx.clock.now_ns())
    }

    fn lost(&mut self, ctx: &mut Ctx<'_>, broken: Broken) {
        let now_ns = ctx.clock.now_ns();
        let failure =
            if matches!(broken, Broken::Timeout) { Failure::Timeout } else { Failure::ConnectionLoss };
        self.drop_in_flight(ctx, now_ns, failure);
        self.socket = None;
        self.unsent.clear();
        if self.session.state == State::Ready {
            ctx.rec.reconnected();
        }
        if matches!(broken, Broken::Refused) {
            (self.session.id, self.session.password) = (0, [0; 16]);
        }
        let pause_ns = (RETRY_NS_MIN << self.retries.min(10)).min(RETRY_NS_MAX);
        self.retries += 1;
        self.host = (self.host + 1) % ctx.plan.hosts.len();
        let closing = matches!(self.session.state, State::Closing | State::Closed);
        self.session.state =
            if closing { State::Closed } else { State::Down { retry_ns: now_ns + pause_ns } };
        self.broken = Some(broken);
    }

    fn drop_in_flight(&mut self, ctx: &mut Ctx<'_>, now_ns: u64, failure: Failure) {
        ctx.done += self.session.in_flight.len() as u64;
        for slot in self.session.in_flight.drain(..) {
            ctx.rec.failure(slot.kind, slot.due_ns, now_ns, failure);
        }
    }

    /// Ends the session; what is in flight is given up.
    pub(super) fn close(&mut self, ctx: &mut Ctx<'_>, now_ns: u64) {
        self.drop_in_flight(ctx, now_ns, Failure::Timeout);
        if self.session.state != State::Ready {
            self.socket = None;
            self.session.state = State::Closed;
            return;
        }
        self.session.state = State::Closing;
        self.session.last_heard_ns = now_ns;
        let mut bye = Vec::new();
        put_bare(&mut bye, self.session.next_xid(), OpCode::CloseSession);
        if let Err(broken) = self.write(&bye, now_ns) {
            self.lost(ctx, broken);
        }
    }
}

fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize, Broken> {
    match socket.write(bytes) {
        Ok(n) => Ok(n),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Starts a connection without waiting for it.
fn connect(addr: &SocketAddr) -> std::io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, addr) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    Ok(socket)
}
