//! How large a world is.

use std::time::Duration;

use mooseng_types::CellId;

use crate::entropy::Rng;

/// How large the world is, and of what releases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One master, two chunkservers, one client.
    One,
    /// Three masters, two chunkservers, two clients.
    Three,
    /// Five masters, two chunkservers, three clients.
    Five,
    /// As three, of an old release: each part is started anew with the next one while the world goes on.
    Mixed,
    /// Three groups on three masters, two chunkservers, a client or two for each.
    ThreeCells,
    /// Three groups on five masters, two chunkservers, two clients for each.
    FiveCells,
    /// Three masters, six chunkservers, two clients; servers are away for long and lose their disks.
    Healing,
}

/// Cells of the worlds with several, beside the root's.
const OTHER_CELLS: [u16; 2] = [1, 0x1234];

impl Shape {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::One, Self::Three, Self::Five, Self::Mixed, Self::ThreeCells, Self::FiveCells, Self::Healing];

    /// Chunkservers.
    pub(super) fn servers(self) -> u32 {
        match self {
            Self::Healing => 6,
            _ => 2,
        }
    }

    pub(super) fn masters(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Three | Self::Mixed | Self::ThreeCells | Self::Healing => 3,
            Self::Five | Self::FiveCells => 5,
        }
    }

    /// The cells whose groups each master hosts, the root's first.
    pub(super) fn cells(self) -> Vec<CellId> {
        let others = match self {
            Self::One | Self::Three | Self::Five | Self::Mixed | Self::Healing => &[][..],
            Self::ThreeCells | Self::FiveCells => &OTHER_CELLS[..],
        };
        let others = others.iter().map(|cell| CellId::from_raw(*cell));
        std::iter::once(CellId::ROOT).chain(others).collect()
    }

    pub(super) fn clients(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three | Self::Mixed | Self::Healing => 2,
            Self::Five => 3,
            Self::ThreeCells => 4,
            Self::FiveCells => 6,
        }
    }

    /// How long its faults last.
    pub(super) fn faults(self, rng: &mut Rng) -> Duration {
        match self {
            Self::One | Self::Three | Self::Five | Self::ThreeCells | Self::FiveCells => rng.ms(2000, 6000),
            Self::Healing => rng.ms(6000, 15_000),
            // An upgrade takes its time, as a session of a client that died keeps it waiting.
            Self::Mixed => rng.ms(15_000, 30_000),
        }
    }

    /// Time between two faults.
    pub(super) fn until_next_fault(self, rng: &mut Rng) -> Duration {
        match self {
            // Quiet for so long that the sessions of clients that died come to their end.
            Self::Mixed if rng.chance(120) => rng.ms(2500, 5000),
            _ => rng.ms(20, 500),
        }
    }

    /// The cell in which a client works.
    pub(super) fn cell_of(self, client: usize) -> CellId {
        let cells = self.cells();
        cells.get(client % cells.len()).copied().unwrap_or(CellId::ROOT)
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Three => "three",
            Self::Five => "five",
            Self::Mixed => "mixed",
            Self::ThreeCells => "three-cells",
            Self::FiveCells => "five-cells",
            Self::Healing => "healing",
        }
    }
}
