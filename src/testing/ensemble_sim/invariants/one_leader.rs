//! At most one process ever leads an epoch.

use super::super::{Violation, World, violated};
use crate::base::Epoch;

pub(in super::super) fn check(world: &mut World, node: usize, epoch: Epoch) -> Result<(), Violation> {
    let me = (node, world.nodes[node].inc);
    if let Some((other, life)) = world.model.leaders.insert(epoch, me) {
        return violated(format!(
            "n{} leads epoch {epoch}, which n{} led in life {life}",
            node + 1,
            other + 1
        ));
    }
    Ok(())
}
