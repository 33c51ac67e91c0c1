//! Receiving: from the stream to the chunks of an image, in whatever pieces it arrives.
//!
//! A record is looked at when it is there; what is there of the next stays with the caller, who is told how much it takes at least. A chunk that is
//! full is handed on before more is taken.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::super::path::is_reserved;
use super::{ACL_OPEN, END, SIGNATURE};
use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::{SessionId, Zxid};
use crate::tree::{ChunkKind, ImageBuilder, ImageNode, Misplaced, TreeOptions};
use crate::wire::jute::{PutJute, Reader};
use crate::wire::{AclVec, StatPersisted, put_acl_vec};

/// Largest buffer or string, and largest ACL: no transaction that made one was longer.
const FIELD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// A session and its timeout.
const SESSION_BYTES: usize = 8 + 4;
/// An ACL's number and the count of its entries.
const ACL_HEAD_BYTES: usize = 8 + 4;
/// Characters of a path that an error shows.
const SHOWN_CHARS_MAX: usize = 200;
/// Nodes that every ZooKeeper has had since 3.5, beside the root.
const ALWAYS_THERE: [&str; 3] = ["/zookeeper", "/zookeeper/quota", CONFIG];
/// Holds the configuration of the ensemble.
const CONFIG: &str = "/zookeeper/config";

/// Why bytes are not the stream of a snapshot. Paths are cut to 200 characters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapStreamError {
    /// A length or count that is negative or beyond its limit.
    #[error("{what} of {found}, at most {max} allowed")]
    Length {
        /// Of what.
        what: &'static str,
        /// The length found.
        found: i32,
        /// The limit.
        max: usize,
    },
    /// A path that is not UTF-8; what of it is.
    #[error("path is not UTF-8: {0:?}")]
    Text(String),
    /// A session comes twice.
    #[error("session {0} comes twice")]
    Session(SessionId),
    /// An ACL comes twice, or has the number of the open one.
    #[error("ACL {0} comes twice")]
    Acl(i64),
    /// A node that does not hang in the tree.
    #[error("node {path:?} {source}")]
    Node {
        /// Its path.
        path: String,
        /// What is wrong.
        source: Misplaced,
    },
    /// A node has an ACL that is not in the stream, nor can have come later.
    #[error("node {path:?} has ACL {number}, which is not there")]
    NoAcl {
        /// Its path.
        path: String,
        /// The ACL's number.
        number: i64,
    },
    /// A node that is always there has an owner who could take it away.
    #[error("node {path:?} has an owner: {owner:#x}")]
    Owned {
        /// Its path.
        path: String,
        /// The owner, as it is kept.
        owner: i64,
    },
    /// A node that is always there is not.
    #[error("node {0:?} is missing")]
    Missing(&'static str),
    /// More than a snapshot holds.
    #[error("more than a snapshot holds")]
    TooLong,
    /// Something other than the signature at the end.
    #[error("no signature at the end")]
    Signature,
    /// The stream has not come to its end.
    #[error("the stream has not come to its end")]
    Incomplete,
}

/// What feeding came to. `consumed` bytes, from the start of what was given, are done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The stream goes on.
    More {
        /// The caller keeps those behind.
        consumed: usize,
        /// Bytes there must be behind those consumed before it is worth feeding again: more than there are.
        need: usize,
    },
    /// A chunk is full: [`SnapSink::chunk`], then the stream goes on.
    Chunk {
        /// The caller keeps those behind.
        consumed: usize,
    },
    /// The stream is complete, but for the chunks that are left. Bytes behind it belong to what comes next.
    Done {
        /// Those behind are not of the stream.
        consumed: usize,
    },
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapProgress {
    /// Nodes taken; the root counts once.
    pub nodes: u64,
    /// Bytes consumed.
    pub bytes: u64,
}

/// What an image is, of which all other chunks have been handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapEnd {
    /// The chunk that belongs in front of all others, [`SnapSink::HEADER_BYTES`] long.
    pub header: Vec<u8>,
    /// See [`SnapSink::zxid_end`].
    pub zxid_end: Zxid,
    /// Of the tree.
    pub digest: u64,
    /// Nodes as ZooKeeper counts them.
    pub node_count: u64,
}

