//! A quorum that has lost its data: the member that has it does not give it up, and an administrator decides.

use std::os::unix::fs::FileExt;
use std::process::{Command, Output};

use crate::cluster::{Cluster, LIMIT, wait_until};
use crate::common::calls::err;
use crate::load::assert_all_have;

fn recover(cluster: &Cluster, id: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zabra"));
    command.arg("recover").arg(cluster.node(id).config_path()).args(arguments);
    command.output().expect("it can be started")
}

/// The last zxid in the log of `id`, as the table shows it.
fn last_zxid(cluster: &Cluster, id: usize) -> String {
    let shown = recover(cluster, id, &[]);
    let text = String::from_utf8(shown.stdout).expect("text");
    let line = text.lines().find(|line| line.contains("(this)")).unwrap_or_else(|| panic!("{text}"));
    line.split_whitespace().find(|word| word.starts_with("0x")).expect("a zxid").to_owned()
}

#[test]
fn a_member_whose_quorum_lost_its_data_keeps_its_own_until_it_is_decided_whose_stays() {
    let mut cluster = Cluster::new(3, 0).started();
    let acknowledged: Vec<String> = (0..20).map(|n| format!("/kept{n}")).collect();
    let mut conn = cluster.node(3).connect();
    for path in &acknowledged {
        assert_eq!(conn.create(path, path.as_bytes(), 0), Ok(err::OK));
    }
    drop(conn);
    cluster.all().for_each(|id| assert_eq!(cluster.stop(id), Some(0)));
    [1, 2].iter().for_each(|id| cluster.wipe(*id));
    [1, 2].iter().for_each(|id| cluster.start(*id));
    cluster.wait_serving(&[1, 2]);
    // In an epoch above those that the third one has been in: its zxids are not the greatest.
    [1, 2].iter().for_each(|id| assert_eq!(cluster.stop(*id), Some(0)));
    [1, 2].iter().for_each(|id| cluster.start(*id));
    cluster.wait_serving(&[1, 2]);
    assert_eq!(cluster.node(1).connect().create("/wrong", b"", 0), Ok(err::OK));

    cluster.start(3);
    wait_until("it refuses to lose what was acknowledged", LIMIT, || {
        (cluster.node(3).logged(&["would be lost"]) > 0).then_some(())
    });
    cluster.all().for_each(|id| cluster.kill(id));

    let kept = last_zxid(&cluster, 3);
    let unsure = recover(&cluster, 3, &["--keep", "--confirm", "0x1"]);
    assert!(
        !unsure.status.success() && String::from_utf8_lossy(&unsure.stderr).contains(&kept),
        "{unsure:?}"
    );
    assert_eq!(last_zxid(&cluster, 3), kept, "nothing was changed");
    let decided = recover(&cluster, 3, &["--keep", "--confirm", &kept]);
    assert!(decided.status.success(), "{decided:?}");
    for id in [1, 2] {
        let decided =
            recover(&cluster, id, &["--discard", "--let-vote", "--confirm", &last_zxid(&cluster, id)]);
        assert!(decided.status.success(), "{decided:?}");
        let audit = std::fs::read_to_string(cluster.node(id).data_dir().join("zabra.recover.log")).unwrap();
        assert!(audit.contains("discard") && audit.contains("(this)"), "{audit}");
    }
    cluster.all().for_each(|id| cluster.start(id));
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
    let mut conn = cluster.node(1).connect();
    assert_eq!(conn.create("/wrong", b"", 0), Ok(err::OK), "what was decided against is not there");
}

#[test]
fn what_is_kept_is_not_lost_to_others_that_were_in_later_epochs() {
    let mut cluster = Cluster::new(3, 0).started();
    let mut acknowledged = Vec::new();
    write(&cluster, 3, 0..5, &mut acknowledged);
    cluster.wait_all_serve();
    assert_eq!(cluster.stop(3), Some(0));
    for _ in 0..3 {
        [1, 2].iter().for_each(|id| assert_eq!(cluster.stop(*id), Some(0)));
        [1, 2].iter().for_each(|id| cluster.start(*id));
        cluster.wait_serving(&[1, 2]);
    }
    assert_eq!(cluster.node(1).connect().create("/decided-against", b"", 0), Ok(err::OK));
    [1, 2].iter().for_each(|id| assert_eq!(cluster.stop(*id), Some(0)));
    // As the manual says, with the servers stopped: nobody answers.
    let kept = last_zxid(&cluster, 3);
    assert!(recover(&cluster, 3, &["--keep", "--confirm", &kept]).status.success());
    cluster.all().for_each(|id| cluster.start(id));
    wait_until("the others refuse to lose what they have", LIMIT, || {
        [1, 2].iter().any(|id| cluster.node(*id).logged(&["would be lost"]) > 0).then_some(())
    });
    assert_eq!(last_zxid(&cluster, 3), kept, "and this one has not followed them");
}

/// Two of three have lost their directories and begun anew, in the same epoch: no zxid tells the two histories apart, the trees do.
#[test]
fn a_member_whose_tree_comes_to_differ_is_healed_at_once() {
    let mut cluster = Cluster::new(3, 0).started();
    write(&cluster, 1, 0..20, &mut Vec::new());
    cluster.wait_all_serve();
    cluster.all().for_each(|id| assert_eq!(cluster.stop(id), Some(0)));
    [2, 3].iter().for_each(|id| cluster.wipe(*id));
    [2, 3].iter().for_each(|id| cluster.start(*id));
    cluster.wait_serving(&[2, 3]);
    let mut acknowledged = Vec::new();
    write(&cluster, 2, 100..200, &mut acknowledged);
    cluster.start(1);
    cluster.wait_all_serve();
    assert!(cluster.node(1).logged(&["tree differs"]) > 0);
    assert_all_have(&cluster, &acknowledged);
    let kept = std::fs::read_dir(cluster.node(1).data_dir().join("zabra")).unwrap();
    let kept = kept.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("diverged."));
    assert!(kept.count() > 0, "what it had is kept");
}

