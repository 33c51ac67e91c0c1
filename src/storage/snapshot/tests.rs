use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::base::rng::Rng;
use crate::storage::vfs::{OpenMode, RealVfs, Vfs};
use crate::testing::sim_disk::{Fault, Nothing, OpKind, SimDisk};

fn dir() -> &'static Path {
    Path::new("/data/snapshots")
}

fn store(disk: &SimDisk) -> SnapshotStore {
    SnapshotStore::open(Arc::new(disk.clone()), dir()).unwrap()
}

fn meta(zxid: u64) -> SnapshotMeta {
    SnapshotMeta {
        zxid: Zxid(zxid),
        node_id: 77,
        created: WallMs(1_000_000 + zxid as i64),
        chunk_bytes_target: 1 << 20,
        level: LEVEL_DEFAULT,
    }
}

/// Chunks that compress, do not compress, and are empty.
fn contents() -> Vec<(u16, Vec<u8>)> {
    let mut noise = vec![0; 100];
    Rng::new(9).fill(&mut noise);
    vec![(1, b"/zookeeper/quota ".repeat(20)), (2, noise), (1, Vec::new()), (65_535, vec![0; 5_000])]
}

fn write(store: &SnapshotStore, zxid: u64, end: u64) -> Result<SnapshotInfo, SnapshotError> {
    let mut writer = store.create(meta(zxid))?;
    for (kind, raw) in contents() {
        writer.chunk(kind, &raw)?;
    }
    writer.finish(Zxid(end), b"digest")
}

fn read(reader: &SnapshotReader) -> Result<Vec<(u16, Vec<u8>)>, SnapshotError> {
    let mut chunks = Vec::new();
    for index in 0..reader.chunk_count() {
        let mut raw = b"left over".to_vec();
        chunks.push((reader.read_chunk(index, &mut raw)?, raw));
    }
    Ok(chunks)
}

fn file_bytes(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A disk with one snapshot, of zxid 5.
fn with_one() -> (SimDisk, SnapshotStore, SnapshotInfo) {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let info = write(&store, 5, 8).unwrap();
    (disk, store, info)
}

/// A disk whose only snapshot, of zxid 5, is `bytes`.
fn with_bytes(bytes: &[u8]) -> SnapshotStore {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    disk.open(&store.path(Zxid(5)), OpenMode::CreateNew).unwrap().write_all_at(bytes, 0).unwrap();
    store
}

#[test]
fn what_is_written_is_read() {
    let (disk, _, info) = with_one();
    let store = store(&disk.after_crash(&mut Nothing));
    let reader = store.reader(Zxid(5)).unwrap();
    assert_eq!(reader.info(), &info);
    assert_eq!(read(&reader).unwrap(), contents());
    assert_eq!((info.zxid_end, info.chunk_count, info.raw_bytes), (Zxid(8), 4, 5_440));
    assert_eq!((info.trailer.as_slice(), info.node_id), (&b"digest"[..], 77));
    assert_eq!((reader.chunk_kind(3), reader.chunk_raw_bytes(3)), (65_535, 5_000));
    assert!(info.file_bytes < 700, "compressed: {}", info.file_bytes);
    let report = store.verify(Zxid(5)).unwrap();
    assert!(report.is_good());
    assert_eq!(report.chunks_good, 4);
}

#[test]
fn an_empty_snapshot_is_a_snapshot() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    store.create(meta(0)).unwrap().finish(Zxid(0), b"").unwrap();
    let reader = store.reader(Zxid(0)).unwrap();
    assert_eq!((reader.chunk_count(), reader.info().trailer.len()), (0, 0));
}

