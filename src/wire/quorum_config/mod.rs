//! The configuration of an ensemble: ZooKeeper's `QuorumVerifier` text, and what a quorum is.
//!
//! The text travels in notifications, in NEWLEADER and in the node `/zookeeper/config`: lines `server.N=…`, for hierarchical
//! quorums `group.G=a:b:c` and `weight.N=…`, last `version=<hex>` without a newline.
//!
//! - Q1: what is printed parses to an equal configuration. Servers, groups and weights are printed in the order of their
//!   numbers, which is ZooKeeper's for ordinary small numbers.
//! - Q2: any two quorums of one configuration have a voter in common.
//! - Q3: only participants of this configuration count towards a quorum, whatever the set asked about holds.
//! - Q4: parsing allocates no more than a small multiple of the text, which [`CONFIG_TEXT_BYTES_MAX`] bounds.

mod electorate;
mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::base::ServerId;

pub use electorate::Electorate;
pub use member::{
    ANY_HOST, ClientAddress, HostPort, MEMBER_ADDRESSES_MAX, Member, MemberAddress, MemberError, MemberRole,
};

/// Longest text, bytes: what fits into the largest frame of the election (512 KiB).
pub const CONFIG_TEXT_BYTES_MAX: usize = 512 << 10;

/// Most members. ZooKeeper names none, but a server id is its session ids' top byte.
pub const MEMBERS_MAX: usize = 1_024;

/// Groups and weights of a hierarchical configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hierarchy {
    group_of: BTreeMap<ServerId, i64>,
    /// At least one for every participant.
    weight_of: BTreeMap<ServerId, u64>,
}

/// Who is in the ensemble, and what a quorum of them is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumConfig {
    members: BTreeMap<ServerId, Member>,
    hierarchy: Option<Hierarchy>,
    version: i64,
}

/// Why a text is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumConfigError {
    /// Longer than [`CONFIG_TEXT_BYTES_MAX`].
    #[error("a text of {bytes} bytes, more than {CONFIG_TEXT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8 from byte {at} on")]
    NotText {
        /// Bytes before the first that is wrong.
        at: usize,
    },
    /// More than [`MEMBERS_MAX`].
    #[error("more than {MEMBERS_MAX} members")]
    TooManyMembers,
    /// A line that is none of those there are, or whose number is none.
    #[error("line {line} is not a server, group, weight or version")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A server line that cannot be read.
    #[error("line {line}: expected {source}")]
    Member {
        /// Counted from 1.
        line: usize,
        /// What is expected.
        source: MemberError,
    },
    /// A server stands in two groups.
    #[error("server {} is in two groups", .0.0)]
    TwoGroups(ServerId),
    /// A participant of a hierarchical configuration stands in no group.
    #[error("server {} is in no group", .0.0)]
    NoGroup(ServerId),
    /// A group names a server that is not there and has no weight.
    #[error("server {} is in a group but has no weight", .0.0)]
    NoWeight(ServerId),
    /// Nobody votes.
    #[error("no participant")]
    NoVoter,
}

impl QuorumConfig {
    /// Majority quorums over `members`.
    pub fn majority(
        members: BTreeMap<ServerId, Member>,
        version: i64,
    ) -> Result<QuorumConfig, QuorumConfigError> {
        QuorumConfig { members, hierarchy: None, version }.checked()
    }

    /// Hierarchical quorums: a majority of the weight in a majority of the groups (groups without weight left out). `groups` says
    /// which group each participant is in; weights not given are 1.
    pub fn hierarchical(
        members: BTreeMap<ServerId, Member>,
        groups: BTreeMap<ServerId, i64>,
        weights: BTreeMap<ServerId, u64>,
        version: i64,
    ) -> Result<QuorumConfig, QuorumConfigError> {
        let hierarchy = Hierarchy { group_of: groups, weight_of: weights };
        QuorumConfig { members, hierarchy: Some(hierarchy), version }.checked()
    }

    /// Reads the text as it travels.
    pub fn parse_bytes(bytes: &[u8]) -> Result<QuorumConfig, QuorumConfigError> {
        let text =
            std::str::from_utf8(bytes).map_err(|e| QuorumConfigError::NotText { at: e.valid_up_to() })?;
        QuorumConfig::parse(text)
    }

    /// Reads the text. Like ZooKeeper, the last of two lines with one key counts; empty lines and comments do not.
    pub fn parse(text: &str) -> Result<QuorumConfig, QuorumConfigError> {
        if text.len() > CONFIG_TEXT_BYTES_MAX {
            return Err(QuorumConfigError::TooLong { bytes: text.len() });
        }
        let mut parser = Parser::default();
        for (index, line) in text.split(['\n', '\r']).enumerate() {
            parser.line(index + 1, line.trim())?;
        }
        QuorumConfig { members: parser.members, hierarchy: parser.hierarchy, version: parser.version }
            .checked()
    }

    fn checked(mut self) -> Result<QuorumConfig, QuorumConfigError> {
        if self.members.len() > MEMBERS_MAX {
            return Err(QuorumConfigError::TooManyMembers);
        }
        let voters: Vec<ServerId> = self.voters().collect();
        if voters.is_empty() {
            return Err(QuorumConfigError::NoVoter);
        }
        if let Some(hierarchy) = &mut self.hierarchy {
            for id in voters {
                hierarchy.weight_of.entry(id).or_insert(1);
                if !hierarchy.group_of.contains_key(&id) {
                    return Err(QuorumConfigError::NoGroup(id));
                }
            }
            if let Some(id) = hierarchy.group_of.keys().find(|id| !hierarchy.weight_of.contains_key(id)) {
                return Err(QuorumConfigError::NoWeight(*id));
            }
        }
        Ok(self)
    }

