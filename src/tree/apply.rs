//! Transactions: the only way the tree changes, live, in replay and in sync alike.
//!
//! - T1: the effects of a transaction are those of ZooKeeper's, events in ZooKeeper's order, stats as of that moment.
//! - T2: on a state that already holds it, or part of it, a transaction changes only what it must so that the transactions
//!   behind it come out right (rule R12): create of what is there raises the parent's cversion and pzxid; delete of what is not
//!   there raises the parent's pzxid; what is meant for an earlier life of a node (its czxid is later) or for older data (its
//!   mzxid is later) leaves it alone; everything else on a missing node does nothing.
//! - T3: bytes that come from a log never panic, whatever paths they name; only a live transaction out of order does.

use super::node::Node;
use super::slab::NIL;
use super::watch::Table;
use super::{
    AclId, DIGEST_LOG_INTERVAL, DIGEST_LOG_MAX, DigestMismatch, Fired, Outcome, Owner, ROOT, Tree, digest,
};
use crate::base::{SessionId, Zxid};
use crate::wire::StrVec;
use crate::wire::reply::EventType;
use crate::wire::txn::{CreateTxn, MultiTxn, Proposal, Txn, TxnDigest, TxnHeader};
use crate::wire::{ErrorCode, StatPersisted};

const NO_NODE: Outcome = Outcome::Failed(ErrorCode::NoNode.to_i32());
const NODE_EXISTS: Outcome = Outcome::Failed(ErrorCode::NodeExists.to_i32());
const BAD_ARGUMENTS: Outcome = Outcome::Failed(ErrorCode::BadArguments.to_i32());

/// Where a node is to be, or is: its parent's path ("" for the root) and its name.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a str,
    parent: &'a str,
    name: &'a str,
}

impl<'a> Place<'a> {
    /// `None` for the root and for what is no path.
    fn of(path: &'a str) -> Option<Place<'a>> {
        let (parent, name) = path.rsplit_once('/')?;
        (!name.is_empty()).then_some(Place { path, parent, name })
    }

    /// The parent's path as events name it.
    fn parent_shown(&self) -> &'a str {
        if self.parent.is_empty() { "/" } else { self.parent }
    }
}

impl Tree {
    /// Applies a transaction. Its zxid must be above [`Tree::applied`] (asserted). What fired is appended to `fired`.
    pub fn apply(&mut self, proposal: &Proposal<'_>, fired: &mut Fired) -> Outcome {
        let zxid = Zxid::from_wire(proposal.header.zxid);
        assert!(zxid > self.applied, "zxids grow: {zxid} behind {}", self.applied);
        self.reapply(proposal, fired)
    }

    /// As [`Tree::apply`], for a log that may repeat what the tree already holds (rule R12). The digest of a transaction is
    /// compared as soon as the repetition has caught up.
    pub fn reapply(&mut self, proposal: &Proposal<'_>, fired: &mut Fired) -> Outcome {
        let zxid = Zxid::from_wire(proposal.header.zxid);
        let repeats = zxid < self.applied;
        let outcome = self.run(&proposal.header, &proposal.txn, fired);
        self.applied = self.applied.max(zxid);
        if !repeats {
            self.check_digest(zxid, proposal.digest, fired);
            self.log_digest(zxid);
        }
        outcome
    }

    fn check_digest(&mut self, zxid: Zxid, carried: Option<TxnDigest>, fired: &mut Fired) {
        let Some(TxnDigest { version: TxnDigest::VERSION, digest: expected }) = carried else { return };
        if expected == self.digest {
            return;
        }
        let mismatch = DigestMismatch { zxid, expected, found: self.digest };
        self.mismatches += 1;
        self.first_mismatch.get_or_insert(mismatch);
        fired.mismatch = Some(mismatch);
    }

