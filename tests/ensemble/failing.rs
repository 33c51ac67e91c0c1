//! Nodes that die or fall silent: who takes over, how soon, and what is still there.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::err;
use crate::common::client::{Received, create_body, op, read_body};
use crate::common::jute::{Acl, Writer};
use crate::hang::Hang;
use crate::load::{Load, assert_all_have};

/// Another node leads within this after the leader's process has died: its closed connections say so.
const TAKE_OVER_KILLED: Duration = Duration::from_secs(1);

/// The same after it has fallen silent: `zabra.liveness.timeoutMs` is 800.
const TAKE_OVER_SILENT: Duration = Duration::from_secs(2);

/// Repeats of what has to be fast: other programs may take this machine's time.
const TRIES: usize = 3;

/// Asserts that the fastest of several is fast enough.
fn assert_fast(took: &[Duration], limit: Duration) {
    println!("{took:?}");
    assert!(took.iter().any(|took| *took <= limit), "{took:?}, but {limit:?} are allowed");
}

#[test]
fn another_leads_within_a_second_when_the_leader_is_killed() {
    let mut cluster = Cluster::new(3, 0).started();
    let (mut took, mut acknowledged) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        let leader = cluster.wait_leader(LIMIT);
        let mut conn = cluster.node(cluster.follower()).connect();
        for m in 0..20 {
            let path = format!("/n{n}-{m}");
            assert_eq!(conn.create(&path, path.as_bytes(), 0), Ok(err::OK));
            acknowledged.push(path);
        }
        let began = Instant::now();
        cluster.kill(leader);
        let next = cluster.wait_leader_but(leader, LIMIT);
        let path = format!("/after{n}");
        assert_eq!(cluster.node(next).connect().create(&path, path.as_bytes(), 0), Ok(err::OK));
        took.push(began.elapsed());
        acknowledged.push(path);
        cluster.start(leader);
        cluster.wait_all_serve();
    }
    assert_fast(&took, TAKE_OVER_KILLED);
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn a_paused_leader_is_replaced_and_steps_down_when_it_goes_on() {
    let mut cluster = Cluster::new(3, 0).started();
    let (mut took, mut acknowledged) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        let leader = cluster.wait_leader(LIMIT);
        let mut old = cluster.node(leader).connect();
        let mut reader = cluster.node(leader).connect();
        let began = Instant::now();
        cluster.pause(leader);
        // It will find this when it goes on.
        let unsaid = format!("/unsaid{n}");
        let xid = old.take_xid();
        old.send(xid, op::CREATE, &create_body(&unsaid, Some(unsaid.as_bytes()), &Acl::open(), 0))
            .expect("sent");
        let (sync, get) = (reader.take_xid(), reader.take_xid());
        reader.send(sync, op::SYNC, &Writer::new().string("/").done()).expect("sent");
        let path = format!("/after{n}");
        reader.send(get, op::GET_DATA, &read_body(&path, false)).expect("sent");
        let next = cluster.wait_leader_but(leader, LIMIT);
        let mut conn = cluster.node(next).connect();
        assert_eq!(conn.create(&path, path.as_bytes(), 0), Ok(err::OK));
        took.push(began.elapsed());
        acknowledged.push(path.clone());
        cluster.resume(leader);
        assert_eq!(old.receive(LIMIT), Received::Closed, "a leader of the past answers nobody");
        assert_eq!(reader.receive(LIMIT), Received::Closed, "what it has is old, and it was asked to sync");
        cluster.wait_serving(&[leader]);
        assert_eq!(cluster.node(leader).mode().as_deref(), Some("follower"));
        let mut back = cluster.node(leader).connect();
        assert_eq!(back.sync("/"), Ok(err::OK));
        assert_eq!(back.get(&path), Ok(Some(path.into_bytes())));
    }
    assert_fast(&took, TAKE_OVER_SILENT);
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn silent_connections_on_the_quorum_port_keep_nobody_out() {
    let mut cluster = Cluster::new(3, 0).started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    let silent: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(cluster.node(leader).quorum_address()).expect("it listens"))
        .collect();
    cluster.kill(follower);
    cluster.start(follower);
    cluster.wait_serving(&[follower]);
    drop(silent);
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced_and_lets_its_clients_go() {
    let Some(hang) = Hang::new() else { return };
    let cluster = Cluster::new(3, 0).with_hang(&hang).started();
    let leader = cluster.wait_leader(LIMIT);
    let (mut writer, mut reader) = (cluster.node(leader).connect(), cluster.node(leader).connect());
    for n in 0..50 {
        let path = format!("/before{n}");
        assert_eq!(
            writer.create(&path, b"", 0),
            Ok(err::OK),
            "flushes are fast, and made where they are asked for"
        );
    }
    hang.begin(leader);
    let xid = writer.take_xid();
    writer.send(xid, op::CREATE, &create_body("/hangs", Some(b""), &Acl::open(), 0)).expect("sent");
    let next = cluster.wait_leader_but(leader, LIMIT);
    assert_eq!(cluster.node(next).connect().create("/after", b"", 0), Ok(err::OK));
    assert_eq!(reader.receive(LIMIT), Received::Closed, "while the disk still hangs");
    assert_eq!(writer.receive(LIMIT), Received::Closed, "a leader of the past answers nobody");
    hang.end(leader);
    cluster.wait_serving(&[leader]);
    assert_eq!(cluster.node(leader).connect().sync("/"), Ok(err::OK));
    assert_eq!(cluster.node(leader).connect().get("/after"), Ok(Some(Vec::new())));
}

