//! The frame: a fixed header, a protobuf body, an optional raw payload.
//!
//! ```text
//! byte  0  u32  magic 0x31474e4d ("MNG1" in memory)
//!       4  u16  kind: which request (rpc.rs); a reply repeats it
//!       6  u16  flags: 1 reply, 2 error (the body is an ErrorReply), 4 one-way (no reply is wanted), 8 push
//!       8  u32  body length
//!      12  u32  payload length
//!      16  u64  request id: chosen by the sender of the request, repeated in the reply
//!      24  u32  deadline in ms from now, 0 for none
//!      28  u32  CRC-32C of bytes 0..28 and the body
//! ```
//!
//! All little-endian. The payload is not covered here: chunk data carries checksums of its own in the body, which
//! travel on to the disk. The magic comes first so that a stranger is recognised by the first word; the lengths come
//! before anything is allocated.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a header.
pub const HEADER_SIZE: usize = 32;
/// The longest body: raft batches and directory listings stay well below it.
pub const BODY_MAX: usize = 8 << 20;
/// The longest payload: 1 MiB of data and a block on either side.
pub const PAYLOAD_MAX: usize = (1 << 20) + (128 << 10);

const MAGIC: u32 = u32::from_le_bytes(*b"MNG1");

/// The frame answers a request.
pub const FLAG_REPLY: u16 = 1;
/// The body is an `ErrorReply`.
pub const FLAG_ERROR: u16 = 2;
/// No reply is wanted.
pub const FLAG_ONE_WAY: u16 = 4;
/// Sent by a server on its own account.
pub const FLAG_PUSH: u16 = 8;

/// A frame's header without magic, lengths and checksum, which the codec fills in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Which request.
    pub kind: u16,
    /// `FLAG_*`.
    pub flags: u16,
    /// Matches replies to requests.
    pub request: u64,
    /// Time left for the request in milliseconds; 0 for no limit.
    pub deadline_ms: u32,
}

/// What a decoder has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// The protobuf message.
    pub body: Bytes,
    /// Bytes of payload that follow the body.
    pub payload_length: usize,
}

/// Why bytes are not a frame. The connection is of no more use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer does not speak this protocol.
    #[error("not a MooseNG frame (magic {0:#010x})")]
    Magic(u32),
    /// A length above its limit.
    #[error("frame of kind {kind:#x} has {length} bytes of {part}, above the limit")]
    TooLong {
        /// Which request.
        kind: u16,
        /// "body" or "payload".
        part: &'static str,
        /// The length it says.
        length: u32,
    },
    /// The checksum does not match.
    #[error("frame of kind {kind:#x} is damaged")]
    Damaged {
        /// Which request.
        kind: u16,
    },
}

/// The bytes of header and body, to be followed by `payload_length` bytes of payload. Refused if body or payload are
/// above their limits: what is in them may have come from somebody else.
pub fn encode(header: Header, body: &[u8], payload_length: usize) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::with_capacity(HEADER_SIZE + body.len());
    encode_into(&mut out, header, payload_length, |out| out.extend_from_slice(body))?;
    Ok(out)
}

