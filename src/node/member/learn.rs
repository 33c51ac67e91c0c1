//! The learner's side: what its machine decides becomes packets and changes of the durable history, and packets of the leader become its inputs.

use super::install::Install;
use super::recent::Recent;
use super::{Host, Member, MemberError, Output, Received, Role, StopReason};
use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::{Epoch, MonoMs, ServerId, Zxid};
use crate::election;
use crate::storage::log::format::record_bytes;
use crate::storage::log::{Group, LogError, RecordKind};
use crate::storage::superblock::Recall;
use crate::wire::quorum::{AuthId, PacketKind, PacketLimits, PeerError, QuorumPacket, Step, put_request};
use crate::wire::quorum_payload::{
    ForwardedRequest, LearnerInfo, PROTOCOL_VERSION, Touch, put_ack_epoch, read_leader_info,
    read_revalidate_reply,
};
use crate::zab::learner::{Input, Learner, LearnerError, Output as Decision};
use crate::zab::{LinkId, Rule};

/// Bytes of transactions received above which they are appended before more is taken.
const RECEIVED_BYTES_MAX: usize = 1 << 20;

/// First pause before another attempt to connect; doubles, ms.
const RETRY_MS_MIN: u64 = 10;

/// Longest pause, ms.
const RETRY_MS_MAX: u64 = 200;

/// Attempts before another election, as ZooKeeper's learners make.
const ATTEMPTS_MAX: u32 = 5;

/// One attachment to a leader.
#[derive(Debug)]
pub(super) struct Learning {
    leader: ServerId,
    link: LinkId,
    connected: bool,
    attempts: u32,
    retry_at: Option<MonoMs>,
    pub(super) learner: Learner,
    /// Received, not appended yet.
    received: Group,
    pub(super) install: Option<Install>,
    /// In step, and not serving in the leader's epoch yet.
    enters: bool,
    /// The leader's next epoch waits for a flush.
    pub(super) held_for_flush: bool,
}

impl Learning {
    pub(super) fn next_timer(&self) -> MonoMs {
        self.retry_at.map_or(self.learner.next_timer(), |at| at.min(self.learner.next_timer()))
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.learner.epoch()
    }

    pub(super) const fn leader_id(&self) -> ServerId {
        self.leader
    }

    pub(super) const fn link(&self) -> LinkId {
        self.link
    }

    pub(super) const fn waits_for_connection(&self) -> bool {
        !self.connected
    }

    pub(super) fn end(self, recent: &mut Recent) {
        recent.give_back(self.received);
    }
}

impl Member {
    /// The election has chosen another server.
    pub(super) fn follow(&mut self, now: MonoMs, vote: &election::Vote) {
        assert!(matches!(self.role, Role::Looking), "who looks finds a leader");
        let parked: Vec<LinkId> = self.links.keys().copied().collect();
        parked.into_iter().for_each(|link| self.close(link, None));
        let mut start = self.learner_start();
        // Nobody has anything yet: what is promised now is the first promise.
        let accepted = i64::from(start.accepted.0);
        start.whole |= self.recall() == Recall::New && vote.is_of_new_ensemble(accepted);
        let (link, leader) = (self.next_link(), vote.leader);
        self.role = Role::Learning(Box::new(Learning {
            leader,
            link,
            connected: false,
            attempts: 1,
            retry_at: None,
            learner: Learner::new(now, self.options.limits, start).breaking(self.broken),
            received: self.recent.take_buffer(),
            install: None,
            enters: false,
            held_for_flush: false,
        }));
        self.outputs.push_back(Output::Connect { link, to: leader });
    }

    /// The connection to the leader is gone, or was never made: a leader that was just elected may not be there yet.
    pub(super) fn leader_lost(&mut self, now: MonoMs) {
        let Role::Learning(learning) = &mut self.role else { return };
        if learning.connected || learning.attempts >= ATTEMPTS_MAX {
            let leader = learning.leader;
            return self.look(now, StopReason::LeaderGone(leader));
        }
        let pause = (RETRY_MS_MIN << learning.attempts).min(RETRY_MS_MAX);
        learning.attempts += 1;
        learning.retry_at = Some(now.plus(pause));
    }

