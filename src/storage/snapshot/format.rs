//! A snapshot's fixed parts as bytes, little endian. See `docs/snapshot_format.md`; a test compares the two.
//!
//! `header | chunk … chunk | footer: fixed part, chunk table, trailer | tail`. Position and coverage of the header's checksum
//! are the same in every version, so that "made by a later version" is told from damage.

use sha1::{Digest, Sha1};

use super::DamageKind;
use crate::base::checksum::{crc32, crc32_continue};
use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::{WallMs, Zxid};
use crate::storage::fields::{put, put_u32, put_u64, u16_at, u32_at, u64_at};

/// Version written by this build, and the newest it reads.
pub const VERSION: u32 = 1;

/// Largest chunk before compression, bytes. Chunks are about `chunk_bytes_target` long, but one node's data may be as large as
/// a transaction, and must fit with its name and stat.
pub const CHUNK_RAW_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (1 << 20);
/// Most chunks in a snapshot: at 1 MiB each 1 TiB of content; bounds the table (24 MiB) that a reader holds in memory.
pub const CHUNKS_MAX: u32 = 1 << 20;
/// Largest application trailer, bytes: a digest and a few counts, with room.
pub const TRAILER_BYTES_MAX: usize = 4_096;

const MAGIC: [u8; 8] = *b"ZABRASNP";
pub(super) const FOOTER_MAGIC: [u8; 8] = *b"ZABRAFTR";
const TAIL_MAGIC: [u8; 8] = *b"ZABRAEND";

const VERSION_AT: usize = 8;
const HEADER_CRC_AT: usize = 12;
const ZXID_AT: usize = 16;
const NODE_ID_AT: usize = ZXID_AT + 8;
const SALT_AT: usize = NODE_ID_AT + 8;
const CREATED_AT: usize = SALT_AT + 8;
const CHUNK_TARGET_AT: usize = CREATED_AT + 8;
const HEADER_UNUSED_AT: usize = CHUNK_TARGET_AT + 4;
pub(super) const HEADER_BYTES: usize = 64;

const KIND_AT: usize = 0;
const ENCODING_AT: usize = KIND_AT + 2;
const CHUNK_UNUSED_AT: usize = ENCODING_AT + 1;
const INDEX_AT: usize = CHUNK_UNUSED_AT + 1;
const RAW_LEN_AT: usize = INDEX_AT + 4;
const STORED_LEN_AT: usize = RAW_LEN_AT + 4;
const RAW_CRC_AT: usize = STORED_LEN_AT + 4;
const CHUNK_CRC_AT: usize = RAW_CRC_AT + 4;
pub(super) const CHUNK_HEADER_BYTES: usize = CHUNK_CRC_AT + 4;

const FOOTER_ZXID_AT: usize = 8;
const FOOTER_ZXID_END_AT: usize = FOOTER_ZXID_AT + 8;
const CHUNK_COUNT_AT: usize = FOOTER_ZXID_END_AT + 8;
const TRAILER_LEN_AT: usize = CHUNK_COUNT_AT + 4;
const RAW_BYTES_AT: usize = TRAILER_LEN_AT + 4;
const ROOT_DIGEST_AT: usize = RAW_BYTES_AT + 8;
const FOOTER_UNUSED_AT: usize = ROOT_DIGEST_AT + 20;
pub(super) const FOOTER_FIXED_BYTES: usize = FOOTER_UNUSED_AT + 4;

pub(super) const ENTRY_BYTES: usize = 24;
pub(super) const FOOTER_BYTES_MAX: usize =
    FOOTER_FIXED_BYTES + CHUNKS_MAX as usize * ENTRY_BYTES + TRAILER_BYTES_MAX;

const FOOTER_OFFSET_AT: usize = 8;
const FOOTER_LEN_AT: usize = FOOTER_OFFSET_AT + 8;
const FOOTER_CRC_AT: usize = FOOTER_LEN_AT + 8;
const TAIL_CRC_AT: usize = FOOTER_CRC_AT + 4;
pub(super) const TAIL_BYTES: usize = TAIL_CRC_AT + 4;

