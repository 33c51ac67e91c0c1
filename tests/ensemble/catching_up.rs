//! How a node that was away is brought up to date: DIFF, SNAP and TRUNC, each when it has to be.

use std::time::Duration;

use zabra::base::rng::Rng;

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::err;
use crate::common::client::{Conn, create_body, op};
use crate::common::jute::Acl;
use crate::load::assert_all_have;

/// What a leader logs when it has planned for a learner.
const PLANNED: &str = "a learner is brought up to date";

/// How often a leader has decided on `plan` for node `id`.
pub(crate) fn planned(cluster: &Cluster, id: usize, plan: &str) -> usize {
    cluster.logged(&[PLANNED, &format!("peer={id} "), &format!("plan={plan}")])
}

/// Logs reach back no further than a few snapshots, and those are taken often.
pub(crate) fn with_short_logs(cluster: Cluster) -> Cluster {
    let cluster = cluster.config("snapCount", "500").config("autopurge.snapRetainCount", "3");
    cluster.config("zabra.snapshot.pauseMs", "0")
}

fn write_many(conn: &mut Conn, prefix: &str, count: usize, acknowledged: &mut Vec<String>) {
    for n in 0..count {
        let path = format!("/{prefix}{n}");
        assert_eq!(conn.create(&path, path.as_bytes(), 0), Ok(err::OK));
        acknowledged.push(path);
    }
}

/// Many more transactions than [`write_many`], in the same time.
pub(crate) fn write_burst(conn: &mut Conn, path: &str, count: usize) {
    let body = crate::common::calls::set_body(path, path.as_bytes(), -1);
    for _ in 0..count / 100 {
        for _ in 0..100 {
            let xid = conn.take_xid();
            conn.send(xid, op::SET_DATA, &body).expect("sent");
        }
        for _ in 0..100 {
            let received = conn.receive(LIMIT);
            assert!(matches!(received, crate::common::client::Received::Frame(_)), "{received:?}");
        }
    }
}

