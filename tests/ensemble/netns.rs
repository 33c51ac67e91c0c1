//! Networks of Linux namespaces: each node has an address, an interface and a cable of its own, and so have the clients together.
//!
//! Relays ([`crate::wires`]) go on taking connections while a direction is cut, and answer for the kernel of who cannot be reached. Here
//! packets vanish: nothing is acknowledged, nobody is told, a connection cannot even be made, and TCP takes its own time after healing.
//!
//! 1. The host's own network is not touched: cables and bridge are made in namespaces and go with them.
//! 2. The names of all namespaces begin with `zabra-<process>-`. They are removed when the network is dropped, also by a panic; those of
//!    processes that are no more are removed, with what still runs in them, before the first network of a process is made.
//! 3. Who speaks to whom is decided by the sender's table of neighbours, which is fixed: a direction is cut by an entry that leads nowhere.
//!    That needs no kernel module, works one way and for each pair, and no side notices.
//! 4. The thread that makes a network is with the clients, in their namespace, for as long as the network lives; so are threads it starts.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common::tools::available;

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// What is here in a directory of a namespace's name stands in place of `/etc`'s files of the same name, for programs that `ip` starts in it.
const FILES: &str = "/etc/netns";

/// The place of the clients, as the nodes have theirs from 1 on.
const CLIENTS: usize = 100;

/// Nobody has this hardware address.
const NOWHERE: &str = "02:7a:00:00:00:ff";

/// How the nodes' addresses are written in their configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    /// By name, found in a hosts file; the addresses are of the fourth version.
    Names,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Network {
    /// What the names of its namespaces begin with.
    prefix: String,
    family: Family,
    /// By node, from 1 on, and of the clients at last: place and address.
    members: Vec<(usize, IpAddr)>,
    /// Where the thread was before, once it has left.
    home: Option<File>,
}

impl Network {
    /// Of so many nodes. Skips (or fails) where namespaces cannot be had.
    pub(crate) fn new(nodes: usize, family: Family) -> Option<Network> {
        static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
        available(POSSIBLE.get_or_init(probe))?;
        Some(Network::build(nodes, family).expect("a network can be made: it could be before"))
    }

    fn build(nodes: usize, family: Family) -> Result<Network, String> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        assert!(nodes < CLIENTS);
        let prefix = format!("zabra-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let home = File::open("/proc/thread-self/ns/net").map_err(|e| format!("/proc: {e}"))?;
        let members = (1..=nodes).chain([CLIENTS]).map(|place| (place, address(family, place))).collect();
        // From here on its drop removes what there is of it.
        let mut network = Network { prefix, family, members, home: None };
        network.lay()?;
        network.write_hosts();
        enter(&network.path("clients"))?;
        network.home = Some(home);
        Ok(network)
    }

