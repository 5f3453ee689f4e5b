//! The row of a chunkserver.

use mooseng_types::ServerId;

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
}
