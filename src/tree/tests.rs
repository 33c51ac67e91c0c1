//! What clients see: one test per rule of watches, events, quotas, owners and multis.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::*;
use crate::base::ConnId;
use crate::wire::StrVec;
use crate::wire::jute::{PutJute, Reader};
use crate::wire::reply::EventType;
use crate::wire::request::SetWatches;
use crate::wire::txn::{CreateTxn, Lifetime, MultiWriter, Proposal, Txn, TxnDigest, TxnHeader, kind};
use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};

const SESSION: i64 = 0x1234;
const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

/// A tree and what its last transaction set off.
struct Bed {
    tree: Tree,
    fired: Fired,
}

fn bed() -> Bed {
    Bed {
        tree: Tree::new(TreeOptions { extended_types: true, ..TreeOptions::default() }),
        fired: Fired::new(),
    }
}

impl Bed {
    fn run(&mut self, txn: Txn<'_>) -> Outcome {
        let zxid = self.tree.applied().0 as i64 + 1;
        self.fired.clear();
        let header = TxnHeader { client_id: SESSION, cxid: 1, zxid, time_ms: 1000 + zxid, kind: 0 };
        self.tree.apply(&Proposal { header, txn, digest: None }, &mut self.fired)
    }

    fn create_as(&mut self, path: &str, data: Option<&[u8]>, lifetime: Lifetime) -> Outcome {
        let parent = self.tree.find(&path[..path.rfind('/').unwrap()]).unwrap();
        let parent_cversion = parent.persisted().cversion + 1;
        let acl = AclVec::NULL;
        self.run(Txn::Create(CreateTxn { path, data, acl, lifetime, parent_cversion }))
    }

    fn create(&mut self, path: &str) {
        assert!(matches!(self.create_as(path, Some(b""), Lifetime::Persistent), Outcome::Created(_)));
    }

    fn set(&mut self, path: &str, data: &[u8]) {
        let version = self.tree.find(path).unwrap().persisted().version + 1;
        assert!(matches!(self.run(Txn::SetData { path, data: Some(data), version }), Outcome::DataSet(_)));
    }

    fn delete(&mut self, path: &str) {
        assert_eq!(self.run(Txn::Delete { path }), Outcome::Deleted);
    }

    /// (event, path, who), sorted by connection within an event.
    fn events(&self) -> Vec<(EventType, String, Vec<u64>)> {
        let events = self.fired.iter().map(|firing| {
            assert_eq!(firing.zxid, self.tree.applied());
            let mut watchers: Vec<u64> = firing.watchers.iter().map(|conn| conn.0).collect();
            watchers.sort_unstable();
            (firing.event, firing.path.to_owned(), watchers)
        });
        events.collect()
    }
}

fn event(event: EventType, path: &str, watchers: &[u64]) -> (EventType, String, Vec<u64>) {
    (event, path.to_owned(), watchers.to_vec())
}

