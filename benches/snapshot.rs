//! The snapshot container: compressing, writing and reading chunks of what a tree looks like, in bytes per second before
//! compression. `cargo bench --bench snapshot`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use zabra::base::rng::Rng;
use zabra::base::{WallMs, Zxid};
use zabra::storage::snapshot::{
    EncodedChunk, Encoder, LEVEL_DEFAULT, SnapshotMeta, SnapshotReader, SnapshotStore,
};
use zabra::storage::vfs::RealVfs;

const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS: usize = 16;

/// Names that share prefixes, stats that share high bytes, 100 bytes of data of which half is random.
fn tree_like_chunk(seed: u64) -> Vec<u8> {
    let (mut rng, mut out) = (Rng::new(seed), Vec::with_capacity(CHUNK_BYTES));
    let mut node = 0;
    while out.len() + 256 < CHUNK_BYTES {
        let (mut data, stat) = ([b'x'; 100], [seed + node, seed + node, 1_790_000_000_000, 0, 7, 100]);
        rng.fill(&mut data[..50]);
        out.extend_from_slice(format!("/service/instances/node-{seed:04}-{node:08}").as_bytes());
        stat.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        out.extend_from_slice(&data);
        node += 1;
    }
    out
}

fn write(dir: &Path, zxid: u64, chunks: &[Vec<u8>]) {
    let store = SnapshotStore::open(Arc::new(RealVfs), dir).expect("directory");
    let meta = SnapshotMeta {
        zxid: Zxid(zxid),
        node_id: 1,
        created: WallMs(0),
        chunk_bytes_target: CHUNK_BYTES as u32,
        level: LEVEL_DEFAULT,
    };
    let mut writer = store.create(meta).expect("created");
    chunks.iter().for_each(|raw| writer.chunk(1, raw).expect("written"));
    writer.finish(Zxid(zxid), b"").expect("published");
}

fn read_all(reader: &SnapshotReader, threads: u32) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut raw = Vec::new();
                for index in (thread..reader.chunk_count()).step_by(threads as usize) {
                    reader.read_chunk(index, &mut raw).expect("good");
                    black_box(&raw);
                }
            });
        }
    });
}

fn snapshot(c: &mut Criterion) {
    let chunks: Vec<Vec<u8>> = (0..CHUNKS as u64).map(tree_like_chunk).collect();
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(10);

    let (mut encoder, mut out) = (Encoder::new(LEVEL_DEFAULT).expect("context"), EncodedChunk::default());
    group.throughput(Throughput::Bytes(chunks[0].len() as u64));
    group.bench_function("encode one chunk", |b| {
        b.iter(|| encoder.encode(1, black_box(&chunks[0]), &mut out).expect("encoded"));
    });

    group.throughput(Throughput::Bytes(chunks.iter().map(|c| c.len() as u64).sum()));
    group.bench_function("write 16 MiB, durable", |b| {
        b.iter_batched(|| (), |()| write(dir.path(), 1, &chunks), BatchSize::PerIteration);
    });

    write(dir.path(), 2, &chunks);
    let store = SnapshotStore::open(Arc::new(RealVfs), dir.path()).expect("directory");
    for threads in [1, 2, 4] {
        let reader = store.reader(Zxid(2)).expect("good");
        group.bench_function(format!("read 16 MiB, {threads} threads"), |b| {
            b.iter(|| read_all(&reader, threads))
        });
    }
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
