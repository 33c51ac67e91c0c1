//! Fuzz entry point of the stream of a snapshot: reading never panics, and what is taken is a tree that works and can be sent on.

use parking_lot::RwLock;

use super::world::{World, body};
use crate::base::Zxid;
use crate::node::{Feed, PrepareOptions, SnapEnd, SnapSink, SnapSource, SnapStreamError};
use crate::tree::{ChunkKind, Fired, Loader, Tree, TreeOptions};
use crate::wire::OpCode;
use crate::wire::txn::{Proposal, Txn, TxnHeader, kind};

/// A stream from `data`, in pieces of as many bytes as byte 1 says. Byte 0 chooses: the bytes as they are; or a stream of a small tree, each
/// four bytes of `data` a place in it (24 bits) and the byte that stands there instead.
pub fn snap_stream(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(2) else { return };
    let mut stream = rest.to_vec();
    if head[0] % 2 == 1 {
        stream = small_stream();
        for step in rest.chunks_exact(4).take(64) {
            let at = u32::from_le_bytes([step[0], step[1], step[2], 0]) as usize % stream.len();
            stream[at] = step[3];
        }
    }
    let zxid = Zxid(1 << 40);
    let Some(tree) = receive(&stream, zxid, usize::from(head[1]) + 1) else { return };
    let (digest, counts) = (tree.digest(), tree.counts());
    let shared = RwLock::new(tree);
    let again = send(&shared);
    let twin = receive(&again, zxid, 1 << 20).expect("what was taken is sent as what can be taken");
    // Whatever is left over of fuzzy streams has been counted: usage of quotas is part of the data.
    assert_eq!((twin.digest(), twin.counts().nodes), (digest, counts.nodes));
    assert_eq!((twin.counts().ephemerals, twin.counts().sessions), (counts.ephemerals, counts.sessions));
    let mut tree = shared.into_inner();
    close_sessions(&mut tree);
    assert_eq!(tree.counts().sessions, 0);
}

fn small_stream() -> Vec<u8> {
    let options = PrepareOptions { extended_types: true, ..PrepareOptions::default() };
    let mut world = World::new(options);
    let client = world.client();
    let paths = [("/a", 0), ("/a/b", 0), ("/e", 1), ("/a/c", 2), ("/zookeeper/quota/a", 0)];
    for (path, flags) in paths {
        world.must(&client, OpCode::Create, &body::create(path, flags));
    }
    for name in ["zookeeper_limits", "zookeeper_stats"] {
        world.must(&client, OpCode::Create, &body::create(&format!("/zookeeper/quota/a/{name}"), 0));
    }
    let list = body::acl(&[(31, "ip", "10.0.0.1"), (1, "world", "anyone")]);
    world.must(&client, OpCode::SetAcl, &body::set_acl("/a/b", &list, -1));
    send(&RwLock::new(world.tree))
}

fn send(tree: &RwLock<Tree>) -> Vec<u8> {
    let mut source = SnapSource::begin(tree).expect("no other image is under way");
    let mut stream = Vec::new();
    while source.step(tree, &mut stream) {}
    source.finish(tree);
    stream
}

/// The tree that `stream` is of, fed in pieces; checks that every hint is kept to and worth waiting for, and that what is taken loads.
fn receive(stream: &[u8], zxid: Zxid, piece: usize) -> Option<Tree> {
    let options = TreeOptions { extended_types: true, ..TreeOptions::default() };
    let (mut sink, mut chunks) = (SnapSink::new(zxid, options, 300), Vec::new());
    let (mut from, mut to, mut needed) = (0, 0, 0);
    while to < stream.len() {
        to = stream.len().min(to + piece);
        while to - from >= needed {
            match sink.feed(&stream[from..to]).ok()? {
                Feed::Done { .. } => {
                    drain(&mut sink, &mut chunks);
                    return sink.finish().ok().map(|end| load(&end, &chunks, options));
                }
                Feed::Chunk { consumed } => {
                    from += consumed;
                    // It goes on where it was.
                    needed = 0;
                    drain(&mut sink, &mut chunks);
                    assert_eq!(sink.chunk(), None);
                }
                Feed::More { consumed, need } => {
                    assert!(
                        consumed > 0 || needed == 0 || need > needed,
                        "it comes further with what it asked for"
                    );
                    from += consumed;
                    needed = need;
                    assert!(need > to - from);
                }
            }
            assert_eq!(sink.progress().bytes, from as u64);
        }
    }
    assert_eq!(sink.finish().unwrap_err(), SnapStreamError::Incomplete);
    None
}

fn drain(sink: &mut SnapSink, chunks: &mut Vec<(ChunkKind, Vec<u8>)>) {
    while let Some((kind, bytes)) = sink.chunk() {
        chunks.push((kind, bytes.to_vec()));
        sink.taken(kind);
    }
}

fn load(end: &SnapEnd, chunks: &[(ChunkKind, Vec<u8>)], options: TreeOptions) -> Tree {
    let loader = Loader::new(options);
    loader.chunk(ChunkKind::Header, &end.header).expect("a header");
    chunks.iter().for_each(|(kind, bytes)| loader.chunk(*kind, bytes).expect("what was taken loads"));
    let mut tree = loader.finish().expect("what was taken loads");
    assert_eq!(tree.digest(), end.digest);
    if end.zxid_end > tree.applied() {
        tree.count_usage();
    }
    tree
}

/// Ends all sessions, those that are only owners of nodes too.
fn close_sessions(tree: &mut Tree) {
    let mut sessions: Vec<_> = tree.sessions().map(|(session, _)| session).collect();
    sessions.extend(tree.ephemeral_owners());
    let mut fired = Fired::new();
    for session in sessions {
        let zxid = tree.applied().next().0 as i64;
        let header =
            TxnHeader { client_id: session.0, zxid, kind: kind::CLOSE_SESSION, ..TxnHeader::default() };
        let txn = Txn::CloseSession { paths: None };
        tree.apply(&Proposal { header, txn, digest: None }, &mut fired);
    }
}

#[cfg(test)]
mod tests {
    use crate::base::rng::Rng;
    use crate::testing::fuzz::fill_plausibly;

    #[test]
    fn random_and_damaged_streams() {
        let mut rng = Rng::new(0x736e_6170);
        let mut bytes = [0u8; 160];
        for _ in 0..10_000 {
            fill_plausibly(&mut rng, &mut bytes);
            bytes[0] = rng.below(2) as u8;
            let len = rng.below(bytes.len() as u64 + 1) as usize;
            super::snap_stream(&bytes[..len]);
        }
        // A few places only: most of these are taken.
        for _ in 0..3_000 {
            rng.fill(&mut bytes);
            bytes[0] = 1;
            super::snap_stream(&bytes[..2 + 4 * rng.below(4) as usize]);
        }
    }
}
