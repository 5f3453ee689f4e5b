//! The network: slow servers get less, and the write chain begins near the writer.

use std::time::Duration;

use super::{Candidate, Place};

/// A server that answers this late gets half of what it would get if it answered at once.
const SLOW: Duration = Duration::from_millis(20);

/// By how much a server weighs less for being slow: 1 for one that answers at once or has not been measured.
pub(super) fn speed(latency: Option<Duration>) -> f64 {
    latency.map_or(1.0, |latency| SLOW.as_secs_f64() / (SLOW + latency).as_secs_f64())
}

/// How far a server is from the writer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Distance {
    /// On the same machine.
    Host,
    /// In the same rack.
    Rack,
    /// In the same region.
    Region,
    /// In another region.
    Far,
}

impl Distance {
    /// How far the server is from there. What has no name is no place.
    #[must_use]
    pub fn between(writer: &Place<'_>, server: &Candidate<'_>) -> Self {
        let same = |one: &str, other: &str| !one.is_empty() && one == other;
        match () {
            () if same(writer.host, server.host) => Self::Host,
            () if writer.region != server.region => Self::Far,
            () if same(writer.rack, server.rack) => Self::Rack,
            () => Self::Region,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_server_counts_less() {
        assert_eq!((speed(None), speed(Some(Duration::ZERO)), speed(Some(SLOW))), (1.0, 1.0, 0.5));
    }
}
