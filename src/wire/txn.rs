//! Transactions: the payload of a log record and of a PROPOSAL: `TxnHeader txn [TxnDigest]`.
//!
//! - T1: a transaction carries results (new versions, parent versions, resolved ACLs), never intentions, so that applying it
//!   twice gives what applying it once gives (rule R12).
//! - T2: decoding borrows; a multi is checked once when read, then walked.

use super::jute::{JuteError, PutJute, Reader};
use super::vector::{Element, Vector};
use super::{AclVec, StrVec};

/// Head of every transaction, 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxnHeader {
    /// Session that asked for it; 0 for the server itself.
    pub client_id: i64,
    /// The session's xid.
    pub cxid: i32,
    /// Its place in the total order.
    pub zxid: i64,
    /// Wall time at the leader, ms since 1970.
    pub time_ms: i64,
    /// Kind of transaction: an op code.
    pub kind: i32,
}

impl TxnHeader {
    /// Bytes on the wire.
    pub const BYTES: usize = 32;

    /// Reads the record.
    pub fn read(r: &mut Reader<'_>) -> Result<TxnHeader, JuteError> {
        Ok(TxnHeader {
            client_id: r.long()?,
            cxid: r.int()?,
            zxid: r.long()?,
            time_ms: r.long()?,
            kind: r.int()?,
        })
    }

    /// Appends the record.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_long(self.client_id);
        out.put_int(self.cxid);
        out.put_long(self.zxid);
        out.put_long(self.time_ms);
        out.put_int(self.kind);
    }
}

/// Transaction type numbers: those of the op codes.
pub mod kind {
    /// Also the record of create.
    pub const CREATE: i32 = 1;
    /// Same record as create; the reply differs.
    pub const CREATE2: i32 = 15;
    /// Container node.
    pub const CREATE_CONTAINER: i32 = 19;
    /// TTL node.
    pub const CREATE_TTL: i32 = 21;
    /// Delete.
    pub const DELETE: i32 = 2;
    /// Same record as delete.
    pub const DELETE_CONTAINER: i32 = 20;
    /// Set data.
    pub const SET_DATA: i32 = 5;
    /// Same record as set data, on the configuration node.
    pub const RECONFIG: i32 = 16;
    /// Set ACL.
    pub const SET_ACL: i32 = 7;
    /// Version check inside a multi.
    pub const CHECK: i32 = 13;
    /// Several in one.
    pub const MULTI: i32 = 14;
    /// Session begins.
    pub const CREATE_SESSION: i32 = -10;
    /// Session ends.
    pub const CLOSE_SESSION: i32 = -11;
    /// A write that failed: takes a zxid, changes nothing.
    pub const ERROR: i32 = -1;
}

/// The body of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the protocol's records, by their names there
pub enum Txn<'a> {
    /// create, create2, createContainer, createTTL.
    Create(CreateTxn<'a>),
    /// delete, deleteContainer.
    Delete {
        path: &'a str,
    },
    /// setData, reconfig; `version` is the new one.
    SetData {
        path: &'a str,
        data: Option<&'a [u8]>,
        version: i32,
    },
    /// `version` is the new aversion.
    SetAcl {
        path: &'a str,
        acl: AclVec<'a>,
        version: i32,
    },
    Check {
        path: &'a str,
        version: i32,
    },
    Multi(MultiTxn<'a>),
    CreateSession {
        timeout_ms: i32,
    },
    /// `None` when the record has no list (before 3.6): all ephemerals of the session go.
    CloseSession {
        paths: Option<StrVec<'a>>,
    },
    Error {
        err: i32,
    },
}

/// How long a node made by a [`CreateTxn`] lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until deleted.
    Persistent,
    /// As long as the session in the header.
    Ephemeral,
    /// Until its last child goes.
    Container,
    /// Until left alone, without children, for so many ms.
    Ttl(i64),
}

/// The four create transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateTxn<'a> {
    /// Final path, with the sequence number.
    pub path: &'a str,
    /// `None` is null.
    pub data: Option<&'a [u8]>,
    /// Resolved: no `auth` entries.
    pub acl: AclVec<'a>,
    /// What decides about its end.
    pub lifetime: Lifetime,
    /// New stored cversion of the parent; -1 in records before 3.x.
    pub parent_cversion: i32,
}

