//! The largest that each field of each request may be, and the first that it may not: nothing ends a master.

use std::fmt::Debug;

use bytes::Bytes;
use mooseng_protocol::frame::{self, BODY_MAX, FLAG_ERROR, Header};
use mooseng_protocol::limits::{
    COMMIT_MAX, DISKS_MAX, FAILED_MAX, INDEXES_MAX, LISTING_MAX, OPEN_MAX, RELEASE_MAX, TEXT_MAX, UNACKED_MAX,
};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_types::{
    FILE_SIZE_MAX, FsError, INLINE_MAX, NAME_MAX, SYMLINK_MAX, XATTR_NAMES_MAX, XATTR_VALUE_MAX,
};

use crate::core::testing::Leader;
use crate::desk::reply_frame;
use crate::group::{ENTRY_MAX, Proposal, Ticket};

/// How a request comes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comes {
    Done,
    Refused(FsError),
    /// Malformed: never to be sent again.
    Rejected,
    /// To be sent again later.
    Later,
}

struct Table {
    leader: Leader,
    session: u64,
    seq: u64,
}

impl Table {
    fn new() -> Self {
        let mut leader = Leader::new();
        leader.serve_chunks(1);
        leader.serve_chunks(2);
        let session = leader.open(1);
        Self { leader, session, seq: 0 }
    }

    fn meta(&mut self) -> Option<pb::RequestMeta> {
        self.seq += 1;
        Some(pb::RequestMeta { session: self.session, seq: self.seq, acked_below: self.seq })
    }

    fn check<R: Rpc + Debug>(&mut self, what: &str, request: &R, expected: Comes) {
        let found = match self.leader.ask(1, request) {
            Ok(_) => Comes::Done,
            Err(CallError::Refused(error)) => Comes::Refused(error),
            Err(CallError::Rejected { .. }) => Comes::Rejected,
            Err(CallError::Unavailable { .. }) => Comes::Later,
            Err(other) => panic!("{what} of {}: {other}", R::NAME),
        };
        assert_eq!(found, expected, "{what} of {}", R::NAME);
    }

    /// A request that is made with some number of bytes or items: the largest that is taken and what becomes of one more,
    /// and of all that a frame can carry.
    fn border<R: Rpc + Debug>(
        &mut self,
        what: &str,
        largest: usize,
        (taken, beyond): (Comes, Comes),
        make: impl Fn(Option<pb::RequestMeta>, usize) -> R,
    ) {
        for (length, expected) in [(largest, taken), (largest + 1, beyond)] {
            let meta = self.meta();
            self.check(what, &make(meta, length), expected);
        }
    }
}

const GONE: Comes = Comes::Refused(FsError::NotFound);
const LONG: Comes = Comes::Refused(FsError::NameTooLong);
const BAD: Comes = Comes::Refused(FsError::Invalid);

/// All that fits into a frame beside the rest of a request.
const HUGE: usize = BODY_MAX - 1024;

fn bytes(length: usize) -> Bytes {
    vec![b'x'; length].into()
}

fn file(table: &mut Table, name: &'static str) -> u64 {
    let meta = table.meta();
    let name = Bytes::from_static(name.as_bytes());
    let request = pb::CreateRequest { meta, parent: 1, name, kind: 8, ..Default::default() };
    table.leader.ask(1, &request).unwrap().attr.unwrap().inode
}

