//! Founds the state of a new cluster, once all founding masters vote, at the highest level that all of them know.

use mooseng_meta::ClusterCommand;
use mooseng_types::ClusterId;

use super::{Round, Worker};

/// The first entry of a new cluster.
#[derive(Debug)]
pub(super) struct FoundState {
    pub(super) cluster: ClusterId,
    pub(super) copies: u8,
}

impl Worker for FoundState {
    fn name(&self) -> &'static str {
        "found"
    }

    fn needs_state(&self) -> bool {
        false
    }

    fn work(&mut self, round: &mut Round<'_>) {
        if round.state().settings().is_some() || !round.group.is_complete() {
            return;
        }
        let survey = round.callers.survey(round.group, round.registry, Some(round.sessions), round.now);
        let Some(level) = round.callers.first_level(&survey, round.group) else { return };
        if level > survey.level {
            round.propose(ClusterCommand::RaiseLevel { level });
        }
        round.propose(ClusterCommand::Bootstrap { cluster: self.cluster, copies: self.copies });
    }
}
