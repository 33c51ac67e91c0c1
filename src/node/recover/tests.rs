//! What the simulator cannot ask for: every refusal with its words, truncation with snapshots, several threads, progress.

mod damage;
mod member;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::*;
use crate::base::{ConnId, Epoch, WallMs};
use crate::node::snapshot::{CHUNK_BYTES_DEFAULT, SnapshotOptions, SnapshotTask};
use crate::node::{AuthIds, Prepare, PrepareOptions, WriteRequest};
use crate::session::Tracker;
use crate::storage::log::{Group, RecordKind};
use crate::storage::snapshot::SnapshotError;
use crate::testing::sim_disk::{Fault, Nothing, OpKind, Random, SimDisk};
use crate::testing::world::body;
use crate::tree::Fired;
use crate::wire::OpCode;
use crate::wire::txn::Proposal;

fn places() -> NodePlaces {
    NodePlaces { data: "/data/zabra".into(), log: "/log/zabra/log".into() }
}

fn options() -> RecoverOptions {
    RecoverOptions {
        tree: TreeOptions::default(),
        log: LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() },
        server_id: ServerId(1),
        replay: Replay::All,
        has_peers: false,
        seed: 7,
    }
}

fn vfs(disk: &SimDisk) -> Arc<dyn Vfs> {
    Arc::new(disk.clone())
}

fn start(disk: &SimDisk) -> Result<RecoveredNode, RecoverError> {
    recover(&vfs(disk), &places(), &options(), &RecoverShell::quiet())
}

/// Commits `count` creates, one group each.
fn commit(node: &mut RecoveredNode, count: u64) {
    let mut sessions = Tracker::new(2_000, 1);
    let session = sessions.create(10_000, ConnId(1), crate::base::MonoMs(0)).id();
    let mut prepare = Prepare::new(node.tree.applied(), node.tree.digest(), PrepareOptions::default());
    for _ in 0..count {
        let body = body::create("/n-", 2);
        let auth = AuthIds::none();
        let write =
            WriteRequest { session, cxid: 1, op: OpCode::Create, body: &body, auth: &auth, conn: ConnId(1) };
        let mut group = Group::new();
        let zxid = prepare.prepare(&node.tree, &sessions, WallMs(1), &write, group.begin_record());
        group.finish_record(zxid, RecordKind::Txn);
        node.log.appender.append(&mut group).expect("room");
        node.log.flusher.flush().expect("a sound disk");
        let (_, _, payload) = group.iter().next().expect("one");
        node.tree.apply(&Proposal::read(payload).expect("whole"), &mut Fired::new());
        prepare.applied(&node.tree);
    }
}

/// A snapshot of the tree as it is.
fn snapshot(node: &mut RecoveredNode) -> Zxid {
    let tree = RwLock::new(std::mem::replace(&mut node.tree, Tree::new(TreeOptions::default())));
    let node_id = node.dir.superblock().node_id;
    let options = SnapshotOptions { node_id, created: WallMs(1), level: 1, chunk_bytes: CHUNK_BYTES_DEFAULT };
    let mut task = SnapshotTask::begin(&tree, &node.snapshots, &options).expect("room");
    while task.step(&tree).expect("room") {}
    let info = task.finish(&tree, &node.snapshots).expect("a sound disk");
    node.tree = tree.into_inner();
    info.zxid
}

/// A node with 20 transactions, snapshots at 5 and 15.
fn node(disk: &SimDisk) -> RecoveredNode {
    let mut node = start(disk).expect("new");
    commit(&mut node, 5);
    snapshot(&mut node);
    commit(&mut node, 10);
    snapshot(&mut node);
    commit(&mut node, 5);
    node
}

fn truncate(node: &mut RecoveredNode, to: Zxid) -> Result<(), TruncateError> {
    node.dir.truncate(&mut node.log.appender, &mut node.log.flusher, &node.snapshots, to)
}

fn power_cut(node: RecoveredNode, disk: &SimDisk) -> SimDisk {
    disk.crash_now();
    drop(node);
    disk.after_crash(&mut Nothing)
}

#[test]
fn a_start_takes_the_newest_snapshot_and_replays_the_rest() {
    let disk = SimDisk::new(1);
    let digest = node(&disk).tree.digest();
    let node = start(&disk).expect("sound");
    assert_eq!(node.summary.snapshot.map(|s| s.zxid), Some(Zxid(15)));
    assert_eq!((node.summary.replayed_txns, node.tree.digest()), (5, digest));
    assert!(node.dir.has_history() && node.dir.superblock().clean_stop.is_none());
}

