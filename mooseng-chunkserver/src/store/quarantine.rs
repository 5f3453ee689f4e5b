//! The quarantine of one disk: copies that the leader has given up, out of use, kept until a stated second of the wall clock.
//!
//! A copy goes in sidecar first and comes out data first, each step durable before the next. So whatever a power cut leaves can
//! be told by names: a sidecar here whose data lies at home is half of a move, and [`Quarantine::recover`] ends it. The file
//! names and the table of all cases are in `docs/formats/chunk-file.md`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mooseng_env::{Disk, disk::OpenMode};
use mooseng_types::{ChunkVersion, Part};

use super::name::Stem;
use super::sidecar::{HEADER_SIZE, Header};

/// The directory of copies in quarantine.
pub(super) const QUARANTINE: &str = "quarantine";
/// Bytes compared at once.
const COMPARED: usize = 256 << 10;

/// A copy in quarantine, by what its files' names say; the first in order is the first to go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Kept {
    /// The second of the wall clock from which on it may be deleted.
    pub(crate) until_unix_s: u64,
    /// Of what.
    pub(crate) part: Part,
    /// The copy's version.
    pub(crate) version: ChunkVersion,
}

/// Where the files of a copy in use belong.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) directory: PathBuf,
    pub(super) data: PathBuf,
    pub(super) meta: PathBuf,
}

/// The copies in quarantine on one disk.
#[derive(Debug)]
pub(crate) struct Quarantine {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: BTreeMap<Kept, Inmate>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Inmate {
    length: u64,
    /// Somebody is moving or deleting its files.
    claimed: bool,
}

/// A copy was not moved.
#[derive(Debug)]
pub(super) struct NotMoved {
    pub(super) source: io::Error,
    /// Nobody knows where its files are, until the next start: the disk is of no more use before.
    pub(super) half_way: bool,
}

impl Kept {
    fn file_name(&self, extension: &str) -> String {
        format!("{}.v{}.{}.{extension}", Stem(self.part), self.version.raw(), self.until_unix_s)
    }

    /// What a file is called so, and whether it is the data; `None` for a name that is not written as this release does.
    fn parse(path: &Path) -> Option<(Self, bool)> {
        let name = path.file_name()?.to_str()?;
        let (part, rest) = Stem::split(name)?;
        let mut fields = rest.strip_prefix('v')?.splitn(3, '.');
        let version = ChunkVersion::from_raw(fields.next()?.parse().ok()?);
        let until_unix_s = fields.next()?.parse().ok()?;
        let extension = fields.next()?;
        let kept = Self { until_unix_s, part, version };
        let canonical = ["data", "meta"].contains(&extension) && kept.file_name(extension) == name;
        canonical.then_some((kept, extension == "data"))
    }
}

impl Quarantine {
    /// That of the disk with this directory; nothing is known of it yet.
    pub(super) fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self { disk, directory: root.join(QUARANTINE), state: Mutex::default() }
    }

