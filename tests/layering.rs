//! The layer rule, checked: a module imports only from lower layers and from its own children.
//!
//! Reads every `crate::…` path in `src/` (in `use` trees and in expressions) and fails on an edge that the table below
//! does not allow. `testing` may import everything, and nobody below it may import `testing`; unit tests may.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer. Within a layer nobody imports anybody, except where `SIDEWAYS` says so.
const LAYERS: [(&str, u32); 10] = [
    ("base", 0),
    ("wire", 1),
    ("storage", 1),
    ("tree", 2),
    ("session", 2),
    ("election", 2),
    ("zab", 2),
    ("node", 3),
    ("server", 4),
    ("tools", 5),
];

/// Edges within a layer that are wanted. None.
const SIDEWAYS: [(&str, &str); 0] = [];

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// One import: which file, which line, from where to where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    place: String,
}

fn is_allowed(from: &str, to: &str) -> bool {
    if from == to || from == "testing" || SIDEWAYS.contains(&(from, to)) {
        return true;
    }
    match (layer(from), layer(to)) {
        (Some(from), Some(to)) => to < from,
        _ => false,
    }
}

/// The modules that a source text names behind `crate::`, with their lines. Comments, strings' contents aside from
/// format arguments, and everything from `#[cfg(test)]` on are left out: tests come last in a file.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: Vec<String> = text
        .lines()
        .take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"))
        .map(|line| line.split("//").next().unwrap_or_default().to_string())
        .collect();
    let joined = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in joined.match_indices("crate::") {
        let is_whole = !joined[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if is_whole {
            let line = joined[..at].matches('\n').count() + 1;
            let rest = &joined[at + "crate::".len()..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first name of a path, or of every branch of a `{…}` group.
fn first_names(path: &str) -> Vec<String> {
    let identifier =
        |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let (mut depth, mut branches) = (0, vec![String::new()]);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => branches.push(String::new()),
            _ => branches.last_mut().expect("never empty").push(c),
        }
        depth += i32::from(c == '{') - i32::from(c == '}');
    }
    branches.iter().map(|branch| identifier(branch.trim_start())).filter(|name| !name.is_empty()).collect()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    let mut files: Vec<PathBuf> = paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect();
    files.sort();
    files
}

fn edges() -> BTreeSet<Edge> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut edges = BTreeSet::new();
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).expect("below src");
        let first = relative.iter().next().expect("a name").to_string_lossy();
        let from = first.trim_end_matches(".rs").to_string();
        // The crate root and the binary name the modules; a file of unit tests may name what it likes.
        if matches!(from.as_str(), "lib" | "main" | "docs") || relative.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for (line, to) in imports(&text) {
            let place = format!("src/{}:{line}", relative.display());
            edges.insert(Edge { from: from.clone(), to, place });
        }
    }
    edges
}

#[test]
fn every_import_goes_down() {
    let edges = edges();
    let bad: Vec<String> = edges
        .iter()
        .filter(|edge| !is_allowed(&edge.from, &edge.to))
        .map(|edge| format!("{}: {} may not import {}", edge.place, edge.from, edge.to))
        .collect();
    assert!(bad.is_empty(), "\n{}\n", bad.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(root).expect("the crate root");
    let modules = text.lines().filter_map(|l| l.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules.filter(|m| *m != "testing") {
        assert!(layer(module).is_some(), "{module} is in no layer of this test");
    }
}

#[test]
fn the_reader_sees_every_form_of_import() {
    let text = "use crate::base::Zxid;\nuse crate::{wire::{jute, txn}, storage as s,\n  tree};\n// crate::tools\n\
                let x = crate::node::Y; $crate::no; my_crate::no;\n#[cfg(test)]\nmod tests { use crate::testing; }";
    let found: Vec<String> = imports(text).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(found, ["1 base", "2 wire", "2 storage", "2 tree", "5 node"]);
}

#[test]
fn the_table_forbids_what_it_should() {
    for (from, to) in [("wire", "storage"), ("storage", "wire"), ("base", "wire"), ("tree", "session")] {
        assert!(!is_allowed(from, to), "{from} -> {to}");
    }
    assert!(
        !is_allowed("node", "server") && !is_allowed("server", "tools") && !is_allowed("node", "testing")
    );
    for (from, to) in [("tree", "wire"), ("node", "storage"), ("tools", "base"), ("testing", "tools")] {
        assert!(is_allowed(from, to), "{from} -> {to}");
    }
}
