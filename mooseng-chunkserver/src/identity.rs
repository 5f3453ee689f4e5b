//! Who this server is, and whose its disks are: written once, checked at every start, so that two servers or two
//! clusters never share a disk.

use std::io;
use std::path::Path;

use mooseng_env::daemon::DirLock;
use mooseng_env::{Disk, Entropy};
use mooseng_types::ClusterId;

use crate::start::StartError;

/// A random number of 16 bytes that a server keeps for good; printed like a cluster's id.
pub(crate) type ServerUuid = ClusterId;

/// The file in a directory of chunks that says whose it is, and which disk: a disk without it, or with another one, is
/// not the one that was claimed.
pub(crate) const IDENTITY_FILE: &str = "identity";

/// Who this server is.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The server.
    pub(crate) uuid: ServerUuid,
    /// Its cluster.
    pub(crate) cluster: ClusterId,
    _lock: DirLock,
}

impl Identity {
    /// Reads the identity in `data`, or makes it there. `configured` is the cluster of the configuration, if it names one.
    pub(crate) fn load(
        disk: &dyn Disk,
        entropy: &dyn Entropy,
        data: &Path,
        configured: Option<ClusterId>,
    ) -> Result<Self, StartError> {
        let lock = lock(disk, data)?;
        let cluster = match (read_id(disk, &data.join("cluster-id"))?, configured) {
            (Some(known), Some(other)) if known != other => {
                return Err(StartError::named(format!(
                    "data: {} belongs to cluster {known}, cluster_id says {other}: correct one of them",
                    data.display()
                )));
            }
            (Some(known), _) => known,
            (None, Some(new)) => {
                write_id(disk, &data.join("cluster-id"), new)?;
                new
            }
            (None, None) => {
                let what = "cluster_id: needed at the first start, give the digits that the master shows";
                return Err(StartError::named(what.into()));
            }
        };
        let uuid_path = data.join("server-uuid");
        let uuid = match read_id(disk, &uuid_path)? {
            Some(uuid) => uuid,
            None => {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes);
                let uuid = ServerUuid::from_bytes(bytes);
                write_id(disk, &uuid_path, uuid)?;
                uuid
            }
        };
        Ok(Self { uuid, cluster, _lock: lock })
    }

    /// Takes a directory of chunks: a new one is marked as this server's, another server's is refused.
    pub(crate) fn claim_disk(
        &self,
        disk: &dyn Disk,
        entropy: &dyn Entropy,
        root: &Path,
    ) -> Result<DirLock, StartError> {
        let lock = lock(disk, root)?;
        mark_disk(disk, entropy, root, self.cluster, self.uuid)?;
        Ok(lock)
    }
}