#[test]
fn a_follower_that_was_killed_catches_up_by_diff() {
    let mut cluster = Cluster::new(3, 0).started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    let mut acknowledged = Vec::new();
    let mut conn = cluster.node(leader).connect();
    write_many(&mut conn, "a", 50, &mut acknowledged);
    cluster.kill(follower);
    write_many(&mut conn, "b", 200, &mut acknowledged);
    let before = planned(&cluster, follower, "Diff");
    cluster.start(follower);
    cluster.wait_all_serve();
    assert_eq!(planned(&cluster, follower, "Diff"), before + 1);
    assert_eq!(cluster.leader(), Some(leader), "nobody else had to do anything");
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn a_follower_that_lost_its_data_gets_everything() {
    let mut cluster = Cluster::new(3, 0).started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    let mut acknowledged = Vec::new();
    let mut conn = cluster.node(leader).connect();
    write_many(&mut conn, "a", 200, &mut acknowledged);
    cluster.kill(follower);
    cluster.wipe(follower);
    cluster.start(follower);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
    // What it got is durable: it can bring the others up to date.
    cluster.kill(follower);
    cluster.start(follower);
    cluster.wait_all_serve();
    write_many(&mut conn, "b", 10, &mut acknowledged);
    cluster.kill(leader);
    cluster.wait_leader_but(leader, LIMIT);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn a_follower_that_was_away_for_longer_than_the_log_reaches_gets_the_state() {
    let mut cluster = with_short_logs(Cluster::new(3, 0)).started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    let mut acknowledged = Vec::new();
    let mut conn = cluster.node(leader).connect();
    write_many(&mut conn, "a", 50, &mut acknowledged);
    cluster.kill(follower);
    wait_until("the log is purged", LIMIT, || {
        write_burst(&mut conn, "/a0", 2_000);
        (cluster.node(leader).logged(&["log segments retired"]) > 0).then_some(())
    });
    assert_eq!(conn.set("/a0", b"/a0", -1), Ok(err::OK));
    cluster.start(follower);
    cluster.wait_all_serve();
    assert_eq!(planned(&cluster, follower, "Snap"), 1);
    assert_all_have(&cluster, &acknowledged);
    write_many(&mut conn, "b", 50, &mut acknowledged);
    cluster.kill(follower);
    cluster.start(follower);
    cluster.wait_all_serve();
    assert_eq!(planned(&cluster, follower, "Snap"), 1, "what it got is durable");
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn a_tail_that_only_the_old_leader_has_is_cut() {
    let mut cluster = Cluster::new(3, 0).started();
    let leader = cluster.wait_leader(LIMIT);
    let followers = cluster.others(leader);
    let mut acknowledged = Vec::new();
    let mut conn = cluster.node(leader).connect();
    write_many(&mut conn, "a", 20, &mut acknowledged);
    // What is in their sockets dies with them.
    followers.iter().for_each(|id| cluster.pause(*id));
    let before = cluster.node(leader).figure("proposal_count").expect("it serves");
    for n in 0..20 {
        let xid = conn.take_xid();
        let body = create_body(&format!("/tail{n}"), Some(b"tail"), &Acl::open(), 0);
        conn.send(xid, op::CREATE, &body).expect("sent");
    }
    wait_until("they are proposed", LIMIT, || {
        cluster.node(leader).figure("proposal_count").filter(|count| *count >= before + 20)
    });
    cluster.kill_at_once(&[leader, followers[0], followers[1]]);
    followers.iter().for_each(|id| cluster.start(*id));
    cluster.wait_serving(&followers);
    let mut conn = cluster.node(followers[0]).connect();
    write_many(&mut conn, "b", 20, &mut acknowledged);
    cluster.start(leader);
    cluster.wait_all_serve();
    assert_eq!(planned(&cluster, leader, "Trunc"), 1);
    assert_eq!(cluster.node(leader).connect().get("/tail0"), Ok(None));
    assert_all_have(&cluster, &acknowledged);
    // It stays cut.
    cluster.kill(leader);
    cluster.start(leader);
    cluster.wait_all_serve();
    assert_eq!(planned(&cluster, leader, "Trunc"), 1);
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn a_state_that_is_cut_off_on_its_way_does_no_harm() {
    let mut cluster = with_short_logs(Cluster::new(3, 0)).started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    let mut acknowledged = Vec::new();
    let mut conn = cluster.node(leader).connect();
    let mut rng = Rng::new(7);
    for n in 0..60 {
        let mut data = vec![0; 300_000];
        rng.fill(&mut data);
        assert_eq!(conn.create(&format!("/large{n}"), &data, 0), Ok(err::OK));
    }
    assert_eq!(conn.create("/small", b"", 0), Ok(err::OK));
    for id in [leader, cluster.others(leader)[0], cluster.others(leader)[1]] {
        wait_until("the log is purged", LIMIT, || {
            write_burst(&mut conn, "/small", 600);
            (cluster.node(id).logged(&["log segments retired"]) > 0).then_some(())
        });
    }
    cluster.kill(follower);
    cluster.wipe(follower);
    // In the middle of it, at one point or another; some of what was received is there when it comes again.
    for n in 0..8 {
        cluster.start(follower);
        std::thread::sleep(Duration::from_millis(20 + rng.below(150)));
        write_many(&mut conn, &format!("during{n}-"), 5, &mut acknowledged);
        cluster.kill(follower);
        if n % 3 == 2 {
            cluster.wipe(follower);
        }
    }
    cluster.start(follower);
    std::thread::sleep(Duration::from_millis(100));
    let begun = planned(&cluster, follower, "Snap");
    assert!(begun >= 3, "{begun}: each time all is lost");
    // Whoever has the history leads, however much the other one has received. As long as that is not all, it has no vote, and the leader is missed.
    cluster.kill(leader);
    std::thread::sleep(Duration::from_millis(500));
    cluster.start(leader);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
}
