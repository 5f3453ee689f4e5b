//! What masters say to each other, to and from the schema: field by field, and in frames that are not too large.

pub mod snapshot;

use bytes::Bytes;
use mooseng_meta::Member;
use mooseng_protocol::convert::BadMessage;
use mooseng_protocol::frame::BODY_MAX;
use mooseng_protocol::pb;
use mooseng_types::{CellId, MasterId};

use crate::group::{Differing, ENTRY_MAX, Join, PeerMessages, View};
use crate::raft::{LogEntry, MESSAGE_MAX, Message, SnapshotOf};

/// Bytes of messages in one frame. A peer that was away is sent many megabytes at once, and a frame holds a few; half of
/// that leaves room for a message, which is bounded, on top.
const FRAME_BYTES: usize = BODY_MAX / 2;

const _: () =
    assert!(FRAME_BYTES + MESSAGE_MAX as usize + 2 * ENTRY_MAX <= BODY_MAX, "a message fits into a frame");

/// The frames in which `said` goes, in order.
#[must_use]
pub fn frames(said: PeerMessages) -> Vec<pb::RaftMessages> {
    let PeerMessages { cell, messages, all_have, digest, differs, join, view, epoch } = said;
    let (digest_index, digest) = digest.unwrap_or_default();
    let rest = pb::RaftMessages {
        messages: Vec::new(),
        all_have,
        digest_index,
        digest,
        differs: differs.map(|it| pb::DigestDiffers {
            index: it.index,
            yours: it.theirs,
            ours: it.majority,
            member: it.member.raw(),
        }),
        join: join.map(|it| pb::JoinRequest {
            id: it.id.raw(),
            name: it.name,
            address: it.address,
            lost_group: it.lost_group,
        }),
        group: view.map(|it| pb::GroupView {
            epoch: it.epoch,
            index: it.index,
            members: it.members.into_iter().map(member_to_wire).collect(),
        }),
        epoch,
        cell: cell.raw().into(),
    };
    let with = |messages| pb::RaftMessages { messages, ..rest.clone() };
    let mut frames: Vec<pb::RaftMessages> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let message = message_to_wire(message);
        let length = prost::Message::encoded_len(&message);
        match frames.last_mut() {
            Some(frame) if bytes + length <= FRAME_BYTES => {
                bytes += length;
                frame.messages.push(message);
            }
            _ => {
                bytes = length;
                frames.push(with(vec![message]));
            }
        }
    }
    if frames.is_empty() {
        frames.push(rest);
    }
    frames
}

/// What a frame of another master says.
pub fn read(frame: pb::RaftMessages) -> Result<PeerMessages, BadMessage> {
    let pb::RaftMessages { messages, all_have, digest_index, digest, differs, join, group, epoch, cell } =
        frame;
    Ok(PeerMessages {
        cell: read_cell(cell)?,
        messages: messages.into_iter().map(read_message).collect::<Result<_, _>>()?,
        all_have,
        digest: (digest_index != 0).then_some((digest_index, digest)),
        differs: differs.map(|it| Differing {
            index: it.index,
            theirs: it.yours,
            majority: it.ours,
            member: MasterId::from_raw(it.member),
        }),
        join: join.map(|it| Join {
            id: MasterId::from_raw(it.id),
            name: it.name,
            address: it.address,
            lost_group: it.lost_group,
        }),
        view: group.map(|it| View {
            epoch: it.epoch,
            index: it.index,
            members: it.members.into_iter().map(member_from_wire).collect(),
        }),
        epoch,
    })
}

/// The cell with this number.
pub fn read_cell(cell: u32) -> Result<CellId, BadMessage> {
    u16::try_from(cell).map(CellId::from_raw).map_err(|_| BadMessage { field: "cell" })
}

fn member_to_wire(member: Member) -> pb::GroupMember {
    let Member { id, name, address, voter, wants_vote: _ } = member;
    pb::GroupMember { id: id.raw(), name, address, voter }
}

fn member_from_wire(member: pb::GroupMember) -> Member {
    let pb::GroupMember { id, name, address, voter } = member;
    Member { id: MasterId::from_raw(id), name, address, voter, wants_vote: voter }
}

