//! The chunk store: every copy on every disk of this server, found by what it is: a whole copy of a chunk, or a part of one.
//!
//! A copy is worked on through its [`Chunk`]; the store finds it or chooses a disk for a new one. What the bytes on the
//! disk are, and what a crash leaves of them, is written down in `docs/formats/chunk-file.md`.

mod chunk;
mod condemn;
mod disk;
mod error;
mod found;
mod name;
mod open;
mod open_copies;
mod quarantine;
mod read;
mod receive;
mod settle;
pub mod sidecar;
mod verify;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooseng_env::Disk;
use mooseng_types::{ChunkVersion, ClusterId, Part};

use crate::copy_events::{CopyEvent, CopyEvents};

use chunk::Phase;
pub(crate) use chunk::{Chunk, Follows};
pub(crate) use disk::ChunkDisk;
pub use error::StoreError;
use open_copies::OpenCopies;
pub(crate) use quarantine::Kept;
pub(crate) use read::{FileBytes, ReadAnswer, ReadBytes, ReadRequest};
pub(crate) use receive::Incoming;
pub(crate) use verify::{Checked, Verification};

/// What the masters are told of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CopyInfo {
    /// Of what.
    pub(crate) part: Part,
    /// The copy's version.
    pub(crate) version: ChunkVersion,
    /// It was being written when the server died, and nobody has made it good since.
    pub(crate) in_doubt: bool,
}

/// Every copy of this server.
#[derive(Debug)]
pub(crate) struct Store {
    disks: Vec<Arc<ChunkDisk>>,
    index: Mutex<HashMap<Part, Arc<Chunk>>>,
    open_copies: Arc<OpenCopies<Chunk>>,
    events: Arc<CopyEvents>,
    told_failed: Mutex<Vec<bool>>,
}

impl Store {
    /// Opens every disk directory, recovers what was dirty and moves aside what cannot be believed. A disk that fails
    /// meanwhile is out of use; only if none is left, that is an error.
    pub(crate) fn open(
        disks: Vec<(Arc<dyn Disk>, PathBuf)>,
        cluster: ClusterId,
        reserve_bytes: u64,
        events: Arc<CopyEvents>,
    ) -> io::Result<Self> {
        let open_copies = Arc::new(OpenCopies::of_disks(disks.len()));
        let mut opened = Vec::new();
        let mut index = HashMap::new();
        let mut last_error = None;
        for (disk, root) in disks {
            let disk = Arc::new(ChunkDisk::new(disk, root, cluster, reserve_bytes, Arc::clone(&events)));
            if let Err(error) = disk.prepare().and_then(|()| add_found(&disk, &open_copies, &mut index)) {
                disk.fail(&error);
                last_error = Some(error);
            }
            opened.push(disk);
        }
        for disk in &opened {
            for part in disk.broken() {
                let broken = || Arc::new(Chunk::broken(part, Arc::clone(disk), Arc::clone(&open_copies)));
                index.entry(part).or_insert_with(broken);
            }
        }
        if let Some(error) = last_error
            && opened.iter().all(|disk| disk.failed())
        {
            return Err(error);
        }
        let told_failed = Mutex::new(vec![false; opened.len()]);
        Ok(Self { disks: opened, index: Mutex::new(index), open_copies, events, told_failed })
    }

    /// The disks, in the order of the configuration.
    pub(crate) fn disks(&self) -> &[Arc<ChunkDisk>] {
        &self.disks
    }

    /// The place of a chunk's disk among [`Store::disks`].
    pub(crate) fn disk_index(&self, chunk: &Chunk) -> usize {
        self.disks.iter().position(|disk| Arc::ptr_eq(disk, chunk.disk())).unwrap_or(0)
    }

    /// The copy, if there is or was something of it here.
    pub(crate) fn find(&self, part: Part) -> Option<Arc<Chunk>> {
        self.lock().get(&part).cloned()
    }

    /// The copy, or a place for it on the disk with the most room.
    pub(crate) fn find_or_place(&self, part: Part) -> Result<Arc<Chunk>, StoreError> {
        let mut index = self.lock();
        if let Some(found) = index.get(&part) {
            return Ok(Arc::clone(found));
        }
        self.place(&mut index, part, Chunk::absent)
    }

