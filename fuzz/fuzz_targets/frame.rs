//! Frames, however the bytes arrive: what decodes is what was sent, and the cuts between reads change nothing.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mooseng_protocol::frame::{self, Frame, FrameError};

/// Decodes frames until the bytes end or are wrong; the payload is taken as a connection takes it.
fn decode_all(pieces: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let (mut input, mut frames, mut payload) = (BytesMut::new(), Vec::new(), 0);
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let skipped = payload.min(input.len());
            drop(input.split_to(skipped));
            payload -= skipped;
            if payload > 0 {
                break;
            }
            let before = input.len();
            match frame::decode(&mut input) {
                Ok(Some(found)) => {
                    assert_eq!(before - input.len(), frame::HEADER_SIZE + found.body.len());
                    payload = found.payload_length;
                    frames.push(found);
                }
                Ok(None) => {
                    assert_eq!(input.len(), before, "a frame that is not there yet takes nothing");
                    break;
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Makes the first frame's checksum right, so that what lies behind it is reached.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < frame::HEADER_SIZE {
        return;
    }
    bytes[..4].copy_from_slice(b"MNG1");
    let length = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    let Some(body) = bytes.get(frame::HEADER_SIZE..).and_then(|rest| rest.get(..length)) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), body);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
}

fuzz_target!(|data: &[u8]| {
    let Some((&[first, step, flags], rest)) = data.split_first_chunk::<3>() else { return };
    let mut bytes = rest.to_vec();
    if flags & 1 == 1 {
        repair(&mut bytes);
    }
    let whole = decode_all(&[&bytes]);
    let (head, tail) = bytes.split_at(usize::from(first).min(bytes.len()));
    let mut pieces = vec![head];
    pieces.extend(tail.chunks(usize::from(step) + 1));
    assert_eq!(decode_all(&pieces), whole, "where the bytes are cut must not matter");

    let mut at = 0;
    for found in &whole.0 {
        let again = frame::encode(found.header, &found.body, found.payload_length)
            .expect("what was decoded is within the limits");
        assert_eq!(bytes[at..at + again.len()], again, "a frame is encoded as it arrived");
        at = (at + again.len() + found.payload_length).min(bytes.len());
    }
});
