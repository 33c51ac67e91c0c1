//! Every class of key, every kind of complaint.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::table::{Effect, KEYS, Key, Scope};
use super::*;
use crate::server::fourletter::Word;

mod ensemble;

/// Reads a `zoo.cfg` (with dataDir and clientPort put in front) and other files, without a disk.
fn read_with(text: &str, flags: &[&str], others: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let mut files: BTreeMap<String, String> =
        others.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
    files.insert("zoo.cfg".to_owned(), text.to_owned());
    let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
    let get = |path: &Path| -> io::Result<Option<Vec<u8>>> {
        Ok(files.get(path.to_str().unwrap()).map(|t| t.clone().into_bytes()))
    };
    Config::read(Some(Path::new("zoo.cfg")), &flags, &get)
}

const BASE: &str = "dataDir=/d\nclientPort=2181\n";

fn read(text: &str) -> Result<Loaded, ConfigError> {
    read_with(&format!("{BASE}{text}"), &[], &[])
}

fn ok(text: &str) -> Config {
    read(text).unwrap_or_else(|e| panic!("{text:?}: {e}")).config
}

fn warnings(text: &str) -> Vec<String> {
    read(text).unwrap_or_else(|e| panic!("{text:?}: {e}")).warnings.iter().map(Warning::to_string).collect()
}

