//! Why a text is no goal.

/// What is wrong with a goal, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("at character {}: {problem}", .at + 1)]
pub struct GoalError {
    /// After how many bytes.
    pub at: usize,
    /// What.
    pub problem: GoalProblem,
}

/// What is wrong with a goal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoalProblem {
    /// Something else should be there.
    #[error("expected {expected}, found {}", found.map_or_else(|| "the end".to_owned(), |c| format!("{c:?}")))]
    Expected {
        /// What.
        expected: &'static str,
        /// What is there; `None`: the end.
        found: Option<char>,
    },
    /// More copies than [`COPIES_MAX`](super::COPIES_MAX).
    #[error("more than {} copies", super::COPIES_MAX)]
    TooManyCopies,
    /// Longer than [`GOAL_LENGTH_MAX`](super::GOAL_LENGTH_MAX).
    #[error("longer than {} bytes", super::GOAL_LENGTH_MAX)]
    TooLong,
    /// Nested deeper than [`NESTING_MAX`](super::NESTING_MAX).
    #[error("more than {} brackets and negations within each other", super::NESTING_MAX)]
    TooDeep,
    /// A word that is no label: too long, or with `-` or `_` at its end.
    #[error("a label has at most 32 characters and ends in a letter or a digit")]
    Label,
    /// A range whose end comes before its beginning.
    #[error("a range goes from a letter to a later one")]
    Range,
    /// Erasure coding, of which this release knows the form only.
    #[error("erasure coding comes with a later release: give copies, as in 2 or A,B")]
    ErasureCoding {
        /// Parts with data; `None`: as many as the cluster's default says.
        data: Option<u8>,
        /// Parts with parity.
        parity: u8,
    },
}

impl GoalError {
    pub(super) fn at(at: usize, problem: GoalProblem) -> Self {
        Self { at, problem }
    }
}
