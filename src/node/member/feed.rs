//! How a learner gets the leader's history: from an image of the tree, from the log, from memory, from the broadcast. The hand-over happens at one
//! zxid: [`Feed::sent`] is the last one put on the link, wherever it came from.

use super::link::{BACKLOG_BYTES_LOW, BACKLOG_BYTES_MAX, Feed, Link, Outgoing, Source};
use super::recent::Recent;
use super::{Member, Role};
use crate::base::{MonoMs, Zxid};
use crate::node::SharedTree;
use crate::node::snap_stream::SnapSource;
use crate::storage::log::{Group, LogError, LogReader};
use crate::wire::quorum::{PacketKind, QuorumPacket, put_packet};
use crate::zab::leader::Input;
use crate::zab::{LinkId, Rule};

/// Bytes put on a link in one turn: others get theirs in between.
const TURN_BYTES: usize = 256 << 10;

/// What a feed needs to know of its leader.
#[derive(Clone, Copy)]
struct View {
    appended: Zxid,
    durable: Zxid,
    /// Committed, or about to be together with the epoch.
    committed: Zxid,
    epoch_begin: Zxid,
}

impl Feed {
    /// Up to where this learner is to be fed: an observer hears of what is committed only.
    fn limit(&self, view: &View) -> Zxid {
        if self.voter { view.appended } else { view.committed }
    }

    /// COMMITs are told with the history, and then again once the learner is up to date: ZooKeeper's stumble over them in between.
    fn hears_commits(&self) -> bool {
        !self.new_leader_sent || self.up_to_date
    }

    fn put_record(&mut self, out: &mut Outgoing, zxid: Zxid, payload: &[u8], view: &View) {
        debug_assert!(zxid > self.sent, "nothing twice");
        let informs = !self.voter && self.new_leader_sent;
        let kind = if informs { PacketKind::Inform } else { PacketKind::Proposal };
        put_packet(out.buf(), kind, zxid, |out| out.extend_from_slice(payload));
        self.sent = zxid;
        if informs {
            self.commit_sent = zxid;
        } else if !self.zabra && self.hears_commits() && zxid <= view.committed {
            self.commit(out, zxid);
        }
    }

    fn commit(&mut self, out: &mut Outgoing, zxid: Zxid) {
        QuorumPacket::new(PacketKind::Commit, zxid, None).put(out.buf());
        self.commit_sent = zxid;
    }

    /// Tells what of what was sent is committed: one COMMIT for all to a Zabra node, one for each to others.
    fn put_commits(&mut self, out: &mut Outgoing, view: &View) {
        let upto = view.committed.min(self.sent);
        if upto <= self.commit_sent || !self.hears_commits() || (!self.voter && self.new_leader_sent) {
            return;
        }
        if self.zabra {
            return self.commit(out, upto);
        }
        // Of earlier epochs each was told with its proposal.
        let from = Zxid(self.commit_sent.0 + 1).max(Zxid(view.epoch_begin.0 + 1));
        (from.0..=upto.0).for_each(|zxid| self.commit(out, Zxid(zxid)));
    }
}

impl Member {
    fn view(&self) -> View {
        View {
            appended: self.positions.appended(),
            durable: self.positions.durable(),
            committed: self.committed_view(),
            epoch_begin: Zxid::new(self.leader_epoch(), 0),
        }
    }

    /// A group was appended: those who keep up get it at once.
    pub(super) fn feed_proposals(&mut self, group: &Group) {
        let view = self.view();
        for link in self.links.values_mut() {
            let Some((feed, out)) = link.feed() else { continue };
            if !feed.voter || !matches!(feed.source, Source::Live) {
                continue;
            }
            for (zxid, _, payload) in group.iter() {
                feed.put_record(out, zxid, payload, &view);
            }
            if out.waiting().len() > BACKLOG_BYTES_MAX {
                feed.source = Source::Log(None);
            }
        }
    }

    /// More is committed.
    pub(super) fn feed_commits(&mut self) {
        let view = self.view();
        for link in self.links.values_mut() {
            let Some((feed, out)) = link.feed() else { continue };
            feed.put_commits(out, &view);
            if !feed.voter && feed.up_to_date && matches!(feed.source, Source::Live) {
                feed_from_memory(feed, out, &self.recent, &view, usize::MAX);
                if feed.sent < view.committed || out.waiting().len() > BACKLOG_BYTES_MAX {
                    feed.source = Source::Log(None);
                }
            }
        }
    }

    /// The learner was told that it is up to date.
    pub(super) fn note_up_to_date(&mut self, link: LinkId) {
        let view = self.view();
        if let Some((feed, out)) = self.links.get_mut(&link).and_then(Link::feed) {
            feed.up_to_date = true;
            feed.put_commits(out, &view);
            if !feed.voter {
                feed.source = Source::Log(None);
                if self.broken.is(Rule::GapNotNoticed) {
                    feed.sent = view.committed;
                }
            }
        }
    }