#[test]
fn names_and_targets_of_any_length_end_no_master() {
    let mut t = Table::new();
    for (largest, beyond) in [(NAME_MAX, LONG), (HUGE, LONG)] {
        let known = |comes| if largest == NAME_MAX { comes } else { LONG };
        let lookup = |_, length| pb::LookupRequest { parent: 1, name: bytes(length) };
        t.border("name", largest, (known(GONE), beyond), lookup);
        let unlink = |meta, length| pb::UnlinkRequest { meta, parent: 1, name: bytes(length) };
        t.border("name", largest, (known(GONE), beyond), unlink);
        let rmdir = |meta, length| pb::RmdirRequest { meta, parent: 1, name: bytes(length) };
        t.border("name", largest, (known(GONE), beyond), rmdir);
        let inode = 99;
        let link = |meta, length| pb::LinkRequest { meta, inode, new_parent: 1, new_name: bytes(length) };
        t.border("new_name", largest, (known(GONE), beyond), link);
        let rename = |old: usize, new: usize, meta| pb::RenameRequest {
            meta,
            parent: 1,
            name: bytes(old),
            new_parent: 1,
            new_name: bytes(new),
            ..Default::default()
        };
        t.border("name", largest, (known(GONE), beyond), |meta, length| rename(length, 1, meta));
        t.border("new_name", largest, (known(GONE), beyond), |meta, length| rename(1, length, meta));
        let create = |meta, length| pb::CreateRequest {
            meta,
            parent: 1,
            name: bytes(length),
            kind: 8,
            ..Default::default()
        };
        t.border("name", largest, (known(Comes::Done), beyond), create);
    }
    for (largest, taken) in [(SYMLINK_MAX, Comes::Done), (HUGE, LONG)] {
        let name = Bytes::from_static(b"link");
        t.border("target", largest, (taken, LONG), |meta, length| pb::CreateRequest {
            meta,
            parent: 1,
            name: name.clone(),
            kind: 10,
            target: bytes(length),
            ..Default::default()
        });
    }
    for (kind, mode, expected) in
        [(8, 0o7777, Comes::Done), (8, 0o10000, Comes::Rejected), (3, 0, Comes::Rejected)]
    {
        let meta = t.meta();
        let name = Bytes::from_static(b"moded");
        let request =
            pb::CreateRequest { meta, parent: 1, name, kind, mode, rdev: u32::MAX, ..Default::default() };
        t.check("kind and mode", &request, expected);
    }
}

#[test]
fn extended_attributes_of_any_size_end_no_master() {
    let mut t = Table::new();
    let inode = file(&mut t, "file");
    for largest in [NAME_MAX, HUGE] {
        let known = |comes| if largest == NAME_MAX { comes } else { LONG };
        let none = Comes::Refused(FsError::NoAttribute);
        t.border("name", largest, (known(Comes::Done), LONG), |meta, length| pb::SetXattrRequest {
            meta,
            inode,
            name: bytes(length),
            ..Default::default()
        });
        t.border("name", largest, (known(Comes::Done), LONG), |meta, length| pb::RemoveXattrRequest {
            meta,
            inode,
            name: bytes(length),
        });
        t.border("name", largest, (none, none), |_, length| pb::GetXattrRequest {
            inode,
            name: bytes(length),
        });
    }
    let big = Comes::Refused(FsError::AttributeTooBig);
    for (largest, taken) in [(XATTR_VALUE_MAX, Comes::Done), (HUGE, big)] {
        t.border("value", largest, (taken, big), |meta, length| pb::SetXattrRequest {
            meta,
            inode,
            name: bytes(NAME_MAX),
            value: bytes(length),
            ..Default::default()
        });
    }
    let mut names = NAME_MAX + 1;
    for number in 0.. {
        let name = Bytes::from(format!("{number:0>255}"));
        let fits = names + name.len() < XATTR_NAMES_MAX;
        let expected = if fits { Comes::Done } else { Comes::Refused(FsError::NoSpace) };
        let meta = t.meta();
        t.check("names", &pb::SetXattrRequest { meta, inode, name, ..Default::default() }, expected);
        names += NAME_MAX + 1;
        if !fits {
            break;
        }
    }
    let listed = t.leader.ask(1, &pb::ListXattrRequest { inode }).unwrap().names;
    assert_eq!(listed.iter().map(|name| name.len() + 1).sum::<usize>(), XATTR_NAMES_MAX);
}

