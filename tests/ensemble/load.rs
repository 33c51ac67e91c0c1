//! Clients that write while servers fail, and the comparison of what they were told with what every node has afterwards.
//!
//! 1. Every value is written once, under a name of its own: a write is acknowledged, or its outcome is not known.
//! 2. What was acknowledged must be on every node afterwards, with the content that was written.
//! 3. A reader that asks for `sync` first must see everything that was acknowledged before it asked (checked while servers fail).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use zabra::base::rng::Rng;

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::err;
use crate::common::client::{Conn, ConnectRequest, Received, Reply, op, read_body};
use crate::common::jute::{Reader, Writer};

/// Requests of a comparison that are under way together.
const DEPTH: usize = 64;

/// A client gives a silent server up after this long.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the writers write.
const ROOT: &str = "/load";

/// What the writers and the readers know in common.
#[derive(Debug, Default)]
struct Known {
    acknowledged: Mutex<Vec<String>>,
    count: AtomicU64,
    stop: AtomicBool,
    /// What readers found wrong.
    violations: Mutex<Vec<String>>,
    reads: AtomicU64,
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
}

impl Load {
    /// So many writers and readers, each going from node to node as they fail.
    pub(crate) fn start(cluster: &Cluster, writers: usize, readers: usize) -> Load {
        let first = cluster.all().find(|id| cluster.node(*id).mode().is_some()).expect("somebody serves");
        let made = cluster.node(first).connect().create(ROOT, b"", 0).expect("an answer");
        assert!(made == err::OK || made == err::NODE_EXISTS, "{made}");
        let known = Arc::new(Known::default());
        let addresses: Vec<SocketAddr> = cluster.all().map(|id| cluster.node(id).address()).collect();
        let client = |n: usize| Client { addresses: addresses.clone(), at: n, known: Arc::clone(&known), n };
        let writers = (0..writers).map(|n| (client(n), true));
        let readers = (0..readers).map(|n| (client(n), false));
        let threads = writers.chain(readers).map(|(client, writes)| {
            std::thread::spawn(move || if writes { client.write() } else { client.read() })
        });
        let threads = threads.collect();
        Load { known, threads }
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
        Outcome { acknowledged, reads: self.known.reads.load(Ordering::SeqCst) }
    }
}

struct Client {
    addresses: Vec<SocketAddr>,
    at: usize,
    known: Arc<Known>,
    n: usize,
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
            let opened = Conn::open(address).map(|conn| conn.with_reply_limit(PATIENCE));
            if let Ok(mut conn) = opened
                && let Ok(Some(connected)) = conn.handshake(&ConnectRequest::new(10_000))
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
            while !self.stopped() {
                let path = format!("{ROOT}/w{}-{next}", self.n);
                next += 1;
                match conn.create(&path, path.as_bytes(), 0) {
                    Ok(err::OK) => {
                        self.known.acknowledged.lock().expect("not poisoned").push(path);
                        self.known.count.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(other) => self.violation(format!("create {path}: error {other}")),
                    Err(_) => break,
                }
            }
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

/// Asserts that all running nodes have the same tree, byte for byte, and that everything in `acknowledged` is in it.
pub(crate) fn assert_all_have(cluster: &Cluster, acknowledged: &[String]) {
    let running: Vec<usize> = cluster.all().filter(|id| cluster.node(*id).runs()).collect();
    let all: Vec<(usize, Contents)> = wait_until("equal trees", LIMIT, || {
        // Sessions of clients that have gone end meanwhile, and change nothing but what is theirs.
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
