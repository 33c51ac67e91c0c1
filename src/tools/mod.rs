//! What the command line offers, below argument parsing: each tool returns a [`Verdict`] or an error, `main` turns it into an exit
//! code.
//!
//! - T1: the tools that look at files change nothing and never panic, whatever the files hold.
//! - T2: figures and findings go to standard output, one line each (`--json`: one JSON object per line); progress and logs go
//!   to standard error.

pub mod bench;
pub mod demo;
pub mod log;
pub mod recover;
pub mod serve;
pub mod snapshot;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The command line asks for what cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Usage(pub anyhow::Error);

/// What a tool found, when it could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Fine,
    /// Something is, and was said where: exit code 1.
    Damaged,
}

/// What to look at, and how to say it.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// Directory (a data directory or the one inside it), or a file
    pub path: PathBuf,
    /// One JSON object per line instead of text
    #[arg(long)]
    pub json: bool,
}

/// Lines on their way out. A reader that left (`| head`) ends the output, not the check.
struct Lines<'a> {
    out: &'a mut dyn Write,
    json: bool,
    failed: Option<io::Error>,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut dyn Write, json: bool) -> Lines<'a> {
        Lines { out, json, failed: None }
    }

    /// One line: `text` for people, `value` for programs.
    fn put(&mut self, text: impl FnOnce() -> String, value: impl FnOnce() -> serde_json::Value) {
        if self.failed.is_some() {
            return;
        }
        let line = if self.json { value().to_string() } else { text() };
        if let Err(error) = writeln!(self.out, "{line}") {
            self.failed = Some(error);
        }
    }

    fn finish(self) -> io::Result<()> {
        match self.failed.map_or_else(|| self.out.flush(), Err) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// A bar on standard error over `bytes`, if that is a terminal and the work takes a while.
fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    if io::stderr().is_terminal() {
        let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("a constant"));
        bar.enable_steady_tick(Duration::from_millis(200));
    } else {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Control characters never reach a terminal.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
