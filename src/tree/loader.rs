//! From an image back to a tree: nodes in parallel, then everything that ties them together, checked.
//!
//! - L1: bytes are never believed: a wrong length, name, slot, link, count or digest is an [`ImageError`] with its place, never a
//!   panic. Storage has checked the CRCs before; this is the second net, and the only one for what was written wrong.
//! - L2: no allocation on the word of a count: nodes cost what their bytes are there for; pages of slots, which they may leave
//!   half empty, are bounded by the header, whose page count is bounded by its node count.
//! - L3: slots keep their place within their page, pages are numbered afresh without gaps: links hold, and nothing is sorted.
//! - L4: the tree that comes out has recomputed paths, content CRCs, counts and digest, and they are those of the header.

mod finish;
mod parts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};

use super::image::{
    ACL_HEAD_BYTES, DIGEST_BYTES, HEADER_BYTES, NODE_HEAD_BYTES, NULL_DATA, SESSION_BYTES, VERSION,
};
use super::node::Node;
use super::slab::{PAGE_SLOTS, PAGES_MAX, Page};
use super::{AclId, ChunkKind, DIGEST_LOG_MAX, ROOT, Tree, TreeOptions};
use crate::base::{SessionId, Zxid};
use crate::wire::jute::Reader;
use crate::wire::{AclVec, StatPersisted};

pub use finish::Finishing;
pub use parts::{ImageNode, image_acls, image_sessions};

/// Why an image cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A field runs over the end of its chunk.
    #[error("{kind:?} chunk ends at byte {len}, in the middle of what starts at {at}")]
    Truncated {
        /// Which chunk.
        kind: ChunkKind,
        /// Bytes from its start.
        at: usize,
        /// Its length.
        len: usize,
    },
    /// A field has a value that no image has.
    #[error("{kind:?} chunk, byte {at}: {what} is {found}")]
    Value {
        /// Which chunk.
        kind: ChunkKind,
        /// Bytes from its start.
        at: usize,
        /// Which field.
        what: &'static str,
        /// What it says.
        found: u64,
    },
    /// A chunk came before the header, or a second header came.
    #[error("{kind:?} chunk where {} is expected", if *.kind == ChunkKind::Header { "no second header" } else { "a header" })]
    Order {
        /// Which chunk.
        kind: ChunkKind,
    },
    /// The header says another number than there is.
    #[error("the header says {expected} {what}, there are {found}")]
    Count {
        /// Of what.
        what: &'static str,
        /// In the header.
        expected: u64,
        /// In the chunks.
        found: u64,
    },
    /// A node that hangs on nothing, on itself, or beside another of its name.
    #[error("node in slot {slot}: {what}")]
    Link {
        /// Its slot in the image.
        slot: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A node's path and data are not those it was written with.
    #[error("node in slot {slot}: CRC of path and data is {found:08x}, the image says {expected:08x}")]
    Content {
        /// Its slot in the image.
        slot: u32,
        /// In the image.
        expected: u32,
        /// Recomputed.
        found: u32,
    },
    /// The tree is not the one that was written.
    #[error("the digest is {found:016x}, the header says {expected:016x}")]
    Digest {
        /// In the header.
        expected: u64,
        /// Recomputed.
        found: u64,
    },
}

#[derive(Clone, Debug)]
struct Header {
    zxid: Zxid,
    digest: u64,
    nodes: u64,
    data_bytes: u64,
    pages: u32,
    acls: u32,
    sessions: u32,
    digest_log: Vec<(Zxid, u64)>,
}

/// Takes the chunks of an image, from several threads at once, in any order behind the header.
#[derive(Debug)]
pub struct Loader {
    options: TreeOptions,
    header: RwLock<Option<Header>>,
    pages: RwLock<BTreeMap<u32, Arc<Mutex<Page>>>>,
    pages_count: AtomicU32,
    acls: Mutex<Vec<(u32, Box<[u8]>)>>,
    sessions: Mutex<Vec<(SessionId, i32)>>,
}

impl Loader {
    /// An empty loader. The options are those of the tree to be; an image does not bring its own.
    #[must_use]
    pub fn new(options: TreeOptions) -> Loader {
        Loader {
            options,
            header: RwLock::new(None),
            pages: RwLock::new(BTreeMap::new()),
            pages_count: AtomicU32::new(0),
            acls: Mutex::new(Vec::new()),
            sessions: Mutex::new(Vec::new()),
        }
    }

