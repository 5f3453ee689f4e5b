//! `mooseng cluster upgrade`: the formats of a release count once every part can read them.

use std::process::ExitCode;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::admin;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Only say what would be done, and who cannot go along.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Upgraded {
    level_before: u32,
    level: u32,
    dry_run: bool,
}

pub(super) fn run(target: &Target, args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    let dry_run = args.dry_run;
    let reply = admin::ask_leader(&admin::masters(target)?, &pb::UpgradeRequest { dry_run })?;
    let pb::UpgradeReply { level_before, level } = reply;
    if args.json {
        output::json(&Upgraded { level_before, level, dry_run })?;
    } else if dry_run {
        output::line(&format!("would be done: the level rises from {level_before} to {level}"));
    } else {
        output::line(&format!("the level has risen from {level_before} to {level}"));
        output::note("releases that do not know it are refused from here on; there is no way back");
    }
    Ok(ExitCode::SUCCESS)
}
