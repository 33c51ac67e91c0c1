//! Figures of one connection, for `cons` and `stat`: written by the connection's own task, read by anyone.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::wire::OpCode;

/// Figures of one connection.
///
/// Requests and replies are recorded by one thread at a time, so that is plain loads and stores; events come from whoever applies
/// writes, at any time, so what is sent is counted by additions. `crst` resets from elsewhere, and what was recorded at that very
/// moment may survive it (S2).
#[derive(Debug)]
#[repr(C)]
pub struct ConnStats {
    // In one go by whoever answers; what is not, last.
    sent: AtomicU64,
    outstanding: AtomicU64,
    last_op: AtomicI32,
    last_cxid: AtomicI64,
    last_zxid: AtomicI64,
    last_response_ms: AtomicI64,
    last_latency_us: AtomicU64,
    min_latency_us: AtomicU64,
    max_latency_us: AtomicU64,
    sum_latency_us: AtomicU64,
    count: AtomicU64,
    received: AtomicU64,
    /// Wall time of the connection, ms since 1970.
    established_ms: i64,
}

/// [`ConnStats::last_op`] before the first reply; no op code.
const NO_OP: i32 = i32::MIN;

/// What a connection's figures say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnFigures {
    /// Wall time of the connection, ms since 1970.
    pub established_ms: i64,
    /// Requests read.
    pub received: u64,
    /// Replies and events written.
    pub sent: u64,
    /// Requests not answered yet.
    pub outstanding: u64,
    /// Short name of the last answered request, as ZooKeeper prints it.
    pub last_op: &'static str,
    /// xid of the last answered request that had an ordinary one; -1 before it.
    pub last_cxid: i64,
    /// zxid of the last reply.
    pub last_zxid: i64,
    /// Wall time of the last reply, ms since 1970.
    pub last_response_ms: i64,
    /// Latencies in ms: last, smallest, mean, largest.
    pub latency_ms: [u64; 4],
}

impl ConnStats {
    /// A connection accepted at `established_ms`.
    #[must_use]
    pub const fn new(established_ms: i64) -> ConnStats {
        ConnStats {
            established_ms,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            last_op: AtomicI32::new(NO_OP),
            last_cxid: AtomicI64::new(-1),
            last_zxid: AtomicI64::new(-1),
            last_response_ms: AtomicI64::new(0),
            last_latency_us: AtomicU64::new(0),
            min_latency_us: AtomicU64::new(u64::MAX),
            max_latency_us: AtomicU64::new(0),
            sum_latency_us: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }

    /// So many requests were read.
    pub fn requests(&self, count: u64) {
        bump(&self.received, count);
    }

    /// A reply was written that is not to an operation: to a connect request, to auth, to nonsense.
    pub fn other_reply(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// An event was written.
    pub fn event(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// How many requests wait for their reply now.
    pub fn set_outstanding(&self, requests: u64) {
        self.outstanding.store(requests, Relaxed);
    }

    /// So many replies of one run were written; of the last: to which request, at which zxid, when, how long after the request.
    pub fn replies(&self, count: u64, op: OpCode, xid: i32, zxid: i64, now_ms: i64, latency_us: u64) {
        self.sent.fetch_add(count, Relaxed);
        self.last_op.store(op.to_i32(), Relaxed);
        // Special xids (ping, auth, setWatches) do not hide the client's last real operation.
        if xid >= 0 {
            self.last_cxid.store(xid.into(), Relaxed);
        }
        self.last_zxid.store(zxid, Relaxed);
        self.last_response_ms.store(now_ms, Relaxed);
        self.last_latency_us.store(latency_us, Relaxed);
        if latency_us < self.min_latency_us.load(Relaxed) {
            self.min_latency_us.store(latency_us, Relaxed);
        }
        if latency_us > self.max_latency_us.load(Relaxed) {
            self.max_latency_us.store(latency_us, Relaxed);
        }
        bump(&self.sum_latency_us, latency_us.saturating_mul(count));
        bump(&self.count, count);
    }

    /// `crst`.
    pub fn reset(&self) {
        for counter in [&self.received, &self.sent, &self.sum_latency_us, &self.count, &self.max_latency_us] {
            counter.store(0, Relaxed);
        }
        self.min_latency_us.store(u64::MAX, Relaxed);
        self.last_latency_us.store(0, Relaxed);
        self.last_op.store(NO_OP, Relaxed);
        self.last_cxid.store(-1, Relaxed);
        self.last_zxid.store(-1, Relaxed);
        self.last_response_ms.store(0, Relaxed);
    }

    /// The figures now.
    #[must_use]
    pub fn figures(&self) -> ConnFigures {
        let count = self.count.load(Relaxed);
        let min = if count == 0 { 0 } else { self.min_latency_us.load(Relaxed) };
        let mean = self.sum_latency_us.load(Relaxed).checked_div(count).unwrap_or(0);
        let (last, max) = (self.last_latency_us.load(Relaxed), self.max_latency_us.load(Relaxed));
        ConnFigures {
            established_ms: self.established_ms,
            received: self.received.load(Relaxed),
            sent: self.sent.load(Relaxed),
            outstanding: self.outstanding.load(Relaxed),
            last_op: short_name(self.last_op.load(Relaxed)),
            last_cxid: self.last_cxid.load(Relaxed),
            last_zxid: self.last_zxid.load(Relaxed),
            last_response_ms: self.last_response_ms.load(Relaxed),
            latency_ms: [last, min.min(max), mean, max].map(|us| us / 1_000),
        }
    }
}

/// One writer at a time: a load and a store are enough, and cheaper than an atomic addition.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// ZooKeeper's four letters for an operation in `cons`.
fn short_name(op: i32) -> &'static str {
    let Some(op) = OpCode::from_i32(op) else { return "NA" };
    match op {
        OpCode::Ping => "PING",
        OpCode::CreateSession => "SESS",
        OpCode::CloseSession => "CLOS",
        OpCode::Multi => "MULT",
        OpCode::MultiRead => "MLTR",
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::SetData => "SETD",
        OpCode::Reconfig => "RECO",
        OpCode::SetAcl => "SETA",
        OpCode::Sync => "SYNC",
        OpCode::Check => "CHEC",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::SetWatches => "SETW",
        OpCode::SetWatches2 => "STW2",
        OpCode::AddWatch => "ADDW",
        OpCode::GetAcl => "GETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::WhoAmI => "HOMI",
        OpCode::GetEphemerals => "GETE",
        _ => "NA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_connection() {
        let stats = ConnStats::new(1_000);
        let fresh = stats.figures();
        assert_eq!((fresh.last_op, fresh.last_cxid, fresh.latency_ms), ("NA", -1, [0; 4]));
        stats.requests(1);
        stats.other_reply();
        stats.requests(2);
        stats.set_outstanding(1);
        stats.replies(1, OpCode::Create2, 7, 0x10, 2_000, 4_000);
        stats.replies(2, OpCode::Ping, -2, 0x11, 3_000, 2_000);
        stats.event();
        let f = stats.figures();
        assert_eq!((f.received, f.sent, f.outstanding), (3, 5, 1));
        assert_eq!((f.last_op, f.last_cxid, f.last_zxid, f.last_response_ms), ("PING", 7, 0x11, 3_000));
        assert_eq!(f.latency_ms, [2, 2, 2, 4], "the mean of 4, 2 and 2 is cut to 2");
        stats.reset();
        let f = stats.figures();
        assert_eq!((f.received, f.sent, f.outstanding, f.latency_ms), (0, 0, 1, [0; 4]));
        assert_eq!(f.established_ms, 1_000);
    }
}
