//! Nodes in networks of their own ([`crate::netns`]) whose packets vanish: nobody is told, and TCP finds out when it does.

use std::time::{Duration, Instant};

use zabra::base::rng::Rng;

use crate::catching_up::{planned, with_short_logs, write_burst};
use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::err;
use crate::common::client::{Received, create_body, op};
use crate::common::jute::Acl;
use crate::load::{Load, Outcome, assert_all_have};
use crate::netns::Family;
use crate::partitions::{GAP_MAX, assert_undisturbed};

/// Longest time without a write when another has to lead: silence of 800 ms, an election, and clients that come again. Twice of what it
/// takes where nobody else needs the machine.
const TAKE_OVER_MAX: Duration = Duration::from_millis(3_000);

/// After healing: TCP's own pauses between two attempts, after a few seconds of silence, and what it takes to catch up.
const REJOIN_MAX: Duration = Duration::from_secs(10);

/// `voters` in a network of addresses of the fourth version, started.
fn ensemble(voters: usize) -> Option<Cluster> {
    Some(Cluster::new(voters, 0).in_network(Family::V4)?.started())
}

/// So many writers, and a reader. They write no more than a comparison of all nodes can take.
fn load(cluster: &Cluster, writers: usize) -> Load {
    Load::with_pause(cluster, writers, 1, Duration::from_millis(3))
}

/// Heals, and waits until all serve. How long it took.
pub(crate) fn heal(cluster: &Cluster) -> Duration {
    let began = Instant::now();
    cluster.network().heal();
    cluster.wait_all_serve();
    let took = began.elapsed();
    println!("all serve {took:?} after healing");
    assert!(took <= REJOIN_MAX, "{took:?}");
    took
}

/// Ends the load, and asserts what is true whatever was cut.
pub(crate) fn end(cluster: &Cluster, load: Load, gap_max: Duration) -> Outcome {
    load.wait_for(50);
    let outcome = load.stop();
    println!("longest gap {:?}, {} writes", outcome.longest_gap, outcome.acknowledged.len());
    assert!(outcome.longest_gap <= gap_max, "{:?}", outcome.longest_gap);
    assert_all_have(cluster, &outcome.acknowledged);
    outcome
}

/// The mode that node `id` says it has to whoever asks from its own machine.
fn mode_inside(cluster: &Cluster, id: usize) -> Option<String> {
    cluster.network().inside(id, || cluster.node(id).mode())
}

fn wait_steps_down(cluster: &Cluster, id: usize) {
    wait_until("it stops serving by itself", LIMIT, || mode_inside(cluster, id).is_none().then_some(()));
}

/// A leader that `cut` cuts off under load is replaced, and stops.
fn replaced(voters: usize, cut: impl Fn(&Cluster, usize), heal: impl Fn(&Cluster, usize)) {
    let Some(cluster) = ensemble(voters) else { return };
    let leader = cluster.wait_leader(LIMIT);
    let load = load(&cluster, 2 * voters);
    load.wait_for(50);
    let mut old = cluster.node(leader).connect();
    let began = Instant::now();
    cut(&cluster, leader);
    let xid = old.take_xid();
    old.send(xid, op::CREATE, &create_body("/tail", Some(b""), &Acl::open(), 0)).expect("sent");
    let next = cluster.wait_leader_but(leader, LIMIT);
    println!("node {next} leads {:?} after node {leader} was cut off", began.elapsed());
    wait_steps_down(&cluster, leader);
    println!("node {leader} has stopped after {:?}", began.elapsed());
    load.wait_for(100);
    assert_eq!(mode_inside(&cluster, leader), None);
    let healed = Instant::now();
    heal(&cluster, leader);
    assert_eq!(old.receive(LIMIT), Received::Closed, "it cannot know what became of the write");
    cluster.wait_all_serve();
    println!("all serve {:?} after healing", healed.elapsed());
    assert!(healed.elapsed() <= REJOIN_MAX, "{:?}", healed.elapsed());
    assert_eq!(cluster.leader(), Some(next), "who comes back deposes nobody");
    end(&cluster, load, TAKE_OVER_MAX);
}

fn heal_all(cluster: &Cluster, _: usize) {
    cluster.network().heal();
}

#[test]
fn a_leader_that_no_packet_leaves_or_reaches_is_replaced_and_stops() {
    replaced(3, |cluster, id| cluster.network().isolate(id), heal_all);
}

