//! Jute: the four shapes everything on the wire is made of: integers, buffers, strings, vectors.
//!
//! - J1: a length is checked against the bytes that are there before anything is done with it.
//! - J2: null (length -1) and empty (length 0) are different values for buffers, strings and vectors.
//! - J3: a vector count below -1 acts as empty, as in ZooKeeper's `startVector`.

use std::borrow::Cow;

/// What a string that is not UTF-8 is taken for, as a whole. ZooKeeper replaces the bytes in question by U+FFFD and goes on with the
/// rest. No node's path holds that character, so all that shows is which error follows, and that depends on three things only: a NUL,
/// a slash, or neither. (But for a delete, which may find the parent missing or locked first. What is echoed is [`replaced`].)
fn not_utf8(bytes: &[u8]) -> &'static str {
    match (bytes.contains(&0), bytes.contains(&b'/')) {
        (true, _) => "/\0",
        (false, true) => "/\u{fffd}",
        (false, false) => "\u{fffd}",
    }
}

/// Text as Java makes it of `bytes`, which are to be echoed: what is not UTF-8 is replaced by U+FFFD, by the longest piece that begins a
/// character; an encoded surrogate is one piece.
#[must_use]
pub fn replaced(bytes: &[u8]) -> Cow<'_, str> {
    let first_error = match std::str::from_utf8(bytes) {
        Ok(text) => return Cow::Borrowed(text),
        Err(error) => error,
    };
    let (mut text, mut rest, mut error) = (String::with_capacity(bytes.len()), bytes, first_error);
    loop {
        let (valid, invalid) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        text.push(char::REPLACEMENT_CHARACTER);
        rest = match (invalid, error.error_len()) {
            ([0xed, 0xa0..=0xbf, 0x80..=0xbf, rest @ ..], _) => rest,
            ([0xed, 0xa0..=0xbf], _) | (_, None) => &[],
            (_, Some(len)) => &invalid[len..],
        };
        match std::str::from_utf8(rest) {
            Ok(tail) => {
                text.push_str(tail);
                return Cow::Owned(text);
            }
            Err(next) => error = next,
        }
    }
}

/// Why bytes are not the record that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JuteError {
    /// The record ends before its fields do.
    #[error("needs {need} bytes at offset {at}, {left} are left")]
    Truncated {
        /// Bytes from the start of the input.
        at: usize,
        /// Bytes the field takes.
        need: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A length that no record may have.
    #[error("unreasonable length {len} at offset {at}")]
    Length {
        /// Bytes from the start of the input.
        at: usize,
        /// The length found.
        len: i32,
    },
    /// A null where the record needs a value.
    #[error("null at offset {at} where a value is needed")]
    Null {
        /// Bytes from the start of the input.
        at: usize,
    },
    /// A field whose value the record does not allow.
    #[error("value {value} at offset {at} is not allowed here")]
    Value {
        /// Bytes from the start of the input.
        at: usize,
        /// The value found.
        value: i32,
    },
}

