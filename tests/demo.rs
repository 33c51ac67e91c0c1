//! `zabra demo`, driven through its standard input as a script would: real processes elect, die, pause and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A demo that runs, with all that it has said.
struct Demo {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Vec<String>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    node: usize,
    process: Option<u32>,
    state: String,
    epoch: String,
    zxid: String,
    lag: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zabra"));
        command.arg("demo").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (send, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Demo { input: child.stdin.take(), child, lines, said: Vec::new() }
    }

    fn directory(dir: &Path) -> Demo {
        Demo::start(&["--dir", dir.to_str().expect("a plain name")])
    }

    fn command(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{line}").expect("the demo reads");
    }

    /// What `found` makes of the first line, from now on, of which it makes something.
    fn wait<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let it = found(&line);
                    self.said.push(line);
                    if let Some(it) = it {
                        return it;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time:\n{}", self.said.join("\n")),
                Err(RecvTimeoutError::Disconnected) => panic!("no {what}:\n{}", self.said.join("\n")),
            }
        }
    }

    fn wait_for(&mut self, line: &str) {
        self.wait(line, |said| (said == line).then_some(()));
    }

    /// Who leads from now on, and in which epoch.
    fn wait_for_leader(&mut self) -> (usize, u32) {
        self.wait("leader", |line| {
            let (node, epoch) = line.strip_prefix("node ")?.split_once(" leads epoch ")?;
            Some((node.parse().ok()?, epoch.parse().ok()?))
        })
    }

    /// The next whole table.
    fn table(&mut self, nodes: usize) -> Vec<Row> {
        self.wait("table", |line| line.starts_with("node  ").then_some(()));
        (0..nodes).map(|_| self.wait("row", row)).collect()
    }

    /// The first table from now on that is as it should be.
    fn table_where(&mut self, nodes: usize, good: impl Fn(&[Row]) -> bool) -> Vec<Row> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let rows = self.table(nodes);
            if good(&rows) {
                return rows;
            }
            assert!(Instant::now() < deadline, "no such table:\n{}", self.said.join("\n"));
        }
    }

    fn end(&mut self) -> ExitStatus {
        drop(self.input.take());
        let status = self.child.wait().expect("a child can be waited for");
        self.said.extend(self.lines.iter());
        status
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn row(line: &str) -> Option<Row> {
    let mut cells = line.split_whitespace();
    let mut next = || Some(cells.next()?.to_owned());
    let (node, process) = (next()?.parse().ok()?, next()?.parse().ok());
    Some(Row { node, process, state: next()?, epoch: next()?, zxid: next()?, lag: next()? })
}

fn processes(rows: &[Row]) -> BTreeSet<u32> {
    rows.iter().filter_map(|row| row.process).collect()
}

fn state_of(rows: &[Row], node: usize) -> &str {
    &rows[node - 1].state
}

/// It runs, or is stopped; not one that has ended and was not waited for.
fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn assert_all_end(processes: &BTreeSet<u32>) {
    assert!(!processes.is_empty());
    let deadline = Instant::now() + LIMIT;
    while processes.iter().any(|process| is_alive(*process)) {
        assert!(Instant::now() < deadline, "some of {processes:?} go on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_leader_is_replaced_and_comes_back_in_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::directory(dir.path());
    let connect =
        demo.wait("connect string", |line| line.strip_prefix("connect string: ").map(str::to_owned));
    assert_eq!(connect.split(',').count(), 3);
    let (first, epoch) = demo.wait_for_leader();
    demo.wait_for("all 3 nodes are in step");
    let mut started = processes(&demo.table(3));
    assert_eq!(started.len(), 3);

    demo.command("l");
    demo.wait_for(&format!("node {first} killed"));
    let (second, later) = demo.wait_for_leader();
    assert!(second != first && later > epoch, "{second} in {later} after {first} in {epoch}");
    let rows = demo.table_where(3, |rows| state_of(rows, second) == "leader");
    assert_eq!((state_of(&rows, first), rows[first - 1].process), ("killed", None));

    demo.command(&format!("r {first}"));
    demo.wait_for("all 3 nodes are in step");
    let rows = demo.table_where(3, |rows| state_of(rows, first) == "follower");
    assert!(
        rows.iter().all(|row| row.zxid == rows[0].zxid && row.epoch == later.to_string() && row.lag == "0")
    );
    started.extend(processes(&rows));
    assert_eq!(started.len(), 4, "a new process took the killed one's place");

    demo.command("q");
    assert!(demo.end().success());
    assert_all_end(&started);
    assert!(fs::read_to_string(dir.path().join("1/log")).unwrap().contains("ready: clients on"));

    // The second start finds everything: ports, data, epochs. The end of the input ends it, too.
    let mut again = Demo::directory(dir.path());
    again.wait_for(&format!("connect string: {connect}"));
    let (_, epoch) = again.wait_for_leader();
    assert!(epoch > later, "{epoch} after {later}");
    again.wait_for("all 3 nodes are in step");
    let started = processes(&again.table(3));
    assert!(again.end().success());
    assert_all_end(&started);
}

#[test]
fn a_paused_node_is_shown_and_catches_up_and_all_can_be_killed_and_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::directory(dir.path());
    let (leader, _) = demo.wait_for_leader();
    demo.wait_for("all 3 nodes are in step");
    let follower = if leader == 1 { 2 } else { 1 };
    demo.command(&format!("s {follower}"));
    demo.table_where(3, |rows| state_of(rows, follower) == "paused" && state_of(rows, leader) == "leader");
    demo.command(&format!("s {follower}"));
    demo.wait_for("all 3 nodes are in step");
    demo.command("K");
    demo.table_where(3, |rows| rows.iter().all(|row| row.state == "killed"));
    demo.command("l");
    demo.wait_for("there is no leader now");
    demo.command("k 7");
    demo.wait_for("there is no node 7: they are 1 to 3");
    demo.command("a");
    demo.wait_for("all 3 nodes are in step");
    demo.command("q");
    assert!(demo.end().success());
}

#[test]
fn writes_go_on_after_a_failover_and_no_node_outlives_a_demo_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(&["--load", "--observers", "1", "--dir", dir.path().to_str().unwrap()]);
    let writes = |line: &str| line.strip_prefix("load: ")?.split(' ').nth(2)?.parse::<u64>().ok();
    let connect =
        demo.wait("connect string", |line| line.strip_prefix("connect string: ").map(str::to_owned));
    demo.wait_for("all 4 nodes are in step");
    let rows = demo.table_where(4, |rows| rows.iter().all(|row| row.epoch != "-"));
    assert_eq!(state_of(&rows, 4), "observer");
    let before = demo.wait("writes", |line| writes(line).filter(|count| *count > 0));
    let addresses: Vec<&str> = connect.split(',').collect();
    let leader = rows.iter().find(|row| row.state == "leader").expect("all are in step").node;
    assert_says_what_a_leader_says(addresses[leader - 1]);
    assert!(word(addresses[3], "conf").contains("\npeerType=1\nmembership: \nserver.1=127.0.0.1:"));
    demo.command("l");
    demo.wait_for_leader();
    demo.wait("more writes", |line| writes(line).filter(|count| *count > before + 10));

    // A node that is stopped cannot see that its parent is gone; it ends all the same.
    demo.command("s 4");
    let rows = demo.table_where(4, |rows| state_of(rows, 4) == "paused");
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    assert_all_end(&processes(&rows));
}

/// The answer to a four-letter word.
fn word(address: &str, word: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.write_all(word.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

/// Of three voters and an observer, with a client that writes.
fn assert_says_what_a_leader_says(address: &str) {
    let text = word(address, "mntr");
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('\t')).collect();
    for (key, value) in [
        ("zk_peer_state", "leading - broadcast"),
        ("zk_quorum_size", "3"),
        ("zk_learners", "3"),
        ("zk_synced_followers", "2"),
        ("zk_synced_observers", "1"),
    ] {
        assert_eq!(fields.get(key), Some(&value), "{key} in\n{text}");
    }
    let number = |key: &str| fields[key].parse::<u64>().unwrap_or(0);
    for key in [
        "zk_zabra_epoch_current",
        "zk_cnt_election_time",
        "zk_cnt_leader_unavailable_time",
        "zk_looking_count",
    ] {
        assert!(number(key) > 0, "{key} in\n{text}");
    }
    for key in ["zk_proposal_count", "zk_last_proposal_size", "zk_leader_uptime", "zk_zabra_p99_fsync_us"] {
        assert!(number(key) > 0, "{key} in\n{text}");
    }
    assert!(number("zk_zabra_zxid_appended") >= number("zk_zabra_zxid_committed"));
    assert!(word(address, "srvr").contains("\nMode: leader\n"));
}

#[test]
fn an_interrupt_ends_all_nodes_and_removes_what_was_temporary() {
    let mut demo = Demo::start(&["--nodes", "2"]);
    let files = demo.wait("directory", |line| {
        line.strip_prefix("files: ")?.strip_suffix(" (removed at the end)").map(str::to_owned)
    });
    let started = processes(&demo.table(2));
    assert!(Path::new(&files).join("2/zoo.cfg").exists());
    kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
    assert!(demo.child.wait().unwrap().success());
    assert_all_end(&started);
    assert!(!Path::new(&files).exists());
}

#[test]
fn a_node_that_cannot_start_says_where_to_look() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::directory(dir.path());
    demo.wait_for("all 3 nodes are in step");
    fs::write(dir.path().join("2/zoo.cfg"), "nonsense=1\ntickTime=never\n").unwrap();
    demo.command("r 2");
    let how = demo.wait("end", |line| line.strip_prefix("node 2 ended by itself ").map(str::to_owned));
    assert!(how.contains("exit status: 2") && how.contains("2/log says why"), "{how}");
    demo.command("q");
    assert!(demo.end().success());
}

fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zabra"));
    let Output { status, stderr, .. } = command.arg("demo").args(arguments).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn wrong_numbers_end_with_a_word() {
    let (code, said) = refused(&["--nodes", "1"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("`zabra serve` runs one server alone"), "{said}");
    let (code, said) = refused(&["--dir", "/proc/zabra"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot make /proc/zabra") && said.contains("--dir"), "{said}");
}
