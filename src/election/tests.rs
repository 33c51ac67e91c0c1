//! One test per rule. Numbers in names and comments are those of the module's invariants.

mod history;
mod newcomers;

use std::sync::Arc;

use super::*;

const NOW: MonoMs = MonoMs(1_000);

fn config(text: &str) -> Arc<QuorumConfig> {
    Arc::new(QuorumConfig::parse(text).expect("a configuration"))
}

fn voters(count: i64) -> String {
    (1..=count).map(|i| format!("server.{i}=h{i}:1:2\n")).collect()
}

fn options() -> Options {
    Options { reconfig_enabled: true, ..Options::default() }
}

/// A server of `text` that looks with (zxid, epoch), its first outputs drained.
fn looking(me: i64, text: &str, zxid: i64, epoch: i64) -> Election {
    let mut e = Election::new(ServerId(me), Electorate::new(config(text), None), options());
    e.handle(NOW, Input::Start { zxid, epoch, new: None });
    outputs(&mut e);
    e
}

fn outputs(e: &mut Election) -> Vec<Output> {
    std::iter::from_fn(|| e.poll()).collect()
}

fn vote(leader: i64, zxid: i64, epoch: i64) -> Vote {
    Vote { leader: ServerId(leader), zxid, epoch }
}

fn notice(state: PeerState, vote: Vote, round: i64) -> Notice {
    Notice { state, vote, round, version: 2, config: None }
}

fn hear(e: &mut Election, from: i64, notice: Notice) -> Vec<Output> {
    hear_at(e, NOW, from, notice)
}

fn hear_at(e: &mut Election, now: MonoMs, from: i64, notice: Notice) -> Vec<Output> {
    e.handle(now, Input::Notice { from: ServerId(from), notice });
    outputs(e)
}

/// To whom, and what vote in what round and state.
fn sent(outputs: &[Output]) -> Vec<(i64, Vote, i64, PeerState)> {
    let sends = outputs.iter().filter_map(|o| match o {
        Output::Send { to, notice } => Some((to.0, notice.vote, notice.round, notice.state)),
        _ => None,
    });
    sends.collect()
}

fn decided(outputs: &[Output]) -> Option<&Decision> {
    outputs.iter().find_map(|o| if let Output::Decided(decision) = o { Some(decision) } else { None })
}

fn timer(outputs: &[Output]) -> Option<Option<MonoMs>> {
    outputs.iter().rev().find_map(|o| if let Output::Timer(at) = o { Some(*at) } else { None })
}

use PeerState::{Following, Leading, Looking as Look, Observing};

#[test]
fn a_round_begins_with_the_own_vote_to_all_voters() {
    let text = voters(3) + "server.4=o:1:2:observer";
    let mut e = Election::new(ServerId(2), Electorate::new(config(&text), None), options());
    assert_eq!(e.state(), None);
    assert!(
        hear(&mut e, 1, notice(Look, vote(1, 0, 0), 1)).is_empty(),
        "nothing to say before the first start"
    );
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    let out = outputs(&mut e);
    assert_eq!(sent(&out), [(1, vote(2, 5, 1), 1, Look), (3, vote(2, 5, 1), 1, Look)]);
    assert_eq!(timer(&out), Some(Some(MonoMs(1_200))));
    assert_eq!(e.unheard(), BTreeSet::from([ServerId(1), ServerId(3)]));
    e.handle(NOW, Input::Start { zxid: 6, epoch: 1, new: None });
    assert_eq!((e.round(), e.vote()), (2, Some(vote(2, 6, 1))));
}

#[test]
fn one_voter_alone_leads_at_once() {
    let mut e = Election::new(ServerId(1), Electorate::new(config(&voters(1)), None), options());
    e.handle(NOW, Input::Start { zxid: 0, epoch: 0, new: None });
    let out = outputs(&mut e);
    assert_eq!(decided(&out).map(|d| (d.state, d.vote)), Some((Leading, vote(1, 0, 0))));
}

#[test]
fn a_better_vote_is_adopted_and_passed_on_and_a_worse_one_is_not() {
    let mut e = looking(2, &voters(5), 5, 1);
    assert!(sent(&hear(&mut e, 1, notice(Look, vote(1, 5, 1), 1))).is_empty());
    for better in [vote(3, 5, 1), vote(1, 6, 1), vote(1, 0, 2)] {
        let out = hear(&mut e, 3, notice(Look, better, 1));
        assert_eq!(sent(&out).len(), 4);
        assert!(sent(&out).iter().all(|s| s.1 == better));
    }
}

