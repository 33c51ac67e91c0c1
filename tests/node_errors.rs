//! The error a client gets when several things are wrong with its request: ZooKeeper's order of checks, one test per operation.
//! Every step mends what the step before complained of.

use zabra::base::{ConnId, MonoMs};
use zabra::node::auth::{digest_id, open_acl};
use zabra::node::{AuthOptions, PrepareOptions};
use zabra::testing::world::{Client, World, body};
use zabra::wire::OpCode::{self, *};
use zabra::wire::{ErrorCode, perms};

/// `/a` open with child `/a/x`; `/locked` for `admin:secret` alone, with child `/locked/x`; `/e` ephemeral. The client that is
/// returned is in the same session, but not logged in.
fn world(options: PrepareOptions) -> (World, Client) {
    let mut world = World::new(options);
    let stranger = world.client();
    let mut admin = stranger.clone();
    world.login(&mut admin, "admin:secret");
    let locked = body::acl(&[(perms::ALL, "digest", &digest_id("admin:secret"))]);
    world.must(&admin, Create, &body::create("/a", 0));
    world.must(&admin, Create, &body::create("/a/x", 0));
    world.must(&admin, Create, &body::create_with("/locked", None, 0, &locked));
    world.must(&admin, Create, &body::create("/locked/x", 0));
    world.must(&admin, Create, &body::create("/e", 1));
    (world, stranger)
}

fn no_acl() -> Vec<u8> {
    body::acl(&[])
}

/// A client whose session has ended.
fn gone(world: &mut World) -> Client {
    let client = world.client();
    world.sessions.set_closing(client.session);
    client
}

fn expect(world: &mut World, client: &Client, op: OpCode, body: &[u8], code: ErrorCode) {
    let before = world.tree.digest();
    let reply = world.write(client, op, body);
    assert_eq!(reply.code(), code, "{op:?}");
    assert!(reply.body.is_empty() && !reply.close_after);
    assert_eq!(reply.zxid, world.tree.applied().to_wire(), "a failed write has a zxid of its own");
    assert_eq!(world.tree.digest(), before, "a failed write changes nothing");
}

#[test]
fn create_checks_flags_session_path_acl_parent_permission_full_path_existence() {
    let (mut world, client) = world(PrepareOptions::default());
    let gone = gone(&mut world);
    let open = open_acl();
    for op in [Create, Create2, CreateContainer] {
        let mut step = |client: &Client, path: &str, flags: i32, acl: &[u8], code| {
            expect(&mut world, client, op, &body::create_with(path, None, flags, acl), code);
        };
        step(&gone, "nowhere", 9, &no_acl(), ErrorCode::BadArguments);
        step(&gone, "nowhere", -1, &no_acl(), ErrorCode::BadArguments);
        step(&gone, "nowhere", 5, &no_acl(), ErrorCode::Unimplemented);
        step(&gone, "nowhere", 0, &no_acl(), ErrorCode::SessionExpired);
        step(&client, "nowhere", 0, &no_acl(), ErrorCode::BadArguments);
        step(&client, "", 0, &no_acl(), ErrorCode::BadArguments);
        step(&client, "/missing/\0", 0, &no_acl(), ErrorCode::BadArguments);
        step(&client, "/missing/x/", 0, &no_acl(), ErrorCode::InvalidAcl);
        step(&client, "/missing/x/", 0, &open, ErrorCode::NoNode);
        step(&client, "missing/x", 0, &open, ErrorCode::NoNode);
        step(&client, "/locked/..", 0, &open, ErrorCode::NoAuth);
        step(&client, "/locked/x", 0, &open, ErrorCode::NoAuth);
        step(&client, "/a/..", 0, &open, ErrorCode::BadArguments);
        step(&client, "/a/", 0, &open, ErrorCode::BadArguments);
        step(&client, "//a", 0, &open, ErrorCode::BadArguments);
        step(&client, "/a/\u{1F600}", 0, &open, ErrorCode::BadArguments);
        step(&client, "/a/x", 0, &open, ErrorCode::NodeExists);
        step(&client, "/", 0, &open, ErrorCode::NodeExists);
        step(&client, "/e/x", 0, &open, ErrorCode::NoChildrenForEphemerals);
    }
}

