//! Committed histories never differ, over all time: what a node holds as committed is a beginning of the one history.

use super::super::node::Process;
use super::super::{Violation, World, show, violated};
use super::{at_most_once, quorum_durable};
use crate::base::Zxid;
use crate::wire::election::PeerState;

/// A leader has committed more than anybody before: the one history grows.
pub(in super::super) fn committed_grows(
    world: &mut World,
    node: usize,
    process: &Process,
) -> Result<(), Violation> {
    let (before, committed) = (world.model.last_committed(), process.member.positions().committed());
    if committed <= before {
        return Ok(());
    }
    if process.member.peer_state() != PeerState::Leading {
        return violated(format!("n{} does not lead, and takes {} for committed", node + 1, show(committed)));
    }
    let mut news: Vec<Zxid> =
        world.nodes[node].durable.iter().copied().filter(|z| *z > before && *z <= committed).collect();
    // Behind what is durable here there is only what this leader has proposed.
    let from = world.nodes[node].durable.last().copied().unwrap_or(Zxid::ZERO).max(before);
    let first = from.next().max(Zxid::new(committed.epoch(), 1));
    news.extend((first.0..=committed.0).map(Zxid));
    for zxid in news {
        let known = world.model.commit(zxid)?;
        world.counts.committed += 1;
        at_most_once::check(world, zxid, known)?;
    }
    quorum_durable::check(world, committed)
}

/// What the disk of a node holds up to what it knows to be committed is the one history.
pub(in super::super) fn check(world: &mut World, node: usize, committed: Zxid) -> Result<(), Violation> {
    let (model, machine) = (&world.model, &mut world.nodes[node]);
    let known = machine.durable.last().copied().unwrap_or(Zxid::ZERO).min(committed);
    let upto = machine.durable.partition_point(|zxid| *zxid <= known);
    for at in machine.agreed..upto {
        let (here, there) = (machine.durable[at], model.committed.get(at).copied());
        if there != Some(here) {
            let there = there.map_or("nothing".to_owned(), show);
            return violated(format!(
                "n{} holds {} as committed, where the history has {there}",
                node + 1,
                show(here)
            ));
        }
    }
    machine.agreed = machine.agreed.max(upto);
    let missing = model.committed.get(upto).filter(|zxid| **zxid <= known);
    match missing {
        Some(zxid) => violated(format!("n{} is at {} without {}", node + 1, show(known), show(*zxid))),
        None => Ok(()),
    }
}
