//! The leader's side: what its machine decides becomes packets, and packets of learners become its inputs.

use std::collections::VecDeque;

use super::link::{Feed, Kind, Link, Source};
use super::{Host, Member, MemberError, Output, Role, StopReason};
use crate::base::{Epoch, MonoMs, Zxid};
use crate::election;
use crate::storage::log::{Group, LogError};
use crate::wire::OpCode;
use crate::wire::quorum::{PacketKind, PacketLimits, PeerError, QuorumPacket, Step, put_packet};
use crate::wire::quorum_payload::{
    ForwardedRequest, LearnerInfo, put_leader_info, put_revalidate_reply, read_ack_epoch, read_ping_reply,
    read_revalidate,
};
use crate::zab::leader::{GiveUpReason, Input, Leader, Output as Decision, Summary};
use crate::zab::{LinkId, Plan, Rule};

/// Of whoever has not said yet who it is: FOLLOWERINFO is far smaller.
const HELLO_LIMITS: PacketLimits = PacketLimits { data_bytes_max: 4_096, authinfo_bytes_max: 4_096 };

/// One leadership.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) leader: Leader,
    syncs: VecDeque<Sync>,
    /// Who asked when the epoch's zxids were used up: asked for in the next one, so that it can begin.
    syncs_later: Vec<Option<LinkId>>,
    /// Everybody who asked up to this token has been confirmed.
    confirmed: u64,
    /// Where the epoch's history begins: acknowledgements of what came before say nothing.
    pub(super) began_at: Zxid,
    /// Learners that are told to serve when this server does: what their clients want can be taken then, and not before.
    up_to_date_later: Vec<LinkId>,
}

/// Somebody waits to know that this server still led when they asked, and to see everything proposed until then.
#[derive(Clone, Copy, Debug)]
struct Sync {
    token: u64,
    after: Zxid,
    /// `None`: a client of this server.
    from: Option<LinkId>,
}

impl Leading {
    /// Somebody waits for an answer to a sync.
    pub(super) fn has_syncs(&self) -> bool {
        !self.syncs.is_empty()
    }

    pub(super) fn next_timer(&self) -> Option<MonoMs> {
        self.leader.next_timer()
    }

    pub(super) const fn epoch(&self) -> Option<Epoch> {
        self.leader.epoch()
    }

    pub(super) const fn is_established(&self) -> bool {
        self.leader.is_established()
    }
}

impl Member {
    /// The election has chosen this server.
    pub(super) fn lead(&mut self, now: MonoMs) {
        assert!(matches!(self.role, Role::Looking), "who looks is elected");
        assert!(self.positions.is_flushed(), "M3");
        self.role = Role::Leading(Box::new(Leading {
            leader: self.new_leader(now).breaking(self.broken),
            syncs: VecDeque::new(),
            syncs_later: Vec::new(),
            confirmed: 0,
            began_at: self.positions.appended(),
            up_to_date_later: Vec::new(),
        }));
        // Those who came before this server knew.
        let parked: Vec<LinkId> = self.links.keys().copied().collect();
        self.outputs.extend(parked.into_iter().map(Output::Resume));
        self.lead_outputs(now);
    }

    /// The machine of a leader that begins with what is in this server's log.
    pub(super) fn new_leader(&self, now: MonoMs) -> Leader {
        let (accepted, current) = self.epochs();
        let accepted = accepted.max(self.epoch_seen);
        let mine = Summary { accepted, current, last: self.positions.appended() };
        Leader::new(now, self.options.me, self.electorate.clone(), self.options.limits, mine)
    }

