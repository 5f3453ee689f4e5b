//! `mooseng class`: storage classes, what they want and whether it can be had.

mod exchange;
mod explain;
mod list;
mod put;
mod remove;
mod view;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Target;

/// What can be done with storage classes.
#[derive(Debug, Subcommand)]
pub(crate) enum ClassCommand {
    /// All classes, and whether the servers that are up can fulfil them.
    List(list::ListArgs),
    /// One class, with what each of its states finds on the servers that are up.
    Show(list::ShowArgs),
    /// Make a class.
    Create(put::CreateArgs),
    /// Change a class, for all objects that have it. What is not named stays.
    Change(put::ChangeArgs),
    /// Remove a class that no object has.
    Remove(remove::RemoveArgs),
    /// Where a new chunk of a file, or of a new file in a directory, would go, and why.
    Explain(explain::ExplainArgs),
    /// All classes, as a file for `import`.
    Export(exchange::ExportArgs),
    /// Make the classes of a file.
    Import(exchange::ImportArgs),
}

pub(crate) fn run(target: &Target, command: &ClassCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClassCommand::List(args) => list::list(target, args),
        ClassCommand::Show(args) => list::show(target, args),
        ClassCommand::Create(args) => put::create(target, args),
        ClassCommand::Change(args) => put::change(target, args),
        ClassCommand::Remove(args) => remove::run(target, args),
        ClassCommand::Explain(args) => explain::run(target, args),
        ClassCommand::Export(args) => exchange::export(target, args),
        ClassCommand::Import(args) => exchange::import(target, args),
    }
}
