//! Several servers of one ensemble as processes: started, killed, paused, cut down and waited for.
//!
//! 1. Waiting is polling with a deadline: of `mntr`, of a log line, of a process. A deadline that passes fails the test, with every node's log.
//! 2. Paused processes are killed like others when the ensemble is dropped: nothing is left running.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::client::{Conn, ConnectRequest, Connected, Session};
use crate::common::server::{free_port, try_word_within};
use crate::hang::Hang;
use crate::netns::{Family, Network};
use crate::wires::Wires;

/// How long anything may take that has no stricter limit of its own.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Between two looks.
const POLL_PAUSE: Duration = Duration::from_millis(5);

/// How long a word may take: a paused process answers nothing.
const WORD_LIMIT: Duration = Duration::from_millis(500);

/// How long a request may take: longer than any failover here.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// How much of each node's log a failing test shows.
const LOG_TAIL_BYTES: usize = 12_288;

/// Polls until there is something.
pub(crate) fn wait_until<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(POLL_PAUSE);
    }
}

/// One server: its place, its ports, and its process while there is one.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: usize,
    place: PathBuf,
    /// Where clients find it.
    host: IpAddr,
    client_port: u16,
    quorum_port: u16,
    election_port: u16,
    observer: bool,
    child: Option<Child>,
    /// By SIGSTOP.
    pub(crate) paused: bool,
}

/// See the module's documentation. Nodes are numbered from 1, as in the `server.N` lines.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    config: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
    wires: Option<Wires>,
    /// Where the nodes run; otherwise it is this process's own.
    network: Option<Network>,
    nodes: Vec<Node>,
    /// What each node's process finds in its environment.
    environments: Vec<Vec<(&'static str, PathBuf)>>,
}

impl Cluster {
    /// `voters` and then `observers`, not started yet.
    pub(crate) fn new(voters: usize, observers: usize) -> Cluster {
        let directory = tempfile::Builder::new().prefix("zabra-ensemble").tempdir().expect("a directory");
        let node = |id| Node {
            id,
            place: directory.path().join(id.to_string()),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            client_port: free_port(),
            quorum_port: free_port(),
            election_port: free_port(),
            observer: id > voters,
            child: None,
            paused: false,
        };
        let nodes: Vec<Node> = (1..=voters + observers).map(node).collect();
        let environments = vec![Vec::new(); nodes.len()];
        let (config, properties) = Default::default();
        let cluster =
            Cluster { directory, config, properties, wires: None, network: None, nodes, environments };
        cluster
            .config("tickTime", "200")
            .config("initLimit", "50")
            .config("syncLimit", "25")
            .config("maxClientCnxns", "0")
            .config("4lw.commands.whitelist", "*")
            .property("zabra.log.segmentBytes", "4194304")
    }

    /// A system property of every node, for the starts to come.
    pub(crate) fn property(mut self, key: &str, value: &str) -> Cluster {
        self.properties.insert(key.into(), value.into());
        self
    }

    /// A line of every `zoo.cfg`, for the starts to come.
    pub(crate) fn config(mut self, key: &str, value: &str) -> Cluster {
        self.config.insert(key.into(), value.into());
        self
    }

    /// The nodes' disks can be made to hang.
    pub(crate) fn with_hang(mut self, hang: &Hang) -> Cluster {
        self.environments = self.all().map(|id| hang.environment(id).into()).collect();
        self
    }

    /// Puts relays between the nodes, which can be cut.
    pub(crate) fn with_wires(mut self) -> Cluster {
        let real: Vec<_> = self.nodes.iter().map(|node| (node.quorum_port, node.election_port)).collect();
        self.wires = Some(Wires::new(&real));
        self
    }

