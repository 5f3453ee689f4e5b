//! `mooseng class remove`.

use std::process::ExitCode;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::admin;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Its name.
    name: String,
    /// Only say whether it can go.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed<'a> {
    schema: u32,
    removed: &'a str,
    dry_run: bool,
}

pub(super) fn run(target: &Target, args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let (name, dry_run) = (&args.name, args.dry_run);
    let request = pb::RemoveClassRequest { name: name.clone(), dry_run };
    admin::ask_leader(&admin::masters(target)?, &request)?;
    if args.json {
        output::json(&Removed { schema: 1, removed: name, dry_run })?;
    } else {
        let done = if dry_run { "can be removed: no object has it" } else { "is removed" };
        output::line(&format!("class {name} {done}"));
    }
    Ok(ExitCode::SUCCESS)
}
