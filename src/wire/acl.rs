//! Access control lists as they travel.

use super::jute::{JuteError, PutJute, Reader};
use super::vector::{Element, Vector};

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

/// A `vector<ACL>`.
pub type AclVec<'a> = Vector<'a, Acl<'a>>;

impl<'a> Element<'a> for Acl<'a> {
    const BYTES_MIN: usize = Acl::BYTES_MIN;

    fn read_element(r: &mut Reader<'a>) -> Result<Acl<'a>, JuteError> {
        Acl::read(r)
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
