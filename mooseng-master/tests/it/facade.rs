//! The gRPC facade of a real master process: the same answers as over frames, health, and a clean end.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mooseng_env::{Clock as _, SystemClock};
use mooseng_protocol::door::Snapshot;
use mooseng_protocol::pb;
use mooseng_protocol::pb::admin_client::AdminClient;
use mooseng_protocol::pb::metadata_client::MetadataClient;
use mooseng_protocol::rpc::Rpc as _;
use mooseng_types::FileKind;
use tonic::transport::Channel;
use tonic::{Code, Status};

const LIMIT: Duration = Duration::from_secs(20);

struct Master {
    child: Child,
    _dir: tempfile::TempDir,
    grpc: String,
}

impl Master {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |i: usize| held[i].local_addr().unwrap().to_string();
        let (listen, grpc) = (address(0), address(1));
        drop(held);
        let key = dir.path().join("key");
        std::fs::write(&key, "ab".repeat(32)).unwrap();
        let config = format!(
            "data = \"{0}/data\"\nlisten = \"{listen}\"\ngrpc_listen = \"{grpc}\"\ncluster_id = \"{1}\"\nkey_file = \"{0}/key\"\n",
            dir.path().display(),
            "12".repeat(16),
        );
        let path = dir.path().join("config.toml");
        std::fs::write(&path, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mooseng-master"))
            .arg("--config")
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, _dir: dir, grpc }
    }

    async fn channel(&self) -> Channel {
        let (start, clock) = (Instant::now(), SystemClock::default());
        loop {
            match Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await {
                Ok(channel) => return channel,
                Err(error) => assert!(start.elapsed() < LIMIT, "no gRPC: {error}"),
            }
            clock.sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // It has ended already if this fails.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks again while the lone master is still being elected and founded.
async fn settled<T, F: Future<Output = Result<T, Status>>>(mut call: impl FnMut() -> F) -> Result<T, Status> {
    let (start, clock) = (Instant::now(), SystemClock::default());
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable && start.elapsed() < LIMIT => {}
            other => return other,
        }
        clock.sleep(Duration::from_millis(20));
    }
}

async fn works(master: &Master) {
    let channel = master.channel().await;
    let metadata = MetadataClient::new(channel.clone());
    let open = pb::OpenSessionRequest {
        client_id: vec![1; 16].into(),
        name: "grpc".into(),
        replaces: false,
        cell: 0,
    };
    let session = settled(|| {
        let (mut metadata, open) = (metadata.clone(), open.clone());
        async move { metadata.open_session(open).await }
    });
    let session = session.await.unwrap().into_inner().session;
    let mut metadata = metadata;
    let mkdir = |seq| pb::CreateRequest {
        meta: Some(pb::RequestMeta { session, seq, acked_below: 1 }),
        parent: 1,
        name: "dir".into(),
        kind: FileKind::Directory.raw().into(),
        mode: 0o755,
        ..Default::default()
    };
    let made = metadata.create(mkdir(1)).await.unwrap().into_inner().attr.unwrap();
    assert_eq!(metadata.create(mkdir(1)).await.unwrap().into_inner().attr.unwrap(), made, "done once");
    assert_eq!(metadata.create(mkdir(2)).await.unwrap_err().code(), Code::AlreadyExists);
    let lookup = pb::LookupRequest { parent: 1, name: "dir".into() };
    assert_eq!(metadata.lookup(lookup).await.unwrap().into_inner().attr.unwrap(), made);
    let missing = pb::LookupRequest { parent: 1, name: "none".into() };
    assert_eq!(metadata.lookup(missing).await.unwrap_err().code(), Code::NotFound);
    let status = AdminClient::new(channel.clone()).cluster_status(pb::ClusterStatusRequest {}).await.unwrap();
    let status = status.into_inner();
    assert_eq!(status.masters[0].role, "leader");
    let door = Snapshot::from(status.door.unwrap());
    let passed = |kind| door.of(kind).map(|row| (row.requests, row.refused, row.under_way()));
    assert_eq!(passed(pb::CreateRequest::KIND), Some((3, 1, 0)));
    assert_eq!(passed(pb::LookupRequest::KIND), Some((2, 1, 0)));
    // Nobody has proved anything here: it is a client's door.
    let remove = pb::RemoveMasterRequest { master: "1".into(), dry_run: false };
    let refused = AdminClient::new(channel).remove_master(remove).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[test]
fn grpc_gives_the_same_answers_as_frames() {
    let master = Master::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(works(&master));
}
