//! An operator drains chunkservers, changes his mind, and lets them be away for a while.

use mooseng_meta::{MetaState, ServerMode};
use mooseng_protocol::pb;
use mooseng_types::CellId;

use super::{Event, Happening, World};

/// Servers that are drained at a time, so that the others are enough.
const DRAINING_MAX: usize = 2;

impl World {
    /// The operator says what one more server is there for, goes by what the masters know, and comes again.
    pub(super) fn drain(&mut self) {
        let again = self.rng.ms(500, 4000);
        self.after(again, Event::Drain);
        if self.time >= self.faults_until {
            return;
        }
        let rows = self.state_of(CellId::ROOT).map(MetaState::servers).unwrap_or_default();
        if rows.len() < self.shape.servers() as usize {
            return;
        }
        let draining: Vec<_> = rows.iter().filter(|row| row.mode == ServerMode::Draining).collect();
        let others: Vec<_> = rows.iter().filter(|row| row.mode == ServerMode::Normal).collect();
        let ends = draining.len() == DRAINING_MAX || (!draining.is_empty() && self.rng.chance(400));
        let from = if ends { &draining } else { &others };
        let at = usize::try_from(self.rng.below(from.len().max(1) as u64)).unwrap_or(0);
        let Some(row) = from.get(at) else { return };
        let (server, number) = (row.server, row.server.raw());
        let (mode, maintenance_s) = match () {
            () if ends => (pb::ServerMode::Normal, 0),
            () if self.rng.chance(250) => (pb::ServerMode::Maintenance, 1 + self.rng.below(4)),
            () => (pb::ServerMode::Draining, 0),
        };
        self.note(format!("the operator says that {server} is there for {mode:?}"));
        self.counting.counts.add(Happening::Drain, u64::from(mode == pb::ServerMode::Draining));
        let (mode, force) = (mode.into(), true);
        let request = pb::SetServerModeRequest { server: number, mode, maintenance_s, force, dry_run: false };
        self.admin(&request);
    }
}
