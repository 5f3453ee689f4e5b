//! The buffer beside a plain vector of bytes.

use proptest::prelude::*;

use super::*;

const SPACE: u64 = 3 * PIECE_SIZE;

#[derive(Debug, Clone)]
enum Step {
    Write { offset: u64, length: usize, value: u8 },
    Take { full: bool },
    Finish(prop::sample::Index),
    Discard(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let near_borders = prop_oneof![0..SPACE, PIECE_SIZE - 50..PIECE_SIZE + 50, 0..200u64];
    let lengths = prop_oneof![1..200usize, 1..(2usize << 20)];
    prop_oneof![
        4 => (near_borders.clone(), lengths, any::<u8>())
            .prop_map(|(offset, length, value)| Step::Write { offset, length, value }),
        2 => any::<bool>().prop_map(|full| Step::Take { full }),
        2 => any::<prop::sample::Index>().prop_map(Step::Finish),
        1 => near_borders.prop_map(Step::Discard),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_file_reads_as_if_every_write_had_gone_straight_to_it(steps in proptest::collection::vec(step(), 1..40)) {
        let mut buffer = WriteBuffer::default();
        let mut plain = vec![0u8; (SPACE + (2 << 20)) as usize];
        let mut server = plain.clone();
        let mut sent: Vec<Piece> = Vec::new();
        for step in steps {
            match step {
                Step::Write { offset, length, value } => {
                    let data = vec![value; length];
                    plain[offset as usize..][..length].copy_from_slice(&data);
                    buffer.write(offset, &data, false);
                }
                Step::Take { full } => {
                    let which = if full { Take::Full } else { Take::UpTo(buffer.last_write()) };
                    if let Some(piece) = buffer.take(which, |_| true) {
                        prop_assert!(piece.offset / PIECE_SIZE == (piece.end() - 1) / PIECE_SIZE);
                        prop_assert!(!full || piece.data.len() as u64 == PIECE_SIZE);
                        prop_assert!(sent.iter().all(|o| o.end() <= piece.offset || o.offset >= piece.end()));
                        sent.push(piece);
                    }
                }
                Step::Finish(which) if !sent.is_empty() => {
                    let piece = sent.swap_remove(which.index(sent.len()));
                    apply(std::slice::from_ref(&piece), 0, &mut server);
                    buffer.finish(&piece);
                }
                // A truncate waits until nothing is in flight.
                Step::Discard(offset) if sent.is_empty() => {
                    plain[offset as usize..].copy_from_slice(&server[offset as usize..]);
                    buffer.discard_from(offset);
                }
                Step::Finish(_) | Step::Discard(_) => {}
            }
            let held: usize = buffer.dirty.values().map(|extent| extent.data.len()).sum::<usize>()
                + buffer.in_flight.values().map(|extent| extent.data.len()).sum::<usize>();
            prop_assert_eq!(buffer.bytes, held);
        }
        let mut seen = server.clone();
        apply(&buffer.overlay(0, plain.len() as u64), 0, &mut seen);
        prop_assert!(seen == plain, "overlay differs");
        for piece in sent.drain(..) {
            apply(std::slice::from_ref(&piece), 0, &mut server);
            buffer.finish(&piece);
        }
        let all = buffer.last_write();
        while let Some(piece) = buffer.take(Take::UpTo(all), |_| true) {
            apply(std::slice::from_ref(&piece), 0, &mut server);
            buffer.finish(&piece);
        }
        prop_assert!(buffer.is_empty() && buffer.bytes == 0 && buffer.is_clean_up_to(all));
        prop_assert!(server == plain, "what was sent differs");
    }
}

#[test]
fn small_writes_in_sequence_become_one_full_piece() {
    let mut buffer = WriteBuffer::default();
    let part = vec![5; 4096];
    let fulls: Vec<bool> = (0..256).map(|i| buffer.write(i * 4096, &part, false)).collect();
    assert_eq!(fulls.iter().filter(|full| **full).count(), 1);
    assert!(fulls[255]);
    let piece = buffer.take(Take::Full, |_| true).unwrap();
    assert_eq!((piece.offset, piece.data.len()), (0, 1 << 20));
}

#[test]
fn bytes_written_over_an_extent_in_flight_wait_for_it() {
    let mut buffer = WriteBuffer::default();
    buffer.write(0, b"old old", false);
    let first = buffer.take(Take::UpTo(1), |_| true).unwrap();
    buffer.write(4, b"new", false);
    assert!(buffer.take(Take::UpTo(2), |_| true).is_none());
    assert!(!buffer.is_clean_up_to(1));
    let mut seen = *b".......";
    apply(&buffer.overlay(0, 7), 0, &mut seen);
    assert_eq!(&seen, b"old new");
    buffer.finish(&first);
    assert!(buffer.is_clean_up_to(1));
    assert_eq!(&buffer.take(Take::UpTo(2), |_| true).unwrap().data[..], b"new");
}

#[test]
fn a_flush_need_not_wait_for_what_is_written_after_it_began() {
    let mut buffer = WriteBuffer::default();
    buffer.write(0, b"a", false);
    let mark = buffer.last_write();
    let piece = buffer.take(Take::UpTo(mark), |_| true).unwrap();
    buffer.write(100, b"b", false);
    assert!(buffer.take(Take::UpTo(mark), |_| true).is_none());
    buffer.finish(&piece);
    assert!(buffer.is_clean_up_to(mark) && !buffer.is_empty());
}

#[test]
fn coverage_is_seen_over_several_pieces() {
    let mut buffer = WriteBuffer::default();
    buffer.write(0, &[1; 10], false);
    buffer.take(Take::UpTo(1), |_| true).unwrap();
    buffer.write(10, &[2; 10], false);
    let pieces = buffer.overlay(0, 20);
    assert!(covers(&pieces, 0, 20) && covers(&pieces, 5, 10));
    assert!(!covers(&buffer.overlay(0, 21), 0, 21));
}

#[test]
fn a_piece_that_was_not_written_is_sent_again_before_what_lies_over_it() {
    let mut buffer = WriteBuffer::default();
    buffer.write(0, b"old", false);
    let piece = buffer.take(Take::UpTo(1), |_| true).unwrap();
    buffer.write(0, b"new", false);
    buffer.put_back(&piece);
    let again = buffer.take(Take::UpTo(2), |_| true).unwrap();
    assert_eq!(&again.data[..], b"old");
    buffer.finish(&again);
    assert_eq!(&buffer.take(Take::UpTo(2), |_| true).unwrap().data[..], b"new");
}

#[test]
fn what_was_in_flight_when_everything_was_thrown_away_is_of_no_concern() {
    let mut buffer = WriteBuffer::default();
    buffer.write(0, b"old", false);
    let piece = buffer.take(Take::UpTo(1), |_| true).unwrap();
    assert!(buffer.clear());
    buffer.write(0, b"new", false);
    buffer.take(Take::UpTo(2), |_| true).unwrap();
    buffer.finish(&piece);
    assert!(!buffer.is_empty(), "an old confirmation took the new bytes along");
}

#[test]
fn what_was_appended_can_be_told_from_what_was_written_in_its_place() {
    let mut buffer = WriteBuffer::default();
    buffer.write(0, b"placed", false);
    buffer.write(1000, b"appended", true);
    assert!(buffer.discard_chunk(ChunkIndex::from_raw(0), true));
    assert_eq!((buffer.bytes(), buffer.dirty_end()), (6, 6));
}
