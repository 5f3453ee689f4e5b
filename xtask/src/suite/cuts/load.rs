//! Writers that are told what is durable, and readers that hold the file system to it.

use std::fs::{self, File};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::promise::Promise;
use crate::random::Random;
use crate::suite::stream::read_window;
use crate::suite::syscall;
use crate::wait;

const WRITERS: usize = 4;
const FILES_EACH: usize = 3;
const READERS: usize = 2;
/// The part of a file that is written: small enough for the promise to be kept in memory.
const WINDOW_BYTES: usize = 1 << 20;
/// A window that lies across the border of two chunks begins here.
const BORDER: u64 = (64 << 20) - (300 << 10);
/// From the order to stop until every call has come back: the longest that a mount tries, twice, and some.
const STOP_LIMIT: Duration = Duration::from_secs(150);
/// Files of which a failed round shows the last calls, and how many calls.
const HISTORIES_MAX: usize = 3;
const LINES_MAX: usize = 30;

/// A file and what was promised. Its only writer has the handle, in descriptors of its own.
pub(super) struct Known {
    /// Below the mount point.
    pub(super) name: String,
    /// Where its window begins; before it is a hole.
    start: u64,
    promise: Promise,
    renames: u32,
    /// Every call with its answer.
    history: Vec<String>,
}

/// A writer's handle.
struct Open {
    file: File,
    append: bool,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) files: Vec<Mutex<Known>>,
    /// Cuts of several servers that are over.
    pub(super) heavy_cuts: AtomicU64,
    begun: Instant,
    /// From the cut on, reads may fail.
    pub(super) trouble: AtomicBool,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Errors that writers were told.
    told: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
}

pub(super) struct Load {
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Load {
    /// Starts writers and readers on two mounts in turn, in `place` below them.
    pub(super) fn start(points: [&Path; 2], place: &str, random: &mut Random) -> Result<Load> {
        fs::create_dir_all(points[0].join(place))?;
        let known = |number: usize| {
            let start = if number % FILES_EACH == 1 { BORDER } else { 0 };
            let name = format!("{place}/file-{number}");
            Mutex::new(Known { name, start, promise: Promise::default(), renames: 0, history: Vec::new() })
        };
        let shared = Arc::new(Shared {
            files: (0..WRITERS * FILES_EACH).map(known).collect(),
            heavy_cuts: AtomicU64::new(0),
            trouble: AtomicBool::new(false),
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            told: Mutex::default(),
            wrong: Mutex::default(),
        });
        let mut load = Load { shared: Arc::clone(&shared), threads: Vec::new() };
        for number in 0..WRITERS + READERS {
            let worker = Worker {
                shared: Arc::clone(&shared),
                point: points.get(number % 2).map(|point| point.to_path_buf()).unwrap_or_default(),
                random: Random::seeded(random.next()),
            };
            load.threads.push(syscall::spawn_with_own_descriptors(move || {
                if number < WRITERS { worker.write(number) } else { worker.read() }
            }));
        }
        Ok(load)
    }

    pub(super) fn age(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends the threads; each closes what it has open.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let threads = &self.threads;
        wait::until(STOP_LIMIT, "the load to end", || Ok(threads.iter().all(JoinHandle::is_finished)))?;
        for thread in self.threads.drain(..) {
            let Ok(ended) = thread.join() else { bail!("a thread of the load panicked") };
            ended.context("give a thread of the load its own descriptors")?;
        }
        Ok(())
    }

    /// What writers were told, and what readers found wrong.
    pub(super) fn findings(&self) -> (Vec<String>, Vec<String>) {
        (wait::lock(&self.shared.told).clone(), wait::lock(&self.shared.wrong).clone())
    }

    /// The last calls on the files that some finding speaks of: what is shown of a failure.
    pub(super) fn histories(&self, findings: &[String]) -> String {
        let mut text = String::new();
        let mut shown = 0;
        for known in &self.shared.files {
            let known = wait::lock(known);
            let stem = known.name.split('.').next().unwrap_or_default();
            let is_meant = |finding: &String| {
                finding.strip_prefix(stem).is_some_and(|rest| rest.starts_with(['.', ' ', ':']))
            };
            if shown < HISTORIES_MAX && findings.iter().any(is_meant) {
                let lines =
                    known.history.get(known.history.len().saturating_sub(LINES_MAX)..).unwrap_or_default();
                text.push_str(&format!("{}:\n    {}\n", known.name, lines.join("\n    ")));
                shown += 1;
            }
        }
        text
    }

    /// Writes down every call.
    pub(super) fn write_histories(&self, path: &Path) -> io::Result<()> {
        let mut log = File::create(path)?;
        for known in &self.shared.files {
            let known = wait::lock(known);
            writeln!(log, "{}:\n{}", known.name, known.history.join("\n"))?;
        }
        Ok(())
    }

    /// Reads everything through a mount: what was read, by file, and what is wrong with it.
    pub(super) fn audit(&self, point: &Path) -> (Vec<Vec<u8>>, Vec<String>) {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        for known in &self.shared.files {
            let mut known = wait::lock(known);
            known.promise.cut(self.shared.heavy_cuts.load(Ordering::SeqCst));
            let (bytes, problem) = match read(&point.join(&known.name), known.start) {
                Ok(bytes) => (bytes.clone(), known.promise.check(&bytes)),
                // Never made, because the making failed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && known.promise.length_max() == 0 => {
                    (Vec::new(), None)
                }
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            wrong.extend(problem.map(|text| format!("{}: {text}", known.name)));
            all.push(bytes);
        }
        (all, wrong)
    }
}

/// One thread of the load.
struct Worker {
    shared: Arc<Shared>,
    point: PathBuf,
    random: Random,
}

impl Worker {
    fn goes_on(&self) -> bool {
        !self.shared.stop.load(Ordering::SeqCst) && !wait::interrupted()
    }

