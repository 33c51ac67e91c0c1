//! Streams of random states, taken while they change, cut anywhere and damaged; and one as ZooKeeper writes it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::super::{PrepareOptions, SharedTree};
use super::*;
use crate::base::rng::Rng;
use crate::base::{SessionId, Zxid};
use crate::testing::world::{Client, World, body};
use crate::tree::{
    AclId, ChunkKind, Fired, IMAGES_MAX, Loader, Misplaced, NodeRef, Tree, TreeCounts, TreeOptions,
};
use crate::wire::jute::PutJute;
use crate::wire::txn::{CreateTxn, Lifetime, Proposal, Txn, TxnHeader};
use crate::wire::{Acl, AclVec, OpCode, StatPersisted, perms, put_acl_vec};

fn options() -> TreeOptions {
    TreeOptions { seed: 5, extended_types: true, ..TreeOptions::default() }
}

impl SharedTree for RefCell<World> {
    fn write<R>(&self, f: impl FnOnce(&mut Tree) -> R) -> R {
        f(&mut self.borrow_mut().tree)
    }

    fn read<R>(&self, f: impl FnOnce(&Tree) -> R) -> R {
        f(&self.borrow().tree)
    }
}

/// By path: stat, data, ACL, nodes below.
type Nodes = BTreeMap<String, (StatPersisted, Option<Vec<u8>>, Vec<u8>, u64)>;

/// Everything that a stream must bring over.
#[derive(Debug, PartialEq, Eq)]
struct Dump {
    applied: Zxid,
    digest: u64,
    counts: TreeCounts,
    nodes: Nodes,
    sessions: Vec<(SessionId, i32)>,
    ephemerals: BTreeMap<i64, Vec<String>>,
    quotas: BTreeMap<String, String>,
    reapable: Vec<String>,
}

impl Dump {
    fn of(tree: &Tree) -> Dump {
        let mut nodes = BTreeMap::new();
        collect(tree, tree.find("/").unwrap(), &mut nodes);
        let ephemerals = tree.ephemeral_owners().map(|session| {
            let mut paths = Vec::new();
            tree.ephemeral_paths(session, |path| paths.push(path.to_owned()));
            paths.sort();
            (session.0, paths)
        });
        let mut reapable = tree.reapable(crate::base::WallMs(i64::MAX), 1);
        reapable.sort();
        Dump {
            applied: tree.applied(),
            digest: tree.digest(),
            counts: tree.counts(),
            nodes,
            sessions: tree.sessions().collect(),
            ephemerals: ephemerals.collect(),
            quotas: tree.quotas().map(|quota| (quota.path.to_owned(), format!("{quota:?}"))).collect(),
            reapable,
        }
    }
}

fn collect(tree: &Tree, node: NodeRef<'_>, nodes: &mut Nodes) {
    let acl = tree.acl(node.acl_id()).raw().to_vec();
    let whole = (node.persisted(), node.data().map(<[u8]>::to_vec), acl, node.descendants());
    assert_eq!(tree.find(&node.path()).unwrap().persisted(), whole.0);
    nodes.insert(node.path(), whole);
    node.child_nodes().for_each(|child| collect(tree, child, nodes));
}

fn assert_same(found: &Dump, expected: &Dump) {
    for (path, node) in &expected.nodes {
        assert_eq!(found.nodes.get(path), Some(node), "{path}");
    }
    assert_eq!(found, expected);
}

/// Clients that do anything.
struct Crowd {
    rng: Rng,
    clients: Vec<Client>,
}

impl Crowd {
    fn path(&mut self) -> String {
        let depth = 1 + self.rng.below(4);
        (0..depth).map(|_| format!("/{}", ["a", "b", "c", "dd", "é"][self.rng.below(5) as usize])).collect()
    }

    fn any_path(&mut self, world: &World) -> String {
        if self.rng.one_in(3) {
            return self.path();
        }
        let mut nodes = BTreeMap::new();
        collect(&world.tree, world.tree.find("/").unwrap(), &mut nodes);
        let at = self.rng.below(nodes.len() as u64) as usize;
        nodes.into_keys().nth(at).unwrap()
    }

    fn acl(&mut self) -> Vec<u8> {
        match self.rng.below(4) {
            0 | 1 => body::acl(&[(perms::ALL, "world", "anyone")]),
            2 => body::acl(&[(perms::ALL, "ip", "127.0.0.1"), (perms::READ, "world", "anyone")]),
            _ => {
                let mask = format!("10.{}.0.0/16", self.rng.below(9));
                body::acl(&[(perms::ALL, "world", "anyone"), (perms::ADMIN, "ip", &mask)])
            }
        }
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let len = self.rng.below(60) as usize;
        (!self.rng.one_in(5)).then(|| vec![self.rng.below(256) as u8; len])
    }

