//! One leader, its inputs scripted. Links carry the number of their server, unless a test says otherwise; the leader is server 1.

use std::sync::Arc;

use super::*;
use crate::wire::quorum_config::QuorumConfig;

const LIMITS: Limits = Limits {
    init_ms: 10_000,
    sync_ms: 4_000,
    liveness_ms: 500,
    probe_ms: 100,
    ping_ms: 1_000,
    stall_ms: 800,
};

fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn electorate(voters: &[i64], observers: &[i64], rest: &str) -> Electorate {
    let line = |id: &i64, role: &str| format!("server.{id}=h{id}:1:2:{role}\n");
    let mut text: String = voters.iter().map(|id| line(id, "participant")).collect();
    text.extend(observers.iter().map(|id| line(id, "observer")));
    Electorate::new(Arc::new(QuorumConfig::parse(&(text + rest)).expect("a configuration")), None)
}

/// A leader and its time.
struct Scene {
    now: MonoMs,
    leader: Leader,
}

impl Scene {
    /// It has accepted 4, entered 4 and logged (4, 7).
    fn new(electorate: Electorate) -> Scene {
        let mine = Summary { accepted: Epoch(4), current: Epoch(4), last: z(4, 7) };
        let now = MonoMs(1_000);
        Scene { now, leader: Leader::new(now, ServerId(1), electorate, LIMITS, mine) }
    }

    /// Of three voters and observer 9.
    fn of_three() -> Scene {
        Scene::new(electorate(&[1, 2, 3], &[9], ""))
    }

    /// Five voters.
    fn of_five() -> Scene {
        Scene::new(electorate(&[1, 2, 3, 4, 5], &[], ""))
    }

    /// Of three, established with `id`; everything it put out is taken.
    fn established_with(id: u64) -> Scene {
        let mut scene = Scene::of_three();
        scene.promise(id);
        scene.feed(Input::Entered);
        scene.synchronise(id);
        assert!(scene.leader.is_established());
        scene
    }

    /// The same with a server that answers no probes.
    fn established_with_java(id: u64) -> Scene {
        let mut scene = Scene::of_three();
        scene.feed(Input::Joined {
            link: LinkId(id),
            id: ServerId(id as i64),
            accepted: Epoch(4),
            zabra: false,
        });
        scene.feed(Input::Accepted);
        scene.ack_epoch(id);
        scene.feed(Input::Entered);
        scene.synchronise(id);
        scene
    }

    /// Five of five.
    fn established_five() -> Scene {
        let mut scene = Scene::of_five();
        scene.join(2, 4);
        scene.promise(3);
        scene.ack_epoch(2);
        scene.feed(Input::Entered);
        for id in [2, 3] {
            scene.synchronise(id);
        }
        for id in [4, 5] {
            scene.attach(id);
        }
        scene
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        self.leader.handle(self.now, input);
        std::iter::from_fn(|| self.leader.poll()).collect()
    }

    /// Time passes, then the timer.
    fn wait(&mut self, ms: u64) -> Vec<Output> {
        self.now = self.now.plus(ms);
        self.feed(Input::Timer)
    }

    fn join(&mut self, id: u64, accepted: u32) -> Vec<Output> {
        self.feed(Input::Joined {
            link: LinkId(id),
            id: ServerId(id as i64),
            accepted: Epoch(accepted),
            zabra: true,
        })
    }

    fn ack_epoch(&mut self, id: u64) -> Vec<Output> {
        self.acked_epoch(id, Some(4), z(4, 7))
    }

    fn acked_epoch(&mut self, id: u64, current: Option<u32>, last: Zxid) -> Vec<Output> {
        self.feed(Input::AckEpoch { link: LinkId(id), current: current.map(Epoch), last })
    }

    fn ack(&mut self, id: u64, zxid: Zxid) -> Vec<Output> {
        self.feed(Input::Ack { link: LinkId(id), zxid })
    }

    fn pong(&mut self, id: u64, token: u64) -> Vec<Output> {
        self.feed(Input::Pong { link: LinkId(id), token })
    }

    /// `id` completes the quorum that joins and the one that promises; the leader is left entering.
    fn promise(&mut self, id: u64) {
        assert_eq!(self.join(id, 4), [Output::Accept(Epoch(5))]);
        assert!(self.feed(Input::Accepted).contains(&Output::LeaderInfo(LinkId(id))));
        self.ack_epoch(id);
    }

    /// NEWLEADER and its acknowledgement.
    fn synchronise(&mut self, id: u64) -> Vec<Output> {
        self.feed(Input::NewLeaderSent(LinkId(id)));
        self.ack(id, z(5, 0))
    }

    /// All of it, of a learner that comes when the epoch is entered.
    fn attach(&mut self, id: u64) -> Vec<Output> {
        assert_eq!(self.join(id, 4), [Output::LeaderInfo(LinkId(id))]);
        assert_eq!(self.ack_epoch(id), [Output::Synchronise { link: LinkId(id), theirs: z(4, 7) }]);
        self.synchronise(id)
    }

    /// Everybody in `ids` is heard of.
    fn hear(&mut self, ids: &[u64]) {
        for id in ids {
            assert_eq!(self.feed(Input::Heard(LinkId(*id))), []);
        }
    }

    /// Time passes in which all of `ids` are heard of; the pings are left out of what is returned.
    fn wait_hearing(&mut self, ms: u64, ids: &[u64]) -> Vec<Output> {
        let (end, mut all) = (self.now.plus(ms), Vec::new());
        while self.now < end && !all.iter().any(|o| matches!(o, Output::GiveUp(_))) {
            self.hear(ids);
            let step = end.since(self.now).min(LIMITS.probe_ms);
            all.extend(self.wait(step).into_iter().filter(|o| !matches!(o, Output::Ping { .. })));
        }
        all
    }
}

fn dropped(id: u64, why: DropReason) -> Output {
    Output::Drop { link: LinkId(id), why }
}

fn ping(id: u64, token: u64) -> Output {
    Output::Ping { link: LinkId(id), token }
}

const GIVEN_UP_NOT_JOINED: [Output; 1] = [Output::GiveUp(GiveUpReason::NotJoined)];

// --- Discovery (L1, L2) ---

