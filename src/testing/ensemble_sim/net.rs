//! The network: connections whose bytes come in order, in random pieces, after random delays; directed links that can be cut; connections of
//! the election, whose two sides need not agree on whether they stand.
//!
//! - NT1: a connection loses nothing but its end: a prefix arrives, then a close.
//! - NT2: what is sent over a cut link waits; it arrives when the link is healed, or the connection is given up.
//! - NT3: one side may learn of a close long after the other, or of a dead peer only when it is back.

use std::collections::{BTreeMap, VecDeque};

use super::{Event, Violation, World};
use crate::base::ServerId;
use crate::election::Notice;
use crate::zab::LinkId;

pub(super) type ConnKey = u64;

/// Bytes under way on one stream before its sender waits.
const WINDOW_BYTES: usize = 64 << 10;
/// How often what waits at a cut link looks again, ms.
const CUT_POLL_MS: u64 = 40;
/// Looks after which a cut election connection is given up.
const CUT_POLLS_MAX: u32 = 25;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) node: usize,
    pub(super) inc: u64,
    pub(super) link: LinkId,
    open: bool,
}

#[derive(Debug, Default)]
struct Stream {
    /// With the time when it arrives; `None` is the close.
    pieces: VecDeque<(u64, Option<Vec<u8>>)>,
    bytes: usize,
    /// When the last piece arrives.
    last: u64,
}

/// A connection on the quorum port: end 0 has dialled, end 1 accepts.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) ends: [End; 2],
    streams: [Stream; 2],
    accepted: bool,
    /// A script has broken it: its ends learn of that whatever is cut.
    torn: bool,
}

/// One direction of an election connection.
#[derive(Debug, Default)]
struct Mail {
    /// The sender's view: which connection stands.
    up: Option<u64>,
    /// Said to the member: it is gone.
    down_told: bool,
    under_way: VecDeque<(u64, Notice)>,
    /// The newest, waiting for a connection.
    slot: Option<Notice>,
    polls: u32,
    last: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Net {
    conns: BTreeMap<ConnKey, Conn>,
    next: ConnKey,
    mail: Vec<Vec<Mail>>,
    cut: Vec<Vec<bool>>,
    generation: u64,
}

impl Net {
    pub(super) fn new(members: usize) -> Net {
        let row = || (0..members).map(|_| Mail::default()).collect();
        Net {
            conns: BTreeMap::new(),
            next: 0,
            mail: (0..members).map(|_| row()).collect(),
            cut: vec![vec![false; members]; members],
            generation: 0,
        }
    }

    pub(super) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from][to] = cut;
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from][to]
    }

    pub(super) fn heal(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
    }

    pub(super) fn end_node(&self, key: ConnKey, side: usize) -> Option<usize> {
        self.conns.get(&key).map(|conn| conn.ends[side].node)
    }

    /// Connections that stand, as far as one of their ends knows.
    pub(super) fn standing(&self) -> Vec<ConnKey> {
        self.conns
            .iter()
            .filter(|(_, c)| c.accepted && c.ends.iter().all(|e| e.open))
            .map(|(k, _)| *k)
            .collect()
    }

    fn is_blocked(&self, key: ConnKey, side: usize) -> bool {
        let Some(conn) = self.conns.get(&key) else { return false };
        self.cut[conn.ends[side].node][conn.ends[1 - side].node] && !conn.torn
    }
}

impl World {
    fn delay(&mut self) -> u64 {
        let spike = if self.is_wild() && self.rng.one_in(300) { self.rng.below(400) } else { 0 };
        1 + self.rng.below(self.setup.delay_ms) + spike
    }

    // --- The quorum port ---

    /// A node connects.
    pub(super) fn dial(&mut self, node: usize, inc: u64, link: LinkId, to: usize) -> ConnKey {
        self.net.next += 1;
        let key = self.net.next;
        let end = |node, inc, link| End { node, inc, link, open: true };
        let conn = Conn {
            ends: [end(node, inc, link), end(to, 0, LinkId(0))],
            streams: [Stream::default(), Stream::default()],
            accepted: false,
            torn: false,
        };
        self.net.conns.insert(key, conn);
        let delay = self.delay();
        self.at(delay, Event::Dial(key));
        key
    }