    fn quota(&mut self, world: &mut World, client: &Client) {
        let root = self.path();
        let mut at = "/zookeeper/quota".to_owned();
        for name in root.split('/').skip(1) {
            at = format!("{at}/{name}");
            world.write(client, OpCode::Create, &body::create(&at, 0));
        }
        let open = body::acl(&[(perms::ALL, "world", "anyone")]);
        let limits =
            body::create_with(&format!("{at}/zookeeper_limits"), Some(b"count=9,bytes=-1"), 0, &open);
        world.write(client, OpCode::Create, &limits);
        if !self.rng.one_in(3) {
            let stats = body::create_with(&format!("{at}/zookeeper_stats"), Some(b""), 0, &open);
            world.write(client, OpCode::Create, &stats);
        }
    }

    fn one(&mut self, world: &mut World) {
        if self.clients.len() < 2 || self.rng.one_in(60) {
            self.clients.push(world.client());
        }
        let at = self.rng.below(self.clients.len() as u64) as usize;
        let client = self.clients[at].clone();
        match self.rng.below(40) {
            0 if self.clients.len() > 2 => {
                self.clients.swap_remove(at);
                world.write(&client, OpCode::CloseSession, &[]);
            }
            1 => self.quota(world, &client),
            2..=20 => {
                let (mut path, data, acl) = (self.path(), self.data(), self.acl());
                let flags = [0, 0, 0, 1, 2, 3][self.rng.below(6) as usize];
                if flags & 2 != 0 {
                    path.push_str("/s-");
                }
                world.write(&client, OpCode::Create, &body::create_with(&path, data.as_deref(), flags, &acl));
            }
            21 => drop(world.write(&client, OpCode::CreateContainer, &body::create(&self.path(), 4))),
            22 => drop(world.write(&client, OpCode::CreateTtl, &body::create_ttl(&self.path(), 5, 77))),
            23..=31 => {
                let path = self.any_path(world);
                world.write(&client, OpCode::Delete, &body::path_int(&path, -1));
            }
            32..=36 => {
                let (path, data) = (self.any_path(world), self.data());
                world.write(&client, OpCode::SetData, &body::set_data(&path, data.as_deref(), -1));
            }
            _ => {
                let (path, acl) = (self.any_path(world), self.acl());
                world.write(&client, OpCode::SetAcl, &body::set_acl(&path, &acl, -1));
            }
        }
    }
}

fn world() -> World {
    World::new(PrepareOptions { extended_types: true, ..PrepareOptions::default() })
}

/// The stream of a tree that holds still.
fn stream_of(tree: &impl SharedTree) -> Vec<u8> {
    let (mut source, mut out) = (SnapSource::begin(tree).expect("few images"), Vec::new());
    while source.step(tree, &mut out) {}
    let (done, all) = source.progress();
    assert_eq!(done, all);
    source.finish(tree);
    out
}

/// Takes what the sink has for others.
fn drain(sink: &mut SnapSink, chunks: &mut Vec<(ChunkKind, Vec<u8>)>) {
    while let Some((kind, bytes)) = sink.chunk() {
        chunks.push((kind, bytes.to_vec()));
        sink.taken(kind);
    }
}

/// The tree that a whole stream makes: what was taken loads.
fn finish(
    mut sink: SnapSink,
    mut chunks: Vec<(ChunkKind, Vec<u8>)>,
    zxid: Zxid,
) -> Result<Tree, SnapStreamError> {
    drain(&mut sink, &mut chunks);
    let end = sink.finish()?;
    let loader = Loader::new(options());
    loader.chunk(ChunkKind::Header, &end.header).expect("a header");
    chunks.iter().for_each(|(kind, bytes)| loader.chunk(*kind, bytes).expect("what was taken loads"));
    let mut tree = loader.finish().expect("what was taken loads");
    assert_eq!((tree.applied(), tree.digest()), (zxid, end.digest));
    assert_eq!(tree.node_count() as u64, end.node_count);
    if end.zxid_end > zxid {
        tree.count_usage();
    }
    Ok(tree)
}

/// Feeds `stream` in pieces, as a receive buffer would.
fn receive(
    stream: &[u8],
    zxid: Zxid,
    mut piece: impl FnMut() -> usize,
) -> Result<(Tree, usize), SnapStreamError> {
    let (mut sink, mut chunks) = (SnapSink::new(zxid, options(), 300), Vec::new());
    let (mut from, mut to, mut needed) = (0, 0, 0);
    loop {
        while to - from >= needed {
            match sink.feed(&stream[from..to])? {
                Feed::Done { consumed } => {
                    return finish(sink, chunks, zxid).map(|tree| (tree, from + consumed));
                }
                Feed::Chunk { consumed } => {
                    from += consumed;
                    // It goes on where it was.
                    needed = 0;
                    let before = chunks.len();
                    drain(&mut sink, &mut chunks);
                    assert!(chunks.len() > before, "as it said");
                }
                Feed::More { consumed, need } => {
                    from += consumed;
                    needed = need;
                    assert!(need > to - from, "more than there is");
                }
            }
            assert_eq!(sink.progress().bytes, from as u64);
        }
        if to == stream.len() {
            return Err(SnapStreamError::Incomplete);
        }
        to = stream.len().min(to + piece().max(1));
    }
}

