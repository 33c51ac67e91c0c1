//! `zabra snapshot dump` and `zabra snapshot verify`: reads snapshots without touching them.
//!
//! - S1: every byte is checked: the file's own checksums first, then that the chunks make a tree with the digest they promise.
//! - S2: damage is a finding with its place, never a panic; the other snapshots are still looked at.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::json;

use super::{InspectArgs, Lines, Verdict, printable, progress};
use crate::server::fourletter::text::utc;
use crate::storage::snapshot::{self, Damage, DamageKind, SnapshotReader, SnapshotStore, VerifyReport};
use crate::storage::vfs::RealVfs;
use crate::tree::{ChunkKind, Loader, NodeRef, Owner, Tree, TreeOptions};

/// Folders inside a data directory that snapshots may be in, nearest first.
const FOLDERS: &[&str] = &["", "zabra"];

/// Prints every session and every node of the snapshot (of the newest one in a directory), then what [`verify`] prints.
pub fn dump(args: &InspectArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let files = files(&args.path)?;
    let newest = files.last().expect("`files` never returns none");
    let mut lines = Lines::new(out, args.json);
    let verdict = check(newest, &mut lines, true)?;
    lines.finish()?;
    Ok(verdict)
}

/// Reads the snapshot, or all of a directory, and says what is good and what is damaged.
pub fn verify(args: &InspectArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let mut lines = Lines::new(out, args.json);
    let mut verdict = Verdict::Fine;
    for file in files(&args.path)? {
        if check(&file, &mut lines, false)? == Verdict::Damaged {
            verdict = Verdict::Damaged;
        }
    }
    lines.finish()?;
    Ok(verdict)
}

/// The file given, or the snapshots of a directory in the order of their zxids.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !path.is_dir() {
        bail!("{}: no such file or directory", path.display());
    }
    for folder in FOLDERS {
        let dir = if folder.is_empty() { path.to_owned() } else { path.join(folder) };
        let store = SnapshotStore::read_only(Arc::new(RealVfs), &dir);
        if let Ok(zxids) = store.zxids()
            && !zxids.is_empty()
        {
            return Ok(zxids.into_iter().map(|zxid| store.path(zxid)).collect());
        }
    }
    bail!("{}: no snapshots here, nor in zabra inside it", path.display());
}

fn check(file: &Path, lines: &mut Lines<'_>, every_node: bool) -> anyhow::Result<Verdict> {
    let mut report = snapshot::verify(&RealVfs, file).with_context(|| file.display().to_string())?;
    let name = file.display().to_string();
    // As a start does; a copy under a name of its own is judged by its bytes alone.
    let named = file.file_name().and_then(|name| snapshot::zxid_of(name.to_str()?));
    if let (Some(named), Some(info)) = (named, &report.info)
        && named != info.zxid
    {
        report.add(Damage { chunk: None, offset: 0, kind: DamageKind::Name });
    }
    for damage in &report.damages {
        let text = || format!("damage: {name}: {damage}");
        lines.put(text, || {
            json!({"damage": damage.kind.to_string(), "file": name, "chunk": damage.chunk, "offset": damage.offset})
        });
    }
    let tree = if report.is_good() { Some(load(file)?) } else { None };
    let fault = match &tree {
        Some(Err(fault)) => {
            lines.put(|| format!("damage: {name}: {fault}"), || json!({"damage": fault, "file": name}));
            true
        }
        _ => false,
    };
    let tree = tree.and_then(Result::ok);
    if let Some(tree) = tree.as_ref().filter(|_| every_node) {
        nodes(tree, lines);
    }
    conclude(&name, &report, tree.as_ref(), lines);
    Ok(if report.is_good() && !fault { Verdict::Fine } else { Verdict::Damaged })
}

