//! Plays a script to one server and writes down what came back.
//!
//! 1. After every step each connection is pinged: what a step caused on other connections belongs to that step.
//! 2. The same script makes the same decisions at both servers as long as their answers agree.
//! 3. At the end every session is closed, the whole tree is read by the super user, its digest is computed from what
//!    was read and compared with what the server says, and everything the script made is deleted.

use std::time::{Duration, Instant};

use crate::admin::Admin;
use crate::common::client::{
    Conn, ConnectRequest, Connected, REPLY_LIMIT, Received, Reply, Session, op, xid,
};
use crate::common::server::{Server, try_word};
use crate::owners::Owners;
use crate::script::{Request, Return, SLOTS, Step};
use crate::view::View;

/// Timeout of a session that is to expire: long enough for the few requests before.
const SHORT_TIMEOUT_MS: i32 = 1500;

/// How long a session may outlive its timeout.
const EXPIRY_LIMIT: Duration = Duration::from_secs(15);

/// How far ahead a client from the future claims to be, in zxids.
const FUTURE: i64 = 1 << 30;

/// What one step brought, line by line.
pub(crate) type Lines = Vec<String>;

#[derive(Debug, Default)]
struct Slot {
    conn: Option<Conn>,
    session: Option<Session>,
    last_zxid: i64,
}

/// One server's side of a script.
#[derive(Debug)]
struct Player<'a> {
    server: &'a mut Server,
    admin: Admin,
    view: View,
    slots: Vec<Slot>,
    /// Owners of container and TTL nodes, which no reply shows but the digest covers.
    owners: Owners,
}

