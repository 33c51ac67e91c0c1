//! The task of one client connection: reads frames, serves reads itself, hands writes to the commit path, sends what the outbox holds.
//!
//! - T1: requests take effect in the order in which they were sent: a read waits for the connection's own earlier writes, a write for its
//!   earlier reads; a run of writes is pipelined, a run of reads is served under one hold of the tree's lock.
//! - T2: memory per connection grows with bytes received, never on the word of a length, and within a budget of all (`input`).
//! - T3: a connection that cannot go on (frame cut short, own writes pending, output unread, queue full) waits; nobody waits for it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::server::Shared;
use crate::server::conn::Conn;
use crate::server::dispatch::{Dispatch, Progress};
use crate::server::input::{Input, OverBudget};

/// A client that takes nothing of what waits for it for so long is cut off.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);

/// Bytes behind a last request that are taken before the connection is closed.
const DRAIN_BYTES_MAX: usize = 1 << 20;

/// Pause before a connection looks again whether the commit path takes more.
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(1);

/// Runs a connection from accept to close. Returns when it is closed, by either side.
pub(crate) async fn run(shared: &Arc<Shared>, conn: &Arc<Conn>, stream: TcpStream) {
    let stream = Arc::new(stream);
    conn.set_stream(Some(Arc::clone(&stream)));
    let mut task = Task {
        shared,
        conn,
        stream,
        input: Input::new(shared, conn),
        stalled_since: None,
        timer: None,
        closing: false,
        dispatch: Dispatch::new(shared, conn),
    };
    let ended = task.run().await;
    if ended.is_ok() {
        drain(&task.stream);
    }
    if let Err(reason) = ended {
        if matches!(reason, Closed::ByServer(_) | Closed::NoConnectRequest) {
            shared.stats.connections_dropped.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!(peer = %conn.peer, session = ?conn.session(), %reason, "connection closed");
    }
}

/// Takes what the client sent behind its last request (a newline behind a four-letter word, requests behind closeSession). With bytes of its
/// unread, the socket would be reset, and the client could get an error in place of the reply.
fn drain(stream: &TcpStream) {
    let (mut left, mut nothing) = (DRAIN_BYTES_MAX, [0; 4096]);
    while left > 0 {
        // Past tokio, which may not have heard of it yet.
        match rustix::net::recv(stream, &mut nothing[..], RecvFlags::DONTWAIT) {
            Ok((n, _)) if n > 0 => left = left.saturating_sub(n),
            // Nothing there, or the client has gone already.
            _ => return,
        }
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("the client closed it")]
    ByClient,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no connect request in time (nio.sessionlessCnxnTimeout)")]
    NoConnectRequest,
    #[error("{0}")]
    ByServer(&'static str),
}

struct Task<'a> {
    shared: &'a Arc<Shared>,
    conn: &'a Arc<Conn>,
    stream: Arc<TcpStream>,
    /// Received, not yet processed.
    input: Input<'a>,
    /// The client has taken nothing since then, though something waits for it.
    stalled_since: Option<Instant>,
    /// When to look again though nothing has happened: none in the life of an ordinary request.
    timer: Option<Pin<Box<Sleep>>>,
    /// Nothing more is processed; the connection ends when everything is sent.
    closing: bool,
    dispatch: Dispatch<'a>,
}

/// The socket closes with its task, whoever still has the connection in hand.
impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.conn.set_stream(None);
    }
}

/// What a task waits for, beside being woken.
#[derive(Clone, Copy, Debug)]
struct Interest {
    /// Bytes from the client.
    input: bool,
    /// Room in the socket.
    output: bool,
}

