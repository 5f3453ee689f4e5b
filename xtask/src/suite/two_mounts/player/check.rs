//! Looking: sizes, contents, lists of names.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};

use super::super::content::{difference, to_index};
use super::super::model::{FileNumber, Side};
use super::{DIRECTORIES, Player};

/// Files up to here are also read as a whole, holes and all.
const WHOLE_MAX: u64 = 2 << 20;

impl Player {
    /// Opens a file and looks at its size and at what it holds; or looks for a name that is not there.
    pub(super) fn look(&mut self, side: Side) -> Result<()> {
        let name = self.target_name();
        let Some(file) = self.model.names.get(&name).copied() else {
            self.say(None, side, &format!("open {name}, which is not there"))?;
            return match File::open(self.path(side, &name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error).context("the open of a name that is not there"),
                Ok(_) => bail!("{name} is there"),
            };
        };
        self.publish_for(side, file)?;
        if self.random.below(3) == 0 {
            self.say(Some(file), side, &format!("stat {name}"))?;
            let have = fs::metadata(self.path(side, &name)).context("stat")?.len();
            let node = self.model.node(file);
            ensure!(node.may_have_size(have), "{name}: {have} bytes, {} expected", node.content.size());
        }
        self.look_at(side, &name, file)
    }

    /// Opens a file and reads it, whole or in the places where something is.
    pub(super) fn look_at(&mut self, side: Side, name: &str, file: FileNumber) -> Result<()> {
        self.say(Some(file), side, &format!("open {name} and read it"))?;
        let open = self.open(side, name, file, File::options().read(true))?;
        self.compare(&open, file)
    }

    /// Often, but not always: what was not looked at is harder to get right.
    pub(super) fn maybe_look(&mut self, side: Side, name: &str, file: FileNumber) -> Result<()> {
        if self.random.below(2) == 0 {
            return Ok(());
        }
        self.publish_for(side, file)?;
        self.look_at(side, name, file)
    }

    /// Reads what an open file holds.
    pub(super) fn compare(&mut self, open: &File, file: FileNumber) -> Result<()> {
        let whole = self.random.below(3) == 0;
        let content = &self.model.node(file).content;
        let windows =
            if whole && content.size() <= WHOLE_MAX { vec![(0, content.size())] } else { content.windows() };
        for (offset, length) in windows {
            let expected = content.read(offset, to_index(length));
            let have = read(open, offset, to_index(length))?;
            if let Some(text) = difference(offset, &expected, &have) {
                bail!("{text}; the file has {} bytes", content.size());
            }
        }
        // Behind the end there is nothing.
        let size = content.size();
        ensure!(read(open, size, 100)?.is_empty(), "there are bytes behind the end, {size}");
        Ok(())
    }

    pub(super) fn list(&mut self, side: Side) -> Result<()> {
        let directory = format!("d{}", self.random.below(DIRECTORIES));
        self.say(None, side, &format!("list {directory}"))?;
        self.compare_list(side, &directory)
    }

    fn compare_list(&self, side: Side, directory: &str) -> Result<()> {
        let mut have = BTreeSet::new();
        for entry in fs::read_dir(self.path(side, directory)).context("list")? {
            have.insert(format!("{directory}/{}", entry?.file_name().to_string_lossy()));
        }
        let inside = |name: &&String| name.starts_with(&format!("{directory}/"));
        let expected: BTreeSet<String> = self.model.names.keys().filter(inside).cloned().collect();
        let missing: Vec<_> = expected.difference(&have).collect();
        let extra: Vec<_> = have.difference(&expected).collect();
        ensure!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, not expected {extra:?}");
        Ok(())
    }

    /// Saves everything and looks at everything from both sides.
    pub(in super::super) fn check_everything(&mut self) -> Result<()> {
        let numbers: Vec<u64> = self.model.handles.iter().map(|handle| handle.number).collect();
        numbers.into_iter().try_for_each(|number| self.close_handle(number))?;
        self.model.forget();
        let names: Vec<(String, FileNumber)> =
            self.model.names.iter().map(|(name, file)| (name.clone(), *file)).collect();
        for side in 0..2 {
            for (name, file) in &names {
                self.look_at(side, name, *file).map_err(|error| error.context(self.history()))?;
            }
            for directory in 0..DIRECTORIES {
                self.compare_list(side, &format!("d{directory}"))?;
            }
        }
        Ok(())
    }
}

fn read(open: &File, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match open.read_at(rest, offset + done as u64).with_context(|| format!("read at {offset}"))? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}
