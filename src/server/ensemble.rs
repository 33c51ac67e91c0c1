//! This server as a member of an ensemble: [`crate::node::member`] on a thread of its own, with sockets, a clock and the clients around it.
//!
//! - E1: the member and everything that it decides with are one value (`shell`) behind one lock, which one thread holds nearly always. Connections of clients
//!   hand their writes to it through the queue of `commit`, and read the tree by themselves.
//! - E2: clients are served between [`Output::Serve`](crate::node::member::Output::Serve) and the next `Stop`; then every
//!   connection is closed, because the outcome of what it asked for is not known here.
//! - E3: the thread waits for nothing but the readiness of all its sockets, timers and queues, and for a flush on a disk that is fast. A slow disk is flushed by
//!   a thread of its own.

mod course;
mod evidence;
mod host;
mod pending;
mod shell;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::base::{Epoch, MonoMs, ServerId, SessionId, Zxid};
use crate::node::member::Standing;
use crate::server::config::EnsembleConfig;
use crate::server::conn::Conn;
use crate::storage::superblock::Recall;
use crate::wire::election::PeerState;
use crate::wire::quorum_config::QuorumConfig;

pub(crate) use course::Course;
use shell::{LastWriter, Shell};
pub(crate) use shell::{MemberParts, spawn};

/// What connections and four-letter words know of the ensemble.
#[derive(Debug)]
pub(crate) struct Ensemble {
    pub(crate) config: EnsembleConfig,
    standing: RwLock<Option<Standing>>,
    /// Without a leader, clients that asked for it may read what is committed here (`readonlymode.enabled`).
    read_only: AtomicBool,
    figures: Mutex<Figures>,
    revalidations: Mutex<Vec<Revalidation>>,
    /// Wakes the member's thread.
    pub(crate) notify: Arc<Notify>,
    /// From the start of the member's thread to its end.
    shell: Mutex<Option<Box<Shell>>>,
    last_writer: LastWriter,
    elections: AtomicU64,
    course: Mutex<Course>,
}

/// What is shown of the member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Accepted and current epoch.
    pub(crate) epochs: (Epoch, Epoch),
    /// `None` before the member has said it.
    pub(crate) recall: Option<Recall>,
    pub(crate) appended: Zxid,
    pub(crate) committed: Zxid,
    /// Of a leader: id, has a vote, is in step.
    pub(crate) learners: Vec<(ServerId, bool, bool)>,
    /// Who is in the ensemble; `None` before the member has said it.
    pub(crate) config: Option<Arc<QuorumConfig>>,
}

/// A client has come with a session that this follower must ask the leader about.
#[derive(Debug)]
pub(super) struct Revalidation {
    pub(super) conn: Arc<Conn>,
    pub(super) session: SessionId,
    pub(super) timeout_ms: i32,
}

impl Ensemble {
    pub(crate) fn new(config: EnsembleConfig) -> Ensemble {
        Ensemble {
            config,
            standing: RwLock::default(),
            read_only: AtomicBool::new(false),
            figures: Mutex::default(),
            revalidations: Mutex::default(),
            notify: Arc::new(Notify::new()),
            shell: Mutex::default(),
            last_writer: LastWriter::default(),
            elections: AtomicU64::new(0),
            course: Mutex::default(),
        }
    }

    /// What this server is, while clients are served.
    pub(crate) fn standing(&self) -> Option<Standing> {
        *self.standing.read()
    }

    /// Clients may read, and do nothing else.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// This server leads, and serves.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.standing(), Some(Standing::Leading { .. }))
    }

    pub(crate) fn figures(&self) -> Figures {
        self.figures.lock().clone()
    }

    /// Elections that came to an end here.
    pub(crate) fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }

    /// The member's thread says what it does; true when that is something else than before.
    fn observe(&self, state: PeerState, now: MonoMs) -> bool {
        self.course.lock().observe(state, self.standing(), now)
    }

    /// What was measured of elections.
    pub(crate) fn course(&self) -> Course {
        self.course.lock().clone()
    }

    /// Asks the leader about a session. The connection's session is set when it has answered.
    pub(crate) fn revalidate(&self, conn: &Arc<Conn>, session: SessionId, timeout_ms: i32) {
        self.revalidations.lock().push(Revalidation { conn: Arc::clone(conn), session, timeout_ms });
        self.notify.notify_one();
    }
}
