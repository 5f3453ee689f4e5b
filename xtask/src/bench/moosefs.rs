//! The peer: MooseFS from Debian's packages, one master and three chunkservers with two copies, in a network namespace of
//! its own (it refuses to run chunkservers on 127.0.0.0/8, so the namespace's loopback gets one address more).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::target::{Pids, Target};
use crate::{mounts, shell, wait};

const NAMESPACE: &str = "mooseng-bench-peer";
const ADDRESS: &str = "10.99.0.1";
const PORT: u16 = 9419;
const CHUNKSERVERS: u16 = 3;
const COPIES: &str = "2";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
const PROGRAMS: [&str; 3] = ["mfsmaster", "mfschunkserver", "mfsmount"];
const PACKAGES: [&str; 6] =
    ["moosefs-master", "moosefs-chunkserver", "moosefs-client", "moosefs-cli", "fuse3", "iproute2"];

pub(crate) struct MooseFs {
    base: PathBuf,
    mount: PathBuf,
}

/// Installs the packages if needed, and starts and mounts a new, empty cluster below `base`.
pub(crate) fn start(base: &Path) -> Result<MooseFs> {
    if !rustix::process::geteuid().is_root() {
        bail!("the peer needs root: a network namespace, packages and a mount");
    }
    install()?;
    let peer = MooseFs { base: base.join("state"), mount: base.join("mnt") };
    peer.configure().context("configure the peer")?;
    peer.launch().context("start the peer")?;
    Ok(peer)
}

fn install() -> Result<()> {
    if PROGRAMS.iter().all(|program| shell::has_program(program)) {
        return Ok(());
    }
    // The packages start their daemons on installation, unless this file says that nothing is to be started.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let made = !policy.exists();
    if made {
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        shell::stdout(Command::new("chmod").arg("+x").arg(policy))?;
    }
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        shell::stdout_within(&mut command, INSTALL_LIMIT)
    };
    let words: Vec<&str> =
        ["install", "-qy", "--no-install-recommends"].into_iter().chain(PACKAGES).collect();
    let installed = apt(&["update", "-q"]).and_then(|_| apt(&words));
    if made {
        fs::remove_file(policy)?;
    }
    installed.map(drop).context("install the peer's packages")
}

impl MooseFs {
    fn configure(&self) -> Result<()> {
        let user = if shell::finish(Command::new("id").arg("mfs"), STOP_LIMIT)?.status.success() {
            "mfs"
        } else {
            "root"
        };
        let master = self.base.join("master");
        fs::create_dir_all(&master)?;
        fs::create_dir_all(&self.mount)?;
        let (base, m) = (self.base.display(), master.display());
        let who = format!("WORKING_USER = {user}\nWORKING_GROUP = {user}\n");
        let ports = format!(
            "MATOML_LISTEN_HOST = {ADDRESS}\nMATOCS_LISTEN_HOST = {ADDRESS}\nMATOCL_LISTEN_HOST = {ADDRESS}\n\
             MATOML_LISTEN_PORT = {PORT}\nMATOCS_LISTEN_PORT = {}\nMATOCL_LISTEN_PORT = {}\n",
            PORT + 1,
            PORT + 2
        );
        let places = format!(
            "DATA_PATH = {m}\nEXPORTS_FILENAME = {m}/mfsexports.cfg\nTOPOLOGY_FILENAME = {m}/mfstopology.cfg\n"
        );
        fs::write(master.join("mfsmaster.cfg"), format!("{who}{places}{ports}CHANGELOG_SAVE_MODE = 0\n"))?;
        fs::write(master.join("mfsexports.cfg"), "*\t/\trw,alldirs,admin,maproot=0:0\n*\t.\trw\n")?;
        fs::write(master.join("mfstopology.cfg"), "")?;
        fs::write(master.join("metadata.mfs"), "MFSM NEW")?;
        for number in 1..=CHUNKSERVERS {
            let (place, disk) = (self.chunkserver(number), self.base.join(format!("disk-{number}")));
            fs::create_dir_all(&place)?;
            fs::create_dir_all(&disk)?;
            fs::write(place.join("hdd.cfg"), format!("{}\n", disk.display()))?;
            let p = place.display();
            let text = format!(
                "{who}DATA_PATH = {p}\nHDD_CONF_FILENAME = {p}/hdd.cfg\nBIND_HOST = {ADDRESS}\nMASTER_HOST = {ADDRESS}\n\
                 MASTER_PORT = {}\nMASTER_RECONNECTION_DELAY = 1\nCSSERV_LISTEN_HOST = {ADDRESS}\nCSSERV_LISTEN_PORT = {}\n\
                 HDD_FSYNC_BEFORE_CLOSE = 0\n",
                PORT + 1,
                PORT + 3 + 10 * (number - 1)
            );
            fs::write(place.join("mfschunkserver.cfg"), text)?;
        }
        // The daemons give up root: every directory above must let them pass.
        let above = self.base.ancestors().take(3).map(|path| path.display().to_string()).collect::<Vec<_>>();
        shell::stdout(Command::new("chmod").arg("755").args(above))?;
        shell::stdout(Command::new("chown").args(["-R", user]).arg(base.to_string())).map(drop)
    }

