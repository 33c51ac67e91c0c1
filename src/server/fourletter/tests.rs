//! Texts as ZooKeeper 3.9 prints them.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::base::{ConnId, Epoch, ServerId, SessionId, Zxid};
use crate::server::config::Config;
use crate::server::stats::{ConnStats, RequestKind, ServerStats, Summary, Tally};
use crate::storage::superblock::Recall;
use crate::wire::OpCode;

struct Fake {
    serving: bool,
    mode: Mode,
    config: Config,
    stats: ServerStats,
    clients: Vec<ClientLine>,
    mask: Cell<i64>,
    resets: Cell<u32>,
    /// How many watches there are; each costs a visit.
    watches: usize,
    visits: Cell<usize>,
    quorum: Option<QuorumFigures>,
}

const THREE_AND_AN_OBSERVER: &str = "server.1=a:2888:3888:participant\nserver.2=b:2888:3888:participant\n\
                                     server.3=c:2889:3889:participant;0.0.0.0:2181\n\
                                     server.4=e:2888:3888:observer\nversion=100000000";

impl Fake {
    fn new() -> Fake {
        let mut config = Config::load(None, &[]).unwrap().config;
        config.data_dir = "/data".into();
        config.data_log_dir = "/log".into();
        config.server_id = Some(ServerId(3));
        let stats = ServerStats::new();
        let mut tally = Tally::default();
        tally.request(20);
        tally.reply(&stats, RequestKind::Write, 88, 1_500);
        stats.absorb(&mut tally);
        let conn = ConnStats::new(1_000);
        conn.requests(1);
        let client = |port: u16, session| ClientLine {
            remote: ([127, 0, 0, 1], port).into(),
            interest_ops: 1,
            session: SessionId(session),
            session_timeout_ms: 30_000,
            figures: conn.figures(),
        };
        let mut clients = vec![client(1_000, 0), client(2_000, 0x10)];
        conn.replies(1, OpCode::GetData, 5, 0x20, 9_000, 3_000);
        clients[1].figures = conn.figures();
        let (mask, resets, visits) = (Cell::new(TRACE_MASK_DEFAULT), Cell::new(0), Cell::new(0));
        Fake {
            serving: true,
            mode: Mode::Standalone,
            config,
            stats,
            clients,
            mask,
            resets,
            watches: 3,
            visits,
            quorum: None,
        }
    }

    /// Server 3 of four.
    fn of_ensemble(mode: Mode) -> Fake {
        let mut fake = Fake::new();
        let dynamic = THREE_AND_AN_OBSERVER.lines().filter(|line| line.starts_with("server"));
        let lines: Vec<&str> = dynamic.collect();
        let text =
            format!("initLimit=10\nsyncLimit=5\ndataDir=/data\ndataLogDir=/log\n{}\n", lines.join("\n"));
        let read =
            |path: &Path| Ok(Some(if path.ends_with("myid") { "3".into() } else { text.clone().into() }));
        fake.config = Config::read(Some(Path::new("zoo.cfg")), &[], &read).unwrap().config;
        fake.mode = mode;
        let config = Arc::new(QuorumConfig::parse(THREE_AND_AN_OBSERVER).unwrap());
        let learners = [(1, true, true), (2, true, false), (4, false, true), (9, false, true)];
        let learners = learners.map(|(id, voter, in_step)| (ServerId(id), voter, in_step));
        fake.quorum = Some(QuorumFigures {
            leader: (mode != Mode::Leader).then_some(ServerId(2)),
            epoch_accepted: Epoch(8),
            epoch_current: Epoch(7),
            recall: Recall::Whole,
            appended: Zxid::new(Epoch(7), 3),
            committed: Zxid::new(Epoch(7), 2),
            learners: Learners::count(&learners, &config),
            leading_ms: 777,
            elections: 2,
            looking: 3,
            election_ms: Summary { count: 2, sum: 30, min: 10, max: 20, ..Summary::default() },
            unavailable_ms: Summary { count: 2, sum: 50, min: 20, max: 30, ..Summary::default() },
            leader_unavailable_ms: Summary::default(),
            config,
        });
        fake
    }

    fn ask(&self, word: Word) -> String {
        let (all, _) = Whitelist::parse("*", false);
        let mut out = Vec::new();
        answer(word, &all, self, Some(7), &mut out);
        String::from_utf8(out).unwrap()
    }
}

