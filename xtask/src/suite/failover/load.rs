//! The load: workers that create, rename and append, each in a directory of its own, and remember what was promised.
//!
//! No operation is ever left in doubt: an error ends the round as failed. So after a round the tree must hold exactly
//! what the workers remember.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::wait;

/// Between two operations of a worker, so that a round of a minute does not make a tree of a million.
const PAUSE: Duration = Duration::from_millis(5);
/// Longer than a client tries before it gives up.
const END_LIMIT: Duration = Duration::from_secs(90);
/// Every so many files one stays under its first name.
const UNMOVED_EVERY: u64 = 4;
/// The file that a worker appends to.
const LINES: &str = "lines";

/// What a worker was promised.
#[derive(Debug, Default)]
pub(super) struct Promises {
    names: BTreeSet<String>,
    lines: u64,
    pub(super) operations: u64,
    /// The longest operation, and what it was.
    pub(super) stall: (Duration, String),
}

/// Workers at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Result<Promises>>>,
}

impl Load {
    /// One worker for each of `places`, which are made.
    pub(super) fn start(places: &[PathBuf]) -> Result<Load> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        places.iter().try_for_each(fs::create_dir_all).context("make the workers' directories")?;
        let worker = |place: &PathBuf| {
            let (place, stop, done) = (place.clone(), Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || work(&place, &stop, &done))
        };
        let workers = places.iter().map(worker).collect();
        Ok(Load { stop, done, workers })
    }

    /// Operations done so far by all.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for the operations that have begun. The first error of a worker is the load's.
    pub(super) fn stop(mut self) -> Result<Vec<Promises>> {
        self.stop.store(true, Ordering::SeqCst);
        wait::until(END_LIMIT, "the workers' last operations", || {
            Ok(self.workers.iter().all(JoinHandle::is_finished))
        })?;
        let workers = std::mem::take(&mut self.workers);
        let ended: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked")))
            .collect();
        ended.into_iter().flatten().collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn work(place: &Path, stop: &AtomicBool, done: &AtomicU64) -> Result<Promises> {
    let mut promises = Promises::default();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let (made, moved) = (format!("made-{number:06}"), format!("moved-{number:06}"));
        promises.timed("create", || {
            File::options().write(true).create_new(true).open(place.join(&made)).map(drop)
        })?;
        promises.names.insert(made.clone());
        if number % UNMOVED_EVERY != 0 {
            promises.timed("rename", || fs::rename(place.join(&made), place.join(&moved)))?;
            promises.names.remove(&made);
            promises.names.insert(moved);
        }
        promises.timed("append", || append(place, number))?;
        promises.lines += 1;
        number += 1;
        done.fetch_add(1, Ordering::Relaxed);
        wait::let_run(PAUSE)?;
    }
    Ok(promises)
}

fn append(place: &Path, number: u64) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(place.join(LINES))?;
    file.write_all(line(number).as_bytes())?;
    file.sync_all()
}

fn line(number: u64) -> String {
    format!("line {number:06}\n")
}

impl Promises {
    fn timed(&mut self, what: &str, operation: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let start = Instant::now();
        let outcome = operation();
        let took = start.elapsed();
        self.operations += 1;
        if took > self.stall.0 {
            self.stall = (took, format!("{what} {}", self.lines));
        }
        outcome.with_context(|| {
            format!("{what} {} was answered with an error after {} ms", self.lines, took.as_millis())
        })
    }

    /// What of `place`, seen through another mount, is not as promised.
    pub(super) fn audit(&self, place: &Path) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(place).with_context(|| format!("list {}", place.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !found.insert(name.clone()) {
                wrong.push(format!("{name}: listed twice"));
            }
        }
        if self.lines > 0 && !found.remove(LINES) {
            wrong.push(format!("{LINES}: gone"));
        }
        wrong.extend(self.names.difference(&found).map(|name| format!("{name}: acknowledged, and gone")));
        wrong.extend(
            found
                .difference(&self.names)
                .map(|name| format!("{name}: nobody made it, or it was renamed away")),
        );
        if self.lines > 0 {
            let have = fs::read_to_string(place.join(LINES)).unwrap_or_else(|error| error.to_string());
            let want: String = (0..self.lines).map(line).collect();
            if have != want {
                let same = have.lines().zip(want.lines()).take_while(|(have, want)| have == want).count();
                let next = have.lines().nth(same).unwrap_or("the end");
                wrong.push(format!(
                    "{LINES}: {} lines acknowledged; after {same} right ones comes {next:?}",
                    self.lines
                ));
            }
        }
        Ok(wrong.into_iter().map(|text| format!("{}/{text}", place.display())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worked() -> (tempfile::TempDir, PathBuf, Promises) {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("w");
        let load = Load::start(std::slice::from_ref(&place)).unwrap();
        wait::until(Duration::from_secs(20), "six files", || Ok(load.done() >= 6)).unwrap();
        let promises = load.stop().unwrap().pop().unwrap();
        (scratch, place, promises)
    }

    #[test]
    fn a_faithful_file_system_passes() {
        let (_scratch, place, promises) = worked();
        assert_eq!(promises.audit(&place).unwrap(), Vec::<String>::new());
        assert!(promises.names.len() >= 6 && promises.operations >= 16);
    }

    #[test]
    fn each_kind_of_loss_and_of_doubling_is_seen() {
        let harms: [fn(&Path); 5] = [
            |place| fs::remove_file(place.join("made-000000")).unwrap(),
            |place| fs::write(place.join("made-000001"), "").unwrap(),
            |place| fs::rename(place.join("moved-000001"), place.join("made-000001")).unwrap(),
            |place| fs::write(place.join(LINES), "line 000000\n").unwrap(),
            |place| append(place, 3).unwrap(),
        ];
        for harm in harms {
            let (_scratch, place, promises) = worked();
            harm(&place);
            assert!(!promises.audit(&place).unwrap().is_empty());
        }
    }
}