#[test]
fn a_higher_round_is_joined_with_the_better_of_its_vote_and_the_own() {
    for (theirs, expected) in [(vote(3, 9, 1), vote(3, 9, 1)), (vote(3, 1, 1), vote(2, 5, 1))] {
        let mut e = looking(2, &voters(5), 5, 1);
        hear(&mut e, 4, notice(Look, vote(4, 99, 1), 1));
        let out = hear(&mut e, 3, notice(Look, theirs, 7));
        assert_eq!((e.round(), e.vote()), (7, Some(expected)), "votes of the old round are forgotten");
        assert!(sent(&out).iter().all(|s| (s.1, s.2) == (expected, 7)));
    }
}

#[test]
fn a_lower_round_counts_for_nothing_and_is_answered() {
    let mut e = looking(2, &voters(3), 5, 1);
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    outputs(&mut e);
    let out = hear(&mut e, 3, notice(Look, vote(3, 9, 9), 1));
    assert_eq!(sent(&out), [(3, vote(2, 5, 1), 2, Look)]);
    assert_eq!(e.vote(), Some(vote(2, 5, 1)));
}

#[test]
fn it_settles_at_once_when_everybody_was_heard() {
    let mut e = looking(3, &voters(3), 5, 1);
    let out = hear(&mut e, 1, notice(Look, vote(3, 5, 1), 1));
    assert_eq!((decided(&out), timer(&out)), (None, None), "both 200 ms: to resend and to finalize");
    let out = hear(&mut e, 2, notice(Look, vote(2, 5, 1), 1));
    let decision = decided(&out).expect("2 cannot change the outcome any more");
    assert_eq!(decision.supporters, BTreeSet::from([ServerId(1), ServerId(3)]));
    assert_eq!((decision.state, decision.vote, decision.round), (Leading, vote(3, 5, 1), 1));
    assert_eq!(sent(&out), [(1, vote(3, 5, 1), 1, Leading), (2, vote(3, 5, 1), 1, Leading)], "it says so");
    assert_eq!(timer(&out), Some(None));
}

#[test]
fn it_waits_for_a_better_vote_while_somebody_may_have_one() {
    let mut e = looking(2, &voters(5), 5, 1);
    hear(&mut e, 1, notice(Look, vote(2, 5, 1), 1));
    hear_at(&mut e, MonoMs(1_100), 3, notice(Look, vote(2, 5, 1), 1));
    e.handle(MonoMs(1_299), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)), None);
    let mut late = e.clone();
    e.handle(MonoMs(1_300), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)).map(|d| d.vote), Some(vote(2, 5, 1)));
    let out = hear_at(&mut late, MonoMs(1_299), 5, notice(Look, vote(5, 5, 1), 1));
    assert_eq!((decided(&out), late.vote()), (None, Some(vote(5, 5, 1))), "a better vote in time");
    late.handle(MonoMs(1_400), Input::Timer);
    assert_eq!(decided(&outputs(&mut late)), None, "and the wait begins with a quorum for that one");
    assert_eq!(decided(&hear_at(&mut late, MonoMs(1_400), 1, notice(Look, vote(5, 5, 1), 1))), None);
    late.handle(MonoMs(1_599), Input::Timer);
    assert_eq!(decided(&outputs(&mut late)), None);
    late.handle(MonoMs(1_600), Input::Timer);
    assert_eq!(decided(&outputs(&mut late)).map(|d| d.state), Some(Following));
}

#[test]
fn who_cannot_be_reached_is_not_waited_for() {
    let mut e = looking(2, &voters(3), 5, 1);
    e.handle(NOW, Input::PeerDown(ServerId(3)));
    assert_eq!(decided(&outputs(&mut e)), None);
    let mut other = e.clone();
    let out = hear(&mut e, 1, notice(Look, vote(2, 5, 1), 1));
    assert_eq!(decided(&out).map(|d| d.state), Some(Leading));
    other.handle(NOW, Input::PeerUp(ServerId(3)));
    assert_eq!(sent(&outputs(&mut other)), [(3, vote(2, 5, 1), 1, Look)], "a new connection is told again");
    assert_eq!(decided(&hear(&mut other, 1, notice(Look, vote(2, 5, 1), 1))), None);
    other.handle(NOW, Input::PeerDown(ServerId(3)));
    assert!(decided(&outputs(&mut other)).is_some());
}