    fn write(mut self, number: usize) {
        let shared = Arc::clone(&self.shared);
        let own = shared.files.get(number * FILES_EACH..).unwrap_or_default();
        let mut open = [const { None }; FILES_EACH];
        while self.goes_on() {
            let index = self.random.index(FILES_EACH);
            if let (Some(known), Some(open)) = (own.get(index), open.get_mut(index)) {
                self.step(&mut wait::lock(known), open);
            }
        }
        for (known, open) in own.iter().zip(&mut open) {
            self.close(&mut wait::lock(known), open);
        }
    }

    fn step(&mut self, known: &mut Known, open: &mut Option<Open>) {
        if open.is_none() {
            let append = self.random.below(3) == 0;
            let mut options = File::options();
            let opened =
                options.read(true).write(true).create(true).append(append).open(self.point.join(&known.name));
            let what = if append { "open to append" } else { "open" };
            *open = self.told(known, what, opened).map(|file| Open { file, append });
        }
        match self.random.below(20) {
            0..12 => self.change(known, open),
            12..16 => self.sync(known, open),
            16..18 => self.close(known, open),
            18 => self.rename(known),
            _ => {
                self.change(known, open);
                self.sync(known, open);
            }
        }
    }

    /// Notes what the writer is told.
    fn told<T>(&self, known: &mut Known, what: &str, result: io::Result<T>) -> Option<T> {
        let ms = self.shared.begun.elapsed().as_millis();
        match result {
            Ok(done) => {
                known.history.push(format!("{ms:6} ms: {what}"));
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some(done)
            }
            Err(error) => {
                known.history.push(format!("{ms:6} ms: {what}: {error}"));
                wait::lock(&self.shared.told).push(format!("{what}, {}, after {ms} ms: {error}", known.name));
                None
            }
        }
    }

    fn change(&mut self, known: &mut Known, open: &mut Option<Open>) {
        let Some(Open { file, append }) = open else { return };
        let most = if self.random.below(8) == 0 { 400_000 } else { 60_000 };
        let length = 1 + self.random.index(most);
        if *append {
            if !self.append(known, file, length) {
                // Where the next one would go is not known; the next open says it.
                self.close(known, open);
            }
            return;
        }
        let offset = self.random.index(known.promise.length_max() + 1);
        if offset + length > WINDOW_BYTES {
            // Full: overwrites only.
            let offset = self.random.index(known.promise.length_max().saturating_sub(8192));
            return self.write_at(known, file, offset, 8192);
        }
        self.write_at(known, file, offset, length);
    }