impl ServerView for Fake {
    fn serving(&self) -> bool {
        self.serving
    }
    fn mode(&self) -> Mode {
        self.mode
    }
    fn quorum(&self) -> Option<QuorumFigures> {
        self.quorum.clone()
    }
    fn config(&self) -> &Config {
        &self.config
    }
    fn stats(&self) -> &ServerStats {
        &self.stats
    }
    fn client_port(&self) -> u16 {
        2_181
    }
    fn last_zxid(&self) -> Zxid {
        Zxid(0x2a)
    }
    fn outstanding(&self) -> u64 {
        4
    }
    fn connection_count(&self) -> usize {
        self.clients.len()
    }
    fn uptime_ms(&self) -> u64 {
        12_345
    }
    fn tree(&self) -> TreeFigures {
        TreeFigures {
            nodes: 5,
            watches: 3,
            ephemerals: 2,
            sessions_with_ephemerals: 2,
            data_bytes: 44,
            sessions: 1,
        }
    }
    fn dir_bytes(&self) -> (u64, u64) {
        (100, 200)
    }
    fn connections(&self, visit: &mut dyn FnMut(&ClientLine) -> ControlFlow<()>) {
        let _ = self.clients.iter().try_for_each(visit);
    }
    fn reset_connection_stats(&self) {
        self.resets.set(self.resets.get() + 1);
    }
    fn session_group_count(&self) -> (usize, usize) {
        (1, 2)
    }
    fn sessions_by_expiry(&self, visit: &mut dyn FnMut(SessionGroup<'_>) -> ControlFlow<()>) {
        let _ = visit(SessionGroup { expires_ms: 0, sessions: &[SessionId(16), SessionId(17)] });
    }
    fn ephemerals(&self, visit: &mut dyn FnMut(SessionId, &str) -> ControlFlow<()>) {
        for (session, path) in [(16, "/a"), (16, "/b"), (17, "/c")] {
            if visit(SessionId(session), path).is_break() {
                return;
            }
        }
    }
    fn watch_summary(&self) -> WatchSummary {
        WatchSummary { connections: 2, paths: 3, watches: 4 }
    }
    fn watches_by_connection(&self, visit: &mut dyn FnMut(ConnId, SessionId, &str) -> ControlFlow<()>) {
        for n in 0..self.watches {
            self.visits.set(n + 1);
            if visit(ConnId(n as u64 / 2), SessionId(n as i64 / 2 + 16), "/path").is_break() {
                return;
            }
        }
    }
    fn watches_by_path(&self, visit: &mut dyn FnMut(&str, SessionId) -> ControlFlow<()>) {
        for n in 0..self.watches {
            self.visits.set(n + 1);
            if visit(&format!("/p{}", n / 2), SessionId(n as i64 + 16)).is_break() {
                return;
            }
        }
    }
    fn digest_log(&self, visit: &mut dyn FnMut(Zxid, u64) -> ControlFlow<()>) {
        let _ = visit(Zxid(0x80), 1_371_985_504);
        let _ = visit(Zxid(0x100), u64::MAX);
    }
    fn trace_mask(&self) -> i64 {
        self.mask.get()
    }
    fn set_trace_mask(&self, mask: i64) {
        self.mask.set(mask);
    }
}

#[test]
fn srvr_is_zookeepers() {
    let want = format!(
        "Zookeeper version: 3.9.5-zabra-{ZABRA_VERSION}, built on {BUILT_ON}\n\
         Latency min/avg/max: 1/1.5/2\nReceived: 1\nSent: 1\nConnections: 2\nOutstanding: 4\nZxid: 0x2a\n\
         Mode: standalone\nNode count: 5\n"
    );
    assert_eq!(Fake::new().ask(Word::Srvr), want);
}

#[test]
fn stat_lists_clients_between_version_and_figures() {
    let text = Fake::new().ask(Word::Stat);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        &lines[1..6],
        [
            "Clients:",
            " /127.0.0.1:1000[1](queued=0,recved=1,sent=0)",
            " /127.0.0.1:2000[1](queued=0,recved=1,sent=1)",
            "",
            "Latency min/avg/max: 1/1.5/2",
        ]
    );
}

