//! One superblock copy as bytes: 4,096 of them, little endian, checksum last. See `docs/snapshot_format.md`.
//!
//! Place and coverage of the checksum are the same in every version, so that "made by a later version" is told from damage.

use super::{Recall, Superblock};
use crate::base::checksum::crc32;
use crate::base::{Epoch, LogPos, ServerId, Zxid};
use crate::storage::fields::{put, put_u32, put_u64, u32_at, u64_at};

/// Copies kept.
pub(super) const COPY_COUNT: usize = 2;
/// Bytes of one copy: one page, one block of most disks.
pub(super) const COPY_BYTES: usize = 4_096;

/// Version written by this build, and the newest it reads.
pub const VERSION: u32 = 3;
/// The version before: without the flags of `Recall`; every directory counted as whole.
const VERSION_WITHOUT_RECALL: u32 = 2;
/// The first: also without `reset_zxid` and `committed_zxid`, whose places were unused, hence zero.
const VERSION_WITHOUT_RESET: u32 = 1;

const MAGIC: [u8; 8] = *b"ZABRASUP";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const COPY_AT: usize = VERSION_AT + 4;
const GENERATION_AT: usize = COPY_AT + 4;
const NODE_ID_AT: usize = GENERATION_AT + 8;
const CLUSTER_ID_AT: usize = NODE_ID_AT + 8;
const SERVER_ID_AT: usize = CLUSTER_ID_AT + 8;
const EPOCH_ACCEPTED_AT: usize = SERVER_ID_AT + 8;
const EPOCH_CURRENT_AT: usize = EPOCH_ACCEPTED_AT + 4;
const FLAGS_AT: usize = EPOCH_CURRENT_AT + 4;
const TRUNCATE_ZXID_AT: usize = FLAGS_AT + 8;
const CLEAN_SEGMENT_AT: usize = TRUNCATE_ZXID_AT + 8;
const CLEAN_OFFSET_AT: usize = CLEAN_SEGMENT_AT + 8;
const RESET_ZXID_AT: usize = CLEAN_OFFSET_AT + 8;
const COMMITTED_ZXID_AT: usize = RESET_ZXID_AT + 8;
const UNUSED_AT: usize = COMMITTED_ZXID_AT + 8;
const CRC_AT: usize = COPY_BYTES - 4;

const _: () = assert!(UNUSED_AT <= CRC_AT && COPY_BYTES.is_multiple_of(512));

/// The documented layout: name, offset, bytes. Compared with the document by a test.
#[cfg(test)]
pub(super) const LAYOUT: [(&str, usize, usize); 17] = [
    ("magic", MAGIC_AT, 8),
    ("version", VERSION_AT, 4),
    ("copy", COPY_AT, 4),
    ("generation", GENERATION_AT, 8),
    ("node_id", NODE_ID_AT, 8),
    ("cluster_id", CLUSTER_ID_AT, 8),
    ("server_id", SERVER_ID_AT, 8),
    ("epoch_accepted", EPOCH_ACCEPTED_AT, 4),
    ("epoch_current", EPOCH_CURRENT_AT, 4),
    ("flags", FLAGS_AT, 8),
    ("truncate_zxid", TRUNCATE_ZXID_AT, 8),
    ("clean_segment", CLEAN_SEGMENT_AT, 8),
    ("clean_offset", CLEAN_OFFSET_AT, 8),
    ("reset_zxid", RESET_ZXID_AT, 8),
    ("committed_zxid", COMMITTED_ZXID_AT, 8),
    ("unused", UNUSED_AT, CRC_AT - UNUSED_AT),
    ("crc", CRC_AT, 4),
];

const FLAG_TRUNCATE: u64 = 1;
const FLAG_CLEAN_STOP: u64 = 2;
const FLAG_RESET: u64 = 4;
const FLAG_STATE: u64 = 8;
const FLAG_NEW: u64 = 16;
const FLAG_LOST: u64 = 32;
const FLAG_CLEARING: u64 = 64;

/// Flags that version 1 defined; version 2; this one.
const FLAGS_V1: u64 = FLAG_TRUNCATE | FLAG_CLEAN_STOP;
const FLAGS_V2: u64 = FLAGS_V1 | FLAG_RESET | FLAG_STATE;
const FLAGS: u64 = FLAGS_V2 | FLAG_NEW | FLAG_LOST | FLAG_CLEARING;

/// What is wrong with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDamage {
    /// The file ends before the copy does.
    Short,
    /// Does not begin as a superblock does.
    Magic,
    /// Checksum does not match: torn or damaged.
    Checksum,
    /// The bytes of the other copy: a misdirected write or a copied file.
    WrongCopy(u32),
    /// Valid, but contradicts itself or sets bits that this version does not define.
    Contradiction,
    /// Valid, but of a version this build does not know.
    Version(u32),
}

/// A decoded copy.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) generation: u64,
    pub(super) value: Superblock,
}

