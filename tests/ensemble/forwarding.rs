//! What a client asks of a node that does not lead: whoever answers, it must look the same.

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::{err, set_body};
use crate::common::client::{Conn, ConnectRequest, Received, Reply, create_body, op, read_body};
use crate::common::jute::{Acl, Reader, Writer};
use crate::load::assert_all_have;

/// ZooKeeper's frames have at most this length (`jute.maxbuffer`).
const FRAME_BYTES_MAX: usize = 0xf_ffff;

/// Error code of a write that the node's ACL does not allow.
const NO_AUTH: i32 = -102;

/// All kinds of nodes that clients can be with.
fn one_of_each(cluster: &Cluster) -> [usize; 3] {
    ["leader", "follower", "observer"].map(|mode| {
        cluster.all().find(|id| cluster.node(*id).mode().as_deref() == Some(mode)).expect("there is one")
    })
}

#[test]
fn the_largest_request_passes_through_every_node() {
    let cluster = Cluster::new(3, 1).started();
    for id in one_of_each(&cluster) {
        let mut conn = cluster.node(id).connect();
        let path = format!("/large-{id}");
        let head = create_body(&path, Some(b""), &Acl::open(), 0).len() + 8;
        let data = vec![id as u8; FRAME_BYTES_MAX - head];
        assert_eq!(conn.create(&path, &data, 0), Ok(err::OK), "node {id}");
        // Its ids travel with it: many of them, and the largest request.
        for n in 0..20 {
            let credentials = format!("user{n}:{}", "x".repeat(1_000));
            let auth = Writer::new().int(0).string("digest").buffer(Some(credentials.as_bytes())).done();
            assert_eq!(conn.call(op::AUTH, &auth).expect("an answer").err, err::OK);
        }
        assert_eq!(conn.set(&path, &data[..data.len() - 8], -1), Ok(err::OK), "node {id}");
        assert_eq!(conn.get(&path).map(|data| data.map(|data| data.len())), Ok(Some(data.len() - 8)));
    }
    assert_all_have(&cluster, &[]);
}

#[test]
fn who_a_client_is_goes_with_its_writes() {
    let cluster = Cluster::new(3, 1).started();
    let auth = Writer::new().int(0).string("digest").buffer(Some(b"me:secret")).done();
    for id in one_of_each(&cluster) {
        let mut conn = cluster.node(id).connect();
        let path = format!("/mine-{id}");
        assert_eq!(conn.call(op::AUTH, &auth).expect("an answer").err, err::OK);
        let creator = [Acl::new(31, "auth", "")];
        let created = conn.call(op::CREATE, &create_body(&path, Some(b"x"), &creator, 0)).expect("an answer");
        assert_eq!(created.err, err::OK, "node {id}");
        let by_address = [Acl::new(31, "ip", "127.0.0.1")];
        let body = create_body(&format!("/near-{id}"), Some(b"x"), &by_address, 0);
        assert_eq!(conn.call(op::CREATE, &body).expect("an answer").err, err::OK);
        for other in one_of_each(&cluster) {
            let mut stranger = cluster.node(other).connect();
            assert_eq!(stranger.sync("/"), Ok(err::OK));
            assert_eq!(stranger.set(&path, b"y", -1), Ok(NO_AUTH), "{path} through node {other}");
            assert_eq!(stranger.set(&format!("/near-{id}"), b"y", -1), Ok(err::OK));
            assert_eq!(stranger.call(op::AUTH, &auth).expect("an answer").err, err::OK);
            assert_eq!(stranger.set(&path, b"y", -1), Ok(err::OK), "{path} through node {other}");
        }
    }
}

