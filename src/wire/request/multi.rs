//! What multi and multiRead carry: several operations in one frame, checked together, and what their flags make of them.

use super::{CreateRequest, Request};
use crate::wire::OpCode;
use crate::wire::jute::{JuteError, PutJute, Reader};

/// Which operations a multi may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MultiKind {
    Write,
    Read,
}

impl MultiKind {
    const fn allows(self, op: OpCode) -> bool {
        match self {
            MultiKind::Write => matches!(
                op,
                OpCode::Create
                    | OpCode::Create2
                    | OpCode::CreateContainer
                    | OpCode::CreateTtl
                    | OpCode::Delete
                    | OpCode::SetData
                    | OpCode::Check
            ),
            MultiKind::Read => matches!(op, OpCode::GetData | OpCode::GetChildren),
        }
    }
}

/// The operations of a multi or multiRead: `{type, done, err} record` …, `{-1, true, -1}`. Checked once, then walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiOps<'a> {
    count: usize,
    raw: &'a [u8],
}

impl<'a> MultiOps<'a> {
    pub(super) fn read(r: &mut Reader<'a>, kind: MultiKind) -> Result<MultiOps<'a>, JuteError> {
        let from = r.position();
        let mut count = 0;
        loop {
            let at = r.position();
            let header = MultiHeader::read(r)?;
            if header.done {
                return Ok(MultiOps { count, raw: r.since(from) });
            }
            let op = OpCode::from_i32(header.op).filter(|op| kind.allows(*op));
            let op = op.ok_or(JuteError::Value { at, value: header.op })?;
            if let Request::Create(create) = Request::read_from(op, r)? {
                check_create_in_multi(op, &create, at)?;
            }
            count += 1;
        }
    }

    /// Number of operations.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// True for an empty multi, which is valid.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The operations in order, each with what it comes to: its own op code, but for creates that the flags make something else.
    pub fn iter(&self) -> impl Iterator<Item = (OpCode, Request<'a>)> + use<'a> {
        let mut r = Reader::new(self.raw);
        (0..self.count).map(move |_| {
            let header = MultiHeader::read(&mut r).expect("checked when the multi was read");
            let op = OpCode::from_i32(header.op).expect("checked when the multi was read");
            let request = Request::read_from(op, &mut r).expect("checked when the multi was read");
            (op_in_multi(op, &request), request)
        })
    }
}

/// The flag of container nodes.
const FLAG_CONTAINER: i32 = 4;
/// The flags of TTL nodes.
const FLAGS_TTL: std::ops::RangeInclusive<i32> = 5..=6;

/// In a multi a flag that does not go with the operation, or a null ACL, spoils the whole frame, where a create of its own is answered
/// with `BadArguments` or `InvalidAcl`; createTTL alone takes any (ZooKeeper 3.9's `MultiOperationRecord`, which checks in this order).
fn check_create_in_multi(op: OpCode, create: &CreateRequest<'_>, at: usize) -> Result<(), JuteError> {
    match op {
        OpCode::CreateTtl => Ok(()),
        _ if !(0..=*FLAGS_TTL.end()).contains(&create.flags) => {
            Err(JuteError::Value { at, value: create.flags })
        }
        _ if create.acl.is_null() => Err(JuteError::Null { at }),
        _ if FLAGS_TTL.contains(&create.flags) => Err(JuteError::Value { at, value: create.flags }),
        _ => Ok(()),
    }
}

/// In a multi the flags decide what is made: a container by its flag, no TTL node without one of theirs.
fn op_in_multi(op: OpCode, request: &Request<'_>) -> OpCode {
    match request {
        Request::Create(create) if create.flags == FLAG_CONTAINER => OpCode::CreateContainer,
        Request::Create(create) if op == OpCode::CreateTtl && !FLAGS_TTL.contains(&create.flags) => {
            OpCode::Create
        }
        _ => op,
    }
}

/// Stands before each operation and each result of a multi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiHeader {
    /// Operation or result type; -1 at the end.
    pub op: i32,
    /// True for the header that ends the list.
    pub done: bool,
    /// Error of a result, -1 in requests.
    pub err: i32,
}

impl MultiHeader {
    /// What ends the list.
    pub const END: MultiHeader = MultiHeader { op: -1, done: true, err: -1 };

    /// Reads the record.
    pub fn read(r: &mut Reader<'_>) -> Result<MultiHeader, JuteError> {
        Ok(MultiHeader { op: r.int()?, done: r.boolean()?, err: r.int()? })
    }

    /// Appends the record.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_int(self.op);
        out.put_boolean(self.done);
        out.put_int(self.err);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_acl_vec;

    fn create_body(path: &str, flags: i32) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_ustring(path);
        out.put_buffer(Some(b"data"));
        put_acl_vec(&mut out, []);
        out.put_int(flags);
        out
    }

    fn multi(ops: &[(i32, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (op, body) in ops {
            MultiHeader { op: *op, done: false, err: -1 }.put(&mut out);
            out.extend_from_slice(body);
        }
        MultiHeader::END.put(&mut out);
        out
    }

    #[test]
    fn a_null_path_is_decoded_and_refused_but_what_is_behind_it_must_be_there() {
        let mut delete = Vec::new();
        delete.put_int(-1);
        assert!(matches!(Request::check(OpCode::Delete, &delete), Err(JuteError::Truncated { .. })));
        delete.put_int(7);
        assert_eq!(Request::check(OpCode::Delete, &delete), Ok(()));
        assert_eq!(Request::read(OpCode::Delete, &delete), Err(JuteError::Null { at: 0 }));
        let in_multi = multi(&[(2, delete)]);
        assert_eq!(Request::check(OpCode::Multi, &in_multi), Ok(()));
        let mut create = create_body("/a", 0);
        let acl_at = create.len() - 8;
        create.splice(acl_at..acl_at + 4, [0xFF; 4]);
        let no_acl = multi(&[(1, create)]);
        assert!(
            matches!(Request::check(OpCode::Multi, &no_acl), Err(JuteError::Null { .. })),
            "not a string"
        );
    }

    #[test]
    fn a_multi_is_checked_once_and_walked_later() {
        let mut delete = Vec::new();
        delete.put_ustring("/b");
        delete.put_int(3);
        let body = multi(&[(1, create_body("/a", 0)), (2, delete)]);
        let Ok(Request::Multi(ops)) = Request::read(OpCode::Multi, &body) else { panic!("a valid multi") };
        let ops: Vec<_> = ops.iter().collect();
        assert_eq!(ops.len(), 2);
        assert!(matches!(ops[0], (OpCode::Create, Request::Create(CreateRequest { path: "/a", .. }))));
        assert_eq!(ops[1], (OpCode::Delete, Request::Delete { path: "/b", version: 3 }));
        for len in 0..body.len() {
            assert!(Request::read(OpCode::Multi, &body[..len]).is_err());
        }
    }

    #[test]
    fn operations_that_a_multi_may_not_hold_spoil_the_frame() {
        assert!(Request::read(OpCode::Multi, &multi(&[(1, create_body("/a", 9))])).is_err());
        assert!(Request::read(OpCode::Multi, &multi(&[(14, vec![])])).is_err());
        let mut get = Vec::new();
        get.put_ustring("/a");
        get.put_boolean(false);
        assert!(Request::read(OpCode::Multi, &multi(&[(4, get.clone())])).is_err());
        assert!(Request::read(OpCode::MultiRead, &multi(&[(4, get)])).is_ok());
        assert!(Request::read(OpCode::Multi, &multi(&[])).is_ok());
    }
}
