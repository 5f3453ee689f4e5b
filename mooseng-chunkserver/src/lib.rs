//! The MooseNG chunkserver: chunk store, write chain, zero-copy reads.
//!
//! In reading order: what decides, without sockets, threads and clocks: [`Request`] (`request.rs`, what a request means),
//! [`Completion`] and [`blame`] (`completion.rs`, what a request comes to that passes several servers), `store.rs` (what is
//! on the disks), [`Talk`] (`talk.rs`, what the masters hear) and `order.rs` (what they order). [`ChunkEngine`] is all of it
//! in one hand, for the simulator. Then what carries it out: [`Config`], [`ChunkServer`] (`server.rs`, how it is put
//! together), `connection.rs`, `outbox.rs`, `write_chain.rs` (servers behind this one), `master_link.rs` and `orders.rs`.

mod buffer;
mod changes;
mod completion;
mod config;
mod connection;
mod engine;
mod epoch;
mod identity;
mod io_pool;
mod master_link;
mod order;
mod orders;
mod outbox;
mod pages;
mod request;
mod server;
mod store;
mod talk;
mod unsent;
mod write_chain;
mod zero_copy;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub use completion::{Completion, blame, fault};
pub use config::Config;
pub use engine::{ChunkEngine, Now, Piece};
pub use order::{Fetch, FetchError};
pub use request::{Request, Tokens};
pub use server::{ChunkServer, StartError};
pub use store::StoreError;
/// Open to the fuzz target of this decoder, and to nobody else.
#[doc(hidden)]
pub use store::sidecar;
pub use talk::{Say, Talk, Teller};

/// A MooseNG chunkserver: keeps the content of files on the disks of this machine.
#[derive(Debug, Parser)]
#[command(name = "mooseng-chunkserver", version)]
struct Arguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE", default_value = "/etc/mooseng/mooseng-chunkserver.toml")]
    config: PathBuf,
    /// Check the configuration file and exit
    #[arg(long)]
    check_config: bool,
}

/// Runs a chunkserver with command-line arguments (the program's name first) until `SIGTERM` or `SIGINT`. Exit codes: 0
/// after an orderly stop, 2 if the configuration is to be corrected, 1 for anything else; one line on standard error
/// says what.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version arrive here as well, with exit code 0. Without a terminal there is nobody to tell.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match serve_until_told(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "mooseng-chunkserver: {error}"));
            ExitCode::from(if matches!(error, StartError::Config { .. }) { 2 } else { 1 })
        }
    }
}

fn serve_until_told(arguments: &Arguments) -> Result<(), StartError> {
    let config = Config::read(&arguments.config)?;
    if arguments.check_config {
        config.read_key()?;
        return Ok(());
    }
    mooseng_env::daemon::start_logging(config.json_logs);
    let signals = Signals::new([SIGTERM, SIGINT]);
    let mut signals =
        signals.map_err(|source| StartError::Io { action: "listen for signals".into(), source })?;
    let server = ChunkServer::start(config)?;
    mooseng_env::daemon::notify("READY=1");
    signals.forever().next();
    mooseng_env::daemon::notify("STOPPING=1");
    server.stop();
    Ok(())
}
