//! Which words are answered (`4lw.commands.whitelist`).

use std::fmt;

use super::word::Word;

/// A set of words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Whitelist(u32);

const _: () = assert!(Word::ALL.len() <= u32::BITS as usize, "one bit per word");

/// Cheap, and needed when something is wrong.
const ALWAYS: u32 = bit(Word::Srvr) | bit(Word::Memb);

impl Default for Whitelist {
    /// `srvr` and Zabra's own `memb`.
    fn default() -> Whitelist {
        Whitelist(ALWAYS)
    }
}

const fn bit(word: Word) -> u32 {
    1 << word as u8
}

impl Whitelist {
    /// Reads a comma-separated list, `*` for all. `srvr` and `memb` are always on it, `isro` as well with read-only mode. Also returns
    /// what is no word.
    #[must_use]
    pub fn parse(list: &str, read_only_mode: bool) -> (Whitelist, Vec<String>) {
        let mut set = ALWAYS;
        let mut unknown = Vec::new();
        for entry in list.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            if entry == "*" {
                set |= Word::ALL.iter().fold(0, |set, w| set | bit(*w));
                break;
            }
            match Word::by_name(entry) {
                Some(word) => set |= bit(word),
                None => unknown.push(entry.to_owned()),
            }
        }
        if read_only_mode {
            set |= bit(Word::Isro);
        }
        (Whitelist(set), unknown)
    }

    /// True when the word is on the list.
    #[must_use]
    pub const fn allows(&self, word: Word) -> bool {
        self.0 & bit(word) != 0
    }
}

impl fmt::Debug for Whitelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Word::ALL.iter().filter(|w| self.allows(**w)).map(|w| w.name())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_zookeepers_and_memb() {
        let allowed = |list, read_only| {
            let (list, unknown) = Whitelist::parse(list, read_only);
            (format!("{list:?}"), unknown)
        };
        assert_eq!(allowed("", false), (r#"{"srvr", "memb"}"#.into(), vec![]));
        assert_eq!(Whitelist::default(), Whitelist::parse("", false).0);
        assert_eq!(allowed("", true), (r#"{"srvr", "isro", "memb"}"#.into(), vec![]));
        let (text, unknown) = allowed(" ruok, mntr ,, nope,srvr", false);
        assert_eq!(
            (text.as_str(), unknown),
            (r#"{"ruok", "srvr", "mntr", "memb"}"#, vec!["nope".to_owned()])
        );
        let (all, _) = Whitelist::parse("ruok, *, nope", false);
        assert!(Word::ALL.iter().all(|w| all.allows(*w)));
    }
}
