//! What is written is read back; nothing else is, and nothing panics. The bytes are those of the format's first day.

use bytes::Bytes;
use mooseng_types::{
    ChunkId, ChunkIndex, ChunkVersion, ClassId, ClusterId, FileKind, FileName, FsError, InodeId, Level,
    MasterId, Part, ServerId, SessionId, StorageClass, TimeNs,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::row::chunk::DeadChunk;
use super::row::class::encode as class_row;
use super::row::{Base, Digest, Indexed, Number, RowValue};
use super::samples;
use crate::chunk::ChunkRow;
use crate::codec::CodecError;
use crate::command::Entry;
use crate::counters::Counters;
use crate::inode::{Dentry, InodeRow};
use crate::key;
use crate::layout::{Layout, Stripe};
use crate::membership::{Member, Membership};
use crate::response::{Grant, Response};
use crate::server::{ServerMode, ServerPlace, ServerRow};
use crate::session::{SessionRecord, Window};
use crate::settings::{Settings, Totals};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn inode_row() -> InodeRow {
    let time = TimeNs::from_raw;
    InodeRow {
        kind: FileKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        nlink: 3,
        rdev: 0x0102,
        size: 1 << 33,
        atime: time(1),
        mtime: time(2),
        ctime: time(3),
        btime: time(-4),
        parent: InodeId::from_raw(9),
        content: 10,
        xattr_names: 11,
        class: ClassId::from_raw(0),
    }
}

fn chunk_row() -> ChunkRow {
    ChunkRow {
        inode: InodeId::from_raw(300),
        index: ChunkIndex::from_raw(2),
        committed: ChunkVersion::from_raw(4),
        granted: ChunkVersion::from_raw(5),
        lease: Some(SessionId::from_raw(6)),
        layout: Layout::Copies(vec![ServerId::from_raw(1), ServerId::from_raw(200)]),
        valid_length: 64 << 20,
        differs: true,
    }
}

fn dead_chunk(index: u8) -> DeadChunk {
    DeadChunk(vec![(ServerId::from_raw(1), index)])
}

fn membership() -> Membership {
    let member = |number, life, voter, wants_vote| Member {
        id: MasterId::new(number, life),
        name: format!("m{number}"),
        address: format!("h{number}:9420"),
        voter,
        wants_vote,
    };
    Membership { epoch: 300, members: vec![member(1, 0, true, true), member(2, 7, false, true)] }
}

/// Encodes and reads back.
fn row<T: RowValue + PartialEq + std::fmt::Debug>(row: T, encode: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let bytes = encode(&row);
    assert_eq!(T::decode(&bytes).as_ref(), Ok(&row));
    assert!(T::decode(&bytes[..bytes.len() - 1]).is_err());
    assert_eq!(T::decode(&[&bytes[..], &[0]].concat()).err(), Some(CodecError::Trailing(1)));
    assert_eq!(T::decode(&[&[99], &bytes[1..]].concat()).err(), Some(CodecError::Format(99)));
    bytes
}

fn rows() -> Vec<(&'static str, Vec<u8>)> {
    let settings = Settings { cluster: ClusterId::from_bytes([0xab; 16]), copies: 2 };
    let totals = Totals { inodes: 1, used_bytes: 2, chunks: 3 };
    let counters = Counters { next_inode: 300, next_chunk: 5, next_session: 6, next_server: 7, totals };
    let dentry = Dentry { inode: InodeId::from_raw(300), kind: FileKind::Directory };
    let classed = InodeRow { class: ClassId::from_raw(0x0102), ..inode_row() };
    let stripe = Stripe::new(2, 1, [1, 200, 3].map(ServerId::from_raw).to_vec()).unwrap();
    let striped = ChunkRow { layout: Layout::Striped(stripe), ..chunk_row() };
    let record = SessionRecord { client: [1; 16], name: "host".to_owned() };
    let server = ServerRow {
        server: ServerId::from_raw(1),
        uuid: [3; 16],
        name: "cs1".to_owned(),
        address: "h:9422".to_owned(),
        place: ServerPlace::default(),
        mode: ServerMode::Normal,
    };
    let placed = ServerRow { place: samples::sample_place(), ..server.clone() };
    let draining = ServerRow { mode: ServerMode::Draining, ..placed.clone() };
    let until = TimeNs::from_raw(-2);
    let maintained = ServerRow { mode: ServerMode::Maintenance { until }, ..placed.clone() };
    vec![
        ("inode", row(inode_row(), |row| row.encode(Level::FIRST).to_vec())),
        ("inode of level 2", row(classed, |row| row.encode(Level::IDENTITY).to_vec())),
        ("dentry", row(dentry, |row| row.encode().to_vec())),
        ("chunk", row(chunk_row(), |row| row.encode(Level::FIRST))),
        ("chunk of level 2", row(chunk_row(), |row| row.encode(Level::IDENTITY))),
        ("striped chunk", row(striped, |row| row.encode(Level::IDENTITY))),
        ("session", row(record, SessionRecord::encode)),
        ("window", row(Window { acked_below: 300, highest: 301, dirty: false }, Window::encode)),
        ("server", row(server, |row| row.encode(Level::IDENTITY))),
        ("server of level 3", row(placed, |row| row.encode(Level::CLASSES))),
        ("draining server", row(draining, |row| row.encode(Level::CLASSES))),
        ("server in maintenance", row(maintained, |row| row.encode(Level::CLASSES))),
        ("class", row(samples::sample_class(), |class| class_row(class).to_vec())),
        ("settings", row(settings, Settings::encode)),
        ("counters", row(counters, Counters::encode)),
        ("dead chunk", row(dead_chunk(0), |row| row.encode(Level::FIRST))),
        ("dead chunk of level 2", row(dead_chunk(48), |row| row.encode(Level::IDENTITY))),
        ("number", row(Number(u64::MAX), |row| row.encode())),
        ("membership", row(membership(), Membership::encode)),
        ("base", row(Base { index: 300, term: 2 }, |row| row.encode())),
        ("digest", row(Digest(0x0102_0304_0506_0708), |row| row.encode())),
        ("indexed so far", row(Indexed(Some(ChunkId::from_raw(300))), |row| row.encode())),
        ("all indexed", row(Indexed(None), |row| row.encode())),
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::Done,
        Response::Attr(inode_row().attr(InodeId::from_raw(300))),
        Response::Session(SessionId::from_raw(4)),
        Response::Server(ServerId::from_raw(5)),
        Response::Grant(Grant {
            chunk: ChunkId::from_raw(6),
            base_version: ChunkVersion::from_raw(7),
            version: ChunkVersion::from_raw(8),
            servers: vec![ServerId::from_raw(9)],
            valid_length: 64 << 20,
            inline: Some(Bytes::from_static(b"inline")),
            fresh: true,
            attr: inode_row().attr(InodeId::from_raw(300)),
        }),
        Response::Refused(FsError::NotEmpty),
        Response::Class(ClassId::from_raw(300)),
        Response::Changed(300),
        Response::Batch(vec![Response::Done, Response::Refused(FsError::NotEmpty)]),
    ]
}

fn keys() -> Vec<(&'static str, Vec<u8>)> {
    let inode = InodeId::from_raw(0x0102_0304_0506_0708);
    let (session, chunk) = (SessionId::from_raw(0x11), ChunkId::from_raw(0x22));
    let name = FileName::parse(b"name").unwrap();
    vec![
        ("format", key::FORMAT.to_vec()),
        ("applied", key::APPLIED.to_vec()),
        ("counters", key::COUNTERS.to_vec()),
        ("settings", key::SETTINGS.to_vec()),
        ("inode", key::inode(inode).to_vec()),
        ("dentry", key::dentry(inode, &name).to_vec()),
        ("file chunk", key::file_chunk(inode, ChunkIndex::from_raw(9)).to_vec()),
        ("chunk", key::chunk(chunk).to_vec()),
        ("inline", key::inline(inode).to_vec()),
        ("target", key::target(inode).to_vec()),
        ("xattr", key::xattr(inode, b"user.a").to_vec()),
        ("session", key::session(session).to_vec()),
        ("window", key::window(session).to_vec()),
        ("response", key::response(session, 0x33).to_vec()),
        ("lease", key::lease(session, chunk).to_vec()),
        ("client", key::client(&[1; 16]).to_vec()),
        ("uuid", key::server_uuid(&[2; 16]).to_vec()),
        ("orphan", key::orphan(inode).to_vec()),
        ("dead chunk", key::dead_chunk(chunk).to_vec()),
        ("server", key::server(ServerId::from_raw(0x44)).to_vec()),
        ("membership", key::MEMBERSHIP.to_vec()),
        ("base", key::BASE.to_vec()),
        ("digest", key::DIGEST.to_vec()),
        ("level", key::LEVEL.to_vec()),
        ("indexed", key::INDEXED.to_vec()),
        ("class", key::class(ClassId::from_raw(0x0102)).to_vec()),
        ("objects of class", key::class_objects(ClassId::from_raw(0x0102)).to_vec()),
        ("held", key::held(ServerId::from_raw(0x44), Part::new(chunk, 0x30).unwrap()).to_vec()),
    ]
}

/// What the format was when it was fixed. A difference here is a new format, not a new fixture.
#[test]
fn the_bytes_are_those_of_the_formats_first_day() {
    let mut lines = Vec::new();
    for entry in samples::sample_entries() {
        assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(&entry));
        let command = format!("{:?}", entry.command);
        let (_family, command) = command.split_once('(').unwrap();
        let variant: String = command.chars().take_while(|c| c.is_alphanumeric()).collect();
        lines.push(format!("entry {variant}: {}", hex(&entry.encode())));
    }
    for response in responses() {
        assert_eq!(Response::decode(&response.encode()).as_ref(), Ok(&response));
        let variant = format!("{response:?}");
        let variant: String = variant.chars().take_while(|c| c.is_alphanumeric()).collect();
        lines.push(format!("response {variant}: {}", hex(&response.encode())));
    }
    lines.extend(rows().into_iter().map(|(name, bytes)| format!("row {name}: {}", hex(&bytes))));
    lines.extend(keys().into_iter().map(|(name, bytes)| format!("key {name}: {}", hex(&bytes))));
    let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
    assert_eq!(lines, golden, "\n{}", lines.join("\n"));
}

