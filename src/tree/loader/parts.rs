//! What the chunks of an image hold, for those who write it in another form. Only for chunks that this process made itself, a moment
//! ago: reading them cannot fail. What comes from the disk goes through [`Loader`](super::Loader).

use super::super::{AclId, ChunkKind, ROOT};
use super::{Fields, read_parts};
use crate::base::SessionId;
use crate::wire::StatPersisted;

/// Why reading cannot fail.
const OWN: &str = "this process made the chunk";

/// One node of an image.
#[derive(Clone, Copy, Debug)]
pub struct ImageNode<'a> {
    /// Its place in the image.
    pub slot: u32,
    /// Its parent's place; meaningless for the root.
    pub parent: u32,
    /// Number of its ACL in the image: [`ImageNode::ACL_OPEN`], or one of [`image_acls`].
    pub acl: u32,
    /// Last element of its path; empty for the root.
    pub name: &'a [u8],
    /// `None` is null.
    pub data: Option<&'a [u8]>,
    /// As it is kept.
    pub stat: StatPersisted,
}

impl<'a> ImageNode<'a> {
    /// Number of the ACL that is open to everybody; it is not among those of [`image_acls`].
    pub const ACL_OPEN: u32 = AclId::OPEN.0;

    /// The node that begins at byte `at` of a chunk of nodes, and where the one behind it begins; `None` at the end.
    #[must_use]
    pub fn at(chunk: &'a [u8], at: usize) -> Option<(ImageNode<'a>, usize)> {
        if at == chunk.len() {
            return None;
        }
        let mut fields = Fields { kind: ChunkKind::Nodes, bytes: chunk, at };
        let (node, _) = read_parts(&mut fields).expect(OWN);
        Some((node, fields.at))
    }

    /// The root is above all others.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.slot == ROOT
    }
}

/// The sessions of a chunk, and their timeouts in ms.
pub fn image_sessions(chunk: &[u8]) -> impl Iterator<Item = (SessionId, i32)> {
    let mut fields = Fields { kind: ChunkKind::Sessions, bytes: chunk, at: 0 };
    std::iter::from_fn(move || {
        if fields.is_empty() {
            return None;
        }
        Some((SessionId(fields.u64().expect(OWN) as i64), fields.u32().expect(OWN) as i32))
    })
}

/// The ACLs of a chunk, each its number and its `vector<ACL>` as on the wire. The open one is left out.
pub fn image_acls(chunk: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut fields = Fields { kind: ChunkKind::Acls, bytes: chunk, at: 0 };
    let all = std::iter::from_fn(move || {
        if fields.is_empty() {
            return None;
        }
        let (id, len) = (fields.u32().expect(OWN), fields.u32().expect(OWN));
        Some((id, fields.take(len as usize).expect(OWN)))
    });
    all.filter(|(id, _)| *id != ImageNode::ACL_OPEN)
}
