//! What is answered to a command.

use bytes::Bytes;
use mooseng_types::{Attr, ChunkId, ChunkVersion, ClassId, FsError, ServerId, SessionId};

/// The answer to a command. Stored under the request's number, so that a repeated request gets it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// Done; there is nothing more to say.
    Done,
    /// Done; the object's attributes after it.
    Attr(Attr),
    /// The session.
    Session(SessionId),
    /// The chunkserver's id.
    Server(ServerId),
    /// The write lease.
    Grant(Grant),
    /// The storage class.
    Class(ClassId),
    /// How many objects were changed.
    Changed(u32),
    /// What each change of a batch came to, up to the first that was refused; none of them is a batch.
    Batch(Vec<Response>),
    /// Not done, and nothing was changed.
    Refused(FsError),
}

/// A write lease of one chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The chunk.
    pub chunk: ChunkId,
    /// The version last committed; copies have it or [`Grant::version`] or one between, abandoned by an earlier lease.
    pub base_version: ChunkVersion,
    /// The version to write under; a copy adopts it with the first write.
    pub version: ChunkVersion,
    /// The servers to write to, in chain order.
    pub servers: Vec<ServerId>,
    /// Bytes of the chunk from here on are to read as zero: below 64 MiB, copies are cut to it before writing.
    pub valid_length: u32,
    /// The file's first bytes so far, if they live in the metadata: to be written at offset 0 before anything else.
    pub inline: Option<Bytes>,
    /// The chunk was made by this grant: no copy exists yet.
    pub fresh: bool,
    /// The file's attributes as of the grant.
    pub attr: Attr,
}
