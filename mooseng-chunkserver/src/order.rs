//! What an order of the leader means to the store: copies deleted, put into quarantine, verified, settled on. How one is fetched is in
//! `fetch.rs`.

use std::time::Duration;

use bytes::Bytes;
use mooseng_protocol::convert::part;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkVersion, Part};
use prost::Message as _;

use crate::copy_events::{CopyEvent, CopyEvents};
use crate::keeper::Keepers;
use crate::store::Store;

/// An order, decoded.
#[derive(Debug)]
pub(crate) enum Order {
    Delete(Vec<Part>),
    /// With the seconds that they are kept.
    Quarantine(Vec<Condemned>, u64),
    Verify(Vec<Part>),
    Settle(Settled),
    Copy(Part, pb::CopyChunk),
}

/// A copy that the leader has decided about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Condemned {
    pub(crate) part: Part,
    /// One that is newer is another one.
    pub(crate) version: ChunkVersion,
}

/// A copy that the leader has chosen, and the version that it is to take on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Settled {
    pub(crate) part: Part,
    pub(crate) version: ChunkVersion,
}

impl Order {
    /// Decodes a push of a master; `None` if it is no order.
    pub(crate) fn decode(kind: u16, body: &Bytes) -> Option<Self> {
        let decoded = match kind {
            pb::DeleteChunks::KIND => Self::decode_delete(body),
            pb::QuarantineChunks::KIND => Self::decode_quarantine(body),
            pb::VerifyChunks::KIND => Self::decode_verify(body),
            pb::SettleChunk::KIND => Self::decode_settle(body),
            pb::CopyChunk::KIND => Self::decode_copy(body),
            _ => return None,
        };
        decoded.inspect_err(|error| tracing::warn!(%error, kind, "order does not decode")).ok()
    }

    fn decode_delete(body: &Bytes) -> Result<Self, CallError> {
        let order = pb::DeleteChunks::decode(body.clone()).map_err(malformed)?;
        let whole = order.chunks.into_iter().map(|chunk| part(chunk, 0));
        let doomed = whole.chain(order.parts.into_iter().map(Part::try_from));
        Ok(Self::Delete(doomed.collect::<Result<_, _>>()?))
    }

    fn decode_quarantine(body: &Bytes) -> Result<Self, CallError> {
        let order = pb::QuarantineChunks::decode(body.clone()).map_err(malformed)?;
        let condemned = |copy: pb::CondemnedCopy| {
            let version = ChunkVersion::from_raw(copy.version);
            part(copy.chunk, copy.index).map(|part| Condemned { part, version })
        };
        let copies = order.copies.into_iter().map(condemned).collect::<Result<_, _>>()?;
        Ok(Self::Quarantine(copies, order.keep_s))
    }

    fn decode_verify(body: &Bytes) -> Result<Self, CallError> {
        let order = pb::VerifyChunks::decode(body.clone()).map_err(malformed)?;
        let parts = order.parts.into_iter().map(Part::try_from);
        Ok(Self::Verify(parts.collect::<Result<_, _>>()?))
    }

    fn decode_settle(body: &Bytes) -> Result<Self, CallError> {
        let order = pb::SettleChunk::decode(body.clone()).map_err(malformed)?;
        let part = part(order.chunk, order.index)?;
        Ok(Self::Settle(Settled { part, version: ChunkVersion::from_raw(order.version) }))
    }

    fn decode_copy(body: &Bytes) -> Result<Self, CallError> {
        let order = pb::CopyChunk::decode(body.clone()).map_err(malformed)?;
        Ok(Self::Copy(part(order.chunk, order.part)?, order))
    }
}

fn malformed(error: prost::DecodeError) -> CallError {
    CallError::Rejected { message: error.to_string() }
}

/// Deletes a copy. The leader hears of it, and of one that was not here at all.
pub(crate) fn delete(store: &Store, events: &CopyEvents, id: Part) {
    let Some(chunk) = store.find(id) else { return events.note(id, CopyEvent::Lost) };
    match chunk.delete() {
        Ok(()) => events.note(id, CopyEvent::Lost),
        Err(error) => tracing::warn!(%error, "copy not deleted"),
    }
    store.forget_if_gone(&chunk);
}

