//! The library's messages to and from our own, field by field, so that its parser never sees foreign bytes
//! (RUSTSEC-2024-0437 is about that parser).

#![expect(
    clippy::field_reassign_with_default,
    reason = "generated messages have private fields of their own; assigning keeps one field a line"
)]

use mooseng_protocol::convert::BadMessage;
use protobuf::ProtobufEnum;
use raft::eraftpb::{self, ConfState, Entry, EntryType, MessageType, Snapshot, SnapshotMetadata};

use super::{LogEntry, Message, SnapshotOf};

pub(super) fn from_library(message: eraftpb::Message) -> Message {
    Message {
        kind: u32::try_from(message.msg_type.value()).unwrap_or(u32::MAX),
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(to_log).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        request_snapshot: message.request_snapshot,
        snapshot: message.snapshot.into_option().map(snapshot_from_library),
    }
}

pub(super) fn to_library(message: Message) -> Result<eraftpb::Message, BadMessage> {
    let kind = i32::try_from(message.kind)
        .ok()
        .and_then(MessageType::from_i32)
        .ok_or(BadMessage { field: "kind" })?;
    let mut out = eraftpb::Message::default();
    out.msg_type = kind;
    out.to = message.to;
    out.from = message.from;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    let entry = |entry| from_log(entry).ok_or(BadMessage { field: "kind" });
    out.entries = message.entries.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?.into();
    out.commit = message.commit;
    out.commit_term = message.commit_term;
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context;
    out.priority = message.priority;
    out.request_snapshot = message.request_snapshot;
    out.snapshot = message.snapshot.map(snapshot_to_library).into();
    Ok(out)
}

fn snapshot_from_library(mut snapshot: Snapshot) -> SnapshotOf {
    let mut metadata = snapshot.take_metadata();
    let state = metadata.take_conf_state();
    SnapshotOf { index: metadata.index, term: metadata.term, voters: state.voters, learners: state.learners }
}

fn snapshot_to_library(snapshot: SnapshotOf) -> Snapshot {
    let mut metadata = SnapshotMetadata::default();
    metadata.index = snapshot.index;
    metadata.term = snapshot.term;
    metadata.conf_state = Some(conf_state(snapshot.voters, snapshot.learners)).into();
    let mut out = Snapshot::default();
    out.metadata = Some(metadata).into();
    out
}

pub(super) fn conf_state(voters: Vec<u64>, learners: Vec<u64>) -> ConfState {
    let mut state = ConfState::default();
    state.voters = voters;
    state.learners = learners;
    state
}

pub(super) fn to_log(entry: &Entry) -> LogEntry {
    LogEntry {
        term: entry.term,
        index: entry.index,
        kind: u8::try_from(entry.entry_type.value()).unwrap_or(u8::MAX),
        data: entry.data.clone(),
    }
}

/// `None` if the kind is of a later release.
pub(super) fn from_log(entry: LogEntry) -> Option<Entry> {
    let mut out = Entry::default();
    out.entry_type = EntryType::from_i32(entry.kind.into())?;
    out.term = entry.term;
    out.index = entry.index;
    out.data = entry.data;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_with_every_field() {
        let entry = LogEntry { kind: 1, term: 2, index: 3, data: "d".into() };
        let message = Message {
            kind: 7,
            to: 1,
            from: 2,
            term: 3,
            log_term: 4,
            index: 5,
            entries: vec![entry],
            commit: 6,
            commit_term: 7,
            reject: true,
            reject_hint: 8,
            context: "x".into(),
            priority: -9,
            request_snapshot: 10,
            snapshot: Some(SnapshotOf { index: 11, term: 12, voters: vec![1, 2], learners: vec![3] }),
        };
        assert_eq!(from_library(to_library(message.clone()).unwrap()), message);
        let bad = Message { kind: 99, ..message };
        assert_eq!(to_library(bad).unwrap_err(), BadMessage { field: "kind" });
    }
}
