//! A write is answered with what ZooKeeper makes of it in the tree that is right before it in the one history: error, path with its number, stat.

use super::super::clients::{Answer, Op};
use super::super::{Violation, World, show, violated};
use crate::base::SessionId;

pub(in super::super) fn check(
    world: &mut World,
    session: SessionId,
    op: &Op,
    answer: &Answer<'_>,
) -> Result<(), Violation> {
    let Some(expected) = world.model.expected.remove(&answer.zxid) else {
        return violated(format!("{session} {} is answered twice at {}", op.cxid, show(answer.zxid)));
    };
    world.counts.failed_writes += u64::from(answer.err != 0);
    if (answer.err, answer.body) == (expected.err, &*expected.body) {
        return Ok(());
    }
    violated(format!(
        "{session} {} {:?} at {} is answered {} {}, and must be {} {}",
        op.cxid,
        op.op,
        show(answer.zxid),
        answer.err,
        answer.body.escape_ascii(),
        expected.err,
        expected.body.escape_ascii()
    ))
}
