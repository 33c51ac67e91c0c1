//! Every four-letter word, parsed field by field.
//!
//! Clients, dashboards and scripts read these texts, so names, order and shape count; figures only where they are
//! certain. A fixed load comes first: one session with one node, one ephemeral, one data watch.

use std::collections::BTreeMap;

use crate::common::client::{Conn, ConnectRequest, Connected, create_body, op, read_body};
use crate::common::jute::Acl;
use crate::common::server::{Kind, Options, Server};

/// A server with a session that did a little of everything.
fn loaded() -> Option<(Server, Conn, Connected)> {
    let kind = Kind::under_test()?;
    let server = Server::start(&kind, &Options::everything());
    let (mut conn, connected) =
        Conn::connect(server.address(), &ConnectRequest::new(20_000)).expect("a session");
    for (path, flags) in [("/a", 0), ("/a/e", 1)] {
        let reply =
            conn.call(op::CREATE, &create_body(path, Some(b"12345"), &Acl::open(), flags)).expect("a reply");
        assert_eq!(reply.err, 0);
    }
    conn.call(op::GET_DATA, &read_body("/a", true)).expect("a reply");
    conn.call(op::GET_CHILDREN, &read_body("/", true)).expect("a reply");
    Some((server, conn, connected))
}

/// `key: value` or `key=value` or `key\tvalue` lines.
fn fields(text: &str, separator: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(separator));
    pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn number(fields: &BTreeMap<String, String>, key: &str) -> f64 {
    let value = fields.get(key).unwrap_or_else(|| panic!("{key} is missing in {fields:?}"));
    value.parse().unwrap_or_else(|e| panic!("{key}={value}: {e}"))
}

fn assert_keys(found: &BTreeMap<String, String>, keys: &str) {
    for key in keys.split_whitespace() {
        assert!(found.contains_key(key), "{key} is missing in {found:#?}");
    }
}

/// `3.9.x-...`, `built on` something.
fn assert_version(text: &str) {
    let (version, date) = text.split_once(", built on ").unwrap_or_else(|| panic!("{text}"));
    assert!(version.starts_with("3.9."), "{version}: clients parse this");
    assert!(!date.is_empty());
}

fn assert_server_lines(lines: &[&str]) {
    let shape =
        ["Latency min/avg/max: ", "Received: ", "Sent: ", "Connections: ", "Outstanding: ", "Zxid: 0x"];
    for (line, start) in lines.iter().zip(shape) {
        assert!(line.starts_with(start), "{line} instead of {start}");
    }
    let latency: Vec<f64> =
        lines[0][shape[0].len()..].split('/').map(|n| n.parse().expect("a number")).collect();
    assert!(latency.len() == 3 && latency[0] <= latency[1] && latency[1] <= latency[2], "{latency:?}");
    assert!(lines[0].split('/').nth(3).is_some_and(|average| average.contains('.')), "{}", lines[0]);
    assert_eq!(&lines[5..], ["Zxid: 0x3", "Mode: standalone", "Node count: 7"]);
}

#[test]
fn ruok_isro_and_unknown_words() {
    let Some((server, _conn, _)) = loaded() else { return };
    assert_eq!(server.word(b"ruok"), "imok");
    assert_eq!(server.word(b"isro"), "rw");
    assert_eq!(server.word(b"nope"), "", "not a word: taken as a length, and closed");
}

#[test]
fn srvr_and_stat() {
    let Some((server, _conn, _)) = loaded() else { return };
    let text = server.word(b"srvr");
    let lines: Vec<&str> = text.lines().collect();
    assert_version(lines[0].strip_prefix("Zookeeper version: ").expect("the first line"));
    assert_server_lines(&lines[1..]);
    let text = server.word(b"stat");
    let lines: Vec<&str> = text.lines().collect();
    assert_version(lines[0].strip_prefix("Zookeeper version: ").expect("the first line"));
    assert_eq!(lines[1], "Clients:");
    let end = lines.iter().position(|l| l.is_empty()).expect("an empty line behind the clients");
    assert_eq!(end, 4, "the session and this one:\n{text}");
    for line in &lines[2..end] {
        assert!(line.starts_with(" /127.0.0.1:") && line.contains("](queued=0,recved="), "{line}");
        assert!(line.contains(",sent=") && line.ends_with(')'), "{line}");
    }
    assert_server_lines(&lines[end + 1..]);
}

