//! Access control lists as they travel.

use super::jute::{JuteError, PutJute, Reader};

/// Permission bits of an ACL entry.
pub mod perms {
    /// Read data and list children.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// All five.
    pub const ALL: i32 = 31;
}

/// One entry: who may do what. `None` is a null string on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Acl<'a> {
    /// Permission bits ([`perms`]).
    pub perms: i32,
    /// `world`, `auth`, `digest`, `ip`, …
    pub scheme: Option<&'a str>,
    /// What the scheme makes of it.
    pub id: Option<&'a str>,
}

impl<'a> Acl<'a> {
    /// Smallest entry: permissions and two null strings.
    pub const BYTES_MIN: usize = 12;

    /// Reads the record.
    pub fn read(r: &mut Reader<'a>) -> Result<Acl<'a>, JuteError> {
        Ok(Acl { perms: r.int()?, scheme: r.ustring_or_null()?, id: r.ustring_or_null()? })
    }

    /// Appends the record.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_int(self.perms);
        out.put_buffer(self.scheme.map(str::as_bytes));
        out.put_buffer(self.id.map(str::as_bytes));
    }
}

/// A `vector<ACL>`: checked once when read, then walked without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclVec<'a> {
    count: Option<usize>,
    raw: &'a [u8],
}

impl<'a> AclVec<'a> {
    /// A null vector.
    pub const NULL: AclVec<'static> = AclVec { count: None, raw: &[] };

    /// Reads the vector, checking every entry.
    pub fn read(r: &mut Reader<'a>) -> Result<AclVec<'a>, JuteError> {
        let count = r.vector(Acl::BYTES_MIN)?;
        let from = r.position();
        for _ in 0..count.unwrap_or(0) {
            Acl::read(r)?;
        }
        Ok(AclVec { count, raw: r.since(from) })
    }

    /// Appends the vector.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_int(self.count.map_or(-1, |n| i32::try_from(n).expect("bounded by the frame")));
        out.extend_from_slice(self.raw);
    }

    /// Number of entries; null counts 0.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.unwrap_or(0)
    }

    /// True for null, which is not the same as no entries.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        self.count.is_none()
    }

    /// True for null and for no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries as they stand on the wire, without the count: equal lists have equal bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Acl<'a>> + use<'a> {
        let mut r = Reader::new(self.raw);
        (0..self.len()).map(move |_| Acl::read(&mut r).expect("checked when the vector was read"))
    }
}

/// Appends `entries` as a `vector<ACL>`.
pub fn put_acl_vec<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = Acl<'a>>) {
    let at = out.reserve_int();
    let mut count = 0;
    for acl in entries {
        acl.put(out);
        count += 1;
    }
    out.fill_int(at, count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_comes_back() {
        let entries = [
            Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") },
            Acl { perms: perms::READ, scheme: None, id: Some("") },
        ];
        let mut out = Vec::new();
        put_acl_vec(&mut out, entries);
        let vec = AclVec::read(&mut Reader::new(&out)).unwrap();
        assert!(vec.iter().eq(entries));
        let mut again = Vec::new();
        vec.put(&mut again);
        assert_eq!(again, out);
        assert_eq!(AclVec::read(&mut Reader::new(&(-1i32).to_be_bytes())), Ok(AclVec::NULL));
    }

    #[test]
    fn an_entry_cut_short_is_refused_when_the_vector_is_read() {
        let mut out = Vec::new();
        put_acl_vec(&mut out, [Acl { perms: 1, scheme: Some("world"), id: Some("anyone") }]);
        for len in 0..out.len() {
            assert!(AclVec::read(&mut Reader::new(&out[..len])).is_err());
        }
    }
}
