//! What writes do, as clients see it: sequence numbers, versions, multis, sessions, limits. Items are those that ZooKeeper's
//! suites check and naive servers get wrong.

use zabra::base::{ConnId, Epoch, SessionId, Zxid};
use zabra::node::auth::{digest_id, open_acl};
use zabra::node::{AuthIds, Prepare, PrepareOptions, WriteRequest};
use zabra::testing::world::{Client, World, body};
use zabra::tree::Owner;
use zabra::wire::OpCode::*;
use zabra::wire::jute::Reader;
use zabra::wire::reply::EventType::NodeChildrenChanged;
use zabra::wire::txn::{CreateTxn, Lifetime, Proposal, Txn, TxnHeader, kind};
use zabra::wire::{AclVec, ErrorCode, Stat, perms};

fn world() -> (World, Client) {
    let mut world = World::default();
    let client = world.client();
    (world, client)
}

fn stat(world: &World, client: &Client, path: &str) -> Stat {
    world.read(client, Exists, &body::path_watch(path, false)).stat()
}

fn small() -> PrepareOptions {
    PrepareOptions { ephemeral_bytes_max: 100, payload_bytes_max: 1_000, ..PrepareOptions::default() }
}

#[test]
fn the_sequence_suffix_is_the_parents_count_of_creates_and_never_goes_down() {
    let (mut world, client) = world();
    world.must(&client, Create, &body::create("/q", 0));
    let mut made = |flags| world.must(&client, Create, &body::create("/q/n-", flags)).path().to_owned();
    assert_eq!(made(2), "/q/n-0000000000");
    assert_eq!(made(3), "/q/n-0000000001");
    world.must(&client, Create, &body::create("/q/plain", 0));
    world.must(&client, Delete, &body::path_int("/q/n-0000000000", -1));
    let made = world.must(&client, Create, &body::create("/q/n-", 2));
    assert_eq!(made.path(), "/q/n-0000000003", "a plain create counts, a delete does not");
}

#[test]
fn sequence_numbers_see_creates_that_are_still_pending() {
    let (mut world, client) = world();
    world.must(&client, Create, &body::create("/q", 0));
    for _ in 0..3 {
        world.submit(&client, 1, Create, &body::create("/q/n-", 2));
    }
    for n in 0..3 {
        assert_eq!(world.apply_one().unwrap().path(), format!("/q/n-000000000{n}"));
    }
}

#[test]
fn the_sequence_is_appended_before_the_path_is_checked() {
    let (mut world, client) = world();
    world.must(&client, Create, &body::create("/a", 0));
    assert_eq!(world.must(&client, Create, &body::create("/a/", 2)).path(), "/a/0000000000");
    // `/zookeeper` is there from the start, but no transaction made it.
    assert_eq!(world.must(&client, Create, &body::create("/", 2)).path(), "/0000000001");
    assert_eq!(world.write(&client, Create, &body::create("/a/", 0)).code(), ErrorCode::BadArguments);
}

#[test]
fn a_sequence_at_the_end_of_the_numbers_sticks_and_then_the_node_exists() {
    let (mut world, client) = world();
    world.must(&client, Create, &body::create("/q", 0));
    set_cversion(&mut world, "/q", i32::MAX);
    assert_eq!(world.must(&client, Create, &body::create("/q/n-", 2)).path(), "/q/n-2147483647");
    assert_eq!(world.write(&client, Create, &body::create("/q/n-", 2)).code(), ErrorCode::NodeExists);
    world.submit(&client, 1, Create, &body::create("/q/m-", 2));
    world.submit(&client, 1, Create, &body::create("/q/m-", 2));
    assert_eq!(world.apply_one().unwrap().path(), "/q/m-2147483647");
    assert_eq!(world.apply_one().unwrap().code(), ErrorCode::NodeExists, "pipelined or not");
}

