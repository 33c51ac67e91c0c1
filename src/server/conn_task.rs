//! The task of one client connection: reads frames, serves reads itself, hands writes to the commit path, sends what the outbox holds.
//!
//! - T1: requests take effect in the order in which they were sent: a read waits for the connection's own earlier writes, a write for its
//!   earlier reads; a run of writes is pipelined, a run of reads is served under one hold of the tree's lock.
//! - T2: memory per connection grows with bytes received, never on the word of a length.
//! - T3: a connection that cannot go on (frame cut short, own writes pending, output unread, queue full) waits; nobody waits for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::server::Shared;
use crate::server::conn::Conn;
use crate::server::dispatch::{Dispatch, Progress};

/// Input buffer of a quiet connection, bytes.
const INPUT_BYTES_MIN: usize = 4 << 10;

/// Input buffer of a busy connection, bytes; larger only for a frame that is larger.
const INPUT_BYTES_BUSY: usize = 128 << 10;

/// A client that takes nothing of what waits for it for so long is cut off.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);

/// Pause before a connection looks again whether the commit path takes more.
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(1);

/// Output buffers above this are given back when sent, bytes.
const OUTPUT_KEEP_MAX: usize = 64 << 10;

/// Runs a connection from accept to close. Returns when it is closed, by either side.
pub(crate) async fn run(shared: &Arc<Shared>, conn: &Arc<Conn>, mut stream: TcpStream) {
    let (reader, writer) = stream.split();
    let mut task = Task {
        shared,
        conn,
        reader,
        writer,
        input: BytesMut::new(),
        output: Vec::new(),
        sent: 0,
        closing: false,
        dispatch: Dispatch::new(shared, conn),
    };
    if let Err(reason) = task.run().await {
        tracing::debug!(peer = %conn.peer, session = ?conn.session(), %reason, "connection closed");
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("the client closed it")]
    ByClient,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no connect request in time (nio.sessionlessCnxnTimeout)")]
    NoConnectRequest,
    #[error("{0}")]
    ByServer(&'static str),
}

struct Task<'a> {
    shared: &'a Arc<Shared>,
    conn: &'a Arc<Conn>,
    reader: ReadHalf<'a>,
    writer: WriteHalf<'a>,
    /// Received, not yet processed.
    input: BytesMut,
    /// Taken from the outbox, sent up to `sent`.
    output: Vec<u8>,
    sent: usize,
    /// Nothing more is processed; the connection ends when `output` is sent.
    closing: bool,
    dispatch: Dispatch<'a>,
}

impl Task<'_> {
    async fn run(&mut self) -> Result<(), Closed> {
        let connect_by =
            tokio::time::Instant::now() + Duration::from_millis(self.shared.config.sessionless_timeout_ms);
        let greeting = pin!(tokio::time::sleep_until(connect_by));
        let stopped = pin!(self.shared.stopped());
        let (mut greeting, mut stopped) = (greeting, stopped);
        loop {
            self.conn.clear_woken();
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
            let reads = !self.closing && matches!(progress, Progress::NeedInput);
            let greeted = self.dispatch.is_greeted();
            tokio::select! {
                biased;
                () = &mut stopped => return Err(Closed::ByServer("the server stops")),
                () = self.conn.woken() => {}
                received = receive(&mut self.reader, &mut self.input), if reads => {
                    if received? == 0 {
                        return Err(Closed::ByClient);
                    }
                }
                ready = self.writer.writable(), if unsent => ready?,
                () = tokio::time::sleep(QUEUE_FULL_RETRY), if progress == Progress::QueueFull => {}
                () = tokio::time::sleep(WRITE_STALL_MAX), if unsent => return Err(Closed::ByServer("it does not read")),
                () = &mut greeting, if !greeted => {
                    self.shared.stats.sessionless_expired.fetch_add(1, Ordering::Relaxed);
                    return Err(Closed::NoConnectRequest);
                }
            }
        }
    }

    /// Processes what has been received, as far as it goes.
    fn process(&mut self) -> Progress {
        if self.closing || self.conn.is_killed() {
            return Progress::NeedInput;
        }
        let (consumed, progress) = self.dispatch.frames(&self.input, Instant::now());
        self.input.advance(consumed);
        if self.input.is_empty() && self.input.capacity() > INPUT_BYTES_BUSY {
            self.input = BytesMut::new();
        }
        if self.dispatch.take_submitted() {
            self.shared.commit.kick(self.shared, self.conn, Instant::now());
        }
        progress
    }

    /// Sends as much as the socket takes; true when something is left.
    fn send(&mut self) -> Result<bool, Closed> {
        loop {
            if self.sent == self.output.len() {
                self.output.clear();
                self.sent = 0;
                if self.output.capacity() > OUTPUT_KEEP_MAX {
                    self.output = Vec::new();
                }
                self.closing |= self.conn.take_output(&mut self.output);
                if self.output.is_empty() {
                    return Ok(false);
                }
            }
            match self.writer.try_write(&self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
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

/// Reads into `input`, growing it with what has come: twice what is there, within limits, so that a length alone costs nothing.
async fn receive(reader: &mut ReadHalf<'_>, input: &mut BytesMut) -> std::io::Result<usize> {
    if input.capacity() - input.len() < INPUT_BYTES_MIN / 2 {
        let grow = input.len().clamp(INPUT_BYTES_MIN, INPUT_BYTES_BUSY);
        input.reserve(grow);
    }
    reader.read_buf(input).await
}
