//! The log under crashes and faults: a scripted run is crashed at every operation, and every image of every crash must start and
//! agree with the model; every single bit is flipped; every write, sync and rename fails once.
//!
//! The script meets making, rotating (with and without a spare), recycling, purging, truncating (within a segment, across
//! segments, to the start), replacing (with and without a spare, of one segment and of several, of an empty log), marks, a clean
//! stop, and a restart that cuts a torn tail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zabra::base::Zxid;
use zabra::storage::log::{Group, Log, LogError, LogOptions, RecordKind, RecoveryHints, Row, inspect};
use zabra::storage::vfs::{OpenMode, Vfs};
use zabra::testing::log_model::{LOG_DIR, LogBench, payload_of};
use zabra::testing::sim_disk::{Everything, Fault, Nothing, OpKind, Random, SimDisk};

/// Header and one page: rotates every few groups.
const OPTIONS: LogOptions =
    LogOptions { segment_bytes: 8192, region: zabra::storage::log::RegionKind::Pwrite, identity: 0 };
/// The same script then has larger unflushed tails.
const LARGER: LogOptions = LogOptions { segment_bytes: 12_288, ..OPTIONS };
/// Images tried where there are too many to try all.
const RANDOM_IMAGES: u64 = 80;

/// The run that is crashed. Stops at the first error.
fn script(bench: &mut LogBench) -> Result<(), LogError> {
    bench.open()?;
    for i in 0..6 {
        bench.append(1 + i % 3)?;
        if i % 2 == 1 {
            bench.flush()?;
        }
    }
    bench.flush()?;
    bench.log_mut().appender.mark()?;
    bench.log_mut().spares.prepare_if_needed()?;
    // Two rotations without a flush between, the second without a ready spare.
    for _ in 0..9 {
        bench.append(2)?;
    }
    bench.flush()?;
    bench.snapshot_and_purge(4)?;
    bench.log_mut().spares.prepare_if_needed()?;
    bench.append(3)?;
    bench.flush()?;
    bench.append(2)?;
    bench.truncate(3)?;
    for _ in 0..5 {
        bench.append(2)?;
        bench.flush()?;
        bench.log_mut().spares.prepare_if_needed()?;
    }
    bench.truncate(9)?;
    bench.append(1)?;
    bench.stop()?;
    bench.open()?;
    bench.append(2)?;
    bench.flush()?;
    // Killed with an unflushed group: the next start finds it whole.
    bench.append(2)?;
    let killed = bench.disk.after_kill();
    bench.crash_to(killed);
    bench.open()?;
    bench.append(1)?;
    bench.flush()?;
    bench.log_mut().spares.prepare_if_needed()?;
    // Of several segments, with a spare and an unflushed group; then of an empty log, without a spare.
    bench.append(2)?;
    bench.reset(7)?;
    bench.reset(0)?;
    bench.append(2)?;
    bench.flush()?;
    bench.append(1)?;
    bench.truncate(9)?;
    bench.append(2)?;
    bench.flush()
}

/// Calls `check` with the bench and a number, crashed at every operation of every life of the script.
fn for_each_crash(options: LogOptions, mut check: impl FnMut(&LogBench, u64)) -> u64 {
    let mut crashes = 0;
    for life in 1.. {
        for op in 0.. {
            let mut bench = LogBench::new(options);
            bench.crash_in = Some((life, op));
            let result = script(&mut bench);
            if !bench.disk.has_crashed() {
                result.expect("nothing else goes wrong");
                if op == 0 {
                    return crashes;
                }
                break;
            }
            check(&bench, crashes);
            crashes += 1;
        }
    }
    unreachable!("the script has an end");
}

#[test]
fn no_crash_at_any_operation_loses_or_refuses_anything() {
    let (mut images, mut rows) = (0u64, BTreeMap::<Row, u64>::new());
    let mut check = |bench: &LogBench, at: u64| {
        images += bench.disk.for_each_image(RANDOM_IMAGES, at, |image| {
            let mut after = bench.beside(image);
            let report = after.open().unwrap_or_else(|e| panic!("crash {at}: {e}"));
            *rows.entry(report.row).or_default() += 1;
            // It goes on working.
            after.append(2).expect("room");
            after.flush().expect("a sound disk");
            assert_eq!(after.read_all().last(), after.appended.last());
        });
    };
    let crashes = for_each_crash(OPTIONS, &mut check) + for_each_crash(LARGER, &mut check);
    assert!(crashes > 250, "the script is long: {crashes}");
    assert!(images > 10_000, "{images}");
    for row in [
        Row::Fresh,
        Row::CleanEnd,
        Row::TornTail,
        Row::TornRotation,
        Row::TruncationPending,
        Row::ResetPending,
    ] {
        assert!(rows.contains_key(&row), "{row} was never met: {rows:?}");
    }
}