/// Puts a copy into quarantine until this second of the wall clock. The leader hears of it, of one that was not here at all, and
/// of one that is newer than it knew.
pub(crate) fn quarantine(store: &Store, events: &CopyEvents, copy: Condemned, until_unix_s: u64) {
    let Some(chunk) = store.find(copy.part) else { return events.note(copy.part, CopyEvent::Lost) };
    if let Err(error) = chunk.quarantine(copy.version, until_unix_s) {
        tracing::warn!(%error, "copy not put into quarantine");
    }
    store.forget_if_gone(&chunk);
}

/// Has a copy take on a version. The leader hears of it, and of one that is not here at all.
pub(crate) fn settle(store: &Store, events: &CopyEvents, copy: Settled, now: Duration) {
    let Some(chunk) = store.find(copy.part) else { return events.note(copy.part, CopyEvent::Lost) };
    if let Err(error) = chunk.settle_on(now, copy.version) {
        tracing::warn!(%error, "copy not settled on");
    }
}

/// Has a copy read and checked by the keeper of its disk, whose number is returned. The leader hears at once of one that is not here.
pub(crate) fn verify(store: &Store, events: &CopyEvents, keepers: &Keepers, part: Part) -> Option<usize> {
    let Some(chunk) = store.find(part) else {
        events.note(part, CopyEvent::Lost);
        return None;
    };
    let disk = store.disk_index(&chunk);
    match keepers.get(disk)?.order(part) {
        Ok(()) => Some(disk),
        Err(error) => {
            tracing::warn!(copy = %part, %error, "an order is left for later");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use mooseng_types::ChunkId;

    use super::*;

    fn decode<R: mooseng_protocol::rpc::Rpc>(order: &R) -> Option<Order> {
        Order::decode(R::KIND, &order.encode_to_vec().into())
    }

    #[test]
    fn orders_name_whole_copies_and_parts_and_one_that_names_nothing_is_not_obeyed() {
        let part = |index| Part::new(ChunkId::from_raw(7), index).unwrap();
        let named = |index| pb::PartRef { chunk: 7, index };
        let order = pb::DeleteChunks { chunks: vec![7], parts: vec![named(1), named(48)] };
        let Some(Order::Delete(doomed)) = decode(&order) else { panic!() };
        assert_eq!(doomed, [part(0), part(1), part(48)]);
        assert!(decode(&pb::DeleteChunks { chunks: vec![7], parts: vec![named(49)] }).is_none());
        let copy = |index| pb::CondemnedCopy { chunk: 7, index, version: 4 };
        let order = pb::QuarantineChunks { copies: vec![copy(0), copy(2)], keep_s: 60 };
        let Some(Order::Quarantine(condemned, 60)) = decode(&order) else { panic!() };
        let version = ChunkVersion::from_raw(4);
        assert_eq!(condemned, [0, 2].map(|index| Condemned { part: part(index), version }));
        assert!(decode(&pb::QuarantineChunks { copies: vec![copy(49)], keep_s: 60 }).is_none());
        let order = pb::SettleChunk { chunk: 7, index: 2, version: 9 };
        let Some(Order::Settle(settled)) = decode(&order) else { panic!() };
        assert_eq!(settled, Settled { part: part(2), version: ChunkVersion::from_raw(9) });
        assert!(decode(&pb::SettleChunk { index: 49, ..order }).is_none());
        let order = pb::VerifyChunks { parts: vec![named(0), named(48)] };
        let Some(Order::Verify(parts)) = decode(&order) else { panic!() };
        assert_eq!(parts, [part(0), part(48)]);
        let order = pb::CopyChunk { chunk: 7, part: 3, ..Default::default() };
        assert!(matches!(decode(&order), Some(Order::Copy(one, _)) if one == part(3)));
        assert!(decode(&pb::CopyChunk { part: 49, ..order }).is_none());
    }
}
