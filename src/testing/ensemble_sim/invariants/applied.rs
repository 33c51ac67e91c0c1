//! What is applied is committed (rule R4): in the one history, and not before a leader has committed it.

use super::super::{Violation, World, show, violated};
use crate::base::Zxid;

pub(in super::super) fn check(world: &World, node: usize, zxid: Zxid) -> Result<(), Violation> {
    if zxid == Zxid::ZERO || world.model.is_committed(zxid) {
        return Ok(());
    }
    violated(format!("n{} has applied {}, which is not committed", node + 1, show(zxid)))
}
