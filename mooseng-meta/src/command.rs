//! What can be asked of the namespace. A command travels in an [`Entry`] of the masters' log.
//!
//! Whatever is not a function of the log (the time, the servers chosen for a chunk, random ids) is decided by the
//! leader before it proposes and travels along, so that every replica comes to the same rows.
//!
//! Commands come in families, a file for each: what can be asked, its bytes, and what carries it out.

mod attr;
mod batch;
mod class;
mod cluster;
mod content;
mod name;
mod repair;

use mooseng_types::{FsError, InodeId, Level, RequestId, TimeNs};

pub use self::attr::{AttrCommand, XattrMode};
pub use self::batch::{BATCH_MAX, CommandBatch};
pub use self::class::{ClassCommand, SET_CLASS_MAX};
pub use self::cluster::ClusterCommand;
pub use self::content::{CommittedChunk, ContentCommand};
pub use self::name::{NameCommand, RenameMode};
pub use self::repair::RepairCommand;

use crate::codec::{CodecError, Reader, Writer};
use crate::query::LeaseInTheWay;
use crate::response::Response;
use crate::tables::Tables;

/// Numbers of the commands; never used again for another.
mod tag {
    pub(super) const BOOTSTRAP: u8 = 1;
    pub(super) const OPEN_SESSION: u8 = 2;
    pub(super) const CLOSE_SESSION: u8 = 3;
    pub(super) const REGISTER_SERVER: u8 = 4;
    pub(super) const CREATE: u8 = 5;
    pub(super) const LINK: u8 = 6;
    pub(super) const UNLINK: u8 = 7;
    pub(super) const RMDIR: u8 = 8;
    pub(super) const RENAME: u8 = 9;
    pub(super) const SET_ATTR: u8 = 10;
    pub(super) const SET_XATTR: u8 = 11;
    pub(super) const REMOVE_XATTR: u8 = 12;
    pub(super) const GRANT_WRITE: u8 = 13;
    pub(super) const COMMIT_WRITE: u8 = 14;
    pub(super) const WRITE_INLINE: u8 = 15;
    pub(super) const RELEASE_LEASE: u8 = 16;
    pub(super) const ADD_REPLICA: u8 = 17;
    pub(super) const REMOVE_REPLICA: u8 = 18;
    pub(super) const REAP_ORPHANS: u8 = 19;
    pub(super) const FORGET_DEAD: u8 = 20;
    pub(super) const RAISE_LEVEL: u8 = 21;
    pub(super) const INDEX_CHUNKS: u8 = 22;
    pub(super) const BATCH: u8 = 23;
    pub(super) const CREATE_CLASS: u8 = 48;
    pub(super) const CHANGE_CLASS: u8 = 49;
    pub(super) const REMOVE_CLASS: u8 = 50;
    pub(super) const SET_CLASS: u8 = 51;
    pub(super) const REGISTER_PLACED_SERVER: u8 = 52;
    pub(super) const BEGIN_SETTLE: u8 = 53;
    pub(super) const END_SETTLE: u8 = 54;
    pub(super) const SET_SERVER_MODE: u8 = 55;
    pub(super) const FORGET_SERVER: u8 = 56;
}

/// One entry of the log that changes the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The leader's wall time; it becomes the time of whatever the command changes.
    pub stamp: TimeNs,
    /// The client's request behind the command; `None` for what the masters do of themselves.
    pub request: Option<Request>,
    /// What is to be done.
    pub command: Command,
}

/// Makes a command happen once, however often it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The session's number for it.
    pub id: RequestId,
    /// Answers to all lower numbers have arrived and may be forgotten. Never above the request's own number.
    pub acked_below: u64,
}

/// What can be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Names and directories.
    Name(NameCommand),
    /// Attributes.
    Attr(AttrCommand),
    /// What is in a file.
    Content(ContentCommand),
    /// Copies, and what is really gone.
    Repair(RepairCommand),
    /// The cluster, its clients and its chunkservers.
    Cluster(ClusterCommand),
    /// Storage classes.
    Class(ClassCommand),
    /// Several changes of names, attributes and small content.
    Batch(CommandBatch),
}

/// Files whose leases may have changed hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MovesLeases {
    /// Of no file.
    None,
    /// Of this one.
    Of(InodeId),
    /// Of several.
    Any,
}

