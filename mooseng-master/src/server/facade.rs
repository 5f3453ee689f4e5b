//! Requests of the gRPC facade that the core has, and who waits for their answers.

use std::collections::HashMap;
use std::time::Duration;

use mooseng_protocol::door::{Door, Entered};
use mooseng_protocol::frame::{self, Header};
use mooseng_protocol::principal::{Principal, Role};

use super::inbox::{FacadeReply, answer_facade};
use super::visitors::outcome;

/// The facade as the loop sees it.
pub(super) struct Facade {
    /// Who it speaks for.
    pub(super) principal: Principal,
    waiting: HashMap<u64, (Entered, FacadeReply)>,
    next: u64,
}

impl Facade {
    /// Nobody waits.
    pub(super) fn new() -> Self {
        let principal = Principal { role: Role::Client, name: "gRPC".into(), node: 0, client: None };
        Self { principal, waiting: HashMap::new(), next: 0 }
    }

    /// A request comes in at the door; its header has the number under which it is answered.
    pub(super) fn enter(&mut self, door: &Door, kind: u16, reply: FacadeReply, now: Duration) -> Header {
        let request = self.next;
        self.next += 1;
        self.waiting.insert(request, (door.enter(kind, now), reply));
        Header { kind, request, ..Header::default() }
    }

    /// Answers the request with this number by this frame.
    pub(super) fn answer(&mut self, door: &Door, number: u64, frame: &[u8], now: Duration) {
        if let Some((entered, reply)) = self.waiting.remove(&number) {
            let header = frame::header_of(frame).unwrap_or_default();
            door.leave(entered, outcome(header, frame), now);
            answer_facade(reply, frame);
        }
    }
}
