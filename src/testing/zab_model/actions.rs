//! What may happen in a state, and what it makes of it.

use super::invariants::Violation;
use super::links::LinkSet;
use super::mutation::Mutation;
use super::state::{Bounds, DiskOp, Down, Link, NODES, Node, Role, World};
use crate::base::{Epoch, Zxid};
use crate::zab::{Leader, LinkId};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A server is elected: nobody of some quorum that it can talk to, all looking, has more.
    Elect(usize),
    /// A server is elected on old news.
    ElectWrongly(usize),
    /// The first connects to the second.
    Follow(usize, usize),
    /// A leader takes a message.
    Up(LinkId),
    /// A learner takes a message.
    Down(LinkId),
    /// A leader learns that a connection is over, of which it has taken all, or makes it so.
    Left(LinkId),
    /// A learner leaves, or a leader gives up; what the disk had been asked for is done, or not.
    Leave(usize, bool),
    /// So many records more are durable.
    Flush(usize, usize),
    /// What the disk was asked for is durable.
    Disk(usize),
    /// A transaction.
    Propose(usize),
    /// A snapshot of what is applied, and the log before it goes.
    Snapshot(usize),
    /// A crash: what is not durable stays, or not; what the disk had been asked for is done, or not.
    Crash {
        /// Who.
        node: usize,
        /// The log's tail reached the disk.
        keeps: bool,
        /// So did the rest.
        op_done: bool,
    },
    /// A crash with the loss of all that the log held, and of the epochs too, or not.
    Lose {
        /// Who.
        node: usize,
        /// Both copies of the superblock go, too.
        epochs: bool,
    },
    /// Only the link set's directions carry.
    Cut,
    /// All do.
    Heal,
}

impl World {
    /// What may happen.
    pub(super) fn actions(&self) -> Vec<Action> {
        if self.setup.urgency
            && let Some(action) = self.urgent()
        {
            return vec![action];
        }
        let mut actions = Vec::with_capacity(16);
        for node in 0..NODES {
            match &self.nodes[node].role {
                Role::Looking => self.looking(node, &mut actions),
                Role::Leading(leader) => self.leading(node, leader, &mut actions),
                Role::Following(_) => self.leaving(node, &mut actions),
            }
            self.disk(node, &mut actions);
            self.crashes(node, &mut actions);
            self.losses(node, &mut actions);
        }
        self.links.iter().for_each(|link| self.messages(link, &mut actions));
        let (whole, lossy) = (self.carrying == LinkSet::whole(), self.setup.links != LinkSet::whole());
        actions.extend((whole && lossy && self.left.cuts > 0).then_some(Action::Cut));
        actions.extend((!whole && self.left.heals > 0).then_some(Action::Heal));
        actions
    }

    /// A message whose taking has no effect outside the machine that takes it, but for something asked of the disk, which may also be not done. What
    /// else may happen at this moment either does the same before and after it, or ends the attachment and makes it undone.
    pub(super) fn urgent(&self) -> Option<Action> {
        let is_urgent = |link: &&Link| {
            let node = &self.nodes[link.learner];
            let Role::Following(follow) = &node.role else { return false };
            match link.down.front() {
                Some(Down::Diff(_) | Down::Trunc(_) | Down::Snap(_) | Down::NewLeader(_)) => true,
                Some(Down::Commit(_)) => !follow.learner.is_in_step(),
                Some(Down::Info(epoch)) => *epoch > node.accepted,
                _ => false,
            }
        };
        let mut urgent = self.links.iter().filter(|link| self.may_take_down(link)).filter(is_urgent);
        urgent.next().map(|link| Action::Down(link.id()))
    }

    pub(super) fn may_take_down(&self, link: &Link) -> bool {
        // What comes behind TRUNC or SNAP waits for it.
        let waits = matches!(self.nodes[link.learner].op, Some(DiskOp::Truncate(_) | DiskOp::Install(_)));
        !waits && !link.down.is_empty() && self.carrying.carries(link.leader, link.learner)
    }

