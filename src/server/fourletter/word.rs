//! The words, and how the first four bytes of a connection become one.

use std::fmt;

macro_rules! words {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// A four-letter word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Word { $($(#[$meta])* $name,)* }

        impl Word {
            /// All of them.
            pub const ALL: &[Word] = &[$(Word::$name,)*];

            /// As it is written; `telnet close` for the bytes that telnet sends when it leaves.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Word::$name => $text,)* }
            }
        }
    };
}

words! {
    /// Is the process alive.
    Ruok = "ruok",
    /// Server figures.
    Srvr = "srvr",
    /// Server figures and one line per client.
    Stat = "stat",
    /// One long line per client.
    Cons = "cons",
    /// Configuration.
    Conf = "conf",
    /// Environment.
    Envi = "envi",
    /// Metrics.
    Mntr = "mntr",
    /// Bytes in the data directories.
    Dirs = "dirs",
    /// Sessions and ephemeral nodes.
    Dump = "dump",
    /// Watches, counted.
    Wchs = "wchs",
    /// Watches by connection.
    Wchc = "wchc",
    /// Watches by path.
    Wchp = "wchp",
    /// Reset the figures of all connections.
    Crst = "crst",
    /// Reset the server's figures.
    Srst = "srst",
    /// Read-only or not.
    Isro = "isro",
    /// Trace mask.
    Gtmk = "gtmk",
    /// Set the trace mask; 8 bytes follow.
    Stmk = "stmk",
    /// Digests of the tree by zxid.
    Hash = "hash",
    /// How far this server is, served or not; Zabra's own, for `zabra recover`.
    Memb = "memb",
    /// No word: what telnet sends when it closes.
    TelnetClose = "telnet close",
}

const TELNET_CLOSE: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];

impl Word {
    /// The word that these first four bytes of a connection are, if they are one; otherwise they are a frame's length.
    #[must_use]
    pub fn detect(first: [u8; 4]) -> Option<Word> {
        if first == TELNET_CLOSE {
            return Some(Word::TelnetClose);
        }
        Word::ALL.iter().copied().find(|w| w.name().as_bytes() == first)
    }

    /// The word with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Word> {
        Word::ALL.iter().copied().find(|w| w.name() == name)
    }

    /// False for the words that are answered even when nothing is served.
    pub(super) const fn needs_server(self) -> bool {
        !matches!(self, Word::Ruok | Word::Envi | Word::Gtmk | Word::Stmk | Word::Memb | Word::TelnetClose)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes() {
        assert_eq!(Word::detect(*b"ruok"), Some(Word::Ruok));
        assert_eq!(Word::detect([0xff, 0xf4, 0xff, 0xfd]), Some(Word::TelnetClose));
        assert_eq!(Word::detect(*b"RUOK"), None);
        assert_eq!(Word::detect([0, 0, 0, 45]), None);
        for word in Word::ALL {
            assert_eq!(Word::by_name(word.name()), Some(*word));
            if let Ok(bytes) = word.name().as_bytes().try_into() {
                assert_eq!(Word::detect(bytes), Some(*word));
                // As a length every one of them is above any frame limit: no ordinary client is mistaken.
                assert!(u32::from_be_bytes(bytes) as usize > crate::base::limits::FRAME_BYTES_MAX);
            }
        }
        assert_eq!(Word::ALL.len(), 20);
    }
}
