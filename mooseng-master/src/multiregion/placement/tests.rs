//! Choices: against all there are, on small topologies; and over many, how evenly servers fill.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const CHUNK: u64 = mooseng_types::CHUNK_SIZE;
const GIB: u64 = 1 << 30;

/// A server of a small world.
#[derive(Clone, Debug)]
struct Server {
    labels: Labels,
    places: [String; 3],
    free_bytes: u64,
    is_overloaded: bool,
    is_taken: bool,
}

impl Server {
    fn new(labels: &str, [region, rack, host]: [&str; 3], free_bytes: u64) -> Self {
        let list: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        Self {
            labels: Labels::parse(&list).unwrap(),
            places: [region.into(), rack.into(), host.into()],
            free_bytes,
            is_overloaded: false,
            is_taken: false,
        }
    }
}

fn candidate(at: usize, server: &Server) -> Candidate<'_> {
    let [region, rack, host] = &server.places;
    Candidate {
        server: ServerId::from_raw(at as u32),
        labels: &server.labels,
        region,
        rack,
        host,
        free_bytes: server.free_bytes,
        recently_given: 0,
        latency: None,
        is_overloaded: server.is_overloaded,
    }
}

/// Chooses among them for a goal.
fn choose_of(servers: &[Server], goal: &str, seed: u64) -> Choice {
    let goal = goal.parse().unwrap();
    let (taken, others): (Vec<_>, Vec<_>) =
        servers.iter().enumerate().partition(|(_, server)| server.is_taken);
    let all = |of: Vec<(usize, &'_ Server)>| of.into_iter().map(|(at, _)| at).collect::<Vec<_>>();
    let (taken, others) = (all(taken), all(others));
    let taken: Vec<_> = taken.into_iter().map(|at| candidate(at, &servers[at])).collect();
    let others: Vec<_> = others.into_iter().map(|at| candidate(at, &servers[at])).collect();
    let ask = Ask {
        goal: &goal,
        strictness: Strictness::Standard,
        candidates: &others,
        taken: &taken,
        writer: None,
        seed,
    };
    choose(&ask)
}

fn ids(choice: &Choice) -> Vec<u32> {
    let mut ids: Vec<u32> = choice.servers().iter().map(|server| server.raw()).collect();
    ids.sort_unstable();
    ids
}

/// How good an assignment is; the less, the better: copies without a server, copies that are not there yet, reluctant servers, then
/// pairs that share a region, a rack, a host.
type Badness = [usize; 6];

/// What `assigned` (copy to server) is worth, `None` if it may not be.
fn badness(servers: &[Server], goal: &Goal, assigned: &[Option<usize>]) -> Option<Badness> {
    let used: Vec<usize> = assigned.iter().flatten().copied().collect();
    let is_new = |server: &&usize| !servers[**server].is_taken;
    if used.iter().collect::<BTreeSet<_>>().len() < used.len() {
        return None;
    }
    for (copy, server) in assigned.iter().enumerate() {
        let Some(server) = server.map(|server| &servers[server]) else { continue };
        let is_usable = server.is_taken || server.free_bytes > 0 && !server.is_overloaded;
        if !is_usable || !goal.copies()[copy].matches(&server.labels) {
            return None;
        }
    }
    let new: Vec<usize> = used.iter().filter(is_new).copied().collect();
    let taken: Vec<usize> = (0..servers.len()).filter(|server| servers[*server].is_taken).collect();
    let share = |one: usize, other: usize, levels: usize| {
        servers[one].places[..levels] == servers[other].places[..levels]
    };
    let clash = |one: usize, other: usize| match goal.distinguish() {
        None => false,
        Some(mooseng_types::Distinguish::Region) => share(one, other, 1),
        Some(mooseng_types::Distinguish::Rack) => share(one, other, 2),
        Some(mooseng_types::Distinguish::Host) => share(one, other, 3),
        Some(listed) => {
            let label = |server: usize| listed.label_of(&servers[server].labels);
            label(one).is_none() || label(other).is_none() || label(one) == label(other)
        }
    };
    let alone = |server: &usize| match goal.distinguish() {
        Some(listed @ mooseng_types::Distinguish::Labels(_)) => {
            listed.label_of(&servers[*server].labels).is_some()
        }
        _ => true,
    };
    let labels = |server: &usize| {
        goal.distinguish().is_none_or(|listed| {
            !matches!(listed, mooseng_types::Distinguish::Labels(_))
                || listed.label_of(&servers[*server].labels).is_some()
        })
    };
    let pairs = |of: &[usize], with: &[usize]| -> Vec<(usize, usize)> {
        of.iter()
            .flat_map(|one| with.iter().map(|other| (*one, *other)))
            .filter(|(one, other)| one != other)
            .collect()
    };
    // A copy that is there and has none of the labels stands in nobody's way.
    let standing: Vec<usize> = taken.iter().filter(|server| labels(server)).copied().collect();
    if !used.iter().all(alone)
        || pairs(&used, &used).iter().any(|(one, other)| clash(*one, *other))
        || pairs(&new, &standing).iter().any(|(one, other)| clash(*one, *other))
    {
        return None;
    }
    let with_new: Vec<(usize, usize)> =
        pairs(&new, &new).into_iter().filter(|(one, other)| one < other).collect();
    let all: Vec<(usize, usize)> = with_new.into_iter().chain(pairs(&new, &taken)).collect();
    let by_labels = matches!(goal.distinguish(), Some(mooseng_types::Distinguish::Labels(_)));
    let sharing = |levels| {
        if by_labels { 0 } else { all.iter().filter(|(one, other)| share(*one, *other, levels)).count() }
    };
    let reluctant = new.iter().filter(|server| servers[**server].free_bytes < CHUNK).count();
    Some([assigned.len() - used.len(), new.len(), reluctant, sharing(1), sharing(2), sharing(3)])
}

/// The best of all assignments.
fn best(servers: &[Server], goal: &Goal, assigned: &mut Vec<Option<usize>>) -> Option<Badness> {
    if assigned.len() == goal.copies().len() {
        return badness(servers, goal, assigned);
    }
    let mut found = None;
    for server in (0..servers.len()).map(Some).chain([None]) {
        assigned.push(server);
        let this = best(servers, goal, assigned);
        assigned.pop();
        found = [found, this].into_iter().flatten().min();
    }
    found
}

fn servers() -> impl Strategy<Value = Vec<Server>> {
    let free = prop::sample::select(&[0, CHUNK / 2, GIB, 3 * GIB][..]);
    let place = || prop::sample::select(&["", "1", "2"][..]);
    let labels = prop::sample::select(&["", "A", "B", "A,B", "A,B,X", "X", "B,Y"][..]);
    let server = (labels, place(), place(), place(), free, 0u8..8).prop_map(
        |(labels, region, rack, host, free, state)| Server {
            is_overloaded: state == 0,
            is_taken: state == 1,
            ..Server::new(labels, [region, rack, host], free)
        },
    );
    vec(server, 1..6)
}

const GOALS: [&str; 15] = [
    "*",
    "2",
    "3",
    "A",
    "A,B",
    "A,B,*",
    "2A,B",
    "AB,A,B",
    "A+X,B,*",
    "2!A",
    "3/[RACK]",
    "2B/[IP]",
    "A,*/[REGION]",
    "3/XY",
    "2/ABX",
];

fn goals() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&GOALS[..])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn no_choice_is_better_than_the_one_that_is_made(servers in servers(), text in goals(), seed: u64) {
        let choice = choose_of(&servers, &format!("{text}:strict"), seed);
        let goal: Goal = text.parse().unwrap();
        let mut assigned = vec![None; goal.copies().len()];
        for placed in choice.placed.iter().chain(&choice.kept) {
            prop_assert_eq!(assigned[placed.copy].replace(placed.server.raw() as usize), None);
        }
        prop_assert_eq!(badness(&servers, &goal, &assigned), best(&servers, &goal, &mut Vec::new()));
        prop_assert_eq!(choice.missing.len(), assigned.iter().filter(|server| server.is_none()).count());
    }

    /// Copies go to any server rather than nowhere, and what is there is not given a second time.
    #[test]
    fn what_is_missing_is_added_and_nothing_else(mut servers in servers(), text in goals(), seed: u64) {
        servers.iter_mut().for_each(|server| server.is_overloaded = false);
        let copies = text.parse::<Goal>().unwrap().copies().len();
        let first = choose_of(&servers, text, seed);
        let with_room = servers.iter().filter(|server| server.is_taken || server.free_bytes > 0).count();
        prop_assert_eq!(first.placed.len() + first.kept.len(), copies.min(with_room));
        for placed in first.servers() {
            servers[placed.raw() as usize].is_taken = true;
        }
        let again = choose_of(&servers, text, seed.wrapping_add(1));
        let is_done = first.placed.iter().all(|placed| placed.is_right);
        prop_assert!(!is_done || again.placed.is_empty());
        prop_assert!(again.placed.iter().all(|placed| placed.is_right), "a second time only for the better");
        servers.push(Server::new("A,B,X,Y", ["3", "3", "3"], GIB));
        let after_a_new_one = choose_of(&servers, text, seed);
        let was_complete = first.missing.is_empty();
        prop_assert!(!was_complete || after_a_new_one.placed.iter().all(|placed| placed.is_right));
        prop_assert!(!is_done || after_a_new_one.placed.len() <= 1);
    }
}

