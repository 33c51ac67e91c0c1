//! Writes of this server's clients (and, on a leader, of everybody's) that were proposed or forwarded, and not applied yet; in order.
//!
//! - PE1: what is forwarded comes back in the order in which it was sent: one connection takes it to the leader, which prepares what comes from there in order.
//!   So the next transaction of a client of this server is the answer to the oldest entry.

use std::collections::VecDeque;

use crate::base::Zxid;
use crate::server::commit::Entry;
use crate::wire::txn::{TxnHeader, kind};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: VecDeque<(Zxid, Entry)>,
}

impl Pending {
    /// A write that became transaction `zxid` here.
    pub(super) fn proposed(&mut self, zxid: Zxid, entry: Entry) {
        self.entries.push_back((zxid, entry));
    }

    /// A write that was sent to the leader.
    pub(super) fn forwarded(&mut self, entry: Entry) {
        self.entries.push_back((Zxid::ZERO, entry));
    }

    /// Whose transaction this is, if it is one of this server's.
    pub(super) fn take(&mut self, zxid: Zxid, header: &TxnHeader) -> Option<Entry> {
        let (proposed, entry) = self.entries.front()?;
        let mine = if *proposed == Zxid::ZERO { is_of(entry, header) } else { *proposed == zxid };
        if mine { self.entries.pop_front().map(|(_, entry)| entry) } else { None }
    }

    /// All that is left, to be given up.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.drain(..).map(|(_, entry)| entry)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A session's own closeSession may be overtaken by the leader's, which has another xid.
fn is_of(entry: &Entry, header: &TxnHeader) -> bool {
    let same_kind = header.kind == entry.op.to_i32() || header.kind == kind::ERROR;
    entry.session.0 == header.client_id && entry.xid == header.cxid && same_kind
}
