//! What the machines decide, carried out: what a member does around them, one step at a time. Mutations change that.

use super::mutation::Mutation;
use super::state::{DiskOp, Down, Follow, Link, NOW, Role, SLOTS, Txn, Up, World, id_of, link_id};
use crate::base::{Epoch, Zxid};
use crate::zab::leader::{self, DropReason, Leader, Summary};
use crate::zab::learner::{self, Learner, LearnerError, Start};
use crate::zab::{LinkId, Plan, plan};

impl World {
    // --- Roles ---

    pub(super) fn begin_to_lead(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.durable_len = n.log.len();
        let mine = Summary { accepted: n.accepted, current: n.current, last: n.last() };
        let setup = &self.setup;
        let leader = Leader::new(NOW, id_of(node), setup.electorate.clone(), setup.limits, mine);
        n.role = Role::Leading(Box::new(leader));
    }

    /// A place for one more connection, if there is one.
    pub(super) fn free_slot(&self, leader: usize, learner: usize) -> Option<usize> {
        (0..SLOTS).find(|slot| self.link(link_id(leader, learner, *slot)).is_none())
    }

    pub(super) fn begin_to_follow(&mut self, node: usize, leader: usize) {
        let slot = self.free_slot(leader, node).expect("asked before");
        let (up, down) = Default::default();
        let flags = (false, false, false);
        let (leader_gone, learner_gone, fed) = flags;
        self.links.push(Link { leader, learner: node, slot, leader_gone, learner_gone, fed, up, down });
        let n = &mut self.nodes[node];
        n.durable_len = n.log.len();
        let (accepted, current, committed) = (n.accepted, n.current, n.committed);
        let whole = !n.forgot || self.setup.mutation == Some(Mutation::ForgetfulPromise);
        let start = Start { accepted, current, last: n.last(), committed, voter: true, whole };
        let learner = Learner::new(NOW, self.setup.limits, start);
        let link = link_id(leader, node, slot);
        n.role = Role::Following(Box::new(Follow { learner, link, history_len: None }));
        self.learn(node, learner::Input::Opened);
    }

    /// The machine is dropped, and with it everything it waited for. What a disk was asked for may still be done.
    pub(super) fn leave_role(&mut self, node: usize, op_done: bool) {
        if let Some(op) = self.nodes[node].op.take()
            && op_done
        {
            self.carry_out(node, op);
        }
        match std::mem::replace(&mut self.nodes[node].role, Role::Looking) {
            Role::Looking => {}
            Role::Leading(_) => {
                self.links.iter_mut().filter(|link| link.leader == node).for_each(Link::leader_goes)
            }
            Role::Following(follow) => {
                if self.is(Mutation::LateAppend)
                    && let Some(link) = self.link(follow.link)
                {
                    let late = link
                        .down
                        .iter()
                        .filter_map(|m| if let Down::Proposal(txn) = m { Some(*txn) } else { None });
                    self.nodes[node].late = late.collect();
                }
                self.link_mut(follow.link).expect("an attachment has its connection").learner_goes();
            }
        }
        self.forget_links();
    }

    /// Those that nobody knows any more.
    pub(super) fn forget_links(&mut self) {
        self.links.retain(|link| !(link.leader_gone && link.learner_gone));
    }

    // --- Disks ---

    /// What was asked of the disk is done, and the machine hears of it.
    pub(super) fn complete(&mut self, node: usize) {
        let op = self.nodes[node].op.take().expect("asked before");
        self.carry_out(node, op.clone());
        let last = self.nodes[node].last();
        if matches!(self.nodes[node].role, Role::Leading(_)) {
            return match op {
                DiskOp::Accept(_) if self.is(Mutation::EpochToldBeforeDurable) => {}
                DiskOp::Accept(_) => self.lead(node, leader::Input::Accepted),
                _ => self.lead(node, leader::Input::Entered),
            };
        }
        match op {
            DiskOp::Accept(_) if self.is(Mutation::PromiseBeforeDurable) => {}
            DiskOp::Accept(_) => self.learn(node, learner::Input::Accepted),
            DiskOp::Enter(_) => self.learn(node, learner::Input::Entered),
            DiskOp::Truncate(to) if self.is(Mutation::TruncNotMade) => {
                self.learn(node, learner::Input::Truncated { last: to });
            }
            DiskOp::Truncate(_) => self.learn(node, learner::Input::Truncated { last }),
            DiskOp::Install(_) => self.learn(node, learner::Input::Installed),
        }
    }

