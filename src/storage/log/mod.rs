//! The transaction log: numbered segments of fixed size, records chained and checksummed, one flush for many.
//!
//! The bytes are drawn in `docs/log_format.md`, the start-up table in `docs/recovery.md`, what each promise rests on in
//! `docs/durability.md`.
//!
//! | file | subject |
//! |---|---|
//! | `format` | bytes only |
//! | `group` | records on their way in |
//! | `region` | the bytes of a segment, stored by `pwrite` or through a mapping |
//! | `segment` | one file |
//! | `shared` | the ordered set of segments, cursors, latch |
//! | `append`, `flush`, `read`, `spare`, `truncate`, `reset` | what is done to it, one owner each |
//! | `scan`, `survey`, `recover`, `open` | start-up: read, observe, decide, carry out |
//!
//! Invariants:
//! - I1: what a flush returned for is there after every crash, byte for byte, or the start is refused with the exact place.
//! - I2: what is there is a prefix of what was appended: nothing invented, repeated, reordered or left out.
//! - I3: after a failed write or flush nothing is acknowledged any more.
//! - I4: a full disk tears nothing: segments have their blocks before their first record.
//!
//! Who acknowledges what: `append` returns a [`crate::base::LogPos`]; a record is durable once [`Flusher::flush`] returned a
//! place that is not before it.

mod append;
mod error;
mod flush;
pub mod format;
mod group;
mod open;
mod read;
pub mod recover;
mod region;
mod reset;
mod scan;
mod segment;
mod shared;
mod spare;
mod survey;
mod truncate;

pub use append::Appender;
pub use error::{LogError, is_no_space};
pub use flush::{Durable, Flusher};
pub use format::RecordKind;
pub use group::Group;
pub use open::RecoveryReport;
pub use read::{LogCursor, LogReader};
pub use recover::Row;
pub use region::{PwriteRegion, Region, RegionKind, open_region};
pub use spare::SpareMaker;
pub use survey::{Inspection, RecoveryHints, inspect};
pub use truncate::IntentStore;

/// Segment size by default.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

const _: () = assert!(
    crate::base::limits::FRAME_BYTES_MAX + format::SEGMENT_HEAD_BYTES + format::RECORD_HEAD_BYTES
        < SEGMENT_BYTES_DEFAULT as usize,
    "the largest client request fits into one segment"
);

/// How the log is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of new segments: a multiple of 4096, at least 8192. Existing ones keep theirs.
    pub segment_bytes: u64,
    /// How segments are written.
    pub region: RegionKind,
    /// Whose log this is (cluster and node); a segment of another node is refused.
    pub identity: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes: SEGMENT_BYTES_DEFAULT, region: RegionKind::default(), identity: 0 }
    }
}

/// An open log, in the parts that different threads own.
#[derive(Debug)]
pub struct Log {
    /// Appends: owned by whoever prepares transactions.
    pub appender: Appender,
    /// Flushes: owned by whoever acknowledges them.
    pub flusher: Flusher,
    /// Reads what is durable; clone it freely.
    pub reader: LogReader,
    /// Makes spares and purges: for a background thread.
    pub spares: SpareMaker,
}
