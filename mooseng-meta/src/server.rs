//! The row of a chunkserver.

use mooseng_types::{Labels, ServerId};

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
