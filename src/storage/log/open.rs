//! Opening a log: survey, decide, carry out. What recovery changes, it changes durably before it reports anything.
//!
//! Invariants:
//! - O1: a refusal changes nothing.
//! - O2: every step can be cut short by a crash and leads to the same decision again.
//! - O3: after an unclean stop the disk is read, not the cache, and everything is synced before the log is reported.
//! - O4: the rest of the segment that is appended to is rewritten with zeros in writes of one page: no old byte is left to
//!   validate, and no read made large folios of it.
//! - O5: an empty log that does not start at zero gets its anchor (`reset` Z3), whichever way it became empty.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::rng::Rng;
use crate::base::{LogPos, Zxid};
use crate::storage::log::format::{self, Chain, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SegmentHead};
use crate::storage::log::recover::{Decision, Row};
use crate::storage::log::reset;
use crate::storage::log::segment::{self, Extent, FileName, RECORDS_START, Segment};
use crate::storage::log::shared::{Cursor, RETIRED_FILES_MAX, Shared};
use crate::storage::log::survey::{Found, RecoveryHints, Survey, SurveyOptions, survey};
use crate::storage::log::{Appender, Flusher, Log, LogError, LogOptions, LogReader, SpareMaker};
use crate::storage::vfs::{OpenMode, Vfs, VfsFile, create_dir_durable};

/// Number of a new log's first segment. 0 stands for "nothing was synced".
const FIRST_SEGMENT: u64 = 1;

/// What recovery found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Row of the table in `docs/recovery.md`.
    pub row: Row,
    /// What the first record follows.
    pub base: Zxid,
    /// Last transaction (or `base`).
    pub last: Zxid,
    /// The place behind it.
    pub end: LogPos,
    /// Transactions in the log.
    pub transactions: u64,
    /// Segments in use.
    pub segments: usize,
    /// Bytes that were written behind the last whole record, never acknowledged, and cut.
    pub bytes_cut: u64,
    /// The truncation that was finished; its intent can be cleared now.
    pub truncated_to: Option<Zxid>,
    /// The reset that was finished; its intent can be cleared now.
    pub reset_to: Option<Zxid>,
}

impl Log {
    /// Opens the log in `dir`, making it when there is none. `seed` must be fresh (random) in every life: salts come from it.
    ///
    /// Errors: `Refused` (with row, place and reason; nothing was touched), `NoSpace` (a first segment cannot be made), `Io`,
    /// `Options`, `Version`.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        hints: RecoveryHints,
        seed: u64,
    ) -> Result<(Log, RecoveryReport), LogError> {
        options.check()?;
        let look = SurveyOptions {
            hints,
            identity: Some(options.identity),
            mode: OpenMode::ReadWrite,
            drop_cache: hints.clean_stop.is_none(),
        };
        let survey = survey(&*vfs, dir, &look, &mut |_, _, _| ())?;
        let opening = Opening { vfs, dir, options, salts: stir(seed, &survey.segments) };
        match survey.case.decision {
            Decision::Refuse => Err(LogError::Refused {
                row: survey.case.row,
                pos: survey.pos,
                path: survey.path,
                detail: survey.detail,
            }),
            Decision::Create => opening.create(Row::Fresh, FIRST_SEGMENT, hints),
            Decision::Reset => opening.replace(survey.segments, hints),
            Decision::Open | Decision::Cut => {
                let (last, end, chain) = (survey.last, survey.pos.offset, survey.chain);
                opening.resume(survey, last, end, chain, None)
            }
            Decision::Truncate => {
                let target = survey.target.expect("the row needs it");
                opening.resume(survey, target.at, target.end, target.chain, hints.pending_truncate)
            }
        }
    }
}

impl LogOptions {
    fn check(&self) -> Result<(), LogError> {
        if format::segment_bytes_are_valid(self.segment_bytes) {
            return Ok(());
        }
        let (bytes_min, bytes_max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        Err(LogError::Options { segment_bytes: self.segment_bytes, bytes_min, bytes_max })
    }
}

/// A source of salts that differs from earlier lives' even if `seed` does not.
fn stir(seed: u64, segments: &[Found]) -> Rng {
    Rng::new(segments.iter().fold(seed, |s, found| Rng::new(s ^ found.head.salt).next_u64()))
}

/// Zeroes `from..to` durably with fresh small pages in the cache (O4): the survey's reading made large ones, and those go first,
/// which only clean pages do.
fn refill(file: &dyn VfsFile, from: u64, to: u64) -> io::Result<()> {
    file.sync_data()?;
    file.drop_cache()?;
    segment::zero_durably(file, from, to)
}

/// O5: where the log goes on, behind its anchor if it is to have one.
fn anchor_if_needed(segment: &Segment, end: u64, chain: Chain) -> Result<(u64, Chain), LogError> {
    if reset::needs_anchor(end, chain) { reset::anchor(segment, chain) } else { Ok((end, chain)) }
}

struct Opening<'a> {
    vfs: Arc<dyn Vfs>,
    dir: &'a Path,
    options: LogOptions,
    salts: Rng,
}

