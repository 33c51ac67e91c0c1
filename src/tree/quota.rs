//! Quotas.

/// What `zookeeper_limits` or `zookeeper_stats` holds; -1 is "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Nodes: soft limit, or nodes there are.
    pub count: i64,
    /// Bytes of data: soft limit, or bytes there are.
    pub bytes: i64,
    /// Nodes: hard limit.
    pub count_hard: i64,
    /// Bytes of data: hard limit.
    pub bytes_hard: i64,
}

/// A quota and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota<'a> {
    /// The quota root.
    pub path: &'a str,
    /// From `zookeeper_limits`.
    pub limits: QuotaLimits,
    /// From `zookeeper_stats` (`count` and `bytes`).
    pub used: QuotaLimits,
}
