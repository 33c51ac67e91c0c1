//! Owners, last heard, expiry buckets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use crate::base::{ConnId, MonoMs, SessionId};

/// No session has this id: it marks a container node.
const CONTAINER_MARKER: i64 = i64::MIN;

/// The first session id of a server that starts: its id in the top byte, then the low 40 bits of `clock_ms`, then 16 zero
/// bits to count in. Ids of one server grow from start to start as long as `clock_ms` does.
#[must_use]
pub const fn first_session_id(server_id: i64, clock_ms: u64) -> i64 {
    let id = ((clock_ms << 24) >> 8) | ((server_id as u64) << 56);
    if id as i64 == CONTAINER_MARKER { id as i64 + 1 } else { id as i64 }
}

/// Why a request of a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    /// Unknown, or closing.
    #[error("session {0} is no more")]
    Expired(SessionId),
    /// Another connection has taken the session over.
    #[error("session {0} has moved to another connection")]
    Moved(SessionId),
    /// Ephemeral nodes need a session that all servers know.
    #[error("session {0} is local")]
    Local(SessionId),
}

/// One live session. Connections keep an `Arc` of it, so that hearing of a session needs no lookup and no lock.
#[derive(Debug)]
pub struct SessionHandle {
    id: SessionId,
    timeout_ms: AtomicI32,
    last_heard: AtomicU64,
    /// Connection that owns it; 0 is none, which any connection may change.
    owner: AtomicU64,
    /// Key of the one bucket it stands in; written by the tracker alone, under `&mut`.
    bucket: AtomicU64,
    closing: AtomicBool,
    local: AtomicBool,
}

