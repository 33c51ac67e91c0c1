//! Synchronisation and broadcast: what a learner is brought up to date with, what is durable when, and what is applied.

use zabra::testing::ensemble_sim::{Script, ScriptClient as Client, Stage, Told};
use zabra::wire::quorum::PacketKind;

use crate::scenarios;

scenarios! {
    commits_race_with_the_diff_of_a_follower: [962], GapNotNoticed, Stage::of(3);
    a_history_longer_than_a_segment_is_sent: [2418], GapNotNoticed, Stage::of(3);
    a_follower_that_was_brought_up_to_date_becomes_leader: [4925], GapNotNoticed, Stage::of(3);
    an_observer_comes_while_writes_are_committed: [1551], GapNotNoticed, WITH_OBSERVER;
    an_old_leader_returns_with_a_tail_that_nobody_has: [1154], DiffWithoutTrunc, Stage::of(3);
    an_old_leader_that_never_stopped_has_a_tail_in_memory: [2845], DiffWithoutTrunc, Stage::of(3);
    an_ephemeral_node_of_a_leader_that_was_cut_off_outlives_its_session: [5010], DiffWithoutTrunc, SHORT_SESSIONS;
    a_log_that_was_cut_goes_on_and_is_read_again: [1489, 1156], CutNotMade, Stage::of(3);
    a_node_starts_with_a_tail_that_nobody_committed: [1549, 4837], TailAppliedAtStart, Stage::of(3);
    a_prospective_leader_takes_a_snapshot_of_its_tail: [1558], TailAppliedAtStart, Stage::of(3);
    a_leader_dies_between_newleader_and_uptodate: [1549], AppliedBeforeUpToDate, Stage::of(3);
    power_fails_between_newleader_and_the_flush_of_the_history: [3911, 4643, 4646, 4785], EpochBeforeHistory, Stage::of(3);
    proposals_come_between_newleader_and_uptodate: [3023, 4646, 4785], AckBeforeFlush, Stage::of(3);
    a_commit_comes_before_uptodate: [4394], EarlyCommitLost, Stage::of(3);
    a_leader_starts_with_a_long_log: [4503], ServedBeforeApplied, Stage::of(3);
    the_disk_of_a_leader_is_slow: [], LeaderCountsUnflushed, Stage::of(3);
    nobody_acknowledges_a_proposal: [], CommitByLeaderAlone, Stage::of(3);
    a_leader_with_a_tail_waits_for_its_followers: [], EstablishedWithoutQuorum, Stage::of(3);
    a_follower_with_an_unflushed_tail_loses_its_leader: [], VoteWithUnflushedTail, Stage::of(3);
}

const WITH_OBSERVER: Stage = Stage { observers: 1, ..Stage::of(3) };

const SHORT_SESSIONS: Stage = Stage { session_ms: 2_000, ..Stage::of(3) };

/// n3 leads n1 and n2, and has a client that has written.
pub(crate) fn three(s: &mut Script<'_>) -> Told<Client> {
    s.start_led_by(2, &[0, 1])?;
    let client = s.client(2)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    Ok(client)
}

/// n3 leads n2, and has a client that has written `count` times; n1 was never there.
pub(crate) fn two(s: &mut Script<'_>, count: usize) -> Told<Client> {
    s.start_led_by(2, &[1])?;
    let client = s.client(2)?;
    for _ in 0..count {
        s.write_and_wait(client)?;
    }
    s.until_level(&[1, 2])?;
    Ok(client)
}

/// n3, which leads, writes what its followers do not get.
fn leave_a_tail(s: &mut Script<'_>, client: Client) -> Told {
    let before = s.last(2);
    s.hold(2, 0, PacketKind::Proposal);
    s.hold(2, 1, PacketKind::Proposal);
    s.write(client)?;
    s.until("a tail on the leader's disk", |s| s.durable(2) > before)
}

