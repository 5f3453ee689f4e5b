//! What a request comes to that is done in two places, here and behind this server, and who is named when it fails.

use mooseng_protocol::status::{CallError, TransportError};
use mooseng_types::{ChunkCause, ServerId};

/// A request that is done here and, if it was forwarded, behind this server as well.
#[derive(Debug)]
pub struct Completion {
    here: Option<Result<(), CallError>>,
    behind: Option<Result<(), CallError>>,
}

impl Completion {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(forwarded: bool) -> Self {
        Self { here: None, behind: if forwarded { None } else { Some(Ok(())) } }
    }

    /// This server is done; the outcome, if that was the last part.
    pub fn here(&mut self, result: Result<(), CallError>) -> Option<Result<(), CallError>> {
        self.here.get_or_insert(result);
        self.outcome()
    }

    /// The servers behind this one are done; the outcome, if that was the last part.
    pub fn behind(&mut self, result: Result<(), CallError>) -> Option<Result<(), CallError>> {
        self.behind.get_or_insert(result);
        self.outcome()
    }

    /// The fault of this server first: with a new lease the client meets the other one again.
    fn outcome(&mut self) -> Option<Result<(), CallError>> {
        if self.here.is_none() || self.behind.is_none() {
            return None;
        }
        Some(self.here.take()?.and(self.behind.take()?))
    }
}

/// A fault of this server.
#[must_use]
pub fn fault(cause: ChunkCause, message: impl Into<String>) -> CallError {
    CallError::Chunk { server: None, cause, message: message.into() }
}

/// What the one before this server is told of a failure behind it: which server, and why. A server that is named already
/// stays named, and a request that no server would do is nobody's fault.
#[must_use]
pub fn blame(server: ServerId, error: CallError) -> CallError {
    let (cause, message) = match error {
        CallError::Rejected { .. } | CallError::Chunk { server: Some(_), .. } => return error,
        CallError::Chunk { server: None, cause, message } => (cause, message),
        CallError::Transport(error) => (cause_of(&error), with_source(&error)),
        CallError::Unavailable { message } => (ChunkCause::Busy, message),
        // No chunkserver answers so.
        other => (ChunkCause::Unreachable, other.to_string()),
    };
    CallError::Chunk { server: Some(server), cause, message }
}

fn cause_of(error: &TransportError) -> ChunkCause {
    match error {
        TransportError::TimedOut { .. } => ChunkCause::Silent,
        _ => ChunkCause::Unreachable,
    }
}

/// An error and what it came from, in one line.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_source(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(error: CallError) -> Option<(u32, ChunkCause)> {
        match blame(ServerId::from_raw(3), error) {
            CallError::Chunk { server: Some(server), cause, .. } => Some((server.raw(), cause)),
            _ => None,
        }
    }

    #[test]
    fn the_server_at_fault_is_named_with_its_cause_and_only_that_one() {
        let peer = || "p".to_owned();
        assert_eq!(named(fault(ChunkCause::Full, "")), Some((3, ChunkCause::Full)));
        assert_eq!(named(fault(ChunkCause::Fenced, "")), Some((3, ChunkCause::Fenced)));
        let further = CallError::Chunk {
            server: Some(ServerId::from_raw(5)),
            cause: ChunkCause::Silent,
            message: String::new(),
        };
        assert_eq!(named(further), Some((5, ChunkCause::Silent)));
        let closed = TransportError::Closed { peer: peer() };
        assert_eq!(named(closed.into()), Some((3, ChunkCause::Unreachable)));
        let late = TransportError::TimedOut { peer: peer(), deadline_ms: 1 };
        assert_eq!(named(late.into()), Some((3, ChunkCause::Silent)));
        assert_eq!(named(CallError::Unavailable { message: peer() }), Some((3, ChunkCause::Busy)));
        assert_eq!(named(CallError::Rejected { message: peer() }), None, "true of every server");
    }

    #[test]
    fn a_request_is_done_when_both_parts_are_and_this_servers_fault_goes_first() {
        let full = || Err(fault(ChunkCause::Full, ""));
        let busy = || Err(fault(ChunkCause::Busy, ""));
        assert!(matches!(Completion::new(false).here(Ok(())), Some(Ok(()))));
        for here_first in [true, false] {
            let mut both = Completion::new(true);
            let outcome = if here_first {
                assert!(both.here(full()).is_none());
                both.behind(busy())
            } else {
                assert!(both.behind(busy()).is_none());
                both.here(full())
            };
            assert!(matches!(outcome, Some(Err(CallError::Chunk { cause: ChunkCause::Full, .. }))));
        }
        let mut both = Completion::new(true);
        assert!(both.here(Ok(())).is_none());
        assert!(matches!(both.behind(busy()), Some(Err(CallError::Chunk { cause: ChunkCause::Busy, .. }))));
    }
}
