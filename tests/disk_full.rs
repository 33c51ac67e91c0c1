//! A full disk, for real: the server's data lies on a small tmpfs in a private mount namespace, beside a filler file.
//!
//! 1. While there is no space, writes are answered SYSTEMERROR, and reads, pings and connections go on.
//! 2. What was acknowledged stays; what was refused never happened.
//! 3. Once there is space, writes are taken again without a restart, and sessions that ended meanwhile end.
//! 4. A start that needs space and has none says so and ends.
//!
//! Needs `unshare` and `nsenter` (util-linux) and the right to make namespaces; says so and skips otherwise.

#[expect(dead_code, reason = "shared with other test programs, each of which uses a part")]
mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::calls::{EPHEMERAL, connect, err};
use common::client::{Conn, ConnectRequest, op};
use common::server::{Kind, Options, Server};
use common::tools::available;

/// Segments in use and ready, superblock, and some room for the filler.
const DISK_BYTES: u64 = 24 << 20;
const SEGMENT_BYTES: &str = "4194304";
/// Content of one node: few enough of them fill two segments.
const NODE_BYTES: usize = 20_000;
/// How long the server may take until it notices that there is space again.
const RESUME_LIMIT: Duration = Duration::from_secs(15);

/// A small file system that only the processes in its namespace see, and this test through `/proc`.
struct Disk {
    /// Lives as long as its standard input is open; the namespace lives as long as it, or a server in it.
    holder: Child,
    mount: tempfile::TempDir,
    /// Arguments of `nsenter` that lead there.
    through: Vec<String>,
}

impl Disk {
    /// `None`: namespaces are not to be had, which was said.
    fn new() -> Option<Disk> {
        let found = Disk::make(&[]).or_else(|_| Disk::make(&["--map-root-user"]));
        available(&found.as_ref().map(drop).map_err(Clone::clone))?;
        found.ok()
    }

