//! The floor's threads: an epoll loop over connections, which it accepts by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use parking_lot::Mutex;
use rustix::event::epoll;
use rustix::time::Timespec;

use super::super::conn::{STREAM_EVENTS, hung_up};
use super::super::frames::FrameStream;
use super::answer::{Answer, Peer, Shape, answer};
use super::journal::{Group, Journal};
use crate::base::Zxid;
use crate::base::limits::FRAME_BYTES_MAX;

const READ_BYTES: usize = 256 << 10;
const EVENTS: usize = 256;
/// How often a stop is looked for, ns.
const TICK_NS: i64 = 50_000_000;
/// Reply bytes a connection may leave unread before it is closed: a listing of ten million children fits twice.
const UNSENT_BYTES_MAX: usize = 512 << 20;
const LISTENER: u64 = u64::MAX;

/// Where written requests go before they are answered.
pub(super) enum Sink {
    None,
    Inline(Journal),
    Group(Arc<Group>),
}

/// The writing side of a connection, shared with the group thread.
#[derive(Debug)]
pub(in super::super) struct Outlet {
    socket: TcpStream,
    unsent: Mutex<Vec<u8>>,
    /// Replies that are with the group thread (L3).
    pub(super) waiting: AtomicUsize,
}

impl Outlet {
    /// Sends, keeping what the socket does not take. A broken socket shows itself to the reading side.
    pub(super) fn send(&self, bytes: &[u8]) {
        let mut unsent = self.unsent.lock();
        let n = if unsent.is_empty() { self.write(bytes) } else { 0 };
        if n < bytes.len() {
            unsent.extend_from_slice(&bytes[n..]);
        }
        if unsent.len() > UNSENT_BYTES_MAX {
            // Fails only when it is closed already.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// The socket takes bytes again.
    fn flush(&self) {
        let mut unsent = self.unsent.lock();
        if !unsent.is_empty() {
            let n = self.write(&unsent);
            unsent.drain(..n);
        }
    }

    fn write(&self, bytes: &[u8]) -> usize {
        (&self.socket).write(bytes).unwrap_or(0)
    }
}

struct Link {
    outlet: Arc<Outlet>,
    stream: FrameStream,
    peer: Peer,
}

/// One thread of the floor.
pub(super) struct Server {
    listener: TcpListener,
    epoll: rustix::fd::OwnedFd,
    sink: Sink,
    shape: Shape,
    stop: Arc<AtomicBool>,
    links: Vec<Option<Link>>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Request bytes of one batch, to be made durable.
    written: Vec<u8>,
    zxid: u64,
}

impl Server {
    /// A thread that accepts from `listener`.
    pub(super) fn new(
        listener: TcpListener,
        sink: Sink,
        shape: Shape,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<Server> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN).context("epoll")?;
        Ok(Server {
            listener,
            epoll,
            sink,
            shape,
            stop,
            links: Vec::new(),
            input: vec![0; READ_BYTES],
            output: Vec::with_capacity(READ_BYTES),
            written: Vec::with_capacity(READ_BYTES),
            zxid: 1,
        })
    }

    /// Serves until it is stopped.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK_NS };
        while !self.stop.load(Ordering::Relaxed) {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&tick)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("epoll"),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    token => self.serve(token as usize, hung_up(event))?,
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(e) => return Err(e).context("accept"),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let token = self.links.iter().position(Option::is_none).unwrap_or(self.links.len());
            let data = epoll::EventData::new_u64(token as u64);
            epoll::add(&self.epoll, &socket, data, STREAM_EVENTS).context("epoll")?;
            let outlet = Outlet { socket, unsent: Mutex::default(), waiting: AtomicUsize::new(0) };
            let stream = FrameStream::new(FRAME_BYTES_MAX);
            let link = Link { outlet: Arc::new(outlet), stream, peer: Peer::default() };
            if token == self.links.len() {
                self.links.push(None);
            }
            self.links[token] = Some(link);
        }
    }

    fn serve(&mut self, token: usize, hung_up: bool) -> anyhow::Result<()> {
        let Some(mut link) = self.links[token].take() else { return Ok(()) };
        link.outlet.flush();
        if self.read(&mut link, hung_up)? {
            self.links[token] = Some(link);
        }
        Ok(())
    }

    /// Reads all there is and answers it; false when the connection is over.
    fn read(&mut self, link: &mut Link, hung_up: bool) -> anyhow::Result<bool> {
        loop {
            let n = match (&link.outlet.socket).read(&mut self.input) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            };
            let open = self.answer_batch(link, n);
            self.send(link)?;
            if !open {
                return Ok(false);
            }
            if n < self.input.len() && !hung_up {
                return Ok(true);
            }
        }
    }

    /// Answers the frames of one read into `output`; false when the connection is to be closed behind them.
    fn answer_batch(&mut self, link: &mut Link, n: usize) -> bool {
        let Server { input, output, written, shape, zxid, sink, .. } = self;
        output.clear();
        written.clear();
        let mut open = true;
        let keep = !matches!(sink, Sink::None);
        let cut = link.stream.feed(&input[..n], |frame| {
            *zxid += 1;
            match answer(frame, &mut link.peer, shape, Zxid(*zxid), output) {
                Answer::Write if keep => written.extend_from_slice(frame),
                Answer::Close => open = false,
                _ => {}
            }
        });
        open && cut.is_ok()
    }

    fn send(&mut self, link: &Link) -> anyhow::Result<()> {
        match &mut self.sink {
            Sink::Inline(journal) if !self.written.is_empty() => journal.append(&self.written)?,
            Sink::Group(group)
                if !self.written.is_empty() || link.outlet.waiting.load(Ordering::Acquire) > 0 =>
            {
                group.push(&self.written, &link.outlet, self.output.clone());
                return Ok(());
            }
            _ => {}
        }
        link.outlet.send(&self.output);
        Ok(())
    }
}
