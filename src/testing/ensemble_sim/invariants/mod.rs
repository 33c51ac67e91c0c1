//! What must hold, one rule per file. [`after_step`] looks at a node after everything it has done, [`after_start`] at what a start has found;
//! the others are asked when there is an answer to a client, a leader, a state.

pub(super) mod agreement;
pub(super) mod applied;
pub(super) mod at_most_once;
pub(super) mod calm;
pub(super) mod digest;
pub(super) mod epochs;
pub(super) mod leader_complete;
pub(super) mod linear;
pub(super) mod lists;
pub(super) mod liveness;
pub(super) mod one_leader;
pub(super) mod promises;
pub(super) mod quorum_durable;
pub(super) mod reads;
pub(super) mod real_time;
pub(super) mod replies;
pub(super) mod session_order;
pub(super) mod sessions;
pub(super) mod synced;
pub(super) mod watches;

use super::node::Process;
use super::{Violation, World};
use crate::base::{Epoch, Zxid};
use crate::storage::log::LogReader;
use crate::tree::Tree;

/// After each call to a process.
pub(super) fn after_step(world: &mut World, node: usize, process: &Process) -> Result<(), Violation> {
    epochs::check(world, node, process.member.epochs())?;
    promises::check(node, process)?;
    quorum_durable::disk_changed(world, node, process)?;
    agreement::committed_grows(world, node, process)?;
    agreement::check(world, node, process.member.positions().committed())
}

/// After recovery, before the member begins.
pub(super) fn after_start(
    world: &mut World,
    node: usize,
    tree: &Tree,
    reader: &LogReader,
    last: Zxid,
    intent: bool,
    epochs: (Epoch, Epoch),
) -> Result<(), Violation> {
    epochs::check(world, node, epochs)?;
    applied::check(world, node, tree.applied())?;
    digest::check(world, node, tree.applied(), tree.digest())?;
    sessions::check_tree(world, node, tree)?;
    quorum_durable::started(world, node, tree.applied(), reader, last, intent)?;
    agreement::check(world, node, tree.applied())
}
