//! ACLs on their way into a transaction, and out of it again to who may not see all of one.
//!
//! - A2: the ACL that goes into a transaction is resolved: no `auth` entries, no duplicates, every id valid for its scheme.
//! - A3: its size is bounded ([`ACL_ENTRIES_MAX`], [`ACL_BYTES_MAX`]) before it is built.
//!
//! Facts: ZooKeeper's `PrepRequestProcessor.fixupACL`.

use super::{ANYONE, AUTH, AuthIds, AuthOptions, DIGEST, IP, WORLD};
use crate::node::ip;
use crate::wire::jute::{PutJute, Reader};
use crate::wire::{Acl, AclVec, ErrorCode, perms, put_acl_vec};

/// Entries of one ACL. Duplicates are found by comparing each with each: 512 × 512 / 2 comparisons at most.
pub const ACL_ENTRIES_MAX: usize = 512;

/// Bytes of one resolved ACL: `auth` entries grow when they are replaced by ids, and what a request grows to is bounded.
pub const ACL_BYTES_MAX: usize = 64 << 10;

impl AuthIds {
    /// Appends `acl` to `out` as it will stand in a transaction (A2). Nothing is left behind in `out` when it fails.
    ///
    /// Errors: `InvalidAcl`; `MarshallingError` for a null id where its scheme must look at it, as ZooKeeper answers.
    pub fn fix_up(&self, options: &AuthOptions, acl: AclVec<'_>, out: &mut Vec<u8>) -> Result<(), ErrorCode> {
        let start = out.len();
        let result = self.fix_up_into(options, acl, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn fix_up_into(
        &self,
        options: &AuthOptions,
        acl: AclVec<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        if acl.is_empty() || acl.len() > ACL_ENTRIES_MAX {
            return Err(ErrorCode::InvalidAcl);
        }
        let start = out.len();
        let count_at = out.reserve_int();
        let mut count = 0;
        // Where each entry ends in the raw bytes: equal entries have equal bytes.
        let mut ends = [0; ACL_ENTRIES_MAX];
        let mut r = Reader::new(acl.raw());
        for at in 0..acl.len() {
            let from = r.position();
            let entry = Acl::read(&mut r).expect("checked when the vector was read");
            ends[at] = r.position();
            if is_repeated(acl.raw(), &ends[..at], &acl.raw()[from..ends[at]]) {
                continue;
            }
            count += self.put_resolved(options, &entry, out)?;
            if out.len() - start > ACL_BYTES_MAX {
                return Err(ErrorCode::InvalidAcl);
            }
        }
        out.fill_int(count_at, count);
        Ok(())
    }

    /// Appends what `entry` stands for; returns how many entries that is.
    fn put_resolved(
        &self,
        options: &AuthOptions,
        entry: &Acl<'_>,
        out: &mut Vec<u8>,
    ) -> Result<i32, ErrorCode> {
        let scheme = entry.scheme.ok_or(ErrorCode::InvalidAcl)?;
        if scheme == AUTH {
            return self.put_authenticated(options, entry.perms, out);
        }
        let known = matches!(scheme, WORLD | IP) || (scheme == DIGEST && options.digest_enabled);
        if !known {
            return Err(ErrorCode::InvalidAcl);
        }
        let id = entry.id.ok_or(ErrorCode::MarshallingError)?;
        let valid = match scheme {
            WORLD => id == ANYONE,
            IP => ip::is_valid(id),
            _ => is_digest_id(id),
        };
        if !valid {
            return Err(ErrorCode::InvalidAcl);
        }
        entry.put(out);
        Ok(1)
    }

    /// `auth` stands for every identity that somebody proved; an address is not one.
    fn put_authenticated(
        &self,
        options: &AuthOptions,
        perms: i32,
        out: &mut Vec<u8>,
    ) -> Result<i32, ErrorCode> {
        let mut count = 0;
        if options.digest_enabled {
            for id in self.of_scheme(DIGEST) {
                Acl { perms, scheme: Some(DIGEST), id: Some(id) }.put(out);
                count += 1;
            }
        }
        if count == 0 { Err(ErrorCode::InvalidAcl) } else { Ok(count) }
    }
}

/// Does one of the entries that end at `ends` have the bytes of `entry`?
fn is_repeated(raw: &[u8], ends: &[usize], entry: &[u8]) -> bool {
    let mut from = 0;
    ends.iter().any(|&to| &raw[std::mem::replace(&mut from, to)..to] == entry)
}

/// Exactly one colon between two parts; empty parts at the end do not count, as in Java's `split`.
fn is_digest_id(id: &str) -> bool {
    let id = id.trim_end_matches(':');
    id.matches(':').count() == 1
}

/// Appends `acl` with the secrets of digest ids replaced by `x`: what callers without ADMIN get to see.
pub fn put_masked(acl: AclVec<'_>, out: &mut Vec<u8>) {
    out.put_int(i32::try_from(acl.len()).expect("bounded when it was set"));
    for entry in acl.iter() {
        match (entry.scheme, entry.id.and_then(|id| id.split_once(':'))) {
            (Some(DIGEST), Some((user, _))) => {
                out.put_int(entry.perms);
                out.put_ustring(DIGEST);
                let mark = out.reserve_int();
                out.extend_from_slice(user.as_bytes());
                out.extend_from_slice(b":x");
                out.fill_length(mark);
            }
            _ => entry.put(out),
        }
    }
}

/// `world:anyone` with all permissions, encoded: what nearly every node has.
#[must_use]
pub fn open_acl() -> Vec<u8> {
    let mut out = Vec::new();
    let open = Acl { perms: perms::ALL, scheme: Some(WORLD), id: Some(ANYONE) };
    put_acl_vec(&mut out, [open]);
    out
}
