//! What `mooseng cluster status --json` says of the masters, and waiting until they are all there again.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{shell, wait};

/// A master that is not reached costs the tool some seconds each.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// Entries that a follower may be behind while the load goes on.
const BEHIND_MAX: u64 = 200;

/// The masters, as the leader sees them, or as any of them does.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) leader: Option<String>,
    /// Of the formats that are written; builds from before there were levels do not say it.
    #[serde(default)]
    pub(crate) level: u32,
    pub(crate) masters: Vec<Master>,
    /// The groups that the masters host.
    #[serde(default)]
    pub(crate) cells: Vec<Cell>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Cell {
    /// Builds from before it was said do not say it.
    #[serde(default)]
    pub(crate) voters: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Master {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) applied_index: u64,
    /// Chunkservers that it hears; `None` if it does not answer.
    #[serde(default)]
    pub(crate) servers_up: Option<u64>,
}

impl Status {
    /// Asks by way of `command`, which is `mooseng` with the words that name the cluster.
    pub(crate) fn ask(mut command: Command) -> Result<Status> {
        command.args(["cluster", "status", "--json"]);
        // Without a leader there is a status too; only the exit code differs.
        let done = shell::finish(&mut command, ASK_LIMIT)?;
        serde_json::from_str(&done.stdout).with_context(|| shell::tail(&done.stderr).to_owned())
    }

    /// A leader, and every master within `BEHIND_MAX` entries of it.
    pub(crate) fn in_sync(&self) -> bool {
        let most = self.masters.iter().map(|master| master.applied_index).max().unwrap_or(0);
        let reached = |role: &str| role == "leader" || role == "follower";
        self.leader.is_some()
            && self
                .masters
                .iter()
                .all(|master| reached(&master.role) && master.applied_index + BEHIND_MAX >= most)
    }

    pub(crate) fn follower(&self, number: usize) -> Option<&str> {
        let followers: Vec<&Master> = self.masters.iter().filter(|m| m.role == "follower").collect();
        followers.get(number % followers.len().max(1)).map(|master| master.name.as_str())
    }
}

/// Waits until all masters are there and have what the leader has; answers the last status.
pub(crate) fn wait_in_sync(limit: Duration, command: impl Fn() -> Command) -> Result<Status> {
    let mut last = None;
    let waited = wait::until(limit, "all masters to be in sync", || {
        let status = Status::ask(command()).ok();
        let done = status.as_ref().is_some_and(Status::in_sync);
        last = status.or(last.take());
        Ok(done)
    });
    waited.with_context(|| format!("last seen: {last:?}"))?;
    last.context("no status")
}

/// Waits until all masters vote in each of so many groups: one that comes in gets a snapshot of each.
pub(crate) fn wait_for_groups(limit: Duration, groups: usize, command: impl Fn() -> Command) -> Result<()> {
    let mut last = None;
    let waited = wait::until(limit, "all masters to vote in all groups", || {
        let status = Status::ask(command()).ok();
        let done = status.as_ref().is_some_and(|status| {
            let complete = status.cells.iter().filter(|cell| cell.voters == status.masters.len()).count();
            last = Some(complete);
            complete == groups
        });
        Ok(done)
    });
    waited.with_context(|| format!("last seen: {last:?} groups complete"))
}

/// Whether this build can hand the leadership over.
pub(crate) fn can_transfer(mut mooseng: Command) -> bool {
    let help = shell::finish(mooseng.args(["cluster", "transfer-leader", "--help"]), ASK_LIMIT);
    help.is_ok_and(|done| done.status.success())
}

/// The leader hands over to whichever follower it chooses.
pub(crate) fn transfer(mut mooseng: Command) -> Result<()> {
    shell::stdout_within(mooseng.args(["cluster", "transfer-leader"]), ASK_LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(leader: &str, masters: &[(&str, u64)]) -> Status {
        let master = |(role, at): &(&str, u64)| {
            format!("{{\"name\":\"m\",\"role\":\"{role}\",\"applied_index\":{at},\"id\":1}}")
        };
        let masters: Vec<String> = masters.iter().map(master).collect();
        serde_json::from_str(&format!("{{\"leader\":{leader},\"masters\":[{}]}}", masters.join(","))).unwrap()
    }

    #[test]
    fn in_sync_means_all_there_with_a_leader_and_nobody_far_behind() {
        assert!(status("\"m\"", &[("leader", 500), ("follower", 400)]).in_sync());
        assert!(!status("\"m\"", &[("leader", 5000), ("follower", 400)]).in_sync());
        assert!(!status("\"m\"", &[("leader", 500), ("unreachable", 500)]).in_sync());
        assert!(!status("null", &[("follower", 500), ("follower", 500)]).in_sync());
    }
}
