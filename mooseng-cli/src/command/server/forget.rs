//! `mooseng server forget`.

use std::process::ExitCode;

use clap::Args;
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::{admin, output};

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Its name or number.
    server: String,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Forgotten<'a> {
    schema: u32,
    forgotten: &'a str,
}

pub(super) fn run(target: &Target, args: &ForgetArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let server = status.find_server(&args.server)?;
    admin::ask_leader(&masters.with_told(&status), &pb::ForgetServerRequest { server: server.id })?;
    let name = &server.name;
    if args.json {
        output::json(&Forgotten { schema: 1, forgotten: name })?;
    } else {
        output::line(&format!("{name} is forgotten"));
    }
    Ok(ExitCode::SUCCESS)
}
