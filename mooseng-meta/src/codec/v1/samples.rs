//! One of each thing that is encoded, and strategies that make any of them. It is long because it is a list: an entry for each kind.

use bytes::Bytes;
use mooseng_types::{
    Attr, ChunkId, ChunkIndex, ChunkVersion, ClassId, ClassName, ClusterId, FileKind, FileName, FsError,
    Goal, InodeId, Labels, Level, MasterId, Part, RequestId, ServerId, SessionId, SetAttr, SetTime,
    StorageClass, Strictness, TimeNs,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::row::chunk::DeadChunk;
use crate::chunk::ChunkRow;
use crate::command::{
    AttrCommand, ClassCommand, ClusterCommand, Command, CommandBatch, CommittedChunk, ContentCommand, Entry,
    NameCommand, RenameMode, RepairCommand, Request, XattrMode,
};
use crate::layout::{Layout, Stripe};
use crate::membership::{Member, Membership};
use crate::response::{Grant, Response};
use crate::server::{ServerMode, ServerPlace};

pub(crate) fn inodes() -> impl Strategy<Value = InodeId> {
    prop_oneof![1u64..9, any::<u64>()].prop_map(InodeId::from_raw)
}

fn sessions() -> impl Strategy<Value = SessionId> {
    any::<u64>().prop_map(SessionId::from_raw)
}

fn names() -> impl Strategy<Value = FileName> {
    vec(any::<u8>(), 1..256).prop_filter_map("not a name", |bytes| FileName::parse(&bytes).ok())
}

pub(crate) fn servers() -> impl Strategy<Value = Vec<ServerId>> {
    vec(server(), 0..5)
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

pub(crate) fn times() -> impl Strategy<Value = TimeNs> {
    any::<i64>().prop_map(TimeNs::from_raw)
}

pub(crate) fn kinds() -> impl Strategy<Value = FileKind> {
    (0u8..16).prop_filter_map("no kind", FileKind::from_raw)
}

pub(crate) fn memberships() -> impl Strategy<Value = Membership> {
    let member = (any::<u16>(), any::<u32>(), ".{0,12}", ".{0,20}", any::<bool>(), any::<bool>()).prop_map(
        |(number, life, name, address, voter, wants_vote)| {
            let id = MasterId::new(number, life);
            Member { id, name, address, voter, wants_vote }
        },
    );
    (any::<u64>(), vec(member, 0..9)).prop_map(|(epoch, members)| {
        let mut group = Membership { epoch, members: Vec::new() };
        members.into_iter().for_each(|member| group.put(member));
        group
    })
}

fn chunks() -> impl Strategy<Value = ChunkId> {
    any::<u64>().prop_map(ChunkId::from_raw)
}

pub(crate) fn levels() -> impl Strategy<Value = Level> {
    prop_oneof![Just(Level::FIRST), Just(Level::IDENTITY), Just(Level::CLASSES)]
}

fn server() -> impl Strategy<Value = ServerId> {
    any::<u32>().prop_map(ServerId::from_raw)
}

/// With copies only, or with parts.
pub(crate) fn dead_chunks() -> impl Strategy<Value = DeadChunk> {
    let parts = || vec((server(), 0..=Part::INDEX_MAX), 0..50);
    prop_oneof![vec((server(), Just(0)), 0..5), parts()].prop_map(DeadChunk)
}

fn layouts() -> impl Strategy<Value = Layout> {
    let stripe = (1..=Part::DATA_MAX, 0..=Part::PARITY_MAX).prop_flat_map(|(k, m)| {
        let parts = vec(server(), usize::from(k) + usize::from(m));
        parts.prop_filter_map("no stripe", move |parts| Stripe::new(k, m, parts))
    });
    prop_oneof![servers().prop_map(Layout::Copies), stripe.prop_map(Layout::Striped)]
}

pub(crate) fn chunk_rows() -> impl Strategy<Value = ChunkRow> {
    let versions = [versions(), versions()];
    (inodes(), indexes(), versions, option::of(sessions()), layouts(), any::<u32>(), any::<bool>()).prop_map(
        |(inode, index, [committed, granted], lease, layout, valid_length, differs)| ChunkRow {
            inode,
            index,
            committed,
            granted,
            lease,
            layout,
            valid_length,
            differs,
        },
    )
}

fn versions() -> impl Strategy<Value = ChunkVersion> {
    any::<u32>().prop_map(ChunkVersion::from_raw)
}

fn indexes() -> impl Strategy<Value = ChunkIndex> {
    any::<u32>().prop_map(ChunkIndex::from_raw)
}

fn set_times() -> impl Strategy<Value = SetTime> {
    prop_oneof![Just(SetTime::Now), times().prop_map(SetTime::At)]
}

fn changes() -> impl Strategy<Value = SetAttr> {
    let numbers = (option::of(any::<u16>()), option::of(any::<u32>()), option::of(any::<u32>()));
    (numbers, option::of(any::<u64>()), option::of(set_times()), option::of(set_times()))
        .prop_map(|((mode, uid, gid), size, atime, mtime)| SetAttr { mode, uid, gid, size, atime, mtime })
}

fn cluster_commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        (any::<[u8; 16]>(), any::<u8>()).prop_map(|(id, copies)| ClusterCommand::Bootstrap {
            cluster: ClusterId::from_bytes(id),
            copies
        }
        .into()),
        (any::<[u8; 16]>(), ".{0,20}").prop_map(|(client, name)| ClusterCommand::OpenSession {
            client,
            name
        }
        .into()),
        sessions().prop_map(|session| ClusterCommand::CloseSession { session }.into()),
        (any::<[u8; 16]>(), ".{0,20}", ".{0,20}").prop_map(|(uuid, name, address)| {
            ClusterCommand::RegisterServer { uuid, name, address, place: None }.into()
        }),
        (any::<[u8; 16]>(), ".{0,20}", ".{0,20}", places()).prop_map(|(uuid, name, address, place)| {
            ClusterCommand::RegisterServer { uuid, name, address, place: Some(place) }.into()
        }),
        (any::<u32>(), modes()).prop_map(|(server, mode)| {
            ClusterCommand::SetServerMode { server: ServerId::from_raw(server), mode }.into()
        }),
        any::<u32>()
            .prop_map(|server| ClusterCommand::ForgetServer { server: ServerId::from_raw(server) }.into()),
        levels().prop_map(|level| ClusterCommand::RaiseLevel { level }.into()),
        (chunks(), any::<u32>()).prop_map(|(from, count)| ClusterCommand::IndexChunks { from, count }.into()),
        (chunks(), versions(), any::<u32>()).prop_map(|(chunk, version, server)| RepairCommand::AddReplica {
            chunk,
            version,
            server: ServerId::from_raw(server)
        }
        .into()),
        (chunks(), any::<u32>()).prop_map(|(chunk, server)| RepairCommand::RemoveReplica {
            chunk,
            server: ServerId::from_raw(server)
        }
        .into()),
        (chunks(), versions())
            .prop_map(|(chunk, granted)| RepairCommand::BeginSettle { chunk, granted }.into()),
        (chunks(), versions())
            .prop_map(|(chunk, version)| RepairCommand::EndSettle { chunk, version }.into()),
        vec(inodes(), 0..5).prop_map(|inodes| RepairCommand::ReapOrphans { inodes }.into()),
        vec(chunks(), 0..5).prop_map(|chunks| RepairCommand::ForgetDead { chunks }.into()),
    ]
}