/// What waits for n1 and n2 is lost with the connections, whether n3 lives or not.
fn lose_what_n3_sends(s: &mut Script<'_>) -> Told {
    s.reset(2, 0);
    s.reset(2, 1);
    s.run_for(5)?;
    s.release(2, 0)?;
    s.release(2, 1)
}

/// ZOOKEEPER-962: DIFF is on its way while more is proposed and committed.
fn commits_race_with_the_diff_of_a_follower(s: &mut Script<'_>) -> Told {
    let client = two(s, 5)?;
    s.hold(2, 0, PacketKind::NewLeader);
    s.start(&[0])?;
    s.until_held(2, 0, PacketKind::NewLeader)?;
    for _ in 0..5 {
        s.write_and_wait(client)?;
    }
    s.release(2, 0)?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-2418: the end of one file of the log is in the middle of what a follower needs.
fn a_history_longer_than_a_segment_is_sent(s: &mut Script<'_>) -> Told {
    let client = two(s, 1)?;
    s.write_much(client, 40)?;
    s.start(&[0])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-4925: who was brought up to date leads, and brings up to date who was not there.
fn a_follower_that_was_brought_up_to_date_becomes_leader(s: &mut Script<'_>) -> Told {
    let client = two(s, 5)?;
    s.kill(1);
    s.start(&[0])?;
    s.until("a quorum with n1", |s| s.serves(0) && s.leads(2))?;
    s.until_level(&[0, 2])?;
    s.connect(client, 2)?;
    s.until_live(client)?;
    for _ in 0..5 {
        s.write_and_wait(client)?;
    }
    s.until_level(&[0, 2])?;
    s.kill(2);
    s.start(&[1])?;
    s.until_serve(&[0, 1])?;
    s.demand(s.leads(0), "n1 has more, and leads")?;
    s.until_level(&[0, 1])
}

/// ZOOKEEPER-1551: writes are committed between what an observer was sent and UPTODATE.
fn an_observer_comes_while_writes_are_committed(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.hold(3, 2, PacketKind::Ack);
    s.start(&[3])?;
    s.until_held(3, 2, PacketKind::Ack)?;
    for _ in 0..5 {
        s.write_and_wait(client)?;
    }
    s.release(3, 2)?;
    s.until_serve(&[3])?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2, 3])
}

/// ZOOKEEPER-1154: the node with the greatest zxid was not there when the others elected; its tail lies between the ends of their logs when it
/// returns.
fn an_old_leader_returns_with_a_tail_that_nobody_has(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    leave_a_tail(s, client)?;
    s.kill(2);
    lose_what_n3_sends(s)?;
    s.until_serve(&[0, 1])?;
    let other = s.client(1)?;
    for _ in 0..5 {
        s.write_and_wait(other)?;
    }
    s.start(&[2])?;
    s.until_level(&[0, 1, 2])?;
    s.demand(s.logs_cut() == 1, "the tail was cut")
}

/// ZOOKEEPER-2845: the same, of a process that has the tail in memory all the time.
fn an_old_leader_that_never_stopped_has_a_tail_in_memory(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    leave_a_tail(s, client)?;
    s.cut_off(2);
    lose_what_n3_sends(s)?;
    s.until_serve(&[0, 1])?;
    s.until("the old leader gives up", |s| !s.is_elected(2))?;
    let other = s.client(1)?;
    s.write_and_wait(other)?;
    s.mend_all();
    s.until_level(&[0, 1, 2])?;
    s.demand(s.logs_cut() == 1, "the tail was cut")
}