    fn write_at(&mut self, known: &mut Known, file: &File, offset: usize, length: usize) {
        let bytes = self.random.bytes(length);
        let written = file.write_all_at(&bytes, known.start + offset as u64);
        let done = self.told(known, &format!("write {length} at {offset}"), written).is_some();
        known.promise.wrote(offset, &bytes, done);
    }

    /// Answers whether it was done. Where there is no room it is not tried.
    fn append(&mut self, known: &mut Known, mut file: &File, length: usize) -> bool {
        // A file that is shorter than its window would be appended to before it.
        let end = file.metadata().map_or(0, |metadata| metadata.len()).checked_sub(known.start);
        let room = |offset: &usize| offset + length <= WINDOW_BYTES;
        let Some(offset) = end.and_then(|end| usize::try_from(end).ok()).filter(room) else { return false };
        let bytes = self.random.bytes(length);
        let written = file.write_all(&bytes);
        let done = self.told(known, &format!("append {length} (at {offset})"), written).is_some();
        known.promise.wrote(offset, &bytes, done);
        done
    }

    fn sync(&mut self, known: &mut Known, open: &mut Option<Open>) {
        let Some(Open { file, append }) = open else { return };
        let (word, synced) = if self.random.below(2) == 0 {
            ("fsync", file.sync_all())
        } else {
            ("fdatasync", file.sync_data())
        };
        let done = self.told(known, word, synced).is_some();
        known.promise.synced(done);
        if *append && !done {
            self.close(known, open);
        }
    }

    fn close(&mut self, known: &mut Known, open: &mut Option<Open>) {
        let Some(Open { file, .. }) = open.take() else { return };
        // Before the call: a cut in its midst may take what the call has just put there.
        let cuts = self.shared.heavy_cuts.load(Ordering::SeqCst);
        let done = self.told(known, "close", syscall::close(file)).is_some();
        known.promise.closed(done, cuts);
    }

    fn rename(&mut self, known: &mut Known) {
        known.renames += 1;
        let stem = known.name.split('.').next().unwrap_or_default();
        let to = format!("{stem}.{}", known.renames);
        let renamed = fs::rename(self.point.join(&known.name), self.point.join(&to));
        if self.told(known, &format!("rename to {to}"), renamed).is_some() {
            known.name = to;
        }
    }

    /// Reads files that no call is at work on, and compares.
    fn read(mut self) {
        let shared = Arc::clone(&self.shared);
        while self.goes_on() {
            let Some(known) = shared.files.get(self.random.index(shared.files.len())) else { return };
            let mut known = wait::lock(known);
            let begun = Instant::now();
            let trouble = shared.trouble.load(Ordering::SeqCst);
            let read = read(&self.point.join(&known.name), known.start);
            // Only now: a cut while it was read is a cut before what was read.
            known.promise.cut(shared.heavy_cuts.load(Ordering::SeqCst));
            let trouble = trouble || shared.trouble.load(Ordering::SeqCst);
            let problem = match read {
                Ok(bytes) => known.promise.check(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    (known.promise.length_max() > 0).then(|| error.to_string())
                }
                Err(_) if trouble => None,
                Err(error) => Some(format!("{error} after {} ms", begun.elapsed().as_millis())),
            };
            if let Some(text) = problem {
                wait::lock(&shared.wrong).push(format!("{} (while it was written): {text}", known.name));
                return;
            }
        }
    }
}

/// The window of a file, and a byte more if there is one.
fn read(path: &Path, start: u64) -> io::Result<Vec<u8>> {
    read_window(&File::open(path)?, start, WINDOW_BYTES + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ordinary_directory_as_both_mounts_passes() {
        let scratch = tempfile::tempdir().unwrap();
        let mut load = Load::start([scratch.path(); 2], "round", &mut Random::seeded(3)).unwrap();
        wait::let_run(Duration::from_millis(500)).unwrap();
        load.stop().unwrap();
        assert_eq!(load.findings(), (Vec::new(), Vec::new()));
        let (bytes, wrong) = load.audit(scratch.path());
        assert_eq!(wrong, Vec::<String>::new(), "{}", load.histories(&wrong));
        assert!(bytes.iter().filter(|bytes| !bytes.is_empty()).count() > 3);
    }
}
