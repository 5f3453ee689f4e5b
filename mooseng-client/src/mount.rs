//! The daemon: arguments, mounting, waiting for the order to stop.

mod point;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use fuser::{MountOption, Session, SessionACL, SessionUnmounter};
use mooseng_env::{Threads, daemon};
use mooseng_protocol::principal::PrincipalKey;
use signal_hook::consts::{SIGINT, SIGTERM};

pub use self::point::is_dead_mount;

use crate::client::Client;
use crate::config::{ClientConfig, MountFlag};
use crate::fuse::FuseFs;

/// How long to wait for the kernel to let go after an unmount: programs may still have files open.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// Mounts a MooseNG file system and serves it until it is unmounted or told to stop.
#[derive(Debug, Parser)]
#[command(name = "mooseng-mount", version)]
struct Args {
    /// TOML file with the settings; see examples/mooseng-mount.toml.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Checks the settings and ends.
    #[arg(long)]
    check_config: bool,
    /// Masters, "host:port,host:port"; instead of those of the file.
    #[arg(long, value_delimiter = ',')]
    masters: Vec<String>,
    /// Where the file system shall appear; instead of the file's `mount_point`.
    mount_point: Option<PathBuf>,
}

enum Stop {
    Signal,
    Unmounted(io::Result<()>),
}

/// Runs the mount daemon with these arguments (the first is the program's name). 0: ended in order; 1: could not mount
/// or could not save everything; 2: wrong arguments or settings.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (config, key) = match configure(&args) {
        Ok(configured) => configured,
        Err(error) => return complain(&error, 2),
    };
    if args.check_config {
        return ExitCode::SUCCESS;
    }
    daemon::start_logging(config.json_logs);
    match serve(config, key) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    // With nowhere to complain to, the exit code has to do.
    drop(writeln!(io::stderr(), "mooseng-mount: {error:#}"));
    ExitCode::from(code)
}

fn configure(args: &Args) -> anyhow::Result<(ClientConfig, PrincipalKey)> {
    let mut config = match &args.config {
        Some(path) => ClientConfig::read(path)?,
        None => ClientConfig::default(),
    };
    if !args.masters.is_empty() {
        config.masters.clone_from(&args.masters);
    }
    if let Some(mount_point) = &args.mount_point {
        config.mount_point.clone_from(mount_point);
    }
    config.check()?;
    let key = config.read_key()?;
    Ok((config, key))
}

fn serve(mut config: ClientConfig, key: PrincipalKey) -> anyhow::Result<()> {
    point::check(&config.mount_point)?;
    config.instance = instance(&config.mount_point);
    let masters = config.masters.join(", ");
    let client = Client::connect(config, key)
        .map_err(|error| anyhow!("{error}; start the masters, or correct `masters` (now {masters})"))?;
    let outcome = mount_and_wait(&client);
    let saved = client.close().context("not everything that was written could be saved");
    outcome.and(saved)
}

/// This mount point of this machine. Names of machines are not unique, their ids are.
fn instance(mount_point: &Path) -> String {
    let uname = rustix::system::uname();
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    format!("{}:{} {}", uname.nodename().to_string_lossy(), mount_point.display(), machine.trim())
}

fn mount_and_wait(client: &Arc<Client>) -> anyhow::Result<()> {
    let mount_point = client.config().mount_point.clone();
    let (stop, stopped) = sync_channel(4);
    let threads = Threads::default();
    let signals = watch_signals(&threads, stop.clone())?;
    let mounted = start_session(client, &mount_point, &threads, stop);
    let outcome = mounted.and_then(|unmounter| {
        point::raise_read_ahead(&mount_point);
        tracing::info!(mount_point = %mount_point.display(), "mounted");
        daemon::notify("READY=1");
        wait(&stopped, unmounter)
    });
    signals.close();
    outcome
}

fn wait(stopped: &Receiver<Stop>, mut unmounter: SessionUnmounter) -> anyhow::Result<()> {
    let stop = stopped.recv();
    daemon::notify("STOPPING=1");
    match stop {
        Ok(Stop::Unmounted(outcome)) => outcome.context("serve the kernel"),
        Ok(Stop::Signal) | Err(_) => {
            tracing::info!("told to stop");
            if let Err(error) = unmounter.unmount() {
                tracing::warn!(%error, "unmount");
            }
            // Whoever still has files open holds the kernel's side; what was written is saved all the same.
            if stopped.recv_timeout(UNMOUNT_PATIENCE).is_err() {
                tracing::warn!("programs still have files open; they will get errors");
            }
            Ok(())
        }
    }
}

