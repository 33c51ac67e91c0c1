use super::*;
use crate::base::rng::Rng;
use crate::storage::vfs::RealVfs;
use crate::testing::sim_disk::{Everything, Fault, Nothing, OpKind, Random, SimDisk};

fn dir() -> &'static Path {
    Path::new("/data")
}

fn first() -> Superblock {
    Superblock::new(0x1122_3344_5566_7788, 42, ServerId(3))
}

fn later() -> Superblock {
    Superblock {
        epoch_accepted: Epoch(7),
        epoch_current: Epoch(6),
        truncate_pending: Some(Zxid(0x0600_0000_0009)),
        clean_stop: Some(LogPos { segment: 4, offset: 8_192 }),
        committed: Zxid(0x0600_0000_0008),
        ..first()
    }
}

fn formatted() -> (SimDisk, SuperblockStore) {
    let disk = SimDisk::new(1);
    let store = SuperblockStore::format(&disk, dir(), first()).unwrap();
    (disk, store)
}

fn opened(disk: &SimDisk) -> (SuperblockStore, [CopyState; COPY_COUNT]) {
    SuperblockStore::open(disk, dir(), true).unwrap().unwrap()
}

#[test]
fn what_is_stored_is_loaded() {
    let (disk, mut store) = formatted();
    store.store(later()).unwrap();
    assert_eq!((store.value(), store.generation()), (&later(), 2));
    let (again, copies) = opened(&disk.after_crash(&mut Nothing));
    assert_eq!((again.value(), again.generation()), (&later(), 2));
    assert_eq!(copies, [CopyState::Good; 2]);
}

#[test]
fn the_real_file_system_keeps_it_too() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("new/data");
    let mut store = SuperblockStore::format(&RealVfs, &dir, first()).unwrap();
    store.store(later()).unwrap();
    std::fs::remove_file(copy_path(&dir, 1)).unwrap();
    let (store, copies) = SuperblockStore::open(&RealVfs, &dir, true).unwrap().unwrap();
    assert_eq!((store.value(), copies), (&later(), [CopyState::Good, CopyState::Missing]));
    assert_eq!(load(&RealVfs, &dir, true).unwrap().unwrap().copies, [CopyState::Good; 2]);
}

#[test]
fn a_missing_superblock_is_never_defaulted() {
    let disk = SimDisk::new(1);
    assert!(SuperblockStore::open(&disk, dir(), false).unwrap().is_none());
    assert!(matches!(SuperblockStore::open(&disk, dir(), true), Err(SuperblockError::Missing)));
}

#[test]
fn a_formatted_directory_is_not_formatted_again() {
    let (disk, _) = formatted();
    let again = SuperblockStore::format(&disk, dir(), first());
    assert!(matches!(again, Err(SuperblockError::Exists)));
    disk.remove(&copy_path(dir(), 0)).unwrap();
    let again = SuperblockStore::format(&disk, dir(), first());
    assert!(matches!(again, Err(SuperblockError::Exists)));
}

/// Runs `act` with a crash before each of its operations in turn, and `check(image, finished)` on every image.
fn at_every_crash(
    start: &SimDisk,
    act: impl Fn(&SimDisk) -> Result<(), SuperblockError>,
    mut check: impl FnMut(SimDisk, bool),
) -> u64 {
    let mut images = 0;
    for op in 0.. {
        let disk = start.fork();
        disk.crash_at(start.ops() + op);
        let finished = act(&disk).is_ok();
        images += disk.for_each_image(200, op, |image| check(image, finished));
        if finished {
            return images;
        }
    }
    unreachable!("some operation is the last one")
}

#[test]
fn every_crash_in_formatting_leaves_nothing_or_the_first_value() {
    let images = at_every_crash(
        &SimDisk::new(1),
        |disk| SuperblockStore::format(disk, dir(), first()).map(drop),
        |image, finished| match SuperblockStore::open(&image, dir(), false).unwrap() {
            Some((store, _)) => {
                assert_eq!((store.value(), store.generation()), (&first(), 1));
                let mut names = image.list(dir()).unwrap();
                names.sort();
                assert_eq!(names, ["superblock.0", "superblock.1"]);
            }
            None => {
                assert!(!finished, "formatted and gone");
                SuperblockStore::format(&image, dir(), first()).unwrap();
            }
        },
    );
    assert!(images > 20, "{images}");
}

