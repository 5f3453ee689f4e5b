//! Levels: which formats may be written in a cluster, so that it can be upgraded while it runs (RFC 0008).
//!
//! The cluster has one level, which only rises. Every release supports a range of them. What a release writes is a
//! function of the cluster's level, so releases side by side write the same bytes.

use std::fmt;

/// A level of formats, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u16);

impl Level {
    /// What releases wrote before there were levels.
    pub const FIRST: Self = Self(1);
    /// The storage class of an object, the layout of a chunk, what each server has.
    pub const IDENTITY: Self = Self(2);
    /// Storage classes; the labels and the place of a chunkserver.
    pub const CLASSES: Self = Self(3);

    /// The level with this number; for codecs.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The number of the level; for codecs.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {}", self.0)
    }
}

/// The levels that a part of the cluster can read and write, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Levels {
    lowest: Level,
    highest: Level,
}

/// The levels of this release.
pub const SUPPORTED: Levels = Levels { lowest: Level::FIRST, highest: Level::CLASSES };

impl Levels {
    /// A range; `None` if it is empty or holds the level 0.
    #[must_use]
    pub const fn new(lowest: Level, highest: Level) -> Option<Self> {
        if lowest.0 == 0 || lowest.0 > highest.0 { None } else { Some(Self { lowest, highest }) }
    }

    /// What a part says in a Hello. Releases from before levels say nothing, which is (0, 0), and speak level 1. `None` if it
    /// makes no sense.
    #[must_use]
    pub const fn said(lowest: u32, highest: u32) -> Option<Self> {
        match (lowest, highest) {
            (0, 0) => Some(Self { lowest: Level::FIRST, highest: Level::FIRST }),
            (1..=0xffff, 1..=0xffff) => Self::new(Level(lowest as u16), Level(highest as u16)),
            _ => None,
        }
    }

    /// The lowest level.
    #[must_use]
    pub const fn lowest(self) -> Level {
        self.lowest
    }

    /// The highest level.
    #[must_use]
    pub const fn highest(self) -> Level {
        self.highest
    }

    /// Whether the level is one of these.
    #[must_use]
    pub fn has(self, level: Level) -> bool {
        (self.lowest..=self.highest).contains(&level)
    }

    /// Whether some level is in both ranges.
    #[must_use]
    pub fn overlap(self, other: Self) -> bool {
        self.lowest <= other.highest && other.lowest <= self.highest
    }

    /// These levels without those above `highest`; `None` if none is left.
    #[must_use]
    pub fn up_to(self, highest: Level) -> Option<Self> {
        Self::new(self.lowest, self.highest.min(highest))
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            write!(f, "level {}", self.lowest)
        } else {
            write!(f, "levels {} to {}", self.lowest, self.highest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(lowest: u16, highest: u16) -> Levels {
        Levels::new(Level(lowest), Level(highest)).unwrap()
    }

    #[test]
    fn a_part_that_says_no_levels_speaks_the_first() {
        assert_eq!(Levels::said(0, 0), Some(levels(1, 1)));
        assert_eq!(Levels::said(2, 5), Some(levels(2, 5)));
        for (lowest, highest) in [(0, 1), (2, 1), (1, 0), (1, 0x1_0000), (u32::MAX, u32::MAX)] {
            assert_eq!(Levels::said(lowest, highest), None, "{lowest} to {highest}");
        }
    }

    #[test]
    fn ranges_overlap_where_they_share_a_level() {
        assert!(levels(1, 3).overlap(levels(3, 4)) && levels(3, 4).overlap(levels(1, 3)));
        assert!(!levels(1, 2).overlap(levels(3, 4)) && !levels(3, 4).overlap(levels(1, 2)));
        assert!(levels(1, 3).has(Level(3)) && !levels(1, 3).has(Level(4)));
        assert_eq!(levels(2, 4).up_to(Level(3)), Some(levels(2, 3)));
        assert_eq!(levels(2, 4).up_to(Level(9)), Some(levels(2, 4)));
        assert_eq!(levels(2, 4).up_to(Level(1)), None);
        assert_eq!(levels(1, 1).to_string() + ", " + &levels(1, 2).to_string(), "level 1, levels 1 to 2");
    }
}
