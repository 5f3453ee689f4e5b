//! `mooseng cluster`: what the cluster looks like.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::Target;
use crate::admin::{self, ClusterStatus};
use crate::output;

/// What can be done with the cluster as a whole.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Masters, chunkservers and totals. Exit code 3 if there is no leader.
    Status(StatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    status: &'a ClusterStatus,
    leader: Option<&'a str>,
}

pub(crate) fn run(target: &Target, command: &ClusterCommand) -> anyhow::Result<ExitCode> {
    let ClusterCommand::Status(args) = command;
    let status = admin::cluster_status(&admin::masters(target)?)?;
    let leader =
        status.masters.iter().find(|master| master.role == "leader").map(|master| master.name.as_str());
    if args.json {
        output::json(&Json { status: &status, leader })?;
    } else {
        print(&status);
    }
    Ok(if leader.is_some() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn print(status: &ClusterStatus) {
    output::line(&format!("cluster {}", status.cluster_id));
    let rows: Vec<Vec<String>> = status
        .masters
        .iter()
        .map(|m| {
            vec![
                m.name.clone(),
                m.role.clone(),
                m.address.clone(),
                m.term.to_string(),
                m.applied_index.to_string(),
            ]
        })
        .collect();
    output::line("");
    output::table(&["MASTER", "ROLE", "ADDRESS", "TERM", "APPLIED"], &rows);
    let rows: Vec<Vec<String>> = status
        .servers
        .iter()
        .map(|s| {
            let disks = format!("{}{}", s.disks, if s.disks_failed > 0 { " (failed!)" } else { "" });
            let (free, total) = (output::bytes(s.free_bytes), output::bytes(s.total_bytes));
            vec![s.name.clone(), s.state.clone(), s.address.clone(), free, total, s.chunks.to_string(), disks]
        })
        .collect();
    output::line("");
    output::table(&["CHUNKSERVER", "STATE", "ADDRESS", "FREE", "TOTAL", "COPIES", "DISKS"], &rows);
    output::line("");
    output::line(&format!(
        "{} objects, {} in files, {} chunks, {} sessions",
        status.inodes,
        output::bytes(status.used_bytes),
        status.chunks,
        status.sessions
    ));
}
