//! `mooseng server drain`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use mooseng_env::{Clock as _, SystemClock};
use mooseng_protocol::pb;
use serde::Serialize;

use crate::Target;
use crate::admin::{self, Masters};
use crate::output;

/// How often the masters are asked how far it is.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Its name or number.
    server: String,
    /// Stop it: the server gets copies again.
    #[arg(long, conflicts_with_all = ["force", "wait"])]
    undo: bool,
    /// Begin though some of its copies have nowhere to go.
    #[arg(long)]
    force: bool,
    /// Only say what would be moved, and what is in the way.
    #[arg(long, conflicts_with_all = ["undo", "wait"])]
    dry_run: bool,
    /// Wait until the server can be taken away.
    #[arg(long)]
    wait: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Drained<'a> {
    schema: u32,
    server: &'a str,
    mode: &'static str,
    dry_run: bool,
    /// Copies that the server had when it began.
    copies: u64,
    warnings: Vec<String>,
    /// No chunk counts a copy of its any more.
    safe_to_pull: bool,
}

pub(super) fn run(target: &Target, args: &DrainArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let server = status.find_server(&args.server)?;
    let masters = masters.with_told(&status);
    let mode = if args.undo { pb::ServerMode::Normal } else { pb::ServerMode::Draining };
    let request = |dry_run| pb::SetServerModeRequest {
        server: server.id,
        mode: mode.into(),
        force: args.force,
        dry_run,
        ..Default::default()
    };
    let plan = admin::ask_leader(&masters, &request(true))?;
    let mut safe = server.empty == Some(true);
    if !args.dry_run {
        admin::ask_leader(&masters, &request(false))?;
        if args.wait {
            wait(&masters, server.id)?;
            safe = true;
        }
    }
    let name = &server.name;
    if args.json {
        let mode = if args.undo { "normal" } else { "draining" };
        let (copies, dry_run, warnings) = (plan.copies, args.dry_run, plan.warnings);
        let safe_to_pull = safe && !args.undo;
        let drained = Drained { schema: 1, server: name, mode, dry_run, copies, warnings, safe_to_pull };
        output::json(&drained)?;
        return Ok(ExitCode::SUCCESS);
    }
    match () {
        () if args.undo => output::line(&format!("{name} gets copies again")),
        () if args.dry_run => {
            output::line(&format!("{} copies of {name} would go to other servers", plan.copies));
            plan.warnings.iter().for_each(|warning| output::line(&format!("in the way: {warning}")));
        }
        () if safe => output::line(&format!("{name} is drained: safe to pull now")),
        () => output::line(&format!(
            "{name} is being drained of {} copies: mooseng server list says when it can be taken away",
            plan.copies
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// Until no chunk counts a copy of the server.
fn wait(masters: &Masters, id: u32) -> anyhow::Result<()> {
    let (clock, begun) = (SystemClock::default(), Instant::now());
    let mut first = None;
    loop {
        let status = admin::cluster_status(masters)?;
        let Some(server) = status.servers.iter().find(|it| it.id == id) else {
            bail!("the server is not known any more");
        };
        if server.mode != "draining" {
            bail!("{} is not being drained any more: somebody has ended that", server.name);
        }
        if server.empty == Some(true) {
            return Ok(());
        }
        let first = *first.get_or_insert(server.chunks);
        if std::io::stderr().is_terminal() {
            output::note(&progress(first, server.chunks, begun.elapsed()));
        }
        clock.sleep(INTERVAL);
    }
}

/// How far it is, and when it will be done if it goes on as it did.
fn progress(first: u64, left: u64, elapsed: Duration) -> String {
    let moved = first.saturating_sub(left);
    let rate = moved as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
    if moved == 0 {
        return format!("{left} copies left");
    }
    format!("{left} copies left, {rate:.0}/s, about {:.0} s to go", left as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_the_rate_and_the_time_to_go_once_there_is_a_rate() {
        assert_eq!(progress(100, 100, Duration::from_secs(1)), "100 copies left");
        assert_eq!(progress(100, 60, Duration::from_secs(10)), "60 copies left, 4/s, about 15 s to go");
    }
}
