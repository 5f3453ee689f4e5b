//! The file system check.

use std::fmt;

use crate::state::MetaState;

/// Something in the metadata that contradicts itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything in the metadata that contradicts itself. Takes memory in proportion to the namespace.
#[must_use]
pub fn check(state: &MetaState) -> Vec<Violation> {
    let totals = state.totals();
    if state.settings().is_none() && totals.inodes != 0 {
        return vec![Violation("objects without a root".to_owned())];
    }
    Vec::new()
}