fn set_quota(world: &mut World, client: &Client, path: &str, limits: &str) {
    let root = format!("/zookeeper/quota{path}");
    world.must(client, Create, &body::create(&root, 0));
    for (node, data) in [("zookeeper_limits", limits), ("zookeeper_stats", "count=0,bytes=0")] {
        let path = format!("{root}/{node}");
        world.must(client, Create, &body::create_with(&path, Some(data.as_bytes()), 0, &open_acl()));
    }
}

#[test]
fn create_finds_the_existing_node_and_the_ephemeral_parent_before_the_quota() {
    let options = PrepareOptions { enforce_quota: true, ..PrepareOptions::default() };
    let (mut world, client) = world(options);
    set_quota(&mut world, &client, "/a", "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=3");
    world.must(&client, Create, &body::create("/a/e", 1));
    expect(&mut world, &client, Create, &body::create("/a/e/x", 0), ErrorCode::NoChildrenForEphemerals);
    expect(&mut world, &client, Create, &body::create("/a/x", 0), ErrorCode::NodeExists);
    expect(&mut world, &client, Create, &body::create("/a/y", 0), ErrorCode::QuotaExceeded);
}

#[test]
fn a_hard_byte_quota_stops_creates_and_sets_and_a_soft_one_does_not() {
    let options = PrepareOptions { enforce_quota: true, ..PrepareOptions::default() };
    let (mut world, client) = world(options);
    // Two times "data" is used already.
    set_quota(&mut world, &client, "/a", "count=1,bytes=1=;byteHardLimit=12;countHardLimit=-1");
    world.must(&client, Create, &body::create("/a/y", 0));
    expect(&mut world, &client, Create, &body::create("/a/z", 0), ErrorCode::QuotaExceeded);
    let longer = body::set_data("/a/x", Some(b"longer"), 77);
    expect(&mut world, &client, SetData, &longer, ErrorCode::QuotaExceeded);
    expect(&mut world, &client, SetData, &body::set_data("/a/x", Some(b"1234"), 77), ErrorCode::BadVersion);
    world.must(&client, SetData, &body::set_data("/a/x", Some(b"1234"), -1));
}

/// A ZooKeeper that enforces quotas stumbles over such limits; one that does not never looks at them.
#[test]
fn limits_that_cannot_be_read_spoil_every_create_and_set_below_them() {
    let options = PrepareOptions { enforce_quota: true, ..PrepareOptions::default() };
    let (mut world, client) = world(options);
    set_quota(&mut world, &client, "/a", "count=many,bytes=1");
    expect(&mut world, &client, Create, &body::create("/a/y", 0), ErrorCode::MarshallingError);
    expect(&mut world, &client, SetData, &body::set_data("/a/x", None, -1), ErrorCode::MarshallingError);
    let multi = body::multi(&[(Create, body::create("/z", 0)), (Create, body::create("/a/y", 0))]);
    expect(&mut world, &client, Multi, &multi, ErrorCode::MarshallingError);
    world.must(&client, Delete, &body::path_int("/zookeeper/quota/a/zookeeper_limits", -1));
    world.must(&client, Create, &body::create("/a/y", 0));
}

#[test]
fn without_a_stats_node_no_quota_binds() {
    let options = PrepareOptions { enforce_quota: true, ..PrepareOptions::default() };
    let (mut world, client) = world(options);
    set_quota(&mut world, &client, "/a", "count=-1,bytes=-1=;byteHardLimit=1;countHardLimit=1");
    expect(&mut world, &client, Create, &body::create("/a/y", 0), ErrorCode::QuotaExceeded);
    world.must(&client, Delete, &body::path_int("/zookeeper/quota/a/zookeeper_stats", -1));
    let create = body::create_with("/a/y", Some(b"too much"), 0, &open_acl());
    world.must(&client, Create, &create);
}

#[test]
fn hard_quotas_count_for_nothing_unless_they_are_enforced() {
    let (mut world, client) = world(PrepareOptions::default());
    set_quota(&mut world, &client, "/a", "count=1,bytes=1=;byteHardLimit=1;countHardLimit=1");
    world.must(&client, Create, &body::create("/a/y", 0));
}

