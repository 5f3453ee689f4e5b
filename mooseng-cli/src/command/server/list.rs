//! `mooseng server list`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::Target;
use crate::admin::{self, Server};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    schema: u32,
    servers: &'a [Server],
}

pub(super) fn run(target: &Target, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let mut servers = admin::cluster_status(&admin::masters(target)?)?.servers;
    servers.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
    if args.json {
        output::json(&Json { schema: 1, servers: &servers })?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = servers.iter().map(row).collect();
    output::table(&["ID", "CHUNKSERVER", "STATE", "MODE", "COPIES", "FREE", "TOTAL", "LABELS"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(it: &Server) -> Vec<String> {
    vec![
        it.id.to_string(),
        it.name.clone(),
        it.state.clone(),
        mode(it),
        it.chunks.to_string(),
        output::bytes(it.free_bytes),
        output::bytes(it.total_bytes),
        it.labels.join(","),
    ]
}

/// What it is there for, and what that means now.
fn mode(it: &Server) -> String {
    match it.mode {
        "draining" if it.empty == Some(true) => "draining: safe to pull now".to_owned(),
        "maintenance" => {
            let until = mooseng_types::TimeNs::from_raw(it.maintenance_until_ns);
            format!("maintenance until {}", output::time(until))
        }
        mode => mode.to_owned(),
    }
}
