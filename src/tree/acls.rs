//! Interned ACLs.

/// Names an interned ACL of one tree. Not the same in another tree, nor after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AclId(pub(super) u32);

impl AclId {
    /// `world:anyone` with all permissions: nothing needs to be asked.
    pub const OPEN: AclId = AclId(0);
}
