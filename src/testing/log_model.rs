//! A log on a simulated disk beside a model of it: a list of what was appended, and how much of it was acknowledged.
//!
//! After every crash the log must hold a piece of that list: from where it was purged to at least the last acknowledged record,
//! byte for byte, nothing invented, nothing that was cut before ([`LogBench::check_against_model`]).

use std::path::Path;
use std::sync::Arc;

use crate::base::rng::Rng;
use crate::base::{LogPos, Zxid};
use crate::storage::log::{Group, Log, LogError, LogOptions, RecordKind, RecoveryHints, RecoveryReport};
use crate::testing::sim_disk::SimDisk;

/// Where the log lies on the simulated disk.
pub const LOG_DIR: &str = "/data/log";

/// A log, its disk and its model.
#[derive(Debug)]
pub struct LogBench {
    /// The disk of this life.
    pub disk: SimDisk,
    /// How the log is laid out.
    pub options: LogOptions,
    /// The open log; `None` between lives.
    pub log: Option<Log>,
    /// What was appended, oldest first, and not cut.
    pub appended: Vec<Zxid>,
    /// How many of `appended` were acknowledged.
    pub acknowledged: usize,
    /// What the superblock would hold.
    pub hints: RecoveryHints,
    /// Crash in this life (the first is 1) at this operation of it.
    pub crash_in: Option<(u64, u64)>,
    life: u64,
}