#[test]
fn create_ttl_checks_the_feature_then_the_ttl_then_as_create() {
    let (mut off, client) = world(PrepareOptions::default());
    let late = gone(&mut off);
    expect(&mut off, &late, CreateTtl, &body::create_ttl("x", 5, 0), ErrorCode::Unimplemented);
    expect(&mut off, &client, CreateTtl, &body::create_ttl("/ttl", 5, 100), ErrorCode::Unimplemented);

    let options = PrepareOptions { extended_types: true, ..PrepareOptions::default() };
    let (mut world, client) = world(options);
    let late = gone(&mut world);
    for ttl in [0, -1, 1 << 40, i64::MIN, i64::MAX] {
        expect(&mut world, &late, CreateTtl, &body::create_ttl("x", 5, ttl), ErrorCode::BadArguments);
    }
    for flags in 0..5 {
        for ttl in [100, -1] {
            expect(&mut world, &late, CreateTtl, &body::create_ttl("x", flags, ttl), ErrorCode::BadArguments);
        }
    }
    for op in [Create, Create2, CreateContainer] {
        expect(&mut world, &late, op, &body::create("x", 6), ErrorCode::BadArguments);
    }
    expect(&mut world, &late, CreateTtl, &body::create_ttl("x", 6, 100), ErrorCode::SessionExpired);
    expect(&mut world, &client, CreateTtl, &body::create_ttl("/a/x", 5, 100), ErrorCode::NodeExists);
    world.must(&client, CreateTtl, &body::create_ttl("/ttl", 5, (1 << 40) - 1));
    world.must(&client, CreateTtl, &body::create_ttl("/ttl", 6, 1));
}

#[test]
fn ephemerals_on_a_local_session_are_refused_where_the_session_is_checked() {
    let (mut world, _) = world(PrepareOptions::default());
    let conn = ConnId(99);
    let session = world.sessions.create_local(10_000, conn, MonoMs(0)).id();
    let client = Client { session, conn, ids: world.client().ids };
    for flags in [1, 3] {
        let create = body::create_with("nowhere", None, flags, &no_acl());
        expect(&mut world, &client, Create, &create, ErrorCode::EphemeralOnLocalSession);
    }
    world.must(&client, Create, &body::create("/from_local", 0));
}

#[test]
fn delete_checks_session_path_parent_permission_node_version_children() {
    let (mut world, client) = world(PrepareOptions::default());
    let gone = gone(&mut world);
    let mut step = |client: &Client, path: &str, version, code| {
        expect(&mut world, client, Delete, &body::path_int(path, version), code);
    };
    step(&gone, "/", 5, ErrorCode::SessionExpired);
    for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "", "nowhere", "/missing/\0"] {
        step(&client, path, 5, ErrorCode::BadArguments);
    }
    step(&client, "/missing/x", 5, ErrorCode::NoNode);
    step(&client, "/locked/missing", 5, ErrorCode::NoAuth);
    step(&client, "/a/missing", 5, ErrorCode::NoNode);
    step(&client, "/a/", 5, ErrorCode::NoNode);
    step(&client, "/a", 5, ErrorCode::BadVersion);
    step(&client, "/a", 0, ErrorCode::NotEmpty);
    step(&client, "/a", -1, ErrorCode::NotEmpty);
    world.must(&client, Delete, &body::path_int("/a/x", 0));
}

#[test]
fn a_null_path_is_a_bad_argument_where_paths_are_checked_and_a_marshalling_error_elsewhere() {
    let (mut world, client) = world(PrepareOptions::default());
    let null = |mut body: Vec<u8>| {
        body.splice(..6, [0xFF; 4]);
        body
    };
    for (op, body, code) in [
        (SetData, body::set_data("/a", None, -1), ErrorCode::BadArguments),
        (SetAcl, body::set_acl("/a", &open_acl(), -1), ErrorCode::BadArguments),
        (Create, body::create("/x", 0), ErrorCode::MarshallingError),
        (Delete, body::path_int("/a", -1), ErrorCode::MarshallingError),
        (DeleteContainer, body::path_only("/a"), ErrorCode::MarshallingError),
        (Multi, body::multi(&[(SetData, null(body::set_data("/a", None, -1)))]), ErrorCode::MarshallingError),
    ] {
        let body = if op == Multi { body } else { null(body) };
        expect(&mut world, &client, op, &body, code);
    }
}

