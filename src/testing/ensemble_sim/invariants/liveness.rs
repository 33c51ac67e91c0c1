//! Once nothing is wrong any more: within [`LIVELY_MS`] there is a leader, everybody is in step, a client of every node writes; then all trees
//! are the same.

use super::super::{Violation, World, violated};
use super::{at_most_once, calm, linear, lists};
use crate::node::member::Standing;
use crate::testing::node_sim::dump;

/// Longest time from the end of faults to an ensemble that serves, ms.
const LIVELY_MS: u64 = 30_000;
/// Longest time from the last write to equal trees, ms.
const SETTLE_MS: u64 = 5_000;

pub(in super::super) fn check(world: &mut World) -> Result<(), Violation> {
    let first = world.clients.len();
    (0..world.nodes.len()).for_each(|node| world.add_client(Some(node)));
    let deadline = world.now + LIVELY_MS;
    while !serves(world, first) {
        if world.now > deadline {
            return violated(format!("after {LIVELY_MS} ms without a fault: {}", state(world, first)));
        }
        world.step()?;
    }
    for client in world.clients.iter_mut().filter(|client| !client.stopped) {
        (client.stopped, client.watching.pings) = (true, true);
    }
    let deadline = world.now + SETTLE_MS;
    while !is_level(world) {
        if world.now > deadline {
            return violated(format!("{SETTLE_MS} ms after the last write: {}", state(world, first)));
        }
        world.step()?;
    }
    equal_trees(world)?;
    calm::check(world)?;
    world.counts.virtual_ms += world.now;
    world.counts.multis = world.model.multis;
    at_most_once::check_unknown(world)?;
    world.give_up_waiting();
    linear::check(world)?;
    lists::check(world)
}

fn serves(world: &World, first: usize) -> bool {
    let leaders =
        world.nodes.iter().filter(|n| matches!(n.serving(), Some(Standing::Leading { .. }))).count();
    leaders == 1
        && world.nodes.iter().all(|node| node.serving().is_some())
        && world.clients[first..].iter().all(|client| client.acknowledged > 0)
}

fn is_level(world: &World) -> bool {
    let last = world.model.last_committed();
    world.nodes.iter().all(|node| {
        node.process.as_ref().is_some_and(|p| {
            p.tree.read().applied() == last
                && p.member.positions().appended() == last
                && p.desk.requests.is_empty()
        })
    })
}

fn equal_trees(world: &World) -> Result<(), Violation> {
    let facts = |node: usize| {
        let process = world.nodes[node].process.as_ref().expect("it serves");
        let mut facts = dump(&process.tree.read());
        // Where it begins depends on where the tree came from.
        facts.remove("digest log");
        // They are of the clients of each.
        facts.remove("watches");
        facts
    };
    let first = facts(0);
    for node in 1..world.nodes.len() {
        let other = facts(node);
        let differs = first.iter().find(|(key, value)| other.get(*key) != Some(value));
        let more = other.keys().find(|key| !first.contains_key(*key));
        if let Some(key) = differs.map(|(key, _)| key).or(more) {
            return violated(format!(
                "n1 and n{} differ: {key}: {:?}, {:?}",
                node + 1,
                first.get(key),
                other.get(key)
            ));
        }
    }
    Ok(())
}

fn state(world: &World, first: usize) -> String {
    let nodes: Vec<String> = world
        .nodes
        .iter()
        .map(|node| match &node.process {
            None => format!("n{} is down", node.index + 1),
            Some(p) => format!(
                "n{} {:?} {:?} {:?} {:?}",
                node.index + 1,
                p.member.peer_state(),
                p.desk.serving,
                p.member.positions(),
                p.member.learners()
            ),
        })
        .collect();
    let clients: Vec<u64> = world.clients[first..].iter().map(|client| client.acknowledged).collect();
    format!("{}; writes of each node's client: {clients:?}", nodes.join("; "))
}
