//! Random scripts: a seed becomes a list of steps over a few client slots, the same list on every run.
//!
//! 1. A script is plain data. It depends on the seed alone, never on what a server answered, so that it can be cut
//!    into pieces and played again.
//! 2. Paths come from a small universe under `/o`, so that operations meet each other's nodes.
//! 3. Nothing in a script depends on time: timeouts are long, but for a session that is left to expire while nothing
//!    else goes on; the reaper of containers and TTL nodes is off.
//! 4. Every third script has quotas, every fourth of the others a restart of the server, on the data it has. Never both:
//!    a ZooKeeper that starts from a snapshot counts afresh what quotas use, whatever clients wrote there since.

use zabra::base::rng::Rng;

use crate::common::client::{create_body, op, read_body, xid};
use crate::common::jute::{Acl, Writer};

/// How many clients take part.
pub(crate) const SLOTS: usize = 4;

const CREATE_KINDS: [i32; 4] = [op::CREATE, op::CREATE2, op::CREATE_CONTAINER, op::CREATE_TTL];

/// One step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A new session for the slot; the one it had is closed first.
    Connect { slot: usize, timeout_ms: i32, read_only: Option<bool> },
    /// Back to the slot's session over a new connection.
    Reconnect { slot: usize, how: Return },
    /// The TCP connection ends without a word; the session lives on.
    Drop { slot: usize },
    /// Requests answered in order, and written in one go if `together`.
    Send { slot: usize, requests: Vec<Request>, together: bool },
    /// A request that the server answers and then closes the connection.
    Fatal { slot: usize, request: Request },
    /// Bytes that are not a request; the server is expected to close.
    Raw { slot: usize, bytes: Vec<u8> },
    /// An orderly end of the session.
    Close { slot: usize },
    /// A new session for the slot, with a short timeout; then silence until the server ends it.
    Expire { slot: usize, requests: Vec<Request> },
    /// The server stops, by SIGTERM or SIGKILL, and starts again on its data.
    Restart { kill: bool },
}

/// The ways to come back to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// After closing the old connection.
    Normal,
    /// While the old connection is still open: the server must close that one.
    Steal,
    /// With a wrong password.
    WrongPassword,
    /// Claiming to have seen a zxid that does not exist yet.
    FromTheFuture,
}

/// One request, ready but for its length and, in one case, a zxid.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Special id, or `None` for the next ordinary one.
    pub(crate) xid: Option<i32>,
    pub(crate) op: i32,
    pub(crate) body: Vec<u8>,
    /// Replaces the first eight bytes of the body by the slot's last seen zxid less this.
    pub(crate) zxids_back: Option<i64>,
    /// For the reader of a report.
    pub(crate) label: String,
}

/// The script of `seed`, about `steps` long.
pub(crate) fn generate(seed: u64, steps: usize) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    let has_quota = rng.one_in(3);
    let mut maker = Maker { rng, has_quota };
    let mut script: Vec<Step> = (0..SLOTS).map(|slot| maker.connect(slot)).collect();
    script.push(maker.send(0, vec![plain_create("/o"), plain_create("/o/a")]));
    let restart = (!has_quota && maker.rng.one_in(4)).then(|| maker.rng.below(steps.max(1) as u64));
    for step in 0..steps as u64 {
        script.push(maker.step());
        if restart == Some(step) {
            script.push(Step::Restart { kill: maker.rng.one_in(2) });
        }
    }
    script
}

fn plain_create(path: &str) -> Request {
    let body = create_body(path, Some(b""), &Acl::open(), 0);
    Request { xid: None, op: op::CREATE, body, zxids_back: None, label: format!("create {path}") }
}

struct Maker {
    rng: Rng,
    has_quota: bool,
}

