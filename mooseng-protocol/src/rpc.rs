//! Every request with its number on the wire, the roles that may send it, and its reply. Numbers are never reused.

use crate::pb;
use crate::principal::Role;

/// A request that travels as one frame.
pub trait Rpc: prost::Message + Default {
    /// The number in the frame's header.
    const KIND: u16;
    /// The name in logs and metrics.
    const NAME: &'static str;
    /// Who may send it.
    const SENDERS: &'static [Role];
    /// What answers it; `Empty` for one-way requests and pushes.
    type Reply: prost::Message + Default;
}

macro_rules! rpcs {
    ($($kind:literal $request:ident [$($role:ident)*] => $reply:ident,)*) => {
        $(impl Rpc for pb::$request {
            const KIND: u16 = $kind;
            const NAME: &'static str = stringify!($request);
            const SENDERS: &'static [Role] = &[$(Role::$role,)*];
            type Reply = pb::$reply;
        })*

        /// The name of the request with this number, for logs and metrics.
        #[must_use]
        pub fn name(kind: u16) -> &'static str {
            match kind {
                $($kind => stringify!($request),)*
                _ => "unknown",
            }
        }

        /// The roles that may send the request with this number: none, if there is no such request.
        #[must_use]
        pub fn senders(kind: u16) -> &'static [Role] {
            match kind {
                $($kind => <pb::$request as Rpc>::SENDERS,)*
                _ => &[],
            }
        }

        /// The numbers of all requests.
        pub const KINDS: &[u16] = &[$($kind,)*];
    };
}

rpcs! {
    // The handshake comes before the roles: nobody sends these afterwards.
    0x0001 Hello [] => Challenge,
    0x0002 Proof [] => Welcome,

    0x0101 OpenSessionRequest [Client] => OpenSessionReply,
    0x0102 ResumeSessionRequest [Client] => ResumeSessionReply,
    0x0103 CloseSessionRequest [Client] => Empty,
    0x0104 LookupRequest [Client] => AttrReply,
    0x0105 GetAttrRequest [Client] => AttrReply,
    0x0106 SetAttrRequest [Client] => AttrReply,
    0x0107 CreateRequest [Client] => AttrReply,
    0x0108 LinkRequest [Client] => AttrReply,
    0x0109 UnlinkRequest [Client] => Empty,
    0x010a RmdirRequest [Client] => Empty,
    0x010b RenameRequest [Client] => Empty,
    0x010c ReaddirRequest [Client] => ReaddirReply,
    0x010d ReadlinkRequest [Client] => ReadlinkReply,
    0x010e SetXattrRequest [Client] => Empty,
    0x010f RemoveXattrRequest [Client] => Empty,
    0x0110 GetXattrRequest [Client] => GetXattrReply,
    0x0111 ListXattrRequest [Client] => ListXattrReply,
    0x0112 StatFsRequest [Client] => StatFsReply,
    0x0113 OpenRequest [Client] => OpenReply,
    0x0114 ReleaseRequest [Client] => Empty,
    0x0115 LocateRequest [Client] => LocateReply,
    0x0116 GrantWriteRequest [Client] => GrantWriteReply,
    0x0117 CommitWriteRequest [Client] => AttrReply,
    0x0118 WriteInlineRequest [Client] => AttrReply,
    0x0119 ReleaseLeaseRequest [Client] => Empty,
    0x011a BatchRequest [Client] => BatchReply,
    0x011b AcknowledgeRecallRequest [Client] => Empty,
    0x0180 Recall [Master] => Empty,
    0x0181 LeaderChanged [Master] => Empty,

    0x0201 RaftFrame [Master] => Empty,
    0x0202 SnapshotBegin [Master] => Empty,
    0x0203 SnapshotRows [Master] => Empty,
    0x0204 SnapshotEnd [Master] => Empty,

    0x0301 RegisterServerRequest [Chunkserver] => RegisterServerReply,
    0x0302 HeartbeatRequest [Chunkserver] => HeartbeatReply,
    0x0303 ChunkReportRequest [Chunkserver] => ChunkReportReply,
    0x0380 DeleteChunks [Master] => Empty,
    0x0381 CopyChunk [Master] => Empty,
    0x0382 QuarantineChunks [Master] => Empty,
    0x0383 VerifyChunks [Master] => Empty,
    0x0384 SettleChunk [Master] => Empty,

    0x0401 WriteChunkRequest [Client Chunkserver] => WriteChunkReply,
    0x0402 SyncChunkRequest [Client Chunkserver] => SyncChunkReply,
    0x0403 TruncateChunkRequest [Client Chunkserver] => TruncateChunkReply,
    0x0404 ReadChunkRequest [Client Chunkserver] => ReadChunkReply,
    0x0405 ListQuarantineRequest [Admin] => ListQuarantineReply,
    0x0406 RestoreQuarantinedRequest [Admin] => Empty,
    0x0407 ScrubRequest [Admin] => Empty,

    0x0501 ClusterStatusRequest [Client Admin] => ClusterStatusReply,
    0x0502 CheckRequest [Client Admin] => CheckReply,
    0x0503 AddMasterRequest [Admin] => MembershipReply,
    0x0504 RemoveMasterRequest [Admin] => MembershipReply,
    0x0505 TransferLeaderRequest [Admin] => TransferLeaderReply,
    0x0506 UpgradeRequest [Admin] => UpgradeReply,
    0x0510 ChunkHealthRequest [Client Admin] => ChunkHealthReply,
    0x0511 ListChunksRequest [Client Admin] => ListChunksReply,
    0x0520 ListClassesRequest [Client Admin] => ListClassesReply,
    0x0521 PutClassRequest [Admin] => PutClassReply,
    0x0522 RemoveClassRequest [Admin] => RemoveClassReply,
    0x0523 SetClassRequest [Admin] => SetClassReply,
    0x0524 ExplainClassRequest [Client Admin] => ExplainClassReply,
    0x0530 SetServerModeRequest [Admin] => SetServerModeReply,
    0x0531 ForgetServerRequest [Admin] => Empty,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_used_twice() {
        for (i, kind) in KINDS.iter().enumerate() {
            assert!(!KINDS[..i].contains(kind), "{}", name(*kind));
        }
    }
}