#[test]
fn ss1_a_stream_taken_while_transactions_go_on_is_the_state_at_its_beginning() {
    let (mut ahead, mut changed) = (0, 0);
    for seed in 0..60 {
        let shared = RefCell::new(world());
        let mut crowd = Crowd { rng: Rng::new(seed), clients: Vec::new() };
        for _ in 0..seed * 12 {
            crowd.one(&mut shared.borrow_mut());
        }
        let expected = shared.read(Dump::of);
        let step_bytes = 1 + crowd.rng.below(400) as usize;
        let mut source = SnapSource::begin_in_steps(&shared, step_bytes).expect("few images");
        assert_eq!(source.zxid(), expected.applied);
        let (mut stream, rate) = (Vec::new(), crowd.rng.below(20));
        while source.step(&shared, &mut stream) {
            ahead += u32::from(source.is_ahead());
            for _ in 0..crowd.rng.below(rate + 1) {
                crowd.one(&mut shared.borrow_mut());
            }
        }
        assert!(!source.step(&shared, &mut stream), "complete stays complete");
        source.finish(&shared);
        changed += u32::from(shared.borrow().tree.digest() != expected.digest);
        stream.extend_from_slice(b"what follows");
        let (tree, consumed) =
            receive(&stream, expected.applied, || crowd.rng.below(90) as usize).expect("a stream of ours");
        assert_eq!(&stream[consumed..], b"what follows");
        assert_same(&Dump::of(&tree), &expected);
        assert!(shared.read(Tree::images_under_way) == 0);
    }
    assert!(ahead > 20 && changed > 30, "{ahead} nodes fetched ahead, {changed} trees changed meanwhile");
}

#[test]
fn ss2_children_in_lower_slots_than_their_parents_come_behind_them_and_are_not_held_back() {
    let shared = RefCell::new(world());
    let client = shared.borrow_mut().client();
    let write = |op, body: &[u8]| drop(shared.borrow_mut().must(&client, op, body));
    write(OpCode::Create, &body::create("/old", 0));
    for i in 0..4_000 {
        write(OpCode::Create, &body::create(&format!("/old/n{i}"), 0));
    }
    // Far up: each comes before its parent later on.
    let deep: Vec<String> = (1..40).map(|depth| "/d".repeat(depth)).collect();
    deep.iter().for_each(|path| write(OpCode::Create, &body::create(path, 0)));
    for i in 0..4_000 {
        write(OpCode::Delete, &body::path_int(&format!("/old/n{i}"), -1));
    }
    for i in 0..2_000 {
        let path = format!("{}/n{i}", deep[i % deep.len()]);
        write(OpCode::Create, &body::create(&path, 0));
    }
    let expected = shared.read(Dump::of);
    let (mut source, mut stream) = (SnapSource::begin_in_steps(&shared, 3_000).unwrap(), Vec::new());
    let mut sizes = Vec::new();
    while source.step(&shared, &mut stream) {
        sizes.push(stream.len());
        assert!(source.kept_bytes() < 30_000, "{} bytes kept", source.kept_bytes());
    }
    assert!(sizes.windows(2).all(|two| two[1] - two[0] < 3_400), "steps are short");
    source.finish(&shared);
    let (tree, _) = receive(&stream, expected.applied, || 4_096).expect("a stream of ours");
    assert_same(&Dump::of(&tree), &expected);
}

fn run(tree: &impl SharedTree, txn: Txn<'_>) {
    tree.write(|tree| {
        let header = TxnHeader { zxid: tree.applied().next().0 as i64, ..TxnHeader::default() };
        tree.apply(&Proposal { header, txn, digest: None }, &mut Fired::new());
    });
}

fn create(path: &str, parent_cversion: i32) -> Txn<'_> {
    let (data, acl, lifetime) = (Some(&b"x"[..]), AclVec::NULL, Lifetime::Persistent);
    Txn::Create(CreateTxn { path, data, acl, lifetime, parent_cversion })
}