impl<'a> Txn<'a> {
    /// Reads the body of a transaction of type `kind`.
    pub fn read(kind: i32, r: &mut Reader<'a>) -> Result<Txn<'a>, JuteError> {
        Ok(match kind {
            kind::CREATE | kind::CREATE2 | kind::CREATE_CONTAINER | kind::CREATE_TTL => {
                Txn::Create(create(kind, r)?)
            }
            kind::DELETE | kind::DELETE_CONTAINER => Txn::Delete { path: r.ustring()? },
            kind::SET_DATA | kind::RECONFIG => {
                Txn::SetData { path: r.ustring()?, data: r.buffer()?, version: r.int()? }
            }
            kind::SET_ACL => Txn::SetAcl { path: r.ustring()?, acl: AclVec::read(r)?, version: r.int()? },
            kind::CHECK => Txn::Check { path: r.ustring()?, version: r.int()? },
            kind::MULTI => Txn::Multi(MultiTxn::read(r)?),
            kind::CREATE_SESSION => Txn::CreateSession { timeout_ms: r.int()? },
            kind::CLOSE_SESSION => {
                Txn::CloseSession { paths: if r.left() == 0 { None } else { Some(StrVec::read(r)?) } }
            }
            kind::ERROR => Txn::Error { err: r.int()? },
            value => return Err(JuteError::Value { at: r.position(), value }),
        })
    }

    /// Appends the body.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Txn::Create(txn) => txn.put(out),
            Txn::Delete { path } => out.put_ustring(path),
            Txn::SetData { path, data, version } => {
                out.put_ustring(path);
                out.put_buffer(*data);
                out.put_int(*version);
            }
            Txn::SetAcl { path, acl, version } => {
                out.put_ustring(path);
                acl.put(out);
                out.put_int(*version);
            }
            Txn::Check { path, version } => {
                out.put_ustring(path);
                out.put_int(*version);
            }
            Txn::Multi(multi) => multi.put(out),
            Txn::CreateSession { timeout_ms } => out.put_int(*timeout_ms),
            Txn::CloseSession { paths } => {
                if let Some(paths) = paths {
                    paths.put(out);
                }
            }
            Txn::Error { err } => out.put_int(*err),
        }
    }
}

fn create<'a>(kind: i32, r: &mut Reader<'a>) -> Result<CreateTxn<'a>, JuteError> {
    let (path, data, acl) = (r.ustring()?, r.buffer()?, AclVec::read(r)?);
    let ephemeral = matches!(kind, kind::CREATE | kind::CREATE2) && r.boolean()?;
    // Records of the first format end here.
    let parent_cversion = if r.left() == 0 { -1 } else { r.int()? };
    let lifetime = match kind {
        kind::CREATE_CONTAINER => Lifetime::Container,
        kind::CREATE_TTL => Lifetime::Ttl(r.long()?),
        _ if ephemeral => Lifetime::Ephemeral,
        _ => Lifetime::Persistent,
    };
    Ok(CreateTxn { path, data, acl, lifetime, parent_cversion })
}

impl CreateTxn<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_ustring(self.path);
        out.put_buffer(self.data);
        self.acl.put(out);
        match self.lifetime {
            Lifetime::Persistent => out.put_boolean(false),
            Lifetime::Ephemeral => out.put_boolean(true),
            Lifetime::Container | Lifetime::Ttl(_) => {}
        }
        out.put_int(self.parent_cversion);
        if let Lifetime::Ttl(ms) = self.lifetime {
            out.put_long(ms);
        }
    }
}

/// `vector<Txn{int type, buffer data}>`: type and body of each, in order.
pub type MultiTxn<'a> = Vector<'a, (i32, Txn<'a>)>;

impl<'a> Element<'a> for (i32, Txn<'a>) {
    const BYTES_MIN: usize = 8;

    /// One level only: a multi inside a multi is refused, so that depth is bounded.
    fn read_element(r: &mut Reader<'a>) -> Result<(i32, Txn<'a>), JuteError> {
        let at = r.position();
        let kind = r.int()?;
        let body = r.buffer()?.unwrap_or_default();
        if kind == kind::MULTI {
            return Err(JuteError::Value { at, value: kind });
        }
        Ok((kind, Txn::read(kind, &mut Reader::new(body))?))
    }
}

/// Writes a multi transaction piece by piece.
#[derive(Debug)]
pub struct MultiWriter {
    count_at: usize,
    count: i32,
}

impl MultiWriter {
    /// Starts the body of a multi at the end of `out`.
    #[must_use]
    pub fn begin(out: &mut Vec<u8>) -> MultiWriter {
        MultiWriter { count_at: out.reserve_int(), count: 0 }
    }

    /// Appends one transaction.
    pub fn put(&mut self, out: &mut Vec<u8>, kind: i32, txn: &Txn<'_>) {
        out.put_int(kind);
        let mark = out.reserve_int();
        txn.put(out);
        out.fill_length(mark);
        self.count += 1;
        out.fill_int(self.count_at, self.count);
    }
}

/// The tree's digest after the transaction, 12 bytes behind the body; absent in records of servers that have it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnDigest {
    /// Algorithm: 2 is AdHash over CRC-32.
    pub version: i32,
    /// The digest.
    pub digest: u64,
}