#[test]
fn a_quorum_joins_promises_and_synchronises_before_anybody_serves() {
    let mut s = Scene::of_three();
    let link = LinkId(2);
    assert_eq!((s.leader.poll(), s.leader.epoch()), (None, None));
    assert_eq!(s.join(2, 4), [Output::Accept(Epoch(5))]);
    assert_eq!(s.leader.epoch(), None, "not told before it is durable");
    assert_eq!(s.feed(Input::Accepted), [Output::LeaderInfo(link)]);
    assert_eq!(s.leader.epoch(), Some(Epoch(5)));
    assert_eq!(s.ack_epoch(2), [Output::Enter(Epoch(5))]);
    assert_eq!(s.feed(Input::Entered), [Output::Synchronise { link, theirs: z(4, 7) }]);
    assert_eq!(s.feed(Input::NewLeaderSent(link)), []);
    assert!(!s.leader.is_established());
    assert_eq!(s.ack(2, z(5, 0)), [Output::Established, Output::UpToDate(link)]);
    assert!(s.leader.is_established());
    assert_eq!(s.ack(2, z(5, 0)), [], "the answer to UPTODATE");
}

#[test]
fn one_voter_alone_is_its_own_quorum_at_every_stage() {
    let mut s = Scene::new(electorate(&[1], &[], ""));
    assert_eq!(s.leader.poll(), Some(Output::Accept(Epoch(5))));
    assert_eq!(s.feed(Input::Accepted), [Output::Enter(Epoch(5))]);
    assert_eq!(s.feed(Input::Entered), [Output::Established]);
    assert_eq!(s.feed(Input::Proposed(z(5, 1))), []);
    assert_eq!(s.feed(Input::Durable(z(5, 1))), [Output::Commit(z(5, 1))]);
    let token = s.leader.ask_token();
    assert_eq!(s.feed(Input::Ask), [Output::Confirmed(token)]);
    assert_eq!(s.wait(60_000), [Output::Confirmed(token + 1)], "it is never lost to itself");
}

#[test]
fn the_epoch_is_above_what_every_one_of_those_who_joined_has_accepted() {
    let mut s = Scene::of_five();
    assert_eq!(s.join(2, 11), []);
    assert_eq!(s.join(3, 6), [Output::Accept(Epoch(12))]);
}

#[test]
fn the_epoch_is_above_what_this_server_has_accepted() {
    let mut s = Scene::of_three();
    assert_eq!(s.join(2, 1), [Output::Accept(Epoch(5))]);
}

#[test]
fn observers_raise_the_epoch_but_never_count() {
    let mut s = Scene::of_three();
    assert_eq!(s.join(9, 20), []);
    assert_eq!(s.join(2, 4), [Output::Accept(Epoch(21))]);
    let mut s = Scene::of_five();
    for observer in 10..20 {
        assert_eq!(s.join(observer, 4), [], "server {observer} is not in the configuration at all");
    }
}

#[test]
fn observers_count_neither_for_the_promise_nor_for_the_history_nor_for_a_commit() {
    let mut s = Scene::of_three();
    s.join(9, 4);
    s.join(2, 4);
    assert_eq!(s.feed(Input::Accepted), [Output::LeaderInfo(LinkId(2)), Output::LeaderInfo(LinkId(9))]);
    assert_eq!(s.ack_epoch(9), []);
    assert_eq!(s.ack_epoch(2), [Output::Enter(Epoch(5))]);
    s.feed(Input::Entered);
    assert_eq!(s.synchronise(9), []);
    assert_eq!(
        s.synchronise(2),
        [Output::Established, Output::UpToDate(LinkId(2)), Output::UpToDate(LinkId(9))]
    );
    s.feed(Input::Proposed(z(5, 1)));
    assert_eq!(s.feed(Input::Durable(z(5, 1))), []);
    assert_eq!(s.ack(9, z(5, 1)), []);
    assert_eq!(s.ack(2, z(5, 1)), [Output::Commit(z(5, 1))]);
    assert_eq!(s.leader.followers_in_step(), [1, 2].map(ServerId).into());
    assert!(s.leader.learners().any(|learner| learner == (LinkId(9), ServerId(9), false, true)));
}

#[test]
fn nobody_is_told_an_epoch_that_is_not_durable_here() {
    let mut s = Scene::of_three();
    assert_eq!(s.join(2, 4), [Output::Accept(Epoch(5))]);
    assert_eq!(s.join(3, 4), [], "it comes while the epoch is being stored");
    assert_eq!(s.feed(Input::Accepted), [Output::LeaderInfo(LinkId(2)), Output::LeaderInfo(LinkId(3))]);
}

#[test]
fn who_leaves_before_the_quorum_is_complete_does_not_count() {
    let mut s = Scene::of_five();
    s.join(2, 4);
    s.feed(Input::Left(LinkId(2)));
    assert_eq!(s.join(3, 4), []);
    assert_eq!(s.join(4, 4), [Output::Accept(Epoch(5))]);
}

#[test]
fn nobody_is_brought_up_to_date_before_a_quorum_has_promised() {
    let mut s = Scene::of_five();
    s.join(2, 4);
    s.join(3, 4);
    s.feed(Input::Accepted);
    assert_eq!(s.ack_epoch(2), []);
    assert_eq!(s.ack_epoch(3), [Output::Enter(Epoch(5))]);
    s.join(4, 4);
    assert_eq!(s.ack_epoch(4), [], "the epoch is being entered");
    let synchronised: Vec<Output> =
        [2, 3, 4].map(|id| Output::Synchronise { link: LinkId(id), theirs: z(4, 7) }).into();
    assert_eq!(s.feed(Input::Entered), synchronised);
}

#[test]
fn a_promise_counts_once_however_often_a_server_connects() {
    let mut s = Scene::of_five();
    s.join(2, 4);
    s.join(3, 4);
    s.feed(Input::Accepted);
    s.ack_epoch(2);
    let twice = Input::Joined { link: LinkId(12), id: ServerId(2), accepted: Epoch(4), zabra: true };
    s.feed(twice);
    assert_eq!(s.ack_epoch(12), []);
    assert_eq!(s.ack_epoch(3), [Output::Enter(Epoch(5))], "those of 1, 2 and 3");
}

#[test]
fn a_promise_that_may_have_been_given_to_another_leader_is_not_counted() {
    let mut s = Scene::of_five();
    s.join(2, 4);
    s.join(3, 4);
    s.feed(Input::Accepted);
    s.ack_epoch(2);
    assert_eq!(s.acked_epoch(3, None, z(4, 7)), []);
    s.join(4, 5);
    assert_eq!(s.acked_epoch(4, None, z(9, 9)), [], "nor compared");
    s.join(5, 4);
    assert_eq!(s.ack_epoch(5), [Output::Enter(Epoch(5))]);
    assert_eq!(s.feed(Input::Entered).len(), 4, "all are brought up to date");
    assert_eq!(s.synchronise(3), []);
    assert_eq!(s.synchronise(4)[0], Output::Established, "and their acknowledgements of the history count");
}