impl Opening<'_> {
    /// Finishes a reset: whatever stage it was at, all segments go, highest first, and a new one begins.
    fn replace(self, segments: Vec<Found>, hints: RecoveryHints) -> Result<(Log, RecoveryReport), LogError> {
        let next = segments.last().map_or(FIRST_SEGMENT, |found| found.head.number + 1);
        if !segments.is_empty() {
            self.sync_dir()?;
        }
        for found in segments.into_iter().rev() {
            segment::retire(&*self.vfs, self.dir, found.head.number)?;
        }
        self.create(Row::ResetPending, next, hints)
    }

    /// Makes segment `number` the only one, behind the snapshot, from a retired one if there is any: the disk may be full.
    fn create(
        mut self,
        row: Row,
        number: u64,
        hints: RecoveryHints,
    ) -> Result<(Log, RecoveryReport), LogError> {
        create_dir_durable(&*self.vfs, self.dir)
            .map_err(|e| LogError::io("create directory", self.dir, e))?;
        let mut retired = self.clear_leftovers()?;
        let head = SegmentHead {
            number,
            salt: self.salts.next_u64(),
            identity: self.options.identity,
            segment_bytes: self.options.segment_bytes,
            synced: LogPos::default(),
        };
        let file = segment::make_segment(&*self.vfs, self.dir, head, retired.pop())?;
        let chain = Chain { zxid: hints.base, crc: 0 };
        let path = segment::segment_path(self.dir, number);
        let first = Segment::new(head, path, file, self.options.region, Extent::empty(chain))?;
        let (end, chain) = anchor_if_needed(&first, RECORDS_START, chain)?;
        let report = RecoveryReport {
            row,
            base: hints.base,
            last: hints.base,
            end: first.pos(end),
            transactions: 0,
            segments: 1,
            bytes_cut: 0,
            truncated_to: None,
            reset_to: hints.pending_reset,
        };
        Ok((self.assemble(vec![Arc::new(first)], retired, end, chain), report))
    }

    /// Goes on at `end` of segment `last`, behind `chain`; everything after that place goes.
    fn resume(
        mut self,
        survey: Survey,
        last: usize,
        end: u64,
        chain: Chain,
        truncated_to: Option<Zxid>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        // Names first: a segment may have got its name just before the process died.
        self.sync_dir()?;
        let mut segments = survey.segments;
        for beyond in segments.drain(last + 1..).rev() {
            segment::retire(&*self.vfs, self.dir, beyond.head.number)?;
        }
        let active = &mut segments[last];
        active.extent.cut(end, chain.zxid);
        refill(&*active.file, end, active.head.segment_bytes)
            .map_err(|e| LogError::io("zero the end of segment", &active.path, e))?;
        for found in &segments[..last] {
            found.file.sync_data().map_err(|e| LogError::io("sync segment", &found.path, e))?;
        }
        let retired = self.clear_leftovers()?;
        let live = self.open_segments(segments)?;
        let (end, chain) = anchor_if_needed(&live[last], end, chain)?;
        let report = RecoveryReport {
            row: survey.case.row,
            base: live[0].extent().before.zxid,
            last: chain.zxid,
            end: live[last].pos(end),
            transactions: survey.transactions,
            segments: live.len(),
            bytes_cut: if truncated_to.is_none() { survey.bytes_beyond } else { 0 },
            truncated_to,
            reset_to: None,
        };
        Ok((self.assemble(live, retired, end, chain), report))
    }

    fn open_segments(&mut self, found: Vec<Found>) -> Result<Vec<Arc<Segment>>, LogError> {
        let kind = self.options.region;
        let open = |f: Found| Segment::new(f.head, f.path, f.file, kind, f.extent).map(Arc::new);
        let live: Vec<Arc<Segment>> = found.into_iter().map(open).collect::<Result<_, _>>()?;
        let (_, sealed) = live.split_last().expect("at least one");
        sealed.iter().for_each(|s| s.seal());
        Ok(live)
    }

    /// Removes half-made files; keeps a few retired ones of the right size for recycling.
    fn clear_leftovers(&self) -> Result<Vec<PathBuf>, LogError> {
        let mut retired = Vec::new();
        for name in self.vfs.list(self.dir).map_err(|e| LogError::io("list", self.dir, e))? {
            let path = self.dir.join(&name);
            match FileName::parse(&name) {
                Some(FileName::Retired) if retired.len() < RETIRED_FILES_MAX && self.has_full_size(&path) => {
                    retired.push(path);
                }
                Some(FileName::Retired | FileName::Making) => {
                    self.vfs.remove(&path).map_err(|e| LogError::io("remove", &path, e))?;
                }
                _ => {}
            }
        }
        Ok(retired)
    }

    fn has_full_size(&self, path: &Path) -> bool {
        let size = self.vfs.open(path, OpenMode::Read).and_then(|f| f.size());
        size.is_ok_and(|s| s == self.options.segment_bytes)
    }

    fn sync_dir(&self) -> Result<(), LogError> {
        self.vfs.sync_dir(self.dir).map_err(|e| LogError::io("sync directory", self.dir, e))
    }

    fn assemble(self, live: Vec<Arc<Segment>>, retired: Vec<PathBuf>, end: u64, chain: Chain) -> Log {
        let pos = live.last().expect("at least one").pos(end);
        let at = Cursor { pos, zxid: chain.zxid };
        let dir = self.dir.to_path_buf();
        let shared = Arc::new(Shared::new(self.vfs, dir, self.options, self.salts, live, retired, at));
        Log {
            appender: Appender::new(Arc::clone(&shared), end, chain),
            flusher: Flusher { shared: Arc::clone(&shared) },
            reader: LogReader::new(Arc::clone(&shared)),
            spares: SpareMaker { shared },
        }
    }
}
