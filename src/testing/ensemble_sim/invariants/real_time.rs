//! Writes are linearizable: one that was made after another was acknowledged, or seen, has the greater zxid; and what is acknowledged is committed.

use super::super::clients::Op;
use super::super::{Violation, World, show, violated};
use crate::base::{SessionId, Zxid};

pub(in super::super) fn check_write(
    world: &World,
    session: SessionId,
    op: &Op,
    zxid: Zxid,
) -> Result<(), Violation> {
    if zxid <= op.floor {
        return violated(format!("a write made after {} was known is at {}", show(op.floor), show(zxid)));
    }
    let committed = world.model.requests.get(&(session, op.cxid)).copied();
    if committed != Some(zxid) {
        return violated(format!(
            "{session} {} is acknowledged at {}, and is at {committed:?}",
            op.cxid,
            show(zxid)
        ));
    }
    Ok(())
}