#[test]
fn a_leader_not_heard_itself_is_not_settled_on_before_the_wait() {
    let mut e = looking(1, &voters(3), 5, 1);
    e.handle(NOW, Input::PeerDown(ServerId(3)));
    assert_eq!(decided(&hear(&mut e, 2, notice(Look, vote(3, 5, 1), 1))), None);
    e.handle(MonoMs(1_200), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)).map(|d| d.vote.leader), Some(ServerId(3)));
}

#[test]
fn a_proposal_dies_with_its_server() {
    let mut e = looking(1, &voters(3), 5, 1);
    hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1));
    assert_eq!(e.vote(), Some(vote(3, 5, 1)));
    e.handle(NOW, Input::PeerDown(ServerId(3)));
    assert_eq!((e.vote(), e.round()), (Some(vote(1, 5, 1)), 2));
    outputs(&mut e);
    e.handle(NOW, Input::PeerDown(ServerId(3)));
    assert_eq!(e.round(), 2, "said again, it changes nothing");
}

#[test]
fn an_established_leadership_is_joined_with_a_quorum_and_the_leaders_word() {
    let following = || notice(Following, vote(3, 9, 4), 2);
    let mut e = looking(1, &voters(5), 5, 1);
    for from in [2, 4, 5] {
        assert_eq!(decided(&hear(&mut e, from, following())), None, "EL6: without the leader's own word");
    }
    let out = hear(&mut e, 3, notice(Leading, vote(3, 9, 4), 2));
    let decision = decided(&out).expect("all there");
    assert_eq!((decision.state, decision.vote, decision.round, e.round()), (Following, vote(3, 9, 4), 2, 2));
    // The leader's word alone is not enough.
    let mut e = looking(1, &voters(5), 5, 1);
    assert_eq!(decided(&hear(&mut e, 3, notice(Leading, vote(3, 9, 4), 2))), None);
    hear(&mut e, 2, following());
    assert!(decided(&hear(&mut e, 4, following())).is_some());
}

#[test]
fn in_the_same_round_votes_of_looking_servers_support_a_leadership_too() {
    let mut e = looking(1, &voters(3), 5, 1);
    hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1));
    // Server 2 was never heard; the leader has settled meanwhile.
    let out = hear(&mut e, 3, notice(Leading, vote(3, 5, 1), 1));
    assert_eq!(decided(&out).map(|d| d.state), Some(Following));
}

#[test]
fn in_the_same_round_settled_servers_agree_by_id_while_the_epoch_changes() {
    let mut e = looking(1, &voters(5), 5, 1);
    hear(&mut e, 2, notice(Following, vote(5, 9, 1), 1));
    hear(&mut e, 4, notice(Following, vote(5, 9, 2), 1));
    assert!(decided(&hear(&mut e, 5, notice(Leading, vote(5, 9, 2), 1))).is_some());
}

#[test]
fn others_that_say_it_is_me_are_believed_in_this_round_only() {
    for (round, joins) in [(1, true), (9, false)] {
        let mut e = looking(3, &voters(3), 5, 1);
        hear(&mut e, 1, notice(Following, vote(3, 5, 7), round));
        let out = hear(&mut e, 2, notice(Following, vote(3, 5, 7), round));
        assert_eq!(decided(&out).map(|d| d.state), joins.then_some(Leading));
    }
}

#[test]
fn who_has_settled_answers_and_does_not_change_its_mind() {
    let mut e = looking(1, &voters(3), 5, 1);
    hear(&mut e, 2, notice(Look, vote(3, 5, 1), 1));
    let out = hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1));
    assert!(decided(&out).is_some());
    e.handle(NOW, Input::Established { epoch: 2 });
    let out = hear(&mut e, 2, notice(Look, vote(2, 99, 9), 50));
    assert_eq!(out.len(), 1);
    assert_eq!(
        sent(&out),
        [(2, vote(3, 5, 2), 1, Following)],
        "EL8: with the vote's round and the new epoch"
    );
    assert!(hear(&mut e, 2, notice(Following, vote(2, 99, 9), 50)).is_empty());
    assert_eq!((e.state(), e.round()), (Some(Following), 1));
}

