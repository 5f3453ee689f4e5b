//! `mooseng server`: the chunkservers, and what they are there for.

mod drain;
mod forget;
mod list;
mod maintenance;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Target;

/// What can be done with chunkservers.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// All chunkservers, and which of them can be taken away now.
    List(list::ListArgs),
    /// Move all copies of a chunkserver to others, so that it can be taken away.
    Drain(drain::DrainArgs),
    /// Let a chunkserver be away for a while without its copies being made again.
    Maintenance(maintenance::MaintenanceArgs),
    /// Make a chunkserver unknown that is gone for good and of which no chunk counts a copy.
    Forget(forget::ForgetArgs),
}

pub(crate) fn run(target: &Target, command: &ServerCommand) -> anyhow::Result<ExitCode> {
    match command {
        ServerCommand::List(args) => list::run(target, args),
        ServerCommand::Drain(args) => drain::run(target, args),
        ServerCommand::Maintenance(args) => maintenance::run(target, args),
        ServerCommand::Forget(args) => forget::run(target, args),
    }
}
