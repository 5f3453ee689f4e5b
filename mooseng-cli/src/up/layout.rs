//! What a cluster on one machine consists of, kept in `DATA/cluster.toml`, and the configurations made from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use mooseng_env::secret::{self, Secret};
use mooseng_env::{Entropy as _, SystemEntropy, nonce};
use mooseng_protocol::principal::{Keyring, Role};
use mooseng_types::ClusterId;
use serde::{Deserialize, Serialize};

/// A part with its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Where a master serves gRPC; empty elsewhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) grpc_address: String,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    pub(crate) cluster_id: String,
    pub(crate) copies: u8,
    pub(crate) masters: Vec<Part>,
    pub(crate) chunkservers: Vec<Part>,
}

/// What was asked for on the command line.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) masters: Option<u64>,
    pub(crate) chunkservers: Option<u64>,
    pub(crate) copies: Option<u8>,
    pub(crate) port_base: Option<u16>,
}

const PORT_BASE: u16 = 9421;

/// The cluster's key, in its directory; masters and chunkservers have it.
const CLUSTER_KEY: &str = "cluster.key";
/// The key of mounts.
const CLIENT_KEY: &str = "client.key";
/// The key of the command line.
pub(crate) const ADMIN_KEY: &str = "admin.key";

impl Layout {
    /// The cluster kept in `data`; `None` if there is none.
    pub(crate) fn load(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = data.join("cluster.toml");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(toml::from_str(&text).with_context(|| format!("parse {}", path.display()))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// The cluster kept in `data`, or a new one as wanted. What is wanted otherwise than it is there is an error, not a
    /// surprise.
    pub(crate) fn load_or_make(data: &Path, wanted: &Wanted) -> anyhow::Result<Self> {
        let Some(layout) = Self::load(data)? else {
            return Self::make(data, wanted);
        };
        let (masters, chunkservers) = (layout.masters.len() as u64, layout.chunkservers.len() as u64);
        let dir = data.display();
        ensure!(
            wanted.masters.is_none_or(|n| n == masters)
                && wanted.chunkservers.is_none_or(|n| n == chunkservers),
            "{dir} holds a cluster of {masters} masters and {chunkservers} chunkservers: leave the numbers out, or use another --data"
        );
        ensure!(
            wanted.copies.is_none_or(|n| n == layout.copies),
            "{dir} holds a cluster with {} copies: leave --copies out, or use another --data",
            layout.copies
        );
        Ok(layout)
    }

    fn make(data: &Path, wanted: &Wanted) -> anyhow::Result<Self> {
        let masters = wanted.masters.unwrap_or(3);
        let chunkservers = wanted.chunkservers.unwrap_or(6);
        let copies = wanted.copies.unwrap_or(2);
        ensure!(masters % 2 == 1 && masters <= 7, "--masters must be 1, 3, 5 or 7");
        ensure!((1..=64).contains(&chunkservers), "--chunkservers must be 1 to 64");
        ensure!((1..=9).contains(&copies), "--copies must be 1 to 9");
        let base = wanted.port_base.unwrap_or(PORT_BASE);
        ensure!(base <= u16::MAX - 200, "--port-base must leave 200 ports above it");
        let part = |kind: &str, number: u64, port: u64, grpc: Option<u64>| Part {
            name: format!("{kind}-{number}"),
            address: format!("127.0.0.1:{}", u64::from(base) + port),
            grpc_address: grpc
                .map_or_else(String::new, |port| format!("127.0.0.1:{}", u64::from(base) + port)),
        };
        let mut id = [0; 16];
        SystemEntropy.fill(&mut id);
        let layout = Self {
            cluster_id: ClusterId::from_bytes(id).to_string(),
            copies,
            masters: (1..=masters).map(|n| part("master", n, n - 1, Some(n + 9))).collect(),
            chunkservers: (1..=chunkservers).map(|n| part("chunkserver", n, n + 19, None)).collect(),
        };
        save(&Secret::take(&mut nonce()), &data.join(CLUSTER_KEY))?;
        // Last, because it is what says that the cluster exists.
        write(&data.join("cluster.toml"), &toml::to_string(&layout)?)?;
        Ok(layout)
    }

    /// The keys that follow from the cluster's.
    pub(crate) fn keys(&self, data: &Path) -> anyhow::Result<Keyring> {
        Ok(Keyring::derive(Secret::load(&data.join(CLUSTER_KEY), secret::REMEDY)?.bytes()))
    }

    /// Writes the keys of clients and of the administrator, which are made from the cluster's.
    pub(crate) fn write_keys(&self, data: &Path) -> anyhow::Result<()> {
        let keys = self.keys(data)?;
        for (role, name) in [(Role::Client, CLIENT_KEY), (Role::Admin, ADMIN_KEY)] {
            save(&Secret::take(&mut keys.of(role).bytes().clone()), &data.join(name))?;
        }
        Ok(())
    }

    /// Writes the configuration of each part that has none yet, and the mount's where the mount point has moved. One of a
    /// release without keys is told where the mount's is.
    pub(crate) fn write_configs(&self, data: &Path, mount: &Path) -> anyhow::Result<()> {
        for (number, part) in (1..).zip(&self.masters) {
            self.write_config(data, &part.name, &self.master_config(data, number, part)?)?;
        }
        for part in &self.chunkservers {
            let disk = data.join(&part.name).join("disk");
            fs::create_dir_all(&disk).with_context(|| format!("make {}", disk.display()))?;
            self.write_config(data, &part.name, &self.chunkserver_config(data, part, disk)?)?;
        }
        let path = config_path(data, "mount");
        let found = fs::read_to_string(&path).unwrap_or_default();
        let kept = toml::from_str::<Kept>(&found).ok().filter(|kept| kept.mount_point == mount);
        match kept {
            Some(Kept { client_key_file: Some(_), .. }) => Ok(()),
            Some(Kept { client_key_file: None, .. }) => {
                let key = toml::to_string(&ClientKey { client_key_file: data.join(CLIENT_KEY) })?;
                write(&path, &format!("{key}{found}"))
            }
            None => {
                fs::create_dir_all(data.join("mount"))
                    .with_context(|| format!("make {}", data.join("mount").display()))?;
                write(&path, &self.mount_config(data, mount)?)
            }
        }
    }

    fn write_config(&self, data: &Path, name: &str, text: &str) -> anyhow::Result<()> {
        let path = config_path(data, name);
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(data.join(name)).with_context(|| format!("make {}", data.join(name).display()))?;
        write(&path, text)
    }

    fn addresses(&self) -> Vec<String> {
        self.masters.iter().map(|master| master.address.clone()).collect()
    }

    fn master_config(&self, data: &Path, id: u64, part: &Part) -> anyhow::Result<String> {
        let peers = (1..).zip(&self.masters);
        let peers =
            peers.map(|(id, peer)| Peer { id, name: peer.name.clone(), address: peer.address.clone() });
        Ok(toml::to_string(&MasterConfig {
            name: part.name.clone(),
            id,
            data: data.join(&part.name),
            listen: part.address.clone(),
            grpc_listen: part.grpc_address.clone(),
            cluster_id: self.cluster_id.clone(),
            key_file: data.join(CLUSTER_KEY),
            copies: self.copies,
            peers: peers.collect(),
        })?)
    }

    fn chunkserver_config(&self, data: &Path, part: &Part, disk: PathBuf) -> anyhow::Result<String> {
        Ok(toml::to_string(&ChunkserverConfig {
            name: part.name.clone(),
            data: data.join(&part.name),
            disks: vec![disk],
            listen: part.address.clone(),
            masters: self.addresses(),
            cluster_id: self.cluster_id.clone(),
            key_file: data.join(CLUSTER_KEY),
        })?)
    }

    fn mount_config(&self, data: &Path, mount: &Path) -> anyhow::Result<String> {
        Ok(toml::to_string(&MountConfig {
            name: "mount".into(),
            masters: self.addresses(),
            mount_point: mount.to_owned(),
            cluster_id: self.cluster_id.clone(),
            client_key_file: data.join(CLIENT_KEY),
            allow_other: rustix::process::geteuid().is_root(),
        })?)
    }
}

/// Where a part's configuration is.
pub(crate) fn config_path(data: &Path, name: &str) -> PathBuf {
    data.join(name).join("config.toml")
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn save(secret: &Secret, path: &Path) -> anyhow::Result<()> {
    secret.save(path).with_context(|| format!("write {}", path.display()))
}

/// What is looked for in a mount's configuration that is there.
#[derive(Deserialize)]
struct Kept {
    mount_point: PathBuf,
    client_key_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct ClientKey {
    client_key_file: PathBuf,
}

#[derive(Serialize)]
struct Peer {
    id: u64,
    name: String,
    address: String,
}

#[derive(Serialize)]
struct MasterConfig {
    name: String,
    id: u64,
    data: PathBuf,
    listen: String,
    grpc_listen: String,
    cluster_id: String,
    key_file: PathBuf,
    copies: u8,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct ChunkserverConfig {
    name: String,
    data: PathBuf,
    disks: Vec<PathBuf>,
    listen: String,
    masters: Vec<String>,
    cluster_id: String,
    key_file: PathBuf,
}

#[derive(Serialize)]
struct MountConfig {
    name: String,
    masters: Vec<String>,
    mount_point: PathBuf,
    cluster_id: String,
    client_key_file: PathBuf,
    allow_other: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted { masters: None, chunkservers: None, copies: None, port_base: Some(20_000) }
    }

    #[test]
    fn a_cluster_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Layout::load(dir.path()).unwrap(), None);
        let made = Layout::load_or_make(dir.path(), &wanted()).unwrap();
        assert_eq!((made.masters.len(), made.chunkservers.len(), made.copies), (3, 6, 2));
        let mut addresses: Vec<_> =
            made.masters.iter().chain(&made.chunkservers).map(|part| &part.address).collect();
        addresses.extend(made.masters.iter().map(|part| &part.grpc_address));
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 12, "no two parts share an address");
        assert_eq!(Layout::load_or_make(dir.path(), &wanted()).unwrap(), made);
        let other = Wanted { masters: Some(1), ..wanted() };
        let error = Layout::load_or_make(dir.path(), &other).unwrap_err().to_string();
        assert!(error.contains("3 masters"), "{error}");
    }

    #[test]
    fn a_configuration_edited_by_hand_stays_and_a_moved_mount_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::load_or_make(dir.path(), &wanted()).unwrap();
        layout.write_configs(dir.path(), Path::new("/a")).unwrap();
        let master = config_path(dir.path(), "master-1");
        fs::write(&master, "edited").unwrap();
        layout.write_configs(dir.path(), Path::new("/b")).unwrap();
        assert_eq!(fs::read_to_string(master).unwrap(), "edited");
        let mount = fs::read_to_string(config_path(dir.path(), "mount")).unwrap();
        assert!(mount.contains("\"/b\""), "{mount}");
    }

