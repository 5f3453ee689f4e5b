//! What holds for the whole cluster.

use mooseng_types::ClusterId;

/// What was settled when the cluster was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The cluster's identity.
    pub cluster: ClusterId,
    /// Copies of a chunk by default.
    pub copies: u8,
}

/// Sums over the namespace, kept with every change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Objects, with those that have no name any more but are not reaped yet.
    pub inodes: u64,
    /// Sum of the lengths of all files, in bytes.
    pub used_bytes: u64,
    /// Chunks that belong to a file.
    pub chunks: u64,
}
