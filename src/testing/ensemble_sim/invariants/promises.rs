//! Who serves in an epoch has promised that one, and none behind it: a later leader that counted the promise may rely on it (rule R8).

use super::super::node::Process;
use super::super::{Violation, violated};
use crate::node::member::Standing;

pub(in super::super) fn check(node: usize, process: &Process) -> Result<(), Violation> {
    let Some(standing) = process.member.standing() else { return Ok(()) };
    let (Standing::Leading { epoch } | Standing::Learning { epoch, .. }) = standing;
    let accepted = process.member.epochs().0;
    if epoch == accepted {
        return Ok(());
    }
    violated(format!("n{} serves in epoch {epoch}, and has promised {accepted}", node + 1))
}
