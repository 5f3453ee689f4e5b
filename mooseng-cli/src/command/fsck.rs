//! `mooseng fsck`: the metadata checked against itself by the leader.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::admin;
use crate::output;

/// It reads all of the metadata once.
const LIMIT: Duration = Duration::from_secs(3600);

/// What fsck takes.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    violations: Vec<String>,
    inodes: u64,
    chunks: u64,
}

/// Exit code 0 if all is right, 1 if not.
pub(crate) fn run(target: &Target, args: &FsckArgs) -> anyhow::Result<ExitCode> {
    let reply = admin::ask_leader_within(&admin::masters(target)?, &pb::CheckRequest {}, LIMIT)?;
    let report = Report { violations: reply.violations, inodes: reply.inodes, chunks: reply.chunks };
    if args.json {
        output::json(&report)?;
    } else {
        report.violations.iter().for_each(|violation| output::line(violation));
        let verdict = if report.violations.is_empty() { "clean" } else { "NOT clean" };
        output::line(&format!("{verdict}: {} objects and {} chunks checked", report.inodes, report.chunks));
    }
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
