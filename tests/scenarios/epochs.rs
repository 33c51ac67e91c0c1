//! Epochs, what is promised, and what elections that went wrong must not do.

use zabra::testing::ensemble_sim::{Script, Stage, Told};
use zabra::wire::quorum::PacketKind;

use crate::scenarios;

scenarios! {
    two_short_leaders_follow_each_other: [335, 1081, 1082, 2307], PromiseNotStored, Stage::of(3);
    all_start_from_snapshots_with_logs_that_were_purged: [582], PromiseNotStored, Stage::of(3);
    power_fails_at_any_operation_while_epochs_are_stored: [1653, 2354, 4269], PromiseNotStored, Stage::of(3);
    a_follower_is_misled_to_a_leader_that_was_replaced: [1192, 1343, 1387], StaleEpochFollowed, PATIENT;
    the_election_chooses_a_node_that_is_behind: [1154], AheadIgnored, Stage::of(3);
    a_server_without_its_disk_meets_one_that_lagged: [], ForgetfulPromise, Stage::of(3);
    a_promise_that_does_not_count_is_no_beginning: [], ForgetfulPromise, Stage::of(3);
    zxids_run_out_under_writes: [1277], ZxidsRunOut, FEW_ZXIDS;
    zxids_run_out_under_syncs: [], ZxidsRunOut, FEW_ZXIDS;
}

/// `initLimit` is 20 s.
const PATIENT: Stage = Stage { tick_ms: 2_000, ..Stage::of(3) };

const FEW_ZXIDS: Stage = Stage { counter_max: 10, ..Stage::of(3) };

/// ZOOKEEPER-335, -1081, -1082, -2307: a leader has promised its epoch and told it to one; power fails; two others elect. The epoch is not used again.
fn two_short_leaders_follow_each_other(s: &mut Script<'_>) -> Told {
    s.hold(2, 1, PacketKind::LeaderInfo);
    s.hold(2, 0, PacketKind::NewLeader);
    s.start(&[0, 1, 2])?;
    for node in [2, 0, 1] {
        s.mislead(node, 2)?;
    }
    s.until_held(2, 0, PacketKind::NewLeader)?;
    let first = s.epochs(2).1;
    s.cut_power(2);
    s.cut_power(0);
    s.release(2, 0)?;
    s.release(2, 1)?;
    s.start(&[0])?;
    s.until_serve(&[0, 1])?;
    s.demand(s.epochs(0).1 > first, "an epoch is not used twice")
}

/// ZOOKEEPER-582: nothing but snapshots and superblocks says what epochs there have been.
fn all_start_from_snapshots_with_logs_that_were_purged(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let client = s.client(2)?;
    s.write_much(client, 30)?;
    s.until_level(&[0, 1, 2])?;
    (0..3).try_for_each(|node| s.snapshot(node))?;
    let first = s.epochs(2).1;
    (0..3).for_each(|node| s.cut_power(node));
    s.start(&[0, 1, 2])?;
    s.until_serve(&[0, 1, 2])?;
    s.demand(s.epochs(0).1 > first, "an epoch is not used twice")
}

/// ZOOKEEPER-1653, -2354, -4269: power fails at each operation of the disk between the first promise and the first entry, and every start succeeds.
fn power_fails_at_any_operation_while_epochs_are_stored(s: &mut Script<'_>) -> Told {
    s.start(&[0, 1])?;
    s.until_serve(&[0, 1])?;
    let mut promised = s.epochs(0);
    for ops in 0.. {
        s.kill(1);
        s.until_looks(0)?;
        s.cut_power_behind(0, ops);
        s.start(&[1])?;
        s.until("the end of n1 or of its synchronisation", |s| !s.is_running(0) || s.serves(0))?;
        if s.is_running(0) {
            break;
        }
        s.start(&[0])?;
        s.demand(s.epochs(0) >= promised, "no promise is forgotten")?;
        s.until_serve(&[0, 1])?;
        promised = s.epochs(0);
    }
    s.never_cut_power(0);
    Ok(())
}

