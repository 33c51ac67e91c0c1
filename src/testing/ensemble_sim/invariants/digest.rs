//! Trees at the same zxid are the same.

use super::super::{Violation, World, show, violated};
use crate::base::Zxid;

pub(in super::super) fn check(
    world: &mut World,
    node: usize,
    zxid: Zxid,
    digest: u64,
) -> Result<(), Violation> {
    let known = *world.model.digests.entry(zxid).or_insert(digest);
    if known == digest {
        return Ok(());
    }
    violated(format!("n{} at {}: digest {digest:x}, elsewhere {known:x}", node + 1, show(zxid)))
}
