//! The thread that waits for everything, and takes turns with the shell; and the one that does so while the first one flushes a disk that hangs.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::Sleep;

use super::slow_disk::{Flushed, flush};
use super::{Arrived, MemberParts, Shell, ensemble};
use crate::server::Shared;
use crate::storage::log::Flusher;

/// A flush that takes so long does not hold up heartbeats, peers and clients any longer.
const STAND_IN_AFTER: Duration = Duration::from_millis(50);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
                run(&shared, &runtime, parts, started);
                // A name lookup that hangs must not keep the server from stopping.
                runtime.shutdown_background();
            }
            Err(error) => drop(started.send(Err(error.into()))),
        }
    })?;
    is_started.await.context("the member's thread ended at once")??;
    Ok(thread)
}

fn run(
    shared: &Arc<Shared>,
    runtime: &Runtime,
    parts: MemberParts,
    started: oneshot::Sender<anyhow::Result<()>>,
) {
    match runtime.block_on(Shell::new(Arc::clone(shared), parts)) {
        Ok(shell) => *ensemble(shared).shell.lock() = Some(Box::new(shell)),
        Err(error) => return drop(started.send(Err(error))),
    }
    let watch = FlushWatch::default();
    std::thread::scope(|scope| {
        let stand_in = std::thread::Builder::new().name("zabra-stand-in".into());
        let stand_in = match stand_in.spawn_scoped(scope, || watch.stand_in(shared, runtime)) {
            Ok(stand_in) => stand_in,
            Err(error) => return drop(started.send(Err(error.into()))),
        };
        let _ = started.send(Ok(()));
        turns(shared, runtime, &watch);
        stand_in.thread().unpark();
    });
    let shell = ensemble(shared).shell.lock().take();
    runtime.block_on(async { shell.expect("this thread alone takes it away").stop() });
}

/// Turns, and flushes between them, until the server stops.
fn turns(shared: &Shared, runtime: &Runtime, watch: &FlushWatch) {
    let (mut timer, mut flushed) = (None, None);
    while let Some(flusher) = runtime.block_on(turns_to_flush(shared, &mut timer, flushed.take())) {
        flushed = Some(watch.flush(flusher));
    }
}

/// Turns until something is to be flushed; `None` when the server stops. What was flushed before comes first.
async fn turns_to_flush(
    shared: &Shared,
    timer: &mut Option<Pin<Box<Sleep>>>,
    flushed: Option<Flushed>,
) -> Option<Flusher> {
    let mut more = with_shell(shared, |shell| shell.end_turn(flushed));
    while !shared.is_stopped() {
        if more {
            tokio::task::yield_now().await;
        }
        set_timer(shared, timer);
        let arrived = wait(shared, timer.as_mut(), more).await;
        if let Some(flusher) = with_shell(shared, |shell| shell.begin_turn(arrived)) {
            return Some(flusher);
        }
        more = with_shell(shared, |shell| shell.end_turn(None));
    }
    None
}

/// The flush under way on the member's thread. That thread flushes a fast disk itself, for a hand-over would cost more; so when the disk hangs, the
/// stand-in takes the turns until that flush is over (rule R14: heartbeats go on, and a leader whose disk hangs finds that out, and stops).
#[derive(Debug, Default)]
struct FlushWatch {
    since: Mutex<Option<Instant>>,
    over: Notify,
}

impl FlushWatch {
    /// On the member's thread, outside of its runtime, which the stand-in may need.
    fn flush(&self, flusher: Flusher) -> Flushed {
        *self.since.lock() = Some(Instant::now());
        let flushed = flush(flusher);
        *self.since.lock() = None;
        self.over.notify_waiters();
        flushed
    }

    fn is_flushing_for(&self, time: Duration) -> bool {
        self.since.lock().is_some_and(|since| since.elapsed() >= time)
    }

    fn stand_in(&self, shared: &Shared, runtime: &Runtime) {
        while !shared.is_stopped() {
            std::thread::park_timeout(LOOK_EVERY);
            if self.is_flushing_for(STAND_IN_AFTER) {
                runtime.block_on(self.turns_meanwhile(shared));
                // The member's thread may already wait, for what it was told here instead.
                ensemble(shared).notify.notify_one();
            }
        }
    }

    /// Turns for as long as the flush lasts.
    async fn turns_meanwhile(&self, shared: &Shared) {
        tracing::warn!("the disk takes long to flush the log; everything else goes on");
        let (mut timer, mut more) = (None, true);
        while !shared.is_stopped() {
            let mut over = pin!(self.over.notified());
            over.as_mut().enable();
            if !self.is_flushing_for(Duration::ZERO) {
                return;
            }
            if more {
                tokio::task::yield_now().await;
            }
            set_timer(shared, &mut timer);
            tokio::select! {
                () = over => return,
                arrived = wait(shared, timer.as_mut(), more) => {
                    more = with_shell(shared, |shell| {
                        // There is one if the flush has ended just now: the next one is the member's thread's again.
                        shell.to_flush = shell.begin_turn(arrived);
                        shell.end_turn(None)
                    });
                }
            }
        }
    }
}

fn with_shell<R>(shared: &Shared, f: impl FnOnce(&mut Shell) -> R) -> R {
    f(ensemble(shared).shell.lock().as_mut().expect("this thread alone takes it away"))
}

/// Wakes at the member's next deadline.
fn set_timer(shared: &Shared, timer: &mut Option<Pin<Box<Sleep>>>) {
    let at = with_shell(shared, |shell| {
        shell.timer_at = shell.member.next_timer();
        shell.timer_at
    });
    match (at.map(|at| shared.instant_of(at)), timer.as_mut()) {
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
async fn wait(shared: &Shared, mut timer: Option<&mut Pin<Box<Sleep>>>, at_once: bool) -> Arrived {
    let mut submitted = pin!(ensemble(shared).notify.notified());
    let mut arrived = Arrived::default();
    poll_fn(|cx| {
        let mut ready = submitted.as_mut().poll(cx).is_ready() || at_once;
        if let Some(timer) = &mut timer
            && timer.as_mut().poll(cx).is_ready()
        {
            arrived.timer = true;
            ready = true;
        }
        ready |= with_shell(shared, |shell| shell.poll_arrivals(cx, &mut arrived));
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    arrived
}

impl Shell {
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

    /// The server stops: what was appended is made durable, and the place written down.
    fn stop(mut self) {
        *ensemble(&self.shared).standing.write() = None;
        let now = self.shared.mono_now();
        if let Some(flusher) = self.to_flush.take() {
            self.flushed(now, flush(flusher));
        }
        while let Ok(flushed) = self.slow_disk.done.try_recv() {
            self.flushed(now, flushed);
        }
        if let Err(error) = self.member.stop() {
            let error = anyhow::Error::from(error);
            tracing::error!(error = format!("{error:#}"), "the next start will treat this as a crash");
        }
    }
}
