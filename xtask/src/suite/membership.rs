//! The group of masters changes under a mounted file system in use, by the commands of `docs/operations.md`; nobody who
//! uses the file system sees an error. At the end two of three masters are destroyed, and the third goes on.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use super::journal::Journal;
use super::load::Load;
use super::{Context, Outcome};
use crate::cluster::{Cluster, Options};
use crate::random::Random;
use crate::{mounts, shell, wait};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const STATE_LIMIT: Duration = Duration::from_secs(30);
const THREADS: u64 = 2;
const CHUNKSERVERS: u32 = 2;
/// Ports above the first one, of the masters that `up` does not start.
const OWN_PORTS: u16 = 40;

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let options = Options { masters: 1, chunkservers: CHUNKSERVERS, ..context.options() };
    let mut cluster = Cluster::start(&options)?;
    let mut masters = Masters { options, children: Vec::new() };
    masters.tell_mount()?;
    cluster.remount()?;
    let result = story(context, &cluster, &mut masters);
    result.with_context(|| cluster.last_words())?;
    // The mount ends its session while there are masters.
    let mount = cluster.pid("mount")?;
    mounts::unmount(cluster.mount_point());
    wait::until(STATE_LIMIT, "the mount to end", || Ok(!shell::is_alive(mount)))?;
    for number in [1, 2, 3] {
        masters.stop(number)?;
    }
    cluster.stop()?;
    Ok(Outcome::Passed)
}

fn story(context: &Context, cluster: &Cluster, masters: &mut Masters) -> Result<()> {
    let top = cluster.mount_point().join("membership");
    let places = (0..THREADS).map(|thread| top.join(format!("t{thread}"))).collect();
    let seed = context.seed();
    println!("membership: seed {seed}");
    let mut load = Load::start(context, places, &mut Random::seeded(seed))?;
    step("one master grows to three", &mut load, || {
        masters.let_in(2, &[])?;
        masters.let_in(3, &[])?;
        // From its next start on the first one knows where to look for the others.
        masters.write_config(1)
    })?;
    step("a learner joins and leaves", &mut load, || {
        masters.let_in(4, &["--learner"])?;
        masters.wait_for_role(4, "learner")?;
        masters.mooseng(&["cluster", "remove-master", "master-4"])?;
        masters.stop(4)
    })?;
    step("a master that lost its disk comes back", &mut load, || {
        masters.stop(2)?;
        masters.wipe(2)?;
        masters.start(2)?;
        masters.wait_until_all_vote(3)
    })?;
    step("all masters are restarted one after the other", &mut load, || {
        // The leader last, as the documentation says: then leadership moves once.
        let leader = masters.leader()?;
        for number in (1..=3).filter(|number| *number != leader).chain([leader]) {
            masters.restart(cluster, number)?;
            masters.wait_until_all_vote(3)?;
        }
        Ok(())
    })?;
    step("three shrink to one", &mut load, || {
        for number in [2, 3] {
            masters.mooseng(&["cluster", "remove-master", &format!("master-{number}"), "--transfer"])?;
            masters.stop(number)?;
            masters.wipe(number)?;
        }
        masters.wait_until_all_vote(1)
    })?;
    step("and grow to three again", &mut load, || {
        masters.let_in(2, &[])?;
        masters.let_in(3, &[])?;
        masters.wait_until_all_vote(3)
    })?;
    let journals = load.finish()?;
    let total: u64 = journals.iter().map(|journal| wait::lock(journal).acknowledged).sum();
    println!("membership: {total} operations, none failed, all are there");
    recover(masters, &journals)
}

