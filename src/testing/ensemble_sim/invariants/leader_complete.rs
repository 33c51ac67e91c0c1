//! A leader has everything that was ever committed in earlier epochs: acknowledged writes survive in every later leader's history. (Later epochs
//! may have begun: a leader that has not learnt yet that it was replaced can commit nothing.)

use super::super::node::Process;
use super::super::{Violation, World, show, violated};
use crate::base::{Epoch, Zxid};

pub(in super::super) fn check(
    world: &World,
    node: usize,
    process: &Process,
    epoch: Epoch,
) -> Result<(), Violation> {
    let committed = &world.model.committed;
    let before = &committed[..committed.partition_point(|zxid| zxid.epoch() < epoch)];
    let durable = &world.nodes[node].durable;
    let differs = before.iter().zip(durable).find(|(there, here)| there != here);
    if let Some((there, here)) = differs {
        return violated(format!(
            "n{} leads with {} in the place of {}",
            node + 1,
            show(*here),
            show(*there)
        ));
    }
    if let Some(lost) = before.get(durable.len()) {
        return violated(format!("n{} leads without {}", node + 1, show(*lost)));
    }
    let applied = process.tree.read().applied();
    if applied < before.last().copied().unwrap_or(Zxid::ZERO) {
        return violated(format!("n{} serves as leader at {}", node + 1, show(applied)));
    }
    Ok(())
}