#[test]
fn no_crash_within_recovery_loses_or_refuses_anything() {
    for_each_crash(OPTIONS, |bench, at| {
        for seed in 0..3 {
            let image = bench.disk.after_crash(&mut Random::new(at * 3 + seed));
            crash_recovery_at_every_operation(bench, &image, at);
        }
    });
}

fn crash_recovery_at_every_operation(bench: &LogBench, image: &SimDisk, op: u64) {
    for inner in 0.. {
        let disk = image.fork();
        disk.crash_at(inner);
        let mut first = bench.beside(disk);
        let started = first.open().is_ok();
        for image in [
            first.disk.after_crash(&mut Nothing),
            first.disk.after_crash(&mut Everything),
            first.disk.after_crash(&mut Random::new(inner)),
        ] {
            let mut second = if started { first.beside(image) } else { bench.beside(image) };
            second.open().unwrap_or_else(|e| panic!("crash at {op}, in recovery at {inner}: {e}"));
        }
        if started {
            break;
        }
    }
}

/// Any unsynced subset may survive a crash, and the same transactions are then submitted again, byte for byte: what was cut must
/// not come back behind them.
#[test]
fn what_was_cut_never_comes_back() {
    for seed in 0..200 {
        let mut bench = LogBench::new(LogOptions { segment_bytes: 16_384, ..OPTIONS });
        bench.open().expect("new");
        for life in 0..6 {
            bench.append(3).expect("room");
            bench.flush().expect("sound");
            bench.append(1).expect("room");
            bench.append(4).expect("room");
            let image = bench.disk.after_crash(&mut Random::new(seed * 10 + life));
            bench.crash_to(image);
            bench.open().expect("no crash refuses");
        }
    }
}

// --- Damage ---

/// A log of four segments, stopped cleanly.
fn stopped_log() -> LogBench {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    while bench.durable_pos().segment < 4 {
        bench.append(2).expect("room");
        bench.flush().expect("sound");
    }
    bench.append(1).expect("room");
    bench.stop().expect("sound");
    bench
}

fn segment_files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut names = disk.list(Path::new(LOG_DIR)).expect("there");
    names.sort();
    names.iter().map(|n| Path::new(LOG_DIR).join(n)).collect()
}

