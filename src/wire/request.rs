//! What clients send. A request borrows from its frame; decoding checks everything once, so that walking it later cannot fail.

mod multi;

use super::jute::{JuteError, Reader};
use super::{AclVec, OpCode, StrVec};
use multi::MultiKind;
pub use multi::{MultiHeader, MultiOps};

/// First frame of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// Always 0 so far.
    pub protocol_version: i32,
    /// Highest zxid the client has seen; a server behind it must refuse.
    pub last_zxid_seen: i64,
    /// Wanted session timeout, ms.
    pub timeout_ms: i32,
    /// 0 asks for a new session.
    pub session_id: i64,
    /// Password of the session to go on with.
    pub password: &'a [u8],
    /// `None` when the client (before 3.4) left the byte out; the reply then leaves it out as well.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// Reads the frame.
    pub fn read(frame: &'a [u8]) -> Result<ConnectRequest<'a>, JuteError> {
        let mut r = Reader::new(frame);
        Ok(ConnectRequest {
            protocol_version: r.int()?,
            last_zxid_seen: r.long()?,
            timeout_ms: r.int()?,
            session_id: r.long()?,
            password: r.buffer()?.unwrap_or_default(),
            read_only: if r.left() == 0 { None } else { Some(r.boolean()?) },
        })
    }
}

/// Head of every later frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Chosen by the client, echoed in the reply; -2 ping, -4 auth, -8 setWatches.
    pub xid: i32,
    /// Operation number, known or not.
    pub op: i32,
}

impl RequestHeader {
    /// Bytes on the wire.
    pub const BYTES: usize = 8;

    /// Reads the header; the body is what is left in `r`.
    pub fn read(r: &mut Reader<'_>) -> Result<RequestHeader, JuteError> {
        Ok(RequestHeader { xid: r.int()?, op: r.int()? })
    }
}

/// create, create2, createContainer, createTTL: the op code decides what is made, the flags only sequential and ephemeral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateRequest<'a> {
    /// Full path, or prefix for a sequential node.
    pub path: &'a str,
    /// `None` is null, which is not empty.
    pub data: Option<&'a [u8]>,
    /// As sent; `auth` entries are not resolved yet.
    pub acl: AclVec<'a>,
    /// `CreateMode` flag 0..=6.
    pub flags: i32,
    /// ms; only createTTL has one.
    pub ttl_ms: Option<i64>,
}