/// A stream being read.
#[derive(Debug)]
pub struct SnapSink {
    zxid: Zxid,
    zxid_end: i64,
    stage: Stage,
    builder: ImageBuilder,
    /// While they come.
    sessions: BTreeSet<SessionId>,
    /// From numbers of the stream to those of the image.
    acls: BTreeMap<i64, u32>,
    /// The list being read, as on the wire.
    list: Vec<u8>,
    /// For nodes whose ACL came later than the stream's.
    closed: Option<u32>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    SessionCount,
    Sessions { left: i32 },
    AclCount,
    Acls { left: i32 },
    AclEntries { number: i64, left: i32, acls_left: i32 },
    Nodes,
    Signature,
    Done,
    Failed,
}

/// Why a record was not taken.
enum Stop {
    /// It ends behind what is there: this many bytes are needed.
    Need(usize),
    Bad(SnapStreamError),
}

impl From<SnapStreamError> for Stop {
    fn from(error: SnapStreamError) -> Stop {
        Stop::Bad(error)
    }
}

impl SnapSink {
    /// Bytes of [`SnapEnd::header`].
    pub const HEADER_BYTES: usize = ImageBuilder::HEADER_BYTES;

    /// Nothing yet. `zxid` is that of the SNAP packet, the options are those of the tree to be; chunks become about `chunk_bytes` long.
    #[must_use]
    pub fn new(zxid: Zxid, options: TreeOptions, chunk_bytes: usize) -> SnapSink {
        SnapSink {
            zxid,
            zxid_end: 0,
            stage: Stage::SessionCount,
            builder: ImageBuilder::new(options, chunk_bytes),
            sessions: BTreeSet::new(),
            acls: BTreeMap::new(),
            list: Vec::new(),
            closed: None,
            bytes: 0,
        }
    }

    /// Takes what it can of `bytes`, which begin behind what was consumed before.
    ///
    /// # Errors
    /// They are no stream: the sink is of no use any more, and says [`SnapStreamError::Incomplete`] from now on.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Feed, SnapStreamError> {
        let mut consumed = 0;
        while self.stage != Stage::Done {
            if self.builder.chunk(false).is_some() {
                return Ok(Feed::Chunk { consumed });
            }
            match self.record(&mut Partial { bytes: &bytes[consumed..], at: 0 }) {
                Ok(taken) => {
                    consumed += taken;
                    self.bytes += taken as u64;
                }
                Err(Stop::Need(need)) => {
                    debug_assert!(need > bytes.len() - consumed, "more than there is");
                    return Ok(Feed::More { consumed, need });
                }
                Err(Stop::Bad(error)) => {
                    self.stage = Stage::Failed;
                    return Err(error);
                }
            }
        }
        Ok(Feed::Done { consumed })
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> SnapProgress {
        SnapProgress { nodes: u64::from(self.builder.nodes()), bytes: self.bytes }
    }

    /// The last transaction that has left a mark on a node, or the zxid of the stream, whichever is later. If it is later than the
    /// stream's, then the stream is fuzzy: the transactions between are in it or not, node by node, and have to be applied again
    /// ([`crate::tree::Tree::reapply`]), and what is used of quotas to be counted ([`crate::tree::Tree::count_usage`]): nobody knows what of it was
    /// counted before. A deletion may leave no mark: only the sender knows how far it had come.
    #[must_use]
    pub fn zxid_end(&self) -> Zxid {
        self.zxid.max(Zxid::from_wire(self.zxid_end))
    }

