//! What reads answer, which watches they set, and what setWatches catches up on.

use zabra::base::{ConnId, SessionId, Zxid};
use zabra::node::auth::{digest_id, open_acl};
use zabra::node::{
    AuthIds, AuthOptions, REPLY_BYTES_MAX, Served, put_session_fault, put_unimplemented, serve_auth,
    serve_sasl,
};
use zabra::session::SessionFault;
use zabra::testing::world::{Client, World, body};
use zabra::tree::WatchKind;
use zabra::wire::OpCode::{self, *};
use zabra::wire::jute::Reader;
use zabra::wire::{AclVec, ErrorCode, Stat, StrVec, perms};

/// `/a` with data and child `/a/b`; `/locked` for `admin:secret` alone; `/shy` that everybody may read and nobody change.
fn world() -> (World, Client, Client) {
    let mut world = World::default();
    let client = world.client();
    let mut admin = world.client();
    world.login(&mut admin, "admin:secret");
    let id = digest_id("admin:secret");
    let locked = body::acl(&[(perms::ALL, "digest", &id)]);
    let shy = body::acl(&[(perms::READ, "world", "anyone"), (perms::ADMIN, "digest", &id)]);
    world.must(&admin, Create, &body::create("/a", 0));
    world.must(&admin, Create, &body::create("/a/b", 0));
    world.must(&admin, Create, &body::create_with("/locked", None, 0, &locked));
    world.must(&admin, Create, &body::create_with("/shy", None, 0, &shy));
    (world, client, admin)
}

fn code(world: &World, client: &Client, op: OpCode, body: &[u8]) -> ErrorCode {
    let reply = world.read(client, op, body);
    assert_eq!(reply.zxid, world.tree.applied().to_wire());
    assert!(!reply.close_after);
    reply.code()
}

fn has_watch(world: &World, client: &Client, path: &str, kind: WatchKind) -> bool {
    world.tree.check_watch(path, kind, client.conn)
}

fn strings(bytes: &[u8]) -> Vec<&str> {
    let mut strings: Vec<_> = StrVec::read(&mut Reader::new(bytes)).unwrap().iter().collect();
    strings.sort_unstable();
    strings
}

#[test]
fn exists_refuses_only_a_nul_and_checks_the_acl_only_of_a_node_that_is_there() {
    let (world, client, admin) = world();
    let exists = |client, path| code(&world, client, Exists, &body::path_watch(path, false));
    assert_eq!(exists(&client, "/a\0"), ErrorCode::BadArguments);
    assert_eq!(exists(&client, "/locked"), ErrorCode::NoAuth);
    assert_eq!(exists(&admin, "/locked"), ErrorCode::Ok);
    assert_eq!(exists(&client, "/locked/missing"), ErrorCode::NoNode);
    for path in ["/missing", "nowhere", "/a/", "/a/../a"] {
        assert_eq!(exists(&client, path), ErrorCode::NoNode, "{path}");
    }
}

#[test]
fn exists_sets_a_watch_on_a_missing_node_and_none_on_an_unreadable_one() {
    let (world, client, _) = world();
    for (path, set) in [("/missing", true), ("/a", true), ("/locked", false)] {
        world.read(&client, Exists, &body::path_watch(path, true));
        assert_eq!(has_watch(&world, &client, path, WatchKind::Data), set, "{path}");
    }
    world.read(&client, Exists, &body::path_watch("/a/b", false));
    assert!(!has_watch(&world, &client, "/a/b", WatchKind::Data));
}

#[test]
fn get_data_and_get_children_check_the_node_then_the_acl_and_watch_only_when_they_answer() {
    let (world, client, _) = world();
    for (op, kind) in
        [(GetData, WatchKind::Data), (GetChildren, WatchKind::Children), (GetChildren2, WatchKind::Children)]
    {
        let get = |path: &str| code(&world, &client, op, &body::path_watch(path, true));
        assert_eq!(get("/missing"), ErrorCode::NoNode);
        assert_eq!(get("/locked"), ErrorCode::NoAuth);
        assert!(!has_watch(&world, &client, "/missing", WatchKind::Any));
        assert!(!has_watch(&world, &client, "/locked", WatchKind::Any));
        assert_eq!(get("/a"), ErrorCode::Ok);
        assert!(has_watch(&world, &client, "/a", kind));
    }
}

#[test]
fn reads_do_not_check_paths_and_the_empty_path_is_the_root() {
    let (world, client, _) = world();
    let get = |path: &str| code(&world, &client, GetData, &body::path_watch(path, false));
    assert_eq!(get(""), ErrorCode::Ok);
    assert_eq!(get("/"), ErrorCode::Ok);
    assert_eq!(get("/a/"), ErrorCode::NoNode);
    assert_eq!(get("/a\0"), ErrorCode::NoNode);
}

