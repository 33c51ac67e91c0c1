//! A read gives what the one history says of its header's zxid: data, stat, children, all parts of a multiRead.

use super::super::clients::{Answer, Op};
use super::super::{Violation, World, show, violated};
use crate::base::Zxid;
use crate::wire::jute::{PutJute, Reader};
use crate::wire::request::{MultiHeader, Request};
use crate::wire::{ErrorCode, OpCode, Stat, StrVec};

pub(in super::super) fn check(world: &World, op: &Op, answer: &Answer<'_>) -> Result<(), Violation> {
    let request = Request::read(op.op, &op.body).expect("clients send what can be read");
    let zxid = answer.zxid;
    let (found, expected) = match request {
        Request::GetChildren2 { path, .. } => children(world, path, answer),
        _ => match expected(world, &request, zxid) {
            Some(expected) => ((answer.err, answer.body.to_vec()), expected),
            None => return Ok(()),
        },
    };
    if found == expected {
        return Ok(());
    }
    let text = |(err, body): &(i32, Vec<u8>)| format!("{err} {}", body.escape_ascii());
    violated(format!(
        "{request:?} at {} gives {}, the history has {}",
        show(zxid),
        text(&found),
        text(&expected)
    ))
}

/// Error and body; `None` for what is not read from the tree.
fn expected(world: &World, request: &Request<'_>, zxid: Zxid) -> Option<(i32, Vec<u8>)> {
    let nodes = &world.model.nodes;
    let mut body = Vec::new();
    let found = match request {
        Request::GetData { path, .. } => nodes.at(path, zxid).map(|node| {
            body.put_buffer(node.data.as_deref());
            node.stat.put(&mut body);
        }),
        Request::Exists { path, .. } => nodes.at(path, zxid).map(|node| node.stat.put(&mut body)),
        Request::MultiRead(ops) => {
            for (op, part) in ops.iter() {
                let (err, result) = expected(world, &part, zxid)?;
                let op = if err == 0 { op } else { OpCode::Error };
                MultiHeader { op: op.to_i32(), done: false, err }.put(&mut body);
                body.extend_from_slice(&result);
                if err != 0 {
                    body.put_int(err);
                }
            }
            MultiHeader::END.put(&mut body);
            Some(())
        }
        _ => return None,
    };
    let err = if found.is_some() { ErrorCode::Ok } else { ErrorCode::NoNode };
    Some((err.to_i32(), body))
}

type Told = (i32, Vec<u8>);

/// Names come in no order: both sides in one.
fn children(world: &World, path: &str, answer: &Answer<'_>) -> (Told, Told) {
    let encode = |mut names: Vec<&str>, stat: Option<Stat>| {
        names.sort_unstable();
        let mut body = Vec::new();
        names.into_iter().for_each(|name| body.put_ustring(name));
        stat.inspect(|stat| stat.put(&mut body));
        body
    };
    let mut r = Reader::new(answer.body);
    let names = StrVec::read(&mut r).map(|names| names.iter().collect()).unwrap_or_default();
    let found = (answer.err, encode(names, Stat::read(&mut r).ok()));
    let expected = match world.model.nodes.at(path, answer.zxid) {
        None => (ErrorCode::NoNode.to_i32(), Vec::new()),
        Some(node) => (0, encode(world.model.nodes.children_at(path, answer.zxid), Some(node.stat))),
    };
    (found, expected)
}