/// How many of many copies each server gets, in parts of what it should get.
fn check_balance(servers: &[Server], goal: &str, wanted: &[f64]) {
    const PLACEMENTS: u64 = 100_000;
    let mut given = vec![0.0; servers.len()];
    let mut copies = 0.0;
    for seed in 0..PLACEMENTS {
        for server in ids(&choose_of(servers, goal, seed)) {
            given[server as usize] += 1.0;
            copies += 1.0;
        }
    }
    let sum: f64 = wanted.iter().sum();
    for (server, wanted) in wanted.iter().enumerate() {
        let ratio = given[server] / (copies * wanted / sum);
        assert!((0.95..1.05).contains(&ratio), "{goal}: server {server} got {ratio} of its part");
    }
}

fn flat(sizes: &[u64]) -> Vec<Server> {
    let server = |(at, size): (usize, &u64)| Server::new("", ["", "", &format!("h{at}")], size * GIB);
    sizes.iter().enumerate().map(server).collect()
}

#[test]
fn copies_are_in_proportion_to_free_space() {
    let sizes = [10, 10, 20, 30, 15, 25];
    let wanted = sizes.map(|size| size as f64);
    for goal in ["*", "2", "3"] {
        check_balance(&flat(&sizes), goal, &wanted);
    }
}

