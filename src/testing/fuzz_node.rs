//! Fuzz entry: a client that sends anything.

use super::world::{Client, World, body};
use crate::base::MonoMs;
use crate::node::PrepareOptions;
use crate::session::{ConnectState, plan_connect};
use crate::wire::OpCode;
use crate::wire::jute::Reader;
use crate::wire::request::{ConnectRequest, RequestHeader};

/// Sends `data`, cut into frames, to a node with a small tree: each byte 0 of a frame says how long it is, then come an op code
/// and a body. Nothing may panic, and every transaction must apply with the digest it carries. Before each eighth frame all
/// that is prepared is applied, so that requests meet pending changes as well.
pub fn client_request(data: &[u8]) {
    let _ = ConnectRequest::read(data).map(|req| {
        let state = ConnectState {
            applied: crate::base::Zxid(9),
            timeout_ms_min: 1,
            timeout_ms_max: 2,
            read_only: data.len().is_multiple_of(2),
            local_sessions: data.len().is_multiple_of(3),
            follows: false,
            in_tree: data.len().is_multiple_of(5),
        };
        plan_connect(&req, &state, &crate::session::Tracker::new(1, 1))
    });
    let mut world = small_world();
    let clients = [world.client(), world.client()];
    let mut rest = data;
    let mut frames = 0usize;
    while let Some((&len, tail)) = rest.split_first() {
        let (frame, tail) = tail.split_at(usize::from(len).min(tail.len()));
        rest = tail;
        if frames % 8 == 7 {
            world.apply_all();
        }
        one_request(&mut world, &clients[frames % 2], frame);
        frames += 1;
    }
    world.apply_all();
}

fn small_world() -> World {
    let options = PrepareOptions { extended_types: true, enforce_quota: true, ..PrepareOptions::default() };
    let mut world = World::new(options);
    let client = world.client();
    for (path, flags) in [("/a", 0), ("/a/b", 0), ("/e", 1), ("/a/c", 0)] {
        world.must(&client, OpCode::Create, &body::create(path, flags));
    }
    world
}

fn one_request(world: &mut World, client: &Client, frame: &[u8]) {
    let mut r = Reader::new(frame);
    // A whole header, or one byte for the op code: shorter inputs reach further.
    let (op, body) = match RequestHeader::read(&mut r) {
        Ok(header) if OpCode::from_i32(header.op).is_some() => (header.op, r.rest()),
        _ => match frame.split_first() {
            Some((op, body)) => (i32::from(*op as i8), body),
            None => return,
        },
    };
    let Some(op) = OpCode::from_i32(op) else { return };
    if op.is_write() || op == OpCode::Check {
        world.submit(client, 1, op, body);
    } else {
        let _ = world.read_frames(client, op, body, 1 << 20);
    }
    let mut expired = Vec::new();
    world.sessions.poll_expired(MonoMs(0), &mut expired);
    assert!(expired.is_empty(), "nobody has waited that long");
}