#[test]
fn a_voter_that_is_ahead_by_epoch_or_by_zxid_ends_a_leader_that_has_no_quorum_without_it() {
    for (current, last) in [(5, z(4, 1)), (4, z(4, 8))] {
        let mut s = Scene::of_three();
        s.join(2, 4);
        s.feed(Input::Accepted);
        let end = [dropped(2, DropReason::Ahead), Output::GiveUp(GiveUpReason::Behind(ServerId(2)))];
        assert_eq!(s.acked_epoch(2, Some(current), last), end);
    }
}

#[test]
fn who_is_level_or_behind_may_have_the_higher_zxid_of_an_earlier_epoch() {
    for (current, last) in [(4, z(4, 7)), (4, z(3, 9)), (3, z(4, 99))] {
        let mut s = Scene::of_three();
        s.join(2, 4);
        s.feed(Input::Accepted);
        assert_eq!(s.acked_epoch(2, Some(current), last), [Output::Enter(Epoch(5))]);
    }
}

#[test]
fn a_voter_that_is_ahead_is_sent_away_when_a_quorum_remains() {
    let mut s = Scene::of_three();
    s.join(2, 4);
    s.join(3, 4);
    s.feed(Input::Accepted);
    assert_eq!(s.acked_epoch(3, Some(4), z(4, 8)), [dropped(3, DropReason::Ahead)]);
    assert_eq!(s.ack_epoch(2), [Output::Enter(Epoch(5))]);
    s.feed(Input::Entered);
    s.join(3, 5);
    let cut = [Output::Synchronise { link: LinkId(3), theirs: z(4, 8) }];
    assert_eq!(s.acked_epoch(3, None, z(4, 8)), cut, "what it has too much is cut now");
}

/// It would come back at once and end every leader there is: nobody asked it, and what it has may never have been committed.
#[test]
fn an_observer_that_is_ahead_has_no_say() {
    let mut s = Scene::of_three();
    s.join(9, 4);
    s.join(2, 4);
    s.feed(Input::Accepted);
    assert_eq!(s.acked_epoch(9, Some(6), z(6, 1)), []);
    assert_eq!(s.ack_epoch(2), [Output::Enter(Epoch(5))]);
    let both = [
        Output::Synchronise { link: LinkId(2), theirs: z(4, 7) },
        Output::Synchronise { link: LinkId(9), theirs: z(6, 1) },
    ];
    assert_eq!(s.feed(Input::Entered), both);
}

#[test]
fn a_voter_promised_to_a_later_epoch_ends_the_leader_and_an_observer_does_not() {
    let mut s = Scene::established_with(2);
    assert_eq!(s.join(9, 6), [Output::LeaderInfo(LinkId(9))]);
    let later = GiveUpReason::LaterEpoch(ServerId(3), Epoch(6));
    assert_eq!(s.join(3, 6), [Output::GiveUp(later)]);
    assert_eq!((s.leader.epoch(), s.leader.next_timer()), (None, None));
    assert_eq!(s.join(3, 4), [], "nothing follows");
}

#[test]
fn a_later_epoch_met_while_the_own_one_is_being_stored_ends_the_leader_when_it_comes_again() {
    let mut s = Scene::of_three();
    s.join(2, 4);
    assert_eq!(s.join(3, 6), []);
    s.feed(Input::Accepted);
    s.feed(Input::Left(LinkId(3)));
    assert_eq!(s.join(3, 6), [Output::GiveUp(GiveUpReason::LaterEpoch(ServerId(3), Epoch(6)))]);
}

#[test]
fn an_epoch_that_leaves_no_room_is_not_believed() {
    let mut s = Scene::of_three();
    assert_eq!(s.join(2, EPOCH_MAX.0), [dropped(2, DropReason::Epoch(EPOCH_MAX))]);
    assert_eq!(s.join(2, u32::MAX), [dropped(2, DropReason::Epoch(Epoch(u32::MAX)))]);
    let never = 5 + EPOCHS_AHEAD_MAX;
    assert_eq!(s.join(2, never), [dropped(2, DropReason::Epoch(Epoch(never)))]);
    assert_eq!(s.join(3, 4), [Output::Accept(Epoch(5))]);
}

// --- Out of order (L6) ---

#[test]
fn messages_out_of_order_end_the_link_and_nothing_else() {
    let out = |what| dropped(2, DropReason::OutOfOrder(what));
    let mut s = Scene::of_five();
    s.join(2, 4);
    assert_eq!(s.ack(2, z(5, 0)), [out("ACK")], "no epoch yet");
    s.join(2, 4);
    assert_eq!(s.ack_epoch(2), [out("ACKEPOCH")], "nobody was told the epoch");
    s.join(2, 4);
    assert_eq!(s.join(2, 4), [out("FOLLOWERINFO")]);
    s.join(2, 4);
    s.join(3, 4);
    s.feed(Input::Accepted);
    assert_eq!(s.ack(2, z(5, 0)), [out("ACK of NEWLEADER")], "told the epoch");
    s.join(2, 4);
    s.ack_epoch(2);
    assert_eq!(s.ack_epoch(2), [out("ACKEPOCH")], "twice");
    assert_eq!(s.ack_epoch(3), [Output::Enter(Epoch(5))], "a promise is kept by who gave it");
    s.feed(Input::Entered);
    s.join(2, 5);
    s.acked_epoch(2, None, z(4, 7));
    assert_eq!(s.ack(2, z(5, 0)), [out("ACK of NEWLEADER")], "NEWLEADER is not sent");
    s.join(2, 5);
    s.acked_epoch(2, None, z(4, 7));
    assert_eq!(s.ack(2, z(4, 7)), [out("ACK")], "nor anything else");
    s.join(2, 5);
    s.acked_epoch(2, None, z(4, 7));
    assert_eq!(s.synchronise(2), []);
    assert_eq!(s.ack(2, z(5, 0)), [out("ACK of NEWLEADER")], "twice, before UPTODATE");
}

#[test]
fn a_server_that_connects_again_is_heard_on_its_new_link_only() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    let again = Input::Joined { link: LinkId(22), id: ServerId(2), accepted: Epoch(5), zabra: true };
    assert_eq!(s.feed(again), [dropped(2, DropReason::Replaced), Output::LeaderInfo(LinkId(22))]);
    assert_eq!(s.ack(2, z(5, 1)), [], "no commit on the word of the old link");
    for late in [
        Input::AckEpoch { link: LinkId(2), current: Some(Epoch(9)), last: z(9, 9) },
        Input::NewLeaderSent(LinkId(2)),
        Input::Ack { link: LinkId(2), zxid: z(7, 7) },
        Input::Pong { link: LinkId(2), token: 1 },
        Input::Heard(LinkId(2)),
        Input::Left(LinkId(2)),
    ] {
        assert_eq!(s.feed(late), []);
    }
    assert_eq!(s.acked_epoch(22, None, z(5, 1)), [Output::Synchronise { link: LinkId(22), theirs: z(5, 1) }]);
}

