//! What a member of an ensemble needs beside: a state from elsewhere takes the place of the log, a start goes up to the commit point.

use super::*;

// --- A state from elsewhere ---

/// The tree of another node with `count` transactions.
fn elsewhere(count: u64) -> Tree {
    let mut node = start(&SimDisk::new(2)).expect("new");
    commit(&mut node, count);
    node.tree
}

/// Receives `tree`: announced, published, then the log is replaced.
fn receive(node: &mut RecoveredNode, tree: Tree) -> Result<Zxid, String> {
    let base = tree.applied();
    if node.dir.announce_state(&node.snapshots, base).map_err(|e| e.to_string())? {
        publish(node, tree).map_err(|e| e.to_string())?;
    }
    reset(node, base).map_err(|e| e.to_string())?;
    Ok(base)
}

fn publish(node: &RecoveredNode, tree: Tree) -> Result<(), crate::node::snapshot::SnapshotFailed> {
    let tree = RwLock::new(tree);
    let options =
        SnapshotOptions { node_id: 1, created: WallMs(1), level: 1, chunk_bytes: CHUNK_BYTES_DEFAULT };
    let mut task = SnapshotTask::begin(&tree, &node.snapshots, &options)?;
    while task.step(&tree)? {}
    task.finish(&tree, &node.snapshots).map(drop)
}

fn reset(node: &mut RecoveredNode, base: Zxid) -> Result<(), ResetError> {
    node.dir.reset(&mut node.log.appender, &mut node.log.flusher, &node.snapshots, base)
}

#[test]
fn b7_a_received_state_takes_the_place_of_the_log_or_crashed_at_any_operation_there_is_one_or_the_other() {
    for (count, kept) in [(30, vec![5, 15, 30]), (12, vec![5, 12])] {
        let digest = elsewhere(count).digest();
        let (mut before, mut after) = (0, 0);
        for op in 0.. {
            let disk = SimDisk::new(1);
            let mut node = node(&disk);
            disk.crash_at(disk.ops() + op);
            let done = receive(&mut node, elsewhere(count)).is_ok();
            let images =
                [disk.after_kill(), disk.after_crash(&mut Nothing), disk.after_crash(&mut Random::new(op))];
            for disk in images {
                let mut node = start(&disk).unwrap_or_else(|e| panic!("crash at {op}: {e}"));
                let zxids: Vec<u64> = node.snapshots.zxids().expect("sound").iter().map(|z| z.0).collect();
                if node.log.reader.base() == Zxid::ZERO {
                    assert!(!done, "crash at {op}");
                    assert_eq!((node.tree.applied(), zxids), (Zxid(20), vec![5, 15]), "crash at {op}");
                    before += 1;
                } else {
                    assert_eq!((node.tree.applied(), &zxids), (Zxid(count), &kept), "crash at {op}");
                    assert_eq!((node.tree.digest(), node.log.reader.base()), (digest, Zxid(count)));
                    after += 1;
                }
                assert_eq!(node.dir.pending(), dir::Pending::Nothing);
                commit(&mut node, 1);
                let applied = node.tree.applied();
                assert_eq!(start(&power_cut(node, &disk)).expect("sound").tree.applied(), applied);
            }
            if done {
                assert!(before > 10 && after > 10, "{before} {after}");
                break;
            }
        }
    }
}

#[test]
fn a_start_that_finishes_a_reset_or_withdraws_a_state_can_itself_be_cut_short_anywhere() {
    for op in 0.. {
        let disk = SimDisk::new(1);
        let mut node = node(&disk);
        disk.crash_at(disk.ops() + op);
        let done = receive(&mut node, elsewhere(30)).is_ok();
        let left = power_cut(node, &disk);
        let expected = start(&left.fork()).expect("no crash refuses").tree.digest();
        for inner in 0.. {
            let first = left.fork();
            first.crash_at(first.ops() + inner);
            let started = start(&first).is_ok();
            for image in [
                first.after_kill(),
                first.after_crash(&mut Nothing),
                first.after_crash(&mut Random::new(inner)),
            ] {
                let node = start(&image).unwrap_or_else(|e| panic!("crash at {op}, then at {inner}: {e}"));
                assert_eq!(node.tree.digest(), expected, "crash at {op}, then at {inner}");
            }
            if started {
                break;
            }
        }
        if done {
            break;
        }
    }
}

