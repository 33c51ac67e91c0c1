//! What a tree that had to be replaced looked like: kept for whoever wants to know why.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::base::Zxid;
use crate::node::{SnapshotFailed, SnapshotOptions, SnapshotTask};
use crate::server::Shared;
use crate::server::config::ZABRA_FOLDER;
use crate::storage::snapshot::SnapshotStore;
use crate::storage::vfs::{RealVfs, create_dir_durable};
use crate::tree::Tree;

/// Writes `tree` as a snapshot into a directory of its own, on a thread of its own: `zabra snapshot dump` shows it, next to a healthy one of the
/// same zxid. Best effort: it heals nothing.
pub(super) fn keep(shared: &Arc<Shared>, tree: Tree, diverged_at: Zxid) {
    let shared = Arc::clone(shared);
    let kept = std::thread::Builder::new().name("zabra-evidence".into()).spawn(move || {
        let dir = shared.config.data_dir.join(ZABRA_FOLDER).join(format!("diverged.{:x}", diverged_at.0));
        match write(&shared, tree, dir.clone()) {
            Ok(()) => tracing::warn!(dir = %dir.display(), "the tree that differs is kept as evidence"),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "the tree that differs could not be kept")
            }
        }
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "the tree that differs could not be kept");
    }
}

fn write(shared: &Shared, tree: Tree, dir: PathBuf) -> Result<(), SnapshotFailed> {
    let vfs = Arc::new(RealVfs);
    create_dir_durable(&*vfs, &dir).map_err(crate::storage::snapshot::SnapshotError::Io)?;
    let store = SnapshotStore::open(vfs, &dir)?;
    let tree = RwLock::new(tree);
    let options = SnapshotOptions {
        node_id: shared.node_id,
        created: shared.wall_now(),
        level: shared.config.snapshot.zstd_level,
        chunk_bytes: shared.config.snapshot.chunk_bytes,
    };
    let mut task = SnapshotTask::begin(&tree, &store, &options)?;
    while task.step(&tree)? {}
    task.finish(&tree, &store).map(drop)
}
