//! No write is left lying: the stages of the commit path (`src/server/commit/stage.rs`, that very file) under every interleaving that
//! three preemptions can make, in the C11 memory model (loom).
//!
//! The path around them is a model of `src/server/commit.rs`: a connection that carries out its own write, one that wakes the commit
//! thread, and that thread.

use loom::sync::Arc;
use loom::thread;

mod sync {
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering, fence};

    /// Loom's, with the signatures of the one in use.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("not poisoned")
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

#[path = "../src/server/commit/stage.rs"]
#[allow(dead_code, reason = "not all of it is modelled")]
mod stage;

use stage::Stage;
use sync::{AtomicUsize, Mutex, Ordering};

/// What is left out of the protocol, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Who leaves the stages does not look again.
    NeverLooksAgain,
}

/// Two stages, each counting what passes through it.
struct Path {
    queue: Mutex<usize>,
    prepare: Stage<()>,
    appended: Mutex<usize>,
    flush: Stage<()>,
    done: AtomicUsize,
    /// 1: the commit thread will run (again), as after `unpark`.
    token: AtomicUsize,
    mutation: Mutation,
}

impl Path {
    fn new(mutation: Mutation) -> Path {
        Path {
            queue: Mutex::new(0),
            prepare: Stage::new(()),
            appended: Mutex::new(0),
            flush: Stage::new(()),
            done: AtomicUsize::new(0),
            token: AtomicUsize::new(0),
            mutation,
        }
    }

    fn submit(&self) {
        let mut queue = self.queue.lock();
        *queue += 1;
        self.prepare.announce(*queue);
    }

    fn round(&self) -> bool {
        let mut worked = false;
        if let Some(_stage) = self.prepare.enter() {
            let mut queue = self.queue.lock();
            let count = std::mem::take(&mut *queue);
            self.prepare.announce(0);
            drop(queue);
            let mut appended = self.appended.lock();
            *appended += count;
            self.flush.announce(*appended);
            worked = true;
        }
        if let Some(_stage) = self.flush.enter() {
            let mut appended = self.appended.lock();
            self.done.fetch_add(std::mem::take(&mut *appended), Ordering::Relaxed);
            self.flush.announce(0);
            worked = true;
        }
        worked
    }

    fn unpark(&self) {
        // As the standard library does: one token, but whoever finds it has heard everybody who gave it.
        self.token.swap(1, Ordering::Release);
    }

    /// A connection that is alone with its write.
    fn lone(&self) {
        self.submit();
        self.round();
        if self.mutation != Mutation::NeverLooksAgain && (self.prepare.has_work() || self.flush.has_work()) {
            self.unpark();
        }
    }

    /// A connection among others.
    fn among_others(&self) {
        self.submit();
        self.unpark();
    }

    /// The commit thread from one sleep to the next, if it was woken.
    fn commit_thread(&self) {
        if self.token.swap(0, Ordering::AcqRel) == 1 {
            while self.round() {}
        }
    }
}

fn explore(mutation: Mutation) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let path = Arc::new(Path::new(mutation));
        let (lone, commit) = (Arc::clone(&path), Arc::clone(&path));
        let lone = thread::spawn(move || lone.lone());
        let commit = thread::spawn(move || commit.commit_thread());
        path.among_others();
        lone.join().expect("a connection");
        commit.join().expect("the commit thread");
        // Everybody has left. If there is work still, the commit thread must have been told.
        path.commit_thread();
        assert_eq!(path.done.load(Ordering::Relaxed), 2, "a write is left lying");
    });
}

#[test]
fn nothing_is_left_lying() {
    explore(Mutation::None);
}

#[test]
#[should_panic(expected = "a write is left lying")]
fn without_looking_again_something_is() {
    explore(Mutation::NeverLooksAgain);
}
