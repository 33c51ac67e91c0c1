//! The tree against a model: a sorted map of whole nodes, with every rule written the slow and obvious way.
//!
//! What is guarded: the model's state after any transactions (stats, owners, quotas, digest recomputed from scratch); an image
//! taken while transactions go on is the state at its beginning, and the rest replayed on it gives the live tree, field by
//! field; a replay may begin too early (rule R12), also over a state of mixed times such as ZooKeeper's snapshots hold.

#[path = "tree_model/model.rs"]
mod model;
#[path = "tree_model/script.rs"]
mod script;

use model::{Dump, Model};
use script::{Script, apply, reapply, tree};
use zabra::base::rng::Rng;
use zabra::tree::{ChunkKind, Fired, Loader, Tree};

/// An image as its chunks, taken whole.
fn image_of(tree: &mut Tree) -> Vec<(ChunkKind, Vec<u8>)> {
    let mut image = tree.begin_image();
    let mut chunks = Vec::new();
    let mut out = Vec::new();
    while let Some(kind) = tree.image_chunk(&mut image, &mut out, 200) {
        chunks.push((kind, std::mem::take(&mut out)));
    }
    tree.end_image(image);
    chunks
}

fn load(chunks: &[(ChunkKind, Vec<u8>)]) -> Tree {
    let loader = Loader::new(script::options());
    for (kind, bytes) in chunks {
        loader.chunk(*kind, bytes).unwrap();
    }
    loader.finish().unwrap()
}

/// As `assert_eq`, but shows only what differs.
fn assert_same(found: &Dump, expected: &Dump) {
    let differing: Vec<_> =
        found.nodes.iter().filter(|(path, node)| expected.nodes.get(*path) != Some(node)).collect();
    let other: Vec<_> =
        expected.nodes.iter().filter(|(path, node)| found.nodes.get(*path) != Some(node)).collect();
    assert_eq!(differing, other);
    assert_eq!(found, expected);
}

/// Without what is used of quotas: usage is counted by what happens, and what happened twice may have been counted twice. It is
/// no part of the digest, and ZooKeeper counts it afresh at every start.
fn without_usage(mut dump: Dump) -> Dump {
    for (path, (node, stat)) in &mut dump.nodes {
        if path.ends_with("/zookeeper_stats") {
            let data = node.data.take().unwrap_or_default();
            dump.data_bytes -= data.len() as u64;
            stat.data_length = 0;
        }
    }
    dump
}

#[test]
fn random_transactions_leave_what_the_model_says() {
    for seed in 0..12 {
        let (mut tree, mut model) = (tree(), Model::new());
        let mut script = Script::new(seed);
        assert_eq!(Dump::of(&tree), model.dump(), "fresh");
        for step in 0..700 {
            let payload = script.next(&mut model);
            apply(&mut tree, &payload);
            assert_eq!(tree.digest(), model.digest(), "seed {seed} step {step}: digest");
            if step % 23 == 0 {
                assert_eq!(Dump::of(&tree), model.dump(), "seed {seed} step {step}");
            }
        }
        assert_eq!(Dump::of(&tree), model.dump(), "seed {seed}");
        assert_eq!(tree.digest_mismatches(), 0, "the script's digests are the model's");
        assert!(tree.digest_log().count() >= 2);
    }
}

#[test]
fn an_image_taken_under_way_is_exact_at_every_cut_and_the_rest_replays_to_the_live_tree() {
    for seed in 100..103 {
        let payloads = Script::new(seed).run(260);
        let mut last = tree();
        for payload in &payloads {
            apply(&mut last, payload);
        }
        let end = Dump::of(&last);
        for cut in 0..=payloads.len() {
            let mut rng = Rng::new(seed ^ cut as u64);
            let mut live = tree();
            for payload in &payloads[..cut] {
                apply(&mut live, payload);
            }
            let at_cut = Dump::of(&live);
            let mut rest = payloads[cut..].iter();
            let mut image = live.begin_image();
            let (zxid, digest) = (live.applied(), live.digest());
            let mut chunks = Vec::new();
            loop {
                let mut out = Vec::new();
                let Some(kind) = live.image_chunk(&mut image, &mut out, 1 + rng.below(300) as usize) else {
                    break;
                };
                chunks.push((kind, out));
                for payload in rest.by_ref().take(rng.below(12) as usize) {
                    apply(&mut live, payload);
                }
            }
            assert_eq!((image.zxid(), image.digest()), (zxid, digest));
            live.end_image(image);
            for payload in rest {
                apply(&mut live, payload);
            }
            let mut loaded = load(&chunks);
            assert_eq!(Dump::of(&loaded), at_cut, "seed {seed} cut {cut}: image");
            for payload in &payloads[cut..] {
                apply(&mut loaded, payload);
            }
            assert_eq!(Dump::of(&loaded), end, "seed {seed} cut {cut}: replayed");
            assert_eq!(Dump::of(&live), end, "seed {seed} cut {cut}: live, with an image taken of it");
            assert_eq!(loaded.digest_mismatches(), 0);
        }
    }
}

#[test]
fn a_replay_that_begins_too_early_ends_in_the_same_tree() {
    for seed in 200..206 {
        let payloads = Script::new(seed).run(300);
        let mut rng = Rng::new(seed);
        let mut live = tree();
        for payload in &payloads {
            apply(&mut live, payload);
        }
        let end = Dump::of(&live);
        for _ in 0..40 {
            let cut = rng.below(payloads.len() as u64 + 1) as usize;
            let from = rng.below(cut as u64 + 1) as usize;
            let mut early = tree();
            for payload in &payloads[..cut] {
                apply(&mut early, payload);
            }
            let mut replayed = load(&image_of(&mut early));
            for payload in &payloads[from..] {
                reapply(&mut replayed, payload);
            }
            println!("seed {seed} cut {cut} from {from}");
            assert_same(&without_usage(Dump::of(&replayed)), &without_usage(end.clone()));
            assert_eq!(replayed.digest_mismatches(), 0);
        }
    }
}

