//! Names and small files, as mdtest loads them: every thread in a directory of its own, one kind of operation at a time.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Done, Runner};
use crate::wait;

/// Threads, and operations of each of them.
const LOADS: [(usize, u64); 2] = [(1, 3000), (8, 1000)];
const SMALL_LOADS: [(usize, u64); 2] = [(1, 3000), (8, 600)];
/// A slow target does fewer operations, not longer phases.
const PHASE_LIMIT: Duration = Duration::from_secs(12);
const SMALL_BYTES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Mkdir,
    Rmdir,
    Create,
    Stat,
    OpenClose,
    Rename,
    Unlink,
    WriteSmall,
    ReadSmall,
}

/// mkdir, rmdir, create, stat cold and warm, open and close, rename, unlink.
pub(super) fn namespace(runner: &mut Runner<'_>) -> Result<()> {
    for (threads, count) in LOADS {
        let place = runner.place(&format!("names-{threads}"))?;
        let mut load = Load::new(&place, threads, runner.scaled(count))?;
        let label = |name: &str| format!("{name}_{threads}t");
        let figures = [
            ("mkdir", Operation::Mkdir),
            ("rmdir", Operation::Rmdir),
            ("create", Operation::Create),
            ("stat_cold", Operation::Stat),
            ("stat_warm", Operation::Stat),
            ("open_close", Operation::OpenClose),
            ("rename", Operation::Rename),
            ("unlink", Operation::Unlink),
        ];
        for (name, operation) in figures {
            if name.ends_with("_cold") {
                runner.cold()?;
            }
            runner.measure(&label(name), || load.run(operation))?;
        }
    }
    Ok(())
}

/// Create, write 4 KiB and close; then read all of it cold.
pub(super) fn small_files(runner: &mut Runner<'_>) -> Result<()> {
    for (threads, count) in SMALL_LOADS {
        let place = runner.place(&format!("small-{threads}"))?;
        let mut load = Load::new(&place, threads, runner.scaled(count))?;
        runner.measure(&format!("small4k_write_{threads}t"), || load.run(Operation::WriteSmall))?;
        runner.cold()?;
        runner.measure(&format!("small4k_read_cold_{threads}t"), || load.run(Operation::ReadSmall))?;
    }
    Ok(())
}

/// The threads' directories, and how many items each of them has made.
struct Load {
    lanes: Vec<Lane>,
    most: u64,
}

struct Lane {
    place: PathBuf,
    made: u64,
}

/// What one thread did.
struct Ran {
    begin: Instant,
    end: Instant,
    latencies_us: Vec<f64>,
    error: Option<io::Error>,
}

impl Load {
    fn new(place: &Path, threads: usize, most: u64) -> Result<Load> {
        let lanes = (0..threads).map(|lane| {
            let place = place.join(format!("t{lane}"));
            fs::create_dir(&place)?;
            Ok(Lane { place, made: 0 })
        });
        Ok(Load { lanes: lanes.collect::<io::Result<_>>()?, most })
    }

    fn run(&mut self, operation: Operation) -> Result<Done> {
        let makes = matches!(operation, Operation::Mkdir | Operation::Create | Operation::WriteSmall);
        let most = self.most;
        let barrier = Barrier::new(self.lanes.len());
        let ran: Vec<Ran> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .lanes
                .iter()
                .map(|lane| {
                    let (barrier, count) = (&barrier, if makes { most } else { lane.made });
                    scope.spawn(move || {
                        barrier.wait();
                        lane.run(operation, count)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked")))
                .collect::<Result<_>>()
        })?;
        for (lane, ran) in self.lanes.iter_mut().zip(&ran).filter(|_| makes) {
            lane.made = ran.latencies_us.len() as u64;
        }
        sum(operation, ran)
    }
}

/// From the first thread's begin to the last one's end.
fn sum(operation: Operation, ran: Vec<Ran>) -> Result<Done> {
    let begin = ran.iter().map(|ran| ran.begin).min().context("no thread")?;
    let end = ran.iter().map(|ran| ran.end).max().context("no thread")?;
    let mut done = Done { operations: 0, bytes: 0, time: end - begin, latencies_us: Vec::new() };
    for ran in ran {
        if let Some(error) = ran.error {
            bail!("{operation:?} {}: {error}", ran.latencies_us.len());
        }
        done.operations += ran.latencies_us.len() as u64;
        done.latencies_us.extend(ran.latencies_us);
    }
    if done.operations == 0 {
        bail!("{operation:?}: nothing was done in {} s", PHASE_LIMIT.as_secs());
    }
    Ok(done)
}

impl Lane {
    fn run(&self, operation: Operation, count: u64) -> Ran {
        let begin = Instant::now();
        let mut ran = Ran { begin, end: begin, latencies_us: Vec::new(), error: None };
        let content: Vec<u8> = (0..SMALL_BYTES).map(|at| (at * 31 % 251) as u8).collect();
        let mut buffer = Vec::with_capacity(SMALL_BYTES + 1);
        for index in 0..count {
            if ran.end - begin > PHASE_LIMIT || wait::interrupted() {
                break;
            }
            let start = Instant::now();
            if let Err(error) = self.one(operation, index, &content, &mut buffer) {
                ran.error = Some(error);
                break;
            }
            ran.end = Instant::now();
            ran.latencies_us.push((ran.end - start).as_secs_f64() * 1e6);
        }
        ran
    }

    fn one(&self, operation: Operation, index: u64, content: &[u8], buffer: &mut Vec<u8>) -> io::Result<()> {
        let path = |letter: char| self.place.join(format!("{letter}{index}"));
        let create = || File::options().write(true).create_new(true).open(path('f'));
        match operation {
            Operation::Mkdir => fs::create_dir(path('d')),
            Operation::Rmdir => fs::remove_dir(path('d')),
            Operation::Create => create().map(drop),
            Operation::Stat => fs::metadata(path('f')).map(drop),
            Operation::OpenClose => File::open(path('f')).map(drop),
            Operation::Rename => fs::rename(path('f'), path('g')),
            Operation::Unlink => fs::remove_file(path('g')),
            Operation::WriteSmall => create()?.write_all(content),
            Operation::ReadSmall => {
                buffer.clear();
                File::open(path('f'))?.read_to_end(buffer)?;
                if buffer == content {
                    Ok(())
                } else {
                    Err(io::Error::other("other bytes than were written"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_finds_what_the_one_before_left() {
        let scratch = tempfile::tempdir().unwrap();
        let mut load = Load::new(scratch.path(), 2, 20).unwrap();
        let all = [
            Operation::Mkdir,
            Operation::Rmdir,
            Operation::Create,
            Operation::Stat,
            Operation::OpenClose,
            Operation::Rename,
            Operation::Unlink,
            Operation::WriteSmall,
            Operation::ReadSmall,
        ];
        for operation in all {
            assert_eq!(load.run(operation).unwrap().operations, 40, "{operation:?}");
        }
        fs::write(scratch.path().join("t1/f3"), "harmed").unwrap();
        assert!(load.run(Operation::ReadSmall).is_err());
    }
}