    /// The stream has come to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Done
    }

    /// A chunk of the image, to be taken before the stream goes on; behind the stream, each that is left.
    #[must_use]
    pub fn chunk(&self) -> Option<(ChunkKind, &[u8])> {
        self.builder.chunk(self.is_complete())
    }

    /// The chunk of this kind, which [`SnapSink::chunk`] gave, is where it has to be.
    pub fn taken(&mut self, kind: ChunkKind) {
        self.builder.taken(kind);
    }

    /// What the image is, for which all chunks have been taken.
    ///
    /// # Errors
    /// The stream has not come to its end, or lacks a node that is always there.
    pub fn finish(self) -> Result<SnapEnd, SnapStreamError> {
        if !self.is_complete() {
            return Err(SnapStreamError::Incomplete);
        }
        assert_eq!(self.chunk(), None, "what is left is taken first");
        if let Some(missing) = ALWAYS_THERE.into_iter().find(|path| !self.builder.contains(path)) {
            return Err(SnapStreamError::Missing(missing));
        }
        Ok(SnapEnd {
            header: self.builder.header(self.zxid),
            zxid_end: self.zxid_end(),
            digest: self.builder.digest(),
            node_count: u64::from(self.builder.nodes()) + 1,
        })
    }

    /// Takes one record; how many bytes it was.
    fn record(&mut self, from: &mut Partial<'_>) -> Result<usize, Stop> {
        match self.stage {
            Stage::SessionCount => self.stage = Stage::Sessions { left: from.count("sessions")? },
            Stage::Sessions { left: 0 } => {
                self.sessions = BTreeSet::new();
                self.stage = Stage::AclCount;
            }
            Stage::Sessions { left } => {
                self.session(from)?;
                self.stage = Stage::Sessions { left: left - 1 };
            }
            Stage::AclCount => self.stage = Stage::Acls { left: from.count("ACLs")? },
            Stage::Acls { left: 0 } => self.stage = Stage::Nodes,
            Stage::Acls { left } => {
                from.need(ACL_HEAD_BYTES)?;
                let (number, entries) = (from.long()?, from.count("entries of an ACL")?);
                self.list.clear();
                self.list.put_int(entries);
                self.stage = Stage::AclEntries { number, left: entries, acls_left: left - 1 };
            }
            Stage::AclEntries { number, left: 0, acls_left } => {
                self.acl(number)?;
                self.stage = Stage::Acls { left: acls_left };
            }
            Stage::AclEntries { number, left, acls_left } => {
                self.acl_entry(from)?;
                self.stage = Stage::AclEntries { number, left: left - 1, acls_left };
            }
            Stage::Nodes => self.node(from)?,
            Stage::Signature => self.signature(from)?,
            Stage::Done | Stage::Failed => return Err(SnapStreamError::Incomplete.into()),
        }
        Ok(from.at)
    }

    fn session(&mut self, from: &mut Partial<'_>) -> Result<(), Stop> {
        from.need(SESSION_BYTES)?;
        let (session, timeout_ms) = (SessionId(from.long()?), from.int()?);
        if !self.sessions.insert(session) {
            return Err(SnapStreamError::Session(session).into());
        }
        self.builder.session(session, timeout_ms);
        Ok(())
    }

    fn acl_entry(&mut self, from: &mut Partial<'_>) -> Result<(), Stop> {
        from.int()?;
        from.buffer("scheme of an ACL")?;
        from.buffer("id of an ACL")?;
        let bytes = self.list.len() + from.at;
        if bytes > FIELD_BYTES_MAX {
            let found = i32::try_from(bytes).unwrap_or(i32::MAX);
            return Err(SnapStreamError::Length { what: "ACL", found, max: FIELD_BYTES_MAX }.into());
        }
        self.list.extend_from_slice(&from.bytes[..from.at]);
        Ok(())
    }

    /// A whole list is there.
    fn acl(&mut self, number: i64) -> Result<(), SnapStreamError> {
        if number == ACL_OPEN || self.acls.contains_key(&number) {
            return Err(SnapStreamError::Acl(number));
        }
        let id = self.builder.acl(AclVec::of_encoded(&self.list));
        self.acls.insert(number, id);
        Ok(())
    }

    fn node(&mut self, from: &mut Partial<'_>) -> Result<(), Stop> {
        let null = SnapStreamError::Length { what: "path", found: -1, max: FIELD_BYTES_MAX };
        let path = from.buffer("path")?.ok_or(null)?;
        if path == END.as_bytes() {
            self.stage = Stage::Signature;
            return Ok(());
        }
        let data = from.buffer("data")?;
        let bytes = path.len() + data.map_or(0, <[u8]>::len);
        if bytes > FIELD_BYTES_MAX {
            let found = i32::try_from(bytes).unwrap_or(i32::MAX);
            return Err(SnapStreamError::Length { what: "node", found, max: FIELD_BYTES_MAX }.into());
        }
        let acl = from.long()?;
        let stat = StatPersisted::read(&mut Reader::new(from.take(StatPersisted::BYTES)?));
        let stat = stat.expect("all of its bytes are there");
        let path = std::str::from_utf8(path).map_err(|_| {
            SnapStreamError::Text(shown(&String::from_utf8_lossy(&path[..path.len().min(SHOWN_CHARS_MAX)])))
        })?;
        self.place(path, data, acl, &stat)?;
        Ok(())
    }

    fn place(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), SnapStreamError> {
        let owner = stat.ephemeral_owner;
        if owner != 0 && (path.is_empty() || is_reserved(path)) {
            return Err(SnapStreamError::Owned { path: shown(path), owner });
        }
        let acl =
            self.acl_of(acl).ok_or_else(|| SnapStreamError::NoAcl { path: shown(path), number: acl })?;
        self.builder
            .node(path, data, acl, stat)
            .map_err(|source| SnapStreamError::Node { path: shown(path), source })?;
        // The configuration's node is written by each server for itself, not by a transaction.
        if path != CONFIG {
            self.zxid_end = self.zxid_end.max(stat.czxid).max(stat.mzxid).max(stat.pzxid);
        }
        Ok(())
    }

    /// The ACL with this number. ZooKeeper writes all ACLs before the first node and numbers new ones upwards: one behind them all was new
    /// in a transaction that came meanwhile and is still to be applied again. Until then nobody may do anything.
    fn acl_of(&mut self, number: i64) -> Option<u32> {
        if number == ACL_OPEN {
            return Some(ImageNode::ACL_OPEN);
        }
        let last = self.acls.last_key_value().map_or(0, |(last, _)| (*last).max(0));
        match self.acls.get(&number) {
            Some(id) => Some(*id),
            None if number > last => Some(*self.closed.get_or_insert_with(|| {
                let mut nobody = Vec::new();
                put_acl_vec(&mut nobody, []);
                self.builder.acl(AclVec::of_encoded(&nobody))
            })),
            None => None,
        }
    }

    fn signature(&mut self, from: &mut Partial<'_>) -> Result<(), Stop> {
        let len = from.int()?;
        if usize::try_from(len) != Ok(SIGNATURE.len()) || from.take(SIGNATURE.len())? != SIGNATURE.as_bytes()
        {
            return Err(SnapStreamError::Signature.into());
        }
        self.stage = Stage::Done;
        Ok(())
    }
}

