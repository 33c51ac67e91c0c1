//! Faults that other coordination servers have had in their elections and that this design could repeat. Each test is named by the fault that is
//! absent; numbers are those of ZooKeeper's tracker.

use super::*;
use crate::base::rng::Rng;

/// 975, 1514: who comes back with many rounds behind it compared its own round with that of a leadership that stands.
#[test]
fn a_late_server_joins_whatever_round_it_is_in() {
    let mut e = looking(1, &voters(3), 5, 1);
    hear(&mut e, 2, notice(Look, vote(2, 5, 1), 50));
    assert_eq!(e.round(), 50);
    assert_eq!(decided(&hear(&mut e, 2, notice(Following, vote(3, 9, 4), 2))), None);
    let out = hear(&mut e, 3, notice(Leading, vote(3, 9, 4), 2));
    let decision = decided(&out).expect("a quorum and the leader's word");
    assert_eq!((decision.state, decision.round, e.round()), (Following, 2, 2), "and goes on from that round");
    e.handle(NOW, Input::Start { zxid: 9, epoch: 4, new: None });
    assert_eq!(e.round(), 3);
}

/// 1732, 1805, 1817: followers that met the leader at different times report different rounds and zxids for it.
#[test]
fn followers_that_disagree_about_round_and_zxid_let_a_late_server_join() {
    let mut e = looking(1, &voters(5), 5, 1);
    hear(&mut e, 2, notice(Following, vote(5, 7, 4), 2));
    hear(&mut e, 3, notice(Following, vote(5, 9, 4), 6));
    let out = hear(&mut e, 5, notice(Leading, vote(5, 7, 4), 3));
    let supporters = decided(&out).map(|d| d.supporters.clone());
    assert_eq!(supporters, Some(BTreeSet::from([2, 3, 5].map(ServerId))));
}

/// 1732: during a rolling upgrade some report the epoch before the election and some the one after.
#[test]
fn servers_that_do_not_say_their_version_may_report_the_epoch_before() {
    let old = |state, epoch| Notice { version: 0, ..notice(state, vote(5, 7, epoch), 2) };
    let mut e = looking(1, &voters(5), 5, 1);
    hear(&mut e, 2, old(Following, 3));
    hear(&mut e, 3, old(Following, 3));
    assert!(decided(&hear(&mut e, 5, notice(Leading, vote(5, 7, 4), 2))).is_some());
    let mut e = looking(1, &voters(5), 5, 1);
    hear(&mut e, 2, notice(Following, vote(5, 7, 3), 2));
    hear(&mut e, 3, notice(Following, vote(5, 7, 3), 2));
    let out = hear(&mut e, 5, notice(Leading, vote(5, 7, 4), 2));
    assert_eq!(decided(&out), None, "but who says its version knows the epoch");
}

/// 1419: the order of votes was none, and five servers went on changing their minds.
#[test]
fn votes_are_totally_ordered_whatever_the_weights() {
    let electorate =
        Electorate::new(config(&(voters(5) + "group.1=1:2:3:4:5\nweight.2=0\nweight.4=0")), None);
    let mut rng = Rng::new(1);
    let mut any = || vote(1 + rng.below(5) as i64, rng.below(3) as i64 - 1, rng.below(3) as i64);
    for _ in 0..10_000 {
        let (a, b, c) = (any(), any(), any());
        let better = |x: &Vote, y: &Vote| x.beats(y, &electorate);
        assert!(!(better(&a, &b) && better(&b, &a)));
        assert!(!(better(&a, &b) && better(&b, &c)) || better(&a, &c), "{a:?} {b:?} {c:?}");
        let both_lead = electorate.may_lead(a.leader) && electorate.may_lead(b.leader);
        assert!(!both_lead || a == b || better(&a, &b) || better(&b, &a));
    }
}