#[test]
fn the_version_is_what_programs_parse() {
    // kazoo: `([\d\.]*).*` on envi's zookeeper.version; others: `Zookeeper version: (\d+)\.(\d+)\.([^-]+)`.
    let envi = Fake::new().ask(Word::Envi);
    let version = envi.lines().find_map(|l| l.strip_prefix("zookeeper.version=")).unwrap();
    let digits: String = version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    assert_eq!(digits, COMPATIBLE_WITH);
    assert!(version[digits.len()..].starts_with("-zabra-"), "{version}");
    assert!(envi.contains(&format!("zabra.version={ZABRA_VERSION}\n")));
    assert!(envi.starts_with("Environment:\n"));
    assert_eq!(VERSION, format!("{ZABRA_VERSION} (compatible with ZooKeeper {COMPATIBLE_WITH})"));
}

#[test]
fn leaders_and_read_only_servers_say_more() {
    let mut fake = Fake::new();
    fake.mode = Mode::ReadOnly;
    assert!(fake.ask(Word::Srvr).contains("\nREAD-ONLY mode; serving only read-only clients\n"));
    assert_eq!(fake.ask(Word::Isro), "ro");
    fake.mode = Mode::Leader;
    assert!(fake.ask(Word::Srvr).ends_with("Node count: 5\nProposal sizes last/min/max: -1/-1/-1\n"));
    assert!(fake.ask(Word::Mntr).contains("zk_last_proposal_size\t-1\n"));
    assert_eq!(fake.ask(Word::Isro), "rw");
}

#[test]
fn a_member_of_an_ensemble_says_what_zookeepers_peers_say() {
    let lines = |mode| Fake::of_ensemble(mode).ask(Word::Mntr);
    let has = |text: &str, all: &[&str]| {
        for wanted in all {
            assert!(text.contains(&format!("\nzk_{}\n", wanted.replace(' ', "\t"))), "{wanted} in\n{text}");
        }
    };
    let everybody = ["quorum_size 3", "looking_count 3", "avg_election_time 15.0", "cnt_unavailable_time 2"];
    let epochs = ["zabra_epoch_accepted 8", "zabra_epoch_current 7", "zabra_elections 2"];
    let places =
        ["zabra_zxid_appended 30064771075", "zabra_zxid_committed 30064771074", "zabra_zxid_applied 42"];
    for mode in [Mode::Leader, Mode::Follower, Mode::Observer] {
        let text = lines(mode);
        has(&text, &everybody);
        has(&text, &epochs);
        has(&text, &places);
        assert!(text.contains(&format!("\nzk_server_state\t{}\nzk_peer_state\t", mode.name())));
    }
    let leader = lines(Mode::Leader);
    assert!(leader.contains("\nzk_peer_state\tleading - broadcast\n"));
    // Server 9 is no member: ZooKeeper counts it with the followers.
    has(
        &leader,
        &["learners 4", "synced_followers 2", "synced_non_voting_followers 1", "synced_observers 1"],
    );
    has(&leader, &["leader_uptime 777", "last_proposal_size -1"]);
    let follower = lines(Mode::Follower);
    assert!(follower.contains("\nzk_peer_state\tfollowing - broadcast\n"));
    has(&follower, &["zabra_leader_id 2"]);
    let observer = lines(Mode::Observer);
    assert!(observer.contains("\nzk_peer_state\tobserving - broadcast\n"));
    has(&observer, &["observer_master_id 2"]);
    for (text, absent) in [
        (&leader, ["zabra_leader_id", "observer_master_id"]),
        (&follower, ["synced_observers", "leader_uptime"]),
        (&observer, ["synced_followers", "learners"]),
    ] {
        assert!(absent.iter().all(|key| !text.contains(&format!("\nzk_{key}\t"))), "{absent:?} in\n{text}");
    }
}

#[test]
fn the_mode_of_a_member_is_its_role() {
    for (mode, said) in [(Mode::Leader, "leader"), (Mode::Follower, "follower"), (Mode::Observer, "observer")]
    {
        for word in [Word::Srvr, Word::Stat] {
            assert!(Fake::of_ensemble(mode).ask(word).contains(&format!("\nMode: {said}\n")), "{word}");
        }
    }
}