fn problems(result: Result<Loaded, ConfigError>) -> Vec<String> {
    match result.expect_err("should be refused") {
        ConfigError::Wrong { problems } => problems.iter().map(Problem::to_string).collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn without_a_file_it_is_a_standalone_server_on_loopback() {
    let none = |_: &Path| Ok(None);
    let loaded = Config::read(None, &[], &none).unwrap();
    assert_eq!(loaded.warnings, []);
    let c = loaded.config;
    assert_eq!(c.listen.to_string(), "127.0.0.1:2181");
    assert_eq!((c.data_dir.to_str(), c.data_log_dir.to_str()), (Some("./zabra-data"), Some("./zabra-data")));
    assert_eq!((c.tick_ms, c.session_timeout_ms_min, c.session_timeout_ms_max), (3_000, 6_000, 60_000));
    assert_eq!(c.frame_bytes_max, 1_048_575);
    assert_eq!(c.limits.connections_per_address_max, Some(60));
    assert_eq!(c.limits.connections_max, Some(10_000));
    assert_eq!(c.log, LogConfig { region: None, segment_bytes: 64 << 20, flush_warning_ms: 1_000 });
    assert_eq!((c.snapshot.every_txns, c.snapshot.every_log_bytes), (100_000, Some(4 << 30)));
    assert_eq!(c.snapshot.retention.unwrap().snapshots_min, 3);
    assert!(c.tree_digest && c.digest_auth && !c.skip_acl && !c.extended_types && !c.enforce_quota);
    let flags = ["clientPort=0".to_owned(), "dataDir=/x".to_owned(), "clientPortAddress=::1".to_owned()];
    let c = Config::read(None, &flags, &none).unwrap().config;
    assert_eq!((c.listen.to_string(), c.data_dir.to_str()), ("[::1]:0".to_owned(), Some("/x")));
}

#[test]
fn a_file_is_read_as_zookeeper_reads_it() {
    let c = read_with(
        "# sample\ntickTime=2000\ndataDir = /var/lib/zk\ndataLogDir: /log\nclientPort 2182\n\
         clientPortAddress=zk1\nmaxClientCnxns=0\nminSessionTimeout=5000\nautopurge.snapRetainCount=5\n\
         autopurge.purgeInterval=24\nsnapCount=3000000\npreAllocSize=131072\n4lw.commands.whitelist=mntr,\\\n  ruok\n",
        &[],
        &[],
    )
    .unwrap();
    assert_eq!(c.warnings, []);
    let c = c.config;
    assert_eq!((c.data_dir.to_str(), c.data_log_dir.to_str()), (Some("/var/lib/zk"), Some("/log")));
    assert_eq!(c.listen.to_string(), "zk1:2182");
    assert_eq!((c.session_timeout_ms_min, c.session_timeout_ms_max), (5_000, 40_000));
    assert_eq!(c.limits.connections_per_address_max, None);
    let want = Retention { snapshots_min: 5, age_ms_min: 0, interval_ms: 86_400_000 };
    assert_eq!(c.snapshot.retention, Some(want));
    assert_eq!((c.snapshot.every_txns, c.log.segment_bytes), (3_000_000, 128 << 20));
    assert!(c.four_letter_words.allows(Word::Mntr) && c.four_letter_words.allows(Word::Ruok));
    assert!(!c.four_letter_words.allows(Word::Stat));
}

#[test]
fn without_an_address_all_of_them_are_listened_on() {
    let c = ok("");
    assert_eq!(c.listen.to_string(), "*:2181");
    let candidates = c.listen.candidates().unwrap();
    assert_eq!(candidates.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::]:2181", "0.0.0.0:2181"]);
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_file_line_key_found_and_expected() {
    let got = problems(read_with(
        "tickTime=abc\n\nmaxClientCnxns=-1\nforceSync=maybe\nclientPort=70000\nbad=\\u12\n",
        &["snapCount=1", "nonsense"],
        &[],
    ));
    assert_eq!(
        got,
        [
            "zoo.cfg:6: \\u: found \"\\\\u12\", expected \\u with four hexadecimal digits behind it",
            "zoo.cfg:1: tickTime: found \"abc\", expected a whole number from 1 to 2147483647 (milliseconds)",
            "zoo.cfg:3: maxClientCnxns: found \"-1\", expected a whole number from 0 to 2147483647 (connections per \
             address; 0 means no limit)",
            "zoo.cfg:4: forceSync: found \"maybe\", expected yes or no",
            "zoo.cfg:5: clientPort: found \"70000\", expected a whole number from 0 to 65535 (port)",
            "-D: snapCount: found \"1\", expected a whole number from 2 to 2147483647 (transactions)",
            "-D: nonsense: found \"nonsense\", expected key=value",
            "zoo.cfg: dataDir: not set, expected the directory that the data lies in",
        ]
    );
}

#[test]
fn a_file_must_say_where_data_and_clients_are() {
    let got = problems(read_with("tickTime=2000\n", &[], &[]));
    assert_eq!(got.len(), 2);
    assert!(got[0].starts_with("zoo.cfg: dataDir: not set"), "{got:?}");
    assert!(got[1].starts_with("zoo.cfg: clientPort: not set"), "{got:?}");
    // Flags count as well.
    assert!(read_with("", &["dataDir=/d", "clientPort=1"], &[]).is_ok());
}

#[test]
fn a_missing_file_is_an_error_of_its_own() {
    let error = Config::read(Some(Path::new("no.cfg")), &[], &|_| Ok(None)).unwrap_err();
    assert!(error.to_string().starts_with("no.cfg: cannot read it"), "{error}");
}

#[test]
fn flags_win_by_either_name() {
    let c = read_with(
        &format!("{BASE}snapCount=10\ntickTime=1000\n"),
        &["zookeeper.snapCount=20", "tickTime=500", "jute.maxbuffer=0x3fffff", "zookeeper.tickTime=600"],
        &[],
    )
    .unwrap();
    assert_eq!(c.warnings, []);
    assert_eq!((c.config.snapshot.every_txns, c.config.tick_ms), (20, 600));
    assert_eq!(c.config.frame_bytes_max, 0x3f_ffff);
}

#[test]
fn a_later_line_wins_and_says_so() {
    let loaded = read("tickTime=1\ntickTime=7\n").unwrap();
    assert_eq!(loaded.config.tick_ms, 7);
    let said: Vec<_> = loaded.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(said, ["zoo.cfg:4: tickTime: also set on line 3; the last one counts"]);
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    assert_eq!(
        warnings("clientProt=1\nmaxClientCnxn=3\ncompletely.else=1\n"),
        [
            "zoo.cfg:3: clientProt: has no effect: neither ZooKeeper nor Zabra knows it; did you mean clientPort?",
            "zoo.cfg:4: maxClientCnxn: has no effect: neither ZooKeeper nor Zabra knows it; did you mean maxClientCnxns?",
            "zoo.cfg:5: completely.else: has no effect: neither ZooKeeper nor Zabra knows it",
        ]
    );
}

#[test]
fn a_java_only_property_counts_in_the_file_too_and_says_so() {
    let loaded = read("jute.maxbuffer=2097152\n").unwrap();
    assert_eq!(loaded.config.frame_bytes_max, 2_097_152);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].text.contains("Java system property"));
}

/// A value of the right shape that is not the quiet or the allowed one.
fn sample(key: &Key) -> &'static str {
    use super::value::Shape::*;
    let avoid = match key.effect {
        Effect::Inert { quiet, .. } | Effect::Ensemble { quiet } => quiet,
        Effect::Refused { allowed, .. } => allowed,
        Effect::Honoured => "",
    };
    let fits = |v: &&&str| key.shape.takes(v) && !v.eq_ignore_ascii_case(avoid);
    let pool: &[&str] = match key.shape {
        Bool => &["true", "false"],
        YesNo => &["no", "yes"],
        OneOf(words) => words,
        _ => &["3", "4", "8388608", "text"],
    };
    pool.iter().find(fits).copied().unwrap_or("3")
}

