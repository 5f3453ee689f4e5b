//! The configuration file. Everything in it is checked before anything is touched; every complaint is one line that says
//! what to do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mooseng_env::config::{self, ConfigError};
use mooseng_env::secret::{self, Secret};
use mooseng_types::{ClusterId, Labels, Levels};

/// The configuration of a chunkserver; `examples/mooseng-chunkserver.toml` explains each key.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name in logs and reports.
    pub name: String,
    /// The directory of this server's identity.
    pub data: PathBuf,
    /// The directories of chunks, each on a disk of its own.
    pub disks: Vec<PathBuf>,
    /// Where to serve; port 0 takes any free one.
    pub listen: String,
    /// What others are told to connect to; empty for the address it listens on.
    pub advertise: String,
    /// The masters.
    pub masters: Vec<String>,
    /// Of which cluster this server is a part, 32 hexadecimal digits; empty for the one it was a part of before.
    pub cluster_id: String,
    /// The file with the cluster's secret, 64 hexadecimal digits.
    pub key_file: PathBuf,
    /// Threads for each disk.
    pub io_threads_per_disk: usize,
    /// A disk with less free than this takes no new data.
    pub reserve_bytes: u64,
    /// The time of a pass in which all copies of a disk are read and checked, in days; 0 for no passes.
    pub scrub_days: u32,
    /// Copies fetched at once from other servers, for each disk; and so many of them are transferred at once.
    pub fetches: usize,
    /// Bytes per second that are fetched, in all; 0 for any number.
    pub fetch_bytes_per_s: u64,
    /// Log lines in JSON.
    pub json_logs: bool,
    /// Time between two reports to each master.
    pub heartbeat_ms: u64,
    /// What storage classes call this server by: capital letters, or words.
    pub labels: Vec<String>,
    /// The region that it stands in; empty for none.
    pub region: String,
    /// The rack that it stands in, within its region; empty for none.
    pub rack: String,
    /// The highest level that this server takes part in; unset for the highest that it knows.
    pub level_max: Option<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "chunkserver-1".into(),
            data: "/var/lib/mooseng/chunkserver".into(),
            disks: vec!["/var/lib/mooseng/chunks".into()],
            listen: "127.0.0.1:9422".into(),
            advertise: String::new(),
            masters: vec!["127.0.0.1:9421".into()],
            cluster_id: String::new(),
            key_file: "/etc/mooseng/cluster.key".into(),
            io_threads_per_disk: 4,
            reserve_bytes: 256 << 20,
            scrub_days: 7,
            fetches: 4,
            fetch_bytes_per_s: 0,
            json_logs: false,
            heartbeat_ms: 500,
            labels: Vec::new(),
            region: String::new(),
            rack: String::new(),
            level_max: None,
        }
    }
}

impl Config {
    /// Reads and checks a configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(text)?;
        config.check()?;
        Ok(config)
    }

    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        config::load(path, Self::parse)
    }

    /// Checks what can be checked without touching anything.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, problem: String| Err(ConfigError::value(key, problem));
        if self.name.is_empty() || self.name.len() > 255 {
            return bad("name", "give a name of 1 to 255 bytes".into());
        }
        if self.disks.is_empty() || self.disks.len() > 256 {
            return bad("disks", "name 1 to 256 directories for chunks".into());
        }
        for (i, disk) in self.disks.iter().enumerate() {
            if !disk.is_absolute() {
                return bad("disks", format!("{} must be an absolute path", disk.display()));
            }
            if self.disks[..i].contains(disk) || *disk == self.data {
                return bad("disks", format!("{} is named twice, remove one", disk.display()));
            }
        }
        for (key, address) in [("listen", &self.listen), ("advertise", &self.advertise)] {
            let may_be_empty = key == "advertise";
            if !(is_address(address) || may_be_empty && address.is_empty()) {
                return bad(key, format!("\"{address}\" is not host:port"));
            }
        }
        if let Some(master) = self.masters.iter().find(|master| !is_address(master)) {
            return bad("masters", format!("\"{master}\" is not host:port"));
        }
        if self.masters.len() > 16 {
            return bad("masters", "a cluster has at most 16".into());
        }
        if !self.cluster_id.is_empty() && ClusterId::parse(&self.cluster_id).is_none() {
            return bad("cluster_id", "give the 32 hexadecimal digits that the master shows".into());
        }
        if let Err(error) = Labels::parse(&self.labels) {
            return bad("labels", error.to_string());
        }
        for (key, place) in [("region", &self.region), ("rack", &self.rack)] {
            if place.len() > 255 {
                return bad(key, "give at most 255 bytes".into());
            }
        }
        if !(1..=64).contains(&self.io_threads_per_disk) {
            return bad("io_threads_per_disk", "give 1 to 64".into());
        }
        if !(10..=60_000).contains(&self.heartbeat_ms) {
            return bad("heartbeat_ms", "give 10 to 60000".into());
        }
        if self.scrub_days > 365 {
            return bad("scrub_days", "give 1 to 365, or 0 for no passes".into());
        }
        if !(1..=64).contains(&self.fetches) {
            return bad("fetches", "give 1 to 64".into());
        }
        self.levels().map(|_| ())
    }

    /// The levels that it takes part in.
    pub(crate) fn levels(&self) -> Result<Levels, ConfigError> {
        config::levels(self.level_max)
    }

    /// The time of a pass; `None` if there are to be none.
    pub(crate) fn scrub_period(&self) -> Option<Duration> {
        (self.scrub_days > 0).then(|| Duration::from_secs(u64::from(self.scrub_days) * 86_400))
    }

    /// Where others reach a server that listens at `own`.
    pub(crate) fn advertised(&self, own: SocketAddr) -> String {
        if self.advertise.is_empty() { own.to_string() } else { self.advertise.clone() }
    }

    /// The cluster's secret.
    pub(crate) fn read_key(&self) -> Result<Secret, ConfigError> {
        Secret::load(&self.key_file, secret::REMEDY)
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_says_what_the_defaults_are() {
        let example = include_str!("../../examples/mooseng-chunkserver.toml");
        assert_eq!(Config::parse(example).unwrap(), Config::default());
    }

    #[test]
    fn a_bad_configuration_is_refused_in_one_line_that_names_the_key() {
        for (text, expected) in [
            ("nmae = 'x'", "unknown field `nmae`"),
            ("\nname = 7", "line 2"),
            ("listen = 'here'", "listen: \"here\" is not host:port"),
            ("disks = []", "disks: name 1"),
            ("disks = ['/a', '/a']", "named twice"),
            ("disks = ['a']", "absolute"),
            ("masters = ['m']", "masters:"),
            ("cluster_id = 'xyz'", "cluster_id:"),
            ("io_threads_per_disk = 0", "io_threads_per_disk:"),
            ("heartbeat_ms = 1", "heartbeat_ms:"),
            ("scrub_days = 366", "scrub_days:"),
            ("fetches = 0", "fetches:"),
            ("name = ''", "name:"),
            ("labels = ['SSD']", "labels: \"SSD\" is no label"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
