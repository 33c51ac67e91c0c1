//! What goes over a connection, and its two ends.

use super::mutation::Mutation;
use super::state::{DiskOp, Down, Link, Role, Up, World, id_of};
use crate::base::Epoch;
use crate::zab::{LinkId, leader, learner};

impl World {
    pub(super) fn send_up(&mut self, id: LinkId, message: Up) {
        if let Some(link) = self.link_mut(id).filter(|link| !link.leader_gone) {
            link.up.push_back(message);
        }
    }

    pub(super) fn send_down(&mut self, id: LinkId, message: Down) {
        if let Some(link) = self.link_mut(id) {
            link.send_down(message);
        }
    }

    /// The leader takes a message.
    pub(super) fn take_up(&mut self, id: LinkId) {
        let link = self.link_mut(id).expect("asked before");
        let (node, from, message) = (link.leader, link.learner, link.up.pop_front().expect("asked before"));
        let mut input = match message {
            Up::Info(accepted) => leader::Input::Joined { link: id, id: id_of(from), accepted, zabra: true },
            Up::AckEpoch(current, last) => leader::Input::AckEpoch { link: id, current, last },
            Up::Ack(zxid) => leader::Input::Ack { link: id, zxid },
        };
        if self.is(Mutation::BehindIsIgnored)
            && let leader::Input::AckEpoch { current: Some(current), .. } = &mut input
        {
            *current = Epoch(0);
        }
        self.lead(node, input);
        if self.is(Mutation::AckOfAnotherZxid)
            && let leader::Input::Ack { link, zxid } = input
            && zxid.counter() == 0
            && self.nodes[node].last().epoch() == zxid.epoch()
        {
            let proposed = self.nodes[node].last();
            self.lead(node, leader::Input::Ack { link, zxid: proposed });
        }
    }

    /// The learner takes a message.
    pub(super) fn take_down(&mut self, id: LinkId) {
        let link = self.link_mut(id).expect("asked before");
        let (node, message) = (link.learner, link.down.pop_front().expect("asked before"));
        let n = &mut self.nodes[node];
        let Role::Following(follow) = &mut n.role else { panic!("its end is open") };
        let input = match message {
            Down::Info(epoch) => learner::Input::LeaderInfo { epoch, zabra: true },
            Down::Diff(upto) => learner::Input::Diff { upto },
            Down::Trunc(to) => learner::Input::Trunc { to },
            Down::Snap(log) => {
                let zxid = log.last().map(|txn| txn.zxid).unwrap_or_default();
                self.learn(node, learner::Input::Snap { zxid });
                if matches!(self.nodes[node].role, Role::Following(_)) {
                    self.ask_disk(node, DiskOp::Install(log));
                }
                return;
            }
            Down::Proposal(txn) => {
                n.log.push(txn);
                learner::Input::Proposal(txn.zxid)
            }
            Down::Commit(zxid) => learner::Input::Commit(zxid),
            Down::NewLeader(zxid) => {
                follow.history_len = Some(n.log.len());
                learner::Input::NewLeader(zxid)
            }
            Down::UpToDate => learner::Input::UpToDate,
        };
        self.learn(node, input);
        self.learner_mistakes(node, input);
    }
}

impl Link {
    pub(super) fn send_down(&mut self, message: Down) {
        if !self.learner_gone && !self.leader_gone {
            self.down.push_back(message);
        }
    }

    /// The leader's end is over: it takes nothing more.
    pub(super) fn leader_goes(&mut self) {
        (self.leader_gone, self.fed) = (true, false);
        self.up.clear();
    }

    /// The learner's end is over: it takes nothing more.
    pub(super) fn learner_goes(&mut self) {
        self.learner_gone = true;
        self.down.clear();
    }
}
