//! Sessions, ephemeral nodes and watches of clients that are not with the leader, or do not stay where they were.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::{EPHEMERAL, err};
use crate::common::client::{Conn, ConnectRequest, Connected, Received, Reply, Session, op, read_body, xid};
use crate::common::jute::Reader;

/// Between half a tick of the clients here and what they can get.
const SHORT_MS: i32 = 1_000;

/// Error code of a write whose session is on another node by now.
const SESSION_MOVED: i32 = -118;

/// A session of ten seconds with an ephemeral node.
fn with_ephemeral(cluster: &Cluster, id: usize, path: &str) -> (Conn, Session) {
    let (mut conn, connected) = cluster.node(id).connect_with(&ConnectRequest::new(10_000));
    assert_eq!(conn.create(path, b"here", EPHEMERAL), Ok(err::OK));
    (conn, connected.session)
}

/// Waits until the node is gone, everywhere.
fn wait_gone(cluster: &Cluster, path: &str) {
    for id in cluster.all().filter(|id| cluster.node(*id).runs()) {
        let mut conn = cluster.node(id).connect();
        wait_until(&format!("{path} goes on node {id}"), LIMIT, || {
            (conn.get(path) == Ok(None)).then_some(())
        });
    }
}

/// Closes a session; the error code.
fn close(conn: &mut Conn) -> i32 {
    conn.call(op::CLOSE_SESSION, &[]).expect("an answer").err
}