    fn carry_out(&mut self, node: usize, op: DiskOp) {
        let (short, not_cut) = (self.is(Mutation::StateCutShort), self.is(Mutation::TruncNotMade));
        let n = &mut self.nodes[node];
        match op {
            DiskOp::Accept(epoch) => {
                let before = std::mem::replace(&mut n.accepted, epoch);
                self.require(before <= epoch, "V5", || format!("accepted {epoch} after {before}"));
            }
            DiskOp::Enter(epoch) => {
                let before = std::mem::replace(&mut n.current, epoch);
                n.forgot = false;
                let late = std::mem::take(&mut n.late);
                let is_durable = match &n.role {
                    Role::Following(follow) => follow.history_len.is_some_and(|len| n.durable_len >= len),
                    _ => n.durable_len == n.log.len(),
                };
                n.log.extend(late);
                self.require(before <= epoch, "V5", || format!("current {epoch} after {before}"));
                self.require(is_durable, "V6", || format!("epoch {epoch} before its history"));
            }
            DiskOp::Truncate(to) if !not_cut => {
                let len = n.len_upto(to);
                n.log.truncate(len);
                n.durable_len = len;
            }
            DiskOp::Truncate(_) => {}
            DiskOp::Install(mut log) => {
                let zxid = log.last().map(|txn| txn.zxid).unwrap_or_default();
                if short {
                    log.pop();
                }
                (n.durable_len, n.base_len) = (log.len(), log.len());
                n.log = log;
                // The state is the leader's applied one: committed.
                (n.committed, n.committed_durable) = (zxid, zxid);
            }
        }
    }

    pub(super) fn flush(&mut self, node: usize, records: usize) {
        let n = &mut self.nodes[node];
        n.durable_len += records;
        assert!(n.durable_len <= n.log.len());
        let upto = n.durable();
        match n.role {
            Role::Leading(_) => {
                self.lead(node, leader::Input::Durable(upto));
                if self.is(Mutation::CommitByMinority) {
                    self.leaders(node, leader::Output::Commit(upto));
                }
            }
            Role::Following(_) => self.learn(node, learner::Input::Durable(upto)),
            Role::Looking => {}
        }
    }

    pub(super) fn ask_disk(&mut self, node: usize, op: DiskOp) {
        if let Some(before) = self.nodes[node].op.take() {
            assert!(self.setup.mutation.is_some(), "one after the other");
            self.carry_out(node, before);
        }
        self.nodes[node].op = Some(op);
    }

    // --- Leading ---

    pub(super) fn propose(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Role::Leading(leader) = &n.role else { panic!("who leads proposes") };
        let epoch = leader.epoch().expect("established");
        let last = n.last();
        let zxid = if last.epoch() == epoch { last.next() } else { Zxid::new(epoch, 1) };
        let txn = Txn { zxid, content: self.next_content };
        n.log.push(txn);
        self.next_content += 1;
        self.lead(node, leader::Input::Proposed(zxid));
        self.feed(node, &Down::Proposal(txn));
    }

    fn feed(&mut self, node: usize, message: &Down) {
        for link in self.links.iter_mut().filter(|link| link.leader == node && link.fed) {
            link.send_down(message.clone());
        }
    }

    pub(super) fn lead(&mut self, node: usize, input: leader::Input) {
        let Role::Leading(leader) = &mut self.nodes[node].role else { return };
        leader.handle(NOW, input);
        while let Role::Leading(leader) = &mut self.nodes[node].role
            && let Some(output) = leader.poll()
        {
            self.leaders(node, output);
        }
    }

    fn leader_epoch(&self, node: usize) -> Epoch {
        let Role::Leading(leader) = &self.nodes[node].role else { panic!("it leads") };
        leader.epoch().expect("told once it may be")
    }

    fn leaders(&mut self, node: usize, output: leader::Output) {
        use leader::Output;
        match output {
            Output::Accept(epoch) => {
                self.ask_disk(node, DiskOp::Accept(epoch));
                if self.is(Mutation::EpochToldBeforeDurable)
                    && let Role::Leading(leader) = &mut self.nodes[node].role
                {
                    leader.handle(NOW, leader::Input::Accepted);
                }
            }
            Output::Enter(epoch) => self.ask_disk(node, DiskOp::Enter(epoch)),
            Output::LeaderInfo(link) => {
                let epoch = self.leader_epoch(node);
                self.nodes[node].told = self.nodes[node].told.max(epoch);
                self.send_down(link, Down::Info(epoch));
            }
            Output::Synchronise { link, theirs } => self.synchronise(node, link, theirs),
            Output::Established => {
                let epoch = self.leader_epoch(node);
                let before = self.established.iter().find(|(e, _)| *e == epoch).copied();
                self.require(before.is_none(), "V1", || format!("epoch {epoch} is established twice"));
                self.established.push((epoch, node));
                self.nodes[node].committed = self.nodes[node].last();
                self.choose(node, epoch);
            }
            Output::UpToDate(link) => {
                self.link_mut(link).expect("a learner of its").fed = true;
                self.send_down(link, Down::UpToDate);
            }
            Output::Commit(zxid) => {
                self.nodes[node].committed = zxid;
                self.choose(node, self.leader_epoch(node));
                self.feed(node, &Down::Commit(zxid));
            }
            Output::Drop { link, why } => {
                let honest = matches!(why, DropReason::Replaced | DropReason::Ahead);
                self.require(honest, "V10", || why.to_string());
                self.link_mut(link).expect("a learner of its").leader_goes();
                self.forget_links();
            }
            Output::GiveUp(_) => self.leave_role(node, false),
            Output::Ping { .. } | Output::Confirmed(_) => unreachable!("time stands, and nobody asks"),
        }
    }

