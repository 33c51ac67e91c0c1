//! `mntr`: `zk_<key>\t<value>` lines. Only what is measured is listed; ZooKeeper's other keys are absent, never a made-up zero.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::stats::{Histogram, ServerStats, Summary};
use super::text::{Text, java_double};
use super::view::{Mode, QuorumFigures, ServerView};
use super::{extremes_ms, full_version, mean_ms};
use crate::storage::superblock::Recall;

/// Appends all lines.
pub(super) fn mntr(view: &dyn ServerView, out: &mut Text<'_>) {
    put(out, "version", full_version());
    put(out, "server_state", view.mode().name());
    let quorum = view.quorum();
    if let Some(quorum) = &quorum {
        put(out, "peer_state", peer_state(view.mode()));
        if let (Mode::Observer, Some(leader)) = (view.mode(), quorum.leader) {
            put(out, "observer_master_id", leader.0);
        }
    }
    gauges(view, out);
    if let Some(quorum) = &quorum {
        peer_gauges(view, quorum, out);
    }
    counters(view.stats(), out);
    summaries(view.stats(), out);
    if let Some(quorum) = &quorum {
        elections(quorum, out);
    }
    zabra(view, quorum.as_ref(), out);
}

/// What a member does, and in which phase of ZAB. One that serves is always in the last one.
const fn peer_state(mode: Mode) -> &'static str {
    match mode {
        Mode::Leader => "leading - broadcast",
        Mode::Follower => "following - broadcast",
        Mode::Observer => "observing - broadcast",
        Mode::Standalone | Mode::ReadOnly => "looking",
    }
}

fn put(out: &mut Text<'_>, key: &str, value: impl std::fmt::Display) {
    out.line(format_args!("zk_{key}\t{value}"));
}

fn gauges(view: &dyn ServerView, out: &mut Text<'_>) {
    let (stats, tree) = (view.stats(), view.tree());
    let latency = &stats.latency_us;
    put(out, "avg_latency", mean_ms(latency.mean()));
    let (min, max) = extremes_ms(latency);
    put(out, "max_latency", max);
    put(out, "min_latency", min);
    put(out, "packets_received", load(&stats.packets_received));
    put(out, "packets_sent", load(&stats.packets_sent));
    put(out, "num_alive_connections", view.connection_count());
    put(out, "outstanding_requests", view.outstanding());
    put(out, "uptime", view.uptime_ms());
    put(out, "znode_count", tree.nodes);
    put(out, "watch_count", tree.watches);
    put(out, "ephemerals_count", tree.ephemerals);
    put(out, "approximate_data_size", tree.data_bytes);
    put(out, "global_sessions", tree.sessions);
    put(out, "local_sessions", 0);
    let (open, limit) = view.file_descriptors();
    put(out, "open_file_descriptor_count", open);
    put(out, "max_file_descriptor_count", i64::try_from(limit).unwrap_or(i64::MAX));
    put(out, "connection_drop_probability", java_double(0.0));
    let (last, min, max) = stats.response_size.get();
    put(out, "last_client_response_size", last);
    put(out, "max_client_response_size", max);
    put(out, "min_client_response_size", min);
    put(out, "outstanding_tls_handshake", 0);
    put(out, "auth_failed_count", load(&stats.auth_failed));
    put(out, "non_mtls_remote_conn_count", 0);
    put(out, "non_mtls_local_conn_count", 0);
    if view.mode() == Mode::Leader {
        let (last, min, max) = stats.proposal_size.get();
        put(out, "last_proposal_size", last);
        put(out, "max_proposal_size", max);
        put(out, "min_proposal_size", min);
    }
}

/// What ZooKeeper's quorum peers add.
fn peer_gauges(view: &dyn ServerView, quorum: &QuorumFigures, out: &mut Text<'_>) {
    put(out, "quorum_size", quorum.config.voters().count());
    if view.mode() == Mode::Leader {
        let learners = &quorum.learners;
        put(out, "learners", learners.connected);
        put(out, "synced_followers", learners.synced_followers);
        put(out, "synced_non_voting_followers", learners.synced_non_voting_followers);
        put(out, "synced_observers", learners.synced_observers);
        put(out, "leader_uptime", quorum.leading_ms);
    }
}

