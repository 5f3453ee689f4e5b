//! One disk of chunks: its directories, its room, what is found there at start, and the end of a disk that fails.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mooseng_env::{Disk, DiskFile, disk::OpenMode};
use mooseng_types::{ChunkId, ClusterId};

use super::chunk::Chunk;
use super::error::StoreError;
use super::sidecar::{HEADER_SIZE, Header};
use crate::changes::{Change, Changes};

/// Open files are the scarce thing: this many copies stay open on one disk, the longest unused ones are closed first.
const OPEN_MAX: usize = 2048;

/// The directory of copies being fetched.
const INCOMING: &str = "incoming";
/// The directory of copies that could not be believed.
const DAMAGED: &str = "damaged";

/// One disk of chunks.
#[derive(Debug)]
pub(crate) struct ChunkDisk {
    pub(super) disk: Arc<dyn Disk>,
    root: PathBuf,
    pub(super) cluster: ClusterId,
    reserve_bytes: u64,
    pub(super) changes: Arc<Changes>,
    failed: AtomicBool,
    total_bytes: AtomicU64,
    free_bytes: AtomicU64,
    copies: AtomicU64,
    moved_aside: AtomicU64,
    incoming: AtomicU64,
    /// A copy has its disk, so the disk does not keep the copy; the store's index does.
    open: Mutex<HashMap<ChunkId, Weak<Chunk>>>,
}

/// What a sidecar found at start says of its copy.
pub(super) struct Found {
    pub(super) chunk: ChunkId,
    pub(super) header: Header,
}

