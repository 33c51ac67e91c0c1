use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use super::*;
use crate::storage::vfs::{OpenMode, SECTOR_BYTES, Vfs, VfsFile};

fn dir() -> &'static Path {
    Path::new("/d")
}

fn path(name: &str) -> PathBuf {
    dir().join(name)
}

/// A disk with the synced directory `/d`.
fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(dir()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn create(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = disk.open(&path(name), OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// A file whose content and name are durable.
fn create_durable(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = create(disk, name, bytes);
    file.sync_data().unwrap();
    disk.sync_dir(dir()).unwrap();
    file
}

fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// Every distinct thing that `look` sees over all images.
fn all_images<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    let (mut all, mut seen) = (Exhaustive::new(), BTreeSet::new());
    while all.next_case() {
        seen.insert(look(&disk.after_crash(&mut all)));
    }
    seen
}

#[test]
fn what_was_synced_survives_every_crash() {
    let disk = disk();
    create_durable(&disk, "a", &[5; 3_000]);
    assert_eq!(disk.image_count_max(), 1);
    assert_eq!(all_images(&disk, |d| content(d, "a")), BTreeSet::from([Some(vec![5; 3_000])]));
}

#[test]
fn unsynced_sectors_survive_in_every_combination() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 3 * SECTOR_BYTES]);
    file.write_all_at(&[1; 3 * SECTOR_BYTES], 0).unwrap();
    let seen = all_images(&disk, |d| {
        let bytes = content(d, "a").unwrap();
        assert!(bytes.chunks(SECTOR_BYTES).all(|s| s.iter().all(|b| *b == s[0])), "sectors are never torn");
        [bytes[0], bytes[512], bytes[1024]]
    });
    assert_eq!(seen.len(), 8);
    assert_eq!(content(&disk.after_crash(&mut Nothing), "a"), Some(vec![0; 1536]));
    assert_eq!(content(&disk.after_crash(&mut Everything), "a"), Some(vec![1; 1536]));
    assert_eq!(content(&disk, "a"), Some(vec![1; 1536]), "the process sees what it wrote");
}

#[test]
fn a_sector_written_twice_may_survive_in_its_first_version() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 4]);
    file.write_all_at(&[1; 4], 0).unwrap();
    file.write_all_at(&[2; 4], 0).unwrap();
    assert_eq!(all_images(&disk, |d| content(d, "a").unwrap()[0]), BTreeSet::from([0, 1, 2]));
    file.sync_data().unwrap();
    assert_eq!(all_images(&disk, |d| content(d, "a").unwrap()[0]), BTreeSet::from([2]));
}

#[test]
fn an_unsynced_size_may_be_old_or_new() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[7; 600]);
    file.set_size(100).unwrap();
    let seen = all_images(&disk, |d| content(d, "a").unwrap());
    assert!(seen.contains(&vec![7; 600]) && seen.contains(&vec![7; 100]), "{}", seen.len());
    assert!(seen.iter().all(|bytes| [100, 600].contains(&bytes.len())));
    file.write_all_at(&[8; 10], 1_000).unwrap();
    let seen = all_images(&disk, |d| content(d, "a").unwrap());
    assert_eq!(seen.iter().map(Vec::len).collect::<BTreeSet<_>>(), BTreeSet::from([100, 600, 1_010]));
    let hole = |bytes: &&Vec<u8>| bytes.len() == 1_010 && bytes[1_000..].iter().all(|b| *b == 0);
    assert!(seen.iter().any(|bytes| hole(&bytes)), "grown, but the bytes did not get there");
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let disk = disk();
    let file = create(&disk, "a", b"x");
    file.sync_data().unwrap();
    assert_eq!(all_images(&disk, |d| content(d, "a")), BTreeSet::from([None, Some(b"x".to_vec())]));
    disk.sync_dir(dir()).unwrap();
    assert_eq!(all_images(&disk, |d| content(d, "a")), BTreeSet::from([Some(b"x".to_vec())]));
    disk.remove(&path("a")).unwrap();
    assert_eq!(all_images(&disk, |d| content(d, "a")), BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn a_rename_is_atomic_and_follows_what_its_names_went_through() {
    let disk = disk();
    create_durable(&disk, "b", b"old");
    let file = create(&disk, "tmp", b"new");
    file.sync_data().unwrap();
    disk.rename(&path("tmp"), &path("b")).unwrap();
    let text = |bytes: Option<Vec<u8>>| bytes.map(|b| String::from_utf8(b).unwrap());
    let seen = all_images(&disk, |d| (text(content(d, "tmp")), text(content(d, "b"))));
    let (old, new) = (Some("old".to_owned()), Some("new".to_owned()));
    assert_eq!(seen, BTreeSet::from([(None, old.clone()), (new.clone(), old), (None, new)]));
}

#[test]
fn names_that_do_not_touch_each_other_survive_in_any_subset() {
    let disk = disk();
    create(&disk, "a", b"");
    create(&disk, "b", b"");
    assert_eq!(all_images(&disk, |d| d.list(dir()).unwrap()).len(), 4);
}

#[test]
fn a_lost_directory_takes_its_files_with_it() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/d/e")).unwrap();
    let file = disk.open(Path::new("/d/e/f"), OpenMode::CreateNew).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d/e")).unwrap();
    let seen = all_images(&disk, |d| (d.exists(dir()).unwrap(), d.exists(Path::new("/d/e/f")).unwrap()));
    assert_eq!(seen, BTreeSet::from([(false, false), (true, false), (true, true)]));
}

