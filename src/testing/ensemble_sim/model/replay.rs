//! What a client's write must come to, where it is in the one history: its transaction and its answer, told from the request alone.

use std::collections::VecDeque;

use super::super::{Violation, show, violated};
use super::nodes::{Nodes, parent_of};
use crate::base::{SessionId, Zxid};
use crate::wire::jute::PutJute;
use crate::wire::request::{MultiHeader, Request};
use crate::wire::txn::{Lifetime, Proposal, Txn};
use crate::wire::{ErrorCode, OpCode};

/// The body of an answer and its error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Expected {
    pub(in super::super) err: i32,
    pub(in super::super) body: Vec<u8>,
}

/// What a transaction does, as far as it depends on what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    Create { path: String, data: Option<Vec<u8>>, ephemeral: bool },
    Delete { path: String },
    SetData { path: String, data: Option<Vec<u8>>, version: i32 },
    Check { path: String },
    Close,
    Failed(ErrorCode),
}

/// Where and when.
#[derive(Clone, Copy)]
struct Scene {
    session: SessionId,
    zxid: Zxid,
    time_ms: i64,
}

impl Nodes {
    /// The next transaction of the history, and the request it came from, if a client made it: both must say the same.
    pub(super) fn replay(
        &mut self,
        zxid: Zxid,
        proposal: &Proposal<'_>,
        request: Option<(OpCode, &[u8])>,
    ) -> Result<Option<Expected>, Violation> {
        let session = SessionId(proposal.header.client_id);
        let scene = Scene { session, zxid, time_ms: proposal.header.time_ms };
        if let Txn::CreateSession { .. } = proposal.txn {
            if self.closed.contains_key(&session) {
                return violated(format!("{session} begins at {}, and has ended before", show(zxid)));
            }
            self.sessions.entry(session).or_default();
            self.begun.insert(session, zxid);
            return Ok(None);
        }
        let told = deeds_of(&proposal.txn)?;
        self.check_session(scene, &told)?;
        if let (Txn::CloseSession { paths: Some(paths) }, true) =
            (&proposal.txn, self.sessions.contains_key(&session))
        {
            let (listed, there): (Vec<&str>, _) = (paths.iter().collect(), self.ephemerals(session));
            if listed.len() != there.len() || listed.iter().zip(&there).any(|(a, b)| **a != **b) {
                return violated(format!(
                    "{session} ends at {} with {listed:?}, it has {there:?}",
                    show(zxid)
                ));
            }
        }
        let Some((op, body)) = request else {
            if !told.iter().any(|deed| matches!(deed, Deed::Failed(_))) {
                told.iter().for_each(|deed| self.carry_out(scene, deed));
            }
            return Ok(None);
        };
        let request = Request::read(op, body).expect("clients send what can be read");
        let multi = matches!(request, Request::Multi(_));
        let requests: VecDeque<(OpCode, Request<'_>)> = match request {
            Request::Multi(ops) => ops.iter().collect(),
            request => [(op, request)].into(),
        };
        self.replay_request(scene, &requests, multi, &told).map(Some)
    }

    /// What a session does, it does before its end.
    fn check_session(&self, scene: Scene, told: &[Deed]) -> Result<(), Violation> {
        let effective = told.iter().all(|deed| !matches!(deed, Deed::Failed(_)));
        let lives = self.sessions.contains_key(&scene.session);
        if !effective || lives || told == [Deed::Close] || told.is_empty() {
            return Ok(());
        }
        let closed = self.closed.get(&scene.session).copied().map_or("never begun".to_owned(), show);
        violated(format!("{} acts at {}, its end: {closed}", scene.session, show(scene.zxid)))
    }

