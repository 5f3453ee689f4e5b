//! The process: reads its configuration, opens log and store, serves until told to stop.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser;
use mooseng_env::daemon::{DirLock, keep_pages_small, notify, raise_open_files, start_logging};
use mooseng_env::{Clock, SystemClock, Threads};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::server::grpc;
use crate::server::{Ended, Server};

/// A MooseNG master.
#[derive(Debug, Parser)]
#[command(name = "mooseng-master", version)]
struct Args {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Only check the configuration.
    #[arg(long)]
    check_config: bool,
}

/// Runs a master as the process's whole business. Exit code 2 means a mistake in the configuration.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return fail(&error.into(), 2),
    };
    if args.check_config {
        return ExitCode::SUCCESS;
    }
    start_logging(config.json_logs);
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a process that ends")]
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("mooseng-master: {error:#}");
    ExitCode::from(code)
}

fn serve(config: &Config) -> anyhow::Result<()> {
    let _lock = claim(&config.data)?;
    raise_open_files();
    keep_pages_small();
    while serve_once(config)? == Ended::LostLog {
        tracing::warn!("starting again as a new master");
    }
    Ok(())
}

fn serve_once(config: &Config) -> anyhow::Result<Ended> {
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let threads = Arc::new(Threads::default());
    let server = Server::open(config, clock, &threads)?;
    let inbox = server.inbox();
    let stop_grpc = start_grpc(config, &threads, Arc::clone(&inbox))?;
    let on_signal = Arc::clone(&inbox);
    let handle = signals.handle();
    threads.spawn("signals", move || {
        let mut signals = signals;
        if signals.forever().next().is_some() {
            tracing::info!("stopping");
            notify("STOPPING=1");
            on_signal.stop();
        }
    })?;
    tracing::info!(name = config.name, listen = config.listen, cluster = %config.cluster, "serving");
    notify("READY=1");
    let served = server.run();
    handle.close();
    drop(stop_grpc);
    threads.join();
    served.context("serve")
}

/// Takes the data directory for this process.
pub(crate) fn claim(dir: &Path) -> anyhow::Result<DirLock> {
    std::fs::create_dir_all(dir).with_context(|| format!("make the data directory {}", dir.display()))?;
    match DirLock::take(dir) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("{} is in use by another process: stop that one first", dir.display())
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", dir.display())),
    }
}

fn start_grpc(
    config: &Config,
    threads: &Threads,
    inbox: Arc<crate::server::Inbox>,
) -> anyhow::Result<Option<oneshot::Sender<()>>> {
    let Some(address) = &config.grpc_listen else { return Ok(None) };
    let listener =
        grpc::bind(address).with_context(|| format!("listen on {address} for gRPC: is the port in use?"))?;
    let (stop, stopped) = oneshot::channel();
    threads.spawn("grpc", move || {
        if let Err(error) = grpc::serve(listener, inbox, stopped) {
            tracing::error!(%error, "gRPC has stopped");
        }
    })?;
    Ok(Some(stop))
}
