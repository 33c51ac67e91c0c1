//! Mistakes made on purpose between the tree and a client ([`Slip`]): what judges the clients' histories must notice each of them.

use std::borrow::Cow;

use super::super::World;
use super::super::clients::Pending;
use super::super::options::Slip;
use crate::tree::Tree;
use crate::wire::jute::Reader;
use crate::wire::request::MultiHeader;
use crate::wire::{OpCode, Stat};

/// Length, xid, zxid, error.
const HEADER_BYTES: usize = 20;

impl World {
    /// What is asked of the tree in the place of what the client asks.
    pub(super) fn slipped<'r>(&mut self, tree: &Tree, request: &'r Pending) -> (OpCode, Cow<'r, [u8]>) {
        let (mut op, mut body) = (request.op, Cow::Borrowed(&*request.body));
        match (self.options.slip, op) {
            (Some(Slip::WatchNotSet), OpCode::GetData | OpCode::Exists | OpCode::GetChildren2)
                if self.rng.one_in(10) =>
            {
                *body.to_mut().last_mut().expect("the flag") = 0;
            }
            (Some(Slip::RemovalForgotten), OpCode::RemoveWatches) => op = OpCode::CheckWatches,
            (Some(Slip::MissedNotTold), OpCode::SetWatches | OpCode::SetWatches2) => {
                body.to_mut()[..8].copy_from_slice(&tree.applied().to_wire().to_be_bytes());
            }
            (Some(Slip::KnownToldAgain), OpCode::SetWatches | OpCode::SetWatches2) => {
                body.to_mut()[..8].fill(0);
            }
            _ => {}
        }
        (op, body)
    }

    /// What becomes of an answer on its way.
    pub(super) fn slip_answer(&mut self, request: &Pending, frame: &mut Vec<u8>) {
        let long = frame.len() > HEADER_BYTES + 4;
        match self.options.slip {
            Some(Slip::AnswerAltered) if long && super::is_write(request.op) && self.rng.one_in(20) => {
                *frame.last_mut().expect("it is long") ^= 1;
            }
            Some(Slip::ChildHidden) if long && request.op == OpCode::GetChildren2 => hide_child(frame),
            Some(Slip::MultiReadTorn) if long && request.op == OpCode::MultiRead => {
                let before = self.torn.insert(request.body.clone(), frame.clone());
                if let Some(before) = before.filter(|_| self.rng.one_in(4)) {
                    tear(frame, &before);
                }
            }
            _ => {}
        }
    }
}

/// One name less.
fn hide_child(frame: &mut Vec<u8>) {
    let int = |frame: &[u8], at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
    let (count, name_bytes) = (int(frame, HEADER_BYTES), int(frame, HEADER_BYTES + 4));
    if count > 0 {
        frame[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&(count - 1).to_be_bytes());
        frame.drain(HEADER_BYTES + 4..HEADER_BYTES + 8 + name_bytes as usize);
        fix_length(frame);
    }
}

/// The second part as it was when that was last asked for.
fn tear(frame: &mut Vec<u8>, before: &[u8]) {
    let (from, old) = (second_part(frame), second_part(before));
    frame.truncate(from);
    frame.extend_from_slice(&before[old..]);
    fix_length(frame);
}

/// Where the second part of the answer to a multiRead begins.
fn second_part(frame: &[u8]) -> usize {
    let mut r = Reader::new(&frame[HEADER_BYTES..]);
    let header = MultiHeader::read(&mut r).expect("made by the product");
    if header.op == OpCode::Error.to_i32() {
        r.int().expect("an error");
    } else {
        r.buffer().expect("data");
        Stat::read(&mut r).expect("a stat");
    }
    HEADER_BYTES + r.position()
}

fn fix_length(frame: &mut [u8]) {
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
}
