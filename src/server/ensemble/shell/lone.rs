//! Writes of a connection that is alone with them: to the peers without a hand-over to the member's thread. A wake-up costs as much as half a flush
//! of a fast disk, and this server's own flush, which is left to that thread, begins when the peers' do.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::Shared;
use crate::server::conn::Conn;
use crate::server::ensemble::Ensemble;

/// A connection with more writes under way is a stream, and its task should go on reading it.
const LONE_WRITES_MAX: usize = 16;

/// Whose writes came last.
#[derive(Debug, Default)]
pub(in crate::server::ensemble) struct LastWriter(AtomicU64);

impl LastWriter {
    /// True when it was the same one before.
    fn is_again(&self, me: &Conn) -> bool {
        // Looked at first: two threads that write it in turn would pay for it each time.
        self.0.load(Ordering::Relaxed) == me.id.0 || self.0.swap(me.id.0, Ordering::Relaxed) == me.id.0
    }
}

impl Ensemble {
    /// Sees that the writes that `me` has submitted are carried out.
    pub(crate) fn kick(&self, shared: &Shared, me: &Conn) {
        let lone = self.last_writer.is_again(me) && {
            let pending = me.pending_writes();
            pending <= LONE_WRITES_MAX && shared.commit.outstanding() == pending
        };
        if !lone || self.carry_lone() {
            self.notify.notify_one();
        }
    }

    /// True when the member's thread is needed.
    fn carry_lone(&self) -> bool {
        // Who has it now looks into the queue afterwards, or is told to.
        let Some(mut held) = self.shell.try_lock() else { return true };
        held.as_mut().is_none_or(|shell| shell.carry_lone())
    }
}