/// Each write of a client takes all its identities to the leader.
#[test]
fn a_client_of_many_identities_costs_its_follower_little_memory() {
    let cluster = Cluster::new(3, 0).started();
    let node = cluster.node(cluster.follower());
    let mut conn = node.connect();
    assert_eq!(conn.create("/w", b"", 0), Ok(err::OK));
    for n in 0..60 {
        let credentials = [format!("u{n}").as_bytes(), &[0xff; 4_000]].concat();
        let auth = Writer::new().int(0).string("digest").buffer(Some(&credentials)).done();
        assert_eq!(conn.call(op::AUTH, &auth).expect("an answer").err, err::OK);
    }
    let writes: Vec<i32> = (0..400).map(|_| conn.take_xid()).collect();
    for xid in &writes {
        conn.send(*xid, op::SET_DATA, &set_body("/w", b"y", -1)).expect("sent");
    }
    for xid in writes {
        let Received::Frame(frame) = conn.receive(LIMIT) else { panic!("no answer to {xid}") };
        let reply = Reply::parse(&frame).expect("a reply");
        assert_eq!((reply.xid, reply.err), (xid, err::OK));
    }
    // They are 290 MB on the way.
    assert!(node.memory_peak_mib() < 100, "{} MiB", node.memory_peak_mib());
}

