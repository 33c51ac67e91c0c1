//! Elections, connections, who leads for how long, and the order in which clients are answered.

use zabra::testing::ensemble_sim::{Script, Stage, Told};
use zabra::wire::quorum::PacketKind;

use crate::scenarios;

scenarios! {
    a_voter_that_hears_nobody_changes_its_mind: [3109], DeposedByNotice, Stage::of(3);
    a_leader_that_accepts_nobody: [4203], LeaderStays, Stage::of(3);
    a_leader_that_reaches_nobody: [4203, 3109], LeaderStays, Stage::of(3);
    a_leader_that_hears_nobody_steps_down: [], SilenceCountsTwice, HASTY;
    a_leader_that_hears_nobody_is_heard: [], DeafLeaderStands, HASTY;
    a_leader_of_five_hears_one: [], LeaderStays, Stage { voters: 5, ..HASTY };
    voters_settle_elsewhere_while_their_leader_waits: [3109], VainLeaderWaits, PATIENT;
    a_follower_dies_before_its_leader_is_established: [], VainLeaderWaits, PATIENT;
    a_leader_falls_silent_and_its_connections_stand: [4074], SilentLeaderFollowed, Stage::of(3);
    a_state_takes_longer_than_init_limit: [1465, 1697, 2678], LongSyncTakenForDeath, HASTY;
    a_sync_at_a_leader_that_was_replaced: [], SyncUnconfirmed, Stage::of(3);
    a_write_behind_a_sync: [1863, 2775, 4537], SyncOvertaken, Stage::of(3);
    a_request_is_held_up_while_its_client_moves: [1863, 4537], OwnerForgotten, Stage::of(3);
}

/// `initLimit` is 1 s.
const HASTY: Stage = Stage { tick_ms: 100, ..Stage::of(3) };

/// `initLimit` is 20 s.
const PATIENT: Stage = Stage { tick_ms: 2_000, ..Stage::of(3) };

/// On the [`HASTY`] stage, where silence of 500 ms counts, which is looked for every 100 ms.
const STEP_DOWN_MS: u64 = 650;

/// ZOOKEEPER-3109: one that hears nobody begins to look, and says so; nobody minds.
fn a_voter_that_hears_nobody_changes_its_mind(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let epoch = s.epochs(2);
    s.cut_one_way(1, 0);
    s.cut_one_way(2, 0);
    s.until_looks(0)?;
    s.run_for(6_000)?;
    s.demand(s.leads(2) && s.serves(1) && s.epochs(2) == epoch, "the leader stays")?;
    s.mend_all();
    s.until_serve(&[0, 1, 2])?;
    s.demand(s.epochs(2) == epoch, "the leader stays when the third comes back")
}

/// ZOOKEEPER-4203: a leader is elected whose quorum port takes nobody.
fn a_leader_that_accepts_nobody(s: &mut Script<'_>) -> Told {
    s.deafen(2);
    s.start(&[0, 1, 2])?;
    for node in [2, 0, 1] {
        s.mislead(node, 2)?;
    }
    s.must("two that serve without it", 20_000, |s| s.serves(0) && s.serves(1))?;
    s.must("the end of its leadership", 20_000, |s| !s.is_elected(2))
}

/// ZOOKEEPER-4203, -3109: a leader is cut off from everybody.
fn a_leader_that_reaches_nobody(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    s.cut_off(2);
    s.must("the end of its leadership", 6_000, |s| !s.is_elected(2))?;
    s.must("two that serve without it", 6_000, |s| s.leads(0) || s.leads(1))
}

/// Nothing that anybody says to a leader arrives: each of its followers is silent, and so is the quorum that they were.
fn a_leader_that_hears_nobody_steps_down(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    s.cut_off(2);
    s.must("the end of its leadership", STEP_DOWN_MS, |s| !s.leads(2))
}

/// It has the greatest number and as much as the others, and they hear it: they would elect it, and could not reach it.
fn a_leader_that_hears_nobody_is_heard(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let client = s.client(2)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    let cut = s.now();
    s.cut_one_way(0, 2);
    s.cut_one_way(1, 2);
    s.must("the end of its leadership", STEP_DOWN_MS, |s| !s.leads(2))?;
    s.must("another leader", 300, |s| s.leads(0) || s.leads(1))?;
    s.say(&format!("another leader after {} ms", s.now() - cut));
    s.mend_all();
    s.until_serve(&[0, 1, 2])?;
    // Nobody is there, then somebody is: it keeps quiet no longer.
    let old = usize::from(s.leads(1));
    s.kill(1 - old);
    s.kill(2);
    s.must("the end of its leadership", STEP_DOWN_MS, |s| !s.leads(old))?;
    s.start(&[2])?;
    s.must("two that serve", 300, |s| s.serves(old) && s.serves(2))
}

