//! The decision of recovery: what was observed, and what that means. Pure; `survey` observes, `open` carries out.
//!
//! Invariants:
//! - V1: every combination of observations matches exactly one row of [`TABLE`] (tested exhaustively).
//! - V2: whatever a crash can leave, at any operation, leads to a row that starts.
//! - V3: a record that something proves to have been synced is never cut; the place is named and the bytes are kept.
//!
//! The rows carry the same labels in `docs/recovery.md`.

use std::fmt;

/// The segment files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// There is none.
    None,
    /// Consecutive numbers, whole headers, full sizes.
    Whole,
    /// A header or a size is wrong. Files get their final name only after both are synced.
    BadHead,
    /// A whole header that names another node: a directory that is not this node's.
    Foreign,
    /// A number is missing between two others. Purge and truncation remove from the ends, one synced step at a time.
    Hole,
}

/// The pending truncation that the superblock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// None.
    None,
    /// Its target is in the chain.
    Reachable,
    /// Its target is not.
    Unreachable,
}

/// The pending reset (replacement by an empty log) that the superblock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// None.
    None,
    /// The snapshot that takes the log's place is the newest one, and loads.
    Covered,
    /// It is not.
    Uncovered,
}

/// Where the log starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At or before the end of the newest snapshot.
    Covered,
    /// Behind it: transactions between the two are missing.
    Uncovered,
}

/// Where the chain of valid records ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At or behind the newest snapshot, which holds only what was durable here, and the last commit that was noted.
    Enough,
    /// Before one of them: durable transactions are missing.
    Short,
}

/// The rest of the segment in which the chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing but zeros.
    Zero,
    /// Something that is not the next record.
    Bytes,
}

/// The segments after the one in which the chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// None, or untouched spares.
    Nothing,
    /// Something was written there.
    Bytes,
}

/// Everything the decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The segment files.
    pub files: Files,
    /// The superblock says that there was a log.
    pub history: bool,
    /// Pending truncation.
    pub intent: Intent,
    /// Pending reset.
    pub reset: Reset,
    /// Where the log starts.
    pub start: Start,
    /// Where it ends.
    pub reach: Reach,
    /// Something proves that a place behind the end of the chain was synced: a later record's watermark, a later segment's
    /// header, or the place of a clean stop.
    pub proof: bool,
    /// The rest of that segment.
    pub tail: Tail,
    /// The segments behind.
    pub later: Later,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Make the first segment.
    Create,
    /// Go on where the chain ends.
    Open,
    /// Zero what is behind the end of the chain, discard later segments, go on.
    Cut,
    /// Finish the pending truncation, go on there.
    Truncate,
    /// Finish the pending reset: discard all segments, begin anew behind the snapshot.
    Reset,
    /// Do not serve; touch nothing.
    Refuse,
}

/// Label of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// A new node.
    Fresh,
    /// The whole log is missing.
    LogMissing,
    /// A segment's header is damaged.
    HeadDamaged,
    /// A segment is another node's.
    SegmentForeign,
    /// A segment is missing between two others.
    SegmentMissing,
    /// The log was being replaced by an empty one.
    ResetPending,
    /// The log was being replaced, and the snapshot that was to take its place is not there.
    ResetSnapshotMissing,
    /// The log starts behind the newest snapshot.
    StartMissing,
    /// A truncation was under way.
    TruncationPending,
    /// A truncation was under way, and its target is gone.
    TruncationTargetMissing,
    /// A record that once was synced is bad.
    RecordDamaged,
    /// The log ends before the newest snapshot, or before what was noted as committed.
    EndMissing,
    /// Everything is in order.
    CleanEnd,
    /// The last group was on its way.
    TornTail,
    /// The last groups were on their way, across a rotation.
    TornRotation,
}

impl Row {
    /// True when files that this node wrote are not what it wrote, or are gone: not when they may be somewhere else, as behind a
    /// directory that is not mounted, and not for what a crash leaves.
    #[must_use]
    pub const fn is_damage(self) -> bool {
        matches!(
            self,
            Row::HeadDamaged
                | Row::SegmentMissing
                | Row::ResetSnapshotMissing
                | Row::StartMissing
                | Row::TruncationTargetMissing
                | Row::RecordDamaged
                | Row::EndMissing
        )
    }

