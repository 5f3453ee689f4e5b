//! The cluster of this suite: masters on hosts of their own, chunkservers and mounts on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::net::Net;
use crate::cluster::Options;
use crate::random::Random;
use crate::status::{self, Status};
use crate::{mounts, shell, wait};

const MASTER_PORT: u16 = 9421;
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Each master's disk: in memory, so that it is small and can be filled. What a master must survive here is the loss of
/// a process; power cuts are another suite's. Files are never deleted, and twenty rounds make hundreds of thousands.
const MASTER_DISK_MIB: usize = 640;

pub(super) struct Spread {
    options: Options,
    pub(super) net: Net,
    cluster_id: String,
    running: BTreeMap<String, Child>,
}

impl Spread {
    /// Starts masters and chunkservers and waits until they serve.
    pub(super) fn start(options: Options, net: Net, seed: u64) -> Result<Spread> {
        let mut random = Random::seeded(seed);
        let mut digits = || format!("{:016x}{:016x}", random.next(), random.next());
        let (cluster_id, secret) = (digits(), digits() + &digits());
        let mut spread = Spread { options, net, cluster_id, running: BTreeMap::new() };
        for directory in ["run", "log"] {
            fs::create_dir_all(spread.data().join(directory))?;
        }
        let key = spread.data().join("cluster.key");
        fs::write(&key, secret)?;
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        shell::make_keys(&spread.options.binary, spread.data())?;
        for host in spread.hosts() {
            spread.write_master(host)?;
            spread.launch(&master(host))?;
        }
        for number in 1..=spread.options.chunkservers {
            spread.write_chunkserver(number)?;
            spread.launch(&format!("chunkserver-{number}"))?;
        }
        status::wait_in_sync(READY_LIMIT, || spread.mooseng())
            .map_err(|error| error.context(spread.last_words()))?;
        Ok(spread)
    }

    fn hosts(&self) -> std::ops::RangeInclusive<u8> {
        1..=u8::try_from(self.options.masters).unwrap_or(u8::MAX)
    }

    fn data(&self) -> &Path {
        &self.options.data
    }

    fn addresses(&self) -> Vec<String> {
        self.hosts().map(|host| format!("{}:{MASTER_PORT}", self.net.address(host))).collect()
    }