    /// Takes one chunk. The header chunk must have been taken before any other.
    pub fn chunk(&self, kind: ChunkKind, bytes: &[u8]) -> Result<(), ImageError> {
        if kind == ChunkKind::Header {
            let mut header = self.header.write();
            if header.is_some() {
                return Err(ImageError::Order { kind });
            }
            *header = Some(read_header(bytes)?);
            return Ok(());
        }
        let header = self.header.read();
        let header = header.as_ref().ok_or(ImageError::Order { kind })?;
        match kind {
            ChunkKind::Acls => self.acl_chunk(bytes),
            ChunkKind::Sessions => self.session_chunk(bytes),
            ChunkKind::Nodes | ChunkKind::Header => self.node_chunk(bytes, header.pages),
        }
    }

    fn acl_chunk(&self, bytes: &[u8]) -> Result<(), ImageError> {
        let mut fields = Fields { kind: ChunkKind::Acls, bytes, at: 0 };
        let mut acls = Vec::new();
        while !fields.is_empty() {
            fields.need(ACL_HEAD_BYTES)?;
            let (id, at) = (fields.u32()?, fields.at);
            let len = fields.u32()?;
            let list = fields.take(len as usize)?;
            let mut r = Reader::new(list);
            if AclVec::read(&mut r).is_err() || r.left() > 0 {
                return Err(fields.value_at(at, "length of an ACL", u64::from(len)));
            }
            acls.push((id, list.into()));
        }
        self.acls.lock().append(&mut acls);
        Ok(())
    }

    fn session_chunk(&self, bytes: &[u8]) -> Result<(), ImageError> {
        let mut fields = Fields { kind: ChunkKind::Sessions, bytes, at: 0 };
        let mut sessions = Vec::with_capacity(bytes.len() / SESSION_BYTES);
        while !fields.is_empty() {
            sessions.push((SessionId(fields.u64()? as i64), fields.u32()? as i32));
        }
        self.sessions.lock().append(&mut sessions);
        Ok(())
    }

    fn node_chunk(&self, bytes: &[u8], pages_max: u32) -> Result<(), ImageError> {
        let mut fields = Fields { kind: ChunkKind::Nodes, bytes, at: 0 };
        // Slots come in order, so the page is nearly always that of the node before.
        let mut current: Option<(u32, Arc<Mutex<Page>>)> = None;
        while !fields.is_empty() {
            let at = fields.at;
            let (slot, node) = read_node(&mut fields)?;
            let no = slot / PAGE_SLOTS;
            if current.as_ref().is_none_or(|(current_no, _)| *current_no != no) {
                let page = self.page(no, pages_max);
                current = Some((no, page.ok_or_else(|| fields.value_at(at, "slot", u64::from(slot)))?));
            }
            let (_, page) = current.as_ref().expect("set above");
            if !page.lock().place(slot % PAGE_SLOTS, node) {
                return Err(ImageError::Link { slot, what: "comes twice" });
            }
        }
        Ok(())
    }

    /// The page with this number, made if it is not there; `None` if there would be more than the header says.
    fn page(&self, no: u32, pages_max: u32) -> Option<Arc<Mutex<Page>>> {
        if let Some(page) = self.pages.read().get(&no) {
            return Some(Arc::clone(page));
        }
        let mut pages = self.pages.write();
        if let Some(page) = pages.get(&no) {
            return Some(Arc::clone(page));
        }
        if self.pages_count.load(Ordering::Relaxed) >= pages_max || no >= PAGES_MAX {
            return None;
        }
        self.pages_count.fetch_add(1, Ordering::Relaxed);
        let page = Arc::new(Mutex::new(Page::new()));
        pages.insert(no, Arc::clone(&page));
        Some(page)
    }

    /// The tree, if the image is whole and consistent (L4).
    pub fn finish(self) -> Result<Tree, ImageError> {
        let mut finishing = self.finishing()?;
        while finishing.step(usize::MAX)? {}
        finishing.finish()
    }

