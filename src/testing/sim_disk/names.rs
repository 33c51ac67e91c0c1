//! Directories of the simulated disk. Each keeps its live entries, its durable entries, and the changes between them in order.
//!
//! A crash keeps any subset of the unsynced changes in which each *name* has seen a prefix of its own changes; a rename
//! touches two names and happens whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Component, Path};
use std::sync::Arc;

use super::choose::Choose;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Number of the inode.
    File(u64),
    /// Number of the directory.
    Dir(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, Entry),
    Remove(String),
    Rename(String, String),
}

type Entries = BTreeMap<String, Entry>;

#[derive(Clone, Debug, Default)]
struct Dir {
    live: Arc<Entries>,
    durable: Arc<Entries>,
    unsynced: Vec<Change>,
}

/// All directories; number 0 is the root.
#[derive(Clone, Debug)]
pub(super) struct Names {
    dirs: BTreeMap<u64, Dir>,
    next_dir: u64,
}

impl Names {
    pub(super) fn new() -> Names {
        Names { dirs: BTreeMap::from([(0, Dir::default())]), next_dir: 1 }
    }

    /// Creates one directory below `parent`.
    pub(super) fn make_dir(&mut self, path: &Path) -> Result<()> {
        let (parent, name) = self.split(path)?;
        if self.dirs[&parent].live.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let number = self.next_dir;
        self.next_dir += 1;
        self.dirs.insert(number, Dir::default());
        self.change(parent, Change::Create(name, Entry::Dir(number)));
        Ok(())
    }

    pub(super) fn link(&mut self, path: &Path, inode: u64) -> Result<()> {
        let (parent, name) = self.split(path)?;
        assert!(!self.dirs[&parent].live.contains_key(&name), "the caller looked first");
        self.change(parent, Change::Create(name, Entry::File(inode)));
        Ok(())
    }

    /// Removes a file's name; returns its inode.
    pub(super) fn unlink(&mut self, path: &Path) -> Result<u64> {
        let inode = self.file(path)?;
        let (parent, name) = self.split(path)?;
        self.change(parent, Change::Remove(name));
        Ok(inode)
    }

    /// Renames a file within its directory; returns the inode that lost its name to it.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<Option<u64>> {
        self.file(from)?;
        let replaced = match self.lookup(to) {
            Ok(Entry::Dir(_)) => return Err(ErrorKind::IsADirectory.into()),
            Ok(Entry::File(inode)) => Some(inode),
            Err(_) => None,
        };
        let ((parent, from), (parent_to, to)) = (self.split(from)?, self.split(to)?);
        if parent != parent_to {
            return Err(ErrorKind::CrossesDevices.into());
        }
        if from == to {
            return Ok(None);
        }
        self.change(parent, Change::Rename(from, to));
        Ok(replaced)
    }

    pub(super) fn sync(&mut self, dir: &Path) -> Result<()> {
        let number = self.dir(dir)?;
        let dir = self.dirs.get_mut(&number).expect("dir() found it");
        dir.durable = Arc::clone(&dir.live);
        dir.unsynced.clear();
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> Result<Vec<String>> {
        Ok(self.dirs[&self.dir(dir)?].live.keys().cloned().collect())
    }

    pub(super) fn lookup(&self, path: &Path) -> Result<Entry> {
        let mut at = Entry::Dir(0);
        for component in path.components() {
            if let Component::Normal(name) = component {
                let Entry::Dir(dir) = at else { return Err(ErrorKind::NotADirectory.into()) };
                let name = name.to_string_lossy();
                at = *self.dirs[&dir].live.get(name.as_ref()).ok_or(ErrorKind::NotFound)?;
            }
        }
        Ok(at)
    }

    pub(super) fn file(&self, path: &Path) -> Result<u64> {
        match self.lookup(path)? {
            Entry::File(inode) => Ok(inode),
            Entry::Dir(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// Inodes that a name leads to now or may lead to after a crash.
    pub(super) fn reachable(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        for dir in self.dirs.values() {
            let created = dir.unsynced.iter().filter_map(|c| match c {
                Change::Create(_, entry) => Some(entry),
                _ => None,
            });
            for entry in dir.live.values().chain(dir.durable.values()).chain(created) {
                if let Entry::File(inode) = entry {
                    found.insert(*inode);
                }
            }
        }
        found
    }

    /// Upper bound of the number of ways in which the unsynced changes can survive.
    pub(super) fn image_count_max(&self) -> u64 {
        let changes: usize = self.dirs.values().map(|dir| dir.unsynced.len()).sum();
        1u64.checked_shl(changes as u32).unwrap_or(u64::MAX)
    }

    /// The directories after a power cut, by `chooser`, and the inodes that still have a name.
    pub(super) fn after_crash(&self, chooser: &mut dyn Choose) -> (Names, BTreeSet<u64>) {
        let mut image = Names { dirs: BTreeMap::new(), next_dir: self.next_dir };
        let (mut todo, mut inodes) = (vec![0], BTreeSet::new());
        while let Some(number) = todo.pop() {
            let entries = Arc::new(self.dirs[&number].after_crash(chooser));
            for entry in entries.values() {
                match entry {
                    Entry::Dir(below) => todo.push(*below),
                    Entry::File(inode) => drop(inodes.insert(*inode)),
                }
            }
            let dir = Dir { live: Arc::clone(&entries), durable: entries, unsynced: Vec::new() };
            image.dirs.insert(number, dir);
        }
        (image, inodes)
    }

    fn dir(&self, path: &Path) -> Result<u64> {
        match self.lookup(path)? {
            Entry::Dir(number) => Ok(number),
            Entry::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn split(&self, path: &Path) -> Result<(u64, String)> {
        let name = path.file_name().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name.to_string_lossy().into_owned()))
    }

    fn change(&mut self, dir: u64, change: Change) {
        let dir = self.dirs.get_mut(&dir).expect("the caller resolved it");
        change.apply(Arc::make_mut(&mut dir.live));
        dir.unsynced.push(change);
    }
}

impl Dir {
    fn after_crash(&self, chooser: &mut dyn Choose) -> Entries {
        let mut entries = Entries::clone(&self.durable);
        let mut lost: BTreeSet<&str> = BTreeSet::new();
        for change in &self.unsynced {
            let names = change.names();
            if names.iter().any(|n| lost.contains(n)) || chooser.choose(2) == 0 {
                lost.extend(names);
            } else {
                change.apply(&mut entries);
            }
        }
        entries
    }
}

impl Change {
    fn names(&self) -> Vec<&str> {
        match self {
            Change::Create(name, _) | Change::Remove(name) => vec![name],
            Change::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, entries: &mut Entries) {
        match self {
            Change::Create(name, entry) => drop(entries.insert(name.clone(), *entry)),
            Change::Remove(name) => drop(entries.remove(name)),
            Change::Rename(from, to) => {
                let entry = entries.remove(from).expect("names change in order");
                entries.insert(to.clone(), entry);
            }
        }
    }
}