/// Goals as people write them.
fn goals() -> impl Strategy<Value = Goal> {
    const GOALS: [&str; 7] = ["*", "2", "A,B", "3BC/[RACK]:s", "ssd&!x+A[B+C]", "3/AX-Z+hdd:l", "9*"];
    prop::sample::select(&GOALS[..]).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn classes() -> impl Strategy<Value = StorageClass> {
    let numbers = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u8>());
    let others = [option::of(goals()), option::of(goals()), option::of(goals())];
    let strictness = prop::sample::select(&Strictness::ALL[..]);
    ("[a-z0-9][a-zA-Z0-9._+-]{0,20}", goals(), others, numbers, strictness, "[^\\p{C}]{0,40}").prop_map(
        |(name, keep, [create, archive, trash], numbers, strictness, description)| {
            let (archive_delay_s, archive_length_min_bytes, trash_retention_min_s, priority) = numbers;
            StorageClass {
                name: ClassName::parse(&name).unwrap(),
                keep,
                create,
                archive,
                trash,
                archive_delay_s,
                archive_length_min_bytes,
                trash_retention_min_s,
                strictness,
                priority,
                description,
            }
        },
    )
}

pub(crate) fn modes() -> impl Strategy<Value = ServerMode> {
    prop_oneof![
        Just(ServerMode::Normal),
        Just(ServerMode::Draining),
        times().prop_map(|until| ServerMode::Maintenance { until }),
    ]
}

