//! The process: reads its configuration, opens log and store, serves until told to stop.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use mooseng_env::daemon::{DirLock, notify, start_logging};
use mooseng_env::{Clock, FsDisk, SystemClock, SystemEntropy, Threads};
use mooseng_meta::{MetaState, MetaStore};
use mooseng_protocol::token::TokenKey;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::oneshot;

use crate::cache_config::CacheConfig;
use crate::cache_enhanced::CachedStore;
use crate::config::Config;
use crate::core::{CoreConfig, MasterCore};
use crate::raft::log::{LogOptions, Segments};
use crate::server::Server;
use crate::service::grpc;
use crate::store::FjallStore;

/// Bytes of a log segment: some seconds of full load.
const SEGMENT_BYTES: u64 = 16 << 20;

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
        Err(error) => return fail(&error, 2),
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
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let _lock = claim(config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let threads = Arc::new(Threads::default());
    let (core, segments, store) = open(config, &*clock)?;
    let server = Server::start(config, core, segments, store, clock, &threads).with_context(|| {
        format!("listen on {}: is the port in use, or the address not of this machine?", config.listen)
    })?;
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

/// Takes the data directory for this process, and makes sure that it is this master's of this cluster.
fn claim(config: &Config) -> anyhow::Result<DirLock> {
    let dir = &config.data;
    std::fs::create_dir_all(dir.join("log"))
        .with_context(|| format!("make the data directory {}", dir.display()))?;
    let lock = match DirLock::take(dir) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("{} is in use by another process: stop that one first", dir.display())
        }
        Err(error) => return Err(error).with_context(|| format!("lock {}", dir.display())),
    };
    let owner = dir.join("cluster.id");
    let mine = format!("{} master {}", config.cluster, config.id.raw());
    match std::fs::read_to_string(&owner) {
        Ok(found) => ensure!(
            found.trim() == mine,
            "{} belongs to cluster {}, not to {mine}: point `data` at this master's own directory, or at an empty one",
            dir.display(),
            found.trim()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            mooseng_env::Disk::write_whole(&FsDisk, &owner, mine.as_bytes())
                .with_context(|| format!("write {}", owner.display()))?;
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", owner.display())),
    }
    Ok(lock)
}

fn open(config: &Config, clock: &dyn Clock) -> anyhow::Result<(MasterCore, Segments, Arc<dyn MetaStore>)> {
    let dir = config.data.join("store");
    let fjall = FjallStore::open(&dir).with_context(|| format!("open the store {}", dir.display()))?;
    let store: Arc<dyn MetaStore> = Arc::new(CachedStore::new(fjall, CacheConfig::new(config.cache_bytes)));
    let state =
        MetaState::open(Arc::clone(&store)).with_context(|| format!("open the store {}", dir.display()))?;
    let options = LogOptions {
        dir: config.data.join("log"),
        segment_bytes: SEGMENT_BYTES,
        cluster: config.cluster,
        master: config.id,
    };
    let (segments, recovered) = Segments::open(Arc::new(FsDisk), options)?;
    let last = recovered.entries.last().map_or(recovered.purged.0, |entry| entry.index);
    ensure!(
        recovered.purged.0 <= state.applied_index() && state.applied_index() <= last,
        "the log in {} holds entries {}..={last}, but the store is at {}: one of the two is from another time; restore both from one backup, or see docs/operations.md",
        config.data.display(),
        recovered.purged.0 + 1,
        state.applied_index()
    );
    let core = CoreConfig {
        id: config.id,
        peers: config.peers.clone(),
        cluster: config.cluster,
        copies: config.copies,
        heartbeat: config.heartbeat,
        election: config.election,
        session_timeout: config.session_timeout,
    };
    let key = TokenKey::new(&config.secret);
    let core = MasterCore::new(core, key, state, recovered, clock.monotonic(), Arc::new(SystemEntropy));
    Ok((core, segments, store))
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