    pub(super) fn dial_arrives(&mut self, key: ConnKey) -> Result<(), Violation> {
        let Some(conn) = self.net.conns.get(&key) else { return Ok(()) };
        let (from, to) = (conn.ends[0].node, conn.ends[1].node);
        let unreachable = self.net.is_cut(from, to) || self.nodes[to].is_off();
        let accepted = !unreachable && self.nodes[to].is_running() && !self.is_deaf(to);
        if accepted {
            self.accept(to, key)?;
        }
        let delay = if unreachable { 500 + self.rng.below(2_000) } else { self.delay() };
        self.at(delay, Event::Answer(key, accepted));
        Ok(())
    }

    /// The accepting end is known now.
    pub(super) fn set_acceptor(&mut self, key: ConnKey, inc: u64, link: LinkId) {
        let conn = self.net.conns.get_mut(&key).expect("being dialled");
        conn.ends[1] = End { inc, link, ..conn.ends[1] };
        conn.accepted = true;
    }

    pub(super) fn answer_arrives(&mut self, key: ConnKey, accepted: bool) -> Result<(), Violation> {
        if accepted && self.net.is_blocked(key, 1) {
            self.at(CUT_POLL_MS, Event::Answer(key, accepted));
            return Ok(());
        }
        let Some(conn) = self.net.conns.get(&key) else { return Ok(()) };
        let end = conn.ends[0];
        if !accepted {
            self.net.conns.remove(&key);
            return self.link_closed(end.node, end.inc, end.link);
        }
        self.link_connected(end.node, end.inc, end.link)
    }

    /// Whether more bytes may be put on the way from this end.
    pub(super) fn has_room(&self, key: ConnKey, side: usize) -> bool {
        self.net.conns.get(&key).is_some_and(|conn| conn.streams[side].bytes < WINDOW_BYTES)
    }

    /// Puts bytes on the way.
    pub(super) fn send(&mut self, key: ConnKey, side: usize, bytes: Vec<u8>) {
        let count = bytes.len();
        self.put_piece(key, side, Some(bytes));
        if let Some(conn) = self.net.conns.get_mut(&key) {
            conn.streams[side].bytes += count;
        }
    }

