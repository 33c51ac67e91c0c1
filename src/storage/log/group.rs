//! A group of records on its way into the log: payloads are encoded once, straight into the buffer that is written.
//!
//! Invariants:
//! - G1: the buffer is head space, payload, zero padding, repeated; every record starts at a multiple of 8.
//! - G2: zxids grow within a group.
//! - G3: heads are completed by [`Group::seal`] alone, when place and predecessor are known; sealing again overwrites them.

use crate::base::Zxid;
use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::storage::log::format::{
    self, ALIGN_BYTES, Chain, RECORD_HEAD_BYTES, RecordHead, RecordKind, record_bytes,
};

/// A reusable buffer of records being prepared.
#[derive(Debug, Default)]
pub struct Group {
    bytes: Vec<u8>,
    records: Vec<Entry>,
    /// Where the record that is being written starts.
    open_at: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    zxid: Zxid,
    kind: RecordKind,
    /// Where the record starts in the buffer.
    at: usize,
    payload_bytes: usize,
}

impl Group {
    /// An empty group.
    #[must_use]
    pub fn new() -> Group {
        Group::default()
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.open_at = None;
    }

    /// Adds a record whose payload `encode` appends to the vector it is given (which must not be shortened).
    pub fn record(&mut self, zxid: Zxid, kind: RecordKind, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(self.begin_record());
        self.finish_record(zxid, kind);
    }

    /// Starts a record and gives the buffer to append its payload to; [`Group::finish_record`] or [`Group::abort_record`] follows.
    pub fn begin_record(&mut self) -> &mut Vec<u8> {
        assert!(self.open_at.is_none(), "one record at a time");
        self.open_at = Some(self.bytes.len());
        self.bytes.resize(self.bytes.len() + RECORD_HEAD_BYTES, 0);
        &mut self.bytes
    }

    /// The buffer of the record that was begun, to append more payload.
    pub fn buf(&mut self) -> &mut Vec<u8> {
        assert!(self.open_at.is_some(), "a record was begun");
        &mut self.bytes
    }

    /// Bytes of payload in the record that was begun.
    #[must_use]
    pub fn open_payload_bytes(&self) -> usize {
        self.open_at.map_or(0, |at| self.bytes.len() - at - RECORD_HEAD_BYTES)
    }

    /// Ends the record that was begun. `zxid` must be above the last one; the payload at most [`PAYLOAD_BYTES_MAX`].
    pub fn finish_record(&mut self, zxid: Zxid, kind: RecordKind) {
        let at = self.open_at.take().expect("begin_record came first");
        assert!(self.bytes.len() >= at + RECORD_HEAD_BYTES, "an encoder only appends");
        let payload_bytes = self.bytes.len() - at - RECORD_HEAD_BYTES;
        assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "bounded where transactions are made");
        assert!(kind != RecordKind::Mark, "marks are the appender's own");
        assert!(self.last_zxid().is_none_or(|last| zxid > last), "G2: zxids grow");
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN_BYTES), 0);
        self.records.push(Entry { zxid, kind, at, payload_bytes });
        debug_assert_eq!(self.bytes.len() - at, record_bytes(payload_bytes), "G1");
    }

    /// Drops the record that was begun, as if it had never been.
    pub fn abort_record(&mut self) {
        let at = self.open_at.take().expect("begin_record came first");
        self.bytes.truncate(at);
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Zxid, RecordKind, &[u8])> {
        self.records.iter().map(|e| {
            let start = e.at + RECORD_HEAD_BYTES;
            (e.zxid, e.kind, &self.bytes[start..start + e.payload_bytes])
        })
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True when there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that the records take in the log, heads and padding included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open_at.unwrap_or(self.bytes.len())
    }

    /// zxid of the first record.
    #[must_use]
    pub fn first_zxid(&self) -> Option<Zxid> {
        self.records.first().map(|e| e.zxid)
    }

    /// zxid of the last record.
    #[must_use]
    pub fn last_zxid(&self) -> Option<Zxid> {
        self.records.last().map(|e| e.zxid)
    }

    /// Completes the heads for a group that will stand at `offset` of the segment with `salt`, behind `chain`, with `watermark`.
    /// Returns the chain behind the group.
    pub(super) fn seal(&mut self, salt: u64, offset: u64, chain: Chain, watermark: u32) -> Chain {
        assert!(self.open_at.is_none(), "the last record was finished");
        let mut chain = chain;
        for e in &self.records {
            let head = RecordHead {
                crc: 0,
                zxid: e.zxid,
                prev: chain,
                watermark,
                len: e.payload_bytes as u32,
                kind: e.kind,
            };
            let record = &mut self.bytes[e.at..e.at + record_bytes(e.payload_bytes)];
            chain = format::seal_record(record, &head, salt, offset + e.at as u64);
        }
        chain
    }

    /// What is written: the sealed records.
    pub(super) fn sealed_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The zxid of each record and where it starts in the group.
    pub(super) fn places(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.records.iter().map(|e| (e.zxid, e.at as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_an_aborted_one_leaves_nothing() {
        let mut group = Group::new();
        group.record(Zxid(1), RecordKind::Txn, |b| b.extend_from_slice(b"one"));
        group.begin_record().extend_from_slice(b"never");
        assert_eq!(group.open_payload_bytes(), 5);
        group.abort_record();
        group.begin_record().extend_from_slice(b"t");
        group.buf().extend_from_slice(b"wo");
        group.finish_record(Zxid(2), RecordKind::Txn);
        let all: Vec<_> = group.iter().map(|(z, _, p)| (z.0, p.to_vec())).collect();
        assert_eq!(all, [(1, b"one".to_vec()), (2, b"two".to_vec())]);
        assert_eq!((group.len(), group.bytes()), (2, 2 * record_bytes(3)));
        group.clear();
        assert!(group.is_empty() && group.bytes() == 0);
    }

    #[test]
    fn sealing_chains_the_records() {
        let mut group = Group::new();
        for z in 1..=3 {
            group.record(Zxid(z), RecordKind::Txn, |b| b.push(z as u8));
        }
        let start = Chain { zxid: Zxid::ZERO, crc: 0 };
        let end = group.seal(7, 4096, start, 0);
        let (mut chain, mut at) = (start, 0);
        while at < group.bytes() {
            let head = format::parse_head(&group.sealed_bytes()[at..], 7, 4096 + at as u64).expect("sealed");
            assert!(head.follows(chain));
            chain = head.chain();
            at += head.record_bytes() as usize;
        }
        assert_eq!(chain, end);
    }
}
