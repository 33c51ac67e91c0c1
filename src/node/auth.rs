//! Who a connection is, and what that allows.
//!
//! - A1: a check allocates nothing; an empty list allows everybody, `super` is allowed everything.
//! - A2: the ACL that goes into a transaction is resolved: no `auth` entries, no duplicates, every id valid for its scheme.
//! - A3: its size is bounded ([`ACL_ENTRIES_MAX`], [`ACL_BYTES_MAX`]) before it is built.
//!
//! Facts: ZooKeeper's `PrepRequestProcessor.fixupACL`, `ZooKeeperServer.checkACL`, `DigestAuthenticationProvider`. The schemes
//! `sasl` and `x509` come later: until then no id is valid for them and nobody authenticates by them.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use super::ip;
use crate::wire::jute::{PutJute, Reader};
use crate::wire::{Acl, AclVec, ErrorCode, perms};

/// Entries of one ACL. Duplicates are found by comparing each with each: 512 × 512 / 2 comparisons at most.
pub const ACL_ENTRIES_MAX: usize = 512;

/// Bytes of one resolved ACL: `auth` entries grow when they are replaced by ids, and what a request grows to is bounded.
pub const ACL_BYTES_MAX: usize = 64 << 10;

/// Identities of one connection, `ip` and `super` included: `addauth` in a loop must not eat memory.
pub const IDS_MAX: usize = 64;

/// Bytes of one identity.
pub const ID_BYTES_MAX: usize = 4 << 10;

const WORLD: &str = "world";
const ANYONE: &str = "anyone";
const AUTH: &str = "auth";
const DIGEST: &str = "digest";
const IP: &str = "ip";
const SUPER: &str = "super";

/// What the operator decided about authentication.
#[derive(Clone, Debug)]
pub struct AuthOptions {
    /// `user:base64(SHA1(user:password))` of the super user (`superDigest`).
    pub super_digest: Option<String>,
    /// The `digest` scheme exists (`DigestAuthenticationProvider.enabled`).
    pub digest_enabled: bool,
    /// No ACL is ever checked (`skipACL`).
    pub skip_acl: bool,
}

impl Default for AuthOptions {
    fn default() -> AuthOptions {
        AuthOptions { super_digest: None, digest_enabled: true, skip_acl: false }
    }
}

/// One identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// Scheme that vouches for it.
    pub scheme: &'static str,
    /// What the scheme calls it.
    pub id: String,
}

/// Authentication failed: the client is told so, then the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No such scheme here.
    #[error("no authentication provider for this scheme")]
    UnknownScheme,
    /// The scheme does not take these credentials.
    #[error("credentials refused")]
    Refused,
    /// The connection has enough identities.
    #[error("more than {IDS_MAX} identities on one connection")]
    TooMany,
}

/// The identities of a connection: its address first, then what it authenticated as, in that order, without duplicates.
#[derive(Clone, Debug, Default)]
pub struct AuthIds {
    ids: Vec<Id>,
    is_super: bool,
}

impl AuthIds {
    /// Those of a connection that has just come in.
    #[must_use]
    pub fn of_peer(peer: IpAddr) -> AuthIds {
        AuthIds { ids: vec![Id { scheme: IP, id: ip::id_of(peer) }], is_super: false }
    }

    /// Nobody: what the server itself asks for (session expiry, the container reaper).
    #[must_use]
    pub const fn none() -> AuthIds {
        AuthIds { ids: Vec::new(), is_super: false }
    }

    /// Adds what `auth` proves under `scheme` (an auth packet).
    pub fn authenticate(
        &mut self,
        options: &AuthOptions,
        scheme: Option<&str>,
        auth: Option<&[u8]>,
    ) -> Result<(), AuthError> {
        match scheme {
            Some(DIGEST) if options.digest_enabled => {
                self.add_digest(options, auth.ok_or(AuthError::Refused)?)
            }
            // The address was added when the connection came in.
            Some(IP) => Ok(()),
            _ => Err(AuthError::UnknownScheme),
        }
    }

