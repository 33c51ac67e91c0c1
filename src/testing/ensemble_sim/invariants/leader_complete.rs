//! A leader has everything that was ever committed: acknowledged writes survive in every later leader's history.

use super::super::node::Process;
use super::super::{Violation, World, show, violated};

pub(in super::super) fn check(world: &World, node: usize, process: &Process) -> Result<(), Violation> {
    let (model, durable) = (&world.model, &world.nodes[node].durable);
    let differs = model.committed.iter().zip(durable).find(|(there, here)| there != here);
    if let Some((there, here)) = differs {
        return violated(format!(
            "n{} leads with {} in the place of {}",
            node + 1,
            show(*here),
            show(*there)
        ));
    }
    if let Some(lost) = model.committed.get(durable.len()) {
        return violated(format!("n{} leads without {}", node + 1, show(*lost)));
    }
    let applied = process.tree.read().applied();
    if applied < model.last_committed() {
        return violated(format!("n{} serves as leader at {}", node + 1, show(applied)));
    }
    Ok(())
}
