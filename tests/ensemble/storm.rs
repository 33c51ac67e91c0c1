//! Everything at once: nodes killed, paused and restarted at random while clients write and read through all of them.

use std::time::{Duration, Instant};

use zabra::base::rng::Rng;

use crate::cluster::Cluster;
use crate::load::{Load, assert_all_have};

/// How long the storms of this file together last, two at a time.
pub(crate) fn storm_time() -> Duration {
    let seconds = std::env::var("ZABRA_STORM_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// Where the decisions of storms come from.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("ZABRA_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

/// Does something to a random node.
fn strike(cluster: &mut Cluster, rng: &mut Rng) -> String {
    let nodes = *cluster.all().end() as u64;
    let id = 1 + rng.below(nodes) as usize;
    let (runs, paused) = (cluster.node(id).runs(), cluster.node(id).paused);
    match (runs, paused, rng.below(10)) {
        (false, ..) => {
            cluster.start(id);
            format!("start {id}")
        }
        (_, true, _) => {
            cluster.resume(id);
            format!("resume {id}")
        }
        (.., 0..4) => {
            cluster.kill(id);
            format!("kill {id}")
        }
        (.., 4..7) => {
            cluster.pause(id);
            format!("pause {id}")
        }
        (.., 7..9) => {
            cluster.stop(id);
            format!("stop {id}")
        }
        _ => {
            let running: Vec<usize> = cluster.all().filter(|id| cluster.node(*id).runs()).collect();
            cluster.kill_at_once(&running);
            "kill all".into()
        }
    }
}

/// Ends all pauses and starts what does not run.
fn heal(cluster: &mut Cluster) {
    for id in cluster.all() {
        if !cluster.node(id).runs() {
            cluster.start(id);
        } else if cluster.node(id).paused {
            cluster.resume(id);
        }
    }
    cluster.wait_all_serve();
}

fn storm(voters: usize, observers: usize, time: Duration, seed: u64) {
    println!("ZABRA_SEED={seed}");
    let mut rng = Rng::new(seed);
    // Small snapshots and segments, so that all ways of catching up come along.
    let mut cluster = Cluster::new(voters, observers)
        .config("snapCount", "300")
        .config("autopurge.snapRetainCount", "3")
        .config("zabra.snapshot.pauseMs", "0")
        .started();
    let load = Load::start(&cluster, 4, 2).with_churn(&cluster);
    let until = Instant::now() + time;
    while Instant::now() < until {
        for _ in 0..1 + rng.below(8) {
            println!(
                "{:?} left: {}",
                until.saturating_duration_since(Instant::now()),
                strike(&mut cluster, &mut rng)
            );
            std::thread::sleep(Duration::from_millis(rng.below(400)));
        }
        heal(&mut cluster);
        load.wait_for(50);
    }
    let outcome = load.stop();
    println!("{} writes acknowledged, {} reads", outcome.acknowledged.len(), outcome.reads);
    for plan in ["Diff", "Trunc", "Snap"] {
        println!("{plan}: {}", cluster.logged(&["a learner is brought up to date", &format!("plan={plan}")]));
    }
    assert!(outcome.reads > 0);
    assert_all_have(&cluster, &outcome.acknowledged);
    for id in cluster.all() {
        assert_eq!(cluster.node(id).logged(&["panicked"]), 0, "node {id}");
        assert_eq!(cluster.node(id).logged(&["nothing is acknowledged any more"]), 0, "node {id}");
    }
}

#[test]
fn three_nodes_in_a_storm_lose_nothing() {
    storm(3, 0, storm_time() / 2, seed());
}

#[test]
fn five_nodes_and_an_observer_in_a_storm_lose_nothing() {
    storm(5, 1, storm_time() / 2, seed() + 1);
}
