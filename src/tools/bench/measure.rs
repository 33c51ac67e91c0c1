//! One measurement from end to end: build the tree, start the threads, load, merge, clean up.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};

use super::conn::Clock;
use super::floor::{Floor, FloorOptions, FlushMode};
use super::plan::Plan;
use super::stats::{Gap, Totals, Window, WriteClock};
use super::stop::Stop;
use super::template::Templates;
use super::tree;
use super::worker::{self, Go, Shared};

/// How often the progress bar moves.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// From the word to start until the first request, ns: every thread has heard by then.
const START_NS: u64 = 5_000_000;

/// What a run found.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) totals: Totals,
    /// Seconds that throughput refers to.
    pub(super) elapsed_secs: f64,
    /// Longest time without a completed write, and when it began, ns since the window began; `None` without writes.
    pub(super) gap: Option<Gap>,
    /// An interrupt ended it.
    pub(super) interrupted: bool,
}

/// Measures the servers of the plan in a subtree of their own.
pub(super) fn against_server(plan: &Plan, stop: &Stop) -> anyhow::Result<Measured> {
    tree::build(plan, stop)?;
    let measured = load(plan, stop, "measuring");
    if !plan.keep
        && let Err(e) = tree::remove(plan, stop)
    {
        eprintln!("warning: {} is not removed: {e:#}", plan.prefix);
    }
    measured
}

/// Measures the floor with the same load, in this process, on a port of its own.
pub(super) fn against_floor(
    plan: &Plan,
    flush: FlushMode,
    dir: &Path,
    stop: &Stop,
) -> anyhow::Result<Measured> {
    let shape = &plan.shape;
    let options = FloorOptions {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        flush,
        dir: dir.to_owned(),
        threads: 1,
        data_bytes: shape.size,
        children: usize::try_from(shape.keys).unwrap_or(usize::MAX),
    };
    let floor = Floor::start(&options)?;
    load(&plan.against(floor.addr()), stop, "measuring the floor")
}

/// Raises the soft limit of file descriptors to what the run needs, as far as the hard limit allows. What is missing then
/// shows as "too many open files" when the connections are opened.
fn raise_descriptor_limit(plan: &Plan) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // A floor in this process has the other end of each connection.
    let wanted = 2 * plan.conns as u64 + 100;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    }
}

/// Runs the load; the tree is there.
pub(super) fn load(plan: &Plan, stop: &Stop, what: &'static str) -> anyhow::Result<Measured> {
    raise_descriptor_limit(plan);
    let shared = Shared {
        plan,
        templates: Templates::new(&plan.prefix, &plan.shape),
        writes: WriteClock::default(),
        clock: Clock(Instant::now()),
        stop,
        done: (0..plan.threads).map(|_| AtomicU64::new(0)).collect(),
    };
    let (totals, window) = std::thread::scope(|scope| {
        let (ready_in, ready_out) = channel();
        let mut starts = Vec::new();
        let mut threads = Vec::new();
        for thread in 0..plan.threads {
            let (start, go) = channel();
            let (shared, ready) = (&shared, ready_in.clone());
            starts.push(start);
            threads.push(scope.spawn(move || run_thread(shared, thread, &ready, &go)));
        }
        let started = start(plan, &shared, &ready_out, &starts);
        // Without a start, threads that still wait for one end here.
        drop(starts);
        if let Ok(go) = &started {
            show_progress(plan, &shared, go, &threads, what);
        }
        let totals = join(threads);
        let go = started?;
        Ok::<_, anyhow::Error>((totals?, go.window))
    })?;
    Ok(conclude(plan, totals, window, &shared))
}

fn run_thread(
    shared: &Shared<'_>,
    thread: usize,
    ready: &Sender<anyhow::Result<()>>,
    go: &Receiver<Go>,
) -> anyhow::Result<Totals> {
    let result = worker::run(shared, thread, ready, go);
    if let Err(e) = &result {
        // Heard only when the thread failed before it could connect; otherwise nobody listens any more.
        let _ = ready.send(Err(anyhow!("{e:#}")));
    }
    result
}

/// Waits until every thread is connected, then gives the word.
fn start(
    plan: &Plan,
    shared: &Shared<'_>,
    ready: &Receiver<anyhow::Result<()>>,
    starts: &[Sender<Go>],
) -> anyhow::Result<Go> {
    for _ in 0..plan.threads {
        ready.recv().context("a load thread ended early")??;
    }
    let start_ns = shared.clock.now_ns() + START_NS;
    let from_ns = start_ns + plan.warmup.as_nanos() as u64;
    let window = Window { from_ns, until_ns: from_ns + plan.secs.as_nanos() as u64 };
    // A run by count has no warm-up, and its threads start at once: the window has to have begun.
    let window =
        if plan.count.is_some() { Window { from_ns: shared.clock.now_ns(), ..window } } else { window };
    let go = Go { start_ns, window };
    for start in starts {
        start.send(go).map_err(|_| anyhow!("a load thread ended early"))?;
    }
    Ok(go)
}

fn join(threads: Vec<ScopedJoinHandle<'_, anyhow::Result<Totals>>>) -> anyhow::Result<Totals> {
    let mut all: Option<Totals> = None;
    for thread in threads {
        let totals = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
        match &mut all {
            None => all = Some(totals),
            Some(all) => all.merge(totals),
        }
    }
    all.context("a run has at least one thread")
}

fn conclude(plan: &Plan, totals: Totals, window: Window, shared: &Shared<'_>) -> Measured {
    let interrupted = totals.window.until_ns < window.until_ns;
    let window = totals.window;
    let until_ns =
        if plan.count.is_some() { totals.last_done_ns.min(window.until_ns) } else { window.until_ns };
    let elapsed_secs = (until_ns.saturating_sub(window.from_ns).max(1)) as f64 / 1e9;
    let writes = plan.shape.workload.kinds().iter().any(|kind| kind.is_write());
    let gap = totals.gap.max(shared.writes.close(&window, until_ns));
    let gap = Gap { from_ns: gap.from_ns.saturating_sub(window.from_ns), ..gap };
    Measured { totals, elapsed_secs, gap: writes.then_some(gap), interrupted }
}

/// Draws the bar until the threads are through. Nothing is drawn where standard error is not a terminal.
fn show_progress<T>(
    plan: &Plan,
    shared: &Shared<'_>,
    go: &Go,
    threads: &[ScopedJoinHandle<'_, T>],
    what: &'static str,
) {
    let (from_ns, until_ns) = (go.start_ns, go.window.until_ns);
    let bar = ProgressBar::new(plan.count.unwrap_or((until_ns - from_ns) / 1_000_000));
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {msg}").expect("a constant template");
    bar.set_style(style);
    bar.set_prefix(what);
    let (mut before, mut before_ns) = (0, shared.clock.now_ns());
    while !threads.iter().all(ScopedJoinHandle::is_finished) {
        std::thread::park_timeout(if bar.is_hidden() { PROGRESS_EVERY / 10 } else { PROGRESS_EVERY });
        let now_ns = shared.clock.now_ns();
        let done: u64 = shared.done.iter().map(|done| done.load(Ordering::Relaxed)).sum();
        let rate = (done - before) as f64 * 1e9 / (now_ns - before_ns).max(1) as f64;
        (before, before_ns) = (done, now_ns);
        bar.set_position(if plan.count.is_some() {
            done
        } else {
            now_ns.saturating_sub(from_ns) / 1_000_000
        });
        bar.set_message(format!("{rate:.0} ops/s"));
    }
    bar.finish_and_clear();
}
