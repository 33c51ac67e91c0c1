//! Snapshots over a disk that crashes: at every operation, with every (or very many a) subset of what was not synced.
//!
//! Guards: "a snapshot is there whole or not at all, an older one is never harmed, and one whose writer returned is there".

use std::path::Path;
use std::sync::Arc;

use zabra::base::rng::Rng;
use zabra::base::{WallMs, Zxid};
use zabra::storage::snapshot::{
    HeldSnapshot, LEVEL_DEFAULT, Retention, SnapshotError, SnapshotMeta, SnapshotStore, plan_retention,
};
use zabra::storage::vfs::Vfs;
use zabra::testing::sim_disk::SimDisk;

/// Random images per crash point where not all can be tried.
const RANDOM_IMAGES: u64 = 300;

fn open(disk: &SimDisk) -> Result<SnapshotStore, SnapshotError> {
    SnapshotStore::open(Arc::new(disk.clone()), Path::new("/data/snapshots"))
}

/// What the snapshot `zxid` of `writing` (which of several attempts) contains.
fn content(zxid: u64, writing: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(zxid * 1_000 + writing);
    let chunk = |n: u64| {
        let mut raw = vec![0; 700 + 2_500 * n as usize];
        rng.fill(&mut raw);
        raw
    };
    (0..3).map(chunk).collect()
}

fn write(store: &SnapshotStore, zxid: u64, writing: u64) -> Result<(), SnapshotError> {
    let meta = SnapshotMeta {
        zxid: Zxid(zxid),
        node_id: 1,
        created: WallMs((zxid * 1_000 + writing) as i64),
        chunk_bytes_target: 1_000,
        level: LEVEL_DEFAULT,
    };
    let mut writer = store.create(meta)?;
    for raw in content(zxid, writing) {
        writer.chunk(1, &raw)?;
    }
    writer.finish(Zxid(zxid), &writing.to_le_bytes()).map(drop)
}

/// Reads a snapshot, which must be good in every byte, and tells which writing it is.
fn check(store: &SnapshotStore, zxid: Zxid) -> u64 {
    assert!(store.verify(zxid).expect("readable").is_good(), "{zxid} was published, so it is whole");
    let reader = store.reader(zxid).expect("verified");
    let writing = u64::from_le_bytes(reader.info().trailer.as_slice().try_into().expect("eight bytes"));
    let mut raw = Vec::new();
    for (index, expected) in content(zxid.0, writing).iter().enumerate() {
        reader.read_chunk(index as u32, &mut raw).expect("verified");
        assert_eq!(&raw, expected);
    }
    writing
}

fn check_all(store: &SnapshotStore, zxids: &[Zxid]) {
    for zxid in zxids {
        check(store, *zxid);
    }
}

/// Crashes `act` before each of its operations and hands every image, with what was promised by then, to `check`.
fn at_every_crash(
    start: &SimDisk,
    act: impl Fn(&SimDisk) -> Result<(), SnapshotError>,
    mut check: impl FnMut(&SnapshotStore, bool),
) -> u64 {
    let mut images = 0;
    for op in 0.. {
        let disk = start.fork();
        disk.crash_at(start.ops() + op);
        let finished = act(&disk).is_ok();
        images += disk.for_each_image(RANDOM_IMAGES, op, |image| {
            let store = open(&image).expect("no crash keeps the store from opening");
            let names = image.list(Path::new("/data/snapshots")).expect("open");
            assert!(names.iter().all(|n| !n.ends_with(".tmp")), "{names:?}");
            check(&store, finished);
        });
        if finished {
            return images;
        }
    }
    unreachable!("some operation is the last one")
}

fn with_snapshots(zxids: &[u64]) -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open(&disk).expect("empty disk");
    zxids.iter().for_each(|zxid| write(&store, *zxid, 0).expect("no fault"));
    disk
}

#[test]
fn a_crash_while_writing_leaves_the_whole_snapshot_or_none() {
    let mut seen = [0; 2];
    let images = at_every_crash(
        &with_snapshots(&[5]),
        |disk| write(&open(disk)?, 9, 0),
        |store, finished| {
            let zxids = store.zxids().expect("open");
            assert!(zxids == [Zxid(5), Zxid(9)] || (!finished && zxids == [Zxid(5)]), "{zxids:?}");
            check_all(store, &zxids);
            seen[zxids.len() - 1] += 1;
        },
    );
    assert!(images > 500 && seen.iter().all(|n| *n > 0), "{images} {seen:?}");
}

#[test]
fn a_crash_while_writing_the_first_snapshot_leaves_a_store_that_opens() {
    at_every_crash(
        &SimDisk::new(1),
        |disk| write(&open(disk)?, 9, 0),
        |store, finished| {
            let zxids = store.zxids().expect("open");
            assert!(zxids == [Zxid(9)] || (!finished && zxids.is_empty()));
            check_all(store, &zxids);
        },
    );
}

#[test]
fn a_crash_while_a_snapshot_is_written_again_leaves_one_of_the_two() {
    let mut seen = [0; 2];
    at_every_crash(
        &with_snapshots(&[5]),
        |disk| write(&open(disk)?, 5, 1),
        |store, finished| {
            let writing = check(store, Zxid(5));
            assert!(writing == 1 || !finished);
            seen[writing as usize] += 1;
        },
    );
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

#[test]
fn a_crash_while_old_ones_are_removed_never_takes_a_kept_one() {
    let held = |zxid: &Zxid| HeldSnapshot { zxid: *zxid, created: WallMs(0), verified: true };
    at_every_crash(
        &with_snapshots(&[1, 2, 3, 4, 5]),
        |disk| {
            let store = open(disk)?;
            let held: Vec<_> = store.zxids()?.iter().map(held).collect();
            store.remove(&plan_retention(&held, &Retention::default(), WallMs(0)).remove)?;
            Ok(())
        },
        |store, finished| {
            let zxids = store.zxids().expect("open");
            assert!(zxids.ends_with(&[Zxid(3), Zxid(4), Zxid(5)]), "{zxids:?}");
            assert!(!finished || zxids.len() == 3);
            check_all(store, &zxids);
        },
    );
}

#[test]
fn a_crash_while_truncating_never_takes_one_below_and_is_finished_by_doing_it_again() {
    at_every_crash(
        &with_snapshots(&[1, 2, 3, 4, 5]),
        |disk| open(disk)?.remove_above(Zxid(2)).map(drop),
        |store, finished| {
            assert!(!finished || store.zxids().expect("open") == [Zxid(1), Zxid(2)]);
            store.remove_above(Zxid(2)).expect("no fault");
            assert_eq!(store.zxids().expect("open"), [Zxid(1), Zxid(2)]);
            check(store, Zxid(1));
            check(store, Zxid(2));
        },
    );
}

#[test]
fn a_snapshot_seen_after_a_kill_survives_the_next_power_cut() {
    let start = with_snapshots(&[5]);
    let mut seen = 0;
    for op in 0..12 {
        let disk = start.fork();
        disk.crash_at(start.ops() + op);
        let _ = open(&disk).and_then(|store| write(&store, 9, 0));
        let restarted = disk.after_kill();
        let zxids = open(&restarted).expect("no fault").zxids().expect("open");
        seen += zxids.len() - 1;
        restarted.for_each_image(RANDOM_IMAGES, op, |image| {
            let store = open(&image).expect("no fault");
            assert_eq!(store.zxids().expect("open"), zxids);
            check_all(&store, &zxids);
        });
    }
    assert!(seen > 0);
}