fn multi(parts: &[(i32, Txn<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = MultiWriter::begin(&mut out);
    for (kind, txn) in parts {
        writer.put(&mut out, *kind, txn);
    }
    out
}

fn strings(list: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_int(list.len() as i32);
    for s in list {
        out.put_ustring(s);
    }
    out
}

#[test]
fn a_fresh_tree_is_zookeepers() {
    let tree = bed().tree;
    assert_eq!((tree.node_count(), tree.data_bytes()), (5, 44));
    // ZooKeeper 3.9 prints this for an empty tree.
    assert_eq!(tree.digest(), 1_371_985_504);
    assert_eq!(tree.find("/").unwrap().stat().cversion, -1);
    assert_eq!(tree.find("/zookeeper").unwrap().stat().cversion, -2);
    let config = tree.find("/zookeeper/config").unwrap();
    assert_eq!(config.stat().aversion, -1);
    assert_eq!(tree.acl(config.acl_id()).iter().next().unwrap().perms, perms::READ);
    assert_eq!(tree.find("/").unwrap().acl_id(), AclId::OPEN);
}

#[test]
fn malformed_paths_find_nothing_and_both_names_of_the_root_find_it() {
    let mut bed = bed();
    bed.create("/a");
    bed.create("/a/b");
    for path in ["a", "/a/", "//a", "/a//b", "/A", "/a/b/", "/a/b/c", "//", "x/a"] {
        assert!(bed.tree.find(path).is_none(), "{path}");
    }
    assert_eq!(bed.tree.find("").unwrap().path(), "/");
    assert_eq!(bed.tree.find("/").unwrap().path(), "/");
    assert_eq!(bed.tree.find("/a/b").unwrap().path(), "/a/b");
    assert_eq!(bed.tree.find("/a/b").unwrap().name(), "b");
}

#[test]
fn transactions_with_impossible_paths_fail_and_change_nothing() {
    let mut bed = bed();
    let digest = bed.tree.digest();
    for path in ["", "/", "a", "/a/", "//", "/x/y"] {
        let txn = CreateTxn {
            path,
            data: None,
            acl: AclVec::NULL,
            lifetime: Lifetime::Persistent,
            parent_cversion: 1,
        };
        for txn in [
            Txn::Create(txn),
            Txn::Delete { path },
            Txn::SetData { path: "/nope", data: None, version: 1 },
            Txn::SetAcl { path: "/a/", acl: AclVec::NULL, version: 1 },
        ] {
            assert!(matches!(bed.run(txn), Outcome::Failed(err) if err != 0), "{path} {txn:?}");
        }
    }
    assert_eq!((bed.tree.digest(), bed.tree.node_count()), (digest, 5));
}

#[test]
#[should_panic(expected = "zxids grow")]
fn a_live_transaction_out_of_order_stops_the_node() {
    let mut bed = bed();
    bed.create("/a");
    let header = TxnHeader { zxid: 1, ..TxnHeader::default() };
    bed.tree.apply(&Proposal { header, txn: Txn::Error { err: -1 }, digest: None }, &mut bed.fired);
}

#[test]
fn the_stat_of_a_create_is_of_that_moment() {
    let mut bed = bed();
    let Outcome::Created(stat) = bed.create_as("/a", Some(b"xyz"), Lifetime::Ephemeral) else { panic!() };
    let expected = Stat {
        czxid: 1,
        mzxid: 1,
        pzxid: 1,
        ctime: 1001,
        mtime: 1001,
        ephemeral_owner: SESSION,
        data_length: 3,
        ..Stat::default()
    };
    assert_eq!(stat, expected);
}

#[test]
fn cversion_shown_counts_creates_and_deletes() {
    let mut bed = bed();
    bed.create("/p");
    let shown = |bed: &Bed| bed.tree.find("/p").unwrap().stat().cversion;
    bed.create("/p/a");
    bed.create("/p/b");
    assert_eq!(shown(&bed), 2);
    bed.delete("/p/a");
    assert_eq!(shown(&bed), 3);
    assert_eq!(bed.tree.find("/p").unwrap().persisted().cversion, 2);
    assert_eq!(bed.tree.find("/p").unwrap().persisted().pzxid, 4);
}

#[test]
fn rule_26_exists_watches_what_is_not_there_yet() {
    let mut bed = bed();
    bed.tree.watch_exists("/a", A).unwrap();
    bed.create("/a");
    assert_eq!(bed.events(), [event(NodeCreated, "/a", &[1])]);
}

#[test]
fn rule_27_data_and_exists_are_one_entry() {
    let mut bed = bed();
    bed.create("/a");
    bed.tree.watch_data("/a", A).unwrap();
    bed.tree.watch_exists("/a", A).unwrap();
    assert_eq!(bed.tree.watch_count(), 1);
    bed.set("/a", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[1])]);
    bed.set("/a", b"2");
    assert_eq!(bed.events(), []);
}

#[test]
fn rule_28_delete_tells_data_watchers_then_child_watchers_not_told_then_the_parents() {
    let mut bed = bed();
    bed.create("/p");
    bed.create("/p/a");
    bed.tree.watch_data("/p/a", A).unwrap();
    bed.tree.watch_children("/p/a", A).unwrap();
    bed.tree.watch_children("/p/a", B).unwrap();
    bed.tree.watch_children("/p", A).unwrap();
    bed.delete("/p/a");
    let expected = [
        event(NodeDeleted, "/p/a", &[1]),
        event(NodeDeleted, "/p/a", &[2]),
        event(NodeChildrenChanged, "/p", &[1]),
    ];
    assert_eq!(bed.events(), expected);
    assert_eq!(bed.tree.watch_count(), 0, "the suppressed child watch is used up as well");
}

#[test]
fn rule_29_create_tells_of_the_node_before_its_parent_and_the_root_is_a_slash() {
    let mut bed = bed();
    bed.tree.watch_children("/", B).unwrap();
    bed.tree.watch_exists("/a", A).unwrap();
    bed.create("/a");
    assert_eq!(bed.events(), [event(NodeCreated, "/a", &[1]), event(NodeChildrenChanged, "/", &[2])]);
}

#[test]
fn rule_30_set_data_leaves_child_watches_alone_and_set_acl_all() {
    let mut bed = bed();
    bed.create("/a");
    bed.tree.watch_children("/", A).unwrap();
    bed.tree.watch_children("/a", A).unwrap();
    bed.tree.watch_data("/a", B).unwrap();
    let acl = AclVec::NULL;
    assert!(matches!(bed.run(Txn::SetAcl { path: "/a", acl, version: 1 }), Outcome::AclSet(_)));
    assert_eq!(bed.events(), []);
    bed.set("/a", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[2])]);
    assert_eq!(bed.tree.watch_count(), 2);
}