impl Maker {
    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.rng.below(choices.len() as u64) as usize].clone()
    }

    fn step(&mut self) -> Step {
        let slot = self.rng.below(SLOTS as u64) as usize;
        match self.rng.below(100) {
            0..=1 => self.connect(slot),
            2..=5 => Step::Reconnect { slot, how: self.manner() },
            6..=7 => Step::Drop { slot },
            8 => Step::Close { slot },
            9 => Step::Raw { slot, bytes: self.not_a_request() },
            10..=11 if self.has_quota => {
                let requests = self.quota();
                self.send(slot, requests)
            }
            10 if self.rng.one_in(2) => self.expire(slot),
            11 if self.rng.one_in(2) => {
                let requests = self.pipeline();
                self.send(slot, requests)
            }
            12 => Step::Fatal { slot, request: self.fatal() },
            13..=16 => {
                let requests = vec![self.auth()];
                self.send(slot, requests)
            }
            17..=40 => {
                let count = 2 + self.rng.below(8);
                let requests = (0..count).map(|_| self.request()).collect();
                self.send(slot, requests)
            }
            _ => {
                let requests = vec![self.request()];
                self.send(slot, requests)
            }
        }
    }

    /// ZooKeeper checks a quota against what is applied already, not against what is under way, so whether a write
    /// passes depends on how fast the ones before it went: with a quota requests go one by one. So they do behind a
    /// setACL, because ZooKeeper goes on checking against the old list for as long as the new one is under way.
    fn send(&self, slot: usize, requests: Vec<Request>) -> Step {
        let in_front = requests.split_last().map_or(&[][..], |(_, in_front)| in_front);
        let is_racy = self.has_quota || in_front.iter().any(|r| r.op == op::SET_ACL);
        Step::Send { slot, requests, together: !is_racy }
    }

    fn expire(&mut self, slot: usize) -> Step {
        let requests = (0..3)
            .map(|_| {
                let parent = self.parent();
                let (path, flags) = self.pick(&[("a", 1), ("dd", 1), ("q", 3)]);
                let path = format!("{parent}/{path}");
                let body = create_body(&path, Some(b"mine"), &Acl::open(), flags);
                ordinary(op::CREATE, body, format!("create {path} flags={flags}"))
            })
            .collect();
        Step::Expire { slot, requests }
    }

    /// Hundreds of requests in one go; small ones, so that they fit into the buffers of a socket.
    fn pipeline(&mut self) -> Vec<Request> {
        let count = 100 + self.rng.below(900);
        let is_small = |r: &Request| r.body.len() < 1000 && r.op != op::SET_ACL;
        (0..count).map(|_| self.request()).filter(is_small).collect()
    }

    fn connect(&mut self, slot: usize) -> Step {
        let timeout_ms = self.pick(&[30_000, 40_000, 100_000]);
        let read_only = self.pick(&[Some(false), Some(false), Some(true), None]);
        Step::Connect { slot, timeout_ms, read_only }
    }

    fn manner(&mut self) -> Return {
        match self.rng.below(10) {
            0 => Return::WrongPassword,
            1 => Return::FromTheFuture,
            2..=3 => Return::Steal,
            _ => Return::Normal,
        }
    }

    /// Any request that leaves the connection open.
    fn request(&mut self) -> Request {
        match self.rng.below(110) {
            0..=21 => self.create(),
            22..=31 => self.delete(),
            32..=43 => self.set_data(),
            44..=61 => self.read(),
            62..=67 => self.set_acl(),
            68..=75 => self.multi(),
            76..=78 => self.multi_in_one_place(),
            79..=81 => self.multi_read(),
            82..=87 => self.add_watch(),
            88..=92 => self.drop_watch(),
            93..=95 => self.set_watches(),
            96..=100 => self.lookup(),
            101 => self.delete_container(),
            102 => self.reconfig(),
            103 if self.rng.one_in(3) => self.largest(),
            104 if self.rng.one_in(2) => self.null_path(),
            _ => self.spoiled(),
        }
    }

    fn path(&mut self) -> String {
        match self.rng.below(100) {
            0..=5 => self.pick(&ODD_PATHS).to_string(),
            6..=7 => self
                .pick(&["/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/zookeeper/x"])
                .to_string(),
            8 => "/".to_string(),
            9..=20 => format!("{}/q{:010}", self.parent(), self.rng.below(6)),
            _ => self.plain_path(),
        }
    }

    fn plain_path(&mut self) -> String {
        let parent = self.parent();
        let name = self.pick(&["a", "b", "c", "dd", "é", "日本"]);
        format!("{parent}/{name}")
    }

    fn parent(&mut self) -> String {
        self.pick(&["/o", "/o", "/o", "/o/a", "/o/a", "/o/b", "/o/a/b", "/o/a/b/c"]).to_string()
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let length = match self.rng.below(40) {
            0..=3 => return None,
            4..=8 => 0,
            9 => self.rng.below(100_000),
            10 => 3000,
            _ => self.rng.below(40),
        };
        let mut bytes = vec![0; length as usize];
        self.rng.fill(&mut bytes);
        Some(bytes)
    }

    fn version(&mut self) -> i32 {
        self.pick(&[-1, -1, -1, 0, 1, 2, 3, 7, -2, i32::MAX])
    }

    fn acls(&mut self) -> (Writer, &'static str) {
        let (acls, label) = match self.rng.below(40) {
            0..=1 => (vec![Acl::new(1, "world", "anyone")], "read-only"),
            2..=3 => (vec![Acl::new(31, "auth", "")], "auth"),
            4..=5 => (vec![Acl::new(31, "digest", ALICE)], "alice"),
            6 => (vec![Acl::new(31, "digest", ALICE), Acl::new(3, "digest", BOB)], "alice+bob"),
            7 => (vec![Acl::new(31, "ip", "127.0.0.1")], "loopback"),
            8 => (vec![Acl::new(31, "ip", "10.0.0.0/8"), Acl::new(1, "world", "anyone")], "10/8+read"),
            9 => (vec![], "empty"),
            10 => return (Writer::new().int(-1), "null"),
            11 => (vec![Acl::new(31, "nosuch", "x")], "bad scheme"),
            12 => (vec![Acl::new(31, "world", "someone")], "bad world id"),
            13 => (vec![Acl::new(31, "digest", "no-colon")], "bad digest id"),
            14 => (vec![Acl::new(31, "ip", "300.1.1.1")], "bad address"),
            15 => (vec![Acl::new(31, "world", "anyone"), Acl::new(31, "world", "anyone")], "twice"),
            16 => (vec![Acl::new(0, "world", "anyone")], "nothing"),
            17 => (vec![Acl::new(21, "auth", "ignored"), Acl::new(31, "digest", BOB)], "auth+bob"),
            18 => (vec![Acl::new(-1, "world", "anyone")], "all bits"),
            _ => (Acl::open(), "open"),
        };
        (Writer::new().acls(&acls), label)
    }

    /// The body of a create of any kind: path, data, acl, flags and, for createTTL, a time to live.
    fn create_parts(&mut self, kind: i32) -> (Vec<u8>, String) {
        let mut path = self.path();
        let flags = match kind {
            op::CREATE_TTL => self.pick(&[5, 5, 5, 6, 6, 0, 9]),
            // With an ephemeral flag ZooKeeper refuses children while the create is under way and takes them after.
            op::CREATE_CONTAINER => self.pick(&[4, 4, 4, 4, 0]),
            _ => self.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 8]),
        };
        if matches!(flags, 2 | 3 | 6) {
            path = format!("{}/{}", self.parent(), self.pick(&["q", "q", "q", ""]));
        }
        let data = self.data();
        let (acls, acl_label) = self.acls();
        let length = data.as_ref().map_or(-1, |d| d.len() as i64);
        let mut body = Writer::new().string(&path).buffer(data.as_deref()).raw(&acls.done()).int(flags);
        let mut label = format!("{} {path:?} flags={flags} data={length} acl={acl_label}", name(kind));
        if kind == op::CREATE_TTL {
            let ttls: &[i64] = match flags {
                5 | 6 => &[1, 1000, 0xff_ffff_ffff, 0, -1, 0x100_0000_0000],
                // A negative one without a TTL flag passes ZooKeeper's checks, reaches its log and stops it for good.
                _ => &[0, 1, 1000, 0x100_0000_0000],
            };
            let ttl = self.pick(ttls);
            body = body.long(ttl);
            label += &format!(" ttl={ttl}");
        }
        (body.done(), label)
    }

    fn create(&mut self) -> Request {
        let op = match self.rng.below(10) {
            0..=3 => op::CREATE,
            4..=7 => op::CREATE2,
            8 => op::CREATE_CONTAINER,
            _ => op::CREATE_TTL,
        };
        let (body, label) = self.create_parts(op);
        ordinary(op, body, label)
    }

    fn delete(&mut self) -> Request {
        let (path, version) = (self.path(), self.version());
        let body = Writer::new().string(&path).int(version).done();
        ordinary(op::DELETE, body, format!("delete {path:?} version={version}"))
    }

    fn set_data(&mut self) -> Request {
        let (path, data, version) = (self.path(), self.data(), self.version());
        let length = data.as_ref().map_or(-1, |d| d.len() as i64);
        let body = Writer::new().string(&path).buffer(data.as_deref()).int(version).done();
        ordinary(op::SET_DATA, body, format!("setData {path:?} data={length} version={version}"))
    }

    fn read(&mut self) -> Request {
        let op = self.pick(&[op::EXISTS, op::GET_DATA, op::GET_DATA, op::GET_CHILDREN, op::GET_CHILDREN2]);
        let (path, watch) = (self.path(), self.rng.one_in(2));
        ordinary(op, read_body(&path, watch), format!("{} {path:?} watch={watch}", name(op)))
    }

    fn set_acl(&mut self) -> Request {
        if self.rng.one_in(2) {
            let path = self.path();
            return ordinary(op::GET_ACL, Writer::new().string(&path).done(), format!("getACL {path:?}"));
        }
        let (path, version) = (self.path(), self.version());
        let (acls, label) = self.acls();
        let body = Writer::new().string(&path).raw(&acls.done()).int(version).done();
        ordinary(op::SET_ACL, body, format!("setACL {path:?} acl={label} version={version}"))
    }

    fn multi(&mut self) -> Request {
        let count = self.rng.below(7);
        let (mut body, mut label) = (Writer::new(), String::from("multi"));
        for index in 0..count {
            let (kind, part, part_label) = self.multi_part(index == 0);
            body = body.int(kind).boolean(false).int(-1).raw(&part);
            label += &format!(" [{part_label}]");
        }
        ordinary(op::MULTI, body.int(-1).boolean(true).int(-1).done(), label)
    }

    /// Creates, with and without a sequence number, sets and deletes of the same few children.
    fn multi_in_one_place(&mut self) -> Request {
        let parent = self.parent();
        let (mut body, mut label) = (Writer::new(), String::from("multi"));
        for _ in 0..2 + self.rng.below(6) {
            let child = format!("{parent}/q{:010}", self.rng.below(8));
            let (kind, part, part_label) = match self.rng.below(9) {
                0..=2 => {
                    let (path, flags) = (format!("{parent}/q"), self.pick(&[2, 2, 2, 3]));
                    let part = create_body(&path, Some(b"s"), &Acl::open(), flags);
                    (self.pick(&[op::CREATE, op::CREATE2]), part, format!("create {path} flags={flags}"))
                }
                3..=4 => (op::CREATE2, create_body(&child, None, &Acl::open(), 0), format!("create {child}")),
                5..=7 => {
                    let version = self.pick(&[-1, -1, 0]);
                    let part = Writer::new().string(&child).int(version).done();
                    (op::DELETE, part, format!("delete {child} version={version}"))
                }
                _ => {
                    let part = Writer::new().string(&child).buffer(Some(b"set")).int(-1).done();
                    (op::SET_DATA, part, format!("setData {child}"))
                }
            };
            body = body.int(kind).boolean(false).int(-1).raw(&part);
            label += &format!(" [{part_label}]");
        }
        ordinary(op::MULTI, body.int(-1).boolean(true).int(-1).done(), label)
    }

    /// Not a read in front: behind one ZooKeeper may trip over a null ACL before it sees that kinds are mixed, and all
    /// that changes is whether the refusal takes a zxid.
    fn multi_part(&mut self, is_first: bool) -> (i32, Vec<u8>, String) {
        let request = match self.rng.below(40) {
            0..=15 => {
                let kind = self.pick(&CREATE_KINDS);
                let (body, label) = self.create_parts(kind);
                ordinary(kind, body, label)
            }
            16..=22 => self.delete(),
            23..=30 => self.set_data(),
            31..=38 => self.check(),
            _ if is_first => self.check(),
            _ => self.read(),
        };
        (request.op, request.body, request.label)
    }

    fn check(&mut self) -> Request {
        let (path, version) = (self.path(), self.version());
        let body = Writer::new().string(&path).int(version).done();
        ordinary(op::CHECK, body, format!("check {path:?} version={version}"))
    }

    fn multi_read(&mut self) -> Request {
        let count = self.rng.below(5);
        let (mut body, mut label) = (Writer::new(), String::from("multiRead"));
        for _ in 0..count {
            let kind = match self.rng.below(30) {
                0 => op::EXISTS,
                1..=15 => op::GET_DATA,
                _ => op::GET_CHILDREN,
            };
            let (path, watch) = (self.path(), self.rng.one_in(3));
            body = body.int(kind).boolean(false).int(-1).raw(&read_body(&path, watch));
            label += &format!(" [{} {path:?}]", name(kind));
        }
        ordinary(op::MULTI_READ, body.int(-1).boolean(true).int(-1).done(), label)
    }

    fn add_watch(&mut self) -> Request {
        let (path, mode) = (self.path(), self.pick(&[0, 0, 0, 1, 1, 1, 2, -1]));
        let body = Writer::new().string(&path).int(mode).done();
        ordinary(op::ADD_WATCH, body, format!("addWatch {path:?} mode={mode}"))
    }

    fn drop_watch(&mut self) -> Request {
        let op = self.pick(&[op::CHECK_WATCHES, op::REMOVE_WATCHES]);
        let (path, kind) = (self.path(), self.pick(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 0, 9]));
        let body = Writer::new().string(&path).int(kind).done();
        ordinary(op, body, format!("{} {path:?} type={kind}", name(op)))
    }

    fn set_watches(&mut self) -> Request {
        let op = self.pick(&[op::SET_WATCHES, op::SET_WATCHES2]);
        let lists = if op == op::SET_WATCHES { 3 } else { 5 };
        let (mut body, mut label) = (Writer::new().long(0), name(op).to_string());
        for _ in 0..lists {
            let paths: Vec<String> = (0..self.rng.below(4)).map(|_| self.path()).collect();
            label += &format!(" {paths:?}");
            body = body.strings(&paths);
        }
        let zxids_back = Some(self.pick(&[0, 1, 2, 5, 20, 100]));
        Request { xid: Some(xid::SET_WATCHES), op, body: body.done(), zxids_back, label }
    }

    fn lookup(&mut self) -> Request {
        match self.rng.below(7) {
            0..=2 => {
                let prefix = self.pick(&["", "/", "/o", "/o/a", " ", "/nosuch"]);
                let body = Writer::new().string(prefix).done();
                ordinary(op::GET_EPHEMERALS, body, format!("getEphemerals {prefix:?}"))
            }
            3 => {
                let path = self.path();
                let body = Writer::new().string(&path).done();
                ordinary(op::GET_ALL_CHILDREN_NUMBER, body, format!("getAllChildrenNumber {path:?}"))
            }
            4 => ordinary(op::WHO_AM_I, vec![], "whoAmI".into()),
            5 => Request { xid: Some(xid::PING), ..ordinary(op::PING, vec![], "ping".into()) },
            _ => {
                let path = self.path();
                ordinary(op::SYNC, Writer::new().string(&path).done(), format!("sync {path:?}"))
            }
        }
    }

    fn delete_container(&mut self) -> Request {
        let path = self.path();
        ordinary(
            op::DELETE_CONTAINER,
            Writer::new().string(&path).done(),
            format!("deleteContainer {path:?}"),
        )
    }

    fn reconfig(&mut self) -> Request {
        let body = Writer::new().string("server.9=a:1:2;3").string("").buffer(None).long(-1).done();
        ordinary(op::RECONFIG, body, "reconfig".into())
    }

    /// The largest frame that a server takes, or one byte less.
    fn largest(&mut self) -> Request {
        let path = self.plain_path();
        let frame = self.pick(&[1_048_575, 1_048_574]);
        let (kind, kind_label) = self.pick(&[
            (op::SET_DATA, "setData"),
            (op::CREATE2, "create2"),
            (op::MULTI, "multi of setData"),
        ]);
        let make = |data: &[u8]| match kind {
            op::CREATE2 => create_body(&path, Some(data), &Acl::open(), 0),
            op::MULTI => {
                let part = Writer::new().string(&path).buffer(Some(data)).int(-1).done();
                let body = Writer::new().int(op::SET_DATA).boolean(false).int(-1).raw(&part);
                body.int(-1).boolean(true).int(-1).done()
            }
            _ => Writer::new().string(&path).buffer(Some(data)).int(-1).done(),
        };
        // The request header is in the frame as well.
        let body = make(&vec![b'x'; frame - 8 - make(&[]).len()]);
        ordinary(kind, body, format!("{kind_label} {path:?} in a frame of {frame}"))
    }

    /// A request without its path, which is not the same as with an empty one.
    fn null_path(&mut self) -> Request {
        let mut request = loop {
            let request = match self.rng.below(6) {
                0 => plain_create("/o/a"),
                1 => self.delete(),
                2 => self.set_data(),
                3 => self.set_acl(),
                4 => self.lookup(),
                _ => self.read(),
            };
            if request.body.len() >= 4 {
                break request;
            }
        };
        let length = i32::from_be_bytes(request.body[..4].try_into().expect("four bytes"));
        let behind = 4 + usize::try_from(length).expect("a path is there");
        request.body.splice(..behind, [0xFF; 4]);
        request.label = format!("without its path: {}", request.label);
        request
    }

    /// A request whose body is cut short, has bytes behind it, or has one bit turned.
    fn spoiled(&mut self) -> Request {
        let mut request = loop {
            let request = match self.rng.below(4) {
                0 => self.create(),
                1 => self.multi(),
                2 => self.set_data(),
                _ => self.request(),
            };
            // With a turned bit these can become what `create_parts` avoids.
            let is_harmless = !matches!(request.op, op::CREATE_TTL | op::CREATE_CONTAINER);
            if is_harmless && !request.body.is_empty() && request.zxids_back.is_none() {
                break request;
            }
        };
        let at = self.rng.below(request.body.len() as u64) as usize;
        let how = match self.rng.below(4) {
            0 => {
                request.body.extend_from_slice(b"left over");
                "with more".into()
            }
            // Not in what holds text beyond ASCII: Zabra says of a string that is not UTF-8 that there is no such node, where ZooKeeper
            // replaces characters, looks at what is left, and may find its parent locked. (0xff is of a number.)
            1 if request.body.iter().all(|byte| byte.is_ascii() || *byte == 0xff) => {
                let at = at.min(60);
                let bits = if at < 4 { 8 } else { 7 };
                request.body[at] ^= 1 << self.rng.below(bits);
                format!("bit turned at {at}")
            }
            _ => {
                request.body.truncate(at);
                format!("cut at {at}")
            }
        };
        request.label = format!("{how}: {}", request.label);
        request
    }

    /// A request after which the server closes the connection.
    fn fatal(&mut self) -> Request {
        match self.rng.below(3) {
            0 => self.check(),
            1 => {
                let op = self.pick(&[10, 23, 99, 108, 1000, -12, 0, i32::MIN]);
                ordinary(op, vec![0; 8], format!("unknown operation {op}"))
            }
            _ => auth_request("nosuch", b"alice:apple"),
        }
    }

    fn auth(&mut self) -> Request {
        let who: &[&[u8]] =
            &[b"alice:apple", b"alice:apple", b"bob:pear", b"super:secret", b"no colon in here"];
        let who = self.pick(who);
        auth_request("digest", who)
    }

    /// Limits on one of two subtrees, set or taken away as the command line does it.
    fn quota(&mut self) -> Vec<Request> {
        let top = self.pick(&["/o/a", "/o/a", "/o/b", "/o"]);
        let home = format!("/zookeeper/quota{top}");
        let (limits, stats) = (format!("{home}/zookeeper_limits"), format!("{home}/zookeeper_stats"));
        if self.rng.one_in(4) {
            return [limits, stats, home].iter().map(|path| plain_delete(path)).collect();
        }
        if self.rng.one_in(8) {
            return vec![plain_delete(&stats)];
        }
        let text = self.pick(&QUOTAS);
        let mut requests = vec![plain_create("/zookeeper/quota/o"), plain_create(&home)];
        for path in [limits, stats] {
            let body = create_body(&path, Some(text.as_bytes()), &Acl::open(), 0);
            requests.push(ordinary(op::CREATE, body, format!("create {path} {text}")));
        }
        requests
    }

    fn not_a_request(&mut self) -> Vec<u8> {
        let length: i32 = self.pick(&[-1, i32::MIN, 1_048_576, i32::MAX, 0x2000_0000]);
        Writer::new().int(length).long(1).done()
    }
}

