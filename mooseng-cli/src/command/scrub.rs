//! `mooseng scrub`: the passes in which chunkservers read and check all their copies.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::admin::{self, Server};
use crate::output;

/// What can be done with the passes.
#[derive(Debug, Subcommand)]
pub(crate) enum ScrubCommand {
    /// Begin a new pass now, in place of the one that is under way.
    Start(ScrubArgs),
    /// Stop until it is resumed; a restart of the server changes nothing.
    Pause(ScrubArgs),
    /// Go on.
    Resume(ScrubArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ScrubArgs {
    /// Names or numbers of chunkservers [default: all].
    servers: Vec<String>,
    /// Only this disk of theirs: its directory.
    #[arg(long, value_name = "DIR")]
    disk: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Done<'a> {
    schema: u32,
    done: &'static str,
    servers: &'a [&'a str],
}

pub(crate) fn run(target: &Target, command: &ScrubCommand) -> anyhow::Result<ExitCode> {
    let (args, action, done) = match command {
        ScrubCommand::Start(args) => (args, pb::ScrubAction::Start, "started"),
        ScrubCommand::Pause(args) => (args, pb::ScrubAction::Pause, "paused"),
        ScrubCommand::Resume(args) => (args, pb::ScrubAction::Resume, "resumed"),
    };
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let servers: Vec<&Server> = match args.servers.as_slice() {
        [] => status.servers.iter().collect(),
        words => words.iter().map(|word| status.find_server(word)).collect::<Result<_, _>>()?,
    };
    let disk = args.disk.clone().unwrap_or_default();
    let (mut did, mut failed) = (Vec::new(), Vec::new());
    for server in servers {
        match masters.ask_server(server, &pb::ScrubRequest { action: action.into(), disk: disk.clone() }) {
            Ok(_) => did.push(server.name.as_str()),
            Err(error) => failed.push(error),
        }
    }
    if args.json {
        output::json(&Done { schema: 1, done, servers: &did })?;
    } else {
        did.iter().for_each(|name| output::line(&format!("{name}: {done}")));
    }
    failed.iter().for_each(output::error);
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
