//! What masters say to each other, to and from the schema: field by field, and in frames that are not too large.

pub mod snapshot;

use bytes::Bytes;
use mooseng_meta::Member;
use mooseng_protocol::convert::BadMessage;
use mooseng_protocol::frame::BODY_MAX;
use mooseng_protocol::pb;
use mooseng_types::{CellId, MasterId};
use prost::Message as _;

use crate::group::{Differing, ENTRY_MAX, Join, PeerMessages, View};
use crate::raft::{LogEntry, MESSAGE_MAX, Message, SnapshotOf};

/// Bytes of messages in one frame. A peer that was away is sent many megabytes at once, and a frame holds a few; half of
/// that leaves room for a message, which is bounded, on top.
const FRAME_BYTES: usize = BODY_MAX / 2;

/// Groups in one frame.
const GROUPS_MAX: usize = 4096;

const _: () =
    assert!(FRAME_BYTES + MESSAGE_MAX as usize + 2 * ENTRY_MAX <= BODY_MAX, "a message fits into a frame");

/// The frames in which all that is `said` goes, in order.
#[must_use]
pub fn frames(said: Vec<PeerMessages>) -> Vec<pb::RaftFrame> {
    let mut frames = Frames::default();
    for mut said in said {
        let messages = std::mem::take(&mut said.messages);
        let rest = rest_to_wire(said);
        frames.open(&rest);
        for message in messages {
            frames.add(&rest, message_to_wire(message));
        }
    }
    frames.whole
}

/// Frames while they are filled.
#[derive(Default)]
struct Frames {
    whole: Vec<pb::RaftFrame>,
    /// Bytes in the last one.
    bytes: usize,
}

impl Frames {
    /// Goes on with a group, in the last frame if there is room.
    fn open(&mut self, group: &pb::RaftMessages) {
        match self.whole.last_mut() {
            Some(frame)
                if self.bytes + group.encoded_len() <= FRAME_BYTES && frame.groups.len() < GROUPS_MAX =>
            {
                self.bytes += group.encoded_len();
                frame.groups.push(group.clone());
            }
            _ => self.begin(group),
        }
    }

    /// Begins a frame with a group.
    fn begin(&mut self, group: &pb::RaftMessages) {
        self.bytes = group.encoded_len();
        self.whole.push(pb::RaftFrame { groups: vec![group.clone()] });
    }

    /// Adds a message of `group`, which was opened last. One goes into a frame however long it is.
    fn add(&mut self, group: &pb::RaftMessages, message: pb::RaftMessage) {
        let length = message.encoded_len();
        if self.bytes + length > FRAME_BYTES && self.last().is_some_and(|last| !last.messages.is_empty()) {
            self.begin(group);
        }
        self.bytes += length;
        if let Some(last) = self.last() {
            last.messages.push(message);
        }
    }

    fn last(&mut self) -> Option<&mut pb::RaftMessages> {
        self.whole.last_mut()?.groups.last_mut()
    }
}

fn rest_to_wire(said: PeerMessages) -> pb::RaftMessages {
    let PeerMessages { cell, messages: _, all_have, digest, differs, join, view, epoch } = said;
    let (digest_index, digest) = digest.unwrap_or_default();
    pb::RaftMessages {
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
    }
}

/// What a frame of another master says.
pub fn read(frame: pb::RaftFrame) -> Result<Vec<PeerMessages>, BadMessage> {
    if frame.groups.len() > GROUPS_MAX {
        return Err(BadMessage { field: "groups" });
    }
    frame.groups.into_iter().map(read_group).collect()
}

fn read_group(said: pb::RaftMessages) -> Result<PeerMessages, BadMessage> {
    let pb::RaftMessages { messages, all_have, digest_index, digest, differs, join, group, epoch, cell } =
        said;
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
        let all = vec![said, of(vec![message(1, 9)])];
        let frames = frames(all.clone());
        let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
        assert_eq!(read(frame.clone()), Ok(all));
        let entries = vec![pb::RaftEntry { kind: 256, ..Default::default() }];
        let messages = vec![pb::RaftMessage { entries, ..Default::default() }];
        let bad = |groups| read(pb::RaftFrame { groups }).unwrap_err().field;
        assert_eq!(bad(vec![pb::RaftMessages { messages, ..Default::default() }]), "kind");
        assert_eq!(bad(vec![pb::RaftMessages::default(); GROUPS_MAX + 1]), "groups");
    }

    #[test]
    fn what_a_peer_missed_goes_in_several_frames_and_in_order() {
        let missed = |from: u64| of((from..from + 20).map(|index| message(index, 1 << 20)).collect());
        let frames = frames(vec![missed(0), missed(20)]);
        assert!(frames.len() > 1);
        for frame in &frames {
            assert!(frame.encoded_len() <= BODY_MAX, "{}", frame.encoded_len());
            assert!(frame.groups.iter().all(|group| group.epoch == 3));
        }
        let groups = frames.iter().flat_map(|frame| &frame.groups);
        let order: Vec<u64> = groups.flat_map(|group| &group.messages).map(|it| it.index).collect();
        assert!(order.iter().copied().eq(0..40));
    }

    #[test]
    fn what_is_said_of_many_groups_shares_a_frame_as_far_as_it_holds_them() {
        assert_eq!(frames(vec![of((0..100).map(|index| message(index, 100)).collect())]).len(), 1);
        let many = |count| vec![of(vec![message(1, 9)]); count];
        assert_eq!(frames(many(GROUPS_MAX)).len(), 1);
        let more = frames(many(GROUPS_MAX + 1));
        assert_eq!(more.iter().map(|frame| frame.groups.len()).collect::<Vec<_>>(), [GROUPS_MAX, 1]);
        assert_eq!(frames(vec![of(Vec::new())]).len(), 1, "what comes without messages goes, too");
        assert_eq!(frames(Vec::new()).len(), 0);
    }
}