const ALICE: &str = "alice:TyehHLx5bivH04nyuPu0Zr/PNno=";
const BOB: &str = "bob:HTSvz+NjfW2bptgveEzH4yzT6jI=";

/// The last few cannot be read as limits: as long as quotas bind, that spoils every create and setData below them. (A
/// `zookeeper_stats` that cannot be read stops a ZooKeeper for good, but a create of it is overwritten at once.)
const QUOTAS: [&str; 11] = [
    "count=3,bytes=-1",
    "count=-1,bytes=50",
    "count=5,bytes=100;byteHardLimit=60;countHardLimit=4",
    "count=-1,bytes=-1;byteHardLimit=30;countHardLimit=-1",
    "count=-1,bytes=-1;byteHardLimit=-1;countHardLimit=2",
    "count=-1,bytes=-1;byteHardLimit=-1;countHardLimit=2=;;",
    "",
    "count==5,bytes=7=8;nonsense=-3,,;;countHardLimit=3",
    "count=many,bytes=1",
    "count=3,bytes",
    ",count=3",
];

const ODD_PATHS: [&str; 16] = [
    "",
    "o",
    "/o/",
    "/o//a",
    "/o/./a",
    "/o/../a",
    "/o/.",
    "/o/a\0b",
    "/o/\u{1}",
    "/o/\u{7f}",
    "/o/\u{e000}",
    "/o/\u{fff0}",
    "/o/\u{1f600}",
    "/nosuch/child",
    "/o/...",
    "/o/ spaces and %s",
];

