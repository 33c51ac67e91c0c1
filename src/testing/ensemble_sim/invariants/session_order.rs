//! A client's answers come in the order of its requests; what it sees never goes back, and reads come behind its own writes, wherever its
//! session is taken.

use super::super::clients::{Answer, Client, Op, is_write};
use super::super::{Violation, show, violated};

pub(in super::super) fn check_answer(
    client: &Client,
    op: &Op,
    answer: &Answer<'_>,
    blind: bool,
) -> Result<(), Violation> {
    if op.cxid != answer.xid {
        return violated(format!("{:?}: {} is answered, {} is next", client.session, answer.xid, op.cxid));
    }
    let zxid = answer.zxid;
    let goes_back = if is_write(op.op) { zxid <= client.last } else { zxid < client.last };
    if goes_back && !blind {
        let last = show(client.last);
        return violated(format!("{:?}: {:?} at {} behind {last}", client.session, op.op, show(zxid)));
    }
    Ok(())
}