#[test]
fn several_threads_compress_and_read_at_once() {
    let raws: Vec<Vec<u8>> = (0..32u8).map(|n| vec![n; 40_000 + usize::from(n)]).collect();
    let mut encoded: Vec<EncodedChunk> = vec![EncodedChunk::default(); raws.len()];
    std::thread::scope(|scope| {
        for (raws, out) in raws.chunks(8).zip(encoded.chunks_mut(8)) {
            scope.spawn(move || {
                let mut encoder = Encoder::new(LEVEL_DEFAULT).unwrap();
                raws.iter().zip(out).for_each(|(raw, out)| encoder.encode(3, raw, out).unwrap());
            });
        }
    });
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let mut writer = store.create(meta(1)).unwrap();
    encoded.iter_mut().for_each(|chunk| writer.append(chunk).unwrap());
    writer.finish(Zxid(1), b"").unwrap();
    let reader = store.reader(Zxid(1)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (reader, raws) = (&reader, &raws);
            scope.spawn(move || {
                let mut raw = Vec::new();
                for index in (0..32).filter(|i| i % 4 == thread) {
                    assert_eq!(reader.read_chunk(index, &mut raw).unwrap(), 3);
                    assert_eq!(raw, raws[index as usize]);
                }
            });
        }
    });
}

#[test]
fn every_bit_flip_is_detected_at_its_place() {
    let (disk, store, info) = with_one();
    let path = store.path(Zxid(5));
    let reader = store.reader(Zxid(5)).unwrap();
    let mut begins: Vec<u64> = (0..4).map(|i| reader.chunk_offset(i)).collect();
    let table_end = info.file_bytes - format::TAIL_BYTES as u64;
    let footer = table_end - (format::FOOTER_FIXED_BYTES + 4 * format::ENTRY_BYTES + 6) as u64;
    begins.push(footer);
    for bit in 0..info.file_bytes * 8 {
        let image = disk.fork();
        image.flip_bit(&path, bit).unwrap();
        let store = SnapshotStore::read_only(Arc::new(image), dir());
        let usable = store.reader(Zxid(5)).and_then(|reader| read(&reader));
        assert!(usable.is_err(), "bit {bit}");
        let report = store.verify(Zxid(5)).unwrap();
        let place = report.damages.iter().map(|d| (d.chunk, d.offset)).collect::<Vec<_>>();
        let byte = bit / 8;
        let chunk = begins.iter().rposition(|&begin| begin <= byte).map(|i| i as u32);
        let expected = match chunk {
            None => (None, 0),
            Some(4) if byte >= table_end => (None, table_end),
            Some(4) => (None, footer),
            Some(chunk) => (Some(chunk), begins[chunk as usize]),
        };
        assert_eq!(place[0], expected, "bit {bit}: {report:?}");
        if chunk == Some(4) && byte >= footer + 8 {
            assert_eq!((place.len(), report.chunks_good), (1, 4), "the chunks are still found: bit {bit}");
        }
    }
}

#[test]
fn every_shorter_or_longer_file_is_detected() {
    let (disk, store, info) = with_one();
    let mut bytes = file_bytes(&disk, &store.path(Zxid(5)));
    for len in 0..bytes.len() {
        let store = with_bytes(&bytes[..len]);
        assert!(matches!(store.reader(Zxid(5)), Err(SnapshotError::Damaged(_))), "{len} bytes");
        assert!(!store.verify(Zxid(5)).unwrap().is_good(), "{len} bytes");
    }
    bytes.push(0);
    assert!(with_bytes(&bytes).reader(Zxid(5)).is_err(), "longer than {}", info.file_bytes);
}

#[test]
fn a_file_that_ends_inside_a_chunk_names_that_chunk() {
    let (disk, store, _) = with_one();
    let bytes = file_bytes(&disk, &store.path(Zxid(5)));
    let offset = store.reader(Zxid(5)).unwrap().chunk_offset(1);
    let report = with_bytes(&bytes[..offset as usize + 90]).verify(Zxid(5)).unwrap();
    let last = Damage { chunk: Some(1), offset, kind: DamageKind::Short };
    assert_eq!((report.damages.last(), report.chunks_good), (Some(&last), 1));
}

