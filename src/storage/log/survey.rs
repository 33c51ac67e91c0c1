//! Looking at a log directory without touching it: which files, how far the chain goes, what lies behind, which row applies.
//! Used by recovery and by the tools that dump and verify.
//!
//! Invariants:
//! - Y1: nothing is written.
//! - Y2: a read error is an error, not a bad record: what cannot be read is not known to be bad.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{LogPos, Zxid};
use crate::storage::log::LogError;
use crate::storage::log::format::{
    Chain, FORMAT_VERSION, HeadFault, RecordHead, RecordKind, SEGMENT_HEAD_BYTES, SegmentHead,
};
use crate::storage::log::recover::{
    Case, Decision, Files, Intent, Later, Observed, Reach, Reset, Row, Start, Tail, decide,
};
use crate::storage::log::scan::Scanner;
use crate::storage::log::segment::{Extent, FileName, RECORDS_START, segment_path};
use crate::storage::vfs::{OpenMode, Vfs, VfsFile};

/// What the rest of storage knows about the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryHints {
    /// zxid of the newest valid snapshot ([`Zxid::ZERO`] without one): an empty log starts behind it.
    pub base: Zxid,
    /// The superblock says that this node had a log.
    pub history: bool,
    /// Where the log durably ended at a clean stop, if the last stop was clean and nothing was appended since.
    pub clean_stop: Option<LogPos>,
    /// A truncation that was begun and not ended.
    pub pending_truncate: Option<Zxid>,
    /// A replacement by an empty log behind this zxid that was begun and not ended; `base` must be the same then.
    pub pending_reset: Option<Zxid>,
    /// Known to be committed, and once durable here: the log (or the snapshot) reaches at least to it.
    pub committed: Zxid,
}

impl RecoveryHints {
    /// What a pending reset comes to.
    fn reset(&self) -> Reset {
        match self.pending_reset {
            None => Reset::None,
            Some(base) if base == self.base => Reset::Covered,
            Some(_) => Reset::Uncovered,
        }
    }
}

/// How to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct SurveyOptions {
    pub(super) hints: RecoveryHints,
    /// Whose log it must be; `None`: does not matter.
    pub(super) identity: Option<u64>,
    pub(super) mode: OpenMode,
    /// Believe the disk, not the cache (after an unclean stop, a cached page may be one whose flush failed).
    pub(super) drop_cache: bool,
}

/// One segment file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: SegmentHead,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) extent: Extent,
}

/// Where a pending truncation cuts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// Index of the segment.
    pub(super) at: usize,
    pub(super) end: u64,
    pub(super) chain: Chain,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) case: &'static Case,
    pub(super) segments: Vec<Found>,
    /// Index of the segment in which the chain ends.
    pub(super) last: usize,
    pub(super) chain: Chain,
    pub(super) target: Option<Target>,
    pub(super) transactions: u64,
    /// Bytes written behind the end of the chain.
    pub(super) bytes_beyond: u64,
    /// The place that the row is about, in which file, and the reason.
    pub(super) pos: LogPos,
    pub(super) path: PathBuf,
    pub(super) detail: String,
}

/// Called for every record of the chain: its place, its head, its payload.
pub(super) type Visit<'a> = dyn FnMut(LogPos, &RecordHead, &[u8]) + 'a;

pub(super) fn survey(
    vfs: &dyn Vfs,
    dir: &Path,
    options: &SurveyOptions,
    visit: &mut Visit<'_>,
) -> Result<Survey, LogError> {
    let numbers = segment_numbers(vfs, dir)?;
    if numbers.is_empty() {
        return Ok(unwalked(
            Files::None,
            options,
            LogPos::default(),
            dir.to_path_buf(),
            "no segment files".into(),
        ));
    }
    if let Some(w) = numbers.windows(2).find(|w| w[0] + 1 != w[1]) {
        let pos = LogPos { segment: w[0] + 1, offset: 0 };
        let detail = format!("segments {} and {} are there, none between", w[0], w[1]);
        return Ok(unwalked(Files::Hole, options, pos, segment_path(dir, w[0] + 1), detail));
    }
    let last = numbers[numbers.len() - 1];
    let mut segments = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = segment_path(dir, number);
        match open_segment(vfs, &path, number, options)? {
            Ok(found) => segments.push(found),
            Err((files, detail)) => {
                let pos = LogPos { segment: number, offset: 0 };
                return Ok(unwalked(files, options, pos, path, detail));
            }
        }
    }
    if options.hints.pending_reset.is_some() {
        // What they hold is to go, readable or not.
        let pos = LogPos { segment: last, offset: 0 };
        let detail = format!("{} segments of the log that is being replaced", segments.len());
        return Ok(Survey {
            segments,
            ..unwalked(Files::Whole, options, pos, segment_path(dir, last), detail)
        });
    }
    walk(segments, options, visit)
}

