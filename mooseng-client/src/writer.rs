//! From the write buffer to the chunkservers: pieces, flush, sync, commit.
//!
//! Full pieces are sent by a few background threads as they form; a flush sends the rest on the caller's own thread. A
//! piece stays in the buffer until every copy of its chunk has confirmed it.

mod leases;

use std::sync::Arc;

use mooseng_types::{ChunkIndex, FsError, INLINE_MAX, InodeId};

use crate::backoff::Backoff;
use crate::chunk_client::ChainError;
use crate::client::Client;
use crate::config::FsyncMode;
use crate::inode::{Inode, Layout, Lease, LeaseState, State};
use crate::lock;
use crate::master_client::Commit;
use crate::write_buffer::{Piece, Take};
use crate::{ClientError, Result};

/// What came of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    /// The masters have it.
    Yes,
    /// A lease was renewed on the way: commit under the new version.
    Again,
}

/// Chunks of one file that are synced at the same time.
const SYNCS_MAX: usize = 8;

impl Client {
    /// Sends one full piece, if there is one; the background's share.
    pub(crate) fn send_full_piece(&self, inode: &Inode) {
        let piece = inode.state().buffer.take(Take::Full);
        if let Some(piece) = piece {
            self.send_piece(inode, &piece);
        }
    }

    /// Sends a piece that was taken from the buffer. An error is kept for the program, and the piece is given up: kept,
    /// it would block every other writer in the end.
    fn send_piece(&self, inode: &Inode, piece: &Piece) {
        let outcome = self.write_piece(inode, piece);
        let mut state = inode.state();
        if let Err(error) = outcome {
            state.latch(error);
        }
        finish(&mut state, piece);
        drop(state);
        inode.changed.notify_all();
    }

    fn write_piece(&self, inode: &Inode, piece: &Piece) -> Result<()> {
        let index = ChunkIndex::of_offset(piece.offset).ok_or(FsError::FileTooLarge)?;
        let start = self.clock.monotonic();
        let mut backoff = Backoff::unavailable();
        loop {
            let grant = self.lease(inode, index, Some(piece))?;
            let inside = piece.offset - index.start();
            let sent = self.chunks.write(&grant.chunk, &grant.servers, inside, &piece.data, false);
            let mut state = inode.state();
            let Some(lease) = state.leases.get_mut(&index) else { continue };
            lease.users = lease.users.saturating_sub(1);
            inode.changed.notify_all();
            // Confirmed under the newest version this client has had: every copy of its chain has the piece, and those
            // that a repair of the chain leaves behind are among them.
            let newest = lease.ready == Some((grant.chunk.chunk, grant.chunk.version));
            match sent {
                Ok(()) if newest => {
                    lease.adopted = Some(grant.chunk.version);
                    (lease.unsynced, lease.uncommitted) = (true, true);
                    state.landed = state.landed.max(piece.offset + piece.data.len() as u64);
                    state.layout = Layout::Chunks;
                    return Ok(());
                }
                // The lease was replaced meanwhile; it is not certain which copies have the piece.
                Ok(()) => {}
                Err(ChainError::Full(server, error)) => {
                    tracing::warn!(chunk = %grant.chunk.chunk, %server, %error, "a chunkserver is full");
                    return Err(FsError::NoSpace.into());
                }
                Err(error) => {
                    leases::note_failure(lease, &grant, &error);
                    drop(state);
                    self.pause("write to the chunkservers", start, &mut backoff, &error)?;
                }
            }
        }
    }

    /// Sends all that was written before the call and waits until it is confirmed. What fails is kept as an error.
    pub(crate) fn flush_data(&self, inode: &Inode) {
        let mark = inode.state().buffer.last_write();
        let inline = take_inline(&mut inode.state());
        for piece in inline {
            self.write_inline(inode, &piece);
        }
        let mut state = inode.state();
        while !state.buffer.is_clean_up_to(mark) {
            state = match state.buffer.take(Take::UpTo(mark)) {
                Some(piece) => {
                    drop(state);
                    self.send_piece(inode, &piece);
                    inode.state()
                }
                None => inode.wait(state),
            };
        }
    }

