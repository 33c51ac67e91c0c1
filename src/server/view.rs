//! What the four-letter words see of a running server.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{ConnId, SessionId, Zxid};
use crate::node::member::Standing;
use crate::server::Shared;
use crate::server::config::{Config, LOG_FOLDER, ZABRA_FOLDER};
use crate::server::conn::Conn;
use crate::server::ensemble::Ensemble;
use crate::server::fourletter::{
    self, ClientLine, Learners, Mode, OUTPUT_BYTES_MAX, QuorumFigures, ServerView, SessionGroup, TreeFigures,
    WatchSummary, Word,
};
use crate::server::stats::ServerStats;
use crate::storage::superblock::Recall;

/// Directories below a data directory that are looked into for its size.
const DIR_DEPTH_MAX: usize = 3;

impl Shared {
    /// Appends the answer to a four-letter word to `out`. `mask` follows `stmk` only.
    pub(crate) fn four_letter_word(&self, word: Word, mask: Option<i64>, out: &mut Vec<u8>) {
        fourletter::answer(word, &self.config.four_letter_words, self, mask, out);
    }

    fn session_of(&self, conn: ConnId) -> SessionId {
        self.conns.get(conn).and_then(|conn| conn.session()).unwrap_or(SessionId(0))
    }

    fn client_line(&self, conn: &Conn) -> ClientLine {
        let session = conn.session().unwrap_or(SessionId(0));
        let timeout = self.sessions.lock().get(session).map_or(0, |handle| handle.timeout_ms());
        let mut figures = conn.stats.figures();
        figures.outstanding = conn.pending_writes() as u64;
        ClientLine { remote: conn.peer, interest_ops: 1, session, session_timeout_ms: timeout, figures }
    }

