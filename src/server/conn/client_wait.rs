//! Whether a connection's task waits for its client, and for nothing else: then whoever answers it may send the answer itself, and let it sleep.
//!
//! No wait is missed, because each side tells the other before it looks:
//!
//! - the task says that it does not wait, and looks behind that at what it may have to wait for ([`ClientWait::end`]);
//! - who answers counts the write as answered, and looks behind that whether the task waits ([`ClientWait::is_on`]).
//!
//! One of the two sees the other. `tests/client_wait.rs` runs this very file under every interleaving (loom), which is why its primitives come
//! from the parent module.

use super::sync::{AtomicBool, Ordering, fence};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ClientWait(AtomicBool);

impl ClientWait {
    pub(super) fn new() -> ClientWait {
        ClientWait(AtomicBool::new(false))
    }

    /// The task found nothing else to wait for. Whatever comes now and is not for the client must wake it.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// The task goes on, and looks for what there is.
    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Does it wait? For those who have put in place what they have for it.
    pub(super) fn is_on(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }
}
