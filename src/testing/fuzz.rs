//! Entry points of the fuzzers: bytes in, no panic, no unbounded memory, and the promises of the fuzzed part kept.
//!
//! Each fuzz target is five lines that call one of these; a short run of each from fixed seeds is part of `cargo test`.

use std::path::Path;
use std::sync::Arc;

use super::sim_disk::SimDisk;
use crate::base::checksum::crc32;
use crate::base::{WallMs, Zxid};
use crate::storage::snapshot::{self, LEVEL_DEFAULT, SnapshotMeta, SnapshotStore};
use crate::storage::superblock::{self, SuperblockStore};
use crate::storage::vfs::{OpenMode, Vfs};

pub use super::fuzz_config::*;
pub use super::fuzz_log::*;
pub use super::fuzz_node::*;
pub use super::fuzz_quorum::*;
pub use super::fuzz_snap::*;
pub use super::fuzz_wire::*;

const DIR: &str = "/data";
const SUPERBLOCK_COPY_BYTES: usize = 4_096;

/// Two superblock copies from `data` (byte 0: which of them get a valid checksum; then a 16-bit length of the first). What
/// loads, loads again after the repair, as it was.
pub fn superblock_load(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(3) else { return };
    let split = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
    let disk = SimDisk::new(0);
    for (copy, bytes) in [&rest[..split], &rest[split..]].into_iter().enumerate() {
        let mut bytes = bytes.to_vec();
        if head[0] & (1 << copy) != 0 {
            seal_superblock_copy(&mut bytes);
        }
        put_file(&disk, &format!("superblock.{copy}"), &bytes);
    }
    if let Ok(Some((store, _))) = SuperblockStore::open(&disk, Path::new(DIR), true) {
        let again = superblock::load(&disk, Path::new(DIR), true).expect("repaired").expect("present");
        assert_eq!((&again.value, again.generation), (store.value(), store.generation()));
        assert_eq!(again.copies, [superblock::CopyState::Good; 2]);
    }
}

/// A snapshot file from `data`. Byte 0 chooses: the bytes as they are; a valid snapshot of them, with the bytes of `data` also
/// taken as damage to it; or the same with the checksums made right again. A damaged file is never taken for the original.
pub fn snapshot_load(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    if mode % 3 == 0 {
        read_snapshot(rest);
        return;
    }
    let original = valid_snapshot(rest);
    let mut bytes = original.clone();
    damage(&mut bytes, rest);
    if mode % 3 == 2 {
        snapshot::reseal(&mut bytes);
    }
    let good = read_snapshot(&bytes);
    if mode % 3 == 1 {
        assert_eq!(good, bytes == original, "every damage is seen, and only damage");
    }
}

fn seal_superblock_copy(bytes: &mut Vec<u8>) {
    bytes.resize(SUPERBLOCK_COPY_BYTES, 0);
    bytes[..8].copy_from_slice(b"ZABRASUP");
    bytes[8..12].copy_from_slice(&superblock::VERSION.to_le_bytes());
    let (body, crc) = bytes.split_at_mut(SUPERBLOCK_COPY_BYTES - 4);
    crc.copy_from_slice(&crc32(body).to_le_bytes());
}

/// Chunks of up to 300 bytes of `content`.
fn valid_snapshot(content: &[u8]) -> Vec<u8> {
    let disk = SimDisk::new(0);
    let store = snapshots(&disk);
    let meta = SnapshotMeta {
        zxid: Zxid(1),
        node_id: 2,
        created: WallMs(3),
        chunk_bytes_target: 300,
        level: LEVEL_DEFAULT,
    };
    let mut writer = store.create(meta).expect("the simulated disk has room");
    for raw in content.chunks(300) {
        writer.chunk(u16::from(raw[0]), raw).expect("the simulated disk has room");
    }
    writer.finish(Zxid(1), &content[..content.len().min(20)]).expect("the simulated disk has room");
    let file = disk.open(&store.path(Zxid(1)), OpenMode::Read).expect("just published");
    let mut bytes = vec![0; file.size().expect("open") as usize];
    file.read_exact_at(&mut bytes, 0).expect("its own size");
    bytes
}

/// Overwrites bytes of `target`: each four bytes of `script` are a place (24 bits) and a value.
fn damage(target: &mut [u8], script: &[u8]) {
    for step in script.chunks_exact(4).take(8) {
        let at = u32::from_le_bytes([step[0], step[1], step[2], 0]) as usize % target.len();
        target[at] = step[3];
    }
}

/// Opens, verifies and reads; true when all of it is good.
fn read_snapshot(bytes: &[u8]) -> bool {
    let disk = SimDisk::new(0);
    let store = snapshots(&disk);
    put_file(&disk, "snapshot.0000000000000001", bytes);
    let verified = store.verify(Zxid(1)).is_ok_and(|report| report.is_good());
    let reader = store.newest_valid(None).expect("the directory can be listed").reader;
    let good = reader.is_some_and(|reader| {
        let mut raw = Vec::new();
        (0..reader.chunk_count()).all(|index| reader.read_chunk(index, &mut raw).is_ok())
    });
    assert_eq!(good, verified, "verifying and loading agree");
    good
}

fn snapshots(disk: &SimDisk) -> SnapshotStore {
    SnapshotStore::open(Arc::new(disk.clone()), Path::new(DIR)).expect("an empty disk")
}

fn put_file(disk: &SimDisk, name: &str, bytes: &[u8]) {
    disk.create_dir_all(Path::new(DIR)).expect("an empty disk");
    let file = disk.open(&Path::new(DIR).join(name), OpenMode::CreateNew).expect("a new name");
    file.write_all_at(bytes, 0).expect("room");
}

/// Random bytes, of which every other 32-bit field is a small number: lengths, counts and types that could be true.
#[cfg(test)]
pub(super) fn fill_plausibly(rng: &mut crate::base::rng::Rng, bytes: &mut [u8]) {
    rng.fill(bytes);
    for field in bytes.chunks_exact_mut(4) {
        if rng.one_in(2) {
            field.copy_from_slice(&(rng.below(8) as i32 - 1).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn smoke(entry: fn(&[u8]), cases: u64, len_max: u64) {
        let mut rng = Rng::new(1);
        for _ in 0..cases {
            let mut data = vec![0; rng.below(len_max) as usize];
            rng.fill(&mut data);
            if rng.one_in(2) {
                data.iter_mut().skip(1).for_each(|b| *b &= 0x03);
            }
            entry(&data);
        }
    }

    #[test]
    fn superblock_load_smoke() {
        smoke(superblock_load, 2_000, 9_000);
    }

    #[test]
    fn snapshot_load_smoke() {
        smoke(snapshot_load, 3_000, 1_500);
    }
}
