//! The MooseNG chunkserver: chunk store, write chain, zero-copy reads.
//!
//! In reading order: what decides, without sockets, threads and clocks: [`Request`] (`request.rs`, what a request means),
//! [`Completion`] and [`blame`] (`completion.rs`, what a request comes to that passes several servers), `store.rs` (what is
//! on the disks), [`Talk`] (`talk.rs`, what the masters hear), `order.rs` (what they order), `fetch.rs` (a copy that is
//! fetched), `keeper.rs` (what is read to be checked) and `admin.rs` (what an administrator asks). [`ChunkEngine`] is all of it
//! in one hand, for the simulator. Then what carries it out: [`Config`], [`run`] (`start.rs`, the program),
//! [`ChunkServer`] (`server.rs`, how it is put together), `connection.rs`, `outbox.rs`, `write_chain.rs` (servers behind
//! this one), `master_link.rs`, `orders.rs`, `fetcher.rs` and `housekeeping.rs`.

mod admin;
mod buffer;
mod completion;
mod config;
mod connection;
mod copy_events;
mod engine;
mod epoch;
mod fetch;
mod fetch_queue;
mod fetcher;
mod housekeeping;
mod identity;
mod io_pool;
mod keeper;
mod master_link;
mod order;
mod orders;
mod outbox;
mod pages;
mod request;
mod scrub;
mod scrub_file;
mod server;
mod start;
mod store;
mod talk;
mod token_bucket;
mod write_chain;
mod zero_copy;

pub use completion::{Completion, blame, fault};
pub use config::Config;
pub use engine::{BytesRead, ChunkEngine, Now};
pub use fetch::{Fetch, FetchError};
pub use request::{Request, Tokens};
pub use server::ChunkServer;
pub use start::{StartError, run};
pub use store::StoreError;
/// Open to the fuzz target of this decoder, and to nobody else.
#[doc(hidden)]
pub use store::sidecar;
pub use talk::{Say, Talk, Teller};