impl SessionHandle {
    fn new(id: SessionId, timeout_ms: i32, owner: ConnId, now: MonoMs, local: bool) -> SessionHandle {
        SessionHandle {
            id,
            timeout_ms: AtomicI32::new(timeout_ms),
            last_heard: AtomicU64::new(now.0),
            owner: AtomicU64::new(owner.0),
            bucket: AtomicU64::new(u64::MAX),
            closing: AtomicBool::new(false),
            local: AtomicBool::new(local),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Known to this server alone.
    #[must_use]
    pub fn local(&self) -> bool {
        self.local.load(Ordering::Relaxed)
    }

    /// From now on all servers know it: its transaction is on its way.
    pub fn upgrade(&self) {
        self.local.store(false, Ordering::Relaxed);
    }

    /// Granted timeout, ms; a reconnect may change it.
    #[must_use]
    pub fn timeout_ms(&self) -> i32 {
        self.timeout_ms.load(Ordering::Relaxed)
    }

    /// The connection that owns it; `ConnId(0)` when none does.
    #[must_use]
    pub fn owner(&self) -> ConnId {
        ConnId(self.owner.load(Ordering::Acquire))
    }

    /// When it was last heard of.
    #[must_use]
    pub fn last_heard(&self) -> MonoMs {
        MonoMs(self.last_heard.load(Ordering::Relaxed))
    }

    /// True from the moment its end is decided.
    #[must_use]
    pub fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The session was heard at `now`. False when it is closing: the request is to be dropped.
    pub fn touch(&self, now: MonoMs) -> bool {
        // Another connection thread may have stored a later time: time never runs backwards here. Looked at first: whoever writes takes the
        // cache line from those who read, and many requests come within one millisecond.
        if self.last_heard.load(Ordering::Relaxed) < now.0 {
            self.last_heard.fetch_max(now.0, Ordering::Relaxed);
        }
        !self.closing()
    }

    /// May `conn` act for this session?
    pub fn check(&self, conn: ConnId) -> Result<(), SessionFault> {
        if self.closing() {
            return Err(SessionFault::Expired(self.id));
        }
        if self.owner.load(Ordering::Acquire) == conn.0 {
            return Ok(());
        }
        match self.owner.compare_exchange(0, conn.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(owner) if owner == conn.0 => Ok(()),
            Err(_) => Err(SessionFault::Moved(self.id)),
        }
    }

    /// When it ends if nothing is heard of it: rounded up to the tick behind.
    fn due(&self, tick_ms: u64) -> u64 {
        self.due_if_heard(self.last_heard(), tick_ms)
    }

    /// It lives, and this is its bucket: others keep what was left there.
    fn is_in_bucket(&self, at: u64) -> bool {
        !self.closing() && self.bucket.load(Ordering::Relaxed) == at
    }

    fn due_if_heard(&self, at: MonoMs, tick_ms: u64) -> u64 {
        let timeout_ms = u64::try_from(self.timeout_ms()).unwrap_or(0);
        let at = at.0.saturating_add(timeout_ms);
        (at / tick_ms).saturating_add(1).saturating_mul(tick_ms)
    }
}

/// All sessions that are alive here.
#[derive(Debug)]
pub struct Tracker {
    tick_ms: u64,
    next_id: i64,
    sessions: HashMap<SessionId, Arc<SessionHandle>>,
    /// By the time they were due when last looked at: what was heard since moves them on when the bucket comes up. One bucket
    /// counts for a session (`SessionHandle::bucket`); what stands in others, or has ended, is dropped when that comes up.
    buckets: BTreeMap<u64, Vec<Arc<SessionHandle>>>,
}

impl Tracker {
    /// Nobody yet. `tick_ms` (> 0) is ZooKeeper's tickTime; `first_id` comes from [`first_session_id`].
    #[must_use]
    pub fn new(tick_ms: u32, first_id: i64) -> Tracker {
        assert!(tick_ms > 0, "the configuration allows no tick of 0");
        Tracker {
            tick_ms: u64::from(tick_ms),
            next_id: first_id,
            sessions: HashMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// A new session, owned by `conn`, as if heard at `now`.
    pub fn create(&mut self, timeout_ms: i32, conn: ConnId, now: MonoMs) -> Arc<SessionHandle> {
        let id = self.take_id();
        self.insert(SessionHandle::new(id, timeout_ms, conn, now, false))
    }

    /// As [`Tracker::create`], for a session that only this server knows.
    pub fn create_local(&mut self, timeout_ms: i32, conn: ConnId, now: MonoMs) -> Arc<SessionHandle> {
        let id = self.take_id();
        self.insert(SessionHandle::new(id, timeout_ms, conn, now, true))
    }

    /// A session that the tree knows, after a start: nobody owns it yet, and it has its whole timeout from `now`.
    pub fn restore(&mut self, id: SessionId, timeout_ms: i32, now: MonoMs) {
        if !self.sessions.contains_key(&id) {
            self.insert(SessionHandle::new(id, timeout_ms, ConnId(0), now, false));
        }
    }

    /// A session that another server vouches for: it is `conn`'s from now on. Returns whose it was (`ConnId(0)`: nobody's).
    pub fn adopt(&mut self, id: SessionId, timeout_ms: i32, conn: ConnId, now: MonoMs) -> ConnId {
        if let Some((_, before)) = self.resume(id, timeout_ms, conn, now) {
            return before;
        }
        // One that is closing here has another life there.
        self.remove(id);
        self.insert(SessionHandle::new(id, timeout_ms, conn, now, false));
        ConnId(0)
    }

    /// Forgets a session that is `conn`'s, and none that has moved on: others look after it.
    pub fn forget(&mut self, id: SessionId, conn: ConnId) {
        if self.sessions.get(&id).is_some_and(|handle| handle.owner() == conn) {
            self.remove(id);
        }
    }

    /// Forgets all sessions; ids go on.
    pub fn clear(&mut self) {
        self.sessions.clear();
        self.buckets.clear();
    }

    /// Hands the session to `conn` with a new timeout; returns the connection that had it (`ConnId(0)`: none). `None` when
    /// the session is unknown or closing.
    pub fn resume(
        &mut self,
        id: SessionId,
        timeout_ms: i32,
        conn: ConnId,
        now: MonoMs,
    ) -> Option<(Arc<SessionHandle>, ConnId)> {
        let handle = self.sessions.get(&id).filter(|h| !h.closing())?;
        handle.timeout_ms.store(timeout_ms, Ordering::Relaxed);
        handle.touch(now);
        let before = handle.owner.swap(conn.0, Ordering::AcqRel);
        let handle = Arc::clone(handle);
        // A shorter timeout may be due before its bucket comes up.
        if handle.due(self.tick_ms) < handle.bucket.load(Ordering::Relaxed) {
            self.put_into_bucket(Arc::clone(&handle));
        }
        Some((handle, ConnId(before)))
    }

    /// The connection is gone: the session waits for another one.
    pub fn disconnect(&self, id: SessionId, conn: ConnId) {
        if let Some(handle) = self.sessions.get(&id) {
            let _ = handle.owner.compare_exchange(conn.0, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// The session ended: its closeSession is applied.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(handle) = self.sessions.remove(&id) {
            handle.closing.store(true, Ordering::Release);
        }
    }

    /// Moves every session that is due at `now` to closing and appends it to `out`, ids ascending within a tick. Each session
    /// is reported once; the caller submits a closeSession for it.
    pub fn poll_expired(&mut self, now: MonoMs, out: &mut Vec<SessionId>) {
        self.poll_expired_if(now, |_| true, out);
    }

    /// The same of the sessions for which `f` holds; others stay.
    pub fn poll_expired_if(
        &mut self,
        now: MonoMs,
        f: impl Fn(&SessionHandle) -> bool,
        out: &mut Vec<SessionId>,
    ) {
        while let Some(entry) = self.buckets.first_entry() {
            if *entry.key() > now.0 {
                return;
            }
            let (at, bucket) = entry.remove_entry();
            let from = out.len();
            for handle in bucket {
                if f(&handle) {
                    self.expire_or_move(handle, at, now, out);
                } else if handle.is_in_bucket(at) {
                    // Looked at again a timeout later: it was not heard of.
                    let later = handle.due_if_heard(now, self.tick_ms);
                    self.put_into_bucket_at(handle, later);
                }
            }
            out[from..].sort_unstable();
        }
    }

    fn expire_or_move(&mut self, handle: Arc<SessionHandle>, at: u64, now: MonoMs, out: &mut Vec<SessionId>) {
        if !handle.is_in_bucket(at) {
            return;
        }
        let due = handle.due(self.tick_ms);
        if due > now.0 {
            debug_assert!(due > at, "a bucket only moves on");
            self.put_into_bucket(handle);
        } else if !handle.closing.swap(true, Ordering::AcqRel) {
            out.push(handle.id);
        }
    }

    fn insert(&mut self, handle: SessionHandle) -> Arc<SessionHandle> {
        let handle = Arc::new(handle);
        let before = self.sessions.insert(handle.id, Arc::clone(&handle));
        assert!(before.is_none(), "session ids are never used twice");
        self.put_into_bucket(Arc::clone(&handle));
        handle
    }

    fn put_into_bucket(&mut self, handle: Arc<SessionHandle>) {
        let due = handle.due(self.tick_ms);
        self.put_into_bucket_at(handle, due);
    }

    fn put_into_bucket_at(&mut self, handle: Arc<SessionHandle>, due: u64) {
        handle.bucket.store(due, Ordering::Relaxed);
        self.buckets.entry(due).or_default().push(handle);
    }

    fn take_id(&mut self) -> SessionId {
        loop {
            let id = SessionId(self.next_id);
            self.next_id = self.next_id.wrapping_add(1);
            if id.0 != 0 && id.0 != CONTAINER_MARKER && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// The session, closing or not.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Arc<SessionHandle>> {
        self.sessions.get(&id)
    }

    /// May `conn` act for `id`? An unowned session becomes its own.
    pub fn check(&self, id: SessionId, conn: ConnId) -> Result<(), SessionFault> {
        self.sessions.get(&id).ok_or(SessionFault::Expired(id))?.check(conn)
    }

    /// As [`Tracker::check`], and refuses local sessions.
    pub fn check_global(&self, id: SessionId, conn: ConnId) -> Result<(), SessionFault> {
        let handle = self.sessions.get(&id).ok_or(SessionFault::Expired(id))?;
        if handle.local() {
            return Err(SessionFault::Local(id));
        }
        handle.check(conn)
    }

    /// The end of the session is decided: from now on its requests are refused.
    pub fn set_closing(&self, id: SessionId) {
        if let Some(handle) = self.sessions.get(&id) {
            handle.closing.store(true, Ordering::Release);
        }
    }

    /// When [`Tracker::poll_expired`] may have something to do; `None` without sessions.
    #[must_use]
    pub fn next_due(&self) -> Option<MonoMs> {
        self.buckets.keys().next().map(|at| MonoMs(*at))
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// All sessions, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SessionHandle>> {
        self.sessions.values()
    }

    /// When the session will end if nothing is heard of it any more.
    #[must_use]
    pub fn due(&self, handle: &SessionHandle) -> MonoMs {
        MonoMs(handle.due(self.tick_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u32 = 2_000;

    fn expired(tracker: &mut Tracker, now: u64) -> Vec<SessionId> {
        let mut out = Vec::new();
        tracker.poll_expired(MonoMs(now), &mut out);
        out
    }

    #[test]
    fn the_first_id_has_the_server_in_the_top_byte_and_room_to_count() {
        assert_eq!(first_session_id(1, 0x12_3456_789a), 0x0112_3456_789a_0000);
        assert_eq!(first_session_id(0xff, 0), 0xff00_0000_0000_0000u64 as i64);
        // Bits above 40 of the clock are cut off, never spill into the server's byte.
        assert_eq!(first_session_id(1, 0xffff_0000_0000_0001), 0x0100_0000_0001_0000);
        assert_eq!(first_session_id(0x80, 0), i64::MIN + 1, "never the marker of a container");
    }

    #[test]
    fn ids_skip_zero_the_container_marker_and_sessions_that_are_known() {
        let mut tracker = Tracker::new(TICK, -1);
        tracker.restore(SessionId(1), 10_000, MonoMs(0));
        let mut next = || tracker.create(10_000, ConnId(1), MonoMs(0)).id();
        assert_eq!([next(), next()], [SessionId(-1), SessionId(2)]);
        let mut tracker = Tracker::new(TICK, i64::MIN);
        assert_eq!(tracker.create(10_000, ConnId(1), MonoMs(0)).id(), SessionId(i64::MIN + 1));
    }

    #[test]
    fn expiry_is_rounded_up_to_the_tick_behind_and_never_early() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let handle = tracker.create(10_000, ConnId(1), MonoMs(500));
        // 500 + 10,000 = 10,500 -> (10,500 / 2,000 + 1) * 2,000.
        assert_eq!(tracker.next_due(), Some(MonoMs(12_000)));
        assert!(expired(&mut tracker, 11_999).is_empty());
        assert_eq!(expired(&mut tracker, 12_000), [handle.id()]);
        assert!(handle.closing());
        assert!(expired(&mut tracker, 1_000_000).is_empty(), "reported once");
        // Exactly on a tick: one more tick, as ZooKeeper rounds.
        let handle = tracker.create(10_000, ConnId(1), MonoMs(2_000));
        assert_eq!(tracker.due(&handle), MonoMs(14_000));
    }

    #[test]
    fn hearing_of_a_session_puts_its_end_off() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let handle = tracker.create(10_000, ConnId(1), MonoMs(0));
        assert!(handle.touch(MonoMs(9_000)));
        assert!(handle.touch(MonoMs(8_000)), "an older time changes nothing");
        assert!(expired(&mut tracker, 19_999).is_empty());
        assert_eq!(expired(&mut tracker, 20_000), [handle.id()]);
        assert!(!handle.touch(MonoMs(20_001)), "closing sessions are not heard");
    }

    #[test]
    fn a_session_that_others_decide_about_stays_and_counts_as_silent() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let global = tracker.create(10_000, ConnId(1), MonoMs(0));
        let local = tracker.create_local(10_000, ConnId(1), MonoMs(0));
        let mut out = Vec::new();
        tracker.poll_expired_if(MonoMs(12_000), |handle| handle.local(), &mut out);
        assert_eq!((out, global.last_heard(), global.closing()), (vec![local.id()], MonoMs(0), false));
        assert_eq!(expired(&mut tracker, 24_000), [global.id()], "whoever decides later finds it silent");
    }

    #[test]
    fn nothing_is_left_of_sessions_that_others_have_ended() {
        let mut tracker = Tracker::new(TICK, 0x10);
        for id in 1..=3 {
            tracker.adopt(SessionId(id), 10_000, ConnId(id as u64), MonoMs(0));
        }
        tracker.remove(SessionId(1));
        tracker.forget(SessionId(2), ConnId(2));
        // A shorter timeout: it is in two buckets.
        tracker.resume(SessionId(3), 4_000, ConnId(3), MonoMs(0));
        for round in 1..=3 {
            let mut out = Vec::new();
            tracker.poll_expired_if(MonoMs(round * 12_000), |_| false, &mut out);
            assert!(out.is_empty());
        }
        assert_eq!(tracker.buckets.values().map(Vec::len).sum::<usize>(), 1, "{:?}", tracker.buckets);
    }

    #[test]
    fn a_session_that_another_server_vouches_for_is_adopted_and_forgotten() {
        let mut tracker = Tracker::new(TICK, 0x10);
        assert_eq!(tracker.adopt(SessionId(7), 10_000, ConnId(1), MonoMs(0)), ConnId(0));
        assert_eq!(tracker.adopt(SessionId(7), 10_000, ConnId(2), MonoMs(0)), ConnId(1));
        tracker.forget(SessionId(7), ConnId(1));
        assert_eq!(tracker.check(SessionId(7), ConnId(2)), Ok(()), "it has moved on");
        tracker.forget(SessionId(7), ConnId(2));
        assert!(tracker.get(SessionId(7)).is_none());
    }

    #[test]
    fn many_sessions_each_expire_once_at_the_first_tick_after_their_timeout() {
        let mut rng = crate::base::rng::Rng::new(5);
        let mut tracker = Tracker::new(TICK, 0x10);
        let handles: Vec<_> = (0..200)
            .map(|_| tracker.create(4_000 + rng.below(36_000) as i32, ConnId(1), MonoMs(0)))
            .collect();
        let mut ended = HashMap::new();
        for now in (0..200_000).step_by(500) {
            for handle in &handles {
                if now < 100_000 && rng.one_in(40) {
                    handle.touch(MonoMs(now));
                }
            }
            for id in expired(&mut tracker, now) {
                let handle = tracker.get(id).unwrap();
                let silence = now - handle.last_heard.load(Ordering::Relaxed);
                let timeout = handle.timeout_ms() as u64;
                assert!(silence >= timeout && silence <= timeout + u64::from(TICK), "{silence} {timeout}");
                assert!(ended.insert(id, now).is_none());
                tracker.remove(id);
            }
        }
        assert_eq!(ended.len(), 200);
        assert!(tracker.is_empty());
        assert_eq!(tracker.next_due(), None, "nothing is left over");
    }

    #[test]
    fn a_request_of_an_earlier_connection_finds_the_session_moved() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let id = tracker.create(10_000, ConnId(1), MonoMs(0)).id();
        assert_eq!(tracker.check(id, ConnId(1)), Ok(()));
        let (_, before) = tracker.resume(id, 6_000, ConnId(2), MonoMs(1)).unwrap();
        assert_eq!(before, ConnId(1));
        assert_eq!(tracker.check(id, ConnId(1)), Err(SessionFault::Moved(id)));
        assert_eq!(tracker.check(id, ConnId(2)), Ok(()));
        tracker.disconnect(id, ConnId(1));
        assert_eq!(
            tracker.get(id).unwrap().owner(),
            ConnId(2),
            "a late goodbye of the old one changes nothing"
        );
    }

    #[test]
    fn a_resume_with_a_shorter_timeout_ends_by_the_shorter_one() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let id = tracker.create(40_000, ConnId(1), MonoMs(0)).id();
        tracker.resume(id, 4_000, ConnId(2), MonoMs(1_000)).unwrap();
        assert!(expired(&mut tracker, 5_999).is_empty());
        assert_eq!(expired(&mut tracker, 6_000), [id]);
        assert!(tracker.resume(id, 4_000, ConnId(3), MonoMs(6_000)).is_none(), "closing");
    }

    #[test]
    fn a_client_that_reconnects_for_ever_leaves_nothing_behind() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let id = tracker.create(10_000, ConnId(1), MonoMs(0)).id();
        for i in 0..1_000 {
            let timeout_ms = if i % 2 == 0 { 4_000 } else { 40_000 };
            assert!(tracker.resume(id, timeout_ms, ConnId(i + 2), MonoMs(i * 1_000)).is_some());
            assert!(expired(&mut tracker, i * 1_000).is_empty());
            assert!(
                tracker.buckets.values().map(Vec::len).sum::<usize>() <= 21,
                "one per tick of the longest timeout"
            );
        }
    }

    #[test]
    fn a_restored_session_belongs_to_nobody_until_a_connection_asks() {
        let mut tracker = Tracker::new(TICK, 0x10);
        tracker.restore(SessionId(7), 10_000, MonoMs(3_000));
        assert_eq!(tracker.get(SessionId(7)).unwrap().owner(), ConnId(0));
        assert_eq!(tracker.next_due(), Some(MonoMs(14_000)));
        assert_eq!(tracker.check(SessionId(7), ConnId(5)), Ok(()));
        assert_eq!(tracker.check(SessionId(7), ConnId(6)), Err(SessionFault::Moved(SessionId(7))));
    }

    #[test]
    fn requests_behind_the_end_of_a_session_find_it_expired() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let id = tracker.create(10_000, ConnId(1), MonoMs(0)).id();
        tracker.set_closing(id);
        assert_eq!(tracker.check(id, ConnId(1)), Err(SessionFault::Expired(id)));
        tracker.remove(id);
        assert_eq!(tracker.check(id, ConnId(1)), Err(SessionFault::Expired(id)));
    }

    #[test]
    fn ephemerals_need_a_global_session() {
        let mut tracker = Tracker::new(TICK, 0x10);
        let id = tracker.create_local(10_000, ConnId(1), MonoMs(0)).id();
        assert_eq!(tracker.check(id, ConnId(1)), Ok(()));
        assert_eq!(tracker.check_global(id, ConnId(1)), Err(SessionFault::Local(id)));
    }
}