/// Applies a create that claims to be the parent's `cversion`-th: the short way to a parent with very many creates.
fn set_cversion(world: &mut World, parent: &str, cversion: i32) {
    let path = format!("{parent}/first");
    let open = open_acl();
    let txn = Txn::Create(CreateTxn {
        path: &path,
        data: None,
        acl: AclVec::read(&mut Reader::new(&open)).unwrap(),
        lifetime: Lifetime::Persistent,
        parent_cversion: cversion,
    });
    let zxid = world.tree.applied().next();
    let header = TxnHeader { zxid: zxid.to_wire(), kind: kind::CREATE, ..TxnHeader::default() };
    world.tree.apply(&Proposal { header, txn, digest: None }, &mut world.fired);
    let options = world.prepare.options().clone();
    world.prepare = Prepare::new(zxid, world.tree.digest(), options);
}

#[test]
fn the_op_code_decides_what_is_made_and_the_flags_only_sequence_and_ephemeral() {
    let (mut world, client) = world();
    world.must(&client, Create2, &body::create("/plain", 4));
    assert_eq!(world.tree.find("/plain").unwrap().owner(), Owner::Persistent);
    world.must(&client, CreateContainer, &body::create("/container", 0));
    assert_eq!(world.tree.find("/container").unwrap().owner(), Owner::Container);
    let made = world.must(&client, CreateContainer, &body::create("/container-", 2));
    assert_eq!(world.tree.find(made.path()).unwrap().owner(), Owner::Container);
    assert_eq!(stat(&world, &client, "/container").ephemeral_owner, 0);
    world.must(&client, Create, &body::create("/e", 1));
    assert_eq!(stat(&world, &client, "/e").ephemeral_owner, client.session.0);
}

#[test]
fn ttl_nodes_carry_their_ttl_and_show_no_owner() {
    let mut world = World::new(PrepareOptions { extended_types: true, ..PrepareOptions::default() });
    let client = world.client();
    world.must(&client, CreateTtl, &body::create_ttl("/ttl", 5, 7_000));
    assert_eq!(world.tree.find("/ttl").unwrap().owner(), Owner::Ttl(7_000));
    assert_eq!(stat(&world, &client, "/ttl").ephemeral_owner, 0);
    world.must(&client, Create, &body::create("/ttl/child", 0));
    let made = world.must(&client, CreateTtl, &body::create_ttl("/ttl/", 6, 7_000));
    assert_eq!(made.path(), "/ttl/0000000001");
}

#[test]
fn create_answers_with_the_path_and_its_siblings_with_the_stat_as_well() {
    let (mut world, client) = world();
    assert_eq!(world.must(&client, Create, &body::create("/a", 0)).body.len(), 4 + 2);
    let reply = world.must(&client, Create2, &body::create("/b", 0));
    assert_eq!((reply.path(), reply.body.len()), ("/b", 4 + 2 + 68));
    let stat = reply.stat();
    assert_eq!((stat.version, stat.cversion, stat.num_children, stat.data_length), (0, 0, 0, 4));
    assert_eq!((stat.czxid, stat.pzxid, stat.mzxid), (reply.zxid, reply.zxid, reply.zxid));
    assert_eq!((stat.ctime, stat.mtime), (1_000, 1_000), "time is that of the transaction header");
    assert_eq!(world.must(&client, CreateContainer, &body::create("/c", 4)).stat().ephemeral_owner, 0);
}

#[test]
fn versions_are_bumped_even_when_the_data_stays_the_same_and_null_is_not_empty() {
    let (mut world, client) = world();
    world.must(&client, Create, &body::create("/a", 0));
    let same = world.must(&client, SetData, &body::set_data("/a", Some(b"data"), 0)).stat();
    assert_eq!((same.version, same.mzxid), (1, world.tree.applied().to_wire()));
    let null = world.must(&client, SetData, &body::set_data("/a", None, 1)).stat();
    assert_eq!((null.version, null.data_length), (2, 0));
    let reply = world.read(&client, GetData, &body::path_watch("/a", false));
    assert_eq!(reply.body[..4], (-1i32).to_be_bytes());
    world.must(&client, SetData, &body::set_data("/a", Some(b""), 2));
    let reply = world.read(&client, GetData, &body::path_watch("/a", false));
    assert_eq!(reply.body[..4], [0; 4]);
}

