//! Writes of this server's clients (and, on a leader, of everybody's) that were proposed or forwarded, and not applied yet; in order.
//!
//! - PE1: what is forwarded comes back in the order in which it was sent: one connection takes it to the leader, which prepares what comes from there in order.
//!   So the next transaction with a number of this server's is the answer to the oldest entry.
//! - PE2: a forwarded write has a number of its own, in place of its client's xid, in the transaction that comes of it. Clients that begin to count anew with each
//!   connection (kazoo does) send different writes with the same session and xid, and the transaction of one sent through another server may come after
//!   the next one was sent through this one.

use std::collections::VecDeque;

use crate::base::Zxid;
use crate::server::commit::Entry;
use crate::wire::txn::{TxnHeader, kind};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pending {
    entries: VecDeque<(Origin, Entry)>,
    /// Of the last write that was forwarded.
    number: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Proposed here.
    Zxid(Zxid),
    /// Forwarded with this number as its xid.
    Number(i32),
}

impl Pending {
    /// Numbers begin behind `seed`: at random, so that two servers, or two lives of one, hardly ever use the same for one session at the same time.
    pub(super) const fn new(seed: u32) -> Pending {
        Pending { entries: VecDeque::new(), number: seed }
    }

    /// A write that became transaction `zxid` here.
    pub(super) fn proposed(&mut self, zxid: Zxid, entry: Entry) {
        self.entries.push_back((Origin::Zxid(zxid), entry));
    }

    /// The xid with which the next write is forwarded: never negative, and not 0, which are a server's own.
    pub(super) fn next_number(&mut self) -> i32 {
        self.number = (self.number.wrapping_add(1) & i32::MAX.cast_unsigned()).max(1);
        self.number.cast_signed()
    }

    /// A write that was sent to the leader with this number.
    pub(super) fn forwarded(&mut self, number: i32, entry: Entry) {
        self.entries.push_back((Origin::Number(number), entry));
    }

    /// Whose transaction this is, if it is one of this server's.
    pub(super) fn take(&mut self, zxid: Zxid, header: &TxnHeader) -> Option<Entry> {
        let (origin, entry) = self.entries.front()?;
        let mine = match *origin {
            Origin::Zxid(proposed) => proposed == zxid,
            Origin::Number(number) => is_of(number, entry, header),
        };
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
fn is_of(number: i32, entry: &Entry, header: &TxnHeader) -> bool {
    let same_kind = header.kind == entry.op.to_i32() || header.kind == kind::ERROR;
    entry.session.0 == header.client_id && number == header.cxid && same_kind
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::base::SessionId;
    use crate::wire::OpCode;

    const ZXID: Zxid = Zxid(0x1_0000_0007);

    fn set_data(session: i64, xid: i32) -> Entry {
        let (op, received) = (OpCode::SetData, Instant::now());
        Entry {
            client: None,
            learner: None,
            session: SessionId(session),
            xid,
            op,
            received,
            start: 0,
            len: 0,
        }
    }

    fn transaction(client_id: i64, cxid: i32, kind: i32) -> TxnHeader {
        TxnHeader { client_id, cxid, zxid: ZXID.to_wire(), time_ms: 0, kind }
    }

    /// The client asked another server, lost that connection, came here, and began to count anew.
    #[test]
    fn the_transaction_of_a_write_that_was_sent_through_another_server_answers_nobody_here() {
        let (mut there, mut here) = (Pending::new(7), Pending::new(1 << 30));
        let (number_there, number_here) = (there.next_number(), here.next_number());
        there.forwarded(number_there, set_data(9, 1));
        here.forwarded(number_here, set_data(9, 1));
        let set = OpCode::SetData.to_i32();
        for kind in [set, kind::ERROR] {
            assert!(here.take(ZXID, &transaction(9, number_there, kind)).is_none());
        }
        let mine = here.take(ZXID, &transaction(9, number_here, set)).expect("its own");
        assert_eq!((mine.xid, here.is_empty()), (1, true));
        assert!(there.take(ZXID, &transaction(9, number_there, kind::ERROR)).is_some());
    }

    #[test]
    fn writes_come_back_in_order() {
        let mut pending = Pending::new(i32::MAX.cast_unsigned() - 2);
        let numbers: Vec<i32> = (0..4).map(|_| pending.next_number()).collect();
        assert_eq!(numbers, [i32::MAX - 1, i32::MAX, 1, 2]);
        for (n, number) in numbers.iter().enumerate() {
            pending.forwarded(*number, set_data(9, n as i32));
        }
        let set = OpCode::SetData.to_i32();
        assert!(pending.take(ZXID, &transaction(9, numbers[3], set)).is_none(), "not its turn");
        assert!(pending.take(ZXID, &transaction(8, numbers[0], set)).is_none(), "another session's");
        assert!(pending.take(ZXID, &transaction(9, numbers[0], OpCode::Delete.to_i32())).is_none());
        assert_eq!(pending.take(ZXID, &transaction(9, numbers[0], set)).map(|entry| entry.xid), Some(0));
    }

    #[test]
    fn what_was_proposed_here_is_known_by_its_zxid() {
        let mut pending = Pending::new(0);
        pending.proposed(ZXID, set_data(9, 1));
        let header = transaction(9, 1, OpCode::SetData.to_i32());
        assert!(pending.take(Zxid(ZXID.0 - 1), &header).is_none());
        assert!(pending.take(ZXID, &header).is_some());
    }
}