const _: () = assert!(HEADER_UNUSED_AT <= HEADER_BYTES && HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(CHUNK_RAW_BYTES_MAX < u32::MAX as usize, "lengths of chunks are 32 bits");

/// The documented layout: part, field, offset in the part, bytes.
#[cfg(test)]
pub(super) const LAYOUT: [(&str, &str, usize, usize); 37] = [
    ("header", "magic", 0, 8),
    ("header", "version", VERSION_AT, 4),
    ("header", "header_crc", HEADER_CRC_AT, 4),
    ("header", "zxid", ZXID_AT, 8),
    ("header", "node_id", NODE_ID_AT, 8),
    ("header", "salt", SALT_AT, 8),
    ("header", "created_ms", CREATED_AT, 8),
    ("header", "chunk_bytes_target", CHUNK_TARGET_AT, 4),
    ("header", "unused", HEADER_UNUSED_AT, HEADER_BYTES - HEADER_UNUSED_AT),
    ("chunk", "kind", KIND_AT, 2),
    ("chunk", "encoding", ENCODING_AT, 1),
    ("chunk", "unused", CHUNK_UNUSED_AT, 1),
    ("chunk", "index", INDEX_AT, 4),
    ("chunk", "raw_len", RAW_LEN_AT, 4),
    ("chunk", "stored_len", STORED_LEN_AT, 4),
    ("chunk", "raw_crc", RAW_CRC_AT, 4),
    ("chunk", "chunk_crc", CHUNK_CRC_AT, 4),
    ("footer", "magic", 0, 8),
    ("footer", "zxid", FOOTER_ZXID_AT, 8),
    ("footer", "zxid_end", FOOTER_ZXID_END_AT, 8),
    ("footer", "chunk_count", CHUNK_COUNT_AT, 4),
    ("footer", "trailer_len", TRAILER_LEN_AT, 4),
    ("footer", "raw_bytes", RAW_BYTES_AT, 8),
    ("footer", "root_digest", ROOT_DIGEST_AT, 20),
    ("footer", "unused", FOOTER_UNUSED_AT, 4),
    ("entry", "offset", 0, 8),
    ("entry", "stored_len", 8, 4),
    ("entry", "raw_len", 12, 4),
    ("entry", "chunk_crc", 16, 4),
    ("entry", "kind", 20, 2),
    ("entry", "encoding", 22, 1),
    ("entry", "unused", 23, 1),
    ("tail", "magic", 0, 8),
    ("tail", "footer_offset", FOOTER_OFFSET_AT, 8),
    ("tail", "footer_len", FOOTER_LEN_AT, 8),
    ("tail", "footer_crc", FOOTER_CRC_AT, 4),
    ("tail", "tail_crc", TAIL_CRC_AT, 4),
];

/// How a chunk's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Zstd,
}

impl Encoding {
    fn to_byte(self) -> u8 {
        match self {
            Encoding::Raw => 0,
            Encoding::Zstd => 1,
        }
    }

    fn from_byte(byte: u8) -> Option<Encoding> {
        match byte {
            0 => Some(Encoding::Raw),
            1 => Some(Encoding::Zstd),
            _ => None,
        }
    }
}

/// The file's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) zxid: Zxid,
    pub(super) node_id: u64,
    pub(super) salt: u64,
    pub(super) created: WallMs,
    pub(super) chunk_bytes_target: u32,
}

