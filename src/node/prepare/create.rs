//! create, create2, createContainer, createTTL.

use std::fmt::Write;

use super::super::overlay::{AclRef, Record};
use super::{Context, Prepare, Scratch, Sessions, check_path, session_error};
use crate::base::{SessionId, Zxid};
use crate::node::path;
use crate::tree::{Owner, Tree, digest};
use crate::wire::request::CreateRequest;
use crate::wire::txn::{CreateTxn, Lifetime, Txn};
use crate::wire::{AclVec, ErrorCode, OpCode, StatPersisted, perms};

/// Longest time a TTL node may be left alone, ms: 40 bits, about 34 years.
pub(super) const TTL_MS_MAX: i64 = (1 << 40) - 1;

/// What the flags of a create ask for (`CreateMode`).
#[derive(Clone, Copy, Debug)]
struct Mode {
    ephemeral: bool,
    sequential: bool,
    ttl: bool,
}

impl Mode {
    fn of(flags: i32) -> Result<Mode, ErrorCode> {
        if !(0..=6).contains(&flags) {
            return Err(ErrorCode::BadArguments);
        }
        Ok(Mode {
            ephemeral: matches!(flags, 1 | 3),
            sequential: matches!(flags, 2 | 3 | 6),
            ttl: matches!(flags, 5 | 6),
        })
    }
}

