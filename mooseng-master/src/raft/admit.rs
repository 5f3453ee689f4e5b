//! Which messages of a peer reach the consensus core.
//!
//! The core trusts its peers: a message that no correct peer sends may make it index past a list or overflow a counter,
//! which ends the process. What makes no sense in itself is refused here, and so is what contradicts *this* log, such as
//! a commit index beyond its end. That a stranger may say; or this log was lost in part, which is found out elsewhere, by
//! asking the leader (`group/door.rs`), because nobody may end a master by a message.

use std::collections::BTreeSet;

use mooseng_protocol::convert::BadMessage;
use raft::eraftpb::{self, EntryType, MessageType};

/// Terms and indexes are counted up one by one, so none comes near this; beyond it, sums of them could overflow.
const COUNTER_MAX: u64 = 1 << 62;

/// So many elections nobody has missed. (A group that is made anew goes on 2^32 terms later, which only a master without
/// a log hears of.) A stranger that could name any term would use them up.
const TERM_LEAP_MAX: u64 = 1 << 31;

/// Says what is wrong with a message to `own`. Whoever sends it need not be a member as far as this log knows: it may
/// lack the entry that made the sender one, and the core counts members' answers only.
pub(super) fn check(message: &eraftpb::Message, own: u64) -> Result<(), BadMessage> {
    check_counters(message, own)?;
    // Everything that our peers send here. A snapshot comes with its rows, on a way of its own.
    match message.msg_type {
        MessageType::MsgAppend => check_append(message),
        MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => {
            if message.entries.is_empty() {
                Ok(())
            } else {
                Err(BadMessage { field: "entries" })
            }
        }
        _ => Err(BadMessage { field: "kind" }),
    }
}

/// Says how a message contradicts a log that ends at `last`, of a master in `term`.
pub(super) fn check_against(message: &eraftpb::Message, term: u64, last: u64) -> Result<(), BadMessage> {
    let bad = |field| Err(BadMessage { field });
    if last > 0 && message.term > term.saturating_add(TERM_LEAP_MAX) {
        return bad("term");
    }
    match message.msg_type {
        // A leader names no more than what the receiver has acknowledged to it in this term.
        MessageType::MsgHeartbeat if message.term >= term && message.commit > last => bad("commit"),
        // Nobody acknowledges what the leader does not have.
        MessageType::MsgAppendResponse if message.term == term && message.index > last => bad("index"),
        _ => Ok(()),
    }
}

/// Says what is wrong with the message of a snapshot.
pub(super) fn check_snapshot(message: &eraftpb::Message, own: u64) -> Result<(), BadMessage> {
    let bad = |field| Err(BadMessage { field });
    check_counters(message, own)?;
    if message.msg_type != MessageType::MsgSnapshot || !message.entries.is_empty() {
        return bad("kind");
    }
    let metadata = message.get_snapshot().get_metadata();
    let state = metadata.get_conf_state();
    let counted = (1..=COUNTER_MAX).contains(&metadata.index) && (1..=message.term).contains(&metadata.term);
    let members: BTreeSet<u64> = state.voters.iter().chain(&state.learners).copied().collect();
    let distinct = members.len() == state.voters.len() + state.learners.len() && !members.contains(&0);
    match () {
        () if !counted => bad("snapshot"),
        () if !distinct || state.voters.is_empty() || !members.contains(&own) => bad("voters"),
        () => Ok(()),
    }
}

fn check_counters(message: &eraftpb::Message, own: u64) -> Result<(), BadMessage> {
    let bad = |field| Err(BadMessage { field });
    if message.to != own {
        return bad("to");
    }
    if message.from == own || message.from == 0 {
        return bad("from");
    }
    let counters = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ];
    // Nobody here asks for a snapshot by a message: the leader sees who needs one.
    if message.request_snapshot != 0 {
        return bad("request_snapshot");
    }
    if message.term == 0 || counters.iter().any(|counter| *counter > COUNTER_MAX) {
        return bad("counter");
    }
    // Nobody sets one, and refusing a vote for it in term 0 would end the process.
    if message.priority < 0 {
        return bad("priority");
    }
    Ok(())
}