    fn add_digest(&mut self, options: &AuthOptions, auth: &[u8]) -> Result<(), AuthError> {
        if auth.len() > ID_BYTES_MAX {
            return Err(AuthError::Refused);
        }
        let id = digest_id(&String::from_utf8_lossy(auth));
        if options.super_digest.as_deref() == Some(id.as_str()) {
            self.add(SUPER, String::new())?;
            self.is_super = true;
        }
        self.add(DIGEST, id)
    }

    fn add(&mut self, scheme: &'static str, id: String) -> Result<(), AuthError> {
        let id = Id { scheme, id };
        if self.ids.contains(&id) {
            return Ok(());
        }
        if self.ids.len() == IDS_MAX {
            return Err(AuthError::TooMany);
        }
        self.ids.push(id);
        Ok(())
    }

    /// The identities in order.
    #[must_use]
    pub fn ids(&self) -> &[Id] {
        &self.ids
    }

    /// Passes every check.
    #[must_use]
    pub const fn is_super(&self) -> bool {
        self.is_super
    }

    /// Does `acl` give this connection any of the permissions in `wanted`?
    #[must_use]
    pub fn allowed(&self, options: &AuthOptions, acl: AclVec<'_>, wanted: i32) -> bool {
        if options.skip_acl || acl.is_empty() || self.is_super {
            return true;
        }
        acl.iter().any(|entry| entry.perms & wanted != 0 && self.matches(options, &entry))
    }

    fn matches(&self, options: &AuthOptions, entry: &Acl<'_>) -> bool {
        let (Some(scheme), Some(expr)) = (entry.scheme, entry.id) else { return false };
        match scheme {
            WORLD => expr == ANYONE,
            DIGEST => options.digest_enabled && self.of_scheme(DIGEST).any(|id| id == expr),
            IP => self.of_scheme(IP).any(|id| ip::matches(id, expr)),
            _ => false,
        }
    }

    fn of_scheme<'a>(&'a self, scheme: &'static str) -> impl Iterator<Item = &'a str> {
        self.ids.iter().filter(move |id| id.scheme == scheme).map(|id| id.id.as_str())
    }

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

impl Id {
    /// The name to show for it (whoAmI): of a digest the user, nothing for what no scheme can name.
    #[must_use]
    pub fn user(&self) -> &str {
        match self.scheme {
            DIGEST => self.id.split(':').next().unwrap_or(""),
            IP => &self.id,
            _ => "",
        }
    }
}

/// Does one of the entries that end at `ends` have the bytes of `entry`?
fn is_repeated(raw: &[u8], ends: &[usize], entry: &[u8]) -> bool {
    let mut from = 0;
    ends.iter().any(|&to| &raw[std::mem::replace(&mut from, to)..to] == entry)
}

/// `user:password` as an id: `user:base64(SHA1(user:password))`. Without a colon all of it is the user.
#[must_use]
pub fn digest_id(user_password: &str) -> String {
    let user = user_password.split(':').next().unwrap_or("");
    format!("{user}:{}", BASE64.encode(Sha1::digest(user_password.as_bytes())))
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
    crate::wire::put_acl_vec(&mut out, [open]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_acl_vec;

    const fn entry<'a>(perms: i32, scheme: &'a str, id: &'a str) -> Acl<'a> {
        Acl { perms, scheme: Some(scheme), id: Some(id) }
    }

    fn encode<'a>(entries: impl IntoIterator<Item = Acl<'a>>) -> Vec<u8> {
        let mut out = Vec::new();
        put_acl_vec(&mut out, entries);
        out
    }

    fn vec(bytes: &[u8]) -> AclVec<'_> {
        AclVec::read(&mut Reader::new(bytes)).unwrap()
    }

    fn peer(logins: &[&str]) -> AuthIds {
        let mut ids = AuthIds::of_peer("10.1.2.3".parse().unwrap());
        for login in logins {
            ids.authenticate(&AuthOptions::default(), Some("digest"), Some(login.as_bytes())).unwrap();
        }
        ids
    }

