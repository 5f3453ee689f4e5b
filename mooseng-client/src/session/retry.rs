//! What a failed try of a request means: whom to ask next, how long to wait before, when to give up. Pure: time and
//! randomness are arguments.

use std::time::Duration;

use mooseng_protocol::status::{CallError, TransportError};
use mooseng_types::FsError;

use super::backoff::Backoff;
use super::belief::{Belief, Believed};
use crate::{ClientError, Loss};

/// Tries one after the other without a wait, when each of them had a reason to go elsewhere.
const HOPS_MAX: u32 = 2;
/// A stall of this length is told in the log.
const STALL: Duration = Duration::from_secs(1);

/// What a request is, as far as it matters when its session turns out to have expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing.
    Query,
    /// It changes something, and may be made under any session.
    Change,
    /// It is data, or a lease that data is written under: it has a meaning only under the session that it was decided
    /// under. Under another it would be older than what others have done since.
    Bound,
}

impl Kind {
    /// What becomes of a request that was refused because its session has expired; `None`: it is made again under the
    /// next session. `in_doubt`: a try before may have been done.
    #[must_use]
    pub fn expired(self, what: &'static str, in_doubt: bool) -> Option<ClientError> {
        match self {
            Self::Query => None,
            // Sent once and refused: nothing was done. Otherwise the old session may have done it, and doing it again
            // could be wrong.
            Self::Change => in_doubt.then_some(ClientError::InDoubt { what }),
            Self::Bound => Some(Loss::SessionExpired.into()),
        }
    }
}

/// What follows from a failed try.
#[derive(Debug)]
pub enum Next {
    /// Try again at once.
    Again,
    /// Try again after so long.
    Pause(Duration),
    /// Try again after so long, or as soon as there is news of the leader.
    Await(Duration),
    /// This is the result.
    End(ClientError),
}

/// The tries of one request.
#[derive(Debug)]
pub struct Retry {
    what: &'static str,
    start: Duration,
    limit: Duration,
    away: Backoff,
    held: Backoff,
    hops: u32,
    in_doubt: bool,
    stalled: bool,
}

impl Retry {
    /// A request begins; it is tried for at most `limit`.
    #[must_use]
    pub fn new(what: &'static str, start: Duration, limit: Duration) -> Self {
        Self {
            what,
            start,
            limit,
            away: Backoff::election(),
            held: Backoff::lease_held(),
            hops: 0,
            in_doubt: false,
            stalled: false,
        }
    }

    /// Whether some try may have been done though it was not answered.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether the request has been waiting long enough to be told of in the log.
    #[must_use]
    pub fn has_stalled(&self) -> bool {
        self.stalled
    }

    /// The try that was made under `believed` failed, `reused` on a connection that had been used before. Moves the belief
    /// on to where the error points, and tells the address that has turned out to lead, if that is news.
    pub fn failed(
        &mut self,
        belief: &mut Belief,
        believed: &Believed,
        error: &CallError,
        reused: bool,
        now: Duration,
        random: u64,
    ) -> (Next, Option<String>) {
        let since = now.saturating_sub(self.start);
        match error {
            CallError::Refused(FsError::LeaseHeld) if since < self.limit => {
                return (Next::Pause(self.held.next(random)), None);
            }
            CallError::Refused(refusal) => return (Next::End((*refusal).into()), None),
            error if !error.is_retryable() => {
                let message = error.to_string();
                return (Next::End(ClientError::Rejected { what: self.what, message }), None);
            }
            _ => {}
        }
        self.in_doubt |= !matches!(error, CallError::NotLeader { .. });
        if since >= self.limit {
            let after_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let last = error.to_string();
            return (Next::End(ClientError::GaveUp { what: self.what, after_ms, last }), None);
        }
        self.stalled |= since >= STALL;
        let (moved, leads) = follow(belief, believed, error, reused, now);
        self.hops += 1;
        if moved && self.hops <= HOPS_MAX {
            return (Next::Again, leads);
        }
        self.hops = 0;
        (Next::Await(self.away.next(random)), leads)
    }
}

