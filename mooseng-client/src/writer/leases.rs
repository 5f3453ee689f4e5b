//! Write leases: getting them, making their chains ready, mending broken chains, giving them back.

use std::sync::Arc;
use std::time::Duration;

use mooseng_types::geometry::CHUNK_SIZE;
use mooseng_types::{ChunkId, ChunkIndex, ChunkVersion, FsError, ServerId};

use crate::backoff::Backoff;
use crate::chunk_client::{ChainError, ChunkRef};
use crate::client::Client;
use crate::config::FsyncMode;
use crate::inode::{Grant, Inode, Lease, LeaseState};
use crate::lock;
use crate::master_client::{Commit, Granted};
use crate::write_buffer::Piece;
use crate::{ClientError, Result};

/// A grant whose chain is ready, and how it came.
struct Readied {
    grant: Grant,
    /// It follows the lease's last grant directly: nobody else had the chunk in between.
    continuous: bool,
    /// The copies have its version already.
    adopted: bool,
}

impl Client {
    /// The lease of a chunk, got or renewed if need be; the caller is one of its users until it says otherwise. `piece`
    /// is what will be written first.
    pub(super) fn lease(
        &self,
        inode: &Inode,
        index: ChunkIndex,
        piece: Option<&Piece>,
    ) -> Result<Arc<Grant>> {
        let mut state = inode.state();
        let (failed, ready) = loop {
            state.forget_leases_of_lost_sessions(self.masters.sessions_lost());
            let lease = state.leases.entry(index).or_default();
            match &mut lease.state {
                LeaseState::Held(grant) => {
                    lease.users += 1;
                    return Ok(Arc::clone(grant));
                }
                LeaseState::Busy => state = inode.wait(state),
                LeaseState::Broken(failed) => {
                    let failed = std::mem::take(failed);
                    lease.state = LeaseState::Busy;
                    break (failed, lease.ready);
                }
            }
        };
        drop(state);
        let outcome = self.obtain(inode, index, failed, ready, piece);
        let mut state = inode.state();
        let lease = state.leases.entry(index).or_default();
        let result = match outcome {
            Ok(readied) => {
                let lost = !readied.continuous && (lease.uncommitted || lease.unsynced);
                let version = readied.grant.chunk.version;
                let grant = Arc::new(readied.grant);
                if !readied.continuous {
                    (lease.adopted, lease.uncommitted, lease.unsynced) = (None, false, false);
                }
                if readied.adopted {
                    lease.adopted = Some(version);
                }
                lease.ready = Some((grant.chunk.chunk, version));
                lease.state = LeaseState::Held(Arc::clone(&grant));
                lease.users += 1;
                if lost {
                    let last = "another client got the lease before the data was committed".to_owned();
                    state.latch(ClientError::GaveUp { what: "write", after_ms: 0, last });
                }
                Ok(grant)
            }
            Err(error) => {
                lease.state = LeaseState::Broken(Vec::new());
                if !lease.uncommitted && !lease.unsynced && lease.users == 0 {
                    state.leases.remove(&index);
                }
                Err(error)
            }
        };
        drop(state);
        inode.changed.notify_all();
        result
    }

    /// Renews a lease whose chain is broken, so that the copies with all that was written are known.
    pub(crate) fn mend(&self, inode: &Inode, index: ChunkIndex) -> Result<()> {
        self.lease(inode, index, None)?;
        if let Some(lease) = inode.state().leases.get_mut(&index) {
            lease.users = lease.users.saturating_sub(1);
        }
        inode.changed.notify_all();
        Ok(())
    }

    fn obtain(
        &self,
        inode: &Inode,
        index: ChunkIndex,
        mut failed: Vec<ServerId>,
        ready: Option<(ChunkId, ChunkVersion)>,
        piece: Option<&Piece>,
    ) -> Result<Readied> {
        let start = self.clock.monotonic();
        let mut backoff = Backoff::unavailable();
        let mut last = ready;
        loop {
            let granted = self.masters.grant_write(inode.id, index, &failed)?;
            let continuous = last.is_some_and(|last| follows(last, &granted));
            if continuous {
                last = Some((granted.chunk, granted.version));
            } else {
                last = None;
            }
            let grant = Grant {
                chunk: ChunkRef {
                    chunk: granted.chunk,
                    version: granted.version,
                    token: granted.token.clone(),
                },
                servers: granted.servers.clone(),
            };
            if continuous {
                return Ok(Readied { grant, continuous, adopted: false });
            }
            match self.make_ready(&grant, &granted, piece) {
                Ok(adopted) => return Ok(Readied { grant, continuous, adopted }),
                Err(ChainError::Full(..)) => return Err(FsError::NoSpace.into()),
                Err(error) => {
                    if let ChainError::Failed(server, _) = &error
                        && !failed.contains(server)
                    {
                        failed.push(*server);
                    }
                    self.pause("make a chunk's copies ready", start, &mut backoff, &error)?;
                }
            }
        }
    }

