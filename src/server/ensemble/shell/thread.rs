//! The thread that waits for everything, and takes turns with the shell.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::slow_disk::flush;
use super::{Arrived, MemberParts, Shell, ensemble};
use crate::server::Shared;

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
                runtime.block_on(run(&shared, parts, started));
                // A name lookup that hangs must not keep the server from stopping.
                runtime.shutdown_background();
            }
            Err(error) => drop(started.send(Err(error.into()))),
        }
    })?;
    is_started.await.context("the member's thread ended at once")??;
    Ok(thread)
}

async fn run(shared: &Arc<Shared>, parts: MemberParts, started: oneshot::Sender<anyhow::Result<()>>) {
    match Shell::new(Arc::clone(shared), parts).await {
        Ok(shell) => *ensemble(shared).shell.lock() = Some(Box::new(shell)),
        Err(error) => return drop(started.send(Err(error))),
    }
    let _ = started.send(Ok(()));
    turns(shared).await;
    let shell = ensemble(shared).shell.lock().take();
    shell.expect("this thread alone takes it away").stop();
}

async fn turns(shared: &Shared) {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let mut more = true;
    while !shared.is_stopped() {
        if more {
            tokio::task::yield_now().await;
        }
        set_timer(shared, &mut timer);
        let arrived = wait(shared, timer.as_mut(), more).await;
        let flusher = with_shell(shared, |shell| shell.begin_turn(arrived));
        let flushed = flusher.map(flush);
        more = with_shell(shared, |shell| shell.end_turn(flushed));
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