#[test]
fn lists_of_any_length_end_no_master() {
    let mut t = Table::new();
    let (session, inode) = (t.session, file(&mut t, "file"));
    let done_or_rejected = (Comes::Done, Comes::Rejected);
    t.border("failed_servers", FAILED_MAX, done_or_rejected, |meta, length| pb::GrantWriteRequest {
        meta,
        inode,
        failed_servers: vec![u32::MAX; length],
        ..Default::default()
    });
    let chunk = pb::CommittedChunk { index: u32::MAX, chunk: u64::MAX, version: u32::MAX, release: true };
    let lost = Comes::Refused(FsError::LeaseLost);
    t.border("chunks", COMMIT_MAX, (lost, Comes::Rejected), |meta, length| pb::CommitWriteRequest {
        meta,
        inode,
        chunks: vec![chunk; length],
        ..Default::default()
    });
    t.border("indexes", INDEXES_MAX, done_or_rejected, |meta, length| pb::ReleaseLeaseRequest {
        meta,
        inode,
        indexes: vec![u32::MAX; length],
    });
    t.border("inodes", RELEASE_MAX, done_or_rejected, |_, length| pb::ReleaseRequest {
        session,
        inodes: vec![u64::MAX; length],
        number: u64::MAX,
    });
    t.border("open_inodes", OPEN_MAX, done_or_rejected, |_, length| pb::ResumeSessionRequest {
        session,
        open_inodes: (0..length as u64).collect(),
        list_follows: true,
        as_of: u64::MAX,
    });
    t.border("data", INLINE_MAX as usize, (Comes::Refused(FsError::LeaseHeld), BAD), |meta, length| {
        pb::WriteInlineRequest { meta, inode, data: bytes(length), ..Default::default() }
    });
    let meta = t.meta();
    let data = pb::WriteInlineRequest { meta, inode, data: bytes(HUGE), offset: u32::MAX, append: true };
    t.check("data", &data, BAD);
    let disk = || pb::DiskStatus {
        total_bytes: u64::MAX,
        free_bytes: u64::MAX,
        chunks: u64::MAX,
        ..Default::default()
    };
    t.border("disks", DISKS_MAX, done_or_rejected, |_, length| pb::HeartbeatRequest {
        server: 1,
        disks: vec![disk(); length],
        ..Default::default()
    });
    t.check("sums", &pb::StatFsRequest {}, Comes::Done);
    t.check("sums", &pb::ClusterStatusRequest {}, Comes::Done);
    let copy =
        pb::CopyStatus { chunk: u64::MAX, version: u32::MAX, in_doubt: true, part: 48, verified: true };
    let report = pb::ChunkReportRequest { server: 1, chunks: vec![copy; 100_000], ..Default::default() };
    t.check("chunks", &report, Comes::Done);
}

#[test]
fn texts_of_any_length_end_no_master() {
    let mut t = Table::new();
    let text = |length: usize| "x".repeat(length);
    let register = |name: usize, address: usize, uuid: usize| pb::RegisterServerRequest {
        uuid: bytes(uuid),
        name: text(name),
        address: text(address),
        ..Default::default()
    };
    for largest in [TEXT_MAX, HUGE] {
        let taken = if largest == TEXT_MAX { Comes::Done } else { Comes::Rejected };
        t.border("name", largest, (taken, Comes::Rejected), |_, length| register(length, 0, 16));
        t.border("address", largest, (taken, Comes::Rejected), |_, length| register(0, length, 16));
    }
    let place = |region: usize, rack: usize, labels: usize| pb::RegisterServerRequest {
        uuid: bytes(16),
        region: text(region),
        rack: text(rack),
        labels: (0..labels).map(|label| format!("l{label}")).collect(),
        ..Default::default()
    };
    let (done, rejected) = (Comes::Done, Comes::Rejected);
    t.border("region", TEXT_MAX, (done, rejected), |_, length| place(length, 0, 0));
    t.border("rack", TEXT_MAX, (done, rejected), |_, length| place(0, length, 0));
    t.border("labels", 32, (done, rejected), |_, length| place(0, 0, length));
    t.border("uuid", 16, (Comes::Done, Comes::Rejected), |_, length| register(0, 0, length));
    t.border("client_id", 16, (Comes::Done, Comes::Rejected), |_, length| pb::OpenSessionRequest {
        client_id: bytes(length),
        // Of any length: it is cut.
        name: text(HUGE),
        replaces: true,
        cell: 0,
    });
    t.check("master", &pb::AddMasterRequest { master: text(HUGE), ..Default::default() }, Comes::Rejected);
    t.check("master", &pb::RemoveMasterRequest { master: text(HUGE), ..Default::default() }, Comes::Rejected);
    t.check(
        "master",
        &pb::TransferLeaderRequest { master: text(HUGE), ..Default::default() },
        Comes::Rejected,
    );
    let sessions = t.leader.core.state().sessions();
    assert!(sessions.iter().all(|row| row.name.len() <= 200), "{sessions:?}");
}