    /// Cuts what an earlier writer may have left beyond the committed length, and moves a small file's content out of
    /// the metadata. Tells whether the copies have the version now.
    fn make_ready(
        &self,
        grant: &Grant,
        granted: &Granted,
        piece: Option<&Piece>,
    ) -> std::result::Result<bool, ChainError> {
        let mut adopted = false;
        if !granted.fresh && granted.valid_length < CHUNK_SIZE {
            self.chunks.truncate(&grant.chunk, &grant.servers, granted.valid_length)?;
            adopted = true;
        }
        if let Some(content) = granted.inline.as_ref().filter(|content| !content.is_empty()) {
            let overwritten =
                piece.is_some_and(|piece| piece.offset == 0 && piece.data.len() >= content.len());
            if !overwritten {
                self.chunks.write(&grant.chunk, &grant.servers, 0, content, false)?;
                adopted = true;
            }
        }
        Ok(adopted)
    }

    /// Gives leases back, all or one, with what was written under them committed and, where `fsync` means the disk,
    /// synced: a later `fsync` could not reach the copies any more. Unsent bytes stay in the buffer and ask for a new
    /// lease when they are sent.
    pub(crate) fn release_leases(&self, inode: &Inode, only: Option<ChunkIndex>) -> Result<()> {
        let _committing = lock(&inode.committing);
        let durable = self.config.fsync == FsyncMode::Disk;
        if durable {
            // Mends broken chains as it goes; what is written from here on is synced below.
            self.sync_chunks(inode)?;
        }
        let grants = take_leases(inode, only);
        let mut outcome = Ok(());
        let mut commit = Commit { release: true, ..Commit::default() };
        let mut untouched = Vec::new();
        for (index, grant) in &grants {
            let mut state = inode.state();
            let Some(lease) = state.leases.get_mut(index) else { continue };
            let (unsynced, uncommitted) = (lease.unsynced, lease.uncommitted);
            drop(state);
            if unsynced && durable {
                let synced = self.chunks.sync(&grant.chunk, &grant.servers);
                outcome = outcome.and(synced.map_err(|error| {
                    let last = format!("{error:?}");
                    ClientError::GaveUp { what: "sync before giving a lease back", after_ms: 0, last }
                }));
            }
            if uncommitted {
                commit.chunks.push((*index, grant.chunk.chunk, grant.chunk.version));
            } else {
                untouched.push(*index);
            }
        }
        if !commit.chunks.is_empty() {
            let state = inode.state();
            (commit.size_at_least, commit.mtime) = (state.landed, state.mtime);
            drop(state);
            outcome = outcome.and(self.send_commit(inode, &commit).map(drop));
        }
        if let Err(error @ ClientError::GaveUp { .. }) = &outcome {
            inode.state().latch(error.clone());
        }
        if !untouched.is_empty() {
            outcome = outcome.and(match self.masters.release_leases(inode.id, &untouched) {
                // Removed meanwhile, and the leases with it.
                Err(ClientError::Refused(FsError::NotFound | FsError::Stale | FsError::LeaseLost)) => Ok(()),
                other => other,
            });
        }
        let mut state = inode.state();
        for (index, _) in &grants {
            state.leases.remove(index);
            state.located.remove(index);
        }
        drop(state);
        inode.changed.notify_all();
        outcome
    }

    /// Waits before another try, or gives up at the limit.
    pub(crate) fn pause(
        &self,
        what: &'static str,
        start: Duration,
        backoff: &mut Backoff,
        error: &dyn std::fmt::Debug,
    ) -> Result<()> {
        let since = self.clock.monotonic().saturating_sub(start);
        if since >= Duration::from_millis(self.config.retry_ms) {
            let after_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            return Err(ClientError::GaveUp { what, after_ms, last: format!("{error:?}") });
        }
        self.clock.sleep(backoff.next(self.entropy.next_u64()));
        Ok(())
    }
}

/// Takes held leases out of use and waits until nobody uses them.
fn take_leases(inode: &Inode, only: Option<ChunkIndex>) -> Vec<(ChunkIndex, Arc<Grant>)> {
    let mut state = inode.state();
    let mut grants = Vec::new();
    for (index, lease) in &mut state.leases {
        let wanted = only.is_none_or(|only| only == *index);
        if let (LeaseState::Held(grant), true) = (&lease.state, wanted) {
            grants.push((*index, Arc::clone(grant)));
            lease.state = LeaseState::Busy;
        }
    }
    let busy = |(index, _): &(ChunkIndex, _), state: &crate::inode::State| {
        state.leases.get(index).is_some_and(|lease| lease.users > 0)
    };
    while grants.iter().any(|grant| busy(grant, &state)) {
        state = inode.wait(state);
    }
    grants
}

/// Whether nobody else can have had the chunk between the last grant and this one: versions count the leases.
fn follows(last: (ChunkId, ChunkVersion), granted: &Granted) -> bool {
    granted.chunk == last.0 && (granted.version == last.1 || granted.version == last.1.next())
}

/// A request under `grant` has failed: the lease needs a new grant, unless it has one already.
pub(super) fn note_failure(lease: &mut Lease, grant: &Grant, error: &ChainError) {
    let failed = match error {
        ChainError::Failed(server, error) | ChainError::Full(server, error) => {
            tracing::warn!(chunk = %grant.chunk.chunk, %server, %error, "a write chain is broken");
            Some(*server)
        }
        ChainError::LeaseLost(error) => {
            tracing::warn!(chunk = %grant.chunk.chunk, %error, "a write lease is not valid any more");
            None
        }
    };
    if lease.holds(grant.chunk.version) {
        lease.state = LeaseState::Broken(Vec::new());
    }
    if let (LeaseState::Broken(servers), Some(server)) = (&mut lease.state, failed)
        && !servers.contains(&server)
    {
        servers.push(server);
    }
}
