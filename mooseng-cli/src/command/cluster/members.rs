//! `mooseng cluster add-master`, `remove-master` and `transfer-leader`.
//!
//! A change is made by one request to the leader. What follows takes its time (a new master gets all rows, another one
//! takes over), so the commands look on until it has happened; that they stop looking changes nothing.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use mooseng_env::{Clock as _, SystemClock};
use mooseng_protocol::pb;
use serde::Serialize;
use signal_hook::consts::SIGINT;

use crate::Target;
use crate::admin::{self, ClusterStatus, Master, Masters};
use crate::output;
use crate::time;

/// How often the cluster is looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a hand-over is looked at: it takes some milliseconds.
const LOOK_OFTEN: Duration = Duration::from_millis(2);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a master that was just started may take until it asks to be let in.
const KNOCK_MAX: Duration = Duration::from_secs(10);
/// How long a hand-over may take: longer than any election.
const TRANSFER_MAX: Duration = Duration::from_secs(10);
/// How long a leader that has just taken over may take until it knows who answers it.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// Entries that a learner may lack and still count as caught up: some are always on their way.
const NEARLY: u64 = 64;
/// The exit code of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Its name, or its number.
    #[arg(value_name = "NAME|NUMBER")]
    name: String,
    /// Keep it a learner for good: a copy of the metadata, without a vote.
    #[arg(long)]
    learner: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it has caught up.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait: 90s, 10m or 2h.
    #[arg(long, default_value = "10m", value_parser = time::parse)]
    timeout: Duration,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Its name, or its number.
    #[arg(value_name = "NAME|NUMBER")]
    name: String,
    /// If it leads, let another master lead first.
    #[arg(long)]
    transfer: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Its name, or its number. Left out: the one that is best prepared.
    #[arg(value_name = "NAME|NUMBER", default_value = "", hide_default_value = true)]
    name: String,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    done: String,
    dry_run: bool,
    /// The master as it is afterwards, where it was waited for.
    master: Option<Master>,
    took_ms: Option<u64>,
}

