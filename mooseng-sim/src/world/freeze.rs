//! Processes that are stopped for a while and not dead (`SIGSTOP`, a suspended machine, a long pause of a hypervisor):
//! nothing of theirs happens, while their clocks, the network and their disks go on. What is meant for them waits, in
//! order, and is there all at once when they go on.

use std::time::Duration;

use super::{Event, World};
use crate::net::Place;
use crate::server::Asker;

/// What waits for a process that is stopped.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    /// Which stop it is: the word to go on is for this one only.
    number: u64,
    waiting: Vec<Event>,
}

impl World {
    pub(super) fn is_frozen(&self, place: Place) -> bool {
        self.frozen.contains_key(&place)
    }

    /// Stops the process for `span`, unless it is stopped already.
    pub(super) fn freeze(&mut self, place: Place, span: Duration) {
        if self.is_frozen(place) {
            return;
        }
        self.next_event += 1;
        let number = self.next_event;
        self.frozen.insert(place, Frozen { number, waiting: Vec::new() });
        self.note(format!("{place:?} is stopped for {span:?}"));
        self.after(span, Event::Thaw { place, number });
    }

    /// The process goes on, or ends: what has waited for it comes to it now. Without a `number`, whichever stop it is.
    pub(super) fn thaw(&mut self, place: Place, number: Option<u64>) {
        if number.is_some_and(|number| self.frozen.get(&place).is_none_or(|f| f.number != number)) {
            return;
        }
        let Some(frozen) = self.frozen.remove(&place) else { return };
        for event in frozen.waiting {
            self.after(Duration::ZERO, event);
        }
    }

    /// Everybody goes on.
    pub(super) fn thaw_all(&mut self) {
        let places: Vec<_> = self.frozen.keys().copied().collect();
        places.into_iter().for_each(|place| self.thaw(place, None));
    }

    /// The event, unless it is for a process that is stopped.
    pub(super) fn unless_frozen(&mut self, event: Event) -> Option<Event> {
        if self.frozen.is_empty() {
            return Some(event);
        }
        let Some(place) = self.whose(&event) else { return Some(event) };
        match self.frozen.get_mut(&place) {
            Some(frozen) => {
                frozen.waiting.push(event);
                None
            }
            None => Some(event),
        }
    }

    /// The process that takes part in the event; `None` if it happens to machines, or to the world.
    fn whose(&self, event: &Event) -> Option<Place> {
        let of_task = |task: &u64| self.tasks.get(task).map(|slot| slot.place);
        match event {
            Event::Tick { master, .. }
            | Event::Written { master, .. }
            | Event::Flushed { master, .. }
            | Event::Flush { master }
            | Event::PeerLost { master, .. }
            | Event::Closed { master, .. }
            | Event::SnapshotSent { from: master, .. }
            | Event::Raft { to: master, .. } => Some(Place::Master(*master)),
            Event::Hello(hello) => Some(Place::Master(hello.to)),
            Event::Request { conn, .. } => self.conns.get(conn).map(|conn| Place::Master(conn.master)),
            Event::Frame { conn, .. } => self.conns.get(conn).and_then(|conn| of_task(&conn.task)),
            Event::Poll { task } | Event::Refused { task, .. } => of_task(task),
            Event::ToServer { index, .. }
            | Event::ForwardTimeout { index, .. }
            | Event::CleanIdle { index } => Some(Place::Server(*index)),
            Event::FromServer { asker: Asker::Task { task, .. }, .. } => of_task(task),
            Event::FromServer { asker: Asker::Server { index, .. }, .. } => Some(Place::Server(*index)),
            Event::StartMaster { .. }
            | Event::StartServer { .. }
            | Event::RestartServer { .. }
            | Event::SetClockRight { .. }
            | Event::StartClient { .. }
            | Event::Fault
            | Event::Heal
            | Event::DiskFull { .. }
            | Event::Leave { .. }
            | Event::Thaw { .. }
            | Event::Snapshot(_)
            | Event::Rolling(_)
            | Event::Drain
            | Event::Replace { .. } => None,
        }
    }
}