#[test]
fn rule_31_a_watch_set_twice_fires_once() {
    let mut bed = bed();
    bed.create("/a");
    for _ in 0..2 {
        bed.tree.watch_data("/a", A).unwrap();
    }
    bed.set("/a", b"1");
    assert_eq!(bed.events().len(), 1);
    bed.set("/a", b"1");
    assert_eq!(bed.events(), []);
    bed.tree.watch_data("/a", A).unwrap();
    bed.set("/a", b"1");
    assert_eq!(bed.events().len(), 1);
}

#[test]
fn rule_32_a_persistent_watch_sees_four_kinds_of_events_and_outlives_its_node() {
    let mut bed = bed();
    bed.tree.add_watch("/a", WatchMode::Persistent, A).unwrap();
    bed.create("/a");
    assert_eq!(bed.events(), [event(NodeCreated, "/a", &[1])]);
    bed.set("/a", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[1])]);
    bed.create("/a/b");
    assert_eq!(bed.events(), [event(NodeChildrenChanged, "/a", &[1])]);
    bed.delete("/a/b");
    assert_eq!(bed.events(), [event(NodeChildrenChanged, "/a", &[1])]);
    bed.delete("/a");
    assert_eq!(bed.events(), [event(NodeDeleted, "/a", &[1])], "once, though it is in both tables");
    bed.create("/a");
    assert_eq!(bed.events(), [event(NodeCreated, "/a", &[1])]);
}

#[test]
fn rule_33_a_recursive_watch_sees_the_subtree_but_no_children_changed() {
    let mut bed = bed();
    bed.create("/a");
    bed.tree.add_watch("/a", WatchMode::PersistentRecursive, A).unwrap();
    bed.tree.add_watch("/", WatchMode::PersistentRecursive, B).unwrap();
    bed.create("/a/b");
    assert_eq!(bed.events(), [event(NodeCreated, "/a/b", &[1, 2])]);
    bed.create("/a/b/c");
    assert_eq!(bed.events(), [event(NodeCreated, "/a/b/c", &[1, 2])]);
    bed.set("/a/b/c", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a/b/c", &[1, 2])]);
    bed.delete("/a/b/c");
    assert_eq!(bed.events(), [event(NodeDeleted, "/a/b/c", &[1, 2])]);
    bed.set("/a", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[1, 2])]);
    bed.create("/ab");
    assert_eq!(bed.events(), [event(NodeCreated, "/ab", &[2])]);
    bed.set("/", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/", &[2])]);
}

#[test]
fn rule_34_recursive_above_and_standard_on_the_node_give_one_event() {
    let mut bed = bed();
    bed.create("/a");
    bed.tree.add_watch("/", WatchMode::PersistentRecursive, A).unwrap();
    bed.tree.watch_data("/a", A).unwrap();
    bed.set("/a", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[1])]);
    bed.set("/a", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[1])]);
    bed.tree.watch_children("/a", A).unwrap();
    bed.delete("/a");
    assert_eq!(bed.events(), [event(NodeDeleted, "/a", &[1])]);
}

#[test]
fn rule_35_standard_beside_persistent_is_used_up_alone() {
    let mut bed = bed();
    bed.create("/a");
    bed.tree.add_watch("/a", WatchMode::Persistent, A).unwrap();
    bed.tree.watch_data("/a", A).unwrap();
    assert!(bed.tree.check_watch("/a", WatchKind::Data, A));
    for _ in 0..2 {
        bed.set("/a", b"1");
        assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[1])]);
        assert!(!bed.tree.check_watch("/a", WatchKind::Data, A));
        assert!(bed.tree.check_watch("/a", WatchKind::Persistent, A));
    }
}

#[test]
fn rule_36_remove_takes_the_kind_that_is_asked_for() {
    let tree = bed().tree;
    let all = || {
        tree.watch_data("/a", A).unwrap();
        tree.watch_children("/a", A).unwrap();
        tree.add_watch("/a", WatchMode::Persistent, A).unwrap();
        tree.add_watch("/a", WatchMode::PersistentRecursive, A).unwrap();
    };
    let kinds = [WatchKind::Children, WatchKind::Data, WatchKind::Persistent, WatchKind::PersistentRecursive];
    for kind in kinds {
        all();
        assert!(!tree.remove_watch("/a", kind, B));
        assert!(!tree.remove_watch("/b", kind, A));
        assert!(tree.remove_watch("/a", kind, A));
        assert!(!tree.remove_watch("/a", kind, A), "NOWATCHER the second time");
        for other in kinds {
            assert_eq!(tree.check_watch("/a", other, A), other != kind, "{kind:?} {other:?}");
        }
    }
    assert!(tree.remove_watch("/a", WatchKind::Any, A));
    assert!(!tree.check_watch("/a", WatchKind::Any, A));
    assert_eq!(tree.watch_count(), 0);
}

