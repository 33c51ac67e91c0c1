//! Requests built once: sending one copies its template and patches the xid and the digits of its path.
//!
//! - T1: directory numbers are five digits and leaves ten, so that a kind's frames have one length and fixed places to patch.
//! - T2: the bytes after patching are exactly those of a request encoded from scratch.

use super::frames::ReplyHead;
use super::plan::Shape;
use super::workload::{Kind, Op, dir};
use crate::wire::jute::PutJute;
use crate::wire::request::MultiHeader;
use crate::wire::{Acl, OpCode, Stat, perms, put_acl_vec, reply};

/// Digits of a directory's number.
const DIR_DIGITS: usize = 5;
/// Digits of a leaf's number.
const LEAF_DIGITS: usize = 10;
/// CreateMode flags: ephemeral.
const FLAG_EPHEMERAL: i32 = 1;
/// Where the xid stands in a frame: behind its length.
const XID_AT: usize = 4;

/// Path of the directory `tag` number `number`.
pub(super) fn dir_path(prefix: &str, tag: char, number: u32) -> String {
    format!("{prefix}/{tag}{number:0DIR_DIGITS$}")
}

/// Path of a leaf in it.
pub(super) fn leaf_path(prefix: &str, tag: char, number: u32, leaf: u64) -> String {
    format!("{}/{leaf:0LEAF_DIGITS$}", dir_path(prefix, tag, number))
}

/// The templates of the kinds that a run needs.
#[derive(Clone, Debug)]
pub(super) struct Templates {
    by_kind: [Option<Template>; Kind::COUNT],
    keys: u64,
}

#[derive(Clone, Debug)]
struct Template {
    frame: Vec<u8>,
    dir_at: Option<usize>,
    leaves_at: Vec<usize>,
    reply_bytes_min: usize,
}

impl Templates {
    /// Templates for `shape`, all below `prefix`.
    pub(super) fn new(prefix: &str, shape: &Shape) -> Templates {
        let mut by_kind = [const { None }; Kind::COUNT];
        for kind in shape.workload.kinds() {
            by_kind[*kind as usize] = Some(Template::new(*kind, prefix, shape));
        }
        Templates { by_kind, keys: shape.keys }
    }

    /// Appends the frame of `op`.
    pub(super) fn put(&self, out: &mut Vec<u8>, xid: i32, op: &Op) {
        let template = self.of(op.kind);
        let from = out.len();
        out.extend_from_slice(&template.frame);
        let frame = &mut out[from..];
        frame[XID_AT..XID_AT + 4].copy_from_slice(&xid.to_be_bytes());
        if let Some(at) = template.dir_at {
            put_digits(&mut frame[at..at + DIR_DIGITS], u64::from(op.dir));
        }
        let mut leaf = op.leaf;
        for at in &template.leaves_at {
            put_digits(&mut frame[*at..*at + LEAF_DIGITS], leaf);
            leaf = if leaf + 1 >= self.keys { 0 } else { leaf + 1 };
        }
    }

    /// A successful reply to `kind` has at least this many bytes (its frame without the length).
    pub(super) fn reply_bytes_min(&self, kind: Kind) -> usize {
        self.of(kind).reply_bytes_min
    }

    fn of(&self, kind: Kind) -> &Template {
        self.by_kind[kind as usize].as_ref().expect("generators make only the kinds of their workload")
    }
}

impl Template {
    fn new(kind: Kind, prefix: &str, shape: &Shape) -> Template {
        let mut t = Template { frame: Vec::new(), dir_at: None, leaves_at: Vec::new(), reply_bytes_min: 0 };
        let mark = reply::begin(&mut t.frame);
        t.frame.put_int(0);
        t.frame.put_int(kind.op().to_i32());
        let body_bytes = t.put_body(kind, prefix, shape);
        reply::end(&mut t.frame, mark);
        t.reply_bytes_min = ReplyHead::BYTES + body_bytes;
        t
    }

    /// Appends the body; returns the least bytes of the body of a successful reply.
    fn put_body(&mut self, kind: Kind, prefix: &str, shape: &Shape) -> usize {
        match kind {
            Kind::Set => self.put_set(prefix, shape),
            Kind::Get | Kind::GetWatch => {
                self.put_leaf(prefix, dir::KEYS);
                self.frame.put_boolean(kind == Kind::GetWatch);
                4 + shape.size + Stat::BYTES
            }
            Kind::Create => self.put_create(prefix, dir::CREATED, shape, 0),
            Kind::CreateEphemeral => self.put_create(prefix, dir::EPHEMERAL, shape, FLAG_EPHEMERAL),
            Kind::Delete => {
                self.put_leaf(prefix, dir::EPHEMERAL);
                self.frame.put_int(-1);
                0
            }
            Kind::List => {
                self.frame.put_ustring(&dir_path(prefix, dir::LISTED, 0));
                self.frame.put_boolean(false);
                4 + Stat::BYTES
            }
            Kind::Multi => self.put_multi(prefix, shape),
        }
    }

