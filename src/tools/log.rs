//! `zabra log dump` and `zabra log verify`: reads a transaction log without touching it.
//!
//! - L1: what a start would find is what is reported: the same survey and the same table decide (`src/docs/recovery.md`).
//! - L2: a server may write meanwhile. What looks damaged is looked at again: damage stays where it is, a record that was only being written
//!   is whole the next time.
//! - L3: without superblock and snapshots at hand, a log is judged by itself: its first record is believed to follow something.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{InspectArgs, Lines, Verdict, printable, progress};
use crate::base::{LogPos, SessionId, Zxid};
use crate::server::fourletter::text::utc;
use crate::storage::log::format::RecordHead;
use crate::storage::log::{Inspection, RecordKind, RecoveryHints, Row, inspect};
use crate::storage::snapshot::SnapshotStore;
use crate::storage::superblock::{self, CopyState};
use crate::storage::vfs::RealVfs;
use crate::wire::OpCode;
use crate::wire::txn::{Lifetime, Proposal, Txn};

/// Folders inside a data directory that a log may be in, nearest first.
const FOLDERS: &[&str] = &["", "log", "zabra/log"];

/// Looks after which a log whose damage is found at another place each time is taken for one that is being written.
const LOOKS_MAX: usize = 16;

/// Prints every transaction, then what [`verify`] prints.
pub fn dump(args: &InspectArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    walk(args, out, true)
}

/// Reads everything and says what a start would find.
pub fn verify(args: &InspectArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    walk(args, out, false)
}

fn walk(args: &InspectArgs, out: &mut dyn Write, every_record: bool) -> anyhow::Result<Verdict> {
    let dir = log_dir(&args.path)?;
    let segment_bytes = segment_bytes(&dir)?;
    let mut lines = Lines::new(out, args.json);
    let superblock_good = check_superblock(&dir, &mut lines);
    let hints = hints(&dir)?;
    let bar = progress(segment_bytes.iter().sum());
    let (mut undecodable, mut first_segment) = (0_u64, None);
    let mut inspection = inspect(&RealVfs, &dir, hints, &mut |pos, head, payload| {
        let first = *first_segment.get_or_insert(pos.segment);
        let before = segment_bytes.iter().take((pos.segment - first) as usize).sum::<u64>();
        bar.set_position(before + pos.offset);
        if head.kind != RecordKind::Txn {
            return;
        }
        match Proposal::read(payload) {
            Ok(proposal) if every_record => {
                lines.put(|| text_of(pos, head, &proposal), || json_of(pos, head, &proposal));
            }
            Ok(_) => {}
            Err(error) => {
                undecodable += 1;
                let (zxid, place) = (head.zxid, pos.to_string());
                let text = || format!("damage: transaction {zxid} at {place} cannot be decoded: {error}");
                lines.put(
                    text,
                    || json!({"damage": error.to_string(), "zxid": zxid.0, "at": place_json(pos)}),
                );
            }
        }
    })
    .context("reading the log")?;
    bar.finish_and_clear();
    look_again(&dir, &mut inspection)?;
    conclude(&inspection, undecodable, &mut lines);
    lines.finish()?;
    let good = inspection.starts && undecodable == 0 && superblock_good;
    Ok(if good { Verdict::Fine } else { Verdict::Damaged })
}

/// L2.
fn look_again(dir: &Path, found: &mut Inspection) -> anyhow::Result<()> {
    for _ in 1..LOOKS_MAX {
        if found.starts {
            return Ok(());
        }
        let again = inspect(&RealVfs, dir, hints(dir)?, &mut |_, _, _| ()).context("reading the log")?;
        let same = (again.row, again.pos) == (found.row, found.pos);
        *found = again;
        if same {
            return Ok(());
        }
    }
    // Every place that looked damaged was passed by a later look: all of it is there, and the writer is faster than this reader.
    found.starts = true;
    found.detail = "being written by a running server".to_owned();
    Ok(())
}

/// Finds the log in the directory given, or where a data directory keeps it.
fn log_dir(path: &Path) -> anyhow::Result<PathBuf> {
    // A segment is judged with those around it.
    let path = if path.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !is_segment_name(&name) {
            bail!(
                "{}: not a segment of a log (log. and 16 hexadecimal digits); give a segment, or the directory of the log",
                path.display()
            );
        }
        path.parent().unwrap_or(path)
    } else {
        path
    };
    if !path.is_dir() {
        bail!("{}: no such file or directory", path.display());
    }
    let candidates = FOLDERS.iter().map(|f| if f.is_empty() { path.to_owned() } else { path.join(f) });
    for dir in candidates {
        if !segment_bytes(&dir).unwrap_or_default().is_empty() {
            return Ok(dir);
        }
    }
    bail!("{}: no log segments here, nor in log or zabra/log inside it", path.display());
}