    pub(crate) fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("made with wires")
    }

    /// Puts each node into a namespace of its own, on ZooKeeper's ports. Skips (or fails) where namespaces cannot be had.
    pub(crate) fn in_network(mut self, family: Family) -> Option<Cluster> {
        let network = Network::new(self.nodes.len(), family)?;
        for node in &mut self.nodes {
            (node.client_port, node.quorum_port, node.election_port) = (2181, 2888, 3888);
            node.host = network.address(node.id);
        }
        self.network = Some(network);
        Some(self)
    }

    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().expect("made with a network")
    }

    /// Another address for a node that does not run.
    pub(crate) fn move_node(&mut self, id: usize) {
        assert!(!self.node(id).runs(), "stop or kill it first");
        let network = self.network.as_mut().expect("made with a network");
        network.move_node(id);
        self.nodes[id - 1].host = network.address(id);
    }

    /// Starts all, and waits until all serve.
    pub(crate) fn started(mut self) -> Cluster {
        self.all().for_each(|id| self.start(id));
        self.wait_all_serve();
        self
    }

    pub(crate) fn all(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.nodes.len()
    }

    pub(crate) fn node(&self, id: usize) -> &Node {
        &self.nodes[id - 1]
    }

    /// All but `not`.
    pub(crate) fn others(&self, not: usize) -> Vec<usize> {
        self.all().filter(|id| *id != not).collect()
    }

    /// `host:port,…` of all, as clients want it.
    pub(crate) fn hosts(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        hosts.join(",")
    }

    // --- Processes ---

    pub(crate) fn start(&mut self, id: usize) {
        let text = self.zoo_cfg(id);
        let mut command = self.program(id);
        let node = &mut self.nodes[id - 1];
        assert!(node.child.is_none(), "stop or kill it first");
        fs::create_dir_all(node.data_dir()).expect("a data directory");
        fs::write(node.data_dir().join("myid"), id.to_string()).expect("myid");
        let path = node.config_path();
        fs::write(&path, text).expect("a configuration file");
        let log = File::options().create(true).append(true).open(node.log_path()).expect("a log file");
        let properties = self.properties.iter().map(|(key, value)| format!("-D{key}={value}"));
        command.arg("serve").args(properties).arg(path).current_dir(&node.place);
        command.envs(self.environments[id - 1].iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        node.child = Some(command.spawn().expect("it can be started"));
    }

    /// The binary, in its namespace if it has one: `ip` becomes what it starts.
    fn program(&self, id: usize) -> Command {
        let binary = env!("CARGO_BIN_EXE_zabra");
        let Some(network) = &self.network else { return Command::new(binary) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &network.name(id), binary]);
        command
    }

    fn zoo_cfg(&self, id: usize) -> String {
        let node = self.node(id);
        let mut text = format!("dataDir={}\nclientPort={}\n", node.data_dir().display(), node.client_port);
        if self.network.is_none() {
            text += "clientPortAddress=127.0.0.1\n";
        }
        for (key, value) in &self.config {
            text += &format!("{key}={value}\n");
        }
        for node in &self.nodes {
            let role = if node.observer { ":observer" } else { "" };
            let real = (node.quorum_port, node.election_port);
            let (quorum, election) = self.wires.as_ref().map_or(real, |wires| wires.ports(id, node.id));
            let host = self.network.as_ref().map_or("127.0.0.1".into(), |network| network.host(node.id));
            text += &format!("server.{}={host}:{quorum}:{election}{role}\n", node.id);
        }
        text
    }

    /// SIGKILL: no chance to flush or say goodbye.
    pub(crate) fn kill(&mut self, id: usize) {
        self.nodes[id - 1].kill();
    }

    /// SIGKILL for all of `ids`, before any is waited for.
    pub(crate) fn kill_at_once(&mut self, ids: &[usize]) {
        ids.iter().for_each(|id| self.nodes[id - 1].signal(Signal::KILL));
        ids.iter().for_each(|id| self.kill(*id));
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(&mut self, id: usize) -> Option<i32> {
        let node = &mut self.nodes[id - 1];
        node.signal(Signal::TERM);
        let mut child = node.child.take().expect("it runs");
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            std::thread::sleep(POLL_PAUSE);
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("node {id} does not end within {LIMIT:?} of SIGTERM");
    }

    /// SIGSTOP: silent, with all its connections open.
    pub(crate) fn pause(&mut self, id: usize) {
        let node = &mut self.nodes[id - 1];
        node.signal(Signal::STOP);
        node.paused = true;
        // The signal is sent, and not obeyed yet: a thread may still be about to answer.
        wait_until("it is stopped", LIMIT, || node.is_stopped().then_some(()));
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, id: usize) {
        self.nodes[id - 1].signal(Signal::CONT);
        self.nodes[id - 1].paused = false;
    }

    /// Loses everything but `myid`.
    pub(crate) fn wipe(&mut self, id: usize) {
        let node = self.node(id);
        assert!(node.child.is_none(), "stop or kill it first");
        fs::remove_dir_all(node.data_dir()).expect("its data can be removed");
    }

    // --- Waiting ---

    /// Who leads and serves, in its own opinion.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.all().find(|id| self.node(*id).mode().as_deref() == Some("leader"))
    }

    pub(crate) fn wait_leader(&self, limit: Duration) -> usize {
        wait_until("a leader", limit, || self.leader())
    }

    /// Waits until another one than `not` leads.
    pub(crate) fn wait_leader_but(&self, not: usize, limit: Duration) -> usize {
        let others = self.others(not);
        wait_until("another leader", limit, || {
            others.iter().copied().find(|id| self.node(*id).mode().as_deref() == Some("leader"))
        })
    }

    /// Some node that follows and has a vote.
    pub(crate) fn follower(&self) -> usize {
        wait_until("a follower", LIMIT, || {
            self.all().find(|id| self.node(*id).mode().as_deref() == Some("follower"))
        })
    }

    pub(crate) fn wait_serving(&self, ids: &[usize]) {
        for id in ids {
            wait_until(&format!("node {id} serves"), LIMIT, || self.node(*id).mode());
        }
    }

    pub(crate) fn wait_all_serve(&self) {
        let running: Vec<usize> = self.all().filter(|id| self.node(*id).child.is_some()).collect();
        self.wait_serving(&running);
    }

    /// How many lines any node has logged that have all of `parts`.
    pub(crate) fn logged(&self, parts: &[&str]) -> usize {
        self.nodes.iter().map(|node| node.logged(parts)).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().filter(|node| node.child.is_some()).for_each(Node::kill);
        if std::thread::panicking() {
            for node in &self.nodes {
                let text = node.log();
                let from = text.len().saturating_sub(LOG_TAIL_BYTES);
                let from = text[from..].find('\n').map_or(from, |at| from + at);
                eprintln!("--- node {} ({}) ---{}", node.id, node.client_port, &text[from..]);
            }
            if std::env::var("ZABRA_KEEP_DATA").is_ok_and(|v| v == "1") {
                self.directory.disable_cleanup(true);
                eprintln!("kept: {}", self.directory.path().display());
            }
        }
    }
}