#[test]
fn a_link_that_is_not_there_is_not_dropped_again() {
    let mut s = Scene::of_three();
    assert_eq!(s.ack(2, z(5, 0)), []);
    assert_eq!(s.ack_epoch(2), []);
}

// --- Synchronisation (L3) ---

#[test]
fn the_epoch_is_established_by_a_quorum_that_has_the_history_and_is_still_there() {
    let mut s = Scene::of_five();
    s.join(2, 4);
    s.promise(3);
    s.ack_epoch(2);
    s.feed(Input::Entered);
    assert_eq!(s.synchronise(2), []);
    s.feed(Input::Left(LinkId(2)));
    assert_eq!(s.synchronise(3), []);
    s.join(4, 4);
    s.ack_epoch(4);
    assert_eq!(
        s.synchronise(4),
        [Output::Established, Output::UpToDate(LinkId(3)), Output::UpToDate(LinkId(4))]
    );
    assert_eq!(s.leader.followers_in_step(), [1, 3, 4].map(ServerId).into());
    let learners: Vec<_> = s.leader.learners().collect();
    assert_eq!(learners, [(LinkId(3), ServerId(3), true, true), (LinkId(4), ServerId(4), true, true)]);
}

#[test]
fn who_comes_later_is_brought_up_to_date_and_told_to_serve_at_once() {
    let mut s = Scene::established_with(2);
    assert_eq!(s.attach(3), [Output::UpToDate(LinkId(3))]);
}

#[test]
fn a_hierarchical_quorum_is_asked_for_at_every_stage() {
    // Groups {1, 2}, {3, 4}, {5}: a majority of the weight in two groups. Server 2 weighs nothing.
    let groups =
        "group.1=1:2\ngroup.2=3:4\ngroup.3=5\nweight.1=1\nweight.2=0\nweight.3=1\nweight.4=1\nweight.5=1\n";
    let mut s = Scene::new(electorate(&[1, 2, 3, 4, 5], &[], groups));
    assert_eq!(s.join(2, 4), []);
    assert_eq!(s.join(3, 4), [], "half of the second group");
    assert_eq!(s.join(4, 4), [Output::Accept(Epoch(5))]);
    s.feed(Input::Accepted);
    assert_eq!(s.ack_epoch(2), []);
    assert_eq!(s.ack_epoch(3), []);
    assert_eq!(s.ack_epoch(4), [Output::Enter(Epoch(5))]);
    s.feed(Input::Entered);
    assert_eq!((s.synchronise(2), s.synchronise(3)), (vec![], vec![]));
    assert_eq!(s.synchronise(4)[0], Output::Established);
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    assert_eq!((s.ack(2, z(5, 1)), s.ack(3, z(5, 1))), (vec![], vec![]), "three of five are no quorum here");
    assert_eq!(s.ack(4, z(5, 1)), [Output::Commit(z(5, 1))]);
    let token = s.leader.ask_token();
    s.feed(Input::Ask);
    assert_eq!((s.pong(2, token), s.pong(3, token)), (vec![], vec![]));
    assert_eq!(s.pong(4, token), [Output::Confirmed(token)]);
}

#[test]
fn two_configurations_are_asked_while_one_follows_the_other() {
    let current = QuorumConfig::parse("server.1=h1:1:2\nserver.2=h2:1:2\nserver.3=h3:1:2\n").expect("valid");
    let next =
        QuorumConfig::parse("server.1=h1:1:2\nserver.4=h4:1:2\nserver.5=h5:1:2\nversion=5\n").expect("valid");
    let mut s = Scene::new(Electorate::new(Arc::new(current), Some(Arc::new(next))));
    assert_eq!(s.join(2, 4), []);
    assert_eq!(s.join(3, 4), []);
    assert_eq!(s.join(4, 4), [Output::Accept(Epoch(5))]);
}

// --- Broadcast (L4, L5) ---

#[test]
fn a_proposal_is_committed_when_a_quorum_has_it_durably() {
    let mut s = Scene::established_five();
    assert_eq!(s.feed(Input::Proposed(z(5, 3))), []);
    assert_eq!(s.feed(Input::Durable(z(5, 3))), []);
    assert_eq!(s.ack(2, z(5, 2)), []);
    assert_eq!(s.ack(3, z(5, 1)), [Output::Commit(z(5, 1))], "what three of five have");
    assert_eq!(s.ack(4, z(5, 3)), [Output::Commit(z(5, 2))]);
    assert_eq!(s.ack(5, z(5, 3)), [Output::Commit(z(5, 3))]);
    assert_eq!(s.ack(2, z(5, 3)), [], "once");
}

#[test]
fn a_quorum_of_followers_commits_before_the_leaders_own_disk_has_it() {
    let mut s = Scene::established_five();
    s.feed(Input::Proposed(z(5, 1)));
    assert_eq!((s.ack(2, z(5, 1)), s.ack(3, z(5, 1))), (vec![], vec![]), "two, and a disk that is slow");
    assert_eq!(s.ack(4, z(5, 1)), [Output::Commit(z(5, 1))]);
    assert_eq!(s.feed(Input::Durable(z(5, 1))), []);
}

#[test]
fn an_older_acknowledgement_takes_nothing_back() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Proposed(z(5, 2)));
    s.ack(2, z(5, 2));
    assert_eq!(s.ack(2, z(5, 1)), []);
    assert_eq!(s.feed(Input::Durable(z(5, 2))), [Output::Commit(z(5, 2))]);
}

#[test]
fn acknowledgements_of_earlier_epochs_commit_nothing() {
    let mut s = Scene::established_with(2);
    assert_eq!(s.ack(2, z(4, 7)), []);
    assert_eq!(s.ack(2, z(3, 1)), []);
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    assert_eq!(s.ack(2, z(4, 7)), []);
    assert_eq!(s.feed(Input::Durable(z(5, 1))), []);
}

#[test]
fn what_was_not_proposed_cannot_be_acknowledged() {
    for found in [z(5, 2), z(6, 0), z(6, 1)] {
        let mut s = Scene::established_with(2);
        s.feed(Input::Proposed(z(5, 1)));
        s.feed(Input::Durable(z(5, 1)));
        assert_eq!(s.ack(2, found), [dropped(2, DropReason::Unproposed { found, proposed: z(5, 1) })]);
    }
}

#[test]
fn who_left_or_has_not_the_history_does_not_count_for_a_commit() {
    let mut s = Scene::established_five();
    s.feed(Input::Proposed(z(5, 1)));
    s.ack(2, z(5, 1));
    s.ack(3, z(5, 1));
    s.feed(Input::Left(LinkId(3)));
    assert_eq!(s.feed(Input::Durable(z(5, 1))), []);
    s.join(3, 5);
    s.acked_epoch(3, None, z(5, 1));
    s.feed(Input::NewLeaderSent(LinkId(3)));
    assert_eq!(s.ack(4, z(5, 1)), [Output::Commit(z(5, 1))]);
}