/// A burst of large writes is taken a piece at a time: nobody takes it for silence.
#[test]
fn large_writes_in_a_burst_disturb_no_leader() {
    let cluster = Cluster::new(3, 0).started();
    let leader = cluster.leader().expect("one leads");
    let mut conns: Vec<Conn> = (0..16).map(|_| cluster.node(leader).connect()).collect();
    for (n, conn) in conns.iter_mut().enumerate() {
        assert_eq!(conn.create(&format!("/large{n}"), b"", 0), Ok(err::OK));
    }
    let senders: Vec<_> = conns
        .into_iter()
        .enumerate()
        .map(|(n, mut conn)| {
            std::thread::spawn(move || {
                let body = set_body(&format!("/large{n}"), &vec![b'x'; 1_000_000], -1);
                let xids: Vec<i32> = (0..8).map(|_| conn.take_xid()).collect();
                xids.iter().for_each(|xid| conn.send(*xid, op::SET_DATA, &body).expect("sent"));
                for xid in xids {
                    let Received::Frame(frame) = conn.receive(LIMIT) else { panic!("no answer to {xid}") };
                    assert_eq!(Reply::parse(&frame).expect("a reply").err, err::OK);
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().expect("all are answered"));
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.node(leader).logged(&["stops leading"]), 0);
}

/// The body of a multi of sets.
fn multi(sets: &[(&str, i32)]) -> Vec<u8> {
    let set = |out: Writer, (path, version): &(&str, i32)| {
        let body = set_body(path, b"multi", *version);
        out.int(op::SET_DATA).boolean(false).int(-1).raw(&body)
    };
    sets.iter().fold(Writer::new(), set).int(-1).boolean(true).int(-1).done()
}

#[test]
fn a_multi_through_any_node_is_one_transaction() {
    let cluster = Cluster::new(3, 1).started();
    for id in one_of_each(&cluster) {
        let mut conn = cluster.node(id).connect();
        let (a, b) = (format!("/a{id}"), format!("/b{id}"));
        assert_eq!(conn.create(&a, b"", 0), Ok(err::OK));
        assert_eq!(conn.create(&b, b"", 0), Ok(err::OK));
        let done = conn.call(op::MULTI, &multi(&[(&a, 0), (&b, 0)])).expect("an answer");
        assert_eq!(done.err, err::OK);
        assert_eq!(conn.get(&b), Ok(Some(b"multi".to_vec())));
        let failed = conn.call(op::MULTI, &multi(&[(&a, 1), (&b, 7)])).expect("an answer");
        assert!(failed.err == err::OK || failed.err == err::BAD_VERSION, "{failed:?}");
        let mut reader = Reader::new(&failed.body);
        let (kind, done, code) = (reader.int(), reader.boolean(), reader.int());
        assert_eq!(
            (kind, done, code),
            (Ok(-1), Ok(false), Ok(0)),
            "the first is rolled back, without an error"
        );
        assert_eq!(reader.int(), Ok(0));
        let (kind, _, code) = (reader.int(), reader.boolean(), reader.int());
        assert_eq!((kind, code), (Ok(-1), Ok(err::BAD_VERSION)));
        assert_eq!(conn.set(&a, b"still version 1", 1), Ok(err::OK));
    }
}

#[test]
fn a_client_is_sent_away_by_a_node_that_is_behind_what_it_has_seen() {
    let cluster = Cluster::new(3, 0).started();
    for id in cluster.all() {
        let ahead = ConnectRequest { last_zxid_seen: 0x7f_0000_0001, ..ConnectRequest::new(10_000) };
        let refused = cluster.node(id).try_connect(&ahead).expect_err("it has seen the future");
        assert!(refused.contains("closed"), "{refused}");
    }
}

/// Sends `count` times a sync and a read behind it, at once.
fn send_syncs(conn: &mut Conn, path: &str, count: usize) -> Vec<(i32, i32)> {
    let mut sent = Vec::new();
    for _ in 0..count {
        let (sync, get) = (conn.take_xid(), conn.take_xid());
        conn.send(sync, op::SYNC, &Writer::new().string(path).done()).expect("sent");
        conn.send(get, op::GET_DATA, &read_body(path, false)).expect("sent");
        sent.push((sync, get));
    }
    sent
}

#[test]
fn syncs_of_many_clients_are_answered_in_order_among_writes() {
    let cluster = Cluster::new(3, 1).started();
    let mut writer = cluster.node(cluster.follower()).connect();
    assert_eq!(writer.create("/s", b"0", 0), Ok(err::OK));
    let mut readers: Vec<Conn> = Vec::new();
    for id in cluster.all() {
        (0..3).for_each(|_| readers.push(cluster.node(id).connect()));
    }
    for round in 1..=20 {
        let expected: Vec<_> = readers.iter_mut().map(|conn| send_syncs(conn, "/s", 5)).collect();
        assert_eq!(writer.set("/s", round.to_string().as_bytes(), -1), Ok(err::OK));
        for (conn, expected) in readers.iter_mut().zip(expected) {
            let mut least = round - 1;
            for (sync, get) in expected {
                let Received::Frame(frame) = conn.receive(LIMIT) else { panic!("no answer to sync {sync}") };
                let reply = Reply::parse(&frame).expect("whole");
                assert_eq!((reply.xid, reply.err), (sync, err::OK));
                let Received::Frame(frame) = conn.receive(LIMIT) else { panic!("no answer to get {get}") };
                let reply = Reply::parse(&frame).expect("whole");
                assert_eq!((reply.xid, reply.err), (get, err::OK));
                let data = Reader::new(&reply.body).buffer().expect("whole").unwrap_or_default();
                let seen: i32 = String::from_utf8_lossy(data).parse().expect("a number");
                assert!(seen >= least && seen <= round, "{seen} in round {round}, after {least}");
                least = seen;
            }
        }
    }
}

#[test]
fn the_leader_removes_containers_and_nodes_whose_time_has_come_on_all_nodes() {
    let cluster = Cluster::new(3, 1)
        .config("extendedTypesEnabled", "true")
        .property("znode.container.checkIntervalMs", "200")
        .started();
    let mut conn = cluster.node(cluster.follower()).connect();
    let container = create_body("/box", Some(b""), &Acl::open(), 4);
    assert_eq!(conn.call(op::CREATE_CONTAINER, &container).expect("an answer").err, err::OK);
    assert_eq!(conn.create("/box/a", b"", 0), Ok(err::OK));
    let brief = Writer::new().raw(&create_body("/brief", Some(b""), &Acl::open(), 5)).long(300).done();
    assert_eq!(conn.call(op::CREATE_TTL, &brief).expect("an answer").err, err::OK);
    let delete = Writer::new().string("/box/a").int(-1).done();
    assert_eq!(conn.call(op::DELETE, &delete).expect("an answer").err, err::OK);
    for id in cluster.all() {
        let mut conn = cluster.node(id).connect();
        wait_until(&format!("they go on node {id}"), LIMIT, || {
            (conn.get("/box") == Ok(None) && conn.get("/brief") == Ok(None)).then_some(())
        });
    }
}
