//! How strictly labels are taken.

use std::fmt;

/// What becomes of a copy for which no right server can be had.
///
/// | the right servers are | standard | strict | loose |
/// |---|---|---|---|
/// | overloaded | wait | wait | any other |
/// | full, or not there | any other | no copy | any other |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Strictness {
    /// Any other server, at once.
    Loose,
    /// Any other server, unless the right ones only have much to do.
    #[default]
    Standard,
    /// Never another server.
    Strict,
}

impl Strictness {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Loose, Self::Standard, Self::Strict];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loose => "loose",
            Self::Standard => "std",
            Self::Strict => "strict",
        }
    }

    /// The one with this name, or with MooseFS's letter for it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "loose" | "l" => Some(Self::Loose),
            "std" | "d" => Some(Self::Standard),
            "strict" | "s" => Some(Self::Strict),
            _ => None,
        }
    }
}

impl fmt::Display for Strictness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