pub(crate) fn places() -> impl Strategy<Value = ServerPlace> {
    (prop::sample::subsequence(&["A", "B", "rack-friendly", "ssd"][..], 0..4), ".{0,9}", ".{0,9}").prop_map(
        |(labels, region, rack)| ServerPlace { labels: Labels::parse(&labels).unwrap(), region, rack },
    )
}

fn class_commands() -> impl Strategy<Value = Command> {
    let ids = || any::<u16>().prop_map(ClassId::from_raw);
    prop_oneof![
        classes().prop_map(|class| ClassCommand::Create { class: Box::new(class) }.into()),
        (ids(), classes()).prop_map(|(id, class)| ClassCommand::Change { id, class: Box::new(class) }.into()),
        ids().prop_map(|id| ClassCommand::Remove { id }.into()),
        (ids(), vec(inodes(), 0..5)).prop_map(|(id, inodes)| ClassCommand::Set { id, inodes }.into()),
    ]
}

fn name_commands() -> impl Strategy<Value = Command> {
    let modes =
        prop_oneof![Just(RenameMode::Replace), Just(RenameMode::NoReplace), Just(RenameMode::Exchange)];
    let numbers = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u32>());
    prop_oneof![
        (inodes(), names(), kinds(), numbers, payload()).prop_map(
            |(parent, name, kind, (mode, uid, gid, rdev), target)| NameCommand::Create {
                parent,
                name,
                kind,
                mode,
                uid,
                gid,
                rdev,
                target
            }
            .into()
        ),
        (inodes(), inodes(), names()).prop_map(|(inode, new_parent, new_name)| NameCommand::Link {
            inode,
            new_parent,
            new_name
        }
        .into()),
        (inodes(), names()).prop_map(|(parent, name)| NameCommand::Unlink { parent, name }.into()),
        (inodes(), names()).prop_map(|(parent, name)| NameCommand::Rmdir { parent, name }.into()),
        (inodes(), names(), inodes(), names(), modes).prop_map(
            |(parent, name, new_parent, new_name, mode)| {
                NameCommand::Rename { parent, name, new_parent, new_name, mode }.into()
            }
        ),
    ]
}

fn file_commands() -> impl Strategy<Value = Command> {
    let modes = prop_oneof![Just(XattrMode::Any), Just(XattrMode::Create), Just(XattrMode::Replace)];
    let committed = (indexes(), chunks(), versions(), any::<bool>())
        .prop_map(|(index, chunk, version, release)| CommittedChunk { index, chunk, version, release });
    prop_oneof![
        (inodes(), changes(), option::of(sessions()))
            .prop_map(|(inode, change, session)| AttrCommand::SetAttr { inode, change, session }.into()),
        (inodes(), payload(), payload(), modes)
            .prop_map(|(inode, name, value, mode)| AttrCommand::SetXattr { inode, name, value, mode }.into()),
        (inodes(), payload()).prop_map(|(inode, name)| AttrCommand::RemoveXattr { inode, name }.into()),
        (sessions(), inodes(), indexes(), [servers(), servers(), servers()], any::<[bool; 2]>()).prop_map(
            |(session, inode, index, [candidates, failed, up], [nothing_written, renew])| {
                ContentCommand::GrantWrite {
                    session,
                    inode,
                    index,
                    candidates,
                    failed,
                    up,
                    nothing_written,
                    renew,
                }
                .into()
            }
        ),
        (sessions(), inodes(), any::<u64>(), option::of(times()), vec(committed, 0..4)).prop_map(
            |(session, inode, size_at_least, mtime, chunks)| ContentCommand::CommitWrite {
                session,
                inode,
                size_at_least,
                mtime,
                chunks
            }
            .into()
        ),
        (inodes(), any::<u32>(), any::<bool>(), payload()).prop_map(|(inode, offset, append, data)| {
            ContentCommand::WriteInline { inode, offset, append, data }.into()
        }),
        (sessions(), inodes(), vec(indexes(), 0..5)).prop_map(|(session, inode, indexes)| {
            ContentCommand::ReleaseLease { session, inode, indexes }.into()
        }),
    ]
}

