//! The session of one connection: what its frames mean, without a socket.
//!
//! - E1: replies come in the order of requests; one that does not, or that nobody asked for, breaks the connection.
//! - E2: a watch event comes before the reply of the request that fires it.

use std::collections::VecDeque;

use super::frames::{FrameLength, ReplyHead};
use super::stats::{Failure, Recorder};
use super::template::Templates;
use super::workload::Kind;
use crate::wire::OpCode;
use crate::wire::jute::{JuteError, PutJute, Reader};
use crate::wire::reply;

/// Session timeout asked for, ms: longer than a stall worth measuring, and inside the default 4..40 s of a server.
pub(super) const SESSION_TIMEOUT_MS: i32 = 30_000;
/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No socket; opened at this time.
    Down {
        retry_ns: u64,
    },
    Connecting,
    Handshake,
    Ready,
    /// closeSession is sent.
    Closing,
    Closed,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("closed by the server")]
    Eof,
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Frame(#[from] FrameLength),
    #[error("undecodable answer to the connect request: {0}")]
    Connect(#[from] JuteError),
    #[error("session refused: expired or unknown")]
    Refused,
    #[error("reply out of order: xid {found}, expected {expected:?}")]
    Order { found: i32, expected: Option<i32> },
    #[error("reply of {0} bytes has no head")]
    Short(usize),
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) due_ns: u64,
    pub(super) xid: i32,
    pub(super) kind: Kind,
}

/// A session and the requests in flight on its connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: State,
    pub(super) id: i64,
    pub(super) password: [u8; 16],
    pub(super) timeout_ms: i32,
    xid: i32,
    pub(super) in_flight: VecDeque<Slot>,
    pub(super) last_heard_ns: u64,
}

impl Session {
    /// No session yet; at most `depth` requests will be in flight.
    pub(super) fn new(depth: usize) -> Session {
        Session {
            state: State::Down { retry_ns: 0 },
            id: 0,
            password: [0; 16],
            timeout_ms: SESSION_TIMEOUT_MS,
            xid: 0,
            in_flight: VecDeque::with_capacity(depth),
            last_heard_ns: 0,
        }
    }

    /// xid of the next request.
    pub(super) fn next_xid(&mut self) -> i32 {
        // Positive numbers only: the others mean something.
        self.xid = if self.xid == i32::MAX { 1 } else { self.xid + 1 };
        self.xid
    }

    /// Takes one frame.
    pub(super) fn on_frame(
        &mut self,
        frame: &[u8],
        now_ns: u64,
        rec: &mut Recorder,
        templates: &Templates,
    ) -> Result<(), Broken> {
        match self.state {
            State::Handshake => self.on_connect(frame),
            State::Closing => Ok(()),
            _ => self.on_reply(frame, now_ns, rec, templates),
        }
    }

    fn on_connect(&mut self, frame: &[u8]) -> Result<(), Broken> {
        let mut r = Reader::new(frame);
        r.int()?;
        let (timeout_ms, session) = (r.int()?, r.long()?);
        let password = r.buffer()?.unwrap_or_default();
        if timeout_ms <= 0 {
            return Err(Broken::Refused);
        }
        self.password = password.try_into().unwrap_or_default();
        (self.timeout_ms, self.id, self.state) = (timeout_ms, session, State::Ready);
        Ok(())
    }

    #[inline]
    fn on_reply(
        &mut self,
        frame: &[u8],
        now_ns: u64,
        rec: &mut Recorder,
        templates: &Templates,
    ) -> Result<(), Broken> {
        let head = ReplyHead::read(frame).ok_or(Broken::Short(frame.len()))?;
        let expected = self.in_flight.front().map(|slot| slot.xid);
        if expected != Some(head.xid) {
            return self.on_other(head, expected, now_ns, rec);
        }
        let slot = self.in_flight.pop_front().expect("it has a front");
        if head.err != 0 {
            rec.failure(slot.kind, slot.due_ns, now_ns, Failure::Code(head.err));
        } else if frame.len() < templates.reply_bytes_min(slot.kind) {
            rec.failure(slot.kind, slot.due_ns, now_ns, Failure::BadReply);
        } else {
            rec.success(slot.kind, slot.due_ns, now_ns);
        }
        Ok(())
    }

    fn on_other(
        &self,
        head: ReplyHead,
        expected: Option<i32>,
        now_ns: u64,
        rec: &mut Recorder,
    ) -> Result<(), Broken> {
        match head.xid {
            reply::XID_PING => Ok(()),
            reply::XID_NOTIFICATION => {
                // An event comes before the reply of the request that fires it: that one is the oldest in flight.
                let front = self.in_flight.front().filter(|slot| slot.kind.is_write());
                rec.event(front.map(|slot| slot.due_ns), now_ns);
                Ok(())
            }
            found => Err(Broken::Order { found, expected }),
        }
    }
}

