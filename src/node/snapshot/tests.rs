use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::testing::sim_disk::{Fault, OpKind, SimDisk};
use crate::tree::{Fired, TreeOptions};
use crate::wire::AclVec;
use crate::wire::txn::{CreateTxn, Lifetime, Proposal, Txn, TxnHeader, kind};

const DIR: &str = "/data";
const OPTIONS: SnapshotOptions =
    SnapshotOptions { node_id: 1, created: WallMs(1), level: 1, chunk_bytes: CHUNK_BYTES_DEFAULT };
const KEEP_ONE: Retention = Retention { count_min: 1, count_max: 1, age_max: None };

fn store(disk: &SimDisk) -> SnapshotStore {
    SnapshotStore::open(Arc::new(disk.clone()), Path::new(DIR)).expect("a sound disk")
}

fn tree() -> RwLock<Tree> {
    RwLock::new(Tree::new(TreeOptions::default()))
}

fn take(tree: &RwLock<Tree>, store: &SnapshotStore) -> Result<SnapshotInfo, SnapshotFailed> {
    let mut task = SnapshotTask::begin(tree, store, &OPTIONS)?;
    while task.step(tree)? {}
    task.finish(tree, store)
}

#[test]
fn a_trailer_comes_back_and_another_length_is_none() {
    let trailer = SnapshotTrailer { digest: 0x0102_0304_0506_0708, node_count: 5 };
    assert_eq!(SnapshotTrailer::read(&trailer.bytes()), Some(trailer));
    assert_eq!(trailer.bytes()[0], 8, "little-endian");
    assert_eq!(SnapshotTrailer::read(&[0; 15]), None);
    assert_eq!(SnapshotTrailer::read(&[0; 17]), None);
}

#[test]
fn n4_an_attempt_that_is_aborted_or_cannot_begin_leaves_the_tree_free_for_the_next() {
    let (disk, tree) = (SimDisk::new(1), tree());
    let store = store(&disk);
    SnapshotTask::begin(&tree, &store, &OPTIONS).expect("room").abort(&tree);
    disk.fail_nth(OpKind::Create, disk.count(OpKind::Create), Fault::Enospc);
    SnapshotTask::begin(&tree, &store, &OPTIONS).expect_err("no room");
    assert!(store.zxids().expect("sound").is_empty());
    take(&tree, &store).expect("the image before was ended");
}

#[test]
fn n3_a_snapshot_that_does_not_read_back_is_none() {
    let (disk, tree) = (SimDisk::new(1), tree());
    let store = store(&disk);
    let mut task = SnapshotTask::begin(&tree, &store, &OPTIONS).expect("room");
    while task.step(&tree).expect("room") {}
    disk.fail_nth(OpKind::Write, disk.count(OpKind::Write), Fault::LostWrite);
    let failed = task.finish(&tree, &store).unwrap_err();
    assert!(matches!(failed, SnapshotFailed::ReadBack(_)), "{failed}");
    assert!(failed.to_string().contains("damaged in"), "{failed}");
}

#[test]
fn n3_nothing_goes_for_a_snapshot_that_was_never_read_back_whole() {
    let (disk, tree) = (SimDisk::new(1), tree());
    let store = store(&disk);
    let good = take(&tree, &store).expect("room").zxid;
    let newer = store.path(Zxid(9));
    store
        .create(crate::storage::snapshot::SnapshotMeta {
            zxid: Zxid(9),
            node_id: 1,
            created: WallMs(2),
            chunk_bytes_target: 1,
            level: 1,
        })
        .and_then(|mut writer| {
            writer.chunk(1, &[7; 100])?;
            writer.finish(Zxid(9), b"")
        })
        .expect("room");
    disk.flip_bit(&newer, 8 * 100).expect("it is there");
    let mut verified = BTreeSet::new();
    let retired = retire(&store, &KEEP_ONE, &mut verified, WallMs(3)).expect("sound");
    assert_eq!(retired, Retired { removed: vec![], purge_below: Some(good.next()) });
    assert_eq!(verified, BTreeSet::from([good]), "read back now, once");
    disk.flip_bit(&newer, 8 * 100).expect("it is there");
    let retired = retire(&store, &KEEP_ONE, &mut verified, WallMs(3)).expect("sound");
    assert_eq!(retired, Retired { removed: vec![good], purge_below: Some(Zxid(10)) });
    assert_eq!(verified, BTreeSet::from([Zxid(9)]));
}

#[test]
fn chunks_are_as_long_as_they_are_asked_to_be() {
    let chunks_of = |chunk_bytes: usize| {
        let (disk, tree) = (SimDisk::new(1), tree());
        let store = store(&disk);
        for zxid in 1..=100 {
            let path = format!("/n{zxid}");
            let (data, acl) = (Some(&[7; 1_000][..]), AclVec::NULL);
            let create =
                CreateTxn { path: &path, data, acl, lifetime: Lifetime::Persistent, parent_cversion: -1 };
            let header = TxnHeader { zxid, kind: kind::CREATE, ..TxnHeader::default() };
            let proposal = Proposal { header, txn: Txn::Create(create), digest: None };
            tree.write().apply(&proposal, &mut Fired::new());
        }
        let mut task =
            SnapshotTask::begin(&tree, &store, &SnapshotOptions { chunk_bytes, ..OPTIONS }).unwrap();
        while task.step(&tree).expect("room") {}
        task.finish(&tree, &store).expect("a sound disk").chunk_count
    };
    let (short, long) = (chunks_of(4_096), chunks_of(65_536));
    assert!(long + 20 <= short, "100 KB in chunks of 4 KiB and of 64 KiB: {short} and {long}");
}
