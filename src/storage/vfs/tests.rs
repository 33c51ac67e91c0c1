//! The same expectations of both file systems: what holds on the simulated disk holds on the real one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::*;
use crate::testing::sim_disk::{Nothing, SimDisk};

fn on_both(check: impl Fn(&dyn Vfs, &Path)) {
    check(&SimDisk::new(1), &PathBuf::from("/data"));
    let dir = tempfile::tempdir().expect("temporary directory");
    check(&RealVfs, &dir.path().join("data"));
}

#[test]
fn files_are_created_written_read_renamed_and_removed() {
    on_both(|vfs, dir| {
        vfs.create_dir_all(dir).unwrap();
        let (a, b) = (dir.join("a"), dir.join("b"));
        let file = vfs.open(&a, OpenMode::CreateNew).unwrap();
        assert_eq!(vfs.open(&a, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(vfs.open(&b, OpenMode::ReadWrite).unwrap_err().kind(), ErrorKind::NotFound);
        file.write_all_at(b"hello", 4_094).unwrap();
        file.sync_data().unwrap();
        file.drop_cache().unwrap();
        vfs.rename(&a, &b).unwrap();
        vfs.sync_dir(dir).unwrap();
        assert!(!vfs.exists(&a).unwrap() && vfs.exists(&b).unwrap());
        assert_eq!(vfs.list(dir).unwrap(), ["b"]);
        let mut buf = [9; 7];
        let again = vfs.open(&b, OpenMode::Read).unwrap();
        again.read_exact_at(&mut buf, 4_092).unwrap();
        assert_eq!(&buf, b"\0\0hello");
        assert_eq!(again.size().unwrap(), 4_099);
        assert_eq!(again.read_exact_at(&mut buf, 4_093).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(again.write_all_at(b"x", 0).is_err(), "opened for reading");
        vfs.remove(&b).unwrap();
        again.read_exact_at(&mut buf, 4_092).unwrap();
        assert_eq!(vfs.remove(&b).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(vfs.list(&dir.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn cutting_and_growing_reads_zeros() {
    on_both(|vfs, dir| {
        vfs.create_dir_all(dir).unwrap();
        let file = vfs.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[7; 5_000], 0).unwrap();
        file.set_size(100).unwrap();
        file.set_size(6_000).unwrap();
        let mut buf = vec![1; 6_000];
        file.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf[..100].iter().all(|&b| b == 7) && buf[100..].iter().all(|&b| b == 0));
        file.allocate(8_192).unwrap();
        assert_eq!(file.size().unwrap(), 8_192);
        file.allocate(10).unwrap();
        assert_eq!(file.size().unwrap(), 8_192, "allocating never cuts");
    });
}

#[test]
fn a_directory_is_locked_once() {
    on_both(|vfs, dir| {
        vfs.create_dir_all(dir).unwrap();
        let path = dir.join("lock");
        let held = vfs.lock(&path).unwrap();
        assert_eq!(vfs.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(held);
        vfs.lock(&path).unwrap();
        assert!(vfs.free_bytes(dir).unwrap() > 0);
    });
}

#[test]
fn a_directory_created_durably_survives_a_power_cut() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/a/b/c");
    create_dir_durable(&disk, dir).unwrap();
    assert!(disk.after_crash(&mut Nothing).exists(dir).unwrap());
}

#[test]
fn a_directory_that_was_made_but_not_synced_is_made_durable() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/a/b/c");
    disk.create_dir_all(dir).unwrap();
    assert!(!disk.after_crash(&mut Nothing).exists(dir).unwrap());
    create_dir_durable(&disk, dir).unwrap();
    assert!(disk.after_crash(&mut Nothing).exists(dir).unwrap());
}

#[test]
fn further_up_a_directory_may_refuse_to_be_synced_but_not_where_a_name_was_made() {
    let refused_at = |made: usize, refuses: &str, kind: ErrorKind| {
        let mut synced = Vec::new();
        let result = sync_way_up(Path::new("/a/b/c"), made, |parent| {
            synced.push(parent.to_owned());
            if parent == Path::new(refuses) { Err(kind.into()) } else { Ok(()) }
        });
        (result.map_err(|e| e.kind()), synced.len())
    };
    assert_eq!(refused_at(2, "/", ErrorKind::PermissionDenied), (Ok(()), 3));
    assert_eq!(refused_at(1, "/a", ErrorKind::ReadOnlyFilesystem), (Ok(()), 3));
    assert_eq!(refused_at(2, "/a", ErrorKind::PermissionDenied), (Err(ErrorKind::PermissionDenied), 2));
    assert_eq!(refused_at(0, "/", ErrorKind::StorageFull), (Err(ErrorKind::StorageFull), 3));
}
