//! Clients that write while servers fail, and the comparison of what they were told with what every node has afterwards.
//!
//! 1. Every value is written once, under a name of its own: a write is acknowledged, or its outcome is not known.
//! 2. What was acknowledged must be on every node afterwards, with the content that was written.
//! 3. Answers come in the order of the requests; those of requests that fail, too.
//! 4. Ephemeral nodes of sessions that nobody came back to are gone afterwards, everywhere.
//! 5. A reader that asks for `sync` first must see everything that was acknowledged before it asked (checked while servers fail).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zabra::base::rng::Rng;

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::{EPHEMERAL, SEQUENTIAL, err};
use crate::common::client::{Conn, ConnectRequest, Received, Reply, create_body, op, read_body};
use crate::common::jute::{Acl, Reader, Writer};

/// Requests of a comparison that are under way together.
const DEPTH: usize = 64;

/// A client gives a silent server up after this long.
const PATIENCE: Duration = Duration::from_secs(3);

/// And one that does not take its connection after this long.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// Where the writers write.
const ROOT: &str = "/load";

/// Where each of their sessions has an ephemeral node.
const MARKS: &str = "/marks";

/// Requests that every other writer has under way.
const WRITES_DEPTH: usize = 16;

/// Number of the client that fills the logs, which has no name of its own in the tree.
const CHURN: usize = 1_000;

/// What it writes each time.
const CHURN_BYTES: usize = 30_000;

/// Of the clients' sessions, ms: those that nobody closes are gone soon.
const SESSION_MS: i32 = 2_000;

/// What the writers and the readers know in common.
#[derive(Debug, Default)]
struct Known {
    acknowledged: Mutex<Vec<String>>,
    /// When the last write of any client was acknowledged, and the longest time without one.
    gaps: Mutex<(Option<Instant>, Duration)>,
    count: AtomicU64,
    stop: AtomicBool,
    /// What readers found wrong.
    violations: Mutex<Vec<String>>,
    reads: AtomicU64,
}

impl Known {
    fn acknowledge(&self, path: String) {
        let now = Instant::now();
        let mut gaps = self.gaps.lock().expect("not poisoned");
        let gap = gaps.0.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        gaps.1 = gaps.1.max(gap);
        drop(gaps);
        self.acknowledged.lock().expect("not poisoned").push(path);
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    known: Arc<Known>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) acknowledged: Vec<String>,
    /// Reads behind a sync that were checked.
    pub(crate) reads: u64,
    /// Longest time in which no client at all got a write acknowledged.
    pub(crate) longest_gap: Duration,
}

impl Load {
    /// So many writers and readers, each going from node to node as they fail.
    pub(crate) fn start(cluster: &Cluster, writers: usize, readers: usize) -> Load {
        Load::with_pause(cluster, writers, readers, Duration::ZERO)
    }

    /// The same, with a `pause` of each writer between two answers: less to compare in the end.
    pub(crate) fn with_pause(cluster: &Cluster, writers: usize, readers: usize, pause: Duration) -> Load {
        let first = cluster.all().find(|id| cluster.node(*id).mode().is_some()).expect("somebody serves");
        let mut conn = cluster.node(first).connect();
        assert_eq!(conn.create(ROOT, b"", 0), Ok(err::OK));
        assert_eq!(conn.create(MARKS, b"", 0), Ok(err::OK));
        let known = Arc::new(Known::default());
        let addresses: Vec<SocketAddr> = cluster.all().map(|id| cluster.node(id).address()).collect();
        let client =
            |n: usize| Client { addresses: addresses.clone(), at: n, known: Arc::clone(&known), n, pause };
        let writers = (0..writers).map(|n| (client(n), true));
        let readers = (0..readers).map(|n| (client(n), false));
        let threads = writers.chain(readers).map(|(client, writes)| {
            std::thread::spawn(move || if writes { client.write() } else { client.read() })
        });
        let threads = threads.collect();
        Load { known, threads }
    }

    /// And one that fills the logs without making the tree larger.
    pub(crate) fn with_churn(mut self, cluster: &Cluster) -> Load {
        let addresses: Vec<SocketAddr> = cluster.all().map(|id| cluster.node(id).address()).collect();
        let client =
            Client { addresses, at: 0, known: Arc::clone(&self.known), n: CHURN, pause: Duration::ZERO };
        self.threads.push(std::thread::spawn(move || client.churn()));
        self
    }

    /// Writes acknowledged so far.
    pub(crate) fn count(&self) -> u64 {
        self.known.count.load(Ordering::SeqCst)
    }

    /// Waits until `more` writes are acknowledged.
    pub(crate) fn wait_for(&self, more: u64) {
        let until = self.count() + more;
        wait_until("writes go on", LIMIT, || (self.count() >= until).then_some(()));
    }

