//! Replies to writes, and to what is handled outside the pipeline.

use super::auth::{AuthIds, AuthOptions};
use crate::base::Zxid;
use crate::session::SessionFault;
use crate::tree::Outcome;
use crate::wire::jute::PutJute;
use crate::wire::reply::{begin, end, put_empty, put_header};
use crate::wire::request::MultiHeader;
use crate::wire::txn::{MultiTxn, Proposal, Txn, kind};
use crate::wire::{ErrorCode, OpCode, Stat};

/// What becomes of the connection once the reply (if there is one) is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Served {
    /// Close it behind what was appended.
    pub close_after: bool,
}

impl Served {
    /// Go on.
    pub const STAY: Served = Served { close_after: false };
    /// Close.
    pub const CLOSE: Served = Served { close_after: true };
}

/// Appends the reply to a write that was applied: a whole frame with the transaction's own zxid.
///
/// Nothing is appended for createSession (the connection answers with a connect response, `wire::reply::put_connect`) and
/// when the session has moved (the connection is closed without a reply).
pub fn put_write_reply(
    out: &mut Vec<u8>,
    xid: i32,
    op: OpCode,
    proposal: &Proposal<'_>,
    outcome: &Outcome,
) -> Served {
    let zxid = Zxid::from_wire(proposal.header.zxid);
    if is_session_moved(proposal, outcome) {
        return Served::CLOSE;
    }
    if let Outcome::Failed(err) = *outcome {
        let err = ErrorCode::from_i32(err).unwrap_or(ErrorCode::SystemError);
        put_empty(out, xid, zxid, err);
        return Served { close_after: op == OpCode::CloseSession };
    }
    if op == OpCode::CreateSession {
        return Served::STAY;
    }
    let mark = begin(out);
    put_header(out, xid, zxid, ErrorCode::Ok);
    put_body(out, op, &proposal.txn, outcome);
    end(out, mark);
    Served { close_after: op == OpCode::CloseSession }
}

fn put_body(out: &mut Vec<u8>, op: OpCode, txn: &Txn<'_>, outcome: &Outcome) {
    match (txn, outcome) {
        (Txn::Multi(multi), Outcome::Multi(outcomes)) => put_multi(out, multi, outcomes),
        (Txn::Create(create), Outcome::Created(stat)) => {
            let stat = if op == OpCode::Create { None } else { Some(stat) };
            put_created(out, create.path, stat);
        }
        (Txn::SetData { data, .. }, Outcome::DataSet(stat)) => {
            if op == OpCode::Reconfig {
                out.put_buffer(*data);
            }
            stat.put(out);
        }
        (Txn::SetAcl { .. }, Outcome::AclSet(stat)) => stat.put(out),
        (Txn::Delete { .. }, Outcome::Deleted) | (Txn::CloseSession { .. }, Outcome::SessionClosed) => {}
        (txn, outcome) => unreachable!("{outcome:?} is not what comes of {txn:?}"),
    }
}

fn put_created(out: &mut Vec<u8>, path: &str, stat: Option<&Stat>) {
    out.put_ustring(path);
    if let Some(stat) = stat {
        stat.put(out);
    }
}

/// A failed multi has an error as every result: 0 before the cause, -2 behind it.
fn put_multi(out: &mut Vec<u8>, multi: &MultiTxn<'_>, outcomes: &[Outcome]) {
    assert_eq!(multi.len(), outcomes.len(), "one outcome per part");
    for ((kind, txn), outcome) in multi.iter().zip(outcomes) {
        if let Outcome::Failed(err) = *outcome {
            put_result_header(out, kind::ERROR, err);
            out.put_int(err);
        } else {
            put_result(out, kind, &txn, outcome);
        }
    }
    MultiHeader::END.put(out);
}

fn put_result(out: &mut Vec<u8>, kind: i32, txn: &Txn<'_>, outcome: &Outcome) {
    match (txn, outcome) {
        (Txn::Create(create), Outcome::Created(stat)) => {
            let plain = kind == kind::CREATE;
            put_result_header(out, if plain { kind::CREATE } else { kind::CREATE2 }, 0);
            put_created(out, create.path, if plain { None } else { Some(stat) });
        }
        (Txn::SetData { .. }, Outcome::DataSet(stat)) => {
            put_result_header(out, kind, 0);
            stat.put(out);
        }
        _ => put_result_header(out, kind, 0),
    }
}

fn put_result_header(out: &mut Vec<u8>, op: i32, err: i32) {
    MultiHeader { op, done: false, err }.put(out);
}

fn is_session_moved(proposal: &Proposal<'_>, outcome: &Outcome) -> bool {
    let moved = ErrorCode::SessionMoved.to_i32();
    match outcome {
        Outcome::Failed(err) => *err == moved,
        Outcome::Multi(_) => match &proposal.txn {
            Txn::Multi(multi) => multi.iter().any(|(_, txn)| txn == Txn::Error { err: moved }),
            _ => false,
        },
        _ => false,
    }
}

/// A request of a session that is no more, or that lives on another connection now (then nothing is appended).
pub fn put_session_fault(out: &mut Vec<u8>, xid: i32, zxid: Zxid, fault: SessionFault) -> Served {
    match fault {
        SessionFault::Moved(_) => Served::CLOSE,
        SessionFault::Expired(_) => {
            put_empty(out, xid, zxid, ErrorCode::SessionExpired);
            Served::STAY
        }
        SessionFault::Local(_) => {
            put_empty(out, xid, zxid, ErrorCode::EphemeralOnLocalSession);
            Served::STAY
        }
    }
}

/// An operation that there is not, or not alone: header zxid -1 as ZooKeeper sends it, then close.
pub fn put_unimplemented(out: &mut Vec<u8>, xid: i32) -> Served {
    put_empty(out, xid, Zxid::from_wire(-1), ErrorCode::Unimplemented);
    Served::CLOSE
}

/// An auth packet: adds to `ids` or fails, and then the connection is closed. Header zxid 0; may overtake earlier replies.
pub fn serve_auth(
    ids: &mut AuthIds,
    options: &AuthOptions,
    xid: i32,
    scheme: Option<&str>,
    auth: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Served {
    let (err, served) = match ids.authenticate(options, scheme, auth) {
        Ok(()) => (ErrorCode::Ok, Served::STAY),
        Err(_) => (ErrorCode::AuthFailed, Served::CLOSE),
    };
    put_empty(out, xid, Zxid::ZERO, err);
    served
}

/// A SASL token on a server that has no SASL configured: ZooKeeper answers with a null token, and clients go on without.
pub fn serve_sasl(xid: i32, out: &mut Vec<u8>) -> Served {
    let mark = begin(out);
    put_header(out, xid, Zxid::ZERO, ErrorCode::Ok);
    out.put_buffer(None);
    end(out, mark);
    Served::STAY
}
