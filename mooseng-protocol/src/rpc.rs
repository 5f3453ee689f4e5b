//! Every request with its number on the wire and its reply. Numbers are never reused.

use crate::pb;

/// A request that travels as one frame.
pub trait Rpc: prost::Message + Default {
    /// The number in the frame's header.
    const KIND: u16;
    /// The name in logs and metrics.
    const NAME: &'static str;
    /// What answers it; `Empty` for one-way requests and pushes.
    type Reply: prost::Message + Default;
}

macro_rules! rpcs {
    ($($kind:literal $request:ident => $reply:ident,)*) => {
        $(impl Rpc for pb::$request {
            const KIND: u16 = $kind;
            const NAME: &'static str = stringify!($request);
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

        #[cfg(test)]
        const KINDS: &[u16] = &[$($kind,)*];
    };
}

rpcs! {
    0x0001 Hello => HelloReply,

    0x0101 OpenSessionRequest => OpenSessionReply,
    0x0102 ResumeSessionRequest => ResumeSessionReply,
    0x0103 CloseSessionRequest => Empty,
    0x0104 LookupRequest => AttrReply,
    0x0105 GetAttrRequest => AttrReply,
    0x0106 SetAttrRequest => AttrReply,
    0x0107 CreateRequest => AttrReply,
    0x0108 LinkRequest => AttrReply,
    0x0109 UnlinkRequest => Empty,
    0x010a RmdirRequest => Empty,
    0x010b RenameRequest => Empty,
    0x010c ReaddirRequest => ReaddirReply,
    0x010d ReadlinkRequest => ReadlinkReply,
    0x010e SetXattrRequest => Empty,
    0x010f RemoveXattrRequest => Empty,
    0x0110 GetXattrRequest => GetXattrReply,
    0x0111 ListXattrRequest => ListXattrReply,
    0x0112 StatFsRequest => StatFsReply,
    0x0113 OpenRequest => OpenReply,
    0x0114 ReleaseRequest => Empty,
    0x0115 LocateRequest => LocateReply,
    0x0116 GrantWriteRequest => GrantWriteReply,
    0x0117 CommitWriteRequest => AttrReply,
    0x0118 WriteInlineRequest => AttrReply,
    0x0119 ReleaseLeaseRequest => Empty,
    0x011a BatchRequest => BatchReply,
    0x0180 RecallLease => Empty,
    0x0181 LeaderChanged => Empty,

    0x0201 RaftMessages => Empty,
    0x0202 SnapshotBegin => Empty,
    0x0203 SnapshotRows => Empty,
    0x0204 SnapshotEnd => Empty,

    0x0301 RegisterServerRequest => RegisterServerReply,
    0x0302 HeartbeatRequest => HeartbeatReply,
    0x0303 ChunkReportRequest => ChunkReportReply,
    0x0380 DeleteChunks => Empty,
    0x0381 CopyChunk => Empty,

    0x0401 WriteChunkRequest => WriteChunkReply,
    0x0402 SyncChunkRequest => SyncChunkReply,
    0x0403 TruncateChunkRequest => TruncateChunkReply,
    0x0404 ReadChunkRequest => ReadChunkReply,

    0x0501 ClusterStatusRequest => ClusterStatusReply,
    0x0502 CheckRequest => CheckReply,
    0x0503 AddMasterRequest => MembershipReply,
    0x0504 RemoveMasterRequest => MembershipReply,
    0x0505 TransferLeaderRequest => TransferLeaderReply,
    0x0506 UpgradeRequest => UpgradeReply,
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