impl From<CommandBatch> for Command {
    fn from(batch: CommandBatch) -> Self {
        Self::Batch(batch)
    }
}

impl Command {
    /// Refuses what has a length that no command may have, so that it is never proposed.
    pub fn check(&self) -> Result<(), FsError> {
        match self {
            Self::Name(command) => command.check(),
            Self::Attr(command) => command.check(),
            Self::Content(command) => command.check(),
            Self::Class(command) => command.check(),
            Self::Batch(batch) => batch.check(),
            Self::Repair(_) | Self::Cluster(_) => Ok(()),
        }
    }

    /// The lowest level of a cluster in whose log it may be.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Class(_) => Level::CLASSES,
            Self::Batch(_) => Level::IDENTITY,
            Self::Cluster(command) => command.level(),
            Self::Repair(command) => command.level(),
            Self::Name(_) | Self::Attr(_) | Self::Content(_) => Level::FIRST,
        }
    }

    /// Carries out the command. After an `Err` nothing has changed.
    pub(crate) fn run(&self, t: &mut Tables, stamp: TimeNs) -> Result<Response, FsError> {
        match self {
            Self::Name(command) => command.run(t, stamp),
            Self::Attr(command) => command.run(t, stamp),
            Self::Content(command) => command.run(t, stamp),
            Self::Repair(command) => command.run(t),
            Self::Cluster(command) => command.run(t, stamp),
            Self::Class(command) => command.run(t, stamp),
            Self::Batch(batch) => batch.run(t, stamp),
        }
    }

    /// The lease of another session for which the command would be refused. Of a batch none: each of its changes is refused by
    /// itself.
    pub(crate) fn lease_in_the_way(&self, t: &Tables) -> Option<LeaseInTheWay> {
        match self {
            Self::Content(command) => command.lease_in_the_way(t),
            Self::Attr(command) => command.lease_in_the_way(t),
            Self::Name(_) | Self::Repair(_) | Self::Cluster(_) | Self::Class(_) | Self::Batch(_) => None,
        }
    }

    /// Which files' leases may have changed hands once the command is applied.
    #[must_use]
    pub fn moves_leases(&self) -> MovesLeases {
        match self {
            Self::Content(command) => MovesLeases::Of(command.inode()),
            Self::Attr(command) => command.shortened().map_or(MovesLeases::None, MovesLeases::Of),
            Self::Cluster(command) => command.moves_leases(),
            Self::Repair(command) => command.moves_leases(),
            Self::Batch(batch) => batch.moves_leases(),
            Self::Name(_) | Self::Class(_) => MovesLeases::None,
        }
    }

    /// Bytes of what may be long.
    pub(crate) fn payload(&self) -> usize {
        match self {
            Self::Name(command) => command.payload(),
            Self::Attr(command) => command.payload(),
            Self::Content(command) => command.payload(),
            Self::Class(command) => command.payload(),
            Self::Batch(batch) => batch.payload(),
            Self::Repair(_) | Self::Cluster(_) => 0,
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Name(command) => command.encode(w),
            Self::Attr(command) => command.encode(w),
            Self::Content(command) => command.encode(w),
            Self::Repair(command) => command.encode(w),
            Self::Cluster(command) => command.encode(w),
            Self::Class(command) => command.encode(w),
            Self::Batch(batch) => batch.encode(w),
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let tag = r.u8()?;
        match CommandBatch::decode(tag, r)? {
            Some(batch) => Ok(Self::Batch(batch)),
            None => Self::decode_tagged(tag, r),
        }
    }

    /// Reads one command that is no batch.
    fn decode_one(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let tag = r.u8()?;
        Self::decode_tagged(tag, r)
    }

    fn decode_tagged(tag: u8, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        if let Some(command) = NameCommand::decode(tag, r)? {
            return Ok(command.into());
        }
        if let Some(command) = AttrCommand::decode(tag, r)? {
            return Ok(command.into());
        }
        if let Some(command) = ContentCommand::decode(tag, r)? {
            return Ok(command.into());
        }
        if let Some(command) = RepairCommand::decode(tag, r)? {
            return Ok(command.into());
        }
        if let Some(command) = ClusterCommand::decode(tag, r)? {
            return Ok(command.into());
        }
        if let Some(command) = ClassCommand::decode(tag, r)? {
            return Ok(command.into());
        }
        Err(CodecError::Value("command"))
    }
}
