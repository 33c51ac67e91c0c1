//! Watches tell what happens, once, in order, and in time. From the zxid that an answer shows when a watch is set, the history says what its client
//! must hear: the first change (or each, of a persistent watch), before anything that shows that zxid or a later one; nothing else. A watch that is
//! removed tells nothing. What a client missed between two connections it hears when it sets its watches again (setWatches: events without a zxid,
//! before the answer): all of it but for a node that came and went unseen, which ZooKeeper's protocol cannot tell.

use super::super::clients::{Answer, Op, WatchOf, Watching};
use super::super::model::Nodes;
use super::super::{Violation, World, show, violated};
use crate::base::Zxid;
use crate::wire::ErrorCode;
use crate::wire::jute::Reader;
use crate::wire::reply::EventType;
use crate::wire::request::{Request, SetWatches};

use WatchOf::{Child, Data, Exist, Persistent, Recursive};

/// The client hears of something.
pub(in super::super) fn event(
    world: &mut World,
    index: usize,
    zxid: i64,
    body: &[u8],
) -> Result<(), Violation> {
    let mut r = Reader::new(body);
    let (Ok(kind), Ok(_), Ok(path)) = (r.int(), r.int(), r.ustring()) else {
        return violated("an event that is none");
    };
    let kinds = [
        EventType::NodeCreated,
        EventType::NodeDeleted,
        EventType::NodeDataChanged,
        EventType::NodeChildrenChanged,
    ];
    let Some(event) = kinds.into_iter().find(|event| *event as i32 == kind) else {
        return violated(format!("an event of kind {kind}"));
    };
    world.counts.events += 1;
    let watching = &mut world.clients[index].watching;
    watching.wanted.use_up(event, path);
    if world.options.blind {
        return Ok(());
    }
    if zxid == -1 {
        watching.caught_up.push((event, path.to_owned()));
        return Ok(());
    }
    let zxid = Zxid::from_wire(zxid);
    if !watching.begun {
        return violated(format!("client {index} hears {event:?} of {path}, and has set no watch"));
    }
    watching.advance(&world.model.nodes, zxid);
    world.model.shown = world.model.shown.max(zxid);
    match watching.due.pop_front() {
        Some(due) if (due.zxid, due.event, &*due.path) == (zxid, event, path) => Ok(()),
        due => {
            let due = due.map_or("nothing".to_owned(), |due| {
                format!("{:?} of {} at {}", due.event, due.path, show(due.zxid))
            });
            violated(format!("client {index} hears {event:?} of {path} at {}, due is {due}", show(zxid)))
        }
    }
}

/// An answer shows its zxid: what happened up to it must have been told.
pub(in super::super) fn before_answer(
    world: &mut World,
    index: usize,
    answer: &Answer<'_>,
) -> Result<(), Violation> {
    let watching = &mut world.clients[index].watching;
    if world.options.blind {
        return Ok(());
    }
    watching.advance(&world.model.nodes, answer.zxid);
    match watching.due.front() {
        None => Ok(()),
        Some(due) => violated(format!(
            "client {index} is answered at {}, and was not told {:?} of {} at {}",
            show(answer.zxid),
            due.event,
            due.path,
            show(due.zxid)
        )),
    }
}

/// Watches come and go with answers.
pub(in super::super) fn answered(
    world: &mut World,
    index: usize,
    op: &Op,
    answer: &Answer<'_>,
) -> Result<(), Violation> {
    let there = answer.err == 0;
    let missing = answer.err == ErrorCode::NoNode.to_i32();
    let request = Request::read(op.op, &op.body).expect("clients send what can be read");
    match request {
        Request::GetData { path, watch: true } if there => arm(world, index, Data, path),
        Request::Exists { path, watch: true } if there => arm(world, index, Data, path),
        Request::Exists { path, watch: true } if missing => arm(world, index, Exist, path),
        Request::GetChildren2 { path, watch: true } if there => arm(world, index, Child, path),
        Request::AddWatch { path, mode } if there => {
            arm(world, index, if mode == 0 { Persistent } else { Recursive }, path);
        }
        Request::CheckWatches { path, kind } => known(world, index, path, kind, answer)?,
        Request::RemoveWatches { path, kind } => {
            known(world, index, path, kind, answer)?;
            let watching = &mut world.clients[index].watching;
            for of in kinds(kind) {
                world.counts.watches_removed += u64::from(watching.wanted.remove(*of, path));
                watching.armed.remove(*of, path);
            }
        }
        Request::SetWatches(set) => return set_again(world, index, &set, answer),
        _ => {}
    }
    let watching = &world.clients[index].watching;
    match watching.caught_up.first() {
        Some((event, path)) => violated(format!("client {index} hears {event:?} of {path} out of the blue")),
        None => Ok(()),
    }
}

