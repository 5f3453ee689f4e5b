//! Open files: create, open, write, flush, sync, release. Reading is in `reader.rs`.

use std::sync::Arc;
use std::time::Duration;

use mooseng_types::{Attr, FILE_SIZE_MAX, FileName, FsError, InodeId, SetAttr};

use super::NewNode;
use crate::client::Client;
use crate::inode::{AtMasters, Inode, Layout, OpenFile};
use crate::write_buffer::PIECE_SIZE;
use crate::{ClientError, Result, lock};

/// Times that a create and a lookup may miss each other while others create and remove the name.
const CREATE_TRIES: u32 = 8;
/// How long a writer waits for room before it helps to make some.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);

impl Client {
    /// Creates a regular file and opens it. A name that is taken is opened as it is, unless `exclusive`.
    pub fn create(
        &self,
        parent: InodeId,
        name: &FileName,
        node: &NewNode,
        exclusive: bool,
    ) -> Result<(Attr, Arc<OpenFile>)> {
        self.writable()?;
        let mut tries = 0;
        loop {
            match self.masters.create(parent, name, node, true) {
                Ok(attr) => return Ok((attr, self.opened_by_create(attr))),
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

    fn opened_by_create(&self, attr: Attr) -> Arc<OpenFile> {
        let inode = self.hold(attr.inode);
        let stamp = self.next_stamp();
        let mut state = inode.state();
        state.at_masters = AtMasters::Open;
        state.learn(attr, stamp, stamp);
        state.last_used = self.clock.monotonic();
        state.no_capability_until = self.believed_until();
        let errors = state.errors();
        drop(state);
        OpenFile::new(inode, errors, false)
    }

    /// Opens a file: what other clients have closed before is seen from here on.
    pub fn open(&self, inode: InodeId) -> Result<Arc<OpenFile>> {
        let inode = self.hold(inode);
        let mut state = inode.state();
        while state.at_masters == AtMasters::Releasing {
            state = inode.wait(state);
        }
        drop(state);
        let opened = self.masters.open(inode.id);
        let stamp = self.next_stamp();
        let mut state = inode.state();
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                drop(state);
                self.let_go(&inode);
                return Err(error);
            }
        };
        state.at_masters = AtMasters::Open;
        state.learn(opened.attr, stamp, stamp);
        if let Some(content) = opened.inline
            && state.is_clean()
            && state.leases.is_empty()
        {
            state.layout = Layout::Inline(content);
        }
        state.last_used = self.clock.monotonic();
        let errors = state.errors();
        drop(state);
        let seen = (opened.attr.mtime, opened.attr.size);
        let unchanged = lock(&self.remembered).insert(inode.id, seen) == Some(seen);
        Ok(OpenFile::new(inode, errors, unchanged))
    }

    /// Closes an open file. What could not be saved was told by [`Client::flush`] or [`Client::fsync`].
    pub fn release(&self, file: &OpenFile) {
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
        let mut permit = self.room(inode, part.len())?;
        let content = self.next_stamp();
        let (mtime, now) = (self.clock.wall(), self.clock.monotonic());
        let mut state = inode.state();
        file.tell_error(&state)?;
        let (grown, full) = state.buffer.write(offset, part);
        permit.release(part.len() - grown);
        state.permit.merge(permit);
        state.size = state.size.max(offset + part.len() as u64);
        state.mtime = Some(mtime);
        state.content = content;
        state.last_used = now;
        drop(state);
        if full {
            self.kick(inode);
        }
        Ok(())
    }

    /// Room in the write buffer. One that waits in vain sends what is unsent: first its own file's, then every other's.
    fn room(&self, inode: &Inode, bytes: usize) -> Result<crate::budget::Permit> {
        let start = self.clock.monotonic();
        loop {
            if let Some(permit) = self.write_budget.acquire(bytes, ROOM_PATIENCE) {
                return Ok(permit);
            }
            self.flush_data(inode);
            if let Some(permit) = self.write_budget.acquire(bytes, Duration::ZERO) {
                return Ok(permit);
            }
            self.relieve_all(inode.id);
            let since = self.clock.monotonic().saturating_sub(start);
            if since > 2 * Duration::from_millis(self.config.retry_ms) {
                let after_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                let last = "the write buffer stays full".to_owned();
                return Err(ClientError::GaveUp { what: "write", after_ms, last });
            }
        }
    }

    /// What `close(2)` does: everything written is on the chunkservers and visible to all clients, though not
    /// necessarily on a disk.
    pub fn flush(&self, file: &OpenFile) -> Result<()> {
        let clean = file.inode.state().is_clean();
        let outcome = if clean { Ok(()) } else { self.flush_and_commit(&file.inode, false) };
        file.tell_error(&file.inode.state()).and(outcome)
    }

    /// What `fsync(2)` does: everything written before the call is durable as the configuration has it.
    pub fn fsync(&self, file: &OpenFile) -> Result<()> {
        let outcome = self.flush_and_commit(&file.inode, true);
        file.tell_error(&file.inode.state()).and(outcome)
    }

    /// Reserves nothing, but makes the file at least `offset + length` long, as `posix_fallocate(3)` promises.
    pub fn fallocate(&self, file: &OpenFile, offset: u64, length: u64) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(length).filter(|end| *end <= FILE_SIZE_MAX);
        let end = end.ok_or(FsError::FileTooLarge)?;
        if end > file.inode.state().size {
            let attr = self.getattr(file.inode())?;
            if end > attr.size {
                self.setattr(file.inode(), SetAttr { size: Some(end), ..SetAttr::default() })?;
            }
        }
        Ok(())
    }
}
