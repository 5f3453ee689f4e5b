//! A connection, as the parts of the master name it.

/// Where a request has come from and its answer goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConnId {
    /// A connection of the framed transport, as the edge numbers it.
    Framed(usize),
    /// One request of the gRPC facade: a connection of its own, which ends with the answer.
    Facade(u64),
}
