//! `mooseng-master.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mooseng_env::config::{self, ConfigError};
use mooseng_env::secret::{self, Secret};
use mooseng_protocol::limits::TEXT_MAX;
use mooseng_types::{ClusterId, Levels, MasterId};
use serde::Deserialize;

use crate::core::{CoreConfig, DeskConfig, GroupConfig, Limits};
pub use crate::group::Peer;

/// The file as it is written. Every key may be left out; `examples/mooseng-master.toml` shows the defaults.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// For logs and status.
    pub name: String,
    /// This master's number in `peers`, from 1 to 65535.
    pub id: u64,
    /// Directory of the log and the store.
    pub data: PathBuf,
    /// Where clients, chunkservers and the other masters connect.
    pub listen: String,
    /// Where gRPC is served; empty: not at all.
    pub grpc_listen: String,
    /// 32 hexadecimal digits, the same in the whole cluster.
    pub cluster_id: String,
    /// File with the secret that masters and chunkservers share: 64 hexadecimal digits.
    pub key_file: PathBuf,
    /// In a new cluster: all its masters, this one included; they found the group together. Later: where to look for
    /// the group; who is in it, the group itself knows.
    pub peers: Vec<Peer>,
    /// Copies of a chunk.
    pub copies: u8,
    /// Time between heartbeats of the leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// Time without a leader after which an election begins: drawn between this and twice this, in milliseconds.
    pub election_ms: u64,
    /// Time without a word after which a client's session ends, in milliseconds.
    pub session_timeout_ms: u64,
    /// Time without a word after which a chunkserver's copies are made anew elsewhere, in milliseconds.
    pub repair_delay_ms: u64,
    /// How long a copy that is not wanted any more can be restored, in hours.
    pub quarantine_hours: u64,
    /// Memory for rows of the store, in bytes.
    pub cache_bytes: u64,
    /// Bytes of the Raft log kept, in memory and on disk, for masters that lag behind.
    pub log_keep_bytes: usize,
    /// The highest level that this master takes part in; unset for the highest that it knows.
    pub level_max: Option<u16>,
    /// Groups that this master hosts, the root's and others that nothing leads to yet: for measuring.
    pub cells: u16,
    /// Log as JSON.
    pub json_logs: bool,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            name: "master-1".into(),
            id: 1,
            data: "/var/lib/mooseng/master".into(),
            listen: "127.0.0.1:9421".into(),
            grpc_listen: String::new(),
            cluster_id: String::new(),
            key_file: "/etc/mooseng/cluster.key".into(),
            peers: Vec::new(),
            copies: 2,
            heartbeat_ms: 50,
            election_ms: 250,
            session_timeout_ms: 10_000,
            repair_delay_ms: 30_000,
            quarantine_hours: 24,
            cache_bytes: 32 << 20,
            log_keep_bytes: 32 << 20,
            level_max: None,
            cells: 1,
            json_logs: false,
        }
    }
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// For logs and status.
    pub name: String,
    /// This master's number.
    pub number: u16,
    /// Directory of the log and the store.
    pub data: PathBuf,
    /// Where clients, chunkservers and the other masters connect.
    pub listen: String,
    /// Where gRPC is served.
    pub grpc_listen: Option<String>,
    /// The cluster.
    pub cluster: ClusterId,
    /// The secret that masters and chunkservers share.
    pub secret: Secret,
    /// Masters of a new cluster, or where to look for the group; this one included, by number.
    pub peers: Vec<Peer>,
    /// Copies of a chunk.
    pub copies: u8,
    /// Time between heartbeats of the leader.
    pub heartbeat: Duration,
    /// The shortest election time-out.
    pub election: Duration,
    /// When a silent client's session ends.
    pub session_timeout: Duration,
    /// How patient and how eager repair is.
    pub repair: Limits,
    /// Memory for rows of the store.
    pub cache_bytes: u64,
    /// Bytes of the log kept for masters that lag behind.
    pub log_keep_bytes: usize,
    /// The levels that it takes part in.
    pub levels: Levels,
    /// How many cells' groups it hosts.
    pub cells: u16,
    /// Log as JSON.
    pub json_logs: bool,
}

impl Config {
    /// Reads and checks the file at `path`, and the key file it names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        config::load(path, |text| ConfigFile::parse(text)?.check())
    }

    /// What the core needs of it. `lost_group`: this master was in a group of which it has nothing any more.
    pub(crate) fn core(&self, id: MasterId, lost_group: bool) -> CoreConfig {
        let own = self.peers.iter().find(|peer| peer.id == id.number());
        CoreConfig {
            group: GroupConfig {
                id,
                name: self.name.clone(),
                address: own.map_or_else(|| self.listen.clone(), |peer| peer.address.clone()),
                peers: self.peers.clone(),
                heartbeat: self.heartbeat,
                election: self.election,
                log_keep_bytes: self.log_keep_bytes,
                levels: self.levels,
                lost_group,
            },
            desk: DeskConfig {
                cluster: self.cluster,
                copies: self.copies,
                session_timeout: self.session_timeout,
                repair: self.repair,
            },
        }
    }
}