#[test]
fn set_acl_bumps_the_aversion_alone() {
    let (mut world, client) = world();
    world.must(&client, Create, &body::create("/a", 0));
    let before = stat(&world, &client, "/a");
    let after = world.must(&client, SetAcl, &body::set_acl("/a", &open_acl(), 0)).stat();
    assert_eq!(after, Stat { aversion: 1, ..before });
}

#[test]
fn pipelined_writes_see_each_other_before_any_is_applied() {
    let (mut world, client) = world();
    let steps = [
        (Create, body::create("/a", 0), ErrorCode::Ok),
        (Create, body::create("/a/b", 0), ErrorCode::Ok),
        (SetData, body::set_data("/a/b", Some(b"1"), 0), ErrorCode::Ok),
        (SetData, body::set_data("/a/b", Some(b"2"), 0), ErrorCode::BadVersion),
        (Delete, body::path_int("/a", -1), ErrorCode::NotEmpty),
        (Delete, body::path_int("/a/b", 1), ErrorCode::Ok),
        (SetData, body::set_data("/a/b", Some(b"3"), -1), ErrorCode::NoNode),
        (Delete, body::path_int("/a", 0), ErrorCode::Ok),
        (Create, body::create("/a/c", 0), ErrorCode::NoNode),
        (Create, body::create("/a", 1), ErrorCode::Ok),
        (Create, body::create("/a/c", 0), ErrorCode::NoChildrenForEphemerals),
    ];
    for (op, body, _) in &steps {
        world.submit(&client, 1, *op, body);
    }
    for (i, (op, _, code)) in steps.iter().enumerate() {
        assert_eq!(world.apply_one().unwrap().code(), *code, "step {i}: {op:?}");
    }
}

#[test]
fn a_pending_acl_decides_at_once() {
    let (mut world, client) = world();
    let mut admin = world.client();
    world.login(&mut admin, "a:1");
    world.must(&admin, Create, &body::create("/a", 0));
    let only_admin = body::acl(&[(perms::ALL, "auth", "")]);
    world.submit(&admin, 1, SetAcl, &body::set_acl("/a", &only_admin, -1));
    world.submit(&client, 1, SetData, &body::set_data("/a", None, -1));
    world.submit(&admin, 1, SetData, &body::set_data("/a", None, -1));
    world.submit(&client, 1, Create, &body::create("/a/x", 0));
    let mut codes = Vec::new();
    while let Some(reply) = world.apply_one() {
        codes.push(reply.code());
    }
    assert_eq!(codes, [ErrorCode::Ok, ErrorCode::NoAuth, ErrorCode::Ok, ErrorCode::NoAuth]);
    let acl = world.tree.acl(world.tree.find("/a").unwrap().acl_id());
    let entry = acl.iter().next().unwrap();
    let id = digest_id("a:1");
    assert_eq!((entry.scheme, entry.id), (Some("digest"), Some(id.as_str())), "auth is resolved");
}

#[test]
fn a_multi_is_one_transaction_whose_parts_see_each_other() {
    let (mut world, client) = world();
    let ops = [
        (Create, body::create("/p", 0)),
        (Create2, body::create("/p/s-", 2)),
        (CreateContainer, body::create("/p/s-", 2)),
        (SetData, body::set_data("/p", Some(b"x"), 0)),
        (Check, body::path_int("/p", 1)),
        (Delete, body::path_int("/p/s-0000000000", -1)),
    ];
    let reply = world.must(&client, Multi, &body::multi(&ops));
    assert_eq!(reply.results(), [(1, 0), (15, 0), (15, 0), (5, 0), (13, 0), (2, 0)]);
    let (p, s) = (stat(&world, &client, "/p"), stat(&world, &client, "/p/s-0000000001"));
    assert_eq!((p.czxid, p.mzxid, s.czxid), (reply.zxid, reply.zxid, reply.zxid), "one zxid for the lot");
}

