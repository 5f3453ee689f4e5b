//! `mooseng server maintenance`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::{admin, output, time};

#[derive(Debug, Args)]
pub(crate) struct MaintenanceArgs {
    /// Its name or number.
    server: String,
    /// How long it may be away, as in 30m or 2h.
    #[arg(long = "for", value_name = "TIME", value_parser = time::parse, default_value = "1h", conflicts_with = "end")]
    length: Duration,
    /// End it now.
    #[arg(long)]
    end: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Maintained<'a> {
    schema: u32,
    server: &'a str,
    mode: &'static str,
    seconds: u64,
}

pub(super) fn run(target: &Target, args: &MaintenanceArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let server = status.find_server(&args.server)?;
    let (mode, seconds) = match args.end {
        true => (pb::ServerMode::Normal, 0),
        false => (pb::ServerMode::Maintenance, args.length.as_secs()),
    };
    let request = pb::SetServerModeRequest {
        server: server.id,
        mode: mode.into(),
        maintenance_s: seconds,
        ..Default::default()
    };
    admin::ask_leader(&masters.with_told(&status), &request)?;
    let name = &server.name;
    if args.json {
        let mode = if args.end { "normal" } else { "maintenance" };
        output::json(&Maintained { schema: 1, server: name, mode, seconds })?;
    } else if args.end {
        output::line(&format!("the maintenance of {name} has ended"));
    } else {
        output::line(&format!(
            "{name} may be away for {}: its copies are not made again elsewhere, and it gets no new ones",
            time::seconds(u32::try_from(seconds).unwrap_or(u32::MAX))
        ));
    }
    Ok(ExitCode::SUCCESS)
}