#[test]
fn every_inert_key_gives_exactly_one_line_that_names_it_and_every_refused_one_stops_the_start() {
    let mut seen = 0;
    for key in KEYS {
        let name = key.name.replace('*', "x");
        let line = format!("{name}={}", sample(key));
        match key.effect {
            Effect::Inert { quiet, why } => {
                if key.name == "electionAlg" {
                    continue; // has one valid value, which is the quiet one
                }
                let said = warnings(&line);
                assert_eq!(said.len(), 1, "{line}: {said:?}");
                assert!(said[0].contains(&name) && said[0].contains(why), "{said:?}");
                if !quiet.is_empty() {
                    assert_eq!(warnings(&format!("{name}={quiet}")), [""; 0], "{name}");
                }
            }
            Effect::Refused { allowed, why } => {
                let said = problems(read(&line));
                assert!(said.len() == 1 && said[0].contains(&name) && said[0].contains(why), "{said:?}");
                if !allowed.is_empty() {
                    assert_eq!(warnings(&format!("{name}={allowed}")), [""; 0], "{name}");
                }
            }
            Effect::Honoured | Effect::Ensemble { .. } => {}
        }
        seen += 1;
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn every_honoured_key_changes_the_configuration() {
    let base = ok("");
    for key in KEYS.iter().filter(|k| k.effect == Effect::Honoured) {
        let value = match key.name {
            // Checked by tests of their own.
            "server.*"
            | "dynamicConfigFile"
            | "standaloneEnabled"
            | "DigestAuthenticationProvider.digestAlg" => continue,
            "digest.enabled" | "DigestAuthenticationProvider.enabled" | "datadir.autocreate" => "false",
            "DigestAuthenticationProvider.superDigest" => "super:xyz=",
            "4lw.commands.whitelist" => "*",
            "clientPortAddress" => "zk9",
            "minSessionTimeout" | "maxSessionTimeout" => "7000",
            "jute.maxbuffer" => "9999",
            "preAllocSize" => "131072",
            "autopurge.snapRetainCount" => "9",
            "skipACL" => "yes",
            "zabra.log.segmentBytes" => "8388608",
            "zabra.limits.inflightBytes"
            | "zabra.limits.inputBytes"
            | "zabra.limits.outboxBytesPerConnection" => "8388608",
            "zabra.snapshot.chunkBytes" => "8192",
            "zabra.limits.handshakeBytes" => "128",
            "zabra.snapshot.zstdLevel" => "9",
            _ => sample(key),
        };
        let text = format!("{}={value}", key.name);
        let changed = read_with(BASE, &[&text], &[]).unwrap_or_else(|e| panic!("{text}: {e}")).config;
        assert_ne!(changed, base, "{text} has no effect");
    }
}

#[test]
fn names_in_the_table_are_unique_and_families_come_after_their_members() {
    for (at, key) in KEYS.iter().enumerate() {
        assert_eq!(KEYS.iter().filter(|k| k.name == key.name).count(), 1, "{}", key.name);
        assert_eq!(Key::find(key.name).map(|k| k.name), Some(key.name));
        assert!(!key.name.starts_with("zookeeper."), "{}", key.name);
        assert_eq!(key.scope == Scope::Zabra, key.name.starts_with("zabra."), "{at}");
    }
}

#[test]
fn what_would_be_served_less_safely_than_asked_is_refused() {
    for line in [
        "secureClientPort=2281",
        "ssl.keyStore.location=/k",
        "sslQuorum=true",
        "client.portUnification=true",
        "sessionRequireClientSASLAuth=true",
        "enforce.auth.enabled=true",
        "DigestAuthenticationProvider.digestAlg=SHA-256",
    ] {
        assert_eq!(problems(read(line)).len(), 1, "{line}");
    }
}

#[test]
fn secrets_never_reach_a_message() {
    let key = "DigestAuthenticationProvider.superDigest";
    let all = [
        problems(read("ssl.keyStore.password=hunter2")),
        problems(read(&format!("{key}=hunter2"))),
        vec![format!("{:?}", ok(&format!("{key}=super:hunter2")))],
    ];
    for said in all {
        assert!(!said.concat().contains("hunter2"), "{said:?}");
    }
    assert_eq!(ok(&format!("{key}=super:hash")).super_digest.unwrap().reveal(), "super:hash");
}

#[test]
fn session_timeouts_must_be_in_order() {
    let said = problems(read("minSessionTimeout=9000\nmaxSessionTimeout=8000"));
    assert_eq!(
        said,
        [
            "zoo.cfg:3: minSessionTimeout: found \"9000\", expected at most maxSessionTimeout, which is 8000 ms"
        ]
    );
    assert_eq!(ok("maxSessionTimeout=60000000").session_timeout_ms_max, 60_000_000);
}

#[test]
fn a_single_server_line_is_a_standalone_server() {
    let line = "server.7=host:2888:3888;127.0.0.1:2199";
    let text = format!("dataDir=/d\n{line}");
    let c = read_with(&text, &[], &[]).unwrap().config;
    assert_eq!((c.listen.to_string(), c.server_id), ("127.0.0.1:2199".to_owned(), Some(ServerId(7))));
    let c = read_with(&text, &[], &[("/d/myid", "7\n")]).unwrap().config;
    assert_eq!(c.server_id, Some(ServerId(7)));
    assert!(problems(read_with(&text, &[], &[("/d/myid", "8\n")]))[0].contains("myid"));
    // With the port in both places they must agree.
    assert!(read_with(&format!("{text}\nclientPort=2199"), &[], &[]).is_ok());
    assert!(problems(read_with(&format!("{text}\nclientPort=2181"), &[], &[]))[0].contains("2199"));
    // Without a client port anywhere nobody could connect.
    assert!(problems(read_with("dataDir=/d\nserver.1=h:1:2", &[], &[]))[0].contains("clientPort"));
}

#[test]
fn what_no_server_line_may_say() {
    assert!(problems(read("server.1=a:1"))[0].contains("host:port:port"));
    assert!(problems(read("server.1=a:1:2;2181;2281"))[0].contains("TLS"));
}

#[test]
fn the_dynamic_file_is_read() {
    let text = "dataDir=/d\ndynamicConfigFile=/d/zoo.cfg.dynamic\n";
    let one = ("/d/zoo.cfg.dynamic", "server.1=h:2888:3888:participant;2199\n");
    let c = read_with(text, &[], &[one]).unwrap().config;
    assert_eq!((c.listen.to_string(), c.server_id), ("*:2199".to_owned(), Some(ServerId(1))));
    let two = ("/d/zoo.cfg.dynamic", "server.1=h:1:2;3\nserver.2=h:1\nversion=1\ntickTime=5\n");
    let said = problems(read_with(text, &[], &[two]));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].starts_with("/d/zoo.cfg.dynamic:3: version") && said[0].contains("end of the file's name")
    );
    assert!(said[1].starts_with("/d/zoo.cfg.dynamic:4: tickTime"));
    assert!(said[2].starts_with("/d/zoo.cfg.dynamic:2: server.2"));
    let missing = problems(read_with(text, &[], &[]));
    assert!(
        missing[0].starts_with("zoo.cfg:2: dynamicConfigFile: found \"/d/zoo.cfg.dynamic\""),
        "{missing:?}"
    );
    for line in ["server.1=a:1:2", "group.1=1", "weight.1=2"] {
        let both = format!("{text}{line}");
        assert!(problems(read_with(&both, &[], &[one]))[0].contains("dynamicConfigFile"), "{line}");
    }
}