#[test]
fn racks_of_different_size_get_one_copy_each_and_their_servers_their_part() {
    let sizes = [("1", 10), ("1", 30), ("2", 20), ("3", 5), ("3", 5), ("3", 10)];
    let server =
        |(at, (rack, size)): (usize, &(&str, u64))| Server::new("", ["", rack, &at.to_string()], size * GIB);
    let servers: Vec<Server> = sizes.iter().enumerate().map(server).collect();
    check_balance(&servers, "3", &[0.25, 0.75, 1.0, 0.25, 0.25, 0.5]);
    check_balance(&servers, "2", &[0.25, 0.75, 0.5, 0.125, 0.125, 0.25]);
}

#[test]
fn labels_leave_each_kind_of_server_its_part() {
    let kinds = [("A", 10), ("A", 30), ("B", 5), ("B", 10), ("B", 5)];
    let server = |(at, (label, size)): (usize, &(&str, u64))| {
        Server::new(label, ["", "", &at.to_string()], size * GIB)
    };
    let servers: Vec<Server> = kinds.iter().enumerate().map(server).collect();
    check_balance(&servers, "A,B", &[0.25, 0.75, 0.25, 0.5, 0.25]);
}

#[test]
fn servers_of_different_size_are_full_together() {
    let sizes = [200_u64, 300, 400, 600, 500];
    let mut servers = flat(&sizes);
    // 1,000 GiB of 2,000.
    for seed in 0..8_000 {
        for server in ids(&choose_of(&servers, "2", seed)) {
            servers[server as usize].free_bytes -= CHUNK;
        }
    }
    for (server, size) in servers.iter().zip(sizes) {
        let filled = 1.0 - server.free_bytes as f64 / (size * GIB) as f64;
        assert!((0.475..0.525).contains(&filled), "{filled} of {size} GiB");
    }
}