/// Appends a frame to `out`; `body` appends the body. If it is refused, as by [`encode`], `out` is as it was.
pub fn encode_into(
    out: &mut Vec<u8>,
    header: Header,
    payload_length: usize,
    body: impl FnOnce(&mut Vec<u8>),
) -> Result<(), FrameError> {
    let start = out.len();
    out.resize(start + HEADER_SIZE, 0);
    body(out);
    let body_length = out.len() - start - HEADER_SIZE;
    for (part, length, limit) in [("body", body_length, BODY_MAX), ("payload", payload_length, PAYLOAD_MAX)] {
        if length > limit {
            out.truncate(start);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            return Err(FrameError::TooLong { kind: header.kind, part, length });
        }
    }
    let head = &mut out[start..start + HEADER_SIZE];
    head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    head[4..6].copy_from_slice(&header.kind.to_le_bytes());
    head[6..8].copy_from_slice(&header.flags.to_le_bytes());
    head[8..12].copy_from_slice(&(body_length as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(payload_length as u32).to_le_bytes());
    head[16..24].copy_from_slice(&header.request.to_le_bytes());
    head[24..28].copy_from_slice(&header.deadline_ms.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start..start + 28]), &out[start + HEADER_SIZE..]);
    out[start + 28..start + HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The header of a frame that this process has encoded itself; `None` if there is none.
#[must_use]
pub fn header_of(frame: &[u8]) -> Option<Header> {
    frame.first_chunk::<HEADER_SIZE>().map(read_header)
}

fn read_header(head: &[u8; HEADER_SIZE]) -> Header {
    let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let request = u64::from(word(head, 16)) | u64::from(word(head, 20)) << 32;
    Header { kind: half(4), flags: half(6), request, deadline_ms: word(head, 24) }
}

fn word(head: &[u8; HEADER_SIZE], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

/// Takes one frame's header and body off the front of `input`; `None` if more bytes are needed. The payload, if any,
/// follows and is the caller's to take.
pub fn decode(input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    decode_up_to(input, BODY_MAX)
}

/// The same for a body that must not be longer than this, because nobody knows yet who sends it.
pub fn decode_up_to(input: &mut BytesMut, body_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(head) = input.first_chunk::<HEADER_SIZE>() else {
        return Ok(None);
    };
    let header = read_header(head);
    let (kind, body_length, payload_length) = (header.kind, word(head, 8), word(head, 12));
    if word(head, 0) != MAGIC {
        return Err(FrameError::Magic(word(head, 0)));
    }
    if body_length as usize > body_max.min(BODY_MAX) {
        return Err(FrameError::TooLong { kind, part: "body", length: body_length });
    }
    if payload_length as usize > PAYLOAD_MAX {
        return Err(FrameError::TooLong { kind, part: "payload", length: payload_length });
    }
    let total = HEADER_SIZE + body_length as usize;
    if input.len() < total {
        return Ok(None);
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&input[..28]), &input[HEADER_SIZE..total]);
    if crc != word(head, 28) {
        return Err(FrameError::Damaged { kind });
    }
    let mut taken = input.split_to(total);
    taken.advance(HEADER_SIZE);
    Ok(Some(Frame { header, body: taken.freeze(), payload_length: payload_length as usize }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_of_a_frame_never_change() {
        let header = Header { kind: 0x0102, flags: FLAG_REPLY, request: 0x0a0b_0c0d, deadline_ms: 1000 };
        let bytes = encode(header, b"body", 5).unwrap();
        let expected = [
            b'M', b'N', b'G', b'1', 0x02, 0x01, 1, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 0, 0,
            0, 0, 0xe8, 3, 0, 0,
        ];
        assert_eq!(bytes[..28], expected);
        assert_eq!(&bytes[32..], b"body");
        assert_eq!((header_of(&bytes), header_of(&bytes[..31])), (Some(header), None));
    }

    #[test]
    fn lengths_are_refused_before_the_body_has_arrived() {
        let mut bytes = BytesMut::from(&encode(Header::default(), b"", 0).unwrap()[..]);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&mut bytes), Err(FrameError::TooLong { part: "body", .. })));
        assert!(matches!(decode(&mut BytesMut::from(&[0; 32][..])), Err(FrameError::Magic(0))));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_no_trace() {
        let mut out = vec![7];
        let body = vec![0; BODY_MAX + 1];
        let refused = encode_into(&mut out, Header::default(), 0, |out| out.extend_from_slice(&body));
        assert!(matches!(refused, Err(FrameError::TooLong { part: "body", .. })));
        assert_eq!(out, [7]);
        assert!(encode(Header::default(), &body[1..], PAYLOAD_MAX).is_ok());
        let refused = encode(Header::default(), b"", PAYLOAD_MAX + 1);
        assert!(matches!(refused, Err(FrameError::TooLong { part: "payload", .. })));
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_however_it_arrives(
            kind: u16, flags: u16, request: u64, deadline_ms: u32,
            body in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..332,
        ) {
            let header = Header { kind, flags, request, deadline_ms };
            let bytes = encode(header, &body, 3).unwrap();
            let cut = cut.min(bytes.len() - 1);
            let mut input = BytesMut::from(&bytes[..cut]);
            prop_assert_eq!(decode(&mut input), Ok(None));
            input.extend_from_slice(&bytes[cut..]);
            let frame = decode(&mut input).unwrap().unwrap();
            prop_assert_eq!(frame, Frame { header, body: body.into(), payload_length: 3 });
            prop_assert!(input.is_empty());
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in 0usize..36, bit in 0u8..8) {
            let mut bytes = encode(Header { kind: 7, ..Header::default() }, b"body", 0).unwrap();
            bytes[at] ^= 1 << bit;
            let mut input = BytesMut::from(&bytes[..]);
            prop_assert!(!matches!(decode(&mut input), Ok(Some(_))));
        }
    }
}