#[test]
fn b3_after_a_reset_older_snapshots_are_not_taken_for_the_state_also_while_the_log_is_empty() {
    for records in [0, 1] {
        let disk = SimDisk::new(1);
        let mut node = node(&disk);
        receive(&mut node, elsewhere(30)).expect("sound");
        drop(node);
        let mut node = start(&disk).expect("sound");
        commit(&mut node, records);
        drop(node);
        disk.flip_bit(&places().data.join("snapshot.000000000000001e"), 8 * 300).expect("it is there");
        let refused = start(&disk).unwrap_err().to_string();
        assert!(refused.contains("START-MISSING") && refused.contains("0x1e"), "{records}: {refused}");
    }
}

#[test]
fn a_reset_whose_snapshot_is_damaged_before_it_is_finished_is_refused_and_the_snapshot_kept() {
    let path = places().data.join("snapshot.000000000000001e");
    for byte in [4, 300] {
        let disk = SimDisk::new(1);
        let mut node = node(&disk);
        node.dir.announce_state(&node.snapshots, Zxid(30)).expect("sound");
        publish(&node, elsewhere(30)).expect("room");
        // The intent is durable and the log is not yet replaced: the third rename is the first of a segment.
        disk.fail_nth(OpKind::Rename, disk.count(OpKind::Rename) + 1, Fault::Eio);
        reset(&mut node, Zxid(30)).expect_err("a segment cannot be renamed");
        assert_eq!(node.dir.pending(), dir::Pending::Reset(Zxid(30)));
        let disk = power_cut(node, &disk);
        disk.flip_bit(&path, 8 * byte).expect("it is there");
        let refused = start(&disk).unwrap_err();
        assert!(
            matches!(refused, RecoverError::ResetSnapshot { base: Zxid(30), found: Zxid(15), .. }),
            "{refused}"
        );
        disk.flip_bit(&path, 8 * byte).expect("it stays, also where its header is what is damaged");
        assert_eq!(start(&disk).expect("put right").tree.applied(), Zxid(30));
    }
}

#[test]
fn a_reset_without_a_whole_snapshot_of_exactly_that_state_changes_nothing() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    let refused = reset(&mut node, Zxid(30)).unwrap_err();
    assert!(matches!(refused, ResetError::NoCover { base: Zxid(30), .. }), "{refused}");
    assert!(node.dir.announce_state(&node.snapshots, Zxid(30)).expect("sound"));
    publish(&node, elsewhere(30)).expect("room");
    disk.flip_bit(&places().data.join("snapshot.000000000000001e"), 8 * 300).expect("it is there");
    let refused = reset(&mut node, Zxid(30)).unwrap_err();
    assert!(matches!(refused, ResetError::NoCover { base: Zxid(30), .. }), "{refused}");
    node.dir.withdraw_state(&node.snapshots).expect("sound");
    assert_eq!(node.snapshots.zxids().expect("sound"), [Zxid(5), Zxid(15)]);
    assert_eq!(node.dir.pending(), dir::Pending::Nothing);
    commit(&mut node, 1);
    assert_eq!(start(&power_cut(node, &disk)).expect("as before").tree.applied(), Zxid(21));
}

#[test]
fn a_state_that_is_here_already_need_not_be_published_and_one_that_is_damaged_gives_way() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    assert!(!node.dir.announce_state(&node.snapshots, Zxid(15)).expect("sound"));
    assert_eq!(receive(&mut node, elsewhere(15)).expect("sound"), Zxid(15));
    drop(node);
    assert_eq!(start(&disk).expect("sound").tree.applied(), Zxid(15));

    let disk = SimDisk::new(1);
    let mut node = super::node(&disk);
    disk.flip_bit(&places().data.join("snapshot.000000000000000f"), 8 * 300).expect("it is there");
    assert_eq!(receive(&mut node, elsewhere(15)).expect("sound"), Zxid(15));
    drop(node);
    assert_eq!(start(&disk).expect("sound").summary.snapshot.map(|s| s.zxid), Some(Zxid(15)));
}

// --- What is known to be committed ---

