//! Goals: how many copies are wanted, and on servers with which labels. The language is that of MooseFS's label
//! expressions, with words beside its single letters.
//!
//! ```text
//! goal        = copies { "," copies } [ "/" distinguish ] [ ":" strictness ]
//! copies      = count [ servers ] | servers                 3BC: three copies, each on a server with B and with C
//! servers     = "*" | any                                   *: any server; 2 is 2*
//! any         = all { "+" all }                             one or the other
//! all         = term { [ "&" ] term }                       both; the & may be left out, but not beside a word
//! term        = label | "!" term | "[" any "]" | "(" any ")"
//! label       = "A" … "Z" | word                            AB is A and B; rack-friendly is one label
//! distinguish = "[IP]" | "[I]" | "[RACK]" | "[R]" | "[REGION]" | list      what no two copies may share
//! list        = item { [ "+" ] item }                       ABX-Z: copies on different ones of A, B, X, Y and Z
//! item        = label | "A" … "Z" "-" "A" … "Z"
//! strictness  = "loose" | "l" | "std" | "d" | "strict" | "s"
//! ```
//!
//! Spaces between these are allowed, except within a word. A goal that begins with `@` is of erasure coding, as `@8+2`: it is
//! read and refused, as there is none yet.

mod distinguish;
mod error;
mod expression;
mod parse;
mod strictness;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use distinguish::Distinguish;
pub use error::{GoalError, GoalProblem};
pub use expression::LabelExpression;
pub use strictness::Strictness;

use crate::label::Labels;

/// Copies that a goal may ask for, as in MooseFS.
pub const COPIES_MAX: usize = 9;
/// Bytes of a goal's text, as it is given and as it is shown.
pub const GOAL_LENGTH_MAX: usize = 255;
/// Brackets and negations within each other: whoever reads or matches an expression goes as deep.
pub const NESTING_MAX: usize = 8;

/// What is wanted for the copies of a chunk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Goal {
    copies: Vec<LabelExpression>,
    distinguish: Option<Distinguish>,
    strictness: Option<Strictness>,
}

impl Goal {
    /// Copies on any servers: at least one and at most [`COPIES_MAX`].
    #[must_use]
    pub fn any(copies: u8) -> Self {
        let copies = usize::from(copies).clamp(1, COPIES_MAX);
        Self { copies: vec![LabelExpression::ANY; copies], distinguish: None, strictness: None }
    }

    /// What is asked of the server of each copy: 1 to [`COPIES_MAX`] of them.
    #[must_use]
    pub fn copies(&self) -> &[LabelExpression] {
        &self.copies
    }

    /// What no two copies may share.
    #[must_use]
    pub fn distinguish(&self) -> Option<&Distinguish> {
        self.distinguish.as_ref()
    }

    /// What becomes of copies for which there is no right server; `None`: as the class says.
    #[must_use]
    pub fn strictness(&self) -> Option<Strictness> {
        self.strictness
    }

    /// Whether a server with these labels is right for some copy.
    #[must_use]
    pub fn wants(&self, labels: &Labels) -> bool {
        self.copies.iter().any(|copy| copy.matches(labels))
    }
}

impl FromStr for Goal {
    type Err = GoalError;

    fn from_str(text: &str) -> Result<Self, GoalError> {
        if text.len() > GOAL_LENGTH_MAX {
            return Err(GoalError::at(GOAL_LENGTH_MAX, GoalProblem::TooLong));
        }
        let goal = parse::goal(text)?;
        // What is shown must be readable again, and may be longer than what was given: `:l` is shown as `:loose`.
        if goal.to_string().len() > GOAL_LENGTH_MAX {
            return Err(GoalError::at(text.len(), GoalProblem::TooLong));
        }
        Ok(goal)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self.copies.chunk_by(PartialEq::eq).enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match run {
                [one] => write!(f, "{one}")?,
                [one, ..] if one.is_any() => write!(f, "{}", run.len())?,
                [one, ..] => write!(f, "{}{one}", run.len())?,
                [] => {}
            }
        }
        if let Some(distinguish) = &self.distinguish {
            write!(f, "/{distinguish}")?;
        }
        if let Some(strictness) = self.strictness {
            write!(f, ":{strictness}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