fn watch_signals(threads: &Threads, stop: SyncSender<Stop>) -> anyhow::Result<signal_hook::iterator::Handle> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).context("watch signals")?;
    let handle = signals.handle();
    threads.spawn("signals", move || {
        for _ in signals.forever() {
            // A full queue: it has been told often enough.
            drop(stop.try_send(Stop::Signal));
        }
    })?;
    Ok(handle)
}

fn start_session(
    client: &Arc<Client>,
    mount_point: &Path,
    threads: &Threads,
    stop: SyncSender<Stop>,
) -> anyhow::Result<SessionUnmounter> {
    let config = client.config();
    let root = rustix::process::geteuid().is_root();
    let mut options = fuser::Config::default();
    options.mount_options = mount_options(config);
    options.acl = if root || config.allow_other { SessionACL::All } else { SessionACL::Owner };
    options.n_threads = Some(config.threads);
    options.clone_fd = true;
    let fs = FuseFs::new(Arc::clone(client));
    let kernel = fs.kernel();
    let mut session = Session::new(fs, mount_point, &options)
        .map_err(|error| point::explain(mount_point, &error, config.allow_other && !root))?;
    kernel.connect(session.notifier());
    client.foreign.listen();
    let foreign = Arc::clone(client);
    threads.spawn("forget", move || {
        while let Some(inode) = foreign.foreign.next() {
            kernel.forget_content(inode);
            kernel.doubt(inode, foreign.clock.monotonic());
        }
    })?;
    let unmounter = session.unmount_callable();
    let ended = Arc::clone(client);
    threads.spawn("fuse", move || {
        let outcome = session.run();
        ended.foreign.stop();
        // Nobody listens any more when the order to stop has come.
        drop(stop.try_send(Stop::Unmounted(outcome)));
    })?;
    Ok(unmounter)
}

fn mount_options(config: &ClientConfig) -> Vec<MountOption> {
    let mut options = vec![
        MountOption::FSName("mooseng".into()),
        MountOption::Subtype("mooseng".into()),
        MountOption::DefaultPermissions,
    ];
    if config.read_only {
        options.push(MountOption::RO);
    }
    let flag = |flag: &MountFlag| match flag {
        MountFlag::Dev => Some(MountOption::Dev),
        MountFlag::Suid => Some(MountOption::Suid),
        MountFlag::NoExec => Some(MountOption::NoExec),
        MountFlag::NoAtime => Some(MountOption::NoAtime),
        // Said above already.
        MountFlag::Ro => None,
    };
    options.extend(config.options.iter().filter_map(flag));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_set_user_id_count_only_where_they_are_asked_for() {
        let options = |text: &str| mount_options(&ClientConfig::parse(text).unwrap());
        let usual = options("");
        assert!(usual.contains(&MountOption::NoAtime) && !usual.contains(&MountOption::RO));
        assert!(!usual.contains(&MountOption::Dev) && !usual.contains(&MountOption::Suid));
        let all = options("options = [\"dev\", \"suid\", \"ro\", \"noexec\"]");
        for option in [MountOption::Dev, MountOption::Suid, MountOption::RO, MountOption::NoExec] {
            assert!(all.contains(&option), "{option:?}");
        }
        assert!(!all.contains(&MountOption::NoAtime));
    }

    fn code(args: &[&str]) -> ExitCode {
        run(args.iter().map(OsString::from))
    }

    #[test]
    fn settings_are_checked_without_mounting() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("mount.toml"), dir.path().join("client.key"));
        std::fs::write(&path, format!("client_key_file = {key:?}")).unwrap();
        let check = ["mooseng-mount", "--config", path.to_str().unwrap(), "--check-config"];
        assert_eq!(code(&check), ExitCode::from(2), "there is no key");
        std::fs::write(&key, "5a".repeat(32)).unwrap();
        assert_eq!(code(&check), ExitCode::SUCCESS);
        assert_eq!(code(&["mooseng-mount", "--masters", "nowhere", "--check-config"]), ExitCode::from(2));
        assert_eq!(code(&["mooseng-mount", "--config", "/does/not/exist"]), ExitCode::from(2));
        assert_eq!(code(&["mooseng-mount", "--unknown"]), ExitCode::from(2));
    }
}