/// The one would pass on to the others how it votes, and they would wait for a leader that they cannot reach.
fn a_leader_of_five_hears_one(s: &mut Script<'_>) -> Told {
    s.start_led_by(4, &[0, 1, 2, 3])?;
    let client = s.client(4)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2, 3, 4])?;
    (1..4).for_each(|other| s.cut(4, other));
    s.must("the end of its leadership", STEP_DOWN_MS, |s| !s.leads(4))?;
    s.must("another leader", 400, |s| s.leader().is_some())?;
    s.must("four that serve", 700, |s| (0..4).all(|node| s.serves(node)))
}

/// ZOOKEEPER-3109: the votes that made a leader were taken back when it counted them.
fn voters_settle_elsewhere_while_their_leader_waits(s: &mut Script<'_>) -> Told {
    s.start(&[0, 1, 2])?;
    s.mislead(0, 0)?;
    let elected = s.now();
    s.demand(s.is_elected(0), "it takes itself for the leader")?;
    s.must("two that serve without it", 2_000, |s| s.serves(1) && s.serves(2))?;
    s.must("three that serve", 2_000, |s| s.serves(0) && s.serves(1) && s.serves(2))?;
    s.say(&format!("all serve after {} ms", s.now() - elected));
    s.demand(!s.leads(0), "nobody else had to look again")
}

/// Of two that are up one dies while it is brought up to date, and then the third comes: it will not find a quorum for a leader that waits.
fn a_follower_dies_before_its_leader_is_established(s: &mut Script<'_>) -> Told {
    s.hold(0, 1, PacketKind::AckEpoch);
    s.start(&[0, 1])?;
    s.until_held(0, 1, PacketKind::AckEpoch)?;
    s.kill(0);
    s.release(0, 1)?;
    s.start(&[2])?;
    s.must("the two that are left, before initLimit", 15_000, |s| s.serves(1) && s.serves(2))
}

/// ZOOKEEPER-4074: nobody closes the connections of a leader that is gone.
fn a_leader_falls_silent_and_its_connections_stand(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    s.cut_off(2);
    s.must("another leader", 6_000, |s| s.leads(0) || s.leads(1))
}

/// ZOOKEEPER-1465, -1697, -2678: the state that a learner lacks takes longer than `initLimit` and `syncLimit`, and keeps coming.
fn a_state_takes_longer_than_init_limit(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[1])?;
    let client = s.client(2)?;
    s.write_much(client, 250)?;
    s.until_level(&[1, 2])?;
    s.snapshot(2)?;
    s.write_and_wait(client)?;
    s.slow_down(2, 0, 100);
    let begun = s.now();
    s.start(&[0])?;
    s.must("it in step", 15_000, |s| s.serves(0))?;
    s.demand(s.states_received() == 1 && s.now() - begun > 1_500, "it took longer than both limits")?;
    s.speed_up();
    Ok(())
}

/// A leader does not know that it was replaced; a client asks it to catch up, and reads.
fn a_sync_at_a_leader_that_was_replaced(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let client = s.client(2)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    s.cut_off(2);
    s.kill(0);
    s.kill(1);
    s.start(&[0, 1])?;
    s.until_serve(&[0, 1])?;
    let other = s.client(1)?;
    s.write_and_wait(other)?;
    s.demand(s.leads(2), "the old leader does not know yet")?;
    s.sync(client)?;
    s.read_of(client, other)?;
    s.until("the old leader gives up", |s| !s.leads(2))
}

/// ZOOKEEPER-1863, -2775, -4537: a write comes behind a sync that takes its time.
fn a_write_behind_a_sync(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let (client, other) = (s.client(2)?, s.client(2)?);
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    s.hold(0, 2, PacketKind::Ping);
    s.hold(1, 2, PacketKind::Ping);
    s.sync(other)?;
    s.until_held(1, 2, PacketKind::Ping)?;
    s.run_for(20)?;
    s.sync(client)?;
    s.write(client)?;
    s.run_for(20)?;
    s.slow_down(2, 1, 50);
    s.release(1, 2)?;
    s.until_answered(client)
}

/// ZOOKEEPER-1863, -4537: a client leaves a request behind that is on its way, goes on elsewhere and leaves; then it arrives.
fn a_request_is_held_up_while_its_client_moves(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let client = s.client(0)?;
    s.write_and_wait(client)?;
    // A server behind what its client has seen would not take it.
    s.until_level(&[0, 1, 2])?;
    s.hold(0, 2, PacketKind::Request);
    s.write(client)?;
    s.until_held(0, 2, PacketKind::Request)?;
    s.connect(client, 2)?;
    s.until_live(client)?;
    s.write_and_wait(client)?;
    s.disconnect(client);
    s.run_for(50)?;
    s.release(0, 2)?;
    s.run_for(200)
}
