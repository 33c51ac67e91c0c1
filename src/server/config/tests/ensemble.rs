//! What makes an ensemble, and what it needs.

use super::*;
use crate::wire::quorum_config::MemberRole;

/// Three servers, of which this is the second.
const THREE: &str =
    "initLimit=10\nsyncLimit=5\nserver.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n";

/// Reads [`BASE`] and `text` with `myid`.
fn read_as(id: &str, text: &str) -> Result<Loaded, ConfigError> {
    read_with(&format!("{BASE}{text}"), &[], &[("/d/myid", id)])
}

fn ensemble(text: &str) -> EnsembleConfig {
    let config = read_as("2", &format!("{THREE}{text}")).unwrap_or_else(|e| panic!("{text:?}: {e}")).config;
    config.ensemble.expect("three servers are an ensemble")
}

fn said(id: &str, text: &str) -> Vec<String> {
    read_as(id, text).unwrap_or_else(|e| panic!("{e}")).warnings.iter().map(Warning::to_string).collect()
}

#[test]
fn several_servers_are_an_ensemble() {
    let loaded = read_as("2\n", THREE).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.server_id, Some(ServerId(2)));
    assert_eq!(loaded.config.listen.to_string(), "*:2181");
    let e = loaded.config.ensemble.unwrap();
    assert_eq!((e.me, e.config.voters().count(), e.config.version()), (ServerId(2), 3, 0));
    assert_eq!((e.tick_ms, e.init_limit_ticks, e.sync_limit_ticks), (3_000, 10, 5));
    assert_eq!(e.cnx_timeout_ms, 5_000);
    assert_eq!((e.handshake_timeout_ms, e.election_bind_tries), (15_000, 3));
    assert_eq!((e.notification_ms_min, e.notification_ms_max), (200, 60_000));
    assert!(e.leader_serves && !e.listen_on_all_ips && !e.read_only_enabled);
    assert!(!e.local_sessions && !e.local_sessions_upgrade);
    assert_eq!((e.liveness_timeout_ms, e.liveness_probe_ms), (Some(800), 100));
    assert_eq!(e.ticks_ms(e.init_limit_ticks), 30_000);
}

#[test]
fn every_key_about_several_servers_changes_the_ensemble() {
    let base = ensemble("");
    for key in KEYS.iter().filter(|k| matches!(k.effect, Effect::Ensemble { .. })) {
        let value = match key.name {
            // Checked by tests of their own.
            "group.*" | "weight.*" | "peerType" => continue,
            "zabra.liveness.timeoutMs" => "400",
            "electionPortBindRetry" => "0",
            "fastleader.maxNotificationInterval" => "300",
            _ => sample(key),
        };
        let flag = format!("{}={value}", key.name);
        let text = format!("{BASE}{THREE}");
        let changed =
            read_with(&text, &[&flag], &[("/d/myid", "2")]).unwrap_or_else(|e| panic!("{flag}: {e}"));
        assert_ne!(changed.config.ensemble.as_ref(), Some(&base), "{flag} has no effect");
        assert_eq!(changed.warnings, [], "{flag}");
    }
    assert!(ensemble("readonlymode.enabled=true").read_only_enabled);
}

#[test]
fn a_server_alone_says_which_keys_are_about_several() {
    for key in KEYS {
        let Effect::Ensemble { quiet } = key.effect else { continue };
        let name = key.name.replace('*', "1");
        let said = warnings(&format!("{name}={}", sample(key)));
        assert_eq!(said.len(), 1, "{name}: {said:?}");
        assert!(said[0].contains(&name) && said[0].contains("this one runs alone"), "{said:?}");
        if !quiet.is_empty() {
            assert_eq!(warnings(&format!("{name}={quiet}")), [""; 0], "{name}");
        }
    }
}