#[test]
fn a_leader_whose_cable_is_pulled_is_replaced_and_stops() {
    replaced(5, |cluster, id| cluster.network().unplug(id), |cluster, id| cluster.network().plug(id));
}

#[test]
fn a_leader_that_nobody_hears_is_replaced_and_stops() {
    let cut = |cluster: &Cluster, id| {
        cluster.others(id).into_iter().for_each(|other| cluster.network().cut_one_way(id, other));
    };
    replaced(3, cut, heal_all);
}

#[test]
fn a_leader_that_hears_nobody_is_replaced_and_stops() {
    // What it proposes still comes through, and may stay.
    let cut = |cluster: &Cluster, id| {
        cluster.others(id).into_iter().for_each(|other| cluster.network().cut_one_way(other, id));
    };
    replaced(3, cut, heal_all);
}

#[test]
fn a_follower_without_packets_is_not_missed_and_comes_back() {
    let Some(cluster) = ensemble(3) else { return };
    let leader = cluster.wait_leader(LIMIT);
    let followers = cluster.others(leader);
    let load = load(&cluster, 6);
    load.wait_for(50);
    cluster.network().isolate(followers[0]);
    assert_undisturbed(&cluster, leader, &load);
    assert_eq!(cluster.node(followers[0]).mode(), None, "it has no leader");
    heal(&cluster);
    cluster.network().unplug(followers[1]);
    assert_undisturbed(&cluster, leader, &load);
    assert_eq!(mode_inside(&cluster, followers[1]), None, "it has no leader");
    cluster.network().plug(followers[1]);
    heal(&cluster);
    assert_eq!(cluster.leader(), Some(leader));
    end(&cluster, load, GAP_MAX);
}

#[test]
fn a_follower_whose_packets_vanish_one_way_deposes_nobody() {
    let Some(cluster) = ensemble(3) else { return };
    let leader = cluster.wait_leader(LIMIT);
    let followers = cluster.others(leader);
    let load = load(&cluster, 6);
    load.wait_for(50);
    // It is heard by nobody.
    cluster.others(followers[0]).into_iter().for_each(|id| cluster.network().cut_one_way(followers[0], id));
    assert_undisturbed(&cluster, leader, &load);
    heal(&cluster);
    // It hears nobody.
    cluster.others(followers[0]).into_iter().for_each(|id| cluster.network().cut_one_way(id, followers[0]));
    assert_undisturbed(&cluster, leader, &load);
    heal(&cluster);
    // It hears all but the leader, and is heard by it.
    cluster.network().cut_one_way(leader, followers[1]);
    assert_undisturbed(&cluster, leader, &load);
    heal(&cluster);
    assert_eq!(cluster.leader(), Some(leader));
    end(&cluster, load, GAP_MAX);
}

#[test]
fn the_greater_part_of_five_serves_whoever_led_before() {
    let Some(cluster) = ensemble(5) else { return };
    let leader = cluster.wait_leader(LIMIT);
    let others = cluster.others(leader);
    let load = load(&cluster, 10);
    load.wait_for(50);
    // The leader is on the greater side.
    cluster.network().split(&[leader, others[0], others[1]], &others[2..]);
    assert_undisturbed(&cluster, leader, &load);
    others[2..].iter().for_each(|id| assert_eq!(cluster.node(*id).mode(), None));
    heal(&cluster);
    assert_eq!(cluster.leader(), Some(leader));
    // On the lesser.
    cluster.network().split(&[leader, others[0]], &others[1..]);
    let next = cluster.wait_leader_but(leader, LIMIT);
    for id in [leader, others[0]] {
        wait_steps_down(&cluster, id);
    }
    load.wait_for(100);
    heal(&cluster);
    assert_eq!(cluster.leader(), Some(next));
    end(&cluster, load, TAKE_OVER_MAX);
}