/// What every election has gone wrong with once: those who remember a leader elect it, find nobody and begin again.
#[test]
fn a_leader_that_is_gone_is_not_joined_on_what_it_or_its_followers_said() {
    let followers = |e: &mut Election| {
        let mut joined = false;
        for from in [2, 3, 4] {
            joined |= decided(&hear(e, from, notice(Following, vote(5, 9, 4), 2))).is_some();
        }
        joined
    };
    let leading = || notice(Leading, vote(5, 9, 4), 2);
    let mut e = looking(1, &voters(5), 5, 1);
    assert!(!followers(&mut e), "never heard");
    let mut e = looking(1, &voters(5), 5, 1);
    hear(&mut e, 5, leading());
    assert!(followers(&mut e.clone()), "as it is when nothing happens in between");
    let mut looks_itself = e.clone();
    hear(&mut looks_itself, 5, notice(Look, vote(5, 9, 4), 1));
    assert!(!followers(&mut looks_itself));
    e.handle(NOW, Input::PeerDown(ServerId(5)));
    assert!(!followers(&mut e));
}

/// The same for those who only vote.
#[test]
fn the_vote_of_a_server_that_is_gone_does_not_count() {
    let mut e = looking(2, &voters(5), 5, 1);
    hear(&mut e, 1, notice(Look, vote(2, 5, 1), 1));
    hear(&mut e, 3, notice(Look, vote(2, 5, 1), 1));
    e.handle(NOW, Input::PeerDown(ServerId(3)));
    e.handle(MonoMs(1_200), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)), None);
    assert!(e.unheard().contains(&ServerId(3)));
    hear_at(&mut e, MonoMs(1_250), 3, notice(Look, vote(2, 5, 1), 1));
    e.handle(MonoMs(1_450), Input::Timer);
    assert!(decided(&outputs(&mut e)).is_some());
}

/// Server 3 of five, elected in round 1 with the votes of 1 and 2.
fn elected() -> Election {
    let mut e = looking(3, &voters(5), 5, 1);
    for from in [1, 2] {
        hear(&mut e, from, notice(Look, vote(3, 5, 1), 1));
    }
    e.handle(MonoMs(1_300), Input::Timer);
    outputs(&mut e);
    assert_eq!(e.state(), Some(Leading));
    e
}

fn settled(outputs: &[Output]) -> Vec<(i64, Option<i64>)> {
    let said = outputs.iter().filter_map(|o| match o {
        Output::Settled { voter, on } => Some((voter.0, on.map(|id| id.0))),
        _ => None,
    });
    said.collect()
}

/// 3109: voters turned away while the leader waited for its quorum, which it never learned.
#[test]
fn a_leader_hears_of_voters_that_have_left_it() {
    let mut e = elected();
    let out = hear(&mut e, 1, notice(Look, vote(1, 5, 1), 2));
    assert!(settled(&out).is_empty() && sent(&out).len() == 1, "who looks is answered, and may still come");
    assert_eq!(settled(&hear(&mut e, 4, notice(Leading, vote(4, 5, 1), 1))), [(4, Some(4))]);
    let out = hear(&mut e, 1, notice(Following, vote(4, 5, 1), 2));
    assert_eq!((settled(&out), sent(&out).len()), (vec![(1, Some(4))], 0));
    assert!(hear(&mut e, 1, notice(Following, vote(4, 5, 1), 2)).is_empty(), "once");
    assert_eq!(settled(&hear(&mut e, 1, notice(Look, vote(1, 5, 1), 3))), [(1, None)]);
    assert_eq!(settled(&hear(&mut e, 4, notice(Following, vote(3, 5, 1), 3))), [(4, None)]);
    assert_eq!(settled(&hear(&mut e, 2, notice(Following, vote(4, 5, 1), 2))), [(2, Some(4))]);
    e.handle(NOW, Input::PeerDown(ServerId(2)));
    assert_eq!(settled(&outputs(&mut e)), [(2, None)], "what it said is gone with it");
    assert_eq!(e.state(), Some(Leading), "EL8");
}

