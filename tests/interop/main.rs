//! Unmodified clients against the server under test: the Python client kazoo, the official Java client and its
//! command line, Curator's recipes, and every four-letter word field by field.
//!
//! `ZABRA_TEST_SERVER=zookeeper` runs the same programs against a real ZooKeeper, to test the tests.

#[expect(dead_code, reason = "shared with other test programs, each of which uses a part")]
#[path = "../common/mod.rs"]
mod common;
mod words;

use std::process::Command;
use std::time::Duration;

use common::programs::assert_passed;
use common::server::{Kind, Options, Server, run_bounded};
use common::tools::{Java, kazoo, sources};

/// Runs a client program to its end. A line `restart stop` or `restart kill` of its output restarts the server,
/// which is answered with `done`. Returns the rest of its output.
fn drive(command: Command, server: &mut Server) -> String {
    common::programs::drive(command, |line| {
        let how = line.strip_prefix("restart ")?;
        if how == "kill" {
            server.kill()
        } else {
            server.stop()
        }
        server.start_again();
        Some("done".into())
    })
}

#[test]
fn kazoo_finds_everything_it_expects() {
    let (Some(python), Some(kind)) = (kazoo(), Kind::under_test()) else { return };
    let mut server = Server::start(&kind, &Options::everything());
    let mut command = Command::new(python);
    command.arg(sources().join("kazoo_suite.py")).arg(server.hosts());
    assert_passed(&drive(command, &mut server), 18);
}

#[test]
fn the_java_client_finds_everything_it_expects() {
    let (Some(java), Some(kind)) = (Java::find(), Kind::under_test()) else { return };
    // The reaper of containers and TTL nodes runs every second instead of every minute.
    let options = Options::everything().config("tickTime", "500").config("enforceQuota", "true");
    let mut server = Server::start(&kind, &options.property("znode.container.checkIntervalMs", "1000"));
    let mut command = java.command();
    command.arg("-Dzookeeper.extendedTypesEnabled=true");
    command.arg(sources().join("JavaClient.java")).arg(server.hosts());
    assert_passed(&drive(command, &mut server), 20);
}

#[test]
fn curator_recipes_work() {
    let (Some(java), Some(kind)) = (Java::find(), Kind::under_test()) else { return };
    let mut server = Server::start(&kind, &Options::everything());
    let mut command = java.command();
    command.arg(sources().join("Recipes.java")).arg(server.hosts());
    assert_passed(&drive(command, &mut server), 6);
}

/// What the command line prints for one command, without the client's chatter.
struct CommandLine<'a> {
    java: Java,
    server: &'a Server,
    directory: tempfile::TempDir,
}

impl CommandLine<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.java.command();
        command.arg("org.apache.zookeeper.ZooKeeperMain").args(["-server", &self.server.hosts()]);
        command.args(arguments);
        let printed = run_bounded(command, Duration::from_secs(60), self.directory.path());
        printed.map(|text| without_watcher(&text)).map_err(|text| without_watcher(&text))
    }

    /// Fails the test unless the command succeeds and prints every one of `parts`.
    fn expect(&self, arguments: &[&str], parts: &[&str]) {
        let text = self.run(arguments).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: {part:?} is missing in\n{text}");
        }
    }

    /// Fails the test unless the command prints `part`, whatever its exit code.
    fn complains(&self, arguments: &[&str], part: &str) {
        let text = self.run(arguments).unwrap_or_else(|text| text);
        assert!(text.contains(part), "{arguments:?}: {part:?} is missing in\n{text}");
    }
}

/// The command line's own watcher prints at any moment, also in the middle of an answer.
fn without_watcher(text: &str) -> String {
    let of_watcher =
        |line: &&str| line.is_empty() || *line == "WATCHER::" || line.starts_with("WatchedEvent ");
    text.lines().filter(|line| !of_watcher(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_official_command_line_works() {
    let (Some(java), Some(kind)) = (Java::find(), Kind::under_test()) else { return };
    let server = Server::start(&kind, &Options::everything());
    let directory = tempfile::tempdir().expect("a directory");
    let cli = CommandLine { java, server: &server, directory };
    cli.expect(&["create", "/top", "hello"], &["Created /top"]);
    cli.complains(&["create", "/top", "again"], "Node already exists: /top");
    cli.expect(&["create", "-s", "/top/s-", "x"], &["Created /top/s-0000000000"]);
    cli.expect(&["create", "-c", "/box"], &["Created /box"]);
    cli.expect(&["create", "-t", "100000", "/brief", "x"], &["Created /brief"]);
    cli.expect(&["get", "/top"], &["hello"]);
    cli.expect(&["get", "-s", "/top"], &["hello", "cZxid = 0x", "dataVersion = 0", "numChildren = 1"]);
    cli.complains(&["get", "/nothing"], "Node does not exist: /nothing");
    cli.expect(&["ls", "/"], &["[box, brief, top, zookeeper]"]);
    cli.expect(&["ls", "-R", "/top"], &["/top\n/top/s-0000000000"]);
    cli.expect(&["stat", "/top"], &["mZxid = 0x", "dataLength = 5", "ephemeralOwner = 0x0"]);
    cli.expect(&["set", "-s", "/top", "bye"], &["dataVersion = 1"]);
    cli.complains(&["set", "-v", "7", "/top", "x"], "version No is not valid : /top");
    cli.expect(&["getAcl", "/top"], &["'world,'anyone", ": cdrwa"]);
    cli.expect(&["setAcl", "-s", "/top/s-0000000000", "world:anyone:r"], &["aclVersion = 1"]);
    cli.complains(&["set", "/top/s-0000000000", "x"], "Insufficient permission : /top/s-0000000000");
    cli.expect(&["setquota", "-n", "5", "/top"], &[]);
    cli.expect(&["setquota", "-b", "1000", "/top"], &[]);
    cli.expect(
        &["listquota", "/top"],
        &["Output quota for /top count=5,bytes=1000", "Output stat for /top count=2"],
    );
    cli.expect(&["delquota", "/top"], &[]);
    cli.complains(&["listquota", "/top"], "quota for /top does not exist");
    cli.expect(&["whoami"], &["Auth scheme: User", "ip: 127.0.0.1"]);
    cli.expect(&["getEphemerals"], &["[]"]);
    cli.expect(&["getAllChildrenNumber", "/"], &["7"]);
    cli.expect(&["sync", "/top"], &["Sync is OK"]);
    cli.expect(&["version"], &["ZooKeeper CLI version: 3.9"]);
    cli.expect(&["config"], &[]);
    cli.complains(&["reconfig", "-remove", "1"], "Reconfig is disabled");
    cli.complains(&["delete", "/top"], "Node not empty: /top");
    cli.expect(&["deleteall", "/top"], &[]);
    cli.complains(&["ls", "/top"], "Node does not exist: /top");
}