#[test]
fn a_leader_with_a_quorum_stays_on_a_bridge_and_on_a_ring() {
    let Some(cluster) = ensemble(5) else { return };
    let leader = cluster.wait_leader(LIMIT);
    let others = cluster.others(leader);
    let load = load(&cluster, 10);
    load.wait_for(50);
    // Two halves, and one node that reaches both.
    let (half, bridge, rest) = ([leader, others[0]], others[1], &others[2..]);
    cluster.network().split(&half, rest);
    assert_undisturbed(&cluster, leader, &load);
    assert_eq!(cluster.node(bridge).mode().as_deref(), Some("follower"));
    rest.iter().for_each(|id| assert_eq!(cluster.node(*id).mode(), None, "no leader that it reaches"));
    heal(&cluster);
    // The leader is the bridge: all follow it.
    cluster.network().split(&others[..2], &others[2..]);
    assert_undisturbed(&cluster, leader, &load);
    others.iter().for_each(|id| assert_eq!(cluster.node(*id).mode().as_deref(), Some("follower")));
    heal(&cluster);
    cluster.network().keep_only(|a, b| matches!(a.abs_diff(b), 1 | 4));
    assert_undisturbed(&cluster, leader, &load);
    heal(&cluster);
    assert_eq!(cluster.leader(), Some(leader));
    end(&cluster, load, GAP_MAX);
}

#[test]
fn a_node_that_is_heard_and_hears_nobody_keeps_the_others_from_a_leader_for_a_moment_only() {
    let Some(cluster) = ensemble(5) else { return };
    let mut cluster = cluster;
    let leader = cluster.wait_leader(LIMIT);
    let others = cluster.others(leader);
    let (deaf, rest) = others.split_last().expect("of five");
    assert_eq!(cluster.node(leader).connect().create("/a", b"/a", 0), Ok(err::OK));
    cluster.others(*deaf).into_iter().for_each(|id| cluster.network().cut_one_way(id, *deaf));
    wait_steps_down(&cluster, *deaf);
    // It has said that it wants to lead, and of equal histories its number is the greatest.
    cluster.kill(leader);
    let began = Instant::now();
    let next = wait_until("another leader", LIMIT, || {
        rest.iter().copied().find(|id| cluster.node(*id).mode().as_deref() == Some("leader"))
    });
    println!("node {next} leads {:?} after the death of node {leader}", began.elapsed());
    assert!(began.elapsed() <= TAKE_OVER_MAX, "{:?}", began.elapsed());
    cluster.start(leader);
    heal(&cluster);
    assert_eq!(cluster.leader(), Some(next));
    assert_all_have(&cluster, &["/a".into()]);
}

#[test]
fn a_cable_that_flaps_slows_nobody_for_long() {
    let Some(cluster) = ensemble(3) else { return };
    let leader = cluster.wait_leader(LIMIT);
    let follower = cluster.others(leader)[0];
    let load = load(&cluster, 6);
    load.wait_for(50);
    for pause_ms in [50, 200, 900, 50, 200, 1_500] {
        cluster.network().unplug(follower);
        let until = Instant::now() + Duration::from_millis(pause_ms);
        while Instant::now() < until {
            load.wait_for(5);
        }
        cluster.network().plug(follower);
        load.wait_for(50);
    }
    cluster.wait_all_serve();
    assert_eq!(cluster.leader(), Some(leader), "it had a quorum all the time");
    end(&cluster, load, GAP_MAX);
}

#[test]
fn an_ensemble_whose_cables_were_all_pulled_comes_back_by_itself() {
    let Some(cluster) = ensemble(3) else { return };
    let load = load(&cluster, 6);
    load.wait_for(50);
    cluster.all().for_each(|id| cluster.network().unplug(id));
    cluster.all().for_each(|id| wait_steps_down(&cluster, id));
    cluster.all().for_each(|id| cluster.network().plug(id));
    heal(&cluster);
    end(&cluster, load, LIMIT);
}