impl Done {
    fn tell(&self, json: bool) -> anyhow::Result<ExitCode> {
        if json {
            output::json(self)?;
        } else if self.dry_run {
            output::line(&format!("would be done: {}", self.done));
        } else {
            output::line(&self.done);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn add(target: &Target, args: &AddArgs) -> anyhow::Result<ExitCode> {
    // From the first moment on, so that Ctrl-C never ends the command between the change and its report.
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGINT, Arc::clone(&interrupted)).context("wait for Ctrl-C")?;
    let masters = admin::masters(target)?;
    let status = wait_for_knock(&masters, &args.name, &interrupted)?;
    if interrupted.load(Ordering::Relaxed) {
        output::note("interrupted before anything was done");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let masters = masters.with_told(&status);
    let request =
        pb::AddMasterRequest { master: args.name.clone(), learner: args.learner, dry_run: args.dry_run };
    let done = admin::ask_leader(&masters, &request)?.done;
    let report = Done { done, dry_run: args.dry_run, master: None, took_ms: None };
    if args.dry_run || args.no_wait {
        return report.tell(args.json);
    }
    output::note(&report.done);
    let wait = Joining { masters: &masters, args, interrupted: &interrupted };
    match wait.until_it_takes_part()? {
        Some((master, took)) => {
            let what = if args.learner { "a learner, and has caught up" } else { "a voter" };
            let done = format!("{} is {what}", master.name);
            Done { done, dry_run: false, master: Some(master), took_ms: Some(millis(took)) }.tell(args.json)
        }
        None => {
            output::note(&format!(
                "not waiting any longer; {} goes on joining, as `mooseng cluster status` shows",
                args.name
            ));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// Whoever was started a moment ago has not asked yet. If nobody asks in time, the leader says what to do.
fn wait_for_knock(masters: &Masters, name: &str, stop: &AtomicBool) -> anyhow::Result<ClusterStatus> {
    let clock = SystemClock::default();
    let mut told = false;
    loop {
        let status = admin::cluster_status(masters)?;
        let known = status.find_joining(name).is_some() || status.find(name).is_some();
        if known || clock.monotonic() > KNOCK_MAX || stop.load(Ordering::Relaxed) {
            return Ok(status);
        }
        if !std::mem::replace(&mut told, true) {
            output::note(&format!("waiting for {name} to ask to be let in"));
        }
        clock.sleep(LOOK_EVERY);
    }
}

/// A master on its way into the group.
struct Joining<'a> {
    masters: &'a Masters,
    args: &'a AddArgs,
    interrupted: &'a AtomicBool,
}

impl Joining<'_> {
    /// The master as it is then and how long it took; `None` if nobody wants to wait any longer.
    fn until_it_takes_part(&self) -> anyhow::Result<Option<(Master, Duration)>> {
        let clock = SystemClock::default();
        let mut last_told = None;
        loop {
            // That nobody leads for a moment is no reason to give up.
            let status = admin::cluster_status(self.masters).ok();
            let found = status.as_ref().and_then(|status| Some((status.find(&self.args.name)?, status)));
            if let Some((master, status)) = found {
                let commit = status.leader().map_or(u64::MAX, |leader| leader.commit_index);
                if takes_part(master, commit, self.args.learner) {
                    return Ok(Some((master.clone(), clock.monotonic())));
                }
                let due = last_told.is_none_or(|at| clock.monotonic().saturating_sub(at) >= TELL_EVERY);
                if due && commit < u64::MAX {
                    last_told = Some(clock.monotonic());
                    let (name, role, has) = (&master.name, &master.role, master.applied_index);
                    output::note(&format!("{name}: {role}, has {has} of {commit} entries"));
                }
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(None);
            }
            ensure!(
                clock.monotonic() < self.args.timeout,
                "{} has not caught up in {} s; it goes on joining: look with `mooseng cluster status` and into its log",
                self.args.name,
                self.args.timeout.as_secs()
            );
            clock.sleep(LOOK_EVERY);
        }
    }
}

fn takes_part(master: &Master, commit: u64, learner: bool) -> bool {
    let answers = !["unreachable", "joining"].contains(&master.role.as_str());
    let up_to_date = master.applied_index.saturating_add(NEARLY) >= commit;
    answers && up_to_date && (learner || master.voter)
}

pub(super) fn remove(target: &Target, args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let masters = masters.with_told(&status);
    let leads = status.leader().zip(status.find(&args.name)).filter(|(leader, it)| leader.id == it.id);
    if let Some((leader, _)) = leads.filter(|_| args.transfer) {
        let name = leader.name.clone();
        let (to, took) = hand_over(&masters, "", args.dry_run)?;
        if args.dry_run {
            let done = format!("{to} leads instead of {name}, then {name} leaves");
            return Done { done, dry_run: true, master: None, took_ms: None }.tell(args.json);
        }
        output::note(&format!("{to} leads instead of {name}, after {} ms", millis(took)));
    }
    let request = pb::RemoveMasterRequest { master: args.name.clone(), dry_run: args.dry_run };
    let clock = SystemClock::default();
    let reply = loop {
        match admin::ask_leader(&masters, &request) {
            Err(_) if leads.is_some() && args.transfer && clock.monotonic() < SETTLE_MAX => {
                clock.sleep(LOOK_EVERY);
            }
            other => break other?,
        }
    };
    if !args.dry_run {
        output::note(&format!("now stop {}; its data directory is of no more use", args.name));
    }
    Done { done: reply.done, dry_run: args.dry_run, master: None, took_ms: None }.tell(args.json)
}

pub(super) fn transfer(target: &Target, args: &TransferArgs) -> anyhow::Result<ExitCode> {
    let masters = admin::masters(target)?;
    let status = admin::cluster_status(&masters)?;
    let masters = masters.with_told(&status);
    let (to, took) = hand_over(&masters, &args.name, args.dry_run)?;
    if args.dry_run {
        let done = format!("{to} leads");
        return Done { done, dry_run: true, master: None, took_ms: None }.tell(args.json);
    }
    let took_ms = millis(took);
    let done = format!("{to} leads, after {took_ms} ms");
    Done { done, dry_run: false, master: None, took_ms: Some(took_ms) }.tell(args.json)
}

/// Lets `to` lead, or whoever is best prepared; returns who leads then and how long it took.
fn hand_over(masters: &Masters, to: &str, dry_run: bool) -> anyhow::Result<(String, Duration)> {
    let request = pb::TransferLeaderRequest { master: to.to_owned(), dry_run };
    let clock = SystemClock::default();
    let to = admin::ask_leader(masters, &request)?.to;
    if dry_run {
        return Ok((to, Duration::ZERO));
    }
    let begun = clock.monotonic();
    loop {
        let status = admin::cluster_status(masters)?;
        let took = clock.monotonic().saturating_sub(begun);
        match status.leader() {
            Some(leader) if leader.name == to => return Ok((to, took)),
            Some(leader) if took > TRANSFER_MAX => {
                bail!("{to} did not take over in time; {} leads: look at the log of {to}", leader.name)
            }
            None if took > TRANSFER_MAX => bail!("{to} did not take over in time, and nobody leads"),
            _ => clock.sleep(LOOK_OFTEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_takes_part_when_it_answers_has_caught_up_and_votes() {
        let master = |role: &str, voter, applied_index| Master {
            id: 4,
            name: "m4".into(),
            role: role.into(),
            voter,
            address: String::new(),
            term: 1,
            commit_index: 0,
            applied_index,
            servers_up: Some(0),
            door: None,
        };
        assert!(takes_part(&master("follower", true, 1000), 1010, false));
        assert!(takes_part(&master("learner", false, 1000), 1010, true));
        assert!(!takes_part(&master("learner", false, 1000), 1010, false));
        assert!(!takes_part(&master("learner", false, 100), 1010, true));
        assert!(!takes_part(&master("unreachable", true, 1010), 1010, false));
    }
}
