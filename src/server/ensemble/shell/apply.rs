//! What is committed: into the tree, and to the clients who asked for it.

use std::sync::atomic::Ordering;

use super::Shell;
use crate::base::Zxid;
use crate::node::{ReadContext, serve_read_body};
use crate::server::commit::{Applier, Diverged};
use crate::wire::OpCode;
use crate::wire::txn::Proposal;

/// Transactions applied under one hold of the tree while clients wait for their answers: the first ones go on while the next are applied.
const APPLIED_TXNS_MAX: usize = 16;

/// The same when nobody waits.
const APPLIED_TXNS_BULK: usize = 256;

/// Why a transaction cannot be applied: the node must stop.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("{0}")]
    Diverged(#[from] Diverged),
    #[error("transaction {zxid} cannot be decoded: {source}")]
    Undecodable { zxid: Zxid, source: crate::wire::jute::JuteError },
    #[error("the record of transaction {zxid} holds transaction {found}")]
    Misnumbered { zxid: Zxid, found: Zxid },
}

impl Shell {
    /// Applies what is committed, a little at a time; true when there is more.
    pub(super) fn apply(&mut self, holds: usize) -> bool {
        for _ in 0..holds {
            if !self.member.has_to_apply() {
                return false;
            }
            match self.apply_some() {
                Ok(()) => {}
                Err(ApplyError::Diverged(diverged)) => {
                    self.note_diverged(&diverged);
                    return true;
                }
                Err(error) => {
                    self.shared.fail(&error);
                    return false;
                }
            }
        }
        self.member.has_to_apply()
    }

    /// Rule R4: found out here, healed from this server's own disk, or else by the leader's state. If it leads, another one will.
    fn note_diverged(&mut self, diverged: &Diverged) {
        tracing::error!(error = %diverged, "this server's tree differs from the others': it is replaced");
        self.shared.stats.digest_mismatches.fetch_add(1, Ordering::Relaxed);
        self.applier = Applier::answering_one();
        self.diverged_at = Some(diverged.zxid());
        // Found in the middle of a turn, perhaps; and nothing else may happen that would wake anybody.
        self.again = true;
        self.member.note_diverged(self.shared.mono_now(), diverged.zxid());
    }

    fn apply_some(&mut self) -> Result<(), ApplyError> {
        let Shell { shared, member, pending, applier, .. } = self;
        let (mut count, mut bytes, mut txns, mut log_bytes) = (0, 0, 0, 0);
        let slice = if pending.is_empty() { APPLIED_TXNS_BULK } else { APPLIED_TXNS_MAX };
        let now = applier.begin(shared);
        let mut tree = shared.tree.write();
        let applied = member.apply(slice, |zxid, payload| {
            let proposal =
                Proposal::read(payload).map_err(|source| ApplyError::Undecodable { zxid, source })?;
            let found = Zxid::from_wire(proposal.header.zxid);
            if found != zxid {
                return Err(ApplyError::Misnumbered { zxid, found });
            }
            let entry = pending.take(zxid, &proposal.header);
            if let Some(entry) = &entry {
                (count, bytes) = (count + 1, bytes + entry.len);
            }
            (txns, log_bytes) = (txns + 1, log_bytes + payload.len());
            Ok(applier.apply_one(shared, &mut tree, &proposal, entry, None, now)?)
        });
        drop(tree);
        applier.finish(shared, count, bytes);
        applied?;
        shared.stats.commits.fetch_add(txns as u64, Ordering::Relaxed);
        shared.snapshots.note_applied(txns, log_bytes);
        Ok(())
    }

    /// Replies to syncs whose state is there.
    pub(super) fn answer_syncs(&mut self) {
        let applied = self.member.positions().applied();
        while let Some((_, entry, body)) = self.synced.pop_front_if(|(upto, ..)| *upto <= applied) {
            let Some(client) = &entry.client else { continue };
            let conn = &client.conn;
            let tree = self.shared.tree.read();
            let context = ReadContext {
                conn: conn.id,
                session: entry.session,
                ids: client.auth.ids(conn),
                auth: &self.shared.prepare_options.auth,
                reply_bytes_max: conn.reply_bytes_max(),
            };
            conn.put(|out| {
                let _ = serve_read_body(&tree, &context, entry.xid, OpCode::Sync, &body, &mut out.bytes);
            });
            drop(tree);
            self.shared.commit.note_answered(1, entry.len);
            conn.write_answered();
            conn.notify();
        }
    }
}
