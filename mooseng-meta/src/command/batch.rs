//! A list of changes as one command: carried out one by one, up to the first that is refused.

use mooseng_types::{FsError, Level, TimeNs};

use super::{Command, ContentCommand, MovesLeases, tag};
use crate::codec::{CodecError, Reader, Writer};
use crate::response::Response;
use crate::tables::Tables;

/// Changes in one batch.
pub const BATCH_MAX: usize = 64;

/// Changes of names, attributes and small content, at least one and at most [`BATCH_MAX`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandBatch(Vec<Command>);

/// Whether a command may be one of a batch: what answers with no more than attributes.
fn may_be_in_a_batch(command: &Command) -> bool {
    match command {
        Command::Name(_) | Command::Attr(_) | Command::Content(ContentCommand::WriteInline { .. }) => true,
        Command::Content(_)
        | Command::Repair(_)
        | Command::Cluster(_)
        | Command::Class(_)
        | Command::Batch(_) => false,
    }
}

impl CommandBatch {
    /// A batch of these; `EINVAL` if there are none or too many of them, or one that cannot be in a batch.
    pub fn new(changes: Vec<Command>) -> Result<Self, FsError> {
        let counted = (1..=BATCH_MAX).contains(&changes.len());
        let batch = Self(changes);
        if counted && batch.0.iter().all(may_be_in_a_batch) { Ok(batch) } else { Err(FsError::Invalid) }
    }

    /// Its changes, in order.
    #[must_use]
    pub fn changes(&self) -> &[Command] {
        &self.0
    }

    pub(super) fn check(&self) -> Result<(), FsError> {
        self.0.iter().try_for_each(Command::check)
    }

    pub(super) fn payload(&self) -> usize {
        // Each has a few numbers beside what may be long.
        self.0.iter().map(|change| 64 + change.payload()).sum()
    }

    /// Each change is done or refused by itself: one that is refused changes nothing, and those before it stay. At a level
    /// without batches none is done.
    pub(super) fn run(&self, t: &mut Tables, stamp: TimeNs) -> Result<Response, FsError> {
        if t.level < Level::IDENTITY {
            return Err(FsError::NotSupported);
        }
        let mut answers = Vec::with_capacity(self.0.len());
        for change in &self.0 {
            let answer = change.run(t, stamp).unwrap_or_else(Response::Refused);
            let refused = matches!(answer, Response::Refused(_));
            answers.push(answer);
            if refused {
                break;
            }
        }
        Ok(Response::Batch(answers))
    }

    pub(super) fn moves_leases(&self) -> MovesLeases {
        let moves = |change: &Command| change.moves_leases() != MovesLeases::None;
        if self.0.iter().any(moves) { MovesLeases::Any } else { MovesLeases::None }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u8(tag::BATCH);
        w.var(self.0.len() as u64);
        self.0.iter().for_each(|change| change.encode(w));
    }

    /// Reads a batch whose tag has been read; `None` if the tag is another's.
    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        if tag != tag::BATCH {
            return Ok(None);
        }
        let count = r.narrow()?;
        if !(1..=BATCH_MAX).contains(&count) {
            return Err(CodecError::Value("batch"));
        }
        // One without a batch in it, which would be read to any depth.
        let changes = (0..count).map(|_| Command::decode_one(r)).collect::<Result<_, _>>()?;
        Self::new(changes).map(Some).map_err(|_| CodecError::Value("batch"))
    }
}
