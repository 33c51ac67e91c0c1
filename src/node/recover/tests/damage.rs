//! A damaged history beside peers (B8): set aside, whatever crashes, and never taken for a new directory.

use super::*;
use crate::storage::superblock::{Recall, copy_path};

fn start_with_peers(disk: &SimDisk) -> Result<RecoveredNode, RecoverError> {
    let options = RecoverOptions { replay: Replay::Committed, has_peers: true, ..options() };
    recover(&vfs(disk), &places(), &options, &RecoverShell::quiet())
}

fn names(disk: &SimDisk, dir: &std::path::Path) -> Vec<String> {
    let mut names = disk.list(dir).expect("there");
    names.sort_unstable();
    names
}

/// Every file that held something, wherever it is now.
fn history_files(disk: &SimDisk) -> usize {
    let is_history = |name: &String| name.contains("snapshot.") || name.contains("log.0");
    [places().data, places().log]
        .iter()
        .map(|dir| names(disk, dir).into_iter().filter(is_history).count())
        .sum()
}

/// A node of an ensemble that has promised epoch 3, been in epoch 2, and holds 20 transactions; it lost its power.
fn seasoned() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    node.dir.accept_epoch(Epoch(2)).expect("sound");
    node.dir.enter_epoch(Epoch(2)).expect("sound");
    node.dir.accept_epoch(Epoch(3)).expect("sound");
    node.dir.note_committed(Zxid(18)).expect("sound");
    power_cut(node, &disk)
}

/// A bit in the middle of what the first segment holds, which later records prove to have been synced.
fn damage_log(disk: &SimDisk) {
    let segment =
        names(disk, &places().log).into_iter().find(|name| name.starts_with("log.0")).expect("there");
    disk.flip_bit(&places().log.join(segment), 8 * (4096 + 200)).expect("there");
}

fn assert_blank(node: &RecoveredNode, context: &str) {
    assert_eq!((node.tree.applied(), node.log.reader.last_zxid()), (Zxid::ZERO, Zxid::ZERO), "{context}");
    let value = node.dir.superblock();
    assert_eq!((value.recall, value.committed), (Recall::Lost, Zxid::ZERO), "{context}");
}

#[test]
fn a_damaged_log_is_set_aside_with_its_snapshots_and_promises_stay() {
    let disk = seasoned();
    damage_log(&disk);
    let before = history_files(&disk);
    assert!(start(&disk.fork()).is_err(), "alone there is nobody to get it from");
    let node = start_with_peers(&disk).expect("begins anew");
    assert_blank(&node, "");
    assert_eq!(
        (node.dir.superblock().epoch_accepted, node.dir.superblock().epoch_current),
        (Epoch(3), Epoch(2))
    );
    assert_eq!(history_files(&disk), before + 1, "all are kept, and there is a new segment");
    drop(node);
    assert_blank(&start_with_peers(&disk).expect("sound"), "started again, it has forgotten all the same");
}

#[test]
fn a_history_is_whole_again_when_an_epoch_is_entered() {
    let disk = seasoned();
    damage_log(&disk);
    let mut node = start_with_peers(&disk).expect("begins anew");
    node.dir.accept_epoch(Epoch(4)).expect("sound");
    assert_eq!(node.dir.superblock().recall, Recall::Lost, "a promise brings nothing back");
    node.dir.enter_epoch(Epoch(4)).expect("sound");
    assert_eq!(node.dir.superblock().recall, Recall::Whole);
    assert_eq!(
        start_with_peers(&power_cut(node, &disk)).expect("sound").dir.superblock().recall,
        Recall::Whole
    );
}

#[test]
fn setting_aside_crashed_at_any_operation_is_finished_and_loses_no_file() {
    let log = seasoned();
    damage_log(&log);
    crash_everywhere(&log);
    let superblock = seasoned();
    (0..2).for_each(|copy| superblock.flip_bit(&copy_path(&places().data, copy), 8 * 100).expect("there"));
    crash_everywhere(&superblock);
}