#[test]
fn parents_whose_cversion_says_nothing_of_their_children_are_known_all_the_same() {
    let paths = ["/p", "/p/q", "/p/q/r", "/p/q/s"];
    let by_transactions = || {
        let tree = RwLock::new(Tree::new(options()));
        paths.into_iter().for_each(|path| run(&tree, create(path, 0)));
        tree
    };
    // Deletions leave parents alone whose pzxid is of a later time.
    let by_a_fuzzy_stream = || {
        let late = StatPersisted { pzxid: 1_000, ..born(1) };
        let java =
            paths.iter().fold(Java::begin().with_reserved(), |java, path| java.node(path, None, -1, late));
        RwLock::new(receive(&java.end(), Zxid(9), || 50).expect("a stream of ZooKeeper's").0)
    };
    for (shared, gone_meanwhile) in [
        (by_transactions(), false),
        (by_transactions(), true),
        (by_a_fuzzy_stream(), false),
        (by_a_fuzzy_stream(), true),
    ] {
        let expected = SharedTree::read(&shared, Dump::of);
        let (mut source, mut stream) = (SnapSource::begin_in_steps(&shared, 1).unwrap(), Vec::new());
        // The root is written, nothing else.
        while source.progress().0 == 0 {
            assert!(source.step(&shared, &mut stream));
        }
        if gone_meanwhile {
            paths.into_iter().rev().for_each(|path| run(&shared, Txn::Delete { path }));
            run(&shared, create("/other", 1));
            assert!(shared.read().find("/p").is_none());
        }
        while source.step(&shared, &mut stream) {}
        source.finish(&shared);
        let (tree, _) = receive(&stream, expected.applied, || 7).expect("a stream of ours");
        assert_same(&Dump::of(&tree), &expected);
    }
}

#[test]
fn streams_and_snapshots_go_on_at_once_and_one_too_many_is_refused() {
    let shared = RefCell::new(world());
    let mut crowd = Crowd { rng: Rng::new(9), clients: Vec::new() };
    let mut under_way = Vec::new();
    while let Some(source) = SnapSource::begin_in_steps(&shared, 50) {
        under_way.push((source, Vec::new(), shared.read(Dump::of)));
        (0..25).for_each(|_| crowd.one(&mut shared.borrow_mut()));
    }
    assert_eq!(under_way.len(), IMAGES_MAX - 1, "one is left for the disk");
    let disk = shared.write(Tree::begin_image);
    // The first and the third are given up; the others do not care.
    under_way.swap_remove(2).0.abort(&shared);
    under_way.swap_remove(0).0.abort(&shared);
    while !under_way.is_empty() {
        let at = crowd.rng.below(under_way.len() as u64) as usize;
        crowd.one(&mut shared.borrow_mut());
        let (source, stream, _) = &mut under_way[at];
        if !source.step(&shared, stream) {
            let (source, stream, expected) = under_way.swap_remove(at);
            source.finish(&shared);
            let (tree, _) = receive(&stream, expected.applied, || 999).expect("a stream of ours");
            assert_same(&Dump::of(&tree), &expected);
        }
    }
    drop(shared.write(|tree| tree.end_image(disk)));
    assert_eq!(shared.read(Tree::images_under_way), 0);
}

fn small_stream() -> (Vec<u8>, Dump) {
    let shared = RefCell::new(world());
    let mut crowd = Crowd { rng: Rng::new(77), clients: Vec::new() };
    (0..150).for_each(|_| crowd.one(&mut shared.borrow_mut()));
    (stream_of(&shared), shared.read(Dump::of))
}

#[test]
fn ss4_a_stream_cut_short_anywhere_is_never_complete_and_asks_for_what_is_missing() {
    let (stream, expected) = small_stream();
    for len in 0..stream.len() {
        let mut sink = SnapSink::new(expected.applied, options(), 1 << 20);
        let Ok(Feed::More { consumed, need }) = sink.feed(&stream[..len]) else { panic!("{len}") };
        assert!(consumed + need > len && consumed + need <= stream.len(), "{len}: {consumed} + {need}");
        // What it asks for is enough for it to come further, and nothing less is.
        let more = sink.feed(&stream[consumed..consumed + need]).unwrap();
        assert_ne!(more, Feed::More { consumed: 0, need }, "{len}");
        let mut sink = SnapSink::new(expected.applied, options(), 1 << 20);
        sink.feed(&stream[..len]).unwrap();
        assert_eq!(sink.finish().unwrap_err(), SnapStreamError::Incomplete);
    }
    let (tree, consumed) = receive(&stream, expected.applied, || 1).expect("byte by byte");
    assert_eq!(consumed, stream.len());
    assert_same(&Dump::of(&tree), &expected);
}

#[test]
fn ss4_damaged_streams_are_refused_or_become_trees_but_never_panic() {
    let (stream, expected) = small_stream();
    let (mut rng, mut taken) = (Rng::new(3), 0);
    for _ in 0..3_000 {
        let mut bytes = stream.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64 * 8) as usize;
            bytes[at / 8] ^= 1 << (at % 8);
        }
        if let Ok((tree, _)) = receive(&bytes, expected.applied, || rng.below(3_000) as usize) {
            let shared = RwLock::new(tree);
            let again = stream_of(&shared);
            let (twin, _) = receive(&again, expected.applied, || 5_000).expect("what was taken can be sent");
            assert_eq!((twin.digest(), twin.counts()), (shared.read().digest(), shared.read().counts()));
            taken += 1;
        }
    }
    assert!(taken > 500, "{taken}: most flips are in data and stats");
}