/// ZOOKEEPER-4685: a 3.8 follower's log thread acknowledges what came with the history before its main thread acknowledges NEWLEADER.
#[test]
fn acknowledgements_that_overtake_that_of_newleader_count_behind_it() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Proposed(z(5, 1)));
    s.join(3, 4);
    s.ack_epoch(3);
    s.feed(Input::NewLeaderSent(LinkId(3)));
    assert_eq!(s.ack(3, z(4, 7)), []);
    assert_eq!(s.ack(3, z(5, 1)), []);
    assert_eq!(s.feed(Input::Durable(z(5, 1))), [], "it has not said that it holds the epoch's history");
    assert_eq!(s.ack(3, z(5, 0)), [Output::UpToDate(LinkId(3)), Output::Commit(z(5, 1))]);
}

// --- Who is there (L7) ---

#[test]
fn a_leader_that_nobody_joins_gives_up_after_init_limit() {
    let mut s = Scene::of_three();
    assert_eq!(s.leader.next_timer(), Some(MonoMs(11_000)));
    s.join(9, 4);
    assert_eq!(s.wait_hearing(LIMITS.init_ms - 1, &[9]), []);
    assert_eq!(s.wait(1), GIVEN_UP_NOT_JOINED);
    assert_eq!((s.leader.next_timer(), s.wait(1)), (None, vec![]));
}

#[test]
fn each_stage_before_broadcast_has_init_limit() {
    let mut s = Scene::of_three();
    s.wait_hearing(9_000, &[]);
    s.join(2, 4);
    assert_eq!(s.wait_hearing(LIMITS.init_ms - 1, &[2]), [], "the epoch is being stored");
    s.feed(Input::Accepted);
    assert_eq!(s.wait_hearing(LIMITS.init_ms - 1, &[2]), [], "no promise");
    s.ack_epoch(2);
    assert_eq!(s.wait_hearing(LIMITS.init_ms - 1, &[2]), [], "the epoch is being entered");
    s.feed(Input::Entered);
    assert_eq!(s.wait_hearing(LIMITS.init_ms - 1, &[2]), [], "history is on its way");
    assert_eq!(s.wait_hearing(1, &[2]), [Output::GiveUp(GiveUpReason::NotSynchronised)]);
}

#[test]
fn an_epoch_that_is_not_stored_in_time_ends_the_leader() {
    let mut s = Scene::of_three();
    s.join(2, 4);
    assert_eq!(s.wait_hearing(LIMITS.init_ms, &[2]), GIVEN_UP_NOT_JOINED);
}

#[test]
fn a_promise_that_does_not_come_ends_the_leader() {
    let mut s = Scene::of_three();
    s.join(2, 4);
    s.feed(Input::Accepted);
    assert_eq!(s.wait_hearing(LIMITS.init_ms, &[2]), [Output::GiveUp(GiveUpReason::NotSynchronised)]);
}

#[test]
fn nothing_is_due_in_broadcast_but_what_keeps_the_epoch_alive() {
    let mut s = Scene::established_with(2);
    assert_eq!(s.leader.next_timer(), Some(s.now), "the first probe at once");
    s.feed(Input::Timer);
    assert_eq!(s.leader.next_timer(), Some(s.now.plus(LIMITS.probe_ms)));
    assert_eq!(s.wait_hearing(100_000, &[2]), []);
}

/// The learners have the history when they say so: nothing of earlier epochs is acknowledged by them any more.
#[test]
fn followers_of_an_idle_leader_owe_nothing() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    assert_eq!(s.ack(2, z(5, 1)), [Output::Commit(z(5, 1))]);
    assert_eq!(s.attach(3), [Output::UpToDate(LinkId(3))], "what is committed came with its history");
    assert_eq!(s.wait_hearing(60_000, &[2, 3]), []);
}

#[test]
fn a_silent_zabra_node_is_dropped_after_the_liveness_limit_and_a_zookeeper_node_after_sync_limit() {
    let mut s = Scene::established_with(2);
    let java = Input::Joined { link: LinkId(3), id: ServerId(3), accepted: Epoch(4), zabra: false };
    s.feed(java);
    s.ack_epoch(3);
    s.synchronise(3);
    let begun = s.now;
    s.hear(&[2]);
    assert_eq!(s.wait_hearing(LIMITS.liveness_ms - 1, &[]), []);
    assert_eq!(s.wait(1), [dropped(2, DropReason::Silent(LIMITS.liveness_ms))]);
    let left = begun.plus(LIMITS.sync_ms).since(s.now);
    assert_eq!(s.wait_hearing(left - 1, &[]), []);
    assert_eq!(s.wait_hearing(1, &[]), [dropped(3, DropReason::Silent(LIMITS.sync_ms))]);
}

/// The timer is called when it is due, not sooner: what is asked for in between must not put it off.
#[test]
fn syncs_that_never_cease_do_not_hide_a_silent_node() {
    let mut s = Scene::established_with(2);
    s.attach(3);
    let end = s.now.plus(LIMITS.liveness_ms + LIMITS.probe_ms);
    let mut all = Vec::new();
    while s.now < end {
        s.now = s.now.plus(1);
        all.extend(s.feed(Input::Ask));
        all.extend(s.pong(2, s.leader.ask_token() - 1));
        if s.leader.next_timer().is_some_and(|at| at <= s.now) {
            all.extend(s.feed(Input::Timer));
        }
    }
    let silent =
        |output: &Output| matches!(output, Output::Drop { link: LinkId(3), why: DropReason::Silent(_) });
    assert!(all.iter().any(silent), "server 3 is silent");
}

#[test]
fn a_learner_that_is_being_brought_up_to_date_may_be_silent_for_long() {
    let mut s = Scene::established_with(2);
    s.join(3, 4);
    s.ack_epoch(3);
    let limit = LIMITS.init_ms + LIMITS.sync_ms;
    assert_eq!(s.wait_hearing(limit - 1, &[2]), []);
    assert_eq!(s.wait_hearing(1, &[2]), [dropped(3, DropReason::Silent(limit))]);
}

#[test]
fn whatever_comes_is_a_sign_of_life() {
    let mut s = Scene::established_five();
    s.feed(Input::Proposed(z(5, 9)));
    s.feed(Input::Durable(z(5, 9)));
    for counter in 1..8 {
        s.wait(LIMITS.liveness_ms - 1);
        s.ack(2, z(5, counter));
        s.pong(3, 1);
        s.hear(&[4]);
        s.ack(5, z(5, 0));
    }
    assert_eq!(s.leader.followers_in_step().len(), 5);
}

