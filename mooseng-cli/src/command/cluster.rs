//! `mooseng cluster`: what the cluster looks like, and changes of the masters' group.

mod members;
mod recover;
mod status;
mod upgrade;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Target;

/// What can be done with the cluster as a whole.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Masters, chunkservers and totals. Exit code 3 if there is no leader.
    Status(status::StatusArgs),
    /// Let a master that asks to be let in into the group.
    AddMaster(members::AddArgs),
    /// Take a master out of the group.
    RemoveMaster(members::RemoveArgs),
    /// Let another master lead.
    TransferLeader(members::TransferArgs),
    /// After all parts have a new release: write its formats from here on. Says who cannot read them yet.
    Upgrade(upgrade::UpgradeArgs),
    /// After a majority of the masters was lost for good: make the group anew from one stopped master's data directory.
    Recover(recover::RecoverArgs),
}

pub(crate) fn run(target: &Target, command: &ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Status(args) => status::run(target, args),
        ClusterCommand::AddMaster(args) => members::add(target, args),
        ClusterCommand::RemoveMaster(args) => members::remove(target, args),
        ClusterCommand::TransferLeader(args) => members::transfer(target, args),
        ClusterCommand::Upgrade(args) => upgrade::run(target, args),
        ClusterCommand::Recover(args) => recover::run(args),
    }
}