impl Node {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host, self.client_port))
    }

    pub(crate) fn quorum_address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.quorum_port)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.place.join("data")
    }

    /// Written with each start.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.place.join("zoo.cfg")
    }

    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    fn log_path(&self) -> PathBuf {
        self.place.join("log")
    }

    /// All that it wrote, over all its starts.
    pub(crate) fn log(&self) -> String {
        read_text(&self.log_path())
    }

    /// How many of its log lines have all of `parts`.
    pub(crate) fn logged(&self, parts: &[&str]) -> usize {
        self.log().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("a child can be signalled");
    }

    /// Most memory that the process has had, MiB.
    pub(crate) fn memory_peak_mib(&self) -> u64 {
        let process = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1_024
    }

    /// All its threads are.
    fn is_stopped(&self) -> bool {
        let process = self.child.as_ref().expect("it runs").id();
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
        tasks.filter_map(Result::ok).all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_none_or(|(_, state)| state.trim_start().starts_with('T'))
        })
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let _ = child.kill();
        child.wait().expect("a killed child can be waited for");
        self.paused = false;
    }

    pub(crate) fn word(&self, word: &str) -> Option<String> {
        try_word_within(self.address(), word.as_bytes(), WORD_LIMIT).ok()
    }

    /// `leader`, `follower` or `observer`; `None` while it does not serve.
    pub(crate) fn mode(&self) -> Option<String> {
        let text = self.word("srvr")?;
        text.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// A value of `mntr`.
    pub(crate) fn figure(&self, key: &str) -> Option<u64> {
        let text = self.word("mntr")?;
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("zk_{key}\t")))?;
        value.parse().ok()
    }

    // --- Clients ---

    /// A new session, or why there is none.
    pub(crate) fn try_connect(&self, request: &ConnectRequest) -> Result<(Conn, Connected), String> {
        let conn = Conn::open(self.address()).map_err(|e| e.to_string())?;
        let mut conn = conn.with_reply_limit(REPLY_LIMIT);
        let connected = conn.handshake(request)?.ok_or("closed instead of a connect response")?;
        Ok((conn, connected))
    }

    /// Tries until there is a session.
    pub(crate) fn connect_with(&self, request: &ConnectRequest) -> (Conn, Connected) {
        wait_until(&format!("a connection with node {}", self.id), LIMIT, || self.try_connect(request).ok())
    }

    /// A new session of ten seconds.
    pub(crate) fn connect(&self) -> Conn {
        self.connect_with(&ConnectRequest::new(10_000)).0
    }

    /// Comes back to a session.
    pub(crate) fn resume(&self, session: &Session, timeout_ms: i32) -> (Conn, Connected) {
        self.connect_with(&ConnectRequest { session: session.clone(), ..ConnectRequest::new(timeout_ms) })
    }
}

fn read_text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
