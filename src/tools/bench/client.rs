//! A small blocking client: what builds the tree before a run and removes it afterwards.
//!
//! Requests go out in batches of at most [`BATCH_BYTES`], whose replies are read before the next batch is sent: neither side
//! can wait for the other with full buffers, and a million deletes still take seconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::frames::{REPLY_BYTES_MAX, ReplyHead};
use super::session::put_connect_request;
use crate::wire::jute::Reader;
use crate::wire::{ErrorCode, OpCode};
use crate::wire::{jute::PutJute, reply};

/// Bytes of one batch, about: below the smallest default socket buffers.
const BATCH_BYTES: usize = 64 << 10;
/// Requests of one batch: their replies fit the smallest default socket buffers.
const BATCH_REQUESTS: usize = 500;
/// Bytes asked of the socket at once while a reply comes in; memory follows what came (F2).
const READ_BYTES: usize = 64 << 10;

/// A session on one server.
pub(in crate::tools) struct Client {
    socket: TcpStream,
    xid: i32,
    batch: Vec<u8>,
    pending: Vec<i32>,
}

impl Client {
    /// A session on the first of `hosts` that gives one.
    pub(in crate::tools) fn connect(hosts: &[SocketAddr], timeout: Duration) -> anyhow::Result<Client> {
        let mut last = None;
        for host in hosts {
            match Client::connect_to(host, timeout) {
                Ok(client) => return Ok(client),
                Err(e) => last = Some(e.context(format!("cannot get a session from {host}"))),
            }
        }
        Err(last.expect("a plan has at least one host"))
    }

    fn connect_to(host: &SocketAddr, timeout: Duration) -> anyhow::Result<Client> {
        let socket = TcpStream::connect_timeout(host, timeout)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        let mut client = Client { socket, xid: 0, batch: Vec::new(), pending: Vec::new() };
        let mut hello = Vec::new();
        put_connect_request(&mut hello, 0, &[0; 16]);
        client.socket.write_all(&hello)?;
        let frame = client.read_frame().context("no answer to the connect request")?;
        let mut r = Reader::new(&frame);
        r.int()?;
        ensure!(r.int()? > 0, "the server refused the session");
        Ok(client)
    }

    /// One request and its reply: error code and body.
    pub(in crate::tools) fn call(
        &mut self,
        op: OpCode,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> anyhow::Result<(i32, Vec<u8>)> {
        assert!(self.pending.is_empty(), "a call stands between batches");
        let xid = self.push(op, body);
        self.write_batch()?;
        self.pending.clear();
        let (head, mut frame) = self.read_reply()?;
        ensure!(head.xid == xid, "reply to xid {} where {xid} was expected", head.xid);
        Ok((head.err, frame.split_off(ReplyHead::BYTES)))
    }

    /// Adds a request to the batch; its error code goes to `on_code` when the batch is sent, now or by [`Client::flush`].
    pub(super) fn add(
        &mut self,
        op: OpCode,
        body: impl FnOnce(&mut Vec<u8>),
        on_code: &mut impl FnMut(i32) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.push(op, body);
        if self.batch.len() >= BATCH_BYTES || self.pending.len() >= BATCH_REQUESTS {
            self.flush(on_code)?;
        }
        Ok(())
    }

    /// Sends the batch and hands the error code of each reply to `on_code`.
    pub(super) fn flush(
        &mut self,
        on_code: &mut impl FnMut(i32) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.write_batch()?;
        for xid in std::mem::take(&mut self.pending) {
            let (head, _) = self.read_reply()?;
            ensure!(head.xid == xid, "reply to xid {} where {xid} was expected", head.xid);
            on_code(head.err)?;
        }
        Ok(())
    }

    /// Ends the session. The run does not depend on it: a session left open expires.
    pub(super) fn close(mut self) {
        let _ = self.call(OpCode::CloseSession, |_| ());
    }

    fn push(&mut self, op: OpCode, body: impl FnOnce(&mut Vec<u8>)) -> i32 {
        self.xid += 1;
        let mark = reply::begin(&mut self.batch);
        self.batch.put_int(self.xid);
        self.batch.put_int(op.to_i32());
        body(&mut self.batch);
        reply::end(&mut self.batch, mark);
        self.pending.push(self.xid);
        self.xid
    }

    fn write_batch(&mut self) -> anyhow::Result<()> {
        self.socket.write_all(&self.batch).context("the connection broke while writing")?;
        self.batch.clear();
        Ok(())
    }

    fn read_reply(&mut self) -> anyhow::Result<(ReplyHead, Vec<u8>)> {
        loop {
            let frame = self.read_frame().context("the connection broke while waiting for a reply")?;
            let head = ReplyHead::read(&frame).context("a reply without a head")?;
            if head.xid != reply::XID_NOTIFICATION {
                return Ok((head, frame));
            }
        }
    }

    fn read_frame(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut len = [0; 4];
        self.socket.read_exact(&mut len)?;
        let len = i32::from_be_bytes(len);
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= REPLY_BYTES_MAX) else {
            bail!("a frame of {len} bytes: is this a ZooKeeper server?");
        };
        let mut frame = Vec::new();
        while frame.len() < len {
            let from = frame.len();
            frame.resize((from + READ_BYTES).min(len), 0);
            self.socket.read_exact(&mut frame[from..])?;
        }
        Ok(frame)
    }
}

/// An error code as a sentence's end.
pub(in crate::tools) fn code_name(code: i32) -> String {
    ErrorCode::from_i32(code).map_or_else(|| format!("error {code}"), |known| format!("{known:?} ({code})"))
}
