//! Bytes only: the segment header and the record, encoded, decoded and checked. Knows no file.
//!
//! Invariants (the page `docs/log_format.md` draws the bytes; a test compares its tables with the constants here):
//! - F1: every byte of a record, padding included, is under a checksum seeded by the segment's salt and the record's offset,
//!   so that stale, recycled, misplaced and damaged bytes do not validate.
//! - F2: a record names the record before it (`prev_zxid`, `prev_crc`), so that a hole cannot be represented.
//! - F3: a head alone can be checked (`head_crc`) before its length is believed: no work and no memory on a length's word.
//! - F4: an all-zero head is never valid (kind 0 does not exist): zeroed space is "nothing here".
//! - F5: everything is little-endian and starts at a multiple of 8.

use crate::base::checksum::{crc32, crc32_continue};
use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::{LogPos, Zxid};
use crate::storage::fields::{put, put_u32, put_u64, u32_at, u64_at};

/// First bytes of every segment file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"ZABRALOG";
/// Version of the header and of the records behind it.
pub const FORMAT_VERSION: u32 = 1;

/// The segment header: one page, so that no record shares a page (or a sector) with it.
pub const SEGMENT_HEAD_BYTES: usize = 4096;
const HEAD_VERSION_OFFSET: usize = 8;
const HEAD_BYTES_OFFSET: usize = HEAD_VERSION_OFFSET + 4;
const HEAD_NUMBER_OFFSET: usize = HEAD_BYTES_OFFSET + 4;
const HEAD_SALT_OFFSET: usize = HEAD_NUMBER_OFFSET + 8;
const HEAD_IDENTITY_OFFSET: usize = HEAD_SALT_OFFSET + 8;
const HEAD_SEGMENT_BYTES_OFFSET: usize = HEAD_IDENTITY_OFFSET + 8;
const HEAD_SYNCED_SEGMENT_OFFSET: usize = HEAD_SEGMENT_BYTES_OFFSET + 8;
const HEAD_SYNCED_OFFSET_OFFSET: usize = HEAD_SYNCED_SEGMENT_OFFSET + 8;
const HEAD_CRC_OFFSET: usize = HEAD_SYNCED_OFFSET_OFFSET + 8;

/// Records start at multiples of this.
pub const ALIGN_BYTES: usize = 8;
const RECORD_HEAD_CRC_OFFSET: usize = 0;
const RECORD_CRC_OFFSET: usize = RECORD_HEAD_CRC_OFFSET + 4;
const RECORD_ZXID_OFFSET: usize = RECORD_CRC_OFFSET + 4;
const RECORD_PREV_ZXID_OFFSET: usize = RECORD_ZXID_OFFSET + 8;
const RECORD_PREV_CRC_OFFSET: usize = RECORD_PREV_ZXID_OFFSET + 8;
const RECORD_WATERMARK_OFFSET: usize = RECORD_PREV_CRC_OFFSET + 4;
const RECORD_LEN_OFFSET: usize = RECORD_WATERMARK_OFFSET + 4;
const RECORD_KIND_OFFSET: usize = RECORD_LEN_OFFSET + 4;
const RECORD_FLAGS_OFFSET: usize = RECORD_KIND_OFFSET + 1;
const RECORD_RESERVED_OFFSET: usize = RECORD_FLAGS_OFFSET + 1;
/// Bytes before a record's payload.
pub const RECORD_HEAD_BYTES: usize = RECORD_RESERVED_OFFSET + 2;

/// Smallest segment: the header and one page of records. Tests rotate often with it.
pub const SEGMENT_BYTES_MIN: u64 = 2 * SEGMENT_HEAD_BYTES as u64;
/// Largest segment: a watermark is an offset in 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;

const _: () = assert!(
    HEAD_CRC_OFFSET + 4 <= 512,
    "the header's fields lie in one sector: a crash cannot mix two headers"
);
const _: () = assert!(
    RECORD_HEAD_BYTES == 40 && RECORD_HEAD_BYTES.is_multiple_of(ALIGN_BYTES),
    "heads keep payloads aligned"
);
const _: () = assert!(SEGMENT_HEAD_BYTES.is_multiple_of(ALIGN_BYTES), "the first record is aligned");
const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64, "a watermark holds every offset");
const _: () = assert!(PAYLOAD_BYTES_MAX <= u32::MAX as usize, "a length holds every payload");

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A transaction: the payload is what the quorum protocol puts into a PROPOSAL.
    Txn = 1,
    /// Only a watermark, written when idle; its zxid is the one before it, its payload empty. Readers never see it.
    Mark = 2,
}

impl RecordKind {
    const fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Txn),
            2 => Some(RecordKind::Mark),
            _ => None,
        }
    }
}

/// Where the chain of records stands: what the next record names as the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// zxid of the last record (or of what the log starts after).
    pub zxid: Zxid,
    /// Its checksum; 0 when the log starts here.
    pub crc: u32,
}