/// Only with lists in closeSession: without one, a node that was gone before its parent was written leaves no trace on the
/// parent's pzxid. That is why ZooKeeper writes them since 3.6.
#[test]
fn a_state_of_mixed_times_replays_to_the_live_tree_outside_quotas() {
    for seed in 300..330 {
        let mut rng = Rng::new(seed);
        let mut model = Model::new();
        let mut script = Script::with_lists(seed);
        let mut payloads: Vec<_> = (0..150).map(|_| script.next(&mut model)).collect();
        let from = payloads.len();
        let sessions = model.sessions.clone();
        // As ZooKeeper writes a snapshot: depth first, each node as it is when its turn comes.
        let (mut mixed, mut todo) = (Model::new(), vec![String::new()]);
        mixed.nodes.clear();
        mixed.sessions = sessions;
        mixed.zxid = model.zxid;
        while let Some(path) = todo.pop() {
            let key = if path.is_empty() { "/" } else { &path };
            let Some(node) = model.nodes.get(key) else { continue };
            mixed.nodes.insert(key.to_owned(), node.clone());
            todo.extend(model.children(key).map(|name| format!("{path}/{name}")));
            for _ in 0..rng.below(6) {
                payloads.push(script.next(&mut model));
            }
        }
        payloads.extend((0..30).map(|_| script.next(&mut model)));
        let mut replayed = load(&mixed.image());
        for payload in &payloads[from..] {
            reapply(&mut replayed, payload);
        }
        let (mut found, expected) = (without_usage(Dump::of(&replayed)), without_usage(model.dump()));
        found.digest_log.clone_from(&expected.digest_log);
        println!("seed {seed}");
        assert_same(&found, &expected);
    }
}

#[test]
fn the_model_writes_the_format_that_the_tree_writes() {
    let (mut tree, mut model, mut script) = (tree(), Model::new(), Script::new(7));
    for _ in 0..200 {
        apply(&mut tree, &script.next(&mut model));
    }
    let mut from_model = load(&model.image());
    assert_eq!(Dump::of(&from_model).nodes, Dump::of(&load(&image_of(&mut tree))).nodes);
    assert_eq!(image_of(&mut from_model)[0].0, ChunkKind::Header);
}

#[test]
fn damaged_images_are_refused_or_loaded_but_never_panic() {
    let (mut tree, mut model, mut script) = (tree(), Model::new(), Script::new(9));
    for _ in 0..150 {
        apply(&mut tree, &script.next(&mut model));
    }
    let chunks = image_of(&mut tree);
    let refused = |chunks: &[(ChunkKind, Vec<u8>)]| {
        let loader = Loader::new(script::options());
        let taken = chunks.iter().try_for_each(|(kind, bytes)| loader.chunk(*kind, bytes));
        taken.and_then(|()| loader.finish().map(|_| ())).is_err()
    };
    assert!(!refused(&chunks));
    for at in 0..chunks.len() {
        let mut missing = chunks.clone();
        let (kind, bytes) = missing.remove(at);
        assert!(bytes.is_empty() || refused(&missing), "chunk {at} {kind:?} missing");
        let mut twice = chunks.clone();
        twice.push(chunks[at].clone());
        assert!(bytes.is_empty() || refused(&twice), "chunk {at} {kind:?} twice");
        for len in 0..bytes.len() {
            let mut cut = chunks.clone();
            cut[at].1.truncate(len);
            assert!(refused(&cut), "chunk {at} {kind:?} cut at {len}");
            let mut flipped = chunks.clone();
            flipped[at].1[len] ^= 1 << (len % 8);
            // ACLs, sessions and the digest log are not under the digest: only the CRC of storage covers them.
            assert!(refused(&flipped) || kind != ChunkKind::Nodes || is_acl_byte(&bytes, len), "chunk {at}");
            flipped[at].1[len] = 0xff;
            refused(&flipped);
        }
    }
}

/// True for the ACL id and, below `/zookeeper/`, the stat, of a node in a chunk of nodes: outside the digest.
fn is_acl_byte(bytes: &[u8], at: usize) -> bool {
    let mut start = 0;
    loop {
        let int = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
        let data = int(start + 80);
        let end = start + 84 + int(start + 76) as usize + if data == u32::MAX { 0 } else { data as usize };
        if at < end {
            // A slot number may change freely as long as nothing hangs on it.
            return (8..12).contains(&(at - start)) || at - start < 4 || (16..76).contains(&(at - start));
        }
        start = end;
    }
}

#[test]
fn sparse_pages_move_together_when_loaded() {
    let mut tree = tree();
    let mut script = Script::new(1);
    for i in 0..9000 {
        apply(&mut tree, &script.create_plain(&format!("/n{i:05}")));
    }
    for i in 0..9000 {
        if i % 3000 != 2500 {
            apply(&mut tree, &script.delete(&format!("/n{i:05}")));
        }
    }
    let mut loaded = load(&image_of(&mut tree));
    assert_eq!(Dump::of(&loaded), Dump::of(&tree));
    for i in 0..5000 {
        let payload = script.create_plain(&format!("/m{i:05}"));
        apply(&mut tree, &payload);
        apply(&mut loaded, &payload);
    }
    assert_eq!(Dump::of(&loaded), Dump::of(&tree));
    let mut fired = Fired::new();
    fired.clear();
    assert!(fired.is_empty());
}
