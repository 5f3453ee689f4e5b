//! Which making of the masters' group this server obeys. Kept over restarts: masters that a group has been made anew
//! without may elect each other again, and would have chunks deleted that the present group needs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mooseng_env::Disk;
use mooseng_protocol::status::CallError;

use crate::start::StartError;

/// The highest epoch ever heard of, in `masters-epoch` of the server's directory: decimal digits and a line feed.
#[derive(Debug)]
pub(crate) struct Epoch {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    heard: Mutex<Heard>,
}

#[derive(Debug)]
struct Heard {
    highest: u64,
    /// What the file says; less while it cannot be written.
    noted: u64,
}

impl Epoch {
    /// What an earlier process has noted in `data`; 0 if there was none.
    pub(crate) fn load(disk: Arc<dyn Disk>, data: &Path) -> Result<Self, StartError> {
        let path = data.join("masters-epoch");
        let damaged = || {
            let shown = path.display();
            StartError::named(format!(
                "{shown} is damaged: write the epoch into it that `mooseng cluster status` shows"
            ))
        };
        let highest = match disk.read_whole(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StartError::named(format!("{}: {error}", path.display()))),
            Ok(bytes) => {
                let digits = std::str::from_utf8(&bytes).ok().map(str::trim_end);
                digits.and_then(|digits| digits.parse().ok()).ok_or_else(damaged)?
            }
        };
        Ok(Self { disk, path, heard: Mutex::new(Heard { highest, noted: highest }) })
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn highest(&self) -> u64 {
        self.lock().highest
    }

    /// Whoever says an epoch below one that was heard before is of a group that was made anew without it, and must not
    /// order anything. 0 is said by a master that is in no group yet. A disk without room for the note keeps nobody from
    /// being obeyed, who may have chunks deleted; it is tried again at every heartbeat.
    pub(crate) fn hear(&self, epoch: u64) -> Result<(), CallError> {
        let mut heard = self.lock();
        if epoch != 0 && epoch < heard.highest {
            let message = "it is of a group of masters that was made anew without it".to_owned();
            return Err(CallError::Rejected { message });
        }
        let is_new = epoch > heard.highest;
        heard.highest = heard.highest.max(epoch);
        if heard.noted < heard.highest {
            match self.disk.write_whole(&self.path, format!("{}\n", heard.highest).as_bytes()) {
                Ok(()) => heard.noted = heard.highest,
                Err(error) if is_new => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "the masters' epoch is not written down; trying on. Until then a restart forgets it");
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mooseng_env::MemoryDisk;

    use super::*;

    #[test]
    fn a_group_that_was_replaced_is_not_obeyed_after_a_restart_either() {
        let disk = MemoryDisk::new(1 << 20);
        let data = Path::new("/data");
        disk.create_dir_all(data).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let load = || Epoch::load(Arc::new(disk.clone()), data).unwrap();
        let epoch = load();
        for heard in [0, 1, 1, 3, 0] {
            epoch.hear(heard).unwrap();
        }
        disk.power_cut(|| false);
        let epoch = load();
        assert_eq!(epoch.highest(), 3);
        assert!(matches!(epoch.hear(2), Err(CallError::Rejected { .. })));
    }

    #[test]
    fn a_disk_without_room_for_the_note_keeps_no_master_away_and_gets_it_later() {
        let disk = MemoryDisk::new(1 << 20);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let load = || Epoch::load(Arc::new(disk.clone()), Path::new("/data")).unwrap();
        let epoch = load();
        disk.set_capacity(0);
        epoch.hear(4).unwrap();
        assert!(matches!(epoch.hear(3), Err(CallError::Rejected { .. })));
        assert_eq!(load().highest(), 0);
        disk.set_capacity(1 << 20);
        epoch.hear(4).unwrap();
        assert_eq!(load().highest(), 4);
    }

    #[test]
    fn a_damaged_note_is_named() {
        let disk = MemoryDisk::new(1 << 20);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.write_whole(Path::new("/data/masters-epoch"), b"three\n").unwrap();
        let error = Epoch::load(Arc::new(disk), Path::new("/data")).unwrap_err().to_string();
        assert!(error.contains("/data/masters-epoch is damaged"), "{error}");
    }
}