#[test]
fn rules_38_to_40_set_watches_finds_what_was_missed() {
    let mut bed = bed();
    for path in ["/old", "/changed", "/parent"] {
        bed.create(path);
    }
    let since = bed.tree.applied().to_wire();
    bed.set("/changed", b"1");
    bed.create("/parent/new");
    let lists = [
        strings(&["/old", "/changed", "/gone"]),
        strings(&["/old", "/gone"]),
        strings(&["/old", "/parent", "/gone"]),
        strings(&["/changed"]),
        strings(&["/parent"]),
    ];
    let list = |i: usize| StrVec::read(&mut Reader::new(&lists[i])).unwrap();
    let watches = SetWatches {
        relative_zxid: since,
        data: list(0),
        exist: list(1),
        child: list(2),
        persistent: list(3),
        persistent_recursive: list(4),
    };
    let mut events = Vec::new();
    bed.tree.set_watches(&watches, A, |event, path| events.push((event, path.to_owned()))).unwrap();
    let expected = [
        (NodeDataChanged, "/changed"),
        (NodeDeleted, "/gone"),
        (NodeCreated, "/old"),
        (NodeChildrenChanged, "/parent"),
        (NodeDeleted, "/gone"),
    ];
    assert!(events.iter().map(|(event, path)| (*event, &**path)).eq(expected));
    for (path, kind) in [
        ("/old", WatchKind::Data),
        ("/gone", WatchKind::Data),
        ("/old", WatchKind::Children),
        ("/changed", WatchKind::Persistent),
        ("/parent", WatchKind::PersistentRecursive),
    ] {
        assert!(bed.tree.check_watch(path, kind, A), "{path} {kind:?}");
    }
    assert!(!bed.tree.check_watch("/changed", WatchKind::Data, A));
    assert!(!bed.tree.check_watch("/parent", WatchKind::Children, A));
}

#[test]
fn rule_42_an_event_names_the_acl_that_filters_it() {
    let mut bed = bed();
    bed.create("/p");
    let list = acls::encode([Acl { perms: perms::READ, scheme: Some("ip"), id: Some("::1") }]);
    let acl = AclVec::of_encoded(&list);
    let txn = CreateTxn { path: "/p/a", data: None, acl, lifetime: Lifetime::Persistent, parent_cversion: 1 };
    for (path, mode) in [("/", WatchMode::PersistentRecursive), ("/p", WatchMode::Persistent)] {
        bed.tree.add_watch(path, mode, A).unwrap();
    }
    let open = bed.tree.acl(AclId::OPEN).raw().to_vec();
    let by_whom = |bed: &Bed| bed.fired.iter().map(|f| f.acl.raw().to_vec()).collect::<Vec<_>>();
    bed.run(Txn::Create(txn));
    assert_eq!(by_whom(&bed), [acl.raw(), &open[..]], "the new node's, then the parent's");
    bed.set("/p/a", b"1");
    assert_eq!(by_whom(&bed), [acl.raw()]);
    bed.delete("/p/a");
    assert_eq!(by_whom(&bed), [acl.raw(), &open[..]], "the old one of the deleted node");
    assert_eq!(bed.tree.counts().acls, 2, "and it is gone from the table");
}

#[test]
fn rule_43_watches_go_with_their_connection() {
    let mut bed = bed();
    bed.create("/a");
    for i in 0..100 {
        bed.tree.watch_data(&format!("/x{i}"), A).unwrap();
    }
    bed.tree.watch_data("/a", A).unwrap();
    bed.tree.watch_data("/a", B).unwrap();
    bed.tree.add_watch("/", WatchMode::PersistentRecursive, A).unwrap();
    bed.tree.remove_conn(A);
    bed.tree.remove_conn(A);
    assert_eq!(bed.tree.watch_count(), 1);
    bed.set("/a", b"1");
    assert_eq!(bed.events(), [event(NodeDataChanged, "/a", &[2])]);
}

#[test]
fn rule_45_any_path_may_be_watched() {
    let tree = bed().tree;
    for path in ["", "x", "//", "/a/../b", "/a/"] {
        tree.add_watch(path, WatchMode::Persistent, A).unwrap();
        assert!(tree.check_watch(path, WatchKind::Persistent, A));
    }
}

#[test]
fn rule_46_wchs_leaves_out_child_watches() {
    let tree = bed().tree;
    tree.watch_children("/a", A).unwrap();
    tree.watch_data("/b", A).unwrap();
    tree.watch_data("/b", B).unwrap();
    tree.watch_data("/c", B).unwrap();
    assert_eq!(tree.watch_summary(), WatchSummary { conns: 2, paths: 2, watches: 3 });
    assert_eq!(tree.watch_count(), 4);
    let mut pairs = Vec::new();
    let next = tree.watch_pairs_step(0, |path, conn| {
        pairs.push((path.to_owned(), conn.0));
        ControlFlow::Continue(())
    });
    pairs.sort();
    assert_eq!(pairs, [("/b".into(), 1), ("/b".into(), 2), ("/c".into(), 2)]);
    assert_eq!(next, None);
    let mut shown = 0;
    let next = tree.watch_pairs_step(0, |_, _| {
        shown += 1;
        ControlFlow::Break(())
    });
    assert_eq!((shown, next), (1, None), "it stops when it is told to");
}

