//! Whole states on their way from one node to another, and nodes whose own state is not sound.

use zabra::testing::ensemble_sim::{Script, ScriptClient as Client, Stage, Told};
use zabra::wire::quorum::PacketKind;

use crate::scenarios;
use crate::sync::{three, two};

scenarios! {
    a_leader_dies_between_a_state_and_newleader: [3642], StateNotInstalled, Stage::of(3);
    a_leader_dies_while_its_state_becomes_a_tree: [3642], StateNotInstalled, Stage::of(3);
    power_fails_while_a_state_becomes_a_tree: [2872], StateNotInstalled, Stage::of(3);
    power_fails_when_a_state_has_been_received: [2872], StateNotInstalled, Stage::of(3);
    writes_follow_a_state_that_is_being_installed: [3104, 1319, 1367], StateNotInstalled, Stage::of(3);
    a_leader_that_came_by_a_state_feeds_from_its_log: [1413, 2099], StateNotInstalled, Stage::of(3);
    a_node_without_anything_comes_when_the_log_was_purged: [4352], DiffBelowTheLog, Stage::of(3);
    a_state_comes_to_a_disk_without_room_for_a_segment: [], StateNotInstalled, Stage::of(3);
    the_tree_of_a_follower_differs: [3114, 5010], DivergenceIgnored, Stage::of(3);
    the_tree_of_a_follower_with_a_snapshot_differs: [3114], DivergenceIgnored, Stage::of(3);
    a_tree_that_was_made_anew_differs_again: [3114], DivergenceIgnored, Stage::of(3);
    a_tree_differs_while_a_leader_is_looked_for: [3114], DivergenceIgnored, Stage::of(3);
    the_trees_of_all_that_are_there_differ: [3114], DivergenceIgnored, Stage::of(3);
    the_tree_of_a_leader_differs: [3114], DivergenceIgnored, Stage::of(3);
    a_node_whose_tree_differs_is_alone_and_starts_again: [3114], DivergenceIgnored, Stage::of(3);
    a_node_whose_tree_differs_has_more_than_the_tree_of_its_leader: [], StateBelowTheLog, Stage::of(3);
}

/// n3 and n2 write so much that the beginning of their logs is purged.
fn purge(s: &mut Script<'_>, client: Client) -> Told {
    s.write_much(client, 40)?;
    s.until_level(&[1, 2])?;
    s.snapshot(2)?;
    s.snapshot(1)?;
    s.write_and_wait(client)?;
    s.until_level(&[1, 2])
}

/// n1 has received the state of n3, and waits for NEWLEADER.
fn receive_a_state(s: &mut Script<'_>) -> Told<Client> {
    let client = two(s, 1)?;
    purge(s, client)?;
    s.hold(2, 0, PacketKind::NewLeader);
    s.start(&[0])?;
    s.until_held(2, 0, PacketKind::NewLeader)?;
    s.demand(s.states_received() == 1, "a whole state has come")?;
    Ok(client)
}

/// n1 follows n2 from what it was sent, and starts from it.
fn go_on_without_n3(s: &mut Script<'_>) -> Told {
    let client = s.client(1)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1])?;
    s.cut_power(0);
    s.start(&[0])?;
    s.until_level(&[0, 1])
}

/// ZOOKEEPER-3642: what a learner has in memory behind a state must be on its disk when the next leader goes on from there.
fn a_leader_dies_between_a_state_and_newleader(s: &mut Script<'_>) -> Told {
    receive_a_state(s)?;
    s.kill(2);
    s.release(2, 0)?;
    s.until_serve(&[0, 1])?;
    go_on_without_n3(s)
}

/// n1 has the state of n3 in the place of its log, and no tree.
fn receive_without_tree(s: &mut Script<'_>) -> Told<Client> {
    let client = two(s, 1)?;
    purge(s, client)?;
    s.start(&[0])?;
    s.until("n1 without a tree", |s| s.is_without_tree(0))?;
    s.demand(s.states_received() == 0, "it is not loaded yet")?;
    Ok(client)
}

