//! Commands on the cluster itself, its clients and its chunkservers.

use mooseng_types::level::SUPPORTED;
use mooseng_types::{ChunkId, ClusterId, FsError, Level, ServerId, SessionId, TimeNs};

use super::{Command, MovesLeases, tag};
use crate::codec::{CodecError, Reader, Writer};
use crate::op::{index, member};
use crate::response::Response;
use crate::server::{ServerMode, ServerPlace};
use crate::tables::Tables;

/// A change of the cluster, or of who is known in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterCommand {
    /// Makes the root directory, once in the life of a cluster.
    Bootstrap {
        /// The cluster's identity.
        cluster: ClusterId,
        /// Copies of a chunk by default.
        copies: u8,
    },
    /// Makes a client known; the same client gets the same session.
    OpenSession {
        /// The client's random identity.
        client: [u8; 16],
        /// For people: host and mount point.
        name: String,
    },
    /// Ends a session and its leases; also how the leader lets one expire.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// Makes a chunkserver known; the same server gets the same id, its name and address are brought up to date.
    RegisterServer {
        /// The server's random identity.
        uuid: [u8; 16],
        /// For people.
        name: String,
        /// Where it serves chunks.
        address: String,
        /// Where it stands; `None` below [`Level::CLASSES`].
        place: Option<ServerPlace>,
    },
    /// Raises the cluster's level: from here on formats of this level may be written. Never lowers it.
    RaiseLevel {
        /// The level.
        level: Level,
    },
    /// Enters chunks into the table from servers to chunks that are older than the table.
    IndexChunks {
        /// The first: where the table goes on.
        from: ChunkId,
        /// How many, at most [`INDEX_MAX`](crate::INDEX_MAX).
        count: u32,
    },
    /// Says what a chunkserver is there for.
    SetServerMode {
        /// Which.
        server: ServerId,
        /// From now on.
        mode: ServerMode,
    },
    /// Makes a chunkserver unknown that no row counts any more. If it comes back, it gets another id.
    ForgetServer {
        /// Which.
        server: ServerId,
    },
}

impl From<ClusterCommand> for Command {
    fn from(command: ClusterCommand) -> Self {
        Self::Cluster(command)
    }
}

/// A level that this release knows: it must not apply what raises the cluster beyond it.
fn known_level(r: &mut Reader<'_>) -> Result<Level, CodecError> {
    let level = Level::from_raw(r.narrow()?);
    if SUPPORTED.has(level) { Ok(level) } else { Err(CodecError::Value("level")) }
}

impl ClusterCommand {
    /// The lowest level of a cluster in whose log it may be.
    pub(super) fn level(&self) -> Level {
        match self {
            Self::RegisterServer { place: Some(_), .. }
            | Self::SetServerMode { .. }
            | Self::ForgetServer { .. } => Level::CLASSES,
            Self::IndexChunks { .. } => Level::IDENTITY,
            Self::Bootstrap { .. }
            | Self::OpenSession { .. }
            | Self::CloseSession { .. }
            | Self::RegisterServer { place: None, .. }
            | Self::RaiseLevel { .. } => Level::FIRST,
        }
    }

    /// Which files' leases may have changed hands.
    pub(super) fn moves_leases(&self) -> MovesLeases {
        match self {
            Self::CloseSession { .. } => MovesLeases::Any,
            Self::Bootstrap { .. }
            | Self::OpenSession { .. }
            | Self::RegisterServer { .. }
            | Self::RaiseLevel { .. }
            | Self::IndexChunks { .. }
            | Self::SetServerMode { .. }
            | Self::ForgetServer { .. } => MovesLeases::None,
        }
    }

    pub(super) fn run(&self, t: &mut Tables, stamp: TimeNs) -> Result<Response, FsError> {
        match self {
            Self::Bootstrap { cluster, copies } => member::bootstrap(t, stamp, *cluster, *copies),
            Self::OpenSession { client, name } => member::open_session(t, client, name),
            Self::CloseSession { session } => Ok(member::close_session(t, *session)),
            Self::RegisterServer { uuid, name, address, place } => {
                let place = place.clone().unwrap_or_default();
                Ok(member::register_server(t, *uuid, name, address, place))
            }
            Self::RaiseLevel { level } => Ok(member::raise_level(t, *level)),
            Self::IndexChunks { from, count } => index::chunks(t, *from, *count),
            Self::SetServerMode { server, mode } => member::set_server_mode(t, *server, *mode),
            Self::ForgetServer { server } => member::forget_server(t, *server),
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Bootstrap { cluster, copies } => {
                w.u8(tag::BOOTSTRAP);
                w.raw(&cluster.bytes());
                w.u8(*copies);
            }
            Self::OpenSession { client, name } => {
                w.u8(tag::OPEN_SESSION);
                w.raw(client);
                w.bytes(name.as_bytes());
            }
            Self::CloseSession { session } => {
                w.u8(tag::CLOSE_SESSION);
                w.session(*session);
            }
            Self::RegisterServer { uuid, name, address, place } => {
                w.u8(place.as_ref().map_or(tag::REGISTER_SERVER, |_| tag::REGISTER_PLACED_SERVER));
                w.raw(uuid);
                w.bytes(name.as_bytes());
                w.bytes(address.as_bytes());
                if let Some(place) = place {
                    w.place(place);
                }
            }
            Self::RaiseLevel { level } => {
                w.u8(tag::RAISE_LEVEL);
                w.var(level.raw().into());
            }
            Self::IndexChunks { from, count } => {
                w.u8(tag::INDEX_CHUNKS);
                w.chunk(*from);
                w.var((*count).into());
            }
            Self::SetServerMode { server, mode } => {
                w.u8(tag::SET_SERVER_MODE);
                w.server(*server);
                w.mode(*mode);
            }
            Self::ForgetServer { server } => {
                w.u8(tag::FORGET_SERVER);
                w.server(*server);
            }
        }
    }

    /// The command with this number; `None` if it is of another family.
    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        Ok(Some(match tag {
            tag::BOOTSTRAP => Self::Bootstrap { cluster: ClusterId::from_bytes(r.array()?), copies: r.u8()? },
            tag::OPEN_SESSION => Self::OpenSession { client: r.array()?, name: r.text()? },
            tag::CLOSE_SESSION => Self::CloseSession { session: r.session()? },
            tag::REGISTER_SERVER => {
                Self::RegisterServer { uuid: r.array()?, name: r.text()?, address: r.text()?, place: None }
            }
            tag::REGISTER_PLACED_SERVER => Self::RegisterServer {
                uuid: r.array()?,
                name: r.text()?,
                address: r.text()?,
                place: Some(r.place()?),
            },
            tag::RAISE_LEVEL => Self::RaiseLevel { level: known_level(r)? },
            tag::INDEX_CHUNKS => Self::IndexChunks { from: r.chunk()?, count: r.narrow()? },
            tag::SET_SERVER_MODE => Self::SetServerMode { server: r.server()?, mode: r.mode()? },
            tag::FORGET_SERVER => Self::ForgetServer { server: r.server()? },
            _ => return Ok(None),
        }))
    }
}
