//! EL10: servers that may have forgotten what they acknowledged.

use super::*;
use PeerState::{Following, Leading, Looking as Look};

/// Server `me` of `count`, in a new directory, that has accepted an epoch.
fn newcomer(me: i64, count: i64, accepted: i64) -> Election {
    let mut e = Election::new(ServerId(me), Electorate::new(config(&voters(count)), None), options());
    e.handle(NOW, Input::Start { zxid: 0, epoch: 0, new: Some(accepted) });
    outputs(&mut e);
    e
}

fn without_vote(leader: i64) -> Vote {
    vote(leader, NO_ZXID, 0)
}

#[test]
fn el10_new_servers_elect_one_of_theirs() {
    let mut e = newcomer(1, 3, 0);
    hear(&mut e, 2, notice(Look, vote(3, 0, 0), 1));
    let out = hear(&mut e, 3, notice(Look, vote(3, 0, 0), 1));
    assert_eq!(decided(&out).map(|d| (d.state, d.vote)), Some((Following, vote(3, 0, 0))));
}

#[test]
fn el10_a_new_server_votes_for_what_a_server_has_from_a_time_when_it_was_alone() {
    let mut e = newcomer(1, 2, 0);
    let out = hear(&mut e, 2, notice(Look, vote(2, 77, 0), 1));
    assert_eq!(decided(&out).map(|d| d.state), Some(Following));
}

#[test]
fn el10_a_new_server_votes_on_when_its_first_leader_died_before_it_had_anything() {
    let mut e = newcomer(1, 2, 1);
    let out = hear(&mut e, 2, notice(Look, vote(2, 0, 1), 1));
    assert_eq!(decided(&out).map(|d| d.state), Some(Following), "epoch 1 was promised, and nothing else");
    let mut stranger = newcomer(1, 2, 0);
    let out = hear(&mut stranger, 2, notice(Look, vote(2, 0, 1), 1));
    assert_eq!(decided(&out), None, "that epoch may have gone further without it");
}

#[test]
fn el10_a_new_server_has_no_vote_once_it_hears_of_a_history_and_says_so() {
    let mut e = newcomer(3, 3, 0);
    let out = hear(&mut e, 1, notice(Look, vote(1, 5, 2), 1));
    assert_eq!(sent(&out), [(1, without_vote(3), 1, Look), (2, without_vote(3), 1, Look)]);
    assert_eq!(decided(&out), None, "one of three has it, and this server may have been the second");
    assert_eq!(e.voteless(), BTreeSet::from([ServerId(3)]));
    let out = hear(&mut e, 2, notice(Look, vote(1, 5, 2), 1));
    assert_eq!(decided(&out), None, "it does not elect, it joins");
    hear(&mut e, 2, notice(Following, vote(1, 5, 2), 1));
    let out = hear(&mut e, 1, notice(Leading, vote(1, 5, 2), 1));
    assert_eq!(decided(&out).map(|d| d.state), Some(Following), "whom others have elected");
}

#[test]
fn el10_a_new_server_votes_again_when_those_with_a_history_say_that_they_have_none() {
    let with_history = || {
        let mut e = newcomer(1, 3, 0);
        hear(&mut e, 3, notice(Look, vote(3, 5, 2), 1));
        assert_eq!(e.voteless(), BTreeSet::from([ServerId(1)]));
        e
    };
    let mut e = with_history();
    e.handle(NOW, Input::PeerDown(ServerId(3)));
    let out = hear(&mut e, 2, notice(Look, vote(2, 0, 0), 1));
    assert_eq!(decided(&out), None, "3 is gone, and what it has is not: only an administrator knows better");
    for news in [vote(3, 0, 0), without_vote(3)] {
        let mut e = with_history();
        let out = hear(&mut e, 3, notice(Look, news, 1));
        assert!(sent(&out).contains(&(2, vote(1, 0, 0), 2, Look)), "{news:?}");
        assert!(!e.voteless().contains(&ServerId(1)));
    }
}

#[test]
fn el10_a_leadership_that_stands_is_a_history_too() {
    let mut e = newcomer(1, 3, 0);
    hear(&mut e, 3, notice(Leading, vote(3, 5, 2), 1));
    let out = hear(&mut e, 2, notice(Look, vote(2, 0, 0), 1));
    assert_eq!((decided(&out), e.voteless()), (None, BTreeSet::from([ServerId(1)])));
}

#[test]
fn a_proposal_ends_when_its_server_takes_its_vote_back() {
    let mut e = looking(1, &voters(5), 5, 2);
    hear(&mut e, 4, notice(Look, vote(4, 9, 2), 1));
    assert_eq!(e.vote(), Some(vote(4, 9, 2)));
    hear(&mut e, 4, notice(Look, without_vote(4), 1));
    assert_eq!((e.vote(), e.round()), (Some(vote(1, 5, 2)), 2), "who cannot be elected is not proposed");
}

#[test]
fn el10_who_restarts_with_a_new_directory_is_not_the_leader_that_others_still_follow() {
    for new in [None, Some(0)] {
        let mut e = Election::new(ServerId(1), Electorate::new(config(&voters(3)), None), options());
        let zxid = if new.is_some() { 0 } else { NO_ZXID };
        e.handle(NOW, Input::Start { zxid, epoch: 0, new });
        outputs(&mut e);
        hear(&mut e, 2, notice(Following, vote(1, 9, 2), 1));
        hear(&mut e, 3, notice(Following, vote(1, 9, 2), 1));
        assert_eq!(e.state(), Some(Look), "new: {new:?}");
    }
    let mut e = looking(1, &voters(3), 9, 2);
    hear(&mut e, 2, notice(Following, vote(1, 9, 2), 1));
    hear(&mut e, 3, notice(Following, vote(1, 9, 2), 1));
    assert_eq!(e.state(), Some(Leading), "who has what it had is");
}

#[test]
fn who_has_no_vote_is_neither_counted_nor_waited_for() {
    let mut e = looking(1, &voters(3), 5, 2);
    hear(&mut e, 3, notice(Look, without_vote(3), 1));
    assert_eq!((e.unheard(), e.voteless()), (BTreeSet::from([ServerId(2)]), BTreeSet::from([ServerId(3)])));
    let out = hear(&mut e, 2, notice(Look, vote(1, 5, 2), 1));
    assert_eq!(decided(&out).map(|d| d.state), Some(Leading), "at once: nobody is left who could change it");
}

#[test]
fn a_vote_taken_back_counts_no_more() {
    let mut e = looking(1, &voters(5), 5, 2);
    hear(&mut e, 2, notice(Look, vote(1, 5, 2), 1));
    hear(&mut e, 2, notice(Look, without_vote(2), 1));
    let out = hear(&mut e, 3, notice(Look, vote(1, 5, 2), 1));
    assert_eq!(decided(&out), None);
    assert_eq!(e.voteless(), BTreeSet::from([ServerId(2)]));
    let out = hear(&mut e, 2, notice(Look, vote(1, 5, 2), 1));
    assert!(e.voteless().is_empty() && decided(&out).is_none(), "two have not been heard");
    e.handle(NOW.plus(10_000), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)).map(|d| d.state), Some(Leading));
}