    /// Writes a piece of a small file into the metadata, or into a chunk if the masters see it otherwise.
    fn write_inline(&self, inode: &Inode, piece: &Piece) {
        let offset = u32::try_from(piece.offset).unwrap_or(u32::MAX);
        match self.masters.write_inline(inode.id, offset, &piece.data) {
            Ok(attr) => {
                let stamp = self.next_stamp();
                let mut state = inode.state();
                finish(&mut state, piece);
                state.layout = written_inline(&state.layout, piece);
                if state.buffer.is_empty() {
                    state.mtime = None;
                }
                state.confirm(attr, stamp);
                drop(state);
                inode.changed.notify_all();
            }
            Err(ClientError::Refused(FsError::Invalid | FsError::NotSupported | FsError::FileTooLarge)) => {
                inode.state().layout = Layout::Chunks;
                self.send_piece(inode, piece);
            }
            Err(error) => {
                let mut state = inode.state();
                state.latch(error);
                finish(&mut state, piece);
                drop(state);
                inode.changed.notify_all();
            }
        }
    }

    /// Makes everything written before the call visible to all clients; with `durable`, what `fsync` promises.
    pub(crate) fn flush_and_commit(&self, inode: &Inode, durable: bool) -> Result<()> {
        let _committing = lock(&inode.committing);
        self.flush_data(inode);
        if durable && self.config.fsync == FsyncMode::Disk {
            self.sync_chunks(inode)?;
        }
        self.commit(inode)
    }

    /// Syncs every chunk that was written since its last sync.
    fn sync_chunks(&self, inode: &Inode) -> Result<()> {
        let mut state = inode.state();
        state.forget_leases_of_lost_sessions(self.masters.sessions_lost());
        let indexes: Vec<ChunkIndex> =
            state.leases.iter().filter(|(_, lease)| lease.unsynced).map(|(index, _)| *index).collect();
        drop(state);
        if let [index] = indexes[..] {
            return self.sync_chunk(inode, index);
        }
        for group in indexes.chunks(SYNCS_MAX) {
            std::thread::scope(|scope| {
                let syncs: Vec<_> =
                    group.iter().map(|index| scope.spawn(|| self.sync_chunk(inode, *index))).collect();
                syncs.into_iter().try_for_each(|sync| sync.join().unwrap_or(Err(ClientError::Closed)))
            })?;
        }
        Ok(())
    }

    fn sync_chunk(&self, inode: &Inode, index: ChunkIndex) -> Result<()> {
        let start = self.clock.monotonic();
        let mut backoff = Backoff::unavailable();
        loop {
            let mut state = inode.state();
            match state.leases.get_mut(&index) {
                // Whoever gave the lease back has synced it.
                None => return Ok(()),
                Some(lease) if !lease.unsynced && !matches!(lease.state, LeaseState::Busy) => return Ok(()),
                Some(_) => drop(state),
            }
            let grant = self.lease(inode, index, None)?;
            let mut state = inode.state();
            let adopted = state.leases.get_mut(&index).is_some_and(|lease| {
                lease.unsynced = false;
                lease.adopted == Some(grant.chunk.version)
            });
            drop(state);
            // A copy takes on a new version with a write; an empty one will do.
            let synced = if adopted {
                self.chunks.sync(&grant.chunk, &grant.servers)
            } else {
                self.chunks.write(&grant.chunk, &grant.servers, 0, &[], true)
            };
            let mut state = inode.state();
            let Some(lease) = state.leases.get_mut(&index) else { continue };
            lease.users = lease.users.saturating_sub(1);
            match synced {
                Ok(()) => {
                    lease.adopted = Some(grant.chunk.version);
                    drop(state);
                    inode.changed.notify_all();
                    return Ok(());
                }
                Err(error) => {
                    lease.unsynced = true;
                    leases::note_failure(lease, &grant, &error);
                    drop(state);
                    inode.changed.notify_all();
                    self.pause("sync the chunkservers", start, &mut backoff, &error)?;
                }
            }
        }
    }