    /// One turn for each learner that is behind; true when one of them can take more at once.
    pub(super) fn feed_all(&mut self, now: MonoMs, tree: &impl SharedTree) -> bool {
        let behind = |link: &mut Link| match link.feed() {
            Some((feed, out)) => {
                matches!(feed.source, Source::Snap(_) | Source::Log(_))
                    && out.waiting().len() < BACKLOG_BYTES_LOW
            }
            None => false,
        };
        let links: Vec<LinkId> =
            self.links.iter_mut().filter_map(|(id, l)| behind(l).then_some(*id)).collect();
        let mut more = false;
        for link in links {
            match self.feed_one(now, link, tree) {
                Ok(again) => more |= again,
                // Purged under the reader: it comes again, and is planned for anew.
                Err(LogError::Compacted { .. }) => {
                    self.close(link, Some("the log it was fed from was purged".to_owned()));
                    self.lead_input(now, Input::Left(link));
                }
                Err(error) => self.fail(error.into()),
            }
            if !matches!(self.role, Role::Leading(_)) {
                return false;
            }
        }
        self.answer_syncs();
        more
    }

    fn feed_one(&mut self, now: MonoMs, link: LinkId, tree: &impl SharedTree) -> Result<bool, LogError> {
        let view = self.view();
        let config = std::sync::Arc::clone(self.electorate.current());
        let hasty = self.broken.is(Rule::StateBelowTheLog);
        let Some((feed, out)) = self.links.get_mut(&link).and_then(Link::feed) else { return Ok(false) };
        if let Source::Snap(source) = &mut feed.source {
            if source.is_none() && self.positions.applied() < feed.state_least && !hasty {
                // The tree here is not that far yet.
                return Ok(false);
            }
            let (sent, more) = feed_state(source, out, tree);
            if let Some(zxid) = sent {
                (feed.sent, feed.commit_sent, feed.source) = (zxid, zxid, Source::Log(None));
            }
            return Ok(more);
        }
        feed_from_log(feed, out, &self.storage.reader, &self.recent, &view)?;
        let limit = feed.limit(&view);
        if feed.sent < limit {
            return Ok(true);
        }
        feed.put_commits(out, &view);
        feed.source = Source::Live;
        if !feed.new_leader_sent {
            feed.new_leader_sent = true;
            put_packet(out.buf(), PacketKind::NewLeader, view.epoch_begin, |out| {
                out.extend_from_slice(config.to_string().as_bytes());
            });
            self.lead_input(now, Input::NewLeaderSent(link));
        }
        Ok(false)
    }
}

/// A turn of the whole state: the zxid it was at when it is all sent, and whether there is more to send.
fn feed_state(
    source: &mut Option<Box<SnapSource>>,
    out: &mut Outgoing,
    tree: &impl SharedTree,
) -> (Option<Zxid>, bool) {
    if source.is_none() {
        // One image at a time: while a snapshot is taken the learner waits.
        let Some(begun) = SnapSource::begin(tree) else { return (None, false) };
        QuorumPacket::new(PacketKind::Snap, begun.zxid(), None).put(out.buf());
        *source = Some(Box::new(begun));
    }
    let state = source.as_mut().expect("begun");
    let until = out.waiting().len() + TURN_BYTES;
    while out.waiting().len() < until {
        if !state.step(tree, out.buf()) {
            let state = source.take().expect("stepped just now");
            let zxid = state.zxid();
            state.finish(tree);
            return (Some(zxid), true);
        }
    }
    (None, true)
}

/// A turn of the history: from the log as far as that is durable, then from memory.
fn feed_from_log(
    feed: &mut Feed,
    out: &mut Outgoing,
    reader: &LogReader,
    recent: &Recent,
    view: &View,
) -> Result<(), LogError> {
    let (limit, until) = (feed.limit(view), out.waiting().len() + TURN_BYTES);
    if feed.sent < recent.after() && feed.sent < view.durable {
        let mut cursor = match std::mem::replace(&mut feed.source, Source::Log(None)) {
            Source::Log(Some(cursor)) => cursor,
            _ => reader.after(feed.sent)?,
        };
        while out.waiting().len() < until
            && let Some((zxid, payload)) = cursor.next()?
        {
            if zxid > limit {
                // The cursor has passed it: another one begins there.
                return Ok(());
            }
            feed.put_record(out, zxid, payload, view);
        }
        feed.source = Source::Log(Some(cursor));
    }
    if feed.sent >= recent.after() {
        feed_from_memory(feed, out, recent, view, until);
        feed.source = Source::Log(None);
    }
    Ok(())
}

fn feed_from_memory(feed: &mut Feed, out: &mut Outgoing, recent: &Recent, view: &View, until: usize) {
    for (zxid, payload) in recent.records(feed.sent, feed.limit(view)) {
        if out.waiting().len() >= until {
            return;
        }
        feed.put_record(out, zxid, payload, view);
    }
}