fn crash_everywhere(damaged: &SimDisk) {
    let before = history_files(damaged);
    let mut finished = 0;
    for op in 0.. {
        let disk = damaged.fork();
        disk.crash_at(disk.ops() + op);
        let done = start_with_peers(&disk).is_ok();
        for image in
            [disk.after_kill(), disk.after_crash(&mut Nothing), disk.after_crash(&mut Random::new(op))]
        {
            let context = format!("crash at {op}");
            assert_blank(&start_with_peers(&image).expect(&context), &context);
            assert!(history_files(&image) > before, "{context}: {:?}", names(&image, &places().data));
            finished += 1;
        }
        if done {
            break;
        }
    }
    assert!(finished > 60, "{finished}");
}

#[test]
fn a_lost_superblock_takes_the_promises_along_and_the_directory_is_no_new_one() {
    let disk = seasoned();
    for copy in 0..2 {
        disk.flip_bit(&copy_path(&places().data, copy), 8 * 100).expect("there");
    }
    let before = history_files(&disk);
    assert!(start(&disk.fork()).is_err());
    let node = start_with_peers(&disk).expect("begins anew");
    assert_blank(&node, "");
    assert_eq!(node.dir.superblock().epoch_accepted, Epoch(0));
    assert_eq!(history_files(&disk), before + 1);
    let kept = names(&disk, &places().data).iter().filter(|name| name.contains(".superblock.")).count();
    assert_eq!(kept, 2, "what is left of the superblock is kept too");
}

#[test]
fn what_may_be_elsewhere_is_refused_and_left_alone() {
    let disk = seasoned();
    for name in names(&disk, &places().log) {
        disk.remove(&places().log.join(name)).expect("there");
    }
    let refused = start_with_peers(&disk).unwrap_err().to_string();
    assert!(refused.contains("LOG-MISSING"), "{refused}");

    let disk = seasoned();
    for copy in 0..2 {
        disk.remove(&copy_path(&places().data, copy)).expect("there");
    }
    let refused = start_with_peers(&disk).unwrap_err().to_string();
    assert!(refused.contains("never guessed"), "{refused}");
    assert!(!names(&disk, &places().data).iter().any(|name| name.starts_with(DAMAGED_PREFIX)));
}

#[test]
fn a_directory_made_beside_peers_is_new_until_an_epoch_is_entered() {
    let disk = SimDisk::new(1);
    let node = start_with_peers(&disk).expect("new");
    assert_eq!(node.dir.superblock().recall, Recall::New);
    let disk = power_cut(node, &disk);
    let mut node = start_with_peers(&disk).expect("sound");
    assert_eq!(node.dir.superblock().recall, Recall::New);
    node.dir.accept_epoch(Epoch(1)).expect("sound");
    node.dir.enter_epoch(Epoch(1)).expect("sound");
    assert_eq!(node.dir.superblock().recall, Recall::Whole);
    assert_eq!(start(&SimDisk::new(2)).expect("alone").dir.superblock().recall, Recall::Whole);
}

#[test]
fn what_cannot_be_read_now_is_not_given_up() {
    // The log begins behind the snapshot: without it there is a gap, and it may be whole.
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    let base = snapshot(&mut node);
    node.dir.announce_state(&node.snapshots, base).expect("here already");
    node.dir
        .reset(&mut node.log.appender, &mut node.log.flusher, &node.snapshots, base)
        .expect("a whole snapshot is there");
    let disk = power_cut(node, &disk);
    let path = places().data.join(format!("snapshot.{:016x}", base.0));
    let damaged = disk.fork();
    damaged.flip_bit(&path, 8 * 4).expect("there");
    assert_blank(&start_with_peers(&damaged).expect("begins anew"), "damaged");
    disk.set_bad_sector(&path, 0).expect("there");
    let refused = start_with_peers(&disk).unwrap_err().to_string();
    assert!(refused.contains("START-MISSING") || refused.contains("missing"), "{refused}");
    assert!(
        !names(&disk, &places().data).iter().any(|name| name.starts_with(DAMAGED_PREFIX)),
        "nothing is moved"
    );
}

#[test]
fn a_promise_that_did_not_count_makes_a_new_directory_a_lost_one() {
    let disk = SimDisk::new(1);
    let mut node = start_with_peers(&disk).expect("new");
    node.dir.accept_epoch(Epoch(1)).expect("sound");
    assert_eq!(node.dir.superblock().recall, Recall::New, "it took part in the first election");
    node.dir.accept_epoch_uncounted(Epoch(2)).expect("sound");
    assert_eq!(
        (node.dir.superblock().recall, node.dir.superblock().epoch_accepted),
        (Recall::Lost, Epoch(2))
    );
}