    /// Ends the clients. Fails if a reader found anything wrong.
    pub(crate) fn stop(self) -> Outcome {
        self.known.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("clients do not panic"));
        let violations = std::mem::take(&mut *self.known.violations.lock().expect("not poisoned"));
        assert!(violations.is_empty(), "{violations:#?}");
        let acknowledged = std::mem::take(&mut *self.known.acknowledged.lock().expect("not poisoned"));
        let longest_gap = self.known.gaps.lock().expect("not poisoned").1;
        Outcome { acknowledged, reads: self.known.reads.load(Ordering::SeqCst), longest_gap }
    }
}

struct Client {
    addresses: Vec<SocketAddr>,
    at: usize,
    known: Arc<Known>,
    n: usize,
    pause: Duration,
}

impl Client {
    fn stopped(&self) -> bool {
        self.known.stop.load(Ordering::SeqCst)
    }

    /// A connection with the next node that gives one.
    fn connect(&mut self) -> Option<Conn> {
        while !self.stopped() {
            self.at += 1;
            let address = self.addresses[self.at % self.addresses.len()];
            let opened =
                Conn::open_within(address, CONNECT_PATIENCE).map(|conn| conn.with_reply_limit(PATIENCE));
            if let Ok(mut conn) = opened
                && let Ok(Some(connected)) = conn.handshake(&ConnectRequest::new(SESSION_MS))
                && connected.session.id != 0
            {
                return Some(conn);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn write(mut self) {
        let mut next = 0_u64;
        while let Some(mut conn) = self.connect() {
            if self.mark_session(&mut conn).is_ok() && self.write_to(&mut conn, &mut next).is_ok() {
                // Told to stop. Sessions of the connections before this one expire.
                let _ = conn.call(op::CLOSE_SESSION, &[]);
            }
        }
    }

    /// Each session has a node that goes with it.
    fn mark_session(&self, conn: &mut Conn) -> Result<(), String> {
        let path = format!("{MARKS}/w{}-", self.n);
        match conn.create(&path, b"", EPHEMERAL | SEQUENTIAL)? {
            err::OK => Ok(()),
            other => {
                self.violation(format!("create {path}: error {other}"));
                Err("refused".into())
            }
        }
    }

    /// Every other writer has one request under way; the others have [`WRITES_DEPTH`], with some among them that fail.
    fn write_to(&self, conn: &mut Conn, next: &mut u64) -> Result<(), String> {
        let depth = if self.n.is_multiple_of(2) { 1 } else { WRITES_DEPTH };
        let mut waiting = VecDeque::new();
        loop {
            while waiting.len() < depth && !self.stopped() {
                let path = format!("{ROOT}/w{}-{next}", self.n);
                *next += 1;
                // Without a parent now and then: the answer to it stands in line like others.
                let fails = depth > 1 && next.is_multiple_of(7);
                let target = if fails { format!("/none{path}") } else { path.clone() };
                let xid = conn.take_xid();
                let body = create_body(&target, Some(path.as_bytes()), &Acl::open(), 0);
                conn.send(xid, op::CREATE, &body).map_err(|e| e.to_string())?;
                waiting.push_back((xid, path, fails));
            }
            let Some((xid, path, fails)) = waiting.pop_front() else { return Ok(()) };
            let Received::Frame(frame) = conn.receive(PATIENCE) else { return Err("no answer".into()) };
            let reply = Reply::parse(&frame).map_err(|_| "a short reply")?;
            let expected = (xid, if fails { err::NO_NODE } else { err::OK });
            if (reply.xid, reply.err) != expected {
                self.violation(format!("{path}: {:?} instead of {expected:?}", (reply.xid, reply.err)));
                return Err("a wrong answer".into());
            }
            if !fails {
                self.known.acknowledge(path);
            }
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
        }
    }

    fn churn(mut self) {
        let mut data = vec![0; CHURN_BYTES];
        Rng::new(1).fill(&mut data);
        while let Some(mut conn) = self.connect() {
            let _ = conn.create("/churn", b"", 0);
            while !self.stopped() && conn.set("/churn", &data, -1) == Ok(err::OK) {}
        }
    }

    fn read(mut self) {
        let mut rng = Rng::new(self.n as u64);
        while let Some(mut conn) = self.connect() {
            while !self.stopped() {
                let Some(path) = self.recent(&mut rng) else { continue };
                if conn.sync(&path) != Ok(err::OK) {
                    break;
                }
                match conn.get(&path) {
                    Ok(Some(data)) if data == path.as_bytes() => {
                        self.known.reads.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(found) => self.violation(format!("{path} after sync at {}: {found:?}", self.at)),
                    Err(_) => break,
                }
            }
        }
    }

    /// One of the last acknowledged writes.
    fn recent(&self, rng: &mut Rng) -> Option<String> {
        let acknowledged = self.known.acknowledged.lock().expect("not poisoned");
        let back = rng.below(4).min(acknowledged.len().saturating_sub(1) as u64) as usize;
        acknowledged.len().checked_sub(1 + back).map(|at| acknowledged[at].clone())
    }

    fn violation(&self, what: String) {
        self.known.violations.lock().expect("not poisoned").push(what);
    }
}

impl Conn {
    /// The error code of a sync.
    pub(crate) fn sync(&mut self, path: &str) -> Result<i32, String> {
        Ok(self.call(op::SYNC, &Writer::new().string(path).done())?.err)
    }
}

/// Every node below `/`, with content and stat as they are sent to clients. `/zookeeper` is left out: it tells of the node itself.
type Contents = BTreeMap<String, Vec<u8>>;

/// All that a node has, behind a sync.
fn contents(conn: &mut Conn) -> Result<Contents, String> {
    conn.sync("/")?;
    let (mut todo, mut all) = (vec!["/".to_owned()], Contents::new());
    while !todo.is_empty() {
        let mut below = Vec::new();
        for paths in todo.chunks(DEPTH) {
            let data = many(conn, op::GET_DATA, paths)?;
            let children = many(conn, op::GET_CHILDREN, paths)?;
            for ((path, data), children) in paths.iter().zip(data).zip(children) {
                if data.err == err::NO_NODE {
                    continue;
                }
                all.insert(path.clone(), data.body);
                let names = Reader::new(&children.body).strings().map_err(|_| "a short reply")?;
                let parent = if path == "/" { "" } else { path };
                let names = names.iter().map(|name| format!("{parent}/{name}"));
                below.extend(names.filter(|path| path != "/zookeeper"));
            }
        }
        todo = below;
    }
    Ok(all)
}

fn many(conn: &mut Conn, op: i32, paths: &[String]) -> Result<Vec<Reply>, String> {
    for path in paths {
        let xid = conn.take_xid();
        conn.send(xid, op, &read_body(path, false)).map_err(|e| e.to_string())?;
    }
    let reply = |_| match conn.receive(LIMIT) {
        Received::Frame(frame) => Reply::parse(&frame).map_err(|_| "a short reply".to_owned()),
        other => Err(format!("{other:?}")),
    };
    paths.iter().map(reply).collect()
}

/// Waits until no session of the load's clients is left, nor anything that was theirs.
fn wait_sessions_end(cluster: &Cluster, id: usize) {
    let mut conn = cluster.node(id).connect();
    wait_until(&format!("ephemeral nodes of dead sessions go on node {id}"), LIMIT, || {
        let names = conn.children(MARKS);
        names.is_ok_and(|names| names.is_empty()).then_some(())
    });
}

/// Asserts that all running nodes have the same tree, byte for byte, and that everything in `acknowledged` is in it.
pub(crate) fn assert_all_have(cluster: &Cluster, acknowledged: &[String]) {
    let running: Vec<usize> = cluster.all().filter(|id| cluster.node(*id).runs()).collect();
    if acknowledged.first().is_some_and(|path| path.starts_with(ROOT)) {
        running.iter().for_each(|id| wait_sessions_end(cluster, *id));
    }
    let all: Vec<(usize, Contents)> = wait_until("equal trees", LIMIT, || {
        let one = |id: &usize| contents(&mut cluster.node(*id).connect()).ok().map(|tree| (*id, tree));
        let all: Vec<_> = running.iter().map(one).collect::<Option<_>>()?;
        Some(all)
    });
    let (first, tree) = &all[0];
    for (id, other) in &all[1..] {
        let differs = |path: &&String| tree.get(*path) != other.get(*path);
        let paths: BTreeSet<&String> = tree.keys().chain(other.keys()).filter(differs).collect();
        assert!(
            paths.is_empty(),
            "nodes {first} and {id} differ: {:?}",
            paths.iter().take(10).collect::<Vec<_>>()
        );
    }
    let lost: Vec<&String> = acknowledged.iter().filter(|path| !tree.contains_key(*path)).collect();
    assert!(lost.is_empty(), "{} acknowledged writes lost: {:?}", lost.len(), &lost[..lost.len().min(10)]);
    for path in acknowledged {
        let data = Reader::new(&tree[path]).buffer().expect("a whole reply");
        assert_eq!(data, Some(path.as_bytes()), "{path}");
    }
    assert_equal_digests(cluster, &running);
}

/// Digests at equal zxids are equal.
fn assert_equal_digests(cluster: &Cluster, running: &[usize]) {
    let mut seen: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for id in running {
        let text = cluster.node(*id).word("hash").unwrap_or_default();
        for (zxid, digest) in text.lines().filter_map(|line| line.split_once(": ")) {
            let first = seen.entry(zxid.to_owned()).or_insert_with(|| (*id, digest.to_owned()));
            assert_eq!(first.1, digest, "digests of nodes {} and {id} at zxid {zxid}", first.0);
        }
    }
}
