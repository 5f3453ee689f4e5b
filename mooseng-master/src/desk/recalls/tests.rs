//! How often a lease is recalled, and what an acknowledgement counts for.

use mooseng_protocol::frame::Header;
use mooseng_protocol::principal::Role;
use mooseng_protocol::rpc::Rpc as _;
use prost::Message as _;

use super::*;
use crate::core::testing::{Leader, framed, number, principal};
use crate::desk::tests::leases::{grant, held, release};

/// What was recalled since the last look, and over which connection.
fn recalled(leader: &mut Leader) -> Vec<(u64, Recall)> {
    let pushed = std::mem::take(&mut leader.pushed).into_iter();
    let recalls = pushed.filter(|(_, frame)| frame.header.kind == pb::Recall::KIND);
    let recall = |body| Recall::try_from(pb::Recall::decode(body).unwrap()).unwrap();
    recalls.map(|(conn, frame)| (number(conn), recall(frame.body))).collect()
}

/// The lease of [`held`] is wanted by the second session; the recall.
fn wanted() -> (Leader, u64, Recall) {
    let (mut leader, inode, _) = held();
    assert_eq!(leader.send(2, 7, &grant(2, 1, inode)), []);
    let recalls = recalled(&mut leader);
    let [(1, recall)] = recalls[..] else { panic!("{recalls:?}") };
    let what = Recalled::Chunk { inode: InodeId::from_raw(inode), index: ChunkIndex::from_raw(0) };
    assert_eq!((recall.session, recall.what), (SessionId::from_raw(1), what));
    (leader, inode, recall)
}

fn acknowledge(leader: &mut Leader, conn: u64, session: u64, recall: Recall) {
    leader.ask(conn, &pb::AcknowledgeRecallRequest { session, number: recall.number }).unwrap();
}

#[test]
fn a_recall_that_was_acknowledged_is_sent_again_only_if_the_lease_is_still_held_after_a_long_time() {
    let (mut leader, inode, recall) = wanted();
    acknowledge(&mut leader, 1, 1, recall);
    let mut passed = Duration::ZERO;
    let again = loop {
        leader.pass(AGAIN);
        passed += AGAIN;
        // Its sender asks again when it was refused.
        leader.send(2, 7, &grant(2, 1, inode));
        let recalls = recalled(&mut leader);
        if !recalls.is_empty() {
            break recalls;
        }
        assert!(passed < Duration::from_secs(10), "it is forgotten");
    };
    assert_eq!(again, [(1, recall)], "the same one");
    assert!(passed >= AGAIN_ACKNOWLEDGED, "{passed:?}");
    leader.pass(AGAIN);
    assert_eq!(recalled(&mut leader), [(1, recall)], "it has to be acknowledged anew");
}

#[test]
fn a_recall_that_was_not_acknowledged_is_sent_again_soon() {
    let (mut leader, _, recall) = wanted();
    leader.pass(AGAIN / 2);
    assert_eq!(recalled(&mut leader), []);
    leader.pass(AGAIN / 2);
    assert_eq!(recalled(&mut leader), [(1, recall)]);
}

#[test]
fn a_new_connection_of_the_session_gets_at_once_what_was_not_acknowledged() {
    let (mut leader, _, recall) = wanted();
    let resume = pb::ResumeSessionRequest { session: 1, ..Default::default() };
    leader.ask(1, &resume).unwrap();
    assert_eq!(recalled(&mut leader), [], "it is the old one");
    let now = leader.now;
    leader.core.closed(now, framed(1));
    leader.ask(11, &resume).unwrap();
    assert_eq!(recalled(&mut leader), [(11, recall)]);
    acknowledge(&mut leader, 11, 1, recall);
    leader.ask(12, &resume).unwrap();
    assert_eq!(recalled(&mut leader), [], "the client has it in its queue");
}

#[test]
fn an_acknowledgement_of_somebody_elses_recall_counts_for_nothing() {
    let (mut leader, _, recall) = wanted();
    acknowledge(&mut leader, 2, 2, recall);
    acknowledge(&mut leader, 2, 1, recall);
    acknowledge(&mut leader, 1, 1, Recall { number: recall.number + 1, ..recall });
    leader.pass(AGAIN);
    assert_eq!(recalled(&mut leader), [(1, recall)]);
    let stranger = Principal { client: Some([9; 16]), ..principal(Role::Client) };
    let header = Header { kind: pb::AcknowledgeRecallRequest::KIND, request: 3, ..Header::default() };
    let request = pb::AcknowledgeRecallRequest { session: 1, number: recall.number };
    let answers = leader.send_as(&stranger, 1, header, &request);
    let refused = Leader::read::<pb::AcknowledgeRecallRequest>(&answers[0].1);
    assert!(matches!(refused, Err(CallError::Rejected { .. })), "{refused:?}");
    leader.pass(AGAIN);
    assert_eq!(recalled(&mut leader), [(1, recall)]);
}

#[test]
fn a_recall_is_over_when_the_lease_has_moved_and_the_next_one_has_a_higher_number() {
    let (mut leader, inode, recall) = wanted();
    leader.send(1, 9, &release(1, 3, inode));
    assert!(leader.core.desk.cell(CellId::ROOT).recalls.out.is_empty());
    assert_eq!(leader.send(3, 8, &grant(3, 1, inode)), []);
    let recalls = recalled(&mut leader);
    let [(2, next)] = recalls[..] else { panic!("{recalls:?}") };
    assert!(next.number > recall.number && next.session == SessionId::from_raw(2));
    leader.send(2, 10, &pb::CloseSessionRequest { meta: grant(2, 2, inode).meta });
    assert!(leader.core.desk.cell(CellId::ROOT).recalls.out.is_empty(), "so it is with the session");
}

#[test]
fn numbers_rise_from_one_leader_to_the_next() {
    let (mut first, mut second) = (Recalls::default(), Recalls::default());
    let numbers = |recalls: &mut Recalls, term| {
        recalls.end();
        recalls.begin(term);
        ask_for(recalls, 3, Duration::ZERO);
        let due = recalls.due(Duration::ZERO, |_| Some(framed(1)));
        due.iter().map(|(_, recall)| recall.number).collect::<Vec<_>>()
    };
    let all = [numbers(&mut first, 4), numbers(&mut second, 5), numbers(&mut first, 6)].concat();
    assert!(all.len() == 9 && all.is_sorted_by(|a, b| a < b), "{all:?}");
}

/// Somebody waits for the leases of so many files; how many of them nobody had waited for.
fn ask_for(recalls: &mut Recalls, files: u64, now: Duration) -> usize {
    let what = |file| Recalled::Chunk { inode: InodeId::from_raw(file), index: ChunkIndex::from_raw(0) };
    (1..=files).filter(|file| recalls.want(what(*file), SessionId::from_raw(1), now)).count()
}

#[test]
fn recalls_have_a_bound_and_what_nobody_asks_for_any_more_makes_room() {
    let mut recalls = Recalls::default();
    assert_eq!(ask_for(&mut recalls, 2 * RECALLS_MAX as u64, Duration::ZERO), RECALLS_MAX);
    assert_eq!(ask_for(&mut recalls, 1, AGAIN_ACKNOWLEDGED / 2), 0);
    recalls.forget_unwanted(AGAIN_ACKNOWLEDGED);
    assert_eq!(recalls.out.len(), 1);
}
