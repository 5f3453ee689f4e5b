//! The MooseNG client: a file system library, and its FUSE mount.
//!
//! [`Client`] is the file system without FUSE: tests, gateways and the simulator use it as the mount does. It calls
//! the masters on connections that one caller holds at a time, so that a metadata operation passes through no other
//! thread of this process, and moves file data through a bounded write buffer and a bounded cache of pieces read
//! ahead. The cores that decide ([`write_buffer`], [`read_ahead`], [`request_ids`]) do no I/O.

mod backoff;
mod budget;
mod chunk_client;
mod client;
mod config;
mod data_cache;
mod errno;
mod fs;
mod fuse;
mod inode;
mod master_client;
mod mount;
mod read_ahead;
mod reader;
mod request_ids;
mod session;
mod wire;
mod workers;
mod write_buffer;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use client::Client;
pub use config::{ClientConfig, ConfigError, FsyncMode};
pub use errno::ClientError;
pub use fs::{Caller, DirEntry, DirPage, FsStats, NewNode, RenameMode, XattrMode};
pub use inode::OpenFile;
pub use mount::run;

/// The result of a file system operation.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Takes a lock. A panic ends the process (the threads see to it), so what a poisoned lock guards is of no concern.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