/// Why a header is not one.
pub(super) enum HeaderError {
    Damage(DamageKind),
    Version(u32),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 0, &MAGIC);
        put_u32(&mut out, VERSION_AT, VERSION);
        put_u64(&mut out, ZXID_AT, self.zxid.0);
        put_u64(&mut out, NODE_ID_AT, self.node_id);
        put_u64(&mut out, SALT_AT, self.salt);
        put_u64(&mut out, CREATED_AT, self.created.0 as u64);
        put_u32(&mut out, CHUNK_TARGET_AT, self.chunk_bytes_target);
        let crc = header_crc(&out);
        put_u32(&mut out, HEADER_CRC_AT, crc);
        out
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderError> {
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Damage(DamageKind::Magic));
        }
        if header_crc(bytes) != u32_at(bytes, HEADER_CRC_AT) {
            return Err(HeaderError::Damage(DamageKind::Checksum));
        }
        if u32_at(bytes, VERSION_AT) != VERSION {
            return Err(HeaderError::Version(u32_at(bytes, VERSION_AT)));
        }
        Ok(Header {
            zxid: Zxid(u64_at(bytes, ZXID_AT)),
            node_id: u64_at(bytes, NODE_ID_AT),
            salt: u64_at(bytes, SALT_AT),
            created: WallMs(u64_at(bytes, CREATED_AT) as i64),
            chunk_bytes_target: u32_at(bytes, CHUNK_TARGET_AT),
        })
    }

    /// What every checksum after the header starts from.
    pub(super) fn seed(&self) -> u32 {
        crc32(&self.salt.to_le_bytes())
    }
}

/// Over everything but the checksum itself.
fn header_crc(bytes: &[u8; HEADER_BYTES]) -> u32 {
    crc32_continue(crc32(&bytes[..HEADER_CRC_AT]), &bytes[HEADER_CRC_AT + 4..])
}

/// One line of the chunk table; together with the index it says all that a chunk's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) stored_len: u32,
    pub(super) raw_len: u32,
    pub(super) crc: u32,
    pub(super) kind: u16,
    pub(super) encoding: Encoding,
}

impl Entry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&[self.encoding.to_byte(), 0]);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Entry, DamageKind> {
        let entry = Entry {
            offset: u64_at(bytes, 0),
            stored_len: u32_at(bytes, 8),
            raw_len: u32_at(bytes, 12),
            crc: u32_at(bytes, 16),
            kind: u16_at(bytes, 20),
            encoding: Encoding::from_byte(bytes[22]).ok_or(DamageKind::Contradiction)?,
        };
        if bytes[23] == 0 && entry.lengths_agree() { Ok(entry) } else { Err(DamageKind::Contradiction) }
    }

    /// First byte after the chunk.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(CHUNK_HEADER_BYTES as u64 + u64::from(self.stored_len))
    }

    fn lengths_agree(&self) -> bool {
        let agree = match self.encoding {
            Encoding::Raw => self.stored_len == self.raw_len,
            Encoding::Zstd => self.stored_len < self.raw_len,
        };
        agree && self.raw_len as usize <= CHUNK_RAW_BYTES_MAX
    }
}

/// What a chunk says of itself beside its [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    pub(super) index: u32,
    pub(super) raw_crc: u32,
    pub(super) entry: Entry,
}

impl ChunkHeader {
    /// Writes the header into the first bytes of `frame`, whose rest is the stored bytes; returns the checksum.
    pub(super) fn seal(&self, seed: u32, frame: &mut [u8]) -> u32 {
        put(frame, KIND_AT, &self.entry.kind.to_le_bytes());
        put(frame, ENCODING_AT, &[self.entry.encoding.to_byte(), 0]);
        put_u32(frame, INDEX_AT, self.index);
        put_u32(frame, RAW_LEN_AT, self.entry.raw_len);
        put_u32(frame, STORED_LEN_AT, self.entry.stored_len);
        put_u32(frame, RAW_CRC_AT, self.raw_crc);
        let crc = chunk_crc(seed, frame);
        put_u32(frame, CHUNK_CRC_AT, crc);
        crc
    }