#[test]
fn what_is_said_to_be_wrong_is_what_stands_there() {
    let first = |text: &str| problems(read(text)).remove(0);
    let text = "zoo.cfg:3: maxSessionTimeout: found \"0\", expected at least minSessionTimeout, which is 6000 ms (2 ticks)";
    assert_eq!(first("maxSessionTimeout=0"), text);
    assert!(
        first("clientPortAddress=999.1.1.1").starts_with("zoo.cfg:3: clientPortAddress: found \"999.1.1.1\"")
    );
    assert!(first("weight.1=x").starts_with("zoo.cfg:3: weight.1: found \"x\""), "{}", first("weight.1=x"));
}

#[test]
fn a_broken_myid_is_said() {
    let said = problems(read_with(BASE, &[], &[("/d/myid", "one\n")]));
    assert_eq!(said, ["/d/myid:1: myid: found \"one\", expected the whole number of this server"]);
}

#[test]
fn retention_is_on_unless_turned_off_aloud() {
    assert!(ok("").snapshot.retention.is_some());
    let loaded = read("autopurge.purgeInterval=0").unwrap();
    assert_eq!(loaded.config.snapshot.retention, None);
    assert!(loaded.warnings[0].text.contains("fill the disk"));
    let loaded =
        read("autopurge.snapRetainCount=1\nautopurge.purgeInterval=30m\nzabra.snapshot.retainAge=2d")
            .unwrap();
    let want = Retention { snapshots_min: 3, age_ms_min: 172_800_000, interval_ms: 1_800_000 };
    assert_eq!(loaded.config.snapshot.retention, Some(want));
    assert!(loaded.warnings[0].text.contains("never less"));
}

