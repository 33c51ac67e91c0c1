//! Fuzz entry points of the log. Each takes arbitrary bytes and panics when an invariant breaks.

use std::path::Path;
use std::sync::Arc;

use crate::base::{LogPos, Zxid};
use crate::storage::log::format::{self, SEGMENT_HEAD_BYTES, SegmentHead};
use crate::storage::log::{Log, LogError, LogOptions, RecoveryHints, inspect};
use crate::storage::vfs::{OpenMode, Vfs};
use crate::testing::log_model::{LOG_DIR, LogBench};
use crate::testing::sim_disk::{Nothing, Random, SimDisk};

const SEGMENT_BYTES: u64 = 8192;
/// Operations per input: enough for several rotations.
const OPS_MAX: usize = 200;

/// Opens a directory whose files hold arbitrary bytes: never a panic, never a record out of order, and after a start the log
/// works. The first byte says how much is arbitrary: the header too, or only what follows it.
pub fn log_open(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let disk = SimDisk::new(1);
    let dir = Path::new(LOG_DIR);
    disk.create_dir_all(dir).expect("an empty disk");
    for (i, bytes) in data.chunks(SEGMENT_BYTES as usize).take(3).enumerate() {
        write_segment(&disk, i as u64 + 1, bytes, how & 1 == 1);
    }
    let pending_reset = (how & 4 != 0).then_some(Zxid::ZERO);
    let hints = RecoveryHints { history: how & 2 != 0, pending_reset, ..RecoveryHints::default() };
    let before = inspect(&disk, dir, hints, &mut |_, _, _| ()).map(|i| (i.starts, i.last)).ok();
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
    match Log::open(Arc::new(disk), dir, options, hints, 7) {
        Ok((log, report)) => {
            assert_eq!(before, Some((true, report.last)), "looking and starting agree");
            let mut cursor = log.reader.after(log.reader.base()).expect("an open log is read");
            let mut last = log.reader.base();
            while let Some((zxid, _)) = cursor.next().expect("what recovery accepted is whole") {
                assert!(zxid > last, "order");
                last = zxid;
            }
            assert_eq!(last, report.last);
        }
        Err(LogError::Refused { .. }) => assert!(before.is_none_or(|(starts, _)| !starts)),
        Err(_) => {}
    }
}

/// One segment file: `bytes` as records (with their checksums made right) behind a good header, or as the file itself.
fn write_segment(disk: &SimDisk, number: u64, bytes: &[u8], raw: bool) {
    let mut file = vec![0u8; SEGMENT_BYTES as usize];
    if raw {
        file[..bytes.len()].copy_from_slice(bytes);
    } else {
        let synced = LogPos::default();
        let head = SegmentHead { number, salt: 5, identity: 0, segment_bytes: SEGMENT_BYTES, synced };
        let space = file.len() - SEGMENT_HEAD_BYTES;
        file[..SEGMENT_HEAD_BYTES].copy_from_slice(&head.encode());
        let len = bytes.len().min(space);
        file[SEGMENT_HEAD_BYTES..SEGMENT_HEAD_BYTES + len].copy_from_slice(&bytes[..len]);
        fix_checksums(&mut file, 5);
    }
    let path = Path::new(LOG_DIR).join(format!("log.{number:016x}"));
    let f = disk.open(&path, OpenMode::CreateNew).expect("a new name");
    f.write_all_at(&file, 0).expect("room");
}

/// Gives every record that could be one its checksums, so that arbitrary fields get past them.
fn fix_checksums(file: &mut [u8], salt: u64) {
    let mut at = SEGMENT_HEAD_BYTES;
    while let Some(head) = file.get(at..at + format::RECORD_HEAD_BYTES) {
        let len = u32::from_le_bytes(head[32..36].try_into().expect("four bytes")) as usize % 600;
        let bytes = format::record_bytes(len);
        let Some(record) = file.get_mut(at..at + bytes) else { return };
        record[32..36].copy_from_slice(&(len as u32).to_le_bytes());
        format::reseal(record, salt, at as u64);
        at += bytes;
    }
}

/// Runs a program of log operations with crashes and faults against the model.
pub fn log_ops(data: &[u8]) {
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
    let mut bench = LogBench::new(options);
    bench.open().expect("a new log");
    for pair in data.chunks_exact(2).take(OPS_MAX) {
        let result = run_op(&mut bench, pair[0], pair[1]);
        if bench.disk.has_crashed() || bench.log.is_none() {
            restart(&mut bench, pair[1]);
        } else {
            assert!(result.as_ref().is_ok_and(|()| true) || is_expected(&result), "{result:?}");
        }
    }
    bench.disk.crash_now();
    let image = bench.disk.after_crash(&mut Nothing);
    bench.crash_to(image);
    bench.open().expect("no crash refuses to start");
}

fn is_expected(result: &Result<(), LogError>) -> bool {
    matches!(result, Err(LogError::NoSpace { .. } | LogError::GroupTooLarge { .. }))
}

fn run_op(bench: &mut LogBench, op: u8, arg: u8) -> Result<(), LogError> {
    match op % 12 {
        0..=2 => bench.append(usize::from(arg) % 4 + 1),
        3 | 4 => bench.flush(),
        5 => bench.log_mut().appender.mark().map(drop),
        6 => bench.log_mut().spares.prepare_if_needed().map(drop),
        7 => bench.snapshot_and_purge(usize::from(arg) % 8),
        8 if arg.is_multiple_of(3) => bench.truncate(usize::from(arg) % 7),
        8 if arg % 3 == 1 => bench.reset(u64::from(arg) % 5),
        8 => bench.flush(),
        9 => {
            // Somewhere in one of the next operations.
            bench.disk.crash_at(bench.disk.ops() + u64::from(arg) % 24);
            Ok(())
        }
        10 => {
            bench.disk.crash_now();
            Ok(())
        }
        _ if arg.is_multiple_of(4) => bench.stop(),
        _ => {
            let killed = bench.disk.after_kill();
            bench.crash_to(killed);
            Ok(())
        }
    }
}

/// Starts on an image of the crash; for some arguments that start crashes too.
fn restart(bench: &mut LogBench, arg: u8) {
    if bench.disk.has_crashed() {
        let image = bench.disk.after_crash(&mut Random::new(u64::from(arg)));
        bench.crash_to(image);
    }
    if arg & 3 == 1 {
        bench.disk.crash_at(u64::from(arg >> 2) % 16);
        if bench.open().is_ok() {
            bench.disk.crash_now();
        }
        let image = bench.disk.after_crash(&mut Random::new(u64::from(arg) + 256));
        bench.crash_to(image);
    }
    bench.open().expect("no crash refuses to start");
}
