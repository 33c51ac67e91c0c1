//! A thread that flushes while everything else goes on.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::storage::log::{Durable, Flusher, LogError};

/// A flush that is over, and how long it took.
pub(super) type Flushed = (Flusher, Result<Durable, LogError>, Duration);

/// Flushes here and now.
pub(super) fn flush(mut flusher: Flusher) -> Flushed {
    let started = Instant::now();
    let result = flusher.flush();
    (flusher, result, started.elapsed())
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct SlowDisk {
    pub(super) work: std::sync::mpsc::Sender<Flusher>,
    pub(super) done: mpsc::UnboundedReceiver<Flushed>,
}

impl SlowDisk {
    pub(super) fn start() -> anyhow::Result<SlowDisk> {
        let (work, todo) = std::sync::mpsc::channel::<Flusher>();
        let (finished, done) = mpsc::unbounded_channel();
        crate::server::spawn("zabra-flush", move || {
            while let Ok(flusher) = todo.recv() {
                if finished.send(flush(flusher)).is_err() {
                    return;
                }
            }
        })?;
        Ok(SlowDisk { work, done })
    }
}