/// Plays the whole script; the last entry is the state of the tree at the end.
pub(crate) fn play(server: &mut Server, script: &[Step]) -> Result<Vec<Lines>, String> {
    let mut admin = Admin::connect(server.address())?;
    let base = admin.last_zxid()?;
    let mut player = Player {
        server,
        admin,
        view: View::from(base),
        slots: (0..SLOTS).map(|_| Slot::default()).collect(),
        owners: Owners::default(),
    };
    let mut transcript = Vec::new();
    for (index, step) in script.iter().enumerate() {
        transcript.push(player.step(step)?);
        if index % 200 == 199 {
            player.admin.last_zxid()?;
        }
    }
    transcript.push(player.finish()?);
    Ok(transcript)
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<Lines, String> {
        let mut lines = Lines::new();
        match step {
            Step::Connect { slot, timeout_ms, read_only } => {
                self.close(*slot, &mut lines)?;
                self.connect(*slot, *timeout_ms, *read_only, &mut lines)?;
            }
            Step::Reconnect { slot, how } => self.reconnect(*slot, *how, &mut lines)?,
            Step::Drop { slot } => self.hang_up(*slot)?,
            Step::Close { slot } => self.close(*slot, &mut lines)?,
            Step::Send { slot, requests, together: true } => self.send(*slot, requests, &mut lines)?,
            Step::Send { slot, requests, together: false } => {
                for request in requests {
                    self.send(*slot, std::slice::from_ref(request), &mut lines)?;
                }
            }
            Step::Fatal { slot, request } => {
                self.send(*slot, std::slice::from_ref(request), &mut lines)?;
                if let Some(mut conn) = self.slots[*slot].conn.take() {
                    lines.push(format!("c{slot} then {:?}", conn.receive(REPLY_LIMIT)));
                }
            }
            Step::Raw { slot, bytes } => self.raw(*slot, bytes, &mut lines)?,
            Step::Expire { slot, requests } => self.expire(*slot, requests, &mut lines)?,
            Step::Restart { kill } => self.restart(*kill)?,
        }
        let start = lines.len();
        (0..SLOTS).for_each(|slot| self.settle(slot, &mut lines));
        if matches!(step, Step::Connect { .. } | Step::Close { .. } | Step::Expire { .. }) {
            // One session's ephemerals go in no particular order.
            lines[start..].sort();
        }
        Ok(lines)
    }

    fn connect(
        &mut self,
        slot: usize,
        timeout_ms: i32,
        read_only: Option<bool>,
        lines: &mut Lines,
    ) -> Result<(), String> {
        let request = ConnectRequest { timeout_ms, read_only, ..ConnectRequest::new(0) };
        let (conn, answer) = self.handshake(&request)?;
        self.adopt(slot, conn, answer, lines);
        Ok(())
    }

    /// Ends the slot's connection and waits until the server knows. A ZooKeeper that hears of it only after the client has
    /// come back loses track of the new connection, and does not close that when it should.
    fn hang_up(&mut self, slot: usize) -> Result<(), String> {
        let Some(conn) = self.slots[slot].conn.take() else { return Ok(()) };
        let place = format!("/{}[", conn.local_address().map_err(|e| e.to_string())?);
        drop(conn);
        let deadline = Instant::now() + REPLY_LIMIT;
        while try_word(self.server.address(), b"cons").map_err(|e| format!("cons: {e}"))?.contains(&place) {
            if Instant::now() > deadline {
                return Err(format!("the connection of {place} never ends"));
            }
        }
        Ok(())
    }

    /// A new session makes some nodes and falls silent. The step is over when the server has ended it, which takes one
    /// transaction; the session is then gone for good.
    fn expire(&mut self, slot: usize, requests: &[Request], lines: &mut Lines) -> Result<(), String> {
        self.close(slot, lines)?;
        self.connect(slot, SHORT_TIMEOUT_MS, Some(false), lines)?;
        self.send(slot, requests, lines)?;
        self.hang_up(slot)?;
        let before = self.admin.last_zxid()?;
        let deadline = Instant::now() + EXPIRY_LIMIT;
        while self.admin.last_zxid()? == before {
            if Instant::now() > deadline {
                lines.push(format!("c{slot} does not expire"));
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        lines.push(format!("expired at {}", self.view.zxid(self.admin.last_zxid()?)));
        self.reconnect(slot, Return::Normal, lines)?;
        self.slots[slot] = Slot::default();
        Ok(())
    }

    /// Every connection is lost with the server, no session is.
    fn restart(&mut self, kill: bool) -> Result<(), String> {
        self.slots.iter_mut().for_each(|slot| slot.conn = None);
        if kill {
            self.server.kill();
        } else {
            self.server.stop();
        }
        self.server.start_again();
        self.admin.come_back()
    }

    fn handshake(&self, request: &ConnectRequest) -> Result<(Conn, Option<Connected>), String> {
        let mut conn = Conn::open(self.server.address()).map_err(|e| format!("connect: {e}"))?;
        let answer = conn.handshake(request)?;
        Ok((conn, answer))
    }

    fn adopt(&mut self, slot: usize, conn: Conn, answer: Option<Connected>, lines: &mut Lines) {
        let Some(connected) = answer else {
            lines.push(format!("c{slot} closed without an answer"));
            return;
        };
        lines.push(format!("c{slot} {}", self.view.connected(&connected)));
        self.slots[slot].conn = Some(conn);
        if connected.session.id != 0 {
            self.slots[slot].session = Some(connected.session);
        }
    }

    fn reconnect(&mut self, slot: usize, how: Return, lines: &mut Lines) -> Result<(), String> {
        let Some(mut session) = self.slots[slot].session.clone() else {
            return self.connect(slot, 30_000, Some(false), lines);
        };
        let mut last_zxid_seen = self.slots[slot].last_zxid;
        if how != Return::Steal {
            self.hang_up(slot)?;
        }
        let old = self.slots[slot].conn.take();
        match how {
            Return::WrongPassword => session.password[3] ^= 0x40,
            Return::FromTheFuture => last_zxid_seen += FUTURE,
            Return::Normal | Return::Steal => {}
        }
        let request = ConnectRequest { last_zxid_seen, session, ..ConnectRequest::new(40_000) };
        let (conn, answer) = self.handshake(&request)?;
        self.adopt(slot, conn, answer, lines);
        if let Some(mut old) = old {
            lines.push(format!("c{slot} old connection: {:?}", old.receive(REPLY_LIMIT)));
        }
        Ok(())
    }

    /// Ends the slot's session, over a new connection if it has none.
    fn close(&mut self, slot: usize, lines: &mut Lines) -> Result<(), String> {
        if self.slots[slot].session.is_none() {
            return Ok(());
        }
        if self.slots[slot].conn.is_none() {
            self.reconnect(slot, Return::Normal, lines)?;
        }
        let start = lines.len();
        let request = Request {
            xid: None,
            op: op::CLOSE_SESSION,
            body: vec![],
            zxids_back: None,
            label: "closeSession".into(),
        };
        self.send(slot, &[request], lines)?;
        lines[start..].sort();
        if let Some(mut conn) = self.slots[slot].conn.take() {
            lines.push(format!("c{slot} then {:?}", conn.receive(REPLY_LIMIT)));
        }
        self.slots[slot] = Slot::default();
        Ok(())
    }

    fn send(&mut self, slot: usize, requests: &[Request], lines: &mut Lines) -> Result<(), String> {
        if self.slots[slot].conn.is_none() {
            self.reconnect(slot, Return::Normal, lines)?;
        }
        let last_zxid = self.slots[slot].last_zxid;
        let Some(conn) = &mut self.slots[slot].conn else { return Ok(()) };
        let (mut bytes, mut sent) = (Vec::new(), Vec::new());
        for request in requests {
            let mut body = request.body.clone();
            if let (Some(back), Some(place)) = (request.zxids_back, body.get_mut(..8)) {
                place.copy_from_slice(&(last_zxid - back).to_be_bytes());
            }
            let xid = request.xid.unwrap_or_else(|| conn.take_xid());
            bytes.extend(crate::common::client::framed(&crate::common::client::request(
                xid, request.op, &body,
            )));
            sent.push((request.op, body));
        }
        if conn.send_raw(&bytes).is_err() {
            lines.push(format!("c{slot} closed on send"));
            self.slots[slot].conn = None;
            return Ok(());
        }
        for (code, body) in &sent {
            self.await_reply(slot, *code, body, lines);
        }
        Ok(())
    }

    fn raw(&mut self, slot: usize, bytes: &[u8], lines: &mut Lines) -> Result<(), String> {
        if self.slots[slot].conn.is_none() {
            self.reconnect(slot, Return::Normal, lines)?;
        }
        if let Some(mut conn) = self.slots[slot].conn.take() {
            let _ = conn.send_raw(bytes);
            lines.push(format!("c{slot} after raw bytes: {:?}", conn.receive(REPLY_LIMIT)));
        }
        Ok(())
    }

    /// Reads up to and with the next reply; events on the way are written down.
    fn await_reply(&mut self, slot: usize, code: i32, body: &[u8], lines: &mut Lines) {
        while let Some(reply) = self.receive(slot, REPLY_LIMIT, lines) {
            if reply.zxid > 0 {
                self.slots[slot].last_zxid = reply.zxid;
            }
            let text = self.view.reply(code, &reply);
            lines.push(format!("c{slot} {text}"));
            if reply.xid != xid::EVENT {
                self.owners.note(code, body, &reply);
                return;
            }
        }
    }

    /// The next frame; a closed or silent connection is written down and forgotten.
    fn receive(&mut self, slot: usize, limit: Duration, lines: &mut Lines) -> Option<Reply> {
        let received = self.slots[slot].conn.as_mut()?.receive(limit);
        if let Received::Frame(frame) = &received
            && let Ok(reply) = Reply::parse(frame)
        {
            return Some(reply);
        }
        lines.push(format!("c{slot} {received:?}"));
        self.slots[slot].conn = None;
        None
    }

    /// A ping and everything that comes before its reply.
    fn settle(&mut self, slot: usize, lines: &mut Lines) {
        let Some(conn) = &mut self.slots[slot].conn else { return };
        if conn.send(xid::PING, op::PING, &[]).is_err() {
            lines.push(format!("c{slot} Closed"));
            self.slots[slot].conn = None;
            return;
        }
        self.await_reply(slot, op::PING, &[], lines);
    }

    fn finish(&mut self) -> Result<Lines, String> {
        let mut lines = Lines::new();
        for slot in 0..SLOTS {
            let mut closing = Lines::new();
            self.close(slot, &mut closing)?;
            (0..SLOTS).for_each(|other| self.settle(other, &mut closing));
            closing.sort();
            lines.extend(closing);
        }
        let zxid = self.admin.reach_digest()?;
        let tree = self.admin.read_tree()?;
        for node in &tree {
            lines.push(format!(
                "{:?} data={} acl={} {}",
                node.path,
                crate::view::data(node.data.as_deref()),
                crate::view::acls(node.acls.clone()),
                self.view.stat(&node.stat)
            ));
        }
        let computed = self.owners.digest(&tree);
        let said = self.admin.digest_at(zxid)?;
        lines.push(match said == computed {
            true => "the digest is that of the tree".into(),
            false => format!("the digest is {said}, that of the tree {computed}"),
        });
        self.admin.clean(&tree)?;
        Ok(lines)
    }
}
