//! Random valid transactions, as a leader would write them: results, not intentions, and the digest after them.

use zabra::base::rng::Rng;
use zabra::tree::{Fired, Outcome, Tree, TreeOptions};
use zabra::wire::jute::{PutJute, Reader};
use zabra::wire::txn::{CreateTxn, Lifetime, MultiWriter, Proposal, Txn, TxnDigest, TxnHeader, kind};
use zabra::wire::{Acl, AclVec, StrVec, put_acl_vec};

use crate::model::{Model, Op, parent_of};

const SESSIONS: [i64; 4] = [0x11, 0x22, 0x33, 0x44];
const NAMES: [&str; 5] = ["a", "b", "c", "dd", "ä"];

pub(crate) fn options() -> TreeOptions {
    TreeOptions { seed: 42, extended_types: true, ..TreeOptions::default() }
}

pub(crate) fn tree() -> Tree {
    Tree::new(options())
}

pub(crate) fn apply(tree: &mut Tree, payload: &[u8]) -> Outcome {
    tree.apply(&Proposal::read(payload).unwrap(), &mut Fired::new())
}

pub(crate) fn reapply(tree: &mut Tree, payload: &[u8]) {
    tree.reapply(&Proposal::read(payload).unwrap(), &mut Fired::new());
}

pub(crate) struct Script {
    rng: Rng,
    zxid: i64,
    always_list: bool,
}

impl Script {
    pub(crate) fn new(seed: u64) -> Script {
        Script { rng: Rng::new(seed), zxid: 0, always_list: false }
    }

    /// Every closeSession names all nodes that go.
    pub(crate) fn with_lists(seed: u64) -> Script {
        Script { always_list: true, ..Script::new(seed) }
    }

    /// `count` payloads from a fresh tree on.
    pub(crate) fn run(mut self, count: usize) -> Vec<Vec<u8>> {
        let mut model = Model::new();
        (0..count).map(|_| self.next(&mut model)).collect()
    }

    /// A create without digest, outside any model.
    pub(crate) fn create_plain(&mut self, path: &str) -> Vec<u8> {
        let op = Op::Create {
            path: path.to_owned(),
            data: Some(b"data".to_vec()),
            acl: self.acl(),
            lifetime: Lifetime::Persistent,
            parent_cversion: -1,
        };
        self.zxid += 1;
        self.payload(&[op], 1, None)
    }

    /// A delete without digest, outside any model.
    pub(crate) fn delete(&mut self, path: &str) -> Vec<u8> {
        self.zxid += 1;
        self.payload(&[Op::Delete { path: path.to_owned() }], 1, None)
    }

    /// The next transaction, applied to the model already.
    pub(crate) fn next(&mut self, model: &mut Model) -> Vec<u8> {
        self.zxid += 1 + self.rng.below(3) as i64;
        let session = SESSIONS[self.rng.below(4) as usize];
        if self.rng.one_in(20) {
            // A write that failed takes a zxid and carries no digest.
            self.finish(model);
            return self.error();
        }
        if self.rng.one_in(25) {
            self.finish(model);
            return self.failed_multi();
        }
        let count = if self.rng.one_in(6) { self.rng.below(4) as usize } else { 1 };
        let mut ops = Vec::new();
        while ops.len() < count {
            let Some(op) = self.op(model, session, count == 1) else { continue };
            model.apply(&op, session, self.zxid, self.time());
            ops.push(op);
        }
        let digest = self.finish(model);
        self.payload(&ops, session, Some(digest))
    }

    fn finish(&self, model: &mut Model) -> u64 {
        model.zxid = self.zxid;
        let digest = model.digest();
        if self.zxid % 128 == 0 {
            model.digest_log.push((self.zxid as u64, digest));
        }
        digest
    }

    const fn time(&self) -> i64 {
        1_000_000 + self.zxid * 7
    }

    fn op(&mut self, model: &Model, session: i64, alone: bool) -> Option<Op> {
        match self.rng.below(if alone { 24 } else { 16 }) {
            0..6 => self.create(model, session),
            6..9 => self.quota_node(model),
            9..12 => self.delete_one(model),
            12..16 => self.set_data(model),
            16..18 => self.set_acl(model),
            18..21 => Some(Op::CreateSession { timeout_ms: 1000 + self.rng.below(9000) as i32 }),
            _ => {
                let mut paths = model.ephemerals(session);
                if self.always_list {
                    return Some(Op::CloseSession { paths: Some(paths) });
                }
                if self.rng.one_in(2) && !paths.is_empty() {
                    paths.truncate(self.rng.below(paths.len() as u64 + 1) as usize);
                }
                Some(Op::CloseSession { paths: self.rng.one_in(3).then_some(paths) })
            }
        }
    }

    fn existing(&mut self, model: &Model) -> String {
        let at = self.rng.below(model.nodes.len() as u64) as usize;
        model.nodes.keys().nth(at).unwrap().clone()
    }

    fn create(&mut self, model: &Model, session: i64) -> Option<Op> {
        let parent = self.existing(model);
        let owner = model.nodes[&parent].stat.ephemeral_owner;
        if owner > 0 || parent.starts_with("/zookeeper/") || parent.matches('/').count() > 4 {
            return None;
        }
        let name = NAMES[self.rng.below(5) as usize];
        let path = if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") };
        let lifetime = match self.rng.below(8) {
            0..3 => Lifetime::Persistent,
            3..6 => Lifetime::Ephemeral,
            6 => Lifetime::Container,
            _ => Lifetime::Ttl(1 + self.rng.below(1000) as i64),
        };
        let _ = session;
        self.create_at(model, path, lifetime)
    }

