//! In calm nothing happens: nobody looks for a leader, no process ends, no connection breaks, and no session ends whose client lives.

use super::super::{SimCounts, Violation, World, violated};

pub(in super::super) fn check(world: &mut World) -> Result<(), Violation> {
    if world.options.calm_ms == 0 {
        return Ok(());
    }
    // Sessions that are left over end in it, so that an epoch may be used up: that is no election.
    let what = |c: &SimCounts| [c.leaders, c.learners, c.stops, c.starts, c.snaps, c.truncs];
    let before = what(&world.counts);
    let live = |world: &World| -> Vec<_> {
        let clients =
            world.clients.iter().enumerate().filter(|(_, client)| client.watching.pings && client.live);
        clients.map(|(index, client)| (index, client.session, client.conn)).collect()
    };
    let clients = live(world);
    let end = world.now + world.options.calm_ms;
    world.restless();
    while world.now < end {
        world.step()?;
    }
    world.counts.calm_ms += world.options.calm_ms;
    world.counts.calm_clients += clients.len() as u64;
    let after = what(&world.counts);
    if before != after {
        return violated(format!(
            "in the calm leaders, learners, stops, starts, states, cuts go from {before:?} to {after:?}"
        ));
    }
    let still = live(world);
    match clients.iter().find(|client| !still.contains(client)) {
        None => Ok(()),
        Some((index, session, _)) => violated(format!("in the calm client {index} loses {session:?}")),
    }
}
