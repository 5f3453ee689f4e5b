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
    /// A restarted master votes at once, while the leader from before may count on its silence.
    VoteAtOnce,
    /// A restarted master finds that it has applied less than its store has, and the requests' numbers are gone: it does
    /// not know again what it applies again.
    DoubleApply,
    /// A restarted master has forgotten the answers it gave.
    ForgetAnswers,
    /// A snapshot has the rows of the time before the store was written to last, and says that they are those of now.
    StaleSnapshot,
    /// A snapshot leaves out the answers that were given.
    SnapshotWithoutAnswers,
    /// The group changes by a list that a master goes by from its next start on: of five, the last two are left out at
    /// once. Whoever has not started again goes by the group of before.
    ReplaceAtOnce,
    /// A client does not tell the chunkservers that it counts on bytes that no sync has covered: a copy that has lost
    /// them takes part as if nothing had happened.
    CountOnNothing,
    /// A client takes a sync for done without asking the chunkservers.
    SkipSync,
    /// A client takes every chunk of a file for a hole whose first bytes live in the metadata.
    InlineHidesChunks,
    /// A client commits a version that no copy has adopted.
    AdoptNothing,
    /// A chunkserver that starts forgets which copies it has moved aside: the lease makes them again, of zeros.
    CreateAgain,
    /// A client does not cut off what an earlier writer has left behind the end.
    SkipCut,
    /// A client that has asked once where the chunks of a file are believes it for ever.
    OldPlaces,
    /// A client that opens a file believes what it knew of it before.
    OldAttributes,
    /// A client tells an error of writing in the background to a write, and to no sync.
    SwallowErrors,
    /// A client writes under its new session what it was told under the old one.
    OutliveSession,
    /// A chunkserver that starts takes every copy for one that was being written: it believes the data, not the
    /// checksums.
    TrustDamage,
    /// A client appends where it takes the end of the file to be.
    AppendWhereItSeems,
    /// A client reads a copy in doubt as any other.
    ReadInDoubt,
    /// A client reads what lies in a copy behind what was committed.
    ReadBehindTheEnd,
    /// A client that tells what it has open claims to know of opens that are under way.
    ListTooMuch,
    /// A client waits for a chain less long than its servers wait for each other, and blames the first of them.
    BlameTheFirst,
    /// A client that closes a file does not ask the chunkservers whether they still have what it sent before.
    CloseUnasked,
    /// A client does not tell the chunkservers that their copies have something: one that was lost is made anew, of zeros.
    MakeCopiesAnew,
    /// A master leaves the connections of parts open that do not know its level.
    LeaveConnected,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::AckBeforeSync,
        Self::ForgetVote,
        Self::TruncateTail,
        Self::FlushBeforeWrite,
        Self::SkipDataSync,
        Self::FreshNumbers,
        Self::SlowClock,
        Self::VoteAtOnce,
        Self::DoubleApply,
        Self::ForgetAnswers,
        Self::StaleSnapshot,
        Self::SnapshotWithoutAnswers,
        Self::ReplaceAtOnce,
        Self::CountOnNothing,
        Self::SkipSync,
        Self::InlineHidesChunks,
        Self::AdoptNothing,
        Self::CreateAgain,
        Self::SkipCut,
        Self::OldPlaces,
        Self::OldAttributes,
        Self::SwallowErrors,
        Self::OutliveSession,
        Self::TrustDamage,
        Self::AppendWhereItSeems,
        Self::ReadInDoubt,
        Self::ReadBehindTheEnd,
        Self::ListTooMuch,
        Self::BlameTheFirst,
        Self::CloseUnasked,
        Self::MakeCopiesAnew,
        Self::LeaveConnected,
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
            Self::VoteAtOnce => "vote-at-once",
            Self::DoubleApply => "double-apply",
            Self::ForgetAnswers => "forget-answers",
            Self::StaleSnapshot => "stale-snapshot",
            Self::SnapshotWithoutAnswers => "snapshot-without-answers",
            Self::ReplaceAtOnce => "replace-at-once",
            Self::CountOnNothing => "count-on-nothing",
            Self::SkipSync => "skip-sync",
            Self::InlineHidesChunks => "inline-hides-chunks",
            Self::AdoptNothing => "adopt-nothing",
            Self::CreateAgain => "create-again",
            Self::SkipCut => "skip-cut",
            Self::OldPlaces => "old-places",
            Self::OldAttributes => "old-attributes",
            Self::SwallowErrors => "swallow-errors",
            Self::OutliveSession => "outlive-session",
            Self::TrustDamage => "trust-damage",
            Self::AppendWhereItSeems => "append-where-it-seems",
            Self::ReadInDoubt => "read-in-doubt",
            Self::ReadBehindTheEnd => "read-behind-the-end",
            Self::ListTooMuch => "list-too-much",
            Self::BlameTheFirst => "blame-the-first",
            Self::CloseUnasked => "close-unasked",
            Self::MakeCopiesAnew => "make-copies-anew",
            Self::LeaveConnected => "leave-connected",
        }
    }
}