impl Prepare {
    pub(super) fn create<'b, S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        scratch: &'b mut Scratch,
        op: OpCode,
        req: &CreateRequest<'b>,
    ) -> Result<Txn<'b>, ErrorCode> {
        let mode = Mode::of(req.flags)?;
        let lifetime = self.lifetime(op, mode, req.ttl_ms)?;
        check_owner(ctx, mode)?;
        let parent_path = path::parent(req.path).ok_or(ErrorCode::BadArguments)?;
        self.fix_up(ctx, req.acl, &mut scratch.acl)?;
        let parent = self.find_permitted(ctx, parent_path, perms::CREATE)?;
        let path = final_path(&mut scratch.path, req.path, mode, parent.stat.cversion);
        check_path(path)?;
        if self.find(ctx.tree, path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if matches!(parent.owner, Owner::Ephemeral(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let bytes = req.data.map_or(0, <[u8]>::len);
        self.check_quota(ctx.tree, path, 1, bytes as i64)?;
        if lifetime == Lifetime::Ephemeral {
            self.check_ephemerals(ctx.tree, ctx.req.session, path)?;
        }
        let parent_cversion = parent.stat.cversion.wrapping_add(1);
        self.put_parent(ctx, parent_path, parent, parent_cversion);
        let acl = self.keep_acl(&scratch.acl);
        let record = new_record(ctx, path, req.data, lifetime, acl);
        self.put(ctx.tree, path, None, Some(record));
        let acl = AclVec::of_encoded(&scratch.acl);
        Ok(Txn::Create(CreateTxn { path, data: req.data, acl, lifetime, parent_cversion }))
    }

    /// The op code decides what is made; the flags must not contradict it.
    fn lifetime(&self, op: OpCode, mode: Mode, ttl_ms: Option<i64>) -> Result<Lifetime, ErrorCode> {
        if mode.ttl && !self.options.extended_types {
            return Err(ErrorCode::Unimplemented);
        }
        // A ttl without a TTL mode, or the other way round; ZooKeeper lets a negative ttl with another mode through, and then
        // cannot apply it.
        if mode.ttl != (op == OpCode::CreateTtl) {
            return Err(ErrorCode::BadArguments);
        }
        Ok(match (op, ttl_ms) {
            (OpCode::CreateTtl, Some(ttl @ 1..=TTL_MS_MAX)) => Lifetime::Ttl(ttl),
            (OpCode::CreateTtl, _) => return Err(ErrorCode::BadArguments),
            (OpCode::CreateContainer, _) => Lifetime::Container,
            _ if mode.ephemeral => Lifetime::Ephemeral,
            _ => Lifetime::Persistent,
        })
    }

    /// Resolves `acl` into `out`, which is cleared.
    pub(super) fn fix_up<S>(
        &self,
        ctx: &Context<'_, S>,
        acl: AclVec<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        out.clear();
        if acl.len() == 1 && acl.raw() == &self.open_acl[4..] {
            out.extend_from_slice(&self.open_acl);
            return Ok(());
        }
        ctx.req.auth.fix_up(&self.options.auth, acl, out)
    }

    /// Hard limits of the quota at `path`, if they are enforced. Looks at what is applied, like ZooKeeper, and like there limits that
    /// cannot be read spoil the request.
    pub(super) fn check_quota(
        &self,
        tree: &Tree,
        path: &str,
        count_more: i64,
        bytes_more: i64,
    ) -> Result<(), ErrorCode> {
        if !self.options.enforce_quota {
            return Ok(());
        }
        let Some(quota) = tree.quota_for(path) else { return Ok(()) };
        let limits = quota.limits.ok_or(ErrorCode::MarshallingError)?;
        let Some(used) = quota.used else { return Ok(()) };
        let over =
            |more: i64, used: i64, hard: i64| more != 0 && hard > -1 && used.saturating_add(more) > hard;
        if over(count_more, used.count, limits.count_hard) || over(bytes_more, used.bytes, limits.bytes_hard)
        {
            return Err(ErrorCode::QuotaExceeded);
        }
        Ok(())
    }

    /// One closeSession must be able to list them all (P4).
    fn check_ephemerals(&mut self, tree: &Tree, session: SessionId, path: &str) -> Result<(), ErrorCode> {
        let used = self.overlay.use_of(tree, session);
        let fits = used.bytes + 4 + path.len() <= self.options.ephemeral_bytes_max;
        if fits { Ok(()) } else { Err(ErrorCode::QuotaExceeded) }
    }

    fn put_parent<S>(&mut self, ctx: &Context<'_, S>, path: &str, old: Record, cversion: i32) {
        let mut new = old;
        new.children += 1;
        // As the tree does: a cversion that has wrapped is no larger one, so at the end of the numbers it sticks.
        if cversion > new.stat.cversion {
            new.stat.cversion = cversion;
            new.stat.pzxid = ctx.zxid.to_wire();
        }
        self.put(ctx.tree, path, Some(&old), Some(new));
    }
}

/// Ephemeral nodes need a session that all servers know, whatever the op code makes of the flag.
fn check_owner<S: Sessions>(ctx: &Context<'_, S>, mode: Mode) -> Result<(), ErrorCode> {
    let (session, conn) = (ctx.req.session, ctx.req.conn);
    let checked = if mode.ephemeral {
        ctx.sessions.check_global(session, conn)
    } else {
        ctx.sessions.check(session, conn)
    };
    checked.map_err(session_error)
}

/// The sequence number is the parent's stored cversion, as it will be.
fn final_path<'b>(buf: &'b mut String, path: &'b str, mode: Mode, parent_cversion: i32) -> &'b str {
    if !mode.sequential {
        return path;
    }
    buf.clear();
    write!(buf, "{path}{parent_cversion:010}").expect("writing to a string cannot fail");
    buf
}

fn new_record<S>(
    ctx: &Context<'_, S>,
    path: &str,
    data: Option<&[u8]>,
    lifetime: Lifetime,
    acl: AclRef,
) -> Record {
    let owner = match lifetime {
        Lifetime::Persistent => Owner::Persistent,
        Lifetime::Ephemeral => Owner::Ephemeral(ctx.req.session),
        Lifetime::Container => Owner::Container,
        Lifetime::Ttl(ms) => Owner::Ttl(ms),
    };
    let ephemeral_owner = Owner::encode(lifetime, ctx.req.session.0);
    Record {
        stat: new_stat(ctx.zxid, ctx.now.0, ephemeral_owner),
        owner,
        children: 0,
        content_crc: digest::content_crc(path, data),
        data_bytes: data.map_or(0, <[u8]>::len),
        acl,
    }
}

fn new_stat(zxid: Zxid, now_ms: i64, ephemeral_owner: i64) -> StatPersisted {
    let zxid = zxid.to_wire();
    StatPersisted {
        czxid: zxid,
        mzxid: zxid,
        ctime: now_ms,
        mtime: now_ms,
        version: 0,
        cversion: 0,
        aversion: 0,
        ephemeral_owner,
        pzxid: zxid,
    }
}
