//! One attachment, its inputs scripted. The learner has accepted and entered 4, and logged up to (4, 7), of which (4, 5) is known to be committed.

use super::*;

const LIMITS: Limits = Limits {
    init_ms: 10_000,
    sync_ms: 4_000,
    liveness_ms: 500,
    probe_ms: 100,
    ping_ms: 1_000,
    stall_ms: 800,
};

const START: Start = Start {
    accepted: Epoch(4),
    current: Epoch(4),
    last: z(4, 7),
    committed: z(4, 5),
    voter: true,
    whole: true,
};

const fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// A learner and its time.
struct Scene {
    now: MonoMs,
    learner: Learner,
}

type Outcome = Result<Vec<Output>, LearnerError>;

impl Scene {
    fn new(start: Start) -> Scene {
        Scene { now: MonoMs(1_000), learner: Learner::new(MonoMs(1_000), LIMITS, start) }
    }

    fn try_feed(&mut self, input: Input) -> Outcome {
        self.learner.handle(self.now, input)?;
        Ok(std::iter::from_fn(|| self.learner.poll()).collect())
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        self.try_feed(input).unwrap_or_else(|e| panic!("{input:?}: {e}"))
    }

    fn fail(&mut self, input: Input) -> LearnerError {
        self.try_feed(input).expect_err("refused")
    }

    fn wait(&mut self, ms: u64) -> Outcome {
        self.now = self.now.plus(ms);
        self.try_feed(Input::Timer)
    }

    /// Connected, and told epoch 5, which is durable.
    fn promised(start: Start, zabra: bool) -> Scene {
        let mut scene = Scene::new(start);
        scene.feed(Input::Opened);
        scene.feed(Input::LeaderInfo { epoch: Epoch(5), zabra });
        if start.accepted < Epoch(5) {
            scene.feed(Input::Accepted);
        }
        scene
    }

    /// The history of the leader of 5, level with `start`, follows.
    fn in_history(start: Start) -> Scene {
        let mut scene = Scene::promised(start, true);
        scene.feed(Input::Diff { upto: start.last });
        scene
    }

    fn entered(start: Start) -> Scene {
        let mut scene = Scene::in_history(start);
        assert_eq!(scene.feed(Input::NewLeader(z(5, 0))), [Output::Enter(Epoch(5))]);
        assert_eq!(scene.feed(Input::Entered), [Output::AckEntered(Epoch(5))]);
        scene
    }

    fn in_step() -> Scene {
        let mut scene = Scene::entered(START);
        scene.feed(Input::UpToDate);
        scene
    }

    /// One scene at each stage, in order.
    fn at_each_stage() -> Vec<(&'static str, Scene)> {
        let mut asked = Scene::new(START);
        asked.feed(Input::Opened);
        let mut accepting = Scene::new(START);
        accepting.feed(Input::Opened);
        accepting.feed(Input::LeaderInfo { epoch: Epoch(5), zabra: true });
        let mut cutting = Scene::promised(START, true);
        cutting.feed(Input::Trunc { to: z(4, 6) });
        let mut receiving = Scene::promised(START, true);
        receiving.feed(Input::Snap { zxid: z(4, 9) });
        let mut flushing = Scene::in_history(START);
        flushing.feed(Input::Proposal(z(4, 8)));
        flushing.feed(Input::NewLeader(z(5, 0)));
        let mut entering = Scene::in_history(START);
        entering.feed(Input::NewLeader(z(5, 0)));
        vec![
            ("connecting", Scene::new(START)),
            ("asked", asked),
            ("accepting", accepting),
            ("promised", Scene::promised(START, true)),
            ("cutting", cutting),
            ("receiving", receiving),
            ("history", Scene::in_history(START)),
            ("flushing", flushing),
            ("entering", entering),
            ("entered", Scene::entered(START)),
            ("in step", Scene::in_step()),
        ]
    }
}

fn out_of_order(what: &'static str) -> LearnerError {
    LearnerError::OutOfOrder(what)
}

// --- Discovery (A1) ---