    /// The copy, or a place for it, for one that is fetched whole: on another disk if the one of the copy has failed.
    pub(crate) fn find_or_place_whole(&self, part: Part) -> Result<Arc<Chunk>, StoreError> {
        let mut index = self.lock();
        match index.get(&part) {
            Some(found) if !found.disk().failed() => Ok(Arc::clone(found)),
            // What was written is on the failed disk: a write must not make the copy anew.
            Some(_) => self.place(&mut index, part, Chunk::broken),
            None => self.place(&mut index, part, Chunk::absent),
        }
    }

    /// The place of the disk on which such a copy would be, without giving it one.
    pub(crate) fn disk_for_whole(&self, part: Part) -> Option<usize> {
        match self.find(part) {
            Some(found) if !found.disk().failed() => Some(self.disk_index(&found)),
            _ => {
                let usable = self.disks.iter().enumerate().filter(|(_, disk)| !disk.failed());
                usable.max_by_key(|(_, disk)| disk.room()).map(|(index, _)| index)
            }
        }
    }

    /// A place on the disk with the most room.
    fn place(
        &self,
        index: &mut HashMap<Part, Arc<Chunk>>,
        part: Part,
        make: impl FnOnce(Part, Arc<ChunkDisk>, Arc<OpenCopies<Chunk>>) -> Chunk,
    ) -> Result<Arc<Chunk>, StoreError> {
        let usable = self.disks.iter().filter(|disk| !disk.failed());
        let disk = usable.max_by_key(|disk| disk.room()).ok_or(StoreError::NoDisk { part })?;
        if disk.room() == 0 {
            return Err(disk.no_space(part));
        }
        let placed = Arc::new(make(part, Arc::clone(disk), Arc::clone(&self.open_copies)));
        index.insert(part, Arc::clone(&placed));
        Ok(placed)
    }

    /// Forgets a chunk that is gone, so that it may be placed anew.
    pub(crate) fn forget_if_gone(&self, chunk: &Arc<Chunk>) {
        if !chunk.is_gone() {
            return;
        }
        let mut index = self.lock();
        if index.get(&chunk.id()).is_some_and(|known| Arc::ptr_eq(known, chunk)) {
            index.remove(&chunk.id());
        }
    }

    /// What is in quarantine, with the length of the data and the disk, in no order.
    pub(crate) fn in_quarantine(&self) -> Vec<(Kept, u64, &ChunkDisk)> {
        let disks = self.disks.iter().filter(|disk| !disk.failed());
        disks
            .flat_map(|disk| {
                disk.quarantine().list().into_iter().map(|(kept, length)| (kept, length, &**disk))
            })
            .collect()
    }

    /// Which copy in quarantine would come back, and the place of its disk among [`Store::disks`].
    pub(crate) fn find_kept(&self, part: Part, version: ChunkVersion) -> Result<(usize, Kept), StoreError> {
        let disks = self.disks.iter().enumerate().filter(|(_, disk)| !disk.failed());
        let kept = disks.filter_map(|(index, disk)| Some((index, disk.quarantine().find(part, version)?)));
        kept.max_by_key(|(_, kept)| kept.until_unix_s).ok_or(StoreError::NotKept { part, version })
    }

    /// Takes a copy back from quarantine, in place of an older one, if there is one.
    pub(crate) fn restore(&self, part: Part, version: ChunkVersion) -> Result<(), StoreError> {
        let (index, kept) = self.find_kept(part, version)?;
        let disk = self.disks.get(index).ok_or(StoreError::NotKept { part, version })?;
        let read = disk.kept_header(&kept).map_err(|source| disk.trouble(part, source))?;
        let header = read.map_err(|why| StoreError::Broken { part, why })?;
        let before = self.find(part);
        let way = before.as_ref().map(|chunk| chunk.make_way(version, kept.until_unix_s));
        let way = way.transpose()?.flatten();
        let chunk = Arc::new(Chunk::absent(part, Arc::clone(disk), Arc::clone(&self.open_copies)));
        let restored = chunk.come_back(&kept, &header, || self.enter(&chunk, before.as_ref()));
        match (restored, way, &before) {
            (Ok(()), Some(mut gone), Some(before)) => {
                gone.phase = Phase::Gone;
                before.disk().forget_broken(part);
                Ok(())
            }
            // What was not there before is not there now.
            (Err(error), Some(_), Some(before)) => self.enter(before, Some(&chunk)).and(Err(error)),
            (restored, ..) => {
                self.forget_if_gone(&chunk);
                restored
            }
        }
    }