#[test]
fn a_chunk_of_another_snapshot_or_place_is_detected() {
    let (disk, store, _) = with_one();
    write(&store, 6, 6).unwrap();
    let reader = store.reader(Zxid(5)).unwrap();
    let (at, next) = (reader.chunk_offset(1) as usize, reader.chunk_offset(2) as usize);
    let (mut five, six) = (file_bytes(&disk, &store.path(Zxid(5))), file_bytes(&disk, &store.path(Zxid(6))));
    five[at..next].copy_from_slice(&six[at..next]);
    let damage = with_bytes(&five).verify(Zxid(5)).unwrap().damages[0];
    assert_eq!((damage.chunk, damage.kind), (Some(1), DamageKind::Checksum));
    let renamed = with_bytes(&six);
    assert!(matches!(renamed.reader(Zxid(5)), Err(SnapshotError::Damaged(d)) if d.kind == DamageKind::Name));
    assert!(!renamed.verify(Zxid(5)).unwrap().is_good());
}

#[test]
fn chunks_that_changed_places_are_told_even_without_the_table() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let mut noise = vec![0; 64];
    Rng::new(1).fill(&mut noise);
    let mut writer = store.create(meta(5)).unwrap();
    writer.chunk(1, &noise).unwrap();
    noise.reverse();
    writer.chunk(1, &noise).unwrap();
    let info = writer.finish(Zxid(5), b"").unwrap();
    let mut bytes = file_bytes(&disk, &store.path(Zxid(5)));
    let (one, two) = bytes[64..64 + 2 * 88].split_at_mut(88);
    one.swap_with_slice(two);
    let report = with_bytes(&bytes).verify(Zxid(5)).unwrap();
    assert_eq!(report.damages.iter().map(|d| d.chunk).collect::<Vec<_>>(), [Some(0), Some(1)]);
    bytes[info.file_bytes as usize - 1] ^= 1;
    let report = with_bytes(&bytes).verify(Zxid(5)).unwrap();
    let expected = Damage { chunk: Some(0), offset: 64, kind: DamageKind::Contradiction };
    assert_eq!((report.damages[1], report.chunks_good), (expected, 0));
}

#[test]
fn lengths_are_not_believed_even_under_a_valid_checksum() {
    let (disk, store, _) = with_one();
    let bytes = file_bytes(&disk, &store.path(Zxid(5)));
    let chunk = store.reader(Zxid(5)).unwrap().chunk_offset(3) as usize;
    for raw_len in [4_999u32, 5_001, 1 << 20, CHUNK_RAW_BYTES_MAX as u32, u32::MAX] {
        let mut lying = bytes.clone();
        lying[chunk + 8..chunk + 12].copy_from_slice(&raw_len.to_le_bytes());
        reseal(&mut lying);
        let result = with_bytes(&lying).reader(Zxid(5)).unwrap().read_chunk(3, &mut Vec::new());
        assert!(matches!(result, Err(SnapshotError::Damaged(_))), "{raw_len}: {result:?}");
    }
    for at in 0..bytes.len() {
        let mut lying = bytes.clone();
        lying[at] = 0xff;
        reseal(&mut lying);
        let store = with_bytes(&lying);
        let _ = store.verify(Zxid(5));
        let _ = store.reader(Zxid(5)).map(|reader| read(&reader));
    }
}

#[test]
fn a_chunk_that_decompresses_to_something_else_is_detected() {
    let (disk, store, _) = with_one();
    let mut bytes = file_bytes(&disk, &store.path(Zxid(5)));
    let chunk = store.reader(Zxid(5)).unwrap().chunk_offset(0) as usize;
    bytes[chunk + 16] ^= 1;
    reseal(&mut bytes);
    let damage = with_bytes(&bytes).verify(Zxid(5)).unwrap().damages[0];
    assert_eq!((damage.chunk, damage.kind), (Some(0), DamageKind::Decompress));
}

