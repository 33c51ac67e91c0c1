//! What clients have seen, for the checks that do not look at a zxid.

use super::super::invariants::linear::Access;
use super::super::invariants::lists;
use super::super::model::Model;
use super::{Answer, Op};
use crate::wire::jute::Reader;
use crate::wire::request::{MultiHeader, Request};
use crate::wire::{ErrorCode, OpCode};

impl Model {
    /// An answer has come; `synced` is when the sync was sent whose answer came right before.
    pub(super) fn note_answer(&mut self, client: usize, op: &Op, answer: &Answer<'_>, synced: Option<u64>) {
        let to = self.moment();
        let request = Request::read(op.op, &op.body).expect("clients send what can be read");
        match request {
            Request::GetData { path, .. } if path.starts_with("/r") => {
                let Some(from) = synced else { return };
                let value = match answer.err {
                    0 => Reader::new(answer.body).buffer().ok().flatten().map(<[u8]>::to_vec),
                    err if err == ErrorCode::NoNode.to_i32() => None,
                    _ => return,
                };
                self.access(path, Access { write: false, value, from, to });
            }
            Request::MultiRead(_) => {
                let read = lists::ListRead::of(client, &op.body, answer.body, synced, to);
                self.lists.reads.extend(read);
            }
            _ if answer.err == 0 && !is_failed_multi(op.op, answer.body) => self.note_writes(op, to),
            _ => self.lists.note_append(op, lists::Fate::Failed),
        }
    }

    /// No answer will ever come.
    pub(super) fn note_unknown(&mut self, op: &Op) {
        self.note_writes(op, u64::MAX);
    }

    fn note_writes(&mut self, op: &Op, to: u64) {
        let request = Request::read(op.op, &op.body).expect("clients send what can be read");
        let fate = if to == u64::MAX { lists::Fate::Unknown } else { lists::Fate::Done(to) };
        match request {
            Request::Multi(ops) => {
                self.lists.note_append(op, fate);
                let mut last = None;
                for (_, part) in ops.iter() {
                    // Twice the same is once.
                    if Some(part) != last {
                        self.note_write(&part, op.moment, to);
                    }
                    last = Some(part);
                }
            }
            other => self.note_write(&other, op.moment, to),
        }
    }

    fn note_write(&mut self, request: &Request<'_>, from: u64, to: u64) {
        let (path, data) = match request {
            Request::Create(create) => (create.path, create.data),
            Request::SetData { path, data, .. } => (*path, *data),
            _ => return,
        };
        if path.starts_with("/r") {
            self.access(path, Access { write: true, value: data.map(<[u8]>::to_vec), from, to });
        }
    }

    fn access(&mut self, path: &str, access: Access) {
        self.accesses.entry(path.to_owned()).or_default().push(access);
    }
}

/// All results of a multi that failed are errors.
fn is_failed_multi(op: OpCode, body: &[u8]) -> bool {
    let header = || MultiHeader::read(&mut Reader::new(body)).ok();
    op == OpCode::Multi && header().is_none_or(|header| header.op == OpCode::Error.to_i32())
}