/// A notification that took its time tells of a leader before this one.
#[test]
fn what_was_settled_before_a_leader_was_elected_is_no_news_to_it() {
    let mut e = looking(3, &voters(5), 5, 1);
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    for from in [1, 2] {
        hear(&mut e, from, notice(Look, vote(3, 5, 1), 2));
    }
    e.handle(MonoMs(1_300), Input::Timer);
    assert_eq!((e.state(), e.round()), (Some(Leading), 2));
    outputs(&mut e);
    assert!(hear(&mut e, 1, notice(Following, vote(4, 5, 1), 1)).is_empty(), "an older round");
    assert!(hear(&mut e, 1, notice(Following, vote(9, 5, 1), 2)).is_empty(), "no voter");
    assert!(hear(&mut e, 1, notice(Observing, vote(4, 5, 1), 2)).is_empty());
    assert_eq!(
        settled(&hear(&mut e, 1, notice(Following, vote(4, 5, 2), 1))),
        [(1, Some(4))],
        "a later epoch"
    );
}

/// What it had heard when it was elected it need not hear again.
#[test]
fn a_leader_knows_from_the_beginning_who_has_settled_elsewhere() {
    let mut e = looking(3, &voters(5), 5, 1);
    hear(&mut e, 4, notice(Leading, vote(4, 5, 1), 1));
    hear(&mut e, 5, notice(Leading, vote(5, 5, 1), 0));
    hear(&mut e, 1, notice(Look, vote(3, 5, 1), 1));
    let mut out = hear(&mut e, 2, notice(Look, vote(3, 5, 1), 1));
    e.handle(MonoMs(1_300), Input::Timer);
    out.extend(outputs(&mut e));
    assert!(decided(&out).is_some_and(|d| d.state == Leading));
    assert_eq!(settled(&out), [(4, Some(4))]);
}

/// Whom a leader waits for in vain tells it: when it has settled, or when it is told.
#[test]
fn a_follower_tells_a_leader_that_it_does_not_follow() {
    let mut e = looking(1, &voters(3), 5, 1);
    hear(&mut e, 2, notice(Leading, vote(2, 5, 1), 1));
    let mut out = hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1));
    e.handle(MonoMs(1_300), Input::Timer);
    out.extend(outputs(&mut e));
    assert_eq!(decided(&out).map(|d| (d.state, d.vote.leader)), Some((Following, ServerId(3))));
    assert!(sent(&out).contains(&(2, vote(3, 5, 1), 1, Following)), "{out:?}");
    let leads = |id| notice(Leading, vote(id, 5, 1), 1);
    assert_eq!(sent(&hear(&mut e, 2, leads(2))), [(2, vote(3, 5, 1), 1, Following)]);
    assert!(hear(&mut e, 3, leads(3)).is_empty(), "its own leader knows");
    // EL9.
    assert!(hear(&mut e, 2, notice(Following, vote(2, 5, 1), 1)).is_empty());
    let mut leader = elected();
    assert!(sent(&hear(&mut leader, 4, leads(4))).is_empty(), "of two leaders none answers the other");
}

/// 3537: votes for a leadership of another round were counted among those of the election under way, and the leader's word looked for in
/// the wrong place.
#[test]
fn votes_of_another_round_do_not_elect() {
    let mut e = looking(1, &voters(5), 5, 1);
    hear(&mut e, 3, notice(Look, vote(3, 9, 4), 1));
    for from in [2, 4] {
        hear(&mut e, from, notice(Following, vote(3, 9, 4), 9));
    }
    e.handle(MonoMs(5_000), Input::Timer);
    assert_eq!(decided(&outputs(&mut e)), None, "two votes of five in this round, two followers in another");
    let out = hear(&mut e, 3, notice(Leading, vote(3, 9, 4), 9));
    let decision = decided(&out).expect("three of five, the leader among them");
    assert_eq!((decision.round, decision.supporters.len()), (9, 3));
}

