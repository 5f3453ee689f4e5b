//! Files ready to become segments: purged ones, and a new one that is filled with zeros ahead of time.
//!
//! Zeros must be on the disk before the first batch, or every `fdatasync` would write the file system's metadata too.
//! Filling a whole segment takes as long as dozens of batches, and masters turn to a new segment at about the same time;
//! so it is done beforehand, a little after each batch.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mooseng_env::disk::OpenMode;
use mooseng_env::{Disk, DiskFile};

/// Files kept for use.
const READY_MAX: usize = 2;
/// Bytes of one step of filling: about what a batch costs.
const STEP: u64 = 256 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The files of one log.
#[derive(Debug)]
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    ready: Vec<PathBuf>,
    filling: Option<Arc<dyn DiskFile>>,
    /// There was no room for one; the next segment has to be made when it is needed.
    gave_up: bool,
}

impl Spares {
    /// Those that an earlier run has left; what is beyond the limit, or was not filled to its end, is removed.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> io::Result<Self> {
        let files = disk.list(dir)?.into_iter();
        let mut ready: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|e| e == "spare")).collect();
        for surplus in ready.drain(READY_MAX.min(ready.len())..) {
            disk.remove(&surplus)?;
        }
        let spares = Self { disk, dir: dir.to_owned(), segment_bytes, ready, filling: None, gave_up: false };
        remove_if_there(&*spares.disk, &spares.beside())?;
        Ok(spares)
    }

    fn beside(&self) -> PathBuf {
        self.dir.join("spare.tmp")
    }

    /// One to be used now. Its bytes are what they are.
    pub(super) fn take(&mut self) -> Option<PathBuf> {
        self.gave_up = false;
        self.ready.pop()
    }

    /// The segment `number` at `path` is not needed any more.
    pub(super) fn put(&mut self, number: u64, path: &Path) -> io::Result<()> {
        if self.ready.len() >= READY_MAX {
            return self.disk.remove(path);
        }
        let spare = self.dir.join(format!("{number:016x}.spare"));
        self.disk.rename(path, &spare)?;
        self.ready.push(spare);
        Ok(())
    }

    /// Fills a little of a new file if none is ready. That there is no room for it is no error: there may be enough for
    /// the log itself.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if !self.ready.is_empty() || self.gave_up {
            return Ok(());
        }
        match self.fill_a_little() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.gave_up = true;
                self.filling = None;
                remove_if_there(&*self.disk, &self.beside())
            }
            done => done,
        }
    }

    fn fill_a_little(&mut self) -> io::Result<()> {
        let file = match self.filling.take() {
            Some(file) => file,
            None => self.disk.open(&self.beside(), OpenMode::CreateNew)?,
        };
        let filled = file.len()?;
        let bytes = (filled + STEP).min(self.segment_bytes);
        write_zeros(&*file, filled, bytes)?;
        file.sync_data()?;
        if bytes < self.segment_bytes {
            self.filling = Some(file);
            return Ok(());
        }
        let spare = self.dir.join("prepared.spare");
        self.disk.rename(&self.beside(), &spare)?;
        self.ready.push(spare);
        Ok(())
    }
}

/// Writes zeros over `from..to`, which may extend the file.
pub(super) fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let step = (to - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..usize::try_from(step).unwrap_or(ZEROS.len())], at)?;
        at += step;
    }
    Ok(())
}

pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
