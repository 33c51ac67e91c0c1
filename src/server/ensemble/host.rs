//! What peers send for the clients' side: requests of learners' clients, and the life of sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Revalidation;
use crate::base::{ConnId, MonoMs, SessionId};
use crate::node::AuthIds;
use crate::node::member::Host;
use crate::server::Shared;
use crate::server::commit::{Learner, Write};
use crate::server::conn::REFUSED;
use crate::session::SessionFault;
use crate::wire::OpCode;
use crate::wire::quorum::{self, AuthId};
use crate::wire::quorum_payload::{ForwardedRequest, Touch};
use crate::zab::LinkId;

/// Set in the id of an owner that is not a connection of a client but one with another member.
const LINK_OWNER: u64 = 1 << 63;

/// Links whose last asker is kept in mind.
const KNOWN_ASKERS_MAX: usize = 64;

/// Owns no session.
const NOBODY: ConnId = ConnId(u64::MAX);

/// The owner of the sessions that are on the other side of `link`.
pub(super) const fn owner_of(link: LinkId) -> ConnId {
    ConnId(link.0 | LINK_OWNER)
}

/// What lives as long as one standing of this server.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Who asked last on each link: mostly the same client.
    last_asker: HashMap<LinkId, (Vec<u8>, Arc<AuthIds>)>,
    /// Sessions that the leader was asked about, and who waits for the answer.
    pub(super) revalidating: Vec<Revalidation>,
    /// When sessions were last told to the leader.
    told: MonoMs,
}

impl Peers {
    /// Forgets everything; those who wait for an answer are given back.
    pub(super) fn clear(&mut self) -> Vec<Revalidation> {
        self.last_asker.clear();
        self.told = MonoMs(0);
        std::mem::take(&mut self.revalidating)
    }
}

/// [`Host`] for one call.
pub(super) struct Clients<'a> {
    pub(super) shared: &'a Shared,
    pub(super) peers: &'a mut Peers,
    pub(super) now: MonoMs,
}

impl Clients<'_> {
    fn asker(&mut self, link: LinkId, ids: &quorum::AuthIds<'_>) -> Arc<AuthIds> {
        if let Some((raw, known)) = self.peers.last_asker.get(&link)
            && raw == ids.raw()
        {
            return Arc::clone(known);
        }
        if self.peers.last_asker.len() >= KNOWN_ASKERS_MAX {
            // Links come and go.
            self.peers.last_asker.clear();
        }
        let named = |id: AuthId<'_>| Some((id.scheme?.to_owned(), id.id?.to_owned()));
        let asker = Arc::new(AuthIds::of_peer_server(ids.iter().filter_map(named)));
        self.peers.last_asker.insert(link, (ids.raw().to_vec(), Arc::clone(&asker)));
        asker
    }
}

impl Host for Clients<'_> {
    fn request(&mut self, link: LinkId, request: &ForwardedRequest<'_>, ids: &quorum::AuthIds<'_>) {
        let Some(op) = OpCode::from_i32(request.op) else {
            tracing::warn!(op = request.op, "a learner forwards what is no request");
            return;
        };
        let owner = owner_of(link);
        if op == OpCode::CreateSession {
            // Before it is prepared: what the client sends next must find it.
            let timeout_ms = request.body.first_chunk::<4>().map_or(0, |bytes| i32::from_be_bytes(*bytes));
            self.shared.sessions.lock().adopt(request.session, timeout_ms, owner, self.now);
        }
        // Judged by who has the session now: until it is prepared its client may have gone elsewhere, written there, and come back.
        let moved = self.shared.sessions.lock().check(request.session, owner)
            == Err(SessionFault::Moved(request.session));
        let owner = if moved { NOBODY } else { owner };
        let learner = Learner { owner, ids: self.asker(link, ids) };
        let write = Write {
            session: request.session,
            xid: request.cxid,
            op,
            body: request.body,
            received: Instant::now(),
        };
        self.shared.commit.submit(|queue| queue.push_learner(learner, &write));
    }

    fn touched(&mut self, touch: Touch) {
        if let Some(handle) = self.shared.sessions.lock().get(touch.session) {
            handle.touch(self.now);
        }
    }

    fn revalidate(&mut self, link: LinkId, touch: Touch) -> bool {
        let mut sessions = self.shared.sessions.lock();
        // One that this server alone knows cannot move.
        if sessions.get(touch.session).is_none_or(|handle| handle.local()) {
            return false;
        }
        let resumed = sessions.resume(touch.session, touch.timeout_ms, owner_of(link), self.now);
        drop(sessions);
        let Some((_, before)) = resumed else { return false };
        // It may have been on this server until now.
        if let Some(conn) = self.shared.conns.get(before) {
            conn.kill();
        }
        true
    }

    fn revalidated(&mut self, session: SessionId, valid: bool) {
        let Some(at) = self.peers.revalidating.iter().position(|waits| waits.session == session) else {
            return;
        };
        let Revalidation { conn, timeout_ms, .. } = self.peers.revalidating.remove(at);
        if valid {
            let before = self.shared.sessions.lock().adopt(session, timeout_ms, conn.id, self.now);
            if let Some(older) = self.shared.conns.get(before).filter(|older| older.id != conn.id) {
                older.kill();
            }
            conn.set_session(session);
        } else {
            conn.set_session(REFUSED);
        }
        conn.write_answered();
        conn.notify();
    }

    fn put_touches(&mut self, out: &mut Vec<u8>) {
        let every_ms = u64::from(self.shared.config.tick_ms) / 2;
        if self.now.since(self.peers.told) < every_ms {
            return;
        }
        let since = std::mem::replace(&mut self.peers.told, self.now);
        let sessions = self.shared.sessions.lock();
        for handle in sessions.iter().filter(|handle| !handle.local() && handle.last_heard() >= since) {
            Touch { session: handle.id(), timeout_ms: handle.timeout_ms() }.put(out);
        }
    }
}
