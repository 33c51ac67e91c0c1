//! The log against a list, over random programs with crashes: every acknowledged record present and byte-equal, nothing
//! invented, nothing out of order, what is there a prefix of what was appended (invariants I1, I2 of `storage::log`).

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use zabra::base::Zxid;
use zabra::base::rng::Rng;
use zabra::storage::log::{Group, Log, LogOptions, RecordKind, RecoveryHints, RegionKind, Row};
use zabra::storage::vfs::RealVfs;
use zabra::testing::fuzz_log;
use zabra::testing::log_model::payload_of;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_agree_with_the_model(program in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_log::log_ops(&program);
    }

    #[test]
    fn arbitrary_files_never_panic(data in proptest::collection::vec(any::<u8>(), 0..9000)) {
        fuzz_log::log_open(&data);
    }
}

/// The same from fixed seeds, so that every run has met the same programs.
#[test]
fn fixed_seeds_agree_with_the_model() {
    for seed in 0..1500 {
        let mut program = vec![0; 240];
        Rng::new(seed).fill(&mut program);
        let outcome = std::panic::catch_unwind(|| fuzz_log::log_ops(&program));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn fixed_seeds_of_arbitrary_files_never_panic() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let mut data = vec![0; 1 + rng.below(20_000) as usize];
        rng.fill(&mut data);
        // Small fields are met more often than random ones.
        for byte in &mut data[1..] {
            *byte = if *byte < 160 { 0 } else { *byte & 3 };
        }
        fuzz_log::log_open(&data);
    }
}

/// On a real file system, through every region: rotation, recycling, truncation and restarts give one and the same log.
#[test]
fn the_regions_hold_the_same_log_on_a_real_disk() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let logs: Vec<_> = [RegionKind::Pwrite, RegionKind::MappedFdatasync, RegionKind::MappedMsync]
        .map(|region| (region, write_and_reopen(&dir.path().join(format!("{region:?}")), region)))
        .into();
    for (region, records) in &logs {
        assert_eq!(records.len(), 30, "{region:?}");
        assert_eq!(*records, logs[0].1, "{region:?}");
    }
}

/// Appends, truncates, purges and reopens; returns what is there at the end.
fn write_and_reopen(dir: &Path, region: RegionKind) -> Vec<(Zxid, Vec<u8>)> {
    let options = LogOptions { segment_bytes: 16_384, region, identity: 1 };
    let mut hints = RecoveryHints::default();
    for life in 0..3 {
        let opened = Log::open(Arc::new(RealVfs), dir, options, hints, life);
        let (mut log, _) = opened.expect("a sound disk");
        hints.history = true;
        let start = log.appender.last_zxid();
        let mut group = Group::new();
        for z in start.0 + 1..start.0 + 60 {
            group.clear();
            group.record(Zxid(z), RecordKind::Txn, |b| b.extend(payload_of(Zxid(z))));
            log.appender.append(&mut group).expect("room");
            log.flusher.flush().expect("a sound disk");
            log.spares.prepare_if_needed().expect("room");
        }
        let to = Zxid(start.0 + 30);
        log.appender.truncate(&mut log.flusher, to, &mut |_| Ok(())).expect("there");
        hints.base = Zxid(start.0);
        log.spares.purge(Zxid(start.0)).expect("a sound disk");
    }
    let (log, report) = Log::open(Arc::new(RealVfs), dir, options, hints, 9).expect("a sound disk");
    assert_eq!((report.row, report.last), (Row::CleanEnd, Zxid(90)));
    let mut cursor = log.reader.from(Zxid(61)).expect("kept");
    let mut records = vec![];
    while let Some((zxid, payload)) = cursor.next().expect("a sound disk") {
        assert_eq!(payload, payload_of(zxid));
        records.push((zxid, payload.to_vec()));
    }
    records
}
