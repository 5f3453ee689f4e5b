//! Three masters on this machine without anything else: each a child with a directory and a configuration of its own, all
//! gone when the guard is dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::status::Status;
use crate::{shell, wait};

pub(super) const COUNT: usize = 3;
const STOP_LIMIT: Duration = Duration::from_secs(60);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);
/// Not secret: the cluster lives for one run on 127.0.0.1.
const KEY: &str = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e";
const CLUSTER: &str = "00c0ffee00c0ffee00c0ffee00c0ffee";

pub(super) struct Masters {
    binary: PathBuf,
    scratch: PathBuf,
    port_base: u16,
    data: [PathBuf; COUNT],
    running: [Option<Child>; COUNT],
}

impl Masters {
    /// Configured in `scratch`, not started yet.
    pub(super) fn new(binary: PathBuf, scratch: &Path, port_base: u16) -> Result<Masters> {
        let data = std::array::from_fn(|number| scratch.join(name(number)).join("data"));
        let running = [const { None }; COUNT];
        let masters = Masters { binary, scratch: scratch.to_owned(), port_base, data, running };
        fs::write(scratch.join("cluster.key"), KEY)?;
        shell::make_keys(&masters.binary, scratch)?;
        for number in 0..COUNT {
            fs::create_dir_all(masters.place(number))?;
            masters.configure(number)?;
        }
        Ok(masters)
    }

    fn place(&self, number: usize) -> PathBuf {
        self.scratch.join(name(number))
    }

    fn address(&self, number: usize) -> String {
        format!("127.0.0.1:{}", usize::from(self.port_base) + number)
    }

    /// Deletes the data of a master that does not run; from its next start on it keeps some in `data`.
    pub(super) fn wipe(&mut self, number: usize, data: &Path) -> Result<()> {
        if let Some(old) = self.data.get_mut(number) {
            fs::remove_dir_all(&*old).with_context(|| format!("delete {}", old.display()))?;
            data.clone_into(old);
        }
        self.configure(number)
    }

    fn configure(&self, number: usize) -> Result<()> {
        let data = self.data.get(number).context("no such master")?;
        let quoted = |path: &Path| format!("{:?}", path.to_string_lossy());
        let mut text = format!("name = {:?}\nid = {}\n", name(number), number + 1);
        text.push_str(&format!("data = {}\nlisten = {:?}\n", quoted(data), self.address(number)));
        text.push_str(&format!("cluster_id = {CLUSTER:?}\n"));
        text.push_str(&format!("key_file = {}\n", quoted(&self.scratch.join("cluster.key"))));
        for peer in 0..COUNT {
            let (name, address) = (name(peer), self.address(peer));
            text.push_str(&format!("[[peers]]\nid = {}\nname = {name:?}\naddress = {address:?}\n", peer + 1));
        }
        fs::write(self.place(number).join("config.toml"), text).context("write a configuration")
    }

    /// All addresses with commas between them.
    pub(super) fn addresses(&self) -> String {
        (0..COUNT).map(|number| self.address(number)).collect::<Vec<_>>().join(",")
    }

    /// The file with the key of clients.
    pub(super) fn client_key(&self) -> PathBuf {
        self.scratch.join("client.key")
    }

    /// The master that listens there.
    pub(super) fn at(&self, address: &str) -> Option<usize> {
        (0..COUNT).find(|number| self.address(*number) == address)
    }

    /// Starts one and says when.
    pub(super) fn start(&mut self, number: usize) -> Result<SystemTime> {
        let log = File::options().create(true).append(true).open(self.log(number))?;
        let mut command = Command::new(&self.binary);
        command.args(["daemon", "master", "--config"]).arg(self.place(number).join("config.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let begun = SystemTime::now();
        let child = command.spawn().with_context(|| format!("start {}", name(number)))?;
        if let Some(slot) = self.running.get_mut(number) {
            *slot = Some(child);
        }
        Ok(begun)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.running.iter().flatten().map(Child::id).collect()
    }

    /// Sends the signal to one, or to all at once, and waits for their end.
    pub(super) fn end(&mut self, number: Option<usize>, signal: Signal) -> Result<()> {
        let slots = self.running.iter_mut().enumerate();
        let mut ending: Vec<&mut Option<Child>> =
            slots.filter(|(at, _)| number.is_none_or(|wanted| wanted == *at)).map(|(_, slot)| slot).collect();
        ending.iter().filter_map(|slot| slot.as_ref()).for_each(|child| shell::signal(child.id(), signal));
        wait::until(STOP_LIMIT, "masters to end", || {
            for slot in &mut ending {
                slot.take_if(|child| !matches!(child.try_wait(), Ok(None)));
            }
            Ok(ending.iter().all(|slot| slot.is_none()))
        })
    }

    /// `mooseng --master …`
    pub(super) fn mooseng(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--key-file").arg(self.scratch.join("admin.key")).arg("--master").arg(self.addresses());
        command
    }

    /// Waits until all are voters and have the same.
    pub(super) fn in_sync(&self, limit: Duration) -> Result<Status> {
        let mut synced = None;
        let waited = wait::until(limit, "all masters to be in sync", || {
            // A group that is being founded, or that has let one go, has fewer.
            synced = Status::ask(self.mooseng()).ok().filter(|it| it.masters.len() == COUNT && it.in_sync());
            if synced.is_none() {
                // Each question costs the processors that the masters are on.
                wait::let_run(BETWEEN_QUESTIONS)?;
            }
            Ok(synced.is_some())
        });
        waited.with_context(|| self.last_words())?;
        synced.context("no status")
    }

    fn log(&self, number: usize) -> PathBuf {
        self.place(number).join("master.log")
    }

    /// What all have logged.
    pub(super) fn logs(&self) -> [String; COUNT] {
        std::array::from_fn(|number| fs::read_to_string(self.log(number)).unwrap_or_default())
    }

    pub(super) fn last_words(&self) -> String {
        let logs = self.logs();
        let words =
            logs.iter().enumerate().map(|(at, log)| format!("--- {}\n{}", name(at), shell::tail(log)));
        words.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        for mut child in self.running.iter_mut().filter_map(Option::take) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

pub(super) fn name(number: usize) -> String {
    format!("master-{}", number + 1)
}