#[test]
fn every_flipped_bit_of_a_stopped_log_is_refused_with_its_place_or_harmless() {
    let bench = stopped_log();
    let stop = bench.hints.clean_stop.expect("stopped");
    let (mut refused, mut harmless) = (0, 0);
    let files = segment_files(&bench.disk);
    for (at, path) in files.iter().enumerate() {
        // Every bit of the headers' fields and of the records; beyond, one bit in each few bytes.
        for bit in (0..8192 * 8).filter(|b| b / 8 < 80 || b / 8 >= 4096 || b % 61 == 0) {
            let disk = bench.disk.fork();
            disk.flip_bit(path, bit).expect("there");
            let byte = bit / 8;
            let mut flipped = bench.beside(disk);
            match flipped.open() {
                Err(LogError::Refused { row: Row::HeadDamaged, pos, path: named, .. }) => {
                    assert!(byte < 4096 && pos.segment == at as u64 + 1 && named == *path);
                    refused += 1;
                }
                Err(LogError::Refused { row: Row::RecordDamaged, pos, path: named, .. }) => {
                    assert!(
                        byte >= 4096 && pos.segment == at as u64 + 1 && named == *path,
                        "{pos} for {path:?} {byte}"
                    );
                    assert!(
                        pos.offset <= byte && byte - pos.offset < 1600,
                        "{pos} names the record of byte {byte}"
                    );
                    refused += 1;
                }
                Err(LogError::Version { .. }) => refused += 1,
                Err(e) => panic!("{e}"),
                Ok(report) => {
                    // Only space behind the last record: nothing of the log.
                    assert_eq!(report.last, *bench.appended.last().expect("records"));
                    assert!(
                        byte >= 4096 && (at + 1 < files.len() || byte >= stop.offset),
                        "{path:?} byte {byte}"
                    );
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 50_000 && harmless > 100, "{refused} {harmless}");
}

/// Without a clean stop the last group is not vouched for; everything before it is.
#[test]
fn a_flipped_bit_in_a_running_log_is_refused_or_cuts_the_last_group_only() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    let mut vouched = 0;
    for _ in 0..5 {
        vouched = bench.appended.len();
        bench.append(2).expect("room");
        bench.flush().expect("sound");
    }
    let end = bench.durable_pos();
    assert_eq!(end.segment, 1, "one segment");
    let path = segment_files(&bench.disk)[0].clone();
    let last_vouched = bench.appended[vouched - 1];
    bench.crash_to(bench.disk.after_kill());
    let mut cut = 0;
    for bit in 4096 * 8..end.offset * 8 {
        let disk = bench.disk.fork();
        disk.flip_bit(&path, bit).expect("there");
        let inspected = inspect(&disk, Path::new(LOG_DIR), bench.hints, &mut |_, _, _| ()).expect("readable");
        if inspected.starts {
            assert_eq!(inspected.row, Row::TornTail);
            assert!(inspected.last >= last_vouched);
            cut += 1;
        } else {
            assert_eq!(inspected.row, Row::RecordDamaged);
        }
    }
    assert!(cut > 0, "documented: the last group is ambiguous");
}

/// The same log after a mark: the last group is vouched for too, without a flush of its own.
#[test]
fn a_mark_vouches_for_the_last_group() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    bench.append(2).expect("room");
    bench.flush().expect("sound");
    let end = bench.durable_pos().offset;
    assert!(bench.log_mut().appender.mark().expect("sound"));
    assert!(!bench.log_mut().appender.mark().expect("sound"), "nothing new to say");
    let path = segment_files(&bench.disk)[0].clone();
    bench.crash_to(bench.disk.after_crash(&mut Everything));
    for bit in 4096 * 8..end * 8 {
        let disk = bench.disk.fork();
        disk.flip_bit(&path, bit).expect("there");
        let refused = bench.beside(disk).open();
        assert!(
            matches!(refused, Err(LogError::Refused { row: Row::RecordDamaged, .. })),
            "{bit}: {refused:?}"
        );
    }
}

/// Flips a bit of the last record of segment 1 and expects the start to be refused there.
fn expect_damage_in_the_last_record_of_segment_1(mut bench: LogBench, end: u64) {
    let path = segment_files(&bench.disk)[0].clone();
    bench.crash_to(bench.disk.after_kill());
    bench.disk.flip_bit(&path, (end - 1) * 8).expect("there");
    match bench.open() {
        Err(LogError::Refused { row: Row::RecordDamaged, pos, .. }) => {
            assert!(pos.segment == 1 && pos.offset < end, "{pos}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_spares_header_vouches_for_the_last_group_before_it() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    bench.append(2).expect("room");
    bench.flush().expect("sound");
    let end = bench.durable_pos().offset;
    bench.log_mut().spares.prepare_if_needed().expect("room");
    expect_damage_in_the_last_record_of_segment_1(bench, end);
}

/// The spare was made before anything was synced: only the new segment's first record knows.
#[test]
fn the_first_record_of_a_segment_vouches_for_the_one_before() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    bench.log_mut().spares.prepare_if_needed().expect("room");
    let mut end = 0;
    while bench.durable_pos().segment == 1 {
        end = bench.durable_pos().offset;
        bench.append(1).expect("room");
        bench.flush().expect("sound");
    }
    expect_damage_in_the_last_record_of_segment_1(bench, end);
}

#[test]
fn a_running_log_notices_rot_when_it_is_read() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    bench.append(4).expect("room");
    bench.flush().expect("sound");
    let path = segment_files(&bench.disk)[0].clone();
    bench.disk.flip_bit(&path, (4096 + 50) * 8).expect("there");
    let mut cursor = bench.log().reader.from(Zxid(1)).expect("there");
    let mut result = Ok(());
    for _ in 0..4 {
        if let Err(e) = cursor.next() {
            result = Err(e);
            break;
        }
    }
    assert!(matches!(result, Err(LogError::Damaged { .. })), "{result:?}");
}

#[test]
fn a_missing_segment_is_refused_whichever_it_is() {
    let bench = stopped_log();
    let files = segment_files(&bench.disk);
    assert!(files.len() >= 3, "{files:?}");
    for (at, path) in files.iter().enumerate() {
        let disk = bench.disk.fork();
        disk.remove(path).expect("there");
        let expected = match at {
            0 => Row::StartMissing,
            _ if at + 1 == files.len() => Row::RecordDamaged,
            _ => Row::SegmentMissing,
        };
        match bench.beside(disk).open() {
            Err(LogError::Refused { row, .. }) => assert_eq!(row, expected, "{path:?}"),
            other => panic!("{path:?}: {other:?}"),
        }
    }
    let disk = bench.disk.fork();
    files.iter().for_each(|p| disk.remove(p).expect("there"));
    assert!(matches!(bench.beside(disk).open(), Err(LogError::Refused { row: Row::LogMissing, .. })));
}

#[test]
fn a_snapshot_ahead_of_the_log_and_a_lost_truncation_target_are_refused() {
    let bench = stopped_log();
    let last = *bench.appended.last().expect("records");
    let mut ahead = bench.beside(bench.disk.fork());
    ahead.hints.base = last.next();
    assert!(matches!(ahead.open(), Err(LogError::Refused { row: Row::EndMissing, .. })));
    let mut lost = bench.beside(bench.disk.fork());
    lost.hints.pending_truncate = Some(last.next());
    assert!(matches!(lost.open(), Err(LogError::Refused { row: Row::TruncationTargetMissing, .. })));
}

/// Two ways to a log that is empty and does not start at zero; the snapshot there is lost, an older one is not.
#[test]
fn an_empty_log_does_not_take_an_older_snapshot_for_the_state_it_continues() {
    let replaced = |bench: &mut LogBench| bench.reset(5);
    let cut_to_its_start = |bench: &mut LogBench| {
        bench.snapshot_and_purge(0)?;
        bench.hints.base = bench.log().reader.base();
        bench.truncate(1000)
    };
    for (way, empty) in [(0, &replaced as &dyn Fn(&mut LogBench) -> _), (1, &cut_to_its_start)] {
        let mut bench = stopped_log();
        bench.open().expect("sound");
        empty(&mut bench).expect("sound");
        let base = bench.log().reader.base();
        assert!(base > Zxid::ZERO && bench.read_all().is_empty(), "{way}");
        bench.crash_to(bench.disk.after_crash(&mut Nothing));
        let mut older = bench.beside(bench.disk.fork());
        older.hints.base = Zxid(base.0 - 1);
        let refused = older.open();
        assert!(
            matches!(refused, Err(LogError::Refused { row: Row::StartMissing, .. })),
            "{way}: {refused:?}"
        );
        assert_eq!(bench.open().expect("the snapshot is there").base, base, "{way}");
    }
}

#[test]
fn a_replaced_log_needs_its_snapshot_at_the_next_start_and_nothing_of_the_old_records() {
    let bench = stopped_log();
    let base = bench.appended.last().expect("records").next();
    let pending = |disk: SimDisk, newest: Zxid| {
        let mut next = bench.beside(disk);
        next.hints.pending_reset = Some(base);
        next.hints.clean_stop = None;
        next.hints.base = newest;
        next.appended.clear();
        next.acknowledged = 0;
        next
    };
    let ops = bench.disk.ops();
    for newest in [Zxid::ZERO, Zxid(base.0 - 1), base.next()] {
        let refused = pending(bench.disk.clone(), newest).open();
        assert!(
            matches!(refused, Err(LogError::Refused { row: Row::ResetSnapshotMissing, .. })),
            "{refused:?}"
        );
    }
    assert_eq!(bench.disk.ops(), ops, "a refusal touches nothing");
    // A sector of the old records that cannot be read is no obstacle.
    bench.disk.set_bad_sector(&segment_files(&bench.disk)[1], 4608).expect("there");
    let mut next = pending(bench.disk.fork(), base);
    let report = next.open().expect("the snapshot is there");
    assert_eq!((report.row, report.base, report.last), (Row::ResetPending, base, base));
    let is_live = |path: &PathBuf| path.extension().is_some_and(|e| e != "retired");
    assert_eq!(segment_files(&next.disk).into_iter().filter(is_live).count(), 1);
}

#[test]
fn a_log_that_lacks_what_was_noted_as_committed_is_refused() {
    let bench = stopped_log();
    let last = *bench.appended.last().expect("records");
    let mut short = bench.beside(bench.disk.fork());
    short.hints.committed = last.next();
    assert!(matches!(short.open(), Err(LogError::Refused { row: Row::EndMissing, .. })));
    let mut whole = bench.beside(bench.disk.fork());
    whole.hints.committed = last;
    assert_eq!(whole.open().expect("all there").last, last);
}

#[test]
fn a_log_is_not_begun_to_be_replaced_without_space_for_it() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    bench.append(2).expect("room");
    bench.disk.set_capacity(0);
    assert!(matches!(bench.reset(3), Err(LogError::NoSpace { .. })));
    assert_eq!(bench.hints.pending_reset, None, "not begun");
    bench.flush().expect("as before");
    assert_eq!(bench.read_all(), bench.appended);
    bench.disk.set_capacity(1 << 30);
    bench.reset(3).expect("room again");
    bench.append(1).expect("room");
    bench.flush().expect("sound");
    assert_eq!(bench.read_all(), [Zxid(6)]);
}

#[test]
fn readers_notice_that_the_log_was_replaced() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    for _ in 0..9 {
        bench.append(3).expect("room");
    }
    bench.flush().expect("sound");
    let reader = bench.log().reader.clone();
    let mut cursors = [1, 14, 27].map(|z| reader.from(Zxid(z)).expect("there"));
    let place = bench.durable_pos();
    bench.reset(10).expect("room");
    assert!(bench.durable_pos() > place, "places never go back");
    for cursor in &mut cursors {
        assert!(matches!(cursor.next(), Err(LogError::Truncated)));
    }
    assert!(matches!(reader.from(Zxid(37)), Err(LogError::Compacted { base: Zxid(37) })));
    assert!(!reader.contains(Zxid(27)).expect("sound") && reader.first_zxid().expect("sound").is_none());
    bench.append(1).expect("room");
    bench.flush().expect("sound");
    assert_eq!(reader.first_zxid().expect("sound"), Some(Zxid(38)));
}