#[test]
fn an_attachment_goes_through_its_stages_to_broadcast() {
    let mut s = Scene::new(START);
    assert_eq!(s.feed(Input::Opened), [Output::Hello]);
    let info = Input::LeaderInfo { epoch: Epoch(5), zabra: true };
    assert_eq!(s.feed(info), [Output::Accept(Epoch(5))], "no promise is told before it is durable");
    assert_eq!(s.learner.epoch(), None);
    assert_eq!(s.feed(Input::Accepted), [Output::AckEpoch { current: Some(Epoch(4)) }]);
    assert_eq!((s.learner.epoch(), s.learner.is_catching_up()), (Some(Epoch(5)), true));
    assert_eq!(s.feed(Input::Diff { upto: z(4, 8) }), []);
    assert_eq!(s.feed(Input::Proposal(z(4, 8))), []);
    assert_eq!(s.feed(Input::Commit(z(4, 8))), []);
    assert_eq!(s.feed(Input::NewLeader(z(5, 0))), [], "(4, 8) is not durable");
    assert_eq!(s.feed(Input::Durable(z(4, 8))), [Output::Enter(Epoch(5))]);
    assert_eq!(s.feed(Input::Entered), [Output::AckEntered(Epoch(5))]);
    assert!(!s.learner.is_in_step());
    let up = [Output::AckEntered(Epoch(5)), Output::InStep, Output::Commit(z(4, 8))];
    assert_eq!(s.feed(Input::UpToDate), up);
    assert!(s.learner.is_in_step() && !s.learner.is_catching_up() && s.learner.leader_is_zabra());
    assert_eq!(s.feed(Input::Proposal(z(5, 1))), []);
    assert_eq!(s.feed(Input::Durable(z(5, 1))), [Output::Ack { from: z(5, 1), to: z(5, 1) }]);
    assert_eq!(s.feed(Input::Commit(z(5, 1))), [Output::Commit(z(5, 1))]);
}

#[test]
fn an_epoch_below_the_promised_one_is_refused() {
    let mut s = Scene::new(Start { accepted: Epoch(6), ..START });
    s.feed(Input::Opened);
    let stale = LearnerError::StaleEpoch { found: Epoch(5), accepted: Epoch(6) };
    assert_eq!(s.fail(Input::LeaderInfo { epoch: Epoch(5), zabra: true }), stale);
}

#[test]
fn the_promised_epoch_itself_is_joined_without_a_second_promise() {
    let mut s = Scene::new(Start { accepted: Epoch(5), ..START });
    s.feed(Input::Opened);
    let info = Input::LeaderInfo { epoch: Epoch(5), zabra: true };
    assert_eq!(s.feed(info), [Output::AckEpoch { current: None }]);
}

/// Once promised it would keep this server out of every ensemble, and a zxid of it would sort before all others on ZooKeeper's side.
#[test]
fn an_epoch_that_cannot_be_right_is_not_promised() {
    for epoch in [Epoch(0x8000_0000), Epoch(u32::MAX), Epoch(EPOCH_MAX.0 + 1)] {
        let mut s = Scene::new(START);
        s.feed(Input::Opened);
        assert_eq!(s.fail(Input::LeaderInfo { epoch, zabra: true }), LearnerError::Epoch(epoch));
        assert_eq!(s.learner.poll(), None);
    }
}

// --- Out of order ---