#[test]
fn conf_of_a_member_ends_in_the_membership() {
    let text = Fake::of_ensemble(Mode::Follower).ask(Word::Conf);
    let want = "\nserverId=3\ninitLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3889\nquorumPort=2889\n\
                peerType=0\nmembership: \n";
    assert!(text.contains(&format!("{want}{THREE_AND_AN_OBSERVER}")), "{text}");
    assert!(text.ends_with("\nversion=100000000"), "no end of line behind it, as in ZooKeeper");
}

#[test]
fn a_member_without_a_leader_is_alive_and_says_nothing_else() {
    let mut fake = Fake::of_ensemble(Mode::Follower);
    fake.serving = false;
    for word in [Word::Mntr, Word::Conf, Word::Srvr, Word::Stat] {
        assert_eq!(fake.ask(word), "This ZooKeeper instance is not currently serving requests\n", "{word}");
    }
    assert_eq!((fake.ask(Word::Ruok), fake.ask(Word::Isro)), ("imok".into(), "null".into()));
}

#[test]
fn cons_is_zookeepers() {
    let want = " /127.0.0.1:1000[1](queued=0,recved=1,sent=0)\n \
                /127.0.0.1:2000[1](queued=0,recved=1,sent=1,sid=0x10,lop=GETD,est=1000,to=30000,lcxid=0x5,lzxid=0x20,\
                lresp=9000,llat=3,minlat=3,avglat=3,maxlat=3)\n\n";
    assert_eq!(Fake::new().ask(Word::Cons), want);
}

#[test]
fn conf_is_zookeepers() {
    let want = "clientPort=2181\nsecureClientPort=-1\ndataDir=/data\ndataDirSize=100\ndataLogDir=/log\n\
                dataLogSize=200\ntickTime=3000\nmaxClientCnxns=60\nminSessionTimeout=6000\nmaxSessionTimeout=60000\n\
                clientPortListenBacklog=-1\nserverId=3\n";
    assert_eq!(Fake::new().ask(Word::Conf), want);
}

#[test]
fn dump_is_zookeepers() {
    let want = "SessionTracker dump:\nSession Sets (1)/(2):\n2 expire at Thu Jan 01 00:00:00 UTC 1970:\n\t0x10\n\t0x11\n\
                ephemeral nodes dump:\nSessions with Ephemerals (2):\n0x10:\n\t/a\n\t/b\n0x11:\n\t/c\n\
                Connections dump:\nConnections Sets (1)/(2):\n\tip: /127.0.0.1:1000 sessionId: 0x0\n\
                \tip: /127.0.0.1:2000 sessionId: 0x10\n";
    assert_eq!(Fake::new().ask(Word::Dump), want);
}

#[test]
fn watches_are_listed_by_connection_and_by_path() {
    let fake = Fake::new();
    assert_eq!(fake.ask(Word::Wchs), "2 connections watching 3 paths\nTotal watches:4\n");
    assert_eq!(fake.ask(Word::Wchc), "0x10\n\t/path\n\t/path\n0x11\n\t/path\n\n");
    assert_eq!(fake.ask(Word::Wchp), "/p0\n\t0x10\n\t0x11\n/p1\n\t0x12\n\n");
}

#[test]
fn a_million_watches_do_not_make_a_word_expensive() {
    let mut fake = Fake::new();
    fake.watches = 10_000_000;
    for word in [Word::Wchc, Word::Wchp] {
        let text = fake.ask(word);
        assert!(text.len() <= OUTPUT_BYTES_MAX + 100);
        assert!(text.ends_with("(cut here: the answer would be too long)\n"));
        assert!(fake.visits.get() < 1_000_000, "{} visits", fake.visits.get());
    }
}

#[test]
fn a_cut_client_list_still_ends_in_the_figures() {
    let mut fake = Fake::new();
    fake.clients = vec![fake.clients[1]; 100_000];
    let text = fake.ask(Word::Stat);
    assert!(text.contains("\n(cut here: the answer would be too long)\nLatency min/avg/max: "));
    assert!(text.ends_with("Mode: standalone\nNode count: 5\n"));
}