/// 2186, 3769, 4787: a message cut short or of other characters ended the thread that read them all.
#[test]
fn a_broken_notification_costs_itself_alone() {
    let whole = Notice { config: Some(config(&voters(3))), ..notice(Look, vote(3, 9, 4), 1) };
    let mut bytes = Vec::new();
    whole.put(&mut bytes);
    let mut e = looking(1, &voters(3), 5, 1);
    let mut rng = Rng::new(3);
    for case in 0..20_000 {
        let mut broken = bytes[..bytes.len() - rng.below(bytes.len() as u64) as usize].to_vec();
        for _ in 0..rng.below(4) {
            let at = rng.below(broken.len() as u64) as usize;
            broken[at] = rng.next_u64() as u8;
        }
        if let Ok(notice) = Notice::read(&broken) {
            let mut hit = e.clone();
            hear(&mut hit, 1 + case % 4, notice);
            hit.handle(MonoMs(9_000), Input::Timer);
        }
    }
    let at = bytes.windows(2).position(|w| w == b"h1").expect("a host's name");
    bytes[at] = 0xe9;
    let latin = Notice::read(&bytes).expect("the vote can be read");
    assert_eq!((latin.vote, latin.config.is_some()), (whole.vote, false));
    hear(&mut e, 3, latin);
    assert_eq!(e.vote(), Some(whole.vote));
}

/// 2819, 3720, 3829: servers restarted one by one with another configuration restarted each other's elections.
#[test]
fn a_configuration_that_is_not_taken_over_disturbs_nobody() {
    let newer = Notice { config: Some(config(&(voters(5) + "version=7"))), ..notice(Look, vote(2, 9, 1), 1) };
    let electorate = Electorate::new(config(&voters(3)), None);
    let mut e = Election::new(ServerId(1), electorate, Options::default());
    e.handle(NOW, Input::Start { zxid: 5, epoch: 1, new: None });
    hear(&mut e, 2, newer.clone());
    assert_eq!((e.round(), e.vote()), (1, Some(vote(2, 9, 1))), "the vote counts, and the round goes on");
    assert!(decided(&hear(&mut e, 3, notice(Look, vote(2, 9, 1), 1))).is_some());
    // Settled: the log will bring it.
    let mut e = looking(1, &voters(3), 5, 1);
    hear(&mut e, 2, notice(Look, vote(2, 9, 1), 1));
    hear(&mut e, 3, notice(Look, vote(2, 9, 1), 1));
    assert_eq!(sent(&hear(&mut e, 2, newer)).len(), 1);
    assert_eq!(e.electorate().voters().len(), 3);
}

/// R13: connections that come and go.
#[test]
fn a_settled_server_does_not_care_who_comes_and_goes() {
    let mut e = looking(1, &voters(3), 5, 1);
    hear(&mut e, 2, notice(Look, vote(3, 5, 1), 1));
    hear(&mut e, 3, notice(Look, vote(3, 5, 1), 1));
    assert_eq!(e.state(), Some(Following));
    for _ in 0..10 {
        for peer in [2, 3].map(ServerId) {
            e.handle(NOW, Input::PeerDown(peer));
            e.handle(NOW, Input::PeerUp(peer));
        }
    }
    assert_eq!((outputs(&mut e), e.state(), e.round()), (vec![], Some(Following), 1));
}

/// R13: a connection that flaps makes this server look anew no more often than the peer is heard.
#[test]
fn a_flapping_connection_does_not_use_up_rounds() {
    let mut e = looking(1, &voters(5), 5, 1);
    hear(&mut e, 5, notice(Look, vote(5, 5, 1), 1));
    for _ in 0..100 {
        e.handle(NOW, Input::PeerUp(ServerId(5)));
        e.handle(NOW, Input::PeerDown(ServerId(5)));
    }
    assert_eq!(e.round(), 2);
    // Not even where others go on proposing it: only its own word brings it back.
    hear(&mut e, 2, notice(Look, vote(5, 5, 1), 2));
    e.handle(NOW, Input::PeerDown(ServerId(5)));
    assert_eq!((e.round(), e.vote()), (2, Some(vote(5, 5, 1))), "said again");
    for stranger in 100..200 {
        e.handle(NOW, Input::PeerDown(ServerId(stranger)));
    }
    assert_eq!(e.round(), 2);
}
