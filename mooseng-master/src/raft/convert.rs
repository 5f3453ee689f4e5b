//! The library's messages to and from `raft.proto`, field by field, so that its parser never sees foreign bytes
//! (RUSTSEC-2024-0437 is about that parser).

#![expect(
    clippy::field_reassign_with_default,
    reason = "generated messages have private fields of their own; assigning keeps one field a line"
)]

use bytes::Bytes;
use mooseng_protocol::convert::BadMessage;
use mooseng_protocol::pb;
use protobuf::ProtobufEnum;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata};

use super::LogEntry;

pub(super) fn to_wire(message: Message) -> pb::RaftMessage {
    pb::RaftMessage {
        kind: u32::try_from(message.msg_type.value()).unwrap_or(u32::MAX),
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.into_iter().map(entry_to_wire).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        request_snapshot: message.request_snapshot,
        snapshot: message.snapshot.into_option().map(snapshot_to_wire),
    }
}

pub(super) fn from_wire(message: pb::RaftMessage) -> Result<Message, BadMessage> {
    let kind = i32::try_from(message.kind)
        .ok()
        .and_then(MessageType::from_i32)
        .ok_or(BadMessage { field: "kind" })?;
    let mut out = Message::default();
    out.msg_type = kind;
    out.to = message.to;
    out.from = message.from;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    out.entries = message.entries.into_iter().map(entry_from_wire).collect::<Result<Vec<_>, _>>()?.into();
    out.commit = message.commit;
    out.commit_term = message.commit_term;
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context;
    out.priority = message.priority;
    out.request_snapshot = message.request_snapshot;
    out.snapshot = message.snapshot.map(snapshot_from_wire).into();
    Ok(out)
}

fn entry_to_wire(entry: Entry) -> pb::RaftEntry {
    pb::RaftEntry {
        kind: u32::try_from(entry.entry_type.value()).unwrap_or(u32::MAX),
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
    }
}

fn entry_from_wire(entry: pb::RaftEntry) -> Result<Entry, BadMessage> {
    let kind =
        i32::try_from(entry.kind).ok().and_then(EntryType::from_i32).ok_or(BadMessage { field: "kind" })?;
    let mut out = Entry::default();
    out.entry_type = kind;
    out.term = entry.term;
    out.index = entry.index;
    // Copied, so that an entry kept for minutes does not keep the whole buffer it arrived in.
    out.data = Bytes::copy_from_slice(&entry.data);
    out.context = Bytes::copy_from_slice(&entry.context);
    Ok(out)
}

fn snapshot_to_wire(mut snapshot: Snapshot) -> pb::RaftSnapshot {
    let mut metadata = snapshot.take_metadata();
    let state = metadata.take_conf_state();
    pb::RaftSnapshot {
        index: metadata.index,
        term: metadata.term,
        voters: state.voters,
        learners: state.learners,
    }
}

fn snapshot_from_wire(snapshot: pb::RaftSnapshot) -> Snapshot {
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
        let entry = pb::RaftEntry { kind: 1, term: 2, index: 3, data: "d".into(), context: "c".into() };
        let message = pb::RaftMessage {
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
            snapshot: Some(pb::RaftSnapshot { index: 11, term: 12, voters: vec![1, 2], learners: vec![3] }),
        };
        assert_eq!(to_wire(from_wire(message.clone()).unwrap()), message);
        let bad = pb::RaftMessage { kind: 99, ..message };
        assert_eq!(from_wire(bad).unwrap_err(), BadMessage { field: "kind" });
    }
}
