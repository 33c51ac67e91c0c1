//! No connection waits for ever: that its answer may be sent without waking its task (`src/server/conn/client_wait.rs`, that very file) under every
//! interleaving, in the C11 memory model (loom).

use loom::sync::Arc;
use loom::thread;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
}

#[path = "../src/server/conn/client_wait.rs"]
mod client_wait;

use client_wait::ClientWait;
use sync::{AtomicBool, AtomicUsize, Ordering, fence};

struct Connection {
    wait: ClientWait,
    /// One write is under way.
    pending: AtomicUsize,
    woken: AtomicBool,
}

/// A task wakes up by what its client sends, a read behind the write that is answered at this moment. `told` is how it says that it does not wait any more.
fn a_read_behind_a_write(told: fn(&ClientWait)) {
    loom::model(move || {
        let connection = Arc::new(Connection {
            wait: ClientWait::new(),
            pending: AtomicUsize::new(1),
            woken: AtomicBool::new(false),
        });
        connection.wait.begin();
        let answering = {
            let connection = Arc::clone(&connection);
            thread::spawn(move || {
                connection.pending.fetch_sub(1, Ordering::AcqRel);
                if !connection.wait.is_on() {
                    connection.woken.store(true, Ordering::Release);
                }
            })
        };
        told(&connection.wait);
        let has_to_wait = connection.pending.load(Ordering::Acquire) > 0;
        answering.join().expect("it answers");
        assert!(!has_to_wait || connection.woken.load(Ordering::Acquire), "it waits, and nobody wakes it");
    });
}

#[test]
fn a_task_that_waits_for_its_write_is_woken() {
    a_read_behind_a_write(ClientWait::end);
}

#[test]
#[should_panic(expected = "nobody wakes it")]
fn a_task_that_does_not_say_that_it_goes_on_is_not() {
    a_read_behind_a_write(|_| fence(Ordering::SeqCst));
}