impl ConfigFile {
    /// How patient and how eager repair is. A chunk with one copy left does not wait as long as others.
    fn repair(&self) -> Limits {
        let limits = Limits::default();
        let patience = Duration::from_millis(self.repair_delay_ms);
        let patience_in_danger = patience.min(limits.patience_in_danger);
        Limits { patience, patience_in_danger, quarantine_s: self.quarantine_hours * 3600, ..limits }
    }

    /// Reads the text of a file, and does not judge the values; the error names the line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        config::parse(text)
    }

    fn check(mut self) -> Result<Config, ConfigError> {
        if self.peers.is_empty() {
            self.peers.push(Peer { id: self.id, name: self.name.clone(), address: self.listen.clone() });
        }
        self.peers.sort_by_key(|peer| peer.id);
        let number = u16::try_from(self.id).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| ConfigError::value("id", "give 1 to 65535"))?;
        self.check_peers()?;
        let grpc = Some(&self.grpc_listen).filter(|address| !address.is_empty());
        let own = [("listen", &self.listen)].into_iter().chain(grpc.map(|address| ("grpc_listen", address)));
        for (key, address) in own.chain(self.peers.iter().map(|peer| ("address in peers", &peer.address))) {
            ensure(address.parse::<SocketAddr>().is_ok(), key, || {
                format!(
                    "{address:?} must be an IP address and a port, such as \"10.0.0.1:9421\" (host names are not looked up)"
                )
            })?;
        }
        ensure(grpc.is_none_or(|address| is_loopback(address)), "grpc_listen", || {
            "give an address of this machine alone, such as \"127.0.0.1:9431\": callers of gRPC prove nothing"
                .into()
        })?;
        let names = self.peers.iter().map(|peer| &peer.name).chain([&self.name]);
        ensure(names.map(String::len).max() <= Some(TEXT_MAX), "name", || {
            format!("give names of {TEXT_MAX} bytes at most")
        })?;
        ensure((1..=9).contains(&self.copies), "copies", || "give 1 to 9".into())?;
        ensure(self.heartbeat_ms >= 10, "heartbeat_ms", || "give at least 10".into())?;
        ensure(self.election_ms >= 3 * self.heartbeat_ms, "election_ms", || {
            "give at least three times heartbeat_ms".into()
        })?;
        let delay = || "give 5000 (5 s) to 604800000 (a week)".into();
        ensure((5000..=604_800_000).contains(&self.repair_delay_ms), "repair_delay_ms", delay)?;
        ensure(self.quarantine_hours <= 8760, "quarantine_hours", || "give at most 8760 (a year)".into())?;
        ensure(self.session_timeout_ms >= 1000, "session_timeout_ms", || "give at least 1000".into())?;
        let cluster = ClusterId::parse(&self.cluster_id).ok_or_else(|| {
            ConfigError::value(
                "cluster_id",
                "give 32 hexadecimal digits, the same for every part of the cluster",
            )
        })?;
        let repair = self.repair();
        Ok(Config {
            secret: Secret::load(&self.key_file, secret::REMEDY)?,
            name: self.name,
            number,
            data: self.data,
            listen: self.listen,
            grpc_listen: Some(self.grpc_listen).filter(|address| !address.is_empty()),
            cluster,
            peers: self.peers,
            copies: self.copies,
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            election: Duration::from_millis(self.election_ms),
            session_timeout: Duration::from_millis(self.session_timeout_ms),
            repair,
            cache_bytes: self.cache_bytes,
            log_keep_bytes: self.log_keep_bytes,
            levels: config::levels(self.level_max)?,
            cells: self.cells.max(1),
            json_logs: self.json_logs,
        })
    }

    fn check_peers(&self) -> Result<(), ConfigError> {
        ensure(self.peers.iter().any(|peer| peer.id == self.id), "peers", || {
            format!("list this master, id {}", self.id)
        })?;
        ensure(self.peers.windows(2).all(|two| two[0].id != two[1].id), "peers", || {
            "two have the same id: give each its own".into()
        })?;
        ensure(self.peers.len() <= 16, "peers", || "list 16 masters at most".into())
    }
}

fn is_loopback(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

fn ensure(holds: bool, key: &str, problem: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::value(key, problem())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_the_defaults() {
        let example: ConfigFile =
            ConfigFile::parse(include_str!("../../examples/mooseng-master.toml")).unwrap();
        assert_eq!(example, ConfigFile::default());
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = ConfigFile::parse("nmae = \"x\"").unwrap_err().to_string();
        assert!(unknown.contains("nmae"), "{unknown}");
        let check = |file: ConfigFile| file.check().unwrap_err().to_string();
        assert!(check(ConfigFile::default()).contains("cluster_id"));
        assert!(check(ConfigFile { copies: 0, ..ConfigFile::default() }).contains("copies"));
        assert!(check(ConfigFile { id: 65_536, ..ConfigFile::default() }).contains("65535"));
        let named = ConfigFile { listen: "moose.example:9421".into(), ..ConfigFile::default() };
        assert!(check(named).contains("listen: \"moose.example:9421\" must be an IP address"));
        let open = ConfigFile { grpc_listen: "0.0.0.0:9431".into(), ..ConfigFile::default() };
        assert!(check(open).contains("grpc_listen: give an address of this machine alone"));
        let other = vec![Peer { id: 2, ..Peer::default() }];
        assert!(check(ConfigFile { peers: other, ..ConfigFile::default() }).contains("this master"));
    }
}
