//! Servers by chance, so that they fill evenly: each gets copies in proportion to what it weighs, as far as failure domains
//! permit, and no two new chunks flock to the emptiest one.
//!
//! `copies` are first shared out over the regions, in proportion to what their servers weigh and with no more to one than the
//! others leave to it; then over the racks of each, the hosts, the servers. So each server has a share of at most one copy. The
//! shares are laid on a line, one beside the other in an order that keeps each domain together and is otherwise by chance, and a
//! copy goes where every whole number falls, from a random start: systematic sampling with unequal probabilities (Madow 1949). Of
//! any number of copies each server gets exactly its share on average, which drawing one after the other would not give.

use mooseng_types::CHUNK_SIZE;

use super::dice::Dice;
use super::domains::DomainIds;
use super::{Candidate, network};

/// Below the regions, racks and hosts there are the servers.
const SERVERS: usize = 3;

/// A server that can be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) server: usize,
    pub(super) domains: DomainIds,
    pub(super) weight: f64,
}

/// Free MiB, halved for every four copies given since the server spoke last, and less for a slow one; at least 1.
pub(super) fn weight(candidate: &Candidate<'_>) -> f64 {
    let halvings = u32::try_from(candidate.recently_given / 4).unwrap_or(u32::MAX).min(20);
    let room = ((candidate.free_bytes >> 20) >> halvings).clamp(1, 1 << 40);
    (room as f64 * network::speed(candidate.latency)).max(1.0)
}

/// Whether a whole chunk finds room, so that it does not find its disk full while it grows.
pub(super) fn has_room_for_a_chunk(candidate: &Candidate<'_>) -> bool {
    candidate.free_bytes >= CHUNK_SIZE
}

/// Draws servers for so many copies, all different. Fewer if there are fewer.
pub(super) fn draw(tickets: &[Ticket], copies: usize, dice: &mut Dice) -> Vec<usize> {
    let copies = copies.min(tickets.len());
    let mut shares = Vec::with_capacity(tickets.len());
    share_out(tickets.to_vec(), copies as f64, 0, dice, &mut shares);
    let mut chosen = Vec::with_capacity(copies);
    let mut sum = dice.unit();
    for (server, share) in shares {
        let before = sum.floor();
        sum += share;
        if sum.floor() > before && chosen.len() < copies {
            chosen.push(server);
        }
    }
    chosen
}

/// All of them, the heavier the likelier in front (Efraimidis, Spirakis 2006).
pub(super) fn order(tickets: &[Ticket], dice: &mut Dice) -> Vec<usize> {
    let key = |ticket: &Ticket, unit: f64| -(1.0 - unit).ln() / ticket.weight;
    let mut keyed: Vec<(f64, usize)> =
        tickets.iter().map(|ticket| (key(ticket, dice.unit()), ticket.server)).collect();
    keyed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    keyed.into_iter().map(|(_, server)| server).collect()
}

/// Shares out copies among servers of one domain, by the domains of the level below it.
fn share_out(
    mut tickets: Vec<Ticket>,
    copies: f64,
    level: usize,
    dice: &mut Dice,
    shares: &mut Vec<(usize, f64)>,
) {
    let id = |ticket: &Ticket| if level == SERVERS { ticket.server } else { ticket.domains[level] };
    tickets.sort_by_key(id);
    let mut groups: Vec<Vec<Ticket>> =
        tickets.chunk_by(|one, other| id(one) == id(other)).map(<[_]>::to_vec).collect();
    dice.shuffle(&mut groups);
    let weights: Vec<f64> =
        groups.iter().map(|group| group.iter().map(|ticket| ticket.weight).sum()).collect();
    let sizes: Vec<f64> = groups.iter().map(|group| group.len() as f64).collect();
    for (group, share) in groups.into_iter().zip(fill(&weights, &sizes, copies)) {
        match group.as_slice() {
            [one] => shares.push((one.server, share.min(1.0))),
            _ => share_out(group, share, level + 1, dice, shares),
        }
    }
}

/// Shares in proportion to the weights. None is above its size, nor above what it would have if all shares were alike, rounded
/// up, unless the sizes of others leave it more.
fn fill(weights: &[f64], sizes: &[f64], copies: f64) -> Vec<f64> {
    let mut most = (copies / weights.len().max(1) as f64).ceil().max(1.0);
    while most < copies && sizes.iter().map(|size| size.min(most)).sum::<f64>() < copies {
        most += 1.0;
    }
    let mut shares = vec![0.0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).collect();
    let mut left = copies;
    loop {
        let weight: f64 = open.iter().map(|at| weights[*at]).sum();
        let scale = left / weight;
        let limit = |at: &usize| sizes[*at].min(most);
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|at| weights[**at] * scale >= limit(at));
        if full.is_empty() || rest.is_empty() {
            open.iter().for_each(|at| shares[*at] = (weights[*at] * scale).min(limit(at)));
            return shares;
        }
        for at in full {
            shares[at] = limit(&at);
            left -= shares[at];
        }
        open = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_in_proportion_and_no_more_than_one_may_have() {
        assert_eq!(fill(&[1.0, 3.0], &[1.0, 1.0], 1.0), [0.25, 0.75]);
        assert_eq!(fill(&[1.0, 1.0, 8.0], &[1.0, 1.0, 1.0], 2.0), [0.5, 0.5, 1.0]);
        assert_eq!(fill(&[1.0, 9.0], &[5.0, 5.0], 3.0), [1.0, 2.0]);
        assert_eq!(fill(&[1.0, 9.0], &[5.0, 1.0], 3.0), [2.0, 1.0]);
        assert_eq!(fill(&[5.0], &[3.0], 2.0), [2.0]);
    }
}
