//! Cores that do not halt while writes come, for who asked for it (`zabra.keepCoresAwake`).
//!
//! Waking a core that halts costs as much as half a flush of a fast disk on a virtual machine, and a lone write wakes several, one after the other
//! (`docs/operations.md`). A zero in [`DEVICE`] has the kernel poll on idle cores instead, for as long as the file is open or until another number is written.
//! It is the whole machine's power, so it is asked for only while transactions are applied here, and until [`AWAKE_FOR`] behind the last one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::server::Shared;

/// Linux's power management quality of service: who has it open says how long, in µs (i32), a core may take to wake.
const DEVICE: &str = "/dev/cpu_dma_latency";

/// What leaves it to the others that have it open, and to the kernel.
const NO_LIMIT: i32 = -1;

/// How often is looked whether there were writes.
const LOOK: Duration = Duration::from_millis(20);

/// How long cores stay awake behind the last write.
const AWAKE_FOR: Duration = Duration::from_millis(200);

/// Keeps cores awake while transactions are applied, until the server stops. Where that is not allowed it says so, and does nothing.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut cores = match Cores::open(Path::new(DEVICE)) {
        Ok(cores) => cores,
        Err(error) => {
            tracing::warn!(
                %error,
                "zabra.keepCoresAwake has no effect: {DEVICE} cannot be opened for writing; give this server's user the right to (a udev rule), or \
                 take the line out of the configuration"
            );
            return;
        }
    };
    tracing::info!("cores are kept awake while writes come (zabra.keepCoresAwake)");
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {
                if let Err(error) = cores.observe(shared.stats.commits.load(Ordering::Relaxed), Instant::now()) {
                    return tracing::warn!(%error, "zabra.keepCoresAwake has no effect any more: cannot write to {DEVICE}");
                }
            }
            () = shared.stopped() => return,
        }
    }
}

/// The kernel's cores, which halt when they are idle, or do not.
#[derive(Debug)]
struct Cores {
    device: File,
    txns: u64,
    awake_until: Option<Instant>,
}

impl Cores {
    fn open(device: &Path) -> io::Result<Cores> {
        Ok(Cores { device: OpenOptions::new().write(true).open(device)?, txns: 0, awake_until: None })
    }

    /// So many transactions were applied until `now`.
    fn observe(&mut self, txns: u64, now: Instant) -> io::Result<()> {
        if std::mem::replace(&mut self.txns, txns) != txns {
            if self.awake_until.replace(now + AWAKE_FOR).is_none() {
                return self.device.write_all(&0_i32.to_ne_bytes());
            }
        } else if self.awake_until.take_if(|until| *until <= now).is_some() {
            return self.device.write_all(&NO_LIMIT.to_ne_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written to a file that stands for the device.
    fn written(device: &Path) -> Vec<i32> {
        let bytes = std::fs::read(device).unwrap();
        bytes.chunks_exact(4).map(|b| i32::from_ne_bytes(b.try_into().unwrap())).collect()
    }

    #[test]
    fn cores_are_awake_from_the_first_write_until_a_while_behind_the_last() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let mut cores = Cores::open(device.path()).unwrap();
        let start = Instant::now();
        let mut observe = |ms, txns| {
            cores.observe(txns, start + Duration::from_millis(ms)).unwrap();
            written(device.path())
        };
        assert!(observe(0, 0).is_empty(), "cores may halt as they like");
        assert_eq!(observe(20, 5), [0]);
        assert_eq!(observe(40, 6), [0], "asked for once");
        assert_eq!(observe(239, 6), [0]);
        assert_eq!(observe(240, 6), [0, NO_LIMIT]);
        assert_eq!(observe(1_000, 6), [0, NO_LIMIT], "given back once");
        assert_eq!(observe(1_020, 7), [0, NO_LIMIT, 0]);
    }
}