#[test]
fn what_an_ensemble_needs_is_said_at_once() {
    let lines = "server.1=a:1:2;2181\nserver.2=b:1:2;2181\nserver.3=c:1:2;2181\n";
    let text = format!("dataDir=/d\n{lines}");
    let all = problems(read_with(&text, &[], &[]));
    assert_eq!(
        all,
        [
            "/d/myid: myid: not set, expected a file with the number of this server, which is one of the server lines: 1, 2, 3",
            "zoo.cfg: initLimit: not set, expected a number of ticks, 1 or more, as there are several servers",
            "zoo.cfg: syncLimit: not set, expected a number of ticks, 1 or more, as there are several servers",
        ]
    );
    let zero = problems(read_with(&format!("{text}initLimit=0\nsyncLimit=5"), &[], &[("/d/myid", "1")]));
    assert_eq!(zero.len(), 1, "{zero:?}");
    assert!(zero[0].starts_with("zoo.cfg:5: initLimit: found \"0\""), "{zero:?}");
    let stranger = problems(read_as("4", THREE));
    assert_eq!(stranger, ["/d/myid:1: myid: found \"4\", expected the number of a server line: 1, 2, 3"]);
    let garbage = problems(read_as("x", THREE));
    assert_eq!(garbage.len(), 1, "{garbage:?}");
}

#[test]
fn clients_connect_where_the_server_line_says() {
    let text = "dataDir=/d\ninitLimit=1\nsyncLimit=1\nserver.1=a:1:2;2191\nserver.2=b:1:2;10.0.0.2:2192\n";
    let at = |id: &str, more: &str| read_with(&format!("{text}{more}"), &[], &[("/d/myid", id)]);
    assert_eq!(at("1", "").unwrap().config.listen.to_string(), "*:2191");
    assert_eq!(at("2", "").unwrap().config.listen.to_string(), "10.0.0.2:2192");
    assert!(problems(at("2", "clientPort=2181"))[0].contains("2192"));
}

#[test]
fn one_server_is_an_ensemble_when_the_file_says_so() {
    let one = "standaloneEnabled=false\ninitLimit=1\nsyncLimit=1\nserver.1=a:1:2\n";
    let loaded = read_as("1", one).unwrap();
    assert_eq!(loaded.config.ensemble.unwrap().config.voters().count(), 1);
    assert!(loaded.warnings[0].text.contains("at least 3"), "{:?}", loaded.warnings);
    assert!(read_as("2", &format!("{one}server.2=b:1:2:observer")).is_ok());
    // With standaloneEnabled it runs alone, and then it must be the only one.
    let alone = read_as("1", "server.1=a:1:2\n").unwrap().config;
    assert_eq!((alone.ensemble, alone.server_id), (None, Some(ServerId(1))));
    let with_observer = problems(read_as("1", "server.1=a:1:2\nserver.2=b:1:2:observer\n"));
    assert!(with_observer[0].starts_with("zoo.cfg:4: server.2") && with_observer[0].contains("observers"));
    assert!(problems(read_as("1", "server.1=a:1:2:observer\n"))[0].contains("two participants"));
    for none in ["", "server.1=a:1:2:observer\n"] {
        let text = format!("standaloneEnabled=false\ninitLimit=1\nsyncLimit=1\n{none}");
        assert!(problems(read_as("1", &text))[0].contains("no participant"), "{none}");
    }
}

#[test]
fn ensembles_that_survive_less_than_they_could_are_taken_with_a_word() {
    let limits = "initLimit=1\nsyncLimit=1\n";
    let of = |n: usize| (1..=n).fold(limits.to_owned(), |t, i| format!("{t}server.{i}=h{i}:1:2\n"));
    assert!(said("1", &of(2))[0].contains("server.N: 2 participant(s): no server may fail"));
    assert!(said("1", &of(4))[0].contains("odd number"));
    assert_eq!(said("1", &of(5)), [""; 0]);
    let big = format!("{}server.257=x:1:2\n", of(2));
    assert!(said("1", &big)[0].contains("server.257") && said("1", &big)[0].contains("same id"));
}

#[test]
fn groups_and_weights_make_a_hierarchy() {
    let e = ensemble("group.1=1:2\ngroup.2=3\nweight.3=4\n");
    assert_eq!((e.config.weight(ServerId(1)), e.config.weight(ServerId(3))), (1, 4));
    let quorum = |ids: &[i64]| e.config.contains_quorum(&ids.iter().map(|id| ServerId(*id)).collect());
    assert!(quorum(&[1, 2, 3]) && !quorum(&[1, 2]) && !quorum(&[1, 3]));
    for (text, want) in [
        ("group.1=1:2\n", "server 3 is in no group"),
        ("group.1=1:2\ngroup.2=2:3\n", "server 2 in one group only"),
        ("group.1=1:2:x\ngroup.2=3\n", "numbers of servers"),
        ("group.x=1:2:3\n", "whole number G"),
        ("group.1=1:2:3:4\n", "no weight"),
        ("group.1=1:2:3\nweight.x=1\n", "number N of a server"),
        ("group.1=1:2:3\nweight.1=0\nweight.2=0\nweight.3=0\n", "nobody can ever be elected"),
    ] {
        let said = problems(read_as("2", &format!("{THREE}{text}")));
        assert!(said.iter().any(|line| line.contains(want)), "{text}: {said:?}");
    }
}