    fn log_digest(&mut self, zxid: Zxid) {
        if !zxid.0.is_multiple_of(DIGEST_LOG_INTERVAL)
            || self.digest_log.back().is_some_and(|(z, _)| *z >= zxid)
        {
            return;
        }
        if self.digest_log.len() == DIGEST_LOG_MAX {
            self.digest_log.pop_front();
        }
        self.digest_log.push_back((zxid, self.digest));
    }

    fn run(&mut self, header: &TxnHeader, txn: &Txn<'_>, fired: &mut Fired) -> Outcome {
        match txn {
            Txn::Create(txn) => self.run_create(header, txn, fired),
            Txn::Delete { path } => self.run_delete(path, header.zxid, fired),
            Txn::SetData { path, data, version } => self.run_set_data(header, path, *data, *version, fired),
            Txn::SetAcl { path, acl, version } => {
                let Some(slot) = self.living(path, header.zxid) else { return NO_NODE };
                let acl = self.intern_acl(*acl);
                self.replace_acl(slot, acl);
                self.change_stat(slot, path, |node| node.set_aversion(*version));
                Outcome::AclSet(self.slab.get(slot).stat(&self.options))
            }
            Txn::Check { .. } => Outcome::Checked,
            Txn::Multi(multi) => Outcome::Multi(self.run_multi(header, multi, fired)),
            Txn::CreateSession { timeout_ms } => {
                self.keep_session(SessionId(header.client_id));
                self.owners.sessions.insert(SessionId(header.client_id), *timeout_ms);
                Outcome::SessionCreated
            }
            Txn::CloseSession { paths } => {
                self.run_close_session(header, paths.unwrap_or(StrVec::NULL), fired);
                Outcome::SessionClosed
            }
            Txn::Error { err } => Outcome::Failed(*err),
        }
    }

    /// The node at `path` as a transaction of `zxid` knew it: not one that was made later in its place (T2).
    fn living(&self, path: &str, zxid: i64) -> Option<u32> {
        self.slot_of(path).filter(|slot| self.slab.get(*slot).czxid() <= zxid)
    }

    fn run_multi(&mut self, header: &TxnHeader, multi: &MultiTxn<'_>, fired: &mut Fired) -> Vec<Outcome> {
        if multi.iter().any(|(_, txn)| matches!(txn, Txn::Error { .. })) {
            return failed_multi(multi);
        }
        multi.iter().map(|(kind, txn)| self.run(&TxnHeader { kind, ..*header }, &txn, fired)).collect()
    }

    fn run_create(&mut self, header: &TxnHeader, txn: &CreateTxn<'_>, fired: &mut Fired) -> Outcome {
        let Some(place) = Place::of(txn.path) else { return BAD_ARGUMENTS };
        let Some(parent) = self.living(place.parent, header.zxid) else { return NO_NODE };
        self.raise_cversion(parent, place.parent, txn.parent_cversion, header.zxid);
        if let Some(slot) = self.index.find(&self.slab, parent, place.name.as_bytes()) {
            if self.slab.get(slot).czxid() <= header.zxid {
                let acl = self.intern_acl(txn.acl);
                self.replace_acl(slot, acl);
            }
            return NODE_EXISTS;
        }
        let acl = self.intern_acl(txn.acl);
        let slot = self.create_node(parent, &place, header, txn, acl);
        let stat = self.slab.get(slot).stat(&self.options);
        self.quota_after_create(place.path, place.parent, place.name, stat.data_length);
        self.fire(EventType::NodeCreated, Table::Data, place.path, header.zxid, acl, false, fired);
        let parent_acl = self.slab.get(parent).acl;
        let shown = place.parent_shown();
        self.fire(EventType::NodeChildrenChanged, Table::Child, shown, header.zxid, parent_acl, false, fired);
        Outcome::Created(stat)
    }