    /// Makes the namespaces, the bridge and the cables.
    fn lay(&self) -> Result<(), String> {
        let hub = self.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "hub", "type", "bridge", "stp_state", "0", "mcast_snooping", "0"])?;
        ip(&["-n", &hub, "link", "set", "hub", "up"])?;
        for (place, address) in &self.members {
            let (name, hardware) = (self.name(*place), hardware(*place));
            ip(&["netns", "add", &name])?;
            let cable = format!(
                "link add p{place} type veth peer name eth0 address {hardware} netns {name}\n\
                 link set p{place} master hub up\n"
            );
            batch(&hub, &cable)?;
            let mut text = format!("link set lo up\naddress add {} dev eth0\n", with_prefix(*address));
            text += "link set eth0 up\n";
            for (other, address) in self.members.iter().filter(|(other, _)| other != place) {
                text += &neighbour(*address, &self::hardware(*other));
            }
            batch(&name, &text)?;
        }
        Ok(())
    }

    // --- Members ---

    /// The namespace of node `id`, for `ip netns exec`.
    pub(crate) fn name(&self, id: usize) -> String {
        if id == CLIENTS { format!("{}-clients", self.prefix) } else { format!("{}-{id}", self.prefix) }
    }

    pub(crate) fn address(&self, id: usize) -> IpAddr {
        self.members[id - 1].1
    }

    /// As the configuration has it.
    pub(crate) fn host(&self, id: usize) -> String {
        match (self.family, self.address(id)) {
            (Family::Names, _) => format!("node-{id}"),
            (_, IpAddr::V6(address)) => format!("[{address}]"),
            (_, IpAddr::V4(address)) => address.to_string(),
        }
    }

    /// Runs `what` where node `id` is.
    pub(crate) fn inside<T: Send>(&self, id: usize, what: impl FnOnce() -> T + Send) -> T {
        let path = self.path(&id.to_string());
        let run = || {
            enter(&path).expect("it is there");
            what()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("no failure"))
    }

    /// Gives node `id`, which must not run, another address under the same name.
    pub(crate) fn move_node(&mut self, id: usize) {
        assert_eq!(self.family, Family::Names, "otherwise the configuration says where it is");
        let old = self.address(id);
        let IpAddr::V4(address) = old else { unreachable!("names are of addresses of the fourth version") };
        let [a, b, c, d] = address.octets();
        let new = IpAddr::V4(Ipv4Addr::new(a, b, c + 1, d));
        self.members[id - 1].1 = new;
        let text =
            format!("address del {} dev eth0\naddress add {} dev eth0\n", with_prefix(old), with_prefix(new));
        self.ask(&self.name(id), &text);
        for (place, _) in self.members.iter().filter(|(place, _)| *place != id) {
            self.ask(&self.name(*place), &neighbour(new, &hardware(id)));
        }
        self.write_hosts();
    }

    /// In place: who runs has this very file in place of its own.
    fn write_hosts(&self) {
        if self.family != Family::Names {
            return;
        }
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (place, address) in self.members.iter().filter(|(place, _)| *place != CLIENTS) {
            let _ = writeln!(text, "{address} node-{place}");
        }
        for (place, _) in &self.members {
            let directory = Path::new(FILES).join(self.name(*place));
            fs::create_dir_all(&directory).expect("a directory for a hosts file");
            fs::write(directory.join("hosts"), &text).expect("a hosts file");
        }
    }

    // --- Cutting ---

    /// Nothing that `from` sends reaches `to`.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        self.ask(&self.name(from), &neighbour(self.address(to), NOWHERE));
    }

    pub(crate) fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts `node` off from all other nodes. Clients still reach it.
    pub(crate) fn isolate(&self, node: usize) {
        self.nodes().filter(|other| *other != node).for_each(|other| self.cut(node, other));
    }

    /// Who is on different sides does not reach the other.
    pub(crate) fn split(&self, one: &[usize], other: &[usize]) {
        one.iter().for_each(|a| other.iter().for_each(|b| self.cut(*a, *b)));
    }

    /// Each node reaches those that `reaches` says, and no others.
    pub(crate) fn keep_only(&self, reaches: impl Fn(usize, usize) -> bool) {
        let pairs = self.nodes().flat_map(|a| self.nodes().filter(move |b| *b != a).map(move |b| (a, b)));
        pairs.filter(|(a, b)| !reaches(*a, *b)).for_each(|(a, b)| self.cut_one_way(a, b));
    }

    /// Everything among the nodes comes through again. Cables stay as they are.
    pub(crate) fn heal(&self) {
        for from in self.nodes() {
            let others = self.nodes().filter(|to| *to != from);
            let text: String = others.map(|to| neighbour(self.address(to), &hardware(to))).collect();
            self.ask(&self.name(from), &text);
        }
    }

    /// Pulls the cable of `node` at the other end: nodes and clients lose it, and it has an interface without a signal.
    pub(crate) fn unplug(&self, node: usize) {
        self.ask(&self.hub(), &format!("link set p{node} down\n"));
    }

    pub(crate) fn plug(&self, node: usize) {
        self.ask(&self.hub(), &format!("link set p{node} up\n"));
    }

    /// Lets no more than `kbit` per second through to `node`. Skips (or fails) where the kernel cannot do that.
    pub(crate) fn throttle(&self, node: usize, kbit: u32) -> Option<()> {
        let (hub, port, rate) = (self.hub(), format!("p{node}"), format!("{kbit}kbit"));
        let shape = ["tbf", "rate", &rate, "burst", "16kb", "limit", "256kb"];
        let words = [&["-n", &hub, "qdisc", "replace", "dev", &port, "root"], &shape[..]].concat();
        available(&run("tc", &words, "").map_err(|e| format!("a kernel with sch_tbf ({e})")))
    }

    pub(crate) fn unthrottle(&self, node: usize) {
        let (hub, port) = (self.hub(), format!("p{node}"));
        run("tc", &["-n", &hub, "qdisc", "del", "dev", &port, "root"], "").expect("it was throttled");
    }

    // --- Private ---

    fn nodes(&self) -> std::ops::Range<usize> {
        1..self.members.len()
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn path(&self, member: &str) -> PathBuf {
        Path::new(NAMES).join(format!("{}-{member}", self.prefix))
    }

    fn ask(&self, namespace: &str, lines: &str) {
        batch(namespace, lines).unwrap_or_else(|e| panic!("{namespace}: {e}\n{lines}"));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let home = |home: &File| move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network));
        let back = self.home.as_ref().map_or(Ok(()), home);
        let names = self.members.iter().map(|(place, _)| self.name(*place)).chain([self.hub()]);
        names.for_each(|name| remove(&name));
        // Only where there is nothing else.
        let _ = fs::remove_dir(FILES);
        assert!(back.is_ok() || std::thread::panicking(), "{back:?}");
    }
}