fn elections(quorum: &QuorumFigures, out: &mut Text<'_>) {
    put(out, "looking_count", quorum.looking);
    summary_of(out, "election_time", quorum.election_ms, 1, false);
    summary_of(out, "unavailable_time", quorum.unavailable_ms, 1, false);
    summary_of(out, "leader_unavailable_time", quorum.leader_unavailable_ms, 1, false);
}

/// What ZooKeeper does not have. Zxids are decimal numbers here: programs draw them.
fn zabra(view: &dyn ServerView, quorum: Option<&QuorumFigures>, out: &mut Text<'_>) {
    if let Some(quorum) = quorum {
        put(out, "zabra_epoch_accepted", quorum.epoch_accepted);
        put(out, "zabra_epoch_current", quorum.epoch_current);
        put(out, "zabra_elections", quorum.elections);
        put(out, "zabra_history_whole", u8::from(quorum.recall == Recall::Whole));
        put(out, "zabra_zxid_appended", quorum.appended.0);
        put(out, "zabra_zxid_committed", quorum.committed.0);
        if let Some(leader) = quorum.leader {
            put(out, "zabra_leader_id", leader.0);
        }
    }
    put(out, "zabra_zxid_applied", view.last_zxid().0);
    let flushes = view.stats().fsync_us.summary();
    for (key, value) in [("p50", flushes.p50), ("p99", flushes.p99), ("max", flushes.max)] {
        put(out, &format!("zabra_{key}_fsync_us"), value);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

fn counters(stats: &ServerStats, out: &mut Text<'_>) {
    for (key, counter) in [
        ("bytes_received_count", &stats.bytes_received),
        ("response_bytes", &stats.response_bytes),
        ("watch_bytes", &stats.watch_bytes),
        ("connection_request_count", &stats.connection_requests),
        ("connection_drop_count", &stats.connections_dropped),
        ("connection_rejected", &stats.connections_rejected),
        ("sessionless_connections_expired", &stats.sessionless_expired),
        ("stale_sessions_expired", &stats.sessions_expired),
        ("proposal_count", &stats.proposals),
        ("commit_count", &stats.commits),
        ("snapshot_error_count", &stats.snapshot_errors),
        ("digest_mismatches_count", &stats.digest_mismatches),
        ("fsync_threshold_exceed_count", &stats.fsync_threshold_exceeded),
    ] {
        put(out, key, load(counter));
    }
}

fn summaries(stats: &ServerStats, out: &mut Text<'_>) {
    summary(out, "readlatency", &stats.read_latency_us, 1_000, true);
    summary(out, "updatelatency", &stats.update_latency_us, 1_000, true);
    summary(out, "fsynctime", &stats.fsync_us, 1_000, false);
    summary(out, "snapshottime", &stats.snapshot_us, 1_000, false);
    summary(out, "sync_processor_batch_size", &stats.batch_size, 1, false);
    let watches = ["node_created", "node_deleted", "node_changed", "node_children"];
    for (name, fired) in watches.iter().zip(&stats.watches_fired) {
        summary(out, &format!("{name}_watch_count"), fired, 1, false);
    }
}

/// One of ZooKeeper's summaries; `unit` divides what is recorded, so that microseconds come out as its milliseconds.
fn summary(out: &mut Text<'_>, name: &str, histogram: &Histogram, unit: u64, percentiles: bool) {
    summary_of(out, name, histogram.summary(), unit, percentiles);
}

fn summary_of(out: &mut Text<'_>, name: &str, values: Summary, unit: u64, percentiles: bool) {
    let Summary { count, sum, min, max, p50, p95, p99, p999 } = values;
    let mean = if count == 0 { 0.0 } else { sum as f64 / count as f64 / unit as f64 };
    put(out, &format!("avg_{name}"), java_double((mean * 10_000.0).round() / 10_000.0));
    let values = [("min", min), ("max", max.next_multiple_of(unit)), ("cnt", count * unit), ("sum", sum)];
    for (key, value) in values {
        put(out, &format!("{key}_{name}"), value / unit);
    }
    if percentiles {
        for (key, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("p999", p999)] {
            put(out, &format!("{key}_{name}"), value / unit);
        }
    }
}
