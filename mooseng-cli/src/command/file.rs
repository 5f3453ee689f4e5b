//! `mooseng file`: what holds for single files and directories of a mounted MooseNG.

mod class;
pub(crate) mod objects;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Target;

/// What can be asked of files, and done with them.
#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// The storage class of files and directories, or another one for them.
    Class(class::ClassArgs),
}

pub(crate) fn run(target: &Target, command: &FileCommand) -> anyhow::Result<ExitCode> {
    match command {
        FileCommand::Class(args) => class::run(target, args),
    }
}
