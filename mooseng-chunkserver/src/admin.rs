//! What an administrator asks of a chunkserver: decoded, one call of the store, encoded. Whoever has sockets and threads does
//! the work of [`Admin::perform`] where it may wait for a disk.

use bytes::Bytes;
use mooseng_protocol::convert;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkVersion, Part};

use crate::store::{Kept, Store};

/// Copies of one list, at most.
const LIST_MAX: usize = 1000;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Admin {
    /// What is in quarantine.
    List { after: Option<Place>, limit: usize },
    /// This copy is to come back from there.
    Restore { part: Part, version: ChunkVersion },
}

/// Where in a list a copy stands: by these, in this order.
type Place = (Part, ChunkVersion, u64, String);

/// What is answered.
#[derive(Debug)]
pub(crate) enum AdminReply {
    /// To a list.
    List(pb::ListQuarantineReply),
    /// It is done.
    Done,
}

impl Admin {
    /// Decodes the body of a frame; `None` if it is nothing that an administrator asks.
    pub(crate) fn decode(kind: u16, body: &Bytes) -> Option<Result<Self, CallError>> {
        match kind {
            pb::ListQuarantineRequest::KIND => Some(decode(body).and_then(Self::list)),
            pb::RestoreQuarantinedRequest::KIND => Some(decode(body).and_then(Self::restore)),
            _ => None,
        }
    }

    fn list(request: pb::ListQuarantineRequest) -> Result<Self, CallError> {
        let place = |it: pb::QuarantinedCopy| {
            let part = convert::part(it.chunk, it.index)?;
            Ok::<_, CallError>((part, ChunkVersion::from_raw(it.version), it.until_unix_s, it.disk))
        };
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit != 0).unwrap_or(LIST_MAX);
        Ok(Self::List { after: request.after.map(place).transpose()?, limit: limit.min(LIST_MAX) })
    }

    fn restore(request: pb::RestoreQuarantinedRequest) -> Result<Self, CallError> {
        let part = convert::part(request.chunk, request.index)?;
        Ok(Self::Restore { part, version: ChunkVersion::from_raw(request.version) })
    }

    /// The disk that the work is for, by its place in the store; `None` if it is for none.
    pub(crate) fn disk(&self, store: &Store) -> Result<Option<usize>, CallError> {
        match self {
            Self::List { .. } => Ok(None),
            Self::Restore { part, version } => Ok(Some(store.find_kept(*part, *version)?.0)),
        }
    }

    /// Does it.
    pub(crate) fn perform(&self, store: &Store) -> Result<AdminReply, CallError> {
        match self {
            Self::List { after, limit } => Ok(AdminReply::List(list(store, after.as_ref(), *limit))),
            Self::Restore { part, version } => {
                store.restore(*part, *version)?;
                tracing::info!(copy = %part, %version, "a copy has come back from quarantine");
                Ok(AdminReply::Done)
            }
        }
    }
}

fn decode<R: Rpc>(body: &Bytes) -> Result<R, CallError> {
    R::decode(body.clone()).map_err(|error| CallError::Rejected { message: format!("{}: {error}", R::NAME) })
}

fn list(store: &Store, after: Option<&Place>, limit: usize) -> pb::ListQuarantineReply {
    let mut all: Vec<_> = store
        .in_quarantine()
        .into_iter()
        .map(|(kept, length, disk)| {
            let Kept { part, version, until_unix_s } = kept;
            ((part, version, until_unix_s, disk.root().display().to_string()), length)
        })
        .filter(|(place, _)| after.is_none_or(|after| place > after))
        .collect();
    all.sort();
    let more = all.len() > limit;
    all.truncate(limit);
    let copy = |((part, version, until_unix_s, disk), length_bytes): (Place, u64)| pb::QuarantinedCopy {
        chunk: part.chunk().raw(),
        index: part.index().into(),
        version: version.raw(),
        until_unix_s,
        length_bytes,
        disk,
    };
    pb::ListQuarantineReply { copies: all.into_iter().map(copy).collect(), more }
}