/// Reads and deletes check no characters in ZooKeeper, which replaces the bytes and finds no such node; all else does.
#[test]
fn a_path_that_is_not_utf8_names_no_node() {
    let (mut world, client) = world(PrepareOptions::default());
    let spoil = |mut body: Vec<u8>| {
        let at = body.iter().position(|b| *b == b'?').expect("a place to spoil");
        body[at] = 0xFF;
        body
    };
    let path = "/a/?";
    expect(&mut world, &client, Delete, &spoil(body::path_int(path, -1)), ErrorCode::NoNode);
    for odd in ["/a/?\0", "?"] {
        expect(&mut world, &client, Delete, &spoil(body::path_int(odd, -1)), ErrorCode::BadArguments);
    }
    expect(&mut world, &client, DeleteContainer, &spoil(body::path_only(path)), ErrorCode::NoNode);
    assert_eq!(world.read(&client, GetData, &spoil(body::path_watch(path, false))).code(), ErrorCode::NoNode);
    expect(&mut world, &client, Create, &spoil(body::create(path, 0)), ErrorCode::BadArguments);
    expect(&mut world, &client, SetData, &spoil(body::set_data(path, None, -1)), ErrorCode::BadArguments);
}

#[test]
fn delete_asks_the_parents_acl_and_not_the_nodes() {
    let (mut world, client) = world(PrepareOptions::default());
    let nobody = body::acl(&[(perms::ALL, "ip", "9.9.9.9")]);
    world.must(&client, Create, &body::create_with("/a/guarded", None, 0, &nobody));
    world.must(&client, Delete, &body::path_int("/a/guarded", 0));
    expect(&mut world, &client, Delete, &body::path_int("/locked/x", 0), ErrorCode::NoAuth);
}

#[test]
fn set_data_checks_session_path_node_permission_version() {
    let (mut world, client) = world(PrepareOptions::default());
    let gone = gone(&mut world);
    let mut step = |client: &Client, path: &str, version, code| {
        expect(&mut world, client, SetData, &body::set_data(path, Some(b"x"), version), code);
    };
    step(&gone, "nowhere", 5, ErrorCode::SessionExpired);
    for path in ["", "nowhere", "/a/", "/a/../a", "/missing/\0"] {
        step(&client, path, 5, ErrorCode::BadArguments);
    }
    step(&client, "/missing", 5, ErrorCode::NoNode);
    step(&client, "/locked", 5, ErrorCode::NoAuth);
    step(&client, "/zookeeper/config", -1, ErrorCode::NoAuth);
    step(&client, "/a", 5, ErrorCode::BadVersion);
    world.must(&client, SetData, &body::set_data("/a", Some(b"x"), 0));
    world.must(&client, SetData, &body::set_data("/a", None, -1));
}

#[test]
fn set_acl_checks_session_path_acl_node_permission_version() {
    let (mut world, client) = world(PrepareOptions::default());
    let gone = gone(&mut world);
    let open = open_acl();
    let mut step = |client: &Client, path: &str, acl: &[u8], version, code| {
        expect(&mut world, client, SetAcl, &body::set_acl(path, acl, version), code);
    };
    step(&gone, "nowhere", &no_acl(), 5, ErrorCode::SessionExpired);
    step(&client, "nowhere", &no_acl(), 5, ErrorCode::BadArguments);
    step(&client, "/missing", &no_acl(), 5, ErrorCode::InvalidAcl);
    step(&client, "/missing", &open, 5, ErrorCode::NoNode);
    step(&client, "/locked", &open, 5, ErrorCode::NoAuth);
    step(&client, "/a", &open, 5, ErrorCode::BadVersion);
    assert_eq!(world.must(&client, SetAcl, &body::set_acl("/a", &open, 0)).stat().aversion, 1);
}

#[test]
fn check_alone_never_becomes_a_transaction_that_nobody_can_replay() {
    let (mut world, client) = world(PrepareOptions::default());
    expect(&mut world, &client, Check, &body::path_int("/a", -1), ErrorCode::Unimplemented);
    let reply = world.read(&client, Check, &body::path_int("/a", -1));
    assert_eq!((reply.code(), reply.close_after, reply.zxid), (ErrorCode::Unimplemented, true, -1));
}

#[test]
fn check_in_a_multi_checks_path_node_permission_version() {
    let (mut world, client) = world(PrepareOptions::default());
    let mut step = |path: &str, version, code: ErrorCode| {
        let reply = world.must(&client, Multi, &body::multi(&[(Check, body::path_int(path, version))]));
        assert_eq!(reply.results(), [(-1, code.to_i32())], "{path}");
    };
    step("/a/", 5, ErrorCode::BadArguments);
    step("/missing", 5, ErrorCode::NoNode);
    step("/locked", 5, ErrorCode::NoAuth);
    step("/a", 5, ErrorCode::BadVersion);
    let reply = world.must(&client, Multi, &body::multi(&[(Check, body::path_int("/a", 0))]));
    assert_eq!(reply.results(), [(13, 0)]);
}

