//! A lease that others want, for the tests of those who wait for it and of its recall.

use mooseng_protocol::pb;

use crate::core::testing::Leader;

/// A leader with a chunkserver and three sessions, each over the connection of its number; the first one has the lease
/// of the file's only chunk. The file, and the chunk.
pub(in crate::desk) fn held() -> (Leader, u64, pb::GrantWriteReply) {
    let mut leader = Leader::new();
    leader.serve_chunks(1);
    let sessions = [1, 2, 3].map(|client| leader.open(client));
    assert_eq!(sessions, [1, 2, 3]);
    for session in sessions {
        leader.ask(session, &pb::ResumeSessionRequest { session, ..Default::default() }).unwrap();
    }
    let create =
        pb::CreateRequest { meta: meta(1, 1), parent: 1, name: "f".into(), kind: 8, ..Default::default() };
    let inode = leader.ask(1, &create).unwrap().attr.unwrap().inode;
    let chunk = leader.ask(1, &grant(1, 2, inode)).unwrap();
    (leader, inode, chunk)
}

pub(in crate::desk) fn meta(session: u64, seq: u64) -> Option<pb::RequestMeta> {
    Some(pb::RequestMeta { session, seq, acked_below: seq })
}

pub(in crate::desk) fn grant(session: u64, seq: u64, inode: u64) -> pb::GrantWriteRequest {
    pb::GrantWriteRequest { meta: meta(session, seq), inode, ..Default::default() }
}

pub(in crate::desk) fn release(session: u64, seq: u64, inode: u64) -> pb::ReleaseLeaseRequest {
    pb::ReleaseLeaseRequest { meta: meta(session, seq), inode, indexes: vec![0] }
}
