//! What the answers imply. Every client has a directory of its own, whose content follows exactly from what it was
//! answered; and all share names, a directory and a file, for which only a linear history will do. A client that died in the midst of an
//! operation leaves two possible worlds: with it and without.

mod history;
mod journal;
mod model;
mod shared;
mod slates;

use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) use history::History;
pub(crate) use journal::{Journal, RECORD};
pub(crate) use model::{Model, NodeId, Op};
pub(crate) use shared::{Attributes, DirAnswer, DirOp, Directory, FILE_MODE, File, FileOp, Name, NameOp};
pub(crate) use slates::{CELL, CELLS, Look, Made, SLATES, Slates};

/// What a client has done in its own directory.
#[derive(Clone, Debug)]
pub(crate) struct Private {
    /// The directory's name, below the root.
    pub(crate) name: String,
    /// Making the directory itself was answered.
    pub(crate) founded: bool,
    /// After everything that was answered.
    pub(crate) model: Model,
    /// Asked for and not answered yet.
    pub(crate) pending: Option<Op>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Oracle {
    pub(crate) private: Vec<Private>,
    /// By shared name.
    pub(crate) names: Vec<History<Name>>,
    /// Of the directories that all clients use, one after the other.
    pub(crate) directory: History<Directory>,
    /// Of the files whose attributes all clients set, one after the other.
    pub(crate) file: History<File>,
    /// Writes of the files that all clients write.
    pub(crate) slates: Slates,
    /// What all clients append to.
    pub(crate) journal: Journal,
    /// When a server has lost power last; zero: none has.
    pub(crate) power_lost: Duration,
    /// The address of a server on whose disk bits have rotted: copies there may be damaged, and say so.
    pub(crate) damaged: Option<String>,
    /// That server has crashed since: what has rotted in a copy that was written meanwhile may pass for what was written.
    pub(crate) rot_may_pass: bool,
    /// A server has lost its disk: what it had is not made again everywhere yet.
    pub(crate) copies_may_be_missing: bool,
    /// Addresses of servers that some fault has touched: a client may want to do without them. The others it must not blame.
    pub(crate) touched: BTreeSet<String>,
    /// Clients that do nothing for a while, with bytes that they have not sent, or not synced.
    pub(crate) idlers: BTreeSet<usize>,
    /// Operations answered, in all.
    pub(crate) answered: u64,
    /// By client: operations answered.
    pub(crate) progress: Vec<u64>,
    /// What broke a promise.
    pub(crate) violations: Vec<String>,
}

/// Names that all clients use.
pub(crate) const SHARED_NAMES: usize = 3;

impl Oracle {
    pub(crate) fn new() -> Self {
        let names = (0..SHARED_NAMES).map(|_| History::default()).collect();
        Self { names, ..Self::default() }
    }

    /// What is wrong with the histories of what is shared.
    pub(crate) fn histories(&self) -> Vec<String> {
        let names = self.names.iter().flat_map(History::problems);
        names.chain(self.directory.problems()).chain(self.file.problems()).collect()
    }

    /// A server has lost power.
    pub(crate) fn power_was_lost(&mut self, now: Duration) {
        self.power_lost = now;
        self.journal.power_was_lost(now);
    }

    /// A client has died, or its session has ended: what it wrote and nothing covers will never be.
    pub(crate) fn life_ended(&mut self, life: usize, now: Duration) {
        self.slates.life_ended(life, now);
        self.journal.made(life, now, now, Made::Lost);
    }

    /// A promise is broken.
    pub(crate) fn accuse(&mut self, what: String) {
        self.violations.push(what);
    }
}