#[test]
fn a_failed_multi_has_header_error_0_and_errors_as_results() {
    let (mut world, client) = world();
    let ops = [
        (Create, body::create("/p", 0)),
        (SetData, body::set_data("/missing", None, -1)),
        (Create, body::create("/never", 0)),
    ];
    let reply = world.must(&client, Multi, &body::multi(&ops));
    assert_eq!(reply.results(), [(-1, 0), (-1, -101), (-1, -2)]);
    let logged = world.log.last().unwrap();
    let proposal = Proposal::read(logged).unwrap();
    let Txn::Multi(multi) = proposal.txn else { panic!("logged as a multi") };
    let kinds: Vec<_> = multi.iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [kind::CREATE, kind::ERROR, kind::ERROR]);
    assert!(proposal.digest.is_some());
    for path in ["/p", "/never"] {
        assert!(world.tree.find(path).is_none());
    }
}

#[test]
fn a_failed_multi_takes_back_what_it_changed_on_top_of_pending_writes() {
    let (mut world, client) = world();
    world.must(&client, Create, &body::create("/q", 0));
    world.submit(&client, 1, Create, &body::create("/q/n-", 2));
    let nobody = body::acl(&[(perms::ALL, "ip", "9.9.9.9")]);
    let ops = [
        (Create, body::create("/q/n-", 3)),
        (SetData, body::set_data("/q", Some(b"gone"), 0)),
        (Create, body::create_with("/q/guarded", None, 0, &nobody)),
        (Delete, body::path_int("/q/n-0000000000", -1)),
        (Check, body::path_int("/missing", -1)),
    ];
    world.submit(&client, 1, Multi, &body::multi(&ops));
    world.submit(&client, 1, Create, &body::create("/q/n-", 2));
    world.submit(&client, 1, SetData, &body::set_data("/q", Some(b"kept"), 0));
    world.submit(&client, 1, SetData, &body::set_data("/q/n-0000000000", Some(b"kept"), 0));
    assert_eq!(world.apply_one().unwrap().path(), "/q/n-0000000000");
    assert_eq!(world.apply_one().unwrap().results().len(), 5);
    assert_eq!(world.apply_one().unwrap().path(), "/q/n-0000000001", "the parent's count is back");
    assert_eq!(world.apply_one().unwrap().stat().version, 1);
    assert_eq!(world.apply_one().unwrap().stat().version, 1);
    world.apply_all();
}

#[test]
fn an_empty_multi_is_valid() {
    let (mut world, client) = world();
    assert_eq!(world.must(&client, Multi, &body::multi(&[])).results(), []);
}

#[test]
fn a_flag_that_no_mode_has_spoils_a_multi_but_not_a_create() {
    let (mut world, client) = world();
    let multi = body::multi(&[(Create, body::create("/a", 9))]);
    assert_eq!(world.write(&client, Multi, &multi).code(), ErrorCode::MarshallingError);
    assert_eq!(world.write(&client, Create, &body::create("/a", 9)).code(), ErrorCode::BadArguments);
}

#[test]
fn a_multi_of_an_ended_session_says_so_in_its_results() {
    let (mut world, client) = world();
    world.sessions.set_closing(client.session);
    let ops = [(Create, body::create("/a", 0)), (Create, body::create("/b", 0))];
    assert_eq!(world.must(&client, Multi, &body::multi(&ops)).results(), [(-1, -112), (-1, -2)]);
}

#[test]
fn close_session_takes_all_ephemerals_in_one_transaction_and_closes() {
    let (mut world, client) = world();
    let other = world.client();
    world.must(&client, Create, &body::create("/p", 0));
    for path in ["/p/b", "/z"] {
        world.must(&client, Create, &body::create(path, 1));
    }
    world.must(&other, Create, &body::create("/other", 1));
    world.tree.watch_children("/p", other.conn).unwrap();
    let reply = world.write(&client, CloseSession, &[]);
    assert_eq!((reply.code(), reply.close_after, reply.body.len()), (ErrorCode::Ok, true, 0));
    for path in ["/p/b", "/z"] {
        assert!(world.tree.find(path).is_none());
    }
    assert!(world.tree.find("/other").is_some());
    assert_eq!(world.fired(), [(NodeChildrenChanged, "/p".to_owned(), vec![other.conn])]);
    assert_eq!(world.tree.session_timeout(client.session), None);
    assert_eq!(stat(&world, &other, "/p").pzxid, reply.zxid);
}

