//! A disk that can lose power between any two operations: a `MemoryDisk` behind a fuse.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use mooseng_chunkserver::sidecar::{HEADER_SIZE, Header};
use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, DiskFile, MemoryDisk};

use crate::entropy::Rng;
use crate::server::ROOT;

/// Where a chunkserver keeps copies that it has found damaged, below its root.
const DAMAGED: &str = "damaged";
/// The fuse holds.
const HOLDS: i64 = i64::MAX;

/// A disk in memory that stops in the midst of its work when its fuse blows. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct FusedDisk {
    memory: MemoryDisk,
    /// Operations that change something and are still let through.
    fuse: Arc<AtomicI64>,
    full: Arc<AtomicBool>,
    capacity: u64,
}

impl FusedDisk {
    pub(crate) fn new(capacity: u64) -> Self {
        let fuse = Arc::new(AtomicI64::new(HOLDS));
        Self { memory: MemoryDisk::new(capacity), fuse, full: Arc::default(), capacity }
    }

    /// Lets `operations` changes through and none after. A blown fuse stays blown, also if nobody has noticed yet.
    pub(crate) fn arm(&self, operations: u64) {
        if !self.blown() {
            self.fuse.store(i64::try_from(operations).unwrap_or(HOLDS), Ordering::Relaxed);
        }
    }

    pub(crate) fn blown(&self) -> bool {
        self.fuse.load(Ordering::Relaxed) < 0
    }

    /// The power is gone: what was not synced survives in part, at most `permille` of its sectors.
    pub(crate) fn power_cut(&self, rng: &mut Rng, permille: u64) {
        self.memory.power_cut(|| rng.chance(permille));
        self.mend();
    }

    pub(crate) fn mend(&self) {
        self.fuse.store(HOLDS, Ordering::Relaxed);
    }

    /// From now on there is no room for anything new, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
        self.memory.set_capacity(if full { 0 } else { self.capacity });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn sidecars(&self) -> Vec<PathBuf> {
        let directories = self.memory.list(Path::new(ROOT)).unwrap_or_default();
        let copies = directories.iter().filter(|path| !path.ends_with(DAMAGED));
        let files = copies.flat_map(|directory| self.memory.list(directory).unwrap_or_default());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "meta")).collect()
    }

    fn header(&self, sidecar: &Path) -> Option<(Arc<dyn DiskFile>, Header)> {
        let mut sector = [0; HEADER_SIZE];
        let file = self.memory.open(sidecar, OpenMode::Write).ok()?;
        file.read_at(&mut sector, 0).ok()?;
        Some((file, Header::decode(&sector).ok()?))
    }

    /// Of a planted bug: every copy looks as if it was being written when its server stopped.
    pub(crate) fn make_all_dirty(&self) {
        for (file, header) in self.sidecars().iter().filter_map(|path| self.header(path)) {
            let done = file.write_all_at(&Header { dirty: true, ..header }.encode(), 0);
            done.and_then(|()| file.sync_data()).unwrap_or_default();
        }
    }

    /// Of a planted bug: what tells of copies that were moved aside is gone.
    pub(crate) fn forget_damage(&self) {
        for path in self.memory.list(&Path::new(ROOT).join(DAMAGED)).unwrap_or_default() {
            self.memory.remove(&path).unwrap_or_default();
        }
    }

    /// A bit of a chunkserver's clean copy turns, in its data or its sidecar, for good. Says where; nowhere, if a copy drawn
    /// is being written, or there is none.
    pub(crate) fn rot(&self, rng: &mut Rng) -> Option<String> {
        let sidecars = self.sidecars();
        let sidecar = rng.pick(&sidecars)?;
        let (_, header) = self.header(sidecar).filter(|(_, header)| !header.dirty)?;
        let in_data = rng.chance(500) && header.length > 0;
        let (path, at) = if in_data {
            (sidecar.with_extension("data"), rng.below(header.length.into()))
        } else {
            (sidecar.clone(), rng.below(HEADER_SIZE as u64))
        };
        let file = self.memory.open(&path, OpenMode::Write).ok()?;
        let mut byte = [0];
        file.read_at(&mut byte, at).ok()?;
        file.write_all_at(&[byte[0] ^ (1 << rng.below(8))], at).ok()?;
        file.sync_data().ok()?;
        Some(format!("{} at {at}", path.display()))
    }

    fn pass(&self) -> io::Result<()> {
        if self.fuse.load(Ordering::Relaxed) == HOLDS {
            return Ok(());
        }
        if self.fuse.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        self.fuse.store(-1, Ordering::Relaxed);
        Err(io::Error::other("the power is gone"))
    }
}

impl Disk for FusedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            self.pass()?;
        }
        let file = self.memory.open(path, mode)?;
        Ok(Arc::new(FusedFile { disk: self.clone(), file }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.memory.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.pass()?;
        self.memory.sync_dir(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass()?;
        self.memory.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass()?;
        self.memory.rename(from, to)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.memory.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        self.memory.space(path)
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        self.memory.device(path)
    }
}

#[derive(Debug)]
struct FusedFile {
    disk: FusedDisk,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for FusedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.pass()?;
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.pass()?;
        self.file.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.pass()?;
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.pass()?;
        self.file.allocate(offset, length)
    }

    fn start_writeback(&self, offset: u64, length: u64) {
        self.file.start_writeback(offset, length);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