/// Marks a new directory of chunks with its cluster, its server and a number of its own; one that is marked already must
/// belong to both.
pub(crate) fn mark_disk(
    disk: &dyn Disk,
    entropy: &dyn Entropy,
    root: &Path,
    cluster: ClusterId,
    server: ServerUuid,
) -> Result<(), StartError> {
    let path = root.join(IDENTITY_FILE);
    let mine = format!("mooseng chunks, format 1\ncluster {cluster}\nserver {server}\ndisk ");
    let shown = root.display();
    match disk.read_whole(&path) {
        Ok(found) if found.starts_with(mine.as_bytes()) => Ok(()),
        Ok(found) => {
            let found = String::from_utf8_lossy(&found);
            let whose = if !found.starts_with("mooseng chunks, format 1\n") {
                "is not a chunk directory that this release knows"
            } else if found.contains(&format!("cluster {cluster}\n")) {
                "belongs to another server"
            } else {
                "belongs to another cluster"
            };
            Err(StartError::named(format!(
                "disks: {shown} {whose}: name the right directory, or one that is empty"
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let entries = disk.list(root).map_err(|error| trouble(root, &error))?;
            let foreign = entries.iter().find(|entry| {
                !["lock", "lost+found", "identity.tmp"].iter().any(|known| entry.ends_with(known))
            });
            if let Some(foreign) = foreign {
                return Err(StartError::named(format!(
                    "disks: {shown} is not empty ({}) and no chunk directory: name one that is empty",
                    foreign.display()
                )));
            }
            let mut number = [0; 16];
            entropy.fill(&mut number);
            let mark = format!("{mine}{}\n", ClusterId::from_bytes(number));
            disk.write_whole(&path, mark.as_bytes()).map_err(|error| trouble(root, &error))
        }
        Err(error) => Err(trouble(&path, &error)),
    }
}

fn lock(disk: &dyn Disk, directory: &Path) -> Result<DirLock, StartError> {
    disk.create_dir_all(directory).map_err(|error| trouble(directory, &error))?;
    DirLock::take(directory).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StartError::named(format!(
            "{} is in use by another process: stop that one, or name another directory",
            directory.display()
        )),
        _ => trouble(directory, &error),
    })
}

fn trouble(path: &Path, error: &io::Error) -> StartError {
    StartError::named(format!("{}: {error}: make it a directory that this user may write to", path.display()))
}

fn read_id(disk: &dyn Disk, path: &Path) -> Result<Option<ClusterId>, StartError> {
    match disk.read_whole(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trouble(path, &error)),
        Ok(bytes) => {
            let id = std::str::from_utf8(&bytes).ok().and_then(|text| ClusterId::parse(text.trim()));
            id.map(Some).ok_or_else(|| {
                let shown = path.display();
                StartError::named(format!(
                    "{shown} is damaged: restore it from a backup, or begin a new server"
                ))
            })
        }
    }
}

fn write_id(disk: &dyn Disk, path: &Path, id: ClusterId) -> Result<(), StartError> {
    disk.write_whole(path, format!("{id}\n").as_bytes()).map_err(|error| trouble(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mooseng_env::{FsDisk, SystemEntropy};

    fn load(data: &Path, cluster: Option<u8>) -> Result<Identity, StartError> {
        Identity::load(&FsDisk, &SystemEntropy, data, cluster.map(|byte| ClusterId::from_bytes([byte; 16])))
    }

    #[test]
    fn an_identity_is_made_once_and_stays_with_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path(), None).unwrap_err().to_string().contains("cluster_id"));
        let first = load(dir.path(), Some(1)).unwrap();
        assert!(load(dir.path(), Some(1)).unwrap_err().to_string().contains("in use by another process"));
        let uuid = first.uuid;
        drop(first);
        assert_eq!(load(dir.path(), None).unwrap().uuid, uuid);
        assert!(load(dir.path(), Some(2)).unwrap_err().to_string().contains("belongs to cluster 0101"));
    }

    #[test]
    fn a_disk_belongs_to_one_server_of_one_cluster() {
        let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
        let (mine, other, foreign) = (
            load(dirs[0].path(), Some(1)).unwrap(),
            load(dirs[1].path(), Some(1)).unwrap(),
            load(dirs[2].path(), Some(2)).unwrap(),
        );
        let disk = dirs[3].path();
        let claim = |identity: &Identity| identity.claim_disk(&FsDisk, &SystemEntropy, disk);
        drop(claim(&mine).unwrap());
        let mark = std::fs::read(disk.join(IDENTITY_FILE)).unwrap();
        drop(claim(&mine).unwrap());
        assert_eq!(std::fs::read(disk.join(IDENTITY_FILE)).unwrap(), mark, "made once");
        let claim = |identity: &Identity| claim(identity).unwrap_err().to_string();
        assert!(claim(&other).contains("belongs to another server"));
        assert!(claim(&foreign).contains("belongs to another cluster"));
        let strange = tempfile::tempdir().unwrap();
        std::fs::write(strange.path().join("holiday.jpg"), b"x").unwrap();
        let error = mine.claim_disk(&FsDisk, &SystemEntropy, strange.path()).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
    }
}
