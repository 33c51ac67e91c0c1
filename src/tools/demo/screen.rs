//! Where things are shown: in place on a terminal, line by line elsewhere.
//!
//! - SC1: a terminal is put back as it was, also by a panic.
//! - SC2: a reader that has left is noticed ([`Screen::is_gone`]), not an error.

use std::collections::VecDeque;
use std::io::{self, Write};

use anyhow::Context;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// What was said, as far as it stays on a terminal.
const SAID_LINES_MAX: usize = 8;

/// Columns of a terminal that does not say.
const COLUMNS_DEFAULT: usize = 80;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Screen {
    /// How the terminal was; `None` without one.
    before: Option<Termios>,
    /// The first lines said stay above the table.
    said: VecDeque<String>,
    shown: Vec<String>,
    footer: Vec<String>,
    /// Lines on the terminal that the next table takes the place of.
    drawn: usize,
    gone: bool,
}

impl Screen {
    /// With `live`, standard input and output are a terminal: its keys come at once, and are not shown.
    pub(super) fn open(live: bool) -> anyhow::Result<Screen> {
        let before =
            live.then(take_keys).transpose().context("cannot set up the terminal; try `zabra demo | cat`")?;
        Ok(Screen {
            before,
            said: VecDeque::new(),
            shown: Vec::new(),
            footer: Vec::new(),
            drawn: 0,
            gone: false,
        })
    }

    pub(super) const fn is_live(&self) -> bool {
        self.before.is_some()
    }

    /// Nobody reads any more.
    pub(super) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// One line about what happened.
    pub(super) fn say(&mut self, line: &str) {
        let line = crate::tools::printable(line);
        if !self.is_live() {
            return self.put(&format!("{line}\n"));
        }
        self.said.push_back(line);
        if self.said.len() > SAID_LINES_MAX {
            // What was said before the newest lines scrolls away above the table.
            let oldest = self.said.pop_front().unwrap_or_default();
            let (rewound, fitted) = (self.rewind(), fit(&oldest, self.columns()));
            self.put(&format!("{rewound}{fitted}\n"));
        }
        self.draw();
    }

    /// The same for what must not be cut at the terminal's edge: it is wrapped there, and scrolls away with what came before.
    pub(super) fn say_whole(&mut self, line: &str) {
        if !self.is_live() {
            return self.say(line);
        }
        let rewound = self.rewind();
        self.put(&format!("{rewound}{}\n", crate::tools::printable(line)));
        self.draw();
    }

    /// The table as it is now; on a terminal, `footer` stays below it.
    pub(super) fn show(&mut self, table: &[String], footer: &[String]) {
        let changed = self.shown != table;
        self.shown = table.to_vec();
        self.footer = footer.to_vec();
        if self.is_live() {
            self.draw();
        } else if changed {
            self.put(&format!("{}\n", table.join("\n")));
        }
    }

    fn draw(&mut self) {
        let mut text = self.rewind();
        let (empty, wide) = (String::new(), self.columns());
        let gap = [&empty];
        let all = self.said.iter().chain(gap).chain(&self.shown).chain(gap).chain(&self.footer);
        let lines: Vec<String> = all.map(|line| fit(line, wide)).collect();
        text += &lines.join("\n");
        text.push('\n');
        self.drawn = lines.len();
        self.put(&text);
    }

    /// Back to the first line that was drawn, and everything from there on erased.
    fn rewind(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// Of the terminal, as it is now.
    fn columns(&self) -> usize {
        let columns = tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        if columns == 0 { COLUMNS_DEFAULT } else { columns }
    }

    fn put(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.gone = true;
        }
    }

    /// Gives the terminal back.
    pub(super) fn close(&mut self) {
        if let Some(before) = self.before.take() {
            // There is nobody to tell.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// As much as fits into one line: a line that wraps would be two. The last column stays empty, as some terminals wrap behind it.
fn fit(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

/// Keys come at once and unseen; Ctrl-C still interrupts. What was before is given back.
fn take_keys() -> rustix::io::Result<Termios> {
    let before = tcgetattr(io::stdin())?;
    let mut keys = before.clone();
    keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    keys.special_codes[SpecialCodeIndex::VMIN] = 1;
    keys.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_wraps() {
        assert_eq!(fit("µµµµµ", 4), "µµµ");
        assert_eq!(fit("short", 80), "short");
    }
}
