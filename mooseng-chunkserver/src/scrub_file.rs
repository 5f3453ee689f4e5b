//! How far the pass over a disk has come, as it is noted on the disk itself: a few lines of text, written whole. Described in
//! `docs/formats/scrub.md`.

use mooseng_types::{ChunkId, Part};

use crate::scrub::Progress;

const TITLE: &str = "mooseng scrub, format 1";

/// The file's bytes.
pub(crate) fn encode(progress: &Progress) -> Vec<u8> {
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let position = match progress.position {
        Some(part) => format!("{:016x} {}", part.chunk().raw(), part.index()),
        None => "none".into(),
    };
    let text = format!(
        "{TITLE}\nstarted {}\nunder_way {}\npaused {}\nposition {position}\ndone {}\nleft {}\ncomplete {}\ndamaged {}\n",
        progress.started_unix_s,
        yes(progress.under_way),
        yes(progress.paused),
        progress.done,
        progress.left,
        progress.last_complete_unix_s,
        progress.damaged_found,
    );
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}crc32c {crc:08x}\n").into_bytes()
}

/// What the file says; `None` if it is not one that this release has written whole.
pub(crate) fn decode(bytes: &[u8]) -> Option<Progress> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()? != TITLE {
        return None;
    }
    let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
    let progress = Progress {
        started_unix_s: value("started")?.parse().ok()?,
        under_way: value("under_way")? == "yes",
        paused: value("paused")? == "yes",
        position: position(value("position")?)?,
        done: value("done")?.parse().ok()?,
        left: value("left")?.parse().ok()?,
        last_complete_unix_s: value("complete")?.parse().ok()?,
        damaged_found: value("damaged")?.parse().ok()?,
    };
    // With its checksum, and with nothing else in it.
    (encode(&progress) == bytes).then_some(progress)
}

/// The outer option is that of the text, the inner one that of the position.
#[expect(clippy::option_option, reason = "no position yet is one of the things that the text says")]
fn position(text: &str) -> Option<Option<Part>> {
    if text == "none" {
        return Some(None);
    }
    let (chunk, index) = text.split_once(' ')?;
    let chunk = ChunkId::from_raw(u64::from_str_radix(chunk, 16).ok()?);
    Part::new(chunk, index.parse().ok()?).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn progress() -> Progress {
        Progress {
            started_unix_s: 1_790_000_000,
            under_way: true,
            paused: false,
            position: Part::new(ChunkId::from_raw(0x123f), 7),
            done: 12,
            left: 88,
            last_complete_unix_s: 1_789_000_000,
            damaged_found: 2,
        }
    }

    #[test]
    fn the_bytes_never_change() {
        let golden = "mooseng scrub, format 1\nstarted 1790000000\nunder_way yes\npaused no\n\
            position 000000000000123f 7\ndone 12\nleft 88\ncomplete 1789000000\ndamaged 2\ncrc32c ";
        let bytes = encode(&progress());
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(text.strip_prefix(golden), Some("29a0f9de\n"));
        assert_eq!(decode(&bytes), Some(progress()));
    }

    #[test]
    fn a_file_of_which_a_byte_is_another_is_none() {
        let bytes = encode(&progress());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None);
        }
        assert_eq!(decode(b""), None);
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(
            numbers: [u64; 5], flags: [bool; 2], position in prop::option::of((any::<u64>(), 0..=Part::INDEX_MAX)),
        ) {
            let [started_unix_s, done, left, last_complete_unix_s, damaged_found] = numbers;
            let [under_way, paused] = flags;
            let position = position.and_then(|(chunk, index)| Part::new(ChunkId::from_raw(chunk), index));
            let progress = Progress {
                started_unix_s, under_way, paused, position, done, left, last_complete_unix_s, damaged_found,
            };
            prop_assert_eq!(decode(&encode(&progress)), Some(progress));
        }
    }
}
