//! How large a world is.

/// How large the world is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One master, two chunkservers, one client.
    One,
    /// Three masters, two chunkservers, two clients.
    Three,
    /// Five masters, two chunkservers, three clients.
    Five,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::One, Self::Three, Self::Five];

    pub(super) fn masters(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Three => 3,
            Self::Five => 5,
        }
    }

    pub(super) fn clients(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 2,
            Self::Five => 3,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Three => "three",
            Self::Five => "five",
        }
    }
}
