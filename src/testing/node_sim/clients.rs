//! Clients: who they are, and what they ask for. Few names, so that requests meet.

use crate::base::rng::Rng;
use crate::base::{ConnId, SessionId};
use crate::node::auth::open_acl;
use crate::node::{AuthIds, AuthOptions};
use crate::testing::world::body;
use crate::wire::OpCode::{self, *};
use crate::wire::perms;

/// A session on a connection.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) session: SessionId,
    pub(super) conn: ConnId,
    pub(super) ids: AuthIds,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) client: Client,
    pub(super) op: OpCode,
    pub(super) body: Vec<u8>,
}

impl Client {
    /// Some log in, so that ACLs decide something.
    pub(super) fn new(session: SessionId, conn: ConnId, rng: &mut Rng) -> Client {
        let mut ids = AuthIds::of_peer("127.0.0.1".parse().expect("an address"));
        if rng.one_in(2) {
            let who: &[u8] = if rng.one_in(2) { b"a:1" } else { b"b:2" };
            ids.authenticate(&AuthOptions::default(), Some("digest"), Some(who)).expect("digest is on");
        }
        Client { session, conn, ids }
    }

    /// The server's own: closes a session that expired.
    pub(super) fn own(session: SessionId) -> Client {
        Client { session, conn: ConnId(0), ids: AuthIds::none() }
    }

    /// Any write.
    pub(super) fn request(&self, rng: &mut Rng) -> Request {
        let (op, body) = match rng.below(30) {
            0..=2 => {
                let ops: Vec<_> = (0..rng.below(5)).map(|_| single(rng)).collect();
                (Multi, body::multi(&ops))
            }
            3 | 4 => (SetAcl, body::set_acl(&path(rng), &acl(rng), version(rng))),
            5 => (DeleteContainer, body::path_only(&path(rng))),
            6 if rng.one_in(3) => (CloseSession, Vec::new()),
            7 => (Create, quota(rng)),
            8 if rng.one_in(4) => (SetData, vec![1, 2, 3]),
            _ => single(rng),
        };
        Request { client: self.clone(), op, body }
    }
}

fn path(rng: &mut Rng) -> String {
    let mut path = String::new();
    for _ in 0..=rng.below(2) {
        path.push('/');
        path.push(char::from(b'a' + rng.below(4) as u8));
    }
    match rng.below(60) {
        0 => "/".to_owned(),
        1 => path + "/",
        _ => path,
    }
}

fn data(rng: &mut Rng) -> Option<Vec<u8>> {
    let len = [0, 1, 8, 30, 100, 300, 900][rng.below(7) as usize];
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    (!rng.one_in(12)).then_some(bytes)
}

fn acl(rng: &mut Rng) -> Vec<u8> {
    match rng.below(9) {
        0 => body::acl(&[(perms::READ | perms::CREATE | perms::DELETE, "world", "anyone"), (31, "auth", "")]),
        1 => body::acl(&[(perms::ALL, "ip", "127.0.0.1/8")]),
        2 => body::acl(&[(perms::ALL & !perms::WRITE, "world", "anyone")]),
        _ => open_acl(),
    }
}

fn version(rng: &mut Rng) -> i32 {
    if rng.one_in(6) { rng.below(3) as i32 } else { -1 }
}

/// A quota node, or one of those above it.
fn quota(rng: &mut Rng) -> Vec<u8> {
    let top = char::from(b'a' + rng.below(4) as u8);
    let limits =
        format!("count={},bytes={}=;countHardLimit={}", rng.below(9), rng.below(900), 3 + rng.below(20));
    let limits = if rng.one_in(2) { limits } else { "count=5,bytes=-1".to_owned() };
    let (path, data) = match rng.below(3) {
        0 => (format!("/zookeeper/quota/{top}"), String::new()),
        1 => (format!("/zookeeper/quota/{top}/zookeeper_limits"), limits),
        _ => (format!("/zookeeper/quota/{top}/zookeeper_stats"), "count=0,bytes=0".to_owned()),
    };
    body::create_with(&path, Some(data.as_bytes()), 0, &open_acl())
}

fn single(rng: &mut Rng) -> (OpCode, Vec<u8>) {
    let path = path(rng);
    match rng.below(13) {
        // These nearly always work, so that multis do and sessions get something to lose.
        10 => (Create, body::create(&format!("{path}-"), 2 + rng.below(2) as i32)),
        11 | 12 => (Create2, body::create("/-", 3)),
        0..=3 => {
            let op = [Create, Create2, CreateContainer][rng.below(3) as usize];
            let flags = if op == CreateContainer { 4 } else { rng.below(4) as i32 };
            (op, body::create_with(&path, data(rng).as_deref(), flags, &acl(rng)))
        }
        4 => (CreateTtl, body::create_ttl(&path, 5 + rng.below(2) as i32, 1 + rng.below(9) as i64)),
        5 | 6 => (Delete, body::path_int(&path, version(rng))),
        7..=9 => (SetData, body::set_data(&path, data(rng).as_deref(), version(rng))),
        _ => unreachable!("below 13"),
    }
}
