//! Limits of the cache of metadata rows.

/// How much the cache may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// Bytes of keys and values, with what it costs to keep them.
    pub capacity_bytes: u64,
    /// What a row costs beside its key and value, in bytes: slots of the table and the allocations' heads.
    pub row_overhead_bytes: u64,
}

impl CacheConfig {
    /// A cache of this size.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, row_overhead_bytes: 96 }
    }

    /// How many rows to expect: inodes and entries take about 120 bytes.
    #[must_use]
    pub fn expected_rows(&self) -> usize {
        usize::try_from(self.capacity_bytes / (self.row_overhead_bytes + 120)).unwrap_or(usize::MAX).max(16)
    }
}