    fn may_take_up(&self, link: &Link) -> bool {
        !link.up.is_empty() && self.carrying.carries(link.learner, link.leader)
    }

    fn looking(&self, node: usize, actions: &mut Vec<Action>) {
        let others = || (0..NODES).filter(|other| *other != node && self.carrying.connects(node, *other));
        let rank = self.nodes[node].rank();
        let votes = |n: &Node| n.is_looking() && !n.forgot;
        let is_best = |other: usize| votes(&self.nodes[other]) && self.nodes[other].rank() <= rank;
        if self.left.elections > 0 && !self.nodes[node].forgot {
            if others().any(is_best) {
                actions.push(Action::Elect(node));
            } else if self.left.wrong > 0 {
                actions.push(Action::ElectWrongly(node));
            }
        }
        let leads = |other: &usize| matches!(self.nodes[*other].role, Role::Leading(_));
        let may_join = others().filter(leads).filter(|leader| self.free_slot(*leader, node).is_some());
        actions.extend(may_join.map(|leader| Action::Follow(node, leader)));
    }

    fn leading(&self, node: usize, leader: &Leader, actions: &mut Vec<Action>) {
        if leader.is_established() && self.left.txns > 0 {
            actions.push(Action::Propose(node));
        }
        self.leaving(node, actions);
    }

    /// Has the other side given a reason to leave?
    fn has_reason_to_leave(&self, node: usize) -> bool {
        match &self.nodes[node].role {
            Role::Looking => false,
            Role::Leading(_) => !self.links.iter().any(|link| link.leader == node && !link.leader_gone),
            Role::Following(follow) => {
                let link = self.link(follow.link).expect("an attachment has its connection");
                link.leader_gone && link.down.is_empty()
            }
        }
    }

    /// For nothing, or where there is a reason.
    fn leaving(&self, node: usize, actions: &mut Vec<Action>) {
        if self.has_reason_to_leave(node) || self.left.breaks > 0 {
            actions.push(Action::Leave(node, false));
            actions.extend(self.nodes[node].op.is_some().then_some(Action::Leave(node, true)));
        }
    }

    fn disk(&self, node: usize, actions: &mut Vec<Action>) {
        let n = &self.nodes[node];
        let waits = matches!(n.op, Some(DiskOp::Truncate(_) | DiskOp::Install(_)));
        let records = n.log.len() - n.durable_len;
        if !waits && !n.is_looking() {
            actions.extend((records > 0).then_some(Action::Flush(node, 1)));
            actions.extend((records > 1).then_some(Action::Flush(node, records)));
        }
        actions.extend(n.op.is_some().then_some(Action::Disk(node)));
        if self.left.snapshots > 0 && n.op.is_none() && n.applied_len() > n.base_len {
            actions.push(Action::Snapshot(node));
        }
    }

    fn crashes(&self, node: usize, actions: &mut Vec<Action>) {
        let n = &self.nodes[node];
        let (tail, op) = (n.log.len() > n.durable_len, n.op.is_some());
        let has_memory = !n.is_looking() || tail || n.committed != n.committed_durable;
        if self.left.crashes == 0 || !has_memory {
            return;
        }
        for (keeps, op_done) in [(false, false), (true, false), (false, true), (true, true)] {
            if (!keeps || tail) && (!op_done || op) {
                actions.push(Action::Crash { node, keeps, op_done });
            }
        }
    }

    fn losses(&self, node: usize, actions: &mut Vec<Action>) {
        let n = &self.nodes[node];
        if self.left.losses > 0 && n.accepted > Epoch(0) {
            actions.extend([false, true].map(|epochs| Action::Lose { node, epochs }));
        }
    }

    fn messages(&self, link: &Link, actions: &mut Vec<Action>) {
        if self.may_take_down(link) {
            actions.push(Action::Down(link.id()));
        }
        if self.may_take_up(link) {
            actions.push(Action::Up(link.id()));
        }
        let is_over = link.learner_gone && link.up.is_empty();
        if !link.leader_gone && (is_over || self.left.breaks > 0) {
            actions.push(Action::Left(link.id()));
        }
    }

