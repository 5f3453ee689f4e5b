//! A group that stays without a leader says so, and why that may be: until then its clients only wait.

use std::time::Duration;

use super::Group;

/// Longer than elections take, even when two masters stand at the same time once or twice.
const PATIENCE: Duration = Duration::from_secs(2);

/// Since when no leader is known, and whether that was said.
#[derive(Debug, Default)]
pub(super) struct Leaderless {
    since: Option<Duration>,
    said: bool,
}

impl Leaderless {
    /// Takes note of whether there is a leader; what is to be said now.
    fn look(&mut self, now: Duration, has_leader: bool) -> Option<News> {
        if has_leader {
            let ended = std::mem::take(self);
            return ended.since.filter(|_| ended.said).map(|since| News::Ended { after: now - since });
        }
        let since = *self.since.get_or_insert(now);
        let lasts = now.saturating_sub(since) >= PATIENCE;
        (lasts && !std::mem::replace(&mut self.said, lasts)).then_some(News::Begun)
    }
}

#[derive(PartialEq, Eq, Debug)]
enum News {
    Begun,
    Ended { after: Duration },
}

impl Group {
    pub(super) fn look_for_leader(&mut self, now: Duration) {
        let has_leader = self.is_outside() || self.node.leader().is_some();
        match self.leaderless.look(now, has_leader) {
            None => {}
            Some(News::Begun) => tracing::warn!(
                role = self.node.role().name(),
                term = self.node.term(),
                "the masters have no leader: more than half of them must run and reach each other"
            ),
            Some(News::Ended { after }) => {
                tracing::info!(after_ms = after.as_millis(), "the masters have a leader again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_lack_of_a_leader_is_said_once_and_so_is_its_end() {
        let seconds = Duration::from_secs;
        let mut group = Leaderless::default();
        assert_eq!(group.look(seconds(1), false), None);
        assert_eq!(group.look(seconds(2), true), None, "an election");
        assert_eq!(group.look(seconds(5), false), None);
        assert_eq!(group.look(seconds(7), false), Some(News::Begun));
        assert_eq!(group.look(seconds(8), false), None);
        assert_eq!(group.look(seconds(9), true), Some(News::Ended { after: seconds(4) }));
        assert_eq!(group.look(seconds(10), true), None);
    }
}
