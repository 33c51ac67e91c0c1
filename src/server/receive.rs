//! Reading from a socket: once, and with what was learned from it kept.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads once into the spare room of `into`, which must have some; 0 at the end of the stream.
///
/// A read that does not fill the room has emptied the socket. tokio is told so, or the next look would cost a call that finds nothing.
///
/// # Errors
/// `WouldBlock` when nothing is there; or the connection broke.
pub(super) fn receive(stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let room = into.capacity() - into.len();
    debug_assert!(room > 0, "a read into nothing looks like the end of the stream");
    let mut received = None;
    let result = stream.try_io(Interest::READABLE, || {
        let (count, _) = rustix::net::recv(stream, spare_capacity(into), RecvFlags::DONTWAIT)?;
        received = Some(count);
        // What tokio takes for "nothing is there any more". It counts for what was known before this read, and for nothing that comes later.
        if (1..room).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match received {
        Some(count) => Ok(count),
        None => result.map(|()| 0),
    }
}

/// The same, when something is there.
pub(super) fn poll_receive(
    stream: &TcpStream,
    into: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match receive(stream, into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return Poll::Ready(received),
        }
    }
}
