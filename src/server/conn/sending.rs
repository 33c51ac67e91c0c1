//! What was taken from the outbox, and where it goes.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;

/// Output buffers above this are given back when sent, bytes.
const OUTPUT_KEEP_MAX: usize = 64 << 10;

/// What became of sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The socket takes no more now.
    pub(crate) unsent: bool,
    /// It took something.
    pub(crate) some: bool,
    /// The connection is to end when all is sent.
    pub(crate) close: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Sent up to `sent`.
    output: Vec<u8>,
    sent: usize,
    /// From the start of the connection's task to its end.
    pub(super) stream: Option<Arc<TcpStream>>,
}

impl Sending {
    /// Sends as much as the socket takes. `refill` exchanges the empty buffer for what waits; true when the connection is to end after it.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn send(&mut self, mut refill: impl FnMut(&mut Vec<u8>) -> bool) -> io::Result<Sent> {
        let Sending { output, sent, stream } = self;
        let mut done = Sent::default();
        let Some(stream) = stream else { return Ok(done) };
        loop {
            if *sent == output.len() {
                output.clear();
                *sent = 0;
                output.shrink_to(OUTPUT_KEEP_MAX);
                done.close |= refill(output);
                if output.is_empty() {
                    return Ok(done);
                }
            }
            match stream.try_write(&output[*sent..]) {
                Ok(count) => {
                    *sent += count;
                    done.some = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    done.unsent = true;
                    return Ok(done);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