    #[test]
    fn a_mount_configured_before_there_were_keys_is_told_where_its_key_is_and_stays_as_it_was_edited() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::load_or_make(dir.path(), &wanted()).unwrap();
        layout.write_configs(dir.path(), Path::new("/a")).unwrap();
        let path = config_path(dir.path(), "mount");
        let edited = "mount_point = \"/a\"\nthreads = 3 # mine\n";
        fs::write(&path, edited).unwrap();
        for _ in 0..2 {
            layout.write_configs(dir.path(), Path::new("/a")).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.ends_with(edited) && text.matches("client_key_file").count() == 1, "{text}");
            let kept: Kept = toml::from_str(&text).unwrap();
            assert_eq!(kept.client_key_file, Some(dir.path().join(CLIENT_KEY)));
        }
    }

    #[test]
    fn mount_and_command_line_get_keys_that_are_not_the_clusters_and_nobody_else_reads() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::load_or_make(dir.path(), &wanted()).unwrap();
        layout.write_keys(dir.path()).unwrap();
        layout.write_configs(dir.path(), Path::new("/a")).unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let keys = [CLUSTER_KEY, CLIENT_KEY, ADMIN_KEY].map(text);
        assert!(keys.iter().all(|key| key.len() == 64));
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        for name in [CLUSTER_KEY, CLIENT_KEY, ADMIN_KEY] {
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let mount = text("mount/config.toml");
        assert!(mount.contains("client.key") && !mount.contains("cluster.key"), "{mount}");
    }
}