fn ordinary(op: i32, body: Vec<u8>, label: String) -> Request {
    Request { xid: None, op, body, zxids_back: None, label }
}

fn plain_delete(path: &str) -> Request {
    ordinary(op::DELETE, Writer::new().string(path).int(-1).done(), format!("delete {path}"))
}

/// An auth packet; its request id is always -4.
pub(crate) fn auth_request(scheme: &str, data: &[u8]) -> Request {
    let body = Writer::new().int(0).string(scheme).buffer(Some(data)).done();
    let label = format!("auth {scheme} {}", data.escape_ascii());
    Request { xid: Some(xid::AUTH), op: op::AUTH, body, zxids_back: None, label }
}

/// The name of an operation code, for reports.
pub(crate) fn name(code: i32) -> String {
    let known = [
        (op::CREATE, "create"),
        (op::CREATE2, "create2"),
        (op::CREATE_CONTAINER, "createContainer"),
        (op::CREATE_TTL, "createTTL"),
        (op::EXISTS, "exists"),
        (op::GET_DATA, "getData"),
        (op::GET_CHILDREN, "getChildren"),
        (op::GET_CHILDREN2, "getChildren2"),
        (op::CHECK_WATCHES, "checkWatches"),
        (op::REMOVE_WATCHES, "removeWatches"),
        (op::SET_WATCHES, "setWatches"),
        (op::SET_WATCHES2, "setWatches2"),
    ];
    known.iter().find(|(c, _)| *c == code).map_or_else(|| format!("op {code}"), |(_, n)| (*n).to_string())
}