    fn replay_request(
        &mut self,
        scene: Scene,
        requests: &VecDeque<(OpCode, Request<'_>)>,
        multi: bool,
        told: &[Deed],
    ) -> Result<Expected, Violation> {
        // What the leader knows of sessions, and how much they may own, is not in the tree.
        if let [Deed::Failed(code)] = *told
            && is_refusal(code, requests)
        {
            return Ok(Expected { err: code.to_i32(), body: Vec::new() });
        }
        if multi
            && let Some(Deed::Failed(code)) = told.iter().find(|deed| matches!(deed, Deed::Failed(_)))
            && is_refusal(*code, requests)
        {
            return Ok(failed_multi(told));
        }
        let (mut judged, mut body) = (Vec::new(), Vec::new());
        let mut failed = None;
        for (op, request) in requests {
            let deed = match failed {
                Some(_) => Deed::Failed(ErrorCode::RuntimeInconsistency),
                None => self.judge(request),
            };
            if let (Deed::Failed(code), None) = (&deed, failed) {
                failed = Some(*code);
                self.undo(scene.zxid);
            }
            self.carry_out(scene, &deed);
            self.put_result(*op, &deed, multi, &mut body);
            judged.push(deed);
        }
        if judged != told {
            let at = show(scene.zxid);
            return violated(format!(
                "a request of {} at {at} is {told:?}, and must be {judged:?}",
                scene.session
            ));
        }
        match failed {
            Some(_) if multi => Ok(failed_multi(told)),
            Some(code) => Ok(Expected { err: code.to_i32(), body: Vec::new() }),
            None => {
                if multi {
                    MultiHeader::END.put(&mut body);
                }
                Ok(Expected { err: 0, body })
            }
        }
    }

    /// What ZooKeeper makes of a request, in the order in which it looks.
    fn judge(&self, request: &Request<'_>) -> Deed {
        let tried = match request {
            Request::Create(create) => self.judge_create(create.path, create.data, create.flags),
            Request::Delete { path, version } => self.judge_version(path, *version).and_then(|_| {
                let children = self.now(path).map_or(0, |node| node.stat.num_children);
                if children > 0 {
                    Err(ErrorCode::NotEmpty)
                } else {
                    Ok(Deed::Delete { path: (*path).to_owned() })
                }
            }),
            Request::SetData { path, data, version } => self.judge_version(path, *version).map(|is| {
                Deed::SetData { path: (*path).to_owned(), data: data.map(<[u8]>::to_vec), version: is + 1 }
            }),
            Request::Check { path, version } => {
                self.judge_version(path, *version).map(|_| Deed::Check { path: (*path).to_owned() })
            }
            Request::CloseSession => Ok(Deed::Close),
            other => unreachable!("clients do not ask for {other:?}"),
        };
        tried.unwrap_or_else(Deed::Failed)
    }

    fn judge_create(&self, path: &str, data: Option<&[u8]>, flags: i32) -> Result<Deed, ErrorCode> {
        let parent = self.now(parent_of(path)).ok_or(ErrorCode::NoNode)?;
        let sequential = flags & 2 != 0;
        let path = if sequential { format!("{path}{:010}", parent.made()) } else { path.to_owned() };
        if self.now(&path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if parent.stat.ephemeral_owner != 0 {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        Ok(Deed::Create { path, data: data.map(<[u8]>::to_vec), ephemeral: flags & 1 != 0 })
    }

    /// The version that there is, if it is the one asked for.
    fn judge_version(&self, path: &str, version: i32) -> Result<i32, ErrorCode> {
        let is = self.now(path).ok_or(ErrorCode::NoNode)?.stat.version;
        if version == -1 || version == is { Ok(is) } else { Err(ErrorCode::BadVersion) }
    }

    fn carry_out(&mut self, scene: Scene, deed: &Deed) {
        let Scene { session, zxid, time_ms } = scene;
        match deed {
            Deed::Create { path, data, ephemeral } => {
                self.create(path, data.as_deref(), ephemeral.then_some(session), zxid, time_ms);
            }
            Deed::Delete { path } => self.delete(path, zxid),
            Deed::SetData { path, data, .. } => self.set_data(path, data.as_deref(), zxid, time_ms),
            Deed::Close => self.close(session, zxid),
            Deed::Check { .. } | Deed::Failed(_) => {}
        }
    }

    /// The result of one request, with its header inside a multi.
    fn put_result(&self, op: OpCode, deed: &Deed, multi: bool, out: &mut Vec<u8>) {
        if multi {
            MultiHeader { op: op.to_i32(), done: false, err: 0 }.put(out);
        }
        match deed {
            Deed::Create { path, .. } => {
                out.put_ustring(path);
                if op != OpCode::Create {
                    self.now(path).expect("made just now").stat.put(out);
                }
            }
            Deed::SetData { path, .. } => self.now(path).expect("changed just now").stat.put(out),
            Deed::Delete { .. } | Deed::Check { .. } | Deed::Close | Deed::Failed(_) => {}
        }
    }
}

/// Refused for what is not in the tree.
fn is_refusal(code: ErrorCode, requests: &VecDeque<(OpCode, Request<'_>)>) -> bool {
    let ephemeral = requests
        .iter()
        .any(|(_, request)| matches!(request, Request::Create(create) if create.flags & 1 != 0));
    match code {
        ErrorCode::SessionExpired | ErrorCode::SessionMoved => true,
        ErrorCode::QuotaExceeded => ephemeral,
        _ => false,
    }
}

/// All results of a multi that failed are errors: none before the cause.
fn failed_multi(told: &[Deed]) -> Expected {
    let mut body = Vec::new();
    for deed in told {
        let err = if let Deed::Failed(code) = deed { code.to_i32() } else { 0 };
        MultiHeader { op: OpCode::Error.to_i32(), done: false, err }.put(&mut body);
        body.put_int(err);
    }
    MultiHeader::END.put(&mut body);
    Expected { err: 0, body }
}

fn deeds_of(txn: &Txn<'_>) -> Result<Vec<Deed>, Violation> {
    Ok(vec![match txn {
        Txn::Create(create) => Deed::Create {
            path: create.path.to_owned(),
            data: create.data.map(<[u8]>::to_vec),
            ephemeral: create.lifetime == Lifetime::Ephemeral,
        },
        Txn::Delete { path } => Deed::Delete { path: (*path).to_owned() },
        Txn::SetData { path, data, version } => {
            Deed::SetData { path: (*path).to_owned(), data: data.map(<[u8]>::to_vec), version: *version }
        }
        Txn::Check { path, .. } => Deed::Check { path: (*path).to_owned() },
        Txn::CloseSession { .. } => Deed::Close,
        Txn::Error { err } => Deed::Failed(ErrorCode::from_i32(*err).unwrap_or(ErrorCode::SystemError)),
        Txn::Multi(txns) => {
            let mut deeds = Vec::new();
            for (_, txn) in txns.iter() {
                deeds.append(&mut deeds_of(&txn)?);
            }
            return Ok(deeds);
        }
        Txn::SetAcl { .. } | Txn::CreateSession { .. } => {
            return violated(format!("{txn:?}, which no client asks for"));
        }
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::auth::open_acl;
    use crate::testing::world::body;
    use crate::wire::txn::{CreateTxn, TxnHeader};
    use crate::wire::{AclVec, StrVec};

    /// A history in which session 7 has made `/a` and the ephemeral `/e0000000001`.
    fn begun() -> Nodes {
        let mut nodes = Nodes::default();
        play(&mut nodes, 1, Txn::CreateSession { timeout_ms: 1 }, None).expect("it begins");
        let data = Some(b"data".as_slice());
        for (zxid, path, lifetime, request) in [
            (2, "/a", Lifetime::Persistent, body::create("/a", 0)),
            (3, "/e0000000001", Lifetime::Ephemeral, body::create("/e", 3)),
        ] {
            let acl = open_acl();
            let acl = AclVec::of_encoded(&acl);
            let txn = Txn::Create(CreateTxn { path, data, acl, lifetime, parent_cversion: 0 });
            let told = play(&mut nodes, zxid, txn, Some((OpCode::Create, &request))).expect("so it must be");
            assert_eq!(told.map(|told| told.err), Some(0));
        }
        nodes
    }

    fn play(
        nodes: &mut Nodes,
        zxid: i64,
        txn: Txn<'_>,
        request: Option<(OpCode, &[u8])>,
    ) -> Result<Option<Expected>, Violation> {
        let header = TxnHeader { client_id: 7, cxid: 1, zxid, time_ms: 5, kind: 0 };
        nodes.replay(Zxid(zxid as u64), &Proposal { header, txn, digest: None }, request)
    }

    #[test]
    fn a_transaction_that_is_not_what_was_asked_for_is_noticed() {
        let set = body::set_data("/a", Some(b"1"), 0);
        let asked = Some((OpCode::SetData, set.as_slice()));
        let txn = |path, version| Txn::SetData { path, data: Some(b"1"), version };
        assert!(play(&mut begun(), 4, txn("/a", 1), asked).is_ok());
        assert!(play(&mut begun(), 4, txn("/a", 2), asked).is_err(), "the wrong version");
        assert!(play(&mut begun(), 4, txn("/e0000000001", 1), asked).is_err(), "the wrong node");
        let refused = |code: ErrorCode| Txn::Error { err: code.to_i32() };
        assert!(
            play(&mut begun(), 4, refused(ErrorCode::BadVersion), asked).is_err(),
            "nothing speaks against it"
        );
        assert!(
            play(&mut begun(), 4, refused(ErrorCode::SessionExpired), asked).is_ok(),
            "not to be told from the tree"
        );
        let old = body::set_data("/a", Some(b"1"), 3);
        let told = play(&mut begun(), 4, refused(ErrorCode::BadVersion), Some((OpCode::SetData, &old)));
        assert_eq!(told.expect("so it must be").map(|told| told.err), Some(ErrorCode::BadVersion.to_i32()));
        assert!(play(&mut begun(), 4, txn("/a", 1), Some((OpCode::SetData, &old))).is_err(), "it must fail");
    }

    #[test]
    fn what_is_left_behind_the_end_of_a_session_is_noticed() {
        let end = |paths: &[&str]| {
            let mut list = Vec::new();
            list.put_int(paths.len() as i32);
            paths.iter().for_each(|path| list.put_ustring(path));
            list
        };
        let (none, all) = (end(&[]), end(&["/e0000000001"]));
        let close = |list| Txn::CloseSession {
            paths: Some(StrVec::read(&mut crate::wire::jute::Reader::new(list)).unwrap()),
        };
        assert!(play(&mut begun(), 4, close(&none), None).is_err(), "its node would stay");
        let mut nodes = begun();
        assert!(play(&mut nodes, 4, close(&all), None).is_ok());
        assert!(nodes.at("/e0000000001", Zxid(3)).is_some() && nodes.at("/e0000000001", Zxid(4)).is_none());
        let delete = body::path_int("/a", -1);
        let late = play(&mut nodes, 5, Txn::Delete { path: "/a" }, Some((OpCode::Delete, &delete)));
        assert!(late.is_err(), "it acts behind its end");
        assert!(play(&mut nodes, 6, Txn::CreateSession { timeout_ms: 1 }, None).is_err(), "it begins again");
    }
}