/// Moves on to where `error` points. Tells whether there is a reason to try again at once, and who leads if that is news.
fn follow(
    belief: &mut Belief,
    believed: &Believed,
    error: &CallError,
    reused: bool,
    now: Duration,
) -> (bool, Option<String>) {
    let term = believed.term;
    match error {
        CallError::NotLeader { leader: Some(address) } => {
            let news = belief.hinted(term, address, now);
            if belief.term() == term {
                belief.pass(term, now);
            }
            (true, news.then(|| address.clone()))
        }
        CallError::NotLeader { leader: None } => {
            belief.pass(term, now);
            (true, None)
        }
        // A connection that was closed while idle says nothing about the master. The others of its kind are gone.
        CallError::Transport(error) if reused && !matches!(error, TransportError::TimedOut { .. }) => {
            (true, None)
        }
        CallError::Transport(_) => {
            // Not if the connection was shut down because the leader has changed.
            if belief.term() == term {
                belief.silent(term, &believed.leader, now);
            }
            (true, None)
        }
        _ => (belief.term() != term, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn belief() -> Belief {
        Belief::new(&["a".to_owned(), "b".to_owned(), "c".to_owned()])
    }

    fn silence() -> CallError {
        TransportError::TimedOut { peer: "a".into(), deadline_ms: 1 }.into()
    }

    #[test]
    fn a_silent_master_is_left_and_after_two_hops_there_is_a_wait() {
        let mut belief = belief();
        let mut retry = Retry::new("test", Duration::ZERO, Duration::from_secs(60));
        let mut asked = Vec::new();
        for _ in 0..3 {
            let now = belief.now();
            asked.push(now.leader.to_string());
            let (next, _) = retry.failed(&mut belief, &now, &silence(), false, Duration::ZERO, 0);
            assert_eq!(matches!(next, Next::Await(_)), asked.len() == 3, "{next:?}");
        }
        assert_eq!(asked, ["a", "b", "c"]);
        assert!(retry.is_in_doubt());
    }

    #[test]
    fn a_refusal_is_an_answer_and_a_held_lease_is_waited_for_until_the_limit() {
        let mut belief = belief();
        let now = belief.now();
        let mut retry = Retry::new("test", Duration::ZERO, Duration::from_secs(60));
        let held = CallError::Refused(FsError::LeaseHeld);
        let (next, _) = retry.failed(&mut belief, &now, &held, false, Duration::from_secs(1), 0);
        assert!(matches!(next, Next::Pause(_)));
        let (next, _) = retry.failed(&mut belief, &now, &held, false, Duration::from_secs(60), 0);
        assert!(matches!(next, Next::End(error) if error.is(FsError::LeaseHeld)));
        assert!(!retry.is_in_doubt(), "both were answers");
    }

    #[test]
    fn when_the_limit_is_over_the_result_says_what_was_tried_last() {
        let mut belief = belief();
        let now = belief.now();
        let mut retry = Retry::new("test", Duration::ZERO, Duration::from_secs(60));
        let (next, _) = retry.failed(&mut belief, &now, &silence(), false, Duration::from_secs(60), 0);
        let Next::End(ClientError::GaveUp { what: "test", after_ms: 60_000, last }) = next else {
            panic!("{next:?}")
        };
        assert!(last.contains("no answer"), "{last}");
    }

    #[test]
    fn a_connection_that_was_closed_while_idle_says_nothing_about_the_master() {
        let mut belief = belief();
        let now = belief.now();
        let mut retry = Retry::new("test", Duration::ZERO, Duration::from_secs(60));
        let closed = CallError::Transport(TransportError::Closed { peer: "a".into() });
        let (next, _) = retry.failed(&mut belief, &now, &closed, true, Duration::ZERO, 0);
        assert!(matches!(next, Next::Again));
        assert_eq!(*belief.now().leader, *"a");
    }
}