#[test]
fn no_vote_is_no_vote() {
    let mut e = looking(2, &voters(3), 5, 1);
    hear(&mut e, 3, notice(Look, vote(3, NO_ZXID, 9), 4));
    assert_eq!((e.vote(), e.round()), (Some(vote(2, 5, 1)), 1));
    // And who has none does not vote for others either, but joins what stands.
    let mut e = looking(2, &voters(3), NO_ZXID, 0);
    assert_eq!(e.unheard(), BTreeSet::from([ServerId(1), ServerId(3)]), "it need not hear itself");
    hear(&mut e, 1, notice(Look, vote(3, 5, 1), 1));
    assert_eq!(decided(&hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1))), None);
    e.handle(MonoMs(5_000), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)), None);
    hear(&mut e, 1, notice(Following, vote(3, 5, 1), 1));
    assert!(decided(&hear(&mut e, 3, notice(Leading, vote(3, 5, 1), 1))).is_some());
}

#[test]
fn a_server_of_weight_zero_is_never_elected() {
    let text = voters(3) + "group.1=1:2:3\nweight.3=0";
    let mut e = looking(1, &text, 5, 1);
    hear(&mut e, 3, notice(Look, vote(3, 99, 9), 1));
    assert_eq!(e.vote(), Some(vote(1, 5, 1)));
    let out = hear(&mut e, 2, notice(Look, vote(1, 5, 1), 1));
    assert_eq!(decided(&out).map(|d| d.state), Some(Leading));
    // It is not waited for, and itself prefers anybody.
    let mut e = looking(3, &text, 99, 9);
    hear(&mut e, 1, notice(Look, vote(1, 5, 1), 1));
    assert_eq!(e.vote(), Some(vote(1, 5, 1)));
    hear(&mut e, 2, notice(Look, vote(2, 5, 1), 1));
    assert!(decided(&hear(&mut e, 1, notice(Look, vote(2, 5, 1), 1))).is_some());
}

#[test]
fn groups_elect_by_a_majority_of_weight_in_a_majority_of_groups() {
    let text = voters(9) + "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9\nweight.7=0\nweight.8=0\nweight.9=0";
    let mut e = looking(6, &text, 5, 1);
    for from in [1, 4, 5, 7, 8, 9] {
        hear(&mut e, from, notice(Look, vote(6, 5, 1), 1));
    }
    e.handle(MonoMs(1_200), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)), None, "seven of nine, but a majority of one group of two alone");
    hear_at(&mut e, MonoMs(1_200), 2, notice(Look, vote(6, 5, 1), 1));
    e.handle(MonoMs(1_400), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)).map(|d| d.state), Some(Leading));
}

#[test]
fn votes_count_from_voters_for_voters_only() {
    let text = voters(3) + "server.4=o:1:2:observer";
    let mut e = looking(1, &text, 5, 1);
    for (from, leader) in [(4, 2), (9, 2), (2, 4), (2, 9)] {
        hear(&mut e, from, notice(Look, vote(leader, 99, 9), 8));
        assert_eq!((e.vote(), e.round()), (Some(vote(1, 5, 1)), 1), "{from} for {leader}");
    }
    let mine = vote(1, 5, 1);
    hear(&mut e, 4, notice(Following, mine, 1));
    hear(&mut e, 2, notice(Observing, mine, 1));
    assert_eq!(e.unheard(), BTreeSet::from([ServerId(2), ServerId(3)]));
}

#[test]
fn servers_without_a_vote_are_answered_and_not_again_at_once() {
    let mut e = looking(1, &voters(3), 5, 1);
    let ask = || notice(Look, Vote::NONE, 1);
    assert_eq!(sent(&hear(&mut e, 9, ask())), [(9, vote(1, 5, 1), 1, Look)]);
    assert!(hear(&mut e, 9, ask()).is_empty(), "EL9: two servers that take each other for strangers");
    assert_eq!(sent(&hear_at(&mut e, MonoMs(1_200), 9, ask())).len(), 1);
    hear(&mut e, 2, notice(Look, vote(2, 5, 1), 1));
    assert_eq!(
        sent(&hear_at(&mut e, MonoMs(1_200), 9, ask())),
        [(9, vote(2, 5, 1), 1, Look)],
        "news are news"
    );
    for stranger in 100..1_000 {
        assert_eq!(hear(&mut e, stranger, ask()).len(), 1);
    }
    // A settled server answers them with its own clock.
    hear(&mut e, 3, notice(Following, vote(2, 5, 1), 6));
    hear(&mut e, 2, notice(Leading, vote(2, 5, 1), 6));
    assert_eq!(sent(&hear(&mut e, 9, ask())), [(9, vote(2, 5, 1), 6, Following)]);
}