#[test]
fn close_session_covers_ephemerals_that_are_pending_and_leaves_out_deleted_ones() {
    let (mut world, client) = world();
    for path in ["/applied", "/deleted", "/again"] {
        world.must(&client, Create, &body::create(path, 1));
    }
    let other = world.client();
    world.submit(&client, 1, Create, &body::create("/pending", 1));
    world.submit(&other, 1, Delete, &body::path_int("/deleted", -1));
    world.submit(&other, 1, Delete, &body::path_int("/again", -1));
    world.submit(&other, 1, Create, &body::create("/again", 1));
    world.submit(&client, 1, Create, &body::create("/short", 1));
    world.submit(&client, 1, Delete, &body::path_int("/short", -1));
    world.submit(&client, 1, CloseSession, &[]);
    world.apply_all();
    let payload = world.log.last().unwrap();
    let Txn::CloseSession { paths: Some(paths) } = Proposal::read(payload).unwrap().txn else {
        panic!("a list of paths")
    };
    assert_eq!(paths.iter().collect::<Vec<_>>(), ["/applied", "/pending"]);
    assert!(world.tree.find("/again").is_some(), "it is somebody else's by now");
}

#[test]
fn requests_behind_the_close_of_their_session_find_it_expired() {
    let (mut world, client) = world();
    world.submit(&client, 1, CloseSession, &[]);
    world.submit(&client, 2, Create, &body::create("/late", 0));
    assert_eq!(world.apply_one().unwrap().code(), ErrorCode::Ok);
    assert_eq!(world.apply_one().unwrap().code(), ErrorCode::SessionExpired);
}

#[test]
fn a_session_cannot_own_more_ephemerals_than_one_close_can_list() {
    let mut world = World::new(small());
    let client = world.client();
    // 4 + 6 bytes each: ten fit, some of them applied and some pending.
    for n in 0..10 {
        world.submit(&client, 1, Create, &body::create(&format!("/eph-{n}"), 1));
        if n == 4 {
            world.apply_all();
        }
    }
    assert_eq!(world.apply_all().unwrap().code(), ErrorCode::Ok);
    assert_eq!(world.write(&client, Create, &body::create("/eph-x", 1)).code(), ErrorCode::QuotaExceeded);
    let swap = body::multi(&[(Delete, body::path_int("/eph-0", -1)), (Create, body::create("/eph-y", 1))]);
    assert_eq!(world.must(&client, Multi, &swap).results(), [(2, 0), (1, 0)], "one goes, one comes");
    let fails =
        body::multi(&[(Delete, body::path_int("/eph-1", -1)), (Check, body::path_int("/missing", -1))]);
    world.must(&client, Multi, &fails);
    let code = world.write(&client, Create, &body::create("/eph-x", 1)).code();
    assert_eq!(code, ErrorCode::QuotaExceeded, "what a failed multi deleted still counts");
    world.must(&client, Create, &body::create("/persistent", 0));
    let other = world.client();
    world.must(&other, Create, &body::create("/eph-z", 1));
    world.prepare = Prepare::new(world.tree.applied(), world.tree.digest(), small());
    let code = world.write(&client, Create, &body::create("/eph-x", 1)).code();
    assert_eq!(code, ErrorCode::QuotaExceeded, "a restart forgets nothing");
    world.must(&client, CloseSession, &[]);
    assert!(world.tree.find("/eph-y").is_none());
}

