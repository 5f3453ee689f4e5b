//! Whether a chunkserver is there, and how long it has not been.

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_types::ServerId;

use super::Limits;

/// A chunkserver, for repair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Standing {
    /// It is there, and what it has told of its copies is complete.
    Serving,
    /// It is not, but may come back at any moment.
    Away,
    /// It has been away for longer than a chunk in danger waits.
    Missed,
    /// It has been away for so long that its copies are made anew.
    Gone,
}

/// What this leader has last seen of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// It is there and has told of all its copies.
    pub(crate) serving: bool,
    /// When it last spoke to this master.
    pub(crate) heard: Option<Duration>,
    /// It is in maintenance: nobody wonders that it is away.
    pub(crate) excused: bool,
}

impl Standing {
    /// Silence counts from the beginning of this leader's time at the earliest: before, the server spoke to another.
    pub(crate) fn of(seen: Seen, now: Duration, led_since: Duration, limits: &Limits) -> Self {
        let silent = now.saturating_sub(seen.heard.map_or(led_since, |heard| heard.max(led_since)));
        match silent {
            _ if seen.serving => Self::Serving,
            _ if seen.excused => Self::Away,
            silent if silent >= limits.patience => Self::Gone,
            silent if silent >= limits.patience_in_danger => Self::Missed,
            _ => Self::Away,
        }
    }
}

/// How all servers stand.
#[derive(Debug, Default)]
pub(crate) struct Standings(BTreeMap<ServerId, Standing>);

impl Standings {
    /// How a server stands. One that nobody has ever seen is away.
    pub(crate) fn of(&self, server: ServerId) -> Standing {
        self.0.get(&server).copied().unwrap_or(Standing::Away)
    }

    /// How many are not serving.
    pub(crate) fn away(&self) -> usize {
        self.0.values().filter(|standing| **standing != Standing::Serving).count()
    }

    /// Takes in how all of them stand now; returns those for which that is news.
    pub(crate) fn follow(&mut self, now: impl Iterator<Item = (ServerId, Standing)>) -> Vec<ServerId> {
        let before = std::mem::replace(&mut self.0, now.collect());
        let is_news = |(server, standing): &(&ServerId, &Standing)| before.get(server) != Some(standing);
        self.0.iter().filter(is_news).map(|(server, _)| *server).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_given_up_only_after_a_silence_in_this_leaders_own_time() {
        let limits = Limits::default();
        let at = Duration::from_secs;
        let standing = |serving, heard: Option<u64>, now| {
            let seen = Seen { serving, heard: heard.map(at), excused: false };
            Standing::of(seen, at(now), at(100), &limits)
        };
        assert_eq!(standing(true, Some(1), 500), Standing::Serving);
        assert_eq!(standing(false, Some(1), 101), Standing::Away, "it spoke to the leader before");
        assert_eq!(standing(false, None, 107), Standing::Away);
        assert_eq!(standing(false, None, 108), Standing::Missed);
        assert_eq!(standing(false, Some(120), 149), Standing::Missed);
        assert_eq!(standing(false, Some(120), 150), Standing::Gone);
        let excused = Seen { serving: false, heard: None, excused: true };
        assert_eq!(Standing::of(excused, at(9999), at(100), &limits), Standing::Away);
    }

    #[test]
    fn only_servers_that_stand_otherwise_than_before_are_news() {
        let mut standings = Standings::default();
        let [one, two] = [1, 2].map(ServerId::from_raw);
        let follow =
            |standings: &mut Standings, list: &[(ServerId, Standing)]| standings.follow(list.iter().copied());
        assert_eq!(standings.of(one), Standing::Away);
        assert_eq!(follow(&mut standings, &[(one, Standing::Serving), (two, Standing::Away)]), [one, two]);
        assert_eq!(follow(&mut standings, &[(one, Standing::Serving), (two, Standing::Missed)]), [two]);
        assert_eq!(
            (follow(&mut standings, &[(one, Standing::Serving)]), standings.away()),
            (vec![], 0),
            "one is forgotten"
        );
    }
}
