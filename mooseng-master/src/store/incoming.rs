//! A store while its rows arrive as a snapshot: sorted tables of some MiB, written as they come.
//!
//! The master that receives goes on with what it has, so here a disk that is full or broken is an error and not the
//! end of the process. Whatever is not finished is removed.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::PersistMode;
use mooseng_meta::base_row;

use super::{FjallStore, TABLE_BYTES};

/// What a collected row takes besides its key and value, in bytes, about.
const ROW_OVERHEAD: usize = 64;

/// Why a store cannot be received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncomingError {
    /// The directory is there already; a received store gets a new one.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A row is not above the one before it.
    #[error("row {0} does not come after the one before it")]
    Order(String),
    /// It failed before, and is gone.
    #[error("the store being received was given up")]
    Abandoned,
    /// The disk of the receiving master is full or broken.
    #[error("write the received store; see whether the disk is full")]
    Store(#[from] fjall::Error),
}

/// A store that rows are coming into. Dropping it removes it.
pub struct IncomingStore {
    dir: PathBuf,
    /// `None` once it is finished or given up.
    store: Option<FjallStore>,
    rows: Vec<(Bytes, Bytes)>,
    row_bytes: usize,
    last: Bytes,
}

impl std::fmt::Debug for IncomingStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingStore").field("dir", &self.dir).field("rows", &self.rows.len()).finish()
    }
}

impl IncomingStore {
    /// An empty store in `dir`, which must not exist yet.
    pub fn begin(dir: &Path) -> Result<Self, IncomingError> {
        if dir.symlink_metadata().is_ok() {
            return Err(IncomingError::Exists(dir.to_owned()));
        }
        let mut incoming =
            Self { dir: dir.to_owned(), store: None, rows: Vec::new(), row_bytes: 0, last: Bytes::new() };
        match FjallStore::open(dir) {
            Ok(store) => incoming.store = Some(store),
            Err(error) => {
                incoming.remove();
                return Err(error.into());
            }
        }
        Ok(incoming)
    }

    /// Takes rows. Their keys rise strictly from the first row to the last of all calls, are at least one byte and at
    /// most 64 KiB long. After an error nothing is left of the store.
    pub fn write(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), IncomingError> {
        let written = self.try_write(rows);
        if written.is_err() {
            self.give_up();
        }
        written
    }

    fn try_write(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), IncomingError> {
        if self.store.is_none() {
            return Err(IncomingError::Abandoned);
        }
        for (key, value) in rows {
            if key <= self.last {
                return Err(IncomingError::Order(key.escape_ascii().to_string()));
            }
            self.last = key.clone();
            self.row_bytes += ROW_OVERHEAD + key.len() + value.len();
            self.rows.push((key, value));
            if self.row_bytes >= TABLE_BYTES {
                self.write_table()?;
            }
        }
        Ok(())
    }

    /// Makes a table of what has been collected.
    fn write_table(&mut self) -> Result<(), IncomingError> {
        let store = self.store.as_ref().ok_or(IncomingError::Abandoned)?;
        let mut table = store.rows.start_ingestion()?;
        for (key, value) in self.rows.drain(..) {
            table.write(&key[..], &value[..])?;
        }
        self.row_bytes = 0;
        Ok(table.finish()?)
    }

    /// All rows are there: writes the last ones, and that the store began with the entry `base` (index and term). On
    /// return everything in the directory is durable; that the directory is in its parent,
    /// [`StorePlace::switch`](super::StorePlace::switch) sees to.
    pub fn finish(mut self, base: (u64, u64)) -> Result<FjallStore, IncomingError> {
        self.write_table()?;
        let store = self.store.take().ok_or(IncomingError::Abandoned)?;
        let finished = write_base(&store, base);
        if let Err(error) = finished {
            self.store = Some(store);
            return Err(error.into());
        }
        Ok(store)
    }

    /// Removes what has been received, as dropping it does.
    pub fn abandon(self) {
        drop(self);
    }