#[test]
fn a_refusal_touches_nothing() {
    let bench = stopped_log();
    let path = segment_files(&bench.disk)[0].clone();
    bench.disk.flip_bit(&path, 5000 * 8).expect("there");
    let ops = bench.disk.ops();
    assert!(bench.beside(bench.disk.clone()).open().is_err());
    assert_eq!(bench.disk.ops(), ops);
}

#[test]
fn an_unreadable_sector_stops_the_start_and_changes_nothing() {
    let bench = stopped_log();
    let path = segment_files(&bench.disk)[1].clone();
    bench.disk.set_bad_sector(&path, 4608).expect("there");
    let ops = bench.disk.ops();
    assert!(matches!(bench.beside(bench.disk.clone()).open(), Err(LogError::Io { .. })));
    assert_eq!(bench.disk.ops(), ops);
}

#[test]
fn another_nodes_segment_and_a_shortened_file_are_refused() {
    let bench = stopped_log();
    let mut other = bench.beside(bench.disk.fork());
    other.options.identity = 7;
    assert!(matches!(other.open(), Err(LogError::Refused { row: Row::SegmentForeign, .. })));
    for size in [0, 100, 4096, 8191, 12288] {
        let disk = bench.disk.fork();
        let file = disk.open(&segment_files(&disk)[1], OpenMode::ReadWrite).expect("there");
        file.set_size(size).expect("possible");
        let refused = bench.beside(disk).open();
        assert!(
            matches!(refused, Err(LogError::Refused { row: Row::HeadDamaged, .. })),
            "{size}: {refused:?}"
        );
    }
}