#[test]
fn small_words() {
    let fake = Fake::new();
    assert_eq!(fake.ask(Word::Ruok), "imok");
    assert_eq!(fake.ask(Word::Dirs), "datadir_size: 100\nlogdir_size: 200\n");
    assert_eq!(fake.ask(Word::Gtmk), "306");
    assert_eq!(fake.ask(Word::Stmk), "7");
    assert_eq!(fake.ask(Word::Gtmk), "7");
    assert_eq!(fake.ask(Word::Hash), "80: 1371985504\n100: -1\n");
    assert_eq!(fake.ask(Word::Crst), "Connection stats reset.\n");
    assert_eq!(fake.resets.get(), 1);
    assert_eq!(fake.ask(Word::Srst), "Server stats reset.\n");
    assert!(fake.ask(Word::Srvr).contains("Received: 0\nSent: 0\n"));
    assert_eq!(fake.ask(Word::TelnetClose), "");
}

#[test]
fn mntr_lines_have_a_key_a_tab_and_a_number() {
    let text = Fake::new().ask(Word::Mntr);
    assert!(text.starts_with("zk_version\t3.9.5-zabra-"));
    assert!(text.contains("\nzk_server_state\tstandalone\n"));
    for word in ["peer_state", "quorum_size", "looking_count", "zabra_epoch_current"] {
        assert!(!text.contains(word), "{word} is for members of an ensemble");
    }
    for line in text.lines() {
        let (key, value) = line.split_once('\t').expect(line);
        assert!(
            key.strip_prefix("zk_")
                .is_some_and(|k| k.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        );
        assert!(["zk_version", "zk_server_state"].contains(&key) || value.parse::<f64>().is_ok(), "{line}");
    }
    for wanted in [
        "zk_avg_latency\t1.5\n",
        "zk_znode_count\t5\n",
        "zk_watch_count\t3\n",
        "zk_ephemerals_count\t2\n",
        "zk_approximate_data_size\t44\n",
        "zk_num_alive_connections\t2\n",
        "zk_uptime\t12345\n",
        "zk_last_client_response_size\t84\n",
        "zk_avg_updatelatency\t1.5\n",
        "zk_cnt_updatelatency\t1\n",
        "zk_p99_updatelatency\t1\n",
        "zk_cnt_readlatency\t0\n",
        "zk_avg_fsynctime\t0.0\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} in\n{text}");
    }
    let keys: Vec<&str> = text.lines().map(|l| l.split('\t').next().unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(keys.len(), distinct.len(), "no key twice");
}

#[test]
fn words_off_the_whitelist_are_refused_with_zookeepers_line() {
    let fake = Fake::new();
    let (list, _) = Whitelist::parse("ruok", false);
    for word in Word::ALL {
        let mut out = Vec::new();
        answer(*word, &list, &fake, None, &mut out);
        let refused = format!("{word} is not executed because it is not in the whitelist.\n");
        let allowed = matches!(word, Word::Ruok | Word::Srvr | Word::Memb | Word::TelnetClose);
        assert_eq!(String::from_utf8(out).unwrap() == refused, !allowed, "{word}");
    }
    assert_eq!(fake.resets.get(), 0);
}

#[test]
fn a_server_that_is_not_serving_says_so() {
    let mut fake = Fake::new();
    fake.serving = false;
    let refused = "This ZooKeeper instance is not currently serving requests\n";
    for word in Word::ALL {
        let text = fake.ask(*word);
        match word {
            Word::Ruok => assert_eq!(text, "imok"),
            Word::Isro => assert_eq!(text, "null"),
            Word::Hash => assert_eq!(text, refused.trim_end()),
            Word::Envi => assert!(text.starts_with("Environment:")),
            Word::Memb => assert!(text.starts_with("state\tlooking\n"), "{text}"),
            Word::Gtmk => assert_eq!(text, "306"),
            Word::Stmk => {
                assert_eq!(text, "7");
                fake.mask.set(TRACE_MASK_DEFAULT);
            }
            Word::TelnetClose => assert_eq!(text, ""),
            _ => assert_eq!(text, refused, "{word}"),
        }
    }
}

#[test]
fn stmk_without_its_mask_changes_nothing() {
    let fake = Fake::new();
    let (all, _) = Whitelist::parse("*", false);
    let mut out = Vec::new();
    answer(Word::Stmk, &all, &fake, None, &mut out);
    assert_eq!((out.len(), fake.mask.get()), (0, TRACE_MASK_DEFAULT));
}
