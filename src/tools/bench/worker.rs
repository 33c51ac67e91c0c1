//! One thread of the load: an epoll loop over its connections.
//!
//! - K1: a thread sends nothing before every connection of every thread has its session.
//! - K2: it ends by itself: when its operations are made and answered, or `--timeout` after the window at the latest.
//! - K3: an open loop wakes by a timer descriptor when the next request is due, and at most every 20 µs: requests due closer
//!   together leave in one write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::conn::{Clock, Conn, Ctx, hung_up};
use super::plan::Plan;
use super::schedule::Schedule;
use super::stats::{Failure, Recorder, TIMELINE_NS, Totals, Window, WriteClock};
use super::stop::Stop;
use super::template::Templates;

/// How often connections are looked after, ns.
const TICK_NS: u64 = 20_000_000;
/// Shortest sleep of an open loop, ns (K3).
const WAKE_NS_MIN: u64 = 20_000;
/// Bytes of one read: what 64 × 16 replies of 200 bytes need, and the second-level cache holds.
const READ_BYTES: usize = 256 << 10;
/// How long the answer to closeSession is waited for, ns.
const CLOSE_NS: u64 = 1_000_000_000;
const TIMER_TOKEN: u64 = u64::MAX;
const EVENTS: usize = 256;

/// What all threads of a run share.
pub(super) struct Shared<'a> {
    pub(super) plan: &'a Plan,
    pub(super) templates: Templates,
    pub(super) writes: WriteClock,
    pub(super) clock: Clock,
    /// Set by an interrupt: the window ends now.
    pub(super) stop: &'a Stop,
    /// Operations done, per thread.
    pub(super) done: Vec<AtomicU64>,
}

/// When the load starts; sent once all threads are connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Go {
    pub(super) start_ns: u64,
    pub(super) window: Window,
}