    fn give_up(&mut self) {
        self.rows = Vec::new();
        if let Some(store) = self.store.take() {
            // The engine's threads end with it, so nothing is written behind the removal.
            drop(store);
            self.remove();
        }
    }

    fn remove(&self) {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(dir = %self.dir.display(), %error, "a store that was not received to its end is left; the next start removes it");
            }
            _ => {}
        }
    }
}

fn write_base(store: &FjallStore, (index, term): (u64, u64)) -> Result<(), fjall::Error> {
    let (key, value) = base_row(index, term);
    let mut table = store.rows.start_ingestion()?;
    table.write(&key[..], &value[..])?;
    table.finish()?;
    // Tables are synced as they are finished, and with them the engine's list of them. Its journal holds none of the
    // rows, but says that there is a keyspace.
    store.database.persist(PersistMode::SyncAll)
}

impl Drop for IncomingStore {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use mooseng_meta::{BASE, MetaStore};

    use super::*;

    fn row(number: u32, value: usize) -> (Bytes, Bytes) {
        (format!("k{number:06}").into(), vec![number as u8; value].into())
    }

    fn stored(store: &FjallStore) -> Vec<(Bytes, Bytes)> {
        let mut rows = Vec::new();
        store.scan(b"", b"", &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            true
        });
        rows
    }

    #[test]
    fn what_was_received_is_there_after_a_restart_with_its_own_base() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("store-1");
        let mut incoming = IncomingStore::begin(&dir).unwrap();
        // Some tables' worth, with another store's base among them.
        let mut rows: Vec<_> = (0..300).map(|number| row(number, 100_000)).collect();
        rows.push((Bytes::from_static(&BASE), base_row(1, 1).1));
        for part in rows.chunks(7) {
            incoming.write(part.to_vec()).unwrap();
            assert!(incoming.row_bytes < TABLE_BYTES);
        }
        *rows.last_mut().unwrap() = base_row(70, 3);
        let store = incoming.finish((70, 3)).unwrap();
        assert!(stored(&store) == rows);
        drop(store);
        assert!(stored(&FjallStore::open(&dir).unwrap()) == rows);
    }

    #[test]
    fn rows_out_of_order_are_refused_and_nothing_is_left() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("store-1");
        for (first, second) in [(2, 1), (2, 2)] {
            let mut incoming = IncomingStore::begin(&dir).unwrap();
            incoming.write(vec![row(first, 9)]).unwrap();
            let error = incoming.write(vec![row(second, 9)]).unwrap_err();
            assert!(matches!(error, IncomingError::Order(_)), "{error}");
            assert!(!dir.exists());
            assert!(matches!(incoming.write(vec![row(3, 9)]), Err(IncomingError::Abandoned)));
            assert!(matches!(incoming.finish((1, 1)), Err(IncomingError::Abandoned)));
        }
        let mut incoming = IncomingStore::begin(&dir).unwrap();
        assert!(incoming.write(vec![(Bytes::new(), Bytes::new())]).is_err());
    }

    #[test]
    fn what_is_given_up_or_dropped_is_gone_and_what_was_there_is_not_taken() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("store-1");
        let mut incoming = IncomingStore::begin(&dir).unwrap();
        incoming.write(vec![row(1, 9)]).unwrap();
        assert!(matches!(IncomingStore::begin(&dir), Err(IncomingError::Exists(_))));
        assert!(dir.exists());
        incoming.abandon();
        assert!(!dir.exists());
        drop(IncomingStore::begin(&dir).unwrap());
        assert!(!dir.exists());
    }

    #[test]
    fn a_disk_that_does_not_take_the_rows_is_an_error_and_not_the_end() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("store-1");
        let mut incoming = IncomingStore::begin(&dir).unwrap();
        incoming.write(vec![row(1, 9)]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let error = incoming.write(vec![row(2, TABLE_BYTES)]).unwrap_err();
        assert!(matches!(error, IncomingError::Store(_)), "{error}");
        assert!(!dir.exists());
        // And where no directory can be made at all.
        fs::write(data.path().join("file"), b"").unwrap();
        assert!(IncomingStore::begin(&data.path().join("file/store-1")).is_err());
    }
}
