//! What every disk must do, as one check that each implementation's test runs.

use std::io;
use std::path::Path;

use super::{Disk, DiskFile, OpenMode};

/// Checks `disk` in the empty directory `dir`.
///
/// # Panics
/// Where the contract is broken.
#[doc(hidden)]
#[expect(clippy::unwrap_used, reason = "called by tests only; a panic is its verdict")]
pub fn check_contract(disk: &dyn Disk, dir: &Path) {
    let (a, b, sub) = (dir.join("a"), dir.join("b"), dir.join("x/y"));
    assert_eq!(disk.open(&a, OpenMode::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    let file = disk.open(&a, OpenMode::CreateNew).unwrap();
    assert_eq!(disk.open(&a, OpenMode::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(file.is_empty().unwrap());

    file.write_all_at(b"world", 6).unwrap();
    file.write_all_at(b"hello ", 0).unwrap();
    assert_eq!(disk.read_whole(&a).unwrap(), b"hello world");
    let mut tail = [0; 16];
    assert_eq!(file.read_at(&mut tail, 6).unwrap(), 5);
    assert_eq!(file.read_at(&mut tail, 11).unwrap(), 0);
    assert_eq!(file.read_exact_at(&mut tail, 6).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    file.set_len(5).unwrap();
    file.set_len(8).unwrap();
    assert_eq!(disk.read_whole(&a).unwrap(), b"hello\0\0\0");
    file.allocate(0, 4096).unwrap();
    assert_eq!(file.len().unwrap(), 4096);
    file.sync_data().unwrap();

    check_bulk(&*file);

    disk.write_whole(&b, b"new").unwrap();
    disk.rename(&a, &b).unwrap();
    assert_eq!(disk.read_whole(&b).unwrap().len(), 4096);
    disk.write_whole(&b, b"again").unwrap();
    disk.create_dir_all(&sub).unwrap();
    assert_eq!(disk.list(dir).unwrap(), [b.clone(), dir.join("x")]);
    disk.remove(&b).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(disk.remove(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
    let (total, free) = disk.space(dir).unwrap();
    assert!(free <= total);
    assert_eq!(disk.device(dir).unwrap(), disk.device(&sub).unwrap());
    assert_eq!(disk.device(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// A bulk write is a write, aligned or not, and mixes with the other kind.
#[expect(clippy::unwrap_used, reason = "called by tests only; a panic is its verdict")]
fn check_bulk(file: &dyn DiskFile) {
    let room = vec![7; 3 * 4096];
    let start = room.as_ptr().align_offset(4096);
    let aligned = &room[start..start + 8192];
    file.write_bulk_at(aligned, 4096).unwrap();
    file.write_bulk_at(&aligned[1..100], 12_288).unwrap();
    file.write_all_at(b"mixed", 5000).unwrap();
    file.write_bulk_at(&aligned[..4096], 8192).unwrap();
    let mut back = vec![0; 8192 + 99];
    file.read_exact_at(&mut back, 4096).unwrap();
    let mut expected = vec![7; 8192 + 99];
    expected[904..909].copy_from_slice(b"mixed");
    assert_eq!(back, expected);
    file.set_len(4096).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{FsDisk, MemoryDisk};

    #[test]
    fn the_file_system_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        check_contract(&FsDisk, dir.path());
    }

    #[test]
    fn the_disk_in_memory_keeps_the_contract() {
        check_contract(&MemoryDisk::new(1 << 20), Path::new("/"));
    }
}
