//! How much of the log is kept: what some member still needs, within bounds.

use super::{Node, Role};

impl Node {
    /// Forgets entries up to `durable`, as far as no member needs them any more, or as far as there are too many of
    /// them for one that lags behind: that one gets a snapshot. What is not above `let_go` counts as too much. Returns the
    /// last one forgotten, as index and term.
    pub fn purge(&mut self, durable: u64, let_go: u64) -> (u64, u64) {
        let all_have = self.all_have().max(let_go);
        // What follows a snapshot that is on its way is needed as soon as it has arrived.
        let progress = self.raw.raft.prs().iter();
        let on_its_way = progress.map(|(_, p)| p.pending_snapshot).filter(|index| *index > 0).min();
        self.raw.mut_store().purge(durable, all_have, on_its_way);
        self.raw.store().purged()
    }

    /// How far every member has the log on disk, as far as this master knows. A follower may lead next and must then
    /// serve the slowest voter, so it goes by what its leader has told it.
    #[must_use]
    pub fn all_have(&self) -> u64 {
        let slowest = || self.raw.raft.prs().iter().map(|(_, progress)| progress.matched).min();
        if self.role() == Role::Leader {
            slowest().unwrap_or(0).max(self.told_all_have)
        } else {
            self.told_all_have
        }
    }

    /// The leader says that every member has the log on disk up to `index`.
    pub fn told_all_have(&mut self, index: u64) {
        self.told_all_have = self.told_all_have.max(index);
    }
}
