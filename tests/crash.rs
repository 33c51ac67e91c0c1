//! kill -9 of the real server under load, in a loop. After every restart:
//!
//! 1. Every acknowledged write is there, with its content and version.
//! 2. Nothing is there twice: a node's version counts exactly the writes that reached it.
//! 3. Nothing is there that nobody sent; what was sent but not acknowledged may be there, once.
//!
//! The page cache survives a kill, so this proves restart and recovery, not power loss.
//! `ZABRA_CRASH_LOOPS=n` sets the number of kills; `ZABRA_TEST_SERVER=zookeeper` runs the checker against a real
//! ZooKeeper.

#[expect(dead_code, reason = "shared with other test programs, each of which uses a part")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::client::{Conn, ConnectRequest, Received, Reply, create_body, op, read_body};
use common::jute::{Acl, Reader, Writer};
use common::server::{Kind, Options, Server};
use zabra::base::rng::Rng;

const LOOPS: u64 = 10;
const WRITERS: usize = 4;
/// Requests of one writer that may be under way.
const DEPTH: usize = 16;
/// Nodes of one writer that are set again and again.
const COUNTERS: u64 = 8;
/// The kill comes after this many acknowledgements of a round, plus a random part up to as many again.
const ACKNOWLEDGED_MIN: u64 = 300;
const ROUND_LIMIT: Duration = Duration::from_secs(60);

/// One write; the number is unique within its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    /// A new node named by the number, holding it.
    Create(u64),
    /// The number becomes the content of a counter node.
    Set { counter: u64, number: u64 },
}

/// What a writer has sent and what it knows.
#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    acknowledged: BTreeSet<u64>,
    /// Created, but no answer came before a kill.
    in_doubt: BTreeSet<u64>,
    counters: BTreeMap<u64, Counter>,
}

/// One node that is set again and again.
#[derive(Debug, Default)]
struct Counter {
    /// Version and content that were last acknowledged.
    version: i32,
    content: Option<u64>,
    /// Numbers sent after that, in order, without an answer.
    in_doubt: Vec<u64>,
}

impl Ledger {
    fn path(writer: usize, write: Write) -> String {
        match write {
            Write::Create(number) => format!("/w{writer}/n{number}"),
            Write::Set { counter, .. } => format!("/w{writer}/c{counter}"),
        }
    }

    fn plan(&mut self, rng: &mut Rng) -> Write {
        self.next += 1;
        if rng.one_in(2) {
            return Write::Create(self.next);
        }
        Write::Set { counter: rng.below(COUNTERS), number: self.next }
    }

    /// Before anything is sent.
    fn sent(&mut self, write: Write) {
        match write {
            Write::Create(number) => assert!(self.in_doubt.insert(number), "numbers are unique"),
            Write::Set { counter, number } => {
                self.counters.entry(counter).or_default().in_doubt.push(number);
            }
        }
    }

    fn acknowledge(&mut self, write: Write, reply: &Reply) {
        assert_eq!(reply.err, 0, "{write:?} fails");
        match write {
            Write::Create(number) => {
                assert!(self.in_doubt.remove(&number), "one answer each");
                self.acknowledged.insert(number);
            }
            Write::Set { counter, number } => {
                let stat = Reader::new(&reply.body).stat().expect("a stat");
                let entry = self.counters.get_mut(&counter).expect("it was sent");
                assert_eq!(entry.in_doubt.remove(0), number, "answers in order");
                assert_eq!(stat.version, entry.version + 1, "{write:?}: each set counts once");
                (entry.version, entry.content) = (stat.version, Some(number));
            }
        }
    }
}