// --- Faults ---

/// Every kind of operation fails once, at every place of the script: nothing is acknowledged after it, and the next start finds
/// what was acknowledged before.
#[test]
fn after_any_failed_operation_nothing_is_acknowledged_and_nothing_is_lost() {
    for kind in
        [OpKind::Write, OpKind::Sync, OpKind::SyncDir, OpKind::Rename, OpKind::Remove, OpKind::Allocate]
    {
        let mut met = 0;
        for nth in 0..400 {
            let mut bench = LogBench::new(OPTIONS);
            bench.disk.fail_nth(kind, nth, Fault::Eio);
            let disk = bench.disk.clone();
            let Err(e) = script(&mut bench) else { break };
            met += 1;
            assert!(matches!(e, LogError::Io { .. }), "{kind:?} {nth}: {e}");
            if let Some(log) = &mut bench.log {
                let latched = log.flusher.flush();
                assert!(matches!(latched, Err(LogError::Latched { .. })), "{kind:?} {nth}: {latched:?}");
                assert!(matches!(log.spares.prepare_if_needed(), Err(LogError::Latched { .. })));
            }
            // The script's kill may have moved on to another disk.
            let disk = if bench.disk.ops() == 0 { disk } else { bench.disk.clone() };
            for image in
                [disk.after_kill(), disk.after_crash(&mut Nothing), disk.after_crash(&mut Random::new(nth))]
            {
                let mut next = bench.beside(image);
                next.open().unwrap_or_else(|e| panic!("{kind:?} {nth}: {e}"));
                // What recovery reported survives a power cut right after.
                let again = next.disk.after_crash(&mut Nothing);
                next.crash_to(again);
                next.open().unwrap_or_else(|e| panic!("{kind:?} {nth} again: {e}"));
            }
        }
        assert!(met > 0, "{kind:?} never failed");
    }
}