#[test]
fn delete_container_checks_path_node_children_ephemeral_and_never_an_acl() {
    let (mut world, client) = world(PrepareOptions::default());
    let gone = gone(&mut world);
    let mut step = |path: &str, code| {
        expect(&mut world, &gone, DeleteContainer, &body::path_only(path), code);
    };
    step("/zookeeper", ErrorCode::BadArguments);
    step("nowhere", ErrorCode::BadArguments);
    step("/a/missing", ErrorCode::NoNode);
    step("/a", ErrorCode::NotEmpty);
    step("/e", ErrorCode::BadVersion);
    // Neither DELETE on the parent nor a live session is asked for; a plain node goes as well.
    world.must(&gone, DeleteContainer, &body::path_only("/locked/x"));
    world.must(&client, CreateContainer, &body::create("/c", 4));
    world.must(&client, DeleteContainer, &body::path_only("/c"));
}

#[test]
fn reconfig_on_a_standalone_node_is_disabled_or_unimplemented() {
    let (mut off, _) = world(PrepareOptions::default());
    let late = gone(&mut off);
    expect(&mut off, &late, Reconfig, &body::reconfig(), ErrorCode::ReconfigDisabled);
    let (mut on, client) = world(PrepareOptions { reconfig_enabled: true, ..PrepareOptions::default() });
    let late = gone(&mut on);
    expect(&mut on, &late, Reconfig, &body::reconfig(), ErrorCode::SessionExpired);
    expect(&mut on, &client, Reconfig, &body::reconfig(), ErrorCode::Unimplemented);
}

#[test]
fn an_undecodable_write_is_a_marshalling_error_with_a_zxid_of_its_own() {
    let (mut world, client) = world(PrepareOptions::default());
    let writes = [
        Create,
        Create2,
        CreateContainer,
        CreateTtl,
        Delete,
        DeleteContainer,
        SetData,
        SetAcl,
        Multi,
        Reconfig,
    ];
    for op in writes {
        expect(&mut world, &client, op, &[0, 0, 0, 1], ErrorCode::MarshallingError);
        expect(&mut world, &client, op, &[], ErrorCode::MarshallingError);
    }
}

#[test]
fn a_null_id_in_an_acl_is_a_marshalling_error_also_for_the_whole_multi() {
    let (mut world, client) = world(PrepareOptions::default());
    let mut acl = vec![0, 0, 0, 1, 0, 0, 0, 31, 0, 0, 0, 5];
    acl.extend_from_slice(b"world");
    acl.extend_from_slice(&(-1i32).to_be_bytes());
    let create = body::create_with("/n", None, 0, &acl);
    expect(&mut world, &client, Create, &create, ErrorCode::MarshallingError);
    let multi = body::multi(&[(Create, body::create("/before", 0)), (Create, create)]);
    expect(&mut world, &client, Multi, &multi, ErrorCode::MarshallingError);
}

#[test]
fn a_request_of_a_connection_that_lost_its_session_gets_no_reply_and_is_closed() {
    let (mut world, client) = world(PrepareOptions::default());
    world.sessions.resume(client.session, 10_000, ConnId(77), MonoMs(1)).unwrap();
    let before = world.tree.digest();
    let multi = body::multi(&[(Create, body::create("/x", 0))]);
    for (op, body) in [(Create, body::create("/x", 0)), (Multi, multi)] {
        world.submit(&client, 1, op, &body);
        assert_eq!(world.apply_all(), None);
    }
    assert_eq!(world.tree.digest(), before);
    let now = Client { conn: ConnId(77), ..client };
    world.must(&now, Create, &body::create("/x", 0));
}

#[test]
fn skip_acl_skips_the_checks_but_not_the_fix_up() {
    let auth = AuthOptions { skip_acl: true, ..AuthOptions::default() };
    let (mut world, client) = world(PrepareOptions { auth, ..PrepareOptions::default() });
    expect(&mut world, &client, SetAcl, &body::set_acl("/locked", &no_acl(), -1), ErrorCode::InvalidAcl);
    world.must(&client, SetData, &body::set_data("/locked", None, -1));
    world.must(&client, Delete, &body::path_int("/locked/x", -1));
}