    /// Decodes the header at `offset` of the file; the checksum is still to be compared with [`chunk_crc`].
    pub(super) fn decode(bytes: &[u8], offset: u64) -> Result<ChunkHeader, DamageKind> {
        let entry = Entry {
            offset,
            stored_len: u32_at(bytes, STORED_LEN_AT),
            raw_len: u32_at(bytes, RAW_LEN_AT),
            crc: u32_at(bytes, CHUNK_CRC_AT),
            kind: u16_at(bytes, KIND_AT),
            encoding: Encoding::from_byte(bytes[ENCODING_AT]).ok_or(DamageKind::Contradiction)?,
        };
        if bytes[CHUNK_UNUSED_AT] != 0 || !entry.lengths_agree() {
            return Err(DamageKind::Contradiction);
        }
        Ok(ChunkHeader { index: u32_at(bytes, INDEX_AT), raw_crc: u32_at(bytes, RAW_CRC_AT), entry })
    }
}

/// Checksum of a whole chunk: its header but for the checksum, and its stored bytes.
pub(super) fn chunk_crc(seed: u32, frame: &[u8]) -> u32 {
    let crc = crc32_continue(seed, &frame[..CHUNK_CRC_AT]);
    crc32_continue(crc, &frame[CHUNK_HEADER_BYTES..])
}

/// The footer's fixed part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) zxid: Zxid,
    pub(super) zxid_end: Zxid,
    pub(super) chunk_count: u32,
    pub(super) trailer_len: u32,
    pub(super) raw_bytes: u64,
    pub(super) root_digest: [u8; 20],
}

impl Footer {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&FOOTER_MAGIC);
        out.extend_from_slice(&self.zxid.0.to_le_bytes());
        out.extend_from_slice(&self.zxid_end.0.to_le_bytes());
        out.extend_from_slice(&self.chunk_count.to_le_bytes());
        out.extend_from_slice(&self.trailer_len.to_le_bytes());
        out.extend_from_slice(&self.raw_bytes.to_le_bytes());
        out.extend_from_slice(&self.root_digest);
        out.extend_from_slice(&[0; FOOTER_FIXED_BYTES - FOOTER_UNUSED_AT]);
    }

    /// Decodes the fixed part of a footer of `bytes.len()` bytes in all, at least [`FOOTER_FIXED_BYTES`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Footer, DamageKind> {
        if bytes[..8] != FOOTER_MAGIC {
            return Err(DamageKind::Magic);
        }
        let footer = Footer {
            zxid: Zxid(u64_at(bytes, FOOTER_ZXID_AT)),
            zxid_end: Zxid(u64_at(bytes, FOOTER_ZXID_END_AT)),
            chunk_count: u32_at(bytes, CHUNK_COUNT_AT),
            trailer_len: u32_at(bytes, TRAILER_LEN_AT),
            raw_bytes: u64_at(bytes, RAW_BYTES_AT),
            root_digest: bytes[ROOT_DIGEST_AT..FOOTER_UNUSED_AT].try_into().expect("twenty bytes"),
        };
        let len = u64::from(footer.chunk_count) * ENTRY_BYTES as u64 + u64::from(footer.trailer_len);
        let fits = FOOTER_FIXED_BYTES as u64 + len == bytes.len() as u64
            && footer.chunk_count <= CHUNKS_MAX
            && footer.trailer_len as usize <= TRAILER_BYTES_MAX
            && footer.zxid <= footer.zxid_end;
        if fits { Ok(footer) } else { Err(DamageKind::Contradiction) }
    }
}

/// The file's last bytes: where the footer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) footer_offset: u64,
    pub(super) footer_len: u64,
    pub(super) footer_crc: u32,
}

impl Tail {
    pub(super) fn encode(&self, seed: u32) -> [u8; TAIL_BYTES] {
        let mut out = [0; TAIL_BYTES];
        put(&mut out, 0, &TAIL_MAGIC);
        put_u64(&mut out, FOOTER_OFFSET_AT, self.footer_offset);
        put_u64(&mut out, FOOTER_LEN_AT, self.footer_len);
        put_u32(&mut out, FOOTER_CRC_AT, self.footer_crc);
        let crc = crc32_continue(seed, &out[..TAIL_CRC_AT]);
        put_u32(&mut out, TAIL_CRC_AT, crc);
        out
    }