    fn make(user: &[&str]) -> Result<Disk, String> {
        let mount = tempfile::Builder::new().prefix("zabra-disk").tempdir().map_err(|e| e.to_string())?;
        let script = format!(
            "mount -t tmpfs -o size={DISK_BYTES},mode=0777 zabra '{}' && echo mounted && read _",
            mount.path().display()
        );
        let mut command = Command::new("unshare");
        command.arg("--mount").args(user).args(["sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().map_err(|e| format!("unshare ({e})"))?;
        let mut line = String::new();
        let said = holder.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let mut through: Vec<String> =
            ["nsenter", "--target", &holder.id().to_string(), "--mount"].map(str::to_owned).to_vec();
        if !user.is_empty() {
            through.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        through.push("--".into());
        let disk = Disk { holder, mount, through };
        let enters = || Command::new("nsenter").args(&disk.through[1..]).arg("true").status();
        if !matches!(said, Some(Ok(_))) || line.trim() != "mounted" || !enters().is_ok_and(|s| s.success()) {
            return Err("unshare and nsenter, and the right to make mount namespaces".into());
        }
        Ok(disk)
    }

    fn options(&self) -> Options {
        let mut options = Options::default()
            .config("tickTime", "500")
            .config("maxClientCnxns", "0")
            .property("dataDir", &self.mount.path().join("data").display().to_string())
            .property("zabra.log.segmentBytes", SEGMENT_BYTES);
        options.through = self.through.clone();
        options
    }

    /// A path on this disk, as seen from outside.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.mount.path().strip_prefix("/").expect("an absolute path")).join(name)
    }

    /// Takes all the space there is, but for `leave` bytes.
    fn fill(&self, leave: u64) {
        let mut file = File::options().create(true).append(true).open(self.path("filler")).expect("a filler");
        while file.write_all(&[0; 4096]).is_ok() {}
        let size = file.metadata().expect("a size").len();
        file.set_len(size.saturating_sub(leave)).expect("a shorter filler");
    }

    fn free(&self) {
        fs::remove_file(self.path("filler")).expect("the filler is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What this test wrote, and how it was answered.
#[derive(Default)]
struct Ledger {
    next: usize,
    acknowledged: Vec<usize>,
    refused: Vec<usize>,
}

impl Ledger {
    fn content(number: usize) -> Vec<u8> {
        number.to_be_bytes().iter().copied().cycle().take(NODE_BYTES).collect()
    }

    /// Writes one node; the error code.
    fn write(&mut self, conn: &mut Conn) -> i32 {
        let number = self.next;
        self.next += 1;
        let code = conn.create(&format!("/n{number}"), &Ledger::content(number), 0).expect("an answer");
        match code {
            err::OK => self.acknowledged.push(number),
            err::SYSTEM => self.refused.push(number),
            other => panic!("create answers {other}"),
        }
        code
    }

    fn check(&self, conn: &mut Conn) {
        for number in &self.acknowledged {
            let found = conn.get(&format!("/n{number}")).expect("a read");
            assert_eq!(found, Some(Ledger::content(*number)), "acknowledged node {number}");
        }
        for number in &self.refused {
            assert_eq!(conn.get(&format!("/n{number}")), Ok(None), "refused node {number}");
        }
    }
}

/// Writes until there is no room for even the smallest record: that of a write that fails.
fn write_until_full(conn: &mut Conn, ledger: &mut Ledger) {
    while ledger.write(conn) == err::OK {
        assert!(ledger.next < 2_000, "the disk never fills up");
    }
    for _ in 0..10_000 {
        match conn.set("/", b"", 77).expect("an answer") {
            err::BAD_VERSION => {}
            err::SYSTEM => return,
            other => panic!("setData answers {other}"),
        }
    }
    panic!("the last segment never fills up");
}

fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_is_left_behind_without_a_restart() {
    let Some(disk) = Disk::new() else { return };
    let mut server = Server::start(&Kind::Zabra, &disk.options());
    let (mut writer, _) = connect(server.address(), 30_000);
    let (mut reader, _) = connect(server.address(), 30_000);
    let (mut expiring, _) = connect(server.address(), 1_000);
    let (mut leaving, _) = connect(server.address(), 30_000);
    assert_eq!(expiring.create("/expires", b"", EPHEMERAL), Ok(err::OK));
    assert_eq!(leaving.create("/leaves", b"", EPHEMERAL), Ok(err::OK));
    let mut ledger = Ledger::default();
    ledger.write(&mut writer);

    disk.fill(0);
    let filled = std::thread::scope(|scope| {
        // Its session must live until the disk is full.
        let pings = scope.spawn(|| {
            for _ in 0..20 {
                expiring.call(op::PING, &[]).expect("a pong");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        write_until_full(&mut writer, &mut ledger);
        pings.join().expect("pings are answered");
        Instant::now()
    });
    assert_eq!(leaving.call(op::CLOSE_SESSION, &[]).map(|reply| reply.err), Ok(err::SYSTEM));
    drop((leaving, expiring));
    // Long enough that the short session expires.
    while filled.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(ledger.write(&mut writer), err::SYSTEM, "still no space");
        assert_eq!(reader.call(op::PING, &[]).map(|reply| reply.err), Ok(err::OK));
        assert_eq!(reader.get("/expires"), Ok(Some(Vec::new())), "nothing was committed that ends a session");
        std::thread::sleep(Duration::from_millis(5));
    }
    ledger.check(&mut reader);
    assert!(server.word(b"ruok").contains("imok") || !server.word(b"srvr").is_empty(), "words are answered");
    let refused = Conn::open(server.address())
        .expect("connections are accepted")
        .handshake(&ConnectRequest::new(9_000));
    assert_eq!(refused, Ok(None), "no session without a record of it");
    let complaints = server.whole_log().matches("until there is space").count();
    assert!((1..=4).contains(&complaints), "said {complaints} times, for {} writes", ledger.refused.len());

    disk.free();
    wait_until("writes are taken again", RESUME_LIMIT, || ledger.write(&mut writer) == err::OK);
    for path in ["/expires", "/leaves"] {
        wait_until(path, RESUME_LIMIT, || reader.get(path) == Ok(None));
    }
    let (mut late, _) = connect(server.address(), 30_000);
    for _ in 0..50 {
        assert_eq!(ledger.write(&mut late), err::OK);
    }
    ledger.check(&mut reader);

    server.kill();
    server.start_again();
    let (mut after, _) = connect(server.address(), 30_000);
    ledger.check(&mut after);
    for path in ["/expires", "/leaves"] {
        assert_eq!(after.get(path), Ok(None), "{path} is back");
    }
    assert!(!server.whole_log().contains("panicked"), "{}", server.log());
}

#[test]
fn kill_9_on_a_full_disk_loses_nothing() {
    let Some(disk) = Disk::new() else { return };
    let mut server = Server::start(&Kind::Zabra, &disk.options());
    let mut ledger = Ledger::default();
    let (mut writer, _) = connect(server.address(), 30_000);
    disk.fill(0);
    write_until_full(&mut writer, &mut ledger);
    server.kill();
    // Recovery itself needs no space: the superblock and the last segment have theirs.
    server.start_again();
    let (mut reader, refused) = (Conn::open(server.address()), ConnectRequest::new(9_000));
    let connected = reader.as_mut().expect("a connection").handshake(&refused);
    assert!(connected.is_ok(), "answered or closed: {connected:?}");
    disk.free();
    let mut conn = None;
    wait_until("a session", RESUME_LIMIT, || {
        conn = Conn::connect(server.address(), &ConnectRequest::new(30_000)).ok();
        conn.is_some()
    });
    let (mut conn, _) = conn.expect("waited for");
    ledger.check(&mut conn);
    assert_eq!(ledger.write(&mut conn), err::OK);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_first_start_on_a_full_disk_says_so_and_ends() {
    let Some(disk) = Disk::new() else { return };
    // Something to take the configuration and the port from.
    let mut options = disk.options();
    options = options.property("dataDir", &disk.mount.path().join("other").display().to_string());
    let mut server = Server::start(&Kind::Zabra, &options);
    assert_eq!(server.terminate(), Some(0));
    fs::remove_dir_all(disk.path("other")).expect("the data can be removed");
    disk.fill(1 << 20);
    let (code, said) = server.refused();
    assert_eq!(code, Some(1), "{said}");
    let said = said.to_lowercase();
    assert!(said.contains("no space"), "{said}");
    disk.free();
    server.start_again();
    let (mut conn, _) = connect(server.address(), 30_000);
    assert_eq!(conn.create("/a", b"x", 0), Ok(err::OK));
}
