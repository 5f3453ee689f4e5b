//! Files that one mount has just looked at when the other changes them: an open that begins after the other's close shows
//! all of it, also on a busy machine and while others look at the same files; and what it has shown, a handle from before
//! shows too.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};

use super::super::stream::read_window;
use super::super::syscall;
use super::together::joined;
use crate::random::Random;
use crate::wait;

/// Each with a file of its own, changed on one mount and read on the other.
const PAIRS: usize = 4;
/// Changes of each file in one round.
const CHANGES: u32 = 400;
const BYTES_MAX: usize = 40_000;
const SHOWN_MAX: usize = 10;

/// Changes files on one mount, and opens and reads them on the other.
pub(super) fn reopened(points: [&Path; 2], rounds: u32) -> Result<()> {
    let changes = CHANGES.saturating_mul(rounds.min(4));
    let names: Vec<_> = (0..PAIRS).map(|_| Mutex::default()).collect();
    let done = AtomicBool::new(false);
    let wrong = std::thread::scope(|scope| {
        let lookers: Vec<_> = points.iter().map(|point| scope.spawn(|| look(point, &names, &done))).collect();
        let pairs = names.iter().enumerate().map(|(number, name)| {
            let [one, other] = points;
            let (writes, reads) = if number % 2 == 0 { (one, other) } else { (other, one) };
            let pair = Pair { number, writes, reads, random: Random::seeded(number as u64), name };
            scope.spawn(move || pair.run(changes))
        });
        let wrong = joined(pairs.collect());
        done.store(true, Ordering::Relaxed);
        joined(lookers)?;
        wrong
    })?
    .concat();
    ensure!(
        wrong.is_empty(),
        "{} opens showed less than what was closed before:\n{}",
        wrong.len(),
        wrong.get(..SHOWN_MAX.min(wrong.len())).unwrap_or_default().join("\n")
    );
    println!("two_mounts: reopened: {} changes, each seen by the next open", changes as usize * PAIRS);
    Ok(())
}

/// Asks for the attributes all the time: answers that are under way while a file changes.
fn look(point: &Path, names: &[Mutex<Option<String>>], done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        wait::check_interrupt()?;
        for name in names {
            let name = wait::lock(name).clone();
            if let Some(name) = name {
                fs::metadata(point.join(name))?;
            }
        }
    }
    Ok(())
}

/// A file that one mount changes and the other reads.
struct Pair<'a> {
    number: usize,
    writes: &'a Path,
    reads: &'a Path,
    random: Random,
    /// Of the file that there is now; others may look at it.
    name: &'a Mutex<Option<String>>,
}

impl Pair<'_> {
    fn run(mut self, changes: u32) -> Result<Vec<String>> {
        let mut expected = Vec::new();
        let mut wrong = Vec::new();
        let mut name = String::new();
        let mut kept = None;
        for number in 1..=changes {
            wait::check_interrupt()?;
            let what = match self.random.below(if number == 1 { 1 } else { 6 }) {
                0 => {
                    // Another name each time: names are believed for a while.
                    name = format!("reopened-{}-{number}", self.number);
                    expected.clear();
                    kept = None;
                    syscall::close(File::create_new(self.writes.join(&name))?)?;
                    *wait::lock(self.name) = Some(name.clone());
                    "made"
                }
                1 => {
                    expected.truncate(self.random.index(expected.len() + 1));
                    let file = File::options().write(true).open(self.writes.join(&name))?;
                    file.set_len(expected.len() as u64)?;
                    syscall::close(file)?;
                    "cut"
                }
                2 => {
                    expected = self.random.bytes(expected.len());
                    self.write(&name, &expected)?;
                    "overwritten"
                }
                _ => {
                    let more = self.random.index((BYTES_MAX - expected.len()).max(1));
                    expected = self.random.bytes(expected.len() + more);
                    self.write(&name, &expected)?;
                    "longer"
                }
            };
            let file = File::open(self.reads.join(&name))?;
            let read = |file| read_window(file, 0, BYTES_MAX + 1);
            for (handle, file) in [("anew", Some(&file)), ("of before", kept.as_ref())] {
                let Some(file) = file else { continue };
                let have = read(file).with_context(|| format!("after change {number} ({what})"))?;
                if have != expected {
                    let right = read(file)? == expected;
                    let again = if right { "right when read again" } else { "still wrong" };
                    let (have, expected) = (have.len(), expected.len());
                    wrong.push(format!(
                        "{name} ({what}, opened {handle}): {have} bytes, expected {expected}; {again}"
                    ));
                }
            }
            kept = kept.or(Some(file));
        }
        Ok(wrong)
    }

    /// Writes from the front, without cutting anything.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let file = File::options().write(true).open(self.writes.join(name))?;
        file.write_all_at(bytes, 0)?;
        Ok(syscall::close(file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_file_system_shows_every_change() {
        let scratch = tempfile::tempdir().unwrap();
        reopened([scratch.path(); 2], 1).unwrap();
    }
}
