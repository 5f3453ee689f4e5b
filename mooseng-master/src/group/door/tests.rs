//! Knocks, and who may tell of a later group.

use super::super::GroupConfig;
use super::super::testing::{NOW, config, group, voter};
use super::*;
use crate::raft::{LogEntry, Message};

fn knock(group: &mut Group, number: u16, lost_group: bool) {
    let id = MasterId::new(number, 7);
    let (name, address) = (format!("m{number}"), format!("m{number}:1"));
    group.hear_knock(NOW.mono, Join { id, name, address, lost_group });
}

#[test]
fn only_a_master_where_one_is_known_to_be_tells_of_a_later_group_or_a_lost_log() {
    let in_group = || {
        let mut it = group(config(3), Recovered::default());
        it.members = Membership { epoch: 1, members: (1..=3).map(voter).collect() };
        it
    };
    let stranger = Greeting {
        number: 2,
        address: "elsewhere:1".into(),
        epoch: 9,
        acknowledged: [(CellId::ROOT, Acknowledged { index: 50, term: 9 })].into(),
        had: [(CellId::ROOT, 40)].into(),
    };
    let mut it = in_group();
    it.greeted(&stranger);
    it.doubt_epoch(99);
    it.hear(NOW.mono, PeerMessages { epoch: 99, ..PeerMessages::of(CellId::ROOT) });
    let view = View { epoch: 99, index: u64::MAX, members: Vec::new() };
    it.hear_view(&view);
    assert!(!it.door.removed);
    let known = Greeting { address: "m2:1".into(), ..stranger };
    it.greeted(&Greeting {
        epoch: 1,
        acknowledged: [(CellId::ROOT, Acknowledged { index: 40, term: 9 })].into(),
        ..known.clone()
    });
    assert!(!it.door.removed, "it has what it had acknowledged");
    let lost = |it: &mut Group| it.take_effects().iter().any(|it| matches!(it, Effect::LostLog(_)));
    it.greeted(&Greeting { epoch: 1, ..known.clone() });
    assert!(it.door.removed && lost(&mut it));
    let mut it = in_group();
    it.greeted(&known);
    assert!(it.door.removed && !lost(&mut it));
}

#[test]
fn entries_that_nobody_could_apply_do_not_get_into_the_log() {
    let members = (1..=3).map(MasterId::from_raw);
    let member =
        |id| Member { id, name: String::new(), address: String::new(), voter: true, wants_vote: true };
    let hard_state = HardState { term: 1, vote: 0, commit: 0 };
    let mut it = group(config(3), Recovered { hard_state, ..Recovered::default() });
    it.members = Membership { epoch: 1, members: members.map(member).collect() };
    let mut append = |kind: u8, data: &'static [u8]| {
        let entry = LogEntry { kind, term: 1, index: 1, data: data.into() };
        let message =
            Message { kind: 3, to: 1, from: 2, term: 1, entries: vec![entry], ..Default::default() };
        it.hear(NOW.mono, PeerMessages { messages: vec![message], ..PeerMessages::of(CellId::ROOT) });
        it.node.last_index()
    };
    assert_eq!((append(0, b"nonsense"), append(1, b""), append(1, b"nonsense")), (0, 0, 0));
    assert_eq!(append(0, b""), 1);
}

#[test]
fn masters_that_all_ask_found_a_group_unless_one_of_them_had_one() {
    let mut new = group(config(3), Recovered::default());
    knock(&mut new, 2, false);
    new.keep_group(NOW.mono);
    assert!(!new.door.founding, "the third may know of a group");
    knock(&mut new, 3, true);
    new.keep_group(NOW.mono);
    assert!(!new.door.founding, "what the third had must not be replaced by nothing");
    knock(&mut new, 3, false);
    new.keep_group(NOW.mono);
    assert!(new.door.founding);
    let mut damaged = group(GroupConfig { lost_group: true, ..config(3) }, Recovered::default());
    knock(&mut damaged, 2, false);
    knock(&mut damaged, 3, false);
    damaged.keep_group(NOW.mono);
    assert!(!damaged.door.founding);
}