/// The payload of a transaction: the same every time it is submitted, so that a stale copy would fit perfectly.
#[must_use]
pub fn payload_of(zxid: Zxid) -> Vec<u8> {
    let mut rng = Rng::new(zxid.0);
    let len = [0, 7, 60, 100, 101, 300, 700, 1500][rng.below(8) as usize];
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

impl LogBench {
    /// A new log on a new disk.
    #[must_use]
    pub fn new(options: LogOptions) -> LogBench {
        LogBench::on(SimDisk::new(1), options)
    }

    /// Before the first start on `disk`.
    #[must_use]
    pub fn on(disk: SimDisk, options: LogOptions) -> LogBench {
        let hints = RecoveryHints::default();
        LogBench {
            disk,
            options,
            log: None,
            appended: vec![],
            acknowledged: 0,
            hints,
            crash_in: None,
            life: 0,
        }
    }

    /// The same model beside another disk: that of one crash image.
    #[must_use]
    pub fn beside(&self, disk: SimDisk) -> LogBench {
        LogBench { disk, log: None, appended: self.appended.clone(), crash_in: None, ..*self }
    }

    /// Starts and compares with the model, which then knows how much survived.
    pub fn open(&mut self) -> Result<RecoveryReport, LogError> {
        assert!(self.log.is_none(), "stopped before");
        self.life += 1;
        if let Some((_, op)) = self.crash_in.filter(|(life, _)| *life == self.life) {
            self.disk.crash_at(op);
        }
        let vfs = Arc::new(self.disk.clone());
        // The same seed in every life: salts must differ all the same.
        let (log, report) = Log::open(vfs, Path::new(LOG_DIR), self.options, self.hints, 42)?;
        self.log = Some(log);
        self.hints.history = true;
        self.hints.clean_stop = None;
        assert_eq!(report.truncated_to, self.hints.pending_truncate, "an intent is carried out");
        assert_eq!(report.reset_to, self.hints.pending_reset, "an intent is carried out");
        self.hints.pending_truncate = None;
        self.hints.pending_reset = None;
        self.check_against_model(&report);
        Ok(report)
    }

    /// The log's content must be a piece of the model's that ends at or behind the last acknowledged record.
    pub fn check_against_model(&mut self, report: &RecoveryReport) {
        let found = self.read_all();
        assert_eq!(found.last().copied().unwrap_or(report.base), report.last);
        let start = self.appended.iter().position(|z| *z > report.base).unwrap_or(self.appended.len());
        let end = start + found.len();
        assert!(end <= self.appended.len(), "invented: {:?}", &found[self.appended.len() - start..]);
        assert_eq!(found, self.appended[start..end], "from {} on", report.base);
        assert!(
            end >= self.acknowledged,
            "acknowledged up to {}, found {end} of {report:?}",
            self.acknowledged
        );
        assert!(report.base <= self.hints.base, "more was purged than was covered");
        self.appended.truncate(end);
        self.acknowledged = end;
    }

    /// zxids of all durable records; payloads are compared on the way.
    #[must_use]
    pub fn read_all(&self) -> Vec<Zxid> {
        let reader = &self.log().reader;
        let mut cursor = reader.after(reader.base()).expect("the whole log");
        let mut found = vec![];
        while let Some((zxid, payload)) = cursor.next().expect("no damage") {
            assert_eq!(payload, payload_of(zxid), "payload of {zxid}");
            found.push(zxid);
        }
        found
    }

    /// The open log.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.log.as_ref().expect("open")
    }

    /// The open log.
    pub fn log_mut(&mut self) -> &mut Log {
        self.log.as_mut().expect("open")
    }

    /// Appends `count` records as one group. After an error that stops the process they may or may not be found.
    pub fn append(&mut self, count: usize) -> Result<(), LogError> {
        let mut group = Group::new();
        let mut zxid = self.log().appender.last_zxid();
        for _ in 0..count {
            zxid = zxid.next();
            group.record(zxid, RecordKind::Txn, |b| b.extend(payload_of(zxid)));
        }
        let result = self.log_mut().appender.append(&mut group);
        if result.as_ref().err().is_none_or(|e| !e.is_benign()) {
            self.appended.extend(group.iter().map(|(z, _, _)| z));
        }
        result.map(drop)
    }

    /// Flushes: everything appended is then acknowledged.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let durable = self.log_mut().flusher.flush()?;
        self.acknowledged = self.appended.iter().take_while(|z| **z <= durable.zxid).count();
        assert_eq!(self.acknowledged, self.appended.len(), "one thread: a flush takes all");
        Ok(())
    }

    /// A snapshot of all that is acknowledged, then a purge of what lies `keep` records before that.
    pub fn snapshot_and_purge(&mut self, keep: usize) -> Result<(), LogError> {
        let Some(&covered) = self.appended[..self.acknowledged].last() else { return Ok(()) };
        self.hints.base = self.hints.base.max(covered);
        let below = self.appended[self.acknowledged.saturating_sub(keep + 1)];
        let base_before = self.log().reader.base();
        self.log_mut().spares.purge(below)?;
        let base = self.log().reader.base();
        assert!(base < below || base == base_before, "{below} is still to be read");
        Ok(())
    }

    /// Cuts the last `count` records (as far as no snapshot holds them).
    pub fn truncate(&mut self, count: usize) -> Result<(), LogError> {
        self.flush()?;
        let base = self.log().reader.base();
        let keep = self.appended.len().saturating_sub(count);
        let to = keep.checked_sub(1).map_or(base, |last| self.appended[last]).max(base);
        // Snapshots beyond the cut are deleted first (R3); one at the log's start stays.
        self.hints.base = self.hints.base.min(to);
        let keep = self.appended.iter().take_while(|z| **z <= to).count();
        let LogBench { log, hints, appended, acknowledged, .. } = self;
        let log = log.as_mut().expect("open");
        log.appender.truncate(&mut log.flusher, to, &mut |intent| {
            hints.pending_truncate = intent;
            appended.truncate(keep);
            *acknowledged = keep;
            Ok(())
        })?;
        assert_eq!(self.log().reader.last_zxid(), to);
        Ok(())
    }

    /// Replaces the log by an empty one behind the state at a zxid that is `ahead` of the last record.
    pub fn reset(&mut self, ahead: u64) -> Result<(), LogError> {
        let base = Zxid(self.log().appender.last_zxid().0 + ahead);
        let LogBench { log, hints, appended, acknowledged, .. } = self;
        let log = log.as_mut().expect("open");
        log.appender.reset(&mut log.flusher, base, &mut |intent| {
            hints.pending_reset = intent;
            // From here on that snapshot counts, and nothing else.
            hints.base = base;
            appended.clear();
            *acknowledged = 0;
            Ok(())
        })?;
        assert_eq!((self.log().reader.base(), self.log().reader.last_zxid()), (base, base));
        Ok(())
    }

    /// A clean stop: everything durable, and the superblock knows where.
    pub fn stop(&mut self) -> Result<(), LogError> {
        self.flush()?;
        self.hints.clean_stop = Some(self.log().flusher.durable().pos);
        self.log = None;
        self.disk = self.disk.after_kill();
        Ok(())
    }

    /// Goes on with `disk`, an image of a crash of this one.
    pub fn crash_to(&mut self, disk: SimDisk) {
        self.log = None;
        self.disk = disk;
    }

    /// Where the log is durable.
    #[must_use]
    pub fn durable_pos(&self) -> LogPos {
        self.log().flusher.durable().pos
    }
}
