//! What is typed, one byte at a time: the same for keys that act at once and for lines.

/// All commands, in lines that fit a terminal.
pub(super) const HELP: [&str; 2] = [
    "k N kill -9 · s N stop or go on · r N restart",
    "K kill all · a start all · l kill the leader · q quit · h help",
];

/// The same in one line.
pub(super) fn help() -> String {
    HELP.join(" · ")
}

const ESCAPE: u8 = 0x1b;
const CTRL_D: u8 = 0x04;

/// What is to be done. Nodes are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Kill(usize),
    Toggle(usize),
    Restart(usize),
    KillAll,
    RestartAll,
    KillLeader,
    Help,
    Quit,
}

/// Bytes on their way to a command.
#[derive(Debug)]
pub(super) struct Keys {
    /// Lines: what cannot be understood spoils the rest of its line.
    lines: bool,
    /// A command that waits for its node.
    verb: Option<u8>,
    /// What is skipped now.
    skip: Skip,
}

#[derive(Debug, PartialEq, Eq)]
enum Skip {
    Nothing,
    /// Up to the end of the line.
    Line,
    /// An escape has come; what follows may be a cursor key.
    Escape,
    /// The rest of one.
    Sequence,
}

impl Keys {
    pub(super) const fn new(lines: bool) -> Keys {
        Keys { lines, verb: None, skip: Skip::Nothing }
    }

    /// What a command that is half typed waits for.
    pub(super) fn prompt(&self) -> Option<String> {
        self.verb.map(|verb| format!("{} which node?", char::from(verb)))
    }

    /// Takes one byte; a command, or what is wrong, when there is one.
    pub(super) fn feed(&mut self, byte: u8) -> Option<Result<Command, String>> {
        if self.is_skipped(byte) {
            return None;
        }
        if let Some(verb) = self.verb
            && !matches!(byte, b' ' | b'\t')
        {
            self.verb = None;
            return Some(self.with_node(verb, byte));
        }
        let command = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return None,
            b'k' | b's' | b'r' => {
                self.verb = Some(byte);
                return None;
            }
            b'K' => Command::KillAll,
            b'a' => Command::RestartAll,
            b'l' => Command::KillLeader,
            b'h' | b'?' => Command::Help,
            b'q' | CTRL_D => Command::Quit,
            other => return Some(self.wrong(other, &format!("{:?} is no command", char::from(other)))),
        };
        Some(Ok(command))
    }

    fn with_node(&mut self, verb: u8, byte: u8) -> Result<Command, String> {
        let id = usize::from(byte.wrapping_sub(b'0'));
        match verb {
            _ if !byte.is_ascii_digit() => {
                let verb = char::from(verb);
                self.wrong(byte, &format!("{verb} needs the number of a node, as in: {verb} 1"))
            }
            b'k' => Ok(Command::Kill(id)),
            b's' => Ok(Command::Toggle(id)),
            _ => Ok(Command::Restart(id)),
        }
    }

    fn wrong(&mut self, byte: u8, what: &str) -> Result<Command, String> {
        if self.lines && byte != b'\n' {
            self.skip = Skip::Line;
        }
        Err(if self.lines { format!("{what} ({})", help()) } else { what.to_owned() })
    }

    fn is_skipped(&mut self, byte: u8) -> bool {
        self.skip = match self.skip {
            Skip::Nothing if byte == ESCAPE => Skip::Escape,
            Skip::Nothing => return false,
            Skip::Line if byte == b'\n' => Skip::Nothing,
            Skip::Line => Skip::Line,
            Skip::Escape if matches!(byte, b'[' | b'O') => Skip::Sequence,
            Skip::Escape => {
                self.skip = Skip::Nothing;
                return false;
            }
            Skip::Sequence if byte.is_ascii_alphabetic() || byte == b'~' => Skip::Nothing,
            Skip::Sequence => Skip::Sequence,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(keys: &mut Keys, text: &str) -> Vec<Result<Command, String>> {
        text.bytes().filter_map(|byte| keys.feed(byte)).collect()
    }

    #[test]
    fn keys_and_lines_mean_the_same() {
        use Command::*;
        let want = [Kill(2), Toggle(1), Restart(9), KillAll, RestartAll, KillLeader, Help, Quit].map(Ok);
        assert_eq!(all(&mut Keys::new(false), "k2s1r9Kalhq"), want);
        assert_eq!(all(&mut Keys::new(true), "k 2\ns 1\r\nr\t9\n K\na\nl\n?\nq\n"), want);
    }

    #[test]
    fn what_is_no_command_is_answered_with_what_is_one() {
        let mut keys = Keys::new(true);
        let said = all(&mut keys, "x 1\nk\nkill 1\n");
        assert_eq!(said.len(), 3, "once a line: {said:?}");
        assert!(said[0].as_ref().unwrap_err().starts_with("'x' is no command (k N kill -9"));
        assert!(said[1].as_ref().unwrap_err().starts_with("k needs the number of a node, as in: k 1"));
        assert_eq!(all(&mut keys, "k 1\n"), [Ok(Command::Kill(1))], "and the next line counts");
    }

    #[test]
    fn a_half_typed_command_says_what_it_waits_for_and_cursor_keys_do_nothing() {
        let mut keys = Keys::new(false);
        assert_eq!(all(&mut keys, "\x1b[A\x1bOB\x1b[3~"), []);
        assert_eq!(keys.prompt(), None);
        assert_eq!(all(&mut keys, "s"), []);
        assert_eq!(keys.prompt().unwrap(), "s which node?");
        assert_eq!(all(&mut keys, "3"), [Ok(Command::Toggle(3))]);
        assert_eq!(
            all(&mut keys, "\x1bq"),
            [Ok(Command::Quit)],
            "an escape alone does not hide the next key"
        );
    }
}