#[test]
fn bytes_between_the_chunks_and_the_footer_are_detected() {
    let (disk, store, info) = with_one();
    let mut bytes = file_bytes(&disk, &store.path(Zxid(5)));
    let tail = bytes.len() - format::TAIL_BYTES;
    let footer = tail - (format::FOOTER_FIXED_BYTES + info.chunk_count as usize * format::ENTRY_BYTES + 6);
    bytes.splice(footer..footer, [0; 8]);
    bytes[tail + 8 + 8..tail + 8 + 16].copy_from_slice(&(footer as u64 + 8).to_le_bytes());
    reseal(&mut bytes);
    let expected = Damage { chunk: None, offset: footer as u64 + 8, kind: DamageKind::Contradiction };
    assert_eq!(with_bytes(&bytes).verify(Zxid(5)).unwrap().damages[0], expected);
}

#[test]
fn the_real_file_system_keeps_it_too() {
    let tmp = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(Arc::new(RealVfs), &tmp.path().join("snapshots")).unwrap();
    let info = write(&store, 5, 8).unwrap();
    write(&store, 6, 6).unwrap();
    assert!(store.verify(Zxid(6)).unwrap().is_good());
    assert_eq!(store.remove_above(Zxid(8)).unwrap(), []);
    assert_eq!(store.remove_above(Zxid(5)).unwrap(), [Zxid(6), Zxid(5)], "5 may hold up to 8");
    assert_eq!(write(&store, 5, 8).unwrap(), info, "same content, same bytes");
    assert_eq!(read(&store.newest_valid(None).unwrap().reader.unwrap()).unwrap(), contents());
}

#[test]
fn a_writer_can_move_to_the_snapshot_thread() {
    let (_, store, _) = with_one();
    let writer = store.create(meta(9)).unwrap();
    let written = std::thread::spawn(move || writer.finish(Zxid(9), b"")).join().unwrap();
    assert_eq!(written.unwrap().zxid, Zxid(9));
}

#[test]
fn a_later_version_is_told_from_damage() {
    let (disk, store, _) = with_one();
    let mut bytes = file_bytes(&disk, &store.path(Zxid(5)));
    bytes[8] = 2;
    reseal(&mut bytes);
    let store = with_bytes(&bytes);
    let later = |r| matches!(r, Err(SnapshotError::Version { found: 2, known: 1 }));
    assert!(later(store.reader(Zxid(5)).map(drop)) && later(store.verify(Zxid(5)).map(drop)));
}

#[test]
fn a_dropped_writer_leaves_nothing_behind() {
    let (disk, store, _) = with_one();
    let mut writer = store.create(meta(9)).unwrap();
    writer.chunk(1, b"never finished").unwrap();
    assert_eq!(disk.list(dir()).unwrap().len(), 2);
    drop(writer);
    assert_eq!(disk.list(dir()).unwrap(), ["snapshot.0000000000000005"]);
}

#[test]
fn opening_the_store_removes_what_was_never_finished_and_nothing_else() {
    let (disk, writing, _) = with_one();
    std::mem::forget(writing.create(meta(9)).unwrap());
    let other = PathBuf::from("/data/snapshots/notes.tmp");
    disk.open(&other, OpenMode::CreateNew).unwrap();
    let killed = disk.after_kill();
    let store = store(&killed);
    assert_eq!(killed.list(dir()).unwrap(), ["notes.tmp", "snapshot.0000000000000005"]);
    assert_eq!(store.zxids().unwrap(), [Zxid(5)]);
}

#[test]
fn a_full_disk_leaves_nothing_behind_and_harms_nothing() {
    let (disk, _, info) = with_one();
    let mut refused = 0;
    for write_no in 0.. {
        let image = disk.fork();
        image.fail_nth(OpKind::Write, disk.count(OpKind::Write) + write_no, Fault::Enospc);
        let store = store(&image);
        let result = write(&store, 9, 9);
        if result.is_ok() {
            break;
        }
        refused += 1;
        assert!(matches!(result, Err(SnapshotError::Io(e)) if e.kind() == io::ErrorKind::StorageFull));
        assert_eq!(image.list(dir()).unwrap(), ["snapshot.0000000000000005"]);
        assert_eq!(store.newest_valid(None).unwrap().reader.unwrap().info(), &info);
        assert!(store.verify(Zxid(5)).unwrap().is_good());
    }
    assert_eq!(refused, 6, "header, four chunks, footer");
    disk.set_capacity(4_096);
    assert!(write(&store(&disk), 9, 9).is_err());
    assert_eq!(disk.list(dir()).unwrap().len(), 1);
}