#[test]
fn a_transaction_that_grows_too_large_fails_as_a_whole() {
    let mut world = World::new(small());
    let mut client = world.client();
    for n in 0..20 {
        world.login(&mut client, &format!("user-{n}:x"));
    }
    // A few bytes of `auth` stand for twenty ids.
    let auth = body::acl(&[(perms::ALL, "auth", "")]);
    let create = body::create_with("/b", None, 0, &auth);
    let multi = body::multi(&[
        (Create, body::create("/a", 0)),
        (Create, create.clone()),
        (Create, body::create("/c", 0)),
    ]);
    assert_eq!(world.write(&client, Multi, &multi).code(), ErrorCode::BadArguments);
    assert_eq!(world.write(&client, Create, &create).code(), ErrorCode::BadArguments);
    world.must(&client, Create, &body::create("/a", 0));
}

#[test]
fn the_counter_of_an_epoch_may_end_in_the_middle_of_a_group() {
    let mut world = World::default();
    let last = Zxid::new(Epoch(3), u32::MAX - 1);
    world.prepare = Prepare::new(last, world.tree.digest(), PrepareOptions::default());
    let client = world.client();
    assert_eq!(world.tree.applied(), Zxid::new(Epoch(3), u32::MAX));
    assert_eq!(world.submit(&client, 1, Create, &body::create("/a", 0)), Zxid::new(Epoch(4), 1));
    assert_eq!(world.submit(&client, 1, Create, &body::create("/a/b", 0)), Zxid::new(Epoch(4), 2));
    assert_eq!(world.apply_all().unwrap().code(), ErrorCode::Ok);
}

#[test]
fn with_digests_off_payloads_carry_none() {
    let mut world = World::new(PrepareOptions { digest: false, ..PrepareOptions::default() });
    let client = world.client();
    world.submit(&client, 1, Create, &body::create("/a", 0));
    assert_eq!(Proposal::read(world.log.last().unwrap()).unwrap().digest, None);
}

#[test]
fn a_failed_write_is_an_error_transaction_without_a_digest() {
    let (mut world, client) = world();
    world.write(&client, Delete, &body::path_int("/missing", -1));
    let proposal = Proposal::read(world.log.last().unwrap()).unwrap();
    assert_eq!((proposal.header.kind, proposal.digest), (kind::ERROR, None));
    assert_eq!(proposal.txn, Txn::Error { err: -101 });
    assert_eq!(proposal.header.client_id, client.session.0);
}

#[test]
fn the_reaper_asks_for_the_server_itself() {
    let (mut world, client) = world();
    world.must(&client, CreateContainer, &body::create("/c", 4));
    let body = body::path_only("/c");
    let nobody = AuthIds::none();
    let req = WriteRequest {
        session: SessionId(0),
        cxid: 0,
        op: DeleteContainer,
        body: &body,
        auth: &nobody,
        conn: ConnId(0),
    };
    let mut out = Vec::new();
    world.prepare.prepare(&world.tree, &world.sessions, world.now, &req, &mut out);
    world.tree.apply(&Proposal::read(&out).unwrap(), &mut world.fired);
    assert!(world.tree.find("/c").is_none());
}

#[test]
fn clients_may_make_other_nodes_below_zookeeper_and_the_digest_leaves_them_out() {
    let (mut world, client) = world();
    let before = world.tree.digest();
    world.must(&client, Create, &body::create("/zookeeper/mine", 0));
    let created = world.tree.digest();
    assert_ne!(before, created, "/zookeeper itself changed");
    world.must(&client, Create, &body::create("/zookeeper/mine/x", 0));
    world.must(&client, SetData, &body::set_data("/zookeeper/mine", None, -1));
    world.must(&client, Delete, &body::path_int("/zookeeper/mine/x", -1));
    assert_eq!(world.tree.digest(), created);
}

#[test]
fn the_root_is_one_node_by_both_its_names_while_changes_are_pending() {
    let (mut world, client) = world();
    world.submit(&client, 1, SetData, &body::set_data("/", Some(b"root"), -1));
    world.submit(&client, 2, Create, &body::create("/a", 0));
    world.submit(&client, 3, SetData, &body::set_data("/", Some(b"again"), 1));
    world.submit(&client, 4, Delete, &body::path_int("/a", -1));
    let mut codes = Vec::new();
    while let Some(reply) = world.apply_one() {
        codes.push(reply.code());
    }
    assert_eq!(codes, [ErrorCode::Ok; 4]);
}
