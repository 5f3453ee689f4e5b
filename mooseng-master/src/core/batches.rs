//! How many messages for another master go into one frame.

use mooseng_protocol::frame::BODY_MAX;
use mooseng_protocol::pb;
use prost::Message as _;

use super::ENTRY_MAX;
use crate::raft::MESSAGE_MAX;

/// Bytes of messages in one frame. A peer that was away is sent many megabytes at once, and a frame holds a few; half of
/// that leaves room for a message, which is bounded, on top.
const FRAME_BYTES: usize = BODY_MAX / 2;

const _: () =
    assert!(FRAME_BYTES + MESSAGE_MAX as usize + 2 * ENTRY_MAX <= BODY_MAX, "a message fits into a frame");

/// Parts messages, in their order, so that each part fits into a frame.
pub(super) fn parts(messages: Vec<pb::RaftMessage>) -> Vec<Vec<pb::RaftMessage>> {
    let mut parts: Vec<Vec<pb::RaftMessage>> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let length = message.encoded_len();
        match parts.last_mut() {
            Some(part) if bytes + length <= FRAME_BYTES => {
                bytes += length;
                part.push(message);
            }
            _ => {
                bytes = length;
                parts.push(vec![message]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(index: u64, bytes: usize) -> pb::RaftMessage {
        let entry = pb::RaftEntry { data: vec![7; bytes].into(), ..Default::default() };
        pb::RaftMessage { index, entries: vec![entry], ..Default::default() }
    }

    #[test]
    fn what_a_peer_missed_goes_in_several_frames_and_in_order() {
        let parts = parts((0..40).map(|index| message(index, 1 << 20)).collect());
        assert!(parts.len() > 1);
        for part in &parts {
            let frame = pb::RaftMessages { messages: part.clone(), ..Default::default() };
            assert!(frame.encoded_len() <= BODY_MAX, "{}", frame.encoded_len());
        }
        let order: Vec<u64> = parts.iter().flatten().map(|message| message.index).collect();
        assert!(order.iter().copied().eq(0..40));
    }

    #[test]
    fn small_messages_share_a_frame_and_nothing_is_no_frame() {
        assert_eq!(parts((0..100).map(|index| message(index, 100)).collect()).len(), 1);
        assert!(parts(Vec::new()).is_empty());
    }
}