pub(super) fn encode(value: &Superblock, generation: u64, copy: u32) -> [u8; COPY_BYTES] {
    let mut out = [0; COPY_BYTES];
    let clean = value.clean_stop.unwrap_or_default();
    let flags = if value.truncate_pending.is_some() { FLAG_TRUNCATE } else { 0 }
        | if value.clean_stop.is_some() { FLAG_CLEAN_STOP } else { 0 }
        | if value.reset_pending.is_some() { FLAG_RESET } else { 0 }
        | if value.state_announced.is_some() { FLAG_STATE } else { 0 }
        | recall_flag(value.recall);
    let reset = value.reset_pending.or(value.state_announced).unwrap_or_default();
    put(&mut out, MAGIC_AT, &MAGIC);
    put_u32(&mut out, VERSION_AT, VERSION);
    put_u32(&mut out, COPY_AT, copy);
    put_u64(&mut out, GENERATION_AT, generation);
    put_u64(&mut out, NODE_ID_AT, value.node_id);
    put_u64(&mut out, CLUSTER_ID_AT, value.cluster_id);
    put_u64(&mut out, SERVER_ID_AT, value.server_id.0 as u64);
    put_u32(&mut out, EPOCH_ACCEPTED_AT, value.epoch_accepted.0);
    put_u32(&mut out, EPOCH_CURRENT_AT, value.epoch_current.0);
    put_u64(&mut out, FLAGS_AT, flags);
    put_u64(&mut out, TRUNCATE_ZXID_AT, value.truncate_pending.unwrap_or_default().0);
    put_u64(&mut out, CLEAN_SEGMENT_AT, clean.segment);
    put_u64(&mut out, CLEAN_OFFSET_AT, clean.offset);
    put_u64(&mut out, RESET_ZXID_AT, reset.0);
    put_u64(&mut out, COMMITTED_ZXID_AT, value.committed.0);
    let crc = crc32(&out[..CRC_AT]);
    put_u32(&mut out, CRC_AT, crc);
    out
}

pub(super) fn decode(bytes: &[u8; COPY_BYTES], copy: u32) -> Result<Copy, CopyDamage> {
    if bytes[..MAGIC.len()] != MAGIC {
        return Err(CopyDamage::Magic);
    }
    if crc32(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
        return Err(CopyDamage::Checksum);
    }
    let version = u32_at(bytes, VERSION_AT);
    if ![VERSION, VERSION_WITHOUT_RECALL, VERSION_WITHOUT_RESET].contains(&version) {
        return Err(CopyDamage::Version(version));
    }
    if u32_at(bytes, COPY_AT) != copy {
        return Err(CopyDamage::WrongCopy(u32_at(bytes, COPY_AT)));
    }
    let flags = u64_at(bytes, FLAGS_AT);
    let recall = decode_recall(flags).ok_or(CopyDamage::Contradiction)?;
    let value = decode_value(bytes, flags, recall);
    let (flags_known, unused_at) = match version {
        VERSION_WITHOUT_RESET => (FLAGS_V1, RESET_ZXID_AT),
        VERSION_WITHOUT_RECALL => (FLAGS_V2, UNUSED_AT),
        _ => (FLAGS, UNUSED_AT),
    };
    let unused = bytes[unused_at..CRC_AT].iter().all(|&b| b == 0);
    if flags & !flags_known != 0 || !unused || !value.is_sound() {
        return Err(CopyDamage::Contradiction);
    }
    Ok(Copy { generation: u64_at(bytes, GENERATION_AT), value })
}

const fn recall_flag(recall: Recall) -> u64 {
    match recall {
        Recall::Whole => 0,
        Recall::New => FLAG_NEW,
        Recall::Lost => FLAG_LOST,
        Recall::Clearing => FLAG_CLEARING,
    }
}

fn decode_recall(flags: u64) -> Option<Recall> {
    let found = flags & (FLAG_NEW | FLAG_LOST | FLAG_CLEARING);
    let all = [Recall::Whole, Recall::New, Recall::Lost, Recall::Clearing];
    all.into_iter().find(|recall| recall_flag(*recall) == found)
}

fn decode_value(bytes: &[u8; COPY_BYTES], flags: u64, recall: Recall) -> Superblock {
    let clean = LogPos { segment: u64_at(bytes, CLEAN_SEGMENT_AT), offset: u64_at(bytes, CLEAN_OFFSET_AT) };
    Superblock {
        node_id: u64_at(bytes, NODE_ID_AT),
        cluster_id: u64_at(bytes, CLUSTER_ID_AT),
        server_id: ServerId(u64_at(bytes, SERVER_ID_AT) as i64),
        epoch_accepted: Epoch(u32_at(bytes, EPOCH_ACCEPTED_AT)),
        epoch_current: Epoch(u32_at(bytes, EPOCH_CURRENT_AT)),
        truncate_pending: (flags & FLAG_TRUNCATE != 0).then(|| Zxid(u64_at(bytes, TRUNCATE_ZXID_AT))),
        clean_stop: (flags & FLAG_CLEAN_STOP != 0).then_some(clean),
        reset_pending: (flags & FLAG_RESET != 0).then(|| Zxid(u64_at(bytes, RESET_ZXID_AT))),
        state_announced: (flags & FLAG_STATE != 0).then(|| Zxid(u64_at(bytes, RESET_ZXID_AT))),
        committed: Zxid(u64_at(bytes, COMMITTED_ZXID_AT)),
        recall,
    }
}