/// Appends the first frame of a connection; session 0 asks for a new one.
pub(super) fn put_connect_request(out: &mut Vec<u8>, session: i64, password: &[u8; 16]) {
    let mark = reply::begin(out);
    out.put_int(0);
    out.put_long(0);
    out.put_int(SESSION_TIMEOUT_MS);
    out.put_long(session);
    out.put_buffer(Some(password));
    out.put_boolean(false);
    reply::end(out, mark);
}

/// Appends a request without a body.
pub(super) fn put_bare(out: &mut Vec<u8>, xid: i32, op: OpCode) {
    let mark = reply::begin(out);
    out.put_int(xid);
    out.put_int(op.to_i32());
    reply::end(out, mark);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Zxid;
    use crate::tools::bench::plan::Shape;
    use crate::tools::bench::stats::{Totals, Window};
    use crate::tools::bench::workload::Workload;
    use crate::wire::reply::EventType;
    use crate::wire::{ErrorCode, Stat};

    struct Bench {
        session: Session,
        rec: Recorder,
        templates: Templates,
    }

    impl Bench {
        /// A session with a get and a set in flight, due at 10 and 20 ns.
        fn new() -> Bench {
            let workload = Workload::Watch;
            let shape = Shape { workload, size: 0, keys: 1, multi_ops: 1, writes_percent: 0 };
            let mut session = Session::new(2);
            session.state = State::Handshake;
            for (kind, due_ns) in [(Kind::GetWatch, 10), (Kind::Set, 20)] {
                let xid = session.next_xid();
                session.in_flight.push_back(Slot { due_ns, xid, kind });
            }
            let window = Window { from_ns: 0, until_ns: u64::MAX };
            let rec = Recorder::new(workload.kinds(), window, 0);
            Bench { session, rec, templates: Templates::new("/p", &shape) }
        }

        fn take(&mut self, now_ns: u64, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), Broken> {
            let mut out = Vec::new();
            put(&mut out);
            self.session.on_frame(&out[4..], now_ns, &mut self.rec, &self.templates)
        }

        fn ready(mut self) -> Bench {
            self.take(0, |out| reply::put_connect(out, 4000, 77, &[5; 16], Some(false))).unwrap();
            self
        }

        fn totals(self) -> Totals {
            self.rec.finish()
        }
    }

    fn put_data(out: &mut Vec<u8>, xid: i32) {
        let mark = reply::begin(out);
        reply::put_header(out, xid, Zxid(1), ErrorCode::Ok);
        out.put_buffer(Some(b""));
        Stat::default().put(out);
        reply::end(out, mark);
    }

    #[test]
    fn the_first_frame_makes_a_session_or_refuses_it() {
        let bench = Bench::new().ready();
        assert_eq!((bench.session.id, bench.session.state), (77, State::Ready));
        assert_eq!((bench.session.timeout_ms, bench.session.password), (4000, [5; 16]));
        let refused = Bench::new().take(0, |out| reply::put_connect(out, 0, 0, &[0; 16], None));
        assert!(matches!(refused, Err(Broken::Refused)), "{refused:?}");
        let cut = Bench::new().take(0, |out| reply::put_empty(out, 0, Zxid(0), ErrorCode::Ok));
        assert!(cut.is_err());
    }

    #[test]
    fn an_event_counts_from_the_set_that_fires_it_and_a_ping_answers_nobody() {
        let mut bench = Bench::new().ready();
        bench.take(1_000_000, |out| put_data(out, 1)).unwrap();
        bench.take(2_000_020, |out| reply::put_event(out, 1, EventType::NodeDataChanged, "/a")).unwrap();
        bench.take(2_500_000, |out| reply::put_empty(out, reply::XID_PING, Zxid(1), ErrorCode::Ok)).unwrap();
        bench.take(3_000_020, |out| reply::put_stat(out, 2, Zxid(1), &Stat::default())).unwrap();
        assert!(bench.session.in_flight.is_empty());
        let totals = bench.totals();
        assert_eq!((totals.completed, totals.events), (2, 1));
        let event_ns = totals.event_latency.unwrap().max();
        assert!(event_ns.abs_diff(2_000_000) < 2_000, "{event_ns}");
    }

    #[test]
    fn a_reply_out_of_order_or_unasked_for_breaks_the_connection() {
        let mut bench = Bench::new().ready();
        let early = bench.take(1, |out| put_data(out, 2));
        assert!(matches!(early, Err(Broken::Order { found: 2, expected: Some(1) })), "{early:?}");
        bench.session.in_flight.clear();
        let unasked = bench.take(1, |out| put_data(out, 1));
        assert!(matches!(unasked, Err(Broken::Order { found: 1, expected: None })), "{unasked:?}");
        let short = bench.take(1, |out| out.extend_from_slice(&[0; 10]));
        assert!(matches!(short, Err(Broken::Short(6))), "{short:?}");
    }

    #[test]
    fn request_numbers_stay_positive() {
        let mut session = Session::new(1);
        session.xid = i32::MAX - 1;
        assert_eq!([session.next_xid(), session.next_xid(), session.next_xid()], [i32::MAX, 1, 2]);
    }
}
