//! The machine's file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::FallocateFlags;

use super::{Disk, DiskFile, OpenMode};

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FsDisk;

impl Disk for FsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew).mode(0o600);
        Ok(Arc::new(FsFile::new(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(path)?;
        Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.dev())
    }
}

/// What direct I/O wants multiples of: no disk has larger sectors.
const ALIGNMENT: usize = 4096;

/// An open file.
#[derive(Debug)]
struct FsFile {
    file: File,
    /// The same file opened for direct I/O, once that was wanted; `None` where it cannot be.
    direct: OnceLock<Option<File>>,
    direct_refused: AtomicBool,
}

impl FsFile {
    fn new(file: File) -> Self {
        Self { file, direct: OnceLock::new(), direct_refused: AtomicBool::new(false) }
    }

    fn direct(&self) -> Option<&File> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return None;
        }
        let reopen = || {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok()
        };
        self.direct.get_or_init(reopen).as_ref()
    }
}

impl DiskFile for FsFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(&self.file, into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.file, bytes, offset)
    }

    fn write_bulk_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let aligned = (bytes.as_ptr().addr() | bytes.len()).is_multiple_of(ALIGNMENT)
            && offset.is_multiple_of(ALIGNMENT as u64);
        let Some(direct) = self.direct().filter(|_| aligned && !bytes.is_empty()) else {
            return self.write_all_at(bytes, offset);
        };
        match FileExt::write_all_at(direct, bytes, offset) {
            // The file system takes the flag and not the write.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.direct_refused.store(true, Ordering::Relaxed);
                self.write_all_at(bytes, offset)
            }
            other => other,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, length)?)
    }

    fn start_writeback(&self, offset: u64, length: u64) {
        super::file_writeback::start(&self.file, offset, length);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}