/// Bytes put together as ZooKeeper's `DataTree.serialize` and `SerializeUtils.serializeSnapshot` do.
struct Java(Vec<u8>);

impl Java {
    /// Two sessions, ACLs 1 and 5: numbers have gaps where lists have gone.
    fn begin() -> Java {
        let mut out = Vec::new();
        out.put_int(2);
        for (session, timeout_ms) in [(0x0200_0000_0000_0007, 30_000), (0x0100_0000_0000_0001, 4_000)] {
            out.put_long(session);
            out.put_int(timeout_ms);
        }
        out.put_int(2);
        out.put_long(5);
        put_acl_vec(&mut out, [Acl { perms: perms::ALL, scheme: Some("digest"), id: Some("u:h=") }]);
        out.put_long(1);
        put_acl_vec(&mut out, [Acl { perms: perms::READ, scheme: Some("world"), id: Some("anyone") }]);
        Java(out)
    }

    fn node(mut self, path: &str, data: Option<&[u8]>, acl: i64, stat: StatPersisted) -> Java {
        self.0.put_ustring(path);
        self.0.put_buffer(data);
        self.0.put_long(acl);
        stat.put(&mut self.0);
        self
    }

    /// The nodes that are always there.
    fn with_reserved(self) -> Java {
        let none = StatPersisted::default();
        self.node("", Some(b""), -1, StatPersisted { cversion: 1, pzxid: 4, ..none })
            .node("/zookeeper", Some(b""), -1, none)
            .node(
                "/zookeeper/config",
                Some(b"version=0"),
                1,
                StatPersisted { version: -1, aversion: -1, ..none },
            )
            .node("/zookeeper/quota", Some(b""), -1, none)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.put_ustring("/");
        self.0.put_ustring("BenWasHere");
        self.0
    }
}

fn born(zxid: i64) -> StatPersisted {
    StatPersisted { czxid: zxid, mzxid: zxid, pzxid: zxid, ctime: 9, mtime: 9, ..StatPersisted::default() }
}

fn refused(stream: &[u8]) -> SnapStreamError {
    receive(stream, Zxid(9), || 50).expect_err("it is no stream")
}

#[test]
fn a_stream_of_zookeepers_becomes_the_tree_that_it_was() {
    let owner = 0x0200_0000_0000_0007;
    let stream = Java::begin()
        .with_reserved()
        .node("/app", None, 5, StatPersisted { cversion: 2, pzxid: 4, ..born(2) })
        .node("/app/lock", Some(b"me"), -1, StatPersisted { ephemeral_owner: owner, ..born(3) })
        .node("/app/box", Some(b""), 5, StatPersisted { ephemeral_owner: i64::MIN, ..born(4) })
        .end();
    let mut sink = SnapSink::new(Zxid(9), options(), 1 << 20);
    assert_eq!(sink.feed(&stream), Ok(Feed::Done { consumed: stream.len() }));
    let bytes = stream.len() as u64;
    assert_eq!((sink.zxid_end(), sink.progress()), (Zxid(9), SnapProgress { nodes: 7, bytes }));
    let tree = finish(sink, Vec::new(), Zxid(9)).expect("whole");
    assert_eq!((tree.applied(), tree.node_count()), (Zxid(9), 8));
    let sessions: Vec<_> = tree.sessions().map(|(session, timeout_ms)| (session.0, timeout_ms)).collect();
    assert_eq!(sessions, [(0x0100_0000_0000_0001, 4_000), (0x0200_0000_0000_0007, 30_000)]);
    let counts = tree.counts();
    assert_eq!((counts.ephemerals, counts.containers, counts.acls), (1, 1, 3));
    let app = tree.find("/app").unwrap();
    assert_eq!((app.data(), app.stat().cversion, app.child_count()), (None, 2, 2));
    assert_eq!(tree.acl(app.acl_id()).iter().next().unwrap().scheme, Some("digest"));
    let lock = tree.find("/app/lock").unwrap();
    assert_eq!((lock.stat().ephemeral_owner, lock.acl_id()), (owner, AclId::OPEN));
    let config = tree.find("/zookeeper/config").unwrap();
    assert_eq!((config.data(), config.stat().version), (Some(&b"version=0"[..]), -1));
    assert_eq!(tree.acl(config.acl_id()).iter().next().unwrap().perms, perms::READ);
    let digest_of = |path, data, stat| {
        u64::from(crate::tree::digest::node_digest(crate::tree::digest::content_crc(path, data), &stat))
    };
    let expected = [
        digest_of("", Some(&b""[..]), StatPersisted { cversion: 1, pzxid: 4, ..StatPersisted::default() }),
        digest_of("/zookeeper", Some(b""), StatPersisted::default()),
        digest_of("/app", None, StatPersisted { cversion: 2, pzxid: 4, ..born(2) }),
        digest_of("/app/lock", Some(b"me"), StatPersisted { ephemeral_owner: owner, ..born(3) }),
        digest_of("/app/box", Some(b""), StatPersisted { ephemeral_owner: i64::MIN, ..born(4) }),
    ];
    assert_eq!(tree.digest(), expected.into_iter().sum::<u64>());
}

