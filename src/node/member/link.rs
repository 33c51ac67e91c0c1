//! One connection on the quorum port, as the member sees it: what is to be sent, and how far the other side was fed.

use crate::base::{ServerId, Zxid};
use crate::node::snap_stream::SnapSource;
use crate::storage::log::LogCursor;

/// Bytes waiting for a learner above which it is no longer fed by the broadcast but from the log, at its own pace.
pub(super) const BACKLOG_BYTES_MAX: usize = 8 << 20;

/// Bytes waiting below which more is read from log or tree.
pub(super) const BACKLOG_BYTES_LOW: usize = 1 << 20;

/// Memory kept by a drained buffer, bytes.
const KEEP_BYTES_MAX: usize = 1 << 20;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// Something was sent since this was last looked at.
    moved: bool,
}

impl Outgoing {
    /// To append to.
    pub(super) fn buf(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What waits.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The first `count` bytes of what waits are gone.
    pub(super) fn consume(&mut self, count: usize) {
        self.sent += count;
        self.moved |= count > 0;
        assert!(self.sent <= self.bytes.len(), "no more is sent than waits");
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
            self.bytes.shrink_to(KEEP_BYTES_MAX);
        } else if self.sent >= KEEP_BYTES_MAX && self.sent >= self.bytes.len() / 2 {
            // What is moved is no more than what was sent.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Whether the other side has taken anything since this was last asked.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) out: Outgoing,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Somebody connected, and it is not known yet whether this server leads.
    Parked,
    /// A learner of this leader.
    Learner(Box<Feed>),
    /// This learner's leader.
    Leader,
}

impl Link {
    pub(super) fn new(kind: Kind) -> Link {
        Link { out: Outgoing::default(), kind }
    }

    pub(super) fn feed(&mut self) -> Option<(&mut Feed, &mut Outgoing)> {
        match &mut self.kind {
            Kind::Learner(feed) => Some((feed, &mut self.out)),
            Kind::Parked | Kind::Leader => None,
        }
    }
}

/// How far a learner was fed.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) id: ServerId,
    pub(super) voter: bool,
    pub(super) zabra: bool,
    /// It gets a whole state, whatever it has.
    pub(super) needs_state: bool,
    /// It serves, and joins the next epoch as it is: no state may come to it under its clients.
    pub(super) kept: bool,
    /// What it has of this server's history: a state below it would take from its disk what may be committed by it.
    pub(super) state_least: Zxid,
    pub(super) source: Source,
    /// Last transaction put on the link.
    pub(super) sent: Zxid,
    /// Last COMMIT put on the link.
    pub(super) commit_sent: Zxid,
    /// NEWLEADER was put on the link.
    pub(super) new_leader_sent: bool,
    /// UPTODATE was put on the link.
    pub(super) up_to_date: bool,
}

/// Where the next transactions for a learner come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Nothing is owed yet.
    Idle,
    /// The whole state, once an image can be begun.
    Snap(Option<Box<SnapSource>>),
    /// The log.
    Log(Option<LogCursor>),
    /// The broadcast.
    Live,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_gone_and_what_waits_stays_in_order() {
        let mut out = Outgoing::default();
        out.buf().extend_from_slice(b"abcdef");
        out.consume(2);
        assert_eq!(out.waiting(), b"cdef");
        out.buf().extend_from_slice(b"gh");
        out.consume(5);
        assert_eq!(out.waiting(), b"h");
        out.consume(1);
        assert!(out.waiting().is_empty() && out.buf().is_empty());
    }

    #[test]
    fn it_is_noticed_once_that_something_was_taken() {
        let mut out = Outgoing::default();
        out.buf().extend_from_slice(b"abc");
        assert!(!out.take_moved(), "what waits is not taken");
        out.consume(1);
        assert!(out.take_moved() && !out.take_moved());
    }
}