impl Task<'_> {
    async fn run(&mut self) -> Result<(), Closed> {
        let greet_by = Instant::now() + Duration::from_millis(self.shared.config.sessionless_timeout_ms);
        loop {
            self.conn.expect_client(false);
            self.conn.clear_woken();
            // Behind the mark: a stop that came before it is seen here, one that comes later wakes.
            if self.shared.is_stopped() {
                return Err(Closed::ByServer("the server stops"));
            }
            let progress = self.process();
            let unsent = self.send()?;
            if self.conn.is_killed() {
                return Err(Closed::ByServer("session ended or moved, or too much left unread"));
            }
            if let Progress::Close(reason) = progress {
                return Err(Closed::ByServer(reason));
            }
            if self.closing && !unsent {
                return Ok(());
            }
            // The kick may have answered our own writes, and sending may have made room: then there is more to do right away.
            if !self.closing && progress.is_waiting() && self.can_go_on(progress, unsent) {
                // But not for ever: the worker has other connections.
                tokio::task::yield_now().await;
                continue;
            }
            self.set_timer(progress, greet_by)?;
            let input = !self.closing && matches!(progress, Progress::NeedInput);
            self.conn.expect_client(input && !unsent && self.timer.is_none());
            self.wait(Interest { input, output: unsent }).await?;
        }
    }

    /// Sets the timer, if one is needed; fails when the time is up.
    fn set_timer(&mut self, progress: Progress, greet_by: Instant) -> Result<(), Closed> {
        let greeted = self.dispatch.is_greeted();
        if greeted && self.stalled_since.is_none() && progress != Progress::QueueFull {
            self.timer = None;
            return Ok(());
        }
        let now = Instant::now();
        let stalled_until = self.stalled_since.map(|since| since + WRITE_STALL_MAX);
        if stalled_until.is_some_and(|until| now >= until) {
            return Err(Closed::ByServer("it does not read"));
        }
        if !greeted && now >= greet_by {
            self.shared.stats.sessionless_expired.fetch_add(1, Ordering::Relaxed);
            return Err(Closed::NoConnectRequest);
        }
        let retry = (progress == Progress::QueueFull).then(|| now + QUEUE_FULL_RETRY);
        let first = [retry, stalled_until, (!greeted).then_some(greet_by)].into_iter().flatten().min();
        self.timer = first.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        Ok(())
    }

    /// Waits until somebody wakes the connection, the socket is ready for what is of `interest`, or the timer is up. Reads what came.
    async fn wait(&mut self, interest: Interest) -> Result<(), Closed> {
        poll_fn(|cx| {
            if self.conn.poll_woken(cx.waker()) {
                return Poll::Ready(Ok(()));
            }
            if interest.input
                && let Poll::Ready(received) = self.poll_receive(cx)
            {
                return Poll::Ready(received);
            }
            if interest.output
                && let Poll::Ready(ready) = self.stream.poll_write_ready(cx)
            {
                return Poll::Ready(ready.map_err(Closed::Io));
            }
            match &mut self.timer {
                Some(timer) => timer.as_mut().poll(cx).map(Ok),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.input.poll_receive(&self.stream, cx).map(|received| match received {
            Ok(Ok(0)) => Err(Closed::ByClient),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(OverBudget)) => {
                Err(Closed::ByServer("its frame was the largest (zabra.limits.inputBytes)"))
            }
            Err(error) => Err(Closed::Io(error)),
        })
    }

    /// Processes what has been received, as far as it goes.
    fn process(&mut self) -> Progress {
        if self.closing || self.conn.is_killed() {
            return Progress::NeedInput;
        }
        let now = Instant::now();
        let (consumed, progress) = self.dispatch.frames(self.input.bytes(), now);
        self.input.consume(consumed);
        if self.dispatch.take_submitted() {
            self.shared.carry_out(self.conn, now);
        }
        progress
    }

    /// Sends as much as the socket takes; true when something is left.
    fn send(&mut self) -> Result<bool, Closed> {
        let sent = self.conn.send()?;
        self.closing |= sent.close;
        if !sent.unsent {
            self.stalled_since = None;
        } else if sent.some || self.stalled_since.is_none() {
            self.stalled_since = Some(Instant::now());
        }
        Ok(sent.unsent)
    }

    /// True when what `progress` waited for is over.
    fn can_go_on(&self, progress: Progress, unsent: bool) -> bool {
        match progress {
            Progress::OwnWrites => self.conn.pending_writes() == 0,
            Progress::TooManyWrites => self.conn.pending_writes() < self.dispatch.pending_writes_max(),
            // Nothing unsent means that both buffers are empty.
            Progress::OutputFull => !unsent,
            Progress::Yield => true,
            Progress::QueueFull => !self.shared.commit.is_full(self.conn.pending_writes()),
            Progress::NeedInput | Progress::Close(_) => false,
        }
    }
}