    pub(super) fn learn_timer(&mut self, now: MonoMs) {
        let Role::Learning(learning) = &mut self.role else { return };
        if learning.retry_at.is_some_and(|at| at <= now) {
            learning.retry_at = None;
            self.link_last += 1;
            learning.link = LinkId(self.link_last);
            self.outputs.push_back(Output::Connect { link: learning.link, to: learning.leader });
        }
        self.learn(now, Input::Timer);
    }

    /// Gives the machine an input, and does what it says.
    pub(super) fn learn(&mut self, now: MonoMs, input: Input) {
        let Role::Learning(learning) = &mut self.role else { return };
        learning.connected |= input == Input::Opened;
        let result = learning.learner.handle(now, input);
        self.learn_outputs(now, result);
    }

    fn learn_outputs(&mut self, now: MonoMs, mut result: Result<(), LearnerError>) {
        while result.is_ok()
            && let Role::Learning(learning) = &mut self.role
            && let Some(decision) = learning.learner.poll()
        {
            match self.follow_up(now, decision) {
                Ok(Some(input)) => {
                    let Role::Learning(learning) = &mut self.role else { return };
                    result = learning.learner.handle(now, input);
                }
                Ok(None) => {}
                Err(error) => return self.fail(error),
            }
        }
        match result {
            Ok(()) => {}
            Err(error @ LearnerError::CommittedLost(_)) => self.fail(MemberError::History(error)),
            Err(error) => self.look(now, StopReason::Learner(error)),
        }
    }

    /// Carries out one decision; some are answered at once.
    fn follow_up(&mut self, now: MonoMs, decision: Decision) -> Result<Option<Input>, MemberError> {
        let Role::Learning(learning) = &self.role else { return Ok(None) };
        let (link, zabra) = (learning.link, learning.learner.leader_is_zabra());
        match decision {
            Decision::Hello => self.put_hello(link),
            Decision::Accept(epoch) => {
                if !self.broken.is(Rule::PromiseNotStored) {
                    let counts = learning.learner.is_whole();
                    let dir = &mut self.storage.dir;
                    if counts { dir.accept_epoch(epoch)? } else { dir.accept_epoch_uncounted(epoch)? }
                }
                return Ok(Some(Input::Accepted));
            }
            Decision::AckEpoch { current } => {
                let last = self.positions.appended();
                self.put(link, PacketKind::AckEpoch, last, |out| put_ack_epoch(out, current));
            }
            Decision::Truncate { to } => return Ok(Some(Input::Truncated { last: self.truncate(to)? })),
            Decision::Receive { zxid } => {
                self.begin_receiving(now, zxid)?;
            }
            Decision::Enter(epoch) => {
                assert!(self.storage.dir.superblock().epoch_accepted >= epoch, "promised before");
                self.storage.dir.enter_epoch(epoch)?;
                return Ok(Some(Input::Entered));
            }
            Decision::AckEntered(epoch) => {
                self.put_empty(link, PacketKind::Ack, Zxid::new(epoch, 0).to_wire());
            }
            Decision::InStep => {
                if let Role::Learning(learning) = &mut self.role {
                    learning.enters = true;
                }
                let epoch = self.epochs().1;
                self.elect(now, election::Input::Established { epoch: i64::from(epoch.0) });
            }
            Decision::Commit(zxid) => {
                if zxid > self.positions.appended() {
                    self.append_received(now);
                }
                if matches!(self.role, Role::Learning(_)) {
                    self.positions.commit(zxid);
                    let Role::Learning(learning) = &mut self.role else { return Ok(None) };
                    if std::mem::take(&mut learning.enters) {
                        self.serve_from(zxid);
                    }
                }
            }
            Decision::Ack { from, to } => {
                let from = if zabra { to } else { from };
                if let Some(link) = self.links.get_mut(&link) {
                    (from.0..=to.0).for_each(|zxid| {
                        QuorumPacket::new(PacketKind::Ack, Zxid(zxid), None).put(link.out.buf());
                    });
                }
            }
        }
        Ok(None)
    }