    fn create_node(
        &mut self,
        parent: u32,
        place: &Place<'_>,
        header: &TxnHeader,
        txn: &CreateTxn<'_>,
        acl: AclId,
    ) -> u32 {
        let stat = StatPersisted {
            czxid: header.zxid,
            mzxid: header.zxid,
            pzxid: header.zxid,
            ctime: header.time_ms,
            mtime: header.time_ms,
            ephemeral_owner: Owner::encode(txn.lifetime, header.client_id),
            ..StatPersisted::default()
        };
        let crc = digest::content_crc(place.path, txn.data);
        let node = Node::new(parent, place.name.as_bytes(), txn.data, acl, crc, &stat);
        self.add_node(parent, place.path, node)
    }

    /// The stored cversion only grows; pzxid goes with it. -1 is "one more" (records of the first format).
    fn raise_cversion(&mut self, slot: u32, path: &str, cversion: i32, zxid: i64) {
        let now = self.slab.get(slot).cversion();
        let cversion = if cversion == -1 { now.wrapping_add(1) } else { cversion };
        if cversion > now {
            self.change_stat(slot, path, |node| {
                node.set_cversion(cversion);
                node.set_pzxid(zxid);
            });
        }
    }

    fn run_delete(&mut self, path: &str, zxid: i64, fired: &mut Fired) -> Outcome {
        let Some(place) = Place::of(path) else { return BAD_ARGUMENTS };
        let Some(parent) = self.living(place.parent, zxid) else { return NO_NODE };
        if zxid > self.slab.get(parent).pzxid() {
            self.change_stat(parent, place.parent, |node| node.set_pzxid(zxid));
        }
        let found = self.index.find(&self.slab, parent, place.name.as_bytes());
        let Some(slot) = found.filter(|slot| self.slab.get(*slot).czxid() <= zxid) else { return NO_NODE };
        // Only a repetition over a state of mixed times finds children here: they are of a later life of this node, and the
        // transactions that made them are still to come.
        self.remove_below(slot, path);
        let node = self.remove_node(slot, path);
        self.quota_after_delete(path, place.parent, place.name, node.data_len());
        self.fire(EventType::NodeDeleted, Table::Data, path, zxid, node.acl, false, fired);
        self.fire(EventType::NodeDeleted, Table::Child, path, zxid, node.acl, true, fired);
        self.release_acl(node.acl);
        let parent_acl = self.slab.get(parent).acl;
        let shown = place.parent_shown();
        self.fire(EventType::NodeChildrenChanged, Table::Child, shown, zxid, parent_acl, false, fired);
        Outcome::Deleted
    }

    fn remove_below(&mut self, top: u32, top_path: &str) {
        while self.slab.get(top).family != NIL {
            let mut slot = self.first_child(top);
            while self.slab.get(slot).family != NIL {
                slot = self.first_child(slot);
            }
            let path = self.path_of(slot);
            debug_assert!(path.starts_with(top_path));
            let node = self.remove_node(slot, &path);
            let place = Place::of(&path).expect("the root is below nothing");
            self.quota_after_delete(&path, place.parent, place.name, node.data_len());
            self.release_acl(node.acl);
        }
    }

    /// Takes a childless node out of everything but the ACL table.
    fn remove_node(&mut self, slot: u32, path: &str) -> Node {
        assert!(slot != ROOT, "the root stays");
        self.keep_preimage(slot);
        self.index.remove(&self.slab, slot);
        let (parent, data_len) = (self.slab.get(slot).parent, self.slab.get(slot).data_len());
        self.count_below(parent, -1, -(data_len as i64));
        self.unlink(slot);
        let node = self.slab.remove(slot);
        assert_eq!(node.child_count, 0, "{path} has no children");
        self.owners.remove(slot, Owner::decode(node.owner_raw(), &self.options));
        self.data_bytes -= (path.len() + node.data_len()) as u64;
        if digest::counts(path) {
            self.digest = self.digest.wrapping_sub(u64::from(node.digest()));
        }
        node
    }

