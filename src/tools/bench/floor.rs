//! The floor server: what any server has to do at least. It cuts frames, optionally appends and flushes the bytes of writes,
//! and answers with canned replies of the right shape; it keeps nothing.
//!
//! - L1: one thread serves connections through epoll; one read, one write and at most one flush per readiness event.
//! - L2: a write is answered only when its bytes are flushed: by the thread itself (`inline`), or by one group thread that
//!   flushes all that waits at once (`group`) and writes the replies itself: one hop.
//! - L3: replies leave in the order of requests: while a connection has replies with the group thread, its later replies
//!   follow on the same way.

mod answer;
mod io;
mod journal;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;

use super::FloorArgs;
use super::stop;
use journal::{Group, Journal};

/// How written requests reach the disk before they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FlushMode {
    /// Not at all.
    None,
    /// Each connection's batch by itself: append, fdatasync, answer.
    Inline,
    /// One thread appends and flushes all that waits, and answers.
    Group,
}

/// How a floor server runs.
#[derive(Clone, Debug)]
pub(super) struct FloorOptions {
    pub(super) addr: SocketAddr,
    pub(super) flush: FlushMode,
    pub(super) dir: PathBuf,
    pub(super) threads: usize,
    /// Bytes of data that getData answers until a write shows another size.
    pub(super) data_bytes: usize,
    /// Children that a listing answers.
    pub(super) children: usize,
}

/// A running floor server; dropping it stops it.
#[derive(Debug)]
pub(super) struct Floor {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    group: Option<Arc<Group>>,
}

/// Most children a listing answers: 14 bytes each, so that the reply stays below 256 MiB.
const CHILDREN_MAX: usize = 10_000_000;

impl Floor {
    /// Binds and starts the threads.
    pub(super) fn start(options: &FloorOptions) -> anyhow::Result<Floor> {
        let listener =
            TcpListener::bind(options.addr).with_context(|| format!("cannot listen on {}", options.addr))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut floor = Floor { addr, stop, threads: Vec::new(), group: None };
        if options.flush == FlushMode::Group {
            let group = Arc::new(Group::new(Journal::create(&options.dir)?));
            floor.group = Some(Arc::clone(&group));
            floor.spawn("floor-group", move || group.run())?;
        }
        let shape = answer::Shape::new(options.data_bytes, options.children.min(CHILDREN_MAX));
        for _ in 0..options.threads.max(1) {
            let sink = match (options.flush, &floor.group) {
                (FlushMode::Inline, _) => io::Sink::Inline(Journal::create(&options.dir)?),
                (_, Some(group)) => io::Sink::Group(Arc::clone(group)),
                _ => io::Sink::None,
            };
            let server =
                io::Server::new(listener.try_clone()?, sink, shape.clone(), Arc::clone(&floor.stop))?;
            floor.spawn("floor-io", move || server.run())?;
        }
        Ok(floor)
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let stop = Arc::clone(&self.stop);
        let body = move || {
            if let Err(e) = run() {
                eprintln!("floor: {e:#}");
                stop.store(true, Ordering::Relaxed);
            }
        };
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(body)?);
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.group.iter().for_each(|group| group.stop());
        for thread in self.threads.drain(..) {
            // A panic has been reported on standard error by the thread itself.
            let _ = thread.join();
        }
    }
}

/// `zabra bench floor`: serves until it is interrupted.
pub(super) fn serve(args: &FloorArgs) -> anyhow::Result<()> {
    let options = FloorOptions {
        addr: SocketAddr::from(([127, 0, 0, 1], args.port)),
        flush: args.flush,
        dir: args.dir.clone(),
        threads: args.threads.clamp(1, super::plan::THREADS_MAX),
        data_bytes: 100,
        children: args.children,
    };
    let stop = stop::on_interrupt()?;
    let floor = Floor::start(&options)?;
    eprintln!("floor: listening on {}, flush {:?}", floor.addr(), args.flush);
    while !stop.is_set() && !floor.stop.load(Ordering::Relaxed) {
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    Ok(())
}
