//! The requests of one connection that are not answered yet, on their way through the master's door. They are found again
//! by what frames say, so nothing between the arrival and the reply knows of it.

use std::collections::HashMap;
use std::time::Duration;

use mooseng_protocol::door::{Door, Entered, Outcome};
use mooseng_protocol::frame::{self, FLAG_ERROR, FLAG_REPLY, HEADER_SIZE, Header};
use mooseng_protocol::pb;
use prost::Message as _;

/// Requests of one connection whose time is taken at once; more than any part of a cluster sends before it waits.
const WAITING_MAX: usize = 8192;

/// Requests that wait for their answers, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Visitors(HashMap<u64, Entered>);

impl Visitors {
    /// A request has come that is to be answered.
    pub(super) fn enter(&mut self, door: &Door, header: Header, now: Duration) {
        let entered = door.enter(header.kind, now);
        // Two of one number cannot be told apart, and what comes beyond the limit is not waited for.
        let unseen =
            if self.0.len() < WAITING_MAX { self.0.insert(header.request, entered) } else { Some(entered) };
        if let Some(unseen) = unseen {
            door.leave(unseen, Outcome::Lost, now);
        }
    }

    /// A frame goes out. If it answers a request, that leaves.
    pub(super) fn answered(&mut self, door: &Door, frame: &[u8], now: Duration) {
        let Some(header) = frame::header_of(frame).filter(|header| header.flags & FLAG_REPLY != 0) else {
            return;
        };
        if let Some(entered) = self.0.remove(&header.request) {
            door.leave(entered, outcome(header, frame), now);
        }
    }

    /// The connection has ended: nobody takes the answers any more.
    pub(super) fn lost(&mut self, door: &Door, now: Duration) {
        for (_, entered) in self.0.drain() {
            door.leave(entered, Outcome::Lost, now);
        }
    }
}

/// What became of a request that is answered with this frame.
pub(super) fn outcome(header: Header, frame: &[u8]) -> Outcome {
    if header.flags & FLAG_ERROR == 0 {
        return Outcome::Done;
    }
    let error = frame.get(HEADER_SIZE..).and_then(|body| pb::ErrorReply::decode(body).ok());
    error.map_or(Outcome::Failed, |error| Outcome::of_reply(&error))
}

#[cfg(test)]
mod tests {
    use mooseng_protocol::frame::FLAG_PUSH;
    use mooseng_protocol::rpc::Rpc as _;
    use mooseng_protocol::status::CallError;
    use mooseng_types::FsError;

    use super::*;
    use crate::desk::reply_frame;

    const CREATE: Header = Header { kind: pb::CreateRequest::KIND, flags: 0, request: 1, deadline_ms: 0 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_request_leaves_once_with_its_answer_or_with_its_connection() {
        let (door, mut visitors) = (Door::default(), Visitors::default());
        let second = Header { request: 2, ..CREATE };
        visitors.enter(&door, CREATE, at(0));
        visitors.enter(&door, second, at(0));
        visitors.enter(&door, Header { request: 3, ..CREATE }, at(0));
        // A push has no request's number, and an answer is counted once.
        let push = frame::encode(Header { flags: FLAG_PUSH, ..CREATE }, b"", 0).unwrap();
        visitors.answered(&door, &push, at(1));
        for time in [20, 30] {
            visitors.answered(&door, &reply_frame(CREATE, Ok(b"")), at(time));
        }
        let refusal = CallError::Refused(FsError::Exists);
        visitors.answered(&door, &reply_frame(second, Err(&refusal)), at(5));
        let row = &door.snapshot().requests[0];
        assert_eq!((row.requests, row.under_way(), row.refused, row.lost), (3, 1, 1, 0));
        assert_eq!((row.total_us, row.max_us), (25_000, 20_000));
        visitors.lost(&door, at(100));
        let row = &door.snapshot().requests[0];
        assert_eq!((row.requests, row.under_way(), row.refused, row.lost), (3, 0, 1, 1));
    }

    #[test]
    fn what_cannot_be_told_apart_or_is_too_much_is_counted_and_not_kept() {
        let (door, mut visitors) = (Door::default(), Visitors::default());
        let requests = WAITING_MAX as u64 + 10;
        for request in 0..requests {
            visitors.enter(&door, Header { request, ..CREATE }, at(0));
        }
        visitors.enter(&door, Header { request: 0, ..CREATE }, at(0));
        assert_eq!(visitors.0.len(), WAITING_MAX);
        visitors.lost(&door, at(1));
        let row = &door.snapshot().requests[0];
        assert_eq!((row.requests, row.lost, row.under_way()), (requests + 1, requests + 1, 0));
    }
}
