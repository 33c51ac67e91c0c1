//! Append + flush by record size and group size, for every region, beside the floor: the same bytes with one raw `pwrite` and
//! `fdatasync` on a prefilled file in the same directory, in the same run. Compare within one run only.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use zabra::base::Zxid;
use zabra::storage::log::format::{RECORD_HEAD_BYTES, record_bytes};
use zabra::storage::log::{Group, Log, LogOptions, RecordKind, RecoveryHints, RegionKind};
use zabra::storage::vfs::RealVfs;

const SEGMENT_BYTES: u64 = 64 << 20;
const PAGE_BYTES: usize = 4096;

fn bench_append(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    for (payload_bytes, records) in [(100, 1), (100, 16), (100, 256), (1000, 1), (1000, 64)] {
        let mut group = c.benchmark_group(format!("append_flush/{payload_bytes}B"));
        group.throughput(Throughput::Elements(records as u64));
        group.measurement_time(Duration::from_secs(4));
        floor(&mut group, dir.path(), records, records * record_bytes(payload_bytes));
        for region in [RegionKind::Pwrite, RegionKind::MappedFdatasync, RegionKind::MappedMsync] {
            log(&mut group, dir.path(), region, records, payload_bytes);
        }
        group.finish();
    }
}

/// One `pwrite` and one `fdatasync` of as many bytes.
fn floor(group: &mut BenchmarkGroup<'_, WallTime>, dir: &Path, records: usize, bytes: usize) {
    let path = dir.join("floor");
    let file = File::create(&path).expect("a new file");
    for page in 0..SEGMENT_BYTES / PAGE_BYTES as u64 {
        file.write_all_at(&[0; PAGE_BYTES], page * PAGE_BYTES as u64).expect("room");
    }
    file.sync_all().expect("a sound disk");
    let (data, mut at) = (vec![7u8; bytes], 0);
    group.bench_function(BenchmarkId::new("floor", records), |b| {
        b.iter(|| {
            if at + bytes as u64 > SEGMENT_BYTES {
                at = 0;
            }
            file.write_all_at(&data, at).expect("room");
            file.sync_data().expect("a sound disk");
            at += bytes as u64;
        });
    });
    std::fs::remove_file(path).expect("there");
}

fn log(
    group: &mut BenchmarkGroup<'_, WallTime>,
    dir: &Path,
    region: RegionKind,
    records: usize,
    payload_bytes: usize,
) {
    let dir = dir.join(format!("{region:?}-{records}-{payload_bytes}"));
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, region, identity: 1 };
    let opened = Log::open(Arc::new(RealVfs), &dir, options, RecoveryHints::default(), 1);
    let (mut log, _) = opened.expect("a sound disk");
    let (payload, mut batch) = (vec![7u8; payload_bytes], Group::new());
    group.bench_function(BenchmarkId::new(format!("{region:?}"), records), |b| {
        b.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                prepare(&mut log, (records * (RECORD_HEAD_BYTES + payload_bytes + 8)) as u64);
                let start = Instant::now();
                batch.clear();
                let mut zxid = log.appender.last_zxid();
                for _ in 0..records {
                    zxid = Zxid(zxid.0 + 1);
                    batch.record(zxid, RecordKind::Txn, |b| b.extend_from_slice(&payload));
                }
                log.appender.append(&mut batch).expect("room");
                log.flusher.flush().expect("a sound disk");
                total += start.elapsed();
            }
            total
        });
    });
    drop(log);
    std::fs::remove_dir_all(dir).expect("there");
}

/// Makes the spare just before it is needed, outside of the measured time.
fn prepare(log: &mut Log, bytes: u64) {
    if log.flusher.durable().pos.offset + bytes > SEGMENT_BYTES {
        log.spares.purge(log.appender.last_zxid()).expect("a sound disk");
        log.spares.prepare_if_needed().expect("room");
    }
}

criterion_group!(benches, bench_append);
criterion_main!(benches);
