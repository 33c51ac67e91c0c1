//! One node: a process that comes and goes, and what it last said.
//!
//! - N1: answers to questions asked before the process was started, paused or woken are not its answers.
//! - N2: a process is signalled only while it has not been waited for: its id is still its own.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::ask::{Answer, Report, Role};

/// Between two looks at a process that is to end.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is shown of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    Leader,
    Follower,
    Observer,
    /// It is there, and has no leader.
    Looking,
    /// It has not answered since it was started or woken.
    Starting,
    /// It does not answer any more.
    Silent,
    Paused,
    /// By command, or not started yet.
    Killed,
    /// By itself.
    Ended,
}

impl NodeState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            NodeState::Leader => "leader",
            NodeState::Follower => "follower",
            NodeState::Observer => "observer",
            NodeState::Looking => "looking",
            NodeState::Starting => "starting",
            NodeState::Silent => "silent",
            NodeState::Paused => "paused",
            NodeState::Killed => "killed",
            NodeState::Ended => "ended",
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Node {
    id: usize,
    program: PathBuf,
    directory: PathBuf,
    client_port: u16,
    child: Option<Child>,
    paused: bool,
    ended: bool,
    /// When the process was last started, paused or woken.
    changed: Instant,
    answer: Option<Answer>,
    last: Option<Report>,
}

impl Node {
    /// Not running yet.
    pub(super) fn new(id: usize, program: PathBuf, directory: PathBuf, client_port: u16) -> Node {
        Node {
            id,
            program,
            directory,
            client_port,
            child: None,
            paused: false,
            ended: false,
            changed: Instant::now(),
            answer: None,
            last: None,
        }
    }

    // --- Commands: each says what it did ---

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<String> {
        let id = self.id;
        let Some(mut child) = self.child.take() else { return Ok(format!("node {id} is down already")) };
        self.has_changed(false);
        child.kill().with_context(|| format!("node {id} cannot be killed"))?;
        child.wait().with_context(|| format!("node {id} was killed, and does not end"))?;
        Ok(format!("node {id} killed"))
    }

    /// SIGSTOP, or SIGCONT for one that is stopped.
    pub(super) fn toggle(&mut self) -> anyhow::Result<String> {
        let id = self.id;
        let Some(child) = &self.child else {
            return Ok(format!("node {id} is down: restart it first (r {id})"));
        };
        let (signal, done) = if self.paused { (Signal::CONT, "goes on") } else { (Signal::STOP, "stopped") };
        kill_process(Pid::from_child(child), signal)
            .with_context(|| format!("node {id} cannot be signalled"))?;
        self.has_changed(!self.paused);
        Ok(format!("node {id} {done}"))
    }

    /// Starts it; kills it first if it runs.
    pub(super) fn restart(&mut self) -> anyhow::Result<String> {
        if self.child.is_some() {
            self.kill()?;
        }
        self.child = Some(self.spawn()?);
        self.has_changed(false);
        Ok(format!("node {} started", self.id))
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let path = self.log_path();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(&self.program);
        command.args(["serve", "--die-with-parent"]).arg(self.directory.join("zoo.cfg"));
        // What follows the end of this process is the end of its pipe.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C is for this process, which then ends the others in its own way.
        command.process_group(0).current_dir(&self.directory);
        command.spawn().with_context(|| format!("cannot start {}", self.program.display()))
    }

    /// SIGTERM, heard even by one that is paused.
    pub(super) fn ask_to_stop(&mut self) {
        if let Some(child) = &self.child {
            for signal in [Signal::TERM, Signal::CONT] {
                // It may have ended by itself.
                let _ = kill_process(Pid::from_child(child), signal);
            }
        }
    }

    /// Waits for the end until `deadline`, then makes it.
    pub(super) fn wait_for_end(&mut self, deadline: Instant) {
        let Some(mut child) = self.child.take() else { return };
        while let Ok(None) = child.try_wait() {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn has_changed(&mut self, paused: bool) {
        self.changed = Instant::now();
        self.paused = paused;
        self.ended = false;
        self.answer = None;
    }

    // --- What is seen ---

    /// Says how it ended, if it has just done so by itself.
    pub(super) fn check_end(&mut self) -> Option<String> {
        let status: ExitStatus = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        self.has_changed(false);
        self.ended = true;
        let log = self.log_path();
        Some(format!("node {} ended by itself ({status}); {} says why", self.id, log.display()))
    }

    /// It answered, or did not.
    pub(super) fn heard(&mut self, asked: Instant, answer: Answer) {
        if asked < self.changed || !self.is_running() || self.paused {
            return;
        }
        // A process that is not there yet is starting, not silent.
        if answer == Answer::Silent && self.answer.is_none() {
            return;
        }
        if let Answer::Serving(report) = answer {
            self.last = Some(report);
        }
        self.answer = Some(answer);
    }

    pub(super) fn state(&self) -> NodeState {
        if self.child.is_none() {
            return if self.ended { NodeState::Ended } else { NodeState::Killed };
        }
        match self.answer {
            _ if self.paused => NodeState::Paused,
            None => NodeState::Starting,
            Some(Answer::Silent) => NodeState::Silent,
            Some(Answer::Looking) => NodeState::Looking,
            Some(Answer::Serving(report)) => match report.role {
                Role::Leader => NodeState::Leader,
                Role::Follower => NodeState::Follower,
                Role::Observer => NodeState::Observer,
            },
        }
    }

    /// What it says while it serves.
    pub(super) fn report(&self) -> Option<Report> {
        match self.answer {
            Some(Answer::Serving(report)) => Some(report),
            _ => None,
        }
    }

    /// What it said last, however long ago.
    pub(super) const fn last_report(&self) -> Option<Report> {
        self.last
    }

    pub(super) const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Counted from 1.
    pub(super) const fn id(&self) -> usize {
        self.id
    }

    pub(super) fn client_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.client_port).into()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }
}

/// On the ways out that a panic takes.
impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
