//! `server.N`, `group.G` and `weight.N` lines, from the file itself or from the dynamic file it names, and `myid`.
//!
//! The value of a server line is a [`Member`].
//!
//! - L1: with `dynamicConfigFile`, these lines stand in that file and in no other, and nothing else stands there.
//! - L2: the version of a dynamic file is what its name ends in (`zoo.cfg.dynamic.100000000`, hexadecimal), else 0.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::ServerId;
use crate::wire::quorum_config::Member;

use super::ReadFile;
use super::build::required;
use super::problem::Origin;
use super::settings::Settings;

/// Families of keys that say who is in the ensemble.
const FAMILIES: [&str; 3] = ["server.", "group.", "weight."];

/// What one `server.N` line says, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerLine {
    pub(super) id: ServerId,
    pub(super) member: Member,
    pub(super) origin: Origin,
    pub(super) key: String,
}

/// Which group each server is in, and the weights that are given.
pub(super) type Hierarchy = (BTreeMap<ServerId, i64>, BTreeMap<ServerId, u64>);

/// All lines that can be read; the others have been complained about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roster {
    /// One for each id, in the order of the keys.
    pub(super) lines: Vec<ServerLine>,
    /// `Some` with any group or weight line.
    pub(super) hierarchy: Option<Hierarchy>,
    /// Of the configuration; 0 unless a dynamic file's name has one.
    pub(super) version: i64,
    /// The file as a whole, for what is missing in it.
    pub(super) whole: Origin,
}

impl Roster {
    /// The last server line: what is wrong with all of them together is said there.
    pub(super) fn origin(&self) -> Origin {
        self.lines.last().map_or_else(|| self.whole.clone(), |line| line.origin.clone())
    }
}

/// Reads all lines about who is in the ensemble.
pub(super) fn roster(s: &mut Settings, file: Option<&Path>, files: ReadFile<'_>) -> Roster {
    let whole = file.map_or(Origin::Flag, |f| Origin::File { path: f.to_owned(), line: 0 });
    let Some(dynamic) = s.text("dynamicConfigFile").map(PathBuf::from) else {
        return Roster { lines: lines(s), hierarchy: hierarchy(s), version: 0, whole };
    };
    refuse_members_here(s);
    match required(&dynamic, files) {
        Ok(text) => s.add_lines(&dynamic, &text, refuse_in_dynamic),
        Err(error) => {
            let key = "dynamicConfigFile";
            let expected = format!("a file that can be read: {error}");
            s.wrong(s.origin(key), key, Some(&dynamic.display().to_string()), &expected);
        }
    }
    Roster { lines: lines(s), hierarchy: hierarchy(s), version: version_of(&dynamic), whole }
}

/// `server.realm` and `server.principal` are rows of their own, about SASL.
fn is_sasl(name: &str) -> bool {
    matches!(name, "server.realm" | "server.principal")
}

/// Is `name` a key of a dynamic file?
fn is_member_key(name: &str) -> bool {
    !is_sasl(name) && FAMILIES.iter().any(|family| name.starts_with(family))
}

fn refuse_members_here(s: &mut Settings) {
    let found: Option<(String, Origin)> =
        s.names().find(|(name, _)| is_member_key(name)).map(|(n, o)| (n.to_owned(), o.clone()));
    if let Some((key, origin)) = found {
        let expected = "server, group and weight lines only in the file that dynamicConfigFile names";
        s.wrong(origin, &key, None, expected);
    }
}

/// What is expected instead of a key that does not belong into a dynamic file.
fn refuse_in_dynamic(key: &str) -> Option<String> {
    match key {
        _ if is_member_key(key) => None,
        "version" => Some("no version inside the file: it stands at the end of the file's name".to_owned()),
        _ => Some("only server, group and weight lines in a dynamic configuration file".to_owned()),
    }
}

/// Hexadecimal behind the last dot of the name.
fn version_of(path: &Path) -> i64 {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    i64::from_str_radix(ending, 16).unwrap_or(0)
}