/// Reads fields one after another from borrowed bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
    null_is_empty: bool,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `buf`.
    #[must_use]
    pub const fn new(buf: &'a [u8]) -> Reader<'a> {
        Reader { buf, pos: 0, null_is_empty: false }
    }

    /// The same, but [`Reader::ustring`] takes null for empty.
    #[must_use]
    pub const fn with_null_as_empty(buf: &'a [u8]) -> Reader<'a> {
        Reader { buf, pos: 0, null_is_empty: true }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], JuteError> {
        match self.buf.get(self.pos..).and_then(|rest| rest.get(..n)) {
            Some(bytes) => {
                self.pos += n;
                Ok(bytes)
            }
            None => Err(JuteError::Truncated { at: self.pos, need: n, left: self.left() }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("take returned N bytes"))
    }

    /// `byte`.
    pub fn byte(&mut self) -> Result<u8, JuteError> {
        Ok(self.array::<1>()?[0])
    }

    /// `int`.
    pub fn int(&mut self) -> Result<i32, JuteError> {
        self.array().map(i32::from_be_bytes)
    }

    /// `long`.
    pub fn long(&mut self) -> Result<i64, JuteError> {
        self.array().map(i64::from_be_bytes)
    }

    /// `boolean`: one byte, any non-zero is true.
    pub fn boolean(&mut self) -> Result<bool, JuteError> {
        Ok(self.byte()? != 0)
    }

    /// `buffer`: `None` for null.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, JuteError> {
        let at = self.pos;
        match self.int()? {
            -1 => Ok(None),
            len if len < 0 => Err(JuteError::Length { at, len }),
            len => self.take(len as usize).map(Some),
        }
    }

    /// `ustring`: `None` for null. Bytes that are not UTF-8 come out as a path that is of no node.
    pub fn ustring_or_null(&mut self) -> Result<Option<&'a str>, JuteError> {
        let bytes = self.buffer()?;
        Ok(bytes.map(|bytes| std::str::from_utf8(bytes).unwrap_or_else(|_| not_utf8(bytes))))
    }

    /// `ustring` that must be there.
    pub fn ustring(&mut self) -> Result<&'a str, JuteError> {
        let at = self.pos;
        let missing = if self.null_is_empty { Ok("") } else { Err(JuteError::Null { at }) };
        self.ustring_or_null()?.map_or(missing, Ok)
    }

    /// Count of a `vector` whose elements take at least `element_bytes_min` (> 0) each: `None` for null. A count that cannot
    /// be true for the bytes that are left is refused here, before anyone loops on it.
    pub fn vector(&mut self, element_bytes_min: usize) -> Result<Option<usize>, JuteError> {
        let at = self.pos;
        match self.int()? {
            -1 => Ok(None),
            count if count < 0 => Ok(Some(0)),
            count if count as usize > self.left() / element_bytes_min => {
                Err(JuteError::Length { at, len: count })
            }
            count => Ok(Some(count as usize)),
        }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.pos
    }

    /// The bytes from offset `from` (a former [`Reader::position`]) to here.
    #[must_use]
    pub fn since(&self, from: usize) -> &'a [u8] {
        &self.buf[from..self.pos]
    }

    /// Everything not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.buf[self.pos..]
    }
}

/// Appends fields one after another; implemented for the `Vec<u8>` that callers reuse.
pub trait PutJute {
    /// `byte`.
    fn put_byte(&mut self, v: u8);
    /// `int`.
    fn put_int(&mut self, v: i32);
    /// `long`.
    fn put_long(&mut self, v: i64);
    /// `boolean`.
    fn put_boolean(&mut self, v: bool);
    /// `buffer`; `None` is null.
    fn put_buffer(&mut self, v: Option<&[u8]>);
    /// `ustring`.
    fn put_ustring(&mut self, v: &str);
    /// An int to be filled in later by [`PutJute::fill_int`]; returns its place.
    fn reserve_int(&mut self) -> usize;
    /// Fills in what [`PutJute::reserve_int`] left open.
    fn fill_int(&mut self, at: usize, v: i32);
    /// Fills in, at `at`, how many bytes were put after the reserved int itself: the length of a frame or a buffer.
    fn fill_length(&mut self, at: usize);
}

impl PutJute for Vec<u8> {
    fn put_byte(&mut self, v: u8) {
        self.push(v);
    }

    fn put_int(&mut self, v: i32) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_long(&mut self, v: i64) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_boolean(&mut self, v: bool) {
        self.push(u8::from(v));
    }

    fn put_buffer(&mut self, v: Option<&[u8]>) {
        match v {
            None => self.put_int(-1),
            Some(bytes) => {
                self.put_int(length(bytes.len()));
                self.extend_from_slice(bytes);
            }
        }
    }

    fn put_ustring(&mut self, v: &str) {
        self.put_buffer(Some(v.as_bytes()));
    }