/// Bits flip in the middle of the log of a node that is down.
fn damage_log(cluster: &Cluster, id: usize) {
    let dir = cluster.node(id).data_dir().join("zabra/log");
    let mut segments: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|number| number.len() == 16));
    segments.sort();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&segments[0]).unwrap();
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, 4096 + 512).unwrap();
    assert_ne!(bytes, [0; 16], "inside what was written");
    file.write_all_at(&bytes.map(|byte| !byte), 4096 + 512).unwrap();
}

fn history(cluster: &Cluster, id: usize) -> Option<String> {
    let memb = cluster.node(id).word("memb")?;
    memb.lines().find_map(|line| line.strip_prefix("history\t")).map(str::to_owned)
}

fn write(cluster: &Cluster, id: usize, names: std::ops::Range<usize>, acknowledged: &mut Vec<String>) {
    let mut conn = cluster.node(id).connect();
    for n in names {
        let path = format!("/kept{n}");
        assert_eq!(conn.create(&path, path.as_bytes(), 0), Ok(err::OK));
        acknowledged.push(path);
    }
}

#[test]
fn a_member_whose_log_is_damaged_repairs_itself_from_its_peers() {
    let mut cluster = Cluster::new(3, 0).started();
    let mut acknowledged = Vec::new();
    let follower = cluster.follower();
    write(&cluster, follower, 0..50, &mut acknowledged);
    assert_eq!(cluster.stop(follower), Some(0));
    damage_log(&cluster, follower);
    cluster.start(follower);
    cluster.wait_all_serve();
    assert!(cluster.node(follower).logged(&["is damaged", "RECORD-DAMAGED"]) > 0, "it says what and where");
    wait_until("its history is whole", LIMIT, || (history(&cluster, follower)? == "whole").then_some(()));
    let kept = std::fs::read_dir(cluster.node(follower).data_dir().join("zabra/log")).unwrap();
    let kept =
        kept.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("damaged."));
    assert!(kept.count() > 0, "what was damaged is kept");
    assert_all_have(&cluster, &acknowledged);
    // What it has got back is its own: with it and one more there is a quorum that has everything.
    let other = cluster.others(follower)[0];
    cluster.kill(other);
    write(&cluster, follower, 50..60, &mut acknowledged);
    cluster.start(other);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn a_server_that_lost_its_directory_does_not_vote_away_what_it_had_acknowledged() {
    let mut cluster = Cluster::new(3, 0).started();
    let mut acknowledged = Vec::new();
    cluster.kill(3);
    write(&cluster, 1, 0..20, &mut acknowledged);
    [1, 2].iter().for_each(|id| assert_eq!(cluster.stop(*id), Some(0)));
    // Servers 1 and 2 had it; 3 never did. Without 2 nobody knows.
    cluster.wipe(1);
    [1, 3].iter().for_each(|id| cluster.start(*id));
    wait_until("it says why there is no quorum", LIMIT, || {
        let parts = ["waiting for a quorum of servers that have forgotten nothing", "missing=\"2\""];
        (cluster.node(3).logged(&parts) > 0).then_some(())
    });
    assert!(cluster.leader().is_none(), "server 3 with server 1's vote would have lost it all");
    assert_eq!(history(&cluster, 1).as_deref(), Some("new"));
    cluster.start(2);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
    wait_until("it counts again", LIMIT, || (history(&cluster, 1)? == "whole").then_some(()));
}

#[test]
fn an_administrator_lets_a_new_directory_vote_when_the_others_are_gone_for_good() {
    let mut cluster = Cluster::new(3, 0).started();
    let mut acknowledged = Vec::new();
    write(&cluster, 3, 0..20, &mut acknowledged);
    cluster.all().for_each(|id| assert_eq!(cluster.stop(id), Some(0)));
    [1, 2].iter().for_each(|id| cluster.wipe(*id));
    // Server 2's machine is gone; 1 is a new one.
    cluster.start(1);
    wait_until("it is there", LIMIT, || (history(&cluster, 1)? == "new").then_some(()));
    assert_eq!(cluster.stop(1), Some(0));
    let shown = recover(&cluster, 1, &[]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("on disk      new "), "{shown:?}");
    let decided = recover(&cluster, 1, &["--discard", "--let-vote", "--confirm", "0x0"]);
    assert!(decided.status.success(), "{decided:?}");
    [1, 3].iter().for_each(|id| cluster.start(*id));
    cluster.wait_serving(&[1, 3]);
    write(&cluster, 1, 20..25, &mut acknowledged);
    cluster.start(2);
    cluster.wait_all_serve();
    assert_all_have(&cluster, &acknowledged);
}

#[test]
fn nothing_is_decided_beside_a_running_server() {
    let cluster = Cluster::new(3, 0).started();
    let zxid = last_zxid(&cluster, 1);
    for what in ["--keep", "--discard"] {
        let refused = recover(&cluster, 1, &[what, "--confirm", &zxid]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("stop this member's server first"), "{refused:?}");
    }
    let memb = cluster.node(2).word("memb").expect("an answer");
    assert!(memb.contains("epoch_current\t1\n") && memb.contains("zxid_logged\t0x"), "{memb}");
}