/// Entries follow each other and the place that they are to be appended at; terms never fall.
fn check_append(message: &eraftpb::Message) -> Result<(), BadMessage> {
    if (message.index == 0) != (message.log_term == 0) {
        return Err(BadMessage { field: "log_term" });
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in message.entries.iter() {
        index += 1;
        // Members change one at a time, so nobody proposes an entry of the other kind.
        let known = entry.entry_type != EntryType::EntryConfChangeV2;
        if !known || entry.index != index || entry.term < term.max(1) || entry.term > message.term {
            return Err(BadMessage { field: "entries" });
        }
        term = entry.term;
    }
    if term > message.term { Err(BadMessage { field: "log_term" }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::convert::to_library;
    use crate::raft::{LogEntry, Message, SnapshotOf};

    fn verdict(message: Message) -> Result<(), BadMessage> {
        check(&to_library(message).unwrap(), 1)
    }

    fn append() -> Message {
        let entry = |index, term| LogEntry { term, index, ..LogEntry::default() };
        let entries = vec![entry(5, 3), entry(6, 4)];
        let kind = MessageType::MsgAppend as u32;
        Message { kind, to: 1, from: 2, term: 4, log_term: 3, index: 4, entries, ..Default::default() }
    }

    #[test]
    fn what_a_correct_peer_sends_passes() {
        assert_eq!(verdict(append()), Ok(()));
        assert_eq!(verdict(Message { index: 0, log_term: 0, entries: vec![], ..append() }), Ok(()));
    }

    #[test]
    fn nonsense_is_refused_by_the_field_that_is_wrong() {
        let good = append();
        let refuse = |message: Message, field| assert_eq!(verdict(message), Err(BadMessage { field }));
        refuse(Message { to: 2, ..good.clone() }, "to");
        refuse(Message { from: 1, ..good.clone() }, "from");
        refuse(Message { from: 0, ..good.clone() }, "from");
        refuse(Message { term: 0, ..good.clone() }, "counter");
        refuse(Message { commit: u64::MAX, ..good.clone() }, "counter");
        refuse(Message { priority: -1, ..good.clone() }, "priority");
        refuse(Message { log_term: 0, ..good.clone() }, "log_term");
        refuse(Message { index: 3, ..good.clone() }, "entries");
        refuse(Message { term: 3, ..good.clone() }, "entries");
        refuse(Message { term: 2, entries: vec![], ..good.clone() }, "log_term");
        let unknown = LogEntry { kind: 2, ..good.entries[0].clone() };
        refuse(Message { entries: vec![unknown], ..good.clone() }, "entries");
        for kind in [MessageType::MsgSnapshot, MessageType::MsgReadIndex, MessageType::MsgPropose] {
            refuse(Message { kind: kind as u32, ..good.clone() }, "kind");
        }
    }

    #[test]
    fn what_contradicts_this_log_is_refused() {
        let verdict = |kind: MessageType, message: Message| {
            let message = Message { kind: kind as u32, to: 1, from: 2, ..message };
            check_against(&to_library(message).unwrap(), 5, 100)
        };
        let of = |term| Message { term, ..Default::default() };
        let (beat, answer) = (MessageType::MsgHeartbeat, MessageType::MsgAppendResponse);
        assert_eq!(verdict(beat, Message { commit: 100, ..of(5) }), Ok(()));
        let commit = Err(BadMessage { field: "commit" });
        assert_eq!(verdict(beat, Message { commit: 101, ..of(5) }), commit);
        assert_eq!(verdict(beat, Message { commit: u64::MAX, ..of(9) }), commit);
        assert_eq!(verdict(beat, Message { commit: 101, ..of(4) }), Ok(()), "it is told of the later term");
        assert_eq!(verdict(answer, Message { index: 100, ..of(5) }), Ok(()));
        assert_eq!(verdict(answer, Message { index: 101, ..of(5) }), Err(BadMessage { field: "index" }));
        let term = Err(BadMessage { field: "term" });
        assert_eq!(verdict(MessageType::MsgRequestVote, of(5 + TERM_LEAP_MAX)), Ok(()));
        assert_eq!(verdict(MessageType::MsgRequestVote, of(6 + TERM_LEAP_MAX)), term);
        assert_eq!(verdict(MessageType::MsgAppend, of(COUNTER_MAX)), term);
    }

    #[test]
    fn a_snapshot_knows_its_receiver_and_its_place() {
        let snapshot = SnapshotOf { index: 9, term: 3, voters: vec![2, 3], learners: vec![1] };
        let kind = MessageType::MsgSnapshot as u32;
        let good = Message { kind, entries: vec![], snapshot: Some(snapshot.clone()), ..append() };
        let verdict = |snapshot: SnapshotOf| {
            let message = Message { snapshot: Some(snapshot), ..good.clone() };
            check_snapshot(&to_library(message).unwrap(), 1)
        };
        assert_eq!(verdict(snapshot.clone()), Ok(()));
        let refuse = |snapshot, field| assert_eq!(verdict(snapshot), Err(BadMessage { field }));
        refuse(SnapshotOf { index: 0, ..snapshot.clone() }, "snapshot");
        refuse(SnapshotOf { term: 5, ..snapshot.clone() }, "snapshot");
        refuse(SnapshotOf { learners: vec![], ..snapshot.clone() }, "voters");
        refuse(SnapshotOf { voters: vec![], ..snapshot.clone() }, "voters");
        refuse(SnapshotOf { voters: vec![1, 2], ..snapshot }, "voters");
    }
}
