//! A quorum that has lost its data: the member that has it does not give it up, and an administrator decides.

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
        let decided = recover(&cluster, id, &["--discard", "--confirm", &last_zxid(&cluster, id)]);
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