#[test]
fn a_session_moves_with_its_ephemeral_nodes_and_ends_when_it_is_closed() {
    let cluster = Cluster::new(3, 1).started();
    let (mut conn, session) = with_ephemeral(&cluster, 1, "/mine");
    // To every other node, and back to the first, with all connections of before left open.
    let mut before = Vec::new();
    for id in [2, 3, 4, 1] {
        let (mut next, connected) = cluster.node(id).resume(&session, 10_000);
        assert_eq!(connected.session, session, "to node {id}");
        assert_eq!(next.sync("/"), Ok(err::OK));
        assert_eq!(next.get("/mine"), Ok(Some(b"here".to_vec())));
        assert_eq!(next.set("/mine", b"here", -1), Ok(err::OK));
        before.push(std::mem::replace(&mut conn, next));
    }
    assert_eq!(conn.create("/mine-too", b"", EPHEMERAL), Ok(err::OK));
    for conn in &mut before {
        // What it had is with another connection now: it is told so, or closed.
        let refused = conn.set("/mine", b"old", -1);
        assert!(matches!(refused, Ok(SESSION_MOVED) | Err(_)), "{refused:?}");
    }
    assert_eq!(conn.get("/mine"), Ok(Some(b"here".to_vec())));
    assert_eq!(close(&mut conn), err::OK);
    wait_gone(&cluster, "/mine");
    wait_gone(&cluster, "/mine-too");
    for id in cluster.all() {
        assert_eq!(cluster.node(id).resume(&session, 10_000).1.session.id, 0, "it is over, on node {id}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_session_are_expired_everywhere() {
    let cluster = Cluster::new(3, 1).started();
    let (_conn, session) = with_ephemeral(&cluster, 1, "/mine");
    for id in cluster.all() {
        let wrong = Session { password: vec![7; 16], ..session.clone() };
        let unknown = Session { id: session.id + 1_000, ..session.clone() };
        for session in [wrong, unknown] {
            let (mut conn, connected) = cluster.node(id).resume(&session, 10_000);
            let expired = Connected { timeout_ms: 0, session: Session::none(), read_only: Some(false) };
            assert_eq!(connected, expired, "node {id}");
            assert_eq!(conn.receive(LIMIT), Received::Closed);
        }
    }
    assert_eq!(cluster.node(2).connect().get("/mine"), Ok(Some(b"here".to_vec())));
}

#[test]
fn the_leader_expires_silent_sessions_of_followers_and_keeps_those_that_ping() {
    let cluster = Cluster::new(3, 1).started();
    let followers: Vec<usize> =
        cluster.all().filter(|id| cluster.node(*id).mode().as_deref() != Some("leader")).collect();
    let mut talking = Vec::new();
    let mut silent = Vec::new();
    for id in &followers {
        let (mut conn, _) = cluster.node(*id).connect_with(&ConnectRequest::new(SHORT_MS));
        assert_eq!(conn.create(&format!("/talks{id}"), b"", EPHEMERAL), Ok(err::OK));
        talking.push(conn);
        let (mut conn, connected) = cluster.node(*id).connect_with(&ConnectRequest::new(SHORT_MS));
        assert_eq!(conn.create(&format!("/silent{id}"), b"", EPHEMERAL), Ok(err::OK));
        silent.push((conn, connected.session));
    }
    let began = Instant::now();
    let mut look = cluster.node(followers[0]).connect();
    let mut gone = None;
    // Three times as long as a session may be silent.
    while began.elapsed() < Duration::from_millis(3 * SHORT_MS as u64) {
        talking
            .iter_mut()
            .for_each(|conn| assert_eq!(conn.call(op::PING, &[]).expect("it lives").err, err::OK));
        let left = followers.iter().filter(|id| look.get(&format!("/silent{id}")) != Ok(None)).count();
        if left == 0 {
            gone.get_or_insert(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let gone = gone.expect("silent sessions expire");
    assert!(gone >= Duration::from_millis(SHORT_MS as u64 / 2), "{gone:?}");
    for id in &followers {
        assert_eq!(look.get(&format!("/talks{id}")), Ok(Some(vec![])), "sessions that ping stay");
    }
    for (mut conn, session) in silent {
        assert_eq!(conn.receive(LIMIT), Received::Closed);
        assert_eq!(cluster.node(followers[1]).resume(&session, SHORT_MS).1.session.id, 0);
    }
}

#[test]
fn a_session_outlives_its_node_and_the_leader_and_expires_under_the_next() {
    let mut cluster = Cluster::new(3, 0).started();
    let leader = cluster.wait_leader(LIMIT);
    let follower = cluster.follower();
    let (_stays, kept) = with_ephemeral(&cluster, leader, "/kept");
    let (mut conn, _) = cluster.node(follower).connect_with(&ConnectRequest::new(SHORT_MS));
    assert_eq!(conn.create("/lost", b"", EPHEMERAL), Ok(err::OK));
    cluster.kill(leader);
    let next = cluster.wait_leader_but(leader, LIMIT);
    let (mut back, connected) = cluster.node(next).resume(&kept, 10_000);
    assert_eq!(connected.session, kept);
    assert_eq!(back.get("/kept"), Ok(Some(b"here".to_vec())));
    drop(conn);
    wait_gone(&cluster, "/lost");
    assert_eq!(back.get("/kept"), Ok(Some(b"here".to_vec())));
    assert_eq!(close(&mut back), err::OK);
    cluster.start(leader);
    cluster.wait_all_serve();
    wait_gone(&cluster, "/kept");
}

#[test]
fn watches_on_every_node_fire_for_writes_made_elsewhere() {
    let cluster = Cluster::new(3, 1).started();
    let mut writer = cluster.node(1).connect();
    assert_eq!(writer.create("/w", b"", 0), Ok(err::OK));
    let mut watchers: Vec<Conn> = cluster.all().map(|id| cluster.node(id).connect()).collect();
    for (n, by) in cluster.all().enumerate() {
        for conn in &mut watchers {
            assert_eq!(conn.sync("/w"), Ok(err::OK));
            assert_eq!(conn.call(op::GET_DATA, &read_body("/w", true)).expect("an answer").err, err::OK);
        }
        assert_eq!(cluster.node(by).connect().set("/w", b"new", n as i32), Ok(err::OK));
        for (at, conn) in watchers.iter_mut().enumerate() {
            let Received::Frame(frame) = conn.receive(LIMIT) else { panic!("no event on node {}", at + 1) };
            let event = Reply::parse(&frame).expect("whole");
            assert_eq!(event.xid, xid::EVENT);
            let mut reader = Reader::new(&event.body);
            let (kind, state) = (reader.int(), reader.int());
            assert_eq!((kind, state, reader.string().as_deref()), (Ok(3), Ok(3), Ok("/w")));
            // Watch before data: who has the event sees the write.
            assert_eq!(conn.get("/w"), Ok(Some(b"new".to_vec())));
        }
    }
}

#[test]
fn writes_of_one_client_through_a_follower_keep_their_order() {
    let cluster = Cluster::new(3, 0).started();
    let mut conn = cluster.node(cluster.follower()).connect();
    assert_eq!(conn.create("/o", b"", 0), Ok(err::OK));
    let mut expected = Vec::new();
    for n in 0..500_i32 {
        // Every third fails, which must not disturb the others; a read behind each write sees it.
        let version = if n % 3 == 2 { 1_000_000 } else { -1 };
        let body = crate::common::calls::set_body("/o", n.to_string().as_bytes(), version);
        let (set, get) = (conn.take_xid(), conn.take_xid());
        conn.send(set, op::SET_DATA, &body).expect("sent");
        conn.send(get, op::GET_DATA, &read_body("/o", false)).expect("sent");
        expected.push((set, if n % 3 == 2 { err::BAD_VERSION } else { err::OK }));
        expected.push((get, err::OK));
    }
    let mut last = 0;
    for (n, (xid, err)) in expected.into_iter().enumerate() {
        let Received::Frame(frame) = conn.receive(LIMIT) else { panic!("no reply {n}") };
        let reply = Reply::parse(&frame).expect("whole");
        assert_eq!((reply.xid, reply.err), (xid, err), "reply {n}");
        assert!(reply.zxid >= last, "zxids go up");
        last = reply.zxid;
        if n % 2 == 1 {
            let write = n as i32 / 2;
            let seen = if write % 3 == 2 { write - 1 } else { write };
            let data = Reader::new(&reply.body).buffer().expect("whole");
            assert_eq!(data, Some(seen.to_string().as_bytes()), "the read behind write {write}");
        }
    }
}

#[test]
fn many_sessions_move_at_once_from_node_to_node_and_none_is_lost() {
    let mut cluster = Cluster::new(3, 0).started();
    let mut at = cluster.follower();
    let many: Vec<(Conn, Session)> =
        (0..150).map(|n| with_ephemeral(&cluster, at, &format!("/mine{n}"))).collect();
    let sessions: Vec<Session> = many.iter().map(|(_, session)| session.clone()).collect();
    // Away from a follower, from a leader, and from whoever it is then.
    for _ in 0..3 {
        cluster.kill(at);
        let others = cluster.others(at);
        cluster.wait_serving(&others);
        let connect = |(n, session): (usize, &Session)| {
            let (mut conn, connected) = cluster.node(others[n % 2]).resume(session, 10_000);
            assert_eq!(connected.session, *session, "session {n}");
            assert_eq!(conn.get(&format!("/mine{n}")), Ok(Some(b"here".to_vec())));
            assert_eq!(conn.set(&format!("/mine{n}"), b"here", -1), Ok(err::OK));
            conn
        };
        let parts: Vec<_> = sessions.iter().enumerate().collect();
        let conns: Vec<Conn> = std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .chunks(40)
                .map(|part| scope.spawn(|| part.iter().copied().map(connect).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no failure")).collect()
        });
        assert_eq!(conns.len(), sessions.len());
        cluster.start(at);
        cluster.wait_all_serve();
        at = cluster.wait_leader(LIMIT);
    }
    let mut look = cluster.node(cluster.follower()).connect();
    assert_eq!(look.sync("/"), Ok(err::OK));
    let names = look.children("/").expect("an answer");
    assert_eq!(names.iter().filter(|name| name.starts_with("mine")).count(), sessions.len());
}
