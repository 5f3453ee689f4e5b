//! How patient and how eager repair is.

use std::time::Duration;

/// The cluster's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A server that has been silent for this long has lost its copies, as far as repair goes.
    pub patience: Duration,
    /// The same for chunks that would have one copy left without it, or none.
    pub patience_in_danger: Duration,
    /// Rows and reports come on different ways: a chunk whose row has changed is looked at after this time.
    pub report_lag: Duration,
    /// A job that has come to nothing within this time is given again.
    pub job_timeout: Duration,
    /// Copies that one server may fetch, or be the source of, at a time.
    pub fetches: usize,
    /// Bytes that one server may fetch, or be the source of, at a time; one copy may always be.
    pub fetch_bytes: u64,
    /// Copies that one server may verify at a time.
    pub verifications: usize,
    /// Copies that one server may be told to put into quarantine at a time.
    pub removals: usize,
    /// How long a copy can be restored from quarantine, in seconds.
    pub quarantine_s: u64,
    /// The same for a copy of a chunk that the masters do not know.
    pub quarantine_unknown_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(30),
            patience_in_danger: Duration::from_secs(8),
            report_lag: Duration::from_secs(3),
            job_timeout: Duration::from_secs(60),
            fetches: 32,
            fetch_bytes: 256 << 20,
            verifications: 4,
            removals: 64,
            quarantine_s: 24 * 3600,
            quarantine_unknown_s: 7 * 24 * 3600,
        }
    }
}
