//! Where a search begins: the empty ensemble, or every state of a few stories, each of which is reachable and the eve of something.

use super::actions::Action;
use super::links::LinkSet;
use super::mutation::Mutation;
use super::state::{Bounds, NODES, Setup, World, link_id};

/// Nothing has ever happened. Without a cut to come, the link set's directions alone carry from the beginning.
#[must_use]
pub fn fresh(links: LinkSet, mutation: Option<Mutation>, left: Bounds) -> Vec<World> {
    vec![World::new(Setup::new(links, mutation), left)]
}

/// Every state of the stories, told without a mistake and over all directions, with all that `left` allows still to come.
#[must_use]
pub fn roots(links: LinkSet, mutation: Option<Mutation>, left: Bounds) -> Vec<World> {
    let mut roots = Vec::new();
    for story in [a_tail_to_cut, a_state_to_send, a_tail_to_keep] {
        let mut told = Story::begin();
        story(&mut told);
        roots.extend(told.states);
    }
    let setup = std::sync::Arc::new(Setup::new(links, mutation));
    for root in &mut roots {
        (root.setup, root.left) = (setup.clone(), left);
        root.carrying = if left.cuts == 0 { links } else { LinkSet::whole() };
    }
    roots
}

struct Story {
    world: World,
    states: Vec<World>,
}

impl Story {
    fn begin() -> Story {
        let all = Bounds {
            elections: u8::MAX,
            wrong: 0,
            txns: u8::MAX,
            crashes: u8::MAX,
            breaks: u8::MAX,
            snapshots: u8::MAX,
            cuts: 0,
            heals: 0,
            losses: 0,
        };
        let world = World::new(Setup::new(LinkSet::whole(), None), all);
        Story { states: vec![world.clone()], world }
    }

    fn then(&mut self, action: Action) {
        assert!(self.world.actions().contains(&action), "{action:?} may happen");
        self.world = self.world.after(action);
        assert_eq!(self.world.violation, None, "a story without a mistake");
        self.states.push(self.world.clone());
    }

    /// All that is under way arrives.
    fn quiesce(&mut self) {
        while let Some(action) = self.world.next_fair() {
            self.then(action);
        }
    }

    fn crash(&mut self, node: usize, keeps: bool) {
        self.then(Action::Crash { node, keeps, op_done: false });
    }

    fn led_by(&mut self, leader: usize, learners: &[usize]) {
        self.then(Action::Elect(leader));
        learners.iter().for_each(|learner| self.then(Action::Follow(*learner, leader)));
        self.quiesce();
    }
}

/// The first leader comes back with what nobody else has.
fn a_tail_to_cut(story: &mut Story) {
    story.led_by(0, &[1, 2]);
    story.then(Action::Propose(0));
    story.quiesce();
    story.then(Action::Leave(1, false));
    story.then(Action::Leave(2, false));
    story.then(Action::Propose(0));
    story.crash(0, true);
    story.led_by(1, &[2]);
    story.then(Action::Propose(1));
    story.quiesce();
    story.then(Action::Follow(0, 1));
    story.quiesce();
}

/// A learner comes back when the log before it is gone.
fn a_state_to_send(story: &mut Story) {
    story.led_by(0, &[1, 2]);
    story.then(Action::Propose(0));
    story.crash(2, false);
    story.quiesce();
    story.then(Action::Propose(0));
    story.quiesce();
    story.then(Action::Snapshot(0));
    story.then(Action::Follow(2, 0));
    let asks = link_id(0, 2, 0);
    story.then(Action::Up(asks));
    story.then(Action::Down(asks));
    // It is told of while the state is read.
    story.then(Action::Propose(0));
    story.quiesce();
}

/// What a quorum has is not committed yet when the leader goes.
fn a_tail_to_keep(story: &mut Story) {
    story.led_by(0, &[1]);
    story.then(Action::Propose(0));
    let sent = story.world.links[0].id();
    story.then(Action::Down(sent));
    story.crash(0, true);
    story.quiesce();
    story.led_by(1, &[2]);
    story.then(Action::Propose(1));
    story.then(Action::Follow(0, 1));
    story.quiesce();
}

const _: () = assert!(NODES == 3, "the stories are of three");
