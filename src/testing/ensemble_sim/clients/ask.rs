//! What clients ask for, at random.

use super::super::World;
use super::super::options::{PLACES, REGISTERS, place, register};
use crate::base::ConnId;
use crate::node::auth::open_acl;
use crate::testing::world::body;
use crate::wire::OpCode;
use crate::wire::reply::XID_PING;

/// Children of a place.
const CHILDREN: u64 = 3;
/// Kinds of requests: below this number writes, behind it the others.
const WRITES: u64 = 33;
const KINDS: u64 = 62;

type Asked = (OpCode, Vec<u8>);

impl World {
    pub(super) fn ask(&mut self, index: usize, (node, _, conn): (usize, u64, ConnId)) {
        let client = &self.clients[index];
        // Some never write: they go on asking a leader that cannot commit any more.
        let only_reads = index % 3 == 2 && client.home.is_none();
        let what = if only_reads { WRITES + self.rng.below(KINDS - WRITES) } else { self.rng.below(KINDS) };
        let (op, body) =
            if what < WRITES { self.some_write(index, what) } else { self.some_read(index, what) };
        self.request(index, (node, conn), op, body);
        // What comes right behind a sync must be as good as a write.
        if op == OpCode::Sync {
            let (op, body) = match self.rng.below(3) {
                0 => (OpCode::MultiRead, self.clients[index].list.read()),
                _ => (OpCode::GetData, body::path_watch(&register(self.rng.below(REGISTERS)), false)),
            };
            self.request(index, (node, conn), op, body);
        }
    }

    fn request(&mut self, index: usize, to: (usize, ConnId), op: OpCode, body: Vec<u8>) {
        let client = &mut self.clients[index];
        client.cxid += 1;
        let cxid = client.cxid;
        self.put_request(index, to, cxid, op, body);
    }

    pub(super) fn ping(&mut self, index: usize, (node, _, conn): (usize, u64, ConnId)) {
        self.put_request(index, (node, conn), XID_PING, OpCode::Ping, Vec::new());
    }

    /// A register, a place, one of its children, or the root.
    fn some_path(&mut self) -> String {
        let at = place(self.rng.below(PLACES));
        match self.rng.below(8) {
            0..=2 => register(self.rng.below(REGISTERS)),
            3 | 4 => at,
            5 | 6 => format!("{at}/c{}", self.rng.below(CHILDREN)),
            _ => "/".to_owned(),
        }
    }

    fn some_write(&mut self, index: usize, what: u64) -> Asked {
        let client = &self.clients[index];
        let (home, session) = (client.home, client.session.expect("it is live"));
        let value = format!("{session}:{}", client.cxid + 1).into_bytes();
        let path = register(self.rng.below(REGISTERS));
        let at = place(self.rng.below(PLACES));
        let child = format!("{at}/c{}", self.rng.below(CHILDREN));
        match what {
            0..=2 => {
                let other = register(self.rng.below(REGISTERS));
                let set = |path: &str| (OpCode::SetData, body::set_data(path, Some(&value), -1));
                (OpCode::Multi, body::multi(&[set(&path), set(&other)]))
            }
            3..=14 => (OpCode::SetData, body::set_data(&path, Some(&value), -1)),
            15..=17 => (OpCode::Create, body::create_with(&path, Some(&value), 0, &open_acl())),
            18..=20 => (OpCode::Create, body::create("/e-", 3)),
            21 | 22 => (OpCode::Create2, body::create(&at, 0)),
            23 => (OpCode::Delete, body::path_int(&at, -1)),
            24 => (OpCode::Create2, body::create(&child, (self.rng.below(2)) as i32)),
            25 => (OpCode::Delete, body::path_int(&child, -1)),
            26 => {
                // Gone and there again, in one.
                let create = (OpCode::Create, body::create(&child, 0));
                let delete = (OpCode::Delete, body::path_int(&child, -1));
                (
                    OpCode::Multi,
                    body::multi(&if self.rng.one_in(2) { [delete, create] } else { [create, delete] }),
                )
            }
            27 => {
                let mut padded = value;
                padded.resize(1_200, b'.');
                (OpCode::SetData, body::set_data(&path, Some(&padded), -1))
            }
            28 if self.rng.one_in(8) && home.is_none() => (OpCode::CloseSession, Vec::new()),
            _ if self.clients[index].list.is_known() => {
                let entry = self.model.lists.next_entry();
                (OpCode::Multi, self.clients[index].list.append(entry))
            }
            _ => (OpCode::MultiRead, self.clients[index].list.read()),
        }
    }

    fn some_read(&mut self, index: usize, what: u64) -> Asked {
        let watch = self.rng.one_in(2);
        let path = self.some_path();
        match what - WRITES {
            0..=4 => (OpCode::Sync, body::path_only("/")),
            5..=11 => (OpCode::GetData, body::path_watch(&register(self.rng.below(REGISTERS)), watch)),
            12 | 13 => (OpCode::GetData, body::path_watch(&path, watch)),
            14..=17 => (OpCode::Exists, body::path_watch(&path, watch)),
            18..=21 => (OpCode::GetChildren2, body::path_watch(&path, watch)),
            22 => (OpCode::AddWatch, body::path_int(&path, 0)),
            23 => (OpCode::AddWatch, body::path_int(&path, 1)),
            24 => (OpCode::RemoveWatches, body::path_int(&path, 1 + self.rng.below(5) as i32)),
            25 => self.known_watch(index, OpCode::RemoveWatches),
            26 => self.known_watch(index, OpCode::CheckWatches),
            _ => (OpCode::MultiRead, self.clients[index].list.read()),
        }
    }

    /// About something that the client watches, if there is anything.
    fn known_watch(&mut self, index: usize, op: OpCode) -> Asked {
        let numbers = [2, 2, 1, 4, 5];
        let wanted = &self.clients[index].watching.wanted;
        let all: Vec<(i32, &str)> = super::WatchOf::ALL
            .into_iter()
            .flat_map(|kind| wanted.of(kind).into_iter().map(move |path| (numbers[kind as usize], path)))
            .collect();
        if all.is_empty() {
            return (op, body::path_int("/", 3));
        }
        let (kind, path) = all[self.rng.below(all.len() as u64) as usize];
        (op, body::path_int(path, if self.rng.one_in(4) { 3 } else { kind }))
    }
}