    /// The same ensemble at another version: the zxid that activates it.
    #[must_use]
    pub fn with_version(mut self, version: i64) -> QuorumConfig {
        self.version = version;
        self
    }

    /// Version; a zxid, or 0 at first.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// Everybody, by id.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<ServerId, Member> {
        &self.members
    }

    /// The participants, in order.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.members.iter().filter(|(_, member)| !member.is_observer()).map(|(id, _)| *id)
    }

    /// Is `id` a participant?
    #[must_use]
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.members.get(&id).is_some_and(|member| !member.is_observer())
    }

    /// Weight of a server; 0 for one that does not vote. A server of weight 0 is never elected.
    #[must_use]
    pub fn weight(&self, id: ServerId) -> u64 {
        match &self.hierarchy {
            _ if !self.is_voter(id) => 0,
            None => 1,
            Some(hierarchy) => hierarchy.weight_of.get(&id).copied().unwrap_or(0),
        }
    }

    /// Same members, groups and weights, whatever the versions.
    #[must_use]
    pub fn is_same_ensemble(&self, other: &QuorumConfig) -> bool {
        self.members == other.members && self.hierarchy == other.hierarchy
    }

    /// Is `set` a quorum?
    #[must_use]
    pub fn contains_quorum(&self, set: &BTreeSet<ServerId>) -> bool {
        match &self.hierarchy {
            None => {
                let count = set.iter().filter(|id| self.is_voter(**id)).count();
                count > self.voters().count() / 2
            }
            Some(hierarchy) => hierarchy.contains_quorum(|id| set.contains(&id) && self.is_voter(id)),
        }
    }
}

impl Hierarchy {
    fn contains_quorum(&self, has: impl Fn(ServerId) -> bool) -> bool {
        // Sums of up to MEMBERS_MAX (or one text's) 64-bit weights: 128 bits cannot overflow.
        let mut groups: BTreeMap<i64, (u128, u128)> = BTreeMap::new();
        for (id, group) in &self.group_of {
            let weight = u128::from(self.weight_of.get(id).copied().unwrap_or(0));
            let (all, heard) = groups.entry(*group).or_default();
            *all += weight;
            *heard += if has(*id) { weight } else { 0 };
        }
        let count = groups.values().filter(|(all, _)| *all > 0).count();
        let won = groups.values().filter(|(all, heard)| *heard > all / 2).count();
        won > count / 2
    }
}

/// Lines collected so far.
#[derive(Default)]
struct Parser {
    members: BTreeMap<ServerId, Member>,
    hierarchy: Option<Hierarchy>,
    version: i64,
}

impl Parser {
    fn line(&mut self, line: usize, text: &str) -> Result<(), QuorumConfigError> {
        if text.is_empty() || text.starts_with(['#', '!']) {
            return Ok(());
        }
        let wrong = QuorumConfigError::Line { line };
        let Some((key, value)) = text.split_once('=') else { return Err(wrong) };
        let (key, value) = (key.trim(), value.trim());
        if key == "version" {
            self.version = parse_version(value).ok_or(wrong)?;
            return Ok(());
        }
        let (family, number) = key.split_once('.').ok_or(wrong.clone())?;
        let number: i64 = number.parse().map_err(|_| wrong.clone())?;
        match family {
            "server" => self.server(line, ServerId(number), value),
            "group" => self.group(number, value, &wrong),
            "weight" => {
                let weight = value.parse().map_err(|_| wrong)?;
                self.hierarchy.get_or_insert_default().weight_of.insert(ServerId(number), weight);
                Ok(())
            }
            _ => Err(wrong),
        }
    }

    fn server(&mut self, line: usize, id: ServerId, value: &str) -> Result<(), QuorumConfigError> {
        let member = Member::parse(value).map_err(|source| QuorumConfigError::Member { line, source })?;
        self.members.insert(id, member);
        if self.members.len() > MEMBERS_MAX { Err(QuorumConfigError::TooManyMembers) } else { Ok(()) }
    }

    fn group(&mut self, group: i64, value: &str, wrong: &QuorumConfigError) -> Result<(), QuorumConfigError> {
        let hierarchy = self.hierarchy.get_or_insert_default();
        for id in value.split(':') {
            let id = ServerId(id.trim().parse().map_err(|_| wrong.clone())?);
            if hierarchy.group_of.insert(id, group).is_some() {
                return Err(QuorumConfigError::TwoGroups(id));
            }
        }
        Ok(())
    }
}

/// Hexadecimal without prefix, as `Long.toHexString` prints it.
fn parse_version(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok().map(|v| v as i64) } else { None }
}

impl fmt::Display for QuorumConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, member) in &self.members {
            writeln!(f, "server.{}={member}", id.0)?;
        }
        if let Some(hierarchy) = &self.hierarchy {
            let mut groups: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for (id, group) in &hierarchy.group_of {
                groups.entry(*group).or_default().push(id.0.to_string());
            }
            for (group, ids) in groups {
                writeln!(f, "group.{group}={}", ids.join(":"))?;
            }
            for (id, weight) in &hierarchy.weight_of {
                writeln!(f, "weight.{}={weight}", id.0)?;
            }
        }
        write!(f, "version={:x}", self.version)
    }
}

#[cfg(test)]
mod tests;
