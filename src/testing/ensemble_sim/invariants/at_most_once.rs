//! A request is in the history once at most, never before it was made; the effective requests of a session are in the order of their numbers,
//! wherever its client has been.

use super::super::model::Known;
use super::super::{Violation, World, show, violated};
use crate::base::Zxid;

/// A transaction joins the one history.
pub(in super::super) fn check(world: &mut World, zxid: Zxid, known: Known) -> Result<(), Violation> {
    // The server's own, and the first of a session.
    if known.cxid == 0 {
        return Ok(());
    }
    let request = (known.session, known.cxid);
    if let Some(before) = world.model.requests.insert(request, zxid) {
        return violated(format!("request {request:?} is committed at {} and {}", show(before), show(zxid)));
    }
    if known.effective && !known.closes {
        let last = world.model.last_cxid.insert(known.session, known.cxid).unwrap_or(0);
        if last > known.cxid {
            return violated(format!(
                "request {request:?} takes effect at {} behind number {last} of its session",
                show(zxid)
            ));
        }
    }
    Ok(())
}

/// At the end: what became of requests whose clients never heard.
pub(in super::super) fn check_unknown(world: &mut World) -> Result<(), Violation> {
    for client in &world.clients {
        for (session, cxid, floor) in &client.unknown {
            let Some(zxid) = world.model.requests.get(&(*session, *cxid)) else { continue };
            world.counts.unknown_committed += 1;
            if zxid <= floor {
                return violated(format!("{session} {cxid} is at {}, before it was made", show(*zxid)));
            }
        }
    }
    Ok(())
}
