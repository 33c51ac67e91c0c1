//! What transactions do to quotas: which roots there are, and what is used below them ([`super::quota`]).

use super::quota::{self, LIMITS, QUOTA_ROOT, Quota, QuotaLimits, STATS};
use super::{Tree, slab::NIL};

impl Tree {
    /// The quota that counts at `path`: that of the deepest quota root at or above it.
    #[must_use]
    pub fn quota_for<'a>(&'a self, path: &'a str) -> Option<Quota<'a>> {
        let len = self.quotas.deepest(path)?;
        Some(self.quota_at(&path[..len]))
    }

    /// All quotas, in no order.
    pub fn quotas(&self) -> impl Iterator<Item = Quota<'_>> + '_ {
        self.quotas.iter().map(|root| self.quota_at(root))
    }

    fn quota_at<'a>(&self, root: &'a str) -> Quota<'a> {
        let data = |name| self.quota_node(root, name).map(|slot| self.slab.get(slot).data());
        Quota {
            path: root,
            limits: data(LIMITS).flatten().and_then(QuotaLimits::parse),
            used: data(STATS).map(|data| QuotaLimits::parse_what_can_be(data.unwrap_or_default())),
        }
    }

    /// `/zookeeper/quota<root>/<name>`, without building that path.
    fn quota_node(&self, root: &str, name: &str) -> Option<u32> {
        let top = self.slot_below(self.slot_of(QUOTA_ROOT)?, root)?;
        self.index.find(&self.slab, top, name.as_bytes())
    }

    pub(super) fn quota_after_create(&mut self, path: &str, parent: &str, name: &str, data_len: i32) {
        // Nearly every create ends here.
        if let Some(root) = quota::root_of(parent) {
            match name {
                LIMITS => self.quotas.add(root),
                STATS => self.quota_recount(root),
                _ => {}
            }
        }
        self.quota_add(path, 1, i64::from(data_len));
    }

    pub(super) fn quota_after_delete(&mut self, path: &str, parent: &str, name: &str, data_len: usize) {
        if name == LIMITS
            && let Some(root) = quota::root_of(parent)
        {
            self.quotas.remove(root);
        }
        self.quota_add(path, -1, -(data_len as i64));
    }

    /// Adds to what is used at `path`.
    pub(super) fn quota_add(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(len) = self.quotas.deepest(path) else { return };
        let root = &path[..len];
        let Some(slot) = self.quota_node(root, STATS) else { return };
        let stats = quota::add_to_stats(self.slab.get(slot).data().unwrap_or_default(), count, bytes);
        self.write_stats(root, slot, &stats);
    }

    /// A stats node has come to be: says what is at and below its root, which the tree has counted all along.
    pub(super) fn quota_recount(&mut self, root: &str) {
        let Some(slot) = self.quota_node(root, STATS) else { return };
        let (mut count, mut bytes) = (0, 0);
        if let Some(top) = self.slot_of(root) {
            let below = self.below(top);
            count = 1 + u64::from(below.0);
            bytes = self.slab.get(top).data_len() as u64 + below.1;
        }
        let stats = format!("count={count},bytes={bytes}");
        self.write_stats(root, slot, stats.as_bytes());
    }

    fn write_stats(&mut self, root: &str, slot: u32, stats: &[u8]) {
        let path = format!("{QUOTA_ROOT}{root}/{STATS}");
        self.replace_data(slot, &path, Some(stats), |_| {});
    }

    /// Counts afresh what is used of every quota, as ZooKeeper does whenever it loads: for nodes of different times, where nobody knows which
    /// are counted.
    pub fn count_usage(&mut self) {
        let roots: Vec<String> = self.quotas.iter().map(str::to_owned).collect();
        roots.iter().for_each(|root| self.quota_recount(root));
    }

    /// Quota roots of loaded nodes (Q3).
    pub(super) fn find_quota_roots(&mut self) {
        let Some(top) = self.slot_of(QUOTA_ROOT) else { return };
        let mut limits = Vec::new();
        self.walk(top, |slot, node| {
            if node.name() == LIMITS.as_bytes() {
                debug_assert_ne!(node.parent, NIL);
                limits.push(slot);
            }
        });
        for slot in limits {
            let parent = self.path_of(self.slab.get(slot).parent);
            if let Some(root) = quota::root_of(&parent) {
                self.quotas.add(root);
            }
        }
    }
}
