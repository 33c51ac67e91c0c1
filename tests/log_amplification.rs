//! Bytes written per small commit, as the kernel counts them: at most 8 KiB, on a fresh segment, on a spare that was rotated into,
//! and on the segment that recovery re-opens. One test in a file of its own, because the counter is the whole process's.
//!
//! Guards against large folios: a store through a mapping dirties all of its folio, up to 2 MiB (`docs/decisions/0001-region.md`).

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use zabra::base::Zxid;
use zabra::storage::log::{Group, Log, LogOptions, RecordKind, RecoveryHints, RegionKind};
use zabra::storage::vfs::RealVfs;

const COMMITS: u64 = 100;
const PAYLOAD_BYTES: usize = 100;
const BYTES_PER_COMMIT_MAX: u64 = 8 << 10;

/// Bytes that this process caused to be written to devices; `None` where the kernel does not say.
fn written_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|l| l.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

fn commit(log: &mut Log, group: &mut Group) {
    group.clear();
    let zxid = log.appender.last_zxid().next();
    group.record(zxid, RecordKind::Txn, |b| b.resize(b.len() + PAYLOAD_BYTES, 7));
    log.appender.append(group).expect("room");
    assert_eq!(log.flusher.flush().expect("a sound disk").zxid, zxid);
}

/// Bytes written per commit, over [`COMMITS`] commits.
fn measure(log: &mut Log) -> Option<u64> {
    let mut group = Group::new();
    let before = written_bytes()?;
    (0..COMMITS).for_each(|_| commit(log, &mut group));
    Some((written_bytes()? - before) / COMMITS)
}

fn open(dir: &Path, region: RegionKind, hints: RecoveryHints) -> Log {
    let options = LogOptions { segment_bytes: 4 << 20, region, identity: 1 };
    Log::open(Arc::new(RealVfs), dir, options, hints, std::process::id().into()).expect("a sound disk").0
}

#[test]
fn a_small_commit_writes_at_most_two_pages_also_after_a_restart() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    for region in [RegionKind::Pwrite, RegionKind::MappedFdatasync, RegionKind::MappedMsync] {
        let dir = dir.path().join(format!("{region:?}"));
        let mut log = open(&dir, region, RecoveryHints::default());
        let fresh = measure(&mut log);
        drop(log);
        let mut log = open(&dir, region, RecoveryHints { history: true, ..RecoveryHints::default() });
        assert_eq!(log.reader.last_zxid(), Zxid(COMMITS));
        let reopened = measure(&mut log);
        log.spares.prepare_if_needed().expect("room");
        rotate(&mut log);
        let rotated = measure(&mut log);
        let (Some(fresh), Some(reopened), Some(rotated)) = (fresh, reopened, rotated) else {
            // Past the test harness, which keeps what passing tests print to itself.
            let _ =
                writeln!(std::io::stderr(), "log_amplification skipped: this system has no /proc/self/io");
            return;
        };
        println!("{region:?}: bytes per commit: fresh {fresh}, re-opened {reopened}, rotated {rotated}");
        for bytes in [fresh, reopened, rotated] {
            assert!(bytes <= BYTES_PER_COMMIT_MAX, "{region:?}: {bytes} bytes per commit");
        }
    }
}

/// Fills the active segment.
fn rotate(log: &mut Log) {
    let before = log.flusher.durable().pos.segment;
    let mut group = Group::new();
    while log.flusher.durable().pos.segment == before {
        group.clear();
        let zxid = log.appender.last_zxid().next();
        group.record(zxid, RecordKind::Txn, |b| b.resize(b.len() + (512 << 10), 7));
        log.appender.append(&mut group).expect("room");
        log.flusher.flush().expect("a sound disk");
    }
}