    /// Proposes a group of transactions whose zxids follow the last one: it is in the log, and on its way to the learners.
    ///
    /// # Errors
    /// There is no space: this server stops leading, and the group is as good as never made. After any other failure the process ends.
    pub fn propose(&mut self, now: MonoMs, mut group: Group) -> Result<(), LogError> {
        assert!(self.may_propose(), "only a leader that serves proposes");
        let (Some(first), Some(last)) = (group.first_zxid(), group.last_zxid()) else { return Ok(()) };
        assert!(
            first.epoch() == last.epoch() && first > self.positions.appended(),
            "zxids of this epoch, in order"
        );
        match self.storage.appender.append(&mut group) {
            Ok(_) => {}
            Err(error @ LogError::NoSpace { .. }) => {
                self.rest_without_space(now);
                return Err(error);
            }
            Err(error) => {
                let told = LogError::Latched { cause: error.to_string().into() };
                self.fail(error.into());
                return Err(told);
            }
        }
        self.positions.append(last);
        self.feed_proposals(&group);
        self.recent.push(group);
        self.lead_input(now, Input::Proposed(last));
        Ok(())
    }

    /// A client of this server, which leads, wants to read what is committed now: [`Output::Synced`] answers.
    pub fn sync(&mut self, now: MonoMs) {
        self.sync_for(now, None);
    }