impl TxnDigest {
    /// The version written here.
    pub const VERSION: i32 = 2;

    /// Appends the record.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_int(self.version);
        out.put_long(self.digest as i64);
    }
}

/// A whole payload, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// Who, when, what kind.
    pub header: TxnHeader,
    /// What.
    pub txn: Txn<'a>,
    /// Digest of the tree after it.
    pub digest: Option<TxnDigest>,
}

impl<'a> Proposal<'a> {
    /// Reads a payload.
    pub fn read(payload: &'a [u8]) -> Result<Proposal<'a>, JuteError> {
        let mut r = Reader::new(payload);
        let header = TxnHeader::read(&mut r)?;
        // The two bodies that may end early must not take the digest behind them for their own bytes; both were always
        // written in full by every server that writes digests (3.6 and later).
        let txn = Txn::read(header.kind, &mut r)?;
        let digest = if r.left() == 0 {
            None
        } else {
            Some(TxnDigest { version: r.int()?, digest: r.long()? as u64 })
        };
        Ok(Proposal { header, txn, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Acl, perms, put_acl_vec};
    use super::*;

    fn payload(kind: i32, txn: &Txn<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        TxnHeader { client_id: 1, cxid: 2, zxid: 3, time_ms: 4, kind }.put(&mut out);
        txn.put(&mut out);
        TxnDigest { version: TxnDigest::VERSION, digest: 99 }.put(&mut out);
        out
    }

    #[test]
    fn every_transaction_comes_back() {
        let mut acl = Vec::new();
        put_acl_vec(&mut acl, [Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") }]);
        let acl = AclVec::read(&mut Reader::new(&acl)).unwrap();
        let create = |lifetime| {
            Txn::Create(CreateTxn { path: "/a", data: Some(b"x"), acl, lifetime, parent_cversion: 8 })
        };
        let mut body = Vec::new();
        let mut multi = MultiWriter::begin(&mut body);
        multi.put(&mut body, kind::CREATE, &create(Lifetime::Ephemeral));
        multi.put(&mut body, kind::ERROR, &Txn::Error { err: -2 });
        let multi = Txn::read(kind::MULTI, &mut Reader::new(&body)).unwrap();
        let mut strings = Vec::new();
        strings.put_int(1);
        strings.put_ustring("/e");
        let paths = Some(StrVec::read(&mut Reader::new(&strings)).unwrap());
        let all = [
            (kind::CREATE, create(Lifetime::Persistent)),
            (kind::CREATE2, create(Lifetime::Ephemeral)),
            (kind::CREATE_CONTAINER, create(Lifetime::Container)),
            (kind::CREATE_TTL, create(Lifetime::Ttl(77))),
            (kind::DELETE, Txn::Delete { path: "/a" }),
            (kind::SET_DATA, Txn::SetData { path: "/a", data: None, version: 5 }),
            (kind::SET_ACL, Txn::SetAcl { path: "/a", acl, version: 5 }),
            (kind::CHECK, Txn::Check { path: "/a", version: 5 }),
            (kind::MULTI, multi),
            (kind::CREATE_SESSION, Txn::CreateSession { timeout_ms: 4000 }),
            (kind::CLOSE_SESSION, Txn::CloseSession { paths }),
            (kind::ERROR, Txn::Error { err: -101 }),
        ];
        for (kind, txn) in all {
            let bytes = payload(kind, &txn);
            let proposal = Proposal::read(&bytes).unwrap();
            assert_eq!((proposal.header.kind, proposal.txn), (kind, txn));
            assert_eq!(proposal.digest, Some(TxnDigest { version: 2, digest: 99 }));
            for len in 0..bytes.len() - 12 {
                // Cut anywhere in header or body: an error or the older, shorter form, never a panic.
                let _ = Proposal::read(&bytes[..len]);
            }
        }
    }

    #[test]
    fn a_multi_inside_a_multi_is_refused() {
        let mut inner = Vec::new();
        let _ = MultiWriter::begin(&mut inner);
        let mut out = Vec::new();
        out.put_int(1);
        out.put_int(kind::MULTI);
        out.put_buffer(Some(&inner));
        assert!(Txn::read(kind::MULTI, &mut Reader::new(&out)).is_err());
    }
}
