//! The table and the directory, without processes.

use std::fs;

use super::ask::{Report, Role};
use super::node::NodeState;
use super::place::Place;
use super::show::{Row, lines};
use super::*;
use crate::base::{Epoch, Zxid};

fn report(role: Role, epoch: u32, counter: u32) -> Report {
    let zxid = Zxid::new(Epoch(epoch), counter);
    Report { role, epoch, zxid, flush_p99_us: 85, clients: 1 }
}

#[test]
fn the_table_shows_who_is_where_and_how_far_behind() {
    let leads = report(Role::Leader, 2, 7);
    let row = |id, state, report| Row { id, process_id: Some(10 + id as u32), state, report };
    let rows = [
        row(1, NodeState::Leader, Some(leads)),
        row(2, NodeState::Follower, Some(report(Role::Follower, 2, 4))),
        Row { process_id: None, ..row(3, NodeState::Killed, Some(report(Role::Leader, 1, 99))) },
        row(4, NodeState::Starting, None),
    ];
    let want = "node      pid  state     epoch          zxid      lag   flush p99  clients
   1       11  leader        2   0x200000007        0       85 µs        1
   2       12  follower      2   0x200000004        3       85 µs        1
   3        -  killed        1   0x100000063       7+           -        -
   4       14  starting      -             -        -           -        -";
    assert_eq!(lines(&rows, Some(leads)).join("\n"), want);
    assert!(lines(&rows, None)[2].contains("0x200000004        -"), "without a leader nobody is behind");
}

fn args(dir: Option<&std::path::Path>, nodes: Option<usize>, observers: Option<usize>) -> DemoArgs {
    DemoArgs { nodes, observers, dir: dir.map(Into::into), load: false }
}

#[test]
fn a_directory_is_taken_up_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
    drop(Place::prepare(&args(Some(dir.path()), Some(3), Some(1))).unwrap());
    let (config, id) = (read("4/zoo.cfg"), read("4/data/myid"));
    assert_eq!(id, "4\n");
    assert_eq!(config.lines().filter(|line| line.starts_with("server.")).count(), 4);
    assert!(
        config.lines().any(|line| line.starts_with("server.4=") && line.contains(":observer;")),
        "{config}"
    );
    drop(Place::prepare(&args(Some(dir.path()), None, None)).unwrap());
    assert_eq!(read("4/zoo.cfg"), config, "the same ports");
    let other = Place::prepare(&args(Some(dir.path()), Some(5), None)).unwrap_err();
    assert!(other.is::<crate::tools::Usage>());
    assert!(other.to_string().contains("holds an ensemble of 3 nodes and 1 observers"), "{other}");
}

#[test]
fn no_node_of_a_directory_is_left_out_with_its_roster_gone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Place::prepare(&args(Some(dir.path()), Some(5), None)).unwrap());
    fs::remove_file(dir.path().join("demo.json")).unwrap();
    let said = Place::prepare(&args(Some(dir.path()), None, None)).unwrap_err();
    assert!(said.is::<crate::tools::Usage>() && said.to_string().contains("the data of 5 nodes"), "{said}");
    assert!(Place::prepare(&args(Some(dir.path()), Some(5), None)).is_ok());
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::prepare(&args(Some(dir.path()), None, None)).unwrap();
    let _taken = std::net::TcpListener::bind(place.nodes().unwrap()[1].client_address()).unwrap();
    let said = format!("{:#}", Place::prepare(&args(Some(dir.path()), None, None)).unwrap_err());
    assert!(said.contains("of node 2 cannot be had") && said.contains("delete"), "{said}");
}

#[test]
fn a_temporary_directory_goes_with_its_place() {
    let place = Place::prepare(&args(None, None, None)).unwrap();
    let path = place.directory().to_owned();
    assert!(place.is_temporary() && path.join("3/zoo.cfg").exists());
    drop(place);
    assert!(!path.exists());
}

#[test]
fn impossible_numbers_are_refused_with_what_is_possible() {
    for (nodes, observers, said) in
        [(1, 0, "2 nodes or more"), (9, 1, "at most 9"), (usize::MAX, 9, "at most 9")]
    {
        let error = Place::prepare(&args(None, Some(nodes), Some(observers))).unwrap_err();
        assert!(error.is::<crate::tools::Usage>() && error.to_string().contains(said), "{error}");
    }
}

#[test]
fn all_nodes_are_asked_at_the_same_moments() {
    let ms = Duration::from_millis;
    for (elapsed, wait) in [(0, 200), (1, 199), (200, 200), (399, 1), (730, 70)] {
        assert_eq!(until_next(ms(elapsed), ms(200)), ms(wait), "{elapsed}");
    }
}