#[test]
fn an_observer_proposes_nobody_and_learns_the_leader() {
    let text = voters(3) + "server.4=o:1:2:observer";
    let mut e = Election::new(ServerId(4), Electorate::new(config(&text), None), options());
    e.handle(NOW, Input::Start { zxid: 77, epoch: 7, new: None });
    let out = outputs(&mut e);
    assert_eq!(sent(&out)[0], (1, Vote::NONE, 1, Look));
    assert_eq!(sent(&out).len(), 3);
    hear(&mut e, 1, notice(Look, vote(3, 5, 1), 1));
    hear(&mut e, 2, notice(Look, vote(3, 5, 1), 1));
    let out = hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1));
    assert_eq!(decided(&out).map(|d| (d.state, d.supporters.len())), Some((Observing, 3)));
}

#[test]
fn followers_tell_observers_and_the_leader_tells_everybody() {
    let text = voters(3) + "server.4=o:1:2:observer";
    for (me, told) in [(1, vec![4]), (3, vec![1, 2, 4])] {
        let mut e = looking(me, &text, 5, 1);
        let out: Vec<Output> = (1..=3)
            .filter(|id| *id != me)
            .flat_map(|id| hear(&mut e, id, notice(Look, vote(3, 5, 1), 1)))
            .collect();
        let settled = sent(&out).into_iter().filter(|s| s.3 != Look);
        assert_eq!(settled.map(|s| s.0).collect::<Vec<_>>(), told);
    }
}

#[test]
fn silence_is_answered_by_connecting_and_resending_ever_slower() {
    let mut e = looking(1, &voters(3), 5, 1);
    let mut at = MonoMs(1_200);
    for wait in [400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000] {
        e.handle(at, Input::Timer);
        let out = outputs(&mut e);
        assert_eq!(out[0], Output::Reconnect);
        assert_eq!(sent(&out).len(), 2);
        assert_eq!(timer(&out), Some(Some(at.plus(wait))));
        at = at.plus(wait);
    }
    // Somebody new: the first wait again.
    let out = hear_at(&mut e, at, 2, notice(Look, vote(2, 1, 1), 1));
    assert!(sent(&out).is_empty());
    e.handle(at.plus(200), Input::Timer);
    assert_eq!(sent(&outputs(&mut e)).len(), 2);
}

#[test]
fn a_timer_that_comes_early_is_asked_for_again() {
    let mut e = looking(1, &voters(3), 5, 1);
    e.handle(MonoMs(1_100), Input::Timer);
    assert_eq!(outputs(&mut e), [Output::Timer(Some(MonoMs(1_200)))]);
}

#[test]
fn a_newer_configuration_is_adopted_while_looking() {
    let newer = config(&(voters(5) + "version=7"));
    let with = |config: &Arc<QuorumConfig>| {
        let config = Some(config.clone());
        Notice { config, ..notice(Look, vote(2, 1, 1), 1) }
    };
    let mut e = looking(1, &voters(3), 5, 1);
    let out = hear(&mut e, 2, with(&newer));
    assert_eq!(out[0], Output::Adopted(newer.clone()));
    assert_eq!((e.round(), e.electorate().voters().len()), (2, 5), "another ensemble: begin again");
    assert_eq!(e.vote(), Some(vote(1, 5, 1)));
    assert!(!hear(&mut e, 2, with(&newer)).contains(&Output::Adopted(newer.clone())), "not twice");
    let same = config(&(voters(5) + "version=8"));
    assert!(hear(&mut e, 2, with(&same)).contains(&Output::Adopted(same)));
    assert_eq!(e.round(), 2, "the same ensemble goes on");
    // Not where the operator does not want it, and not when settled.
    let electorate = Electorate::new(config(&voters(3)), None);
    let mut e = Election::new(ServerId(1), electorate, Options::default());
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    hear(&mut e, 2, with(&newer));
    assert_eq!(e.electorate().voters().len(), 3);
}

#[test]
fn a_server_that_a_configuration_makes_a_voter_votes_with_what_it_has() {
    let mut e = looking(4, &(voters(3) + "server.4=o:1:2:observer"), 5, 1);
    assert_eq!(e.vote(), Some(Vote::NONE));
    e.handle(NOW, Input::Configured(Electorate::new(config(&(voters(4) + "version=1")), None)));
    assert_eq!(e.vote(), Some(vote(4, 5, 1)));
}