/// A record's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Checksum of the rest of the head, the payload and its padding.
    pub crc: u32,
    /// The transaction.
    pub zxid: Zxid,
    /// The record before this one.
    pub prev: Chain,
    /// Everything in this segment before this offset (and all of the segments before) was synced when this record was
    /// appended; 0 when not even the segment before was.
    pub watermark: u32,
    /// Bytes of payload.
    pub len: u32,
    /// What it is.
    pub kind: RecordKind,
}

impl RecordHead {
    /// Bytes of the whole record, padding included.
    #[must_use]
    pub const fn record_bytes(&self) -> u64 {
        record_bytes(self.len as usize) as u64
    }

    /// What the next record names as its predecessor.
    #[must_use]
    pub const fn chain(&self) -> Chain {
        Chain { zxid: self.zxid, crc: self.crc }
    }

    /// True when this record may follow `chain`.
    #[must_use]
    pub fn follows(&self, chain: Chain) -> bool {
        self.prev == chain
            && match self.kind {
                RecordKind::Txn => self.zxid > chain.zxid,
                RecordKind::Mark => self.zxid == chain.zxid,
            }
    }
}

/// Bytes of a record with `payload_bytes` of payload, padding included.
#[must_use]
pub const fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEAD_BYTES + payload_bytes.next_multiple_of(ALIGN_BYTES)
}

/// What a record's checksums start from: differs for every offset of a segment, and for every life of a segment.
#[must_use]
pub fn record_seed(salt: u64, offset: u64) -> u32 {
    crc32_continue(crc32(&salt.to_le_bytes()), &offset.to_le_bytes())
}

/// Completes `record` (head space, payload, zero padding) in place and returns the chain behind it.
/// `record.len()` is [`record_bytes`] of the payload.
pub fn seal_record(record: &mut [u8], head: &RecordHead, salt: u64, offset: u64) -> Chain {
    assert_eq!(record.len() as u64, head.record_bytes(), "a record is sealed whole");
    assert!(offset.is_multiple_of(ALIGN_BYTES as u64), "records are aligned");
    debug_assert!(u64::from(head.watermark) <= offset, "what is not yet written cannot be synced");
    put_u64(record, RECORD_ZXID_OFFSET, head.zxid.0);
    put_u64(record, RECORD_PREV_ZXID_OFFSET, head.prev.zxid.0);
    put_u32(record, RECORD_PREV_CRC_OFFSET, head.prev.crc);
    put_u32(record, RECORD_WATERMARK_OFFSET, head.watermark);
    put_u32(record, RECORD_LEN_OFFSET, head.len);
    record[RECORD_KIND_OFFSET] = head.kind as u8;
    record[RECORD_FLAGS_OFFSET..RECORD_HEAD_BYTES].fill(0);
    Chain { zxid: head.zxid, crc: put_checksums(record, salt, offset) }
}

/// Recomputes both checksums of `record` as it is: for fuzzers that want arbitrary fields to get past them.
#[cfg(any(test, feature = "testing"))]
pub fn reseal(record: &mut [u8], salt: u64, offset: u64) {
    put_checksums(record, salt, offset);
}

/// Puts both checksums over what `record` holds; returns the whole record's.
fn put_checksums(record: &mut [u8], salt: u64, offset: u64) -> u32 {
    let seed = record_seed(salt, offset);
    let crc = crc32_continue(seed, &record[RECORD_ZXID_OFFSET..]);
    put_u32(record, RECORD_CRC_OFFSET, crc);
    let head_crc = crc32_continue(seed, &record[RECORD_CRC_OFFSET..RECORD_HEAD_BYTES]);
    put_u32(record, RECORD_HEAD_CRC_OFFSET, head_crc);
    crc
}

/// Reads the head at `offset` of a segment; `None` when the bytes are not one (F1, F4). Looks at nothing but the head.
#[must_use]
pub fn parse_head(bytes: &[u8], salt: u64, offset: u64) -> Option<RecordHead> {
    let bytes = bytes.get(..RECORD_HEAD_BYTES)?;
    let kind = RecordKind::from_byte(bytes[RECORD_KIND_OFFSET])?;
    if bytes[RECORD_FLAGS_OFFSET..RECORD_HEAD_BYTES].iter().any(|&b| b != 0) {
        return None;
    }
    let head = RecordHead {
        crc: u32_at(bytes, RECORD_CRC_OFFSET),
        zxid: Zxid(u64_at(bytes, RECORD_ZXID_OFFSET)),
        prev: Chain {
            zxid: Zxid(u64_at(bytes, RECORD_PREV_ZXID_OFFSET)),
            crc: u32_at(bytes, RECORD_PREV_CRC_OFFSET),
        },
        watermark: u32_at(bytes, RECORD_WATERMARK_OFFSET),
        len: u32_at(bytes, RECORD_LEN_OFFSET),
        kind,
    };
    if u64::from(head.watermark) > offset || head.len as usize > PAYLOAD_BYTES_MAX {
        return None;
    }
    let found = u32_at(bytes, RECORD_HEAD_CRC_OFFSET);
    let expected = crc32_continue(record_seed(salt, offset), &bytes[RECORD_CRC_OFFSET..]);
    (found == expected).then_some(head)
}

