//! Which making of the masters' group this server obeys. Kept over restarts: masters that a group has been made anew
//! without may elect each other again, and would have chunks deleted that the present group needs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mooseng_env::Disk;
use mooseng_protocol::status::CallError;

use crate::server::StartError;

/// The highest epoch ever heard of, in `masters-epoch` of the server's directory: decimal digits and a line feed.
#[derive(Debug)]
pub(crate) struct Epoch {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    highest: Mutex<u64>,
}

impl Epoch {
    /// What an earlier process has noted in `data`; 0 if there was none.
    pub(crate) fn load(disk: Arc<dyn Disk>, data: &Path) -> Result<Self, StartError> {
        let path = data.join("masters-epoch");
        let damaged = || {
            let shown = path.display();
            StartError::config(format!(
                "{shown} is damaged: write the epoch into it that `mooseng cluster status` shows"
            ))
        };
        let highest = match disk.read_whole(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StartError::config(format!("{}: {error}", path.display()))),
            Ok(bytes) => {
                let digits = std::str::from_utf8(&bytes).ok().map(str::trim_end);
                digits.and_then(|digits| digits.parse().ok()).ok_or_else(damaged)?
            }
        };
        Ok(Self { disk, path, highest: Mutex::new(highest) })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.highest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn highest(&self) -> u64 {
        *self.lock()
    }

    /// Whoever says an epoch below one that was heard before is of a group that was made anew without it, and must not
    /// order anything. A higher one is durable before it counts. 0 is said by a master that is in no group yet.
    pub(crate) fn hear(&self, epoch: u64) -> Result<(), CallError> {
        let mut highest = self.lock();
        match epoch {
            0 => Ok(()),
            _ if epoch < *highest => {
                let message = "it is of a group of masters that was made anew without it".to_owned();
                Err(CallError::Rejected { message })
            }
            _ if epoch == *highest => Ok(()),
            _ => {
                let noted = self.disk.write_whole(&self.path, format!("{epoch}\n").as_bytes());
                noted.map_err(|error| CallError::Unavailable {
                    message: format!("{} cannot be written: {error}", self.path.display()),
                })?;
                *highest = epoch;
                Ok(())
            }
        }
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
        disk.set_capacity(0);
        assert!(matches!(epoch.hear(4), Err(CallError::Unavailable { .. })));
        assert_eq!(epoch.highest(), 3, "what is not durable does not count");
        epoch.hear(3).unwrap();
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
