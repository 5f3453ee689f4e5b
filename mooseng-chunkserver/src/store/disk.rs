//! One disk of chunks: its directories, its room, what is moved aside, and the end of a disk that fails.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mooseng_env::{Disk, DiskFile, disk::OpenMode};
use mooseng_types::{ClusterId, Part};

use super::error::StoreError;
use super::name::Stem;
use super::quarantine::{Home, Kept, QUARANTINE, Quarantine};
use super::sidecar::{HEADER_SIZE, Header};
use crate::copy_events::{CopyEvent, CopyEvents};
use crate::identity::IDENTITY_FILE;

/// The directory of copies being fetched.
const INCOMING: &str = "incoming";
/// The directory of copies that could not be believed.
const DAMAGED: &str = "damaged";
/// What the name of a file in `damaged/` ends with once its chunk has been made good or given up.
const OLD: &str = "old";
/// Copies in quarantine that are deleted in one round of housekeeping because their time is over: a wall clock that is set to
/// next year must not take everything with it before somebody notices.
const DUE_PER_ROUND: usize = 16;
/// Where room is wanted: copies deleted before the disk is asked again, and how often it is asked in one round.
const ROOM_STEP: usize = 4;
const ROOM_STEPS: usize = 16;
/// The room that is then made, in bytes; of a small disk a twentieth.
const ROOM_WANTED: u64 = 256 << 20;

/// One disk of chunks.
#[derive(Debug)]
pub(crate) struct ChunkDisk {
    pub(super) disk: Arc<dyn Disk>,
    root: PathBuf,
    pub(super) cluster: ClusterId,
    reserve_bytes: u64,
    pub(super) events: Arc<CopyEvents>,
    failed: AtomicBool,
    mark: OnceLock<Mark>,
    total_bytes: AtomicU64,
    free_bytes: AtomicU64,
    copies: AtomicU64,
    moved_aside: AtomicU64,
    incoming: AtomicU64,
    pub(super) quarantine: Quarantine,
    /// Somebody was refused for want of room since the quarantine last made some.
    short_of_room: AtomicBool,
    /// Of what there is something in `damaged/` that nothing has made good.
    broken: Mutex<BTreeSet<Part>>,
}

/// What tells a disk from another one that has come into its place, and from an empty mount point.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    identity: Vec<u8>,
    device: u64,
}