pub(crate) fn entries() -> impl Strategy<Value = Entry> {
    let request = (sessions(), any::<u64>(), any::<u64>())
        .prop_map(|(session, seq, acked_below)| Request { id: RequestId { session, seq }, acked_below });
    let change = prop_oneof![2 => name_commands(), 1 => file_commands()];
    let batch = vec(change, 1..5)
        .prop_filter_map("no batch", |changes| Some(CommandBatch::new(changes).ok()?.into()));
    let command = prop_oneof![
        4 => cluster_commands(),
        4 => name_commands(),
        4 => file_commands(),
        2 => class_commands(),
        1 => batch
    ];
    (times(), option::of(request), command).prop_map(|(stamp, request, command)| Entry {
        stamp,
        request,
        command,
    })
}

pub(crate) fn responses() -> impl Strategy<Value = Response> {
    let numbers = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let attr = (
        inodes(),
        any::<u64>(),
        kinds(),
        numbers,
        [any::<u64>(), any::<u64>()],
        [times(), times(), times(), times()],
    );
    let attrs = attr.prop_map(|(inode, generation, kind, (mode, uid, gid, nlink, rdev), sizes, times)| {
        let ([size, content_version], [atime, mtime, ctime, btime]) = (sizes, times);
        Attr {
            inode,
            generation,
            kind,
            mode,
            uid,
            gid,
            nlink,
            rdev,
            size,
            atime,
            mtime,
            ctime,
            btime,
            content_version,
        }
    });
    let attrs = attrs.boxed();
    let grant = (
        chunks(),
        [versions(), versions()],
        servers(),
        any::<u32>(),
        option::of(payload()),
        any::<bool>(),
        attrs.clone(),
    );
    let grant =
        grant.prop_map(|(chunk, [base_version, version], servers, valid_length, inline, fresh, attr)| {
            Grant { chunk, base_version, version, servers, valid_length, inline, fresh, attr }
        });
    let one = prop_oneof![
        Just(Response::Done),
        attrs.prop_map(Response::Attr),
        sessions().prop_map(Response::Session),
        any::<u32>().prop_map(|raw| Response::Server(ServerId::from_raw(raw))),
        grant.prop_map(Response::Grant),
        any::<u16>().prop_map(|raw| Response::Class(ClassId::from_raw(raw))),
        any::<u32>().prop_map(Response::Changed),
        (0u32..30).prop_map(|code| Response::Refused(FsError::from_code(code))),
    ];
    prop_oneof![9 => one.clone(), 1 => vec(one, 0..5).prop_map(Response::Batch)]
}

fn sample_grant(session: SessionId, inode: InodeId, index: ChunkIndex, server: ServerId) -> Command {
    let (candidates, failed, up) = (vec![server], vec![], vec![server]);
    ContentCommand::GrantWrite {
        session,
        inode,
        index,
        candidates,
        failed,
        up,
        nothing_written: true,
        renew: false,
    }
    .into()
}

fn sample_change() -> SetAttr {
    SetAttr {
        mode: Some(0o644),
        uid: Some(1000),
        gid: None,
        size: Some(1 << 40),
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::At(TimeNs::from_raw(9))),
    }
}

pub(crate) fn sample_class() -> StorageClass {
    let goal = |text: &str| text.parse::<Goal>().unwrap();
    StorageClass {
        create: Some(goal("ssd")),
        archive: Some(goal("2B/[RACK]:strict")),
        trash: None,
        archive_length_min_bytes: 1 << 19,
        trash_retention_min_s: 300,
        strictness: Strictness::Loose,
        priority: 5,
        description: "for tests".to_owned(),
        ..StorageClass::new(ClassName::parse("gold").unwrap(), goal("A,B"))
    }
}

pub(crate) fn sample_place() -> ServerPlace {
    let labels = Labels::parse(&["A", "ssd"]).unwrap();
    ServerPlace { labels, region: "eu".to_owned(), rack: "r1".to_owned() }
}