    /// What an operator can do about what may only be somewhere else; for what is damaged, `docs/recovery.md` says it.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Row::LogMissing => {
                ". If it is on a file system of its own, mount that (dataLogDir); if it is gone, and other members have the data, \
                 `zabra recover ZOO.CFG --discard` here"
            }
            Row::SegmentForeign => {
                ". Is the right file system mounted (dataDir, dataLogDir)? If this server's own log is gone, and other members have the data, \
                 `zabra recover ZOO.CFG --discard` here"
            }
            _ => "",
        }
    }

    /// The label, as in `docs/recovery.md`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Row::Fresh => "FRESH",
            Row::LogMissing => "LOG-MISSING",
            Row::HeadDamaged => "HEAD-DAMAGED",
            Row::SegmentForeign => "SEGMENT-FOREIGN",
            Row::SegmentMissing => "SEGMENT-MISSING",
            Row::ResetPending => "RESET-PENDING",
            Row::ResetSnapshotMissing => "RESET-SNAPSHOT-MISSING",
            Row::StartMissing => "START-MISSING",
            Row::TruncationPending => "TRUNCATION-PENDING",
            Row::TruncationTargetMissing => "TRUNCATION-TARGET-MISSING",
            Row::RecordDamaged => "RECORD-DAMAGED",
            Row::EndMissing => "END-MISSING",
            Row::CleanEnd => "CLEAN-END",
            Row::TornTail => "TORN-TAIL",
            Row::TornRotation => "TORN-ROTATION",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One row: what must hold (`None`: does not matter), and what follows.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Label.
    pub row: Row,
    files: &'static [Files],
    history: Option<bool>,
    intent: Option<Intent>,
    reset: Option<Reset>,
    start: Option<Start>,
    reach: Option<Reach>,
    proof: Option<bool>,
    tail: Option<Tail>,
    later: Option<Later>,
    /// What to do.
    pub decision: Decision,
}

const fn case(row: Row, files: &'static [Files], decision: Decision) -> Case {
    Case {
        row,
        files,
        history: None,
        intent: None,
        reset: None,
        start: None,
        reach: None,
        proof: None,
        tail: None,
        later: None,
        decision,
    }
}

/// No segment files.
const fn absent(row: Row, history: bool, decision: Decision) -> Case {
    Case { history: Some(history), reset: Some(Reset::None), ..case(row, &[Files::None], decision) }
}

/// Segment files to be read, not to be replaced.
const fn whole(row: Row, start: Start, decision: Decision) -> Case {
    Case { start: Some(start), reset: Some(Reset::None), ..case(row, &[Files::Whole], decision) }
}

/// All that is left of the old log is to go, whatever is in it; but damaged or missing files are still no crash's work.
const fn replaced(row: Row, reset: Reset, decision: Decision) -> Case {
    Case { reset: Some(reset), ..case(row, &[Files::None, Files::Whole], decision) }
}

/// A log that starts where it must and that no truncation concerns.
const fn sound(row: Row, proof: bool, decision: Decision) -> Case {
    Case { intent: Some(Intent::None), proof: Some(proof), ..whole(row, Start::Covered, decision) }
}

const fn ended(row: Row, tail: Option<Tail>, later: Later, decision: Decision) -> Case {
    Case { reach: Some(Reach::Enough), tail, later: Some(later), ..sound(row, false, decision) }
}

const fn pending(row: Row, intent: Intent, decision: Decision) -> Case {
    Case { intent: Some(intent), ..whole(row, Start::Covered, decision) }
}

/// The table.
pub const TABLE: [Case; 15] = [
    absent(Row::Fresh, false, Decision::Create),
    absent(Row::LogMissing, true, Decision::Refuse),
    case(Row::HeadDamaged, &[Files::BadHead], Decision::Refuse),
    case(Row::SegmentForeign, &[Files::Foreign], Decision::Refuse),
    case(Row::SegmentMissing, &[Files::Hole], Decision::Refuse),
    replaced(Row::ResetPending, Reset::Covered, Decision::Reset),
    replaced(Row::ResetSnapshotMissing, Reset::Uncovered, Decision::Refuse),
    whole(Row::StartMissing, Start::Uncovered, Decision::Refuse),
    pending(Row::TruncationPending, Intent::Reachable, Decision::Truncate),
    pending(Row::TruncationTargetMissing, Intent::Unreachable, Decision::Refuse),
    sound(Row::RecordDamaged, true, Decision::Refuse),
    Case { reach: Some(Reach::Short), ..sound(Row::EndMissing, false, Decision::Refuse) },
    ended(Row::CleanEnd, Some(Tail::Zero), Later::Nothing, Decision::Open),
    ended(Row::TornTail, Some(Tail::Bytes), Later::Nothing, Decision::Cut),
    ended(Row::TornRotation, None, Later::Bytes, Decision::Cut),
];

