//! Where written requests go: a preallocated file, appended and flushed; and the thread that does it for all connections.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use parking_lot::{Condvar, Mutex};

use super::io::Outlet;

/// Bytes of the file; appending starts over at its end, so that every flush meets blocks that exist.
const FILE_BYTES: usize = 64 << 20;
/// Bytes of one prefilling write.
const PREFILL_BYTES: usize = 4 << 10;

/// The file. It has no name any more once it is open: nothing is left behind, however the process ends.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    at: usize,
}

impl Journal {
    /// Creates it in `dir` and writes all of its blocks.
    pub(super) fn create(dir: &Path) -> anyhow::Result<Journal> {
        let unique = std::process::id();
        let random = getrandom::u64().map_err(|e| anyhow::anyhow!("no randomness for a file name: {e}"))?;
        let path = dir.join(format!(".zabra-floor-{unique}-{random:016x}"));
        let failed =
            || format!("cannot write the floor's file of {} MiB in {}", FILE_BYTES >> 20, dir.display());
        let mut file = File::create_new(&path).with_context(failed)?;
        let unlinked = std::fs::remove_file(&path);
        for _ in 0..FILE_BYTES / PREFILL_BYTES {
            file.write_all(&[0; PREFILL_BYTES]).with_context(failed)?;
        }
        file.sync_all().with_context(failed)?;
        unlinked.with_context(failed)?;
        Ok(Journal { file, at: 0 })
    }

    /// Appends `bytes` and waits until they are on the disk.
    pub(super) fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        for piece in bytes.chunks(FILE_BYTES) {
            if self.at + piece.len() > FILE_BYTES {
                self.at = 0;
            }
            self.file.write_all_at(piece, self.at as u64).context("cannot write the floor's file")?;
            self.at += piece.len();
        }
        self.file.sync_data().context("cannot flush the floor's file")
    }
}

/// What waits for the group thread.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    replies: Vec<(Arc<Outlet>, Vec<u8>)>,
    stop: bool,
}

/// The group thread's side and everyone else's.
#[derive(Debug)]
pub(super) struct Group {
    queue: Mutex<Queue>,
    wake: Condvar,
    journal: Mutex<Journal>,
}

impl Group {
    /// A group that flushes `journal`.
    pub(super) fn new(journal: Journal) -> Group {
        Group { queue: Mutex::default(), wake: Condvar::new(), journal: Mutex::new(journal) }
    }

    /// `reply` goes out through `outlet` once `bytes` are on the disk.
    pub(super) fn push(&self, bytes: &[u8], outlet: &Arc<Outlet>, reply: Vec<u8>) {
        outlet.waiting.fetch_add(1, Ordering::AcqRel);
        let mut queue = self.queue.lock();
        let idle = queue.replies.is_empty();
        queue.bytes.extend_from_slice(bytes);
        queue.replies.push((Arc::clone(outlet), reply));
        drop(queue);
        if idle {
            self.wake.notify_one();
        }
    }

    /// Ends [`Group::run`].
    pub(super) fn stop(&self) {
        self.queue.lock().stop = true;
        self.wake.notify_one();
    }

    /// The thread: takes all that waits, flushes it once, answers.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut journal = self.journal.lock();
        let mut taken = Queue::default();
        loop {
            let mut queue = self.queue.lock();
            while queue.replies.is_empty() && !queue.stop {
                self.wake.wait(&mut queue);
            }
            if queue.stop {
                return Ok(());
            }
            std::mem::swap(&mut *queue, &mut taken);
            drop(queue);
            if !taken.bytes.is_empty() {
                journal.append(&taken.bytes)?;
            }
            taken.bytes.clear();
            for (outlet, reply) in taken.replies.drain(..) {
                outlet.send(&reply);
                outlet.waiting.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_no_name_and_appending_starts_over_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        journal.append(b"first").unwrap();
        assert_eq!(journal.at, 5);
        journal.at = FILE_BYTES - 2;
        journal.append(b"wraps").unwrap();
        assert_eq!(journal.at, 5);
        let mut start = [0; 5];
        journal.file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"wraps");
        assert_eq!(journal.file.metadata().unwrap().len(), FILE_BYTES as u64);
    }
}