/// Writes until the server is gone.
fn write_until_killed(address: SocketAddr, writer: usize, ledger: &mut Ledger, seed: u64, count: &AtomicU64) {
    let mut rng = Rng::new(seed);
    let Ok((mut conn, _)) = Conn::connect(address, &ConnectRequest::new(30_000)) else { return };
    let mut under_way = std::collections::VecDeque::new();
    loop {
        while under_way.len() < DEPTH {
            let write = ledger.plan(&mut rng);
            ledger.sent(write);
            let xid = conn.take_xid();
            let (code, body) = encode(writer, write);
            if conn.send(xid, code, &body).is_err() {
                return;
            }
            under_way.push_back((xid, write));
        }
        let Received::Frame(frame) = conn.receive(ROUND_LIMIT) else { return };
        let reply = Reply::parse(&frame).expect("a whole reply");
        let (xid, write) = under_way.pop_front().expect("something is under way");
        assert_eq!(reply.xid, xid, "answers in order");
        ledger.acknowledge(write, &reply);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn encode(writer: usize, write: Write) -> (i32, Vec<u8>) {
    let path = Ledger::path(writer, write);
    match write {
        Write::Create(number) => {
            (op::CREATE, create_body(&path, Some(&content(writer, number)), &Acl::open(), 0))
        }
        Write::Set { number, .. } => {
            let body = Writer::new().string(&path).buffer(Some(&content(writer, number))).int(-1).done();
            (op::SET_DATA, body)
        }
    }
}

/// Unique per write, and long enough to cross sectors.
fn content(writer: usize, number: u64) -> Vec<u8> {
    format!("{writer}:{number};").into_bytes().repeat(1 + number as usize % 60)
}

/// Compares what the server holds with what `ledger` allows, and settles every doubt.
fn check(conn: &mut Conn, writer: usize, ledger: &mut Ledger) {
    let list = conn.call(op::GET_CHILDREN, &read_body(&format!("/w{writer}"), false)).expect("children");
    let names = Reader::new(&list.body).strings().expect("a list of children");
    let found: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(found.len(), names.len(), "no child twice");
    for number in &ledger.acknowledged {
        assert!(
            found.contains(&format!("n{number}")),
            "writer {writer}: acknowledged create {number} is lost"
        );
    }
    for name in &found {
        if let Some(number) = name.strip_prefix('n') {
            let number: u64 = number.parse().expect("a number");
            let is_known = ledger.acknowledged.contains(&number) || ledger.in_doubt.contains(&number);
            assert!(is_known, "writer {writer}: {name} was never sent");
            check_created(conn, writer, number);
            ledger.acknowledged.insert(number);
        }
    }
    ledger.in_doubt.clear();
    for (counter, entry) in &mut ledger.counters {
        check_counter(conn, writer, *counter, entry);
    }
}

fn check_created(conn: &mut Conn, writer: usize, number: u64) {
    let path = Ledger::path(writer, Write::Create(number));
    let reply = conn.call(op::GET_DATA, &read_body(&path, false)).expect("an answer");
    assert_eq!(reply.err, 0, "{path} is listed");
    let mut reader = Reader::new(&reply.body);
    assert_eq!(reader.buffer().expect("data"), Some(&content(writer, number)[..]), "{path}");
    let stat = reader.stat().expect("a stat");
    assert_eq!((stat.version, stat.czxid), (0, stat.mzxid), "{path} was written once");
}

/// The counter may have taken any number of the writes in doubt, but only from the front.
fn check_counter(conn: &mut Conn, writer: usize, counter: u64, entry: &mut Counter) {
    let path = format!("/w{writer}/c{counter}");
    let reply = conn.call(op::GET_DATA, &read_body(&path, false)).expect("an answer");
    assert_eq!(reply.err, 0, "{path} exists");
    let mut reader = Reader::new(&reply.body);
    let data = reader.buffer().expect("data").unwrap_or_default().to_vec();
    let stat = reader.stat().expect("a stat");
    let extra = usize::try_from(stat.version - entry.version).unwrap_or_else(|_| {
        panic!("{path}: version {} was acknowledged, found {}", entry.version, stat.version)
    });
    assert!(extra <= entry.in_doubt.len(), "{path}: {extra} more sets than were sent");
    let last = extra.checked_sub(1).map_or(entry.content, |i| Some(entry.in_doubt[i]));
    let expected = last.map_or_else(Vec::new, |number| content(writer, number));
    assert_eq!(data, expected, "{path}: content of version {}", stat.version);
    (entry.version, entry.content) = (stat.version, last);
    entry.in_doubt.clear();
}

fn prepare(address: SocketAddr) {
    let (mut conn, _) = Conn::connect(address, &ConnectRequest::new(30_000)).expect("a session");
    for writer in 0..WRITERS {
        let counters = (0..COUNTERS).map(|counter| format!("/w{writer}/c{counter}"));
        for path in std::iter::once(format!("/w{writer}")).chain(counters) {
            let reply =
                conn.call(op::CREATE, &create_body(&path, Some(b""), &Acl::open(), 0)).expect("reply");
            assert_eq!(reply.err, 0, "create {path}");
        }
    }
}

/// One round: load, kill in the middle of it, restart, check.
fn round(server: &mut Server, ledgers: &mut [Ledger], rng: &mut Rng) -> u64 {
    let (count, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let goal = ACKNOWLEDGED_MIN + rng.below(ACKNOWLEDGED_MIN);
    let address = server.address();
    std::thread::scope(|scope| {
        for (writer, ledger) in ledgers.iter_mut().enumerate() {
            let (seed, count, over) = (rng.next_u64(), &count, &over);
            scope.spawn(move || {
                write_until_killed(address, writer, ledger, seed, count);
                over.store(true, Ordering::Relaxed);
            });
        }
        let deadline = Instant::now() + ROUND_LIMIT;
        while count.load(Ordering::Relaxed) < goal
            && !over.load(Ordering::Relaxed)
            && Instant::now() < deadline
        {
            std::thread::yield_now();
        }
        server.kill();
    });
    let acknowledged = count.into_inner();
    assert!(acknowledged >= goal, "{acknowledged} writes instead of {goal} before the kill");
    server.start_again();
    let (mut conn, _) = Conn::connect(address, &ConnectRequest::new(30_000)).expect("a session");
    for (writer, ledger) in ledgers.iter_mut().enumerate() {
        check(&mut conn, writer, ledger);
    }
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_and_nothing_is_invented() {
    let Some(kind) = Kind::under_test() else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64;
    let seed = std::env::var("ZABRA_CRASH_SEED").map_or(now, |s| s.parse().expect("a number"));
    let loops = std::env::var("ZABRA_CRASH_LOOPS").map_or(LOOPS, |n| n.parse().expect("a number"));
    println!("ZABRA_CRASH_SEED={seed} (the moments of the kills still depend on the machine)");
    let mut rng = Rng::new(seed);
    // Small snapshots, often: recovery is then from a snapshot and the log behind it.
    let mut server = Server::start(&kind, &Options::everything().config("snapCount", "500"));
    prepare(server.address());
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(|_| Ledger::default()).collect();
    for kill in 1..=loops {
        let acknowledged = round(&mut server, &mut ledgers, &mut rng);
        println!("kill {kill} of {loops}: {acknowledged} writes acknowledged, all there");
    }
}

/// A checker that cannot fail proves nothing: with the server's help, each kind of damage is done to it in turn.
#[test]
fn the_checker_notices_a_lost_a_changed_and_an_invented_write() {
    let Some(kind) = Kind::under_test() else { return };
    let mut server = Server::start(&kind, &Options::everything());
    prepare(server.address());
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(|_| Ledger::default()).collect();
    round(&mut server, &mut ledgers, &mut Rng::new(1));
    let (mut conn, _) = Conn::connect(server.address(), &ConnectRequest::new(30_000)).expect("a session");
    let number = *ledgers[0].acknowledged.first().expect("something was acknowledged");
    let (&counter, _) = ledgers[2].counters.first_key_value().expect("a counter was set");
    let lost = Writer::new().string(&Ledger::path(0, Write::Create(number))).int(-1).done();
    let invented = create_body("/w1/n99999999", Some(b"x"), &Acl::open(), 0);
    let twice = Writer::new().string(&format!("/w2/c{counter}")).buffer(Some(b"x")).int(-1).done();
    let damages = [(op::DELETE, lost), (op::CREATE, invented), (op::SET_DATA, twice)];
    for (writer, (code, body)) in damages.into_iter().enumerate() {
        check(&mut conn, writer, &mut ledgers[writer]);
        assert_eq!(conn.call(code, &body).expect("a reply").err, 0);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&mut conn, writer, &mut ledgers[writer]);
        }));
        assert!(result.is_err(), "damage {writer} goes unnoticed");
    }
}