#[test]
fn a_lost_write_is_found_by_the_chain() {
    for nth in 0..40 {
        let mut bench = LogBench::new(OPTIONS);
        bench.disk.fail_nth(OpKind::Write, nth, Fault::LostWrite);
        if bench.open().is_err() {
            continue;
        }
        for _ in 0..8 {
            bench.append(2).expect("the process sees nothing");
            bench.flush().expect("the process sees nothing");
        }
        let hints = RecoveryHints { clean_stop: Some(bench.durable_pos()), ..bench.hints };
        let image = bench.disk.after_crash(&mut Nothing);
        let found = inspect(&image, Path::new(LOG_DIR), hints, &mut |_, head, payload| {
            assert_eq!(payload, payload_of(head.zxid));
        })
        .expect("readable");
        let whole = found.last == *bench.appended.last().expect("records");
        assert!(whole || !found.starts, "write {nth} lost: {found:?}");
    }
}

#[test]
fn a_full_disk_changes_nothing_and_ends_by_itself() {
    for pages in 1..12 {
        let mut bench = LogBench::new(OPTIONS);
        bench.disk.set_capacity(pages * 4096);
        match bench.open() {
            Err(LogError::NoSpace { .. }) => {
                assert!(pages < 2);
                assert!(segment_files(&bench.disk).is_empty(), "nothing is left behind");
                continue;
            }
            other => drop(other.expect("room for one segment")),
        }
        let full = loop {
            match bench.append(2) {
                Ok(()) => bench.flush().expect("blocks are there"),
                Err(e) => break e,
            }
        };
        assert!(matches!(full, LogError::NoSpace { .. }), "{full}");
        assert!(matches!(bench.log_mut().spares.prepare_if_needed(), Err(LogError::NoSpace { .. })));
        assert!(matches!(bench.append(2), Err(LogError::NoSpace { .. })), "still");
        assert_eq!(bench.read_all(), bench.appended, "reads go on");
        bench.disk.set_capacity(1 << 30);
        for _ in 0..20 {
            bench.append(2).expect("room again");
            bench.flush().expect("sound");
        }
        let image = bench.disk.after_crash(&mut Nothing);
        bench.crash_to(image);
        bench.open().expect("sound");
    }
}

#[test]
fn a_log_starts_on_a_full_disk_and_can_be_truncated_and_purged_there() {
    let mut bench = stopped_log();
    bench.disk.set_capacity(0);
    bench.open().expect("nothing new is needed");
    bench.append(1).expect("room in the segment");
    bench.truncate(2).expect("needs no space");
    bench.snapshot_and_purge(0).expect("needs no space");
    // What was purged is recycled: appending goes on for a while.
    for _ in 0..4 {
        bench.append(2).expect("a recycled segment");
        bench.flush().expect("sound");
    }
}