    /// `mooseng --master …`
    pub(super) fn mooseng(&self) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.arg("--key-file").arg(self.data().join("admin.key"));
        command.arg("--master").arg(self.addresses().join(","));
        command
    }

    /// Waits until all masters are there.
    pub(super) fn wait_in_sync(&self, limit: Duration) -> Result<Status> {
        status::wait_in_sync(limit, || self.mooseng())
    }

    /// The directory that is a master's disk.
    pub(super) fn disk(&self, name: &str) -> PathBuf {
        self.data().join(name).join("disk")
    }

    fn write_config(&self, name: &str, text: String) -> Result<()> {
        fs::create_dir_all(self.data().join(name))?;
        Ok(fs::write(self.data().join(name).join("config.toml"), text)?)
    }

    /// What the configurations of all servers begin with.
    fn head(&self, name: &str) -> String {
        let (cluster_id, key) = (&self.cluster_id, self.data().join("cluster.key"));
        format!("name = {name:?}\ncluster_id = {cluster_id:?}\nkey_file = {key:?}\n")
    }

    fn write_master(&self, host: u8) -> Result<()> {
        let name = master(host);
        let disk = self.disk(&name);
        fs::create_dir_all(&disk)?;
        let size = format!("size={MASTER_DISK_MIB}m");
        shell::stdout(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk))?;
        let listen = format!("{}:{MASTER_PORT}", self.net.address(host));
        let mut text = self.head(&name) + &format!("id = {host}\ndata = {disk:?}\nlisten = {listen:?}\n");
        for (id, address) in (1..).zip(self.addresses()) {
            write!(text, "[[peers]]\nid = {id}\nname = \"master-{id}\"\naddress = {address:?}\n")?;
        }
        self.write_config(&name, text)
    }

    fn write_chunkserver(&self, number: u32) -> Result<()> {
        let name = format!("chunkserver-{number}");
        let data = self.data().join(&name);
        let disk = data.join("disk");
        fs::create_dir_all(&disk)?;
        let port = u32::from(self.options.port_base) + number;
        let (listen, masters) = (format!("127.0.0.1:{port}"), self.addresses());
        let own =
            format!("data = {data:?}\ndisks = [{disk:?}]\nlisten = {listen:?}\nmasters = {masters:?}\n");
        self.write_config(&name, self.head(&name) + &own)
    }

    /// Mounts the file system once more, and answers where.
    pub(super) fn mount(&mut self, name: &str) -> Result<PathBuf> {
        let point = self.options.mount.join(name);
        fs::create_dir_all(&point)?;
        let (masters, cluster_id, key) = (self.addresses(), &self.cluster_id, self.data().join("client.key"));
        let text = format!(
            "name = {name:?}\nmasters = {masters:?}\nmount_point = {point:?}\ncluster_id = {cluster_id:?}\nclient_key_file = {key:?}\n"
        );
        self.write_config(name, text)?;
        self.launch(name)?;
        let waited = wait::until(READY_LIMIT, &format!("{name} to be mounted"), || {
            if !self.is_running(name) {
                bail!("{name} has ended");
            }
            Ok(mounts::is_mounted(&point))
        });
        waited.map_err(|error| error.context(self.last_words()))?;
        Ok(point)
    }

    /// Stops a mount in order.
    pub(super) fn unmount(&mut self, name: &str) -> Result<()> {
        self.signal(name, Signal::TERM)?;
        self.wait_ended(name)?;
        mounts::unmount(&self.options.mount.join(name));
        Ok(())
    }

    /// Starts a part whose configuration is written.
    pub(super) fn launch(&mut self, name: &str) -> Result<()> {
        let kind = name.split('-').next().unwrap_or(name);
        let mut command = match host(name) {
            Some(host) => self.net.on(host, &self.options.binary),
            None => Command::new(&self.options.binary),
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data().join("log").join(format!("{name}.log")))?;
        command.args(["daemon", kind, "--config"]).arg(self.data().join(name).join("config.toml"));
        // Out of reach of a signal that is meant for the suite, which stops the parts itself.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        fs::write(self.data().join("run").join(format!("{name}.pid")), child.id().to_string())?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    pub(super) fn is_running(&mut self, name: &str) -> bool {
        self.running.get_mut(name).is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(super) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let child = self.running.get(name).with_context(|| format!("{name} was never started"))?;
        shell::signal(child.id(), signal);
        Ok(())
    }

    pub(super) fn wait_ended(&mut self, name: &str) -> Result<()> {
        wait::until(STOP_LIMIT, &format!("{name} to end"), || Ok(!self.is_running(name)))
    }

    /// A part that died without being told to.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let names: Vec<String> = self.running.keys().cloned().collect();
        for name in names.iter().filter(|name| *name != "mount-audit") {
            if !self.is_running(name) {
                bail!("{name} has died\n{}", self.last_words());
            }
        }
        Ok(())
    }

    /// The ends of all logs.
    pub(super) fn last_words(&self) -> String {
        let logs = fs::read_dir(self.data().join("log")).into_iter().flatten().flatten();
        let mut words = String::new();
        for path in logs.map(|entry| entry.path()) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
            words.push_str(&format!("--- {}\n{}\n", path.display(), last.join("\n")));
        }
        words
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // A stopped process takes no other signal.
            child.kill().ok();
            child.wait().ok();
        }
        mounts::unmount_below(&self.options.mount);
        mounts::unmount_below(&self.options.data);
    }
}

/// The name of the master on a host.
pub(super) fn master(host: u8) -> String {
    format!("master-{host}")
}

/// The host of a master.
pub(super) fn host(name: &str) -> Option<u8> {
    name.strip_prefix("master-")?.parse().ok()
}
