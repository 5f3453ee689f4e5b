//! `mooseng chunk`: the chunks of files and their copies.

mod list;
mod matrix;
mod quarantine;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Target;

/// What can be seen of chunks.
#[derive(Debug, Subcommand)]
pub(crate) enum ChunkCommand {
    /// How many chunks should have how many copies, and how many have them.
    Matrix(matrix::MatrixArgs),
    /// All chunks in a condition, with their files and copies.
    List(list::ListArgs),
    /// One chunk, with its file and copies.
    Show(list::ShowArgs),
    /// Copies that were set aside and are kept for a while.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
}

pub(crate) fn run(target: &Target, command: &ChunkCommand) -> anyhow::Result<ExitCode> {
    match command {
        ChunkCommand::Matrix(args) => matrix::run(target, args),
        ChunkCommand::List(args) => list::list(target, args),
        ChunkCommand::Show(args) => list::show(target, args),
        ChunkCommand::Quarantine(command) => quarantine::run(target, command),
    }
}