    /// Data and exists watches, as far as they fit into an answer.
    fn watch_pairs(&self) -> Vec<(String, ConnId)> {
        let (mut pairs, mut bytes, mut from) = (Vec::new(), 0, Some(0));
        while let Some(at) = from {
            from = self.tree.read().watch_pairs_step(at, |path, conn| {
                bytes += path.len() + 1;
                pairs.push((path.to_owned(), conn));
                if bytes < OUTPUT_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        pairs
    }

    /// Live sessions by the wall time at which they expire.
    fn sessions_by_time(&self) -> BTreeMap<i64, Vec<SessionId>> {
        let (wall, mono) = (self.wall_now().0, self.mono_now());
        let mut groups: BTreeMap<i64, Vec<SessionId>> = BTreeMap::new();
        let mut after = None;
        // In steps: the tree names them, because it has them in order.
        loop {
            let ids: Vec<SessionId> = self.tree.read().sessions_after(after).collect();
            let Some(last) = ids.last().copied() else { return groups };
            after = Some(last);
            let sessions = self.sessions.lock();
            for handle in ids.iter().filter_map(|id| sessions.get(*id)) {
                let in_ms = sessions.due(handle).since(mono);
                groups.entry(wall.saturating_add_unsigned(in_ms)).or_default().push(handle.id());
            }
        }
    }
}

impl ServerView for Shared {
    fn serving(&self) -> bool {
        !self.is_stopped()
            && self.ensemble.as_ref().is_none_or(|e| e.standing().is_some() || e.is_read_only())
    }

    fn mode(&self) -> Mode {
        match self.ensemble.as_ref().map(Ensemble::standing) {
            None => Mode::Standalone,
            Some(None) if self.is_read_only() => Mode::ReadOnly,
            Some(Some(Standing::Leading { .. })) => Mode::Leader,
            Some(Some(Standing::Learning { observer: true, .. })) => Mode::Observer,
            Some(_) => Mode::Follower,
        }
    }

    fn quorum(&self) -> Option<QuorumFigures> {
        let ensemble = self.ensemble.as_ref()?;
        let (figures, course) = (ensemble.figures(), ensemble.course());
        let config = figures.config.unwrap_or_else(|| Arc::clone(&ensemble.config.config));
        let leader = match ensemble.standing() {
            Some(Standing::Learning { leader, .. }) => Some(leader),
            Some(Standing::Leading { .. }) | None => None,
        };
        Some(QuorumFigures {
            leader,
            epoch_accepted: figures.epochs.0,
            epoch_current: figures.epochs.1,
            recall: figures.recall.unwrap_or(Recall::Whole),
            appended: figures.appended,
            committed: figures.committed,
            learners: Learners::count(&figures.learners, &config),
            leading_ms: course.serving_ms(self.mono_now()),
            elections: ensemble.elections(),
            looking: course.looking,
            election_ms: course.election_ms.summary(),
            unavailable_ms: course.unavailable_ms.summary(),
            leader_unavailable_ms: course.leader_unavailable_ms.summary(),
            config,
        })
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn stats(&self) -> &ServerStats {
        &self.stats
    }

    fn client_port(&self) -> u16 {
        self.client_port.load(Ordering::Relaxed)
    }

    fn last_zxid(&self) -> Zxid {
        self.tree.read().applied()
    }

    fn outstanding(&self) -> u64 {
        self.commit.outstanding() as u64
    }

    fn connection_count(&self) -> usize {
        self.conns.len()
    }

    fn uptime_ms(&self) -> u64 {
        self.mono_now().0
    }

    fn tree(&self) -> TreeFigures {
        let tree = self.tree.read();
        let counts = tree.counts();
        TreeFigures {
            nodes: counts.nodes as u64,
            watches: tree.watch_count() as u64,
            ephemerals: counts.ephemerals as u64,
            sessions_with_ephemerals: tree.ephemeral_owner_count() as u64,
            data_bytes: counts.data_bytes,
            sessions: counts.sessions as u64,
        }
    }

    fn dir_bytes(&self) -> (u64, u64) {
        let data = dir_bytes(&self.config.data_dir.join(ZABRA_FOLDER), DIR_DEPTH_MAX);
        let log = dir_bytes(&self.config.data_log_dir.join(ZABRA_FOLDER).join(LOG_FOLDER), DIR_DEPTH_MAX);
        // In one directory, the log is below the data.
        if self.config.data_dir == self.config.data_log_dir {
            (data - log.min(data), log)
        } else {
            (data, log)
        }
    }

    fn connections(&self, visit: &mut dyn FnMut(&ClientLine) -> ControlFlow<()>) {
        let _ = self.conns.all().iter().try_for_each(|conn: &Arc<Conn>| visit(&self.client_line(conn)));
    }

    fn reset_connection_stats(&self) {
        self.conns.all().iter().for_each(|conn| conn.stats.reset());
    }

    fn session_group_count(&self) -> (usize, usize) {
        let groups = self.sessions_by_time();
        (groups.len(), groups.values().map(Vec::len).sum())
    }

    fn sessions_by_expiry(&self, visit: &mut dyn FnMut(SessionGroup<'_>) -> ControlFlow<()>) {
        let groups = self.sessions_by_time();
        let _ = groups
            .iter()
            .try_for_each(|(expires_ms, sessions)| visit(SessionGroup { expires_ms: *expires_ms, sessions }));
    }

    fn ephemerals(&self, visit: &mut dyn FnMut(SessionId, &str) -> ControlFlow<()>) {
        let mut after = None;
        loop {
            after = self.tree.read().ephemerals_step(after, &mut *visit);
            if after.is_none() {
                return;
            }
        }
    }

    fn watch_summary(&self) -> WatchSummary {
        let summary = self.tree.read().watch_summary();
        WatchSummary {
            connections: summary.conns as u64,
            paths: summary.paths as u64,
            watches: summary.watches as u64,
        }
    }

    fn watches_by_connection(&self, visit: &mut dyn FnMut(ConnId, SessionId, &str) -> ControlFlow<()>) {
        let mut pairs = self.watch_pairs();
        pairs.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let _ = pairs.iter().try_for_each(|(path, conn)| visit(*conn, self.session_of(*conn), path));
    }

    fn watches_by_path(&self, visit: &mut dyn FnMut(&str, SessionId) -> ControlFlow<()>) {
        let pairs = self.watch_pairs();
        let _ = pairs.iter().try_for_each(|(path, conn)| visit(path, self.session_of(*conn)));
    }

    fn digest_log(&self, visit: &mut dyn FnMut(Zxid, u64) -> ControlFlow<()>) {
        let _ = self.tree.read().digest_log().try_for_each(|(zxid, digest)| visit(zxid, digest));
    }

    fn trace_mask(&self) -> i64 {
        self.trace_mask.load(Ordering::Relaxed)
    }

    fn set_trace_mask(&self, mask: i64) {
        self.trace_mask.store(mask, Ordering::Relaxed);
    }
}

fn dir_bytes(dir: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() && depth > 0 => dir_bytes(&entry.path(), depth - 1),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
