//! Operations on contents: write, append, truncate, allocate, map; opened and closed at once, or on handles kept open.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::super::content::{PAGE, to_index};
use super::super::model::{FileNumber, Handle, Side, other};
use super::{HANDLES_MAX, Player, SIZE_MAX};
use crate::suite::syscall::{self, Mapping};

impl Player {
    /// Opens, writes or appends, sometimes syncs, closes; what the other mount then opens has it.
    pub(super) fn write_and_close(&mut self, side: Side, append: bool) -> Result<()> {
        let Some((name, file)) = self.picked_name() else { return Ok(()) };
        self.publish_for(side, file)?;
        self.say(Some(file), side, &format!("open {name}{}", if append { " to append" } else { "" }))?;
        let mut options = File::options();
        let open = self.open(side, &name, file, options.read(true).write(true).append(append))?;
        for _ in 0..=self.random.below(3) {
            if append { self.append_to(side, file, &open)? } else { self.write_at(side, file, &open)? }
        }
        if self.random.below(3) == 0 {
            self.say(Some(file), side, "fsync it")?;
            open.sync_all().context("fsync")?;
        }
        self.close_and_look(side, &name, file, open)
    }

    fn close_and_look(&mut self, side: Side, name: &str, file: FileNumber, open: File) -> Result<()> {
        self.say(Some(file), side, "close it")?;
        syscall::close(open).context("close")?;
        self.maybe_look(other(side), name, file)
    }

    pub(super) fn write_at(&mut self, side: Side, file: FileNumber, open: &File) -> Result<()> {
        let size = self.model.node(file).content.size();
        let (offset, bytes) = (self.offset(size), self.bytes());
        self.say(Some(file), side, &format!("write {} at {offset}", bytes.len()))?;
        self.changing(side, file).content.write(offset, &bytes);
        open.write_all_at(&bytes, offset).context("write")
    }

    fn append_to(&mut self, side: Side, file: FileNumber, mut open: &File) -> Result<()> {
        let bytes = self.bytes();
        let size = self.model.node(file).content.size();
        if size + bytes.len() as u64 > SIZE_MAX {
            return Ok(());
        }
        self.say(Some(file), side, &format!("append {} (at {size})", bytes.len()))?;
        self.changing(side, file).content.write(size, &bytes);
        open.write_all(&bytes).context("append")
    }

    pub(super) fn keep_open(&mut self, side: Side) -> Result<()> {
        if self.model.handles.len() >= HANDLES_MAX {
            self.close_one()?;
        }
        let Some((name, file)) = self.picked_name() else { return Ok(()) };
        self.publish_for(side, file)?;
        let append = self.random.below(2) == 0;
        let number = self.number();
        let how = if append { " to append" } else { "" };
        self.say(Some(file), side, &format!("open {name}{how}, kept as handle {number}"))?;
        let mut options = File::options();
        let open = self.open(side, &name, file, options.read(true).write(true).append(append))?;
        if self.random.below(2) == 0 {
            self.compare(&open, file)?;
        }
        self.model.handles.push(Handle { number, side, file, append, open: Arc::new(open) });
        Ok(())
    }

    /// Does something with a handle that was kept open, whatever happened to the file since.
    pub(super) fn use_handle(&mut self) -> Result<()> {
        let index = self.random.index(self.model.handles.len());
        let Some(handle) = self.model.handles.get(index) else { return Ok(()) };
        let (number, side, file, append) = (handle.number, handle.side, handle.file, handle.append);
        let open = Arc::clone(&handle.open);
        match self.random.below(10) {
            0..4 => {
                self.publish_for(side, file)?;
                self.use_alone(number, file)?;
                self.say(Some(file), side, &format!("through handle {number}:"))?;
                if append { self.append_to(side, file, &open) } else { self.write_at(side, file, &open) }
            }
            4 => {
                self.publish_for(side, file)?;
                self.say(Some(file), side, &format!("through handle {number}:"))?;
                self.cut_or_grow(side, file, &open)
            }
            5..8 if self.model.node(file).knows.get(side) == Some(&true) => {
                self.say(Some(file), side, &format!("read through handle {number}"))?;
                self.compare(&open, file)
            }
            kind => self.sync_handle(number, kind == 9),
        }
    }

