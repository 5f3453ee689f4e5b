//! `mooseng cluster recover`: the group made anew from one stopped master's data directory, after a majority of the
//! masters was lost for good.
//!
//! What may be lost by it is said first, and the cluster's id has to be typed: nobody does this by mistake.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use mooseng_master::config::Config;
use mooseng_master::recover::{self, Plan};
use mooseng_protocol::principal::{Keyring, Role};
use serde::Serialize;

use crate::admin::{self, Masters};
use crate::output;

/// The exit code of a mistake in the configuration or on the command line.
const MISTAKE: u8 = 2;

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The configuration of the stopped master.
    #[arg(long, value_name = "MASTER.toml")]
    config: PathBuf,
    /// Do it; without this, only say what would be done.
    #[arg(long = "unsafe")]
    really: bool,
    /// The cluster's id, instead of typing it.
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// The plan, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    cluster_id: String,
    master: u64,
    name: String,
    last_index: u64,
    last_term: u64,
    last_time: Option<String>,
    applied_index: u64,
    committed_index: u64,
    epoch: u64,
    next_epoch: u64,
    left_out: Vec<LeftOut>,
    done: bool,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    name: String,
    address: String,
}

impl Shown {
    fn new(config: &Config, plan: &Plan) -> Self {
        let left_out = plan.left_out.iter();
        let left_out = left_out.map(|it| LeftOut { name: it.name.clone(), address: it.address.clone() });
        Self {
            cluster_id: plan.cluster.to_string(),
            master: plan.id.number(),
            name: config.name.clone(),
            last_index: plan.last.0,
            last_term: plan.last.1,
            last_time: plan.stamp.map(output::time),
            applied_index: plan.applied,
            committed_index: plan.committed,
            epoch: plan.group.epoch,
            next_epoch: plan.next_epoch(),
            left_out: left_out.collect(),
            done: false,
        }
    }

    fn time(&self) -> &str {
        self.last_time.as_deref().unwrap_or("at a time that its log does not hold any more")
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.left_out.iter().map(|it| it.name.as_str()).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
    }

    fn lines(&self) -> Vec<String> {
        let Self { last_index, last_term, committed_index, epoch, next_epoch, .. } = self;
        let mut lines = vec![
            format!("cluster {}, master {} ({})", self.cluster_id, self.master, self.name),
            format!("last entry: {last_index} of term {last_term}, {}", self.time()),
            format!("known to be on a majority: up to entry {committed_index}"),
        ];
        for it in &self.left_out {
            lines.push(format!("left out: {} at {}", it.name, it.address));
        }
        lines.push(format!(
            "the group of epoch {epoch} becomes one of epoch {next_epoch}, with {} alone",
            self.name
        ));
        lines
    }

    fn warning(&self) -> Vec<String> {
        let (index, time, names) = (self.last_index, self.time(), self.names());
        let mut lines =
            vec![format!("Everything that was acknowledged after entry {index} ({time}) is lost.")];
        let first = self.committed_index + 1;
        if first <= index {
            lines.push(format!(
                "Entries {first} to {index} count from now on, whether or not a majority had them."
            ));
        }
        lines.push(format!(
            "Left out: {names}. Never start one of them again with its present data directory."
        ));
        lines
    }
}

pub(super) fn run(args: &RecoverArgs) -> anyhow::Result<ExitCode> {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            output::error(&error.into());
            return Ok(ExitCode::from(MISTAKE));
        }
    };
    let plan = recover::plan(&config)?;
    let mut shown = Shown::new(&config, &plan);
    if plan.is_alone() {
        bail!(
            "{} is alone in its group (epoch {}): there is nothing to make anew; start it",
            config.name,
            plan.group.epoch
        );
    }
    if !args.really {
        if args.json {
            output::json(&shown)?;
        } else {
            shown.lines().iter().for_each(|line| output::line(line));
            output::line("nothing was changed; --unsafe does it");
        }
        return Ok(ExitCode::SUCCESS);
    }
    refuse_if_others_live(&config, &plan)?;
    let told = shown.lines().into_iter().chain(shown.warning());
    told.for_each(|line| output::note(&line));
    if let Err(error) = confirm(&shown.cluster_id, args.cluster.as_deref()) {
        output::error(&error);
        return Ok(ExitCode::from(MISTAKE));
    }
    recover::recover(&config, &plan)?;
    shown.done = true;
    if args.json {
        output::json(&shown)?;
    } else {
        output::line(&format!("done: {} is the group of epoch {}; start it", config.name, shown.next_epoch));
    }
    Ok(ExitCode::SUCCESS)
}

/// A group that lives must not be made anew beside itself. A master of it that merely runs could make it live again.
fn refuse_if_others_live(config: &Config, plan: &Plan) -> anyhow::Result<()> {
    let own = plan.id.number();
    let configured = config.peers.iter().filter(|peer| peer.id != own).map(|peer| peer.address.clone());
    let members = plan.group.members.iter().filter(|it| it.id != plan.id).map(|it| it.address.clone());
    let mut addresses: Vec<String> = configured.chain(members).collect();
    addresses.sort();
    addresses.dedup();
    let key = Keyring::derive(config.secret.bytes()).of(Role::Admin).clone();
    let Ok(status) = admin::cluster_status(&Masters::new(addresses, key)) else { return Ok(()) };
    if status.cluster_id != plan.cluster.to_string() {
        return Ok(());
    }
    if let Some(leader) = status.leader() {
        bail!(
            "the group lives: {} at {} leads it (epoch {}). Nothing was done; to bring this master back, move its data directory away and start it",
            leader.name,
            leader.address,
            status.epoch
        );
    }
    let running = status.masters.iter().filter(|it| !["unreachable", "removed"].contains(&it.role.as_str()));
    let running: Vec<String> = running.map(|it| format!("{} at {}", it.name, it.address)).collect();
    if !running.is_empty() {
        bail!(
            "{} runs. Nothing was done; if enough of the others can be brought back, do that; if not, stop it first, and never start it again with its present data directory",
            running.join(", ")
        );
    }
    Ok(())
}

fn confirm(cluster: &str, given: Option<&str>) -> anyhow::Result<()> {
    let typed = match given {
        Some(given) => given.to_owned(),
        None if std::io::stdin().is_terminal() => {
            output::note("type the cluster's id to do it:");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line)?;
            line
        }
        None => bail!("nothing was done: give the cluster's id with --cluster, or type it on a terminal"),
    };
    if typed.trim() != cluster {
        bail!("nothing was done: that is not the cluster's id, which is {cluster}");
    }
    Ok(())
}
