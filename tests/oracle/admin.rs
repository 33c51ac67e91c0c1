//! The super user beside a script: reads the whole tree, brings the server to a zxid whose digest it remembers, and
//! cleans up.

use std::net::SocketAddr;

use crate::common::client::{
    Conn, ConnectRequest, Reply, Session, create_body, framed, op, read_body, request,
};
use crate::common::jute::{Acl, Reader, Short, Stat, Writer};
use crate::common::server::try_word;

/// ZooKeeper remembers the digest of every zxid that this divides.
const DIGEST_INTERVAL: i64 = 128;

/// Nodes that a server makes by itself and nobody can delete.
const RESERVED: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// One node as the super user reads it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) acls: Vec<Acl>,
    pub(crate) stat: Stat,
}

/// A connection that passes every ACL.
#[derive(Debug)]
pub(crate) struct Admin {
    conn: Conn,
    session: Session,
    address: SocketAddr,
}

impl Admin {
    pub(crate) fn connect(address: SocketAddr) -> Result<Admin, String> {
        Admin::open(address, Session::none())
    }

    /// Back to the same session, after a restart of the server.
    pub(crate) fn come_back(&mut self) -> Result<(), String> {
        *self = Admin::open(self.address, self.session.clone())?;
        Ok(())
    }

    fn open(address: SocketAddr, session: Session) -> Result<Admin, String> {
        let request = ConnectRequest { session, ..ConnectRequest::new(40_000) };
        let (mut conn, connected) = Conn::connect(address, &request)?;
        let session = connected.session;
        let auth = Writer::new().int(0).string("digest").buffer(Some(b"super:secret")).done();
        let reply = conn.call(op::AUTH, &auth)?;
        if reply.err != 0 {
            return Err(format!("super user: error {}", reply.err));
        }
        Ok(Admin { conn, session, address })
    }

    /// The zxid the server has come to.
    pub(crate) fn last_zxid(&mut self) -> Result<i64, String> {
        Ok(self.conn.call(op::PING, &[])?.zxid)
    }

    /// Writes until the server has just recorded a digest, and returns its zxid.
    pub(crate) fn reach_digest(&mut self) -> Result<i64, String> {
        let marker = "/digest-marker";
        let zxid = self.conn.call(op::CREATE, &create_body(marker, None, &Acl::open(), 0))?.zxid;
        let missing = (DIGEST_INTERVAL - zxid % DIGEST_INTERVAL) % DIGEST_INTERVAL;
        let body = Writer::new().string(marker).buffer(None).int(-1).done();
        let xids: Vec<i32> = (0..missing).map(|_| self.conn.take_xid()).collect();
        let bytes: Vec<u8> = xids.iter().flat_map(|x| framed(&request(*x, op::SET_DATA, &body))).collect();
        self.conn.send_raw(&bytes).map_err(|e| e.to_string())?;
        let reached = self.last_zxid_after(missing)?;
        if reached % DIGEST_INTERVAL == 0 { Ok(reached) } else { Err(format!("came to {reached:#x}")) }
    }

    /// The zxid of a ping behind `count` replies that nobody reads.
    fn last_zxid_after(&mut self, count: i64) -> Result<i64, String> {
        use crate::common::client::{REPLY_LIMIT, Received};
        for _ in 0..count {
            match self.conn.receive(REPLY_LIMIT) {
                Received::Frame(_) => {}
                other => return Err(format!("{other:?} while writing to reach a digest")),
            }
        }
        self.last_zxid()
    }

    /// What the four-letter word `hash` says of `zxid`.
    pub(crate) fn digest_at(&self, zxid: i64) -> Result<i64, String> {
        let text = try_word(self.address, b"hash").map_err(|e| format!("hash: {e}"))?;
        let wanted = format!("{zxid:x}: ");
        let line = text.lines().find_map(|line| line.strip_prefix(&wanted));
        let line = line.ok_or_else(|| format!("hash does not know {zxid:#x}:\n{text}"))?;
        line.parse().map_err(|e| format!("hash: {line}: {e}"))
    }

    /// Every node, parents before children, children by name.
    pub(crate) fn read_tree(&mut self) -> Result<Vec<Node>, String> {
        let (mut tree, mut todo) = (Vec::new(), vec![String::from("/")]);
        while let Some(path) = todo.pop() {
            let get = self.get(op::GET_DATA, &read_body(&path, false))?;
            let acl = self.get(op::GET_ACL, &Writer::new().string(&path).done())?;
            let list = self.get(op::GET_CHILDREN, &read_body(&path, false))?;
            let (node, mut names) =
                Admin::parse(&path, &get, &acl, &list).map_err(|_| format!("{path}: short"))?;
            names.sort_by(|a, b| b.cmp(a));
            let prefix = if path == "/" { "" } else { &path };
            todo.extend(names.iter().map(|name| format!("{prefix}/{name}")));
            tree.push(node);
        }
        Ok(tree)
    }

    fn get(&mut self, code: i32, body: &[u8]) -> Result<Reply, String> {
        let reply = self.conn.call(code, body)?;
        if reply.err == 0 {
            Ok(reply)
        } else {
            Err(format!("super user, operation {code}: error {}", reply.err))
        }
    }

    fn parse(path: &str, get: &Reply, acl: &Reply, list: &Reply) -> Result<(Node, Vec<String>), Short> {
        let mut reader = Reader::new(&get.body);
        let (data, stat) = (reader.buffer()?.map(<[u8]>::to_vec), reader.stat()?);
        let acls = Reader::new(&acl.body).acls()?;
        let names = Reader::new(&list.body).strings()?;
        Ok((Node { path: path.into(), data, acls, stat }, names))
    }

    /// Deletes what is not reserved, children first, opens the root again, and ends the session.
    pub(crate) fn clean(&mut self, tree: &[Node]) -> Result<(), String> {
        for node in tree.iter().rev().filter(|n| !RESERVED.contains(&n.path.as_str())) {
            self.get(op::DELETE, &Writer::new().string(&node.path).int(-1).done())?;
        }
        for path in &RESERVED[..3] {
            self.get(op::SET_ACL, &Writer::new().string(path).acls(&Acl::open()).int(-1).done())?;
        }
        self.get(op::CLOSE_SESSION, &[]).map(drop)
    }
}
