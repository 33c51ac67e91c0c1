//! How an ensemble comes to be: in any order, alone, cleanly stopped, with observers.

use std::time::Duration;

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::err;
use crate::load::assert_all_have;

#[test]
fn three_nodes_form_an_ensemble_and_each_of_them_serves() {
    let cluster = Cluster::new(3, 0).started();
    let modes: Vec<String> = cluster.all().filter_map(|id| cluster.node(id).mode()).collect();
    assert_eq!(modes.iter().filter(|mode| *mode == "leader").count(), 1, "{modes:?}");
    assert_eq!(modes.iter().filter(|mode| *mode == "follower").count(), 2, "{modes:?}");
    let mut acknowledged = Vec::new();
    for id in cluster.all() {
        let (mut conn, path) = (cluster.node(id).connect(), format!("/by-{id}"));
        assert_eq!(conn.create(&path, path.as_bytes(), 0), Ok(err::OK));
        // Its own write, without a sync.
        assert_eq!(conn.get(&path), Ok(Some(path.as_bytes().to_vec())));
        acknowledged.push(path);
    }
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn a_write_on_a_follower_is_seen_behind_sync_on_all_others() {
    let cluster = Cluster::new(3, 1).started();
    let follower = cluster.follower();
    let mut writer = cluster.node(follower).connect();
    let mut others: Vec<_> = cluster.others(follower).iter().map(|id| cluster.node(*id).connect()).collect();
    assert_eq!(writer.create("/a", b"", 0), Ok(err::OK));
    for n in 0..200 {
        let value = n.to_string().into_bytes();
        assert_eq!(writer.set("/a", &value, n), Ok(err::OK));
        for other in &mut others {
            assert_eq!(other.sync("/a"), Ok(err::OK));
            assert_eq!(other.get("/a"), Ok(Some(value.clone())));
        }
    }
}

#[test]
fn a_node_alone_serves_nobody_and_says_whom_it_misses() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start(2);
    wait_until("it answers", LIMIT, || cluster.node(2).word("ruok").filter(|text| text == "imok"));
    let text = wait_until("it answers", LIMIT, || cluster.node(2).word("srvr"));
    assert_eq!(text, "This ZooKeeper instance is not currently serving requests\n");
    assert!(cluster.node(2).try_connect(&crate::common::client::ConnectRequest::new(10_000)).is_err());
    wait_until("it says whom it misses", LIMIT, || {
        (cluster.node(2).logged(&["waiting for a quorum", "1, 3"]) > 0).then_some(())
    });
    // The last first; and none of them has to be there at any given time.
    cluster.start(3);
    cluster.wait_serving(&[2, 3]);
    assert_eq!(cluster.node(3).mode().as_deref(), Some("leader"), "equal histories: the greatest number");
    cluster.start(1);
    cluster.wait_serving(&[1]);
    assert_eq!(cluster.node(1).connect().create("/a", b"/a", 0), Ok(err::OK));
    assert_all_have(&cluster, &["/a".into()]);
}

#[test]
fn an_ensemble_that_was_stopped_cleanly_comes_back_with_everything() {
    let mut cluster = Cluster::new(3, 0).started();
    let mut conn = cluster.node(cluster.follower()).connect();
    let acknowledged: Vec<String> = (0..100).map(|n| format!("/n{n}")).collect();
    for path in &acknowledged {
        assert_eq!(conn.create(path, path.as_bytes(), 0), Ok(err::OK));
    }
    for id in cluster.all() {
        assert_eq!(cluster.stop(id), Some(0));
    }
    cluster.all().for_each(|id| cluster.start(id));
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn an_observer_serves_reads_and_forwards_writes_and_is_not_needed() {
    let mut cluster = Cluster::new(3, 2).started();
    assert_eq!(cluster.node(4).mode().as_deref(), Some("observer"));
    let mut conn = cluster.node(4).connect();
    assert_eq!(conn.create("/a", b"/a", 0), Ok(err::OK));
    assert_eq!(conn.get("/a"), Ok(Some(b"/a".to_vec())));
    let mut other = cluster.node(5).connect();
    assert_eq!(other.sync("/a"), Ok(err::OK));
    assert_eq!(other.get("/a"), Ok(Some(b"/a".to_vec())));
    // Two followers gone: two observers make no quorum.
    let followers: Vec<usize> =
        (1..=3).filter(|id| cluster.node(*id).mode().as_deref() == Some("follower")).collect();
    cluster.kill_at_once(&followers);
    wait_until("nobody serves", LIMIT, || {
        cluster.all().all(|id| cluster.node(id).mode().is_none()).then_some(())
    });
    cluster.start(followers[0]);
    cluster.wait_all_serve();
    assert_eq!(cluster.node(5).connect().create("/b", b"/b", 0), Ok(err::OK));
    cluster.start(followers[1]);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &["/a".into(), "/b".into()]);
}

#[test]
fn five_nodes_go_on_without_two() {
    let mut cluster = Cluster::new(5, 0).started();
    let leader = cluster.wait_leader(LIMIT);
    let other = cluster.others(leader)[0];
    let mut acknowledged = Vec::new();
    let mut write = |cluster: &Cluster, name: &str| {
        let id = cluster.all().find(|id| cluster.node(*id).mode().is_some()).expect("somebody serves");
        assert_eq!(cluster.node(id).connect().create(name, name.as_bytes(), 0), Ok(err::OK));
        acknowledged.push(name.to_owned());
    };
    write(&cluster, "/before");
    cluster.kill_at_once(&[leader, other]);
    cluster.wait_leader(LIMIT);
    write(&cluster, "/without-two");
    let third = cluster.wait_leader(Duration::from_secs(5));
    cluster.kill(third);
    wait_until("nobody serves", LIMIT, || {
        cluster.all().all(|id| cluster.node(id).mode().is_none()).then_some(())
    });
    for id in [leader, other, third] {
        cluster.start(id);
    }
    cluster.wait_all_serve();
    write(&cluster, "/after");
    assert_all_have(&cluster, &acknowledged);
}
