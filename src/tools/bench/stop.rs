//! How a run ends before its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;

/// Interrupts so far: the first ends the load, the second the cleaning up.
#[derive(Debug, Default)]
pub(super) struct Stop {
    interrupts: AtomicUsize,
}

impl Stop {
    /// True once the load should end.
    pub(super) fn is_set(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed) > 0
    }

    /// True once everything should end.
    pub(super) fn is_urgent(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed) > 1
    }

    /// Counts an interrupt.
    pub(super) fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts SIGINT and SIGTERM from here on, on a thread of its own that lives as long as the process.
pub(super) fn on_interrupt() -> anyhow::Result<Arc<Stop>> {
    let stop = Arc::new(Stop::default());
    let counted = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listen = async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        loop {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            counted.interrupt();
        }
        #[allow(unreachable_code)] // gives the block its error type
        std::io::Result::Ok(())
    };
    std::thread::Builder::new()
        .name("bench-signals".into())
        .spawn(move || runtime.block_on(listen))
        .context("cannot start a thread")?;
    Ok(stop)
}
