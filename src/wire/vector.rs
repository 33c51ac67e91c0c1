//! `vector<T>` as it is borrowed from a frame: checked once when read, then walked without allocation and without failing.
//!
//! - V1: a [`Vector`] holds only bytes whose every element was read, or that this process encoded: walking it cannot fail.
//! - V2: null and empty are two things on the wire; both have no elements.

use std::marker::PhantomData;

use super::jute::{JuteError, PutJute, Reader};

/// What a [`Vector`] may hold.
pub trait Element<'a>: Sized {
    /// Bytes of the smallest one; more than 0, so that a count can be held against the bytes that are there.
    const BYTES_MIN: usize;

    /// Reads one. Reading the same bytes again gives the same.
    fn read_element(r: &mut Reader<'a>) -> Result<Self, JuteError>;
}

/// A `vector<T>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector<'a, T> {
    count: Option<usize>,
    raw: &'a [u8],
    element: PhantomData<T>,
}

/// A `vector<ustring>`.
pub type StrVec<'a> = Vector<'a, &'a str>;

impl<T> Vector<'_, T> {
    /// A null vector.
    pub const NULL: Self = Vector { count: None, raw: &[], element: PhantomData };

    /// Appends the vector.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_int(self.count.map_or(-1, |n| i32::try_from(n).expect("bounded by the frame")));
        out.extend_from_slice(self.raw);
    }

    /// Number of elements; null counts 0.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.count {
            Some(count) => count,
            None => 0,
        }
    }

    /// True for null, which is not the same as no elements.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        self.count.is_none()
    }

    /// True for null and for no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Element<'a>> Vector<'a, T> {
    /// Reads the vector, checking every element.
    pub fn read(r: &mut Reader<'a>) -> Result<Self, JuteError> {
        let count = r.vector(T::BYTES_MIN)?;
        let from = r.position();
        for _ in 0..count.unwrap_or(0) {
            T::read_element(r)?;
        }
        Ok(Vector { count, raw: r.since(from), element: PhantomData })
    }

    /// The vector that is all of `bytes`, which this process encoded, or checked whole before: its elements are not checked again.
    #[must_use]
    pub fn of_encoded(bytes: &'a [u8]) -> Self {
        let mut r = Reader::new(bytes);
        let count = r.vector(T::BYTES_MIN).expect("encoded by this process");
        let vector = Vector { count, raw: r.rest(), element: PhantomData };
        debug_assert!(
            Self::read(&mut Reader::new(bytes)).is_ok_and(|read| read.raw == vector.raw),
            "whole, and nothing behind it (V1)"
        );
        vector
    }

    /// The elements as they stand on the wire, without the count: equal vectors have equal bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let mut r = Reader::new(self.raw);
        (0..self.len()).map(move |_| T::read_element(&mut r).expect("checked when the vector was read (V1)"))
    }
}

impl<'a> Element<'a> for &'a str {
    const BYTES_MIN: usize = 4;

    fn read_element(r: &mut Reader<'a>) -> Result<&'a str, JuteError> {
        r.ustring()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(strings: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_int(strings.len() as i32);
        for string in strings {
            out.put_ustring(string);
        }
        out
    }

    #[test]
    fn what_was_read_is_walked_and_put_again() {
        let strings = ["/a", "", "/a/b"];
        let bytes = encoded(&strings);
        let read = StrVec::read(&mut Reader::new(&bytes)).unwrap();
        assert!(read.iter().eq(strings));
        assert_eq!((read.len(), read.is_null(), read.is_empty()), (3, false, false));
        assert_eq!(read, StrVec::of_encoded(&bytes));
        let mut again = Vec::new();
        read.put(&mut again);
        assert_eq!(again, bytes);
        for len in 0..bytes.len() {
            assert!(StrVec::read(&mut Reader::new(&bytes[..len])).is_err());
        }
    }

    #[test]
    fn null_is_not_empty_but_has_no_elements() {
        let null = (-1i32).to_be_bytes();
        let read = StrVec::read(&mut Reader::new(&null)).unwrap();
        assert_eq!((read, read.len(), read.is_empty()), (StrVec::NULL, 0, true));
        assert_eq!(read.iter().next(), None);
        let mut again = Vec::new();
        read.put(&mut again);
        assert_eq!(again, null);
        assert_ne!(read, StrVec::of_encoded(&encoded(&[])));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "V1")]
    fn bytes_behind_an_encoded_vector_are_a_mistake() {
        let mut bytes = encoded(&["/a"]);
        bytes.push(0);
        let _ = StrVec::of_encoded(&bytes);
    }
}