#[test]
fn b2_a_damaged_snapshot_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let digest = node(&disk).tree.digest();
    disk.flip_bit(&places().data.join("snapshot.000000000000000f"), 8 * 300).expect("it is there");
    let passed_over = AtomicU64::new(0);
    let observe = |event: &RecoverEvent<'_>| {
        if let RecoverEvent::SnapshotPassedOver { zxid, .. } = event {
            passed_over.store(zxid.0, Ordering::Relaxed);
        }
    };
    let shell = RecoverShell { parallel: &|job| job(), observe: &observe };
    let node = recover(&vfs(&disk), &places(), &options(), &shell).expect("an older one");
    assert_eq!(node.summary.snapshot.map(|s| s.zxid), Some(Zxid(5)));
    assert_eq!((passed_over.into_inner(), node.summary.snapshots_bad), (15, 1));
    assert_eq!((node.summary.replayed_txns, node.tree.digest()), (15, digest));
}

#[test]
fn chunks_loaded_by_many_threads_at_once_make_the_same_tree() {
    let disk = SimDisk::new(1);
    let digest = node(&disk).tree.digest();
    for _ in 0..50 {
        let parallel = |job: &(dyn Fn() + Sync)| {
            std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(job))));
        };
        let shell = RecoverShell { parallel: &parallel, observe: &|_| () };
        let node = recover(&vfs(&disk), &places(), &options(), &shell).expect("sound");
        assert_eq!((node.summary.snapshots_bad, node.tree.digest()), (0, digest));
    }
}

#[test]
fn a_snapshot_that_is_not_what_its_trailer_says_is_passed_over() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    let tree = RwLock::new(std::mem::replace(&mut node.tree, Tree::new(TreeOptions::default())));
    let mut image = tree.write().begin_image();
    let meta = crate::storage::snapshot::SnapshotMeta {
        zxid: image.zxid(),
        node_id: 1,
        created: WallMs(1),
        chunk_bytes_target: 1,
        level: 1,
    };
    let mut writer = node.snapshots.create(meta).expect("room");
    let mut chunk = Vec::new();
    while let Some(kind) = tree.read().image_chunk(&mut image, &mut chunk, CHUNK_BYTES_DEFAULT) {
        writer.chunk(kind as u16, &chunk).expect("room");
        chunk.clear();
    }
    let wrong = crate::node::snapshot::SnapshotTrailer { digest: image.digest() ^ 1, node_count: 25 };
    writer.finish(image.zxid(), &wrong.bytes()).expect("room");
    drop(node);
    let node = start(&disk).expect("an older one");
    assert_eq!((node.summary.snapshot.map(|s| s.zxid), node.summary.snapshots_bad), (Some(Zxid(15)), 1));
    assert_eq!(node.tree.digest(), tree.read().digest());
}

#[test]
fn b4_a_truncation_takes_the_snapshots_above_it_along() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    truncate(&mut node, Zxid(9)).expect("covered by the snapshot at 5");
    assert_eq!(node.snapshots.zxids().expect("sound"), [Zxid(5)]);
    let disk = power_cut(node, &disk);
    let node = start(&disk).expect("sound");
    assert_eq!((node.tree.applied(), node.summary.replayed_txns), (Zxid(9), 4));
}

#[test]
fn b4_a_truncation_crashed_at_any_operation_is_finished_by_the_next_start() {
    for op in 0.. {
        let disk = SimDisk::new(1);
        let mut node = node(&disk);
        disk.crash_at(disk.ops() + op);
        let done = truncate(&mut node, Zxid(9)).is_ok();
        for disk in [disk.after_kill(), disk.after_crash(&mut Nothing)] {
            let node = start(&disk).unwrap_or_else(|e| panic!("crash at {op}: {e}"));
            let at = node.tree.applied();
            assert!(at == Zxid(9) || (at == Zxid(20) && !done), "crash at {op}: {at}");
            let newest = node.snapshots.zxids().expect("sound").pop();
            assert_eq!(newest, Some(if at == Zxid(9) { Zxid(5) } else { Zxid(15) }), "crash at {op}");
            assert_eq!(node.dir.superblock().truncate_pending, None);
        }
        if done {
            assert!(op > 5, "a truncation is several operations");
            return;
        }
    }
}

#[test]
fn a_truncation_forgets_the_clean_stop_in_the_same_write() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    let end = node.log.flusher.durable().pos;
    node.dir.clean_stop(end, Zxid(9)).expect("a sound disk");
    // The intent is durable, the cut is not made: the first snapshot cannot be removed.
    disk.crash_at(disk.ops() + 4);
    truncate(&mut node, Zxid(9)).expect_err("crashed");
    let disk = power_cut(node, &disk);
    let loaded =
        crate::storage::superblock::load(&disk, &places().data, true).expect("sound").expect("there");
    assert_eq!((loaded.value.truncate_pending, loaded.value.clean_stop), (Some(Zxid(9)), None));
}