#[test]
fn a_crash_freezes_the_disk_before_the_operation() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 8]);
    let at = disk.ops();
    disk.crash_at(at + 1);
    file.write_all_at(&[1; 8], 0).unwrap();
    assert!(!disk.has_crashed());
    assert!(file.write_all_at(&[2; 8], 0).is_err());
    assert!(disk.has_crashed() && file.sync_data().is_err() && disk.list(dir()).is_err());
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    let image = disk.after_crash(&mut Everything);
    assert_eq!(content(&image, "a"), Some(vec![1; 8]));
    assert_eq!(image.ops(), 0);
}

#[test]
fn a_failed_sync_makes_pages_clean_and_the_next_sync_lies() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 8]);
    disk.fail_nth(OpKind::Sync, disk.count(OpKind::Sync), Fault::Eio);
    file.write_all_at(&[1; 8], 0).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(content(&disk, "a"), Some(vec![1; 8]), "the cache has it");
    let seen = all_images(&disk, |d| content(d, "a").unwrap()[0]);
    assert_eq!(seen, BTreeSet::from([0, 1]), "the disk may or may not");
    file.drop_cache().unwrap();
    assert_eq!(content(&disk, "a"), Some(vec![0; 8]));
    file.write_all_at(&[2; 8], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(all_images(&disk, |d| content(d, "a").unwrap()[0]), BTreeSet::from([2]));
}

#[test]
fn a_lost_write_never_reaches_the_disk() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 1_024]);
    disk.fail_nth(OpKind::Write, disk.count(OpKind::Write), Fault::LostWrite);
    file.write_all_at(&[1; 512], 0).unwrap();
    file.write_all_at(&[2; 512], 512).unwrap();
    file.sync_data().unwrap();
    let seen = all_images(&disk, |d| content(d, "a").map(|b| (b[0], b[512])).unwrap());
    assert_eq!(seen, BTreeSet::from([(0, 2)]));
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_space_back() {
    let disk = disk();
    disk.set_capacity(2 * 4_096);
    let file = create(&disk, "a", &[1; 4_096]);
    assert_eq!(disk.free_bytes(dir()).unwrap(), 4_096);
    let error = file.write_all_at(&[2; 8_192], 4_096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.size().unwrap(), 8_192);
    file.write_all_at(&[3; 8_192], 0).unwrap();
    assert_eq!(file.allocate(8_193).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove(&path("a")).unwrap();
    assert_eq!(disk.free_bytes(dir()).unwrap(), 0, "still open");
    drop(file);
    assert_eq!(disk.free_bytes(dir()).unwrap(), 8_192);
    let file = create(&disk, "b", b"");
    file.allocate(8_192).unwrap();
    assert_eq!(disk.free_bytes(dir()).unwrap(), 0);
    file.write_all_at(&[4; 8_192], 0).unwrap();
}

#[test]
fn faults_hit_the_call_they_are_meant_for() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 1_024]);
    let nth = disk.count(OpKind::Write);
    disk.fail_nth(OpKind::Write, nth + 1, Fault::Enospc);
    file.write_all_at(&[1; 8], 0).unwrap();
    assert_eq!(file.write_all_at(&[1; 8], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_all_at(&[1; 8], 0).unwrap();
    disk.fail_nth(OpKind::Read, disk.count(OpKind::Read), Fault::Eio);
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    file.read_exact_at(&mut [0], 0).unwrap();
    disk.set_bad_sector(&path("a"), 600).unwrap();
    assert!(file.read_exact_at(&mut [0; 600], 0).is_err());
    file.read_exact_at(&mut [0; 512], 0).unwrap();
    file.write_all_at(&[1; 1], 700).unwrap();
    file.read_exact_at(&mut [0; 600], 0).unwrap();
    disk.flip_bit(&path("a"), 8 * 3 + 1).unwrap();
    assert_eq!(content(&disk.after_crash(&mut Everything), "a").unwrap()[3], 1 ^ 2);
}

#[test]
fn a_killed_process_leaves_everything_in_the_cache_but_not_on_the_disk() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 8]);
    let lock = disk.lock(&path("lock")).unwrap();
    file.write_all_at(&[1; 8], 0).unwrap();
    let next = disk.after_kill();
    next.lock(&path("lock")).unwrap();
    assert_eq!(content(&next, "a"), Some(vec![1; 8]));
    assert_eq!(content(&next.after_crash(&mut Nothing), "a"), Some(vec![0; 8]));
    drop((lock, file));
}

#[test]
fn forks_do_not_see_each_other() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 8]);
    let fork = disk.fork();
    file.write_all_at(&[1; 8], 0).unwrap();
    assert_eq!(content(&fork, "a"), Some(vec![0; 8]));
    assert_eq!(fork.unsynced_sectors(), 0);
    assert_eq!(disk.unsynced_sectors(), 1);
}

#[test]
fn the_bound_counts_files_whose_removal_may_be_lost() {
    let disk = disk();
    create(&disk, "a", &[1; 64 * SECTOR_BYTES]);
    disk.remove(&path("a")).unwrap();
    assert_eq!(disk.image_count_max(), u64::MAX, "created, not removed, and torn in 2^64 ways");
    assert_eq!(disk.for_each_image(10, 1, drop), 12);
}

#[test]
fn one_seed_gives_one_image_and_many_seeds_give_many() {
    let disk = disk();
    let file = create_durable(&disk, "a", &[0; 64 * SECTOR_BYTES]);
    file.write_all_at(&[1; 64 * SECTOR_BYTES], 0).unwrap();
    let image = |seed| content(&disk.after_crash(&mut Random::new(seed)), "a").unwrap();
    assert_eq!(image(3), image(3));
    let distinct: BTreeSet<_> = (0..100).map(image).collect();
    assert!(distinct.len() > 90, "{}", distinct.len());
    let mut count = 0;
    assert_eq!(disk.for_each_image(10, 1, |_| count += 1), 12);
    assert_eq!(count, 12);
}
