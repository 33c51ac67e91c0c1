//! Append + flush by record size and group size, for every region, beside the floor: the same bytes with one raw `pwrite` and
//! `fdatasync` on a prefilled file in the same directory, in the same run. Compare within one run only.
//!
//! Before criterion's figures, which are taken one after the other, a table of all of them in turn, commit by commit: on a machine
//! that is not quiet only that one compares.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zabra::base::Zxid;
use zabra::storage::log::format::record_bytes;
use zabra::storage::log::{Group, Log, LogOptions, RecordKind, RecoveryHints, RegionKind};
use zabra::storage::vfs::RealVfs;

const SEGMENT_BYTES: u64 = 64 << 20;
const PAGE_BYTES: usize = 4096;

/// Payload bytes and records of a group.
const SHAPES: [(usize, usize); 5] = [(100, 1), (100, 16), (100, 256), (1000, 1), (1000, 64)];
/// Commits of each contestant in the table.
const ROUNDS: usize = 1500;

/// One way of making bytes durable.
trait Commit {
    fn name(&self) -> String;
    /// Commits a group; what is timed.
    fn commit(&mut self);
    /// What is not timed.
    fn prepare(&mut self);
}

struct Floor {
    file: File,
    data: Vec<u8>,
    at: u64,
}

struct ByLog {
    log: Log,
    region: RegionKind,
    batch: Group,
    payload: Vec<u8>,
    records: usize,
}

impl Floor {
    fn new(path: &Path, bytes: usize) -> Floor {
        let file = File::create(path).expect("a new file");
        for page in 0..SEGMENT_BYTES / PAGE_BYTES as u64 {
            file.write_all_at(&[0; PAGE_BYTES], page * PAGE_BYTES as u64).expect("room");
        }
        file.sync_all().expect("a sound disk");
        Floor { file, data: vec![7; bytes], at: 0 }
    }
}

impl Commit for Floor {
    fn name(&self) -> String {
        "floor".into()
    }

    fn commit(&mut self) {
        self.file.write_all_at(&self.data, self.at).expect("room");
        self.file.sync_data().expect("a sound disk");
        self.at += self.data.len() as u64;
    }

    fn prepare(&mut self) {
        if self.at + self.data.len() as u64 > SEGMENT_BYTES {
            self.at = 0;
        }
    }
}

impl ByLog {
    fn new(dir: &Path, region: RegionKind, records: usize, payload_bytes: usize) -> ByLog {
        let dir = dir.join(format!("{region:?}"));
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, region, identity: 1 };
        let opened = Log::open(Arc::new(RealVfs), &dir, options, RecoveryHints::default(), 1);
        let (log, _) = opened.expect("a sound disk");
        ByLog { log, region, batch: Group::new(), payload: vec![7; payload_bytes], records }
    }
}

impl Commit for ByLog {
    fn name(&self) -> String {
        format!("{:?}", self.region)
    }

    fn commit(&mut self) {
        self.batch.clear();
        let mut zxid = self.log.appender.last_zxid();
        for _ in 0..self.records {
            zxid = Zxid(zxid.0 + 1);
            self.batch.record(zxid, RecordKind::Txn, |b| b.extend_from_slice(&self.payload));
        }
        self.log.appender.append(&mut self.batch).expect("room");
        self.log.flusher.flush().expect("a sound disk");
    }

    /// Makes the spare just before it is needed.
    fn prepare(&mut self) {
        let bytes = (self.records * record_bytes(self.payload.len())) as u64;
        if self.log.flusher.durable().pos.offset + bytes > SEGMENT_BYTES {
            self.log.spares.purge(self.log.appender.last_zxid()).expect("a sound disk");
            self.log.spares.prepare_if_needed().expect("room");
        }
    }
}

/// The contestants, in a directory of their own.
fn contestants(dir: &Path, records: usize, payload_bytes: usize) -> Vec<Box<dyn Commit>> {
    let floor = Floor::new(&dir.join("floor"), records * record_bytes(payload_bytes));
    let regions = [RegionKind::Pwrite, RegionKind::MappedFdatasync, RegionKind::MappedMsync];
    let logs = regions.map(|r| Box::new(ByLog::new(dir, r, records, payload_bytes)) as Box<dyn Commit>);
    std::iter::once(Box::new(floor) as Box<dyn Commit>).chain(logs).collect()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// All in turn, commit by commit; prints the 10th percentile and the median of each.
fn in_turn(records: usize, payload_bytes: usize) {
    let dir = temporary();
    let mut all = contestants(dir.path(), records, payload_bytes);
    let mut times = vec![Vec::with_capacity(ROUNDS); all.len()];
    for round in 0..ROUNDS {
        for i in 0..all.len() {
            // Another order in every round: who comes after whom must not matter.
            let at = (i + round) % all.len();
            all[at].prepare();
            let start = Instant::now();
            all[at].commit();
            times[at].push(start.elapsed());
        }
    }
    for (contestant, mut times) in all.iter().zip(times) {
        times.sort_unstable();
        let (p10, p50) = (times[ROUNDS / 10], times[ROUNDS / 2]);
        println!(
            "in turn: {records} x {payload_bytes} B {:<16} p10 {p10:>10.1?} p50 {p50:>10.1?}",
            contestant.name()
        );
    }
}

fn bench_append(c: &mut Criterion) {
    for (payload_bytes, records) in SHAPES {
        in_turn(records, payload_bytes);
    }
    for (payload_bytes, records) in SHAPES {
        let dir = temporary();
        let mut group = c.benchmark_group(format!("append_flush/{payload_bytes}B"));
        group.throughput(Throughput::Elements(records as u64));
        for mut contestant in contestants(dir.path(), records, payload_bytes) {
            group.bench_function(BenchmarkId::new(contestant.name(), records), |b| {
                b.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    for _ in 0..iterations {
                        contestant.prepare();
                        let start = Instant::now();
                        contestant.commit();
                        total += start.elapsed();
                    }
                    total
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench_append);
criterion_main!(benches);