/// A follower that has nothing is cut off, again and again, in the middle of being brought up to date by `plan`, over a slow cable.
fn cut_off_while_brought_up_to_date(cluster: Cluster, plan: &str) {
    /// The cable to it: what the leader has takes seconds.
    const SLOW_KBIT: u32 = 20_000;
    const LARGE: usize = 40;
    let cluster = cluster.config("initLimit", "8").config("syncLimit", "10");
    let Some(cluster) = cluster.in_network(Family::V4) else { return };
    let mut cluster = cluster.started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    let mut conn = cluster.node(leader).connect();
    let (mut rng, mut data, mut acknowledged) = (Rng::new(7), vec![0; 300_000], Vec::new());
    for n in 0..LARGE {
        // Nothing that could be sent in fewer bytes.
        rng.fill(&mut data);
        assert_eq!(conn.create(&format!("/large{n}"), &data, 0), Ok(err::OK));
    }
    cluster.kill(follower);
    cluster.wipe(follower);
    if plan == "Snap" {
        wait_until("the log is purged", LIMIT, || {
            write_burst(&mut conn, "/large0", 600);
            (cluster.node(leader).logged(&["log segments retired"]) > 0).then_some(())
        });
    }
    let Some(()) = cluster.network().throttle(follower, SLOW_KBIT) else { return };
    let planned_before = planned(&cluster, follower, plan);
    cluster.start(follower);
    let lost = || cluster.node(leader).logged(&["connection with a server closed", "silent for"]);
    let lost_before = lost();
    for n in 1..=2 {
        let begun = || planned(&cluster, follower, plan) >= planned_before + n;
        wait_until("it is brought up to date", LIMIT, || begun().then_some(()));
        // At one point or another.
        std::thread::sleep(Duration::from_millis(300 * n as u64));
        assert_eq!(cluster.node(follower).mode(), None, "it is too slow to be done");
        if n == 2 {
            cluster.network().unplug(follower)
        } else {
            cluster.network().isolate(follower)
        }
        wait_until("it is given up", LIMIT, || {
            let path = format!("/during{}", acknowledged.len());
            assert_eq!(conn.create(&path, path.as_bytes(), 0), Ok(err::OK), "nobody waits for it");
            acknowledged.push(path);
            (lost() >= lost_before + n).then_some(())
        });
        cluster.network().plug(follower);
        cluster.network().heal();
    }
    cluster.network().unthrottle(follower);
    heal(&cluster);
    assert_eq!(cluster.leader(), Some(leader), "nobody else had to do anything");
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn transactions_that_are_cut_off_on_their_way_come_again() {
    cut_off_while_brought_up_to_date(Cluster::new(3, 0), "Diff");
}

#[test]
fn a_state_that_is_cut_off_on_its_way_comes_again() {
    cut_off_while_brought_up_to_date(with_short_logs(Cluster::new(3, 0)), "Snap");
}

#[test]
fn a_node_that_has_another_address_under_its_name_is_found_again() {
    let Some(cluster) = Cluster::new(3, 0).in_network(Family::Names) else { return };
    let mut cluster = cluster.started();
    let (leader, follower) = (cluster.wait_leader(LIMIT), cluster.follower());
    let mut acknowledged = Vec::new();
    for (n, id) in [follower, leader].into_iter().enumerate() {
        cluster.kill(id);
        cluster.move_node(id);
        let path = format!("/n{n}");
        cluster.wait_serving(&cluster.others(id));
        let mut conn = cluster.node(cluster.others(id)[0]).connect();
        assert_eq!(conn.create(&path, path.as_bytes(), 0), Ok(err::OK));
        acknowledged.push(path);
        let began = Instant::now();
        cluster.start(id);
        cluster.wait_serving(&[id]);
        println!("node {id} serves {:?} after its start at another address", began.elapsed());
        assert_all_have(&cluster, &acknowledged);
    }
    // Those that moved need each other: with the third one gone, they are the quorum.
    let third = cluster.all().find(|id| ![leader, follower].contains(id)).expect("of three");
    cluster.kill(third);
    cluster.wait_all_serve();
    let mut conn = cluster.node(leader).connect();
    assert_eq!(conn.create("/moved", b"/moved", 0), Ok(err::OK));
    acknowledged.push("/moved".into());
    cluster.start(third);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn an_ensemble_of_addresses_of_version_6_serves_fails_over_and_heals() {
    let Some(cluster) = Cluster::new(3, 0).in_network(Family::V6) else { return };
    let mut cluster = cluster.started();
    let leader = cluster.wait_leader(LIMIT);
    assert!(cluster.node(leader).address().is_ipv6());
    let load = load(&cluster, 6);
    load.wait_for(50);
    cluster.network().isolate(leader);
    let next = cluster.wait_leader_but(leader, LIMIT);
    wait_steps_down(&cluster, leader);
    load.wait_for(50);
    heal(&cluster);
    cluster.kill(next);
    cluster.wait_leader_but(next, LIMIT);
    load.wait_for(50);
    cluster.start(next);
    cluster.wait_all_serve();
    end(&cluster, load, TAKE_OVER_MAX);
}