    /// Voters in step and all learners, for those who watch: id, has a vote, is in step.
    #[must_use]
    pub fn learners(&self) -> Vec<(crate::base::ServerId, bool, bool)> {
        match &self.role {
            Role::Leading(leading) => {
                leading.leader.learners().map(|(_, id, voter, step)| (id, voter, step)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn sync_for(&mut self, now: MonoMs, from: Option<LinkId>) {
        let hasty = self.broken.is(Rule::SyncUnconfirmed);
        let after = if hasty { self.positions.committed() } else { self.positions.appended() };
        let between = self.is_between_epochs();
        let Role::Leading(leading) = &mut self.role else { return };
        if between {
            return leading.syncs_later.push(from);
        }
        leading.syncs.push_back(Sync { token: leading.leader.ask_token(), after, from });
        self.lead_input(now, Input::Ask);
    }

    /// Asks for those who came between two epochs.
    pub(super) fn sync_for_the_late(&mut self, now: MonoMs) {
        if self.is_between_epochs() {
            return;
        }
        let Role::Leading(leading) = &mut self.role else { return };
        for from in std::mem::take(&mut leading.syncs_later) {
            self.sync_for(now, from);
        }
    }

    pub(super) fn lead_timer(&mut self, now: MonoMs) {
        self.hear_those_who_take(now);
        self.lead_input(now, Input::Timer);
    }

    /// A learner says nothing while a long history or a large state is on its way to it: that it takes what it is sent is a sign of life.
    fn hear_those_who_take(&mut self, now: MonoMs) {
        let takes = |(id, link): (&LinkId, &mut Link)| {
            let (feed, out) = link.feed()?;
            (out.take_moved() && !feed.up_to_date).then_some(*id)
        };
        let takers: Vec<LinkId> = self.links.iter_mut().filter_map(takes).collect();
        takers.into_iter().for_each(|link| self.lead_input(now, Input::Heard(link)));
    }

    pub(super) fn lead_input(&mut self, now: MonoMs, input: Input) {
        let Role::Leading(leading) = &mut self.role else { return };
        leading.leader.handle(now, input);
        self.lead_outputs(now);
    }

    fn lead_outputs(&mut self, now: MonoMs) {
        while let Role::Leading(leading) = &mut self.role
            && let Some(decision) = leading.leader.poll()
        {
            if let Err(error) = self.carry_out(now, decision) {
                self.fail(error);
            }
        }
    }

    fn carry_out(&mut self, now: MonoMs, decision: Decision) -> Result<(), MemberError> {
        match decision {
            Decision::Accept(epoch) => {
                if !self.broken.is(Rule::PromiseNotStored) {
                    self.storage.dir.accept_epoch(epoch)?;
                }
                self.leader_handles(now, Input::Accepted);
            }
            Decision::LeaderInfo(link) => {
                let epoch = self.leader_epoch();
                self.put(link, PacketKind::LeaderInfo, Zxid::new(epoch, 0), put_leader_info);
            }
            Decision::Enter(epoch) => {
                assert!(self.positions.is_flushed(), "history before epoch");
                self.storage.dir.enter_epoch(epoch)?;
                self.leader_handles(now, Input::Entered);
            }
            Decision::Synchronise { link, theirs } => self.synchronise(now, link, theirs)?,
            Decision::Established => {
                let epoch = self.leader_epoch();
                self.positions.commit(self.positions.appended());
                self.elect(now, election::Input::Established { epoch: i64::from(epoch.0) });
                self.serve_from(self.positions.committed());
            }
            Decision::UpToDate(link) => match &mut self.role {
                Role::Leading(leading) if !self.serving => leading.up_to_date_later.push(link),
                _ => self.tell_up_to_date(link),
            },
            Decision::Commit(zxid) => {
                self.positions.commit(zxid);
                self.feed_commits();
                self.answer_syncs();
            }
            Decision::Ping { link, token } if self.takes_pings(link) => {
                self.put_empty(link, PacketKind::Ping, i64::try_from(token).unwrap_or(i64::MAX));
            }
            Decision::Ping { .. } => {}
            Decision::Confirmed(token) => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.confirmed = token;
                }
                self.answer_syncs();
            }
            Decision::Drop { link, why } => self.close(link, Some(why.to_string())),
            Decision::GiveUp(why) => {
                match why {
                    GiveUpReason::LaterEpoch(_, epoch) => self.epoch_seen = self.epoch_seen.max(epoch),
                    GiveUpReason::QuorumLost(_) => self.begin_quiet(now),
                    _ => {}
                }
                self.look(now, StopReason::Leader(why));
            }
        }
        Ok(())
    }

    /// This server serves now, and so may those who have waited for it.
    pub(super) fn serve_as_leader(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        for link in std::mem::take(&mut leading.up_to_date_later) {
            self.tell_up_to_date(link);
        }
    }

    fn tell_up_to_date(&mut self, link: LinkId) {
        self.put_empty(link, PacketKind::UpToDate, -1);
        self.note_up_to_date(link);
        self.answer_syncs();
    }

    /// ZooKeeper's learners do not expect a ping before UPTODATE.
    fn takes_pings(&mut self, link: LinkId) -> bool {
        self.links.get_mut(&link).and_then(Link::feed).is_some_and(|(feed, _)| feed.zabra || feed.up_to_date)
    }

    /// Like [`Member::lead_input`], from within it.
    fn leader_handles(&mut self, now: MonoMs, input: Input) {
        if let Role::Leading(leading) = &mut self.role {
            leading.leader.handle(now, input);
        }
    }

    pub(super) fn leader_epoch(&self) -> Epoch {
        match &self.role {
            Role::Leading(leading) => leading.leader.epoch().expect("told once it may be"),
            _ => unreachable!("asked by a leader"),
        }
    }

    /// Does the history up to `zxid` count as committed, for those who are brought up to date with it?
    pub(super) fn committed_view(&self) -> Zxid {
        match &self.role {
            Role::Leading(leading) if leading.leader.is_established() => self.positions.committed(),
            // What an epoch begins with is committed with it, and nothing else is told before.
            _ => self.positions.appended(),
        }
    }

    fn synchronise(&mut self, now: MonoMs, link: LinkId, theirs: Zxid) -> Result<(), MemberError> {
        let zabra = self.links.get_mut(&link).and_then(Link::feed).is_some_and(|(feed, _)| feed.zabra);
        let planned = match self.plan_for(theirs, zabra)? {
            Plan::Trunc { to } if self.broken.is(Rule::DiffWithoutTrunc) => Plan::Diff { after: to },
            Plan::Snap if self.broken.is(Rule::DiffBelowTheLog) => {
                Plan::Diff { after: self.storage.reader.base() }
            }
            // What it lacks is left out, and the broadcast goes on behind that.
            Plan::Diff { .. } if self.broken.is(Rule::GapNotNoticed) => {
                Plan::Diff { after: self.positions.appended() }
            }
            plan => plan,
        };
        let committed = self.committed_view();
        let Some((feed, out)) = self.links.get_mut(&link).and_then(Link::feed) else {
            return Ok(());
        };
        feed.state_least = match planned {
            Plan::Diff { after: common } | Plan::Trunc { to: common } => common,
            Plan::Snap => Zxid::ZERO,
        };
        let plan = if feed.needs_state { Plan::Snap } else { planned };
        if feed.kept && plan == Plan::Snap {
            self.close(
                link,
                Some("it is too late for the epoch that it should have joined as it is".to_owned()),
            );
            self.leader_handles(now, Input::Left(link));
            return Ok(());
        }
        tracing::info!(peer = feed.id.0, zxid = %theirs, ?plan, "a learner is brought up to date");
        match plan {
            Plan::Diff { after } => {
                QuorumPacket::new(PacketKind::Diff, committed, None).put(out.buf());
                (feed.sent, feed.commit_sent, feed.source) = (after, after.min(committed), Source::Log(None));
            }
            Plan::Trunc { to } => {
                QuorumPacket::new(PacketKind::Trunc, to, None).put(out.buf());
                (feed.sent, feed.commit_sent, feed.source) = (to, to.min(committed), Source::Log(None));
            }
            Plan::Snap => feed.source = Source::Snap(None),
        }
        Ok(())
    }

    /// Answers those whose question is settled, each behind the commits that it must see: a learner that lags gets them first.
    pub(super) fn answer_syncs(&mut self) {
        let committed = self.positions.committed();
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.syncs.is_empty() {
            return;
        }
        let confirmed = leading.confirmed;
        let (links, outputs) = (&mut self.links, &mut self.outputs);
        leading.syncs.retain(|sync| {
            if sync.token > confirmed || sync.after > committed {
                return true;
            }
            let Some(link) = sync.from else {
                outputs.push_back(Output::Synced);
                return false;
            };
            let Some((feed, out)) = links.get_mut(&link).and_then(Link::feed) else { return false };
            let behind = !feed.up_to_date || feed.commit_sent < sync.after;
            if !behind {
                QuorumPacket::new(PacketKind::Sync, Zxid::ZERO, None).put(out.buf());
            }
            behind
        });
    }

    // --- Packets ---

    pub(super) fn put(
        &mut self,
        link: LinkId,
        kind: PacketKind,
        zxid: Zxid,
        payload: impl FnOnce(&mut Vec<u8>),
    ) {
        if let Some(link) = self.links.get_mut(&link) {
            put_packet(link.out.buf(), kind, zxid, payload);
        }
    }

    pub(super) fn put_empty(&mut self, link: LinkId, kind: PacketKind, zxid: i64) {
        if let Some(link) = self.links.get_mut(&link) {
            QuorumPacket::new(kind, Zxid::from_wire(zxid), None).put(link.out.buf());
        }
    }

    pub(super) fn receive_from_learner(
        &mut self,
        now: MonoMs,
        link: LinkId,
        bytes: &[u8],
        host: &mut impl Host,
    ) -> usize {
        let mut consumed = 0;
        // Acknowledgements are cumulative: of those that come together the last one is enough.
        let mut ack = None;
        self.lead_input(now, Input::Heard(link));
        while let Some(held) = self.links.get(&link)
            && matches!(self.role, Role::Leading(_))
        {
            let limits = match held.kind {
                Kind::Parked => HELLO_LIMITS,
                Kind::Learner(_) | Kind::Leader => PacketLimits::default(),
            };
            match QuorumPacket::parse(&bytes[consumed..], &limits) {
                Ok(Step::Done { value, consumed: len }) => {
                    consumed += len;
                    if value.kind == PacketKind::Ack {
                        let zxid = Zxid::from_wire(value.zxid);
                        if self.is_of_the_past(zxid) {
                            continue;
                        }
                        if let Some(before) = ack.replace(zxid)
                            && (before > zxid || before.counter() == 0)
                        {
                            self.lead_input(now, Input::Ack { link, zxid: before });
                        }
                        continue;
                    }
                    if let Some(zxid) = ack.take() {
                        self.lead_input(now, Input::Ack { link, zxid });
                    }
                    if let Err(error) = self.packet_of_learner(now, link, &value, host) {
                        self.close_learner(now, link, &error);
                    }
                }
                Ok(Step::NeedMore { .. }) => {
                    if let Some(zxid) = ack.take() {
                        self.lead_input(now, Input::Ack { link, zxid });
                    }
                    return consumed;
                }
                Err(error) => self.close_learner(now, link, &error),
            }
        }
        bytes.len()
    }

    /// An acknowledgement of what this leader proposed in an earlier epoch.
    fn is_of_the_past(&self, zxid: Zxid) -> bool {
        matches!(&self.role, Role::Leading(leading) if zxid <= leading.began_at)
    }

    fn close_learner(&mut self, now: MonoMs, link: LinkId, error: &PeerError) {
        self.close(link, Some(error.to_string()));
        self.lead_input(now, Input::Left(link));
    }

    fn packet_of_learner(
        &mut self,
        now: MonoMs,
        link: LinkId,
        packet: &QuorumPacket<'_>,
        host: &mut impl Host,
    ) -> Result<(), PeerError> {
        match packet.kind {
            PacketKind::FollowerInfo | PacketKind::ObserverInfo => self.learner_joins(now, link, packet)?,
            PacketKind::AckEpoch => {
                let current = read_ack_epoch(packet.data_of("ACKEPOCH")?)?;
                let last = Zxid::from_wire(packet.zxid);
                self.lead_input(now, Input::AckEpoch { link, current, last });
            }
            PacketKind::Ping => {
                read_ping_reply(packet.data)?.for_each(|touch| host.touched(touch));
                let token = u64::try_from(packet.zxid).unwrap_or(0);
                self.lead_input(now, Input::Pong { link, token });
            }
            PacketKind::Revalidate => {
                let touch = read_revalidate(packet.data_of("REVALIDATE")?)?;
                let valid = self.serving && host.revalidate(link, touch);
                self.put(link, PacketKind::Revalidate, Zxid::from_wire(packet.zxid), |out| {
                    put_revalidate_reply(out, touch.session, valid);
                });
            }
            PacketKind::Request => {
                let request = ForwardedRequest::read(packet.data_of("REQUEST")?)?;
                if !self.serving {
                    // Only a learner that is in step forwards, and then there is somebody to take it.
                    return Err(PeerError::Unknown {
                        what: "REQUEST before UPTODATE",
                        found: request.op.into(),
                    });
                }
                if request.op == OpCode::Sync.to_i32() {
                    self.sync_for(now, Some(link));
                } else {
                    host.request(link, &request, &packet.authinfo);
                }
            }
            other => tracing::warn!(kind = ?other, "a packet that no learner sends"),
        }
        Ok(())
    }

    fn learner_joins(
        &mut self,
        now: MonoMs,
        link: LinkId,
        packet: &QuorumPacket<'_>,
    ) -> Result<(), PeerError> {
        let info = LearnerInfo::read(packet.data)?;
        let Some(id) = info.server else { return Err(PeerError::NoData { what: "LearnerInfo" }) };
        if let Some(version) = info.config_version.filter(|v| *v > self.electorate.current().version()) {
            return Err(PeerError::Unknown { what: "configuration version", found: version });
        }
        let Some(held) = self.links.get_mut(&link) else { return Ok(()) };
        if matches!(held.kind, Kind::Learner(_)) {
            return Err(PeerError::Unknown { what: "a second FOLLOWERINFO of server", found: id.0 });
        }
        held.kind = Kind::Learner(Box::new(Feed {
            id,
            voter: self.electorate.is_voter(id),
            zabra: info.zabra,
            needs_state: info.needs_state,
            kept: false,
            state_least: Zxid::ZERO,
            source: Source::Idle,
            sent: Zxid::ZERO,
            commit_sent: Zxid::ZERO,
            new_leader_sent: false,
            up_to_date: false,
        }));
        let accepted = Zxid::from_wire(packet.zxid).epoch();
        self.lead_input(now, Input::Joined { link, id, accepted, zabra: info.zabra });
        Ok(())
    }
}
