//! Reading a snapshot back, whole, to say whether it is good and, if not, exactly where it is not.

use std::path::Path;

use super::format::HEADER_BYTES;
use super::read::{ChunkSource, SnapshotReader};
use super::{Damage, DamageKind, SnapshotError, SnapshotInfo};
use crate::storage::vfs::Vfs;

/// Places of damage listed in a report; the count goes on.
const DAMAGES_LISTED_MAX: usize = 64;

/// What reading a whole snapshot found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// What the snapshot says of itself; `None` when header, footer or table are bad.
    pub info: Option<SnapshotInfo>,
    /// Chunks that are as they were written.
    pub chunks_good: u32,
    /// Damaged places found.
    pub damage_count: u32,
    /// The first 64 of them, in the order they were found.
    pub damages: Vec<Damage>,
}

impl VerifyReport {
    /// True when every byte is as it was written.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.damage_count == 0 && self.info.is_some()
    }

    /// Takes note of one more place.
    pub fn add(&mut self, damage: Damage) {
        self.damage_count += 1;
        if self.damages.len() < DAMAGES_LISTED_MAX {
            self.damages.push(damage);
        }
    }
}

/// Reads all of `path` from the disk and checks it. Damage is a finding, not an error.
///
/// # Errors
/// The file cannot be opened, or is of a later version.
pub fn verify(vfs: &dyn Vfs, path: &Path) -> Result<VerifyReport, SnapshotError> {
    let mut report = VerifyReport::default();
    match SnapshotReader::open(vfs, path) {
        Ok(reader) => read_by_table(&reader, &mut report),
        Err(SnapshotError::Damaged(damage)) => {
            report.add(damage);
            // With a bad header there is no salt, and without it no chunk can be told from garbage.
            if let Ok(source) = ChunkSource::open(vfs, path) {
                read_by_walking(&source, &mut report);
            }
        }
        Err(error) => return Err(error),
    }
    Ok(report)
}

fn read_by_table(reader: &SnapshotReader, report: &mut VerifyReport) {
    let mut raw = Vec::new();
    for index in 0..reader.chunk_count() {
        match reader.read_chunk(index, &mut raw) {
            Ok(_) => report.chunks_good += 1,
            Err(error) => report.add(place_of(error, index, reader.chunk_offset(index))),
        }
    }
    report.info = Some(reader.info().clone());
}

/// Without a table each chunk's header leads to the next one, up to the footer or to the first place that is not a chunk.
fn read_by_walking(source: &ChunkSource, report: &mut VerifyReport) {
    let (mut raw, mut offset) = (Vec::new(), HEADER_BYTES as u64);
    for index in 0.. {
        if source.is_footer_at(offset) {
            return;
        }
        let read = source.read_header(index, offset).and_then(|header| {
            let end = header.entry.end();
            source.read(index, offset, end, &mut raw).map(|_| end)
        });
        match read {
            Ok(end) => offset = end,
            Err(error) => return report.add(place_of(error, index, offset)),
        }
        report.chunks_good += 1;
    }
}

fn place_of(error: SnapshotError, chunk: u32, offset: u64) -> Damage {
    match error {
        SnapshotError::Damaged(damage) => damage,
        // No context to decompress in: not the file's fault, but the chunk stays unproven.
        SnapshotError::Io(_) | SnapshotError::Version { .. } | SnapshotError::Failed => {
            Damage { chunk: Some(chunk), offset, kind: DamageKind::Decompress }
        }
    }
}
