//! What is committed is on the disks of a quorum, or was when they said so; nothing committed ever leaves a disk that is not damaged.

use super::super::node::{Node, Process, read_zxids};
use super::super::{Violation, World, show, violated};
use crate::base::Zxid;
use crate::storage::log::LogReader;

/// Everything up to `zxid` has just been committed.
pub(in super::super) fn check(world: &World, zxid: Zxid) -> Result<(), Violation> {
    let voters = &world.nodes[..world.setup.voters];
    let holds =
        |node: &&Node| [&node.durable, &node.held_once].iter().any(|z| z.binary_search(&zxid).is_ok());
    let holders = voters.iter().filter(holds).count();
    if holders >= world.setup.quorum() {
        return Ok(());
    }
    violated(format!("{} is committed, and durable on {holders} disk(s)", show(zxid)))
}

/// Takes note of what a node's disk holds now.
pub(in super::super) fn disk_changed(
    world: &mut World,
    node: usize,
    process: &Process,
) -> Result<(), Violation> {
    let durable = process.member.positions().durable();
    let last = world.nodes[node].durable.last().copied().unwrap_or(Zxid::ZERO);
    if durable < last {
        world.counts.truncs += 1;
        world.counts.truncated += 1;
        world.note(|| format!("n{} cuts its log from {} to {}", node + 1, show(last), show(durable)));
        cut(world, node, durable)?;
        let left = world.nodes[node].durable.last().copied().unwrap_or(Zxid::ZERO);
        if left != durable {
            return violated(format!("n{} is cut to {}, and had {}", node + 1, show(durable), show(left)));
        }
    } else if durable > last {
        let news = read_zxids(world, &process.reader, last)?;
        if news.last() != Some(&durable) {
            return violated(format!("n{}: the log does not end at {}", node + 1, show(durable)));
        }
        world.nodes[node].durable.extend(news);
    }
    Ok(())
}

/// What is behind `to` is gone from a disk.
fn cut(world: &mut World, node: usize, to: Zxid) -> Result<(), Violation> {
    let model = &world.model;
    let machine = &mut world.nodes[node];
    let keep = machine.durable.partition_point(|zxid| *zxid <= to);
    if let Some(lost) = machine.durable[keep..].iter().find(|zxid| model.is_committed(**zxid)) {
        return violated(format!("n{} loses {}, which is committed", node + 1, show(*lost)));
    }
    machine.durable.truncate(keep);
    machine.agreed = machine.agreed.min(keep);
    Ok(())
}

/// Log and tree were replaced by the state at `zxid`.
pub(in super::super) fn replaced(world: &mut World, node: usize, zxid: Zxid) -> Result<(), Violation> {
    cut(world, node, zxid)?;
    let history = world.model.history(zxid)?;
    world.nodes[node].agreed = history.len();
    world.nodes[node].durable = history;
    Ok(())
}

/// What a start has found: all that was durable, unless a cut or a replacement was under way.
pub(in super::super) fn started(
    world: &mut World,
    node: usize,
    applied: Zxid,
    reader: &LogReader,
    last: Zxid,
    intent: bool,
) -> Result<(), Violation> {
    let mut found = world.model.history(applied)?;
    found.extend(read_zxids(world, reader, applied)?);
    let ends = found.last().copied().unwrap_or(Zxid::ZERO);
    if ends != last {
        return violated(format!(
            "n{} starts with a log to {}, and reads to {}",
            node + 1,
            show(last),
            show(ends)
        ));
    }
    let unsure = std::mem::take(&mut world.nodes[node].unsure) || intent;
    let before = std::mem::take(&mut world.nodes[node].durable);
    let lost = before.iter().find(|zxid| found.binary_search(zxid).is_err());
    if let Some(lost) = lost.filter(|zxid| !unsure || world.model.is_committed(**zxid)) {
        return violated(format!("n{} has lost {}, which was durable", node + 1, show(*lost)));
    }
    world.nodes[node].agreed = 0;
    world.nodes[node].durable = found;
    Ok(())
}
