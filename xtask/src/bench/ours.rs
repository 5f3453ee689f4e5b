//! Our side of a comparison: a release-built cluster of three masters and six chunkservers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::FsyncMode;
use super::target::{Pids, Target};
use crate::cluster::{Cluster, Options};
use crate::test;

/// Ports of one cluster.
const PORTS: u16 = 100;

pub(crate) struct Ours {
    name: &'static str,
    cluster: Cluster,
    mode: FsyncMode,
}

/// This tree, built.
pub(crate) fn start(root: &Path, scratch: &Path, port_base: u16, mode: FsyncMode) -> Result<Ours> {
    start_binary("mooseng", test::build(root, true)?, scratch, port_base, mode)
}

/// Another build of `mooseng`, beside this one.
pub(crate) fn start_other(binary: &Path, scratch: &Path, port_base: u16, mode: FsyncMode) -> Result<Ours> {
    let binary = fs::canonicalize(binary).with_context(|| format!("find {}", binary.display()))?;
    start_binary("other", binary, scratch, port_base + PORTS, mode)
}

fn start_binary(
    name: &'static str,
    binary: PathBuf,
    scratch: &Path,
    port_base: u16,
    mode: FsyncMode,
) -> Result<Ours> {
    let (data, mount) = (scratch.join(name).join("data"), scratch.join(name).join("mnt"));
    let options = Options { binary, data, mount, port_base, masters: 3, chunkservers: 6 };
    let mut cluster = Cluster::start(&options)?;
    let config = cluster.data().join("mount/config.toml");
    let text = fs::read_to_string(&config).with_context(|| format!("read {}", config.display()))?;
    fs::write(&config, with_fsync(&text, mode))?;
    cluster.remount()?;
    Ok(Ours { name, cluster, mode })
}

/// The configuration with the key `fsync` set; a key of the top level, so it stands before the first table.
fn with_fsync(text: &str, mode: FsyncMode) -> String {
    let value = match mode {
        FsyncMode::Disk => "disk",
        FsyncMode::Memory => "memory",
    };
    let is_fsync = |line: &&str| line.split('=').next().is_some_and(|key| key.trim() == "fsync");
    let rest: Vec<&str> = text.lines().filter(|line| !is_fsync(line)).collect();
    format!("fsync = \"{value}\"\n{}\n", rest.join("\n"))
}

impl Target for Ours {
    fn name(&self) -> &str {
        self.name
    }

    fn directory(&self) -> &Path {
        self.cluster.mount_point()
    }

    fn durability(&self) -> String {
        let data = match self.mode {
            FsyncMode::Disk => "fsync returns when the data is on the disks of all live copies",
            FsyncMode::Memory => "fsync returns when the data is in the memory of all live copies",
        };
        format!(
            "3 masters, 6 chunkservers; metadata on the disks of a majority before it is acknowledged; {data}"
        )
    }

    fn pids(&self) -> Pids {
        let (clients, servers): (Vec<_>, Vec<_>) =
            self.cluster.pids().into_iter().partition(|(name, _)| name == "mount");
        let numbers = |pids: Vec<(String, u32)>| pids.into_iter().map(|(_, pid)| pid).collect();
        Pids { servers: numbers(servers), clients: numbers(clients) }
    }

    fn remount(&mut self) -> Result<()> {
        self.cluster.remount()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_set_once_and_before_the_first_table() {
        let text = with_fsync("point = \"x\"\nfsync = \"disk\"\n[tls]\nfsync_count = 1\n", FsyncMode::Memory);
        assert_eq!(text, "fsync = \"memory\"\npoint = \"x\"\n[tls]\nfsync_count = 1\n");
    }
}
