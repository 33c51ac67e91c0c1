//! Epochs never go back, across crashes too; an epoch is accepted before it is entered (rule R8).

use super::super::{Violation, World, violated};
use crate::base::Epoch;

pub(in super::super) fn check(
    world: &mut World,
    node: usize,
    (accepted, current): (Epoch, Epoch),
) -> Result<(), Violation> {
    let before = world.nodes[node].epochs;
    if accepted < before.0 || current < before.1 {
        return violated(format!("n{}: epochs {before:?} become {accepted} and {current}", node + 1));
    }
    if current > accepted {
        return violated(format!("n{}: epoch {current} is entered, {accepted} accepted", node + 1));
    }
    world.nodes[node].epochs = (accepted, current);
    Ok(())
}
