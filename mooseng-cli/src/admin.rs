//! Calls to the masters, for the commands.

mod status;

use std::time::Duration;

use anyhow::{Context as _, bail};
use mooseng_env::{Clock as _, SystemClock};
use mooseng_protocol::pb;
use mooseng_protocol::rpc::Rpc;
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::level::SUPPORTED;

use crate::Target;
use crate::up::layout::Layout;

pub(crate) use status::{ClusterStatus, Master, cluster_status};

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(60);
/// How long a leader is waited for.
const LEADER: Duration = Duration::from_secs(10);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Masters spoken to, told ones included: twice what a configuration can name.
const MASTERS_MAX: usize = 32;

/// The addresses of the masters to speak to.
pub(crate) fn masters(target: &Target) -> anyhow::Result<Vec<String>> {
    if !target.master.is_empty() {
        return Ok(target.master.clone());
    }
    let Some(data) = &target.data else {
        bail!("which cluster? give --data DIR (or MOOSENG_DATA), or --master ADDR,ADDR");
    };
    let layout = Layout::load(data)?.with_context(|| {
        format!("{} holds no cluster: make one with `mooseng up --data DIR`", data.display())
    })?;
    Ok(layout.masters.iter().map(|master| master.address.clone()).collect())
}

fn hello() -> pb::Hello {
    pb::Hello::new(pb::Role::Admin, "mooseng", None, SUPPORTED)
}

fn ask<R: Rpc>(address: &str, request: &R, answer: Duration) -> Result<R::Reply, CallError> {
    FrameStream::connect(address, &hello(), CONNECT)?.0.call(request, &[], answer)
}

/// Asks one master after the other, and whom they take for the leader, until the leader answers.
pub(crate) fn ask_leader<R: Rpc>(masters: &[String], request: &R) -> anyhow::Result<R::Reply> {
    ask_leader_within(masters, request, ANSWER)
}

/// The same for what may take longer, once it is begun.
pub(crate) fn ask_leader_within<R: Rpc>(
    masters: &[String],
    request: &R,
    answer: Duration,
) -> anyhow::Result<R::Reply> {
    let clock = SystemClock::default();
    let mut masters = masters.to_vec();
    let mut last = None;
    while clock.monotonic() < LEADER {
        let mut next = 0;
        while let Some(address) = masters.get(next).cloned() {
            next += 1;
            match ask(&address, request, answer) {
                Ok(reply) => return Ok(reply),
                Err(error) if error.is_retryable() => {
                    if let CallError::NotLeader { leader: Some(leader) } = &error {
                        learn(&mut masters, leader);
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
    bail!("no leader among {}{why}: are a majority of the masters running?", masters.join(", "))
}

/// Adds a master that was told of.
fn learn(masters: &mut Vec<String>, address: &str) {
    if masters.len() < MASTERS_MAX && !masters.iter().any(|known| known == address) {
        masters.push(address.to_owned());
    }
}
