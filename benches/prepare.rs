//! Prepare and apply, without log and sockets: what one group of 64 writes costs, per write.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use zabra::base::{ConnId, MonoMs, WallMs};
use zabra::node::{AuthIds, Prepare, PrepareOptions, WriteRequest, put_write_reply};
use zabra::session::Tracker;
use zabra::testing::world::body;
use zabra::tree::{Fired, Tree, TreeOptions};
use zabra::wire::OpCode;
use zabra::wire::txn::Proposal;

/// Writes of one group: what 64 connections with one request in flight make.
const GROUP: usize = 64;

struct Node {
    tree: Tree,
    prepare: Prepare,
    sessions: Tracker,
    fired: Fired,
    ids: AuthIds,
    log: Vec<u8>,
    ends: Vec<usize>,
    replies: Vec<u8>,
}

impl Node {
    fn new() -> Node {
        let tree = Tree::new(TreeOptions::default());
        let mut sessions = Tracker::new(2_000, 1);
        sessions.create(10_000, ConnId(1), MonoMs(0));
        Node {
            prepare: Prepare::new(tree.applied(), tree.digest(), PrepareOptions::default()),
            tree,
            sessions,
            fired: Fired::new(),
            ids: AuthIds::of_peer("127.0.0.1".parse().expect("an address")),
            log: Vec::new(),
            ends: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Prepares all of `bodies`, then applies and answers all.
    fn group<'a>(&mut self, op: OpCode, bodies: impl Iterator<Item = &'a [u8]>) {
        self.log.clear();
        self.ends.clear();
        self.replies.clear();
        for body in bodies {
            let session = zabra::base::SessionId(1);
            let req = WriteRequest { session, cxid: 1, op, body, auth: &self.ids, conn: ConnId(1) };
            self.prepare.prepare(&self.tree, &self.sessions, WallMs(1), &req, &mut self.log);
            self.ends.push(self.log.len());
        }
        let mut from = 0;
        for &end in &self.ends {
            let proposal = Proposal::read(&self.log[from..end]).expect("what is prepared decodes");
            let outcome = self.tree.apply(&proposal, &mut self.fired);
            let _ = put_write_reply(&mut self.replies, 1, op, &proposal, &outcome);
            from = end;
        }
        self.fired.clear();
        self.prepare.applied(&self.tree);
    }
}

fn sets(c: &mut Criterion) {
    let mut node = Node::new();
    let paths: Vec<_> = (0..10_000).map(|n| format!("/node-{n:05}")).collect();
    for path in &paths {
        node.group(OpCode::Create, std::iter::once(&body::create(path, 0)[..]));
    }
    let bodies: Vec<_> = paths.iter().map(|path| body::set_data(path, Some(&[7; 100]), -1)).collect();
    let mut next = bodies.iter().map(Vec::as_slice).cycle();
    let mut group = c.benchmark_group("prepare");
    group.throughput(Throughput::Elements(GROUP as u64));
    group.bench_function("set 100 B, groups of 64", |b| {
        b.iter(|| node.group(OpCode::SetData, (&mut next).take(GROUP)));
    });
    group.finish();
}

fn creates(c: &mut Criterion) {
    let mut node = Node::new();
    let create = body::create("/node-", 2);
    let mut made = 0u64;
    let mut group = c.benchmark_group("prepare");
    group.throughput(Throughput::Elements(GROUP as u64));
    group.bench_function("create sequential, groups of 64", |b| {
        b.iter(|| {
            node.group(OpCode::Create, std::iter::repeat_n(&create[..], GROUP));
            made += GROUP as u64;
        });
    });
    group.finish();
    assert!(node.tree.node_count() as u64 > made, "every create worked");
}

criterion_group!(benches, sets, creates);
criterion_main!(benches);