#[test]
fn every_crash_in_storing_leaves_the_old_or_the_new_value() {
    let (disk, _) = formatted();
    let mut seen_old = false;
    at_every_crash(
        &disk,
        |disk| SuperblockStore::open(disk, dir(), true)?.expect("formatted").0.store(later()),
        |image, finished| {
            let (store, _) = opened(&image);
            let old = *store.value() == first();
            assert!(old && !finished || *store.value() == later(), "{store:?}");
            seen_old |= old;
            let copies = load(&image, dir(), true).unwrap().unwrap().copies;
            assert_eq!(copies, [CopyState::Good; 2], "opening repairs");
        },
    );
    assert!(seen_old);
}

#[test]
fn a_crash_in_the_repair_after_a_crash_does_not_go_back() {
    let (disk, mut store) = formatted();
    disk.crash_at(disk.ops() + 2);
    assert!(store.store(later()).is_err(), "the first copy is durable, the second not written");
    let halfway = disk.after_crash(&mut Nothing);
    assert_eq!(load(&halfway, dir(), true).unwrap().unwrap().copies, [CopyState::Good, CopyState::Stale]);
    at_every_crash(
        &halfway,
        |disk| SuperblockStore::open(disk, dir(), true).map(drop),
        |image, _| assert_eq!(opened(&image).0.value(), &later()),
    );
}

#[test]
fn every_bit_flip_in_one_copy_is_detected_survived_and_repaired() {
    let (disk, mut store) = formatted();
    store.store(later()).unwrap();
    for bit in 0..2 * 8 * COPY_BYTES as u64 {
        let (copy, bit) = ((bit % 2) as usize, bit / 2);
        let image = disk.fork();
        image.flip_bit(&copy_path(dir(), copy), bit).unwrap();
        let (store, copies) = opened(&image);
        assert_eq!(store.value(), &later(), "copy {copy} bit {bit}");
        assert!(matches!(copies[copy], CopyState::Bad(_)), "copy {copy} bit {bit}");
        assert_eq!(copies[1 - copy], CopyState::Good);
        assert_eq!(load(&image, dir(), true).unwrap().unwrap().copies, [CopyState::Good; 2]);
    }
}

#[test]
fn both_copies_damaged_is_an_error_with_or_without_data() {
    let (disk, _) = formatted();
    disk.flip_bit(&copy_path(dir(), 0), 3).unwrap();
    disk.flip_bit(&copy_path(dir(), 1), 999).unwrap();
    for data_present in [false, true] {
        let result = SuperblockStore::open(&disk, dir(), data_present);
        let expected = (CopyState::Bad(CopyDamage::Magic), CopyState::Bad(CopyDamage::Checksum));
        assert!(matches!(result, Err(SuperblockError::Damaged(a, b)) if (a, b) == expected));
    }
}

#[test]
fn a_lost_unreadable_or_short_copy_is_replaced() {
    let (disk, mut store) = formatted();
    store.store(later()).unwrap();
    for copy in 0..COPY_COUNT {
        let path = copy_path(dir(), copy);
        let missing = disk.fork();
        missing.remove(&path).unwrap();
        let unreadable = disk.fork();
        unreadable.set_bad_sector(&path, 512).unwrap();
        let short = disk.fork();
        short.open(&path, OpenMode::ReadWrite).unwrap().set_size(4_095).unwrap();
        for image in [missing, unreadable, short] {
            let (store, copies) = opened(&image);
            assert_eq!(store.value(), &later());
            assert_ne!(copies[copy], CopyState::Good);
            let (_, copies) = opened(&image.after_crash(&mut Nothing));
            assert_eq!(copies, [CopyState::Good; 2]);
        }
    }
}

#[test]
fn swapped_and_foreign_copies_are_refused() {
    let (disk, mut store) = formatted();
    store.store(later()).unwrap();
    let write = |disk: &SimDisk, copy: usize, value: &Superblock, generation, written_as| {
        let file = disk.open(&copy_path(dir(), copy), OpenMode::ReadWrite).unwrap();
        file.write_all_at(&format::encode(value, generation, written_as), 0).unwrap();
    };
    let swapped = disk.fork();
    write(&swapped, 1, &first(), 9, 0);
    let (store, copies) = opened(&swapped);
    assert_eq!((store.value(), copies[1]), (&later(), CopyState::Bad(CopyDamage::WrongCopy(0))));
    let foreign = disk.fork();
    write(&foreign, 1, &Superblock { node_id: 1, ..later() }, 9, 1);
    assert!(matches!(load(&foreign, dir(), true), Err(SuperblockError::Conflict(2, 9))));
    let twin = disk.fork();
    write(&twin, 0, &first(), 2, 0);
    assert!(matches!(load(&twin, dir(), true), Err(SuperblockError::Conflict(2, 2))));
}

#[test]
fn a_later_version_is_told_from_damage() {
    let (disk, _) = formatted();
    write_raw(&disk, 0, with_byte(&format::encode(&first(), 1, 0), 8, 4));
    assert!(matches!(load(&disk, dir(), true), Err(SuperblockError::Version { found: 4, known: 3 })));
}

