//! Invariants P1 and P3 of prepare, over random scripts: what a request becomes does not depend on how far applying lags, and
//! the digest in a payload is the tree's after it (checked by the world at every step). And: no bytes make a panic.

use proptest::prelude::*;

use zabra::base::rng::Rng;
use zabra::node::PrepareOptions;
use zabra::node::auth::open_acl;
use zabra::testing::fuzz_node::client_request;
use zabra::testing::world::{Client, World, body};
use zabra::wire::OpCode::{self, *};
use zabra::wire::perms;

/// One request: which client, what, and the body.
type Step = (usize, OpCode, Vec<u8>);

const CLIENTS: usize = 12;

/// Few names, so that requests meet.
fn path(rng: &mut Rng) -> String {
    let mut path = String::new();
    for _ in 0..=rng.below(2) {
        path.push('/');
        path.push(char::from(b'a' + rng.below(3) as u8));
    }
    match rng.below(40) {
        0 => "/".to_owned(),
        1 => path + "/",
        2 => "/zookeeper/quota".to_owned() + &path,
        _ => path,
    }
}

fn acl(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => body::acl(&[(perms::READ | perms::CREATE | perms::DELETE, "world", "anyone"), (31, "auth", "")]),
        1 => body::acl(&[(perms::ALL, "ip", "127.0.0.1/8"), (perms::ALL, "ip", "127.0.0.1/8")]),
        2 if rng.one_in(4) => body::acl(&[(perms::ALL, "nonsense", "")]),
        _ => open_acl(),
    }
}

fn version(rng: &mut Rng) -> i32 {
    if rng.one_in(6) { rng.below(3) as i32 } else { -1 }
}

fn single(rng: &mut Rng) -> (OpCode, Vec<u8>) {
    let path = path(rng);
    match rng.below(12) {
        // These nearly always work, so that multis do and sessions get something to lose.
        10 => (Create, body::create(&format!("{path}-"), 2 + rng.below(2) as i32)),
        11 => (Create2, body::create("/-", 3)),
        0..=3 => {
            let op = [Create, Create2, CreateContainer][rng.below(3) as usize];
            let data = [None, Some(&b""[..]), Some(&b"data"[..])][rng.below(3) as usize];
            (op, body::create_with(&path, data, rng.below(5) as i32, &acl(rng)))
        }
        4 => (CreateTtl, body::create_ttl(&path, 5 + rng.below(2) as i32, 1 + rng.below(9) as i64)),
        5 | 6 => (Delete, body::path_int(&path, version(rng))),
        7 | 8 => (SetData, body::set_data(&path, Some(&rng.next_u64().to_be_bytes()), version(rng))),
        _ => (Check, body::path_int(&path, version(rng))),
    }
}

fn step(rng: &mut Rng) -> Step {
    let client = rng.below(CLIENTS as u64) as usize;
    let (op, body) = match rng.below(24) {
        0..=3 => {
            let ops: Vec<_> = (0..rng.below(5)).map(|_| single(rng)).collect();
            (Multi, body::multi(&ops))
        }
        4 | 5 => (SetAcl, body::set_acl(&path(rng), &acl(rng), version(rng))),
        6 => (DeleteContainer, body::path_only(&path(rng))),
        7 if rng.one_in(4) => (SetData, vec![1, 2, 3]),
        8 if rng.one_in(2) => (CloseSession, Vec::new()),
        _ => single(rng),
    };
    // Not in the pipeline when it stands alone.
    if op == Check { (client, Multi, body::multi(&[(Check, body)])) } else { (client, op, body) }
}

fn script(seed: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    (0..150).map(|_| step(&mut rng)).collect()
}

fn world() -> (World, Vec<Client>) {
    let mut world = World::new(PrepareOptions { extended_types: true, ..PrepareOptions::default() });
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| world.client()).collect();
    world.login(&mut clients[0], "a:1");
    world.login(&mut clients[1], "b:2");
    (world, clients)
}

/// Runs the script; before each step `lag` says whether to apply one, all, or nothing. Returns the payloads.
fn run(script: &[Step], mut lag: impl FnMut() -> u64) -> (Vec<Vec<u8>>, u64) {
    let (mut world, clients) = world();
    for (client, op, body) in script {
        match lag() {
            0 => drop(world.apply_one()),
            1 => drop(world.apply_all()),
            _ => {}
        }
        world.submit(&clients[*client], 1, *op, body);
    }
    world.apply_all();
    (world.log.clone(), world.tree.digest())
}

#[test]
fn payloads_do_not_depend_on_how_far_applying_lags() {
    for seed in 0..120 {
        let script = script(seed);
        let (at_once, digest) = run(&script, || 1);
        let (in_one_group, _) = run(&script, || 9);
        let mut rng = Rng::new(seed ^ 0x5eed);
        let (lagging, lagging_digest) = run(&script, || rng.below(8));
        for (i, payload) in at_once.iter().enumerate() {
            assert_eq!(payload, &in_one_group[i], "seed {seed} step {i}: {:?}", script.get(i));
            assert_eq!(payload, &lagging[i], "seed {seed} step {i}: {:?}", script.get(i));
        }
        assert_eq!(digest, lagging_digest);
    }
}

#[test]
fn scripts_do_reach_what_they_are_meant_to_reach() {
    use zabra::wire::txn::{Proposal, Txn};
    let (mut creates, mut multis, mut failed, mut closed) = (0, 0, 0, 0);
    for seed in 0..20 {
        for payload in run(&script(seed), || 9).0 {
            match Proposal::read(&payload).unwrap().txn {
                Txn::Create(_) => creates += 1,
                Txn::Multi(multi) if multi.iter().any(|(kind, _)| kind == -1) => failed += 1,
                Txn::Multi(multi) if multi.len() > 1 => multis += 1,
                Txn::CloseSession { paths: Some(paths) } if paths.len() > 1 => closed += 1,
                _ => {}
            }
        }
    }
    assert!(
        creates > 200 && multis > 20 && failed > 100 && closed > 3,
        "{creates} {multis} {failed} {closed}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_panic(data in prop::collection::vec(any::<u8>(), 0..512)) {
        client_request(&data);
    }

    #[test]
    fn no_body_of_any_operation_makes_a_panic(
        requests in prop::collection::vec((0usize..36, prop::collection::vec(any::<u8>(), 0..40)), 1..40),
    ) {
        let ops: Vec<i32> = (-11..=-10).chain(0..=22).chain(100..=107).chain([-1]).collect();
        let mut data = Vec::new();
        for (op, body) in requests {
            data.push(body.len() as u8 + 8);
            data.extend_from_slice(&[0, 0, 0, 1]);
            data.extend_from_slice(&ops[op % ops.len()].to_be_bytes());
            data.extend_from_slice(&body);
        }
        client_request(&data);
    }
}

/// Well-formed requests with a few bytes changed go deeper than random ones.
#[test]
fn damaged_requests_make_no_panic() {
    let mut rng = Rng::new(1);
    for seed in 0..150 {
        let mut data = Vec::new();
        for (_, op, mut body) in script(seed).into_iter().take(40) {
            if rng.one_in(2) && !body.is_empty() {
                let at = rng.below(body.len() as u64) as usize;
                body[at] = rng.next_u64() as u8;
            }
            body.truncate(247);
            data.push(body.len() as u8 + 8);
            data.extend_from_slice(&[0, 0, 0, 1]);
            data.extend_from_slice(&op.to_i32().to_be_bytes());
            data.extend_from_slice(&body);
        }
        client_request(&data);
    }
}