#[test]
fn disks_that_hang_now_and_then_depose_nobody_and_lose_nothing() {
    let Some(hang) = Hang::new() else { return };
    let cluster = Cluster::new(3, 0).with_hang(&hang).started();
    let leader = cluster.wait_leader(LIMIT);
    let load = Load::start(&cluster, 4, 1);
    for n in 0..30 {
        let node = 1 + n % 3;
        load.wait_for(20);
        hang.begin(node);
        // Longer than it takes until somebody stands in, and shorter than it takes until somebody is missed.
        std::thread::sleep(Duration::from_millis(60 + 5 * n as u64));
        hang.end(node);
    }
    let outcome = load.stop();
    assert_eq!(cluster.leader(), Some(leader), "nobody was deposed");
    assert!(cluster.all().all(|id| cluster.node(id).runs()), "nobody ended");
    assert!(cluster.logged(&["everything else goes on"]) > 0, "somebody stood in");
    assert_all_have(&cluster, &outcome.acknowledged);
}

#[test]
fn a_paused_follower_stops_nobody_and_comes_back() {
    let mut cluster = Cluster::new(3, 0).started();
    let follower = cluster.follower();
    let load = Load::start(&cluster, 2, 1);
    load.wait_for(50);
    cluster.pause(follower);
    load.wait_for(300);
    let leader = cluster.wait_leader(LIMIT);
    wait_until("the leader gives it up", LIMIT, || {
        (cluster.node(leader).logged(&["connection with a server closed"]) > 0).then_some(())
    });
    load.wait_for(50);
    cluster.resume(follower);
    load.wait_for(50);
    cluster.wait_all_serve();
    let outcome = load.stop();
    assert_eq!(cluster.leader(), Some(leader), "nobody was deposed");
    assert_all_have(&cluster, &outcome.acknowledged);
}

#[test]
fn without_a_quorum_nobody_serves_until_there_is_one_again() {
    let mut cluster = Cluster::new(3, 0).started();
    let leader = cluster.wait_leader(LIMIT);
    let followers = cluster.others(leader);
    let mut conn = cluster.node(leader).connect();
    assert_eq!(conn.create("/a", b"/a", 0), Ok(err::OK));
    cluster.kill_at_once(&followers);
    wait_until("the leader stops", LIMIT, || cluster.node(leader).mode().is_none().then_some(()));
    assert_eq!(conn.receive(LIMIT), Received::Closed, "its clients must look elsewhere");
    cluster.start(followers[1]);
    cluster.wait_all_serve();
    assert_eq!(cluster.node(leader).connect().create("/b", b"/b", 0), Ok(err::OK));
    cluster.start(followers[0]);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &["/a".into(), "/b".into()]);
}

#[test]
fn everything_acknowledged_survives_the_death_of_all_at_once() {
    let mut cluster = Cluster::new(3, 0).started();
    let all: Vec<usize> = cluster.all().collect();
    let load = Load::start(&cluster, 4, 1);
    for _ in 0..TRIES {
        load.wait_for(200);
        cluster.kill_at_once(&all);
        all.iter().for_each(|id| cluster.start(*id));
        cluster.wait_all_serve();
    }
    load.wait_for(50);
    let outcome = load.stop();
    assert!(outcome.reads > 0);
    assert_all_have(&cluster, &outcome.acknowledged);
}

#[test]
fn a_rolling_restart_under_load_loses_nothing() {
    let mut cluster = Cluster::new(3, 1).started();
    let load = Load::start(&cluster, 4, 2);
    for id in cluster.all() {
        load.wait_for(100);
        assert_eq!(cluster.stop(id), Some(0));
        load.wait_for(100);
        cluster.start(id);
        cluster.wait_all_serve();
    }
    load.wait_for(100);
    let outcome = load.stop();
    assert!(outcome.reads > 0);
    assert_all_have(&cluster, &outcome.acknowledged);
}