    fn put_hello(&mut self, link: LinkId) {
        let info = LearnerInfo {
            server: Some(self.options.me),
            protocol_version: Some(PROTOCOL_VERSION),
            config_version: Some(self.electorate.current().version()),
            zabra: true,
            needs_state: self.needs_state(),
        };
        let voter = self.electorate.is_voter(self.options.me);
        let kind = if voter { PacketKind::FollowerInfo } else { PacketKind::ObserverInfo };
        self.put(link, kind, Zxid::new(self.epochs().0, 0), |out| info.put(out));
    }

    /// Cuts the log behind `to`, or the greatest below it that is there.
    fn truncate(&mut self, to: Zxid) -> Result<Zxid, MemberError> {
        assert!(self.positions.is_flushed(), "nothing is appended between an election and TRUNC");
        let at = self.storage.reader.floor(to)?;
        if at < self.positions.committed() {
            // Cannot be cut there; the leader's history will be judged when it is asked anew.
            return Err(MemberError::Log(LogError::NotFound { zxid: to }));
        }
        let storage = &mut self.storage;
        let flusher = storage.flusher.as_mut().expect("at home when nothing is under way");
        if !self.broken.is(Rule::CutNotMade) {
            storage.dir.truncate(&mut storage.appender, flusher, &storage.snapshots, at)?;
        }
        self.positions.cut(at);
        self.recent.restart(at);
        Ok(at)
    }

    /// Appends what was received; a learner without space leaves its leader and comes again.
    pub(super) fn append_received(&mut self, now: MonoMs) {
        let Role::Learning(learning) = &mut self.role else { return };
        let Some(last) = learning.received.last_zxid() else { return };
        let mut group = std::mem::replace(&mut learning.received, self.recent.take_buffer());
        let keeps = !learning.learner.is_catching_up();
        match self.storage.appender.append(&mut group) {
            Ok(_) => {}
            Err(LogError::NoSpace { .. }) => {
                return self.rest_without_space(now);
            }
            Err(error) => return self.fail(error.into()),
        }
        self.positions.append(last);
        if keeps {
            self.recent.push(group);
        } else {
            // A long history is applied from the log when its time comes.
            self.recent.give_back(group);
            self.recent.restart(last);
        }
    }

    // --- Requests of clients ---

