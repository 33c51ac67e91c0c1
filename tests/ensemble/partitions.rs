//! Nodes that cannot reach each other, in both directions or in one: who serves, who must not, and what is there afterwards.

use std::time::{Duration, Instant};

use zabra::base::rng::Rng;

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::err;
use crate::common::client::{Received, create_body, op};
use crate::common::jute::Acl;
use crate::load::{Load, assert_all_have};

/// Long enough for every limit among Zabra nodes to pass twice.
const WHILE: Duration = Duration::from_millis(2_500);

/// Writes are not held up for longer than this by somebody who is not needed for them. Nobody else needs this machine for that long.
pub(crate) const GAP_MAX: Duration = Duration::from_millis(1_500);

/// Asserts that `leader` leads and writes go on, for as long as a cut could matter.
pub(crate) fn assert_undisturbed(cluster: &Cluster, leader: usize, load: &Load) {
    let until = Instant::now() + WHILE;
    while Instant::now() < until {
        load.wait_for(20);
        assert_eq!(cluster.node(leader).mode().as_deref(), Some("leader"), "it had a quorum all the time");
    }
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_its_tail_is_cut() {
    let mut cluster = Cluster::new(3, 0).with_wires().started();
    let leader = cluster.wait_leader(LIMIT);
    let mut old = cluster.node(leader).connect();
    assert_eq!(old.create("/a", b"/a", 0), Ok(err::OK));
    cluster.wires().isolate(leader);
    let xid = old.take_xid();
    old.send(xid, op::CREATE, &create_body("/tail", Some(b""), &Acl::open(), 0)).expect("sent");
    let began = Instant::now();
    let next = cluster.wait_leader_but(leader, LIMIT);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(old.receive(LIMIT), Received::Closed, "it cannot know what became of the write");
    assert_eq!(cluster.node(next).connect().create("/b", b"/b", 0), Ok(err::OK));
    assert_eq!(cluster.node(leader).mode(), None, "it serves nobody");
    cluster.wires().heal();
    cluster.wait_all_serve();
    assert_eq!(cluster.leader(), Some(next));
    assert_eq!(cluster.node(leader).connect().get("/tail"), Ok(None));
    assert_all_have(&cluster, &["/a".into(), "/b".into()]);
    // Nothing came out of order on the connections that were held.
    cluster.kill(next);
    cluster.wait_leader_but(next, LIMIT);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &["/a".into(), "/b".into()]);
}

#[test]
fn a_follower_that_hears_only_one_way_deposes_nobody() {
    let cluster = Cluster::new(3, 0).with_wires().started();
    let leader = cluster.wait_leader(LIMIT);
    let followers = cluster.others(leader);
    let load = Load::start(&cluster, 6, 1);
    load.wait_for(20);
    // It is not heard.
    cluster.wires().cut_one_way(followers[0], leader);
    assert_undisturbed(&cluster, leader, &load);
    cluster.wires().heal();
    cluster.wait_all_serve();
    // It does not hear.
    cluster.wires().cut_one_way(leader, followers[1]);
    assert_undisturbed(&cluster, leader, &load);
    cluster.wires().heal();
    cluster.wait_all_serve();
    let outcome = load.stop();
    assert!(outcome.longest_gap <= GAP_MAX, "{:?}", outcome.longest_gap);
    assert_eq!(cluster.leader(), Some(leader));
    assert_all_have(&cluster, &outcome.acknowledged);
}

#[test]
fn a_bridge_between_two_keeps_the_leader_and_the_other_out() {
    let cluster = Cluster::new(3, 0).with_wires().started();
    let leader = cluster.wait_leader(LIMIT);
    let followers = cluster.others(leader);
    let load = Load::start(&cluster, 6, 1);
    load.wait_for(20);
    // The other follower reaches both.
    cluster.wires().cut(leader, followers[0]);
    assert_undisturbed(&cluster, leader, &load);
    assert_eq!(cluster.node(followers[0]).mode(), None, "it has no leader that it can reach");
    cluster.wires().heal();
    cluster.wait_all_serve();
    let outcome = load.stop();
    assert!(outcome.longest_gap <= GAP_MAX, "{:?}", outcome.longest_gap);
    assert_all_have(&cluster, &outcome.acknowledged);
}

#[test]
fn a_leader_of_five_that_reaches_one_alone_is_replaced() {
    let cluster = Cluster::new(5, 0).with_wires().started();
    let leader = cluster.wait_leader(LIMIT);
    let others = cluster.others(leader);
    let load = Load::start(&cluster, 3, 1);
    load.wait_for(20);
    others[1..].iter().for_each(|other| cluster.wires().cut(leader, *other));
    let next = cluster.wait_leader_but(leader, LIMIT);
    wait_until("it steps down", LIMIT, || cluster.node(leader).mode().is_none().then_some(()));
    load.wait_for(200);
    assert_eq!(cluster.node(next).mode().as_deref(), Some("leader"));
    cluster.wires().heal();
    cluster.wait_all_serve();
    let outcome = load.stop();
    assert_all_have(&cluster, &outcome.acknowledged);
}

#[test]
fn a_follower_whose_connections_flap_slows_nobody_for_long() {
    let cluster = Cluster::new(3, 0).with_wires().started();
    let leader = cluster.wait_leader(LIMIT);
    let flaps = cluster.others(leader)[0];
    let load = Load::start(&cluster, 6, 1);
    for _ in 0..4 {
        cluster.wires().isolate(flaps);
        let until = Instant::now() + Duration::from_millis(1_000);
        while Instant::now() < until {
            load.wait_for(10);
        }
        cluster.wires().heal();
        load.wait_for(50);
    }
    cluster.wait_all_serve();
    assert_eq!(cluster.leader(), Some(leader), "it had a quorum all the time");
    let outcome = load.stop();
    assert!(outcome.longest_gap <= GAP_MAX, "{:?}", outcome.longest_gap);
    assert_all_have(&cluster, &outcome.acknowledged);
}

#[test]
fn random_cuts_lose_nothing() {
    let seed = crate::storm::seed();
    println!("ZABRA_SEED={seed}");
    let (mut rng, time) = (Rng::new(seed), crate::storm::storm_time() / 2);
    let cluster = Cluster::new(3, 0).with_wires().started();
    let load = Load::start(&cluster, 4, 2);
    let until = Instant::now() + time;
    while Instant::now() < until {
        for _ in 0..1 + rng.below(4) {
            let (a, b) = (1 + rng.below(3) as usize, 1 + rng.below(3) as usize);
            if a == b {
                cluster.wires().isolate(a);
            } else {
                cluster.wires().cut_one_way(a, b);
            }
            println!("cut {a} {b}");
            std::thread::sleep(Duration::from_millis(rng.below(1_200)));
            if rng.one_in(3) {
                cluster.wires().heal();
            }
        }
        println!("heal");
        cluster.wires().heal();
        cluster.wait_all_serve();
        load.wait_for(50);
    }
    let outcome = load.stop();
    assert!(outcome.reads > 0);
    assert_all_have(&cluster, &outcome.acknowledged);
}