/// Numbers of the segment files, ascending. A directory that does not exist holds none.
fn segment_numbers(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u64>, LogError> {
    let names = match vfs.list(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|e| LogError::io("list", dir, e))?,
    };
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| match FileName::parse(name) {
            Some(FileName::Segment(number)) => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A survey that ends before any record is read.
fn unwalked(files: Files, options: &SurveyOptions, pos: LogPos, path: PathBuf, detail: String) -> Survey {
    let observed = Observed {
        files,
        history: options.hints.history,
        intent: Intent::None,
        reset: options.hints.reset(),
        start: Start::Covered,
        reach: Reach::Enough,
        proof: false,
        tail: Tail::Zero,
        later: Later::Nothing,
    };
    let case = decide(&observed);
    let detail = match (case.row, options.hints.pending_reset) {
        (Row::ResetSnapshotMissing, Some(base)) => {
            let newest = options.hints.base;
            format!(
                "the log was being replaced by a snapshot at {base}, the newest one that is usable is at {newest}"
            )
        }
        _ => detail,
    };
    Survey {
        case,
        segments: Vec::new(),
        last: 0,
        chain: Chain { zxid: options.hints.base, crc: 0 },
        target: None,
        transactions: 0,
        bytes_beyond: 0,
        pos,
        path,
        detail,
    }
}

/// What that makes of the files, and what is wrong.
type BadSegment = (Files, String);

/// Opens one segment and checks what can be checked without its records; the inner error says what is wrong with it.
fn open_segment(
    vfs: &dyn Vfs,
    path: &Path,
    number: u64,
    options: &SurveyOptions,
) -> Result<Result<Found, BadSegment>, LogError> {
    let file = vfs.open(path, options.mode).map_err(|e| LogError::io("open segment", path, e))?;
    if options.drop_cache {
        file.drop_cache().map_err(|e| LogError::io("drop cache of", path, e))?;
    }
    let size = file.size().map_err(|e| LogError::io("stat", path, e))?;
    if size < SEGMENT_HEAD_BYTES as u64 {
        return Ok(Err((Files::BadHead, format!("the file has {size} bytes, not even a header"))));
    }
    let mut page = vec![0u8; SEGMENT_HEAD_BYTES];
    file.read_exact_at(&mut page, 0).map_err(|e| LogError::io("read header of", path, e))?;
    let head = match SegmentHead::decode(&page) {
        Ok(head) => head,
        Err(HeadFault::Damaged) => {
            return Ok(Err((Files::BadHead, "the header does not match its checksum".into())));
        }
        Err(HeadFault::Version(found)) => {
            return Err(LogError::Version { path: path.to_path_buf(), found, known: FORMAT_VERSION });
        }
    };
    Ok(check_head(&head, number, size, options.identity).map(|()| Found {
        head,
        path: path.to_path_buf(),
        file,
        extent: Extent::empty(Chain::default()),
    }))
}

fn check_head(head: &SegmentHead, number: u64, size: u64, identity: Option<u64>) -> Result<(), BadSegment> {
    if let Some(ours) = identity.filter(|ours| *ours != head.identity) {
        let detail = format!("the segment belongs to node {:016x}, this is {ours:016x}", head.identity);
        return Err((Files::Foreign, detail));
    }
    if head.number != number {
        return Err((Files::BadHead, format!("the header is that of segment {}", head.number)));
    }
    if head.segment_bytes != size {
        let detail = format!("the file has {size} bytes, its header says {}", head.segment_bytes);
        return Err((Files::BadHead, detail));
    }
    Ok(())
}

/// The chain, as far as it goes.
struct Walk {
    last: usize,
    chain: Chain,
    target: Option<Target>,
    transactions: u64,
}

fn walk(
    mut segments: Vec<Found>,
    options: &SurveyOptions,
    visit: &mut Visit<'_>,
) -> Result<Survey, LogError> {
    let hints = &options.hints;
    let walk = follow_chain(&mut segments, hints, visit)?;
    let last = &segments[walk.last];
    let pos = LogPos { segment: last.head.number, offset: last.extent.end };
    let mut behind = look_behind(&segments, walk.last, pos)?;
    if let Some(stop) = hints.clean_stop.filter(|&stop| stop > pos) {
        behind.proofs.push(format!("the log was stopped cleanly at {stop}"));
    }
    let base = segments[0].extent.before.zxid;
    let observed = Observed {
        files: Files::Whole,
        history: hints.history,
        intent: match (hints.pending_truncate, walk.target) {
            (None, _) => Intent::None,
            (Some(_), Some(_)) => Intent::Reachable,
            (Some(_), None) => Intent::Unreachable,
        },
        reset: Reset::None,
        start: if base <= hints.base { Start::Covered } else { Start::Uncovered },
        reach: if walk.chain.zxid >= hints.base.max(hints.committed) { Reach::Enough } else { Reach::Short },
        proof: !behind.proofs.is_empty(),
        tail: if behind.in_last == 0 { Tail::Zero } else { Tail::Bytes },
        later: if behind.in_later == 0 { Later::Nothing } else { Later::Bytes },
    };
    let case = decide(&observed);
    let place = match case.row {
        Row::StartMissing => Some(0),
        Row::RecordDamaged if behind.next_starts_segment => Some(walk.last + 1),
        _ => None,
    };
    let (at, offset) = place.map_or((walk.last, pos.offset), |at| (at, RECORDS_START));
    Ok(Survey {
        case,
        detail: detail(case.row, hints, base, &walk, &behind.proofs),
        pos: LogPos { segment: segments[at].head.number, offset },
        path: segments[at].path.clone(),
        last: walk.last,
        chain: walk.chain,
        target: walk.target,
        transactions: walk.transactions,
        bytes_beyond: behind.in_last + behind.in_later,
        segments,
    })
}

/// Follows the chain through the segments and notes where records are.
fn follow_chain(
    segments: &mut [Found],
    hints: &RecoveryHints,
    visit: &mut Visit<'_>,
) -> Result<Walk, LogError> {
    let start = Chain { zxid: hints.base, crc: 0 };
    let mut walk = Walk { last: 0, chain: start, target: None, transactions: 0 };
    let mut chain = None;
    for (at, found) in segments.iter_mut().enumerate() {
        let (number, mut extent) = (found.head.number, None::<Extent>);
        let mut scanner = Scanner::new(&*found.file, &found.path, found.head);
        let (_, end_chain) = scanner.follow(RECORDS_START, chain, |offset, head, payload| {
            let end = offset + head.record_bytes();
            extent.get_or_insert_with(|| Extent::empty(head.prev)).push(head.zxid, offset, end);
            if head.kind == RecordKind::Txn {
                walk.transactions += 1;
                if hints.pending_truncate == Some(head.zxid) {
                    walk.target = Some(Target { at, end, chain: head.chain() });
                }
            }
            visit(LogPos { segment: number, offset }, head, payload);
        })?;
        let Some(extent) = extent else { break };
        found.extent = extent;
        chain = end_chain;
        walk.last = at;
    }
    match chain {
        Some(end) => walk.chain = end,
        None => segments[0].extent = Extent::empty(start),
    }
    let base = segments[0].extent.before;
    if hints.pending_truncate == Some(base.zxid) {
        walk.target = Some(Target { at: 0, end: RECORDS_START, chain: base });
    }
    Ok(walk)
}

/// What is behind the end of the chain.
struct Behind {
    in_last: u64,
    in_later: u64,
    /// Reasons to believe that a place behind the end was synced.
    proofs: Vec<String>,
    /// The next record should be the first of the next segment, and is not whole there: nothing was written in between.
    next_starts_segment: bool,
}

/// Looks behind `end`, in segment `last` and in those after it.
fn look_behind(segments: &[Found], last: usize, end: LogPos) -> Result<Behind, LogError> {
    let mut behind = Behind { in_last: 0, in_later: 0, proofs: Vec::new(), next_starts_segment: false };
    let mut proofs = Vec::new();
    for (at, found) in segments.iter().enumerate().skip(last) {
        let number = found.head.number;
        let from = if at == last { end.offset } else { RECORDS_START };
        let mut scanner = Scanner::new(&*found.file, &found.path, found.head);
        let beyond = scanner.beyond(from)?;
        let written = beyond.nonzero_end.saturating_sub(from);
        if at == last {
            behind.in_last = written;
        } else {
            behind.in_later += written;
        }
        if at > last && found.head.synced > end {
            proofs.push(format!("the header of segment {number} vouches for {}", found.head.synced));
        }
        // "Up to the start of this segment" says no more than that the segment before it was synced, wherever that ended: news
        // only when another segment lies between, or when the first record is there and names a predecessor that we lack.
        let first = if at == last + 1 { scanner.record(RECORDS_START)? } else { None };
        behind.next_starts_segment |= at == last + 1 && behind.in_last == 0 && written > 0 && first.is_none();
        let names_lost = first.is_some_and(|head| u64::from(head.watermark) == RECORDS_START);
        let vouched = LogPos { segment: number, offset: beyond.watermark_max };
        let is_news =
            beyond.watermark_max > RECORDS_START || (beyond.watermark_max == RECORDS_START && at > last + 1);
        if vouched > end && (names_lost || is_news) {
            proofs.push(format!("a later record vouches for {vouched}"));
        }
    }
    Ok(Behind { proofs, ..behind })
}

fn detail(row: Row, hints: &RecoveryHints, base: Zxid, walk: &Walk, proofs: &[String]) -> String {
    let last = walk.chain.zxid;
    match row {
        Row::StartMissing => {
            format!("the log starts after {base}, the newest valid snapshot ends at {}", hints.base)
        }
        Row::EndMissing => {
            let (base, committed) = (hints.base, hints.committed);
            format!(
                "the last whole record is {last}, the newest snapshot ends at {base}, {committed} was committed"
            )
        }
        Row::TruncationTargetMissing => {
            let to = hints.pending_truncate.unwrap_or_default();
            format!("a truncation to {to} was begun, which is not in the log up to {last}")
        }
        Row::RecordDamaged => {
            format!("the record after {last} is damaged or missing, but was synced: {}", proofs.join("; "))
        }
        _ => format!("the last whole record is {last}"),
    }
}

/// What `zabra log verify` reports.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Row of the recovery table that a start would meet.
    pub row: Row,
    /// True when a start would go through.
    pub starts: bool,
    /// The place the row is about: the end of the chain, or of the damage.
    pub pos: LogPos,
    /// File of that place.
    pub path: PathBuf,
    /// What was found there.
    pub detail: String,
    /// What the first record follows.
    pub base: Zxid,
    /// Last whole transaction.
    pub last: Zxid,
    /// Whole transactions.
    pub transactions: u64,
    /// Segment files.
    pub segments: usize,
    /// Bytes written behind the end of the chain.
    pub bytes_beyond: u64,
}

/// Reads the log in `dir` without touching it, hands every record to `visit` (place, zxid, kind, payload), and says which row of
/// the recovery table applies. Damage is a result, not an error.
pub fn inspect(
    vfs: &dyn Vfs,
    dir: &Path,
    hints: RecoveryHints,
    visit: &mut dyn FnMut(LogPos, &RecordHead, &[u8]),
) -> Result<Inspection, LogError> {
    let options = SurveyOptions { hints, identity: None, mode: OpenMode::Read, drop_cache: false };
    let survey = survey(vfs, dir, &options, visit)?;
    Ok(Inspection {
        row: survey.case.row,
        starts: survey.case.decision != Decision::Refuse,
        pos: survey.pos,
        path: survey.path,
        detail: survey.detail,
        base: survey.segments.first().map_or(hints.base, |s| s.extent.before.zxid),
        last: survey.chain.zxid,
        transactions: survey.transactions,
        segments: survey.segments.len(),
        bytes_beyond: survey.bytes_beyond,
    })
}
