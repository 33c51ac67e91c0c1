//! The bytes of the wire: requests read, transactions and replies written and read, peers' packets. Per record, without tree or sockets.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use zabra::base::Zxid;
use zabra::testing::world::body;
use zabra::wire::quorum::{PacketKind, PacketLimits, QuorumPacket, Step, put_packet};
use zabra::wire::request::Request;
use zabra::wire::txn::{CreateTxn, Lifetime, Proposal, Txn, TxnDigest, TxnHeader, kind};
use zabra::wire::{AclVec, ErrorCode, OpCode, Stat, perms, reply};

const DATA: &[u8] = &[7; 100];
const PATH: &str = "/services/orders/instance-0000000042";

/// A whole payload, as a log record and a PROPOSAL carry it.
fn put_proposal(out: &mut Vec<u8>, kind: i32, txn: &Txn<'_>) {
    TxnHeader { client_id: 1, cxid: 2, zxid: 3, time_ms: 4, kind }.put(out);
    txn.put(out);
    TxnDigest { version: TxnDigest::VERSION, digest: 5 }.put(out);
}

fn requests(c: &mut Criterion) {
    let set = body::set_data(PATH, Some(DATA), -1);
    let all = [
        ("set 100 B", OpCode::SetData, set.clone()),
        ("get", OpCode::GetData, body::path_watch(PATH, false)),
        ("create", OpCode::Create, body::create(PATH, 0)),
        ("multi of 10 sets", OpCode::Multi, body::multi(&vec![(OpCode::SetData, set); 10])),
    ];
    let mut group = c.benchmark_group("request");
    for (name, op, body) in all {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("check {name}"), |b| {
            b.iter(|| Request::check(op, black_box(&body)).expect("sound"));
        });
        group.bench_function(format!("read {name}"), |b| {
            b.iter(|| black_box(Request::read(op, black_box(&body)).expect("sound")));
        });
    }
    group.finish();
}

fn transactions(c: &mut Criterion) {
    let acl = body::acl(&[(perms::ALL, "world", "anyone")]);
    let create = CreateTxn {
        path: PATH,
        data: Some(DATA),
        acl: AclVec::of_encoded(&acl),
        lifetime: Lifetime::Persistent,
        parent_cversion: 43,
    };
    let all = [
        ("set 100 B", kind::SET_DATA, Txn::SetData { path: PATH, data: Some(DATA), version: 8 }),
        ("create 100 B", kind::CREATE, Txn::Create(create)),
    ];
    let mut group = c.benchmark_group("transaction");
    for (name, kind, txn) in all {
        let mut payload = Vec::new();
        put_proposal(&mut payload, kind, &txn);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        let mut out = Vec::with_capacity(payload.len());
        group.bench_function(format!("write {name}"), |b| {
            b.iter(|| {
                out.clear();
                put_proposal(&mut out, kind, black_box(&txn));
            });
        });
        group.bench_function(format!("read {name}"), |b| {
            b.iter(|| black_box(Proposal::read(black_box(&payload)).expect("sound")));
        });
    }
    group.finish();
}

fn replies(c: &mut Criterion) {
    let stat = Stat::default();
    let mut out = Vec::with_capacity(1 << 10);
    let mut group = c.benchmark_group("reply");
    group.throughput(Throughput::Elements(1));
    group.bench_function("stat", |b| {
        b.iter(|| {
            out.clear();
            reply::put_stat(&mut out, 1, Zxid(2), black_box(&stat));
        });
    });
    group.bench_function("error", |b| {
        b.iter(|| {
            out.clear();
            reply::put_empty(&mut out, 1, Zxid(2), black_box(ErrorCode::NoNode));
        });
    });
    group.finish();
}

fn packets(c: &mut Criterion) {
    let mut payload = Vec::new();
    put_proposal(&mut payload, kind::SET_DATA, &Txn::SetData { path: PATH, data: Some(DATA), version: 8 });
    let (mut out, limits) = (Vec::with_capacity(1 << 10), PacketLimits::default());
    let put = |out: &mut Vec<u8>| {
        out.clear();
        put_packet(out, PacketKind::Proposal, Zxid(3), |data| data.extend_from_slice(&payload));
    };
    let mut group = c.benchmark_group("packet");
    group.throughput(Throughput::Elements(1));
    group.bench_function("write a proposal", |b| b.iter(|| put(black_box(&mut out))));
    put(&mut out);
    group.bench_function("read a proposal", |b| {
        b.iter(|| match QuorumPacket::parse(black_box(&out), &limits) {
            Ok(Step::Done { value, .. }) => black_box(value.zxid),
            other => panic!("{other:?}"),
        });
    });
    group.finish();
}

criterion_group!(benches, requests, transactions, replies, packets);
criterion_main!(benches);