    /// Bytes and copies in it.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let state = self.lock();
        (state.bytes, state.kept.len() as u64)
    }

    /// What is in it, with the lengths of the data, without what is on its way in or out.
    pub(crate) fn list(&self) -> Vec<(Kept, u64)> {
        let state = self.lock();
        state.kept.iter().filter(|(_, it)| !it.claimed).map(|(kept, it)| (*kept, it.length)).collect()
    }

    /// The copy of this version that would be kept longest.
    pub(crate) fn find(&self, part: Part, version: ChunkVersion) -> Option<Kept> {
        let state = self.lock();
        let fits = |kept: &&Kept| kept.part == part && kept.version == version;
        state.kept.iter().rev().filter(|(_, it)| !it.claimed).map(|(kept, _)| kept).find(fits).copied()
    }

    /// The sidecar of a copy that is in it.
    pub(super) fn meta_path(&self, kept: &Kept) -> PathBuf {
        self.path(kept, "meta")
    }

    fn path(&self, kept: &Kept, extension: &str) -> PathBuf {
        self.directory.join(kept.file_name(extension))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a copy in, durably; its files are durable, of `length` bytes, and nobody uses them. A name that is taken makes it
    /// stay a second longer.
    pub(super) fn take_in(&self, home: &Home, mut kept: Kept, length: u64) -> Result<(), NotMoved> {
        self.reserve(&mut kept, length);
        let (meta, data) = (self.path(&kept, "meta"), self.path(&kept, "data"));
        let directories = (&*self.directory, &*home.directory);
        let moved = self.move_files(directories, [(&home.meta, &meta), (&home.data, &data)]);
        self.end_claim(&kept, moved.is_err());
        moved
    }

    fn reserve(&self, kept: &mut Kept, length: u64) {
        let mut state = self.lock();
        loop {
            match state.kept.entry(*kept) {
                Entry::Vacant(free) => {
                    free.insert(Inmate { length, claimed: true });
                    state.bytes += length;
                    return;
                }
                // Nobody can fill all seconds up to the end of time, so one is free; beyond it, time begins anew.
                Entry::Occupied(_) => kept.until_unix_s = kept.until_unix_s.wrapping_add(1),
            }
        }
    }

    /// Moves a copy back home, durably.
    pub(super) fn give_back(&self, home: &Home, kept: &Kept) -> Result<(), NotMoved> {
        let unmoved = |source| NotMoved { source, half_way: false };
        if !self.claim(kept) {
            return Err(unmoved(io::ErrorKind::NotFound.into()));
        }
        let (meta, data) = (self.path(kept, "meta"), self.path(kept, "data"));
        let directories = (&*home.directory, &*self.directory);
        let taken = self.exists(&home.data).and_then(|there| Ok(there || self.exists(&home.meta)?));
        let moved = match taken {
            Ok(false) => self.move_files(directories, [(&data, &home.data), (&meta, &home.meta)]),
            Ok(true) => Err(unmoved(io::ErrorKind::AlreadyExists.into())),
            Err(source) => Err(unmoved(source)),
        };
        self.end_claim(kept, moved.is_ok());
        moved
    }

    /// Moves two files from the second directory to the first, one after the other. A directory that has no room for the second
    /// name gives back the first.
    fn move_files(
        &self,
        (to, from): (&Path, &Path),
        [first, second]: [(&PathBuf, &PathBuf); 2],
    ) -> Result<(), NotMoved> {
        let failed = |half_way| move |source| NotMoved { source, half_way };
        self.disk.rename(first.0, first.1).map_err(failed(false))?;
        self.sync_both(to, from).map_err(failed(true))?;
        if let Err(source) = self.disk.rename(second.0, second.1) {
            let back = self.disk.rename(first.1, first.0).and_then(|()| self.sync_both(from, to));
            return Err(NotMoved { source, half_way: back.is_err() });
        }
        self.sync_both(to, from).map_err(failed(true))
    }

    /// First where a name has come to, then where it was: between the two it is in both, never in none.
    fn sync_both(&self, to: &Path, from: &Path) -> io::Result<()> {
        self.disk.sync_dir(to).and_then(|()| self.disk.sync_dir(from))
    }

    /// Deletes up to `max` copies whose time is over; how many there were.
    pub(super) fn delete_due(&self, now_unix_s: u64, max: usize) -> io::Result<usize> {
        let due = |kept: &Kept| kept.until_unix_s <= now_unix_s;
        self.delete(self.first(max, due))
    }

    /// Deletes up to `max` copies, those first whose time is over first.
    pub(super) fn delete_first(&self, max: usize) -> io::Result<usize> {
        self.delete(self.first(max, |_| true))
    }

    fn first(&self, max: usize, mut goes: impl FnMut(&Kept) -> bool) -> Vec<Kept> {
        let mut state = self.lock();
        let mut claimed = Vec::new();
        for (kept, inmate) in state.kept.iter_mut() {
            if claimed.len() >= max || !goes(kept) {
                break;
            }
            if !std::mem::replace(&mut inmate.claimed, true) {
                claimed.push(*kept);
            }
        }
        claimed
    }

    /// Data first, and durably: what a power cut leaves is then a sidecar, which has no byte of the chunk.
    fn delete(&self, doomed: Vec<Kept>) -> io::Result<usize> {
        if doomed.is_empty() {
            return Ok(0);
        }
        let removed = self.remove_files(&doomed);
        for kept in &doomed {
            self.end_claim(kept, removed.is_ok());
        }
        removed.map(|()| doomed.len())
    }

    fn remove_files(&self, doomed: &[Kept]) -> io::Result<()> {
        for kept in doomed {
            self.remove_if_there(&self.path(kept, "data"))?;
        }
        self.disk.sync_dir(&self.directory)?;
        doomed.iter().try_for_each(|kept| self.remove_if_there(&self.path(kept, "meta")))
    }

    fn claim(&self, kept: &Kept) -> bool {
        let mut state = self.lock();
        let free = state.kept.get_mut(kept).filter(|inmate| !inmate.claimed);
        free.map(|inmate| inmate.claimed = true).is_some()
    }

    /// Ends a claim: the copy is in quarantine, or `gone` from it.
    fn end_claim(&self, kept: &Kept, gone: bool) {
        let mut state = self.lock();
        if !gone {
            if let Some(inmate) = state.kept.get_mut(kept) {
                inmate.claimed = false;
            }
        } else if let Some(inmate) = state.kept.remove(kept) {
            state.bytes -= inmate.length;
        }
    }

    /// Looks what is in it, and ends what a crash has left half-way. `home` is where a copy belongs. The directory is there, durably.
    pub(super) fn recover(&self, home: impl Fn(Part) -> Home) -> io::Result<()> {
        let mut found: BTreeMap<Kept, (bool, bool)> = BTreeMap::new();
        for path in self.disk.list(&self.directory)? {
            let Some((kept, is_data)) = Kept::parse(&path) else {
                tracing::warn!(path = %path.display(), "a file that does not belong here is left alone");
                continue;
            };
            let seen = found.entry(kept).or_default();
            *(if is_data { &mut seen.0 } else { &mut seen.1 }) = true;
        }
        if !found.is_empty() {
            // A process that was killed may have left names that the disk does not have yet.
            self.disk.sync_dir(&self.directory)?;
        }
        for (kept, seen) in found {
            let home = home(kept.part);
            let is_here = match seen {
                (true, true) => self.end_second_name(&home, &kept).map(|()| true)?,
                (false, true) => self.end_half_move(&home, &kept)?,
                _ => {
                    let path = self.path(&kept, "data");
                    tracing::warn!(path = %path.display(), "data without a sidecar is left alone");
                    false
                }
            };
            if is_here {
                let length = self.disk.open(&self.path(&kept, "data"), OpenMode::Read)?.len()?;
                let mut state = self.lock();
                state.kept.insert(kept, Inmate { length, claimed: false });
                state.bytes += length;
            }
        }
        Ok(())
    }

    /// The copy is here as a whole. Where its data has its old name as well, that one goes: without a sidecar, it would be taken
    /// for a damaged copy.
    fn end_second_name(&self, home: &Home, kept: &Kept) -> io::Result<()> {
        let alone = self.exists(&home.data)? && !self.exists(&home.meta)?;
        if alone && self.same_bytes(&home.data, &self.path(kept, "data"))? {
            self.disk.remove(&home.data)?;
            self.disk.sync_dir(&home.directory)?;
        }
        Ok(())
    }

    /// Only the sidecar is here. Whether the copy is here when this returns.
    fn end_half_move(&self, home: &Home, kept: &Kept) -> io::Result<bool> {
        let meta = self.path(kept, "meta");
        if !self.exists(&home.meta)? && self.exists(&home.data)? && self.fits(&meta, &home.data, kept)? {
            self.disk.rename(&home.data, &self.path(kept, "data"))?;
            self.sync_both(&self.directory, &home.directory)?;
            tracing::info!(copy = %kept.part, "a copy that a crash has stopped half-way goes into quarantine");
            return Ok(true);
        }
        // A copy that has its sidecar at home never left, or has come back; without any data, this is what is left of a deletion.
        self.disk.remove(&meta)?;
        self.disk.sync_dir(&self.directory)?;
        Ok(false)
    }

    /// Whether the sidecar is that of the data.
    fn fits(&self, meta: &Path, data: &Path, kept: &Kept) -> io::Result<bool> {
        let mut sector = [0; HEADER_SIZE];
        let read = self.disk.open(meta, OpenMode::Read)?.read_at(&mut sector, 0)?;
        let Some(header) = Header::decode(&sector).ok().filter(|_| read == HEADER_SIZE) else {
            return Ok(false);
        };
        let length = self.disk.open(data, OpenMode::Read)?.len()?;
        let same = header.part == kept.part && header.version == kept.version;
        Ok(same && (header.dirty || u64::from(header.length) == length))
    }

    fn same_bytes(&self, one: &Path, other: &Path) -> io::Result<bool> {
        let files = [self.disk.open(one, OpenMode::Read)?, self.disk.open(other, OpenMode::Read)?];
        let length = files[0].len()?;
        if files[1].len()? != length {
            return Ok(false);
        }
        let mut bytes = [vec![0; COMPARED], vec![0; COMPARED]];
        let mut at = 0;
        while at < length {
            let piece = usize::try_from(length - at).unwrap_or(COMPARED).min(COMPARED);
            for (file, bytes) in files.iter().zip(&mut bytes) {
                file.read_exact_at(&mut bytes[..piece], at)?;
            }
            if bytes[0][..piece] != bytes[1][..piece] {
                return Ok(false);
            }
            at += piece as u64;
        }
        Ok(true)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.disk.open(path, OpenMode::Read) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::ChunkId;
    use proptest::prelude::*;

    use super::*;

    fn kept(chunk: u64, index: u8, version: u32, until_unix_s: u64) -> Kept {
        let part = Part::new(ChunkId::from_raw(chunk), index).unwrap();
        Kept { until_unix_s, part, version: ChunkVersion::from_raw(version) }
    }

    #[test]
    fn names_never_change() {
        let whole = kept(0x123f, 0, 3, 1_790_000_000);
        assert_eq!(whole.file_name("data"), "000000000000123f.v3.1790000000.data");
        assert_eq!(kept(0x123f, 7, 0, 0).file_name("meta"), "000000000000123f.p07.v0.0.meta");
        assert_eq!(Kept::parse(Path::new("/q/000000000000123f.v3.1790000000.data")), Some((whole, true)));
    }

    #[test]
    fn a_name_that_is_not_written_so_is_nobodys() {
        for rest in [
            "v03.1.data",
            "v3.01.data",
            "v+3.1.data",
            "v3.1.dat",
            "v3.1.data.old",
            "3.1.data",
            "v3.data",
            "v4294967296.1.data",
        ] {
            assert_eq!(Kept::parse(Path::new(&format!("000000000000123f.{rest}"))), None, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_it_was_written(
            chunk: u64, index in 0..=Part::INDEX_MAX, version: u32, until: u64, data: bool,
        ) {
            let kept = kept(chunk, index, version, until);
            let name = kept.file_name(if data { "data" } else { "meta" });
            prop_assert_eq!(Kept::parse(Path::new(&name)), Some((kept, data)));
        }
    }
}