#[test]
fn a_voter_that_acknowledges_nothing_for_sync_limit_is_dropped_though_it_is_heard_of() {
    let mut s = Scene::established_five();
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    for id in [2, 3, 4] {
        s.ack(id, z(5, 1));
    }
    assert_eq!(s.wait_hearing(LIMITS.sync_ms - 1, &[2, 3, 4, 5]), []);
    assert_eq!(s.wait(1)[0], dropped(5, DropReason::Lagging(LIMITS.sync_ms)));
}

#[test]
fn an_acknowledgement_of_an_earlier_epoch_pays_nothing() {
    let mut s = Scene::established_five();
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    for id in [2, 3, 4] {
        s.ack(id, z(5, 1));
    }
    s.wait_hearing(LIMITS.sync_ms - 1, &[2, 3, 4, 5]);
    s.ack(5, z(4, 7));
    assert_eq!(s.wait(1)[0], dropped(5, DropReason::Lagging(LIMITS.sync_ms)));
}

#[test]
fn a_voter_that_is_slow_but_goes_on_is_kept() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Proposed(z(5, 9)));
    s.feed(Input::Durable(z(5, 9)));
    for counter in 1..9 {
        assert_eq!(s.wait_hearing(LIMITS.sync_ms - 1, &[2]), []);
        s.ack(2, z(5, counter));
    }
    s.ack(2, z(5, 9));
    assert_eq!(s.wait_hearing(4 * LIMITS.sync_ms, &[2]), [], "it owes nothing any more");
}

#[test]
fn a_voter_that_joins_owes_what_is_proposed_and_not_committed() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    assert_eq!(s.attach(3), [Output::UpToDate(LinkId(3))]);
    s.ack(2, z(5, 1));
    assert_eq!(s.wait_hearing(LIMITS.sync_ms, &[2, 3]), [dropped(3, DropReason::Lagging(LIMITS.sync_ms))]);
}

