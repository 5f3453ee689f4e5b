//! Open files: create, open, write, flush, sync, release. Reading is the edge's: `edge/reader.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooseng_types::{Attr, FILE_SIZE_MAX, FileName, FsError, InodeId, SetAttr};

use super::NewNode;
use crate::client::Client;
use crate::edge::budget::Permit;
use crate::edge::inode::{Inode, OpenFile};
use crate::file::buffer::PIECE_SIZE;
use crate::file::{Append, Explained, Flush, Occasion};
use crate::{ClientError, Result};

/// Times that a create and a lookup may miss each other while others create and remove the name.
const CREATE_TRIES: u32 = 8;
/// How long a writer waits for room before it helps to make some.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);

impl Client {
    /// Creates a regular file and opens it. A name that is taken is opened as it is, unless `exclusive`.
    pub fn create(
        self: &Arc<Self>,
        parent: InodeId,
        name: &FileName,
        node: &NewNode,
        exclusive: bool,
    ) -> Result<(Attr, Arc<OpenFile>)> {
        self.writable()?;
        let mut tries = 0;
        loop {
            let number = self.opens().begin_create();
            let asked = self.next_stamp();
            let created = self.masters.create(parent, name, node, Some(number));
            self.opens().end_create(number, created.as_ref().ok().map(|attr| attr.inode));
            match created {
                Ok(attr) => return Ok((attr, self.opened_by_create(attr, asked))),
                Err(error) if !error.is(FsError::Exists) || exclusive => return Err(error),
                Err(_) => {}
            }
            let found = self.lookup(parent, name).and_then(|attr| Ok((attr, self.open(attr.inode)?)));
            tries += 1;
            match found {
                // Removed since the create met it: create again.
                Err(error) if error.is(FsError::NotFound) && tries < CREATE_TRIES => {}
                other => return other,
            }
        }
    }

    fn opened_by_create(&self, attr: Attr, asked: u64) -> Arc<OpenFile> {
        let inode = self.hold(attr.inode);
        let mut core = inode.enter(self);
        core.file.learn(attr, asked, self.next_stamp());
        core.file.opened(None);
        core.last_used = self.clock.monotonic();
        core.no_capability_until = self.believed_until();
        let told = core.file.begin_told();
        drop(core);
        OpenFile::new(inode, told, None)
    }

    /// Opens a file: what other clients have closed before is seen from here on.
    pub fn open(self: &Arc<Self>, inode: InodeId) -> Result<Arc<OpenFile>> {
        let number = self.opens().begin(inode);
        let asked = self.next_stamp();
        let opened = self.masters.open(inode, number);
        let held = self.hold(inode);
        self.opens().end(inode, opened.is_ok());
        let opened = opened?;
        let attr = opened.attr;
        let mut core = held.enter(self);
        core.file.learn_opened(opened, asked, self.next_stamp());
        let explained = Explained::new(&core.file, self.clock.monotonic());
        drop(core);
        if let Err(error) = self.run(&held, explained) {
            self.opens().closed(inode);
            return Err(error);
        }
        let mut core = held.enter(self);
        // Whoever opens a changed file drops its pages at once.
        core.file.take_foreign_change();
        let pages = core.file.opened(self.remembered(inode));
        let seen = core.file.seen().unwrap_or(attr);
        core.last_used = self.clock.monotonic();
        let told = core.file.begin_told();
        drop(core);
        Ok(OpenFile::new(held, told, Some((seen, pages))))
    }

    /// Closes an open file. What could not be saved was told by [`Client::flush`] or [`Client::fsync`].
    pub fn release(self: &Arc<Self>, file: &OpenFile) {
        self.let_go(&file.inode);
    }

