//! The invariants EL3-EL9 as seen from outside, checked around every input of every server of a simulated ensemble. Nothing here
//! looks into the machine: it is compared with what was put in, what came out, and what all servers have said before.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// (may lead, epoch, zxid, id): the order of EL2, written once more.
type Rank = (bool, i64, i64, i64);

/// What can be seen of a server at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct View {
    state: Option<PeerState>,
    round: i64,
    vote: Option<Vote>,
}

impl View {
    pub(super) fn of(election: &Election) -> View {
        View { state: election.state(), round: election.round(), vote: election.vote() }
    }

    fn is_looking(&self) -> bool {
        self.state == Some(PeerState::Looking)
    }

    fn leader(&self) -> Option<ServerId> {
        self.vote.map(|vote| vote.leader)
    }
}

/// One input and what came of it.
pub(super) struct Step<'a> {
    pub(super) id: ServerId,
    pub(super) now: MonoMs,
    pub(super) before: View,
    pub(super) input: &'a Input,
    pub(super) after: View,
    pub(super) outputs: &'a [Output],
}

/// What one server has been told in the round it is in.
#[derive(Clone, Default)]
struct Heard {
    round: i64,
    /// Best of what each proposed.
    by: BTreeMap<ServerId, Rank>,
    /// The best of all, those that are gone since among them.
    best: Option<Rank>,
    /// Since when it proposes what it does.
    proposes_since: MonoMs,
    down: BTreeSet<ServerId>,
}

/// Everything ever said in one run.
#[derive(Default)]
pub(super) struct Witness {
    /// Who has stood behind which vote of which round, looking or settled.
    cast: BTreeSet<(ServerId, i64, Rank)>,
    /// Who has settled on whom.
    settled_on: BTreeSet<(ServerId, ServerId)>,
    heard: BTreeMap<ServerId, Heard>,
}

fn rank(config: &QuorumConfig, vote: &Vote) -> Rank {
    (config.weight(vote.leader) > 0, vote.epoch, vote.zxid, vote.leader.0)
}

impl Witness {
    /// A server has lost its memory.
    pub(super) fn forget(&mut self, id: ServerId) {
        self.heard.remove(&id);
    }

    pub(super) fn check(&mut self, config: &QuorumConfig, step: &Step<'_>) {
        self.note(config, step);
        let starts = matches!(step.input, Input::Start { .. });
        if step.before.is_looking() && step.after.is_looking() && !starts {
            proposal_rises(config, step);
        }
        if step.before.state.is_some() && !step.before.is_looking() && !starts {
            settled_stays(step);
        }
        if let Some(vote) = step.after.vote {
            assert!(vote == Vote::NONE || config.is_voter(vote.leader), "EL7: {vote:?}");
        }
        let (members, sends) = (config.members().len(), |o: &&Output| matches!(o, Output::Send { .. }));
        assert!(step.outputs.iter().filter(sends).count() <= 2 * members, "EL9: a bounded answer");
        for output in step.outputs {
            if let Output::Decided(decision) = output {
                self.check_decision(config, step, decision);
            }
        }
    }

    fn note(&mut self, config: &QuorumConfig, step: &Step<'_>) {
        let heard = self.heard.entry(step.id).or_default();
        match step.input {
            Input::PeerDown(peer) => {
                heard.down.insert(*peer);
                heard.by.remove(peer);
            }
            Input::PeerUp(peer) => {
                heard.down.remove(peer);
            }
            Input::Notice { from, .. } => {
                heard.down.remove(from);
            }
            _ => {}
        }
        if step.after.round != heard.round {
            *heard =
                Heard { round: step.after.round, down: std::mem::take(&mut heard.down), ..Heard::default() };
        }
        if (step.after.round, step.after.vote) != (step.before.round, step.before.vote) {
            heard.proposes_since = step.now;
        }
        if let Input::Notice { from, notice } = step.input
            && notice.round == heard.round
            && notice.state != PeerState::Observing
            && config.is_voter(*from)
            && config.is_voter(notice.vote.leader)
        {
            let rank = rank(config, &notice.vote);
            heard.by.insert(*from, rank);
            if notice.state == PeerState::Looking && rank.0 {
                heard.best = heard.best.max(Some(rank));
            }
        }
        if let Some(vote) = step.after.vote {
            self.cast.insert((step.id, step.after.round, rank(config, &vote)));
            if !step.after.is_looking() {
                self.settled_on.insert((step.id, vote.leader));
            }
        }
    }

    fn check_decision(&self, config: &QuorumConfig, step: &Step<'_>, decision: &Decision) {
        let Decision { state, vote, round, supporters } = decision;
        let rank = rank(config, vote);
        assert!(config.contains_quorum(supporters) && rank.0, "EL4, EL7: {decision:?}");
        assert!(supporters.iter().all(|id| config.is_voter(*id)), "EL7: {decision:?}");
        assert_eq!(*state == PeerState::Leading, vote.leader == step.id);
        assert_eq!(*state == PeerState::Observing, !config.is_voter(step.id));
        let voted = |id: &ServerId| self.cast.contains(&(*id, *round, rank));
        let proposed =
            step.before.is_looking() && step.before.round == *round || supporters.iter().all(voted);
        let stands = |id: &ServerId| voted(id) || self.settled_on.contains(&(*id, vote.leader));
        assert!(supporters.iter().all(stands), "EL4, EL6: all of them have said so: {decision:?}");
        let says_so = vote.leader == step.id || self.settled_on.contains(&(vote.leader, vote.leader));
        if !says_so {
            assert!(proposed && supporters.iter().all(voted), "EL6: without the leader's word: {decision:?}");
            self.check_election(config, step, rank);
        }
    }

    /// Of a decision that no leadership stands behind yet: EL4's highest vote, EL5's end of waiting.
    fn check_election(&self, config: &QuorumConfig, step: &Step<'_>, chosen: Rank) {
        let heard = &self.heard[&step.id];
        assert!(heard.best <= Some(chosen), "EL4: the highest heard is {:?}, not {chosen:?}", heard.best);
        let waited = step.now.since(heard.proposes_since) >= Options::default().finalize_wait_ms;
        let known = |id: &ServerId| *id == step.id || heard.by.contains_key(id) || heard.down.contains(id);
        let all_known = config.voters().filter(|id| config.weight(*id) > 0).all(|id| known(&id));
        assert!(waited || all_known, "EL5: settled too early: {step:?}", step = step.after);
    }
}

/// EL3.
fn proposal_rises(config: &QuorumConfig, step: &Step<'_>) {
    let rank = |view: &View| view.vote.map(|vote| rank(config, &vote));
    assert!(step.after.round >= step.before.round, "EL3: rounds rise");
    if step.after.round == step.before.round {
        assert!(rank(&step.after) >= rank(&step.before), "EL3: {:?} to {:?}", step.before, step.after);
    }
}

/// EL8.
fn settled_stays(step: &Step<'_>) {
    let what = |view: &View| (view.state, view.round, view.leader());
    assert_eq!(what(&step.before), what(&step.after), "EL8: {:?}", step.input);
    assert!(!step.outputs.iter().any(|o| matches!(o, Output::Decided(_))), "EL8");
}
