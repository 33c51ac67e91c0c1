//! A read gives what the one history says of its header's zxid.

use super::super::clients::Answer;
use super::super::{Violation, World, show, violated};

pub(in super::super) fn check(world: &World, path: &str, answer: &Answer) -> Result<(), Violation> {
    let expected = world.model.read(path, answer.zxid);
    if expected == answer.value {
        return Ok(());
    }
    let text = |value: &Option<Option<Vec<u8>>>| match value {
        None => "no node".to_owned(),
        Some(None) => "null".to_owned(),
        Some(Some(data)) => String::from_utf8_lossy(data).into_owned(),
    };
    violated(format!(
        "a read of {path} at {} gives {}, the history has {}",
        show(answer.zxid),
        text(&answer.value),
        text(&expected)
    ))
}
