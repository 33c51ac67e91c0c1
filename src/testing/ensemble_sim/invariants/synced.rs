//! Behind a sync there is everything that anybody had been shown when it was asked for.

use super::super::clients::Op;
use super::super::{Violation, show, violated};
use crate::base::Zxid;

pub(in super::super) fn check(op: &Op, zxid: Zxid) -> Result<(), Violation> {
    if zxid >= op.floor {
        return Ok(());
    }
    violated(format!("a sync made after {} was known comes back at {}", show(op.floor), show(zxid)))
}