#[test]
fn a_stream_of_ours_is_byte_for_byte_what_zookeeper_would_write() {
    let shared = RwLock::new(Tree::new(options()));
    let mut out = Vec::new();
    out.put_int(0);
    out.put_int(1);
    out.put_long(1);
    put_acl_vec(&mut out, [Acl { perms: perms::READ, scheme: Some("world"), id: Some("anyone") }]);
    let none = StatPersisted::default();
    let expected = Java(out)
        .node("", Some(b""), -1, none)
        .node("/zookeeper", Some(b""), -1, none)
        .node("/zookeeper/quota", Some(b""), -1, none)
        .node("/zookeeper/config", Some(b""), 1, StatPersisted { aversion: -1, ..none })
        .end();
    assert_eq!(stream_of(&shared), expected);
}

#[test]
fn a_fuzzy_stream_says_how_far_it_goes_and_the_transactions_behind_it_bring_it_right() {
    let stats = "/zookeeper/quota/q/zookeeper_stats";
    let stream = Java::begin()
        .node("", Some(b""), -1, StatPersisted { cversion: 2, pzxid: 10, ..StatPersisted::default() })
        .node("/zookeeper", Some(b""), -1, StatPersisted::default())
        .node("/zookeeper/config", Some(b""), 1, born(0x1000))
        .node("/zookeeper/quota", Some(b""), -1, StatPersisted { cversion: 1, ..born(3) })
        .node("/zookeeper/quota/q", Some(b""), -1, StatPersisted { cversion: 2, ..born(3) })
        .node("/zookeeper/quota/q/zookeeper_limits", Some(b"count=5"), -1, born(3))
        .node(stats, Some(b"count=1,bytes=0"), -1, born(3))
        // Made by transactions 10 and 11, the second with an ACL that was new.
        .node("/q", Some(b"four"), -1, StatPersisted { cversion: 1, ..born(10) })
        .node("/q/new", Some(b"12"), 6, born(11))
        .end();
    let mut sink = SnapSink::new(Zxid(9), options(), 1 << 20);
    sink.feed(&stream).unwrap();
    assert_eq!(sink.zxid_end(), Zxid(11), "the configuration's node is of no transaction");
    let mut tree = finish(sink, Vec::new(), Zxid(9)).expect("a leader of ZooKeeper's may send that");
    assert_eq!(tree.find(stats).unwrap().data(), Some(&b"count=2,bytes=6"[..]), "counted afresh");
    assert!(tree.acl(tree.find("/q/new").unwrap().acl_id()).is_empty(), "nobody may do anything yet");
    let list = body::acl(&[(perms::READ, "ip", "1.2.3.4")]);
    for (zxid, path, data, acl) in
        [(10, "/q", &b"four"[..], AclVec::NULL), (11, "/q/new", b"12", AclVec::of_encoded(&list))]
    {
        let lifetime = Lifetime::Persistent;
        let create = CreateTxn { path, data: Some(data), acl, lifetime, parent_cversion: 1 };
        let header = TxnHeader { zxid, time_ms: 9, ..TxnHeader::default() };
        tree.reapply(&Proposal { header, txn: Txn::Create(create), digest: None }, &mut Fired::new());
    }
    assert_eq!(tree.acl(tree.find("/q/new").unwrap().acl_id()), AclVec::of_encoded(&list));
    assert_eq!(tree.find(stats).unwrap().data(), Some(&b"count=2,bytes=6"[..]));
    assert_eq!(tree.counts().acls, 3, "the list of nobody is gone");
}