#[test]
fn cons_and_crst() {
    let Some((server, _conn, connected)) = loaded() else { return };
    let text = server.word(b"cons");
    let wanted = format!("sid=0x{:x},", connected.session.id);
    let line = text.lines().find(|l| l.contains(&wanted)).unwrap_or_else(|| panic!("{wanted}\n{text}"));
    let inside = line.split_once("](").and_then(|(_, rest)| rest.strip_suffix(')')).expect("brackets");
    let pairs: Vec<(&str, &str)> = inside.split(',').map(|p| p.split_once('=').expect("key=value")).collect();
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
    let expected = "queued recved sent sid lop est to lcxid lzxid lresp llat minlat avglat maxlat";
    assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
    let get = |key: &str| pairs.iter().find(|(k, _)| *k == key).expect("present").1;
    assert_eq!((get("lop"), get("to"), get("lcxid"), get("lzxid")), ("GETC", "20000", "0x4", "0x3"));
    assert_eq!((get("recved"), get("sent")), ("5", "5"));
    assert_eq!(server.word(b"crst"), "Connection stats reset.\n");
    let after = server.word(b"cons");
    assert!(after.contains(&format!("recved=0,sent=0,{wanted}")), "{after}");
    assert!(text.ends_with("\n\n"), "an empty line at the end");
}

#[test]
fn srst_resets_the_counters() {
    let Some((server, _conn, _)) = loaded() else { return };
    assert_eq!(server.word(b"srst"), "Server stats reset.\n");
    let after = server.word(b"srvr");
    assert!(number(&fields(&after, ": "), "Received") <= 3.0, "{after}");
}

#[test]
fn conf() {
    let Some((server, _conn, _)) = loaded() else { return };
    let found = fields(&server.word(b"conf"), "=");
    assert_keys(&found, "clientPort secureClientPort dataDir dataDirSize dataLogDir dataLogSize tickTime");
    assert_keys(
        &found,
        "maxClientCnxns minSessionTimeout maxSessionTimeout clientPortListenBacklog serverId",
    );
    let get = |key: &str| found[key].as_str();
    assert_eq!(get("clientPort"), server.address().port().to_string());
    assert_eq!(
        (get("tickTime"), get("minSessionTimeout"), get("maxSessionTimeout")),
        ("2000", "4000", "40000")
    );
    assert_eq!((get("serverId"), get("maxClientCnxns"), get("secureClientPort")), ("0", "0", "-1"));
    assert!(get("dataDir").starts_with(&server.data_dir().display().to_string()), "{}", get("dataDir"));
}

#[test]
fn envi() {
    let Some((server, _conn, _)) = loaded() else { return };
    let text = server.word(b"envi");
    assert_eq!(text.lines().next(), Some("Environment:"));
    let found = fields(&text, "=");
    assert_keys(
        &found,
        "zookeeper.version host.name os.name os.arch os.version user.name user.home user.dir",
    );
    assert_version(&found["zookeeper.version"]);
}

