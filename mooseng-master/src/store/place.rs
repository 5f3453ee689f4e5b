//! Where stores lie in a master's data directory: the one in use, and one that a snapshot is being received into.
//!
//! ```text
//! DATA/store           the first one
//! DATA/store-N         one that came as a snapshot
//! DATA/store.current   the name of the one in use, in one line; not there: "store"
//! ```
//!
//! A received store becomes the one in use by the replacement of one file, so a crash leaves the old one or the new one
//! in use, never a part of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mooseng_env::{Disk as _, FsDisk};
use mooseng_types::CellId;

/// The first store's directory.
const FIRST: &str = "store";
/// What the directories of the others begin with; a number follows.
const LATER: &str = "store-";
/// The file that names the one in use.
const CURRENT: &str = "store.current";

/// The stores of one data directory.
#[derive(Clone, Debug)]
pub struct StorePlace {
    data: PathBuf,
}

/// The number of a directory that a store may have; 0 for the first. `None` for every other name.
fn number(name: &str) -> Option<u64> {
    if name == FIRST {
        return Some(0);
    }
    let digits = name.strip_prefix(LATER)?;
    let number = digits.parse().ok().filter(|&number| number > 0)?;
    // One number, one name.
    (format!("{LATER}{number}") == name).then_some(number)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl StorePlace {
    /// The stores in this data directory, which must exist.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// The stores of a cell: those of other cells than the root's lie in a directory of their own.
    #[must_use]
    pub fn of(&self, cell: CellId) -> Self {
        if cell == CellId::ROOT {
            return self.clone();
        }
        Self::new(self.data.join(format!("cell-{:04x}", cell.raw())))
    }

    /// The directory that they lie in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.data
    }

    /// The directory of the store in use. Only the first one may be missing, before a master's first start; if another
    /// is, this fails: an empty store in its place would have forgotten what the master has promised.
    pub fn current(&self) -> io::Result<PathBuf> {
        let pointer = self.data.join(CURRENT);
        let text = match FsDisk.read_whole(&pointer) {
            Ok(bytes) => String::from_utf8(bytes)
                .map_err(|_| invalid(format!("{} is no text; restore it", pointer.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.data.join(FIRST)),
            Err(error) => return Err(error),
        };
        let name = text.strip_suffix('\n').unwrap_or(&text);
        if number(name).is_none() {
            let what = format!("{} names {name:?}, which is no store's name", pointer.display());
            return Err(invalid(what));
        }
        let dir = self.data.join(name);
        if !dir.is_dir() {
            let what = format!(
                "{} names {}, which is not there; restore the whole data directory, or empty it and let this master join again",
                pointer.display(),
                dir.display()
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        Ok(dir)
    }

    /// A directory that does not exist yet, for a store to be received into.
    pub fn fresh(&self) -> io::Result<PathBuf> {
        let highest = self.stores()?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
        Ok(self.data.join(format!("{LATER}{}", highest + 1)))
    }

    /// Makes this store, complete and durable, the one in use from the next [`StorePlace::current`] on, across a power
    /// cut too. Returns the one that was in use before, which nothing leads to any more.
    pub fn switch(&self, dir: &Path) -> io::Result<PathBuf> {
        let name = dir.file_name().and_then(|name| name.to_str()).filter(|name| number(name).is_some());
        let Some(name) = name.filter(|_| dir.parent() == Some(&self.data) && dir.is_dir()) else {
            let what = format!("{} is no store in {}", dir.display(), self.data.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        let replaced = self.current()?;
        // The directory itself, before anything leads to it.
        FsDisk.sync_dir(&self.data)?;
        FsDisk.write_whole(&self.data.join(CURRENT), format!("{name}\n").as_bytes())?;
        Ok(replaced)
    }

    /// Removes every store but the one in use: what was replaced, and what was not received to its end. To be called
    /// before a store is opened or received.
    pub fn tidy(&self) -> io::Result<()> {
        let current = self.current()?;
        let mut removed = false;
        for (_, dir) in self.stores()? {
            // A link was made by a person, who also knows what it is good for.
            if dir != current && !dir.is_symlink() {
                tracing::info!(dir = %dir.display(), "a store that is not in use is removed");
                fs::remove_dir_all(&dir)?;
                removed = true;
            }
        }
        if removed { FsDisk.sync_dir(&self.data) } else { Ok(()) }
    }

    /// The directories that may be stores, by number.
    fn stores(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let paths = FsDisk.list(&self.data)?.into_iter();
        let numbered = |path: PathBuf| {
            let number = number(path.file_name()?.to_str()?)?;
            path.is_dir().then_some((number, path))
        };
        Ok(paths.filter_map(numbered).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, StorePlace) {
        let data = tempfile::tempdir().unwrap();
        let place = StorePlace::new(data.path());
        (data, place)
    }

    /// Makes a store with a file in it.
    fn make(dir: &Path) {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("rows"), b"rows").unwrap();
    }

    fn names(data: &Path) -> Vec<String> {
        let paths = FsDisk.list(data).unwrap();
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_cluster_from_before_snapshots_keeps_its_store() {
        let (data, place) = place();
        assert_eq!(place.current().unwrap(), data.path().join("store"));
        make(&data.path().join("store"));
        place.tidy().unwrap();
        assert_eq!(place.current().unwrap(), data.path().join("store"));
        assert_eq!(names(data.path()), ["store"]);
    }

    #[test]
    fn a_store_counts_from_the_switch_on_and_the_old_one_goes() {
        let (data, place) = place();
        make(&data.path().join("store"));
        let first = place.fresh().unwrap();
        assert_eq!(first, data.path().join("store-1"));
        make(&first);
        assert_eq!(place.current().unwrap(), data.path().join("store"));
        assert_eq!(place.switch(&first).unwrap(), data.path().join("store"));
        assert_eq!(place.current().unwrap(), first);
        let second = place.fresh().unwrap();
        assert_eq!(second, data.path().join("store-2"));
        make(&second);
        assert_eq!(place.switch(&second).unwrap(), first);
        place.tidy().unwrap();
        assert_eq!(names(data.path()), ["store-2", "store.current"]);
        assert_eq!(fs::read(second.join("rows")).unwrap(), b"rows");
    }

    #[test]
    fn what_was_half_received_is_removed_at_the_next_start_and_its_name_not_used_before() {
        let (data, place) = place();
        for name in ["store", "store-7"] {
            make(&data.path().join(name));
        }
        assert_eq!(place.fresh().unwrap(), data.path().join("store-8"));
        place.tidy().unwrap();
        assert_eq!(names(data.path()), ["store"]);
        assert_eq!(place.fresh().unwrap(), data.path().join("store-1"));
    }

    #[test]
    fn only_stores_are_removed() {
        let (data, place) = place();
        let others = ["log", "store-", "store-01", "store-1x", "store-old", "stores"];
        for name in others.into_iter().chain(["store", "store-1"]) {
            make(&data.path().join(name));
        }
        fs::write(data.path().join("store-3"), b"a file").unwrap();
        std::os::unix::fs::symlink(data.path().join("log"), data.path().join("store-4")).unwrap();
        place.tidy().unwrap();
        let mut left = names(data.path());
        left.retain(|name| !others.contains(&name.as_str()));
        assert_eq!(left, ["store", "store-3", "store-4"]);
        assert!(data.path().join("log/rows").exists());
    }

    #[test]
    fn a_pointer_that_leads_nowhere_is_an_error_and_not_an_empty_store() {
        let (data, place) = place();
        make(&data.path().join("store"));
        for (text, kind) in [
            ("store-1\n", io::ErrorKind::NotFound),
            ("../store\n", io::ErrorKind::InvalidData),
            ("", io::ErrorKind::InvalidData),
            ("store-1\nstore-2\n", io::ErrorKind::InvalidData),
        ] {
            fs::write(data.path().join(CURRENT), text).unwrap();
            assert_eq!(place.current().unwrap_err().kind(), kind, "{text:?}");
            assert!(place.tidy().is_err());
        }
        assert_eq!(names(data.path()), ["store", "store.current"]);
    }

    #[test]
    fn only_a_store_of_this_directory_can_be_switched_to() {
        let (data, place) = place();
        for dir in ["store-1", "log", "../store-1"] {
            let error = place.switch(&data.path().join(dir)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{dir}");
        }
        assert_eq!(names(data.path()), [""; 0]);
    }
}
