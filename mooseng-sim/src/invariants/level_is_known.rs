//! *What may be written in a cluster can be read by all of it* (RFC 0008): the level rises when all parts know the higher
//! one, and then no part of a lower one serves or is served.

use mooseng_types::{Level, Levels};

/// The highest level that any master has applied.
#[derive(Debug)]
pub(crate) struct LevelIsKnown(Level);

impl Default for LevelIsKnown {
    fn default() -> Self {
        Self(Level::FIRST)
    }
}

impl LevelIsKnown {
    /// A master has this level. `true` if none has had it before.
    pub(crate) fn rises_to(&mut self, level: Level) -> bool {
        let rises = level > self.0;
        self.0 = self.0.max(level);
        rises
    }

    /// The cluster's level.
    pub(crate) fn level(&self) -> Level {
        self.0
    }

    /// `master`, which knows these levels, may answer reads.
    pub(crate) fn serves(&self, master: u64, levels: Levels) -> Option<String> {
        let level = self.0;
        (!levels.has(level)).then(|| {
            format!("level_is_known: master {master} serves and knows {levels}, while the cluster has level {level}")
        })
    }
}

/// The level has risen while a part of the cluster knows these levels.
pub(crate) fn can_go_along(part: &str, levels: Levels, level: Level) -> Option<String> {
    (!levels.has(level))
        .then(|| format!("level_is_known: the cluster rises to level {level}, and {part} knows {levels}"))
}

/// A master of this level lets a part go on that knows these levels.
pub(crate) fn is_served(part: &str, levels: Levels, level: Level) -> Option<String> {
    (!levels.has(level))
        .then(|| format!("level_is_known: {part} knows {levels} and is served by a master of level {level}"))
}
