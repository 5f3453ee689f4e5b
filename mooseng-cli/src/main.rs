//! `mooseng`: runs a whole cluster on one machine, each of its daemons, and administers any cluster.

mod admin;
mod command;
mod output;
mod time;
mod up;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// MooseNG: a distributed POSIX file system.
#[derive(Debug, Parser)]
#[command(name = "mooseng", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster to speak to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// Data directory of a cluster that `mooseng up` runs.
    #[arg(long, global = true, env = "MOOSENG_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Addresses of masters, separated by commas.
    #[arg(long, global = true, env = "MOOSENG_MASTER", value_delimiter = ',', value_name = "ADDR")]
    master: Vec<String>,
    /// File with the administrator's key [default: DIR/admin.key, or /etc/mooseng/admin.key].
    #[arg(long, global = true, env = "MOOSENG_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build nothing by hand: make a cluster in a directory, start it, mount it.
    Up(up::UpArgs),
    /// Look at the cluster.
    #[command(subcommand)]
    Cluster(command::cluster::ClusterCommand),
    /// Whether all is well: what is wrong, and what to do about it. Exit code 4 for warnings, 5 for errors.
    Health(command::health::HealthArgs),
    /// Look at the chunks of files and their copies.
    #[command(subcommand)]
    Chunk(command::chunk::ChunkCommand),
    /// Chunkservers: which can be taken away, which may be away for a while.
    #[command(subcommand)]
    Server(command::server::ServerCommand),
    /// The passes in which chunkservers read and check all their copies.
    #[command(subcommand)]
    Scrub(command::scrub::ScrubCommand),
    /// Storage classes: how many copies, and where.
    #[command(subcommand)]
    Class(command::class::ClassCommand),
    /// Single files and directories.
    #[command(subcommand)]
    File(command::file::FileCommand),
    /// Check the metadata against itself.
    Fsck(command::fsck::FsckArgs),
    /// Make the key of a client or of an administrator from the cluster's.
    Key(command::key::KeyArgs),
    /// Run one daemon in the foreground.
    #[command(subcommand)]
    Daemon(Daemon),
}

/// The daemons, as `mooseng-master`, `mooseng-chunkserver` and `mooseng-mount` run them.
#[derive(Debug, Subcommand)]
#[command(disable_help_flag = true, disable_version_flag = true)]
enum Daemon {
    /// A master.
    Master(DaemonArgs),
    /// A chunkserver.
    Chunkserver(DaemonArgs),
    /// A mount.
    Mount(DaemonArgs),
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct DaemonArgs {
    /// What the daemon's own program takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Daemon(daemon) => return run_daemon(daemon),
        Command::Up(args) => up::run(&cli.target, &args),
        Command::Cluster(command) => command::cluster::run(&cli.target, &command),
        Command::Health(args) => command::health::run(&cli.target, &args),
        Command::Chunk(command) => command::chunk::run(&cli.target, &command),
        Command::Server(command) => command::server::run(&cli.target, &command),
        Command::Scrub(command) => command::scrub::run(&cli.target, &command),
        Command::Class(command) => command::class::run(&cli.target, &command),
        Command::File(command) => command::file::run(&cli.target, &command),
        Command::Fsck(args) => command::fsck::run(&cli.target, &args),
        Command::Key(args) => command::key::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run_daemon(daemon: Daemon) -> ExitCode {
    let with_name = |name: &str, args: DaemonArgs| std::iter::once(OsString::from(name)).chain(args.rest);
    match daemon {
        Daemon::Master(args) => mooseng_master::run(with_name("mooseng-master", args)),
        Daemon::Chunkserver(args) => mooseng_chunkserver::run(with_name("mooseng-chunkserver", args)),
        Daemon::Mount(args) => mooseng_client::run(with_name("mooseng-mount", args)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_command_has_an_argument_twice() {
        Cli::command().debug_assert();
    }
}
