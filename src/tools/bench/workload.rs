//! What is asked for, in which order: each connection has a generator, seeded, that never allocates.
//!
//! The tree of a run, below its prefix: `k00000/…` the keys of set, get, mix, multi and watch; `cNNNNN/…` what connection
//! NNNNN creates; `e00000/…` the ephemeral nodes of churn; `l00000/…` the children that list lists. Leaves are ten digits.

use crate::base::rng::Rng;
use crate::wire::OpCode;

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// setData of random keys.
    Set,
    /// create of ever new nodes, one parent per connection.
    Create,
    /// getData of random keys.
    Get,
    /// getData and setData of random keys, `--writes` percent of the latter.
    Mix,
    /// Ephemeral nodes: create and delete in turn.
    Churn,
    /// getChildren2 of a node with `--keys` children.
    List,
    /// Transactions of `--multi-ops` setData each.
    Multi,
    /// getData with a watch on the connection's own node, then the setData that fires it.
    Watch,
}

impl Workload {
    /// The requests it is made of.
    pub(super) fn kinds(self) -> &'static [Kind] {
        match self {
            Workload::Set => &[Kind::Set],
            Workload::Create => &[Kind::Create],
            Workload::Get => &[Kind::Get],
            Workload::Mix => &[Kind::Get, Kind::Set],
            Workload::Churn => &[Kind::CreateEphemeral, Kind::Delete],
            Workload::List => &[Kind::List],
            Workload::Multi => &[Kind::Multi],
            Workload::Watch => &[Kind::GetWatch, Kind::Set],
        }
    }
}

/// One sort of request; indexes tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Set,
    Get,
    Create,
    CreateEphemeral,
    Delete,
    List,
    Multi,
    GetWatch,
}

impl Kind {
    /// Number of kinds.
    pub(super) const COUNT: usize = 8;
    /// In table order.
    pub(super) const ALL: [Kind; Kind::COUNT] = [
        Kind::Set,
        Kind::Get,
        Kind::Create,
        Kind::CreateEphemeral,
        Kind::Delete,
        Kind::List,
        Kind::Multi,
        Kind::GetWatch,
    ];

    /// Its name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Set => "set",
            Kind::Get => "get",
            Kind::Create | Kind::CreateEphemeral => "create",
            Kind::Delete => "delete",
            Kind::List => "list",
            Kind::Multi => "multi",
            Kind::GetWatch => "get_watch",
        }
    }

    /// Its operation number.
    pub(super) const fn op(self) -> OpCode {
        match self {
            Kind::Set => OpCode::SetData,
            Kind::Get | Kind::GetWatch => OpCode::GetData,
            Kind::Create | Kind::CreateEphemeral => OpCode::Create,
            Kind::Delete => OpCode::Delete,
            Kind::List => OpCode::GetChildren2,
            Kind::Multi => OpCode::Multi,
        }
    }

    /// True when the server has to make it durable.
    pub(super) const fn is_write(self) -> bool {
        self.op().is_write()
    }
}

/// Tags of the directories below the prefix.
pub(super) mod dir {
    /// Keys.
    pub(crate) const KEYS: char = 'k';
    /// Created nodes.
    pub(crate) const CREATED: char = 'c';
    /// Ephemeral nodes.
    pub(crate) const EPHEMERAL: char = 'e';
    /// Listed children.
    pub(crate) const LISTED: char = 'l';
}

/// One request to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) kind: Kind,
    /// Number of the directory.
    pub(super) dir: u32,
    /// Number of the node in it; of the first one for a multi.
    pub(super) leaf: u64,
}

/// The endless sequence of one connection's requests.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    workload: Workload,
    conn: u32,
    conns: u32,
    keys: u64,
    writes_percent: u64,
    made: u64,
    rng: Rng,
}

impl Generator {
    /// For connection `conn` of `conns`, over `keys` keys.
    pub(super) fn new(
        workload: Workload,
        conn: u32,
        conns: u32,
        keys: u64,
        writes_percent: u64,
    ) -> Generator {
        assert!(conn < conns && keys > 0, "a connection of this run and at least one key");
        let rng = Rng::new(0x2AB2_A000 + u64::from(conn));
        Generator { workload, conn, conns, keys, writes_percent, made: 0, rng }
    }

    /// The next request.
    pub(super) fn next_op(&mut self) -> Op {
        let made = self.made;
        self.made += 1;
        match self.workload {
            Workload::Set => self.any_key(Kind::Set),
            Workload::Get => self.any_key(Kind::Get),
            Workload::Multi => self.any_key(Kind::Multi),
            Workload::Mix => {
                let write = self.rng.below(100) < self.writes_percent;
                self.any_key(if write { Kind::Set } else { Kind::Get })
            }
            Workload::List => Op { kind: Kind::List, dir: 0, leaf: 0 },
            Workload::Create => Op { kind: Kind::Create, dir: self.conn, leaf: made },
            Workload::Churn => {
                let kind = if made.is_multiple_of(2) { Kind::CreateEphemeral } else { Kind::Delete };
                let leaf = u64::from(self.conn) + u64::from(self.conns) * (made / 2);
                Op { kind, dir: 0, leaf }
            }
            Workload::Watch => {
                let kind = if made.is_multiple_of(2) { Kind::GetWatch } else { Kind::Set };
                Op { kind, dir: 0, leaf: u64::from(self.conn) }
            }
        }
    }

    fn any_key(&mut self, kind: Kind) -> Op {
        Op { kind, dir: 0, leaf: self.rng.below(self.keys) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(workload: Workload, conn: u32, n: usize) -> Vec<Op> {
        let mut g = Generator::new(workload, conn, 4, 10, 25);
        (0..n).map(|_| g.next_op()).collect()
    }

    #[test]
    fn a_workload_asks_only_for_its_kinds_and_keys() {
        for workload in <Workload as clap::ValueEnum>::value_variants() {
            for op in take(*workload, 3, 1000) {
                assert!(workload.kinds().contains(&op.kind));
                let keyed = matches!(op.kind, Kind::Set | Kind::Get | Kind::Multi | Kind::GetWatch);
                assert!(!keyed || op.leaf < 10);
            }
        }
    }

    #[test]
    fn connections_never_create_the_same_node() {
        for workload in [Workload::Create, Workload::Churn] {
            let mut seen = std::collections::HashSet::new();
            for op in (0..4).flat_map(|c| take(workload, c, 100)) {
                assert!(op.kind == Kind::Delete || seen.insert((op.dir, op.leaf)), "{op:?} twice");
            }
        }
    }

    #[test]
    fn churn_deletes_what_it_just_created_and_mix_keeps_its_share() {
        for pair in take(Workload::Churn, 1, 100).chunks(2) {
            assert_eq!((pair[0].kind, pair[1].kind), (Kind::CreateEphemeral, Kind::Delete));
            assert_eq!(pair[0].leaf, pair[1].leaf);
        }
        let writes = take(Workload::Mix, 0, 10_000).iter().filter(|op| op.kind == Kind::Set).count();
        assert!((2300..2700).contains(&writes), "{writes} of 10,000 at 25 %");
    }

    #[test]
    fn kinds_index_their_table() {
        for (i, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, i);
        }
    }
}
