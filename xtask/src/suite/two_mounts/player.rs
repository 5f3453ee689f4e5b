//! Plays random operations through two mounts, one at a time, and holds each answer against the model.
//!
//! What one mount has written and neither closed nor synced, the other need not see: before the other touches such a file,
//! it is closed or synced where it was written. Everything else has one right answer.

mod check;
mod data;
mod names;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::super::syscall;
use super::content::{CHUNK, PAGE};
use super::model::{FileNumber, Handle, Model, Node, Side, other};
use crate::random::Random;

const DIRECTORIES: u64 = 3;
const NAMES_MAX: usize = 24;
const HANDLES_MAX: usize = 8;
/// The longest of most writes, and of a few.
const WRITE_MAX: u64 = 70_000;
const LONG_WRITE_MAX: u64 = 400_000;
/// Three chunks.
const SIZE_MAX: u64 = 3 * CHUNK;
/// Lines of history that are shown of one file, and of everything.
const SHOWN_MAX: usize = 60;
const SHOWN_LAST: usize = 10;

/// What was done, and with which file.
struct Line {
    file: Option<FileNumber>,
    text: String,
}

pub(super) struct Player {
    points: [PathBuf; 2],
    random: Random,
    model: Model,
    next: u64,
    lines: Vec<Line>,
    log: File,
}

impl Player {
    pub(super) fn new(points: [&Path; 2], log: &Path, seed: u64) -> Result<Player> {
        for number in 0..DIRECTORIES {
            std::fs::create_dir(points[0].join(format!("d{number}")))?;
        }
        Ok(Player {
            points: points.map(Path::to_owned),
            random: Random::seeded(seed),
            model: Model::default(),
            next: 0,
            lines: Vec::new(),
            log: File::create(log)?,
        })
    }

    /// One operation.
    pub(super) fn step(&mut self) -> Result<()> {
        let side = self.random.index(2);
        let done = match self.random.below(100) {
            0..12 => self.create(side),
            12..26 => self.write_and_close(side, false),
            26..34 => self.write_and_close(side, true),
            34..42 => self.keep_open(side),
            42..58 => self.use_handle(),
            58..66 => self.truncate(side),
            66..69 => self.allocate(side),
            69..75 => self.rename(side),
            75..79 => self.link(side),
            79..83 => self.unlink(side),
            83..90 => self.look(side),
            90..93 => self.list(side),
            93..98 => self.map(side),
            _ => self.close_one(),
        };
        self.model.forget();
        done
    }

