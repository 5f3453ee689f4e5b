//! Which servers get the copies of a chunk: a pure function over what is known of the servers.
//!
//! Each copy goes to another server, one with room for a whole chunk if there are enough of them, so that a chunk
//! seldom finds its disk full while it grows. Among those the choice is random, weighted by free space, so that servers
//! fill evenly and no two new chunks flock to the emptiest one. (The chunkserver decides which of its disks
//! takes the copy.)

use mooseng_types::{CHUNK_SIZE, ServerId};

/// A server that could take a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Which.
    pub server: ServerId,
    /// Bytes that it can still take, its reserve not counted.
    pub free_bytes: u64,
    /// Copies given to it since it last told its free space.
    pub recently_given: u64,
}

/// Picks up to `copies` servers out of `candidates`, leaving out those without room. Fewer come back where there are
/// fewer: a chunk with one copy is better than an error. `seed` makes the choice
/// repeatable.
#[must_use]
pub fn place(candidates: &[Candidate], copies: usize, mut seed: u64) -> Vec<ServerId> {
    let roomy = candidates.iter().filter(|c| c.free_bytes >= CHUNK_SIZE).count() >= copies;
    let enough = if roomy { CHUNK_SIZE } else { 1 };
    let mut left: Vec<(ServerId, u64)> =
        candidates.iter().filter(|c| c.free_bytes >= enough).map(|c| (c.server, weight(c))).collect();
    let mut chosen = Vec::with_capacity(copies);
    while chosen.len() < copies && !left.is_empty() {
        let total: u64 = left.iter().map(|(_, weight)| weight).sum();
        seed = next(seed);
        let mut ticket = seed % total.max(1);
        let winner = left
            .iter()
            .position(|(_, weight)| {
                let hit = ticket < *weight;
                ticket = ticket.saturating_sub(*weight);
                hit
            })
            .unwrap_or(0);
        chosen.push(left.swap_remove(winner).0);
    }
    chosen
}

/// Free MiB, halved for every four copies given since the server spoke last; at least 1.
fn weight(candidate: &Candidate) -> u64 {
    let halvings = u32::try_from(candidate.recently_given / 4).unwrap_or(u32::MAX).min(20);
    ((candidate.free_bytes >> 20) >> halvings).clamp(1, 1 << 40)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn next(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u32, free_mib: u64) -> Candidate {
        Candidate { server: ServerId::from_raw(id), free_bytes: free_mib << 20, recently_given: 0 }
    }

    #[test]
    fn copies_go_to_different_servers_with_room() {
        let servers = [server(1, 1000), server(2, 0), server(3, 10), server(4, 500)];
        for seed in 0..200 {
            let mut chosen = place(&servers, 3, seed);
            chosen.sort();
            assert_eq!(chosen, [1, 3, 4].map(ServerId::from_raw));
            assert_eq!(place(&servers, 2, seed).len(), 2);
        }
        assert_eq!(place(&servers[1..2], 2, 1), []);
        let two: Vec<_> = (0..200).flat_map(|seed| place(&servers, 2, seed)).collect();
        assert!(!two.contains(&ServerId::from_raw(3)), "two others have room for a whole chunk");
    }

    #[test]
    fn servers_fill_in_proportion_to_their_room() {
        let servers = [server(1, 1000), server(2, 3000)];
        let first = (0..4000).filter(|seed| place(&servers, 1, *seed)[0] == ServerId::from_raw(1)).count();
        assert!(
            (800..1200).contains(&first),
            "{first} of 4000 went to the server with a quarter of the room"
        );
    }

    #[test]
    fn a_server_that_was_just_given_much_is_spared() {
        let busy = Candidate { recently_given: 40, ..server(1, 1000) };
        let first =
            (0..1000).filter(|seed| place(&[busy, server(2, 1000)], 1, *seed)[0] == busy.server).count();
        assert!(first < 50, "{first}");
    }
}