    /// Writes into the buffer; waits while it is full. Errors of earlier writes that came to light since are told here.
    pub fn write(self: &Arc<Self>, file: &OpenFile, offset: u64, data: &[u8]) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX);
        if end.is_none() {
            return Err(FsError::FileTooLarge.into());
        }
        let mut at = offset;
        for part in data.chunks(PIECE_SIZE as usize) {
            self.write_part(file, at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_part(self: &Arc<Self>, file: &OpenFile, offset: u64, part: &[u8]) -> Result<()> {
        let inode = &file.inode;
        let permit = self.room(inode, part.len())?;
        let mut core = inode.enter(self);
        file.tell(&mut core, Occasion::Write)?;
        file.writes();
        core.give_room(permit);
        let full = core.file.write(offset, part, self.clock.wall());
        core.last_used = self.clock.monotonic();
        drop(core);
        if full {
            self.kick(inode);
        }
        Ok(())
    }

    /// Writes at the file's end, wherever that is: `O_APPEND`, atomic among mounts for up to 1 MiB. Returns where the
    /// bytes begin.
    pub fn append(self: &Arc<Self>, file: &OpenFile, data: &[u8]) -> Result<u64> {
        self.writable()?;
        let inode = &file.inode;
        let mut begins = None;
        for part in data.chunks(PIECE_SIZE as usize) {
            let permit = self.room(inode, part.len())?;
            let append = {
                let mut core = inode.enter(self);
                file.tell(&mut core, Occasion::Write)?;
                file.writes();
                core.last_used = self.clock.monotonic();
                let data = Bytes::copy_from_slice(part);
                Append::new(&core.file, data, self.clock.wall(), self.clock.monotonic())
            };
            let appended = self.run(inode, append)?;
            inode.enter(self).give_room(permit);
            begins.get_or_insert(appended.offset);
            if appended.full {
                self.kick(inode);
            }
        }
        Ok(begins.unwrap_or(0))
    }

    /// Room in the write buffer. One that waits in vain sends what is unsent: first its own file's, then every other's.
    fn room(self: &Arc<Self>, inode: &Arc<Inode>, bytes: usize) -> Result<Permit> {
        let start = self.clock.monotonic();
        loop {
            if let Some(permit) = self.write_budget.acquire(bytes, ROOM_PATIENCE) {
                return Ok(permit);
            }
            // What could not be sent is told by the next sync.
            self.send_all(inode);
            if let Some(permit) = self.write_budget.acquire(bytes, Duration::ZERO) {
                return Ok(permit);
            }
            for other in self.known_inodes() {
                if other.id != inode.id && other.enter(self).file.buffered() > 0 {
                    self.send_all(&other);
                }
            }
            let since = self.clock.monotonic().saturating_sub(start);
            if since > 2 * self.patience() {
                let after_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                let last = "the write buffer stays full".to_owned();
                return Err(ClientError::GaveUp { what: "write", after_ms, last });
            }
        }
    }

    fn send_all(&self, inode: &Inode) {
        let send = Flush::only_send(&inode.enter(self).file, self.clock.monotonic());
        if let Err(error) = self.run(inode, send) {
            tracing::debug!(inode = %inode.id, %error, "unsent bytes could not be sent to make room");
        }
    }

    /// What `close(2)` does: everything written is on the chunkservers and visible to all clients, though not
    /// necessarily on a disk.
    pub fn flush(self: &Arc<Self>, file: &OpenFile) -> Result<()> {
        let wrote = file.take_wrote();
        let owes = file.inode.enter(self).file.owes_flush(wrote);
        let outcome = if owes { self.flush_and_commit(&file.inode, false) } else { Ok(()) };
        self.answered(file, wrote, outcome)
    }

    /// What `fsync(2)` does: everything written before the call is durable as the configuration has it.
    pub fn fsync(self: &Arc<Self>, file: &OpenFile) -> Result<()> {
        let wrote = file.take_wrote();
        let outcome = self.flush_and_commit(&file.inode, true);
        self.answered(file, wrote, outcome)
    }

    /// What a flush or a sync tells. What it could not do, the next one answers for.
    fn answered(&self, file: &OpenFile, wrote: bool, outcome: Result<()>) -> Result<()> {
        if wrote && outcome.is_err() {
            file.writes();
        }
        file.tell(&mut file.inode.enter(self), Occasion::Sync).and(outcome)
    }

    /// Reserves nothing, but makes the file at least `offset + length` long, as `posix_fallocate(3)` promises.
    pub fn fallocate(self: &Arc<Self>, file: &OpenFile, offset: u64, length: u64) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(length).filter(|end| *end <= FILE_SIZE_MAX);
        let end = end.ok_or(FsError::FileTooLarge)?;
        if end > file.inode.enter(self).file.size() {
            let attr = self.getattr(file.inode())?;
            if end > attr.size {
                self.setattr(file.inode(), SetAttr { size: Some(end), ..SetAttr::default() })?;
            }
        }
        Ok(())
    }
}
