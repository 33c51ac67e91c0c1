//! What becomes of a connect request: a pure decision.

use super::password::password_matches;
use super::tracker::Tracker;
use crate::base::{SessionId, Zxid};
use crate::wire::request::ConnectRequest;

/// What the decision depends on, besides the request and the tracker.
#[derive(Clone, Copy, Debug)]
pub struct ConnectState {
    /// Last zxid applied here.
    pub applied: Zxid,
    /// Lowest timeout granted, ms (`minSessionTimeout`).
    pub timeout_ms_min: i32,
    /// Highest timeout granted, ms (`maxSessionTimeout`).
    pub timeout_ms_max: i32,
    /// This server serves reads only.
    pub read_only: bool,
    /// New sessions stay on this server (`localSessionsEnabled`).
    pub local_sessions: bool,
    /// Another server leads: only it knows whether a session is alive.
    pub follows: bool,
    /// The tree has the session that is asked for: as far as this server knows, it is alive.
    pub in_tree: bool,
}

/// What to do with a connection that wants a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectPlan {
    /// Make a session; answer once its transaction is committed (at once when `local`).
    New {
        /// Granted timeout, ms.
        timeout_ms: i32,
        /// No transaction: the session lives on this server alone.
        local: bool,
    },
    /// Close the session's older connection, then answer with the same id and password.
    Resume {
        /// The session to go on with.
        session: SessionId,
        /// Granted timeout, ms.
        timeout_ms: i32,
    },
    /// Ask the leader whether the session is alive.
    Revalidate {
        /// The session to go on with.
        session: SessionId,
        /// Granted timeout, ms.
        timeout_ms: i32,
    },
    /// Answer with timeout 0, id 0 and a zero password, then close: the client reports "expired".
    Expired,
    /// Close without an answer: the client tries another server.
    Close(Refusal),
}

/// Why a connection is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client did not say that a read-only server will do.
    #[error("the client does not take a read-only server")]
    NotReadOnlyClient,
    /// The client has seen more than this server has.
    #[error("the client has seen zxid {seen}, this server is at {applied}")]
    ClientAhead {
        /// What the client has seen.
        seen: Zxid,
        /// What this server has applied.
        applied: Zxid,
    },
    /// A read-only server cannot renew a global session.
    #[error("a read-only server cannot renew session {0}")]
    GlobalSessionOnReadOnly(SessionId),
    /// A read-only server makes new sessions only when they are local.
    #[error("a read-only server without local sessions makes no session")]
    NoSessionOnReadOnly,
}

/// Decides, in ZooKeeper's order of checks: read-only, zxid, then the session itself.
///
/// One difference, on purpose: the session's older connection is closed only once the password proved right, so that nobody
/// disconnects a client by guessing its id.
#[must_use]
pub fn plan_connect(req: &ConnectRequest<'_>, state: &ConnectState, tracker: &Tracker) -> ConnectPlan {
    debug_assert!(state.timeout_ms_min <= state.timeout_ms_max, "checked when the configuration was read");
    if state.read_only && req.read_only != Some(true) {
        return ConnectPlan::Close(Refusal::NotReadOnlyClient);
    }
    if req.last_zxid_seen > state.applied.to_wire() {
        let seen = Zxid::from_wire(req.last_zxid_seen);
        return ConnectPlan::Close(Refusal::ClientAhead { seen, applied: state.applied });
    }
    let timeout_ms = req.timeout_ms.clamp(state.timeout_ms_min, state.timeout_ms_max);
    if req.session_id == 0 {
        return plan_new(state, timeout_ms);
    }
    plan_resume(SessionId(req.session_id), req.password, state, timeout_ms, tracker)
}

fn plan_new(state: &ConnectState, timeout_ms: i32) -> ConnectPlan {
    if state.read_only && !state.local_sessions {
        return ConnectPlan::Close(Refusal::NoSessionOnReadOnly);
    }
    ConnectPlan::New { timeout_ms, local: state.local_sessions }
}

