//! What an administrator asks of a chunkserver: decoded, one call of the store, encoded. Whoever has sockets and threads does
//! the work of [`Admin::perform`] where it may wait for a disk.

use bytes::Bytes;
use mooseng_protocol::convert;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{ChunkVersion, Part};

use crate::engine::Now;
use crate::keeper::Keepers;
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
    /// The passes over this disk, or over all, are to begin anew, to stop or to go on.
    Scrub { action: pb::ScrubAction, disk: Option<String> },
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
            pb::ScrubRequest::KIND => Some(decode(body).and_then(Self::scrub)),
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

    fn scrub(request: pb::ScrubRequest) -> Result<Self, CallError> {
        let action = request.action();
        if action == pb::ScrubAction::Unknown {
            let message = "a pass can be started, paused and resumed, and nothing else".to_owned();
            return Err(CallError::Rejected { message });
        }
        Ok(Self::Scrub { action, disk: Some(request.disk).filter(|disk| !disk.is_empty()) })
    }

    /// The disk that the work is for, by its place in the store; `None` if it is for none.
    pub(crate) fn disk(&self, store: &Store) -> Result<Option<usize>, CallError> {
        match self {
            Self::List { .. } | Self::Scrub { .. } => Ok(None),
            Self::Restore { part, version } => Ok(Some(store.find_kept(*part, *version)?.0)),
        }
    }

    /// Does it.
    pub(crate) fn perform(
        &self,
        store: &Store,
        keepers: &Keepers,
        now: Now,
    ) -> Result<AdminReply, CallError> {
        match self {
            Self::List { after, limit } => Ok(AdminReply::List(list(store, after.as_ref(), *limit))),
            Self::Restore { part, version } => {
                store.restore(*part, *version)?;
                tracing::info!(copy = %part, %version, "a copy has come back from quarantine");
                Ok(AdminReply::Done)
            }
            Self::Scrub { action, disk } => {
                direct(store, keepers, now, *action, disk.as_deref())?;
                Ok(AdminReply::Done)
            }
        }
    }
}

/// Changes what becomes of the passes over a disk, or over all.
fn direct(
    store: &Store,
    keepers: &Keepers,
    now: Now,
    action: pb::ScrubAction,
    wanted: Option<&str>,
) -> Result<(), CallError> {
    let is_wanted = |root: String| wanted.is_none_or(|wanted| *wanted == root);
    let disks = store.disks().iter().zip(keepers.iter());
    let chosen: Vec<_> = disks.filter(|(disk, _)| is_wanted(disk.root().display().to_string())).collect();
    let rejected = |message: String| Err(CallError::Rejected { message });
    if chosen.is_empty() {
        return rejected(format!("no disk of this server is {}", wanted.unwrap_or_default()));
    }
    if chosen.iter().any(|(_, keeper)| keeper.is_off()) {
        return rejected("this server makes no passes: scrub_days is 0".into());
    }
    for (disk, keeper) in chosen {
        keeper.direct(|scrub| match action {
            pb::ScrubAction::Start => scrub.start(now),
            pb::ScrubAction::Pause => scrub.pause(),
            pb::ScrubAction::Resume => scrub.resume(),
            pb::ScrubAction::Unknown => {}
        });
        tracing::info!(disk = %disk.root().display(), ?action, "the passes over a disk are directed");
    }
    Ok(())
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