/// Two of three are destroyed; the third becomes the group.
fn recover(masters: &mut Masters, journals: &[Arc<Mutex<Journal>>]) -> Result<()> {
    let begun = Instant::now();
    masters.wait_until_all_vote(3)?;
    let config = masters.config(1).display().to_string();
    let plan = ["cluster", "recover", "--config", &config];
    masters.refused(&plan, 1, "in use by another process")?;
    masters.kill(2)?;
    masters.kill(3)?;
    masters.wipe(2)?;
    masters.stop(1)?;
    let told = masters.mooseng(&plan)?;
    ensure!(told.contains("left out: master-2") && told.contains("nothing was changed"), "{told}");
    let wrong = ["--unsafe", "--cluster", "00112233445566778899aabbccddeeff"];
    masters.refused(&[&plan[..], &wrong].concat(), 2, "not the cluster's id")?;
    let text = fs::read_to_string(masters.config(1))?;
    let id = text.lines().find_map(|line| line.strip_prefix("cluster_id = ")).context("no cluster id")?;
    let id = id.trim_matches('"').to_owned();
    masters.mooseng(&[&plan[..], &["--unsafe", "--cluster", &id]].concat())?;
    masters.start(1)?;
    masters.wait_until_all_vote(1)?;
    for journal in journals {
        let wrong = wait::lock(journal).audit()?;
        ensure!(wrong.is_empty(), "after the recovery: {}", wrong.join("\n"));
    }
    // One that was left behind hears of it; a new one is let in.
    masters.start(3)?;
    masters.wait_for_role(3, "removed")?;
    masters.let_in(2, &[])?;
    masters.wait_until_all_vote(2)?;
    masters.mooseng(&["fsck"])?;
    println!("membership: two of three destroyed, recovered: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn step(what: &str, load: &mut Load, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    load.reset_stall();
    act().with_context(|| what.to_owned())?;
    load.check().with_context(|| what.to_owned())?;
    println!(
        "membership: {what}: {:.1} s, longest operation {} ms",
        begun.elapsed().as_secs_f64(),
        load.stall().as_millis()
    );
    Ok(())
}

/// Masters that this suite starts and stops itself, beside those of `up`; gone when this is dropped.
struct Masters {
    options: Options,
    children: Vec<(u64, Child)>,
}

impl Masters {
    fn name(number: u64) -> String {
        format!("master-{number}")
    }

    fn address(&self, number: u64) -> String {
        let offset = if number == 1 { 0 } else { OWN_PORTS + u16::try_from(number).unwrap_or(0) };
        format!("127.0.0.1:{}", self.options.port_base + offset)
    }

    fn addresses(&self) -> Vec<String> {
        (1..=4).map(|number| self.address(number)).collect()
    }

    fn data(&self, number: u64) -> PathBuf {
        self.options.data.join(Self::name(number))
    }

    fn config(&self, number: u64) -> PathBuf {
        self.data(number).join("config.toml")
    }

    /// Lists the addresses of all masters that there will be in the mount's configuration.
    fn tell_mount(&self) -> Result<()> {
        let path = self.options.data.join("mount/config.toml");
        let text = fs::read_to_string(&path)?;
        let others = text.lines().filter(|line| !line.starts_with("masters = "));
        let masters = format!("masters = {:?}", self.addresses());
        let text: Vec<&str> = [masters.as_str()].into_iter().chain(others).collect();
        Ok(fs::write(&path, text.join("\n"))?)
    }

    /// The configuration of a master: what all share is master 1's; number, name, place and address are its own.
    fn write_config(&self, number: u64) -> Result<()> {
        let first = fs::read_to_string(self.config(1))?;
        let kept =
            |key: &str| first.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        let (name, data, address) = (Self::name(number), self.data(number), self.address(number));
        let peer = |number: u64| {
            let (name, address) = (Self::name(number), self.address(number));
            format!("{{ id = {number}, name = {name:?}, address = {address:?} }}")
        };
        let mut peers = vec![1, 2, 3, number];
        peers.sort_unstable();
        peers.dedup();
        let peers: Vec<String> = peers.into_iter().map(peer).collect();
        let text = format!(
            "name = {name:?}\nid = {number}\ndata = {data:?}\nlisten = {address:?}\n{}\n{}\npeers = [{}]\n",
            kept("cluster_id = "),
            kept("key_file = "),
            peers.join(", ")
        );
        fs::create_dir_all(&data)?;
        Ok(fs::write(self.config(number), text)?)
    }

    fn start(&mut self, number: u64) -> Result<()> {
        let log = self.options.data.join("log").join(format!("{}.log", Self::name(number)));
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.options.binary);
        command.args(["daemon", "master", "--config"]).arg(self.config(number));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start master {number}"))?;
        // So that whoever sweeps up after this suite finds it too.
        let pid_file = self.options.data.join("run").join(format!("{}.pid", Self::name(number)));
        fs::write(pid_file, child.id().to_string())?;
        self.children.push((number, child));
        Ok(())
    }

    fn take(&mut self, number: u64) -> Result<Child> {
        let at = self.children.iter().position(|(other, _)| *other == number);
        let at = at.with_context(|| format!("master {number} was not started by this suite"))?;
        Ok(self.children.swap_remove(at).1)
    }

    fn stop(&mut self, number: u64) -> Result<()> {
        let mut child = self.take(number)?;
        shell::signal(child.id(), Signal::TERM);
        let mut status = None;
        let stopped = wait::until(STATE_LIMIT, &format!("master {number} to stop"), || {
            status = child.try_wait()?;
            Ok(status.is_some())
        });
        if stopped.is_err() {
            child.kill()?;
            child.wait()?;
        }
        stopped?;
        ensure!(status.is_some_and(|status| status.success()), "master {number} ended with {status:?}");
        Ok(())
    }

    fn kill(&mut self, number: u64) -> Result<()> {
        let mut child = self.take(number)?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn restart(&mut self, cluster: &Cluster, number: u64) -> Result<()> {
        if self.children.iter().any(|(other, _)| *other == number) {
            self.stop(number)?;
        } else {
            let pid = cluster.pid(&Self::name(number))?;
            shell::signal(pid, Signal::TERM);
            wait::until(STATE_LIMIT, "a master of `up` to stop", || Ok(!shell::is_alive(pid)))?;
        }
        self.start(number)
    }

    /// All that it has but its configuration.
    fn wipe(&self, number: u64) -> Result<()> {
        fs::remove_dir_all(self.data(number))?;
        self.write_config(number)
    }

    /// Starts a new master and lets it in.
    fn let_in(&mut self, number: u64, flags: &[&str]) -> Result<()> {
        self.write_config(number)?;
        self.start(number)?;
        let name = Self::name(number);
        self.mooseng(&[&["cluster", "add-master", &name], flags].concat())?;
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.arg("--key-file").arg(self.options.data.join("admin.key"));
        command.arg("--master").arg(self.addresses().join(",")).args(words);
        command
    }

    fn mooseng(&self, words: &[&str]) -> Result<String> {
        shell::stdout_within(&mut self.command(words), COMMAND_LIMIT)
    }

    fn refused(&self, words: &[&str], code: i32, why: &str) -> Result<()> {
        let done = shell::finish(&mut self.command(words), COMMAND_LIMIT)?;
        if done.status.code() != Some(code) || !done.stderr.contains(why) {
            bail!("{words:?}: {}, and not {code} with {why:?}:\n{}", done.status, shell::tail(&done.stderr));
        }
        Ok(())
    }

    /// Name and role of each master and whether it votes and hears all chunkservers.
    fn status(&self) -> Result<Vec<(String, String, bool)>> {
        let done = shell::finish(&mut self.command(&["cluster", "status", "--json"]), COMMAND_LIMIT)?;
        let status: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        let masters = status.get("masters").and_then(|masters| masters.as_array()).into_iter().flatten();
        let text = |master: &serde_json::Value, key: &str| {
            master.get(key).and_then(|text| text.as_str()).unwrap_or_default().to_owned()
        };
        // A leader that does not hear them finds no place for new chunks, and says that there is no space.
        let voter = |master: &serde_json::Value| {
            let hears = master.get("servers_up").and_then(|up| up.as_u64()) == Some(CHUNKSERVERS.into());
            hears && master.get("voter").and_then(|voter| voter.as_bool()).unwrap_or(false)
        };
        Ok(masters.map(|it| (text(it, "name"), text(it, "role"), voter(it))).collect())
    }

    fn leader(&self) -> Result<u64> {
        let status = self.status()?;
        let leader = status.iter().find(|(_, role, _)| role == "leader").context("nobody leads")?;
        Ok(leader.0.trim_start_matches("master-").parse()?)
    }

    fn wait_for(&self, what: &str, enough: impl Fn(&[(String, String, bool)]) -> bool) -> Result<()> {
        let mut last = Vec::new();
        let waited = wait::until(STATE_LIMIT, what, || {
            last = self.status()?;
            Ok(enough(&last))
        });
        waited.with_context(|| format!("the masters are {last:?}"))
    }

    fn wait_for_role(&self, number: u64, role: &str) -> Result<()> {
        let name = Self::name(number);
        self.wait_for(&format!("{name} to be {role}"), |status| {
            status.iter().any(|(found, is, _)| *found == name && is == role)
        })
    }

    /// There are so many voters and all answer, and one leads.
    fn wait_until_all_vote(&self, count: usize) -> Result<()> {
        self.wait_for(&format!("{count} voters"), |status| {
            let voters: Vec<&str> =
                status.iter().filter(|(_, _, voter)| *voter).map(|(_, role, _)| role.as_str()).collect();
            let members = status.iter().filter(|(_, role, _)| role != "removed").count();
            members == count
                && voters.len() == count
                && voters.contains(&"leader")
                && voters.iter().all(|role| ["leader", "follower"].contains(role))
        })
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