    fn put_piece(&mut self, key: ConnKey, side: usize, piece: Option<Vec<u8>>) {
        let (delay, slowness) = (self.delay(), self.slowness(key, side));
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&key) else { return };
        let stream = &mut conn.streams[side];
        stream.last = stream.last.max(now + delay) + slowness;
        stream.pieces.push_back((stream.last, piece));
        let delay = stream.last - now;
        self.at(delay, Event::Stream(key, side));
    }

    /// This end is closed, and the other will learn of it: at once, or a good while later.
    pub(super) fn close_end(&mut self, key: ConnKey, side: usize, later: u64) {
        let loses = self.rng.one_in(3) && self.directed.is_none();
        let kept = self.rng.next_u64();
        let Some(conn) = self.net.conns.get_mut(&key) else { return };
        conn.ends[side].open = false;
        if conn.ends.iter().all(|end| !end.open) && conn.accepted {
            self.net.conns.remove(&key);
            return;
        }
        let stream = &mut conn.streams[side];
        if loses {
            // A reset: what was under way is lost from somewhere on; the events for it find nothing.
            let keep = (kept % (stream.pieces.len() as u64 + 1)) as usize;
            stream.pieces.truncate(keep);
        }
        stream.last += later;
        stream.last = stream.last.max(self.now + later);
        self.put_piece(key, side, None);
    }

    /// The connection breaks in the middle; both ends learn of it, each in its time.
    pub(super) fn reset(&mut self, key: ConnKey) {
        let mut keep = [self.rng.next_u64(), self.rng.next_u64()];
        let mut later = [self.rng.below(50), if self.rng.one_in(3) { self.rng.below(3_000) } else { 0 }];
        if self.directed.is_some() {
            // All that is under way is lost, and both ends know.
            (keep, later) = ([0; 2], [0; 2]);
        }
        for side in 0..2 {
            let Some(conn) = self.net.conns.get_mut(&key) else { return };
            conn.torn = self.directed.is_some();
            let stream = &mut conn.streams[side];
            stream.pieces.truncate((keep[side] % (stream.pieces.len() as u64 + 1)) as usize);
            stream.last = stream.last.max(self.now + later[side]);
            self.put_piece(key, side, None);
        }
    }

    pub(super) fn stream_arrives(&mut self, key: ConnKey, side: usize) -> Result<(), Violation> {
        if self.net.is_blocked(key, side) {
            self.at(CUT_POLL_MS, Event::Stream(key, side));
            return Ok(());
        }
        let Some(conn) = self.net.conns.get_mut(&key) else { return Ok(()) };
        // Those of pieces that a reset has taken away find nothing, or what comes later.
        let Some((_, piece)) = conn.streams[side].pieces.pop_front_if(|(at, _)| *at <= self.now) else {
            return Ok(());
        };
        let (from, to) = (conn.ends[side], conn.ends[1 - side]);
        match piece {
            Some(bytes) => {
                conn.streams[side].bytes = conn.streams[side].bytes.saturating_sub(bytes.len());
                if to.open {
                    self.bytes_arrive(to.node, to.inc, to.link, &bytes)?;
                }
                if from.open {
                    self.pump_later(from.node, from.inc);
                }
                Ok(())
            }
            None => {
                let was_open = std::mem::replace(&mut conn.ends[1 - side].open, false);
                if !conn.ends[side].open {
                    self.net.conns.remove(&key);
                }
                if was_open { self.link_closed(to.node, to.inc, to.link) } else { Ok(()) }
            }
        }
    }

    /// All connections of a process that is no more. With the power cut nobody says so for a while.
    pub(super) fn connections_end(&mut self, node: usize, inc: u64, silently: bool) {
        let mine: Vec<(ConnKey, usize)> = self
            .net
            .conns
            .iter()
            .flat_map(|(key, conn)| (0..2).map(move |side| (*key, side, conn.ends[side])))
            .filter(|(_, _, end)| end.node == node && end.inc == inc && end.open)
            .map(|(key, side, _)| (key, side))
            .collect();
        for (key, side) in mine {
            let later = if silently { 200 + self.rng.below(5_000) } else { 0 };
            self.close_end(key, side, later);
        }
        for peer in 0..self.nodes.len() {
            if let Some(generation) = self.net.mail[node][peer].up.take() {
                let later = if silently { 200 + self.rng.below(5_000) } else { self.delay() };
                self.at(later, Event::Parted { node: peer, peer: node, generation });
            }
            let mail = &mut self.net.mail[node][peer];
            (mail.slot, mail.down_told, mail.polls) = (None, false, 0);
            mail.under_way.clear();
        }
    }

    // --- The election port ---

    /// A new process tries everybody.
    pub(super) fn meet_all(&mut self, node: usize, inc: u64) {
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            if self.net.mail[node][to].up.is_none() {
                let delay = self.rng.below(20);
                self.at(delay, Event::Meet { from: node, to, inc });
            }
        }
    }

    pub(super) fn meet(&mut self, from: usize, to: usize, inc: u64) -> Result<(), Violation> {
        if !self.nodes[from].is_life(inc) || self.net.mail[from][to].up.is_some() {
            return Ok(());
        }
        let cut = self.net.is_cut(from, to) || self.net.is_cut(to, from) || self.nodes[to].is_off();
        if cut || !self.nodes[to].is_running() {
            let wait = if cut { 300 } else { 50 } + self.rng.below(500);
            self.at(wait, Event::Meet { from, to, inc });
            // Refused at once; without an answer it takes a while to be sure.
            if !std::mem::replace(&mut self.net.mail[from][to].down_told, !cut || self.rng.one_in(3))
                && self.net.mail[from][to].down_told
            {
                return self.peer_down(from, to);
            }
            return Ok(());
        }
        self.net.generation += 1;
        let generation = self.net.generation;
        // The newer connection replaces whatever the other side believed in.
        let back = &mut self.net.mail[to][from];
        (back.up, back.down_told, back.polls) = (Some(generation), false, 0);
        back.under_way.clear();
        self.net.mail[from][to].under_way.clear();
        let delay = self.delay();
        self.at(delay, Event::Met { from, to, generation });
        self.peer_up(to, from)?;
        self.mail_slot(to, from);
        Ok(())
    }

    pub(super) fn met(&mut self, from: usize, to: usize, generation: u64) -> Result<(), Violation> {
        if self.net.mail[to][from].up != Some(generation) || !self.nodes[from].is_running() {
            return Ok(());
        }
        let mail = &mut self.net.mail[from][to];
        (mail.up, mail.down_told, mail.polls) = (Some(generation), false, 0);
        self.peer_up(from, to)?;
        self.mail_slot(from, to);
        Ok(())
    }

    pub(super) fn parted(&mut self, node: usize, peer: usize, generation: u64) -> Result<(), Violation> {
        if self.net.mail[node][peer].up != Some(generation) {
            return Ok(());
        }
        self.net.mail[node][peer].up = None;
        self.net.mail[node][peer].under_way.clear();
        if self.nodes[node].is_running() {
            let inc = self.nodes[node].inc;
            let delay = self.rng.below(100);
            self.at(delay, Event::Meet { from: node, to: peer, inc });
        }
        Ok(())
    }

    /// A notice is to be sent; one still waiting is replaced.
    pub(super) fn post(&mut self, from: usize, to: ServerId, notice: Notice) {
        let to = to.0 as usize - 1;
        if to < self.nodes.len() && to != from {
            self.net.mail[from][to].slot = Some(notice);
            self.mail_slot(from, to);
        }
    }

    fn mail_slot(&mut self, from: usize, to: usize) {
        let delay = self.delay();
        let now = self.now;
        let mail = &mut self.net.mail[from][to];
        let Some(generation) = mail.up else { return };
        if let Some(notice) = mail.slot.take() {
            mail.under_way.push_back((generation, notice));
            mail.last = mail.last.max(now + delay);
            let delay = mail.last - now;
            self.at(delay, Event::Notice(from, to));
        }
    }

    pub(super) fn notice_arrives(&mut self, from: usize, to: usize) -> Result<(), Violation> {
        if self.net.mail[from][to].under_way.is_empty() {
            return Ok(());
        }
        if self.net.is_cut(from, to) {
            let mail = &mut self.net.mail[from][to];
            mail.polls += 1;
            if mail.polls > CUT_POLLS_MAX {
                mail.polls = 0;
                if let Some(generation) = mail.up {
                    let later = self.rng.below(2_000);
                    self.at(later, Event::Parted { node: to, peer: from, generation });
                    return self.parted(from, to, generation);
                }
            }
            self.at(CUT_POLL_MS, Event::Notice(from, to));
            return Ok(());
        }
        let Some((generation, notice)) = self.net.mail[from][to].under_way.pop_front() else { return Ok(()) };
        if self.net.mail[to][from].up == Some(generation) {
            return self.notice(to, from, notice);
        }
        // Nobody there knows of this connection.
        let later = self.delay();
        self.at(later, Event::Parted { node: from, peer: to, generation });
        Ok(())
    }

    /// A connection of the election breaks under both.
    pub(super) fn part(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            if let Some(generation) = self.net.mail[node][peer].up {
                let later = if self.rng.one_in(3) { self.rng.below(3_000) } else { self.rng.below(20) };
                self.at(later, Event::Parted { node, peer, generation });
            }
        }
    }
}
