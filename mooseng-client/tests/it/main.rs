//! The client against masters and chunkservers of this process, with faults on demand.

#![expect(
    clippy::unwrap_used,
    reason = "tests; the exemption of clippy.toml does not reach functions beside them"
)]

mod calls;
mod fake;
mod files;
mod mount;

use std::sync::Arc;

use fake::World;
use mooseng_client::{Caller, Client, ClientConfig, NewNode, OpenFile};
use mooseng_types::{Attr, FileKind, FileName, InodeId};

fn config(masters: Vec<String>) -> ClientConfig {
    ClientConfig { masters, retry_ms: 3000, ..ClientConfig::default() }
}

fn client(world: &Arc<World>) -> Arc<Client> {
    let client = Client::connect(config(vec![world.master()]), fake::key()).unwrap();
    world.take_log();
    client
}

fn name(text: &str) -> FileName {
    FileName::parse(text.as_bytes()).unwrap()
}

fn file_node() -> NewNode {
    NewNode { kind: FileKind::File, mode: 0o644, rdev: 0, target: Vec::new(), caller: Caller::default() }
}

fn create(client: &Arc<Client>, text: &str) -> (Attr, Arc<OpenFile>) {
    client.create(InodeId::ROOT, &name(text), &file_node(), true).unwrap()
}

/// Bytes that differ from place to place.
fn pattern(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) ^ (i >> 8) ^ salt) as u8).collect()
}

fn read_all(client: &Arc<Client>, inode: InodeId) -> Vec<u8> {
    let file = client.open(inode).unwrap();
    let mut all = Vec::new();
    loop {
        let part = client.read(&file, all.len() as u64, 1 << 20).unwrap();
        if part.is_empty() {
            break;
        }
        all.extend_from_slice(&part);
    }
    client.release(&file);
    all
}
