//! The gRPC facade: every request of the framed transport as a unary call, with health and reflection, so that any
//! language and `grpcurl` can use them. Each call goes into the loop as the frame would have.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::{DESCRIPTORS, pb};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::server::Inbox;

#[derive(Clone, Debug)]
struct Facade {
    inbox: Arc<Inbox>,
}

impl Facade {
    /// Sends a request through the loop. Cancellation safe: a call given up is still done, as on any lost connection.
    async fn forward<R: Rpc>(&self, request: Request<R>) -> Result<Response<R::Reply>, Status> {
        let (reply, answer) = oneshot::channel();
        let body: Bytes = request.into_inner().encode_to_vec().into();
        self.inbox.request(R::KIND, body, reply).map_err(|error| error.to_grpc())?;
        let gone = |_| CallError::Unavailable { message: "the master is stopping".into() }.to_grpc();
        let body = answer.await.map_err(gone)?.map_err(|error| error.to_grpc())?;
        R::Reply::decode(body).map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }
}

macro_rules! forward {
    ($service:path { $($method:ident($request:ident) -> $reply:ident;)* }) => {
        #[tonic::async_trait]
        impl $service for Facade {
            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                self.forward(request).await
            })*
        }
    };
}

forward!(pb::metadata_server::Metadata {
    open_session(OpenSessionRequest) -> OpenSessionReply;
    resume_session(ResumeSessionRequest) -> ResumeSessionReply;
    close_session(CloseSessionRequest) -> Empty;
    lookup(LookupRequest) -> AttrReply;
    get_attr(GetAttrRequest) -> AttrReply;
    set_attr(SetAttrRequest) -> AttrReply;
    create(CreateRequest) -> AttrReply;
    link(LinkRequest) -> AttrReply;
    unlink(UnlinkRequest) -> Empty;
    rmdir(RmdirRequest) -> Empty;
    rename(RenameRequest) -> Empty;
    readdir(ReaddirRequest) -> ReaddirReply;
    readlink(ReadlinkRequest) -> ReadlinkReply;
    set_xattr(SetXattrRequest) -> Empty;
    remove_xattr(RemoveXattrRequest) -> Empty;
    get_xattr(GetXattrRequest) -> GetXattrReply;
    list_xattr(ListXattrRequest) -> ListXattrReply;
    stat_fs(StatFsRequest) -> StatFsReply;
    open(OpenRequest) -> OpenReply;
    release(ReleaseRequest) -> Empty;
    locate(LocateRequest) -> LocateReply;
    grant_write(GrantWriteRequest) -> GrantWriteReply;
    commit_write(CommitWriteRequest) -> AttrReply;
    write_inline(WriteInlineRequest) -> AttrReply;
    release_lease(ReleaseLeaseRequest) -> Empty;
    batch(BatchRequest) -> BatchReply;
});

forward!(pb::admin_server::Admin {
    cluster_status(ClusterStatusRequest) -> ClusterStatusReply;
    check(CheckRequest) -> CheckReply;
    add_master(AddMasterRequest) -> MembershipReply;
    remove_master(RemoveMasterRequest) -> MembershipReply;
    transfer_leader(TransferLeaderRequest) -> TransferLeaderReply;
    upgrade(UpgradeRequest) -> UpgradeReply;
    chunk_health(ChunkHealthRequest) -> ChunkHealthReply;
    list_chunks(ListChunksRequest) -> ListChunksReply;
    list_classes(ListClassesRequest) -> ListClassesReply;
    put_class(PutClassRequest) -> PutClassReply;
    remove_class(RemoveClassRequest) -> RemoveClassReply;
    set_class(SetClassRequest) -> SetClassReply;
    explain_class(ExplainClassRequest) -> ExplainClassReply;
    set_server_mode(SetServerModeRequest) -> SetServerModeReply;
    forget_server(ForgetServerRequest) -> Empty;
});

/// Serves gRPC on an address that is bound already, until `stop` fires. Runs a runtime of its own on the calling
/// thread: what is slow here slows nothing else.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    inbox: Arc<Inbox>,
    stop: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let incoming = TcpListenerStream::new(TcpListener::from_std(listener)?);
        let facade = Facade { inbox };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<pb::metadata_server::MetadataServer<Facade>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .build_v1()?;
        Server::builder()
            .add_service(pb::metadata_server::MetadataServer::new(facade.clone()))
            .add_service(pb::admin_server::AdminServer::new(facade))
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, async move {
                // A sender that is gone means stop as well.
                drop(stop.await);
            })
            .await?;
        Ok(())
    })
}

/// Binds the facade's address.
pub(crate) fn bind(address: &str) -> std::io::Result<std::net::TcpListener> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    std::net::TcpListener::bind(address)
}