    fn run_set_data(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
        fired: &mut Fired,
    ) -> Outcome {
        let Some(slot) = self.living(path, header.zxid) else { return NO_NODE };
        // Several changes of one multi share a zxid: only a later one stands against this.
        if self.slab.get(slot).mzxid() > header.zxid {
            return Outcome::DataSet(self.slab.get(slot).stat(&self.options));
        }
        let grown = self.replace_data(slot, path, data, |node| {
            node.set_data_stat(header.zxid, header.time_ms, version);
        });
        let node = self.slab.get(slot);
        let (stat, acl) = (node.stat(&self.options), node.acl);
        self.quota_add(path, 0, grown);
        self.fire(EventType::NodeDataChanged, Table::Data, path, header.zxid, acl, false, fired);
        Outcome::DataSet(stat)
    }

    /// Replaces a node's data and whatever `change` touches of its stat; returns by how many bytes the data grew.
    pub(super) fn replace_data(
        &mut self,
        slot: u32,
        path: &str,
        data: Option<&[u8]>,
        change: impl FnOnce(&mut Node),
    ) -> i64 {
        let len = data.map_or(0, <[u8]>::len);
        let old_len = self.slab.get(slot).data_len();
        self.change_stat(slot, path, |node| {
            node.set_data(data);
            node.content_crc = digest::content_crc(path, data);
            change(node);
        });
        let grown = len as i64 - old_len as i64;
        self.data_bytes = self.data_bytes.wrapping_add_signed(grown);
        if grown != 0 {
            self.count_below(self.slab.get(slot).parent, 0, grown);
        }
        grown
    }

    /// The one place where a node that stays changes: keeps its pre-image and moves the digest along.
    fn change_stat(&mut self, slot: u32, path: &str, change: impl FnOnce(&mut Node)) {
        self.keep_preimage(slot);
        let node = self.slab.get_mut(slot);
        if !digest::counts(path) {
            change(node);
            return;
        }
        let before = node.digest();
        change(node);
        let after = node.digest();
        self.digest = self.digest.wrapping_sub(u64::from(before)).wrapping_add(u64::from(after));
    }

    /// Gives a node an ACL that counts this use already.
    fn replace_acl(&mut self, slot: u32, acl: AclId) {
        self.keep_preimage(slot);
        let old = std::mem::replace(&mut self.slab.get_mut(slot).acl, acl);
        self.release_acl(old);
    }

    fn run_close_session(&mut self, header: &TxnHeader, listed: StrVec<'_>, fired: &mut Fired) {
        let session = SessionId(header.client_id);
        self.keep_session(session);
        self.owners.sessions.remove(&session);
        for path in listed.iter() {
            self.run_delete(path, header.zxid, fired);
        }
        let mut left = Vec::new();
        self.ephemeral_paths(session, |path| left.push(path.to_owned()));
        // Hash order would do; a fixed order makes two runs send the same bytes.
        left.sort_unstable();
        for path in &left {
            let outcome = self.run_delete(path, header.zxid, fired);
            debug_assert!(outcome == Outcome::Deleted || outcome == NO_NODE, "{path}: {outcome:?}");
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn fire(
        &mut self,
        event: EventType,
        table: Table,
        path: &str,
        zxid: i64,
        acl: AclId,
        told_already: bool,
        fired: &mut Fired,
    ) {
        let watches = self.watches.get_mut();
        if watches.is_empty() {
            return;
        }
        let from = fired.watchers.len();
        watches.trigger(path, table, told_already, &mut fired.watchers);
        fired.record(event, Zxid::from_wire(zxid), path, self.acls.bytes(acl), from);
    }
}

/// Before the cause 0, the cause its code, behind it -2.
fn failed_multi(multi: &MultiTxn<'_>) -> Vec<Outcome> {
    let mut failed = false;
    let outcomes = multi.iter().map(|(_, txn)| match txn {
        Txn::Error { err } => {
            failed = true;
            Outcome::Failed(err)
        }
        _ if failed => Outcome::Failed(ErrorCode::RuntimeInconsistency.to_i32()),
        _ => Outcome::Failed(ErrorCode::Ok.to_i32()),
    });
    outcomes.collect()
}
