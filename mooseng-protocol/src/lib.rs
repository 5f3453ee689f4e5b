//! The schema of MooseNG and its two transports.
//!
//! - [`pb`]: the generated messages. They stay at the edges: a handler decodes, makes one domain call, encodes.
//! - [`rpc`]: ties each request to its number on the wire and to its reply.
//! - [`frame`]: the fixed 32-byte header, limits before allocation, an incremental decoder. No I/O.
//! - [`transport`]: frames over blocking sockets: [`transport::FrameStream`] for one caller at a time,
//!   [`transport::Mux`] for many in flight, with push.
//! - [`status`]: what a failed call means, and whether to send it again.
//! - [`door`]: counts and times requests by kind, where they pass.
//! - [`token`]: the capability that lets a client at a chunk.
//! - [`checksum`]: block checksums with identity in the seed.
//! - [`limits`]: how much one request may carry.
//! - [`group_entry`]: what the log's entries that change the masters' group carry.
//! - [`principal`]: who sends a request; [`handshake`]: how the two sides of a connection prove it. No I/O.
//! - [`recall`]: what the leader wants back from a session.
//! - [`convert`]: messages from and to the vocabulary of `mooseng-types`.

pub mod checksum;
pub mod convert;
pub mod door;
pub mod frame;
pub mod group_entry;
pub mod handshake;
mod hello;
pub mod limits;
pub mod principal;
pub mod recall;
pub mod rpc;
pub mod status;
pub mod token;
pub mod transport;

/// The generated messages and gRPC services.
pub mod pb {
    #![expect(
        missing_docs,
        clippy::all,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated; the documentation is in the .proto files"
    )]
    include!(concat!(env!("OUT_DIR"), "/mooseng.v1.rs"));
}

/// The encoded descriptor set of the schema, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of the wire this release speaks; both sides of a connection must speak the same.
pub const PROTOCOL_VERSION: u32 = 2;