/// `wchs` the slow way.
fn summary_by_walking(tree: &Tree) -> WatchSummary {
    let (mut paths, mut conns, mut watches) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut from = Some(0);
    while let Some(at) = from {
        from = tree.watch_pairs_step(at, |path, conn| {
            paths.insert(path.to_owned());
            conns.insert(conn.0);
            watches += 1;
            ControlFlow::Continue(())
        });
    }
    WatchSummary { conns: conns.len(), paths: paths.len(), watches }
}

#[test]
fn what_wchs_says_is_counted_as_watches_come_and_go() {
    let mut bed = bed();
    let mut rng = crate::base::rng::Rng::new(11);
    let paths: Vec<String> = (0..6).map(|i| format!("/n{i}")).collect();
    paths.iter().for_each(|path| bed.create(path));
    for step in 0..3_000 {
        let path = &paths[rng.below(6) as usize];
        let conn = ConnId(1 + rng.below(4));
        match rng.below(7) {
            0 => bed.tree.watch_data(path, conn).unwrap(),
            1 => bed.tree.watch_children(path, conn).unwrap(),
            2 => bed.tree.add_watch(path, WatchMode::Persistent, conn).unwrap(),
            3 => bed.tree.add_watch(path, WatchMode::PersistentRecursive, conn).unwrap(),
            4 => bed.set(path, b"x"),
            5 => {
                bed.tree.remove_watch(path, [WatchKind::Any, WatchKind::Data][step % 2], conn);
            }
            _ if rng.below(8) == 0 => bed.tree.remove_conn(conn),
            _ => bed.create(&format!("{path}/{step}")),
        }
        assert_eq!(bed.tree.watch_summary(), summary_by_walking(&bed.tree), "step {step}");
    }
}

#[test]
fn the_watches_of_a_connection_go_in_steps_and_so_does_a_walk_over_them() {
    let tree = bed().tree;
    for i in 0..10_000 {
        tree.watch_data(&format!("/x{i}"), A).unwrap();
        tree.watch_data(&format!("/x{i}"), B).unwrap();
    }
    let (mut steps, mut from) = (0, Some(0));
    while let Some(at) = from {
        let mut shown = 0;
        from = tree.watch_pairs_step(at, |_, _| {
            shown += 1;
            ControlFlow::Continue(())
        });
        assert!(shown <= 1_024, "{shown} watches in one step");
        steps += 1;
    }
    assert!(steps >= 20, "{steps} steps for 20,000 watches");
    let mut left = tree.watch_count();
    while tree.remove_conn_step(A) {
        let now = tree.watch_count();
        assert!(now < left && left - now <= 1_024, "{left} watches, then {now}");
        left = now;
    }
    assert_eq!(tree.watch_count(), 10_000, "the other connection's");
    assert!(!tree.remove_conn_step(A));
}

#[test]
fn watch_limits_hold_and_rearming_never_breaks_them() {
    let watches = WatchLimits { per_conn_max: 2, total_max: 3, path_bytes_max: 8 };
    let tree = Tree::new(TreeOptions { watches, ..TreeOptions::default() });
    tree.watch_data("/a", A).unwrap();
    tree.watch_data("/b", A).unwrap();
    assert_eq!(tree.watch_data("/c", A), Err(WatchLimit::PerConn { max: 2 }));
    tree.watch_children("/a", A).unwrap();
    tree.add_watch("/b", WatchMode::Persistent, A).unwrap();
    assert_eq!(tree.watch_data("/long", B), Err(WatchLimit::PathBytes { max: 8 }));
    tree.watch_data("/a", B).unwrap();
    assert_eq!(tree.watch_data("/b", B), Err(WatchLimit::Total { max: 3 }));
    tree.remove_conn(A);
    tree.watch_data("/b", B).unwrap();
}

#[test]
fn a_session_takes_its_nodes_along_in_the_order_of_the_list() {
    let mut bed = bed();
    assert_eq!(bed.run(Txn::CreateSession { timeout_ms: 5000 }), Outcome::SessionCreated);
    assert_eq!(bed.tree.session_timeout(SessionId(SESSION)), Some(5000));
    for path in ["/b", "/a", "/c"] {
        bed.create_as(path, None, Lifetime::Ephemeral);
    }
    bed.tree.add_watch("/", WatchMode::PersistentRecursive, A).unwrap();
    let list = strings(&["/c", "/a", "/not-there"]);
    let paths = Some(StrVec::read(&mut Reader::new(&list)).unwrap());
    assert_eq!(bed.run(Txn::CloseSession { paths }), Outcome::SessionClosed);
    let told: Vec<_> = ["/c", "/a", "/b"].map(|path| event(NodeDeleted, path, &[1])).into();
    assert_eq!(bed.events(), told, "the list first, then what it forgot");
    assert_eq!(bed.tree.session_timeout(SessionId(SESSION)), None);
    assert_eq!((bed.tree.ephemeral_count(SessionId(SESSION)), bed.tree.node_count()), (0, 5));
}