    /// The same in steps: all chunks have been taken.
    pub fn finishing(self) -> Result<Finishing, ImageError> {
        let header = self.header.into_inner().ok_or(ImageError::Order { kind: ChunkKind::Nodes })?;
        let acls = self.acls.into_inner();
        let sessions = self.sessions.into_inner();
        count("ACLs", header.acls.into(), acls.len() as u64)?;
        count("sessions", header.sessions.into(), sessions.len() as u64)?;
        Finishing::begin(self.options, header, self.pages.into_inner(), &acls, sessions)
    }
}

fn count(what: &'static str, expected: u64, found: u64) -> Result<(), ImageError> {
    if expected == found { Ok(()) } else { Err(ImageError::Count { what, expected, found }) }
}

fn read_header(bytes: &[u8]) -> Result<Header, ImageError> {
    let mut fields = Fields { kind: ChunkKind::Header, bytes, at: 0 };
    fields.need(HEADER_BYTES)?;
    let version = fields.u32()?;
    if version != VERSION {
        return Err(fields.value_at(0, "version", version.into()));
    }
    let (zxid, digest, nodes, data_bytes) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    let pages_at = fields.at;
    let (pages, acls, sessions, _flags) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
    if u64::from(pages) > nodes || nodes > u64::from(pages) * u64::from(PAGE_SLOTS) {
        return Err(fields.value_at(pages_at, "number of pages", pages.into()));
    }
    let log_at = fields.at;
    let log_len = fields.u32()? as usize;
    if log_len > DIGEST_LOG_MAX || fields.left() != log_len * DIGEST_BYTES {
        return Err(fields.value_at(log_at, "length of the digest log", log_len as u64));
    }
    let digest_log =
        (0..log_len).map(|_| Ok((Zxid(fields.u64()?), fields.u64()?))).collect::<Result<_, _>>()?;
    Ok(Header { zxid: Zxid(zxid), digest, nodes, data_bytes, pages, acls, sessions, digest_log })
}

fn read_node(fields: &mut Fields<'_>) -> Result<(u32, Node), ImageError> {
    let at = fields.at;
    let (node, crc) = read_parts(fields)?;
    let has_slash = node.name.contains(&b'/');
    let is_root = node.slot == ROOT;
    if std::str::from_utf8(node.name).is_err() || has_slash || node.name.is_empty() != is_root {
        return Err(fields.value_at(at, "length of a name that is none", node.name.len() as u64));
    }
    Ok((node.slot, Node::new(node.parent, node.name, node.data, AclId(node.acl), crc, &node.stat)))
}

/// The next node and its content CRC; its name is not looked at.
fn read_parts<'a>(fields: &mut Fields<'a>) -> Result<(ImageNode<'a>, u32), ImageError> {
    fields.need(NODE_HEAD_BYTES)?;
    let (slot, parent, acl, crc) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
    let mut long = || fields.u64().map(|v| v as i64);
    let (czxid, mzxid, pzxid, ctime, mtime, ephemeral_owner) =
        (long()?, long()?, long()?, long()?, long()?, long()?);
    let mut int = || fields.u32().map(|v| v as i32);
    let (version, cversion, aversion) = (int()?, int()?, int()?);
    let stat =
        StatPersisted { czxid, mzxid, ctime, mtime, version, cversion, aversion, ephemeral_owner, pzxid };
    let (name_len, data_len) = (fields.u32()?, fields.u32()?);
    let name = fields.take(name_len as usize)?;
    let data = if data_len == NULL_DATA { None } else { Some(fields.take(data_len as usize)?) };
    Ok((ImageNode { slot, parent, acl, name, data, stat }, crc))
}

/// Reads little-endian fields, checked.
struct Fields<'a> {
    kind: ChunkKind,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn need(&self, len: usize) -> Result<(), ImageError> {
        if self.left() < len {
            return Err(ImageError::Truncated { kind: self.kind, at: self.at, len: self.bytes.len() });
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ImageError> {
        self.need(len)?;
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, ImageError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes were taken")))
    }

    fn u64(&mut self) -> Result<u64, ImageError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    fn value_at(&self, at: usize, what: &'static str, found: u64) -> ImageError {
        ImageError::Value { kind: self.kind, at, what, found }
    }
}
