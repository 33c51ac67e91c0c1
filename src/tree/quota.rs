//! Quotas: limits set by clients below `/zookeeper/quota`, and what is used of them, counted by the tree.
//!
//! - Q1: the quota of `/a/b` is the node `/zookeeper/quota/a/b/zookeeper_limits`; what is used of it is kept in the data of
//!   `zookeeper_stats` beside it, in place: no version, no zxid, no watch. Both lie below `/zookeeper/` and so outside the digest.
//! - Q2: only the deepest quota root at or above a path counts it. There is no quota on `/`.
//! - Q3: the set of quota roots follows from the nodes there are; images do not hold it.

use super::maps::{self, Set, State};

/// Everything about quotas is below this node.
pub(super) const QUOTA_ROOT: &str = "/zookeeper/quota";
/// Holds the limits.
pub(super) const LIMITS: &str = "zookeeper_limits";
/// Holds what is used.
pub(super) const STATS: &str = "zookeeper_stats";

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

impl QuotaLimits {
    /// No limits.
    pub const NONE: QuotaLimits = QuotaLimits { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1 };

    /// From the data of a quota node: `count=N,bytes=N=;byteHardLimit=N;countHardLimit=N`. Clients may write anything there: `None`
    /// for what ZooKeeper cannot read either.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<QuotaLimits> {
        let text = std::str::from_utf8(data).ok()?.trim_end_matches(SEPARATORS);
        let is_readable = |(at, pair): (usize, &str)| match pair {
            // Several separators in a row are one, but not in front of the first pair.
            "" => at > 0 || text.is_empty(),
            _ => parse_pair(pair).is_some(),
        };
        text.split(SEPARATORS).enumerate().all(is_readable).then(|| QuotaLimits::parse_what_can_be(data))
    }

    /// The same, where what cannot be read is left out.
    pub(super) fn parse_what_can_be(data: &[u8]) -> QuotaLimits {
        let mut limits = QuotaLimits::NONE;
        for (key, value) in pairs(data) {
            match key {
                "count" => limits.count = value,
                "bytes" => limits.bytes = value,
                "countHardLimit" => limits.count_hard = value,
                "byteHardLimit" => limits.bytes_hard = value,
                _ => {}
            }
        }
        limits
    }
}

/// Between two pairs of key and value.
const SEPARATORS: [char; 2] = [',', ';'];

fn pairs(data: &[u8]) -> impl Iterator<Item = (&str, i64)> {
    let text = std::str::from_utf8(data).unwrap_or_default();
    text.split(SEPARATORS).filter_map(parse_pair)
}

/// `bytes=5=;…` is how ZooKeeper joins the two halves: what is behind a second `=` does not count.
fn parse_pair(pair: &str) -> Option<(&str, i64)> {
    let mut parts = pair.trim_end_matches('=').split('=');
    let (key, value) = (parts.next()?, parts.next()?);
    Some((key, if value.is_empty() { -1 } else { value.parse().ok()? }))
}

/// The data of a stats node after `count` more nodes and `bytes` more bytes. Keys that are not its own stay.
pub(super) fn add_to_stats(data: &[u8], count: i64, bytes: i64) -> Vec<u8> {
    let now = QuotaLimits::parse_what_can_be(data);
    let mut text = format!("count={},bytes={}", now.count.wrapping_add(count), now.bytes.wrapping_add(bytes));
    let mut others: Vec<(&str, i64)> =
        pairs(data).filter(|(key, _)| !matches!(*key, "count" | "bytes")).collect();
    others.sort_by_key(|(key, _)| *key);
    if !others.is_empty() {
        text.push('=');
    }
    for (key, value) in others {
        text.push_str(&format!(";{key}={value}"));
    }
    text.into_bytes()
}

/// A quota and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota<'a> {
    /// The quota root.
    pub path: &'a str,
    /// From `zookeeper_limits`; `None` when it cannot be read.
    pub limits: Option<QuotaLimits>,
    /// From `zookeeper_stats` (`count` and `bytes`); `None` without that node.
    pub used: Option<QuotaLimits>,
}

/// The quota roots.
#[derive(Debug)]
pub(super) struct Quotas {
    roots: Set<Box<str>>,
}

impl Quotas {
    pub(super) fn new(seed: u64) -> Quotas {
        let state: State = maps::state(seed);
        Quotas { roots: Set::with_hasher(state) }
    }

    /// Length of the deepest quota root at or above `path`, which it is a prefix of.
    pub(super) fn deepest(&self, path: &str) -> Option<usize> {
        if self.roots.is_empty() {
            return None;
        }
        let mut prefix = path;
        while !prefix.is_empty() {
            if self.roots.contains(prefix) {
                return Some(prefix.len());
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
        None
    }

    pub(super) fn add(&mut self, root: &str) {
        self.roots.insert(root.into());
    }

    pub(super) fn remove(&mut self, root: &str) {
        self.roots.remove(root);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.roots.iter().map(|root| &**root)
    }
}

/// `/a/b` when `parent` is `/zookeeper/quota/a/b`, the place of its limits and stats. Not for `/` (Q2).
pub(super) fn root_of(parent: &str) -> Option<&str> {
    parent.strip_prefix(QUOTA_ROOT).filter(|root| root.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_zookeeper_reads_them() {
        let parse = |s: &str| QuotaLimits::parse(s.as_bytes());
        let full = QuotaLimits { count: 5, bytes: 10, count_hard: 7, bytes_hard: 20 };
        assert_eq!(parse("count=5,bytes=10=;byteHardLimit=20;countHardLimit=7"), Some(full));
        let five = Some(QuotaLimits { count: 5, ..QuotaLimits::NONE });
        for text in ["count=5,bytes=-1", "count=5", "count=5,,;other=-7,", "count=+5=6=x", "bytes==9;count=5"]
        {
            assert_eq!(parse(text), five, "{text}");
        }
        assert_eq!((parse(""), parse(",;")), (Some(QuotaLimits::NONE), Some(QuotaLimits::NONE)));
        for text in ["count", "count=", "=", "count=5,bytes=x", ",count=5", "count=5, bytes= 1", "count=5,=="]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(QuotaLimits::parse(b"\xff"), None);
    }

    #[test]
    fn stats_are_written_as_zookeeper_writes_them() {
        assert_eq!(add_to_stats(b"count=1,bytes=0", 1, 5), b"count=2,bytes=5");
        assert_eq!(add_to_stats(b"", 1, 5), b"count=0,bytes=4");
        assert_eq!(add_to_stats(b"b=1;a=2,bytes=3", 0, 0), b"count=-1,bytes=3=;a=2;b=1");
    }

    #[test]
    fn the_deepest_root_counts() {
        let mut quotas = Quotas::new(1);
        assert_eq!(quotas.deepest("/a"), None);
        quotas.add("/a");
        quotas.add("/a/b/c");
        let deepest = |path: &'static str| quotas.deepest(path).map(|len| &path[..len]);
        assert_eq!(deepest("/a/b"), Some("/a"));
        assert_eq!(deepest("/a/b/c"), Some("/a/b/c"));
        assert_eq!(deepest("/a/b/c/d/e"), Some("/a/b/c"));
        assert_eq!(deepest("/ab"), None);
        assert_eq!(deepest("/"), None);
        assert_eq!(root_of("/zookeeper/quota/x/y"), Some("/x/y"));
        assert_eq!(root_of("/zookeeper/quota"), None);
        assert_eq!(root_of("/zookeeper/quotax"), None);
    }
}