#[test]
fn mntr() {
    let Some((server, _conn, _)) = loaded() else { return };
    let text = server.word(b"mntr");
    assert!(text.lines().all(|l| l.starts_with("zk_") && l.contains('\t')), "{text}");
    let found = fields(&text, "\t");
    assert_version(&found["zk_version"]);
    assert_keys(&found, "zk_server_state zk_avg_latency zk_min_latency zk_max_latency zk_packets_received");
    assert_keys(
        &found,
        "zk_packets_sent zk_uptime zk_open_file_descriptor_count zk_max_file_descriptor_count",
    );
    assert_keys(
        &found,
        "zk_last_client_response_size zk_max_client_response_size zk_min_client_response_size",
    );
    assert_keys(&found, "zk_local_sessions zk_connection_drop_probability zk_auth_failed_count");
    assert_keys(
        &found,
        "zk_outstanding_tls_handshake zk_non_mtls_remote_conn_count zk_non_mtls_local_conn_count",
    );
    assert_keys(&found, "zk_connection_rejected zk_avg_fsynctime zk_cnt_snapshottime zk_p99_readlatency");
    assert_eq!(found["zk_server_state"], "standalone");
    let certain = [
        ("zk_znode_count", 7.0),
        ("zk_ephemerals_count", 1.0),
        ("zk_watch_count", 2.0),
        ("zk_global_sessions", 1.0),
        ("zk_outstanding_requests", 0.0),
        ("zk_num_alive_connections", 2.0),
    ];
    for (key, value) in certain {
        assert_eq!(number(&found, key), value, "{key}");
    }
    let size = number(&found, "zk_approximate_data_size");
    assert!((40.0..100.0).contains(&size), "paths and data: {size}");
}

#[test]
fn dirs() {
    let Some((server, _conn, _)) = loaded() else { return };
    let found = fields(&server.word(b"dirs"), ": ");
    assert_keys(&found, "datadir_size logdir_size");
    assert!(number(&found, "logdir_size") > 0.0);
}

#[test]
fn dump_lists_sessions_and_ephemerals() {
    let Some((server, _conn, connected)) = loaded() else { return };
    let text = server.word(b"dump");
    let id = format!("0x{:x}", connected.session.id);
    for part in ["SessionTracker dump:\n", "ephemeral nodes dump:\n", "Sessions with Ephemerals (1):\n"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.contains(&format!("{id}:\n\t/a/e\n")), "{text}");
    assert!(text.contains("Connections dump:\n"), "{text}");
    assert!(text.lines().any(|l| l.trim() == id), "in its expiry bucket:\n{text}");
}

#[test]
fn watches_by_three_words() {
    let Some((server, _conn, connected)) = loaded() else { return };
    let id = format!("0x{:x}", connected.session.id);
    // Child watches are not shown.
    assert_eq!(server.word(b"wchs"), "1 connections watching 1 paths\nTotal watches:1\n");
    assert_eq!(server.word(b"wchc"), format!("{id}\n\t/a\n\n"));
    assert_eq!(server.word(b"wchp"), format!("/a\n\t{id}\n\n"));
}

#[test]
fn hash_lists_digests_of_every_128th_transaction() {
    let Some((server, mut conn, _)) = loaded() else { return };
    assert_eq!(server.word(b"hash"), "");
    for _ in 0..130 {
        let body = crate::common::jute::Writer::new().string("/a").buffer(Some(b"x")).int(-1).done();
        conn.call(op::SET_DATA, &body).expect("a reply");
    }
    let text = server.word(b"hash");
    let (zxid, digest) = text.trim_end().split_once(": ").unwrap_or_else(|| panic!("{text:?}"));
    assert_eq!(zxid, "80");
    digest.parse::<i64>().expect("a decimal number");
}

#[test]
fn trace_mask_is_kept() {
    let Some((server, _conn, _)) = loaded() else { return };
    assert_eq!(server.word(b"gtmk"), "306");
    assert_eq!(server.word(b"stmk\0\0\0\0\0\0\0\x04"), "4");
    assert_eq!(server.word(b"gtmk"), "4");
}

#[test]
fn only_words_on_the_list_are_executed() {
    let Some(kind) = Kind::under_test() else { return };
    let server = Server::start(&kind, &Options::everything().config("4lw.commands.whitelist", "ruok, mntr"));
    assert_eq!(server.word(b"ruok"), "imok");
    assert!(server.word(b"mntr").contains("zk_version"));
    assert!(server.word(b"srvr").contains("Mode: standalone"), "srvr is always on");
    for word in ["stat", "cons", "isro", "dump", "wchs", "conf", "envi", "crst", "hash"] {
        let expected = format!("{word} is not executed because it is not in the whitelist.");
        assert_eq!(server.word(word.as_bytes()).trim_end(), expected);
    }
}
