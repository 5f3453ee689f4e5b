//! What is measured: a directory, the processes behind it, and how to make its caches cold.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The processes whose CPU time and memory are counted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pids {
    pub(crate) servers: Vec<u32>,
    pub(crate) clients: Vec<u32>,
}

/// One side of a comparison.
pub(crate) trait Target {
    fn name(&self) -> &str;
    fn directory(&self) -> &Path;
    /// What has reached a disk when fsync, or a create, has returned.
    fn durability(&self) -> String;
    /// Asked before and after each phase: a remount changes them.
    fn pids(&self) -> Pids;
    /// Unmounts and mounts again, so that the client has nothing cached.
    fn remount(&mut self) -> Result<()>;
}

/// Any directory; its file system is not ours to restart, so only the kernel's caches can be dropped.
#[derive(Debug)]
pub(crate) struct Plain {
    name: String,
    directory: PathBuf,
}

impl Plain {
    pub(crate) fn new(directory: &Path) -> Result<Plain> {
        let directory = directory.canonicalize().with_context(|| format!("find {}", directory.display()))?;
        Ok(Plain { name: directory.display().to_string(), directory })
    }
}

impl Target for Plain {
    fn name(&self) -> &str {
        &self.name
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn durability(&self) -> String {
        "as the directory's file system has it; not remounted for cold figures".to_owned()
    }

    fn pids(&self) -> Pids {
        Pids::default()
    }

    fn remount(&mut self) -> Result<()> {
        Ok(())
    }
}