/// The tree in a snapshot whose bytes are good; the inner error says why they make none.
fn load(file: &Path) -> anyhow::Result<Result<Tree, String>> {
    let reader = SnapshotReader::open(&RealVfs, file)?;
    let bar = progress(reader.info().raw_bytes);
    // TTL owners are shown as such, whatever the server's own setting is.
    let loader = Loader::new(TreeOptions { extended_types: true, ..TreeOptions::default() });
    let mut raw = Vec::new();
    for index in 0..reader.chunk_count() {
        let number = reader.read_chunk(index, &mut raw)?;
        let Some(kind) = u8::try_from(number).ok().and_then(ChunkKind::from_u8) else {
            return Ok(Err(format!("chunk {index} has the unknown kind {number}")));
        };
        if let Err(error) = loader.chunk(kind, &raw) {
            return Ok(Err(format!("chunk {index}: {error}")));
        }
        bar.inc(raw.len() as u64);
    }
    bar.finish_and_clear();
    Ok(loader.finish().map_err(|error| error.to_string()))
}

fn nodes(tree: &Tree, lines: &mut Lines<'_>) {
    let mut sessions: Vec<_> = tree.sessions().collect();
    sessions.sort_unstable();
    for (session, timeout_ms) in sessions {
        let text = || format!("session {session} timeout={timeout_ms}ms");
        lines.put(text, || json!({"session": session.to_string(), "timeout_ms": timeout_ms}));
    }
    let mut stack: Vec<NodeRef<'_>> = tree.find("/").into_iter().collect();
    while let Some(node) = stack.pop() {
        put_node(tree, &node, lines);
        let mut children: Vec<NodeRef<'_>> = node.child_nodes().collect();
        children.sort_unstable_by(|a, b| b.name().cmp(a.name()));
        stack.append(&mut children);
    }
}

fn put_node(tree: &Tree, node: &NodeRef<'_>, lines: &mut Lines<'_>) {
    let (path, stat) = (node.path(), node.persisted());
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let data_bytes = node.data().map(<[u8]>::len);
    let owner = match node.owner() {
        Owner::Persistent => String::new(),
        Owner::Ephemeral(session) => format!(" ephemeral={session}"),
        Owner::Container => " container".to_owned(),
        Owner::Ttl(ms) => format!(" ttl={ms}ms"),
    };
    let acl_entries = tree.acl(node.acl_id()).len();
    let text = || {
        format!(
            "{}{owner} data={} children={} czxid=0x{:x} mzxid=0x{:x} pzxid=0x{:x} version={} cversion={} aversion={} \
             ctime={} mtime={} acl={acl_entries}",
            printable(&path),
            data_bytes.map_or("null".to_owned(), |n| n.to_string()),
            node.child_count(),
            stat.czxid,
            stat.mzxid,
            stat.pzxid,
            stat.version,
            stat.cversion,
            stat.aversion,
            utc(stat.ctime),
            utc(stat.mtime),
        )
    };
    lines.put(text, || {
        json!({
            "path": path, "data_bytes": data_bytes, "children": node.child_count(), "owner": stat.ephemeral_owner,
            "czxid": stat.czxid, "mzxid": stat.mzxid, "pzxid": stat.pzxid, "version": stat.version,
            "cversion": stat.cversion, "aversion": stat.aversion, "ctime": stat.ctime, "mtime": stat.mtime,
            "acl_entries": acl_entries,
        })
    });
}

