//! Who may vote: the active configuration, and the one that is to follow while a reconfiguration is under way.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::QuorumConfig;
use crate::base::ServerId;

/// One configuration, or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Electorate {
    current: Arc<QuorumConfig>,
    /// Newer than `current`.
    next: Option<Arc<QuorumConfig>>,
}

impl Electorate {
    /// `next` counts only when it is newer than `current`.
    #[must_use]
    pub fn new(current: Arc<QuorumConfig>, next: Option<Arc<QuorumConfig>>) -> Electorate {
        let next = next.filter(|next| next.version() > current.version());
        Electorate { current, next }
    }

    /// The active configuration: the one that notifications carry.
    #[must_use]
    pub const fn current(&self) -> &Arc<QuorumConfig> {
        &self.current
    }

    /// Makes `config`, which is newer, the active one.
    pub fn adopt(&mut self, config: Arc<QuorumConfig>) {
        assert!(config.version() > self.current.version(), "only a newer configuration is adopted");
        self.next = self.next.take().filter(|next| next.version() > config.version());
        self.current = config;
    }

    fn both(&self) -> impl Iterator<Item = &QuorumConfig> {
        std::iter::once(&self.current).chain(&self.next).map(Arc::as_ref)
    }

    /// Has `id` a vote in either configuration?
    #[must_use]
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.both().any(|config| config.is_voter(id))
    }

    /// All who have a vote, in order.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<ServerId> {
        self.both().flat_map(QuorumConfig::voters).collect()
    }

    /// All members, observers too.
    #[must_use]
    pub fn members(&self) -> BTreeSet<ServerId> {
        self.both().flat_map(|config| config.members().keys().copied()).collect()
    }

    /// Is `set` a quorum of every configuration?
    #[must_use]
    pub fn contains_quorum(&self, set: &BTreeSet<ServerId>) -> bool {
        self.both().all(|config| config.contains_quorum(set))
    }

    /// May `id` be elected? A voter of the next configuration may, so that a hand-over can go either way.
    #[must_use]
    pub fn may_lead(&self, id: ServerId) -> bool {
        self.both().any(|config| config.weight(id) > 0)
    }

    /// Does `id` propose itself? Only with a vote in the active configuration; one that is to get its vote helps to elect.
    #[must_use]
    pub fn stands(&self, id: ServerId) -> bool {
        self.current.is_voter(id)
    }
}