fn is_segment_name(name: &str) -> bool {
    name.strip_prefix("log.").is_some_and(|n| n.len() == 16 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Sizes of the segment files, in the order of their names.
fn segment_bytes(dir: &Path) -> anyhow::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_segment_name(&name) {
            found.push((name, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, bytes)| bytes).collect())
}

/// What a start would know: superblock and snapshots, if they are where a data directory keeps them. Otherwise (L3) a first look
/// learns what the first record follows, and the second look takes that as given.
fn hints(dir: &Path) -> anyhow::Result<RecoveryHints> {
    if let Some(data_dir) = dir.parent()
        && let Some(hints) = stored_hints(data_dir)?
    {
        return Ok(hints);
    }
    let alone = RecoveryHints { history: true, ..RecoveryHints::default() };
    let first = inspect(&RealVfs, dir, alone, &mut |_, _, _| ()).context("reading the log")?;
    let base = if first.row == Row::StartMissing { first.base } else { Zxid::ZERO };
    Ok(RecoveryHints { base, ..alone })
}

/// `None` without a superblock that a start would take: what is wrong with it, [`check_superblock`] says.
pub(super) fn stored_hints(dir: &Path) -> anyhow::Result<Option<RecoveryHints>> {
    let Ok(Some(stored)) = superblock::load(&RealVfs, dir, false) else { return Ok(None) };
    let store = SnapshotStore::read_only(Arc::new(RealVfs), dir);
    let newest_below = |below| store.newest_valid(below).with_context(|| dir.display().to_string());
    let mut newest = newest_below(None)?.reader;
    // A start removes a state that was announced and never took the log's place.
    if let Some(announced) = stored.value.state_announced
        && newest.as_ref().is_some_and(|reader| reader.info().zxid == announced)
    {
        newest = newest_below(Some(announced))?.reader;
    }
    Ok(Some(RecoveryHints {
        base: newest.map_or(Zxid::ZERO, |reader| reader.info().zxid),
        history: true,
        clean_stop: stored.value.clean_stop,
        pending_truncate: stored.value.truncate_pending,
        pending_reset: stored.value.reset_pending,
        committed: stored.value.committed,
    }))
}

/// Says what is wrong with the superblock, if there is one in the folder above the log; false when a start would refuse it.
fn check_superblock(log_dir: &Path, lines: &mut Lines<'_>) -> bool {
    let Some(dir) = log_dir.parent() else { return true };
    let copies = match superblock::load(&RealVfs, dir, false) {
        Ok(loaded) => loaded.map(|loaded| loaded.copies),
        Err(error) => {
            let file = dir.display().to_string();
            let text = || format!("damage: {file}: {error}; a start would refuse");
            lines.put(text, || json!({"damage": error.to_string(), "file": file}));
            return false;
        }
    };
    for (copy, state) in copies.into_iter().flatten().enumerate() {
        if matches!(state, CopyState::Good | CopyState::Stale) {
            continue;
        }
        let file = superblock::copy_path(dir, copy).display().to_string();
        let text =
            || format!("note: {file}: {state}; the other copy is good, and the next start repairs this one");
        lines.put(text, || json!({"note": state.to_string(), "file": file}));
    }
    true
}

fn conclude(found: &Inspection, undecodable: u64, lines: &mut Lines<'_>) {
    let good = found.starts && undecodable == 0;
    let text = || {
        let word = if good { "good" } else { "DAMAGED" };
        let detail = if found.detail.is_empty() { String::new() } else { format!(" ({})", found.detail) };
        format!(
            "{word}: {} transactions in {} segments, after {} up to {}; {} bytes behind the end; row {}{detail}; at {} in {}",
            found.transactions,
            found.segments,
            found.base,
            found.last,
            found.bytes_beyond,
            found.row,
            found.pos,
            found.path.display(),
        )
    };
    lines.put(text, || {
        json!({
            "good": good,
            "row": found.row.label(),
            "detail": found.detail,
            "transactions": found.transactions,
            "undecodable": undecodable,
            "segments": found.segments,
            "base": found.base.0,
            "last": found.last.0,
            "bytes_beyond": found.bytes_beyond,
            "at": place_json(found.pos),
            "path": found.path.display().to_string(),
        })
    });
}

fn place_json(pos: LogPos) -> Value {
    json!({"segment": pos.segment, "offset": pos.offset})
}

fn text_of(pos: LogPos, head: &RecordHead, p: &Proposal<'_>) -> String {
    let h = &p.header;
    let digest = p.digest.map_or(String::new(), |d| format!(" digest={:x}", d.digest));
    format!(
        "{} {} session={} cxid={} {}{digest} bytes={} at {pos}",
        head.zxid,
        utc(h.time_ms),
        SessionId(h.client_id),
        h.cxid,
        body_text(h.kind, &p.txn),
        head.len,
    )
}

/// A transaction's own name and fields, as text; a multi's in brackets.
fn body_text(kind: i32, txn: &Txn<'_>) -> String {
    let name = kind_name(kind);
    let len = |data: Option<&[u8]>| data.map_or("null".to_owned(), |d| d.len().to_string());
    match txn {
        Txn::Create(c) => {
            let life = match c.lifetime {
                Lifetime::Persistent => String::new(),
                Lifetime::Ephemeral => " ephemeral".to_owned(),
                Lifetime::Container => " container".to_owned(),
                Lifetime::Ttl(ms) => format!(" ttl={ms}ms"),
            };
            let (path, data) = (printable(c.path), len(c.data));
            format!(
                "{name} {path}{life} data={data} acl={} parent_cversion={}",
                c.acl.len(),
                c.parent_cversion
            )
        }
        Txn::Delete { path } => format!("{name} {}", printable(path)),
        Txn::SetData { path, data, version } => {
            format!("{name} {} data={} version={version}", printable(path), len(*data))
        }
        Txn::SetAcl { path, acl, version } => {
            format!("{name} {} acl={} aversion={version}", printable(path), acl.len())
        }
        Txn::Check { path, version } => format!("{name} {} version={version}", printable(path)),
        Txn::Multi(multi) => {
            let parts: Vec<String> = multi.iter().map(|(kind, txn)| body_text(kind, &txn)).collect();
            format!("{name} [{}]", parts.join("; "))
        }
        Txn::CreateSession { timeout_ms } => format!("{name} timeout={timeout_ms}ms"),
        Txn::CloseSession { paths } => {
            let count = paths.map_or("unlisted".to_owned(), |p| p.len().to_string());
            format!("{name} ephemerals={count}")
        }
        Txn::Error { err } => format!("{name} {err}"),
    }
}

fn json_of(pos: LogPos, head: &RecordHead, p: &Proposal<'_>) -> Value {
    let h = &p.header;
    let mut value = body_json(h.kind, &p.txn);
    let fields = [
        ("zxid", json!(head.zxid.0)),
        ("time_ms", json!(h.time_ms)),
        ("session", json!(SessionId(h.client_id).to_string())),
        ("cxid", json!(h.cxid)),
        ("digest", json!(p.digest.map(|d| format!("{:x}", d.digest)))),
        ("bytes", json!(head.len)),
        ("at", place_json(pos)),
    ];
    for (key, field) in fields {
        value[key] = field;
    }
    value
}

fn body_json(kind: i32, txn: &Txn<'_>) -> Value {
    let name = kind_name(kind);
    let len = |data: Option<&[u8]>| data.map(<[u8]>::len);
    match txn {
        Txn::Create(c) => {
            let (ephemeral, container) =
                (c.lifetime == Lifetime::Ephemeral, c.lifetime == Lifetime::Container);
            let ttl_ms = if let Lifetime::Ttl(ms) = c.lifetime { Some(ms) } else { None };
            json!({
                "type": name, "path": c.path, "data_bytes": len(c.data), "acl_entries": c.acl.len(),
                "ephemeral": ephemeral, "container": container, "ttl_ms": ttl_ms,
                "parent_cversion": c.parent_cversion,
            })
        }
        Txn::Delete { path } => json!({"type": name, "path": path}),
        Txn::SetData { path, data, version } => {
            json!({"type": name, "path": path, "data_bytes": len(*data), "version": version})
        }
        Txn::SetAcl { path, acl, version } => {
            json!({"type": name, "path": path, "acl_entries": acl.len(), "aversion": version})
        }
        Txn::Check { path, version } => json!({"type": name, "path": path, "version": version}),
        Txn::Multi(multi) => {
            let parts: Vec<Value> = multi.iter().map(|(kind, txn)| body_json(kind, &txn)).collect();
            json!({"type": name, "transactions": parts})
        }
        Txn::CreateSession { timeout_ms } => json!({"type": name, "timeout_ms": timeout_ms}),
        Txn::CloseSession { paths } => json!({"type": name, "ephemerals": paths.map(|p| p.len())}),
        Txn::Error { err } => json!({"type": name, "error": err}),
    }
}

/// ZooKeeper's name of a transaction type.
fn kind_name(kind: i32) -> &'static str {
    match OpCode::from_i32(kind) {
        Some(OpCode::Create) => "create",
        Some(OpCode::Create2) => "create2",
        Some(OpCode::CreateContainer) => "createContainer",
        Some(OpCode::CreateTtl) => "createTTL",
        Some(OpCode::Delete) => "delete",
        Some(OpCode::DeleteContainer) => "deleteContainer",
        Some(OpCode::SetData) => "setData",
        Some(OpCode::Reconfig) => "reconfig",
        Some(OpCode::SetAcl) => "setACL",
        Some(OpCode::Check) => "check",
        Some(OpCode::Multi) => "multi",
        Some(OpCode::CreateSession) => "createSession",
        Some(OpCode::CloseSession) => "closeSession",
        Some(OpCode::Error) => "error",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ServerId;
    use crate::storage::log::{Group, Log, LogOptions};
    use crate::storage::superblock::{Superblock, SuperblockStore};
    use crate::wire::txn::{MultiWriter, TxnDigest, TxnHeader, kind};

    /// A log of `count` transactions in a directory of its own.
    fn log_of(count: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
        let (mut log, _) =
            Log::open(Arc::new(RealVfs), &dir.path().join("zabra/log"), options, RecoveryHints::default(), 1)
                .unwrap();
        for n in 1..=count {
            let mut group = Group::new();
            group.record(Zxid(n), RecordKind::Txn, |out| transaction(n, out));
            log.appender.append(&mut group).unwrap();
        }
        log.flusher.flush().unwrap();
        dir
    }

    fn transaction(n: u64, out: &mut Vec<u8>) {
        let kind = if n.is_multiple_of(2) { kind::MULTI } else { kind::SET_DATA };
        TxnHeader { client_id: 0x10, cxid: n as i32, zxid: n as i64, time_ms: 1_000, kind }.put(out);
        let set = Txn::SetData { path: "/a\u{7}", data: Some(b"xyz"), version: n as i32 };
        if kind == kind::MULTI {
            let mut multi = MultiWriter::begin(out);
            multi.put(out, kind::SET_DATA, &set);
            multi.put(out, kind::ERROR, &Txn::Error { err: -2 });
        } else {
            set.put(out);
        }
        TxnDigest { version: TxnDigest::VERSION, digest: 0xabc }.put(out);
    }

    fn run(path: &Path, json: bool, every: bool) -> (Verdict, Vec<String>) {
        let mut out = Vec::new();
        let verdict = walk(&InspectArgs { path: path.to_owned(), json }, &mut out, every).unwrap();
        (verdict, String::from_utf8(out).unwrap().lines().map(str::to_owned).collect())
    }

    #[test]
    fn a_good_log_is_dumped_line_by_line() {
        let dir = log_of(3);
        let (verdict, lines) = run(dir.path(), false, true);
        assert_eq!((verdict, lines.len()), (Verdict::Fine, 4));
        let first = "0x1 1970-01-01T00:00:01.000Z session=0x10 cxid=1 setData /a\\u{7} data=3 version=1 digest=abc bytes=";
        assert!(lines[0].starts_with(first), "{}", lines[0]);
        assert!(lines[1].contains("multi [setData /a\\u{7} data=3 version=2; error -2]"), "{}", lines[1]);
        assert!(
            lines[3].starts_with("good: 3 transactions in 1 segments, after 0x0 up to 0x3"),
            "{}",
            lines[3]
        );
    }

    #[test]
    fn json_lines_can_be_read_back() {
        let dir = log_of(2);
        let (_, lines) = run(&dir.path().join("zabra/log"), true, true);
        let values: Vec<Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(values[0]["path"], "/a\u{7}");
        assert_eq!(values[0]["zxid"], 1);
        assert_eq!(values[1]["transactions"][1]["error"], -2);
        assert_eq!((&values[2]["good"], &values[2]["last"]), (&json!(true), &json!(2)));
    }

    #[test]
    fn a_damaged_log_says_where() {
        let dir = log_of(40);
        let log = dir.path().join("zabra/log");
        let (_, lines) = run(&log, true, true);
        let record: Value = serde_json::from_str(&lines[20]).unwrap();
        let offset = record["at"]["offset"].as_u64().unwrap();
        let file = std::fs::read_dir(&log).unwrap().map(|e| e.unwrap().path()).min().unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[offset as usize + 60] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (verdict, lines) = run(&log, true, false);
        let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        // Each group of this log was flushed together with all others: nothing proves that the bad one was synced, so a start
        // would cut there; either way the place is exact.
        assert_eq!(last["good"], json!(verdict == Verdict::Fine));
        assert_eq!((&last["at"]["offset"], &last["last"]), (&json!(offset), &json!(20)));
        assert!(last["bytes_beyond"].as_u64().unwrap() > 0);
    }

    #[test]
    fn a_header_that_is_damaged_is_damage() {
        let dir = log_of(1);
        let log = dir.path().join("zabra/log");
        let file = std::fs::read_dir(&log).unwrap().map(|e| e.unwrap().path()).min().unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[9] ^= 0xff;
        std::fs::write(&file, bytes).unwrap();
        let mut out = Vec::new();
        let result = walk(&InspectArgs { path: log, json: false }, &mut out, false);
        assert!(result.is_err() || result.is_ok_and(|v| v == Verdict::Damaged));
    }

    #[test]
    fn a_superblock_that_a_start_would_refuse_is_damage() {
        let dir = log_of(1);
        for copy in 0..2 {
            std::fs::write(dir.path().join(format!("zabra/superblock.{copy}")), b"no superblock").unwrap();
        }
        let (verdict, lines) = run(dir.path(), false, false);
        assert_eq!(verdict, Verdict::Damaged);
        assert!(lines[0].contains("no valid superblock: superblock.0 is damaged: too short"), "{lines:?}");
        let whole = Superblock::new(1, 1, ServerId(1));
        for copy in 0..2 {
            std::fs::remove_file(dir.path().join(format!("zabra/superblock.{copy}"))).unwrap();
        }
        SuperblockStore::format(&RealVfs, &dir.path().join("zabra"), whole).unwrap();
        std::fs::write(dir.path().join("zabra/superblock.1"), b"no superblock").unwrap();
        let (verdict, lines) = run(dir.path(), false, false);
        assert_eq!(verdict, Verdict::Fine, "the next start repairs it");
        assert!(lines[0].starts_with("note: ") && lines[0].contains("superblock.1: damaged"), "{lines:?}");
    }

    #[test]
    fn a_file_that_is_no_segment_is_not_called_good() {
        let dir = log_of(1);
        let segment = dir.path().join("zabra/log/log.0000000000000001");
        assert_eq!(run(&segment, false, false).0, Verdict::Fine, "with those around it");
        let aside = dir.path().join("zabra/log/damaged.x-1.log.0000000000000001");
        std::fs::copy(&segment, &aside).unwrap();
        let other = dir.path().join("zabra/superblock.0");
        std::fs::write(&other, b"anything").unwrap();
        for path in [aside, other] {
            let error = log_dir(&path).unwrap_err().to_string();
            assert!(error.contains("not a segment"), "{error}");
        }
    }

    #[test]
    fn a_log_that_is_being_written_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let log_dir = dir.path().join("zabra/log");
        let options = LogOptions { segment_bytes: 4 << 20, ..LogOptions::default() };
        let (mut log, _) =
            Log::open(Arc::new(RealVfs), &log_dir, options, RecoveryHints::default(), 1).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut group = Group::new();
                for n in (1..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                    group.clear();
                    group.record(Zxid(n), RecordKind::Txn, |out| transaction(n, out));
                    log.appender.append(&mut group).unwrap();
                    log.flusher.flush().unwrap();
                }
            });
            let verdicts: Vec<_> = (0..40).map(|_| run(dir.path(), false, false)).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            for (verdict, lines) in verdicts {
                assert_eq!(verdict, Verdict::Fine, "{lines:?}");
            }
        });
    }

    #[test]
    fn a_directory_without_a_log_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let args = InspectArgs { path: dir.path().to_owned(), json: false };
        assert!(verify(&args, &mut Vec::new()).unwrap_err().to_string().contains("no log segments"));
        let args = InspectArgs { path: dir.path().join("nothing"), json: false };
        assert!(verify(&args, &mut Vec::new()).is_err());
    }
}