/// A decoded request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the protocol's records, by their names there
pub enum Request<'a> {
    /// Also create2, createContainer and createTTL: see the op code.
    Create(CreateRequest<'a>),
    Delete {
        path: &'a str,
        version: i32,
    },
    /// Body of deleteContainer.
    DeleteContainer {
        path: &'a str,
    },
    /// Also getData, getChildren and getChildren2.
    Exists {
        path: &'a str,
        watch: bool,
    },
    GetData {
        path: &'a str,
        watch: bool,
    },
    GetChildren {
        path: &'a str,
        watch: bool,
    },
    GetChildren2 {
        path: &'a str,
        watch: bool,
    },
    SetData {
        path: &'a str,
        data: Option<&'a [u8]>,
        version: i32,
    },
    GetAcl {
        path: &'a str,
    },
    SetAcl {
        path: &'a str,
        acl: AclVec<'a>,
        version: i32,
    },
    /// Echoes its path, whatever it is: text or not.
    Sync {
        path: Option<&'a [u8]>,
    },
    Ping,
    Check {
        path: &'a str,
        version: i32,
    },
    Multi(MultiOps<'a>),
    MultiRead(MultiOps<'a>),
    Reconfig {
        joining: Option<&'a str>,
        leaving: Option<&'a str>,
        members: Option<&'a str>,
        config_id: i64,
    },
    CheckWatches {
        path: &'a str,
        kind: i32,
    },
    RemoveWatches {
        path: &'a str,
        kind: i32,
    },
    Auth {
        scheme: Option<&'a str>,
        auth: Option<&'a [u8]>,
    },
    SetWatches(SetWatches<'a>),
    Sasl {
        token: Option<&'a [u8]>,
    },
    GetEphemerals {
        prefix: Option<&'a str>,
    },
    GetAllChildrenNumber {
        path: &'a str,
    },
    AddWatch {
        path: &'a str,
        mode: i32,
    },
    WhoAmI,
    CreateSession {
        timeout_ms: i32,
    },
    CloseSession,
}

/// Body of setWatches and setWatches2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetWatches<'a> {
    /// Last zxid the client has seen: what changed after it fires at once.
    pub relative_zxid: i64,
    /// Watches from getData.
    pub data: StrVec<'a>,
    /// Watches from exists on a missing node.
    pub exist: StrVec<'a>,
    /// Watches from getChildren.
    pub child: StrVec<'a>,
    /// From addWatch, setWatches2 only.
    pub persistent: StrVec<'a>,
    /// From addWatch, setWatches2 only.
    pub persistent_recursive: StrVec<'a>,
}

impl<'a> Request<'a> {
    /// Reads the body of `op`. Bytes behind the record are ignored, as ZooKeeper does.
    pub fn read(op: OpCode, body: &'a [u8]) -> Result<Request<'a>, JuteError> {
        Request::read_from(op, &mut Reader::new(body))
    }

    /// Could ZooKeeper decode the body of `op`? It takes strings that are null; what it then makes of them is an error at a later step.
    pub fn check(op: OpCode, body: &[u8]) -> Result<(), JuteError> {
        Request::read_from(op, &mut Reader::with_null_as_empty(body)).map(drop)
    }

    fn read_from(op: OpCode, r: &mut Reader<'a>) -> Result<Request<'a>, JuteError> {
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => Request::Create(create(r, false)?),
            OpCode::CreateTtl => Request::Create(create(r, true)?),
            OpCode::Delete => Request::Delete { path: r.ustring()?, version: r.int()? },
            OpCode::DeleteContainer => Request::DeleteContainer { path: r.ustring()? },
            OpCode::Exists => Request::Exists { path: r.ustring()?, watch: r.boolean()? },
            OpCode::GetData => Request::GetData { path: r.ustring()?, watch: r.boolean()? },
            OpCode::GetChildren => Request::GetChildren { path: r.ustring()?, watch: r.boolean()? },
            OpCode::GetChildren2 => Request::GetChildren2 { path: r.ustring()?, watch: r.boolean()? },
            OpCode::SetData => Request::SetData { path: r.ustring()?, data: r.buffer()?, version: r.int()? },
            OpCode::GetAcl => Request::GetAcl { path: r.ustring()? },
            OpCode::SetAcl => {
                Request::SetAcl { path: r.ustring()?, acl: AclVec::read(r)?, version: r.int()? }
            }
            OpCode::Sync => Request::Sync { path: r.buffer()? },
            OpCode::Ping => Request::Ping,
            OpCode::Check => Request::Check { path: r.ustring()?, version: r.int()? },
            OpCode::Multi => Request::Multi(MultiOps::read(r, MultiKind::Write)?),
            OpCode::MultiRead => Request::MultiRead(MultiOps::read(r, MultiKind::Read)?),
            OpCode::Reconfig => Request::Reconfig {
                joining: r.ustring_or_null()?,
                leaving: r.ustring_or_null()?,
                members: r.ustring_or_null()?,
                config_id: r.long()?,
            },
            OpCode::CheckWatches => Request::CheckWatches { path: r.ustring()?, kind: r.int()? },
            OpCode::RemoveWatches => Request::RemoveWatches { path: r.ustring()?, kind: r.int()? },
            OpCode::Auth => {
                r.int()?;
                Request::Auth { scheme: r.ustring_or_null()?, auth: r.buffer()? }
            }
            OpCode::SetWatches => Request::SetWatches(set_watches(r, false)?),
            OpCode::SetWatches2 => Request::SetWatches(set_watches(r, true)?),
            OpCode::Sasl => Request::Sasl { token: r.buffer()? },
            OpCode::GetEphemerals => Request::GetEphemerals { prefix: r.ustring_or_null()? },
            OpCode::GetAllChildrenNumber => Request::GetAllChildrenNumber { path: r.ustring()? },
            OpCode::AddWatch => Request::AddWatch { path: r.ustring()?, mode: r.int()? },
            OpCode::WhoAmI => Request::WhoAmI,
            OpCode::CreateSession => Request::CreateSession { timeout_ms: r.int()? },
            OpCode::CloseSession => Request::CloseSession,
            OpCode::Error => return Err(JuteError::Value { at: 0, value: OpCode::Error.to_i32() }),
        })
    }
}

fn create<'a>(r: &mut Reader<'a>, ttl: bool) -> Result<CreateRequest<'a>, JuteError> {
    Ok(CreateRequest {
        path: r.ustring()?,
        data: r.buffer()?,
        acl: AclVec::read(r)?,
        flags: r.int()?,
        ttl_ms: if ttl { Some(r.long()?) } else { None },
    })
}

fn set_watches<'a>(r: &mut Reader<'a>, persistent: bool) -> Result<SetWatches<'a>, JuteError> {
    Ok(SetWatches {
        relative_zxid: r.long()?,
        data: StrVec::read(r)?,
        exist: StrVec::read(r)?,
        child: StrVec::read(r)?,
        persistent: if persistent { StrVec::read(r)? } else { StrVec::NULL },
        persistent_recursive: if persistent { StrVec::read(r)? } else { StrVec::NULL },
    })
}

#[cfg(test)]
mod tests {
    use super::super::jute::PutJute;
    use super::*;

    #[test]
    fn connect_with_and_without_the_read_only_byte() {
        let mut out = Vec::new();
        out.put_int(0);
        out.put_long(7);
        out.put_int(4000);
        out.put_long(0);
        out.put_buffer(Some(&[0; 16]));
        assert_eq!(ConnectRequest::read(&out).unwrap().read_only, None);
        out.put_boolean(true);
        let connect = ConnectRequest::read(&out).unwrap();
        assert_eq!((connect.read_only, connect.last_zxid_seen, connect.timeout_ms), (Some(true), 7, 4000));
        assert!(ConnectRequest::read(&out[..20]).is_err());
    }
}