/// ZOOKEEPER-5010: a leader creates an ephemeral node that nobody hears of; its session ends under the next.
fn an_ephemeral_node_of_a_leader_that_was_cut_off_outlives_its_session(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    let before = s.last(2);
    s.hold(2, 0, PacketKind::Proposal);
    s.hold(2, 1, PacketKind::Proposal);
    s.create_ephemeral(client)?;
    s.until("the node in the leader's log alone", |s| s.durable(2) > before)?;
    s.cut_off(2);
    lose_what_n3_sends(s)?;
    s.until_serve(&[0, 1])?;
    let begun = s.last(1);
    s.until("the session ends", |s| s.last(1) > begun)?;
    s.mend_all();
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-1489, -1156: behind a cut the log goes on at the right place, and a start finds exactly that.
fn a_log_that_was_cut_goes_on_and_is_read_again(s: &mut Script<'_>) -> Told {
    an_old_leader_returns_with_a_tail_that_nobody_has(s)?;
    let client = s.client(s.leader().expect("they are level"))?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    s.cut_power(2);
    s.write_and_wait(client)?;
    s.start(&[2])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-1549, -4837: a node that logged what was never committed starts, takes a snapshot, and is told to cut.
fn a_node_starts_with_a_tail_that_nobody_committed(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    leave_a_tail(s, client)?;
    s.kill(2);
    lose_what_n3_sends(s)?;
    s.until_serve(&[0, 1])?;
    let other = s.client(1)?;
    s.write_and_wait(other)?;
    s.cut_off(2);
    s.start(&[2])?;
    s.demand(s.applied(2) < s.last(2), "a tail is not applied")?;
    s.run_for(200)?;
    s.demand(s.applied(2) < s.last(2), "nor later")?;
    s.mend_all();
    s.until_level(&[0, 1, 2])?;
    s.snapshot(2)
}

/// ZOOKEEPER-1558: the same node believes that it is to lead, and waits for others.
fn a_prospective_leader_takes_a_snapshot_of_its_tail(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    leave_a_tail(s, client)?;
    s.kill(2);
    lose_what_n3_sends(s)?;
    s.until_serve(&[0, 1])?;
    s.cut_off(2);
    s.start(&[2])?;
    s.mislead(2, 2)?;
    s.run_for(500)?;
    s.demand(s.is_elected(2) && s.applied(2) < s.last(2), "who only hopes to lead applies nothing")?;
    s.mend_all();
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-1549: a follower got a tail and NEWLEADER from a leader that does not live to have a quorum.
fn a_leader_dies_between_newleader_and_uptodate(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    leave_a_tail(s, client)?;
    let tail = s.last(2);
    (0..3).for_each(|node| s.kill(node));
    s.release(2, 0)?;
    s.release(2, 1)?;
    s.hold(1, 2, PacketKind::Ack);
    s.start(&[1, 2])?;
    s.mislead(2, 2)?;
    s.mislead(1, 2)?;
    s.until_held(1, 2, PacketKind::Ack)?;
    s.run_for(50)?;
    s.demand(s.last(1) == tail && s.applied(1) < tail, "the tail is there, and not applied")?;
    s.cut_power(2);
    s.release(1, 2)?;
    s.start(&[0])?;
    s.until_serve(&[0, 1])
}

/// ZOOKEEPER-3911, -4643, -4646, -4785: a follower has NEWLEADER, and what came before it is not on its disk when its power fails. Of all there are it
/// has entered the latest epoch.
fn power_fails_between_newleader_and_the_flush_of_the_history(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0])?;
    let client = s.client(2)?;
    for _ in 0..3 {
        s.write_and_wait(client)?;
    }
    s.until_level(&[0, 2])?;
    s.kill(0);
    s.kill(2);
    s.hold_disk(1);
    s.start(&[1, 2])?;
    s.mislead(2, 2)?;
    s.mislead(1, 2)?;
    s.until("the history at n2", |s| s.last(1) == s.last(2))?;
    s.run_for(100)?;
    s.cut_power(1);
    s.release_disk(1);
    s.kill(2);
    s.start(&[0, 1])?;
    s.until_serve(&[0, 1])?;
    s.until_level(&[0, 1])
}

/// ZOOKEEPER-3023, -4646, -4785: what comes between NEWLEADER and UPTODATE is acknowledged when it is durable.
fn proposals_come_between_newleader_and_uptodate(s: &mut Script<'_>) -> Told {
    let client = two(s, 3)?;
    s.hold(2, 0, PacketKind::UpToDate);
    s.start(&[0])?;
    s.until_held(2, 0, PacketKind::UpToDate)?;
    s.hold(1, 2, PacketKind::Ack);
    s.hold_disk(0);
    let before = s.last(2);
    s.write(client)?;
    s.until("a proposal", |s| s.last(2) > before)?;
    s.release(2, 0)?;
    s.until_serve(&[0])?;
    s.run_for(100)?;
    s.demand(s.committed(2) == before, "nothing is committed that one disk has")?;
    s.release_disk(0);
    s.until("n1 has it too", |s| s.committed(2) > before)?;
    s.until_answered(client)
}

/// ZOOKEEPER-4394: what was committed is told before UPTODATE, and not again.
fn a_commit_comes_before_uptodate(s: &mut Script<'_>) -> Told {
    two(s, 5)?;
    s.hold(2, 0, PacketKind::UpToDate);
    s.start(&[0])?;
    s.until_held(2, 0, PacketKind::UpToDate)?;
    s.release(2, 0)?;
    s.until_serve(&[0])?;
    s.must("all of it applied", 1_000, |s| s.applied(0) == s.last(2))
}

/// ZOOKEEPER-4503: a leader that has just started has everything in its log, and nothing in its tree.
fn a_leader_starts_with_a_long_log(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    for _ in 0..30 {
        s.write_and_wait(client)?;
    }
    s.until_level(&[0, 1, 2])?;
    (0..3).for_each(|node| s.kill(node));
    s.start_led_by(2, &[0, 1])
}

/// A leader's own disk counts as any other: two followers, of whom one has it, are no quorum with it.
fn the_disk_of_a_leader_is_slow(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    let before = s.last(2);
    s.hold_disk(2);
    s.hold(2, 0, PacketKind::Proposal);
    s.write(client)?;
    s.until("it is on one disk", |s| s.durable(1) > before)?;
    s.run_for(100)?;
    s.demand(s.committed(2) == before, "one disk is no quorum")?;
    s.release_disk(2);
    s.until("it is on two", |s| s.committed(2) > before)
}

/// A proposal that nobody else has is not committed.
fn nobody_acknowledges_a_proposal(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    let before = s.committed(2);
    leave_a_tail(s, client)?;
    s.run_for(100)?;
    s.demand(s.committed(2) == before, "one disk is no quorum")
}

/// What a leader begins with is committed when a quorum has it.
fn a_leader_with_a_tail_waits_for_its_followers(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    leave_a_tail(s, client)?;
    (0..3).for_each(|node| s.kill(node));
    for follower in [0, 1] {
        s.release(2, follower)?;
        s.hold(2, follower, PacketKind::Diff);
    }
    s.start(&[0, 1, 2])?;
    for node in [2, 0, 1] {
        s.mislead(node, 2)?;
    }
    s.until_held(2, 0, PacketKind::Diff)?;
    s.run_for(100)?;
    s.demand(!s.serves(2), "a leader without a quorum that has its history does not serve")
}

/// A vote says what no crash takes back.
fn a_follower_with_an_unflushed_tail_loses_its_leader(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    let before = s.last(1);
    s.hold_disk(1);
    s.hold(2, 0, PacketKind::Proposal);
    s.write(client)?;
    s.until("a tail that is not flushed", |s| s.last(1) > before)?;
    s.kill(2);
    s.run_for(5)?;
    s.release(2, 0)?;
    s.run_for(1_000)?;
    s.demand(!s.serves(0) && !s.serves(1), "it does not vote yet")?;
    s.release_disk(1);
    s.until_serve(&[0, 1])
}
