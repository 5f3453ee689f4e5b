//! Bugs that a test may plant at the seams the world controls, to see that the invariants find them. The product knows
//! nothing of them.

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// A master's log tells that a batch is durable before it has written it.
    AckBeforeSync,
    /// A master's log leaves out the voter's state: its term and its vote.
    ForgetVote,
    /// A restarted master finds its log without the last entry.
    TruncateTail,
    /// A master's store says that it has rows before it wrote them.
    FlushBeforeWrite,
    /// A chunkserver answers a sync without having synced.
    SkipDataSync,
    /// A client sends a request again under a new number.
    FreshNumbers,
    /// The clock of a leader that is cut off runs at a twentieth of its speed: it takes its lease for valid too long.
    SlowClock,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::AckBeforeSync,
        Self::ForgetVote,
        Self::TruncateTail,
        Self::FlushBeforeWrite,
        Self::SkipDataSync,
        Self::FreshNumbers,
        Self::SlowClock,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::ForgetVote => "forget-vote",
            Self::TruncateTail => "truncate-tail",
            Self::FlushBeforeWrite => "flush-before-write",
            Self::SkipDataSync => "skip-data-sync",
            Self::FreshNumbers => "fresh-numbers",
            Self::SlowClock => "slow-clock",
        }
    }
}
