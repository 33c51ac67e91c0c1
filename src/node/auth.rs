//! Who a connection is, and what that allows.
//!
//! - A1: a check allocates nothing; an empty list allows everybody, `super` is allowed everything.
//! - A2, A3: what may stand in an ACL at all is the business of `acl`.
//!
//! Facts: ZooKeeper's `ZooKeeperServer.checkACL`, `DigestAuthenticationProvider`. The schemes `sasl` and `x509` come later: until
//! then no id is valid for them and nobody authenticates by them.

mod acl;

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use super::ip;
use crate::wire::{Acl, AclVec};

pub use acl::{ACL_BYTES_MAX, ACL_ENTRIES_MAX, open_acl, put_masked};

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

    /// Those that another member of the ensemble vouches for, as scheme and id. Schemes that are not known here allow nothing here.
    #[must_use]
    pub fn of_peer_server(named: impl Iterator<Item = (String, String)>) -> AuthIds {
        let known = |scheme: &str| [IP, DIGEST, SUPER].into_iter().find(|known| *known == scheme);
        let ids: Vec<Id> =
            named.filter_map(|(scheme, id)| Some(Id { scheme: known(&scheme)?, id })).take(IDS_MAX).collect();
        let is_super = ids.iter().any(|id| id.scheme == SUPER);
        AuthIds { ids, is_super }
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

/// `user:password` as an id: `user:base64(SHA1(user:password))`. Without a colon all of it is the user.
#[must_use]
pub fn digest_id(user_password: &str) -> String {
    let user = user_password.split(':').next().unwrap_or("");
    format!("{user}:{}", BASE64.encode(Sha1::digest(user_password.as_bytes())))
}

#[cfg(test)]
mod tests;