#[test]
fn get_children_lists_names_and_its_second_form_adds_the_stat() {
    let (world, client, _) = world();
    let plain = world.read(&client, GetChildren, &body::path_watch("/", false));
    assert_eq!(strings(&plain.body), ["a", "locked", "shy", "zookeeper"]);
    let second = world.read(&client, GetChildren2, &body::path_watch("/", false));
    assert_eq!(second.body.len(), plain.body.len() + Stat::BYTES);
    assert_eq!(second.stat().num_children, 4);
}

#[test]
fn a_reply_that_would_be_too_large_is_refused_and_sets_no_watch() {
    let (mut world, client, _) = world();
    for n in 0..50 {
        world.must(&client, Create, &body::create(&format!("/a/child-{n:040}"), 0));
    }
    let refused = |op, body: &[u8]| {
        let (frames, close) = world.read_frames(&client, op, body, 1_000);
        assert_eq!((frames.len(), close), (4 + 16, false), "an error and nothing else");
        assert_eq!(frames[16..], ErrorCode::MarshallingError.to_i32().to_be_bytes());
    };
    refused(GetChildren, &body::path_watch("/a", true));
    refused(GetChildren2, &body::path_watch("/a", true));
    let reads: Vec<_> = (0..50).map(|_| (GetData, body::path_watch("/a", false))).collect();
    refused(MultiRead, &body::multi(&reads));
    assert!(!has_watch(&world, &client, "/a", WatchKind::Any));
    let fits = world.read_frames(&client, GetChildren, &body::path_watch("/a", true), REPLY_BYTES_MAX);
    assert!(fits.0.len() > 1_000);
}

#[test]
fn get_acl_needs_read_or_admin_and_masks_secrets_without_admin() {
    let (world, client, admin) = world();
    assert_eq!(code(&world, &client, GetAcl, &body::path_only("/missing")), ErrorCode::NoNode);
    assert_eq!(code(&world, &client, GetAcl, &body::path_only("/locked")), ErrorCode::NoAuth);
    let secret = |client: &Client| {
        let reply = world.read(client, GetAcl, &body::path_only("/shy"));
        let mut r = Reader::new(&reply.body);
        let acl = AclVec::read(&mut r).unwrap();
        assert_eq!((acl.len(), r.left()), (2, Stat::BYTES));
        acl.iter().nth(1).unwrap().id.unwrap().to_owned()
    };
    assert_eq!(secret(&client), "admin:x");
    assert_eq!(secret(&admin), digest_id("admin:secret"));
}

#[test]
fn all_children_number_counts_all_descendants() {
    let (world, client, _) = world();
    let number = |path: &str| {
        let reply = world.read(&client, GetAllChildrenNumber, &body::path_only(path));
        i32::from_be_bytes(reply.body.try_into().unwrap())
    };
    assert_eq!(number("/a"), 1);
    assert_eq!(number("/a/b"), 0);
    // a, a/b, locked, shy, zookeeper, quota, config.
    assert_eq!(number("/"), 7);
    let get = |path: &str| code(&world, &client, GetAllChildrenNumber, &body::path_only(path));
    assert_eq!((get("/missing"), get("/locked")), (ErrorCode::NoNode, ErrorCode::NoAuth));
}

