//! Sessions that only one node knows, and what a node without a quorum still does.

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::{EPHEMERAL, err};
use crate::common::client::{Conn, ConnectRequest, Received, op};

/// Error code of an ephemeral node for a session that is not known everywhere.
const EPHEMERAL_ON_LOCAL_SESSION: i32 = -120;

/// Error code of a write without a quorum.
const NOT_READ_ONLY: i32 = -119;

fn sessions(cluster: &Cluster, id: usize) -> u64 {
    cluster.node(id).figure("global_sessions").expect("a figure")
}

fn close(conn: &mut Conn) -> i32 {
    conn.call(op::CLOSE_SESSION, &[]).expect("an answer").err
}

#[test]
fn a_local_session_reads_and_writes_and_costs_no_transaction() {
    let cluster = Cluster::new(3, 0).config("localSessionsEnabled", "true").started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    for id in [leader, follower] {
        let (mut conn, connected) = cluster.node(id).connect_with(&ConnectRequest::new(10_000));
        assert_eq!(conn.create(&format!("/by{id}"), b"", 0), Ok(err::OK));
        assert_eq!(conn.create("/mine", b"", EPHEMERAL), Ok(EPHEMERAL_ON_LOCAL_SESSION));
        assert_eq!(sessions(&cluster, id), 0, "no transaction made it");
        // It is known to this node, and to no other.
        drop(conn);
        let (conn, again) = cluster.node(id).resume(&connected.session, 10_000);
        assert_eq!(again.session, connected.session);
        let other = cluster.others(id)[0];
        let (_, elsewhere) = cluster.node(other).resume(&connected.session, 10_000);
        assert_eq!((elsewhere.timeout_ms, elsewhere.session.id), (0, 0), "expired, as far as others know");
        drop(conn);
        let (mut conn, _) = cluster.node(id).resume(&connected.session, 10_000);
        assert_eq!(close(&mut conn), err::OK);
        let (_, closed) = cluster.node(id).resume(&connected.session, 10_000);
        assert_eq!(closed.session.id, 0);
    }
}

#[test]
fn a_local_session_that_nothing_is_heard_of_expires_where_it_is() {
    let cluster = Cluster::new(3, 0).config("localSessionsEnabled", "true").started();
    let (mut conn, _) = cluster.node(cluster.follower()).connect_with(&ConnectRequest::new(1_000));
    assert_eq!(conn.receive(LIMIT), Received::Closed);
}

#[test]
fn a_local_session_is_upgraded_by_its_first_ephemeral_node() {
    let cluster = Cluster::new(3, 0).config("localSessionsEnabled", "true");
    let cluster = cluster.config("localSessionsUpgradingEnabled", "true").started();
    for id in [cluster.wait_leader(LIMIT), cluster.follower()] {
        let (mut conn, connected) = cluster.node(id).connect_with(&ConnectRequest::new(10_000));
        let path = format!("/by{id}");
        assert_eq!(conn.create(&path, b"", EPHEMERAL), Ok(err::OK));
        assert_eq!(sessions(&cluster, id), 1);
        let other = cluster.others(id)[0];
        let (mut moved, again) = cluster.node(other).resume(&connected.session, 10_000);
        assert_eq!(again.session, connected.session, "everybody knows it now");
        assert_eq!(moved.sync("/"), Ok(err::OK));
        assert_eq!(moved.get(&path), Ok(Some(Vec::new())));
        assert_eq!(close(&mut moved), err::OK);
        wait_until("its node goes with it", LIMIT, || {
            (cluster.node(id).connect().get(&path) == Ok(None)).then_some(())
        });
    }
}

#[test]
fn a_node_without_a_quorum_lets_those_read_who_asked_for_it() {
    let mut cluster = Cluster::new(3, 0).config("localSessionsEnabled", "true");
    cluster = cluster.property("readonlymode.enabled", "true").started();
    let mut conn = cluster.node(1).connect();
    assert_eq!(conn.create("/a", b"committed", 0), Ok(err::OK));
    assert_eq!(conn.sync("/"), Ok(err::OK));
    [2, 3].iter().for_each(|id| cluster.kill(*id));
    assert_eq!(conn.receive(LIMIT), Received::Closed, "what was asked for has no known outcome");
    wait_until("it is read-only", LIMIT, || (cluster.node(1).word("isro")? == "ro").then_some(()));
    assert!(
        cluster.node(1).try_connect(&ConnectRequest::new(10_000)).is_err(),
        "a client that wants to write"
    );
    let reads = ConnectRequest { read_only: Some(true), ..ConnectRequest::new(10_000) };
    let (mut conn, connected) = cluster.node(1).connect_with(&reads);
    assert_eq!(connected.read_only, Some(true), "it is told so");
    assert_eq!(conn.get("/a"), Ok(Some(b"committed".to_vec())));
    assert_eq!(conn.set("/a", b"", -1), Ok(NOT_READ_ONLY));
    assert_eq!(conn.sync("/"), Ok(NOT_READ_ONLY));
    assert_eq!(conn.get("/a"), Ok(Some(b"committed".to_vec())));
    [2, 3].iter().for_each(|id| cluster.start(*id));
    assert_eq!(conn.receive(LIMIT), Received::Closed, "with a quorum there is better");
    cluster.wait_all_serve();
    assert_eq!(cluster.node(1).connect().set("/a", b"", -1), Ok(err::OK));
}

#[test]
fn a_node_without_a_quorum_does_not_judge_whose_session_is_over() {
    let mut cluster = Cluster::new(3, 0).property("readonlymode.enabled", "true").started();
    let (mut owner, connected) = cluster.node(1).connect_with(&ConnectRequest::new(40_000));
    assert_eq!(owner.create("/mine", b"", EPHEMERAL), Ok(err::OK));
    [2, 3].iter().for_each(|id| cluster.kill(*id));
    assert_eq!(owner.receive(LIMIT), Received::Closed);
    wait_until("it is read-only", LIMIT, || (cluster.node(1).word("isro")? == "ro").then_some(()));
    let again = ConnectRequest {
        session: connected.session.clone(),
        read_only: Some(true),
        ..ConnectRequest::new(40_000)
    };
    let told = cluster.node(1).try_connect(&again);
    assert!(told.is_err(), "closed without an answer, not told that it has expired: {told:?}");
    [2, 3].iter().for_each(|id| cluster.start(*id));
    cluster.wait_all_serve();
    let (mut owner, resumed) = cluster.node(1).resume(&connected.session, 40_000);
    assert_eq!(resumed.session.id, connected.session.id);
    assert_eq!(owner.get("/mine"), Ok(Some(Vec::new())));
}