/// True when `record` (all of its bytes) is what `head`, parsed from it, promises.
#[must_use]
pub fn record_is_whole(record: &[u8], head: &RecordHead, salt: u64, offset: u64) -> bool {
    record.len() as u64 == head.record_bytes()
        && crc32_continue(record_seed(salt, offset), &record[RECORD_ZXID_OFFSET..]) == head.crc
}

/// The payload within a whole record.
#[must_use]
pub fn payload<'a>(record: &'a [u8], head: &RecordHead) -> &'a [u8] {
    &record[RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + head.len as usize]
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The segment, as in its file's name.
    pub number: u64,
    /// Random, fresh in every life of the file: seeds the checksums of its records.
    pub salt: u64,
    /// Whose log this is; opaque here.
    pub identity: u64,
    /// Size of the file.
    pub segment_bytes: u64,
    /// Everything before this place was synced when the header was written: later evidence that a bad record once was whole.
    pub synced: LogPos,
}

/// Why a segment header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Not a segment, or damaged: magic, checksum or a field is wrong.
    Damaged,
    /// Whole, but of a format this program does not know.
    Version(u32),
}

impl SegmentHead {
    /// The header page.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEAD_BYTES] {
        let mut page = [0u8; SEGMENT_HEAD_BYTES];
        put(&mut page, 0, &SEGMENT_MAGIC);
        put_u32(&mut page, HEAD_VERSION_OFFSET, FORMAT_VERSION);
        put_u32(&mut page, HEAD_BYTES_OFFSET, SEGMENT_HEAD_BYTES as u32);
        put_u64(&mut page, HEAD_NUMBER_OFFSET, self.number);
        put_u64(&mut page, HEAD_SALT_OFFSET, self.salt);
        put_u64(&mut page, HEAD_IDENTITY_OFFSET, self.identity);
        put_u64(&mut page, HEAD_SEGMENT_BYTES_OFFSET, self.segment_bytes);
        put_u64(&mut page, HEAD_SYNCED_SEGMENT_OFFSET, self.synced.segment);
        put_u64(&mut page, HEAD_SYNCED_OFFSET_OFFSET, self.synced.offset);
        let crc = crc32(&page);
        put_u32(&mut page, HEAD_CRC_OFFSET, crc);
        page
    }

    /// Reads a header page of [`SEGMENT_HEAD_BYTES`].
    pub fn decode(page: &[u8]) -> Result<SegmentHead, HeadFault> {
        if page.len() != SEGMENT_HEAD_BYTES || page[..8] != SEGMENT_MAGIC {
            return Err(HeadFault::Damaged);
        }
        let mut copy = [0u8; SEGMENT_HEAD_BYTES];
        copy.copy_from_slice(page);
        put_u32(&mut copy, HEAD_CRC_OFFSET, 0);
        if crc32(&copy) != u32_at(page, HEAD_CRC_OFFSET) {
            return Err(HeadFault::Damaged);
        }
        let version = u32_at(page, HEAD_VERSION_OFFSET);
        if version != FORMAT_VERSION {
            return Err(HeadFault::Version(version));
        }
        let head = SegmentHead {
            number: u64_at(page, HEAD_NUMBER_OFFSET),
            salt: u64_at(page, HEAD_SALT_OFFSET),
            identity: u64_at(page, HEAD_IDENTITY_OFFSET),
            segment_bytes: u64_at(page, HEAD_SEGMENT_BYTES_OFFSET),
            synced: LogPos {
                segment: u64_at(page, HEAD_SYNCED_SEGMENT_OFFSET),
                offset: u64_at(page, HEAD_SYNCED_OFFSET_OFFSET),
            },
        };
        let plausible = u32_at(page, HEAD_BYTES_OFFSET) as usize == SEGMENT_HEAD_BYTES
            && segment_bytes_are_valid(head.segment_bytes);
        if plausible { Ok(head) } else { Err(HeadFault::Damaged) }
    }
}

/// True for a size that a segment may have: whole pages within the limits.
#[must_use]
pub const fn segment_bytes_are_valid(bytes: u64) -> bool {
    bytes >= SEGMENT_BYTES_MIN
        && bytes <= SEGMENT_BYTES_MAX
        && bytes.is_multiple_of(SEGMENT_HEAD_BYTES as u64)
}

#[cfg(test)]
mod tests;
