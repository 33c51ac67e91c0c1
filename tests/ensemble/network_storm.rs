//! Everything at once in a network of its own: cuts of all shapes, pulled cables, nodes killed and paused, under load.

use std::time::{Duration, Instant};

use zabra::base::rng::Rng;

use crate::cluster::{Cluster, LIMIT};
use crate::load::Load;
use crate::netns::Family;
use crate::networks::{end, heal};
use crate::storm::{seed, storm_time};

/// Does something to the network, or to a random node.
fn strike(cluster: &mut Cluster, rng: &mut Rng) -> String {
    let nodes = *cluster.all().end() as u64;
    let mut any = || 1 + rng.below(nodes) as usize;
    let (a, b) = (any(), any());
    match rng.below(12) {
        0..3 if a == b => {
            cluster.network().isolate(a);
            format!("isolate {a}")
        }
        0..3 => {
            cluster.network().cut_one_way(a, b);
            format!("cut {a} -> {b}")
        }
        3..5 => {
            cluster.network().unplug(a);
            format!("unplug {a}")
        }
        5 => {
            let side = rng.below(2 << nodes);
            cluster.network().keep_only(|a, b| (side >> a) & 1 == (side >> b) & 1);
            format!("sides {side:b}")
        }
        6 => {
            cluster.network().keep_only(|from, to| from == a || to == a);
            format!("star around {a}")
        }
        7 => {
            cluster.network().keep_only(|from, to| from.abs_diff(to) == 1);
            "chain".into()
        }
        8 if cluster.node(a).runs() => {
            cluster.kill(a);
            format!("kill {a}")
        }
        9 if cluster.node(a).runs() && !cluster.node(a).paused => {
            cluster.pause(a);
            format!("pause {a}")
        }
        8..10 if !cluster.node(a).runs() => {
            cluster.start(a);
            format!("start {a}")
        }
        _ => {
            cluster.all().for_each(|id| cluster.network().plug(id));
            cluster.network().heal();
            "heal the network".into()
        }
    }
}

#[test]
fn a_storm_in_the_network_loses_nothing() {
    let (seed, time) = (seed(), storm_time() / 4);
    println!("ZABRA_SEED={seed}");
    let mut rng = Rng::new(seed);
    // Who was elected by votes that were taken back waits for its quorum for initLimit.
    let cluster = Cluster::new(5, 1).config("initLimit", "25");
    let cluster = cluster.config("snapCount", "300").config("autopurge.snapRetainCount", "3");
    let Some(cluster) = cluster.config("zabra.snapshot.pauseMs", "0").in_network(Family::V4) else { return };
    let mut cluster = cluster.started();
    let load = Load::with_pause(&cluster, 5, 2, Duration::from_millis(1)).with_churn(&cluster);
    let until = Instant::now() + time;
    while Instant::now() < until {
        for _ in 0..1 + rng.below(8) {
            println!("{}", strike(&mut cluster, &mut rng));
            std::thread::sleep(Duration::from_millis(rng.below(700)));
        }
        for id in cluster.all() {
            cluster.network().plug(id);
            if !cluster.node(id).runs() {
                cluster.start(id);
            } else if cluster.node(id).paused {
                cluster.resume(id);
            }
        }
        heal(&cluster);
        load.wait_for(50);
    }
    let outcome = end(&cluster, load, LIMIT);
    assert!(outcome.reads > 0);
    for id in cluster.all() {
        assert_eq!(cluster.node(id).logged(&["panicked"]), 0, "node {id}");
        assert_eq!(cluster.node(id).logged(&["nothing is acknowledged any more"]), 0, "node {id}");
    }
}