impl ChunkDisk {
    /// A disk of which nothing is known yet.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        root: PathBuf,
        cluster: ClusterId,
        reserve_bytes: u64,
        events: Arc<CopyEvents>,
    ) -> Self {
        Self {
            quarantine: Quarantine::new(Arc::clone(&disk), &root),
            short_of_room: AtomicBool::new(false),
            disk,
            root,
            cluster,
            reserve_bytes,
            events,
            failed: AtomicBool::new(false),
            mark: OnceLock::new(),
            total_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            moved_aside: AtomicU64::new(0),
            incoming: AtomicU64::new(0),
            broken: Mutex::default(),
        }
    }

    /// Makes the directories that are missing and looks how much room there is. What else is on the disk, `found.rs` looks at next.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let mark = self.read_mark()?;
        self.mark.get_or_init(|| mark);
        for low in 0..=255 {
            self.disk.create_dir_all(&self.root.join(format!("{low:02x}")))?;
        }
        for name in [INCOMING, DAMAGED, QUARANTINE] {
            self.disk.create_dir_all(&self.root.join(name))?;
        }
        self.disk.sync_dir(&self.root)?;
        let aside = self.disk.list(&self.root.join(DAMAGED))?;
        self.moved_aside.store(aside.len() as u64, Ordering::Relaxed);
        *self.lock_broken() = aside.iter().filter_map(|path| aside_name(path)).collect();
        // First: what is half-way between its home and the quarantine must not look like an empty place.
        self.quarantine.recover(|part| self.home(part))?;
        self.measure()
    }

    fn read_mark(&self) -> io::Result<Mark> {
        let identity = self.disk.read_whole(&self.root.join(IDENTITY_FILE))?;
        Ok(Mark { identity, device: self.disk.device(&self.root)? })
    }

    /// Whether the disk that was there at start is still there.
    pub(super) fn check_mark(&self) -> io::Result<()> {
        let now = match self.read_mark() {
            // Says nothing about the disk.
            Err(error) if out_of_files(&error) => return Ok(()),
            now => now?,
        };
        match self.mark.get() {
            Some(mark) if *mark != now => Err(io::Error::other("another disk is in its place")),
            _ => Ok(()),
        }
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

    /// Looks whether the disk is there and how much room it has; one that does not say so is out of use. May block where
    /// the disk hangs.
    pub(crate) fn look(&self) {
        if let Err(error) = self.check_mark().and_then(|()| self.measure()) {
            self.fail(&error);
        }
    }

    /// The copies that are out of use and kept for a while.
    pub(crate) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Deletes from the quarantine what its time is over of, a few copies at once, and more where room is wanted. To be called
    /// every second, after [`Self::look`].
    pub(crate) fn tidy_quarantine(&self, now_unix_s: u64) {
        if self.failed() {
            return;
        }
        let tidied = self.quarantine.delete_due(now_unix_s, DUE_PER_ROUND).and_then(|deleted| {
            if deleted > 0 {
                tracing::info!(disk = %self.root.display(), copies = deleted, "deleted from quarantine");
            }
            self.make_room()
        });
        match tidied {
            // Some file systems need room to make room.
            Err(error) if is_full(&error) || out_of_files(&error) => {
                tracing::warn!(disk = %self.root.display(), %error, "nothing deleted from quarantine");
            }
            Err(error) => self.fail(&error),
            Ok(()) => {}
        }
    }

    /// Where there is no room, or not enough for somebody, the first in quarantine go before their time.
    fn make_room(&self) -> io::Result<()> {
        let short = self.short_of_room.swap(false, Ordering::Relaxed);
        if !short && self.room() > 0 {
            return Ok(());
        }
        let wanted = ROOM_WANTED.min(self.space().0 / 20);
        let mut deleted = 0;
        for step in 0..ROOM_STEPS {
            // How much was wanted is not known: a step for each round in which somebody was refused.
            let goes_on = self.room() < wanted || short && step == 0;
            let gone = if goes_on { self.quarantine.delete_first(ROOM_STEP)? } else { 0 };
            if gone == 0 {
                break;
            }
            deleted += gone;
            self.measure()?;
        }
        if deleted > 0 {
            tracing::warn!(
                disk = %self.root.display(), copies = deleted,
                "no room on the disk: deleted from quarantine before their time"
            );
        }
        Ok(())
    }

    /// A small file of the disk's own; `None` if there is none, or none to be had.
    pub(crate) fn read_note(&self, name: &str) -> Option<Vec<u8>> {
        match self.disk.read_whole(&self.root.join(name)) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(disk = %self.root.display(), name, %error, "a note is not read");
                None
            }
        }
    }

    /// Writes such a file, durably and all or nothing. A full disk keeps the old one.
    pub(crate) fn write_note(&self, name: &str, bytes: &[u8]) {
        match self.disk.write_whole(&self.root.join(name), bytes) {
            Ok(()) => {}
            Err(error) if is_full(&error) || out_of_files(&error) => {
                tracing::debug!(disk = %self.root.display(), name, %error, "a note is not written");
            }
            Err(error) => self.fail(&error),
        }
    }

    /// There is no room for what somebody wants to store.
    pub(super) fn no_space(&self, part: Part) -> StoreError {
        self.short_of_room.store(true, Ordering::Relaxed);
        StoreError::NoSpace { part }
    }

    /// The header of a copy in quarantine, or why it cannot come back.
    pub(super) fn kept_header(&self, kept: &Kept) -> io::Result<Result<Header, String>> {
        let file = self.disk.open(&self.quarantine.meta_path(kept), OpenMode::Read)?;
        let header = self.read_header(kept.part, &*file)?;
        Ok(header.and_then(|header| match header.version == kept.version {
            true => Ok(header),
            false => Err(format!("its sidecar has version {}", header.version)),
        }))
    }

    pub(super) fn measure(&self) -> io::Result<()> {
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

    /// What an I/O error of an operation on `part` means. Some are the copy's own, or of the process; any other is the
    /// disk's end.
    pub(crate) fn trouble(&self, part: Part, source: io::Error) -> StoreError {
        use io::ErrorKind::{AlreadyExists, NotFound, UnexpectedEof};
        match source.kind() {
            _ if is_full(&source) => self.no_space(part),
            NotFound => StoreError::Broken { part, why: "a file of it is missing".into() },
            UnexpectedEof => StoreError::Broken { part, why: "a file of it is too short".into() },
            AlreadyExists => {
                StoreError::Broken { part, why: "files of an unknown copy are in its place".into() }
            }
            _ if out_of_files(&source) => {
                StoreError::Busy { part, why: "the process has too many open files" }
            }
            _ => StoreError::Disk { part, path: self.root.clone(), source },
        }
    }

    /// The same for files that are made out of sight, in a directory that is there unless the disk is not.
    pub(super) fn trouble_out_of_sight(&self, part: Part, source: io::Error) -> StoreError {
        let error = match source.kind() {
            io::ErrorKind::NotFound => StoreError::Disk { part, path: self.root.clone(), source },
            _ => self.trouble(part, source),
        };
        if let StoreError::Disk { source, .. } = &error {
            self.fail(source);
        }
        error
    }

    /// The directory of a copy's files.
    pub(super) fn directory(&self, part: Part) -> PathBuf {
        self.root.join(format!("{:02x}", part.chunk().raw() & 0xff))
    }

    pub(super) fn data_path(&self, part: Part) -> PathBuf {
        self.directory(part).join(format!("{}.data", Stem(part)))
    }

    pub(super) fn meta_path(&self, part: Part) -> PathBuf {
        self.directory(part).join(format!("{}.meta", Stem(part)))
    }

    /// Where the files of a copy belong.
    pub(super) fn home(&self, part: Part) -> Home {
        Home { directory: self.directory(part), data: self.data_path(part), meta: self.meta_path(part) }
    }

    /// Where a copy is put together before it gets its place.
    /// `number` tells two fetches of one thing apart.
    pub(super) fn incoming_path(&self, part: Part, number: u64, extension: &str) -> PathBuf {
        self.root.join(INCOMING).join(format!("{}.{number}.{extension}", Stem(part)))
    }

    /// The files of copies that are being put together, or were when the process stopped.
    pub(super) fn list_incoming(&self) -> io::Result<Vec<PathBuf>> {
        self.disk.list(&self.root.join(INCOMING))
    }

    /// Makes the names of fetched copies durable.
    pub(super) fn sync_incoming(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.root.join(INCOMING))
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

    /// Moves what there is of a copy to `damaged/`, under names never used before, and reports the copy lost. From now on,
    /// over starts too, it is broken here.
    pub(super) fn move_aside(&self, part: Part, why: &str) {
        self.lock_broken().insert(part);
        self.put_aside(part, "");
        tracing::error!(
            copy = %part, why, disk = %self.root.display(),
            "copy is damaged, moved aside and reported lost; readers take another copy"
        );
        self.events.note(part, CopyEvent::Lost);
    }

    /// Moves a copy aside of which another disk of this server has one as good.
    pub(super) fn move_surplus_aside(&self, part: Part) {
        self.put_aside(part, &format!(".{OLD}"));
        tracing::error!(copy = %part, disk = %self.root.display(), "a second copy on this server, moved aside");
    }

    fn put_aside(&self, part: Part, suffix: &str) {
        let number = self.moved_aside.fetch_add(1, Ordering::Relaxed);
        let damaged = self.root.join(DAMAGED);
        for (path, extension) in [(self.data_path(part), "data"), (self.meta_path(part), "meta")] {
            let aside = damaged.join(format!("{}.{number}.{extension}{suffix}", Stem(part)));
            match self.disk.rename(&path, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => self.fail(&error),
                _ => {}
            }
        }
        // What was moved must be known as broken at the next start as well.
        if let Err(error) = self.disk.sync_dir(&damaged) {
            self.fail(&error);
        }
    }

    /// What is broken here.
    pub(super) fn broken(&self) -> Vec<Part> {
        self.lock_broken().iter().copied().collect()
    }

    /// It has been made good or given up: what lies in `damaged/` of it is for people only.
    pub(super) fn forget_broken(&self, part: Part) {
        if !self.lock_broken().remove(&part) {
            return;
        }
        let damaged = self.root.join(DAMAGED);
        let renamed = self.disk.list(&damaged).and_then(|aside| {
            for path in aside.iter().filter(|path| aside_name(path) == Some(part)) {
                let mut old = path.clone().into_os_string();
                old.push(format!(".{OLD}"));
                self.disk.rename(path, Path::new(&old))?;
            }
            self.disk.sync_dir(&damaged)
        });
        if let Err(error) = renamed {
            tracing::warn!(copy = %part, %error, "still taken for broken at the next start, unless a copy is here then");
        }
    }

    fn lock_broken(&self) -> MutexGuard<'_, BTreeSet<Part>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_header(&self, part: Part, file: &dyn DiskFile) -> io::Result<Result<Header, String>> {
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
        if header.part != part {
            return Ok(Err(format!("its sidecar is that of {}", header.part)));
        }
        if header.cluster != self.cluster {
            return Ok(Err(format!("it belongs to cluster {}", header.cluster)));
        }
        Ok(Ok(header))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the process, not the disk, is in the way.
fn out_of_files(error: &io::Error) -> bool {
    [libc::EMFILE, libc::ENFILE].map(Some).contains(&error.raw_os_error())
}

/// What a file in `damaged/` says is broken; `None` if it says so no more.
fn aside_name(path: &Path) -> Option<Part> {
    let (part, rest) = Stem::split(path.file_name()?.to_str()?)?;
    let (number, extension) = rest.split_once('.')?;
    (number.parse::<u64>().is_ok() && ["data", "meta"].contains(&extension)).then_some(part)
}