    fn launch(&self) -> Result<()> {
        let net = |words: &[&str]| shell::finish(Command::new("ip").args(words), STOP_LIMIT);
        // Each of these may be there from a run that was killed.
        for words in [
            &["netns", "add", NAMESPACE][..],
            &["-n", NAMESPACE, "link", "set", "lo", "up"],
            &["-n", NAMESPACE, "addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"],
        ] {
            net(words)?;
        }
        let master = self.base.join("master/mfsmaster.cfg");
        self.inside("mfsmaster", |command| command.arg("-c").arg(master).arg("start"))?;
        for number in 1..=CHUNKSERVERS {
            let config = self.chunkserver(number).join("mfschunkserver.cfg");
            self.inside("mfschunkserver", |command| command.arg("-c").arg(config).arg("start"))?;
        }
        let filter = format!("dport = :{}", PORT + 1);
        wait::until(START_LIMIT, "the peer's chunkservers to register", || {
            let connections =
                self.inside("ss", |command| command.args(["-Htn", "state", "established", &filter]))?;
            Ok(connections.lines().count() >= usize::from(CHUNKSERVERS))
        })?;
        self.mount_it()?;
        self.inside("mfssetgoal", |command| command.args(["-r", COPIES]).arg(&self.mount))?;
        self.inside("mfssettrashtime", |command| command.args(["-r", "0"]).arg(&self.mount))?;
        // A connection is not yet a registration: the first write that works is.
        let probe = self.mount.join("probe");
        wait::until(START_LIMIT, "a first write on the peer", || Ok(fs::write(&probe, "x").is_ok()))?;
        Ok(fs::remove_file(&probe)?)
    }

    fn mount_it(&self) -> Result<()> {
        let options = format!("mfsmaster={ADDRESS},mfsport={}", PORT + 2);
        self.inside("mfsmount", |command| command.arg(&self.mount).args(["-o", &options]))?;
        wait::until(START_LIMIT, "the peer's mount", || Ok(mounts::is_mounted(&self.mount)))
    }

    /// Runs a program in the network namespace; mounts and pids are shared with everybody.
    fn inside(&self, program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{NAMESPACE}")).arg(program);
        arguments(&mut command);
        shell::stdout_within(&mut command, START_LIMIT)
    }

    fn chunkserver(&self, number: u16) -> PathBuf {
        self.base.join(format!("chunkserver-{number}"))
    }

    fn lock_pid(&self, place: &str, lock: &str, program: &str) -> Option<u32> {
        let text = fs::read_to_string(self.base.join(place).join(lock)).ok()?;
        let pid = text.trim().parse().ok()?;
        (shell::is_alive(pid) && shell::command_line(pid).contains(program)).then_some(pid)
    }

    fn servers(&self) -> Vec<u32> {
        let chunkservers = (1..=CHUNKSERVERS)
            .map(|n| self.lock_pid(&format!("chunkserver-{n}"), ".mfschunkserver.lock", "mfschunkserver"));
        chunkservers.chain([self.lock_pid("master", ".mfsmaster.lock", "mfsmaster")]).flatten().collect()
    }

    /// The daemon of our mount point, found by its command line.
    fn clients(&self) -> Vec<u32> {
        let point = self.mount.display().to_string();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let ours = |pid: &u32| {
            let line = shell::command_line(*pid);
            line.starts_with("mfsmount") && line.contains(&point)
        };
        pids.filter(ours).collect()
    }

    fn unmount(&self) {
        let pids = self.clients();
        mounts::unmount(&self.mount);
        end(&pids);
    }
}

/// Waits for processes that were told to end, and kills them if they do not.
fn end(pids: &[u32]) {
    let gone = || pids.iter().all(|pid| !shell::is_alive(*pid));
    if !wait::quietly(STOP_LIMIT, gone) {
        for pid in pids {
            shell::signal(*pid, Signal::KILL);
        }
        wait::quietly(STOP_LIMIT, gone);
    }
}

impl Target for MooseFs {
    fn name(&self) -> &str {
        "moosefs"
    }

    fn directory(&self) -> &Path {
        &self.mount
    }

    fn durability(&self) -> String {
        let version = shell::finish(Command::new("mfsmaster").arg("-v"), STOP_LIMIT)
            .map(|done| done.stdout + &done.stderr);
        let version = version.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        format!(
            "{version}: 1 master, {CHUNKSERVERS} chunkservers, {COPIES} copies; CHANGELOG_SAVE_MODE=0 and \
             HDD_FSYNC_BEFORE_CLOSE=0 (its defaults): neither metadata nor data is fsynced"
        )
    }

    fn pids(&self) -> Pids {
        Pids { servers: self.servers(), clients: self.clients() }
    }

    fn remount(&mut self) -> Result<()> {
        self.unmount();
        self.mount_it()
    }
}

impl Drop for MooseFs {
    fn drop(&mut self) {
        self.unmount();
        let pids = self.servers();
        for pid in &pids {
            shell::signal(*pid, Signal::TERM);
        }
        end(&pids);
        shell::finish(Command::new("ip").args(["netns", "del", NAMESPACE]), STOP_LIMIT).ok();
    }
}
