//! Work by the clock: sessions that expire, containers and TTL nodes that are due, the spare log segment.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::base::SessionId;
use crate::server::Shared;
use crate::storage::log::{LogError, SpareMaker};
use crate::wire::OpCode;
use crate::wire::jute::PutJute;

/// How often the spare segment is looked after. A segment lasts a fifth of a second at the very least (64 MiB at 300 MB/s).
const SEGMENT_CHECK: Duration = Duration::from_millis(20);

/// How long a log that nothing is appended to waits before it writes down how far it is durable.
const IDLE_MARK: Duration = Duration::from_secs(1);

/// Expires sessions until the server stops.
pub(crate) async fn run_expiry(shared: Arc<Shared>) {
    // Sessions are due on ticks; looking twice per tick keeps the error below half a tick.
    let period = Duration::from_millis(u64::from(shared.config.tick_ms)) / 2;
    let mut expiry = tokio::time::interval(period);
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            _ = expiry.tick() => {
                // This process was paused: connections must first read what their clients sent meanwhile.
                let paused = last.elapsed() > 2 * period;
                last = Instant::now();
                if !paused {
                    expire(&shared);
                }
            }
            () = shared.stopped() => return,
        }
    }
}

/// Removes empty containers and TTL nodes until the server stops.
pub(crate) async fn run_reaper(shared: Arc<Shared>) {
    let mut reap = tokio::time::interval(Duration::from_millis(shared.config.reaper.interval_ms.max(1)));
    reap.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reap.reset();
    loop {
        tokio::select! {
            _ = reap.tick() => reap_nodes(&shared).await,
            () = shared.stopped() => return,
        }
    }
}

fn expire(shared: &Arc<Shared>) {
    let ends_all = shared.ends_sessions();
    for session in std::mem::take(&mut *shared.unclosed.lock()) {
        shared.commit.submit_own(session, OpCode::CloseSession, &[]);
    }
    let now = shared.mono_now();
    // Whoever waits for us is not silent: its pings stand behind the write that we have not answered.
    let waiting: Vec<SessionId> =
        shared.conns.all().iter().filter(|c| c.pending_writes() > 0).filter_map(|c| c.session()).collect();
    let mut due = Vec::new();
    {
        let mut sessions = shared.sessions.lock();
        for session in waiting {
            if let Some(handle) = sessions.get(session) {
                handle.touch(now);
            }
        }
        // A follower ends those that it alone knows.
        sessions.poll_expired_if(now, |handle| ends_all || handle.local(), &mut due);
    }
    for session in due {
        tracing::info!(%session, "session expired");
        shared.stats.sessions_expired.fetch_add(1, Ordering::Relaxed);
        if shared.sessions.lock().get(session).is_some_and(|handle| handle.local()) {
            shared.session_closed(session, None);
        } else {
            shared.commit.submit_own(session, OpCode::CloseSession, &[]);
        }
    }
}

async fn reap_nodes(shared: &Arc<Shared>) {
    if !shared.ends_sessions() {
        return;
    }
    let never_used_ms_max = i64::try_from(shared.config.reaper.never_used_ms_max).unwrap_or(i64::MAX);
    let (now, mut due, mut at) = (shared.wall_now(), Vec::new(), None);
    loop {
        at = shared.tree.read().reapable_step(at, now, never_used_ms_max, &mut due);
        if at.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let pause = Duration::from_millis(60_000 / u64::from(shared.config.reaper.per_minute_max.max(1)));
    for path in due {
        if shared.is_stopped() {
            return;
        }
        let mut body = Vec::new();
        body.put_ustring(&path);
        shared.commit.submit_own(SessionId(0), OpCode::DeleteContainer, &body);
        tokio::time::sleep(pause).await;
    }
}

/// Keeps a spare log segment ready, and marks an idle log, until the server stops.
pub(crate) fn run_segments(shared: &Arc<Shared>, mut spare: SpareMaker) {
    let mut said = false;
    let mut idle_since = Instant::now();
    while !shared.is_stopped() {
        match spare.prepare_if_needed() {
            Ok(_) => {
                said = false;
                if let Some(alone) = shared.commit.alone() {
                    alone.note_space();
                }
            }
            Err(error @ LogError::NoSpace { .. }) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "no spare log segment; trying again until there is space");
                }
            }
            Err(error) => return shared.fail(&error),
        }
        if let Some(below) = shared.snapshots.take_purge() {
            match spare.purge(below) {
                Ok(0) => {}
                Ok(count) => tracing::info!(segments = count, zxid = %below, "log segments retired"),
                Err(error) => return shared.fail(&error),
            }
        }
        if idle_since.elapsed() >= IDLE_MARK {
            idle_since = Instant::now();
            if let Some(alone) = shared.commit.alone() {
                alone.mark_if_idle(shared);
            }
        }
        std::thread::sleep(SEGMENT_CHECK);
    }
}