    /// Decodes the tail of a file of `file_bytes`.
    pub(super) fn decode(bytes: &[u8; TAIL_BYTES], seed: u32, file_bytes: u64) -> Result<Tail, DamageKind> {
        if bytes[..8] != TAIL_MAGIC {
            return Err(DamageKind::Magic);
        }
        if crc32_continue(seed, &bytes[..TAIL_CRC_AT]) != u32_at(bytes, TAIL_CRC_AT) {
            return Err(DamageKind::Checksum);
        }
        let tail = Tail {
            footer_offset: u64_at(bytes, FOOTER_OFFSET_AT),
            footer_len: u64_at(bytes, FOOTER_LEN_AT),
            footer_crc: u32_at(bytes, FOOTER_CRC_AT),
        };
        let end = tail.footer_offset.checked_add(tail.footer_len);
        let fits = end == file_bytes.checked_sub(TAIL_BYTES as u64)
            && tail.footer_offset >= HEADER_BYTES as u64
            && (FOOTER_FIXED_BYTES as u64..=FOOTER_BYTES_MAX as u64).contains(&tail.footer_len);
        if fits { Ok(tail) } else { Err(DamageKind::Contradiction) }
    }
}

/// What a footer says of its whole chunk table, and so of every chunk: their checksums stand in it.
pub(super) fn root_digest(table: &[u8]) -> [u8; 20] {
    Sha1::digest(table).into()
}

/// Makes the checksums of a mangled snapshot right again, so that fuzzers get past them. Does what it can.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn reseal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES + FOOTER_FIXED_BYTES + TAIL_BYTES {
        return;
    }
    let crc = header_crc(bytes[..HEADER_BYTES].try_into().expect("long enough"));
    put_u32(bytes, HEADER_CRC_AT, crc);
    let seed = crc32(&bytes[SALT_AT..SALT_AT + 8]);
    let tail_at = bytes.len() - TAIL_BYTES;
    let footer_at = u64_at(bytes, tail_at + FOOTER_OFFSET_AT);
    let footer_at = usize::try_from(footer_at).unwrap_or(tail_at).min(tail_at);
    reseal_chunks(bytes, seed, footer_at, tail_at);
    let crc = crc32_continue(seed, &bytes[footer_at..tail_at]);
    put_u32(bytes, tail_at + FOOTER_CRC_AT, crc);
    let crc = crc32_continue(seed, &bytes[tail_at..tail_at + TAIL_CRC_AT]);
    put_u32(bytes, tail_at + TAIL_CRC_AT, crc);
}

#[cfg(any(test, feature = "testing"))]
fn reseal_chunks(bytes: &mut [u8], seed: u32, footer_at: usize, tail_at: usize) {
    let (mut at, mut line) = (HEADER_BYTES, footer_at + FOOTER_FIXED_BYTES);
    while at + CHUNK_HEADER_BYTES <= footer_at && line + ENTRY_BYTES <= tail_at {
        let end = at + CHUNK_HEADER_BYTES + u32_at(bytes, at + STORED_LEN_AT) as usize;
        if end > footer_at {
            return;
        }
        let crc = chunk_crc(seed, &bytes[at..end]);
        put_u32(bytes, at + CHUNK_CRC_AT, crc);
        put_u32(bytes, line + 16, crc);
        (at, line) = (end, line + ENTRY_BYTES);
    }
    if footer_at + ROOT_DIGEST_AT + 20 <= tail_at {
        let table_end = line.min(tail_at);
        let digest = root_digest(&bytes[(footer_at + FOOTER_FIXED_BYTES).min(table_end)..table_end]);
        put(bytes, footer_at + ROOT_DIGEST_AT, &digest);
    }
}
