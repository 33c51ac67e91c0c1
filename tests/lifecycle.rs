//! From start to end and back: orderly stops under load, what a start refuses and what it repairs, and in which words.
//!
//! 1. SIGTERM loses nothing that was acknowledged, ends with code 0, and leaves files that the tools find good.
//! 2. Damage to what was once durable refuses the start and names the place; a torn tail is cut and counted.
//! 3. A start that is refused ends with 1, a wrong configuration with 2, and each says what is wrong.
//! 4. Who asks for cores that stay awake gets them while writes come, and no longer; or is told why not.

#[expect(dead_code, reason = "shared with other test programs, each of which uses a part")]
mod common;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::calls::{connect, err};
use common::client::{Conn, ConnectRequest, Received, Reply, create_body, op};
use common::jute::Acl;
use common::server::{Kind, Options, Server};
use zabra::base::rng::Rng;

const WAIT_LIMIT: Duration = Duration::from_secs(30);
const DEPTH: u64 = 16;

fn options() -> Options {
    Options::default().config("maxClientCnxns", "0").property("zabra.log.segmentBytes", "4194304")
}

fn wait_until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {WAIT_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `zabra WHAT verify PATH`: exit code, and what it printed.
fn verify(what: &str, path: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zabra"));
    let output = command.args([what, "verify"]).arg(path).stdin(Stdio::null()).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// What the last of `starts` starts said once it was ready. Each says so once, a moment after it serves.
fn ready_line(server: &Server, starts: usize) -> String {
    let head = format!("zabra {} ready: ", env!("CARGO_PKG_VERSION"));
    wait_until("the ready line", || {
        let log = server.whole_log();
        let lines: Vec<&str> = log.split_inclusive('\n').filter(|line| line.starts_with(&head)).collect();
        assert!(lines.len() <= starts, "one a start: {lines:#?}");
        let last = (lines.len() == starts).then(|| lines[starts - 1])?;
        last.strip_suffix('\n').map(str::to_owned)
    })
}

fn content(name: &str) -> Vec<u8> {
    format!("content of {name} ends here").into_bytes()
}

/// Creates `/{prefix}0`, `/{prefix}1`, … one after the other.
fn write_some(conn: &mut Conn, prefix: &str, count: u64) {
    for n in 0..count {
        let name = format!("{prefix}{n}");
        assert_eq!(conn.create(&format!("/{name}"), &content(&name), 0), Ok(err::OK));
    }
}

fn check_some(conn: &mut Conn, prefix: &str, count: u64) {
    for n in 0..count {
        let name = format!("{prefix}{n}");
        assert_eq!(conn.get(&format!("/{name}")), Ok(Some(content(&name))), "/{name}");
    }
}

/// Pipelines creates until the server is gone; how many were acknowledged.
fn write_until_gone(address: SocketAddr, prefix: &str, total: &AtomicU64) -> u64 {
    let (mut conn, _) = connect(address, 30_000);
    let (mut sent, mut acknowledged) = (0, 0);
    loop {
        while sent - acknowledged < DEPTH {
            let name = format!("{prefix}{sent}");
            let body = create_body(&format!("/{name}"), Some(&content(&name)), &Acl::open(), 0);
            if conn.send(sent as i32, op::CREATE, &body).is_err() {
                break;
            }
            sent += 1;
        }
        let Received::Frame(frame) = conn.receive(WAIT_LIMIT) else { return acknowledged };
        let reply = Reply::parse(&frame).expect("a reply");
        assert_eq!((reply.xid, reply.err), (acknowledged as i32, err::OK));
        acknowledged += 1;
        total.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn sigterm_under_load_keeps_every_acknowledged_write() {
    let options = options().property("snapCount", "300").property("zabra.snapshot.chunkBytes", "4096");
    let mut server = Server::start(&Kind::Zabra, &options);
    for round in 0..3 {
        let total = AtomicU64::new(0);
        let prefixes: Vec<String> = (0..4).map(|writer| format!("r{round}w{writer}n")).collect();
        let (code, counts) = std::thread::scope(|scope| {
            let (address, total) = (server.address(), &total);
            let writers: Vec<_> =
                prefixes.iter().map(|p| scope.spawn(move || write_until_gone(address, p, total))).collect();
            wait_until("load", || (total.load(Ordering::Relaxed) > 2_000).then_some(()));
            let code = server.terminate();
            (code, writers.into_iter().map(|w| w.join().expect("a writer")).collect::<Vec<u64>>())
        });
        assert_eq!(code, Some(0), "{}", server.log());
        let (code, said) = verify("log", &server.data_dir());
        assert_eq!(code, Some(0), "{said}");
        let snapshots = files(&server, "snapshot.");
        if !snapshots.is_empty() {
            let (code, said) = verify("snapshot", &server.data_dir());
            assert_eq!(code, Some(0), "{said}");
        }
        server.start_again();
        let (mut conn, _) = connect(server.address(), 30_000);
        for (prefix, count) in prefixes.iter().zip(counts) {
            check_some(&mut conn, prefix, count);
        }
    }
    let log = server.whole_log();
    assert!(
        !log.contains("panicked") && !log.contains("bytes cut"),
        "a clean stop leaves nothing to cut: {log}"
    );
}

/// Whole files of the data directory whose name starts with `prefix` and goes on in hexadecimal digits, by name.
fn files(server: &Server, prefix: &str) -> Vec<PathBuf> {
    let dir = server.data_dir().join("zabra");
    let mut found = Vec::new();
    for dir in [dir.clone(), dir.join("log")] {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digits = name.strip_prefix(prefix).unwrap_or_default();
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_ready_line_says_where_and_what() {
    let mut server = Server::start(&Kind::Zabra, &options());
    let line = ready_line(&server, 1);
    assert!(line.contains(&server.address().to_string()), "{line}");
    assert!(line.contains(&server.data_dir().display().to_string()), "{line}");
    let (mut conn, _) = connect(server.address(), 30_000);
    write_some(&mut conn, "n", 5);
    assert_eq!(server.terminate(), Some(0));
    server.start_again();
    let line = ready_line(&server, 2);
    assert!(
        line.contains(", zxid 0x6, ") && line.contains("(no snapshot + 6 transactions)"),
        "a session and five nodes: {line}"
    );
}

#[test]
fn a_second_process_on_one_data_directory_is_refused() {
    let server = Server::start(&Kind::Zabra, &options());
    let (code, said) = server.refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("clientPort"), "the port comes first: {said}");
    // On another port it gets as far as the directory.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let mut command = Command::new(env!("CARGO_BIN_EXE_zabra"));
    command.args(["serve", "-D", &format!("clientPort={port}")]).arg(server.config_path());
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    let (mut conn, _) = connect(server.address(), 30_000);
    assert_eq!(conn.create("/still", b"", 0), Ok(err::OK), "the first goes on");
}

#[test]
fn a_directory_of_zookeeper_is_refused() {
    let mut server = Server::start(&Kind::Zabra, &options());
    assert_eq!(server.terminate(), Some(0));
    fs::remove_dir_all(server.data_dir().join("zabra")).expect("the data can be removed");
    fs::create_dir_all(server.data_dir().join("version-2")).expect("a directory");
    fs::write(server.data_dir().join("version-2/snapshot.0"), b"ZKSN").expect("a file");
    let (code, said) = server.refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("version-2") && said.contains("dataDir"), "{said}");
    assert!(!server.data_dir().join("zabra/log").exists(), "nothing was begun");
}

#[test]
fn a_wrong_configuration_ends_with_2_and_names_file_line_and_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("zoo.cfg");
    fs::write(&file, format!("dataDir={}\n# fine\ntickTime=soon\nclientPort=99999\n", dir.path().display()))
        .expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_zabra")).arg("serve").arg(&file).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for place in [format!("{}:3: tickTime", file.display()), format!("{}:4: clientPort", file.display())] {
        assert!(said.contains(&place), "{place}: {said}");
    }
    let output =
        Command::new(env!("CARGO_BIN_EXE_zabra")).args(["serve", "/no/such.cfg"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

/// The segment that holds `wanted`, its bytes, and the place of the last occurrence.
fn find_in_log(server: &Server, wanted: &[u8]) -> (PathBuf, Vec<u8>, usize) {
    for path in files(server, "log.").into_iter().rev() {
        let bytes = fs::read(&path).expect("a segment");
        if let Some(at) = bytes.windows(wanted.len()).rposition(|window| window == wanted) {
            return (path, bytes, at);
        }
    }
    panic!("not in the log: {}", wanted.escape_ascii());
}

#[test]
fn damage_in_the_middle_of_the_log_refuses_the_start_and_names_the_place() {
    let mut server = Server::start(&Kind::Zabra, &options());
    let (mut conn, _) = connect(server.address(), 30_000);
    write_some(&mut conn, "n", 100);
    assert_eq!(server.terminate(), Some(0));
    let (path, good, at) = find_in_log(&server, &content("n50"));
    let mut bad = good.clone();
    bad[at] ^= 1;
    fs::write(&path, &bad).expect("written");
    let (code, said) = server.refused();
    assert_eq!(code, Some(1), "{said}");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(said.contains(&name), "names the file: {said}");
    let (code, verdict) = verify("log", &server.data_dir());
    assert_eq!(code, Some(1), "{verdict}");
    assert!(verdict.contains("DAMAGED") && verdict.contains(&name), "{verdict}");
    // Both name the same place: the record before the damaged byte, not far.
    let place = verdict.split("; at ").nth(1).and_then(|rest| rest.split(" in ").next()).expect("a place");
    assert!(said.contains(place), "{place}: {said}");
    let digits: String = place.chars().rev().take_while(char::is_ascii_hexdigit).collect();
    assert!(!digits.is_empty(), "an offset: {place}");
    assert_eq!(fs::read(&path).expect("a segment"), bad, "the bytes are kept");

    fs::write(&path, &good).expect("written");
    server.start_again();
    let (mut conn, _) = connect(server.address(), 30_000);
    check_some(&mut conn, "n", 100);
}

#[test]
fn a_torn_tail_is_cut_and_counted() {
    let mut server = Server::start(&Kind::Zabra, &options());
    let mut rng = Rng::new(11);
    for round in 0..4 {
        let prefix = format!("r{round}n");
        let (mut conn, _) = connect(server.address(), 30_000);
        write_some(&mut conn, &prefix, 20);
        server.kill();
        let (path, mut bytes, _) = find_in_log(&server, &content(&format!("{prefix}19")));
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("records") + 1;
        let torn = end.next_multiple_of(8);
        let lost = if round % 2 == 0 {
            // The beginning of a record that never came to its end.
            (torn..torn + 200).for_each(|at| bytes[at] = rng.next_u64() as u8 | 1);
            0
        } else {
            // The last record did not reach the disk in whole.
            bytes[end - 1] ^= 1;
            1
        };
        fs::write(&path, &bytes).expect("written");
        server.start_again();
        let line = ready_line(&server, round + 2);
        assert!(line.contains("unacknowledged bytes cut"), "round {round}: {line}");
        let (mut conn, _) = connect(server.address(), 30_000);
        check_some(&mut conn, &prefix, 20 - lost);
        write_some(&mut conn, &format!("{prefix}after"), 3);
    }
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(verify("log", &server.data_dir()).0, Some(0));
}

/// The lines of `srvr` that tell one state from another.
fn state(server: &Server) -> Vec<String> {
    let text = server.word(b"srvr");
    text.lines()
        .filter(|line| line.starts_with("Zxid") || line.starts_with("Node count"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let mut server = Server::start(&Kind::Zabra, &options().property("snapCount", "100"));
    let (mut conn, _) = connect(server.address(), 30_000);
    for snapshots in 1..=2 {
        let mut batch = 0;
        wait_until("a snapshot", || {
            batch += 1;
            write_some(&mut conn, &format!("s{snapshots}b{batch}n"), 60);
            (files(&server, "snapshot.").len() >= snapshots).then_some(())
        });
    }
    write_some(&mut conn, "tail", 10);
    assert_eq!(server.terminate(), Some(0));
    server.start_again();
    let before = state(&server);
    assert_eq!(before.len(), 2, "{before:?}");
    assert_eq!(server.terminate(), Some(0));
    let newest = files(&server, "snapshot.").pop().expect("a snapshot");
    let mut bytes = fs::read(&newest).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("written");
    let (code, said) = verify("snapshot", &newest);
    assert_eq!(code, Some(1), "{said}");
    server.start_again();
    assert_eq!(state(&server), before);
    let (mut conn, _) = connect(server.address(), 30_000);
    check_some(&mut conn, "s1b1n", 60);
    check_some(&mut conn, "s2b1n", 60);
    check_some(&mut conn, "tail", 10);
}

#[test]
fn old_snapshots_go_by_the_clock_too() {
    let keep_all = options().config("snapCount", "20").config("autopurge.purgeInterval", "0");
    let mut server = Server::start(&Kind::Zabra, &keep_all);
    for round in 1..=4 {
        let (mut conn, _) = connect(server.address(), 30_000);
        for n in 0..30 {
            // More log than a snapshot takes, for else there is none.
            assert_eq!(conn.create(&format!("/r{round}n{n}"), &[7; 1_000], 0), Ok(err::OK));
        }
        wait_until("a snapshot", || (files(&server, "snapshot.").len() >= round).then_some(()));
        assert_eq!(server.terminate(), Some(0));
        if round < 4 {
            server.start_again();
        }
    }
    server.configure("autopurge.purgeInterval", "1s");
    server.configure("snapCount", "1000000");
    server.start_again();
    wait_until("removal without a new snapshot", || (files(&server, "snapshot.").len() == 3).then_some(()));
    assert_eq!(server.terminate(), Some(0));
    let (code, said) = verify("snapshot", &server.data_dir());
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn sigterm_while_a_snapshot_is_taken() {
    let options = options()
        .property("snapCount", "1000")
        .property("zabra.snapshot.zstdLevel", "19")
        .property("zabra.snapshot.chunkBytes", "4096");
    let mut server = Server::start(&Kind::Zabra, &options);
    let (mut conn, _) = connect(server.address(), 30_000);
    let mut rng = Rng::new(5);
    let data: Vec<u8> = (0..4_000).map(|_| rng.next_u64() as u8).collect();
    for n in 0..999 {
        assert_eq!(conn.create(&format!("/n{n}"), &data, 0), Ok(err::OK));
    }
    let dir = server.data_dir().join("zabra");
    let unfinished = || {
        let names = fs::read_dir(&dir).expect("a directory").flatten().map(|e| e.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).find(|name| {
            name.starts_with("snapshot.") && !name["snapshot.".len()..].bytes().all(|b| b.is_ascii_hexdigit())
        })
    };
    let caught = wait_until("a snapshot", || {
        unfinished().map(|_| true).or_else(|| (!files(&server, "snapshot.").is_empty()).then_some(false))
    });
    let started = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "nobody waits for a snapshot: {:?}",
        started.elapsed()
    );
    assert!(caught, "the snapshot was over before it was seen: make it slower");
    server.start_again();
    let (mut conn, _) = Conn::connect(server.address(), &ConnectRequest::new(30_000)).expect("connected");
    for n in 0..999 {
        assert_eq!(conn.get(&format!("/n{n}")).map(|found| found.map(|d| d.len())), Ok(Some(4_000)));
    }
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn cores_stay_awake_while_writes_come() {
    let device = Path::new("/dev/cpu_dma_latency");
    // Of all that have it open, the least number of µs that a core may take to wake.
    let latency_max = || {
        let bytes = fs::read(device).expect("who may write to it may read it");
        i32::from_ne_bytes(bytes[..4].try_into().expect("four bytes"))
    };
    let may_ask = fs::File::options().write(true).open(device).is_ok();
    // To open a session is a write already.
    let before = if may_ask { latency_max() } else { 0 };
    assert!(!may_ask || before != 0, "something else keeps {} at 0: stop it for this test", device.display());
    let server = Server::start(&Kind::Zabra, &options().config("zabra.keepCoresAwake", "true"));
    wait_until("what it says", || server.whole_log().contains("zabra.keepCoresAwake").then_some(()));
    let (mut conn, _) = connect(server.address(), 30_000);
    if !may_ask {
        assert!(server.whole_log().contains("zabra.keepCoresAwake has no effect"), "{}", server.log());
        return write_some(&mut conn, "w", 3);
    }
    let mut written = 0;
    wait_until("cores that are awake", || {
        write_some(&mut conn, &format!("w{written}-"), 1);
        written += 1;
        (latency_max() == 0).then_some(())
    });
    wait_until("cores that may halt again", || (latency_max() == before).then_some(()));
}