#[test]
fn what_does_not_hang_together_is_refused_by_name() {
    let owned = StatPersisted { ephemeral_owner: 7, ..born(1) };
    let node = |path: &str, source| SnapStreamError::Node { path: path.to_owned(), source };
    let with = |path, acl, stat| refused(&Java::begin().with_reserved().node(path, None, acl, stat).end());
    assert_eq!(with("/a/b", -1, born(1)), node("/a/b", Misplaced::NoParent));
    assert_eq!(with("/zookeeper/quota", -1, born(1)), node("/zookeeper/quota", Misplaced::Twice));
    assert_eq!(with("", -1, born(1)), node("", Misplaced::Twice));
    assert_eq!(with("a", -1, born(1)), node("a", Misplaced::Path));
    assert_eq!(with("/a/", -1, born(1)), node("/a/", Misplaced::Path));
    assert_eq!(with("/a", 3, born(1)), SnapStreamError::NoAcl { path: "/a".into(), number: 3 });
    assert_eq!(with("/a", -2, born(1)), SnapStreamError::NoAcl { path: "/a".into(), number: -2 });
    assert_eq!(
        refused(&Java::begin().node("/zookeeper", None, -1, born(1)).end()),
        node("/zookeeper", Misplaced::Path)
    );
    let root = Java::begin().node("", None, -1, owned).end();
    assert_eq!(refused(&root), SnapStreamError::Owned { path: String::new(), owner: 7 });
    let bare = Java::begin().node("", None, -1, born(1)).end();
    assert_eq!(refused(&bare), SnapStreamError::Missing("/zookeeper"));
    let mut unsigned = Java::begin().with_reserved().end();
    *unsigned.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&unsigned), SnapStreamError::Signature);
    let long = Java::begin().with_reserved().node(&"/n".repeat(3_000), None, -1, born(1)).end();
    assert!(refused(&long).to_string().len() < 300);
    let binary = Java::begin().with_reserved();
    let mut binary = binary.node("/abc", None, -1, born(1)).0;
    let at = binary.windows(4).position(|four| four == b"/abc").unwrap();
    binary[at + 2] = 0xff;
    assert!(matches!(refused(&binary), SnapStreamError::Text(_)));
}

#[test]
fn ss4_lengths_beyond_their_limits_are_refused_before_their_bytes_come() {
    let length = |stream: &[u8]| match refused(stream) {
        SnapStreamError::Length { what, found, .. } => (what, found),
        other => panic!("{other}"),
    };
    let begin = |ints: &[i32]| {
        let mut out = Vec::new();
        ints.iter().for_each(|int| out.put_int(*int));
        out
    };
    assert_eq!(length(&begin(&[-1])), ("sessions", -1));
    assert_eq!(length(&begin(&[0, i32::MIN])), ("ACLs", i32::MIN));
    assert_eq!(length(&begin(&[0, 1, 0, 7, -1])), ("entries of an ACL", -1));
    assert_eq!(length(&begin(&[0, 1, 0, 7, 1, 31, i32::MAX])), ("scheme of an ACL", i32::MAX));
    assert_eq!(length(&begin(&[0, 1, 0, 7, 1, 31, -1, -2])), ("id of an ACL", -2));
    assert_eq!(length(&begin(&[0, 0, -1])), ("path", -1));
    assert_eq!(length(&begin(&[0, 0, (64 << 20) + 1])), ("path", (64 << 20) + 1));
    assert_eq!(length(&begin(&[0, 0, 0, -2])), ("data", -2));
    let twice = begin(&[2, 0, 7, 100, 0, 7, 100]);
    assert_eq!(refused(&twice), SnapStreamError::Session(SessionId(7)));
    let twice = begin(&[0, 2, 0, 7, 0, 0, 7, 0]);
    assert_eq!(refused(&twice), SnapStreamError::Acl(7));
    // Two billion sessions announced cost nothing.
    let mut sink = SnapSink::new(Zxid(1), options(), 64);
    assert_eq!(sink.feed(&begin(&[i32::MAX])), Ok(Feed::More { consumed: 4, need: 12 }));
    assert_eq!(sink.feed(&begin(&[0, 7])), Ok(Feed::More { consumed: 0, need: 12 }));
}

#[test]
fn a_sink_that_has_failed_stays_failed() {
    let mut sink = SnapSink::new(Zxid(1), options(), 64);
    assert!(sink.feed(&[0xff; 4]).is_err());
    assert_eq!(sink.feed(&[0; 4]), Err(SnapStreamError::Incomplete));
    assert_eq!(sink.finish().unwrap_err(), SnapStreamError::Incomplete);
}

/// As large as one transaction may be is what a node may be: it must fit into a chunk.
#[test]
fn ss4_a_node_longer_than_any_transaction_is_refused() {
    let node = |path: usize, data: usize| {
        let (path, data) = (format!("/{}", "p".repeat(path - 1)), vec![0; data]);
        let stream = Java::begin().with_reserved().node(&path, Some(&data), -1, born(1)).end();
        receive(&stream, Zxid(9), || 1 << 20)
    };
    let most = crate::base::limits::PAYLOAD_BYTES_MAX;
    let (tree, _) = node(100, most - 100).expect("as long as can be");
    assert_eq!(tree.node_count(), 6);
    assert!(matches!(node(101, most - 100), Err(SnapStreamError::Length { what: "node", .. })));
}

mod state {
    //! SS6.

    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::base::WallMs;
    use crate::node::SnapshotOptions;
    use crate::node::recover::SteppedLoad;
    use crate::storage::snapshot::{LEVEL_DEFAULT, SnapshotError, SnapshotStore};
    use crate::storage::vfs::Vfs;
    use crate::testing::sim_disk::SimDisk;