#[test]
fn numbers_of_any_size_end_no_master() {
    let mut t = Table::new();
    let inode = file(&mut t, "file");
    let large = Comes::Refused(FsError::FileTooLarge);
    for (size, expected) in
        [(FILE_SIZE_MAX, Comes::Done), (FILE_SIZE_MAX + 1, large), (u64::MAX, large), (0, Comes::Done)]
    {
        let meta = t.meta();
        let at = pb::SetTime { now: false, at_ns: i64::MIN };
        let request = pb::SetAttrRequest {
            meta,
            inode,
            size: Some(size),
            mtime: Some(at),
            uid: Some(u32::MAX),
            ..Default::default()
        };
        t.check("size", &request, expected);
        let meta = t.meta();
        let mtime_ns = Some(i64::MAX);
        let request =
            pb::CommitWriteRequest { meta, inode, size_at_least: size, mtime_ns, ..Default::default() };
        t.check("size_at_least", &request, expected);
    }
    for (index, expected) in [((1 << 30) - 1, Comes::Done), (1 << 30, large), (u32::MAX, large)] {
        let meta = t.meta();
        t.check("index", &pb::GrantWriteRequest { meta, inode, index, ..Default::default() }, expected);
    }
    let session = t.session;
    let request = pb::LocateRequest { session, inode, first_index: u32::MAX, count: u32::MAX };
    t.check("first_index", &request, Comes::Done);
    let request = pb::ReaddirRequest { inode: 1, cookie: u64::MAX, entries_max: u32::MAX, plus: true };
    t.check("cookie", &request, Comes::Done);
    t.check("number", &pb::OpenRequest { session, inode, number: u64::MAX }, Comes::Done);
    let chmod = |seq, acked_below| {
        let meta = Some(pb::RequestMeta { session, seq, acked_below });
        pb::SetAttrRequest { meta, inode, mode: Some(0o600), ..Default::default() }
    };
    let acked = t.seq;
    t.check("seq", &chmod(acked + UNACKED_MAX - 1, acked), Comes::Done);
    t.check("seq", &chmod(acked + UNACKED_MAX, acked), Comes::Later);
    t.check("seq", &chmod(u64::MAX, 0), Comes::Later);
    t.check("seq", &chmod(acked + UNACKED_MAX, acked + 1), Comes::Done);
    t.check("acked_below", &chmod(5, 6), Comes::Rejected);
}

#[test]
fn a_full_listing_with_the_longest_names_fits_into_a_frame() {
    let mut t = Table::new();
    for number in 0..LISTING_MAX + 10 {
        let meta = t.meta();
        let name = Bytes::from(format!("{number:0>255}"));
        let request = pb::CreateRequest { meta, parent: 1, name, kind: 8, ..Default::default() };
        t.leader.ask(1, &request).unwrap();
    }
    let request = pb::ReaddirRequest { inode: 1, cookie: 0, entries_max: u32::MAX, plus: true };
    let listing = t.leader.ask(1, &request).unwrap();
    assert_eq!((listing.entries.len(), listing.end), (LISTING_MAX, false));
}

#[test]
fn an_answer_that_does_not_fit_is_an_error_and_so_is_a_command() {
    let header = Header { kind: pb::ListXattrRequest::KIND, request: 7, ..Header::default() };
    let bytes = reply_frame(header, Ok(&vec![0; BODY_MAX + 1]));
    let frame = frame::decode(&mut bytes::BytesMut::from(&bytes[..])).unwrap().unwrap();
    assert_eq!((frame.header.flags & FLAG_ERROR, frame.header.request), (FLAG_ERROR, 7));
    let mut t = Table::new();
    let inodes = vec![mooseng_types::InodeId::from_raw(u64::MAX); ENTRY_MAX / 10];
    let command = mooseng_meta::RepairCommand::ReapOrphans { inodes }.into();
    t.leader.core.groups.root_mut().gather(Proposal { request: None, command, ticket: Ticket(u64::MAX) });
    let before = t.leader.core.state().applied_index();
    t.leader.pass(std::time::Duration::from_millis(200));
    assert_eq!(t.leader.core.state().applied_index(), before);
    file(&mut t, "it goes on");
}