#[test]
fn a_server_that_was_just_given_much_or_is_slow_is_spared() {
    let servers = flat(&[1, 1]);
    let plain: Vec<_> = servers.iter().enumerate().map(|(at, server)| candidate(at, server)).collect();
    let given = Candidate { recently_given: 40, ..plain[0] };
    let slow = Candidate { latency: Some(Duration::from_millis(380)), ..plain[0] };
    for spared in [given, slow] {
        let candidates = [spared, plain[1]];
        let goal = Goal::any(1);
        let ask = |seed| Ask {
            goal: &goal,
            strictness: Strictness::Standard,
            candidates: &candidates,
            taken: &[],
            writer: None,
            seed,
        };
        let first = (0..1000).filter(|seed| choose(&ask(*seed)).servers() == [spared.server]).count();
        assert!(first < 70, "{first}");
    }
}

#[test]
fn labels_are_taken_as_strictly_as_is_said() {
    let place = |host| ["", "", host];
    let right = Server::new("A", place("1"), GIB);
    let other = Server::new("B", place("2"), GIB);
    let full = Server { free_bytes: 0, ..right.clone() };
    let busy = Server { is_overloaded: true, ..right.clone() };
    // Which server takes the copy, and whether it has to wait.
    for (first, goal, chosen, must_wait) in [
        (&right, "A:std", vec![0], false),
        (&busy, "A:std", vec![], true),
        (&busy, "A:strict", vec![], true),
        (&busy, "A:loose", vec![1], false),
        (&full, "A:std", vec![1], false),
        (&full, "A:strict", vec![], false),
        (&full, "A:loose", vec![1], false),
        (&busy, "*", vec![1], false),
    ] {
        let choice = choose_of(&[first.clone(), other.clone()], goal, 1);
        assert_eq!((ids(&choice), choice.must_wait), (chosen, must_wait), "{goal} {first:?}");
    }
    let only_busy = choose_of(&[busy], "A:loose", 1);
    assert_eq!((ids(&only_busy), only_busy.must_wait), (vec![0], false));
}

#[test]
fn what_could_not_be_had_is_said() {
    let full = Server::new("A", ["eu", "r1", "h1"], 0);
    let servers =
        [full, Server::new("B", ["eu", "r2", "h2"], GIB), Server::new("B", ["eu", "r2", "h3"], GIB)];
    let choice = choose_of(&servers, "A,C,2B:strict", 3);
    let said: Vec<String> = choice.missing.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "copy 1 (A): of 1 such servers 1 are full and 0 have too much to do",
            "copy 2 (C): no server that is up has such labels",
        ]
    );
    let said: Vec<String> = choice.crowded.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "region eu has all 2 of 2 copies: it is the only region",
            "rack r2 has all 2 of 2 copies: of 2 racks only 1 have a server that is right and has room",
        ]
    );
    let apart = choose_of(&servers, "2B/[RACK]:strict", 3);
    assert_eq!(
        apart.missing[0].to_string(),
        "copy 2 (B): the 2 such servers are needed for other copies, or share what [RACK] keeps apart"
    );
}

#[test]
fn the_chain_begins_near_the_writer() {
    let servers = [
        Server::new("", ["us", "r9", "h1"], GIB),
        Server::new("", ["eu", "r1", "h2"], GIB),
        Server::new("", ["us", "r3", "h3"], GIB),
        Server::new("", ["us", "r9", "h4"], GIB),
    ];
    let candidates: Vec<_> = servers.iter().enumerate().map(|(at, server)| candidate(at, server)).collect();
    let (goal, writer) = (Goal::any(4), Place { region: "us", rack: "r9", host: "h4" });
    let ask = |seed| Ask {
        goal: &goal,
        strictness: Strictness::Standard,
        candidates: &candidates,
        taken: &[],
        writer: Some(writer),
        seed,
    };
    for seed in 0..20 {
        assert_eq!(choose(&ask(seed)).servers(), [3, 0, 2, 1].map(ServerId::from_raw));
    }
}