// --- Order and concurrency ---

#[test]
fn a_group_that_does_not_follow_or_does_not_fit_changes_nothing() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    bench.append(2).expect("room");
    let mut group = Group::new();
    group.record(Zxid(2), RecordKind::Txn, |_| ());
    assert!(matches!(bench.log_mut().appender.append(&mut group), Err(LogError::OutOfOrder { .. })));
    group.clear();
    group.record(Zxid(3), RecordKind::Txn, |b| b.resize(8192, 1));
    assert!(matches!(bench.log_mut().appender.append(&mut group), Err(LogError::GroupTooLarge { .. })));
    bench.append(1).expect("as before");
    bench.flush().expect("sound");
    assert_eq!(bench.read_all(), [Zxid(1), Zxid(2), Zxid(3)]);
}

#[test]
fn readers_see_what_is_durable_find_every_zxid_and_notice_truncation() {
    let mut bench = LogBench::new(OPTIONS);
    bench.open().expect("new");
    for _ in 0..20 {
        bench.append(3).expect("room");
    }
    let reader = bench.log().reader.clone();
    assert_eq!(reader.last_zxid(), Zxid::ZERO, "nothing durable yet");
    assert_eq!(reader.first_zxid().expect("sound"), None);
    bench.flush().expect("sound");
    for z in 1..=60 {
        assert!(reader.contains(Zxid(z)).expect("sound"));
        assert_eq!(reader.from(Zxid(z)).expect("there").next().expect("sound").expect("there").0, Zxid(z));
    }
    assert!(!reader.contains(Zxid(61)).expect("sound"));
    assert!(!reader.contains(Zxid(0)).expect("sound"));
    assert!(matches!(reader.from(Zxid(0)), Err(LogError::Compacted { base: Zxid(0) })));
    let mut cursor = reader.from(Zxid(50)).expect("there");
    cursor.next().expect("sound");
    bench.truncate(5).expect("sound");
    assert!(matches!(cursor.next(), Err(LogError::Truncated)));
    assert!(!reader.contains(Zxid(56)).expect("sound"));
    let LogBench { log: Some(log), .. } = &mut bench else { panic!("open") };
    let missing = log.appender.truncate(&mut log.flusher, Zxid(56), &mut |_| panic!("not begun"));
    assert!(matches!(missing, Err(LogError::NotFound { zxid: Zxid(56) })));
}

/// Appender, flusher, spare maker and readers, each on its own thread.
#[test]
fn the_parts_work_at_the_same_time() {
    const LAST: u64 = 3000;
    let disk = SimDisk::new(1);
    let (log, _) =
        Log::open(Arc::new(disk.clone()), Path::new(LOG_DIR), OPTIONS, RecoveryHints::default(), 1)
            .expect("new");
    let Log { mut appender, mut flusher, reader, mut spares } = log;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut group = Group::new();
            for z in 1..=LAST {
                group.clear();
                group.record(Zxid(z), RecordKind::Txn, |b| b.extend(payload_of(Zxid(z))));
                appender.append(&mut group).expect("room");
            }
        });
        scope.spawn(move || while flusher.flush().expect("sound").zxid < Zxid(LAST) {});
        let done = reader.clone();
        scope.spawn(move || {
            while done.last_zxid() < Zxid(LAST) {
                spares.prepare_if_needed().expect("room");
            }
        });
        for _ in 0..2 {
            let reader = reader.clone();
            scope.spawn(move || {
                let (mut cursor, mut next) = (reader.from(Zxid(1)).expect("there"), 1);
                while next <= LAST {
                    while let Some((zxid, payload)) = cursor.next().expect("sound") {
                        assert_eq!(zxid, Zxid(next));
                        assert_eq!(payload, payload_of(zxid));
                        next += 1;
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
    let mut count = 0;
    let image = disk.after_crash(&mut Nothing);
    let found = inspect(&image, Path::new(LOG_DIR), RecoveryHints::default(), &mut |_, _, _| count += 1);
    assert_eq!((found.expect("readable").last, count), (Zxid(LAST), LAST));
}
