//! What is decided once per run: sizes, options, retention.

use std::path::PathBuf;

use super::{DATA_DIR, LOG_DIR, PAYLOAD_BYTES_MAX};
use crate::base::ServerId;
use crate::base::rng::Rng;
use crate::node::{NodePlaces, PrepareOptions, RecoverOptions, Replay};
use crate::storage::log::{LogOptions, RegionKind};
use crate::storage::snapshot::Retention;
use crate::tree::TreeOptions;

/// What is decided once per run.
#[derive(Clone, Debug)]
pub(in super::super) struct Setup {
    segment_bytes: u64,
    pub(super) retention: Retention,
    extended_types: bool,
    seed: u64,
}

impl Setup {
    pub(in super::super) fn random(rng: &mut Rng) -> Setup {
        let count = 1 + rng.below(3) as usize;
        Setup {
            segment_bytes: [16 << 10, 16 << 10, 32 << 10][rng.below(3) as usize],
            retention: Retention { count_min: count, count_max: count, age_max: None },
            extended_types: !rng.one_in(4),
            seed: rng.next_u64(),
        }
    }

    pub(in super::super) fn tree_options(&self) -> TreeOptions {
        TreeOptions { seed: self.seed, extended_types: self.extended_types, ..TreeOptions::default() }
    }

    pub(super) fn prepare_options(&self) -> PrepareOptions {
        PrepareOptions {
            extended_types: self.extended_types,
            enforce_quota: true,
            ephemeral_bytes_max: 2 << 10,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            seed: self.seed,
            ..PrepareOptions::default()
        }
    }

    pub(in super::super) fn places() -> NodePlaces {
        NodePlaces { data: PathBuf::from(DATA_DIR), log: PathBuf::from(LOG_DIR) }
    }

    pub(super) fn recover_options(&self, seed: u64) -> RecoverOptions {
        RecoverOptions {
            tree: self.tree_options(),
            log: LogOptions {
                segment_bytes: self.segment_bytes,
                region: RegionKind::Pwrite,
                ..LogOptions::default()
            },
            server_id: ServerId(1),
            replay: Replay::All,
            has_peers: false,
            seed,
        }
    }
}