/// Of the member at `place`: `10.77.0.<place>` or `fd00:77::<place>`.
fn address(family: Family, place: usize) -> IpAddr {
    let low = u8::try_from(place).expect("few members");
    match family {
        Family::V4 | Family::Names => IpAddr::V4(Ipv4Addr::new(10, 77, 0, low)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, low.into())),
    }
}

/// With what it takes to be used at once, and by all members.
fn with_prefix(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/16"),
        IpAddr::V6(address) => format!("{address}/64 nodad"),
    }
}

fn hardware(place: usize) -> String {
    format!("02:7a:00:00:00:{place:02x}")
}

/// What is sent to `address` goes to `hardware`: a line for [`batch`].
fn neighbour(address: IpAddr, hardware: &str) -> String {
    format!("neighbour replace {address} lladdr {hardware} dev eth0 nud permanent\n")
}

/// Moves the calling thread.
fn enter(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| format!("setns: {e}"))
}

fn ip(words: &[&str]) -> Result<(), String> {
    run("ip", words, "")
}

/// Commands of `ip`, one per line, in `namespace`.
fn batch(namespace: &str, lines: &str) -> Result<(), String> {
    run("ip", &["-n", namespace, "-batch", "-"], lines)
}

fn run(program: &str, words: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
    // It may end before it has read all, and says why below.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", words.join(" "), said.trim().replace('\n', "; ")))
}

/// Whether all that stories need can be had here.
fn probe() -> Result<(), String> {
    remove_stale();
    let why = |e| format!("iproute2, root and network namespaces ({e})");
    // Not in this thread, which a failure would leave where it is.
    let probe = std::thread::spawn(|| {
        let network = Network::build(2, Family::V4)?;
        ip(&["netns", "exec", &network.name(1), "true"])
    });
    probe.join().expect("no failure").map_err(why)
}

/// Removes what processes have left behind that were killed.
fn remove_stale() {
    for directory in [NAMES, FILES] {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            let process = name.strip_prefix("zabra-").and_then(|rest| rest.split('-').next()?.parse().ok());
            let process = process.and_then(Pid::from_raw);
            if process.is_some_and(|process| test_kill_process(process).is_err()) {
                kill_inside(&name);
                remove(&name);
            }
        }
    }
}

/// Kills what runs in a namespace: servers whose test is no more.
fn kill_inside(name: &str) {
    let found = Command::new("ip").args(["netns", "pids", name]).stdin(Stdio::null()).output();
    let text = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for process in text.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
        let _ = kill_process(process, Signal::KILL);
    }
}

/// What is not there need not be removed.
fn remove(name: &str) {
    if Path::new(NAMES).join(name).exists() {
        let _ = ip(&["netns", "del", name]);
    }
    let _ = fs::remove_dir_all(Path::new(FILES).join(name));
}
