//! A client's answers come in the order of its requests; what it sees never goes back, and reads come behind its own writes, wherever its
//! session is taken.

use super::super::clients::{Client, Op, OpKind};
use super::super::{Violation, show, violated};
use crate::base::Zxid;

pub(in super::super) fn check_answer(
    client: &Client,
    op: &Op,
    cxid: i32,
    zxid: Zxid,
) -> Result<(), Violation> {
    if op.cxid != cxid {
        return violated(format!("{:?}: {cxid} is answered, {} is next", client.session, op.cxid));
    }
    let goes_back = if op.kind == OpKind::Write { zxid <= client.last } else { zxid < client.last };
    if goes_back {
        let last = show(client.last);
        return violated(format!("{:?}: {:?} at {} behind {last}", client.session, op.kind, show(zxid)));
    }
    Ok(())
}
