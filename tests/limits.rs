//! What a client can make grow, and what it may send: each limit met by a client that means harm, or knows no better.
//!
//! 1. A limit costs whoever exceeds it, never anybody else: other clients are answered meanwhile.
//! 2. Memory follows bytes received and connections open, never the word of a length.
//! 3. No bytes from a client end the server or make it panic.

#[expect(dead_code, reason = "shared with other test programs, each of which uses a part")]
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::calls::{connect, err, set_body};
use common::client::{Conn, ConnectRequest, Received, Reply, create_body, framed, op, read_body, request};
use common::jute::{Acl, Reader, Writer};
use common::server::{Kind, Options, Server};
use zabra::base::rng::Rng;

/// `jute.maxbuffer` by default is one less.
const FRAME_REFUSED: usize = 1 << 20;
/// What a busy neighbour may cost a client's request, in a debug build on a loaded machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(10);

fn start(options: &[(&str, &str)]) -> Server {
    let mut all = Options::default().config("maxClientCnxns", "0").config("tickTime", "500");
    for (key, value) in options {
        all = all.property(key, value);
    }
    Server::start(&Kind::Zabra, &all)
}

fn assert_unharmed(server: &Server) {
    let (mut conn, _) = connect(server.address(), 10_000);
    assert!(conn.get("/zookeeper").is_ok(), "a new client is served");
    let log = server.whole_log();
    assert!(!log.contains("panicked"), "{log}");
}

fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id())).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
}

/// A create whose frame has exactly `bytes`.
fn create_frame(path: &str, bytes: usize) -> Vec<u8> {
    let empty = request(1, op::CREATE, &create_body(path, Some(b""), &Acl::open(), 0)).len();
    let frame = request(1, op::CREATE, &create_body(path, Some(&vec![7; bytes - empty]), &Acl::open(), 0));
    assert_eq!(frame.len(), bytes);
    frame
}

#[test]
fn a_frame_longer_than_jute_maxbuffer_or_of_negative_length_closes_its_connection_alone() {
    let server = start(&[]);
    let (mut other, _) = connect(server.address(), 10_000);
    let (mut fits, _) = connect(server.address(), 10_000);
    fits.send_frame(&create_frame("/fits", FRAME_REFUSED - 1)).expect("sent");
    let Received::Frame(frame) = fits.receive(SOON) else { panic!("the largest frame is taken") };
    assert_eq!(Reply::parse(&frame).expect("a reply").err, err::OK);
    for length in [FRAME_REFUSED as i32, i32::MAX, -1, i32::MIN] {
        let (mut conn, _) = connect(server.address(), 10_000);
        // The length alone decides: nobody waits for what it announces.
        conn.send_raw(&length.to_be_bytes()).expect("sent");
        assert_eq!(conn.receive(SOON), Received::Closed, "length {length}");
    }
    for length in [4_097, i32::MAX, -1, i32::MIN] {
        let mut conn = Conn::open(server.address()).expect("open");
        conn.send_raw(&length.to_be_bytes()).expect("sent");
        assert_eq!(conn.receive(SOON), Received::Closed, "first frame of length {length}");
    }
    assert!(other.get("/fits").expect("a read").expect("it is there").len() > 1_000_000);
    assert_unharmed(&server);
}