/// Runs thread `thread`: connects, reports that on `ready`, waits for `go`, loads, and returns its counts.
pub(super) fn run(
    shared: &Shared<'_>,
    thread: usize,
    ready: &Sender<anyhow::Result<()>>,
    go: &Receiver<Go>,
) -> anyhow::Result<Totals> {
    let mut worker = Worker::new(shared, thread)?;
    let connected = worker.connect();
    let failed = connected.is_err();
    // The other end goes only when the run is given up.
    let _ = ready.send(connected);
    match go.recv() {
        Ok(go) if !failed => worker.load(go),
        _ => {
            worker.close_all();
            Err(anyhow!("the run did not start"))
        }
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    thread: usize,
    conns: Vec<Conn>,
    ctx: Ctx<'a>,
    events: Vec<epoll::Event>,
    timer: rustix::fd::OwnedFd,
    schedule: Option<Schedule>,
    next_tick_ns: u64,
    /// Where the next request of the schedule goes.
    turn: usize,
    /// The round behind the end of the window is made.
    dispatched_last: bool,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>, thread: usize) -> anyhow::Result<Worker<'a>> {
        let plan = shared.plan;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).context("timerfd")?;
        let data = epoll::EventData::new_u64(TIMER_TOKEN);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN | epoll::EventFlags::ET).context("epoll")?;
        let mine = (thread..plan.conns).step_by(plan.threads);
        let conns = mine.enumerate().map(|(token, index)| Conn::new(index, token as u64, plan)).collect();
        let never = Window { from_ns: u64::MAX - 1, until_ns: u64::MAX };
        let ctx = Ctx {
            plan,
            templates: &shared.templates,
            writes: &shared.writes,
            clock: shared.clock,
            rec: Recorder::new(plan.shape.workload.kinds(), never, 0),
            epoll,
            input: vec![0; READ_BYTES],
            output: Vec::with_capacity(READ_BYTES),
            until_ns: 0,
            done: 0,
        };
        let events = Vec::with_capacity(EVENTS);
        Ok(Worker {
            shared,
            thread,
            conns,
            ctx,
            events,
            timer,
            schedule: None,
            next_tick_ns: 0,
            turn: 0,
            dispatched_last: false,
        })
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        let deadline_ns = self.ctx.clock.now_ns() + self.shared.plan.timeout.as_nanos() as u64;
        while let Some(waiting) = self.conns.iter().position(|c| !c.is_ready()) {
            let now_ns = self.poll()?;
            if self.shared.stop.is_set() {
                return Err(anyhow!("interrupted"));
            }
            if now_ns > deadline_ns {
                let ready = self.conns.iter().filter(|c| c.is_ready()).count();
                let why = self.conns[waiting].broken.as_ref().map_or(String::new(), |b| format!(": {b}"));
                return Err(anyhow!(
                    "{ready} of {} connections got a session within {} ms{why}",
                    self.conns.len(),
                    self.shared.plan.timeout.as_millis()
                ));
            }
        }
        Ok(())
    }

    fn load(&mut self, go: Go) -> anyhow::Result<Totals> {
        let plan = self.shared.plan;
        let buckets = if plan.timeline { timeline_buckets(plan.secs) } else { 0 };
        self.ctx.rec = Recorder::new(plan.shape.workload.kinds(), go.window, buckets);
        self.ctx.until_ns = go.window.until_ns;
        self.schedule = plan
            .rate
            .map(|rate| Schedule::new(rate, self.thread, plan.threads, go.start_ns, go.window.until_ns));
        let now_ns = self.ctx.clock.now_ns();
        if self.schedule.is_none() {
            self.conns.iter_mut().for_each(|conn| conn.start(&mut self.ctx, now_ns));
        }
        while !self.is_through() {
            let now_ns = self.poll()?;
            self.dispatch(now_ns)?;
            self.shared.done[self.thread].store(self.ctx.done, Ordering::Relaxed);
        }
        self.give_up_backlog();
        self.close_all();
        let unused = Recorder::new(plan.shape.workload.kinds(), go.window, 0);
        Ok(std::mem::replace(&mut self.ctx.rec, unused).finish())
    }

    /// Waits for events and handles them; returns the time behind them.
    fn poll(&mut self) -> anyhow::Result<u64> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: TICK_NS as i64 };
        self.events.clear();
        let waited =
            epoll::wait(&self.ctx.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout));
        match waited {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("epoll"),
        }
        for i in 0..self.events.len() {
            let event = self.events[i];
            let token = event.data.u64();
            if token != TIMER_TOKEN {
                self.conns[token as usize].on_event(&mut self.ctx, hung_up(&event));
            }
        }
        let now_ns = self.ctx.clock.now_ns();
        if now_ns >= self.next_tick_ns {
            self.next_tick_ns = now_ns + TICK_NS;
            self.tick(now_ns);
        }
        Ok(now_ns)
    }

    fn tick(&mut self, now_ns: u64) {
        if self.shared.stop.is_set() && self.ctx.until_ns > now_ns {
            self.ctx.until_ns = now_ns;
            self.ctx.rec.cut(now_ns);
            self.schedule.iter_mut().for_each(|s| s.cut(now_ns));
        }
        for conn in &mut self.conns {
            conn.tick(&mut self.ctx, now_ns);
            if self.schedule.is_none() {
                // Its session may have come back without a reply to trigger the next request.
                conn.start(&mut self.ctx, now_ns);
            }
        }
    }

    /// Sends what is due, oldest first, to the connections in turn; sleeps until the next is.
    fn dispatch(&mut self, now_ns: u64) -> anyhow::Result<()> {
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        // The last requests may be due just before the end, and seen just behind it: one more round takes what has room.
        if std::mem::replace(&mut self.dispatched_last, now_ns >= self.ctx.until_ns) {
            return Ok(());
        }
        let (conns, depth) = (&mut self.conns, self.shared.plan.depth);
        'due: while schedule.peek().is_some_and(|at| at <= now_ns) {
            for _ in 0..conns.len() {
                self.turn = (self.turn + 1) % conns.len();
                if conns[self.turn].has_room(depth) {
                    conns[self.turn].push_due(schedule.pop(now_ns).expect("peeked"));
                    continue 'due;
                }
            }
            break;
        }
        let next_ns = schedule.peek();
        conns.iter_mut().for_each(|conn| conn.send_due(&mut self.ctx, now_ns));
        match next_ns {
            Some(at) if at > now_ns => self.wake_at(at),
            // A backlog goes on with the next reply.
            _ => Ok(()),
        }
    }

    fn wake_at(&self, at_ns: u64) -> anyhow::Result<()> {
        let wait_ns = at_ns.saturating_sub(self.ctx.clock.now_ns()).max(WAKE_NS_MIN);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value =
            Timespec { tv_sec: (wait_ns / 1_000_000_000) as i64, tv_nsec: (wait_ns % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).context("timerfd")?;
        Ok(())
    }

    fn is_through(&self) -> bool {
        let now_ns = self.ctx.clock.now_ns();
        let ended = (now_ns >= self.ctx.until_ns && (self.schedule.is_none() || self.dispatched_last))
            || (self.schedule.is_none() && self.conns.iter().all(|c| c.is_spent()));
        let deadline_ns = self.ctx.until_ns.saturating_add(self.shared.plan.timeout.as_nanos() as u64);
        ended && (self.conns.iter().all(|c| c.is_idle()) || now_ns >= deadline_ns)
    }

    /// What was due and never sent (B2).
    fn give_up_backlog(&mut self) {
        let Some(schedule) = &mut self.schedule else { return };
        let kind = self.shared.plan.shape.workload.kinds()[0];
        let until_ns = self.ctx.until_ns;
        while let Some(due_ns) = schedule.pop(until_ns) {
            self.ctx.rec.failure(kind, due_ns, until_ns, Failure::Unsent);
        }
    }

    fn close_all(&mut self) {
        let now_ns = self.ctx.clock.now_ns();
        self.conns.iter_mut().for_each(|conn| conn.close(&mut self.ctx, now_ns));
        let deadline_ns = now_ns + CLOSE_NS;
        while !self.conns.iter().all(|c| c.is_closed()) {
            match self.poll() {
                Ok(now_ns) if now_ns < deadline_ns => {}
                _ => return,
            }
        }
    }
}

fn timeline_buckets(secs: Duration) -> usize {
    secs.as_nanos().div_ceil(u128::from(TIMELINE_NS)) as usize
}