/// Those of level 3.
fn commands_of_level_3() -> [Command; 12] {
    let (inode, class) = (InodeId::from_raw(300), ClassId::from_raw(300));
    let (chunk, version, server) = (ChunkId::from_raw(5), ChunkVersion::from_raw(6), ServerId::from_raw(7));
    [
        ClusterCommand::RaiseLevel { level: Level::CLASSES }.into(),
        ClusterCommand::RegisterServer {
            uuid: [3; 16],
            name: "cs1".to_owned(),
            address: "h:9422".to_owned(),
            place: Some(sample_place()),
        }
        .into(),
        ClassCommand::Create { class: Box::new(sample_class()) }.into(),
        ClassCommand::Change { id: class, class: Box::new(sample_class()) }.into(),
        ClassCommand::Remove { id: class }.into(),
        ClassCommand::Set { id: class, inodes: vec![inode, InodeId::ROOT] }.into(),
        RepairCommand::BeginSettle { chunk, granted: version }.into(),
        RepairCommand::EndSettle { chunk, version }.into(),
        ClusterCommand::SetServerMode { server, mode: ServerMode::Normal }.into(),
        ClusterCommand::SetServerMode { server, mode: ServerMode::Draining }.into(),
        ClusterCommand::SetServerMode {
            server,
            mode: ServerMode::Maintenance { until: TimeNs::from_raw(9) },
        }
        .into(),
        ClusterCommand::ForgetServer { server }.into(),
    ]
}

/// One entry for each command.
pub(crate) fn sample_entries() -> Vec<Entry> {
    let (inode, parent) = (InodeId::from_raw(300), InodeId::ROOT);
    let name = || FileName::parse(b"name").unwrap();
    let session = SessionId::from_raw(2);
    let (chunk, version, server) = (ChunkId::from_raw(5), ChunkVersion::from_raw(6), ServerId::from_raw(7));
    let index = ChunkIndex::from_raw(8);
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let new = |kind, target| {
        NameCommand::Create { parent, name: name(), kind, mode: 0o755, uid: 1000, gid: 100, rdev: 0, target }
            .into()
    };
    let commands = [
        ClusterCommand::Bootstrap { cluster: ClusterId::from_bytes([0xab; 16]), copies: 2 }.into(),
        ClusterCommand::OpenSession { client: [1; 16], name: "host:/mnt".to_owned() }.into(),
        ClusterCommand::CloseSession { session }.into(),
        ClusterCommand::RegisterServer {
            uuid: [3; 16],
            name: "cs1".to_owned(),
            address: "h:9422".to_owned(),
            place: None,
        }
        .into(),
        new(FileKind::File, Bytes::new()),
        new(FileKind::Symlink, bytes("target")),
        NameCommand::Link { inode, new_parent: parent, new_name: name() }.into(),
        NameCommand::Unlink { parent, name: name() }.into(),
        NameCommand::Rmdir { parent, name: name() }.into(),
        NameCommand::Rename {
            parent,
            name: name(),
            new_parent: inode,
            new_name: name(),
            mode: RenameMode::Exchange,
        }
        .into(),
        AttrCommand::SetAttr { inode, change: sample_change(), session: Some(session) }.into(),
        AttrCommand::SetXattr {
            inode,
            name: bytes("user.a"),
            value: bytes("value"),
            mode: XattrMode::Replace,
        }
        .into(),
        AttrCommand::RemoveXattr { inode, name: bytes("user.a") }.into(),
        sample_grant(session, inode, index, server),
        ContentCommand::CommitWrite {
            session,
            inode,
            size_at_least: 4096,
            mtime: Some(TimeNs::from_raw(-1)),
            chunks: vec![CommittedChunk { index, chunk, version, release: true }],
        }
        .into(),
        ContentCommand::WriteInline { inode, offset: 10, append: true, data: bytes("data") }.into(),
        ContentCommand::ReleaseLease { session, inode, indexes: vec![index] }.into(),
        RepairCommand::AddReplica { chunk, version, server }.into(),
        RepairCommand::RemoveReplica { chunk, server }.into(),
        RepairCommand::ReapOrphans { inodes: vec![inode] }.into(),
        RepairCommand::ForgetDead { chunks: vec![chunk] }.into(),
        ClusterCommand::RaiseLevel { level: Level::IDENTITY }.into(),
        ClusterCommand::IndexChunks { from: ChunkId::from_raw(300), count: 1024 }.into(),
    ];
    let batch = CommandBatch::new(vec![commands[6].clone(), commands[15].clone()]);
    let commands = commands.into_iter().chain(commands_of_level_3()).chain(batch.map(Command::from));
    let request = Request { id: RequestId { session, seq: 1000 }, acked_below: 999 };
    let with = |(i, command)| {
        let stamp = TimeNs::from_raw(1_700_000_000_000_000_000);
        Entry { stamp, request: (i % 2 == 0).then_some(request), command }
    };
    commands.enumerate().map(with).collect()
}