#[test]
fn who_sends_no_connect_request_is_sent_away() {
    let server = start(&[("nio.sessionlessCnxnTimeout", "1000")]);
    let (mut idle, _) = connect(server.address(), 10_000);
    let started = Instant::now();
    let mut silent = Conn::open(server.address()).expect("open");
    let mut half = Conn::open(server.address()).expect("open");
    half.send_raw(&[0, 0, 0, 45, 0, 0, 0, 0, 0]).expect("sent");
    let mut short = Conn::open(server.address()).expect("open");
    short.send_raw(&[0, 0]).expect("sent");
    for conn in [&mut silent, &mut half, &mut short] {
        assert_eq!(conn.receive(SOON), Received::Closed);
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(idle.call(op::PING, &[]).map(|reply| reply.err), Ok(err::OK));
}

#[test]
fn connections_are_limited_per_address_and_in_total() {
    for key in ["maxClientCnxns", "maxCnxns"] {
        let server = start(&[(key, "3")]);
        // The word that waited for the start may still be on its way out.
        let deadline = Instant::now() + SOON;
        let mut conns = Vec::new();
        while conns.len() < 3 {
            assert!(Instant::now() < deadline, "{key}: three connections are allowed");
            match Conn::connect(server.address(), &ConnectRequest::new(10_000)) {
                Ok((conn, _)) => conns.push(conn),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        for _ in 0..20 {
            let mut fourth = Conn::open(server.address()).expect("open");
            assert_eq!(fourth.receive(SOON), Received::Closed, "{key}");
        }
        for conn in &mut conns {
            assert!(conn.get("/").is_ok(), "{key}: the first three go on");
        }
        conns.pop();
        loop {
            assert!(Instant::now() < deadline + SOON, "{key}: a place that was left can be taken");
            if let Ok((conn, _)) = Conn::connect(server.address(), &ConnectRequest::new(10_000)) {
                conns.push(conn);
                break;
            }
        }
    }
}

#[test]
fn sessions_and_watches_are_limited() {
    let server = start(&[("zabra.limits.sessions", "2"), ("zabra.limits.watchesPerConnection", "10")]);
    let (mut first, _) = connect(server.address(), 10_000);
    let (mut second, session) = connect(server.address(), 10_000);
    let mut third = Conn::open(server.address()).expect("open");
    assert_eq!(third.handshake(&ConnectRequest::new(10_000)), Ok(None), "a third session");
    // One that exists may come back.
    drop(second);
    let resume = ConnectRequest { session: session.clone(), ..ConnectRequest::new(10_000) };
    let (conn, connected) = Conn::connect(server.address(), &resume).expect("resumed");
    assert_eq!(connected.session.id, session.id);
    second = conn;

    let mut answers = Vec::new();
    for n in 0..20 {
        answers.push(first.call(op::EXISTS, &read_body(&format!("/w{n}"), true)).map(|reply| reply.err));
    }
    assert!(answers[..10].iter().all(|answer| *answer == Ok(err::NO_NODE)), "{answers:?}");
    assert!(answers[10..].iter().all(|answer| *answer != Ok(err::NO_NODE)), "the 11th watch: {answers:?}");
    assert_eq!(second.call(op::EXISTS, &read_body("/w0", true)).map(|reply| reply.err), Ok(err::NO_NODE));
    assert_eq!(second.create("/w0", b"", 0), Ok(err::OK));
    assert!(!server.whole_log().contains("panicked"));
}

/// Sends a counter's writes and reads mixed, all at once; every answer must come in order and show the writes before it.
fn pipeline(server: &Server, requests: i32) {
    let (mut conn, _) = connect(server.address(), 30_000);
    assert_eq!(conn.create("/counter", b"", 0), Ok(err::OK));
    let mut rng = Rng::new(3);
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    let mut version = 0;
    for xid in 1000..1000 + requests {
        if rng.one_in(3) {
            version += 1;
            let body = set_body("/counter", &i32::to_be_bytes(version), version - 1);
            bytes.extend(framed(&request(xid, op::SET_DATA, &body)));
            expected.push((xid, None));
        } else {
            bytes.extend(framed(&request(xid, op::GET_DATA, &read_body("/counter", false))));
            expected.push((xid, Some(version)));
        }
    }
    conn.send_raw(&bytes).expect("sent");
    for (xid, read) in expected {
        let Received::Frame(frame) = conn.receive(SOON) else { panic!("no answer to {xid}") };
        let reply = Reply::parse(&frame).expect("a reply");
        assert_eq!((reply.xid, reply.err), (xid, err::OK));
        if let Some(version) = read.filter(|version| *version > 0) {
            let data = Reader::new(&reply.body).buffer().expect("data").unwrap_or_default().to_vec();
            assert_eq!(
                data,
                version.to_be_bytes(),
                "request {xid} sees its own earlier writes, and no later one"
            );
        }
    }
}

#[test]
fn ten_thousand_pipelined_reads_and_writes_are_answered_in_order() {
    pipeline(&start(&[]), 10_000);
}

#[test]
fn more_requests_than_a_connection_may_have_under_way_wait_and_are_answered() {
    pipeline(&start(&[("zabra.limits.requestsPerConnection", "8")]), 2_000);
    pipeline(&start(&[("globalOutstandingLimit", "4")]), 2_000);
}

/// Calls until `until`, and says how long the slowest answer took.
fn slowest_answer(server: &Server, until: impl Fn() -> bool) -> Duration {
    let (mut conn, _) = connect(server.address(), 30_000);
    let mut slowest = Duration::ZERO;
    let mut counter = 0;
    while !until() {
        counter += 1;
        let started = Instant::now();
        assert!(conn.get("/").is_ok());
        assert_eq!(conn.create(&format!("/other{counter}"), b"x", 0), Ok(err::OK));
        slowest = slowest.max(started.elapsed());
    }
    slowest
}

#[test]
fn who_reads_no_replies_is_not_read_and_costs_little() {
    let server = start(&[]);
    let (mut conn, _) = connect(server.address(), 30_000);
    assert_eq!(conn.create("/large", &vec![1; 900_000], 0), Ok(err::OK));
    let before = resident_bytes(&server);
    let body = read_body("/large", false);
    let started = Instant::now();
    let slowest = std::thread::scope(|scope| {
        // 9 GB of replies, if anybody read them.
        let asker = scope.spawn(move || {
            for xid in 1..=10_000 {
                conn.send(xid, op::GET_DATA, &body).expect("there is room for requests");
            }
            conn
        });
        let slowest = slowest_answer(&server, || started.elapsed() > Duration::from_secs(2));
        let mut conn = asker.join().expect("all requests are sent");
        let growth = resident_bytes(&server).saturating_sub(before);
        assert!(growth < 48 << 20, "grew by {growth} bytes");
        // It was never lost: once it reads, it is served.
        for xid in 1..=50 {
            let Received::Frame(frame) = conn.receive(SOON) else { panic!("no reply {xid}") };
            assert_eq!(Reply::parse(&frame).expect("a reply").xid, xid);
        }
        slowest
    });
    assert!(slowest < ANSWER_LIMIT, "another client waited {slowest:?}");
    assert_unharmed(&server);
}

#[test]
fn who_reads_no_events_is_cut_off_and_costs_little() {
    let server = start(&[("zabra.limits.outboxBytesPerConnection", "1048576")]);
    let (mut writer, _) = connect(server.address(), 30_000);
    let path = format!("/{}", "x".repeat(60_000));
    assert_eq!(writer.create(&path, b"", 0), Ok(err::OK));
    let (mut deaf, session) = connect(server.address(), 30_000);
    // Persistent and recursive.
    let watch = Writer::new().string(&path).int(1).done();
    assert_eq!(deaf.call(op::ADD_WATCH, &watch).map(|reply| reply.err), Ok(err::OK));
    let before = resident_bytes(&server);
    let mut slowest = Duration::ZERO;
    // 60 MB of events: more than the sockets of both sides hold.
    for _ in 0..1_000 {
        let started = Instant::now();
        assert_eq!(writer.set(&path, b"y", -1), Ok(err::OK));
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < ANSWER_LIMIT, "the writer waited {slowest:?}");
    let growth = resident_bytes(&server).saturating_sub(before);
    assert!(growth < 32 << 20, "grew by {growth} bytes");
    let mut events = 0;
    loop {
        match deaf.receive(SOON) {
            Received::Frame(_) => events += 1,
            Received::Closed => break,
            Received::Silence => panic!("it was never cut off: {events} events"),
        }
    }
    assert!(events < 1_000, "{events} events fitted in");
    // The session is not lost with the connection.
    let resume = ConnectRequest { session: session.clone(), ..ConnectRequest::new(30_000) };
    let (_, connected) = Conn::connect(server.address(), &resume).expect("resumed");
    assert_eq!(connected.session.id, session.id);
    assert_unharmed(&server);
}

#[test]
fn frames_that_trickle_in_are_put_together() {
    let server = start(&[]);
    let (mut conn, _) = connect(server.address(), 30_000);
    let (mut other, _) = connect(server.address(), 30_000);
    let create = framed(&request(1, op::CREATE, &create_body("/slow", Some(b"abc"), &Acl::open(), 0)));
    let read = framed(&request(2, op::GET_DATA, &read_body("/slow", false)));
    for byte in create.iter().chain(&read) {
        conn.send_raw(&[*byte]).expect("sent");
        std::thread::sleep(Duration::from_millis(1));
        assert!(other.get("/").is_ok());
    }
    for xid in [1, 2] {
        let Received::Frame(frame) = conn.receive(SOON) else { panic!("no answer to {xid}") };
        let reply = Reply::parse(&frame).expect("a reply");
        assert_eq!((reply.xid, reply.err), (xid, err::OK));
    }
    // Half a frame, and away: nothing of it happens.
    let half = framed(&request(3, op::DELETE, &Writer::new().string("/slow").int(-1).done()));
    conn.send_raw(&half[..half.len() - 1]).expect("sent");
    drop(conn);
    assert_eq!(other.get("/slow"), Ok(Some(b"abc".to_vec())));
}

/// All but the last byte of a large frame, from each of many: those with the largest go, and nobody else notices.
#[test]
fn a_crowd_that_does_not_finish_its_frames_is_thinned_out_and_small_requests_are_served() {
    const CROWD: usize = 24;
    let server = start(&[("zabra.limits.inputBytes", "4194304")]);
    let (mut small, _) = connect(server.address(), 30_000);
    let (mut started, _) = connect(server.address(), 30_000);
    let create = framed(&request(1, op::CREATE, &create_body("/begun", Some(&[1; 12_000]), &Acl::open(), 0)));
    started.send_raw(&create[..create.len() - 1]).expect("sent");
    let large = framed(&create_frame("/large", FRAME_REFUSED - 1));
    let mut crowd: Vec<Conn> = (0..CROWD).map(|_| connect(server.address(), 30_000).0).collect();
    for conn in &mut crowd {
        // It may be closed while it is at it.
        let _ = conn.send_raw(&large[..large.len() - 1]);
        assert!(small.get("/").is_ok());
    }
    // Who is still there finishes its frame, and is answered.
    let mut served = 0;
    for conn in &mut crowd {
        let _ = conn.send_raw(&large[large.len() - 1..]);
        served += usize::from(matches!(conn.receive(SOON), Received::Frame(_)));
    }
    assert!((1..=4).contains(&served), "{served} frames of 1 MiB in a budget of 4 MiB");
    started.send_raw(&create[create.len() - 1..]).expect("sent");
    let Received::Frame(frame) = started.receive(SOON) else { panic!("a frame of 12 KiB is let be") };
    assert_eq!(Reply::parse(&frame).expect("a reply").err, err::OK);
    // What was held is given back: as much again fits, one after the other.
    for _ in 0..8 {
        let (mut conn, _) = connect(server.address(), 30_000);
        conn.send_raw(&large).expect("sent");
        assert!(matches!(conn.receive(SOON), Received::Frame(_)));
    }
    assert_unharmed(&server);
}

#[test]
fn an_idle_connection_costs_less_than_twenty_kilobytes() {
    const COUNT: u64 = 2_000;
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let room = limit.maximum.unwrap_or(65_536).min(65_536);
    if room < COUNT + 500 {
        eprintln!("skipped: needs {} open files, may have {room}", COUNT + 500);
        return;
    }
    limit.current = Some(limit.current.unwrap_or(room).max(room));
    setrlimit(Resource::Nofile, limit).expect("within the hard limit");
    let server = start(&[]);
    let mut conns: Vec<Conn> = (0..50).map(|_| connect(server.address(), 30_000).0).collect();
    let before = resident_bytes(&server);
    let started = Instant::now();
    conns.extend((0..COUNT).map(|_| connect(server.address(), 30_000).0));
    let each = resident_bytes(&server).saturating_sub(before) / COUNT;
    assert!(each < 20_000, "{each} bytes per connection");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    for conn in conns.iter_mut().step_by(100) {
        assert_eq!(conn.call(op::PING, &[]).map(|reply| reply.err), Ok(err::OK));
    }
}

#[test]
fn an_unknown_operation_is_answered() {
    let server = start(&[]);
    for code in [-1, -10, 10, 13, 99, 108, 1_000_000, i32::MIN, i32::MAX] {
        let (mut conn, _) = connect(server.address(), 10_000);
        let answer = conn.call(code, b"whatever").map(|reply| reply.err);
        assert!(
            matches!(answer, Ok(err::UNIMPLEMENTED)) || answer == Err("closed".into()),
            "{code}: {answer:?}"
        );
    }
    assert_unharmed(&server);
}

/// Bytes that look like a frame in some way.
fn garbage(rng: &mut Rng) -> Vec<u8> {
    const CODES: [i32; 28] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 100, 101, 102, 103, 105,
        106, -11,
    ];
    let noise = |rng: &mut Rng| -> Vec<u8> { (0..rng.below(200)).map(|_| rng.next_u64() as u8).collect() };
    let code = CODES[rng.below(CODES.len() as u64) as usize];
    let xid = if rng.one_in(8) { -(rng.below(9) as i32) } else { rng.below(1_000) as i32 };
    match rng.below(6) {
        0 => noise(rng),
        1 => framed(&noise(rng)),
        2 => framed(&request(xid, code, &noise(rng))),
        // A good body for some operation, bent in one place.
        3 => {
            let mut body = create_body(
                &format!("/g{}", rng.below(50)),
                Some(b"data"),
                &Acl::open(),
                rng.below(8) as i32,
            );
            let at = rng.below(body.len() as u64) as usize;
            body[at] = rng.next_u64() as u8;
            framed(&request(xid, code, &body))
        }
        // Cut short inside, with a length that fits.
        4 => {
            let body = create_body("/g", Some(b"data"), &Acl::open(), 0);
            framed(&request(xid, code, &body[..rng.below(body.len() as u64) as usize]))
        }
        _ => framed(&request(xid, code, &read_body(&format!("/g{}", rng.below(50)), rng.one_in(2)))),
    }
}

#[test]
fn garbage_over_many_connections_harms_nobody() {
    let server = start(&[]);
    let (mut other, _) = connect(server.address(), 30_000);
    assert_eq!(other.create("/other", b"kept", 0), Ok(err::OK));
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut conn = Conn::open(server.address()).expect("open");
        if !rng.one_in(4) {
            conn.handshake(&ConnectRequest::new(4_000)).expect("an answer or a close");
        }
        for _ in 0..rng.below(30) {
            if conn.send_raw(&garbage(&mut rng)).is_err() {
                break;
            }
        }
        // Some read what comes, some go at once.
        if rng.one_in(3) {
            while let Received::Frame(_) = conn.receive(Duration::from_millis(5)) {}
        }
        assert_eq!(other.get("/other"), Ok(Some(b"kept".to_vec())), "seed {seed}");
    }
    assert_eq!(other.set("/other", b"still", -1), Ok(err::OK));
    assert_unharmed(&server);
}

/// Closed with bytes of its unread, a socket is reset, and the client may lose the reply that is on its way.
#[test]
fn a_last_reply_arrives_whatever_the_client_sent_behind_its_request() {
    let server = start(&[]);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address()).expect("open");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let sent = [&b"srvr\n"[..], &[b' '; 60_000]].concat();
        stream.write_all(&sent).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an orderly end");
        assert!(reply.starts_with("Zookeeper version: ") && reply.contains("Mode: standalone"), "{reply}");
    }
}