    /// The state behind a step, and what is wrong with it.
    pub(super) fn after(&self, action: Action) -> World {
        let mut next = self.clone();
        // The machines' own assertions are invariants, too.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            next.act(action);
            next.check();
        }));
        if let Err(panic) = outcome
            && next.violation.is_none()
        {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            next.violation = Some(Violation { rule: "V10", what: what.to_string() });
        }
        next
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Elect(node) => {
                spend(&mut self.left.elections);
                self.begin_to_lead(node);
            }
            Action::ElectWrongly(node) => {
                spend(&mut self.left.elections);
                spend(&mut self.left.wrong);
                self.begin_to_lead(node);
            }
            Action::Follow(node, leader) => self.begin_to_follow(node, leader),
            Action::Up(link) => self.take_up(link),
            Action::Down(link) => self.take_down(link),
            Action::Left(link) => self.left(link),
            Action::Leave(node, op_done) => self.leave(node, op_done),
            Action::Flush(node, records) => self.flush(node, records),
            Action::Disk(node) => self.complete(node),
            Action::Propose(node) => {
                spend(&mut self.left.txns);
                self.propose(node);
            }
            Action::Snapshot(node) => {
                spend(&mut self.left.snapshots);
                let n = &mut self.nodes[node];
                n.base_len = n.applied_len();
                n.committed_durable = n.zxid_at(n.base_len);
            }
            Action::Crash { node, keeps, op_done } => {
                spend(&mut self.left.crashes);
                self.crash(node, keeps, op_done);
            }
            Action::Lose { node, epochs } => {
                spend(&mut self.left.losses);
                self.lose(node, epochs);
            }
            Action::Cut => {
                spend(&mut self.left.cuts);
                self.carrying = self.setup.links;
            }
            Action::Heal => {
                spend(&mut self.left.heals);
                self.carrying = LinkSet::whole();
            }
        }
    }

    fn left(&mut self, id: LinkId) {
        let link = self.link_mut(id).expect("asked before");
        let (leader, is_over) = (link.leader, link.learner_gone && link.up.is_empty());
        link.leader_goes();
        self.forget_links();
        if !is_over {
            spend(&mut self.left.breaks);
        }
        self.lead(leader, crate::zab::leader::Input::Left(id));
    }

    fn leave(&mut self, node: usize, op_done: bool) {
        if !self.has_reason_to_leave(node) {
            spend(&mut self.left.breaks);
        }
        self.leave_role(node, op_done);
    }

    fn crash(&mut self, node: usize, keeps: bool, op_done: bool) {
        if keeps {
            self.nodes[node].durable_len = self.nodes[node].log.len();
        }
        self.leave_role(node, op_done);
        let (forgets, applies) = (self.is(Mutation::ForgottenPromise), self.is(Mutation::TailAppliedAtStart));
        let n = &mut self.nodes[node];
        n.log.truncate(n.durable_len);
        n.late.clear();
        n.committed = if applies { n.last() } else { n.committed_durable };
        if forgets {
            n.accepted = n.current;
        }
    }
}

impl World {
    fn lose(&mut self, node: usize, epochs: bool) {
        self.leave_role(node, false);
        let n = &mut self.nodes[node];
        n.log.truncate(n.durable_len);
        n.held_once = (n.current, std::mem::take(&mut n.log));
        (n.durable_len, n.base_len, n.forgot) = (0, 0, true);
        (n.committed, n.committed_durable) = (Zxid::ZERO, Zxid::ZERO);
        n.late.clear();
        if epochs {
            (n.accepted, n.current, n.told) = (Epoch(0), Epoch(0), Epoch(0));
        }
    }
}

fn spend(left: &mut u8) {
    *left = left.checked_sub(1).expect("asked before");
}

impl Bounds {
    /// Nothing fails, and nothing is asked for.
    pub const NONE: Bounds = Bounds {
        elections: 0,
        wrong: 0,
        txns: 0,
        crashes: 0,
        breaks: 0,
        snapshots: 0,
        cuts: 0,
        heals: 0,
        losses: 0,
    };
}