/// A copy with one byte changed and the checksum made right.
fn with_byte(bytes: &[u8; COPY_BYTES], at: usize, byte: u8) -> [u8; COPY_BYTES] {
    let mut bytes = *bytes;
    bytes[at] = byte;
    let crc = crate::base::checksum::crc32(&bytes[..COPY_BYTES - 4]);
    bytes[COPY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn write_raw(disk: &SimDisk, copy: usize, bytes: [u8; COPY_BYTES]) {
    let file = disk.open(&copy_path(dir(), copy), OpenMode::ReadWrite).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
}

#[test]
fn the_version_before_is_read_with_nothing_committed_and_rewritten_as_this_one() {
    let old = Superblock { committed: Zxid::ZERO, ..later() };
    let (disk, _) = formatted();
    for copy in 0..COPY_COUNT {
        write_raw(&disk, copy, with_byte(&format::encode(&old, 4, copy as u32), 8, 1));
    }
    let (mut store, copies) = opened(&disk);
    assert_eq!((store.value(), store.generation(), copies), (&old, 4, [CopyState::Good; 2]));
    store.store(later()).unwrap();
    assert_eq!(opened(&disk.after_crash(&mut Nothing)).0.value(), &later());
}

/// The places of the new fields were zero then: anything else there is damage under a valid checksum.
#[test]
fn the_version_before_has_no_reset_and_no_commit_point() {
    let reset = Superblock { reset_pending: Some(Zxid(9)), ..first() };
    let announced = Superblock { state_announced: Some(Zxid(9)), ..first() };
    for value in [reset, announced, Superblock { committed: Zxid(9), ..first() }] {
        let bytes = with_byte(&format::encode(&value, 1, 0), 8, 1);
        assert_eq!(format::decode(&bytes, 0).unwrap_err(), CopyDamage::Contradiction);
        assert_eq!(format::decode(&format::encode(&value, 1, 0), 0).unwrap().value, value);
    }
}

#[test]
fn the_version_before_knows_whole_histories_only() {
    let (disk, _) = formatted();
    for copy in 0..COPY_COUNT {
        write_raw(&disk, copy, with_byte(&format::encode(&later(), 4, copy as u32), 8, 2));
    }
    assert_eq!(opened(&disk).0.value(), &later());
    for recall in [Recall::New, Recall::Lost, Recall::Clearing] {
        let value = Superblock { recall, ..first() };
        let bytes = with_byte(&format::encode(&value, 1, 0), 8, 2);
        assert_eq!(format::decode(&bytes, 0).unwrap_err(), CopyDamage::Contradiction);
        assert_eq!(format::decode(&format::encode(&value, 1, 0), 0).unwrap().value, value);
    }
}

#[test]
fn who_gives_a_history_up_keeps_its_promises_and_vouches_for_nothing() {
    let (disk, mut store) = formatted();
    store.store(later()).unwrap();
    let blank = later().without_history();
    store.store(blank.clone()).unwrap();
    let found = opened(&disk.after_crash(&mut Nothing)).0.value().clone();
    assert_eq!(found, blank);
    assert_eq!((found.epoch_accepted, found.epoch_current), (Epoch(7), Epoch(6)));
    assert_eq!((found.truncate_pending, found.clean_stop, found.committed), (None, None, Zxid::ZERO));
    for wrong in [
        Superblock { committed: Zxid(1), ..blank.clone() },
        Superblock { clean_stop: Some(LogPos::default()), ..blank.clone() },
        Superblock { reset_pending: Some(Zxid(1)), ..blank },
    ] {
        assert_eq!(format::decode(&format::encode(&wrong, 1, 0), 0).unwrap_err(), CopyDamage::Contradiction);
    }
}

#[test]
fn a_cut_and_a_replacement_at_once_contradict_each_other() {
    let reset = Superblock { reset_pending: Some(Zxid(9)), ..later() };
    let announced = Superblock { state_announced: Some(Zxid(9)), ..later() };
    for both in [reset, announced] {
        let damage = format::decode(&format::encode(&both, 1, 0), 0).unwrap_err();
        assert_eq!(damage, CopyDamage::Contradiction);
    }
}

#[test]
#[should_panic(expected = "what is committed stays so")]
fn a_commit_point_never_falls() {
    let (_, mut store) = formatted();
    store.store(Superblock { committed: Zxid(5), ..first() }).unwrap();
    let _ = store.store(Superblock { committed: Zxid(4), ..first() });
}

#[test]
fn a_sync_that_fails_is_not_believed_after_a_restart() {
    for nth in 0..2 {
        let (disk, mut store) = formatted();
        disk.fail_nth(OpKind::Sync, disk.count(OpKind::Sync) + nth, Fault::Eio);
        assert!(store.store(later()).is_err());
        assert_eq!(store.value(), &first(), "memory never runs ahead of the disk");
        // The process restarts on the same kernel: the cache may show what the disk does not have.
        let restarted = disk.after_kill();
        let value = opened(&restarted).0.value().clone();
        for image in [restarted.after_crash(&mut Nothing), restarted.after_crash(&mut Everything)] {
            assert_eq!(opened(&image).0.value(), &value, "sync {nth}");
            for copy in 0..COPY_COUNT {
                let one_lost = restarted.after_crash(&mut Nothing);
                one_lost.remove(&copy_path(dir(), copy)).unwrap();
                assert_eq!(opened(&one_lost).0.value(), &value, "sync {nth}, copy {copy} lost");
            }
        }
    }
}

#[test]
fn storing_needs_no_space() {
    let (disk, mut store) = formatted();
    disk.set_capacity(0);
    store.store(later()).unwrap();
}

#[test]
#[should_panic(expected = "never taken back")]
fn an_accepted_epoch_never_falls() {
    let (_, mut store) = formatted();
    store.store(Superblock { epoch_accepted: Epoch(5), ..first() }).unwrap();
    let _ = store.store(Superblock { epoch_accepted: Epoch(4), ..first() });
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = Rng::new(5);
    let good = format::encode(&later(), 2, 0);
    for _ in 0..2_000 {
        let mut bytes = good;
        let (at, len) = (rng.below(4_000) as usize, rng.below(96) as usize);
        rng.fill(&mut bytes[at..at + len]);
        let _ = format::decode(&bytes, 0);
    }
}

#[test]
fn the_document_shows_the_layout() {
    let document = include_str!("../../docs/snapshot_format.md");
    let mut end = 0;
    for (name, offset, bytes) in format::LAYOUT {
        assert_eq!(offset, end, "{name} follows what is before it");
        end = offset + bytes;
        let row = format!("| `{name}` | {offset} | {bytes} |");
        assert!(document.contains(&row), "no row {row}");
    }
    assert_eq!(end, COPY_BYTES);
}

/// Found by the chains below: copy 1 was overwritten while copy 0 was new in the cache only.
#[test]
fn a_power_cut_after_a_kill_in_the_middle_of_storing_leaves_a_valid_copy() {
    for op in 0..4 {
        let (disk, mut store) = formatted();
        disk.crash_at(disk.ops() + op);
        assert!(store.store(later()).is_err());
        at_every_crash(
            &disk.after_kill(),
            |disk| SuperblockStore::open(disk, dir(), true)?.expect("formatted").0.store(later()),
            |image, _| assert!([first(), later()].contains(opened(&image).0.value())),
        );
    }
}

/// Stores, crashes and faults in random order: what was returned is never lost, what was seen once is never unseen.
#[test]
fn no_chain_of_crashes_and_faults_goes_back() {
    let mut rng = Rng::new(3);
    for _ in 0..400 {
        let (mut disk, _) = formatted();
        let mut possible = vec![first()];
        for _ in 0..12 {
            if rng.one_in(3) {
                disk.crash_at(disk.ops() + rng.below(6));
            }
            if rng.one_in(4) {
                let kind = if rng.one_in(2) { OpKind::Sync } else { OpKind::Write };
                disk.fail_nth(kind, disk.count(kind) + rng.below(3), Fault::Eio);
            }
            possible = run_until_failure(&disk, possible, rng.below(4) as u32);
            let seed = rng.next_u64();
            disk = if rng.one_in(3) { disk.after_kill() } else { disk.after_crash(&mut Random::new(seed)) };
        }
        let (store, _) = opened(&disk);
        assert!(possible.contains(store.value()));
    }
}

/// Opens, stores `count` values, and returns what may be found afterwards.
fn run_until_failure(disk: &SimDisk, possible: Vec<Superblock>, count: u32) -> Vec<Superblock> {
    let mut store = match SuperblockStore::open(disk, dir(), true) {
        Ok(opened) => opened.expect("formatted").0,
        Err(SuperblockError::Io(_)) => return possible,
        Err(error) => panic!("{error}"),
    };
    assert!(possible.contains(store.value()), "{:?} is none of {possible:?}", store.value());
    for _ in 0..count {
        let old = store.value().clone();
        let epoch = Epoch(old.epoch_accepted.0 + 1);
        let new = Superblock { epoch_accepted: epoch, truncate_pending: Some(Zxid(9)), ..old.clone() };
        if store.store(new.clone()).is_err() {
            return vec![old, new];
        }
    }
    vec![store.value().clone()]
}