    fn reserve_int(&mut self) -> usize {
        let at = self.len();
        self.put_int(0);
        at
    }

    fn fill_int(&mut self, at: usize, v: i32) {
        self[at..at + 4].copy_from_slice(&v.to_be_bytes());
    }

    fn fill_length(&mut self, at: usize) {
        let len = length(self.len() - at - 4);
        self.fill_int(at, len);
    }
}

/// A length as jute writes it. Frames, records and buffers are bounded far below 2 GiB (`base::limits`); getChildren of a node
/// whose names take more is refused before it is encoded.
fn length(len: usize) -> i32 {
    i32::try_from(len).expect("frames and records are bounded below 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_went() {
        let mut out = Vec::new();
        out.put_int(-7);
        out.put_long(i64::MIN);
        out.put_boolean(true);
        out.put_buffer(None);
        out.put_buffer(Some(b""));
        out.put_buffer(Some(b"xyz"));
        out.put_ustring("/ä");
        let mut r = Reader::new(&out);
        assert_eq!(r.int(), Ok(-7));
        assert_eq!(r.long(), Ok(i64::MIN));
        assert_eq!(r.boolean(), Ok(true));
        assert_eq!(r.buffer(), Ok(None));
        assert_eq!(r.buffer(), Ok(Some(&b""[..])));
        assert_eq!(r.buffer(), Ok(Some(&b"xyz"[..])));
        assert_eq!(r.ustring(), Ok("/ä"));
        assert_eq!(r.left(), 0);
        assert_eq!(r.int(), Err(JuteError::Truncated { at: out.len(), need: 4, left: 0 }));
    }

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        let int = |v: i32| v.to_be_bytes();
        assert_eq!(Reader::new(&int(-2)).buffer(), Err(JuteError::Length { at: 0, len: -2 }));
        assert!(Reader::new(&int(i32::MAX)).buffer().is_err());
        assert_eq!(Reader::new(&int(-1)).vector(4), Ok(None));
        assert_eq!(Reader::new(&int(-5)).vector(4), Ok(Some(0)));
        assert_eq!(Reader::new(&int(1)).vector(4), Err(JuteError::Length { at: 0, len: 1 }));
        assert_eq!(Reader::new(&int(-1)).ustring(), Err(JuteError::Null { at: 0 }));
        for (bytes, path) in
            [(b"\xff\xff", "\u{fffd}"), (b"/\xff", "/\u{fffd}"), (b"\0\xff", "/\0"), (b"/a", "/a")]
        {
            let string = [&int(2)[..], bytes].concat();
            assert_eq!(Reader::new(&string).ustring(), Ok(path));
        }
    }

    /// What `new String(bytes, UTF_8)` of Java 17 gives.
    #[test]
    fn text_that_is_echoed_is_replaced_as_java_does() {
        let all: [(&[u8], &str); 9] = [
            ("/日本 é 😀".as_bytes(), "/日本 é 😀"),
            (b"/o/b/\x83\xa9", "/o/b/\u{fffd}\u{fffd}"),
            (b"a\xe6\x97", "a\u{fffd}"),
            (b"a\xe6\x97b", "a\u{fffd}b"),
            (b"\xed\xbf\xb0!", "\u{fffd}!"),
            (b"\xed\xa0", "\u{fffd}"),
            (b"\xf0\x9f\x98/\xff", "\u{fffd}/\u{fffd}"),
            (b"\xf4\x9f\x98\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xc1\xbf", "\u{fffd}\u{fffd}"),
        ];
        for (bytes, text) in all {
            assert_eq!(replaced(bytes), text, "{bytes:x?}");
        }
    }

    #[test]
    fn a_length_is_filled_in_behind_the_fact() {
        let mut out = vec![9];
        let at = out.reserve_int();
        out.put_long(1);
        out.fill_length(at);
        assert_eq!(out[1..5], [0, 0, 0, 8]);
    }
}