#[test]
fn flushing_cannot_be_turned_off_and_acls_only_aloud() {
    assert!(warnings("forceSync=no")[0].contains("cannot be turned off"));
    assert!(warnings("skipACL=yes")[0].contains("every client"));
    assert!(ok("skipACL=yes").skip_acl);
    assert!(warnings("4lw.commands.whitelist=ruok,zzzz")[0].contains("zzzz"));
}

#[test]
fn the_largest_frame_fits_into_a_segment_and_into_the_budget() {
    let small = read("preAllocSize=16").unwrap();
    assert_eq!(small.config.log.segment_bytes, LOG_SEGMENT_BYTES_MIN);
    assert!(small.warnings[0].text.contains("4096 KiB instead of 16"));
    assert_eq!(ok("jute.maxbuffer=62000000").log.segment_bytes, 64 << 20);
    assert!(problems(read("jute.maxbuffer=62000000\nzabra.log.segmentBytes=33554432"))[0].contains("fits"));
    assert!(problems(read("zabra.log.segmentBytes=67108865"))[0].contains("multiple of 4096"));
    assert_eq!(ok("preAllocSize=65537").log.segment_bytes, (64 << 20) + 4_096);
    assert!(problems(read("jute.maxbuffer=8388608\nzabra.limits.inflightBytes=1048576"))[0].contains("fits"));
    assert!(problems(read("jute.maxbuffer=8388608\nzabra.limits.inputBytes=8388608"))[0].contains("fits"));
    assert_eq!(ok("zabra.log.region=Mapped").log.region, Some(LogRegion::Mapped));
}

#[test]
fn files_of_real_deployments_are_taken() {
    // Kafka, Docker's image, ClickHouse's tips, in that order; only single-server lines.
    for text in [
        "dataDir=/tmp/zookeeper\nclientPort=2181\nmaxClientCnxns=0\nadmin.enableServer=false\n",
        "dataDir=/data\ndataLogDir=/datalog\ntickTime=2000\ninitLimit=5\nsyncLimit=2\nautopurge.snapRetainCount=3\n\
         autopurge.purgeInterval=0\nmaxClientCnxns=60\nstandaloneEnabled=true\nadmin.enableServer=true\n\
         server.1=localhost:2888:3888;2181\n",
        "tickTime=2000\ninitLimit=300\nsyncLimit=10\nmaxClientCnxns=2000\nmaxSessionTimeout=60000000\n\
         dataDir=/opt/zookeeper/data\ndataLogDir=/opt/zookeeper/logs\nautopurge.snapRetainCount=10\n\
         autopurge.purgeInterval=1\npreAllocSize=131072\nsnapCount=3000000\nleaderServes=yes\nclientPort=2181\n",
    ] {
        let loaded = read_with(text, &[], &[]).unwrap_or_else(|e| panic!("{e}"));
        for warning in &loaded.warnings {
            assert!(warning.to_string().lines().count() == 1);
        }
    }
}

#[test]
fn every_key_is_in_the_compatibility_page() {
    let page = include_str!("../../docs/compatibility.md");
    for key in KEYS {
        let done = match key.effect {
            Effect::Honoured | Effect::Ensemble { .. } => "done",
            Effect::Inert { .. } => "no effect",
            Effect::Refused { .. } => "refused",
        };
        let found = page.lines().any(|l| l.contains(&format!("| `{}` | {done} |", key.name)));
        assert!(found, "`{}` as {done}", key.name);
    }
}
