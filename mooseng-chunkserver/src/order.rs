//! What an order of the leader means to the store: copies deleted, copies fetched. Where the bytes of a fetched copy come
//! from is the caller's: a connection, or the simulator's network.

use std::sync::Arc;

use bytes::Bytes;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_types::{ChunkId, ChunkVersion};
use prost::Message as _;

use crate::changes::{Change, Changes};
use crate::store::{Chunk, Incoming, Store, StoreError};

/// Bytes asked for at once.
const READ_LENGTH: u32 = 1 << 20;

/// An order, decoded.
#[derive(Debug)]
pub(crate) enum Order {
    Delete(Vec<ChunkId>),
    Copy(pb::CopyChunk),
}

impl Order {
    /// Decodes a push of a master; `None` if it is no order.
    pub(crate) fn decode(kind: u16, body: &Bytes) -> Option<Self> {
        let decoded = match kind {
            pb::DeleteChunks::KIND => pb::DeleteChunks::decode(body.clone())
                .map(|order| Self::Delete(order.chunks.into_iter().map(ChunkId::from_raw).collect())),
            pb::CopyChunk::KIND => pb::CopyChunk::decode(body.clone()).map(Self::Copy),
            _ => return None,
        };
        decoded.inspect_err(|error| tracing::warn!(%error, kind, "order does not decode")).ok()
    }
}

/// Deletes a copy. The leader hears of it, and of one that was not here at all.
pub(crate) fn delete(store: &Store, changes: &Changes, id: ChunkId) {
    let Some(chunk) = store.find(id) else { return changes.note(id, Change::Lost) };
    match chunk.delete() {
        Ok(()) => changes.note(id, Change::Lost),
        Err(error) => tracing::warn!(%error, "copy not deleted"),
    }
    store.forget_if_gone(&chunk);
}

/// Why a copy was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The store's part.
    #[error(transparent)]
    Store(#[from] StoreError),
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

/// A copy that is being fetched. Dropped before it is whole, it leaves nothing behind.
#[derive(Debug)]
pub struct Fetch {
    store: Arc<Store>,
    chunk: Arc<Chunk>,
    order: pb::CopyChunk,
    incoming: Option<Incoming>,
}

impl Fetch {
    /// Begins what an order says; `None` if the copy is here already, which the leader will hear again.
    pub(crate) fn begin(
        store: &Arc<Store>,
        changes: &Changes,
        order: pb::CopyChunk,
    ) -> Result<Option<Self>, FetchError> {
        let chunk = store.find_or_place_whole(ChunkId::from_raw(order.chunk))?;
        let version = ChunkVersion::from_raw(order.version);
        if let Some((have, in_doubt)) = chunk.has(version)
            && !(order.replace && in_doubt && have == version)
        {
            changes.note(chunk.id(), Change::Here { version: have, in_doubt });
            return Ok(None);
        }
        let mut fetch = Self { store: Arc::clone(store), chunk, order, incoming: None };
        fetch.incoming = Some(Incoming::begin(Arc::clone(&fetch.chunk))?);
        Ok(Some(fetch))
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
            verify: false,
            intact: false,
            // What is made of a copy in doubt would pass for a good one.
            whole: true,
        }
    }

    /// Bytes fetched so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.incoming.as_ref().map_or(0, Incoming::length)
    }

    /// Takes an answer; `true` when the copy is whole and has its place.
    pub fn take(&mut self, reply: &pb::ReadChunkReply, piece: &[u8]) -> Result<bool, FetchError> {
        let wanted = self.order.version;
        if reply.version != wanted {
            // It is being written under a newer lease.
            return Err(FetchError::Version { found: reply.version, wanted });
        }
        let Some(incoming) = self.incoming.as_mut() else { return Ok(true) };
        if piece.is_empty() && incoming.length() < u64::from(reply.copy_length) {
            return Err(FetchError::Short);
        }
        incoming.append(piece, &reply.checksums)?;
        if incoming.length() < u64::from(reply.copy_length) {
            return Ok(false);
        }
        if let Some(incoming) = self.incoming.take() {
            incoming.publish(ChunkVersion::from_raw(wanted), self.order.replace)?;
        }
        Ok(true)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.chunk.give_up_place();
        self.store.forget_if_gone(&self.chunk);
    }
}