    /// What happened to the file of the last operation, and the last operations of all.
    pub(super) fn history(&self) -> String {
        let file = self.lines.last().and_then(|line| line.file);
        let of_file: Vec<&Line> =
            self.lines.iter().filter(|line| file.is_some() && line.file == file).collect();
        let tail = |lines: &[&Line], most: usize| {
            let start = lines.len().saturating_sub(most);
            let shown = lines.iter().skip(start);
            shown.fold(String::new(), |text, line| text + "  " + &line.text + "\n")
        };
        let mut text = String::new();
        if let Some(file) = file {
            let handles = self.model.handles.iter().filter(|handle| handle.file == file);
            let open: Vec<String> = handles.map(describe).collect();
            text = format!("file {file}, open as {open:?}:\n{}\n", tail(&of_file, SHOWN_MAX));
        }
        let all: Vec<&Line> = self.lines.iter().collect();
        text + "last operations:\n" + &tail(&all, SHOWN_LAST)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Notes what is about to be done.
    fn say(&mut self, file: Option<FileNumber>, side: Side, text: &str) -> Result<()> {
        let mount = if side == 0 { 'A' } else { 'B' };
        let text = format!("{:6} {mount} {text}", self.number());
        writeln!(self.log, "{} {text}", file.map_or_else(String::new, |file| format!("file {file}")))?;
        self.lines.push(Line { file, text });
        Ok(())
    }

    fn path(&self, side: Side, name: &str) -> PathBuf {
        self.points.get(side).map(|point| point.join(name)).unwrap_or_default()
    }

    fn picked_name(&mut self) -> Option<(String, FileNumber)> {
        let index = self.random.index(self.model.names.len());
        self.model.names.iter().nth(index).map(|(name, file)| (name.clone(), *file))
    }

    /// A name that is not there, or sometimes one that is.
    fn target_name(&mut self) -> String {
        if self.random.below(4) == 0
            && let Some((name, _)) = self.picked_name()
        {
            return name;
        }
        let directory = self.random.below(DIRECTORIES);
        // Few enough for a name to be used again after it was gone.
        let free = (0..100).find_map(|_| {
            let name = format!("d{directory}/n{:02}", self.random.below(60));
            (!self.model.names.contains_key(&name)).then_some(name)
        });
        free.unwrap_or_else(|| format!("d{directory}/x{}", self.next))
    }

    /// Mostly near the beginning, where files live with their names; near borders of blocks and chunks; near the end.
    fn offset(&mut self, size: u64) -> u64 {
        let near = |random: &mut Random, place: u64, spread: u64| {
            (place + random.below(2 * spread)).saturating_sub(spread)
        };
        let offset = match self.random.below(12) {
            0..3 => self.random.below(2 * PAGE),
            3..6 => near(&mut self.random, size, PAGE),
            6 => near(&mut self.random, 65_536, PAGE),
            7 => self.random.below(300_000),
            8 => PAGE * self.random.below(64),
            9 => size,
            _ => {
                let border = CHUNK * (1 + self.random.below(2));
                near(&mut self.random, border, 3 * PAGE)
            }
        };
        offset.min(SIZE_MAX - LONG_WRITE_MAX)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.random.below(10) {
            0..4 => 1 + self.random.below(200),
            4..6 => 1 + self.random.below(PAGE),
            6 => PAGE * (1 + self.random.below(4)),
            7..9 => 1 + self.random.below(WRITE_MAX),
            _ => 1 + self.random.below(LONG_WRITE_MAX),
        };
        self.random.bytes(super::content::to_index(length))
    }

    /// Makes what the other mount has written visible to `side`: closes or syncs it there.
    fn publish_for(&mut self, side: Side, file: FileNumber) -> Result<()> {
        let unsaved = self.model.node(file).unsaved;
        match unsaved.and_then(|number| self.model.handle(number)) {
            Some(handle) if handle.side == other(side) => {
                let number = handle.number;
                self.save(number)
            }
            _ => Ok(()),
        }
    }

    /// Closes or syncs a handle.
    fn save(&mut self, number: u64) -> Result<()> {
        match self.random.below(3) {
            0 => self.close_handle(number),
            kind => self.sync_handle(number, kind == 1),
        }
    }

    fn sync_handle(&mut self, number: u64, data_only: bool) -> Result<()> {
        let Some(handle) = self.model.handle(number) else { return Ok(()) };
        let (side, file) = (handle.side, handle.file);
        let word = if data_only { "fdatasync" } else { "fsync" };
        self.say(Some(file), side, &format!("{word} handle {number}"))?;
        let Some(handle) = self.model.handle(number) else { return Ok(()) };
        let done = if data_only { handle.open.sync_data() } else { handle.open.sync_all() };
        done.context(word)?;
        let node = self.model.node(file);
        if node.unsaved == Some(number) {
            node.unsaved = None;
        }
        Ok(())
    }

    fn close_handle(&mut self, number: u64) -> Result<()> {
        let Some(index) = self.model.handles.iter().position(|handle| handle.number == number) else {
            return Ok(());
        };
        let handle = self.model.handles.swap_remove(index);
        self.say(Some(handle.file), handle.side, &format!("close handle {number}"))?;
        let node = self.model.node(handle.file);
        if node.unsaved == Some(number) {
            node.unsaved = None;
        }
        std::sync::Arc::into_inner(handle.open).map_or(Ok(()), syscall::close).context("close")
    }

    fn close_one(&mut self) -> Result<()> {
        let index = self.random.index(self.model.handles.len());
        match self.model.handles.get(index).map(|handle| handle.number) {
            Some(number) => self.close_handle(number),
            None => Ok(()),
        }
    }

    /// Opens a file by a name; from here on this mount knows what the other has done to it.
    fn open(
        &mut self,
        side: Side,
        name: &str,
        file: FileNumber,
        options: &std::fs::OpenOptions,
    ) -> Result<File> {
        let open = options.open(self.path(side, name)).with_context(|| format!("open {name}"))?;
        let have = open.metadata().context("fstat")?.len();
        let node = self.model.node(file);
        if let Some(knows) = node.knows.get_mut(side) {
            *knows = true;
        }
        let size = node.content.size();
        anyhow::ensure!(have == size, "{name} has {have} bytes at its open, {size} expected");
        Ok(open)
    }

    /// Notes a change by `side`, about to be made.
    fn changing(&mut self, side: Side, file: FileNumber) -> &mut Node {
        let node = self.model.node(file);
        node.changing(side);
        node
    }
}

fn describe(handle: &Handle) -> String {
    let mount = if handle.side == 0 { 'A' } else { 'B' };
    format!("{mount} handle {}{}", handle.number, if handle.append { " (append)" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(seed: u64, steps: u32) -> (tempfile::TempDir, Player) {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut player = Player::new([&top, &top], &scratch.path().join("log"), seed).unwrap();
        for _ in 0..steps {
            player.step().unwrap_or_else(|error| panic!("{error:#}\n{}", player.history()));
        }
        (scratch, player)
    }

    #[test]
    fn one_ordinary_directory_as_both_mounts_passes() {
        for seed in 1..5 {
            let (_scratch, mut player) = played(seed, 500);
            player.check_everything().unwrap();
            assert!(player.model.names.len() > 3);
        }
    }

    #[test]
    fn a_change_behind_its_back_is_seen() {
        let harms: [fn(&Path); 3] = [
            |path| std::fs::remove_file(path).unwrap(),
            |path| std::fs::write(path, "").unwrap(),
            |path| std::fs::write(path.with_extension("more"), "").unwrap(),
        ];
        for harm in harms {
            let (_scratch, mut player) = played(7, 200);
            let full =
                player.model.names.iter().find(|(_, file)| player.model.files[file].content.size() > 0);
            harm(&player.path(0, full.unwrap().0));
            assert!(player.check_everything().is_err());
        }
    }
}