fn conclude(name: &str, report: &VerifyReport, tree: Option<&Tree>, lines: &mut Lines<'_>) {
    let good = report.is_good() && tree.is_some();
    let word = if good { "good" } else { "DAMAGED" };
    let counts = tree.map(Tree::counts).unwrap_or_default();
    let digest = tree.map(|t| format!("{:x}", t.digest()));
    let text = || {
        let info = report.info.as_ref().map_or("header or table damaged".to_owned(), |i| {
            let (zxid, end, bytes) = (i.zxid, i.zxid_end, i.file_bytes);
            format!("zxid {zxid} (no later than {end}), taken {}, {bytes} bytes", utc(i.created.0))
        });
        let tree = digest.as_ref().map_or(String::new(), |d| {
            format!("; {} nodes, {} sessions, digest {d}", counts.nodes, counts.sessions)
        });
        let (chunks, damaged) = (report.chunks_good, report.damage_count);
        format!("{word}: {name}: {info}; {chunks} chunks good, {damaged} places damaged{tree}")
    };
    lines.put(text, || {
        let info = report.info.as_ref();
        json!({
            "good": good, "file": name, "zxid": info.map(|i| i.zxid.0), "zxid_end": info.map(|i| i.zxid_end.0),
            "created_ms": info.map(|i| i.created.0), "file_bytes": info.map(|i| i.file_bytes),
            "raw_bytes": info.map(|i| i.raw_bytes), "chunks_good": report.chunks_good,
            "damage_count": report.damage_count, "nodes": tree.map(|_| counts.nodes),
            "sessions": tree.map(|_| counts.sessions), "digest": digest,
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{WallMs, Zxid};
    use crate::storage::snapshot::{LEVEL_DEFAULT, SnapshotMeta};

    /// A snapshot of a fresh tree at `zxid`, in `DIR/zabra`.
    fn write(dir: &Path, zxid: u64) -> PathBuf {
        let store = SnapshotStore::open(Arc::new(RealVfs), &dir.join("zabra")).unwrap();
        let meta = SnapshotMeta {
            zxid: Zxid(zxid),
            node_id: 1,
            created: WallMs(1_000),
            chunk_bytes_target: 1 << 20,
            level: LEVEL_DEFAULT,
        };
        let mut writer = store.create(meta).unwrap();
        let mut tree = Tree::new(TreeOptions::default());
        let mut image = tree.begin_image();
        let mut raw = Vec::new();
        while let Some(kind) = tree.image_chunk(&mut image, &mut raw, 1 << 20) {
            writer.chunk(kind as u8 as u16, &raw).unwrap();
            raw.clear();
        }
        tree.end_image(image);
        writer.finish(Zxid(zxid), b"").unwrap();
        store.path(Zxid(zxid))
    }

    fn run(
        tool: fn(&InspectArgs, &mut dyn Write) -> anyhow::Result<Verdict>,
        path: &Path,
        json: bool,
    ) -> (Verdict, String) {
        let mut out = Vec::new();
        let verdict = tool(&InspectArgs { path: path.to_owned(), json }, &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_snapshot_is_dumped_node_by_node() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 5);
        let newest = write(dir.path(), 9);
        let (verdict, text) = run(dump, dir.path(), false);
        assert_eq!(verdict, Verdict::Fine);
        let paths: Vec<&str> = text.lines().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(paths, ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota", "good:"]);
        assert!(
            text.contains(newest.to_str().unwrap()) && text.contains("; 5 nodes, 0 sessions, digest "),
            "{text}"
        );
        let (_, text) = run(verify, dir.path(), true);
        let values: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((values.len(), &values[0]["zxid"], &values[1]["good"]), (2, &json!(5), &json!(true)));
    }

    #[test]
    fn a_flip_of_any_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), 1);
        let good = std::fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&file, &bytes).unwrap();
            let mut out = Vec::new();
            let found = verify(&InspectArgs { path: file.clone(), json: false }, &mut out);
            // A flip in the version number reads as "made by a later version": an error, not a finding.
            assert!(found.is_err() || found.is_ok_and(|v| v == Verdict::Damaged), "byte {at}");
        }
        std::fs::write(&file, &good).unwrap();
        assert_eq!(run(verify, &file, false).0, Verdict::Fine);
    }

    #[test]
    fn a_snapshot_under_the_name_of_another_is_damage_as_it_is_at_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), 5);
        let other = file.with_file_name("snapshot.0000000000000009");
        std::fs::rename(&file, &other).unwrap();
        let (verdict, text) = run(verify, dir.path(), false);
        assert_eq!(verdict, Verdict::Damaged);
        assert!(text.contains("zxid differs from the file's name"), "{text}");
        let copy = file.with_file_name("copy");
        std::fs::rename(&other, &copy).unwrap();
        assert_eq!(run(verify, &copy, false).0, Verdict::Fine, "a copy has a name of its own");
    }

    #[test]
    fn damage_in_one_snapshot_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let bad = write(dir.path(), 1);
        write(dir.path(), 2);
        std::fs::write(&bad, b"short").unwrap();
        let (verdict, text) = run(verify, dir.path(), false);
        assert_eq!(verdict, Verdict::Damaged);
        assert!(text.contains("damage: ") && text.lines().last().unwrap().starts_with("good: "), "{text}");
    }

    #[test]
    fn nothing_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let args = InspectArgs { path: dir.path().to_owned(), json: false };
        assert!(verify(&args, &mut Vec::new()).unwrap_err().to_string().contains("no snapshots"));
    }
}
