//! The few operations that tests of the server as a process need, in one line each.

use std::net::SocketAddr;

use super::client::{Conn, ConnectRequest, Session, create_body, op, read_body};
use super::jute::{Acl, Reader, Writer};

/// ZooKeeper's error codes that these tests meet.
pub(crate) mod err {
    pub(crate) const OK: i32 = 0;
    pub(crate) const SYSTEM: i32 = -1;
    pub(crate) const UNIMPLEMENTED: i32 = -6;
    pub(crate) const NO_NODE: i32 = -101;
    pub(crate) const BAD_VERSION: i32 = -103;
    pub(crate) const NODE_EXISTS: i32 = -110;
}

/// Flag of create: goes with the session.
pub(crate) const EPHEMERAL: i32 = 1;

/// Flag of create: gets a number.
pub(crate) const SEQUENTIAL: i32 = 2;

/// A connection with a new session.
pub(crate) fn connect(address: SocketAddr, timeout_ms: i32) -> (Conn, Session) {
    let (conn, connected) =
        Conn::connect(address, &ConnectRequest::new(timeout_ms)).unwrap_or_else(|e| panic!("connect: {e}"));
    (conn, connected.session)
}

/// The body of setData.
pub(crate) fn set_body(path: &str, data: &[u8], version: i32) -> Vec<u8> {
    Writer::new().string(path).buffer(Some(data)).int(version).done()
}

impl Conn {
    /// Creates a node; the error code.
    pub(crate) fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Result<i32, String> {
        Ok(self.call(op::CREATE, &create_body(path, Some(data), &Acl::open(), flags))?.err)
    }

    /// Sets a node's content; the error code.
    pub(crate) fn set(&mut self, path: &str, data: &[u8], version: i32) -> Result<i32, String> {
        Ok(self.call(op::SET_DATA, &set_body(path, data, version))?.err)
    }

    /// A node's content; `None` when there is no such node.
    pub(crate) fn get(&mut self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let reply = self.call(op::GET_DATA, &read_body(path, false))?;
        match reply.err {
            err::OK => {
                let data = Reader::new(&reply.body).buffer().map_err(|_| "short reply")?;
                Ok(Some(data.unwrap_or_default().to_vec()))
            }
            err::NO_NODE => Ok(None),
            other => Err(format!("getData {path}: error {other}")),
        }
    }

    /// Names of a node's children.
    pub(crate) fn children(&mut self, path: &str) -> Result<Vec<String>, String> {
        let reply = self.call(op::GET_CHILDREN, &read_body(path, false))?;
        if reply.err != err::OK {
            return Err(format!("getChildren {path}: error {}", reply.err));
        }
        Reader::new(&reply.body).strings().map_err(|_| "short reply".into())
    }
}