#[test]
fn get_ephemerals_lists_those_of_the_own_session_by_a_plain_prefix() {
    let (mut world, client, other) = world();
    for path in ["/a/e", "/a/f", "/ab"] {
        world.must(&client, Create, &body::create(path, 1));
    }
    world.must(&other, Create, &body::create("/a/other", 1));
    let list = |body: &[u8]| {
        let reply = world.read(&client, GetEphemerals, body);
        strings(&reply.body).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for all in ["", " ", "/", " / "] {
        assert_eq!(list(&body::path_only(all)), ["/a/e", "/a/f", "/ab"], "{all:?}");
    }
    assert_eq!(list(&(-1i32).to_be_bytes()), ["/a/e", "/a/f", "/ab"], "null");
    assert_eq!(list(&body::path_only("/a")), ["/a/e", "/a/f", "/ab"]);
    assert_eq!(list(&body::path_only("/a/")), ["/a/e", "/a/f"]);
    assert!(list(&body::path_only("/x")).is_empty());
}

#[test]
fn ping_answers_with_its_own_xid_and_sync_with_its_path() {
    let (world, client, _) = world();
    let ping = world.read(&client, Ping, &[]);
    assert_eq!((ping.xid, ping.zxid, ping.body.len()), (-2, world.tree.applied().to_wire(), 0));
    let sync = world.read(&client, Sync, &body::path_only("anything at all"));
    assert_eq!((sync.xid, sync.path()), (9, "anything at all"));
    // Text or not: as Java, replaced piece by piece.
    let mut bytes = body::path_only("/b/é");
    bytes[7] = 0x83;
    let sync = world.read(&client, Sync, &bytes);
    assert_eq!(sync.path(), "/b/\u{fffd}\u{fffd}");
    let null = [0xFF; 4];
    assert_eq!(world.read(&client, Sync, &null).body, null, "even without one");
}

#[test]
fn add_watch_takes_any_path_and_only_known_modes() {
    let (world, client, _) = world();
    for (path, mode, kind) in [
        ("/missing", 0, WatchKind::Persistent),
        ("/locked", 1, WatchKind::PersistentRecursive),
        ("nowhere//", 0, WatchKind::Persistent),
    ] {
        let reply = world.read(&client, AddWatch, &body::path_int(path, mode));
        assert_eq!((reply.code(), &reply.body[..]), (ErrorCode::Ok, &[0; 4][..]));
        assert!(has_watch(&world, &client, path, kind), "{path}");
    }
    for mode in [-1, 2] {
        let add = body::path_int("/a", mode);
        assert_eq!(code(&world, &client, AddWatch, &add), ErrorCode::MarshallingError);
    }
}

#[test]
fn check_and_remove_watches_find_those_of_the_kind_or_none() {
    let (world, client, other) = world();
    world.read(&client, GetData, &body::path_watch("/a", true));
    for op in [CheckWatches, RemoveWatches] {
        let ask = |client: &Client, kind| code(&world, client, op, &body::path_int("/a", kind));
        assert_eq!(ask(&other, 2), ErrorCode::NoWatcher, "somebody else's");
        assert_eq!(ask(&client, 1), ErrorCode::NoWatcher, "another kind");
        for kind in [0, 6, -1] {
            assert_eq!(ask(&client, kind), ErrorCode::MarshallingError);
        }
        assert_eq!(ask(&client, 2), ErrorCode::Ok);
    }
    assert_eq!(
        code(&world, &client, CheckWatches, &body::path_int("/a", 2)),
        ErrorCode::NoWatcher,
        "removed"
    );
}

#[test]
fn who_am_i_lists_the_identities_by_scheme_and_user() {
    let (world, _, admin) = world();
    let reply = world.read(&admin, WhoAmI, &[]);
    let mut r = Reader::new(&reply.body);
    assert_eq!(r.int(), Ok(2));
    let mut next = || r.ustring().unwrap();
    assert_eq!([next(), next(), next(), next()], ["ip", "127.0.0.1", "digest", "admin"]);
}

#[test]
fn each_read_of_a_multi_read_fails_on_its_own_and_sets_no_watch() {
    let (world, client, _) = world();
    let reads = [
        (GetData, body::path_watch("/a", true)),
        (GetData, body::path_watch("/missing", true)),
        (GetChildren, body::path_watch("/a", true)),
        (GetChildren, body::path_watch("/locked", true)),
    ];
    let reply = world.read(&client, MultiRead, &body::multi(&reads));
    assert_eq!(reply.results(), [(4, 0), (-1, -101), (8, 0), (-1, -102)]);
    assert!(!has_watch(&world, &client, "/a", WatchKind::Any));
    assert_eq!(world.read(&client, MultiRead, &body::multi(&[])).results(), []);
    let write = body::multi(&[(Delete, body::path_int("/a", -1))]);
    assert_eq!(code(&world, &client, MultiRead, &write), ErrorCode::MarshallingError);
}

#[test]
fn set_watches_sends_what_was_missed_before_its_reply_and_watches_the_rest() {
    let (mut world, client, _) = world();
    let seen = world.tree.applied().to_wire();
    world.must(&client, SetData, &body::set_data("/a/b", None, -1));
    world.must(&client, Create, &body::create("/new", 0));
    let lists: [&[&str]; 5] = [&["/a", "/a/b", "/gone"], &["/new", "/later"], &["/a", "/"], &["/p"], &["/r"]];
    let (frames, close) =
        world.read_frames(&client, SetWatches2, &body::set_watches(seen, lists), REPLY_BYTES_MAX);
    assert!(!close);
    let mut r = Reader::new(&frames);
    let mut events = Vec::new();
    while r.left() > 0 {
        let mut frame = Reader::new(r.buffer().unwrap().unwrap());
        let (xid, zxid, err) = (frame.int().unwrap(), frame.long().unwrap(), frame.int().unwrap());
        if xid == -1 {
            assert_eq!((zxid, err), (-1, 0));
            let (event, state) = (frame.int().unwrap(), frame.int().unwrap());
            assert_eq!(state, 3);
            events.push((event, frame.ustring().unwrap()));
        } else {
            assert_eq!(
                (xid, zxid, err, r.left()),
                (9, world.tree.applied().to_wire(), 0, 0),
                "the last frame"
            );
        }
    }
    assert_eq!(events, [(3, "/a/b"), (2, "/gone"), (1, "/new"), (4, "/")]);
    assert!(has_watch(&world, &client, "/a", WatchKind::Data));
    assert!(has_watch(&world, &client, "/later", WatchKind::Data));
    assert!(has_watch(&world, &client, "/a", WatchKind::Children));
    assert!(has_watch(&world, &client, "/p", WatchKind::Persistent));
    assert!(has_watch(&world, &client, "/r", WatchKind::PersistentRecursive));
    assert!(!has_watch(&world, &client, "/a/b", WatchKind::Any));
}

#[test]
fn an_undecodable_read_is_a_marshalling_error_and_the_connection_stays() {
    let (world, client, _) = world();
    let reads = [
        Exists,
        GetData,
        GetAcl,
        GetChildren,
        GetChildren2,
        Sync,
        MultiRead,
        CheckWatches,
        RemoveWatches,
        SetWatches,
        SetWatches2,
        GetEphemerals,
        GetAllChildrenNumber,
        AddWatch,
    ];
    for op in reads {
        assert_eq!(code(&world, &client, op, &[0, 0, 0, 9, 1]), ErrorCode::MarshallingError, "{op:?}");
    }
}

#[test]
fn writes_and_what_belongs_outside_the_pipeline_are_no_reads() {
    let (world, client, _) = world();
    let create = body::create("/x", 0);
    for (op, body) in [(Create, &create[..]), (CloseSession, &[]), (Sasl, &[255; 4])] {
        let reply = world.read(&client, op, body);
        assert_eq!((reply.code(), reply.close_after), (ErrorCode::Unimplemented, true), "{op:?}");
    }
}

#[test]
fn auth_answers_with_zxid_0_and_closes_when_it_fails() {
    let options = AuthOptions::default();
    let mut ids = AuthIds::of_peer("127.0.0.1".parse().unwrap());
    let mut auth = |scheme, auth| {
        let mut out = Vec::new();
        let served = serve_auth(&mut ids, &options, -4, scheme, auth, &mut out);
        assert_eq!(out[4..16], [[255, 255, 255, 252], [0; 4], [0; 4]].concat());
        (served, i32::from_be_bytes(out[16..].try_into().unwrap()))
    };
    assert_eq!(auth(Some("digest"), Some(&b"a:b"[..])), (Served::STAY, 0));
    assert_eq!(auth(Some("digest"), None), (Served::CLOSE, -115));
    assert_eq!(auth(Some("x509"), Some(&b""[..])), (Served::CLOSE, -115));
    assert_eq!(auth(None, None), (Served::CLOSE, -115));
    assert_eq!(ids.ids().len(), 2);
}

#[test]
fn frames_for_what_never_reaches_the_tree() {
    let mut out = Vec::new();
    assert_eq!(put_unimplemented(&mut out, 5), Served::CLOSE);
    assert_eq!(out[8..16], [255; 8], "zxid -1");
    out.clear();
    assert_eq!(serve_sasl(6, &mut out), Served::STAY);
    assert_eq!(out[20..], [255; 4], "a null token");
    out.clear();
    let session = SessionId(1);
    assert_eq!(put_session_fault(&mut out, 7, Zxid(3), SessionFault::Moved(session)), Served::CLOSE);
    assert!(out.is_empty(), "a moved session gets no reply");
    assert_eq!(put_session_fault(&mut out, 7, Zxid(3), SessionFault::Expired(session)), Served::STAY);
    assert_eq!(out[16..], (-112i32).to_be_bytes());
}

#[test]
fn watches_belong_to_the_connection() {
    let (world, client, _) = world();
    world.read(&client, GetData, &body::path_watch("/a", true));
    let reconnected = Client { conn: ConnId(500), ..client.clone() };
    assert!(!has_watch(&world, &reconnected, "/a", WatchKind::Any));
    world.tree.remove_conn(client.conn);
    assert!(!has_watch(&world, &client, "/a", WatchKind::Any));
}

#[test]
fn a_null_acl_entry_of_an_old_snapshot_lets_nobody_in() {
    // Entries without scheme or id match no one; an empty list lets everybody in.
    let options = AuthOptions::default();
    let raw = [0, 0, 0, 1, 0, 0, 0, 31, 255, 255, 255, 255, 255, 255, 255, 255];
    let acl = AclVec::read(&mut Reader::new(&raw)).unwrap();
    let ids = AuthIds::of_peer("127.0.0.1".parse().unwrap());
    assert!(!ids.allowed(&options, acl, perms::READ));
    assert!(ids.allowed(&options, AclVec::NULL, perms::READ));
    let open = open_acl();
    assert!(ids.allowed(&options, AclVec::read(&mut Reader::new(&open)).unwrap(), perms::ADMIN));
}
