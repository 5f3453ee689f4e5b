//! The row of a chunkserver.

use mooseng_types::{Labels, ServerId, TimeNs};

/// What the masters remember of a chunkserver; whether it is up they know from its heartbeats only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerRow {
    /// Its id.
    pub server: ServerId,
    /// Its random identity, made at its first start.
    pub uuid: [u8; 16],
    /// For people.
    pub name: String,
    /// Where it serves chunks.
    pub address: String,
    /// Where it stands. Empty below [`Level::CLASSES`](mooseng_types::Level::CLASSES).
    pub place: ServerPlace,
    /// What it is there for. [`ServerMode::Normal`] below [`Level::CLASSES`](mooseng_types::Level::CLASSES).
    pub mode: ServerMode,
}

/// What a chunkserver is there for, as an operator has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServerMode {
    /// It keeps copies and gets new ones.
    #[default]
    Normal,
    /// It gets no new copies, and those it has go to other servers.
    Draining,
    /// It gets no new copies and may be away for a while: those it has are not made again elsewhere.
    Maintenance {
        /// When the leader ends it.
        until: TimeNs,
    },
}

/// Where a chunkserver stands, and what it is called by: what placement goes by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerPlace {
    /// Its labels.
    pub labels: Labels,
    /// Its region; empty if it has none.
    pub region: String,
    /// Its rack within the region; empty if it has none.
    pub rack: String,
}