    /// At most one handle has unsaved writes: a close is bound to save those of its own handle only.
    fn use_alone(&mut self, number: u64, file: FileNumber) -> Result<()> {
        match self.model.node(file).unsaved {
            Some(earlier) if earlier != number => self.sync_handle(earlier, false)?,
            _ => {}
        }
        self.model.node(file).unsaved = Some(number);
        Ok(())
    }

    pub(super) fn truncate(&mut self, side: Side) -> Result<()> {
        let Some((name, file)) = self.picked_name() else { return Ok(()) };
        self.publish_for(side, file)?;
        self.say(Some(file), side, &format!("open {name}"))?;
        let open = self.open(side, &name, file, File::options().read(true).write(true))?;
        self.cut_or_grow(side, file, &open)?;
        self.close_and_look(side, &name, file, open)
    }

    fn cut_or_grow(&mut self, side: Side, file: FileNumber, open: &File) -> Result<()> {
        let size = self.model.node(file).content.size();
        let to = match self.random.below(4) {
            0 => self.random.below(size + 1),
            1 => 0,
            _ => self.offset(size),
        };
        self.say(Some(file), side, &format!("truncate from {size} to {to}"))?;
        self.changing(side, file).content.set_size(to);
        open.set_len(to).context("truncate")
    }

    pub(super) fn allocate(&mut self, side: Side) -> Result<()> {
        let Some((name, file)) = self.picked_name() else { return Ok(()) };
        self.publish_for(side, file)?;
        self.say(Some(file), side, &format!("open {name}"))?;
        let open = self.open(side, &name, file, File::options().read(true).write(true))?;
        let size = self.model.node(file).content.size();
        let (offset, length) = (self.offset(size), 1 + self.random.below(100_000));
        self.say(Some(file), side, &format!("fallocate {length} at {offset}"))?;
        let node = self.changing(side, file);
        let grown = node.content.size().max(offset + length);
        node.content.set_size(grown);
        rustix::fs::fallocate(&open, rustix::fs::FallocateFlags::empty(), offset, length)
            .context("fallocate")?;
        self.close_and_look(side, &name, file, open)
    }

    /// Stores through a shared mapping, before or after the close of the descriptor, and syncs the mapping.
    pub(super) fn map(&mut self, side: Side) -> Result<()> {
        let Some((name, file)) = self.picked_name() else { return Ok(()) };
        self.publish_for(side, file)?;
        let size = self.model.node(file).content.size();
        if size == 0 {
            return Ok(());
        }
        let at = self.offset(size).min(size - 1);
        let mut bytes = self.bytes();
        bytes.truncate(to_index(size - at));
        let first = at - at % PAGE;
        let early = self.random.below(2) == 0;
        let when = if early { "close, " } else { "" };
        self.say(
            Some(file),
            side,
            &format!("open {name}, map, {when}store {} at {at}, msync, munmap", bytes.len()),
        )?;
        let open = self.open(side, &name, file, File::options().read(true).write(true))?;
        let mut mapping =
            Mapping::shared(&open, first, to_index(at - first) + bytes.len()).context("mmap")?;
        let mut open = Some(open);
        if early {
            open.take().map_or(Ok(()), syscall::close).context("close")?;
        }
        self.changing(side, file).content.write(at, &bytes);
        mapping.store(to_index(at - first), &bytes);
        mapping.sync().context("msync")?;
        drop(mapping);
        open.take().map_or(Ok(()), syscall::close).context("close")?;
        self.maybe_look(other(side), &name, file)
    }
}
