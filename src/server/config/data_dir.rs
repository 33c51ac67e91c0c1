//! Where the data lies, and the rule that a directory with ZooKeeper's data in it is never started empty.
//!
//! - D1: Zabra's files are in `dataDir/zabra` (snapshots, superblock) and `dataLogDir/zabra` (log), beside `myid` and beside
//!   whatever ZooKeeper keeps in `version-2`; Zabra never writes into `version-2`.
//!   What counts as Zabra's data is a superblock, a snapshot or a log segment: a lock or an empty folder is none.
//! - D2: `version-2` with snapshots or logs and no `zabra` beside them: refuse, say why and what to do. Looking changes nothing.

use std::io;
use std::path::{Path, PathBuf};

/// Zabra's folder inside `dataDir` and `dataLogDir`.
pub const ZABRA_FOLDER: &str = "zabra";

/// The log's folder inside [`ZABRA_FOLDER`].
pub const LOG_FOLDER: &str = "log";

/// ZooKeeper's folder inside `dataDir` and `dataLogDir`.
const ZOOKEEPER_FOLDER: &str = "version-2";

/// What the data directories hold before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDirState {
    /// Nothing of ours: a new server.
    Fresh,
    /// Zabra's own data.
    Ours,
}

/// Why the data directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// ZooKeeper's data is there and ours is not.
    #[error(
        "{} holds {files} file(s) of a ZooKeeper server and {} has no Zabra data: starting here would serve an empty \
         tree. Set dataDir (and dataLogDir) to a new directory to start empty on purpose; to keep the data, leave \
         ZooKeeper running and copy it over with a client (import of ZooKeeper's files is not there yet)",
        found.display(),
        data_dir.display()
    )]
    ZooKeeperData {
        /// The `version-2` folder.
        found: PathBuf,
        /// The directory it is in.
        data_dir: PathBuf,
        /// Snapshots and logs in it.
        files: usize,
    },
    /// The directory is missing and `datadir.autocreate` is off.
    #[error("{} does not exist and zookeeper.datadir.autocreate is false: create it, or set that to true", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A directory cannot be looked into.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Looks at both directories and decides whether to start on them. Changes nothing.
pub fn inspect_data_dirs(
    data_dir: &Path,
    data_log_dir: &Path,
    autocreate: bool,
) -> Result<DataDirState, DataDirError> {
    let mut ours = false;
    for dir in [data_dir, data_log_dir] {
        if !autocreate && !dir.is_dir() {
            return Err(DataDirError::Missing { path: dir.to_owned() });
        }
        ours |= holds_our_data(&dir.join(ZABRA_FOLDER))?;
    }
    if ours {
        return Ok(DataDirState::Ours);
    }
    for dir in [data_dir, data_log_dir] {
        let found = dir.join(ZOOKEEPER_FOLDER);
        let files = zookeeper_files(&found)?;
        if files > 0 {
            return Err(DataDirError::ZooKeeperData { found, data_dir: data_dir.to_owned(), files });
        }
    }
    Ok(DataDirState::Fresh)
}

fn holds_our_data(dir: &Path) -> Result<bool, DataDirError> {
    let is_ours = |name: &String| ["superblock", "snapshot.", "log."].iter().any(|p| name.starts_with(p));
    Ok(entries(dir)?.iter().any(is_ours) || entries(&dir.join(LOG_FOLDER))?.iter().any(is_ours))
}

fn zookeeper_files(dir: &Path) -> Result<usize, DataDirError> {
    let names = entries(dir)?;
    let kept =
        |n: &&String| ["snapshot.", "log.", "currentEpoch", "acceptedEpoch"].iter().any(|p| n.starts_with(p));
    Ok(names.iter().filter(kept).count())
}

/// Names in a directory; none when there is no such directory.
fn entries(dir: &Path) -> Result<Vec<String>, DataDirError> {
    let failed = |source| DataDirError::Io { path: dir.to_owned(), source };
    let list = match std::fs::read_dir(dir) {
        Ok(list) => list,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    list.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(dir: &Path, path: &str) {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }

    #[test]
    fn an_empty_or_missing_directory_is_fresh() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inspect_data_dirs(dir.path(), dir.path(), true).unwrap(), DataDirState::Fresh);
        let missing = dir.path().join("missing");
        assert_eq!(inspect_data_dirs(&missing, &missing, true).unwrap(), DataDirState::Fresh);
        assert!(!missing.exists(), "looking changes nothing");
        let refused = inspect_data_dirs(&missing, &missing, false).unwrap_err();
        assert!(matches!(refused, DataDirError::Missing { .. }), "{refused}");
    }

    #[test]
    fn a_directory_with_zookeepers_data_and_none_of_ours_is_refused() {
        for file in ["version-2/snapshot.0", "version-2/log.1", "version-2/currentEpoch"] {
            let (data, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            for holder in [&data, &log] {
                touch(holder.path(), file);
                let refused = inspect_data_dirs(data.path(), log.path(), true).unwrap_err();
                let text = refused.to_string();
                assert!(text.contains("version-2") && text.contains("Set dataDir"), "{text}");
                std::fs::remove_dir_all(holder.path().join("version-2")).unwrap();
            }
        }
    }

    #[test]
    fn zookeepers_data_beside_ours_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), "version-2/snapshot.0");
        touch(dir.path(), "zabra/superblock");
        assert_eq!(inspect_data_dirs(dir.path(), dir.path(), true).unwrap(), DataDirState::Ours);
    }

    #[test]
    fn an_empty_version_2_and_a_myid_are_no_data() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("version-2")).unwrap();
        touch(dir.path(), "myid");
        assert_eq!(inspect_data_dirs(dir.path(), dir.path(), true).unwrap(), DataDirState::Fresh);
        // An empty folder of ours is no data either, nor is the lock: a crash may have come right after they were made.
        std::fs::create_dir_all(dir.path().join("zabra/log")).unwrap();
        touch(dir.path(), "zabra/lock");
        touch(dir.path(), "zabra/lost+found/x");
        touch(dir.path(), "version-2/log.5");
        assert!(inspect_data_dirs(dir.path(), dir.path(), true).is_err());
        touch(dir.path(), "zabra/log/log.0000000000000001");
        assert_eq!(inspect_data_dirs(dir.path(), dir.path(), true).unwrap(), DataDirState::Ours);
    }
}