/// A family's keys without the family's name.
fn family(s: &Settings, prefix: &'static str) -> Vec<(String, String, Origin)> {
    s.family(prefix).map(|(n, v, o)| (n.to_owned(), v.to_owned(), o.clone())).collect()
}

fn lines(s: &mut Settings) -> Vec<ServerLine> {
    let mut lines: Vec<ServerLine> = Vec::new();
    for (number, value, origin) in family(s, "server.") {
        let key = format!("server.{number}");
        if is_sasl(&key) {
            continue;
        }
        match parse(&number, &value) {
            Ok((id, _)) if lines.iter().any(|line| line.id == id) => {
                s.wrong(origin, &key, None, &format!("one line for server {}", id.0));
            }
            Ok((_, member)) if member.secure_client.is_some() => {
                let found = Some("a secure client port");
                s.wrong(origin, &key, found, "no secure client port: TLS is not there yet");
            }
            Ok((id, member)) => lines.push(ServerLine { id, member, origin, key }),
            Err(expected) => s.wrong(origin, &key, Some(&value), &expected),
        }
    }
    lines
}

fn hierarchy(s: &mut Settings) -> Option<Hierarchy> {
    let (groups, weights) = (family(s, "group."), family(s, "weight."));
    if groups.is_empty() && weights.is_empty() {
        return None;
    }
    let (mut group_of, mut weight_of) = (BTreeMap::new(), BTreeMap::new());
    for (number, value, origin) in groups {
        let key = format!("group.{number}");
        let Ok(group) = number.parse::<i64>() else {
            s.wrong(origin, &key, None, "group.G with a whole number G");
            continue;
        };
        for id in value.split(':') {
            match id.trim().parse().map(ServerId) {
                Ok(id) if group_of.insert(id, group).is_some() => {
                    s.wrong(
                        origin.clone(),
                        &key,
                        Some(&value),
                        &format!("server {} in one group only", id.0),
                    );
                }
                Ok(_) => {}
                Err(_) => {
                    s.wrong(origin.clone(), &key, Some(&value), "numbers of servers with : between them")
                }
            }
        }
    }
    for (number, value, origin) in weights {
        // The value's shape was checked when it was added.
        match (number.parse().map(ServerId), super::value::int(&value)) {
            (Ok(id), Some(weight)) => drop(weight_of.insert(id, weight.unsigned_abs())),
            _ => s.wrong(origin, &format!("weight.{number}"), None, "weight.N with the number N of a server"),
        }
    }
    Some((group_of, weight_of))
}

/// Reads one line. The error says what is expected.
fn parse(id: &str, value: &str) -> Result<(ServerId, Member), String> {
    let id = id.parse::<i64>().map(ServerId).map_err(|_| "server.N with a whole number N".to_owned())?;
    Member::parse(value).map(|member| (id, member)).map_err(|e| e.to_string())
}

/// First line of `myid`.
pub(super) fn parse_myid(bytes: &[u8]) -> Result<ServerId, String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    line.parse::<i64>().map(ServerId).map_err(|_| line.chars().take(40).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_lines_that_are_wrong_say_what_is_expected() {
        assert!(parse("1", "h:1").unwrap_err().starts_with("host:port:port"));
        assert!(parse("1", "a:1:2:participant|b:1:2:observer").unwrap_err().contains("the same role"));
        assert!(parse("x", "h:1:2").unwrap_err().contains("whole number"));
    }

    #[test]
    fn the_version_is_in_the_name() {
        for (name, version) in [
            ("/etc/zoo.cfg.dynamic", 0),
            ("/etc/zoo.cfg.dynamic.0", 0),
            ("zoo.cfg.dynamic.100000001", 0x1_0000_0001),
            ("/e.5/dynamic", 0),
        ] {
            assert_eq!(version_of(Path::new(name)), version, "{name}");
        }
    }

    #[test]
    fn myid_is_the_first_line() {
        assert_eq!(parse_myid(b"3\nrest"), Ok(ServerId(3)));
        assert_eq!(parse_myid(b" 12 "), Ok(ServerId(12)));
        assert!(parse_myid(b"").is_err());
        assert!(parse_myid(b"one").is_err());
    }
}
