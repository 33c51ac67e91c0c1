//! Java's properties format, which is what a `zoo.cfg` is (`java.util.Properties.load`).
//!
//! - P1: parsing never panics and takes time linear in the text.
//! - P2: every entry knows the line it starts on, so that a message can point at it.
//! - P3: keys and values come back trimmed, as ZooKeeper trims them; order and duplicates are kept for the caller to judge.
//!
//! One departure: Java reads the file as ISO 8859-1. Text that is valid UTF-8 is read as UTF-8 here, so that a directory name
//! outside ASCII means what the editor showed; anything else is read as ISO 8859-1.

/// One `key = value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Property {
    /// Line the entry starts on, from 1.
    pub(crate) line: u32,
    /// Trimmed, escapes resolved.
    pub(crate) key: String,
    /// Trimmed, escapes resolved; empty when there is none.
    pub(crate) value: String,
}

/// A `\u` without four hexadecimal digits behind it: the one thing that makes a properties file invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadEscape {
    /// Line the entry starts on, from 1.
    pub(crate) line: u32,
    /// The escape as found.
    pub(crate) found: String,
}

/// Reads a whole file. Entries that are fine come back even when others are not.
pub(crate) fn parse(bytes: &[u8]) -> (Vec<Property>, Vec<BadEscape>) {
    let text = decode(bytes);
    let (mut properties, mut bad) = (Vec::new(), Vec::new());
    for (line, raw) in logical_lines(&text) {
        let (key, value) = split_key(&raw);
        match (unescape(key), unescape(value)) {
            (Ok(key), Ok(value)) => {
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                properties.push(Property { line, key, value });
            }
            (Err(found), _) | (_, Err(found)) => bad.push(BadEscape { line, found }),
        }
    }
    (properties, bad)
}

fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        Err(_) => bytes.iter().map(|&b| char::from(b)).collect(),
    }
}

/// Java's white space inside a properties file; line ends are dealt with before.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Joins continued lines, drops blank and comment lines. Each comes with the number of its first line.
fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut out: Vec<(u32, String)> = Vec::new();
    let mut open = false;
    for (number, natural) in (1_u32..).zip(natural_lines(text)) {
        let rest = natural.trim_start_matches(is_blank);
        if !open {
            if rest.is_empty() || rest.starts_with(['#', '!']) {
                continue;
            }
            out.push((number, String::new()));
        }
        let continued = ends_in_odd_backslashes(rest);
        let kept = if continued { &rest[..rest.len() - 1] } else { rest };
        out.last_mut().expect("pushed above, or by the line that left `open`").1.push_str(kept);
        open = continued;
    }
    out
}

/// Lines ended by CR, LF or CR LF.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).flat_map(|l| l.split('\r'))
}

fn ends_in_odd_backslashes(line: &str) -> bool {
    line.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1
}

/// The key ends at the first `=`, `:` or blank that no backslash protects; blanks and one separator behind it are skipped.
fn split_key(line: &str) -> (&str, &str) {
    let mut protected = false;
    let end = line.char_indices().find(|&(_, c)| {
        let ends = !protected && (is_blank(c) || c == '=' || c == ':');
        protected = c == '\\' && !protected;
        ends
    });
    let (key, rest) = line.split_at(end.map_or(line.len(), |(at, _)| at));
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    // UTF-16 units from `\u` escapes wait here, because a character outside the first plane is written as two of them.
    let mut units: Vec<u16> = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let plain = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    units.push(unit(&digits).ok_or_else(|| format!("\\u{digits}"))?);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        flush_units(&mut units, &mut out);
        out.push(plain);
    }
    flush_units(&mut units, &mut out);
    Ok(out)
}

fn unit(digits: &str) -> Option<u16> {
    let valid = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if valid { u16::from_str_radix(digits, 16).ok() } else { None }
}

fn flush_units(units: &mut Vec<u16>, out: &mut String) {
    if !units.is_empty() {
        out.push_str(&String::from_utf16_lossy(units));
        units.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(u32, String, String)> {
        let (properties, bad) = parse(text.as_bytes());
        assert_eq!(bad, [], "{text:?}");
        properties.into_iter().map(|p| (p.line, p.key, p.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let all = pairs(text);
        assert_eq!(all.len(), 1, "{text:?}: {all:?}");
        (all[0].1.clone(), all[0].2.clone())
    }

    fn same(text: &str, key: &str, value: &str) {
        assert_eq!(one(text), (key.to_owned(), value.to_owned()), "{text:?}");
    }

    #[test]
    fn the_separators_are_equals_colon_and_blank() {
        for text in ["a=b", "a:b", "a b", "a = b", "a\t:\tb", " \u{c}a  b ", "a=b\r\n", "a =b\r"] {
            same(text, "a", "b");
        }
        same("a==b", "a", "=b");
        same("a : = b", "a", "= b");
        same("a", "a", "");
        same("=b", "", "b");
    }

    #[test]
    fn comments_and_blank_lines_go_and_line_numbers_stay() {
        let got = pairs("# one\n\n  ! two\r\na=1\r\n\tb=2 # not a comment\r");
        assert_eq!(got, [(4, "a".into(), "1".into()), (5, "b".into(), "2 # not a comment".into())]);
    }

    #[test]
    fn continued_lines_join_and_lose_their_indentation() {
        same("a = x\\\n    y\\\n  #z", "a", "xy#z");
        same("a\\\n  =1", "a", "1");
        // An even number of backslashes continues nothing.
        assert_eq!(pairs("a=x\\\\\nb=y").len(), 2);
        // A blank line ends what it continues, and the end of the file ends everything.
        assert_eq!(pairs("a=x\\\n\nb=y").len(), 2);
        same("a=x\\", "a", "x");
        // A comment is never continued.
        same("# c\\\na=1", "a", "1");
    }

    #[test]
    fn escapes_are_javas() {
        same(r"a\ b\:\=c=d", "a b:=c", "d");
        same(r"a=\t\q\\x", "a", r"q\x");
        same(r"a=x\tz\n", "a", "x\tz");
        same(r"a=\u0041\u00e9", "a", "Aé");
        same(r"a=\ud83d\ude00!", "a", "😀!");
        same(r"a=\ud83d", "a", "\u{fffd}");
        same(r"dir=C\:\\zk", "dir", r"C:\zk");
    }

    #[test]
    fn a_broken_unicode_escape_names_its_line_and_spares_the_others() {
        let (good, bad) = parse(b"a=1\nb=\\u12\nc=\\u+123\nd=\\uzz\xe9\n");
        assert_eq!(good.len(), 1);
        let found: Vec<_> = bad.iter().map(|b| (b.line, b.found.as_str())).collect();
        assert_eq!(found, [(2, "\\u12"), (3, "\\u+123"), (4, "\\uzzé")]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_latin_1() {
        let (got, _) = parse(b"a=\xe9");
        assert_eq!(got[0].value, "é");
        let (got, _) = parse("\u{feff}a=é".as_bytes());
        assert_eq!((got[0].key.as_str(), got[0].value.as_str()), ("a", "é"));
    }
}