    fn fixed<'a>(ids: &AuthIds, acl: impl IntoIterator<Item = Acl<'a>>) -> Result<Vec<u8>, ErrorCode> {
        let mut out = vec![7];
        let result = ids.fix_up(&AuthOptions::default(), vec(&encode(acl)), &mut out);
        assert_eq!(out.remove(0), 7);
        assert!(result.is_ok() || out.is_empty(), "nothing is left behind");
        result.map(|()| out)
    }

    #[test]
    fn a_digest_is_the_base64_of_the_sha1() {
        // From ZooKeeper's documentation of superDigest.
        assert_eq!(digest_id("super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        assert!(digest_id("nobody").starts_with("nobody:"));
        assert!(digest_id("a:b:c").starts_with("a:"));
    }

    #[test]
    fn several_logins_add_up_without_duplicates() {
        let mut ids = peer(&["a:1", "b:2", "a:1"]);
        let schemes: Vec<_> = ids.ids().iter().map(|id| (id.scheme, id.user())).collect();
        assert_eq!(schemes, [("ip", "10.1.2.3"), ("digest", "a"), ("digest", "b")]);
        assert_eq!(ids.authenticate(&AuthOptions::default(), Some("ip"), None), Ok(()));
        assert_eq!(ids.ids().len(), 3);
    }

    #[test]
    fn schemes_that_are_unknown_off_or_not_there_yet_fail() {
        let mut ids = peer(&[]);
        let off = AuthOptions { digest_enabled: false, ..AuthOptions::default() };
        assert_eq!(ids.authenticate(&off, Some("digest"), Some(b"a:b")), Err(AuthError::UnknownScheme));
        for scheme in [None, Some("x509"), Some("sasl"), Some("world"), Some("auth"), Some("super"), Some("")]
        {
            let result = ids.authenticate(&AuthOptions::default(), scheme, Some(b"a:b"));
            assert_eq!(result, Err(AuthError::UnknownScheme), "{scheme:?}");
        }
        let null = ids.authenticate(&AuthOptions::default(), Some("digest"), None);
        assert_eq!(null, Err(AuthError::Refused));
        assert_eq!(ids.ids().len(), 1);
    }

    #[test]
    fn a_connection_cannot_collect_identities_without_end() {
        let mut ids = peer(&[]);
        let mut login = |n: usize| {
            ids.authenticate(&AuthOptions::default(), Some("digest"), Some(format!("u{n}:p").as_bytes()))
        };
        for n in 1..IDS_MAX {
            login(n).unwrap();
        }
        assert_eq!(login(IDS_MAX), Err(AuthError::TooMany));
        assert_eq!(login(1), Ok(()), "what is there already is no new one");
    }

    #[test]
    fn the_super_user_is_allowed_everything_and_is_a_digest_user_too() {
        let options = AuthOptions { super_digest: Some(digest_id("super:test")), ..AuthOptions::default() };
        let mut ids = peer(&[]);
        ids.authenticate(&options, Some("digest"), Some(b"super:wrong")).unwrap();
        assert!(!ids.is_super());
        ids.authenticate(&options, Some("digest"), Some(b"super:test")).unwrap();
        assert!(ids.is_super());
        let schemes: Vec<_> = ids.ids().iter().map(|id| (id.scheme, id.user())).collect();
        assert_eq!(schemes, [("ip", "10.1.2.3"), ("digest", "super"), ("super", ""), ("digest", "super")]);
        assert!(ids.allowed(&options, vec(&encode([entry(0, "world", "anyone")])), perms::ADMIN));
    }

    #[test]
    fn a_permission_needs_a_matching_entry_with_its_bit() {
        let options = AuthOptions::default();
        let id = digest_id("a:1");
        let acl = encode([
            entry(perms::READ, "world", "anyone"),
            entry(perms::WRITE, "digest", &id),
            entry(perms::CREATE, "ip", "10.1.0.0/16"),
            entry(perms::ADMIN, "sasl", "somebody"),
        ]);
        let (alice, other) = (peer(&["a:1"]), peer(&["a:2"]));
        let allowed = |ids: &AuthIds, perm| ids.allowed(&options, vec(&acl), perm);
        assert!(allowed(&other, perms::READ));
        assert!(allowed(&alice, perms::WRITE) && !allowed(&other, perms::WRITE));
        assert!(allowed(&other, perms::CREATE));
        assert!(!AuthIds::none().allowed(&options, vec(&acl), perms::CREATE));
        assert!(!allowed(&alice, perms::ADMIN));
        assert!(allowed(&other, perms::READ | perms::ADMIN), "one of several will do");
        assert!(other.allowed(&options, AclVec::NULL, perms::ADMIN), "an empty list allows everybody");
        let skip = AuthOptions { skip_acl: true, ..options };
        assert!(other.allowed(&skip, vec(&acl), perms::ADMIN));
    }

    #[test]
    fn auth_stands_for_every_login_but_not_for_the_address() {
        let (a, b) = (digest_id("a:1"), digest_id("b:2"));
        let got = fixed(&peer(&["a:1", "b:2"]), [entry(perms::READ, "auth", "ignored")]);
        assert_eq!(got, Ok(encode([entry(1, "digest", &a), entry(1, "digest", &b)])));
        assert_eq!(fixed(&peer(&[]), [entry(1, "auth", "")]), Err(ErrorCode::InvalidAcl));
        let null_id = Acl { perms: 1, scheme: Some("auth"), id: None };
        assert!(fixed(&peer(&["a:1"]), [null_id]).is_ok());
    }

    #[test]
    fn duplicates_go_and_the_order_stays() {
        let (x, y, z) =
            (entry(1, "world", "anyone"), entry(31, "ip", "1.2.3.4"), entry(2, "world", "anyone"));
        assert_eq!(fixed(&peer(&[]), [x, y, x, z, y]), Ok(encode([x, y, z])));
    }

    #[test]
    fn acls_that_no_provider_accepts() {
        let ids = peer(&["a:1"]);
        assert_eq!(fixed(&ids, []), Err(ErrorCode::InvalidAcl));
        for (scheme, id) in [
            ("world", "everyone"),
            ("super", ""),
            ("sasl", "a"),
            ("x509", "CN=a"),
            ("nonsense", "a"),
            ("", ""),
            ("digest", "a"),
            ("digest", "a:"),
            ("digest", ":"),
            ("digest", ""),
            ("digest", "a:b:c"),
            ("ip", "localhost"),
            ("ip", "1.2.3.4/33"),
        ] {
            assert_eq!(fixed(&ids, [entry(31, scheme, id)]), Err(ErrorCode::InvalidAcl), "{scheme}:{id}");
        }
        for (scheme, id) in [("digest", "a:b"), ("digest", ":b"), ("digest", "a:b:"), ("ip", "::1/128")] {
            assert!(fixed(&ids, [entry(31, scheme, id)]).is_ok(), "{scheme}:{id}");
        }
        let null = |scheme| Acl { perms: 31, scheme, id: None };
        assert_eq!(fixed(&ids, [null(None)]), Err(ErrorCode::InvalidAcl));
        assert_eq!(fixed(&ids, [null(Some("nonsense"))]), Err(ErrorCode::InvalidAcl));
        for scheme in ["world", "digest", "ip"] {
            assert_eq!(fixed(&ids, [null(Some(scheme))]), Err(ErrorCode::MarshallingError), "{scheme}");
        }
    }

    #[test]
    fn the_size_of_an_acl_is_bounded_before_and_after_ids_are_put_in() {
        let ids = peer(&["a:1"]);
        let many = |n: usize| (0..n).map(|perms| entry(perms as i32, "world", "anyone"));
        assert!(fixed(&ids, many(ACL_ENTRIES_MAX)).is_ok());
        assert_eq!(fixed(&ids, many(ACL_ENTRIES_MAX + 1)), Err(ErrorCode::InvalidAcl));
        let mut crowd = peer(&[]);
        for n in 1..IDS_MAX {
            let login = format!("{n:0100}:p");
            crowd.authenticate(&AuthOptions::default(), Some("digest"), Some(login.as_bytes())).unwrap();
        }
        let auths = (0..100).map(|perms| entry(perms, "auth", ""));
        assert_eq!(fixed(&crowd, auths), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn secrets_of_digest_ids_are_masked() {
        let acl = encode([
            entry(31, "digest", "a:secret:more"),
            entry(1, "ip", "::1"),
            entry(1, "digest", "plain"),
        ]);
        let mut out = Vec::new();
        put_masked(vec(&acl), &mut out);
        let expected =
            encode([entry(31, "digest", "a:x"), entry(1, "ip", "::1"), entry(1, "digest", "plain")]);
        assert_eq!(out, expected);
    }
}
