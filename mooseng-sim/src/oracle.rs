//! What the answers imply. Every client has a directory of its own, whose content follows exactly from what it was
//! answered; and all share a few names, for which only a linear history will do. A client that died in the midst of an
//! operation leaves two possible worlds: with it and without.

mod model;

use std::time::Duration;

use crate::invariants::BoardWrite;
pub(crate) use model::{Model, NodeId, Op};

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

/// What was asked about a shared name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedOp {
    /// Make it; refused if it is there.
    Create,
    /// Remove it; refused if it is not there.
    Unlink,
    /// Look where it leads.
    Lookup,
}

/// One operation on a shared name.
#[derive(Clone, Copy, Debug)]
pub struct SharedCall {
    /// When it was sent first.
    pub invoked: Duration,
    /// When it was answered; `None` if it never was: it may have happened at any time since, or not.
    pub answered: Option<Duration>,
    /// What was asked.
    pub op: SharedOp,
    /// Done (with the inode, where there is one) or refused.
    pub result: Option<u64>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Oracle {
    pub(crate) private: Vec<Private>,
    /// By shared name.
    pub(crate) shared: Vec<Vec<SharedCall>>,
    /// Writes of the file that all clients write.
    pub(crate) board: Vec<BoardWrite>,
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
        Self { shared: vec![Vec::new(); SHARED_NAMES], ..Self::default() }
    }

    /// A promise is broken.
    pub(crate) fn accuse(&mut self, what: String) {
        self.violations.push(what);
    }
}
