//! `mooseng up`: a whole cluster on this machine, made on the first start and found again on every later one.
//!
//! Each part is a child process with its own configuration, log and pid file, so that one can be killed and watched.

pub(crate) mod layout;
mod parts;
mod system;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use mooseng_env::daemon::DirLock;
use mooseng_env::{Clock as _, SystemClock};
use mooseng_protocol::principal::Role;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Target;
use crate::admin::{self, Masters};
use crate::output;
use layout::{Layout, Wanted};
use parts::Parts;

/// How long the cluster may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What `up` takes. Numbers count when the cluster is made; later starts keep what there is.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Masters: 1, 3, 5 or 7 [default: 3].
    #[arg(long)]
    masters: Option<u64>,
    /// Chunkservers [default: 6].
    #[arg(long)]
    chunkservers: Option<u64>,
    /// Copies of every chunk [default: 2].
    #[arg(long)]
    copies: Option<u8>,
    /// Where to mount it.
    #[arg(long, default_value = "./mnt")]
    mount: PathBuf,
    /// First of the ports used, on 127.0.0.1 [default: 9421].
    #[arg(long)]
    port_base: Option<u16>,
    /// Start a part again that has died.
    #[arg(long)]
    respawn: bool,
}

/// Where the cluster is kept unless told otherwise.
const DATA_DEFAULT: &str = "./mooseng-data";

pub(crate) fn run(target: &Target, args: &UpArgs) -> anyhow::Result<ExitCode> {
    // From the first moment on, so that an order to stop is never lost.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGCHLD])?;
    let data = absolute(target.data.as_deref().unwrap_or(Path::new(DATA_DEFAULT)))?;
    let mount = absolute(&args.mount)?;
    system::check()?;
    std::fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
    let _lock = lock(&data)?;
    let wanted = Wanted {
        masters: args.masters,
        chunkservers: args.chunkservers,
        copies: args.copies,
        port_base: args.port_base,
    };
    let layout = Layout::load_or_make(&data, &wanted)?;
    layout.write_keys(&data)?;
    layout.write_configs(&data, &mount)?;
    let mut parts = Parts::new(&data, &layout)?;
    system::clear_dead_mount(&mount)?;
    ensure!(
        !system::is_mounted(&mount)?,
        "{} is in use: another `mooseng up` or mount has it; stop that one first, or choose another --mount",
        mount.display()
    );
    let started = start(&mut parts, &layout, &mount, &mut signals);
    let done = match started {
        Ok(true) => {
            announce(&data, &mount, &layout);
            watch(&mut parts, &mount, args.respawn, &mut signals)
        }
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    let stopped = parts.stop();
    // A mount that died, or had to be killed, has left its mount point behind.
    let cleared = system::clear_dead_mount(&mount);
    done.and(stopped).and(cleared).map(|()| ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("find {}", path.display()))
}

fn lock(data: &Path) -> anyhow::Result<DirLock> {
    match DirLock::take(data) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("{} is in use by another `mooseng up`: stop that one first", data.display())
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", data.display())),
    }
}

/// Starts everything and waits until it serves; `false` if told to stop meanwhile.
fn start(parts: &mut Parts, layout: &Layout, mount: &Path, signals: &mut Signals) -> anyhow::Result<bool> {
    let clock = SystemClock::default();
    let masters = layout.masters.iter().map(|master| master.address.clone()).collect();
    let masters = Masters::new(masters, layout.keys(parts.data())?.of(Role::Admin).clone());
    parts.start_servers()?;
    let mut state = String::new();
    while !serves(&masters, layout.chunkservers.len(), &mut state) {
        ensure!(
            clock.monotonic() < START_MAX,
            "the cluster did not come up in a minute: {state}; see {}",
            parts.logs()
        );
        parts.all_alive()?;
        if told_to_stop(signals) {
            return Ok(false);
        }
        clock.sleep(LOOK_EVERY);
    }
    std::fs::create_dir_all(mount).with_context(|| format!("make {}", mount.display()))?;
    parts.start_mount()?;
    while !system::is_mounted(mount)? {
        ensure!(clock.monotonic() < START_MAX, "the mount did not come up in a minute; see {}", parts.logs());
        parts.all_alive()?;
        if told_to_stop(signals) {
            return Ok(false);
        }
        clock.sleep(LOOK_EVERY);
    }
    Ok(true)
}

/// Whether there is a leader to which all chunkservers speak.
fn serves(masters: &Masters, chunkservers: usize, state: &mut String) -> bool {
    match admin::cluster_status(masters) {
        Ok(status) => {
            let up = status.servers.iter().filter(|server| server.state == "up").count();
            let leads = status.masters.iter().any(|master| master.role == "leader");
            *state = format!(
                "{up} of {chunkservers} chunkservers are up, {} leader",
                if leads { "a" } else { "no" }
            );
            leads && up >= chunkservers
        }
        Err(error) => {
            *state = format!("{error:#}");
            false
        }
    }
}

fn told_to_stop(signals: &mut Signals) -> bool {
    signals.pending().any(|signal| signal != SIGCHLD)
}

fn announce(data: &Path, mount: &Path, layout: &Layout) {
    let (data, mount) = (data.display(), mount.display());
    output::line(&format!("cluster {} is up", layout.cluster_id));
    for part in layout.masters.iter().chain(&layout.chunkservers) {
        output::line(&format!("  {:<16} {}", part.name, part.address));
    }
    output::line(&format!("  data {data}"));
    output::line(&format!("  logs {data}/log"));
    output::line(&format!("  mounted at {mount}"));
    output::line("try:");
    output::line(&format!("  cp -a /etc {mount}/ && ls -l {mount}/etc"));
    // This very program: it need not be in the PATH.
    let program =
        std::env::current_exe().map_or_else(|_| "mooseng".into(), |path| path.display().to_string());
    output::line(&format!("  {program} --data {data} cluster status"));
    output::line(&format!("  kill -9 $(cat {data}/run/master-1.pid)   # the file system goes on"));
    output::line("ready: stop with Ctrl-C");
}

/// Waits for the order to stop, and tells of every part that dies meanwhile.
fn watch(parts: &mut Parts, mount: &Path, respawn: bool, signals: &mut Signals) -> anyhow::Result<()> {
    loop {
        for signal in signals.wait() {
            if signal != SIGCHLD {
                output::line("stopping");
                return Ok(());
            }
            for name in parts.reap()? {
                if respawn {
                    output::note(&format!("{name} has died and is started again; see {}", parts.logs()));
                    system::clear_dead_mount(mount)?;
                    parts.start(&name)?;
                } else {
                    output::note(&format!("{name} has died; see {}", parts.logs()));
                }
            }
        }
    }
}
