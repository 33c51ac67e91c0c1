//! Unmodified clients with an ensemble of which the node they are connected with, or the leader, is killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::{Cluster, LIMIT};
use crate::common::programs::{assert_passed, drive};
use crate::common::tools::{Java, kazoo};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ensemble")
}

/// Runs a client program, which asks for nodes to be killed and started.
fn drive_with(cluster: &mut Cluster, mut command: Command) -> String {
    command.arg(cluster.hosts());
    drive(command, |line| {
        let request = line.strip_prefix("ensemble ")?;
        if let Some(port) = request.strip_prefix("kill ") {
            let port: u16 = port.parse().expect("a port");
            let id =
                cluster.all().find(|id| cluster.node(*id).address().port() == port).expect("one of them");
            cluster.kill(id);
        } else if request == "heal" {
            let down: Vec<usize> = cluster.all().filter(|id| !cluster.node(*id).runs()).collect();
            down.into_iter().for_each(|id| cluster.start(id));
            cluster.wait_all_serve();
        } else {
            assert_eq!(request, "leader");
            let leader = cluster.wait_leader(LIMIT);
            return Some(cluster.node(leader).address().port().to_string());
        }
        Some("done".into())
    })
}

#[test]
fn kazoo_lives_through_the_death_of_nodes() {
    let Some(python) = kazoo() else { return };
    let mut cluster = Cluster::new(3, 0).started();
    let mut command = Command::new(python);
    command.arg(sources().join("failover.py"));
    assert_passed(&drive_with(&mut cluster, command), 5);
}

#[test]
fn java_clients_live_through_the_death_of_nodes() {
    let Some(java) = Java::find() else { return };
    let mut cluster = Cluster::new(3, 0).started();
    let mut command = java.command();
    command.arg(sources().join("Failover.java"));
    assert_passed(&drive_with(&mut cluster, command), 4);
}
