//! The settings of one start: file lines and `-D` flags merged, every value checked against the table, all complaints kept.

use std::collections::BTreeMap;
use std::path::Path;

use super::problem::{Origin, Problem, Warning};
use super::properties::{self, BadEscape, Property};
use super::table::{ALONE, Effect, Key, Scope};
use super::value;

/// ZooKeeper's prefix of system properties.
const JAVA_PREFIX: &str = "zookeeper.";

/// Values by name without `zookeeper.`, each with where it came from.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    values: BTreeMap<String, (String, Origin)>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
}

impl Settings {
    /// Adds the lines of a file. A later line wins over an earlier one, as in Java.
    pub(crate) fn add_file(&mut self, path: &Path, bytes: &[u8]) {
        self.add_lines(path, bytes, |_| None);
    }

    /// [`Settings::add_file`] for a file that some keys must not be in: `refuse` says what is expected instead of a key.
    pub(crate) fn add_lines(&mut self, path: &Path, bytes: &[u8], refuse: impl Fn(&str) -> Option<String>) {
        let (properties, bad) = properties::parse(bytes);
        for BadEscape { line, found } in bad {
            let origin = Origin::File { path: path.to_owned(), line };
            self.wrong(origin, "\\u", Some(&found), "\\u with four hexadecimal digits behind it");
        }
        for Property { line, key, value } in properties {
            let origin = Origin::File { path: path.to_owned(), line };
            match refuse(&key) {
                Some(expected) => self.wrong(origin, &key, None, &expected),
                None => self.add(origin, &key, value),
            }
        }
    }

    /// Adds `-D` flags, each `key=value`, which win over the file.
    pub(crate) fn add_flags(&mut self, flags: &[String]) {
        for flag in flags {
            match flag.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    self.add(Origin::Flag, key.trim(), value.trim().to_owned());
                }
                _ => self.wrong(Origin::Flag, flag, Some(flag), "key=value"),
            }
        }
    }

    fn add(&mut self, origin: Origin, key: &str, value: String) {
        let prefixed = key.strip_prefix(JAVA_PREFIX);
        let name = prefixed.unwrap_or(key);
        let Some(row) = Key::find(name) else { return self.unknown(origin, key) };
        if matches!(origin, Origin::File { .. }) && row.effect.counts() {
            let java_only = row.scope == Scope::Java || prefixed.is_some();
            if java_only {
                let text = "ZooKeeper takes this only as a Java system property; it counts here all the same";
                self.warn(origin.clone(), key, text.to_owned());
            }
        }
        if !row.shape.takes(&value) {
            let found = shown(name, &value);
            return self.wrong(origin, key, Some(&found), &row.shape.expected());
        }
        self.note_duplicate(&origin, key, name);
        self.judge(row, &origin, key, name, &value);
        self.values.insert(name.to_owned(), (value, origin));
    }

    fn note_duplicate(&mut self, origin: &Origin, key: &str, name: &str) {
        if let (Some((_, Origin::File { line, .. })), Origin::File { .. }) = (self.values.get(name), origin) {
            let text = format!("also set on line {line}; the last one counts");
            self.warn(origin.clone(), key, text);
        }
    }

    fn judge(&mut self, row: &Key, origin: &Origin, key: &str, name: &str, value: &str) {
        match row.effect {
            // What does nothing on a server alone is said once it is known to be alone.
            Effect::Honoured | Effect::Ensemble { .. } => {}
            Effect::Inert { quiet, .. } if !quiet.is_empty() && quiet.eq_ignore_ascii_case(value) => {}
            Effect::Inert { why, .. } => self.warn(origin.clone(), key, format!("has no effect: {why}")),
            Effect::Refused { allowed, .. } if !allowed.is_empty() && allowed.eq_ignore_ascii_case(value) => {
            }
            Effect::Refused { allowed, why } => {
                let wanted = if allowed.is_empty() { "this key not to be set" } else { allowed };
                self.wrong(origin.clone(), key, Some(&shown(name, value)), &format!("{wanted}: {why}"));
            }
        }
    }

    fn unknown(&mut self, origin: Origin, key: &str) {
        let name = key.strip_prefix(JAVA_PREFIX).unwrap_or(key);
        let hint = match Key::nearest(name) {
            Some(nearest) => format!("; did you mean {nearest}?"),
            None => String::new(),
        };
        self.warn(origin, key, format!("has no effect: neither ZooKeeper nor Zabra knows it{hint}"));
    }

    /// Records a complaint that stops the start.
    pub(crate) fn wrong(&mut self, origin: Origin, key: &str, found: Option<&str>, expected: &str) {
        let (key, expected) = (key.to_owned(), expected.to_owned());
        self.problems.push(Problem { origin, key, found: found.map(str::to_owned), expected });
    }

    /// Records a complaint that does not.
    pub(crate) fn warn(&mut self, origin: Origin, key: &str, text: String) {
        self.warnings.push(Warning { origin, key: key.to_owned(), text });
    }

    /// Says of every key that is about several servers that a server alone does not heed it.
    pub(crate) fn warn_of_ensemble_keys(&mut self) {
        for (name, (value, origin)) in &self.values {
            if let Effect::Ensemble { quiet } = Key::known(name).effect
                && (quiet.is_empty() || !quiet.eq_ignore_ascii_case(value))
            {
                let (origin, key) = (origin.clone(), name.clone());
                self.warnings.push(Warning { origin, key, text: format!("has no effect: {ALONE}") });
            }
        }
    }

    /// The checked text of a key.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(Key::known(name).effect.counts(), "only honoured keys are asked for");
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// Where a key came from.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// A whole number. Its bounds were checked when it was added.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.text(name).and_then(value::int).unwrap_or(default)
    }

    /// `true` or `false`, `yes` or `no`.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.text(name).and_then(value::yes_no).unwrap_or(default)
    }

    /// A duration in milliseconds.
    pub(crate) fn interval_ms(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(value::interval_ms)
    }

    /// The names of all keys, each with where it came from.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.values.iter().map(|(name, (_, origin))| (name.as_str(), origin))
    }

    /// All keys that start with `prefix`: name without it, value, origin; in the order of the names.
    pub(crate) fn family<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a Origin)> {
        let all = self.values.iter();
        all.filter_map(move |(k, (v, o))| Some((k.strip_prefix(prefix)?, v.as_str(), o)))
    }
}

/// Secrets never reach a message.
fn shown(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    let secret = !value.is_empty() && ["password", "passwd", "superdigest"].iter().any(|s| name.contains(s));
    if secret { "(hidden)".to_owned() } else { value.to_owned() }
}
