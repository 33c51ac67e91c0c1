//! A stage of the commit path: what waits for it is announced, and one thread at a time works it off, whichever comes. Nobody waits for a
//! stage; so that nothing is left lying (M1), each side tells the other before it looks:
//!
//! - who brings work announces it first, and then wakes somebody;
//! - who comes to work and finds the stage taken may leave: a fence stands between having seen the work and having failed to enter;
//! - who leaves the stage looks again: a fence stands between leaving and looking.
//!
//! One of the two sees the other. `tests/commit_stage.rs` runs this very file under every interleaving (loom), which is why its
//! primitives come from the parent module.

use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};

/// The owner's state behind a lock, and how much waits.
#[derive(Debug)]
pub(super) struct Stage<T> {
    waiting: AtomicUsize,
    owner: Mutex<T>,
}

impl<T> Stage<T> {
    pub(super) fn new(owner: T) -> Stage<T> {
        Stage { waiting: AtomicUsize::new(0), owner: Mutex::new(owner) }
    }

    /// So much waits now. Said under the lock of what waits, by whoever changed it.
    pub(super) fn announce(&self, waiting: usize) {
        self.waiting.store(waiting, Ordering::Release);
    }

    /// How much waits, by the last word.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// The stage, if something waits for it and nobody has it. Whoever leaves it asks [`Stage::has_work`] afterwards.
    pub(super) fn enter(&self) -> Option<MutexGuard<'_, T>> {
        if self.waiting() == 0 {
            return None;
        }
        fence(Ordering::SeqCst);
        self.owner.try_lock()
    }

    /// Does something wait? For those who have left the stage.
    pub(super) fn has_work(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiting() > 0
    }

    /// The stage, if nobody has it, whether or not something waits.
    pub(super) fn try_own(&self) -> Option<MutexGuard<'_, T>> {
        self.owner.try_lock()
    }

    /// The stage. Waits for whoever has it.
    pub(super) fn own(&self) -> MutexGuard<'_, T> {
        self.owner.lock()
    }
}
