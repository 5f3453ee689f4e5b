//! Files behind a trait, so that what survives a crash can be tested.
//!
//! The contract, which [`contract`] checks for every implementation:
//!
//! - What was written is read back at once by everybody, in this process or after a kill of it.
//! - After a power cut only this is certain: a file's bytes and length as of its last returned [`DiskFile::sync_data`],
//!   and a directory's entries as of its last returned [`Disk::sync_dir`]. Of what was written since, any sector of 512
//!   bytes may be there or not, in any order.
//! - A failed `sync_data` says nothing about what is on the disk, and the next one may lie. Never try again: stop.

mod contract;
mod file;
mod file_writeback;
mod memory;
mod pages;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[doc(hidden)]
pub use contract::check_contract;
pub use file::FsDisk;
pub use memory::MemoryDisk;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist.
    CreateNew,
}

/// A directory tree on one disk.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Bytes in all and bytes free for this process on the disk of `path`.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;
    /// Which device `path` is on: the same number for everything on one, another one where something else is mounted.
    fn device(&self, path: &Path) -> io::Result<u64>;

    /// Makes `path` hold exactly `bytes`, durably and all or nothing: writes a file beside it, syncs, renames.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let beside = path.with_extension("tmp");
        match self.remove(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.open(&beside, OpenMode::CreateNew)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.rename(&beside, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// The whole content of a file.
    fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// An open file. All calls may be made by several threads at once.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at most `into.len()` bytes; 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`, extending the file where needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The same for bytes that nobody is likely to read soon: past the kernel's cache where address, length and offset
    /// are multiples of 4 KiB and the file system can do it, which saves a copy and the cache's memory.
    fn write_bulk_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
    /// Makes content and length durable (`fdatasync(2)`).
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file or extends it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves room for `length` bytes at `offset` and extends the file to hold them (`posix_fallocate(3)`).
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Begins to write back a range, to make a later `sync_data` short. Promises nothing.
    fn start_writeback(&self, offset: u64, length: u64);
    /// The descriptor, for `sendfile(2)` and its like; `None` where there is no kernel behind the file.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Fills `into`; fails with `UnexpectedEof` where the file is too short.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.read_at(&mut into[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}
