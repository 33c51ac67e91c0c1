//! `zabra demo`: an ensemble of processes on this machine, started by one command, to be watched and hurt.
//!
//! - D1: every node is a process of its own that runs `zabra serve` on files that can be looked at: what is seen here is what an ensemble on
//!   several machines does.
//! - D2: no node outlives this process, however it ends: nodes are told to end with their parent (`serve --die-with-parent`), and on the ways
//!   out that this process sees they are ended and waited for.
//! - D3: one loop owns everything; keys, signals and what nodes say of themselves come in through one bounded channel.
//! - D4: on a terminal, keys act at once and the table stays in place; without one, commands are lines and the table is printed when it has
//!   changed, so that a script can use it.
//! - D5: a directory that this process made is removed at the end; one that was given stays, and is taken up again.

mod ask;
mod keys;
mod load;
mod node;
mod place;
mod ports;
mod screen;
mod show;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;

use ask::Answer;
use keys::{Command, Keys};
use load::Load;
use node::{Node, NodeState};
use place::Place;
use screen::Screen;

/// Nodes in all: a key names one with a single digit.
const NODES_MAX: usize = 9;

/// Between two questions to one node.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Between two tables on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// The same without one.
const PRINT_EVERY: Duration = Duration::from_secs(1);

/// Things that happened and were not looked at yet.
const EVENTS_MAX: usize = 64;

/// How long nodes may take to stop cleanly before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Starts an ensemble on this machine, shows it live, and lets you kill, pause and restart its nodes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Keys (on a terminal they act at once; otherwise each command is a line on standard input):
  k N   kill -9 node N                 K   kill all nodes
  s N   stop node N, or let it go on   a   start all that are down, let all go on
  r N   restart node N                 l   kill the leader
  q     quit: all nodes end            h   this list

Examples:
  zabra demo                          three nodes; data in a temporary directory that is removed at the end
  zabra demo --nodes 5 --load         five nodes and a client that writes: kill the leader and look at the longest gap
  zabra demo --observers 2            three that vote, two that only follow
  zabra demo --dir ./ensemble         the same nodes, ports and data at the next start
  (sleep 5; echo l; sleep 5) | zabra demo

Any ZooKeeper client can use the connect string that is printed. Each node's configuration is DIR/N/zoo.cfg, its log DIR/N/log.
The table: zxid is the last transaction applied, lag how many transactions that is behind the leader (\"3+\": it is in an older epoch),
flush p99 how long the node's disk takes to make the log durable in all but 1 % of cases.")]
pub struct DemoArgs {
    /// Nodes that vote; odd numbers make sense [default: 3, or what --dir holds]
    #[arg(long, value_name = "N")]
    pub nodes: Option<usize>,
    /// Nodes that follow without a vote [default: 0, or what --dir holds]
    #[arg(long, value_name = "N")]
    pub observers: Option<usize>,
    /// Directory for configuration, data and logs; stays at the end [default: a temporary one that does not]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write all the time, and show writes per second and the longest time without one
    #[arg(long)]
    pub load: bool,
}

/// What comes in.
#[derive(Debug)]
enum Event {
    /// A byte from standard input.
    Key(u8),
    /// Standard input has ended.
    InputEnd,
    /// Ctrl-C, or its like.
    Interrupt,
    /// What a node said, and when it was asked.
    Answer { index: usize, asked: Instant, answer: Answer },
}

/// Runs the ensemble until it is told to quit.
///
/// # Errors
/// The directory, a port or a process cannot be had, or the arguments ask for what is not possible.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let place = Place::prepare(args)?;
    let (events, inbox) = sync_channel(EVENTS_MAX);
    watch_signals(events.clone())?;
    let mut demo = Demo::new(&place, args.load)?;
    demo.introduce(&place);
    demo.start_all();
    let start = Instant::now();
    for (index, node) in demo.nodes.iter().enumerate() {
        watch_node(index, node.client_address(), start, events.clone())?;
    }
    watch_input(events)?;
    let watched = demo.watch(&inbox);
    demo.screen.close();
    demo.stop_all();
    watched
}

/// Asks one node again and again, until nobody listens. All are asked at the same moments, counted from `start`: what they say can be
/// compared.
fn watch_node(
    index: usize,
    address: SocketAddr,
    start: Instant,
    events: SyncSender<Event>,
) -> anyhow::Result<()> {
    spawn("demo-watch", move || {
        loop {
            let asked = Instant::now();
            let answer = ask::ask(address);
            if events.send(Event::Answer { index, asked, answer }).is_err() {
                return;
            }
            std::thread::sleep(until_next(start.elapsed(), ASK_EVERY));
        }
    })
}

/// From `elapsed` to the next multiple of `every`.
fn until_next(elapsed: Duration, every: Duration) -> Duration {
    every - Duration::from_nanos((elapsed.as_nanos() % every.as_nanos()) as u64)
}

