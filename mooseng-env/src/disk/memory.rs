//! A disk in memory that loses, on a power cut, what the contract lets it lose.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pages::Pages;
use super::{Disk, DiskFile, OpenMode};

const SECTOR: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    directories: BTreeSet<PathBuf>,
    /// What processes see.
    names: BTreeMap<PathBuf, FileId>,
    /// What a power cut leaves of it.
    durable_names: BTreeMap<PathBuf, FileId>,
    files: BTreeMap<FileId, Content>,
    next_file: FileId,
    capacity: u64,
    device: u64,
    failing_syncs: bool,
}

type FileId = u64;

#[derive(Debug, Clone, Default)]
struct Content {
    now: Pages,
    durable: Pages,
}

impl MemoryDisk {
    /// An empty disk with room for `capacity` bytes of file content.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let state = State {
            directories: BTreeSet::from([PathBuf::from("/")]),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 1,
            capacity,
            device: 1,
            failing_syncs: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power: of what was not made durable, each sector survives or not as `survives` says, asked once a
    /// sector. Files open before the cut must not be used after it.
    pub fn power_cut(&self, mut survives: impl FnMut() -> bool) {
        let mut state = self.lock();
        state.names = state.durable_names.clone();
        let named: BTreeSet<FileId> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        for content in state.files.values_mut() {
            let mut left = content.durable.clone();
            if content.now.len() != left.len() && survives() {
                left.resize(content.now.len());
            }
            left.take_sectors(&content.now, SECTOR, &mut survives);
            content.now.clone_from(&left);
            content.durable = left;
        }
    }

    /// From now on every `sync_data` fails, or none.
    pub fn fail_syncs(&self, fail: bool) {
        self.lock().failing_syncs = fail;
    }

    /// Changes the room for file content.
    pub fn set_capacity(&self, capacity: u64) {
        self.lock().capacity = capacity;
    }

    /// Says from now on that it is another device.
    pub fn set_device(&self, device: u64) {
        self.lock().device = device;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn used(&self) -> u64 {
        // What is removed gives its room back, though a power cut may bring it back; a file has one name.
        self.names.values().filter_map(|id| self.files.get(id)).map(|content| content.now.len() as u64).sum()
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        let found = state.names.get(path).copied();
        let id = match (mode, found) {
            (OpenMode::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::Read | OpenMode::Write, None) => return Err(not_found()),
            (OpenMode::Read | OpenMode::Write, Some(id)) => id,
            (OpenMode::CreateNew, None) => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                if !state.directories.contains(parent) {
                    return Err(not_found());
                }
                let id = state.next_file;
                state.next_file += 1;
                state.files.insert(id, Content::default());
                state.names.insert(path.to_owned(), id);
                id
            }
        };
        Ok(Arc::new(MemoryFile { disk: self.clone(), id }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // Directories survive a cut at once: losing one would only repeat the making of it.
        self.lock().directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.failing_syncs {
            return Err(io::Error::other("injected sync failure"));
        }
        let inside = |entry: &PathBuf| entry.parent() == Some(path);
        state.durable_names.retain(|entry, _| !inside(entry));
        let now: Vec<_> =
            state.names.iter().filter(|(entry, _)| inside(entry)).map(|(p, id)| (p.clone(), *id)).collect();
        state.durable_names.extend(now);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().names.remove(path).map(drop).ok_or_else(not_found)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let id = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.lock();
        if !state.directories.contains(path) {
            return Err(not_found());
        }
        let inside = |entry: &&PathBuf| entry.parent() == Some(path) && entry.as_path() != path;
        let mut entries: Vec<_> =
            state.names.keys().chain(&state.directories).filter(inside).cloned().collect();
        entries.sort();
        Ok(entries)
    }

    fn space(&self, _path: &Path) -> io::Result<(u64, u64)> {
        let state = self.lock();
        Ok((state.capacity, state.capacity.saturating_sub(state.used())))
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        let state = self.lock();
        let there = state.directories.contains(path) || state.names.contains_key(path);
        if there { Ok(state.device) } else { Err(not_found()) }
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    id: FileId,
}

impl MemoryFile {
    fn with<T>(&self, change: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut state = self.disk.lock();
        state.files.get_mut(&self.id).map(change).ok_or_else(not_found)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let state = self.disk.lock();
        let have = state.files.get(&self.id).ok_or_else(not_found)?.now.len() as u64;
        let more = length.saturating_sub(have);
        // What needs no more room is done on a full disk too.
        if more > 0 && state.used() + more > state.capacity {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl DiskFile for MemoryFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = index(offset)?;
        self.with(|content| content.now.read(start, into))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = index(offset)?;
        self.reserve(offset + bytes.len() as u64)?;
        self.with(|content| content.now.write(start, bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.disk.lock().failing_syncs {
            return Err(io::Error::other("injected sync failure"));
        }
        self.with(|content| content.durable.clone_from(&content.now))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length_now = index(length)?;
        self.reserve(length)?;
        self.with(|content| content.now.resize(length_now))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|content| content.now.len() as u64)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = index(offset + length)?;
        self.reserve(offset + length)?;
        self.with(|content| {
            if content.now.len() < end {
                content.now.resize(end);
            }
        })
    }

    fn start_writeback(&self, _offset: u64, _length: u64) {}

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_no_more_than_was_written() {
        let disk = MemoryDisk::new(1 << 20);
        let path = Path::new("/a");
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[1; 2048], 0).unwrap();
        file.sync_data().unwrap();
        disk.power_cut(|| true);
        assert!(disk.open(path, OpenMode::Read).is_err(), "the name was not made durable");

        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[1; 2048], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[2; 2048], 512).unwrap();
        let mut turn = 0;
        disk.power_cut(|| {
            turn += 1;
            turn % 2 == 0
        });
        let left = disk.read_whole(path).unwrap();
        assert_eq!(left.len(), 2048, "the new length was not synced");
        assert_eq!(left[..512], [1; 512]);
        assert!(left[512..].chunks(SECTOR).any(|s| s == [1; SECTOR]));
        assert!(left[512..].chunks(SECTOR).any(|s| s == [2; SECTOR]));
    }

    #[test]
    fn a_full_disk_and_a_failing_one_say_so() {
        let disk = MemoryDisk::new(100);
        let file = disk.open(Path::new("/a"), OpenMode::CreateNew).unwrap();
        assert_eq!(file.write_all_at(&[0; 101], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_all_at(&[0; 100], 0).unwrap();
        disk.set_capacity(10);
        file.write_all_at(&[1; 100], 0).unwrap();
        file.set_len(50).unwrap();
        assert_eq!(file.set_len(51).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let other = disk.open(Path::new("/b"), OpenMode::CreateNew).unwrap();
        assert_eq!(other.set_len(1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.remove(Path::new("/a")).unwrap();
        other.set_len(10).unwrap();
        disk.fail_syncs(true);
        assert!(other.sync_data().is_err());
    }
}