#[test]
fn an_observer_owes_nothing() {
    let mut s = Scene::established_with(2);
    s.attach(9);
    s.feed(Input::Proposed(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    s.ack(2, z(5, 1));
    assert_eq!(s.wait_hearing(2 * LIMITS.sync_ms, &[2, 9]), []);
}

#[test]
fn a_leader_without_a_quorum_gives_up_after_the_liveness_limit() {
    let mut s = Scene::established_with(2);
    s.attach(9);
    assert_eq!(s.feed(Input::Left(LinkId(2))), []);
    assert_eq!(s.leader.next_timer(), Some(s.now));
    assert_eq!(s.wait_hearing(LIMITS.liveness_ms - 1, &[9]), []);
    let why = GiveUpReason::QuorumLost(LIMITS.liveness_ms);
    assert_eq!(s.wait_hearing(1, &[9]), [Output::GiveUp(why)], "an observer is no quorum");
}

#[test]
fn a_silent_quorum_is_a_lost_quorum() {
    let mut s = Scene::established_with(2);
    let end = s.wait_hearing(3 * LIMITS.liveness_ms, &[]);
    assert_eq!(end[0], dropped(2, DropReason::Silent(LIMITS.liveness_ms)));
    assert_eq!(end[1..], [Output::GiveUp(GiveUpReason::QuorumLost(LIMITS.liveness_ms))]);
}

/// Silence that is noticed by one limit must not wait for a second one.
#[test]
fn silence_counts_once() {
    let lost = Output::GiveUp(GiveUpReason::QuorumLost(LIMITS.liveness_ms));
    let mut s = Scene::established_five();
    let begun = s.now;
    let end = s.wait_hearing(3 * LIMITS.liveness_ms, &[3]);
    assert_eq!((s.now.since(begun), end.last()), (LIMITS.liveness_ms, Some(&lost)));
    assert_eq!(end.len(), 4, "three were silent: {end:?}");
    // One leaves while it is heard, then all others are silent: until then there was a quorum.
    let mut s = Scene::established_five();
    s.wait_hearing(400, &[2, 4]);
    let begun = s.now;
    s.hear(&[2]);
    assert_eq!(s.feed(Input::Left(LinkId(4))), []);
    let end = s.wait_hearing(3 * LIMITS.liveness_ms, &[2]);
    assert_eq!((s.now.since(begun), end.last()), (LIMITS.liveness_ms, Some(&lost)));
}

#[test]
fn peers_that_do_not_answer_probes_count_as_heard_until_their_link_is_gone() {
    let mut s = Scene::established_with_java(2);
    assert_eq!(s.wait_hearing(LIMITS.sync_ms - 1, &[]), []);
    assert_eq!(s.feed(Input::Left(LinkId(2))), []);
    assert_eq!(s.wait_hearing(LIMITS.liveness_ms - 1, &[]), []);
    assert_eq!(s.wait(1), [Output::GiveUp(GiveUpReason::QuorumLost(LIMITS.liveness_ms))]);
}

#[test]
fn a_follower_that_connects_again_has_been_heard_until_then() {
    let mut s = Scene::established_with(2);
    s.wait_hearing(LIMITS.liveness_ms - 100, &[]);
    let again = Input::Joined { link: LinkId(7), id: ServerId(2), accepted: Epoch(5), zabra: true };
    assert_eq!(s.feed(again), [dropped(2, DropReason::Replaced), Output::LeaderInfo(LinkId(7))]);
    assert_eq!(s.wait_hearing(LIMITS.liveness_ms - 1, &[]), []);
    assert_eq!(s.wait(1), [Output::GiveUp(GiveUpReason::QuorumLost(LIMITS.liveness_ms))]);
}

fn settles(voter: i64, on: Option<i64>) -> Input {
    Input::Settled { voter: ServerId(voter), on: on.map(ServerId) }
}

/// L8: nobody waits for those who will not come.
#[test]
fn a_leader_whose_voters_have_settled_elsewhere_gives_up_at_once() {
    let end = [Output::GiveUp(GiveUpReason::Elsewhere(ServerId(5)))];
    let mut s = Scene::of_five();
    assert_eq!(s.feed(settles(5, Some(5))), []);
    assert_eq!(s.feed(settles(4, Some(5))), [], "three are left");
    assert_eq!(s.feed(settles(4, None)), []);
    assert_eq!(s.feed(settles(3, Some(5))), [], "one has thought better of it");
    assert_eq!(s.feed(settles(2, Some(5))), end);
    // Who has joined counts, until it leaves.
    let mut s = Scene::of_five();
    s.join(2, 4);
    s.join(3, 4);
    for id in [2, 3, 4] {
        assert_eq!(s.feed(settles(id, Some(5))), []);
    }
    assert_eq!(s.feed(settles(5, Some(5))), []);
    assert_eq!(s.feed(Input::Left(LinkId(3))), end);
    // What it said before it joined is no more.
    let mut s = Scene::of_three();
    s.feed(settles(2, Some(3)));
    s.join(2, 4);
    s.feed(Input::Left(LinkId(2)));
    assert_eq!(s.feed(settles(3, Some(3))), []);
}

/// L8: who has left cannot come again to a leader that no quorum follows.
#[test]
fn a_leader_without_those_it_decided_its_epoch_with_gives_up_soon() {
    let mut s = Scene::of_three();
    assert_eq!(s.wait(LIMITS.init_ms - 1), [], "nobody has joined yet: they may come");
    s.join(2, 4);
    s.feed(Input::Left(LinkId(2)));
    assert_eq!(s.wait(LIMITS.liveness_ms - 1), []);
    assert_eq!(s.wait(1), [Output::GiveUp(GiveUpReason::QuorumLost(LIMITS.liveness_ms))]);
    // Another one comes in time.
    let mut s = Scene::of_three();
    s.join(2, 4);
    s.feed(Input::Left(LinkId(2)));
    s.wait(LIMITS.liveness_ms - 1);
    s.join(3, 4);
    assert_eq!(s.wait(LIMITS.liveness_ms), []);
}

/// R13.
#[test]
fn an_established_leader_is_deposed_by_nobody_who_has_settled_elsewhere() {
    let mut s = Scene::established_with(2);
    assert_eq!(s.feed(settles(3, Some(3))), []);
    assert_eq!(s.feed(settles(2, Some(3))), []);
    assert_eq!(s.wait_hearing(4 * LIMITS.liveness_ms, &[2]), []);
    assert_eq!(s.feed(Input::Left(LinkId(2))), [], "it may come back");
}

/// Who has acknowledged the history waits for others without a word, and is not asked for one.
#[test]
fn those_who_waited_for_the_epoch_are_not_silent_when_it_begins() {
    let mut s = Scene::of_five();
    s.join(2, 4);
    s.promise(3);
    s.ack_epoch(2);
    s.feed(Input::Entered);
    s.synchronise(2);
    s.wait(4 * LIMITS.liveness_ms);
    assert_eq!(s.synchronise(3).len(), 3, "established, and both are told");
    let out = s.wait(1);
    assert!(matches!(out[..], [Output::Ping { .. }, Output::Ping { .. }]), "nobody is dropped: {out:?}");
    assert_eq!(s.wait_hearing(4 * LIMITS.liveness_ms, &[2, 3]), []);
}

/// The leader was stopped, or had something long to do: answers that it did not look at are no silence.
#[test]
fn a_leader_that_looks_again_after_a_pause_waits_for_answers() {
    let mut s = Scene::established_with(2);
    s.wait_hearing(LIMITS.probe_ms, &[2]);
    s.wait_hearing(LIMITS.probe_ms, &[]);
    let out = s.wait(LIMITS.liveness_ms - 1);
    assert!(matches!(out[..], [Output::Ping { .. }]), "it asks: {out:?}");
    s.hear(&[2]);
    assert_eq!(s.wait_hearing(4 * LIMITS.liveness_ms, &[2]), []);
    // Without an answer there is no second wait.
    assert!(matches!(s.wait(LIMITS.liveness_ms - 1)[..], [Output::Ping { .. }]));
    assert!(matches!(s.wait(LIMITS.probe_ms)[..], [Output::Drop { .. }, Output::GiveUp(_)]));
}

/// By their own clocks the others have left, and may have another leader.
#[test]
fn a_leader_that_looks_again_after_a_long_pause_gives_up_at_once() {
    let mut s = Scene::established_with(2);
    s.wait_hearing(LIMITS.probe_ms, &[2]);
    let pause = LIMITS.probe_ms + LIMITS.liveness_ms;
    let mut timer_first = Scene { now: s.now, leader: s.leader.clone() };
    let out = timer_first.wait(pause);
    assert!(matches!(out[..], [Output::Drop { .. }, Output::GiveUp(_)]), "{out:?}");
    // What the follower had said before it left is found together with its leaving.
    s.now = s.now.plus(pause);
    s.hear(&[2]);
    let out = s.feed(Input::Left(LinkId(2)));
    assert!(matches!(out[..], [Output::GiveUp(GiveUpReason::QuorumLost(_))]), "{out:?}");
}

#[test]
fn a_follower_that_comes_back_in_time_saves_the_epoch() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Left(LinkId(2)));
    s.wait(LIMITS.liveness_ms - 1);
    s.join(2, 5);
    s.acked_epoch(2, None, z(4, 7));
    assert_eq!(s.synchronise(2), [Output::UpToDate(LinkId(2))]);
    assert_eq!(s.wait_hearing(10 * LIMITS.liveness_ms, &[2]), []);
    assert_eq!(s.feed(Input::Left(LinkId(2))), []);
    assert_eq!(s.wait(LIMITS.liveness_ms - 1), [], "each loss has its own time");
}

#[test]
fn a_leader_whose_disk_stands_still_gives_up_though_its_followers_commit() {
    let mut s = Scene::established_five();
    s.feed(Input::Proposed(z(5, 1)));
    s.wait_hearing(500, &[2, 3, 4, 5]);
    s.feed(Input::Proposed(z(5, 2)));
    for id in [2, 3, 4] {
        s.ack(id, z(5, 2));
    }
    let why = GiveUpReason::DiskStalled(LIMITS.stall_ms);
    assert_eq!(s.wait_hearing(LIMITS.stall_ms - 500, &[2, 3, 4, 5]), [Output::GiveUp(why)]);
}

#[test]
fn a_disk_that_goes_on_is_not_stalled_and_one_that_reports_nothing_new_is() {
    let mut s = Scene::established_with(2);
    for counter in 1..20 {
        s.feed(Input::Proposed(z(5, counter + 1)));
        s.ack(2, z(5, counter + 1));
        assert_eq!(s.wait_hearing(LIMITS.stall_ms - 1, &[2]), []);
        s.feed(Input::Durable(z(5, counter)));
    }
    s.wait_hearing(LIMITS.stall_ms / 2, &[2]);
    assert_eq!(s.feed(Input::Durable(z(5, 19))), []);
    let end = s.wait_hearing(LIMITS.stall_ms / 2, &[2]);
    assert_eq!(end, [Output::GiveUp(GiveUpReason::DiskStalled(LIMITS.stall_ms))]);
}