    fn create_at(&mut self, model: &Model, path: String, lifetime: Lifetime) -> Option<Op> {
        if model.nodes.contains_key(&path) {
            return None;
        }
        let parent = model.nodes.get(parent_of(&path))?;
        let parent_cversion = parent.stat.cversion + 1;
        Some(Op::Create { data: self.data(), acl: self.acl(), path, lifetime, parent_cversion })
    }

    /// A step towards a quota on an existing or a missing node.
    fn quota_node(&mut self, model: &Model) -> Option<Op> {
        let node = self.existing(model);
        if node == "/" || node.starts_with("/zookeeper") {
            return None;
        }
        let mut path = "/zookeeper/quota".to_owned();
        for name in node[1..].split('/') {
            path = format!("{path}/{name}");
            if !model.nodes.contains_key(&path) {
                return self.create_at(model, path, Lifetime::Persistent);
            }
        }
        let leaf = if self.rng.one_in(2) { "zookeeper_limits" } else { "zookeeper_stats" };
        self.create_at(model, format!("{path}/{leaf}"), Lifetime::Persistent)
    }

    fn delete_one(&mut self, model: &Model) -> Option<Op> {
        let path = self.existing(model);
        let special = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];
        if special.contains(&&*path) || model.children(&path).next().is_some() {
            return None;
        }
        Some(Op::Delete { path })
    }

    fn set_data(&mut self, model: &Model) -> Option<Op> {
        let path = self.existing(model);
        if path.ends_with("/zookeeper_stats") {
            return None;
        }
        let version = model.nodes[&path].stat.version + 1;
        Some(Op::SetData { path, data: self.data(), version })
    }

    fn set_acl(&mut self, model: &Model) -> Option<Op> {
        let path = self.existing(model);
        let version = model.nodes[&path].stat.aversion + 1;
        Some(Op::SetAcl { path, acl: self.acl(), version })
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let len = [0, 1, 4, 4, 4, 30][self.rng.below(6) as usize];
        let mut data = vec![0; len];
        self.rng.fill(&mut data);
        (!self.rng.one_in(6)).then_some(data)
    }

    fn acl(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let id = ["anyone", "x", "y"][self.rng.below(3) as usize];
        put_acl_vec(&mut out, [Acl { perms: 31, scheme: Some("world"), id: Some(id) }]);
        out
    }

    fn header(&self, session: i64, kind: i32) -> TxnHeader {
        TxnHeader { client_id: session, cxid: 1, zxid: self.zxid, time_ms: self.time(), kind }
    }

    fn error(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.header(1, kind::ERROR).put(&mut out);
        Txn::Error { err: -101 }.put(&mut out);
        out
    }

    fn failed_multi(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.header(1, kind::MULTI).put(&mut out);
        let mut multi = MultiWriter::begin(&mut out);
        multi.put(&mut out, kind::DELETE, &Txn::Delete { path: "/zookeeper" });
        multi.put(&mut out, kind::ERROR, &Txn::Error { err: -101 });
        out
    }

    fn payload(&self, ops: &[Op], session: i64, digest: Option<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        if let [op] = ops {
            let mut body = Vec::new();
            let kind = encode(op, |kind, txn| {
                txn.put(&mut body);
                kind
            });
            self.header(session, kind).put(&mut out);
            out.extend(body);
        } else {
            self.header(session, kind::MULTI).put(&mut out);
            let mut multi = MultiWriter::begin(&mut out);
            for op in ops {
                encode(op, |kind, txn| multi.put(&mut out, kind, txn));
            }
        }
        // Servers that wrote close sessions without a list wrote no digests either.
        let old = matches!(ops, [Op::CloseSession { paths: None }]);
        if let Some(digest) = digest.filter(|_| !old) {
            TxnDigest { version: TxnDigest::VERSION, digest }.put(&mut out);
        }
        out
    }
}

/// Shows the op as a transaction and its type.
fn encode<T>(op: &Op, show: impl FnOnce(i32, &Txn<'_>) -> T) -> T {
    let acl = |bytes| AclVec::read(&mut Reader::new(bytes)).unwrap();
    match op {
        Op::Create { path, data, acl: list, lifetime, parent_cversion } => {
            let txn = CreateTxn {
                path,
                data: data.as_deref(),
                acl: acl(list),
                lifetime: *lifetime,
                parent_cversion: *parent_cversion,
            };
            let kind = match lifetime {
                Lifetime::Persistent => kind::CREATE2,
                Lifetime::Ephemeral => kind::CREATE,
                Lifetime::Container => kind::CREATE_CONTAINER,
                Lifetime::Ttl(_) => kind::CREATE_TTL,
            };
            show(kind, &Txn::Create(txn))
        }
        Op::Delete { path } => show(kind::DELETE, &Txn::Delete { path }),
        Op::SetData { path, data, version } => {
            show(kind::SET_DATA, &Txn::SetData { path, data: data.as_deref(), version: *version })
        }
        Op::SetAcl { path, acl: list, version } => {
            show(kind::SET_ACL, &Txn::SetAcl { path, acl: acl(list), version: *version })
        }
        Op::CreateSession { timeout_ms } => {
            show(kind::CREATE_SESSION, &Txn::CreateSession { timeout_ms: *timeout_ms })
        }
        Op::CloseSession { paths: None } => show(kind::CLOSE_SESSION, &Txn::CloseSession { paths: None }),
        Op::CloseSession { paths: Some(paths) } => {
            let mut bytes = Vec::new();
            bytes.put_int(paths.len() as i32);
            for path in paths {
                bytes.put_ustring(path);
            }
            let paths = StrVec::read(&mut Reader::new(&bytes)).unwrap();
            show(kind::CLOSE_SESSION, &Txn::CloseSession { paths: Some(paths) })
        }
    }
}
