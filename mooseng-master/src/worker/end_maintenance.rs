//! Ends the maintenance of chunkservers whose time is up.

use mooseng_meta::{ClusterCommand, ServerMode};
use mooseng_types::CellId;

use super::{Round, Worker};

/// What stands in the root's cell counts for all.
#[derive(Debug)]
pub(super) struct EndMaintenance;

impl Worker for EndMaintenance {
    fn name(&self) -> &'static str {
        "end-maintenance"
    }

    fn work(&mut self, round: &mut Round<'_>) {
        if round.group.cell() != CellId::ROOT {
            return;
        }
        let is_over =
            |mode: ServerMode| matches!(mode, ServerMode::Maintenance { until } if until <= round.wall);
        let over: Vec<_> = round
            .registry
            .iter()
            .filter(|(_, known)| is_over(known.mode))
            .map(|(server, _)| server)
            .collect();
        for server in over {
            tracing::info!(%server, "the time of a server's maintenance is up");
            round.propose(ClusterCommand::SetServerMode { server, mode: ServerMode::Normal });
        }
    }
}