#[test]
fn a_writer_whose_sync_failed_never_publishes() {
    let (disk, store, _) = with_one();
    disk.fail_nth(OpKind::Sync, disk.count(OpKind::Sync), Fault::Eio);
    assert!(matches!(write(&store, 9, 9), Err(SnapshotError::Io(_))));
    let mut noise = vec![0; 5 << 20];
    Rng::new(1).fill(&mut noise);
    let mut writer = store.create(meta(9)).unwrap();
    disk.fail_nth(OpKind::Sync, disk.count(OpKind::Sync), Fault::Eio);
    assert!(matches!(writer.chunk(1, &noise), Err(SnapshotError::Io(_))), "synced on the way");
    assert!(matches!(writer.chunk(1, b"more"), Err(SnapshotError::Failed)));
    assert!(matches!(writer.finish(Zxid(9), b""), Err(SnapshotError::Failed)));
    assert_eq!(store.zxids().unwrap(), [Zxid(5)]);
}

#[test]
fn the_newest_valid_one_is_found_and_the_others_are_told() {
    let (disk, store, _) = with_one();
    write(&store, 6, 6).unwrap();
    write(&store, 0x7_0000_0001, 0x7_0000_0001).unwrap();
    disk.flip_bit(&store.path(Zxid(0x7_0000_0001)), 8 * 20).unwrap();
    let newest = store.newest_valid(None).unwrap();
    assert_eq!(newest.reader.unwrap().info().zxid, Zxid(6));
    assert_eq!(newest.skipped[0].zxid, Zxid(0x7_0000_0001));
    assert_eq!(store.newest_valid(Some(Zxid(6))).unwrap().reader.unwrap().info().zxid, Zxid(5));
    assert!(store.newest_valid(Some(Zxid(5))).unwrap().reader.is_none());
    let listed = store.list().unwrap();
    assert_eq!(listed.iter().map(|e| e.state.is_ok()).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn a_truncation_removes_what_may_hold_more_than_the_log_will() {
    let (disk, store, _) = with_one();
    write(&store, 10, 10).unwrap();
    write(&store, 12, 15).unwrap();
    write(&store, 13, 13).unwrap();
    write(&store, 20, 20).unwrap();
    disk.flip_bit(&store.path(Zxid(10)), 8 * 300).unwrap();
    assert_eq!(store.remove_above(Zxid(14)).unwrap(), [Zxid(20), Zxid(12)]);
    assert_eq!(store.zxids().unwrap(), [Zxid(5), Zxid(10), Zxid(13)], "bad chunks do not hide the end");
    disk.flip_bit(&store.path(Zxid(10)), 8 * 20).unwrap();
    assert_eq!(store.remove_above(Zxid(14)).unwrap(), [Zxid(10)], "a damaged one says nothing");
    disk.set_bad_sector(&store.path(Zxid(5)), 0).unwrap();
    assert!(store.remove_above(Zxid(14)).is_err(), "one that cannot be read now may be good");
    assert_eq!(store.zxids().unwrap(), [Zxid(5), Zxid(13)]);
}

#[test]
fn an_unreadable_chunk_is_a_finding_with_its_place() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let mut noise = vec![0; 2_000];
    Rng::new(1).fill(&mut noise);
    let mut writer = store.create(meta(5)).unwrap();
    (0..3).for_each(|_| writer.chunk(1, &noise).unwrap());
    writer.finish(Zxid(5), b"").unwrap();
    let offset = store.reader(Zxid(5)).unwrap().chunk_offset(1);
    disk.set_bad_sector(&store.path(Zxid(5)), offset + 600).unwrap();
    let report = store.verify(Zxid(5)).unwrap();
    assert_eq!(report.chunks_good, 2);
    assert_eq!((report.damages[0].chunk, report.damages[0].offset), (Some(1), offset));
    assert_eq!(report.damages[0].kind, DamageKind::Unreadable { errno: 5 });
    assert!(report.damages[0].to_string().starts_with("chunk 1 at byte 2088: cannot be read: Input/output"));
    let tail = report.info.unwrap().file_bytes - 32;
    disk.set_bad_sector(&store.path(Zxid(5)), tail).unwrap();
    let report = store.verify(Zxid(5)).unwrap();
    assert_eq!(
        (report.damages[0].offset, report.chunks_good),
        (tail, 1),
        "then the walk meets the bad chunk"
    );
}

#[test]
fn the_document_shows_the_layout() {
    let document = include_str!("../../docs/snapshot_format.md");
    let (mut part_now, mut end) = ("", 0);
    for (part, field, offset, bytes) in format::LAYOUT {
        end = if part == part_now { end } else { 0 };
        assert_eq!(offset, end, "{part}.{field} follows what is before it");
        (part_now, end) = (part, offset + bytes);
        let row = format!("| {part} | `{field}` | {offset} | {bytes} |");
        assert!(document.contains(&row), "no row {row}");
    }
    for limit in [CHUNK_RAW_BYTES_MAX as u64, u64::from(CHUNKS_MAX), TRAILER_BYTES_MAX as u64] {
        assert!(document.contains(&format!("| {limit} |")), "no limit {limit}");
    }
}

/// The dump in the document, and so the first released format: bytes that this version must go on reading and writing.
#[test]
fn the_document_shows_the_bytes() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let mut writer = store.create(meta(0x1_0000_0002)).unwrap();
    writer.chunk(7, b"zabra").unwrap();
    writer.finish(Zxid(0x1_0000_0003), b"end").unwrap();
    let bytes = file_bytes(&disk, &store.path(Zxid(0x1_0000_0002)));
    let document = include_str!("../../docs/snapshot_format.md");
    let lines = bytes.chunks(16).enumerate().map(|(i, line)| {
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        format!("{:04x}  {}", i * 16, hex.join(" "))
    });
    let missing: Vec<String> = lines.filter(|line| !document.contains(line.as_str())).collect();
    assert!(missing.is_empty(), "not in the document:\n{}", missing.join("\n"));
}