#[test]
fn a_truncation_that_would_leave_no_beginning_is_refused_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    commit(&mut node, 150);
    snapshot(&mut node);
    let snapshots = [Zxid(5), Zxid(15)];
    node.snapshots.remove(&snapshots).expect("a sound disk");
    assert!(node.log.spares.purge(Zxid(171)).expect("a sound disk") > 0, "several segments");
    let to = Zxid(node.log.reader.base().0 + 1);
    let refused = truncate(&mut node, to).unwrap_err();
    assert!(matches!(refused, TruncateError::NoCover { .. }), "{refused}");
    drop(node);
    assert_eq!(start(&disk).expect("as it was").tree.applied(), Zxid(170));
}

#[test]
fn a_name_that_was_never_synced_is_synced_by_the_next_start() {
    let disk = SimDisk::new(1);
    let dirs = disk.ops() + 2;
    disk.crash_at(dirs);
    start(&disk).expect_err("the process is killed right after it made the directories");
    let disk = disk.after_kill();
    let mut node = start(&disk).expect("new");
    commit(&mut node, 3);
    let disk = power_cut(node, &disk);
    assert_eq!(start(&disk).expect("sound").tree.applied(), Zxid(3));
}

#[test]
fn refusals_say_where_and_what_to_do() {
    let disk = SimDisk::new(1);
    let held = node(&disk);
    let text = |options: &RecoverOptions| {
        recover(&vfs(&disk), &places(), options, &RecoverShell::quiet()).unwrap_err().to_string()
    };
    assert!(text(&options()).contains("/data/zabra is in use by another process"));
    drop(held);
    let other = RecoverOptions { server_id: ServerId(2), ..options() };
    assert!(text(&other).contains("belongs to server 1, the configuration says 2: correct myid"));
    for copy in ["superblock.0", "superblock.1"] {
        disk.remove(&places().data.join(copy)).expect("it is there");
    }
    assert!(text(&options()).contains("in /data/zabra: superblock missing"));
}

#[test]
fn a_record_that_is_no_transaction_or_another_one_is_refused() {
    for (payload_of, expected) in [(Zxid(21), "cannot be decoded"), (Zxid(1), "holds transaction")] {
        let disk = SimDisk::new(1);
        let mut node = node(&disk);
        let mut cursor = node.log.reader.from(Zxid(1)).expect("the whole log");
        let first = cursor.next().expect("sound").expect("there").1.to_vec();
        let payload = if payload_of == Zxid(1) { first } else { vec![1, 2, 3] };
        let mut group = Group::new();
        group.record(Zxid(21), RecordKind::Txn, |out| out.extend_from_slice(&payload));
        node.log.appender.append(&mut group).expect("room");
        node.log.flusher.flush().expect("a sound disk");
        drop((cursor, node));
        let refused = start(&disk).unwrap_err().to_string();
        assert!(refused.contains(expected) && refused.contains("0x15"), "{refused}");
    }
}

#[test]
fn a_replay_that_comes_to_another_tree_is_refused() {
    let disk = SimDisk::new(1);
    let mut node = node(&disk);
    // Whole, checksummed, and of another tree.
    let right = std::mem::replace(&mut node.tree, Tree::new(TreeOptions::default()));
    let mut sessions = Tracker::new(2_000, 1);
    let session = sessions.create(10_000, ConnId(1), crate::base::MonoMs(0)).id();
    let mut prepare = Prepare::new(right.applied(), right.digest() ^ 1, PrepareOptions::default());
    let auth = AuthIds::none();
    let body = body::create("/x", 0);
    let write =
        WriteRequest { session, cxid: 1, op: OpCode::Create, body: &body, auth: &auth, conn: ConnId(1) };
    let mut group = Group::new();
    let zxid = prepare.prepare(&right, &sessions, WallMs(1), &write, group.begin_record());
    group.finish_record(zxid, RecordKind::Txn);
    node.log.appender.append(&mut group).expect("room");
    node.log.flusher.flush().expect("a sound disk");
    drop(node);
    let refused = start(&disk).unwrap_err();
    assert!(matches!(refused, RecoverError::Digest { zxid: Zxid(21), .. }), "{refused}");
    assert!(refused.to_string().contains("restore both from one backup"), "{refused}");
}

#[test]
fn snapshots_are_passed_over_with_their_reason() {
    let fault = SnapshotFault::Storage(SnapshotError::Failed);
    assert_eq!(fault.to_string(), "snapshot writer has failed before");
    let other = SnapshotFault::Other { what: "digest", expected: 0xab, found: 0xcd };
    assert_eq!(other.to_string(), "digest is cd, the snapshot says ab");
}
