//! The client's door: every request to masters and chunkservers goes out through it, and its answer comes back. Each try
//! counts for itself: what a program asked for once may have been sent several times.

use std::sync::Arc;

use mooseng_env::Clock;
use mooseng_protocol::door::{Door, Outcome, Snapshot};
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::Mux;

/// A door with a clock.
#[derive(Debug)]
pub(crate) struct TimedDoor {
    door: Door,
    clock: Arc<dyn Clock>,
}

impl TimedDoor {
    /// Nothing has passed yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { door: Door::default(), clock })
    }

    /// Lets a request of this kind pass: `exchange` sends it, and waits for its answer.
    pub(crate) fn pass<R: Rpc, T>(
        &self,
        exchange: impl FnOnce() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let entered = self.door.enter(R::KIND, self.clock.monotonic());
        let answer = exchange();
        self.door.leave(entered, Outcome::of(&answer), self.clock.monotonic());
        answer
    }

    /// Sends a request on a shared connection; `done` is called once, with the answer or when the connection ends.
    pub(crate) fn start<R: Rpc>(
        self: &Arc<Self>,
        mux: &Mux,
        request: &R,
        done: impl FnOnce(Result<R::Reply, CallError>) + Send + 'static,
    ) {
        let (this, entered) = (Arc::clone(self), self.door.enter(R::KIND, self.clock.monotonic()));
        mux.start(request, &[], move |answer| {
            this.door.leave(entered, Outcome::of(&answer), this.clock.monotonic());
            done(answer);
        });
    }

    /// What has passed so far.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.door.snapshot()
    }
}
