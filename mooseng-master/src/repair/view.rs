//! A chunk's row beside what its servers tell of their copies.

use mooseng_meta::ChunkRow;
use mooseng_types::{ChunkVersion, ServerId};

use super::Standing;
use super::moves::Moves;
use crate::registry::Copy;

/// A copy, as far as this leader knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CopyState {
    /// Its server has it whole, and as new as what is committed.
    Good {
        /// Its version.
        version: ChunkVersion,
        /// Every block of it was read and matched, in the time of this leader.
        verified: bool,
    },
    /// It is as new, but its server stopped while it was written.
    InDoubt {
        /// Its version.
        version: ChunkVersion,
        /// Every block of it was read and matched, in the time of this leader.
        verified: bool,
    },
    /// It lacks what is committed.
    Stale {
        /// Its version.
        version: ChunkVersion,
    },
    /// Its server is there and has none.
    Lost,
    /// Its server is not there; it stands like this.
    Away(Standing),
}

/// All that a decision about a chunk is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChunkView {
    /// Copies that its class wants.
    pub(crate) wanted: usize,
    /// The last version whose bytes are the file's.
    pub(crate) committed: ChunkVersion,
    /// The last version that was given out.
    pub(crate) granted: ChunkVersion,
    /// Somebody may write it.
    pub(crate) leased: bool,
    /// A writer has died: what it wrote may be on one copy and not on another.
    pub(crate) differs: bool,
    /// The version that this leader has given out to settle what copies may differ in.
    pub(crate) settling: Option<ChunkVersion>,
    /// The copies that the row counts, in its order.
    pub(crate) counted: Vec<(ServerId, CopyState)>,
    /// Copies that servers have beside those.
    pub(crate) beside: Vec<(ServerId, CopyState)>,
    /// The copies that are in the wrong place.
    pub(crate) moves: Moves,
}

impl CopyState {
    /// Its version, if it is known.
    pub(crate) fn version(self) -> Option<ChunkVersion> {
        match self {
            Self::Good { version, .. } | Self::InDoubt { version, .. } | Self::Stale { version } => {
                Some(version)
            }
            Self::Lost | Self::Away(_) => None,
        }
    }

    /// Whether every block of it was read and matched, in the time of this leader.
    pub(crate) fn is_verified(self) -> bool {
        matches!(self, Self::Good { verified: true, .. } | Self::InDoubt { verified: true, .. })
    }

    /// A copy, its server there.
    fn told(told: Option<Copy>, committed: ChunkVersion) -> Self {
        match told {
            None => Self::Lost,
            Some(Copy { version, .. }) if version < committed => Self::Stale { version },
            Some(Copy { version, in_doubt: true, verified }) => Self::InDoubt { version, verified },
            Some(Copy { version, verified, .. }) => Self::Good { version, verified },
        }
    }
}

impl ChunkView {
    /// A chunk's row, with its `servers`, beside what is told of it: `told` of each server that tells something, and how each
    /// one stands.
    pub(crate) fn new(
        row: &ChunkRow,
        servers: &[ServerId],
        wanted: usize,
        settling: Option<ChunkVersion>,
        told: &[(ServerId, Copy)],
        standing: impl Fn(ServerId) -> Standing,
    ) -> Self {
        let of = |server: ServerId| told.iter().find(|(other, _)| *other == server).map(|(_, told)| *told);
        let counted = |&server: &ServerId| {
            let state = match standing(server) {
                Standing::Serving => CopyState::told(of(server), row.committed),
                away => CopyState::Away(away),
            };
            (server, state)
        };
        let beside = told
            .iter()
            .filter(|(server, _)| !servers.contains(server) && standing(*server) == Standing::Serving)
            .map(|(server, told)| (*server, CopyState::told(Some(*told), row.committed)));
        Self {
            wanted,
            committed: row.committed,
            granted: row.granted,
            leased: row.lease.is_some(),
            differs: row.differs,
            settling,
            counted: servers.iter().map(counted).collect(),
            beside: beside.collect(),
            moves: Moves::default(),
        }
    }

    /// Looks for copies in the wrong place; of a chunk with too few, none is. Those of one that somebody writes are seen, and stay
    /// until it is at rest.
    pub(crate) fn look_for_moves(&mut self, of: impl FnOnce(&[ServerId], &[ServerId]) -> Moves) {
        let good = |copies: &[(ServerId, CopyState)]| -> Vec<ServerId> {
            let good = copies.iter().filter(|(_, state)| matches!(state, CopyState::Good { .. }));
            good.map(|(server, _)| *server).collect()
        };
        let counted = good(&self.counted);
        if counted.len() >= self.wanted {
            self.moves = of(&counted, &good(&self.beside));
        }
    }

    /// All good copies are alike and stay so: nothing was written since what is committed, and nobody can write any more.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.leased && !self.differs && self.committed == self.granted
    }
}
