//! One connection on the quorum port: bytes in, bytes out.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use crate::server::receive::receive;

/// Bytes asked for at once.
const READ_BYTES: usize = 128 << 10;

/// Memory kept by a drained buffer, bytes.
const KEEP_BYTES_MAX: usize = 1 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that are done with.
    done: usize,
    /// Nothing is read until somebody says so.
    pub(super) hold: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Socket {
        Socket { stream, input: Vec::new(), done: 0, hold: false }
    }

    /// Ready when there may be something to read, or room for what waits to be sent.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>, sends: bool) -> Poll<()> {
        if !self.hold && self.stream.poll_read_ready(cx).is_ready() {
            return Poll::Ready(());
        }
        if sends && self.stream.poll_write_ready(cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Reads once; true when something came.
    ///
    /// # Errors
    /// The other side has closed, or the connection broke.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        if self.hold {
            return Ok(false);
        }
        self.make_room();
        match receive(&self.stream, &mut self.input) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What was received and is not done with.
    pub(super) fn received(&self) -> &[u8] {
        &self.input[self.done..]
    }

    /// So many bytes of [`Socket::received`] are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.done += count;
        debug_assert!(self.done <= self.input.len(), "no more is done with than came");
    }

    /// Sends what the system takes of `bytes`.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.try_write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// What is done with goes; a record that is cut short moves to the front.
    fn make_room(&mut self) {
        if self.done == self.input.len() {
            self.input.clear();
            self.input.shrink_to(KEEP_BYTES_MAX);
        } else {
            self.input.drain(..self.done);
        }
        self.done = 0;
        self.input.reserve(READ_BYTES);
    }
}