/// ZOOKEEPER-3642: the leader is gone when the old tree is gone and the new one not there yet.
fn a_leader_dies_while_its_state_becomes_a_tree(s: &mut Script<'_>) -> Told {
    receive_without_tree(s)?;
    s.kill(2);
    s.until_serve(&[0, 1])?;
    s.demand(s.states_received() == 1, "the tree was brought to its end, and nothing was fetched again")?;
    go_on_without_n3(s)
}

/// ZOOKEEPER-2872: so is the power.
fn power_fails_while_a_state_becomes_a_tree(s: &mut Script<'_>) -> Told {
    let client = receive_without_tree(s)?;
    s.cut_power(0);
    s.write_and_wait(client)?;
    s.start(&[0])?;
    s.until_level(&[0, 1, 2])?;
    s.demand(s.states_received() == 0, "it starts with the state, and goes on from there")?;
    s.cut_power(0);
    s.start(&[0])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-2872: a node that has received a state loses its power, and goes on.
fn power_fails_when_a_state_has_been_received(s: &mut Script<'_>) -> Told {
    let client = receive_a_state(s)?;
    s.cut_power(0);
    s.release(2, 0)?;
    s.write_and_wait(client)?;
    s.start(&[0])?;
    s.until_level(&[0, 1, 2])?;
    s.cut_power(0);
    s.start(&[0])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3104, -1319, -1367: writes are on their way behind a state, while power fails at one operation of its installation after the
/// other.
fn writes_follow_a_state_that_is_being_installed(s: &mut Script<'_>) -> Told {
    let client = two(s, 1)?;
    purge(s, client)?;
    for ops in (0..).step_by(7) {
        s.start(&[0])?;
        s.cut_power_behind(0, ops);
        s.write_and_wait(client)?;
        s.until("the end of n1 or of its installation", |s| !s.is_running(0) || s.serves(0))?;
        if s.is_running(0) {
            break;
        }
    }
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    s.never_cut_power(0);
    s.cut_power(0);
    s.start(&[0])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-1413, -2099: a node whose log begins behind a state becomes the leader of one that is behind it.
fn a_leader_that_came_by_a_state_feeds_from_its_log(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let client = s.client(2)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    s.kill(0);
    purge(s, client)?;
    // n2 stays where it is now; n1 comes by a state.
    s.kill(1);
    s.start(&[0])?;
    s.until("n1 in the place of n2", |s| s.leads(2) && s.serves(0))?;
    s.demand(s.states_received() == 1, "a whole state has come")?;
    s.connect(client, 2)?;
    s.until_live(client)?;
    for _ in 0..3 {
        s.write_and_wait(client)?;
    }
    s.until_level(&[0, 2])?;
    s.kill(2);
    s.start(&[1])?;
    s.until_serve(&[0, 1])?;
    s.demand(s.leads(0), "n1 has more, and leads")?;
    s.until_level(&[0, 1])?;
    s.cut_power(0);
    s.start(&[0])?;
    s.until_serve(&[0, 1])
}

/// ZOOKEEPER-4352: 0 is below the beginning of the log.
fn a_node_without_anything_comes_when_the_log_was_purged(s: &mut Script<'_>) -> Told {
    let client = two(s, 1)?;
    purge(s, client)?;
    s.start(&[0])?;
    s.until_level(&[0, 1, 2])?;
    s.demand(s.states_received() == 1, "a whole state has come")
}

/// It fits as a snapshot, and the segment that is to follow it does not: the node waits for space, and fetches it again.
fn a_state_comes_to_a_disk_without_room_for_a_segment(s: &mut Script<'_>) -> Told {
    s.start_led_by(2, &[0, 1])?;
    let client = s.client(2)?;
    // What is ready is used up, and no more can be made.
    s.fill_disk(0, 0);
    purge(s, client)?;
    s.fill_disk(0, 12 << 10);
    s.run_for(5_000)?;
    s.demand(s.is_running(0) && !s.serves(0), "it waits for space")?;
    s.empty_disk(0);
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3114, -5010: the tree of one node comes to differ; it serves nobody with it, and makes it anew from its disk.
fn the_tree_of_a_follower_differs(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.spoil_memory(0, 1);
    s.write_and_wait(client)?;
    s.until("it has stopped", |s| !s.serves(0))?;
    s.until("another tree", |s| s.trees_made_anew() == 1)?;
    s.until_serve(&[0, 1, 2])?;
    s.demand(s.states_received() == 0, "nobody had to help")?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3114: the same behind a snapshot, from which it goes on.
fn the_tree_of_a_follower_with_a_snapshot_differs(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.write_and_wait(client)?;
    s.until_level(&[0, 1, 2])?;
    s.snapshot(0)?;
    s.write_and_wait(client)?;
    s.spoil_memory(0, 1);
    s.write_and_wait(client)?;
    s.until("another tree", |s| s.trees_made_anew() == 1)?;
    s.until_serve(&[0, 1, 2])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3114: what it makes of its disk differs as well; it gets the leader's.
fn a_tree_that_was_made_anew_differs_again(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.spoil_memory(0, 2);
    s.write_and_wait(client)?;
    s.until("it has stopped", |s| !s.serves(0))?;
    s.until("a whole state", |s| s.states_received() == 1)?;
    s.until_serve(&[0, 1, 2])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3114: it is found out while a leader is looked for, of what the last one has committed.
fn a_tree_differs_while_a_leader_is_looked_for(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.spoil_memory(0, 1);
    s.hold_disk(0);
    s.write_and_wait(client)?;
    s.until_level(&[1, 2])?;
    s.run_for(20)?;
    s.kill(1);
    s.kill(2);
    s.run_for(20)?;
    s.release_disk(0);
    s.until("it has found out", |s| s.trees_that_differed() == 1)?;
    s.start(&[1, 2])?;
    s.until_serve(&[0, 1, 2])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3114: no quorum without those whose trees differ.
fn the_trees_of_all_that_are_there_differ(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.kill(1);
    s.spoil_memory(0, 1);
    s.spoil_memory(2, 1);
    s.write(client)?;
    s.until("both have found out", |s| s.trees_made_anew() == 2)?;
    s.until_serve(&[0, 2])?;
    s.start(&[1])?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3114: the same of the leader: another one leads.
fn the_tree_of_a_leader_differs(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.spoil_memory(2, 2);
    s.write(client)?;
    s.until("it has stopped", |s| !s.serves(2))?;
    s.until("a whole state", |s| s.states_received() == 1)?;
    s.until_serve(&[0, 1, 2])?;
    s.demand(!s.leads(2), "another one leads")?;
    s.until_level(&[0, 1, 2])
}

/// ZOOKEEPER-3114: a tree that differs is not there any more when the node starts again, and no snapshot of it.
fn a_node_whose_tree_differs_is_alone_and_starts_again(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.spoil_memory(0, 2);
    s.write_and_wait(client)?;
    s.until("it has stopped", |s| !s.serves(0))?;
    s.cut_off(0);
    s.want_snapshot(0);
    s.run_for(1_000)?;
    s.cut_power(0);
    s.start(&[0])?;
    s.mend_all();
    s.until_level(&[0, 1, 2])
}

/// The only other node that is there has everything in its log, and nothing in its tree: its state would take from the disk of the one that needs it
/// what the two have committed.
fn a_node_whose_tree_differs_has_more_than_the_tree_of_its_leader(s: &mut Script<'_>) -> Told {
    let client = three(s)?;
    s.spoil_memory(0, 2);
    s.hold(2, 0, PacketKind::Commit);
    s.write_and_wait(client)?;
    s.until_level(&[1, 2])?;
    s.kill(1);
    s.release(2, 0)?;
    s.until("it has stopped", |s| !s.serves(0))?;
    s.kill(2);
    s.until("what it makes of its disk differs as well", |s| s.trees_that_differed() == 2)?;
    s.start(&[1])?;
    s.mislead(1, 1)?;
    s.mislead(0, 1)?;
    s.run_for(1_000)?;
    s.demand(s.states_received() == 0 && s.last(0) == s.last(1), "it keeps what it has")?;
    s.start(&[2])?;
    s.until("a whole state", |s| s.states_received() == 1)?;
    s.until_serve(&[0, 1, 2])?;
    s.until_level(&[0, 1, 2])
}