fn shown(path: &str) -> String {
    path.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Reads a record of which only the beginning may be there.
struct Partial<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Partial<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + len;
        let bytes = self.bytes.get(self.at..end).ok_or(Stop::Need(end))?;
        self.at = end;
        Ok(bytes)
    }

    /// Asks for so many bytes at once, which the fields to come will take in any case.
    fn need(&self, len: usize) -> Result<(), Stop> {
        let end = self.at + len;
        if end <= self.bytes.len() { Ok(()) } else { Err(Stop::Need(end)) }
    }

    fn int(&mut self) -> Result<i32, Stop> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().expect("four bytes were taken")))
    }

    fn long(&mut self) -> Result<i64, Stop> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    /// How many of `what` follow.
    fn count(&mut self, what: &'static str) -> Result<i32, Stop> {
        let found = self.int()?;
        if found < 0 {
            return Err(SnapStreamError::Length { what, found, max: i32::MAX as usize }.into());
        }
        Ok(found)
    }

    fn buffer(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, Stop> {
        let found = self.int()?;
        if found == -1 {
            return Ok(None);
        }
        match usize::try_from(found) {
            Ok(len) if len <= FIELD_BYTES_MAX => self.take(len).map(Some),
            _ => Err(SnapStreamError::Length { what, found, max: FIELD_BYTES_MAX }.into()),
        }
    }
}