fn arm(world: &mut World, index: usize, kind: WatchOf, path: &str) {
    world.counts.watches_set += 1;
    let Watching { wanted, armed, .. } = &mut world.clients[index].watching;
    wanted.add(kind, path);
    armed.add(kind, path);
}

/// What the number of a kind means in checkWatches and removeWatches.
const fn kinds(number: i32) -> &'static [WatchOf] {
    match number {
        1 => &[Child],
        2 => &[Data, Exist],
        3 => &WatchOf::ALL,
        4 => &[Persistent],
        _ => &[Recursive],
    }
}

/// The node knows of a watch what the history says that it must know.
fn known(world: &World, index: usize, path: &str, kind: i32, answer: &Answer<'_>) -> Result<(), Violation> {
    let watching = &world.clients[index].watching;
    let armed = kinds(kind).iter().any(|kind| watching.armed.has(*kind, path));
    let expected = if armed { ErrorCode::Ok } else { ErrorCode::NoWatcher };
    if answer.err == expected.to_i32() || world.options.blind {
        return Ok(());
    }
    violated(format!(
        "client {index} asks at {} for its watches of kind {kind} on {path}: {}, expected {expected:?}",
        show(answer.zxid),
        answer.err
    ))
}

/// Watches were set again: what was missed has been told, in the order of the lists, and the others are set.
fn set_again(
    world: &mut World,
    index: usize,
    set: &SetWatches<'_>,
    answer: &Answer<'_>,
) -> Result<(), Violation> {
    let (nodes, watching) = (&world.model.nodes, &mut world.clients[index].watching);
    let (since, now) = (Zxid::from_wire(set.relative_zxid), answer.zxid);
    let mut missed = Vec::new();
    for (kind, paths) in [(Data, set.data), (Exist, set.exist), (Child, set.child)] {
        for path in paths.iter() {
            match missed_by(nodes, kind, path, since, now) {
                Some(event) => missed.push((event, path.to_owned())),
                None => {
                    world.counts.watches_kept += 1;
                    watching.armed.add(kind, path);
                }
            }
            let unseen = nodes.changes_between(since, now).iter().any(|c| &*c.path == path);
            world.counts.unseen += u64::from(kind == Exist && unseen && nodes.at(path, now).is_none());
        }
    }
    for (kind, paths) in [(Persistent, set.persistent), (Recursive, set.persistent_recursive)] {
        paths.iter().for_each(|path| watching.armed.add(kind, path));
    }
    world.counts.caught_up += missed.len() as u64;
    let told = std::mem::take(&mut watching.caught_up);
    if told == missed && answer.err == 0 || world.options.blind {
        return Ok(());
    }
    violated(format!(
        "client {index} sets its watches of {} again at {}, and hears {told:?} ({}), expected {missed:?}",
        show(since),
        show(now),
        answer.err
    ))
}

/// What a watch set again at `now` has missed since `since`, told from what happened. That a node is there, or is not, is told whenever it
/// happened: a client whose connection was lost behind the first of two setWatches has seen more than it was told.
fn missed_by(nodes: &Nodes, kind: WatchOf, path: &str, since: Zxid, now: Zxid) -> Option<EventType> {
    let there = nodes.at(path, now).is_some();
    let about = |event: EventType| match kind {
        Child => matches!(event, EventType::NodeChildrenChanged | EventType::NodeDeleted),
        _ => event != EventType::NodeChildrenChanged,
    };
    let mut changes = nodes.changes_between(since, now).iter();
    let happened = changes.any(|change| &*change.path == path && about(change.event));
    match kind {
        Exist => there.then_some(EventType::NodeCreated),
        _ if !there => Some(EventType::NodeDeleted),
        _ if !happened => None,
        Child => Some(EventType::NodeChildrenChanged),
        _ => Some(EventType::NodeDataChanged),
    }
}

/// A tree goes, and its watches with it: nobody may be left who waits for them.
pub(in super::super) fn tree_goes(node: usize, watches: usize) -> Result<(), Violation> {
    if watches == 0 {
        return Ok(());
    }
    violated(format!("n{} takes another tree, and {watches} watches are in the one it had", node + 1))
}