impl Case {
    fn matches(&self, o: &Observed) -> bool {
        fn fits<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
            wanted.is_none_or(|w| w == found)
        }
        self.files.contains(&o.files)
            && fits(self.history, o.history)
            && fits(self.intent, o.intent)
            && fits(self.reset, o.reset)
            && fits(self.start, o.start)
            && fits(self.reach, o.reach)
            && fits(self.proof, o.proof)
            && fits(self.tail, o.tail)
            && fits(self.later, o.later)
    }
}

/// The row for what was observed.
#[must_use]
pub fn decide(observed: &Observed) -> &'static Case {
    TABLE.iter().find(|case| case.matches(observed)).expect("V1: the table is exhaustive (tested)")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both at once, too: the superblock does not hold that, the table need not rely on it.
    fn pendings() -> Vec<(Intent, Reset)> {
        let intents = [Intent::None, Intent::Reachable, Intent::Unreachable];
        let resets = [Reset::None, Reset::Covered, Reset::Uncovered];
        intents.into_iter().flat_map(|intent| resets.map(|reset| (intent, reset))).collect()
    }

    fn all_observations() -> Vec<Observed> {
        let mut all = vec![];
        for files in [Files::None, Files::Whole, Files::BadHead, Files::Foreign, Files::Hole] {
            for (intent, reset) in pendings() {
                for bits in 0..64 {
                    let bit = |n: u32| bits >> n & 1 == 1;
                    all.push(Observed {
                        files,
                        intent,
                        reset,
                        history: bit(0),
                        start: if bit(1) { Start::Covered } else { Start::Uncovered },
                        reach: if bit(2) { Reach::Enough } else { Reach::Short },
                        proof: bit(3),
                        tail: if bit(4) { Tail::Zero } else { Tail::Bytes },
                        later: if bit(5) { Later::Nothing } else { Later::Bytes },
                    });
                }
            }
        }
        all
    }

    #[test]
    fn v1_every_combination_matches_exactly_one_row_and_every_row_is_met() {
        let mut met = std::collections::BTreeSet::new();
        for o in all_observations() {
            let rows: Vec<Row> = TABLE.iter().filter(|c| c.matches(&o)).map(|c| c.row).collect();
            assert_eq!(rows.len(), 1, "{o:?} matches {rows:?}");
            assert_eq!(decide(&o).row, rows[0]);
            met.insert(rows[0]);
        }
        assert_eq!(met.len(), TABLE.len());
    }

    #[test]
    fn v3_nothing_is_cut_or_opened_against_proof() {
        for o in all_observations().into_iter().filter(|o| o.proof && o.files != Files::None) {
            let decision = decide(&o).decision;
            assert!(matches!(decision, Decision::Refuse | Decision::Truncate | Decision::Reset), "{o:?}");
        }
    }

    #[test]
    fn a_log_is_discarded_only_for_a_snapshot_that_is_there_and_never_when_it_may_be_anothers() {
        for o in all_observations() {
            let discards = o.reset == Reset::Covered && matches!(o.files, Files::None | Files::Whole);
            assert_eq!(decide(&o).decision == Decision::Reset, discards, "{o:?}");
        }
    }

    /// The page has a line for each row: label, what was observed, what follows.
    #[test]
    fn the_document_has_the_same_rows() {
        let page = include_str!("../../docs/recovery.md");
        let labels: Vec<&str> = page
            .lines()
            .filter_map(|l| l.strip_prefix("| `"))
            .filter_map(|l| l.split_once("` |").map(|(label, _)| label))
            .filter(|l| l.chars().all(|c| c.is_ascii_uppercase() || c == '-'))
            .collect();
        let expected: Vec<&str> = TABLE.iter().map(|c| c.row.label()).collect();
        assert_eq!(labels, expected);
        for case in TABLE {
            let row = format!("| `{}` |", case.row.label());
            let line = page.lines().find(|l| l.starts_with(&row)).expect("found above");
            let decision = format!("| {:?} |", case.decision);
            assert!(line.contains(&decision), "{line} lacks {decision}");
        }
    }
}
