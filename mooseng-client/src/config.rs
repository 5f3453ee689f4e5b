//! What a mount, or a program that uses the library, may choose.

use std::path::{Path, PathBuf};

use mooseng_env::config::{self, ConfigError};
use mooseng_env::secret::Secret;
use mooseng_protocol::principal::PrincipalKey;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{ClusterId, Levels};
use serde::Deserialize;

/// What a returned `fsync` promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsyncMode {
    /// The data is on the disks of every live copy.
    Disk,
    /// The data is in the memory of every live copy, as MooseFS has it: a power cut of all of them loses it.
    Memory,
}

/// What the kernel is told about a mount. Without them devices on it do nothing and programs get no rights of their
/// owner's (`nodev`, `nosuid`, see `mount(8)`), which is what a file system that others can write to should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountFlag {
    /// Device files are devices.
    Dev,
    /// Set-user-id and set-group-id bits count.
    Suid,
    /// Nothing is changed: as [`ClientConfig::read_only`].
    Ro,
    /// No program on it is run.
    NoExec,
    /// Reading changes no access time.
    NoAtime,
}

/// The settings of a client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientConfig {
    /// How this client calls itself in the masters' logs.
    pub name: String,
    /// The masters, "host:port" each; any one that answers is enough to begin.
    pub masters: Vec<String>,
    /// Where the file system appears.
    pub mount_point: PathBuf,
    /// The cluster to insist on, 32 hexadecimal digits; empty to accept the masters' own.
    pub cluster_id: String,
    /// The file with the key of the cluster's clients, 64 hexadecimal digits.
    pub client_key_file: PathBuf,
    /// What `fsync` promises.
    pub fsync: FsyncMode,
    /// Threads that serve the kernel.
    pub threads: usize,
    /// Written bytes that may wait in memory; beyond them writers wait.
    pub write_buffer_bytes: usize,
    /// Bytes read ahead of programs that may wait in memory; 0 switches reading ahead off.
    pub read_ahead_bytes: usize,
    /// How long the kernel may believe attributes, in milliseconds.
    pub attr_timeout_ms: u64,
    /// How long the kernel may believe names, in milliseconds.
    pub entry_timeout_ms: u64,
    /// How long an operation is tried before it fails with `EIO`, in milliseconds.
    pub retry_ms: u64,
    /// Lets users other than the one who mounts in; always so for root.
    pub allow_other: bool,
    /// Refuses every change.
    pub read_only: bool,
    /// What the kernel is told about the mount.
    pub options: Vec<MountFlag>,
    /// The highest level that this client takes part in; unset for the highest that it knows.
    pub level_max: Option<u16>,
    /// Logs as JSON.
    pub json_logs: bool,
    /// What there can be only one of at a time, such as a mount point of a machine: when it connects, the session that
    /// the one before left behind ends at once. Empty for a client that leaves nothing behind. Not in the file.
    #[serde(skip)]
    pub instance: String,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            name: "mount".into(),
            masters: vec!["127.0.0.1:9421".into()],
            mount_point: "/mnt/mooseng".into(),
            cluster_id: String::new(),
            client_key_file: "/etc/mooseng/client.key".into(),
            fsync: FsyncMode::Disk,
            threads: 8,
            write_buffer_bytes: 64 << 20,
            read_ahead_bytes: 64 << 20,
            attr_timeout_ms: 1000,
            entry_timeout_ms: 1000,
            retry_ms: 60_000,
            allow_other: false,
            read_only: false,
            options: vec![MountFlag::NoAtime],
            level_max: None,
            json_logs: false,
            instance: String::new(),
        }
    }
}

/// The least write buffer: a few full pieces, so that one writer cannot block itself.
const WRITE_BUFFER_MIN: usize = 4 << 20;
/// Each thread of fuser reserves 16 MiB of address space.
const THREADS_MAX: usize = 64;

impl ClientConfig {
    /// Reads and checks a TOML text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = config::parse(text)?;
        config.read_only |= config.options.contains(&MountFlag::Ro);
        config.check()?;
        Ok(config)
    }

    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        config::load(path, Self::parse)
    }

    /// Checks that the values make sense together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, problem: String| Err(ConfigError::value(key, problem));
        if self.masters.is_empty() {
            return bad("masters", "name at least one, as \"host:port\"".into());
        }
        if let Some(wrong) = self.masters.iter().find(|address| !has_port(address)) {
            return bad("masters", format!("{wrong:?} is not \"host:port\""));
        }
        if !self.cluster_id.is_empty() && ClusterId::parse(&self.cluster_id).is_none() {
            return bad("cluster_id", "32 hexadecimal digits, or leave it empty".into());
        }
        if self.threads == 0 || self.threads > THREADS_MAX {
            return bad("threads", format!("1 to {THREADS_MAX}"));
        }
        if self.write_buffer_bytes < WRITE_BUFFER_MIN {
            return bad("write_buffer_bytes", format!("at least {WRITE_BUFFER_MIN}"));
        }
        config::levels(self.level_max).map(|_| ())
    }

    /// Reads the key that proves that this is a client of the cluster.
    pub fn read_key(&self) -> Result<PrincipalKey, ConfigError> {
        const REMEDY: &str =
            "make it from the cluster's key with `mooseng key client`, or correct client_key_file";
        Ok(PrincipalKey::new(Secret::load(&self.client_key_file, REMEDY)?.bytes()))
    }

    /// The levels that it takes part in. Those of a configuration that was not [checked](ClientConfig::check) may be more than
    /// it asks for.
    pub(crate) fn levels(&self) -> Levels {
        config::levels(self.level_max).unwrap_or(SUPPORTED)
    }

    /// The cluster to insist on; zero for any.
    pub(crate) fn cluster(&self) -> ClusterId {
        ClusterId::parse(&self.cluster_id).unwrap_or(ClusterId::from_bytes([0; 16]))
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_says_what_the_defaults_are() {
        let example = include_str!("../../examples/mooseng-mount.toml");
        assert_eq!(ClientConfig::parse(example).unwrap(), ClientConfig::default());
    }

    #[test]
    fn a_mount_is_read_only_by_either_word() {
        for text in ["options = [\"ro\"]", "read_only = true"] {
            assert!(ClientConfig::parse(text).unwrap().read_only, "{text}");
        }
        assert!(!ClientConfig::parse("options = [\"suid\", \"noexec\"]").unwrap().read_only);
    }

    #[test]
    fn nonsense_is_named() {
        for (text, says) in [
            ("mastres = []", "mastres"),
            ("masters = []", "masters"),
            ("masters = [\"host\"]", "host:port"),
            ("threads = 0", "threads"),
            ("cluster_id = \"xyz\"", "cluster_id"),
            ("write_buffer_bytes = 1", "write_buffer_bytes"),
            ("fsync = \"never\"", "never"),
            ("options = [\"exec\"]", "exec"),
        ] {
            let error = ClientConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
