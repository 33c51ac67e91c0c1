//! A client that writes all the time, gently: what an application sees of an ensemble that loses nodes.
//!
//! - LO1: a gap is the time between two acknowledged writes, whatever lies in it: elections, reconnecting, waiting for a node that is paused.
//! - LO2: one write at a time; a node that does not answer in time is left for the next one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use parking_lot::Mutex;

use crate::tools::bench::client::{Client, code_name};
use crate::wire::jute::PutJute;
use crate::wire::{Acl, ErrorCode, OpCode, perms, put_acl_vec};

/// The node that is written.
const PATH: &str = "/zabra-demo";

/// Between an answer and the next write.
const PAUSE: Duration = Duration::from_millis(2);

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(1_000);

/// Before the next node is tried.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// What the writer has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    writes: u64,
    last: Option<Instant>,
    longest_gap: Duration,
}

impl Figures {
    fn acknowledged(&mut self, now: Instant) {
        self.longest_gap = self.longest_gap_until(now);
        self.writes += 1;
        self.last = Some(now);
    }

    /// With the one that goes on.
    fn longest_gap_until(&self, now: Instant) -> Duration {
        let open = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.longest_gap.max(open)
    }
}

/// A writer at work.
#[derive(Debug)]
pub(super) struct Load {
    figures: Arc<Mutex<Figures>>,
    /// Writes at the last look, and when that was.
    looked: (u64, Instant),
}

impl Load {
    /// Starts to write to `nodes`, one of them at a time. Ends with the process.
    pub(super) fn start(nodes: Vec<SocketAddr>) -> anyhow::Result<Load> {
        let figures = Arc::new(Mutex::new(Figures::default()));
        let seen = Arc::clone(&figures);
        super::spawn("demo-load", move || {
            for node in nodes.iter().cycle() {
                if let Err(error) = write_to(*node, &seen) {
                    tracing::debug!("the load leaves {node}: {error:#}");
                }
                std::thread::sleep(RETRY_EVERY);
            }
        })?;
        Ok(Load { figures, looked: (0, Instant::now()) })
    }

    /// What is shown of it.
    pub(super) fn line(&mut self) -> String {
        let (now, figures) = (Instant::now(), *self.figures.lock());
        let (before, since) = std::mem::replace(&mut self.looked, (figures.writes, now));
        let secs = now.saturating_duration_since(since).as_secs_f64().max(1e-3);
        let rate = (figures.writes - before) as f64 / secs;
        let gap = figures.longest_gap_until(now).as_millis();
        format!("load: {rate:.0} writes/s, {} in all, longest gap {gap} ms", figures.writes)
    }
}

/// Writes until something goes wrong.
fn write_to(node: SocketAddr, figures: &Mutex<Figures>) -> anyhow::Result<()> {
    let mut client = Client::connect(&[node], ANSWER_LIMIT)?;
    let (code, _) = client.call(OpCode::Create, put_create)?;
    ensure!(matches!(code, 0 | NODE_EXISTS), "cannot create {PATH}: {}", code_name(code));
    loop {
        let (code, _) = client.call(OpCode::SetData, put_set)?;
        ensure!(code == 0, "cannot write {PATH}: {}", code_name(code));
        figures.lock().acknowledged(Instant::now());
        std::thread::sleep(PAUSE);
    }
}

const NODE_EXISTS: i32 = ErrorCode::NodeExists.to_i32();

fn put_create(out: &mut Vec<u8>) {
    out.put_ustring(PATH);
    out.put_buffer(Some(b""));
    put_acl_vec(out, [Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") }]);
    out.put_int(0);
}

fn put_set(out: &mut Vec<u8>) {
    out.put_ustring(PATH);
    out.put_buffer(Some(b"written by zabra demo --load"));
    out.put_int(-1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_while_it_goes_on() {
        let (mut figures, start) = (Figures::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(figures.longest_gap_until(at(500)), Duration::ZERO, "nothing was acknowledged yet");
        figures.acknowledged(at(1_000));
        figures.acknowledged(at(1_010));
        assert_eq!(figures.longest_gap_until(at(1_400)).as_millis(), 390);
        figures.acknowledged(at(1_500));
        figures.acknowledged(at(1_510));
        assert_eq!((figures.writes, figures.longest_gap_until(at(1_520)).as_millis()), (4, 490));
    }
}
