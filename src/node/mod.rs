//! Joins the cores: a request becomes a transaction, a transaction and its outcome become a reply, a read is answered.
//!
//! - N1: writes are judged against everything prepared before them ([`Prepare`]), applied by the tree alone, and answered from
//!   what applying them came to ([`put_write_reply`]).
//! - N2: a read is answered from one state of the tree, and the watch it asks for is set in that same state ([`serve_read`]).
//! - N3: nothing here reads a clock or a socket, nor a file but through `storage`; bytes from clients never panic.
//! - N4: what survives the process goes through [`recover()`] on the way in and [`SnapshotTask`] on the way out, in the server as in
//!   the simulator.

pub mod auth;
pub mod ip;
pub mod member;
mod overlay;
pub mod path;
pub mod prepare;
mod read;
pub mod recover;
mod reply;
pub mod snap_stream;
pub mod snapshot;

pub use auth::{AuthError, AuthIds, AuthOptions};
pub use prepare::{Prepare, PrepareOptions, Sessions, WriteRequest};
pub use read::{REPLY_BYTES_MAX, ReadContext, serve_read, serve_read_body};
pub use recover::{
    AnnounceError, NodeDir, NodePlaces, RecoverError, RecoverOptions, RecoveredNode, Replay, ResetError,
    TruncateError, rebuild, recover,
};
pub use reply::{Served, put_session_fault, put_unimplemented, put_write_reply, serve_auth, serve_sasl};
pub use snap_stream::{Feed, SnapEnd, SnapProgress, SnapSink, SnapSource, SnapStreamError};
pub use snapshot::{SharedTree, SnapshotFailed, SnapshotOptions, SnapshotTask};
