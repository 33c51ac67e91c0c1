//! delete, deleteContainer, setData, setACL, check.

use super::super::overlay::Record;
use super::{Context, Prepare, Scratch, Sessions, check_path, check_session, next_version};
use crate::base::{SessionId, WallMs};
use crate::node::path;
use crate::tree::{Owner, digest};
use crate::wire::txn::Txn;
use crate::wire::{AclVec, ErrorCode, perms};

impl Prepare {
    pub(super) fn delete<'b, S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        path: &'b str,
        version: i32,
    ) -> Result<Txn<'b>, ErrorCode> {
        check_session(ctx)?;
        let parent_path = parent_of_deletable(path)?;
        let parent = self.find_permitted(ctx, parent_path, perms::DELETE)?;
        let node = self.find_or_no_node(ctx.tree, path)?;
        next_version(node.stat.version, version)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.put_deleted(ctx, path, &node, parent_path, parent);
        Ok(Txn::Delete { path })
    }

    /// What the reaper sends; a client may send it too, and no ACL is asked.
    pub(super) fn delete_container<'b, S>(
        &mut self,
        ctx: &Context<'_, S>,
        path: &'b str,
    ) -> Result<Txn<'b>, ErrorCode> {
        let parent_path = parent_of_deletable(path)?;
        let node = self.find_or_no_node(ctx.tree, path)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        // What the reaper saw may be long gone: another node, or one that was written to, may stand in its place.
        let due = ctx.req.session != SessionId(0) || is_due(&node, ctx.now);
        if matches!(node.owner, Owner::Ephemeral(_)) || !due {
            return Err(ErrorCode::BadVersion);
        }
        let parent = self.find_or_no_node(ctx.tree, parent_path)?;
        self.put_deleted(ctx, path, &node, parent_path, parent);
        Ok(Txn::Delete { path })
    }

    pub(super) fn set_data<'b, S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        path: &'b str,
        data: Option<&'b [u8]>,
        version: i32,
    ) -> Result<Txn<'b>, ErrorCode> {
        check_session(ctx)?;
        check_path(path)?;
        let old = self.find_permitted(ctx, path, perms::WRITE)?;
        let bytes = data.map_or(0, <[u8]>::len);
        self.check_quota(ctx.tree, path, 0, bytes as i64 - old.data_bytes as i64)?;
        let version = next_version(old.stat.version, version)?;
        let mut new = old;
        new.stat.version = version;
        new.stat.mtime = ctx.now.0;
        new.stat.mzxid = ctx.zxid.to_wire();
        new.data_bytes = bytes;
        new.content_crc = digest::content_crc(path, data);
        self.put(ctx.tree, path, Some(&old), Some(new));
        Ok(Txn::SetData { path, data, version })
    }

    pub(super) fn set_acl<'b, S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        scratch: &'b mut Scratch,
        path: &'b str,
        acl: AclVec<'_>,
        version: i32,
    ) -> Result<Txn<'b>, ErrorCode> {
        check_session(ctx)?;
        check_path(path)?;
        self.fix_up(ctx, acl, &mut scratch.acl)?;
        let old = self.find_permitted(ctx, path, perms::ADMIN)?;
        let version = next_version(old.stat.aversion, version)?;
        let mut new = old;
        new.stat.aversion = version;
        new.acl = self.keep_acl(&scratch.acl);
        self.put(ctx.tree, path, Some(&old), Some(new));
        let acl = AclVec::of_encoded(&scratch.acl);
        Ok(Txn::SetAcl { path, acl, version })
    }

    pub(super) fn check<'b, S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        path: &'b str,
        version: i32,
    ) -> Result<Txn<'b>, ErrorCode> {
        check_session(ctx)?;
        check_path(path)?;
        let node = self.find_permitted(ctx, path, perms::READ)?;
        let version = next_version(node.stat.version, version)?;
        Ok(Txn::Check { path, version })
    }

    /// The node goes, its parent notes when.
    pub(super) fn put_deleted<S>(
        &mut self,
        ctx: &Context<'_, S>,
        path: &str,
        node: &Record,
        parent_path: &str,
        parent: Record,
    ) {
        debug_assert!(parent.children > 0 && node.children == 0, "a leaf and its parent");
        let mut parent_new = parent;
        parent_new.children -= 1;
        parent_new.stat.pzxid = ctx.zxid.to_wire();
        self.put(ctx.tree, parent_path, Some(&parent), Some(parent_new));
        self.put(ctx.tree, path, Some(node), None);
    }
}

fn parent_of_deletable(path: &str) -> Result<&str, ErrorCode> {
    path::parent(path).filter(|_| !path::is_reserved(path)).ok_or(ErrorCode::BadArguments)
}

/// May the reaper still remove it? A container that never had a child is judged by the tree alone: nobody but a new child changes that.
fn is_due(node: &Record, now: WallMs) -> bool {
    match node.owner {
        Owner::Container => true,
        Owner::Ttl(ttl_ms) => ttl_ms != 0 && now.0.saturating_sub(node.stat.mtime) > ttl_ms,
        Owner::Persistent | Owner::Ephemeral(_) => false,
    }
}