/// A message of the consensus core for the schema.
#[must_use]
pub fn message_to_wire(message: Message) -> pb::RaftMessage {
    pb::RaftMessage {
        kind: message.kind,
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
        snapshot: message.snapshot.map(|it| pb::RaftSnapshot {
            index: it.index,
            term: it.term,
            voters: it.voters,
            learners: it.learners,
        }),
    }
}

/// A message of the consensus core out of the schema.
pub fn read_message(message: pb::RaftMessage) -> Result<Message, BadMessage> {
    Ok(Message {
        kind: message.kind,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        request_snapshot: message.request_snapshot,
        snapshot: message.snapshot.map(|it| SnapshotOf {
            index: it.index,
            term: it.term,
            voters: it.voters,
            learners: it.learners,
        }),
    })
}

fn entry_to_wire(entry: LogEntry) -> pb::RaftEntry {
    let LogEntry { term, index, kind, data } = entry;
    pb::RaftEntry { kind: kind.into(), term, index, data, context: Bytes::new() }
}

fn entry_from_wire(entry: pb::RaftEntry) -> Result<LogEntry, BadMessage> {
    let pb::RaftEntry { kind, term, index, data, context: _ } = entry;
    let kind = u8::try_from(kind).map_err(|_| BadMessage { field: "kind" })?;
    // Copied, so that an entry kept for minutes does not keep the whole buffer it arrived in.
    Ok(LogEntry { term, index, kind, data: Bytes::copy_from_slice(&data) })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn message(index: u64, bytes: usize) -> Message {
        let entry = LogEntry { data: vec![7; bytes].into(), ..Default::default() };
        Message { index, entries: vec![entry], ..Default::default() }
    }

    fn of(messages: Vec<Message>) -> PeerMessages {
        PeerMessages { messages, epoch: 3, ..PeerMessages::of(CellId::ROOT) }
    }

    #[test]
    fn everything_said_reads_back() {
        let id = MasterId::new(2, 7);
        let member = Member { id, name: "m".into(), address: "a".into(), voter: true, wants_vote: true };
        let snapshot = SnapshotOf { index: 11, term: 12, voters: vec![1, 2], learners: vec![3] };
        let raft = Message {
            kind: 7,
            to: 1,
            from: 2,
            term: 3,
            log_term: 4,
            index: 5,
            entries: vec![LogEntry { kind: 1, term: 2, index: 3, data: "d".into() }],
            commit: 6,
            commit_term: 7,
            reject: true,
            reject_hint: 8,
            context: "x".into(),
            priority: -9,
            request_snapshot: 10,
            snapshot: Some(snapshot),
        };
        let said = PeerMessages {
            cell: CellId::from_raw(5),
            messages: vec![raft],
            all_have: 4,
            digest: Some((64, 9)),
            differs: Some(Differing { index: 64, theirs: 1, majority: 2, member: id }),
            join: Some(Join { id, name: "m".into(), address: "a".into(), lost_group: true }),
            view: Some(View { epoch: 2, index: 9, members: vec![member] }),
            epoch: 3,
        };
        let frames = frames(said.clone());
        let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
        assert_eq!(read(frame.clone()), Ok(said));
        let entries = vec![pb::RaftEntry { kind: 256, ..Default::default() }];
        let messages = vec![pb::RaftMessage { entries, ..Default::default() }];
        let bad = read(pb::RaftMessages { messages, ..Default::default() });
        assert_eq!(bad, Err(BadMessage { field: "kind" }));
    }

    #[test]
    fn what_a_peer_missed_goes_in_several_frames_and_in_order() {
        let frames = frames(of((0..40).map(|index| message(index, 1 << 20)).collect()));
        assert!(frames.len() > 1);
        for frame in &frames {
            assert!(frame.encoded_len() <= BODY_MAX, "{}", frame.encoded_len());
            assert_eq!(frame.epoch, 3);
        }
        let order: Vec<u64> = frames.iter().flat_map(|frame| &frame.messages).map(|it| it.index).collect();
        assert!(order.iter().copied().eq(0..40));
    }

    #[test]
    fn small_messages_share_a_frame_and_what_comes_without_any_is_one() {
        assert_eq!(frames(of((0..100).map(|index| message(index, 100)).collect())).len(), 1);
        assert_eq!(frames(of(Vec::new())).len(), 1);
    }
}