    /// Makes a chunk known in the place of `before`, which is gone, or of none.
    fn enter(&self, chunk: &Arc<Chunk>, before: Option<&Arc<Chunk>>) -> Result<(), StoreError> {
        let mut index = self.lock();
        let is_free = match (index.get(&chunk.id()), before) {
            (Some(known), Some(before)) => Arc::ptr_eq(known, before),
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !is_free {
            return Err(StoreError::Busy { part: chunk.id(), why: "a copy is just being made" });
        }
        index.insert(chunk.id(), Arc::clone(chunk));
        Ok(())
    }

    /// Every copy there is, for a full report.
    pub(crate) fn list(&self) -> Vec<CopyInfo> {
        let index = self.lock();
        let mut copies: Vec<_> = index
            .values()
            .filter_map(|chunk| {
                let (version, in_doubt) = chunk.published()?;
                Some(CopyInfo { part: chunk.id(), version, in_doubt })
            })
            .collect();
        copies.sort_by_key(|copy| copy.part);
        copies
    }

    /// Up to `max` copies of a disk behind `after`, in order, and how many there are behind it.
    pub(crate) fn copies_after(&self, disk: usize, after: Option<Part>, max: usize) -> (Vec<Part>, u64) {
        let Some(disk) = self.disks.get(disk) else { return (Vec::new(), 0) };
        let index = self.lock();
        let behind = index.values().filter(|chunk| {
            Some(chunk.id()) > after && Arc::ptr_eq(chunk.disk(), disk) && chunk.published().is_some()
        });
        let mut first = BinaryHeap::with_capacity(max + 1);
        let mut left = 0;
        for chunk in behind {
            left += 1;
            first.push(chunk.id());
            if first.len() > max {
                first.pop();
            }
        }
        (first.into_sorted_vec(), left)
    }

    /// The dirty copies that have not been written for `idle`.
    pub(crate) fn idle_chunks(&self, now: Duration, idle: Duration) -> Vec<Arc<Chunk>> {
        let mut open = self.open_copies.list();
        open.retain(|chunk| !chunk.disk().failed() && chunk.is_idle(now, idle));
        open
    }

    /// Reports the copies of disks that have failed since the last call as lost.
    pub(crate) fn report_failed_disks(&self) {
        let mut told = self.told_failed.lock().unwrap_or_else(PoisonError::into_inner);
        for (disk, told) in self.disks.iter().zip(told.iter_mut()) {
            if !disk.failed() || std::mem::replace(told, true) {
                continue;
            }
            for chunk in self.lock().values().filter(|chunk| Arc::ptr_eq(chunk.disk(), disk)) {
                self.events.note(chunk.id(), CopyEvent::Lost);
            }
        }
    }

    /// Makes every dirty copy clean and durable, at an orderly stop. Errors have been logged; a copy that could not be
    /// made clean is recovered at the next start.
    pub(crate) fn close(&self, now: Duration) {
        for chunk in self.open_copies.list() {
            drop(chunk.clean_if_idle(now, Duration::ZERO));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Part, Arc<Chunk>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the copies of `disk` to `index`. Of two copies of one thing the newer one counts; the other is moved aside.
fn add_found(
    disk: &Arc<ChunkDisk>,
    open_copies: &Arc<OpenCopies<Chunk>>,
    index: &mut HashMap<Part, Arc<Chunk>>,
) -> io::Result<()> {
    let mut recovered = 0u32;
    for found in found::look_through(disk)? {
        let chunk = match Chunk::found(found.part, Arc::clone(disk), Arc::clone(open_copies), &found.header) {
            Ok(chunk) => Arc::new(chunk),
            Err(StoreError::Disk { source, .. }) => return Err(source),
            // Moved aside and reported.
            Err(_) => continue,
        };
        recovered += u32::from(found.header.dirty);
        if let Some(other) = index.get(&found.part) {
            let newer = chunk.published().map(|p| p.0) > other.published().map(|p| p.0);
            let loser = if newer { other } else { &chunk };
            loser.disk().uncount_copy();
            loser.disk().move_surplus_aside(found.part);
            if !newer {
                continue;
            }
        }
        index.insert(found.part, chunk);
    }
    if recovered > 0 {
        tracing::warn!(disk = %disk.root().display(), copies = recovered, "copies recovered after a crash");
    }
    Ok(())
}