#[test]
fn roles_stand_in_the_server_lines() {
    let text = format!("{THREE}server.4=d:1:2:observer\n");
    let e = read_as("4", &text).unwrap().config.ensemble.unwrap();
    assert_eq!(e.config.members()[&ServerId(4)].role, MemberRole::Observer);
    assert_eq!(said("4", &text), [""; 0]);
    assert_eq!(said("4", &format!("{text}peerType=observer")), [""; 0]);
    let contradicted = said("4", &format!("{text}peerType=participant"));
    assert_eq!(contradicted, ["zoo.cfg:9: peerType: server.4 says observer, and that is what counts"]);
    assert!(said("2", &format!("{text}peerType=observer"))[0].contains("server.2 says participant"));
}

#[test]
fn members_that_cannot_be_told_apart_or_reached_are_refused() {
    for (text, want) in [
        ("server.03=x:1:2\n", "one line for server 3"),
        ("server.-1=x:1:2\n", "N from 0 to 255"),
        ("server.9223372036854775807=x:1:2\n", "N from 0 to 255"),
        ("server.4=x:1:2|y:1:2\n", "one address"),
        ("server.4=x:1:2;1;2\n", "TLS"),
        ("multiAddress.enabled=true\n", "several addresses"),
        ("db.autocreate=false\n", "empty tree"),
        ("quorum.auth.enableSasl=true\n", "SASL"),
        ("quorum.auth.learnerRequireSasl=true\n", "SASL"),
        ("sslQuorum=true\n", "TLS"),
    ] {
        let said = problems(read_as("2", &format!("{THREE}{text}")));
        assert!(said.len() == 1 && said[0].contains(want), "{text}: {said:?}");
    }
    let big = "initLimit=1\nsyncLimit=1\nextendedTypesEnabled=true\nserver.1=a:1:2\nserver.255=b:1:2\n";
    assert!(read_as("1", big).is_ok());
    assert!(problems(read_as("255", big))[0].contains("at most 254"));
}

#[test]
fn times_must_fit_together() {
    let wrong = |text: &str| problems(read_as("2", &format!("{THREE}{text}"))).remove(0);
    let text = "fastleader.minNotificationInterval=500\nfastleader.maxNotificationInterval=400";
    assert!(wrong(text).starts_with("zoo.cfg:8: fastleader.minNotificationInterval: found \"500\""));
    let text = "fastleader.maxNotificationInterval=100";
    assert!(wrong(text).contains("at least fastleader.minNotificationInterval, which is 200 ms"));
    assert!(wrong("zabra.liveness.timeoutMs=150").contains("at least twice zabra.liveness.probeMs"));
    assert!(wrong("zabra.liveness.probeMs=500").contains("found \"800\""));
    assert_eq!(ensemble("zabra.liveness.timeoutMs=0\nzabra.liveness.probeMs=500").liveness_timeout_ms, None);
    assert_eq!(ensemble("quorumCnxnTimeoutMs=-1\ntickTime=100").handshake_timeout_ms, 500);
}

#[test]
fn a_dynamic_file_carries_the_ensemble_and_its_name_the_version() {
    let text = "dataDir=/d\ndynamicConfigFile=/d/zoo.cfg.dynamic.100000002\ninitLimit=1\nsyncLimit=1\n";
    let dynamic = "server.1=a:1:2;2181\nserver.2=b:1:2;2182\nserver.3=c:1:2;2183\n";
    let files = [("/d/zoo.cfg.dynamic.100000002", dynamic), ("/d/myid", "3")];
    let config = read_with(text, &[], &files).unwrap().config;
    assert_eq!(config.listen.to_string(), "*:2183");
    let e = config.ensemble.unwrap();
    assert_eq!((e.me, e.config.version()), (ServerId(3), 0x1_0000_0002));
    let printed = e.config.to_string();
    assert!(printed.starts_with("server.1=a:1:2:participant;0.0.0.0:2181\n"), "{printed}");
}
