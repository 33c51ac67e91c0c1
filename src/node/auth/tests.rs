//! What somebody is, what an ACL allows, and what an ACL may be.

use super::*;
use crate::wire::jute::Reader;
use crate::wire::{ErrorCode, perms, put_acl_vec};

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
    for scheme in [None, Some("x509"), Some("sasl"), Some("world"), Some("auth"), Some("super"), Some("")] {
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
    let (x, y, z) = (entry(1, "world", "anyone"), entry(31, "ip", "1.2.3.4"), entry(2, "world", "anyone"));
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
    let acl =
        encode([entry(31, "digest", "a:secret:more"), entry(1, "ip", "::1"), entry(1, "digest", "plain")]);
    let mut out = Vec::new();
    put_masked(vec(&acl), &mut out);
    let expected = encode([entry(31, "digest", "a:x"), entry(1, "ip", "::1"), entry(1, "digest", "plain")]);
    assert_eq!(out, expected);
}