#[test]
fn a_count_above_what_is_there_is_refused_before_it_allocates() {
    let entry = &samples::sample_entries()[19];
    let mut bytes = entry.encode();
    let at = bytes.len() - 3;
    assert_eq!(bytes[at], 1);
    bytes.splice(at..=at, [0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(Entry::decode(&bytes), Err(CodecError::Truncated));
}

#[test]
fn a_part_that_no_chunk_has_is_refused_and_none_is_ever_called_a_copy() {
    let row = dead_chunk(49).encode(Level::IDENTITY);
    assert_eq!(DeadChunk::decode(&row), Err(CodecError::Value("part")));
    let row = dead_chunk(1).encode(Level::FIRST);
    assert_eq!((row[0], DeadChunk::decode(&row)), (2, Ok(dead_chunk(1))));
}

#[test]
fn a_stripe_that_cannot_be_is_refused() {
    let good = rows().into_iter().find(|(name, _)| *name == "striped chunk").unwrap().1;
    let at = good.windows(7).position(|bytes| bytes == [1, 2, 1, 3, 1, 200, 1]).unwrap();
    let stripe = Err(CodecError::Value("stripe"));
    for (field, new, error) in [
        (0, 2, Err(CodecError::Value("layout"))),
        (1, 0, stripe.clone()),
        (1, 3, stripe.clone()),
        (2, 2, stripe),
    ] {
        let mut bad = good.clone();
        bad[at + field] = new;
        assert_eq!(ChunkRow::decode(&bad), error, "{new} in field {field}");
    }
}

#[test]
fn members_out_of_order_or_twice_are_refused() {
    let group = membership();
    for wrong in [[1, 0], [0, 0]] {
        let members = wrong.map(|at: usize| group.members[at].clone()).to_vec();
        let bytes = Membership { epoch: 1, members }.encode();
        assert_eq!(Membership::decode(&bytes), Err(CodecError::Value("order of members")));
    }
}

#[test]
fn a_name_that_is_none_is_refused() {
    let bytes = samples::sample_entries()[7].encode();
    let at = bytes.windows(4).position(|window| window == b"name").unwrap();
    let mut bad = bytes;
    bad[at] = b'/';
    assert_eq!(Entry::decode(&bad), Err(CodecError::Value("name")));
}

fn decode_all(bytes: &[u8]) {
    fn row<T: RowValue>(bytes: &[u8]) {
        drop(T::decode(bytes));
    }
    drop((Entry::decode(bytes), Response::decode(bytes)));
    row::<InodeRow>(bytes);
    row::<Dentry>(bytes);
    row::<ChunkRow>(bytes);
    row::<SessionRecord>(bytes);
    row::<Window>(bytes);
    row::<ServerRow>(bytes);
    row::<StorageClass>(bytes);
    row::<Settings>(bytes);
    row::<Counters>(bytes);
    row::<DeadChunk>(bytes);
    row::<Number>(bytes);
    row::<Membership>(bytes);
    row::<Base>(bytes);
    row::<Digest>(bytes);
    row::<Indexed>(bytes);
}

#[test]
fn the_key_of_what_a_server_has_is_read_back_and_no_other() {
    let held = (ServerId::from_raw(0x0102_0304), Part::new(ChunkId::from_raw(u64::MAX - 1), 7).unwrap());
    let key = key::held(held.0, held.1);
    assert_eq!(key::held_at(&key), Some(held));
    assert!(key.starts_with(&key::held_by(held.0)));
    for other in [
        &key[..13],
        &[&key[..], &[0]].concat(),
        &[&b"x"[..], &key[1..]].concat(),
        &[&key[..13], &[49]].concat(),
    ] {
        assert_eq!(key::held_at(other), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_entry_is_read_back(entry in samples::entries()) {
        prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }

    #[test]
    fn any_answer_is_read_back(response in samples::responses()) {
        prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn any_number_is_read_back(number in any::<u64>(), shift in 0u32..64) {
        let row = Number(number >> shift);
        prop_assert_eq!(Number::decode(&row.encode()), Ok(row));
    }

    #[test]
    fn any_chunk_is_read_back(row in samples::chunk_rows(), level in samples::levels()) {
        let bytes = row.encode(level);
        let plain = level == Level::FIRST && matches!(row.layout, Layout::Copies(_));
        prop_assert_eq!(bytes[0], if plain { 1 } else { 2 });
        prop_assert_eq!(ChunkRow::decode(&bytes), Ok(row));
    }

    /// Of each of its two formats a row has one form.
    #[test]
    fn a_chunk_has_one_form(
        row in samples::chunk_rows(),
        level in samples::levels(),
        at in any::<prop::sample::Index>(),
        new: u8,
    ) {
        let mut bytes = row.encode(level);
        let at = at.index(bytes.len());
        bytes[at] = new;
        let level = if bytes[0] == 1 { Level::FIRST } else { Level::IDENTITY };
        if let Ok(row) = ChunkRow::decode(&bytes) {
            prop_assert_eq!(row.encode(level), bytes);
        }
    }

    #[test]
    fn any_dead_chunk_is_read_back(row in samples::dead_chunks(), level in samples::levels()) {
        prop_assert_eq!(DeadChunk::decode(&row.encode(level)), Ok(row));
    }

    #[test]
    fn any_class_is_read_back(class in samples::classes()) {
        prop_assert_eq!(StorageClass::decode(&class_row(&class)), Ok(class));
    }

    #[test]
    fn a_class_has_one_form(class in samples::classes(), at in any::<prop::sample::Index>(), new: u8) {
        let mut bytes = class_row(&class).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = new;
        if let Ok(class) = StorageClass::decode(&bytes) {
            prop_assert_eq!(class_row(&class), bytes);
        }
    }

    #[test]
    fn any_membership_is_read_back(group in samples::memberships()) {
        prop_assert_eq!(Membership::decode(&group.encode()), Ok(group));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes in vec(any::<u8>(), 0..200), tag in 0u8..64) {
        decode_all(&bytes);
        for format in [2, 1] {
            if let Some(first) = bytes.first_mut() {
                *first = format;
            }
            decode_all(&bytes);
        }
        // A well-formed head, so that the fields of every command are reached.
        let mut entry = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, tag];
        entry.extend_from_slice(&bytes);
        decode_all(&entry);
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(entry in samples::entries(), at in any::<prop::sample::Index>(), new: u8) {
        let mut bytes = entry.encode();
        let at = at.index(bytes.len());
        bytes[at] = new;
        decode_all(&bytes);
        decode_all(&bytes[..at]);
    }

    /// What one value is decoded from, it is encoded to: no two forms of one value.
    #[test]
    fn an_entry_has_one_form(entry in samples::entries(), at in any::<prop::sample::Index>(), new: u8) {
        let mut bytes = entry.encode();
        let at = at.index(bytes.len());
        bytes[at] = new;
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes);
        }
    }
}