#[test]
fn a_reserved_chunk_is_filled_later_and_the_rest_stays_where_it_is() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let mut writer = store.create_received(meta(5)).unwrap();
    let reserved = writer.reserve(9, 50).unwrap();
    for (kind, raw) in contents() {
        writer.chunk(kind, &raw).unwrap();
    }
    assert_eq!(writer.chunk_count(), 5);
    // Compressible: it is stored as it is all the same.
    writer.fill(reserved, &[3; 50]).unwrap();
    let info = writer.finish(Zxid(5), b"digest").unwrap();
    assert_eq!(
        (info.chunk_count, info.file_bytes),
        (5, file_bytes(&disk, &store.path(Zxid(5))).len() as u64)
    );
    assert!(store.verify(Zxid(5)).unwrap().is_good());
    let mut expected = contents();
    expected.insert(0, (9, vec![3; 50]));
    assert_eq!(read(&store.reader(Zxid(5)).unwrap()).unwrap(), expected);
}

#[test]
fn a_received_snapshot_that_was_not_finished_goes_when_the_store_is_opened() {
    let disk = SimDisk::new(1);
    let writers = store(&disk);
    let (mut received, own) = (writers.create_received(meta(5)).unwrap(), writers.create(meta(5)).unwrap());
    received.chunk(1, b"some of it").unwrap();
    assert_eq!(disk.list(dir()).unwrap().len(), 2, "beside each other");
    std::mem::forget((received, own));
    store(&disk);
    assert!(disk.list(dir()).unwrap().is_empty());
}
