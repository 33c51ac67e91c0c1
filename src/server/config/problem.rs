//! What can be wrong with a configuration, and how it is said: file, line, key, what was found, what is expected.

use std::fmt;
use std::path::PathBuf;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// From 1; 0 for the file as a whole.
        line: u32,
    },
    /// `-D key=value` on the command line.
    Flag,
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line: 0 } => write!(f, "{}", path.display()),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Flag => f.write_str("-D"),
            Origin::Default => f.write_str("configuration"),
        }
    }
}

/// One thing that stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// Which key, as it was written.
    pub key: String,
    /// What was found; `None` when the key is missing.
    pub found: Option<String>,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.origin, self.key)?;
        match &self.found {
            Some(found) => write!(f, "found {found:?}, ")?,
            None => f.write_str("not set, ")?,
        }
        write!(f, "expected {}", self.expected)
    }
}

/// One line an operator should read, and the start goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub origin: Origin,
    /// Which key, as it was written.
    pub key: String,
    /// One sentence.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.key, self.text)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that must be read cannot be.
    #[error("{}: cannot read it: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// All that is wrong, not only the first of it; one line each.
    #[error("{}", lines(problems))]
    Wrong {
        /// In the order of the file.
        problems: Vec<Problem>,
    },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