fn watch_input(events: SyncSender<Event>) -> anyhow::Result<()> {
    spawn("demo-input", move || {
        for byte in std::io::stdin().lock().bytes() {
            let Ok(byte) = byte else { break };
            if events.send(Event::Key(byte)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::InputEnd);
    })
}

/// Ctrl-C, SIGTERM, and a terminal that goes away.
fn watch_signals(events: SyncSender<Event>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    drop(entered);
    spawn("demo-signals", move || {
        let came = async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up.recv() => {} }
        };
        runtime.block_on(came);
        let _ = events.send(Event::Interrupt);
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.map(drop).with_context(|| format!("cannot start thread {name}"))
}

/// The ensemble, and what is shown of it.
#[derive(Debug)]
struct Demo {
    nodes: Vec<Node>,
    keys: Keys,
    screen: Screen,
    load: Option<Load>,
    connect: String,
    /// Who led last, and in which epoch.
    led: Option<(usize, u32)>,
    settled: bool,
}

impl Demo {
    fn new(place: &Place, with_load: bool) -> anyhow::Result<Demo> {
        let keys_at_once = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let nodes = place.nodes()?;
        let addresses: Vec<SocketAddr> = nodes.iter().map(Node::client_address).collect();
        let connect = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(Demo {
            nodes,
            keys: Keys::new(!keys_at_once),
            screen: Screen::open(keys_at_once)?,
            load: with_load.then(|| Load::start(addresses)).transpose()?,
            connect,
            led: None,
            settled: false,
        })
    }

    fn introduce(&mut self, place: &Place) {
        self.screen.say_whole(&format!("connect string: {}", self.connect));
        let fate = if place.is_temporary() { "removed at the end" } else { "stays" };
        self.screen.say(&format!("files: {} ({fate})", place.directory().display()));
        if !self.screen.is_live() {
            self.screen.say(&keys::help());
        }
    }

    /// Until the end is asked for.
    fn watch(&mut self, inbox: &Receiver<Event>) -> anyhow::Result<()> {
        let every = if self.screen.is_live() { DRAW_EVERY } else { PRINT_EVERY };
        let mut draw_at = Instant::now();
        loop {
            if Instant::now() >= draw_at {
                draw_at = Instant::now() + every;
                self.draw();
            }
            if self.screen.is_gone() {
                return Ok(());
            }
            match inbox.recv_timeout(draw_at.saturating_duration_since(Instant::now())) {
                Ok(Event::InputEnd) => {
                    self.screen.say("the input has ended, and so does the demo: keep it open (tail -f /dev/null | zabra demo) to go on without keys");
                    return Ok(());
                }
                Ok(Event::Interrupt) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(Event::Key(byte)) => match self.keys.feed(byte) {
                    Some(Ok(Command::Quit)) => return Ok(()),
                    Some(Ok(command)) => {
                        self.obey(command);
                        self.draw_live();
                    }
                    Some(Err(why)) => self.screen.say(&why),
                    None => self.draw_live(),
                },
                Ok(Event::Answer { index, asked, answer }) => {
                    self.nodes[index].heard(asked, answer);
                    self.notice_changes();
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn draw(&mut self) {
        for node in &mut self.nodes {
            if let Some(how) = node.check_end() {
                self.screen.say(&how);
            }
        }
        let mut lines = show::table(&self.nodes);
        lines.extend(self.load.as_mut().map(Load::line));
        self.screen.show(&lines, &self.footer());
    }

    /// Below the table of a terminal: what a half-typed command waits for, or what there is.
    fn footer(&self) -> Vec<String> {
        self.keys.prompt().map_or_else(|| keys::HELP.map(str::to_owned).to_vec(), |prompt| vec![prompt])
    }

    /// A key has an effect that a terminal shows at once.
    fn draw_live(&mut self) {
        if self.screen.is_live() {
            self.draw();
        }
    }

    // --- Commands ---

    fn obey(&mut self, command: Command) {
        match command {
            Command::Kill(id) => self.with_node(id, Node::kill),
            Command::Toggle(id) => self.with_node(id, Node::toggle),
            Command::Restart(id) => self.with_node(id, Node::restart),
            Command::KillAll => self.with_all(|node| node.is_running(), Node::kill),
            Command::RestartAll => {
                self.with_all(|node| node.state() == NodeState::Paused, Node::toggle);
                self.with_all(|node| !node.is_running(), Node::restart);
            }
            Command::KillLeader => match self.leader() {
                Some(index) => self.with_node(self.nodes[index].id(), Node::kill),
                None => self.screen.say("there is no leader now"),
            },
            Command::Help => self.screen.say(&keys::help()),
            Command::Quit => {}
        }
    }

    fn with_node(&mut self, id: usize, act: impl FnOnce(&mut Node) -> anyhow::Result<String>) {
        let count = self.nodes.len();
        let done = match id.checked_sub(1).and_then(|index| self.nodes.get_mut(index)) {
            Some(node) => act(node).unwrap_or_else(|error| format!("{error:#}")),
            None => format!("there is no node {id}: they are 1 to {count}"),
        };
        self.screen.say(&done);
        self.notice_changes();
    }

    fn with_all(&mut self, which: impl Fn(&Node) -> bool, act: fn(&mut Node) -> anyhow::Result<String>) {
        let ids: Vec<usize> = self.nodes.iter().filter(|node| which(node)).map(Node::id).collect();
        ids.into_iter().for_each(|id| self.with_node(id, act));
    }

    fn start_all(&mut self) {
        self.with_all(|_| true, Node::restart);
    }

    /// All at once, so that none takes over from another; then each is waited for.
    fn stop_all(&mut self) {
        self.nodes.iter_mut().for_each(Node::ask_to_stop);
        let deadline = Instant::now() + STOP_LIMIT;
        self.nodes.iter_mut().for_each(|node| node.wait_for_end(deadline));
    }

    // --- What is seen ---

    fn leader(&self) -> Option<usize> {
        show::leader(&self.nodes)
    }

    /// Says who leads, and when all are in step.
    fn notice_changes(&mut self) {
        let leads = self.leader().and_then(|index| Some((index, self.nodes[index].report()?.epoch)));
        if let Some((index, epoch)) = leads.filter(|leads| self.led != Some(*leads)) {
            self.led = Some((index, epoch));
            self.screen.say(&format!("node {} leads epoch {epoch}", self.nodes[index].id()));
        }
        let settled = show::all_in_step(&self.nodes, self.load.is_some());
        if settled && !self.settled {
            self.screen.say(&format!("all {} nodes are in step", self.nodes.len()));
        }
        self.settled = settled;
    }
}
