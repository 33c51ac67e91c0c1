//! closeSession: all ephemeral nodes of a session go in one transaction.

use super::{Context, Prepare, Scratch, Sessions};
use crate::node::path;
use crate::wire::StrVec;
use crate::wire::jute::PutJute;
use crate::wire::txn::Txn;

impl Prepare {
    /// Lists what the session will own: pending creations too, pending deletions not. Sorted, so that the payload does not
    /// depend on what is applied already. Nobody needs to own the session to end it: expiry does.
    pub(super) fn close_session<S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) {
        let session = ctx.req.session;
        ctx.sessions.set_closing(session);
        scratch.paths.clear();
        scratch.ranges.clear();
        self.overlay.ephemeral_paths(ctx.tree, session, |path| {
            let from = scratch.paths.len();
            scratch.paths.push_str(path);
            scratch.ranges.push((from, scratch.paths.len()));
        });
        let Scratch { paths, ranges, list, .. } = scratch;
        ranges.sort_unstable_by(|a, b| paths[a.0..a.1].cmp(&paths[b.0..b.1]));
        list.clear();
        list.put_int(i32::try_from(ranges.len()).expect("bounded when they were created"));
        for &(from, to) in &*ranges {
            self.delete_ephemeral(ctx, &paths[from..to]);
            list.put_ustring(&paths[from..to]);
        }
        self.overlay.forget_use(session);
        let paths = StrVec::of_encoded(list);
        Txn::CloseSession { paths: Some(paths) }.put(out);
    }

    fn delete_ephemeral<S>(&mut self, ctx: &Context<'_, S>, path: &str) {
        let parent_path = path::parent(path).expect("paths of nodes are absolute");
        let node = self.find(ctx.tree, path).expect("listed because it will be there");
        let parent = self.find(ctx.tree, parent_path).expect("a node is never without its parent");
        self.put_deleted(ctx, path, &node, parent_path, parent);
    }
}
