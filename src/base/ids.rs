//! Identifiers. Logical order is a [`Zxid`]; a place in the log is a [`LogPos`]; the two are never mixed.

use std::fmt;

/// An epoch: the high half of a zxid, one per leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A transaction id: epoch in the high 32 bits, counter in the low 32. Total order of all writes.
///
/// Travels as a signed long on ZooKeeper's wire; ZooKeeper never lets the epoch reach the sign bit.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub u64);

impl Zxid {
    /// Before the first transaction.
    pub const ZERO: Zxid = Zxid(0);

    /// The transaction number `counter` of `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch, counter: u32) -> Zxid {
        Zxid(((epoch.0 as u64) << 32) | counter as u64)
    }

    /// The high half.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// The low half; the first transaction of an epoch has counter 1.
    #[must_use]
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid after this one, rolling into the next epoch (at counter 1) when the counter is used up.
    #[must_use]
    pub const fn next(self) -> Zxid {
        if self.counter() == u32::MAX { Zxid::new(Epoch(self.epoch().0 + 1), 1) } else { Zxid(self.0 + 1) }
    }

    /// As it travels: a signed 64-bit integer.
    #[must_use]
    pub const fn to_wire(self) -> i64 {
        self.0 as i64
    }

    /// From its signed form on the wire.
    #[must_use]
    pub const fn from_wire(v: i64) -> Zxid {
        Zxid(v as u64)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A member of the ensemble (`myid`, `server.N`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub i64);

/// A client session, the same on every node. 0 means "none yet" in a connect request.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One TCP connection of this process, never used twice. Watches belong to connections, not to sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A place in the transaction log: segment number and byte offset in it. Orders as the log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPos {
    /// Number of the segment; grows by one with each segment. After a truncation, or a rotation that came to nothing, a number is used
    /// again; the segment's salt is then another, so that no record of the earlier life validates.
    pub segment: u64,
    /// Bytes from the start of the segment file.
    pub offset: u64,
}

impl fmt::Display for LogPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxid_halves() {
        let z = Zxid::new(Epoch(5), 7);
        assert_eq!((z.epoch(), z.counter()), (Epoch(5), 7));
        assert_eq!(z.to_string(), "0x500000007");
        assert_eq!(Zxid::from_wire(z.to_wire()), z);
    }

    #[test]
    fn zxid_rolls_into_the_next_epoch_when_the_counter_is_used_up() {
        assert_eq!(Zxid::new(Epoch(1), u32::MAX).next(), Zxid::new(Epoch(2), 1));
        assert_eq!(Zxid::new(Epoch(1), 9).next(), Zxid::new(Epoch(1), 10));
    }
}
