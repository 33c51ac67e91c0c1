//! The tree at a million nodes: create, find, set, list, watch, image, load; and what a node costs in memory.
//!
//! `cargo bench --bench tree`; `ZABRA_BENCH_NODES` sets another number of nodes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use zabra::base::ConnId;
use zabra::base::rng::Rng;
use zabra::tree::{ChunkKind, Fired, Loader, Tree, TreeOptions};
use zabra::wire::AclVec;
use zabra::wire::txn::{CreateTxn, Lifetime, Proposal, Txn, TxnHeader, kind};

/// Children of each parent.
const FANOUT: usize = 1000;
/// Bytes of a chunk before compression.
const CHUNK_BYTES: usize = 256 << 10;

fn path(i: usize) -> String {
    format!("/service-{:04}/member-{:010}", i / FANOUT, i % FANOUT)
}

struct Bed {
    tree: Tree,
    zxid: i64,
    fired: Fired,
}

impl Bed {
    fn new() -> Bed {
        Bed { tree: Tree::new(TreeOptions::default()), zxid: 0, fired: Fired::new() }
    }

    fn run(&mut self, kind: i32, txn: Txn<'_>) {
        self.zxid += 1;
        let header = TxnHeader { client_id: 1, cxid: 1, zxid: self.zxid, time_ms: self.zxid, kind };
        self.fired.clear();
        black_box(self.tree.apply(&Proposal { header, txn, digest: None }, &mut self.fired));
    }

    fn create(&mut self, path: &str, data: &[u8], parent_cversion: i32) {
        let txn = CreateTxn {
            path,
            data: Some(data),
            acl: AclVec::NULL,
            lifetime: Lifetime::Persistent,
            parent_cversion,
        };
        self.run(kind::CREATE, Txn::Create(txn));
    }

    /// `count` nodes of 100 bytes below parents of [`FANOUT`] children each.
    fn fill(count: usize) -> Bed {
        let mut bed = Bed::new();
        let data = [7; 100];
        for i in 0..count {
            let path = path(i);
            if i % FANOUT == 0 {
                bed.create(&path[..path.rfind('/').unwrap()], b"", (i / FANOUT) as i32 + 1);
            }
            bed.create(&path, &data, (i % FANOUT) as i32 + 1);
        }
        bed
    }
}

/// Resident bytes of this process, from the kernel; 0 where it does not say.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn image(tree: &mut Tree) -> Vec<(ChunkKind, Vec<u8>)> {
    let mut image = tree.begin_image();
    let mut chunks: Vec<(ChunkKind, Vec<u8>)> = Vec::new();
    let mut out = Vec::new();
    while let Some(kind) = tree.image_chunk(&mut image, &mut out, CHUNK_BYTES) {
        match chunks.last_mut() {
            Some((last, bytes)) if *last == kind && bytes.len() < CHUNK_BYTES => bytes.append(&mut out),
            _ => chunks.push((kind, std::mem::take(&mut out))),
        }
    }
    tree.end_image(image);
    chunks
}

fn load(chunks: &[(ChunkKind, Vec<u8>)], threads: usize) -> Tree {
    let loader = Loader::new(TreeOptions::default());
    let (header, rest) = chunks.split_first().unwrap();
    loader.chunk(header.0, &header.1).unwrap();
    std::thread::scope(|scope| {
        for part in 0..threads {
            let loader = &loader;
            scope.spawn(move || {
                for (kind, bytes) in rest.iter().skip(part).step_by(threads) {
                    loader.chunk(*kind, bytes).unwrap();
                }
            });
        }
    });
    loader.finish().unwrap()
}

fn random_paths(count: usize) -> Vec<String> {
    let mut rng = Rng::new(5);
    (0..65_536).map(|_| path(rng.below(count as u64) as usize)).collect()
}

fn single(c: &mut Criterion, bed: &mut Bed, count: usize) {
    let paths = random_paths(count);
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % paths.len();
        &*paths[at]
    };
    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(1));
    group.bench_function("find_stat", |b| b.iter(|| black_box(bed.tree.find(next()).unwrap().stat())));
    group.bench_function("find_data", |b| {
        b.iter(|| black_box(bed.tree.find(next()).unwrap().data().unwrap()[99]));
    });
    let data = [9; 100];
    group.bench_function("set_same_size", |b| {
        b.iter(|| bed.run(kind::SET_DATA, Txn::SetData { path: next(), data: Some(&data), version: 1 }));
    });
    let mut len = 0;
    group.bench_function("set_other_size", |b| {
        b.iter(|| {
            len = (len + 1) % 2;
            bed.run(kind::SET_DATA, Txn::SetData { path: next(), data: Some(&data[len..]), version: 1 });
        });
    });
    group.bench_function("create_delete", |b| {
        b.iter(|| {
            bed.create("/service-0000/new", &data, -1);
            bed.run(kind::DELETE, Txn::Delete { path: "/service-0000/new" });
        });
    });
    group.bench_function("watch_set", |b| {
        b.iter(|| {
            let path = next();
            bed.tree.watch_data(path, ConnId(1)).unwrap();
            bed.run(kind::SET_DATA, Txn::SetData { path, data: Some(&data), version: 1 });
        });
    });
    group.bench_function("list_1000", |b| {
        b.iter(|| {
            let node = bed.tree.find("/service-0007").unwrap();
            black_box(node.children().map(str::len).sum::<usize>())
        });
    });
    group.finish();
}

fn whole(c: &mut Criterion, bed: &mut Bed, count: usize) {
    let chunks = image(&mut bed.tree);
    let bytes: usize = chunks.iter().map(|(_, bytes)| bytes.len()).sum();
    println!("image: {} chunks, {} bytes per node", chunks.len(), bytes / count);
    let mut group = c.benchmark_group("tree");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("image", |b| {
        b.iter_batched(|| (), |()| image(&mut bed.tree), BatchSize::PerIteration);
    });
    for threads in [1, 2] {
        group.bench_function(format!("load_{threads}_threads"), |b| {
            b.iter_with_large_drop(|| load(&chunks, threads));
        });
    }
    group.finish();
}

fn main() {
    let count = std::env::var("ZABRA_BENCH_NODES").ok().and_then(|v| v.parse().ok()).unwrap_or(1_000_000);
    let before = resident_bytes();
    let started = Instant::now();
    let mut bed = Bed::fill(count);
    let took = started.elapsed();
    let per_node = resident_bytes().saturating_sub(before) / count;
    println!(
        "create: {count} nodes, {} ns each, {per_node} bytes resident each",
        took.as_nanos() as usize / count
    );
    let mut criterion = Criterion::default().configure_from_args();
    single(&mut criterion, &mut bed, count);
    whole(&mut criterion, &mut bed, count);
    criterion.final_summary();
}