    fn synchronise(&mut self, node: usize, link: LinkId, theirs: Zxid) {
        let n = &self.nodes[node];
        let Role::Leading(leader) = &n.role else { panic!("it leads") };
        let epoch = leader.epoch().expect("told");
        let upto = if leader.is_established() { n.committed } else { n.last() };
        let mut planned = plan(n, theirs, true);
        if let Plan::Trunc { to } = planned {
            if self.is(Mutation::DiffWithoutTrunc) {
                planned = Plan::Diff { after: to };
            } else if self.is(Mutation::PlanFromBounds) && theirs <= n.last() {
                planned = Plan::Diff { after: theirs };
            }
        }
        let (first, after) = match planned {
            Plan::Diff { after } => (Down::Diff(upto), after),
            Plan::Trunc { to } => (Down::Trunc(to), to),
            Plan::Snap => {
                let len = if self.is(Mutation::StateOfUncommitted) { n.log.len() } else { n.applied_len() };
                (Down::Snap(n.log[..len].to_vec()), n.zxid_at(len))
            }
        };
        let mut messages = vec![first];
        for txn in n.log.iter().filter(|txn| txn.zxid > after) {
            messages.push(Down::Proposal(*txn));
            messages.extend((txn.zxid <= upto).then_some(Down::Commit(txn.zxid)));
        }
        messages.push(Down::NewLeader(Zxid::new(epoch, 0)));
        messages.into_iter().for_each(|message| self.send_down(link, message));
        let fed = !self.is(Mutation::FedAfterAck);
        self.link_mut(link).expect("a learner of its").fed = fed;
        self.tell_leader(node, leader::Input::NewLeaderSent(link));
        if self.is(Mutation::EstablishedByMinority) {
            self.tell_leader(node, leader::Input::Ack { link, zxid: Zxid::new(epoch, 0) });
        }
    }

    /// What it puts out is taken by the caller's loop.
    fn tell_leader(&mut self, node: usize, input: leader::Input) {
        let Role::Leading(leader) = &mut self.nodes[node].role else { panic!("it leads") };
        leader.handle(NOW, input);
    }

    // --- Following ---

    pub(super) fn learn(&mut self, node: usize, input: learner::Input) {
        let Role::Following(follow) = &mut self.nodes[node].role else { return };
        if let Err(why) = follow.learner.handle(NOW, input) {
            let honest = matches!(why, LearnerError::StaleEpoch { .. } | LearnerError::CutBelow { .. });
            self.require(honest, "V10", || why.to_string());
            return self.leave_role(node, false);
        }
        while let Role::Following(follow) = &mut self.nodes[node].role
            && let Some(output) = follow.learner.poll()
        {
            self.learners(node, output);
        }
    }

    fn learners(&mut self, node: usize, output: learner::Output) {
        use learner::Output;
        let (late_promise, n) = (self.is(Mutation::PromiseBeforeDurable), &mut self.nodes[node]);
        let Role::Following(follow) = &mut n.role else { panic!("it follows") };
        let link = follow.link;
        let tells = matches!(output, Output::AckEpoch { .. } | Output::AckEntered(_) | Output::Ack { .. });
        let promised_to_it = follow.learner.epoch() == Some(n.accepted);
        if tells && !promised_to_it {
            self.require(false, "V4", || format!("{output:?} to another than it is promised to"));
        }
        let n = &mut self.nodes[node];
        let Role::Following(follow) = &mut n.role else { panic!("it follows") };
        match output {
            Output::Hello => {
                let accepted = n.accepted;
                self.send_up(link, Up::Info(accepted));
            }
            Output::Accept(epoch) => {
                if late_promise {
                    follow.learner.handle(NOW, learner::Input::Accepted).expect("it waits for that");
                }
                self.ask_disk(node, DiskOp::Accept(epoch));
            }
            Output::AckEpoch { current } => {
                n.told = n.told.max(follow.learner.epoch().expect("promised"));
                let last = n.last();
                self.send_up(link, Up::AckEpoch(current, last));
            }
            Output::Truncate { to } => self.ask_disk(node, DiskOp::Truncate(to)),
            // Asked for when the state has come: see `take`.
            Output::Receive { .. } => {}
            Output::Enter(epoch) => self.ask_disk(node, DiskOp::Enter(epoch)),
            Output::AckEntered(epoch) => {
                let is_durable = follow.history_len.is_some_and(|len| n.durable_len >= len);
                let in_order = n.current == epoch && is_durable;
                self.require(in_order, "V6", || format!("ACK of NEWLEADER {epoch} before it is true"));
                self.send_up(link, Up::Ack(Zxid::new(epoch, 0)));
            }
            Output::InStep => {}
            Output::Commit(zxid) => {
                let in_step = follow.learner.is_in_step();
                n.committed = n.committed.max(zxid);
                self.require(in_step, "V7", || format!("COMMIT of {zxid} counts before UPTODATE"));
            }
            Output::Ack { from, to } => {
                let in_order = follow.learner.is_in_step() && to <= n.durable() && from <= to;
                self.require(in_order, "V7", || format!("ACK of {to} before it is durable"));
                self.send_up(link, Up::Ack(to));
            }
        }
    }
}