/// ZOOKEEPER-1192, -1343, -1387: a leader does not know that it was replaced, and a follower of its successor is sent to it.
fn a_follower_is_misled_to_a_leader_that_was_replaced(s: &mut Script<'_>) -> Told {
    s.start_led_by(0, &[1])?;
    let old = s.epochs(0).1;
    s.cut(0, 1);
    s.cut(0, 2);
    s.reset(0, 1);
    s.start(&[2])?;
    s.until_serve(&[1, 2])?;
    s.demand(s.leads(1), "who has entered an epoch leads")?;
    let client = s.client(1)?;
    s.write_and_wait(client)?;
    s.until_level(&[1, 2])?;
    s.demand(s.epochs(2).0 > old && s.leads(0), "the old leader does not know yet")?;
    s.reset(1, 2);
    s.cut(1, 2);
    s.until_looks(2)?;
    s.mend(0, 2);
    s.mislead(2, 0)?;
    s.until("the old leader gives up", |s| !s.leads(0))
}

/// ZOOKEEPER-1154: a leader that was chosen on old news learns from those who promise that it lacks something.
fn the_election_chooses_a_node_that_is_behind(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[1])?;
    let client = s.client(2)?;
    for _ in 0..3 {
        s.write_and_wait(client)?;
    }
    s.until_level(&[1, 2])?;
    s.kill(2);
    s.until_looks(1)?;
    s.start(&[0])?;
    s.mislead(0, 0)?;
    s.mislead(1, 0)?;
    s.until_serve(&[0, 1])?;
    s.demand(s.leads(1), "who has more leads in the end")
}

/// What one and two have acknowledged three never had. Two is away, and the disk of one is gone: three must not lead on the strength of its word.
fn a_server_without_its_disk_meets_one_that_lagged(s: &mut Script<'_>) -> Told {
    s.start_led_by(0, &[1, 2])?;
    let client = s.client(0)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    s.kill(2);
    (0..3).try_for_each(|_| s.write_and_wait(client))?;
    s.until_level(&[0, 1])?;
    s.kill(1);
    s.kill(0);
    s.lose_disk(0);
    s.start(&[0, 2])?;
    s.run_for(10_000)?;
    s.demand(s.looks(0) && s.looks(2), "nobody leads without what was acknowledged")?;
    s.start(&[1])?;
    s.until_serve(&[0, 1, 2])
}

/// Three was there at the first election and left before anything was written. Two lost its disk, and promises (with no effect) a leader that dies before
/// it has given anything to anybody: the two that are left know of epochs alone.
fn a_promise_that_does_not_count_is_no_beginning(s: &mut Script<'_>) -> Told {
    s.start_led_by(0, &[1, 2])?;
    s.kill(2);
    let client = s.client(0)?;
    (0..3).try_for_each(|_| s.write_and_wait(client))?;
    s.until_level(&[0, 1])?;
    s.kill(1);
    s.lose_disk(1);
    s.until_looks(0)?;
    let told = s.epochs(0).0;
    s.hold(0, 1, PacketKind::Diff);
    s.hold(0, 2, PacketKind::Diff);
    s.start(&[1, 2])?;
    s.until("two has promised", |s| s.epochs(1).0 > told)?;
    s.cut_power(0);
    s.release(0, 1)?;
    s.release(0, 2)?;
    s.run_for(10_000)?;
    s.demand(s.leader().is_none(), "nobody leads without what was acknowledged")?;
    s.start(&[0])?;
    s.until_serve(&[0, 1, 2])
}

/// ZOOKEEPER-1277: more is written than an epoch has zxids; nobody notices.
fn zxids_run_out_under_writes(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let (client, other) = (s.client(2)?, s.client(0)?);
    for _ in 0..20 {
        s.write_and_wait(client)?;
        s.write_and_wait(other)?;
    }
    s.demand(s.rollovers() >= 3 && s.stops() == 0, "one epoch follows the other, and nobody stops serving")
}

/// Somebody waits for a sync at every moment: the next epoch begins all the same.
fn zxids_run_out_under_syncs(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let writer = s.client(2)?;
    let syncers: Vec<_> = (0..16).map(|n| s.client(n % 3)).collect::<Result<_, _>>()?;
    for _ in 0..600 {
        if s.unanswered(writer) == 0 {
            s.write(writer)?;
        }
        for syncer in &syncers {
            if s.unanswered(*syncer) == 0 {
                s.sync(*syncer)?;
            }
        }
        s.run_for(1)?;
    }
    s.demand(s.rollovers() >= 3 && s.stops() == 0, "one epoch follows the other while clients sync")?;
    syncers.iter().try_for_each(|syncer| s.until_answered(*syncer))
}
