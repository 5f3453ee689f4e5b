//! Every request and its reply by the number on the wire, and the conversions of what they carry: what decodes encodes
//! to something that decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooseng_protocol::convert;
use mooseng_protocol::pb;
use mooseng_protocol::recall::Recall;
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_types::{Attr, SetAttr};
use prost::Message;

/// Decodes and encodes; fields that are not known may be lost the first time, and nothing after that.
fn survives<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.len(), message.encoded_len());
    let again = M::decode(&encoded[..]).expect("what was encoded decodes");
    assert_eq!(again.encode_to_vec(), encoded);
    Some(message)
}

macro_rules! by_kind {
    ($kind:expr, $bytes:expr, $($request:ident)*) => {
        match $kind {
            $(<pb::$request as Rpc>::KIND => {
                survives::<pb::$request>($bytes);
                survives::<<pb::$request as Rpc>::Reply>($bytes);
                true
            })*
            _ => false,
        }
    };
}

fn request_and_reply(kind: u16, bytes: &[u8]) -> bool {
    by_kind!(kind, bytes,
        Hello Proof OpenSessionRequest ResumeSessionRequest CloseSessionRequest LookupRequest GetAttrRequest SetAttrRequest
        CreateRequest LinkRequest UnlinkRequest RmdirRequest RenameRequest ReaddirRequest ReadlinkRequest
        SetXattrRequest RemoveXattrRequest GetXattrRequest ListXattrRequest StatFsRequest OpenRequest ReleaseRequest
        LocateRequest GrantWriteRequest CommitWriteRequest WriteInlineRequest ReleaseLeaseRequest AcknowledgeRecallRequest
        Recall BatchRequest LeaderChanged RaftFrame SnapshotBegin SnapshotRows SnapshotEnd RegisterServerRequest HeartbeatRequest ChunkReportRequest DeleteChunks CopyChunk
        QuarantineChunks VerifyChunks ListQuarantineRequest RestoreQuarantinedRequest ScrubRequest
        WriteChunkRequest SyncChunkRequest TruncateChunkRequest ReadChunkRequest ClusterStatusRequest CheckRequest
        AddMasterRequest RemoveMasterRequest TransferLeaderRequest UpgradeRequest
    )
}

fn conversions(bytes: &[u8]) {
    if let Some(wire) = survives::<pb::Attr>(bytes)
        && let Ok(attr) = Attr::try_from(wire)
    {
        assert!(attr.mode <= 0o7777);
        assert_eq!(pb::Attr::from(attr), wire);
    }
    if let Some(wire) = survives::<pb::SetAttrRequest>(bytes)
        && let Ok(change) = SetAttr::try_from(&wire)
    {
        let again = pb::SetAttrRequest::new(wire.meta.unwrap_or_default(), inode(&wire), change);
        assert_eq!(SetAttr::try_from(&again), Ok(change));
    }
    if let Some(wire) = survives::<pb::RequestMeta>(bytes)
        && let Ok((id, acked_below)) = convert::request_id(Some(&wire))
    {
        assert!(id.seq != 0 && acked_below <= id.seq);
        assert_eq!((id.session.raw(), id.seq, acked_below), (wire.session, wire.seq, wire.acked_below));
    }
    if let Some(wire) = survives::<pb::Recall>(bytes)
        && let Ok(recall) = Recall::try_from(wire)
    {
        assert_eq!(Recall::try_from(pb::Recall::from(recall)), Ok(recall));
    }
    survives::<pb::ErrorReply>(bytes);
}

fn inode(wire: &pb::SetAttrRequest) -> mooseng_types::InodeId {
    mooseng_types::InodeId::from_raw(wire.inode)
}

fuzz_target!(
    init: {
        for kind in 0..=u16::MAX {
            assert_eq!(request_and_reply(kind, &[]), rpc::name(kind) != "unknown", "kind {kind:#06x} is left out");
        }
    },
    |data: &[u8]| {
        let Some((kind, bytes)) = data.split_first_chunk::<2>() else { return };
        match u16::from_le_bytes(*kind) {
            0 => conversions(bytes),
            kind => drop(request_and_reply(kind, bytes)),
        }
    }
);