#[test]
fn while_a_reconfiguration_is_under_way_both_ensembles_must_agree() {
    let next = config("server.3=c:1:2\nserver.4=d:1:2\nserver.5=e:1:2\nversion=9");
    let electorate = Electorate::new(config(&voters(3)), Some(next.clone()));
    let mut e = Election::new(ServerId(3), electorate.clone(), options());
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    hear(&mut e, 1, notice(Look, vote(3, 5, 1), 1));
    hear(&mut e, 2, notice(Look, vote(3, 5, 1), 1));
    e.handle(MonoMs(5_000), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)), None);
    hear(&mut e, 4, notice(Look, vote(3, 5, 1), 1));
    e.handle(MonoMs(9_000), Input::Timer);
    assert!(decided(&outputs(&mut e)).is_some());
    // An old one that lingers is not a next one.
    assert_eq!(Electorate::new(next.clone(), Some(config(&voters(3)))), Electorate::new(next, None));
}

#[test]
fn who_is_to_get_its_vote_helps_to_elect_and_does_not_stand() {
    let next = config(&(voters(4) + "version=9"));
    let electorate = Electorate::new(config(&voters(3)), Some(next));
    let mut e = Election::new(ServerId(4), electorate, options());
    e.handle(NOW, Input::Start { zxid: 99, epoch: 9, new: None });
    assert_eq!(e.vote(), Some(Vote::NONE));
    hear(&mut e, 1, notice(Look, vote(3, 5, 1), 1));
    assert_eq!(e.vote(), Some(vote(3, 5, 1)));
    hear(&mut e, 2, notice(Look, vote(3, 5, 1), 1));
    let out = hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1));
    let decision = decided(&out).expect("everybody was heard");
    assert_eq!((decision.state, decision.supporters.len()), (Following, 4));
}

#[test]
fn its_own_voice_is_not_heard() {
    let mut e = looking(1, &voters(3), 5, 1);
    assert!(hear(&mut e, 1, notice(Look, vote(3, 99, 9), 9)).is_empty());
    assert_eq!((e.round(), e.vote()), (1, Some(vote(1, 5, 1))));
}

#[test]
fn a_vote_no_better_does_not_disturb_a_quorum_that_stands_by_its_round() {
    let mut e = looking(2, &voters(5), 5, 1);
    hear(&mut e, 1, notice(Look, vote(2, 5, 1), 1));
    hear(&mut e, 3, notice(Look, vote(2, 5, 1), 1));
    hear(&mut e, 4, notice(Look, vote(1, 5, 1), 6));
    assert_eq!(e.round(), 1);
    e.handle(MonoMs(1_200), Input::Timer);
    assert!(decided(&outputs(&mut e)).is_some());
}

#[test]
fn rounds_that_nobody_can_have_reached_are_not_believed() {
    let mut e = looking(2, &voters(3), 5, 1);
    for round in [-1, i64::MIN, i64::MAX, ROUND_AHEAD_MAX + 2] {
        hear(&mut e, 3, notice(Look, vote(3, 9, 9), round));
        hear(&mut e, 1, notice(Leading, vote(1, 9, 9), round));
        hear(&mut e, 3, notice(Following, vote(1, 9, 9), round));
        assert_eq!((e.round(), e.state()), (1, Some(Look)), "{round}");
    }
    hear(&mut e, 3, notice(Look, vote(3, 9, 9), ROUND_AHEAD_MAX));
    assert_eq!(e.round(), ROUND_AHEAD_MAX);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut e = looking(2, &voters(5), 5, 1);
        let mut all = Vec::new();
        for from in [4, 1, 5, 3] {
            all.extend(hear(&mut e, from, notice(Look, vote(from, 5, 1), 1)));
        }
        all
    };
    assert_eq!(run(), run());
}

#[test]
fn who_has_ceased_to_look_decides_nothing_and_says_nothing() {
    let mut e = Election::new(ServerId(2), Electorate::new(config(&voters(3)), None), options());
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    outputs(&mut e);
    e.handle(NOW, Input::Cease);
    assert_eq!(outputs(&mut e), [Output::Timer(None)]);
    assert_eq!(e.state(), None);
    for from in [1, 3] {
        assert!(hear(&mut e, from, notice(Look, vote(2, 5, 1), 1)).is_empty(), "all would vote for it");
    }
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    assert!(sent(&outputs(&mut e)).iter().all(|(_, _, round, _)| *round == 2), "another round");
}