    fn begin(store: &SnapshotStore, zxid: Zxid) -> StateFile {
        let snapshot =
            SnapshotOptions { node_id: 7, created: WallMs(0), level: LEVEL_DEFAULT, chunk_bytes: 500 };
        StateFile::begin(store, zxid, options(), &snapshot).expect("a healthy disk")
    }

    fn disk() -> (SimDisk, SnapshotStore) {
        let disk = SimDisk::new(1);
        let store = SnapshotStore::open(Arc::new(disk.clone()), Path::new("/data")).unwrap();
        (disk, store)
    }

    fn names(disk: &SimDisk) -> Vec<String> {
        disk.list(Path::new("/data")).unwrap()
    }

    fn feed_all(file: &mut StateFile, stream: &[u8]) -> Fed {
        let (mut from, mut to) = (0, 0);
        loop {
            to = stream.len().min(to + 700);
            let fed = file.feed(&stream[from..to]).expect("a stream of ours");
            from += fed.consumed;
            if fed.done || to == stream.len() {
                return Fed { consumed: from, done: fed.done };
            }
        }
    }

    #[test]
    fn ss6_a_stream_becomes_a_snapshot_and_the_snapshot_the_tree_that_was_sent() {
        let (stream, expected) = small_stream();
        let (disk, store) = disk();
        let mut file = begin(&store, expected.applied);
        let behind = [&stream[..], b"what follows"].concat();
        assert_eq!(feed_all(&mut file, &behind), Fed { consumed: stream.len(), done: true });
        let state = file.finish().expect("whole");
        assert!(names(&disk).iter().all(|name| name.ends_with(".received.tmp")), "{:?}", names(&disk));
        assert!(store.zxids().unwrap().is_empty(), "not before it is published");
        let (zxid, trailer) = (state.zxid(), state.trailer().to_vec());
        let info = state.publish().expect("a healthy disk");
        assert_eq!((info.zxid, info.zxid_end, info.trailer), (zxid, zxid, trailer));
        assert!(info.chunk_count > 5 && store.verify(zxid).unwrap().is_good());
        let mut load = SteppedLoad::new(store.reader(zxid).unwrap(), options());
        let (mut steps, mut tree) = (0, None);
        while tree.is_none() {
            tree = load.step().expect("it is what it says it is");
            steps += 1;
        }
        assert!(steps > 4, "{steps} steps");
        assert_same(&Dump::of(&tree.unwrap()), &expected);
    }

    #[test]
    fn a_stream_that_is_given_up_or_refused_leaves_no_file_and_one_cut_by_power_goes_at_the_start() {
        let (stream, expected) = small_stream();
        let (disk, store) = disk();
        let mut file = begin(&store, expected.applied);
        feed_all(&mut file, &stream[..stream.len() - 1]);
        assert!(matches!(file.finish(), Err(StateFailed::Stream(SnapStreamError::Incomplete))));
        assert!(names(&disk).is_empty());
        let mut file = begin(&store, expected.applied);
        assert!(matches!(file.feed(&[0xff; 9]), Err(StateFailed::Stream(_))));
        drop(file);
        assert!(names(&disk).is_empty());
        let mut file = begin(&store, expected.applied);
        feed_all(&mut file, &stream);
        assert_eq!(names(&disk).len(), 1);
        // What a crash leaves: nobody is there to remove it.
        std::mem::forget(file);
        SnapshotStore::open(Arc::new(disk.clone()), Path::new("/data")).unwrap();
        assert!(names(&disk).is_empty());
    }

    #[test]
    fn a_snapshot_of_the_same_zxid_may_be_in_the_making_beside_it() {
        let (stream, expected) = small_stream();
        let (disk, store) = disk();
        let meta = crate::storage::snapshot::SnapshotMeta {
            zxid: expected.applied,
            node_id: 7,
            created: WallMs(0),
            chunk_bytes_target: 500,
            level: LEVEL_DEFAULT,
        };
        let other = store.create(meta).unwrap();
        let mut file = begin(&store, expected.applied);
        feed_all(&mut file, &stream);
        drop(other);
        file.finish().unwrap().publish().unwrap();
        assert!(store.verify(expected.applied).unwrap().is_good());
        assert_eq!(names(&disk).len(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_of_storage() {
        let mut noise = vec![0; 20_000];
        Rng::new(4).fill(&mut noise);
        let stream = Java::begin().with_reserved().node("/noise", Some(&noise), -1, born(1)).end();
        let (disk, store) = disk();
        let mut file = begin(&store, Zxid(9));
        disk.set_capacity(2 * 4_096);
        let error = file.feed(&stream).expect_err("no room");
        assert!(matches!(error, StateFailed::Storage(SnapshotError::Io(_))), "{error}");
        drop(file);
        assert!(names(&disk).is_empty());
    }
}