    /// Sends a client's write, or its sync, to the leader. This server follows, and serves.
    pub fn forward<'a>(&mut self, request: &ForwardedRequest<'_>, ids: impl IntoIterator<Item = AuthId<'a>>) {
        let Role::Learning(learning) = &self.role else { return };
        if let Some(link) = self.links.get_mut(&learning.link) {
            put_request(link.out.buf(), ids, |out| request.put(out));
        }
    }

    /// Bytes that wait to be sent to the leader.
    #[must_use]
    pub fn bytes_for_leader(&self) -> usize {
        let Role::Learning(learning) = &self.role else { return 0 };
        self.output(learning.link).len()
    }

    /// Asks the leader whether a session is alive: [`Host::revalidated`] answers.
    pub fn revalidate(&mut self, touch: Touch) {
        let Role::Learning(learning) = &self.role else { return };
        let link = learning.link;
        self.put(link, PacketKind::Revalidate, Zxid::from_wire(-1), |out| touch.put(out));
    }

    // --- Packets ---

    pub(super) fn receive_from_leader(
        &mut self,
        now: MonoMs,
        link: LinkId,
        bytes: &[u8],
        host: &mut impl Host,
    ) -> Received {
        let limits = PacketLimits::default();
        let mut consumed = 0;
        self.learn(now, Input::Heard);
        loop {
            let Role::Learning(learning) = &mut self.role else { return Received::all(bytes) };
            if learning.link != link {
                return Received::all(bytes);
            }
            match &mut learning.install {
                Some(Install::Receiving(_)) => match self.receive_state(now, &bytes[consumed..]) {
                    Some(taken) => {
                        consumed += taken;
                        if consumed == bytes.len() || taken == 0 {
                            return Received::some(consumed);
                        }
                        continue;
                    }
                    None => return Received::all(bytes),
                },
                Some(_) => return Received { consumed, hold: true },
                None => {}
            }
            match QuorumPacket::parse(&bytes[consumed..], &limits) {
                Ok(Step::Done { value, .. })
                    if value.kind == PacketKind::LeaderInfo && self.holds_for_flush(now) =>
                {
                    return Received { consumed, hold: true };
                }
                Ok(Step::Done { value, consumed: len }) => {
                    consumed += len;
                    self.packet_of_leader(now, &value, host);
                }
                Ok(Step::NeedMore { .. }) => return Received::some(consumed),
                Err(error) => {
                    self.look(now, StopReason::Garbage(error));
                    return Received::all(bytes);
                }
            }
        }
    }

    fn packet_of_leader(&mut self, now: MonoMs, packet: &QuorumPacket<'_>, host: &mut impl Host) {
        let zxid = Zxid::from_wire(packet.zxid);
        let input = match packet.kind {
            PacketKind::Proposal | PacketKind::Inform => return self.transaction(now, zxid, packet),
            PacketKind::Commit => Input::Commit(zxid),
            PacketKind::Ping => {
                // ZooKeeper's leader takes nothing but the acknowledgement of NEWLEADER for an answer before that.
                let Role::Learning(learning) = &self.role else { return };
                if learning.learner.leader_is_zabra() || learning.learner.is_in_step() {
                    self.answer_ping(packet.zxid, host);
                }
                return;
            }
            PacketKind::Sync => return self.outputs.push_back(Output::Synced),
            PacketKind::Revalidate => {
                return match packet.data_of("REVALIDATE").and_then(read_revalidate_reply) {
                    Ok((session, valid)) => host.revalidated(session, valid),
                    Err(error) => self.look(now, StopReason::Garbage(error)),
                };
            }
            PacketKind::LeaderInfo => match packet.data_of("LEADERINFO").and_then(read_leader_info) {
                Ok((_, zabra)) => {
                    self.begin_next_epoch(now);
                    Input::LeaderInfo { epoch: zxid.epoch(), zabra }
                }
                Err(error) => return self.look(now, StopReason::Garbage(error)),
            },
            PacketKind::Diff | PacketKind::Trunc if self.needs_state() => {
                return self.look(now, StopReason::NeedsState);
            }
            PacketKind::Diff => Input::Diff { upto: zxid },
            PacketKind::Trunc => Input::Trunc { to: zxid },
            PacketKind::Snap => Input::Snap { zxid },
            PacketKind::NewLeader => {
                self.append_received(now);
                Input::NewLeader(zxid)
            }
            PacketKind::UpToDate => {
                self.append_received(now);
                Input::UpToDate
            }
            other => return tracing::warn!(kind = ?other, "a packet that no leader of this version sends"),
        };
        self.learn(now, input);
    }

    fn transaction(&mut self, now: MonoMs, zxid: Zxid, packet: &QuorumPacket<'_>) {
        let Role::Learning(learning) = &mut self.role else { return };
        let Some(payload) = packet.data else {
            return self.look(now, StopReason::Garbage(PeerError::NoData { what: "PROPOSAL" }));
        };
        if payload.len() > PAYLOAD_BYTES_MAX {
            let (what, found) = ("PROPOSAL", payload.len() as i64);
            return self
                .look(now, StopReason::Garbage(PeerError::Limit { what, found, max: PAYLOAD_BYTES_MAX }));
        }
        let room = RECEIVED_BYTES_MAX.min(self.storage.appender.group_bytes_max() as usize);
        if learning.received.bytes() + record_bytes(payload.len()) > room {
            self.append_received(now);
        }
        let Role::Learning(learning) = &mut self.role else { return };
        let input =
            if packet.kind == PacketKind::Inform { Input::Inform(zxid) } else { Input::Proposal(zxid) };
        let result = learning.learner.handle(now, input);
        if result.is_ok() {
            learning.received.record(zxid, RecordKind::Txn, |out| out.extend_from_slice(payload));
        }
        self.learn_outputs(now, result);
    }

    fn answer_ping(&mut self, token: i64, host: &mut impl Host) {
        let Role::Learning(learning) = &self.role else { return };
        let link = learning.link;
        self.put(link, PacketKind::Ping, Zxid::from_wire(token), |out| host.put_touches(out));
    }
}
