//! What no two copies of a chunk may share.

use std::collections::BTreeSet;
use std::fmt;

use crate::label::{Label, Labels};

/// The part of a goal after the `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Distinguish {
    /// A host: `[IP]`.
    Host,
    /// A rack: `[RACK]`.
    Rack,
    /// A region: `[REGION]`.
    Region,
    /// A label out of these.
    Labels(BTreeSet<Label>),
}

impl Distinguish {
    /// The first of the listed labels that a server has: the one that its copy stands for. `None` if it has none of them,
    /// or if labels are not what copies are distinguished by.
    #[must_use]
    pub fn label_of<'a>(&'a self, labels: &Labels) -> Option<&'a Label> {
        match self {
            Self::Labels(listed) => listed.iter().find(|label| labels.has(label)),
            Self::Host | Self::Rack | Self::Region => None,
        }
    }
}

impl fmt::Display for Distinguish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("[IP]"),
            Self::Rack => f.write_str("[RACK]"),
            Self::Region => f.write_str("[REGION]"),
            Self::Labels(labels) => list(f, labels),
        }
    }
}

/// Capital letters sort before words. Three and more in sequence become a range.
fn list(f: &mut fmt::Formatter<'_>, labels: &BTreeSet<Label>) -> fmt::Result {
    let letters: Vec<u8> = labels.iter().filter_map(Label::letter).collect();
    for run in letters.chunk_by(|one, next| *next == one + 1) {
        match run {
            [first, _, .., last] => write!(f, "{}-{}", char::from(*first), char::from(*last))?,
            few => few.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))?,
        }
    }
    for (index, word) in labels.iter().filter(|label| label.letter().is_none()).enumerate() {
        f.write_str(if index == 0 && letters.is_empty() { "" } else { "+" })?;
        fmt::Display::fmt(word, f)?;
    }
    Ok(())
}
