//! A class as it is shown: the same value for people and for programs.

use mooseng_protocol::pb;
use serde::Serialize;

use super::exchange::Definition;
use crate::output;

/// A class.
#[derive(Debug, Serialize)]
pub(super) struct Class {
    pub(super) id: u32,
    #[serde(flatten)]
    pub(super) definition: Definition,
    /// Objects that have it; `None` for the default class, of which nobody counts them.
    pub(super) objects: Option<u64>,
    /// What each state with a goal of its own finds.
    pub(super) states: Vec<State>,
}

/// What the goal of a state finds on the servers that are up.
#[derive(Debug, Serialize)]
pub(super) struct State {
    pub(super) state: String,
    pub(super) goal: String,
    pub(super) fulfilled: bool,
    /// Copies that it asks for.
    pub(super) copies: u32,
    /// Those that find a right server.
    pub(super) placed: u32,
    /// Others, that find another one.
    pub(super) substituted: u32,
    /// Servers that are right for some copy.
    pub(super) matching: u32,
    pub(super) losses_survived: u32,
    pub(super) warnings: Vec<String>,
}

impl From<pb::ClassStatus> for Class {
    fn from(told: pb::ClassStatus) -> Self {
        let state = |fit: pb::ClassFit| State {
            state: fit.state,
            goal: fit.goal,
            fulfilled: fit.is_met,
            copies: fit.copies,
            placed: fit.placed,
            substituted: fit.substituted,
            matching: fit.matching,
            losses_survived: fit.losses_survived,
            warnings: fit.warnings,
        };
        Self {
            id: told.id,
            definition: told.class.unwrap_or_default().into(),
            objects: told.objects,
            states: told.fits.into_iter().map(state).collect(),
        }
    }
}

impl Class {
    /// Whether all of its states can be fulfilled.
    pub(super) fn is_fulfilled(&self) -> bool {
        self.states.iter().all(|state| state.fulfilled)
    }

    /// In one line of a table.
    pub(super) fn row(&self) -> Vec<String> {
        let it = &self.definition;
        let goal = |goal: &Option<String>| goal.clone().unwrap_or_else(|| "-".into());
        let losses = self.states.iter().map(|state| state.losses_survived).min().unwrap_or(0);
        vec![
            it.name.clone(),
            it.keep.clone(),
            goal(&it.create),
            goal(&it.archive),
            goal(&it.trash),
            self.objects.map_or_else(|| "-".into(), |objects| objects.to_string()),
            losses.to_string(),
            if self.is_fulfilled() { "yes".into() } else { "NO".into() },
        ]
    }

    /// The head of such a table.
    pub(super) const HEAD: [&str; 8] =
        ["CLASS", "KEEP", "CREATE", "ARCHIVE", "TRASH", "OBJECTS", "LOSSES", "FULFILLED"];

    /// What its states find, for people.
    pub(super) fn print_states(&self) {
        let row = |state: &State| {
            vec![
                state.state.clone(),
                state.goal.clone(),
                state.matching.to_string(),
                format!("{} of {}", state.placed, state.copies),
                state.substituted.to_string(),
                state.losses_survived.to_string(),
            ]
        };
        let rows: Vec<_> = self.states.iter().map(row).collect();
        output::table(&["STATE", "GOAL", "SERVERS", "PLACED", "ELSEWHERE", "LOSSES"], &rows);
        for state in &self.states {
            state.warnings.iter().for_each(|warning| output::line(&format!("{}: {warning}", state.state)));
        }
    }
}
