//! The MooseNG client: a file system library, and its FUSE mount.
//!
//! [`Client`] is the file system without FUSE: tests and gateways use it as the mount does. What decides is in two pure
//! cores, which the simulator drives too: [`file`](mod@file) (what is known of a file and what happens next) and [`session`] (who
//! leads, what a failed request means, what is open). [`chunk`] is their vocabulary. Above them `fs` has the operations as
//! programs ask for them, beside them `edge` carries out what the cores ask for, and `fuse` and `mount` are the kernel's
//! side. No arrow runs upward.

pub mod chunk;
mod client;
mod config;
mod edge;
mod error;
pub mod file;
mod foreign;
mod fs;
mod fuse;
mod mount;
pub mod session;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use client::Client;
pub use config::{ClientConfig, FsyncMode};
pub use edge::inode::OpenFile;
pub use edge::messages;
pub use error::{ClientError, Loss, Unreadable};
pub use fs::{Caller, DirEntry, DirPage, FsStats, NewNode, RenameMode, XattrMode};
pub use mount::{is_dead_mount, run};

/// The result of a file system operation.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Takes a lock. A panic ends the process (the threads see to it), so what a poisoned lock guards is of no concern.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
