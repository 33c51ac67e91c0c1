//! Opening a log of a million records of 100 bytes: from the cache after a clean stop, from the disk after an unclean one; and
//! reading it whole, as a restart replays it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zabra::base::{LogPos, Zxid};
use zabra::storage::log::{Group, Log, LogOptions, RecordKind, RecoveryHints};
use zabra::storage::vfs::RealVfs;

const RECORDS: u64 = 1_000_000;
const PAYLOAD_BYTES: usize = 100;
const RECORDS_PER_GROUP: u64 = 1000;

fn open(dir: &Path, hints: RecoveryHints) -> Log {
    let options = LogOptions { identity: 1, ..LogOptions::default() };
    Log::open(Arc::new(RealVfs), dir, options, hints, 1).expect("a sound disk").0
}

fn fill(dir: &Path) -> LogPos {
    let mut log = open(dir, RecoveryHints::default());
    let mut group = Group::new();
    for first in (1..=RECORDS).step_by(RECORDS_PER_GROUP as usize) {
        group.clear();
        for z in first..first + RECORDS_PER_GROUP {
            group.record(Zxid(z), RecordKind::Txn, |b| b.resize(b.len() + PAYLOAD_BYTES, z as u8));
        }
        log.appender.append(&mut group).expect("room");
    }
    log.flusher.flush().expect("a sound disk").pos
}

fn bench_recover(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let stop = fill(dir.path());
    let mut group = c.benchmark_group("recover_1M_records");
    group.sample_size(10).measurement_time(Duration::from_secs(8)).throughput(Throughput::Elements(RECORDS));
    for (name, clean_stop) in [("clean", Some(stop)), ("unclean", None)] {
        let hints = RecoveryHints { history: true, clean_stop, ..RecoveryHints::default() };
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let start = Instant::now();
                    let log = open(dir.path(), hints);
                    total += start.elapsed();
                    assert_eq!(log.reader.last_zxid(), Zxid(RECORDS));
                }
                total
            });
        });
    }
    let log =
        open(dir.path(), RecoveryHints { history: true, clean_stop: Some(stop), ..RecoveryHints::default() });
    group.bench_function("replay", |b| {
        b.iter(|| {
            let mut cursor = log.reader.from(Zxid(1)).expect("there");
            let mut bytes = 0;
            while let Some((_, payload)) = cursor.next().expect("a sound disk") {
                bytes += payload.len();
            }
            bytes
        });
    });
    group.finish();
}

criterion_group!(benches, bench_recover);
criterion_main!(benches);
