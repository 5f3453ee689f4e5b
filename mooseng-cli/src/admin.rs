//! Calls to the masters, for the commands.

mod chunks;
mod door;
mod status;

use std::time::Duration;

use anyhow::{Context as _, bail};
use mooseng_env::secret::Secret;
use mooseng_env::{Clock as _, SystemClock, nonce};
use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::principal::PrincipalKey;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::level::SUPPORTED;

use crate::Target;
use crate::up::layout::{ADMIN_KEY, Layout};

#[cfg(test)]
pub(crate) use chunks::{ChunkCount, ConditionCount};
pub(crate) use chunks::{ChunkHealth, chunk_health, condition_name};
pub(crate) use status::{ClusterStatus, Master, Server, cluster_status};

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(60);
/// How long a leader is waited for.
const LEADER: Duration = Duration::from_secs(10);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Masters spoken to, told ones included: twice what a configuration can name.
const MASTERS_MAX: usize = 32;

/// Where the administrator's key is unless told otherwise.
const KEY_FILE: &str = "/etc/mooseng/admin.key";

/// The masters to speak to, and how to prove that an administrator does.
#[derive(Clone, Debug)]
pub(crate) struct Masters {
    pub(crate) addresses: Vec<String>,
    caller: Caller,
}

impl Masters {
    /// Those at these addresses.
    pub(crate) fn new(addresses: Vec<String>, key: PrincipalKey) -> Self {
        let hello = pb::Hello::new(pb::Role::Admin, "mooseng", None, SUPPORTED);
        Self { addresses, caller: Caller::new(hello, key, nonce) }
    }

    /// The same, and those that the status tells of.
    pub(crate) fn with_told(mut self, status: &ClusterStatus) -> Self {
        self.addresses.extend(status.addresses());
        self.addresses.sort();
        self.addresses.dedup();
        self
    }

    /// Asks a chunkserver itself.
    pub(crate) fn ask_server<R: Rpc>(&self, server: &Server, request: &R) -> anyhow::Result<R::Reply> {
        match self.ask(&server.address, request, ANSWER) {
            Err(CallError::Rejected { message }) => bail!("{}: {message}", server.name),
            answer => answer.with_context(|| format!("{} at {}", server.name, server.address)),
        }
    }

    fn ask<R: Rpc>(&self, address: &str, request: &R, answer: Duration) -> Result<R::Reply, CallError> {
        FrameStream::connect(address, &self.caller, CONNECT)?.0.call(request, &[], answer)
    }
}

/// The masters that the command line names.
pub(crate) fn masters(target: &Target) -> anyhow::Result<Masters> {
    let addresses = if target.master.is_empty() { masters_of_data(target)? } else { target.master.clone() };
    let in_data = target.data.as_ref().filter(|_| target.master.is_empty()).map(|data| data.join(ADMIN_KEY));
    let path = target.key_file.clone().or(in_data).unwrap_or_else(|| KEY_FILE.into());
    let remedy =
        "give the administrator's key with --key-file; `mooseng key admin` makes it from the cluster's key";
    Ok(Masters::new(addresses, PrincipalKey::new(Secret::load(&path, remedy)?.bytes())))
}

fn masters_of_data(target: &Target) -> anyhow::Result<Vec<String>> {
    let Some(data) = &target.data else {
        bail!("which cluster? give --data DIR (or MOOSENG_DATA), or --master ADDR,ADDR");
    };
    let layout = Layout::load(data)?.with_context(|| {
        format!("{} holds no cluster: make one with `mooseng up --data DIR`", data.display())
    })?;
    Ok(layout.masters.iter().map(|master| master.address.clone()).collect())
}

/// Asks one master after the other, and whom they take for the leader, until the leader answers.
pub(crate) fn ask_leader<R: Rpc>(masters: &Masters, request: &R) -> anyhow::Result<R::Reply> {
    ask_leader_within(masters, request, ANSWER)
}

/// The same for what may take longer, once it is begun.
pub(crate) fn ask_leader_within<R: Rpc>(
    masters: &Masters,
    request: &R,
    answer: Duration,
) -> anyhow::Result<R::Reply> {
    let clock = SystemClock::default();
    let mut addresses = masters.addresses.clone();
    let mut last = None;
    while clock.monotonic() < LEADER {
        let mut next = 0;
        while let Some(address) = addresses.get(next).cloned() {
            next += 1;
            match masters.ask(&address, request, answer) {
                Ok(reply) => return Ok(reply),
                Err(error) if error.is_retryable() => {
                    if let CallError::NotLeader { leader: Some(leader) } = &error {
                        learn(&mut addresses, leader);
                    }
                    last = Some(error);
                }
                Err(CallError::Rejected { message }) => bail!("{message}"),
                Err(error) => return Err(error.into()),
            }
        }
        clock.sleep(PAUSE);
    }
    let why = last.map_or_else(String::new, |error| format!(" ({:#})", anyhow::Error::from(error)));
    bail!("no leader among {}{why}: are a majority of the masters running?", addresses.join(", "))
}

/// Adds a master that was told of.
fn learn(addresses: &mut Vec<String>, address: &str) {
    if addresses.len() < MASTERS_MAX && !addresses.iter().any(|known| known == address) {
        addresses.push(address.to_owned());
    }
}
