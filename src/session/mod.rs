//! Who is alive. Which sessions exist is replicated state and belongs to the tree; this module knows which connection owns
//! each, when it was last heard, and when it must end.
//!
//! - S1: a session ends only when nothing was heard of it for its timeout, rounded up to the next tick: never earlier.
//! - S2: a closing session takes no more requests, and is reported as expired at most once.
//! - S3: a session has one owner at a time; requests that come late from an earlier connection are refused.
//! - S4: hearing of a session takes no lock: [`SessionHandle::touch`] is one store, buckets are put right when they come due.
//! - S5: ids are never used twice while their session is known, and are never 0 nor the marker of a container.
//!
//! Time is the monotonic clock and comes in as an argument. Facts: ZooKeeper's `SessionTrackerImpl`, `ExpiryQueue` and
//! `ZooKeeperServer.processConnectRequest`.

mod connect;
mod password;
mod tracker;

pub use connect::{ConnectPlan, ConnectState, Refusal, plan_connect};
pub use password::{PASSWORD_BYTES, ZERO_PASSWORD, password, password_matches};
pub use tracker::{SessionFault, SessionHandle, Tracker, first_session_id};