fn plan_resume(
    session: SessionId,
    password: &[u8],
    state: &ConnectState,
    timeout_ms: i32,
    tracker: &Tracker,
) -> ConnectPlan {
    let handle = tracker.get(session);
    // Whether it is alive the quorum knows, which is elsewhere.
    let is_global = handle.map_or(state.in_tree, |h| !h.local());
    if state.read_only && is_global {
        return ConnectPlan::Close(Refusal::GlobalSessionOnReadOnly(session));
    }
    if state.follows && handle.is_none_or(|h| !h.local()) {
        let matches = password_matches(session, password);
        return if matches { ConnectPlan::Revalidate { session, timeout_ms } } else { ConnectPlan::Expired };
    }
    match handle {
        Some(handle) if !handle.closing() && password_matches(session, password) => {
            ConnectPlan::Resume { session, timeout_ms }
        }
        _ => ConnectPlan::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::super::password;
    use super::*;
    use crate::base::{ConnId, MonoMs};

    const STATE: ConnectState = ConnectState {
        applied: Zxid(100),
        timeout_ms_min: 4_000,
        timeout_ms_max: 40_000,
        read_only: false,
        local_sessions: false,
        follows: false,
        in_tree: false,
    };

    fn request(session_id: i64, password: &[u8]) -> ConnectRequest<'_> {
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 10_000,
            session_id,
            password,
            read_only: Some(false),
        }
    }

    fn tracker() -> (Tracker, SessionId) {
        let mut tracker = Tracker::new(2_000, 0x100);
        let id = tracker.create(10_000, ConnId(1), MonoMs(0)).id();
        (tracker, id)
    }

    #[test]
    fn a_new_session_gets_a_timeout_within_the_limits() {
        let (tracker, _) = tracker();
        let plan =
            |timeout_ms| plan_connect(&ConnectRequest { timeout_ms, ..request(0, &[]) }, &STATE, &tracker);
        assert_eq!(plan(10_000), ConnectPlan::New { timeout_ms: 10_000, local: false });
        assert_eq!(plan(-1), ConnectPlan::New { timeout_ms: 4_000, local: false });
        assert_eq!(plan(i32::MAX), ConnectPlan::New { timeout_ms: 40_000, local: false });
    }

    #[test]
    fn a_known_session_resumes_with_its_password_and_the_timeout_is_clamped_again() {
        let (tracker, id) = tracker();
        let password = password(id);
        let req = ConnectRequest { timeout_ms: 1, ..request(id.0, &password) };
        let resumed = ConnectPlan::Resume { session: id, timeout_ms: 4_000 };
        assert_eq!(plan_connect(&req, &STATE, &tracker), resumed);
    }

    #[test]
    fn a_wrong_password_an_unknown_and_a_closing_session_are_expired() {
        let (tracker, id) = tracker();
        let password = password(id);
        assert_eq!(plan_connect(&request(id.0, &[0; 16]), &STATE, &tracker), ConnectPlan::Expired);
        let unknown = super::super::password(SessionId(7));
        assert_eq!(plan_connect(&request(7, &unknown), &STATE, &tracker), ConnectPlan::Expired);
        tracker.set_closing(id);
        assert_eq!(plan_connect(&request(id.0, &password), &STATE, &tracker), ConnectPlan::Expired);
    }

    #[test]
    fn a_follower_asks_the_leader_about_a_session_whose_password_is_right() {
        let (tracker, id) = tracker();
        let state = ConnectState { follows: true, ..STATE };
        for known_or_not in [id, SessionId(7)] {
            let password = password(known_or_not);
            let plan = plan_connect(&request(known_or_not.0, &password), &state, &tracker);
            assert_eq!(plan, ConnectPlan::Revalidate { session: known_or_not, timeout_ms: 10_000 });
            let plan = plan_connect(&request(known_or_not.0, &[0; 16]), &state, &tracker);
            assert_eq!(plan, ConnectPlan::Expired);
        }
    }

    #[test]
    fn a_client_that_has_seen_more_than_this_server_is_closed_without_an_answer() {
        let (tracker, id) = tracker();
        let password = password(id);
        let req = ConnectRequest { last_zxid_seen: 101, ..request(id.0, &password) };
        let ahead = Refusal::ClientAhead { seen: Zxid(101), applied: Zxid(100) };
        assert_eq!(plan_connect(&req, &STATE, &tracker), ConnectPlan::Close(ahead));
    }

    #[test]
    fn a_read_only_server_takes_only_clients_that_ask_for_one() {
        let (tracker, id) = tracker();
        let password = password(id);
        let state = ConnectState { read_only: true, ..STATE };
        let wants_read_only =
            |session, password| ConnectRequest { read_only: Some(true), ..request(session, password) };
        for read_only in [None, Some(false)] {
            let req = ConnectRequest { read_only, ..request(0, &[]) };
            let plan = plan_connect(&req, &state, &tracker);
            assert_eq!(plan, ConnectPlan::Close(Refusal::NotReadOnlyClient));
        }
        let renewed = plan_connect(&wants_read_only(id.0, &password), &state, &tracker);
        assert_eq!(renewed, ConnectPlan::Close(Refusal::GlobalSessionOnReadOnly(id)));
        // It was on another server.
        let elsewhere = SessionId(0x7700);
        let its_password = super::super::password(elsewhere);
        let known = ConnectState { in_tree: true, ..state };
        let moved = plan_connect(&wants_read_only(elsewhere.0, &its_password), &known, &tracker);
        assert_eq!(moved, ConnectPlan::Close(Refusal::GlobalSessionOnReadOnly(elsewhere)));
        let new = plan_connect(&wants_read_only(0, &[]), &state, &tracker);
        assert_eq!(new, ConnectPlan::Close(Refusal::NoSessionOnReadOnly));
        let local = ConnectState { local_sessions: true, ..state };
        let new = plan_connect(&wants_read_only(0, &[]), &local, &tracker);
        assert_eq!(new, ConnectPlan::New { timeout_ms: 10_000, local: true });
    }
}