impl ChunkDisk {
    /// A disk of which nothing is known yet.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        root: PathBuf,
        cluster: ClusterId,
        reserve_bytes: u64,
        changes: Arc<Changes>,
    ) -> Self {
        Self {
            disk,
            root,
            cluster,
            reserve_bytes,
            changes,
            failed: AtomicBool::new(false),
            total_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            moved_aside: AtomicU64::new(0),
            incoming: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// Makes the directories that are missing and looks how much room there is.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for low in 0..=255 {
            self.disk.create_dir_all(&self.root.join(format!("{low:02x}")))?;
        }
        for name in [INCOMING, DAMAGED] {
            self.disk.create_dir_all(&self.root.join(name))?;
        }
        self.disk.sync_dir(&self.root)?;
        for left in self.disk.list(&self.root.join(INCOMING))? {
            self.disk.remove(&left)?;
        }
        let moved_aside = self.disk.list(&self.root.join(DAMAGED))?.len() as u64;
        self.moved_aside.store(moved_aside, Ordering::Relaxed);
        self.refresh_space()
    }

    /// The disk's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the disk is out of use.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Bytes in all and bytes free, as of the last look.
    pub(crate) fn space(&self) -> (u64, u64) {
        (self.total_bytes.load(Ordering::Relaxed), self.free_bytes.load(Ordering::Relaxed))
    }

    /// Copies on the disk.
    pub(crate) fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }

    /// Bytes that may still be written before the reserve is touched. The reserve of a small disk is a twentieth of it.
    pub(crate) fn room(&self) -> u64 {
        let (total, free) = self.space();
        free.saturating_sub(self.reserve_bytes.min(total / 20))
    }

    /// Looks how much room there is. May block where the disk hangs.
    pub(crate) fn refresh_space(&self) -> io::Result<()> {
        let (total, free) = self.disk.space(&self.root)?;
        self.total_bytes.store(total, Ordering::Relaxed);
        self.free_bytes.store(free, Ordering::Relaxed);
        Ok(())
    }

    /// Counts `bytes` as used until the next look.
    pub(super) fn use_room(&self, bytes: u64) {
        self.free_bytes.store(self.space().1.saturating_sub(bytes), Ordering::Relaxed);
    }

    pub(super) fn count_copy(&self) {
        self.copies.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn uncount_copy(&self) {
        self.copies.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes the disk out of use: nothing that it says counts any more.
    pub(super) fn fail(&self, source: &io::Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                disk = %self.root.display(), error = %source,
                "disk failed and is out of use: replace it and restart"
            );
        }
    }

    /// What an I/O error of an operation on `chunk` means. Some are the copy's own, or of the process; any other is the
    /// disk's end.
    pub(crate) fn trouble(&self, chunk: ChunkId, source: io::Error) -> StoreError {
        use io::ErrorKind::{AlreadyExists, NotFound, QuotaExceeded, StorageFull, UnexpectedEof};
        let open_files_used_up = [libc::EMFILE, libc::ENFILE].map(Some).contains(&source.raw_os_error());
        match source.kind() {
            StorageFull | QuotaExceeded => StoreError::NoSpace { chunk },
            NotFound => StoreError::Broken { chunk, why: "a file of it is missing".into() },
            UnexpectedEof => StoreError::Broken { chunk, why: "a file of it is too short".into() },
            AlreadyExists => {
                StoreError::Broken { chunk, why: "files of an unknown copy are in its place".into() }
            }
            _ if open_files_used_up => StoreError::Busy { chunk, why: "the process has too many open files" },
            _ => StoreError::Disk { chunk, path: self.root.clone(), source },
        }
    }

    /// The directory of a copy's files.
    pub(super) fn directory(&self, chunk: ChunkId) -> PathBuf {
        self.root.join(format!("{:02x}", chunk.raw() & 0xff))
    }

    pub(super) fn data_path(&self, chunk: ChunkId) -> PathBuf {
        self.directory(chunk).join(format!("{:016x}.data", chunk.raw()))
    }

    pub(super) fn meta_path(&self, chunk: ChunkId) -> PathBuf {
        self.directory(chunk).join(format!("{:016x}.meta", chunk.raw()))
    }

    /// Where a copy is put together before it gets its place.
    /// `number` tells two fetches of one chunk apart.
    pub(super) fn incoming_path(&self, chunk: ChunkId, number: u64, extension: &str) -> PathBuf {
        self.root.join(INCOMING).join(format!("{:016x}.{number}.{extension}", chunk.raw()))
    }

    /// A number for a fetch.
    pub(super) fn next_incoming(&self) -> u64 {
        self.incoming.fetch_add(1, Ordering::Relaxed)
    }

    /// Removes a file that may not be there.
    pub(super) fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves what there is of a copy to `damaged/`, under names never used before, and reports the copy lost.
    pub(super) fn move_aside(&self, chunk: ChunkId, why: &str) {
        let number = self.moved_aside.fetch_add(1, Ordering::Relaxed);
        for (path, extension) in [(self.data_path(chunk), "data"), (self.meta_path(chunk), "meta")] {
            let aside = self.root.join(DAMAGED).join(format!("{:016x}.{number}.{extension}", chunk.raw()));
            match self.disk.rename(&path, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => self.fail(&error),
                _ => {}
            }
        }
        tracing::error!(
            %chunk, why, disk = %self.root.display(),
            "copy is damaged, moved aside and reported lost; readers take another copy"
        );
        self.changes.note(chunk, Change::Lost);
    }

    /// Looks through the directories: the copies whose header can be believed; all others are moved aside.
    pub(super) fn scan(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for low in 0..=255u8 {
            // In order, so that a start does the same things each time.
            let mut names: BTreeMap<ChunkId, (bool, bool)> = BTreeMap::new();
            for path in self.disk.list(&self.root.join(format!("{low:02x}")))? {
                let Some((chunk, is_data)) = name_of(&path, low) else {
                    tracing::warn!(path = %path.display(), "a file that does not belong here is left alone");
                    continue;
                };
                let seen = names.entry(chunk).or_default();
                *(if is_data { &mut seen.0 } else { &mut seen.1 }) = true;
            }
            if !names.is_empty() {
                // A process that was killed may have left names that the disk does not have yet.
                self.disk.sync_dir(&self.root.join(format!("{low:02x}")))?;
            }
            for (chunk, seen) in names {
                match seen {
                    (true, true) => match self.believe(chunk)? {
                        Ok(header) => found.push(Found { chunk, header }),
                        Err(why) => self.move_aside(chunk, &why),
                    },
                    (true, false) => self.move_aside(chunk, "the sidecar is missing"),
                    _ => self.move_aside(chunk, "the data file is missing"),
                }
            }
        }
        Ok(found)
    }

    /// The header of a copy, or why it cannot be believed.
    fn believe(&self, chunk: ChunkId) -> io::Result<Result<Header, String>> {
        let file = self.disk.open(&self.meta_path(chunk), OpenMode::Read)?;
        self.read_header(chunk, &*file)
    }

    pub(super) fn read_header(
        &self,
        chunk: ChunkId,
        file: &dyn DiskFile,
    ) -> io::Result<Result<Header, String>> {
        let mut sector = [0; HEADER_SIZE];
        match file.read_exact_at(&mut sector, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Err("the sidecar is torn or not one".into()));
            }
            other => other?,
        }
        let header = match Header::decode(&sector) {
            Ok(header) => header,
            Err(bad) => return Ok(Err(bad.to_string())),
        };
        if header.chunk != chunk {
            return Ok(Err(format!("its sidecar is that of {}", header.chunk)));
        }
        if header.cluster != self.cluster {
            return Ok(Err(format!("it belongs to cluster {}", header.cluster)));
        }
        Ok(Ok(header))
    }

    /// Remembers that `chunk` has open files, and closes those of others where there are too many.
    pub(super) fn opened(&self, chunk: &Arc<Chunk>) {
        let victims = {
            let mut open = self.lock_open();
            open.insert(chunk.id(), Arc::downgrade(chunk));
            if open.len() <= OPEN_MAX {
                return;
            }
            open.retain(|_, chunk| chunk.strong_count() > 0);
            let mut by_age: Vec<_> = open.values().filter_map(Weak::upgrade).collect();
            by_age.sort_by_key(|chunk| chunk.last_used_ms());
            // A batch, so that the sorting is paid for once in many openings.
            by_age.truncate(OPEN_MAX / 8);
            by_age
        };
        for victim in victims {
            if victim.close_if_clean() {
                self.lock_open().remove(&victim.id());
            }
        }
    }

    pub(super) fn closed(&self, chunk: ChunkId) {
        self.lock_open().remove(&chunk);
    }

    /// The copies with open files.
    pub(super) fn open_chunks(&self) -> Vec<Arc<Chunk>> {
        self.lock_open().values().filter_map(Weak::upgrade).collect()
    }

    fn lock_open(&self) -> MutexGuard<'_, HashMap<ChunkId, Weak<Chunk>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which chunk a file name stands for, and whether for its data (or its sidecar).
fn name_of(path: &Path, low: u8) -> Option<(ChunkId, bool)> {
    let name = path.file_name()?.to_str()?;
    let (digits, extension) = name.split_once('.')?;
    let raw = u64::from_str_radix(digits, 16).ok()?;
    let canonical = format!("{raw:016x}") == digits && raw & 0xff == u64::from(low);
    let is_data = match extension {
        "data" => true,
        "meta" => false,
        _ => return None,
    };
    canonical.then_some((ChunkId::from_raw(raw), is_data))
}