    /// Tells the masters what has been written. Nothing to tell costs nothing. The caller holds `committing`.
    pub(crate) fn commit(&self, inode: &Inode) -> Result<()> {
        loop {
            let mut state = inode.state();
            state.forget_leases_of_lost_sessions(self.masters.sessions_lost());
            // A lease that is being renewed: the new version is the one to commit.
            while state
                .leases
                .values()
                .any(|lease| lease.uncommitted && matches!(lease.state, LeaseState::Busy))
            {
                state = inode.wait(state);
            }
            let mut commit = Commit { size_at_least: state.landed, mtime: state.mtime, ..Commit::default() };
            for (index, lease) in &mut state.leases {
                if let (Some((chunk, version)), true) = (lease.ready, lease.uncommitted) {
                    commit.chunks.push((*index, chunk, version));
                    lease.uncommitted = false;
                }
            }
            if commit.chunks.is_empty() && (commit.mtime.is_none() || commit.size_at_least == 0) {
                if state.buffer.is_empty() {
                    state.mtime = None;
                }
                return Ok(());
            }
            drop(state);
            if self.send_commit(inode, &commit)? == Committed::Yes {
                return Ok(());
            }
        }
    }

    /// Sends a commit and takes in its outcome.
    fn send_commit(&self, inode: &Inode, commit: &Commit) -> Result<Committed> {
        let outcome = self.masters.commit_write(inode.id, commit);
        let stamp = self.next_stamp();
        let mut state = inode.state();
        match outcome {
            Ok(attr) => {
                if state.buffer.is_empty() && state.mtime == commit.mtime {
                    state.mtime = None;
                }
                if state.landed == commit.size_at_least {
                    state.landed = 0;
                }
                state.confirm(attr, stamp);
                Ok(Committed::Yes)
            }
            Err(error) => {
                let refused = matches!(error, ClientError::Refused(_));
                let mut renewed = false;
                for (index, chunk, version) in &commit.chunks {
                    let Some(lease) = state.leases.get_mut(index) else { continue };
                    let newer = lease.ready.is_some_and(|ready| ready != (*chunk, *version));
                    renewed |= newer;
                    lease.uncommitted |= newer || !refused;
                    if refused && !newer && lease.users == 0 && lease.holds(*version) {
                        *lease = Lease::default();
                    }
                }
                if refused && renewed {
                    return Ok(Committed::Again);
                }
                if refused {
                    state.latch(error.clone());
                    state.mtime = None;
                }
                Err(error)
            }
        }
    }

    /// Queues full pieces for the background.
    pub(crate) fn kick(self: &Arc<Self>, inode: &Arc<Inode>) {
        let (client, inode) = (Arc::clone(self), Arc::clone(inode));
        // A full queue means that the threads are busy; what is not taken now is sent by the next flush, which a
        // waiting writer starts too.
        self.flushers.try_submit(move || client.send_full_piece(&inode));
    }

    /// Sends the unsent bytes of every file, the given one excepted.
    pub(crate) fn relieve_all(&self, except: InodeId) {
        for inode in self.known_inodes() {
            if inode.id != except && !inode.state().buffer.is_empty() {
                self.flush_data(&inode);
            }
        }
    }
}

fn finish(state: &mut State, piece: &Piece) {
    let freed = state.buffer.finish(piece.offset);
    state.permit.release(freed);
}

/// Everything unsent of a file that is small enough to live in the metadata, and nothing of any other file.
fn take_inline(state: &mut State) -> Vec<Piece> {
    let small = state.size <= INLINE_MAX && state.buffer.dirty_end() <= INLINE_MAX;
    if !small || state.layout == Layout::Chunks || !state.leases.is_empty() || state.buffer.is_sending() {
        return Vec::new();
    }
    let all = state.buffer.last_write();
    std::iter::from_fn(|| state.buffer.take(Take::UpTo(all))).collect()
}

/// What a small file holds after a write.
fn written_inline(before: &Layout, piece: &Piece) -> Layout {
    let mut content = match before {
        Layout::Inline(content) => content.to_vec(),
        Layout::Empty => Vec::new(),
        Layout::Chunks => return Layout::Chunks,
    };
    let offset = piece.offset as usize;
    let end = offset + piece.data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(&piece.data);
    Layout::Inline(content.into())
}
