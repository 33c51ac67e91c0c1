//! Nodes.

use super::AclId;
use crate::base::SessionId;
use crate::wire::{Stat, StatPersisted};

/// What decides about a node's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nothing: deleted by clients only.
    Persistent,
    /// The session.
    Ephemeral(SessionId),
    /// Its last child.
    Container,
    /// Time without change and children, ms.
    Ttl(i64),
}

/// A node of a tree that is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct NodeRef<'a> {
    marker: std::marker::PhantomData<&'a ()>,
}

impl<'a> NodeRef<'a> {
    /// As clients see it.
    #[must_use]
    pub fn stat(&self) -> Stat {
        unimplemented!()
    }
    /// As it is kept.
    #[must_use]
    pub fn persisted(&self) -> StatPersisted {
        unimplemented!()
    }
    /// Last element of the path; empty for the root.
    #[must_use]
    pub fn name(&self) -> &'a str {
        unimplemented!()
    }
    /// `None` is null, which is not empty.
    #[must_use]
    pub fn data(&self) -> Option<&'a [u8]> {
        unimplemented!()
    }
    /// Number of children.
    #[must_use]
    pub fn child_count(&self) -> u32 {
        unimplemented!()
    }
    /// CRC-32 of path and data: [`super::digest::content_crc`].
    #[must_use]
    pub fn content_crc(&self) -> u32 {
        unimplemented!()
    }
    /// For [`super::Tree::acl`].
    #[must_use]
    pub fn acl_id(&self) -> AclId {
        unimplemented!()
    }
    /// What decides about its end.
    #[must_use]
    pub fn owner(&self) -> Owner {
        unimplemented!()
    }
    /// Names of the children, in no order.
    pub fn children(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        std::iter::empty()
    }
    /// Number of all nodes below; walks them.
    #[must_use]
    pub fn descendants(&self) -> u64 {
        unimplemented!()
    }
    /// Full path.
    #[must_use]
    pub fn path(&self) -> String {
        unimplemented!()
    }
}