#[test]
fn each_packet_is_taken_at_its_stage_and_refused_at_the_others() {
    let table: [(Input, &[&str], &'static str); 12] = [
        (Input::Opened, &["connecting"], "connection"),
        (Input::LeaderInfo { epoch: Epoch(5), zabra: true }, &["asked"], "LEADERINFO"),
        (Input::Accepted, &["accepting"], "the accepted epoch"),
        (Input::Diff { upto: z(4, 7) }, &["promised"], "DIFF"),
        (Input::Trunc { to: z(4, 6) }, &["promised"], "TRUNC"),
        (Input::Snap { zxid: z(4, 9) }, &["promised"], "SNAP"),
        (Input::Truncated { last: z(4, 6) }, &["cutting"], "truncation"),
        (Input::Installed, &["receiving"], "a state"),
        (Input::NewLeader(z(5, 0)), &["history"], "NEWLEADER"),
        (Input::Entered, &["entering"], "the current epoch"),
        (Input::UpToDate, &["entered"], "UPTODATE"),
        (Input::Commit(z(4, 7)), &["history", "flushing", "entering", "entered", "in step"], "COMMIT"),
    ];
    for (input, stages, what) in table {
        for (stage, mut scene) in Scene::at_each_stage() {
            let outcome = scene.try_feed(input);
            if stages.contains(&stage) {
                assert!(outcome.is_ok(), "{input:?} while {stage}: {outcome:?}");
            } else {
                assert_eq!(outcome, Err(out_of_order(what)), "{input:?} while {stage}");
            }
        }
    }
}

#[test]
fn proposals_come_from_the_history_on_and_behind_newleader_only_of_the_leaders_epoch() {
    for (stage, mut scene) in Scene::at_each_stage() {
        let next = z(4, if stage == "flushing" { 9 } else { 8 });
        let expected = match stage {
            "history" => Ok(vec![]),
            "flushing" => Err(LearnerError::Gap { last: z(4, 8), found: next }),
            "entering" | "entered" | "in step" => Err(LearnerError::Gap { last: z(4, 7), found: next }),
            _ => Err(out_of_order("PROPOSAL")),
        };
        assert_eq!(scene.try_feed(Input::Proposal(next)), expected, "while {stage}");
    }
    for (stage, mut scene) in Scene::at_each_stage().split_off(6) {
        assert_eq!(scene.try_feed(Input::Proposal(z(5, 1))), Ok(vec![]), "while {stage}");
    }
}

#[test]
fn newleader_of_another_epoch_is_refused() {
    for zxid in [z(4, 0), z(6, 0), z(5, 1)] {
        let mut s = Scene::in_history(START);
        assert_eq!(s.fail(Input::NewLeader(zxid)), out_of_order("NEWLEADER of another epoch"));
    }
}

// --- History (A2) ---

#[test]
fn what_follows_is_the_next_counter_or_the_first_of_a_later_epoch() {
    for found in [z(4, 7), z(4, 6), z(4, 9), z(3, 1), z(5, 0), z(5, 2), z(6, 1), z(0, 0)] {
        let mut s = Scene::in_history(START);
        assert_eq!(s.fail(Input::Proposal(found)), LearnerError::Gap { last: z(4, 7), found });
    }
    let mut s = Scene::in_history(Start { last: z(2, 7), committed: z(2, 7), ..START });
    for zxid in [z(2, 8), z(4, 1), z(4, 2), z(5, 1), z(5, 2)] {
        assert_eq!(s.feed(Input::Proposal(zxid)), []);
    }
}

#[test]
fn the_first_transaction_there_is_follows_nothing() {
    let empty = Start {
        accepted: Epoch(0),
        current: Epoch(0),
        last: Zxid::ZERO,
        committed: Zxid::ZERO,
        voter: true,
        whole: true,
    };
    assert_eq!(Scene::in_history(empty).feed(Input::Proposal(z(0, 1))), []);
    assert_eq!(Scene::in_history(empty).feed(Input::Proposal(z(3, 1))), []);
    let gap = LearnerError::Gap { last: Zxid::ZERO, found: z(0, 2) };
    assert_eq!(Scene::in_history(empty).fail(Input::Proposal(z(0, 2))), gap);
}

#[test]
fn a_gap_in_broadcast_ends_the_attachment() {
    let mut s = Scene::in_step();
    s.feed(Input::Proposal(z(5, 1)));
    for found in [z(5, 3), z(5, 1), z(6, 1)] {
        assert_eq!(s.fail(Input::Proposal(found)), LearnerError::Gap { last: z(5, 1), found });
    }
    assert_eq!(s.fail(Input::Inform(z(5, 3))), LearnerError::Gap { last: z(5, 1), found: z(5, 3) });
}

#[test]
fn what_is_committed_must_have_been_received() {
    for mut s in [Scene::in_history(START), Scene::in_step()] {
        let unknown = LearnerError::CommitOfUnknown { last: z(4, 7), found: z(4, 8) };
        assert_eq!(s.fail(Input::Commit(z(4, 8))), unknown);
    }
}

#[test]
fn history_goes_on_where_the_log_is_cut() {
    let mut s = Scene::promised(START, true);
    assert_eq!(s.feed(Input::Trunc { to: z(4, 5) }), [Output::Truncate { to: z(4, 5) }]);
    assert_eq!(s.feed(Input::Truncated { last: z(4, 5) }), []);
    assert_eq!(s.fail(Input::Proposal(z(4, 8))), LearnerError::Gap { last: z(4, 5), found: z(4, 8) });
    let mut s = Scene::promised(START, true);
    s.feed(Input::Trunc { to: z(4, 6) });
    s.feed(Input::Truncated { last: z(4, 6) });
    assert_eq!(s.feed(Input::NewLeader(z(5, 0))), [Output::Enter(Epoch(5))]);
    s.feed(Input::Entered);
    assert_eq!(s.feed(Input::UpToDate)[2], Output::Commit(z(4, 6)), "what is cut is not committed");
}

#[test]
fn the_log_is_not_cut_below_what_is_committed_nor_above_its_end() {
    let lost = CommittedLost { committed: z(4, 5), to: z(4, 4) };
    let mut s = Scene::promised(START, true);
    assert_eq!(s.fail(Input::Trunc { to: z(4, 4) }), LearnerError::CommittedLost(lost));
    assert_eq!(s.learner.poll(), None, "and nothing is done");
    let mut s = Scene::promised(START, true);
    let unknown = LearnerError::CommitOfUnknown { last: z(4, 7), found: z(4, 8) };
    assert_eq!(s.fail(Input::Trunc { to: z(4, 8) }), unknown);
    let mut s = Scene::promised(START, true);
    assert_eq!(s.fail(Input::Snap { zxid: z(4, 4) }), LearnerError::CommittedLost(lost));
    assert_eq!(s.learner.poll(), None);
}

#[test]
fn a_cut_that_took_more_than_asked_is_told_and_the_leader_asked_anew() {
    let mut s = Scene::promised(START, true);
    s.feed(Input::Trunc { to: z(4, 6) });
    let below = LearnerError::CutBelow { wanted: z(4, 6), found: z(4, 5) };
    assert_eq!(s.fail(Input::Truncated { last: z(4, 5) }), below);
}

#[test]
fn a_state_takes_the_place_of_everything() {
    let mut s = Scene::promised(START, true);
    assert_eq!(s.feed(Input::Snap { zxid: z(4, 9) }), [Output::Receive { zxid: z(4, 9) }]);
    assert_eq!(s.feed(Input::Installed), []);
    assert_eq!(s.feed(Input::Proposal(z(4, 10))), []);
    assert_eq!(s.feed(Input::NewLeader(z(5, 0))), []);
    assert_eq!(s.feed(Input::Durable(z(4, 10))), [Output::Enter(Epoch(5))]);
    s.feed(Input::Entered);
    assert_eq!(s.feed(Input::UpToDate)[2], Output::Commit(z(4, 10)));
}

#[test]
fn a_state_of_the_leaders_own_epoch_is_committed_and_not_acknowledged() {
    let mut s = Scene::promised(START, true);
    s.feed(Input::Snap { zxid: z(5, 6) });
    s.feed(Input::Installed);
    s.feed(Input::Proposal(z(5, 7)));
    s.feed(Input::NewLeader(z(5, 0)));
    s.feed(Input::Durable(z(5, 7)));
    s.feed(Input::Entered);
    let up = [
        Output::AckEntered(Epoch(5)),
        Output::InStep,
        Output::Commit(z(5, 6)),
        Output::Ack { from: z(5, 7), to: z(5, 7) },
    ];
    assert_eq!(s.feed(Input::UpToDate), up);
}

// --- The order of what is durable (A3) ---

#[test]
fn the_epoch_is_entered_when_the_whole_history_is_durable_and_acknowledged_when_the_epoch_is() {
    let mut s = Scene::in_history(START);
    s.feed(Input::Proposal(z(4, 8)));
    s.feed(Input::Proposal(z(4, 9)));
    assert_eq!(s.feed(Input::Durable(z(4, 9))), [], "there may be more");
    s.feed(Input::Proposal(z(5, 1)));
    assert_eq!(s.feed(Input::NewLeader(z(5, 0))), []);
    s.feed(Input::Proposal(z(5, 2)));
    assert_eq!(s.feed(Input::Durable(z(4, 9))), []);
    assert_eq!(
        s.feed(Input::Durable(z(5, 1))),
        [Output::Enter(Epoch(5))],
        "what comes behind is not history"
    );
    assert_eq!(s.feed(Input::Durable(z(5, 2))), [], "once");
    assert_eq!(s.feed(Input::Entered), [Output::AckEntered(Epoch(5))]);
}

// --- What counts as committed (A4) ---

#[test]
fn nothing_is_committed_before_uptodate() {
    let mut s = Scene::in_history(START);
    let steps = [
        Input::Commit(z(4, 6)),
        Input::Proposal(z(4, 8)),
        Input::Commit(z(4, 8)),
        Input::Inform(z(4, 9)),
        Input::Durable(z(4, 9)),
        Input::NewLeader(z(5, 0)),
        Input::Commit(z(4, 9)),
        Input::Entered,
        Input::Inform(z(5, 1)),
        Input::Commit(z(5, 1)),
    ];
    for input in steps {
        let outputs = s.feed(input);
        assert!(!outputs.iter().any(|o| matches!(o, Output::Commit(_) | Output::InStep)), "{input:?}");
        assert!(!s.learner.is_in_step());
    }
    let up = s.feed(Input::UpToDate);
    assert_eq!(up[..3], [Output::AckEntered(Epoch(5)), Output::InStep, Output::Commit(z(5, 1))]);
}

#[test]
fn all_that_the_epoch_began_with_is_committed_at_uptodate_named_or_not() {
    let mut s = Scene::promised(START, true);
    s.feed(Input::Diff { upto: z(4, 5) });
    s.feed(Input::NewLeader(z(5, 0)));
    s.feed(Input::Entered);
    assert_eq!(s.feed(Input::UpToDate)[2], Output::Commit(z(4, 7)));
}

#[test]
fn of_the_epoch_itself_only_what_was_named_is_committed_at_uptodate() {
    let in_five = Start {
        accepted: Epoch(5),
        current: Epoch(5),
        last: z(5, 4),
        committed: z(5, 1),
        voter: true,
        whole: true,
    };
    let mut s = Scene::promised(in_five, true);
    s.feed(Input::Diff { upto: z(5, 3) });
    s.feed(Input::NewLeader(z(5, 0)));
    s.feed(Input::Entered);
    let up = [
        Output::AckEntered(Epoch(5)),
        Output::InStep,
        Output::Commit(z(5, 3)),
        Output::Ack { from: z(5, 4), to: z(5, 4) },
    ];
    assert_eq!(s.feed(Input::UpToDate), up, "what the leader lacks an answer for is acknowledged");
    let mut s = Scene::entered(START);
    s.feed(Input::Proposal(z(5, 1)));
    assert_eq!(s.feed(Input::UpToDate)[2], Output::Commit(z(4, 7)), "(5, 1) was not named");
}

#[test]
fn a_diff_names_nothing_that_is_not_there_yet() {
    let mut s = Scene::promised(START, true);
    s.feed(Input::Diff { upto: z(5, 9) });
    s.feed(Input::Proposal(z(5, 1)));
    s.feed(Input::Durable(z(5, 1)));
    s.feed(Input::NewLeader(z(5, 0)));
    s.feed(Input::Entered);
    assert_eq!(s.feed(Input::UpToDate)[2], Output::Commit(z(4, 7)));
}

#[test]
fn what_is_committed_only_grows() {
    let mut s = Scene::in_step();
    s.feed(Input::Proposal(z(5, 1)));
    s.feed(Input::Proposal(z(5, 2)));
    assert_eq!(s.feed(Input::Commit(z(5, 2))), [Output::Commit(z(5, 2))]);
    assert_eq!(s.feed(Input::Commit(z(5, 1))), []);
    assert_eq!(s.feed(Input::Commit(z(5, 2))), []);
    assert_eq!(s.feed(Input::Inform(z(5, 3))), [Output::Commit(z(5, 3))]);
}

// --- Acknowledgements (A5) ---

#[test]
fn proposals_are_acknowledged_when_durable_in_one_range_without_gaps() {
    let mut s = Scene::in_step();
    for counter in 1..=5 {
        assert_eq!(s.feed(Input::Proposal(z(5, counter))), []);
    }
    assert_eq!(s.feed(Input::Durable(z(4, 7))), []);
    assert_eq!(s.feed(Input::Durable(z(5, 2))), [Output::Ack { from: z(5, 1), to: z(5, 2) }]);
    assert_eq!(s.feed(Input::Durable(z(5, 2))), []);
    assert_eq!(s.feed(Input::Commit(z(5, 4))), [Output::Commit(z(5, 4))]);
    let rest = Output::Ack { from: z(5, 3), to: z(5, 5) };
    assert_eq!(s.feed(Input::Durable(z(5, 5))), [rest], "though others had them first");
}

#[test]
fn what_comes_between_newleader_and_uptodate_is_acknowledged_behind_uptodate() {
    let mut s = Scene::entered(START);
    s.feed(Input::Proposal(z(5, 1)));
    s.feed(Input::Proposal(z(5, 2)));
    assert_eq!(s.feed(Input::Durable(z(5, 1))), []);
    let up = [
        Output::AckEntered(Epoch(5)),
        Output::InStep,
        Output::Commit(z(4, 7)),
        Output::Ack { from: z(5, 1), to: z(5, 1) },
    ];
    assert_eq!(s.feed(Input::UpToDate), up);
    assert_eq!(s.feed(Input::Durable(z(5, 2))), [Output::Ack { from: z(5, 2), to: z(5, 2) }]);
}

#[test]
fn observers_acknowledge_newleader_and_no_proposal() {
    let mut s = Scene::entered(Start { voter: false, ..START });
    assert_eq!(s.feed(Input::UpToDate)[0], Output::AckEntered(Epoch(5)));
    assert_eq!(s.feed(Input::Inform(z(5, 1))), [Output::Commit(z(5, 1))]);
    assert_eq!(s.feed(Input::Durable(z(5, 1))), []);
}

// --- Silence (A6) ---

#[test]
fn a_leader_that_does_not_get_this_server_in_step_is_left_after_init_limit() {
    for (stage, mut scene) in Scene::at_each_stage() {
        if stage != "in step" {
            assert_eq!(scene.learner.next_timer(), scene.now.plus(LIMITS.init_ms), "{stage}");
            assert_eq!(scene.wait(LIMITS.init_ms - 1), Ok(vec![]), "{stage}");
            assert_eq!(scene.wait(1), Err(LearnerError::TooSlow(LIMITS.init_ms)), "{stage}");
        }
    }
}

#[test]
fn a_long_history_is_not_a_lost_leader() {
    let mut s = Scene::in_history(START);
    for _ in 0..10 {
        assert_eq!(s.wait(LIMITS.init_ms - 1), Ok(vec![]));
        s.feed(Input::Heard);
    }
}

#[test]
fn a_silent_zabra_leader_is_left_after_the_liveness_limit_and_one_of_zookeepers_after_sync_limit() {
    for (zabra, limit) in [(true, LIMITS.liveness_ms), (false, LIMITS.sync_ms)] {
        let mut s = Scene::promised(START, zabra);
        s.feed(Input::Diff { upto: z(4, 7) });
        s.feed(Input::NewLeader(z(5, 0)));
        s.feed(Input::Entered);
        s.feed(Input::UpToDate);
        for _ in 0..20 {
            assert_eq!(s.wait(limit - 1), Ok(vec![]));
            s.feed(Input::Heard);
        }
        assert_eq!(s.learner.next_timer(), s.now.plus(limit));
        assert_eq!(s.wait(limit), Err(LearnerError::Silent(limit)));
    }
}

// --- Asserted of who drives it ---

#[test]
#[should_panic(expected = "a flush covers what was appended")]
fn nothing_is_durable_before_it_is_received() {
    Scene::in_step().feed(Input::Durable(z(5, 1)));
}

#[test]
#[should_panic(expected = "cut at the place or below")]
fn a_cut_leaves_nothing_above_its_place() {
    let mut s = Scene::promised(START, true);
    s.feed(Input::Trunc { to: z(4, 5) });
    s.feed(Input::Truncated { last: z(4, 6) });
}