#[test]
fn a_disk_that_owes_nothing_is_not_stalled() {
    let mut s = Scene::established_with(2);
    s.feed(Input::Proposed(z(5, 1)));
    s.ack(2, z(5, 1));
    s.feed(Input::Durable(z(5, 1)));
    assert_eq!(s.wait_hearing(10 * LIMITS.stall_ms, &[2]), []);
}

// --- Pings and confirmations ---

#[test]
fn zabra_nodes_are_probed_often_and_zookeeper_nodes_every_half_tick() {
    let mut s = Scene::established_with(2);
    let java = Input::Joined { link: LinkId(3), id: ServerId(3), accepted: Epoch(4), zabra: false };
    s.feed(java);
    s.ack_epoch(3);
    s.synchronise(3);
    s.join(9, 4);
    let (mut to, mut rounds) = ([0; 10], 0);
    for _ in 0..40 {
        rounds += 1;
        for output in s.feed(Input::Timer) {
            let Output::Ping { link, .. } = output else { panic!("{output:?}") };
            to[link.0 as usize] += 1;
        }
        assert_eq!(s.feed(Input::Timer), [], "not before it is due");
        s.hear(&[2, 3, 9]);
        s.now = s.leader.next_timer().expect("always another");
    }
    assert_eq!((to[2], to[3]), (rounds, 4), "every 100 ms and every 1,000 ms");
    assert_eq!(to[9], 0, "not before it is up to date");
}

#[test]
fn a_question_is_answered_when_a_quorum_has_answered_a_ping_sent_after_it() {
    let mut s = Scene::established_five();
    let token = s.leader.ask_token();
    assert_eq!(s.feed(Input::Ask), [2, 3, 4, 5].map(|id| ping(id, token)));
    assert_eq!(s.pong(2, token), []);
    assert_eq!(s.pong(2, token), [], "twice is once");
    assert_eq!(s.pong(3, token), [Output::Confirmed(token)]);
    assert_eq!(s.pong(4, token), []);
}

#[test]
fn answers_to_pings_sent_before_the_question_confirm_nothing() {
    let mut s = Scene::established_with(2);
    let probe = s.leader.ask_token();
    assert_eq!(s.feed(Input::Timer), [ping(2, probe)]);
    let token = s.leader.ask_token();
    assert_eq!(s.feed(Input::Ask), [ping(2, token)]);
    let old: Vec<Output> = s.pong(2, probe);
    assert!(!old.contains(&Output::Confirmed(token)), "{old:?}");
    assert_eq!(s.pong(2, token), [Output::Confirmed(token)]);
}

#[test]
fn who_asks_while_a_round_is_under_way_waits_for_the_next() {
    let mut s = Scene::established_with(2);
    let first = s.leader.ask_token();
    assert_eq!(s.feed(Input::Ask), [ping(2, first)]);
    let second = s.leader.ask_token();
    assert!(second > first);
    assert_eq!(s.feed(Input::Ask), [], "one round at a time");
    assert_eq!(s.leader.ask_token(), second);
    assert_eq!(s.pong(2, first), [Output::Confirmed(first), ping(2, second)]);
    assert_eq!(s.pong(2, second), [Output::Confirmed(second)]);
}

#[test]
fn a_round_that_the_timer_begins_serves_those_who_wait_for_one() {
    let mut s = Scene::established_five();
    let first = s.leader.ask_token();
    s.feed(Input::Ask);
    let second = s.leader.ask_token();
    s.feed(Input::Ask);
    assert_eq!(s.wait(LIMITS.probe_ms), [2, 3, 4, 5].map(|id| ping(id, second)));
    assert_eq!((s.pong(2, first), s.pong(3, first)), (vec![], vec![Output::Confirmed(first)]));
    assert_eq!((s.pong(2, second), s.pong(4, second)), (vec![], vec![Output::Confirmed(second)]));
}

#[test]
fn a_probe_between_question_and_answer_takes_nothing_from_who_asked() {
    let mut s = Scene::established_with(2);
    let token = s.leader.ask_token();
    s.feed(Input::Ask);
    assert_eq!(s.wait(LIMITS.probe_ms), [ping(2, token + 1)]);
    assert_eq!(s.pong(2, token), [Output::Confirmed(token)]);
}

#[test]
fn zookeeper_nodes_are_pinged_at_once_when_somebody_asks() {
    let mut s = Scene::established_with_java(2);
    s.feed(Input::Timer);
    let token = s.leader.ask_token();
    assert_eq!(s.feed(Input::Ask), [ping(2, token)]);
}

#[test]
fn neither_observers_nor_those_who_left_nor_those_out_of_step_confirm() {
    let mut s = Scene::established_five();
    s.join(9, 4);
    s.ack_epoch(9);
    s.synchronise(9);
    s.feed(Input::Left(LinkId(5)));
    s.join(5, 5);
    let token = s.leader.ask_token();
    s.feed(Input::Ask);
    assert_eq!((s.pong(9, token), s.pong(5, token)), (vec![], vec![]));
    assert_eq!(s.pong(2, token), []);
    s.feed(Input::Left(LinkId(2)));
    assert_eq!(s.pong(3, token), []);
    assert_eq!(s.pong(4, token), [Output::Confirmed(token)]);
}

#[test]
fn who_asks_before_the_epoch_is_established_is_answered_behind_it() {
    let mut s = Scene::of_three();
    let token = s.leader.ask_token();
    assert_eq!(s.feed(Input::Ask), []);
    s.promise(2);
    s.feed(Input::Entered);
    s.synchronise(2);
    let pings = s.feed(Input::Timer);
    let [Output::Ping { token: sent, .. }] = pings[..] else { panic!("{pings:?}") };
    assert!(sent >= token);
    assert_eq!(s.pong(2, sent), [Output::Confirmed(sent)]);
}

#[test]
fn an_answer_to_a_ping_that_was_never_sent_confirms_nothing_to_come() {
    let mut s = Scene::established_with(2);
    assert_eq!(s.pong(2, u64::MAX), []);
    let token = s.leader.ask_token();
    assert_eq!(s.feed(Input::Ask), [ping(2, token)]);
    assert_eq!(s.pong(2, token), [Output::Confirmed(token)]);
}

// --- Asserted of who drives it ---

#[test]
#[should_panic(expected = "an observer is never elected")]
fn an_observer_does_not_lead() {
    Scene::new(electorate(&[2, 3], &[1], ""));
}

#[test]
#[should_panic(expected = "only an established leader proposes")]
fn nothing_is_proposed_before_the_epoch_is_established() {
    let mut s = Scene::of_three();
    s.promise(2);
    s.feed(Input::Proposed(z(5, 1)));
}

#[test]
#[should_panic(expected = "a flush covers what was appended")]
fn nothing_is_durable_before_it_is_proposed() {
    Scene::established_with(2).feed(Input::Durable(z(5, 1)));
}