    fn put_set(&mut self, prefix: &str, shape: &Shape) -> usize {
        self.put_leaf(prefix, dir::KEYS);
        self.frame.put_buffer(Some(&data(shape.size)));
        self.frame.put_int(-1);
        Stat::BYTES
    }

    fn put_create(&mut self, prefix: &str, tag: char, shape: &Shape, flags: i32) -> usize {
        let path_bytes = self.put_leaf(prefix, tag);
        put_create_tail(&mut self.frame, &data(shape.size), flags);
        4 + path_bytes
    }

    fn put_multi(&mut self, prefix: &str, shape: &Shape) -> usize {
        let header = MultiHeader { op: OpCode::SetData.to_i32(), done: false, err: -1 };
        let header_bytes = 9;
        for _ in 0..shape.multi_ops {
            header.put(&mut self.frame);
            self.put_set(prefix, shape);
        }
        MultiHeader::END.put(&mut self.frame);
        shape.multi_ops * (header_bytes + Stat::BYTES) + header_bytes
    }

    /// Appends a path with places to patch; returns its bytes.
    fn put_leaf(&mut self, prefix: &str, tag: char) -> usize {
        let path = leaf_path(prefix, tag, 0, 0);
        self.frame.put_ustring(&path);
        let end = self.frame.len();
        self.leaves_at.push(end - LEAF_DIGITS);
        if tag == dir::CREATED {
            self.dir_at = Some(end - LEAF_DIGITS - 1 - DIR_DIGITS);
        }
        path.len()
    }
}

/// What stands behind the path of a create: data, an open ACL, flags.
pub(super) fn put_create_tail(out: &mut Vec<u8>, data: &[u8], flags: i32) {
    out.put_buffer(Some(data));
    put_acl_vec(out, [Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") }]);
    out.put_int(flags);
}

/// `size` printable bytes that do not compress to nothing.
pub(super) fn data(size: usize) -> Vec<u8> {
    let mut rng = crate::base::rng::Rng::new(size as u64);
    (0..size).map(|_| b'!' + rng.below(90) as u8).collect()
}

/// Writes `value` with leading zeros; what does not fit is cut at the left.
fn put_digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::bench::workload::Workload;
    use crate::wire::jute::Reader;
    use crate::wire::request::{Request, RequestHeader};

    fn shape(workload: Workload) -> Shape {
        Shape { workload, size: 7, keys: 20, multi_ops: 3, writes_percent: 10 }
    }

    fn put(workload: Workload, op: Op) -> Vec<u8> {
        let mut out = b"before".to_vec();
        Templates::new("/p", &shape(workload)).put(&mut out, 77, &op);
        let len = i32::from_be_bytes(out[6..10].try_into().unwrap()) as usize;
        assert_eq!(len, out.len() - 10);
        out.split_off(10)
    }

    fn read(frame: &[u8]) -> (RequestHeader, Request<'_>) {
        let mut r = Reader::new(frame);
        let head = RequestHeader::read(&mut r).unwrap();
        let op = OpCode::from_i32(head.op).unwrap();
        (head, Request::read(op, r.rest()).unwrap())
    }

    #[test]
    fn patched_frames_are_the_requests_they_stand_for() {
        let frame = put(Workload::Set, Op { kind: Kind::Set, dir: 0, leaf: 12 });
        let (head, request) = read(&frame);
        assert_eq!((head.xid, head.op), (77, 5));
        let data = data(7);
        assert_eq!(
            request,
            Request::SetData { path: "/p/k00000/0000000012", data: Some(&data), version: -1 }
        );
        let frame = put(Workload::Watch, Op { kind: Kind::GetWatch, dir: 0, leaf: 3 });
        assert_eq!(read(&frame).1, Request::GetData { path: "/p/k00000/0000000003", watch: true });
        let frame = put(Workload::Create, Op { kind: Kind::Create, dir: 31, leaf: 1_234_567_890 });
        let Request::Create(create) = read(&frame).1 else { panic!("a create") };
        assert_eq!((create.path, create.flags, create.acl.len()), ("/p/c00031/1234567890", 0, 1));
        let frame = put(Workload::Churn, Op { kind: Kind::Delete, dir: 0, leaf: 5 });
        assert_eq!(read(&frame).1, Request::Delete { path: "/p/e00000/0000000005", version: -1 });
    }

    #[test]
    fn a_multi_sets_consecutive_keys_and_wraps() {
        let frame = put(Workload::Multi, Op { kind: Kind::Multi, dir: 0, leaf: 18 });
        let Request::Multi(ops) = read(&frame).1 else { panic!("a multi") };
        let paths: Vec<String> = ops
            .iter()
            .map(|(_, op)| match op {
                Request::SetData { path, .. } => path.rsplit('/').next().unwrap().to_owned(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(paths, ["0000000018", "0000000019", "0000000000"]);
    }
}