#[test]
fn a_multi_has_one_zxid_and_fires_part_by_part() {
    let mut bed = bed();
    bed.create("/a");
    bed.tree.add_watch("/", WatchMode::PersistentRecursive, A).unwrap();
    let create = CreateTxn {
        path: "/a/b",
        data: None,
        acl: AclVec::NULL,
        lifetime: Lifetime::Persistent,
        parent_cversion: 1,
    };
    let set = |data| Txn::SetData { path: "/a", data: Some(data), version: 1 };
    let body = multi(&[
        (kind::CREATE, Txn::Create(create)),
        (kind::CHECK, Txn::Check { path: "/a", version: 1 }),
        (kind::SET_DATA, set(b"1")),
        (kind::SET_DATA, set(b"22")),
        (kind::DELETE, Txn::Delete { path: "/a/b" }),
    ]);
    let Outcome::Multi(parts) = bed.run(Txn::read(kind::MULTI, &mut Reader::new(&body)).unwrap()) else {
        panic!()
    };
    assert!(matches!(
        parts[..],
        [Outcome::Created(_), Outcome::Checked, Outcome::DataSet(_), Outcome::DataSet(_), Outcome::Deleted]
    ));
    assert_eq!(bed.tree.find("/a").unwrap().data(), Some(&b"22"[..]));
    let expected =
        [(NodeCreated, "/a/b"), (NodeDataChanged, "/a"), (NodeDataChanged, "/a"), (NodeDeleted, "/a/b")];
    assert_eq!(bed.events(), expected.map(|(e, path)| event(e, path, &[1])));
}

#[test]
fn a_failed_multi_changes_nothing_and_blames_one_part() {
    let mut bed = bed();
    let body = multi(&[
        (kind::DELETE, Txn::Delete { path: "/zookeeper/config" }),
        (kind::ERROR, Txn::Error { err: -101 }),
        (kind::DELETE, Txn::Delete { path: "/zookeeper/quota" }),
        (kind::ERROR, Txn::Error { err: -2 }),
    ]);
    let outcome = bed.run(Txn::read(kind::MULTI, &mut Reader::new(&body)).unwrap());
    assert_eq!(outcome, Outcome::Multi([0, -101, -2, -2].map(Outcome::Failed).into()));
    assert_eq!(bed.tree.node_count(), 5);
    let empty = multi(&[]);
    let outcome = bed.run(Txn::read(kind::MULTI, &mut Reader::new(&empty)).unwrap());
    assert_eq!(outcome, Outcome::Multi(Vec::new()));
}

#[test]
fn a_quota_counts_its_root_and_all_below_without_touching_versions() {
    let mut bed = bed();
    bed.create("/q");
    bed.set("/q", b"12345");
    bed.create("/q/a");
    for path in ["/zookeeper/quota/q", "/zookeeper/quota/q/zookeeper_limits"] {
        bed.create(path);
    }
    let limits = "/zookeeper/quota/q/zookeeper_limits";
    bed.set(limits, b"count=3,bytes=-1=;byteHardLimit=10");
    bed.create("/zookeeper/quota/q/zookeeper_stats");
    let used = |bed: &Bed| {
        let quota = bed.tree.quota_for("/q/a/deeper").unwrap();
        let (limits, used) = (quota.limits.expect("readable"), quota.used.expect("a stats node"));
        assert_eq!((quota.path, limits.count, limits.bytes_hard), ("/q", 3, 10));
        (used.count, used.bytes)
    };
    assert_eq!(used(&bed), (2, 5));
    let digest = bed.tree.digest();
    let stats = bed.tree.find("/zookeeper/quota/q/zookeeper_stats").unwrap().persisted();
    bed.set("/q/a", b"123");
    assert_eq!(used(&bed), (2, 8));
    bed.create("/q/b");
    assert_eq!(used(&bed), (3, 8));
    bed.delete("/q/a");
    assert_eq!(used(&bed), (2, 5));
    assert_ne!(bed.tree.digest(), digest);
    let node = bed.tree.find("/zookeeper/quota/q/zookeeper_stats").unwrap();
    assert_eq!((node.persisted(), node.data()), (stats, Some(&b"count=2,bytes=5"[..])));
    bed.delete(limits);
    assert_eq!((bed.tree.quota_for("/q"), bed.tree.quotas().count()), (None, 0));
}

