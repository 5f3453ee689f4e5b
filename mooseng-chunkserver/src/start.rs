//! The program: reads its configuration, starts a server, and stops it when it is told to.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mooseng_env::config::ConfigError;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Config;
use crate::server::ChunkServer;

/// Why a chunkserver does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something that the configuration names is to be corrected by the administrator.
    #[error("{what}")]
    Named {
        /// What, and what to do about it; one line.
        what: String,
    },
    /// The machine does not do what is needed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// How it failed.
        source: std::io::Error,
    },
}

impl StartError {
    pub(crate) fn named(what: String) -> Self {
        Self::Named { what }
    }

    pub(crate) fn io(action: &str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action: action.to_owned(), source }
    }
}

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
            ExitCode::from(if matches!(error, StartError::Config(_) | StartError::Named { .. }) {
                2
            } else {
                1
            })
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
    let mut signals = signals.map_err(StartError::io("listen for signals"))?;
    let server = ChunkServer::start(config)?;
    mooseng_env::daemon::notify("READY=1");
    signals.forever().next();
    mooseng_env::daemon::notify("STOPPING=1");
    server.stop();
    Ok(())
}
