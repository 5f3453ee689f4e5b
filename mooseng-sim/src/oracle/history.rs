//! The histories of what all clients share. Each object is used for so many operations and then left for a new one, so
//! that the search for an order stays short.

use std::time::Duration;

use crate::invariants::{Call, Object, linearizable};

/// Operations begun on an object before the next one takes its place.
const OPERATIONS_MAX: usize = 60;

/// The operations on one kind of shared object, by generation.
#[derive(Debug)]
pub(crate) struct History<O: Object>(Vec<Vec<Call<O>>>);

/// An operation under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    generation: usize,
    place: usize,
}

impl<O: Object> Default for History<O> {
    fn default() -> Self {
        Self(vec![Vec::new()])
    }
}

impl<O: Object> History<O> {
    /// Which object is in use.
    pub(crate) fn generation(&mut self) -> usize {
        if self.0.last().is_none_or(|calls| calls.len() >= OPERATIONS_MAX) {
            self.0.push(Vec::new());
        }
        self.0.len() - 1
    }

    /// An operation on the object of this generation begins now.
    pub(crate) fn begin(&mut self, generation: usize, now: Duration, op: O::Op) -> Ticket {
        let calls = &mut self.0[generation];
        calls.push(Call { invoked: now, op, answered: None });
        Ticket { generation, place: calls.len() - 1 }
    }

    /// It was answered.
    pub(crate) fn end(&mut self, ticket: Ticket, now: Duration, answer: O::Answer) {
        self.0[ticket.generation][ticket.place].answered = Some((now, answer));
    }

    /// What is wrong with all that was seen.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.0.iter().filter_map(|calls| linearizable(calls)).collect()
    }
}