fn start_as_member(disk: &SimDisk) -> Result<RecoveredNode, RecoverError> {
    let options = RecoverOptions { replay: Replay::Committed, ..options() };
    recover(&vfs(disk), &places(), &options, &RecoverShell::quiet())
}

#[test]
fn b6_a_member_keeps_the_tail_that_is_not_known_to_be_committed_and_does_not_apply_it() {
    for (noted, expected) in [(0, 15), (9, 15), (17, 17), (20, 20)] {
        let disk = SimDisk::new(1);
        let mut node = node(&disk);
        let digest = node.tree.digest();
        node.dir.note_committed(Zxid(noted)).expect("sound");
        let disk = power_cut(node, &disk);
        let mut node = start_as_member(&disk).expect("sound");
        assert_eq!((node.committed, node.tree.applied()), (Zxid(expected), Zxid(expected)), "{noted}");
        assert_eq!((node.log.reader.last_zxid(), node.summary.log.last), (Zxid(20), Zxid(20)));
        assert_eq!(node.summary.replayed_txns, expected - 15);
        // A leader says that it was committed after all; or that a part was not.
        let rebuilt = |node: &RecoveredNode, upto| {
            let shell = RecoverShell::quiet();
            rebuild(&node.snapshots, &node.log.reader, &places(), options().tree, Zxid(upto), &shell)
                .expect("sound")
        };
        assert_eq!(rebuilt(&node, 20).digest(), digest);
        if expected < 20 {
            truncate(&mut node, Zxid(18)).expect("covered");
        }
        let end = if expected < 20 { 18 } else { 20 };
        for upto in [3, 7, expected, 19, 40] {
            assert_eq!(rebuilt(&node, upto).applied(), Zxid(upto.min(end)), "{upto}");
        }
    }
}

#[test]
fn what_is_committed_is_neither_cut_nor_replaced_away() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    node.dir.note_committed(Zxid(17)).expect("sound");
    node.dir.note_committed(Zxid(16)).expect("no news");
    assert_eq!(node.dir.superblock().committed, Zxid(17));
    let cut = truncate(&mut node, Zxid(16)).unwrap_err();
    assert!(matches!(cut, TruncateError::Committed { to: Zxid(16), committed: Zxid(17) }), "{cut}");
    let replaced = reset(&mut node, Zxid(15)).unwrap_err();
    assert!(matches!(replaced, ResetError::Committed { base: Zxid(15), committed: Zxid(17) }), "{replaced}");
    truncate(&mut node, Zxid(17)).expect("nothing of it goes");
    assert_eq!(node.log.reader.last_zxid(), Zxid(17));
}

#[test]
fn a_tail_that_looks_torn_is_refused_when_it_was_committed() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    let end = node.log.flusher.durable().pos;
    node.dir.note_committed(Zxid(20)).expect("sound");
    let disk = power_cut(node, &disk);
    let segment = places().log.join(format!("log.{:016x}", end.segment));
    disk.flip_bit(&segment, (end.offset - 9) * 8).expect("it is there");
    let refused = start_as_member(&disk).unwrap_err().to_string();
    assert!(refused.contains("END-MISSING") && refused.contains("0x14 was committed"), "{refused}");
}

#[test]
fn epochs_and_the_commit_point_are_durable_when_stored() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    node.dir.accept_epoch(Epoch(3)).expect("sound");
    node.dir.enter_epoch(Epoch(2)).expect("sound");
    node.dir.accept_epoch(Epoch(3)).expect("the same again");
    let end = node.log.flusher.durable();
    node.dir.clean_stop(end.pos, end.zxid).expect("sound");
    let disk = power_cut(node, &disk);
    let node = start_as_member(&disk).expect("sound");
    let value = node.dir.superblock();
    assert_eq!((value.epoch_accepted, value.epoch_current), (Epoch(3), Epoch(2)));
    assert_eq!((value.committed, value.clean_stop, node.committed), (Zxid(20), None, Zxid(20)));
}

#[test]
#[should_panic(expected = "accepted before it is entered")]
fn an_epoch_that_was_not_accepted_is_not_entered() {
    let disk = SimDisk::new(1);
    let _ = start(&disk).expect("new").dir.enter_epoch(Epoch(1));
}