#[test]
fn containers_and_ttl_nodes_are_reaped_when_their_time_has_come() {
    let mut bed = bed();
    bed.create_as("/never", None, Lifetime::Container);
    bed.create_as("/used", None, Lifetime::Container);
    bed.create_as("/full", None, Lifetime::Container);
    bed.create_as("/ttl", None, Lifetime::Ttl(500));
    for path in ["/used/x", "/full/x"] {
        bed.create(path);
    }
    bed.delete("/used/x");
    let reapable = |bed: &Bed, now, never| {
        let mut paths = bed.tree.reapable(WallMs(now), never);
        paths.sort();
        paths
    };
    assert_eq!(reapable(&bed, 1100, 0), ["/used"]);
    assert_eq!(reapable(&bed, 9000, 0), ["/ttl", "/used"]);
    assert_eq!(reapable(&bed, 9000, 300), ["/never", "/ttl", "/used"]);
    bed.create("/ttl/child");
    assert_eq!(reapable(&bed, 9000, 0), ["/used"]);
    let counts = bed.tree.counts();
    assert_eq!((counts.containers, counts.ttls, counts.ephemerals), (3, 1, 0));
}

#[test]
fn a_digest_that_is_not_the_trees_is_reported_and_the_first_is_kept() {
    let mut bed = bed();
    for zxid in 1..=3 {
        let header = TxnHeader { zxid, ..TxnHeader::default() };
        let digest = Some(TxnDigest { version: 2, digest: if zxid == 1 { bed.tree.digest() } else { 7 } });
        bed.fired.clear();
        bed.tree.apply(&Proposal { header, txn: Txn::Error { err: -1 }, digest }, &mut bed.fired);
        let found = bed.tree.digest();
        let mismatch = DigestMismatch { zxid: Zxid(zxid as u64), expected: 7, found };
        assert_eq!(bed.fired.digest_mismatch(), (zxid > 1).then_some(mismatch));
    }
    assert_eq!(bed.tree.digest_mismatches(), 2);
    assert_eq!(bed.tree.first_digest_mismatch().unwrap().zxid, Zxid(2));
}

#[test]
fn the_digest_log_keeps_every_128th_and_the_last_1024() {
    let mut bed = bed();
    for zxid in 1..=(128 * 1030) {
        let header = TxnHeader { zxid, ..TxnHeader::default() };
        bed.tree.apply(&Proposal { header, txn: Txn::Error { err: -1 }, digest: None }, &mut bed.fired);
    }
    let log: Vec<_> = bed.tree.digest_log().collect();
    assert_eq!((log.len(), log[0].0, log[1023].0), (1024, Zxid(128 * 7), Zxid(128 * 1030)));
}

#[test]
fn a_node_deleted_in_replay_takes_its_later_children_along() {
    let mut bed = bed();
    bed.create("/a");
    bed.create("/a/b");
    bed.create("/a/b/c");
    bed.delete("/a");
    assert_eq!((bed.tree.node_count(), bed.tree.find("/").unwrap().child_count()), (5, 1));
}

/// Nodes that `f` looked at.
fn looked_at<R>(f: impl FnOnce() -> R) -> (R, u64) {
    let before = slab::LOOKED_AT.get();
    let result = f();
    (result, slab::LOOKED_AT.get() - before)
}

#[test]
fn how_much_is_below_a_node_is_known_without_looking_there() {
    let mut bed = bed();
    for path in ["/q", "/q/a", "/q/a/b", "/zookeeper/quota/q", "/zookeeper/quota/q/zookeeper_limits"] {
        bed.create(path);
    }
    for i in 0..2_000 {
        bed.create_as(&format!("/q/a/b/n{i}"), Some(b"12345"), Lifetime::Persistent);
    }
    bed.set("/q/a/b/n7", b"1234567");
    bed.delete("/q/a/b/n8");
    let (number, steps) = looked_at(|| bed.tree.find("/q").unwrap().descendants());
    assert_eq!(number, 2_001);
    assert!(steps < 20, "{steps} nodes were looked at");
    let (_, steps) = looked_at(|| bed.create("/zookeeper/quota/q/zookeeper_stats"));
    assert!(steps < 100, "{steps} nodes were looked at");
    let used = bed.tree.quota_for("/q").unwrap().used.expect("a stats node");
    assert_eq!((used.count, used.bytes), (2_002, 5 * 1_999 + 2));
}

