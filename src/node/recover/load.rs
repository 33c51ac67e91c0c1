//! The newest snapshot that loads whole and is what it says it is. Every failure starts over with an empty tree (B2).

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::{LoadedSnapshot, NodePlaces, RecoverError, RecoverEvent, RecoverShell, SnapshotFault};
use crate::base::Zxid;
use crate::node::snapshot::SnapshotTrailer;
use crate::storage::snapshot::{SnapshotReader, SnapshotStore};
use crate::tree::{ChunkKind, Finishing, Loader, Tree, TreeOptions};

/// Chunks loaded in one step of [`SteppedLoad`]: about a millisecond each, when they are full.
const CHUNKS_PER_STEP: u32 = 4;

/// Slots tied together in one step: about a millisecond.
const SLOTS_PER_STEP: usize = 8 << 10;

/// What replay goes on from.
pub(super) struct Loaded {
    pub(super) tree: Tree,
    pub(super) snapshot: Option<LoadedSnapshot>,
    /// Snapshots passed over.
    pub(super) bad: usize,
}

/// The newest snapshot before `below` that loads, or an empty tree without any.
pub(super) fn newest(
    store: &SnapshotStore,
    places: &NodePlaces,
    options: TreeOptions,
    below: Option<Zxid>,
    shell: &RecoverShell<'_>,
) -> Result<Loaded, RecoverError> {
    let (mut below, mut bad) = (below, 0);
    let mut pass_over = |zxid, fault: &SnapshotFault| {
        bad += 1;
        (shell.observe)(&RecoverEvent::SnapshotPassedOver { zxid, fault });
    };
    loop {
        let newest = store
            .newest_valid(below)
            .map_err(|e| RecoverError::Snapshots { dir: places.data.clone(), source: e.into() })?;
        for skipped in newest.skipped {
            pass_over(skipped.zxid, &SnapshotFault::Storage(skipped.error));
        }
        let Some(reader) = newest.reader else { break };
        let (zxid, file_bytes) = (reader.info().zxid, reader.info().file_bytes);
        match load(&reader, options, shell) {
            Ok(tree) => return Ok(Loaded { tree, snapshot: Some(LoadedSnapshot { zxid, file_bytes }), bad }),
            Err(fault) => pass_over(zxid, &fault),
        }
        below = Some(zxid);
    }
    if bad > 0 {
        (shell.observe)(&RecoverEvent::NoSnapshotUsable { tried: bad });
    }
    Ok(Loaded { tree: Tree::new(options), snapshot: None, bad })
}

/// Loads all chunks: the header first, for the others lean on it, then the others in any order, on several threads.
fn load(
    reader: &SnapshotReader,
    options: TreeOptions,
    shell: &RecoverShell<'_>,
) -> Result<Tree, SnapshotFault> {
    let loader = Loader::new(options);
    let next = AtomicU32::new(0);
    let fault = Mutex::new(None);
    let load_one = |bytes: &mut Vec<u8>| -> Result<bool, SnapshotFault> {
        let chunk = next.fetch_add(1, Ordering::Relaxed);
        if chunk >= reader.chunk_count() {
            return Ok(false);
        }
        load_chunk(reader, &loader, chunk, bytes)?;
        (shell.observe)(&RecoverEvent::Loading { chunk, of: reader.chunk_count() });
        Ok(true)
    };
    load_one(&mut Vec::new())?;
    (shell.parallel)(&|| {
        let mut bytes = Vec::new();
        while fault.lock().is_none() {
            match load_one(&mut bytes) {
                Ok(true) => {}
                Ok(false) => return,
                Err(found) => *fault.lock() = Some(found),
            }
        }
    });
    if let Some(fault) = fault.into_inner() {
        return Err(fault);
    }
    assert!(next.into_inner() >= reader.chunk_count(), "every chunk was taken");
    let tree = loader.finish().map_err(SnapshotFault::Image)?;
    check_tree(&tree, reader)?;
    Ok(tree)
}

/// The same on one thread, in steps.
#[derive(Debug)]
pub(in crate::node) struct SteppedLoad {
    reader: SnapshotReader,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Chunks { loader: Box<Loader>, next: u32, bytes: Vec<u8> },
    Finishing(Box<Finishing>),
    Over,
}

impl SteppedLoad {
    pub(in crate::node) fn new(reader: SnapshotReader, options: TreeOptions) -> SteppedLoad {
        let stage = Stage::Chunks { loader: Box::new(Loader::new(options)), next: 0, bytes: Vec::new() };
        SteppedLoad { reader, stage }
    }

    /// The tree, when that was the last step.
    ///
    /// # Errors
    /// The snapshot holds none; nothing more can be done.
    pub(in crate::node) fn step(&mut self) -> Result<Option<Tree>, SnapshotFault> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Chunks { loader, next, bytes: _ } if next == self.reader.chunk_count() => {
                Stage::Finishing(Box::new(loader.finishing().map_err(SnapshotFault::Image)?))
            }
            Stage::Chunks { loader, next, mut bytes } => {
                let end = self.reader.chunk_count().min(next + CHUNKS_PER_STEP);
                for chunk in next..end {
                    load_chunk(&self.reader, &loader, chunk, &mut bytes)?;
                }
                Stage::Chunks { loader, next: end, bytes }
            }
            Stage::Finishing(mut finishing) => {
                if !finishing.step(SLOTS_PER_STEP).map_err(SnapshotFault::Image)? {
                    let tree = finishing.finish().map_err(SnapshotFault::Image)?;
                    check_tree(&tree, &self.reader)?;
                    return Ok(Some(tree));
                }
                Stage::Finishing(finishing)
            }
            Stage::Over => panic!("no step behind the last one"),
        };
        Ok(None)
    }
}

fn load_chunk(
    reader: &SnapshotReader,
    loader: &Loader,
    chunk: u32,
    bytes: &mut Vec<u8>,
) -> Result<(), SnapshotFault> {
    let kind = reader.read_chunk(chunk, bytes)?;
    let known = u8::try_from(kind).ok().and_then(ChunkKind::from_u8);
    let known = known.ok_or(SnapshotFault::Kind { chunk, kind })?;
    loader.chunk(known, bytes).map_err(|source| SnapshotFault::Chunk { chunk, source })
}

/// The tree must be the one that name and trailer speak of.
fn check_tree(tree: &Tree, reader: &SnapshotReader) -> Result<(), SnapshotFault> {
    let info = reader.info();
    let said = SnapshotTrailer::read(&info.trailer)
        .ok_or(SnapshotFault::Trailer { len: info.trailer.len(), expected: SnapshotTrailer::BYTES })?;
    let pairs = [
        ("last zxid", info.zxid.0, tree.applied().0),
        ("digest", said.digest, tree.digest()),
        ("number of nodes", said.node_count, tree.node_count() as u64),
    ];
    match pairs.into_iter().find(|(_, expected, found)| expected != found) {
        Some((what, expected, found)) => Err(SnapshotFault::Other { what, expected, found }),
        None => Ok(()),
    }
}
