//! A copy that the leader wants fetched, from its order to its place on a disk or to the reason why not, which the leader hears.
//! Where the bytes come from is the caller's: a connection, or the simulator's network.

use std::sync::Arc;

use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkCause, ChunkVersion, Part};

use crate::copy_events::{CopyEvents, FailedFetch, FetchReason};
use crate::store::{Chunk, Incoming, Store, StoreError};

/// Bytes asked for at once.
const READ_LENGTH: u32 = 1 << 20;

/// Why a copy was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The store's part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source did not give it.
    #[error("from {address}")]
    Source {
        /// Which server that was.
        address: String,
        /// What it said, if anything.
        source: CallError,
    },
    /// What would be put together fits no version.
    #[error("the source has version {found}, wanted was {wanted}")]
    Version {
        /// The version of the copy there.
        found: u32,
        /// That of the order.
        wanted: u32,
    },
    /// The copy there ends before its end.
    #[error("the source sent less than it has")]
    Short,
}

impl FetchError {
    /// What the leader is told.
    fn reason(&self) -> FetchReason {
        match self {
            Self::Store(StoreError::NoSpace { .. }) => FetchReason::NoSpace,
            Self::Version { found, wanted } if found < wanted => FetchReason::Older,
            Self::Store(_) | Self::Version { .. } | Self::Short => FetchReason::Other,
            Self::Source { source, .. } => match source {
                CallError::Transport(_) => FetchReason::Unreachable,
                CallError::Chunk { cause, .. } => match cause {
                    ChunkCause::Damaged => FetchReason::Damaged,
                    ChunkCause::Stale => FetchReason::Older,
                    ChunkCause::Stopping | ChunkCause::Silent | ChunkCause::Unreachable => {
                        FetchReason::Unreachable
                    }
                    _ => FetchReason::Other,
                },
                _ => FetchReason::Other,
            },
        }
    }
}

/// A copy that is being fetched. Dropped before it is whole, it leaves nothing behind; files are removed by whoever drops it.
#[derive(Debug)]
pub struct Fetch {
    store: Arc<Store>,
    events: Arc<CopyEvents>,
    chunk: Arc<Chunk>,
    order: pb::CopyChunk,
    incoming: Option<Incoming>,
    /// Bytes fetched so far.
    length: u64,
    /// The piece at hand did not match its checksums: the source is to look whether it is damaged there.
    suspicious: bool,
}

impl Fetch {
    /// Begins what an order says, which is about `part`; `None` if the copy is here already, which the leader will hear again.
    pub(crate) fn begin(
        store: &Arc<Store>,
        events: &Arc<CopyEvents>,
        part: Part,
        order: pb::CopyChunk,
    ) -> Result<Option<Self>, FetchError> {
        let Some(mut fetch) = Self::prepare(store, events, part, order)? else { return Ok(None) };
        fetch.open()?;
        Ok(Some(fetch))
    }

    /// Chooses the place, without touching a disk; [`Self::open`] comes next. Otherwise as [`Self::begin`].
    pub(crate) fn prepare(
        store: &Arc<Store>,
        events: &Arc<CopyEvents>,
        part: Part,
        order: pb::CopyChunk,
    ) -> Result<Option<Self>, FetchError> {
        let chunk = match store.find_or_place_whole(part) {
            Ok(chunk) => chunk,
            Err(error) => return Err(tell(events, part, &order.source, error.into())),
        };
        let version = ChunkVersion::from_raw(order.version);
        if let Some((have, in_doubt)) = chunk.has(version)
            && !(order.replace && in_doubt && have == version)
        {
            events.remind(part, have, in_doubt);
            return Ok(None);
        }
        let (store, events) = (Arc::clone(store), Arc::clone(events));
        Ok(Some(Self { store, events, chunk, order, incoming: None, length: 0, suspicious: false }))
    }

    /// Makes the files.
    pub(crate) fn open(&mut self) -> Result<(), FetchError> {
        let incoming = Incoming::begin(Arc::clone(&self.chunk));
        self.incoming = Some(incoming.map_err(|error| self.tell(error.into()))?);
        Ok(())
    }

    /// Of what.
    pub(crate) fn part(&self) -> Part {
        self.chunk.id()
    }

    /// The place of its disk among the store's.
    pub(crate) fn disk(&self) -> usize {
        self.store.disk_index(&self.chunk)
    }

    /// Whom to ask.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.order.source
    }

    /// What to ask next.
    #[must_use]
    pub fn request(&self) -> pb::ReadChunkRequest {
        pb::ReadChunkRequest {
            token: self.order.token.clone(),
            chunk: self.order.chunk,
            version: self.order.version,
            offset: u32::try_from(self.length()).unwrap_or(u32::MAX),
            length: READ_LENGTH,
            verify: self.suspicious,
            intact: false,
            // What is made of a copy in doubt would pass for a good one.
            whole: true,
            part: self.order.part,
        }
    }

    /// Bytes fetched so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes an answer; `true` when the copy is whole and has its place. After an error there is nothing more to do; the leader
    /// hears of it.
    pub fn take(&mut self, reply: &pb::ReadChunkReply, piece: &[u8]) -> Result<bool, FetchError> {
        let taken = self.take_piece(reply, piece).map_err(|error| self.tell(error))?;
        if taken {
            self.events.fetched(self.part());
        }
        Ok(taken)
    }

    fn take_piece(&mut self, reply: &pb::ReadChunkReply, piece: &[u8]) -> Result<bool, FetchError> {
        let wanted = self.order.version;
        if reply.version != wanted {
            // It is being written under a newer lease.
            return Err(FetchError::Version { found: reply.version, wanted });
        }
        let Some(incoming) = self.incoming.as_mut() else { return Ok(true) };
        if piece.is_empty() && incoming.length() < u64::from(reply.copy_length) {
            return Err(FetchError::Short);
        }
        match incoming.append(piece, &reply.checksums) {
            // The source sends what is in its file. Damaged there, or on the way? Asked anew, it reads the piece itself.
            Err(StoreError::DamagedOnTheWay { .. }) if !self.suspicious => {
                self.suspicious = true;
                return Ok(false);
            }
            appended => appended?,
        }
        self.suspicious = false;
        self.length = incoming.length();
        if incoming.length() < u64::from(reply.copy_length) {
            return Ok(false);
        }
        if let Some(incoming) = self.incoming.take() {
            incoming.publish(ChunkVersion::from_raw(wanted), self.order.replace)?;
        }
        Ok(true)
    }

    /// The source did not answer, or with an error: there is nothing more to do, and the leader hears of it.
    pub fn source_failed(&self, error: CallError) -> FetchError {
        self.tell(FetchError::Source { address: self.order.source.clone(), source: error })
    }

    fn tell(&self, error: FetchError) -> FetchError {
        tell(&self.events, self.part(), &self.order.source, error)
    }
}

/// Tells the leader that a fetch came to nothing.
fn tell(events: &CopyEvents, part: Part, source: &str, error: FetchError) -> FetchError {
    events.not_fetched(part, &FailedFetch { source: source.to_owned(), reason: error.reason() });
    error
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.chunk.give_up_place();
        self.store.forget_if_gone(&self.chunk);
    }
}