#[test]
fn ephemerals_and_sessions_and_what_may_be_due_are_walked_in_steps_that_find_their_place_again() {
    let mut bed = bed();
    bed.create("/e");
    for i in 0..1_200 {
        bed.create_as(&format!("/e/n{i}"), None, Lifetime::Ephemeral);
    }
    for (i, lifetime) in [Lifetime::Container, Lifetime::Ttl(1)].into_iter().cycle().take(1_200).enumerate() {
        bed.create_as(&format!("/r{i}"), None, lifetime);
    }
    for id in [-5, 7].into_iter().chain(100..700) {
        let zxid = bed.tree.applied().0 as i64 + 1;
        let header = TxnHeader { client_id: id, cxid: 1, zxid, time_ms: 0, kind: 0 };
        let txn = Txn::CreateSession { timeout_ms: 9 };
        bed.tree.apply(&Proposal { header, txn, digest: None }, &mut bed.fired);
    }
    let (mut paths, mut at, mut steps) = (BTreeSet::new(), None, 0);
    loop {
        at = bed.tree.ephemerals_step(at, |session, path| {
            assert_eq!(session, SessionId(SESSION));
            assert!(paths.insert(path.to_owned()), "{path} comes once");
            ControlFlow::Continue(())
        });
        steps += 1;
        assert!(paths.len() <= steps * WALK_STEP_MAX);
        if at.is_none() {
            break;
        }
        // What was shown last goes: the walk goes on behind it all the same.
        bed.delete(&paths.last().unwrap().clone());
    }
    assert_eq!((paths.len(), steps), (1_200, 3));
    let (mut due, mut at, mut steps) = (Vec::new(), None, 0);
    loop {
        at = bed.tree.reapable_step(at, WallMs(i64::MAX), 1, &mut due);
        steps += 1;
        assert!(due.len() <= steps * WALK_STEP_MAX);
        if at.is_none() {
            break;
        }
    }
    assert_eq!((due.len(), due.iter().collect::<BTreeSet<_>>().len(), steps), (1_200, 1_200, 3));
    let first: Vec<SessionId> = bed.tree.sessions_after(None).collect();
    let rest: Vec<SessionId> = bed.tree.sessions_after(first.last().copied()).collect();
    assert_eq!((first[0], first.len(), rest.len()), (SessionId(-5), WALK_STEP_MAX, 602 - WALK_STEP_MAX));
    assert_eq!(bed.tree.ephemeral_owner_count(), 1);
}

#[test]
fn an_image_begins_and_ends_without_looking_at_acls_and_sessions_and_takes_them_in_steps() {
    let mut bed = bed();
    let sessions = |bed: &mut Bed, ids: std::ops::Range<i64>, txn: &dyn Fn() -> Txn<'static>| {
        for id in ids {
            let zxid = bed.tree.applied().0 as i64 + 1;
            let header = TxnHeader { client_id: id, cxid: 1, zxid, time_ms: 0, kind: 0 };
            bed.tree.apply(&Proposal { header, txn: txn(), digest: None }, &mut bed.fired);
        }
    };
    let acl = |bed: &mut Bed, path: &str, id: &str| {
        let bytes = acls::encode([Acl { perms: perms::READ, scheme: Some("ip"), id: Some(id) }]);
        let acl = AclVec::of_encoded(&bytes);
        assert!(matches!(bed.run(Txn::SetAcl { path, acl, version: 1 }), Outcome::AclSet(_)));
    };
    for i in 0..3_000 {
        bed.create(&format!("/n{i}"));
        acl(&mut bed, &format!("/n{i}"), &format!("was {i}"));
    }
    sessions(&mut bed, 0..3_000, &|| Txn::CreateSession { timeout_ms: 5 });
    let (mut image, steps) = looked_at(|| bed.tree.begin_image());
    assert!(steps < 10, "{steps} looks to begin");
    let (mut chunks, mut round) = (Vec::new(), 0);
    let acls_before = bed.tree.counts().acls;
    loop {
        let mut out = Vec::new();
        let (kind, steps) = looked_at(|| bed.tree.image_chunk(&mut image, &mut out, 4_096));
        assert!(steps < 2_000, "{steps} looks in one step");
        let Some(kind) = kind else { break };
        assert!(out.len() < 4_096 + 200 || kind == ChunkKind::Header, "{} bytes of {kind:?}", out.len());
        chunks.push((kind, out));
        // Lists go, their places are used again, others come; sessions end, begin again with another timeout, begin afresh.
        for i in (round % 7..3_000).step_by(500) {
            acl(&mut bed, &format!("/n{i}"), &format!("round {round}"));
        }
        sessions(&mut bed, round * 30..round * 30 + 20, &|| Txn::CloseSession { paths: None });
        sessions(&mut bed, round * 30..round * 30 + 10, &|| Txn::CreateSession { timeout_ms: 6 });
        sessions(&mut bed, 2_900 - round..2_901 - round, &|| Txn::CloseSession { paths: None });
        sessions(&mut bed, 5_000 + round..5_001 + round, &|| Txn::CreateSession { timeout_ms: 7 });
        round += 1;
    }
    assert!(round > 20, "{round} rounds");
    let (rest, steps) = looked_at(|| bed.tree.end_image(image));
    assert_eq!(steps, 0);
    drop(rest);
    let loader = Loader::new(TreeOptions { extended_types: true, ..TreeOptions::default() });
    chunks.iter().for_each(|(kind, bytes)| loader.chunk(*kind, bytes).unwrap());
    let loaded = loader.finish().unwrap();
    assert!(loaded.sessions().eq((0..3_000).map(|id| (SessionId(id), 5))));
    assert_eq!(loaded.counts().acls, acls_before);
    for i in 0..3_000 {
        let node = loaded.find(&format!("/n{i}")).unwrap();
        let was = format!("was {i}");
        assert_eq!(loaded.acl(node.acl_id()).iter().next().unwrap().id, Some(&*was));
    }
}
